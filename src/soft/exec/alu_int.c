/*
 * Integer arithmetic, logic and shifts. Not here: compare and select (alu_cmp.c), conversion (alu_cvt.c), permute and mov
 * (alu_mov.c), video instructions (video.c).
 *
 * 16-bit values stand zero-extended in 32-bit slots; a signed one is read through alu_s16().
 * Where the ISA leaves a result open (division by zero) the value is what hardware gives, and nothing traps.
 */
#include "soft/exec/alu.h"

/* Shifts rather than narrow types: these stay in 32-bit vectors. */
static inline int32_t
alu_s16(uint32_t x)
{
	return (int32_t)(x << 16) >> 16;
}

/* ---- add, sub, mul, mad -------------------------------------------------------------------------------------------- */

ALU_2(sx_add_16, uint32_t, uint32_t, uint32_t, 0xffff & (x + y))
ALU_2(sx_add_32, uint32_t, uint32_t, uint32_t, x + y)
ALU_2(sx_add_64, uint64_t, uint64_t, uint64_t, x + y)
ALU_2(sx_add_16x2, uint32_t, uint32_t, uint32_t, ((x & 0x7fff7fff) + (y & 0x7fff7fff)) ^ ((x ^ y) & 0x80008000))
ALU_2(sx_sub_16, uint32_t, uint32_t, uint32_t, 0xffff & (x - y))
ALU_2(sx_sub_32, uint32_t, uint32_t, uint32_t, x - y)
ALU_2(sx_sub_64, uint64_t, uint64_t, uint64_t, x - y)
ALU_2(sx_mul_lo_16, uint32_t, uint32_t, uint32_t, 0xffff & (x * y))
ALU_2(sx_mul_lo_32, uint32_t, uint32_t, uint32_t, x * y)
ALU_2(sx_mul_lo_64, uint64_t, uint64_t, uint64_t, x * y)
ALU_2(sx_mul_hi_u16, uint32_t, uint32_t, uint32_t, x * y >> 16)
ALU_2(sx_mul_hi_s16, uint32_t, uint32_t, uint32_t, 0xffff & (alu_s16(x) * alu_s16(y) >> 16))
ALU_2(sx_mul_hi_u32, uint32_t, uint32_t, uint32_t, (uint64_t)x * y >> 32)
ALU_2(sx_mul_hi_s32, uint32_t, int32_t, int32_t, (uint64_t)((int64_t)x * y) >> 32)
ALU_2(sx_mul_hi_u64, uint64_t, uint64_t, uint64_t, (unsigned __int128)x * y >> 64)
ALU_2(sx_mul_hi_s64, uint64_t, int64_t, int64_t, (unsigned __int128)((__int128)x * y) >> 64)
ALU_2(sx_mul_wide_u16, uint32_t, uint32_t, uint32_t, x * y)
ALU_2(sx_mul_wide_s16, uint32_t, uint32_t, uint32_t, alu_s16(x) * alu_s16(y))
ALU_2(sx_mul_wide_u32, uint64_t, uint32_t, uint32_t, (uint64_t)x * y)
ALU_2(sx_mul_wide_s32, uint64_t, int32_t, int32_t, (int64_t)x * y)
ALU_3(sx_mad_lo_16, uint32_t, uint32_t, uint32_t, uint32_t, 0xffff & (x * y + z))
ALU_3(sx_mad_lo_32, uint32_t, uint32_t, uint32_t, uint32_t, x * y + z)
ALU_3(sx_mad_lo_64, uint64_t, uint64_t, uint64_t, uint64_t, x * y + z)
ALU_3(sx_mad_hi_u16, uint32_t, uint32_t, uint32_t, uint32_t, 0xffff & ((x * y >> 16) + z))
ALU_3(sx_mad_hi_s16, uint32_t, uint32_t, uint32_t, uint32_t, 0xffff & (((uint32_t)(alu_s16(x) * alu_s16(y)) >> 16) + z))
ALU_3(sx_mad_hi_u32, uint32_t, uint32_t, uint32_t, uint32_t, (uint32_t)((uint64_t)x * y >> 32) + z)
ALU_3(sx_mad_hi_s32, uint32_t, int32_t, int32_t, uint32_t, (uint32_t)((uint64_t)((int64_t)x * y) >> 32) + z)
ALU_3(sx_mad_hi_u64, uint64_t, uint64_t, uint64_t, uint64_t, (uint64_t)((unsigned __int128)x * y >> 64) + z)
ALU_3(sx_mad_hi_s64, uint64_t, int64_t, int64_t, uint64_t, (uint64_t)((unsigned __int128)((__int128)x * y) >> 64) + z)
ALU_3(sx_mad_wide_u16, uint32_t, uint32_t, uint32_t, uint32_t, x * y + z)
ALU_3(sx_mad_wide_s16, uint32_t, uint32_t, uint32_t, uint32_t, (uint32_t)(alu_s16(x) * alu_s16(y)) + z)
ALU_3(sx_mad_wide_u32, uint64_t, uint32_t, uint32_t, uint64_t, (uint64_t)x * y + z)
ALU_3(sx_mad_wide_s32, uint64_t, int32_t, int32_t, uint64_t, (uint64_t)((int64_t)x * y) + z)

