/*
 * The worker's half of src/client/remote_graph.c: nodes from descriptions that travelled, and what nodes answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "server/server.h"

#define PARAM_MAX 32768 /* bytes of a kernel's parameters */
#define DEPTH_MAX 32    /* child graphs in child graphs */

/* ---- descriptions of nodes ----------------------------------------------------------------------------------------- */

/* A description whose pointers lead into the record, or here. */
struct node {
	CUgraphNodeParams params;
	size_t param_bytes;
	void *extra[5];
};

/* The parameters as one buffer, which says the same as the list that the program may have passed. */
static bool
set_kernel(struct node *node, uint64_t how, const void *bytes, uint64_t size)
{
	CUDA_KERNEL_NODE_PARAMS_v3 *kernel = &node->params.kernel;

	if (how > SESSION_PARAMS_BOTH || size > PARAM_MAX || (how == SESSION_PARAMS_BUFFER && size && !bytes))
		return false;
	node->param_bytes = size;
	node->extra[0] = (void *)1;
	node->extra[1] = (void *)(uintptr_t)bytes;
	node->extra[2] = (void *)2;
	node->extra[3] = &node->param_bytes;
	kernel->kernelParams = how == SESSION_PARAMS_BOTH || (how == SESSION_PARAMS_LIST && !size) ? node->extra : NULL;
	kernel->extra = how == SESSION_PARAMS_BOTH || how == SESSION_PARAMS_BUFFER || (how == SESSION_PARAMS_LIST && size) ? node->extra : NULL;
	return true;
}

/* Reads a description. False: the bytes are none. *result is what is wrong with what it says. */
static bool
get_node(struct sv_call *call, struct node *node, CUresult *result)
{
	CUgraphNodeParams *p = &node->params;
	const void *given = call_get(&call->in, sizeof(*p));
	uint64_t how = call_get_u64(&call->in), size;
	const void *bytes = call_get_array(&call->in, 1, &size);

	*result = CUDA_SUCCESS;
	if (call->in.bad)
		return false;
	memset(node, 0, sizeof(*node));
	memcpy(p, given, sizeof(*p));
	switch (p->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return set_kernel(node, how, bytes, size);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		if (sv_wants_stage(&p->memcpy.copyParams)) /* then its sides are looked at when they are staged */
			return true;
		*result = sv_may_touch_box(call, &p->memcpy.copyParams, true);
		if (*result == CUDA_SUCCESS)
			*result = sv_may_touch_box(call, &p->memcpy.copyParams, false);
		return true;
	case CU_GRAPH_NODE_TYPE_HOST: {
		struct session_callback callback;
		p->host.userData = NULL;
		p->host.fn = size ? sv_host_function : NULL;
		if (!size)
			return true;
		if (size != sizeof(callback))
			return false;
		memcpy(&callback, bytes, sizeof(callback));
		p->host.userData = sv_callback_keep(&callback);
		if (!p->host.userData)
			*result = CUDA_ERROR_OUT_OF_MEMORY;
		return true;
	}
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		p->alloc.accessDescs = bytes;
		if (p->alloc.accessDescCount != size / sizeof(CUmemAccessDesc))
			*result = CUDA_ERROR_INVALID_VALUE;
		return true;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		p->memOp.paramArray = (CUstreamBatchMemOpParams *)(uintptr_t)bytes;
		return !bytes || size / sizeof(CUstreamBatchMemOpParams) == p->memOp.count;
	case CU_GRAPH_NODE_TYPE_CONDITIONAL:
		p->conditional.phGraph_out = NULL;
		return true;
	case CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL:
	case CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT:
		fw_warn_once("worker", "graph nodes of external semaphores are not forwarded");
		*result = CUDA_ERROR_NOT_SUPPORTED;
		return true;
	default:
		return true;
	}
}

