/*
 * What the arithmetic files share: the modifiers of an instruction as bits, the rows that map a form to its handler, and the
 * macros that write handlers.
 *
 * A handler is a loop over 32 lanes that gcc vectorises. With w->all it stores straight into the destination: the destination
 * may be one of the sources, lane by lane, but slots never overlap otherwise (a register has one slot of its own).
 * Nothing here knows operand syntax; alu_table.c matches rows and checks operands.
 */
#ifndef SX_ALU_H
#define SX_ALU_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <fenv.h>
#endif

#include "soft/exec/isa.h"

/* ---- modifiers ---------------------------------------------------------------------------------------------------- */

/* Flags: any number of them may stand together. Bit, then its spelling. */
#define ALU_FLAGS(X) \
	X(FTZ, "ftz") X(SAT, "sat") X(RN, "rn") X(RZ, "rz") X(RM, "rm") X(RP, "rp") X(RNI, "rni") X(RZI, "rzi") X(RMI, "rmi") \
	X(RPI, "rpi") X(RNA, "rna") X(RS, "rs") X(APPROX, "approx") X(FULL, "full") X(RELU, "relu") X(SATFINITE, "satfinite") \
	X(NAN, "NaN") X(XORSIGN, "xorsign") X(ABS, "abs") X(LO, "lo") X(HI, "hi") X(WIDE, "wide") X(CC, "cc") X(L, "l") X(R, "r") \
	X(WRAP, "wrap") X(CLAMP, "clamp") X(SHIFTAMT, "shiftamt") X(PACK, "pack") X(PO, "po") X(SHR7, "shr7") X(SHR15, "shr15") \
	X(ADD, "add") X(MIN, "min") X(MAX, "max") X(U2, "u2") X(S2, "s2") X(OOB, "oob") X(N2SCALE, "scaled::n2::ue8m0")

/* Sub-operations: at most one each. */
#define ALU_SUBS(X) \
	X(EQ, "eq") X(NE, "ne") X(LT, "lt") X(LE, "le") X(GT, "gt") X(GE, "ge") X(LS, "ls") X(HS, "hs") X(EQU, "equ") \
	X(NEU, "neu") X(LTU, "ltu") X(LEU, "leu") X(GTU, "gtu") X(GEU, "geu") X(NUM, "num") X(ISNAN, "nan") \
	X(FINITE, "finite") X(INFINITE, "infinite") X(NUMBER, "number") X(NOTANUMBER, "notanumber") X(NORMAL, "normal") \
	X(SUBNORMAL, "subnormal") X(F4E, "f4e") X(B4E, "b4e") X(RC8, "rc8") X(ECL, "ecl") X(ECR, "ecr") X(RC16, "rc16")

enum {
#define X(name, text) ALU_BIT_##name,
	ALU_FLAGS(X)
#undef X
	ALU_FLAG_COUNT
};
enum alu_sub {
	SUB_NONE,
#define X(name, text) SUB_##name,
	ALU_SUBS(X)
#undef X
	SUB_COUNT
};
enum alu_bool { BOOL_NONE, BOOL_AND, BOOL_OR, BOOL_XOR };

/* Flags as bits. */
#define F_(name) (1ull << ALU_BIT_##name)
#define F_ROUND (F_(RN) | F_(RZ) | F_(RM) | F_(RP))
#define F_ROUND_INT (F_(RNI) | F_(RZI) | F_(RMI) | F_(RPI))

struct alu_form {
	uint64_t flags;
	enum alu_sub sub;
	enum alu_bool boolean;
	unsigned type_count;
	enum ptx_type types[6];
};

/* What a handler finds in aux, from the modifiers; a row's own number stands above. */
enum {
	AUX_ROUND = 3, AUX_RN = 0, AUX_RZ = 1, AUX_RM = 2, AUX_RP = 3,
	AUX_FTZ = 4, AUX_SAT = 8, AUX_RELU = 16, AUX_NAN = 32, AUX_XORSIGN = 64, AUX_CC = 128, AUX_SATFINITE = 256,
	AUX_RNA = 512, AUX_ABS = 1024,
	AUX_ROW = 1 << 16,
};

