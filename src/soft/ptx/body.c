/*
 * Function bodies: blocks, labels, instructions and their operands. Instructions are not judged, only their names resolved.
 */
#include "parser.h"

static struct ptx_operand operand(struct ptx_parser *p, const struct ptx_form *form);

static bool
at_name(const struct ptx_parser *p)
{
	if (!ptx_is(*p->at, PTX_C_START))
		return false;
	return *p->at != 'W' || strncmp(p->at, "WARP_SZ", 7) != 0 || ptx_is(p->at[7], PTX_C_IDENT);
}

/* ---- operands --------------------------------------------------------------------------------------------------- */

/* 1..4 for .x .y .z .w or .r .g .b .a at `at`. */
static uint8_t
xyzw(struct ptx_parser *p)
{
	struct ptx_word word = ptx_directive(p);
	static const char names[] = "xyzwrgba";
	const char *found = word.length == 1 ? strchr(names, *word.text) : NULL;

	if (!found)
		ptx_fail(p, "'.%.*s' is no component", word.length > 40 ? 40 : (int)word.length, word.text);
	return (uint8_t)((found - names) % 4 + 1);
}

/* The selector of a video operand: .b2, .h1, .b7654 */
static void
selector(struct ptx_parser *p, struct ptx_operand *o)
{
	struct ptx_word word = ptx_directive(p);

	o->component = (uint8_t)*word.text;
	bool good = (*word.text == 'b' || *word.text == 'h') && word.length >= 2 && word.length <= 5;
	for (uint32_t i = 1; good && i < word.length; i++) {
		good = ptx_is(word.text[i], PTX_C_DIGIT) && word.text[i] <= '7';
		o->imm = o->imm << 4 | (word.text[i] - '0');
		o->count++;
	}
	if (!good)
		ptx_fail(p, "'.%.*s' is no selector", word.length > 40 ? 40 : (int)word.length, word.text);
}

static void
vector_register(struct ptx_parser *p, struct ptx_operand *o, const struct ptx_binding *b)
{
	if (*p->at == '.') {
		uint32_t component = xyzw(p) - 1u;
		if (component >= b->count)
			ptx_fail(p, "'%s' has %u components", b->atom->text, b->count);
		o->reg = b->index + component;
		return;
	}
	o->kind = PTX_OP_VECTOR;
	o->count = b->count;
	o->elems = ptx_alloc(p, b->count * sizeof(*o->elems));
	for (uint32_t i = 0; i < b->count; i++)
		o->elems[i] = (struct ptx_operand){ .kind = PTX_OP_REG, .reg = b->index + i };
}

static void
symbol(struct ptx_parser *p, struct ptx_operand *o, struct ptx_atom *atom, const struct ptx_binding *b)
{
	static const uint8_t kinds[] = {
		[PTX_BIND_VAR] = PTX_SYM_MODULE_VAR, [PTX_BIND_LOCAL] = PTX_SYM_LOCAL_VAR, [PTX_BIND_PARAM] = PTX_SYM_PARAM,
		[PTX_BIND_RETURN] = PTX_SYM_RETURN_PARAM, [PTX_BIND_FUNC] = PTX_SYM_FUNC,
	};
	o->kind = PTX_OP_SYMBOL;
	o->name = atom->text;
	o->symbol_kind = PTX_SYM_UNRESOLVED;
	if (!b) {
		p->insn_pending = true; /* perhaps the module declares it further down */
		return;
	}
	o->symbol_kind = kinds[b->kind];
	o->symbol = b->index;
	if (*p->at == '[' && (b->kind == PTX_BIND_VAR || b->kind == PTX_BIND_LOCAL)) {
		const struct ptx_var *var = b->kind == PTX_BIND_VAR ? &p->vars.items[b->index] : &p->locals.items[b->index];
		uint32_t item = ptx_type_bits[var->type] / 8u * var->vector;
		ptx_expect(p, '[');
		o->imm = (int64_t)(ptx_uint(p, "the index", PTX_MAX_VAR) * item);
		ptx_expect(p, ']');
	}
}

