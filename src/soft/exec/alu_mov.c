/*
 * Moving bits: mov with packing and unpacking of vectors, prmt, lop3.
 */
#include "soft/exec/alu.h"

/* ---- mov ------------------------------------------------------------------------------------------------------------ */

ALU_1(sx_mov_16, uint32_t, uint32_t, x & 0xffff) /* of a special register, which has 32 bits */
ALU_1(sx_mov_32, uint32_t, uint32_t, x)
ALU_1(sx_mov_64, uint64_t, uint64_t, x)
ALU_HANDLER(sx_mov_pred)
{
	sx_put_pred(w, i->d, SX_SP(w, i->a));
	return i + 1;
}
ALU_HANDLER(sx_mov_128)
{
	sx_put64(w, i->d, SX_S64(w, i->a));
	sx_put64(w, i->d + 8 * SX_LANES, SX_S64(w, i->a + 8 * SX_LANES));
	return i + 1;
}

ALU_2(sx_pack_32x2, uint64_t, uint32_t, uint32_t, x | (uint64_t)y << 32)
ALU_2(sx_pack_16x2, uint32_t, uint32_t, uint32_t, x | y << 16)
ALU_HANDLER(sx_unpack_32x2)
{
	const uint64_t *a = ALU_SRC(uint64_t, i->a);
	ALU_STORE(uint32_t, i->d, , (uint32_t)a[l]);
	ALU_STORE(uint32_t, i->e, , (uint32_t)(a[l] >> 32));
	return i + 1;
}
ALU_HANDLER(sx_unpack_16x2)
{
	const uint32_t *a = ALU_SRC(uint32_t, i->a);
	ALU_STORE(uint32_t, i->d, , a[l] & 0xffff);
	ALU_STORE(uint32_t, i->e, , a[l] >> 16);
	return i + 1;
}
/* One element: aux is its shift, imm its mask. The first element of a packing overwrites, the others add. */
ALU_1(sx_take_32_32, uint32_t, uint32_t, x >> i->aux & (uint32_t)i->imm)
ALU_1(sx_take_32_64, uint32_t, uint64_t, x >> i->aux & (uint64_t)i->imm)
ALU_2(sx_give_32_32, uint32_t, uint32_t, uint32_t, y | (x & (uint32_t)i->imm) << i->aux)
ALU_2(sx_give_64_32, uint64_t, uint32_t, uint64_t, y | (x & (uint64_t)i->imm) << i->aux)

static enum ptx_type
alu_bits_type(unsigned bits)
{
	return bits == 8 ? PTX_b8 : bits == 16 ? PTX_b16 : bits == 32 ? PTX_b32 : PTX_b64;
}

/* mov.bN d, {a, b, ...}: element 0 lowest. */
static bool
alu_decode_pack(struct sx_decoder *d, const struct ptx_insn *in, unsigned bits)
{
	const struct ptx_operand *to = &in->operands[0], *from = &in->operands[1];
	const unsigned n = from->count, each = n ? bits / n : 0;
	uint32_t s[8];

	if ((n != 2 && n != 4 && n != 8) || each < 8 || !alu_is_reg(d, to, bits))
		return false;
	for (unsigned k = 0; k < n; k++)
		if (!alu_is_source(d, &from->elems[k], each))
			return false;
	for (unsigned k = 0; k < n; k++)
		s[k] = sxd_src(d, &from->elems[k], alu_bits_type(each));
	const uint32_t dst = sxd_dst(d, to);
	if (bits == 128 && each == 64) {
		const uint32_t t = sxd_temp(d, 64); /* d may be made of its own halves elsewhere: keep the order harmless */
		alu_emit(d, sx_mov_64, t, s[1], 0, 0, 0);
		alu_emit(d, sx_mov_64, dst, s[0], 0, 0, 0);
		alu_emit(d, sx_mov_64, dst + 8 * SX_LANES, t, 0, 0, 0);
	} else if (bits == 128 && each == 32) {
		alu_emit(d, sx_pack_32x2, dst, s[0], s[1], 0, 0);
		alu_emit(d, sx_pack_32x2, dst + 8 * SX_LANES, s[2], s[3], 0, 0);
	} else if (bits == 64 && each == 32) {
		alu_emit(d, sx_pack_32x2, dst, s[0], s[1], 0, 0);
	} else if (bits == 32 && each == 16) {
		alu_emit(d, sx_pack_16x2, dst, s[0], s[1], 0, 0);
	} else if (bits <= 64) {
		const uint32_t zero = bits == 64 ? sxd_const64(d, 0) : sxd_const32(d, 0);
		for (unsigned k = 0; k < n; k++)
			alu_emit(d, bits == 64 ? sx_give_64_32 : sx_give_32_32, dst, s[k], k ? dst : zero, k * each,
			         (int64_t)((1ull << each) - 1));
	} else {
		return false;
	}
	return true;
}

