/*
 * Copies and fills in all their forms. Every form is reduced to a box of bytes between two addresses, checked completely before
 * anything is submitted, and then either run at once (nothing before it is unfinished), submitted, or submitted and awaited:
 * a copy that touches pageable host memory is done when the call returns, as with CUDA's staging.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"
#include "soft/soft.h"

#include <stdlib.h>
#include <string.h>

#define AT_ONCE_ASYNC ((size_t)16 << 10) /* what an idle stream does on the calling thread: quicker than to hand it over */
#define AT_ONCE_SYNC ((size_t)1 << 20)
#define STAGE_BYTES ((size_t)64 << 10) /* a pageable source up to this size is copied aside instead of being waited for */

/* ---- memory of another process ------------------------------------------------------------------------------------------ */

#define FAR_BYTES ((size_t)1 << 20) /* packed rows that are held at a time */
#define FAR_LIMIT ((uint64_t)1 << 47) /* no process has addresses beyond */

static const struct sw_far *far_memory; /* set once, before the first copy */

void
sw_far_install(const struct sw_far *far)
{
	far_memory = far;
}

static bool
is_far(const void *address)
{
	return (uint64_t)(uintptr_t)address & SW_FAR;
}

bool
sw_far_valid(uint64_t address, uint64_t size)
{
	uint64_t inside = address & ~SW_FAR;

	return far_memory && inside < FAR_LIMIT && size <= FAR_LIMIT - inside;
}

void *
sw_device_bytes(uint64_t address, uint64_t size)
{
	return size && sw_place_of(address, size) == SW_PLACE_DEVICE ? (void *)(uintptr_t)address : NULL;
}

/* Rows of one plane by way of `held`, which has room for as many as fit into FAR_BYTES, or for one. */
static void
copy_far_rows(char *dst, size_t dst_pitch, const char *src, size_t src_pitch, size_t width, size_t rows, char *held)
{
	if (is_far(src))
		far_memory->read(held, (uint64_t)(uintptr_t)src & ~SW_FAR, src_pitch, width, rows);
	for (size_t y = 0; !is_far(src) && y < rows; y++)
		memcpy(held + y * width, src + y * src_pitch, width);
	if (is_far(dst))
		far_memory->write((uint64_t)(uintptr_t)dst & ~SW_FAR, dst_pitch, held, width, rows);
	for (size_t y = 0; !is_far(dst) && y < rows; y++)
		memcpy(dst + y * dst_pitch, held + y * width, width);
}