/* A name in an operand: REG, SPECIAL, VECTOR, SYMBOL without its offset, TARGETS or SINK. */
static struct ptx_operand
named(struct ptx_parser *p)
{
	struct ptx_operand o = { .kind = PTX_OP_REG };
	struct ptx_word word = ptx_word(p);
	struct ptx_atom *atom;
	uint32_t number;
	struct ptx_binding *b = ptx_lookup(p, &word, &number, &atom);

	if (!b && word.length == 1 && *word.text == '_') {
		o.kind = PTX_OP_SINK;
	} else if (!b && atom->special) {
		o.kind = PTX_OP_SPECIAL;
		o.special = (uint8_t)(atom->special - 1);
		o.imm = atom->special_number;
		if (*p->at == '.')
			o.component = xyzw(p);
	} else if (!b && *word.text == '%') {
		ptx_fail(p, "register '%.*s' is not declared", word.length > 200 ? 200 : (int)word.length, word.text);
	} else if (b && (b->kind == PTX_BIND_REG || b->kind == PTX_BIND_RANGE)) {
		o.reg = b->index + (b->kind == PTX_BIND_RANGE ? number : 0);
		if (*p->at == '.')
			selector(p, &o);
	} else if (b && b->kind == PTX_BIND_VECTOR) {
		vector_register(p, &o, b);
	} else if (b && b->kind == PTX_BIND_TARGETS) {
		o.kind = PTX_OP_TARGETS;
		o.name = atom->text;
		o.symbol = b->index;
	} else {
		symbol(p, &o, atom, b);
	}
	return o;
}

/* Elements to the closing character, which is taken too. */
static void
operand_list(struct ptx_parser *p, struct ptx_operand *o, char close)
{
	uint32_t base = p->stack.count;

	if (++p->depth > PTX_MAX_DEPTH)
		ptx_fail(p, "operands nested deeper than %d", PTX_MAX_DEPTH);
	if (*p->at != close)
		do {
			struct ptx_operand elem = operand(p, NULL);
			*ptx_push(p, &p->stack) = elem;
		} while (ptx_accept(p, ','));
	ptx_expect(p, close);
	p->depth--;
	o->count = p->stack.count - base;
	o->elems = o->count ? ptx_copy(p, &p->stack.items[base], o->count * sizeof(*o->elems)) : NULL;
	p->stack.count = base;
}

static struct ptx_operand
address(struct ptx_parser *p)
{
	struct ptx_operand o = { 0 };

	ptx_expect(p, '[');
	if (at_name(p)) {
		o = named(p);
		if (o.kind == PTX_OP_REG && !o.component)
			o.base_is_reg = 1;
		else if (o.kind != PTX_OP_SYMBOL)
			ptx_fail(p, "an address that is neither a register nor a variable");
		o.imm += ptx_offset(p);
	} else {
		struct ptx_value v = ptx_expr(p);
		if (v.is_float)
			ptx_fail(p, "a floating-point address");
		o.imm = v.bits;
	}
	o.kind = PTX_OP_ADDRESS;
	if (ptx_accept(p, ','))
		operand_list(p, &o, ']');
	else
		ptx_expect(p, ']');
	return o;
}

static struct ptx_operand
label_use(struct ptx_parser *p)
{
	struct ptx_word word = ptx_word(p);

	p->insn_pending = true;
	return (struct ptx_operand){ .kind = PTX_OP_LABEL, .name = ptx_atom(p, &word)->text };
}

static struct ptx_operand
named_operand(struct ptx_parser *p, const struct ptx_form *form)
{
	if (form && form->is_bra)
		return label_use(p);
	struct ptx_operand o = named(p);
	if (o.kind == PTX_OP_SYMBOL) {
		o.imm += ptx_offset(p);
		if (form && form->takes_address)
			o.kind = PTX_OP_ADDRESS;
	}
	if (*p->at == '|' && (o.kind == PTX_OP_REG || o.kind == PTX_OP_SINK)) {
		ptx_expect(p, '|');
		struct ptx_operand second = named(p);
		if (second.kind != PTX_OP_REG && second.kind != PTX_OP_SINK)
			ptx_fail(p, "the second destination is no register");
		o.second = ptx_copy(p, &second, sizeof(second));
	}
	return o;
}

static struct ptx_operand
constant(struct ptx_parser *p)
{
	struct ptx_value v = ptx_expr(p);

	return (struct ptx_operand){ .kind = v.is_float ? PTX_OP_FLOAT : PTX_OP_IMM, .is_f32 = v.is_f32, .imm = v.bits };
}

