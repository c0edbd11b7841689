/*
 * Logic, shifts, permutes and selection: scalar references and rows.
 */
#include "forms.h"

#include <stdio.h>

enum logic { AND, OR, XOR, NOT, CNOT };

static void
ref_logic(struct answer *r, const uint64_t *v, const int *k)
{
	switch (k[0]) {
	case AND: r->bits = v[0] & v[1]; break;
	case OR: r->bits = v[0] | v[1]; break;
	case XOR: r->bits = v[0] ^ v[1]; break;
	case NOT: r->bits = ~v[0]; break;
	case CNOT: r->bits = v[0] == 0; break;
	}
	if (k[1] == 1)
		r->bits &= 1;
}

/* k: table */
static uint32_t
lop3(const uint64_t *v, int table)
{
	uint32_t x = 0;

	for (int i = 0; i < 32; i++)
		x |= (uint32_t)(table >> ((v[0] >> i & 1) << 2 | (v[1] >> i & 1) << 1 | (v[2] >> i & 1)) & 1) << i;
	return x;
}

static void
ref_lop3(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = lop3(v, k[0]);
}

/* k: table, and instead of or; the fourth operand is the predicate; the result is d with its lowest bit xored by p */
static void
ref_lop3_bool(struct answer *r, const uint64_t *v, const int *k)
{
	uint32_t x = lop3(v, k[0]);
	int p = k[1] ? x != 0 && v[3] : x != 0 || v[3];

	r->bits = x ^ (uint32_t)p;
}

/* k: bits */
static void
ref_shl(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = v[1] >= (uint64_t)k[0] ? 0 : v[0] << v[1];
}

/* k: bits, signed */
static void
ref_shr(struct answer *r, const uint64_t *v, const int *k)
{
	uint64_t sign = v[0] >> (k[0] - 1) & 1;

	for (int i = 0; i < k[0]; i++) {
		uint64_t from = (uint64_t)i + v[1];
		r->bits |= (from < (uint64_t)k[0] ? v[0] >> from & 1 : k[1] ? sign : 0) << i;
	}
}

/* k: right, wrap */
static void
ref_shf(struct answer *r, const uint64_t *v, const int *k)
{
	unsigned n = k[1] ? (unsigned)v[2] & 31 : v[2] > 32 ? 32 : (unsigned)v[2];
	uint64_t both = v[1] << 32 | v[0];

	r->bits = k[0] ? both >> n & 0xffffffff : (both << n) >> 32;
}

enum prmt { INDEX, F4E, B4E, RC8, ECL, ECR, RC16 };

static void
ref_prmt(struct answer *r, const uint64_t *v, const int *k)
{
	/* source byte of each result byte, by selector 0..3; lowest byte first */
	static const unsigned char table[7][4][4] = {
		[F4E]  = { { 0, 1, 2, 3 }, { 1, 2, 3, 4 }, { 2, 3, 4, 5 }, { 3, 4, 5, 6 } },
		[B4E]  = { { 0, 7, 6, 5 }, { 1, 0, 7, 6 }, { 2, 1, 0, 7 }, { 3, 2, 1, 0 } },
		[RC8]  = { { 0, 0, 0, 0 }, { 1, 1, 1, 1 }, { 2, 2, 2, 2 }, { 3, 3, 3, 3 } },
		[ECL]  = { { 0, 1, 2, 3 }, { 1, 1, 2, 3 }, { 2, 2, 2, 3 }, { 3, 3, 3, 3 } },
		[ECR]  = { { 0, 0, 0, 0 }, { 0, 1, 1, 1 }, { 0, 1, 2, 2 }, { 0, 1, 2, 3 } },
		[RC16] = { { 0, 1, 0, 1 }, { 2, 3, 2, 3 }, { 0, 1, 0, 1 }, { 2, 3, 2, 3 } },
	};
	uint64_t bytes = v[1] << 32 | v[0];

	for (int i = 0; i < 4; i++) {
		unsigned nibble = (unsigned)(v[2] >> (4 * i)) & 15;
		unsigned from = k[0] == INDEX ? nibble & 7 : table[k[0]][v[2] & 3][i];
		uint64_t b = bytes >> (8 * from) & 0xff;
		if (k[0] == INDEX && (nibble & 8))
			b = b & 0x80 ? 0xff : 0;
		r->bits |= b << (8 * i);
	}
}

