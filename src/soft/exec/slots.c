/*
 * Which registers share memory: liveness over the graph, then a linear scan over the layout. PTX names a new register for nearly every
 * value; without this a warp's registers do not fit into the cache. See order.h.
 *
 * Lanes that diverged may be at different places; a slot then holds one register for some lanes and another for others, which is
 * right because instructions write only the lanes that execute them.
 */
#include "soft/exec/order.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define BITS_MAX ((uint64_t)1 << 27) /* of one liveness set; beyond that every register has a slot of its own */

struct interval {
	uint32_t start, end, reg;
};

struct liveness {
	uint32_t *global;     /* register to its number among those that more than one block mentions */
	uint32_t *regs;       /* and back */
	uint32_t global_count, words;
	uint64_t *in, *out, *reads, *kills; /* a set a block */
};

static bool
has(const uint64_t *set, uint32_t bit)
{
	return set[bit / 64] >> (bit % 64) & 1;
}

static void
put(uint64_t *set, uint32_t bit)
{
	set[bit / 64] |= (uint64_t)1 << (bit % 64);
}

/* Numbers the registers that more than one block mentions. False when out of memory. */
static bool
find_globals(const struct sx_slot_job *s, struct liveness *live)
{
	uint32_t *where = malloc(((size_t)s->reg_count + 1) * sizeof(*where));

	live->global = malloc(((size_t)s->reg_count + 1) * sizeof(*live->global));
	live->regs = malloc(((size_t)s->reg_count + 1) * sizeof(*live->regs));
	if (!where || !live->global || !live->regs) {
		free(where);
		return false;
	}
	memset(where, 0xff, ((size_t)s->reg_count + 1) * sizeof(*where));
	memset(live->global, 0xff, ((size_t)s->reg_count + 1) * sizeof(*live->global));
	bool *defined = calloc((size_t)s->reg_count + 1, sizeof(*defined)); /* killed in its block before any read */
	if (!defined) {
		free(where);
		return false;
	}
	for (uint32_t n = 0; n < s->ref_count; n++) {
		const struct sx_ref *ref = &s->refs[n];
		/* a register that is read before it is set may also come round a loop of one block */
		bool exposed = !defined[ref->reg] && !(ref->writes && ref->kills);
		if ((where[ref->reg] != NONE && where[ref->reg] != ref->block) || exposed) {
			if (live->global[ref->reg] == NONE) {
				live->regs[live->global_count] = ref->reg;
				live->global[ref->reg] = live->global_count++;
			}
		}
		where[ref->reg] = ref->block;
		defined[ref->reg] |= ref->writes && ref->kills;
	}
	free(where);
	free(defined);
	return true;
}

static void
solve(const struct sx_slot_job *s, struct liveness *live)
{
	const struct sx_graph *g = s->graph;
	uint32_t words = live->words;
	bool changed = true;

	for (uint32_t n = 0; n < s->ref_count; n++) {
		const struct sx_ref *ref = &s->refs[n];
		uint32_t bit = live->global[ref->reg];
		if (bit == NONE)
			continue;
		uint64_t *reads = live->reads + (size_t)ref->block * words, *kills = live->kills + (size_t)ref->block * words;
		if (ref->writes && ref->kills)
			put(kills, bit);
		else if (!has(kills, bit)) /* a write of some lanes keeps the others' value: it reads */
			put(reads, bit);
	}
	while (changed) {
		changed = false;
		for (uint32_t p = g->count; p-- > 0;) {
			uint32_t n = s->order[p];
			uint64_t *in = live->in + (size_t)n * words, *out = live->out + (size_t)n * words;
			const uint64_t *reads = live->reads + (size_t)n * words, *kills = live->kills + (size_t)n * words;
			for (uint32_t e = g->first[n]; e < g->first[n + 1]; e++) {
				const uint64_t *next = live->in + (size_t)g->edges[e] * words;
				for (uint32_t w = 0; w < words; w++)
					out[w] |= next[w];
			}
			for (uint32_t w = 0; w < words; w++) {
				uint64_t now = reads[w] | (out[w] & ~kills[w]);
				changed |= now != in[w];
				in[w] = now;
			}
		}
	}
}

static void
extend(struct interval *interval, uint32_t place)
{
	if (place < interval->start)
		interval->start = place;
	if (interval->end == NONE || place > interval->end)
		interval->end = place;
}

