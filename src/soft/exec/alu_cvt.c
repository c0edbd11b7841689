/*
 * cvt between integers and floating formats, one value at a time. Packed forms and formats below 16 bits are in alu_cvt8.c.
 *
 * The pairs that compilers emit all the time have handlers of their own. The rest goes through two general ones by way of
 * double or int64_t, with the types in b and c of the instruction and the roundings in aux and e.
 * Integer operands may stand in registers wider than their type: the source is cut off, the result is extended.
 */
#include "soft/exec/alu.h"

static inline bool
alu_is_float(enum ptx_type type)
{
	return type == PTX_f16 || type == PTX_bf16 || type == PTX_f32 || type == PTX_f64;
}
static inline bool
alu_is_int(enum ptx_type type)
{
	return (type >= PTX_u8 && type <= PTX_u64) || (type >= PTX_s8 && type <= PTX_s64);
}
static inline bool
alu_is_signed(enum ptx_type type)
{
	return type >= PTX_s8 && type <= PTX_s64;
}

/* ---- integer to integer -------------------------------------------------------------------------------------------- */

/* All of them are: cut or extend from a width of aux bits, then a mask (imm) to the destination register. */
ALU_1(sx_cvt_mask_32_32, uint32_t, uint32_t, x & (uint32_t)i->imm)
ALU_1(sx_cvt_mask_32_64, uint32_t, uint64_t, x & (uint64_t)i->imm)
ALU_1(sx_cvt_mask_64_32, uint64_t, uint32_t, x & (uint32_t)i->imm)
ALU_1(sx_cvt_mask_64_64, uint64_t, uint64_t, x & (uint64_t)i->imm)
ALU_1(sx_cvt_s32_s64, int64_t, int32_t, x)
ALU_1(sx_cvt_ext_32_32, uint32_t, uint32_t, ((int32_t)(x << i->aux) >> i->aux) & (uint32_t)i->imm)
ALU_1(sx_cvt_ext_32_64, uint32_t, uint64_t, ((int32_t)((uint32_t)x << i->aux) >> i->aux) & (uint32_t)i->imm)
ALU_1(sx_cvt_ext_64_32, uint64_t, uint32_t, (uint64_t)(int64_t)((int32_t)(x << i->aux) >> i->aux) & (uint64_t)i->imm)
ALU_1(sx_cvt_ext_64_64, uint64_t, uint64_t, (uint64_t)(int64_t)((int32_t)((uint32_t)x << i->aux) >> i->aux) & (uint64_t)i->imm)

static uint64_t
alu_ones(unsigned bits)
{
	return bits >= 64 ? UINT64_MAX : (1ull << bits) - 1;
}

/* From a slot of `from_slot` bits to a register of `reg` bits. */
static void
alu_emit_int(struct sx_decoder *d, enum ptx_type to, enum ptx_type from, uint32_t dst, unsigned reg, uint32_t src, unsigned from_slot)
{
	const unsigned tb = ptx_type_bits[to], fb = ptx_type_bits[from], bits = tb <= fb ? tb : fb;
	const bool is_signed = tb <= fb ? alu_is_signed(to) : alu_is_signed(from);
	const unsigned to_slot = reg > 32 ? 64 : 32;
	/* A signed source that widens to an unsigned type stops at that type's width. */
	const uint64_t mask = is_signed ? alu_ones(tb > fb && !alu_is_signed(to) ? tb : reg) : alu_ones(bits < reg ? bits : reg);
	sx_fn fn;

	if (to_slot == 64 && from_slot == 32 && is_signed && bits == 32 && mask == UINT64_MAX)
		fn = sx_cvt_s32_s64;
	else if (!is_signed || bits == 64 || (bits == 32 && to_slot == 32))
		fn = to_slot == 64 ? (from_slot == 64 ? sx_cvt_mask_64_64 : sx_cvt_mask_64_32)
		                   : from_slot == 64 ? sx_cvt_mask_32_64 : sx_cvt_mask_32_32;
	else
		fn = to_slot == 64 ? (from_slot == 64 ? sx_cvt_ext_64_64 : sx_cvt_ext_64_32)
		                   : from_slot == 64 ? sx_cvt_ext_32_64 : sx_cvt_ext_32_32;
	alu_emit(d, fn, dst, src, 0, bits <= 32 ? 32 - bits : 0, (int64_t)mask);
}

