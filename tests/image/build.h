/*
 * Writers of the inputs that the image tests read: fat binaries (raw, LZ4, zstd), cubin-shaped ELF files, host objects and archives
 * with fat binaries in them. Independent of the readers; every field can be made to lie.
 */
#ifndef TESTS_IMAGE_BUILD_H
#define TESTS_IMAGE_BUILD_H

#include <lz4.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "tests/image/blob.h"

struct entry {
	int kind, arch, version, packing; /* packing: 0 raw, 1 LZ4, 2 zstd */
	uint64_t flags;
	const void *data;
	size_t size;
	const char *name, *options;
};

static inline void
fatbin_begin(struct blob *blob)
{
	blob_add(blob, "\x50\xed\x55\xba\1\0\x10\0\0\0\0\0\0\0\0\0", 16);
}

/* Returns the offset of the entry in the blob. */
static inline size_t
fatbin_add(struct blob *blob, const struct entry *e)
{
	size_t start = blob->size, packed = e->size;
	void *bytes = malloc(e->size * 2 + 1024);

	if (e->packing == 1)
		packed = (size_t)LZ4_compress_default(e->data, bytes, (int)e->size, (int)(e->size * 2 + 1024));
	else if (e->packing == 2)
		packed = ZSTD_compress(bytes, e->size * 2 + 1024, e->data, e->size, 3);
	else
		memcpy(bytes, e->data, e->size);
	blob_add(blob, NULL, 64);
	blob_set(blob, start, (uint64_t)e->kind | 0x01010000u, 4);
	blob_set(blob, start + 16, e->packing ? packed : 0, 4);
	blob_set(blob, start + 24, (uint64_t)(e->version % 10) | (uint64_t)(e->version / 10) << 16, 4);
	blob_set(blob, start + 28, (uint64_t)e->arch, 4);
	blob_set(blob, start + 40, e->flags | (e->packing == 1 ? 0x2011 : e->packing == 2 ? 0x8011 : 0x11), 8);
	blob_set(blob, start + 56, e->packing ? e->size : 0, 8);
	if (e->name) {
		blob_set(blob, start + 32, blob->size - start, 4);
		blob_set(blob, start + 36, strlen(e->name), 4);
		blob_add(blob, e->name, strlen(e->name) + 1);
		blob_align(blob, 8);
	}
	if (e->options) {
		blob_set(blob, start + 20, blob->size - start, 4);
		uint32_t record[2] = { (uint32_t)(blob->size - start + 8), (uint32_t)strlen(e->options) };
		blob_add(blob, record, 8);
		blob_add(blob, e->options, strlen(e->options) + 1);
		blob_align(blob, 8);
	}
	blob_set(blob, start + 4, blob->size - start, 4);
	size_t payload = blob->size;
	blob_add(blob, bytes, packed);
	blob_align(blob, 8);
	blob_set(blob, start + 8, blob->size - payload, 8);
	blob_set(blob, 8, blob->size - 16, 8);
	free(bytes);
	return start;
}

