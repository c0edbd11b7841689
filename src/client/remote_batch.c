/*
 * Lists of copies over the wire, and copies that name a context for each side. The program's own memory travels as addresses: the worker
 * asks for the bytes when the copy runs, in the order of the stream (src/client/remote_callback.c).
 */
#include <stdlib.h>

#include "client/remote.h"

#define LIST_MAX (SESSION_BLOB_MAX / 1024) /* copies in one call */

/* ---- lists of rows ------------------------------------------------------------------------------------------------- */

/* Each address as the worker reaches it, in place. */
static CUresult
reach_all(struct call_writer *out, const CUdeviceptr *addresses, const size_t *sizes, size_t count)
{
	if (!addresses) {
		call_put_array(out, NULL, 1, 1);
		return CUDA_SUCCESS;
	}
	call_put_u64(out, count);
	for (size_t n = 0; n < count; n++) {
		CUdeviceptr address = addresses[n];
		CUresult result = rm_reach(&address, sizes ? sizes[n] : 1);
		if (result != CUDA_SUCCESS)
			return result;
		call_put_u64(out, address);
	}
	return CUDA_SUCCESS;
}

/* The failed index as the worker's device left it; the program's stays as it is if it was not written. */
static CUresult
ask_batch(struct rm_request *r, size_t *failed)
{
	struct fw_cursor in;
	CUresult result = rm_ask(r, &in);
	uint64_t written = call_get_u64(&in), index = call_get_u64(&in);

	if (failed && !in.bad && written)
		*failed = index;
	rm_end(r);
	return result;
}