bool
sv_cuGraphAddNode_v2(struct sv_call *call, CUresult *result)
{
	CUgraph graph = (CUgraph)(uintptr_t)call_get_u64(&call->in);
	uint64_t count, edge_count;
	const CUgraphNode *nodes = call_get_array(&call->in, sizeof(*nodes), &count);
	const CUgraphEdgeData *edges = call_get_array(&call->in, sizeof(*edges), &edge_count);
	CUgraphNode added = NULL;
	struct node node;

	if (!get_node(call, &node, result) || (edge_count && edge_count != count))
		return false;
	const CUDA_MEMCPY3D *copy = node.params.type == CU_GRAPH_NODE_TYPE_MEMCPY ? &node.params.memcpy.copyParams : NULL;
	if (*result == CUDA_SUCCESS && copy && sv_wants_stage(copy))
		*result = sv_stage_add(call, &added, graph, nodes, edge_count ? edges : NULL, count, copy, node.params.memcpy.copyCtx);
	else if (*result == CUDA_SUCCESS && call->ops->cuGraphAddNode_v2)
		*result = call->ops->cuGraphAddNode_v2(&added, graph, nodes, edge_count ? edges : NULL, count, &node.params);
	bool bodies = *result == CUDA_SUCCESS && node.params.type == CU_GRAPH_NODE_TYPE_CONDITIONAL && node.params.conditional.phGraph_out;
	bool memory = *result == CUDA_SUCCESS && node.params.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC;
	call_put_u64(&call->out, (uint64_t)(uintptr_t)added);
	call_put_u64(&call->out, memory ? node.params.alloc.dptr : 0);
	call_put_array(&call->out, bodies ? node.params.conditional.phGraph_out : NULL, bodies ? node.params.conditional.size : 0, sizeof(CUgraph));
	return true;
}

static bool
set_staged(struct sv_call *call, CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *params, CUresult *result)
{
	return params->type == CU_GRAPH_NODE_TYPE_MEMCPY &&
	       sv_stage_set(call, exec, node, &params->memcpy.copyParams, params->memcpy.copyCtx, result);
}

bool
sv_cuGraphNodeSetParams(struct sv_call *call, CUresult *result)
{
	call_get_u64(&call->in); /* no executable graph */
	CUgraphNode handle = (CUgraphNode)(uintptr_t)call_get_u64(&call->in);
	struct node node;

	if (!get_node(call, &node, result))
		return false;
	if (*result == CUDA_SUCCESS && !set_staged(call, NULL, handle, &node.params, result))
		*result = call->ops->cuGraphNodeSetParams(handle, &node.params);
	return true;
}

bool
sv_cuGraphExecNodeSetParams(struct sv_call *call, CUresult *result)
{
	CUgraphExec exec = (CUgraphExec)(uintptr_t)call_get_u64(&call->in);
	CUgraphNode handle = (CUgraphNode)(uintptr_t)call_get_u64(&call->in);
	struct node node;

	if (!get_node(call, &node, result))
		return false;
	if (*result == CUDA_SUCCESS && !set_staged(call, exec, handle, &node.params, result))
		*result = call->ops->cuGraphExecNodeSetParams(exec, handle, &node.params);
	return true;
}

/* ---- what a node does ---------------------------------------------------------------------------------------------- */

static CUgraphNode
get_handle(struct sv_call *call)
{
	return (CUgraphNode)(uintptr_t)call_get_u64(&call->in);
}

/* The parameters' places, as pairs of offset and size, and their bytes in one block. */
static void
put_kernel_params(struct sv_call *call, const CUDA_KERNEL_NODE_PARAMS *params)
{
	CUfunction function = params->func ? params->func : (CUfunction)params->kern;
	uint32_t pairs[SV_PARAMS_MAX][2];
	uint8_t block[PARAM_MAX];
	CUresult result;
	uint64_t size = 0, count = params->kernelParams ? sv_param_layout(call->ops, function, pairs, &result) : 0;

	for (uint64_t n = 0; n < count; n++) {
		uint64_t end = (uint64_t)pairs[n][0] + pairs[n][1];
		if (end > sizeof(block))
			count = n;
		else if (end > size)
			size = end;
	}
	memset(block, 0, size);
	for (uint64_t n = 0; n < count; n++)
		memcpy(block + pairs[n][0], params->kernelParams[n], pairs[n][1]);
	call_put_array(&call->out, pairs, count, sizeof(pairs[0]));
	call_put_array(&call->out, block, size, 1);
}

