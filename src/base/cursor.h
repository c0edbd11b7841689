/*
 * Cursor: the only way foreign bytes are read.
 *
 * Reading past the end sets `bad`, yields zeros and stays bad; a parser reads as the schema of its input and checks `bad`
 * once. Little-endian. Nothing is copied or allocated; the range must outlive the cursor.
 */
#ifndef FW_BASE_CURSOR_H
#define FW_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct fw_cursor {
	const uint8_t *data;
	size_t size; /* bytes from data on */
	size_t at;   /* next byte */
	bool bad;    /* something outside the range was asked for */
};

static inline struct fw_cursor
fw_cursor(const void *data, size_t size)
{
	return (struct fw_cursor){ .data = data, .size = size };
}

/* `size` bytes at the present place, or NULL (and bad). */
static inline const void *
fw_cursor_bytes(struct fw_cursor *c, size_t size)
{
	if (c->bad || size > c->size - c->at) {
		c->bad = true;
		return NULL;
	}
	const void *bytes = c->data + c->at;
	c->at += size;
	return bytes;
}

static inline void
fw_cursor_seek(struct fw_cursor *c, uint64_t at)
{
	if (at > c->size)
		c->bad = true;
	else
		c->at = (size_t)at;
}

/* A cursor over `size` bytes at absolute offset `at`; bad (and empty) if they are not all there. */
static inline struct fw_cursor
fw_cursor_sub(const struct fw_cursor *c, uint64_t at, uint64_t size)
{
	if (c->bad || at > c->size || size > c->size - at)
		return (struct fw_cursor){ .data = c->data, .bad = true };
	return (struct fw_cursor){ .data = c->data + at, .size = (size_t)size };
}

#define FW_CURSOR_READ(type, name) \
	static inline type fw_cursor_##name(struct fw_cursor *c) \
	{ \
		type value = 0; \
		const void *bytes = fw_cursor_bytes(c, sizeof(value)); \
		if (bytes) \
			memcpy(&value, bytes, sizeof(value)); \
		return value; \
	}
FW_CURSOR_READ(uint8_t, u8)
FW_CURSOR_READ(uint16_t, u16)
FW_CURSOR_READ(uint32_t, u32)
FW_CURSOR_READ(uint64_t, u64)

#endif
