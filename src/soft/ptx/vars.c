/*
 * Declarations: variables with their initialisers, registers, parameters.
 */
#include "parser.h"

#include <stdio.h>

#define MAX_DIMS 8

/* The shape of a declarator: sizes of its dimensions, outermost first, a vector's width last. */
struct shape {
	uint64_t dims[MAX_DIMS + 1];
	uint32_t count;
	bool unsized; /* the first is [] */
};

bool
ptx_space_word(const struct ptx_word *word, enum ptx_space *space)
{
	static const struct { const char *text; enum ptx_space space; } spaces[] = {
		{ "reg", PTX_SPACE_REG }, { "const", PTX_SPACE_CONST }, { "global", PTX_SPACE_GLOBAL },
		{ "local", PTX_SPACE_LOCAL }, { "param", PTX_SPACE_PARAM }, { "shared", PTX_SPACE_SHARED }, { "tex", PTX_SPACE_TEX },
	};
	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (ptx_word_is(word, spaces[i].text)) {
			*space = spaces[i].space;
			return true;
		}
	return false;
}

bool
ptx_linkage_word(const struct ptx_word *word, enum ptx_linkage *linkage)
{
	static const struct { const char *text; enum ptx_linkage linkage; } linkages[] = {
		{ "visible", PTX_LINK_VISIBLE }, { "extern", PTX_LINK_EXTERN }, { "weak", PTX_LINK_WEAK }, { "common", PTX_LINK_COMMON },
	};
	for (size_t i = 0; i < sizeof(linkages) / sizeof(linkages[0]); i++)
		if (ptx_word_is(word, linkages[i].text)) {
			*linkage = linkages[i].linkage;
			return true;
		}
	return false;
}

void
ptx_attributes(struct ptx_parser *p, struct ptx_decl *decl)
{
	ptx_expect(p, '(');
	do {
		struct ptx_word word = ptx_directive(p);
		if (ptx_word_is(&word, "managed"))
			decl->managed = true;
		if (ptx_accept(p, '(')) { /* .unified(a, b): an identity for the tools that made it */
			do
				ptx_expr(p);
			while (ptx_accept(p, ','));
			ptx_expect(p, ')');
		}
	} while (ptx_accept(p, ','));
	ptx_expect(p, ')');
}

static uint32_t
alignment(struct ptx_parser *p)
{
	uint64_t align = ptx_uint(p, "the alignment", 1u << 20);

	if (align == 0 || (align & (align - 1)))
		ptx_fail(p, "the alignment %llu is not a power of two", (unsigned long long)align);
	return (uint32_t)align;
}

/* .align N, .vN, .type, .ptr .space .align N, .attribute(...), in any order, to the first name. */
static void
decl_words(struct ptx_parser *p, struct ptx_decl *decl)
{
	while (*p->at == '.') {
		struct ptx_word word = ptx_directive(p);
		enum ptx_space space;
		enum ptx_type type;
		if (ptx_word_is(&word, "align")) {
			uint32_t align = alignment(p);
			if (!decl->is_ptr)
				decl->align = align;
		} else if (ptx_word_is(&word, "v2") || ptx_word_is(&word, "v4") || ptx_word_is(&word, "v8")) {
			decl->vector = (uint32_t)(word.text[1] - '0');
		} else if (ptx_word_is(&word, "ptr")) {
			decl->is_ptr = true;
		} else if (ptx_word_is(&word, "attribute")) {
			ptx_attributes(p, decl);
		} else if ((type = ptx_type_find(word.text, word.length)) != PTX_none) {
			if (decl->type)
				ptx_fail(p, "two types, .%s and .%s", ptx_type_names[decl->type], ptx_type_names[type]);
			decl->type = type;
		} else if (decl->is_ptr && ptx_space_word(&word, &space)) {
			decl->ptr_space = space;
		} else {
			ptx_fail(p, "'.%.*s' in a declaration", word.length > 40 ? 40 : (int)word.length, word.text);
		}
	}
	if (!decl->type)
		ptx_fail_token(p, "a type");
	if (!decl->vector)
		decl->vector = 1;
}

