/*
 * Fat binary: a header of 16 bytes, then entries of header and payload, one behind the other. Reads entries, decides nothing.
 */
#include "image.h"

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

/* Compressed or not, and how many bytes of the payload are data. */
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
img_entry_header(const void *bytes, size_t size, uint64_t left, struct img_entry *entry, uint64_t *header_size, uint64_t *length,
                 struct img_error *error)
{
	struct fw_cursor bounded = fw_cursor(bytes, size), *c = &bounded;
	struct img_entry e = { 0 };

	e.kind = fw_cursor_u16(c);
	fw_cursor_u16(c); /* 0x0101, unknown */
	uint32_t header = fw_cursor_u32(c);
	uint64_t payload_size = fw_cursor_u64(c);
	uint32_t compressed = fw_cursor_u32(c), options_record = fw_cursor_u32(c);
	uint32_t minor = fw_cursor_u16(c), major = fw_cursor_u16(c);
	e.version = 10 * major + minor;
	e.arch = fw_cursor_u32(c);
	uint32_t name = fw_cursor_u32(c), name_size = fw_cursor_u32(c);
	e.flags = fw_cursor_u64(c);
	fw_cursor_u64(c); /* 0 or a checksum */
	uint64_t decompressed = fw_cursor_u64(c);
	if (c->bad || header < IMG_ENTRY_HEADER || header > left)
		return img_fail(error, "an entry of the fat binary has a header of %u bytes where %llu are left", header, (unsigned long long)left);
	if (payload_size > left - header)
		return img_fail(error, "an entry of the fat binary has a payload of %llu bytes where %llu are left",
		                (unsigned long long)payload_size, (unsigned long long)(left - header));
	e.suffix = e.flags & IMG_FLAG_ARCH ? 'a' : e.flags & IMG_FLAG_FAMILY ? 'f' : 0;
	e.payload_size = (size_t)payload_size;
	if (entry_payload(&e, compressed, decompressed, error))
		return -1;
	struct fw_cursor strings = fw_cursor(bytes, size < header ? size : header);
	e.name = name ? header_string(&strings, name, name_size, &e.name_size) : NULL;
	if (options_record) {
		struct fw_cursor record = strings;
		fw_cursor_seek(&record, options_record);
		uint32_t offset = fw_cursor_u32(&record), length_of = fw_cursor_u32(&record);
		if (!record.bad)
			e.options = header_string(&strings, offset, length_of, &e.options_size);
	}
	*entry = e;
	*header_size = header;
	*length = header + payload_size;
	return 0;
}

int
img_fatbin_next(struct img_fatbin *fatbin, struct img_entry *entry, struct img_error *error)
{
	struct fw_cursor *c = &fatbin->bytes;
	uint64_t header, length;

	if (!c->bad && c->at == c->size)
		return 0;
	if (fatbin->count++ >= IMG_MAX_ENTRIES)
		return img_fail(error, "the fat binary has more than %d entries", IMG_MAX_ENTRIES);
	const uint8_t *start = c->data + c->at;
	size_t left = c->size - c->at;
	if (img_entry_header(start, left, left, entry, &header, &length, error))
		return -1;
	entry->payload = start + header;
	fw_cursor_seek(c, c->at + length);
	return 1;
}
