/*
 * Host memory that kernels may reach: allocated by us (it lies in the device's address space) or the program's own, registered.
 * Both are used at their own address. Kernels look registered ranges up without a lock, in a snapshot that is replaced as a whole.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALLOC_FLAGS (CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED)
#define REGISTER_FLAGS \
	(CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY)

struct snapshot { /* sorted by address, never changed once published */
	struct snapshot *retired;
	size_t count;
	struct sw_registered ranges[];
};

static pthread_mutex_t registered_lock = PTHREAD_MUTEX_INITIALIZER; /* guards replacing the snapshot */
static struct snapshot *current; /* atomic: acquire by readers, release by the replacer */
static struct snapshot *retired; /* freed when no kernel can be reading: guarded by registered_lock */
static uint64_t next_id = (uint64_t)1 << 32; /* guarded by registered_lock; apart from allocations' ids */

/* The range that contains the address. */
static const struct sw_registered *
find(const struct snapshot *snapshot, uint64_t address)
{
	size_t low = 0, high = snapshot ? snapshot->count : 0;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct sw_registered *range = &snapshot->ranges[middle];
		if (address < range->address)
			high = middle;
		else if (address - range->address >= range->size)
			low = middle + 1;
		else
			return range;
	}
	return NULL;
}

bool
sw_space_host(uint64_t address, uint64_t size)
{
	const struct sw_registered *range = find(__atomic_load_n(&current, __ATOMIC_ACQUIRE), address);

	return range && size <= range->size - (address - range->address);
}

bool
sw_registered_find(uint64_t address, struct sw_registered *out)
{
	pthread_mutex_lock(&registered_lock);
	const struct sw_registered *range = find(current, address);
	if (range)
		*out = *range;
	pthread_mutex_unlock(&registered_lock);
	return range != NULL;
}

/* Publishes a new snapshot; lock held. Old ones are freed only when the device is idle. */
static void
publish(struct snapshot *next)
{
	struct snapshot *old = current;

	__atomic_store_n(&current, next, __ATOMIC_RELEASE);
	if (old) {
		old->retired = retired;
		retired = old;
	}
	if (!sw_queue_idle())
		return;
	while (retired) {
		struct snapshot *gone = retired;
		retired = gone->retired;
		free(gone);
	}
}

/* A copy with room for one more. */
static struct snapshot *
copy_without(uint64_t address, const struct sw_context *ctx, size_t extra)
{
	size_t count = current ? current->count : 0;
	struct snapshot *next = malloc(sizeof(*next) + (count + extra) * sizeof(next->ranges[0]));

	if (!next)
		return NULL;
	next->retired = NULL;
	next->count = 0;
	for (size_t i = 0; i < count; i++)
		if (current->ranges[i].address != address && (!ctx || current->ranges[i].ctx != ctx))
			next->ranges[next->count++] = current->ranges[i];
	return next;
}

void
sw_registered_drop_context(struct sw_context *ctx)
{
	pthread_mutex_lock(&registered_lock);
	bool any = false;
	for (size_t i = 0; current && i < current->count; i++)
		any |= current->ranges[i].ctx == ctx;
	struct snapshot *next = any ? copy_without(0, ctx, 0) : NULL;
	if (next)
		publish(next);
	pthread_mutex_unlock(&registered_lock);
}

void
sw_registered_forget(void)
{
	registered_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	current = retired = NULL;
}

/* Is the memory there? Registering what is not mapped must fail, not fault later. */
static bool
is_mapped(uint64_t address, uint64_t size)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = address & ~(page - 1);
	unsigned char state[1024];

	for (uint64_t at = first; at < address + size; at += page * sizeof(state)) {
		uint64_t left = sw_round_up(address + size - at, page);
		uint64_t part = left < page * sizeof(state) ? left : page * sizeof(state);
		if (mincore((void *)(uintptr_t)at, part, state) != 0)
			return false;
	}
	return true;
}

