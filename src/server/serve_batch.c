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

/* Whether the source of a copy is read within the call, by the attributes that hold for it: those whose first copy is the last not behind it. */
static bool
is_now(const CUmemcpyAttributes *attributes, const size_t *indices, uint64_t count, size_t copy)
{
	bool now = false;

	for (uint64_t n = 0; attributes && indices && n < count && indices[n] <= copy; n++)
		now = attributes[n].srcAccessOrder == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
	return now;
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
	struct sv_staging staging = { .call = call, .stream = stream };
	*result = CUDA_SUCCESS;
	for (size_t n = 0; dsts && sizes && n < count && *result == CUDA_SUCCESS; n++)
		if ((*result = sv_stage(&staging, &dsts[n], sizes[n], false, false)) != CUDA_SUCCESS)
			failed = n;
	for (size_t n = 0; srcs && sizes && n < count && *result == CUDA_SUCCESS; n++)
		if ((*result = sv_stage(&staging, &srcs[n], sizes[n], true, is_now(attributes, indices, attribute_count, n))) != CUDA_SUCCESS)
			failed = n;
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_before(&staging);
	if (*result == CUDA_SUCCESS && call->id == CALL_cuMemcpyBatchAsync)
		*result = call->ops->cuMemcpyBatchAsync(dsts, srcs, sizes, count, attributes, indices, attribute_count, &failed, stream);
	else if (*result == CUDA_SUCCESS)
		*result = call->ops->cuMemcpyBatchAsync_v2(dsts, srcs, sizes, count, attributes, indices, attribute_count, stream);
	*result = sv_stage_after(&staging, *result);
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

/* Bytes of an element of the copy: an array's, 1 between linear memory. Never too few; *exact: nor too many. */
static size_t
element_of(struct sv_call *call, const CUmemcpy3DOperand *operand, bool *exact)
{
	CUDA_ARRAY3D_DESCRIPTOR array;

	*exact = true;
	if (operand->type != CU_MEMCPY_OPERAND_TYPE_ARRAY)
		return 1;
	if (call->ops->cuArray3DGetDescriptor_v2(&array, operand->op.array.array) != CUDA_SUCCESS) {
		*exact = false;
		return ELEMENT_MAX;
	}
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
		*exact = false;
		return ELEMENT_MAX;
	}
}

/* A side as one of CUDA_MEMCPY3D: here lengths are in elements. */
static CUresult
settle_operand(struct sv_staging *staging, const CUDA_MEMCPY3D_BATCH_OP *op, CUmemcpy3DOperand *operand, const CUmemcpy3DOperand *other, bool in)
{
	struct sv_call *call = staging->call;
	bool exact;
	CUDA_MEMCPY3D box = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED, .srcDevice = operand->op.ptr.ptr, .srcHeight = operand->op.ptr.layerHeight,
		.Height = op->extent.height, .Depth = op->extent.depth };
	size_t element = element_of(call, other, &exact);

	if (operand->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
		return CUDA_SUCCESS;
	if (operand->op.ptr.ptr & SESSION_FAR && sv_stages() && exact && op->extent.width && op->extent.height && op->extent.depth)
		return sv_stage_operand(staging, operand, &op->extent, element, in, op->srcAccessOrder == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL);
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
	struct sv_staging staging = { .call = call, .stream = stream };
	*result = CUDA_SUCCESS;
	for (uint64_t n = 0; list && n < count && *result == CUDA_SUCCESS; n++) {
		*result = settle_operand(&staging, &list[n], &list[n].src, &list[n].dst, true);
		if (*result == CUDA_SUCCESS)
			*result = settle_operand(&staging, &list[n], &list[n].dst, &list[n].src, false);
		if (*result != CUDA_SUCCESS)
			failed = n;
	}
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_before(&staging);
	if (*result == CUDA_SUCCESS && call->id == CALL_cuMemcpy3DBatchAsync)
		*result = call->ops->cuMemcpy3DBatchAsync(count, list, &failed, flags, stream);
	else if (*result == CUDA_SUCCESS)
		*result = call->ops->cuMemcpy3DBatchAsync_v2(count, list, flags, stream);
	*result = sv_stage_after(&staging, *result);
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

/* Where the sides of a box lie. */
static void
put_sides(CUDA_MEMCPY3D_PEER *c, const CUDA_MEMCPY3D *box)
{
	c->srcMemoryType = box->srcMemoryType;
	c->srcHost = box->srcHost;
	c->srcDevice = box->srcDevice;
	c->srcXInBytes = box->srcXInBytes;
	c->srcY = box->srcY;
	c->srcZ = box->srcZ;
	c->srcPitch = box->srcPitch;
	c->srcHeight = box->srcHeight;
	c->dstMemoryType = box->dstMemoryType;
	c->dstHost = box->dstHost;
	c->dstDevice = box->dstDevice;
	c->dstXInBytes = box->dstXInBytes;
	c->dstY = box->dstY;
	c->dstZ = box->dstZ;
	c->dstPitch = box->dstPitch;
	c->dstHeight = box->dstHeight;
}

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
	bool async = call->id == CALL_cuMemcpy3DPeerAsync;
	struct sv_staging staging = { .call = call, .stream = stream, .synchronous = !async };
	*result = sv_stage_box(&staging, &box, true);
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_box(&staging, &box, false);
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_before(&staging);
	put_sides(&c, &box);
	if (*result == CUDA_SUCCESS)
		*result = async ? call->ops->cuMemcpy3DPeerAsync(&c, stream) : call->ops->cuMemcpy3DPeer(&c);
	*result = sv_stage_after(&staging, *result);
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
