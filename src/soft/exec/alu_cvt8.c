/*
 * cvt of pairs: two f32 into a packed register, formats of 8, 6 and 4 bits in both directions, and cvt.pack of integers.
 * The forms with random bits (.rs), with a scale (.scaled) and of four elements are not known here.
 *
 * Of two sources the first becomes the upper element.
 */
#include "soft/exec/alu.h"

/* ---- to f16x2 and bf16x2 ------------------------------------------------------------------------------------------- */

ALU_HANDLER(sx_cvt_f16x2_f32)
{
	uint32_t high[SX_LANES] __attribute__((aligned(64))), low[SX_LANES] __attribute__((aligned(64)));
	alu_half_narrow(ALU_SRC(struct alu_f32, i->a), 0, high);
	alu_half_narrow(ALU_SRC(struct alu_f32, i->b), 0, low);
	ALU_LANES low[l] |= high[l] << 16;
	sx_put32(w, i->d, low);
	return i + 1;
}
ALU_2(sx_cvt_bf16x2_f32, uint32_t, float, float, alu_to_bf16(x) << 16 | alu_to_bf16(y))

static inline uint32_t
alu_finite_half(uint32_t h, uint32_t infinity, uint32_t aux)
{
	h -= aux & AUX_SATFINITE && (h & 0x7fff) == infinity;
	return h & (aux & AUX_RELU ? 0x8000 : 0) ? 0 : h; /* NaN is positive */
}
static inline enum alu_rounding
alu_mode(uint32_t aux)
{
	static const enum alu_rounding modes[4] = { TO_RN, TO_RZ, TO_RM, TO_RP };
	return aux & AUX_RNA ? TO_RNA : modes[aux & AUX_ROUND];
}
static inline uint32_t
alu_f16_any(float x, uint32_t aux)
{
	return alu_finite_half(alu_to_f16_mode(x, alu_mode(aux)), 0x7c00, aux);
}
static inline uint32_t
alu_bf16_any(float x, uint32_t aux)
{
	return alu_finite_half(alu_to_bf16_mode(x, alu_mode(aux)), 0x7f80, aux);
}
ALU_2(sx_cvt_f16x2_f32_any, uint32_t, float, float, alu_f16_any(x, i->aux) << 16 | alu_f16_any(y, i->aux))
ALU_2(sx_cvt_bf16x2_f32_any, uint32_t, float, float, alu_bf16_any(x, i->aux) << 16 | alu_bf16_any(y, i->aux))

/* ---- small formats --------------------------------------------------------------------------------------------------- */

/* name, exponent bits, mantissa bits, largest code, code of NaN (positive), shift of the second element */
#define ALU_SMALL(X) \
	X(e4m3, 4, 3, 0x7e, 0x7f, 8) \
	X(e5m2, 5, 2, 0x7b, 0x7f, 8) \
	X(e2m3, 2, 3, 0x1f, 0x1f, 8) \
	X(e3m2, 3, 2, 0x1f, 0x1f, 8) \
	X(e2m1, 2, 1, 0x07, 0x07, 4)