static struct shape
dimensions(struct ptx_parser *p, uint32_t vector)
{
	struct shape shape = { 0 };

	while (ptx_accept(p, '[')) {
		if (shape.count == MAX_DIMS)
			ptx_fail(p, "an array of more than %d dimensions", MAX_DIMS);
		if (*p->at == ']') {
			if (shape.count)
				ptx_fail(p, "only the first dimension of an array may be left out");
			shape.unsized = true;
		} else {
			shape.dims[shape.count] = ptx_uint(p, "the size of an array", PTX_MAX_VAR);
		}
		shape.count++;
		ptx_expect(p, ']');
	}
	if (vector > 1)
		shape.dims[shape.count++] = vector;
	return shape;
}

/* Elements in one item of dimension `level` - 1: product of the dimensions from `level` on. */
static uint64_t
elements(struct ptx_parser *p, const struct shape *shape, uint32_t level)
{
	uint64_t count = 1;

	for (uint32_t i = level; i < shape->count; i++)
		if (__builtin_mul_overflow(count, shape->dims[i], &count) || count > PTX_MAX_VAR)
			ptx_fail(p, "an array of more than %llu elements", (unsigned long long)PTX_MAX_VAR);
	return count;
}

/* ---- initialisers ----------------------------------------------------------------------------------------------- */

struct init {
	const struct shape *shape;
	struct ptx_var *var;
	uint32_t item;       /* bytes of an element */
	uint64_t limit;      /* elements; UINT64_MAX while the first dimension is open */
	uint64_t used;       /* elements that are written or passed */
	uint8_t *data;       /* limit elements, or NULL: p->bytes grows */
};

static uint8_t *
init_place(struct ptx_parser *p, struct init *init, uint64_t at)
{
	if (at >= init->limit)
		ptx_fail(p, "too many values for '%s'", init->var->name);
	if (init->data)
		return init->data + at * init->item;
	if ((at + 1) * init->item > 1u << 28)
		ptx_fail(p, "too many values for '%s'", init->var->name);
	while (p->bytes.count < (at + 1) * init->item)
		*ptx_push(p, &p->bytes) = 0;
	return p->bytes.items + at * init->item;
}

/* Rounds to nearest even; denormals and overflow as IEEE. */
static uint16_t
half_bits(double value, int exponent_bits)
{
	int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
	uint64_t bits;
	memcpy(&bits, &value, sizeof(bits));
	uint16_t sign = (uint16_t)(bits >> 63 << 15);
	int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
	uint64_t fraction = bits & 0xfffffffffffff;
	uint16_t infinity = (uint16_t)(((1 << exponent_bits) - 1) << fraction_bits);

	if (exponent == 1024)
		return (uint16_t)(sign | infinity | (fraction ? 1u << (fraction_bits - 1) : 0));
	if (exponent > bias)
		return sign | infinity;
	int shift = 52 - fraction_bits;
	fraction |= (uint64_t)1 << 52;
	if (exponent < 1 - bias) {
		shift += 1 - bias - exponent;
		exponent = 1 - bias;
		if (shift > 54)
			return sign;
	}
	uint64_t kept = fraction >> shift, rest = fraction & (((uint64_t)1 << shift) - 1), tie = (uint64_t)1 << (shift - 1);
	kept += rest > tie || (rest == tie && (kept & 1));
	/* the leading bit of a normal number adds 1 to the exponent field, and so does a carry */
	return (uint16_t)(sign | (((uint64_t)(exponent + bias - 1) << fraction_bits) + kept));
}