CUresult
sw_cuMemHostRegister_v2(void *p, size_t bytesize, unsigned Flags)
{
	uint64_t address = (uint64_t)(uintptr_t)p;
	CUresult result = CUDA_SUCCESS;
	SW_CTX(ctx);
	if (!p || !bytesize || (Flags & ~(unsigned)REGISTER_FLAGS) || address + bytesize < address)
		return CUDA_ERROR_INVALID_VALUE;
	if (Flags & CU_MEMHOSTREGISTER_IOMEMORY)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (sw_in_space(address) || sw_in_space(address + bytesize - 1))
		return sw_alloc_find(address) ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED : CUDA_ERROR_INVALID_VALUE;
	if (!is_mapped(address, bytesize))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&registered_lock);
	struct snapshot *next = copy_without(0, NULL, 1);
	if (!next) {
		pthread_mutex_unlock(&registered_lock);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	size_t at = 0;
	while (at < next->count && next->ranges[at].address < address)
		at++;
	bool overlaps = (at > 0 && address - next->ranges[at - 1].address < next->ranges[at - 1].size) ||
	                (at < next->count && next->ranges[at].address - address < bytesize);
	if (overlaps) {
		free(next);
		result = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
	} else {
		memmove(&next->ranges[at + 1], &next->ranges[at], (next->count - at) * sizeof(next->ranges[0]));
		next->ranges[at] = (struct sw_registered){ .address = address, .size = bytesize, .flags = Flags, .ctx = ctx,
			.id = ++next_id, .read_only = (Flags & CU_MEMHOSTREGISTER_READ_ONLY) != 0 };
		next->count++;
		publish(next);
	}
	pthread_mutex_unlock(&registered_lock);
	return result;
}

CUresult
sw_cuMemHostRegister(void *p, size_t bytesize, unsigned Flags)
{
	return sw_cuMemHostRegister_v2(p, bytesize, Flags);
}

CUresult
sw_cuMemHostUnregister(void *p)
{
	uint64_t address = (uint64_t)(uintptr_t)p;
	CUresult result = CUDA_SUCCESS;
	SW_CTX(ctx);
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_drain(ctx); /* copies and kernels in flight may use it */
	pthread_mutex_lock(&registered_lock);
	const struct sw_registered *range = find(current, address);
	struct snapshot *next = range && range->address == address ? copy_without(address, NULL, 0) : NULL;
	if (next)
		publish(next);
	else
		result = range && range->address == address ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	pthread_mutex_unlock(&registered_lock);
	return result;
}

/* ---- memory of ours ---------------------------------------------------------------------------------------------------- */

CUresult
sw_cuMemHostAlloc(void **pp, size_t bytesize, unsigned Flags)
{
	struct sw_alloc *alloc;
	SW_CTX(ctx);
	if (Flags & ~(unsigned)ALLOC_FLAGS)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bytesize) {
		*pp = NULL;
		return CUDA_SUCCESS;
	}
	CUresult result = sw_alloc_new(ctx, bytesize, 256, SW_MEM_HOST, false, &alloc);
	if (result != CUDA_SUCCESS)
		return result;
	alloc->flags = Flags;
	*pp = (void *)(uintptr_t)alloc->address;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemAllocHost_v2(void **pp, size_t bytesize)
{
	return sw_cuMemHostAlloc(pp, bytesize, 0);
}

CUresult
sw_cuMemFreeHost(void *p)
{
	SW_CTX(ctx);
	if (!p)
		return CUDA_SUCCESS;
	struct sw_alloc *alloc = sw_alloc_find((uint64_t)(uintptr_t)p);
	if (!alloc || alloc->kind != SW_MEM_HOST || alloc->address != (uint64_t)(uintptr_t)p)
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_drain(alloc->ctx ? alloc->ctx : ctx);
	sw_alloc_free(alloc);
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned Flags)
{
	uint64_t address = (uint64_t)(uintptr_t)p;
	struct sw_registered registered;
	SW_CTX(ctx);
	if (!p || Flags)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_alloc *alloc = sw_alloc_find(address);
	if (!(alloc && (alloc->kind == SW_MEM_HOST || alloc->kind == SW_MEM_MANAGED)) &&
	    !sw_registered_find(address, &registered))
		return CUDA_ERROR_INVALID_VALUE;
	*pdptr = address; /* one address space */
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemHostGetFlags(unsigned *pFlags, void *p)
{
	uint64_t address = (uint64_t)(uintptr_t)p;
	struct sw_registered registered;
	SW_CTX(ctx);
	struct sw_alloc *alloc = sw_alloc_find(address);
	if (alloc && alloc->kind == SW_MEM_HOST)
		*pFlags = alloc->flags | CU_MEMHOSTALLOC_DEVICEMAP; /* everything is mapped under unified addressing */
	else if (sw_registered_find(address, &registered))
		*pFlags = registered.flags | CU_MEMHOSTREGISTER_DEVICEMAP;
	else
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}
