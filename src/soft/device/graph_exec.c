/*
 * Executable graphs: instantiate, change, launch (driver API, "Graph Management").
 *
 * A launch turns each node into a work item with the same dependencies, between an entry item that waits for the stream and an
 * exit item that the stream goes on from. Child graphs are unfolded; a conditional node decides when it is reached and makes
 * its body's items then. Launches of one executable graph follow each other, as documented.
 */
#include "soft/device/graph.h"

#include <stdlib.h>
#include <string.h>

#include "soft/device/ops.h"

struct sw_exec {
	CUgraphExec handle;
	struct sw_graph *graph;
	uint64_t flags;
	uint32_t references;   /* the handle and launches in flight; queue lock */
	struct sw_work *last;  /* exit of the newest launch; queue lock */
};

static struct sw_exec *
exec_get(CUgraphExec handle)
{
	return fw_handle_get(handle, SW_KIND_GRAPH_EXEC);
}

/* ---- instantiate ----------------------------------------------------------------------------------------------------- */

/* Sorts a graph and those inside it. False when a cycle or an unserved node is in it: *error is the node's origin. */
static bool
prepare(struct sw_graph *graph, CUgraphNode *error)
{
	free(graph->sorted);
	graph->sorted = calloc(graph->node_count + 1, sizeof(*graph->sorted));
	if (!graph->sorted || !sw_graph_sort(graph, graph->sorted)) {
		*error = graph->first ? graph->first->origin : NULL;
		return false;
	}
	for (struct sw_node *node = graph->first; node; node = node->next) {
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH && !prepare(node->child, error))
			return false;
		if (node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL)
			for (uint32_t i = 0; i < node->conditional.count; i++)
				if (!prepare(node->conditional.bodies[i], error))
					return false;
	}
	return true;
}

static CUresult
instantiate(CUgraphExec *out, CUgraph handle, uint64_t flags, CUgraphNode *error)
{
	const uint64_t known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
	                       CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	CUgraphNode culprit = NULL;

	if (flags & ~known)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) {
		fw_warn_once("graph", "graphs that kernels launch are not served");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	struct sw_exec *exec = calloc(1, sizeof(*exec));
	if (!exec)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	if (graph && !sw_graph_kernels_live(graph)) {
		result = CUDA_ERROR_INVALID_HANDLE;
	} else if (graph && !graph->parent) {
		exec->graph = sw_graph_copy(graph, NULL);
		result = exec->graph ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result == CUDA_SUCCESS && !prepare(exec->graph, &culprit))
		result = CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS) {
		exec->flags = flags & ~(uint64_t)CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
		exec->references = 1;
		exec->handle = fw_handle_new(SW_KIND_GRAPH_EXEC, exec);
		result = exec->handle ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result != CUDA_SUCCESS && exec->graph)
		sw_graph_free(exec->graph);
	pthread_mutex_unlock(&sw_graph_lock);
	if (result == CUDA_SUCCESS)
		*out = exec->handle;
	else
		free(exec);
	if (error)
		*error = culprit;
	return result;
}

CUresult
sw_cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
	return instantiate(out, graph, flags, NULL);
}

CUresult
sw_cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error, char *log, size_t log_size)
{
	if (log && log_size)
		log[0] = 0;
	return instantiate(out, graph, 0, error);
}

CUresult
sw_cuGraphInstantiate(CUgraphExec *out, CUgraph graph, CUgraphNode *error, char *log, size_t log_size)
{
	return sw_cuGraphInstantiate_v2(out, graph, error, log, log_size);
}

CUresult
sw_cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
	CUresult result = instantiate(out, graph, params->flags, &params->hErrNode_out);

	params->result_out = result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS
	                     : result == CUDA_ERROR_NOT_SUPPORTED ? CUDA_GRAPH_INSTANTIATE_NODE_OPERATION_NOT_SUPPORTED
	                     : params->hErrNode_out ? CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE : CUDA_GRAPH_INSTANTIATE_ERROR;
	return result;
}

CUresult
sw_cuGraphExecGetFlags(CUgraphExec handle, uint64_t *flags)
{
	struct sw_exec *exec = exec_get(handle);

	if (!exec)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = exec->flags;
	return CUDA_SUCCESS;
}

static void
exec_free(struct sw_exec *exec)
{
	pthread_mutex_lock(&sw_graph_lock);
	sw_graph_free(exec->graph);
	pthread_mutex_unlock(&sw_graph_lock);
	free(exec);
}

