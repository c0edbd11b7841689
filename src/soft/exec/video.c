/*
 * Video instructions: vadd vsub vabsdiff vmin vmax vshl vshr vset vmad on parts of 32-bit values, and the forms of two half-words
 * (vadd2 ...) and four bytes (vadd4 ...). Slow and plain: compilers for the GPU write few of them (GCC's libgomp does). Part of isa_core.c.
 */
#ifndef SX_VIDEO_C
#define SX_VIDEO_C

#include <string.h>

#include "soft/exec/isa.h"

enum video_op { VIDEO_ADD, VIDEO_SUB, VIDEO_ABSDIFF, VIDEO_MIN, VIDEO_MAX, VIDEO_SHL, VIDEO_SHR, VIDEO_SET, VIDEO_AVRG, VIDEO_MAD };
enum video_second { VIDEO_NO_SECOND, VIDEO_SECOND_ADD, VIDEO_SECOND_MIN, VIDEO_SECOND_MAX };
enum video_compare { VIDEO_EQ, VIDEO_NE, VIDEO_LT, VIDEO_LE, VIDEO_GT, VIDEO_GE };

/* One instruction, decoded. */
struct video {
	uint8_t op, second, compare;
	uint8_t a_sel, b_sel, d_sel;     /* scalar: width in bits << 3 | part, 0 for the whole; vectors: unused */
	uint16_t a_pick, b_pick;         /* vectors: a nibble per element, 0..2n-1 over a and b */
	uint8_t mask;                    /* vectors: elements that are written */
	bool a_signed : 1, b_signed : 1, d_signed : 1, sat : 1, wrap : 1, plus_one : 1, negate_product : 1, negate_c : 1;
	uint8_t shift;                   /* vmad: 7, 15 or 0 */
	uint8_t unused[3];
};
_Static_assert(sizeof(struct video) == 16, "struct video lies in imm, aux and e of an instruction");

static int64_t
video_extend(uint32_t value, unsigned bits, bool is_signed)
{
	uint64_t low = bits < 32 ? value & ((1u << bits) - 1) : value;

	return is_signed && low >> (bits - 1) & 1 ? (int64_t)(low | ~0ull << bits) : (int64_t)low;
}

static int64_t
video_part(uint32_t value, uint8_t select, bool is_signed)
{
	unsigned bits = select >> 3 ? select >> 3 : 32;

	return video_extend(value >> (select & 7) * (bits & 31), bits, is_signed);
}

static int64_t
video_clamp(int64_t value, unsigned bits, bool is_signed)
{
	int64_t low = is_signed ? -((int64_t)1 << (bits - 1)) : 0, high = ((int64_t)1 << (is_signed ? bits - 1 : bits)) - 1;

	return value < low ? low : value > high ? high : value;
}

static bool
video_holds(uint8_t compare, int64_t a, int64_t b)
{
	switch (compare) {
	case VIDEO_EQ: return a == b;
	case VIDEO_NE: return a != b;
	case VIDEO_LT: return a < b;
	case VIDEO_LE: return a <= b;
	case VIDEO_GT: return a > b;
	default: return a >= b;
	}
}

static int64_t
video_first(const struct video *v, int64_t a, int64_t b)
{
	switch (v->op) {
	case VIDEO_ADD: return a + b;
	case VIDEO_SUB: return a - b;
	case VIDEO_ABSDIFF: return a > b ? a - b : b - a;
	case VIDEO_MIN: return a < b ? a : b;
	case VIDEO_MAX: return a > b ? a : b;
	case VIDEO_AVRG: return (a + b + (a + b >= 0)) >> 1;
	case VIDEO_SET: return video_holds(v->compare, a, b);
	default: break;
	}
	uint64_t by = v->wrap ? b & 31 : (uint32_t)b > 32 ? 32 : (uint32_t)b;
	return v->op == VIDEO_SHL ? (int64_t)((uint64_t)a << by) : a >> by;
}

static uint32_t
video_second(const struct video *v, int64_t first, uint32_t c)
{
	int64_t x = video_extend((uint32_t)first, 32, v->d_signed), y = video_extend(c, 32, v->d_signed);

	switch (v->second) {
	case VIDEO_SECOND_ADD: return (uint32_t)first + c;
	case VIDEO_SECOND_MIN: return (uint32_t)(x < y ? x : y);
	case VIDEO_SECOND_MAX: return (uint32_t)(x > y ? x : y);
	default: return (uint32_t)first;
	}
}

