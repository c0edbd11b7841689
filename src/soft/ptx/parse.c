/*
 * Modules: directives at the top level, function heads, and what is resolved when the whole text has been read.
 */
#include "parser.h"

#include <stdio.h>
#include <stdlib.h>

#define PEEK_BYTES ((size_t)64 << 10)

/* ---- directives that mean nothing to execution ------------------------------------------------------------------ */

/* .loc FILE LINE [COLUMN] [, function_name LABEL [+ N], inlined_at FILE LINE COLUMN] */
void
ptx_loc(struct ptx_parser *p)
{
	struct ptx_loc loc = { 0 };

	loc.file = (uint32_t)ptx_uint(p, "a file number", UINT32_MAX);
	loc.line = (uint32_t)ptx_uint(p, "a line", UINT32_MAX);
	if (ptx_is(*p->at, PTX_C_DIGIT))
		loc.column = (uint32_t)ptx_uint(p, "a column", UINT32_MAX);
	while (ptx_accept(p, ',')) {
		struct ptx_word word = ptx_word(p);
		if (ptx_word_is(&word, "function_name")) {
			ptx_word(p);
			ptx_offset(p);
		} else if (ptx_word_is(&word, "inlined_at")) {
			for (int i = 0; i < 3; i++)
				ptx_number(p);
		} else {
			ptx_fail(p, "'%.*s' after .loc", word.length > 40 ? 40 : (int)word.length, word.text);
		}
	}
	*ptx_push(p, &p->locs) = loc;
	p->loc = p->locs.count;
}

/* .file NUMBER "NAME" [, TIME, SIZE] */
void
ptx_file(struct ptx_parser *p)
{
	struct ptx_file file = { .number = (uint32_t)ptx_uint(p, "a file number", UINT32_MAX) };
	const char *name = p->at + 1;

	ptx_skip_string(p);
	file.name = ptx_copy_text(p, name, strcspn(name, "\"\n"));
	while (ptx_accept(p, ','))
		ptx_expr(p);
	*ptx_push(p, &p->files) = file;
}

void
ptx_pragma(struct ptx_parser *p)
{
	do
		ptx_skip_string(p);
	while (ptx_accept(p, ','));
	ptx_expect(p, ';');
}

/* Debug information. */
void
ptx_section(struct ptx_parser *p)
{
	while (*p->at && *p->at != '{' && *p->at != '}' && *p->at != ';') {
		p->at++;
		ptx_skip(p);
	}
	if (*p->at != '{')
		ptx_fail_token(p, "'{'");
	ptx_skip_block(p);
}

/* ---- the top ---------------------------------------------------------------------------------------------------- */

static uint32_t
digits(struct ptx_parser *p, uint32_t limit)
{
	uint32_t value = 0;

	if (!ptx_is(*p->at, PTX_C_DIGIT))
		ptx_fail_token(p, "a number");
	for (; ptx_is(*p->at, PTX_C_DIGIT); p->at++) {
		value = value * 10 + (uint32_t)(*p->at - '0');
		if (value > limit)
			ptx_fail(p, "a number above %u", limit);
	}
	return value;
}

static void
version(struct ptx_parser *p, uint32_t *number)
{
	*number = digits(p, 99) * 10;
	if (*p->at != '.')
		ptx_fail_token(p, "'.'");
	p->at++;
	*number += digits(p, 9);
	ptx_skip(p);
}

static void
target(struct ptx_parser *p, uint32_t *number, char *suffix, bool *debug)
{
	struct ptx_word word = ptx_word(p);
	const char *digit = word.text + (strncmp(word.text, "compute_", 8) == 0 ? 8 : 3);
	const char *end = word.text + word.length;

	*number = 0;
	*suffix = 0;
	if (digit == word.text + 3 && strncmp(word.text, "sm_", 3) != 0)
		digit = end;
	for (const char *c = digit; c < end && ptx_is(*c, PTX_C_DIGIT) && *number < 1000; digit = ++c)
		*number = *number * 10 + (uint32_t)(*c - '0');
	if (digit == end - 1)
		*suffix = *digit++;
	if (*number == 0 || digit != end)
		ptx_fail(p, "target '%.*s' is not known", word.length > 40 ? 40 : (int)word.length, word.text);
	while (ptx_accept(p, ',')) {
		word = ptx_word(p);
		*debug |= ptx_word_is(&word, "debug");
	}
}

