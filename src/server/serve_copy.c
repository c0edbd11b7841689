/*
 * The worker's half of src/client/remote_copy.c: copies between the device and the records, and host memory shared with the client.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "server/server.h"

/* ---- shared host memory -------------------------------------------------------------------------------------------- */

#define LOWEST 65536 /* what clients may have mapped: a null pointer stays one, even where this process could map it */
#define ARRIVALS 64 /* memory that came and was not asked for yet: more is a client that does not speak the protocol */

struct arrival {
	int fd;
	uint64_t size, tag;
};

struct shared {
	struct shared *next;
	uint64_t address, size;
	bool open; /* may be touched */
};

/* What the device knows of it. */
struct registered {
	struct registered *next;
	uint64_t address, size;
};

static struct arrival arrivals[ARRIVALS]; /* tag 0: free; guarded by lock */
static struct shared *all_shared;         /* guarded by lock */
static struct registered *all_registered; /* guarded by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;

void
sv_memory_arrived(int fd, uint64_t size, uint64_t tag)
{
	pthread_mutex_lock(&lock);
	for (unsigned n = 0; fd >= 0 && tag && n < ARRIVALS; n++)
		if (!arrivals[n].tag) {
			arrivals[n] = (struct arrival){ fd, size, tag };
			fd = -1;
		}
	pthread_cond_broadcast(&arrived);
	pthread_mutex_unlock(&lock);
	if (fd >= 0)
		close(fd);
}

static bool
take_arrival(struct sv_call *call, uint64_t tag, struct arrival *taken)
{
	struct timespec until;

	for (unsigned tries = 0; tries < 50 && wire_alive(call->channel->wire->link); tries++) {
		pthread_mutex_lock(&lock);
		for (unsigned n = 0; n < ARRIVALS; n++)
			if (arrivals[n].tag == tag) {
				*taken = arrivals[n];
				arrivals[n].tag = 0;
				pthread_mutex_unlock(&lock);
				return true;
			}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 100000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&arrived, &lock, &until);
		pthread_mutex_unlock(&lock);
	}
	return false;
}

int
sv_descriptor_take(struct sv_call *call, uint64_t tag)
{
	struct arrival arrival;

	return take_arrival(call, tag, &arrival) ? arrival.fd : -1;
}

bool
sv_cannot_shrink(int fd)
{
	int seals = fd >= 0 ? fcntl(fd, F_GET_SEALS) : -1;

	return seals >= 0 && seals & F_SEAL_SHRINK;
}

/* With the lock held. */
static struct shared **
find_shared(uint64_t address, uint64_t size)
{
	for (struct shared **at = &all_shared; *at; at = &(*at)->next)
		if (address - (*at)->address < (*at)->size && size <= (*at)->size - (address - (*at)->address))
			return at;
	return NULL;
}

bool
sv_memory_covers(uint64_t address, uint64_t size)
{
	pthread_mutex_lock(&lock);
	while (size) {
		struct shared **found = find_shared(address, 1);
		uint64_t left = found && (*found)->open ? (*found)->size - (address - (*found)->address) : 0;
		if (!left)
			break;
		left = left < size ? left : size;
		address += left;
		size -= left;
	}
	pthread_mutex_unlock(&lock);
	return !size;
}

/* ---- addresses for it ---------------------------------------------------------------------------------------------- */

#define KEPT 128

/* Where this process has nothing but the client's pieces, and a reservation around them. */
static struct session_space kept[KEPT]; /* written before there are threads */
static unsigned kept_count;

static void *
reserve(uint64_t base, uint64_t size, int how)
{
	return mmap((void *)(uintptr_t)base, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | how, -1, 0);
}

static void
keep(uint64_t base, uint64_t end)
{
	void *at = base < end && kept_count < KEPT ? reserve(base, end - base, MAP_FIXED_NOREPLACE) : MAP_FAILED;

	if (at == (void *)(uintptr_t)base)
		kept[kept_count++] = (struct session_space){ base, end - base };
	else if (at != MAP_FAILED)
		munmap(at, end - base); /* a kernel that does not know the flag */
}

