/* Chunks of the arena (arena.h). */
#include "arena.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (64u << 10)

struct fw_arena_chunk {
	struct fw_arena_chunk *next;
	size_t used, size;
	_Alignas(16) char data[];
};

void *
fw_arena_alloc(struct fw_arena *arena, size_t size)
{
	if (size > (size_t)1 << 40)
		return NULL;
	size = (size + 15) & ~(size_t)15;
	struct fw_arena_chunk *chunk = arena->chunks;
	if (!chunk || chunk->size - chunk->used < size) {
		size_t room = size > CHUNK_BYTES / 4 ? size : CHUNK_BYTES;
		if (arena->cap && arena->total + room > arena->cap)
			return NULL;
		chunk = calloc(1, sizeof(*chunk) + room);
		if (!chunk)
			return NULL;
		chunk->size = room;
		arena->total += room;
		if (room == size && arena->chunks) { /* keep filling the present chunk */
			chunk->next = arena->chunks->next;
			arena->chunks->next = chunk;
		} else {
			chunk->next = arena->chunks;
			arena->chunks = chunk;
		}
	}
	void *memory = chunk->data + chunk->used;
	chunk->used += size;
	return memory;
}

char *
fw_arena_strndup(struct fw_arena *arena, const char *text, size_t length)
{
	char *copy = fw_arena_alloc(arena, length + 1);
	if (copy)
		memcpy(copy, text, length);
	return copy;
}

void
fw_arena_free(struct fw_arena *arena)
{
	for (struct fw_arena_chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	*arena = (struct fw_arena){ 0 };
}
