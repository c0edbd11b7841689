/*
 * Contexts as the process sees them: the current-context stack of each thread, what is known of each context without
 * asking the device, and the calls that create and end contexts, which also end their local storage.
 *
 * The device owns what a context holds (memory, modules, streams, errors). It learns the current one from fw_thread.ctx.
 */
#include "client.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_RECORDS 64
#define STACK_INLINE 8

/* Records are found by a linear search: programs have a handful of contexts. Chunks are added, never freed. */
struct chunk {
	struct chunk *next; /* atomic */
	struct cl_context records[CHUNK_RECORDS];
};
static struct chunk first_chunk;
static uint64_t last_id;                                 /* guarded by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards creation and end of records, `users`, `retained` */

/* The stack of one thread; the top is items[depth - 1] and also in fw_thread.ctx. */
struct stack {
	CUcontext *items; /* NULL: inline_items */
	size_t depth, capacity;
	struct cl_context *current; /* record of the top, if its handle still is the top */
	CUcontext inline_items[STACK_INLINE];
};
static __thread struct stack stack __attribute__((tls_model("initial-exec")));
static pthread_key_t stack_key; /* frees a stack that outgrew its inline items when its thread ends */
static pthread_once_t stack_once = PTHREAD_ONCE_INIT;

/* ---- records ------------------------------------------------------------------------------------------------------- */

static struct cl_context *
find_record(CUcontext handle)
{
	for (struct chunk *chunk = &first_chunk; chunk; chunk = __atomic_load_n(&chunk->next, __ATOMIC_ACQUIRE))
		for (int i = 0; i < CHUNK_RECORDS; i++)
			if (__atomic_load_n(&chunk->records[i].handle, __ATOMIC_ACQUIRE) == handle)
				return &chunk->records[i];
	return NULL;
}

struct cl_context *
cl_context_find(CUcontext ctx)
{
	CUcontext current = fw_thread.ctx;

	if (!ctx)
		ctx = current;
	if (!ctx)
		return NULL;
	if (ctx == current && stack.current && __atomic_load_n(&stack.current->handle, __ATOMIC_ACQUIRE) == ctx)
		return stack.current;
	struct cl_context *record = find_record(ctx);
	if (record && ctx == current)
		stack.current = record;
	return record;
}

CUresult
cl_context_missing(CUcontext ctx)
{
	return !ctx && fw_thread.ctx ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_CONTEXT;
}

/* Makes a record; the lock is held. NULL when out of memory. */
static struct cl_context *
add_record(CUcontext handle, CUdevice device, unsigned api_version, bool primary)
{
	struct cl_context *record = find_record(NULL);

	if (!record) {
		struct chunk *chunk = calloc(1, sizeof(*chunk));
		if (!chunk)
			return NULL;
		record = &chunk->records[0];
		chunk->next = first_chunk.next;
		__atomic_store_n(&first_chunk.next, chunk, __ATOMIC_RELEASE);
	}
	record->device = device;
	record->api_version = api_version;
	record->primary = primary;
	record->users = 1;
	record->retained = 0;
	record->dying = false;
	record->id = ++last_id;
	__atomic_store_n(&record->handle, handle, __ATOMIC_RELEASE);
	return record;
}

/* The record of a device's primary context, made at first use; the lock is held. */
static CUresult
primary_record(CUdevice dev, struct cl_context **record)
{
	CUcontext handle = NULL;

	if (!cl_ops->primary_context)
		return CUDA_ERROR_NOT_SUPPORTED;
	CUresult result = cl_ops->primary_context(&handle, dev);
	if (result != CUDA_SUCCESS)
		return result;
	*record = find_record(handle);
	if (!*record)
		*record = add_record(handle, dev, 3020, true);
	return *record ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult
cl_context_primary(CUcontext *ctx, CUdevice dev)
{
	struct cl_context *record = NULL;

	pthread_mutex_lock(&lock);
	CUresult result = primary_record(dev, &record);
	pthread_mutex_unlock(&lock);
	if (result == CUDA_SUCCESS)
		*ctx = record->handle;
	return result;
}

void
cl_context_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
	stack.depth = 0;
	stack.current = NULL;
	fw_thread.ctx = NULL;
	fw_thread.per_thread_stream = false;
}

