/*
 * The .approx functions of f32 in vector polynomials, inside the error bounds of the ISA:
 *   sin, cos   2^-20.5 absolute          lg2  2^-22 absolute within (0.5, 2), relative outside
 *   ex2        2^-22.5 relative (2 ulp)  rsqrt 2^-22.9 relative          tanh 2^-11 relative
 * rcp, sqrt and div are the processor's exact ones (alu_float.c).
 */
#include "soft/exec/alu.h"

#define ALU_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to an integer */

/* 2^x. The polynomial is the series of e^(f ln 2) for |f| <= 1/2; the scale in two steps rounds subnormal results once. */
static inline float
alu_ex2(float x)
{
	const float low = x > -160.0f ? x : -160.0f, c = low < 130.0f ? low : 130.0f; /* NaN goes with the low ones */
	const float k = c + ALU_ROUND_MAGIC - ALU_ROUND_MAGIC, f = c - k;
	float q = 1.525273380e-5f;
	q = q * f + 1.540353039e-4f;
	q = q * f + 1.333355815e-3f;
	q = q * f + 9.618129108e-3f;
	q = q * f + 5.550410866e-2f;
	q = q * f + 2.402265070e-1f;
	q = q * f + 6.931471806e-1f;
	const float p = 1.0f + f * q;
	const int32_t n = (int32_t)k, n1 = n >> 1, n2 = n - n1;
	const float r = p * alu_float((uint32_t)(n1 + 127) << 23) * alu_float((uint32_t)(n2 + 127) << 23);
	return x == x ? r : alu_float(ALU_NAN32);
}

/* log2: the exponent plus 2/ln 2 * atanh(s), s = (m - 1) / (m + 1), for m in [sqrt 1/2, sqrt 2). */
static inline float
alu_lg2(float x)
{
	const bool small = x < 0x1p-126f;
	const float scaled = small ? x * 0x1p23f : x;
	const uint32_t u = alu_bits(scaled);
	const int32_t e = (int32_t)(u - 0x3f3504f3) >> 23;
	const float m = alu_float(u - ((uint32_t)e << 23));
	const float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
	float q = 3.205989e-1f;           /* 2 / (9 ln 2) */
	q = q * s2 + 4.121985716e-1f;     /* 2 / (7 ln 2) */
	q = q * s2 + 5.770780164e-1f;
	q = q * s2 + 9.617966939e-1f;
	q = q * s2 + 2.885390082f;
	const float r = (float)(e - (small ? 23 : 0)) + s * q;
	const float zero = x == 0.0f ? -INFINITY : r, infinite = x == INFINITY ? x : zero;
	return x >= 0.0f ? infinite : alu_float(ALU_NAN32);
}

/* sin(x + quarter * pi / 2). The reduction is in double; beyond 2^50 quarter turns nothing is left of the argument. */
static inline float
alu_sin(float x, uint32_t quarter)
{
	const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
	const double turns = (double)x * 0.63661977236758134308;
	const double t = __builtin_fabs(turns) < 0x1p50 ? turns : 0.0;
	const double shifted = t + magic;
	const uint32_t n = (uint32_t)alu_bits64(shifted) + quarter;
	const float r = (float)((t - (shifted - magic)) * 1.57079632679489661923), r2 = r * r;
	float s = 2.755731922e-6f;
	s = s * r2 - 1.984126984e-4f;
	s = s * r2 + 8.333333333e-3f;
	s = s * r2 - 1.666666667e-1f;
	s = r * (1.0f + s * r2); /* keeps -0 */
	float c = 2.480158730e-5f;
	c = c * r2 - 1.388888889e-3f;
	c = c * r2 + 4.166666667e-2f;
	c = c * r2 - 0.5f;
	c = c * r2 + 1.0f;
	const uint32_t v = alu_bits(n & 1 ? c : s) ^ (n & 2) << 30;
	return (alu_bits(x) & 0x7f800000) == 0x7f800000 ? alu_float(ALU_NAN32) : alu_float(v);
}

/* tanh: (e - 1) / (e + 1) with e = exp(2|x|), and the series near zero where that would cancel. */
static inline float
alu_tanh(float x)
{
	const float a = __builtin_fabsf(x), x2 = x * x;
	const float e = alu_ex2((a < 16.0f ? a : 16.0f) * 2.885390082f);
	const float large = __builtin_copysignf((e - 1.0f) / (e + 1.0f), x);
	const float small = x * (1.0f - x2 * (0.333333333f - 0.133333333f * x2));
	const float r = a < 0.125f ? small : large;
	return x == x ? r : alu_float(ALU_NAN32);
}

#define ALU_APPROX(op, expr) \
	ALU_1(sx_##op##_f32, float, float, alu_canon(expr)) \
	static inline float alu_##op##_full(float x) { return expr; } \
	ALU_1(sx_##op##_f32_ftz, float, float, alu_flush(alu_canon(alu_##op##_full(alu_flush(x)))))
ALU_APPROX(ex2, alu_ex2(x))
ALU_APPROX(lg2, alu_lg2(x))
ALU_APPROX(sin, alu_sin(x, 0))
ALU_APPROX(cos, alu_sin(x, 1))
ALU_APPROX(tanh, alu_tanh(x))

#if defined(__AVX512F__) && defined(__AVX512DQ__)
/* The processor's 14 bits and one Newton step; zeros and infinities keep the first value. */
static inline __m512
alu_rsqrt16(__m512 x)
{
	const __m512 y = _mm512_rsqrt14_ps(x);
	const __m512 e = _mm512_fnmadd_ps(_mm512_mul_ps(x, y), y, _mm512_set1_ps(1.0f));
	const __m512 r = _mm512_fmadd_ps(_mm512_mul_ps(y, _mm512_set1_ps(0.5f)), e, y);
	const __mmask16 keep = _mm512_fpclass_ps_mask(y, 0x1e); /* +-0, +-infinity */
	const __mmask16 nan = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
	return _mm512_mask_mov_ps(_mm512_mask_mov_ps(r, keep, y), nan, _mm512_castsi512_ps(_mm512_set1_epi32(ALU_NAN32)));
}
static inline const struct sx_insn *
alu_rsqrt_f32(struct sx_warp *w, const struct sx_insn *i, bool ftz)
{
	const float *a = ALU_SRC(float, i->a);
	float *d = ALU_DST(float, i->d);
	for (unsigned k = 0; k < SX_LANES; k += 16) {
		__m512 x = _mm512_load_ps(a + k);
		if (ftz) {
			const __mmask16 tiny = _mm512_fpclass_ps_mask(x, 0x20);
			x = _mm512_mask_and_ps(x, tiny, x, _mm512_set1_ps(-0.0f));
		}
		_mm512_mask_store_ps(d + k, w->all ? 0xffff : (__mmask16)(w->exec >> k), alu_rsqrt16(x));
	}
	return i + 1;
}
ALU_HANDLER(sx_rsqrt_f32)
{
	return alu_rsqrt_f32(w, i, false);
}
ALU_HANDLER(sx_rsqrt_f32_ftz)
{
	return alu_rsqrt_f32(w, i, true);
}
#else
ALU_APPROX(rsqrt, 1.0f / __builtin_sqrtf(x))
#endif
