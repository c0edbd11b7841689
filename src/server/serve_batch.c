/*
 * The worker's half of src/client/remote_batch.c: lists of copies, copies between contexts.
 */
#include <stdlib.h>
#include <string.h>

#include "server/server.h"

#define UNWRITTEN (SIZE_MAX - 1) /* of an index that the device did not write; SIZE_MAX means no single copy */

static void
put_failed(struct sv_call *call, size_t failed)
{
	call_put_u64(&call->out, failed != UNWRITTEN);
	call_put_u64(&call->out, failed);
}

/* ---- lists of rows ------------------------------------------------------------------------------------------------- */

static CUresult
check_list(struct sv_call *call, const CUdeviceptr *addresses, const size_t *sizes, size_t count, size_t *failed)
{
	CUresult result = CUDA_SUCCESS;

	for (size_t n = 0; addresses && sizes && n < count && result == CUDA_SUCCESS; n++) {
		result = sv_may_touch(call, addresses[n], sizes[n]);
		if (result != CUDA_SUCCESS)
			*failed = n;
	}
	return result;
}

static bool
copy_list(struct sv_call *call, CUresult *result)
{
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);
	uint64_t count = call_get_u64(&call->in), attribute_count = call_get_u64(&call->in), counts[5];
	CUdeviceptr *dsts = (CUdeviceptr *)(uintptr_t)call_get_array(&call->in, sizeof(*dsts), &counts[0]);
	CUdeviceptr *srcs = (CUdeviceptr *)(uintptr_t)call_get_array(&call->in, sizeof(*srcs), &counts[1]);
	size_t *sizes = (size_t *)(uintptr_t)call_get_array(&call->in, sizeof(*sizes), &counts[2]);
	CUmemcpyAttributes *attributes = (CUmemcpyAttributes *)(uintptr_t)call_get_array(&call->in, sizeof(*attributes), &counts[3]);
	size_t *indices = (size_t *)(uintptr_t)call_get_array(&call->in, sizeof(*indices), &counts[4]);
	size_t failed = UNWRITTEN;

	if (call->in.bad || (dsts && counts[0] != count) || (srcs && counts[1] != count) || (sizes && counts[2] != count) ||
	    (attributes && counts[3] != attribute_count) || (indices && counts[4] != attribute_count))
		return false;
	*result = check_list(call, dsts, sizes, count, &failed);
	if (*result == CUDA_SUCCESS)
		*result = check_list(call, srcs, sizes, count, &failed);
	if (*result == CUDA_SUCCESS && call->id == CALL_cuMemcpyBatchAsync)
		*result = call->ops->cuMemcpyBatchAsync(dsts, srcs, sizes, count, attributes, indices, attribute_count, &failed, stream);
	else if (*result == CUDA_SUCCESS)
		*result = call->ops->cuMemcpyBatchAsync_v2(dsts, srcs, sizes, count, attributes, indices, attribute_count, stream);
	put_failed(call, failed);
	return true;
}

bool
sv_cuMemcpyBatchAsync(struct sv_call *call, CUresult *result)
{
	return copy_list(call, result);
}

bool
sv_cuMemcpyBatchAsync_v2(struct sv_call *call, CUresult *result)
{
	return copy_list(call, result);
}

/* ---- lists of boxes ------------------------------------------------------------------------------------------------ */

#define ELEMENT_MAX 16 /* bytes of four channels of 32 bits, or of a block of pixels */

/* Bytes of an element of the copy: an array's, 1 between linear memory. Never too few. */
static size_t
element_of(struct sv_call *call, const CUmemcpy3DOperand *operand)
{
	CUDA_ARRAY3D_DESCRIPTOR array;

	if (operand->type != CU_MEMCPY_OPERAND_TYPE_ARRAY)
		return 1;
	if (call->ops->cuArray3DGetDescriptor_v2(&array, operand->op.array.array) != CUDA_SUCCESS)
		return ELEMENT_MAX;
	switch (array.Format) {
	case CU_AD_FORMAT_UNSIGNED_INT8:
	case CU_AD_FORMAT_SIGNED_INT8:
		return array.NumChannels;
	case CU_AD_FORMAT_UNSIGNED_INT16:
	case CU_AD_FORMAT_SIGNED_INT16:
	case CU_AD_FORMAT_HALF:
		return 2 * array.NumChannels;
	case CU_AD_FORMAT_UNSIGNED_INT32:
	case CU_AD_FORMAT_SIGNED_INT32:
	case CU_AD_FORMAT_FLOAT:
		return 4 * array.NumChannels;
	default:
		return ELEMENT_MAX;
	}
}