/*
 * A form of an opcode. The first row that fits wins. `must` flags have to be there, `may` flags can be.
 * shape has a letter per operand:
 *   d destination of type t0    D of twice its width     x of 32 bits     o of type t1
 *   t source of type t0         T of twice its width     u of 32 bits     s of type t1     p predicate
 * Sources go to a, b, c, f in this order.
 */
struct alu_row {
	enum ptx_type t0, t1;
	uint64_t must, may;
	const char *shape;
	sx_fn fn;
	uint32_t aux;
};

typedef bool (*alu_decode_fn)(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form);

/* An opcode: its rows, tried first, and a function for what rows cannot say. */
struct alu_op {
	const char *name;
	const struct alu_row *rows;
	unsigned row_count;
	alu_decode_fn decode;
};

/* ---- lanes -------------------------------------------------------------------------------------------------------- */

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* some handlers do not vectorise */
#define ALU_LANES _Pragma("clang loop vectorize(assume_safety)") for (unsigned l = 0; l < SX_LANES; l++)
#else
#define ALU_LANES _Pragma("GCC ivdep") for (unsigned l = 0; l < SX_LANES; l++)
#endif

#define ALU_SRC(T, operand) ((const T *)__builtin_assume_aligned(sx_src(w, operand), 64))
#define ALU_DST(T, operand) ((T *)__builtin_assume_aligned(sx_dst(w, operand), 64))
/* An unsigned type as wide as T, so that mask and value vectorise alike. */
#define ALU_WORD(T) __typeof__(_Generic((T)0, uint64_t: (uint64_t)0, int64_t: (uint64_t)0, double: (uint64_t)0, default: (uint32_t)0))

/* A lane's bit, to test masks with; as a table it is an operand of a vector test. */
#define ALU_BIT_ROW(k) 1u << (k), 1u << (k + 1), 1u << (k + 2), 1u << (k + 3), 1u << (k + 4), 1u << (k + 5), 1u << (k + 6), 1u << (k + 7)
static const uint32_t alu_lane32[SX_LANES] __attribute__((aligned(64))) = {
	ALU_BIT_ROW(0), ALU_BIT_ROW(8), ALU_BIT_ROW(16), ALU_BIT_ROW(24) };
static const uint64_t alu_lane64[SX_LANES] __attribute__((aligned(64))) = {
	ALU_BIT_ROW(0), ALU_BIT_ROW(8), ALU_BIT_ROW(16), ALU_BIT_ROW(24) };
#define ALU_LANE(T) _Generic((T)0, uint64_t: alu_lane64, int64_t: alu_lane64, double: alu_lane64, default: alu_lane32)

#define ALU_HANDLER(name) \
	static const struct sx_insn *name(struct sx_warp *w, const struct sx_insn *i)

/* Stores `expr`, which may use l and what `load` declares, in the lanes of exec. */
#define ALU_STORE(DT, operand, load, expr) \
	do { \
		DT *d_ = ALU_DST(DT, operand); \
		if (__builtin_expect(w->all, 1)) { \
			ALU_LANES { \
				load \
				d_[l] = (DT)(expr); \
			} \
		} else { \
			const ALU_WORD(DT) m_ = w->exec; \
			ALU_LANES { \
				load \
				const DT r_ = (DT)(expr); \
				d_[l] = (m_ & ALU_LANE(DT)[l]) ? r_ : d_[l]; \
			} \
		} \
	} while (0)

/* Handlers of one to four sources x, y, z, v: slot types, then the result. */
#define ALU_1(name, DT, AT, expr) \
	ALU_HANDLER(name) \
	{ \
		const AT *a_ = ALU_SRC(AT, i->a); \
		ALU_STORE(DT, i->d, const AT x = a_[l];, expr); \
		return i + 1; \
	}
#define ALU_2(name, DT, AT, BT, expr) \
	ALU_HANDLER(name) \
	{ \
		const AT *a_ = ALU_SRC(AT, i->a); \
		const BT *b_ = ALU_SRC(BT, i->b); \
		ALU_STORE(DT, i->d, const AT x = a_[l]; const BT y = b_[l];, expr); \
		return i + 1; \
	}
