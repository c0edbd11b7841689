/*
 * Writes records (layers/record.h) while farwarp trace --record looks on.
 *
 * Inputs are packed before a call is made, outputs after it; an event is written when the call has returned, under one lock, so the file
 * is in an order in which the calls can be made one after the other. A copy to the host that would go on behind the call is waited for,
 * because its bytes are part of the record. Host memory that the device may reach is compared with what it was, before calls that set the
 * device to work (what differs, the program wrote) and after those that wait for it (what differs, the device wrote).
 */
#include "client/record.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/remote.h"
#include "layers/record.h"

#define PAGE 4096u          /* grain of comparing host memory */
#define RUN_MAX (1u << 20)  /* bytes of host memory in an event */
#define CONTEXTS 64         /* contexts that were told; one more is told again each time */

/* Packed bytes that grow. */
struct bytes {
	uint8_t *data;
	size_t size;
};

struct recording {
	enum cuda_call_id call; /* as it is recorded */
	enum record_form form;
	uint16_t flags;
	uint64_t context;
	struct call_arguments arguments;
	uint64_t words[5];      /* of a copy that got a direction */
	CUDA_MEMCPY3D box;      /* with the program's own pointers */
	bool box_to_host;
	struct bytes inputs;
};

static int record_fd = -1;
static pid_t recorder; /* the process that is recorded */
static struct trace_page *page;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the file and what follows */
static uint64_t contexts[CONTEXTS];
static unsigned context_count;

/* Host memory that the device may reach. */
struct visible {
	struct visible *next;
	uint8_t *address, *shadow;
	size_t size;
	bool known; /* the shadow holds what the record knows of it */
};
static struct visible *visible;

