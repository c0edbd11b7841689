/*
 * Grids: which thread runs which block when. Memory of blocks, their start, rounds over a block's warps, suspending blocks that wait for
 * others, clusters, the end of a grid, and the record of a fault.
 *
 * The unit of scheduling is a cluster (one block without clusters). A worker claims units in increasing order, a few at a time, and runs
 * each to its end; a unit that waits for others is put into the grid's queue and any worker may go on with it. Warps and instructions are
 * flow.c's business.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <fenv.h>
#endif

#include "base/log.h"
#include "soft/exec/run.h"

#define KEEP_UNITS 8      /* idle units that a worker keeps */
#define KEEP_BYTES (32u << 20) /* one larger than this is kept only if it is the only one */
#define SPIN_ROUNDS 16    /* fruitless rounds over a block's warps until it is suspended ... */
#define SPIN_ROUNDS_POLL 2 /* ... when some of its warps wait for the spinning ones, as in a grid barrier */
#define SLICE_ROUNDS 64   /* between two looks at the clock */
#define CLAIM_MAX 32

enum unit_end { UNIT_DONE, UNIT_WAITS, UNIT_SLICE, UNIT_STOPPED };

/* What one call of sx_grid_work is about. In memory, because a signal may cut the work off at any place. */
struct work {
	struct sx_grid *grid;
	struct sx_worker *worker;
	struct sx_unit *unit;  /* being run */
	struct sx_warp *warp;
	uint64_t first, end;   /* claimed, not started */
	uint64_t ended;        /* units, not yet taken off grid->remaining */
	uint64_t deadline;     /* 0: not yet computed */
	uint32_t slice_us;
	uint32_t fruitless;    /* suspended units in a row that made no progress */
	enum sx_progress result;
};

static uint64_t
now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The first question starts the clock: most calls never ask. */
static bool
slice_ended(struct work *work)
{
	uint64_t now = now_ns();
	if (!work->deadline)
		work->deadline = now + (uint64_t)work->slice_us * 1000;
	return now >= work->deadline;
}

/* ---- memory of units --------------------------------------------------------------------------------------------- */

static uint64_t
up64(uint64_t size)
{
	return (size + 63) & ~(uint64_t)63;
}

/* Frees the frames of calls that a block has kept. */
static void
release_frames(struct sx_block *block)
{
	while (block->frames_kept) {
		struct sx_frame *frame = block->frames_kept;
		block->frames_kept = frame->kept;
		free(frame);
	}
	memset(block->frame_free, 0, sizeof(block->frame_free));
}

static void
release_unit_frames(struct sx_unit *unit)
{
	for (uint32_t n = 0; n < unit->block_count; n++)
		release_frames(unit->blocks[n]);
}

static void
unit_free(struct sx_unit *unit)
{
	release_unit_frames(unit);
	if (unit->shared)
		sw_space_free(unit->shared);
	if (unit->local)
		sw_space_free(unit->local);
	free(unit->memory);
	free(unit);
}

/* Sizes of a block's parts, in the order in which they lie. */
struct layout {
	uint64_t warps, roots, tids, regs, total;
};

static struct layout
lay_out(const struct sx_grid *grid)
{
	struct layout at;
	at.warps = up64(sizeof(struct sx_block));
	at.roots = at.warps + up64(grid->warps * sizeof(struct sx_warp));
	at.tids = at.roots + up64(grid->warps * sizeof(struct sx_frame));
	at.regs = at.tids + (uint64_t)grid->warps * 3 * SX_LANES * 4;
	at.total = at.regs + (uint64_t)grid->warps * grid->shape.frame_bytes;
	return at;
}

static void
fill_tids(const struct sx_grid *grid, uint32_t *tids, uint32_t warp)
{
	const uint32_t *dim = grid->launch.block;
	for (uint32_t l = 0; l < SX_LANES; l++) {
		uint32_t thread = warp * SX_LANES + l;
		tids[l] = thread % dim[0];
		tids[SX_LANES + l] = thread / dim[0] % dim[1];
		tids[2 * SX_LANES + l] = thread / dim[0] / dim[1];
	}
}

