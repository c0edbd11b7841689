/*
 * BLAKE2b on four lanes at once: for one message alone all lanes compute the same.
 */
#include "base/digest.h"

#include <stdbool.h>
#include <string.h>

#define BLOCK 128u
#define STRIPE (4 * BLOCK)

typedef uint64_t lanes __attribute__((vector_size(32)));

static const uint64_t iv[8] = { 0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179 };

static const uint8_t sigma[10][16] = {
	{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }, { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
	{ 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 }, { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
	{ 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 }, { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
	{ 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 }, { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
	{ 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 }, { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t
load(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word)); /* little-endian machines alone */
	return word;
}

#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define MIX(a, b, c, d, x, y) \
	do { \
		v[a] += v[b] + (x); \
		v[d] = ROTATE(v[d] ^ v[a], 32); \
		v[c] += v[d]; \
		v[b] = ROTATE(v[b] ^ v[c], 24); \
		v[a] += v[b] + (y); \
		v[d] = ROTATE(v[d] ^ v[a], 16); \
		v[c] += v[d]; \
		v[b] = ROTATE(v[b] ^ v[c], 63); \
	} while (0)

/* The compression function; lane n takes the block at n * apart. `count`: bytes of the message up to its end. */
INLINE void
compress(lanes h[8], const uint8_t *block, size_t apart, uint64_t count, bool last)
{
	lanes v[16], m[16];

	for (unsigned n = 0; n < 16; n++)
		m[n] = (lanes){ load(block + 8 * n), load(block + apart + 8 * n), load(block + 2 * apart + 8 * n), load(block + 3 * apart + 8 * n) };
	for (unsigned n = 0; n < 8; n++) {
		v[n] = h[n];
		v[n + 8] = (lanes){ 0 } + iv[n];
	}
	v[12] ^= count;
	if (last)
		v[14] = ~v[14];
#pragma GCC unroll 12
	for (unsigned round = 0; round < 12; round++) {
		const uint8_t *s = sigma[round % 10];
		MIX(0, 4, 8, 12, m[s[0]], m[s[1]]);
		MIX(1, 5, 9, 13, m[s[2]], m[s[3]]);
		MIX(2, 6, 10, 14, m[s[4]], m[s[5]]);
		MIX(3, 7, 11, 15, m[s[6]], m[s[7]]);
		MIX(0, 5, 10, 15, m[s[8]], m[s[9]]);
		MIX(1, 6, 11, 12, m[s[10]], m[s[11]]);
		MIX(2, 7, 8, 13, m[s[12]], m[s[13]]);
		MIX(3, 4, 9, 14, m[s[14]], m[s[15]]);
	}
	for (unsigned n = 0; n < 8; n++)
		h[n] ^= v[n] ^ v[n + 8];
}

INLINE void
begin(lanes h[8], size_t key_size, size_t digest_size)
{
	for (unsigned n = 0; n < 8; n++)
		h[n] = (lanes){ 0 } + iv[n];
	h[0] ^= (uint64_t)0x01010000 | (uint64_t)key_size << 8 | digest_size;
}

void
fw_blake2b(const void *key, size_t key_size, const void *data, size_t size, uint8_t *digest, size_t digest_size)
{
	const uint8_t *at = data;
	uint8_t block[BLOCK] = { 0 };
	uint64_t count = 0, words[8];
	lanes h[8];

	begin(h, key ? key_size : 0, digest_size);
	if (key && key_size) {
		memcpy(block, key, key_size);
		count = BLOCK;
		compress(h, block, 0, count, size == 0);
	}
	for (size_t left = size; left || !count;) {
		size_t part = left < BLOCK ? left : BLOCK;
		memset(block, 0, sizeof(block));
		if (part)
			memcpy(block, at, part);
		at += part;
		left -= part;
		count += part;
		compress(h, block, 0, count, left == 0);
		if (!size)
			break;
	}
	for (unsigned n = 0; n < 8; n++)
		words[n] = h[n][0];
	memcpy(digest, words, digest_size);
}

/* What the four of fw_digest() give, one behind the other. */
INLINE void
leaves(const uint8_t *data, size_t size, uint64_t results[32])
{
	uint8_t stripe[STRIPE] = { 0 };
	uint64_t count = 0;
	lanes h[8];

	begin(h, 0, FW_DIGEST);
	for (; size > STRIPE; data += STRIPE, size -= STRIPE) {
		count += BLOCK;
		compress(h, data, BLOCK, count, false);
	}
	if (size)
		memcpy(stripe, data, size);
	compress(h, stripe, BLOCK, count + BLOCK, true);
	for (unsigned lane = 0; lane < 4; lane++)
		for (unsigned n = 0; n < 8; n++)
			results[8 * lane + n] = h[n][lane];
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void
leaves_avx2(const uint8_t *data, size_t size, uint64_t results[32])
{
	leaves(data, size, results);
}
#endif

void
fw_digest(const void *data, size_t size, uint8_t digest[FW_DIGEST])
{
	uint64_t root[33] = { size };

#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		leaves_avx2(data, size, root + 1);
	else
#endif
		leaves(data, size, root + 1);
	fw_blake2b(NULL, 0, root, sizeof(root), digest, FW_DIGEST);
}
