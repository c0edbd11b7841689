/*
 * Where the bytes of an inspected file come from: memory, a file, a member of an archive. Files are read with pread and never mapped, so
 * one that shrinks meanwhile is an error and no signal, and one of any size takes no memory. A compressed member is read anywhere in it
 * with an index of restart points of at most IN_INDEX_POINTS * 32 KiB (inflate.c).
 */
#ifndef IN_SOURCE_H
#define IN_SOURCE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cursor.h"

#define IN_INDEX_POINTS 256
#define IN_MAX_FILE ((uint64_t)1 << 36) /* bytes of a file, or of a member once decompressed */
#define IN_MAX_TABLE ((uint64_t)256 << 20) /* bytes of a table that is taken into memory */

struct in_error {
	char text[320];
};
/* Writes the text; returns false, for `return in_fail(...)`. error may be NULL. */
bool in_fail(struct in_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct in_inflate;

struct in_source {
	uint64_t size;
	const uint8_t *memory;      /* if the bytes are in memory, not owned */
	int fd;                     /* else a file, owned if `owned`, -1 none */
	bool owned;
	struct in_source *outer;    /* else a range of another source, stored or compressed */
	uint64_t base;              /* where the range begins */
	struct in_inflate *inflate; /* compressed, owned */
};

struct in_source in_source_memory(const void *data, size_t size);
/* A regular file. The descriptor becomes the source's. */
bool in_source_fd(struct in_source *source, int fd, struct in_error *error);
struct in_source in_source_range(struct in_source *outer, uint64_t base, uint64_t size);
/* `packed` bytes of raw deflate from `base` on that become `size` bytes with this CRC-32. Decompresses all of it once: a lie is an error. */
bool in_source_deflate(struct in_source *source, struct in_source *outer, uint64_t base, uint64_t packed, uint64_t size, uint32_t crc,
                       struct in_error *error);
void in_source_close(struct in_source *source);

/* All of the bytes, or false. */
bool in_read(struct in_source *source, uint64_t at, void *to, size_t size);
/* A copy to be freed with in_unload(); one more byte, a NUL, follows it. False (and an empty cursor) outside of the source, over IN_MAX_TABLE, without memory. */
bool in_load(struct in_source *source, uint64_t at, uint64_t size, struct fw_cursor *copy);
void in_unload(struct fw_cursor *copy);

uint32_t in_crc32(uint32_t crc, const void *data, size_t size);

#endif