/* Sets what stays the same for all blocks that will use this memory. */
static void
build_block(const struct sx_grid *grid, struct sx_unit *unit, uint32_t rank, uint8_t *memory)
{
	struct layout at = lay_out(grid);
	struct sx_block *block = (struct sx_block *)(void *)memory;

	memset(memory, 0, at.regs);
	unit->blocks[rank] = block;
	block->unit = unit;
	block->warp_count = grid->warps;
	block->warps = (struct sx_warp *)(void *)(memory + at.warps);
	block->roots = (struct sx_frame *)(void *)(memory + at.roots);
	for (int n = 0; n < SX_BARRIERS; n++)
		block->barriers[n].all = true;
	uint64_t stride = grid->shape.lane_bytes;
	uint64_t local = (uint64_t)(uintptr_t)unit->local + (uint64_t)rank * grid->warps * SX_LANES * stride;
	unit->shared_at[rank] = (uint64_t)(uintptr_t)unit->shared + (uint64_t)rank * grid->shape.shared_stride;
	for (uint32_t n = 0; n < grid->warps; n++) {
		struct sx_warp *w = &block->warps[n];
		uint32_t *tids = (uint32_t *)(void *)(memory + at.tids) + (size_t)n * 3 * SX_LANES;
		fill_tids(grid, tids, n);
		w->tid[0] = tids;
		w->tid[1] = tids + SX_LANES;
		w->tid[2] = tids + 2 * SX_LANES;
		w->block = block;
		w->index = n;
		w->local_base = local + (uint64_t)n * SX_LANES * stride;
		w->local_stride = (uint32_t)stride;
		w->root = &block->roots[n];
		w->root->regs = memory + at.regs + (uint64_t)n * grid->shape.frame_bytes;
		memset(w->root->regs, 0, grid->shape.frame_bytes);
	}
}

/* Memory from the space, at least `size` bytes. */
static bool
space_resize(uint8_t **memory, uint64_t *have, uint64_t size)
{
	if (size <= *have)
		return true;
	if (*memory)
		sw_space_free(*memory);
	*have = 0;
	*memory = sw_space_alloc(size, 256);
	if (*memory)
		*have = size;
	return *memory != NULL;
}

static bool
unit_build(const struct sx_grid *grid, struct sx_unit *unit)
{
	const struct sx_layout *shape = &grid->shape;
	uint64_t size = lay_out(grid).total, blocks = shape->unit_blocks;

	release_unit_frames(unit);
	unit->block_count = 0;
	unit->grid_serial = 0;
	memset(&unit->shape, 0, sizeof(unit->shape));
	if (size * blocks > unit->memory_size) {
		free(unit->memory);
		unit->memory = aligned_alloc(64, size * blocks);
		unit->memory_size = unit->memory ? size * blocks : 0;
	}
	if (!unit->memory || !space_resize(&unit->shared, &unit->shared_size, shape->shared_stride * blocks) ||
	    !space_resize(&unit->local, &unit->local_size, (uint64_t)shape->lane_bytes * SX_LANES * grid->warps * blocks))
		return false;
	for (uint32_t n = 0; n < blocks; n++)
		build_block(grid, unit, n, unit->memory + n * size);
	unit->block_count = (uint32_t)blocks;
	unit->shape = *shape;
	return true;
}

/* Takes idle memory that fits, or makes some. */
static struct sx_unit *
unit_take(const struct sx_grid *grid, struct sx_worker *worker)
{
	struct sx_unit **at = &worker->free_units, *unit;

	while (*at && memcmp(&(*at)->shape, &grid->shape, sizeof(grid->shape)) != 0)
		at = &(*at)->next;
	if (!*at && worker->free_count >= KEEP_UNITS) /* the last of the list is the one not used longest */
		for (at = &worker->free_units; (*at)->next;)
			at = &(*at)->next;
	unit = *at;
	if (unit) {
		*at = unit->next;
		worker->free_count--;
	} else {
		unit = calloc(1, sizeof(*unit));
	}
	if (unit && memcmp(&unit->shape, &grid->shape, sizeof(grid->shape)) != 0 && !unit_build(grid, unit)) {
		unit_free(unit);
		unit = NULL;
	}
	return unit;
}

static void
unit_put(struct sx_worker *worker, struct sx_unit *unit)
{
	if (worker->free_count >= KEEP_UNITS || (worker->free_count && unit->memory_size + unit->local_size > KEEP_BYTES)) {
		unit_free(unit);
		return;
	}
	unit->next = worker->free_units;
	worker->free_units = unit;
	worker->free_count++;
}

