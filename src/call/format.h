/*
 * The table's rows of every call, and a call as text: cuMemAlloc_v2(bytesize 4096) before it is made, {dptr 0x7f0000200000} after it.
 *
 * For traces. Memory of the program is copied by the kernel before it is looked at, so a pointer that points nowhere is shown as what it
 * is and faults where it would have faulted. What a `buf` or an unknown pointer points to is not shown.
 */
#ifndef CALL_FORMAT_H
#define CALL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "cuda_ops.h"

enum call_class { CALL_CLASS_LOCAL, CALL_CLASS_ASYNC, CALL_CLASS_SYNC };
/* BUF: host memory; _IN, _OUT: its size is known, and which way it is copied. */
enum call_dir { CALL_DIR_IN, CALL_DIR_OUT, CALL_DIR_OUT_OPTIONAL, CALL_DIR_INOUT, CALL_DIR_BUF, CALL_DIR_BUF_IN, CALL_DIR_BUF_OUT };

/* What a value is, and so how it is shown. */
enum call_kind {
	CALL_KIND_I32, CALL_KIND_U32, CALL_KIND_I64, CALL_KIND_U64, CALL_KIND_U8, CALL_KIND_U16, CALL_KIND_CHAR, CALL_KIND_F32, CALL_KIND_F64,
	CALL_KIND_HEX32, CALL_KIND_HEX64, /* flags */
	CALL_KIND_DEVPTR,  /* a device address */
	CALL_KIND_HANDLE,  /* an object of the driver, 8 bytes */
	CALL_KIND_POINTER, /* a host address */
	CALL_KIND_STRING,  /* a pointer to a C string */
	CALL_KIND_RESULT, CALL_KIND_ENUM, CALL_KIND_STRUCT,
	CALL_KIND_OPAQUE,  /* bytes of which nothing is known */
};

struct call_value {
	const char *name;
	int value;
};
struct call_field {
	const char *name;
	unsigned short type; /* index into call_types */
	unsigned short offset, count;
};
struct call_type {
	const char *name;
	enum call_kind kind;
	unsigned short size;  /* in bytes */
	unsigned short count; /* of values or fields */
	const struct call_value *values; /* ENUM */
	const struct call_field *fields; /* STRUCT */
};
extern const struct call_type call_types[];

/* What a pointer points to, for src/call/pack.c: one element; as many as another parameter says; as many as another one points to; a C
 * string; bytes whose number a function tells from another parameter. VALUE: the parameter itself. NULL: anything else is not forwarded. */
enum call_shape { CALL_SHAPE_VALUE, CALL_SHAPE_ONE, CALL_SHAPE_ARRAY, CALL_SHAPE_ARRAY_AT, CALL_SHAPE_STRING, CALL_SHAPE_SIZED, CALL_SHAPE_NULL };
/* How a call is forwarded: as its rows say, by hand on both sides, made of other calls by the client, or not at all. */
enum call_wire { CALL_WIRE_ROWS, CALL_WIRE_HAND, CALL_WIRE_CLIENT, CALL_WIRE_NONE };

struct call_param {
	const char *name;
	enum call_dir dir;
	enum call_shape shape;
	unsigned char other; /* index of the parameter that counts */
	signed char more;    /* ARRAY: added to the count; SIZED: which function */
	unsigned short size; /* of the value or of an element, in bytes */
	unsigned short type; /* of the value or of an element: index into call_types */
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
	bool outputs_always; /* outputs are written also when it fails */
	bool device;           /* a member of struct cuda_ops that the table does not refuse */
};

extern const struct call_desc call_descs[CALL_COUNT];

enum call_style { CALL_TEXT, CALL_JSON };

/*
 * What goes in: `name value, name value` or, as JSON, "name":value,"name":value. Written NUL-terminated and cut at `size`; returns the
 * length. args[i] points to argument i. To be called before the call is made.
 */
size_t call_format_inputs(char *text, size_t size, enum call_style style, enum cuda_call_id call, const void *const *args);
/* What came out of a call that succeeded, likewise; empty if nothing did. */
size_t call_format_outputs(char *text, size_t size, enum call_style style, enum cuda_call_id call, const void *const *args);
/* A string as JSON, quoted; bytes that are no printable ASCII are escaped. Returns the length. */
size_t call_format_json_string(char *text, size_t size, const char *string);

/* Elements behind a pointer that is not NULL, by the row. Reads the arguments that count. */
unsigned long call_elements(const struct call_desc *desc, const struct call_param *p, const void *const *args);
/* Whether memory behind the row's pointer is read, or written, by the call. */
static inline bool
call_is_input(const struct call_param *p)
{
	return p->dir == CALL_DIR_IN || p->dir == CALL_DIR_INOUT || p->dir == CALL_DIR_BUF_IN;
}
static inline bool
call_is_output(const struct call_param *p)
{
	return p->dir == CALL_DIR_OUT || p->dir == CALL_DIR_OUT_OPTIONAL || p->dir == CALL_DIR_INOUT || p->dir == CALL_DIR_BUF_OUT;
}

/* CUDA_SUCCESS and so on; NULL for a value that is none. */
const char *call_error_name(int value);
const char *call_error_text(int value);

#endif
