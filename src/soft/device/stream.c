/*
 * Streams: which work waits for which, host functions, memory operations, stream attributes.
 *
 * A stream is a chain of dependencies between work items. The legacy stream waits for all blocking streams of its context and
 * they wait for it. A per-thread stream is made at a thread's first use of it in a context and ends with the thread.
 */
#include "soft/device/device.h"
#include "soft/device/graph.h"
#include "soft/device/ops.h"

#include <stdlib.h>
#include <string.h>

CUresult (*sw_capture_op)(struct sw_stream *stream, const struct sw_op *op);
CUresult (*sw_capture_check)(struct sw_context *ctx, struct sw_stream *stream);

static uint64_t next_id; /* atomic */

/* The per-thread default streams of one thread, by context. */
struct thread_streams {
	struct thread_streams *next;
	uint64_t context_id;
	CUcontext context;         /* checked before the stream is touched: the context may be gone */
	struct sw_stream *stream;
};
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static bool thread_key_made;
static pthread_mutex_t thread_lock = PTHREAD_MUTEX_INITIALIZER; /* a thread's end against a context's end */

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static struct sw_stream *
stream_new(struct sw_context *ctx, uint32_t flags, int32_t priority)
{
	struct sw_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->id = __atomic_add_fetch(&next_id, 1, __ATOMIC_RELAXED);
	stream->ctx = ctx;
	stream->flags = flags;
	stream->priority = priority > 0 ? 0 : priority < SW_PRIORITY_GREATEST ? SW_PRIORITY_GREATEST : priority;
	sw_queue_lock();
	stream->next = ctx->streams;
	if (stream->next)
		stream->next->previous = stream;
	ctx->streams = stream;
	sw_queue_unlock();
	return stream;
}

/* Takes it out of its context; its work goes on without it. Queue lock held. */
static void
stream_unlink(struct sw_stream *stream)
{
	if (stream->previous)
		stream->previous->next = stream->next;
	else
		stream->ctx->streams = stream->next;
	if (stream->next)
		stream->next->previous = stream->previous;
}

/*
 * A blocking stream that is destroyed with work in flight must still hold back the legacy stream: an empty item on the
 * legacy stream inherits its last one.
 */
static void
stream_bequeath(struct sw_stream *stream)
{
	struct sw_stream *legacy = stream->ctx->legacy;

	if ((stream->flags & CU_STREAM_NON_BLOCKING) || stream == legacy || !legacy || !stream->last ||
	    sw_work_done(stream->last))
		return;
	struct sw_work *join = sw_work_new(stream->ctx, &(struct sw_op){ .kind = SW_OP_EMPTY }, 0);
	if (!join)
		return;
	sw_work_depend(join, stream->last);
	sw_work_depend(join, legacy->last);
	sw_work_start(join);
	if (legacy->last)
		sw_work_unref(legacy->last);
	legacy->last = join;
}

static void
stream_free(struct sw_stream *stream)
{
	sw_queue_lock();
	sw_pool_stream_gone(stream);
	stream_bequeath(stream);
	stream_unlink(stream);
	if (stream->last)
		sw_work_unref(stream->last);
	sw_queue_unlock();
	free(stream);
}

