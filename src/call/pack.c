/*
 * Calls as bytes, from the table's rows. See pack.h for the format.
 */
#include "call/pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "call/session.h"
#include "call/sizes.h"

#define ABSENT UINT64_MAX
#define PARAMS_MAX CALL_PARAMS_MAX

/* ---- numbers, arrays, strings -------------------------------------------------------------------------------------- */

static size_t
padded(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

void
call_put(struct call_writer *out, const void *bytes, size_t size)
{
	if (out->bad || size > SIZE_MAX - 8 || padded(size) > out->size - out->at) {
		out->bad = true;
		return;
	}
	if (size)
		memcpy(out->data + out->at, bytes, size);
	memset(out->data + out->at + size, 0, padded(size) - size);
	out->at += padded(size);
}

void
call_put_u64(struct call_writer *out, uint64_t value)
{
	call_put(out, &value, sizeof(value));
}

void
call_put_array(struct call_writer *out, const void *elements, uint64_t count, size_t size)
{
	size_t bytes;

	call_put_u64(out, elements || !count ? count : ABSENT);
	if (__builtin_mul_overflow(count, size, &bytes))
		out->bad = true;
	else if (elements && count)
		call_put(out, elements, bytes);
}

void
call_put_string(struct call_writer *out, const char *text)
{
	call_put_array(out, text, text ? strlen(text) + 1 : 1, 1);
}

uint64_t
call_get_u64(struct fw_cursor *in)
{
	return fw_cursor_u64(in);
}

const void *
call_get(struct fw_cursor *in, size_t size)
{
	if (size > SIZE_MAX - 8) {
		in->bad = true;
		return NULL;
	}
	return fw_cursor_bytes(in, padded(size));
}

const void *
call_get_array(struct fw_cursor *in, size_t size, uint64_t *count)
{
	uint64_t announced = fw_cursor_u64(in);
	size_t bytes;

	*count = 0;
	if (announced == ABSENT || in->bad)
		return NULL;
	if (__builtin_mul_overflow(announced, size, &bytes)) {
		in->bad = true;
		return NULL;
	}
	const void *elements = call_get(in, bytes);
	*count = elements ? announced : 0;
	return elements;
}

const char *
call_get_string(struct fw_cursor *in)
{
	uint64_t count;
	const char *text = call_get_array(in, 1, &count);

	if (text && (!count || text[count - 1] != 0))
		in->bad = true;
	return in->bad ? NULL : text;
}

/* ---- rows ---------------------------------------------------------------------------------------------------------- */

bool
call_packs(enum cuda_call_id call)
{
	return call < CALL_COUNT && call_descs[call].wire == CALL_WIRE_ROWS;
}

/* The value of an argument that counts, as large as it may be. */
static uint64_t
number(const struct call_param *p, const void *argument)
{
	uint64_t wide = 0;
	int32_t narrow = 0;

	if (p->size == 8) {
		memcpy(&wide, argument, 8);
		return wide;
	}
	memcpy(&narrow, argument, 4);
	return call_types[p->type].kind == CALL_KIND_U32 ? (uint32_t)narrow : narrow < 0 ? 0 : (uint64_t)narrow;
}

unsigned long
call_elements(const struct call_desc *desc, const struct call_param *p, const void *const *args)
{
	const struct call_param *other = &desc->params[p->other];
	uint64_t count;
	size_t at;
	int selector;

	switch (p->shape) {
	case CALL_SHAPE_ARRAY:
		count = number(other, args[p->other]);
		return p->more >= 0 || count >= (uint64_t)-p->more ? count + (uint64_t)(int64_t)p->more : 0;
	case CALL_SHAPE_ARRAY_AT: {
		const size_t *pointer = *(const size_t *const *)args[p->other];
		at = pointer ? *pointer : 0;
		return at;
	}
	case CALL_SHAPE_STRING:
		return strlen(*(const char *const *)args[p - desc->params]) + 1;
	case CALL_SHAPE_SIZED:
		memcpy(&selector, args[p->other], sizeof(selector));
		return call_sizes[p->more](selector);
	default:
		return 1;
	}
}

static size_t
bytes_of(const struct call_desc *desc, const struct call_param *p, const void *const *args, uint64_t *count)
{
	size_t bytes;

	*count = call_elements(desc, p, args);
	return __builtin_mul_overflow(*count, (size_t)p->size, &bytes) || bytes > SIZE_MAX / 4 ? SIZE_MAX / 4 : bytes;
}

size_t
call_pack_bound(enum cuda_call_id call, const void *const *args)
{
	const struct call_desc *desc = &call_descs[call];
	size_t bound = 0;
	uint64_t count;

	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *p = &desc->params[i];
		if (p->shape == CALL_SHAPE_VALUE)
			bound += padded(p->size);
		else
			bound += 8 + (call_is_input(p) && *(const void *const *)args[i] ? padded(bytes_of(desc, p, args, &count)) : 0);
	}
	return bound;
}

