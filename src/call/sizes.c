/*
 * How large a value is that a call passes as void*, by the attribute that says what it is (driver API: CUmemPool_attribute,
 * CUgraphMem_attribute, CUpointer_attribute).
 */
#include "call/sizes.h"

#include "cuda_ops.h"

static size_t
pool_attribute(int attribute)
{
	switch ((CUmemPool_attribute)attribute) {
	case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
		return sizeof(int);
	default:
		return sizeof(uint64_t);
	}
}

static size_t
graph_memory_attribute(int attribute)
{
	(void)attribute;
	return sizeof(uint64_t);
}

static size_t
pointer_attribute(int attribute)
{
	switch ((CUpointer_attribute)attribute) {
	case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
		return 2 * sizeof(uint64_t);
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
	case CU_POINTER_ATTRIBUTE_MAPPED:
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
		return sizeof(uint32_t);
	default:
		return sizeof(uint64_t);
	}
}

const call_size_fn call_sizes[3] = { pool_attribute, graph_memory_attribute, pointer_attribute };