/* Always .satfinite, round to nearest. The formats without NaN give their largest value for it. */
static inline uint32_t
alu_to_small(float x, unsigned ebits, unsigned mbits, uint32_t most, uint32_t nan, uint32_t aux)
{
	const uint32_t u = alu_bits(x), q = alu_narrow(u, ebits, mbits, TO_RN), sign = u >> 31 << (ebits + mbits);
	const uint32_t finite = (q > most ? most : q) | sign, r = sign & (aux & AUX_RELU ? ~0u : 0) ? 0 : finite;
	return (u & 0x7fffffff) > 0x7f800000 ? nan : r;
}
static inline float
alu_from_small(uint32_t code, unsigned ebits, unsigned mbits)
{
	const uint32_t magnitude = code & ((1u << (ebits + mbits)) - 1), sign = code >> (ebits + mbits) & 1;
	const uint32_t bias = (1u << (ebits - 1)) - 1;
	const uint32_t normal = (magnitude << (23 - mbits)) + ((127 - bias) << 23);
	const uint32_t small = alu_bits((float)(int32_t)magnitude * alu_float((128 - bias - mbits) << 23));
	return alu_float((magnitude < 1u << mbits ? small : normal) | sign << 31);
}
/* To f16, exactly. e5m2 has infinities, e4m3 only NaN. */
static inline uint32_t
alu_small_f16(uint32_t code, unsigned ebits, unsigned mbits, uint32_t aux)
{
	const uint32_t all = code & 0x7f;
	uint32_t h = alu_to_f16(alu_from_small(code, ebits, mbits));
	if (ebits == 4)
		h = all == 0x7f ? ALU_NAN16 : h;
	if (ebits == 5)
		h = all > 0x7c ? ALU_NAN16 : code << 8;
	return h & (aux & AUX_RELU ? 0x8000 : 0) ? 0 : h;
}
#define ALU_SMALL_HANDLERS(name, ebits, mbits, most, nan, shift) \
	ALU_2(sx_cvt_##name##_f32, uint32_t, float, float, \
	      alu_to_small(x, ebits, mbits, most, nan, i->aux) << (shift) | alu_to_small(y, ebits, mbits, most, nan, i->aux)) \
	ALU_1(sx_cvt_##name##_f16, uint32_t, uint32_t, \
	      alu_to_small(alu_from_f16(x >> 16), ebits, mbits, most, nan, i->aux) << (shift) | \
	      alu_to_small(alu_from_f16(x & 0xffff), ebits, mbits, most, nan, i->aux)) \
	ALU_1(sx_cvt_##name##_bf16, uint32_t, uint32_t, \
	      alu_to_small(alu_float(x & 0xffff0000), ebits, mbits, most, nan, i->aux) << (shift) | \
	      alu_to_small(alu_float(x << 16), ebits, mbits, most, nan, i->aux)) \
	ALU_1(sx_cvt_f16_##name, uint32_t, uint32_t, \
	      alu_small_f16(x >> (shift) & 0xff, ebits, mbits, i->aux) << 16 | \
	      alu_small_f16(x & ((1u << (shift)) - 1), ebits, mbits, i->aux))
ALU_SMALL(ALU_SMALL_HANDLERS)

/* ue8m0: an exponent alone. The sign of the source is ignored. */
static inline uint32_t
alu_to_ue8m0(uint32_t u, uint32_t aux)
{
	const uint32_t a = u & 0x7fffffff, e = a >> 23;
	const bool up = (aux & AUX_ROUND) == AUX_RP && (a & 0x7fffff) && a > 0x00400000 && a < 0x7f800000;
	const uint32_t r = e + up;
	return aux & AUX_SATFINITE && a <= 0x7f800000 && r == 0xff ? 0xfe : r;
}
static inline uint32_t
alu_from_ue8m0(uint32_t code)
{
	return code == 0xff ? ALU_NAN16 : code ? code << 7 : 0x40;
}
ALU_2(sx_cvt_ue8m0_f32, uint32_t, uint32_t, uint32_t, alu_to_ue8m0(x, i->aux) << 8 | alu_to_ue8m0(y, i->aux))
ALU_1(sx_cvt_ue8m0_bf16, uint32_t, uint32_t, alu_to_ue8m0(x & 0xffff0000, i->aux) << 8 | alu_to_ue8m0(x << 16, i->aux))
ALU_1(sx_cvt_bf16_ue8m0, uint32_t, uint32_t, alu_from_ue8m0(x >> 8) << 16 | alu_from_ue8m0(x & 0xff))

/* ---- cvt.pack ------------------------------------------------------------------------------------------------------------ */

/* Two s32 saturated to aux bits, a above b; with a third source, it moves up behind them. imm is 1 for signed results. */
static inline uint32_t
alu_saturate(int32_t x, unsigned bits, bool to_signed)
{
	const int32_t most = (int32_t)((1u << (bits - to_signed)) - 1), least = to_signed ? -most - 1 : 0;
	return (uint32_t)(x < least ? least : x > most ? most : x) & ((1u << bits) - 1);
}
ALU_2(sx_cvt_pack, uint32_t, int32_t, int32_t,
      alu_saturate(x, i->aux, i->imm) << i->aux | alu_saturate(y, i->aux, i->imm))
ALU_3(sx_cvt_pack_more, uint32_t, int32_t, int32_t, uint32_t,
      alu_saturate(x, i->aux, i->imm) << i->aux | alu_saturate(y, i->aux, i->imm) | z << 2 * i->aux)

