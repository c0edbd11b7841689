/*
 * Copies between this process's memory and the device behind the server.
 *
 * Pageable memory travels in the records, in chunks, so that the worker copies one while the next is written. Memory that both sides have
 * at the same address (remote_host.c, remote_managed.c) needs a record without bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "call/sizes.h"
#include "client/remote.h"

#define INLINE (WIRE_PAYLOAD_MAX - 64) /* bytes of a copy that fit into one record */
#define LONG_COPY (64ul << 10)         /* from here on a system call more does not count */

/* ---- where an address is ------------------------------------------------------------------------------------------- */

/* Whether the device behind the server knows the address. Asked once for each allocation, until something is freed. *base, *size: the
 * allocation. */
static bool
is_device(uint64_t p, CUdeviceptr *base, size_t *size)
{
	struct rm_thread *thread = rm_thread();
	uint64_t epoch = rm_epoch(CALL_TOUCHES_MEMORY | CALL_TOUCHES_OTHER);

	for (unsigned n = 0; thread && n < RM_RANGES; n++)
		if (thread->ranges[n].epoch == epoch && p - thread->ranges[n].base < thread->ranges[n].size) {
			*base = thread->ranges[n].base;
			*size = thread->ranges[n].size;
			return true;
		}
	if (rm_ops_table()->cuMemGetAddressRange_v2(base, size, p) != CUDA_SUCCESS || p - *base >= *size)
		return false;
	if (thread)
		thread->ranges[thread->next_range++ % RM_RANGES] = (struct rm_range){ *base, *size, epoch };
	return true;
}

/* Whether all of it is memory of the worker: one that is pinned, or one allocation of the device. */
static bool
is_whole_there(uint64_t p, size_t size)
{
	CUdeviceptr base;
	size_t whole;

	return rm_host_kind(p, size) == RM_HOST_SHARED ||
	       (is_device(p, &base, &whole) && size <= whole - (size_t)(p - base));
}

/* How the worker reaches a side of a copy. */
enum place { PLACE_WORKER, PLACE_HERE };

static enum place
host_place(const void *p, size_t size)
{
	return rm_host_kind((uintptr_t)p, size) == RM_HOST_SHARED || rm_is_managed((uintptr_t)p, size) ? PLACE_WORKER : PLACE_HERE;
}

/* Whether this process has memory at the address: else it is an address that was the device's, or none, and the worker says so. */
static bool
is_mapped(uint64_t p)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned char resident;

	return mincore((void *)(uintptr_t)(p & ~(page - 1)), 1, &resident) == 0 || errno != ENOMEM;
}

static enum place
any_place(uint64_t p, size_t size)
{
	enum rm_host kind = rm_host_kind(p, size);
	CUdeviceptr base;
	size_t whole;

	if (kind == RM_HOST_OWN)
		return PLACE_HERE;
	return kind == RM_HOST_SHARED || rm_in_space(p) || is_device(p, &base, &whole) || !is_mapped(p) ? PLACE_WORKER : PLACE_HERE;
}

CUresult
rm_reach(CUdeviceptr *address, size_t size)
{
	if (!*address || any_place(*address, size) == PLACE_WORKER)
		return CUDA_SUCCESS;
	CUresult result = rm_offer(*address, size);
	*address |= SESSION_FAR;
	return result;
}

CUresult
rm_reach_side(const struct rm_side *side, const void **host, CUdeviceptr *device, size_t width, size_t height, size_t depth)
{
	CUdeviceptr address = (CUdeviceptr)(uintptr_t)*host;
	size_t row, rows, planes, bytes;

	if ((side->type != CU_MEMORYTYPE_UNIFIED && side->type != CU_MEMORYTYPE_HOST) || !width || !height || !depth)
		return CUDA_SUCCESS;
	/* From the side's address to the end of its box. */
	if (__builtin_add_overflow(side->x, width, &row) || __builtin_add_overflow(side->y, height, &rows) ||
	    __builtin_add_overflow(side->z, depth, &planes) ||
	    __builtin_mul_overflow(planes - 1, side->height > rows ? side->height : rows, &bytes) ||
	    __builtin_add_overflow(bytes, rows - 1, &bytes) || __builtin_mul_overflow(bytes, side->pitch > row ? side->pitch : row, &bytes) ||
	    __builtin_add_overflow(bytes, row, &bytes))
		return CUDA_ERROR_INVALID_VALUE;
	if (side->type == CU_MEMORYTYPE_UNIFIED)
		return rm_reach(device, bytes);
	CUresult result = rm_reach(&address, bytes);
	*host = (const void *)(uintptr_t)address;
	return result;
}

