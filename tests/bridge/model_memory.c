/*
 * Memory of the random program: allocations of every kind, copies and fills by every call that makes them, and the comparison of what
 * memory holds with what the model says it must hold.
 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

static const size_t sizes[] = { 16, 100, 1000, 4096, 20000, 65536 + 4, 70000, 600000, 1500000 };

unsigned
find_buffer(struct world *w, unsigned first, unsigned end, unsigned kinds)
{
	unsigned from = draw(w, end - first);

	for (unsigned n = 0; n < end - first; n++) {
		unsigned b = first + (from + n) % (end - first);
		if (kinds >> w->buffers[b].kind & 1)
			return b;
	}
	return BUFFERS;
}

static bool
is_device(const struct buffer *b)
{
	return b->kind == DEVICE || b->kind == POOL || b->kind == GLOBAL;
}

static bool
is_done_at_once(const struct buffer *b)
{
	return b->kind == PAGEABLE;
}

static uint8_t *
host(uint64_t address)
{
	return (uint8_t *)(uintptr_t)address;
}

void
occupy(struct world *w, unsigned b, enum buffer_kind kind, uint64_t address, size_t size)
{
	struct buffer *buffer = &w->buffers[b];

	*buffer = (struct buffer){ .kind = kind, .address = address, .size = size, .generation = buffer->generation + 1,
		.model = calloc(1, size) };
	order_forget(w, b);
	w->stale_pointer = 0; /* somebody's again, or not: that is the allocator's to say */
}

void
vacate(struct world *w, unsigned b)
{
	struct buffer *buffer = &w->buffers[b];

	free(buffer->model);
	*buffer = (struct buffer){ .generation = buffer->generation + 1 };
}

/* ---- work ---------------------------------------------------------------------------------------------------------- */

void
apply(struct world *w, const struct work *work)
{
	uint8_t *dst = w->buffers[work->dst].model + work->dst_at;

	switch (work->kind) {
	case FILL:
		for (size_t y = 0; y < work->height; y++)
			for (size_t x = 0; x < work->width; x++)
				memcpy(dst + y * work->dst_pitch + x * work->element, &work->value, work->element);
		break;
	case COPY:
		for (size_t y = 0; y < work->height; y++)
			memcpy(dst + y * work->dst_pitch, w->buffers[work->src].model + work->src_at + y * work->src_pitch, work->width);
		break;
	case MIX:
		for (uint32_t n = 0; n < work->count; n++) {
			uint32_t d, s;
			memcpy(&d, dst + 4 * n, 4);
			memcpy(&s, w->buffers[work->src].model + 4 * n, 4);
			d = d * work->a + s * work->b + n;
			memcpy(dst + 4 * n, &d, 4);
		}
		break;
	case BUMP:
		for (uint32_t n = 0; n < 16; n++) {
			uint32_t d;
			memcpy(&d, dst + 4 * n, 4);
			d = d * 3 + work->value + n;
			memcpy(dst + 4 * n, &d, 4);
		}
		break;
	case NOTE: {
		uint64_t cell;
		memcpy(&cell, dst, 8);
		cell = cell * 1000003 + work->value;
		memcpy(dst, &cell, 8);
	}
	}
}

CUstream
pick_handle(struct world *w, unsigned s)
{
	if (s == 0)
		return chance(w, 50) ? NULL : CU_STREAM_LEGACY;
	return s <= THREADS ? CU_STREAM_PER_THREAD : w->streams[s].handle;
}

