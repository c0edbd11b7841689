/*
 * Graphs over the wire: nodes that are described by structures with pointers in them, and queries that answer with pointers.
 *
 * Every way to add a node, or to change one, is one of three records with a CUgraphNodeParams, as the newest of these calls takes it, and
 * what its pointers lead to. What a query points to is kept here until the node asks again or is destroyed. Calls on graphs that carry
 * handles and numbers alone are forwarded by their rows.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "client/remote.h"

/* ---- memory that nodes own ----------------------------------------------------------------------------------------- */

#define BUCKETS 1024

static struct owned {
	struct owned *next;
	CUgraphNode node;
	void *memory;
} *buckets[BUCKETS];
static pthread_mutex_t owned_lock = PTHREAD_MUTEX_INITIALIZER; /* guards buckets */
static size_t owned_count; /* atomic, written under the lock */

static struct owned **
find_owned(CUgraphNode node)
{
	struct owned **at = &buckets[((uint64_t)(uintptr_t)node * 0x9e3779b97f4a7c15u >> 54) % BUCKETS];

	while (*at && (*at)->node != node)
		at = &(*at)->next;
	return at;
}

/* The node owns `memory` from now on, in place of what it owned. NULL, and it is freed, when out of memory. */
static void *
own(CUgraphNode node, void *memory)
{
	pthread_mutex_lock(&owned_lock);
	struct owned **at = find_owned(node);
	struct owned *owned = *at;
	if (!owned && memory && (owned = calloc(1, sizeof(*owned)))) {
		owned->node = node;
		*at = owned;
		__atomic_add_fetch(&owned_count, 1, __ATOMIC_RELAXED);
	}
	if (owned && memory) {
		free(owned->memory);
		owned->memory = memory;
	}
	pthread_mutex_unlock(&owned_lock);
	if (!owned)
		free(memory);
	return owned ? memory : NULL;
}

static void
disown(CUgraphNode node)
{
	pthread_mutex_lock(&owned_lock);
	struct owned **at = find_owned(node), *owned = *at;
	if (owned) {
		*at = owned->next;
		__atomic_sub_fetch(&owned_count, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&owned_lock);
	if (owned)
		free(owned->memory);
	free(owned);
}

/*
 * Destroys a graph or a node; the worker tells which nodes went with it, if any of them may own something. Those in the bodies of
 * conditional nodes it does not know: what such a node owns stays until the end of the process.
 */
static CUresult
destroy(enum cuda_call_id call, void *handle)
{
	struct rm_request r;
	struct fw_cursor in;
	uint64_t count = 0;

	rm_ended(call);
	rm_begin(&r, (uint16_t)call, 16);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)handle);
	call_put_u64(&r.out, __atomic_load_n(&owned_count, __ATOMIC_RELAXED) > 0);
	CUresult result = rm_ask(&r, &in);
	const CUgraphNode *nodes = result == CUDA_SUCCESS ? call_get_array(&in, sizeof(*nodes), &count) : NULL;
	for (uint64_t n = 0; n < count; n++)
		disown(nodes[n]);
	rm_end(&r);
	rm_ended(call);
	return result;
}

CUresult
rm_cuGraphDestroy(CUgraph hGraph)
{
	return destroy(CALL_cuGraphDestroy, hGraph);
}

CUresult
rm_cuGraphDestroyNode(CUgraphNode hNode)
{
	return destroy(CALL_cuGraphDestroyNode, hNode);
}

/* ---- descriptions of nodes ----------------------------------------------------------------------------------------- */

/* A description ready to travel: the structure without pointers, and the bytes that they led to. */
struct description {
	CUgraphNodeParams params;
	uint64_t how; /* enum session_params, of a kernel */
	const void *bytes;
	size_t size;
	void *own;
	struct session_callback callback;
};

static CUresult
describe_kernel(struct description *d)
{
	CUDA_KERNEL_NODE_PARAMS_v3 *kernel = &d->params.kernel;
	CUfunction function = kernel->func ? kernel->func : (CUfunction)kernel->kern;
	CUresult result = rm_gather(function, kernel->kernelParams, kernel->extra, &d->how, &d->own, &d->size);

	d->bytes = d->own;
	kernel->kernelParams = kernel->extra = NULL;
	return result;
}

