/*
 * Contexts: the primary one, whose handle is the same for the life of the process, and created ones; flags, limits, sticky
 * errors. Which context is current is the client's knowledge (base/thread.h).
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <stdlib.h>
#include <string.h>

#define FLAGS_KNOWN (unsigned)(CU_CTX_FLAGS_MASK)

static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER; /* guards activation and retain counts */
static struct sw_context *primary;
static uint64_t next_id; /* atomic */
static uint32_t active_count; /* atomic */

struct sw_context *
sw_primary(void)
{
	return primary;
}

static void
context_defaults(struct sw_context *ctx)
{
	ctx->id = __atomic_add_fetch(&next_id, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&ctx->error, CUDA_SUCCESS, __ATOMIC_RELEASE);
	ctx->cache_config = CU_FUNC_CACHE_PREFER_NONE;
	ctx->shared_config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
	__atomic_store_n(&ctx->stack_bytes, 1024, __ATOMIC_RELAXED);
	ctx->printf_bytes = 1 << 20;
	ctx->heap_bytes = 8 << 20;
	ctx->sync_depth = 2;
	ctx->pending_launches = 2048;
	ctx->l2_granularity = 64;
	ctx->l2_persisting = 0;
}

static struct sw_context *
context_new(void)
{
	struct sw_context *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return NULL;
	ctx->children.next = ctx->children.previous = &ctx->children;
	pthread_mutex_init(&ctx->lock, NULL);
	context_defaults(ctx);
	ctx->handle = fw_handle_new(SW_KIND_CONTEXT, ctx);
	if (!ctx->handle) {
		free(ctx);
		return NULL;
	}
	return ctx;
}

/* Makes it usable. */
static CUresult
context_activate(struct sw_context *ctx)
{
	CUresult result = sw_stream_open_context(ctx);

	if (result == CUDA_SUCCESS) {
		__atomic_add_fetch(&active_count, 1, __ATOMIC_ACQ_REL);
		__atomic_store_n(&ctx->active, 1, __ATOMIC_RELEASE);
	}
	return result;
}

/* Ends everything in it, after its work is done. The struct stays. */
static void
context_deactivate(struct sw_context *ctx)
{
	sw_queue_drain(ctx);
	sw_output_flush();
	__atomic_store_n(&ctx->active, 0, __ATOMIC_RELEASE);
	while (ctx->children.next != &ctx->children)
		ctx->children.next->destroy(ctx->children.next);
	sw_stream_close_context(ctx);
	sw_pool_drop_context(ctx);
	sw_alloc_free_context(ctx);
	sw_registered_drop_context(ctx);
	/* The kernel heap is the device's: it is emptied when nobody can hold anything in it any more. */
	if (__atomic_sub_fetch(&active_count, 1, __ATOMIC_ACQ_REL) == 0)
		sw_heap_reset();
	context_defaults(ctx);
	if (!__atomic_load_n(&active_count, __ATOMIC_ACQUIRE)) {
		sw_pool_release_all();
		sw_heap_limit(ctx->heap_bytes);
		sw_output_limit(ctx->printf_bytes);
	}
}

CUresult
sw_context_init(void)
{
	primary = context_new();
	if (!primary)
		return CUDA_ERROR_OUT_OF_MEMORY;
	primary->primary = true;
	return CUDA_SUCCESS;
}

void
sw_context_forget(void)
{
	context_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	primary = NULL;
	active_count = 0;
}

CUresult
sw_context_get(CUcontext handle, struct sw_context **out)
{
	if (!handle)
		return sw_context_current(out);
	struct sw_context *ctx = fw_handle_get(handle, SW_KIND_CONTEXT);
	if (!ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!__atomic_load_n(&ctx->active, __ATOMIC_ACQUIRE))
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	*out = ctx;
	return (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE);
}

void
sw_context_adopt(struct sw_context *ctx, struct sw_child *child, void (*destroy)(struct sw_child *child))
{
	child->destroy = destroy;
	pthread_mutex_lock(&ctx->lock);
	child->next = ctx->children.next;
	child->previous = &ctx->children;
	child->next->previous = child;
	ctx->children.next = child;
	pthread_mutex_unlock(&ctx->lock);
}