/* mov.bN {a, b, ...}, s. An element may be "_". */
static bool
alu_decode_unpack(struct sx_decoder *d, const struct ptx_insn *in, unsigned bits)
{
	const struct ptx_operand *to = &in->operands[0], *from = &in->operands[1];
	const unsigned n = to->count, each = n ? bits / n : 0;
	uint32_t r[8];

	if ((n != 2 && n != 4 && n != 8) || each < 8 || each > 64 || !alu_is_source(d, from, bits) ||
	    (bits == 128 && (from->kind != PTX_OP_REG || each < 32)))
		return false;
	for (unsigned k = 0; k < n; k++)
		if (to->elems[k].kind != PTX_OP_SINK && !alu_is_reg(d, &to->elems[k], each))
			return false;
	const uint32_t s = sxd_src(d, from, alu_bits_type(bits));
	for (unsigned k = 0; k < n; k++)
		r[k] = to->elems[k].kind == PTX_OP_SINK ? SX_NO_REG : sxd_dst(d, &to->elems[k]);
	if (n == 2 && bits <= 64 && each >= 16 && r[0] != SX_NO_REG && r[1] != SX_NO_REG) {
		struct sx_insn *i = sxd_emit(d, bits == 64 ? sx_unpack_32x2 : sx_unpack_16x2);
		i->d = r[0];
		i->e = r[1];
		i->a = s;
		return true;
	}
	for (unsigned k = 0; k < n; k++) {
		if (r[k] == SX_NO_REG)
			continue;
		if (each == 64)
			alu_emit(d, sx_mov_64, r[k], s + 8 * SX_LANES * k, 0, 0, 0);
		else if (bits == 128)
			alu_emit(d, sx_take_32_64, r[k], s + 8 * SX_LANES * (k / 2), 0, k % 2 * 32, 0xffffffff);
		else
			alu_emit(d, bits == 64 ? sx_take_32_64 : sx_take_32_32, r[k], s, 0, k * each, (int64_t)((1ull << each) - 1));
	}
	return true;
}

static bool
alu_decode_mov(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	const struct ptx_operand *o = in->operands;
	if (form->type_count != 1 || form->flags || form->sub || form->boolean || in->operand_count != 2)
		return false;
	const enum ptx_type type = form->types[0];
	const unsigned bits = ptx_type_bits[type];
	const bool untyped = type == PTX_b16 || type == PTX_b32 || type == PTX_b64 || type == PTX_b128;
	sx_fn fn;

	if (o[1].kind == PTX_OP_VECTOR)
		return untyped && alu_decode_pack(d, in, bits);
	if (o[0].kind == PTX_OP_VECTOR)
		return untyped && alu_decode_unpack(d, in, bits);
	switch (type) {
	case PTX_pred: fn = sx_mov_pred; break;
	case PTX_b16: case PTX_u16: case PTX_s16:
		fn = o[1].kind == PTX_OP_SPECIAL ? sx_mov_16 : sx_mov_32;
		break;
	case PTX_b32: case PTX_u32: case PTX_s32: case PTX_f32: fn = sx_mov_32; break;
	case PTX_b64: case PTX_u64: case PTX_s64: case PTX_f64: fn = sx_mov_64; break;
	case PTX_b128: fn = sx_mov_128; break;
	default: return false;
	}
	if (!alu_is_reg(d, &o[0], bits) || (bits == 128 && o[1].kind != PTX_OP_REG))
		return false;
	if (bits == 1 && o[1].kind == PTX_OP_IMM) { /* true and false */
		const uint32_t value = sxd_const_pred(d, o[1].imm != 0);
		alu_emit(d, fn, sxd_dst(d, &o[0]), value, 0, 0, 0);
		return true;
	}
	if (!alu_is_source(d, &o[1], bits))
		return false;
	const uint32_t s = sxd_src(d, &o[1], type), dst = sxd_dst(d, &o[0]);
	alu_emit(d, fn, dst, s, 0, 0, 0);
	return true;
}

