/*
 * A small stand-in for the device's memory (soft/space.h) under the interpreter's own tests: one reserved range, first fit by size,
 * everything readable and writable. Device printf goes to stdout.
 */
#include "soft/space.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RANGE ((uint64_t)4 << 30)

struct sw_space sw_space;

static struct piece { uint64_t at, size; bool used; } *pieces;
static size_t piece_count, piece_capacity;
static uint64_t top;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void
reserve(void)
{
	uint8_t *memory = mmap(NULL, RANGE + SW_GRANULE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		abort();
	sw_space.base = ((uint64_t)(uintptr_t)memory + SW_GRANULE - 1) & ~(SW_GRANULE - 1);
	sw_space.size = RANGE;
	sw_space.granules = malloc(RANGE >> SW_GRANULE_BITS);
	memset(sw_space.granules, SW_ACCESS_READ | SW_ACCESS_WRITE, RANGE >> SW_GRANULE_BITS);
	top = 4096;
}

bool
sw_space_host(uint64_t address, uint64_t size)
{
	return false;
}

void *
sw_space_alloc_managed(uint64_t size, uint64_t align)
{
	return sw_space_alloc(size, align);
}

void *
sw_space_alloc(uint64_t size, uint64_t align)
{
	struct piece *piece = NULL;

	size = (size + 255) & ~(uint64_t)255;
	align = align < 256 ? 256 : align;
	pthread_mutex_lock(&lock);
	for (size_t n = 0; n < piece_count && !piece; n++)
		if (!pieces[n].used && pieces[n].size == size && pieces[n].at % align == 0)
			piece = &pieces[n];
	if (!piece) {
		if (piece_count == piece_capacity) {
			piece_capacity = piece_capacity ? piece_capacity * 2 : 64;
			pieces = realloc(pieces, piece_capacity * sizeof(*pieces));
		}
		top = (top + align - 1) & ~(align - 1);
		if (!pieces || top + size > RANGE)
			abort();
		piece = &pieces[piece_count++];
		*piece = (struct piece){ .at = top, .size = size };
		top += size;
	}
	piece->used = true;
	void *memory = (void *)(uintptr_t)(sw_space.base + piece->at);
	pthread_mutex_unlock(&lock);
	memset(memory, 0, size);
	return memory;
}

void
sw_space_free(void *memory)
{
	pthread_mutex_lock(&lock);
	for (size_t n = 0; n < piece_count; n++)
		if (sw_space.base + pieces[n].at == (uint64_t)(uintptr_t)memory)
			pieces[n].used = false;
	pthread_mutex_unlock(&lock);
}

void *
sw_heap_alloc(uint64_t size)
{
	return sw_space_alloc(size, 256);
}

bool
sw_heap_free(void *memory)
{
	sw_space_free(memory);
	return true;
}

void
sw_output_append(const char *text, size_t size)
{
	fwrite(text, 1, size, stdout);
}
