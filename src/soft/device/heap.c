/*
 * The heap of malloc and free in kernels: one region of CU_LIMIT_MALLOC_HEAP_SIZE bytes in the device's address space.
 *
 * Good fit with free lists by size and coalescing. Kernels may write anything anywhere in the region, so all bookkeeping
 * lies outside it: arrays indexed by unit of 32 bytes, touched only at the ends of chunks. The region is made at the first
 * malloc and lives until sw_heap_reset(); blocks that a kernel leaves are still there for the next one.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "soft/device/device.h"

#define SW_HEAP_DEFAULT ((uint64_t)8 << 20)
#define SW_HEAP_UNIT 32u
#define SW_HEAP_USED 0x80000000u
#define SW_HEAP_BINS 31
#define SW_HEAP_NONE UINT32_MAX
#define SW_HEAP_TRIES 16 /* chunks looked at in the bin that may or may not fit */

static struct {
	pthread_mutex_t lock; /* guards everything here */
	uint8_t *memory;
	uint64_t limit;       /* bytes of the next region */
	uint32_t units;
	uint32_t *span;       /* at a chunk's first unit its length and SW_HEAP_USED, at a free one's last its length, else 0 */
	uint32_t *next, *previous; /* of free chunks, by first unit */
	uint32_t bins[SW_HEAP_BINS], bin_mask;
	uint64_t used_bytes;
} sw_heap = { .lock = PTHREAD_MUTEX_INITIALIZER, .limit = SW_HEAP_DEFAULT };

static uint32_t
bin_of(uint32_t units)
{
	return 31 - (uint32_t)__builtin_clz(units);
}

static void
chunk_add(uint32_t first, uint32_t units)
{
	uint32_t bin = bin_of(units);

	sw_heap.span[first] = sw_heap.span[first + units - 1] = units;
	sw_heap.previous[first] = SW_HEAP_NONE;
	sw_heap.next[first] = sw_heap.bins[bin];
	if (sw_heap.bins[bin] != SW_HEAP_NONE)
		sw_heap.previous[sw_heap.bins[bin]] = first;
	sw_heap.bins[bin] = first;
	sw_heap.bin_mask |= 1u << bin;
}

static void
chunk_remove(uint32_t first)
{
	uint32_t units = sw_heap.span[first], bin = bin_of(units), next = sw_heap.next[first], previous = sw_heap.previous[first];

	if (next != SW_HEAP_NONE)
		sw_heap.previous[next] = previous;
	if (previous != SW_HEAP_NONE)
		sw_heap.next[previous] = next;
	else
		sw_heap.bins[bin] = next;
	if (sw_heap.bins[bin] == SW_HEAP_NONE)
		sw_heap.bin_mask &= ~(1u << bin);
	sw_heap.span[first + units - 1] = 0;
	sw_heap.span[first] = 0;
}