/* What lies between this process's own mappings, of which there are few as yet. */
static void
keep_once(const struct session_space used[SESSION_USED])
{
	static struct session_space own[1024];
	unsigned count = 0;
	unsigned long low, high;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "re");

	while (maps && count < 1024 && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &low, &high) == 2)
			own[count++] = (struct session_space){ low, high - low };
	if (maps)
		fclose(maps);
	for (unsigned n = 0; n < SESSION_USED && count && count < 1024; n++) {
		uint64_t at = used[n].base, end = used[n].base + used[n].size;
		if (at & 4095 || used[n].size & 4095 || !at || end < at || end > (uint64_t)1 << 47)
			continue;
		for (unsigned k = 0; k < count && at < end; k++) {
			if (own[k].base >= end || own[k].base + own[k].size <= at)
				continue;
			keep(at, own[k].base);
			at = own[k].base + own[k].size;
		}
		keep(at, end);
	}
}

/* Twice: something may be mapped between a look and a reservation, which then fails. */
void
sv_addresses_keep(const struct session_space used[SESSION_USED])
{
	for (unsigned n = 0; n < 2; n++)
		keep_once(used);
}

static bool
is_kept(uint64_t address, uint64_t size)
{
	for (unsigned n = 0; n < kept_count; n++)
		if (address >= kept[n].base && address - kept[n].base < kept[n].size && size <= kept[n].size - (address - kept[n].base))
			return true;
	return false;
}

/* With the lock held. */
static bool
has_piece(uint64_t address, uint64_t size)
{
	for (const struct shared *piece = all_shared; piece; piece = piece->next)
		if (address < piece->address + piece->size && piece->address < address + size)
			return true;
	return false;
}

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

static int host_file = -1; /* what pieces are of; guarded by lock */

static CUresult
take_file(struct sv_call *call, const struct session_memory *memory)
{
	struct stat st;
	int fd = sv_descriptor_take(call, memory->value);
	bool good = sv_cannot_shrink(fd) && fstat(fd, &st) == 0 && (uint64_t)st.st_size == memory->size;

	pthread_mutex_lock(&lock);
	good = good && host_file < 0;
	if (good)
		host_file = fd;
	pthread_mutex_unlock(&lock);
	if (!good && fd >= 0)
		close(fd);
	return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult
map_piece(const struct session_memory *memory)
{
	bool closed = memory->value == SESSION_MEMORY_CLOSED;
	struct shared *shared = calloc(1, sizeof(*shared));
	void *hint = (void *)(uintptr_t)memory->address, *at = MAP_FAILED;

	if (!shared)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&lock);
	int how = is_kept(memory->address, memory->size) && !has_piece(memory->address, memory->size) ? MAP_FIXED : MAP_FIXED_NOREPLACE;
	if (memory->address < LOWEST)
		at = MAP_FAILED;
	else if (closed)
		at = reserve(memory->address, memory->size, how);
	else if (memory->value <= INT64_MAX - memory->size) /* behind the end of the file nothing can be touched: that ends this worker */
		at = mmap(hint, memory->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | how, host_file, (off_t)memory->value);
	if (at == hint) {
		*shared = (struct shared){ .next = all_shared, .address = memory->address, .size = memory->size, .open = !closed };
		all_shared = shared;
	}
	pthread_mutex_unlock(&lock);
	if (at == hint)
		return CUDA_SUCCESS;
	if (at != MAP_FAILED)
		munmap(at, memory->size); /* a kernel that does not know the flag */
	free(shared);
	return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED; /* the address is taken here: the client tries another */
}

static bool
is_registered(const struct shared *piece)
{
	for (const struct registered *r = all_registered; r; r = r->next)
		if (r->address < piece->address + piece->size && piece->address < r->address + r->size)
			return true;
	return false;
}

/* Opens a piece, or takes it out. */
static CUresult
change_piece(const struct session_memory *memory)
{
	bool open = memory->action == SESSION_MEMORY_OPEN;
	void *at = (void *)(uintptr_t)memory->address;
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&lock);
	struct shared **found = find_shared(memory->address, memory->size), *shared = found ? *found : NULL;
	if (shared && shared->address == memory->address && shared->size == memory->size) {
		if (open) {
			result = mprotect(at, memory->size, PROT_READ | PROT_WRITE) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
			shared->open |= result == CUDA_SUCCESS;
		} else if (!is_registered(shared)) { /* else kernels that run may be there */
			*found = shared->next;
			if (is_kept(memory->address, memory->size))
				reserve(memory->address, memory->size, MAP_FIXED);
			else
				munmap(at, memory->size);
			free(shared);
			result = CUDA_SUCCESS;
		}
	}
	pthread_mutex_unlock(&lock);
	return result;
}