/* A row longer than what is held goes in pieces. */
static void
copy_far(const struct sw_copy *copy)
{
	size_t width = copy->width < FAR_BYTES ? copy->width : FAR_BYTES, rows = FAR_BYTES / (width ? width : 1);
	char *held = malloc(FAR_BYTES);

	if (!held) {
		fw_error("device", "out of memory for a copy of another process's memory; it was not made");
		return;
	}
	for (size_t z = 0; z < copy->depth; z++)
		for (size_t y = 0; y < copy->height; y += rows) {
			size_t count = copy->height - y < rows ? copy->height - y : rows;
			const char *src = (const char *)copy->src + z * copy->src_slice + y * copy->src_pitch;
			char *dst = (char *)copy->dst + z * copy->dst_slice + y * copy->dst_pitch;
			for (size_t x = 0; x < copy->width; x += width)
				copy_far_rows(dst + x, copy->dst_pitch, src + x, copy->src_pitch, copy->width - x < width ? copy->width - x : width,
				              count, held);
		}
	free(held);
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

void
sw_copy_run(const struct sw_copy *copy)
{
	size_t width = copy->width, height = copy->height, depth = copy->depth;

	if (is_far(copy->src) || is_far(copy->dst)) {
		copy_far(copy);
		return;
	}

	if (width == copy->src_pitch && width == copy->dst_pitch) { /* rows touch: one row */
		width *= height;
		height = 1;
		if (depth > 1 && width == copy->src_slice && width == copy->dst_slice) {
			width *= depth;
			depth = 1;
		}
	}
	for (size_t z = 0; z < depth; z++) {
		const char *src = (const char *)copy->src + z * copy->src_slice;
		char *dst = (char *)copy->dst + z * copy->dst_slice;
		for (size_t y = 0; y < height; y++, src += copy->src_pitch, dst += copy->dst_pitch)
			memmove(dst, src, width);
	}
}

static void
fill_row(void *dst, size_t count, uint32_t value, uint32_t element)
{
	uint32_t bytes = element == 1 ? value & 0xff : element == 2 ? (value & 0xffff) : value;
	uint32_t spread = element == 1 ? bytes * 0x01010101u : element == 2 ? bytes * 0x00010001u : bytes;

	if ((spread & 0xff) * 0x01010101u == spread) {
		memset(dst, (int)(spread & 0xff), count * element);
	} else if (element == 2) {
		for (size_t i = 0; i < count; i++)
			((uint16_t *)dst)[i] = (uint16_t)bytes;
	} else {
		for (size_t i = 0; i < count; i++)
			((uint32_t *)dst)[i] = bytes;
	}
}

void
sw_fill_run(const struct sw_fill *fill)
{
	if (fill->pitch == fill->width * fill->element) {
		fill_row(fill->dst, fill->width * fill->height, fill->value, fill->element);
		return;
	}
	for (size_t y = 0; y < fill->height; y++)
		fill_row((char *)fill->dst + y * fill->pitch, fill->width, fill->value, fill->element);
}

uint64_t
sw_op_shared_bytes(const struct sw_op *op)
{
	uint64_t bytes = 0;

	if (op->kind == SW_OP_COPY && !is_far(op->copy.src) && !is_far(op->copy.dst)) {
		const struct sw_copy *c = &op->copy;
		bool rows = c->height == 1 || (c->width == c->src_pitch && c->width == c->dst_pitch);
		bool slices = c->depth == 1 || (rows && c->src_slice == c->width * c->height && c->dst_slice == c->src_slice);
		bytes = rows && slices ? (uint64_t)c->width * c->height * c->depth : 0;
	} else if (op->kind == SW_OP_FILL && (op->fill.height == 1 || op->fill.pitch == op->fill.width * op->fill.element)) {
		bytes = (uint64_t)op->fill.width * op->fill.height * op->fill.element;
	}
	return bytes >= SW_SHARE_BYTES ? bytes : 0;
}

void
sw_op_run_piece(const struct sw_op *op, uint64_t offset, uint64_t bytes)
{
	if (op->kind == SW_OP_COPY)
		memcpy((char *)op->copy.dst + offset, (const char *)op->copy.src + offset, bytes);
	else
		fill_row((char *)op->fill.dst + offset, bytes / op->fill.element, op->fill.value, op->fill.element);
}

/* ---- submitting ----------------------------------------------------------------------------------------------------------- */

/* When an asynchronous copy reads a pageable source: as soon as it likes, before it returns, not before its turn. */
enum mode { SYNC, ASYNC, ASYNC_SOURCE_NOW, ASYNC_SOURCE_IN_ORDER };

static bool
is_host(enum sw_place place)
{
	return place == SW_PLACE_HOST || place == SW_PLACE_PAGEABLE;
}

/* A copy whose operands have been checked. `api`: what capture records, NULL: made from the copy, which is then one row. */
static CUresult
submit(struct sw_stream *stream, const struct sw_copy *copy, enum sw_place src, enum sw_place dst, enum mode mode,
       const CUDA_MEMCPY3D *api)
{
	struct sw_op op = { .kind = SW_OP_COPY, .copy = *copy, .source = api };
	CUDA_MEMCPY3D row;

	if (stream->capture) {
		if (!api) {
			row = (CUDA_MEMCPY3D){
				.srcMemoryType = is_host(src) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE,
				.srcHost = is_host(src) ? copy->src : NULL,
				.srcDevice = is_host(src) ? 0 : (CUdeviceptr)(uintptr_t)copy->src,
				.dstMemoryType = is_host(dst) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE,
				.dstHost = is_host(dst) ? copy->dst : NULL,
				.dstDevice = is_host(dst) ? 0 : (CUdeviceptr)(uintptr_t)copy->dst,
				.srcPitch = copy->width, .srcHeight = 1, .dstPitch = copy->width, .dstHeight = 1,
				.WidthInBytes = copy->width, .Height = 1, .Depth = 1,
			};
			op.source = &row;
		}
		return mode == SYNC ? sw_submit_wait(stream, &op) : sw_submit(stream, &op);
	}
	/*
	 * Only copies from device to device are asynchronous in a synchronous call; managed memory counts as the host's too. From host to host
	 * every call is synchronous (driver API, "API synchronization behavior").
	 */
	bool wait = (mode == SYNC && (src != SW_PLACE_DEVICE || dst != SW_PLACE_DEVICE)) || dst == SW_PLACE_PAGEABLE ||
	            src == SW_PLACE_PAGEABLE || (is_host(src) && is_host(dst)) || mode == ASYNC_SOURCE_NOW;
	size_t bytes = copy->width * copy->height * copy->depth;
	if (!wait && bytes > (mode == SYNC ? AT_ONCE_SYNC : AT_ONCE_ASYNC))
		return sw_submit(stream, &op);
	if ((sw_device.threads == 1 || !sw_op_shared_bytes(&op)) && sw_stream_idle(stream)) {
		CUresult error = (CUresult)__atomic_load_n(&stream->ctx->error, __ATOMIC_ACQUIRE);
		if (error == CUDA_SUCCESS)
			sw_copy_run(copy);
		if (mode == SYNC)
			sw_output_flush();
		return error;
	}
	if (!wait)
		return sw_submit(stream, &op);
	bool one_row = copy->height == 1 && copy->depth == 1;
	if (mode != SYNC && mode != ASYNC_SOURCE_IN_ORDER && one_row && !is_host(dst) && copy->width <= STAGE_BYTES && !is_far(copy->src)) {
		op.copy_staged = true;
		return sw_submit(stream, &op);
	}
	CUresult result = sw_submit_wait(stream, &op);
	if (mode == SYNC)
		sw_output_flush();
	return result;
}

/* What an operand of a copy call must be. */
enum want { ANYTHING, ON_DEVICE };

static bool
place_fits(enum sw_place place, enum want want)
{
	return place != SW_PLACE_BAD && !(want == ON_DEVICE && place == SW_PLACE_PAGEABLE);
}

static CUresult
copy_row(uint64_t dst, enum want dst_want, uint64_t src, enum want src_want, size_t size, CUstream handle, enum mode mode)
{
	struct sw_stream *stream = NULL;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, handle, &stream);
	if (result != CUDA_SUCCESS || size == 0)
		return result;
	if (!dst || !src)
		return CUDA_ERROR_INVALID_VALUE;
	enum sw_place dst_place = sw_place_of(dst, size), src_place = sw_place_of(src, size);
	if (!place_fits(dst_place, dst_want) || !place_fits(src_place, src_want))
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_copy copy = { .src = (const void *)(uintptr_t)src, .dst = (void *)(uintptr_t)dst, .src_pitch = size,
		.src_slice = size, .dst_pitch = size, .dst_slice = size, .width = size, .height = 1, .depth = 1 };
	return submit(stream, &copy, src_place, dst_place, mode, NULL);
}