/* The pattern that a value has in an element of the variable's type. */
static uint64_t
element_bits(struct ptx_parser *p, const struct ptx_var *var, struct ptx_value v)
{
	enum ptx_type type = var->type;
	bool is_float = type == PTX_f16 || type == PTX_bf16 || type == PTX_f32 || type == PTX_f64;
	double number = v.is_unsigned ? (double)(uint64_t)v.bits : (double)v.bits;

	if (!is_float && !v.is_float)
		return (uint64_t)v.bits;
	if (!is_float && type != PTX_b32 && type != PTX_b64)
		ptx_fail(p, "a floating-point value for '%s' of type .%s", var->name, ptx_type_names[type]);
	if (v.is_float)
		memcpy(&number, &v.bits, sizeof(number));
	else
		memcpy(&v.bits, &number, sizeof(number));
	if (type == PTX_f16 || type == PTX_bf16)
		return half_bits(number, type == PTX_f16 ? 5 : 8);
	/* 0f in a variable of 8 bytes is its 32 bits, as the toolkit's assembler has it */
	if (ptx_type_bits[type] == 32 || v.is_f32)
		return ptx_f32_bits(&(struct ptx_operand){ .imm = v.bits });
	return (uint64_t)v.bits;
}

static void
init_number(struct ptx_parser *p, struct init *init, uint64_t at, struct ptx_value v)
{
	uint8_t *place = init_place(p, init, at);
	uint64_t bits = element_bits(p, init->var, v);

	if (init->item > 8)
		memset(place, !v.is_unsigned && v.bits < 0 ? 0xff : 0, init->item);
	memcpy(place, &bits, init->item < 8 ? init->item : 8);
}

/* symbol, symbol + 4, generic(symbol) + 4, generic(symbol + 4) */
static void
init_symbol(struct ptx_parser *p, struct init *init, uint64_t at, struct ptx_value mask, bool masked)
{
	struct ptx_reloc reloc = { .line = (int)p->line, .offset = at * init->item, .size = (uint8_t)init->item };
	struct ptx_word word = ptx_word(p);

	reloc.generic = ptx_word_is(&word, "generic") && ptx_accept(p, '(');
	if (reloc.generic)
		word = ptx_word(p);
	reloc.addend = ptx_offset(p);
	if (reloc.generic) {
		ptx_expect(p, ')');
		reloc.addend += ptx_offset(p);
	}
	reloc.symbol = ptx_atom(p, &word)->text;
	if (masked) {
		while (reloc.shift < 56 && (uint64_t)mask.bits >> reloc.shift != 0xff)
			reloc.shift += 8;
		if ((uint64_t)mask.bits != (uint64_t)0xff << reloc.shift || init->item != 1)
			ptx_fail(p, "a mask of an address must be 8 bits at a byte, in a variable of bytes");
	} else if (init->item != 4 && init->item != 8) {
		ptx_fail(p, "the address of '%s' in a variable of %u-byte elements", reloc.symbol, init->item);
	}
	init_place(p, init, at);
	*ptx_push(p, &p->relocs) = reloc;
}

static void
init_value(struct ptx_parser *p, struct init *init, uint64_t at)
{
	if (ptx_is(*p->at, PTX_C_START) && strncmp(p->at, "WARP_SZ", 7) != 0) {
		init_symbol(p, init, at, (struct ptx_value){ 0 }, false);
		return;
	}
	struct ptx_value v;
	if (ptx_is(*p->at, PTX_C_DIGIT)) {
		const char *start = p->at;
		uint32_t line = p->line;
		v = ptx_number(p);
		if (ptx_accept(p, '(')) { /* 0xff00(symbol): one byte of an address */
			init_symbol(p, init, at, v, true);
			ptx_expect(p, ')');
			return;
		}
		p->at = start;
		p->line = line;
	}
	v = ptx_expr(p);
	init_number(p, init, at, v);
}

