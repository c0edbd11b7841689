/*
 * cvt between all types: scalar references and rows.
 */
#include "forms.h"

#include <stdio.h>
#include <string.h>

typedef __int128 s128;
typedef unsigned __int128 u128;

enum clip { CLIP_NONE, CLIP_SAT, CLIP_RELU, CLIP_FINITE, CLIP_RELU_FINITE };

static const struct { const char *name; int bits, is_signed; char letter; } ints[] = {
	{ "u8", 8, 0, 'c' },   { "s8", 8, 1, 'c' },   { "u16", 16, 0, 'h' }, { "s16", 16, 1, 'h' },
	{ "u32", 32, 0, 'w' }, { "s32", 32, 1, 'w' }, { "u64", 64, 0, 'd' }, { "s64", 64, 1, 'd' },
};
static const struct { const char *name; int format; char letter; } floats[] = {
	{ "f16", N_F16, 'k' }, { "bf16", N_BF16, 'z' }, { "f32", N_F32, 'f' }, { "f64", N_F64, 'g' },
};
static const char *const modes[] = { ".rn", ".rz", ".rm", ".rp", ".rna" };

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

/* The row's letters live as long as the table. */
static const char *
letters(char result, char a, char b)
{
	static char sets[256][4];
	static size_t used;
	char want[4] = { result, a, b, 0 };

	for (size_t i = 0; i < used; i++)
		if (strcmp(sets[i], want) == 0)
			return sets[i];
	if (used == 256)
		__builtin_trap();
	memcpy(sets[used], want, 4);
	return sets[used++];
}

/* k: source bits, signed; destination bits, signed; saturate */
static void
ref_int_int(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = value(v[0], k[0], k[1]), lo = least(k[2], k[3]), hi = greatest(k[2], k[3]);

	if (k[4])
		x = x < lo ? lo : x > hi ? hi : x;
	r->bits = (uint64_t)value((uint64_t)x, k[2], k[3]); /* a wider register gets the extended value */
}

/* k: source bits, signed; format, mode, saturate */
static void
ref_int_float(struct answer *r, const uint64_t *v, const int *k)
{
	s128 x = value(v[0], k[0], k[1]);
	enum num_format f = (enum num_format)k[2];

	if (k[4])
		x = x < 0 ? 0 : x > 1 ? 1 : x;
	r->bits = num_pack(f, num_from_uint(x < 0 ? (u128)-x : (u128)x, x < 0), (enum num_mode)k[3], false);
}

/* k: format, mode, bits, signed, ftz */
static void
ref_float_int(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	struct num x = num_unpack(f, k[4] ? num_flush(f, v[0]) : v[0]);

	if (x.kind == N_NAN) /* zero, or with a 64-bit type on either side the top bit */
		r->bits = f == N_F64 || k[2] == 64 ? (uint64_t)value(1ull << (k[2] - 1), k[2], k[3]) : 0;
	else
		r->bits = (uint64_t)num_to_int(x, (enum num_mode)k[1], least(k[2], k[3]), greatest(k[2], k[3]));
}

static void
narrow(struct answer *r, enum num_format to, struct num x, enum num_mode mode, enum clip clip)
{
	uint64_t one = num_pack(to, num_from_uint(1, false), N_RN, false), sign = 1ull << (num_bits(to) - 1);
	bool relu = clip == CLIP_RELU || clip == CLIP_RELU_FINITE;

	r->bits = num_pack(to, x, mode, clip == CLIP_FINITE || clip == CLIP_RELU_FINITE);
	if (x.kind == N_NAN) {
		if (clip == CLIP_SAT)
			r->bits = 0;
		return;
	}
	if ((relu || clip == CLIP_SAT) && (r->bits & sign)) {
		if (r->bits == sign) {
			r->also = sign;
			r->has_also = true;
		}
		r->bits = 0;
	}
	if (clip == CLIP_SAT && num_compare(num_unpack(to, r->bits), num_unpack(to, one)) == 1)
		r->bits = one;
}

/* k: from, to, mode, ftz, clip, any NaN */
static void
ref_float_float(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format from = (enum num_format)k[0], to = (enum num_format)k[1];
	struct num x = num_unpack(from, k[3] && from == N_F32 ? num_flush(from, v[0]) : v[0]);

	narrow(r, to, x, (enum num_mode)k[2], (enum clip)k[4]);
	r->any_nan = k[5] || to == N_F64;
	if (k[3] && to == N_F32) {
		uint64_t down = num_pack(to, x, N_RZ, false);
		if (!num_is_subnormal(to, r->bits) && num_is_subnormal(to, down)) {
			r->also = num_flush(to, down);
			r->has_also = true;
		}
		r->bits = num_flush(to, r->bits);
	}
}

