/*
 * set and setp: scalar references and rows.
 */
#include "forms.h"

#include <stdio.h>
#include <string.h>

enum cmp { EQ, NE, LT, LE, GT, GE, LO, LS, HI, HS, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NAN_, CMPS };
static const char *const cmp_names[CMPS] = { "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs",
	"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan" };

enum boolean { B_NONE, B_AND, B_OR, B_XOR, B_AND_NOT };

static const struct { const char *name; char letter; int bits, is_signed, format, cmps; unsigned sm; } types[] = {
	{ "b16",  'h', 16, 0, -1,     2,  0 },  { "b32",  'w', 32, 0, -1,     2,  0 },  { "b64", 'd', 64, 0, -1, 2, 0 },
	{ "u16",  'h', 16, 0, -1,     10, 0 },  { "u32",  'w', 32, 0, -1,     10, 0 },  { "u64", 'd', 64, 0, -1, 10, 0 },
	{ "s16",  'h', 16, 1, -1,     6,  0 },  { "s32",  'w', 32, 1, -1,     6,  0 },  { "s64", 'd', 64, 1, -1, 6, 0 },
	{ "f32",  'f', 32, 0, N_F32,  18, 0 },  { "f64",  'g', 64, 0, N_F64,  18, 0 },
	{ "f16",  'k', 16, 0, N_F16,  18, 0 },  { "bf16", 'z', 16, 0, N_BF16, 18, 90 },
};
#define TYPES (sizeof types / sizeof types[0])

static bool
holds(enum cmp c, int order) /* order: -1, 0, 1, 2 unordered */
{
	bool un = order == 2;

	switch (c) {
	case EQ: return order == 0;
	case NE: return order == -1 || order == 1;
	case LT: case LO: return order == -1;
	case LE: case LS: return order == -1 || order == 0;
	case GT: case HI: return order == 1;
	case GE: case HS: return order == 0 || order == 1;
	case EQU: return order == 0 || un;
	case NEU: return order != 0;
	case LTU: return order == -1 || un;
	case LEU: return order == -1 || order == 0 || un;
	case GTU: return order == 1 || un;
	case GEU: return order == 0 || order == 1 || un;
	case NUM: return !un;
	case NAN_: return un;
	default: return false;
	}
}

static bool
compare(size_t type, enum cmp c, bool ftz, uint64_t a, uint64_t b)
{
	if (types[type].format >= 0) {
		enum num_format f = (enum num_format)types[type].format;
		if (ftz)
			a = num_flush(f, a), b = num_flush(f, b);
		return holds(c, num_compare(num_unpack(f, a), num_unpack(f, b)));
	}
	if (types[type].is_signed) {
		int shift = 64 - types[type].bits;
		int64_t x = (int64_t)(a << shift) >> shift, y = (int64_t)(b << shift) >> shift;
		return holds(c, x < y ? -1 : x > y);
	}
	return holds(c, a < b ? -1 : a > b);
}

static bool
combine(enum boolean op, bool t, bool c)
{
	switch (op) {
	case B_AND: return t && c;
	case B_OR: return t || c;
	case B_XOR: return t != c;
	case B_AND_NOT: return t && !c;
	default: return t;
	}
}

/* k: type, comparison, ftz, boolean, of the complement */
static void
ref_setp(struct answer *r, const uint64_t *v, const int *k)
{
	bool t = compare((size_t)k[0], (enum cmp)k[1], k[2], v[0], v[1]);

	r->bits = combine((enum boolean)k[3], k[4] ? !t : t, v[2]);
}

/* k: type, comparison, ftz, boolean, result (0 integer, else format + 1), result bits */
static void
ref_set(struct answer *r, const uint64_t *v, const int *k)
{
	bool t = combine((enum boolean)k[3], compare((size_t)k[0], (enum cmp)k[1], k[2], v[0], v[1]), v[2]);

	if (!t)
		r->bits = 0;
	else if (k[4])
		r->bits = num_pack((enum num_format)(k[4] - 1), num_from_uint(1, false), N_RN, false);
	else
		r->bits = k[5] >= 64 ? ~0ull : (1ull << k[5]) - 1;
}

static const char *
letters(char a, char b, char c, char d)
{
	static char sets[128][5];
	static size_t used;
	char want[5] = { a, b, c, d, 0 };

	for (size_t i = 0; i < used; i++)
		if (strcmp(sets[i], want) == 0)
			return sets[i];
	if (used == 128)
		__builtin_trap();
	memcpy(sets[used], want, 5);
	return sets[used++];
}

static bool
applies(size_t type, int c)
{
	return types[type].cmps == 18 ? c < LO || c > HS : c < types[type].cmps;
}

