/*
 * Events. An event points to the newest work item that records it; waiting for the event means waiting for that item.
 */
#include "soft/device/device.h"
#include "soft/device/graph.h"
#include "soft/device/ops.h"
#include "soft/soft.h"

#include <stdlib.h>

/* The mark of the thread's next record. */
static __thread struct {
	uint64_t *at, number;
} next_mark;

void
sw_mark_next_record(uint64_t *at, uint64_t number)
{
	next_mark.at = at;
	next_mark.number = number;
}

struct sw_event *
sw_event_get(CUevent handle)
{
	return fw_handle_get(handle, SW_KIND_EVENT);
}

void
sw_event_unref(struct sw_event *event)
{
	if (--event->references == 0)
		free(event);
}

void
sw_event_complete(struct sw_work *work)
{
	struct sw_event *event = work->op.event.event;

	if (work->sequence <= event->finished)
		return;
	event->finished = work->sequence;
	if (!(event->flags & CU_EVENT_DISABLE_TIMING))
		event->time_ns = sw_now_ns();
	if (event->shared)
		sw_shared_event_complete(event);
	if (work->op.event.mark && !__atomic_load_n(&work->ctx->error, __ATOMIC_ACQUIRE) && !sw_output_waits())
		__atomic_store_n(work->op.event.mark, work->op.event.number, __ATOMIC_RELEASE);
}

/* The handle and the context let go of it; work in flight may keep it. */
static void
event_destroy(struct sw_child *child)
{
	struct sw_event *event = (struct sw_event *)child;

	fw_handle_end(event->handle, SW_KIND_EVENT);
	sw_context_disown(event->ctx, child);
	sw_event_forget_capture(event);
	if (event->shared)
		sw_shared_event_close(event);
	sw_queue_lock();
	event->destroyed = true;
	if (event->work) {
		sw_work_unref(event->work);
		event->work = NULL;
	}
	sw_event_unref(event);
	sw_queue_unlock();
}

CUresult
sw_event_new(struct sw_context *ctx, uint32_t flags, struct sw_shared_event *shared, CUevent *out)
{
	struct sw_event *event = calloc(1, sizeof(*event));

	if (!event)
		return CUDA_ERROR_OUT_OF_MEMORY;
	event->ctx = ctx;
	event->flags = flags;
	event->references = 1;
	event->shared = shared;
	event->handle = fw_handle_new(SW_KIND_EVENT, event);
	if (!event->handle || ((flags & CU_EVENT_INTERPROCESS) && !shared && sw_shared_event_open(event) != 0)) {
		if (event->handle)
			fw_handle_end(event->handle, SW_KIND_EVENT);
		free(event);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	sw_context_adopt(ctx, &event->child, event_destroy);
	*out = event->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuEventCreate(CUevent *phEvent, unsigned Flags)
{
	SW_CTX(ctx);
	if (Flags & ~(unsigned)(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS))
		return CUDA_ERROR_INVALID_VALUE;
	if ((Flags & CU_EVENT_INTERPROCESS) && !(Flags & CU_EVENT_DISABLE_TIMING))
		return CUDA_ERROR_INVALID_VALUE;
	return sw_event_new(ctx, Flags, NULL, phEvent);
}

CUresult
sw_cuEventDestroy_v2(CUevent hEvent)
{
	struct sw_event *event = sw_event_get(hEvent);

	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	event_destroy(&event->child);
	return CUDA_SUCCESS;
}

CUresult
sw_cuEventDestroy(CUevent hEvent)
{
	return sw_cuEventDestroy_v2(hEvent);
}

CUresult
sw_cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned flags)
{
	SW_CTX(ctx);
	struct sw_event *event = sw_event_get(hEvent);
	struct sw_stream *stream = NULL;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_stream_get(ctx, hStream, &stream);
	if (result != CUDA_SUCCESS)
		return result;
	if (stream->ctx != event->ctx)
		return CUDA_ERROR_INVALID_HANDLE;
	struct sw_op op = { .kind = SW_OP_RECORD, .event = { event, flags, next_mark.at, next_mark.number } };
	result = sw_submit(stream, &op);
	if (result == CUDA_SUCCESS && event->capture && !stream->capture)
		sw_event_forget_capture(event); /* recorded anew, outside any capture */
	return result;
}

CUresult
sw_cuEventRecord(CUevent hEvent, CUstream hStream)
{
	return sw_cuEventRecordWithFlags(hEvent, hStream, 0);
}

/* The event's newest record with a reference, NULL if it never was recorded or is done. *captured: inside a capture. */
static struct sw_work *
event_pending(struct sw_event *event, bool *captured)
{
	sw_queue_lock();
	struct sw_work *work = event->work;
	*captured = event->capture != NULL;
	if (work && sw_work_done(work))
		work = NULL;
	if (work)
		sw_work_ref(work);
	sw_queue_unlock();
	return work;
}

static void
release(struct sw_work *work)
{
	sw_queue_lock();
	sw_work_unref(work);
	sw_queue_unlock();
}

CUresult
sw_cuEventQuery(CUevent hEvent)
{
	SW_CTX(ctx);
	struct sw_event *event = sw_event_get(hEvent);
	bool captured = false;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (event->shared && !sw_shared_event_ready(event))
		return CUDA_ERROR_NOT_READY;
	struct sw_work *work = event_pending(event, &captured);
	if (work)
		release(work);
	if (captured)
		return CUDA_ERROR_CAPTURED_EVENT;
	if (work)
		return CUDA_ERROR_NOT_READY;
	return (CUresult)__atomic_load_n(&event->ctx->error, __ATOMIC_ACQUIRE);
}

CUresult
sw_cuEventSynchronize(CUevent hEvent)
{
	SW_CTX(ctx);
	struct sw_event *event = sw_event_get(hEvent);
	bool captured = false;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED;
	if (event->shared)
		sw_shared_event_wait(event);
	struct sw_work *work = event_pending(event, &captured);
	if (captured) {
		if (work)
			release(work);
		return CUDA_ERROR_CAPTURED_EVENT;
	}
	if (work) {
		sw_work_wait(work, (event->flags & CU_EVENT_BLOCKING_SYNC) != 0);
		release(work);
	}
	sw_output_flush();
	return (CUresult)__atomic_load_n(&event->ctx->error, __ATOMIC_ACQUIRE);
}

static CUresult
elapsed(float *milliseconds, CUevent hStart, CUevent hEnd)
{
	SW_CTX(ctx);
	struct sw_event *start = sw_event_get(hStart), *end = sw_event_get(hEnd);
	if (!start || !end)
		return CUDA_ERROR_INVALID_HANDLE;
	if (start->ctx != end->ctx || ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING))
		return CUDA_ERROR_INVALID_HANDLE;
	sw_queue_lock();
	bool recorded = start->recorded && end->recorded;
	bool finished = start->finished == start->recorded && end->finished == end->recorded;
	double difference = ((double)end->time_ns - (double)start->time_ns) * 1e-6;
	sw_queue_unlock();
	if (!recorded)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!finished)
		return CUDA_ERROR_NOT_READY;
	*milliseconds = (float)difference;
	return CUDA_SUCCESS;
}

CUresult
sw_cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	return elapsed(pMilliseconds, hStart, hEnd);
}

CUresult
sw_cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	return elapsed(pMilliseconds, hStart, hEnd);
}
