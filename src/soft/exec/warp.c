/*
 * Instructions between the lanes of a warp: shfl, vote, match, redux, activemask, elect.
 *
 * The .sync forms wait first until the member mask's lanes have arrived (sxd_emit_converge). What a lane that does not take part
 * would give is undefined in PTX; here it is what its register holds.
 */
#ifndef SX_WARP_C
#define SX_WARP_C

#include <math.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "soft/exec/isa.h"

/* r[l] = a[from[l]]; from is below 32. */
static inline void
sx_permute(const uint32_t *a, const uint32_t *from, uint32_t *restrict r)
{
#ifdef __AVX512F__
	__m512i low = _mm512_loadu_si512(a), high = _mm512_loadu_si512(a + 16);

	_mm512_storeu_si512(r, _mm512_permutex2var_epi32(low, _mm512_loadu_si512(from), high));
	_mm512_storeu_si512(r + 16, _mm512_permutex2var_epi32(low, _mm512_loadu_si512(from + 16), high));
#else
	for (int l = 0; l < SX_LANES; l++)
		r[l] = a[from[l]];
#endif
}

/* The lanes whose value is x. */
static inline uint32_t
sx_lanes_equal32(const uint32_t *v, uint32_t x)
{
#ifdef __AVX512F__
	__m512i all = _mm512_set1_epi32((int)x);

	return (uint32_t)_mm512_cmpeq_epi32_mask(_mm512_loadu_si512(v), all) |
		(uint32_t)_mm512_cmpeq_epi32_mask(_mm512_loadu_si512(v + 16), all) << 16;
#else
	uint32_t bits = 0;

	for (int l = 0; l < SX_LANES; l++)
		bits |= (uint32_t)(v[l] == x) << l;
	return bits;
#endif
}

static inline uint32_t
sx_lanes_equal64(const uint64_t *v, uint64_t x)
{
	uint32_t bits = 0;

	for (int l = 0; l < SX_LANES; l++)
		bits |= (uint32_t)(v[l] == x) << l;
	return bits;
}

/*
 * The next group of lanes that act together: of those in *rest the first one and all others with its member mask. `members` is
 * a mask operand or SX_NO_REG (the old forms: all lanes of exec). Takes the group out of *rest.
 */
static inline uint32_t
sx_next_group(const struct sx_warp *w, uint32_t members, uint32_t *rest)
{
	uint32_t group = *rest;

	if (members != SX_NO_REG) {
		const uint32_t *mask = SX_S32(w, members);
		uint32_t first = mask[__builtin_ctz(*rest)];
		group &= sx_lanes_equal32(mask, first);
	}
	*rest &= ~group;
	return group;
}

/* ---- shfl --------------------------------------------------------------------------------------------------------- */

enum sx_shuffle { SX_SHFL_UP, SX_SHFL_DOWN, SX_SHFL_BFLY, SX_SHFL_IDX };

/* d, e predicate or SX_NO_REG, a value, b lane or distance, c clamp and segment mask. PTX ISA 9.7.9.5/6. */
static inline __attribute__((always_inline)) const struct sx_insn *
sx_shfl(struct sx_warp *w, const struct sx_insn *i, enum sx_shuffle mode)
{
	const uint32_t *a = SX_S32(w, i->a), *b = SX_S32(w, i->b), *c = SX_S32(w, i->c);
	uint32_t r[SX_LANES], from[SX_LANES], good[SX_LANES], valid = 0;

	for (uint32_t l = 0; l < SX_LANES; l++) {
		uint32_t distance = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
		uint32_t most = (l & segment) | (clamp & ~segment), least = l & segment, source;

		switch (mode) {
		case SX_SHFL_UP:
			source = l - distance;
			good[l] = (int32_t)source >= (int32_t)most;
			break;
		case SX_SHFL_DOWN:
			source = l + distance;
			good[l] = source <= most;
			break;
		case SX_SHFL_BFLY:
			source = l ^ distance;
			good[l] = source <= most;
			break;
		default:
			source = least | (distance & ~segment);
			good[l] = source <= most;
			break;
		}
		from[l] = good[l] ? source & 31 : l;
	}
	sx_permute(a, from, r);
	for (uint32_t l = 0; l < SX_LANES; l++)
		valid |= good[l] << l;
	if (i->e != SX_NO_REG)
		sx_put_pred(w, i->e, valid);
	if (i->d != SX_NO_REG)
		sx_put32(w, i->d, r);
	return i + 1;
}