static uint64_t
at(const void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

CUresult
sw_cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
	return copy_row(dst, ANYTHING, src, ANYTHING, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)
{
	return copy_row(dst, ANYTHING, src, ANYTHING, ByteCount, hStream, ASYNC);
}

CUresult
sw_cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)
{
	return copy_row(dstDevice, ON_DEVICE, at(srcHost), ANYTHING, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
	return copy_row(dstDevice, ON_DEVICE, at(srcHost), ANYTHING, ByteCount, hStream, ASYNC);
}

CUresult
sw_cuMemcpyDtoH_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy_row(at(dstHost), ANYTHING, srcDevice, ON_DEVICE, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
	return copy_row(at(dstHost), ANYTHING, srcDevice, ON_DEVICE, ByteCount, hStream, ASYNC);
}

CUresult
sw_cuMemcpyDtoD_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy_row(dstDevice, ON_DEVICE, srcDevice, ON_DEVICE, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
	return copy_row(dstDevice, ON_DEVICE, srcDevice, ON_DEVICE, ByteCount, hStream, ASYNC);
}

static bool
are_contexts(CUcontext a, CUcontext b)
{
	return fw_handle_get(a, SW_KIND_CONTEXT) && fw_handle_get(b, SW_KIND_CONTEXT);
}

CUresult
sw_cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext, size_t ByteCount)
{
	if (!are_contexts(dstContext, srcContext))
		return CUDA_ERROR_INVALID_CONTEXT;
	return copy_row(dstDevice, ON_DEVICE, srcDevice, ON_DEVICE, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext, size_t ByteCount,
                     CUstream hStream)
{
	if (!are_contexts(dstContext, srcContext))
		return CUDA_ERROR_INVALID_CONTEXT;
	return copy_row(dstDevice, ON_DEVICE, srcDevice, ON_DEVICE, ByteCount, hStream, ASYNC);
}

/* ---- boxes ----------------------------------------------------------------------------------------------------------------- */

struct operand {
	CUmemorytype type;
	const void *host;
	CUdeviceptr device;
	CUarray array;
	size_t x, y, z, lod, pitch, height;
};

struct box {
	uint64_t address;
	size_t pitch, slice;
	enum sw_place place;
};

static CUresult
resolve_array(const struct operand *o, size_t width, size_t height, size_t depth, struct box *box)
{
	struct sw_array *array = fw_handle_get(o->array, SW_KIND_ARRAY);

	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	size_t row = array->desc.Width * array->element;
	if (o->lod || o->x % array->element || o->x > row || width > row - o->x || o->y > array->rows ||
	    height > array->rows - o->y || o->z > array->slices || depth > array->slices - o->z)
		return CUDA_ERROR_INVALID_VALUE;
	*box = (struct box){ .address = array->address + o->z * array->slice + o->y * array->pitch + o->x, .pitch = array->pitch,
		.slice = array->slice, .place = SW_PLACE_DEVICE };
	return CUDA_SUCCESS;
}

/* Where the box begins and how it steps; every byte of it is checked to be valid memory. */
static CUresult
resolve(const struct operand *o, size_t width, size_t height, size_t depth, struct box *box)
{
	size_t slice, start, last, part;

	if (o->type == CU_MEMORYTYPE_ARRAY)
		return resolve_array(o, width, height, depth, box);
	if (o->type != CU_MEMORYTYPE_HOST && o->type != CU_MEMORYTYPE_DEVICE && o->type != CU_MEMORYTYPE_UNIFIED)
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t base = o->type == CU_MEMORYTYPE_HOST ? at(o->host) : o->device;
	bool one_row = height == 1 && depth == 1;
	size_t pitch = o->pitch ? o->pitch : one_row ? o->x + width : 0;
	size_t rows = o->height ? o->height : depth == 1 ? o->y + height : 0;
	if (!base || o->lod || pitch > INT32_MAX + (size_t)(one_row ? SIZE_MAX / 2 : 0))
		return CUDA_ERROR_INVALID_VALUE;
	if (pitch < width || pitch - width < o->x || (depth > 1 && (rows < height || rows - height < o->y)))
		return CUDA_ERROR_INVALID_VALUE;
	if (__builtin_mul_overflow(pitch, rows, &slice) || __builtin_mul_overflow(o->z, slice, &start) ||
	    __builtin_mul_overflow(o->y, pitch, &part) || __builtin_add_overflow(start, part, &start) ||
	    __builtin_add_overflow(start, o->x, &start))
		return CUDA_ERROR_INVALID_VALUE;
	if (__builtin_mul_overflow(depth - 1, slice, &last) || __builtin_mul_overflow(height - 1, pitch, &part) ||
	    __builtin_add_overflow(last, part, &last) || __builtin_add_overflow(last, width, &last) ||
	    __builtin_add_overflow(base, start, &base))
		return CUDA_ERROR_INVALID_VALUE;
	*box = (struct box){ .address = base, .pitch = pitch, .slice = slice, .place = sw_place_of(base, last) };
	return place_fits(box->place, o->type == CU_MEMORYTYPE_DEVICE ? ON_DEVICE : ANYTHING) ? CUDA_SUCCESS
	                                                                                     : CUDA_ERROR_INVALID_VALUE;
}

static CUresult
resolve_both(const struct operand *src, const struct operand *dst, size_t width, size_t height, size_t depth,
             struct sw_copy *copy, enum sw_place *src_place, enum sw_place *dst_place)
{
	struct box from, to;
	CUresult result = resolve(src, width, height, depth, &from);

	if (result == CUDA_SUCCESS)
		result = resolve(dst, width, height, depth, &to);
	if (result != CUDA_SUCCESS)
		return result;
	*copy = (struct sw_copy){ .src = (const void *)(uintptr_t)from.address, .dst = (void *)(uintptr_t)to.address,
		.src_pitch = from.pitch, .src_slice = from.slice, .dst_pitch = to.pitch, .dst_slice = to.slice,
		.width = width, .height = height, .depth = depth };
	*src_place = from.place;
	*dst_place = to.place;
	return CUDA_SUCCESS;
}

static CUresult
resolve_api(const CUDA_MEMCPY3D *c, struct sw_copy *copy, enum sw_place *src_place, enum sw_place *dst_place)
{
	struct operand src = { c->srcMemoryType, c->srcHost, c->srcDevice, c->srcArray, c->srcXInBytes, c->srcY, c->srcZ, c->srcLOD,
		c->srcPitch, c->srcHeight };
	struct operand dst = { c->dstMemoryType, c->dstHost, c->dstDevice, c->dstArray, c->dstXInBytes, c->dstY, c->dstZ, c->dstLOD,
		c->dstPitch, c->dstHeight };

	return resolve_both(&src, &dst, c->WidthInBytes, c->Height, c->Depth, copy, src_place, dst_place);
}

CUresult
sw_copy_from_api(const CUDA_MEMCPY3D *api, struct sw_copy *copy)
{
	enum sw_place src, dst;

	if (!api->WidthInBytes || !api->Height || !api->Depth) {
		*copy = (struct sw_copy){ 0 };
		return CUDA_SUCCESS;
	}
	return resolve_api(api, copy, &src, &dst);
}

static CUresult
copy_box(const CUDA_MEMCPY3D *c, CUstream handle, enum mode mode)
{
	struct sw_stream *stream = NULL;
	enum sw_place src, dst;
	struct sw_copy copy;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, handle, &stream);
	if (result != CUDA_SUCCESS)
		return result;
	if (!c->WidthInBytes || !c->Height || !c->Depth)
		return CUDA_SUCCESS;
	result = resolve_api(c, &copy, &src, &dst);
	return result == CUDA_SUCCESS ? submit(stream, &copy, src, dst, mode, c) : result;
}

