/*
 * See quota.h. A charge is entered for what an allocation gave and taken out again before it is freed, since its address may be given to
 * another thread the moment it is free.
 */
#include "layers/quota.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"

#define BUCKETS 4096
#define POOLS_MAX 256
#define DEVICES_MAX 64

enum kind { POINTER, ARRAY, MIPMAP, PHYSICAL, MAPPING };

struct charge {
	struct charge *next;
	enum kind kind;
	uint64_t key;      /* address or handle */
	uint64_t bytes;
	void *ctx;         /* it ends with this context; NULL: with none */
	uint64_t physical; /* MAPPING: of what */
	unsigned refs, maps; /* PHYSICAL: it ends when both are 0 */
};

static const struct cuda_ops *inner;
static struct cuda_ops ops;
static uint64_t limit;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static uint64_t used;
static struct charge *buckets[BUCKETS];
static CUmemoryPool pools[POOLS_MAX];
static unsigned pool_count;
static bool default_known[DEVICES_MAX];

/* ---- charges ---------------------------------------------------------------------------------------------------------- */

/* With the lock held: where the charge hangs, or NULL. */
static struct charge **
find(enum kind kind, uint64_t key)
{
	for (struct charge **at = &buckets[(key * 0x9e3779b97f4a7c15u) >> 52]; *at; at = &(*at)->next)
		if ((*at)->kind == kind && (*at)->key == key)
			return at;
	return NULL;
}

/* With the lock held. */
static void
enter(struct charge *charge)
{
	struct charge **bucket = &buckets[(charge->key * 0x9e3779b97f4a7c15u) >> 52];

	charge->next = *bucket;
	*bucket = charge;
}

/* What pools hold and nobody uses. With the lock held. */
static uint64_t
kept_back(void)
{
	uint64_t kept = 0;

	for (unsigned n = 0; n < pool_count; n++) {
		uint64_t reserved = 0, in_use = 0;
		if (inner->cuMemPoolGetAttribute(pools[n], CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) == CUDA_SUCCESS &&
		    inner->cuMemPoolGetAttribute(pools[n], CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &in_use) == CUDA_SUCCESS && reserved > in_use)
			kept += reserved - in_use;
	}
	return kept;
}

/*
 * Room for an allocation, `from_pool`: which takes what pools keep first. NULL: there is none. The charge is the caller's until keep() or
 * drop().
 */
static struct charge *
reserve(uint64_t bytes, bool from_pool)
{
	struct charge *charge = calloc(1, sizeof(*charge));

	pthread_mutex_lock(&lock);
	uint64_t kept = from_pool ? 0 : kept_back();
	if (used + kept + bytes > limit && used + bytes <= limit && kept) {
		for (unsigned n = 0; n < pool_count; n++)
			inner->cuMemPoolTrimTo(pools[n], 0);
		kept = kept_back();
	}
	bool fits = charge && bytes <= limit && used <= limit - bytes && kept <= limit - bytes - used;
	if (fits)
		used += bytes;
	pthread_mutex_unlock(&lock);
	if (!fits) {
		fw_warn_once("quota", "an allocation of %llu bytes goes beyond the lease's limit of %llu: CUDA_ERROR_OUT_OF_MEMORY",
		             (unsigned long long)bytes, (unsigned long long)limit);
		free(charge);
		return NULL;
	}
	*charge = (struct charge){ .bytes = bytes, .ctx = fw_thread.ctx, .refs = 1 };
	return charge;
}

static void
drop(struct charge *charge)
{
	pthread_mutex_lock(&lock);
	used -= charge->bytes;
	pthread_mutex_unlock(&lock);
	free(charge);
}

/* The result of the allocation that the charge was reserved for. */
static CUresult
settle(struct charge *charge, CUresult result, enum kind kind, uint64_t key)
{
	if (result != CUDA_SUCCESS) {
		drop(charge);
		return result;
	}
	charge->kind = kind;
	charge->key = key;
	pthread_mutex_lock(&lock);
	enter(charge);
	pthread_mutex_unlock(&lock);
	return result;
}

/* Takes a charge out; NULL: what is freed was not charged. */
static struct charge *
take(enum kind kind, uint64_t key)
{
	pthread_mutex_lock(&lock);
	struct charge **at = find(kind, key), *charge = at ? *at : NULL;
	if (at)
		*at = charge->next;
	pthread_mutex_unlock(&lock);
	return charge;
}

