/*
 * Scalar numbers for the references. See num.h.
 */
#include "num.h"

#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef unsigned __int128 u128;

static const struct {
	unsigned bits, exp_bits, man_bits;
	int bias;
	bool has_inf; /* the top exponent is infinity and NaN; else it holds numbers */
	bool has_nan; /* without infinity: all ones is NaN */
	uint64_t nan;
} formats[N_FORMATS] = {
	[N_F16]  = { 16,  5, 10,   15, true,  true,  0x7fff },
	[N_BF16] = { 16,  8,  7,  127, true,  true,  0x7fff },
	[N_F32]  = { 32,  8, 23,  127, true,  true,  0x7fffffff },
	[N_F64]  = { 64, 11, 52, 1023, true,  true,  0x7fffffffffffffff },
	[N_TF32] = { 19,  8, 10,  127, true,  true,  0x3ffff },
	[N_E4M3] = {  8,  4,  3,    7, false, true,  0x7f },
	[N_E5M2] = {  8,  5,  2,   15, true,  true,  0x7f },
	[N_E2M3] = {  6,  2,  3,    1, false, false, 0x1f },
	[N_E3M2] = {  6,  3,  2,    3, false, false, 0x1f },
	[N_E2M1] = {  4,  2,  1,    1, false, false, 0x07 },
};

unsigned
num_bits(enum num_format f)
{
	return formats[f].bits;
}

uint64_t
num_nan(enum num_format f)
{
	return formats[f].nan;
}

static struct num
normal(struct num x)
{
	if (x.mant == 0) {
		x.kind = N_ZERO;
		return x;
	}
	while (x.mant >> 127) {
		x.mant = (x.mant >> 1) | (x.mant & 1);
		x.exp++;
	}
	while (!(x.mant >> 126)) {
		x.mant <<= 1;
		x.exp--;
	}
	return x;
}

struct num
num_unpack(enum num_format f, uint64_t bits)
{
	unsigned man_bits = formats[f].man_bits, exp_bits = formats[f].exp_bits;
	uint64_t man = bits & ((1ull << man_bits) - 1);
	unsigned exp = (unsigned)(bits >> man_bits) & ((1u << exp_bits) - 1);
	bool top = exp == (1u << exp_bits) - 1;
	struct num x = { .kind = N_FINITE, .neg = bits >> (formats[f].bits - 1) & 1 };

	if (top && formats[f].has_inf) {
		x.kind = man ? N_NAN : N_INF;
		return x;
	}
	if (top && formats[f].has_nan && man == (1ull << man_bits) - 1) {
		x.kind = N_NAN;
		return x;
	}
	x.mant = exp ? man | 1ull << man_bits : man;
	x.exp = (exp ? (int)exp : 1) - formats[f].bias - (int)man_bits;
	return normal(x);
}

/* Shifts right; what falls out stays as a sticky lowest bit. */
static u128
jam(u128 mant, unsigned shift)
{
	if (shift == 0)
		return mant;
	if (shift > 127)
		return mant != 0;
	return mant >> shift | ((mant & (((u128)1 << shift) - 1)) != 0);
}

/* The top part of mant after dropping `drop` bits (1..127), rounded. */
static u128
round_off(u128 mant, unsigned drop, bool neg, enum num_mode mode)
{
	u128 kept = drop > 127 ? 0 : mant >> drop;
	u128 rest = drop > 127 ? mant : mant & (((u128)1 << drop) - 1);
	u128 half = drop > 127 ? 0 : (u128)1 << (drop - 1);
	bool up = false;

	if (drop > 127) { /* far below half a unit */
		up = rest && ((mode == N_RM && neg) || (mode == N_RP && !neg));
		return kept + up;
	}
	switch (mode) {
	case N_RN: up = rest > half || (rest == half && (kept & 1)); break;
	case N_RNA: up = rest >= half; break;
	case N_RZ: break;
	case N_RM: up = rest && neg; break;
	case N_RP: up = rest && !neg; break;
	}
	return kept + up;
}

