/*
 * Matrix instructions of a warp: mma.sync, ldmatrix, stmatrix, movmatrix, wmma. Included by mem.c.
 *
 * A multiplication unpacks the fragments of all lanes into plain matrices, multiplies, and packs the result. Products of f16, bf16,
 * tf32 and fp8 values are exact in float and are added in order of k, which is within what PTX promises of the accumulator.
 *
 * Where an element of a fragment lives is one formula for every shape of mma.sync (PTX ISA 9.7.14.5): a register holds E
 * neighbours along k; with g = lane / 4 and t = lane % 4, register r of A is row g + 8 (r & 1) and k = 4 E (r / 2) + E t + e (without
 * the row bit when A has 8 rows), register r of B is column g and k = 4 E r + E t + e; element i of C and D is row g + 8 (i / 2),
 * column 2 t + (i & 1). The layout of wmma fragments is ours: PTX leaves it open; that of elements below a byte is mma.sync's.
 *
 * m8n8k4 of f16 is four products, each of the eight lanes 4 q ... and 16 + 4 q ...: see sx_mma_quads.
 *
 * Not here: sparse and block-scaled mma, floats of 4 and 6 bits, ldmatrix and stmatrix of bytes, wgmma, tcgen05.
 */
#ifndef SX_MATRIX_C
#define SX_MATRIX_C

#include <fenv.h>

#define SX_MAT_ROWS 32
#define SX_MAT_COLS 32
#define SX_MAT_K 64 /* of b1: words */

typedef float sx_float8 __attribute__((vector_size(32)));
typedef uint32_t sx_uint8x __attribute__((vector_size(32)));

enum sx_mat_kind { SX_MAT_FLOAT, SX_MAT_INT, SX_MAT_BITS, SX_MAT_DOUBLE };

/* One matrix operand in registers. */
struct sx_frag {
	enum ptx_type type;
	uint8_t role;   /* 'a', 'b' or 'c' */
	uint8_t count;  /* registers */
	uint32_t reg[8];
};

struct sx_mma {
	uint8_t m, n, k; /* k in elements; of b1 in words */
	uint8_t kind;    /* enum sx_mat_kind */
	bool wmma;       /* our own fragment layout */
	bool saturate;   /* .satfinite */
	bool both;       /* b1: .and, else .xor */
	bool quads;      /* m8n8k4 of f16 */
	bool a_column, b_row; /* its layouts */
	int rounding;    /* f64: FE_TONEAREST ... */
	struct sx_frag d, a, b, c;
};

union sx_mat { /* row-major; a: m x k, b: k x n, c: m x n */
	float f[SX_MAT_ROWS * SX_MAT_K];
	int32_t i[SX_MAT_ROWS * SX_MAT_K];
	double d[16 * 16];
} __attribute__((aligned(64)));

/* ---- elements ------------------------------------------------------------------------------------------------------------ */

static inline float
sx_float_of_e4m3(uint8_t v)
{
	uint32_t magnitude = v & 0x7f, sign = (uint32_t)(v & 0x80) << 24;

	if (magnitude == 0x7f)
		return sx_float_of_bits(0x7fffffff);
	float value = magnitude < 8 ? (float)magnitude * 0x1p-9f : sx_float_of_bits((magnitude << 20) + (120u << 23));
	return sx_float_of_bits(sx_bits_of_float(value) | sign);
}

/* Bits of an element as it is handled: b1 in words. A function, so that it is known when compiled. */
SX_INLINE unsigned
sx_frag_bits(enum ptx_type type)
{
	switch (type) {
	case PTX_s4:
	case PTX_u4:
		return 4;
	case PTX_s8:
	case PTX_u8:
	case PTX_e4m3:
	case PTX_e5m2:
		return 8;
	case PTX_f16:
	case PTX_bf16:
		return 16;
	case PTX_f64:
		return 64;
	default:
		return 32;
	}
}

/* sx_float_of_half without branches: the exponent is corrected by a multiplication, which is exact, also for subnormals. */
SX_INLINE float
sx_float_of_half_flat(uint16_t half)
{
	uint32_t magnitude = half & 0x7fffu, sign = (uint32_t)(half & 0x8000) << 16;
	uint32_t finite = sx_bits_of_float(sx_float_of_bits((uint64_t)magnitude << 13) * 0x1p112f);

	return sx_float_of_bits(sign | (magnitude >= 0x7c00 ? magnitude << 13 | 0x7f800000u : finite));
}

/* Element e of a 32-bit register as a number. */
static inline float
sx_frag_float(enum ptx_type type, uint32_t word, unsigned e)
{
	switch (type) {
	case PTX_f16:
		return sx_float_of_half_flat((uint16_t)(word >> 16 * e));
	case PTX_bf16:
		return sx_float_of_bfloat((uint16_t)(word >> 16 * e));
	case PTX_tf32:
		return sx_float_of_bits(word & ~0x1fffu);
	case PTX_e4m3:
		return sx_float_of_e4m3((uint8_t)(word >> 8 * e));
	case PTX_e5m2:
		return sx_float_of_half((uint16_t)((word >> 8 * e & 0xff) << 8));
	default:
		return sx_float_of_bits(word);
	}
}

static inline int32_t
sx_frag_int(enum ptx_type type, uint32_t word, unsigned e)
{
	switch (type) {
	case PTX_s8:
		return (int8_t)(word >> 8 * e);
	case PTX_u8:
		return (uint8_t)(word >> 8 * e);
	case PTX_s4:
		return (int32_t)(word << (28 - 4 * e)) >> 28;
	case PTX_u4:
		return (int32_t)(word >> 4 * e & 15);
	default:
		return (int32_t)word;
	}
}

/* A multiplication's numbers. Known when compiled in the handlers of the common shapes, so everything below is inlined. */
struct sx_mat_shape {
	unsigned m, n, k;
	enum sx_mat_kind kind;
	bool wmma;
};