static inline uint32_t
alu_clamp_s32(int64_t x)
{
	return (uint32_t)(int32_t)(x < INT32_MIN ? INT32_MIN : x > INT32_MAX ? INT32_MAX : x);
}
ALU_2(sx_add_sat_s32, uint32_t, int32_t, int32_t, alu_clamp_s32((int64_t)x + y))
ALU_2(sx_sub_sat_s32, uint32_t, int32_t, int32_t, alu_clamp_s32((int64_t)x - y))
ALU_3(sx_mad_hi_sat_s32, uint32_t, int32_t, int32_t, int32_t, alu_clamp_s32(((int64_t)x * y >> 32) + z))

/* 24-bit operands are the low bits of the registers. */
static inline int64_t
alu_mul24_s(uint32_t x, uint32_t y)
{
	return (int64_t)((int32_t)(x << 8) >> 8) * ((int32_t)(y << 8) >> 8);
}
static inline uint64_t
alu_mul24_u(uint32_t x, uint32_t y)
{
	return (uint64_t)(x & 0xffffff) * (y & 0xffffff);
}
ALU_2(sx_mul24_lo_u32, uint32_t, uint32_t, uint32_t, alu_mul24_u(x, y))
ALU_2(sx_mul24_hi_u32, uint32_t, uint32_t, uint32_t, alu_mul24_u(x, y) >> 16)
ALU_2(sx_mul24_lo_s32, uint32_t, uint32_t, uint32_t, alu_mul24_s(x, y))
ALU_2(sx_mul24_hi_s32, uint32_t, uint32_t, uint32_t, alu_mul24_s(x, y) >> 16)
ALU_3(sx_mad24_lo_u32, uint32_t, uint32_t, uint32_t, uint32_t, (uint32_t)alu_mul24_u(x, y) + z)
ALU_3(sx_mad24_hi_u32, uint32_t, uint32_t, uint32_t, uint32_t, (uint32_t)(alu_mul24_u(x, y) >> 16) + z)
ALU_3(sx_mad24_lo_s32, uint32_t, uint32_t, uint32_t, uint32_t, (uint32_t)alu_mul24_s(x, y) + z)
ALU_3(sx_mad24_hi_s32, uint32_t, uint32_t, uint32_t, uint32_t, (uint32_t)(alu_mul24_s(x, y) >> 16) + z)
ALU_3(sx_mad24_hi_sat_s32, uint32_t, uint32_t, uint32_t, int32_t, alu_clamp_s32((alu_mul24_s(x, y) >> 16) + z))

ALU_3(sx_sad_u16, uint32_t, uint32_t, uint32_t, uint32_t, 0xffff & (z + (x < y ? y - x : x - y)))
ALU_3(sx_sad_s16, uint32_t, uint32_t, uint32_t, uint32_t,
      0xffff & (z + (uint32_t)(alu_s16(x) < alu_s16(y) ? alu_s16(y) - alu_s16(x) : alu_s16(x) - alu_s16(y))))
