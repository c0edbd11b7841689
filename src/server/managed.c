/*
 * Managed memory of a device that chooses its own addresses: where it lies, so that a client may fetch and bring its pages and nothing else of
 * this process, which has a server's keys. The device's calls that begin and end such memory pass through here: what is to end is
 * taken off the list before the driver ends it, and nothing is read or written while it is taken off.
 *
 * Pages are read and written through the kernel at the driver's pointer. Where the driver does not let the CPU at them (CUDA C++ programming guide,
 * concurrentManagedAccess 0, while a kernel runs) it copies them itself, on a stream that waits for no other: the stream that a host function
 * of the client stops must not be waited for.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/thread.h"
#include "server/server.h"

#define PAGE 4096ul

struct managed {
	uint64_t address, size;
	CUcontext ctx; /* that was current; with which it ends, but for what is a library's */
	void *owner;   /* the module or library of a variable */
	bool is_library;
};

static const struct cuda_ops *inner;
static struct cuda_ops watched;
static struct managed *list; /* by address; none overlaps another; guarded by lock, and so are the two below */
static size_t count, room;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

/* ---- the list -------------------------------------------------------------------------------------------------------- */

/* How many begin at or before an address. Lock held. */
static size_t
begin_before(uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (list[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What overlaps it has ended unseen. */
static bool
put(const struct managed *managed)
{
	bool good = false;

	if (!managed->size || managed->address > UINT64_MAX - managed->size - PAGE)
		return false;
	pthread_rwlock_wrlock(&lock);
	size_t first = begin_before(managed->address), end = first;
	if (first && list[first - 1].address + list[first - 1].size > managed->address)
		first--;
	while (end < count && list[end].address < managed->address + managed->size)
		end++;
	struct managed *more = first == end && count == room ? realloc(list, (2 * room + 64) * sizeof(*list)) : list;
	if (first == end && count == room && more)
		room = 2 * room + 64;
	if (more) {
		list = more;
		memmove(list + first + 1, list + end, (count - end) * sizeof(*list));
		list[first] = *managed;
		__atomic_store_n(&count, count + first + 1 - end, __ATOMIC_RELEASE);
		good = true;
	}
	pthread_rwlock_unlock(&lock);
	return good;
}

/* Those to which all that is given applies; 0 and NULL stand for anything. */
static struct managed *
take(uint64_t address, CUcontext ctx, const void *owner, size_t *taken)
{
	struct managed *out = NULL;

	*taken = 0;
	if (!__atomic_load_n(&count, __ATOMIC_ACQUIRE))
		return NULL;
	pthread_rwlock_wrlock(&lock);
	size_t left = 0, first = address ? begin_before(address) : 0;
	if (address && !(first && list[first - 1].address == address)) {
		pthread_rwlock_unlock(&lock);
		return NULL;
	}
	out = malloc(count * sizeof(*out)); /* without it nothing can be put back: it is forgotten all the same */
	for (size_t n = 0; n < count; n++) {
		if ((address && list[n].address != address) || (ctx && (list[n].ctx != ctx || list[n].is_library)) || (owner && list[n].owner != owner))
			list[left++] = list[n];
		else if (out)
			out[(*taken)++] = list[n];
	}
	__atomic_store_n(&count, left, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&lock);
	return out;
}

/* After the driver's answer: what has not ended is put back. */
static void
settle(struct managed *taken, size_t n, bool ended)
{
	for (size_t i = 0; i < n && !ended; i++)
		put(&taken[i]);
	free(taken);
}

/* ---- the device's calls ---------------------------------------------------------------------------------------------- */

static CUresult
watch_cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned flags)
{
	CUresult result = inner->cuMemAllocManaged(dptr, bytesize, flags);

	if (result == CUDA_SUCCESS && !put(&(struct managed){ *dptr, bytesize, fw_thread.ctx, NULL, false })) {
		inner->cuMemFree_v2(*dptr);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return result;
}

static CUresult
watch_cuMemFree_v2(CUdeviceptr dptr)
{
	size_t n;
	struct managed *taken = take(dptr, NULL, NULL, &n);
	CUresult result = inner->cuMemFree_v2(dptr);

	settle(taken, n, result == CUDA_SUCCESS);
	return result;
}

static CUresult
watch_cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
	size_t n;
	struct managed *taken = take(dptr, NULL, NULL, &n);
	CUresult result = inner->cuMemFreeAsync(dptr, hStream);

	settle(taken, n, result == CUDA_SUCCESS);
	return result;
}

/* A variable that the client has asked for. */
static CUresult
note_variable(CUresult result, const CUdeviceptr *dptr, const size_t *bytes, void *owner, bool is_library)
{
	unsigned managed = 0;

	if (result == CUDA_SUCCESS && dptr && bytes &&
	    inner->cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, *dptr) == CUDA_SUCCESS && managed &&
	    !put(&(struct managed){ *dptr, *bytes, fw_thread.ctx, owner, is_library }))
		return CUDA_ERROR_OUT_OF_MEMORY;
	return result;
}

static CUresult
watch_cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
	return note_variable(inner->cuModuleGetGlobal_v2(dptr, bytes, hmod, name), dptr, bytes, hmod, false);
}

