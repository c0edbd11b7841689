/*
 * Graphs: nodes, edges, their parameters, clones, user objects, conditional handles (driver API, "Graph Management").
 *
 * Running graphs is in graph_exec.c, recording streams in capture.c. External semaphore nodes are not served.
 */
#include "soft/device/graph.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "soft/device/ops.h"

pthread_mutex_t sw_graph_lock = PTHREAD_MUTEX_INITIALIZER;

#define LOCKED(expression) \
	({ \
		pthread_mutex_lock(&sw_graph_lock); \
		__typeof__(expression) value_ = (expression); \
		pthread_mutex_unlock(&sw_graph_lock); \
		value_; \
	})

/* ---- conditional handles ------------------------------------------------------------------------------------------- */

#define MAX_CONDITIONALS 65536u

static struct {
	uint32_t value;    /* atomic: kernels write it */
	uint32_t initial;
	bool assign, used;
} conditionals[MAX_CONDITIONALS]; /* [0] stays unused */

uint32_t
sw_conditional_value(uint64_t handle)
{
	return handle < MAX_CONDITIONALS ? __atomic_load_n(&conditionals[handle].value, __ATOMIC_ACQUIRE) : 0;
}

void
sw_conditional_set(uint64_t handle, uint32_t value)
{
	if (handle > 0 && handle < MAX_CONDITIONALS)
		__atomic_store_n(&conditionals[handle].value, value, __ATOMIC_RELEASE);
}

void
sw_conditional_reset(const struct sw_graph *graph)
{
	for (const struct sw_node *node = graph->first; node; node = node->next) {
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH)
			sw_conditional_reset(node->child);
		if (node->type != CU_GRAPH_NODE_TYPE_CONDITIONAL)
			continue;
		uint64_t handle = node->conditional.handle;
		if (handle < MAX_CONDITIONALS && conditionals[handle].assign)
			sw_conditional_set(handle, conditionals[handle].initial);
		for (uint32_t i = 0; i < node->conditional.count; i++)
			sw_conditional_reset(node->conditional.bodies[i]);
	}
}

CUresult
sw_cuGraphConditionalHandleCreate(CUgraphConditionalHandle *out, CUgraph hGraph, CUcontext ctx, unsigned initial, unsigned flags)
{
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;

	(void)ctx;
	if (flags & ~(unsigned)CU_GRAPH_COND_ASSIGN_DEFAULT)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(hGraph);
	uint32_t *list = graph ? realloc(graph->conditionals, (graph->conditional_count + 1) * sizeof(*list)) : NULL;
	if (list)
		graph->conditionals = list;
	for (uint32_t i = 1; list && i < MAX_CONDITIONALS; i++)
		if (!conditionals[i].used) {
			conditionals[i].used = true;
			conditionals[i].initial = initial;
			conditionals[i].assign = flags & CU_GRAPH_COND_ASSIGN_DEFAULT;
			sw_conditional_set(i, initial);
			list[graph->conditional_count++] = i;
			*out = i;
			result = CUDA_SUCCESS;
			break;
		}
	pthread_mutex_unlock(&sw_graph_lock);
	return graph ? result : CUDA_ERROR_INVALID_VALUE;
}

/* ---- graph memory ---------------------------------------------------------------------------------------------------- */

static uint64_t memory_used, memory_reserved, memory_used_high, memory_reserved_high; /* guarded by sw_graph_lock */

void
sw_graph_charge(int64_t used, int64_t reserved)
{
	memory_used += (uint64_t)used;
	memory_reserved += (uint64_t)reserved;
	memory_used_high = memory_used > memory_used_high ? memory_used : memory_used_high;
	memory_reserved_high = memory_reserved > memory_reserved_high ? memory_reserved : memory_reserved_high;
}

static struct sw_graph_memory *memories;

struct sw_graph_memory *
sw_graph_memory_find(CUdeviceptr address)
{
	for (struct sw_graph_memory *memory = memories; memory; memory = memory->next)
		if (memory->address == address)
			return memory;
	return NULL;
}

