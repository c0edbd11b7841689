/*
 * Copies of the client's pageable memory that the device makes later, under a driver, which does not reach into another process: captured ones
 * and those of lists. What the copy names is memory of this process; a host function before it fetches the client's bytes, and one behind
 * it sends them. In a graph both run at each launch, and the graph owns the memory (a user object); else the one behind it ends the memory.
 *
 * The memory is pinned: of other memory a driver may read the source within the call. As the destructor of a user object makes no calls to the
 * driver, it is kept for the next copies and stays the worker's. Host functions are nodes of a graph that the program sees. Nodes that a
 * program makes by itself are not served so: its handle would stand for one of two.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <string.h>

#include "base/log.h"
#include "server/server.h"
#include "soft/soft.h"

/* A side: `planes` boxes of `rows` rows in the client's memory, packed here. */
struct stage {
	struct stage *next;
	uint64_t address, pitch, width, rows, slice, planes; /* slice: bytes from plane to plane */
	bool in; /* from the client */
	unsigned class;
	uint8_t *bytes;
};

/* ---- memory ------------------------------------------------------------------------------------------------------------- */

#define CLASSES 48 /* of sizes: powers of two, from a page on */

static struct kept {
	struct kept *next;
} *kept[CLASSES]; /* each in the memory that it is of; guarded by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A registration ends with its context, so it is made each time; it does not matter to a capture. */
static CUresult
pin(const struct cuda_ops *ops, void *bytes, uint64_t size)
{
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;

	ops->cuThreadExchangeStreamCaptureMode(&mode);
	CUresult result = ops->cuMemHostRegister_v2(bytes, size, CU_MEMHOSTREGISTER_PORTABLE);
	ops->cuThreadExchangeStreamCaptureMode(&mode);
	return result == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED ? CUDA_SUCCESS : result;
}

static void
give(uint8_t *bytes, unsigned class)
{
	struct kept *block = (struct kept *)bytes;

	pthread_mutex_lock(&lock);
	block->next = kept[class];
	kept[class] = block;
	pthread_mutex_unlock(&lock);
}

static CUresult
take(const struct cuda_ops *ops, uint64_t size, uint8_t **bytes, unsigned *class)
{
	unsigned n = size <= 4096 ? 0 : (unsigned)(64 - __builtin_clzll(size - 1)) - 12;
	void *at = NULL;

	if (n >= CLASSES)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&lock);
	if (kept[n]) {
		at = kept[n];
		kept[n] = kept[n]->next;
	}
	pthread_mutex_unlock(&lock);
	if (!at)
		at = mmap(NULL, 4096ull << n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = pin(ops, at, 4096ull << n);
	if (result != CUDA_SUCCESS) {
		give(at, n);
		return result;
	}
	*bytes = at;
	*class = n;
	return CUDA_SUCCESS;
}

/* ---- what is done at its time ------------------------------------------------------------------------------------------- */

struct sv_staged {
	struct stage *stages;
	bool has_in, has_out; /* at its time, not within the call */
};

static void
drop(void *user)
{
	struct sv_staged *staged = user;

	while (staged && staged->stages) {
		struct stage *stage = staged->stages;
		staged->stages = stage->next;
		give(stage->bytes, stage->class);
		free(stage);
	}
	free(staged);
}

static void
move(const struct stage *stage)
{
	for (uint64_t plane = 0; plane < stage->planes; plane++) {
		uint8_t *here = stage->bytes + plane * stage->rows * stage->width;
		if (stage->in)
			sv_far.read(here, stage->address + plane * stage->slice, stage->pitch, stage->width, stage->rows);
		else
			sv_far.write(stage->address + plane * stage->slice, stage->pitch, here, stage->width, stage->rows);
	}
}

static void
fetch(void *user)
{
	const struct sv_staged *staged = user;

	for (const struct stage *stage = staged->stages; stage; stage = stage->next)
		if (stage->in)
			move(stage);
}

static void
send(void *user)
{
	const struct sv_staged *staged = user;

	for (const struct stage *stage = staged->stages; stage; stage = stage->next)
		if (!stage->in)
			move(stage);
}

static void
send_and_drop(void *user)
{
	send(user);
	drop(user);
}

bool
sv_is_stage_function(CUhostFn function)
{
	return function == fetch || function == send;
}

/* ---- sides -------------------------------------------------------------------------------------------------------------- */

