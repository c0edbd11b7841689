/*
 * Decompression of fat binary entries: LZ4 blocks and zstd frames. The announced size is checked against caps before memory is
 * taken, and must be exact: a payload that yields more or less is refused.
 */
#include "image.h"

#include <stdlib.h>

#ifdef FARWARP_LZ4
#include <lz4.h>
#endif
#ifdef FARWARP_ZSTD
#include <zstd.h>
#endif

/* LZ4 cannot expand more than this: a length byte of 255 adds 255 bytes. */
#define LZ4_RATIO 256

static int
check_size(const struct img_entry *entry, struct img_error *error)
{
	uint64_t in = entry->payload_size, out = entry->size;
	uint64_t ratio = entry->compression == IMG_LZ4 ? LZ4_RATIO : IMG_MAX_RATIO;
	uint64_t free_size = entry->compression == IMG_LZ4 ? 0 : IMG_RATIO_FREE;

	if (!in || !out)
		return img_fail(error, "a compressed fat binary entry is empty");
	if (out > IMG_MAX_TEXT || (out > free_size && out / ratio > in))
		return img_fail(error, "a fat binary entry of %llu bytes claims to become %llu", (unsigned long long)in,
		                (unsigned long long)out);
	if (in > INT32_MAX)
		return img_fail(error, "a compressed fat binary entry has %llu bytes", (unsigned long long)in);
	return 0;
}

/* Whether this build can read that. */
static bool
is_known(enum img_compression compression)
{
#ifndef FARWARP_LZ4
	if (compression == IMG_LZ4)
		return false;
#endif
#ifndef FARWARP_ZSTD
	if (compression == IMG_ZSTD)
		return false;
#endif
	return compression != IMG_RAW;
}

static bool
inflate(const struct img_entry *entry, char *out)
{
#ifdef FARWARP_LZ4
	if (entry->compression == IMG_LZ4) {
		int got = LZ4_decompress_safe((const char *)entry->payload, out, (int)entry->payload_size, (int)entry->size);
		return got >= 0 && (uint64_t)got == entry->size;
	}
#endif
#ifdef FARWARP_ZSTD
	if (entry->compression == IMG_ZSTD)
		return ZSTD_decompress(out, entry->size, entry->payload, entry->payload_size) == entry->size;
#endif
	return false;
}

enum img_status
img_entry_read(const struct img_entry *entry, struct img_payload *payload, struct img_error *error)
{
	if (entry->compression == IMG_RAW) {
		*payload = (struct img_payload){ .data = (const char *)entry->payload, .size = entry->payload_size };
		return IMG_OK;
	}
	if (!is_known(entry->compression)) {
		img_fail(error, "a fat binary entry is compressed with %s, and this farwarp was built without it", entry->compression == IMG_LZ4 ? "LZ4" : "zstd");
		return IMG_INVALID;
	}
	if (check_size(entry, error))
		return IMG_INVALID;
	char *out = malloc(entry->size + 1);
	if (!out) {
		img_fail(error, "out of memory for a fat binary entry of %llu bytes", (unsigned long long)entry->size);
		return IMG_NO_MEMORY;
	}
	if (!inflate(entry, out)) {
		free(out);
		img_fail(error, "the %s data of a fat binary entry is damaged", entry->compression == IMG_LZ4 ? "LZ4" : "zstd");
		return IMG_INVALID;
	}
	out[entry->size] = 0;
	*payload = (struct img_payload){ .data = out, .size = entry->size, .owned = out };
	return IMG_OK;
}

void
img_payload_free(struct img_payload *payload)
{
	free(payload->owned);
	*payload = (struct img_payload){ 0 };
}
