/*
 * mma.sync, wmma, ldmatrix, stmatrix and movmatrix of every type and shape against matrices multiplied on the host in double and in
 * 64-bit integers. Where an element of a fragment lives is a table here: steps of a lane and of a lane's values in rows and along k.
 * Values are small whole numbers, whose sums are exact in every accumulator, and rows with a single product of edge values: NaN,
 * infinities, subnormals, limits. f64 is rounded product by product, in order of k, in each of the four ways. The sign of a zero of
 * float accumulators is not compared: PTX leaves it open. TAP on stdout.
 *
 *	run_matrix                  on the library that FARWARP_TEST_LIBCUDA names
 *	run_matrix --print          writes the PTX of all forms
 *	run_matrix --ptxas PROGRAM  asks the assembler whether the forms exist
 */
#include "driver.h"

#include <fenv.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LANES 32
#define MOST (32 * 256) /* elements of a matrix */

/* ---- element types --------------------------------------------------------------------------------------------------------- */

enum number { FLOAT, INT, BIT };
struct type {
	const char *name;
	enum number number;
	unsigned bits;             /* in a register and in memory */
	unsigned exponent, mantissa;
	bool is_signed, no_infinity;
};
static const struct type f16 = { "f16", FLOAT, 16, 5, 10, true, false }, bf16 = { "bf16", FLOAT, 16, 8, 7, true, false },
	tf32 = { "tf32", FLOAT, 32, 8, 23, true, false }, f32 = { "f32", FLOAT, 32, 8, 23, true, false },
	f64 = { "f64", FLOAT, 64, 11, 52, true, false }, e4m3 = { "e4m3", FLOAT, 8, 4, 3, true, true },
	e5m2 = { "e5m2", FLOAT, 8, 5, 2, true, false }, s8 = { "s8", INT, 8, 0, 0, true, false }, u8 = { "u8", INT, 8, 0, 0, false, false },
	s4 = { "s4", INT, 4, 0, 0, true, false }, u4 = { "u4", INT, 4, 0, 0, false, false }, s32 = { "s32", INT, 32, 0, 0, true, false },
	b1 = { "b1", BIT, 1, 0, 0, false, false };

static double
decode(const struct type *t, uint64_t v)
{
	if (t->number != FLOAT) {
		int64_t x = (int64_t)(v << (64 - t->bits));
		return t->is_signed ? (double)(x >> (64 - t->bits)) : (double)(v & (~0ull >> (64 - t->bits)));
	}
	uint64_t mantissa = v & ((1ull << t->mantissa) - 1), exponent = v >> t->mantissa & ((1ull << t->exponent) - 1);
	double sign = v >> (t->bits - 1) & 1 ? -1 : 1;
	int bias = (1 << (t->exponent - 1)) - 1;
	if (exponent == (1ull << t->exponent) - 1 && (!t->no_infinity || mantissa == (1ull << t->mantissa) - 1))
		return mantissa ? NAN : sign * INFINITY;
	if (!exponent)
		return sign * ldexp((double)mantissa, 1 - bias - (int)t->mantissa);
	return sign * ldexp((double)mantissa + ldexp(1, (int)t->mantissa), (int)exponent - bias - (int)t->mantissa);
}

/* The nearest value, ties to even, of the floating-point types that results have, and of small whole numbers. */
static uint64_t
encode(const struct type *t, double x)
{
	if (t->number != FLOAT)
		return (uint64_t)(int64_t)x & (~0ull >> (64 - t->bits));
	uint64_t sign = (uint64_t)(signbit(x) != 0) << (t->bits - 1), all = (1ull << t->exponent) - 1;
	int bias = (1 << (t->exponent - 1)) - 1, exponent;
	if (isnan(x))
		return sign | all << t->mantissa | ((1ull << t->mantissa) - 1);
	if (isinf(x))
		return sign | all << t->mantissa;
	x = fabs(x);
	if (x == 0)
		return sign;
	frexp(x, &exponent);
	exponent = exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
	uint64_t whole = (uint64_t)nearbyint(ldexp(x, (int)t->mantissa - exponent)); /* a carry goes into the exponent */
	uint64_t value = whole < 1ull << t->mantissa ? whole : whole + ((uint64_t)(exponent + bias - 1) << t->mantissa);
	return sign | (value > all << t->mantissa ? all << t->mantissa : value);
}

static unsigned random_state = 1;

static unsigned
random_number(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8;
}

