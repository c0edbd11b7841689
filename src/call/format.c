/*
 * Shows calls from the table's rows, and knows the names and texts of CUresult. See format.h.
 */
#include "format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cuda_calls.inc"

#define STRING_SHOWN 96   /* characters of a string */
#define ELEMENTS_SHOWN 8  /* of an array */
#define BYTES_SHOWN 16    /* of bytes that are no text */
#define PEEK_MAX 2048     /* bytes of the program's memory that are looked at for one value */

struct text {
	char *at;
	size_t size, used;
	enum call_style style;
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

/* Copies memory of this process that may not be there; the bytes that were. */
static size_t
peek(void *to, const void *from, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)(uintptr_t)from, size };
	ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return got > 0 ? (size_t)got : 0;
}

static void
put_quoted(struct text *text, const char *string, size_t length, bool cut)
{
	put(text, "\"");
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)string[i];
		if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
			put(text, "%c", c);
		else
			put(text, text->style == CALL_JSON ? "\\u%04x" : "\\x%02x", c);
	}
	put(text, !cut ? "\"" : text->style == CALL_JSON ? "...\"" : "\"...");
}

/* What a pointer to a C string points to. */
static void
put_string(struct text *text, const char *string)
{
	char copy[STRING_SHOWN + 1];
	size_t here = STRING_SHOWN + 1 - ((uintptr_t)string + STRING_SHOWN + 1) % 4096;

	if (!string) {
		put(text, text->style == CALL_JSON ? "null" : "NULL");
		return;
	}
	size_t got = peek(copy, string, sizeof(copy));
	if (got < sizeof(copy) && here < sizeof(copy) && got < here) /* the next page is not there: up to its begin */
		got = peek(copy, string, here);
	size_t length = strnlen(copy, got);
	if (!got)
		put(text, text->style == CALL_JSON ? "\"0x%" PRIxPTR "\"" : "0x%" PRIxPTR, (uintptr_t)string);
	else
		put_quoted(text, copy, length < STRING_SHOWN ? length : STRING_SHOWN, length > STRING_SHOWN);
}

static void
put_address(struct text *text, uint64_t value)
{
	if (text->style == CALL_JSON)
		put(text, value ? "\"0x%" PRIx64 "\"" : "null", value);
	else
		put(text, value ? "0x%" PRIx64 : "NULL", value);
}

static void
put_name(struct text *text, const char *name)
{
	put(text, text->style == CALL_JSON ? "\"%s\"" : "%s", name ? name : "?");
}

static void
put_bytes(struct text *text, const uint8_t *bytes, size_t size)
{
	if (text->style == CALL_JSON)
		put(text, "\"");
	for (size_t i = 0; i < size && i < BYTES_SHOWN; i++)
		put(text, "%02x", bytes[i]);
	if (size > BYTES_SHOWN)
		put(text, "...");
	if (text->style == CALL_JSON)
		put(text, "\"");
}

static void
put_enum(struct text *text, const struct call_type *type, int value)
{
	for (unsigned i = 0; i < type->count; i++)
		if (type->values[i].value == value) {
			put_name(text, type->values[i].name);
			return;
		}
	put(text, "%d", value);
}

static void
put_handle(struct text *text, const struct call_type *type, uint64_t value)
{
	if (value <= 2 && value && strcmp(type->name, "CUstream") == 0)
		put_name(text, value == 1 ? "CU_STREAM_LEGACY" : "CU_STREAM_PER_THREAD");
	else
		put_address(text, value);
}

static void put_value(struct text *text, const struct call_type *type, const void *value);

static void
put_struct(struct text *text, const struct call_type *type, const uint8_t *value)
{
	bool json = text->style == CALL_JSON;

	put(text, "{");
	for (unsigned i = 0; i < type->count; i++) {
		const struct call_field *field = &type->fields[i];
		const struct call_type *of = &call_types[field->type];
		put(text, json ? "%s\"%s\":" : "%s%s ", i ? json ? "," : ", " : "", field->name);
		if (of->kind == CALL_KIND_OPAQUE) {
			put(text, json ? "\"...\"" : "...");
		} else if (field->count > 1 && of->size == 1) {
			put_bytes(text, value + field->offset, field->count);
		} else if (field->count == 1) {
			put_value(text, of, value + field->offset);
		} else {
			put(text, "[");
			for (unsigned n = 0; n < field->count && n < ELEMENTS_SHOWN; n++) {
				put(text, "%s", n ? json ? "," : ", " : "");
				put_value(text, of, value + field->offset + n * of->size);
			}
			put(text, field->count <= ELEMENTS_SHOWN ? "]" : json ? ",\"...\"]" : ", ...]");
		}
	}
	put(text, "}");
}

