/*
 * The order of basic blocks: see order.h. Strongly connected components in topological order; inside a component its header first,
 * then the rest, ordered in the same way without the header.
 */
#include "soft/exec/order.h"

#include <stdlib.h>
#include <string.h>

#define NEST_MAX 200 /* deeper loops keep the order they have */
#define NONE UINT32_MAX

struct ordering {
	const struct sx_graph *graph;
	uint32_t *pred_first, *preds;
	uint32_t *region;     /* which call of arrange() a block belongs to */
	uint32_t regions;
	uint32_t *index, *low, *component, *at; /* Tarjan: at is the next edge to look at */
	uint32_t *stack, *path, *heap, *sorted;
	uint32_t *smallest, *size, *incoming, *place; /* by component */
	bool *on_stack;
};

/* ---- components -------------------------------------------------------------------------------------------------- */

/* Tarjan's algorithm without recursion, from one block, inside its region. Returns the number of components so far. */
static uint32_t
find_components(struct ordering *o, uint32_t root, uint32_t *counter, uint32_t components)
{
	const struct sx_graph *g = o->graph;
	uint32_t depth = 0, top = 0;

	o->path[depth++] = root;
	o->index[root] = o->low[root] = (*counter)++;
	o->at[root] = g->first[root];
	o->stack[top++] = root;
	o->on_stack[root] = true;
	while (depth) {
		uint32_t n = o->path[depth - 1];
		if (o->at[n] < g->first[n + 1]) {
			uint32_t to = g->edges[o->at[n]++];
			if (o->region[to] != o->region[n])
				continue;
			if (o->index[to] == NONE) {
				o->index[to] = o->low[to] = (*counter)++;
				o->at[to] = g->first[to];
				o->path[depth++] = to;
				o->stack[top++] = to;
				o->on_stack[to] = true;
			} else if (o->on_stack[to] && o->index[to] < o->low[n]) {
				o->low[n] = o->index[to];
			}
			continue;
		}
		depth--;
		if (depth && o->low[n] < o->low[o->path[depth - 1]])
			o->low[o->path[depth - 1]] = o->low[n];
		if (o->low[n] != o->index[n])
			continue;
		uint32_t member;
		do {
			member = o->stack[--top];
			o->on_stack[member] = false;
			o->component[member] = components;
		} while (member != n);
		components++;
	}
	return components;
}

/* ---- a heap of components, the one with the smallest block first --------------------------------------------------- */