/* `form`: of the instruction, NULL inside braces, brackets and lists. */
static struct ptx_operand
operand(struct ptx_parser *p, const struct ptx_form *form)
{
	struct ptx_operand o = { 0 };

	switch (*p->at) {
	case '[':
		return address(p);
	case '{':
		ptx_expect(p, '{');
		o.kind = PTX_OP_VECTOR;
		operand_list(p, &o, '}');
		return o;
	case '(':
		if (!form || !form->is_call)
			return constant(p);
		ptx_expect(p, '(');
		o.kind = PTX_OP_LIST;
		operand_list(p, &o, ')');
		return o;
	case '!':
	case '-': {
		const char *start = p->at;
		uint32_t line = p->line;
		ptx_expect(p, *start);
		if (at_name(p)) {
			o = named(p);
			if (o.kind != PTX_OP_REG)
				ptx_fail(p, "'%c' before something that is no register", *start);
			o.negate = 1;
			return o;
		}
		p->at = start;
		p->line = line;
		return constant(p);
	}
	default:
		return at_name(p) ? named_operand(p, form) : constant(p);
	}
}

/* ---- instructions ----------------------------------------------------------------------------------------------- */

/* Notes where labels and symbols that are not known yet are to be filled in, now that the operands have their final place. */
static void
note_pending(struct ptx_parser *p, struct ptx_operand *operands, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct ptx_operand *o = &operands[i];
		if (o->kind == PTX_OP_LABEL || (o->name && o->symbol_kind == PTX_SYM_UNRESOLVED)) {
			struct ptx_word word = ptx_text_word(o->name, strlen(o->name));
			struct ptx_atom *atom = ptx_atom(p, &word);
			if (o->kind == PTX_OP_LABEL)
				*ptx_push(p, &p->pending_labels) = (struct ptx_pending_label){ &o->symbol, atom, p->line };
			else
				*ptx_push(p, &p->pending_symbols) = (struct ptx_pending_symbol){ o, atom, p->line };
		}
		note_pending(p, o->elems, o->count && o->elems ? o->count : 0);
	}
}

static void
instruction(struct ptx_parser *p, bool guarded, bool guard_negated, uint32_t guard)
{
	uint32_t line = p->line, base = p->stack.count;
	const struct ptx_form *form = ptx_form(p);

	p->insn_pending = false;
	if (*p->at != ';')
		do {
			struct ptx_operand o = operand(p, form);
			*ptx_push(p, &p->stack) = o;
			if (p->stack.count - base > PTX_MAX_OPERANDS)
				ptx_fail(p, "an instruction with more than %d operands", PTX_MAX_OPERANDS);
		} while (ptx_accept(p, ','));
	if (*p->at != ';')
		ptx_fail_token(p, "';'");
	uint32_t count = p->stack.count - base;
	struct ptx_insn *in = ptx_push(p, &p->insns);
	in->op = form->op;
	in->mods = form->mods;
	in->mod_count = form->mod_count;
	in->type_count = form->type_count;
	memcpy(in->types, form->types, sizeof(in->types));
	in->operand_count = (uint8_t)count;
	in->guarded = guarded;
	in->guard_negated = guard_negated;
	in->guard = guard;
	in->line = line;
	in->loc = p->loc;
	in->operands = count ? ptx_copy(p, &p->stack.items[base], count * sizeof(*in->operands)) : NULL;
	p->stack.count = base;
	if (p->insn_pending)
		note_pending(p, in->operands, count);
	ptx_expect(p, ';');
}

static void
guarded_instruction(struct ptx_parser *p)
{
	ptx_expect(p, '@');
	bool negated = ptx_accept(p, '!');
	struct ptx_operand o = named(p);

	if (o.kind != PTX_OP_REG || o.component || p->regs.items[o.reg].type != PTX_pred)
		ptx_fail(p, "the guard is no predicate");
	instruction(p, true, negated, o.reg);
}

/* ---- labels and what carries one -------------------------------------------------------------------------------- */

static void
prototype(struct ptx_parser *p, struct ptx_targets *t)
{
	uint32_t bytes;
	struct ptx_func ignored = { 0 };

	if (*p->at == '(')
		t->returns = ptx_param_list(p, &t->return_count, &bytes, -1);
	ptx_word(p);
	if (*p->at == '(')
		t->params = ptx_param_list(p, &t->param_count, &bytes, -1);
	ptx_func_directives(p, &ignored);
}

