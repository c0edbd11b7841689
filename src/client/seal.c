/*
 * Seals: what a worker hands back of this process's own addresses (functions to call, memory to fill) is only believed when it is what
 * went out. A seal is SipHash-2-4 (Aumasson and Bernstein, 2012) under a key that never leaves the process. It says that the bytes were
 * ours once, not that they are used for the first time.
 */
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "client/remote.h"

static uint64_t key[2];
static bool has_key;

static void
make_key(void)
{
	has_key = getrandom(key, sizeof(key), 0) == (ssize_t)sizeof(key);
}

static uint64_t
rotate(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void
mix(uint64_t v[4], unsigned rounds)
{
	while (rounds--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32) + v[3];
		v[2] += v[1];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[2] = rotate(v[2], 32);
	}
}

uint64_t
rm_seal(const uint64_t *words, size_t count)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_key);
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u };
	for (size_t n = 0; n <= count; n++) {
		uint64_t word = n < count ? words[n] : (uint64_t)count << 59; /* the last word of whole ones says only the length in bytes */
		v[3] ^= word;
		mix(v, 2);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	mix(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

bool
rm_sealed(const uint64_t *words, size_t count, uint64_t seal)
{
	return has_key && rm_seal(words, count) == seal;
}