CUresult
rm_reach_box(CUDA_MEMCPY3D *c)
{
	struct rm_side src = { c->srcMemoryType, c->srcXInBytes, c->srcY, c->srcZ, c->srcPitch, c->srcHeight };
	struct rm_side dst = { c->dstMemoryType, c->dstXInBytes, c->dstY, c->dstZ, c->dstPitch, c->dstHeight };

	CUresult result = rm_reach_side(&src, &c->srcHost, &c->srcDevice, c->WidthInBytes, c->Height, c->Depth);
	if (result != CUDA_SUCCESS)
		return result;
	return rm_reach_side(&dst, (const void **)&c->dstHost, &c->dstDevice, c->WidthInBytes, c->Height, c->Depth);
}

/* Copies into a graph that is being captured read and write this process's memory when the graph runs, not now. */
static bool
is_capturing(CUstream stream)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;

	return rm_may_capture() && rm_ops_table()->cuStreamIsCapturing(stream, &status) == CUDA_SUCCESS &&
	       status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* ---- rows of bytes ------------------------------------------------------------------------------------------------- */

/* Both sides of the copy are the worker's: addresses alone travel. `call` is one of the unified copies. */
static CUresult
copy_there(bool async, uint64_t dst, uint64_t src, size_t size, CUstream stream)
{
	/* Between places that are known, only the stream can be wrong. */
	uint64_t like[] = { (uint64_t)(uintptr_t)stream };
	bool known = async && is_whole_there(dst, size) && is_whole_there(src, size);
	struct rm_request r;

	rm_begin(&r, async ? CALL_cuMemcpyAsync : CALL_cuMemcpy, 32);
	call_put_u64(&r.out, dst);
	call_put_u64(&r.out, src);
	call_put_u64(&r.out, size);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)stream);
	return known ? rm_send_like(&r, like, 1) : rm_do(&r);
}

static CUresult
copy_in(bool async, uint64_t dst, const uint8_t *src, size_t size, CUstream stream)
{
	uint64_t like[] = { (uint64_t)(uintptr_t)stream, size > INLINE };
	bool known = async && size && is_whole_there(dst, size);
	struct rm_request r;
	size_t at = 0;

	do {
		size_t part = size - at <= INLINE ? size - at : SESSION_CHUNK;
		rm_begin(&r, async ? CALL_cuMemcpyHtoDAsync_v2 : CALL_cuMemcpyHtoD_v2, part + 40);
		call_put_u64(&r.out, dst);
		call_put_u64(&r.out, size);
		call_put_u64(&r.out, at);
		call_put_u64(&r.out, part);
		call_put_u64(&r.out, (uint64_t)(uintptr_t)stream);
		if (part && !r.out.bad && r.out.data)
			memcpy(r.out.data + r.out.at, src + at, part);
		r.out.at += part;
		at += part;
		if (at == size) /* what it copies came along: the program may have its memory back */
			return known ? rm_send_like(&r, like, 2) : rm_do(&r);
		CUresult result = rm_send(&r);
		if (result != CUDA_SUCCESS)
			return result;
	} while (1);
}

struct target {
	uint8_t *at;
	size_t left;
};

static void
take_bytes(void *user, const uint8_t *bytes, size_t size)
{
	struct target *target = user;

	if (size > target->left)
		size = target->left; /* a server that sends more than was asked for */
	memcpy(target->at, bytes, size);
	target->at += size;
	target->left -= size;
}

