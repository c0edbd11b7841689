/* A loader's cache (/etc/ld.so.cache) for tests: as glibc writes it, with or without an old one in front. */
#ifndef TESTS_NATIVE_CACHE_H
#define TESTS_NATIVE_CACHE_H

#include <stdint.h>
#include <string.h>

/* Writes the cache of `count` pairs of name and path; returns its size. */
static inline size_t
cache_build(uint8_t *bytes, size_t capacity, int old, const char *const (*pairs)[2], uint32_t count)
{
	size_t base = 0, text = 48 + 24u * count;

	memset(bytes, 0, capacity);
	if (old) {
		uint32_t old_count = 3;
		memcpy(bytes, "ld.so-1.7.0", 11);
		memcpy(bytes + 12, &old_count, 4);
		base = (16 + 12 * old_count + 7) & ~7u;
	}
	uint8_t *cache = bytes + base;
	memcpy(cache, "glibc-ld.so.cache1.1", 20);
	memcpy(cache + 20, &count, 4);
	for (uint32_t n = 0; n < count; n++) {
		uint32_t entry[6] = { 0x303, 0, 0, 0, 0, 0 };
		for (int which = 0; which < 2; which++) {
			size_t length = strlen(pairs[n][which]) + 1;
			entry[1 + which] = (uint32_t)text;
			memcpy(cache + text, pairs[n][which], length);
			text += length;
		}
		memcpy(cache + 48 + 24 * n, entry, sizeof(entry));
	}
	uint32_t length = (uint32_t)(text - 48 - 24u * count);
	memcpy(cache + 24, &length, 4);
	return base + text;
}

#endif
