/*
 * Arena: memory that is freed as a whole (a parsed module, a decoded function). Zeroed, aligned to 16, never moved.
 * Aborts nothing: returns NULL when the machine is out of memory or the arena's cap is reached.
 */
#ifndef FW_BASE_ARENA_H
#define FW_BASE_ARENA_H

#include <stddef.h>

struct fw_arena_chunk;

struct fw_arena {
	struct fw_arena_chunk *chunks;
	size_t total; /* bytes taken from the system */
	size_t cap;   /* 0: none */
};

void *fw_arena_alloc(struct fw_arena *arena, size_t size);
char *fw_arena_strndup(struct fw_arena *arena, const char *text, size_t length);
void fw_arena_free(struct fw_arena *arena);

#endif
