/*
 * Compare and select: setp, set, selp, slct, testp.
 *
 * A comparison is a function from two operands to a lane mask. setp with one result has a handler for each (type, comparison)
 * pair; the forms with a second predicate or a Boolean operation, and set, call the function through the instruction.
 */
#include "soft/exec/alu.h"

typedef uint32_t (*alu_cmp_fn)(const struct sx_warp *w, const struct sx_insn *i);

#define ALU_CMP(name, T, load, cond) \
	static inline __attribute__((always_inline)) uint32_t \
	alu_cmp_##name(const struct sx_warp *w, const struct sx_insn *i) \
	{ \
		const T *a_ = ALU_SRC(T, i->a), *b_ = ALU_SRC(T, i->b); \
		struct alu_truth t; \
		ALU_LANES { \
			load \
			t.v[l] = -(int32_t)(cond); \
		} \
		return alu_mask(&t); \
	} \
	ALU_HANDLER(sx_setp_##name) \
	{ \
		sx_put_pred(w, i->d, alu_cmp_##name(w, i)); \
		return i + 1; \
	}

#define ALU_CMP_INT(type, T, C) \
	ALU_CMP(type##_eq, T, const C x = (C)a_[l]; const C y = (C)b_[l];, x == y) \
	ALU_CMP(type##_ne, T, const C x = (C)a_[l]; const C y = (C)b_[l];, x != y) \
	ALU_CMP(type##_lt, T, const C x = (C)a_[l]; const C y = (C)b_[l];, x < y) \
	ALU_CMP(type##_le, T, const C x = (C)a_[l]; const C y = (C)b_[l];, x <= y) \
	ALU_CMP(type##_gt, T, const C x = (C)a_[l]; const C y = (C)b_[l];, x > y) \
	ALU_CMP(type##_ge, T, const C x = (C)a_[l]; const C y = (C)b_[l];, x >= y)
ALU_CMP_INT(u32, uint32_t, uint32_t) /* u16 as well */
ALU_CMP_INT(s16, uint32_t, int16_t)
ALU_CMP_INT(s32, int32_t, int32_t)
ALU_CMP_INT(u64, uint64_t, uint64_t)
ALU_CMP_INT(s64, int64_t, int64_t)

/* The ordered comparisons are false on NaN, the ones with u true. */
#define ALU_CMP_FLOAT(type, T, C, get) \
	ALU_CMP(type##_eq, T, const C x = get(a_[l]); const C y = get(b_[l]);, x == y) \
	ALU_CMP(type##_ne, T, const C x = get(a_[l]); const C y = get(b_[l]);, (x < y) | (x > y)) \
	ALU_CMP(type##_lt, T, const C x = get(a_[l]); const C y = get(b_[l]);, x < y) \
	ALU_CMP(type##_le, T, const C x = get(a_[l]); const C y = get(b_[l]);, x <= y) \
	ALU_CMP(type##_gt, T, const C x = get(a_[l]); const C y = get(b_[l]);, x > y) \
	ALU_CMP(type##_ge, T, const C x = get(a_[l]); const C y = get(b_[l]);, x >= y) \
	ALU_CMP(type##_equ, T, const C x = get(a_[l]); const C y = get(b_[l]);, !((x < y) | (x > y))) \
	ALU_CMP(type##_neu, T, const C x = get(a_[l]); const C y = get(b_[l]);, x != y) \
	ALU_CMP(type##_ltu, T, const C x = get(a_[l]); const C y = get(b_[l]);, !(x >= y)) \
	ALU_CMP(type##_leu, T, const C x = get(a_[l]); const C y = get(b_[l]);, !(x > y)) \
	ALU_CMP(type##_gtu, T, const C x = get(a_[l]); const C y = get(b_[l]);, !(x <= y)) \
	ALU_CMP(type##_geu, T, const C x = get(a_[l]); const C y = get(b_[l]);, !(x < y)) \
	ALU_CMP(type##_num, T, const C x = get(a_[l]); const C y = get(b_[l]);, (x == x) & (y == y)) \
	ALU_CMP(type##_nan, T, const C x = get(a_[l]); const C y = get(b_[l]);, (x != x) | (y != y))
#define ALU_SAME(x) (x)
#define ALU_F16_FTZ(x) alu_from_f16(((x) & 0x7c00) ? (x) : (x) & 0x8000)
#define ALU_F16_LOW(x) alu_from_f16((x) & 0xffff)
#define ALU_F16_HIGH(x) alu_from_f16((x) >> 16)
#define ALU_F16_LOW_FTZ(x) ALU_F16_FTZ((x) & 0xffff)
#define ALU_F16_HIGH_FTZ(x) ALU_F16_FTZ((x) >> 16)
#define ALU_BF16_LOW(x) alu_float((x) << 16)
#define ALU_BF16_HIGH(x) alu_float((x) & 0xffff0000)
ALU_CMP_FLOAT(f32, float, float, ALU_SAME)
ALU_CMP_FLOAT(f32_ftz, float, float, alu_flush)
ALU_CMP_FLOAT(f64, double, double, ALU_SAME)
/* Low and high half; a 16-bit register is the low half. */
ALU_CMP_FLOAT(f16, uint32_t, float, ALU_F16_LOW)
ALU_CMP_FLOAT(f16_ftz, uint32_t, float, ALU_F16_LOW_FTZ)
ALU_CMP_FLOAT(f16h, uint32_t, float, ALU_F16_HIGH)
ALU_CMP_FLOAT(f16h_ftz, uint32_t, float, ALU_F16_HIGH_FTZ)
ALU_CMP_FLOAT(bf16, uint32_t, float, ALU_BF16_LOW)
ALU_CMP_FLOAT(bf16h, uint32_t, float, ALU_BF16_HIGH)

/* A type's comparisons in the order of enum alu_sub. */
struct alu_cmp {
	alu_cmp_fn bits;
	sx_fn setp;
};
#define ALU_CMP_ROW(type, name, text) [SUB_##name] = { alu_cmp_##type##_##text, sx_setp_##type##_##text }
#define ALU_CMP_INTS(type) \
	{ ALU_CMP_ROW(type, EQ, eq), ALU_CMP_ROW(type, NE, ne), ALU_CMP_ROW(type, LT, lt), ALU_CMP_ROW(type, LE, le), \
	  ALU_CMP_ROW(type, GT, gt), ALU_CMP_ROW(type, GE, ge) }
/* lo ls hs are lt le ge of unsigned types; hi comes as a flag. */
#define ALU_CMP_UNSIGNED(type) \
	{ ALU_CMP_ROW(type, EQ, eq), ALU_CMP_ROW(type, NE, ne), ALU_CMP_ROW(type, LT, lt), ALU_CMP_ROW(type, LE, le), \
	  ALU_CMP_ROW(type, GT, gt), ALU_CMP_ROW(type, GE, ge), ALU_CMP_ROW(type, LS, le), ALU_CMP_ROW(type, HS, ge) }
#define ALU_CMP_BITS(type) { ALU_CMP_ROW(type, EQ, eq), ALU_CMP_ROW(type, NE, ne) }
#define ALU_CMP_FLOATS(type) \
	{ ALU_CMP_ROW(type, EQ, eq), ALU_CMP_ROW(type, NE, ne), ALU_CMP_ROW(type, LT, lt), ALU_CMP_ROW(type, LE, le), \
	  ALU_CMP_ROW(type, GT, gt), ALU_CMP_ROW(type, GE, ge), ALU_CMP_ROW(type, EQU, equ), ALU_CMP_ROW(type, NEU, neu), \
	  ALU_CMP_ROW(type, LTU, ltu), ALU_CMP_ROW(type, LEU, leu), ALU_CMP_ROW(type, GTU, gtu), ALU_CMP_ROW(type, GEU, geu), \
	  ALU_CMP_ROW(type, NUM, num), ALU_CMP_ROW(type, ISNAN, nan) }
static const struct alu_cmp alu_cmps_u32[SUB_COUNT] = ALU_CMP_UNSIGNED(u32), alu_cmps_u64[SUB_COUNT] = ALU_CMP_UNSIGNED(u64),
	alu_cmps_b32[SUB_COUNT] = ALU_CMP_BITS(u32), alu_cmps_b64[SUB_COUNT] = ALU_CMP_BITS(u64),
	alu_cmps_s16[SUB_COUNT] = ALU_CMP_INTS(s16), alu_cmps_s32[SUB_COUNT] = ALU_CMP_INTS(s32),
	alu_cmps_s64[SUB_COUNT] = ALU_CMP_INTS(s64), alu_cmps_f32[SUB_COUNT] = ALU_CMP_FLOATS(f32),
	alu_cmps_f32_ftz[SUB_COUNT] = ALU_CMP_FLOATS(f32_ftz), alu_cmps_f64[SUB_COUNT] = ALU_CMP_FLOATS(f64),
	alu_cmps_f16[SUB_COUNT] = ALU_CMP_FLOATS(f16), alu_cmps_f16_ftz[SUB_COUNT] = ALU_CMP_FLOATS(f16_ftz),
	alu_cmps_f16h[SUB_COUNT] = ALU_CMP_FLOATS(f16h), alu_cmps_f16h_ftz[SUB_COUNT] = ALU_CMP_FLOATS(f16h_ftz),
	alu_cmps_bf16[SUB_COUNT] = ALU_CMP_FLOATS(bf16), alu_cmps_bf16h[SUB_COUNT] = ALU_CMP_FLOATS(bf16h);

/* By type: its comparisons, those of the upper half of a packed type, and the same with .ftz. */
static const struct alu_cmp_type {
	const struct alu_cmp *plain, *ftz, *high, *high_ftz;
} alu_cmp_types[PTX_TYPE_COUNT] = {
	[PTX_b16] = { alu_cmps_b32, NULL, NULL, NULL },
	[PTX_b32] = { alu_cmps_b32, NULL, NULL, NULL },
	[PTX_b64] = { alu_cmps_b64, NULL, NULL, NULL },
	[PTX_u16] = { alu_cmps_u32, NULL, NULL, NULL },
	[PTX_u32] = { alu_cmps_u32, NULL, NULL, NULL },
	[PTX_u64] = { alu_cmps_u64, NULL, NULL, NULL },
	[PTX_s16] = { alu_cmps_s16, NULL, NULL, NULL },
	[PTX_s32] = { alu_cmps_s32, NULL, NULL, NULL },
	[PTX_s64] = { alu_cmps_s64, NULL, NULL, NULL },
	[PTX_f32] = { alu_cmps_f32, alu_cmps_f32_ftz, NULL, NULL },
	[PTX_f64] = { alu_cmps_f64, NULL, NULL, NULL },
	[PTX_f16] = { alu_cmps_f16, alu_cmps_f16_ftz, NULL, NULL },
	[PTX_bf16] = { alu_cmps_bf16, NULL, NULL, NULL },
	[PTX_f16x2] = { alu_cmps_f16, alu_cmps_f16_ftz, alu_cmps_f16h, alu_cmps_f16h_ftz },
	[PTX_bf16x2] = { alu_cmps_bf16, NULL, alu_cmps_bf16h, NULL },
};

/* The comparison that the modifiers name, for the low or the high half; NULL if the type has none such. */
static const struct alu_cmp *
alu_find_cmp(const struct alu_form *form, enum ptx_type type, bool high)
{
	const struct alu_cmp_type *t = &alu_cmp_types[type];
	const bool ftz = form->flags & F_(FTZ);
	const struct alu_cmp *all = high ? (ftz ? t->high_ftz : t->high) : (ftz ? t->ftz : t->plain);
	enum alu_sub sub = form->sub;

	if (!all || (form->flags & ~(F_(FTZ) | F_(LO) | F_(HI))))
		return NULL;
	if (form->flags & (F_(LO) | F_(HI))) { /* unsigned < and > */
		if (sub != SUB_NONE || !all[SUB_HS].bits || (form->flags & F_(LO) && form->flags & F_(HI)))
			return NULL;
		sub = form->flags & F_(LO) ? SUB_LT : SUB_GT;
	}
	return all[sub].bits ? &all[sub] : NULL;
}

/* ---- setp, set: the general forms ------------------------------------------------------------------------------------- */

/* p = cmp BoolOp c; q = !cmp BoolOp c. */
ALU_HANDLER(sx_setp_any)
{
	const uint32_t bits = ((alu_cmp_fn)i->ptr)(w, i), with = SX_SP(w, i->c);
	if (i->d != SX_NO_REG)
		sx_put_pred(w, i->d, alu_combine(bits, with, i->aux));
	if (i->e != SX_NO_REG)
		sx_put_pred(w, i->e, alu_combine(~bits, with, i->aux));
	return i + 1;
}
/* set: aux is the Boolean operation, f an operand that holds the value for true. */
ALU_HANDLER(sx_set_32)
{
	const uint32_t bits = alu_combine(((alu_cmp_fn)i->ptr)(w, i), SX_SP(w, i->c), i->aux);
	const uint32_t *yes = ALU_SRC(uint32_t, i->f);
	ALU_STORE(uint32_t, i->d, , (bits >> l & 1) ? yes[l] : 0);
	return i + 1;
}
/* set on packed halves: the comparison of the upper halves is found from that of the lower ones. */
ALU_HANDLER(sx_set_high)
{
	const uint32_t bits = alu_combine(((alu_cmp_fn)i->ptr)(w, i), SX_SP(w, i->c), i->aux);
	const uint32_t *yes = ALU_SRC(uint32_t, i->f), *low = ALU_SRC(uint32_t, i->e);
	ALU_STORE(uint32_t, i->d, , ((bits >> l & 1) ? yes[l] << 16 : 0) | low[l]);
	return i + 1;
}

static bool
alu_decode_setp(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	if (form->type_count != 1 || in->operand_count < 3)
		return false;
	const enum ptx_type type = form->types[0];
	const bool packed = type == PTX_f16x2 || type == PTX_bf16x2, half = type == PTX_f16 || type == PTX_bf16;
	const struct alu_cmp *cmp = alu_find_cmp(form, type, false);
	const struct ptx_operand *o = in->operands;
	uint32_t p, q = SX_NO_REG, c;

	if (!cmp || !alu_is_source(d, &o[1], ptx_type_bits[type]) || !alu_is_source(d, &o[2], ptx_type_bits[type]) ||
	    !alu_pred_dst(d, &o[0], &p) || (o[0].second && !alu_pred_dst(d, o[0].second, &q)) ||
	    (half && o[0].second) || !alu_boolean_operand(d, in, form, 3, &c))
		return false;
	const uint32_t a = sxd_src(d, &o[1], type), b = sxd_src(d, &o[2], type);
	if (packed) { /* p from the lower halves, q from the upper ones */
		const uint32_t to[2] = { p, q };
		const uint32_t low = sxd_temp(d, 1); /* p may be the operand c */
		for (unsigned k = 0; k < 2; k++) {
			struct sx_insn *i = sxd_emit(d, sx_setp_any);
			i->d = k ? to[1] : low;
			i->a = a;
			i->b = b;
			i->c = c;
			i->e = SX_NO_REG;
			i->aux = form->boolean;
			i->ptr = (void *)alu_find_cmp(form, type, k)->bits;
		}
		if (p != SX_NO_REG) {
			struct sx_insn *i = sxd_emit(d, sx_or_pred);
			i->d = p;
			i->a = i->b = low;
		}
		return true;
	}
	const bool direct = p != SX_NO_REG && q == SX_NO_REG && form->boolean == BOOL_NONE;
	struct sx_insn *i = sxd_emit(d, direct ? cmp->setp : sx_setp_any);
	i->d = p;
	i->e = q;
	i->a = a;
	i->b = b;
	i->c = c;
	if (!direct) {
		i->aux = form->boolean;
		i->ptr = (void *)cmp->bits;
	}
	return true;
}

/* set.cmp.dtype.stype: dtype says what true looks like. */
static bool
alu_decode_set(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	if (form->type_count != 2 || in->operand_count < 3)
		return false;
	const enum ptx_type to = form->types[0], from = form->types[1];
	const bool packed = from == PTX_f16x2 || from == PTX_bf16x2;
	const struct alu_cmp *cmp = alu_find_cmp(form, from, false);
	const struct ptx_operand *o = in->operands;
	uint32_t yes, c;

	switch (to) {
	case PTX_u32: case PTX_s32: yes = packed ? 0xffff : 0xffffffff; break;
	case PTX_u16: case PTX_s16: yes = 0xffff; break;
	case PTX_f32: yes = 0x3f800000; break;
	case PTX_f16: case PTX_f16x2: yes = 0x3c00; break;
	case PTX_bf16: case PTX_bf16x2: yes = 0x3f80; break;
	default: return false;
	}
	/* 16-bit integers go with 16-bit floating sources, packed results with packed sources; f16 and bf16 with any scalar. */
	const bool half = from == PTX_f16 || from == PTX_bf16;
	const bool known = packed ? to == from || to == PTX_u32 || to == PTX_s32
	                   : to == PTX_u16 || to == PTX_s16 ? half : to != PTX_f16x2 && to != PTX_bf16x2 && !(half && to == PTX_f32);
	if (!cmp || !known || (to == PTX_f16 && from == PTX_bf16) || (to == PTX_bf16 && form->flags & F_(FTZ)) ||
	    !alu_is_reg(d, &o[0], ptx_type_bits[to]) || !alu_is_source(d, &o[1], ptx_type_bits[from]) ||
	    !alu_is_source(d, &o[2], ptx_type_bits[from]) || !alu_boolean_operand(d, in, form, 3, &c))
		return false;
	const uint32_t a = sxd_src(d, &o[1], from), b = sxd_src(d, &o[2], from);
	const uint32_t truth = sxd_const32(d, yes), dst = sxd_dst(d, &o[0]), low = packed ? sxd_temp(d, 32) : SX_NO_REG;
	for (unsigned k = 0; k <= packed; k++) {
		struct sx_insn *i = sxd_emit(d, k ? sx_set_high : sx_set_32);
		i->d = packed && !k ? low : dst;
		i->e = low;
		i->a = a;
		i->b = b;
		i->c = c;
		i->f = truth;
		i->aux = form->boolean;
		i->ptr = (void *)alu_find_cmp(form, from, k)->bits;
	}
	return true;
}

/* ---- selp, slct, testp -------------------------------------------------------------------------------------------------- */

ALU_HANDLER(sx_selp_32)
{
	const uint32_t *a = ALU_SRC(uint32_t, i->a), *b = ALU_SRC(uint32_t, i->b), p = SX_SP(w, i->c);
	ALU_STORE(uint32_t, i->d, , (p & alu_lane32[l]) ? a[l] : b[l]);
	return i + 1;
}
ALU_HANDLER(sx_selp_64)
{
	const uint64_t *a = ALU_SRC(uint64_t, i->a), *b = ALU_SRC(uint64_t, i->b), p = SX_SP(w, i->c);
	ALU_STORE(uint64_t, i->d, , (p & alu_lane64[l]) ? a[l] : b[l]);
	return i + 1;
}
ALU_3(sx_slct_32_s32, uint32_t, uint32_t, uint32_t, int32_t, z >= 0 ? x : y)
ALU_3(sx_slct_64_s32, uint64_t, uint64_t, uint64_t, int32_t, z >= 0 ? x : y)
ALU_3(sx_slct_32_f32, uint32_t, uint32_t, uint32_t, float, z >= 0.0f ? x : y)
ALU_3(sx_slct_64_f32, uint64_t, uint64_t, uint64_t, float, z >= 0.0f ? x : y)
ALU_3(sx_slct_32_f32_ftz, uint32_t, uint32_t, uint32_t, float, alu_flush(z) >= 0.0f ? x : y)
ALU_3(sx_slct_64_f32_ftz, uint64_t, uint64_t, uint64_t, float, alu_flush(z) >= 0.0f ? x : y)

/* The class of a floating value from its bits. */
static inline bool
alu_testp(uint64_t magnitude, uint64_t infinity, uint64_t least_normal, unsigned what)
{
	switch (what) {
	case SUB_FINITE: return magnitude < infinity;
	case SUB_INFINITE: return magnitude == infinity;
	case SUB_NUMBER: return magnitude <= infinity;
	case SUB_NOTANUMBER: return magnitude > infinity;
	case SUB_NORMAL: return magnitude >= least_normal && magnitude < infinity;
	default: return magnitude && magnitude < least_normal;
	}
}
ALU_HANDLER(sx_testp_32)
{
	const uint32_t *a = ALU_SRC(uint32_t, i->a);
	uint32_t bits = 0;
	for (unsigned l = 0; l < SX_LANES; l++)
		bits |= (uint32_t)alu_testp(a[l] & 0x7fffffff, 0x7f800000, 0x00800000, i->aux) << l;
	sx_put_pred(w, i->d, bits);
	return i + 1;
}
ALU_HANDLER(sx_testp_64)
{
	const uint64_t *a = ALU_SRC(uint64_t, i->a);
	uint32_t bits = 0;
	for (unsigned l = 0; l < SX_LANES; l++)
		bits |= (uint32_t)alu_testp(a[l] & INT64_MAX, 0x7ffull << 52, 1ull << 52, i->aux) << l;
	sx_put_pred(w, i->d, bits);
	return i + 1;
}

static bool
alu_decode_testp(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	const enum ptx_type type = form->types[0];
	if (form->type_count != 1 || (type != PTX_f32 && type != PTX_f64) || form->flags || form->boolean ||
	    form->sub < SUB_FINITE || form->sub > SUB_SUBNORMAL || in->operand_count != 2 ||
	    !alu_is_reg(d, &in->operands[0], 1) || !alu_is_source(d, &in->operands[1], ptx_type_bits[type]))
		return false;
	const uint32_t a = sxd_src(d, &in->operands[1], type), dst = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, type == PTX_f32 ? sx_testp_32 : sx_testp_64);
	i->d = dst;
	i->a = a;
	i->aux = form->sub;
	return true;
}
