/*
 * f16, f16x2, bf16, bf16x2 arithmetic, and the f32 operations with 16-bit sources.
 *
 * One handler per operation serves the four types: it widens each half to f32, computes so that the rounding to 16 bits is the only
 * one, and narrows. An f32 sum, difference or product of f16 values rounds innocuously (24 >= 2 * 11 + 2 bits); a bf16
 * product can be subnormal and an fma is longer than f32, so these round to odd first.
 */
#include "soft/exec/alu.h"

/* A row's number says the type. */
enum { HALF_BF16 = AUX_ROW, HALF_X2 = AUX_ROW << 1 };

/* .ftz of a source, before it is widened; and a result's bits: .ftz, .relu, NaN to the ISA's. */
static inline uint32_t
alu_half_flush(uint32_t h, uint32_t infinity)
{
	return h & infinity ? h : h & 0x8000;
}
static inline uint32_t
alu_half_bits(uint32_t h, uint32_t infinity, uint32_t aux)
{
	const uint32_t relu = aux & AUX_RELU ? 0x8000 : 0, ftz = aux & AUX_FTZ ? infinity : 0x7fff;
	const uint32_t kept = h & ftz ? h : h & 0x8000, cut = kept & relu ? 0 : kept;
	return (h & 0x7fff) > infinity ? ALU_NAN16 : cut;
}

static inline void
alu_half_load(const struct sx_warp *w, uint32_t operand, unsigned high, uint32_t aux, struct alu_f32 *to)
{
	const uint32_t *s = SX_S32(w, operand);
	const unsigned shift = high ? 16 : 0;

	if (aux & HALF_BF16 && aux & AUX_FTZ) {
		ALU_LANES to->v[l] = alu_from_bf16(alu_half_flush(s[l] >> shift & 0xffff, 0x7f80));
	} else if (aux & HALF_BF16) {
		ALU_LANES to->v[l] = alu_from_bf16(s[l] >> shift);
	} else if (aux & AUX_FTZ) {
		ALU_LANES to->v[l] = alu_from_f16(alu_half_flush(s[l] >> shift & 0xffff, 0x7c00));
	} else {
#if defined(__AVX512F__)
		for (unsigned k = 0; k < SX_LANES; k += 16) {
			const __m512i x = _mm512_load_si512(s + k);
			const __m256i h = _mm512_cvtepi32_epi16(high ? _mm512_srli_epi32(x, 16) : x);
			_mm512_store_ps(to->v + k, _mm512_cvtph_ps(h));
		}
#elif defined(__F16C__) && defined(__AVX2__)
		for (unsigned k = 0; k < SX_LANES; k += 8) {
			const __m256i x = _mm256_srl_epi32(_mm256_load_si256((const void *)(s + k)), _mm_cvtsi32_si128((int)shift));
			const __m256i h = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
			_mm256_store_ps(to->v + k, _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1))));
		}
#else
		ALU_LANES to->v[l] = alu_from_f16(s[l] >> shift & 0xffff);
#endif
	}
}
static inline void
alu_half_narrow(const struct alu_f32 *from, uint32_t aux, uint32_t *to)
{
	if (aux & HALF_BF16) {
		ALU_LANES to[l] = alu_half_bits(alu_to_bf16(from->v[l]), 0x7f80, aux);
		return;
	}
#if defined(__AVX512F__)
	for (unsigned k = 0; k < SX_LANES; k += 16)
		_mm512_store_si512(to + k, _mm512_cvtepu16_epi32(_mm512_cvtps_ph(_mm512_load_ps(from->v + k), 0)));
	ALU_LANES to[l] = alu_half_bits(to[l], 0x7c00, aux);
#elif defined(__F16C__) && defined(__AVX2__)
	for (unsigned k = 0; k < SX_LANES; k += 8)
		_mm256_store_si256((void *)(to + k), _mm256_cvtepu16_epi32(_mm256_cvtps_ph(_mm256_load_ps(from->v + k), 0)));
	ALU_LANES to[l] = alu_half_bits(to[l], 0x7c00, aux);
#else
	ALU_LANES to[l] = alu_half_bits(alu_to_f16(from->v[l]), 0x7c00, aux);
#endif
}

static inline void
alu_half_store(const struct sx_warp *w, const struct sx_insn *i, struct alu_f32 r[2])
{
	uint32_t low[SX_LANES] __attribute__((aligned(64))), high[SX_LANES] __attribute__((aligned(64)));
	for (unsigned half = 0; i->aux & AUX_SAT && half <= (i->aux & HALF_X2 ? 1u : 0u); half++)
		ALU_LANES r[half].v[l] = alu_sat(r[half].v[l]);
	alu_half_narrow(&r[0], i->aux, low);
	if (i->aux & HALF_X2) {
		alu_half_narrow(&r[1], i->aux, high);
		ALU_LANES low[l] |= high[l] << 16;
	}
	sx_put32(w, i->d, low);
}

/* p + z, rounded to odd. */
static inline float
alu_add_odd(float p, float z)
{
	const float s = p + z, t = s - p, rest = (p - (s - t)) + (z - t);
	const uint32_t u = alu_bits(s), even = (u & 1) - 1;
	const uint32_t toward = (uint32_t)((int32_t)(u ^ alu_bits(rest)) >> 31) | 1;
	const uint32_t step = (alu_bits(rest) & 0x7fffffff) - 1 < 0x7f800000 ? toward & even : 0; /* not for 0 and NaN */
	return alu_float(u + step);
}
static inline double
alu_add_odd64(double p, double z)
{
	const double s = p + z, t = s - p, rest = (p - (s - t)) + (z - t);
	const uint64_t u = alu_bits64(s), even = (u & 1) - 1;
	const uint64_t toward = (uint64_t)((int64_t)(u ^ alu_bits64(rest)) >> 63) | 1;
	const uint64_t step = (alu_bits64(rest) & INT64_MAX) - 1 < 0x7ffull << 52 ? toward & even : 0;
	return alu_double(u + step);
}