/* A side as one of CUDA_MEMCPY3D: here lengths are in elements. */
static CUresult
check_operand(struct sv_call *call, const CUDA_MEMCPY3D_BATCH_OP *op, const CUmemcpy3DOperand *operand, const CUmemcpy3DOperand *other)
{
	CUDA_MEMCPY3D box = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED, .srcDevice = operand->op.ptr.ptr, .srcHeight = operand->op.ptr.layerHeight,
		.Height = op->extent.height, .Depth = op->extent.depth };
	size_t element = element_of(call, other);

	if (operand->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
		return CUDA_SUCCESS;
	if (__builtin_mul_overflow(op->extent.width, element, &box.WidthInBytes) ||
	    __builtin_mul_overflow(operand->op.ptr.rowLength, element, &box.srcPitch))
		return CUDA_ERROR_INVALID_VALUE;
	return sv_may_touch_box(call, &box, true);
}

static bool
copy_boxes(struct sv_call *call, CUresult *result)
{
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);
	uint64_t flags = call_get_u64(&call->in), count = call_get_u64(&call->in), there;
	CUDA_MEMCPY3D_BATCH_OP *list = (CUDA_MEMCPY3D_BATCH_OP *)(uintptr_t)call_get_array(&call->in, sizeof(*list), &there);
	size_t failed = UNWRITTEN;

	if (call->in.bad || (list && there != count))
		return false;
	*result = CUDA_SUCCESS;
	for (uint64_t n = 0; list && n < count && *result == CUDA_SUCCESS; n++) {
		*result = check_operand(call, &list[n], &list[n].src, &list[n].dst);
		if (*result == CUDA_SUCCESS)
			*result = check_operand(call, &list[n], &list[n].dst, &list[n].src);
		if (*result != CUDA_SUCCESS)
			failed = n;
	}
	if (*result == CUDA_SUCCESS && call->id == CALL_cuMemcpy3DBatchAsync)
		*result = call->ops->cuMemcpy3DBatchAsync(count, list, &failed, flags, stream);
	else if (*result == CUDA_SUCCESS)
		*result = call->ops->cuMemcpy3DBatchAsync_v2(count, list, flags, stream);
	put_failed(call, failed);
	return true;
}

bool
sv_cuMemcpy3DBatchAsync(struct sv_call *call, CUresult *result)
{
	return copy_boxes(call, result);
}

bool
sv_cuMemcpy3DBatchAsync_v2(struct sv_call *call, CUresult *result)
{
	return copy_boxes(call, result);
}

/* ---- between contexts ---------------------------------------------------------------------------------------------- */

static bool
copy_peer(struct sv_call *call, CUresult *result)
{
	CUDA_MEMCPY3D_PEER c;
	const void *bytes = call_get(&call->in, sizeof(c));
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);

	if (call->in.bad)
		return false;
	memcpy(&c, bytes, sizeof(c));
	CUDA_MEMCPY3D box = { .srcXInBytes = c.srcXInBytes, .srcY = c.srcY, .srcZ = c.srcZ, .srcMemoryType = c.srcMemoryType, .srcHost = c.srcHost,
		.srcDevice = c.srcDevice, .srcPitch = c.srcPitch, .srcHeight = c.srcHeight, .dstXInBytes = c.dstXInBytes, .dstY = c.dstY,
		.dstZ = c.dstZ, .dstMemoryType = c.dstMemoryType, .dstHost = c.dstHost, .dstDevice = c.dstDevice, .dstPitch = c.dstPitch,
		.dstHeight = c.dstHeight, .WidthInBytes = c.WidthInBytes, .Height = c.Height, .Depth = c.Depth };
	*result = sv_may_touch_box(call, &box, true);
	if (*result == CUDA_SUCCESS)
		*result = sv_may_touch_box(call, &box, false);
	if (*result == CUDA_SUCCESS)
		*result = call->id == CALL_cuMemcpy3DPeer ? call->ops->cuMemcpy3DPeer(&c) : call->ops->cuMemcpy3DPeerAsync(&c, stream);
	return true;
}

bool
sv_cuMemcpy3DPeer(struct sv_call *call, CUresult *result)
{
	return copy_peer(call, result);
}

bool
sv_cuMemcpy3DPeerAsync(struct sv_call *call, CUresult *result)
{
	return copy_peer(call, result);
}
