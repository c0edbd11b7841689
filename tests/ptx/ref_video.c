/*
 * Video instructions: scalar references, after the descriptions in the PTX ISA, and rows.
 */
#include "forms.h"

#include <stdio.h>

enum video { ADD, SUB, ABSDIFF, MIN, MAX, SHL, SHR, SET, AVRG };
enum { NO_SECOND, WITH_ADD, WITH_MIN, WITH_MAX };
static const char *const names[] = { "vadd", "vsub", "vabsdiff", "vmin", "vmax", "vshl", "vshr", "vset", "vavrg" };
static const char *const seconds[] = { "", ".add", ".min", ".max" };
static const char *const compares[] = { "eq", "ne", "lt", "le", "gt", "ge" };
/* parts of a word; the first is the whole */
static const struct { const char *text; int at, bits; } parts[] = {
	{ "", 0, 32 }, { ".b0", 0, 8 }, { ".b1", 8, 8 }, { ".b2", 16, 8 }, { ".b3", 24, 8 }, { ".h0", 0, 16 }, { ".h1", 16, 16 },
};

static int64_t
field(uint64_t word, int at, int bits, int is_signed)
{
	int64_t value = (int64_t)(word >> at) & (((int64_t)1 << bits) - 1);

	if (is_signed && value >= (int64_t)1 << (bits - 1))
		value -= (int64_t)1 << bits;
	return value;
}

static int64_t
limit(int64_t x, int bits, int is_signed)
{
	int64_t least = is_signed ? -((int64_t)1 << (bits - 1)) : 0;
	int64_t most = least + ((int64_t)1 << bits) - 1;

	if (x < least)
		return least;
	return x > most ? most : x;
}

/* how: a comparison for SET, wrap for shifts */
static int64_t
combine(int op, int how, int64_t x, int64_t y)
{
	switch (op) {
	case ADD: return x + y;
	case SUB: return x - y;
	case ABSDIFF: return x < y ? y - x : x - y;
	case MIN: return x < y ? x : y;
	case MAX: return x < y ? y : x;
	case AVRG: return x + y >= 0 ? (x + y + 1) >> 1 : (x + y) >> 1;
	case SET:
		return how == 0 ? x == y : how == 1 ? x != y : how == 2 ? x < y : how == 3 ? x <= y : how == 4 ? x > y : x >= y;
	}
	if (how)
		y &= 31;
	else if (y > 32)
		y = 32;
	for (int64_t i = 0; i < y; i++)
		x = op == SHL ? x * 2 : (x - (x & 1)) / 2;
	return x;
}

/* k: op, signed a | b << 1 | d << 2 | saturate << 3, part of a | b << 3 | d << 6, second, how */
static void
ref_scalar(struct answer *r, const uint64_t *v, const int *k)
{
	int a = k[2] & 7, b = k[2] >> 3 & 7, d = k[2] >> 6, d_signed = k[1] >> 2 & 1;
	int64_t x = combine(k[0], k[4], field(v[0], parts[a].at, parts[a].bits, k[1] & 1),
	                    field(v[1], parts[b].at, parts[b].bits, k[1] >> 1 & 1));

	if (k[1] & 8)
		x = limit(x, parts[d].bits, d_signed);
	if (d) {
		uint64_t keep = ~((((uint64_t)1 << parts[d].bits) - 1) << parts[d].at);
		r->bits = (v[2] & keep & 0xffffffff) | ((uint64_t)field((uint64_t)x, 0, parts[d].bits, 0) << parts[d].at);
		return;
	}
	int64_t y = field((uint64_t)x, 0, 32, d_signed), c = field(v[2], 0, 32, d_signed);
	if (k[3] == WITH_ADD)
		y += c;
	else if (k[3] == WITH_MIN)
		y = y < c ? y : c;
	else if (k[3] == WITH_MAX)
		y = y < c ? c : y;
	r->bits = (uint64_t)y & 0xffffffff;
}

/* k: signed a | b << 1, saturate, shift, negated: 1 product, 2 c, 3 plus one, parts */
static void
ref_mad(struct answer *r, const uint64_t *v, const int *k)
{
	int a = k[4] & 7, b = k[4] >> 3, is_signed = (k[0] & 3) || k[3] == 1 || k[3] == 2;
	__int128 x = (__int128)field(v[0], parts[a].at, parts[a].bits, k[0] & 1) * field(v[1], parts[b].at, parts[b].bits, k[0] >> 1 & 1);
	__int128 c = field(v[2], 0, 32, is_signed), one = (__int128)1 << k[2];

	x = k[3] == 1 ? c - x : k[3] == 2 ? x - c : x + c;
	x += k[3] == 3;
	__int128 scaled = x / one;
	if (x < 0 && scaled * one != x)
		scaled--; /* shifts round down */
	if (k[1]) {
		__int128 least = is_signed ? -((__int128)1 << 31) : 0, most = is_signed ? ((__int128)1 << 31) - 1 : ((__int128)1 << 32) - 1;
		scaled = scaled < least ? least : scaled > most ? most : scaled;
	}
	r->bits = (uint64_t)scaled & 0xffffffff;
}

/* k: op, signed as above, elements, picks of a | b << 16 by nibbles, mask | add << 8, how */
static void
ref_vector(struct answer *r, const uint64_t *v, const int *k)
{
	int n = k[2], bits = 32 / n;
	uint64_t both = v[1] << 32 | v[0], result = v[2];

	for (int e = 0; e < n; e++) {
		int64_t x = combine(k[0], k[5], field(both, (k[3] >> 4 * e & 15) * bits, bits, k[1] & 1),
		                    field(both, (k[3] >> (16 + 4 * e) & 15) * bits, bits, k[1] >> 1 & 1));
		if (!(k[4] >> e & 1))
			continue;
		if (k[1] & 8)
			x = limit(x, bits, k[1] >> 2 & 1);
		if (k[4] & 256)
			result += (uint64_t)x;
		else
			result = (result & ~((((uint64_t)1 << bits) - 1) << e * bits)) | (uint64_t)field((uint64_t)x, 0, bits, 0) << e * bits;
	}
	r->bits = result & 0xffffffff;
}