/* Index into the row-major matrix of element e of register r in a lane. */
SX_INLINE unsigned
sx_frag_index(struct sx_mat_shape s, char role, unsigned lane, unsigned r, unsigned e, unsigned per)
{
	unsigned g = lane >> 2, t = lane & 3;

	if (s.wmma) {
		unsigned own = (role == 'a' ? s.m * s.k : role == 'b' ? s.k * s.n : s.m * s.n) / SX_LANES;
		return lane * own + (r * per + e) % own; /* registers beyond the matrix repeat it */
	}
	if (role == 'a') {
		unsigned row = s.m == 8 ? g : g + 8 * (r & 1), block = s.m == 8 ? r : r >> 1;
		return row * s.k + 4 * per * block + per * t + e;
	}
	if (role == 'b')
		return (4 * per * r + per * t + e) * s.n + g;
	unsigned n = r * per + e;
	return (g + 8 * (n >> 1)) * s.n + 2 * t + (n & 1);
}

SX_INLINE void
sx_frag_get(const struct sx_warp *w, struct sx_mat_shape s, char role, enum ptx_type type, unsigned count, const uint32_t *regs,
            union sx_mat *mat)
{
	unsigned bits = sx_frag_bits(type), per = bits == 64 ? 1 : 32 / bits;

	for (unsigned r = 0; r < count; r++) {
		if (s.kind == SX_MAT_DOUBLE) {
			for (unsigned l = 0; l < SX_LANES; l++)
				mat->d[sx_frag_index(s, role, l, r, 0, 1)] = sx_double_of_bits(SX_S64(w, regs[r])[l]);
			continue;
		}
		const uint32_t *words = SX_S32(w, regs[r]);
		for (unsigned e = 0; e < per; e++) {
			if (s.kind == SX_MAT_FLOAT) {
				float values[SX_LANES];
				for (unsigned l = 0; l < SX_LANES; l++)
					values[l] = sx_frag_float(type, words[l], e);
				for (unsigned l = 0; l < SX_LANES; l++)
					mat->f[sx_frag_index(s, role, l, r, e, per)] = values[l];
			} else {
				int32_t values[SX_LANES];
				for (unsigned l = 0; l < SX_LANES; l++)
					values[l] = sx_frag_int(type, words[l], e);
				for (unsigned l = 0; l < SX_LANES; l++)
					mat->i[sx_frag_index(s, role, l, r, e, per)] = values[l];
			}
		}
	}
}

SX_INLINE void
sx_frag_put(struct sx_warp *w, struct sx_mat_shape s, enum ptx_type type, unsigned count, const uint32_t *regs, const union sx_mat *mat)
{
	unsigned per = type == PTX_f16 ? 2 : 1;

	for (unsigned r = 0; r < count; r++) {
		if (regs[r] == SX_NO_REG)
			continue;
		if (s.kind == SX_MAT_DOUBLE) {
			uint64_t wide[SX_LANES];
			for (unsigned l = 0; l < SX_LANES; l++)
				wide[l] = sx_bits_of_double(mat->d[sx_frag_index(s, 'c', l, r, 0, 1)]);
			sx_put64(w, regs[r], wide);
			continue;
		}
		uint32_t words[SX_LANES];
		for (unsigned l = 0; l < SX_LANES; l++) {
			unsigned at = sx_frag_index(s, 'c', l, r, 0, per);
			if (per == 2)
				words[l] = sx_half_of_float(mat->f[at]) | (uint32_t)sx_half_of_float(mat->f[sx_frag_index(s, 'c', l, r, 1, per)]) << 16;
			else
				words[l] = (uint32_t)mat->i[at]; /* a float's bits too */
		}
		sx_put32(w, regs[r], words);
	}
}

/* ---- multiplication ------------------------------------------------------------------------------------------------------- */

/* c += a b; n is a multiple of 8. Four rows at a time share the row of b. */
SX_INLINE void
sx_mat_mul_float(struct sx_mat_shape s, const float *a, const float *b, float *c)
{
	for (unsigned n = 0; n < s.n; n += 8) {
		for (unsigned m = 0; m < s.m; m += 4) {
			sx_float8 sum[4], row;
			for (unsigned q = 0; q < 4; q++)
				memcpy(&sum[q], c + (m + q) * s.n + n, sizeof row);
			for (unsigned k = 0; k < s.k; k++) {
				memcpy(&row, b + k * s.n + n, sizeof row);
				for (unsigned q = 0; q < 4; q++)
					sum[q] += a[(m + q) * s.k + k] * row;
			}
			for (unsigned q = 0; q < 4; q++)
				memcpy(c + (m + q) * s.n + n, &sum[q], sizeof row);
		}
	}
}

/* The same for integers, which wrap; unsigned, where wrapping is defined. */
SX_INLINE void
sx_mat_mul_wrap(struct sx_mat_shape s, const int32_t *a, const int32_t *b, int32_t *c)
{
	for (unsigned n = 0; n < s.n; n += 8) {
		for (unsigned m = 0; m < s.m; m += 4) {
			sx_uint8x sum[4], row;
			for (unsigned q = 0; q < 4; q++)
				memcpy(&sum[q], c + (m + q) * s.n + n, sizeof row);
			for (unsigned k = 0; k < s.k; k++) {
				memcpy(&row, b + k * s.n + n, sizeof row);
				for (unsigned q = 0; q < 4; q++)
					sum[q] += (uint32_t)a[(m + q) * s.k + k] * row;
			}
			for (unsigned q = 0; q < 4; q++)
				memcpy(c + (m + q) * s.n + n, &sum[q], sizeof row);
		}
	}
}