struct sx_worker *
sx_worker_new(void)
{
	return calloc(1, sizeof(struct sx_worker));
}

void
sx_worker_free(struct sx_worker *worker)
{
	while (worker && worker->free_units) {
		struct sx_unit *unit = worker->free_units;
		worker->free_units = unit->next;
		unit_free(unit);
	}
	free(worker);
}

/* ---- start of blocks --------------------------------------------------------------------------------------------- */

/* Gives a warp the registers that hold the same in all blocks. */
static void
fill_fixed(const struct sx_grid *grid, const struct sx_block *block, const struct sx_warp *w)
{
	for (uint32_t n = 0; n < grid->code->fixed_count; n++) {
		const struct sx_fixed *fixed = &grid->code->fixed[n];
		void *slot = w->root->regs + fixed->slot;
		uint32_t narrow = 0, *narrows = slot;
		uint64_t wide = 0, *wides = slot;
		const uint8_t *from = fixed->kind == SX_FIXED_PARAM ? grid->params : (const uint8_t *)block;
		if (fixed->kind == SX_FIXED_TID) {
			memcpy(slot, w->tid[fixed->offset], SX_LANES * sizeof(uint32_t));
		} else if (fixed->bits == 64) {
			memcpy(&wide, from + fixed->offset, sizeof(wide));
			for (int l = 0; l < SX_LANES; l++)
				wides[l] = wide;
		} else {
			memcpy(&narrow, from + fixed->offset, sizeof(narrow));
			for (int l = 0; l < SX_LANES; l++)
				narrows[l] = narrow;
		}
	}
}

/* Writes the grid's facts into the views of a unit that ran for another grid. */
static void
unit_attach(struct sx_grid *grid, struct sx_unit *unit)
{
	uint32_t static_shared = grid->func->info.static_shared;

	for (uint32_t n = 0; n < unit->block_count; n++) {
		struct sx_block *block = unit->blocks[n];
		struct sx_block_view *view = &block->view;
		block->code = grid->code;
		view->grid = grid;
		view->launch = &grid->launch;
		view->params = grid->params;
		view->shared_base = unit->shared_at[n];
		view->shared_bytes = grid->shared_bytes;
		view->cluster_rank = n;
		view->cluster_size = unit->block_count;
		view->cluster_shared = unit->shared_at;
		view->const_base = grid->func->image->const_base;
		view->const_bytes = grid->func->image->const_bytes;
		view->dynamic_shared = grid->launch.dynamic_shared;
		view->dynamic_offset = (static_shared + 15) & ~15u;
		const uint32_t *c = grid->launch.cluster;
		uint32_t place[3] = { n % c[0], n / c[0] % c[1], n / c[0] / c[1] };
		for (int k = 0; k < 3; k++) {
			view->ntid[k] = grid->launch.block[k];
			view->nctaid[k] = grid->launch.grid[k];
			view->nclusterid[k] = grid->clusters[k];
			view->cluster_nctaid[k] = c[k];
			view->cluster_ctaid[k] = place[k];
		}
		for (uint32_t w = 0; w < grid->warps; w++)
			fill_fixed(grid, block, &block->warps[w]);
	}
	unit->grid_serial = grid->serial;
}

static void
reset_barriers(struct sx_block *block)
{
	for (uint32_t left = block->barriers_used; left; left &= left - 1) {
		struct sx_barrier *b = &block->barriers[__builtin_ctz(left)];
		memset(b, 0, sizeof(*b));
		b->all = true;
	}
	block->barriers_used = 0;
}

static void
start_warp(const struct sx_grid *grid, struct sx_block *block, uint32_t n)
{
	struct sx_warp *w = &block->warps[n];
	uint32_t threads = grid->threads - n * SX_LANES;

	w->live = threads >= SX_LANES ? UINT32_MAX : (1u << threads) - 1;
	w->exec = w->mask = w->live;
	w->all = true;
	w->spinning = w->rotated = false;
	w->frame = w->root;
	w->root->live = w->live;
	w->root->stack_bytes = 0;
	w->root->code = grid->code;
	w->base[0] = w->root->regs;
	w->base[1] = grid->code->pool;
	w->wake = (const struct sx_insn *)UINTPTR_MAX;
	w->budget = 4096;
	w->ticks = 0;
	w->pc = w->now = grid->code->insns;
	w->frag_count = 0;
	w->frame_bytes = 0;
}