static CUresult
call_fill(struct world *w, unsigned s, const struct work *work, bool sync)
{
	CUdeviceptr p = w->buffers[work->dst].address + work->dst_at;
	CUstream stream = sync ? NULL : pick_handle(w, s);
	size_t n = work->width, pitch = work->dst_pitch;
#define WHERE "%s s%u b%u+%zu value %x %zux%zu pitch %zu", sync ? "now" : "async", s, work->dst, work->dst_at, work->value, n, \
	work->height, pitch

	if (work->height > 1 || chance(w, 10)) {
		switch (work->element) {
		case 1:
			return sync ? RUN(w, CU(cuMemsetD2D8_v2)(p, pitch, (uint8_t)work->value, n, work->height), WHERE)
			            : RUN(w, CU(cuMemsetD2D8Async)(p, pitch, (uint8_t)work->value, n, work->height, stream), WHERE);
		case 2:
			return sync ? RUN(w, CU(cuMemsetD2D16_v2)(p, pitch, (uint16_t)work->value, n, work->height), WHERE)
			            : RUN(w, CU(cuMemsetD2D16Async)(p, pitch, (uint16_t)work->value, n, work->height, stream), WHERE);
		default:
			return sync ? RUN(w, CU(cuMemsetD2D32_v2)(p, pitch, work->value, n, work->height), WHERE)
			            : RUN(w, CU(cuMemsetD2D32Async)(p, pitch, work->value, n, work->height, stream), WHERE);
		}
	}
	switch (work->element) {
	case 1:
		return sync ? RUN(w, CU(cuMemsetD8_v2)(p, (uint8_t)work->value, n), WHERE)
		            : RUN(w, CU(cuMemsetD8Async)(p, (uint8_t)work->value, n, stream), WHERE);
	case 2:
		return sync ? RUN(w, CU(cuMemsetD16_v2)(p, (uint16_t)work->value, n), WHERE)
		            : RUN(w, CU(cuMemsetD16Async)(p, (uint16_t)work->value, n, stream), WHERE);
	default:
		return sync ? RUN(w, CU(cuMemsetD32_v2)(p, work->value, n), WHERE) : RUN(w, CU(cuMemsetD32Async)(p, work->value, n, stream), WHERE);
	}
#undef WHERE
}

static CUresult
call_box(struct world *w, unsigned s, const struct work *work, bool sync)
{
	const struct buffer *dst = &w->buffers[work->dst], *src = &w->buffers[work->src];
	bool unified = chance(w, 25);
	CUDA_MEMCPY2D c = {
		.srcMemoryType = unified ? CU_MEMORYTYPE_UNIFIED : is_device(src) ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST,
		.srcHost = host(src->address), .srcDevice = src->address, .srcPitch = work->src_pitch,
		.srcXInBytes = work->src_at % work->src_pitch, .srcY = work->src_at / work->src_pitch,
		.dstMemoryType = unified ? CU_MEMORYTYPE_UNIFIED : is_device(dst) ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST,
		.dstHost = host(dst->address), .dstDevice = dst->address, .dstPitch = work->dst_pitch,
		.dstXInBytes = work->dst_at % work->dst_pitch, .dstY = work->dst_at / work->dst_pitch,
		.WidthInBytes = work->width, .Height = work->height,
	};
#define WHERE "s%u b%u+%zu/%zu <- b%u+%zu/%zu %zux%zu", s, work->dst, work->dst_at, work->dst_pitch, work->src, work->src_at, \
	work->src_pitch, work->width, work->height

	if (c.srcXInBytes + c.WidthInBytes > c.srcPitch) { /* the offset goes into the address */
		c.srcHost = host(src->address + work->src_at);
		c.srcDevice = src->address + work->src_at;
		c.srcXInBytes = c.srcY = 0;
	}
	if (c.dstXInBytes + c.WidthInBytes > c.dstPitch) {
		c.dstHost = host(dst->address + work->dst_at);
		c.dstDevice = dst->address + work->dst_at;
		c.dstXInBytes = c.dstY = 0;
	}
	if (!sync)
		return RUN(w, CU(cuMemcpy2DAsync_v2)(&c, pick_handle(w, s)), WHERE);
	return chance(w, 50) ? RUN(w, CU(cuMemcpy2D_v2)(&c), WHERE) : RUN(w, CU(cuMemcpy2DUnaligned_v2)(&c), WHERE);
#undef WHERE
}