static void
exec_free_call(void *exec)
{
	exec_free(exec);
}

CUresult
sw_cuGraphExecDestroy(CUgraphExec handle)
{
	struct sw_exec *exec = fw_handle_end(handle, SW_KIND_GRAPH_EXEC);

	if (!exec)
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_lock();
	bool last = --exec->references == 0;
	if (last && exec->last)
		sw_work_unref(exec->last);
	sw_queue_unlock();
	if (last)
		exec_free(exec);
	return CUDA_SUCCESS;
}

/* ---- launch ----------------------------------------------------------------------------------------------------------- */

/* A conditional node on its way: decides, runs a body, and for WHILE decides again. */
struct decision {
	const struct sw_node *node;
	struct sw_context *ctx;
	struct sw_stream *stream;
	int32_t priority;
	struct sw_work *after; /* what follows the node; started when it is over */
};

static bool emit(const struct sw_graph *graph, struct sw_context *ctx, struct sw_stream *stream, int32_t priority,
                 struct sw_work *entry, struct sw_work *exit);
static void decide(struct decision *d);

static void
nothing(void *user)
{
	(void)user;
}

static void
body_done(struct sw_work *work, void *user)
{
	struct decision *d = user;

	(void)work;
	if (d->node->conditional.type == CU_GRAPH_COND_TYPE_WHILE) {
		decide(d);
		return;
	}
	sw_work_start(d->after);
	sw_work_unref(d->after);
	free(d);
}

static void
reached(struct sw_work *work, void *user)
{
	(void)work;
	decide(user);
}

/* Queue lock held. */
static void
decide(struct decision *d)
{
	uint32_t value = sw_conditional_value(d->node->conditional.handle), index = UINT32_MAX;

	switch (d->node->conditional.type) {
	case CU_GRAPH_COND_TYPE_IF: index = value ? 0 : 1; break;
	case CU_GRAPH_COND_TYPE_WHILE: index = value ? 0 : UINT32_MAX; break;
	case CU_GRAPH_COND_TYPE_SWITCH: index = value; break;
	}
	if (index < d->node->conditional.count && __atomic_load_n(&d->ctx->error, __ATOMIC_ACQUIRE) == CUDA_SUCCESS) {
		/* The end of the body is a call on a worker, so that a loop of instant items does not recurse. */
		struct sw_op begin = { .kind = SW_OP_EMPTY }, end = { .kind = SW_OP_CALL, .call = { nothing, NULL } };
		struct sw_work *entry = sw_work_new(d->ctx, &begin, d->priority), *exit = sw_work_new(d->ctx, &end, d->priority);
		if (entry && exit) {
			exit->done = body_done;
			exit->done_user = d;
			if (emit(d->node->conditional.bodies[index], d->ctx, d->stream, d->priority, entry, exit)) {
				sw_work_unref(entry);
				sw_work_unref(exit);
				return;
			}
		}
		if (entry)
			sw_work_unref(entry);
		if (exit)
			sw_work_unref(exit);
		sw_context_fault(d->ctx, CUDA_ERROR_LAUNCH_FAILED, "out of memory for the body of a conditional graph node");
	}
	sw_work_start(d->after);
	sw_work_unref(d->after);
	free(d);
}

/* The operation of a plain node. */
static struct sw_op
node_op(const struct sw_node *node)
{
	struct sw_op op = { .kind = SW_OP_EMPTY };

	if (!node->enabled)
		return op;
	switch (node->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		op.kind = SW_OP_KERNEL;
		op.kernel = node->kernel.launch;
		break;
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		op.kind = SW_OP_COPY;
		op.copy = node->copy.copy;
		break;
	case CU_GRAPH_NODE_TYPE_MEMSET:
		op.kind = SW_OP_FILL;
		op.fill = node->fill.fill;
		break;
	case CU_GRAPH_NODE_TYPE_HOST:
		op.kind = SW_OP_HOST;
		op.host.fn = node->host.fn;
		op.host.user = node->host.user;
		break;
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
		op.event.event = sw_event_get(node->event);
		if (op.event.event)
			op.kind = node->type == CU_GRAPH_NODE_TYPE_WAIT_EVENT ? SW_OP_WAIT : SW_OP_RECORD;
		else
			fw_warn("graph", "an event that a graph node names was destroyed; the node does nothing");
		break;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		op.kind = SW_OP_MEMOP;
		op.memop.ops = node->memop.ops;
		op.memop.count = node->memop.count;
		break;
	default: /* empty; allocations and frees are accounted for when the graph is launched */
		break;
	}
	return op;
}