/* ---- the stack ------------------------------------------------------------------------------------------------------ */

static void
free_stack(void *items)
{
	free(items);
}

static void
make_stack_key(void)
{
	if (pthread_key_create(&stack_key, free_stack) != 0)
		abort(); /* the process has used up its thread keys; nothing per thread works any more */
}

static CUcontext *
stack_items(void)
{
	return stack.items ? stack.items : stack.inline_items;
}

static void
set_top(CUcontext ctx, struct cl_context *record)
{
	stack.current = record;
	fw_thread.ctx = ctx;
}

static CUresult
push(CUcontext ctx, struct cl_context *record)
{
	size_t capacity = stack.items ? stack.capacity : STACK_INLINE;

	if (stack.depth == capacity) {
		pthread_once(&stack_once, make_stack_key);
		CUcontext *items = realloc(stack.items, 2 * capacity * sizeof(*items));
		if (!items)
			return CUDA_ERROR_OUT_OF_MEMORY;
		if (!stack.items)
			memcpy(items, stack.inline_items, sizeof(stack.inline_items));
		stack.items = items;
		stack.capacity = 2 * capacity;
		pthread_setspecific(stack_key, items);
	}
	stack_items()[stack.depth++] = ctx;
	set_top(ctx, record);
	return CUDA_SUCCESS;
}

static CUresult
pop(CUcontext *ctx)
{
	if (stack.depth == 0)
		return CUDA_ERROR_INVALID_CONTEXT;
	CUcontext top = stack_items()[--stack.depth];
	if (ctx)
		*ctx = top;
	set_top(stack.depth ? stack_items()[stack.depth - 1] : NULL, NULL);
	return CUDA_SUCCESS;
}

CUresult
cl_cuCtxPushCurrent_v2(CUcontext ctx)
{
	struct cl_context *record = ctx ? cl_context_find(ctx) : NULL;

	return record ? push(ctx, record) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult
cl_cuCtxPushCurrent(CUcontext ctx)
{
	return cl_cuCtxPushCurrent_v2(ctx);
}

CUresult
cl_cuCtxPopCurrent_v2(CUcontext *ctx)
{
	return pop(ctx);
}

CUresult
cl_cuCtxPopCurrent(CUcontext *ctx)
{
	return pop(ctx);
}

/* Replaces the top; NULL takes it away, and what lay below it becomes current. */
CUresult
cl_cuCtxSetCurrent(CUcontext ctx)
{
	if (!ctx) {
		if (stack.depth)
			pop(NULL);
		return CUDA_SUCCESS;
	}
	if (ctx == fw_thread.ctx && stack.current && __atomic_load_n(&stack.current->handle, __ATOMIC_ACQUIRE) == ctx)
		return CUDA_SUCCESS;
	struct cl_context *record = cl_context_find(ctx);
	if (!record)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (stack.depth == 0)
		return push(ctx, record);
	stack_items()[stack.depth - 1] = ctx;
	set_top(ctx, record);
	return CUDA_SUCCESS;
}

CUresult
cl_cuCtxGetCurrent(CUcontext *ctx)
{
	*ctx = fw_thread.ctx;
	return CUDA_SUCCESS;
}

/* ---- what is known of a context -------------------------------------------------------------------------------------- */

/*
 * Programs older than CUDA 13 that look up "NAME_v2" before "NAME", as numba without numba-cuda does, call this and
 * cuCtxSynchronize_v2 without the context; what is passed then is left over in a register. No handle lies below 2^47, so such
 * a value never was a context, and the current one is meant.
 */
static CUcontext
context_or_leftover(CUcontext ctx)
{
	return (uintptr_t)ctx >> 47 ? ctx : NULL;
}

CUresult
cl_cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
	struct cl_context *record = cl_context_find(context_or_leftover(ctx));

	if (!record)
		return cl_context_missing(context_or_leftover(ctx));
	*device = record->device;
	return CUDA_SUCCESS;
}

CUresult
cl_cuCtxGetDevice(CUdevice *device)
{
	return cl_cuCtxGetDevice_v2(device, NULL);
}