bool
sw_graph_memory_release(CUdeviceptr address)
{
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph_memory *memory = sw_graph_memory_find(address);
	if (memory && memory->live) {
		memory->live = false;
		sw_graph_charge(-(int64_t)memory->alloc->size, 0);
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return memory != NULL;
}

static void
memory_unref(struct sw_graph_memory *memory)
{
	if (!memory || --memory->references)
		return;
	for (struct sw_graph_memory **link = &memories; *link; link = &(*link)->next)
		if (*link == memory) {
			*link = memory->next;
			break;
		}
	struct sw_alloc *alloc = sw_alloc_find(memory->address);
	int64_t size = 0;
	if (alloc && alloc->id == memory->id) { /* else the program freed it by cuMemFree */
		size = (int64_t)alloc->size;
		sw_alloc_free(alloc);
	}
	sw_graph_charge(memory->live ? -size : 0, -size);
	free(memory);
}

CUresult
sw_cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
	if (!sw_device_valid(device))
		return CUDA_ERROR_INVALID_DEVICE;
	const uint64_t *const sources[] = { &memory_used, &memory_used_high, &memory_reserved, &memory_reserved_high };
	if ((unsigned)attr >= sizeof(sources) / sizeof(sources[0]))
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t found = LOCKED(*sources[attr]);
	memcpy(value, &found, sizeof(found));
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
	uint64_t given;

	if (!sw_device_valid(device))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&given, value, sizeof(given));
	/* Only the high-water marks can be set, and only to zero: they restart at the present use. */
	if (given != 0 || (attr != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH && attr != CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	if (attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
		memory_used_high = memory_used;
	else
		memory_reserved_high = memory_reserved;
	pthread_mutex_unlock(&sw_graph_lock);
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGraphMemTrim(CUdevice device)
{
	/* Memory that graphs reserve lives and dies with them: nothing is cached beyond that. */
	return sw_device_valid(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------- */

struct sw_node *
sw_node_get(CUgraphNode handle)
{
	return fw_handle_get(handle, SW_KIND_GRAPH_NODE);
}

struct sw_graph *
sw_graph_get(CUgraph handle)
{
	return fw_handle_get(handle, SW_KIND_GRAPH);
}

struct sw_node *
sw_node_new(struct sw_graph *graph, CUgraphNodeType type, struct sw_context *ctx)
{
	struct sw_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->handle = fw_handle_new(SW_KIND_GRAPH_NODE, node);
	if (!node->handle) {
		free(node);
		return NULL;
	}
	node->graph = graph;
	node->type = type;
	node->ctx = ctx;
	node->enabled = true;
	node->previous = graph->last;
	*(graph->last ? &graph->last->next : &graph->first) = node;
	graph->last = node;
	graph->node_count++;
	return node;
}

/* Frees what the parameters of a node own and leaves them zero. */
static void
node_clear(struct sw_node *node)
{
	switch (node->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		free((void *)node->kernel.launch.params);
		free(node->kernel.param_pointers);
		memset(&node->kernel, 0, sizeof(node->kernel));
		break;
	case CU_GRAPH_NODE_TYPE_GRAPH:
		if (node->child)
			sw_graph_free(node->child);
		node->child = NULL;
		break;
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		memory_unref(node->alloc.memory);
		free(node->alloc.access);
		memset(&node->alloc, 0, sizeof(node->alloc));
		break;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
		free(node->memop.ops);
		memset(&node->memop, 0, sizeof(node->memop));
		break;
	case CU_GRAPH_NODE_TYPE_CONDITIONAL:
		for (uint32_t i = 0; i < node->conditional.count; i++)
			if (node->conditional.bodies[i])
				sw_graph_free(node->conditional.bodies[i]);
		free(node->conditional.bodies);
		free(node->conditional.handles);
		memset(&node->conditional, 0, sizeof(node->conditional));
		break;
	default:
		break;
	}
}

void
sw_node_free(struct sw_node *node)
{
	struct sw_graph *graph = node->graph;

	node_clear(node);
	*(node->previous ? &node->previous->next : &graph->first) = node->next;
	*(node->next ? &node->next->previous : &graph->last) = node->previous;
	graph->node_count--;
	fw_handle_end(node->handle, SW_KIND_GRAPH_NODE);
	free(node->deps);
	free(node);
}

CUresult
sw_node_add_dep(struct sw_node *node, struct sw_node *from, const CUgraphEdgeData *data)
{
	static const CUgraphEdgeData plain;

	if (!data)
		data = &plain;
	for (uint32_t i = 0; i < node->dep_count; i++)
		if (node->deps[i].from == from && memcmp(&node->deps[i].data, data, sizeof(*data)) == 0)
			return CUDA_SUCCESS;
	if (node->dep_count == node->dep_room) {
		uint32_t room = node->dep_room ? 2 * node->dep_room : 4;
		struct sw_edge *deps = realloc(node->deps, room * sizeof(*deps));
		if (!deps)
			return CUDA_ERROR_OUT_OF_MEMORY;
		node->deps = deps;
		node->dep_room = room;
	}
	node->deps[node->dep_count++] = (struct sw_edge){ from, *data };
	return CUDA_SUCCESS;
}

/* Pointers into the node's parameter block, one a parameter. */
static CUresult
kernel_set_params(struct sw_node *node, const struct sw_kernel *launch)
{
	uint32_t count = launch->function->info->param_count;
	uint8_t *block = malloc(launch->param_bytes ? launch->param_bytes : 1);
	void **pointers = calloc(count + 1, sizeof(*pointers));

	if (!block || !pointers) {
		free(block);
		free(pointers);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (launch->param_bytes)
		memcpy(block, launch->params, launch->param_bytes);
	for (uint32_t i = 0; i < count; i++)
		pointers[i] = block + launch->function->info->params[i].offset;
	free((void *)node->kernel.launch.params);
	free(node->kernel.param_pointers);
	node->kernel.launch = *launch;
	node->kernel.launch.params = block;
	node->kernel.param_pointers = pointers;
	return CUDA_SUCCESS;
}

CUresult
sw_node_assign(struct sw_node *node, const struct sw_node *from)
{
	CUresult result;

	node->ctx = from->ctx;
	switch (from->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		if (!fw_handle_kind(from->kernel.function))
			return CUDA_ERROR_INVALID_HANDLE; /* its module was unloaded */
		result = kernel_set_params(node, &from->kernel.launch);
		if (result != CUDA_SUCCESS)
			return result;
		node->kernel.function = from->kernel.function;
		memcpy(node->kernel.attributes, from->kernel.attributes, sizeof(node->kernel.attributes));
		node->kernel.attributes_set = from->kernel.attributes_set;
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_MEMCPY: node->copy = from->copy; return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_MEMSET: node->fill = from->fill; return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_HOST: node->host = from->host; return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: node->event = from->event; return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_MEM_FREE: node->freed = from->freed; return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_EMPTY: return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_GRAPH: {
		struct sw_graph *child = sw_graph_copy(from->child, node->graph);
		if (!child)
			return CUDA_ERROR_OUT_OF_MEMORY;
		node_clear(node);
		node->child = child;
		return CUDA_SUCCESS;
	}
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC: {
		size_t bytes = from->alloc.api.accessDescCount * sizeof(CUmemAccessDesc);
		CUmemAccessDesc *access = malloc(bytes ? bytes : 1);
		if (!access)
			return CUDA_ERROR_OUT_OF_MEMORY;
		if (bytes)
			memcpy(access, from->alloc.access, bytes);
		node_clear(node);
		node->alloc = from->alloc;
		node->alloc.access = access;
		node->alloc.api.accessDescs = bytes ? access : NULL;
		node->alloc.memory->references++;
		return CUDA_SUCCESS;
	}
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP: {
		CUstreamBatchMemOpParams *ops = malloc(from->memop.count * sizeof(*ops));
		if (!ops)
			return CUDA_ERROR_OUT_OF_MEMORY;
		memcpy(ops, from->memop.ops, from->memop.count * sizeof(*ops));
		node_clear(node);
		node->memop = from->memop;
		node->memop.ops = ops;
		return CUDA_SUCCESS;
	}
	case CU_GRAPH_NODE_TYPE_CONDITIONAL: {
		uint32_t count = from->conditional.count;
		node_clear(node);
		node->conditional.handle = from->conditional.handle;
		node->conditional.type = from->conditional.type;
		node->conditional.bodies = calloc(count, sizeof(*node->conditional.bodies));
		node->conditional.handles = calloc(count, sizeof(*node->conditional.handles));
		if (!node->conditional.bodies || !node->conditional.handles)
			return CUDA_ERROR_OUT_OF_MEMORY;
		for (; node->conditional.count < count; node->conditional.count++) {
			struct sw_graph *body = sw_graph_copy(from->conditional.bodies[node->conditional.count], node->graph);
			if (!body)
				return CUDA_ERROR_OUT_OF_MEMORY;
			node->conditional.bodies[node->conditional.count] = body;
			node->conditional.handles[node->conditional.count] = body->handle;
		}
		return CUDA_SUCCESS;
	}
	default:
		return CUDA_ERROR_NOT_SUPPORTED;
	}
}

/* ---- graphs ------------------------------------------------------------------------------------------------------------ */

struct sw_graph *
sw_graph_new(struct sw_graph *parent)
{
	struct sw_graph *graph = calloc(1, sizeof(*graph));

	if (!graph)
		return NULL;
	graph->parent = parent;
	graph->handle = fw_handle_new(SW_KIND_GRAPH, graph);
	if (!graph->handle) {
		free(graph);
		return NULL;
	}
	return graph;
}

static void
user_release(struct sw_user_object *object, uint64_t count)
{
	if ((object->references -= count) > 0)
		return;
	fw_handle_end(object->handle, SW_KIND_USER_OBJECT);
	/* As documented, the destructor may run on any thread and may make no CUDA call, so it may run with our lock held. */
	object->destroy(object->pointer);
	free(object);
}

void
sw_graph_free(struct sw_graph *graph)
{
	while (graph->last)
		sw_node_free(graph->last);
	for (uint32_t i = 0; i < graph->user_count; i++)
		user_release(graph->users[i].object, graph->users[i].count);
	for (uint32_t i = 0; i < graph->conditional_count; i++)
		conditionals[graph->conditionals[i]].used = false;
	fw_handle_end(graph->handle, SW_KIND_GRAPH);
	free(graph->users);
	free(graph->sorted);
	free(graph->conditionals);
	free(graph);
}

bool
sw_graph_sort(struct sw_graph *graph, struct sw_node **list)
{
	uint32_t done = 0, round;

	for (struct sw_node *node = graph->first; node; node = node->next) {
		node->order = UINT32_MAX;
		node->leaf = true;
	}
	for (struct sw_node *node = graph->first; node; node = node->next)
		for (uint32_t i = 0; i < node->dep_count; i++)
			node->deps[i].from->leaf = false;
	/* Nodes mostly depend on older ones, so a few passes in order of creation suffice. */
	do {
		round = done;
		for (struct sw_node *node = graph->first; node; node = node->next) {
			bool ready = node->order == UINT32_MAX;
			for (uint32_t i = 0; ready && i < node->dep_count; i++)
				ready = node->deps[i].from->order != UINT32_MAX;
			if (ready) {
				if (list)
					list[done] = node;
				node->order = done++;
			}
		}
	} while (done > round);
	return done == graph->node_count;
}

static CUresult
user_retain(struct sw_graph *graph, struct sw_user_object *object, uint32_t count)
{
	for (uint32_t i = 0; i < graph->user_count; i++)
		if (graph->users[i].object == object) {
			graph->users[i].count += count;
			return CUDA_SUCCESS;
		}
	struct sw_user_reference *users = realloc(graph->users, (graph->user_count + 1) * sizeof(*users));
	if (!users)
		return CUDA_ERROR_OUT_OF_MEMORY;
	graph->users = users;
	users[graph->user_count++] = (struct sw_user_reference){ object, count };
	return CUDA_SUCCESS;
}

struct sw_graph *
sw_graph_copy(const struct sw_graph *graph, struct sw_graph *parent)
{
	struct sw_graph *copy = sw_graph_new(parent);
	struct sw_node **twins = calloc(graph->node_count + 1, sizeof(*twins));
	uint32_t index = 0;

	if (!copy || !twins)
		goto fail;
	copy->origin = graph->handle;
	for (const struct sw_node *node = graph->first; node; node = node->next) {
		struct sw_node *twin = sw_node_new(copy, node->type, node->ctx);
		if (!twin)
			goto fail;
		twin->origin = node->handle;
		twin->enabled = node->enabled;
		((struct sw_node *)node)->order = index;
		twins[index++] = twin;
		if (sw_node_assign(twin, node) != CUDA_SUCCESS)
			goto fail;
	}
	for (const struct sw_node *node = graph->first; node; node = node->next)
		for (uint32_t i = 0; i < node->dep_count; i++)
			if (sw_node_add_dep(twins[node->order], twins[node->deps[i].from->order], &node->deps[i].data) != CUDA_SUCCESS)
				goto fail;
	for (uint32_t i = 0; i < graph->user_count; i++) {
		if (user_retain(copy, graph->users[i].object, graph->users[i].count) != CUDA_SUCCESS)
			goto fail;
		graph->users[i].object->references += graph->users[i].count;
	}
	free(twins);
	return copy;
fail:
	free(twins);
	if (copy)
		sw_graph_free(copy);
	return NULL;
}

struct sw_node *
sw_graph_find_clone(const struct sw_graph *graph, CUgraphNode origin)
{
	for (struct sw_node *node = graph->first; node; node = node->next) {
		if (node->origin == origin)
			return node;
		struct sw_node *found = NULL;
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH)
			found = sw_graph_find_clone(node->child, origin);
		if (node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL)
			for (uint32_t i = 0; !found && i < node->conditional.count; i++)
				found = sw_graph_find_clone(node->conditional.bodies[i], origin);
		if (found)
			return found;
	}
	return NULL;
}

CUresult
sw_cuGraphCreate(CUgraph *out, unsigned flags)
{
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_graph *graph = LOCKED(sw_graph_new(NULL));
	if (!graph)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*out = graph->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuGraphDestroy(CUgraph handle)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	if (graph && !graph->parent) {
		sw_graph_free(graph);
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

bool
sw_graph_kernels_live(const struct sw_graph *graph)
{
	for (const struct sw_node *node = graph->first; node; node = node->next) {
		if (node->type == CU_GRAPH_NODE_TYPE_KERNEL && !fw_handle_kind(node->kernel.function))
			return false;
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH && !sw_graph_kernels_live(node->child))
			return false;
		for (uint32_t i = 0; node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL && i < node->conditional.count; i++)
			if (!sw_graph_kernels_live(node->conditional.bodies[i]))
				return false;
	}
	return true;
}

CUresult
sw_cuGraphClone(CUgraph *out, CUgraph handle)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle), *copy = NULL;
	if (graph && !sw_graph_kernels_live(graph))
		result = CUDA_ERROR_INVALID_HANDLE;
	else if (graph)
		result = (copy = sw_graph_copy(graph, NULL)) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	if (copy)
		*out = copy->handle;
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode original, CUgraph clone)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(clone);
	struct sw_node *node = graph && sw_node_get(original) ? sw_graph_find_clone(graph, original) : NULL;
	if (node) {
		*out = node->handle;
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

/* ---- adding nodes -------------------------------------------------------------------------------------------------------- */

static CUresult
set_kernel(struct sw_node *node, const CUDA_KERNEL_NODE_PARAMS_v3 *p)
{
	struct sw_kernel launch;
	_Alignas(16) uint8_t block[SW_MAX_PARAM_BYTES + 4];
	CUfunction function = p->func ? p->func : (CUfunction)p->kern;
	CUlaunchConfig config = { p->gridDimX, p->gridDimY, p->gridDimZ, p->blockDimX, p->blockDimY, p->blockDimZ, p->sharedMemBytes,
		NULL, NULL, 0 };
	CUevent event;

	CUresult result = sw_kernel_from_api(node->ctx, function, &config, p->kernelParams, p->extra, &launch, block, &event);
	if (result == CUDA_SUCCESS)
		result = kernel_set_params(node, &launch);
	if (result == CUDA_SUCCESS)
		node->kernel.function = function;
	return result;
}

static CUresult
set_copy(struct sw_node *node, const CUDA_MEMCPY3D *api)
{
	struct sw_copy copy;
	CUresult result = sw_copy_from_api(api, &copy);

	if (result == CUDA_SUCCESS) {
		node->copy.api = *api;
		node->copy.copy = copy;
	}
	return result;
}

static CUresult
set_fill(struct sw_node *node, const CUDA_MEMSET_NODE_PARAMS_v2 *p)
{
	struct sw_fill fill = { (void *)(uintptr_t)p->dst, p->pitch, p->width, p->height, p->value, p->elementSize };
	CUresult result = sw_fill_check(&fill);

	if (result != CUDA_SUCCESS)
		return result;
	node->fill.api = (CUDA_MEMSET_NODE_PARAMS){ p->dst, p->pitch, p->value, p->elementSize, p->width, p->height };
	node->fill.fill = fill;
	return CUDA_SUCCESS;
}

static CUresult
set_memop(struct sw_node *node, const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2 *p)
{
	if (!p->count || p->count > 256 || !p->paramArray)
		return CUDA_ERROR_INVALID_VALUE;
	CUstreamBatchMemOpParams *ops = malloc(p->count * sizeof(*ops));
	if (!ops)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(ops, p->paramArray, p->count * sizeof(*ops));
	free(node->memop.ops);
	node->memop.ops = ops;
	node->memop.count = p->count;
	node->memop.flags = p->flags;
	return CUDA_SUCCESS;
}

static CUresult
set_alloc(struct sw_node *node, CUDA_MEM_ALLOC_NODE_PARAMS_v2 *p)
{
	if (!p->bytesize || p->poolProps.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
	    p->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE || !sw_device_valid(p->poolProps.location.id))
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_graph_memory *memory = calloc(1, sizeof(*memory));
	CUmemAccessDesc *access = malloc((p->accessDescCount + 1) * sizeof(*access));
	CUresult result = memory && access ? sw_alloc_new(NULL, p->bytesize, 0, SW_MEM_POOL, false, &memory->alloc)
	                                   : CUDA_ERROR_OUT_OF_MEMORY;
	if (result != CUDA_SUCCESS) {
		free(memory);
		free(access);
		return result;
	}
	if (p->accessDescCount)
		memcpy(access, p->accessDescs, p->accessDescCount * sizeof(*access));
	memory->id = memory->alloc->id;
	memory->address = memory->alloc->address;
	memory->references = 1;
	p->dptr = memory->address;
	_Static_assert(sizeof(node->alloc.api) == sizeof(*p), "allocation node parameters differ");
	memcpy(&node->alloc.api, p, sizeof(*p));
	node->alloc.access = access;
	node->alloc.api.accessDescs = p->accessDescCount ? access : NULL;
	node->alloc.memory = memory;
	memory->next = memories;
	memories = memory;
	sw_graph_charge(0, (int64_t)memory->alloc->size);
	return CUDA_SUCCESS;
}

static CUresult
set_conditional(struct sw_node *node, CUDA_CONDITIONAL_NODE_PARAMS *p)
{
	bool ok = p->handle > 0 && p->handle < MAX_CONDITIONALS && conditionals[p->handle].used && p->size >= 1 && p->size <= 256 &&
	          ((p->type == CU_GRAPH_COND_TYPE_IF && p->size <= 2) || (p->type == CU_GRAPH_COND_TYPE_WHILE && p->size == 1) ||
	           p->type == CU_GRAPH_COND_TYPE_SWITCH);

	if (!ok)
		return CUDA_ERROR_INVALID_VALUE;
	node->conditional.handle = p->handle;
	node->conditional.type = p->type;
	node->conditional.bodies = calloc(p->size, sizeof(*node->conditional.bodies));
	node->conditional.handles = calloc(p->size, sizeof(*node->conditional.handles));
	if (!node->conditional.bodies || !node->conditional.handles)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (; node->conditional.count < p->size; node->conditional.count++) {
		struct sw_graph *body = sw_graph_new(node->graph);
		if (!body)
			return CUDA_ERROR_OUT_OF_MEMORY;
		node->conditional.bodies[node->conditional.count] = body;
		node->conditional.handles[node->conditional.count] = body->handle;
	}
	p->phGraph_out = node->conditional.handles;
	return CUDA_SUCCESS;
}

static CUresult
set_child(struct sw_node *node, const CUDA_CHILD_GRAPH_NODE_PARAMS *p)
{
	struct sw_graph *graph = sw_graph_get(p->graph);

	for (struct sw_graph *above = node->graph; above; above = above->parent)
		if (above == graph)
			return CUDA_ERROR_INVALID_VALUE; /* a graph cannot contain itself */
	if (!graph)
		return CUDA_ERROR_INVALID_VALUE;
	if (p->ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE) {
		if (graph->parent || node->child)
			return CUDA_ERROR_INVALID_VALUE;
		graph->parent = node->graph;
		node->child = graph;
		return CUDA_SUCCESS;
	}
	struct sw_graph *copy = sw_graph_copy(graph, node->graph);
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (node->child)
		sw_graph_free(node->child);
	node->child = copy;
	return CUDA_SUCCESS;
}

CUresult
sw_node_set_params(struct sw_node *node, const CUgraphNodeParams *params)
{
	CUgraphNodeParams *p = (CUgraphNodeParams *)params; /* allocation and conditional nodes answer in it */
	CUcontext given = NULL;

	switch (p->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL: given = p->kernel.ctx; break;
	case CU_GRAPH_NODE_TYPE_MEMCPY: given = p->memcpy.copyCtx; break;
	case CU_GRAPH_NODE_TYPE_MEMSET: given = p->memset.ctx; break;
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP: given = p->memOp.ctx; break;
	case CU_GRAPH_NODE_TYPE_CONDITIONAL: given = p->conditional.ctx; break;
	default: break;
	}
	if (given || !node->ctx) {
		struct sw_context *ctx;
		CUresult result = sw_context_get(given, &ctx);
		if (result != CUDA_SUCCESS)
			return result;
		node->ctx = ctx;
	}
	switch (p->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL: return set_kernel(node, &p->kernel);
	case CU_GRAPH_NODE_TYPE_MEMCPY: return set_copy(node, &p->memcpy.copyParams);
	case CU_GRAPH_NODE_TYPE_MEMSET: return set_fill(node, &p->memset);
	case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP: return set_memop(node, &p->memOp);
	case CU_GRAPH_NODE_TYPE_GRAPH: return set_child(node, &p->graph);
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC: return node->alloc.memory ? CUDA_ERROR_INVALID_VALUE : set_alloc(node, &p->alloc);
	case CU_GRAPH_NODE_TYPE_CONDITIONAL:
		return node->conditional.bodies ? CUDA_ERROR_INVALID_VALUE : set_conditional(node, &p->conditional);
	case CU_GRAPH_NODE_TYPE_EMPTY: return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_HOST:
		if (!p->host.fn)
			return CUDA_ERROR_INVALID_VALUE;
		node->host.fn = p->host.fn;
		node->host.user = p->host.userData;
		return CUDA_SUCCESS;
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: {
		CUevent event = p->type == CU_GRAPH_NODE_TYPE_WAIT_EVENT ? p->eventWait.event : p->eventRecord.event;
		if (!sw_event_get(event))
			return CUDA_ERROR_INVALID_VALUE;
		node->event = event;
		return CUDA_SUCCESS;
	}
	case CU_GRAPH_NODE_TYPE_MEM_FREE:
		if (!sw_graph_memory_find(p->free.dptr))
			return CUDA_ERROR_INVALID_VALUE; /* only what an allocation node made */
		node->freed = p->free.dptr;
		return CUDA_SUCCESS;
	default:
		fw_warn_once("graph", "node type %d (external semaphores) is not served", (int)p->type);
		return CUDA_ERROR_NOT_SUPPORTED;
	}
}

static CUresult
add_node(CUgraphNode *out, CUgraph hGraph, const CUgraphNode *deps, const CUgraphEdgeData *data, size_t count,
         CUgraphNodeParams *params)
{
	CUresult result = CUDA_SUCCESS;
	struct sw_context *ctx = NULL;

	if (!params || (count && !deps))
		return CUDA_ERROR_INVALID_VALUE;
	if ((unsigned)params->type > CU_GRAPH_NODE_TYPE_CONDITIONAL)
		return CUDA_ERROR_INVALID_VALUE;
	if (fw_thread.ctx) {
		result = sw_context_current(&ctx);
		if (result != CUDA_SUCCESS)
			return result;
	}
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(hGraph);
	struct sw_node *node = graph ? sw_node_new(graph, params->type, ctx) : NULL;
	if (!graph)
		result = CUDA_ERROR_INVALID_VALUE;
	else if (!node)
		result = CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++) {
		struct sw_node *from = sw_node_get(deps[i]);
		result = from && from->graph == graph && from != node ? sw_node_add_dep(node, from, data ? &data[i] : NULL)
		                                                      : CUDA_ERROR_INVALID_VALUE;
	}
	if (result == CUDA_SUCCESS)
		result = sw_node_set_params(node, params);
	if (result == CUDA_SUCCESS)
		*out = node->handle;
	else if (node)
		sw_node_free(node);
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphAddNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, const CUgraphEdgeData *data, size_t count,
                     CUgraphNodeParams *params)
{
	return add_node(out, graph, deps, data, count, params);
}

CUresult
sw_cuGraphAddNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraphNodeParams *params)
{
	return add_node(out, graph, deps, NULL, count, params);
}

static CUDA_KERNEL_NODE_PARAMS_v3
kernel_params(const CUDA_KERNEL_NODE_PARAMS_v1 *v1)
{
	CUDA_KERNEL_NODE_PARAMS_v3 p = { 0 };
	memcpy(&p, v1, sizeof(*v1)); /* v2 and v3 begin as v1 does */
	return p;
}
_Static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS_v2) == sizeof(CUDA_KERNEL_NODE_PARAMS_v3), "kernel node parameters differ");

CUresult
sw_cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_KERNEL_NODE_PARAMS *p)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL };

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&params.kernel, p, sizeof(*p));
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL, .kernel = kernel_params(p) };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_MEMCPY3D *p, CUcontext ctx)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyCtx = ctx, .copyParams = *p } };
	return add_node(out, graph, deps, NULL, count, &params);
}

