/*
 * Copies of the client's pageable memory that the device makes later, under a driver, which does not reach into another process: in graphs, in
 * lists, between contexts. What the copy names is memory of this process; a host function before it fetches the client's bytes, and one behind
 * it sends them. In a graph both run at each launch, and the graph owns the memory (a user object); else the one behind it ends the memory.
 *
 * In a graph the three are a child graph: one node, which the client is told to be a memcpy node, with the parameters that it gave. It is
 * known by its functions, so that it is found in clones too. A list that is captured has its functions beside it, as nodes that a program sees.
 *
 * The memory is pinned: of other memory a driver may read the source within the call. As the destructor of a user object makes no calls to the
 * driver, it is kept for the next copies and stays the worker's.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/server.h"
#include "soft/soft.h"

static const struct cuda_ops *inner; /* the driver's; NULL: nothing is served so */
static struct cuda_ops watched;

/* A side: `planes` boxes of `rows` rows in the client's memory, packed here. */
struct stage {
	struct stage *next;
	uint64_t address, pitch, width, rows, slice, planes; /* slice: bytes from plane to plane */
	bool in; /* from the client */
	bool borrowed; /* `bytes` end with another */
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
	bool has_in, has_out;    /* at its time, not within the call */
	CUDA_MEMCPY3D params;    /* of a node: as the client gave them */
	CUgraphExec exec;        /* in which alone they hold; NULL: in the graph */
	struct sv_staged *later; /* what the node was set to since: it ends with the first */
};

static void
drop(void *user)
{
	struct sv_staged *staged = user;

	while (staged) {
		struct sv_staged *ended = staged;
		for (struct stage *stage; (stage = staged->stages);) {
			staged->stages = stage->next;
			if (!stage->borrowed)
				give(stage->bytes, stage->class);
			free(stage);
		}
		staged = staged->later;
		free(ended);
	}
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

/* The memory of what a node of the same executable graph was before: its launches come one after the other. */
static bool
borrow(struct sv_staging *staging, struct stage *stage, uint64_t size)
{
	for (const struct stage *old = staging->like ? staging->like->stages : NULL; old; old = old->next)
		if (old->in == stage->in && size <= 4096ull << old->class) {
			stage->borrowed = true;
			stage->class = old->class;
			stage->bytes = old->bytes;
			return true;
		}
	return false;
}

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
	if (!borrow(staging, stage, size))
		*result = take(staging->call->ops, size, &stage->bytes, &stage->class);
	if (!stage->bytes) {
		free(stage);
		return NULL;
	}
	stage->next = staging->staged->stages;
	staging->staged->stages = stage;
	return stage;
}

/* What is fetched now is a copy of what the client has now; else it is fetched and sent when the copy's turn has come. */
static void
when(struct sv_staging *staging, struct stage *stage, bool now)
{
	if (now && stage->in)
		move(stage);
	else if (stage->in)
		staging->staged->has_in = true;
	else
		staging->staged->has_out = true;
}

