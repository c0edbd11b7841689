/*
 * Deflated bytes with random access: while they are decompressed for the first time, the decompressor's state (a bit position and the
 * 32 KiB before it) is kept at block boundaries, at most IN_INDEX_POINTS of them. A read decompresses on from where the last one ended,
 * or from the nearest point before; the last blocks of output stay at hand for who looks back a little. Memory does not depend on the size.
 */
#include "elf/inflate.h"

#ifdef FARWARP_ZLIB

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define WINDOW 32768
#define INPUT 65536
#define BLOCK 65536 /* bytes of output that are made at a time */
#define BLOCKS 8    /* that are kept */
#define SPAN_MIN ((uint64_t)1 << 20) /* bytes of output between points, at least */

struct point {
	uint64_t out, in; /* `in`: the next whole byte of input */
	int bits;         /* of the byte before it that belong to what follows */
	uint8_t *window;  /* the WINDOW bytes of output before */
};

struct in_inflate {
	struct in_source *outer;
	uint64_t base, packed, size;
	z_stream stream;
	uint64_t in, out; /* how far it was read and written */
	struct point points[IN_INDEX_POINTS];
	size_t point_count;
	uint8_t input[INPUT], scratch[WINDOW];
	struct {
		uint64_t number; /* of the block, from 1; 0: none */
		uint8_t bytes[BLOCK];
	} blocks[BLOCKS];
};

uint32_t
in_crc32(uint32_t crc, const void *data, size_t size)
{
	return (uint32_t)crc32(crc, data, (uInt)size);
}

/* More input for the decompressor, if there is any (it may have output left without); false when it cannot be read. */
static bool
feed(struct in_inflate *i)
{
	uint64_t left = i->packed - i->in;
	size_t size = left < INPUT ? (size_t)left : INPUT;

	if (!size)
		return true;
	if (!in_read(i->outer, i->base + i->in, i->input, size))
		return false;
	i->stream.next_in = i->input;
	i->stream.avail_in = (uInt)size;
	i->in += size;
	return true;
}

/* `scratch` is a ring of the last output, of which `free_bytes` at the end are the oldest. */
static bool
remember(struct in_inflate *i, size_t free_bytes)
{
	struct point *p = &i->points[i->point_count];

	p->window = malloc(WINDOW);
	if (!p->window)
		return false;
	memcpy(p->window, i->scratch + WINDOW - free_bytes, free_bytes);
	memcpy(p->window + free_bytes, i->scratch, WINDOW - free_bytes);
	p->out = i->out;
	p->in = i->in - i->stream.avail_in;
	p->bits = i->stream.data_type & 7;
	i->point_count++;
	return true;
}

/* The first pass. */
static bool
survey(struct in_inflate *i, uint32_t want, struct in_error *error)
{
	uint64_t span = i->size / (IN_INDEX_POINTS - 1) + 1, last = 0;
	uint32_t crc = in_crc32(0, NULL, 0);
	int state = Z_OK;

	if (span < SPAN_MIN)
		span = SPAN_MIN;
	while (state != Z_STREAM_END) {
		if (!i->stream.avail_in && !feed(i))
			return in_fail(error, "the compressed data cannot be read");
		if (!i->stream.avail_out) {
			i->stream.next_out = i->scratch;
			i->stream.avail_out = WINDOW;
		}
		uint8_t *from = i->stream.next_out;
		state = inflate(&i->stream, Z_BLOCK);
		if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR)
			return in_fail(error, "the compressed data are damaged: %s", i->stream.msg ? i->stream.msg : zError(state));
		size_t got = (size_t)(i->stream.next_out - from);
		if (state == Z_BUF_ERROR && !got && !i->stream.avail_in && i->in == i->packed)
			return in_fail(error, "the compressed data are cut short");
		i->out += got;
		crc = in_crc32(crc, from, got);
		if (i->out > i->size)
			return in_fail(error, "the compressed data become more than the %llu bytes that the header says", (unsigned long long)i->size);
		bool block_ends = (i->stream.data_type & 0xc0) == 0x80; /* and it was not the last one */
		if (block_ends && i->out - last >= span && i->point_count < IN_INDEX_POINTS) {
			if (!remember(i, i->stream.avail_out))
				return in_fail(error, "out of memory");
			last = i->out;
		}
	}
	if (i->out != i->size)
		return in_fail(error, "the compressed data become %llu bytes, not the %llu that the header says", (unsigned long long)i->out,
		               (unsigned long long)i->size);
	if (crc != want)
		return in_fail(error, "the data do not have the checksum that the header says");
	return true;
}