uint64_t
num_pack(enum num_format f, struct num x, enum num_mode mode, bool satfinite)
{
	unsigned man_bits = formats[f].man_bits, exp_bits = formats[f].exp_bits;
	uint64_t sign = (uint64_t)x.neg << (formats[f].bits - 1);
	int exp_top = (1 << exp_bits) - 1;
	uint64_t largest; /* finite, without sign */

	if (formats[f].has_inf)
		largest = ((uint64_t)(exp_top - 1) << man_bits) | ((1ull << man_bits) - 1);
	else
		largest = ((uint64_t)exp_top << man_bits) | (((1ull << man_bits) - 1) - (formats[f].has_nan ? 1 : 0));
	uint64_t infinity = formats[f].has_inf ? (uint64_t)exp_top << man_bits : formats[f].nan;

	if (x.kind == N_NAN) {
		if (satfinite && !formats[f].has_nan)
			return largest; /* formats without NaN take the largest positive number */
		return formats[f].nan;
	}
	if (x.kind == N_ZERO)
		return sign;
	if (x.kind == N_INF)
		return sign | (satfinite ? largest : infinity);

	/* the exponent field that this number would have, at least 1 */
	int field = x.exp + 126 + formats[f].bias;
	unsigned drop = 126 - man_bits;
	if (field < 1) {
		drop = (unsigned)((int)drop + 1 - field);
		field = 1;
	}
	u128 man = round_off(x.mant, drop, x.neg, mode);
	if (man >> (man_bits + 1)) {
		man >>= 1;
		field++;
	}
	if (!(man >> man_bits))
		field = 0; /* subnormal or zero */
	uint64_t bits = ((uint64_t)field << man_bits) | ((uint64_t)man & ((1ull << man_bits) - 1));
	if (field > exp_top || bits > largest) {
		bool to_inf = mode == N_RN || mode == N_RNA || (mode == N_RM && x.neg) || (mode == N_RP && !x.neg);
		bits = satfinite || !to_inf ? largest : infinity;
	}
	return sign | bits;
}

struct num
num_from_uint(u128 value, bool neg)
{
	struct num x = { .kind = N_FINITE, .neg = neg, .exp = 0, .mant = value };
	x = normal(x);
	if (x.kind == N_ZERO)
		x.neg = false;
	return x;
}

__int128
num_to_int(struct num x, enum num_mode mode, __int128 lo, __int128 hi)
{
	if (x.kind == N_NAN || x.kind == N_ZERO)
		return 0;
	if (x.kind == N_INF || x.exp > -50)
		return x.neg ? lo : hi;
	__int128 v = (__int128)round_off(x.mant, (unsigned)-x.exp, x.neg, mode);
	if (x.neg)
		v = -v;
	return v < lo ? lo : v > hi ? hi : v;
}

struct num
num_round_int(struct num x, enum num_mode mode)
{
	if (x.kind != N_FINITE || x.exp >= 0)
		return x;
	x.mant = round_off(x.mant, (unsigned)-x.exp, x.neg, mode);
	x.exp = 0;
	return normal(x);
}

struct num
num_neg(struct num a)
{
	a.neg = !a.neg;
	return a;
}

struct num
num_add(struct num a, struct num b, enum num_mode mode)
{
	if (a.kind == N_NAN || b.kind == N_NAN)
		return (struct num){ .kind = N_NAN };
	if (a.kind == N_INF || b.kind == N_INF) {
		if (a.kind == b.kind && a.neg != b.neg)
			return (struct num){ .kind = N_NAN };
		return a.kind == N_INF ? a : b;
	}
	if (a.kind == N_ZERO && b.kind == N_ZERO)
		return (struct num){ .kind = N_ZERO, .neg = a.neg == b.neg ? a.neg : mode == N_RM };
	if (a.kind == N_ZERO)
		return b;
	if (b.kind == N_ZERO)
		return a;
	if (a.exp < b.exp) {
		struct num t = a;
		a = b;
		b = t;
	}
	u128 small = jam(b.mant, (unsigned)(a.exp - b.exp));
	struct num x = { .kind = N_FINITE, .neg = a.neg, .exp = a.exp };
	if (a.neg == b.neg) {
		x.mant = a.mant + small;
	} else if (a.mant == small) {
		return (struct num){ .kind = N_ZERO, .neg = mode == N_RM };
	} else if (a.mant > small) {
		x.mant = a.mant - small;
	} else {
		x.mant = small - a.mant;
		x.neg = b.neg;
	}
	return normal(x);
}

struct num
num_mul(struct num a, struct num b)
{
	bool neg = a.neg != b.neg;

	if (a.kind == N_NAN || b.kind == N_NAN)
		return (struct num){ .kind = N_NAN };
	if ((a.kind == N_INF && b.kind == N_ZERO) || (a.kind == N_ZERO && b.kind == N_INF))
		return (struct num){ .kind = N_NAN };
	if (a.kind == N_INF || b.kind == N_INF)
		return (struct num){ .kind = N_INF, .neg = neg };
	if (a.kind == N_ZERO || b.kind == N_ZERO)
		return (struct num){ .kind = N_ZERO, .neg = neg };
	struct num x = { .kind = N_FINITE, .neg = neg, .exp = a.exp + b.exp + 126,
		.mant = (u128)(uint64_t)(a.mant >> 63) * (uint64_t)(b.mant >> 63) };
	return normal(x);
}

