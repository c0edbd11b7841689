/*
 * Floating-point arithmetic that is rounded exactly (f32, f64, f16, bf16 and packed halves): scalar references and rows.
 */
#include "forms.h"

#include <stdio.h>
#include <string.h>

enum op { ADD, SUB, MUL, FMA, DIV, RCP, SQRT };
enum clip { CLIP_NONE, CLIP_SAT, CLIP_RELU };

static uint64_t
bits_of(enum num_format f, double value)
{
	uint64_t bits;

	memcpy(&bits, &value, 8);
	return num_pack(f, num_unpack(N_F64, bits), N_RN, false);
}

static bool
negative(enum num_format f, uint64_t bits)
{
	return bits >> (num_bits(f) - 1) & 1;
}

/* What an arithmetic instruction makes of an exact result. */
static void
finish(struct answer *r, enum num_format f, struct num x, enum num_mode mode, bool ftz, enum clip clip)
{
	uint64_t zero = (uint64_t)x.neg << (num_bits(f) - 1);

	if (x.kind == N_NAN) {
		r->bits = clip == CLIP_SAT ? 0 : num_nan(f);
		r->any_nan = f == N_F64;
		return;
	}
	r->bits = num_pack(f, x, mode, false);
	if (ftz) {
		uint64_t down = num_pack(f, x, N_RZ, false);
		if (num_is_subnormal(f, r->bits)) {
			r->bits = zero;
		} else if (num_is_subnormal(f, down)) { /* rounds up to the smallest normal number: tiny before or after rounding */
			r->also = zero;
			r->has_also = true;
		}
	}
	if (clip != CLIP_NONE) {
		if (r->bits == 1ull << (num_bits(f) - 1)) { /* -0: either zero */
			r->also = 0;
			r->has_also = true;
		} else if (negative(f, r->bits)) {
			r->bits = 0;
			r->has_also = false;
		}
		if (clip == CLIP_SAT && num_compare(num_unpack(f, r->bits), num_unpack(f, bits_of(f, 1.0))) == 1)
			r->bits = bits_of(f, 1.0);
	}
}

/* k: format, op, mode, ftz, clip */
static void
ref_arithmetic(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	enum num_mode mode = (enum num_mode)k[2];
	struct num a = num_unpack(f, k[3] ? num_flush(f, v[0]) : v[0]), x = a;
	struct num b = num_unpack(f, k[3] ? num_flush(f, v[1]) : v[1]);
	struct num c = num_unpack(f, k[3] ? num_flush(f, v[2]) : v[2]);

	switch ((enum op)k[1]) {
	case ADD: x = num_add(a, b, mode); break;
	case SUB: x = num_add(a, num_neg(b), mode); break;
	case MUL: x = num_mul(a, b); break;
	case FMA: x = num_add(num_mul(a, b), c, mode); break;
	case DIV: x = num_div(a, b); break;
	case RCP: x = num_div(num_from_uint(1, false), a); break;
	case SQRT: x = num_sqrt(a); break;
	}
	finish(r, f, x, mode, k[3], (enum clip)k[4]);
}

/* Operands a (and b) of a smaller format, the last one and the result f32. k: small format, op, mode, saturate */
static void
ref_mixed(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	enum num_mode mode = (enum num_mode)k[2];
	struct num a = num_unpack(f, v[0]), x;

	if (k[1] == FMA)
		x = num_add(num_mul(a, num_unpack(f, v[1])), num_unpack(N_F32, v[2]), mode);
	else if (k[1] == SUB)
		x = num_add(a, num_neg(num_unpack(N_F32, v[1])), mode);
	else
		x = num_add(a, num_unpack(N_F32, v[1]), mode);
	finish(r, N_F32, x, mode, false, k[3] ? CLIP_SAT : CLIP_NONE);
}

/* One half of an f32x2 instruction. k: op, mode, ftz, upper half */
static void
ref_f32x2(struct answer *r, const uint64_t *v, const int *k)
{
	uint64_t part[3];

	for (int i = 0; i < 3; i++)
		part[i] = k[3] ? v[i] >> 32 : v[i] & 0xffffffff;
	ref_arithmetic(r, part, K(N_F32, k[0], k[1], k[2]));
}