static CUresult
call_copy(struct world *w, unsigned s, const struct work *work, bool sync)
{
	const struct buffer *dst = &w->buffers[work->dst], *src = &w->buffers[work->src];
	CUdeviceptr to = dst->address + work->dst_at, from = src->address + work->src_at;
	CUstream stream = sync ? NULL : pick_handle(w, s);
	size_t size = work->width;
#define WHERE "s%u b%u+%zu <- b%u+%zu %zu", s, work->dst, work->dst_at, work->src, work->src_at, size

	if (work->height > 1 || chance(w, 10))
		return call_box(w, s, work, sync);
	if (chance(w, 20) || (!is_device(dst) && !is_device(src)))
		return sync ? RUN(w, CU(cuMemcpy)(to, from, size), WHERE) : RUN(w, CU(cuMemcpyAsync)(to, from, size, stream), WHERE);
	if (!is_device(src))
		return sync ? RUN(w, CU(cuMemcpyHtoD_v2)(to, host(from), size), WHERE)
		            : RUN(w, CU(cuMemcpyHtoDAsync_v2)(to, host(from), size, stream), WHERE);
	if (!is_device(dst))
		return sync ? RUN(w, CU(cuMemcpyDtoH_v2)(host(to), from, size), WHERE)
		            : RUN(w, CU(cuMemcpyDtoHAsync_v2)(host(to), from, size, stream), WHERE);
	if (chance(w, 15))
		return sync ? RUN(w, CU(cuMemcpyPeer)(to, w->context, from, w->context, size), WHERE)
		            : RUN(w, CU(cuMemcpyPeerAsync)(to, w->context, from, w->context, size, stream), WHERE);
	return sync ? RUN(w, CU(cuMemcpyDtoD_v2)(to, from, size), WHERE) : RUN(w, CU(cuMemcpyDtoDAsync_v2)(to, from, size, stream), WHERE);
#undef WHERE
}

/* What the host knows when the copy has returned (driver API, "API synchronization behavior"). */
static void
copy_returned(struct world *w, unsigned s, const struct work *work, bool sync)
{
	const struct buffer *dst = &w->buffers[work->dst], *src = &w->buffers[work->src];
	bool to_host = !is_device(dst), from_host = !is_device(src);

	if ((to_host && from_host) || (to_host && (sync || is_done_at_once(dst))) || (sync && from_host && !is_done_at_once(src)))
		order_join(&w->host, &w->now.line[w->streams[s].line]);
}

bool
issue(struct world *w, unsigned s, struct work *work, bool sync)
{
	struct use uses[2];
	unsigned count = work_uses(work, uses);
	CUresult result;

	work->dst_generation = w->buffers[work->dst].generation;
	work->src_generation = w->buffers[work->src].generation;
	work->module_generation = w->modules[work->module].generation;
	if (w->streams[s].captured && w->capture.count == GRAPH_WORK)
		return false;
	if (!order_before(w, s, uses, count)) {
		say(w, "left: no order");
		return false;
	}
	switch (work->kind) {
	case FILL:
		result = call_fill(w, s, work, sync);
		break;
	case COPY:
		result = call_copy(w, s, work, sync);
		break;
	case NOTE:
		note_work(w, s, work, &result);
		break;
	default:
		result = launch_work(w, s, work);
	}
	if (w->poisoned)
		return false;
	if (result != CUDA_SUCCESS) {
		if (!w->capture.active)
			wrong(w, "work of kind %d must succeed", work->kind);
		return false;
	}
	order_issued(w, s, uses, count);
	if (w->streams[s].captured) {
		w->capture.work[w->capture.count++] = *work;
	} else {
		apply(w, work);
		if (work->kind == COPY)
			copy_returned(w, s, work, sync);
	}
	return true;
}

/* ---- copies and fills ---------------------------------------------------------------------------------------------- */

/* Whether the call in the present state may be one that is not for a stream that captures. */
static bool
pick_sync(struct world *w, unsigned *s)
{
	if (!w->capture.active && chance(w, 35)) {
		*s = 0;
		return true;
	}
	return false;
}