static CUresult
describe(const CUgraphNodeParams *given, struct description *d)
{
	*d = (struct description){ .params = *given };
	switch (given->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return describe_kernel(d);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return rm_reach_box(&d->params.memcpy.copyParams);
	case CU_GRAPH_NODE_TYPE_HOST:
		if (!given->host.fn)
			return CUDA_SUCCESS;
		d->callback = rm_callback(SESSION_HOST_FUNCTION, (void *)given->host.fn, given->host.userData);
		d->bytes = &d->callback;
		d->size = sizeof(d->callback);
		return rm_line_begin(SESSION_LINE_FUNCTIONS);
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		d->bytes = given->alloc.accessDescs;
		d->size = given->alloc.accessDescs ? given->alloc.accessDescCount * sizeof(CUmemAccessDesc) : 0;
		d->params.alloc.accessDescs = NULL;
		break;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		d->bytes = given->memOp.paramArray;
		d->size = given->memOp.paramArray ? given->memOp.count * sizeof(CUstreamBatchMemOpParams) : 0;
		d->params.memOp.paramArray = NULL;
		break;
	default:
		break;
	}
	return d->size < SESSION_BLOB_MAX / 2 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void
put_description(struct call_writer *out, const struct description *d)
{
	call_put(out, &d->params, sizeof(d->params));
	call_put_u64(out, d->how);
	call_put_array(out, d->bytes, d->bytes ? d->size : 1, 1); /* NULL travels as such */
}

#define DESCRIPTION_BYTES (sizeof(CUgraphNodeParams) + 32)

/* What the worker's device wrote into the structure. */
static CUresult
take_outputs(struct fw_cursor *in, CUgraphNode node, CUgraphNodeParams *params)
{
	uint64_t address = call_get_u64(in), count;
	const CUgraph *bodies = call_get_array(in, sizeof(*bodies), &count);

	if (in->bad)
		return CUDA_ERROR_UNKNOWN;
	if (params->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
		params->alloc.dptr = address;
	if (params->type != CU_GRAPH_NODE_TYPE_CONDITIONAL)
		return CUDA_SUCCESS;
	CUgraph *kept = count ? malloc(count * sizeof(*kept)) : NULL;
	if (kept)
		memcpy(kept, bodies, count * sizeof(*kept));
	params->conditional.phGraph_out = own(node, kept);
	return params->conditional.phGraph_out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ---- adding nodes -------------------------------------------------------------------------------------------------- */

CUresult
rm_cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, const CUgraphEdgeData *dependencyData,
                     size_t numDependencies, CUgraphNodeParams *nodeParams)
{
	struct description d;
	struct rm_request r;
	struct fw_cursor in;

	if (!nodeParams || (numDependencies && !dependencies) || numDependencies > SESSION_BLOB_MAX / 64)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = describe(nodeParams, &d);
	if (result == CUDA_SUCCESS) {
		rm_begin(&r, CALL_cuGraphAddNode_v2, 40 + numDependencies * (sizeof(CUgraphNode) + sizeof(CUgraphEdgeData)) + DESCRIPTION_BYTES + d.size);
		call_put_u64(&r.out, (uint64_t)(uintptr_t)hGraph);
		call_put_array(&r.out, dependencies, dependencies ? numDependencies : 0, sizeof(*dependencies));
		call_put_array(&r.out, dependencyData, dependencyData ? numDependencies : 0, sizeof(*dependencyData));
		put_description(&r.out, &d);
		result = rm_ask(&r, &in);
		if (result == CUDA_SUCCESS) {
			*phGraphNode = (CUgraphNode)(uintptr_t)call_get_u64(&in);
			result = take_outputs(&in, *phGraphNode, nodeParams);
		}
		rm_end(&r);
	}
	free(d.own);
	return result;
}

CUresult
rm_cuGraphAddNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                  CUgraphNodeParams *nodeParams)
{
	return rm_cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, NULL, numDependencies, nodeParams);
}

/* The structures of older calls begin as those in CUgraphNodeParams do. */
#define WRAP(name, node_type, member, given) \
	CUgraphNodeParams name = { .type = node_type }; \
	_Static_assert(sizeof(*(given)) <= sizeof(name.member), "a node's parameters grew"); \
	if (!(given)) \
		return CUDA_ERROR_INVALID_VALUE; \
	memcpy(&name.member, given, sizeof(*(given)))

#define ADD(call, structure, node_type, member) \
	CUresult \
	rm_cu##call(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies, \
	            const structure *nodeParams) \
	{ \
		WRAP(params, node_type, member, nodeParams); \
		return rm_cuGraphAddNode(phGraphNode, hGraph, dependencies, numDependencies, &params); \
	}