/* First and last item of a node: they differ for child graphs and conditional nodes. */
struct ends {
	struct sw_work *head, *tail;
};

static bool
make_ends(const struct sw_node *node, struct sw_context *ctx, struct sw_stream *stream, int32_t priority, struct ends *ends)
{
	struct sw_op op = node_op(node), empty = { .kind = SW_OP_EMPTY };
	bool inner = node->type == CU_GRAPH_NODE_TYPE_GRAPH || node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL;

	ends->head = sw_work_new(node->ctx ? node->ctx : ctx, &op, priority);
	ends->tail = inner ? sw_work_new(ctx, &empty, priority) : ends->head;
	if (!ends->head || !ends->tail)
		return false;
	if (node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
		struct decision *d = malloc(sizeof(*d));
		if (!d)
			return false;
		*d = (struct decision){ node, ctx, stream, priority, ends->tail };
		sw_work_ref(ends->tail);
		ends->head->done = reached;
		ends->head->done_user = d;
	}
	if (op.kind == SW_OP_WAIT) {
		sw_work_depend(ends->head, op.event.event->work);
	} else if (op.kind == SW_OP_RECORD) {
		struct sw_event *event = op.event.event;
		ends->head->sequence = ++event->recorded;
		if (event->work)
			sw_work_unref(event->work);
		event->work = ends->head;
		sw_work_ref(ends->head);
	}
	return true;
}

/*
 * Makes the items of a graph between entry and exit and starts all of them. False when out of memory: nothing was started then.
 * Queue lock held.
 */
static bool
emit(const struct sw_graph *graph, struct sw_context *ctx, struct sw_stream *stream, int32_t priority, struct sw_work *entry,
     struct sw_work *exit)
{
	uint32_t count = graph->node_count;
	struct ends *ends = calloc(count + 1, sizeof(*ends));

	if (!ends)
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (!make_ends(graph->sorted[i], ctx, stream, priority, &ends[i])) {
			/* Items of earlier nodes were not started; what they hold is freed with them, but for decisions. */
			for (uint32_t j = 0; j <= i; j++) {
				if (ends[j].tail && ends[j].tail != ends[j].head)
					sw_work_unref(ends[j].tail);
				if (ends[j].head && ends[j].head->done == reached) {
					struct decision *d = ends[j].head->done_user;
					sw_work_unref(d->after);
					free(d);
				}
				if (ends[j].head)
					sw_work_unref(ends[j].head);
			}
			free(ends);
			return false;
		}
	for (uint32_t i = 0; i < count; i++) {
		const struct sw_node *node = graph->sorted[i];
		sw_work_depend(ends[i].head, entry);
		for (uint32_t e = 0; e < node->dep_count; e++)
			sw_work_depend(ends[i].head, ends[node->deps[e].from->order].tail);
		if (node->leaf)
			sw_work_depend(exit, ends[i].tail);
	}
	if (!count)
		sw_work_depend(exit, entry);
	for (uint32_t i = 0; i < count; i++) {
		const struct sw_node *node = graph->sorted[i];
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH) {
			/* The child's items go between head and tail, which it starts. */
			if (!emit(node->child, ctx, stream, priority, ends[i].head, ends[i].tail)) {
				sw_context_fault(ctx, CUDA_ERROR_LAUNCH_FAILED, "out of memory for a child graph");
				sw_work_depend(ends[i].tail, ends[i].head);
				sw_work_start(ends[i].tail);
				sw_work_start(ends[i].head);
			}
		} else {
			sw_work_start(ends[i].head); /* a conditional node's tail is started by its decision */
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		if (ends[i].tail != ends[i].head)
			sw_work_unref(ends[i].tail);
		sw_work_unref(ends[i].head);
	}
	free(ends);
	sw_work_start(exit);
	sw_work_start(entry);
	return true;
}