bool
call_pack(struct call_writer *out, enum cuda_call_id call, const void *const *args)
{
	const struct call_desc *desc = &call_descs[call];
	uint64_t count;

	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *p = &desc->params[i];
		if (p->shape == CALL_SHAPE_VALUE) {
			call_put(out, args[i], p->size);
			continue;
		}
		const void *pointer = *(const void *const *)args[i];
		if (!pointer) {
			call_put_u64(out, ABSENT);
		} else if (p->shape == CALL_SHAPE_NULL) {
			out->bad = true; /* what it points to cannot be said */
		} else if (call_is_input(p)) {
			size_t bytes = bytes_of(desc, p, args, &count);
			call_put_u64(out, count);
			call_put(out, pointer, bytes);
		} else {
			bytes_of(desc, p, args, &count);
			call_put_u64(out, count);
		}
	}
	return !out->bad;
}

size_t
call_reply_bound(enum cuda_call_id call, const void *const *args)
{
	const struct call_desc *desc = &call_descs[call];
	size_t bound = 8;
	uint64_t count;

	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *p = &desc->params[i];
		if (call_is_output(p) && *(const void *const *)args[i])
			bound += 8 + padded(bytes_of(desc, p, args, &count));
	}
	return bound;
}

CUresult
call_unpack_reply(struct fw_cursor *in, enum cuda_call_id call, const void *const *args, bool *broken)
{
	const struct call_desc *desc = &call_descs[call];
	CUresult result = (CUresult)(int64_t)call_get_u64(in);
	uint64_t rooms[PARAMS_MAX] = { 0 };

	/* Before anything is written: a capacity may be an output itself. */
	for (unsigned i = 0; i < desc->param_count && i < PARAMS_MAX; i++)
		if (call_is_output(&desc->params[i]) && *(void *const *)args[i])
			bytes_of(desc, &desc->params[i], args, &rooms[i]);
	for (unsigned i = 0; (result == CUDA_SUCCESS || desc->outputs_always) && i < desc->param_count && i < PARAMS_MAX; i++) {
		const struct call_param *p = &desc->params[i];
		void *pointer = call_is_output(p) ? *(void *const *)args[i] : NULL;
		uint64_t count;
		if (!pointer)
			continue;
		const void *got = call_get_array(in, p->size, &count);
		in->bad |= count != rooms[i];
		if (in->bad)
			break;
		if (count)
			memcpy(pointer, got, count * p->size);
	}
	*broken = in->bad;
	return in->bad ? CUDA_ERROR_UNKNOWN : result;
}

/* ---- the worker's side --------------------------------------------------------------------------------------------- */

CUresult
call_invoke(const struct cuda_ops *ops, enum cuda_call_id call, const void *const *args)
{
	switch (call) {
#include "cuda_invoke.inc"
	default:
		return CUDA_ERROR_NOT_SUPPORTED;
	}
}

/* Memory for arguments, in the caller's scratch. */
struct scratch {
	uint8_t *at;
	size_t left;
};

static void *
take(struct scratch *scratch, size_t size)
{
	void *memory = scratch->at;

	if (size > SIZE_MAX - 16)
		return NULL;
	size = (size + 15) & ~(size_t)15;
	if (size > scratch->left)
		return NULL;
	scratch->at += size;
	scratch->left -= size;
	return memory;
}

/* One parameter's storage: the value, or a pointer and what it points to. False for bytes that are no such parameter. */
static bool
read_param(const struct call_param *p, struct fw_cursor *in, struct scratch *scratch, const void **argument, uint64_t *count)
{
	size_t bytes;

	*count = 0;
	if (p->shape == CALL_SHAPE_VALUE) {
		const void *value = call_get(in, p->size);
		void *copy = take(scratch, p->size < 8 ? 8 : p->size);
		if (value && copy)
			memcpy(copy, value, p->size);
		*argument = copy;
		return value && copy;
	}
	void **pointer = take(scratch, sizeof(*pointer));
	uint64_t announced = call_get_u64(in);
	if (!pointer || in->bad)
		return false;
	*argument = pointer;
	*pointer = NULL;
	if (announced == ABSENT)
		return true;
	if (p->shape == CALL_SHAPE_NULL || __builtin_mul_overflow(announced, (size_t)p->size, &bytes))
		return false;
	const void *given = call_is_input(p) ? call_get(in, bytes) : NULL;
	void *copy = call_is_input(p) && !given ? NULL : take(scratch, bytes ? bytes : 1);
	if (!copy)
		return false;
	if (given)
		memcpy(copy, given, bytes);
	else
		memset(copy, 0, bytes);
	if (p->shape == CALL_SHAPE_STRING && (!announced || ((const char *)copy)[announced - 1] != 0))
		return false;
	*pointer = copy;
	*count = announced;
	return true;
}