ALU_3(sx_sad_u32, uint32_t, uint32_t, uint32_t, uint32_t, z + (x < y ? y - x : x - y))
ALU_3(sx_sad_s32, uint32_t, uint32_t, uint32_t, uint32_t, z + ((int32_t)x < (int32_t)y ? y - x : x - y))
ALU_3(sx_sad_u64, uint64_t, uint64_t, uint64_t, uint64_t, z + (x < y ? y - x : x - y))
ALU_3(sx_sad_s64, uint64_t, uint64_t, uint64_t, uint64_t, z + ((int64_t)x < (int64_t)y ? y - x : x - y))

/* ---- div, rem ------------------------------------------------------------------------------------------------------ */

/* 32-bit quotients through double: the rounded quotient of two 32-bit integers never crosses the next integer. */
static inline uint32_t
alu_div_u32(uint32_t x, uint32_t y)
{
	const double q = (double)x / (y ? (double)y : 1.0);
	return y ? (uint32_t)(int64_t)q : 0xffffffffu;
}
static inline uint32_t
alu_div_s32(int32_t x, int32_t y)
{
	const double q = (double)x / (y ? (double)y : 1.0);
	return y ? (uint32_t)(int64_t)q : 0xffffffffu;
}
static inline uint64_t
alu_div_u64(uint64_t x, uint64_t y)
{
	return !y ? UINT64_MAX : (x | y) >> 32 ? x / y : (uint32_t)x / (uint32_t)y;
}
/* Integers below 2^52 as doubles and back, by the bits. Their quotients are exact when cut, like the 32-bit ones above. */
static inline double
alu_double52(uint64_t x)
{
	return alu_double(x | 0x4330000000000000) - 0x1p52;
}
static inline uint64_t
alu_quotient52(uint64_t x, uint64_t y)
{
	const double q = __builtin_floor(alu_double52(x) / alu_double52(y ? y : 1));
	return alu_bits64(q + 0x1p52) & 0xfffffffffffff;
}
static inline uint64_t
alu_abs64(uint64_t x)
{
	return (int64_t)x < 0 ? 0 - x : x;
}
/* Quotients (or with `rem` remainders) of 64-bit values: vectors while every magnitude is below 2^52. */
static inline void
alu_divide_64(const struct sx_warp *w, const struct sx_insn *i, bool is_signed, bool rem)
{
	const uint64_t *a = ALU_SRC(uint64_t, i->a), *b = ALU_SRC(uint64_t, i->b);
	uint64_t q[SX_LANES] __attribute__((aligned(64))), large = 0;

	ALU_LANES large |= is_signed ? alu_abs64(a[l]) | alu_abs64(b[l]) : a[l] | b[l];
	if (large >> 52 == 0)
		ALU_LANES q[l] = alu_quotient52(is_signed ? alu_abs64(a[l]) : a[l], is_signed ? alu_abs64(b[l]) : b[l]);
	else
		for (unsigned l = 0; l < SX_LANES; l++)
			q[l] = alu_div_u64(is_signed ? alu_abs64(a[l]) : a[l], is_signed ? alu_abs64(b[l]) : b[l]);
	if (is_signed)
		ALU_LANES q[l] = (int64_t)(a[l] ^ b[l]) < 0 ? 0 - q[l] : q[l];
	ALU_LANES q[l] = b[l] ? q[l] : UINT64_MAX;
	if (rem)
		ALU_LANES q[l] = a[l] - q[l] * b[l];
	sx_put64(w, i->d, q);
}
#define ALU_DIVIDE(name, is_signed, rem) \
	ALU_HANDLER(name) \
	{ \
		alu_divide_64(w, i, is_signed, rem); \
		return i + 1; \
	}
ALU_DIVIDE(sx_div_u64, false, false)
ALU_DIVIDE(sx_div_s64, true, false)
ALU_DIVIDE(sx_rem_u64, false, true)
ALU_DIVIDE(sx_rem_s64, true, true)
ALU_2(sx_div_u16, uint32_t, uint32_t, uint32_t, 0xffff & alu_div_u32(x, y))
ALU_2(sx_div_s16, uint32_t, uint32_t, uint32_t, 0xffff & alu_div_s32(alu_s16(x), alu_s16(y)))
ALU_2(sx_div_u32, uint32_t, uint32_t, uint32_t, alu_div_u32(x, y))
ALU_2(sx_div_s32, uint32_t, int32_t, int32_t, alu_div_s32(x, y))
ALU_2(sx_rem_u16, uint32_t, uint32_t, uint32_t, 0xffff & (x - alu_div_u32(x, y) * y))
ALU_2(sx_rem_s16, uint32_t, uint32_t, uint32_t, 0xffff & (x - alu_div_s32(alu_s16(x), alu_s16(y)) * y))
ALU_2(sx_rem_u32, uint32_t, uint32_t, uint32_t, x - alu_div_u32(x, y) * y)
ALU_2(sx_rem_s32, uint32_t, int32_t, int32_t, (uint32_t)x - alu_div_s32(x, y) * (uint32_t)y)