struct num
num_div(struct num a, struct num b)
{
	bool neg = a.neg != b.neg;

	if (a.kind == N_NAN || b.kind == N_NAN || (a.kind == N_INF && b.kind == N_INF) || (a.kind == N_ZERO && b.kind == N_ZERO))
		return (struct num){ .kind = N_NAN };
	if (a.kind == N_INF || b.kind == N_ZERO)
		return (struct num){ .kind = N_INF, .neg = neg };
	if (a.kind == N_ZERO || b.kind == N_INF)
		return (struct num){ .kind = N_ZERO, .neg = neg };
	uint64_t d = (uint64_t)(b.mant >> 63);
	u128 q = a.mant / d, r = a.mant % d; /* 63 or 64 bits of quotient */
	struct num x = { .kind = N_FINITE, .neg = neg, .exp = a.exp - b.exp - 63 - 2, .mant = q << 2 | (r != 0) };
	return normal(x);
}

struct num
num_sqrt(struct num a)
{
	if (a.kind == N_NAN || (a.neg && a.kind != N_ZERO))
		return (struct num){ .kind = N_NAN };
	if (a.kind != N_FINITE)
		return a;
	u128 m = a.mant;
	int exp = a.exp;
	if (exp & 1) {
		m <<= 1;
		exp--;
	}
	u128 root = 0;
	for (int bit = 63; bit >= 0; bit--) {
		u128 t = root | (u128)1 << bit;
		if (t * t <= m)
			root = t;
	}
	struct num x = { .kind = N_FINITE, .exp = exp / 2 - 2, .mant = root << 2 | (root * root != m) };
	return normal(x);
}

int
num_compare(struct num a, struct num b)
{
	if (a.kind == N_NAN || b.kind == N_NAN)
		return 2;
	if (a.kind == N_ZERO && b.kind == N_ZERO)
		return 0;
	if (a.kind == N_ZERO)
		return b.neg ? 1 : -1;
	if (b.kind == N_ZERO)
		return a.neg ? -1 : 1;
	if (a.neg != b.neg)
		return a.neg ? -1 : 1;
	int magnitude;
	if (a.kind == N_INF || b.kind == N_INF)
		magnitude = a.kind == b.kind ? 0 : a.kind == N_INF ? 1 : -1;
	else if (a.exp != b.exp)
		magnitude = a.exp > b.exp ? 1 : -1;
	else
		magnitude = a.mant == b.mant ? 0 : a.mant > b.mant ? 1 : -1;
	return a.neg ? -magnitude : magnitude;
}

bool
num_is_subnormal(enum num_format f, uint64_t bits)
{
	uint64_t man = bits & ((1ull << formats[f].man_bits) - 1);
	uint64_t exp = bits >> formats[f].man_bits & ((1ull << formats[f].exp_bits) - 1);
	return exp == 0 && man != 0;
}

uint64_t
num_flush(enum num_format f, uint64_t bits)
{
	return num_is_subnormal(f, bits) ? bits & 1ull << (formats[f].bits - 1) : bits;
}

bool
num_bits_nan(enum num_format f, uint64_t bits)
{
	return num_unpack(f, bits).kind == N_NAN;
}

double
num_double(struct num x)
{
	uint64_t bits = num_pack(N_F64, x, N_RN, false);
	double d;

	memcpy(&d, &bits, 8);
	return d;
}

/* ---- against the host -------------------------------------------------------------------------------------------- */

static uint64_t seed = 0x1234567;

static uint64_t
rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

/* Random bits that favour the edges of the format. */
static uint64_t
rnd_bits(enum num_format f)
{
	static const int near[] = { 0, 1, 2, 3, -1, -2, -3 };
	unsigned bits = formats[f].bits, man = formats[f].man_bits;
	uint64_t r = rnd() & (bits == 64 ? ~0ull : (1ull << bits) - 1);

	switch (rnd() % 6) {
	case 0: return r & ~((1ull << man) - 1);
	case 1: return r | ((1ull << man) - 1);
	case 2: return (r & 1ull << (bits - 1)) | (rnd() % 8);
	case 3: return (r & ~(((1ull << formats[f].exp_bits) - 1) << man)) |
		(uint64_t)(formats[f].bias + near[rnd() % 7]) << man;
	default: return r;
	}
}

static int failures;

static void
expect(const char *what, int mode, uint64_t a, uint64_t b, uint64_t c, uint64_t got, uint64_t want, bool nan)
{
	if (got == want || nan)
		return;
	if (failures++ < 20)
		printf("# num %s mode %d: %llx %llx %llx: %llx, host %llx\n", what, mode, (unsigned long long)a, (unsigned long long)b,
		       (unsigned long long)c, (unsigned long long)got, (unsigned long long)want);
}