/* Kernels have to find it at the client's address (cuMemHostRegister: not so on every device). */
static CUresult
register_memory(struct sv_call *call, void *at, size_t size, unsigned flags)
{
	struct registered *registered = calloc(1, sizeof(*registered));
	CUdeviceptr device = 0;

	if (!registered)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = call->ops->cuMemHostRegister_v2(at, size, flags);
	if (result == CUDA_SUCCESS && (call->ops->cuMemHostGetDevicePointer_v2(&device, at, 0) != CUDA_SUCCESS || device != (CUdeviceptr)(uintptr_t)at)) {
		call->ops->cuMemHostUnregister(at);
		result = CUDA_ERROR_NOT_SUPPORTED;
	}
	if (result != CUDA_SUCCESS) {
		free(registered);
		return result;
	}
	*registered = (struct registered){ .address = (uintptr_t)at, .size = size };
	pthread_mutex_lock(&lock);
	registered->next = all_registered;
	all_registered = registered;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult
unregister_memory(struct sv_call *call, void *at)
{
	CUresult result = call->ops->cuMemHostUnregister(at); /* waits for what uses it */

	if (result != CUDA_SUCCESS && result != CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED) /* the latter: it ended with its context */
		return result;
	pthread_mutex_lock(&lock);
	struct registered **found = &all_registered, *ended;
	while (*found && (*found)->address != (uintptr_t)at)
		found = &(*found)->next;
	ended = *found;
	if (ended)
		*found = ended->next;
	pthread_mutex_unlock(&lock);
	free(ended);
	return result;
}

bool
sv_serve_memory(struct sv_call *call, CUresult *result)
{
	struct session_memory memory;
	const void *bytes = call_get(&call->in, sizeof(memory));

	if (!bytes)
		return false;
	memcpy(&memory, bytes, sizeof(memory));
	void *at = (void *)(uintptr_t)memory.address;
	bool pages = !(memory.address & 4095 || memory.size & 4095);
	if (memory.address > UINT64_MAX - memory.size || memory.size > INT64_MAX)
		return false;
	switch (memory.action) {
	case SESSION_MEMORY_FILE:
		*result = take_file(call, &memory);
		return true;
	case SESSION_MEMORY_MAP:
		if (!pages || !memory.size || (memory.value != SESSION_MEMORY_CLOSED && memory.value & 4095))
			return false;
		*result = map_piece(&memory);
		return true;
	case SESSION_MEMORY_OPEN:
	case SESSION_MEMORY_UNMAP:
		*result = memory.size ? change_piece(&memory) : CUDA_ERROR_INVALID_VALUE;
		return true;
	case SESSION_MEMORY_REGISTER:
		*result = sv_memory_covers(memory.address, memory.size) ? register_memory(call, at, memory.size, ((unsigned)memory.flags & 11u) | CU_MEMHOSTREGISTER_DEVICEMAP)
		                                               : CUDA_ERROR_INVALID_VALUE;
		return true;
	case SESSION_MEMORY_UNREGISTER:
		*result = unregister_memory(call, at);
		return true;
	default:
		return false;
	}
}

/*
 * An address range that a copy may touch in this process, which takes unified addresses for its own memory otherwise: what the client
 * shares, or what is the device's (several allocations in a row, where memory was mapped piece by piece).
 */
CUresult
sv_may_touch(struct sv_call *call, uint64_t address, uint64_t size)
{
	CUdeviceptr base = 0;
	size_t range = 0;

	if (address & SESSION_FAR && !sv_reaches_far()) {
		fw_warn_once("worker", "this copy of pageable memory needs the software GPU: use pinned memory (cuMemHostAlloc)");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (!address || address & SESSION_FAR)
		return CUDA_SUCCESS; /* the device says what is wrong with it */
	if (sv_memory_covers(address, size) || sv_managed_covers(address, size))
		return CUDA_SUCCESS;
	while (call->ops->cuMemGetAddressRange_v2(&base, &range, address) == CUDA_SUCCESS && address - base < range) {
		uint64_t left = range - (address - base);
		if (size <= left)
			return CUDA_SUCCESS;
		address += left;
		size -= left;
	}
	return CUDA_ERROR_INVALID_VALUE;
}

/* One side of a box: what the client says of it. */
struct side {
	CUmemorytype type;
	uint64_t address, x, y, z, pitch, height;
};

CUresult
sv_may_touch_box(struct sv_call *call, const CUDA_MEMCPY3D *c, bool is_source)
{
	struct side side = is_source
		? (struct side){ c->srcMemoryType, c->srcDevice, c->srcXInBytes, c->srcY, c->srcZ, c->srcPitch, c->srcHeight }
		: (struct side){ c->dstMemoryType, c->dstDevice, c->dstXInBytes, c->dstY, c->dstZ, c->dstPitch, c->dstHeight };
	uint64_t rows, planes, row, bytes, end;

	if (side.type == CU_MEMORYTYPE_HOST)
		side.address = (uint64_t)(uintptr_t)(is_source ? c->srcHost : c->dstHost);
	if ((side.type != CU_MEMORYTYPE_HOST && side.type != CU_MEMORYTYPE_UNIFIED) || !c->WidthInBytes || !c->Height || !c->Depth)
		return CUDA_SUCCESS; /* the device checks its own memory */
	if (__builtin_add_overflow(side.y, c->Height, &rows) || __builtin_add_overflow(side.z, c->Depth, &planes) ||
	    __builtin_add_overflow(side.x, c->WidthInBytes, &row))
		return CUDA_ERROR_INVALID_VALUE;
	if (__builtin_mul_overflow(planes - 1, side.height > rows ? side.height : rows, &bytes) ||
	    __builtin_add_overflow(bytes, rows - 1, &bytes) || __builtin_mul_overflow(bytes, side.pitch > row ? side.pitch : row, &bytes) ||
	    __builtin_add_overflow(bytes, row, &bytes) || __builtin_add_overflow(side.address, bytes, &end))
		return CUDA_ERROR_INVALID_VALUE;
	return sv_may_touch(call, side.address, bytes);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------- */

static bool
copy_there(struct sv_call *call, bool async, CUresult *result)
{
	CUdeviceptr dst = call_get_u64(&call->in), src = call_get_u64(&call->in);
	uint64_t size = call_get_u64(&call->in);
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);

	struct sv_staging staging = { .call = call, .stream = stream, .synchronous = !async };
	CUDA_MEMCPY3D row = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED, .srcDevice = src, .srcPitch = size, .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
		.dstDevice = dst, .dstPitch = size, .WidthInBytes = size, .Height = 1, .Depth = 1 };

	if (call->in.bad)
		return false;
	if (async && sv_stage_capture(call, stream, &row, result))
		return true;
	*result = sv_stage(&staging, &dst, size, false, false);
	if (*result == CUDA_SUCCESS)
		*result = sv_stage(&staging, &src, size, true, false);
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_before(&staging);
	if (*result == CUDA_SUCCESS)
		*result = async ? call->ops->cuMemcpyAsync(dst, src, size, stream) : call->ops->cuMemcpy(dst, src, size);
	*result = sv_stage_after(&staging, *result);
	return true;
}

bool
sv_cuMemcpy(struct sv_call *call, CUresult *result)
{
	return copy_there(call, false, result);
}

bool
sv_cuMemcpyAsync(struct sv_call *call, CUresult *result)
{
	return copy_there(call, true, result);
}

/* A captured copy would remember memory of this process that means nothing later: such copies need memory that both sides share. */
bool
sv_is_capturing(struct sv_call *call, CUstream stream)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;

	if (call->ops->cuStreamIsCapturing(stream, &status) != CUDA_SUCCESS || status == CU_STREAM_CAPTURE_STATUS_NONE)
		return false;
	fw_warn_once("worker", "copies of pageable memory are not captured through a server: use pinned memory (cuMemHostAlloc)");
	return true;
}