static void
scalar(int op, int how, int flags, int sel, int second)
{
	char types[24], mode[16] = "";
	int a = sel & 7, b = sel >> 3 & 7, d = sel >> 6;
	const char *type[] = { "u32", "s32" };

	if (op == SET) {
		snprintf(types, sizeof(types), "%s.%s", type[flags & 1], type[flags >> 1 & 1]);
		snprintf(mode, sizeof(mode), ".%s", compares[how]);
	} else {
		snprintf(types, sizeof(types), "%s.%s.%s", type[flags >> 2 & 1], type[flags & 1], type[flags >> 1 & 1]);
	}
	if (op == SHL || op == SHR)
		snprintf(mode, sizeof(mode), ".%s", how ? "wrap" : "clamp");
	form("video", "wwww", ref_scalar, K(op, flags, sel, second, how), 0, "%s.%s%s%s%s $d%s, $a%s, $b%s%s;", names[op], types,
	     flags & 8 ? ".sat" : "", mode, seconds[second], parts[d].text, parts[a].text, parts[b].text, second || d ? ", $c" : "");
}

static void
vector(int op, int n, int how, int flags, unsigned picks, int mask, int add)
{
	char types[24], mode[16] = "", to[8] = "", a[8], b[8];
	const char *type[] = { "u32", "s32" };
	char letter = n == 2 ? 'h' : 'b';
	int length = 0, all = (1 << n) - 1;

	if (op == SET) {
		snprintf(types, sizeof(types), "%s.%s", type[flags & 1], type[flags >> 1 & 1]);
		snprintf(mode, sizeof(mode), ".%s", compares[how]);
	} else {
		snprintf(types, sizeof(types), "%s.%s.%s", type[flags >> 2 & 1], type[flags & 1], type[flags >> 1 & 1]);
	}
	if (mask != all) {
		to[length++] = '.';
		to[length++] = letter;
		for (int e = n - 1; e >= 0; e--)
			if (mask >> e & 1)
				to[length++] = (char)('0' + e);
	}
	snprintf(a, sizeof(a), ".%c%0*x", letter, n, picks & 0xffff);
	snprintf(b, sizeof(b), ".%c%0*x", letter, n, picks >> 16);
	if (picks == (n == 2 ? 0x320010u : 0x76543210u))
		a[0] = b[0] = 0;
	form("video", "wwww", ref_vector, K(op, flags, n, (int)picks, mask | add << 8, how), 0, "%s%d.%s%s%s%s $d%s, $a%s, $b%s, $c;",
	     names[op], n, types, flags & 8 ? ".sat" : "", mode, add ? ".add" : "", to, a, b);
}

void
forms_video(void)
{
	/* every pair of parts once, with types, saturation and second operation going round */
	for (int op = ADD; op <= SHR; op++)
		for (int i = 0; i < 49; i++) {
			int sel = i % 7 | i / 7 << 3, flags = (i * 5 + op) & 15, second = i & 3;
			bool shift = op == SHL || op == SHR;
			if (shift)
				flags &= ~2; /* the count is unsigned */
			scalar(op, shift ? i & 1 : 0, flags, i % 3 == 2 ? sel | (1 + i % 6) << 6 : sel, i % 3 == 2 ? 0 : second);
		}
	for (int flags = 0; flags < 16; flags++)
		for (int op = ADD; op <= MAX; op++)
			scalar(op, 0, flags, 0, 0);
	for (int how = 0; how < 6; how++)
		for (int flags = 0; flags < 4; flags++)
			for (int second = 0; second < 4; second++)
				scalar(SET, how, flags, second == 3 ? 1 | 5 << 3 : second == 2 ? 2 << 6 : 0, second == 2 ? 0 : second);
	for (int flags = 0; flags < 4; flags++)
		for (int shift = 0; shift < 3; shift++)
			for (int negated = 0; negated < 4; negated++)
				for (int sat = 0; sat < 2; sat++) {
					int a = (flags + shift * 2) % 7, b = (negated + sat * 3) % 7;
					const char *scales[] = { "", ".shr7", ".shr15" }, *type[] = { "u32", "s32" };
					bool is_signed = flags || negated == 1 || negated == 2;
					form("video", "wwww", ref_mad, K(flags, sat, shift == 0 ? 0 : shift == 1 ? 7 : 15, negated, a | b << 3), 0,
					     "vmad.%s.%s.%s%s%s%s $d, %s$a%s, $b%s, %s$c;", type[is_signed], type[flags & 1], type[flags >> 1],
					     negated == 3 ? ".po" : "", sat ? ".sat" : "", scales[shift], negated == 1 ? "-" : "", parts[a].text,
					     parts[b].text, negated == 2 ? "-" : "");
				}
	for (int op = ADD; op <= AVRG; op++) {
		if (op == SHL || op == SHR)
			continue;
		for (int i = 0; i < 16; i++) {
			bool add = i & 1;
			int flags = op == SET ? i >> 2 & 3 : add ? i >> 1 & 7 : i;
			vector(op, 2, i % 6, flags, i & 4 ? 0x00210003 : 0x320010, i % 3 + 1, add);
			vector(op, 4, i % 6, flags, i & 4 ? 0x07251436 : 0x76543210, i ? i : 15, add);
		}
	}
}
