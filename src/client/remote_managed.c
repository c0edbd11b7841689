/*
 * Managed memory of a device behind a server: it has one address in both processes.
 *
 * At the handshake this process reserves ranges of addresses; the worker's device lies in one of them, and the others are given back. What
 * is managed (allocations, variables of modules) is then mapped here at the address that the device gave it. On one host it is the
 * same memory: one file that both processes map, coherent, without a protocol. Over a network the mapping is this process's own and its
 * pages move (remote_pages.c).
 *
 * A device that does not lie in a common range (the machine's driver chooses its own addresses) is tried address by address: the addresses
 * around what it gave are reserved here when they are first needed, and the pages of what is managed move, on one host too. Where this
 * process has something else the worker is asked for memory elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/remote.h"

#define SPACE_LEAST ((uint64_t)1 << 33)
#define GRANULE_BITS 21 /* of the software GPU's mappings: allocations that share one are mapped and unmapped together */
#define GRANULE ((uint64_t)1 << GRANULE_BITS)
#define PAGE_BITS 12    /* the same of other devices */
#define PAGE ((uint64_t)1 << PAGE_BITS)
#define ADDRESSES_END ((uint64_t)1 << 47)
#define IDLE_MOST 8     /* regions that are kept without use */
#define BUCKETS 4096
#define FILE_TAG UINT64_MAX /* remote_copy.c counts from 1 */

struct managed {
	struct managed *next;
	uint64_t address, size, id;
	CUcontext ctx; /* with which it ends; NULL: that of a library */
	void *owner;   /* the module or library of a variable */
};

/* A range of addresses that is reserved here: the common one, or one of those around what the device gave. */
struct region {
	struct region *next;
	uint64_t base, size, used; /* used: granules with users */
	uint16_t *users;           /* of each granule */
};

static struct session_space space;          /* the common range; size 0: there is none */
static bool scattered;                      /* the device chooses its addresses */
static int file = -1;                       /* what managed memory lies in */
static uint64_t file_base;                  /* the address of its first byte */
static bool coherent;                       /* the worker has the same memory */
static unsigned granule_bits = GRANULE_BITS;
static struct region *regions;              /* guarded by lock */
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
		for (uint64_t size = RM_SPACE_BYTES; size >= SPACE_LEAST && !spaces[n].size; size /= 4) {
			void *hint = (void *)(uintptr_t)candidate(n);
			void *at = mmap(hint, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
			if (at == hint)
				spaces[n] = (struct session_space){ (uint64_t)(uintptr_t)at, size };
			else if (at != MAP_FAILED)
				munmap(at, size); /* sanitizers move what they do not allow; old kernels do not know the flag */
		}
	}
}

