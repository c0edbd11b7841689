/*
 * farwarp replay: plays a record (layers/record.h) against a device and says where it differs.
 *
 * The calls are made one after the other, on one thread, through the exported functions of a libcuda.so.1, in the order in which they
 * returned. Handles and addresses are translated (replay_map.c). Compared are the results of calls, what was copied to the host, byte for
 * byte, and what the device wrote to host memory.
 */
#include "tools/replay.h"

#include <argp.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "layers/record.h"
#include "tools/run.h"
#include "tools/tools.h"

#define SCRATCH (1u << 20) /* beyond what a call's inputs and outputs take */
#define PAGE 4096u
#define UNPLAYED_NAMES 6

struct replay_options {
	struct run_options run;
	bool list, all;
	unsigned long show; /* differences that are printed */
};

struct player {
	const struct replay_options *options;
	struct replay_map map;
	struct cuda_ops ops, ptds;  /* by exported names; the second: _ptds where there is one */
	CUresult (*init)(unsigned);
	CUresult (*set_current)(CUcontext);
	uint64_t context;           /* current, as it was recorded */
	uint64_t calls, differences, copies, copied, checks, unplayed;
	enum cuda_call_id unplayed_names[UNPLAYED_NAMES];
	const struct record_entry *entry;
	char stop[300];             /* why it cannot go on; empty: it can */
};

enum { KEY_LIST = 0x100, KEY_ALL, KEY_SHOW };

/* ---- saying -------------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static bool
stop(struct player *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(p->stop, sizeof(p->stop), format, args);
	va_end(args);
	return false;
}

static const char *
kind_name(unsigned kind)
{
	static const char *const names[] = { "context", "host memory written", "host memory read", "end" };

	return kind < CALL_COUNT ? call_descs[kind].name : kind < RECORD_KINDS ? names[kind - CALL_COUNT] : "?";
}

__attribute__((format(printf, 2, 3))) static void
differ(struct player *p, const char *format, ...)
{
	va_list args;

	if (p->differences++ >= p->options->show)
		return;
	printf("difference at event %" PRIu64 " (offset %" PRIu64 ", thread %u): %s: ", p->entry->number, p->entry->offset, p->entry->event.thread,
	       kind_name(p->entry->event.kind));
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static const char *
result_name(int result)
{
	const char *name = call_error_name(result);

	return name ? name : "an unknown error";
}

/* Bytes that the device gave; `what` names them. */
static void
compare_bytes(struct player *p, const char *what, const void *recorded, const void *here, size_t size)
{
	size_t at = replay_compare(&p->map, recorded, here, size);

	if (at < size)
		differ(p, "byte %zu of %zu of %s is 0x%02x, recorded 0x%02x", at, size, what, ((const uint8_t *)here)[at], ((const uint8_t *)recorded)[at]);
}

static void
compare_results(struct player *p, CUresult here)
{
	CUresult recorded = (CUresult)p->entry->event.result;
	bool query = strstr(kind_name(p->entry->event.kind), "Query") != NULL;

	if (recorded == here)
		return;
	/* How far the device had come is nobody's promise. What comes after may rely on it. */
	if (query && (recorded == CUDA_ERROR_NOT_READY || here == CUDA_ERROR_NOT_READY)) {
		if (recorded == CUDA_SUCCESS && p->ops.cuCtxSynchronize)
			p->ops.cuCtxSynchronize();
		return;
	}
	differ(p, "%s, recorded %s", result_name((int)here), result_name((int)recorded));
}

/* ---- translating --------------------------------------------------------------------------------------------------- */

/* Calls that may be given any address: what they find out is the question. */
static bool
may_ask_about_any_address(enum cuda_call_id call)
{
	return strstr(call_descs[call].name, "Get") || call == CALL_cuMemAddressReserve;
}

static bool
translate_value(struct player *p, const struct call_type *type, const char *name, void *value)
{
	enum cuda_call_id call = (enum cuda_call_id)p->entry->event.kind;
	bool succeeded = p->entry->event.result == CUDA_SUCCESS;
	uint64_t word;

	memcpy(&word, value, sizeof(word));
	switch (type->kind) {
	case CALL_KIND_HANDLE:
		if (!replay_handle(&p->map, &word) && succeeded)
			return stop(p, "%s 0x%" PRIx64 " was given by no call that could be played", name, word);
		break;
	case CALL_KIND_DEVPTR:
		if (word && !replay_address(&p->map, &word) && succeeded && !may_ask_about_any_address(call))
			return stop(p, "%s 0x%" PRIx64 " lies in no allocation of the record", name, word);
		break;
	default: /* a host address: memory of the record, or nothing */
		if (!replay_address(&p->map, &word))
			word = 0;
	}
	memcpy(value, &word, sizeof(word));
	return true;
}