static CUresult
copy_out(bool async, uint8_t *dst, uint64_t src, size_t size, CUstream stream)
{
	struct rm_request r;
	struct fw_cursor in;
	struct target target = { dst, size };

	/* When the bytes are here the stream is done: the worker makes sure, and who synchronises next need not ask. */
	bool settles = rm_objects_count();

	rm_begin(&r, async ? CALL_cuMemcpyDtoHAsync_v2 : CALL_cuMemcpyDtoH_v2, 32);
	r.sink = take_bytes;
	r.user = &target;
	call_put_u64(&r.out, src);
	call_put_u64(&r.out, size);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)stream);
	call_put_u64(&r.out, settles);
	CUresult result = rm_ask(&r, &in);
	rm_end(&r);
	if (result == CUDA_SUCCESS && settles)
		rm_stream_proved(&r, stream);
	return result == CUDA_SUCCESS && target.left ? rm_nonsense(&r) : result;
}

/* Whether a copy is to read what this process does not have: its size is likely to be wrong. */
static bool
is_too_long(uint64_t src, size_t size)
{
	return src + size < src || (size >= LONG_COPY && !is_mapped(src + size - 1));
}

static CUresult
copy(bool async, uint64_t dst, enum place to, uint64_t src, enum place from, size_t size, CUstream stream)
{
	if (!size)
		return copy_in(async, dst, NULL, 0, stream); /* which does nothing there, but says what is wrong with the stream */
	if (!dst || !src)
		return CUDA_ERROR_INVALID_VALUE;
	if (to == PLACE_WORKER && from == PLACE_WORKER)
		return copy_there(async, dst, src, size, stream);
	if (async && is_capturing(stream)) {
		CUresult result = to == PLACE_HERE ? rm_offer(dst, size) : CUDA_SUCCESS;
		if (result == CUDA_SUCCESS && from == PLACE_HERE)
			result = rm_offer(src, size);
		dst |= to == PLACE_HERE ? SESSION_FAR : 0;
		src |= from == PLACE_HERE ? SESSION_FAR : 0;
		return result == CUDA_SUCCESS ? copy_there(true, dst, src, size, stream) : result;
	}
	if (to == PLACE_WORKER && is_too_long(src, size)) {
		/* Nothing is read before the device has had a look at where it is to go, as on a local one. */
		CUresult result = copy_there(async, dst, dst, size, stream);
		return result == CUDA_SUCCESS ? CUDA_ERROR_INVALID_VALUE : result;
	}
	if (to == PLACE_WORKER)
		return rm_bulk_wanted(size) ? rm_bulk_in(async, dst, (const void *)(uintptr_t)src, size, stream)
			: copy_in(async, dst, (const uint8_t *)(uintptr_t)src, size, stream);
	if (from == PLACE_WORKER && rm_bulk_wanted(size))
		return rm_bulk_out(async, (void *)(uintptr_t)dst, src, size, stream);
	if (from == PLACE_WORKER)
		return copy_out(async, (uint8_t *)(uintptr_t)dst, src, size, stream);
	/* Host to host is synchronous, after what the stream holds. */
	CUresult result = async ? rm_ops_table()->cuStreamSynchronize(stream) : rm_ops_table()->cuStreamSynchronize(NULL);
	if (result == CUDA_SUCCESS)
		memmove((void *)(uintptr_t)dst, (const void *)(uintptr_t)src, size);
	return result;
}

CUresult
rm_cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)
{
	return copy(false, dstDevice, PLACE_WORKER, (uintptr_t)srcHost, host_place(srcHost, ByteCount), ByteCount, NULL);
}

CUresult
rm_cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
	return copy(true, dstDevice, PLACE_WORKER, (uintptr_t)srcHost, host_place(srcHost, ByteCount), ByteCount, hStream);
}

CUresult
rm_cuMemcpyDtoH_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy(false, (uintptr_t)dstHost, host_place(dstHost, ByteCount), srcDevice, PLACE_WORKER, ByteCount, NULL);
}