CUresult
sv_stage(struct sv_staging *staging, CUdeviceptr *address, uint64_t size, bool in, bool now)
{
	CUresult result;

	if (!(*address & SESSION_FAR) || !inner || !size)
		return sv_may_touch(staging->call, *address, size);
	struct stage *stage = add(staging, &(struct stage){ .address = *address & ~SESSION_FAR, .pitch = size, .width = size, .rows = 1, .planes = 1, .in = in }, &result);
	if (!stage)
		return result;
	*address = (CUdeviceptr)(uintptr_t)stage->bytes;
	when(staging, stage, now);
	return CUDA_SUCCESS;
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
	when(staging, stage, now);
	return CUDA_SUCCESS;
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

	if (!(address & SESSION_FAR) || !inner || !c->WidthInBytes || !c->Height || !c->Depth)
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

bool
sv_stages(void)
{
	return inner != NULL;
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

/* The graph owns the memory from now on. */
static CUresult
give_to(struct sv_staging *staging, CUgraph graph)
{
	const struct cuda_ops *ops = staging->call->ops;
	CUuserObject object;

	CUresult result = ops->cuUserObjectCreate(&object, staging->staged, drop, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
	if (result != CUDA_SUCCESS)
		return result;
	result = ops->cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE);
	if (result == CUDA_SUCCESS)
		staging->captured = true;
	else if (ops->cuUserObjectRelease(object, 1) == CUDA_SUCCESS)
		staging->staged = NULL; /* its destructor has it */
	return result;
}

/* The graph that the stream is captured into, if it is. */
static CUresult
give_to_graph(struct sv_staging *staging)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	CUgraph graph = NULL;
	uint64_t id;
	size_t count;

	CUresult result = staging->call->ops->cuStreamGetCaptureInfo_v2(staging->stream, &status, &id, &graph, NULL, &count);
	if (result != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_ACTIVE) /* none, or an invalid one, of which the copy tells */
		return result;
	return give_to(staging, graph);
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

/* ---- nodes ---------------------------------------------------------------------------------------------------------------- */

/* A node that is a child graph of ours. */
struct parts {
	CUgraph child;
	CUgraphNode fetch, copy, send; /* NULL: it has none */
	struct sv_staged *staged;      /* what it was made with */
};

static bool
find_parts(CUgraphNode node, struct parts *parts)
{
	CUgraphNode nodes[3];
	CUgraphNodeType type;
	size_t count = 0;

	*parts = (struct parts){ 0 };
	if (!inner || inner->cuGraphNodeGetType(node, &type) != CUDA_SUCCESS || type != CU_GRAPH_NODE_TYPE_GRAPH ||
	    inner->cuGraphChildGraphNodeGetGraph(node, &parts->child) != CUDA_SUCCESS ||
	    inner->cuGraphGetNodes(parts->child, NULL, &count) != CUDA_SUCCESS || count < 2 || count > 3 ||
	    inner->cuGraphGetNodes(parts->child, nodes, &count) != CUDA_SUCCESS)
		return false;
	for (size_t n = 0; n < count; n++) {
		CUDA_HOST_NODE_PARAMS function = { 0 };
		if (inner->cuGraphNodeGetType(nodes[n], &type) != CUDA_SUCCESS)
			return false;
		if (type == CU_GRAPH_NODE_TYPE_MEMCPY)
			parts->copy = nodes[n];
		if (type != CU_GRAPH_NODE_TYPE_HOST || inner->cuGraphHostNodeGetParams(nodes[n], &function) != CUDA_SUCCESS)
			continue;
		if (!sv_is_stage_function(function.fn))
			return false;
		*(function.fn == fetch ? &parts->fetch : &parts->send) = nodes[n];
		parts->staged = function.userData;
	}
	return parts->copy && parts->staged;
}

static CUresult
watch_cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
	struct parts parts;
	CUresult result = inner->cuGraphNodeGetType(node, type);

	if (result == CUDA_SUCCESS && *type == CU_GRAPH_NODE_TYPE_GRAPH && find_parts(node, &parts))
		*type = CU_GRAPH_NODE_TYPE_MEMCPY;
	return result;
}

static CUresult
watch_cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *child)
{
	struct parts parts;

	return find_parts(node, &parts) ? CUDA_ERROR_INVALID_VALUE : inner->cuGraphChildGraphNodeGetGraph(node, child);
}

static CUresult
watch_cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *params)
{
	struct parts parts;

	if (!find_parts(node, &parts))
		return inner->cuGraphMemcpyNodeGetParams(node, params);
	*params = parts.staged->params;
	return CUDA_SUCCESS;
}

const struct cuda_ops *
sv_stage_watch(const struct cuda_ops *ops)
{
	inner = ops;
	watched = *ops;
	watched.cuGraphNodeGetType = watch_cuGraphNodeGetType;
	watched.cuGraphChildGraphNodeGetGraph = watch_cuGraphChildGraphNodeGetGraph;
	watched.cuGraphMemcpyNodeGetParams = watch_cuGraphMemcpyNodeGetParams;
	return &watched;
}