/* A cubin of one kernel "k1" with three parameters, a device function, a managed and a plain global. */
static inline void
elf_build(struct blob *blob, int old_style, int sm)
{
	static const char names[] = "\0.shstrtab\0.strtab\0.symtab\0.nv.info.k1\0.text.k1\0.nv.global";
	static const char strings[] = "\0k1\0helper\0counter\0shared_by_all\0outside";
	struct { uint32_t name; uint8_t info, other; uint16_t section; uint64_t value, size; } symbols[] = {
		{ 0, 0, 0, 0, 0, 0 }, { 1, 0x12, 0x10, 5, 0, 0x180 }, { 4, 0x12, 0, 5, 0x100, 0x40 },
		{ 11, 0x01, 0, 6, 0, 40 }, { 19, 0x01, 0x04, 6, 40, 8 }, { 33, 0x12, 0, 0, 0, 0 },
	};
	static const uint8_t info[] = {
		3, 0x19, 56, 0,
		4, 0x17, 12, 0, 0, 0, 0, 0, 2, 0, 16, 0, 0x00, 0xf0, 0xa1, 0x00, /* ordinal 2, offset 16, 40 bytes */
		4, 0x17, 12, 0, 0, 0, 0, 0, 1, 0, 8, 0, 0x00, 0xf0, 0x11, 0x00,  /* ordinal 1, offset 8, 4 bytes */
		4, 0x17, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xf0, 0x21, 0x00,  /* ordinal 0, offset 0, 8 bytes */
		4, 0x0a, 8, 0, 1, 0, 0, 0, 0x10, 2, 56, 0,
	};
	const struct { uint32_t name, type; const void *data; size_t size; uint32_t link; } sections[] = {
		{ 0, 0, NULL, 0, 0 }, { 1, 3, names, sizeof(names), 0 }, { 11, 3, strings, sizeof(strings), 0 },
		{ 19, 2, symbols, sizeof(symbols), 2 }, { 27, 0x70000000, info, sizeof(info), 3 },
		{ 39, 1, NULL, 0x180, 0 }, { 48, 8, NULL, 48, 0 },
	};

	blob_add(blob, NULL, 64);
	memcpy(blob->data, "\x7f" "ELF\2\1\1", 7);
	blob->data[7] = old_style ? 0x33 : 0x41;
	blob->data[8] = old_style ? 7 : 8;
	blob_set(blob, 16, 2, 2);
	blob_set(blob, 18, 190, 2);
	blob_set(blob, 48, old_style ? 0x500u | (unsigned)sm | (unsigned)sm << 16 : 0x06000004u | (unsigned)sm << 8, 4);
	blob_set(blob, 58, 64, 2);
	blob_set(blob, 60, 7, 2);
	blob_set(blob, 62, 1, 2);
	size_t offsets[7];
	for (int i = 0; i < 7; i++) {
		offsets[i] = blob->size;
		if (sections[i].type != 8)
			blob_add(blob, sections[i].data, sections[i].size);
	}
	blob_align(blob, 8);
	blob_set(blob, 40, blob->size, 8);
	for (int i = 0; i < 7; i++) {
		size_t at = blob->size;
		blob_add(blob, NULL, 64);
		blob_set(blob, at, sections[i].name, 4);
		blob_set(blob, at + 4, sections[i].type, 4);
		blob_set(blob, at + 24, offsets[i], 8);
		blob_set(blob, at + 32, sections[i].size, 8);
		blob_set(blob, at + 40, sections[i].link, 4);
	}
}

/* A host object with a section .nv_fatbin of one fat binary (compute_75, packed in turn) for each text. */
static inline void
object_build(struct blob *blob, const char *const *texts, int count)
{
	static const char names[] = "\0.shstrtab\0.nv_fatbin";
	size_t at[2], start;

	blob_add(blob, "\x7f" "ELF\2\1\1\0\0\0\0\0\0\0\0\0\1\0\x3e\0\1\0\0\0", 24);
	blob_add(blob, NULL, 40);
	blob_set(blob, 58, 64, 2);
	blob_set(blob, 60, 3, 2);
	blob_set(blob, 62, 1, 2);
	at[0] = blob->size;
	blob_add(blob, names, sizeof(names));
	blob_align(blob, 8);
	at[1] = blob->size;
	for (int i = 0; i < count; i++) {
		struct blob fatbin = { 0 };
		fatbin_begin(&fatbin);
		fatbin_add(&fatbin, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .packing = i % 3, .data = texts[i],
		                                    .size = strlen(texts[i]) + 1 });
		blob_add(blob, fatbin.data, fatbin.size);
		free(fatbin.data);
	}
	start = blob->size;
	blob_set(blob, 40, start, 8);
	blob_add(blob, NULL, 3 * 64);
	for (size_t i = 0; i < 2; i++) {
		blob_set(blob, start + 64 * (i + 1), i ? 11 : 1, 4);
		blob_set(blob, start + 64 * (i + 1) + 4, i ? 1 : 3, 4);
		blob_set(blob, start + 64 * (i + 1) + 24, at[i], 8);
		blob_set(blob, start + 64 * (i + 1) + 32, i ? start - at[1] : sizeof(names), 8);
	}
}

static inline void
archive_begin(struct blob *blob)
{
	blob_add(blob, "!<arch>\n", 8);
}

static inline void
archive_add(struct blob *blob, const struct blob *member)
{
	char header[80];

	snprintf(header, sizeof(header), "%-16s%-12d%-6d%-6d%-8d%-10zu`\n", "a.o/", 0, 0, 0, 644, member->size);
	blob_add(blob, header, 60);
	blob_add(blob, member->data, member->size);
	blob_align(blob, 2);
}

#endif
