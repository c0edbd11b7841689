/*
 * atom and red: read-modify-write of memory by every lane, in lane order. Included by mem.c.
 *
 * Shared memory: all threads that can reach a block's window, also a cluster's, run on one OS thread, so a plain
 * read-modify-write is atomic. Other memory: a compare-and-swap of the host. When all lanes name the same address, their
 * operations are chained and swapped in at once: results are those of lanes that ran one after the other.
 */
#ifndef SX_ATOM_C
#define SX_ATOM_C

#include <math.h>

/* The new value from the old one and the operands; values are zero-extended. */
typedef uint64_t (*sx_rmw)(uint64_t old, uint64_t x, uint64_t y);

static inline uint32_t
sx_bits_of_float(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, 4);
	return bits;
}

static inline float
sx_float_of_bits(uint64_t bits)
{
	uint32_t low = (uint32_t)bits;
	float value;
	memcpy(&value, &low, 4);
	return value;
}

static inline double
sx_double_of_bits(uint64_t bits)
{
	double value;
	memcpy(&value, &bits, 8);
	return value;
}

static inline uint64_t
sx_bits_of_double(double value)
{
	uint64_t bits;
	memcpy(&bits, &value, 8);
	return bits;
}

/* Half and bfloat values as floats and back, rounded to nearest even. Exact sums and maxima survive: float has more than twice
 * the bits of either, so rounding twice is rounding once. */
static inline float
sx_float_of_half(uint16_t half)
{
	uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;

	if (exponent == 0) {
		float value = (float)fraction * 0x1p-24f;
		return sign ? -value : value;
	}
	exponent = exponent == 31 ? 255 : exponent + 112;
	return sx_float_of_bits(sign | exponent << 23 | fraction << 13);
}