/* Element n of a packed array. */
static uint64_t
get(const void *memory, unsigned bits, size_t n)
{
	const uint8_t *bytes = (const uint8_t *)memory + n * bits / 8;
	uint64_t v = 0;

	memcpy(&v, bytes, bits < 8 ? 1 : bits / 8);
	return bits < 8 ? v >> n * bits % 8 & ((1u << bits) - 1) : v;
}

static void
put(void *memory, unsigned bits, size_t n, uint64_t v)
{
	uint8_t *bytes = (uint8_t *)memory + n * bits / 8;
	unsigned shift = n * bits % 8;

	if (bits >= 8)
		memcpy(bytes, &v, bits / 8);
	else
		*bytes = (uint8_t)((*bytes & ~(((1u << bits) - 1) << shift)) | v << shift);
}

/* ---- forms ------------------------------------------------------------------------------------------------------------------ */

struct step { unsigned count, row, k; };
struct layout { /* the fragments of A and B of one shape; a lane's column or row is lane / 4 */
	unsigned bits, m, k;
	unsigned lane_k;       /* lane % 4 times this, along k */
	struct step a[3], b[2];
};
static const struct layout layouts[] = {
	{ 16, 16, 8, 2, { { 2, 0, 1 }, { 2, 8, 0 } }, { { 2, 0, 1 } } },
	{ 16, 16, 16, 2, { { 2, 0, 1 }, { 2, 8, 0 }, { 2, 0, 8 } }, { { 2, 0, 1 }, { 2, 0, 8 } } },
	{ 32, 16, 4, 1, { { 2, 8, 0 } }, { { 1, 0, 0 } } },
	{ 32, 16, 8, 1, { { 2, 8, 0 }, { 2, 0, 4 } }, { { 2, 0, 4 } } },
	{ 64, 8, 4, 1, { { 1, 0, 0 } }, { { 1, 0, 0 } } },
	{ 64, 16, 4, 1, { { 2, 8, 0 } }, { { 1, 0, 0 } } },
	{ 64, 16, 8, 1, { { 2, 8, 0 }, { 2, 0, 4 } }, { { 2, 0, 4 } } },
	{ 64, 16, 16, 1, { { 2, 8, 0 }, { 4, 0, 4 } }, { { 4, 0, 4 } } },
	{ 8, 8, 16, 4, { { 4, 0, 1 } }, { { 4, 0, 1 } } },
	{ 8, 16, 16, 4, { { 4, 0, 1 }, { 2, 8, 0 } }, { { 4, 0, 1 } } },
	{ 8, 16, 32, 4, { { 4, 0, 1 }, { 2, 8, 0 }, { 2, 0, 16 } }, { { 4, 0, 1 }, { 2, 0, 16 } } },
	{ 4, 8, 32, 8, { { 8, 0, 1 } }, { { 8, 0, 1 } } },
	{ 4, 16, 32, 8, { { 8, 0, 1 }, { 2, 8, 0 } }, { { 8, 0, 1 } } },
	{ 4, 16, 64, 8, { { 8, 0, 1 }, { 2, 8, 0 }, { 2, 0, 32 } }, { { 8, 0, 1 }, { 2, 0, 32 } } },
	{ 1, 8, 128, 32, { { 32, 0, 1 } }, { { 32, 0, 1 } } },
	{ 1, 16, 128, 32, { { 32, 0, 1 }, { 2, 8, 0 } }, { { 32, 0, 1 } } },
	{ 1, 16, 256, 32, { { 32, 0, 1 }, { 2, 8, 0 }, { 2, 0, 128 } }, { { 32, 0, 1 }, { 2, 0, 128 } } },
};

struct form {
	bool wmma, a_column, b_row, c_column, both, saturate;
	bool quads; /* m8n8k4 of f16: four products, whose A and C stand below and whose B stand beside each other */
	unsigned sm, m, n, k;
	const struct type *d, *a, *b, *c;
	unsigned round; /* f64: index into roundings */
	unsigned kind;  /* fp8 with .kind::f8f6f4: 1 before the shape, 2 behind the layouts; only on sm_120a */
};
static const struct { const char *mod; int mode; } roundings[] = {
	{ "", FE_TONEAREST }, { ".rn", FE_TONEAREST }, { ".rz", FE_TOWARDZERO }, { ".rm", FE_DOWNWARD }, { ".rp", FE_UPWARD },
};
static struct form forms[400];
static unsigned form_count;

static void
add(struct form f)
{
	forms[form_count++] = f;
}