void
cl_record_open(int fd, struct trace_page *shared)
{
	int32_t none = 0;

	page = shared;
	recorder = getpid();
	if (__atomic_compare_exchange_n(&page->recorder, &none, recorder, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		record_fd = fd;
	else
		fw_warn("trace", "one process is recorded, and process %d was the first: this one is not", none);
}

bool
cl_record_on(void)
{
	return record_fd >= 0 && getpid() == recorder;
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

static bool
reserve(struct bytes *bytes, size_t size)
{
	bytes->data = malloc(size ? size : 8);
	bytes->size = 0;
	return bytes->data;
}

static size_t
padded(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

/* Writes an event; the lock is held. */
static void
write_event(const struct record_event *event, const struct bytes *inputs, const struct bytes *outputs, const struct record_range *ranges,
            uint64_t range_count)
{
	static const uint64_t zero;
	struct record_event head = *event;
	uint64_t in_size = inputs->size, out_size = outputs->size;
	const struct iovec parts[] = {
		{ &head, sizeof(head) }, { &in_size, 8 }, { inputs->data, in_size }, { (void *)(uintptr_t)&zero, padded(in_size) - in_size },
		{ &out_size, 8 }, { outputs->data, out_size }, { (void *)(uintptr_t)&zero, padded(out_size) - out_size },
		{ &range_count, 8 }, { (void *)(uintptr_t)ranges, range_count * sizeof(*ranges) } };
	size_t left = 0;

	head.mark = RECORD_MARK;
	head.size = 24 + padded(in_size) + padded(out_size) + range_count * sizeof(*ranges);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		left += parts[i].iov_len;
	struct iovec rest[sizeof(parts) / sizeof(parts[0])];
	memcpy(rest, parts, sizeof(parts));
	for (size_t i = 0; left && record_fd >= 0;) {
		ssize_t wrote = writev(record_fd, rest + i, (int)(sizeof(parts) / sizeof(parts[0]) - i));
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0) {
			fw_error("trace", "the record cannot be written, it ends here: %m");
			close(record_fd);
			record_fd = -1;
			return;
		}
		left -= (size_t)wrote;
		for (size_t done = (size_t)wrote; done; ) {
			size_t part = done < rest[i].iov_len ? done : rest[i].iov_len;
			rest[i].iov_base = (uint8_t *)rest[i].iov_base + part;
			rest[i].iov_len -= part;
			done -= part;
			if (!rest[i].iov_len)
				i++;
		}
		while (i < sizeof(parts) / sizeof(parts[0]) && !rest[i].iov_len)
			i++;
	}
	__atomic_fetch_add(&page->record_events, 1, __ATOMIC_RELAXED);
}

static struct record_event
event_of(uint16_t kind, uint64_t context)
{
	return (struct record_event){ .kind = kind, .thread = (uint32_t)syscall(SYS_gettid), .context = context };
}

/* A context that no recorded call gave; the lock is held. */
static void
tell_context(uint64_t handle)
{
	const struct cl_context *context = cl_context_find((CUcontext)(uintptr_t)handle);
	const struct bytes none = { 0 };

	for (unsigned i = 0; i < context_count; i++)
		if (contexts[i] == handle)
			return;
	if (!handle || !context)
		return;
	if (context_count < CONTEXTS)
		contexts[context_count++] = handle;
	uint64_t words[] = { handle, (uint64_t)context->device, context->primary };
	struct record_event event = event_of(RECORD_CONTEXT, handle);
	write_event(&event, &(struct bytes){ (uint8_t *)words, sizeof(words) }, &none, NULL, 0);
}

/* ---- host memory that the device may reach ------------------------------------------------------------------------- */

static void
add_visible(uint64_t address, size_t size)
{
	struct visible *v = malloc(sizeof(*v));

	pthread_mutex_lock(&lock);
	for (const struct visible *known = visible; v && known; known = known->next) /* a variable may be asked for again */
		if ((uint64_t)(uintptr_t)known->address == address) {
			free(v);
			v = NULL;
		}
	pthread_mutex_unlock(&lock);
	if (!v)
		return;
	*v = (struct visible){ .address = (uint8_t *)(uintptr_t)address, .shadow = malloc(size ? size : 1), .size = size };
	if (!v->shadow) {
		fw_warn("trace", "out of memory: what the program writes to %zu bytes of host memory is not recorded", size);
		free(v);
		return;
	}
	pthread_mutex_lock(&lock);
	v->next = visible;
	visible = v;
	pthread_mutex_unlock(&lock);
}

static void
remove_visible(uint64_t address)
{
	pthread_mutex_lock(&lock);
	for (struct visible **at = &visible; *at; at = &(*at)->next)
		if ((uint64_t)(uintptr_t)(*at)->address == address) {
			struct visible *v = *at;
			*at = v->next;
			free(v->shadow);
			free(v);
			break;
		}
	pthread_mutex_unlock(&lock);
}

static void
write_run(uint16_t kind, struct visible *v, size_t at, size_t size)
{
	const struct bytes none = { 0 };
	uint8_t *memory = malloc(size + 32);
	struct call_writer out = { .data = memory, .size = size + 32 };
	struct record_event event = event_of(kind, 0);

	if (!memory)
		return;
	memcpy(v->shadow + at, v->address + at, size);
	call_put_u64(&out, (uint64_t)(uintptr_t)(v->address + at));
	call_put_array(&out, v->shadow + at, size, 1);
	write_event(&event, &(struct bytes){ memory, out.at }, &none, NULL, 0);
	free(memory);
}

/* Tells what differs from what the record knows; the lock is held. */
static void
tell_host_memory(uint16_t kind)
{
	for (struct visible *v = visible; v; v = v->next) {
		size_t begin = SIZE_MAX;
		for (size_t at = 0; at < v->size; at += PAGE) {
			size_t size = v->size - at < PAGE ? v->size - at : PAGE;
			bool differs = !v->known || memcmp(v->address + at, v->shadow + at, size) != 0;
			if (differs && begin == SIZE_MAX)
				begin = at;
			bool full = begin != SIZE_MAX && at + size - begin >= RUN_MAX;
			if (begin != SIZE_MAX && (!differs || full)) {
				write_run(kind, v, begin, (differs ? at + size : at) - begin);
				begin = SIZE_MAX;
			}
		}
		if (begin != SIZE_MAX)
			write_run(kind, v, begin, v->size - begin);
		v->known = true;
	}
}

/* ---- inputs -------------------------------------------------------------------------------------------------------- */

static uint64_t
word(const struct cl_slow *slow, unsigned i)
{
	return *(const uint64_t *)slow->args[i];
}

static unsigned
number(const struct cl_slow *slow, unsigned i)
{
	return *(const unsigned *)slow->args[i];
}

static bool
put_rows(struct recording *r)
{
	size_t bound = call_pack_bound(r->call, r->arguments.args);

	if (bound >= SIZE_MAX / 8 || !reserve(&r->inputs, bound))
		return false;
	struct call_writer out = { .data = r->inputs.data, .size = bound };
	bool ok = call_pack(&out, r->call, r->arguments.args);
	r->inputs.size = out.at;
	if (ok)
		call_count(r->call, &r->arguments);
	return ok;
}

/* The parameters as they lie in the kernel's parameter space; false if the layout is not known. */
static bool
gather_params(CUfunction f, void *const *params, uint8_t bytes[RECORD_PARAM_MAX], uint32_t *size)
{
	size_t offset, length;

	*size = 0;
	if (!cl_ops || !cl_ops->cuFuncGetParamInfo)
		return false;
	for (size_t i = 0;; i++) {
		CUresult result = cl_ops->cuFuncGetParamInfo(f, i, &offset, &length);
		if (result == CUDA_ERROR_INVALID_VALUE)
			return true;
		if (result != CUDA_SUCCESS || !params || offset > RECORD_PARAM_MAX || length > RECORD_PARAM_MAX - offset)
			return false;
		memcpy(bytes + offset, params[i], length);
		if (offset + length > *size)
			*size = (uint32_t)(offset + length);
	}
}

/* The same from `extra`: pairs of a number and a value: 1 the buffer, 2 its size, 0 the end. */
static bool
gather_extra(void *const *extra, uint8_t bytes[RECORD_PARAM_MAX], uint32_t *size)
{
	const void *buffer = NULL;
	size_t length = 0;

	for (; *extra; extra += 2) {
		if (*extra == (void *)1)
			buffer = extra[1];
		else if (*extra == (void *)2)
			length = *(const size_t *)extra[1];
		else
			return false;
	}
	if (length > RECORD_PARAM_MAX || (length && !buffer))
		return false;
	if (length)
		memcpy(bytes, buffer, length);
	*size = (uint32_t)length;
	return true;
}

static bool
put_launch(struct recording *r, const struct cl_slow *slow)
{
	uint8_t params[RECORD_PARAM_MAX] = { 0 };
	struct session_launch launch = { 0 };
	const CUlaunchAttribute *attributes = NULL;
	void *const *kernel_params, *const *extra = NULL;

	if (slow->call == CALL_cuLaunchKernelEx) {
		const CUlaunchConfig *c = (const CUlaunchConfig *)(uintptr_t)word(slow, 0);
		if (!c || c->numAttrs > RECORD_ATTRIBUTES_MAX || (c->numAttrs && !c->attrs))
			return false;
		launch = (struct session_launch){ word(slow, 1), (uint64_t)(uintptr_t)c->hStream, { c->gridDimX, c->gridDimY, c->gridDimZ },
			{ c->blockDimX, c->blockDimY, c->blockDimZ }, c->sharedMemBytes, 0, 0, c->numAttrs };
		attributes = c->attrs;
		kernel_params = (void *const *)(uintptr_t)word(slow, 2);
		extra = (void *const *)(uintptr_t)word(slow, 3);
	} else {
		bool cooperative = slow->call == CALL_cuLaunchCooperativeKernel;
		launch = (struct session_launch){ word(slow, 0), word(slow, 8), { number(slow, 1), number(slow, 2), number(slow, 3) },
			{ number(slow, 4), number(slow, 5), number(slow, 6) }, number(slow, 7), cooperative, 0, 0 };
		kernel_params = (void *const *)(uintptr_t)word(slow, 9);
		extra = cooperative ? NULL : (void *const *)(uintptr_t)word(slow, 10);
	}
	if (kernel_params && extra)
		return false;
	if (!(extra ? gather_extra(extra, params, &launch.param_bytes)
	            : gather_params((CUfunction)(uintptr_t)launch.function, kernel_params, params, &launch.param_bytes)))
		return false;
	size_t size = sizeof(launch) + padded(launch.param_bytes) + launch.attribute_count * sizeof(*attributes);
	if (!reserve(&r->inputs, size))
		return false;
	struct call_writer out = { .data = r->inputs.data, .size = size };
	call_put(&out, &launch, sizeof(launch));
	call_put(&out, params, launch.param_bytes);
	call_put(&out, attributes, launch.attribute_count * sizeof(*attributes));
	r->inputs.size = out.at;
	return !out.bad;
}

/* A kernel of a graph: of a new node, or of one that is changed, in a graph or in an executable one. */
static bool
put_node(struct recording *r, const struct cl_slow *slow)
{
	bool adds = slow->call == CALL_cuGraphAddKernelNode || slow->call == CALL_cuGraphAddKernelNode_v2;
	bool exec = slow->call == CALL_cuGraphExecKernelNodeSetParams || slow->call == CALL_cuGraphExecKernelNodeSetParams_v2;
	bool old = slow->call == CALL_cuGraphAddKernelNode || slow->call == CALL_cuGraphKernelNodeSetParams ||
	           slow->call == CALL_cuGraphExecKernelNodeSetParams;
	const CUDA_KERNEL_NODE_PARAMS *given = (const CUDA_KERNEL_NODE_PARAMS *)(uintptr_t)word(slow, adds ? 4 : exec ? 2 : 1);
	uint64_t count = adds ? word(slow, 3) : 0;
	uint8_t params[RECORD_PARAM_MAX] = { 0 };
	CUDA_KERNEL_NODE_PARAMS c = { 0 };

	if (!given || count > (1u << 20) || (count && !word(slow, 2)))
		return false;
	memcpy(&c, given, old ? sizeof(CUDA_KERNEL_NODE_PARAMS_v1) : sizeof(c)); /* the old structure is the beginning of the new one */
	uint64_t function = (uint64_t)(uintptr_t)(c.func ? (void *)c.func : (void *)c.kern);
	struct session_launch launch = { function, (uint64_t)(uintptr_t)c.ctx, { c.gridDimX, c.gridDimY, c.gridDimZ },
		{ c.blockDimX, c.blockDimY, c.blockDimZ }, c.sharedMemBytes, !c.func, 0, 0 };
	if (!(c.extra ? gather_extra(c.extra, params, &launch.param_bytes)
	              : gather_params((CUfunction)(uintptr_t)function, c.kernelParams, params, &launch.param_bytes)))
		return false;
	size_t size = 24 + count * 8 + sizeof(launch) + padded(launch.param_bytes);
	if (!reserve(&r->inputs, size))
		return false;
	struct call_writer out = { .data = r->inputs.data, .size = size };
	call_put_u64(&out, adds ? word(slow, 1) : exec ? word(slow, 0) : 0);
	call_put_u64(&out, adds ? 0 : exec ? word(slow, 1) : word(slow, 0));
	call_put_array(&out, (const void *)(uintptr_t)(adds ? word(slow, 2) : 0), count, 8);
	call_put(&out, &launch, sizeof(launch));
	call_put(&out, params, launch.param_bytes);
	r->inputs.size = out.at;
	r->call = adds ? CALL_cuGraphAddKernelNode_v2 : exec ? CALL_cuGraphExecKernelNodeSetParams_v2 : CALL_cuGraphKernelNodeSetParams_v2;
	return !out.bad;
}

/* Whether the record follows what the host memory at this address holds. */
static bool
is_followed(const void *address)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (const struct visible *v = visible; v && !found; v = v->next)
		found = (uintptr_t)address - (uintptr_t)v->address < v->size;
	pthread_mutex_unlock(&lock);
	return found;
}

/* A copy of a graph reads and writes host memory whenever the graph runs; false if that is memory which the record does not follow. */
static bool
can_follow_node(const struct cl_slow *slow)
{
	bool adds = slow->call == CALL_cuGraphAddMemcpyNode, exec = slow->call == CALL_cuGraphExecMemcpyNodeSetParams;

	if (!adds && !exec && slow->call != CALL_cuGraphMemcpyNodeSetParams)
		return true;
	const CUDA_MEMCPY3D *c = (const CUDA_MEMCPY3D *)(uintptr_t)word(slow, adds ? 4 : exec ? 2 : 1);
	if (!c)
		return true;
	return (c->srcMemoryType != CU_MEMORYTYPE_HOST || is_followed(c->srcHost)) && (c->dstMemoryType != CU_MEMORYTYPE_HOST || is_followed(c->dstHost));
}

static bool
is_device(uint64_t address)
{
	unsigned type = 0;

	return cl_ops && cl_ops->cuPointerGetAttribute &&
	       cl_ops->cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) == CUDA_SUCCESS && type == CU_MEMORYTYPE_DEVICE;
}

/* Gives a copy without one its direction. False: from host to host, which the record sees as memory that was written, if the device may. */
static bool
direct_copy(struct recording *r, const struct cl_slow *slow)
{
	bool async = slow->call == CALL_cuMemcpyAsync, to = is_device(word(slow, 0)), from = is_device(word(slow, 1));

	for (unsigned i = 0; i < (async ? 4 : 3); i++) {
		r->words[i] = word(slow, i);
		r->arguments.args[i] = &r->words[i];
	}
	if (to && from)
		r->call = async ? CALL_cuMemcpyDtoDAsync_v2 : CALL_cuMemcpyDtoD_v2;
	else if (to)
		r->call = async ? CALL_cuMemcpyHtoDAsync_v2 : CALL_cuMemcpyHtoD_v2;
	else if (from)
		r->call = async ? CALL_cuMemcpyDtoHAsync_v2 : CALL_cuMemcpyDtoH_v2;
	r->form = RECORD_FORM_ROWS;
	return to || from;
}

static CUDA_MEMCPY3D
widen(const CUDA_MEMCPY2D *c)
{
	return (CUDA_MEMCPY3D){ .srcXInBytes = c->srcXInBytes, .srcY = c->srcY, .srcMemoryType = c->srcMemoryType, .srcHost = c->srcHost,
		.srcDevice = c->srcDevice, .srcArray = c->srcArray, .srcPitch = c->srcPitch, .dstXInBytes = c->dstXInBytes, .dstY = c->dstY,
		.dstMemoryType = c->dstMemoryType, .dstHost = c->dstHost, .dstDevice = c->dstDevice, .dstArray = c->dstArray,
		.dstPitch = c->dstPitch, .WidthInBytes = c->WidthInBytes, .Height = c->Height, .Depth = 1 };
}

/* Row y of plane z of a side in host memory. */
static uint8_t *
box_row(const void *host, size_t pitch, size_t height, size_t x, size_t first_y, size_t first_z, const CUDA_MEMCPY3D *c, size_t y, size_t z)
{
	pitch = pitch ? pitch : c->WidthInBytes + x;
	height = height ? height : c->Height + first_y;
	return (uint8_t *)(uintptr_t)host + ((first_z + z) * height + first_y + y) * pitch + x;
}

static bool
put_box(struct recording *r, const struct cl_slow *slow)
{
	bool flat = slow->call != CALL_cuMemcpy3D_v2 && slow->call != CALL_cuMemcpy3DAsync_v2;
	bool async = slow->call == CALL_cuMemcpy2DAsync_v2 || slow->call == CALL_cuMemcpy3DAsync_v2;
	const void *given = (const void *)(uintptr_t)word(slow, 0);
	CUDA_MEMCPY3D *c = &r->box;

	if (!given)
		return false;
	*c = flat ? widen(given) : *(const CUDA_MEMCPY3D *)given;
	if (c->srcMemoryType == CU_MEMORYTYPE_UNIFIED && !is_device(c->srcDevice)) {
		c->srcMemoryType = CU_MEMORYTYPE_HOST;
		c->srcHost = (const void *)(uintptr_t)c->srcDevice;
	}
	if (c->dstMemoryType == CU_MEMORYTYPE_UNIFIED && !is_device(c->dstDevice)) {
		c->dstMemoryType = CU_MEMORYTYPE_HOST;
		c->dstHost = (void *)(uintptr_t)c->dstDevice;
	}
	size_t bytes = record_box_bytes(c);
	bool from_host = c->srcMemoryType == CU_MEMORYTYPE_HOST;
	r->box_to_host = c->dstMemoryType == CU_MEMORYTYPE_HOST;
	if (bytes > SIZE_MAX / 8 || !reserve(&r->inputs, sizeof(*c) + 16 + padded(from_host ? bytes : 0)))
		return false;
	CUDA_MEMCPY3D told = *c;
	if (from_host) {
		told.srcXInBytes = told.srcY = told.srcZ = 0;
		told.srcPitch = told.WidthInBytes;
		told.srcHeight = told.Height;
		told.srcHost = NULL;
	}
	if (r->box_to_host) {
		told.dstXInBytes = told.dstY = told.dstZ = 0;
		told.dstPitch = told.WidthInBytes;
		told.dstHeight = told.Height;
		told.dstHost = NULL;
	}
	struct call_writer out = { .data = r->inputs.data, .size = sizeof(*c) + 16 + padded(from_host ? bytes : 0) };
	call_put(&out, &told, sizeof(told));
	call_put_u64(&out, async ? word(slow, 1) : 0);
	call_put_u64(&out, from_host ? bytes : 0);
	for (size_t z = 0; from_host && z < c->Depth; z++)
		for (size_t y = 0; y < c->Height; y++) {
			memcpy(out.data + out.at + (z * c->Height + y) * c->WidthInBytes,
			       box_row(c->srcHost, c->srcPitch, c->srcHeight, c->srcXInBytes, c->srcY, c->srcZ, c, y, z), c->WidthInBytes);
		}
	if (from_host) {
		memset(out.data + out.at + bytes, 0, padded(bytes) - bytes);
		out.at += padded(bytes);
	}
	r->inputs.size = out.at;
	r->call = async ? CALL_cuMemcpy3DAsync_v2 : CALL_cuMemcpy3D_v2;
	return !out.bad;
}

/* Whether the call sets the device to work on memory. */
static bool
works(const struct recording *r)
{
	const char *name = call_descs[r->call].name;

	return r->form == RECORD_FORM_LAUNCH || r->form == RECORD_FORM_BOX || strncmp(name, "cuMemcpy", 8) == 0 ||
	       strncmp(name, "cuMemset", 8) == 0 || strcmp(name, "cuGraphLaunch") == 0 || strcmp(name, "cuLaunchHostFunc") == 0;
}

/* Whether the device's work, or that of a stream, is done when the call returns. */
static bool
waits(const struct recording *r)
{
	const char *name = call_descs[r->call].name;

	return strstr(name, "Synchronize") || (strncmp(name, "cuMemcpy", 8) == 0 && call_descs[r->call].class == CALL_CLASS_SYNC);
}

struct recording *
cl_record_begin(const struct cl_slow *slow)
{
	enum record_form form = record_form(slow->call);
	struct recording *r = form == RECORD_FORM_NONE ? NULL : calloc(1, sizeof(*r));
	bool ok = true;

	if (!r)
		return NULL;
	r->call = slow->call;
	r->form = form;
	r->context = (uint64_t)(uintptr_t)fw_thread.ctx;
	for (unsigned i = 0; i < call_descs[slow->call].param_count && i < CALL_PARAMS_MAX; i++)
		r->arguments.args[i] = slow->args[i];
	if (form == RECORD_FORM_COPY && !direct_copy(r, slow)) {
		free(r);
		return NULL;
	}
	size_t length = strlen(slow->symbol);
	if (length > 5 && strcmp(slow->symbol + length - 5, "_ptds") == 0)
		r->flags |= RECORD_PTDS;
	if (r->form == RECORD_FORM_ROWS)
		ok = can_follow_node(slow) && put_rows(r);
	else if (r->form == RECORD_FORM_NODE)
		ok = put_node(r, slow);
	else if (r->form == RECORD_FORM_LAUNCH)
		ok = put_launch(r, slow);
	else if (r->form == RECORD_FORM_BOX)
		ok = put_box(r, slow);
	else if (r->form == RECORD_FORM_OPAQUE)
		ok = false;
	if (!ok)
		r->flags |= RECORD_OPAQUE;
	if (r->form == RECORD_FORM_LAUNCH && ok)
		r->call = CALL_cuLaunchKernel;
	if (r->call == CALL_cuMemFreeHost || r->call == CALL_cuMemHostUnregister || r->call == CALL_cuMemFree_v2)
		remove_visible(word(slow, 0));
	if (works(r)) {
		pthread_mutex_lock(&lock);
		tell_host_memory(RECORD_HOST_WRITE);
		pthread_mutex_unlock(&lock);
	}
	return r;
}

/* ---- outputs ------------------------------------------------------------------------------------------------------- */

/* An image as it travels, if the call that was made could read it. */
static bool
put_image(struct recording *r, const struct cl_slow *slow)
{
	bool file = slow->call == CALL_cuModuleLoad || slow->call == CALL_cuLibraryLoadFromFile;
	bool library = slow->call == CALL_cuLibraryLoadData || slow->call == CALL_cuLibraryLoadFromFile;
	const void *given = (const void *)(uintptr_t)word(slow, 1);

	r->call = library ? CALL_cuLibraryLoadData : CALL_cuModuleLoadDataEx;
	return file ? rm_file_bytes(given, &r->inputs.data, &r->inputs.size) : rm_image_bytes(given, &r->inputs.data, &r->inputs.size);
}

/* The stream of the call, which is its last parameter of that type. */
static CUstream
stream_of(const struct recording *r)
{
	const struct call_desc *desc = &call_descs[r->call];

	for (unsigned i = desc->param_count; r->form == RECORD_FORM_ROWS && i-- > 0;)
		if (strcmp(call_types[desc->params[i].type].name, "CUstream") == 0)
			return *(CUstream const *)r->arguments.args[i];
	CUstream stream = NULL;
	if (r->form == RECORD_FORM_BOX)
		memcpy(&stream, r->inputs.data + sizeof(CUDA_MEMCPY3D), sizeof(stream));
	return stream;
}

/* Waits until what a copy wrote to the host is there; false if it cannot be waited for, in a capture. */
static bool
settle(const struct recording *r)
{
	CUstream stream = stream_of(r);
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;

	if (call_descs[r->call].class != CALL_CLASS_ASYNC)
		return true;
	if (cl_ops->cuStreamIsCapturing && cl_ops->cuStreamIsCapturing(stream, &status) == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE)
		return false;
	return cl_ops->cuStreamSynchronize && cl_ops->cuStreamSynchronize(stream) == CUDA_SUCCESS;
}

static bool
writes_to_host(const struct recording *r)
{
	const struct call_desc *desc = &call_descs[r->call];

	for (unsigned i = 0; r->form == RECORD_FORM_ROWS && i < desc->param_count; i++)
		if (desc->params[i].dir == CALL_DIR_BUF_OUT)
			return true;
	return r->form == RECORD_FORM_BOX && r->box_to_host;
}

static bool
put_outputs(struct recording *r, const struct cl_slow *slow, struct bytes *outputs)
{
	const CUDA_MEMCPY3D *c = &r->box;
	struct call_writer out = { 0 };

	if (writes_to_host(r) && !settle(r))
		return false;
	switch (r->form) {
	case RECORD_FORM_ROWS:
		out.size = call_reply_bound(r->call, r->arguments.args) + 64;
		for (unsigned i = 0; i < call_descs[r->call].param_count; i++) /* counts may have grown with the outputs that say them */
			out.size += 16 + padded(r->arguments.counts[i] * call_descs[r->call].params[i].size);
		break;
	case RECORD_FORM_IMAGE:
	case RECORD_FORM_NODE:
		out.size = 8;
		break;
	case RECORD_FORM_BOX:
		out.size = r->box_to_host ? padded(record_box_bytes(c)) : 0;
		break;
	default:
		return false;
	}
	if (!reserve(outputs, out.size))
		return false;
	out.data = outputs->data;
	if (r->form == RECORD_FORM_ROWS) {
		call_put_outputs(&out, r->call, &r->arguments);
	} else if (r->form == RECORD_FORM_NODE) {
		call_put_u64(&out, r->call == CALL_cuGraphAddKernelNode_v2 ? *(const uint64_t *)(uintptr_t)word(slow, 0) : 0);
	} else if (r->form == RECORD_FORM_IMAGE) {
		call_put_u64(&out, *(const uint64_t *)(uintptr_t)word(slow, 0));
	} else {
		for (size_t z = 0; r->box_to_host && z < c->Depth; z++)
			for (size_t y = 0; y < c->Height; y++, out.at += c->WidthInBytes)
				memcpy(out.data + out.at, box_row(c->dstHost, c->dstPitch, c->dstHeight, c->dstXInBytes, c->dstY, c->dstZ, c, y, z),
				       c->WidthInBytes);
	}
	outputs->size = out.at;
	return !out.bad;
}

/* What a parameter says of how large an allocation is; 0: none does. */
static size_t
size_argument(const struct recording *r)
{
	const struct call_desc *desc = &call_descs[r->call];
	static const char *const names[] = { "bytesize", "bytes", "size" };

	for (unsigned i = 0; i < desc->param_count; i++)
		for (unsigned n = 0; n < 3; n++) {
			const struct call_param *p = &desc->params[i];
			const size_t *value = r->arguments.args[i];
			if (p->size != 8 || strcmp(p->name, names[n]) != 0)
				continue;
			if (p->shape != CALL_SHAPE_VALUE)
				value = *(const size_t *const *)r->arguments.args[i];
			return value ? *value : 0;
		}
	return 0;
}

static bool
allocates_on_host(enum cuda_call_id call)
{
	return call == CALL_cuMemAllocHost_v2 || call == CALL_cuMemHostAlloc;
}

/* An allocation that a structure among the outputs tells: its address, and a field of the name that says its size. */
static unsigned
range_in_structure(const struct call_param *p, const uint8_t *structure, struct record_range *range)
{
	const struct call_type *type = &call_types[p->type];

	*range = (struct record_range){ 0 };
	for (unsigned f = 0; f < type->count; f++) {
		if (call_types[type->fields[f].type].kind == CALL_KIND_DEVPTR)
			memcpy(&range->address, structure + type->fields[f].offset, 8);
		else if (strcmp(type->fields[f].name, "bytesize") == 0)
			memcpy(&range->size, structure + type->fields[f].offset, 8);
	}
	return range->address && range->size;
}

/* The allocations of the addresses that came out. */
static unsigned
find_ranges(const struct recording *r, const struct cl_slow *slow, struct record_range ranges[4])
{
	const struct call_desc *desc = &call_descs[r->call];
	unsigned count = 0;

	for (unsigned i = 0; r->form == RECORD_FORM_ROWS && i < desc->param_count && count < 4; i++) {
		const struct call_param *p = &desc->params[i];
		bool address = call_types[p->type].kind == CALL_KIND_DEVPTR || (allocates_on_host(r->call) && i == 0);
		const uint64_t *out = call_is_output(p) && address && p->shape == CALL_SHAPE_ONE ? *(const uint64_t *const *)r->arguments.args[i] : NULL;
		CUdeviceptr base = 0;
		size_t size = 0;
		if (call_is_output(p) && call_types[p->type].kind == CALL_KIND_STRUCT && p->shape == CALL_SHAPE_ONE && *(const void *const *)r->arguments.args[i])
			count += range_in_structure(p, *(const uint8_t *const *)r->arguments.args[i], &ranges[count]);
		if (!out || !*out)
			continue;
		if (!cl_ops->cuMemGetAddressRange_v2 || cl_ops->cuMemGetAddressRange_v2(&base, &size, *out) != CUDA_SUCCESS || *out - base >= size) {
			base = *out;
			size = size_argument(r);
		}
		if (size)
			ranges[count++] = (struct record_range){ base, size };
	}
	if (r->call == CALL_cuMemHostRegister || r->call == CALL_cuMemHostRegister_v2)
		ranges[count++] = (struct record_range){ word(slow, 0), word(slow, 1) };
	return count;
}

/* Follows what becomes host memory that the device may reach. */
static void
follow_visible(const struct recording *r, const struct cl_slow *slow)
{
	if (allocates_on_host(r->call))
		add_visible(*(const uint64_t *)(uintptr_t)word(slow, 0), word(slow, 1));
	else if (r->call == CALL_cuMemAllocManaged)
		add_visible(*(const uint64_t *)(uintptr_t)word(slow, 0), word(slow, 1));
	else if (r->call == CALL_cuLibraryGetManaged && word(slow, 0) && word(slow, 1))
		add_visible(*(const uint64_t *)(uintptr_t)word(slow, 0), *(const uint64_t *)(uintptr_t)word(slow, 1));
	else if (r->call == CALL_cuMemHostRegister || r->call == CALL_cuMemHostRegister_v2)
		add_visible(word(slow, 0), word(slow, 1));
}

void
cl_record_end(struct recording *r, const struct cl_slow *slow, CUresult result)
{
	struct bytes outputs = { 0 };
	struct record_range ranges[5];
	unsigned range_count = 0;

	if (r->form == RECORD_FORM_IMAGE && (result != CUDA_SUCCESS || !put_image(r, slow)))
		r->flags |= RECORD_OPAQUE;
	if (result == CUDA_SUCCESS && !(r->flags & RECORD_OPAQUE)) {
		if (put_outputs(r, slow, &outputs))
			r->flags |= RECORD_OUTPUTS;
		range_count = find_ranges(r, slow, ranges);
		follow_visible(r, slow);
	}
	if (r->flags & RECORD_OPAQUE)
		r->inputs.size = 0;
	struct record_event event = event_of((uint16_t)r->call, r->context);
	event.flags = r->flags;
	event.result = (int32_t)result;
	pthread_mutex_lock(&lock);
	tell_context(r->context);
	write_event(&event, &r->inputs, &outputs, ranges, range_count);
	if (result == CUDA_SUCCESS && waits(r))
		tell_host_memory(RECORD_HOST_CHECK);
	pthread_mutex_unlock(&lock);
	free(r->inputs.data);
	free(outputs.data);
	free(r);
}