/* { ... } of dimension `level`, whose items begin at element `start`. */
static void
init_braces(struct ptx_parser *p, struct init *init, uint32_t level, uint64_t start)
{
	uint64_t at = start, stride = elements(p, init->shape, level + 1), end = init->limit;

	if (++p->depth > PTX_MAX_DEPTH)
		ptx_fail(p, "braces nested deeper than %d", PTX_MAX_DEPTH);
	if (level > 0)
		end = start + elements(p, init->shape, level);
	ptx_expect(p, '{');
	while (*p->at != '}') {
		if (at >= end)
			ptx_fail(p, "too many values for '%s'", init->var->name);
		if (*p->at == '{') {
			if (level + 1 >= init->shape->count)
				ptx_fail(p, "braces around a value of '%s'", init->var->name);
			init_braces(p, init, level + 1, at);
			if ((at += stride) > PTX_MAX_VAR)
				ptx_fail(p, "too many values for '%s'", init->var->name);
		} else {
			init_value(p, init, at++);
		}
		if (at > init->used)
			init->used = at;
		if (!ptx_accept(p, ','))
			break;
	}
	ptx_expect(p, '}');
	p->depth--;
}

static void
initialiser(struct ptx_parser *p, struct ptx_var *var, struct shape *shape)
{
	struct init init = { .shape = shape, .var = var, .item = ptx_type_bits[var->type] / 8u, .limit = UINT64_MAX };

	if (var->type >= PTX_texref && var->type <= PTX_surfref) {
		/* Settings of legacy references, which bound textures replaced. */
		ptx_skip_block(p);
		return;
	}
	p->bytes.count = 0;
	p->relocs.count = 0;
	if (!shape->unsized) {
		init.limit = elements(p, shape, 0);
		if (init.limit * init.item > p->init_left)
			ptx_fail(p, "more than %llu bytes of initialised variables", (unsigned long long)PTX_MAX_INIT);
		p->init_left -= init.limit * init.item;
		init.data = ptx_alloc(p, init.limit * init.item);
	}
	if (*p->at == '{' && (shape->count || p->at[1] != 0)) {
		if (shape->count == 0) { /* x = { 5 } */
			ptx_expect(p, '{');
			init_value(p, &init, 0);
			ptx_expect(p, '}');
		} else {
			init_braces(p, &init, 0, 0);
		}
	} else {
		init_value(p, &init, 0);
		init.used = 1;
	}
	if (shape->unsized) {
		uint64_t stride = elements(p, shape, 1);
		if (stride == 0)
			ptx_fail(p, "an array of nothing with values");
		shape->dims[0] = (init.used + stride - 1) / stride;
		uint64_t total = elements(p, shape, 0) * init.item;
		if (total > p->init_left)
			ptx_fail(p, "more than %llu bytes of initialised variables", (unsigned long long)PTX_MAX_INIT);
		p->init_left -= total;
		init.data = ptx_alloc(p, total);
		if (p->bytes.count)
			memcpy(init.data, p->bytes.items, p->bytes.count < total ? p->bytes.count : total);
		shape->unsized = false;
	}
	var->init = init.data;
	var->relocs = ptx_keep(p, &p->relocs);
	var->reloc_count = p->relocs.count;
}

/* ---- variables -------------------------------------------------------------------------------------------------- */

/* A module may declare a variable .extern and define it later, or repeat a declaration. True: the earlier one stays. */
static bool
redeclared(struct ptx_parser *p, const struct ptx_word *word, struct ptx_var *var)
{
	struct ptx_binding *b = ptx_atom(p, word)->binding;

	if (p->scope != 0 || !b || b->depth != 0 || b->kind != PTX_BIND_VAR)
		return false;
	struct ptx_var *old = &p->vars.items[b->index];
	if (old->linkage != PTX_LINK_EXTERN && var->linkage != PTX_LINK_EXTERN)
		return false;
	if (old->space != var->space)
		ptx_fail(p, "'%s' is declared in two state spaces", var->name);
	if (var->linkage != PTX_LINK_EXTERN) {
		var->index = old->index;
		*old = *var;
	}
	return true;
}