static uint32_t
video_scalar(const struct video *v, uint32_t a, uint32_t b, uint32_t c)
{
	int64_t first = video_first(v, video_part(a, v->a_sel, v->a_signed), video_part(b, v->b_sel, v->b_signed));
	unsigned bits = v->d_sel >> 3;

	if (v->sat)
		first = video_clamp(first, bits ? bits : 32, v->d_signed);
	if (!bits)
		return video_second(v, first, c);
	uint32_t mask = ((1u << bits) - 1) << (v->d_sel & 7) * bits; /* the part of c that is replaced */
	return (c & ~mask) | ((uint32_t)first << (v->d_sel & 7) * bits & mask);
}

static uint32_t
video_mad(const struct video *v, uint32_t a, uint32_t b, uint32_t c)
{
	bool is_signed = v->a_signed || v->b_signed || v->negate_product || v->negate_c;
	__extension__ __int128 sum = (__int128)video_part(a, v->a_sel, v->a_signed) * video_part(b, v->b_sel, v->b_signed);

	if (v->negate_product)
		sum = -sum;
	sum += v->negate_c ? -video_extend(c, 32, is_signed) : video_extend(c, 32, is_signed);
	sum += v->plus_one;
	sum >>= v->shift;
	if (v->sat)
		return (uint32_t)video_clamp((int64_t)(sum > INT64_MAX ? INT64_MAX : sum < INT64_MIN ? INT64_MIN : sum), 32, is_signed);
	return (uint32_t)sum;
}

static uint32_t
video_vector(const struct video *v, unsigned count, uint32_t a, uint32_t b, uint32_t c)
{
	unsigned bits = 32 / count;
	uint64_t both = a | (uint64_t)b << 32;
	uint32_t result = c;

	for (unsigned e = 0; e < count; e++) {
		if (!(v->mask >> e & 1))
			continue;
		int64_t x = video_extend((uint32_t)(both >> (v->a_pick >> 4 * e & 7) * bits), bits, v->a_signed);
		int64_t y = video_extend((uint32_t)(both >> (v->b_pick >> 4 * e & 7) * bits), bits, v->b_signed);
		int64_t first = video_first(v, x, y);
		if (v->sat)
			first = video_clamp(first, bits, v->d_signed);
		uint32_t mask = ((1u << bits) - 1) << e * bits;
		if (v->second)
			result += (uint32_t)first;
		else
			result = (result & ~mask) | ((uint32_t)first << e * bits & mask);
	}
	return result;
}

static inline struct video
video_of(const struct sx_insn *i)
{
	struct video v;

	memcpy(&v, &i->imm, 8);
	memcpy((char *)&v + 8, &i->aux, 4);
	memcpy((char *)&v + 12, &i->e, 4);
	return v;
}

#define VIDEO_HANDLER(name, expression) \
	static const struct sx_insn * \
	name(struct sx_warp *w, const struct sx_insn *i) \
	{ \
		const uint32_t *a = SX_S32(w, i->a), *b = SX_S32(w, i->b), *c = SX_S32(w, i->c); \
		const struct video v = video_of(i); \
		uint32_t result[SX_LANES]; \
		for (int l = 0; l < SX_LANES; l++) \
			result[l] = expression; \
		sx_put32(w, i->d, result); \
		return i + 1; \
	}
