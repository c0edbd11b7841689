/*
 * Managed memory of a device behind a server: it has one address in both processes.
 *
 * At the handshake this process reserves ranges of addresses; the worker's device lies in one of them, and the others are given back. What
 * is managed (allocations, variables of modules) is then mapped here at the address that the device gave it. On one host it is the
 * same memory: one file that both processes map, coherent, without a protocol. Over a network the mapping is this process's own and its
 * pages move (remote_pages.c). A device that does not lie in a common range (the machine's driver chooses its own addresses) is tried
 * address by address.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/remote.h"

#define SPACE_BYTES ((uint64_t)1 << 39) /* what the software GPU asks for */
#define SPACE_LEAST ((uint64_t)1 << 33)
#define GRANULE_BITS 21 /* of the device's mappings: allocations that share one are mapped and unmapped together */
#define GRANULE ((uint64_t)1 << GRANULE_BITS)
#define BUCKETS 4096
#define FILE_TAG UINT64_MAX /* remote_copy.c counts from 1 */

struct managed {
	struct managed *next;
	uint64_t address, size, id;
	CUcontext ctx; /* with which it ends; NULL for variables */
};

static struct session_space space;          /* size 0: there is none */
static int file = -1;                       /* what managed memory lies in, each byte at its distance from the space's beginning */
static bool coherent;                       /* the worker has the same memory */
static uint16_t *users;                     /* of each granule; guarded by lock */
static struct managed *all[BUCKETS];        /* guarded by lock */
static uint64_t next_id;
static unsigned any;                        /* atomic: something is managed */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

/* ---- the common range ---------------------------------------------------------------------------------------------- */

/* Where the two processes are likely to have nothing: first far from what kernels and loaders use, then where sanitizers allow it. */
static uint64_t
candidate(unsigned n)
{
	bool far = n < 2 || RM_EMPTY_BASE > 0x7a0000000000u;
	uint64_t random = 0, low = far ? RM_EMPTY_BASE : 0x7a0000000000u, width = far ? RM_EMPTY_SIZE : 0x040000000000u;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = (uint64_t)(uintptr_t)&random * 0x9e3779b97f4a7c15u;
	return low + (random % width & ~(GRANULE - 1));
}