/* To an integral value of the same type. k: format, mode, ftz, saturate */
static void
ref_round(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	struct num x = num_unpack(f, k[2] ? num_flush(f, v[0]) : v[0]);

	narrow(r, f, num_round_int(x, (enum num_mode)k[1]), N_RN, k[3] ? CLIP_SAT : CLIP_NONE);
	r->any_nan = true;
}

/* tf32 stands in the upper 19 bits of a word; the others are not specified. k: mode, clip */
static void
ref_tf32(struct answer *r, const uint64_t *v, const int *k)
{
	narrow(r, N_TF32, num_unpack(N_F32, v[0]), (enum num_mode)k[0], (enum clip)k[1]);
	r->bits <<= 13;
	r->also <<= 13;
	r->ignore = 0x1fff;
	r->has_also = r->has_also || num_unpack(N_F32, v[0]).kind == N_NAN;
	if (num_unpack(N_F32, v[0]).kind == N_NAN)
		r->also = 0x7fffffff;
}

/* Two f32 into one register of two narrow numbers, a in the upper one. k: to, mode, clip */
static void
ref_pack(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format to = (enum num_format)k[0];
	unsigned shift = to == N_F16 || to == N_BF16 ? 16 : to == N_E2M1 ? 4 : 8;
	struct answer low = { 0 }, high = { 0 };

	narrow(&high, to, num_unpack(N_F32, v[0]), (enum num_mode)k[1], (enum clip)k[2]);
	narrow(&low, to, num_unpack(N_F32, v[1]), (enum num_mode)k[1], (enum clip)k[2]);
	r->bits = high.bits << shift | low.bits;
	if (high.has_also || low.has_also) { /* the signs of zeros under relu are open */
		r->ignore = (high.has_also ? 1ull << (num_bits(to) - 1) << shift : 0) | (low.has_also ? 1ull << (num_bits(to) - 1) : 0);
	}
}

/* f16x2 to two bytes, element by element. k: to, clip */
static void
ref_half_byte(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format to = (enum num_format)k[0];
	unsigned shift = to == N_E2M1 ? 4 : 8;

	for (unsigned i = 0; i < 2; i++) {
		struct answer part = { 0 };
		narrow(&part, to, num_unpack(N_F16, v[0] >> (16 * i) & 0xffff), N_RN, (enum clip)k[1]);
		r->bits |= part.bits << (shift * i);
		if (part.has_also)
			r->ignore |= 1ull << (num_bits(to) - 1) << (shift * i);
	}
}

/* One of two bytes to f16. k: from, upper, relu */
static void
ref_byte_half(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format from = (enum num_format)k[0];
	unsigned bits = from == N_E2M1 ? 4 : 8;

	narrow(r, N_F16, num_unpack(from, v[0] >> (k[1] ? bits : 0) & ((1u << num_bits(from)) - 1)), N_RN, k[2] ? CLIP_RELU : CLIP_NONE);
}

static void
int_rows(void)
{
	for (int s = 0; s < 8; s++)
		for (int d = 0; d < 8; d++)
			for (int sat = 0; sat < 2; sat++) {
				char to = ints[d].letter == 'c' ? 'h' : ints[d].letter;
				if (sat && least(ints[s].bits, ints[s].is_signed) >= least(ints[d].bits, ints[d].is_signed) &&
				    greatest(ints[s].bits, ints[s].is_signed) <= greatest(ints[d].bits, ints[d].is_signed))
					continue; /* not a form: nothing to saturate */
				form("cvt.int", letters(to, ints[s].letter, 0), ref_int_int, K(ints[s].bits, ints[s].is_signed, ints[d].bits, ints[d].is_signed, sat),
				     0, "cvt%s.%s.%s $d, $a;", sat ? ".sat" : "", ints[d].name, ints[s].name);
				if (ints[d].bits < 32) /* into a wider register */
					form("cvt.int", letters('w', ints[s].letter, 0), ref_int_int,
					     K(ints[s].bits, ints[s].is_signed, ints[d].bits, ints[d].is_signed, sat), 0, "cvt%s.%s.%s $d, $a;", sat ? ".sat" : "",
					     ints[d].name, ints[s].name);
				if (ints[s].bits < 32) /* from a wider register: the upper bits do not count */
					form("cvt.int", letters(to, 'w', 0), ref_int_int, K(ints[s].bits, ints[s].is_signed, ints[d].bits, ints[d].is_signed, sat), 0,
					     "cvt%s.%s.%s $d, $a;", sat ? ".sat" : "", ints[d].name, ints[s].name);
			}
}