static void
target_names(struct ptx_parser *p, struct ptx_targets *t)
{
	/* counted first, so that the lists can be the module's */
	const char *start = p->at;
	uint32_t line = p->line, count = 0;
	do {
		ptx_word(p);
		count++;
	} while (ptx_accept(p, ','));
	p->at = start;
	p->line = line;
	t->names = ptx_alloc(p, count * sizeof(*t->names));
	if (t->kind == PTX_BRANCH_TARGETS)
		t->labels = ptx_alloc(p, count * sizeof(*t->labels));
	for (t->count = 0; t->count < count; t->count++) {
		struct ptx_word word = ptx_word(p);
		struct ptx_atom *atom = ptx_atom(p, &word);
		t->names[t->count] = atom->text;
		if (t->labels)
			*ptx_push(p, &p->pending_labels) = (struct ptx_pending_label){ &t->labels[t->count], atom, p->line };
		ptx_accept(p, ',');
	}
}

static bool
at_directive(const struct ptx_parser *p, const char *name)
{
	size_t length = strlen(name);

	return *p->at == '.' && strncmp(p->at + 1, name, length) == 0 && !ptx_is(p->at[1 + length], PTX_C_IDENT);
}

static void
label(struct ptx_parser *p)
{
	struct ptx_word word = ptx_word(p);
	struct ptx_targets t = { .name = ptx_atom(p, &word)->text };

	ptx_expect(p, ':');
	if (at_directive(p, "branchtargets")) {
		t.kind = PTX_BRANCH_TARGETS;
	} else if (at_directive(p, "calltargets")) {
		t.kind = PTX_CALL_TARGETS;
	} else if (at_directive(p, "callprototype")) {
		t.kind = PTX_CALL_PROTOTYPE;
	} else {
		ptx_declare_label(p, &word, p->labels.count);
		*ptx_push(p, &p->labels) = (struct ptx_label){ .name = t.name, .insn = p->insns.count };
		return;
	}
	ptx_directive(p);
	if (t.kind == PTX_CALL_PROTOTYPE)
		prototype(p, &t);
	else
		target_names(p, &t);
	ptx_expect(p, ';');
	ptx_declare(p, &word, PTX_BIND_TARGETS, p->targets.count);
	*ptx_push(p, &p->targets) = t;
}

/* "name :" and not "opcode.mod" or "opcode operand" */
static bool
at_label(const struct ptx_parser *p)
{
	const char *at = p->at;

	while (ptx_is(*at, PTX_C_IDENT | PTX_C_START))
		at++;
	while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
		at++;
	return *at == ':' && at[1] != ':';
}

/* ---- statements ------------------------------------------------------------------------------------------------- */

static void
directive(struct ptx_parser *p)
{
	struct ptx_decl decl = { 0 };
	struct ptx_word word = ptx_directive(p);

	if (ptx_word_is(&word, "loc")) {
		ptx_loc(p);
	} else if (ptx_word_is(&word, "reg")) {
		ptx_regs(p);
	} else if (ptx_word_is(&word, "pragma")) {
		ptx_pragma(p);
	} else if (ptx_word_is(&word, "file")) {
		ptx_file(p);
	} else if (ptx_word_is(&word, "section")) {
		ptx_section(p);
	} else {
		while (ptx_linkage_word(&word, &decl.linkage))
			word = ptx_directive(p);
		if (!ptx_space_word(&word, &decl.space) || decl.space == PTX_SPACE_REG)
			ptx_fail(p, "'.%.*s' in a function", word.length > 40 ? 40 : (int)word.length, word.text);
		ptx_vars(p, &decl);
	}
}

static void
statement(struct ptx_parser *p)
{
	switch (*p->at) {
	case '.':
		directive(p);
		break;
	case '@':
		guarded_instruction(p);
		break;
	case '{':
		ptx_scope_enter(p);
		ptx_expect(p, '{');
		break;
	case '}':
		if (p->scope > 1)
			ptx_scope_leave(p);
		ptx_expect(p, '}');
		break;
	case ';':
		ptx_expect(p, ';');
		break;
	default:
		if (at_label(p))
			label(p);
		else
			instruction(p, false, false, 0);
	}
}

void
ptx_body(struct ptx_parser *p, struct ptx_func *func)
{
	uint32_t line = p->line;

	ptx_expect(p, '{');
	while (p->scope > 1 || *p->at != '}') {
		if (*p->at == 0) {
			p->line = line;
			ptx_fail(p, "the body of '%s' has no end", func->name);
		}
		statement(p);
	}
	ptx_expect(p, '}');
	func->has_body = true;
}
