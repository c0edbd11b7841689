/*
 * What the files of the software GPU's device side share: the device's facts, contexts, memory, streams and the
 * description of an operation. The interpreter sees none of it, the client sees only struct cuda_ops.
 *
 * Objects that a program holds are handles of base/handles.h; a struct is reached through them only. Locks, in the order in
 * which they may nest: a context's own lock, the queue lock (streams, events, work), a pool's lock, the memory lock.
 */
#ifndef SW_DEVICE_H
#define SW_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <farwarp/cuda.h>

#include "base/file.h"
#include "base/handles.h"
#include "base/log.h"
#include "base/thread.h"
#include "soft/exec/exec.h"
#include "soft/soft.h"
#include "soft/space.h"

enum sw_kind { /* of handles */
	SW_KIND_CONTEXT = 1, SW_KIND_STREAM, SW_KIND_EVENT, SW_KIND_MODULE, SW_KIND_FUNCTION, SW_KIND_LIBRARY, SW_KIND_KERNEL,
	SW_KIND_ARRAY, SW_KIND_MIPMAP, SW_KIND_POOL, SW_KIND_MEMORY, SW_KIND_GRAPH, SW_KIND_GRAPH_NODE, SW_KIND_GRAPH_EXEC,
	SW_KIND_USER_OBJECT, SW_KIND_LINK, SW_KIND_TEXTURE, SW_KIND_SURFACE, SW_KIND_EXTERNAL_MEMORY,
	SW_KIND_EXTERNAL_SEMAPHORE, SW_KIND_ASYNC_NOTE, SW_KIND_COUNT
};

/* ---- device (device.c) -------------------------------------------------------------------------------------------- */

struct sw_limits { /* what a compute capability fixes; public tables of the CUDA programming guide */
	uint32_t cc;
	uint32_t sm_threads, sm_blocks;        /* resident per multiprocessor */
	uint32_t sm_shared;                    /* bytes per multiprocessor */
	uint32_t block_shared_optin;           /* bytes per block at most */
	uint32_t shared_reserved;              /* bytes per block that the system keeps */
	uint32_t shared_unit;                  /* allocation granularity */
	uint32_t cluster_portable, cluster_max; /* blocks; 0: no clusters */
};

struct sw_device {
	struct sw_config config;
	const struct sw_limits *limits;
	uint32_t cc, sm_count, threads;
	uint64_t mem_total;                    /* bytes that programs may allocate */
	uint32_t clock_khz, l2_bytes;
	char name[128];
	CUuuid uuid;
	bool open;
	bool launch_blocking;                  /* CUDA_LAUNCH_BLOCKING=1 */
};
extern struct sw_device sw_device;

#define SW_MAX_THREADS_PER_BLOCK 1024u
#define SW_MAX_REGISTERS 65536u            /* per multiprocessor and per block */
#define SW_SHARED_DEFAULT 49152u           /* per block without opt-in */
#define SW_MAX_PARAM_BYTES 32764u
#define SW_MAX_STACK (512u << 10)          /* bytes of local memory per thread */

/* Is this the ordinal of our one device? */
static inline bool
sw_device_valid(CUdevice dev)
{
	return dev == 0;
}

/* ---- contexts (context.c) ------------------------------------------------------------------------------------------- */

/* Something that dies with its context. Embed it; the newest dies first. */
struct sw_child {
	struct sw_child *next, *previous;
	void (*destroy)(struct sw_child *child); /* must disown (sw_context_disown) and free it; no work of the context runs */
};