bool
call_read(enum cuda_call_id call, struct fw_cursor *in, void *memory, size_t size, struct call_arguments *arguments)
{
	const struct call_desc *desc = &call_descs[call];
	struct scratch scratch = { memory, size };

	if (desc->param_count > CALL_PARAMS_MAX)
		return false;
	for (unsigned i = 0; i < desc->param_count; i++)
		if (!read_param(&desc->params[i], in, &scratch, &arguments->args[i], &arguments->counts[i]))
			return false;
	/* The counts that the call itself will go by have to be those of the bytes that are there. */
	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *p = &desc->params[i];
		if (p->shape == CALL_SHAPE_VALUE || !*(const void *const *)arguments->args[i])
			continue;
		if (p->shape != CALL_SHAPE_STRING && arguments->counts[i] != call_elements(desc, p, arguments->args))
			return false;
	}
	return true;
}

void
call_count(enum cuda_call_id call, struct call_arguments *arguments)
{
	const struct call_desc *desc = &call_descs[call];

	for (unsigned i = 0; i < desc->param_count && i < CALL_PARAMS_MAX; i++) {
		const struct call_param *p = &desc->params[i];
		bool there = p->shape != CALL_SHAPE_VALUE && *(const void *const *)arguments->args[i];
		arguments->counts[i] = there ? call_elements(desc, p, arguments->args) : 0;
	}
}

bool
call_put_outputs(struct call_writer *out, enum cuda_call_id call, const struct call_arguments *arguments)
{
	const struct call_desc *desc = &call_descs[call];

	for (unsigned i = 0; i < desc->param_count; i++) {
		const void *pointer = call_is_output(&desc->params[i]) ? *(const void *const *)arguments->args[i] : NULL;
		if (pointer)
			call_put_array(out, pointer, arguments->counts[i], desc->params[i].size);
	}
	return !out->bad;
}

/* Whether the outputs that a call must have (api/cuda.api: out) have a place: a client's own gate refuses it without them. */
static bool
has_outputs(enum cuda_call_id call, const struct call_arguments *arguments)
{
	const struct call_desc *desc = &call_descs[call];

	for (unsigned i = 0; i < desc->param_count; i++)
		if ((desc->params[i].dir == CALL_DIR_OUT || desc->params[i].dir == CALL_DIR_INOUT) && !*(const void *const *)arguments->args[i])
			return false;
	return true;
}

bool
call_serve(const struct cuda_ops *ops, enum cuda_call_id call, struct fw_cursor *in, struct call_writer *out, void *memory, size_t size)
{
	struct call_arguments arguments;

	if (!call_packs(call) || !call_read(call, in, memory, size, &arguments))
		return false;
	CUresult result = has_outputs(call, &arguments) ? call_invoke(ops, call, arguments.args) : CUDA_ERROR_INVALID_VALUE;
	call_put_u64(out, (uint64_t)(int64_t)result);
	if (result != CUDA_SUCCESS && !call_descs[call].outputs_always)
		return !out->bad;
	return call_put_outputs(out, call, &arguments);
}

/* ---- versions ------------------------------------------------------------------------------------------------------ */

static uint64_t
mix(uint64_t hash, const void *bytes, size_t size)
{
	for (size_t n = 0; n < size; n++)
		hash = (hash ^ ((const uint8_t *)bytes)[n]) * 0x100000001b3u;
	return hash;
}

uint64_t
call_protocol_hash(void)
{
	static const uint64_t session[] = { SESSION_REVISION, SESSION_KINDS, sizeof(struct session_hello), sizeof(struct session_welcome),
		sizeof(struct session_callback), sizeof(struct session_launch), sizeof(struct session_memory),
		sizeof(struct session_bulk), sizeof(struct session_stock), SESSION_LINES,
		SESSION_MARKS_COUNT, sizeof(struct session_marks), sizeof(struct session_record), sizeof(struct session_mark) };
	uint64_t hash = mix(0xcbf29ce484222325u, session, sizeof(session));

	for (unsigned c = 0; c < CALL_COUNT; c++) {
		const struct call_desc *desc = &call_descs[c];
		hash = mix(hash, desc->name, strlen(desc->name) + 1);
		hash = mix(hash, &desc->class, sizeof(desc->class));
		hash = mix(hash, &desc->wire, sizeof(desc->wire));
		hash = mix(hash, &desc->outputs_always, sizeof(desc->outputs_always));
		for (unsigned i = 0; i < desc->param_count; i++) {
			const struct call_param *p = &desc->params[i];
			const int row[] = { (int)p->dir, (int)p->shape, p->other, p->more, p->size };
			hash = mix(hash, row, sizeof(row));
		}
	}
	return hash;
}

void
session_mismatch(char *text, size_t size, const char *here, const struct session_version *mine, const char *there,
                 const struct session_version *other)
{
	if (strncmp(mine->version, other->version, sizeof(mine->version)) == 0)
		snprintf(text, size, "%s and %s are both farwarp %.31s but of different builds (protocol %016" PRIx64 " and %016" PRIx64
		         "): install the same build on both", here, there, mine->version, mine->protocol, other->protocol);
	else
		snprintf(text, size, "the %s is farwarp %.31s, the %s is farwarp %.31s (protocol %016" PRIx64 " and %016" PRIx64
		         "): install the same version on both", here, mine->version, there, other->version, mine->protocol, other->protocol);
}