/* The bytes stay in the ring: the device copies what is there, whatever the client does to them meanwhile. */
static bool
copy_in(struct sv_call *call, bool async, CUresult *result)
{
	uint64_t dst = call_get_u64(&call->in), all = call_get_u64(&call->in), at = call_get_u64(&call->in), size = call_get_u64(&call->in);
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);
	const void *bytes = fw_cursor_bytes(&call->in, size);

	if (!bytes || at > all || size > all - at)
		return false;
	*result = size < all ? sv_may_touch(call, dst, all) : CUDA_SUCCESS; /* of a copy that is refused, no part is made */
	if (size && async && sv_is_capturing(call, stream))
		*result = CUDA_ERROR_NOT_SUPPORTED;
	else if (*result == CUDA_SUCCESS)
		*result = async ? call->ops->cuMemcpyHtoDAsync_v2(dst + at, bytes, size, stream) : call->ops->cuMemcpyHtoD_v2(dst + at, bytes, size);
	return true;
}

bool
sv_cuMemcpyHtoD_v2(struct sv_call *call, CUresult *result)
{
	return copy_in(call, false, result);
}

bool
sv_cuMemcpyHtoDAsync_v2(struct sv_call *call, CUresult *result)
{
	return copy_in(call, true, result);
}

static bool
copy_out(struct sv_call *call, bool async, CUresult *result)
{
	uint64_t src = call_get_u64(&call->in), size = call_get_u64(&call->in);
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);
	bool settles = call_get_u64(&call->in);

	if (call->in.bad || !call->wants_answer)
		return false;
	*result = size > SESSION_CHUNK ? sv_may_touch(call, src, size) : CUDA_SUCCESS;
	if (async && sv_is_capturing(call, stream))
		*result = CUDA_ERROR_NOT_SUPPORTED;
	for (uint64_t at = 0; at < size && *result == CUDA_SUCCESS;) {
		uint32_t part = size - at < SESSION_CHUNK ? (uint32_t)(size - at) : SESSION_CHUNK;
		void *room = sv_part_reserve(call, part);
		*result = async ? call->ops->cuMemcpyDtoHAsync_v2(room, src + at, part, stream) : call->ops->cuMemcpyDtoH_v2(room, src + at, part);
		if (*result == CUDA_SUCCESS)
			sv_part_send(call, room, part);
		at += part;
	}
	if (async && settles && *result == CUDA_SUCCESS) /* brings home what the copy alone does not: what kernels printed */
		*result = call->ops->cuStreamSynchronize(stream);
	return true;
}