struct sw_context {
	CUcontext handle;
	uint64_t id;
	bool primary;
	uint32_t active;          /* atomic; the primary context exists before and after its active times */
	uint32_t error;           /* atomic CUresult: sticky, from the first asynchronous fault on */
	uint32_t flags;           /* atomic; enum CUctx_flags */
	uint32_t retained;        /* primary: retain count; guarded by the device's context lock */
	CUfunc_cache cache_config;
	CUsharedconfig shared_config;
	uint64_t stack_bytes, printf_bytes, heap_bytes, sync_depth, pending_launches, l2_granularity, l2_persisting;
	pthread_mutex_t lock;     /* guards children */
	struct sw_child children; /* ring head */
	struct sw_stream *legacy; /* stream 0; made on activation */
	struct sw_stream *streams;/* all live streams of the context, legacy included; guarded by the queue lock */
	uint64_t unfinished;      /* work items submitted and not done; guarded by the queue lock */
	uint32_t drainers;        /* threads that wait for that; queue lock */
	uint64_t live_captures;   /* streams being captured; guarded by the queue lock; graph.c */
};

/* The calling thread's context and its sticky error. Every call that needs a context begins with SW_CTX(ctx). */
static inline CUresult
sw_context_current(struct sw_context **out)
{
	struct sw_context *ctx = fw_handle_get(fw_thread.ctx, SW_KIND_CONTEXT);

	if (!ctx)
		return fw_thread.ctx ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_CONTEXT;
	if (!__atomic_load_n(&ctx->active, __ATOMIC_ACQUIRE))
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	*out = ctx;
	return (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE);
}
#define SW_CTX(ctx) \
	struct sw_context *ctx = NULL; \
	do { \
		CUresult current_ = sw_context_current(&ctx); \
		if (current_ != CUDA_SUCCESS) \
			return current_; \
	} while (0)

/* A given context, NULL meaning the current one; its sticky error likewise. */
CUresult sw_context_get(CUcontext handle, struct sw_context **out);

void sw_context_adopt(struct sw_context *ctx, struct sw_child *child, void (*destroy)(struct sw_child *child));
void sw_context_disown(struct sw_context *ctx, struct sw_child *child);

/* Waits for all work of the context, flushes device printf, trims pools. Returns the sticky error. */
CUresult sw_context_synchronize(struct sw_context *ctx);

/* The first fault of a context: stays until it is destroyed, and is logged once. */
void sw_context_fault(struct sw_context *ctx, CUresult error, const char *text);

struct sw_context *sw_primary(void); /* active or not */
CUresult sw_context_init(void);
void sw_context_forget(void); /* after fork */

/* ---- memory (space.c, alloc.c, ...) ------------------------------------------------------------------------------ */

enum sw_memory_kind { SW_MEM_DEVICE, SW_MEM_MANAGED, SW_MEM_HOST, SW_MEM_INTERNAL, SW_MEM_VARIABLES, SW_MEM_POOL, SW_MEM_VMM, SW_MEM_IPC,
	SW_MEM_KIND_COUNT };

/* A run of granules that is mapped, shared and released as a whole. */
struct sw_segment {
	uint64_t base, size;      /* multiples of the granule */
	enum sw_memory_kind kind;
	int fd;                   /* memfd that backs it, or -1: anonymous */
	uint64_t fd_offset;
	bool in_file;             /* it lies in the file of sw_managed_file() */
	struct sw_alloc **units;  /* suballocated: the allocation that covers each unit; NULL: one allocation, `whole` */
	struct sw_alloc *whole;
	uint32_t free_units;
	struct sw_segment *next, *previous; /* suballocated segments of a kind */
};

/* What a program got as one piece. Found from any address inside it. */
struct sw_alloc {
	uint64_t address, size;   /* size as asked for; the range that addresses are valid in */
	uint64_t span;            /* bytes that it occupies */
	uint64_t id;              /* CU_POINTER_ATTRIBUTE_BUFFER_ID */
	enum sw_memory_kind kind;
	struct sw_segment *segment;
	struct sw_context *ctx;   /* NULL: of the device (pools, virtual memory) */
	struct sw_alloc *next, **link; /* of its context */
	uint32_t flags;           /* of cuMemHostAlloc or cuMemAllocManaged */
	bool sync_memops;
	struct sw_pool *pool;
	struct sw_advice *advice; /* managed.c */
	void *owner;              /* IPC import, imported pool pointer, array, image of a module: whose it is */
	bool hidden;              /* an array's memory: no pointer query sees it */
};