static void
int_float_rows(void)
{
	for (int i = 0; i < 8; i++)
		for (int f = 0; f < 4; f++)
			for (int mode = N_RN; mode <= N_RP; mode++) {
				unsigned sm = floats[f].format == N_BF16 ? 90 : 0;
				char to = ints[i].letter == 'c' ? 'h' : ints[i].letter;
				if (floats[f].format == N_BF16 && ints[i].bits == 8)
					continue; /* not a form */
				form("cvt.intfloat", letters(floats[f].letter, ints[i].letter, 0), ref_int_float,
				     K(ints[i].bits, ints[i].is_signed, floats[f].format, mode), sm, "cvt%s.%s.%s $d, $a;", modes[mode], floats[f].name, ints[i].name);
				if (floats[f].format != N_BF16)
					form("cvt.intfloat", letters(floats[f].letter, ints[i].letter, 0), ref_int_float,
					     K(ints[i].bits, ints[i].is_signed, floats[f].format, mode, 1), sm, "cvt%s.sat.%s.%s $d, $a;", modes[mode], floats[f].name,
					     ints[i].name);
				char from = floats[f].letter == 'k' || floats[f].letter == 'z' ? 'y' : floats[f].letter;
				form("cvt.floatint", letters(to, from, 0), ref_float_int, K(floats[f].format, mode, ints[i].bits, ints[i].is_signed), sm,
				     "cvt%si.%s.%s $d, $a;", modes[mode], ints[i].name, floats[f].name);
				if (floats[f].format == N_F32) {
					form("cvt.floatint", letters(to, from, 0), ref_float_int, K(N_F32, mode, ints[i].bits, ints[i].is_signed, 1), sm,
					     "cvt%si.ftz.%s.f32 $d, $a;", modes[mode], ints[i].name);
					form("cvt.floatint", letters(to, from, 0), ref_float_int, K(N_F32, mode, ints[i].bits, ints[i].is_signed, 1), sm,
					     "cvt%si.ftz.sat.%s.f32 $d, $a;", modes[mode], ints[i].name);
				}
			}
}