static void
sx_mat_mul_saturate(struct sx_mat_shape s, const int32_t *a, const int32_t *b, int32_t *c)
{
	for (unsigned m = 0; m < s.m; m++) {
		for (unsigned n = 0; n < s.n; n++) {
			int64_t sum = c[m * s.n + n]; /* at most 256 products of 16 bits: no overflow */
			for (unsigned k = 0; k < s.k; k++)
				sum += (int64_t)a[m * s.k + k] * b[k * s.n + n];
			c[m * s.n + n] = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : (int32_t)sum;
		}
	}
}

static void
sx_mat_mul_bits(struct sx_mat_shape s, bool both, const int32_t *a, const int32_t *b, int32_t *c)
{
	for (unsigned m = 0; m < s.m; m++) {
		for (unsigned n = 0; n < s.n; n++) {
			uint32_t sum = (uint32_t)c[m * s.n + n];
			for (unsigned k = 0; k < s.k; k++) {
				uint32_t x = (uint32_t)a[m * s.k + k], y = (uint32_t)b[k * s.n + n];
				sum += (uint32_t)__builtin_popcount(both ? x & y : x ^ y);
			}
			c[m * s.n + n] = (int32_t)sum;
		}
	}
}

/* A call of its own, so that nothing of it moves out of the rounding mode. */
static __attribute__((noinline)) void
sx_mat_mul_double(struct sx_mat_shape s, int rounding, const double *a, const double *b, double *c)
{
	if (rounding != FE_TONEAREST)
		fesetround(rounding);
	for (unsigned m = 0; m < s.m; m++)
		for (unsigned n = 0; n < s.n; n++)
			for (unsigned k = 0; k < s.k; k++)
				c[m * s.n + n] = __builtin_fma(a[m * s.k + k], b[k * s.n + n], c[m * s.n + n]);
	if (rounding != FE_TONEAREST)
		fesetround(FE_TONEAREST);
}

/* Any multiplication: nothing is known before. */
static const struct sx_insn *
sx_mma(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_mma *x = i->ptr;
	struct sx_mat_shape s = { x->m, x->n, x->k, (enum sx_mat_kind)x->kind, x->wmma };
	union sx_mat a, b, c;

	sx_frag_get(w, s, 'a', x->a.type, x->a.count, x->a.reg, &a);
	sx_frag_get(w, s, 'b', x->b.type, x->b.count, x->b.reg, &b);
	sx_frag_get(w, s, 'c', x->c.type, x->c.count, x->c.reg, &c);
	if (s.kind == SX_MAT_FLOAT)
		sx_mat_mul_float(s, a.f, b.f, c.f);
	else if (s.kind == SX_MAT_DOUBLE)
		sx_mat_mul_double(s, x->rounding, a.d, b.d, c.d);
	else if (s.kind == SX_MAT_BITS)
		sx_mat_mul_bits(s, x->both, a.i, b.i, c.i);
	else if (x->saturate)
		sx_mat_mul_saturate(s, a.i, b.i, c.i);
	else
		sx_mat_mul_wrap(s, a.i, b.i, c.i);
	sx_frag_put(w, s, x->d.type, x->d.count, x->d.reg, &c);
	return i + 1;
}

/*
 * mma.m8n8k4 of f16: quad pair q, lanes 4 q + 0..3 and 16 + 4 q + 0..3, multiplies 8 x 4 by 4 x 8 of its own. With x the lane's number in
 * the pair: a line of A or B lies in lane x along k; by the other layout lane x has k = x % 4 and lines 4 (x / 4) + 0..3. C and D of
 * f16 are row x; of f32 element i is row 4 (x / 4) + (x & 1) + (i & 2) and column (i & 4) + (x & 2) + (i & 1).
 */
static inline unsigned
sx_quad_index(char role, bool across, enum ptx_type type, unsigned x, unsigned i)
{
	if (role != 'c')
		return across ? (x / 4 * 4 + i) * 4 + x % 4 : x * 4 + i;
	if (type == PTX_f16)
		return x * 8 + i;
	return (x / 4 * 4 + (x & 1) + (i & 2)) * 8 + (i & 4) + (x & 2) + (i & 1);
}

static void
sx_quad_get(const struct sx_warp *w, const struct sx_frag *frag, unsigned quad, bool across, float *out)
{
	unsigned per = frag->type == PTX_f16 ? 2 : 1;

	for (unsigned x = 0; x < 8; x++)
		for (unsigned i = 0; i < frag->count * per; i++)
			out[sx_quad_index((char)frag->role, across, frag->type, x, i)] =
				sx_frag_float(frag->type, SX_S32(w, frag->reg[i / per])[4 * quad + x % 4 + x / 4 * 16], i % per);
}

static const struct sx_insn *
sx_mma_quads(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_mma *x = i->ptr;
	uint32_t words[8][SX_LANES] = { { 0 } };
	bool half = x->d.type == PTX_f16;

	for (unsigned quad = 0; quad < 4; quad++) {
		float a[32], b[32], c[64];
		sx_quad_get(w, &x->a, quad, x->a_column, a);
		sx_quad_get(w, &x->b, quad, x->b_row, b);
		sx_quad_get(w, &x->c, quad, false, c);
		for (unsigned n = 0; n < 64; n++)
			for (unsigned k = 0; k < 4; k++)
				c[n] += a[n / 8 * 4 + k] * b[n % 8 * 4 + k];
		for (unsigned l = 0; l < 8; l++) {
			for (unsigned e = 0; e < 8; e++) {
				float value = c[sx_quad_index('c', false, x->d.type, l, e)];
				uint32_t *word = &words[half ? e / 2 : e][4 * quad + l % 4 + l / 4 * 16];
				*word = half ? *word | (uint32_t)sx_half_of_float(value) << 16 * (e & 1) : sx_bits_of_float(value);
			}
		}
	}
	for (unsigned r = 0; r < x->d.count; r++)
		if (x->d.reg[r] != SX_NO_REG)
			sx_put32(w, x->d.reg[r], words[r]);
	return i + 1;
}