/* Allocation and free nodes of a launch: what is live afterwards. CUDA_ERROR_INVALID_VALUE: an allocation is still live. */
static CUresult
account(const struct sw_graph *graph, bool auto_free, bool apply)
{
	for (uint32_t i = 0; i < graph->node_count; i++) {
		const struct sw_node *node = graph->sorted[i];
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH) {
			CUresult result = account(node->child, auto_free, apply);
			if (result != CUDA_SUCCESS)
				return result;
		} else if (node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
			struct sw_graph_memory *memory = node->alloc.memory;
			if (memory->live && !auto_free)
				return CUDA_ERROR_INVALID_VALUE;
			if (apply && !memory->live) {
				memory->live = true;
				sw_graph_charge((int64_t)memory->alloc->size, 0);
			}
		} else if (node->type == CU_GRAPH_NODE_TYPE_MEM_FREE && apply) {
			struct sw_graph_memory *memory = sw_graph_memory_find(node->freed);
			if (memory && memory->live) {
				memory->live = false;
				sw_graph_charge(-(int64_t)memory->alloc->size, 0);
			}
		}
	}
	return CUDA_SUCCESS;
}

static void
launch_done(struct sw_work *work, void *user)
{
	struct sw_exec *exec = user;

	if (exec->last == work) {
		exec->last = NULL;
		sw_work_unref(work);
	}
	if (--exec->references == 0) {
		/* The queue lock is held, under which the graph lock may not be taken: a worker frees it. */
		struct sw_op op = { .kind = SW_OP_CALL, .call = { exec_free_call, exec } };
		struct sw_work *cleanup = sw_work_new(work->ctx, &op, 0);
		if (cleanup) {
			sw_work_start(cleanup);
			sw_work_unref(cleanup);
		}
	}
}