/* ---- functions -------------------------------------------------------------------------------------------------- */

static void
three(struct ptx_parser *p, uint32_t *sizes)
{
	for (int i = 0; i < 3; i++)
		sizes[i] = 1;
	for (int i = 0; i < 3; i++) {
		sizes[i] = (uint32_t)ptx_uint(p, "a size", UINT32_MAX);
		if (i == 2 || !ptx_accept(p, ','))
			break;
	}
}

/* Directives that are not known are skipped with their numbers: they only advise. */
void
ptx_func_directives(struct ptx_parser *p, struct ptx_func *f)
{
	struct ptx_decl decl = { 0 };
	const struct { const char *name; uint32_t *sizes; } sizes[] = {
		{ "maxntid", f->maxntid }, { "reqntid", f->reqntid }, { "reqnctapercluster", f->reqnctapercluster },
	};
	const struct { const char *name; uint32_t *value; } numbers[] = {
		{ "maxnreg", &f->maxnreg }, { "minnctapersm", &f->minnctapersm }, { "maxnctapersm", &f->maxnctapersm },
		{ "maxclusterrank", &f->maxclusterrank },
	};
	const struct { const char *name; bool *flag; } flags[] = {
		{ "noreturn", &f->noreturn }, { "explicitcluster", &f->explicitcluster },
		{ "blocksareclusters", &f->blocksareclusters },
	};
	while (*p->at == '.') {
		struct ptx_word word = ptx_directive(p);
		bool done = false;
		for (size_t i = 0; i < 3; i++) {
			if (ptx_word_is(&word, sizes[i].name))
				three(p, sizes[i].sizes);
			else if (ptx_word_is(&word, flags[i].name))
				*flags[i].flag = true;
			else
				continue;
			done = true;
		}
		for (size_t i = 0; i < 4; i++)
			if (ptx_word_is(&word, numbers[i].name)) {
				*numbers[i].value = (uint32_t)ptx_uint(p, "a limit", UINT32_MAX);
				done = true;
			}
		if (done)
			continue;
		if (ptx_word_is(&word, "pragma")) {
			ptx_pragma(p);
		} else if (ptx_word_is(&word, "attribute")) {
			ptx_attributes(p, &decl);
		} else if (ptx_word_is(&word, "loc")) {
			ptx_loc(p);
		} else if (ptx_is(*p->at, PTX_C_DIGIT)) {
			do
				ptx_expr(p);
			while (ptx_accept(p, ','));
		}
	}
}

/* The name stands after the return parameters but is declared before them. */
static uint32_t
func_name(struct ptx_parser *p, const struct ptx_func *f)
{
	const char *start = p->at;
	uint32_t line = p->line, depth = 0;

	if (*p->at == '(')
		do {
			if (*p->at == 0)
				ptx_fail_token(p, "')'");
			depth += *p->at == '(';
			depth -= *p->at == ')';
			p->at++;
			ptx_skip(p);
		} while (depth);
	struct ptx_word word = ptx_word(p);
	struct ptx_binding *b = ptx_atom(p, &word)->binding;
	if (!b || b->kind != PTX_BIND_FUNC) {
		b = ptx_declare(p, &word, PTX_BIND_FUNC, p->funcs.count);
		struct ptx_func *made = ptx_push(p, &p->funcs);
		*made = *f;
		made->name = b->atom->text;
		made->index = b->index;
	}
	p->at = start;
	p->line = line;
	return b->index;
}

static void
start_function(struct ptx_parser *p)
{
	p->regs.count = p->reg_names.count = p->locals.count = p->labels.count = 0;
	p->targets.count = p->insns.count = p->stack.count = p->pending_labels.count = 0;
	p->loc = 0;
	ptx_scope_enter(p);
}