static bool
may_copy(const struct world *w, unsigned s, const struct buffer *b)
{
	if (!w->streams[s].captured || is_device(b))
		return true;
	return b->kind == PINNED && !b->registered && w->features & CAPTURE_COPIES;
}

void
copy_step(struct world *w)
{
	unsigned kinds = 1 << DEVICE | 1 << POOL | 1 << PINNED | 1 << PAGEABLE | 1 << GLOBAL, s = pick_stream(w);
	struct work work = { .kind = COPY, .height = 1 };
	bool sync = pick_sync(w, &s);

	work.dst = find_buffer(w, 0, BUFFERS, kinds);
	work.src = find_buffer(w, 0, BUFFERS, kinds);
	if (work.dst == BUFFERS || work.dst == work.src || !may_copy(w, s, &w->buffers[work.dst]) || !may_copy(w, s, &w->buffers[work.src]))
		return;
	struct buffer *dst = &w->buffers[work.dst], *src = &w->buffers[work.src];
	if (is_done_at_once(src) && w->poisoned)
		return;
	size_t room = dst->size < src->size ? dst->size : src->size;
	if (chance(w, 25) && room >= 64) { /* rows */
		work.height = 1 + draw(w, 5);
		size_t most = room / work.height;
		work.src_pitch = work.dst_pitch = most;
		if (chance(w, 50))
			work.src_pitch = most - draw(w, (unsigned)most / 2);
		if (chance(w, 50))
			work.dst_pitch = most - draw(w, (unsigned)most / 2);
		size_t narrow = work.src_pitch < work.dst_pitch ? work.src_pitch : work.dst_pitch;
		work.width = 1 + draw(w, (unsigned)narrow);
	} else {
		work.width = chance(w, 30) ? room : 1 + draw(w, (unsigned)room);
		work.dst_at = draw(w, (unsigned)(dst->size - work.width) + 1);
		work.src_at = draw(w, (unsigned)(src->size - work.width) + 1);
		work.dst_pitch = dst->size;
		work.src_pitch = src->size;
	}
	issue(w, s, &work, sync);
}

void
fill_step(struct world *w)
{
	unsigned b = find_buffer(w, 0, BUFFERS, 1 << DEVICE | 1 << POOL | 1 << GLOBAL), s = pick_stream(w);
	bool sync = pick_sync(w, &s);

	if (b == BUFFERS)
		return;
	struct buffer *buffer = &w->buffers[b];
	struct work work = { .kind = FILL, .dst = b, .element = 1u << draw(w, 3), .value = draw(w, UINT32_MAX), .height = 1 };
	if (work.element < 4)
		work.value &= (1u << 8 * work.element) - 1;
	size_t units = buffer->size / work.element;
	if (chance(w, 20) && units >= 16) {
		work.height = 1 + draw(w, 4);
		work.width = 1 + draw(w, (unsigned)(units / work.height));
		work.dst_pitch = units / work.height * work.element;
	} else {
		work.width = chance(w, 30) ? units : 1 + draw(w, (unsigned)units);
		work.dst_at = draw(w, (unsigned)(units - work.width) + 1) * work.element;
		work.dst_pitch = work.width * work.element;
	}
	issue(w, s, &work, sync);
}

/* ---- allocations --------------------------------------------------------------------------------------------------- */

/* Fresh memory holds anything: fill it, or let it go. */
static void
settle(struct world *w, unsigned b, unsigned s)
{
	struct buffer *buffer = &w->buffers[b];
	struct work work = { .kind = FILL, .dst = b, .element = 1, .value = draw(w, 256), .width = buffer->size, .height = 1,
		.dst_pitch = buffer->size };

	if (!issue(w, s, &work, false)) {
		MUST(w, CU(cuMemFree_v2)(buffer->address), "b%u", b);
		vacate(w, b);
	}
}