/* Pointers of a structure that lead nowhere here become NULL; the others were translated with its words. */
static void
clean_pointers(const struct replay_map *map, const struct call_type *type, uint8_t *structure)
{
	for (unsigned f = 0; f < type->count; f++) {
		const struct call_type *field = &call_types[type->fields[f].type];
		uint64_t word;
		if (field->kind == CALL_KIND_STRUCT && type->fields[f].count == 1)
			clean_pointers(map, field, structure + type->fields[f].offset);
		if (field->kind != CALL_KIND_POINTER && field->kind != CALL_KIND_STRING)
			continue;
		memcpy(&word, structure + type->fields[f].offset, 8);
		if (!replay_address(map, &word))
			word = 0;
		memcpy(structure + type->fields[f].offset, &word, 8);
	}
}

/* A structure's pointers, addresses and handles. */
static void
translate_structure(const struct player *p, const struct call_type *type, uint8_t *structure, size_t size)
{
	clean_pointers(&p->map, type, structure);
	for (size_t at = 0; at + 8 <= size; at += 8) {
		bool pointer = false;
		for (unsigned f = 0; f < type->count; f++)
			pointer |= type->fields[f].offset == at && call_types[type->fields[f].type].kind == CALL_KIND_POINTER;
		if (!pointer)
			replay_words(&p->map, structure + at, 8, true);
	}
}

/* Makes the arguments of a call that was read what they are here. */
static bool
translate(struct player *p, enum cuda_call_id call, struct call_arguments *a)
{
	const struct call_desc *desc = &call_descs[call];

	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *row = &desc->params[i];
		const struct call_type *type = &call_types[row->type];
		bool word = type->kind == CALL_KIND_HANDLE || type->kind == CALL_KIND_DEVPTR || type->kind == CALL_KIND_POINTER;
		if (row->shape == CALL_SHAPE_VALUE) {
			if (word && !translate_value(p, type, row->name, (void *)(uintptr_t)a->args[i]))
				return false;
			if (type->kind == CALL_KIND_STRUCT)
				translate_structure(p, type, (uint8_t *)(uintptr_t)a->args[i], row->size);
			continue;
		}
		uint8_t *memory = *(uint8_t *const *)a->args[i];
		if (!memory || !call_is_input(row))
			continue;
		if (row->dir == CALL_DIR_BUF_IN)
			replay_words(&p->map, memory, a->counts[i] * row->size, false);
		for (uint64_t n = 0; type->kind == CALL_KIND_STRUCT && n < a->counts[i]; n++)
			translate_structure(p, type, memory + n * row->size, row->size);
		if (row->dir != CALL_DIR_BUF_IN && !word && type->kind != CALL_KIND_STRUCT && type->kind != CALL_KIND_CHAR)
			replay_words(&p->map, memory, a->counts[i] * row->size, true);
		for (uint64_t n = 0; word && n < a->counts[i]; n++)
			if (!translate_value(p, type, row->name, memory + n * 8))
				return false;
	}
	return true;
}

/* The allocation of an address that came out. */
static bool
learn_address(struct player *p, uint64_t then, uint64_t now)
{
	for (uint64_t r = 0; r < p->entry->range_count; r++) {
		struct record_range range;
		memcpy(&range, p->entry->ranges + r, sizeof(range));
		if (then - range.address < range.size && !replay_add_range(&p->map, range.address, range.size, now - (then - range.address)))
			return false;
	}
	return true;
}