/* Memory of our own: the variables of modules, and what the interpreter needs. */
static inline bool
sw_is_internal(const struct sw_alloc *alloc)
{
	return alloc->kind == SW_MEM_INTERNAL || alloc->kind == SW_MEM_VARIABLES;
}

/* Reserves the address range and opens the accounting. */
CUresult sw_space_open(uint64_t mem_total, uint64_t base, uint64_t size); /* base 0: anywhere */
void sw_space_forget(void);

/*
 * Allocates. Device, managed and pool memory are counted against the device's total; CUDA_ERROR_OUT_OF_MEMORY when it is used up.
 * `shared`: in a segment of its own that is backed by a memfd.
 */
CUresult sw_alloc_new(struct sw_context *ctx, uint64_t size, uint64_t align, enum sw_memory_kind kind, bool shared,
                      struct sw_alloc **out);
/* The same with memory of a file (granules, at an offset of whole granules); the descriptor is duplicated. */
CUresult sw_alloc_new_file(struct sw_context *ctx, uint64_t size, enum sw_memory_kind kind, int fd, uint64_t offset,
                           struct sw_alloc **out);
void sw_alloc_free(struct sw_alloc *alloc); /* no work may use it any more */
/* The allocation that contains the address, or NULL. What it points to lives until the program frees it. */
struct sw_alloc *sw_alloc_find(uint64_t address);
/* One that the context has of some pool, or NULL. */
struct sw_alloc *sw_alloc_of_pool(const struct sw_context *ctx);
/* Frees all that a context still has; not what is of pools. */
void sw_alloc_free_context(struct sw_context *ctx);
/* Makes the segment of an allocation shareable without moving it (its context must be idle). 0 or -1. */
int sw_alloc_share(struct sw_alloc *alloc);
void sw_alloc_forget(void);
void sw_space_usage(uint64_t *used, uint64_t *total);
/* Counts memory that is not an sw_alloc (cuMemCreate, pools' reserves). False: would exceed the total. */
bool sw_space_charge(uint64_t bytes);
void sw_space_uncharge(uint64_t bytes);

/* Address ranges without memory (multiples of the granule); 0 when there is none. `hint` may be 0. */
uint64_t sw_range_reserve(uint64_t size, uint64_t align, uint64_t hint);
void sw_range_release(uint64_t base, uint64_t size);
/* Maps memory into a reserved range and sets what kernels may do with it (enum sw_access bits). fd -1: anonymous. 0 or -1. */
int sw_range_map(uint64_t base, uint64_t size, int fd, uint64_t offset, unsigned access);
int sw_range_access(uint64_t base, uint64_t size, unsigned access);
void sw_range_unmap(uint64_t base, uint64_t size);
static inline bool
sw_in_space(uint64_t address)
{
	return address - sw_space.base < sw_space.size;
}

/* What a pointer is, for copies and queries. */
enum sw_place { SW_PLACE_PAGEABLE, SW_PLACE_HOST, SW_PLACE_DEVICE, SW_PLACE_MANAGED, SW_PLACE_BAD };
/* Is [address, address + size) one valid piece of memory, and where? BAD: inside the device's range but not valid. */
enum sw_place sw_place_of(uint64_t address, uint64_t size);
/* Whether an address with SW_FAR (soft.h) can be memory of another process (copy.c). */
bool sw_far_valid(uint64_t address, uint64_t size);

/* Registered host memory (host.c). */
struct sw_registered {
	uint64_t address, size; /* as registered */
	uint32_t flags;
	struct sw_context *ctx;
	uint64_t id;
	bool read_only;
};
bool sw_registered_find(uint64_t address, struct sw_registered *out);
void sw_registered_drop_context(struct sw_context *ctx);
void sw_registered_forget(void);