/* ---- prmt ----------------------------------------------------------------------------------------------------------- */

/* Four selector nibbles: which of eight bytes, and bit 3: its sign, replicated. */
static inline uint32_t
alu_prmt(uint32_t x, uint32_t y, uint32_t selector)
{
	uint32_t r = 0;
	for (unsigned k = 0; k < 4; k++) {
		const uint32_t nibble = selector >> 4 * k, word = nibble & 4 ? y : x;
		const uint32_t byte = word >> 8 * (nibble & 3) & 0xff;
		const uint32_t sign = (0 - (byte >> 7)) & 0xff;
		r |= (nibble & 8 ? sign : byte) << 8 * k;
	}
	return r;
}
ALU_3(sx_prmt, uint32_t, uint32_t, uint32_t, uint32_t, alu_prmt(x, y, z))

/* A selector that all lanes share and without signs (nearly all prmt): shifts by uniform counts. */
ALU_HANDLER(sx_prmt_const)
{
	const uint32_t *a = ALU_SRC(uint32_t, i->a), *b = ALU_SRC(uint32_t, i->b);
	const uint32_t s0 = i->aux & 3, s1 = i->aux >> 4 & 3, s2 = i->aux >> 8 & 3, s3 = i->aux >> 12 & 3;
	const uint32_t from_b[4] = { 0 - (i->aux >> 2 & 1), 0 - (i->aux >> 6 & 1), 0 - (i->aux >> 10 & 1), 0 - (i->aux >> 14 & 1) };
	const uint32_t f0 = from_b[0], f1 = from_b[1], f2 = from_b[2], f3 = from_b[3];
	ALU_STORE(uint32_t, i->d, const uint32_t x = a[l]; const uint32_t y = b[l];,
	          (((x & ~f0) | (y & f0)) >> 8 * s0 & 0xff) | (((x & ~f1) | (y & f1)) >> 8 * s1 & 0xff) << 8 |
	          (((x & ~f2) | (y & f2)) >> 8 * s2 & 0xff) << 16 | (((x & ~f3) | (y & f3)) >> 8 * s3 & 0xff) << 24);
	return i + 1;
}

/* The selector that each mode derives from the low two bits of c. */
static const uint16_t alu_prmt_modes[6][4] = {
	{ 0x3210, 0x4321, 0x5432, 0x6543 }, /* f4e */
	{ 0x5670, 0x6701, 0x7012, 0x0123 }, /* b4e */
	{ 0x0000, 0x1111, 0x2222, 0x3333 }, /* rc8 */
	{ 0x3210, 0x3211, 0x3222, 0x3333 }, /* ecl */
	{ 0x0000, 0x1110, 0x2210, 0x3210 }, /* ecr */
	{ 0x1010, 0x3232, 0x1010, 0x3232 }, /* rc16 */
};
ALU_3(sx_prmt_mode, uint32_t, uint32_t, uint32_t, uint32_t, alu_prmt(x, y, alu_prmt_modes[i->aux][z & 3]))

static bool
alu_decode_prmt(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	const struct ptx_operand *o = in->operands;
	if (form->type_count != 1 || form->types[0] != PTX_b32 || form->flags || form->boolean || in->operand_count != 4 ||
	    (form->sub && (form->sub < SUB_F4E || form->sub > SUB_RC16)) || !alu_is_reg(d, &o[0], 32) ||
	    !alu_is_source(d, &o[1], 32) || !alu_is_source(d, &o[2], 32) || !alu_is_source(d, &o[3], 32))
		return false;
	const bool constant = !form->sub && o[3].kind == PTX_OP_IMM && !(o[3].imm & 0x8888);
	const uint32_t a = sxd_src(d, &o[1], PTX_b32), b = sxd_src(d, &o[2], PTX_b32);
	const uint32_t c = constant ? 0 : sxd_src(d, &o[3], PTX_b32), dst = sxd_dst(d, &o[0]);
	struct sx_insn *i = sxd_emit(d, constant ? sx_prmt_const : form->sub ? sx_prmt_mode : sx_prmt);
	i->d = dst;
	i->a = a;
	i->b = b;
	i->c = c;
	i->aux = constant ? (uint32_t)o[3].imm & 0xffff : form->sub ? form->sub - SUB_F4E : 0;
	return true;
}