CUresult
rm_cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
	return copy(true, (uintptr_t)dstHost, host_place(dstHost, ByteCount), srcDevice, PLACE_WORKER, ByteCount, hStream);
}

CUresult
rm_cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
	return copy(false, dst, any_place(dst, ByteCount), src, any_place(src, ByteCount), ByteCount, NULL);
}

CUresult
rm_cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)
{
	return copy(true, dst, any_place(dst, ByteCount), src, any_place(src, ByteCount), ByteCount, hStream);
}

/* ---- boxes of bytes ------------------------------------------------------------------------------------------------ */

/*
 * A side of a 2-D or 3-D copy that lies in this process: its rows travel packed, and the worker is told a pitch and height that fit.
 */
struct box {
	uint8_t *at;
	size_t pitch, slice; /* bytes from row to row, from plane to plane */
};

static size_t
box_bytes(const CUDA_MEMCPY3D *c)
{
	size_t rows, bytes;

	if (__builtin_mul_overflow(c->Height, c->Depth, &rows) || __builtin_mul_overflow(rows, c->WidthInBytes, &bytes))
		return SIZE_MAX;
	return bytes;
}

static struct box
box_of(const void *host, size_t pitch, size_t height, size_t x, size_t y, size_t z, const CUDA_MEMCPY3D *c)
{
	pitch = pitch ? pitch : c->WidthInBytes + x;
	height = height ? height : c->Height + y;
	return (struct box){ (uint8_t *)(uintptr_t)host + (z * height + y) * pitch + x, pitch, pitch * height };
}

static void
gather(uint8_t *to, const struct box *box, const CUDA_MEMCPY3D *c)
{
	for (size_t z = 0; z < c->Depth; z++)
		for (size_t y = 0; y < c->Height; y++, to += c->WidthInBytes)
			memcpy(to, box->at + z * box->slice + y * box->pitch, c->WidthInBytes);
}

static void
scatter(const struct box *box, const uint8_t *from, const CUDA_MEMCPY3D *c)
{
	for (size_t z = 0; z < c->Depth; z++)
		for (size_t y = 0; y < c->Height; y++, from += c->WidthInBytes)
			memcpy(box->at + z * box->slice + y * box->pitch, from, c->WidthInBytes);
}

/* Says where a side lies: true: in this process. A unified address that only this process knows becomes a host one. */
static bool
side_is_here(CUmemorytype *type, const void *host, CUdeviceptr *device, size_t size, const void **where)
{
	if (*type == CU_MEMORYTYPE_HOST) {
		*where = host;
		if (host_place(host, size) == PLACE_HERE)
			return true;
		*type = CU_MEMORYTYPE_UNIFIED;
		*device = (CUdeviceptr)(uintptr_t)host;
		return false;
	}
	*where = (const void *)(uintptr_t)*device;
	if (*type == CU_MEMORYTYPE_UNIFIED && any_place(*device, size) == PLACE_HERE) {
		*type = CU_MEMORYTYPE_HOST;
		return true;
	}
	return false;
}

/* A copy into a graph that is being captured: the worker gets the addresses and asks for the rows when the graph runs. */
static CUresult
capture_box(enum cuda_call_id call, const CUDA_MEMCPY3D *given, CUstream stream)
{
	CUDA_MEMCPY3D c = *given;
	struct rm_request r;

	CUresult result = rm_reach_box(&c);
	if (result != CUDA_SUCCESS)
		return result;
	rm_begin(&r, (uint16_t)call, sizeof(c) + 32);
	call_put(&r.out, &c, sizeof(c));
	call_put_u64(&r.out, (uint64_t)(uintptr_t)stream);
	call_put_u64(&r.out, 0);
	call_put_u64(&r.out, 0);
	return rm_do(&r);
}

/*
 * `call` is the 3-D, or a 2-D copy; *c holds either. The worker gets the structure with host sides rewritten to packed rows, then, for a
 * source here, the rows.
 */