static const struct sx_insn *
sx_shfl_up(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_shfl(w, i, SX_SHFL_UP);
}

static const struct sx_insn *
sx_shfl_down(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_shfl(w, i, SX_SHFL_DOWN);
}

static const struct sx_insn *
sx_shfl_bfly(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_shfl(w, i, SX_SHFL_BFLY);
}

static const struct sx_insn *
sx_shfl_idx(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_shfl(w, i, SX_SHFL_IDX);
}

/* ---- vote, activemask, elect --------------------------------------------------------------------------------------- */

enum sx_vote { SX_VOTE_ALL, SX_VOTE_ANY, SX_VOTE_UNI };

/* d and a predicates, b member mask. aux: enum sx_vote. */
static const struct sx_insn *
sx_vote(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t yes = SX_SP(w, i->a), result = 0;

	for (uint32_t rest = w->exec; rest;) {
		uint32_t group = sx_next_group(w, i->b, &rest), votes = yes & group;
		bool all = votes == group, any = votes != 0;
		if (i->aux == SX_VOTE_ALL ? all : i->aux == SX_VOTE_ANY ? any : all || !any)
			result |= group;
	}
	sx_put_pred(w, i->d, result);
	return i + 1;
}

static const struct sx_insn *
sx_ballot(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t yes = SX_SP(w, i->a), r[SX_LANES] = { 0 };

	for (uint32_t rest = w->exec; rest;) {
		uint32_t group = sx_next_group(w, i->b, &rest), votes = yes & group;
		for (int l = 0; l < SX_LANES; l++)
			r[l] = group >> l & 1 ? votes : r[l];
	}
	sx_put32(w, i->d, r);
	return i + 1;
}

static const struct sx_insn *
sx_activemask(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = w->exec;
	sx_put32(w, i->d, r);
	return i + 1;
}

/* d: the leader's lane, e: predicate of the leader; b: member mask */
static const struct sx_insn *
sx_elect(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t r[SX_LANES] = { 0 }, leaders = 0;

	for (uint32_t rest = w->exec; rest;) {
		uint32_t group = sx_next_group(w, i->b, &rest), leader = (uint32_t)__builtin_ctz(group);
		leaders |= 1u << leader;
		for (int l = 0; l < SX_LANES; l++)
			r[l] = group >> l & 1 ? leader : r[l];
	}
	if (i->d != SX_NO_REG)
		sx_put32(w, i->d, r);
	sx_put_pred(w, i->e, leaders);
	return i + 1;
}

/* ---- match -------------------------------------------------------------------------------------------------------- */

/* d: lanes, e: predicate of .all or SX_NO_REG, a: value, b: member mask. */
static inline __attribute__((always_inline)) const struct sx_insn *
sx_match(struct sx_warp *w, const struct sx_insn *i, bool wide, bool all)
{
	uint32_t r[SX_LANES] = { 0 }, matched = 0;

	for (uint32_t rest = w->exec; rest;) {
		uint32_t group = sx_next_group(w, i->b, &rest);
		for (uint32_t left = group; left;) {
			unsigned first = (unsigned)__builtin_ctz(left);
			uint32_t same = group & (wide ? sx_lanes_equal64(SX_S64(w, i->a), SX_S64(w, i->a)[first])
			                              : sx_lanes_equal32(SX_S32(w, i->a), SX_S32(w, i->a)[first]));
			if (all) {
				matched |= same == group ? group : 0;
				same = same == group ? group : 0;
				left = 0;
			} else {
				left &= ~same;
			}
			for (int l = 0; l < SX_LANES; l++)
				r[l] = (all ? group : same) >> l & 1 ? same : r[l];
		}
	}
	if (i->d != SX_NO_REG)
		sx_put32(w, i->d, r);
	if (i->e != SX_NO_REG)
		sx_put_pred(w, i->e, matched);
	return i + 1;
}

static const struct sx_insn *
sx_match_any32(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_match(w, i, false, false);
}

