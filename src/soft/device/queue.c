/*
 * The queue: work items with dependency counts, the worker threads that run them, one thread for host functions.
 *
 * One lock guards the whole graph of dependencies; nothing that takes long is done under it. A kernel stays in its ready list
 * while it runs, so that any number of workers can join it; everything else leaves the list when a worker takes it. What needs no
 * time (event records, empty nodes, stream-ordered frees) is finished on the spot by whoever made it ready. Idle workers spin
 * briefly and then sleep, so that a program which keeps launching pays no system call. Threads are started when work first
 * needs them. Streams are not known here: stream.c turns their rules into dependencies.
 */
#include "soft/device/device.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 6          /* priorities 0 (least) to 5 */
#define SPIN_NS 20000      /* before an idle worker or a waiter sleeps */
#define SLICE_US 2000      /* a kernel's turn when others wait */
#define POLL_NS_MIN 20000
#define POLL_NS_MAX 1000000
#define MANY 65536          /* unfinished items of a context from which on its callers are held up */
#define THROTTLE_NS 100000000u
#define CHUNK ((uint64_t)2 << 20) /* of a copy or fill that workers share */
#define MAX_WORKERS 1024

struct list {
	struct sw_work *first, *last;
};

/* Held for very short times only: spinning for it beats sleeping. */
static pthread_mutex_t queue_lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
static pthread_cond_t work_cond = PTHREAD_COND_INITIALIZER; /* sleeping workers */
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER; /* waiters for work */
static pthread_cond_t host_cond = PTHREAD_COND_INITIALIZER; /* the host function thread */

static struct { /* all guarded by queue_lock unless it says atomic */
	struct list ready[BUCKETS];
	struct list polls;         /* memory operations that wait for a value */
	struct list host;          /* host functions and callbacks that are ready */
	struct sw_work *free;
	uint32_t free_count;
	uint32_t ready_count;      /* atomic: items in the ready lists */
	uint64_t pushes;           /* atomic: changes when something became ready; spinners watch it */
	uint32_t started, spinning, sleeping, signalled;
	bool wake_waiters;         /* something that is waited for has ended */
	bool polling;              /* one of the idle workers wakes by the clock */
	bool host_started, stopping;
	uint64_t grids;            /* launched so far: %gridid */
	uint32_t inside;           /* workers in sx_grid_work */
	pthread_t threads[MAX_WORKERS];
} q;

static __thread bool on_callback_thread __attribute__((tls_model("initial-exec")));

static void finish(struct sw_work *work);

uint64_t
sw_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void
cpu_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

void
sw_queue_lock(void)
{
	pthread_mutex_lock(&queue_lock);
}

void
sw_queue_unlock(void)
{
	pthread_mutex_unlock(&queue_lock);
}

bool
sw_queue_on_callback_thread(void)
{
	return on_callback_thread || fw_thread.in_callback;
}

bool
sw_queue_idle(void)
{
	bool idle = true;

	pthread_mutex_lock(&queue_lock);
	for (int level = 0; level < BUCKETS; level++)
		for (struct sw_work *work = q.ready[level].first; work; work = work->next)
			idle &= work->op.kind != SW_OP_KERNEL;
	idle &= q.inside == 0;
	pthread_mutex_unlock(&queue_lock);
	return idle;
}

uint32_t
sw_queue_threads(void)
{
	pthread_mutex_lock(&queue_lock);
	uint32_t started = q.started;
	pthread_mutex_unlock(&queue_lock);
	return started;
}

/* ---- work items --------------------------------------------------------------------------------------------------- */

static void
list_append(struct list *list, struct sw_work *work)
{
	work->next = NULL;
	work->previous = list->last;
	if (list->last)
		list->last->next = work;
	else
		list->first = work;
	list->last = work;
	work->listed = true;
}

static void
list_remove(struct list *list, struct sw_work *work)
{
	if (work->previous)
		work->previous->next = work->next;
	else
		list->first = work->next;
	if (work->next)
		work->next->previous = work->previous;
	else
		list->last = work->previous;
	work->listed = false;
}

static struct list *
bucket_of(const struct sw_work *work)
{
	int32_t level = -work->priority;

	return &q.ready[level < 0 ? 0 : level >= BUCKETS ? BUCKETS - 1 : level];
}