/* k: format, neg, ftz */
static void
ref_abs_neg(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	uint64_t a = k[2] ? num_flush(f, v[0]) : v[0], sign = 1ull << (num_bits(f) - 1);

	r->bits = k[1] ? a ^ sign : a & ~sign;
	r->any_nan = true;
}

/* k: format, max, ftz, NaN, xorsign.abs, operands */
static void
ref_minmax(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	uint64_t sign = 1ull << (num_bits(f) - 1), result = 0, a, b;
	int operands = k[5] ? k[5] : 2;

	r->any_nan = f == N_F64;
	for (int i = 0; i < operands; i++) {
		b = k[2] ? num_flush(f, v[i]) : v[i];
		if (k[4])
			b &= ~sign;
		if (i == 0) {
			result = b;
			continue;
		}
		a = result;
		bool nan_a = num_bits_nan(f, a), nan_b = num_bits_nan(f, b);
		if ((nan_a && nan_b) || (k[3] && (nan_a || nan_b))) {
			result = num_nan(f);
		} else if (nan_a) {
			result = b;
		} else if (nan_b) {
			result = a;
		} else {
			int order = num_compare(num_unpack(f, a), num_unpack(f, b));
			if (order == 0) /* +0 is greater than -0 */
				order = negative(f, a) == negative(f, b) ? 0 : negative(f, a) ? -1 : 1;
			result = (order < 0) == (k[1] == 0) ? a : b;
		}
	}
	if (k[4] && operands == 2 && !num_bits_nan(f, result))
		result = (result & ~sign) | ((v[0] ^ v[1]) & sign);
	r->bits = result;
}

/* k: format */
static void
ref_copysign(struct answer *r, const uint64_t *v, const int *k)
{
	uint64_t sign = 1ull << (num_bits((enum num_format)k[0]) - 1);

	r->bits = (v[0] & sign) | (v[1] & ~sign);
}

enum test { FINITE, INFINITE, NUMBER, NOTANUMBER, NORMAL, SUBNORMAL };

/* k: format, test */
static void
ref_testp(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	struct num a = num_unpack(f, v[0]);
	bool subnormal = num_is_subnormal(f, v[0]);

	switch ((enum test)k[1]) {
	case FINITE: r->bits = a.kind == N_FINITE || a.kind == N_ZERO; break;
	case INFINITE: r->bits = a.kind == N_INF; break;
	case NUMBER: r->bits = a.kind != N_NAN; break;
	case NOTANUMBER: r->bits = a.kind == N_NAN; break;
	case NORMAL: r->bits = a.kind == N_FINITE && !subnormal; break;
	case SUBNORMAL: r->bits = subnormal; break;
	}
}

static const char *const mode_names[] = { ".rn", ".rz", ".rm", ".rp" };

