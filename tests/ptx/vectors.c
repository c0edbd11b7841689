/*
 * Test vectors of a form: the edges of each operand's type in all combinations, then random ones. Fixed seeds: the same every time.
 */
#include "forms.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const uint64_t edges_int[] = { /* cut or sign-extended to the operand's width */
	0, 1, ~0ull, 2, ~1ull, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000,
	0x7fffff, 0x800000, 0xffffff, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
	0x8000000000000000, 0x8000000000000001, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0123456789abcdef, 0xfedcba9876543210,
	0xffffffffffff8000, 0xffffffff80000000, 0xfffffffffffffff0,
};
static const uint64_t edges_shift[] = { 0, 1, 2, 7, 8, 9, 15, 16, 17, 30, 31, 32, 33, 47, 62, 63, 64, 65, 127, 128, 255, 256, 257,
	0x7fffffff, 0x80000000, 0xffffffff, 0x10000, 0x12345 };
static const uint64_t edges_f32[] = {
	0, 0x80000000, 1, 0x80000001, 0x007fffff, 0x807fffff, 0x00400000, 0x00800000, 0x80800000, 0x00800001, 0x3f800000, 0xbf800000,
	0x3f800001, 0x3f7fffff, 0x3f000000, 0xbf000000, 0x3effffff, 0x3fc00000, 0xbfc00000, 0x40200000, 0xc0200000, 0x40400000,
	0x4b000000, 0x4b000001, 0x4affffff, 0xcb000001, 0x4b800001, 0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001, 0x4f7fffff,
	0x4f800000, 0x5effffff, 0x5f000000, 0xdf000000, 0x5f800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000,
	0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0x42fe0000, 0x42ff0000, 0x43000000, 0x437f8000, 0xc3008000, 0x46fffe00,
	0xc7000080, 0x477fff80, 0x477fe000, 0x477fefff, 0x477ff000, 0x33800000, 0x33800001, 0x33000000, 0x33000001, 0x387fc000,
	0x387fffff, 0x38800000, 0x43e00000, 0x43e80000, 0x43e7ffff, 0x47600000, 0x476fffff, 0x3dcccccd, 0x40490fdb, 0x3f801000,
	0x3f803000, 0x3f808000, 0x3f818000, 0x7f7f8000, 0x7f7f7fff, 0x20000000, 0x60000000, 0xa0000000, 0x7e800000, 0x7f000000, 0x01000000,
};
static const uint64_t edges_f64[] = {
	0, 0x8000000000000000, 1, 0x8000000000000001, 0x000fffffffffffff, 0x800fffffffffffff, 0x0010000000000000, 0x8010000000000000,
	0x3ff0000000000000, 0xbff0000000000000, 0x3ff0000000000001, 0x3fefffffffffffff, 0x3fe0000000000000, 0xbfe0000000000000,
	0x3fdfffffffffffff, 0x3ff8000000000000, 0xc004000000000000, 0x4004000000000000, 0x4008000000000000, 0x4330000000000000,
	0x4330000000000001, 0x4340000000000001, 0x41dfffffffc00000, 0x41dfffffffe00000, 0x41e0000000000000, 0xc1e0000000000000,
	0xc1e0000000200000, 0x41efffffffe00000, 0x41f0000000000000, 0x43dfffffffffffff, 0x43e0000000000000, 0xc3e0000000000000,
	0x43efffffffffffff, 0x43f0000000000000, 0x7fefffffffffffff, 0xffefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000,
	0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0x7fffffffffffffff, 0x47efffffe0000000, 0x47efffffefffffff,
	0x47effffff0000000, 0x3810000000000000, 0x380fffffffffffff, 0x36a0000000000000, 0x3690000000000000, 0x3690000000000001,
	0x40efffe000000000, 0x40f0000000000000, 0x40effe0000000000, 0x3ff0000010000000, 0x3ff0000030000000, 0x3ff0000010000001,
	0x3ff0020000000000, 0x3e70000000000000, 0x3e70000000000001, 0xc060200000000000, 0x40dfffe000000000, 0x1ff0000000000000, 0x5ff0000000000000,
};
static const uint64_t edges_f16[] = {
	0, 0x8000, 1, 0x8001, 0x03ff, 0x83ff, 0x0200, 0x0400, 0x8400, 0x0401, 0x3c00, 0xbc00, 0x3c01, 0x3bff, 0x3800, 0xb800, 0x3e00, 0xbe00,
	0x4100, 0xc100, 0x4200, 0x6400, 0x6401, 0x63ff, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfe00, 0x7c01, 0xfc01, 0x7fff, 0x2e66,
	0x4248, 0x57ff, 0x5800, 0x5c00, 0x1400, 0x6000, 0x7800,
};
static const uint64_t edges_bf16[] = {
	0, 0x8000, 1, 0x8001, 0x007f, 0x807f, 0x0040, 0x0080, 0x8080, 0x0081, 0x3f80, 0xbf80, 0x3f81, 0x3f7f, 0x3f00, 0xbf00, 0x3fc0, 0xbfc0,
	0x4020, 0xc020, 0x4040, 0x4300, 0x4301, 0x42ff, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xffc0, 0x7f81, 0xff81, 0x7fff, 0x3dcd,
	0x4049, 0x2000, 0x6000, 0x7e80, 0x7f00, 0x0100,
};