static void
allocate_device(struct world *w, unsigned b)
{
	size_t size = sizes[draw(w, sizeof(sizes) / sizeof(sizes[0]))], pitch = 0;
	unsigned s = pick_stream(w);
	CUdeviceptr p = 0;

	if (w->streams[s].captured)
		return;
	if (chance(w, 40)) {
		CUresult result = MUST(w, CU(cuMemAllocAsync)(&p, size, pick_handle(w, s)), "b%u %zu s%u", b, size, s);
		if (result != CUDA_SUCCESS)
			return;
		occupy(w, b, POOL, p, size);
		order_issued(w, s, &(struct use){ b, true }, 1);
	} else if (chance(w, 20)) {
		size_t width = 1 + draw(w, 700), height = 1 + draw(w, 20);
		if (MUST(w, CU(cuMemAllocPitch_v2)(&p, &pitch, width, height, 4), "b%u %zux%zu pitch %zu", b, width, height, pitch) != CUDA_SUCCESS)
			return;
		occupy(w, b, DEVICE, p, pitch * height);
	} else {
		if (MUST(w, CU(cuMemAlloc_v2)(&p, size), "b%u %zu", b, size) != CUDA_SUCCESS)
			return;
		occupy(w, b, DEVICE, p, size);
	}
	if (p & 255)
		wrong(w, "device memory is aligned to 256 bytes");
	settle(w, b, s);
}

static void
allocate_pinned(struct world *w, unsigned b)
{
	static const unsigned flags[] = { 0, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_WRITECOMBINED };
	size_t size = sizes[draw(w, sizeof(sizes) / sizeof(sizes[0]))];
	unsigned flag = flags[draw(w, 4)];
	void *p = NULL;
	CUresult result;
	bool registered = chance(w, 25);

	if (registered) {
		size = (size + 4095) & ~4095ul;
		if (posix_memalign(&p, 4096, size) != 0)
			return;
		result = MUST(w, CU(cuMemHostRegister_v2)(p, size, flag & 3), "b%u %zu flags %u", b, size, flag & 3);
		if (result != CUDA_SUCCESS)
			free(p);
	} else if (chance(w, 30)) {
		result = MUST(w, CU(cuMemAllocHost_v2)(&p, size), "b%u %zu", b, size);
	} else {
		result = MUST(w, CU(cuMemHostAlloc)(&p, size, flag), "b%u %zu flags %u", b, size, flag);
	}
	if (result != CUDA_SUCCESS)
		return;
	occupy(w, b, PINNED, (uint64_t)(uintptr_t)p, size);
	w->buffers[b].registered = registered;
	memset(p, (int)draw(w, 256), size);
	memcpy(w->buffers[b].model, p, size);
}

static void
free_device(struct world *w, unsigned b)
{
	struct buffer *buffer = &w->buffers[b];
	struct use use = { b, true };
	unsigned s = pick_stream(w);
	CUresult result;

	if (buffer->kind == POOL && chance(w, 75)) {
		if (w->streams[s].captured || !order_before(w, s, &use, 1))
			return;
		result = MUST(w, CU(cuMemFreeAsync)(buffer->address, pick_handle(w, s)), "b%u s%u", b, s);
		if (result == CUDA_SUCCESS)
			order_issued(w, s, &use, 1);
	} else {
		if (buffer->kind == POOL && !order_is_done(w, b, false))
			return;
		result = MUST(w, CU(cuMemFree_v2)(buffer->address), "b%u", b);
		if (result == CUDA_SUCCESS && !w->concurrent && buffer->kind == DEVICE)
			w->stale_pointer = buffer->address;
	}
	if (result == CUDA_SUCCESS)
		vacate(w, b);
}

static void
free_pinned(struct world *w, unsigned b)
{
	struct buffer *buffer = &w->buffers[b];
	void *p = host(buffer->address);

	if (!order_is_done(w, b, false) && (buffer->registered || chance(w, 50)))
		return;
	if (buffer->registered) {
		if (MUST(w, CU(cuMemHostUnregister)(p), "b%u", b) != CUDA_SUCCESS)
			return;
		free(p);
	} else if (MUST(w, CU(cuMemFreeHost)(p), "b%u", b) != CUDA_SUCCESS) {
		return;
	}
	vacate(w, b);
}

