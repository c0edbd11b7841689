/*
 * Bytes as the fat binaries behind a wrapper: the first byte says how many parts, which version and device; each part is given a
 * true header, since what a program holds in its memory is as long as it says.
 */
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

#define PARTS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *
make_part(const uint8_t *data, size_t size)
{
	uint8_t *part = malloc(16 + size);
	uint64_t body = size;

	memcpy(part, "\x50\xed\x55\xba\1\0\x10\0", 8);
	memcpy(part + 8, &body, 8);
	if (size)
		memcpy(part + 16, data, size);
	return part;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct { uint32_t magic, version; const void *fatbin, *parts; } wrapper = { .magic = 0x466243b1 };
	static const uint32_t capabilities[] = { 75, 86, 90, 121 };
	uint8_t *parts[PARTS + 1] = { NULL };
	struct img_sources sources;
	struct img_error error;

	if (!size)
		return 0;
	unsigned how = data[0], count = 1 + (how & 3);
	struct img_device device = { .cc = capabilities[how >> 2 & 3], .max_ptx = 91 };
	data++;
	size--;
	for (unsigned i = 0; i < count; i++)
		parts[i] = make_part(data + size / count * i, size / count);
	wrapper.version = how & 16 ? 2 : 1;
	wrapper.fatbin = parts[0];
	wrapper.parts = parts;
	if (img_choose(&wrapper, IMG_SIZE_UNKNOWN, &device, &sources, &error) == IMG_OK) {
		struct img_payload payload;
		for (size_t i = 0; i < sources.count; i++)
			if (sources.entries[i].size < 1 << 22 && img_entry_read(&sources.entries[i], &payload, &error) == IMG_OK)
				img_payload_free(&payload);
		img_sources_free(&sources);
	}
	for (unsigned i = 0; i < count; i++)
		free(parts[i]);
	return 0;
}
