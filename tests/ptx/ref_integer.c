/*
 * Integer arithmetic: scalar references and rows.
 */
#include "forms.h"

typedef __int128 s128;
typedef unsigned __int128 u128;

static const struct {
	char letter;
	int bits, is_signed;
	const char *name;
} types[] = {
	{ 'h', 16, 0, "u16" }, { 'h', 16, 1, "s16" }, { 'w', 32, 0, "u32" }, { 'w', 32, 1, "s32" }, { 'd', 64, 0, "u64" }, { 'd', 64, 1, "s64" },
};

static s128
value(uint64_t v, int bits, int is_signed)
{
	s128 x = (s128)(bits == 64 ? v : v & ((1ull << bits) - 1));

	if (is_signed && (v >> (bits - 1) & 1))
		x -= (s128)1 << bits;
	return x;
}

static s128
least(int bits, int is_signed)
{
	return is_signed ? -((s128)1 << (bits - 1)) : 0;
}

static s128
greatest(int bits, int is_signed)
{
	return ((s128)1 << (bits - is_signed)) - 1;
}

static s128
clamp(s128 x, s128 lo, s128 hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

/* k: bits, signed, saturate */
static void
ref_add(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = value(v[0], k[0], k[1]) + value(v[1], k[0], k[1]);
	r->bits = (uint64_t)(k[2] ? clamp(x, least(k[0], k[1]), greatest(k[0], k[1])) : x);
}

static void
ref_sub(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = value(v[0], k[0], k[1]) - value(v[1], k[0], k[1]);
	r->bits = (uint64_t)(k[2] ? clamp(x, least(k[0], k[1]), greatest(k[0], k[1])) : x);
}

enum part { LO, HI, WIDE };

/* The product; unsigned 64-bit ones need all 128 bits. */
static u128
product(uint64_t a, uint64_t b, int bits, int is_signed)
{
	return (u128)value(a, bits, is_signed) * (u128)value(b, bits, is_signed);
}

/* k: bits, signed, part */
static void
ref_mul(struct answer *r, const uint64_t *v, const int *k)
{
	u128 p = product(v[0], v[1], k[0], k[1]);
	r->bits = (uint64_t)(k[2] == HI ? p >> k[0] : p);
}

/* k: bits, signed, part, saturate */
static void
ref_mad(struct answer *r, const uint64_t *v, const int *k)
{
	u128 p = product(v[0], v[1], k[0], k[1]);

	if (k[3]) /* mad.hi.sat.s32 */
		r->bits = (uint64_t)clamp(((s128)p >> 32) + value(v[2], 32, 1), least(32, 1), greatest(32, 1));
	else
		r->bits = (uint64_t)((k[2] == HI ? p >> k[0] : p) + v[2]);
}

/* k: signed, high, saturate; the operands have 24 bits */
static void
ref_mul24(struct answer *r, const uint64_t *v, const int *k)
{
	s128 p = value(v[0], 24, k[0]) * value(v[1], 24, k[0]);
	r->bits = (uint64_t)(k[1] ? p >> 16 : p);
}

static void
ref_mad24(struct answer *r, const uint64_t *v, const int *k)
{
	s128 p = value(v[0], 24, k[0]) * value(v[1], 24, k[0]);

	if (k[2])
		r->bits = (uint64_t)clamp((p >> 16) + value(v[2], 32, 1), least(32, 1), greatest(32, 1));
	else
		r->bits = (uint64_t)((k[1] ? p >> 16 : p) + (s128)v[2]);
}

static void
ref_sad(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = value(v[0], k[0], k[1]) - value(v[1], k[0], k[1]);
	r->bits = (uint64_t)((x < 0 ? -x : x) + (s128)v[2]);
}

/* Division by zero gives an unspecified value, but must give one. */
static void
ref_div(struct answer *r, const uint64_t *v, const int *k)
{
	s128 a = value(v[0], k[0], k[1]), b = value(v[1], k[0], k[1]);

	if (b == 0)
		r->any = true;
	else
		r->bits = (uint64_t)(a / b);
}

static void
ref_rem(struct answer *r, const uint64_t *v, const int *k)
{
	s128 a = value(v[0], k[0], k[1]), b = value(v[1], k[0], k[1]);

	if (b == 0)
		r->any = true;
	else
		r->bits = (uint64_t)(a % b);
}

static void
ref_abs(struct answer *r, const uint64_t *v, const int *k)
{
	s128 a = value(v[0], k[0], 1);
	r->bits = (uint64_t)(a < 0 ? -a : a);
}

static void
ref_neg(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = (uint64_t)-value(v[0], k[0], 1);
}

/* k: bits, signed, max, relu */
static void
ref_minmax(struct answer *r, const uint64_t *v, const int *k)
{
	s128 a = value(v[0], k[0], k[1]), b = value(v[1], k[0], k[1]);
	s128 x = (a < b) != (k[2] != 0) ? a : b;
	r->bits = (uint64_t)(k[3] && x < 0 ? 0 : x);
}

static void
ref_popc(struct answer *r, const uint64_t *v, const int *k)
{
	for (int i = 0; i < k[0]; i++)
		r->bits += v[0] >> i & 1;
}

static void
ref_clz(struct answer *r, const uint64_t *v, const int *k)
{
	while (r->bits < (uint64_t)k[0] && !(v[0] >> (k[0] - 1 - (int)r->bits) & 1))
		r->bits++;
}

/* k: bits, signed, shiftamt */
static void
ref_bfind(struct answer *r, const uint64_t *v, const int *k)
{
	uint64_t a = v[0];
	int at = -1;

	if (k[1] && (a >> (k[0] - 1) & 1))
		a = ~a;
	for (int i = 0; i < k[0]; i++)
		if (a >> i & 1)
			at = i;
	r->bits = at < 0 ? 0xffffffff : (uint64_t)(k[2] ? k[0] - 1 - at : at);
}

/* base within 0..31, as the row's text makes it */
static void
ref_fns(struct answer *r, const uint64_t *v, const int *k)
{
	int base = (int)(v[1] & 31), offset = (int)(int32_t)v[2], seen = 0;

	r->bits = 0xffffffff;
	if (offset == 0) {
		if (v[0] >> base & 1)
			r->bits = (uint64_t)base;
		return;
	}
	for (int i = base; i >= 0 && i < 32; i += offset > 0 ? 1 : -1)
		if ((v[0] >> i & 1) && ++seen == (offset > 0 ? offset : -(int64_t)offset)) {
			r->bits = (uint64_t)i;
			return;
		}
}

static void
ref_brev(struct answer *r, const uint64_t *v, const int *k)
{
	for (int i = 0; i < k[0]; i++)
		r->bits |= (v[0] >> i & 1) << (k[0] - 1 - i);
}

/* k: bits, signed */
static void
ref_bfe(struct answer *r, const uint64_t *v, const int *k)
{
	int pos = (int)(v[1] & 0xff), len = (int)(v[2] & 0xff), msb = k[0] - 1;
	uint64_t fill = 0;

	if (k[1] && len > 0)
		fill = v[0] >> (pos + len - 1 < msb ? pos + len - 1 : msb) & 1;
	for (int i = 0; i <= msb; i++)
		r->bits |= (i < len && pos + i <= msb ? v[0] >> (pos + i) & 1 : fill) << i;
}

static void
ref_bfi(struct answer *r, const uint64_t *v, const int *k)
{
	int pos = (int)(v[2] & 0xff), len = (int)(v[3] & 0xff), msb = k[0] - 1;

	r->bits = v[1];
	for (int i = 0; i < len && pos + i <= msb; i++)
		r->bits = (r->bits & ~(1ull << (pos + i))) | (v[0] >> i & 1) << (pos + i);
}

/* k: wrap, signed */
static void
ref_szext(struct answer *r, const uint64_t *v, const int *k)
{
	unsigned n = (unsigned)v[1];

	n = k[0] ? n & 31 : n > 32 ? 32 : n;
	if (n == 0)
		r->bits = 0;
	else
		r->bits = (uint64_t)value(v[0], (int)n, k[1]);
}

/* k: wrap */
static void
ref_bmsk(struct answer *r, const uint64_t *v, const int *k)
{
	unsigned a = (unsigned)v[0], b = (unsigned)v[1];

	a = k[0] ? a & 31 : a > 32 ? 32 : a;
	b = k[0] ? b & 31 : b > 32 ? 32 : b;
	r->bits = ((1ull << b) - 1) << a & 0xffffffff;
}

/* k: a signed, b signed */
static void
ref_dp4a(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = (s128)v[2];

	for (int i = 0; i < 4; i++)
		x += value(v[0] >> (8 * i) & 0xff, 8, k[0]) * value(v[1] >> (8 * i) & 0xff, 8, k[1]);
	r->bits = (uint64_t)x;
}

/* k: a signed, b signed, high */
static void
ref_dp2a(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = (s128)v[2];

	for (int i = 0; i < 2; i++)
		x += value(v[0] >> (16 * i) & 0xffff, 16, k[0]) * value(v[1] >> (8 * (i + 2 * k[2])) & 0xff, 8, k[1]);
	r->bits = (uint64_t)x;
}

/* ---- carries: two words, low and high, of 32 or 64 bits; the result is the upper word, or the carry -------------- */

/* k: bits, what; operands a.lo a.hi b.lo b.hi */
enum carry { ADD_HIGH, SUB_HIGH, ADD_CARRY, SUB_BORROW, ADD_CHAIN_OUT, SUB_CHAIN_OUT };

static void
ref_carry(struct answer *r, const uint64_t *v, const int *k)
{
	u128 lo_a = v[0], hi_a = v[1], lo_b = v[2], hi_b = v[3], one = (u128)1 << k[0];
	u128 add_lo = lo_a + lo_b, add_hi = hi_a + hi_b + (add_lo >> k[0]);
	u128 sub_lo = lo_a + one - lo_b, borrow = sub_lo >> k[0] ? 0 : 1;
	u128 sub_hi = hi_a + one - hi_b - borrow;

	switch (k[1]) {
	case ADD_HIGH: r->bits = (uint64_t)add_hi; break;
	case SUB_HIGH: r->bits = (uint64_t)sub_hi; break;
	case ADD_CARRY: r->bits = (uint64_t)(add_lo >> k[0]); break;
	case SUB_BORROW: r->bits = (uint64_t)(0 - borrow); break; /* 0 - 0 - borrow */
	case ADD_CHAIN_OUT: r->bits = (uint64_t)(add_hi >> k[0]); break;
	case SUB_CHAIN_OUT: r->bits = (uint64_t)(0 - (sub_hi >> k[0] ? 0 : (u128)1)); break;
	}
}

/* k: bits, signed; a * b + c of twice the width in four steps; the result is the upper word. operands a b c.lo c.hi */
static void
ref_mad_chain(struct answer *r, const uint64_t *v, const int *k)
{
	u128 p = product(v[0], v[1], k[0], k[1]);
	u128 lo = (u128)(uint64_t)(k[0] == 64 ? p : p & 0xffffffff) + v[2];
	u128 hi = (p >> k[0]) + v[3] + (lo >> k[0]);

	r->bits = (uint64_t)hi;
}

/* The carry that mad.hi.cc and madc.hi.cc leave. */
static void
ref_mad_carry(struct answer *r, const uint64_t *v, const int *k)
{
	u128 p = product(v[0], v[1], k[0], 0);
	u128 part = k[2] == HI ? p >> k[0] : k[0] == 64 ? (uint64_t)p : (uint32_t)p;

	r->bits = (uint64_t)((part + v[2]) >> k[0]);
}

static void
carry_rows(void)
{
	for (int bits = 32; bits <= 64; bits += 32) {
		const char *four = bits == 32 ? "wwwww" : "ddddd", *three = bits == 32 ? "wwww" : "dddd";
		for (int s = 0; s < 2; s++) {
			char y = s ? 's' : 'u';
			form("carry", four, ref_carry, K(bits, ADD_HIGH), 0, "{ .reg .b%d l; add.cc.%c%d l, $a, $c; addc.%c%d $d, $b, $e; }", bits, y, bits, y, bits);
			form("carry", four, ref_carry, K(bits, SUB_HIGH), 0, "{ .reg .b%d l; sub.cc.%c%d l, $a, $c; subc.%c%d $d, $b, $e; }", bits, y, bits, y, bits);
			form("carry", four, ref_carry, K(bits, ADD_CARRY), 0, "{ .reg .b%d l; add.cc.%c%d l, $a, $c; addc.%c%d $d, 0, 0; }", bits, y, bits, y, bits);
			form("carry", four, ref_carry, K(bits, SUB_BORROW), 0, "{ .reg .b%d l; sub.cc.%c%d l, $a, $c; subc.%c%d $d, 0, 0; }", bits, y, bits, y, bits);
			form("carry", four, ref_carry, K(bits, ADD_CHAIN_OUT), 0,
			     "{ .reg .b%d l, h; add.cc.%c%d l, $a, $c; addc.cc.%c%d h, $b, $e; addc.%c%d $d, 0, 0; }", bits, y, bits, y, bits, y, bits);
			form("carry", four, ref_carry, K(bits, SUB_CHAIN_OUT), 0,
			     "{ .reg .b%d l, h; sub.cc.%c%d l, $a, $c; subc.cc.%c%d h, $b, $e; subc.%c%d $d, 0, 0; }", bits, y, bits, y, bits, y, bits);
			form("carry", four, ref_mad_chain, K(bits, s), 0,
			     "{ .reg .b%d l; mad.lo.cc.%c%d l, $a, $b, $c; madc.hi.%c%d $d, $a, $b, $e; }", bits, y, bits, y, bits);
		}
		form("carry", three, ref_mad_carry, K(bits, 0, LO), 0, "{ .reg .b%d l; mad.lo.cc.u%d l, $a, $b, $c; addc.u%d $d, 0, 0; }", bits, bits, bits);
		form("carry", three, ref_mad_carry, K(bits, 0, HI), 0, "{ .reg .b%d l; mad.hi.cc.u%d l, $a, $b, $c; addc.u%d $d, 0, 0; }", bits, bits, bits);
		form("carry", three, ref_mad_carry, K(bits, 0, LO), 0,
		     "{ .reg .b%d l; add.cc.u%d l, 0, 0; madc.lo.cc.u%d l, $a, $b, $c; addc.u%d $d, 0, 0; }", bits, bits, bits, bits);
		form("carry", three, ref_mad_carry, K(bits, 0, HI), 0,
		     "{ .reg .b%d l; add.cc.u%d l, 0, 0; madc.hi.cc.u%d l, $a, $b, $c; addc.u%d $d, 0, 0; }", bits, bits, bits, bits);
	}
}

#define EACH_TYPE(i) for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)

static const char *
same(char letter, int operands)
{
	static char sets[3][5][6];
	int which = letter == 'h' ? 0 : letter == 'w' ? 1 : 2;
	char *s = sets[which][operands];

	for (int i = 0; i <= operands; i++)
		s[i] = letter;
	s[operands + 1] = 0;
	return s;
}

void
forms_integer(void)
{
	EACH_TYPE(i) form("add", same(types[i].letter, 2), ref_add, K(types[i].bits, types[i].is_signed), 0, "add.%s $d, $a, $b;", types[i].name);
	form("add", "www", ref_add, K(32, 1, 1), 0, "add.sat.s32 $d, $a, $b;");
	form("add", "xxx", ref_add, K(16, 0), 90, "add.u16x2 $d, $a, $b;");
	form("add", "xxx", ref_add, K(16, 1), 90, "add.s16x2 $d, $a, $b;");
	EACH_TYPE(i) form("sub", same(types[i].letter, 2), ref_sub, K(types[i].bits, types[i].is_signed), 0, "sub.%s $d, $a, $b;", types[i].name);
	form("sub", "www", ref_sub, K(32, 1, 1), 0, "sub.sat.s32 $d, $a, $b;");
	EACH_TYPE(i) {
		form("mul", same(types[i].letter, 2), ref_mul, K(types[i].bits, types[i].is_signed, LO), 0, "mul.lo.%s $d, $a, $b;", types[i].name);
		form("mul", same(types[i].letter, 2), ref_mul, K(types[i].bits, types[i].is_signed, HI), 0, "mul.hi.%s $d, $a, $b;", types[i].name);
		if (types[i].bits < 64)
			form("mul", types[i].bits == 16 ? "whh" : "dww", ref_mul, K(types[i].bits, types[i].is_signed, WIDE), 0, "mul.wide.%s $d, $a, $b;", types[i].name);
	}
	EACH_TYPE(i) {
		form("mad", same(types[i].letter, 3), ref_mad, K(types[i].bits, types[i].is_signed, LO), 0, "mad.lo.%s $d, $a, $b, $c;", types[i].name);
		form("mad", same(types[i].letter, 3), ref_mad, K(types[i].bits, types[i].is_signed, HI), 0, "mad.hi.%s $d, $a, $b, $c;", types[i].name);
		if (types[i].bits < 64)
			form("mad", types[i].bits == 16 ? "whhw" : "dwwd", ref_mad, K(types[i].bits, types[i].is_signed, WIDE), 0,
			     "mad.wide.%s $d, $a, $b, $c;", types[i].name);
	}
	form("mad", "wwww", ref_mad, K(32, 1, HI, 1), 0, "mad.hi.sat.s32 $d, $a, $b, $c;");
	for (int hi = 0; hi < 2; hi++) {
		const char *part = hi ? "hi" : "lo";
		form("mul24", "www", ref_mul24, K(0, hi), 0,
		     "{ .reg .b32 x, y; and.b32 x, $a, 0xffffff; and.b32 y, $b, 0xffffff; mul24.%s.u32 $d, x, y; }", part);
		form("mul24", "www", ref_mul24, K(1, hi), 0,
		     "{ .reg .b32 x, y; shl.b32 x, $a, 8; shr.s32 x, x, 8; shl.b32 y, $b, 8; shr.s32 y, y, 8; mul24.%s.s32 $d, x, y; }", part);
		form("mul24", "wwww", ref_mad24, K(0, hi), 0,
		     "{ .reg .b32 x, y; and.b32 x, $a, 0xffffff; and.b32 y, $b, 0xffffff; mad24.%s.u32 $d, x, y, $c; }", part);
		form("mul24", "wwww", ref_mad24, K(1, hi), 0,
		     "{ .reg .b32 x, y; shl.b32 x, $a, 8; shr.s32 x, x, 8; shl.b32 y, $b, 8; shr.s32 y, y, 8; mad24.%s.s32 $d, x, y, $c; }", part);
	}
	form("mul24", "wwww", ref_mad24, K(1, 1, 1), 0,
	     "{ .reg .b32 x, y; shl.b32 x, $a, 8; shr.s32 x, x, 8; shl.b32 y, $b, 8; shr.s32 y, y, 8; mad24.hi.sat.s32 $d, x, y, $c; }");
	EACH_TYPE(i) form("sad", same(types[i].letter, 3), ref_sad, K(types[i].bits, types[i].is_signed), 0, "sad.%s $d, $a, $b, $c;", types[i].name);
	EACH_TYPE(i) form("div", same(types[i].letter, 2), ref_div, K(types[i].bits, types[i].is_signed), 0, "div.%s $d, $a, $b;", types[i].name);
	EACH_TYPE(i) form("rem", same(types[i].letter, 2), ref_rem, K(types[i].bits, types[i].is_signed), 0, "rem.%s $d, $a, $b;", types[i].name);
	EACH_TYPE(i) {
		if (!types[i].is_signed)
			continue;
		form("absneg", same(types[i].letter, 1), ref_abs, K(types[i].bits), 0, "abs.%s $d, $a;", types[i].name);
		form("absneg", same(types[i].letter, 1), ref_neg, K(types[i].bits), 0, "neg.%s $d, $a;", types[i].name);
	}
	for (int max = 0; max < 2; max++) {
		const char *op = max ? "max" : "min";
		EACH_TYPE(i) form("minmax", same(types[i].letter, 2), ref_minmax, K(types[i].bits, types[i].is_signed, max), 0, "%s.%s $d, $a, $b;", op, types[i].name);
		form("minmax", "xxx", ref_minmax, K(16, 0, max), 90, "%s.u16x2 $d, $a, $b;", op);
		form("minmax", "xxx", ref_minmax, K(16, 1, max), 90, "%s.s16x2 $d, $a, $b;", op);
		form("minmax", "xxx", ref_minmax, K(16, 1, max, 1), 90, "%s.relu.s16x2 $d, $a, $b;", op);
		form("minmax", "www", ref_minmax, K(32, 1, max, 1), 90, "%s.relu.s32 $d, $a, $b;", op);
	}
	for (int bits = 32; bits <= 64; bits += 32) {
		const char *one = bits == 32 ? "ww" : "wd";
		form("bits", one, ref_popc, K(bits), 0, "popc.b%d $d, $a;", bits);
		form("bits", one, ref_clz, K(bits), 0, "clz.b%d $d, $a;", bits);
		form("bits", bits == 32 ? "ww" : "dd", ref_brev, K(bits), 0, "brev.b%d $d, $a;", bits);
		for (int s = 0; s < 2; s++) {
			form("bits", one, ref_bfind, K(bits, s), 0, "bfind.%c%d $d, $a;", s ? 's' : 'u', bits);
			form("bits", one, ref_bfind, K(bits, s, 1), 0, "bfind.shiftamt.%c%d $d, $a;", s ? 's' : 'u', bits);
			form("bits", bits == 32 ? "wwnn" : "ddnn", ref_bfe, K(bits, s), 0, "bfe.%c%d $d, $a, $b, $c;", s ? 's' : 'u', bits);
		}
		form("bits", bits == 32 ? "wwwnn" : "dddnn", ref_bfi, K(bits), 0, "bfi.b%d $d, $a, $b, $c, $e;", bits);
	}
	form("bits", "wwnn", ref_fns, NULL, 0, "{ .reg .b32 x; and.b32 x, $b, 31; fns.b32 $d, $a, x, $c; }");
	form("bits", "wwnw", ref_fns, NULL, 0, "{ .reg .b32 x; and.b32 x, $b, 31; fns.b32 $d, $a, x, $c; }");
	for (int wrap = 0; wrap < 2; wrap++) {
		const char *mode = wrap ? "wrap" : "clamp";
		form("bits", "wwn", ref_szext, K(wrap, 0), 0, "szext.%s.u32 $d, $a, $b;", mode);
		form("bits", "wwn", ref_szext, K(wrap, 1), 0, "szext.%s.s32 $d, $a, $b;", mode);
		form("bits", "wnn", ref_bmsk, K(wrap), 0, "bmsk.%s.b32 $d, $a, $b;", mode);
	}
	for (int a = 0; a < 2; a++)
		for (int b = 0; b < 2; b++) {
			form("dp", "wvvw", ref_dp4a, K(a, b), 0, "dp4a.%c32.%c32 $d, $a, $b, $c;", "us"[a], "us"[b]);
			form("dp", "wvvw", ref_dp2a, K(a, b, 0), 0, "dp2a.lo.%c32.%c32 $d, $a, $b, $c;", "us"[a], "us"[b]);
			form("dp", "wvvw", ref_dp2a, K(a, b, 1), 0, "dp2a.hi.%c32.%c32 $d, $a, $b, $c;", "us"[a], "us"[b]);
		}
	carry_rows();
}
