/*
 * The answer to the CUDA runtime's software validity question.
 *
 * Every copy of NVIDIA's runtime library asks the driver that it finds a question when it starts, and refuses all work
 * (error 103) unless the answer is the keyed hash that it expects. This file computes that hash, so that the runtime which
 * a user already has works with a driver library that NVIDIA did not write. That is its only purpose: it unlocks nothing
 * else, and no NVIDIA file is changed or contained. The scheme was published by the ZLUDA project; the code is our own,
 * from RFC 1319 (MD2) and RFC 2104 (HMAC). The build option `validity` leaves it out.
 */
#include "client.h"

#include <string.h>

#define BLOCK 16 /* bytes, of MD2's blocks and digests */

/* The permutation of RFC 1319, made from the digits of pi. */
static const uint8_t pi_bytes[256] = {
	41, 46, 67, 201, 162, 216, 124, 1, 61, 54, 84, 161, 236, 240, 6, 19,
	98, 167, 5, 243, 192, 199, 115, 140, 152, 147, 43, 217, 188, 76, 130, 202,
	30, 155, 87, 60, 253, 212, 224, 22, 103, 66, 111, 24, 138, 23, 229, 18,
	190, 78, 196, 214, 218, 158, 222, 73, 160, 251, 245, 142, 187, 47, 238, 122,
	169, 104, 121, 145, 21, 178, 7, 63, 148, 194, 16, 137, 11, 34, 95, 33,
	128, 127, 93, 154, 90, 144, 50, 39, 53, 62, 204, 231, 191, 247, 151, 3,
	255, 25, 48, 179, 72, 165, 181, 209, 215, 94, 146, 42, 172, 86, 170, 198,
	79, 184, 56, 210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4, 241,
	69, 157, 112, 89, 100, 113, 135, 32, 134, 91, 207, 101, 230, 45, 168, 2,
	27, 96, 37, 173, 174, 176, 185, 246, 28, 70, 97, 105, 52, 64, 126, 15,
	85, 71, 163, 35, 221, 81, 175, 58, 195, 92, 249, 206, 186, 197, 234, 38,
	44, 83, 13, 110, 133, 40, 132, 9, 211, 223, 205, 244, 65, 129, 77, 82,
	106, 220, 55, 200, 108, 193, 171, 250, 36, 225, 123, 8, 12, 189, 177, 74,
	120, 136, 149, 139, 227, 99, 232, 109, 233, 203, 213, 254, 59, 0, 29, 57,
	242, 239, 183, 14, 102, 88, 208, 228, 166, 119, 114, 248, 235, 117, 75, 10,
	49, 68, 80, 180, 143, 237, 31, 26, 219, 153, 141, 51, 159, 17, 131, 20,
};

struct md2 {
	uint8_t state[48], checksum[BLOCK], buffer[BLOCK];
	size_t used; /* bytes in buffer */
};

static void
md2_block(struct md2 *md2, const uint8_t block[BLOCK])
{
	uint8_t last = md2->checksum[BLOCK - 1], mix = 0;

	for (int i = 0; i < BLOCK; i++) {
		md2->state[16 + i] = block[i];
		md2->state[32 + i] = block[i] ^ md2->state[i];
		last = md2->checksum[i] ^= pi_bytes[block[i] ^ last];
	}
	for (int round = 0; round < 18; round++) {
		for (int i = 0; i < 48; i++)
			mix = md2->state[i] ^= pi_bytes[mix];
		mix = (uint8_t)(mix + round);
	}
}

static void
md2_add(struct md2 *md2, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++) {
		md2->buffer[md2->used++] = bytes[i];
		if (md2->used == BLOCK) {
			md2_block(md2, md2->buffer);
			md2->used = 0;
		}
	}
}

static void
md2_end(struct md2 *md2, uint8_t digest[BLOCK])
{
	uint8_t checksum[BLOCK], fill = (uint8_t)(BLOCK - md2->used);

	for (int i = fill; i > 0; i--)
		md2_add(md2, &fill, 1);
	memcpy(checksum, md2->checksum, BLOCK);
	md2_block(md2, checksum);
	memcpy(digest, md2->state, BLOCK);
}

void
cl_md2(const void *data, size_t size, uint8_t digest[16])
{
	struct md2 md2 = { .used = 0 };

	md2_add(&md2, data, size);
	md2_end(&md2, digest);
}

/* The key is as long as a block, so that it is used as it is. */
static void
hmac_begin(struct md2 *md2, const uint8_t key[BLOCK], uint8_t pad)
{
	uint8_t padded[BLOCK];

	*md2 = (struct md2){ .used = 0 };
	for (int i = 0; i < BLOCK; i++)
		padded[i] = key[i] ^ pad;
	md2_add(md2, padded, BLOCK);
}

static void
hmac_end(struct md2 *inner, const uint8_t key[BLOCK], uint8_t digest[BLOCK])
{
	uint8_t inner_digest[BLOCK];
	struct md2 outer;

	md2_end(inner, inner_digest);
	hmac_begin(&outer, key, 0x5c);
	md2_add(&outer, inner_digest, BLOCK);
	md2_end(&outer, digest);
}

void
cl_hmac_md2(const uint8_t key[16], const void *data, size_t size, uint8_t digest[16])
{
	struct md2 inner;

	hmac_begin(&inner, key, 0x36);
	md2_add(&inner, data, size);
	hmac_end(&inner, key, digest);
}

bool
cl_validity_answer(const struct cl_validity_input *input, const struct cl_validity_device *devices, int count,
                   uint8_t answer[16])
{
#ifdef FARWARP_VALIDITY
	static const uint8_t key[BLOCK] = { 0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52,
	                                    0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f };
	_Static_assert(sizeof(*input) == 48 && sizeof(*devices) == 28, "the record is hashed as it lies in memory");
	struct md2 inner;

	hmac_begin(&inner, key, 0x36);
	md2_add(&inner, input, sizeof(*input));
	md2_add(&inner, devices, (size_t)count * sizeof(*devices));
	hmac_end(&inner, key, answer);
	return true;
#else
	return false;
#endif
}