/* From the beginning, or from a point. */
static bool
restart(struct in_inflate *i, const struct point *p)
{
	if (inflateReset2(&i->stream, -15) != Z_OK)
		return false;
	i->stream.avail_in = i->stream.avail_out = 0;
	i->in = p ? p->in : 0;
	i->out = p ? p->out : 0;
	if (p && p->bits) {
		uint8_t byte;
		if (!in_read(i->outer, i->base + p->in - 1, &byte, 1) || inflatePrime(&i->stream, p->bits, byte >> (8 - p->bits)) != Z_OK)
			return false;
	}
	return !p || inflateSetDictionary(&i->stream, p->window, WINDOW) == Z_OK;
}

struct in_inflate *
in_inflate_open(struct in_source *outer, uint64_t base, uint64_t packed, uint64_t size, uint32_t crc, struct in_error *error)
{
	struct in_inflate *i = calloc(1, sizeof(*i));

	if (!i) {
		in_fail(error, "out of memory");
		return NULL;
	}
	i->outer = outer;
	i->base = base;
	i->packed = packed;
	i->size = size;
	if (inflateInit2(&i->stream, -15) != Z_OK) {
		free(i);
		in_fail(error, "out of memory");
		return NULL;
	}
	if (!survey(i, crc, error) || !restart(i, NULL)) {
		in_inflate_close(i);
		return NULL;
	}
	return i;
}

/* The next `size` bytes of output into `to`. */
static bool
produce(struct in_inflate *i, uint8_t *to, size_t size)
{
	i->stream.next_out = to;
	i->stream.avail_out = (uInt)size;
	while (i->stream.avail_out) {
		if (!i->stream.avail_in && !feed(i))
			return false;
		int state = inflate(&i->stream, Z_NO_FLUSH);
		if (state == Z_STREAM_END ? i->stream.avail_out != 0 : state != Z_OK)
			return false;
	}
	i->out += size;
	return true;
}

/* The block of output that begins at number * BLOCK; NULL: damaged. */
static const uint8_t *
get_block(struct in_inflate *i, uint64_t number)
{
	const struct point *best = NULL;
	uint64_t at = number * BLOCK;

	if (i->blocks[number % BLOCKS].number == number + 1)
		return i->blocks[number % BLOCKS].bytes;
	for (size_t n = 0; n < i->point_count && i->points[n].out <= at; n++)
		best = &i->points[n];
	if ((at < i->out || (best && best->out > i->out)) && !restart(i, best))
		return NULL;
	while (i->out < at) {
		uint64_t skip = at - i->out;
		if (!produce(i, i->scratch, skip < WINDOW ? (size_t)skip : WINDOW))
			return NULL;
	}
	i->blocks[number % BLOCKS].number = 0;
	if (!produce(i, i->blocks[number % BLOCKS].bytes, i->size - at < BLOCK ? (size_t)(i->size - at) : BLOCK))
		return NULL;
	i->blocks[number % BLOCKS].number = number + 1;
	return i->blocks[number % BLOCKS].bytes;
}

bool
in_inflate_read(struct in_inflate *i, uint64_t at, void *to, size_t size)
{
	for (uint8_t *next = to; size;) {
		const uint8_t *block = get_block(i, at / BLOCK);
		size_t from = (size_t)(at % BLOCK), part = size < BLOCK - from ? size : BLOCK - from;
		if (!block)
			return false;
		memcpy(next, block + from, part);
		next += part;
		at += part;
		size -= part;
	}
	return true;
}

void
in_inflate_close(struct in_inflate *i)
{
	if (!i)
		return;
	inflateEnd(&i->stream);
	for (size_t n = 0; n < i->point_count; n++)
		free(i->points[n].window);
	free(i);
}

#else /* without zlib: stored members are read, compressed ones are an error that says so */

uint32_t
in_crc32(uint32_t crc, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	crc = ~crc;
	for (size_t n = 0; n < size; n++) {
		crc ^= bytes[n];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

struct in_inflate *
in_inflate_open(struct in_source *outer, uint64_t base, uint64_t packed, uint64_t size, uint32_t crc, struct in_error *error)
{
	in_fail(error, "it is compressed, and this farwarp was built without zlib");
	return NULL;
}

bool
in_inflate_read(struct in_inflate *inflate, uint64_t at, void *to, size_t size)
{
	return false;
}

void
in_inflate_close(struct in_inflate *inflate)
{
}

#endif