/* The shapes that programs use most, with everything known. */
#define SX_MMA_KNOWN(name, m, n, k, mat_kind, ab, a_count, b_count, cd, c_count, multiply, member) \
	static const struct sx_insn * \
	sx_mma_##name(struct sx_warp *w, const struct sx_insn *i) \
	{ \
		const struct sx_mma *x = i->ptr; \
		const struct sx_mat_shape s = { m, n, k, mat_kind, false }; \
		union sx_mat a, b, c; \
		sx_frag_get(w, s, 'a', ab, a_count, x->a.reg, &a); \
		sx_frag_get(w, s, 'b', ab, b_count, x->b.reg, &b); \
		sx_frag_get(w, s, 'c', cd, c_count, x->c.reg, &c); \
		multiply(s, a.member, b.member, c.member); \
		sx_frag_put(w, s, cd, c_count, x->d.reg, &c); \
		return i + 1; \
	}
SX_MMA_KNOWN(f16_f32, 16, 8, 16, SX_MAT_FLOAT, PTX_f16, 4, 2, PTX_f32, 4, sx_mat_mul_float, f)
SX_MMA_KNOWN(f16_f16, 16, 8, 16, SX_MAT_FLOAT, PTX_f16, 4, 2, PTX_f16, 2, sx_mat_mul_float, f)
SX_MMA_KNOWN(bf16_f32, 16, 8, 16, SX_MAT_FLOAT, PTX_bf16, 4, 2, PTX_f32, 4, sx_mat_mul_float, f)
SX_MMA_KNOWN(tf32_f32, 16, 8, 8, SX_MAT_FLOAT, PTX_tf32, 4, 2, PTX_f32, 4, sx_mat_mul_float, f)
SX_MMA_KNOWN(s8_s32, 16, 8, 32, SX_MAT_INT, PTX_s8, 4, 2, PTX_s32, 4, sx_mat_mul_wrap, i)

static sx_fn
sx_pick_mma(const struct sx_mma *x)
{
	static const struct {
		uint8_t ab, cd, k;
		sx_fn fn;
	} rows[] = {
		{ PTX_f16, PTX_f32, 16, sx_mma_f16_f32 }, { PTX_f16, PTX_f16, 16, sx_mma_f16_f16 }, { PTX_bf16, PTX_f32, 16, sx_mma_bf16_f32 },
		{ PTX_tf32, PTX_f32, 8, sx_mma_tf32_f32 }, { PTX_s8, PTX_s32, 32, sx_mma_s8_s32 },
	};

	if (x->quads)
		return sx_mma_quads;
	for (size_t n = 0; n < sizeof rows / sizeof *rows && !x->wmma && !x->saturate && x->m == 16; n++)
		if (x->a.type == rows[n].ab && x->b.type == rows[n].ab && x->c.type == rows[n].cd && x->d.type == rows[n].cd && x->k == rows[n].k)
			return rows[n].fn;
	return sx_mma;
}

/* ---- ldmatrix, stmatrix, movmatrix ---------------------------------------------------------------------------------------- */

#define SX_MAT_COUNT(aux) ((aux) >> 16 & 7)
#define SX_MAT_TRANS (1u << 20)

/* 8 x 8 elements of 16 bits; lane l holds elements (l / 4, 2 (l % 4)) and the next, in the low and the high half. */
static inline unsigned
sx_mat_place(unsigned lane, unsigned half, bool trans)
{
	unsigned row = lane >> 2, column = 2 * (lane & 3) + half;

	return trans ? column * 8 + row : row * 8 + column;
}

/* Rows' host addresses: row n of matrix j is given by lane 8 j + n. */
static bool
sx_mat_rows(struct sx_warp *w, const struct sx_insn *i, uint8_t access, uint64_t at[SX_LANES])
{
	unsigned count = SX_MAT_COUNT(i->aux);
	uint32_t exec = w->exec;
	bool all = w->all;

	w->exec &= count == 4 ? ~0u : (1u << 8 * count) - 1;
	w->all = false;
	bool good = sx_at(w, i, SX_MEM_KIND(i->aux), 16, 16, access, at);
	w->exec = exec;
	w->all = all;
	return good;
}

static const struct sx_insn *
sx_ldmatrix(struct sx_warp *w, const struct sx_insn *i)
{
	bool trans = i->aux & SX_MAT_TRANS;
	uint64_t at[SX_LANES];
	uint32_t words[4][SX_LANES];
	unsigned count = SX_MAT_COUNT(i->aux);

	if (!sx_mat_rows(w, i, SW_ACCESS_READ, at))
		return NULL;
	for (unsigned j = 0; j < count; j++) {
		uint16_t matrix[64] = { 0 };
		for (unsigned row = 0; row < 8; row++)
			if (at[8 * j + row])
				memcpy(matrix + 8 * row, (const void *)(uintptr_t)at[8 * j + row], 16);
		for (unsigned l = 0; l < SX_LANES; l++)
			words[j][l] = matrix[sx_mat_place(l, 0, trans)] | (uint32_t)matrix[sx_mat_place(l, 1, trans)] << 16;
	}
	for (unsigned j = 0; j < count; j++)
		if (sx_element(i, j) != SX_NO_REG)
			sx_put32(w, sx_element(i, j), words[j]);
	return i + 1;
}