static const struct sx_insn *
sx_match_any64(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_match(w, i, true, false);
}

static const struct sx_insn *
sx_match_all32(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_match(w, i, false, true);
}

static const struct sx_insn *
sx_match_all64(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_match(w, i, true, true);
}

/* ---- redux -------------------------------------------------------------------------------------------------------- */

enum sx_redux { SX_REDUX_ADD, SX_REDUX_AND, SX_REDUX_OR, SX_REDUX_XOR, SX_REDUX_MINU, SX_REDUX_MAXU, SX_REDUX_MINS,
	SX_REDUX_MAXS, SX_REDUX_MINF, SX_REDUX_MAXF };
#define SX_REDUX_ABS 0x100u
#define SX_REDUX_NAN 0x200u

static inline uint32_t
sx_redux_float(uint32_t r, uint32_t x, bool least, bool keep_nan)
{
	float a, b;

	memcpy(&a, &r, 4);
	memcpy(&b, &x, 4);
	if (isnan(a) || isnan(b)) {
		if (keep_nan || (isnan(a) && isnan(b)))
			return 0x7fffffff;
		return isnan(a) ? x : r;
	}
	if (a == b) /* zeros of either sign */
		return least ? r | x : r & x;
	return (a < b) == least ? r : x;
}

static inline uint32_t
sx_redux_step(uint32_t op, uint32_t r, uint32_t x)
{
	switch (op & 0xff) {
	case SX_REDUX_ADD:
		return r + x;
	case SX_REDUX_AND:
		return r & x;
	case SX_REDUX_OR:
		return r | x;
	case SX_REDUX_XOR:
		return r ^ x;
	case SX_REDUX_MINU:
		return r < x ? r : x;
	case SX_REDUX_MAXU:
		return r > x ? r : x;
	case SX_REDUX_MINS:
		return (int32_t)r < (int32_t)x ? r : x;
	case SX_REDUX_MAXS:
		return (int32_t)r > (int32_t)x ? r : x;
	default:
		return sx_redux_float(r, x, (op & 0xff) == SX_REDUX_MINF, op & SX_REDUX_NAN);
	}
}

/* d, a, b: member mask; aux: operation */
static const struct sx_insn *
sx_redux(struct sx_warp *w, const struct sx_insn *i)
{
	const uint32_t *a = SX_S32(w, i->a);
	uint32_t r[SX_LANES] = { 0 }, clear = i->aux & SX_REDUX_ABS ? 0x80000000u : 0;

	for (uint32_t rest = w->exec; rest;) {
		uint32_t group = sx_next_group(w, i->b, &rest), lanes = group & (group - 1);
		uint32_t value = a[__builtin_ctz(group)] & ~clear;
		if ((i->aux & 0xff) >= SX_REDUX_MINF && !lanes)
			value = sx_redux_step(i->aux, value, value); /* makes a NaN the canonical one */
		for (; lanes; lanes &= lanes - 1)
			value = sx_redux_step(i->aux, value, a[__builtin_ctz(lanes)] & ~clear);
		for (int l = 0; l < SX_LANES; l++)
			r[l] = group >> l & 1 ? value : r[l];
	}
	sx_put32(w, i->d, r);
	return i + 1;
}

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

static bool
sxw_mod(const struct ptx_insn *in, unsigned n, const char *name)
{
	return n < in->mod_count && strcmp(in->mods[n], name) == 0;
}

static bool
sxw_is_reg(struct sx_decoder *d, const struct ptx_operand *operand, unsigned bits)
{
	return operand->kind == PTX_OP_SINK || (operand->kind == PTX_OP_REG && sxd_bits(d, operand) == bits);
}

/* A 32-bit source: register of that width, or an immediate or special register. */
static bool
sxw_source32(struct sx_decoder *d, const struct ptx_operand *operand, uint32_t *source)
{
	unsigned bits = sxd_bits(d, operand);

	if (bits != 32 && bits != 0)
		return false;
	*source = sxd_src(d, operand, PTX_b32);
	return true;
}

/* Member mask of a .sync form: waits for the members and gives the operand. */
static bool
sxw_members(struct sx_decoder *d, const struct ptx_operand *operand, uint32_t *members)
{
	if (!sxw_source32(d, operand, members))
		return false;
	sxd_emit_converge(d, *members);
	return true;
}