static void *
array_new(uint64_t count)
{
	void *array = mmap(NULL, count * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return array == MAP_FAILED ? NULL : array;
}

static void
heap_drop(void)
{
	uint32_t *arrays[] = { sw_heap.span, sw_heap.next, sw_heap.previous };

	for (size_t n = 0; n < sizeof arrays / sizeof *arrays; n++)
		if (arrays[n])
			munmap(arrays[n], ((uint64_t)sw_heap.units + 1) * sizeof(uint32_t));
	if (sw_heap.memory)
		sw_space_free(sw_heap.memory);
	sw_heap.memory = NULL;
	sw_heap.span = sw_heap.next = sw_heap.previous = NULL;
	sw_heap.used_bytes = 0;
}

static bool
heap_make(void)
{
	uint64_t units = sw_heap.limit / SW_HEAP_UNIT;

	sw_heap.units = units >= SW_HEAP_USED ? SW_HEAP_USED - 1 : (uint32_t)units;
	sw_heap.memory = sw_space_alloc((uint64_t)sw_heap.units * SW_HEAP_UNIT, 256);
	sw_heap.span = array_new((uint64_t)sw_heap.units + 1);
	sw_heap.next = array_new((uint64_t)sw_heap.units + 1);
	sw_heap.previous = array_new((uint64_t)sw_heap.units + 1);
	if (!sw_heap.memory || !sw_heap.span || !sw_heap.next || !sw_heap.previous) {
		heap_drop();
		return false;
	}
	memset(sw_heap.bins, 0xff, sizeof sw_heap.bins);
	sw_heap.bin_mask = 0;
	chunk_add(0, sw_heap.units);
	return true;
}

/* A free chunk of at least so many units, or SW_HEAP_NONE. */
static uint32_t
chunk_find(uint32_t units)
{
	uint32_t bin = bin_of(units), tries = 0;

	for (uint32_t first = sw_heap.bins[bin]; first != SW_HEAP_NONE && tries < SW_HEAP_TRIES; first = sw_heap.next[first], tries++)
		if (sw_heap.span[first] >= units)
			return first;
	uint32_t larger = bin + 1 < 32 ? sw_heap.bin_mask & ~((2u << bin) - 1) : 0;
	if (larger)
		return sw_heap.bins[__builtin_ctz(larger)];
	for (uint32_t first = sw_heap.bins[bin]; first != SW_HEAP_NONE; first = sw_heap.next[first])
		if (sw_heap.span[first] >= units)
			return first;
	return SW_HEAP_NONE;
}

void *
sw_heap_alloc(uint64_t size)
{
	void *result = NULL;

	if (size == 0)
		return NULL;
	pthread_mutex_lock(&sw_heap.lock);
	if ((sw_heap.memory || heap_make()) && size <= (uint64_t)sw_heap.units * SW_HEAP_UNIT) {
		uint32_t units = (uint32_t)((size + SW_HEAP_UNIT - 1) / SW_HEAP_UNIT), first = chunk_find(units);
		if (first != SW_HEAP_NONE) {
			uint32_t rest = sw_heap.span[first] - units;
			chunk_remove(first);
			if (rest)
				chunk_add(first + units, rest);
			sw_heap.span[first] = units | SW_HEAP_USED;
			sw_heap.used_bytes += (uint64_t)units * SW_HEAP_UNIT;
			result = sw_heap.memory + (uint64_t)first * SW_HEAP_UNIT;
		}
	}
	pthread_mutex_unlock(&sw_heap.lock);
	return result;
}

bool
sw_heap_free(void *memory)
{
	bool found = false;

	pthread_mutex_lock(&sw_heap.lock);
	uint64_t offset = (uint64_t)((uintptr_t)memory - (uintptr_t)sw_heap.memory);
	if (sw_heap.memory && offset % SW_HEAP_UNIT == 0 && offset / SW_HEAP_UNIT < sw_heap.units &&
	    (sw_heap.span[offset / SW_HEAP_UNIT] & SW_HEAP_USED)) {
		uint32_t first = (uint32_t)(offset / SW_HEAP_UNIT), units = sw_heap.span[first] & ~SW_HEAP_USED;
		found = true;
		sw_heap.used_bytes -= (uint64_t)units * SW_HEAP_UNIT;
		sw_heap.span[first] = 0;
		uint32_t after = first + units;
		if (after < sw_heap.units && !(sw_heap.span[after] & SW_HEAP_USED)) {
			units += sw_heap.span[after];
			chunk_remove(after);
		}
		/* The unit before is a used chunk's last (0, or a used chunk of one unit), or a free chunk's last: its length. */
		uint32_t before = first ? sw_heap.span[first - 1] : 0;
		if (before && !(before & SW_HEAP_USED)) {
			first -= before;
			units += before;
			chunk_remove(first);
		}
		chunk_add(first, units);
	}
	pthread_mutex_unlock(&sw_heap.lock);
	return found;
}

/* The size holds for the next region: at once when nothing is allocated, else after sw_heap_reset(). */
void
sw_heap_limit(uint64_t bytes)
{
	pthread_mutex_lock(&sw_heap.lock);
	sw_heap.limit = bytes < 4096 ? 4096 : bytes;
	if (sw_heap.memory && !sw_heap.used_bytes)
		heap_drop();
	pthread_mutex_unlock(&sw_heap.lock);
}

void
sw_heap_reset(void)
{
	pthread_mutex_lock(&sw_heap.lock);
	heap_drop();
	pthread_mutex_unlock(&sw_heap.lock);
}