/* cvt.pack.sat.T.s32 d, a, b; for 16 bits, and .sat.T.s32.b32 d, a, b, c below. */
static bool
alu_decode_cvt_pack(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	const struct ptx_operand *o = in->operands;
	const bool two_bits = form->flags & (F_(U2) | F_(S2));
	const enum ptx_type to = two_bits ? PTX_none : form->types[0];
	const unsigned first = two_bits ? 0 : 1;
	unsigned bits;
	bool is_signed;

	if (form->sub || form->boolean || form->flags & ~(F_(PACK) | F_(SAT) | F_(U2) | F_(S2)) || !(form->flags & F_(SAT)) ||
	    form->type_count < first + 1 || form->types[first] != PTX_s32)
		return false;
	switch (to) {
	case PTX_none: bits = 2; is_signed = form->flags & F_(S2); break;
	case PTX_u16: bits = 16; is_signed = false; break;
	case PTX_s16: bits = 16; is_signed = true; break;
	case PTX_u8: bits = 8; is_signed = false; break;
	case PTX_s8: bits = 8; is_signed = true; break;
	case PTX_u4: bits = 4; is_signed = false; break;
	case PTX_s4: bits = 4; is_signed = true; break;
	default: return false;
	}
	const bool more = bits < 16;
	if (form->type_count != first + 1 + more || (more && form->types[first + 1] != PTX_b32) || in->operand_count != 3u + more ||
	    !alu_is_reg(d, &o[0], 32) || !alu_is_source(d, &o[1], 32) || !alu_is_source(d, &o[2], 32) ||
	    (more && !alu_is_source(d, &o[3], 32)))
		return false;
	const uint32_t a = sxd_src(d, &o[1], PTX_s32), b = sxd_src(d, &o[2], PTX_s32), c = more ? sxd_src(d, &o[3], PTX_b32) : 0;
	const uint32_t dst = sxd_dst(d, &o[0]);
	struct sx_insn *i = sxd_emit(d, more ? sx_cvt_pack_more : sx_cvt_pack);
	i->d = dst;
	i->a = a;
	i->b = b;
	i->c = c;
	i->aux = bits;
	i->imm = is_signed;
	return true;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------- */

#define C_FINITE (F_(RN) | F_(SATFINITE))
#define ALU_SMALL_ROWS(name, ebits, mbits, most, nan, shift) \
	{ PTX_##name##x2, PTX_f32, C_FINITE, F_(RELU), "dss", sx_cvt_##name##_f32, 0 }, \
	{ PTX_##name##x2, PTX_f16x2, C_FINITE, F_(RELU), "ds", sx_cvt_##name##_f16, 0 }, \
	{ PTX_##name##x2, PTX_bf16x2, C_FINITE, F_(RELU), "ds", sx_cvt_##name##_bf16, 0 }, \
	{ PTX_f16x2, PTX_##name##x2, F_(RN), F_(RELU), "ds", sx_cvt_f16_##name, 0 },
static const struct alu_row alu_cvt_pair_rows[] = {
	{ PTX_f16x2, PTX_f32, F_(RN), 0, "dss", sx_cvt_f16x2_f32, 0 },
	{ PTX_bf16x2, PTX_f32, F_(RN), 0, "dss", sx_cvt_bf16x2_f32, 0 },
	{ PTX_f16x2, PTX_f32, F_(RN), F_(RELU) | F_(SATFINITE), "dss", sx_cvt_f16x2_f32_any, 0 },
	{ PTX_f16x2, PTX_f32, F_(RZ), F_(RELU) | F_(SATFINITE), "dss", sx_cvt_f16x2_f32_any, 0 },
	{ PTX_bf16x2, PTX_f32, F_(RN), F_(RELU) | F_(SATFINITE), "dss", sx_cvt_bf16x2_f32_any, 0 },
	{ PTX_bf16x2, PTX_f32, F_(RZ), F_(RELU) | F_(SATFINITE), "dss", sx_cvt_bf16x2_f32_any, 0 },
	ALU_SMALL(ALU_SMALL_ROWS)
	{ PTX_ue8m0x2, PTX_f32, F_(RZ), F_(SATFINITE), "dss", sx_cvt_ue8m0_f32, 0 },
	{ PTX_ue8m0x2, PTX_f32, F_(RP), F_(SATFINITE), "dss", sx_cvt_ue8m0_f32, 0 },
	{ PTX_ue8m0x2, PTX_bf16x2, F_(RZ), F_(SATFINITE), "ds", sx_cvt_ue8m0_bf16, 0 },
	{ PTX_ue8m0x2, PTX_bf16x2, F_(RP), F_(SATFINITE), "ds", sx_cvt_ue8m0_bf16, 0 },
	{ PTX_bf16x2, PTX_ue8m0x2, F_(RN), 0, "ds", sx_cvt_bf16_ue8m0, 0 },
};