static void
float_rows(void)
{
	/* narrowing, with every rounding */
	for (int mode = N_RN; mode <= N_RP; mode++) {
		for (int sat = 0; sat < 2; sat++) {
			const char *s = sat ? ".sat" : "";
			form("cvt.float", "kf", ref_float_float, K(N_F32, N_F16, mode, 0, sat), 0, "cvt%s%s.f16.f32 $d, $a;", modes[mode], s);
			form("cvt.float", "kf", ref_float_float, K(N_F32, N_F16, mode, 1, sat), 0, "cvt%s.ftz%s.f16.f32 $d, $a;", modes[mode], s);
			form("cvt.float", "kg", ref_float_float, K(N_F64, N_F16, mode, 0, sat), 0, "cvt%s%s.f16.f64 $d, $a;", modes[mode], s);
			form("cvt.float", "fg", ref_float_float, K(N_F64, N_F32, mode, 0, sat), 0, "cvt%s%s.f32.f64 $d, $a;", modes[mode], s);
			form("cvt.float", "fg", ref_float_float, K(N_F64, N_F32, mode, 1, sat), 0, "cvt%s.ftz%s.f32.f64 $d, $a;", modes[mode], s);
			for (int f = 0; f < 4; f++) { /* to an integral value */
				char from = floats[f].letter == 'k' ? 'y' : floats[f].letter;
				if (floats[f].format == N_BF16)
					continue;
				form("cvt.round", letters(floats[f].letter, from, 0), ref_round, K(floats[f].format, mode, 0, sat), 0, "cvt%si%s.%s.%s $d, $a;",
				     modes[mode], s, floats[f].name, floats[f].name);
			}
			form("cvt.round", "ff", ref_round, K(N_F32, mode, 1, sat), 0, "cvt%si.ftz%s.f32.f32 $d, $a;", modes[mode], s);
		}
		form("cvt.float", "zg", ref_float_float, K(N_F64, N_BF16, mode), 90, "cvt%s.bf16.f64 $d, $a;", modes[mode]);
		form("cvt.float", "zy", ref_float_float, K(N_F16, N_BF16, mode), 90, "cvt%s.bf16.f16 $d, $a;", modes[mode]);
		form("cvt.float", "ky", ref_float_float, K(N_BF16, N_F16, mode), 90, "cvt%s.f16.bf16 $d, $a;", modes[mode]);
	}
	for (int sat = 0; sat < 2; sat++) {
		const char *s = sat ? ".sat" : "";
		form("cvt.float", "fy", ref_float_float, K(N_F16, N_F32, N_RN, 0, sat), 0, "cvt%s.f32.f16 $d, $a;", s);
		form("cvt.float", "fy", ref_float_float, K(N_F16, N_F32, N_RN, 1, sat), 0, "cvt.ftz%s.f32.f16 $d, $a;", s);
		form("cvt.float", "gy", ref_float_float, K(N_F16, N_F64, N_RN, 0, sat), 0, "cvt%s.f64.f16 $d, $a;", s);
		form("cvt.float", "gf", ref_float_float, K(N_F32, N_F64, N_RN, 0, sat), 0, "cvt%s.f64.f32 $d, $a;", s);
		form("cvt.float", "gf", ref_float_float, K(N_F32, N_F64, N_RN, 1, sat), 0, "cvt.ftz%s.f64.f32 $d, $a;", s);
		form("cvt.float", "ff", ref_float_float, K(N_F32, N_F32, N_RN, 0, sat, 1), 0, "cvt%s.f32.f32 $d, $a;", s);
		form("cvt.float", "ff", ref_float_float, K(N_F32, N_F32, N_RN, 1, sat, 1), 0, "cvt.ftz%s.f32.f32 $d, $a;", s);
		form("cvt.float", "gg", ref_float_float, K(N_F64, N_F64, N_RN, 0, sat, 1), 0, "cvt%s.f64.f64 $d, $a;", s);
	}
	form("cvt.float", "fy", ref_float_float, K(N_BF16, N_F32, N_RN, 0, 0, 1), 90, "cvt.f32.bf16 $d, $a;");
	form("cvt.float", "gy", ref_float_float, K(N_BF16, N_F64), 90, "cvt.f64.bf16 $d, $a;");
	for (int mode = N_RN; mode <= N_RZ; mode++)
		for (int clip = CLIP_NONE; clip <= CLIP_RELU_FINITE; clip++) {
			static const char *const clips[] = { "", ".sat", ".relu", ".satfinite", ".relu.satfinite" };
			if (clip == CLIP_SAT)
				continue;
			form("cvt.float", "zf", ref_float_float, K(N_F32, N_BF16, mode, 0, clip), 80, "cvt%s%s.bf16.f32 $d, $a;", modes[mode], clips[clip]);
			if (clip)
				form("cvt.float", "kf", ref_float_float, K(N_F32, N_F16, mode, 0, clip), 80, "cvt%s%s.f16.f32 $d, $a;", modes[mode], clips[clip]);
			form("cvt.pack", "Kff", ref_pack, K(N_F16, mode, clip), 80, "cvt%s%s.f16x2.f32 $d, $a, $b;", modes[mode], clips[clip]);
			form("cvt.pack", "Zff", ref_pack, K(N_BF16, mode, clip), 80, "cvt%s%s.bf16x2.f32 $d, $a, $b;", modes[mode], clips[clip]);
			form("cvt.tf32", "wf", ref_tf32, K(mode, clip), clip >= CLIP_FINITE ? 100 : 90, "cvt%s%s.tf32.f32 $d, $a;", modes[mode], clips[clip]);
		}
	form("cvt.tf32", "wf", ref_tf32, K(N_RNA), 80, "cvt.rna.tf32.f32 $d, $a;");
	form("cvt.tf32", "wf", ref_tf32, K(N_RNA, CLIP_FINITE), 80, "cvt.rna.satfinite.tf32.f32 $d, $a;");
}