static CUresult
copy_2d(const CUDA_MEMCPY2D *c, CUstream handle, enum mode mode)
{
	if (!c)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D box = {
		.srcXInBytes = c->srcXInBytes, .srcY = c->srcY, .srcMemoryType = c->srcMemoryType, .srcHost = c->srcHost,
		.srcDevice = c->srcDevice, .srcArray = c->srcArray, .srcPitch = c->srcPitch, .dstXInBytes = c->dstXInBytes,
		.dstY = c->dstY, .dstMemoryType = c->dstMemoryType, .dstHost = c->dstHost, .dstDevice = c->dstDevice,
		.dstArray = c->dstArray, .dstPitch = c->dstPitch, .WidthInBytes = c->WidthInBytes, .Height = c->Height, .Depth = 1,
	};
	return copy_box(&box, handle, mode);
}

CUresult
sw_cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy)
{
	return copy_2d(pCopy, NULL, SYNC);
}

CUresult
sw_cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
	return copy_2d(pCopy, NULL, SYNC);
}

CUresult
sw_cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
	return copy_2d(pCopy, hStream, ASYNC);
}

CUresult
sw_cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy)
{
	return pCopy ? copy_box(pCopy, NULL, SYNC) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
	return pCopy ? copy_box(pCopy, hStream, ASYNC) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult
copy_peer(const CUDA_MEMCPY3D_PEER *c, CUstream handle, enum mode mode)
{
	if (!c)
		return CUDA_ERROR_INVALID_VALUE;
	if ((c->srcContext && !fw_handle_get(c->srcContext, SW_KIND_CONTEXT)) ||
	    (c->dstContext && !fw_handle_get(c->dstContext, SW_KIND_CONTEXT)))
		return CUDA_ERROR_INVALID_CONTEXT;
	CUDA_MEMCPY3D box = {
		.srcXInBytes = c->srcXInBytes, .srcY = c->srcY, .srcZ = c->srcZ, .srcLOD = c->srcLOD,
		.srcMemoryType = c->srcMemoryType, .srcHost = c->srcHost, .srcDevice = c->srcDevice, .srcArray = c->srcArray,
		.srcPitch = c->srcPitch, .srcHeight = c->srcHeight, .dstXInBytes = c->dstXInBytes, .dstY = c->dstY, .dstZ = c->dstZ,
		.dstLOD = c->dstLOD, .dstMemoryType = c->dstMemoryType, .dstHost = c->dstHost, .dstDevice = c->dstDevice,
		.dstArray = c->dstArray, .dstPitch = c->dstPitch, .dstHeight = c->dstHeight, .WidthInBytes = c->WidthInBytes,
		.Height = c->Height, .Depth = c->Depth,
	};
	return copy_box(&box, handle, mode);
}

CUresult
sw_cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *pCopy)
{
	return copy_peer(pCopy, NULL, SYNC);
}