void
forms_float(void)
{
	static const char *const names[] = { "add", "sub", "mul", "fma", "div", "rcp", "sqrt" };
	static const char *const groups[] = { "add.f", "sub.f", "mul.f", "fma.f", "div.f", "rcp.f", "sqrt.f" };
	static const char *const operands[] = { "$a, $b", "$a, $b", "$a, $b", "$a, $b, $c", "$a, $b", "$a", "$a" };
	static const char *const types32[] = { "fff", "fff", "fff", "ffff", "fff", "ff", "ff" };
	static const char *const types64[] = { "ggg", "ggg", "ggg", "gggg", "ggg", "gg", "gg" };
	static const char *const tests[] = { "finite", "infinite", "number", "notanumber", "normal", "subnormal" };

	for (int op = ADD; op <= SQRT; op++) {
		for (int mode = N_RN; mode <= N_RP; mode++)
			for (int ftz = 0; ftz < 2; ftz++)
				for (int sat = 0; sat < (op <= FMA ? 2 : 1); sat++)
					form(groups[op], types32[op], ref_arithmetic, K(N_F32, op, mode, ftz, sat), 0, "%s%s%s%s.f32 $d, %s;", names[op],
					     mode_names[mode], ftz ? ".ftz" : "", sat ? ".sat" : "", operands[op]);
		if (op <= MUL) {
			form(groups[op], types32[op], ref_arithmetic, K(N_F32, op, N_RN), 0, "%s.f32 $d, %s;", names[op], operands[op]);
			form(groups[op], types32[op], ref_arithmetic, K(N_F32, op, N_RN, 1, 1), 0, "%s.ftz.sat.f32 $d, %s;", names[op], operands[op]);
			form(groups[op], types64[op], ref_arithmetic, K(N_F64, op, N_RN), 0, "%s.f64 $d, %s;", names[op], operands[op]);
		}
		for (int mode = N_RN; mode <= N_RP; mode++)
			form(groups[op], types64[op], ref_arithmetic, K(N_F64, op, mode), 0, "%s%s.f64 $d, %s;", names[op], mode_names[mode], operands[op]);
	}
	for (int mode = N_RN; mode <= N_RP; mode++) {
		form("mad.f", "ffff", ref_arithmetic, K(N_F32, FMA, mode), 0, "mad%s.f32 $d, $a, $b, $c;", mode_names[mode]);
		form("mad.f", "ffff", ref_arithmetic, K(N_F32, FMA, mode, 1, 1), 0, "mad%s.ftz.sat.f32 $d, $a, $b, $c;", mode_names[mode]);
		form("mad.f", "gggg", ref_arithmetic, K(N_F64, FMA, mode), 0, "mad%s.f64 $d, $a, $b, $c;", mode_names[mode]);
	}
	for (int neg = 0; neg < 2; neg++) {
		form("absneg.f", "ff", ref_abs_neg, K(N_F32, neg), 0, "%s.f32 $d, $a;", neg ? "neg" : "abs");
		form("absneg.f", "ff", ref_abs_neg, K(N_F32, neg, 1), 0, "%s.ftz.f32 $d, $a;", neg ? "neg" : "abs");
		form("absneg.f", "gg", ref_abs_neg, K(N_F64, neg), 0, "%s.f64 $d, $a;", neg ? "neg" : "abs");
	}
	for (int max = 0; max < 2; max++) {
		const char *op = max ? "max" : "min";
		for (int ftz = 0; ftz < 2; ftz++)
			for (int nan = 0; nan < 2; nan++)
				for (int xorsign = 0; xorsign < 2; xorsign++)
					form("minmax.f", "fff", ref_minmax, K(N_F32, max, ftz, nan, xorsign), nan || xorsign ? 86 : 0, "%s%s%s%s.f32 $d, $a, $b;", op,
					     ftz ? ".ftz" : "", nan ? ".NaN" : "", xorsign ? ".xorsign.abs" : "");
		form("minmax.f", "ggg", ref_minmax, K(N_F64, max), 0, "%s.f64 $d, $a, $b;", op);
		for (int nan = 0; nan < 2; nan++)
			for (int abs = 0; abs < 2; abs++)
				form("minmax3.f", "ffff", ref_minmax, K(N_F32, max, 0, nan, abs, 3), 100, "%s%s%s.f32 $d, $a, $b, $c;", op, nan ? ".NaN" : "", abs ? ".abs" : "");
	}
	form("copysign", "fff", ref_copysign, K(N_F32), 0, "copysign.f32 $d, $a, $b;");
	form("copysign", "ggg", ref_copysign, K(N_F64), 0, "copysign.f64 $d, $a, $b;");
	for (int t = FINITE; t <= SUBNORMAL; t++) {
		form("testp", "pf", ref_testp, K(N_F32, t), 0, "testp.%s.f32 $d, $a;", tests[t]);
		form("testp", "pg", ref_testp, K(N_F64, t), 0, "testp.%s.f64 $d, $a;", tests[t]);
	}
	for (int half = 0; half < 2; half++) {
		const char *t = half ? "bf16" : "f16", *two = half ? "fzf" : "fkf", *three = half ? "fzzf" : "fkkf";
		int f = half ? N_BF16 : N_F16;
		for (int mode = N_RN; mode <= N_RP; mode++)
			for (int sat = 0; sat < 2; sat++) {
				form("mixed.f", two, ref_mixed, K(f, ADD, mode, sat), 100, "add%s%s.f32.%s $d, $a, $b;", mode_names[mode], sat ? ".sat" : "", t);
				form("mixed.f", two, ref_mixed, K(f, SUB, mode, sat), 100, "sub%s%s.f32.%s $d, $a, $b;", mode_names[mode], sat ? ".sat" : "", t);
				form("mixed.f", three, ref_mixed, K(f, FMA, mode, sat), 100, "fma%s%s.f32.%s $d, $a, $b, $c;", mode_names[mode], sat ? ".sat" : "", t);
			}
	}
	for (int op = ADD; op <= FMA; op++)
		for (int mode = N_RN; mode <= N_RP; mode++)
			for (int ftz = 0; ftz < 2; ftz++)
				for (int upper = 0; upper < 2; upper++)
					form("f32x2", op == FMA ? "fddd" : "fdd", ref_f32x2, K(op, mode, ftz, upper), 100,
					     "{ .reg .b64 x; .reg .b32 y; %s%s%s.f32x2 x, %s; mov.b64 {%s}, x; }", names[op], mode_names[mode], ftz ? ".ftz" : "",
					     operands[op], upper ? "y, $d" : "$d, y");
}