/* After the call that frees it. */
static CUresult
freed(struct charge *charge, CUresult result)
{
	if (charge && result == CUDA_SUCCESS) {
		drop(charge);
	} else if (charge) {
		pthread_mutex_lock(&lock);
		enter(charge);
		pthread_mutex_unlock(&lock);
	}
	return result;
}

static void
context_ended(void *ctx)
{
	pthread_mutex_lock(&lock);
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct charge **at = &buckets[b]; *at;) {
			struct charge *charge = *at;
			if (charge->ctx != ctx || !ctx) {
				at = &charge->next;
				continue;
			}
			*at = charge->next;
			used -= charge->bytes;
			free(charge);
		}
	pthread_mutex_unlock(&lock);
}

/* ---- plain allocations ---------------------------------------------------------------------------------------------------- */

static CUresult
quota_cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
	struct charge *charge = reserve(bytesize, false);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuMemAlloc_v2(dptr, bytesize);
	return settle(charge, result, POINTER, *dptr);
}

static CUresult
quota_cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height, unsigned ElementSizeBytes)
{
	uint64_t bytes;
	/* The pitch is known afterwards; drivers align rows to 512 bytes at most. */
	bool too_large = __builtin_mul_overflow((WidthInBytes | 511) + 1ull, Height, &bytes);
	struct charge *charge = too_large ? NULL : reserve(bytes, false);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuMemAllocPitch_v2(dptr, pPitch, WidthInBytes, Height, ElementSizeBytes);
	return settle(charge, result, POINTER, *dptr);
}

static CUresult
quota_cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned flags)
{
	struct charge *charge = reserve(bytesize, false);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuMemAllocManaged(dptr, bytesize, flags);
	return settle(charge, result, POINTER, *dptr);
}

static CUresult
quota_cuMemFree_v2(CUdeviceptr dptr)
{
	struct charge *charge = take(POINTER, dptr);

	return freed(charge, inner->cuMemFree_v2(dptr));
}

/* ---- pools ------------------------------------------------------------------------------------------------------------------ */

static void
know_pool(CUmemoryPool pool)
{
	pthread_mutex_lock(&lock);
	for (unsigned n = 0; n < pool_count; n++)
		if (pools[n] == pool)
			pool = NULL;
	if (pool && pool_count < POOLS_MAX)
		pools[pool_count++] = pool;
	pthread_mutex_unlock(&lock);
}

static CUresult
quota_cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
	CUmemoryPool pool;
	struct charge *charge = reserve(bytesize, true);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (CUdevice dev = 0; dev < DEVICES_MAX && !__atomic_exchange_n(&default_known[dev], true, __ATOMIC_RELAXED); dev++) {
		if (inner->cuDeviceGetDefaultMemPool(&pool, dev) != CUDA_SUCCESS)
			break; /* no such device */
		know_pool(pool);
	}
	CUresult result = inner->cuMemAllocAsync(dptr, bytesize, hStream);
	return settle(charge, result, POINTER, *dptr);
}

static CUresult
quota_cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
{
	struct charge *charge = reserve(bytesize, true);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	know_pool(pool);
	CUresult result = inner->cuMemAllocFromPoolAsync(dptr, bytesize, pool, hStream);
	return settle(charge, result, POINTER, *dptr);
}

static CUresult
quota_cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
	struct charge *charge = take(POINTER, dptr);

	return freed(charge, inner->cuMemFreeAsync(dptr, hStream));
}

static CUresult
quota_cuMemPoolDestroy(CUmemoryPool pool)
{
	pthread_mutex_lock(&lock);
	for (unsigned n = 0; n < pool_count; n++)
		if (pools[n] == pool)
			pools[n] = pools[--pool_count];
	pthread_mutex_unlock(&lock);
	return inner->cuMemPoolDestroy(pool);
}

/* ---- arrays ------------------------------------------------------------------------------------------------------------------- */