/* What came out: handles and addresses are learnt, bytes copied to the host compared. */
static bool
take_outputs(struct player *p, enum cuda_call_id call, const struct call_arguments *a)
{
	const struct call_desc *desc = &call_descs[call];
	struct fw_cursor in = p->entry->outputs;

	for (unsigned i = 0; i < desc->param_count; i++) {
		const struct call_param *row = &desc->params[i];
		const struct call_type *type = &call_types[row->type];
		const uint8_t *here = call_is_output(row) ? *(const uint8_t *const *)a->args[i] : NULL;
		uint64_t count;
		if (!here)
			continue;
		const uint8_t *recorded = call_get_array(&in, row->size, &count);
		if (in.bad || count > a->counts[i])
			return stop(p, "its outputs are not those of the call");
		bool words = row->size == 8 && (type->kind == CALL_KIND_HANDLE || type->kind == CALL_KIND_DEVPTR || type->kind == CALL_KIND_POINTER);
		for (uint64_t n = 0; words && n < count; n++) {
			uint64_t then, now;
			memcpy(&then, recorded + n * 8, 8);
			memcpy(&now, here + n * 8, 8);
			if (type->kind == CALL_KIND_HANDLE && !replay_add_handle(&p->map, then, now))
				return stop(p, "out of memory");
			if (type->kind != CALL_KIND_HANDLE && !learn_address(p, then, now))
				return stop(p, "out of memory");
		}
		for (unsigned f = 0; type->kind == CALL_KIND_STRUCT && count == 1 && f < type->count; f++) {
			uint64_t then, now;
			if (call_types[type->fields[f].type].kind != CALL_KIND_DEVPTR)
				continue;
			memcpy(&then, recorded + type->fields[f].offset, 8);
			memcpy(&now, here + type->fields[f].offset, 8);
			if (!learn_address(p, then, now))
				return stop(p, "out of memory");
		}
		if (row->dir == CALL_DIR_BUF_OUT) {
			p->copies++;
			p->copied += count;
			compare_bytes(p, row->name, recorded, here, count);
		} else if (p->options->all && !words && type->kind != CALL_KIND_STRING) {
			compare_bytes(p, row->name, recorded, here, count * row->size);
		}
	}
	return true;
}

/* ---- playing ------------------------------------------------------------------------------------------------------- */

static void
host_nothing(void *user)
{
}

static void
stream_nothing(CUstream stream, CUresult status, void *user)
{
}

/* Memory of ours in place of what the recorded program registered, with the same place in its page. */
static bool
register_memory(struct player *p, struct call_arguments *a)
{
	uint64_t address, size;

	memcpy(&address, a->args[0], 8);
	memcpy(&size, a->args[1], 8);
	if (size > (1ull << 40))
		return stop(p, "%" PRIu64 " bytes of host memory are too many", size);
	uint8_t *memory = mmap(NULL, size + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED || !replay_add_range(&p->map, address, size, (uintptr_t)memory + address % PAGE))
		return stop(p, "out of memory");
	return true;
}

/* Which parameter describes a host function of a graph; -1: none. */
static int
host_node(enum cuda_call_id call)
{
	switch (call) {
	case CALL_cuGraphAddHostNode: return 4;
	case CALL_cuGraphHostNodeSetParams: return 1;
	case CALL_cuGraphExecHostNodeSetParams: return 2;
	default: return -1;
	}
}

static bool
copies_out(enum cuda_call_id call)
{
	const struct call_desc *desc = &call_descs[call];

	for (unsigned i = 0; i < desc->param_count; i++)
		if (desc->params[i].dir == CALL_DIR_BUF_OUT)
			return true;
	return false;
}