static void
keep_function(struct ptx_parser *p, struct ptx_func *f)
{
	f->regs = ptx_keep(p, &p->regs);
	f->reg_count = p->regs.count;
	f->reg_names = ptx_keep(p, &p->reg_names);
	f->locals = ptx_keep(p, &p->locals);
	f->local_count = p->locals.count;
	f->labels = ptx_keep(p, &p->labels);
	f->label_count = p->labels.count;
	f->targets = ptx_keep(p, &p->targets);
	f->target_count = p->targets.count;
	f->insns = ptx_keep(p, &p->insns);
	f->insn_count = p->insns.count;
}

/* A function may be declared any number of times and defined once. */
static void
merge_function(struct ptx_parser *p, const struct ptx_func *f)
{
	struct ptx_func *old = &p->funcs.items[f->index];

	if (old->entry != f->entry)
		ptx_fail(p, "'%s' is declared as .entry and as .func", f->name);
	if (!f->has_body && (old->has_body || old->params || old->returns))
		return;
	if (f->has_body && old->has_body)
		ptx_fail(p, "'%s' is defined twice", f->name);
	enum ptx_linkage before = old->linkage;
	*old = *f;
	if (f->has_body && f->linkage == PTX_LINK_NONE && before != PTX_LINK_EXTERN)
		old->linkage = before;
}

static void
function(struct ptx_parser *p, enum ptx_linkage linkage, bool entry)
{
	struct ptx_func f = { .entry = entry, .linkage = linkage, .line = (int)p->line, .module = p->module };
	uint32_t bytes;

	ptx_func_directives(p, &f);
	f.index = func_name(p, &f);
	f.name = p->funcs.items[f.index].name;
	start_function(p);
	if (*p->at == '(')
		f.returns = ptx_param_list(p, &f.return_count, &bytes, PTX_BIND_RETURN);
	ptx_word(p);
	if (*p->at == '(')
		f.params = ptx_param_list(p, &f.param_count, &f.param_bytes, PTX_BIND_PARAM);
	ptx_func_directives(p, &f);
	if (*p->at == '{')
		ptx_body(p, &f);
	else if (!ptx_accept(p, ';'))
		ptx_fail_token(p, "'{' or ';'");
	ptx_scope_leave(p);
	if (f.has_body)
		keep_function(p, &f);
	merge_function(p, &f);
}

/* .alias NAME, FUNCTION; */
static void
alias(struct ptx_parser *p)
{
	struct ptx_word name = ptx_word(p);
	struct ptx_binding *b = ptx_atom(p, &name)->binding;

	if (!b || b->kind != PTX_BIND_FUNC)
		ptx_fail(p, "alias '%.*s' is not declared as a function", name.length > 200 ? 200 : (int)name.length, name.text);
	ptx_expect(p, ',');
	struct ptx_word of = ptx_word(p);
	struct ptx_binding *aliasee = ptx_atom(p, &of)->binding;
	if (!aliasee || aliasee->kind != PTX_BIND_FUNC || aliasee == b)
		ptx_fail(p, "aliasee '%.*s' is not a function", of.length > 200 ? 200 : (int)of.length, of.text);
	if (p->funcs.items[b->index].has_body)
		ptx_fail(p, "alias '%s' has a body of its own", b->atom->text);
	p->funcs.items[b->index].alias_of = aliasee->atom->text;
	ptx_expect(p, ';');
}

/* ---- the module ------------------------------------------------------------------------------------------------- */

static void
declaration(struct ptx_parser *p, struct ptx_word word)
{
	struct ptx_decl decl = { 0 };

	if (!p->have_target)
		ptx_fail(p, "'.%.*s' before .target", word.length > 40 ? 40 : (int)word.length, word.text);
	while (ptx_linkage_word(&word, &decl.linkage))
		word = ptx_directive(p);
	if (ptx_word_is(&word, "entry") || ptx_word_is(&word, "func")) {
		function(p, decl.linkage, *word.text == 'e');
	} else if (ptx_space_word(&word, &decl.space) && decl.space != PTX_SPACE_REG && decl.space != PTX_SPACE_PARAM) {
		if (decl.space == PTX_SPACE_CONST && ptx_accept(p, '[')) { /* bank of PTX before 2.2 */
			ptx_expr(p);
			ptx_expect(p, ']');
		}
		ptx_vars(p, &decl);
	} else {
		ptx_fail(p, "directive '.%.*s' is not known here", word.length > 40 ? 40 : (int)word.length, word.text);
	}
}