static CUresult
watch_cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	return note_variable(inner->cuLibraryGetGlobal(dptr, bytes, library, name), dptr, bytes, library, true);
}

static CUresult
watch_cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	return note_variable(inner->cuLibraryGetManaged(dptr, bytes, library, name), dptr, bytes, library, true);
}

static CUresult
watch_cuModuleUnload(CUmodule hmod)
{
	size_t n;
	struct managed *taken = take(0, NULL, hmod, &n);
	CUresult result = inner->cuModuleUnload(hmod);

	settle(taken, n, result == CUDA_SUCCESS);
	return result;
}

static CUresult
watch_cuLibraryUnload(CUlibrary library)
{
	size_t n;
	struct managed *taken = take(0, NULL, library, &n);
	CUresult result = inner->cuLibraryUnload(library);

	settle(taken, n, result == CUDA_SUCCESS);
	return result;
}

static CUresult
watch_cuCtxDestroy_v2(CUcontext ctx)
{
	size_t n;
	struct managed *taken = take(0, ctx, NULL, &n);
	CUresult result = inner->cuCtxDestroy_v2(ctx);

	settle(taken, n, result == CUDA_SUCCESS);
	return result;
}

static CUresult
end_primary(CUdevice dev, CUresult (*end)(CUdevice))
{
	CUcontext ctx = NULL;
	size_t n = 0;
	struct managed *taken = NULL;
	unsigned flags;
	int active = 0;

	if (__atomic_load_n(&count, __ATOMIC_ACQUIRE) && inner->primary_context(&ctx, dev) == CUDA_SUCCESS && ctx)
		taken = take(0, ctx, NULL, &n);
	CUresult result = end(dev);
	bool stays = n && end == inner->cuDevicePrimaryCtxRelease_v2 &&
	             (inner->cuDevicePrimaryCtxGetState(dev, &flags, &active) != CUDA_SUCCESS || active);
	settle(taken, n, result == CUDA_SUCCESS && !stays);
	return result;
}

static CUresult
watch_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	return end_primary(dev, inner->cuDevicePrimaryCtxRelease_v2);
}

static CUresult
watch_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	return end_primary(dev, inner->cuDevicePrimaryCtxReset_v2);
}

const struct cuda_ops *
sv_managed_watch(const struct cuda_ops *ops)
{
	inner = ops;
	watched = *ops;
#define WATCH(name) \
	if (ops->name) \
		watched.name = watch_##name;
	WATCH(cuMemAllocManaged) WATCH(cuMemFree_v2) WATCH(cuMemFreeAsync) WATCH(cuModuleGetGlobal_v2) WATCH(cuLibraryGetGlobal)
	WATCH(cuLibraryGetManaged) WATCH(cuModuleUnload) WATCH(cuLibraryUnload) WATCH(cuCtxDestroy_v2) WATCH(cuDevicePrimaryCtxRelease_v2)
	WATCH(cuDevicePrimaryCtxReset_v2)
#undef WATCH
	return &watched;
}

/* ---- elsewhere --------------------------------------------------------------------------------------------------------- */

#define ELSEWHERE_TRIES 16384 /* small allocations are likely to be neighbours: so many of the smallest lie in 4 MiB */

static bool
meets(uint64_t address, uint64_t size, const struct session_space *avoid, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (address < avoid[i].base + avoid[i].size && avoid[i].base < address + size)
			return true;
	return false;
}