static bool
play_rows(struct player *p, enum cuda_call_id call)
{
	const struct record_entry *e = p->entry;
	const struct cuda_ops *ops = e->event.flags & RECORD_PTDS ? &p->ptds : &p->ops;
	size_t size = e->inputs.size * 3 + e->outputs.size * 2 + SCRATCH;
	void *scratch = aligned_alloc(64, (size + 63) & ~(size_t)63);
	struct fw_cursor in = e->inputs;
	struct call_arguments a;
	bool ok = scratch;

	if (!scratch)
		return stop(p, "out of memory");
	if (!call_read(call, &in, scratch, size, &a) || in.at != in.size)
		ok = stop(p, "its inputs are not those of the call");
	if (ok && e->event.result == CUDA_SUCCESS && (call == CALL_cuMemHostRegister || call == CALL_cuMemHostRegister_v2))
		ok = register_memory(p, &a);
	ok = ok && translate(p, call, &a);
	static const CUhostFn host_function = host_nothing;
	static const CUstreamCallback stream_function = stream_nothing;
	if (ok && call == CALL_cuLaunchHostFunc)
		a.args[1] = &host_function;
	if (ok && call == CALL_cuStreamAddCallback)
		a.args[1] = &stream_function;
	int described = host_node(call);
	if (ok && described >= 0 && *(void *const *)a.args[described])
		(*(CUDA_HOST_NODE_PARAMS *const *)a.args[described])->fn = host_nothing;
	if (ok) {
		CUresult result = call_invoke(ops, call, a.args);
		compare_results(p, result);
		if (result == CUDA_SUCCESS && e->event.result == CUDA_SUCCESS && e->event.flags & RECORD_OUTPUTS) {
			if (call_descs[call].class == CALL_CLASS_ASYNC && copies_out(call) && p->ops.cuCtxSynchronize)
				p->ops.cuCtxSynchronize(); /* the recorded program waited for it, too */
			ok = take_outputs(p, call, &a);
		}
	}
	free(scratch);
	return ok;
}

static bool
play_launch(struct player *p)
{
	struct fw_cursor in = p->entry->inputs;
	struct record_launch r;
	uint8_t params[RECORD_PARAM_MAX] __attribute__((aligned(16)));
	CUlaunchAttribute attributes[RECORD_ATTRIBUTES_MAX + 1];

	if (!record_get_launch(&in, &r))
		return stop(p, "its inputs are not those of a launch");
	struct session_launch *l = &r.launch;
	if (!replay_handle(&p->map, &l->function) && p->entry->event.result == CUDA_SUCCESS)
		return stop(p, "the function 0x%" PRIx64 " was given by no call that could be played", l->function);
	if (!replay_handle(&p->map, &l->stream) && p->entry->event.result == CUDA_SUCCESS)
		return stop(p, "the stream 0x%" PRIx64 " was given by no call that could be played", l->stream);
	if (l->param_bytes)
		memcpy(params, r.params, l->param_bytes);
	replay_words(&p->map, params, l->param_bytes, true);
	if (l->attribute_count)
		memcpy(attributes, r.attributes, l->attribute_count * sizeof(attributes[0]));
	replay_words(&p->map, attributes, l->attribute_count * sizeof(attributes[0]), true);
	if (l->cooperative)
		attributes[l->attribute_count++] = (CUlaunchAttribute){ .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1 };
	size_t size = l->param_bytes;
	void *extra[] = { (void *)1, params, (void *)2, &size, NULL }, **buffer = size ? extra : NULL;
	const struct cuda_ops *ops = p->entry->event.flags & RECORD_PTDS ? &p->ptds : &p->ops;
	CUfunction function = (CUfunction)(uintptr_t)l->function;
	CUstream stream = (CUstream)(uintptr_t)l->stream;
	CUresult result = CUDA_ERROR_NOT_FOUND;
	if (l->attribute_count && ops->cuLaunchKernelEx) {
		CUlaunchConfig config = { l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], l->shared, stream, attributes,
			l->attribute_count };
		result = ops->cuLaunchKernelEx(&config, function, NULL, buffer);
	} else if (!l->attribute_count && ops->cuLaunchKernel) {
		result = ops->cuLaunchKernel(function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], l->shared, stream, NULL,
		                             buffer);
	}
	compare_results(p, result);
	return true;
}