void sw_advice_free(struct sw_advice *advice);

/* VMM mappings as pointer queries see them (vmm.c). */
struct sw_mapping {
	uint64_t range_base, range_size; /* the reservation */
	uint64_t base, size;             /* the mapping; size 0: nothing is mapped there */
	unsigned access;                 /* enum sw_access bits */
	CUmemAllocationHandleType handle_types;
	uint64_t id;                     /* of the memory, 0: none */
	bool host;
};
bool sw_mapping_find(uint64_t address, struct sw_mapping *out);
bool sw_mapping_covers(uint64_t address, uint64_t size);
void sw_vmm_forget(void);

struct sw_array { /* CUarray (array.c); linear in memory: row after row, slice after slice */
	struct sw_child child;
	CUarray handle;
	struct sw_context *ctx;
	CUDA_ARRAY3D_DESCRIPTOR desc;
	uint64_t address;
	size_t pitch, slice;       /* bytes from row to row, slice (or layer) to slice */
	size_t rows, slices;       /* at least 1 */
	uint32_t element;          /* bytes */
	struct sw_alloc *alloc;    /* NULL: a level of a mipmapped array */
	struct sw_mipmap *mipmap;
	uint32_t level;
};
uint32_t sw_format_bytes(CUarray_format format); /* of one channel; 0: not one that we serve */
/* Arrays over memory that exists already; used by array.c and for levels. */

/* ---- operations (queue.c, stream.c) ---------------------------------------------------------------------------------- */

struct sw_copy { /* a box of bytes, resolved to addresses */
	const void *src;
	void *dst;
	size_t src_pitch, src_slice, dst_pitch, dst_slice; /* bytes between rows and between slices */
	size_t width, height, depth;                       /* bytes, rows, slices */
};

struct sw_fill {
	void *dst;
	size_t pitch, width, height; /* pitch in bytes, width in elements */
	uint32_t value, element;     /* element: 1, 2 or 4 bytes */
};

struct sw_kernel {
	struct sw_function *function;
	uint32_t grid[3], block[3], cluster[3];
	uint32_t dynamic_shared;
	bool cooperative;
	int32_t priority;            /* of the launch; SW_PRIORITY_STREAM: that of the stream */
	const void *params;          /* param_bytes of them; copied by sw_submit */
	uint32_t param_bytes;
};
#define SW_PRIORITY_STREAM INT32_MIN
#define SW_PRIORITY_GREATEST (-5)

enum sw_op_kind {
	SW_OP_EMPTY,
	SW_OP_KERNEL,
	SW_OP_COPY,
	SW_OP_FILL,
	SW_OP_HOST,     /* cuLaunchHostFunc: not called when the context has failed */
	SW_OP_CALLBACK, /* cuStreamAddCallback: called with the context's error */
	SW_OP_RECORD,   /* event record */
	SW_OP_WAIT,     /* event wait: only a dependency */
	SW_OP_MEMOP,    /* cuStreamBatchMemOp and its single forms */
	SW_OP_ALLOC,    /* stream-ordered allocation: the address is known when it is submitted */
	SW_OP_FREE,     /* stream-ordered free */
	SW_OP_CALL,     /* runs `call` on a worker thread; for graph.c and others */
};

/* One operation, complete in itself: what a stream runs, what capture records and a graph replays. */
struct sw_op {
	enum sw_op_kind kind;
	union {
		struct sw_kernel kernel;
		struct sw_copy copy;
		struct sw_fill fill;
		struct { CUhostFn fn; void *user; } host;
		struct { CUstreamCallback fn; void *user; CUstream stream; } callback;
		struct { struct sw_event *event; uint32_t flags; uint64_t *mark, number; } event; /* RECORD, WAIT; mark: NULL or soft.h */
		struct { const CUstreamBatchMemOpParams *ops; uint32_t count; } memop; /* copied by sw_submit */
		struct { struct sw_pool *pool; uint64_t address, size, id; } memory; /* id: of the free, pool.c's */
		struct { void (*run)(void *user); void *user; } call;
	};
	bool copy_staged;   /* COPY of one row: the source is read now, into the work item */
	const void *source; /* for capture: the API's own description, e.g. CUDA_MEMCPY3D of a COPY; NULL if there is none */
};