/* The stretch of the layout over which each register holds something. */
static void
find_intervals(const struct sx_slot_job *s, const struct liveness *live, struct interval *intervals)
{
	for (uint32_t n = 0; n < s->reg_count; n++)
		intervals[n] = (struct interval){ NONE, NONE, n };
	for (uint32_t n = 0; n < s->ref_count; n++)
		extend(&intervals[s->refs[n].reg], s->refs[n].place);
	for (uint32_t b = 0; b < s->graph->count; b++) {
		for (uint32_t w = 0; w < live->words; w++) {
			for (uint64_t left = live->in[(size_t)b * live->words + w]; left; left &= left - 1)
				extend(&intervals[live->regs[w * 64 + (uint32_t)__builtin_ctzll(left)]], s->block_first[b]);
			for (uint64_t left = live->out[(size_t)b * live->words + w]; left; left &= left - 1)
				extend(&intervals[live->regs[w * 64 + (uint32_t)__builtin_ctzll(left)]], s->block_last[b]);
		}
	}
}

static int
by_start(const void *a, const void *b)
{
	const struct interval *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start ? 1 : x->reg < y->reg ? -1 : x->reg > y->reg;
}

/* Min-heap of the intervals that hold a slot, by end. */
static void
sift(struct interval *heap, uint32_t count, uint32_t at)
{
	struct interval item = heap[at];
	for (;;) {
		uint32_t child = 2 * at + 1;
		if (child >= count)
			break;
		if (child + 1 < count && heap[child + 1].end < heap[child].end)
			child++;
		if (heap[child].end >= item.end)
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = item;
}

static void
scan(struct sx_slot_job *s, struct interval *intervals, struct interval *heap, uint32_t *free_slots)
{
	uint32_t active = 0, free_count[4] = { 0 };

	for (uint32_t n = 0; n < s->reg_count && intervals[n].start != NONE; n++) {
		struct interval *now = &intervals[n];
		while (active && heap[0].end < now->start) {
			uint32_t gone = heap[0].reg, class = s->size_class[gone];
			free_slots[(size_t)class * s->reg_count + free_count[class]++] = s->number[gone];
			heap[0] = heap[--active];
			if (active)
				sift(heap, active, 0);
		}
		uint32_t class = s->size_class[now->reg];
		s->number[now->reg] = free_count[class] ? free_slots[(size_t)class * s->reg_count + --free_count[class]] : s->used[class]++;
		uint32_t at = active++;
		while (at && heap[(at - 1) / 2].end > now->end) {
			heap[at] = heap[(at - 1) / 2];
			at = (at - 1) / 2;
		}
		heap[at] = *now;
	}
}

/* Every register that is mentioned gets its own. */
static void
assign_separately(struct sx_slot_job *s)
{
	for (uint32_t n = 0; n < s->ref_count; n++)
		if (s->number[s->refs[n].reg] == NONE)
			s->number[s->refs[n].reg] = s->used[s->size_class[s->refs[n].reg]]++;
}

bool
sx_assign_slots(struct sx_slot_job *s)
{
	struct liveness live = { .global = NULL };
	struct interval *intervals = NULL, *heap = NULL;
	uint32_t *free_slots = NULL;
	bool ok = false;

	memset(s->used, 0, sizeof(s->used));
	memset(s->number, 0xff, (size_t)s->reg_count * sizeof(*s->number));
	if (!find_globals(s, &live))
		goto out;
	live.words = (live.global_count + 63) / 64;
	if ((uint64_t)live.words * 64 * s->graph->count > BITS_MAX) {
		assign_separately(s);
		ok = true;
		goto out;
	}
	size_t set = (size_t)live.words * s->graph->count;
	live.in = calloc(set * 4 + 1, sizeof(*live.in));
	intervals = malloc(((size_t)s->reg_count + 1) * sizeof(*intervals));
	heap = malloc(((size_t)s->reg_count + 1) * sizeof(*heap));
	free_slots = malloc(((size_t)s->reg_count + 1) * 4 * sizeof(*free_slots));
	if (!live.in || !intervals || !heap || !free_slots)
		goto out;
	live.out = live.in + set;
	live.reads = live.out + set;
	live.kills = live.reads + set;
	solve(s, &live);
	find_intervals(s, &live, intervals);
	qsort(intervals, s->reg_count, sizeof(*intervals), by_start);
	scan(s, intervals, heap, free_slots);
	ok = true;
out:
	free(live.global);
	free(live.regs);
	free(live.in);
	free(intervals);
	free(heap);
	free(free_slots);
	return ok;
}