CUresult
sw_cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)
{
	return copy_peer(pCopy, hStream, ASYNC);
}

/* ---- one-dimensional arrays ------------------------------------------------------------------------------------------------ */

static void
array_side(CUDA_MEMCPY3D *box, bool source, CUarray array, size_t offset)
{
	if (source) {
		box->srcMemoryType = CU_MEMORYTYPE_ARRAY;
		box->srcArray = array;
		box->srcXInBytes = offset;
	} else {
		box->dstMemoryType = CU_MEMORYTYPE_ARRAY;
		box->dstArray = array;
		box->dstXInBytes = offset;
	}
}

#define ROW_BOX(size) { .WidthInBytes = (size), .Height = 1, .Depth = 1 }

CUresult
sw_cuMemcpyDtoA_v2(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount)
{
	CUDA_MEMCPY3D box = ROW_BOX(ByteCount);

	array_side(&box, false, dstArray, dstOffset);
	box.srcMemoryType = CU_MEMORYTYPE_DEVICE;
	box.srcDevice = srcDevice;
	return copy_box(&box, NULL, SYNC);
}

CUresult
sw_cuMemcpyAtoD_v2(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	CUDA_MEMCPY3D box = ROW_BOX(ByteCount);

	array_side(&box, true, srcArray, srcOffset);
	box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
	box.dstDevice = dstDevice;
	return copy_box(&box, NULL, SYNC);
}

