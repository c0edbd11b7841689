/* A growing run of bytes, for the writers of inputs. */
#ifndef TESTS_IMAGE_BLOB_H
#define TESTS_IMAGE_BLOB_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct blob {
	uint8_t *data;
	size_t size, room;
};

static inline void
blob_add(struct blob *blob, const void *bytes, size_t size)
{
	if (!size)
		return;
	if (blob->size + size > blob->room) {
		blob->room = (blob->size + size) * 2 + 64;
		blob->data = realloc(blob->data, blob->room);
	}
	if (bytes)
		memcpy(blob->data + blob->size, bytes, size);
	else
		memset(blob->data + blob->size, 0, size);
	blob->size += size;
}

static inline void
blob_set(struct blob *blob, size_t at, uint64_t value, size_t size)
{
	memcpy(blob->data + at, &value, size);
}

static inline void
blob_align(struct blob *blob, size_t unit)
{
	while (blob->size % unit)
		blob_add(blob, NULL, 1);
}

#endif