static void
start_block(struct sx_grid *grid, struct sx_block *block, const uint32_t at[3], uint64_t unit)
{
	struct sx_block_view *view = &block->view;

	for (int k = 0; k < 3; k++) {
		view->clusterid[k] = at[k];
		view->ctaid[k] = at[k] * grid->launch.cluster[k] + view->cluster_ctaid[k];
	}
	view->linear = view->ctaid[0] + grid->launch.grid[0] * (view->ctaid[1] + grid->launch.grid[1] * view->ctaid[2]);
	view->smid = (uint32_t)(unit % grid->func->image->target.sm_count);
	block->live_warps = block->ready = (uint32_t)(((uint64_t)1 << grid->warps) - 1);
	if (block->barriers_used)
		reset_barriers(block);
	if (grid->shape.unit_blocks > 1)
		memset(block->cluster_arrived, 0, sizeof(block->cluster_arrived));
	for (uint32_t n = 0; n < grid->warps; n++)
		start_warp(grid, block, n);
}

static void
unit_start(struct sx_grid *grid, struct sx_unit *unit, uint64_t linear)
{
	const uint32_t *count = grid->clusters;
	uint32_t at[3] = { (uint32_t)(linear % count[0]), (uint32_t)(linear / count[0] % count[1]),
		(uint32_t)(linear / count[0] / count[1]) };

	if (unit->grid_serial != grid->serial)
		unit_attach(grid, unit);
	unit->linear = linear;
	unit->spun_rounds = 0;
	for (uint32_t n = 0; n < unit->block_count; n++)
		start_block(grid, unit->blocks[n], at, linear);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Why a round over the warps of a block ended. */
enum round_end { ROUND_PROGRESS, ROUND_SPUN, ROUND_STUCK, ROUND_SLICE, ROUND_STOPPED };

/* Lets every warp that can run do so until it waits or yields. */
static enum round_end
run_round(struct work *work, struct sx_block *block, void (*run)(struct sx_warp *))
{
	uint32_t todo = block->ready, events = block->events;
	bool progress = false;

	if (!todo)
		return ROUND_STUCK;
	while (todo) {
		struct sx_warp *w = &block->warps[__builtin_ctz(todo)];
		work->warp = w;
		run(w);
		switch (w->state) {
		case SX_WARP_TICK: /* the same warp goes on: its data are in the cache */
			progress = true;
			if (slice_ended(work))
				return ROUND_SLICE;
			continue;
		case SX_WARP_STOPPED:
			return ROUND_STOPPED;
		case SX_WARP_SPUN:
			break;
		default:
			progress = true;
		}
		todo &= todo - 1;
	}
	if (sx_stopped(work->grid))
		return ROUND_STOPPED;
	return progress || events != block->events ? ROUND_PROGRESS : ROUND_SPUN;
}

/* Runs a block until it has ended or cannot go on by itself. */
static enum unit_end
run_block(struct work *work, struct sx_block *block)
{
	void (*run)(struct sx_warp *) = sx_backend()->run;
	uint32_t spun = 0, rounds = 0;

	while (block->live_warps) {
		switch (run_round(work, block, run)) {
		case ROUND_PROGRESS: /* may go on for ever, from barrier to barrier */
			spun = 0;
			if (++rounds % SLICE_ROUNDS == 0 && slice_ended(work))
				return UNIT_SLICE;
			break;
		case ROUND_SPUN:
			if (++spun >= (block->ready == block->live_warps && !work->grid->launch.cooperative ? SPIN_ROUNDS : SPIN_ROUNDS_POLL))
				return UNIT_WAITS;
			break;
		case ROUND_STUCK:
			return UNIT_WAITS;
		case ROUND_SLICE:
			return UNIT_SLICE;
		case ROUND_STOPPED:
			return UNIT_STOPPED;
		}
	}
	return UNIT_DONE;
}

/* Every live warp of the unit waits at a barrier that nobody else will complete. */
static void
check_deadlock(struct sx_grid *grid, const struct sx_unit *unit)
{
	for (uint32_t n = 0; n < unit->block_count; n++)
		if (unit->blocks[n]->ready)
			return;
	if (!__atomic_exchange_n(&grid->stuck_said, true, __ATOMIC_RELAXED)) {
		const struct sx_block *block = unit->blocks[0];
		for (uint32_t n = 0; n < unit->block_count && !block->live_warps; n++)
			block = unit->blocks[n];
		fw_warn("soft", "kernel %s: all threads of block (%u,%u,%u) wait for others that never come", grid->func->info.name,
		        block->view.ctaid[0], block->view.ctaid[1], block->view.ctaid[2]);
	}
}

/* Runs the blocks of a unit in turn until all have ended or none can go on. */
static enum unit_end
run_unit(struct work *work, struct sx_unit *unit)
{
	bool progress = true;
	enum unit_end end = unit->block_count == 1 ? run_block(work, unit->blocks[0]) : UNIT_WAITS;

	if (unit->block_count == 1) {
		if (end == UNIT_WAITS)
			check_deadlock(work->grid, unit);
		return end;
	}
	while (progress) {
		bool live = false;
		progress = false;
		for (uint32_t n = 0; n < unit->block_count; n++) {
			struct sx_block *block = unit->blocks[n];
			uint32_t events = block->events;
			if (!block->live_warps)
				continue;
			end = run_block(work, block);
			if (end == UNIT_STOPPED || end == UNIT_SLICE)
				return end;
			live |= end == UNIT_WAITS;
			progress |= end == UNIT_DONE || events != block->events;
		}
		if (!live)
			return UNIT_DONE;
	}
	check_deadlock(work->grid, unit);
	return UNIT_WAITS;
}

/* ---- claiming ---------------------------------------------------------------------------------------------------- */

/* The grid has ended early: nobody claims any more, what was claimed or suspended is dropped. */
static void
abandon(struct work *work)
{
	struct sx_grid *grid = work->grid;
	uint64_t next = __atomic_exchange_n(&grid->next, grid->unit_total, __ATOMIC_RELAXED);

	work->ended += next < grid->unit_total ? grid->unit_total - next : 0;
	work->ended += work->end - work->first;
	work->first = work->end = 0;
	pthread_mutex_lock(&grid->lock);
	while (grid->suspended) {
		struct sx_unit *unit = grid->suspended;
		grid->suspended = unit->next;
		unit_free(unit);
		work->ended++;
	}
	grid->suspended_tail = &grid->suspended;
	while (grid->leftovers) {
		struct sx_range *range = grid->leftovers;
		grid->leftovers = range->next;
		work->ended += range->end - range->first;
		free(range);
	}
	__atomic_store_n(&grid->waiting, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&grid->suspended_count, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&grid->lock);
}

static void
suspend(struct sx_grid *grid, struct sx_unit *unit)
{
	pthread_mutex_lock(&grid->lock);
	unit->next = NULL;
	*grid->suspended_tail = unit;
	grid->suspended_tail = &unit->next;
	__atomic_fetch_add(&grid->suspended_count, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&grid->waiting, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&grid->lock);
}

static struct sx_unit *
resume(struct sx_grid *grid)
{
	if (!__atomic_load_n(&grid->suspended_count, __ATOMIC_RELAXED))
		return NULL;
	pthread_mutex_lock(&grid->lock);
	struct sx_unit *unit = grid->suspended;
	if (unit) {
		grid->suspended = unit->next;
		if (!grid->suspended)
			grid->suspended_tail = &grid->suspended;
		__atomic_fetch_sub(&grid->suspended_count, 1, __ATOMIC_RELAXED);
		__atomic_fetch_sub(&grid->waiting, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&grid->lock);
	return unit;
}

/* Gives back what was claimed but will not be started now. False when there is no memory to say so. */
static bool
give_back(struct work *work)
{
	struct sx_grid *grid = work->grid;
	struct sx_range *range;

	if (work->first == work->end)
		return true;
	range = malloc(sizeof(*range));
	if (!range)
		return false;
	*range = (struct sx_range){ .first = work->first, .end = work->end };
	work->first = work->end = 0;
	pthread_mutex_lock(&grid->lock);
	struct sx_range **at = &grid->leftovers;
	while (*at && (*at)->first < range->first)
		at = &(*at)->next;
	range->next = *at;
	*at = range;
	__atomic_fetch_add(&grid->waiting, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&grid->lock);
	return true;
}

/* Claims a few units: the lowest that nobody has. The fewer are left, the fewer at a time, so that workers end together. */
static bool
claim(struct work *work)
{
	struct sx_grid *grid = work->grid;

	if (work->first < work->end)
		return true;
	if (__atomic_load_n(&grid->waiting, __ATOMIC_ACQUIRE) > __atomic_load_n(&grid->suspended_count, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&grid->lock);
		struct sx_range *range = grid->leftovers;
		if (range) {
			grid->leftovers = range->next;
			work->first = range->first;
			work->end = range->end;
			__atomic_fetch_sub(&grid->waiting, 1, __ATOMIC_RELAXED);
		}
		pthread_mutex_unlock(&grid->lock);
		free(range);
		if (work->first < work->end)
			return true;
	}
	uint64_t next = __atomic_load_n(&grid->next, __ATOMIC_RELAXED);
	if (next >= grid->unit_total)
		return false;
	uint64_t some = (grid->unit_total - next) / 64;
	some = some < 1 ? 1 : some > CLAIM_MAX ? CLAIM_MAX : some;
	next = __atomic_fetch_add(&grid->next, some, __ATOMIC_RELAXED);
	if (next >= grid->unit_total)
		return false;
	work->first = next;
	work->end = next + some < grid->unit_total ? next + some : grid->unit_total;
	return true;
}

/* May one more unit be started while others are suspended? */
static bool
may_start(const struct sx_grid *grid)
{
	uint64_t suspended = __atomic_load_n(&grid->suspended_count, __ATOMIC_RELAXED);
	return !suspended || grid->launch.cooperative || (suspended + 1) * grid->shape.unit_blocks <= grid->launch.max_resident;
}

static void
out_of_memory(struct work *work)
{
	struct sx_grid *grid = work->grid;

	if (!__atomic_exchange_n(&grid->fault_claimed, 1, __ATOMIC_ACQ_REL)) {
		struct sx_fault *fault = &grid->fault;
		fault->code = CUDA_ERROR_OUT_OF_MEMORY;
		snprintf(fault->kernel, sizeof(fault->kernel), "%s", grid->func->info.name);
		snprintf(fault->text, sizeof(fault->text), "kernel %.100s: no memory for its blocks", grid->func->info.name);
	}
	__atomic_store_n(&grid->stop, 1, __ATOMIC_RELEASE);
}

/* The next unit to run: a new one as long as there is room, else the one that has been suspended longest. */
static struct sx_unit *
next_unit(struct work *work)
{
	struct sx_grid *grid = work->grid;

	if (may_start(grid) && claim(work)) {
		struct sx_unit *unit = unit_take(grid, work->worker);
		if (unit) {
			unit_start(grid, unit, work->first++);
			work->fruitless = 0;
			return unit;
		}
		if (!__atomic_load_n(&grid->suspended_count, __ATOMIC_RELAXED))
			out_of_memory(work);
	}
	return resume(grid);
}

/* A unit has returned. True if the worker shall stop here for now. */
static bool
settle(struct work *work, enum unit_end end)
{
	struct sx_grid *grid = work->grid;
	struct sx_unit *unit = work->unit;

	work->unit = NULL;
	switch (end) {
	case UNIT_STOPPED:
		unit_free(unit);
		work->ended++;
		return false;
	case UNIT_DONE:
		unit_put(work->worker, unit);
		work->ended++;
		work->fruitless = 0;
		return false;
	case UNIT_SLICE:
		suspend(grid, unit);
		return true;
	case UNIT_WAITS:
		suspend(grid, unit);
		if (++work->fruitless > __atomic_load_n(&grid->suspended_count, __ATOMIC_RELAXED)) {
			sched_yield(); /* it is another thread's turn */
			work->fruitless = 0;
		}
		return slice_ended(work);
	}
	return true;
}

static void
work_body(void *argument)
{
	struct work *work = argument;
	struct sx_grid *grid = work->grid;

	for (;;) {
		if (sx_stopped(grid)) {
			abandon(work);
			work->result = SX_NO_WORK;
			return;
		}
		work->unit = next_unit(work);
		if (!work->unit) {
			if (sx_stopped(grid))
				continue;
			work->result = SX_NO_WORK;
			return;
		}
		if (settle(work, run_unit(work, work->unit))) {
			work->result = SX_YIELDED;
			return;
		}
	}
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

void
sx_fault_record(struct sx_warp *w, const struct sx_insn *i, CUresult code, unsigned lane, uint64_t address,
                const char *format, va_list args)
{
	const struct sx_block_view *view = &w->block->view;
	struct sx_grid *grid = view->grid;
	struct sx_fault *fault = &grid->fault;
	const struct ptx_func *ast = w->frame->code->func->ast;
	char reason[120];

	if (!__atomic_exchange_n(&grid->fault_claimed, 1, __ATOMIC_ACQ_REL)) {
		fault->code = code;
		fault->address = address;
		snprintf(fault->kernel, sizeof(fault->kernel), "%s", grid->func->info.name);
		if (i->src < ast->insn_count) {
			fault->line = ast->insns[i->src].line;
			ptx_print_insn(ast, &ast->insns[i->src], fault->insn, sizeof(fault->insn));
		}
		for (int n = 0; n < 3; n++) {
			fault->block[n] = view->ctaid[n];
			fault->thread[n] = w->tid[n][lane & 31];
		}
		vsnprintf(reason, sizeof(reason), format, args);
		snprintf(fault->text, sizeof(fault->text), "kernel %.60s, PTX line %u, %.60s: %.80s; block (%u,%u,%u) thread (%u,%u,%u)",
		         fault->kernel, fault->line, fault->insn, reason, fault->block[0], fault->block[1], fault->block[2],
		         fault->thread[0], fault->thread[1], fault->thread[2]);
	}
	__atomic_store_n(&grid->stop, 1, __ATOMIC_RELEASE);
}

static void __attribute__((format(printf, 4, 5)))
raise_at(struct sx_warp *w, CUresult code, uint64_t address, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	sx_fault_record(w, w->now, code, w->exec ? (unsigned)__builtin_ctz(w->exec) : 0, address, format, args);
	va_end(args);
}

/* The kernel made the thread touch memory that is not there. */
static void
fault_signal(struct work *work, uint64_t address, int number)
{
	raise_at(work->warp, CUDA_ERROR_ILLEGAL_ADDRESS, address, "signal %d at %#llx", number, (unsigned long long)address);
}

/* ---- grids ------------------------------------------------------------------------------------------------------- */

#define INSIDE ((uint64_t)1 << 48) /* progress: units not ended, and above them the threads in sx_grid_work */

/* How much local memory a lane has: an odd number of cache lines, so that lanes do not fall on the same sets. */
static uint32_t
lane_bytes(const struct sx_launch *launch)
{
	uint64_t bytes = launch->func->lane_bytes + (launch->func->needs_stack ? (uint64_t)launch->stack_bytes : 0);
	return bytes ? (uint32_t)((bytes + 63) / 64 | 1) * 64 : 0;
}

/* Copies the parameters; kernels may read the whole declared size and a vector beyond. */
static bool
copy_params(struct sx_grid *grid, const struct sx_launch *launch, uint64_t size)
{
	uint8_t *params = grid->param_bytes;
	if (grid->code->param_address) {
		params = grid->param_memory = sw_space_alloc(size, 64);
		if (!params)
			return false;
	}
	if (launch->param_bytes)
		memcpy(params, launch->params, launch->param_bytes);
	grid->params = params;
	return true;
}

/* What cooperative groups expect behind %envreg1 and 2: its size, then the barrier's word. */
static bool
add_workspace(struct sx_grid *grid)
{
	static const uint32_t size = 16;
	if (!grid->launch.cooperative)
		return true;
	grid->workspace = sw_space_alloc(size, 64);
	if (!grid->workspace)
		return false;
	memset(grid->workspace, 0, size);
	memcpy(grid->workspace, &size, sizeof(size));
	return true;
}

struct sx_grid *
sx_grid_new(const struct sx_launch *launch)
{
	static uint64_t serials; /* atomic */
	uint64_t declared = launch->func->info.param_bytes, size = launch->param_bytes > declared ? launch->param_bytes : declared;
	struct sx_grid *grid = NULL;

	size = up64(size + 32);
	if (posix_memalign((void **)&grid, 64, sizeof(*grid) + size))
		return NULL;
	memset(grid, 0, sizeof(*grid) + size);
	grid->launch = *launch;
	grid->launch.params = NULL;
	grid->func = launch->func;
	grid->code = launch->func->code;
	grid->serial = __atomic_add_fetch(&serials, 1, __ATOMIC_RELAXED);
	grid->threads = launch->block[0] * launch->block[1] * launch->block[2];
	grid->warps = (grid->threads + SX_LANES - 1) / SX_LANES;
	grid->shared_bytes = launch->func->info.static_shared;
	if (launch->dynamic_shared)
		grid->shared_bytes = ((grid->shared_bytes + 15) & ~15u) + launch->dynamic_shared;
	grid->shape = (struct sx_layout){ .code = grid->code, .frame_bytes = grid->code->frame_bytes, .lane_bytes = lane_bytes(launch),
		.shared_stride = (uint32_t)up64(grid->shared_bytes),
		.unit_blocks = launch->cluster[0] * launch->cluster[1] * launch->cluster[2] };
	grid->unit_total = 1;
	for (int n = 0; n < 3; n++) {
		grid->shape.block[n] = launch->block[n];
		grid->shape.cluster[n] = launch->cluster[n];
		grid->clusters[n] = launch->grid[n] / launch->cluster[n];
		grid->unit_total *= grid->clusters[n];
	}
	grid->progress = grid->unit_total;
	grid->suspended_tail = &grid->suspended;
	pthread_mutex_init(&grid->lock, NULL);
	if (grid->unit_total == 0 || grid->unit_total >= INSIDE || grid->warps > SX_MAX_WARPS || grid->shape.unit_blocks > SX_MAX_CLUSTER ||
	    !copy_params(grid, launch, size) || !add_workspace(grid)) {
		sx_grid_free(grid);
		return NULL;
	}
	return grid;
}

void
sx_grid_free(struct sx_grid *grid)
{
	if (!grid)
		return;
	while (grid->suspended) {
		struct sx_unit *unit = grid->suspended;
		grid->suspended = unit->next;
		unit_free(unit);
	}
	while (grid->leftovers) {
		struct sx_range *range = grid->leftovers;
		grid->leftovers = range->next;
		free(range);
	}
	if (grid->param_memory)
		sw_space_free(grid->param_memory);
	if (grid->workspace)
		sw_space_free(grid->workspace);
	pthread_mutex_destroy(&grid->lock);
	free(grid);
}

/* Kernels compute with the defaults of IEEE 754 (nearest, subnormals kept, no traps), whatever the calling thread has set. */
static uint32_t
float_mode_enter(void)
{
#if defined(__x86_64__)
	const uint32_t old = _mm_getcsr();
	_mm_setcsr(0x1f80);
	return old;
#else
	const int old = fegetround();
	fesetround(FE_TONEAREST);
	return (uint32_t)old;
#endif
}
static void
float_mode_leave(uint32_t old)
{
#if defined(__x86_64__)
	_mm_setcsr(old);
#else
	fesetround((int)old);
#endif
}

enum sx_progress
sx_grid_work(struct sx_grid *grid, struct sx_worker *worker, uint32_t slice_us)
{
	struct work work = { .grid = grid, .worker = worker, .slice_us = slice_us };
	uint64_t address;
	int number;

	if (__atomic_fetch_add(&grid->progress, INSIDE, __ATOMIC_ACQ_REL) == 0) { /* has finished already */
		__atomic_fetch_sub(&grid->progress, INSIDE, __ATOMIC_ACQ_REL);
		return SX_NO_WORK;
	}
	const uint32_t float_mode = float_mode_enter();
	while (!sx_guarded(work_body, &work, &address, &number)) {
		fault_signal(&work, address, number);
		if (work.unit)
			settle(&work, UNIT_STOPPED);
	}
	if (!give_back(&work)) {
		out_of_memory(&work);
		abandon(&work);
	}
	float_mode_leave(float_mode);
	/* The last to leave a grid without units left says so: nobody touches the grid after that. */
	return __atomic_sub_fetch(&grid->progress, INSIDE + work.ended, __ATOMIC_ACQ_REL) == 0 ? SX_FINISHED : work.result;
}

uint32_t
sx_grid_parallelism(const struct sx_grid *grid)
{
	uint64_t next = __atomic_load_n(&grid->next, __ATOMIC_RELAXED);
	uint64_t count = (next < grid->unit_total ? grid->unit_total - next : 0) + __atomic_load_n(&grid->waiting, __ATOMIC_RELAXED);
	return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

void
sx_grid_cancel(struct sx_grid *grid)
{
	__atomic_store_n(&grid->stop, 1, __ATOMIC_RELEASE);
}

const struct sx_fault *
sx_grid_fault(const struct sx_grid *grid)
{
	return __atomic_load_n(&grid->fault_claimed, __ATOMIC_ACQUIRE) ? &grid->fault : NULL;
}