bool
sv_cuMemcpyDtoH_v2(struct sv_call *call, CUresult *result)
{
	return copy_out(call, false, result);
}

bool
sv_cuMemcpyDtoHAsync_v2(struct sv_call *call, CUresult *result)
{
	return copy_out(call, true, result);
}

/* ---- boxes --------------------------------------------------------------------------------------------------------- */

/*
 * Where the sides lie in this process. A host side that travels as packed rows: what the client says of its pitch, height and offsets is
 * not looked at, as nothing around the rows is the client's. Without rows the side may name what the client may touch.
 */
static CUresult
settle_source(struct sv_staging *staging, CUDA_MEMCPY3D *c, const void *rows)
{
	if (!rows)
		return sv_stage_box(staging, c, true);
	if (c->srcMemoryType != CU_MEMORYTYPE_HOST)
		return CUDA_ERROR_INVALID_VALUE;
	c->srcHost = rows;
	c->srcXInBytes = c->srcY = c->srcZ = c->srcLOD = 0;
	c->srcPitch = c->WidthInBytes;
	c->srcHeight = c->Height;
	return CUDA_SUCCESS;
}

static CUresult
settle_target(struct sv_staging *staging, CUDA_MEMCPY3D *c, void *rows)
{
	if (!rows)
		return sv_stage_box(staging, c, false);
	if (c->dstMemoryType != CU_MEMORYTYPE_HOST)
		return CUDA_ERROR_INVALID_VALUE;
	c->dstHost = rows;
	c->dstXInBytes = c->dstY = c->dstZ = c->dstLOD = 0;
	c->dstPitch = c->WidthInBytes;
	c->dstHeight = c->Height;
	return CUDA_SUCCESS;
}