static CUDA_MEMSET_NODE_PARAMS_v2
memset_params(const CUDA_MEMSET_NODE_PARAMS *p, CUcontext ctx)
{
	return (CUDA_MEMSET_NODE_PARAMS_v2){ p->dst, p->pitch, p->value, p->elementSize, p->width, p->height, ctx };
}

CUresult
sw_cuGraphAddMemsetNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_MEMSET_NODE_PARAMS *p,
                        CUcontext ctx)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMSET, .memset = memset_params(p, ctx) };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddHostNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, const CUDA_HOST_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { p->fn, p->userData } };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUgraph child)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_GRAPH, .graph = { child, CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE } };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_EMPTY };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddEventRecordNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent event)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD, .eventRecord = { event } };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddEventWaitNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUevent event)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT, .eventWait = { event } };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddBatchMemOpNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                            const CUDA_BATCH_MEM_OP_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
	                             .memOp = { p->ctx, p->count, p->paramArray, p->flags } };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUDA_MEM_ALLOC_NODE_PARAMS *p)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC };

	_Static_assert(sizeof(params.alloc) == sizeof(*p), "allocation node parameters differ");
	memcpy(&params.alloc, p, sizeof(*p));
	CUresult result = add_node(out, graph, deps, NULL, count, &params);
	if (result == CUDA_SUCCESS)
		p->dptr = params.alloc.dptr;
	return result;
}