static CUresult
host_to_array(CUarray array, size_t offset, const void *host, size_t size, CUstream stream, enum mode mode)
{
	CUDA_MEMCPY3D box = ROW_BOX(size);

	array_side(&box, false, array, offset);
	box.srcMemoryType = CU_MEMORYTYPE_HOST;
	box.srcHost = host;
	return copy_box(&box, stream, mode);
}

static CUresult
array_to_host(void *host, CUarray array, size_t offset, size_t size, CUstream stream, enum mode mode)
{
	CUDA_MEMCPY3D box = ROW_BOX(size);

	array_side(&box, true, array, offset);
	box.dstMemoryType = CU_MEMORYTYPE_HOST;
	box.dstHost = host;
	return copy_box(&box, stream, mode);
}

CUresult
sw_cuMemcpyHtoA_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)
{
	return host_to_array(dstArray, dstOffset, srcHost, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount, CUstream hStream)
{
	return host_to_array(dstArray, dstOffset, srcHost, ByteCount, hStream, ASYNC);
}

CUresult
sw_cuMemcpyAtoH_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	return array_to_host(dstHost, srcArray, srcOffset, ByteCount, NULL, SYNC);
}

CUresult
sw_cuMemcpyAtoHAsync_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount, CUstream hStream)
{
	return array_to_host(dstHost, srcArray, srcOffset, ByteCount, hStream, ASYNC);
}

CUresult
sw_cuMemcpyAtoA_v2(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	CUDA_MEMCPY3D box = ROW_BOX(ByteCount);

	array_side(&box, true, srcArray, srcOffset);
	array_side(&box, false, dstArray, dstOffset);
	return copy_box(&box, NULL, SYNC);
}

/* ---- batches ------------------------------------------------------------------------------------------------------------------ */

static enum mode
batch_mode(CUmemcpySrcAccessOrder order)
{
	return order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL ? ASYNC_SOURCE_NOW
		: order == CU_MEMCPY_SRC_ACCESS_ORDER_STREAM ? ASYNC_SOURCE_IN_ORDER : ASYNC;
}

static bool
order_valid(CUmemcpySrcAccessOrder order)
{
	return order >= CU_MEMCPY_SRC_ACCESS_ORDER_STREAM && order <= CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
}