/* Points the op at a copy of `size` bytes that lives as long as the work does. */
static const void *
keep(struct sw_work *work, const void *bytes, size_t size)
{
	void *copy = work->inlined;

	if (size > sizeof(work->inlined))
		copy = work->copied = malloc(size);
	if (copy && size)
		memcpy(copy, bytes, size);
	return copy;
}

struct sw_work *
sw_work_new(struct sw_context *ctx, const struct sw_op *op, int32_t priority)
{
	struct sw_work *work = q.free;

	if (work) {
		q.free = work->next;
		q.free_count--;
	} else {
		work = aligned_alloc(64, sw_round_up(sizeof(*work), 64));
		if (!work)
			return NULL;
	}
	memset(work, 0, offsetof(struct sw_work, inlined));
	work->op = *op;
	work->op.source = NULL;
	work->ctx = ctx;
	work->references = 1;
	work->pending = 1;
	work->priority = priority;
	work->dependents = work->inline_dependents;
	work->dependent_room = 2;
	if (op->kind == SW_OP_KERNEL) {
		work->op.kernel.params = keep(work, op->kernel.params, op->kernel.param_bytes);
		if (op->kernel.priority != SW_PRIORITY_STREAM)
			work->priority = op->kernel.priority;
		if (!work->op.kernel.params)
			goto fail;
	} else if (op->kind == SW_OP_COPY && op->copy_staged) {
		work->op.copy.src = keep(work, op->copy.src, op->copy.width);
		if (!work->op.copy.src)
			goto fail;
	} else if (op->kind == SW_OP_MEMOP) {
		work->op.memop.ops = keep(work, op->memop.ops, op->memop.count * sizeof(*op->memop.ops));
		if (!work->op.memop.ops)
			goto fail;
	} else if (op->kind == SW_OP_RECORD || op->kind == SW_OP_WAIT) {
		op->event.event->references++;
	}
	return work;
fail:
	work->next = q.free;
	q.free = work;
	q.free_count++;
	return NULL;
}

void
sw_work_unref(struct sw_work *work)
{
	if (--work->references)
		return;
	if (work->op.kind == SW_OP_RECORD || work->op.kind == SW_OP_WAIT)
		sw_event_unref(work->op.event.event);
	free(work->copied);
	if (work->dependents != work->inline_dependents)
		free(work->dependents);
	if (q.free_count >= 4096) {
		free(work);
		return;
	}
	work->next = q.free;
	q.free = work;
	q.free_count++;
}

void
sw_work_depend(struct sw_work *work, struct sw_work *on)
{
	if (!on || on->state == SW_WORK_DONE)
		return;
	if (on->dependent_count == on->dependent_room) {
		uint32_t room = on->dependent_room * 4;
		struct sw_work **more = malloc(room * sizeof(struct sw_work *));
		if (!more) {
			/* Out of memory for a pointer: order must hold all the same, so wait for it here. */
			while (on->state != SW_WORK_DONE) {
				on->awaited = true;
				pthread_cond_wait(&done_cond, &queue_lock);
			}
			return;
		}
		memcpy(more, on->dependents, on->dependent_count * sizeof(struct sw_work *));
		if (on->dependents != on->inline_dependents)
			free(on->dependents);
		on->dependents = more;
		on->dependent_room = room;
	}
	on->dependents[on->dependent_count++] = work;
	work->pending++;
}

/* ---- waking -------------------------------------------------------------------------------------------------------- */

static void *worker_main(void *arg);
static void *host_main(void *arg);

static bool
start_thread(pthread_t *thread, void *(*entry)(void *), const char *name)
{
	pthread_attr_t attributes;
	sigset_t all, old;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 8u << 20);
	sigfillset(&all);
	/* Faults of kernels are this thread's own; all other signals belong to the program's threads. */
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int error = pthread_create(thread, &attributes, entry, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attributes);
	if (error) {
		fw_error("device", "cannot start a thread: %s", strerror(error));
		return false;
	}
	pthread_setname_np(*thread, name);
	return true;
}