static bool
play_node(struct player *p, enum cuda_call_id call)
{
	struct fw_cursor in = p->entry->inputs, out = p->entry->outputs;
	struct record_node n;
	uint8_t params[RECORD_PARAM_MAX] __attribute__((aligned(16)));
	CUresult result = CUDA_ERROR_NOT_FOUND;
	CUgraphNode node = NULL;

	if (!record_get_node(&in, &n))
		return stop(p, "its inputs are not those of a node");
	struct session_launch *l = &n.launch.launch;
	uint64_t *dependencies = malloc(n.count * 8 + 8);
	if (!dependencies)
		return stop(p, "out of memory");
	if (n.count)
		memcpy(dependencies, n.dependencies, n.count * 8);
	bool known = replay_handle(&p->map, &l->function) && replay_handle(&p->map, &l->stream) && replay_handle(&p->map, &n.graph) &&
	             replay_handle(&p->map, &n.node);
	for (uint64_t i = 0; i < n.count; i++)
		known = replay_handle(&p->map, &dependencies[i]) && known;
	if (!known && p->entry->event.result == CUDA_SUCCESS) {
		free(dependencies);
		return stop(p, "its function, graph or a node of it was given by no call that could be played");
	}
	if (l->param_bytes)
		memcpy(params, n.launch.params, l->param_bytes);
	replay_words(&p->map, params, l->param_bytes, true);
	size_t size = l->param_bytes;
	void *extra[] = { (void *)1, params, (void *)2, &size, NULL };
	CUDA_KERNEL_NODE_PARAMS c = { l->cooperative ? NULL : (CUfunction)(uintptr_t)l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0],
		l->block[1], l->block[2], l->shared, NULL, size ? extra : NULL, l->cooperative ? (CUkernel)(uintptr_t)l->function : NULL,
		(CUcontext)(uintptr_t)l->stream };
	if (call == CALL_cuGraphAddKernelNode_v2 && p->ops.cuGraphAddKernelNode_v2)
		result = p->ops.cuGraphAddKernelNode_v2(&node, (CUgraph)(uintptr_t)n.graph, (const CUgraphNode *)dependencies, n.count, &c);
	else if (call == CALL_cuGraphKernelNodeSetParams_v2 && p->ops.cuGraphKernelNodeSetParams_v2)
		result = p->ops.cuGraphKernelNodeSetParams_v2((CUgraphNode)(uintptr_t)n.node, &c);
	else if (call == CALL_cuGraphExecKernelNodeSetParams_v2 && p->ops.cuGraphExecKernelNodeSetParams_v2)
		result = p->ops.cuGraphExecKernelNodeSetParams_v2((CUgraphExec)(uintptr_t)n.graph, (CUgraphNode)(uintptr_t)n.node, &c);
	free(dependencies);
	compare_results(p, result);
	return result != CUDA_SUCCESS || replay_add_handle(&p->map, call_get_u64(&out), (uint64_t)(uintptr_t)node) || stop(p, "out of memory");
}

static bool
play_image(struct player *p, enum cuda_call_id call)
{
	struct fw_cursor in = p->entry->inputs, out = p->entry->outputs;
	struct record_image image;
	uint64_t recorded = call_get_u64(&out), here = 0;
	CUresult result = CUDA_ERROR_NOT_FOUND;

	if (!record_get_image(&in, &image) || out.bad) {
		record_free_image(&image);
		return stop(p, "its inputs are not an image");
	}
	if (call == CALL_cuModuleLoadDataEx && p->ops.cuModuleLoadDataEx) {
		CUmodule module = NULL;
		result = p->ops.cuModuleLoadDataEx(&module, image.image, 0, NULL, NULL);
		here = (uint64_t)(uintptr_t)module;
	} else if (call == CALL_cuLibraryLoadData && p->ops.cuLibraryLoadData) {
		CUlibrary library = NULL;
		result = p->ops.cuLibraryLoadData(&library, image.image, NULL, NULL, 0, NULL, NULL, 0);
		here = (uint64_t)(uintptr_t)library;
	}
	compare_results(p, result);
	if (call != CALL_cuLibraryLoadData) /* a library may be read later: it keeps its image */
		record_free_image(&image);
	return result != CUDA_SUCCESS || replay_add_handle(&p->map, recorded, here) || stop(p, "out of memory");
}