#define HOST(type, utype, format, fma_fn, sqrt_fn) \
	static void host_##type(void) \
	{ \
		static const int modes[] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD }; \
		for (int m = 0; m < 4; m++) \
			for (int n = 0; n < 20000; n++) { \
				utype ba = (utype)rnd_bits(format), bb = (utype)rnd_bits(format), bc = (utype)rnd_bits(format), r; \
				volatile type a, b, c, d; \
				type t; \
				struct num na = num_unpack(format, ba), nb = num_unpack(format, bb), nc = num_unpack(format, bc); \
				memcpy(&t, &ba, sizeof t); a = t; \
				memcpy(&t, &bb, sizeof t); b = t; \
				memcpy(&t, &bc, sizeof t); c = t; \
				fesetround(modes[m]); \
				d = a + b; fesetround(FE_TONEAREST); t = d; memcpy(&r, &t, sizeof t); \
				expect(#type " add", m, ba, bb, 0, num_pack(format, num_add(na, nb, m), m, false), r, isnan(t)); \
				fesetround(modes[m]); \
				d = a * b; fesetround(FE_TONEAREST); t = d; memcpy(&r, &t, sizeof t); \
				expect(#type " mul", m, ba, bb, 0, num_pack(format, num_mul(na, nb), m, false), r, isnan(t)); \
				fesetround(modes[m]); \
				d = a / b; fesetround(FE_TONEAREST); t = d; memcpy(&r, &t, sizeof t); \
				expect(#type " div", m, ba, bb, 0, num_pack(format, num_div(na, nb), m, false), r, isnan(t)); \
				fesetround(modes[m]); \
				d = sqrt_fn(a); fesetround(FE_TONEAREST); t = d; memcpy(&r, &t, sizeof t); \
				expect(#type " sqrt", m, ba, 0, 0, num_pack(format, num_sqrt(na), m, false), r, isnan(t)); \
				fesetround(modes[m]); \
				d = fma_fn(a, b, c); fesetround(FE_TONEAREST); t = d; memcpy(&r, &t, sizeof t); \
				expect(#type " fma", m, ba, bb, bc, num_pack(format, num_add(num_mul(na, nb), nc, m), m, false), r, isnan(t)); \
				if (!isnan(t) && !isnan(a) && !isnan(b)) \
					expect(#type " cmp", m, ba, bb, 0, (uint64_t)num_compare(na, nb), \
					       (uint64_t)(a < b ? -1 : a > b), false); \
			} \
	}
HOST(float, uint32_t, N_F32, fmaf, sqrtf)
HOST(double, uint64_t, N_F64, fma, sqrt)

int
num_selftest(void)
{
	failures = 0;
	host_float();
	host_double();
	for (int n = 0; n < 50000; n++) {
		uint64_t b64 = rnd_bits(N_F64), r = 0;
		uint32_t b32 = (uint32_t)rnd_bits(N_F32), r32;
		double d;
		float f;
		memcpy(&d, &b64, 8);
		f = (float)d;
		memcpy(&r32, &f, 4);
		expect("f32.f64", 0, b64, 0, 0, num_pack(N_F32, num_unpack(N_F64, b64), N_RN, false), r32, isnan(d));
		memcpy(&f, &b32, 4);
		d = f;
		memcpy(&r, &d, 8);
		expect("f64.f32", 0, b32, 0, 0, num_pack(N_F64, num_unpack(N_F32, b32), N_RN, false), r, isnan(d));
		if (fabsf(f) < 1e18f)
			expect("s64.f32", 0, b32, 0, 0, (uint64_t)(int64_t)num_to_int(num_unpack(N_F32, b32), N_RZ, INT64_MIN, INT64_MAX),
			       (uint64_t)(int64_t)f, false);
		int64_t i = (int64_t)(rnd() >> (rnd() & 63));
		f = (float)i;
		memcpy(&r32, &f, 4);
		expect("f32.s64", 0, (uint64_t)i, 0, 0,
		       num_pack(N_F32, num_from_uint(i < 0 ? (u128)0 - (u128)(__int128)i : (u128)i, i < 0), N_RN, false), r32, false);
#ifdef __FLT16_MAX__
		_Float16 h;
		uint16_t r16;
		memcpy(&f, &b32, 4);
		h = (_Float16)f;
		memcpy(&r16, &h, 2);
		expect("f16.f32", 0, b32, 0, 0, num_pack(N_F16, num_unpack(N_F32, b32), N_RN, false), r16, isnan(f));
#endif
	}
	return failures;
}
