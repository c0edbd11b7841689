/*
 * Video instructions, scalar and on two or four parts: scalar references and rows.
 */
#include "forms.h"

#include <stdio.h>

enum { V_ADD, V_SUB, V_ABSDIFF, V_MIN, V_MAX, V_SHL, V_SHR, V_SET, V_AVRG };
enum { SECOND_NONE, SECOND_ADD, SECOND_MIN, SECOND_MAX, SECOND_MERGE };

static int64_t
extend(uint64_t v, int bits, int is_signed)
{
	v &= (1ull << bits) - 1;
	return is_signed && (v >> (bits - 1) & 1) ? (int64_t)v - (1ll << bits) : (int64_t)v;
}

static int64_t
clamp(int64_t x, int bits, int is_signed)
{
	int64_t lo = is_signed ? -(1ll << (bits - 1)) : 0, hi = (1ll << (bits - is_signed)) - 1;
	return x < lo ? lo : x > hi ? hi : x;
}

static int64_t
operate(int op, int64_t a, int64_t b, int wrap, int compare)
{
	uint32_t n = (uint32_t)b;

	n = wrap ? n & 31 : n > 32 ? 32 : n;
	switch (op) {
	case V_ADD: return a + b;
	case V_SUB: return a - b;
	case V_ABSDIFF: return a > b ? a - b : b - a;
	case V_MIN: return a < b ? a : b;
	case V_MAX: return a > b ? a : b;
	case V_SHL: return (int64_t)((uint64_t)a << n);
	case V_SHR: return a >> n;
	case V_AVRG: return (a + b + (a + b >= 0)) >> 1;
	case V_SET: return compare == 0 ? a == b : compare == 1 ? a != b : compare == 2 ? a < b : a >= b;
	}
	return 0;
}

/*
 * k[0]: operation; k[1]: bit 0 d signed, bit 1 a signed, bit 2 b signed, bit 3 saturate, bit 4 wrap; k[2], k[3]: width << 8 | first bit of the parts of a
 * and b; k[4]: second operation; k[5]: part of d for a merge, or the comparison of vset
 */
static void
ref_scalar(struct answer *r, const uint64_t *v, const int *k)
{
	int d_signed = k[1] & 1, d_bits = k[4] == SECOND_MERGE ? k[5] >> 8 : 32, d_from = k[4] == SECOND_MERGE ? k[5] & 255 : 0;
	int64_t a = extend(v[0] >> (k[2] & 255), k[2] >> 8, k[1] >> 1 & 1), b = extend(v[1] >> (k[3] & 255), k[3] >> 8, k[1] >> 2 & 1);
	int64_t x = operate(k[0], a, b, k[1] >> 4 & 1, k[4] == SECOND_MERGE ? 0 : k[5]);
	uint32_t c = (uint32_t)v[2];

	if (k[1] & 8)
		x = clamp(x, d_bits, d_signed);
	switch (k[4]) {
	case SECOND_NONE:
		r->bits = (uint32_t)x;
		break;
	case SECOND_ADD:
		r->bits = (uint32_t)x + c;
		break;
	case SECOND_MIN:
	case SECOND_MAX:
		if (d_signed)
			r->bits = ((int32_t)x < (int32_t)c) == (k[4] == SECOND_MIN) ? (uint32_t)x : c;
		else
			r->bits = ((uint32_t)x < c) == (k[4] == SECOND_MIN) ? (uint32_t)x : c;
		break;
	case SECOND_MERGE: {
		uint32_t mask = (uint32_t)((1ull << d_bits) - 1) << d_from;
		r->bits = (c & ~mask) | ((uint32_t)x << d_from & mask);
		break;
	}
	}
}

/* k[0]: operation; k[1] as above; k[2]: parts; k[3]: accumulate; k[4]: mask of parts; k[5]: comparison */
static void
ref_parts(struct answer *r, const uint64_t *v, const int *k)
{
	int parts = k[2], bits = 32 / parts;
	uint32_t c = (uint32_t)v[2], sum = c, merged = c;

	for (int i = 0; i < parts; i++) {
		int64_t a = extend(v[0] >> (i * bits), bits, k[1] >> 1 & 1), b = extend(v[1] >> (i * bits), bits, k[1] >> 2 & 1);
		int64_t x = operate(k[0], a, b, 0, k[5]);
		uint32_t mask = (uint32_t)((1ull << bits) - 1) << (i * bits);
		if (!(k[4] >> i & 1))
			continue;
		if (k[1] & 8)
			x = clamp(x, bits, k[1] & 1);
		sum += (uint32_t)(k[1] & 8 || k[0] == V_SET ? x : k[1] & 1 ? extend((uint64_t)x, bits + 1, 1) : x);
		merged = (merged & ~mask) | ((uint32_t)x << (i * bits) & mask);
	}
	r->bits = k[3] ? sum : merged;
}