#define ALU_3(name, DT, AT, BT, CT, expr) \
	ALU_HANDLER(name) \
	{ \
		const AT *a_ = ALU_SRC(AT, i->a); \
		const BT *b_ = ALU_SRC(BT, i->b); \
		const CT *c_ = ALU_SRC(CT, i->c); \
		ALU_STORE(DT, i->d, const AT x = a_[l]; const BT y = b_[l]; const CT z = c_[l];, expr); \
		return i + 1; \
	}
#define ALU_4(name, DT, AT, BT, CT, VT, expr) \
	ALU_HANDLER(name) \
	{ \
		const AT *a_ = ALU_SRC(AT, i->a); \
		const BT *b_ = ALU_SRC(BT, i->b); \
		const CT *c_ = ALU_SRC(CT, i->c); \
		const VT *v_ = ALU_SRC(VT, i->f); \
		ALU_STORE(DT, i->d, const AT x = a_[l]; const BT y = b_[l]; const CT z = c_[l]; const VT v = v_[l];, expr); \
		return i + 1; \
	}

/* 32 truth values, 0 or -1, as a lane mask. */
struct alu_truth {
	int32_t v[SX_LANES];
} __attribute__((aligned(64)));

static inline uint32_t
alu_mask(const struct alu_truth *t)
{
	uint32_t m = 0;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
	for (unsigned k = 0; k < 2; k++)
		m |= (uint32_t)_mm512_movepi32_mask(_mm512_load_si512(t->v + 16 * k)) << 16 * k;
#elif defined(__AVX2__)
	for (unsigned k = 0; k < 4; k++)
		m |= (uint32_t)_mm256_movemask_ps(_mm256_load_ps((const float *)t->v + 8 * k)) << 8 * k;
#elif defined(__SSE2__)
	for (unsigned k = 0; k < 8; k++)
		m |= (uint32_t)_mm_movemask_ps(_mm_load_ps((const float *)t->v + 4 * k)) << 4 * k;
#else
	for (unsigned k = 0; k < SX_LANES; k++)
		m |= (uint32_t)(t->v[k] & 1) << k;
#endif
	return m;
}

/* ---- floating point ------------------------------------------------------------------------------------------------ */

struct alu_f32 {
	float v[SX_LANES];
} __attribute__((aligned(64)));
struct alu_f64 {
	double v[SX_LANES];
} __attribute__((aligned(64)));

static inline uint32_t
alu_bits(float x)
{
	uint32_t u;
	memcpy(&u, &x, 4);
	return u;
}
static inline float
alu_float(uint32_t u)
{
	float x;
	memcpy(&x, &u, 4);
	return x;
}
static inline uint64_t
alu_bits64(double x)
{
	uint64_t u;
	memcpy(&u, &x, 8);
	return u;
}
static inline double
alu_double(uint64_t u)
{
	double x;
	memcpy(&x, &u, 8);
	return x;
}

#define ALU_NAN32 0x7fffffffu /* every f32 operation returns this NaN */
#define ALU_NAN16 0x7fffu     /* and f16 and bf16 ones this */

/* The f32 result with the ISA's NaN. */
static inline float
alu_canon(float x)
{
	return x != x ? alu_float(ALU_NAN32) : x;
}
/* .ftz: subnormals become zeros of the same sign. */
static inline float
alu_flush(float x)
{
	const uint32_t u = alu_bits(x);
	return alu_float((u & 0x7f800000) == 0 ? u & 0x80000000 : u);
}
/* .sat: to [0, 1], NaN to +0. */
static inline float
alu_sat(float x)
{
	return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
static inline double
alu_sat64(double x)
{
	return x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0;
}

/*
 * Directed rounding: the processor's mode between alu_round() and alu_unround(). Values that are computed in between go through
 * memory that ALU_FENCE names, so that the compiler cannot move the arithmetic out.
 */
#if defined(__x86_64__)
static inline uint32_t
alu_round(uint32_t aux)
{
	static const uint16_t modes[4] = { 0x0000, 0x6000, 0x2000, 0x4000 }; /* rn rz rm rp */
	const uint32_t old = _mm_getcsr();
	if (aux & AUX_ROUND)
		_mm_setcsr((old & ~0x6000u) | modes[aux & AUX_ROUND]);
	return old;
}
static inline void
alu_unround(uint32_t old, uint32_t aux)
{
	if (aux & AUX_ROUND)
		_mm_setcsr(old);
}
#else
static inline uint32_t
alu_round(uint32_t aux)
{
	static const int modes[4] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };
	const int old = fegetround();
	if (aux & AUX_ROUND)
		fesetround(modes[aux & AUX_ROUND]);
	return (uint32_t)old;
}
static inline void
alu_unround(uint32_t old, uint32_t aux)
{
	if (aux & AUX_ROUND)
		fesetround((int)old);
}
#endif
#define ALU_FENCE(object) __asm__ volatile("" : "+m"(object) : : "memory")

