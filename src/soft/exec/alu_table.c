/*
 * sx_decode_alu: which arithmetic forms exist and which handler runs each.
 *
 * An opcode has rows for the regular forms, tried in order, and may have a function for the others. A form that fits nothing is
 * not known: the function that holds it fails to decode, with its line.
 */
#include "soft/exec/alu.h"

#define ROUND F_ROUND
#define ANY_ROUND (1ull << 63) /* in `must`: one of the roundings */
#define FTZ F_(FTZ)
#define SAT F_(SAT)
#define R(t0, t1, must, may, shape, fn) { PTX_##t0, PTX_##t1, must, may, shape, fn, 0 }
#define RX(t0, t1, must, may, shape, fn, aux) { PTX_##t0, PTX_##t1, must, may, shape, fn, aux }
/* The same integer handler for signed and unsigned types. */
#define BOTH(bits, must, shape, fn) R(u##bits, none, must, 0, shape, fn), R(s##bits, none, must, 0, shape, fn)
/* f32: plain, .ftz, and the general one. */
#define F32(shape, op) \
	R(f32, none, 0, F_(RN), shape, sx_##op##_f32), R(f32, none, FTZ, F_(RN), shape, sx_##op##_f32_ftz), \
	R(f32, none, 0, ROUND | FTZ | SAT, shape, sx_##op##_f32_any)
/* The same where the rounding has to be said. */
#define F32_MUST(shape, op) \
	R(f32, none, F_(RN), 0, shape, sx_##op##_f32), R(f32, none, F_(RN) | FTZ, 0, shape, sx_##op##_f32_ftz), \
	R(f32, none, ANY_ROUND, ROUND | FTZ | SAT, shape, sx_##op##_f32_any)
#define F64_MUST(shape, op) R(f64, none, F_(RN), 0, shape, sx_##op##_f64), R(f64, none, ANY_ROUND, ROUND, shape, sx_##op##_f64_any)
#define F64(shape, op) R(f64, none, 0, F_(RN), shape, sx_##op##_f64), R(f64, none, 0, ROUND, shape, sx_##op##_f64_any)

/* The 16-bit formats. */
#define HALF(type, must, may, shape, fn, number) RX(type, none, must, may, shape, fn, number)
#define HALF_F16(must, may, shape, fn) \
	HALF(f16, must, may, shape, fn, 0), HALF(f16x2, must, may, shape, fn, HALF_X2)
#define HALF_BF(must, may, shape, fn) \
	HALF(bf16, must, may, shape, fn, HALF_BF16), HALF(bf16x2, must, may, shape, fn, HALF_BF16 | HALF_X2)
#define HALF_SUM(op) HALF_F16(0, F_(RN) | FTZ | SAT, "dtt", sx_##op##_half), HALF_BF(0, F_(RN), "dtt", sx_##op##_half)
#define MIXED(op, must, shape) \
	RX(f32, f16, must, ROUND | SAT, shape, sx_##op##_mixed, 0), RX(f32, bf16, must, ROUND | SAT, shape, sx_##op##_mixed, HALF_BF16)

static const struct alu_row rows_add[] = {
	BOTH(32, 0, "dtt", sx_add_32), BOTH(64, 0, "dtt", sx_add_64), F32("dtt", add), F64("dtt", add),
	BOTH(16, 0, "dtt", sx_add_16), R(s32, none, SAT, 0, "dtt", sx_add_sat_s32), BOTH(16x2, 0, "dtt", sx_add_16x2),
	R(f32x2, none, 0, ROUND | FTZ, "dtt", sx_add_f32x2), HALF_SUM(add), MIXED(add, 0, "dst"),
};
static const struct alu_row rows_sub[] = {
	BOTH(32, 0, "dtt", sx_sub_32), BOTH(64, 0, "dtt", sx_sub_64), F32("dtt", sub), F64("dtt", sub),
	BOTH(16, 0, "dtt", sx_sub_16), R(s32, none, SAT, 0, "dtt", sx_sub_sat_s32),
	R(f32x2, none, 0, ROUND | FTZ, "dtt", sx_sub_f32x2), HALF_SUM(sub), MIXED(sub, 0, "dst"),
};
static const struct alu_row rows_mul[] = {
	BOTH(32, F_(LO), "dtt", sx_mul_lo_32), F32("dtt", mul), F64("dtt", mul), BOTH(64, F_(LO), "dtt", sx_mul_lo_64),
	R(u32, none, F_(WIDE), 0, "Dtt", sx_mul_wide_u32), R(s32, none, F_(WIDE), 0, "Dtt", sx_mul_wide_s32),
	R(u16, none, F_(WIDE), 0, "Dtt", sx_mul_wide_u16), R(s16, none, F_(WIDE), 0, "Dtt", sx_mul_wide_s16),
	R(u16, none, F_(HI), 0, "dtt", sx_mul_hi_u16), R(s16, none, F_(HI), 0, "dtt", sx_mul_hi_s16),
	R(u32, none, F_(HI), 0, "dtt", sx_mul_hi_u32), R(s32, none, F_(HI), 0, "dtt", sx_mul_hi_s32),
	R(u64, none, F_(HI), 0, "dtt", sx_mul_hi_u64), R(s64, none, F_(HI), 0, "dtt", sx_mul_hi_s64),
	BOTH(16, F_(LO), "dtt", sx_mul_lo_16), R(f32x2, none, 0, ROUND | FTZ, "dtt", sx_mul_f32x2),
	HALF_F16(0, F_(RN) | FTZ | SAT, "dtt", sx_mul_half), HALF_BF(0, F_(RN), "dtt", sx_mul_b_half),
};
static const struct alu_row rows_mad[] = {
	BOTH(32, F_(LO), "dttt", sx_mad_lo_32), BOTH(64, F_(LO), "dttt", sx_mad_lo_64), F32_MUST("dttt", fma), F64_MUST("dttt", fma),
	R(u32, none, F_(WIDE), 0, "DttT", sx_mad_wide_u32), R(s32, none, F_(WIDE), 0, "DttT", sx_mad_wide_s32),
	R(u16, none, F_(WIDE), 0, "DttT", sx_mad_wide_u16), R(s16, none, F_(WIDE), 0, "DttT", sx_mad_wide_s16),
	R(u16, none, F_(HI), 0, "dttt", sx_mad_hi_u16), R(s16, none, F_(HI), 0, "dttt", sx_mad_hi_s16),
	R(u32, none, F_(HI), 0, "dttt", sx_mad_hi_u32), R(s32, none, F_(HI), 0, "dttt", sx_mad_hi_s32),
	R(u64, none, F_(HI), 0, "dttt", sx_mad_hi_u64), R(s64, none, F_(HI), 0, "dttt", sx_mad_hi_s64),
	R(s32, none, F_(HI) | SAT, 0, "dttt", sx_mad_hi_sat_s32), BOTH(16, F_(LO), "dttt", sx_mad_lo_16),
};
static const struct alu_row rows_fma[] = {
	F32_MUST("dttt", fma), F64_MUST("dttt", fma), R(f32x2, none, ANY_ROUND, ROUND | FTZ, "dttt", sx_fma_f32x2),
	HALF_F16(F_(RN), FTZ | SAT, "dttt", sx_fma_half), HALF_F16(F_(RN) | F_(RELU), FTZ, "dttt", sx_fma_half),
	HALF_BF(F_(RN), F_(RELU), "dttt", sx_fma_b_half), MIXED(fma, ANY_ROUND, "dsst"),
};
static const struct alu_row rows_mul24[] = {
	R(u32, none, F_(LO), 0, "dtt", sx_mul24_lo_u32), R(s32, none, F_(LO), 0, "dtt", sx_mul24_lo_s32),
	R(u32, none, F_(HI), 0, "dtt", sx_mul24_hi_u32), R(s32, none, F_(HI), 0, "dtt", sx_mul24_hi_s32),
};
static const struct alu_row rows_mad24[] = {
	R(u32, none, F_(LO), 0, "dttt", sx_mad24_lo_u32), R(s32, none, F_(LO), 0, "dttt", sx_mad24_lo_s32),
	R(u32, none, F_(HI), 0, "dttt", sx_mad24_hi_u32), R(s32, none, F_(HI), 0, "dttt", sx_mad24_hi_s32),
	R(s32, none, F_(HI) | SAT, 0, "dttt", sx_mad24_hi_sat_s32),
};
static const struct alu_row rows_sad[] = {
	R(u16, none, 0, 0, "dttt", sx_sad_u16), R(s16, none, 0, 0, "dttt", sx_sad_s16), R(u32, none, 0, 0, "dttt", sx_sad_u32),
	R(s32, none, 0, 0, "dttt", sx_sad_s32), R(u64, none, 0, 0, "dttt", sx_sad_u64), R(s64, none, 0, 0, "dttt", sx_sad_s64),
};
static const struct alu_row rows_div[] = {
	R(u32, none, 0, 0, "dtt", sx_div_u32), R(s32, none, 0, 0, "dtt", sx_div_s32), R(u64, none, 0, 0, "dtt", sx_div_u64),
	R(s64, none, 0, 0, "dtt", sx_div_s64), R(u16, none, 0, 0, "dtt", sx_div_u16), R(s16, none, 0, 0, "dtt", sx_div_s16),
	R(f32, none, F_(APPROX), 0, "dtt", sx_div_approx_f32), R(f32, none, F_(APPROX) | FTZ, 0, "dtt", sx_div_approx_f32_ftz),
	R(f32, none, F_(FULL), 0, "dtt", sx_div_f32), R(f32, none, F_(FULL) | FTZ, 0, "dtt", sx_div_f32_ftz),
	R(f32, none, F_(RN), 0, "dtt", sx_div_f32), R(f32, none, F_(RN) | FTZ, 0, "dtt", sx_div_f32_ftz),
	R(f32, none, ANY_ROUND, ROUND | FTZ, "dtt", sx_div_f32_any), F64_MUST("dtt", div),
};
static const struct alu_row rows_rem[] = {
	R(u32, none, 0, 0, "dtt", sx_rem_u32), R(s32, none, 0, 0, "dtt", sx_rem_s32), R(u64, none, 0, 0, "dtt", sx_rem_u64),
	R(s64, none, 0, 0, "dtt", sx_rem_s64), R(u16, none, 0, 0, "dtt", sx_rem_u16), R(s16, none, 0, 0, "dtt", sx_rem_s16),
};
#define SIGN(op) \
	R(f16, none, 0, 0, "dt", sx_##op##_16bit), R(bf16, none, 0, 0, "dt", sx_##op##_16bit), \
	R(f16x2, none, 0, 0, "dt", sx_##op##_16bit_x2), R(bf16x2, none, 0, 0, "dt", sx_##op##_16bit_x2), \
	R(f16, none, FTZ, 0, "dt", sx_##op##_f16_ftz), R(f16x2, none, FTZ, 0, "dt", sx_##op##_f16x2_ftz)
static const struct alu_row rows_abs[] = {
	R(s32, none, 0, 0, "dt", sx_abs_32), R(s64, none, 0, 0, "dt", sx_abs_64), R(s16, none, 0, 0, "dt", sx_abs_16),
	R(f32, none, 0, 0, "dt", sx_abs_f32), R(f32, none, FTZ, 0, "dt", sx_abs_f32_ftz), R(f64, none, 0, 0, "dt", sx_abs_f64),
	SIGN(abs),
};
static const struct alu_row rows_neg[] = {
	R(s32, none, 0, 0, "dt", sx_neg_32), R(s64, none, 0, 0, "dt", sx_neg_64), R(s16, none, 0, 0, "dt", sx_neg_16),
	R(f32, none, 0, 0, "dt", sx_neg_f32), R(f32, none, FTZ, 0, "dt", sx_neg_f32_ftz), R(f64, none, 0, 0, "dt", sx_neg_f64),
	SIGN(neg),
};
#define XORSIGN (F_(XORSIGN) | F_(ABS))
#define MINMAX(op) \
	R(u32, none, 0, 0, "dtt", sx_##op##_u32), R(s32, none, 0, 0, "dtt", sx_##op##_s32), \
	R(u64, none, 0, 0, "dtt", sx_##op##_u64), R(s64, none, 0, 0, "dtt", sx_##op##_s64), \
	R(u16, none, 0, 0, "dtt", sx_##op##_u32), R(s16, none, 0, 0, "dtt", sx_##op##_s16), \
	R(s32, none, F_(RELU), 0, "dtt", sx_##op##_relu_s32), \
	R(u16x2, none, 0, 0, "dtt", sx_##op##_u16x2), R(s16x2, none, 0, 0, "dtt", sx_##op##_s16x2), \
	R(s16x2, none, F_(RELU), 0, "dtt", sx_##op##_relu_s16x2), \
	R(f32, none, 0, 0, "dtt", sx_##op##_f32), R(f32, none, FTZ, 0, "dtt", sx_##op##_f32_ftz), \
	R(f32, none, 0, FTZ | F_(NAN), "dtt", sx_##op##_f32_any), \
	R(f32, none, XORSIGN, FTZ | F_(NAN), "dtt", sx_##op##_f32_any), \
	R(f32, none, 0, FTZ | F_(NAN) | F_(ABS), "dttt", sx_##op##3_f32), R(f64, none, 0, 0, "dtt", sx_##op##_f64), \
	HALF_F16(0, FTZ | F_(NAN), "dtt", sx_##op##_half), HALF_BF(0, F_(NAN), "dtt", sx_##op##_half), \
	HALF_F16(XORSIGN, FTZ | F_(NAN), "dtt", sx_##op##_half), HALF_BF(XORSIGN, F_(NAN), "dtt", sx_##op##_half)
static const struct alu_row rows_min[] = { MINMAX(min) };
static const struct alu_row rows_max[] = { MINMAX(max) };

static const struct alu_row rows_popc[] = { R(b32, none, 0, 0, "xt", sx_popc_32), R(b64, none, 0, 0, "xt", sx_popc_64) };
static const struct alu_row rows_clz[] = { R(b32, none, 0, 0, "xt", sx_clz_32), R(b64, none, 0, 0, "xt", sx_clz_64) };
static const struct alu_row rows_brev[] = { R(b32, none, 0, 0, "dt", sx_brev_32), R(b64, none, 0, 0, "dt", sx_brev_64) };
static const struct alu_row rows_bfind[] = {
	R(u32, none, 0, 0, "xt", sx_bfind_u32), R(s32, none, 0, 0, "xt", sx_bfind_s32), R(u64, none, 0, 0, "xt", sx_bfind_u64),
	R(s64, none, 0, 0, "xt", sx_bfind_s64), R(u32, none, F_(SHIFTAMT), 0, "xt", sx_bfind_amt_u32),
	R(s32, none, F_(SHIFTAMT), 0, "xt", sx_bfind_amt_s32), R(u64, none, F_(SHIFTAMT), 0, "xt", sx_bfind_amt_u64),
	R(s64, none, F_(SHIFTAMT), 0, "xt", sx_bfind_amt_s64),
};
static const struct alu_row rows_fns[] = { R(b32, none, 0, 0, "dtuu", sx_fns) };
static const struct alu_row rows_bfe[] = {
	R(u32, none, 0, 0, "dtuu", sx_bfe_u32), R(s32, none, 0, 0, "dtuu", sx_bfe_s32), R(u64, none, 0, 0, "dtuu", sx_bfe_u64),
	R(s64, none, 0, 0, "dtuu", sx_bfe_s64),
};
static const struct alu_row rows_bfi[] = { R(b32, none, 0, 0, "dttuu", sx_bfi_32), R(b64, none, 0, 0, "dttuu", sx_bfi_64) };
static const struct alu_row rows_bmsk[] = {
	R(b32, none, F_(CLAMP), 0, "dtt", sx_bmsk_clamp), R(b32, none, F_(WRAP), 0, "dtt", sx_bmsk_wrap),
};
static const struct alu_row rows_szext[] = {
	R(u32, none, F_(CLAMP), 0, "dtu", sx_szext_clamp_u32), R(s32, none, F_(CLAMP), 0, "dtu", sx_szext_clamp_s32),
	R(u32, none, F_(WRAP), 0, "dtu", sx_szext_wrap_u32), R(s32, none, F_(WRAP), 0, "dtu", sx_szext_wrap_s32),
};
static const struct alu_row rows_dp4a[] = {
	R(u32, u32, 0, 0, "xuuu", sx_dp4a_uu), R(u32, s32, 0, 0, "xuuu", sx_dp4a_us), R(s32, u32, 0, 0, "xuuu", sx_dp4a_su),
	R(s32, s32, 0, 0, "xuuu", sx_dp4a_ss),
};
static const struct alu_row rows_dp2a[] = {
	R(u32, u32, F_(LO), 0, "xuuu", sx_dp2a_lo_uu), R(u32, s32, F_(LO), 0, "xuuu", sx_dp2a_lo_us),
	R(s32, u32, F_(LO), 0, "xuuu", sx_dp2a_lo_su), R(s32, s32, F_(LO), 0, "xuuu", sx_dp2a_lo_ss),
	R(u32, u32, F_(HI), 0, "xuuu", sx_dp2a_hi_uu), R(u32, s32, F_(HI), 0, "xuuu", sx_dp2a_hi_us),
	R(s32, u32, F_(HI), 0, "xuuu", sx_dp2a_hi_su), R(s32, s32, F_(HI), 0, "xuuu", sx_dp2a_hi_ss),
};
#define LOGIC(op) \
	R(b32, none, 0, 0, "dtt", sx_##op##_32), R(pred, none, 0, 0, "qpp", sx_##op##_pred), \
	R(b64, none, 0, 0, "dtt", sx_##op##_64), R(b16, none, 0, 0, "dtt", sx_##op##_32)
static const struct alu_row rows_and[] = { LOGIC(and) };
static const struct alu_row rows_or[] = { LOGIC(or) };
static const struct alu_row rows_xor[] = { LOGIC(xor) };
static const struct alu_row rows_not[] = {
	R(b32, none, 0, 0, "dt", sx_not_32), R(pred, none, 0, 0, "qp", sx_not_pred), R(b64, none, 0, 0, "dt", sx_not_64),
	R(b16, none, 0, 0, "dt", sx_not_16),
};
static const struct alu_row rows_cnot[] = {
	R(b16, none, 0, 0, "dt", sx_cnot_32), R(b32, none, 0, 0, "dt", sx_cnot_32), R(b64, none, 0, 0, "dt", sx_cnot_64),
};
static const struct alu_row rows_shl[] = {
	R(b32, none, 0, 0, "dtu", sx_shl_32), R(b64, none, 0, 0, "dtu", sx_shl_64), R(b16, none, 0, 0, "dtu", sx_shl_16),
};
static const struct alu_row rows_shr[] = {
	R(u32, none, 0, 0, "dtu", sx_shr_u32), R(b32, none, 0, 0, "dtu", sx_shr_u32), R(s32, none, 0, 0, "dtu", sx_shr_s32),
	R(u64, none, 0, 0, "dtu", sx_shr_u64), R(b64, none, 0, 0, "dtu", sx_shr_u64), R(s64, none, 0, 0, "dtu", sx_shr_s64),
	R(u16, none, 0, 0, "dtu", sx_shr_u32), R(b16, none, 0, 0, "dtu", sx_shr_u32), R(s16, none, 0, 0, "dtu", sx_shr_s16),
};
static const struct alu_row rows_shf[] = {
	R(b32, none, F_(L) | F_(WRAP), 0, "dttu", sx_shf_l_wrap), R(b32, none, F_(L) | F_(CLAMP), 0, "dttu", sx_shf_l_clamp),
	R(b32, none, F_(R) | F_(WRAP), 0, "dttu", sx_shf_r_wrap), R(b32, none, F_(R) | F_(CLAMP), 0, "dttu", sx_shf_r_clamp),
};
#define SELP(type, bits) R(type, none, 0, 0, "dttp", sx_selp_##bits)
static const struct alu_row rows_selp[] = {
	SELP(b32, 32), SELP(u32, 32), SELP(s32, 32), SELP(f32, 32), SELP(b64, 64), SELP(u64, 64), SELP(s64, 64), SELP(f64, 64),
	SELP(b16, 32), SELP(u16, 32), SELP(s16, 32),
};
#define SLCT(type, bits) \
	R(type, s32, 0, 0, "dtts", sx_slct_##bits##_s32), R(type, f32, 0, 0, "dtts", sx_slct_##bits##_f32), \
	R(type, f32, FTZ, 0, "dtts", sx_slct_##bits##_f32_ftz)
static const struct alu_row rows_slct[] = {
	SLCT(b16, 32), SLCT(u16, 32), SLCT(s16, 32), SLCT(b32, 32), SLCT(u32, 32), SLCT(s32, 32), SLCT(f32, 32),
	SLCT(b64, 64), SLCT(u64, 64), SLCT(s64, 64), SLCT(f64, 64),
};
static const struct alu_row rows_copysign[] = {
	R(f32, none, 0, 0, "dtt", sx_copysign_f32), R(f64, none, 0, 0, "dtt", sx_copysign_f64),
};
static const struct alu_row rows_rcp[] = {
	R(f32, none, F_(APPROX), 0, "dt", sx_rcp_f32), R(f32, none, F_(APPROX) | FTZ, 0, "dt", sx_rcp_f32_ftz),
	R(f32, none, F_(RN), 0, "dt", sx_rcp_f32), R(f32, none, ANY_ROUND, ROUND | FTZ, "dt", sx_rcp_f32_any),
	R(f64, none, F_(APPROX) | FTZ, 0, "dt", sx_rcp_gross_f64), F64_MUST("dt", rcp),
};
static const struct alu_row rows_sqrt[] = {
	R(f32, none, F_(APPROX), 0, "dt", sx_sqrt_f32), R(f32, none, F_(APPROX) | FTZ, 0, "dt", sx_sqrt_f32_ftz),
	R(f32, none, F_(RN), 0, "dt", sx_sqrt_f32), R(f32, none, ANY_ROUND, ROUND | FTZ, "dt", sx_sqrt_f32_any), F64_MUST("dt", sqrt),
};
static const struct alu_row rows_rsqrt[] = {
	R(f32, none, F_(APPROX), 0, "dt", sx_rsqrt_f32), R(f32, none, F_(APPROX) | FTZ, 0, "dt", sx_rsqrt_f32_ftz),
	R(f64, none, F_(APPROX), 0, "dt", sx_rsqrt_f64), R(f64, none, F_(APPROX) | FTZ, 0, "dt", sx_rsqrt_gross_f64),
};
#define APPROX(op) \
	R(f32, none, F_(APPROX), 0, "dt", sx_##op##_f32), R(f32, none, F_(APPROX) | FTZ, 0, "dt", sx_##op##_f32_ftz)
static const struct alu_row rows_sin[] = { APPROX(sin) };
static const struct alu_row rows_cos[] = { APPROX(cos) };
static const struct alu_row rows_lg2[] = { APPROX(lg2) };
static const struct alu_row rows_ex2[] = {
	APPROX(ex2), HALF_F16(F_(APPROX), 0, "dt", sx_ex2_half), HALF_BF(F_(APPROX) | FTZ, 0, "dt", sx_ex2_half),
};
static const struct alu_row rows_tanh[] = {
	R(f32, none, F_(APPROX), 0, "dt", sx_tanh_f32), HALF_F16(F_(APPROX), 0, "dt", sx_tanh_half),
	HALF_BF(F_(APPROX), 0, "dt", sx_tanh_half),
};

/* Carry chains: may .cc, and the row says the rest. The plain add and sub take none of these forms. */
#define CARRY(t, must, may, shape, fn, aux) \
	RX(u##t, none, must, may, shape, fn, aux), RX(s##t, none, must, may, shape, fn, (aux) | CARRY_SIGNED)
#define CARRY_ALL(must, may, aux) \
	CARRY(32, must, may, "dtt", sx_carry_32, aux), CARRY(64, must, may, "dtt", sx_carry_64, aux)
#define CARRY_MADS(must, may, aux) \
	CARRY(32, F_(LO) | (must), may, "dttt", sx_carry_mad_32, aux), \
	CARRY(32, F_(HI) | (must), may, "dttt", sx_carry_mad_32, (aux) | CARRY_HI), \
	CARRY(64, F_(LO) | (must), may, "dttt", sx_carry_mad_64, aux), \
	CARRY(64, F_(HI) | (must), may, "dttt", sx_carry_mad_64, (aux) | CARRY_HI)
static const struct alu_row rows_add_cc[] = { CARRY_ALL(F_(CC), 0, 0) };
static const struct alu_row rows_addc[] = { CARRY_ALL(0, F_(CC), CARRY_IN) };
static const struct alu_row rows_sub_cc[] = { CARRY_ALL(F_(CC), 0, CARRY_SUB) };
static const struct alu_row rows_subc[] = { CARRY_ALL(0, F_(CC), CARRY_SUB | CARRY_IN) };
static const struct alu_row rows_mad_cc[] = { CARRY_MADS(F_(CC), 0, 0) };
static const struct alu_row rows_madc[] = { CARRY_MADS(0, F_(CC), CARRY_IN) };

/* ---- matching --------------------------------------------------------------------------------------------------------- */

static bool
alu_is_type(const struct ptx_insn *in, const char *mod, unsigned k)
{
	return k < in->type_count && in->types[k] < PTX_TYPE_COUNT && strcmp(mod, ptx_type_names[in->types[k]]) == 0;
}

/* Sorts the modifiers; false on one that arithmetic does not know. */
static bool
alu_parse(const struct ptx_insn *in, struct alu_form *form)
{
	static const char *const flags[] = {
#define X(name, text) text,
		ALU_FLAGS(X)
#undef X
	};
	static const char *const subs[] = { "",
#define X(name, text) text,
		ALU_SUBS(X)
#undef X
	};
	unsigned k;

	memset(form, 0, sizeof(*form));
	for (unsigned m = 0; m < in->mod_count; m++) {
		const char *mod = in->mods[m];
		if (form->type_count < 6 && alu_is_type(in, mod, form->type_count)) {
			form->types[form->type_count] = in->types[form->type_count];
			form->type_count++;
			continue;
		}
		const enum alu_bool boolean = strcmp(mod, "and") == 0 ? BOOL_AND : strcmp(mod, "or") == 0 ? BOOL_OR
		                              : strcmp(mod, "xor") == 0 ? BOOL_XOR : BOOL_NONE;
		if (boolean) {
			if (form->boolean)
				return false;
			form->boolean = boolean;
			continue;
		}
		for (k = 0; k < ALU_FLAG_COUNT && (flags[k][0] != mod[0] || strcmp(flags[k], mod)); k++)
			;
		if (k < ALU_FLAG_COUNT) {
			if (form->flags & 1ull << k)
				return false;
			form->flags |= 1ull << k;
			continue;
		}
		for (k = 1; k < SUB_COUNT && (subs[k][0] != mod[0] || strcmp(subs[k], mod)); k++)
			;
		if (k == SUB_COUNT || form->sub)
			return false;
		form->sub = k;
	}
	return form->type_count == in->type_count;
}

/* The type behind a letter of a shape that is not a predicate. */
static enum ptx_type
alu_shape_type(const struct alu_row *row, char letter)
{
	switch (letter) {
	case 'd': case 't': return row->t0;
	case 'o': case 's': return row->t1;
	case 'D': case 'T':
		return row->t0 == PTX_u16 ? PTX_u32 : row->t0 == PTX_s16 ? PTX_s32 : row->t0 == PTX_u32 ? PTX_u64 : PTX_s64;
	default: return PTX_u32;
	}
}
static bool
alu_is_dst_letter(char letter)
{
	return letter == 'd' || letter == 'D' || letter == 'x' || letter == 'o' || letter == 'q';
}

static bool
alu_operands_fit(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_row *row)
{
	if (in->operand_count != strlen(row->shape))
		return false;
	for (unsigned k = 0; k < in->operand_count; k++) {
		const struct ptx_operand *o = &in->operands[k];
		const char letter = row->shape[k];
		const bool pred = letter == 'p' || letter == 'q';
		const unsigned bits = pred ? 1 : ptx_type_bits[alu_shape_type(row, letter)];
		if (o->second)
			return false;
		if (letter == 'p' && o->kind == PTX_OP_IMM)
			continue;
		if (alu_is_dst_letter(letter) || pred ? !alu_is_reg(d, o, bits) : !alu_is_source(d, o, bits))
			return false;
	}
	return true;
}

/* Emits the first row that fits; NULL if none does. The result is good until the next emission. */
static struct sx_insn *
alu_match(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form, const struct alu_row *rows, unsigned count)
{
	if (form->sub || form->boolean || form->type_count < 1 || form->type_count > 2 ||
	    __builtin_popcountll(form->flags & F_ROUND) > 1)
		return NULL;
	const enum ptx_type t1 = form->type_count > 1 ? form->types[1] : PTX_none;
	const uint64_t have = form->flags | (form->flags & ROUND ? ANY_ROUND : 0);
	for (unsigned k = 0; k < count; k++) {
		const struct alu_row *row = &rows[k];
		if (row->t0 != form->types[0] || row->t1 != t1 || (have & row->must) != row->must ||
		    (form->flags & ~(row->must | row->may)) || !alu_operands_fit(d, in, row))
			continue;
		uint32_t source[4] = { 0 }, n = 0, dst = SX_NO_REG;
		for (unsigned o = 0; o < in->operand_count; o++) {
			const struct ptx_operand *operand = &in->operands[o];
			const char letter = row->shape[o];
			if (alu_is_dst_letter(letter))
				dst = sxd_dst(d, operand);
			else if (letter == 'p' && operand->kind == PTX_OP_IMM)
				source[n++] = sxd_const_pred(d, (operand->imm != 0) != (operand->negate != 0));
			else
				source[n++] = sxd_src(d, operand, letter == 'p' ? PTX_pred : alu_shape_type(row, letter));
		}
		struct sx_insn *i = sxd_emit(d, row->fn);
		i->d = dst;
		i->a = source[0];
		i->b = source[1];
		i->c = source[2];
		i->f = source[3];
		i->aux = row->aux | alu_aux(form->flags);
		return i;
	}
	return NULL;
}

#define ROWS(rows) rows, sizeof(rows) / sizeof((rows)[0])

/* Carry forms add the condition code register to what a row emits. */
static bool
alu_decode_carry(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	static const struct {
		const char *op;
		const struct alu_row *rows;
		unsigned count;
	} all[] = {
		{ "add", ROWS(rows_add_cc) }, { "addc", ROWS(rows_addc) }, { "sub", ROWS(rows_sub_cc) },
		{ "subc", ROWS(rows_subc) }, { "mad", ROWS(rows_mad_cc) }, { "madc", ROWS(rows_madc) },
	};
	for (unsigned k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
		struct sx_insn *i = sxd_is(in, all[k].op) ? alu_match(d, in, form, all[k].rows, all[k].count) : NULL;
		if (i)
			i->e = sxd_cc(d);
		if (i)
			return true;
	}
	return false;
}

static bool
alu_decode_cvt(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	if (form->flags & F_(PACK))
		return alu_decode_cvt_pack(d, in, form);
	return alu_decode_cvt_scalar(d, in, form) || alu_match(d, in, form, ROWS(alu_cvt_pair_rows));
}

/* Sorted by name. */
static const struct alu_op alu_ops[] = {
	{ "abs", ROWS(rows_abs), NULL },
	{ "add", ROWS(rows_add), alu_decode_carry },
	{ "addc", NULL, 0, alu_decode_carry },
	{ "and", ROWS(rows_and), NULL },
	{ "bfe", ROWS(rows_bfe), NULL },
	{ "bfi", ROWS(rows_bfi), NULL },
	{ "bfind", ROWS(rows_bfind), NULL },
	{ "bmsk", ROWS(rows_bmsk), NULL },
	{ "brev", ROWS(rows_brev), NULL },
	{ "clz", ROWS(rows_clz), NULL },
	{ "cnot", ROWS(rows_cnot), NULL },
	{ "copysign", ROWS(rows_copysign), NULL },
	{ "cos", ROWS(rows_cos), NULL },
	{ "cvt", NULL, 0, alu_decode_cvt },
	{ "div", ROWS(rows_div), NULL },
	{ "dp2a", ROWS(rows_dp2a), NULL },
	{ "dp4a", ROWS(rows_dp4a), NULL },
	{ "ex2", ROWS(rows_ex2), NULL },
	{ "fma", ROWS(rows_fma), NULL },
	{ "fns", ROWS(rows_fns), NULL },
	{ "lg2", ROWS(rows_lg2), NULL },
	{ "lop3", NULL, 0, alu_decode_lop3 },
	{ "mad", ROWS(rows_mad), alu_decode_carry },
	{ "mad24", ROWS(rows_mad24), NULL },
	{ "madc", NULL, 0, alu_decode_carry },
	{ "max", ROWS(rows_max), NULL },
	{ "min", ROWS(rows_min), NULL },
	{ "mov", NULL, 0, alu_decode_mov },
	{ "mul", ROWS(rows_mul), NULL },
	{ "mul24", ROWS(rows_mul24), NULL },
	{ "neg", ROWS(rows_neg), NULL },
	{ "not", ROWS(rows_not), NULL },
	{ "or", ROWS(rows_or), NULL },
	{ "popc", ROWS(rows_popc), NULL },
	{ "prmt", NULL, 0, alu_decode_prmt },
	{ "rcp", ROWS(rows_rcp), NULL },
	{ "rem", ROWS(rows_rem), NULL },
	{ "rsqrt", ROWS(rows_rsqrt), NULL },
	{ "sad", ROWS(rows_sad), NULL },
	{ "selp", ROWS(rows_selp), NULL },
	{ "set", NULL, 0, alu_decode_set },
	{ "setp", NULL, 0, alu_decode_setp },
	{ "shf", ROWS(rows_shf), NULL },
	{ "shl", ROWS(rows_shl), NULL },
	{ "shr", ROWS(rows_shr), NULL },
	{ "sin", ROWS(rows_sin), NULL },
	{ "slct", ROWS(rows_slct), NULL },
	{ "sqrt", ROWS(rows_sqrt), NULL },
	{ "sub", ROWS(rows_sub), alu_decode_carry },
	{ "subc", NULL, 0, alu_decode_carry },
	{ "szext", ROWS(rows_szext), NULL },
	{ "tanh", ROWS(rows_tanh), NULL },
	{ "testp", NULL, 0, alu_decode_testp },
	{ "xor", ROWS(rows_xor), NULL },
};

bool sx_decode_alu(struct sx_decoder *d, const struct ptx_insn *in);

/* mov.v2 and mov.v4 between vector registers and lists, as GCC writes them: element by element. */
static bool
alu_decode_mov_vector(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct ptx_operand *to = &in->operands[0], *from = &in->operands[1];
	const char *mods[PTX_MAX_MODS];
	struct ptx_insn one = *in;

	if (in->operand_count != 2 || to->kind != PTX_OP_VECTOR || from->kind != PTX_OP_VECTOR || to->count != from->count)
		return false;
	one.mods = mods;
	one.mod_count = 0;
	for (unsigned m = 0; m < in->mod_count; m++)
		if (strcmp(in->mods[m], "v2") != 0 && strcmp(in->mods[m], "v4") != 0)
			mods[one.mod_count++] = in->mods[m];
	for (uint32_t n = 0; n < to->count; n++)
		for (uint32_t k = n + 1; k < to->count; k++)
			if (from->elems[k].kind == PTX_OP_REG && to->elems[n].kind == PTX_OP_REG && from->elems[k].reg == to->elems[n].reg)
				return false; /* a later element would read what an earlier one wrote */
	for (uint32_t n = 0; n < to->count; n++) {
		struct ptx_operand pair[2] = { to->elems[n], from->elems[n] };
		one.operands = pair;
		if (to->elems[n].kind != PTX_OP_SINK && !sx_decode_alu(d, &one))
			return false;
	}
	return true;
}

bool
sx_decode_alu(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (strcmp(in->op, "mov") == 0 && (ptx_has(in, "v2") || ptx_has(in, "v4")))
		return alu_decode_mov_vector(d, in);
	unsigned low = 0, high = sizeof(alu_ops) / sizeof(alu_ops[0]);
	struct alu_form form;

	for (unsigned k = 0; k < in->operand_count; k++) /* d|p: only the destination of setp and lop3 */
		if (in->operands[k].second && (k || (strcmp(in->op, "setp") != 0 && strcmp(in->op, "lop3") != 0)))
			return false;

	while (low < high) {
		const unsigned middle = (low + high) / 2;
		const int order = strcmp(in->op, alu_ops[middle].name);
		if (order == 0) {
			const struct alu_op *op = &alu_ops[middle];
			return alu_parse(in, &form) && (alu_match(d, in, &form, op->rows, op->row_count) ||
			                                (op->decode && op->decode(d, in, &form)));
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}