void
forms_compare(void)
{
	static const char *const bools[] = { "", ".and", ".or", ".xor", ".and" };

	for (size_t t = 0; t < TYPES; t++)
		for (int c = 0; c < CMPS; c++) {
			char l = types[t].letter;
			bool can_ftz = types[t].format == N_F32 || types[t].format == N_F16;
			if (!applies(t, c))
				continue;
			for (int ftz = 0; ftz <= can_ftz; ftz++) {
				const char *z = ftz ? ".ftz" : "";
				form("setp", letters('p', l, l, 0), ref_setp, K((int)t, c, ftz), types[t].sm, "setp.%s%s.%s $d, $a, $b;", cmp_names[c], z, types[t].name);
				bool two = types[t].format != N_F16 && types[t].format != N_BF16; /* p|q is for the packed halves there */
				if (two)
					form("setp", letters('p', l, l, 0), ref_setp, K((int)t, c, ftz, 0, 1), types[t].sm,
					     "{ .reg .pred q; setp.%s%s.%s q|$d, $a, $b; }", cmp_names[c], z, types[t].name);
				for (int b = B_AND; b <= B_AND_NOT; b++) {
					if (b != 1 + c % 4) /* each comparison with one of the operators */
						continue;
					form("setp", letters('p', l, l, 'p'), ref_setp, K((int)t, c, ftz, b), types[t].sm, "setp.%s%s%s.%s $d, $a, $b, %s$c;", cmp_names[c],
					     bools[b], z, types[t].name, b == B_AND_NOT ? "!" : "");
					if (two)
						form("setp", letters('p', l, l, 'p'), ref_setp, K((int)t, c, ftz, b, 1), types[t].sm,
						     "{ .reg .pred q; setp.%s%s%s.%s q|$d, $a, $b, %s$c; }", cmp_names[c], bools[b], z, types[t].name,
						     b == B_AND_NOT ? "!" : "");
				}
				if (types[t].format == N_BF16)
					continue;
				const char *result = c % 3 == 0 ? "u32" : c % 3 == 1 ? "s32" : "f32";
				bool f = c % 3 == 2;
				if (types[t].format == N_F16) {
					result = c % 3 == 0 ? "u32" : c % 3 == 1 ? "s16" : "f16";
					form("set", letters(c % 3 == 0 ? 'w' : c % 3 == 1 ? 'h' : 'k', l, l, 0), ref_set,
					     K((int)t, c, ftz, 0, c % 3 == 2 ? N_F16 + 1 : 0, c % 3 == 0 ? 32 : 16), types[t].sm, "set.%s%s.%s.f16 $d, $a, $b;", cmp_names[c], z, result);
					continue;
				}
				form("set", letters(f ? 'f' : 'w', l, l, 0), ref_set, K((int)t, c, ftz, 0, f ? N_F32 + 1 : 0, 32), types[t].sm,
				     "set.%s%s.%s.%s $d, $a, $b;", cmp_names[c], z, result, types[t].name);
				form("set", letters(f ? 'f' : 'w', l, l, 'p'), ref_set, K((int)t, c, ftz, 1 + c % 4, f ? N_F32 + 1 : 0, 32), types[t].sm,
				     "set.%s%s%s.%s.%s $d, $a, $b, %s$c;", cmp_names[c], bools[1 + c % 4], z, result, types[t].name, 1 + c % 4 == B_AND_NOT ? "!" : "");
			}
		}
	/* packed halves: one answer a half */
	for (int bf = 0; bf < 2; bf++)
		for (int c = 0; c < CMPS; c++) {
			int t = bf ? 12 : 11;
			const char *name = bf ? "bf16x2" : "f16x2", *two = bf ? "ZZZ" : "KKK";
			if (!applies((size_t)t, c))
				continue;
			form("set", two, ref_set, K(t, c, 0, 0, types[t].format + 1, 16), bf ? 90 : 0, "set.%s.%s.%s $d, $a, $b;", cmp_names[c], name, name);
			form("set", two, ref_set, K(t, c, 0, 0, 0, 16), bf ? 90 : 0, "set.%s.%s.%s $d, $a, $b;", cmp_names[c], "u32", name);
			form("setp", two, ref_set, K(t, c, 0, 0, 0, 16), bf ? 90 : 0,
			     "{ .reg .pred p, q; .reg .b32 x; setp.%s.%s p|q, $a, $b; selp.b32 $d, 0xffff, 0, p; selp.b32 x, 0xffff0000, 0, q; or.b32 $d, $d, x; }",
			     cmp_names[c], name);
		}
}