static void
add_mma(void)
{
	static const struct {
		unsigned sm, m, k;
		const struct type *ab;
		const struct type *cd[2];
	} rows[] = {
		{ 75, 16, 8, &f16, { &f32, &f16 } }, { 80, 16, 16, &f16, { &f32, &f16 } }, { 80, 16, 8, &bf16, { &f32 } },
		{ 80, 16, 16, &bf16, { &f32 } }, { 80, 16, 4, &tf32, { &f32 } }, { 80, 16, 8, &tf32, { &f32 } }, { 80, 8, 4, &f64, { &f64 } },
		{ 90, 16, 4, &f64, { &f64 } }, { 90, 16, 8, &f64, { &f64 } }, { 90, 16, 16, &f64, { &f64 } },
	};
	static const struct type *const fp8[] = { &e4m3, &e5m2 }, *const bytes[] = { &s8, &u8 }, *const nibbles[] = { &s4, &u4 };

	for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++)
		for (unsigned w = 0; w < 2 && rows[n].cd[w]; w++)
			for (unsigned round = 0; round < (rows[n].ab == &f64 ? 5 : 1); round++)
				add((struct form){ .sm = rows[n].sm, .m = rows[n].m, .n = 8, .k = rows[n].k, .d = rows[n].cd[w], .a = rows[n].ab,
				                   .b = rows[n].ab, .c = rows[n].cd[w], .round = round });
	for (unsigned n = 0; n < 16; n++)
		add((struct form){ .sm = 89, .m = 16, .n = 8, .k = n & 4 ? 32 : 16, .d = n & 8 ? &f16 : &f32, .a = fp8[n & 1],
		                   .b = fp8[n >> 1 & 1], .c = n & 8 ? &f16 : &f32 });
	for (unsigned n = 0; n < 16; n++)
		add((struct form){ .sm = 120, .kind = 1 + (n >> 2 & 1), .m = 16, .n = 8, .k = 32, .d = n & 8 ? &f16 : &f32, .a = fp8[n & 1],
		                   .b = fp8[n >> 1 & 1], .c = n & 8 ? &f16 : &f32 });
	for (unsigned n = 0; n < 8; n++) {
		for (unsigned shape = 0; shape < 3; shape++) {
			struct form f = { .sm = shape ? 80 : 75, .m = shape ? 16 : 8, .n = 8, .k = shape == 2 ? 32 : 16, .d = &s32, .a = bytes[n & 1],
			                  .b = bytes[n >> 1 & 1], .c = &s32, .saturate = n >> 2 };
			add(f);
			f.k *= 2;
			f.a = nibbles[n & 1];
			f.b = nibbles[n >> 1 & 1];
			add(f);
		}
	}
	for (unsigned n = 0; n < 6; n++)
		add((struct form){ .sm = 80, .m = n < 2 ? 8 : 16, .n = 8, .k = n < 4 ? 128 : 256, .d = &s32, .a = &b1, .b = &b1,
		                   .c = &s32, .both = n & 1 });
}

static void
add_quads(void)
{
	for (unsigned n = 0; n < 16; n++)
		if (n & 4 || !(n & 8)) /* an f32 addend gives an f32 result */
			add((struct form){ .quads = true, .a_column = n & 1, .b_row = n >> 1 & 1, .sm = 75, .m = 32, .n = 8, .k = 4,
			                   .d = n & 4 ? &f32 : &f16, .a = &f16, .b = &f16, .c = n & 8 ? &f32 : &f16 });
}

static void
add_wmma(void)
{
	static const unsigned shapes[3][2] = { { 16, 16 }, { 32, 8 }, { 8, 32 } };
	static const struct type *const half_cd[4][2] = { { &f32, &f32 }, { &f16, &f16 }, { &f32, &f16 }, { &f16, &f32 } };

	for (unsigned order = 0; order < 8; order++) {
		struct form f = { .wmma = true, .a_column = order & 1, .b_row = order >> 1 & 1, .c_column = order >> 2, .sm = 75, .k = 16 };
		for (unsigned shape = 0; shape < 3; shape++) {
			f.m = shapes[shape][0];
			f.n = shapes[shape][1];
			for (unsigned n = 0; n < 7; n++) {
				f.a = f.b = n < 4 ? &f16 : n < 5 ? &bf16 : n < 6 ? &s8 : &u8;
				f.d = n < 4 ? half_cd[n][0] : n < 5 ? &f32 : &s32;
				f.c = n < 4 ? half_cd[n][1] : n < 5 ? &f32 : &s32;
				f.sm = n == 4 ? 80 : 75;
				f.saturate = n > 4 && (order ^ n) & 1;
				add(f);
			}
		}
		f.saturate = false;
		f.sm = 80;
		f.m = f.n = 16;
		f.k = 8;
		f.a = f.b = &tf32;
		f.c = f.d = &f32;
		add(f);
		f.m = f.n = 8;
		f.k = 4;
		f.a = f.b = f.c = f.d = &f64;
		for (f.round = 0; f.round < 5; f.round++)
			add(f);
		f.round = 0;
		if (f.a_column || f.b_row)
			continue;
		f.c = f.d = &s32;
		for (unsigned n = 0; n < 6; n++) {
			f.sm = n == 5 ? 80 : 75;
			f.a = f.b = n < 4 ? n & 1 ? &u4 : &s4 : &b1;
			f.k = n < 4 ? 32 : 128;
			f.saturate = n == 2 || n == 3;
			f.both = n == 5;
			add(f);
		}
	}
}