/* f16 products are exact in f32, bf16 ones in double. */
static inline float
alu_half_mul(float x, float y, bool bf16)
{
	return bf16 ? alu_odd((double)x * y) : x * y;
}
static inline float
alu_half_fma(float x, float y, float z, bool bf16)
{
	return bf16 ? alu_odd(alu_add_odd64((double)x * y, z)) : alu_add_odd(x * y, z);
}

#define ALU_HALVES(...) \
	const unsigned halves = i->aux & HALF_X2 ? 2 : 1; \
	struct alu_f32 r[2]; \
	for (unsigned half = 0; half < halves; half++) { \
		__VA_ARGS__ \
	} \
	alu_half_store(w, i, r); \
	return i + 1;
#define ALU_HALF_1(op, expr) \
	ALU_HANDLER(sx_##op##_half) \
	{ \
		struct alu_f32 a; \
		ALU_HALVES(alu_half_load(w, i->a, half, i->aux, &a); ALU_LANES { \
			const float x = a.v[l]; \
			r[half].v[l] = expr; \
		}) \
	}
#define ALU_HALF_2(op, expr) \
	ALU_HANDLER(sx_##op##_half) \
	{ \
		struct alu_f32 a, b; \
		ALU_HALVES(alu_half_load(w, i->a, half, i->aux, &a); alu_half_load(w, i->b, half, i->aux, &b); ALU_LANES { \
			const float x = a.v[l], y = b.v[l]; \
			r[half].v[l] = expr; \
		}) \
	}
#define ALU_HALF_3(op, expr) \
	ALU_HANDLER(sx_##op##_half) \
	{ \
		struct alu_f32 a, b, c; \
		ALU_HALVES(alu_half_load(w, i->a, half, i->aux, &a); alu_half_load(w, i->b, half, i->aux, &b); \
		           alu_half_load(w, i->c, half, i->aux, &c); ALU_LANES { \
			const float x = a.v[l], y = b.v[l], z = c.v[l]; \
			r[half].v[l] = expr; \
		}) \
	}
ALU_HALF_2(add, x + y)
ALU_HALF_2(sub, x - y)
ALU_HALF_2(mul, alu_half_mul(x, y, false))
ALU_HALF_2(mul_b, alu_half_mul(x, y, true))
ALU_HALF_3(fma, alu_half_fma(x, y, z, false))
ALU_HALF_3(fma_b, alu_half_fma(x, y, z, true))
ALU_HALF_2(min, alu_pick_f32(x, y, false, i->aux & ~(uint32_t)AUX_FTZ))
ALU_HALF_2(max, alu_pick_f32(x, y, true, i->aux & ~(uint32_t)AUX_FTZ))
ALU_HALF_1(ex2, alu_ex2(x))
ALU_HALF_1(tanh, alu_tanh(x))

/* neg and abs touch the sign only; .ftz flushes both halves. aux of the row has the sign bits. */
static inline uint32_t
alu_flush_f16x2(uint32_t x)
{
	return x & (((x & 0x7c00) ? 0xffffu : 0x8000u) | ((x & 0x7c000000) ? 0xffff0000u : 0x80000000u));
}
ALU_1(sx_neg_16bit, uint32_t, uint32_t, x ^ 0x8000)
ALU_1(sx_abs_16bit, uint32_t, uint32_t, x & 0x7fff)
ALU_1(sx_neg_16bit_x2, uint32_t, uint32_t, x ^ 0x80008000)
ALU_1(sx_abs_16bit_x2, uint32_t, uint32_t, x & 0x7fff7fff)
ALU_1(sx_neg_f16_ftz, uint32_t, uint32_t, (alu_flush_f16x2(x) ^ 0x8000) & 0xffff)
ALU_1(sx_abs_f16_ftz, uint32_t, uint32_t, alu_flush_f16x2(x) & 0x7fff)
ALU_1(sx_neg_f16x2_ftz, uint32_t, uint32_t, alu_flush_f16x2(x) ^ 0x80008000)
ALU_1(sx_abs_f16x2_ftz, uint32_t, uint32_t, alu_flush_f16x2(x) & 0x7fff7fff)

/* f32 with 16-bit sources, sm_100: the sources widen exactly. */
#define ALU_MIXED(op, loads, expr) \
	ALU_HANDLER(sx_##op##_mixed) \
	{ \
		struct alu_f32 a, b, c, r; \
		loads \
		const uint32_t mode = alu_round(i->aux); \
		ALU_FENCE(a); \
		ALU_FENCE(b); \
		ALU_FENCE(c); \
		ALU_LANES { \
			const float x = a.v[l], y = b.v[l], z = c.v[l]; \
			(void)z; \
			r.v[l] = expr; \
		} \
		ALU_FENCE(r); \
		alu_unround(mode, i->aux); \
		alu_finish_f32(w, i, &r); \
		return i + 1; \
	}
#define ALU_MIXED_2 \
	alu_half_load(w, i->a, 0, i->aux, &a); \
	alu_load_f32(&b, sx_src(w, i->b), i->aux); \
	c = b;
#define ALU_MIXED_3 \
	alu_half_load(w, i->a, 0, i->aux, &a); \
	alu_half_load(w, i->b, 0, i->aux, &b); \
	alu_load_f32(&c, sx_src(w, i->c), i->aux);
ALU_MIXED(add, ALU_MIXED_2, x + y)
ALU_MIXED(sub, ALU_MIXED_2, x - y)
ALU_MIXED(fma, ALU_MIXED_3, __builtin_fmaf(x, y, z))