static bool
play_box(struct player *p, enum cuda_call_id call)
{
	struct fw_cursor in = p->entry->inputs;
	struct record_box box;
	uint8_t *rows = NULL, *target = NULL;
	CUresult result = CUDA_ERROR_NOT_FOUND;

	if (!record_get_box(&in, &box))
		return stop(p, "its inputs are not those of a copy");
	bool to_host = box.copy.dstMemoryType == CU_MEMORYTYPE_HOST, from_host = box.copy.srcMemoryType == CU_MEMORYTYPE_HOST;
	bool has_outputs = to_host && p->entry->event.flags & RECORD_OUTPUTS;
	if (has_outputs && p->entry->outputs.size != box.bytes)
		return stop(p, "its outputs are not those of the copy");
	if (!replay_handle(&p->map, &box.stream) && p->entry->event.result == CUDA_SUCCESS)
		return stop(p, "the stream 0x%" PRIx64 " was given by no call that could be played", box.stream);
	replay_words(&p->map, &box.copy, sizeof(box.copy), true);
	if (from_host && (rows = malloc(box.bytes + 1))) {
		memcpy(rows, box.rows, box.bytes);
		replay_words(&p->map, rows, box.bytes, false);
		box.copy.srcHost = rows;
	}
	if (to_host && (box.bytes <= p->entry->outputs.size || box.bytes < SCRATCH))
		box.copy.dstHost = target = calloc(1, box.bytes + 1);
	if ((from_host && !rows) || (to_host && !target)) {
		free(rows);
		return to_host && !has_outputs ? true : stop(p, "out of memory");
	}
	if (call == CALL_cuMemcpy3D_v2 && p->ops.cuMemcpy3D_v2)
		result = (p->entry->event.flags & RECORD_PTDS ? &p->ptds : &p->ops)->cuMemcpy3D_v2(&box.copy);
	else if (call == CALL_cuMemcpy3DAsync_v2 && p->ops.cuMemcpy3DAsync_v2)
		result = p->ops.cuMemcpy3DAsync_v2(&box.copy, (CUstream)(uintptr_t)box.stream);
	if (call == CALL_cuMemcpy3DAsync_v2 && (rows || target) && p->ops.cuCtxSynchronize)
		p->ops.cuCtxSynchronize();
	compare_results(p, result);
	if (has_outputs && result == CUDA_SUCCESS) {
		p->copies++;
		p->copied += box.bytes;
		compare_bytes(p, "the box", p->entry->outputs.data, target, box.bytes);
	}
	free(rows);
	free(target);
	return true;
}

/* ---- what is not a call -------------------------------------------------------------------------------------------- */

static bool
play_context(struct player *p)
{
	struct fw_cursor in = p->entry->inputs;
	uint64_t handle = call_get_u64(&in), device = call_get_u64(&in), primary = call_get_u64(&in), known = handle;
	CUcontext context = NULL;

	if (in.bad)
		return stop(p, "this is no context");
	if (replay_handle(&p->map, &known))
		return true;
	if (!primary)
		return stop(p, "the context 0x%" PRIx64 " was given by no call that could be played", handle);
	if (!p->ops.cuDevicePrimaryCtxRetain || p->ops.cuDevicePrimaryCtxRetain(&context, (CUdevice)device) != CUDA_SUCCESS)
		return stop(p, "there is no device %d here", (int)device);
	return replay_add_handle(&p->map, handle, (uint64_t)(uintptr_t)context) || stop(p, "out of memory");
}

static bool
play_host_memory(struct player *p)
{
	struct fw_cursor in = p->entry->inputs;
	uint64_t address = call_get_u64(&in), size, here = address;
	const uint8_t *bytes = call_get_array(&in, 1, &size);

	if (in.bad || !bytes)
		return stop(p, "this is no host memory");
	if (!replay_address(&p->map, &here) || replay_room(&p->map, address) < size)
		return stop(p, "0x%" PRIx64 " is no host memory of the record", address);
	if (p->entry->event.kind == RECORD_HOST_CHECK) {
		p->checks++;
		compare_bytes(p, "host memory", bytes, (const uint8_t *)(uintptr_t)here, size);
		return true;
	}
	uint8_t *copy = malloc(size + 8);
	if (!copy)
		return stop(p, "out of memory");
	memcpy(copy, bytes, size);
	replay_words(&p->map, copy, size, false);
	memcpy((void *)(uintptr_t)here, copy, size);
	free(copy);
	return true;
}

static void
leave_out(struct player *p, enum cuda_call_id call)
{
	bool known = false;

	for (uint64_t i = 0; i < p->unplayed && i < UNPLAYED_NAMES; i++)
		known |= p->unplayed_names[i] == call;
	if (!known && p->unplayed < UNPLAYED_NAMES)
		p->unplayed_names[p->unplayed++] = call;
}

/* Makes the context current that was so when the call was made. */
static bool
set_context(struct player *p)
{
	uint64_t context = p->entry->event.context;

	if (context == p->context)
		return true;
	p->context = context;
	if (!replay_handle(&p->map, &context))
		return stop(p, "the context 0x%" PRIx64 " was given by no call that could be played", context);
	p->set_current((CUcontext)(uintptr_t)context);
	return true;
}