static CUresult
copy_list(enum cuda_call_id call, CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs,
          size_t *attrsIdxs, size_t numAttrs, size_t *failIdx, CUstream hStream)
{
	struct rm_request r;

	if (count > LIST_MAX || numAttrs > LIST_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	/* Addresses first, into memory of their own: finding out where they lie sends records. */
	uint8_t *bytes = malloc(2 * (count + 1) * sizeof(CUdeviceptr));
	if (!bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct call_writer addresses = { .data = bytes, .size = 2 * (count + 1) * sizeof(CUdeviceptr) };
	CUresult result = reach_all(&addresses, dsts, sizes, count);
	if (result == CUDA_SUCCESS)
		result = reach_all(&addresses, srcs, sizes, count);
	if (result == CUDA_SUCCESS) {
		rm_begin(&r, (uint16_t)call, addresses.at + 64 + count * sizeof(*sizes) + numAttrs * (sizeof(*attrs) + 8 + sizeof(*attrsIdxs)));
		call_put_u64(&r.out, (uint64_t)(uintptr_t)hStream);
		call_put_u64(&r.out, count);
		call_put_u64(&r.out, numAttrs);
		call_put(&r.out, bytes, addresses.at);
		call_put_array(&r.out, sizes, sizes ? count : 1, sizeof(*sizes));
		call_put_array(&r.out, attrs, attrs ? numAttrs : 1, sizeof(*attrs));
		call_put_array(&r.out, attrsIdxs, attrsIdxs ? numAttrs : 1, sizeof(*attrsIdxs));
		result = ask_batch(&r, failIdx);
	}
	free(bytes);
	return result;
}

CUresult
rm_cuMemcpyBatchAsync(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs, size_t *attrsIdxs,
                      size_t numAttrs, size_t *failIdx, CUstream hStream)
{
	return copy_list(CALL_cuMemcpyBatchAsync, dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, failIdx, hStream);
}

CUresult
rm_cuMemcpyBatchAsync_v2(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs,
                         size_t *attrsIdxs, size_t numAttrs, CUstream hStream)
{
	return copy_list(CALL_cuMemcpyBatchAsync_v2, dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, NULL, hStream);
}

/* ---- lists of boxes ------------------------------------------------------------------------------------------------ */

#define ELEMENT_MAX 16 /* bytes of an array's element, in which lengths are said if an array takes part */

static CUresult
reach_operand(CUmemcpy3DOperand *operand, const CUmemcpy3DOperand *other, const CUextent3D *extent)
{
	size_t element = other->type == CU_MEMCPY_OPERAND_TYPE_ARRAY ? ELEMENT_MAX : 1, width, pitch;
	struct rm_side side = { .type = CU_MEMORYTYPE_UNIFIED, .height = operand->op.ptr.layerHeight };
	const void *none = NULL;

	if (operand->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
		return CUDA_SUCCESS;
	if (__builtin_mul_overflow(extent->width, element, &width) || __builtin_mul_overflow(operand->op.ptr.rowLength, element, &pitch))
		return CUDA_ERROR_INVALID_VALUE;
	side.pitch = pitch;
	return rm_reach_side(&side, &none, &operand->op.ptr.ptr, width, extent->height, extent->depth);
}

static CUresult
copy_boxes(enum cuda_call_id call, size_t numOps, const CUDA_MEMCPY3D_BATCH_OP *opList, size_t *failIdx, unsigned long long flags,
           CUstream hStream)
{
	CUDA_MEMCPY3D_BATCH_OP *list = NULL;
	CUresult result = CUDA_SUCCESS;
	struct rm_request r;

	if (numOps > LIST_MAX)
		return CUDA_ERROR_INVALID_VALUE;
	if (opList && !(list = malloc((numOps + 1) * sizeof(*list))))
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t n = 0; list && n < numOps && result == CUDA_SUCCESS; n++) {
		list[n] = opList[n];
		result = reach_operand(&list[n].src, &list[n].dst, &list[n].extent);
		if (result == CUDA_SUCCESS)
			result = reach_operand(&list[n].dst, &list[n].src, &list[n].extent);
	}
	if (result == CUDA_SUCCESS) {
		rm_begin(&r, (uint16_t)call, 48 + numOps * sizeof(*list));
		call_put_u64(&r.out, (uint64_t)(uintptr_t)hStream);
		call_put_u64(&r.out, flags);
		call_put_u64(&r.out, numOps);
		call_put_array(&r.out, list, list ? numOps : 1, sizeof(*list));
		result = ask_batch(&r, failIdx);
	}
	free(list);
	return result;
}

CUresult
rm_cuMemcpy3DBatchAsync(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, size_t *failIdx, unsigned long long flags, CUstream hStream)
{
	return copy_boxes(CALL_cuMemcpy3DBatchAsync, numOps, opList, failIdx, flags, hStream);
}

CUresult
rm_cuMemcpy3DBatchAsync_v2(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, unsigned long long flags, CUstream hStream)
{
	return copy_boxes(CALL_cuMemcpy3DBatchAsync_v2, numOps, opList, NULL, flags, hStream);
}

/* ---- between contexts ---------------------------------------------------------------------------------------------- */

static CUresult
copy_peer(enum cuda_call_id call, const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)
{
	struct rm_request r;

	if (!pCopy)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D_PEER c = *pCopy;
	struct rm_side src = { c.srcMemoryType, c.srcXInBytes, c.srcY, c.srcZ, c.srcPitch, c.srcHeight };
	struct rm_side dst = { c.dstMemoryType, c.dstXInBytes, c.dstY, c.dstZ, c.dstPitch, c.dstHeight };
	CUresult result = rm_reach_side(&src, &c.srcHost, &c.srcDevice, c.WidthInBytes, c.Height, c.Depth);
	if (result == CUDA_SUCCESS)
		result = rm_reach_side(&dst, (const void **)&c.dstHost, &c.dstDevice, c.WidthInBytes, c.Height, c.Depth);
	if (result != CUDA_SUCCESS)
		return result;
	rm_begin(&r, (uint16_t)call, 8 + sizeof(c));
	call_put(&r.out, &c, sizeof(c));
	call_put_u64(&r.out, (uint64_t)(uintptr_t)hStream);
	return rm_do(&r);
}

CUresult
rm_cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *pCopy)
{
	return copy_peer(CALL_cuMemcpy3DPeer, pCopy, NULL);
}

CUresult
rm_cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)
{
	return copy_peer(CALL_cuMemcpy3DPeerAsync, pCopy, hStream);
}

/* ---- attributes of ranges ------------------------------------------------------------------------------------------ */

CUresult
rm_cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes, size_t numAttributes, CUdeviceptr devPtr,
                           size_t count)
{
	CUresult result = data && dataSizes && attributes && numAttributes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

	for (size_t n = 0; n < numAttributes && result == CUDA_SUCCESS; n++)
		result = rm_ops_table()->cuMemRangeGetAttribute(data[n], dataSizes[n], attributes[n], devPtr, count);
	return result;
}