#define SW_OP_INLINE 256 /* bytes of parameters kept in the work item itself */

enum { SW_WORK_WAITING, SW_WORK_READY, SW_WORK_RUNNING, SW_WORK_DONE };

/* An operation on its way. Everything but `state` is guarded by the queue lock until it runs. */
struct sw_work {
	struct sw_op op;
	struct sw_context *ctx;
	struct sw_stream *stream;     /* NULL: inside a graph */
	uint32_t state;               /* atomic */
	uint32_t references;
	uint32_t pending;             /* unfinished predecessors, plus one until started */
	uint32_t dependent_count, dependent_room;
	struct sw_work **dependents, *inline_dependents[2];
	struct sw_work *next, *previous; /* in a ready list, in the free list */
	int32_t priority;
	struct sx_grid *grid;
	uint32_t workers;             /* threads inside sx_grid_work */
	uint32_t chunks;              /* of a large COPY or FILL that several workers share; `sequence` counts those taken (atomic) */
	bool starting, finished, listed, awaited;
	uint64_t sequence;            /* of the RECORD, for events */
	void *copied;                 /* parameters that did not fit in `inlined` */
	void (*done)(struct sw_work *work, void *user); /* under the queue lock, after the state is DONE */
	void *done_user;
	_Alignas(16) uint8_t inlined[SW_OP_INLINE];
};

void sw_queue_lock(void);
void sw_queue_unlock(void);
/* A work item with one reference; parameters are copied. NULL when out of memory. Lock held. */
struct sw_work *sw_work_new(struct sw_context *ctx, const struct sw_op *op, int32_t priority);
void sw_work_depend(struct sw_work *work, struct sw_work *on); /* lock held; before sw_work_start */
void sw_work_start(struct sw_work *work);                      /* lock held; keeps the caller's reference */
void sw_work_unref(struct sw_work *work);                      /* lock held */
static inline void
sw_work_ref(struct sw_work *work)
{
	work->references++;
}
static inline bool
sw_work_done(const struct sw_work *work)
{
	return __atomic_load_n(&work->state, __ATOMIC_ACQUIRE) == SW_WORK_DONE;
}
/* Waits without the lock held; the caller has a reference. `blocking`: do not spin. */
void sw_work_wait(struct sw_work *work, bool blocking);
/* Holds up a caller that submits much faster than work gets done; for a short time only. */
void sw_queue_throttle(struct sw_context *ctx);
/* Waits until the context has no unfinished work. */
void sw_queue_drain(struct sw_context *ctx);
void sw_queue_stop(void);   /* process exit: cancels grids and ends the workers */
void sw_queue_forget(void); /* after fork */
bool sw_queue_on_callback_thread(void); /* inside a host function or stream callback */
uint32_t sw_queue_threads(void); /* worker threads started so far */
bool sw_queue_idle(void);        /* no kernel is running or ready */

struct sw_stream {
	CUstream handle;           /* 0x1 for the legacy stream, 0x2 for per-thread ones */
	uint64_t id;
	struct sw_context *ctx;
	uint32_t flags;            /* CU_STREAM_NON_BLOCKING */
	int32_t priority;
	struct sw_work *last;      /* the newest work, may be done; guarded by the queue lock */
	struct sw_stream *next, *previous; /* of the context */
	CUstreamAttrValue attributes[CU_LAUNCH_ATTRIBUTE_MAX];
	uint32_t attributes_set;   /* bit by attribute */
	struct sw_capture *capture; /* graph.c: being captured into; guarded by the queue lock */
};