struct letter {
	char letter;
	unsigned bits;
	int format;
	bool packed;
	const uint64_t *edges;
	size_t edge_count;
};
static const struct letter letters[] = {
	{ 'c', 16, -1,     false, edges_int,   COUNT(edges_int) },
	{ 'h', 16, -1,     false, edges_int,   COUNT(edges_int) },
	{ 'w', 32, -1,     false, edges_int,   COUNT(edges_int) },
	{ 'd', 64, -1,     false, edges_int,   COUNT(edges_int) },
	{ 's', 32, -1,     false, edges_shift, COUNT(edges_shift) },
	{ 'n', 32, -1,     false, edges_shift, COUNT(edges_shift) },
	{ 'p', 1,  -1,     false, NULL,        2 },
	{ 'f', 32, N_F32,  false, edges_f32,   COUNT(edges_f32) },
	{ 'g', 64, N_F64,  false, edges_f64,   COUNT(edges_f64) },
	{ 'k', 16, N_F16,  false, edges_f16,   COUNT(edges_f16) },
	{ 'z', 16, N_BF16, false, edges_bf16,  COUNT(edges_bf16) },
	{ 'K', 32, N_F16,  true,  edges_f16,   COUNT(edges_f16) },
	{ 'Z', 32, N_BF16, true,  edges_bf16,  COUNT(edges_bf16) },
	{ 'x', 32, -1,     true,  edges_int,   COUNT(edges_int) },
	{ 'v', 32, -1,     false, edges_int,   COUNT(edges_int) },
	{ 'y', 16, -1,     false, NULL,        65536 },
	{ 'q', 16, -1,     false, NULL,        256 },
};

static const struct letter *
find(char letter)
{
	for (size_t i = 0; i < COUNT(letters); i++)
		if (letters[i].letter == letter)
			return &letters[i];
	__builtin_trap(); /* a row with a letter that does not exist */
}

unsigned
letter_bits(char letter)
{
	return find(letter)->bits;
}

int
letter_format(char letter)
{
	return find(letter)->format;
}

bool
letter_packed(char letter)
{
	return find(letter)->packed;
}

static uint64_t seed;

static uint64_t
rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

static uint64_t
cut(uint64_t v, unsigned bits)
{
	return bits >= 64 ? v : v & ((1ull << bits) - 1);
}

static uint64_t
edge(const struct letter *l, size_t i)
{
	if (!l->edges)
		return i;
	uint64_t v = l->edges[i];
	if (l->packed) /* the other half is another edge */
		v = (v & 0xffff) | (l->edges[(i * 7 + 3) % l->edge_count] & 0xffff) << 16;
	if (l->letter == 'v')
		v = (v & 0xff) * 0x01010101u ^ (uint64_t)(i * 0x9e3779b1u);
	return cut(v, l->letter == 'c' ? 8 : l->bits);
}

/* Random, with exponents near the middle as often as far away, and short integers as often as long ones. */
static uint64_t
any(const struct letter *l)
{
	uint64_t v = rnd();

	if (l->letter == 'y' || l->letter == 'q' || l->letter == 'p')
		return v % l->edge_count;
	if (l->letter == 's' || l->letter == 'n')
		return v % 3 ? v / 3 % 70 : cut(v / 3, 32);
	if (rnd() % 4 == 0)
		return edge(l, v % l->edge_count);
	if (l->format == N_F32 && rnd() % 2)
		v = (v & 0x80ffffff) + ((uint64_t)(110 + rnd() % 34) << 23);
	else if (l->format == N_F64 && rnd() % 2)
		v = (v & 0x801fffffffffffff) + ((1023 - 60 + rnd() % 120) << 52);
	else if (l->format < 0 && rnd() % 2)
		v = (v >> (rnd() % l->bits)) * (rnd() % 2 ? 1 : ~0ull);
	return cut(v, l->letter == 'c' ? 8 : l->bits);
}

size_t
form_vectors(const struct form *f, uint64_t *in[FORM_OPERANDS], size_t max)
{
	size_t operands = strlen(f->types) - 1, count = 0, limit;
	const struct letter *l[FORM_OPERANDS];
	size_t step[FORM_OPERANDS], index[FORM_OPERANDS] = { 0 };

	seed = 0x9e3779b97f4a7c15ull;
	for (const char *p = f->text; *p; p++)
		seed = (seed ^ (unsigned char)*p) * 0x100000001b3ull;
	seed |= 1;

	/* all combinations of edges; with three and more operands of a stride, so that they stay within max */
	limit = operands <= 1 ? 65536 : operands == 2 ? 96 : operands == 3 ? 22 : 10;
	for (size_t o = 0; o < operands; o++) {
		l[o] = find(f->types[o + 1]);
		size_t m = l[o]->edge_count;
		step[o] = m > limit ? (m + limit - 1) / limit : 1;
		if (step[o] > 1 && step[o] % 2 == 0)
			step[o]++; /* both signs */
	}
	for (bool more = operands > 0; more && count < max;) {
		for (size_t o = 0; o < operands; o++)
			in[o][count] = edge(l[o], index[o]);
		count++;
		more = false;
		for (size_t o = 0; o < operands && !more; o++) {
			index[o] += step[o];
			if (index[o] < l[o]->edge_count)
				more = true;
			else
				index[o] = 0;
		}
	}
	size_t extra = operands == 0 ? 64 : l[0]->edge_count == 65536 && operands == 1 ? 0 : 1501; /* an odd tail: a partial warp */
	for (; extra && count < max; extra--, count++)
		for (size_t o = 0; o < operands; o++)
			in[o][count] = any(l[o]);
	return count;
}