void
forms_half(void)
{
	static const char *const names[] = { "add", "sub", "mul", "fma" };
	static const char *const operands[] = { "$a, $b", "$a, $b", "$a, $b", "$a, $b, $c" };
	static const char *const clips[] = { "", ".sat", ".relu" };
	static const struct { const char *name, *one, *two, *three; int format; } types[] = {
		{ "f16",    "kk", "kkk", "kkkk", N_F16 },
		{ "f16x2",  "KK", "KKK", "KKKK", N_F16 },
		{ "bf16",   "zz", "zzz", "zzzz", N_BF16 },
		{ "bf16x2", "ZZ", "ZZZ", "ZZZZ", N_BF16 },
	};

	for (int t = 0; t < 4; t++) {
		bool bf = types[t].format == N_BF16;
		for (int op = ADD; op <= FMA; op++) {
			const char *letters = op == FMA ? types[t].three : types[t].two;
			for (int ftz = 0; ftz < (bf ? 1 : 2); ftz++)
				for (int clip = CLIP_NONE; clip <= CLIP_RELU; clip++) {
					unsigned sm = bf ? op == FMA ? 80 : 90 : clip == CLIP_RELU ? 80 : 0;
					if ((clip == CLIP_RELU && op != FMA) || (clip == CLIP_SAT && bf))
						continue;
					form("half", letters, ref_arithmetic, K(types[t].format, op, N_RN, ftz, clip), sm, "%s.rn%s%s.%s $d, %s;", names[op],
					     ftz ? ".ftz" : "", clips[clip], types[t].name, operands[op]);
					if (op != FMA)
						form("half", letters, ref_arithmetic, K(types[t].format, op, N_RN, ftz, clip), sm, "%s%s%s.%s $d, %s;", names[op],
						     ftz ? ".ftz" : "", clips[clip], types[t].name, operands[op]);
				}
		}
		for (int neg = 0; neg < 2; neg++)
			for (int ftz = 0; ftz < (bf ? 1 : 2); ftz++)
				form("half", types[t].one, ref_abs_neg, K(types[t].format, neg, ftz), bf ? 80 : 0, "%s%s.%s $d, $a;", neg ? "neg" : "abs",
				     ftz ? ".ftz" : "", types[t].name);
		for (int max = 0; max < 2; max++)
			for (int ftz = 0; ftz < (bf ? 1 : 2); ftz++)
				for (int nan = 0; nan < 2; nan++)
					for (int xorsign = 0; xorsign < 2; xorsign++)
						form("half", types[t].two, ref_minmax, K(types[t].format, max, ftz, nan, xorsign), xorsign ? 86 : 80, "%s%s%s%s.%s $d, $a, $b;",
						     max ? "max" : "min", ftz ? ".ftz" : "", nan ? ".NaN" : "", xorsign ? ".xorsign.abs" : "", types[t].name);
	}
}