static void
heap_push(struct ordering *o, uint32_t *count, uint32_t item)
{
	uint32_t at = (*count)++;
	while (at && o->smallest[o->heap[(at - 1) / 2]] > o->smallest[item]) {
		o->heap[at] = o->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	o->heap[at] = item;
}

static uint32_t
heap_pop(struct ordering *o, uint32_t *count)
{
	uint32_t first = o->heap[0], item = o->heap[--*count], at = 0;
	for (;;) {
		uint32_t child = 2 * at + 1;
		if (child >= *count)
			break;
		if (child + 1 < *count && o->smallest[o->heap[child + 1]] < o->smallest[o->heap[child]])
			child++;
		if (o->smallest[o->heap[child]] >= o->smallest[item])
			break;
		o->heap[at] = o->heap[child];
		at = child;
	}
	o->heap[at] = item;
	return first;
}

/* ---- arranging --------------------------------------------------------------------------------------------------- */

/* The block of a component by which it is entered; the first one if there are several. */
static uint32_t
find_header(const struct ordering *o, const uint32_t *nodes, uint32_t count)
{
	uint32_t header = NONE, smallest = NONE;

	for (uint32_t n = 0; n < count; n++) {
		uint32_t node = nodes[n];
		bool entered = node == 0;
		for (uint32_t p = o->pred_first[node]; p < o->pred_first[node + 1]; p++) {
			uint32_t from = o->preds[p];
			entered |= o->region[from] != o->region[node] || o->component[from] != o->component[node];
		}
		if (entered && node < header)
			header = node;
		if (node < smallest)
			smallest = node;
	}
	return header != NONE ? header : smallest;
}

/* Sorts the components of a region topologically and writes their blocks to o->sorted, each component's together. */
static void
sort_components(struct ordering *o, const uint32_t *nodes, uint32_t count, uint32_t components)
{
	const struct sx_graph *g = o->graph;
	uint32_t waiting = 0, out = 0;

	for (uint32_t c = 0; c < components; c++) {
		o->smallest[c] = NONE;
		o->size[c] = o->incoming[c] = 0;
	}
	for (uint32_t n = 0; n < count; n++) {
		uint32_t node = nodes[n], c = o->component[node];
		o->size[c]++;
		if (node < o->smallest[c])
			o->smallest[c] = node;
		for (uint32_t e = g->first[node]; e < g->first[node + 1]; e++)
			if (o->region[g->edges[e]] == o->region[node] && o->component[g->edges[e]] != c)
				o->incoming[o->component[g->edges[e]]]++;
	}
	/* group the blocks: after this a component's blocks are stack[place .. place + size) */
	for (uint32_t c = 0, at = 0; c < components; c++) {
		o->place[c] = at;
		at += o->size[c];
	}
	for (uint32_t n = 0; n < count; n++)
		o->stack[o->place[o->component[nodes[n]]]++] = nodes[n];
	for (uint32_t c = 0; c < components; c++) {
		o->place[c] -= o->size[c];
		if (!o->incoming[c])
			heap_push(o, &waiting, c);
	}
	while (waiting) {
		uint32_t c = heap_pop(o, &waiting);
		for (uint32_t n = o->place[c]; n < o->place[c] + o->size[c]; n++) {
			uint32_t node = o->stack[n];
			o->sorted[out++] = node;
			for (uint32_t e = g->first[node]; e < g->first[node + 1]; e++) {
				uint32_t to = g->edges[e];
				if (o->region[to] == o->region[node] && o->component[to] != c && --o->incoming[o->component[to]] == 0)
					heap_push(o, &waiting, o->component[to]);
			}
		}
	}
}

static void
arrange(struct ordering *o, uint32_t *nodes, uint32_t count, uint32_t nest)
{
	uint32_t counter = 0, components = 0, region = ++o->regions;

	if (count < 2 || nest > NEST_MAX)
		return;
	for (uint32_t n = 0; n < count; n++) {
		o->region[nodes[n]] = region;
		o->index[nodes[n]] = NONE;
	}
	for (uint32_t n = 0; n < count; n++)
		if (o->index[nodes[n]] == NONE)
			components = find_components(o, nodes[n], &counter, components);
	sort_components(o, nodes, count, components);
	memcpy(nodes, o->sorted, count * sizeof(*nodes));
	/* headers first, while regions and components still say who is inside; sizes are remembered by the header's place */
	for (uint32_t n = 0, size; n < count; n += size) {
		uint32_t c = o->component[nodes[n]];
		for (size = 1; n + size < count && o->component[nodes[n + size]] == c; size++)
			;
		if (size == 1)
			continue;
		uint32_t header = find_header(o, nodes + n, size);
		for (uint32_t k = 0; k < size; k++) {
			if (nodes[n + k] == header) {
				nodes[n + k] = nodes[n];
				nodes[n] = header;
			}
		}
	}
	/* the inner calls overwrite component[] of their own blocks only, so that ends can be found as we go */
	for (uint32_t n = 0, size; n < count; n += size) {
		uint32_t c = o->component[nodes[n]];
		for (size = 1; n + size < count && o->region[nodes[n + size]] == region && o->component[nodes[n + size]] == c; size++)
			;
		if (size > 1)
			arrange(o, nodes + n + 1, size - 1, nest + 1);
	}
}

static uint32_t *
take(uint32_t **memory, uint32_t count)
{
	uint32_t *piece = *memory;
	*memory += count;
	return piece;
}

static void
find_preds(struct ordering *o)
{
	const struct sx_graph *g = o->graph;

	for (uint32_t e = 0; e < g->first[g->count]; e++)
		o->pred_first[g->edges[e] + 1]++;
	for (uint32_t n = 0; n < g->count; n++)
		o->pred_first[n + 1] += o->pred_first[n];
	for (uint32_t n = 0; n < g->count; n++)
		for (uint32_t e = g->first[n]; e < g->first[n + 1]; e++)
			o->preds[o->pred_first[g->edges[e]]++] = n;
	for (uint32_t n = g->count; n > 0; n--)
		o->pred_first[n] = o->pred_first[n - 1];
	o->pred_first[0] = 0;
}

/* Blocks that can be reached come first in `order`; returns their number. */
static uint32_t
reachable(struct ordering *o, uint32_t *order)
{
	const struct sx_graph *g = o->graph;
	uint32_t top = 0, count = 0;
	bool *seen = o->on_stack;

	o->stack[top++] = 0;
	seen[0] = true;
	while (top) {
		uint32_t n = o->stack[--top];
		for (uint32_t e = g->first[n]; e < g->first[n + 1]; e++) {
			if (seen[g->edges[e]])
				continue;
			seen[g->edges[e]] = true;
			o->stack[top++] = g->edges[e];
		}
	}
	for (int pass = 1; pass >= 0; pass--)
		for (uint32_t n = 0, at = count; n < g->count; n++)
			if (seen[n] == pass) {
				order[at++] = n;
				count += (uint32_t)pass;
			}
	memset(seen, 0, g->count);
	return count;
}

bool
sx_order_blocks(const struct sx_graph *graph, uint32_t *order)
{
	uint32_t count = graph->count, edges = graph->first[count];
	struct ordering o = { .graph = graph };
	uint32_t *memory = calloc((size_t)(count + 1) * 14 + edges, sizeof(*memory)), *rest = memory;

	o.on_stack = calloc(count + 1, sizeof(*o.on_stack));
	if (!memory || !o.on_stack) {
		free(memory);
		free(o.on_stack);
		return false;
	}
	uint32_t **arrays[] = { &o.pred_first, &o.region, &o.index, &o.low, &o.component, &o.at, &o.stack, &o.path, &o.heap, &o.sorted,
		&o.smallest, &o.size, &o.incoming, &o.place };
	for (size_t n = 0; n < sizeof(arrays) / sizeof(arrays[0]); n++)
		*arrays[n] = take(&rest, count + 1);
	o.preds = rest;
	find_preds(&o);
	uint32_t live = reachable(&o, order);
	arrange(&o, order, live, 0);
	free(memory);
	free(o.on_stack);
	return true;
}