static CUresult
copy_box(enum cuda_call_id call, const CUDA_MEMCPY3D *given, CUstream stream)
{
	CUDA_MEMCPY3D c = *given;
	const void *src, *dst;
	struct rm_request r;
	struct fw_cursor in;
	size_t bytes = box_bytes(&c);

	if (bytes == 0)
		return CUDA_SUCCESS;
	if ((call == CALL_cuMemcpy2DAsync_v2 || call == CALL_cuMemcpy3DAsync_v2) && is_capturing(stream))
		return capture_box(call, given, stream);
	size_t one = c.WidthInBytes; /* enough to say where a side lies */
	bool from_here = side_is_here(&c.srcMemoryType, c.srcHost, &c.srcDevice, one, &src);
	bool to_here = side_is_here(&c.dstMemoryType, c.dstHost, &c.dstDevice, one, &dst);
	if ((from_here || to_here) && bytes > SESSION_BLOB_MAX - 4096)
		return CUDA_ERROR_INVALID_VALUE;
	struct box source = box_of(src, c.srcPitch, c.srcHeight, c.srcXInBytes, c.srcY, c.srcZ, &c);
	struct box target = box_of(dst, c.dstPitch, c.dstHeight, c.dstXInBytes, c.dstY, c.dstZ, &c);
	if (from_here && ((c.srcPitch && c.srcPitch < c.WidthInBytes + c.srcXInBytes) || !src))
		return CUDA_ERROR_INVALID_VALUE;
	if (to_here && ((c.dstPitch && c.dstPitch < c.WidthInBytes + c.dstXInBytes) || !dst))
		return CUDA_ERROR_INVALID_VALUE;
	if (from_here && to_here) {
		CUresult result = rm_ops_table()->cuStreamSynchronize(stream);
		for (size_t z = 0; result == CUDA_SUCCESS && z < c.Depth; z++)
			for (size_t y = 0; y < c.Height; y++)
				memmove(target.at + z * target.slice + y * target.pitch, source.at + z * source.slice + y * source.pitch, c.WidthInBytes);
		return result;
	}
	if (from_here) {
		c.srcXInBytes = c.srcY = c.srcZ = 0;
		c.srcPitch = c.WidthInBytes;
		c.srcHeight = c.Height;
		c.srcHost = NULL;
	}
	if (to_here) {
		c.dstXInBytes = c.dstY = c.dstZ = 0;
		c.dstPitch = c.WidthInBytes;
		c.dstHeight = c.Height;
		c.dstHost = NULL;
	}
	rm_begin(&r, (uint16_t)call, sizeof(c) + 32 + (from_here ? bytes : 0));
	call_put(&r.out, &c, sizeof(c));
	call_put_u64(&r.out, (uint64_t)(uintptr_t)stream);
	call_put_u64(&r.out, from_here ? bytes : 0);
	call_put_u64(&r.out, to_here ? bytes : 0);
	if (from_here && r.out.data && !r.out.bad && bytes <= r.out.size - r.out.at) {
		gather(r.out.data + r.out.at, &source, &c);
		r.out.at += bytes;
	}
	CUresult result = rm_ask(&r, &in);
	if (result == CUDA_SUCCESS && to_here) {
		const uint8_t *rows = fw_cursor_bytes(&in, bytes);
		if (rows)
			scatter(&target, rows, &c);
		else
			result = rm_nonsense(&r);
	}
	rm_end(&r);
	return result;
}

static CUDA_MEMCPY3D
widen(const CUDA_MEMCPY2D *c)
{
	return (CUDA_MEMCPY3D){ .srcXInBytes = c->srcXInBytes, .srcY = c->srcY, .srcMemoryType = c->srcMemoryType, .srcHost = c->srcHost,
		.srcDevice = c->srcDevice, .srcArray = c->srcArray, .srcPitch = c->srcPitch, .dstXInBytes = c->dstXInBytes, .dstY = c->dstY,
		.dstMemoryType = c->dstMemoryType, .dstHost = c->dstHost, .dstDevice = c->dstDevice, .dstArray = c->dstArray,
		.dstPitch = c->dstPitch, .WidthInBytes = c->WidthInBytes, .Height = c->Height, .Depth = 1 };
}