/* ---- min, max, neg, abs -------------------------------------------------------------------------------------------- */

static inline int32_t
alu_relu_s32(int32_t x)
{
	return x < 0 ? 0 : x;
}
static inline uint32_t
alu_pick_u16x2(uint32_t x, uint32_t y, bool greater)
{
	const uint32_t xl = x & 0xffff, yl = y & 0xffff, xh = x >> 16, yh = y >> 16;
	return ((xl < yl) == greater ? yl : xl) | ((xh < yh) == greater ? yh : xh) << 16;
}
static inline uint32_t
alu_pick_s16x2(uint32_t x, uint32_t y, bool greater, bool relu)
{
	int32_t xl = alu_s16(x), yl = alu_s16(y), xh = (int32_t)x >> 16, yh = (int32_t)y >> 16;
	xl = (xl < yl) == greater ? yl : xl;
	xh = (xh < yh) == greater ? yh : xh;
	if (relu) {
		xl = alu_relu_s32(xl);
		xh = alu_relu_s32(xh);
	}
	return (xl & 0xffff) | (uint32_t)xh << 16;
}
#define ALU_MIN(x, y) ((x) < (y) ? (x) : (y))
#define ALU_MAX(x, y) ((x) > (y) ? (x) : (y))
ALU_2(sx_min_u32, uint32_t, uint32_t, uint32_t, ALU_MIN(x, y)) /* also u16: both are zero-extended */
ALU_2(sx_max_u32, uint32_t, uint32_t, uint32_t, ALU_MAX(x, y))
ALU_2(sx_min_s16, uint32_t, uint32_t, uint32_t, alu_s16(x) < alu_s16(y) ? x : y)
ALU_2(sx_max_s16, uint32_t, uint32_t, uint32_t, alu_s16(x) > alu_s16(y) ? x : y)
ALU_2(sx_min_s32, int32_t, int32_t, int32_t, ALU_MIN(x, y))
ALU_2(sx_max_s32, int32_t, int32_t, int32_t, ALU_MAX(x, y))
ALU_2(sx_min_relu_s32, int32_t, int32_t, int32_t, alu_relu_s32(ALU_MIN(x, y)))
ALU_2(sx_max_relu_s32, int32_t, int32_t, int32_t, alu_relu_s32(ALU_MAX(x, y)))
ALU_2(sx_min_u64, uint64_t, uint64_t, uint64_t, ALU_MIN(x, y))
ALU_2(sx_max_u64, uint64_t, uint64_t, uint64_t, ALU_MAX(x, y))
ALU_2(sx_min_s64, int64_t, int64_t, int64_t, ALU_MIN(x, y))
ALU_2(sx_max_s64, int64_t, int64_t, int64_t, ALU_MAX(x, y))
ALU_2(sx_min_u16x2, uint32_t, uint32_t, uint32_t, alu_pick_u16x2(x, y, false))
ALU_2(sx_max_u16x2, uint32_t, uint32_t, uint32_t, alu_pick_u16x2(x, y, true))
ALU_2(sx_min_s16x2, uint32_t, uint32_t, uint32_t, alu_pick_s16x2(x, y, false, false))
ALU_2(sx_max_s16x2, uint32_t, uint32_t, uint32_t, alu_pick_s16x2(x, y, true, false))
ALU_2(sx_min_relu_s16x2, uint32_t, uint32_t, uint32_t, alu_pick_s16x2(x, y, false, true))
ALU_2(sx_max_relu_s16x2, uint32_t, uint32_t, uint32_t, alu_pick_s16x2(x, y, true, true))
ALU_1(sx_neg_16, uint32_t, uint32_t, 0xffff & (0 - x))
ALU_1(sx_neg_32, uint32_t, uint32_t, 0 - x)
ALU_1(sx_neg_64, uint64_t, uint64_t, 0 - x)
ALU_1(sx_abs_16, uint32_t, uint32_t, 0xffff & (alu_s16(x) < 0 ? 0 - x : x))
ALU_1(sx_abs_32, uint32_t, uint32_t, (int32_t)x < 0 ? 0 - x : x)
ALU_1(sx_abs_64, uint64_t, uint64_t, (int64_t)x < 0 ? 0 - x : x)