static struct stage *
add(struct sv_staging *staging, const struct stage *like, CUresult *result)
{
	uint64_t size;

	*result = CUDA_ERROR_INVALID_VALUE;
	if (__builtin_mul_overflow(like->width, like->rows, &size) || __builtin_mul_overflow(size, like->planes, &size))
		return NULL;
	*result = CUDA_ERROR_OUT_OF_MEMORY;
	if (!staging->staged && !(staging->staged = calloc(1, sizeof(*staging->staged))))
		return NULL;
	struct stage *stage = malloc(sizeof(*stage));
	if (!stage)
		return NULL;
	*stage = *like;
	*result = take(staging->call->ops, size, &stage->bytes, &stage->class);
	if (*result != CUDA_SUCCESS) {
		free(stage);
		return NULL;
	}
	stage->next = staging->staged->stages;
	staging->staged->stages = stage;
	return stage;
}

/* What is fetched now is a copy of what the client has now; else it is fetched and sent when the copy's turn has come. */
static CUresult
when(struct sv_staging *staging, struct stage *stage, bool now)
{
	if (now && stage->in)
		move(stage);
	else if (stage->in)
		staging->staged->has_in = true;
	else
		staging->staged->has_out = true;
	return CUDA_SUCCESS;
}

CUresult
sv_stage(struct sv_staging *staging, CUdeviceptr *address, uint64_t size, bool in, bool now)
{
	CUresult result;

	if (!(*address & SESSION_FAR) || sv_reaches_far() || !size)
		return sv_may_touch(staging->call, *address, size);
	struct stage *stage = add(staging, &(struct stage){ .address = *address & ~SESSION_FAR, .pitch = size, .width = size, .rows = 1, .planes = 1, .in = in }, &result);
	if (!stage)
		return result;
	*address = (CUdeviceptr)(uintptr_t)stage->bytes;
	return when(staging, stage, now);
}

/* A box of bytes whose first one is at `address`. `packed`: where it lies here. */
static CUresult
stage_box(struct sv_staging *staging, const struct stage *box, bool now, uint8_t **packed)
{
	CUresult result;
	uint64_t slice;

	/* No address of a process is so large that its planes, if they can be counted, lead around the end of numbers. */
	if (box->pitch < box->width || __builtin_mul_overflow(box->slice, box->planes, &slice) || slice >> 62)
		return CUDA_ERROR_INVALID_VALUE;
	struct stage *stage = add(staging, box, &result);
	if (!stage)
		return result;
	*packed = stage->bytes;
	return when(staging, stage, now);
}

CUresult
sv_stage_box(struct sv_staging *staging, CUDA_MEMCPY3D *c, bool is_source)
{
	CUmemorytype *type = is_source ? &c->srcMemoryType : &c->dstMemoryType;
	CUdeviceptr *device = is_source ? &c->srcDevice : &c->dstDevice;
	const void **host = is_source ? &c->srcHost : (const void **)&c->dstHost;
	size_t *x = is_source ? &c->srcXInBytes : &c->dstXInBytes, *y = is_source ? &c->srcY : &c->dstY, *z = is_source ? &c->srcZ : &c->dstZ;
	size_t *pitch = is_source ? &c->srcPitch : &c->dstPitch, *height = is_source ? &c->srcHeight : &c->dstHeight;
	uint64_t address = *type == CU_MEMORYTYPE_HOST ? (uint64_t)(uintptr_t)*host : *type == CU_MEMORYTYPE_UNIFIED ? *device : 0;
	struct stage box = { .width = c->WidthInBytes, .rows = c->Height, .planes = c->Depth, .in = is_source };
	uint64_t first, rows;
	uint8_t *packed = NULL;

	if (!(address & SESSION_FAR) || sv_reaches_far() || !c->WidthInBytes || !c->Height || !c->Depth)
		return sv_may_touch_box(staging->call, c, is_source);
	if (__builtin_add_overflow(*x, c->WidthInBytes, &box.pitch) || __builtin_add_overflow(*y, c->Height, &rows))
		return CUDA_ERROR_INVALID_VALUE;
	if (*pitch && *pitch < box.pitch)
		return CUDA_ERROR_INVALID_VALUE;
	box.pitch = *pitch ? *pitch : box.pitch;
	if (__builtin_mul_overflow(box.pitch, *height ? *height : rows, &box.slice) || __builtin_mul_overflow(box.slice, *z, &first) ||
	    __builtin_mul_overflow(box.pitch, *y, &rows) || __builtin_add_overflow(first, rows, &first) || __builtin_add_overflow(first, *x, &first))
		return CUDA_ERROR_INVALID_VALUE;
	box.address = (address & ~SESSION_FAR) + first;
	CUresult result = stage_box(staging, &box, false, &packed);
	if (result != CUDA_SUCCESS)
		return result;
	*type = CU_MEMORYTYPE_HOST;
	*host = packed;
	*x = *y = *z = 0;
	*pitch = c->WidthInBytes;
	*height = c->Height;
	return CUDA_SUCCESS;
}