static bool
is_far(CUmemorytype type, const void *host, CUdeviceptr device)
{
	return (type == CU_MEMORYTYPE_HOST ? (uint64_t)(uintptr_t)host : type == CU_MEMORYTYPE_UNIFIED ? device : 0) & SESSION_FAR;
}

bool
sv_wants_stage(const CUDA_MEMCPY3D *c)
{
	return inner && (is_far(c->srcMemoryType, c->srcHost, c->srcDevice) || is_far(c->dstMemoryType, c->dstHost, c->dstDevice));
}

/* As the program knows it. */
static CUDA_MEMCPY3D
without_far(const CUDA_MEMCPY3D *c)
{
	CUDA_MEMCPY3D out = *c;

	if (out.srcMemoryType == CU_MEMORYTYPE_HOST)
		out.srcHost = (const void *)((uintptr_t)out.srcHost & ~SESSION_FAR);
	if (out.srcMemoryType == CU_MEMORYTYPE_UNIFIED)
		out.srcDevice &= ~SESSION_FAR;
	if (out.dstMemoryType == CU_MEMORYTYPE_HOST)
		out.dstHost = (void *)((uintptr_t)out.dstHost & ~SESSION_FAR);
	if (out.dstMemoryType == CU_MEMORYTYPE_UNIFIED)
		out.dstDevice &= ~SESSION_FAR;
	return out;
}

/* Memory for the sides of a node; *c is then the copy that the device makes. */
static CUresult
stage_node(struct sv_staging *staging, CUDA_MEMCPY3D *c)
{
	CUDA_MEMCPY3D given = without_far(c);

	if (!staging->staged && !(staging->staged = calloc(1, sizeof(*staging->staged))))
		return CUDA_ERROR_OUT_OF_MEMORY;
	staging->staged->params = given;
	CUresult result = sv_stage_box(staging, c, true);
	return result == CUDA_SUCCESS ? sv_stage_box(staging, c, false) : result;
}

static CUresult
build(CUgraph child, struct sv_staged *staged, bool with_fetch, const CUDA_MEMCPY3D *c, CUcontext ctx, bool with_send)
{
	CUDA_HOST_NODE_PARAMS before = { fetch, staged }, behind = { send, staged };
	CUgraphNode first = NULL, copy, last;
	CUresult result = with_fetch ? inner->cuGraphAddHostNode(&first, child, NULL, 0, &before) : CUDA_SUCCESS;

	if (result == CUDA_SUCCESS)
		result = inner->cuGraphAddMemcpyNode(&copy, child, first ? &first : NULL, first != NULL, c, ctx);
	if (result == CUDA_SUCCESS && with_send)
		result = inner->cuGraphAddHostNode(&last, child, &copy, 1, &behind);
	return result;
}

CUresult
sv_stage_add(struct sv_call *call, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes, const CUgraphEdgeData *edges, size_t count,
             const CUDA_MEMCPY3D *given, CUcontext ctx)
{
	struct sv_staging staging = { .call = call };
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_GRAPH };
	CUDA_MEMCPY3D c = *given;
	CUgraph child = NULL;

	CUresult result = stage_node(&staging, &c);
	if (result == CUDA_SUCCESS)
		result = inner->cuGraphCreate(&child, 0);
	if (result == CUDA_SUCCESS)
		result = build(child, staging.staged, staging.staged->has_in, &c, ctx, staging.staged->has_out);
	if (result == CUDA_SUCCESS)
		result = give_to(&staging, graph);
	params.graph.graph = child;
	if (result == CUDA_SUCCESS)
		result = inner->cuGraphAddNode_v2(node, graph, nodes, edges, count, &params);
	if (child)
		inner->cuGraphDestroy(child);
	if (!staging.captured)
		drop(staging.staged);
	return result;
}