/* The p of "d|p", or SX_NO_REG. */
static bool
sxw_second(struct sx_decoder *d, const struct ptx_operand *operand, uint32_t *predicate)
{
	*predicate = SX_NO_REG;
	if (!operand->second)
		return true;
	if (!sxw_is_reg(d, operand->second, 1))
		return false;
	*predicate = sxd_dst(d, operand->second);
	return true;
}

static bool
sxw_decode_shfl(struct sx_decoder *d, const struct ptx_insn *in)
{
	static const struct { const char *name; sx_fn fn; } modes[] = {
		{ "up", sx_shfl_up }, { "down", sx_shfl_down }, { "bfly", sx_shfl_bfly }, { "idx", sx_shfl_idx },
	};
	unsigned sync = sxw_mod(in, 0, "sync");
	uint32_t predicate, a, b, c, members;
	sx_fn fn = NULL;

	for (size_t n = 0; n < sizeof modes / sizeof *modes; n++)
		if (sxw_mod(in, sync, modes[n].name))
			fn = modes[n].fn;
	if (!fn || in->mod_count != sync + 2 || in->type_count != 1 || ptx_type_bits[in->types[0]] != 32 ||
	    in->operand_count != 4 + sync)
		return false;
	if (!sxw_is_reg(d, &in->operands[0], 32) || !sxw_second(d, &in->operands[0], &predicate) ||
	    !sxw_source32(d, &in->operands[1], &a) || !sxw_source32(d, &in->operands[2], &b) ||
	    !sxw_source32(d, &in->operands[3], &c) || (sync && !sxw_members(d, &in->operands[4], &members)))
		return false;
	uint32_t target = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, fn);
	i->d = target;
	i->e = predicate;
	i->a = a;
	i->b = b;
	i->c = c;
	return true;
}

static bool
sxw_decode_vote(struct sx_decoder *d, const struct ptx_insn *in)
{
	static const char *const modes[] = { [SX_VOTE_ALL] = "all", [SX_VOTE_ANY] = "any", [SX_VOTE_UNI] = "uni" };
	/* .sync stands before or, in older texts (CUB's), behind the mode */
	bool first = sxw_mod(in, 0, "sync");
	unsigned sync = first || sxw_mod(in, 1, "sync");
	bool ballot = sxw_mod(in, first, "ballot");
	uint32_t members = SX_NO_REG, mode = 3;

	for (uint32_t n = 0; n < 3; n++)
		if (sxw_mod(in, first, modes[n]))
			mode = n;
	if ((mode == 3 && !ballot) || in->mod_count != sync + 2 || in->type_count != 1 ||
	    in->types[0] != (ballot ? PTX_b32 : PTX_pred) || in->operand_count != 2 + sync)
		return false;
	if (!sxw_is_reg(d, &in->operands[0], ballot ? 32 : 1) || sxd_bits(d, &in->operands[1]) > 1)
		return false;
	uint32_t a = sxd_src(d, &in->operands[1], PTX_pred);
	if (sync && !sxw_members(d, &in->operands[2], &members))
		return false;
	uint32_t target = sxd_dst(d, &in->operands[0]);
	if (target == SX_NO_REG)
		return true;
	struct sx_insn *i = sxd_emit(d, ballot ? sx_ballot : sx_vote);
	i->d = target;
	i->a = a;
	i->b = members;
	i->aux = mode;
	return true;
}

static bool
sxw_decode_match(struct sx_decoder *d, const struct ptx_insn *in)
{
	bool all = sxw_mod(in, 0, "all");
	uint32_t predicate, members;

	if ((!all && !sxw_mod(in, 0, "any")) || !sxw_mod(in, 1, "sync") || in->mod_count != 3 || in->type_count != 1 ||
	    in->operand_count != 3 || !sxw_is_reg(d, &in->operands[0], 32) || !sxw_second(d, &in->operands[0], &predicate))
		return false;
	unsigned bits = ptx_type_bits[in->types[0]], own = sxd_bits(d, &in->operands[1]);
	if ((in->types[0] != PTX_b32 && in->types[0] != PTX_b64) || (own && own != bits) || (!all && predicate != SX_NO_REG))
		return false;
	uint32_t a = sxd_src(d, &in->operands[1], (enum ptx_type)in->types[0]);
	if (!sxw_members(d, &in->operands[2], &members))
		return false;
	uint32_t target = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, all ? bits == 64 ? sx_match_all64 : sx_match_all32
	                                    : bits == 64 ? sx_match_any64 : sx_match_any32);
	i->d = target;
	i->e = predicate;
	i->a = a;
	i->b = members;
	return true;
}