/* Of B, all that there is of it. */
static unsigned
b_columns(const struct form *f)
{
	return f->quads ? 4 * f->n : f->n;
}

static unsigned
registers(const struct form *f, char role)
{
	const struct type *t = role == 'a' ? f->a : role == 'b' ? f->b : role == 'c' ? f->c : f->d;
	unsigned size = role == 'a' ? f->m * f->k : role == 'b' ? f->k * b_columns(f) : f->m * f->n;

	if (f->wmma && t == &f16 && role < 'c')
		return 8;
	return size * t->bits / LANES / (t->bits == 64 ? 64 : 32);
}

/* ---- PTX ---------------------------------------------------------------------------------------------------------------------- */

static char text[32768];
static size_t used;

static void
emit(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	used += (size_t)vsnprintf(text + used, sizeof text - used, format, args);
	va_end(args);
	if (used >= sizeof text)
		abort();
}

static void
emit_list(char role, unsigned count)
{
	emit("{");
	for (unsigned n = 0; n < count; n++)
		emit("%s%%%c%u", n ? ", " : "", role, n);
	emit("}");
}

static const char *
register_type(const struct type *t)
{
	return t == &f64 ? "f64" : t == &f32 ? "f32" : "b32";
}

static void
emit_head(unsigned sm, const char *suffix)
{
	used = 0;
	emit(".version 8.7\n.target sm_%u%s\n.address_size 64\n.visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd)\n{\n"
	     "\t.reg .b32 %%lane, %%x;\n\t.reg .b64 %%pa, %%pb, %%pc, %%pd, %%y;\n\tmov.u32 %%lane, %%tid.x;\n", sm, suffix);
	for (const char *p = "abcd"; *p; p++)
		emit("\tld.param.u64 %%p%c, [p%c];\n\tcvta.to.global.u64 %%p%c, %%p%c;\n", *p, *p, *p, *p);
}

/* Elements between the rows, or columns, of a matrix in memory. */
static unsigned
stride(const struct form *f, char role)
{
	const struct type *t = role == 'a' ? f->a : role == 'b' ? f->b : role == 'c' ? f->c : f->d;
	unsigned along = role == 'a' ? f->a_column ? f->m : f->k : role == 'b' ? f->b_row ? f->n : f->k : f->c_column ? f->m : f->n;

	return t->number == INT && t->bits == 4 ? along : along + 128 / t->bits;
}