ADD(GraphAddKernelNode, CUDA_KERNEL_NODE_PARAMS_v1, CU_GRAPH_NODE_TYPE_KERNEL, kernel)
ADD(GraphAddKernelNode_v2, CUDA_KERNEL_NODE_PARAMS, CU_GRAPH_NODE_TYPE_KERNEL, kernel)
ADD(GraphAddHostNode, CUDA_HOST_NODE_PARAMS, CU_GRAPH_NODE_TYPE_HOST, host)
ADD(GraphAddBatchMemOpNode, CUDA_BATCH_MEM_OP_NODE_PARAMS, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, memOp)

CUresult
rm_cuGraphAddMemcpyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                        const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	if (!copyParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyCtx = ctx, .copyParams = *copyParams } };
	return rm_cuGraphAddNode(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

CUresult
rm_cuGraphAddMemAllocNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
                          CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
	WRAP(params, CU_GRAPH_NODE_TYPE_MEM_ALLOC, alloc, nodeParams);
	CUresult result = rm_cuGraphAddNode(phGraphNode, hGraph, dependencies, numDependencies, &params);
	if (result == CUDA_SUCCESS)
		nodeParams->dptr = params.alloc.dptr;
	return result;
}

/* ---- changing nodes ------------------------------------------------------------------------------------------------ */

/* Of a graph (exec NULL), or of an executable one. */
static CUresult
set_params(CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *params)
{
	struct description d;
	struct rm_request r;

	if (!params)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = describe(params, &d);
	if (result == CUDA_SUCCESS) {
		rm_begin(&r, exec ? CALL_cuGraphExecNodeSetParams : CALL_cuGraphNodeSetParams, 16 + DESCRIPTION_BYTES + d.size);
		call_put_u64(&r.out, (uint64_t)(uintptr_t)exec);
		call_put_u64(&r.out, (uint64_t)(uintptr_t)node);
		put_description(&r.out, &d);
		result = rm_do(&r);
	}
	free(d.own);
	return result;
}

CUresult
rm_cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
	return set_params(NULL, hNode, nodeParams);
}

CUresult
rm_cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
	return hGraphExec ? set_params(hGraphExec, hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}

#define SET(call, exec_call, structure, node_type, member) \
	CUresult \
	rm_cu##call(CUgraphNode hNode, const structure *nodeParams) \
	{ \
		WRAP(params, node_type, member, nodeParams); \
		return set_params(NULL, hNode, &params); \
	} \
	CUresult \
	rm_cu##exec_call(CUgraphExec hGraphExec, CUgraphNode hNode, const structure *nodeParams) \
	{ \
		WRAP(params, node_type, member, nodeParams); \
		return rm_cuGraphExecNodeSetParams(hGraphExec, hNode, &params); \
	}
SET(GraphKernelNodeSetParams, GraphExecKernelNodeSetParams, CUDA_KERNEL_NODE_PARAMS_v1, CU_GRAPH_NODE_TYPE_KERNEL, kernel)
SET(GraphKernelNodeSetParams_v2, GraphExecKernelNodeSetParams_v2, CUDA_KERNEL_NODE_PARAMS, CU_GRAPH_NODE_TYPE_KERNEL, kernel)
SET(GraphHostNodeSetParams, GraphExecHostNodeSetParams, CUDA_HOST_NODE_PARAMS, CU_GRAPH_NODE_TYPE_HOST, host)
SET(GraphBatchMemOpNodeSetParams, GraphExecBatchMemOpNodeSetParams, CUDA_BATCH_MEM_OP_NODE_PARAMS, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, memOp)

CUresult
rm_cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyParams = *nodeParams } };
	return set_params(NULL, hNode, &params);
}

CUresult
rm_cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	if (!copyParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyCtx = ctx, .copyParams = *copyParams } };
	return rm_cuGraphExecNodeSetParams(hGraphExec, hNode, &params);
}

/* ---- what a node does ---------------------------------------------------------------------------------------------- */

/* Asks for a node's structure of `size` bytes; what follows it stays in *in. rm_end(r) afterwards, whatever the result. */
static CUresult
get_params(struct rm_request *r, enum cuda_call_id call, CUgraphNode node, void *params, size_t size, struct fw_cursor *in)
{
	rm_begin(r, (uint16_t)call, 8);
	call_put_u64(&r->out, (uint64_t)(uintptr_t)node);
	CUresult result = rm_ask(r, in);
	const void *bytes = result == CUDA_SUCCESS ? call_get(in, size) : NULL;
	if (bytes)
		memcpy(params, bytes, size);
	return result == CUDA_SUCCESS && !bytes ? CUDA_ERROR_UNKNOWN : result;
}

