/*
 * The table's rows of every call, and a call as text: cuMemAlloc_v2(dptr 0x7f0000200000, bytesize 4096).
 *
 * For traces. Reads the caller's memory only where the table says that an output was written or that a string is.
 */
#ifndef CALL_FORMAT_H
#define CALL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "cuda_ops.h"

enum call_class { CALL_CLASS_LOCAL, CALL_CLASS_ASYNC, CALL_CLASS_SYNC };
enum call_dir { CALL_DIR_IN, CALL_DIR_OUT, CALL_DIR_OUT_OPTIONAL, CALL_DIR_INOUT, CALL_DIR_BUF };

/* How an argument is shown. OUT_ forms point to such a value. */
enum call_arg {
	CALL_ARG_I32, CALL_ARG_U32, CALL_ARG_U64, CALL_ARG_U8, CALL_ARG_U16, CALL_ARG_F32,
	CALL_ARG_PTR64,   /* a device address */
	CALL_ARG_POINTER, /* a handle or a host address */
	CALL_ARG_STR,     /* a C string of the caller */
	CALL_ARG_STRUCT,  /* by value, not shown */
	CALL_ARG_OUT_I32, CALL_ARG_OUT_U32, CALL_ARG_OUT_U64, CALL_ARG_OUT_F32, CALL_ARG_OUT_PTR64,
};

/* What a pointer points to, for src/call/pack.c: one element; as many as another parameter says; as many as another one points to; a C
 * string; bytes whose number a function tells from another parameter. VALUE: the parameter itself. NULL: anything else is not forwarded. */
enum call_shape { CALL_SHAPE_VALUE, CALL_SHAPE_ONE, CALL_SHAPE_ARRAY, CALL_SHAPE_ARRAY_AT, CALL_SHAPE_STRING, CALL_SHAPE_SIZED, CALL_SHAPE_NULL };
/* How a call is forwarded: as its rows say, by hand on both sides, made of other calls by the client, or not at all. */
enum call_wire { CALL_WIRE_ROWS, CALL_WIRE_HAND, CALL_WIRE_CLIENT, CALL_WIRE_NONE };

struct call_param {
	const char *name;
	enum call_arg arg;
	enum call_dir dir;
	enum call_shape shape;
	unsigned char other; /* index of the parameter that counts */
	signed char more;    /* ARRAY: added to the count; SIZED: which function */
	unsigned short size; /* of the value or of an element, in bytes */
};

/* Kinds of what a call can name, a bit each. SETTING: attributes of functions. OTHER: contexts, modules, functions, limits. */
enum {
	CALL_TOUCHES_STREAM = 1, CALL_TOUCHES_EVENT = 2, CALL_TOUCHES_GRAPH = 4, CALL_TOUCHES_MEMORY = 8, CALL_TOUCHES_SETTING = 16,
	CALL_TOUCHES_OTHER = 32, CALL_TOUCHES_ALL = 63,
};
#define CALL_TOUCHES_KINDS 6

struct call_desc {
	const char *name;
	enum call_class class;
	const struct call_param *params;
	unsigned param_count;
	enum call_wire wire;
	unsigned char touches; /* CALL_TOUCHES_*: the kinds that its parameters name, and OTHER */
	unsigned char first;   /* the kind of the first parameter, ALL if it is OTHER: what a call that ends something ends */
};

extern const struct call_desc call_descs[CALL_COUNT];

/*
 * Writes the call as text, cut at `size`; returns the length. args[i] points to argument i. Outputs are shown by value if
 * `ok`, else as pointers, because a failed call has not written them.
 */
size_t call_format(char *text, size_t size, enum cuda_call_id call, const void *const *args, bool ok);

/* CUDA_SUCCESS and so on; NULL for a value that is none. */
const char *call_error_name(int value);
const char *call_error_text(int value);

#endif