CUresult
cl_cuCtxGetApiVersion(CUcontext ctx, unsigned *version)
{
	struct cl_context *record = cl_context_find(ctx);

	if (!record)
		return cl_context_missing(ctx);
	*version = record->api_version;
	return CUDA_SUCCESS;
}

CUresult
cl_cuCtxGetId(CUcontext ctx, unsigned long long *id)
{
	struct cl_context *record = cl_context_find(ctx);

	if (!record)
		return cl_context_missing(ctx);
	*id = record->id;
	return CUDA_SUCCESS;
}

/* No stream belongs to a green context, because none can be created. cuBLAS asks for each of its streams. */
CUresult
cl_cuStreamGetGreenCtx(CUstream stream, CUgreenCtx *green)
{
	unsigned flags;

	if (!cl_ops->cuStreamGetFlags)
		return cl_unserved(CALL_cuStreamGetGreenCtx);
	CUresult result = cl_ops->cuStreamGetFlags(stream, &flags);
	if (result == CUDA_SUCCESS)
		*green = NULL;
	return result;
}

/* ---- creation and end -------------------------------------------------------------------------------------------------- */

/* A context that the device made becomes known and current. */
static CUresult
adopt(CUcontext ctx, CUdevice dev, unsigned api_version, CUcontext *out)
{
	pthread_mutex_lock(&lock);
	struct cl_context *record = add_record(ctx, dev, api_version, false);
	pthread_mutex_unlock(&lock);
	if (!record || push(ctx, record) != CUDA_SUCCESS) {
		if (record)
			__atomic_store_n(&record->handle, NULL, __ATOMIC_RELEASE);
		cl_ops->cuCtxDestroy_v2(ctx);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = ctx;
	return CUDA_SUCCESS;
}

CUresult
cl_cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice dev)
{
	CUcontext ctx = NULL;

	if (!cl_ops->cuCtxCreate_v2 || !cl_ops->cuCtxDestroy_v2)
		return cl_unserved(CALL_cuCtxCreate_v2);
	CUresult result = cl_ops->cuCtxCreate_v2(&ctx, flags, dev);
	return result == CUDA_SUCCESS ? adopt(ctx, dev, 3020, out) : result;
}

CUresult
cl_cuCtxCreate(CUcontext *out, unsigned flags, CUdevice dev)
{
	CUcontext ctx = NULL;

	if (!cl_ops->cuCtxCreate_v2 || !cl_ops->cuCtxDestroy_v2)
		return cl_unserved(CALL_cuCtxCreate);
	CUresult result = cl_ops->cuCtxCreate_v2(&ctx, flags, dev);
	return result == CUDA_SUCCESS ? adopt(ctx, dev, 3010, out) : result;
}

CUresult
cl_cuCtxCreate_v3(CUcontext *out, CUexecAffinityParam *params, int count, unsigned flags, CUdevice dev)
{
	CUcontext ctx = NULL;

	if (!cl_ops->cuCtxCreate_v3 || !cl_ops->cuCtxDestroy_v2)
		return cl_unserved(CALL_cuCtxCreate_v3);
	CUresult result = cl_ops->cuCtxCreate_v3(&ctx, params, count, flags, dev);
	return result == CUDA_SUCCESS ? adopt(ctx, dev, 3020, out) : result;
}

CUresult
cl_cuCtxCreate_v4(CUcontext *out, CUctxCreateParams *params, unsigned flags, CUdevice dev)
{
	CUcontext ctx = NULL;

	if (!cl_ops->cuCtxCreate_v4 || !cl_ops->cuCtxDestroy_v2)
		return cl_unserved(CALL_cuCtxCreate_v4);
	CUresult result = cl_ops->cuCtxCreate_v4(&ctx, params, flags, dev);
	return result == CUDA_SUCCESS ? adopt(ctx, dev, 3020, out) : result;
}

/*
 * Ends a context that is not primary: its storage first, while the handle still works, then the context. It leaves the
 * calling thread's stack only if it is the top; where it stays current, calls answer CUDA_ERROR_CONTEXT_IS_DESTROYED.
 */