void
memory_step(struct world *w)
{
	if (w->capture.active && w->capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED && !chance(w, 5))
		return;
	if (w->poisoned && chance(w, 70))
		return;
	unsigned b = draw(w, FIRST_CELL);
	struct buffer *buffer = &w->buffers[b];
	if (buffer->kind == FREE && b < FIRST_PINNED) {
		allocate_device(w, b);
	} else if (buffer->kind == FREE && b < FIRST_PAGEABLE) {
		allocate_pinned(w, b);
	} else if (buffer->kind == FREE) {
		size_t size = sizes[draw(w, sizeof(sizes) / sizeof(sizes[0]))];
		occupy(w, b, PAGEABLE, (uint64_t)(uintptr_t)malloc(size), size);
		memset(host(w->buffers[b].address), (int)draw(w, 256), size);
		memcpy(w->buffers[b].model, host(w->buffers[b].address), size);
	} else if (chance(w, 60)) {
		return;
	} else if (is_device(buffer)) {
		free_device(w, b);
	} else if (buffer->kind == PINNED) {
		free_pinned(w, b);
	} else {
		free(host(buffer->address));
		vacate(w, b);
	}
}

void
drop_memory(struct world *w)
{
	for (unsigned b = 0; b < BUFFERS; b++) {
		struct buffer *buffer = &w->buffers[b];
		if (buffer->kind != FREE && buffer->kind != CELL)
			vacate(w, b);
	}
	w->stale_pointer = 0;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------- */

static void
compare(struct world *w, unsigned b, const uint8_t *bytes, size_t at, size_t size)
{
	const uint8_t *model = w->buffers[b].model + at;

	say(w, "b%u+%zu %zu bytes: %08x", b, at, size, checksum(bytes, size));
	for (size_t n = 0; n < size; n++)
		if (bytes[n] != model[n]) {
			wrong(w, "b%u (%zu bytes) at %zu holds %02x, not %02x", b, w->buffers[b].size, at + n, bytes[n], model[n]);
			return;
		}
}

static void
check_device(struct world *w, unsigned b)
{
	struct buffer *buffer = &w->buffers[b];
	size_t size = chance(w, 60) ? buffer->size : 1 + draw(w, (unsigned)buffer->size), at = draw(w, (unsigned)(buffer->size - size) + 1);
	uint8_t *bytes = malloc(size);
	unsigned s = pick_stream(w);
	bool sync = pick_sync(w, &s);
	struct use use = { b, false };
	CUresult result;

	memset(bytes, 0xee, size);
	if (!w->streams[s].captured && order_before(w, s, &use, 1)) {
		CUdeviceptr p = buffer->address + at, to = (CUdeviceptr)(uintptr_t)bytes;
		if (chance(w, 70))
			result = sync ? MUST(w, CU(cuMemcpyDtoH_v2)(bytes, p, size), "b%u", b)
			              : MUST(w, CU(cuMemcpyDtoHAsync_v2)(bytes, p, size, pick_handle(w, s)), "b%u s%u", b, s);
		else
			result = sync ? MUST(w, CU(cuMemcpy)(to, p, size), "b%u", b)
			              : MUST(w, CU(cuMemcpyAsync)(to, p, size, pick_handle(w, s)), "b%u s%u", b, s);
		if (result == CUDA_SUCCESS && !w->poisoned) {
			order_issued(w, s, &use, 1);
			order_join(&w->host, &w->now.line[w->streams[s].line]); /* to pageable memory: it is done */
			compare(w, b, bytes, at, size);
		}
	}
	free(bytes);
}

/* Host memory: look at it if that is allowed, and write to it. */
static void
check_host(struct world *w, unsigned b)
{
	struct buffer *buffer = &w->buffers[b];
	uint8_t *bytes = host(buffer->address);

	if (w->poisoned || !order_is_done(w, b, true))
		return;
	compare(w, b, bytes, 0, buffer->size);
	if (w->forbidden[b] >= 0)
		say(w, "inside a host function: %d", w->forbidden[b]);
	if (!order_is_done(w, b, false) || buffer->kind == CELL || chance(w, 30))
		return;
	size_t size = 1 + draw(w, (unsigned)buffer->size), at = draw(w, (unsigned)(buffer->size - size) + 1);
	for (size_t n = 0; n < size; n++)
		bytes[at + n] = (uint8_t)draw(w, 256);
	memcpy(buffer->model + at, bytes + at, size);
}

void
check(struct world *w, unsigned b)
{
	if (w->buffers[b].kind == FREE)
		return;
	if (is_device(&w->buffers[b]))
		check_device(w, b);
	else
		check_host(w, b);
}

void
check_step(struct world *w)
{
	check(w, draw(w, BUFFERS));
}

void
check_all(struct world *w)
{
	for (unsigned b = 0; b < BUFFERS; b++)
		check(w, b);
}

/* ---- questions about memory ---------------------------------------------------------------------------------------- */

static void
ask_pointer(struct world *w, unsigned b)
{
	struct buffer *buffer = &w->buffers[b];
	size_t at = draw(w, (unsigned)buffer->size);
	CUdeviceptr p = buffer->address + at, base = 0, start = 0;
	size_t size = 0, range = 0;
	unsigned type = 0, ordinal = 77;
	int managed = 7;

	if (buffer->kind == CELL)
		return;
	if (is_device(buffer))
		RUN(w, CU(cuMemGetAddressRange_v2)(&base, &size, p), "b%u begins %d size %zu", b, base == buffer->address, size);
	/* The type of memory that cuMemHostRegister pinned, and of pinned memory over a network, is what the place says: see docs/bridge.md. */
	RUN(w, CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p), "b%u type %u", b, type);
	RUN(w, CU(cuPointerGetAttribute)(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, p), "b%u device %u", b, ordinal);
	RUN(w, CU(cuPointerGetAttribute)(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p), "b%u managed %d", b, managed);
	if (is_device(buffer)) {
		RUN(w, CU(cuPointerGetAttribute)(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, p), "b%u %d", b, start == buffer->address);
		RUN(w, CU(cuPointerGetAttribute)(&range, CU_POINTER_ATTRIBUTE_RANGE_SIZE, p), "b%u %zu", b, range);
	}
	if (buffer->kind == PINNED && !buffer->registered && w->features & MAPPED) {
		unsigned flags = 99;
		RUN(w, CU(cuMemHostGetFlags)(&flags, host(p)), "b%u flags %u", b, flags);
	}
}

