/*
 * Device memory calls: allocate, free, ask about; and what a pointer is. Host and managed memory are in host.c and managed.c.
 */
#include "soft/device/device.h"
#include "soft/device/module.h"
#include "soft/device/graph.h"
#include "soft/device/ops.h"
#include "soft/soft.h"

enum sw_place
sw_place_of(uint64_t address, uint64_t size)
{
	struct sw_registered registered;

	if (address & SW_FAR)
		return sw_far_valid(address, size) ? SW_PLACE_PAGEABLE : SW_PLACE_BAD;
	if (!sw_in_space(address)) {
		if (sw_registered_find(address, &registered) && size <= registered.size - (address - registered.address))
			return SW_PLACE_HOST;
		/* A host range that runs into the device's is no host range. */
		return address < sw_space.base && size > sw_space.base - address ? SW_PLACE_BAD : SW_PLACE_PAGEABLE;
	}
	struct sw_alloc *alloc = sw_alloc_find(address);
	if (!alloc)
		return sw_mapping_covers(address, size) ? SW_PLACE_DEVICE : SW_PLACE_BAD;
	if (alloc->hidden || size > alloc->size - (address - alloc->address))
		return SW_PLACE_BAD;
	if (alloc->kind == SW_MEM_HOST)
		return SW_PLACE_HOST;
	/* CU_POINTER_ATTRIBUTE_SYNC_MEMOPS asks for what managed memory gets anyway: synchronous calls that are synchronous. */
	return alloc->kind == SW_MEM_MANAGED || alloc->sync_memops ? SW_PLACE_MANAGED : SW_PLACE_DEVICE;
}

/* Calls that wait for the device, and allocations, are "unsafe" while a stream is being captured: refused unless relaxed. */
static CUresult
may_synchronise(struct sw_context *ctx)
{
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED;
	return sw_capture_check ? sw_capture_check(ctx, NULL) : CUDA_SUCCESS;
}

CUresult
sw_cuMemGetInfo_v2(size_t *free, size_t *total)
{
	uint64_t used, all;
	SW_CTX(ctx);
	sw_space_usage(&used, &all);
	*free = all - used;
	*total = all;
	return CUDA_SUCCESS;
}

/* Allocates; when the memory is used up, what pools hold back is given back first. */
static CUresult
allocate(struct sw_context *ctx, uint64_t size, struct sw_alloc **alloc)
{
	CUresult result = sw_capture_check ? sw_capture_check(ctx, NULL) : CUDA_SUCCESS;

	if (result == CUDA_SUCCESS)
		result = sw_alloc_new(ctx, size, 256, SW_MEM_DEVICE, false, alloc);
	if (result == CUDA_ERROR_OUT_OF_MEMORY && sw_pool_release_all() > 0)
		result = sw_alloc_new(ctx, size, 256, SW_MEM_DEVICE, false, alloc);
	return result;
}

CUresult
sw_cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
	struct sw_alloc *alloc;
	SW_CTX(ctx);
	CUresult result = allocate(ctx, bytesize, &alloc);
	if (result == CUDA_SUCCESS)
		*dptr = alloc->address;
	return result;
}

CUresult
sw_cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height, unsigned ElementSizeBytes)
{
	struct sw_alloc *alloc;
	size_t pitch = sw_round_up(WidthInBytes, 512), size;
	SW_CTX(ctx);
	if (!WidthInBytes || !Height || (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16))
		return CUDA_ERROR_INVALID_VALUE;
	if (pitch < WidthInBytes || pitch > INT32_MAX || __builtin_mul_overflow(pitch, Height, &size))
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = allocate(ctx, size, &alloc);
	if (result != CUDA_SUCCESS)
		return result;
	*dptr = alloc->address;
	*pPitch = pitch;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemFree_v2(CUdeviceptr dptr)
{
	SW_CTX(ctx);
	if (!dptr)
		return CUDA_SUCCESS;
	struct sw_alloc *alloc = sw_alloc_find(dptr);
	if (!alloc || alloc->address != dptr || alloc->hidden)
		return CUDA_ERROR_INVALID_VALUE;
	if (alloc->kind != SW_MEM_DEVICE && alloc->kind != SW_MEM_MANAGED && !alloc->pool)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = may_synchronise(ctx);
	if (result != CUDA_SUCCESS)
		return result;
	sw_queue_drain(ctx);
	if (alloc->ctx && alloc->ctx != ctx)
		sw_queue_drain(alloc->ctx);
	sw_output_flush();
	if (sw_graph_memory_release(dptr))
		return CUDA_SUCCESS; /* an allocation node's: the graph keeps the address for its next launch */
	if (alloc->pool)
		return sw_pool_free_now(alloc);
	sw_alloc_free(alloc);
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
	struct sw_registered registered;
	struct sw_mapping mapping;
	CUdeviceptr base;
	size_t size;
	SW_CTX(ctx);
	struct sw_alloc *alloc = sw_alloc_find(dptr);
	if (alloc && sw_is_internal(alloc)) {
		const struct sx_var *var = sw_variable_at(alloc, dptr);
		if (!var)
			return CUDA_ERROR_NOT_FOUND;
		base = var->address;
		size = var->size;
	} else if (alloc && !alloc->hidden) {
		base = alloc->address;
		size = alloc->size;
	} else if (sw_mapping_find(dptr, &mapping)) {
		base = mapping.base;
		size = mapping.size;
	} else if (sw_registered_find(dptr, &registered)) {
		base = registered.address;
		size = registered.size;
	} else {
		return CUDA_ERROR_NOT_FOUND;
	}
	if (pbase)
		*pbase = base;
	if (psize)
		*psize = size;
	return CUDA_SUCCESS;
}