/* Those that lie where the client has something else keep their place until one does not. */
bool
sv_serve_managed_alloc(struct sv_call *call, CUresult *result)
{
	uint64_t size = call_get_u64(&call->in), flags = call_get_u64(&call->in), n;
	const struct session_space *avoid = call_get_array(&call->in, sizeof(*avoid), &n);
	CUdeviceptr address = 0, *refused = calloc(ELSEWHERE_TRIES, sizeof(*refused));
	unsigned tries = 0;

	if (call->in.bad || n > SESSION_AVOIDED_MAX || flags > UINT32_MAX) {
		free(refused);
		return false;
	}
	*result = refused ? call->ops->cuMemAllocManaged(&address, size, (unsigned)flags) : CUDA_ERROR_OUT_OF_MEMORY;
	while (*result == CUDA_SUCCESS && meets(address, size, avoid, n)) {
		refused[tries++] = address;
		*result = tries < ELSEWHERE_TRIES ? call->ops->cuMemAllocManaged(&address, size, (unsigned)flags) : CUDA_ERROR_OUT_OF_MEMORY;
	}
	while (tries)
		call->ops->cuMemFree_v2(refused[--tries]);
	free(refused);
	call_put_u64(&call->out, address);
	return true;
}

/* ---- pages ------------------------------------------------------------------------------------------------------------- */

static uint64_t
page_end(const struct managed *managed)
{
	return (managed->address + managed->size + PAGE - 1) & ~(PAGE - 1);
}

/* Whether the driver still says so: it may have ended unseen. */
static bool
is_managed(const struct managed *managed)
{
	struct fw_thread before = fw_thread;
	unsigned yes = 0;

	fw_thread.ctx = managed->ctx; /* the thread that asks for pages has none */
	CUresult result = inner->cuPointerGetAttribute(&yes, CU_POINTER_ATTRIBUTE_IS_MANAGED, managed->address);
	fw_thread = before;
	return result == CUDA_SUCCESS && yes;
}

/* The one whose pages hold an address, the last if it shares its page; NULL: there is none. Lock held. */
static const struct managed *
find(uint64_t address)
{
	size_t n = begin_before(address | (PAGE - 1));

	return n && page_end(&list[n - 1]) > address && is_managed(&list[n - 1]) ? &list[n - 1] : NULL;
}

/* Whether all pages of a range are those of managed memory. Lock held. */
static bool
covers(uint64_t address, uint64_t size)
{
	const struct managed *managed;

	while (size && (managed = find(address))) {
		uint64_t left = page_end(managed) - address;
		left = left < size ? left : size;
		address += left;
		size -= left;
	}
	return !size;
}

bool
sv_managed_covers(uint64_t address, uint64_t size)
{
	if (!__atomic_load_n(&count, __ATOMIC_ACQUIRE) || !size || address > UINT64_MAX - size)
		return false;
	pthread_rwlock_rdlock(&lock);
	bool good = covers(address, size);
	pthread_rwlock_unlock(&lock);
	return good;
}

bool
sv_memory_move(void *here, uint64_t there, uint64_t size, bool in)
{
	while (size) {
		struct iovec local = { here, size }, remote = { (void *)(uintptr_t)there, size };
		ssize_t moved = in ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0) : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
		if (moved <= 0)
			return false;
		here = (uint8_t *)here + moved;
		there += (uint64_t)moved;
		size -= (uint64_t)moved;
	}
	return true;
}

/* By the driver, what is allocated of a range that is covered; nothing is known of what lies between. Lock held. */
static bool
copy(uint8_t *here, uint64_t there, uint64_t size, bool in)
{
	struct fw_thread before = fw_thread;
	size_t n = begin_before(there);
	CUstream stream;
	CUresult result = CUDA_SUCCESS;

	n -= n && list[n - 1].address + list[n - 1].size > there;
	if (!in)
		memset(here, 0, size);
	for (; n < count && list[n].address < there + size && result == CUDA_SUCCESS; n++) {
		uint64_t from = list[n].address > there ? list[n].address : there, to = list[n].address + list[n].size;
		to = to < there + size ? to : there + size;
		fw_thread.ctx = list[n].ctx;
		fw_thread.per_thread_stream = false;
		result = inner->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
		if (result != CUDA_SUCCESS)
			break;
		result = in ? inner->cuMemcpyHtoDAsync_v2(from, here + (from - there), to - from, stream)
			: inner->cuMemcpyDtoHAsync_v2(here + (from - there), from, to - from, stream);
		CUresult done = inner->cuStreamSynchronize(stream);
		result = result == CUDA_SUCCESS ? done : result;
		inner->cuStreamDestroy_v2(stream);
	}
	fw_thread = before;
	return result == CUDA_SUCCESS;
}

bool
sv_managed_move(void *here, uint64_t there, uint64_t size, bool in)
{
	pthread_rwlock_rdlock(&lock);
	bool good = covers(there, size) && (sv_memory_move(here, there, size, in) || copy(here, there, size, in));
	pthread_rwlock_unlock(&lock);
	return good;
}