CUresult
sw_cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUdeviceptr dptr)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEM_FREE, .free = { dptr } };
	return add_node(out, graph, deps, NULL, count, &params);
}

CUresult
sw_cuGraphDestroyNode(CUgraphNode handle)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *node = sw_node_get(handle);
	/* Allocation and free nodes cannot be taken out again, as documented. */
	if (node && node->type != CU_GRAPH_NODE_TYPE_MEM_ALLOC && node->type != CU_GRAPH_NODE_TYPE_MEM_FREE) {
		for (struct sw_node *other = node->graph->first; other; other = other->next)
			for (uint32_t i = 0; i < other->dep_count;)
				if (other->deps[i].from == node)
					other->deps[i] = other->deps[--other->dep_count];
				else
					i++;
		sw_node_free(node);
		result = CUDA_SUCCESS;
	} else if (node) {
		result = CUDA_ERROR_NOT_SUPPORTED;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

/* The API's description of a copy between linear memory, which is all that streams carry. */
static CUDA_MEMCPY3D
describe_copy(const struct sw_copy *copy)
{
	return (CUDA_MEMCPY3D){
		.srcMemoryType = CU_MEMORYTYPE_UNIFIED, .srcDevice = (CUdeviceptr)(uintptr_t)copy->src, .srcPitch = copy->src_pitch,
		.srcHeight = copy->src_pitch ? copy->src_slice / copy->src_pitch : 0,
		.dstMemoryType = CU_MEMORYTYPE_UNIFIED, .dstDevice = (CUdeviceptr)(uintptr_t)copy->dst, .dstPitch = copy->dst_pitch,
		.dstHeight = copy->dst_pitch ? copy->dst_slice / copy->dst_pitch : 0,
		.WidthInBytes = copy->width, .Height = copy->height, .Depth = copy->depth };
}

CUresult
sw_node_from_op(struct sw_graph *graph, struct sw_context *ctx, const struct sw_op *op, struct sw_node **out)
{
	static const CUgraphNodeType types[] = {
		[SW_OP_EMPTY] = CU_GRAPH_NODE_TYPE_EMPTY, [SW_OP_KERNEL] = CU_GRAPH_NODE_TYPE_KERNEL,
		[SW_OP_COPY] = CU_GRAPH_NODE_TYPE_MEMCPY, [SW_OP_FILL] = CU_GRAPH_NODE_TYPE_MEMSET,
		[SW_OP_HOST] = CU_GRAPH_NODE_TYPE_HOST, [SW_OP_RECORD] = CU_GRAPH_NODE_TYPE_EVENT_RECORD,
		[SW_OP_WAIT] = CU_GRAPH_NODE_TYPE_WAIT_EVENT, [SW_OP_MEMOP] = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
		[SW_OP_FREE] = CU_GRAPH_NODE_TYPE_MEM_FREE };
	CUresult result = CUDA_SUCCESS;

	if (op->kind == SW_OP_CALLBACK || op->kind == SW_OP_CALL || op->kind == SW_OP_ALLOC)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	struct sw_node *node = sw_node_new(graph, types[op->kind], ctx);
	if (!node)
		return CUDA_ERROR_OUT_OF_MEMORY;
	switch (op->kind) {
	case SW_OP_KERNEL:
		node->kernel.function = op->kernel.function->handle;
		result = kernel_set_params(node, &op->kernel);
		break;
	case SW_OP_COPY:
		node->copy.api = describe_copy(&op->copy);
		node->copy.copy = op->copy;
		break;
	case SW_OP_FILL:
		node->fill.fill = op->fill;
		node->fill.api = (CUDA_MEMSET_NODE_PARAMS){ (CUdeviceptr)(uintptr_t)op->fill.dst, op->fill.pitch, op->fill.value,
			op->fill.element, op->fill.width, op->fill.height };
		break;
	case SW_OP_HOST:
		node->host.fn = op->host.fn;
		node->host.user = op->host.user;
		break;
	case SW_OP_RECORD:
	case SW_OP_WAIT:
		node->event = op->event.event->handle;
		break;
	case SW_OP_FREE:
		node->freed = op->memory.address;
		if (!sw_graph_memory_find(node->freed))
			result = CUDA_ERROR_INVALID_VALUE;
		break;
	case SW_OP_MEMOP:
		result = set_memop(node, &(CUDA_BATCH_MEM_OP_NODE_PARAMS_v2){ NULL, op->memop.count,
		                                                              (CUstreamBatchMemOpParams *)op->memop.ops, 0 });
		break;
	default:
		break;
	}
	if (result != CUDA_SUCCESS) {
		sw_node_free(node);
		return result;
	}
	*out = node;
	return CUDA_SUCCESS;
}

/* ---- getting and setting parameters ---------------------------------------------------------------------------------------- */

/* A node of this type with the lock held, or NULL without it. */
static struct sw_node *
locked_node(CUgraphNode handle, CUgraphNodeType type)
{
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *node = sw_node_get(handle);
	if (node && node->type == type)
		return node;
	pthread_mutex_unlock(&sw_graph_lock);
	return NULL;
}

#define GETTER(name, node_type, out_type, answer) \
	CUresult sw_cu##name(CUgraphNode handle, out_type *out) \
	{ \
		struct sw_node *node = locked_node(handle, node_type); \
		if (!node) \
			return CUDA_ERROR_INVALID_VALUE; \
		*out = answer; \
		pthread_mutex_unlock(&sw_graph_lock); \
		return CUDA_SUCCESS; \
	}
GETTER(GraphMemcpyNodeGetParams, CU_GRAPH_NODE_TYPE_MEMCPY, CUDA_MEMCPY3D, node->copy.api)
GETTER(GraphMemsetNodeGetParams, CU_GRAPH_NODE_TYPE_MEMSET, CUDA_MEMSET_NODE_PARAMS, node->fill.api)
GETTER(GraphHostNodeGetParams, CU_GRAPH_NODE_TYPE_HOST, CUDA_HOST_NODE_PARAMS,
       ((CUDA_HOST_NODE_PARAMS){ node->host.fn, node->host.user }))
GETTER(GraphChildGraphNodeGetGraph, CU_GRAPH_NODE_TYPE_GRAPH, CUgraph, node->child->handle)
GETTER(GraphEventRecordNodeGetEvent, CU_GRAPH_NODE_TYPE_EVENT_RECORD, CUevent, node->event)
GETTER(GraphEventWaitNodeGetEvent, CU_GRAPH_NODE_TYPE_WAIT_EVENT, CUevent, node->event)
GETTER(GraphBatchMemOpNodeGetParams, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, CUDA_BATCH_MEM_OP_NODE_PARAMS,
       ((CUDA_BATCH_MEM_OP_NODE_PARAMS){ node->ctx->handle, node->memop.count, node->memop.ops, node->memop.flags }))
GETTER(GraphMemAllocNodeGetParams, CU_GRAPH_NODE_TYPE_MEM_ALLOC, CUDA_MEM_ALLOC_NODE_PARAMS, node->alloc.api)
GETTER(GraphMemFreeNodeGetParams, CU_GRAPH_NODE_TYPE_MEM_FREE, CUdeviceptr, node->freed)

static CUDA_KERNEL_NODE_PARAMS
describe_kernel(const struct sw_node *node)
{
	const struct sw_kernel *k = &node->kernel.launch;
	return (CUDA_KERNEL_NODE_PARAMS){ .func = node->kernel.function,
		.gridDimX = k->grid[0], .gridDimY = k->grid[1], .gridDimZ = k->grid[2],
		.blockDimX = k->block[0], .blockDimY = k->block[1], .blockDimZ = k->block[2],
		.sharedMemBytes = k->dynamic_shared, .kernelParams = node->kernel.param_pointers,
		.ctx = node->ctx ? node->ctx->handle : NULL };
}
GETTER(GraphKernelNodeGetParams_v2, CU_GRAPH_NODE_TYPE_KERNEL, CUDA_KERNEL_NODE_PARAMS, describe_kernel(node))

CUresult
sw_cuGraphKernelNodeGetParams(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS_v1 *out)
{
	CUDA_KERNEL_NODE_PARAMS v2;
	CUresult result = sw_cuGraphKernelNodeGetParams_v2(handle, &v2);

	if (result == CUDA_SUCCESS)
		memcpy(out, &v2, sizeof(*out));
	return result;
}

static CUresult
set_params(CUgraphNode handle, const CUgraphNodeParams *params)
{
	struct sw_node *node = locked_node(handle, params->type);

	if (!node)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_node_set_params(node, params);
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *params)
{
	return params ? set_params(node, params) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL };

	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&params.kernel, p, sizeof(*p));
	return set_params(node, &params);
}