bool
sv_cuGraphKernelNodeGetParams_v2(struct sv_call *call, CUresult *result)
{
	CUgraphNode node = get_handle(call);
	CUDA_KERNEL_NODE_PARAMS params = { 0 };

	*result = call->ops->cuGraphKernelNodeGetParams_v2(node, &params);
	if (*result == CUDA_SUCCESS) {
		CUDA_KERNEL_NODE_PARAMS sent = params;
		sent.kernelParams = sent.extra = NULL;
		call_put(&call->out, &sent, sizeof(sent));
		put_kernel_params(call, &params);
	}
	return !call->in.bad;
}

bool
sv_cuGraphMemcpyNodeGetParams(struct sv_call *call, CUresult *result)
{
	CUgraphNode node = get_handle(call);
	CUDA_MEMCPY3D params = { 0 };

	*result = call->ops->cuGraphMemcpyNodeGetParams(node, &params);
	call_put(&call->out, &params, sizeof(params));
	return !call->in.bad;
}

bool
sv_cuGraphHostNodeGetParams(struct sv_call *call, CUresult *result)
{
	CUgraphNode node = get_handle(call);
	CUDA_HOST_NODE_PARAMS params = { 0 };

	*result = call->ops->cuGraphHostNodeGetParams(node, &params);
	if (*result == CUDA_SUCCESS && params.fn == sv_host_function) {
		const struct session_callback *kept = params.userData;
		params.fn = (CUhostFn)(uintptr_t)kept->function;
		params.userData = (void *)(uintptr_t)kept->user;
	} else if (*result == CUDA_SUCCESS && sv_is_stage_function(params.fn)) {
		params = (CUDA_HOST_NODE_PARAMS){ 0 }; /* no function of the program */
	}
	call_put(&call->out, &params, sizeof(params));
	return !call->in.bad;
}

bool
sv_cuGraphBatchMemOpNodeGetParams(struct sv_call *call, CUresult *result)
{
	CUgraphNode node = get_handle(call);
	CUDA_BATCH_MEM_OP_NODE_PARAMS params = { 0 };

	*result = call->ops->cuGraphBatchMemOpNodeGetParams(node, &params);
	const CUstreamBatchMemOpParams *list = params.paramArray;
	params.paramArray = NULL;
	call_put(&call->out, &params, sizeof(params));
	call_put_array(&call->out, list, *result == CUDA_SUCCESS ? params.count : 0, sizeof(*list));
	return !call->in.bad;
}

bool
sv_cuGraphMemAllocNodeGetParams(struct sv_call *call, CUresult *result)
{
	CUgraphNode node = get_handle(call);
	CUDA_MEM_ALLOC_NODE_PARAMS params = { 0 };

	*result = call->ops->cuGraphMemAllocNodeGetParams(node, &params);
	const CUmemAccessDesc *list = params.accessDescs;
	params.accessDescs = NULL;
	call_put(&call->out, &params, sizeof(params));
	call_put_array(&call->out, list, *result == CUDA_SUCCESS && list ? params.accessDescCount : 0, sizeof(*list));
	return !call->in.bad;
}

/* ---- destroying ---------------------------------------------------------------------------------------------------- */

/* Handles as an answer of its own, since there may be many. */
struct handles {
	uint8_t *bytes; /* the CUresult, the count, then they */
	size_t count, room;
};

static bool
add_handle(struct handles *list, CUgraphNode node)
{
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 64;
		uint8_t *bytes = realloc(list->bytes, 16 + room * sizeof(node));
		if (!bytes)
			return false;
		list->bytes = bytes;
		list->room = room;
	}
	memcpy(list->bytes + 16 + list->count++ * sizeof(node), &node, sizeof(node));
	return true;
}

static bool add_nodes(const struct cuda_ops *ops, CUgraph graph, unsigned depth, struct handles *list);

static bool
add_node(const struct cuda_ops *ops, CUgraphNode node, unsigned depth, struct handles *list)
{
	CUgraphNodeType type;
	CUgraph child;

	if (!add_handle(list, node))
		return false;
	if (depth < DEPTH_MAX && ops->cuGraphNodeGetType(node, &type) == CUDA_SUCCESS && type == CU_GRAPH_NODE_TYPE_GRAPH &&
	    ops->cuGraphChildGraphNodeGetGraph(node, &child) == CUDA_SUCCESS)
		return add_nodes(ops, child, depth + 1, list);
	return true;
}