void
forms_video(void)
{
	static const char *const names[] = { "vadd", "vsub", "vabsdiff", "vmin", "vmax" };
	static const char *const compares[] = { "eq", "ne", "lt", "ge" };
	static const struct { const char *text; int part; } selectors[] = {
		{ "", 32 << 8 }, { ".b0", 8 << 8 }, { ".b3", 8 << 8 | 24 }, { ".h0", 16 << 8 }, { ".h1", 16 << 8 | 16 } };
	static const char *const seconds[] = { "", ".add", ".min", ".max" };

	for (int op = V_ADD; op <= V_MAX; op++)
		for (int types = 0; types < 8; types++) {
			char t[32];
			int n = op * 8 + types;
			const int as = n % 5, bs = (n / 5 + 2) % 5;
			snprintf(t, sizeof t, ".%c32.%c32.%c32", "us"[types & 1], "us"[types >> 1 & 1], "us"[types >> 2 & 1]);
			for (int sat = 0; sat < 2; sat++) {
				const char *s = sat ? ".sat" : "";
				form("video", "www", ref_scalar, K(op, types | sat << 3, selectors[as].part, selectors[bs].part), 0, "%s%s%s $d, $a%s, $b%s;", names[op], t, s,
				     selectors[as].text, selectors[bs].text);
				form("video", "wwww", ref_scalar, K(op, types | sat << 3, selectors[as].part, selectors[bs].part, 1 + n % 3), 0, "%s%s%s%s $d, $a%s, $b%s, $c;",
				     names[op], t, s, seconds[1 + n % 3], selectors[as].text, selectors[bs].text);
				form("video", "wwww", ref_scalar, K(op, types | sat << 3, selectors[as].part, selectors[bs].part, SECOND_MERGE, selectors[1 + n % 4].part), 0,
				     "%s%s%s $d%s, $a%s, $b%s, $c;", names[op], t, s, selectors[1 + n % 4].text, selectors[as].text, selectors[bs].text);
			}
		}
	for (int op = V_SHL; op <= V_SHR; op++)
		for (int types = 0; types < 4; types++)
			for (int wrap = 0; wrap < 2; wrap++)
				form("video", "wws", ref_scalar, K(op, types | wrap << 4, 32 << 8, 32 << 8), 0, "v%s.%c32.%c32.u32.%s $d, $a, $b;", op == V_SHL ? "shl" : "shr",
				     "us"[types & 1], "us"[types >> 1 & 1], wrap ? "wrap" : "clamp");
	for (int c = 0; c < 4; c++)
		for (int types = 0; types < 8; types += 2)
			form("video", "www", ref_scalar, K(V_SET, types, 32 << 8, 32 << 8, 0, c), 0, "vset.%c32.%c32.%s $d, $a, $b;", "us"[types >> 1 & 1], "us"[types >> 2 & 1],
			     compares[c]);
	for (int parts = 2; parts <= 4; parts += 2)
		for (int op = V_ADD; op <= V_MAX; op++)
			for (int types = 0; types < 8; types += 7)
				for (int sat = 0; sat < 2; sat++) {
					char y = "us"[types & 1];
					form("video.parts", "wwww", ref_parts, K(op, types | sat << 3, parts, 0, 15), 0, "%s%d.%c32.%c32.%c32%s $d, $a, $b, $c;", names[op], parts, y, y,
					     y, sat ? ".sat" : "");
					form("video.parts", "wwww", ref_parts, K(op, types | sat << 3, parts, 0, 2), 0, "%s%d.%c32.%c32.%c32%s $d%s, $a, $b, $c;", names[op], parts, y,
					     y, y, sat ? ".sat" : "", parts == 2 ? ".h1" : ".b1");
				}
}