CUresult
sv_stage_operand(struct sv_staging *staging, CUmemcpy3DOperand *operand, const CUextent3D *extent, size_t element, bool in, bool now)
{
	struct stage box = { .address = operand->op.ptr.ptr & ~SESSION_FAR, .rows = extent->height, .planes = extent->depth, .in = in };
	size_t length = operand->op.ptr.rowLength ? operand->op.ptr.rowLength : extent->width;
	size_t height = operand->op.ptr.layerHeight ? operand->op.ptr.layerHeight : extent->height;
	uint8_t *packed = NULL;

	if (height < extent->height || __builtin_mul_overflow(extent->width, element, &box.width) ||
	    __builtin_mul_overflow(length, element, &box.pitch) || __builtin_mul_overflow(box.pitch, height, &box.slice))
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = stage_box(staging, &box, now, &packed);
	if (result == CUDA_SUCCESS) {
		operand->op.ptr.ptr = (CUdeviceptr)(uintptr_t)packed;
		operand->op.ptr.rowLength = operand->op.ptr.layerHeight = 0;
	}
	return result;
}

/* ---- the functions before and behind -------------------------------------------------------------------------------------- */

/* The graph that the stream is captured into owns the memory from now on. */
static CUresult
give_to_graph(struct sv_staging *staging)
{
	const struct cuda_ops *ops = staging->call->ops;
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	CUuserObject object;
	CUgraph graph = NULL;
	uint64_t id;
	size_t count;

	CUresult result = ops->cuStreamGetCaptureInfo_v2(staging->stream, &status, &id, &graph, NULL, &count);
	if (result != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_ACTIVE) /* none, or an invalid one, of which the copy tells */
		return result;
	result = ops->cuUserObjectCreate(&object, staging->staged, drop, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
	if (result != CUDA_SUCCESS)
		return result;
	result = ops->cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE);
	if (result == CUDA_SUCCESS)
		staging->captured = true;
	else if (ops->cuUserObjectRelease(object, 1) == CUDA_SUCCESS)
		staging->staged = NULL; /* its destructor has it */
	return result;
}

CUresult
sv_stage_before(struct sv_staging *staging)
{
	if (!staging->staged)
		return CUDA_SUCCESS;
	CUresult result = give_to_graph(staging);
	if (result == CUDA_SUCCESS && staging->staged->has_in) {
		result = staging->call->ops->cuLaunchHostFunc(staging->stream, fetch, staging->staged);
		staging->begun = result == CUDA_SUCCESS;
	}
	return result;
}

CUresult
sv_stage_after(struct sv_staging *staging, CUresult result)
{
	const struct cuda_ops *ops = staging->call->ops;
	struct sv_staged *staged = staging->staged;
	CUresult last = CUDA_SUCCESS;

	if (!staged)
		return result;
	if (staging->captured) {
		if (result == CUDA_SUCCESS && staged->has_out)
			result = ops->cuLaunchHostFunc(staging->stream, send, staged);
		return result;
	}
	if (result == CUDA_SUCCESS || staging->begun)
		last = ops->cuLaunchHostFunc(staging->stream, result == CUDA_SUCCESS ? send_and_drop : drop, staged);
	else
		drop(staged);
	if (last != CUDA_SUCCESS && ops->cuStreamSynchronize(staging->stream) == CUDA_SUCCESS)
		drop(staged); /* else something may still use it */
	if (result == CUDA_SUCCESS && last == CUDA_SUCCESS && staging->synchronous)
		last = ops->cuStreamSynchronize(staging->stream);
	return result != CUDA_SUCCESS ? result : last;
}