/* ---- bits ---------------------------------------------------------------------------------------------------------- */

ALU_2(sx_and_32, uint32_t, uint32_t, uint32_t, x & y)
ALU_2(sx_and_64, uint64_t, uint64_t, uint64_t, x & y)
ALU_2(sx_or_32, uint32_t, uint32_t, uint32_t, x | y)
ALU_2(sx_or_64, uint64_t, uint64_t, uint64_t, x | y)
ALU_2(sx_xor_32, uint32_t, uint32_t, uint32_t, x ^ y)
ALU_2(sx_xor_64, uint64_t, uint64_t, uint64_t, x ^ y)
ALU_1(sx_not_16, uint32_t, uint32_t, 0xffff & ~x)
ALU_1(sx_not_32, uint32_t, uint32_t, ~x)
ALU_1(sx_not_64, uint64_t, uint64_t, ~x)
ALU_1(sx_cnot_32, uint32_t, uint32_t, x == 0)
ALU_1(sx_cnot_64, uint64_t, uint64_t, x == 0)

ALU_HANDLER(sx_and_pred)
{
	sx_put_pred(w, i->d, SX_SP(w, i->a) & SX_SP(w, i->b));
	return i + 1;
}
ALU_HANDLER(sx_or_pred)
{
	sx_put_pred(w, i->d, SX_SP(w, i->a) | SX_SP(w, i->b));
	return i + 1;
}
ALU_HANDLER(sx_xor_pred)
{
	sx_put_pred(w, i->d, SX_SP(w, i->a) ^ SX_SP(w, i->b));
	return i + 1;
}
ALU_HANDLER(sx_not_pred)
{
	sx_put_pred(w, i->d, ~SX_SP(w, i->a));
	return i + 1;
}

/* Shift counts beyond the width clamp to it. */
ALU_2(sx_shl_16, uint32_t, uint32_t, uint32_t, y < 16 ? 0xffff & (x << (y & 15)) : 0)
ALU_2(sx_shl_32, uint32_t, uint32_t, uint32_t, y < 32 ? x << (y & 31) : 0)
ALU_2(sx_shl_64, uint64_t, uint64_t, uint32_t, y < 64 ? x << (y & 63) : 0)
ALU_2(sx_shr_u32, uint32_t, uint32_t, uint32_t, y < 32 ? x >> (y & 31) : 0) /* also 16 bits */
ALU_2(sx_shr_u64, uint64_t, uint64_t, uint32_t, y < 64 ? x >> (y & 63) : 0)
ALU_2(sx_shr_s16, uint32_t, uint32_t, uint32_t, 0xffff & (alu_s16(x) >> (y < 15 ? y : 15)))
ALU_2(sx_shr_s32, int32_t, int32_t, uint32_t, x >> (y < 31 ? y : 31))
ALU_2(sx_shr_s64, int64_t, int64_t, uint32_t, x >> (y < 63 ? y : 63))

static inline uint32_t
alu_shf_l(uint32_t lo, uint32_t hi, uint32_t n) /* n <= 32 */
{
	return (uint32_t)((((uint64_t)hi << 32 | lo) << n) >> 32);
}
static inline uint32_t
alu_shf_r(uint32_t lo, uint32_t hi, uint32_t n)
{
	return (uint32_t)(((uint64_t)hi << 32 | lo) >> n);
}
ALU_3(sx_shf_l_clamp, uint32_t, uint32_t, uint32_t, uint32_t, alu_shf_l(x, y, z < 32 ? z : 32))
ALU_3(sx_shf_r_clamp, uint32_t, uint32_t, uint32_t, uint32_t, alu_shf_r(x, y, z < 32 ? z : 32))
ALU_3(sx_shf_l_wrap, uint32_t, uint32_t, uint32_t, uint32_t, alu_shf_l(x, y, z & 31))
ALU_3(sx_shf_r_wrap, uint32_t, uint32_t, uint32_t, uint32_t, alu_shf_r(x, y, z & 31))