static void
add_var(struct ptx_parser *p, const struct ptx_word *word, struct ptx_var *var)
{
	if (redeclared(p, word, var))
		return;
	if (p->scope == 0) {
		var->index = p->vars.count;
		ptx_declare(p, word, PTX_BIND_VAR, var->index);
		*ptx_push(p, &p->vars) = *var;
	} else {
		var->index = p->locals.count;
		ptx_declare(p, word, PTX_BIND_LOCAL, var->index);
		*ptx_push(p, &p->locals) = *var;
	}
}

/* x<10>: ten variables x0 ... x9 */
static void
add_var_range(struct ptx_parser *p, const struct ptx_word *word, struct ptx_var *var)
{
	uint64_t count = ptx_range_count(p, "the number of variables", 65536);
	char name[PTX_MAX_NAME + 16];

	for (uint64_t i = 0; i < count; i++) {
		int length = snprintf(name, sizeof(name), "%.*s%u", (int)word->length, word->text, (unsigned)i);
		struct ptx_word one = ptx_text_word(name, (size_t)length);
		if (p->regs_left-- == 0)
			ptx_fail(p, "too many variables");
		var->name = ptx_atom(p, &one)->text;
		add_var(p, &one, var);
	}
}

void
ptx_vars(struct ptx_parser *p, struct ptx_decl *decl)
{
	decl_words(p, decl);
	if (ptx_type_bits[decl->type] < 8)
		ptx_fail(p, "a variable of type .%s", ptx_type_names[decl->type]);
	uint32_t item = ptx_type_bits[decl->type] / 8u;
	do {
		struct ptx_word word = ptx_word(p);
		struct ptx_var var = { .space = decl->space, .linkage = decl->linkage, .type = decl->type, .vector = decl->vector,
			.managed = decl->managed, .line = (int)p->line };
		var.align = decl->align ? decl->align : item * decl->vector;
		if (*p->at == '<') {
			var.size = (uint64_t)item * decl->vector;
			add_var_range(p, &word, &var);
			continue;
		}
		var.name = ptx_atom(p, &word)->text;
		struct shape shape = dimensions(p, decl->vector);
		if (ptx_accept(p, '='))
			initialiser(p, &var, &shape);
		var.unsized = shape.unsized;
		var.size = shape.unsized ? 0 : elements(p, &shape, 0) * item;
		add_var(p, &word, &var);
	} while (ptx_accept(p, ','));
	ptx_expect(p, ';');
}

/* ---- registers -------------------------------------------------------------------------------------------------- */

static uint32_t
add_regs(struct ptx_parser *p, const char *name, enum ptx_type type, uint32_t number, uint32_t count)
{
	uint32_t first = p->regs.count, name_index = p->reg_names.count;

	if (count > p->regs_left)
		ptx_fail(p, "'%s': too many registers", name);
	p->regs_left -= count;
	*ptx_push(p, &p->reg_names) = name;
	for (uint32_t i = 0; i < count; i++)
		*ptx_push(p, &p->regs) = (struct ptx_reg){ .type = type, .name = name_index,
			.number = number == PTX_REG_PLAIN ? number : number + i };
	return first;
}

uint32_t
ptx_new_reg(struct ptx_parser *p, const struct ptx_word *word, enum ptx_type type)
{
	return add_regs(p, ptx_atom(p, word)->text, type, PTX_REG_PLAIN, 1);
}

static void
add_named_reg(struct ptx_parser *p, const struct ptx_word *word, const struct ptx_decl *decl)
{
	const char *name = ptx_atom(p, word)->text;

	if (decl->vector > 4)
		ptx_fail(p, "a register of more than 4 elements");
	if (decl->vector == 1) {
		ptx_declare(p, word, PTX_BIND_REG, add_regs(p, name, decl->type, PTX_REG_PLAIN, 1));
		return;
	}
	uint32_t first = add_regs(p, name, decl->type, PTX_REG_X, decl->vector);
	ptx_declare(p, word, PTX_BIND_VECTOR, first)->count = decl->vector;
}

