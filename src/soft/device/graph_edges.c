/*
 * Looking at graphs and changing their edges: nodes, roots, edges, dependencies, the drawing (driver API, "Graph Management").
 */
#include "soft/device/graph.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "soft/device/ops.h"

/* ---- looking at graphs ------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType *type)
{
	struct sw_node *node = sw_node_get(handle);

	if (!node)
		return CUDA_ERROR_INVALID_VALUE;
	*type = node->type;
	return CUDA_SUCCESS;
}

/* Lists are filled up to the given count; entries beyond what exists become NULL; a NULL list asks for the count. */
static CUresult
list_nodes(CUgraph handle, CUgraphNode *nodes, size_t *count, bool roots_only)
{
	size_t found = 0;

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	for (struct sw_node *node = graph ? graph->first : NULL; node; node = node->next) {
		if (roots_only && node->dep_count)
			continue;
		if (nodes && found < *count)
			nodes[found] = node->handle;
		found++;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	if (!graph)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = found; nodes && i < *count; i++)
		nodes[i] = NULL;
	*count = nodes && *count < found ? *count : found;
	return CUDA_SUCCESS;
}

CUresult
sw_cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
	return list_nodes(graph, nodes, count, false);
}

CUresult
sw_cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
	return list_nodes(graph, nodes, count, true);
}

static bool
plain_edge(const CUgraphEdgeData *data)
{
	static const CUgraphEdgeData plain;
	return memcmp(data, &plain, sizeof(plain)) == 0;
}

struct edge_list {
	CUgraphNode *from, *to;
	CUgraphEdgeData *data;
	size_t room, found;
	bool lossy; /* edge data exist that the caller's version of the call cannot return */
};

static void
edge_list_add(struct edge_list *list, const struct sw_edge *edge, const struct sw_node *to)
{
	if (list->found < list->room) {
		if (list->from)
			list->from[list->found] = edge->from->handle;
		if (list->to)
			list->to[list->found] = to->handle;
		if (list->data)
			list->data[list->found] = edge->data;
		else if ((list->from || list->to) && !plain_edge(&edge->data))
			list->lossy = true;
	}
	list->found++;
}

static CUresult
edge_list_end(struct edge_list *list, size_t *count)
{
	bool wanted = list->from || list->to;

	for (size_t i = list->found; wanted && i < list->room; i++) {
		if (list->from)
			list->from[i] = NULL;
		if (list->to)
			list->to[i] = NULL;
	}
	*count = wanted && *count < list->found ? *count : list->found;
	return list->lossy ? CUDA_ERROR_LOSSY_QUERY : CUDA_SUCCESS;
}

CUresult
sw_cuGraphGetEdges_v2(CUgraph handle, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data, size_t *count)
{
	struct edge_list list = { from, to, data, from || to ? *count : 0, 0, false };

	if (!from != !to)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	for (struct sw_node *node = graph ? graph->first : NULL; node; node = node->next)
		for (uint32_t i = 0; i < node->dep_count; i++)
			edge_list_add(&list, &node->deps[i], node);
	pthread_mutex_unlock(&sw_graph_lock);
	return graph ? edge_list_end(&list, count) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
	return sw_cuGraphGetEdges_v2(graph, from, to, NULL, count);
}

CUresult
sw_cuGraphNodeGetDependencies_v2(CUgraphNode handle, CUgraphNode *deps, CUgraphEdgeData *data, size_t *count)
{
	struct edge_list list = { deps, NULL, data, deps ? *count : 0, 0, false };

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *node = sw_node_get(handle);
	for (uint32_t i = 0; node && i < node->dep_count; i++)
		edge_list_add(&list, &node->deps[i], node);
	pthread_mutex_unlock(&sw_graph_lock);
	return node ? edge_list_end(&list, count) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode *deps, size_t *count)
{
	return sw_cuGraphNodeGetDependencies_v2(node, deps, NULL, count);
}

CUresult
sw_cuGraphNodeGetDependentNodes_v2(CUgraphNode handle, CUgraphNode *nodes, CUgraphEdgeData *data, size_t *count)
{
	struct edge_list list = { NULL, nodes, data, nodes ? *count : 0, 0, false };

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_node *node = sw_node_get(handle);
	for (struct sw_node *other = node ? node->graph->first : NULL; other; other = other->next)
		for (uint32_t i = 0; i < other->dep_count; i++)
			if (other->deps[i].from == node)
				edge_list_add(&list, &other->deps[i], other);
	pthread_mutex_unlock(&sw_graph_lock);
	return node ? edge_list_end(&list, count) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *nodes, size_t *count)
{
	return sw_cuGraphNodeGetDependentNodes_v2(node, nodes, NULL, count);
}