static bool
play(struct player *p)
{
	enum cuda_call_id call = (enum cuda_call_id)p->entry->event.kind;

	switch (p->entry->event.kind) {
	case RECORD_CONTEXT:
		return play_context(p);
	case RECORD_HOST_WRITE:
	case RECORD_HOST_CHECK:
		return play_host_memory(p);
	case RECORD_END:
		return true;
	default:
		break;
	}
	if (p->entry->event.flags & RECORD_OPAQUE) {
		leave_out(p, call);
		return true;
	}
	p->calls++;
	if (!set_context(p))
		return false;
	switch (record_form(call)) {
	case RECORD_FORM_ROWS:
		return play_rows(p, call);
	case RECORD_FORM_LAUNCH:
		return play_launch(p);
	case RECORD_FORM_IMAGE:
		return play_image(p, call);
	case RECORD_FORM_NODE:
		return play_node(p, call);
	case RECORD_FORM_BOX:
		return play_box(p, call);
	default:
		return stop(p, "this call is not recorded so");
	}
}

/* ---- the device and the file --------------------------------------------------------------------------------------- */

static bool
open_library(struct player *p, const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!library) {
		fprintf(stderr, "farwarp replay: %s\n", dlerror());
		return false;
	}
#define MARK(name, served) \
	p->ops.name = (__typeof__(p->ops.name))dlsym(library, #name); \
	p->ptds.name = (__typeof__(p->ops.name))dlsym(library, #name "_ptds"); \
	p->ptds.name = p->ptds.name ? p->ptds.name : p->ops.name;
#include "cuda_marks.inc"
#undef MARK
	p->init = (__typeof__(p->init))dlsym(library, "cuInit");
	p->set_current = (__typeof__(p->set_current))dlsym(library, "cuCtxSetCurrent");
	if (!p->init || !p->set_current) {
		fprintf(stderr, "farwarp replay: %s is no CUDA driver\n", path);
		return false;
	}
	CUresult result = p->init(0);
	if (result != CUDA_SUCCESS)
		fprintf(stderr, "farwarp replay: cuInit: %s\n", result_name((int)result));
	return result == CUDA_SUCCESS;
}

/* One line an event. */
static void
list(const struct record_entry *e)
{
	enum cuda_call_id call = (enum cuda_call_id)e->event.kind;
	size_t size = e->inputs.size * 3 + e->outputs.size * 2 + SCRATCH;
	void *scratch = NULL;
	struct fw_cursor in = e->inputs;
	struct call_arguments a;
	char text[2000] = "";

	if (call < CALL_COUNT && record_form(call) == RECORD_FORM_ROWS && !(e->event.flags & RECORD_OPAQUE) &&
	    (scratch = aligned_alloc(64, (size + 63) & ~(size_t)63)) && call_read(call, &in, scratch, size, &a))
		call_format_inputs(text, sizeof(text), CALL_TEXT, call, a.args);
	struct record_launch launch;
	if (call < CALL_COUNT && record_form(call) == RECORD_FORM_LAUNCH && !(e->event.flags & RECORD_OPAQUE) && record_get_launch(&in, &launch))
		snprintf(text, sizeof(text), "f 0x%" PRIx64 ", grid %ux%ux%u, block %ux%ux%u, shared %u, stream 0x%" PRIx64 ", %u bytes of parameters",
		         launch.launch.function, launch.launch.grid[0], launch.launch.grid[1], launch.launch.grid[2], launch.launch.block[0],
		         launch.launch.block[1], launch.launch.block[2], launch.launch.shared, launch.launch.stream, launch.launch.param_bytes);
	printf("%" PRIu64 " %" PRIu64 " [%u] %s", e->number, e->offset, e->event.thread, kind_name(e->event.kind));
	if (call < CALL_COUNT)
		printf("(%s) = %s", text, e->event.flags & RECORD_OPAQUE ? "not recorded" : result_name(e->event.result));
	printf(", %zu bytes in, %zu out\n", e->inputs.size, e->outputs.size);
	free(scratch);
}

static int
say(const struct player *p, const char *file, const char *broken, double seconds)
{
	if (p->stop[0])
		printf("%s: event %" PRIu64 " (offset %" PRIu64 "), %s: %s: it cannot be played from here on\n", file, p->entry->number, p->entry->offset,
		       kind_name(p->entry->event.kind), p->stop);
	else if (broken)
		printf("%s: %s\n", file, broken);
	printf("%" PRIu64 " calls in %.3f s, %" PRIu64 " difference%s; compared: their results, %" PRIu64 " copies to the host (%" PRIu64
	       " bytes), %" PRIu64 " pieces of host memory\n", p->calls, seconds, p->differences, p->differences == 1 ? "" : "s", p->copies,
	       p->copied, p->checks);
	if (p->map.moved)
		printf("allocations lie elsewhere than they did: addresses were translated\n");
	for (uint64_t i = 0; i < p->unplayed; i++)
		printf("%s%s%s", i ? ", " : "not played, because it is not recorded: ", call_descs[p->unplayed_names[i]].name,
		       i + 1 == p->unplayed ? "\n" : "");
	return p->stop[0] || broken ? 2 : p->differences ? 1 : 0;
}

static int
replay(const struct replay_options *o, const char *file, const void *bytes, size_t size, const char *library)
{
	static struct player p;
	struct record_reader reader;
	struct record_entry entry;
	struct timespec begin, end;
	int more;

	p = (struct player){ .options = o, .entry = &entry };
	if (!record_open(&reader, bytes, size)) {
		fprintf(stderr, "farwarp replay: %s: %s\n", file, reader.error);
		return 2;
	}
	if (!o->list && !open_library(&p, library))
		return 125;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	while ((more = record_next(&reader, &entry)) > 0) {
		if (o->list)
			list(&entry);
		else if (!play(&p))
			break;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (o->list) {
		if (more < 0)
			fprintf(stderr, "farwarp replay: %s: %s\n", file, reader.error);
		return more < 0 ? 2 : 0;
	}
	int status = say(&p, file, more < 0 ? reader.error : NULL, (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
	replay_map_free(&p.map);
	return status;
}

/* ---- the command --------------------------------------------------------------------------------------------------- */

static const struct argp_option option_table[] = {
	{ "list", KEY_LIST, NULL, 0, "print the record instead of playing it", 1 },
	{ "all", KEY_ALL, NULL, 0, "compare everything that came out, facts of the device and times included", 1 },
	{ "show", KEY_SHOW, "N", 0, "print so many differences (default 1: the first)", 1 },
	{ 0 } };

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	struct replay_options *o = state->input;
	char *end;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &o->run;
		break;
	case KEY_LIST:
		o->list = true;
		break;
	case KEY_ALL:
		o->all = true;
		break;
	case KEY_SHOW:
		o->show = strtoul(arg, &end, 10);
		if (end == arg || *end || arg[0] == '-')
			argp_error(state, "--show is a number, not \"%s\"", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int
tool_replay(int argc, char **argv)
{
	static const struct argp_child children[] = { { &run_options_argp, 0, "Where it is played, as for farwarp run:", 2 }, { 0 } };
	static const struct argp argp = { option_table, parse, "FILE",
		"Plays a record that farwarp trace --record has written, and compares the results of calls, what was copied to the host, and what the "
		"device wrote to host memory. Says the first difference.\vExit codes: 0 all the same, 1 differences, 2 the record is cut or broken or "
		"cannot be played to its end, 125 no device, 64 wrong usage.", children, NULL, NULL };
	static struct replay_options o = { .show = 1 };
	char name[] = "farwarp replay", library[PATH_MAX + 32] = "libcuda.so.1";
	struct stat st;
	bool local;

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	o.run.missing = "which record? As in: farwarp replay FILE";
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o);
	const char *file = o.run.program[0];
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		fprintf(stderr, "farwarp replay: cannot read %s: %s\n", file, fd < 0 ? strerror(errno) : "it is no file");
		return 2;
	}
	void *bytes = st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : (void *)"";
	close(fd);
	if (bytes == MAP_FAILED) {
		fprintf(stderr, "farwarp replay: cannot map %s: %s\n", file, strerror(errno));
		return 2;
	}
	if (!o.list) {
		char folder[PATH_MAX];
		int status = run_environment(&o.run, name, &local, folder, sizeof(folder));
		if (status)
			return status;
		if (!local)
			snprintf(library, sizeof(library), "%s/libcuda.so.1", folder);
	}
	return replay(&o, file, bytes, (size_t)st.st_size, library);
}