static void
emit_form(const struct form *f)
{
	const struct type *types[] = { f->a, f->b, f->c, f->d };

	emit_head(f->sm, f->kind ? "a" : "");
	for (unsigned n = 0; n < 4; n++)
		emit("\t.reg .%s %%%c<%u>;\n", register_type(types[n]), 'a' + n, registers(f, (char)('a' + n)));
	for (unsigned n = 0; n < 3; n++) {
		char role = (char)('a' + n);
		bool column = role == 'a' ? f->a_column : role == 'b' ? !f->b_row : f->c_column;
		unsigned count = registers(f, role), bytes = types[n]->bits == 64 ? 8 : 4;
		if (f->wmma) {
			emit("\tmov.u32 %%x, %u;\n\twmma.load.%c.sync.aligned.%s.m%un%uk%u.global.%s ", stride(f, role), role, column ? "col" : "row",
			     f->m, f->n, f->k, types[n]->name);
			emit_list(role, count);
			emit(", [%%p%c], %%x;\n", role);
			continue;
		}
		emit("\tmul.wide.u32 %%y, %%lane, %u;\n\tadd.u64 %%y, %%y, %%p%c;\n", count * bytes, role);
		for (unsigned r = 0; r < count; r++)
			emit("\tld.global.b%u %%%c%u, [%%y + %u];\n", bytes * 8, role, r, r * bytes);
	}
	emit("\t%s%s.sync.aligned.", f->wmma ? "wmma.mma" : "mma", !f->wmma || f->a != &b1 ? "" : f->both ? ".and.popc" : ".xor.popc");
	if (f->wmma)
		emit("%s.%s.m%un%uk%u", f->a_column ? "col" : "row", f->b_row ? "row" : "col", f->m, f->n, f->k);
	else if (f->quads)
		emit("m8n8k4.%s.%s", f->a_column ? "col" : "row", f->b_row ? "row" : "col");
	else
		emit("%sm%un%uk%u.row.col%s%s", f->kind == 1 ? "kind::f8f6f4." : "", f->m, f->n, f->k, f->kind == 2 ? ".kind::f8f6f4" : "",
		     f->saturate ? ".satfinite" : "");
	if (f->wmma && f->a == &f16)
		emit(".%s.%s", f->d->name, f->c->name);
	else
		emit(".%s.%s.%s.%s", f->d->name, f->a->name, f->b->name, f->c->name);
	if (!f->wmma && f->a == &b1)
		emit("%s", f->both ? ".and.popc" : ".xor.popc");
	if (f->wmma)
		emit("%s", f->saturate ? ".satfinite" : "");
	emit("%s", roundings[f->round].mod);
	for (const char *role = "dabc"; *role; role++) {
		emit("%s", *role == 'd' ? " " : ", ");
		emit_list(*role, registers(f, *role));
	}
	emit(";\n");
	unsigned count = registers(f, 'd'), bytes = f->d->bits == 64 ? 8 : 4;
	if (f->wmma) {
		emit("\tmov.u32 %%x, %u;\n\twmma.store.d.sync.aligned.%s.m%un%uk%u.global.%s [%%pd], ", stride(f, 'd'), f->c_column ? "col" : "row",
		     f->m, f->n, f->k, f->d->name);
		emit_list('d', count);
		emit(", %%x;\n");
	} else {
		emit("\tmul.wide.u32 %%y, %%lane, %u;\n\tadd.u64 %%y, %%y, %%pd;\n", count * bytes);
		for (unsigned r = 0; r < count; r++)
			emit("\tst.global.b%u [%%y + %u], %%d%u;\n", bytes * 8, r * bytes, r);
	}
	emit("\tret;\n}\n");
}

/* ---- the host's side ------------------------------------------------------------------------------------------------------------ */

static uint64_t a[MOST], b[MOST], c[MOST]; /* encoded; row, then column */
static uint8_t memory[4][65536];

/* The same for quads: the eight lanes of a product are 4 q + 0..3 and 16 + 4 q + 0..3. */
static size_t
place_in_quads(const struct form *f, char role, unsigned row, unsigned column)
{
	unsigned line = role == 'b' ? column : row, quad = line / 8, first = 4 * quad + line % 8 / 4 * 16, k = role == 'b' ? row : column;

	line %= 4;
	if (role == 'a' || role == 'b')
		return (role == 'a' ? f->a_column : f->b_row) ? (first + k) * 4 + line : (first + line) * 4 + k;
	if ((role == 'c' ? f->c : f->d) == &f16)
		return (first + line) * 8 + column;
	return (first + (line & 1) + (column & 2)) * 8 + ((line & 2) | (column & 5));
}

/* Where element (row, column) of a matrix lies in what the kernel reads or writes, counted in elements. */
static size_t
place(const struct form *f, char role, unsigned row, unsigned column)
{
	if (f->wmma) {
		bool by_column = role == 'a' ? f->a_column : role == 'b' ? !f->b_row : f->c_column;
		return by_column ? (size_t)column * stride(f, role) + row : (size_t)row * stride(f, role) + column;
	}
	if (f->quads)
		return place_in_quads(f, role, row, column);
	struct step steps[3] = { { 2, 0, 1 }, { f->m / 8, 8, 0 } }; /* of C and D, across columns */
	const struct layout *layout = layouts;
	unsigned lane_k = 2, line = row, along = column;
	if (role == 'a' || role == 'b') {
		while (layout->bits != f->a->bits || layout->m != f->m || layout->k != f->k)
			layout++;
		lane_k = layout->lane_k;
		memcpy(steps, role == 'a' ? layout->a : layout->b, role == 'a' ? sizeof layout->a : sizeof layout->b);
		if (role == 'b') {
			memset(&steps[2], 0, sizeof steps[2]);
			line = column;
			along = row;
		}
	}
	unsigned own = 1;
	for (unsigned s = 0; s < 3 && steps[s].count; s++)
		own *= steps[s].count;
	for (unsigned lane = 0; lane < LANES; lane++) {
		for (unsigned v = 0; v < own; v++) {
			unsigned r = lane / 4, k = lane % 4 * lane_k, rest = v;
			for (unsigned s = 0; s < 3 && steps[s].count; s++) {
				r += rest % steps[s].count * steps[s].row;
				k += rest % steps[s].count * steps[s].k;
				rest /= steps[s].count;
			}
			if (r == line && k == along)
				return (size_t)lane * own + v;
		}
	}
	abort();
}