/* Sees to it that `count` workers look at the ready lists soon. */
static void
wake_workers(uint32_t count)
{
	__atomic_fetch_add(&q.pushes, 1, __ATOMIC_RELEASE);
	if (count <= q.spinning)
		return;
	count -= q.spinning;
	while (count && q.signalled < q.sleeping) {
		q.signalled++;
		count--;
		pthread_cond_signal(&work_cond);
	}
	while (count-- && q.started < sw_device.threads && q.started < MAX_WORKERS && !q.stopping) {
		if (!start_thread(&q.threads[q.started], worker_main, "fw-worker"))
			break;
		q.started++;
	}
}

/* ---- making ready and finishing -------------------------------------------------------------------------------------- */

static bool
has_failed(const struct sw_work *work)
{
	return __atomic_load_n(&work->ctx->error, __ATOMIC_ACQUIRE) != CUDA_SUCCESS;
}

/* Done by whoever makes it ready, under the lock. */
static bool
is_instant(const struct sw_work *work)
{
	switch (work->op.kind) {
	case SW_OP_EMPTY:
	case SW_OP_WAIT:
	case SW_OP_RECORD:
	case SW_OP_ALLOC:
	case SW_OP_FREE:
		return true;
	case SW_OP_KERNEL:
	case SW_OP_COPY:
	case SW_OP_FILL:
	case SW_OP_HOST:
	case SW_OP_MEMOP:
		/* After a fault nothing runs any more; it only completes. */
		return has_failed(work);
	default:
		return false;
	}
}

static void
make_ready(struct sw_work *work)
{
	__atomic_store_n(&work->state, SW_WORK_READY, __ATOMIC_RELAXED);
	if (work->op.kind == SW_OP_HOST || work->op.kind == SW_OP_CALLBACK) {
		if (!q.host_started) {
			pthread_t thread;
			q.host_started = start_thread(&thread, host_main, "fw-host");
			if (q.host_started)
				pthread_detach(thread);
		}
		if (q.host_started) {
			list_append(&q.host, work);
			pthread_cond_signal(&host_cond);
			return;
		} /* else a worker runs it */
	}
	if (sw_device.threads > 1)
		work->chunks = (uint32_t)((sw_op_shared_bytes(&work->op) + CHUNK - 1) / CHUNK);
	list_append(bucket_of(work), work);
	__atomic_fetch_add(&q.ready_count, 1, __ATOMIC_RELEASE);
	wake_workers(work->chunks ? work->chunks : 1);
}

/* One finished item: tells events, pools and owners, and collects what became instant. */
static void
finish_one(struct sw_work *work, struct sw_work **instant)
{
	if (work->op.kind == SW_OP_RECORD)
		sw_event_complete(work);
	else if (work->op.kind == SW_OP_FREE)
		sw_pool_free_done(&work->op);
	__atomic_store_n(&work->state, SW_WORK_DONE, __ATOMIC_RELEASE);
	__atomic_store_n(&work->ctx->unfinished, work->ctx->unfinished - 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < work->dependent_count; i++) {
		struct sw_work *next = work->dependents[i];
		if (--next->pending)
			continue;
		if (is_instant(next)) {
			next->next = *instant;
			*instant = next;
		} else {
			make_ready(next);
		}
	}
	if (work->done)
		work->done(work, work->done_user);
	q.wake_waiters |= work->awaited || (work->ctx->drainers && !work->ctx->unfinished);
	sw_work_unref(work);
}

static void
finish(struct sw_work *work)
{
	struct sw_work *instant = NULL;

	finish_one(work, &instant);
	while (instant) {
		struct sw_work *next = instant;
		instant = next->next;
		finish_one(next, &instant);
	}
	if (q.wake_waiters) {
		q.wake_waiters = false;
		pthread_cond_broadcast(&done_cond);
	}
}