static const struct sx_insn *
sx_stmatrix(struct sx_warp *w, const struct sx_insn *i)
{
	bool trans = i->aux & SX_MAT_TRANS;
	uint64_t at[SX_LANES];

	if (!sx_mat_rows(w, i, SW_ACCESS_WRITE, at))
		return NULL;
	for (unsigned j = 0; j < SX_MAT_COUNT(i->aux); j++) {
		const uint32_t *words = SX_S32(w, sx_element(i, j));
		uint16_t matrix[64];
		for (unsigned l = 0; l < SX_LANES; l++) {
			matrix[sx_mat_place(l, 0, trans)] = (uint16_t)words[l];
			matrix[sx_mat_place(l, 1, trans)] = (uint16_t)(words[l] >> 16);
		}
		for (unsigned row = 0; row < 8; row++)
			if (at[8 * j + row])
				memcpy((void *)(uintptr_t)at[8 * j + row], matrix + 8 * row, 16);
	}
	return i + 1;
}

static const struct sx_insn *
sx_movmatrix(struct sx_warp *w, const struct sx_insn *i)
{
	const uint32_t *a = SX_S32(w, i->a);
	uint32_t r[SX_LANES];
	uint16_t matrix[64];

	for (unsigned l = 0; l < SX_LANES; l++) {
		matrix[sx_mat_place(l, 0, false)] = (uint16_t)a[l];
		matrix[sx_mat_place(l, 1, false)] = (uint16_t)(a[l] >> 16);
	}
	for (unsigned l = 0; l < SX_LANES; l++)
		r[l] = matrix[sx_mat_place(l, 0, true)] | (uint32_t)matrix[sx_mat_place(l, 1, true)] << 16;
	sx_put32(w, i->d, r);
	return i + 1;
}

/* ---- wmma.load and wmma.store ----------------------------------------------------------------------------------------------- */

struct sx_wmma_access {
	struct sx_mma shape;
	struct sx_frag frag;
	bool column_major;
	bool store;
	uint8_t packed;  /* elements of less than a byte are moved as words of so many; else 1 */
	uint32_t stride; /* operand: elements between rows (or columns) */
	uint32_t address; /* operand: 64-bit slot of generic addresses */
};