/* ---- narrow formats -------------------------------------------------------------------------------------------------- */

static inline float
alu_from_f16(uint32_t h)
{
	const uint32_t m = h & 0x7fff;
	const uint32_t normal = (m << 13) + (m < 0x7c00 ? 112u << 23 : 224u << 23);
	const uint32_t small = alu_bits((float)(int32_t)m * 0x1p-24f); /* no subnormal f32 on the way: those are slow */
	return alu_float((m < 0x400 ? small : normal) | (h & 0x8000) << 16);
}
static inline float
alu_from_bf16(uint32_t h)
{
	return alu_float(h << 16);
}

enum alu_rounding { TO_RN, TO_RZ, TO_RM, TO_RP, TO_RNA };

/*
 * The bits of a finite f32, rounded to a format of `ebits` and `mbits`, without the sign and without a limit on the exponent:
 * the caller compares with the format's largest value. Constant arguments fold; what is left is a few vector instructions.
 */
static inline uint32_t
alu_narrow(uint32_t u, unsigned ebits, unsigned mbits, enum alu_rounding mode)
{
	const uint32_t a = u & 0x7fffffff, e = a >> 23, bias = (1u << (ebits - 1)) - 1;
	const uint32_t shift0 = 23 - mbits, lowest = 128 - bias; /* biased f32 exponent of the smallest normal value */
	const uint32_t tiny = shift0 + lowest - e, mantissa = (a & 0x7fffff) | (e ? 0x800000 : 0);
	const bool subnormal = ebits < 8 && e < lowest;
	const uint32_t v = subnormal ? mantissa : a - ((127 - bias) << 23);
	const uint32_t shift = subnormal ? (tiny < 25 ? tiny : 25) : shift0;
	const uint32_t q = v >> shift, rest = v & ((1u << shift) - 1), half = 1u << (shift - 1);
	if (mode == TO_RN)
		return q + (rest + (q & 1) > half);
	if (mode == TO_RNA)
		return q + (rest >= half);
	const uint32_t away = mode == TO_RP ? ~u >> 31 : mode == TO_RM ? u >> 31 : 0;
	return q + (rest ? away : 0);
}
/* Whether a value beyond the largest one becomes infinite rather than the largest one. */
static inline bool
alu_over(uint32_t u, enum alu_rounding mode)
{
	return mode == TO_RN || mode == TO_RNA || (mode == TO_RP && !(u >> 31)) || (mode == TO_RM && u >> 31);
}
static inline uint32_t
alu_to_f16_mode(float x, enum alu_rounding mode)
{
	const uint32_t u = alu_bits(x), a = u & 0x7fffffff, q = alu_narrow(u, 5, 10, mode);
	const uint32_t r = q < 0x7c00 ? q : alu_over(u, mode) ? 0x7c00 : 0x7bff;
	const uint32_t infinite = (a == 0x7f800000 ? 0x7c00 : r) | (u >> 16 & 0x8000);
	return a > 0x7f800000 ? ALU_NAN16 : infinite;
}
static inline uint32_t
alu_to_bf16_mode(float x, enum alu_rounding mode)
{
	const uint32_t u = alu_bits(x), a = u & 0x7fffffff, q = alu_narrow(u, 8, 7, mode);
	const uint32_t r = q < 0x7f80 ? q : alu_over(u, mode) ? 0x7f80 : 0x7f7f;
	const uint32_t infinite = (a == 0x7f800000 ? 0x7f80 : r) | (u >> 16 & 0x8000);
	return a > 0x7f800000 ? ALU_NAN16 : infinite;
}
static inline uint32_t
alu_to_f16(float x)
{
	return alu_to_f16_mode(x, TO_RN);
}
static inline uint32_t
alu_to_bf16(float x)
{
	return alu_to_bf16_mode(x, TO_RN);
}