#define SETS 6 /* of values; the odd ones have edge values */

static uint64_t
edge(const struct type *t)
{
	uint64_t low = t == &tf32 ? 13 : 0, top = t->bits - 1;
	uint64_t mantissa = (1ull << t->mantissa) - 1, exponent = ((1ull << t->exponent) - 1) << t->mantissa;
	uint64_t sign = (uint64_t)(random_number() & 1) << top;

	switch (random_number() % 9) {
	case 0:
		return sign;
	case 1: /* the smallest subnormal */
		return sign | 1ull << low;
	case 2: /* the largest */
		return sign | (mantissa >> low << low);
	case 3: /* the smallest normal */
		return sign | 1ull << t->mantissa;
	case 4: /* the largest finite */
		return sign | (t->no_infinity ? exponent | (mantissa - 1) : (exponent - 1) >> low << low);
	case 5:
		return sign | (t->no_infinity ? exponent | mantissa : exponent);
	case 6: /* a NaN */
		return sign | exponent | (t->no_infinity ? mantissa : 1ull << (t->mantissa - 1));
	default:
		return sign | encode(t, 1);
	}
}

static void
fill(const struct form *f, unsigned set)
{
	const struct type *types[] = { f->a, f->b, f->c };
	uint64_t *matrices[] = { a, b, c };
	unsigned rows[] = { f->m, f->k, f->m }, columns[] = { f->k, b_columns(f), f->n };

	memset(memory, 0, sizeof memory);
	for (unsigned p = 0; p < 3; p++) {
		const struct type *t = types[p];
		for (unsigned r = 0; r < rows[p]; r++) {
			for (unsigned q = 0; q < columns[p]; q++) {
				uint64_t v;
				if (t->number != FLOAT)
					v = (p == 2 && set & 1 ? 0x7fffff00ull + random_number() % 512 : (uint64_t)random_number() << 8 ^ random_number()) &
					    (~0ull >> (64 - t->bits));
				else if (t == &f64 && set == 4)
					v = encode(t, (double)(int)(random_number() % 2001 - 1000) / 7);
				else if (!(set & 1))
					v = encode(t, (double)(int)(random_number() % 7) - 3);
				else if (p == 0)
					v = q == (r + set) % f->k ? edge(t) : 0;
				else
					v = p == 1 && (q + r) % 3 ? edge(t) : 0;
				matrices[p][r * columns[p] + q] = v;
				put(memory[p], t->bits, place(f, (char)('a' + p), r, q), v);
			}
		}
	}
}

static uint64_t
expected(const struct form *f, unsigned r, unsigned q)
{
	if (f->a->number == FLOAT) {
		volatile double sum = decode(f->c, c[r * f->n + q]);
		fesetround(roundings[f->round].mode);
		for (unsigned k = 0; k < f->k; k++)
			sum = fma(decode(f->a, a[r * f->k + k]), decode(f->b, b[k * b_columns(f) + (f->quads ? r / 8 * 8 : 0) + q]), sum);
		fesetround(FE_TONEAREST);
		return encode(f->d, sum);
	}
	int64_t sum = (int32_t)c[r * f->n + q];
	for (unsigned k = 0; k < f->k; k++) {
		uint64_t x = a[r * f->k + k], y = b[k * f->n + q];
		if (f->a == &b1)
			sum += (int64_t)(f->both ? x & y : x ^ y);
		else
			sum += (int64_t)decode(f->a, x) * (int64_t)decode(f->b, y);
	}
	if (f->saturate)
		sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
	return (uint32_t)sum;
}

static bool
same(const struct type *t, uint64_t want, uint64_t got)
{
	if (t->number != FLOAT || want == got)
		return want == got;
	double x = decode(t, want), y = decode(t, got);
	return (isnan(x) && isnan(y)) || (x == 0 && y == 0);
}

static int
launch(void *function, dptr at[4])
{
	void *params[4];
	int error = 0;

	for (unsigned n = 0; n < 4; n++) {
		params[n] = &at[n];
		error = error ? error : cu.MemcpyHtoD(at[n], memory[n], sizeof memory[n]);
	}
	error = error ? error : cu.LaunchKernel(function, 1, 1, 1, LANES, 1, 1, 0, NULL, params, NULL);
	error = error ? error : cu.CtxSynchronize();
	return error ? error : cu.MemcpyDtoH(memory[3], at[3], sizeof memory[3]);
}