CUresult
synchronize(struct world *w)
{
	CUresult result = MUST(w, CU(cuCtxSynchronize)());

	if (result == CUDA_SUCCESS)
		order_all_done(w);
	return result;
}

void
info_step(struct world *w)
{
	size_t available = 0, total = 0, limit = 0;
	int number = 0, least = 0, greatest = 0;
	unsigned b = draw(w, BUFFERS);

	switch (draw(w, 6)) {
	case 0:
		if (w->capture.active || w->concurrent || synchronize(w) != CUDA_SUCCESS)
			return;
		MUST(w, CU(cuMemGetInfo_v2)(&available, &total), "used %zu of %zu", total - available, total);
		break;
	case 1:
		MUST(w, CU(cuDeviceGetAttribute)(&number, (CUdevice_attribute)(1 + draw(w, 40)), 0), "%d", number);
		break;
	case 2:
		MUST(w, CU(cuCtxGetStreamPriorityRange)(&least, &greatest), "%d %d", least, greatest);
		break;
	case 3:
		MUST(w, CU(cuCtxGetLimit)(&limit, CU_LIMIT_MALLOC_HEAP_SIZE), "%zu", limit);
		break;
	default:
		if (w->buffers[b].kind != FREE)
			ask_pointer(w, b);
	}
}