static void
top_level(struct ptx_parser *p)
{
	struct ptx_module *m = p->module;

	if (ptx_accept(p, ';'))
		return;
	if (p->at[0] == '@' && p->at[1] == '@') { /* debug information of PTX before 2.0, a line each */
		p->at += strcspn(p->at, "\n");
		ptx_skip(p);
		return;
	}
	struct ptx_word word = ptx_directive(p);
	if (!p->have_version && !ptx_word_is(&word, "version"))
		ptx_fail(p, "'.%.*s' before .version", word.length > 40 ? 40 : (int)word.length, word.text);
	if (ptx_word_is(&word, "version")) {
		version(p, &m->version);
		p->have_version = true;
	} else if (ptx_word_is(&word, "target")) {
		target(p, &m->target, &m->target_suffix, &m->debug);
		p->have_target = true;
	} else if (ptx_word_is(&word, "address_size")) {
		m->address_size = (uint32_t)ptx_uint(p, "the address size", 64);
		if (m->address_size != 32 && m->address_size != 64)
			ptx_fail(p, "address size %u", m->address_size);
	} else if (ptx_word_is(&word, "file")) {
		ptx_file(p);
	} else if (ptx_word_is(&word, "loc")) {
		ptx_loc(p);
	} else if (ptx_word_is(&word, "section")) {
		ptx_section(p);
	} else if (ptx_word_is(&word, "pragma")) {
		ptx_pragma(p);
	} else if (ptx_word_is(&word, "alias")) {
		alias(p);
	} else {
		declaration(p, word);
	}
}

static struct ptx_binding *
find_global(struct ptx_parser *p, const char *name)
{
	struct ptx_word word = ptx_text_word(name, strlen(name));

	return ptx_atom(p, &word)->binding;
}

static void
resolve_symbols(struct ptx_parser *p)
{
	for (uint32_t i = 0; i < p->pending_symbols.count; i++) {
		struct ptx_pending_symbol *use = &p->pending_symbols.items[i];
		struct ptx_binding *b = use->atom->binding;
		if (!b) {
			p->line = use->line;
			ptx_fail(p, "'%s' is not declared", use->atom->text);
		}
		use->operand->symbol_kind = b->kind == PTX_BIND_FUNC ? PTX_SYM_FUNC : PTX_SYM_MODULE_VAR;
		use->operand->symbol = b->index;
	}
}

static void
check_relocs(struct ptx_parser *p, const struct ptx_var *vars, uint32_t count)
{
	for (uint32_t v = 0; v < count; v++)
		for (uint32_t i = 0; i < vars[v].reloc_count; i++)
			if (!find_global(p, vars[v].relocs[i].symbol)) {
				p->line = (uint32_t)vars[v].relocs[i].line;
				ptx_fail(p, "'%s', in the value of '%s', is not declared", vars[v].relocs[i].symbol, vars[v].name);
			}
}

static void
whole_text(struct ptx_parser *p)
{
	struct ptx_module *m = p->module;

	ptx_skip(p);
	while (*p->at)
		top_level(p);
	if (!p->have_version || !p->have_target)
		ptx_fail(p, "no .%s: this is not PTX", p->have_version ? "target" : "version");
	resolve_symbols(p);
	check_relocs(p, p->vars.items, p->vars.count);
	m->vars = ptx_keep(p, &p->vars);
	m->var_count = p->vars.count;
	m->funcs = ptx_keep(p, &p->funcs);
	m->func_count = p->funcs.count;
	m->locs = ptx_keep(p, &p->locs);
	m->loc_count = p->locs.count;
	m->files = ptx_keep(p, &p->files);
	m->file_count = p->files.count;
	for (uint32_t i = 0; i < m->func_count; i++)
		check_relocs(p, m->funcs[i].locals, m->funcs[i].local_count);
}