/* Bytes of an array; false if they are too many for a number. Formats that pack several elements into a block count as the largest. */
static bool
array_bytes(uint64_t width, uint64_t height, uint64_t depth, CUarray_format format, unsigned channels, uint64_t *bytes)
{
	uint64_t element = format == CU_AD_FORMAT_UNSIGNED_INT8 || format == CU_AD_FORMAT_SIGNED_INT8 ? 1
		: format == CU_AD_FORMAT_UNSIGNED_INT16 || format == CU_AD_FORMAT_SIGNED_INT16 || format == CU_AD_FORMAT_HALF ? 2 : 4;

	return !__builtin_mul_overflow(width, height ? height : 1, bytes) && !__builtin_mul_overflow(*bytes, depth ? depth : 1, bytes) &&
	       !__builtin_mul_overflow(*bytes, element * (channels ? channels : 1), bytes);
}

static CUresult
quota_cuArrayCreate_v2(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR *d)
{
	uint64_t bytes = 0;
	struct charge *charge = d && !array_bytes(d->Width, d->Height, 1, d->Format, d->NumChannels, &bytes) ? NULL : reserve(bytes, false);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuArrayCreate_v2(pHandle, d);
	return settle(charge, result, ARRAY, (uintptr_t)*pHandle);
}

static CUresult
quota_cuArray3DCreate_v2(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	uint64_t bytes = 0;
	struct charge *charge = d && !array_bytes(d->Width, d->Height, d->Depth, d->Format, d->NumChannels, &bytes) ? NULL : reserve(bytes, false);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuArray3DCreate_v2(pHandle, d);
	return settle(charge, result, ARRAY, (uintptr_t)*pHandle);
}

static CUresult
quota_cuArrayDestroy(CUarray hArray)
{
	struct charge *charge = take(ARRAY, (uintptr_t)hArray);

	return freed(charge, inner->cuArrayDestroy(hArray));
}

static CUresult
quota_cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels)
{
	uint64_t bytes = 0;
	bool fits = !d || (array_bytes(d->Width, d->Height, d->Depth, d->Format, d->NumChannels, &bytes) && bytes <= UINT64_MAX / 2);
	/* Each level has half the sides of the one before: all together less than twice the first. */
	struct charge *charge = fits ? reserve(levels > 1 ? bytes * 2 : bytes, false) : NULL;

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuMipmappedArrayCreate(pHandle, d, levels);
	return settle(charge, result, MIPMAP, (uintptr_t)*pHandle);
}

static CUresult
quota_cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
	struct charge *charge = take(MIPMAP, (uintptr_t)hMipmappedArray);

	return freed(charge, inner->cuMipmappedArrayDestroy(hMipmappedArray));
}

/* ---- physical memory -------------------------------------------------------------------------------------------------------------- */

static CUresult
quota_cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags)
{
	struct charge *charge = reserve(size, false);

	if (!charge)
		return CUDA_ERROR_OUT_OF_MEMORY;
	charge->ctx = NULL; /* it belongs to no context */
	CUresult result = inner->cuMemCreate(handle, size, prop, flags);
	return settle(charge, result, PHYSICAL, *handle);
}

/* One reference or mapping less, or more. With the last one the memory is free. */
static void
count_physical(uint64_t handle, int refs, int maps)
{
	pthread_mutex_lock(&lock);
	struct charge **at = find(PHYSICAL, handle), *charge = at ? *at : NULL;
	if (charge) {
		charge->refs += (unsigned)refs;
		charge->maps += (unsigned)maps;
		if (charge->refs == 0 && charge->maps == 0) {
			*at = charge->next;
			used -= charge->bytes;
			free(charge);
		}
	}
	pthread_mutex_unlock(&lock);
}

static CUresult
quota_cuMemRelease(CUmemGenericAllocationHandle handle)
{
	CUresult result = inner->cuMemRelease(handle);

	if (result == CUDA_SUCCESS)
		count_physical(handle, -1, 0);
	return result;
}

static CUresult
quota_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
	CUresult result = inner->cuMemRetainAllocationHandle(handle, addr);

	if (result == CUDA_SUCCESS)
		count_physical(*handle, 1, 0);
	return result;
}

static CUresult
quota_cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	struct charge *mapping = calloc(1, sizeof(*mapping));

	if (!mapping)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = inner->cuMemMap(ptr, size, offset, handle, flags);
	if (result != CUDA_SUCCESS) {
		free(mapping);
		return result;
	}
	*mapping = (struct charge){ .kind = MAPPING, .key = ptr, .physical = handle };
	count_physical(handle, 0, 1);
	pthread_mutex_lock(&lock);
	enter(mapping);
	pthread_mutex_unlock(&lock);
	return result;
}