static bool
check_form(const struct form *f, void *function, dptr at[4], char *why, size_t size)
{
	for (unsigned set = 0; set < SETS; set++) {
		fill(f, set);
		int error = launch(function, at);
		if (error) {
			snprintf(why, size, "%s", cu_name(error));
			return false;
		}
		for (unsigned r = 0; r < f->m; r++) {
			for (unsigned q = 0; q < f->n; q++) {
				uint64_t want = expected(f, r, q), got = get(memory[3], f->d->bits, place(f, 'd', r, q));
				if (same(f->d, want, got))
					continue;
				snprintf(why, size, "values %u, row %u, column %u: 0x%llx, not 0x%llx", set, r, q, (unsigned long long)got,
				         (unsigned long long)want);
				return false;
			}
		}
	}
	return true;
}

/* ---- ldmatrix, stmatrix, movmatrix ----------------------------------------------------------------------------------------------- */

enum move { LOAD, STORE, TRANSPOSE };
struct move_form { enum move move; unsigned count; bool trans; };
static const struct move_form moves[] = {
	{ LOAD, 1, false }, { LOAD, 2, false }, { LOAD, 4, false }, { LOAD, 1, true }, { LOAD, 2, true }, { LOAD, 4, true },
	{ STORE, 1, false }, { STORE, 2, false }, { STORE, 4, false }, { STORE, 1, true }, { STORE, 2, true }, { STORE, 4, true },
	{ TRANSPOSE, 1, true },
};
#define MOVES (sizeof moves / sizeof *moves)

/* Row n of the matrices lies at this sixteenth of the 512 bytes. */
static unsigned
row_place(unsigned n)
{
	return (n * 5 + 3) % 32;
}

/* a: 512 bytes, first in shared memory; b: four registers a lane; d: the registers (loads) or the 512 bytes (stores). */
static void
emit_move(const struct move_form *f)
{
	static const char *const names[] = { "ldmatrix", "stmatrix", "movmatrix" };

	emit_head(f->move == STORE ? 90 : 75, "");
	emit("\t.reg .b32 %%r<4>, %%t<4>, %%row, %%own;\n\t.shared .align 16 .b8 tile[512];\n\tmul.wide.u32 %%y, %%lane, 16;\n"
	     "\tadd.u64 %%pa, %%pa, %%y;\n\tadd.u64 %%pb, %%pb, %%y;\n\tadd.u64 %%pd, %%pd, %%y;\n\tmov.u32 %%x, tile;\n"
	     "\tmad.lo.u32 %%own, %%lane, 16, %%x;\n\tmad.lo.u32 %%row, %%lane, 5, 3;\n\tand.b32 %%row, %%row, 31;\n"
	     "\tmad.lo.u32 %%row, %%row, 16, %%x;\n\tld.global.v4.b32 {%%t0, %%t1, %%t2, %%t3}, [%%pa];\n"
	     "\tst.shared.v4.b32 [%%own], {%%t0, %%t1, %%t2, %%t3};\n\tld.global.v4.b32 {%%r0, %%r1, %%r2, %%r3}, [%%pb];\n"
	     "\tbar.warp.sync 0xffffffff;\n\t%s.sync.aligned.m8n8", names[f->move]);
	if (f->move == TRANSPOSE) {
		emit(".trans.b16 %%r0, %%r0;\n");
	} else {
		emit(".x%u%s.shared.b16 ", f->count, f->trans ? ".trans" : "");
		if (f->move == STORE)
			emit("[%%row], ");
		emit_list('r', f->count);
		emit(f->move == STORE ? ";\n" : ", [%%row];\n");
	}
	if (f->move == STORE)
		emit("\tbar.warp.sync 0xffffffff;\n\tld.shared.v4.b32 {%%r0, %%r1, %%r2, %%r3}, [%%own];\n");
	emit("\tst.global.v4.b32 [%%pd], {%%r0, %%r1, %%r2, %%r3};\n\tret;\n}\n");
}

/* Element (row, column) of matrix m as a half-word of the registers, 8 a lane. */
static unsigned
in_registers(unsigned m, unsigned row, unsigned column)
{
	return (row * 4 + column / 2) * 8 + m * 2 + column % 2;
}