CUresult
sw_cuGraphKernelNodeSetParams(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL, .kernel = kernel_params(p) };
	return set_params(node, &params);
}

CUresult
sw_cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyParams = *p } };
	return set_params(node, &params);
}

CUresult
sw_cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMSET, .memset = memset_params(p, NULL) };
	return set_params(node, &params);
}

CUresult
sw_cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_HOST, .host = { p->fn, p->userData } };
	return set_params(node, &params);
}

CUresult
sw_cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD, .eventRecord = { event } };
	return set_params(node, &params);
}

CUresult
sw_cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT, .eventWait = { event } };
	return set_params(node, &params);
}

CUresult
sw_cuGraphBatchMemOpNodeSetParams(CUgraphNode node, const CUDA_BATCH_MEM_OP_NODE_PARAMS *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
	                             .memOp = { p->ctx, p->count, p->paramArray, p->flags } };
	return set_params(node, &params);
}

CUresult
sw_cuGraphKernelNodeGetAttribute(CUgraphNode handle, CUkernelNodeAttrID attr, CUkernelNodeAttrValue *out)
{
	struct sw_node *node = locked_node(handle, CU_GRAPH_NODE_TYPE_KERNEL);

	if (!node)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = (unsigned)attr < CU_LAUNCH_ATTRIBUTE_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS) {
		*out = node->kernel.attributes[attr];
		if (attr == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
			out->cooperative = node->kernel.launch.cooperative;
		if (attr == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
			memcpy(&out->clusterDim, node->kernel.launch.cluster, sizeof(node->kernel.launch.cluster));
		if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY)
			out->priority = node->kernel.launch.priority == SW_PRIORITY_STREAM ? 0 : node->kernel.launch.priority;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphKernelNodeSetAttribute(CUgraphNode handle, CUkernelNodeAttrID attr, const CUkernelNodeAttrValue *value)
{
	struct sw_node *node = locked_node(handle, CU_GRAPH_NODE_TYPE_KERNEL);

	if (!node)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = value && (unsigned)attr < CU_LAUNCH_ATTRIBUTE_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS) {
		node->kernel.attributes[attr] = *value;
		node->kernel.attributes_set |= 1u << attr;
		if (attr == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
			node->kernel.launch.cooperative = value->cooperative != 0;
		if (attr == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
			memcpy(node->kernel.launch.cluster, &value->clusterDim, sizeof(node->kernel.launch.cluster));
		if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY)
			node->kernel.launch.priority = value->priority;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src)
{
	struct sw_node *to = locked_node(dst, CU_GRAPH_NODE_TYPE_KERNEL);

	if (!to)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_node *from = sw_node_get(src);
	CUresult result = from && from->type == CU_GRAPH_NODE_TYPE_KERNEL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS) {
		memcpy(to->kernel.attributes, from->kernel.attributes, sizeof(to->kernel.attributes));
		to->kernel.attributes_set = from->kernel.attributes_set;
		to->kernel.launch.cooperative = from->kernel.launch.cooperative;
		to->kernel.launch.priority = from->kernel.launch.priority;
		memcpy(to->kernel.launch.cluster, from->kernel.launch.cluster, sizeof(to->kernel.launch.cluster));
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

/* ---- user objects -------------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuUserObjectCreate(CUuserObject *out, void *pointer, CUhostFn destroy, unsigned references, unsigned flags)
{
	if (!destroy || !references || references > INT32_MAX || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_user_object *object = calloc(1, sizeof(*object));
	if (!object)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*object = (struct sw_user_object){ .references = references, .pointer = pointer, .destroy = destroy };
	object->handle = fw_handle_new(SW_KIND_USER_OBJECT, object);
	if (!object->handle) {
		free(object);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = object->handle;
	return CUDA_SUCCESS;
}

static CUresult
user_change(CUuserObject handle, unsigned count, bool retain)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_user_object *object = fw_handle_get(handle, SW_KIND_USER_OBJECT);
	if (object && count && count <= INT32_MAX && (retain || count <= object->references)) {
		if (retain)
			object->references += count;
		else
			user_release(object, count);
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuUserObjectRetain(CUuserObject object, unsigned count)
{
	return user_change(object, count, true);
}

CUresult
sw_cuUserObjectRelease(CUuserObject object, unsigned count)
{
	return user_change(object, count, false);
}

CUresult
sw_cuGraphRetainUserObject(CUgraph hGraph, CUuserObject handle, unsigned count, unsigned flags)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(hGraph);
	struct sw_user_object *object = fw_handle_get(handle, SW_KIND_USER_OBJECT);
	if (graph && object && count && count <= INT32_MAX && !(flags & ~(unsigned)CU_GRAPH_USER_OBJECT_MOVE)) {
		result = user_retain(graph, object, count);
		if (result == CUDA_SUCCESS && !(flags & CU_GRAPH_USER_OBJECT_MOVE))
			object->references += count;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphReleaseUserObject(CUgraph hGraph, CUuserObject handle, unsigned count)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(hGraph);
	struct sw_user_object *object = fw_handle_get(handle, SW_KIND_USER_OBJECT);
	for (uint32_t i = 0; graph && object && i < graph->user_count; i++)
		if (graph->users[i].object == object && count && count <= graph->users[i].count) {
			graph->users[i].count -= count;
			if (!graph->users[i].count)
				graph->users[i] = graph->users[--graph->user_count];
			user_release(object, count);
			result = CUDA_SUCCESS;
			break;
		}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}