static void
ref_selp(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = v[2] ? v[0] : v[1];
}

/* c is an s32, or an f32 (k[0]), flushed (k[1]) */
static void
ref_slct(struct answer *r, const uint64_t *v, const int *k)
{
	bool first = (int32_t)v[2] >= 0;

	if (k[0]) {
		struct num c = num_unpack(N_F32, k[1] ? num_flush(N_F32, v[2]) : v[2]);
		first = c.kind != N_NAN && (c.kind == N_ZERO || !c.neg);
	}
	r->bits = first ? v[0] : v[1];
}

void
forms_logic(void)
{
	static const char *const names[] = { "and", "or", "xor", "not", "cnot" };
	static const char *const prmts[] = { "", ".f4e", ".b4e", ".rc8", ".ecl", ".ecr", ".rc16" };
	static const struct { int bits; const char *one, *two; } widths[] = {
		{ 1, "pp", "ppp" }, { 16, "hh", "hhh" }, { 32, "ww", "www" }, { 64, "dd", "ddd" } };

	for (int op = AND; op <= CNOT; op++)
		for (int w = op == CNOT; w < 4; w++) {
			char type[8];
			if (w)
				snprintf(type, sizeof type, "b%d", widths[w].bits);
			else
				snprintf(type, sizeof type, "pred");
			if (op <= XOR)
				form("logic", widths[w].two, ref_logic, K(op, widths[w].bits), 0, "%s.%s $d, $a, $b;", names[op], type);
			else
				form("logic", widths[w].one, ref_logic, K(op, widths[w].bits), 0, "%s.%s $d, $a;", names[op], type);
		}
	for (int table = 0; table < 256; table++)
		form("lop3", "wwww", ref_lop3, K(table), 0, "lop3.b32 $d, $a, $b, $c, 0x%x;", table);
	for (int table = 1; table < 256; table += 41)
		for (int and = 0; and < 2; and++)
			form("lop3", "wwwwp", ref_lop3_bool, K(table, and), 0,
			     "{ .reg .pred q; .reg .b32 x; lop3.%s.b32 $d|q, $a, $b, $c, 0x%x, $e; selp.b32 x, 1, 0, q; xor.b32 $d, $d, x; }",
			     and ? "and" : "or", table);
	for (int w = 1; w < 4; w++) {
		const char *t = w == 1 ? "hhs" : w == 2 ? "wws" : "dds";
		int b = widths[w].bits;
		form("shift", t, ref_shl, K(b), 0, "shl.b%d $d, $a, $b;", b);
		form("shift", t, ref_shr, K(b, 0), 0, "shr.b%d $d, $a, $b;", b);
		form("shift", t, ref_shr, K(b, 0), 0, "shr.u%d $d, $a, $b;", b);
		form("shift", t, ref_shr, K(b, 1), 0, "shr.s%d $d, $a, $b;", b);
	}
	for (int right = 0; right < 2; right++)
		for (int wrap = 0; wrap < 2; wrap++)
			form("shift", "wwws", ref_shf, K(right, wrap), 0, "shf.%c.%s.b32 $d, $a, $b, $c;", "lr"[right], wrap ? "wrap" : "clamp");
	for (int m = INDEX; m <= RC16; m++)
		form("prmt", "wwww", ref_prmt, K(m), 0, "prmt.b32%s $d, $a, $b, $c;", prmts[m]);
	for (int w = 1; w < 4; w++)
		for (const char *t = w == 1 ? "bus" : "busf"; *t; t++) {
			const char *ops = w == 1 ? "hhhp" : w == 2 ? "wwwp" : "dddp", *sl = w == 1 ? "hhhw" : w == 2 ? "wwww" : "dddw",
				*sf = w == 1 ? "hhhf" : w == 2 ? "wwwf" : "dddf";
			form("select", ops, ref_selp, NULL, 0, "selp.%c%d $d, $a, $b, $c;", *t, widths[w].bits);
			form("select", sl, ref_slct, NULL, 0, "slct.%c%d.s32 $d, $a, $b, $c;", *t, widths[w].bits);
			form("select", sf, ref_slct, K(1), 0, "slct.%c%d.f32 $d, $a, $b, $c;", *t, widths[w].bits);
			form("select", sf, ref_slct, K(1, 1), 0, "slct.ftz.%c%d.f32 $d, $a, $b, $c;", *t, widths[w].bits);
		}
}