static CUresult
destroy(struct cl_context *record)
{
	CUcontext ctx = record->handle;

	cl_storage_destroy(record);
	CUresult result = cl_ops->cuCtxDestroy_v2 ? cl_ops->cuCtxDestroy_v2(ctx) : CUDA_ERROR_NOT_SUPPORTED;
	if (fw_thread.ctx == ctx)
		pop(NULL);
	cl_storage_destroy(record); /* what was put meanwhile */
	__atomic_store_n(&record->handle, NULL, __ATOMIC_RELEASE);
	return result;
}

/* Counts one user less; true if that was the last one, and then only this caller may destroy the context. */
static bool
last_user(struct cl_context *record, bool all)
{
	pthread_mutex_lock(&lock);
	if (all || record->users == 1)
		record->users = 0;
	else
		record->users--;
	bool last = record->users == 0 && !record->dying;
	record->dying |= last;
	pthread_mutex_unlock(&lock);
	return last;
}

CUresult
cl_cuCtxDestroy_v2(CUcontext ctx)
{
	if (!ctx)
		return CUDA_ERROR_INVALID_VALUE;
	struct cl_context *record = cl_context_find(ctx);
	if (!record || record->primary || !last_user(record, true))
		return CUDA_ERROR_INVALID_CONTEXT;
	return destroy(record);
}

CUresult
cl_cuCtxDestroy(CUcontext ctx)
{
	return cl_cuCtxDestroy_v2(ctx);
}

CUresult
cl_cuCtxAttach(CUcontext *ctx, unsigned flags)
{
	struct cl_context *record = cl_context_find(NULL);

	if (flags != 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (!record)
		return cl_context_missing(NULL);
	pthread_mutex_lock(&lock);
	record->users++;
	pthread_mutex_unlock(&lock);
	*ctx = record->handle;
	return CUDA_SUCCESS;
}

CUresult
cl_cuCtxDetach(CUcontext ctx)
{
	struct cl_context *record = ctx ? cl_context_find(ctx) : NULL;

	if (!record || ctx != fw_thread.ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (record->primary) {
		pthread_mutex_lock(&lock);
		bool attached = record->users > 1;
		record->users -= attached;
		pthread_mutex_unlock(&lock);
		return attached ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
	}
	return last_user(record, false) ? destroy(record) : CUDA_SUCCESS;
}

CUresult
cl_cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice dev)
{
	struct cl_context *record = NULL;
	CUcontext ctx = NULL;

	if (!cl_ops->cuDevicePrimaryCtxRetain)
		return cl_unserved(CALL_cuDevicePrimaryCtxRetain);
	pthread_mutex_lock(&lock);
	CUresult result = primary_record(dev, &record);
	if (result == CUDA_SUCCESS)
		result = cl_ops->cuDevicePrimaryCtxRetain(&ctx, dev);
	if (result == CUDA_SUCCESS)
		record->retained++;
	pthread_mutex_unlock(&lock);
	if (result == CUDA_SUCCESS)
		*out = ctx;
	return result;
}

CUresult
cl_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	struct cl_context *record = NULL;
	bool last = false;

	if (!cl_ops->cuDevicePrimaryCtxRelease_v2)
		return cl_unserved(CALL_cuDevicePrimaryCtxRelease_v2);
	pthread_mutex_lock(&lock);
	if (primary_record(dev, &record) == CUDA_SUCCESS && record->retained)
		last = --record->retained == 0;
	pthread_mutex_unlock(&lock);
	if (last)
		cl_storage_destroy(record);
	return cl_ops->cuDevicePrimaryCtxRelease_v2(dev);
}

CUresult
cl_cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return cl_cuDevicePrimaryCtxRelease_v2(dev);
}

CUresult
cl_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	struct cl_context *record = NULL;

	if (!cl_ops->cuDevicePrimaryCtxReset_v2)
		return cl_unserved(CALL_cuDevicePrimaryCtxReset_v2);
	pthread_mutex_lock(&lock);
	CUresult result = primary_record(dev, &record);
	pthread_mutex_unlock(&lock);
	if (result != CUDA_SUCCESS)
		return result;
	cl_storage_destroy(record);
	return cl_ops->cuDevicePrimaryCtxReset_v2(dev);
}

CUresult
cl_cuDevicePrimaryCtxReset(CUdevice dev)
{
	return cl_cuDevicePrimaryCtxReset_v2(dev);
}