static bool
check_move(const struct move_form *f, void *function, dptr at[4], char *why, size_t size)
{
	uint16_t rows[256], regs[256], want[256], got[256];

	for (unsigned n = 0; n < 256; n++) {
		rows[n] = (uint16_t)(0x1000 + n);
		regs[n] = (uint16_t)(0x2000 + n);
	}
	memset(memory, 0, sizeof memory);
	memcpy(memory[0], rows, sizeof rows);
	memcpy(memory[1], regs, sizeof regs);
	memcpy(want, f->move == STORE ? rows : regs, sizeof want);
	for (unsigned m = 0; m < f->count; m++) {
		for (unsigned r = 0; r < 8; r++) {
			for (unsigned q = 0; q < 8; q++) {
				unsigned reg = f->trans ? in_registers(m, q, r) : in_registers(m, r, q), in_memory = row_place(m * 8 + r) * 8 + q;
				if (f->move == LOAD)
					want[reg] = rows[in_memory];
				else if (f->move == STORE)
					want[in_memory] = regs[reg];
				else
					want[reg] = regs[in_registers(m, r, q)];
			}
		}
	}
	int error = launch(function, at);
	if (error) {
		snprintf(why, size, "%s", cu_name(error));
		return false;
	}
	memcpy(got, memory[3], sizeof got);
	for (unsigned n = 0; n < 256; n++) {
		if (want[n] == got[n])
			continue;
		snprintf(why, size, "half-word %u: 0x%x, not 0x%x", n, got[n], want[n]);
		return false;
	}
	return true;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------------- */

static void
title(unsigned n, char *out, size_t size)
{
	emit_form(&forms[n]);
	const char *at = strstr(text, forms[n].wmma ? "wmma.mma" : "\tmma") + !forms[n].wmma;
	int length = (int)strcspn(at, " ");

	snprintf(out, size, "%.*s%s", length, at, forms[n].wmma && forms[n].c_column ? ", c and d by column" : "");
}

/* The PTX of a test is in text. */
static bool
assembles(const char *ptxas, char *why, size_t size)
{
	char path[] = "/tmp/matrix-XXXXXX", command[512], target[16];
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, text, used) != (ssize_t)used)
		abort();
	close(fd);
	sscanf(strstr(text, "sm_"), "%15s", target);
	snprintf(command, sizeof command, "%s -arch=%s %s -o /dev/null >/dev/null 2>&1", ptxas, target, path);
	bool good = system(command) == 0;
	unlink(path);
	if (!good)
		snprintf(why, size, "the assembler refuses it");
	return good;
}

static bool
run(unsigned n, dptr at[4], char *why, size_t size)
{
	char log[1024] = "";
	void *module, *function;

	int error = cu_load(&module, text, log, sizeof log);
	if (error) {
		snprintf(why, size, "%s: %s", cu_name(error), log);
		return false;
	}
	error = cu.ModuleGetFunction(&function, module, "k");
	bool good = !error && (n < form_count ? check_form(&forms[n], function, at, why, size)
	                                      : check_move(&moves[n - form_count], function, at, why, size));
	cu.ModuleUnload(module);
	return good;
}

int
main(int argc, char **argv)
{
	const char *ptxas = argc > 2 && strcmp(argv[1], "--ptxas") == 0 ? argv[2] : NULL;
	bool print = argc > 1 && strcmp(argv[1], "--print") == 0;
	dptr at[4] = { 0 };
	int failed = 0;

	cu_need_level();
	setvbuf(stdout, NULL, _IOLBF, 0);
	add_mma();
	add_quads();
	add_wmma();
	const char *reason = ptxas || print ? NULL : cu_open();
	if (reason) {
		printf("1..0 # SKIP %s\n", reason);
		return 77;
	}
	for (unsigned n = 0; n < 4 && !ptxas && !print; n++)
		if (cu.MemAlloc(&at[n], sizeof memory[n]))
			return 1;
	if (!print)
		printf("1..%u\n", form_count + (unsigned)MOVES);
	for (unsigned n = 0; n < form_count + MOVES; n++) {
		char name[200] = "", why[1200] = "";
		if (n < form_count) {
			title(n, name, sizeof name);
		} else {
			const struct move_form *f = &moves[n - form_count];
			emit_move(f);
			snprintf(name, sizeof name, "%smatrix x%u%s", f->move == LOAD ? "ld" : f->move == STORE ? "st" : "mov", f->count,
			         f->trans ? " trans" : "");
		}
		if (print) {
			fputs(text, stdout);
			continue;
		}
		bool good = ptxas ? assembles(ptxas, why, sizeof why) : run(n, at, why, sizeof why);
		if (!good)
			printf("# %s\n", why);
		failed += !good;
		printf("%sok %u - %s\n", good ? "" : "not ", n + 1, name);
	}
	return failed != 0;
}