/* ---- the direct ones ------------------------------------------------------------------------------------------------- */

ALU_1(sx_cvt_f32_s32, float, int32_t, (float)x)
ALU_1(sx_cvt_f32_u32, float, uint32_t, (float)x)
ALU_1(sx_cvt_f32_s64, float, int64_t, (float)x)
ALU_1(sx_cvt_f32_u64, float, uint64_t, (float)x)
ALU_1(sx_cvt_f64_s32, double, int32_t, (double)x)
ALU_1(sx_cvt_f64_u32, double, uint32_t, (double)x)
ALU_1(sx_cvt_f64_s64, double, int64_t, (double)x)
ALU_1(sx_cvt_f64_u64, double, uint64_t, (double)x)
ALU_1(sx_cvt_f64_f32, double, float, (double)x)
ALU_1(sx_cvt_f64_f32_ftz, double, float, (double)alu_flush(x))
ALU_1(sx_cvt_f32_f64, float, double, alu_canon((float)x))
ALU_1(sx_cvt_f32_f64_ftz, float, double, alu_flush(alu_canon((float)x)))
ALU_1(sx_cvt_f32_f16, float, uint32_t, alu_canon(alu_from_f16(x)))
ALU_1(sx_cvt_f32_bf16, float, uint32_t, alu_canon(alu_from_bf16(x)))
ALU_HANDLER(sx_cvt_f16_f32)
{
	uint32_t r[SX_LANES] __attribute__((aligned(64)));
	alu_half_narrow(ALU_SRC(struct alu_f32, i->a), 0, r);
	sx_put32(w, i->d, r);
	return i + 1;
}
ALU_1(sx_cvt_bf16_f32, uint32_t, float, alu_to_bf16(x))
ALU_1(sx_cvt_f16_f32_ftz, uint32_t, float, alu_to_f16(alu_flush(x)))
ALU_1(sx_cvt_bf16_f32_ftz, uint32_t, float, alu_to_bf16(alu_flush(x)))

enum alu_to_int { TO_RNI, TO_RZI, TO_RMI, TO_RPI };