/* Pointers to a kernel's parameters, and behind them the parameters: pairs of offset and size, then the bytes. */
static void **
take_kernel_params(struct fw_cursor *in, CUgraphNode node)
{
	uint64_t count, size;
	const uint32_t *pairs = call_get_array(in, 8, &count);
	const uint8_t *bytes = call_get_array(in, 1, &size);

	for (uint64_t n = 0; n < count; n++)
		in->bad |= pairs[2 * n] > size || pairs[2 * n + 1] > size - pairs[2 * n];
	void **pointers = in->bad ? NULL : malloc((count + 1) * sizeof(*pointers) + size);
	if (!pointers)
		return NULL;
	uint8_t *block = (uint8_t *)(pointers + count + 1);
	if (size)
		memcpy(block, bytes, size);
	for (uint64_t n = 0; n < count; n++)
		pointers[n] = block + pairs[2 * n];
	pointers[count] = NULL;
	return own(node, pointers);
}

CUresult
rm_cuGraphKernelNodeGetParams_v2(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS params;
	struct rm_request r;
	struct fw_cursor in;

	CUresult result = get_params(&r, CALL_cuGraphKernelNodeGetParams_v2, hNode, &params, sizeof(params), &in);
	if (result == CUDA_SUCCESS) {
		params.extra = NULL;
		params.kernelParams = take_kernel_params(&in, hNode);
		if (params.kernelParams)
			*nodeParams = params;
		else
			result = in.bad ? CUDA_ERROR_UNKNOWN : CUDA_ERROR_OUT_OF_MEMORY;
	}
	rm_end(&r);
	return result;
}

CUresult
rm_cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS params;
	CUresult result = rm_cuGraphKernelNodeGetParams_v2(hNode, &params);

	if (result == CUDA_SUCCESS)
		memcpy(nodeParams, &params, sizeof(*nodeParams));
	return result;
}

CUresult
rm_cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D *nodeParams)
{
	struct rm_request r;
	struct fw_cursor in;

	CUresult result = get_params(&r, CALL_cuGraphMemcpyNodeGetParams, hNode, nodeParams, sizeof(*nodeParams), &in);
	rm_end(&r);
	if (result == CUDA_SUCCESS) {
		nodeParams->srcHost = (const void *)((uintptr_t)nodeParams->srcHost & ~SESSION_FAR);
		nodeParams->dstHost = (void *)((uintptr_t)nodeParams->dstHost & ~SESSION_FAR);
		nodeParams->srcDevice &= ~SESSION_FAR;
		nodeParams->dstDevice &= ~SESSION_FAR;
	}
	return result;
}

CUresult
rm_cuGraphHostNodeGetParams(CUgraphNode hNode, CUDA_HOST_NODE_PARAMS *nodeParams)
{
	struct rm_request r;
	struct fw_cursor in;
	CUresult result = get_params(&r, CALL_cuGraphHostNodeGetParams, hNode, nodeParams, sizeof(*nodeParams), &in);

	rm_end(&r);
	return result;
}

/* A list that a node's structure points to, owned by the node from now on. NULL for an empty one. */
static CUresult
take_list(struct fw_cursor *in, CUgraphNode node, size_t element, uint64_t count, void **list)
{
	uint64_t there;
	const void *bytes = call_get_array(in, element, &there);

	*list = NULL;
	if (in->bad || there != count)
		return CUDA_ERROR_UNKNOWN;
	if (!count)
		return CUDA_SUCCESS;
	void *copy = malloc(count * element);
	if (copy)
		memcpy(copy, bytes, count * element);
	*list = own(node, copy);
	return *list ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult
rm_cuGraphBatchMemOpNodeGetParams(CUgraphNode hNode, CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams_out)
{
	CUDA_BATCH_MEM_OP_NODE_PARAMS params;
	struct rm_request r;
	struct fw_cursor in;
	void *list;

	CUresult result = get_params(&r, CALL_cuGraphBatchMemOpNodeGetParams, hNode, &params, sizeof(params), &in);
	if (result == CUDA_SUCCESS)
		result = take_list(&in, hNode, sizeof(*params.paramArray), params.count, &list);
	rm_end(&r);
	if (result == CUDA_SUCCESS) {
		params.paramArray = list;
		*nodeParams_out = params;
	}
	return result;
}

CUresult
rm_cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS *params_out)
{
	CUDA_MEM_ALLOC_NODE_PARAMS params;
	struct rm_request r;
	struct fw_cursor in;
	void *list;

	CUresult result = get_params(&r, CALL_cuGraphMemAllocNodeGetParams, hNode, &params, sizeof(params), &in);
	if (result == CUDA_SUCCESS)
		result = take_list(&in, hNode, sizeof(*params.accessDescs), params.accessDescCount, &list);
	rm_end(&r);
	if (result == CUDA_SUCCESS) {
		params.accessDescs = list;
		*params_out = params;
	}
	return result;
}

