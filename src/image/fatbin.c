/*
 * Fat binary: a header of 16 bytes, then entries of header and payload, one behind the other. Reads entries, decides nothing.
 */
#include "image.h"

#define ENTRY_HEADER_MIN 64

int
img_fatbin_open(struct img_fatbin *fatbin, const void *image, size_t size, struct img_error *error)
{
	size_t length;

	if (img_recognise(image, size) != IMG_FATBIN)
		return img_fail(error, "no fat binary");
	if (img_length(image, size, &length, error))
		return -1;
	struct fw_cursor c = fw_cursor(image, length);
	fw_cursor_seek(&c, 6);
	size_t header = fw_cursor_u16(&c);
	*fatbin = (struct img_fatbin){ .bytes = fw_cursor_sub(&c, header, length - header) };
	return 0;
}

/* A string that the entry's header names by offset and length; absent unless it lies in the header. */
static const char *
header_string(const struct fw_cursor *header, uint64_t offset, uint64_t size, size_t *size_out)
{
	struct fw_cursor c = fw_cursor_sub(header, offset, size);

	*size_out = 0;
	if (c.bad || !size)
		return NULL;
	*size_out = (size_t)size;
	return (const char *)c.data;
}

static int
entry_payload(struct img_entry *entry, uint64_t compressed, uint64_t decompressed, struct img_error *error)
{
	bool lz4 = entry->flags & IMG_FLAG_LZ4, zstd = entry->flags & IMG_FLAG_ZSTD;

	if (lz4 && zstd)
		return img_fail(error, "a fat binary entry claims two compressions");
	entry->size = entry->payload_size;
	if (!lz4 && !zstd)
		return 0;
	if (compressed > entry->payload_size)
		return img_fail(error, "a fat binary entry has %llu compressed bytes in a payload of %zu",
		                (unsigned long long)compressed, entry->payload_size);
	entry->compression = lz4 ? IMG_LZ4 : IMG_ZSTD;
	if (compressed)
		entry->payload_size = (size_t)compressed;
	entry->size = decompressed;
	return 0;
}

int
img_fatbin_next(struct img_fatbin *fatbin, struct img_entry *entry, struct img_error *error)
{
	struct fw_cursor *c = &fatbin->bytes;
	size_t start = c->at;
	struct img_entry e = { 0 };

	if (!c->bad && start == c->size)
		return 0;
	if (fatbin->count++ >= IMG_MAX_ENTRIES)
		return img_fail(error, "the fat binary has more than %d entries", IMG_MAX_ENTRIES);
	e.kind = fw_cursor_u16(c);
	fw_cursor_u16(c); /* 0x0101, unknown */
	uint32_t header_size = fw_cursor_u32(c);
	uint64_t payload_size = fw_cursor_u64(c);
	uint32_t compressed = fw_cursor_u32(c), options_record = fw_cursor_u32(c);
	uint32_t minor = fw_cursor_u16(c), major = fw_cursor_u16(c);
	e.version = 10 * major + minor;
	e.arch = fw_cursor_u32(c);
	uint32_t name = fw_cursor_u32(c), name_size = fw_cursor_u32(c);
	e.flags = fw_cursor_u64(c);
	fw_cursor_u64(c); /* 0 or a checksum */
	uint64_t decompressed = fw_cursor_u64(c);
	struct fw_cursor header = fw_cursor_sub(c, start, header_size);
	struct fw_cursor payload = fw_cursor_sub(c, start + (uint64_t)header_size, payload_size);
	if (c->bad || header.bad || header_size < ENTRY_HEADER_MIN)
		return img_fail(error, "entry %u of the fat binary has a header of %u bytes where %zu are left", fatbin->count,
		                header_size, c->size - start);
	if (payload.bad)
		return img_fail(error, "entry %u of the fat binary has a payload of %llu bytes where %zu are left", fatbin->count,
		                (unsigned long long)payload_size, c->size - start - header_size);
	e.suffix = e.flags & IMG_FLAG_ARCH ? 'a' : e.flags & IMG_FLAG_FAMILY ? 'f' : 0;
	e.payload = payload.data;
	e.payload_size = payload.size;
	if (entry_payload(&e, compressed, decompressed, error))
		return -1;
	e.name = name ? header_string(&header, name, name_size, &e.name_size) : NULL;
	if (options_record) {
		struct fw_cursor record = header;
		fw_cursor_seek(&record, options_record);
		uint32_t offset = fw_cursor_u32(&record), size = fw_cursor_u32(&record);
		if (!record.bad)
			e.options = header_string(&header, offset, size, &e.options_size);
	}
	fw_cursor_seek(c, start + (uint64_t)header_size + payload_size);
	*entry = e;
	return 1;
}
