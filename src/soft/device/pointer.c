/*
 * Pointer attributes: what an address is, for every kind of memory that there is.
 */
#include "soft/device/device.h"
#include "soft/device/module.h"
#include "soft/device/ops.h"

#include <string.h>

/* One view of all kinds of memory. */
struct view {
	CUcontext context;
	CUmemorytype type;
	bool host_readable, managed, ipc, mapped;
	uint64_t start, size, id, mapping_start, mapping_size;
	uint64_t handle_types;
	uint32_t access;
	CUmemoryPool pool;
	bool sync_memops;
};

static bool
look(CUdeviceptr address, struct view *view)
{
	struct sw_registered registered;
	struct sw_mapping mapping;
	struct sw_alloc *alloc = sw_alloc_find(address);

	*view = (struct view){ .mapped = true, .access = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE };
	if (alloc && sw_is_internal(alloc)) {
		/* Of what is not the program's only variables of modules have addresses that a program sees. */
		const struct sx_var *var = sw_variable_at(alloc, address);
		if (!var)
			return false;
		view->context = fw_thread.ctx;
		view->type = CU_MEMORYTYPE_DEVICE;
		view->managed = view->host_readable = var->managed;
		view->start = view->mapping_start = var->address;
		view->size = view->mapping_size = var->size;
		view->id = alloc->id;
		return true;
	}
	if (alloc && !alloc->hidden) {
		view->context = alloc->ctx && !alloc->pool ? alloc->ctx->handle : NULL; /* pools are the device's */
		view->type = alloc->kind == SW_MEM_HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
		view->managed = alloc->kind == SW_MEM_MANAGED;
		view->host_readable = alloc->kind == SW_MEM_HOST || alloc->kind == SW_MEM_MANAGED;
		view->ipc = alloc->kind == SW_MEM_DEVICE;
		view->start = view->mapping_start = alloc->address;
		view->size = view->mapping_size = alloc->size;
		view->id = alloc->id;
		view->sync_memops = alloc->sync_memops;
		if (alloc->pool)
			sw_pool_handle(alloc->pool, &view->pool);
		return true;
	}
	if (sw_mapping_find(address, &mapping)) {
		view->type = mapping.host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
		view->host_readable = mapping.host;
		view->mapped = mapping.id != 0;
		view->start = mapping.range_base;
		view->size = mapping.range_size;
		view->mapping_start = mapping.base;
		view->mapping_size = mapping.size;
		view->id = mapping.id;
		view->handle_types = mapping.handle_types;
		view->access = mapping.access & SW_ACCESS_WRITE ? CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE
		               : mapping.access & SW_ACCESS_READ ? CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READ
		                                                 : CU_POINTER_ATTRIBUTE_ACCESS_FLAG_NONE;
		return true;
	}
	if (sw_registered_find(address, &registered)) {
		view->context = registered.ctx->handle;
		view->type = CU_MEMORYTYPE_HOST;
		view->host_readable = true;
		view->start = view->mapping_start = registered.address;
		view->size = view->mapping_size = registered.size;
		view->id = registered.id;
		if (registered.read_only)
			view->access = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READ;
		return true;
	}
	return false;
}

/* Booleans are 32 bits wide: the CUDA runtime reads as much without clearing it before. */
#define PUT(type, value) \
	do { \
		type put_ = (value); \
		memcpy(data, &put_, sizeof(put_)); \
		return CUDA_SUCCESS; \
	} while (0)

static CUresult
get(void *data, CUpointer_attribute attribute, CUdeviceptr address, const struct view *view)
{
	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT: PUT(CUcontext, view->context);
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: PUT(unsigned, view->type);
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: PUT(CUdeviceptr, address);
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (!view->host_readable)
			return CUDA_ERROR_INVALID_VALUE;
		PUT(void *, (void *)(uintptr_t)address);
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: PUT(unsigned, view->sync_memops);
	case CU_POINTER_ATTRIBUTE_BUFFER_ID: PUT(unsigned long long, view->id);
	case CU_POINTER_ATTRIBUTE_IS_MANAGED: PUT(unsigned, view->managed);
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: PUT(int, 0);
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: PUT(unsigned, view->ipc);
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: PUT(CUdeviceptr, view->start);
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE: PUT(size_t, view->size);
	case CU_POINTER_ATTRIBUTE_MAPPED: PUT(unsigned, view->mapped);
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: PUT(unsigned long long, view->handle_types);
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE: PUT(unsigned, false);
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: PUT(unsigned, view->access);
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: PUT(CUmemoryPool, view->pool);
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE: PUT(size_t, view->mapping_size);
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR: PUT(CUdeviceptr, view->mapping_start);
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID: PUT(unsigned long long, view->id);
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE: PUT(unsigned, false);
	default: return CUDA_ERROR_INVALID_VALUE; /* P2P_TOKENS among them: there is no such peer */
	}
}

/* What the list form says where an attribute does not apply. */
static bool
put_nothing(void *data, CUpointer_attribute attribute)
{
	size_t size = 8;

	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
	case CU_POINTER_ATTRIBUTE_MAPPED:
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		size = 4;
		break;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: {
		int none = CU_DEVICE_INVALID;
		memcpy(data, &none, sizeof(none));
		return true;
	}
	case CU_POINTER_ATTRIBUTE_CONTEXT:
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
		break;
	default:
		return false;
	}
	memset(data, 0, size);
	return true;
}

CUresult
sw_cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	struct view view;
	SW_CTX(ctx);
	if (!look(ptr, &view))
		return CUDA_ERROR_INVALID_VALUE;
	return get(data, attribute, ptr, &view);
}

CUresult
sw_cuPointerGetAttributes(unsigned numAttributes, CUpointer_attribute *attributes, void **data, CUdeviceptr ptr)
{
	struct view view;
	SW_CTX(ctx);
	if (!numAttributes || !attributes || !data)
		return CUDA_ERROR_INVALID_VALUE;
	bool known = look(ptr, &view);
	for (unsigned i = 0; i < numAttributes; i++)
		if (!data[i] || ((!known || get(data[i], attributes[i], ptr, &view) != CUDA_SUCCESS) &&
		                 !put_nothing(data[i], attributes[i])))
			return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

CUresult
sw_cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	SW_CTX(ctx);
	struct sw_alloc *alloc = sw_alloc_find(ptr);
	if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !alloc || alloc->hidden || alloc->kind == SW_MEM_HOST ||
	    alloc->kind == SW_MEM_MANAGED)
		return CUDA_ERROR_INVALID_VALUE;
	alloc->sync_memops = *(const unsigned *)value != 0; /* see sw_place_of */
	return CUDA_SUCCESS;
}