void
rm_spaces_reserve(struct session_space spaces[SESSION_SPACES])
{
	for (unsigned n = 0; n < SESSION_SPACES; n++) {
		spaces[n] = (struct session_space){ 0 };
		for (uint64_t size = SPACE_BYTES; size >= SPACE_LEAST && !spaces[n].size; size /= 4) {
			void *hint = (void *)(uintptr_t)candidate(n);
			void *at = mmap(hint, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
			if (at == hint)
				spaces[n] = (struct session_space){ (uint64_t)(uintptr_t)at, size };
			else if (at != MAP_FAILED)
				munmap(at, size); /* sanitizers move what they do not allow; old kernels do not know the flag */
		}
	}
}

/* A file for the whole range, of which only what is touched takes memory; shared with the worker if the link can. */
static bool
open_file(void)
{
	struct rm_request r;

	file = memfd_create("farwarp-managed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (file < 0 || fw_file_resize(file, space.size) != 0 || fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return false;
	if (!wire_can_share(rm_link()) || !wire_share(rm_link(), file, space.size, FILE_TAG))
		return true;
	rm_begin(&r, SESSION_MANAGED_FILE, 16);
	call_put_u64(&r.out, FILE_TAG);
	call_put_u64(&r.out, space.size);
	coherent = rm_do(&r) == CUDA_SUCCESS;
	return true;
}

void
rm_spaces_settle(const struct session_space spaces[SESSION_SPACES], const struct session_space *taken)
{
	for (unsigned n = 0; n < SESSION_SPACES; n++) {
		if (!spaces[n].size)
			continue;
		if (taken->size && !(taken->base & (GRANULE - 1)) && taken->base - spaces[n].base < spaces[n].size && taken->size <= spaces[n].size - (taken->base - spaces[n].base)) {
			space = *taken;
			madvise((void *)(uintptr_t)spaces[n].base, spaces[n].size, MADV_DONTDUMP);
		} else {
			munmap((void *)(uintptr_t)spaces[n].base, spaces[n].size);
		}
	}
	if (!space.size)
		return;
	users = mmap(NULL, (space.size >> GRANULE_BITS) * sizeof(*users), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	             -1, 0);
	if (users == MAP_FAILED || !open_file() || (!coherent && !rm_pages_area(space.base, space.size, file, 0))) {
		fw_warn("client", "no managed memory: %m");
		space.size = 0;
	}
}

bool
rm_moves(uint64_t address)
{
	return !coherent && !wire_can_share(rm_link()) && (rm_is_managed(address, 1) || rm_host_kind(address, 1) != RM_HOST_NONE);
}

bool
rm_managed_coherent(void)
{
	return coherent;
}

/* ---- mapping ------------------------------------------------------------------------------------------------------- */

static bool
in_space(uint64_t address, uint64_t size)
{
	return address - space.base < space.size && size <= space.size - (address - space.base);
}

bool
rm_in_space(uint64_t address)
{
	return address - space.base < space.size;
}

static bool
map_run(uint64_t base, uint64_t size)
{
	if (!coherent)
		return rm_pages_map(base, size);
	return mmap((void *)(uintptr_t)base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file,
	            (off_t)(base - space.base)) != MAP_FAILED;
}

static void
unmap_run(uint64_t base, uint64_t size)
{
	if (!coherent)
		rm_pages_unmap(base, size);
	else /* the reservation again; giving the memory back is the worker's */
		mmap((void *)(uintptr_t)base, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/* The granules that [address, address + size) lies in, one user more or less; whose users begin or end are mapped or unmapped. Lock held. */
static bool
use_granules(uint64_t address, uint64_t size, bool more)
{
	uint64_t first = (address - space.base) >> GRANULE_BITS, last = (address + size - 1 - space.base) >> GRANULE_BITS;

	for (uint64_t g = first, run; g <= last; g += run) {
		for (run = 0; g + run <= last && users[g + run] == (more ? 0 : 1); run++)
			users[g + run] = more;
		uint64_t base = space.base + (g << GRANULE_BITS);
		if (!run) {
			users[g] += users[g] ? more ? 1 : -1 : 0;
			run = 1;
		} else if (!more) {
			unmap_run(base, run << GRANULE_BITS);
		} else if (!map_run(base, run << GRANULE_BITS)) {
			memset(users + g, 0, run * sizeof(*users));
			if (g > first)
				use_granules(address, base - address, false);
			return false;
		}
	}
	return true;
}

static struct managed **
bucket(uint64_t address)
{
	return &all[(address >> 8) * 0x9e3779b97f4a7c15u >> 52 & (BUCKETS - 1)];
}

/* With the lock held. */
static struct managed **
find(uint64_t address)
{
	struct managed **at = bucket(address);

	while (*at && (*at)->address != address)
		at = &(*at)->next;
	return at;
}

/* With the lock held. */
static void
forget(struct managed **at)
{
	struct managed *gone = *at;

	*at = gone->next;
	use_granules(gone->address, gone->size, false);
	free(gone);
}

/* `fresh`: nobody has written it yet. */
static bool
remember(uint64_t address, uint64_t size, bool fresh)
{
	struct managed *managed = malloc(sizeof(*managed));

	if (!managed || !in_space(address, size)) {
		free(managed);
		return false;
	}
	pthread_rwlock_wrlock(&lock);
	struct managed **at = find(address);
	if (*at && !fresh && (*at)->size == size) { /* a variable that was asked for before */
		pthread_rwlock_unlock(&lock);
		free(managed);
		return true;
	}
	if (*at) /* ended with its context */
		forget(at);
	bool mapped = use_granules(address, size, true);
	if (mapped) {
		*managed = (struct managed){ *bucket(address), address, size, ++next_id, fresh ? fw_thread.ctx : NULL };
		*bucket(address) = managed;
		if (fresh && !coherent)
			rm_pages_fresh(address, size);
		__atomic_store_n(&any, 1, __ATOMIC_RELEASE);
	} else {
		free(managed);
	}
	pthread_rwlock_unlock(&lock);
	return mapped;
}

bool
rm_is_managed(uint64_t address, uint64_t size)
{
	if (!__atomic_load_n(&any, __ATOMIC_RELAXED) || !in_space(address, size))
		return false;
	pthread_rwlock_rdlock(&lock);
	bool found = users[(address - space.base) >> GRANULE_BITS] != 0;
	pthread_rwlock_unlock(&lock);
	return found;
}

void
rm_managed_context_ended(CUcontext ctx)
{
	if (!__atomic_load_n(&any, __ATOMIC_RELAXED))
		return;
	pthread_rwlock_wrlock(&lock);
	for (unsigned n = 0; n < BUCKETS; n++)
		for (struct managed **at = &all[n]; *at;)
			if ((*at)->ctx == ctx)
				forget(at);
			else
				at = &(*at)->next;
	pthread_rwlock_unlock(&lock);
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

CUresult
rm_cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned flags)
{
	CUdeviceptr address = 0;

	if (!space.size) {
		fw_warn_once("client", "no managed memory: no range of addresses is free in this process and on the server");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	CUresult result = rm_call(CALL_cuMemAllocManaged, (const void *const[]){ &(CUdeviceptr *){ &address }, &bytesize, &flags });
	if (result != CUDA_SUCCESS)
		return result;
	if (!remember(address, bytesize, true)) {
		rm_ops_table()->cuMemFree_v2(address);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*dptr = address;
	return CUDA_SUCCESS;
}

CUresult
rm_cuMemFree_v2(CUdeviceptr dptr)
{
	uint64_t id = 0;

	if (__atomic_load_n(&any, __ATOMIC_RELAXED)) {
		pthread_rwlock_rdlock(&lock);
		struct managed *managed = *find(dptr);
		id = managed ? managed->id : 0;
		pthread_rwlock_unlock(&lock);
	}
	CUresult result = rm_call(CALL_cuMemFree_v2, (const void *const[]){ &dptr });
	if (result == CUDA_SUCCESS && id) {
		pthread_rwlock_wrlock(&lock);
		struct managed **at = find(dptr);
		if (*at && (*at)->id == id) /* else the address is another thread's again */
			forget(at);
		pthread_rwlock_unlock(&lock);
	}
	return result;
}

/* Where a variable lies: if it is a managed one, this process may touch it too. */
static CUresult
found_variable(CUresult result, CUdeviceptr *dptr, size_t *bytes)
{
	unsigned managed = 0;

	if (result != CUDA_SUCCESS || !space.size || !in_space(*dptr, *bytes) || !*bytes ||
	    rm_ops_table()->cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, *dptr) != CUDA_SUCCESS || !managed)
		return result;
	return remember(*dptr, *bytes, false) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult
get_variable(enum cuda_call_id call, CUdeviceptr *dptr, size_t *bytes, void *owner, const char *name)
{
	CUdeviceptr address = 0;
	size_t size = 0;

	if (!dptr && !bytes)
		return rm_call(call, (const void *const[]){ &dptr, &bytes, &owner, &name });
	CUresult result = rm_call(call, (const void *const[]){ &(CUdeviceptr *){ &address }, &(size_t *){ &size }, &owner, &name });
	result = found_variable(result, &address, &size);
	if (result == CUDA_SUCCESS && dptr)
		*dptr = address;
	if (result == CUDA_SUCCESS && bytes)
		*bytes = size;
	return result;
}

CUresult
rm_cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
	return get_variable(CALL_cuModuleGetGlobal_v2, dptr, bytes, hmod, name);
}

CUresult
rm_cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	return get_variable(CALL_cuLibraryGetGlobal, dptr, bytes, library, name);
}

CUresult
rm_cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	return get_variable(CALL_cuLibraryGetManaged, dptr, bytes, library, name);
}

/* What is said of the device may be untrue of it behind this link. */
CUresult
rm_cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
	CUresult result = rm_call(CALL_cuDeviceGetAttribute, (const void *const[]){ &pi, &attrib, &dev });

	if (result != CUDA_SUCCESS)
		return result;
	switch (attrib) {
	case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
		*pi = *pi && space.size;
		break;
	case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
	case CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST:
	case CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED:
		*pi = *pi && coherent;
		break;
	case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS:
	case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES:
		*pi = 0; /* the worker's pages are not this process's */
		break;
	default:
		break;
	}
	return CUDA_SUCCESS;
}

/* A prefetch to the host: the pages are not moved before they are touched, but then all at once. */
static CUresult
prefetched(CUresult result, CUdeviceptr devPtr, size_t count, bool to_host)
{
	if (result == CUDA_SUCCESS && to_host && !coherent && rm_is_managed(devPtr, count))
		rm_pages_wanted(devPtr, count);
	return result;
}

CUresult
rm_cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
	CUresult result = rm_call(CALL_cuMemPrefetchAsync, (const void *const[]){ &devPtr, &count, &dstDevice, &hStream });

	return prefetched(result, devPtr, count, dstDevice == CU_DEVICE_CPU);
}

CUresult
rm_cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned flags, CUstream hStream)
{
	CUresult result = rm_call(CALL_cuMemPrefetchAsync_v2, (const void *const[]){ &devPtr, &count, &location, &flags, &hStream });

	return prefetched(result, devPtr, count, location.type != CU_MEM_LOCATION_TYPE_DEVICE);
}