static void
byte_rows(void)
{
	static const struct { const char *name; int format; } bytes[] = {
		{ "e4m3x2", N_E4M3 }, { "e5m2x2", N_E5M2 }, { "e2m3x2", N_E2M3 }, { "e3m2x2", N_E3M2 } };

	for (int b = 0; b < 4; b++)
		for (int relu = 0; relu < 2; relu++) {
			unsigned sm = b < 2 ? 89 : 1200;
			const char *s = relu ? ".relu" : "";
			int clip = relu ? CLIP_RELU_FINITE : CLIP_FINITE;
			form("cvt.fp8", "hff", ref_pack, K(bytes[b].format, N_RN, clip), sm, "cvt.rn.satfinite%s.%s.f32 $d, $a, $b;", s, bytes[b].name);
			if (b < 2) {
				form("cvt.fp8", "hw", ref_half_byte, K(bytes[b].format, clip), sm, "cvt.rn.satfinite%s.%s.f16x2 $d, $a;", s, bytes[b].name);
				/* every half, with itself above, and each alone */
				form("cvt.fp8", "hy", ref_half_byte, K(bytes[b].format, clip), sm,
				     "{ .reg .b32 x; .reg .b16 z; mov.b16 z, 0; mov.b32 x, {$a, z}; cvt.rn.satfinite%s.%s.f16x2 $d, x; }", s, bytes[b].name);
			}
			for (int upper = 0; upper < 2; upper++)
				form("cvt.fp8", "ky", ref_byte_half, K(bytes[b].format, upper, relu), sm,
				     "{ .reg .b32 x; .reg .b16 y; cvt.rn%s.f16x2.%s x, $a; mov.b32 {%s}, x; }", s, bytes[b].name, upper ? "y, $d" : "$d, y");
		}
	for (int relu = 0; relu < 2; relu++) {
		const char *s = relu ? ".relu" : "";
		form("cvt.fp8", "hff", ref_pack, K(N_E2M1, N_RN, relu ? CLIP_RELU_FINITE : CLIP_FINITE), 1200,
		     "{ .reg .b8 x; cvt.rn.satfinite%s.e2m1x2.f32 x, $a, $b; cvt.u16.u8 $d, x; }", s);
		for (int upper = 0; upper < 2; upper++)
			form("cvt.fp8", "kq", ref_byte_half, K(N_E2M1, upper, relu), 1200,
			     "{ .reg .b8 w; .reg .b32 x; .reg .b16 y; cvt.u8.u16 w, $a; cvt.rn%s.f16x2.e2m1x2 x, w; mov.b32 {%s}, x; }", s,
			     upper ? "y, $d" : "$d, y");
	}
}

/* cvt.pack.sat: two s32 into narrow integers, b below a, a third operand shifted up behind them. k: bits, signed, with a third operand */
static void
ref_cvt_pack(struct answer *r, const uint64_t *v, const int *k)
{
	uint64_t mask = (1ull << k[0]) - 1;
	s128 lo = least(k[0], k[1]), hi = greatest(k[0], k[1]), a = value(v[0], 32, 1), b = value(v[1], 32, 1);

	a = a < lo ? lo : a > hi ? hi : a;
	b = b < lo ? lo : b > hi ? hi : b;
	r->bits = ((uint64_t)a & mask) << k[0] | ((uint64_t)b & mask);
	if (k[2])
		r->bits |= v[2] << (2 * k[0]);
}

void
forms_convert(void)
{
	int_rows();
	int_float_rows();
	float_rows();
	byte_rows();
	form("cvt.pack", "www", ref_cvt_pack, K(16, 0), 0, "cvt.pack.sat.u16.s32 $d, $a, $b;");
	form("cvt.pack", "www", ref_cvt_pack, K(16, 1), 0, "cvt.pack.sat.s16.s32 $d, $a, $b;");
	form("cvt.pack", "wwww", ref_cvt_pack, K(8, 0, 1), 0, "cvt.pack.sat.u8.s32.b32 $d, $a, $b, $c;");
	form("cvt.pack", "wwww", ref_cvt_pack, K(8, 1, 1), 0, "cvt.pack.sat.s8.s32.b32 $d, $a, $b, $c;");
	form("cvt.pack", "wwww", ref_cvt_pack, K(4, 0, 1), 0, "cvt.pack.sat.u4.s32.b32 $d, $a, $b, $c;");
	form("cvt.pack", "wwww", ref_cvt_pack, K(2, 1, 1), 0, "cvt.pack.sat.s2.s32.b32 $d, $a, $b, $c;");
}