static inline uint32_t
alu_rev32(uint32_t x)
{
	x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
	x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
	x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
	return __builtin_bswap32(x);
}
static inline uint64_t
alu_rev64(uint64_t x)
{
	return (uint64_t)alu_rev32((uint32_t)x) << 32 | alu_rev32((uint32_t)(x >> 32));
}
/* Position of the highest bit that differs from the sign (from 0 for unsigned), or -1; .shiftamt: what shifts it to the top. */
static inline uint32_t
alu_bfind32(uint32_t x, bool amount)
{
	const uint32_t top = x ? 31 - (uint32_t)__builtin_clz(x) : 0xffffffff;
	return amount && x ? 31 - top : top;
}
static inline uint32_t
alu_bfind64(uint64_t x, bool amount)
{
	const uint32_t top = x ? 63 - (uint32_t)__builtin_clzll(x) : 0xffffffff;
	return amount && x ? 63 - top : top;
}
ALU_1(sx_popc_32, uint32_t, uint32_t, __builtin_popcount(x))
ALU_1(sx_popc_64, uint32_t, uint64_t, __builtin_popcountll(x))
ALU_1(sx_clz_32, uint32_t, uint32_t, x ? __builtin_clz(x) : 32)
ALU_1(sx_clz_64, uint32_t, uint64_t, x ? __builtin_clzll(x) : 64)
ALU_1(sx_brev_32, uint32_t, uint32_t, alu_rev32(x))
ALU_1(sx_brev_64, uint64_t, uint64_t, alu_rev64(x))
ALU_1(sx_bfind_u32, uint32_t, uint32_t, alu_bfind32(x, false))
ALU_1(sx_bfind_s32, uint32_t, int32_t, alu_bfind32((uint32_t)(x ^ x >> 31), false))
ALU_1(sx_bfind_u64, uint32_t, uint64_t, alu_bfind64(x, false))
ALU_1(sx_bfind_s64, uint32_t, int64_t, alu_bfind64((uint64_t)(x ^ x >> 63), false))
ALU_1(sx_bfind_amt_u32, uint32_t, uint32_t, alu_bfind32(x, true))
ALU_1(sx_bfind_amt_s32, uint32_t, int32_t, alu_bfind32((uint32_t)(x ^ x >> 31), true))
ALU_1(sx_bfind_amt_u64, uint32_t, uint64_t, alu_bfind64(x, true))
ALU_1(sx_bfind_amt_s64, uint32_t, int64_t, alu_bfind64((uint64_t)(x ^ x >> 63), true))

/* The position of the n-th set bit from `base`, up or down; base itself when n is 0. */
static inline uint32_t
alu_fns(uint32_t mask, uint32_t base, int32_t offset)
{
	if (base > 31)
		return 0xffffffff;
	if (offset == 0)
		return mask >> base & 1 ? base : 0xffffffff;
	int64_t count = offset > 0 ? (int64_t)offset - 1 : -(int64_t)offset - 1;
	for (int at = (int)base; at >= 0 && at < 32; at += offset > 0 ? 1 : -1)
		if (mask >> at & 1 && count-- == 0)
			return (uint32_t)at;
	return 0xffffffff;
}
ALU_3(sx_fns, uint32_t, uint32_t, uint32_t, int32_t, alu_fns(x, y, z))

/* Position and length are the low bytes of their registers; what lies beyond the top bit reads as 0 or the sign. */
#define ALU_BFE(bits, U, S) \
	static inline U \
	alu_bfe_u##bits(U x, uint32_t pos, uint32_t len) \
	{ \
		const U at = pos & 0xff, n = len & 0xff, t = at < bits ? x >> (at & (bits - 1)) : 0; \
		return n < bits ? t & (((U)1 << (n & (bits - 1))) - 1) : t; \
	} \
	static inline U \
	alu_bfe_s##bits(S x, uint32_t pos, uint32_t len) \
	{ \
		const U at = pos & 0xff, n = len & 0xff, cut = n < bits ? bits - n : 0; \
		const U t = (U)(x >> (at < bits ? at : bits - 1)) << (cut & (bits - 1)); \
		return n ? (U)((S)t >> (cut & (bits - 1))) : 0; \
	}
