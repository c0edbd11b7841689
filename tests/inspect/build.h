/* Writers of archives for tests and fuzz seeds: stored or deflated members, independent of the reader. */
#ifndef TESTS_INSPECT_BUILD_H
#define TESTS_INSPECT_BUILD_H

#include "tests/image/blob.h"

#ifdef FARWARP_ZLIB
#include <zlib.h>
#endif

struct archive {
	struct blob file, directory;
	unsigned count;
};

static inline void
put16(struct blob *blob, unsigned value)
{
	blob_add(blob, (uint8_t[]){ (uint8_t)value, (uint8_t)(value >> 8) }, 2);
}

static inline void
put32(struct blob *blob, uint32_t value)
{
	put16(blob, value & 0xffff);
	put16(blob, value >> 16);
}

static inline uint32_t
crc_of(const void *data, size_t size)
{
	const uint8_t *bytes = data;
	uint32_t crc = UINT32_MAX;

	for (size_t n = 0; n < size; n++) {
		crc ^= bytes[n];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* Raw deflate of the data; without zlib the data themselves and false. */
static inline int
deflated(const void *data, size_t size, struct blob *out)
{
#ifdef FARWARP_ZLIB
	z_stream z = { 0 };
	size_t room = size + size / 100 + 1000, begin = out->size;
	blob_add(out, NULL, room);
	deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
	z.next_in = (Bytef *)(uintptr_t)data;
	z.avail_in = (uInt)size;
	z.next_out = out->data + begin;
	z.avail_out = (uInt)room;
	deflate(&z, Z_FINISH);
	out->size = begin + z.total_out;
	deflateEnd(&z);
	return 1;
#else
	blob_add(out, data, size);
	return 0;
#endif
}

static inline void
archive_member(struct archive *a, const char *name, const void *data, size_t size, int deflate_it)
{
	struct blob packed = { 0 };
	uint32_t at = (uint32_t)a->file.size, crc = crc_of(data, size);
	int method = 0;

	if (deflate_it)
		method = deflated(data, size, &packed) ? 8 : 0;
	else
		blob_add(&packed, data, size);
	for (int central = 0; central < 2; central++) {
		struct blob *to = central ? &a->directory : &a->file;
		blob_add(to, central ? "PK\1\2\24\0" : "PK\3\4", central ? 6 : 4);
		put16(to, 20);
		put16(to, 0);
		put16(to, (unsigned)method);
		put32(to, 0);
		put32(to, crc);
		put32(to, (uint32_t)packed.size);
		put32(to, (uint32_t)size);
		put16(to, (unsigned)strlen(name));
		put16(to, 0);
		if (central) {
			blob_add(to, NULL, 10);
			put32(to, at);
		}
		blob_add(to, name, strlen(name));
	}
	blob_add(&a->file, packed.data, packed.size);
	free(packed.data);
	a->count++;
}

static inline void
archive_end(struct archive *a)
{
	uint32_t at = (uint32_t)a->file.size;

	blob_add(&a->file, a->directory.data, a->directory.size);
	blob_add(&a->file, "PK\5\6\0\0\0\0", 8);
	put16(&a->file, a->count);
	put16(&a->file, a->count);
	put32(&a->file, (uint32_t)a->directory.size);
	put32(&a->file, at);
	put16(&a->file, 0);
	free(a->directory.data);
	a->directory = (struct blob){ 0 };
}

#define WHEEL_METADATA "Name: demo\nVersion: 1.0\nSummary: CUDA kernels\nRequires-Dist: torch>=2\n\ntext\n"
#define WHEEL_WHEEL "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_x86_64\n"
#define WHEEL_PYTHON "from . import _cuda_ops\nfrom demo._C import x, y as z\nimport demo.sub._kernels\n"

/* A whole wheel with a library in it. */
static inline void
wheel_build(struct archive *a, const void *library, size_t size, int deflate_it)
{
	archive_member(a, "demo/__init__.py", WHEEL_PYTHON, sizeof(WHEEL_PYTHON) - 1, deflate_it);
	archive_member(a, "demo/_ops.so", library, size, deflate_it);
	archive_member(a, "demo-1.0.dist-info/METADATA", WHEEL_METADATA, sizeof(WHEEL_METADATA) - 1, deflate_it);
	archive_member(a, "demo-1.0.dist-info/WHEEL", WHEEL_WHEEL, sizeof(WHEEL_WHEEL) - 1, deflate_it);
	archive_end(a);
}

#endif