/* ---- lop3 ----------------------------------------------------------------------------------------------------------- */

/* A truth table of three inputs, bit 4a + 2b + c, as a tree of multiplexers. */
static inline uint32_t
alu_mux(uint32_t select, uint32_t yes, uint32_t no)
{
	return no ^ (select & (yes ^ no));
}
static inline void
alu_lop3(const struct sx_warp *w, const struct sx_insn *i, uint32_t *restrict r)
{
	const uint32_t *a = ALU_SRC(uint32_t, i->a), *b = ALU_SRC(uint32_t, i->b), *c = ALU_SRC(uint32_t, i->c);
	uint32_t t[8];
	for (unsigned k = 0; k < 8; k++)
		t[k] = 0 - (i->aux >> k & 1);
	const uint32_t t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3], t4 = t[4], t5 = t[5], t6 = t[6], t7 = t[7];
	ALU_LANES r[l] = alu_mux(a[l], alu_mux(b[l], alu_mux(c[l], t7, t6), alu_mux(c[l], t5, t4)),
	                         alu_mux(b[l], alu_mux(c[l], t3, t2), alu_mux(c[l], t1, t0)));
}
ALU_HANDLER(sx_lop3)
{
	uint32_t r[SX_LANES] __attribute__((aligned(64)));
	alu_lop3(w, i, r);
	sx_put32(w, i->d, r);
	return i + 1;
}
/* d|p: p = (d != 0) BoolOp q. The operation stands above the table in aux. */
ALU_HANDLER(sx_lop3_pred)
{
	uint32_t r[SX_LANES] __attribute__((aligned(64)));
	struct alu_truth t;
	alu_lop3(w, i, r);
	ALU_LANES t.v[l] = -(int32_t)(r[l] != 0);
	const uint32_t bits = alu_combine(alu_mask(&t), SX_SP(w, i->f), i->aux >> 8);
	if (i->d != SX_NO_REG)
		sx_put32(w, i->d, r);
	if (i->e != SX_NO_REG)
		sx_put_pred(w, i->e, bits);
	return i + 1;
}

static bool
alu_decode_lop3(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form)
{
	const struct ptx_operand *o = in->operands;
	const bool pred = form->boolean == BOOL_AND || form->boolean == BOOL_OR;
	uint32_t p = SX_NO_REG, q = 0, dst = SX_NO_REG;

	if (form->type_count != 1 || form->types[0] != PTX_b32 || form->flags || form->sub ||
	    form->boolean == BOOL_XOR || in->operand_count != (pred ? 6 : 5) || o[4].kind != PTX_OP_IMM || o[4].imm < 0 || o[4].imm > 255)
		return false;
	for (unsigned k = 1; k <= 3; k++)
		if (!alu_is_source(d, &o[k], 32))
			return false;
	if (o[0].kind == PTX_OP_SINK ? !pred : !alu_is_reg(d, &o[0], 32))
		return false;
	if (pred != (o[0].second != NULL) || (pred && !alu_pred_dst(d, o[0].second, &p)) ||
	    (pred && !alu_boolean_operand(d, in, form, 5, &q)))
		return false;
	if (o[0].kind != PTX_OP_SINK)
		dst = sxd_dst(d, &o[0]);
	const uint32_t a = sxd_src(d, &o[1], PTX_b32), b = sxd_src(d, &o[2], PTX_b32), c = sxd_src(d, &o[3], PTX_b32);
	struct sx_insn *i = sxd_emit(d, pred ? sx_lop3_pred : sx_lop3);
	i->d = dst;
	i->e = p;
	i->a = a;
	i->b = b;
	i->c = c;
	i->f = q;
	i->aux = (uint32_t)o[4].imm | (uint32_t)form->boolean << 8;
	return true;
}
