/*
 * The device's address space: one reserved range of this process's addresses, in which everything that a kernel may touch
 * lives (device, managed and pinned memory, modules' variables, blocks' shared and local windows, parameter buffers).
 *
 * Device pointers are host addresses, so unified addressing, mapped and managed memory are free. A byte per 2 MiB granule
 * says what is mapped; the interpreter checks it on each access, which makes an illegal address exact without a signal.
 * Host memory that was registered lies outside the range and is found by sw_space_host(). Owned by device/memory.c.
 */
#ifndef SW_SPACE_H
#define SW_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SW_GRANULE_BITS 21
#define SW_GRANULE ((uint64_t)1 << SW_GRANULE_BITS)

enum sw_access { SW_ACCESS_NONE = 0, SW_ACCESS_READ = 1, SW_ACCESS_WRITE = 2 }; /* bits of a granule's byte */

struct sw_space {
	uint64_t base, size;  /* the reserved range; base is a multiple of the granule */
	uint8_t *granules;    /* size >> SW_GRANULE_BITS bytes, enum sw_access bits */
};
extern struct sw_space sw_space;

/* Slow path: is [address, address + size) registered (or otherwise allowed) host memory? */
bool sw_space_host(uint64_t address, uint64_t size);

/* True if every byte of the range may be accessed so by a kernel. size > 0. */
static inline bool
sw_space_check(uint64_t address, uint64_t size, uint8_t access)
{
	uint64_t offset = address - sw_space.base;
	if (offset < sw_space.size && size <= sw_space.size - offset) {
		uint64_t last = (offset + size - 1) >> SW_GRANULE_BITS;
		for (uint64_t g = offset >> SW_GRANULE_BITS; g <= last; g++)
			if ((__atomic_load_n(&sw_space.granules[g], __ATOMIC_RELAXED) & access) != access)
				return false;
		return true;
	}
	return sw_space_host(address, size);
}

/*
 * Internal memory for modules' variables, shared and local windows, parameter buffers: readable and writable by kernels, zeroed,
 * not counted as the user's allocation, not found by pointer queries. NULL when out of memory. Thread-safe.
 */
void *sw_space_alloc(uint64_t size, uint64_t align);
/* The same for variables that the host may touch too: the whole granules are theirs. */
void *sw_space_alloc_managed(uint64_t size, uint64_t align);
void sw_space_free(void *memory);

/* Device-side malloc and free (heap of cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE)); NULL when it is used up. */
void *sw_heap_alloc(uint64_t size);
bool sw_heap_free(void *memory); /* false: not a live heap block */

/* Text that a kernel printed; kept until the next synchronisation flushes it to stdout. Oldest text is dropped beyond the limit. */
void sw_output_append(const char *text, size_t size);

/* What a kernel's cudaGraphSetConditional does; absent where the interpreter is built without the device. */
void sw_conditional_set(uint64_t handle, uint32_t value) __attribute__((weak));

#endif