void
sw_work_start(struct sw_work *work)
{
	__atomic_store_n(&work->ctx->unfinished, work->ctx->unfinished + 1, __ATOMIC_RELEASE);
	work->references++; /* the queue's, until it is done */
	if (--work->pending)
		return;
	if (is_instant(work))
		finish(work);
	else
		make_ready(work);
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

/* Does it stay in its list while several workers are at it? */
static bool
is_shared(const struct sw_work *work)
{
	return work->op.kind == SW_OP_KERNEL || work->chunks;
}

/* Can one more worker usefully join? */
static bool
is_joinable(const struct sw_work *work)
{
	if (work->starting || work->finished)
		return false;
	if (work->chunks)
		return __atomic_load_n(&work->sequence, __ATOMIC_RELAXED) < work->chunks;
	return !work->grid || work->workers < sx_grid_parallelism(work->grid);
}

static void
join(struct sw_work *work)
{
	work->workers++;
	if (work->op.kind == SW_OP_KERNEL && !work->grid)
		work->starting = true;
}

/* The next thing to do, highest priority first, kernels of one priority in turn. */
static struct sw_work *
pick(void)
{
	for (int level = BUCKETS - 1; level >= 0; level--) {
		struct list *list = &q.ready[level];
		for (struct sw_work *work = list->first; work; work = work->next) {
			if (!is_shared(work)) {
				list_remove(list, work);
				__atomic_fetch_sub(&q.ready_count, 1, __ATOMIC_RELEASE);
				return work;
			}
			if (!is_joinable(work))
				continue;
			join(work);
			if (list->last != work) {
				list_remove(list, work);
				list_append(list, work);
			}
			return work;
		}
	}
	return NULL;
}

static bool
anything_ready(void)
{
	for (int level = 0; level < BUCKETS; level++)
		for (struct sw_work *work = q.ready[level].first; work; work = work->next)
			if (!is_shared(work) || is_joinable(work))
				return true;
	return false;
}

/* Without the lock. NULL: the kernel could not be started; the context has the error. */
static struct sx_grid *
start_grid(struct sw_work *work, uint64_t id)
{
	const struct sw_kernel *kernel = &work->op.kernel;
	uint32_t threads = kernel->block[0] * kernel->block[1] * kernel->block[2];
	struct sx_launch launch = {
		.func = kernel->function->func,
		.grid = { kernel->grid[0], kernel->grid[1], kernel->grid[2] },
		.block = { kernel->block[0], kernel->block[1], kernel->block[2] },
		.cluster = { kernel->cluster[0], kernel->cluster[1], kernel->cluster[2] },
		.dynamic_shared = kernel->dynamic_shared,
		.params = kernel->params,
		.param_bytes = kernel->param_bytes,
		.cooperative = kernel->cooperative,
		.grid_id = id,
		.stack_bytes = (uint32_t)__atomic_load_n(&work->ctx->stack_bytes, __ATOMIC_RELAXED),
		.max_resident = sw_occupancy_device(kernel->function, threads, kernel->dynamic_shared),
	};
	if (launch.max_resident == 0)
		launch.max_resident = 1;
	struct sx_grid *grid = sx_grid_new(&launch);
	if (!grid)
		sw_context_fault(work->ctx, CUDA_ERROR_LAUNCH_FAILED, "out of memory for a kernel's parameters and blocks");
	return grid;
}

/* Without the lock: the last worker has left the grid. */
static void
end_grid(struct sw_work *work)
{
	const struct sx_fault *fault = sx_grid_fault(work->grid);

	if (fault)
		sw_context_fault(work->ctx, fault->code, fault->text);
	sx_grid_free(work->grid);
	work->grid = NULL;
}

/* Runs blocks of a kernel. Called and left with the lock held. */
static void
run_kernel(struct sw_work *work, struct sx_worker *worker)
{
	enum sx_progress progress = SX_FINISHED;

	if (work->starting) {
		uint64_t id = ++q.grids;
		__atomic_store_n(&work->state, SW_WORK_RUNNING, __ATOMIC_RELAXED);
		sw_queue_unlock();
		struct sx_grid *grid = start_grid(work, id);
		uint32_t width = grid ? sx_grid_parallelism(grid) : 0;
		sw_queue_lock();
		work->grid = grid;
		work->starting = grid == NULL; /* without a grid nobody may join; it ends below */
		if (width > 1)
			wake_workers(width - 1);
	}
	q.inside++;
	sw_queue_unlock();
	if (work->grid)
		progress = sx_grid_work(work->grid, worker, SLICE_US);
	sw_queue_lock();
	q.inside--;
	work->workers--;
	if (progress == SX_FINISHED) {
		work->finished = true;
		list_remove(bucket_of(work), work);
		__atomic_fetch_sub(&q.ready_count, 1, __ATOMIC_RELEASE);
	}
	if (!work->finished || work->workers)
		return;
	sw_queue_unlock();
	if (work->grid)
		end_grid(work);
	sw_queue_lock();
	finish(work);
}

/* Takes pieces of a large copy or fill until none is left. Called and left with the lock held. */
static void
run_chunks(struct sw_work *work)
{
	uint64_t bytes = sw_op_shared_bytes(&work->op), chunk;

	sw_queue_unlock();
	bool failed = has_failed(work);
	while ((chunk = __atomic_fetch_add(&work->sequence, 1, __ATOMIC_RELAXED)) < work->chunks) {
		uint64_t offset = chunk * CHUNK;
		if (!failed)
			sw_op_run_piece(&work->op, offset, bytes - offset < CHUNK ? bytes - offset : CHUNK);
	}
	sw_queue_lock();
	if (!work->finished) {
		work->finished = true;
		list_remove(bucket_of(work), work);
		__atomic_fetch_sub(&q.ready_count, 1, __ATOMIC_RELEASE);
	}
	if (--work->workers == 0)
		finish(work);
}

static bool
wait_satisfied(const CUstreamBatchMemOpParams *op)
{
	bool wide = op->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64;
	uint64_t want = wide ? op->waitValue.value64 : op->waitValue.value;
	uint64_t have = wide ? __atomic_load_n((uint64_t *)(uintptr_t)op->waitValue.address, __ATOMIC_ACQUIRE)
	                     : __atomic_load_n((uint32_t *)(uintptr_t)op->waitValue.address, __ATOMIC_ACQUIRE);

	switch (op->waitValue.flags & 0xf) {
	case CU_STREAM_WAIT_VALUE_GEQ:
		return wide ? (int64_t)(have - want) >= 0 : (int32_t)((uint32_t)have - (uint32_t)want) >= 0;
	case CU_STREAM_WAIT_VALUE_EQ:
		return have == want;
	case CU_STREAM_WAIT_VALUE_AND:
		return (have & want) != 0;
	default: /* NOR */
		return (wide ? ~(have | want) : (uint32_t)~(have | want)) != 0;
	}
}

/* Goes through a batch as far as it gets; true when it is through. */
static bool
run_memops(struct sw_work *work)
{
	for (; work->sequence < work->op.memop.count; work->sequence++) {
		const CUstreamBatchMemOpParams *op = &work->op.memop.ops[work->sequence];
		switch (op->operation) {
		case CU_STREAM_MEM_OP_WAIT_VALUE_32:
		case CU_STREAM_MEM_OP_WAIT_VALUE_64:
			if (!has_failed(work) && !wait_satisfied(op))
				return false;
			break;
		case CU_STREAM_MEM_OP_WRITE_VALUE_32:
			__atomic_store_n((uint32_t *)(uintptr_t)op->writeValue.address, op->writeValue.value, __ATOMIC_RELEASE);
			break;
		case CU_STREAM_MEM_OP_WRITE_VALUE_64:
			__atomic_store_n((uint64_t *)(uintptr_t)op->writeValue.address, op->writeValue.value64, __ATOMIC_RELEASE);
			break;
		default:
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		}
	}
	return true;
}

/* Looks at the memory operations that wait for a value. Lock held. True if one went on. */
static bool
poll_memops(void)
{
	bool moved = false;

	for (struct sw_work *work = q.polls.first, *next; work; work = next) {
		next = work->next;
		if (run_memops(work)) {
			list_remove(&q.polls, work);
			finish(work);
			moved = true;
			next = q.polls.first; /* finish() may have changed the list */
		}
	}
	return moved;
}

static void
run_host(struct sw_work *work)
{
	CUresult error = (CUresult)__atomic_load_n(&work->ctx->error, __ATOMIC_ACQUIRE);

	if (work->op.kind == SW_OP_CALLBACK)
		work->op.callback.fn(work->op.callback.stream, error, work->op.callback.user);
	else if (error == CUDA_SUCCESS)
		work->op.host.fn(work->op.host.user);
}

/* Runs one item that a worker took. Called and left with the lock held. */
static void
run(struct sw_work *work, struct sx_worker *worker)
{
	if (anything_ready())
		wake_workers(1);
	if (work->op.kind == SW_OP_KERNEL) {
		run_kernel(work, worker);
		return;
	}
	if (work->chunks) {
		run_chunks(work);
		return;
	}
	__atomic_store_n(&work->state, SW_WORK_RUNNING, __ATOMIC_RELAXED);
	bool failed = has_failed(work);
	if (work->op.kind == SW_OP_MEMOP) {
		if (run_memops(work))
			finish(work);
		else
			list_append(&q.polls, work);
		return;
	}
	sw_queue_unlock();
	if (work->op.kind == SW_OP_COPY && !failed)
		sw_copy_run(&work->op.copy);
	else if (work->op.kind == SW_OP_FILL && !failed)
		sw_fill_run(&work->op.fill);
	else if (work->op.kind == SW_OP_CALL)
		work->op.call.run(work->op.call.user);
	else if (work->op.kind == SW_OP_HOST || work->op.kind == SW_OP_CALLBACK)
		run_host(work);
	sw_queue_lock();
	finish(work);
}

/* Nothing to do: watch for a while without the lock, then sleep. Lock held before and after. */
static void
idle(uint64_t *poll_ns)
{
	uint64_t seen = __atomic_load_n(&q.pushes, __ATOMIC_ACQUIRE);

	q.spinning++;
	sw_queue_unlock();
	uint64_t end = sw_now_ns() + SPIN_NS;
	do {
		for (int i = 0; i < 32; i++)
			cpu_pause();
	} while (__atomic_load_n(&q.pushes, __ATOMIC_ACQUIRE) == seen && sw_now_ns() < end);
	sw_queue_lock();
	q.spinning--;
	if (q.stopping || anything_ready())
		return;
	q.sleeping++;
	if (q.polls.first && !q.polling) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		uint64_t ns = (uint64_t)until.tv_nsec + *poll_ns;
		until.tv_sec += (time_t)(ns / 1000000000u);
		until.tv_nsec = (long)(ns % 1000000000u);
		*poll_ns = *poll_ns * 2 > POLL_NS_MAX ? POLL_NS_MAX : *poll_ns * 2;
		q.polling = true;
		pthread_cond_timedwait(&work_cond, &queue_lock, &until);
		q.polling = false;
	} else {
		pthread_cond_wait(&work_cond, &queue_lock);
	}
	q.sleeping--;
	if (q.signalled)
		q.signalled--;
}

