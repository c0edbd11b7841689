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

struct call_param {
	const char *name;
	enum call_arg arg;
	enum call_dir dir;
};

struct call_desc {
	const char *name;
	enum call_class class;
	const struct call_param *params;
	unsigned param_count;
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