static CUresult
launch(struct sw_exec *exec, struct sw_stream *stream)
{
	struct sw_context *ctx = stream->ctx;
	struct sw_op empty = { .kind = SW_OP_EMPTY };
	if (!sw_graph_kernels_live(exec->graph)) {
		fw_error("graph", "a kernel of the graph belongs to a module that was unloaded");
		return CUDA_ERROR_INVALID_HANDLE;
	}
	CUresult result = account(exec->graph, exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH, false);

	if (result != CUDA_SUCCESS)
		return result;
	sw_conditional_reset(exec->graph);
	sw_queue_lock();
	struct sw_work *entry = sw_work_new(ctx, &empty, stream->priority), *exit = sw_work_new(ctx, &empty, stream->priority);
	if (!entry || !exit) {
		if (entry)
			sw_work_unref(entry);
		sw_queue_unlock();
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	entry->stream = exit->stream = stream;
	exit->done = launch_done;
	exit->done_user = exec;
	sw_stream_order(stream, entry);
	sw_work_depend(entry, exec->last);
	exec->references++;
	if (exec->last)
		sw_work_unref(exec->last);
	exec->last = exit;
	sw_work_ref(exit);
	struct sw_work *before = stream->last;
	stream->last = exit;
	sw_work_ref(exit);
	if (!emit(exec->graph, ctx, stream, stream->priority, entry, exit)) {
		result = CUDA_ERROR_OUT_OF_MEMORY;
		sw_work_depend(exit, entry);
		sw_work_start(exit);
		sw_work_start(entry);
	}
	if (before)
		sw_work_unref(before);
	sw_work_unref(entry);
	sw_work_unref(exit);
	sw_queue_unlock();
	if (result == CUDA_SUCCESS)
		account(exec->graph, true, true);
	return result;
}

CUresult
sw_cuGraphLaunch(CUgraphExec handle, CUstream hStream)
{
	SW_CTX(ctx);
	struct sw_stream *stream = NULL;
	CUresult result = sw_stream_get(ctx, hStream, &stream);

	if (result == CUDA_SUCCESS && !stream->capture)
		result = sw_capture_check(ctx, stream); /* before our lock, which it takes */
	if (result != CUDA_SUCCESS)
		return result;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_exec *exec = exec_get(handle);
	if (!exec) {
		result = CUDA_ERROR_INVALID_VALUE;
	} else if (stream->capture) {
		/* Launched into a stream that is being captured: the graph becomes a child of the captured one. */
		result = sw_capture_child(stream, exec->graph);
	} else {
		result = launch(exec, stream);
	}
	pthread_mutex_unlock(&sw_graph_lock);
	if (result == CUDA_SUCCESS && sw_device.launch_blocking && !stream->capture)
		result = sw_stream_wait(stream);
	return result;
}

CUresult
sw_cuGraphUpload(CUgraphExec handle, CUstream hStream)
{
	SW_CTX(ctx);
	struct sw_stream *stream = NULL;
	CUresult result = sw_stream_get(ctx, hStream, &stream);

	/* Everything that a launch needs is here since instantiation: only the arguments can be wrong. */
	return result != CUDA_SUCCESS ? result : exec_get(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- changing -------------------------------------------------------------------------------------------------------------- */

/* The twin in an executable graph of a node of the graph that it was made from; sw_graph_lock held. */
static struct sw_node *
exec_node(CUgraphExec handle, CUgraphNode node, CUgraphNodeType type)
{
	struct sw_exec *exec = exec_get(handle);
	struct sw_node *twin = exec ? sw_graph_find_clone(exec->graph, node) : NULL;

	return twin && twin->type == type ? twin : NULL;
}

static CUresult
exec_set(CUgraphExec exec, CUgraphNode handle, const CUgraphNodeParams *params)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *node = exec_node(exec, handle, params->type);
	/* Allocations, frees and conditions are fixed when the graph is instantiated. */
	if (node && params->type != CU_GRAPH_NODE_TYPE_MEM_ALLOC && params->type != CU_GRAPH_NODE_TYPE_MEM_FREE &&
	    params->type != CU_GRAPH_NODE_TYPE_CONDITIONAL) {
		/* Checked and made aside, since that takes long and may fail; put in place with running launches held off. */
		struct sw_graph *aside = sw_graph_new(NULL);
		struct sw_node *changed = aside ? sw_node_new(aside, node->type, node->ctx) : NULL;
		result = changed ? sw_node_set_params(changed, params) : CUDA_ERROR_OUT_OF_MEMORY;
		if (result == CUDA_SUCCESS && node->type == CU_GRAPH_NODE_TYPE_GRAPH) {
			CUgraphNode culprit;
			if (changed->child->node_count != node->child->node_count)
				result = CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
			else if (!prepare(changed->child, &culprit))
				result = CUDA_ERROR_INVALID_VALUE;
		}
		if (result == CUDA_SUCCESS && node->type == CU_GRAPH_NODE_TYPE_KERNEL) {
			changed->kernel.launch.cooperative = node->kernel.launch.cooperative;
			changed->kernel.launch.priority = node->kernel.launch.priority;
			memcpy(changed->kernel.attributes, node->kernel.attributes, sizeof(node->kernel.attributes));
			changed->kernel.attributes_set = node->kernel.attributes_set;
		}
		if (result == CUDA_SUCCESS) {
			sw_queue_lock();
			result = sw_node_assign(node, changed);
			CUgraphNode culprit;
			if (result == CUDA_SUCCESS && node->type == CU_GRAPH_NODE_TYPE_GRAPH)
				prepare(node->child, &culprit);
			sw_queue_unlock();
		}
		if (aside)
			sw_graph_free(aside);
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *params)
{
	return params ? exec_set(exec, node, params) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL };

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&params.kernel, p, sizeof(*p));
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL };

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&params.kernel, p, sizeof(*p)); /* v3 begins as v1 does */
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *p, CUcontext ctx)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyCtx = ctx, .copyParams = *p } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *p, CUcontext ctx)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMSET,
	                             .memset = { p->dst, p->pitch, p->value, p->elementSize, p->width, p->height, ctx } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_HOST_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { p->fn, p->userData } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_GRAPH, .graph = { child, CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD, .eventRecord = { event } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT, .eventWait = { event } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphExecBatchMemOpNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_BATCH_MEM_OP_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
	                             .memOp = { p->ctx, p->count, p->paramArray, p->flags } };
	return exec_set(exec, node, &params);
}