struct sw_event {
	struct sw_child child;
	CUevent handle;
	struct sw_context *ctx;
	uint32_t flags;
	uint32_t references;       /* queue lock: the handle and work in flight */
	bool destroyed;
	struct sw_work *work;      /* its newest record, NULL if never recorded; queue lock */
	uint64_t recorded, finished; /* sequence numbers: newest record asked for, newest that completed */
	uint64_t time_ns;          /* when the newest completed record ran */
	struct sw_capture *capture; /* graph.c: recorded while capturing; queue lock */
	void *capture_node;
	struct sw_shared_event *shared; /* ipc.c: CU_EVENT_INTERPROCESS */
};

/* The stream that a handle means for this thread: NULL, legacy, per-thread or one's own. CUDA_ERROR_INVALID_HANDLE. */
CUresult sw_stream_get(struct sw_context *ctx, CUstream handle, struct sw_stream **out);
struct sw_event *sw_event_get(CUevent handle);
/* `shared`: of another process, or NULL. */
CUresult sw_event_new(struct sw_context *ctx, uint32_t flags, struct sw_shared_event *shared, CUevent *out);
/*
 * Submits an operation to a stream: the one entrance of all work. Order with respect to the legacy stream is kept. While the stream
 * is being captured, the operation goes to sw_capture_op instead and nothing runs.
 */
CUresult sw_submit(struct sw_stream *stream, const struct sw_op *op);
/* The same, and waits until it is done (pageable copies). Refused while capturing. Returns the sticky error. */
CUresult sw_submit_wait(struct sw_stream *stream, const struct sw_op *op);
/* Submits an item that all streams of the context take part in: it waits for all of them and they wait for it. */
CUresult sw_submit_all(struct sw_context *ctx, const struct sw_op *op);
/* Nothing is unfinished that a new operation of this stream would have to wait for: the caller may act at once. */
bool sw_stream_idle(struct sw_stream *stream);
/* Makes a work item wait for what a new operation of the stream waits for. Queue lock held. */
void sw_stream_order(struct sw_stream *stream, struct sw_work *work);
CUresult sw_stream_wait(struct sw_stream *stream);
/* Runs a COPY or FILL on the calling thread. */
void sw_copy_run(const struct sw_copy *copy);
void sw_fill_run(const struct sw_fill *fill);
/* The bytes of a copy or fill that is one row when seen as such, in pieces; 0 if it is not, or too small to be worth it. */
uint64_t sw_op_shared_bytes(const struct sw_op *op);
void sw_op_run_piece(const struct sw_op *op, uint64_t offset, uint64_t bytes);
#define SW_SHARE_BYTES ((uint64_t)8 << 20)
/* Checks a box completely and resolves it to addresses; an empty one has width 0. */
CUresult sw_copy_from_api(const CUDA_MEMCPY3D *api, struct sw_copy *copy);
CUresult sw_fill_check(const struct sw_fill *fill);
void sw_stream_forget(void);
CUresult sw_stream_open_context(struct sw_context *ctx);  /* makes the legacy stream */
void sw_stream_close_context(struct sw_context *ctx);     /* destroys all streams; no work is left */
void sw_event_unref(struct sw_event *event);              /* queue lock held */
/* The record of an event ran (queue lock held). */
void sw_event_complete(struct sw_work *work);

/* A new memfd that a handle can name to another process, whose name nobody guesses; -1 (ipc.c). */
int sw_ipc_file(void);

/* Events shared between processes (ipc.c). Opening returns 0 or -1; complete is called with the queue lock held. */
int sw_shared_event_open(struct sw_event *event);
uint64_t sw_shared_event_record(struct sw_event *event); /* a new record's number */
void sw_shared_event_target(const struct sw_event *event, CUstreamBatchMemOpParams *wait); /* what a stream must wait for */
void sw_shared_event_close(struct sw_event *event);
void sw_shared_event_complete(struct sw_event *event);
bool sw_shared_event_ready(struct sw_event *event);
void sw_shared_event_wait(struct sw_event *event);