CUresult
rm_cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy)
{
	if (!pCopy)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D c = widen(pCopy);
	return copy_box(CALL_cuMemcpy2D_v2, &c, NULL);
}

CUresult
rm_cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
	if (!pCopy)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D c = widen(pCopy);
	return copy_box(CALL_cuMemcpy2DUnaligned_v2, &c, NULL);
}

CUresult
rm_cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
	if (!pCopy)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D c = widen(pCopy);
	return copy_box(CALL_cuMemcpy2DAsync_v2, &c, hStream);
}

CUresult
rm_cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy)
{
	return pCopy ? copy_box(CALL_cuMemcpy3D_v2, pCopy, NULL) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
rm_cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
	return pCopy ? copy_box(CALL_cuMemcpy3DAsync_v2, pCopy, hStream) : CUDA_ERROR_INVALID_VALUE;
}

/* ---- arrays in one dimension --------------------------------------------------------------------------------------- */

static CUresult
copy_array(bool to_array, CUarray array, size_t offset, void *host, size_t size, CUstream stream, bool async)
{
	CUDA_MEMCPY3D c = { .WidthInBytes = size, .Height = 1, .Depth = 1 };

	if (to_array) {
		c.srcMemoryType = CU_MEMORYTYPE_HOST;
		c.srcHost = host;
		c.dstMemoryType = CU_MEMORYTYPE_ARRAY;
		c.dstArray = array;
		c.dstXInBytes = offset;
	} else {
		c.srcMemoryType = CU_MEMORYTYPE_ARRAY;
		c.srcArray = array;
		c.srcXInBytes = offset;
		c.dstMemoryType = CU_MEMORYTYPE_HOST;
		c.dstHost = host;
	}
	return copy_box(async ? CALL_cuMemcpy3DAsync_v2 : CALL_cuMemcpy3D_v2, &c, stream);
}

CUresult
rm_cuMemcpyHtoA_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)
{
	return copy_array(true, dstArray, dstOffset, (void *)(uintptr_t)srcHost, ByteCount, NULL, false);
}

CUresult
rm_cuMemcpyAtoH_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	return copy_array(false, srcArray, srcOffset, dstHost, ByteCount, NULL, false);
}

CUresult
rm_cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount, CUstream hStream)
{
	return copy_array(true, dstArray, dstOffset, (void *)(uintptr_t)srcHost, ByteCount, hStream, true);
}

CUresult
rm_cuMemcpyAtoHAsync_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount, CUstream hStream)
{
	return copy_array(false, srcArray, srcOffset, dstHost, ByteCount, hStream, true);
}

/* ---- what an address is -------------------------------------------------------------------------------------------- */

/* The list form says of an address that nobody knows that nothing applies, and succeeds (cudart asks about every host pointer so). */
CUresult
rm_cuPointerGetAttributes(unsigned numAttributes, CUpointer_attribute *attributes, void **data, CUdeviceptr ptr)
{
	if (!numAttributes || !attributes || !data)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned n = 0; n < numAttributes; n++) {
		if (!data[n])
			return CUDA_ERROR_INVALID_VALUE;
		CUresult result = rm_ops_table()->cuPointerGetAttribute(data[n], attributes[n], ptr);
		int none = CU_DEVICE_INVALID;
		if (result == CUDA_ERROR_INVALID_VALUE && attributes[n] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
			memcpy(data[n], &none, sizeof(none));
		else if (result == CUDA_ERROR_INVALID_VALUE)
			memset(data[n], 0, call_sizes[CALL_SIZE_POINTER_ATTRIBUTE]((int)attributes[n]));
		else if (result != CUDA_SUCCESS)
			return result;
	}
	return CUDA_SUCCESS;
}