static CUresult
copy_batch(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs, size_t *attrsIdxs,
           size_t numAttrs, size_t *failed, CUstream hStream)
{
	SW_CTX(ctx);
	*failed = SIZE_MAX;
	if (!dsts || !srcs || !sizes || !count || !attrs || !attrsIdxs || !numAttrs || numAttrs > count || attrsIdxs[0] != 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (!hStream || hStream == CU_STREAM_LEGACY)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < numAttrs; i++)
		if (!order_valid(attrs[i].srcAccessOrder) || (attrs[i].flags & ~(unsigned)CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE) ||
		    (i && attrsIdxs[i] <= attrsIdxs[i - 1]) || attrsIdxs[i] >= count)
			return CUDA_ERROR_INVALID_VALUE;
	size_t attribute = 0;
	for (size_t i = 0; i < count; i++) {
		if (attribute + 1 < numAttrs && attrsIdxs[attribute + 1] == i)
			attribute++;
		CUresult result = sizes[i] ? copy_row(dsts[i], ANYTHING, srcs[i], ANYTHING, sizes[i], hStream,
		                                      batch_mode(attrs[attribute].srcAccessOrder))
		                           : CUDA_ERROR_INVALID_VALUE;
		if (result != CUDA_SUCCESS) {
			*failed = i;
			return result;
		}
	}
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemcpyBatchAsync(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs,
                      size_t *attrsIdxs, size_t numAttrs, size_t *failIdx, CUstream hStream)
{
	size_t failed = SIZE_MAX;
	CUresult result = copy_batch(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, &failed, hStream);

	if (result != CUDA_SUCCESS && failIdx)
		*failIdx = failed;
	return result;
}

CUresult
sw_cuMemcpyBatchAsync_v2(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs,
                         size_t *attrsIdxs, size_t numAttrs, CUstream hStream)
{
	size_t failed;

	return copy_batch(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, &failed, hStream);
}

static CUresult
batch_operand(const CUmemcpy3DOperand *o, size_t element, struct operand *out)
{
	if (o->type == CU_MEMCPY_OPERAND_TYPE_ARRAY) {
		*out = (struct operand){ .type = CU_MEMORYTYPE_ARRAY, .array = o->op.array.array, .x = o->op.array.offset.x * element,
			.y = o->op.array.offset.y, .z = o->op.array.offset.z };
		return CUDA_SUCCESS;
	}
	if (o->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
		return CUDA_ERROR_INVALID_VALUE;
	*out = (struct operand){ .type = CU_MEMORYTYPE_UNIFIED, .device = o->op.ptr.ptr, .pitch = o->op.ptr.rowLength * element,
		.height = o->op.ptr.layerHeight };
	return CUDA_SUCCESS;
}

static size_t
batch_element(const CUDA_MEMCPY3D_BATCH_OP *op)
{
	const CUmemcpy3DOperand *sides[] = { &op->src, &op->dst };
	size_t element = 1;

	for (int i = 0; i < 2; i++) {
		if (sides[i]->type != CU_MEMCPY_OPERAND_TYPE_ARRAY)
			continue;
		struct sw_array *array = fw_handle_get(sides[i]->op.array.array, SW_KIND_ARRAY);
		if (!array || (element != 1 && element != array->element))
			return 0;
		element = array->element;
	}
	return element;
}

static CUresult
copy_batch_box(const CUDA_MEMCPY3D_BATCH_OP *op, struct sw_stream *stream)
{
	size_t element = batch_element(op);
	struct operand src, dst;
	struct sw_copy copy;
	enum sw_place from, to;

	if (!element || !op->extent.width || !op->extent.height || !op->extent.depth || !order_valid(op->srcAccessOrder) ||
	    (op->flags & ~(unsigned)CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE))
		return CUDA_ERROR_INVALID_VALUE;
	if (batch_operand(&op->src, element, &src) != CUDA_SUCCESS || batch_operand(&op->dst, element, &dst) != CUDA_SUCCESS)
		return CUDA_ERROR_INVALID_VALUE;
	size_t width = op->extent.width * element;
	for (int i = 0; i < 2; i++) { /* zero: tightly packed */
		struct operand *o = i ? &dst : &src;
		if (o->type == CU_MEMORYTYPE_ARRAY)
			continue;
		if (!o->pitch)
			o->pitch = width;
		if (!o->height)
			o->height = op->extent.height;
	}
	CUresult result = resolve_both(&src, &dst, width, op->extent.height, op->extent.depth, &copy, &from, &to);
	if (result != CUDA_SUCCESS)
		return result;
	CUDA_MEMCPY3D api = {
		.srcMemoryType = src.type, .srcDevice = src.device, .srcArray = src.array, .srcXInBytes = src.x, .srcY = src.y,
		.srcZ = src.z, .srcPitch = src.pitch, .srcHeight = src.height, .dstMemoryType = dst.type, .dstDevice = dst.device,
		.dstArray = dst.array, .dstXInBytes = dst.x, .dstY = dst.y, .dstZ = dst.z, .dstPitch = dst.pitch,
		.dstHeight = dst.height, .WidthInBytes = width, .Height = op->extent.height, .Depth = op->extent.depth,
	};
	return submit(stream, &copy, from, to, batch_mode(op->srcAccessOrder), &api);
}

CUresult
sw_cuMemcpy3DBatchAsync(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, size_t *failIdx, unsigned long long flags, CUstream hStream)
{
	struct sw_stream *stream = NULL;
	SW_CTX(ctx);
	if (failIdx)
		*failIdx = SIZE_MAX;
	if (!numOps || !opList || flags || !hStream || hStream == CU_STREAM_LEGACY)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_stream_get(ctx, hStream, &stream);
	for (size_t i = 0; i < numOps && result == CUDA_SUCCESS; i++) {
		result = copy_batch_box(&opList[i], stream);
		if (result != CUDA_SUCCESS && failIdx)
			*failIdx = i;
	}
	return result;
}

CUresult
sw_cuMemcpy3DBatchAsync_v2(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, unsigned long long flags, CUstream hStream)
{
	return sw_cuMemcpy3DBatchAsync(numOps, opList, NULL, flags, hStream);
}

/* ---- fills ---------------------------------------------------------------------------------------------------------------------- */

CUresult
sw_fill_check(const struct sw_fill *fill)
{
	uint64_t dst = at(fill->dst), row = (uint64_t)fill->width * fill->element, size;

	if (fill->element != 1 && fill->element != 2 && fill->element != 4)
		return CUDA_ERROR_INVALID_VALUE;
	if (!dst || dst % fill->element || fill->width > SIZE_MAX / 4)
		return CUDA_ERROR_INVALID_VALUE;
	if (fill->height > 1 && (fill->pitch < row || fill->pitch % fill->element))
		return CUDA_ERROR_INVALID_VALUE;
	if (__builtin_mul_overflow((uint64_t)fill->pitch, (uint64_t)fill->height - 1, &size) ||
	    __builtin_add_overflow(size, row, &size))
		return CUDA_ERROR_INVALID_VALUE;
	return place_fits(sw_place_of(dst, size), ON_DEVICE) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult
fill(CUdeviceptr dst, size_t pitch, uint32_t value, uint32_t element, size_t width, size_t height, CUstream handle, enum mode mode)
{
	struct sw_stream *stream = NULL;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, handle, &stream);
	if (result != CUDA_SUCCESS || !width || !height)
		return result;
	struct sw_op op = { .kind = SW_OP_FILL, .fill = { .dst = (void *)(uintptr_t)dst, .width = width, .height = height,
		.pitch = height > 1 ? pitch : width * element, .value = value, .element = element } };
	result = sw_fill_check(&op.fill);
	if (result != CUDA_SUCCESS)
		return result;
	if (width * height * element <= (mode == SYNC ? AT_ONCE_SYNC : AT_ONCE_ASYNC) && sw_stream_idle(stream)) {
		result = (CUresult)__atomic_load_n(&stream->ctx->error, __ATOMIC_ACQUIRE);
		if (result == CUDA_SUCCESS)
			sw_fill_run(&op.fill);
		return result;
	}
	/* Only host memory makes a synchronous fill wait. */
	bool wait = mode == SYNC && sw_place_of(dst, 1) != SW_PLACE_DEVICE;
	return wait ? sw_submit_wait(stream, &op) : sw_submit(stream, &op);
}

#define FILL(bits, type) \
	CUresult \
	sw_cuMemsetD##bits##_v2(CUdeviceptr dst, type value, size_t count) \
	{ \
		return fill(dst, 0, value, bits / 8, count, 1, NULL, SYNC); \
	} \
	CUresult \
	sw_cuMemsetD##bits##Async(CUdeviceptr dst, type value, size_t count, CUstream stream) \
	{ \
		return fill(dst, 0, value, bits / 8, count, 1, stream, ASYNC); \
	} \
	CUresult \
	sw_cuMemsetD2D##bits##_v2(CUdeviceptr dst, size_t pitch, type value, size_t width, size_t height) \
	{ \
		return fill(dst, pitch, value, bits / 8, width, height, NULL, SYNC); \
	} \
	CUresult \
	sw_cuMemsetD2D##bits##Async(CUdeviceptr dst, size_t pitch, type value, size_t width, size_t height, CUstream stream) \
	{ \
		return fill(dst, pitch, value, bits / 8, width, height, stream, ASYNC); \
	}
FILL(8, unsigned char)
FILL(16, unsigned short)
FILL(32, unsigned)