/* graph.c sets these; NULL until then. */
extern CUresult (*sw_capture_op)(struct sw_stream *stream, const struct sw_op *op);
/* Is any capture active that forbids this call (legacy stream use, synchronisation)? CUDA_SUCCESS if it may go on. */
extern CUresult (*sw_capture_check)(struct sw_context *ctx, struct sw_stream *stream);

/* ---- pools (pool.c) --------------------------------------------------------------------------------------------------- */

void sw_pool_free_done(struct sw_op *op);  /* a FREE ran; queue lock held */
void sw_pool_trim_all(void);               /* at synchronisation: gives back what exceeds the release threshold */
uint64_t sw_pool_release_all(void);        /* gives back all that pools hold in reserve; bytes */
CUresult sw_pool_free_now(struct sw_alloc *alloc); /* cuMemFree of pool memory, nothing uses it any more */
void sw_pool_drop_context(struct sw_context *ctx); /* frees what the context has of pools */
void sw_pool_forget(void);
bool sw_pool_handle(struct sw_pool *pool, CUmemoryPool *out);
/* A stream ended or a context was destroyed: frees that wait for it count as done. */
void sw_pool_stream_gone(struct sw_stream *stream);

/* ---- functions (module.c fills them) ---------------------------------------------------------------------------------- */

struct sw_function {
	CUfunction handle;
	struct sw_module *module;
	struct sw_context *ctx;
	struct sx_func *func;
	const struct sx_func_info *info;
	/* Settings; atomic, each for itself: one thread may set them while others launch. */
	uint32_t max_dynamic_shared;  /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES; default 48 KiB less the static part */
	int32_t carveout;             /* -1 default */
	uint32_t cluster[3];          /* required, by attribute or PTX; 0: none */
	bool cluster_must_be_set, nonportable_cluster;
	int32_t cluster_policy;
	CUfunc_cache cache_config;
	bool refused;                 /* atomic; launch.c has said why it cannot run */
	struct sw_old_launch *old;    /* launch.c: state of the API before cuLaunchKernel */
};
/* A CUfunction, or a CUkernel taken as one, for this context. CUDA_ERROR_INVALID_HANDLE, or why its module does not load. */
CUresult sw_function_get(struct sw_context *ctx, CUfunction handle, struct sw_function **out);
void sw_old_launch_free(struct sw_old_launch *old); /* when a function dies */

/*
 * Checks a launch completely and describes it, for streams and graphs. `buffer` receives the parameters, info->param_bytes of them.
 * *event: one that the attributes ask to record behind the kernel, or NULL.
 */
CUresult sw_kernel_from_api(struct sw_context *ctx, CUfunction handle, const CUlaunchConfig *config, void **params, void **extra,
                            struct sw_kernel *kernel, void *buffer, CUevent *event);
struct sw_launch_source { /* sw_op.source of a KERNEL */
	CUfunction function;
	const CUlaunchConfig *config;
};

/* occupancy.c: blocks of this shape that fit on a multiprocessor, 0 when one does not fit. */
uint32_t sw_occupancy(const struct sw_function *function, uint32_t threads, uint64_t dynamic_shared);
/* Blocks of a launch that was checked which may be resident on the device: what was set on the function since does not count. */
uint32_t sw_occupancy_device(const struct sw_function *function, uint32_t threads, uint64_t dynamic_shared);

/* output.c, heap.c */
void sw_output_flush(void);
bool sw_output_waits(void); /* something was printed since */
void sw_output_limit(uint64_t bytes);
void sw_heap_limit(uint64_t bytes);
void sw_heap_reset(void);

static inline uint64_t
sw_round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}
uint64_t sw_now_ns(void);
const struct cuda_ops *sw_ops(void);

#endif