CUresult
sw_cuGraphAddDependencies_v2(CUgraph handle, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data, size_t count)
{
	CUresult result = CUDA_SUCCESS;
	size_t added = 0;

	if (count && (!from || !to))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	if (!graph)
		result = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++) {
		struct sw_node *a = sw_node_get(from[i]), *b = sw_node_get(to[i]);
		if (!a || !b || a == b || a->graph != graph || b->graph != graph) {
			result = CUDA_ERROR_INVALID_VALUE;
			break;
		}
		for (uint32_t e = 0; e < b->dep_count; e++)
			if (b->deps[e].from == a && (!data || memcmp(&b->deps[e].data, &data[i], sizeof(*data)) == 0))
				result = CUDA_ERROR_INVALID_VALUE; /* the edge exists */
		if (result == CUDA_SUCCESS)
			result = sw_node_add_dep(b, a, data ? &data[i] : NULL);
		added += result == CUDA_SUCCESS;
	}
	if (result == CUDA_SUCCESS && !sw_graph_sort(graph, NULL))
		result = CUDA_ERROR_INVALID_VALUE;
	if (result != CUDA_SUCCESS)
		while (added--)
			sw_node_get(to[added])->dep_count--; /* each was the last that its node got */
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
	return sw_cuGraphAddDependencies_v2(graph, from, to, NULL, count);
}

CUresult
sw_cuGraphRemoveDependencies_v2(CUgraph handle, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data, size_t count)
{
	CUresult result = CUDA_SUCCESS;

	if (count && (!from || !to))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	if (!graph)
		result = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++) {
		struct sw_node *a = sw_node_get(from[i]), *b = sw_node_get(to[i]);
		result = CUDA_ERROR_INVALID_VALUE; /* unless the edge is found */
		for (uint32_t e = 0; a && b && b->graph == graph && e < b->dep_count; e++)
			if (b->deps[e].from == a && (!data || memcmp(&b->deps[e].data, &data[i], sizeof(*data)) == 0)) {
				memmove(&b->deps[e], &b->deps[e + 1], (b->dep_count - e - 1) * sizeof(b->deps[e]));
				b->dep_count--;
				result = CUDA_SUCCESS;
				break;
			}
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
	return sw_cuGraphRemoveDependencies_v2(graph, from, to, NULL, count);
}

/* ---- the drawing ----------------------------------------------------------------------------------------------------------------- */

static void
print_dot(FILE *file, const struct sw_graph *graph, unsigned flags, int depth)
{
	static const char *const names[] = { "KERNEL", "MEMCPY", "MEMSET", "HOST", "CHILD GRAPH", "EMPTY", "EVENT WAIT", "EVENT RECORD",
		"SEMAPHORE SIGNAL", "SEMAPHORE WAIT", "MEM ALLOC", "MEM FREE", "MEM OP", "CONDITIONAL" };

	fprintf(file, depth ? "subgraph cluster_%u {\n" : "digraph graph_%u {\n", (unsigned)(uintptr_t)graph->handle);
	for (const struct sw_node *node = graph->first; node; node = node->next) {
		fprintf(file, "  n%u [shape=box, label=\"%s", (unsigned)(uintptr_t)node->handle, names[node->type]);
		if (node->type == CU_GRAPH_NODE_TYPE_KERNEL) {
			const struct sw_kernel *k = &node->kernel.launch;
			fprintf(file, "\\n%s", k->function->info->name);
			if (flags & (CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE | CU_GRAPH_DEBUG_DOT_FLAGS_KERNEL_NODE_PARAMS))
				fprintf(file, "\\ngrid %u,%u,%u block %u,%u,%u shared %u", k->grid[0], k->grid[1], k->grid[2], k->block[0],
				        k->block[1], k->block[2], k->dynamic_shared);
		}
		fprintf(file, "\"];\n");
		for (uint32_t i = 0; i < node->dep_count; i++)
			fprintf(file, "  n%u -> n%u;\n", (unsigned)(uintptr_t)node->deps[i].from->handle, (unsigned)(uintptr_t)node->handle);
		if (node->type == CU_GRAPH_NODE_TYPE_GRAPH)
			print_dot(file, node->child, flags, depth + 1);
		if (node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL)
			for (uint32_t i = 0; i < node->conditional.count; i++)
				print_dot(file, node->conditional.bodies[i], flags, depth + 1);
	}
	fprintf(file, "}\n");
}

CUresult
sw_cuGraphDebugDotPrint(CUgraph handle, const char *path, unsigned flags)
{
	if (!path)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = sw_graph_get(handle);
	FILE *file = graph ? fopen(path, "we") : NULL;
	CUresult result = graph ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_ERROR_INVALID_VALUE;
	if (file) {
		print_dot(file, graph, flags, 0);
		bool bad = ferror(file);
		if (fclose(file) == 0 && !bad)
			result = CUDA_SUCCESS;
	}
	if (graph && result != CUDA_SUCCESS)
		fw_error("graph", "cannot write %s: %s", path, strerror(errno));
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}