/* What a node of an executable graph was set to before: to the same, or (NULL) to anything. */
static struct sv_staged *
set_before(struct sv_staged *first, CUgraphExec exec, const CUDA_MEMCPY3D *params)
{
	while (first && (!exec || first->exec != exec || (params && memcmp(&first->params, params, sizeof(*params)) != 0)))
		first = first->later;
	return first;
}

/*
 * What a node of a graph or an executable graph copies from now on. What is made for it ends with what the node was made with: that lives as long
 * as any executable graph of that graph.
 */
bool
sv_stage_set(struct sv_call *call, CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *given, CUcontext ctx, CUresult *result)
{
	static pthread_mutex_t set_lock = PTHREAD_MUTEX_INITIALIZER; /* guards what is later */
	CUDA_MEMCPY3D c = *given, known = without_far(given);
	struct parts parts;
	CUgraph child = NULL;

	if (!find_parts(node, &parts)) {
		if (sv_wants_stage(given)) {
			fw_warn_once("worker", "a node of a graph that copies other memory cannot be set to pageable memory: use pinned memory (cuMemHostAlloc)");
			*result = CUDA_ERROR_NOT_SUPPORTED;
		}
		return sv_wants_stage(given);
	}
	pthread_mutex_lock(&set_lock);
	struct sv_staged *before = set_before(parts.staged, exec, &known);
	struct sv_staging staging = { .call = call, .like = before ? before : set_before(parts.staged, exec, NULL) };
	*result = stage_node(&staging, &c);
	if (*result == CUDA_SUCCESS && ((staging.staged->has_in && !parts.fetch) || (staging.staged->has_out && !parts.send)))
		*result = CUDA_ERROR_INVALID_VALUE; /* another direction (driver API, cuGraphExecMemcpyNodeSetParams) */
	struct sv_staged *staged = before ? before : staging.staged;
	CUDA_HOST_NODE_PARAMS in = { fetch, staged }, out = { send, staged };
	if (*result == CUDA_SUCCESS && exec) {
		*result = inner->cuGraphCreate(&child, 0);
		if (*result == CUDA_SUCCESS)
			*result = build(child, staged, parts.fetch != NULL, &c, ctx, parts.send != NULL);
		if (*result == CUDA_SUCCESS)
			*result = inner->cuGraphExecChildGraphNodeSetParams(exec, node, child);
	} else if (*result == CUDA_SUCCESS) {
		*result = inner->cuGraphMemcpyNodeSetParams(parts.copy, &c);
		if (*result == CUDA_SUCCESS && parts.fetch)
			*result = inner->cuGraphHostNodeSetParams(parts.fetch, &in);
		if (*result == CUDA_SUCCESS && parts.send)
			*result = inner->cuGraphHostNodeSetParams(parts.send, &out);
	}
	if (child)
		inner->cuGraphDestroy(child);
	if (*result != CUDA_SUCCESS || before) {
		drop(staging.staged);
	} else {
		staged->exec = exec;
		staged->later = parts.staged->later;
		parts.staged->later = staged;
	}
	pthread_mutex_unlock(&set_lock);
	return true;
}

bool
sv_stage_capture(struct sv_call *call, CUstream stream, const CUDA_MEMCPY3D *c, CUresult *result)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	const CUgraphNode *nodes = NULL;
	const CUgraphEdgeData *edges = NULL;
	CUgraphNode node = NULL;
	CUgraph graph = NULL;
	uint64_t id;
	size_t count = 0;

	if (!sv_wants_stage(c))
		return false;
	*result = inner->cuStreamGetCaptureInfo_v3(stream, &status, &id, &graph, &nodes, &edges, &count);
	if (*result == CUDA_SUCCESS && status == CU_STREAM_CAPTURE_STATUS_NONE)
		return false;
	if (*result == CUDA_SUCCESS && status == CU_STREAM_CAPTURE_STATUS_INVALIDATED)
		*result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_add(call, &node, graph, nodes, edges, count, c, fw_thread.ctx);
	if (*result == CUDA_SUCCESS)
		*result = inner->cuStreamUpdateCaptureDependencies(stream, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES);
	return true;
}