/* A file for all addresses from `base` on, of which only what is touched takes memory; shared with the worker if it can be. */
static bool
open_file(uint64_t base, uint64_t size, bool may_share)
{
	struct rm_request r;

	file_base = base;
	file = memfd_create("farwarp-managed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (file < 0 || fw_file_resize(file, size) != 0 || fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return false;
	if (!may_share || !wire_can_share(rm_link()) || !wire_share(rm_link(), file, size, FILE_TAG))
		return true;
	rm_begin(&r, SESSION_MANAGED_FILE, 16);
	call_put_u64(&r.out, FILE_TAG);
	call_put_u64(&r.out, size);
	coherent = rm_do(&r) == CUDA_SUCCESS;
	return true;
}

/* Of addresses that are reserved; they are given back if it fails. Lock held, or at the beginning. */
static struct region *
add_region(uint64_t base, uint64_t size)
{
	struct region *region = malloc(sizeof(*region));
	uint16_t *users = mmap(NULL, (size >> granule_bits) * sizeof(*users), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (!region || users == MAP_FAILED || (!coherent && !rm_pages_area(base, size, file, base - file_base))) {
		if (users != MAP_FAILED)
			munmap(users, (size >> granule_bits) * sizeof(*users));
		munmap((void *)(uintptr_t)base, size);
		free(region);
		return NULL;
	}
	madvise((void *)(uintptr_t)base, size, MADV_DONTDUMP);
	*region = (struct region){ regions, base, size, 0, users };
	regions = region;
	return region;
}

void
rm_spaces_settle(const struct session_space spaces[SESSION_SPACES], const struct session_space *taken)
{
	for (unsigned n = 0; n < SESSION_SPACES; n++) {
		if (!spaces[n].size)
			continue;
		if (taken->size && !(taken->base & (GRANULE - 1)) && taken->base - spaces[n].base < spaces[n].size && taken->size <= spaces[n].size - (taken->base - spaces[n].base))
			space = *taken;
		else
			munmap((void *)(uintptr_t)spaces[n].base, spaces[n].size);
	}
	if (!space.size) {
		scattered = true;
		granule_bits = PAGE_BITS;
	} else if (!open_file(space.base, space.size, true) || !add_region(space.base, space.size)) {
		fw_warn("client", "no managed memory: %m");
		space.size = 0;
	}
}

bool
rm_moves(uint64_t address)
{
	return (!coherent && rm_is_managed(address, 1)) || (!wire_can_share(rm_link()) && rm_host_kind(address, 1) != RM_HOST_NONE);
}

bool
rm_managed_coherent(void)
{
	return coherent;
}

/* ---- regions ------------------------------------------------------------------------------------------------------- */

/* With the lock held. */
static struct region *
find_region(uint64_t address)
{
	struct region *region = regions;

	while (region && address - region->base >= region->size)
		region = region->next;
	return region;
}

bool
rm_in_space(uint64_t address)
{
	if (!scattered)
		return address - space.base < space.size;
	if (!__atomic_load_n(&any, __ATOMIC_RELAXED))
		return false;
	pthread_rwlock_rdlock(&lock);
	bool found = find_region(address) != NULL;
	pthread_rwlock_unlock(&lock);
	return found;
}

static bool
reserve(uint64_t base, uint64_t size)
{
	void *hint = (void *)(uintptr_t)base;
	void *at = mmap(hint, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (at != MAP_FAILED && at != hint) {
		munmap(at, size); /* a kernel that does not know the flag */
		errno = EEXIST;
	}
	return at == hint;
}

/*
 * Reserves what [address, end) begins with, up to the next region, and what lies around it if that is free: the next allocation is likely to
 * be there. NULL: with EEXIST, this process has something else there. Lock held.
 */
static struct region *
claim(uint64_t address, uint64_t end)
{
	static const unsigned bits[] = { 30, GRANULE_BITS, PAGE_BITS };

	for (const struct region *region = regions; region; region = region->next)
		if (region->base > address && region->base < end)
			end = region->base;
	for (size_t n = 0; n < sizeof(bits) / sizeof(bits[0]); n++) {
		uint64_t unit = (uint64_t)1 << bits[n], base = address & ~(unit - 1), top = (end + unit - 1) & ~(unit - 1);
		if (top <= ADDRESSES_END && reserve(base, top - base))
			return add_region(base, top - base);
		if (errno != EEXIST)
			return NULL;
	}
	return NULL;
}

/* Those that nobody uses, but for a few. Lock held. */
static void
give_back_regions(void)
{
	unsigned idle = 0;

	for (struct region **at = &regions; scattered && *at;) {
		struct region *region = *at;
		if (region->used || idle++ < IDLE_MOST) {
			at = &region->next;
			continue;
		}
		*at = region->next;
		rm_pages_drop(region->base, region->size);
		munmap((void *)(uintptr_t)region->base, region->size);
		munmap(region->users, (region->size >> granule_bits) * sizeof(*region->users));
		free(region);
	}
}

/* ---- mapping ------------------------------------------------------------------------------------------------------- */

static bool
map_run(uint64_t base, uint64_t size)
{
	if (!coherent)
		return rm_pages_map(base, size);
	return mmap((void *)(uintptr_t)base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, file,
	            (off_t)(base - file_base)) != MAP_FAILED;
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
use_granules(struct region *region, uint64_t address, uint64_t size, bool more)
{
	uint64_t first = (address - region->base) >> granule_bits, last = (address + size - 1 - region->base) >> granule_bits;
	uint16_t *users = region->users;

	for (uint64_t g = first, run; g <= last; g += run) {
		for (run = 0; g + run <= last && users[g + run] == (more ? 0 : 1); run++)
			users[g + run] = more;
		uint64_t base = region->base + (g << granule_bits);
		region->used += more ? run : -run;
		if (!run) {
			users[g] += users[g] ? more ? 1 : -1 : 0;
			run = 1;
		} else if (!more) {
			unmap_run(base, run << granule_bits);
		} else if (!map_run(base, run << granule_bits)) {
			memset(users + g, 0, run * sizeof(*users));
			region->used -= run;
			if (g > first)
				use_granules(region, address, base - address, false);
			return false;
		}
	}
	return true;
}

/* Lock held. */
static void
unuse(uint64_t address, uint64_t end)
{
	for (struct region *region; address < end && (region = find_region(address)); address = region->base + region->size)
		use_granules(region, address, (end < region->base + region->size ? end : region->base + region->size) - address, false);
	give_back_regions();
}

/* Maps what the device has at these addresses. False: with EEXIST, this process has something else there. Lock held. */
static bool
use(uint64_t address, uint64_t end)
{
	uint64_t at = address, next;

	for (; at < end; at = next) {
		struct region *region = find_region(at);
		if (!region && scattered)
			region = claim(at, end);
		next = region ? region->base + region->size : 0;
		next = next < end ? next : end;
		if (!region || !use_granules(region, at, next - at, true)) {
			int error = errno;
			unuse(address, at);
			errno = error;
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
	unuse(gone->address, gone->address + gone->size);
	free(gone);
}

/* Whether this process can have what the device says that it has. */
static bool
is_possible(uint64_t address, uint64_t size)
{
	if (!scattered)
		return address - space.base < space.size && size <= space.size - (address - space.base);
	return address >= PAGE && size && address < ADDRESSES_END && size <= ADDRESSES_END - address;
}

/* The file of a device that chooses its addresses, when it is first needed. Lock held. */
static bool
have_file(void)
{
	return file >= 0 || open_file(0, ADDRESSES_END, false);
}

/* What the device has at an address is here too from now on. False: with EEXIST, this process has something else there. */
static bool
remember(uint64_t address, uint64_t size, CUcontext ctx, void *owner)
{
	struct managed *managed = malloc(sizeof(*managed));

	if (!managed || !is_possible(address, size)) {
		free(managed);
		errno = managed ? EINVAL : ENOMEM;
		return false;
	}
	pthread_rwlock_wrlock(&lock);
	struct managed **at = find(address);
	if (*at && owner && (*at)->size == size) { /* a variable that was asked for before */
		pthread_rwlock_unlock(&lock);
		free(managed);
		return true;
	}
	if (*at) /* ended with its context */
		forget(at);
	bool mapped = have_file() && use(address, address + size);
	int error = errno;
	if (mapped) {
		*managed = (struct managed){ *bucket(address), address, size, ++next_id, ctx, owner };
		*bucket(address) = managed;
		if (!owner && !coherent)
			rm_pages_fresh(address, size); /* nobody has written it yet */
		__atomic_store_n(&any, 1, __ATOMIC_RELEASE);
	} else {
		free(managed);
	}
	pthread_rwlock_unlock(&lock);
	errno = error;
	return mapped;
}

bool
rm_is_managed(uint64_t address, uint64_t size)
{
	if (!__atomic_load_n(&any, __ATOMIC_RELAXED) || !is_possible(address, size))
		return false;
	pthread_rwlock_rdlock(&lock);
	struct region *region = find_region(address);
	bool found = region && region->users[(address - region->base) >> granule_bits] != 0;
	pthread_rwlock_unlock(&lock);
	return found;
}

/* All that belonged to a context, or to a module or library. */
static void
forget_of(CUcontext ctx, const void *owner)
{
	if (!__atomic_load_n(&any, __ATOMIC_RELAXED))
		return;
	pthread_rwlock_wrlock(&lock);
	for (unsigned n = 0; n < BUCKETS; n++)
		for (struct managed **at = &all[n]; *at;)
			if (owner ? (*at)->owner == owner : (*at)->ctx == ctx)
				forget(at);
			else
				at = &(*at)->next;
	pthread_rwlock_unlock(&lock);
}

void
rm_managed_context_ended(CUcontext ctx)
{
	forget_of(ctx, NULL);
}

void
rm_managed_owner_ended(const void *module)
{
	forget_of(NULL, module);
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

static void
say_taken(uint64_t address, uint64_t size, int error)
{
	fw_warn("client", "managed memory at 0x%llx (%llu bytes): %s", (unsigned long long)address, (unsigned long long)size,
	        error == EEXIST ? "this process has something else there" : strerror(error));
}

/* What this process has from the first page of [address, end) that is its on, without a gap, by /proc/self/maps. */
static struct session_space
obstacle(uint64_t address, uint64_t end)
{
	struct session_space found = { address & ~(PAGE - 1), PAGE };
	unsigned long low, high;
	char line[512];
	bool begun = false;
	FILE *maps = fopen("/proc/self/maps", "re");

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &low, &high) != 2 || high <= (address & ~(PAGE - 1)))
			continue;
		if (low >= end || (begun && low > found.base + found.size))
			break;
		found = begun ? (struct session_space){ found.base, high - found.base } : (struct session_space){ low, high - low };
		begun = true;
		end = high + 1; /* also what follows it at once */
	}
	if (maps)
		fclose(maps);
	return found;
}

/* Anywhere but there. */
static CUresult
allocate_elsewhere(CUdeviceptr *address, size_t size, unsigned flags, const struct session_space *avoid, unsigned count)
{
	struct rm_request r;
	struct fw_cursor in;

	rm_begin(&r, SESSION_MANAGED_ALLOC, 32 + count * sizeof(*avoid));
	call_put_u64(&r.out, size);
	call_put_u64(&r.out, flags);
	call_put_array(&r.out, avoid, count, sizeof(*avoid));
	CUresult result = rm_ask(&r, &in);
	*address = call_get_u64(&in);
	rm_end(&r);
	return result;
}

CUresult
rm_cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned flags)
{
	struct session_space avoid[SESSION_AVOIDED_MAX];
	CUdeviceptr address = 0;
	unsigned count = 0;

	if (!space.size && !scattered) {
		fw_warn_once("client", "no managed memory: no range of addresses is free in this process and on the server");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	CUresult result = rm_call(CALL_cuMemAllocManaged, (const void *const[]){ &(CUdeviceptr *){ &address }, &bytesize, &flags });
	while (result == CUDA_SUCCESS && !remember(address, bytesize, fw_thread.ctx, NULL)) {
		int error = errno;
		uint64_t refused = address;
		rm_call(CALL_cuMemFree_v2, (const void *const[]){ &address });
		result = CUDA_ERROR_OUT_OF_MEMORY;
		if (error == EEXIST && count < SESSION_AVOIDED_MAX) {
			avoid[count++] = obstacle(refused, refused + bytesize);
			result = allocate_elsewhere(&address, bytesize, flags, avoid, count);
		}
		if (result != CUDA_SUCCESS)
			say_taken(refused, bytesize, error);
	}
	if (result == CUDA_SUCCESS)
		*dptr = address;
	return result;
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
found_variable(CUresult result, CUdeviceptr *dptr, size_t *bytes, CUcontext ctx, void *owner)
{
	unsigned managed = 0;

	if (result != CUDA_SUCCESS || !(space.size || scattered) || !is_possible(*dptr, *bytes) || !*bytes ||
	    rm_ops_table()->cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, *dptr) != CUDA_SUCCESS || !managed ||
	    remember(*dptr, *bytes, ctx, owner))
		return result;
	say_taken(*dptr, *bytes, errno);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult
get_variable(enum cuda_call_id call, CUdeviceptr *dptr, size_t *bytes, void *owner, const char *name)
{
	CUdeviceptr address = 0;
	size_t size = 0;

	if (!dptr && !bytes)
		return rm_call(call, (const void *const[]){ &dptr, &bytes, &owner, &name });
	CUresult result = rm_call(call, (const void *const[]){ &(CUdeviceptr *){ &address }, &(size_t *){ &size }, &owner, &name });
	result = found_variable(result, &address, &size, call == CALL_cuModuleGetGlobal_v2 ? fw_thread.ctx : NULL, owner);
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
		*pi = *pi && (space.size || scattered);
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