ALU_BFE(32, uint32_t, int32_t)
ALU_BFE(64, uint64_t, int64_t)
static inline uint64_t
alu_low_bits(uint64_t n)
{
	return n < 64 ? (1ull << (n & 63)) - 1 : UINT64_MAX;
}
static inline uint32_t
alu_bfi32(uint32_t x, uint32_t into, uint32_t pos, uint32_t len)
{
	const uint32_t at = pos & 0xff, n = len & 0xff, ones = n < 32 ? (1u << (n & 31)) - 1 : 0xffffffff;
	const uint32_t mask = at < 32 ? ones << (at & 31) : 0;
	return (into & ~mask) | (x << (at & 31) & mask);
}
static inline uint64_t
alu_bfi64(uint64_t x, uint64_t into, uint32_t pos, uint32_t len)
{
	const uint64_t at = pos & 0xff, mask = at < 64 ? alu_low_bits(len & 0xff) << (at & 63) : 0;
	return (into & ~mask) | (x << (at & 63) & mask);
}
ALU_3(sx_bfe_u32, uint32_t, uint32_t, uint32_t, uint32_t, alu_bfe_u32(x, y, z))
ALU_3(sx_bfe_s32, uint32_t, int32_t, uint32_t, uint32_t, alu_bfe_s32(x, y, z))
ALU_3(sx_bfe_u64, uint64_t, uint64_t, uint32_t, uint32_t, alu_bfe_u64(x, y, z))
ALU_3(sx_bfe_s64, uint64_t, int64_t, uint32_t, uint32_t, alu_bfe_s64(x, y, z))
ALU_4(sx_bfi_32, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, alu_bfi32(x, y, z, v))
ALU_4(sx_bfi_64, uint64_t, uint64_t, uint64_t, uint32_t, uint32_t, alu_bfi64(x, y, z, v))

static inline uint32_t
alu_bmsk(uint32_t pos, uint32_t width, bool clamp)
{
	const uint32_t end = (pos & 31) + (width & 31);
	const uint32_t from = clamp && pos > 31 ? 0 : 0xffffffffu << (pos & 31);
	const uint32_t beyond = end > 31 || (clamp && (pos > 31 || width > 31)) ? 0 : 0xffffffffu << (end & 31);
	return from & ~beyond;
}
ALU_2(sx_bmsk_clamp, uint32_t, uint32_t, uint32_t, alu_bmsk(x, y, true))
ALU_2(sx_bmsk_wrap, uint32_t, uint32_t, uint32_t, alu_bmsk(x, y, false))

static inline uint32_t
alu_szext(uint32_t x, uint32_t n, bool clamp, bool is_signed)
{
	if (clamp && n > 31)
		return x;
	n &= 31;
	const uint32_t high = 0xffffffffu << n;
	return is_signed && n && (x >> ((n - 1) & 31) & 1) ? x | high : x & ~high;
}
ALU_2(sx_szext_clamp_u32, uint32_t, uint32_t, uint32_t, alu_szext(x, y, true, false))
ALU_2(sx_szext_clamp_s32, uint32_t, uint32_t, uint32_t, alu_szext(x, y, true, true))
ALU_2(sx_szext_wrap_u32, uint32_t, uint32_t, uint32_t, alu_szext(x, y, false, false))
ALU_2(sx_szext_wrap_s32, uint32_t, uint32_t, uint32_t, alu_szext(x, y, false, true))

/* ---- dot products ----------------------------------------------------------------------------------------------------- */