static void
end_parser(struct ptx_parser *p)
{
	fw_arena_free(&p->scratch);
	free(p->slots);
	free(p->vars.items);
	free(p->funcs.items);
	free(p->locs.items);
	free(p->files.items);
	free(p->regs.items);
	free(p->reg_names.items);
	free(p->locals.items);
	free(p->labels.items);
	free(p->targets.items);
	free(p->insns.items);
	free(p->stack.items);
	free(p->pending_labels.items);
	free(p->pending_symbols.items);
	free(p->relocs.items);
	free(p->bytes.items);
	free(p->params.items);
	free(p);
}

static struct ptx_module *
run(const char *text, size_t size, struct ptx_error *error)
{
	struct ptx_parser *p = calloc(1, sizeof(*p));
	struct ptx_module *module = calloc(1, sizeof(*module));

	if (!p || !module) {
		*error = (struct ptx_error){ .text = "out of memory" };
		free(p);
		free(module);
		return NULL;
	}
	p->at = text;
	p->line = 1;
	p->error = error;
	p->module = module;
	p->regs_left = PTX_MAX_REGS + size;
	p->init_left = PTX_MAX_INIT;
	module->address_size = 64;
	module->arena.cap = PTX_MAX_MEMORY;
	p->scratch.cap = PTX_MAX_MEMORY;
	bool failed = setjmp(p->fail) != 0;
	if (!failed)
		whole_text(p);
	else
		ptx_free(p->module);
	module = failed ? NULL : p->module;
	end_parser(p);
	return module;
}

struct ptx_module *
ptx_parse(const char *text, size_t size, struct ptx_error *error)
{
	*error = (struct ptx_error){ 0 };
	if (size > PTX_MAX_TEXT) {
		snprintf(error->text, sizeof(error->text), "a text of more than %zu bytes", PTX_MAX_TEXT);
		return NULL;
	}
	size_t length = strnlen(text, size);
	if (length < size)
		return run(text, length, error);
	char *copy = malloc(length + 1); /* the parser needs a NUL at the end */
	if (!copy) {
		*error = (struct ptx_error){ .text = "out of memory" };
		return NULL;
	}
	memcpy(copy, text, length);
	copy[length] = 0;
	struct ptx_module *module = run(copy, length, error);
	free(copy);
	return module;
}

void
ptx_free(struct ptx_module *module)
{
	if (!module)
		return;
	fw_arena_free(&module->arena);
	free(module);
}

static void
peek(struct ptx_parser *p, uint32_t *number, uint32_t *of, char *suffix)
{
	bool debug = false;

	ptx_skip(p);
	struct ptx_word word = ptx_directive(p);
	if (!ptx_word_is(&word, "version"))
		ptx_fail_token(p, ".version");
	version(p, number);
	while (word = ptx_directive(p), !ptx_word_is(&word, "target"))
		if (ptx_word_is(&word, "address_size"))
			ptx_number(p);
		else
			ptx_fail_token(p, ".target");
	target(p, of, suffix, &debug);
}

int
ptx_peek(const char *text, size_t size, uint32_t *number, uint32_t *of, char *suffix)
{
	struct ptx_error error;
	size_t length = strnlen(text, size < PEEK_BYTES ? size : PEEK_BYTES);
	struct ptx_parser *p = calloc(1, sizeof(*p));
	char *copy = malloc(length + 1);
	uint32_t found[2] = { 0 };
	char letter = 0;
	int result = -1;

	if (p && copy) {
		memcpy(copy, text, length);
		copy[length] = 0;
		p->at = copy;
		p->error = &error;
		if (!setjmp(p->fail)) {
			peek(p, &found[0], &found[1], &letter);
			*number = found[0];
			*of = found[1];
			*suffix = letter;
			result = 0;
		}
	}
	free(copy);
	free(p);
	return result;
}