static inline float
alu_whole_f32(float x, enum alu_to_int mode)
{
	return mode == TO_RNI ? __builtin_rintf(x) : mode == TO_RZI ? __builtin_truncf(x)
	       : mode == TO_RMI ? __builtin_floorf(x) : __builtin_ceilf(x);
}
static inline double
alu_whole_f64(double x, enum alu_to_int mode)
{
	return mode == TO_RNI ? __builtin_rint(x) : mode == TO_RZI ? __builtin_trunc(x)
	       : mode == TO_RMI ? __builtin_floor(x) : __builtin_ceil(x);
}
static inline uint32_t
alu_f32_s32(float x, enum alu_to_int mode)
{
	const float r = alu_whole_f32(x, mode);
	const float in = r >= -0x1p31f ? (r < 0x1p31f ? r : 0.0f) : 0.0f;
	const uint32_t v = (uint32_t)(int32_t)in;
	return r >= 0x1p31f ? INT32_MAX : r < -0x1p31f ? 0x80000000 : v;
}
static inline uint32_t
alu_f32_u32(float x, enum alu_to_int mode)
{
	const float r = alu_whole_f32(x, mode);
	const bool high = r >= 0x1p31f; /* through the signed conversion, which vectorises everywhere */
	const float low = high ? r - 0x1p31f : r;
	const float in = low >= 0.0f ? (low < 0x1p31f ? low : 0.0f) : 0.0f;
	const uint32_t v = (uint32_t)(int32_t)in + (high ? 0x80000000 : 0);
	return r >= 0x1p32f ? 0xffffffff : v;
}
#define ALU_CVT_F32_INT(name, mode) \
	ALU_1(sx_cvt_s32_f32_##name, uint32_t, float, alu_f32_s32(x, mode)) \
	ALU_1(sx_cvt_u32_f32_##name, uint32_t, float, alu_f32_u32(x, mode)) \
	ALU_1(sx_cvt_f32_##name, float, float, alu_canon(alu_whole_f32(x, mode))) \
	ALU_1(sx_cvt_f32_##name##_ftz, float, float, alu_canon(alu_whole_f32(alu_flush(x), mode))) \
	ALU_1(sx_cvt_f64_##name, double, double, alu_whole_f64(x, mode))
ALU_CVT_F32_INT(rni, TO_RNI)
ALU_CVT_F32_INT(rzi, TO_RZI)
ALU_CVT_F32_INT(rmi, TO_RMI)
ALU_CVT_F32_INT(rpi, TO_RPI)

/* ---- the general ones ------------------------------------------------------------------------------------------------- */

/* The source as 64-bit integers: sign- or zero-extended from its type. */
struct alu_i64 {
	int64_t v[SX_LANES];
} __attribute__((aligned(64)));

/* e of a general conversion: slot widths and the rounding to an integer. */
enum { CVT_FROM64 = 1, CVT_TO64 = 2, CVT_WHOLE = 4, CVT_MODE_SHIFT = 4, CVT_REG_SHIFT = 8 };

static void
alu_load_i64(const struct sx_warp *w, const struct sx_insn *i, struct alu_i64 *to)
{
	const unsigned bits = ptx_type_bits[i->b];
	if (i->e & CVT_FROM64)
		memcpy(to->v, SX_S64(w, i->a), sizeof(to->v));
	else
		ALU_LANES to->v[l] = SX_S32(w, i->a)[l];
	if (bits < 64)
		for (unsigned l = 0; l < SX_LANES; l++) {
			const uint64_t high = (uint64_t)to->v[l] << (64 - bits);
			to->v[l] = alu_is_signed(i->b) ? (int64_t)high >> (64 - bits) : (int64_t)(high >> (64 - bits));
		}
}
/* Stores values of the integer type c, extended to the destination register. */
static void
alu_store_i64(const struct sx_warp *w, const struct sx_insn *i, struct alu_i64 *from)
{
	const unsigned bits = ptx_type_bits[i->c], reg = i->e >> CVT_REG_SHIFT;
	uint32_t r[SX_LANES] __attribute__((aligned(64)));
	for (unsigned l = 0; l < SX_LANES; l++) {
		const uint64_t high = (uint64_t)from->v[l] << (64 - bits);
		from->v[l] = alu_is_signed(i->c) ? (int64_t)high >> (64 - bits) : (int64_t)(high >> (64 - bits));
		from->v[l] = (int64_t)((uint64_t)from->v[l] & (reg >= 64 ? UINT64_MAX : (1ull << reg) - 1));
		r[l] = (uint32_t)from->v[l];
	}
	if (i->e & CVT_TO64)
		sx_put64(w, i->d, (const uint64_t *)from->v);
	else
		sx_put32(w, i->d, r);
}

ALU_HANDLER(sx_cvt_int_sat)
{
	struct alu_i64 v;
	const unsigned bits = ptx_type_bits[i->c];
	const bool u64 = i->b == PTX_u64, to_signed = alu_is_signed(i->c);
	const int64_t least = to_signed ? (int64_t)(UINT64_MAX << (bits - 1)) : 0;
	const uint64_t most = UINT64_MAX >> (64 - bits + to_signed);

	alu_load_i64(w, i, &v);
	for (unsigned l = 0; l < SX_LANES; l++) {
		const int64_t x = v.v[l];
		if (!u64 && x < least)
			v.v[l] = least;
		else if ((u64 || x >= 0) && (uint64_t)x > most)
			v.v[l] = (int64_t)most;
	}
	alu_store_i64(w, i, &v);
	return i + 1;
}

/* The source as double, exactly. */
static void
alu_load_f64(const struct sx_warp *w, const struct sx_insn *i, struct alu_f64 *to)
{
	const uint32_t *s = SX_S32(w, i->a);
	switch (i->b) {
	case PTX_f16:
		for (unsigned l = 0; l < SX_LANES; l++)
			to->v[l] = alu_from_f16(s[l]);
		break;
	case PTX_bf16:
		for (unsigned l = 0; l < SX_LANES; l++)
			to->v[l] = alu_from_bf16(s[l]);
		break;
	case PTX_f32:
		for (unsigned l = 0; l < SX_LANES; l++)
			to->v[l] = i->aux & AUX_FTZ ? alu_flush(alu_float(s[l])) : alu_float(s[l]);
		break;
	default:
		memcpy(to->v, SX_S64(w, i->a), sizeof(to->v));
	}
}

/* An integer as a double that rounds further as the integer would: bits that do not fit set the last one that does. */
static inline double
alu_double_of(int64_t x, bool is_unsigned)
{
	const bool negative = !is_unsigned && x < 0;
	uint64_t m = negative ? 0 - (uint64_t)x : (uint64_t)x;
	if (m >> 53)
		m = (m & ~0xfffull) | (m & 0xfff ? 0x1000 : 0);
	return negative ? -(double)m : (double)m;
}

/* Stores doubles in the floating type c. The rounding to it is the only one. */
static void
alu_store_f64(const struct sx_warp *w, const struct sx_insn *i, struct alu_f64 *from)
{
	static const enum alu_rounding modes[4] = { TO_RN, TO_RZ, TO_RM, TO_RP };
	const enum alu_rounding mode = i->aux & AUX_RNA ? TO_RNA : modes[i->aux & AUX_ROUND];
	const uint32_t aux = i->aux;
	uint32_t r[SX_LANES] __attribute__((aligned(64)));

	if (aux & AUX_SAT)
		for (unsigned l = 0; l < SX_LANES; l++)
			from->v[l] = alu_sat64(from->v[l]);
	if (i->c == PTX_f64) {
		sx_put64(w, i->d, (const uint64_t *)from->v);
		return;
	}
	for (unsigned l = 0; l < SX_LANES; l++) {
		const float x = alu_odd(from->v[l]);
		const uint32_t u = alu_bits(x);
		if (i->c == PTX_f16) {
			r[l] = alu_to_f16_mode(x, mode);
			if (aux & AUX_SATFINITE && (r[l] & 0x7fff) == 0x7c00)
				r[l]--;
		} else if (i->c == PTX_bf16) {
			r[l] = alu_to_bf16_mode(x, mode);
			if (aux & AUX_SATFINITE && (r[l] & 0x7fff) == 0x7f80)
				r[l]--;
		} else { /* tf32: f32 with 10 bits of mantissa */
			const uint32_t q = alu_narrow(u, 8, 10, mode) << 13, a = u & 0x7fffffff;
			const uint32_t limited = q < 0x7f800000 ? q : alu_over(u, mode) ? 0x7f800000 : 0x7f7fe000;
			r[l] = a > 0x7f800000 ? ALU_NAN32 : (a == 0x7f800000 ? a : limited) | (u & 0x80000000);
			if (aux & AUX_SATFINITE && (r[l] & 0x7fffffff) == 0x7f800000)
				r[l] -= 0x2000;
		}
		const uint32_t sign = i->c == PTX_tf32 ? 0x80000000 : 0x8000, nan = i->c == PTX_tf32 ? ALU_NAN32 : ALU_NAN16;
		if (aux & AUX_RELU && r[l] & sign && r[l] != nan)
			r[l] = 0;
	}
	sx_put32(w, i->d, r);
}
/* The same for f32, which the processor rounds. */
static void
alu_store_f32(const struct sx_warp *w, const struct sx_insn *i, struct alu_f64 *from)
{
	struct alu_f32 r;
	const uint32_t mode = alu_round(i->aux);
	ALU_FENCE(*from);
	for (unsigned l = 0; l < SX_LANES; l++)
		r.v[l] = (float)from->v[l];
	ALU_FENCE(r);
	alu_unround(mode, i->aux);
	alu_finish_f32(w, i, &r);
}

ALU_HANDLER(sx_cvt_float_float)
{
	struct alu_f64 v;
	alu_load_f64(w, i, &v);
	if (i->e & CVT_WHOLE)
		for (unsigned l = 0; l < SX_LANES; l++)
			v.v[l] = alu_whole_f64(v.v[l], i->e >> CVT_MODE_SHIFT & 3);
	if (i->c == PTX_f32)
		alu_store_f32(w, i, &v);
	else
		alu_store_f64(w, i, &v);
	return i + 1;
}

ALU_HANDLER(sx_cvt_int_float)
{
	struct alu_i64 n;
	struct alu_f64 v;
	const bool u64 = i->b == PTX_u64;

	alu_load_i64(w, i, &n);
	if (i->c == PTX_f64) {
		const uint32_t mode = alu_round(i->aux);
		ALU_FENCE(n);
		for (unsigned l = 0; l < SX_LANES; l++)
			v.v[l] = u64 ? (double)(uint64_t)n.v[l] : (double)n.v[l];
		ALU_FENCE(v);
		alu_unround(mode, i->aux);
	} else {
		for (unsigned l = 0; l < SX_LANES; l++)
			v.v[l] = alu_double_of(n.v[l], u64);
	}
	if (i->c == PTX_f32)
		alu_store_f32(w, i, &v);
	else
		alu_store_f64(w, i, &v);
	return i + 1;
}

/* Out of range saturates. NaN gives 0 from f16 and f32 to at most 32 bits, else only the top bit. */
ALU_HANDLER(sx_cvt_float_int)
{
	struct alu_f64 v;
	struct alu_i64 n;
	const unsigned bits = ptx_type_bits[i->c];
	const bool to_signed = alu_is_signed(i->c);
	const double least = to_signed ? -__builtin_ldexp(1.0, (int)bits - 1) : 0.0;
	const double beyond = __builtin_ldexp(1.0, (int)bits - to_signed);
	const uint64_t most = UINT64_MAX >> (64 - bits + to_signed);
	const uint64_t nan = i->b == PTX_f64 || bits == 64 ? 1ull << (bits - 1) : 0;

	alu_load_f64(w, i, &v);
	for (unsigned l = 0; l < SX_LANES; l++) {
		const double r = alu_whole_f64(v.v[l], i->e >> CVT_MODE_SHIFT & 3);
		if (r != r)
			n.v[l] = (int64_t)nan;
		else if (r >= beyond)
			n.v[l] = (int64_t)most;
		else if (r < least)
			n.v[l] = (int64_t)(to_signed ? UINT64_MAX << (bits - 1) : 0);
		else
			n.v[l] = r >= 0x1p63 ? (int64_t)(uint64_t)r : (int64_t)r;
	}
	alu_store_i64(w, i, &n);
	return i + 1;
}

/* ---- decoding --------------------------------------------------------------------------------------------------------- */

#define C_RN F_(RN)
#define C_ROW(to, from, must, may, fn) { PTX_##to, PTX_##from, must, may, "do", fn, 0 }
/* Pairs with a handler of their own. Roundings that change nothing are allowed where the general rules below allow them. */
static const struct alu_row alu_cvt_rows[] = {
	C_ROW(f32, s32, C_RN, 0, sx_cvt_f32_s32), C_ROW(f32, u32, C_RN, 0, sx_cvt_f32_u32),
	C_ROW(f32, s64, C_RN, 0, sx_cvt_f32_s64), C_ROW(f32, u64, C_RN, 0, sx_cvt_f32_u64),
	C_ROW(f64, s32, C_RN, 0, sx_cvt_f64_s32), C_ROW(f64, u32, C_RN, 0, sx_cvt_f64_u32),
	C_ROW(f64, s64, C_RN, 0, sx_cvt_f64_s64), C_ROW(f64, u64, C_RN, 0, sx_cvt_f64_u64),
	C_ROW(f64, f32, 0, 0, sx_cvt_f64_f32), C_ROW(f64, f32, F_(FTZ), 0, sx_cvt_f64_f32_ftz),
	C_ROW(f32, f64, C_RN, 0, sx_cvt_f32_f64), C_ROW(f32, f64, C_RN | F_(FTZ), 0, sx_cvt_f32_f64_ftz),
	C_ROW(f32, f16, 0, F_(FTZ), sx_cvt_f32_f16), C_ROW(f32, bf16, 0, 0, sx_cvt_f32_bf16),
	C_ROW(f16, f32, C_RN, 0, sx_cvt_f16_f32), C_ROW(bf16, f32, C_RN, 0, sx_cvt_bf16_f32),
	C_ROW(f16, f32, C_RN | F_(FTZ), 0, sx_cvt_f16_f32_ftz),
#define C_WHOLE(flag, name) \
	C_ROW(s32, f32, F_(flag), F_(SAT), sx_cvt_s32_f32_##name), C_ROW(u32, f32, F_(flag), F_(SAT), sx_cvt_u32_f32_##name), \
	C_ROW(f32, f32, F_(flag), 0, sx_cvt_f32_##name), C_ROW(f32, f32, F_(flag) | F_(FTZ), 0, sx_cvt_f32_##name##_ftz), \
	C_ROW(f64, f64, F_(flag), 0, sx_cvt_f64_##name)
	C_WHOLE(RNI, rni), C_WHOLE(RZI, rzi), C_WHOLE(RMI, rmi), C_WHOLE(RPI, rpi),
	/* subnormals round to 0 here with and without .ftz */
	C_ROW(s32, f32, F_(RZI) | F_(FTZ), F_(SAT), sx_cvt_s32_f32_rzi), C_ROW(u32, f32, F_(RZI) | F_(FTZ), F_(SAT), sx_cvt_u32_f32_rzi),
	C_ROW(s32, f32, F_(RNI) | F_(FTZ), F_(SAT), sx_cvt_s32_f32_rni), C_ROW(u32, f32, F_(RNI) | F_(FTZ), F_(SAT), sx_cvt_u32_f32_rni),
};

static bool
alu_cvt_operand(struct sx_decoder *d, const struct ptx_operand *o, enum ptx_type type, bool source)
{
	const unsigned want = ptx_type_bits[type];
	if (o->kind != PTX_OP_REG)
		return source && alu_is_source(d, o, want);
	const unsigned bits = o->component ? 0 : sxd_bits(d, o);
	return bits == want || (alu_is_int(type) && bits > want && bits <= 64) || (type == PTX_f16 && bits == 32);
}

/* tf32 comes from f32 alone. */
static bool
alu_cvt_tf32_allowed(uint64_t flags, enum ptx_type from)
{
	const uint64_t mode = flags & (F_(RN) | F_(RZ) | F_(RNA));
	return from == PTX_f32 && !(flags & ~(mode | F_(RELU) | F_(SATFINITE))) && __builtin_popcountll(mode) == 1 &&
	       !(flags & F_(RNA) && flags & F_(RELU));
}

/* Which modifiers a pair of types takes; false: no such conversion. */
static bool
alu_cvt_allowed(uint64_t flags, enum ptx_type to, enum ptx_type from)
{
	const uint64_t whole = flags & F_ROUND_INT, round = flags & F_ROUND;
	const bool f32 = to == PTX_f32 || from == PTX_f32, bf16 = to == PTX_bf16 || from == PTX_bf16;
	const unsigned tb = ptx_type_bits[to], fb = ptx_type_bits[from];
	uint64_t rest = flags & ~(F_ROUND_INT | F_ROUND);

	if (to == PTX_tf32)
		return alu_cvt_tf32_allowed(flags, from);
	if (__builtin_popcountll(whole) + __builtin_popcountll(round) > 1 || (bf16 && (tb == 8 || fb == 8)))
		return false;
	if (!bf16)
		rest &= ~F_(SAT);
	if ((to == PTX_f16 || to == PTX_bf16) && from == PTX_f32 && flags & (F_(RN) | F_(RZ)) && !(flags & F_(FTZ)))
		rest &= ~(F_(RELU) | F_(SATFINITE));
	if (f32)
		rest &= ~F_(FTZ);
	if (rest || (flags & F_(SAT) && flags & (F_(RELU) | F_(SATFINITE))))
		return false;
	if (alu_is_int(to))
		return alu_is_int(from) ? !whole && !round : whole != 0;
	if (alu_is_int(from))
		return round != 0;
	if (to == from)
		return !round;
	/* Widening is exact; from bf16 it may name a rounding all the same. */
	return tb <= fb ? round != 0 : !whole && (!round || from == PTX_bf16);
}

static bool
alu_decode_cvt_scalar(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	const enum ptx_type to = form->types[0], from = form->types[1];
	const struct ptx_operand *o = in->operands;
	const uint64_t f = form->flags;

	if (form->type_count != 2 || form->sub || form->boolean || in->operand_count != 2 ||
	    (!alu_is_int(to) && !alu_is_float(to) && to != PTX_tf32) || (!alu_is_int(from) && !alu_is_float(from)) ||
	    !alu_cvt_allowed(f, to, from) || !alu_cvt_operand(d, &o[0], to, false) || !alu_cvt_operand(d, &o[1], from, true))
		return false;
	const unsigned reg = sxd_bits(d, &o[0]);
	const unsigned slot = (o[1].kind == PTX_OP_REG ? sxd_bits(d, &o[1]) : ptx_type_bits[from]) > 32 ? 64 : 32;
	const uint32_t a = sxd_src(d, &o[1], from), dst = sxd_dst(d, &o[0]);

	if (alu_is_int(to) && alu_is_int(from) && !(f & F_(SAT))) {
		alu_emit_int(d, to, from, dst, reg, a, slot);
		return true;
	}
	const bool same_width = (reg == ptx_type_bits[to] || to == PTX_f16) && slot == (ptx_type_bits[from] > 32 ? 64 : 32);
	for (unsigned k = 0; same_width && k < sizeof(alu_cvt_rows) / sizeof(alu_cvt_rows[0]); k++) {
		const struct alu_row *row = &alu_cvt_rows[k];
		if (row->t0 == to && row->t1 == from && (f & row->must) == row->must && !(f & ~(row->must | row->may))) {
			alu_emit(d, row->fn, dst, a, 0, 0, 0);
			return true;
		}
	}
	sx_fn fn = sx_cvt_float_float;
	if (alu_is_int(to))
		fn = alu_is_int(from) ? sx_cvt_int_sat : sx_cvt_float_int;
	else if (alu_is_int(from))
		fn = sx_cvt_int_float;
	const unsigned whole = f & F_(RNI) ? TO_RNI : f & F_(RZI) ? TO_RZI : f & F_(RMI) ? TO_RMI : TO_RPI;
	struct sx_insn *i = sxd_emit(d, fn);
	i->d = dst;
	i->a = a;
	i->b = from;
	i->c = to;
	i->e = (slot == 64 ? CVT_FROM64 : 0) | (reg > 32 ? CVT_TO64 : 0) | (f & F_ROUND_INT ? CVT_WHOLE : 0) |
	       whole << CVT_MODE_SHIFT | reg << CVT_REG_SHIFT;
	i->aux = alu_aux(f);
	return true;
}