CUresult
sw_stream_open_context(struct sw_context *ctx)
{
	ctx->legacy = stream_new(ctx, 0, 0);
	if (!ctx->legacy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	ctx->legacy->handle = CU_STREAM_LEGACY;
	return CUDA_SUCCESS;
}

void
sw_stream_close_context(struct sw_context *ctx)
{
	pthread_mutex_lock(&thread_lock);
	ctx->legacy = NULL;
	ctx->id = 0; /* threads that end later find that their stream is gone */
	while (ctx->streams) {
		struct sw_stream *stream = ctx->streams;
		sw_capture_drop_stream(stream);
		if ((uintptr_t)stream->handle > 2)
			fw_handle_end(stream->handle, SW_KIND_STREAM);
		stream_free(stream);
	}
	pthread_mutex_unlock(&thread_lock);
}

static void
thread_streams_free(void *list)
{
	for (struct thread_streams *entry = list, *next; entry; entry = next) {
		next = entry->next;
		pthread_mutex_lock(&thread_lock);
		struct sw_context *ctx = fw_handle_get(entry->context, SW_KIND_CONTEXT);
		/* The id tells whether this activation of the context is still the one that owned the stream. */
		if (ctx && __atomic_load_n(&ctx->active, __ATOMIC_ACQUIRE) && ctx->id == entry->context_id)
			stream_free(entry->stream);
		pthread_mutex_unlock(&thread_lock);
		free(entry);
	}
}

static void
thread_key_make(void)
{
	thread_key_made = pthread_key_create(&thread_key, thread_streams_free) == 0;
}

static struct sw_stream *
thread_stream(struct sw_context *ctx)
{
	pthread_once(&thread_once, thread_key_make);
	if (!thread_key_made)
		return NULL;
	struct thread_streams *list = pthread_getspecific(thread_key);
	for (struct thread_streams *entry = list; entry; entry = entry->next)
		if (entry->context_id == ctx->id)
			return entry->stream;
	struct thread_streams *entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	entry->stream = stream_new(ctx, 0, 0);
	if (!entry->stream || pthread_setspecific(thread_key, entry) != 0) {
		free(entry->stream);
		free(entry);
		return NULL;
	}
	entry->stream->handle = CU_STREAM_PER_THREAD;
	entry->context_id = ctx->id;
	entry->context = ctx->handle;
	entry->next = list;
	return entry->stream;
}

void
sw_stream_forget(void)
{
	thread_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	if (thread_key_made)
		pthread_setspecific(thread_key, NULL);
}

CUresult
sw_stream_get(struct sw_context *ctx, CUstream handle, struct sw_stream **out)
{
	if (handle == NULL || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
		bool per_thread = handle == CU_STREAM_PER_THREAD || (!handle && fw_thread.per_thread_stream);
		*out = per_thread ? thread_stream(ctx) : ctx->legacy;
		return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = fw_handle_get(handle, SW_KIND_STREAM);
	if (!*out)
		return CUDA_ERROR_INVALID_HANDLE;
	return (CUresult)__atomic_load_n(&(*out)->ctx->error, __ATOMIC_ACQUIRE);
}

/* The stream of a call, and the context that the call is about: the stream's own. */
#define STREAM(stream, handle) \
	SW_CTX(ctx); \
	struct sw_stream *stream = NULL; \
	do { \
		CUresult found_ = sw_stream_get(ctx, handle, &stream); \
		if (found_ != CUDA_SUCCESS) \
			return found_; \
	} while (0)

/* ---- submission --------------------------------------------------------------------------------------------------------- */

static bool
is_blocking(const struct sw_stream *stream)
{
	return !(stream->flags & CU_STREAM_NON_BLOCKING);
}

void
sw_stream_order(struct sw_stream *stream, struct sw_work *work)
{
	struct sw_context *ctx = stream->ctx;

	sw_work_depend(work, stream->last);
	if (stream == ctx->legacy) {
		for (struct sw_stream *other = ctx->streams; other; other = other->next)
			if (other != stream && is_blocking(other))
				sw_work_depend(work, other->last);
	} else if (is_blocking(stream) && ctx->legacy) {
		sw_work_depend(work, ctx->legacy->last);
	}
}

/* From now on the event means this item. Lock held. */
static void
event_point(struct sw_event *event, struct sw_work *work)
{
	work->sequence = event->shared ? sw_shared_event_record(event) : event->recorded + 1;
	event->recorded = work->sequence;
	if (event->work)
		sw_work_unref(event->work);
	event->work = work;
	sw_work_ref(work);
}

static CUresult
submit(struct sw_stream *stream, const struct sw_op *op, struct sw_work **out)
{
	struct sw_context *ctx = stream->ctx;

	sw_queue_throttle(ctx);
	sw_queue_lock();
	if (stream->capture || (ctx->live_captures && sw_capture_check)) {
		bool captured = stream->capture != NULL;
		sw_queue_unlock();
		if (captured && !out)
			return sw_capture_op(stream, op);
		CUresult allowed = sw_capture_check ? sw_capture_check(ctx, stream) : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
		if (allowed != CUDA_SUCCESS)
			return allowed;
		sw_queue_lock();
	}
	struct sw_work *work = sw_work_new(ctx, op, stream->priority);
	if (!work) {
		sw_queue_unlock();
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	work->stream = stream;
	sw_stream_order(stream, work);
	if (op->kind == SW_OP_WAIT) {
		sw_work_depend(work, op->event.event->work);
	} else if (op->kind == SW_OP_RECORD) {
		event_point(op->event.event, work);
	}
	struct sw_work *before = stream->last;
	stream->last = work; /* takes over our reference */
	if (out) {
		*out = work;
		sw_work_ref(work);
	}
	sw_work_start(work);
	if (before)
		sw_work_unref(before);
	sw_queue_unlock();
	return CUDA_SUCCESS;
}

CUresult
sw_submit(struct sw_stream *stream, const struct sw_op *op)
{
	return submit(stream, op, NULL);
}

CUresult
sw_submit_all(struct sw_context *ctx, const struct sw_op *op)
{
	sw_queue_lock();
	if (ctx->live_captures) {
		sw_queue_unlock();
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	struct sw_work *work = sw_work_new(ctx, op, 0);
	if (!work) {
		sw_queue_unlock();
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (op->kind == SW_OP_WAIT)
		sw_work_depend(work, op->event.event->work);
	else if (op->kind == SW_OP_RECORD)
		event_point(op->event.event, work);
	for (struct sw_stream *stream = ctx->streams; stream; stream = stream->next) {
		sw_work_depend(work, stream->last);
		if (op->kind == SW_OP_RECORD)
			continue; /* nobody needs to wait for a record */
		if (stream->last)
			sw_work_unref(stream->last);
		stream->last = work;
		sw_work_ref(work);
	}
	sw_work_start(work);
	sw_work_unref(work);
	sw_queue_unlock();
	return CUDA_SUCCESS;
}

static bool
waits_blocking(const struct sw_context *ctx)
{
	return (__atomic_load_n(&ctx->flags, __ATOMIC_RELAXED) & CU_CTX_SCHED_BLOCKING_SYNC) != 0;
}

CUresult
sw_submit_wait(struct sw_stream *stream, const struct sw_op *op)
{
	struct sw_work *work = NULL;
	struct sw_context *ctx = stream->ctx;
	CUresult result = submit(stream, op, &work);

	if (result != CUDA_SUCCESS)
		return result;
	sw_work_wait(work, waits_blocking(ctx));
	sw_queue_lock();
	sw_work_unref(work);
	sw_queue_unlock();
	return (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE);
}

static bool
is_done(const struct sw_work *work)
{
	return !work || sw_work_done(work);
}

/* Whether all that the stream's next work would wait for is done. Lock held. */
static bool
has_finished(const struct sw_stream *stream)
{
	const struct sw_context *ctx = stream->ctx;
	bool done = is_done(stream->last);

	if (stream == ctx->legacy) {
		for (const struct sw_stream *other = ctx->streams; other && done; other = other->next)
			if (is_blocking(other))
				done = is_done(other->last);
	} else if (is_blocking(stream)) {
		done = done && is_done(ctx->legacy->last);
	}
	return done;
}

bool
sw_stream_idle(struct sw_stream *stream)
{
	sw_queue_lock();
	bool idle = !stream->capture && !stream->ctx->live_captures && has_finished(stream);
	sw_queue_unlock();
	return idle;
}

CUresult
sw_stream_wait(struct sw_stream *stream)
{
	struct sw_context *ctx = stream->ctx;
	/* The legacy stream's end means the end of all blocking streams: an empty item inherits their order. */
	if (stream == ctx->legacy)
		return sw_stream_idle(stream) ? (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE)
		                              : sw_submit_wait(stream, &(struct sw_op){ .kind = SW_OP_EMPTY });
	sw_queue_lock();
	struct sw_work *work = stream->last;
	if (is_done(work)) {
		sw_queue_unlock();
		return (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE);
	}
	sw_work_ref(work);
	sw_queue_unlock();
	sw_work_wait(work, waits_blocking(ctx));
	sw_queue_lock();
	sw_work_unref(work);
	sw_queue_unlock();
	return (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE);
}

/* ---- calls: creation and facts ---------------------------------------------------------------------------------------- */

CUresult
sw_cuStreamCreateWithPriority(CUstream *phStream, unsigned flags, int priority)
{
	SW_CTX(ctx);
	if (flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_stream *stream = stream_new(ctx, flags, priority);
	if (!stream)
		return CUDA_ERROR_OUT_OF_MEMORY;
	stream->handle = fw_handle_new(SW_KIND_STREAM, stream);
	if (!stream->handle) {
		stream_free(stream);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*phStream = stream->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamCreate(CUstream *phStream, unsigned Flags)
{
	return sw_cuStreamCreateWithPriority(phStream, Flags, 0);
}

CUresult
sw_cuStreamDestroy_v2(CUstream hStream)
{
	SW_CTX(ctx);
	struct sw_stream *stream = fw_handle_get(hStream, SW_KIND_STREAM);
	if (!stream)
		return CUDA_ERROR_INVALID_HANDLE;
	if (sw_capture_check && stream->capture) {
		CUresult allowed = sw_capture_check(ctx, stream);
		if (allowed != CUDA_SUCCESS)
			return allowed;
	}
	if (!fw_handle_end(hStream, SW_KIND_STREAM))
		return CUDA_ERROR_INVALID_HANDLE;
	stream_free(stream);
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamDestroy(CUstream hStream)
{
	return sw_cuStreamDestroy_v2(hStream);
}

CUresult
sw_cuStreamGetPriority(CUstream hStream, int *priority)
{
	STREAM(stream, hStream);
	*priority = stream->priority;
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
	STREAM(stream, hStream);
	*streamId = stream->id;
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamGetFlags(CUstream hStream, unsigned *flags)
{
	STREAM(stream, hStream);
	*flags = stream->flags;
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
	STREAM(stream, hStream);
	*device = 0;
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
	STREAM(stream, hStream);
	*pctx = stream->ctx->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamGetCtx_v2(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)
{
	STREAM(stream, hStream);
	*pCtx = stream->ctx->handle;
	if (pGreenCtx)
		*pGreenCtx = NULL;
	return CUDA_SUCCESS;
}

/* ---- calls: attributes --------------------------------------------------------------------------------------------------- */

static bool
is_stream_attribute(CUstreamAttrID attr)
{
	return attr == CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW || attr == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY ||
	       attr == CU_LAUNCH_ATTRIBUTE_PRIORITY || attr == CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN ||
	       attr == CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP;
}

CUresult
sw_cuStreamGetAttribute(CUstream hStream, CUstreamAttrID attr, CUstreamAttrValue *value)
{
	STREAM(stream, hStream);
	if (!is_stream_attribute(attr))
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_lock();
	*value = stream->attributes[attr];
	if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		value->priority = stream->priority;
	else if (attr == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY && !(stream->attributes_set & 1u << attr))
		value->syncPolicy = CU_SYNC_POLICY_AUTO;
	else if (attr == CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP && !(stream->attributes_set & 1u << attr))
		value->memSyncDomainMap = (CUlaunchMemSyncDomainMap){ 0, 1 };
	sw_queue_unlock();
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamSetAttribute(CUstream hStream, CUstreamAttrID attr, const CUstreamAttrValue *param)
{
	STREAM(stream, hStream);
	if (!param || !is_stream_attribute(attr))
		return CUDA_ERROR_INVALID_VALUE;
	if (attr == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY &&
	    (param->syncPolicy < CU_SYNC_POLICY_AUTO || param->syncPolicy > CU_SYNC_POLICY_BLOCKING_SYNC))
		return CUDA_ERROR_INVALID_VALUE;
	if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY && (param->priority > 0 || param->priority < SW_PRIORITY_GREATEST))
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_lock();
	stream->attributes[attr] = *param;
	stream->attributes_set |= 1u << attr;
	if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		stream->priority = param->priority;
	sw_queue_unlock();
	return CUDA_SUCCESS;
}

CUresult
sw_cuStreamCopyAttributes(CUstream dstStream, CUstream srcStream)
{
	STREAM(to, dstStream);
	struct sw_stream *from = NULL;
	CUresult result = sw_stream_get(ctx, srcStream, &from);
	if (result != CUDA_SUCCESS)
		return result;
	if (from->ctx != to->ctx)
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_lock();
	memcpy(to->attributes, from->attributes, sizeof(to->attributes));
	to->attributes_set = from->attributes_set;
	to->priority = from->priority;
	sw_queue_unlock();
	return CUDA_SUCCESS;
}

/* ---- calls: order --------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuStreamQuery(CUstream hStream)
{
	STREAM(stream, hStream);
	if (sw_capture_check) {
		CUresult allowed = sw_capture_check(ctx, stream);
		if (allowed != CUDA_SUCCESS)
			return allowed;
	}
	sw_queue_lock();
	bool done = has_finished(stream);
	sw_queue_unlock();
	if (!done)
		return CUDA_ERROR_NOT_READY;
	return (CUresult)__atomic_load_n(&stream->ctx->error, __ATOMIC_ACQUIRE);
}

CUresult
sw_cuStreamSynchronize(CUstream hStream)
{
	STREAM(stream, hStream);
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED;
	if (sw_capture_check) {
		CUresult allowed = sw_capture_check(ctx, stream);
		if (allowed != CUDA_SUCCESS)
			return allowed;
	}
	CUresult result = sw_stream_wait(stream);
	sw_output_flush();
	sw_pool_trim_all();
	return result;
}

CUresult
sw_cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned Flags)
{
	STREAM(stream, hStream);
	struct sw_event *event = sw_event_get(hEvent);
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (Flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result;
	if (!(Flags & CU_EVENT_WAIT_EXTERNAL) && sw_capture_wait(stream, event, &result))
		return result;
	struct sw_op op = { .kind = SW_OP_WAIT, .event = { event, Flags } };
	CUstreamBatchMemOpParams shared;
	if (event->shared && !stream->capture) { /* another process may be the one that records it */
		sw_shared_event_target(event, &shared);
		op = (struct sw_op){ .kind = SW_OP_MEMOP, .memop = { &shared, 1 } };
	}
	return sw_submit(stream, &op);
}

CUresult
sw_cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned flags)
{
	STREAM(stream, hStream);
	if (flags || !callback)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_op op = { .kind = SW_OP_CALLBACK, .callback = { callback, userData, hStream } };
	return sw_submit(stream, &op);
}

CUresult
sw_cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
	STREAM(stream, hStream);
	if (!fn)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_op op = { .kind = SW_OP_HOST, .host = { fn, userData } };
	return sw_submit(stream, &op);
}

/* ---- calls: memory operations --------------------------------------------------------------------------------------------- */

static bool
memop_valid(const CUstreamBatchMemOpParams *op)
{
	bool wide = false;

	switch (op->operation) {
	case CU_STREAM_MEM_OP_WAIT_VALUE_64:
		wide = true;
		/* fallthrough */
	case CU_STREAM_MEM_OP_WAIT_VALUE_32:
		if ((op->waitValue.flags & ~(unsigned)CU_STREAM_WAIT_VALUE_FLUSH) > CU_STREAM_WAIT_VALUE_NOR)
			return false;
		break;
	case CU_STREAM_MEM_OP_WRITE_VALUE_64:
		wide = true;
		/* fallthrough */
	case CU_STREAM_MEM_OP_WRITE_VALUE_32:
		if (op->writeValue.flags & ~(unsigned)CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER)
			return false;
		break;
	case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
		return op->flushRemoteWrites.flags == 0;
	case CU_STREAM_MEM_OP_BARRIER:
		return op->memoryBarrier.flags <= CU_STREAM_MEMORY_BARRIER_TYPE_GPU;
	default:
		return false;
	}
	/* Both forms have address and flags in the same places. */
	uint64_t size = wide ? 8 : 4;
	if (!op->waitValue.address || op->waitValue.address % size)
		return false;
	enum sw_place place = sw_place_of(op->waitValue.address, size);
	return place != SW_PLACE_BAD && place != SW_PLACE_PAGEABLE;
}

CUresult
sw_cuStreamBatchMemOp_v2(CUstream stream_handle, unsigned count, CUstreamBatchMemOpParams *paramArray, unsigned flags)
{
	STREAM(stream, stream_handle);
	if (!paramArray || !count || count > 256 || flags)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++)
		if (!memop_valid(&paramArray[i]))
			return CUDA_ERROR_INVALID_VALUE;
	struct sw_op op = { .kind = SW_OP_MEMOP, .memop = { paramArray, count } };
	return sw_submit(stream, &op);
}

static CUresult
single_memop(CUstream stream, CUstreamBatchMemOpType type, CUdeviceptr addr, uint64_t value, unsigned flags)
{
	CUstreamBatchMemOpParams op = { .waitValue = { .operation = type, .address = addr, .value64 = value, .flags = flags } };

	return sw_cuStreamBatchMemOp_v2(stream, 1, &op, 0);
}

#define MEMOP(name, type, operation) \
	CUresult \
	sw_cuStream##name##_v2(CUstream stream, CUdeviceptr addr, type value, unsigned flags) \
	{ \
		return single_memop(stream, CU_STREAM_MEM_OP_##operation, addr, value, flags); \
	} \
	CUresult \
	sw_cuStream##name(CUstream stream, CUdeviceptr addr, type value, unsigned flags) \
	{ \
		return single_memop(stream, CU_STREAM_MEM_OP_##operation, addr, value, flags); \
	}
MEMOP(WriteValue32, uint32_t, WRITE_VALUE_32)
MEMOP(WaitValue32, uint32_t, WAIT_VALUE_32)
MEMOP(WriteValue64, uint64_t, WRITE_VALUE_64)
MEMOP(WaitValue64, uint64_t, WAIT_VALUE_64)

CUresult
sw_cuStreamBatchMemOp(CUstream stream, unsigned count, CUstreamBatchMemOpParams *paramArray, unsigned flags)
{
	return sw_cuStreamBatchMemOp_v2(stream, count, paramArray, flags);
}