/* Byte k and half k of a register, signed or not. */
#define ALU_U8(x, k) ((int32_t)((x) >> 8 * (k) & 0xff))
#define ALU_S8(x, k) ((int32_t)((x) << (24 - 8 * (k))) >> 24)
#define ALU_U16(x, k) ((int32_t)((x) >> 16 * (k) & 0xffff))
#define ALU_S16(x, k) ((int32_t)((x) << (16 - 16 * (k))) >> 16)
#define ALU_DP4A(A, B) \
	z + (uint32_t)(A(x, 0) * B(y, 0)) + (uint32_t)(A(x, 1) * B(y, 1)) + (uint32_t)(A(x, 2) * B(y, 2)) + (uint32_t)(A(x, 3) * B(y, 3))
#define ALU_DP2A(A, B, first) z + (uint32_t)(A(x, 0) * B(y, first)) + (uint32_t)(A(x, 1) * B(y, first + 1))
#define ALU_DP(a, b, A4, B4, A2) \
	ALU_3(sx_dp4a_##a##b, uint32_t, uint32_t, uint32_t, uint32_t, ALU_DP4A(A4, B4)) \
	ALU_3(sx_dp2a_lo_##a##b, uint32_t, uint32_t, uint32_t, uint32_t, ALU_DP2A(A2, B4, 0)) \
	ALU_3(sx_dp2a_hi_##a##b, uint32_t, uint32_t, uint32_t, uint32_t, ALU_DP2A(A2, B4, 2))
ALU_DP(u, u, ALU_U8, ALU_U8, ALU_U16)
ALU_DP(u, s, ALU_U8, ALU_S8, ALU_U16)
ALU_DP(s, u, ALU_S8, ALU_U8, ALU_S16)
ALU_DP(s, s, ALU_S8, ALU_S8, ALU_S16)

/* ---- carry chains ------------------------------------------------------------------------------------------------------ */

/* The condition code register CC.CF is a lane mask in the frame, operand e. The row says what carries: */
enum { CARRY_IN = AUX_ROW, CARRY_SUB = AUX_ROW << 1, CARRY_HI = AUX_ROW << 2, CARRY_SIGNED = AUX_ROW << 3 };

/* x + y + carry, or x - (y + borrow); new CC bits in *out. */
#define ALU_CARRY(width, T) \
	static inline void \
	alu_carry_##width(struct sx_warp *w, const struct sx_insn *i, const T *x, const T *y) \
	{ \
		const uint32_t in = i->aux & CARRY_IN ? SX_SP(w, i->e) : 0; \
		const bool sub = i->aux & CARRY_SUB; \
		T r[SX_LANES] __attribute__((aligned(64))); \
		uint32_t out = 0; \
		for (unsigned l = 0; l < SX_LANES; l++) { \
			const T c = in >> l & 1, t = sub ? x[l] - y[l] : x[l] + y[l]; \
			const bool over = sub ? x[l] < y[l] || t < c : t < x[l] || (T)(t + c) < t; \
			r[l] = sub ? t - c : t + c; \
			out |= (uint32_t)over << l; \
		} \
		sx_put##width(w, i->d, r); \
		if (i->aux & AUX_CC) \
			sx_put_pred(w, i->e, out); \
	} \
	ALU_HANDLER(sx_carry_##width) \
	{ \
		alu_carry_##width(w, i, ALU_SRC(T, i->a), ALU_SRC(T, i->b)); \
		return i + 1; \
	}
ALU_CARRY(32, uint32_t)
ALU_CARRY(64, uint64_t)

#define ALU_CARRY_MAD(width, T, S, U2, S2) \
	ALU_HANDLER(sx_carry_mad_##width) \
	{ \
		const T *a = ALU_SRC(T, i->a), *b = ALU_SRC(T, i->b); \
		T product[SX_LANES] __attribute__((aligned(64))); \
		for (unsigned l = 0; l < SX_LANES; l++) { \
			const U2 p = i->aux & CARRY_SIGNED ? (U2)((S2)(S)a[l] * (S)b[l]) : (U2)a[l] * b[l]; \
			product[l] = (T)(i->aux & CARRY_HI ? p >> width : p); \
		} \
		alu_carry_##width(w, i, product, ALU_SRC(T, i->c)); \
		return i + 1; \
	}
ALU_CARRY_MAD(32, uint32_t, int32_t, uint64_t, int64_t)
ALU_CARRY_MAD(64, uint64_t, int64_t, unsigned __int128, __int128)