static inline uint16_t
sx_half_of_float(float value)
{
	uint32_t bits = sx_bits_of_float(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;

	if (magnitude > 0x7f800000)
		return 0x7fff;
	if (magnitude >= 0x477ff000) /* rounds to more than 65504 */
		return (uint16_t)(sign | 0x7c00);
	if (magnitude < 0x38800000) { /* subnormal: let the addition round at 2^-24 */
		float rounded = sx_float_of_bits(magnitude) + 0.5f;
		return (uint16_t)(sign | (sx_bits_of_float(rounded) - sx_bits_of_float(0.5f)));
	}
	uint32_t round = magnitude + 0xfff + (magnitude >> 13 & 1);
	return (uint16_t)(sign | (round - 0x38000000) >> 13);
}

static inline float
sx_float_of_bfloat(uint16_t value)
{
	return sx_float_of_bits((uint64_t)value << 16);
}

static inline uint16_t
sx_bfloat_of_float(float value)
{
	uint32_t bits = sx_bits_of_float(value);

	if ((bits & 0x7fffffff) > 0x7f800000)
		return 0x7fff;
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float
sx_flush(float value)
{
	return fabsf(value) < 0x1p-126f ? copysignf(0.0f, value) : value;
}

/* min and max of halves: a NaN loses, -0 is less than +0. */
static inline float
sx_lesser(float a, float b)
{
	if (isnan(a) || isnan(b))
		return isnan(a) ? b : a;
	return a < b || (a == b && signbit(a)) ? a : b;
}

static inline float
sx_greater(float a, float b)
{
	if (isnan(a) || isnan(b))
		return isnan(a) ? b : a;
	return a > b || (a == b && !signbit(a)) ? a : b;
}

#define SX_RMW(name, expression) \
	static inline uint64_t \
	sx_rmw_##name(uint64_t old, uint64_t x, uint64_t y) \
	{ \
		(void)x; \
		(void)y; \
		return (uint64_t)(expression); \
	}
#define SX_I32(value) ((int32_t)(uint32_t)(value))
#define SX_I64(value) ((int64_t)(value))

SX_RMW(exch, x)
SX_RMW(cas, old == x ? y : old)
SX_RMW(and, old & x)
SX_RMW(or, old | x)
SX_RMW(xor, old ^ x)
SX_RMW(add32, (uint32_t)(old + x))
SX_RMW(add64, old + x)
SX_RMW(inc, old >= x ? 0 : old + 1)
SX_RMW(dec, old == 0 || old > x ? x : old - 1)
SX_RMW(minu, old < x ? old : x)
SX_RMW(maxu, old > x ? old : x)
SX_RMW(mins32, SX_I32(old) < SX_I32(x) ? old : x)
SX_RMW(maxs32, SX_I32(old) > SX_I32(x) ? old : x)
SX_RMW(mins64, SX_I64(old) < SX_I64(x) ? old : x)
SX_RMW(maxs64, SX_I64(old) > SX_I64(x) ? old : x)
SX_RMW(addf32, sx_bits_of_float(sx_float_of_bits(old) + sx_float_of_bits(x)))
SX_RMW(addf32flush, sx_bits_of_float(sx_flush(sx_flush(sx_float_of_bits(old)) + sx_flush(sx_float_of_bits(x)))))
SX_RMW(addf64, sx_bits_of_double(sx_double_of_bits(old) + sx_double_of_bits(x)))

#define SX_HALF(op, a, b) sx_half_of_float(op(sx_float_of_half((uint16_t)(a)), sx_float_of_half((uint16_t)(b))))
#define SX_BFLOAT(op, a, b) sx_bfloat_of_float(op(sx_float_of_bfloat((uint16_t)(a)), sx_float_of_bfloat((uint16_t)(b))))
#define SX_PAIR(one, op, a, b) (one(op, a, b) | (uint32_t)one(op, (a) >> 16, (b) >> 16) << 16)
#define SX_SUM(a, b) ((a) + (b))

SX_RMW(addf16, SX_HALF(SX_SUM, old, x))
SX_RMW(minf16, SX_HALF(sx_lesser, old, x))
SX_RMW(maxf16, SX_HALF(sx_greater, old, x))
SX_RMW(addf16x2, SX_PAIR(SX_HALF, SX_SUM, old, x))
SX_RMW(minf16x2, SX_PAIR(SX_HALF, sx_lesser, old, x))
SX_RMW(maxf16x2, SX_PAIR(SX_HALF, sx_greater, old, x))
SX_RMW(addbf16, SX_BFLOAT(SX_SUM, old, x))
SX_RMW(minbf16, SX_BFLOAT(sx_lesser, old, x))
SX_RMW(maxbf16, SX_BFLOAT(sx_greater, old, x))
SX_RMW(addbf16x2, SX_PAIR(SX_BFLOAT, SX_SUM, old, x))
SX_RMW(minbf16x2, SX_PAIR(SX_BFLOAT, sx_lesser, old, x))
SX_RMW(maxbf16x2, SX_PAIR(SX_BFLOAT, sx_greater, old, x))

/* ---- running ------------------------------------------------------------------------------------------------------ */

static inline bool
sx_swap(uint64_t at, unsigned log, uint64_t *expected, uint64_t value)
{
	if (log == 1) {
		uint16_t old = (uint16_t)*expected;
		bool done = __atomic_compare_exchange_n((uint16_t *)at, &old, (uint16_t)value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		*expected = old;
		return done;
	}
	if (log == 2) {
		uint32_t old = (uint32_t)*expected;
		bool done = __atomic_compare_exchange_n((uint32_t *)at, &old, (uint32_t)value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		*expected = old;
		return done;
	}
	return __atomic_compare_exchange_n((uint64_t *)at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The same place for all lanes of exec? */
static inline bool
sx_same_place(const uint64_t at[SX_LANES], uint32_t exec)
{
	uint64_t first = at[__builtin_ctz(exec)], differ = 0;

	for (int l = 0; l < SX_LANES; l++)
		differ |= exec >> l & 1 ? at[l] ^ first : 0;
	return differ == 0;
}

/* A lane's operand. */
static inline uint64_t
sx_atom_operand(const void *slot, unsigned log, unsigned lane)
{
	if (log == 3)
		return ((const uint64_t *)slot)[lane];
	return ((const uint32_t *)slot)[lane] & (log == 1 ? 0xffff : ~0u);
}

#define SX_ATOM_GENERIC (1u << 16) /* no space is named */

/* Local memory has no atomics: a generic address that points there is a fault of its own. */
static inline bool
sx_atom_not_local(struct sx_warp *w, const struct sx_insn *i, const uint64_t at[SX_LANES])
{
	uint64_t size = (uint64_t)w->local_stride * SX_LANES;
	uint32_t local = 0;

	for (uint32_t l = 0; l < SX_LANES; l++)
		local |= (uint32_t)(at[l] - w->local_base < size) << l;
	local &= w->exec;
	if (local)
		sx_raise(w, i, CUDA_ERROR_INVALID_ADDRESS_SPACE, (unsigned)__builtin_ctz(local), at[__builtin_ctz(local)],
		         "atomic operation on local memory");
	return !local;
}

/*
 * Host addresses as sx_at() gives them, found and checked for all lanes at once where they are plainly allowed. Lanes outside exec are
 * undefined.
 */
static inline bool
sx_atom_places(struct sx_warp *w, const struct sx_insn *i, unsigned bytes, uint64_t at[SX_LANES])
{
	const struct sx_block_view *view = sx_view(w);
	const uint8_t access = SW_ACCESS_READ | SW_ACCESS_WRITE;
	enum sx_at_kind kind = SX_MEM_KIND(i->aux);
	uint32_t low = w->exec & 0xffff, high = w->exec >> 16;

	if (kind == SX_AT_SHARED) {
		const uint32_t *a = SX_S32(w, i->a);
		uint32_t offset = (uint32_t)i->imm;
		if ((!low || sx_each_ok_shared(a, low, offset, bytes, view->shared_bytes)) &&
		    (!high || sx_each_ok_shared(a + 16, high, offset, bytes, view->shared_bytes))) {
			for (int l = 0; l < SX_LANES; l++)
				at[l] = view->shared_base + (uint32_t)(a[l] + offset);
			return true;
		}
	} else if (kind == SX_AT_GLOBAL) {
		const uint64_t *a = SX_S64(w, i->a);
		uint64_t offset = (uint64_t)i->imm;
		if ((!low || sx_each_ok(a, low, offset, bytes, access)) && (!high || sx_each_ok(a + 16, high, offset, bytes, access))) {
			for (int l = 0; l < SX_LANES; l++)
				at[l] = a[l] + offset;
			return !(i->aux & SX_ATOM_GENERIC) || sx_atom_not_local(w, i, at);
		}
	}
	return sx_at(w, i, kind, bytes, bytes, access, at);
}

/* All lanes at one place: a chain of operations, swapped in at once. */
static inline __attribute__((always_inline)) void
sx_atom_chain(const struct sx_warp *w, uint64_t place, unsigned log, bool plain, const void *x, const void *y, uint64_t *old, sx_rmw rmw)
{
	uint64_t seen = sx_peek(place, log), value;

	do {
		value = seen;
		for (uint32_t lanes = w->exec; lanes;) {
			unsigned l = sx_next_lane(&lanes);
			old[l] = value;
			value = rmw(value, sx_atom_operand(x, log, l), sx_atom_operand(y, log, l));
		}
		if (plain)
			sx_poke(place, log, value);
	} while (!plain && !sx_swap(place, log, &seen, value));
}

/* One lane of memory that no other thread reaches. */
static inline __attribute__((always_inline)) void
sx_atom_plain(uint64_t at, unsigned lane, unsigned log, const void *x, const void *y, uint64_t *old, sx_rmw rmw)
{
	*old = sx_peek(at, log);
	sx_poke(at, log, rmw(*old, sx_atom_operand(x, log, lane), sx_atom_operand(y, log, lane)));
}

/* i: a address, b and c operands, d destination. Inlined where `rmw` is known. */
static inline __attribute__((always_inline)) const struct sx_insn *
sx_atom(struct sx_warp *w, const struct sx_insn *i, unsigned log, sx_rmw rmw)
{
	enum sx_at_kind kind = SX_MEM_KIND(i->aux);
	bool plain = kind == SX_AT_SHARED || kind == SX_AT_SHARED_FIXED;
	const void *x = sx_src(w, i->b), *y = sx_src(w, i->c);
	uint64_t at[SX_LANES], old[SX_LANES];
	uint32_t narrow[SX_LANES];

	w->spinning = true;
	if (!w->exec)
		return i + 1;
	if (!sx_atom_places(w, i, 1u << log, at))
		return NULL;
	if (sx_same_place(at, w->exec)) {
		sx_atom_chain(w, at[__builtin_ctz(w->exec)], log, plain, x, y, old, rmw);
	} else if (plain && w->exec == ~0u) {
		for (unsigned l = 0; l < SX_LANES; l++)
			sx_atom_plain(at[l], l, log, x, y, &old[l], rmw);
	} else if (plain) {
		for (uint32_t lanes = w->exec; lanes;) {
			unsigned l = sx_next_lane(&lanes);
			sx_atom_plain(at[l], l, log, x, y, &old[l], rmw);
		}
	} else {
		for (uint32_t lanes = w->exec; lanes;) {
			unsigned l = sx_next_lane(&lanes);
			uint64_t value;
			old[l] = sx_peek(at[l], log);
			do
				value = rmw(old[l], sx_atom_operand(x, log, l), sx_atom_operand(y, log, l));
			while (!sx_swap(at[l], log, &old[l], value));
		}
	}
	if (i->d == SX_NO_REG)
		return i + 1;
	/* Lanes outside exec have nothing in `old`; they must not reach a register, not even of lanes without a thread. */
	if (log == 3) {
		uint64_t *d = SX_D64(w, i->d);
		for (int l = 0; l < SX_LANES; l++)
			d[l] = w->exec >> l & 1 ? old[l] : d[l];
	} else {
		uint32_t *d = SX_D32(w, i->d);
		for (int l = 0; l < SX_LANES; l++)
			narrow[l] = (uint32_t)old[l];
		for (int l = 0; l < SX_LANES; l++)
			d[l] = w->exec >> l & 1 ? narrow[l] : d[l];
	}
	return i + 1;
}

/* operation, type, log2 of bytes, operands, how */
#define SX_HOT_ATOMS(X) \
	X(exch, b32, 2, 1, exch) X(cas, b32, 2, 2, cas) X(add, u32, 2, 1, add32) X(add, u64, 3, 1, add64) X(add, f32, 2, 1, addf32)
#define SX_COOL_ATOMS(X) \
	X(exch, b64, 3, 1, exch) X(cas, b16, 1, 2, cas) X(cas, b64, 3, 2, cas) \
	X(and, b32, 2, 1, and) X(and, b64, 3, 1, and) X(or, b32, 2, 1, or) X(or, b64, 3, 1, or) \
	X(xor, b32, 2, 1, xor) X(xor, b64, 3, 1, xor) X(add, f64, 3, 1, addf64) \
	X(inc, u32, 2, 1, inc) X(dec, u32, 2, 1, dec) \
	X(min, u32, 2, 1, minu) X(max, u32, 2, 1, maxu) X(min, s32, 2, 1, mins32) X(max, s32, 2, 1, maxs32) \
	X(min, u64, 3, 1, minu) X(max, u64, 3, 1, maxu) X(min, s64, 3, 1, mins64) X(max, s64, 3, 1, maxs64) \
	X(add, f16, 1, 1, addf16) X(add, f16x2, 2, 1, addf16x2) X(add, bf16, 1, 1, addbf16) X(add, bf16x2, 2, 1, addbf16x2) \
	X(min, f16, 1, 1, minf16) X(min, f16x2, 2, 1, minf16x2) X(min, bf16, 1, 1, minbf16) X(min, bf16x2, 2, 1, minbf16x2) \
	X(max, f16, 1, 1, maxf16) X(max, f16x2, 2, 1, maxf16x2) X(max, bf16, 1, 1, maxbf16) X(max, bf16x2, 2, 1, maxbf16x2)

/* The rarer ones share a body for each width and find their operation by i->e. */
static const sx_rmw sx_cool_rmws[] = {
#define X(op, type, log, operands, rmw) sx_rmw_##rmw,
	SX_COOL_ATOMS(X)
#undef X
	sx_rmw_addf32flush,
};
enum sx_cool_atom {
#define X(op, type, log, operands, rmw) SX_COOL_##op##_##type,
	SX_COOL_ATOMS(X)
#undef X
	SX_COOL_ADD_F32_FLUSH,
};

#define SX_ATOM(name, log, rmw) \
	static const struct sx_insn * \
	sx_atom_##name(struct sx_warp *w, const struct sx_insn *i) \
	{ \
		return sx_atom(w, i, log, rmw); \
	}
#define X(op, type, log, operands, rmw) SX_ATOM(op##_##type, log, sx_rmw_##rmw)
SX_HOT_ATOMS(X)
#undef X
SX_ATOM(cool16, 1, sx_cool_rmws[i->e])
SX_ATOM(cool32, 2, sx_cool_rmws[i->e])
SX_ATOM(cool64, 3, sx_cool_rmws[i->e])

/* exch and cas of 128 bits. aux as usual; b: value (exch) or what is compared, c: the new value. */
static inline void
sx_wide_swap(uint64_t at, const uint64_t compare[2], const uint64_t value[2], bool always, uint64_t old[2])
{
	static volatile char lock; /* hosts without a 16-byte compare-and-swap: guards all 16-byte atomics */
#if defined __x86_64__
	uint64_t *p = (uint64_t *)at;
	bool done;
	(void)lock;
	old[0] = always ? p[0] : compare[0];
	old[1] = always ? p[1] : compare[1];
	do
		__asm__ volatile("lock cmpxchg16b %1"
		                 : "=@ccz"(done), "+m"(*(unsigned __int128 *)p), "+a"(old[0]), "+d"(old[1])
		                 : "b"(value[0]), "c"(value[1]) : "memory");
	while (always && !done);
#else
	while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
		;
	memcpy(old, (const void *)at, 16);
	if (always || memcmp(old, compare, 16) == 0)
		memcpy((void *)at, value, 16);
	__atomic_clear(&lock, __ATOMIC_RELEASE);
#endif
}

static inline const struct sx_insn *
sx_atom_wide(struct sx_warp *w, const struct sx_insn *i, bool cas)
{
	uint64_t at[SX_LANES], old[2][SX_LANES] = { { 0 } };
	const uint64_t *x = SX_S64(w, i->b), *y = cas ? SX_S64(w, i->c) : x;

	w->spinning = true;
	if (!sx_at(w, i, SX_MEM_KIND(i->aux), 16, 16, SW_ACCESS_READ | SW_ACCESS_WRITE, at))
		return NULL;
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t compare[2] = { x[l], x[SX_LANES + l] }, value[2] = { y[l], y[SX_LANES + l] }, seen[2];
		sx_wide_swap(at[l], compare, value, !cas, seen);
		old[0][l] = seen[0];
		old[1][l] = seen[1];
	}
	if (i->d != SX_NO_REG) {
		sx_put64(w, i->d, old[0]);
		sx_put64(w, i->d + 8 * SX_LANES, old[1]);
	}
	return i + 1;
}

static const struct sx_insn *
sx_atom_exch_b128(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_atom_wide(w, i, false);
}

static const struct sx_insn *
sx_atom_cas_b128(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_atom_wide(w, i, true);
}

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

struct sx_atom_row {
	const char *op;
	uint8_t type, operands;
	uint8_t cool; /* index for i->e */
	sx_fn fn;
	uint8_t log;
	sx_rmw rmw;
};

#define SX_COOL_BODY(log) ((log) == 1 ? sx_atom_cool16 : (log) == 2 ? sx_atom_cool32 : sx_atom_cool64)
static const struct sx_atom_row sx_atom_rows[] = {
#define X(op, type, log, operands, rmw) { #op, PTX_##type, operands, 0, sx_atom_##op##_##type, log, sx_rmw_##rmw },
	SX_HOT_ATOMS(X)
#undef X
#define X(op, type, log, operands, rmw) { #op, PTX_##type, operands, SX_COOL_##op##_##type, SX_COOL_BODY(log), log, sx_rmw_##rmw },
	SX_COOL_ATOMS(X)
#undef X
	{ "exch", PTX_b128, 1, 0, sx_atom_exch_b128, 4, NULL },
	{ "cas", PTX_b128, 2, 0, sx_atom_cas_b128, 4, NULL },
	{ "add", PTX_s32, 1, 0, sx_atom_add_u32, 2, sx_rmw_add32 },
	{ "add", PTX_s64, 1, 0, sx_atom_add_u64, 3, sx_rmw_add64 },
};

static const struct sx_atom_row *
sx_find_atom(const struct sx_mem_form *form)
{
	for (size_t n = 0; n < sizeof sx_atom_rows / sizeof *sx_atom_rows; n++)
		if (form->type == sx_atom_rows[n].type && strcmp(form->op, sx_atom_rows[n].op) == 0)
			return &sx_atom_rows[n];
	return NULL;
}

/* A source operand that must have the type's slot. */
static bool
sx_atom_source(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_type type, uint32_t *source)
{
	unsigned bits = sxd_bits(d, operand), want = ptx_type_bits[type];

	if (bits ? bits < want || (want < 64 && bits > 32) || (want == 64 && bits != 64) : want > 64)
		return false;
	*source = sxd_src(d, operand, type);
	return true;
}

/* The form of red.async: its operation is the last modifier that is none of the common ones. */
static struct sx_mem_form
sx_async_form(const struct ptx_insn *in)
{
	static const char *const ops[] = { "inc", "dec", "min", "max", "add", "and", "or", "xor" };
	struct sx_mem_form form = sx_mem_form(in);

	form.op = form.op2 = NULL;
	form.bad = !ptx_has(in, "mbarrier::complete_tx::bytes");
	for (size_t n = 0; n < sizeof ops / sizeof *ops && !form.bad; n++)
		if (ptx_has(in, ops[n]))
			form.op = ops[n];
	return form;
}

static bool
sx_decode_atom(struct sx_decoder *d, const struct ptx_insn *in)
{
	bool red = sxd_is(in, "red");
	const struct ptx_operand *targets[8], *values[8], *operand = in->operands;
	struct sx_operand_at at;

	if (!red && !sxd_is(in, "atom"))
		return false;
	struct sx_mem_form form = sx_mem_form(in);
	/* red.async.mbarrier::complete_tx::bytes.OP [a], value, [mbarrier] */
	bool async = red && ptx_has(in, "async") && in->operand_count == 3 && form.space == PTX_SPACE_SHARED;
	if (async)
		form = sx_async_form(in);
	const struct sx_atom_row *row = form.op && !form.op2 ? sx_find_atom(&form) : NULL;
	unsigned need = row ? row->operands + (red ? 1u : 2u) : 0;
	if (!row || in->operand_count < need || in->operand_count > need + 1 || (async && form.vector != 1))
		return false;
	if (red && (row->operands == 2 || strcmp(row->op, "exch") == 0))
		return false;
	unsigned count = form.vector;
	const struct ptx_operand *target = red ? NULL : operand++, *place = operand++, *value = operand++;
	if ((count > 1 && row->operands == 2) || sx_elements(value, count, values) != count)
		return false;
	if (target && target->kind != PTX_OP_SINK && sx_elements(target, count, targets) != count)
		return false;
	if (place->kind != PTX_OP_ADDRESS || !sx_operand_at(d, place, form.space, &at) || at.frame)
		return false;
	if (at.kind != SX_AT_GLOBAL && at.kind != SX_AT_FIXED && at.kind != SX_AT_SHARED && at.kind != SX_AT_SHARED_FIXED)
		return false;
	sx_fn fn = row->fn;
	uint32_t cool = row->cool;
	if (fn == sx_atom_add_f32 && form.space == PTX_SPACE_GLOBAL) { /* PTX ISA, atom: global memory flushes subnormals */
		fn = sx_atom_cool32;
		cool = SX_COOL_ADD_F32_FLUSH;
	}
	unsigned bytes = ptx_type_bits[form.type] / 8;
	uint32_t results[8], sources[8], second = 0;
	for (unsigned n = 0; n < count; n++) {
		results[n] = SX_NO_REG;
		if (target && target->kind != PTX_OP_SINK && targets[n]->kind != PTX_OP_SINK) {
			unsigned own = sxd_bits(d, targets[n]);
			if (own < 8 * bytes || own > (bytes < 4 ? 32 : 8 * bytes))
				return false;
			results[n] = sxd_dst(d, targets[n]);
		}
		if (!sx_atom_source(d, values[n], form.type, &sources[n]))
			return false;
	}
	if (row->operands == 2 && !sx_atom_source(d, operand, form.type, &second))
		return false;
	/* A vector is one atomic an element; results go through temporaries, since they may overwrite the address or values. */
	for (unsigned n = 0; n < count; n++) {
		uint32_t result = count > 1 && results[n] != SX_NO_REG ? sxd_temp(d, 32) : results[n];
		struct sx_insn *i = sxd_emit(d, fn);
		i->d = result;
		i->a = at.reg;
		i->imm = at.imm + n * bytes;
		i->b = sources[n];
		i->c = row->operands == 2 ? second : sources[n];
		i->e = cool;
		i->aux = sx_mem_aux(&form, at.kind, bytes, 1, bytes) | (form.space == PTX_SPACE_NONE ? SX_ATOM_GENERIC : 0);
		if (count > 1)
			targets[n] = NULL;
		sources[n] = result;
	}
	for (unsigned n = 0; count > 1 && n < count; n++) {
		if (results[n] == SX_NO_REG)
			continue;
		struct sx_insn *i = sxd_emit(d, sx_copy32);
		i->d = results[n];
		i->a = sources[n];
	}
	return !async || sx_emit_arrived(d, &in->operands[2], &form);
}

/* ---- cp.reduce.async.bulk --------------------------------------------------------------------------------------------- */

/* a destination, b source, e mbarrier or SX_NO_REG: generic; c bytes; imm: row of sx_atom_rows. */
static const struct sx_insn *
sx_reduce_bulk(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_atom_row *row = &sx_atom_rows[i->imm];

	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t to = SX_S64(w, i->a)[l], from = SX_S64(w, i->b)[l], barrier = i->e == SX_NO_REG ? 0 : SX_S64(w, i->e)[l];
		uint32_t size = SX_S32(w, i->c)[l];
		if ((size & 15) || size > SX_BULK_MAX)
			return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, l, to, "size %u of a bulk reduction is no multiple of 16", size);
		if (!sx_check_generic(w, i, l, to, size, 16, SW_ACCESS_READ | SW_ACCESS_WRITE) ||
		    !sx_check_generic(w, i, l, from, size, 16, SW_ACCESS_READ))
			return NULL;
		for (uint32_t offset = 0; offset < size; offset += 1u << row->log) {
			uint64_t x = sx_peek(from + offset, row->log), old = sx_peek(to + offset, row->log);
			while (!sx_swap(to + offset, row->log, &old, row->rmw(old, x, 0)))
				;
		}
		if (i->e == SX_NO_REG)
			continue;
		if (!sx_check_generic(w, i, l, barrier, 8, 8, SW_ACCESS_READ | SW_ACCESS_WRITE))
			return NULL;
		sx_mbar_complete_tx(barrier, size);
	}
	return i + 1;
}

/* cp.reduce.async.bulk.DST.SRC.{mbarrier..|bulk_group}.OP{.noftz}.TYPE [to], [from], bytes {, [mbarrier]} {, policy} */
static bool
sx_decode_reduce_bulk(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct ptx_operand *o = in->operands;
	bool group = ptx_has(in, "bulk_group");
	struct sx_mem_form form = sx_async_form(in);
	uint32_t a, b, size, barrier = SX_NO_REG;

	for (size_t n = 0; !form.op && n < in->mod_count; n++)
		for (size_t row = 0; row < sizeof sx_atom_rows / sizeof *sx_atom_rows; row++)
			if (strcmp(in->mods[n], sx_atom_rows[row].op) == 0)
				form.op = in->mods[n];
	const struct sx_atom_row *row = form.op ? sx_find_atom(&form) : NULL;
	if (!row || !row->rmw || row->operands != 1 || ptx_has(in, "tensor") || in->operand_count < (group ? 3u : 4u))
		return false;
	enum ptx_space to = group && ptx_has(in, "global") ? PTX_SPACE_GLOBAL : PTX_SPACE_SHARED;
	if (!sx_generic_operand(d, &o[0], to, &a) || !sx_generic_operand(d, &o[1], PTX_SPACE_SHARED, &b) ||
	    !sx_count_source(d, &o[2], &size) || (!group && !sx_generic_operand(d, &o[3], PTX_SPACE_SHARED, &barrier)))
		return false;
	struct sx_insn *i = sxd_emit(d, sx_reduce_bulk);
	i->a = a;
	i->b = b;
	i->c = size;
	i->e = barrier;
	i->imm = row - sx_atom_rows;
	return true;
}

#endif