void
sw_context_disown(struct sw_context *ctx, struct sw_child *child)
{
	pthread_mutex_lock(&ctx->lock);
	child->next->previous = child->previous;
	child->previous->next = child->next;
	pthread_mutex_unlock(&ctx->lock);
}

CUresult
sw_context_synchronize(struct sw_context *ctx)
{
	sw_queue_drain(ctx);
	sw_output_flush();
	sw_pool_trim_all();
	return (CUresult)__atomic_load_n(&ctx->error, __ATOMIC_ACQUIRE);
}

void
sw_context_fault(struct sw_context *ctx, CUresult error, const char *text)
{
	uint32_t none = CUDA_SUCCESS;

	if (__atomic_compare_exchange_n(&ctx->error, &none, (uint32_t)error, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		fw_error("device", "%s (error %d from now on in this context)", text, (int)error);
}

/* ---- the primary context ---------------------------------------------------------------------------------------------- */

CUresult
sw_cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
	CUresult result = CUDA_SUCCESS;

	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&context_lock);
	if (!primary->active)
		result = context_activate(primary);
	if (result == CUDA_SUCCESS) {
		primary->retained++;
		*pctx = primary->handle;
	}
	pthread_mutex_unlock(&context_lock);
	return result;
}

CUresult
sw_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	CUresult result = CUDA_SUCCESS;

	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&context_lock);
	if (!primary->retained)
		result = CUDA_ERROR_INVALID_CONTEXT;
	else if (--primary->retained == 0 && primary->active)
		context_deactivate(primary);
	pthread_mutex_unlock(&context_lock);
	return result;
}

CUresult
sw_cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return sw_cuDevicePrimaryCtxRelease_v2(dev);
}

CUresult
sw_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&context_lock);
	if (primary->active)
		context_deactivate(primary);
	primary->flags = 0; /* what is retained stays so: a reset is not a release */
	pthread_mutex_unlock(&context_lock);
	return CUDA_SUCCESS;
}

CUresult
sw_cuDevicePrimaryCtxReset(CUdevice dev)
{
	return sw_cuDevicePrimaryCtxReset_v2(dev);
}

static bool
flags_valid(unsigned flags)
{
	unsigned schedule = flags & CU_CTX_SCHED_MASK;

	return !(flags & ~FLAGS_KNOWN) && (schedule & (schedule - 1)) == 0;
}

CUresult
sw_cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned flags)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!flags_valid(flags))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&context_lock);
	__atomic_store_n(&primary->flags, flags, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&context_lock);
	return CUDA_SUCCESS;
}

CUresult
sw_cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned flags)
{
	return sw_cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

CUresult
sw_cuDevicePrimaryCtxGetState(CUdevice dev, unsigned *flags, int *active)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&context_lock);
	*flags = primary->flags;
	*active = (int)primary->active;
	pthread_mutex_unlock(&context_lock);
	return CUDA_SUCCESS;
}

/* ---- created contexts ------------------------------------------------------------------------------------------------------- */

static CUresult
context_create(CUcontext *out, unsigned flags, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!flags_valid(flags))
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_context *ctx = context_new();
	if (!ctx)
		return CUDA_ERROR_OUT_OF_MEMORY;
	ctx->flags = flags;
	CUresult result = context_activate(ctx);
	if (result != CUDA_SUCCESS) {
		fw_handle_end(ctx->handle, SW_KIND_CONTEXT);
		pthread_mutex_destroy(&ctx->lock);
		free(ctx);
		return result;
	}
	*out = ctx->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned flags, CUdevice dev)
{
	if (ctxCreateParams && ctxCreateParams->numExecAffinityParams)
		return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
	if (ctxCreateParams && ctxCreateParams->cigParams)
		return CUDA_ERROR_NOT_SUPPORTED;
	return context_create(pctx, flags, dev);
}

CUresult
sw_cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned flags, CUdevice dev)
{
	if (numParams < 0 || (numParams && !paramsArray))
		return CUDA_ERROR_INVALID_VALUE;
	if (numParams)
		return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
	return context_create(pctx, flags, dev);
}