VIDEO_HANDLER(sx_video_scalar, video_scalar(&v, a[l], b[l], c[l]))
VIDEO_HANDLER(sx_video_mad, video_mad(&v, a[l], b[l], c[l]))
VIDEO_HANDLER(sx_video_2, video_vector(&v, 2, a[l], b[l], c[l]))
VIDEO_HANDLER(sx_video_4, video_vector(&v, 4, a[l], b[l], c[l]))

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static const struct video_name { const char *name; uint8_t op, elements; } video_names[] = {
	{ "vabsdiff", VIDEO_ABSDIFF, 1 }, { "vabsdiff2", VIDEO_ABSDIFF, 2 }, { "vabsdiff4", VIDEO_ABSDIFF, 4 },
	{ "vadd", VIDEO_ADD, 1 }, { "vadd2", VIDEO_ADD, 2 }, { "vadd4", VIDEO_ADD, 4 },
	{ "vavrg2", VIDEO_AVRG, 2 }, { "vavrg4", VIDEO_AVRG, 4 }, { "vmad", VIDEO_MAD, 1 },
	{ "vmax", VIDEO_MAX, 1 }, { "vmax2", VIDEO_MAX, 2 }, { "vmax4", VIDEO_MAX, 4 },
	{ "vmin", VIDEO_MIN, 1 }, { "vmin2", VIDEO_MIN, 2 }, { "vmin4", VIDEO_MIN, 4 },
	{ "vset", VIDEO_SET, 1 }, { "vset2", VIDEO_SET, 2 }, { "vset4", VIDEO_SET, 4 },
	{ "vshl", VIDEO_SHL, 1 }, { "vshr", VIDEO_SHR, 1 },
	{ "vsub", VIDEO_SUB, 1 }, { "vsub2", VIDEO_SUB, 2 }, { "vsub4", VIDEO_SUB, 4 },
};

/* Sorts the modifiers that are no types; false on an unknown one. */
static bool
video_modifiers(const struct ptx_insn *in, struct video *v)
{
	static const char *const compares[] = { "eq", "ne", "lt", "le", "gt", "ge" };
	bool compared = false, shifted = false;

	for (unsigned m = 0; m < in->mod_count; m++) {
		const char *mod = in->mods[m];
		unsigned c;
		if (strcmp(mod, "u32") == 0 || strcmp(mod, "s32") == 0)
			continue;
		for (c = 0; c < 6 && strcmp(mod, compares[c]) != 0; c++)
			;
		if (c < 6 && v->op == VIDEO_SET && !compared) {
			v->compare = (uint8_t)c;
			compared = true;
		} else if (strcmp(mod, "sat") == 0 && v->op != VIDEO_SET) {
			v->sat = true;
		} else if (strcmp(mod, "add") == 0 && v->op != VIDEO_MAD) {
			v->second = VIDEO_SECOND_ADD;
		} else if (strcmp(mod, "min") == 0 && v->op != VIDEO_MAD) {
			v->second = VIDEO_SECOND_MIN;
		} else if (strcmp(mod, "max") == 0 && v->op != VIDEO_MAD) {
			v->second = VIDEO_SECOND_MAX;
		} else if ((v->op == VIDEO_SHL || v->op == VIDEO_SHR) && (strcmp(mod, "clamp") == 0 || strcmp(mod, "wrap") == 0)) {
			v->wrap = mod[0] == 'w';
			shifted = true;
		} else if (v->op == VIDEO_MAD && strcmp(mod, "po") == 0) {
			v->plus_one = true;
		} else if (v->op == VIDEO_MAD && (strcmp(mod, "shr7") == 0 || strcmp(mod, "shr15") == 0)) {
			v->shift = mod[3] == '7' ? 7 : 15;
		} else {
			return false;
		}
	}
	return compared == (v->op == VIDEO_SET) && shifted == (v->op == VIDEO_SHL || v->op == VIDEO_SHR);
}

static bool
video_types(const struct ptx_insn *in, struct video *v)
{
	unsigned n = 0;

	if (in->type_count != (v->op == VIDEO_SET ? 2 : 3))
		return false;
	for (unsigned k = 0; k < in->type_count; k++)
		if (in->types[k] != PTX_u32 && in->types[k] != PTX_s32)
			return false;
	if (v->op != VIDEO_SET)
		v->d_signed = in->types[n++] == PTX_s32;
	v->a_signed = in->types[n++] == PTX_s32;
	v->b_signed = in->types[n] == PTX_s32;
	return true;
}

/* A scalar's .b0 to .b3, .h0, .h1. */
static bool
video_selector(const struct ptx_operand *o, uint8_t *select)
{
	*select = 0;
	if (o->kind != PTX_OP_REG || !o->component)
		return true;
	unsigned bits = o->component == 'b' ? 8 : 16;
	if (o->count != 1 || o->imm < 0 || o->imm >= 32 / bits)
		return false;
	*select = (uint8_t)(bits << 3 | (unsigned)o->imm);
	return true;
}

