/*
 * Formats calls from the table's rows, and knows the names and texts of CUresult. See format.h.
 */
#include "format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "cuda_calls.inc"

#define STRING_SHOWN 64 /* characters of a string argument */

struct text {
	char *at;
	size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void
put(struct text *text, const char *format, ...)
{
	va_list args;

	if (text->used + 1 >= text->size)
		return;
	va_start(args, format);
	int length = vsnprintf(text->at + text->used, text->size - text->used, format, args);
	va_end(args);
	if (length > 0)
		text->used += (size_t)length;
	if (text->used >= text->size)
		text->used = text->size - 1;
}

static void
put_string(struct text *text, const char *string)
{
	if (!string) {
		put(text, "NULL");
		return;
	}
	put(text, "\"");
	size_t i = 0;
	for (; string[i] && i < STRING_SHOWN; i++) {
		unsigned char c = (unsigned char)string[i];
		if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
			put(text, "\\x%02x", c);
		else
			put(text, "%c", c);
	}
	put(text, string[i] ? "\"..." : "\"");
}

static void
put_pointer(struct text *text, uint64_t value)
{
	if (value)
		put(text, "0x%" PRIx64, value);
	else
		put(text, "0");
}

/* A value of the plain kinds at `value`. */
static void
put_value(struct text *text, enum call_arg arg, const void *value)
{
	uint64_t u64 = 0;
	uint32_t u32 = 0;
	float f32 = 0;

	switch (arg) {
	case CALL_ARG_U8:
		put(text, "%u", *(const uint8_t *)value);
		break;
	case CALL_ARG_U16:
		put(text, "%u", *(const uint16_t *)value);
		break;
	case CALL_ARG_I32:
	case CALL_ARG_U32:
		memcpy(&u32, value, sizeof(u32));
		put(text, arg == CALL_ARG_I32 ? "%" PRId32 : "%" PRIu32, u32);
		break;
	case CALL_ARG_F32:
		memcpy(&f32, value, sizeof(f32));
		put(text, "%g", (double)f32);
		break;
	default:
		memcpy(&u64, value, sizeof(u64));
		if (arg == CALL_ARG_U64)
			put(text, "%" PRIu64, u64);
		else
			put_pointer(text, u64);
	}
}

static enum call_arg
pointed(enum call_arg arg)
{
	switch (arg) {
	case CALL_ARG_OUT_I32: return CALL_ARG_I32;
	case CALL_ARG_OUT_U32: return CALL_ARG_U32;
	case CALL_ARG_OUT_U64: return CALL_ARG_U64;
	case CALL_ARG_OUT_F32: return CALL_ARG_F32;
	case CALL_ARG_OUT_PTR64: return CALL_ARG_PTR64;
	default: return CALL_ARG_POINTER;
	}
}

static void
put_argument(struct text *text, const struct call_param *param, const void *value, bool ok)
{
	const void *target;

	switch (param->arg) {
	case CALL_ARG_STRUCT:
		put(text, "{...}");
		break;
	case CALL_ARG_STR:
		memcpy(&target, value, sizeof(target));
		put_string(text, target);
		break;
	case CALL_ARG_OUT_I32:
	case CALL_ARG_OUT_U32:
	case CALL_ARG_OUT_U64:
	case CALL_ARG_OUT_F32:
	case CALL_ARG_OUT_PTR64:
		memcpy(&target, value, sizeof(target));
		if (target && ok)
			put_value(text, pointed(param->arg), target);
		else
			put_pointer(text, (uint64_t)(uintptr_t)target);
		break;
	default:
		put_value(text, param->arg, value);
	}
}

size_t
call_format(char *out, size_t size, enum cuda_call_id call, const void *const *args, bool ok)
{
	struct text text = { .at = out, .size = size };
	const struct call_desc *desc = &call_descs[call];

	if (size)
		out[0] = 0;
	put(&text, "%s(", desc->name);
	for (unsigned i = 0; i < desc->param_count; i++) {
		put(&text, "%s%s ", i ? ", " : "", desc->params[i].name);
		put_argument(&text, &desc->params[i], args[i], ok);
	}
	put(&text, ")");
	return text.used;
}

static const struct error_row {
	int value;
	const char *name, *text;
} errors[] = {
#include "cuda_names.inc"
};

static const struct error_row *
find_error(int value)
{
	size_t low = 0, high = sizeof(errors) / sizeof(errors[0]);

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (errors[middle].value == value)
			return &errors[middle];
		if (errors[middle].value < value)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const char *
call_error_name(int value)
{
	const struct error_row *row = find_error(value);

	return row ? row->name : NULL;
}

const char *
call_error_text(int value)
{
	const struct error_row *row = find_error(value);

	return row ? row->text : NULL;
}
