/*
 * f32, f64 and f32x2 arithmetic. Not here: the approximations of sin, cos, lg2, ex2, tanh, rsqrt (alu_approx.c), 16-bit formats
 * (alu_half.c), comparison (alu_cmp.c).
 *
 * Each f32 operation has three handlers: plain (round to nearest, subnormals kept), _ftz, and _any, which takes directed
 * rounding and saturation from aux. Products and sums are never contracted; fma is exact.
 * f64 keeps NaN payloads as the processor does, f32 gives the one NaN of the ISA.
 */
#include "soft/exec/alu.h"

/* ---- f32 ----------------------------------------------------------------------------------------------------------- */

static inline void
alu_load_f32(struct alu_f32 *to, const void *from, uint32_t aux)
{
	const float *v = __builtin_assume_aligned(from, 64);
	if (aux & AUX_FTZ)
		ALU_LANES to->v[l] = alu_flush(v[l]);
	else
		memcpy(to->v, v, sizeof(to->v));
}
static inline void
alu_finish_f32(const struct sx_warp *w, const struct sx_insn *i, struct alu_f32 *r)
{
	if (i->aux & AUX_SAT)
		ALU_LANES r->v[l] = alu_sat(r->v[l]);
	if (i->aux & AUX_FTZ)
		ALU_LANES r->v[l] = alu_flush(r->v[l]);
	ALU_LANES r->v[l] = alu_canon(r->v[l]);
	sx_put32(w, i->d, (const uint32_t *)r->v);
}