/* A vector's .h10 or .b3210: a nibble per element. */
static bool
video_pick(const struct ptx_operand *o, unsigned elements, uint16_t otherwise, uint16_t *pick)
{
	*pick = otherwise;
	if (o->kind != PTX_OP_REG || !o->component)
		return true;
	*pick = (uint16_t)o->imm;
	for (unsigned e = 0; e < elements; e++)
		if ((*pick >> 4 * e & 15) >= 2 * elements)
			return false;
	return o->count == elements && o->component == (elements == 4 ? 'b' : 'h');
}

static bool
video_mask(const struct ptx_operand *o, unsigned elements, uint8_t *mask)
{
	*mask = (uint8_t)((1u << elements) - 1);
	if (!o->component)
		return true;
	*mask = 0;
	for (unsigned k = 0; k < o->count; k++) {
		unsigned element = o->imm >> 4 * k & 15;
		if (element >= elements)
			return false;
		*mask |= (uint8_t)(1u << element);
	}
	return o->component == (elements == 4 ? 'b' : 'h');
}

/* The operand without its selector: the 32-bit slot. */
static uint32_t
video_source(struct sx_decoder *d, const struct ptx_operand *o)
{
	struct ptx_operand plain = *o;

	if (o->kind == PTX_OP_REG) {
		plain.component = 0;
		plain.count = 0;
		plain.imm = 0;
		if (sxd_bits(d, &plain) != 32)
			sxd_fail(d, "an operand is not 32 bits wide");
	}
	plain.negate = 0;
	return sxd_src(d, &plain, PTX_u32);
}

static bool
video_operands(struct sx_decoder *d, const struct ptx_insn *in, struct video *v, unsigned elements)
{
	const struct ptx_operand *o = in->operands;
	bool good;

	if (elements == 1) {
		good = video_selector(&o[0], &v->d_sel) && video_selector(&o[1], &v->a_sel) && video_selector(&o[2], &v->b_sel);
		/* c belongs to a second operation, a merge or vmad, and to nothing else */
		good = good && (in->operand_count == 4) == (v->second || v->d_sel || v->op == VIDEO_MAD) && !(v->second && v->d_sel) &&
		       !(v->op == VIDEO_MAD && v->d_sel);
	} else {
		good = in->operand_count == 4 && video_mask(&o[0], elements, &v->mask) && v->second <= VIDEO_SECOND_ADD &&
		       !(v->second && v->sat) && video_pick(&o[1], elements, elements == 2 ? 0x10 : 0x3210, &v->a_pick) &&
		       video_pick(&o[2], elements, elements == 2 ? 0x32 : 0x7654, &v->b_pick);
	}
	for (uint32_t k = 1; good && k < in->operand_count; k++)
		good = !o[k].negate || (v->op == VIDEO_MAD && !v->plus_one);
	if (good && v->op == VIDEO_MAD) {
		v->negate_product = o[1].negate != o[2].negate;
		v->negate_c = o[3].negate;
		good = !(v->negate_product && v->negate_c);
	}
	return good;
}

bool
sx_decode_video(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct video_name *name = NULL;
	struct video v = { 0 };

	for (size_t n = 0; !name && n < sizeof(video_names) / sizeof(video_names[0]); n++)
		if (sxd_is(in, video_names[n].name))
			name = &video_names[n];
	if (!name || in->operand_count < 3 || in->operand_count > 4 || in->operands[0].kind != PTX_OP_REG)
		return false;
	v.op = name->op;
	if (!video_types(in, &v) || !video_modifiers(in, &v) || !video_operands(d, in, &v, name->elements))
		return false;
	struct ptx_operand to = in->operands[0];
	to.component = 0;
	to.count = 0;
	to.imm = 0;
	if (sxd_bits(d, &to) != 32)
		return false;
	uint32_t a = video_source(d, &in->operands[1]), b = video_source(d, &in->operands[2]);
	uint32_t c = in->operand_count == 4 ? video_source(d, &in->operands[3]) : sxd_const32(d, 0), result = sxd_dst(d, &to);
	struct sx_insn *insn = sxd_emit(d, v.op == VIDEO_MAD ? sx_video_mad : name->elements == 1 ? sx_video_scalar
	                                   : name->elements == 2 ? sx_video_2 : sx_video_4);
	const char *packed = (const char *)&v;
	insn->d = result;
	insn->a = a;
	insn->b = b;
	insn->c = c;
	memcpy(&insn->imm, packed, 8);
	memcpy(&insn->aux, packed + 8, 4);
	memcpy(&insn->e, packed + 12, 4);
	return true;
}

#endif