static void *
worker_main(void *arg)
{
	struct sx_worker *worker = sx_worker_new();
	uint64_t poll_ns = POLL_NS_MIN;

	(void)arg;
	if (!worker) {
		fw_error("device", "out of memory for a worker thread");
		return NULL;
	}
	sw_queue_lock();
	while (!q.stopping) {
		if (q.polls.first && poll_memops())
			poll_ns = POLL_NS_MIN;
		struct sw_work *work = pick();
		if (work)
			run(work, worker);
		else
			idle(&poll_ns);
	}
	sw_queue_unlock();
	sx_worker_free(worker);
	return NULL;
}

static void *
host_main(void *arg)
{
	(void)arg;
	on_callback_thread = true;
	sw_queue_lock();
	while (!q.stopping) {
		struct sw_work *work = q.host.first;
		if (!work) {
			pthread_cond_wait(&host_cond, &queue_lock);
			continue;
		}
		list_remove(&q.host, work);
		sw_queue_unlock();
		run_host(work);
		sw_queue_lock();
		finish(work);
	}
	sw_queue_unlock();
	return NULL;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------ */

/* A waiting thread's own memory for blocks, made when it first helps, freed when the thread ends. */
static pthread_key_t helper_key;
static pthread_once_t helper_once = PTHREAD_ONCE_INIT;
static bool helper_key_made;

static void
helper_free(void *worker)
{
	sx_worker_free(worker);
}

static void
helper_key_make(void)
{
	helper_key_made = pthread_key_create(&helper_key, helper_free) == 0;
}

static struct sx_worker *
helper_worker(void)
{
	pthread_once(&helper_once, helper_key_make);
	if (!helper_key_made)
		return NULL;
	struct sx_worker *worker = pthread_getspecific(helper_key);
	if (!worker) {
		worker = sx_worker_new();
		if (worker && pthread_setspecific(helper_key, worker) != 0) {
			sx_worker_free(worker);
			worker = NULL;
		}
	}
	return worker;
}

/*
 * A thread that waits may as well do the work that it waits for: of its stream, or of its whole context if `stream` is NULL.
 * Nothing else, which could keep it longer than it has to wait; and never more threads than the device has. False: nothing to do.
 */
static bool
help(struct sw_context *ctx, const struct sw_stream *stream)
{
	struct sw_work *found = NULL;

	if (on_callback_thread || !__atomic_load_n(&q.ready_count, __ATOMIC_ACQUIRE))
		return false;
	struct sx_worker *worker = helper_worker();
	if (!worker)
		return false;
	sw_queue_lock();
	for (int level = BUCKETS - 1; level >= 0 && !found && q.inside < sw_device.threads && !q.stopping; level--)
		for (struct sw_work *work = q.ready[level].first; work && !found; work = work->next)
			if (work->ctx == ctx && (!stream || work->stream == stream) && is_shared(work) && is_joinable(work))
				found = work;
	if (found) {
		join(found);
		if (found->chunks)
			run_chunks(found);
		else
			run_kernel(found, worker);
	}
	sw_queue_unlock();
	return found != NULL;
}

void
sw_work_wait(struct sw_work *work, bool blocking)
{
	uint64_t end = sw_now_ns() + SPIN_NS;

	while (!blocking && !sw_work_done(work)) {
		if (help(work->ctx, work->stream)) {
			end = sw_now_ns() + SPIN_NS;
			continue;
		}
		for (int i = 0; i < 16 && !sw_work_done(work); i++)
			cpu_pause();
		if (sw_now_ns() > end)
			break;
	}
	sw_queue_lock();
	while (!sw_work_done(work)) {
		work->awaited = true;
		pthread_cond_wait(&done_cond, &queue_lock);
	}
	sw_queue_unlock();
}

void
sw_queue_throttle(struct sw_context *ctx)
{
	uint64_t end = 0;

	while (__atomic_load_n(&ctx->unfinished, __ATOMIC_RELAXED) > MANY && !on_callback_thread) {
		if (end == 0)
			end = sw_now_ns() + THROTTLE_NS;
		if (!help(ctx, NULL))
			usleep(100);
		if (sw_now_ns() > end)
			return; /* what is queued may itself wait for what the caller is about to do */
	}
}

void
sw_queue_drain(struct sw_context *ctx)
{
	uint64_t end = sw_now_ns() + SPIN_NS;

	while (__atomic_load_n(&ctx->unfinished, __ATOMIC_ACQUIRE)) {
		if (help(ctx, NULL)) {
			end = sw_now_ns() + SPIN_NS;
			continue;
		}
		cpu_pause();
		if (sw_now_ns() > end)
			break;
	}
	sw_queue_lock(); /* also when nothing is left: orders us after the work that ended */
	ctx->drainers++;
	while (ctx->unfinished)
		pthread_cond_wait(&done_cond, &queue_lock);
	ctx->drainers--;
	sw_queue_unlock();
}

void
sw_queue_stop(void)
{
	struct timespec until;

	sw_queue_lock();
	q.stopping = true;
	for (int level = 0; level < BUCKETS; level++)
		for (struct sw_work *work = q.ready[level].first; work; work = work->next)
			if (work->op.kind == SW_OP_KERNEL && work->grid)
				sx_grid_cancel(work->grid);
	__atomic_fetch_add(&q.pushes, 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&work_cond);
	pthread_cond_broadcast(&host_cond);
	uint32_t started = q.started;
	sw_queue_unlock();
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2; /* a copy that is still running is not worth more */
	for (uint32_t i = 0; i < started; i++)
		if (!pthread_equal(q.threads[i], pthread_self()))
			pthread_timedjoin_np(q.threads[i], NULL, &until);
}

void
sw_queue_forget(void)
{
	memset(&q, 0, sizeof(q));
	queue_lock = (pthread_mutex_t)PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
	work_cond = done_cond = host_cond = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	on_callback_thread = false;
	if (helper_key_made)
		pthread_setspecific(helper_key, NULL);
}