#define ALU_F32_1(op, expr) \
	ALU_1(sx_##op##_f32, float, float, alu_canon(expr)) \
	static inline float alu_##op##_f32(float x) { return expr; } \
	ALU_1(sx_##op##_f32_ftz, float, float, alu_flush(alu_canon(alu_##op##_f32(alu_flush(x))))) \
	ALU_HANDLER(sx_##op##_f32_any) \
	{ \
		struct alu_f32 a, r; \
		alu_load_f32(&a, sx_src(w, i->a), i->aux); \
		const uint32_t mode = alu_round(i->aux); \
		ALU_FENCE(a); \
		ALU_LANES r.v[l] = alu_##op##_f32(a.v[l]); \
		ALU_FENCE(r); \
		alu_unround(mode, i->aux); \
		alu_finish_f32(w, i, &r); \
		return i + 1; \
	}
#define ALU_F32_2(op, expr) \
	ALU_2(sx_##op##_f32, float, float, float, alu_canon(expr)) \
	static inline float alu_##op##_f32(float x, float y) { return expr; } \
	ALU_2(sx_##op##_f32_ftz, float, float, float, alu_flush(alu_canon(alu_##op##_f32(alu_flush(x), alu_flush(y))))) \
	ALU_HANDLER(sx_##op##_f32_any) \
	{ \
		struct alu_f32 a, b, r; \
		alu_load_f32(&a, sx_src(w, i->a), i->aux); \
		alu_load_f32(&b, sx_src(w, i->b), i->aux); \
		const uint32_t mode = alu_round(i->aux); \
		ALU_FENCE(a); \
		ALU_FENCE(b); \
		ALU_LANES r.v[l] = alu_##op##_f32(a.v[l], b.v[l]); \
		ALU_FENCE(r); \
		alu_unround(mode, i->aux); \
		alu_finish_f32(w, i, &r); \
		return i + 1; \
	} \
	ALU_HANDLER(sx_##op##_f32x2) \
	{ \
		for (unsigned half = 0; half < 2; half++) { \
			struct alu_f32 a, b, r; \
			alu_load_half(w, i->a, half, &a, i->aux); \
			alu_load_half(w, i->b, half, &b, i->aux); \
			const uint32_t mode = alu_round(i->aux); \
			ALU_FENCE(a); \
			ALU_FENCE(b); \
			ALU_LANES r.v[l] = alu_##op##_f32(a.v[l], b.v[l]); \
			ALU_FENCE(r); \
			alu_unround(mode, i->aux); \
			alu_finish_half(w, i, half, &r); \
		} \
		return i + 1; \
	}

/* f32x2: lane l's halves are floats 2l and 2l + 1 of the slot. */
static inline void
alu_load_half(const struct sx_warp *w, uint32_t operand, unsigned half, struct alu_f32 *to, uint32_t aux)
{
	const float *v = ALU_SRC(float, operand);
	ALU_LANES to->v[l] = aux & AUX_FTZ ? alu_flush(v[2 * l + half]) : v[2 * l + half];
}
/* Storing the first half before the second is computed is right: halves of one lane do not meet. */
static inline void
alu_finish_half(const struct sx_warp *w, const struct sx_insn *i, unsigned half, const struct alu_f32 *r)
{
	float *d = ALU_DST(float, i->d);
	for (unsigned l = 0; l < SX_LANES; l++)
		if (w->exec >> l & 1)
			d[2 * l + half] = alu_canon(i->aux & AUX_FTZ ? alu_flush(r->v[l]) : r->v[l]);
}

ALU_F32_2(add, x + y)
ALU_F32_2(sub, x - y)
ALU_F32_2(mul, x * y)
ALU_F32_2(div, x / y)
ALU_F32_1(rcp, 1.0f / x)
ALU_F32_1(sqrt, __builtin_sqrtf(x))

static inline float
alu_fma_f32(float x, float y, float z)
{
	return __builtin_fmaf(x, y, z);
}
ALU_3(sx_fma_f32, float, float, float, float, alu_canon(alu_fma_f32(x, y, z)))
ALU_3(sx_fma_f32_ftz, float, float, float, float, alu_flush(alu_canon(alu_fma_f32(alu_flush(x), alu_flush(y), alu_flush(z)))))
ALU_HANDLER(sx_fma_f32_any)
{
	struct alu_f32 a, b, c, r;
	alu_load_f32(&a, sx_src(w, i->a), i->aux);
	alu_load_f32(&b, sx_src(w, i->b), i->aux);
	alu_load_f32(&c, sx_src(w, i->c), i->aux);
	const uint32_t mode = alu_round(i->aux);
	ALU_FENCE(a);
	ALU_FENCE(b);
	ALU_FENCE(c);
	ALU_LANES r.v[l] = alu_fma_f32(a.v[l], b.v[l], c.v[l]);
	ALU_FENCE(r);
	alu_unround(mode, i->aux);
	alu_finish_f32(w, i, &r);
	return i + 1;
}
ALU_HANDLER(sx_fma_f32x2)
{
	for (unsigned half = 0; half < 2; half++) {
		struct alu_f32 a, b, c, r;
		alu_load_half(w, i->a, half, &a, i->aux);
		alu_load_half(w, i->b, half, &b, i->aux);
		alu_load_half(w, i->c, half, &c, i->aux);
		const uint32_t mode = alu_round(i->aux);
		ALU_FENCE(a);
		ALU_FENCE(b);
		ALU_FENCE(c);
		ALU_LANES r.v[l] = alu_fma_f32(a.v[l], b.v[l], c.v[l]);
		ALU_FENCE(r);
		alu_unround(mode, i->aux);
		alu_finish_half(w, i, half, &r);
	}
	return i + 1;
}

/* div.approx is a * (1/b): a divisor above 2^126, whose reciprocal is subnormal, gives 0, or NaN for an infinite dividend. */
static inline float
alu_div_approx(float x, float y)
{
	const float a = __builtin_fabsf(y), zero = __builtin_copysignf(0.0f, y);
	return a > 0x1p126f && a < INFINITY ? x * zero : x / y;
}
ALU_2(sx_div_approx_f32, float, float, float, alu_canon(alu_div_approx(x, y)))
ALU_2(sx_div_approx_f32_ftz, float, float, float, alu_flush(alu_canon(alu_div_approx(alu_flush(x), alu_flush(y)))))

/* The order of f32 with -0 below +0, as integers. NaNs are apart. */
static inline int32_t
alu_order(float x)
{
	const uint32_t u = alu_bits(x);
	return (int32_t)(u ^ ((uint32_t)((int32_t)u >> 31) & 0x7fffffff));
}
/* One NaN loses against a number, unless .NaN. */
static inline float
alu_pick_f32(float x, float y, bool greater, uint32_t aux)
{
	if (aux & AUX_FTZ) {
		x = alu_flush(x);
		y = alu_flush(y);
	}
	const uint32_t sign = aux & AUX_XORSIGN ? (alu_bits(x) ^ alu_bits(y)) & 0x80000000 : 0;
	if (aux & (AUX_XORSIGN | AUX_ABS)) {
		x = __builtin_fabsf(x);
		y = __builtin_fabsf(y);
	}
	const uint32_t less = (alu_order(x) < alu_order(y)) == greater ? alu_bits(y) : alu_bits(x);
	const uint32_t number = x != x ? alu_bits(y) : less;     /* also the NaN, if both are */
	const uint32_t r = (y != y ? alu_bits(x) : number) ^ sign;
	const float tested = aux & AUX_NAN ? (y != y ? y : x) : alu_float(r); /* NaN exactly when the result is */
	return tested != tested ? alu_float(ALU_NAN32) : alu_float(r);
}
ALU_2(sx_min_f32, float, float, float, alu_pick_f32(x, y, false, 0))
ALU_2(sx_max_f32, float, float, float, alu_pick_f32(x, y, true, 0))
ALU_2(sx_min_f32_ftz, float, float, float, alu_pick_f32(x, y, false, AUX_FTZ))
ALU_2(sx_max_f32_ftz, float, float, float, alu_pick_f32(x, y, true, AUX_FTZ))
ALU_2(sx_min_f32_any, float, float, float, alu_pick_f32(x, y, false, i->aux))
ALU_2(sx_max_f32_any, float, float, float, alu_pick_f32(x, y, true, i->aux))
/* min and max of three, sm_100. */
ALU_3(sx_min3_f32, float, float, float, float, alu_pick_f32(alu_pick_f32(x, y, false, i->aux), z, false, i->aux))
ALU_3(sx_max3_f32, float, float, float, float, alu_pick_f32(alu_pick_f32(x, y, true, i->aux), z, true, i->aux))

ALU_1(sx_abs_f32, uint32_t, uint32_t, x & 0x7fffffff)
ALU_1(sx_neg_f32, uint32_t, uint32_t, x ^ 0x80000000)
ALU_1(sx_abs_f32_ftz, float, float, __builtin_fabsf(alu_flush(x)))
ALU_1(sx_neg_f32_ftz, float, float, -alu_flush(x))
ALU_2(sx_copysign_f32, uint32_t, uint32_t, uint32_t, (x & 0x80000000) | (y & 0x7fffffff))
ALU_2(sx_copysign_f64, uint64_t, uint64_t, uint64_t, (x & 1ull << 63) | (y & ~(1ull << 63)))

/* ---- f64 ----------------------------------------------------------------------------------------------------------- */

#define ALU_F64_ANY(op, names, load, call) \
	ALU_HANDLER(sx_##op##_f64_any) \
	{ \
		struct alu_f64 names, r; \
		load \
		const uint32_t mode = alu_round(i->aux); \
		ALU_FENCE(a); \
		ALU_LANES r.v[l] = call; \
		ALU_FENCE(r); \
		alu_unround(mode, i->aux); \
		if (i->aux & AUX_SAT) \
			ALU_LANES r.v[l] = alu_sat64(r.v[l]); \
		sx_put64(w, i->d, (const uint64_t *)r.v); \
		return i + 1; \
	}
#define ALU_LOAD64(name) memcpy(name.v, sx_src(w, i->name), sizeof(name.v));
#define ALU_COMMA ,
#define ALU_F64_1(op, expr) \
	static inline double alu_##op##_f64(double x) { return expr; } \
	ALU_1(sx_##op##_f64, double, double, alu_##op##_f64(x)) \
	ALU_F64_ANY(op, a, ALU_LOAD64(a), alu_##op##_f64(a.v[l]))
#define ALU_F64_2(op, expr) \
	static inline double alu_##op##_f64(double x, double y) { return expr; } \
	ALU_2(sx_##op##_f64, double, double, double, alu_##op##_f64(x, y)) \
	ALU_F64_ANY(op, a ALU_COMMA b, ALU_LOAD64(a) ALU_LOAD64(b) ALU_FENCE(b);, alu_##op##_f64(a.v[l], b.v[l]))
ALU_F64_2(add, x + y)
ALU_F64_2(sub, x - y)
ALU_F64_2(mul, x * y)
ALU_F64_2(div, x / y)
ALU_F64_1(rcp, 1.0 / x)
ALU_F64_1(sqrt, __builtin_sqrt(x))
ALU_3(sx_fma_f64, double, double, double, double, __builtin_fma(x, y, z))
ALU_F64_ANY(fma, a ALU_COMMA b ALU_COMMA c, ALU_LOAD64(a) ALU_LOAD64(b) ALU_LOAD64(c) ALU_FENCE(b); ALU_FENCE(c);,
            __builtin_fma(a.v[l], b.v[l], c.v[l]))

static inline int64_t
alu_order64(double x)
{
	const uint64_t u = alu_bits64(x);
	return (int64_t)(u ^ ((uint64_t)((int64_t)u >> 63) & INT64_MAX));
}
static inline double
alu_pick_f64(double x, double y, bool greater)
{
	const double r = (alu_order64(x) < alu_order64(y)) == greater ? y : x;
	return x != x ? y : y != y ? x : r;
}
ALU_2(sx_min_f64, double, double, double, alu_pick_f64(x, y, false))
ALU_2(sx_max_f64, double, double, double, alu_pick_f64(x, y, true))
ALU_1(sx_abs_f64, uint64_t, uint64_t, x & INT64_MAX)
ALU_1(sx_neg_f64, uint64_t, uint64_t, x ^ 1ull << 63)

/*
 * The gross approximations read and write only the upper 32 bits of an f64: 20 bits of mantissa. Subnormals count as zeros.
 */
static inline double
alu_gross(double x)
{
	const uint64_t u = alu_bits64(x) & 0xffffffff00000000;
	return alu_double((u >> 52 & 0x7ff) ? u : u & 1ull << 63);
}
static inline double
alu_gross_result(double x)
{
	return x != x ? alu_double(0x7fffffff00000000) : alu_gross(x);
}
ALU_1(sx_rcp_gross_f64, double, double, alu_gross_result(x == x ? 1.0 / alu_gross(x) : x))
ALU_1(sx_rsqrt_gross_f64, double, double, alu_gross_result(x == x ? 1.0 / __builtin_sqrt(alu_gross(x)) : x))
ALU_1(sx_rsqrt_f64, double, double, 1.0 / __builtin_sqrt(x))
