/* Bytes as a host object or an archive of such: the fat binaries in it. */
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_object object;
	struct img_error error;
	const void *fatbin;
	size_t length;

	if (!img_object_open(&object, data, size, &error))
		while (img_object_next(&object, &fatbin, &length, &error) > 0)
			if ((const uint8_t *)fatbin < data || length > size || (const uint8_t *)fatbin + length > data + size)
				__builtin_trap();
	return 0;
}
