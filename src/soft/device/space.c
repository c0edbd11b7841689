/*
 * The device's address space: the reservation, free ranges in it, mapping of granules, and the count of device memory.
 * What lies in a range is alloc.c's and vmm.c's business.
 */
#include "soft/device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SPACE_BYTES ((uint64_t)1 << 39) /* asked for; halved until the system agrees */
#define SPACE_LEAST ((uint64_t)1 << 32)

struct sw_space sw_space;

struct range {
	uint64_t base, size;
	struct range *next;
};

static pthread_mutex_t space_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below; the innermost lock */
static struct range *free_ranges;                              /* sorted, never adjacent */
static uint64_t used_bytes, total_bytes;

CUresult
sw_space_open(uint64_t mem_total, uint64_t base, uint64_t given)
{
	uint64_t size = SPACE_BYTES;
	char *memory = MAP_FAILED;

	while (size < mem_total * 2 && size < (uint64_t)1 << 46)
		size *= 2;
	if (base && given > SW_GRANULE) {
		size = given - SW_GRANULE; /* for the granule that rounding may take */
		memory = mmap((void *)(uintptr_t)base, given, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		if (memory != MAP_FAILED && (uint64_t)(uintptr_t)memory != base) {
			munmap(memory, given);
			memory = MAP_FAILED;
		}
	}
	for (; memory == MAP_FAILED && !base && size >= SPACE_LEAST; size /= 2) {
		memory = mmap(NULL, size + SW_GRANULE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory != MAP_FAILED)
			break;
	}
	if (memory == MAP_FAILED) {
		fw_error("device", "cannot reserve %llu GiB of addresses: %m", (unsigned long long)(SPACE_LEAST >> 30));
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	madvise(memory, size + SW_GRANULE, MADV_DONTDUMP);
	uint8_t *granules = mmap(NULL, size >> SW_GRANULE_BITS, PROT_READ | PROT_WRITE,
	                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct range *all = calloc(1, sizeof(*all));
	if (granules == MAP_FAILED || !all) {
		munmap(memory, size + SW_GRANULE);
		free(all);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	all->base = sw_round_up((uint64_t)(uintptr_t)memory, SW_GRANULE);
	all->size = size;
	free_ranges = all;
	sw_space.base = all->base;
	sw_space.size = size;
	sw_space.granules = granules;
	total_bytes = mem_total;
	used_bytes = 0;
	return CUDA_SUCCESS;
}

void
sw_space_bounds(uint64_t *base, uint64_t *size)
{
	*base = sw_space.base;
	*size = sw_space.size;
}

void
sw_space_forget(void)
{
	space_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	free_ranges = NULL;
	sw_space = (struct sw_space){ 0 };
	used_bytes = 0;
}

void
sw_space_usage(uint64_t *used, uint64_t *total)
{
	pthread_mutex_lock(&space_lock);
	*used = used_bytes;
	*total = total_bytes;
	pthread_mutex_unlock(&space_lock);
}

bool
sw_space_charge(uint64_t bytes)
{
	pthread_mutex_lock(&space_lock);
	bool fits = bytes <= total_bytes - used_bytes;
	if (fits)
		used_bytes += bytes;
	pthread_mutex_unlock(&space_lock);
	return fits;
}

void
sw_space_uncharge(uint64_t bytes)
{
	pthread_mutex_lock(&space_lock);
	used_bytes -= bytes;
	pthread_mutex_unlock(&space_lock);
}

/* ---- ranges --------------------------------------------------------------------------------------------------------- */

/* Cuts [base, base + size) out of the free range that *link points to. False: out of memory for the rest. */
static bool
range_cut(struct range **link, uint64_t base, uint64_t size)
{
	struct range *range = *link;
	uint64_t before = base - range->base, after = range->size - before - size;

	if (before && after) {
		struct range *rest = malloc(sizeof(*rest));
		if (!rest)
			return false;
		*rest = (struct range){ .base = base + size, .size = after, .next = range->next };
		range->size = before;
		range->next = rest;
	} else if (before) {
		range->size = before;
	} else if (after) {
		range->base = base + size;
		range->size = after;
	} else {
		*link = range->next;
		free(range);
	}
	return true;
}

uint64_t
sw_range_reserve(uint64_t size, uint64_t align, uint64_t hint)
{
	uint64_t found = 0;

	if (align < SW_GRANULE)
		align = SW_GRANULE;
	if (!size || size > sw_space.size)
		return 0;
	pthread_mutex_lock(&space_lock);
	for (struct range **link = &free_ranges; hint && *link && !found; link = &(*link)->next) {
		struct range *range = *link;
		if (hint >= range->base && hint - range->base < range->size && size <= range->size - (hint - range->base) &&
		    hint % align == 0) {
			found = range_cut(link, hint, size) ? hint : 0;
			break;
		}
	}
	for (struct range **link = &free_ranges; *link && !found; link = &(*link)->next) {
		struct range *range = *link;
		uint64_t base = sw_round_up(range->base, align);
		if (base - range->base < range->size && size <= range->size - (base - range->base)) {
			found = range_cut(link, base, size) ? base : 0;
			break;
		}
	}
	pthread_mutex_unlock(&space_lock);
	return found;
}

void
sw_range_release(uint64_t base, uint64_t size)
{
	struct range **link = &free_ranges, *before = NULL;

	pthread_mutex_lock(&space_lock);
	while (*link && (*link)->base < base) {
		before = *link;
		link = &before->next;
	}
	struct range *after = *link;
	if (before && before->base + before->size == base) {
		before->size += size;
		if (after && before->base + before->size == after->base) {
			before->size += after->size;
			before->next = after->next;
			free(after);
		}
	} else if (after && base + size == after->base) {
		after->base = base;
		after->size += size;
	} else {
		struct range *range = malloc(sizeof(*range));
		if (range) { /* else these addresses are lost, which harms nobody */
			*range = (struct range){ .base = base, .size = size, .next = after };
			*link = range;
		}
	}
	pthread_mutex_unlock(&space_lock);
}

/* ---- mapping --------------------------------------------------------------------------------------------------------- */

int
sw_range_access(uint64_t base, uint64_t size, unsigned access)
{
	uint64_t first = (base - sw_space.base) >> SW_GRANULE_BITS;

	/* Bytes that kernels read without a lock; a kernel that races with a change of its own memory's mapping is at fault. */
	for (uint64_t g = 0; g < size >> SW_GRANULE_BITS; g++)
		__atomic_store_n(&sw_space.granules[first + g], (uint8_t)access, __ATOMIC_RELEASE);
	return 0;
}

int
sw_range_map(uint64_t base, uint64_t size, int fd, uint64_t offset, unsigned access)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED | MAP_NORESERVE;
	void *memory = mmap((void *)(uintptr_t)base, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset);

	if (memory == MAP_FAILED)
		return -1;
	if (fd < 0)
		madvise(memory, size, MADV_HUGEPAGE);
	return sw_range_access(base, size, access);
}

void
sw_range_unmap(uint64_t base, uint64_t size)
{
	sw_range_access(base, size, SW_ACCESS_NONE);
	void *memory = mmap((void *)(uintptr_t)base, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (memory == MAP_FAILED)
		fw_error("device", "cannot give back %llu bytes: %m", (unsigned long long)size);
}