CUresult
sw_cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned enabled)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *original = sw_node_get(handle), *node = original ? exec_node(exec, handle, original->type) : NULL;
	/* Only kernels, copies and fills can be switched off. */
	if (node && (node->type == CU_GRAPH_NODE_TYPE_KERNEL || node->type == CU_GRAPH_NODE_TYPE_MEMCPY ||
	             node->type == CU_GRAPH_NODE_TYPE_MEMSET)) {
		sw_queue_lock();
		node->enabled = enabled != 0;
		sw_queue_unlock();
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode handle, unsigned *enabled)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *original = sw_node_get(handle), *node = original ? exec_node(exec, handle, original->type) : NULL;
	if (node && (node->type == CU_GRAPH_NODE_TYPE_KERNEL || node->type == CU_GRAPH_NODE_TYPE_MEMCPY ||
	             node->type == CU_GRAPH_NODE_TYPE_MEMSET)) {
		*enabled = node->enabled;
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

/* ---- update by another graph ------------------------------------------------------------------------------------------------ */

/* Nodes are paired in order of creation. */
static CUgraphExecUpdateResult
compare(const struct sw_graph *exec, const struct sw_graph *graph, CUgraphExecUpdateResultInfo *info)
{
	const struct sw_node *a = exec->first, *b = graph->first;
	uint32_t index = 0;

	if (exec->node_count != graph->node_count)
		return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
	for (; a; a = a->next, b = b->next) { /* numbers in order of creation, to compare edges */
		((struct sw_node *)b)->order = index;
		index++;
	}
	for (a = exec->first, b = graph->first; a; a = a->next, b = b->next) {
		CUgraphExecUpdateResult found = CU_GRAPH_EXEC_UPDATE_SUCCESS;
		info->errorNode = b->handle;
		if (a->type != b->type)
			return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
		if (a->dep_count != b->dep_count)
			return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
		for (uint32_t i = 0; i < b->dep_count; i++) {
			const struct sw_node *twin = exec->first;
			for (uint32_t skip = b->deps[i].from->order; skip; skip--)
				twin = twin->next;
			bool same = false;
			for (uint32_t j = 0; j < a->dep_count; j++)
				same |= a->deps[j].from == twin;
			if (!same) {
				info->errorFromNode = b->deps[i].from->handle;
				return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
			}
		}
		if (a->type == CU_GRAPH_NODE_TYPE_KERNEL && a->ctx != b->ctx)
			return CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE;
		if (a->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && a->alloc.memory != b->alloc.memory)
			return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
		if (a->type == CU_GRAPH_NODE_TYPE_MEM_FREE && a->freed != b->freed)
			return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
		if (a->type == CU_GRAPH_NODE_TYPE_GRAPH)
			found = compare(a->child, b->child, info);
		if (a->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
			if (a->conditional.handle != b->conditional.handle || a->conditional.type != b->conditional.type ||
			    a->conditional.count != b->conditional.count)
				return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
			for (uint32_t i = 0; i < a->conditional.count && found == CU_GRAPH_EXEC_UPDATE_SUCCESS; i++)
				found = compare(a->conditional.bodies[i], b->conditional.bodies[i], info);
		}
		if (found != CU_GRAPH_EXEC_UPDATE_SUCCESS)
			return found;
	}
	info->errorNode = NULL;
	return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

static CUresult
take_over(struct sw_graph *exec, const struct sw_graph *graph)
{
	CUresult result = CUDA_SUCCESS;
	struct sw_node *a = exec->first;

	for (const struct sw_node *b = graph->first; b && result == CUDA_SUCCESS; a = a->next, b = b->next) {
		if (b->type == CU_GRAPH_NODE_TYPE_GRAPH) {
			result = take_over(a->child, b->child);
		} else if (b->type == CU_GRAPH_NODE_TYPE_CONDITIONAL) {
			for (uint32_t i = 0; i < b->conditional.count && result == CUDA_SUCCESS; i++)
				result = take_over(a->conditional.bodies[i], b->conditional.bodies[i]);
		} else if (b->type != CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
			result = sw_node_assign(a, b);
		}
	}
	return result;
}

CUresult
sw_cuGraphExecUpdate_v2(CUgraphExec exec_handle, CUgraph graph_handle, CUgraphExecUpdateResultInfo *info)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	*info = (CUgraphExecUpdateResultInfo){ .result = CU_GRAPH_EXEC_UPDATE_ERROR };
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_exec *exec = exec_get(exec_handle);
	struct sw_graph *graph = sw_graph_get(graph_handle);
	if (exec && graph) {
		info->result = compare(exec->graph, graph, info);
		result = CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
		if (info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS) {
			sw_queue_lock();
			result = take_over(exec->graph, graph);
			sw_queue_unlock();
		}
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error, CUgraphExecUpdateResult *answer)
{
	CUgraphExecUpdateResultInfo info;
	CUresult result = sw_cuGraphExecUpdate_v2(exec, graph, &info);

	if (error)
		*error = info.errorNode;
	*answer = info.result;
	return result;
}