static bool
add_nodes(const struct cuda_ops *ops, CUgraph graph, unsigned depth, struct handles *list)
{
	size_t count = 0;

	if (ops->cuGraphGetNodes(graph, NULL, &count) != CUDA_SUCCESS || !count)
		return true;
	CUgraphNode *nodes = calloc(count, sizeof(*nodes));
	bool good = nodes && ops->cuGraphGetNodes(graph, nodes, &count) == CUDA_SUCCESS;
	for (size_t n = 0; good && n < count; n++)
		good = add_node(ops, nodes[n], depth, list);
	free(nodes);
	return good;
}

/* What could not be listed the client keeps until it ends. */
static bool
destroy(struct sv_call *call, bool is_graph, CUresult *result)
{
	void *handle = (void *)(uintptr_t)call_get_u64(&call->in);
	bool wanted = call_get_u64(&call->in) && !call->in.bad;
	struct handles list = { 0 };

	if (call->in.bad)
		return false;
	if (wanted && !(is_graph ? add_nodes(call->ops, handle, 0, &list) : add_node(call->ops, handle, 0, &list)))
		list.count = 0;
	*result = is_graph ? call->ops->cuGraphDestroy(handle) : call->ops->cuGraphDestroyNode(handle);
	if (list.count && *result == CUDA_SUCCESS) {
		uint64_t count = list.count;
		memcpy(list.bytes + 8, &count, sizeof(count));
		sv_answer_with(call, list.bytes, 16 + list.count * sizeof(CUgraphNode));
	} else {
		free(list.bytes);
		call_put_u64(&call->out, 0);
	}
	return true;
}

bool
sv_cuGraphDestroy(struct sv_call *call, CUresult *result)
{
	return destroy(call, true, result);
}

bool
sv_cuGraphDestroyNode(struct sv_call *call, CUresult *result)
{
	return destroy(call, false, result);
}

/* ---- what a stream captures ---------------------------------------------------------------------------------------- */

bool
sv_cuStreamGetCaptureInfo_v3(struct sv_call *call, CUresult *result)
{
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);
	bool wants_nodes = call_get_u64(&call->in), wants_edges = call_get_u64(&call->in);
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	const CUgraphNode *nodes = NULL;
	const CUgraphEdgeData *edges = NULL;
	uint64_t id = 0;
	CUgraph graph = NULL;
	size_t count = 0;

	if (call->in.bad)
		return false;
	*result = call->ops->cuStreamGetCaptureInfo_v3(stream, &status, &id, &graph, wants_nodes ? &nodes : NULL, wants_edges ? &edges : NULL, &count);
	call_put_u64(&call->out, (uint64_t)status);
	call_put_u64(&call->out, id);
	call_put_u64(&call->out, (uint64_t)(uintptr_t)graph);
	call_put_array(&call->out, nodes, nodes || !wants_nodes ? count : 0, sizeof(*nodes));
	call_put_array(&call->out, edges, edges ? count : 0, sizeof(*edges));
	return true;
}

/* ---- pictures ------------------------------------------------------------------------------------------------------ */

/* Through a file of this process that has no name; its text is the answer. */
bool
sv_cuGraphDebugDotPrint(struct sv_call *call, CUresult *result)
{
	CUgraph graph = (CUgraph)(uintptr_t)call_get_u64(&call->in);
	unsigned flags = (unsigned)call_get_u64(&call->in);
	char path[64];
	struct stat st;

	if (call->in.bad)
		return false;
	int fd = memfd_create("farwarp-dot", MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	*result = fd >= 0 ? call->ops->cuGraphDebugDotPrint(graph, path, flags) : CUDA_ERROR_OUT_OF_MEMORY;
	if (*result == CUDA_SUCCESS) {
		uint64_t size = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
		uint8_t *answer = calloc(1, 16 + ((size + 7) & ~7ull));
		if (answer && pread(fd, answer + 16, size, 0) == (ssize_t)size) {
			memcpy(answer + 8, &size, sizeof(size));
			sv_answer_with(call, answer, 16 + ((size + 7) & ~7ull));
		} else {
			free(answer);
			*result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	if (fd >= 0)
		close(fd);
	return true;
}