/* It may end several mappings that lie one behind the other. */
static CUresult
quota_cuMemUnmap(CUdeviceptr ptr, size_t size)
{
	CUresult result = inner->cuMemUnmap(ptr, size);
	struct charge *ended = NULL;

	if (result != CUDA_SUCCESS)
		return result;
	pthread_mutex_lock(&lock);
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct charge **at = &buckets[b]; *at;) {
			struct charge *charge = *at;
			if (charge->kind != MAPPING || charge->key - ptr >= size) {
				at = &charge->next;
				continue;
			}
			*at = charge->next;
			charge->next = ended;
			ended = charge;
		}
	pthread_mutex_unlock(&lock);
	while (ended) {
		struct charge *charge = ended;
		ended = charge->next;
		count_physical(charge->physical, 0, -1);
		free(charge);
	}
	return result;
}

/* ---- what is said of memory, and contexts' ends --------------------------------------------------------------------------------------- */

static CUresult
quota_cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	CUresult result = inner->cuMemGetInfo_v2(free_bytes, total);

	if (result == CUDA_SUCCESS) {
		pthread_mutex_lock(&lock);
		uint64_t left = used < limit ? limit - used : 0;
		pthread_mutex_unlock(&lock);
		*total = *total < limit ? *total : limit;
		*free_bytes = *free_bytes < left ? *free_bytes : left;
	}
	return result;
}

static CUresult
quota_cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
	CUresult result = inner->cuDeviceTotalMem_v2(bytes, dev);

	if (result == CUDA_SUCCESS && *bytes > limit)
		*bytes = limit;
	return result;
}

static CUresult
quota_cuCtxDestroy_v2(CUcontext ctx)
{
	CUresult result = inner->cuCtxDestroy_v2(ctx);

	if (result == CUDA_SUCCESS)
		context_ended(ctx);
	return result;
}

/* A primary context that is not active any more has given its memory back. */
static CUresult
primary_changed(CUdevice dev, CUresult result)
{
	CUcontext ctx = NULL;
	unsigned flags;
	int active = 1;

	if (result == CUDA_SUCCESS && inner->cuDevicePrimaryCtxGetState(dev, &flags, &active) == CUDA_SUCCESS && !active &&
	    inner->primary_context(&ctx, dev) == CUDA_SUCCESS)
		context_ended(ctx);
	return result;
}

static CUresult
quota_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	return primary_changed(dev, inner->cuDevicePrimaryCtxRelease_v2(dev));
}

static CUresult
quota_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	CUcontext ctx = NULL;
	CUresult result = inner->cuDevicePrimaryCtxReset_v2(dev);

	if (result == CUDA_SUCCESS && inner->primary_context(&ctx, dev) == CUDA_SUCCESS)
		context_ended(ctx);
	return result;
}

const struct cuda_ops *
quota_open(const struct cuda_ops *around, uint64_t bytes)
{
	inner = around;
	limit = bytes;
	ops = *around;
#define TAKE(name) \
	if (around->name) \
		ops.name = quota_##name;
	TAKE(cuMemAlloc_v2) TAKE(cuMemAllocPitch_v2) TAKE(cuMemAllocManaged) TAKE(cuMemFree_v2)
	TAKE(cuMemAllocAsync) TAKE(cuMemAllocFromPoolAsync) TAKE(cuMemFreeAsync) TAKE(cuMemPoolDestroy)
	TAKE(cuArrayCreate_v2) TAKE(cuArray3DCreate_v2) TAKE(cuArrayDestroy) TAKE(cuMipmappedArrayCreate) TAKE(cuMipmappedArrayDestroy)
	TAKE(cuMemCreate) TAKE(cuMemRelease) TAKE(cuMemRetainAllocationHandle) TAKE(cuMemMap) TAKE(cuMemUnmap)
	TAKE(cuMemGetInfo_v2) TAKE(cuDeviceTotalMem_v2)
	TAKE(cuCtxDestroy_v2) TAKE(cuDevicePrimaryCtxRelease_v2) TAKE(cuDevicePrimaryCtxReset_v2)
#undef TAKE
	return &ops;
}