/* A value of the type at `value`, which is memory of ours. */
static void
put_value(struct text *text, const struct call_type *type, const void *value)
{
	uint64_t wide = 0;
	float f32;
	double f64;

	if (type->size <= 8)
		memcpy(&wide, value, type->size);
	switch (type->kind) {
	case CALL_KIND_I32:
		put(text, "%" PRId32, (int32_t)wide);
		break;
	case CALL_KIND_I64:
		put(text, "%" PRId64, (int64_t)wide);
		break;
	case CALL_KIND_U8:
	case CALL_KIND_U16:
	case CALL_KIND_U32:
	case CALL_KIND_U64:
	case CALL_KIND_CHAR:
		put(text, "%" PRIu64, wide);
		break;
	case CALL_KIND_F32:
		memcpy(&f32, value, sizeof(f32));
		put(text, text->style == CALL_JSON && f32 - f32 != 0 ? "\"%g\"" : "%g", (double)f32); /* JSON knows no infinity */
		break;
	case CALL_KIND_F64:
		memcpy(&f64, value, sizeof(f64));
		put(text, text->style == CALL_JSON && f64 - f64 != 0 ? "\"%g\"" : "%g", f64);
		break;
	case CALL_KIND_HEX32:
	case CALL_KIND_HEX64:
		put(text, text->style == CALL_JSON || !wide ? "%" PRIu64 : "0x%" PRIx64, wide);
		break;
	case CALL_KIND_DEVPTR:
	case CALL_KIND_POINTER:
		put_address(text, wide);
		break;
	case CALL_KIND_HANDLE:
		put_handle(text, type, wide);
		break;
	case CALL_KIND_STRING:
		put_string(text, (const char *)(uintptr_t)wide);
		break;
	case CALL_KIND_RESULT:
		if (call_error_name((int)wide))
			put_name(text, call_error_name((int)wide));
		else
			put(text, "%d", (int)wide);
		break;
	case CALL_KIND_ENUM:
		put_enum(text, type, (int)wide);
		break;
	case CALL_KIND_STRUCT:
		put_struct(text, type, value);
		break;
	case CALL_KIND_OPAQUE:
		put_name(text, "...");
		break;
	}
}

/* What a parameter's pointer points to, as far as it can be read; else the pointer. */
static void
put_pointed(struct text *text, const struct call_desc *desc, const struct call_param *p, const void *const *args, const void *pointer)
{
	const struct call_type *type = &call_types[p->type];
	uint8_t copy[PEEK_MAX] __attribute__((aligned(16)));
	bool json = text->style == CALL_JSON;

	if (!pointer || type->kind == CALL_KIND_OPAQUE || p->shape == CALL_SHAPE_NULL || type->size * 2u > sizeof(copy)) {
		put_address(text, (uintptr_t)pointer);
		return;
	}
	if (p->shape == CALL_SHAPE_STRING) {
		put_string(text, pointer);
		return;
	}
	uint64_t count = call_elements(desc, p, args);
	bool characters = type->kind == CALL_KIND_CHAR;
	uint64_t shown = count, most = characters ? STRING_SHOWN : type->size * ELEMENTS_SHOWN <= sizeof(copy) ? ELEMENTS_SHOWN : 2;
	shown = shown < most ? shown : most;
	if (shown && peek(copy, pointer, shown * type->size) < shown * type->size) {
		put_address(text, (uintptr_t)pointer);
	} else if (characters) {
		size_t length = strnlen((char *)copy, shown);
		put_quoted(text, (char *)copy, length, length == shown && count > shown);
	} else if (p->shape == CALL_SHAPE_ONE) {
		put_value(text, type, copy);
	} else {
		put(text, "[");
		for (uint64_t n = 0; n < shown; n++) {
			put(text, "%s", n ? json ? "," : ", " : "");
			put_value(text, type, copy + n * type->size);
		}
		put(text, count <= shown ? "]" : json ? ",\"...\"]" : ", ...]");
	}
}

/* The parameter's name, and what stands before it. */
static void
put_label(struct text *text, const struct call_param *p)
{
	bool json = text->style == CALL_JSON;

	put(text, json ? "%s\"%s\":" : "%s%s ", text->used ? json ? "," : ", " : "", p->name);
}

size_t
call_format_inputs(char *out, size_t size, enum call_style style, enum cuda_call_id call, const void *const *args)
{
	struct text text = { .at = out, .size = size, .style = style };
	const struct call_desc *desc = &call_descs[call];

	if (size)
		out[0] = 0;
	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *p = &desc->params[i];
		const void *pointer = p->shape == CALL_SHAPE_VALUE ? NULL : *(const void *const *)args[i];
		if (p->shape == CALL_SHAPE_VALUE) {
			put_label(&text, p);
			put_value(&text, &call_types[p->type], args[i]);
		} else if (p->dir == CALL_DIR_IN || p->dir == CALL_DIR_INOUT) {
			put_label(&text, p);
			put_pointed(&text, desc, p, args, pointer);
		} else if (!pointer || !call_is_output(p) || p->dir == CALL_DIR_BUF_OUT) {
			put_label(&text, p);
			put_address(&text, (uintptr_t)pointer);
		}
	}
	return text.used;
}

size_t
call_format_outputs(char *out, size_t size, enum call_style style, enum cuda_call_id call, const void *const *args)
{
	struct text text = { .at = out, .size = size, .style = style };
	const struct call_desc *desc = &call_descs[call];

	if (size)
		out[0] = 0;
	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *p = &desc->params[i];
		const void *pointer = p->shape == CALL_SHAPE_VALUE ? NULL : *(const void *const *)args[i];
		if (!pointer || !call_is_output(p) || p->dir == CALL_DIR_BUF_OUT)
			continue;
		put_label(&text, p);
		put_pointed(&text, desc, p, args, pointer);
	}
	return text.used;
}

size_t
call_format_json_string(char *out, size_t size, const char *string)
{
	struct text text = { .at = out, .size = size, .style = CALL_JSON };

	if (size)
		out[0] = 0;
	put_quoted(&text, string, strlen(string), false);
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
