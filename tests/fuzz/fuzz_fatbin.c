/* Bytes as a fat binary: entries, decompression, the choice for a device. */
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_fatbin fatbin;
	struct img_entry entry;
	struct img_sources sources;
	struct img_error error;
	struct img_payload payload;
	struct img_device device = { .cc = 86, .max_ptx = 91 };

	if (!img_fatbin_open(&fatbin, data, size, &error))
		while (img_fatbin_next(&fatbin, &entry, &error) > 0)
			if (entry.size < 1 << 22 && img_entry_read(&entry, &payload, &error) == IMG_OK)
				img_payload_free(&payload);
	if (img_choose(data, size, &device, &sources, &error) == IMG_OK) {
		if (!img_sources_keep(&sources))
			__builtin_trap();
		img_sources_free(&sources);
	}
	return 0;
}