static void
add_reg_range(struct ptx_parser *p, const struct ptx_word *word, const struct ptx_decl *decl)
{
	uint32_t count = (uint32_t)ptx_range_count(p, "the number of registers", PTX_MAX_REGS);
	char name[PTX_MAX_NAME + 16];

	if (decl->vector == 1 && !ptx_is(word->text[word->length - 1], PTX_C_DIGIT)) {
		uint32_t first = add_regs(p, ptx_atom(p, word)->text, decl->type, 0, count);
		ptx_declare_range(p, word, first, count);
		return;
	}
	/* %a1<3> is %a10, %a11, %a12: a name's number does not say where its prefix ends */
	for (uint32_t i = 0; i < count; i++) {
		int length = snprintf(name, sizeof(name), "%.*s%u", (int)word->length, word->text, i);
		struct ptx_word one = ptx_text_word(name, (size_t)length);
		add_named_reg(p, &one, decl);
	}
}

void
ptx_regs(struct ptx_parser *p)
{
	struct ptx_decl decl = { .space = PTX_SPACE_REG };

	decl_words(p, &decl);
	do {
		struct ptx_word word = ptx_word(p);
		if (*p->at == '<')
			add_reg_range(p, &word, &decl);
		else
			add_named_reg(p, &word, &decl);
	} while (ptx_accept(p, ','));
	ptx_expect(p, ';');
}

/* ---- parameters ------------------------------------------------------------------------------------------------- */

static void
one_param(struct ptx_parser *p, struct ptx_param *param, uint32_t index, int bind)
{
	struct ptx_word word = ptx_directive(p);
	struct ptx_decl decl = { 0 };

	if (!ptx_space_word(&word, &decl.space) || (decl.space != PTX_SPACE_PARAM && decl.space != PTX_SPACE_REG))
		ptx_fail(p, "expected .param or .reg, found '.%.*s'", word.length > 40 ? 40 : (int)word.length, word.text);
	decl_words(p, &decl);
	word = ptx_word(p);
	struct shape shape = dimensions(p, decl.vector);
	uint64_t size = shape.unsized ? 0 : elements(p, &shape, 0) * ptx_type_bits[decl.type] / 8;
	if (size > PTX_MAX_PARAM)
		ptx_fail(p, "a parameter of %llu bytes", (unsigned long long)size);
	param->name = ptx_atom(p, &word)->text;
	param->type = decl.type;
	param->size = (uint32_t)size;
	param->is_array = shape.count > (decl.vector > 1);
	param->align = ptx_type_bits[decl.type] / 8u * decl.vector;
	if (decl.align)
		param->align = decl.align;
	if (!param->align)
		param->align = 1;
	param->ptr_space = decl.ptr_space;
	param->in_reg = decl.space == PTX_SPACE_REG;
	if (param->in_reg && (shape.count || decl.vector > 1))
		ptx_fail(p, "register parameter '%s' is no scalar", param->name);
	if (param->in_reg && bind >= 0) {
		param->reg = ptx_new_reg(p, &word, decl.type);
		ptx_declare(p, &word, PTX_BIND_REG, param->reg);
	} else if (bind >= 0) {
		ptx_declare(p, &word, (enum ptx_bind)bind, index);
	}
}

struct ptx_param *
ptx_param_list(struct ptx_parser *p, uint32_t *count, uint32_t *bytes, int bind)
{
	uint64_t offset = 0;

	p->params.count = 0;
	ptx_expect(p, '(');
	while (*p->at != ')') {
		struct ptx_param param = { 0 };
		one_param(p, &param, p->params.count, bind);
		offset = (offset + param.align - 1) & ~((uint64_t)param.align - 1);
		param.offset = (uint32_t)offset;
		offset += param.size;
		if (offset > PTX_MAX_PARAM)
			ptx_fail(p, "more than %llu bytes of parameters", (unsigned long long)PTX_MAX_PARAM);
		*ptx_push(p, &p->params) = param;
		if (!ptx_accept(p, ','))
			break;
	}
	ptx_expect(p, ')');
	*count = p->params.count;
	*bytes = (uint32_t)offset;
	return ptx_keep(p, &p->params);
}