/* The address and the stride are those of the first lane: all must give the same. */
static const struct sx_insn *
sx_wmma_move(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_wmma_access *x = i->ptr;
	const struct sx_frag *frag = &x->frag;
	unsigned bits = ptx_type_bits[frag->type == PTX_tf32 ? PTX_f32 : frag->type], bytes = bits / 8, per = bits == 64 ? 1 : 32 / bits;
	unsigned rows = frag->role == 'b' ? x->shape.k : x->shape.m, columns = frag->role == 'a' ? x->shape.k : x->shape.n;
	unsigned own = rows * columns / SX_LANES, lane = (unsigned)__builtin_ctz(w->exec);
	uint64_t base = SX_S64(w, x->address)[lane], stride = SX_S32(w, x->stride)[lane] / x->packed;
	uint8_t access = x->store ? SW_ACCESS_WRITE : SW_ACCESS_READ;

	for (unsigned r = 0; r < frag->count; r++) {
		uint32_t words[SX_LANES] = { 0 };
		uint64_t wide[SX_LANES] = { 0 };
		for (unsigned l = 0; l < SX_LANES; l++) {
			for (unsigned e = 0; e < per; e++) {
				unsigned n = r * per + e, at = l * own + n % own, row = at / columns, column = at % columns;
				uint64_t place = base + (x->column_major ? column * stride + row : row * stride + column) * bytes;
				if ((x->store && n >= own) || !(w->exec >> l & 1))
					continue;
				if (!sx_check_generic(w, i, l, place, bytes, bytes, access))
					return NULL;
				if (x->store && bits == 64)
					sx_poke(place, 3, SX_S64(w, frag->reg[r])[l]);
				else if (x->store)
					sx_poke(place, sx_log2(bytes), SX_S32(w, frag->reg[r])[l] >> (bits & 31) * e);
				else if (bits == 64)
					wide[l] = sx_peek(place, 3);
				else
					words[l] |= (uint32_t)sx_peek(place, sx_log2(bytes)) << (bits & 31) * e;
			}
		}
		if (!x->store && bits == 64)
			sx_put64(w, frag->reg[r], wide);
		else if (!x->store)
			sx_put32(w, frag->reg[r], words);
	}
	return i + 1;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------------------- */

/* "m16n8k16" */
static bool
sx_mat_parse(const char *text, unsigned *m, unsigned *n, unsigned *k)
{
	unsigned *parts[] = { m, n, k };
	const char *names = "mnk";

	for (unsigned p = 0; p < 3; p++) {
		if (*text++ != names[p])
			return false;
		for (*parts[p] = 0; *text >= '0' && *text <= '9' && *parts[p] < 1000; text++)
			*parts[p] = *parts[p] * 10 + (unsigned)(*text - '0');
	}
	return *text == 0;
}

/* The shapes that exist, by type of A. */
struct sx_mat_row {
	uint8_t type;
	bool wmma;
	uint16_t m, n, k;
};
static const struct sx_mat_row sx_mat_rows_known[] = {
	{ PTX_f16, false, 16, 8, 8 }, { PTX_f16, false, 16, 8, 16 }, { PTX_bf16, false, 16, 8, 8 }, { PTX_bf16, false, 16, 8, 16 },
	{ PTX_tf32, false, 16, 8, 4 }, { PTX_tf32, false, 16, 8, 8 }, { PTX_e4m3, false, 16, 8, 16 }, { PTX_e4m3, false, 16, 8, 32 },
	{ PTX_f64, false, 8, 8, 4 }, { PTX_f64, false, 16, 8, 4 }, { PTX_f64, false, 16, 8, 8 }, { PTX_f64, false, 16, 8, 16 },
	{ PTX_s8, false, 8, 8, 16 }, { PTX_s8, false, 16, 8, 16 }, { PTX_s8, false, 16, 8, 32 },
	{ PTX_s4, false, 8, 8, 32 }, { PTX_s4, false, 16, 8, 32 }, { PTX_s4, false, 16, 8, 64 },
	{ PTX_b1, false, 8, 8, 128 }, { PTX_b1, false, 16, 8, 128 }, { PTX_b1, false, 16, 8, 256 },
	{ PTX_f16, true, 16, 16, 16 }, { PTX_f16, true, 32, 8, 16 }, { PTX_f16, true, 8, 32, 16 },
	{ PTX_bf16, true, 16, 16, 16 }, { PTX_bf16, true, 32, 8, 16 }, { PTX_bf16, true, 8, 32, 16 },
	{ PTX_s8, true, 16, 16, 16 }, { PTX_s8, true, 32, 8, 16 }, { PTX_s8, true, 8, 32, 16 },
	{ PTX_tf32, true, 16, 16, 8 }, { PTX_f64, true, 8, 8, 4 }, { PTX_s4, true, 8, 8, 32 }, { PTX_b1, true, 8, 8, 128 },
};

static enum ptx_type
sx_mat_family(enum ptx_type type)
{
	return type == PTX_u8 ? PTX_s8 : type == PTX_u4 ? PTX_s4 : type == PTX_e5m2 ? PTX_e4m3 : type;
}

/* Elements that wmma moves together: words of what is less than a byte. */
static unsigned
sx_mat_packed(enum ptx_type type)
{
	return type == PTX_b1 ? 32 : sx_mat_family(type) == PTX_s4 ? 8 : 1;
}

/* Fills m, n, k and kind for inputs of this type. */
static bool
sx_mat_known(struct sx_mma *mma, enum ptx_type type, unsigned m, unsigned n, unsigned k)
{
	enum ptx_type family = sx_mat_family(type);

	for (size_t row = 0; row < sizeof sx_mat_rows_known / sizeof *sx_mat_rows_known; row++) {
		const struct sx_mat_row *known = &sx_mat_rows_known[row];
		if (known->type != family || known->wmma != mma->wmma || known->m != m || known->n != n || known->k != k)
			continue;
		mma->m = (uint8_t)m;
		mma->n = (uint8_t)n;
		mma->k = (uint8_t)(family == PTX_b1 ? k / 32 : k);
		mma->kind = family == PTX_f64 ? SX_MAT_DOUBLE : family == PTX_b1 ? SX_MAT_BITS : family == PTX_s8 || family == PTX_s4
			? SX_MAT_INT : SX_MAT_FLOAT;
		return true;
	}
	return false;
}

/* Whether the form names a rounding, which only f64 has. It may stand before the types or behind them. */
static bool
sx_mat_rounding(const struct ptx_insn *in, struct sx_mma *mma)
{
	static const struct {
		const char *mod;
		int rounding;
	} rows[] = { { "rn", FE_TONEAREST }, { "rz", FE_TOWARDZERO }, { "rm", FE_DOWNWARD }, { "rp", FE_UPWARD } };

	for (size_t n = 0; mma->kind == SX_MAT_DOUBLE && n < sizeof rows / sizeof *rows; n++)
		if (ptx_has(in, rows[n].mod)) {
			mma->rounding = rows[n].rounding;
			return true;
		}
	return false;
}

static bool
sx_mat_layout(const char *name)
{
	return !strcmp(name, "row") || !strcmp(name, "col");
}

/* The registers of a fragment: at least as many as the matrix needs, of the right width. `target`: they are written. */
static bool
sx_frag_operand(struct sx_decoder *d, const struct ptx_operand *operand, const struct sx_mma *mma, struct sx_frag *frag, char role,
                enum ptx_type type, bool target)
{
	unsigned size = role == 'a' ? mma->m * mma->k : role == 'b' ? mma->k * mma->n : mma->m * mma->n, bits = sx_frag_bits(type);
	unsigned need = size * bits / SX_LANES / (bits == 64 ? 64 : 32), width = bits == 64 ? 64 : 32;
	const struct ptx_operand *elements = operand->kind == PTX_OP_VECTOR ? operand->elems : operand;
	unsigned count = operand->kind == PTX_OP_VECTOR ? operand->count : 1;

	if (count > 8 || count < need || (count != need && !(mma->wmma && type == PTX_f16 && count == 8)))
		return false;
	*frag = (struct sx_frag){ .type = type, .role = (uint8_t)role, .count = (uint8_t)count };
	for (unsigned n = 0; n < count; n++) {
		unsigned own = sxd_bits(d, &elements[n]);
		if (own != width && (own || target || width == 64))
			return false;
		frag->reg[n] = target ? sxd_dst(d, &elements[n]) : sxd_src(d, &elements[n], width == 64 ? PTX_f64 : PTX_b32);
	}
	return true;
}

static bool
sx_emit_matrix(struct sx_decoder *d, sx_fn fn, const void *value, size_t size)
{
	void *memory = sxd_keep(d, value, size);

	if (memory)
		sxd_emit(d, fn)->ptr = memory;
	return true;
}

/* d, a, b, c after the types of the form are known. */
static bool
sx_decode_multiply(struct sx_decoder *d, const struct ptx_insn *in, struct sx_mma *mma, const enum ptx_type types[4])
{
	const struct ptx_operand *o = in->operands;
	bool exact = mma->kind == SX_MAT_INT || mma->kind == SX_MAT_BITS;
	enum ptx_type wide = mma->kind == SX_MAT_DOUBLE ? PTX_f64 : exact ? PTX_s32 : PTX_f32;

	for (unsigned n = 0; n < 4; n += 3) /* results and addends */
		if (types[n] != wide && !(types[n] == PTX_f16 && (types[1] == PTX_f16 || types[1] == PTX_e4m3 || types[1] == PTX_e5m2)))
			return false;
	if (sx_mat_family(types[1]) != sx_mat_family(types[2]) || in->operand_count != 4)
		return false;
	if (!sx_frag_operand(d, &o[1], mma, &mma->a, 'a', types[1], false) || !sx_frag_operand(d, &o[2], mma, &mma->b, 'b', types[2], false) ||
	    !sx_frag_operand(d, &o[3], mma, &mma->c, 'c', types[3], false))
		return false;
	sxd_emit_converge(d, sxd_const32(d, ~0u));
	if (!sx_frag_operand(d, &o[0], mma, &mma->d, 'c', types[0], true))
		return false;
	return sx_emit_matrix(d, sx_pick_mma(mma), mma, sizeof *mma);
}

/* mma.sync.aligned{.kind::f8f6f4}.SHAPE.row.col{.kind::f8f6f4}{.satfinite}.D.A.B.C{.ROUND} {.xor|.and .popc} d, a, b, c */
static bool
sx_decode_mma(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct sx_mma mma = { 0 };
	enum ptx_type types[4];
	unsigned m, n, k;
	unsigned first = in->mod_count > 2 && !strcmp(in->mods[2], "kind::f8f6f4") ? 3 : 2, skip = first + 3;
	bool kind = first == 3;

	if (in->mod_count < 9 || in->type_count != 4 || strcmp(in->mods[0], "sync") != 0 || strcmp(in->mods[1], "aligned") != 0 ||
	    !sx_mat_parse(in->mods[first], &m, &n, &k) || !sx_mat_layout(in->mods[first + 1]) || !sx_mat_layout(in->mods[first + 2]))
		return false;
	for (unsigned t = 0; t < 4; t++)
		types[t] = (enum ptx_type)in->types[t];
	mma.a_column = !strcmp(in->mods[first + 1], "col");
	mma.b_row = !strcmp(in->mods[first + 2], "row");
	if (types[1] == PTX_f16 && m == 8 && n == 8 && k == 4 && in->mod_count == 9) { /* a lane has as much as of 16 x 16 x 8 */
		mma.quads = true;
		mma.m = mma.n = 16;
		mma.k = 8;
		return sx_decode_multiply(d, in, &mma, types);
	}
	if (mma.a_column || mma.b_row)
		return false;
	if (!kind && !strcmp(in->mods[skip], "kind::f8f6f4")) {
		kind = true;
		skip++;
	}
	if (!strcmp(in->mods[skip], "satfinite")) {
		mma.saturate = true;
		skip++;
	}
	if (!sx_mat_known(&mma, types[1], m, n, k) || (mma.saturate && mma.kind != SX_MAT_INT) ||
	    (kind && sx_mat_family(types[1]) != PTX_e4m3))
		return false;
	unsigned rest = mma.kind == SX_MAT_BITS ? 2 : sx_mat_rounding(in, &mma);
	if (in->mod_count != skip + 4 + rest)
		return false;
	if (mma.kind == SX_MAT_BITS) {
		mma.both = !strcmp(in->mods[skip + 4], "and");
		if ((!mma.both && strcmp(in->mods[skip + 4], "xor") != 0) || strcmp(in->mods[skip + 5], "popc") != 0)
			return false;
	}
	return sx_decode_multiply(d, in, &mma, types);
}

/* wmma.mma{.xor|.and .popc}.sync.aligned.LAYOUT.LAYOUT.SHAPE.D{.A.B}.C{.ROUND}{.satfinite} d, a, b, c */
static bool
sx_decode_wmma_mma(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct sx_mma mma = { .wmma = true };
	enum ptx_type types[4];
	bool bits = !strcmp(in->mods[1], "xor") || !strcmp(in->mods[1], "and");
	unsigned m, n, k, t = in->type_count, skip = bits ? 3 : 1;

	if (in->mod_count < skip + 7 || (bits && strcmp(in->mods[2], "popc") != 0) || strcmp(in->mods[skip], "sync") != 0 ||
	    strcmp(in->mods[skip + 1], "aligned") != 0 || !sx_mat_layout(in->mods[skip + 2]) || !sx_mat_layout(in->mods[skip + 3]) ||
	    !sx_mat_parse(in->mods[skip + 4], &m, &n, &k) || (t != 2 && t != 4))
		return false;
	types[0] = (enum ptx_type)in->types[0];
	types[1] = t == 4 ? (enum ptx_type)in->types[1] : PTX_f16;
	types[2] = t == 4 ? (enum ptx_type)in->types[2] : PTX_f16;
	types[3] = (enum ptx_type)in->types[t - 1];
	mma.saturate = !strcmp(in->mods[in->mod_count - 1], "satfinite");
	if (!sx_mat_known(&mma, types[1], m, n, k) || bits != (mma.kind == SX_MAT_BITS) || (mma.saturate && mma.kind != SX_MAT_INT))
		return false;
	if (in->mod_count != skip + 5 + t + sx_mat_rounding(in, &mma) + mma.saturate)
		return false;
	mma.both = bits && !strcmp(in->mods[1], "and");
	if (sx_mat_packed(types[1]) > 1) {
		if (strcmp(in->mods[skip + 2], "row") != 0 || strcmp(in->mods[skip + 3], "col") != 0)
			return false;
		mma.wmma = false;
	}
	return sx_decode_multiply(d, in, &mma, types);
}

/* wmma.load.{a,b,c}.sync.aligned.LAYOUT.SHAPE{.SPACE}.TYPE frag, [p] {, stride} and wmma.store.d...  [p], frag {, stride} */
static bool
sx_decode_wmma_move(struct sx_decoder *d, const struct ptx_insn *in, bool store)
{
	struct sx_wmma_access x = { .shape = { .wmma = true }, .store = store };
	struct sx_mem_form form = sx_mem_form(in);
	unsigned m, n, k;

	if (in->mod_count < 7 || in->type_count != 1 || in->operand_count < 2 || in->operand_count > 3 || strlen(in->mods[1]) != 1 ||
	    !sx_mat_parse(in->mods[5], &m, &n, &k))
		return false;
	char role = store ? 'c' : in->mods[1][0];
	x.column_major = !strcmp(in->mods[4], "col");
	if ((role != 'a' && role != 'b' && role != 'c') || (!x.column_major && strcmp(in->mods[4], "row") != 0))
		return false;
	/* The accumulator's type does not tell the inputs': any family that has the shape gives its size. */
	enum ptx_type input = role != 'c' ? form.type : form.type == PTX_f64 ? PTX_f64 : k == 8 ? PTX_tf32 : k == 32 ? PTX_s4 :
		k == 128 ? PTX_b1 : PTX_f16;
	if (!sx_mat_known(&x.shape, input, m, n, k) ||
	    (role == 'c' && form.type != PTX_s32 && (sx_mat_packed(input) > 1 ||
	     (form.type != PTX_f16 && form.type != PTX_f32 && form.type != PTX_f64))))
		return false;
	x.packed = (uint8_t)sx_mat_packed(form.type);
	if (x.packed > 1) { /* lines of four words along k, both of A and of B */
		if (x.column_major != (role == 'b'))
			return false;
		x.column_major = false;
		x.shape.k = 4;
		role = 'a';
		form.type = PTX_b32;
	}
	x.shape.kind = form.type == PTX_f64 ? SX_MAT_DOUBLE : SX_MAT_INT;
	if (!sx_generic_operand(d, &in->operands[store ? 0 : 1], form.space, &x.address))
		return false;
	unsigned rows = role == 'b' ? x.shape.k : x.shape.m, columns = role == 'a' ? x.shape.k : x.shape.n;
	x.stride = sxd_const32(d, (x.column_major ? rows : columns) * x.packed);
	if (in->operand_count == 3 && !sx_count_source(d, &in->operands[2], &x.stride))
		return false;
	sxd_emit_converge(d, sxd_const32(d, ~0u));
	if (!sx_frag_operand(d, &in->operands[store ? 1 : 0], &x.shape, &x.frag, role, form.type, !store))
		return false;
	return sx_emit_matrix(d, sx_wmma_move, &x, sizeof x);
}

static bool
sx_decode_wmma(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (in->mod_count < 6)
		return false;
	if (!strcmp(in->mods[0], "mma"))
		return sx_decode_wmma_mma(d, in);
	if (strcmp(in->mods[2], "sync") != 0 || strcmp(in->mods[3], "aligned") != 0)
		return false;
	if (!strcmp(in->mods[0], "load"))
		return sx_decode_wmma_move(d, in, false);
	return !strcmp(in->mods[0], "store") && !strcmp(in->mods[1], "d") && sx_decode_wmma_move(d, in, true);
}

/* {ld,st}matrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}{.shared}.b16 */
static bool
sx_decode_ldmatrix(struct sx_decoder *d, const struct ptx_insn *in, bool store)
{
	struct sx_mem_form form = sx_mem_form(in);
	const struct ptx_operand *elements[8];
	struct sx_operand_at at;
	uint32_t regs[4];

	if (in->mod_count < 5 || in->operand_count != 2 || strcmp(in->mods[0], "sync") != 0 || strcmp(in->mods[1], "aligned") != 0 ||
	    strcmp(in->mods[2], "m8n8") != 0 || form.type != PTX_b16)
		return false;
	unsigned count = !strcmp(in->mods[3], "x1") ? 1 : !strcmp(in->mods[3], "x2") ? 2 : !strcmp(in->mods[3], "x4") ? 4 : 0;
	const struct ptx_operand *value = &in->operands[store ? 1 : 0], *place = &in->operands[store ? 0 : 1];
	if (!count || (value->kind == PTX_OP_VECTOR ? value->count != count : count != 1) || place->kind != PTX_OP_ADDRESS)
		return false;
	for (unsigned n = 0; n < count; n++) {
		elements[n] = value->kind == PTX_OP_VECTOR ? &value->elems[n] : value;
		if (sxd_bits(d, elements[n]) != 32)
			return false;
	}
	if ((form.space != PTX_SPACE_SHARED && form.space != PTX_SPACE_NONE) || !sx_operand_at(d, place, form.space, &at) || at.frame)
		return false;
	sxd_emit_converge(d, sxd_const32(d, ~0u));
	for (unsigned n = 0; n < count; n++)
		regs[n] = store ? sxd_src(d, elements[n], PTX_b32) : sxd_dst(d, elements[n]);
	struct sx_insn *i = sxd_emit(d, store ? sx_stmatrix : sx_ldmatrix);
	i->a = at.reg;
	i->imm = at.imm;
	i->aux = (uint32_t)at.kind | count << 16 | (ptx_has(in, "trans") ? SX_MAT_TRANS : 0);
	for (unsigned n = 0; n < count; n++)
		sx_set_element(i, n, regs[n]);
	return true;
}

static bool
sx_decode_movmatrix(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (in->mod_count != 5 || in->operand_count != 2 || strcmp(in->mods[2], "m8n8") != 0 || strcmp(in->mods[3], "trans") != 0 ||
	    sxd_bits(d, &in->operands[0]) != 32 || sxd_bits(d, &in->operands[1]) != 32)
		return false;
	uint32_t source = sxd_src(d, &in->operands[1], PTX_b32);
	sxd_emit_converge(d, sxd_const32(d, ~0u));
	uint32_t target = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, sx_movmatrix);
	i->d = target;
	i->a = source;
	return true;
}

static bool
sx_decode_matrix(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (sxd_is(in, "mma"))
		return sx_decode_mma(d, in);
	if (sxd_is(in, "ldmatrix") || sxd_is(in, "stmatrix"))
		return sx_decode_ldmatrix(d, in, sxd_is(in, "stmatrix"));
	if (sxd_is(in, "movmatrix"))
		return sx_decode_movmatrix(d, in);
	return sxd_is(in, "wmma") && sx_decode_wmma(d, in);
}

#endif