CUresult
sw_cuCtxCreate_v2(CUcontext *pctx, unsigned flags, CUdevice dev)
{
	return context_create(pctx, flags, dev);
}

CUresult
sw_cuCtxCreate(CUcontext *pctx, unsigned flags, CUdevice dev)
{
	return context_create(pctx, flags, dev);
}

CUresult
sw_cuCtxDestroy_v2(CUcontext handle)
{
	struct sw_context *ctx = fw_handle_get(handle, SW_KIND_CONTEXT);

	if (!ctx || ctx->primary)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED;
	/* Whoever ends the handle destroys the context; a second caller gets an error. */
	if (fw_handle_end(handle, SW_KIND_CONTEXT) != ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	context_deactivate(ctx);
	pthread_mutex_destroy(&ctx->lock);
	free(ctx);
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxDestroy(CUcontext ctx)
{
	return sw_cuCtxDestroy_v2(ctx);
}

/* ---- of the current context ---------------------------------------------------------------------------------------------------- */

CUresult
sw_cuCtxGetFlags(unsigned *flags)
{
	SW_CTX(ctx);
	*flags = __atomic_load_n(&ctx->flags, __ATOMIC_RELAXED);
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxSetFlags(unsigned flags)
{
	SW_CTX(ctx);
	if (!flags_valid(flags))
		return CUDA_ERROR_INVALID_VALUE;
	__atomic_store_n(&ctx->flags, flags, __ATOMIC_RELAXED);
	return CUDA_SUCCESS;
}

/* A value below 2^47 is no handle but left over in a register by a caller of the form without argument; see the client's context.c. */
CUresult
sw_cuCtxSynchronize_v2(CUcontext handle)
{
	struct sw_context *ctx = NULL;
	CUresult result = sw_context_get((uintptr_t)handle >> 47 ? handle : NULL, &ctx);

	if (result != CUDA_SUCCESS)
		return result;
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED;
	if (sw_capture_check) {
		result = sw_capture_check(ctx, NULL);
		if (result != CUDA_SUCCESS)
			return result;
	}
	return sw_context_synchronize(ctx);
}

CUresult
sw_cuCtxSynchronize(void)
{
	return sw_cuCtxSynchronize_v2(NULL);
}

CUresult
sw_cuCtxSetLimit(CUlimit limit, size_t value)
{
	SW_CTX(ctx);
	switch (limit) {
	case CU_LIMIT_STACK_SIZE:
		if (value > SW_MAX_STACK)
			return CUDA_ERROR_INVALID_VALUE;
		__atomic_store_n(&ctx->stack_bytes, sw_round_up(value, 16), __ATOMIC_RELAXED);
		return CUDA_SUCCESS;
	case CU_LIMIT_PRINTF_FIFO_SIZE:
		if (value > (size_t)1 << 30)
			return CUDA_ERROR_INVALID_VALUE;
		ctx->printf_bytes = value;
		sw_output_limit(value);
		return CUDA_SUCCESS;
	case CU_LIMIT_MALLOC_HEAP_SIZE:
		if (value > sw_device.mem_total)
			return CUDA_ERROR_INVALID_VALUE;
		ctx->heap_bytes = value;
		sw_heap_limit(value);
		return CUDA_SUCCESS;
	case CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH:
		/* Removed in CUDA 12; devices before 9.0 still take it. */
		if (sw_device.cc >= 90)
			return CUDA_ERROR_UNSUPPORTED_LIMIT;
		ctx->sync_depth = value;
		return CUDA_SUCCESS;
	case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT:
		ctx->pending_launches = value;
		return CUDA_SUCCESS;
	case CU_LIMIT_MAX_L2_FETCH_GRANULARITY:
		if (value > 128)
			return CUDA_ERROR_INVALID_VALUE;
		ctx->l2_granularity = value; /* a hint */
		return CUDA_SUCCESS;
	case CU_LIMIT_PERSISTING_L2_CACHE_SIZE:
		return value ? CUDA_ERROR_UNSUPPORTED_LIMIT : CUDA_SUCCESS;
	default:
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	}
}

CUresult
sw_cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
	SW_CTX(ctx);
	switch (limit) {
	case CU_LIMIT_STACK_SIZE: *pvalue = __atomic_load_n(&ctx->stack_bytes, __ATOMIC_RELAXED); return CUDA_SUCCESS;
	case CU_LIMIT_PRINTF_FIFO_SIZE: *pvalue = ctx->printf_bytes; return CUDA_SUCCESS;
	case CU_LIMIT_MALLOC_HEAP_SIZE: *pvalue = ctx->heap_bytes; return CUDA_SUCCESS;
	case CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH:
		if (sw_device.cc >= 90)
			return CUDA_ERROR_UNSUPPORTED_LIMIT;
		*pvalue = ctx->sync_depth;
		return CUDA_SUCCESS;
	case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT: *pvalue = ctx->pending_launches; return CUDA_SUCCESS;
	case CU_LIMIT_MAX_L2_FETCH_GRANULARITY: *pvalue = ctx->l2_granularity; return CUDA_SUCCESS;
	case CU_LIMIT_PERSISTING_L2_CACHE_SIZE: *pvalue = ctx->l2_persisting; return CUDA_SUCCESS;
	case CU_LIMIT_SHMEM_SIZE:
	case CU_LIMIT_CIG_ENABLED:
	case CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED:
		*pvalue = 0; /* cuBLAS asks for it and takes an error amiss */
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	}
}

CUresult
sw_cuCtxGetCacheConfig(CUfunc_cache *pconfig)
{
	SW_CTX(ctx);
	*pconfig = ctx->cache_config;
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxSetCacheConfig(CUfunc_cache config)
{
	SW_CTX(ctx);
	if ((unsigned)config > CU_FUNC_CACHE_PREFER_EQUAL)
		return CUDA_ERROR_INVALID_VALUE;
	ctx->cache_config = config;
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxGetSharedMemConfig(CUsharedconfig *pConfig)
{
	SW_CTX(ctx);
	*pConfig = ctx->shared_config;
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxSetSharedMemConfig(CUsharedconfig config)
{
	SW_CTX(ctx);
	if ((unsigned)config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE)
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS; /* banks are fixed at four bytes on every capability that we report; the call is a hint */
}

CUresult
sw_cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
	SW_CTX(ctx);
	if (leastPriority)
		*leastPriority = 0;
	if (greatestPriority)
		*greatestPriority = SW_PRIORITY_GREATEST;
	return CUDA_SUCCESS;
}

CUresult
sw_cuCtxResetPersistingL2Cache(void)
{
	SW_CTX(ctx);
	return CUDA_SUCCESS; /* nothing persists */
}

CUresult
sw_cuCtxGetExecAffinity(CUexecAffinityParam *pExecAffinity, CUexecAffinityType type)
{
	SW_CTX(ctx);
	if (type != CU_EXEC_AFFINITY_TYPE_SM_COUNT)
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
}

/* An event after all work of a context, and all further work after an event: through its legacy stream. */
CUresult
sw_cuCtxRecordEvent(CUcontext hCtx, CUevent hEvent)
{
	struct sw_context *ctx = NULL;
	struct sw_event *event = sw_event_get(hEvent);
	CUresult result = sw_context_get(hCtx, &ctx);

	if (result != CUDA_SUCCESS)
		return result;
	if (!event || event->ctx != ctx)
		return CUDA_ERROR_INVALID_HANDLE;
	return sw_submit_all(ctx, &(struct sw_op){ .kind = SW_OP_RECORD, .event = { event, 0 } });
}

CUresult
sw_cuCtxWaitEvent(CUcontext hCtx, CUevent hEvent)
{
	struct sw_context *ctx = NULL;
	struct sw_event *event = sw_event_get(hEvent);
	CUresult result = sw_context_get(hCtx, &ctx);

	if (result != CUDA_SUCCESS)
		return result;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	return sw_submit_all(ctx, &(struct sw_op){ .kind = SW_OP_WAIT, .event = { event, 0 } });
}