/* ---- what a stream captures ---------------------------------------------------------------------------------------- */

#define CAPTURES 64 /* streams whose lists are kept at a time: they are valid until the next call that names the stream */

static struct capture {
	CUstream stream;
	CUcontext context;
	void *memory;
} captures[CAPTURES]; /* guarded by capture_lock */
static pthread_mutex_t capture_lock = PTHREAD_MUTEX_INITIALIZER;

/* Keeps a stream's lists in place of those it had, or of the oldest. */
static void
keep_capture(CUstream stream, void *memory)
{
	static unsigned oldest;
	unsigned at = 0;

	pthread_mutex_lock(&capture_lock);
	while (at < CAPTURES && (captures[at].stream != stream || captures[at].context != fw_thread.ctx || !captures[at].memory))
		at++;
	if (at == CAPTURES)
		at = oldest++ % CAPTURES;
	free(captures[at].memory);
	captures[at] = (struct capture){ stream, fw_thread.ctx, memory };
	pthread_mutex_unlock(&capture_lock);
}

CUresult
rm_cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, uint64_t *id_out, CUgraph *graph_out,
                             const CUgraphNode **dependencies_out, const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out)
{
	struct rm_request r;
	struct fw_cursor in;

	rm_begin(&r, CALL_cuStreamGetCaptureInfo_v3, 24);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)hStream);
	call_put_u64(&r.out, dependencies_out != NULL);
	call_put_u64(&r.out, edgeData_out != NULL);
	CUresult result = rm_ask(&r, &in);
	CUstreamCaptureStatus status = (CUstreamCaptureStatus)call_get_u64(&in);
	uint64_t id = call_get_u64(&in), graph = call_get_u64(&in), count, edge_count;
	const CUgraphNode *nodes = call_get_array(&in, sizeof(*nodes), &count);
	const CUgraphEdgeData *edges = call_get_array(&in, sizeof(*edges), &edge_count);
	if ((result == CUDA_SUCCESS || result == CUDA_ERROR_LOSSY_QUERY) && !in.bad) {
		*captureStatus_out = status;
		CUgraphNode *list = status == CU_STREAM_CAPTURE_STATUS_ACTIVE ? calloc(count + 1, sizeof(*nodes) + sizeof(*edges)) : NULL;
		if (list) {
			CUgraphEdgeData *data = (CUgraphEdgeData *)(list + count + 1);
			if (count)
				memcpy(list, nodes, count * sizeof(*nodes));
			if (edges && edge_count == count)
				memcpy(data, edges, count * sizeof(*edges));
			keep_capture(hStream, list);
			if (id_out)
				*id_out = id;
			if (graph_out)
				*graph_out = (CUgraph)(uintptr_t)graph;
			if (dependencies_out)
				*dependencies_out = list;
			if (edgeData_out)
				*edgeData_out = data;
			if (numDependencies_out)
				*numDependencies_out = count;
		} else if (status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	rm_end(&r);
	return result;
}

CUresult
rm_cuStreamGetCaptureInfo_v2(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, uint64_t *id_out, CUgraph *graph_out,
                             const CUgraphNode **dependencies_out, size_t *numDependencies_out)
{
	return rm_cuStreamGetCaptureInfo_v3(hStream, captureStatus_out, id_out, graph_out, dependencies_out, NULL, numDependencies_out);
}

/* ---- pictures ------------------------------------------------------------------------------------------------------ */

CUresult
rm_cuGraphDebugDotPrint(CUgraph hGraph, const char *path, unsigned flags)
{
	struct rm_request r;
	struct fw_cursor in;
	uint64_t size;

	if (!path)
		return CUDA_ERROR_INVALID_VALUE;
	rm_begin(&r, CALL_cuGraphDebugDotPrint, 16);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)hGraph);
	call_put_u64(&r.out, flags);
	CUresult result = rm_ask(&r, &in);
	const void *text = result == CUDA_SUCCESS ? call_get_array(&in, 1, &size) : NULL;
	if (text) {
		FILE *file = fopen(path, "we");
		bool good = file && fwrite(text, 1, size, file) == size;
		good = file && fclose(file) == 0 && good;
		if (!good) {
			fw_error("graph", "cannot write %s: %s", path, strerror(errno));
			result = CUDA_ERROR_OPERATING_SYSTEM;
		}
	} else if (result == CUDA_SUCCESS) {
		result = CUDA_ERROR_UNKNOWN;
	}
	rm_end(&r);
	return result;
}