static bool
sxw_decode_redux(struct sx_decoder *d, const struct ptx_insn *in)
{
	static const struct { const char *name; uint8_t type; uint32_t op; } rows[] = {
		{ "add", PTX_u32, SX_REDUX_ADD }, { "add", PTX_s32, SX_REDUX_ADD }, { "min", PTX_u32, SX_REDUX_MINU },
		{ "min", PTX_s32, SX_REDUX_MINS }, { "max", PTX_u32, SX_REDUX_MAXU }, { "max", PTX_s32, SX_REDUX_MAXS },
		{ "and", PTX_b32, SX_REDUX_AND }, { "or", PTX_b32, SX_REDUX_OR }, { "xor", PTX_b32, SX_REDUX_XOR },
		{ "min", PTX_f32, SX_REDUX_MINF }, { "max", PTX_f32, SX_REDUX_MAXF },
	};
	uint32_t op = 0, flags = 0, a, members;
	bool found = false;

	if (!sxw_mod(in, 0, "sync") || in->mod_count < 3 || in->type_count != 1 || in->operand_count != 3)
		return false;
	for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
		if (sxw_mod(in, 1, rows[n].name) && in->types[0] == rows[n].type) {
			op = rows[n].op;
			found = true;
		}
	}
	for (unsigned n = 2; n + 1 < in->mod_count; n++) {
		if (sxw_mod(in, n, "abs"))
			flags |= SX_REDUX_ABS;
		else if (sxw_mod(in, n, "NaN"))
			flags |= SX_REDUX_NAN;
		else
			return false;
	}
	if (!found || (flags && op < SX_REDUX_MINF) || !sxw_is_reg(d, &in->operands[0], 32) ||
	    !sxw_source32(d, &in->operands[1], &a) || !sxw_members(d, &in->operands[2], &members))
		return false;
	uint32_t target = sxd_dst(d, &in->operands[0]);
	if (target == SX_NO_REG)
		return true;
	struct sx_insn *i = sxd_emit(d, sx_redux);
	i->d = target;
	i->a = a;
	i->b = members;
	i->aux = op | flags;
	return true;
}

static bool
sxw_decode_elect(struct sx_decoder *d, const struct ptx_insn *in)
{
	uint32_t predicate, members;

	if (!sxw_mod(in, 0, "sync") || in->mod_count != 1 || in->operand_count != 2 ||
	    !sxw_is_reg(d, &in->operands[0], 32) || !sxw_second(d, &in->operands[0], &predicate) || predicate == SX_NO_REG ||
	    !sxw_members(d, &in->operands[1], &members))
		return false;
	uint32_t target = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, sx_elect);
	i->d = target;
	i->e = predicate;
	i->b = members;
	return true;
}

static bool
sxw_decode_activemask(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (in->mod_count != 1 || in->type_count != 1 || in->types[0] != PTX_b32 || in->operand_count != 1 ||
	    in->operands[0].kind != PTX_OP_REG || sxd_bits(d, &in->operands[0]) != 32)
		return false;
	uint32_t target = sxd_dst(d, &in->operands[0]);
	sxd_emit(d, sx_activemask)->d = target;
	return true;
}

bool
sx_decode_warp(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (sxd_is(in, "shfl"))
		return sxw_decode_shfl(d, in);
	if (sxd_is(in, "vote"))
		return sxw_decode_vote(d, in);
	if (sxd_is(in, "match"))
		return sxw_decode_match(d, in);
	if (sxd_is(in, "redux"))
		return sxw_decode_redux(d, in);
	if (sxd_is(in, "elect"))
		return sxw_decode_elect(d, in);
	if (sxd_is(in, "activemask"))
		return sxw_decode_activemask(d, in);
	return false;
}

#endif