/*
 * double to float, rounded to odd: rounding the result again, to at most 22 bits and in any mode, is as if the double had been
 * rounded once. Must run in round-to-nearest.
 */
static inline float
alu_odd(double x)
{
	const float f = (float)x;
	const double back = f;
	const uint32_t u = alu_bits(f), even = (u & 1) - 1;
	const int64_t below = (int64_t)(alu_bits64(__builtin_fabs(x)) - alu_bits64(__builtin_fabs(back)));
	const uint32_t toward = (uint32_t)(below >> 63) | 1; /* one step of the magnitude; a NaN stays one */
	return alu_float(u + (back != x ? toward & even : 0));
}

/* ---- decoding ---------------------------------------------------------------------------------------------------------- */

static uint32_t
alu_aux(uint64_t flags)
{
	return (flags & F_(RZ) ? AUX_RZ : flags & F_(RM) ? AUX_RM : flags & F_(RP) ? AUX_RP : AUX_RN) |
	       (flags & F_(FTZ) ? AUX_FTZ : 0) | (flags & F_(SAT) ? AUX_SAT : 0) | (flags & F_(RELU) ? AUX_RELU : 0) |
	       (flags & F_(NAN) ? AUX_NAN : 0) | (flags & F_(XORSIGN) ? AUX_XORSIGN : 0) | (flags & F_(CC) ? AUX_CC : 0) |
	       (flags & F_(SATFINITE) ? AUX_SATFINITE : 0) | (flags & F_(RNA) ? AUX_RNA : 0) | (flags & F_(ABS) ? AUX_ABS : 0);
}

static void
alu_emit(struct sx_decoder *d, sx_fn fn, uint32_t dst, uint32_t a, uint32_t b, uint32_t aux, int64_t imm)
{
	struct sx_insn *i = sxd_emit(d, fn);
	i->d = dst;
	i->a = a;
	i->b = b;
	i->aux = aux;
	i->imm = imm;
}

static bool
alu_is_reg(struct sx_decoder *d, const struct ptx_operand *operand, unsigned bits)
{
	return operand->kind == PTX_OP_REG && !operand->component && sxd_bits(d, operand) == bits;
}
/* A register of `bits`, or something without a width of its own: an immediate, a symbol, a special register. */
static bool
alu_is_source(struct sx_decoder *d, const struct ptx_operand *operand, unsigned bits)
{
	switch (operand->kind) {
	case PTX_OP_REG:
		return alu_is_reg(d, operand, bits);
	case PTX_OP_IMM:
	case PTX_OP_FLOAT:
	case PTX_OP_SPECIAL:
	case PTX_OP_SYMBOL:
		return bits != 1;
	default:
		return false;
	}
}

/* The predicate operand c of a form with a Boolean operation; a constant without one. */
static bool
alu_boolean_operand(struct sx_decoder *d, const struct ptx_insn *in, const struct alu_form *form, unsigned at, uint32_t *c)
{
	if (in->operand_count != at + (form->boolean != BOOL_NONE))
		return false;
	if (form->boolean == BOOL_NONE) {
		*c = sxd_const_pred(d, false);
		return true;
	}
	const struct ptx_operand *o = &in->operands[at];
	if (o->kind == PTX_OP_IMM) { /* true or false */
		*c = sxd_const_pred(d, (o->imm != 0) != (o->negate != 0));
		return true;
	}
	if (!alu_is_reg(d, o, 1))
		return false;
	*c = sxd_src(d, o, PTX_pred);
	return true;
}

static bool
alu_pred_dst(struct sx_decoder *d, const struct ptx_operand *o, uint32_t *to)
{
	if (o->kind != PTX_OP_SINK && !alu_is_reg(d, o, 1))
		return false;
	*to = o->kind == PTX_OP_SINK ? SX_NO_REG : sxd_dst(d, o);
	return true;
}

static inline uint32_t
alu_combine(uint32_t bits, uint32_t with, unsigned boolean)
{
	return boolean == BOOL_AND ? bits & with : boolean == BOOL_OR ? bits | with : boolean == BOOL_XOR ? bits ^ with : bits;
}
#endif