static CUDA_MEMCPY2D
narrow(const CUDA_MEMCPY3D *c)
{
	return (CUDA_MEMCPY2D){ .srcXInBytes = c->srcXInBytes, .srcY = c->srcY, .srcMemoryType = c->srcMemoryType, .srcHost = c->srcHost,
		.srcDevice = c->srcDevice, .srcArray = c->srcArray, .srcPitch = c->srcPitch, .dstXInBytes = c->dstXInBytes, .dstY = c->dstY,
		.dstMemoryType = c->dstMemoryType, .dstHost = c->dstHost, .dstDevice = c->dstDevice, .dstArray = c->dstArray,
		.dstPitch = c->dstPitch, .WidthInBytes = c->WidthInBytes, .Height = c->Height };
}

static CUresult
run_box(struct sv_call *call, const CUDA_MEMCPY3D *c, CUstream stream)
{
	CUDA_MEMCPY2D flat = narrow(c);

	switch (call->id) {
	case CALL_cuMemcpy2D_v2:
		return call->ops->cuMemcpy2D_v2(&flat);
	case CALL_cuMemcpy2DUnaligned_v2:
		return call->ops->cuMemcpy2DUnaligned_v2(&flat);
	case CALL_cuMemcpy2DAsync_v2:
		return call->ops->cuMemcpy2DAsync_v2(&flat, stream);
	case CALL_cuMemcpy3DAsync_v2:
		return call->ops->cuMemcpy3DAsync_v2(c, stream);
	default:
		return call->ops->cuMemcpy3D_v2(c);
	}
}

static bool
copy_box(struct sv_call *call, CUresult *result)
{
	CUDA_MEMCPY3D c;
	const void *bytes = call_get(&call->in, sizeof(c)), *rows_in = NULL;

	if (!bytes)
		return false;
	memcpy(&c, bytes, sizeof(c));
	CUstream stream = (CUstream)(uintptr_t)call_get_u64(&call->in);
	uint64_t in_size = call_get_u64(&call->in), out_size = call_get_u64(&call->in), volume;
	if (__builtin_mul_overflow(c.Height, c.Depth, &volume) || __builtin_mul_overflow(volume, c.WidthInBytes, &volume) ||
	    !volume || (in_size && in_size != volume) || (out_size && (out_size != volume || out_size > SESSION_BLOB_MAX)))
		return false; /* an empty box is not sent */
	if (in_size)
		rows_in = fw_cursor_bytes(&call->in, in_size);
	bool async = call->id == CALL_cuMemcpy2DAsync_v2 || call->id == CALL_cuMemcpy3DAsync_v2;
	if (call->in.bad)
		return false;
	if (async && !in_size && !out_size && sv_stage_capture(call, stream, &c, result))
		return true;
	uint8_t *answer = out_size ? malloc(out_size + 8) : NULL;
	struct sv_staging staging = { .call = call, .stream = stream, .synchronous = !async };
	if (async && (in_size || out_size) && sv_is_capturing(call, stream))
		*result = CUDA_ERROR_NOT_SUPPORTED;
	else if (out_size && !answer)
		*result = CUDA_ERROR_OUT_OF_MEMORY;
	else
		*result = settle_source(&staging, &c, rows_in);
	if (*result == CUDA_SUCCESS)
		*result = settle_target(&staging, &c, answer ? answer + 8 : NULL);
	if (*result == CUDA_SUCCESS)
		*result = sv_stage_before(&staging);
	if (*result == CUDA_SUCCESS)
		*result = run_box(call, &c, stream);
	*result = sv_stage_after(&staging, *result);
	if (answer && *result == CUDA_SUCCESS) /* in place of the scratch */
		sv_answer_with(call, answer, out_size + 8);
	else
		free(answer);
	return true;
}

bool
sv_cuMemcpy2D_v2(struct sv_call *call, CUresult *result)
{
	return copy_box(call, result);
}

bool
sv_cuMemcpy2DUnaligned_v2(struct sv_call *call, CUresult *result)
{
	return copy_box(call, result);
}

bool
sv_cuMemcpy2DAsync_v2(struct sv_call *call, CUresult *result)
{
	return copy_box(call, result);
}

bool
sv_cuMemcpy3D_v2(struct sv_call *call, CUresult *result)
{
	return copy_box(call, result);
}

bool
sv_cuMemcpy3DAsync_v2(struct sv_call *call, CUresult *result)
{
	return copy_box(call, result);
}
