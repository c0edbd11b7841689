/*
 * Names: one atom for each distinct name of a module, and scopes that say what it means. Also the cache of opcodes with
 * their modifiers, found by the hash of their text.
 */
#include "parser.h"

#include <stdlib.h>

#define FIRST_SLOTS 1024u /* powers of two */
#define FIRST_FORMS 512u

/* ---- atoms ------------------------------------------------------------------------------------------------------ */

static struct ptx_slot *
slot_of(struct ptx_parser *p, const char *text, uint32_t length, uint32_t hash)
{
	uint32_t mask = p->slot_count - 1;

	for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
		struct ptx_slot *slot = &p->slots[i];
		if (!slot->atom ||
		    (slot->hash == hash && slot->atom->length == length && memcmp(slot->atom->text, text, length) == 0))
			return slot;
	}
}

static void
grow_slots(struct ptx_parser *p)
{
	uint32_t old = p->slot_count, count = old ? old * 2 : FIRST_SLOTS;
	struct ptx_slot *slots = old > UINT32_MAX / 4 ? NULL : calloc(count, sizeof(*slots));

	if (!slots)
		ptx_fail(p, "out of memory");
	for (uint32_t i = 0; i < old; i++) {
		if (!p->slots[i].atom)
			continue;
		uint32_t at = p->slots[i].hash & (count - 1);
		while (slots[at].atom)
			at = (at + 1) & (count - 1);
		slots[at] = p->slots[i];
	}
	free(p->slots);
	p->slots = slots;
	p->slot_count = count;
}

static struct ptx_atom *
make_atom(struct ptx_parser *p, const char *text, uint32_t length, uint32_t hash)
{
	if (p->slot_used * 2 >= p->slot_count)
		grow_slots(p);
	struct ptx_slot *slot = slot_of(p, text, length, hash);
	if (slot->atom)
		return slot->atom;
	struct ptx_atom *atom = fw_arena_alloc(&p->scratch, sizeof(*atom));
	if (!atom)
		ptx_fail(p, "out of memory");
	atom->text = ptx_copy_text(p, text, length);
	atom->length = length;
	if (*text == '%')
		ptx_special_find(atom);
	*slot = (struct ptx_slot){ hash, atom };
	p->slot_used++;
	return atom;
}

struct ptx_atom *
ptx_atom(struct ptx_parser *p, const struct ptx_word *word)
{
	return make_atom(p, word->text, word->length, word->hash);
}

static struct ptx_atom *
find_prefix(struct ptx_parser *p, const struct ptx_word *word)
{
	if (!word->prefix_length || !p->slot_count)
		return NULL;
	return slot_of(p, word->text, word->prefix_length, word->prefix_hash)->atom;
}

/* ---- bindings --------------------------------------------------------------------------------------------------- */

static struct ptx_binding *
new_binding(struct ptx_parser *p, enum ptx_bind kind, struct ptx_atom *atom, uint32_t index)
{
	struct ptx_binding *b = p->free_bindings;
	struct ptx_scope *scope = &p->scopes[p->scope];

	if (b)
		p->free_bindings = b->next;
	else if (!(b = fw_arena_alloc(&p->scratch, sizeof(*b))))
		ptx_fail(p, "out of memory");
	*b = (struct ptx_binding){ .kind = (uint8_t)kind, .depth = p->scope, .index = index, .count = 1, .atom = atom,
		.next = scope->bindings };
	scope->bindings = b;
	return b;
}

static struct ptx_binding *
range_over(const struct ptx_atom *prefix, uint32_t number)
{
	struct ptx_binding *range = prefix ? prefix->range : NULL;

	while (range && number >= range->count)
		range = range->shadowed;
	return range;
}

struct ptx_binding *
ptx_declare(struct ptx_parser *p, const struct ptx_word *word, enum ptx_bind kind, uint32_t index)
{
	struct ptx_atom *atom = ptx_atom(p, word);

	if (word->prefix_length) {
		struct ptx_atom *prefix = make_atom(p, word->text, word->prefix_length, word->prefix_hash);
		struct ptx_binding *range = range_over(prefix, word->number);
		if (range && range->depth == p->scope)
			ptx_fail(p, "'%s' is declared twice", atom->text);
		prefix->numbered = true;
	}
	if (atom->binding && atom->binding->depth == p->scope)
		ptx_fail(p, "'%s' is declared twice", atom->text);
	struct ptx_binding *b = new_binding(p, kind, atom, index);
	b->shadowed = atom->binding;
	atom->binding = b;
	return b;
}

void
ptx_declare_range(struct ptx_parser *p, const struct ptx_word *word, uint32_t index, uint32_t count)
{
	struct ptx_atom *atom = ptx_atom(p, word);

	if (atom->range && atom->range->depth == p->scope)
		ptx_fail(p, "'%s<...>' is declared twice", atom->text);
	struct ptx_binding *b = new_binding(p, PTX_BIND_RANGE, atom, index);
	b->count = count;
	b->shadowed = atom->range;
	atom->range = b;
}

struct ptx_binding *
ptx_declare_label(struct ptx_parser *p, const struct ptx_word *word, uint32_t index)
{
	struct ptx_atom *atom = ptx_atom(p, word);

	if (atom->label && atom->label->depth == p->scope)
		ptx_fail(p, "label '%s' is defined twice", atom->text);
	struct ptx_binding *b = new_binding(p, PTX_BIND_LABEL, atom, index);
	b->shadowed = atom->label;
	atom->label = b;
	return b;
}

struct ptx_binding *
ptx_lookup(struct ptx_parser *p, const struct ptx_word *word, uint32_t *number, struct ptx_atom **atom)
{
	struct ptx_atom *prefix = find_prefix(p, word);
	struct ptx_binding *range = range_over(prefix, word->number);

	*atom = NULL;
	*number = word->number;
	if (range && !prefix->numbered)
		return range;
	*atom = ptx_atom(p, word);
	struct ptx_binding *b = (*atom)->binding;
	if (range && (!b || range->depth > b->depth))
		return range;
	*number = 0;
	return b;
}

/* ---- scopes ----------------------------------------------------------------------------------------------------- */

void
ptx_scope_enter(struct ptx_parser *p)
{
	if (p->scope == PTX_MAX_DEPTH)
		ptx_fail(p, "blocks nested deeper than %d", PTX_MAX_DEPTH);
	p->scopes[++p->scope] = (struct ptx_scope){ .first_pending = p->pending_labels.count };
}

/* Labels of this scope get their uses; what is left waits for the scope around. */
static void
resolve_labels(struct ptx_parser *p)
{
	uint32_t kept = p->scopes[p->scope].first_pending;

	for (uint32_t i = kept; i < p->pending_labels.count; i++) {
		struct ptx_pending_label *use = &p->pending_labels.items[i];
		struct ptx_binding *label = use->atom->label;
		if (label && label->depth == p->scope) {
			*use->where = label->index;
			p->labels.items[label->index].used = true;
		} else if (p->scope == 1) {
			p->line = use->line;
			ptx_fail(p, "label '%s' is not defined", use->atom->text);
		} else {
			p->pending_labels.items[kept++] = *use;
		}
	}
	p->pending_labels.count = kept;
}

void
ptx_scope_leave(struct ptx_parser *p)
{
	struct ptx_binding *next;

	resolve_labels(p);
	for (struct ptx_binding *b = p->scopes[p->scope].bindings; b; b = next) {
		next = b->next;
		if (b->kind == PTX_BIND_LABEL)
			b->atom->label = b->shadowed;
		else if (b->kind == PTX_BIND_RANGE)
			b->atom->range = b->shadowed;
		else
			b->atom->binding = b->shadowed;
		b->next = p->free_bindings;
		p->free_bindings = b;
	}
	p->scope--;
}

/* ---- opcodes ---------------------------------------------------------------------------------------------------- */

/* Modifiers hold "::" ("shared::cta"); a single ':' ends a label and is none. */
static uint32_t
form_length(const char *at)
{
	const char *start = at;

	for (;; at++) {
		if (ptx_is(*at, PTX_C_IDENT) || (*at == '.' && ptx_is(at[1], PTX_C_IDENT)))
			continue;
		if (*at != ':' || at[1] != ':')
			return (uint32_t)(at - start);
		at++;
	}
}

static const char *
word_of_form(struct ptx_parser *p, const char *text, size_t length)
{
	const char *word = ptx_intern(text, length);

	if (!word)
		ptx_fail(p, "opcode or modifier '%.*s' is too long, or there are too many of them", length > 60 ? 60 : (int)length, text);
	return word;
}

/* Opcodes whose named operand is memory even when it is written without brackets: "ld.global.u32 r, a[1]". */
static bool
takes_address(const char *op)
{
	static const char *const ops[] = { "ld", "st", "ldu", "atom", "red", "prefetch", "prefetchu" };

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (strcmp(op, ops[i]) == 0)
			return true;
	return false;
}

static struct ptx_form *
make_form(struct ptx_parser *p, const char *text, uint32_t length, uint32_t hash)
{
	struct ptx_form *form = ptx_alloc(p, sizeof(*form));
	const char *at = text, *end = text + length, *mods[PTX_MAX_MODS + 1], *stop;

	form->text = ptx_copy_text(p, text, length);
	form->length = length;
	form->hash = hash;
	for (; at < end; at = stop + 1) {
		for (stop = at; stop < end && *stop != '.'; stop++)
			;
		const char *word = word_of_form(p, at, (size_t)(stop - at));
		if (!form->op) {
			form->op = word;
			continue;
		}
		if (form->mod_count == PTX_MAX_MODS)
			ptx_fail(p, "'%.60s' has more than %d modifiers", form->text, PTX_MAX_MODS);
		enum ptx_type type = ptx_type_find(word, strlen(word));
		if (type && form->type_count < sizeof(form->types))
			form->types[form->type_count++] = (uint8_t)type;
		mods[form->mod_count++] = word;
	}
	mods[form->mod_count] = ""; /* so that mods[0] can always be looked at */
	form->mods = ptx_copy(p, mods, (form->mod_count + 1u) * sizeof(mods[0]));
	form->is_call = strcmp(form->op, "call") == 0;
	form->is_bra = strcmp(form->op, "bra") == 0;
	form->takes_address = takes_address(form->op);
	return form;
}

static struct ptx_form **
form_slot(struct ptx_parser *p, const char *text, uint32_t length, uint32_t hash)
{
	for (uint32_t i = hash & (p->form_count - 1);; i = (i + 1) & (p->form_count - 1)) {
		struct ptx_form *form = p->forms[i];
		if (!form || (form->hash == hash && form->length == length && memcmp(form->text, text, length) == 0))
			return &p->forms[i];
	}
}

static void
grow_forms(struct ptx_parser *p)
{
	uint32_t old = p->form_count;
	struct ptx_form **forms = p->forms;

	p->form_count = old ? old * 2 : FIRST_FORMS;
	p->forms = fw_arena_alloc(&p->scratch, p->form_count * sizeof(*p->forms));
	if (!p->forms)
		ptx_fail(p, "out of memory");
	for (uint32_t i = 0; i < old; i++)
		if (forms[i])
			*form_slot(p, forms[i]->text, forms[i]->length, forms[i]->hash) = forms[i];
}

static const struct ptx_form *
find_form(struct ptx_parser *p, const char *text, uint32_t length)
{
	uint32_t hash = ptx_hash(text, length);

	if (p->form_used * 2 >= p->form_count)
		grow_forms(p);
	struct ptx_form **slot = form_slot(p, text, length, hash);
	if (!*slot) {
		*slot = make_form(p, text, length, hash);
		p->form_used++;
	}
	return *slot;
}

/* A modifier apart from the opcode. ".5" is none, nor is ".%r1". */
static bool
at_modifier(const struct ptx_parser *p)
{
	return *p->at == '.' && ptx_is(p->at[1], PTX_C_START) && p->at[1] != '%';
}

const struct ptx_form *
ptx_form(struct ptx_parser *p)
{
	const char *text = p->at;
	uint32_t length = form_length(text);

	if (!ptx_is(*text, PTX_C_START) || *text == '%')
		ptx_fail_token(p, "an instruction");
	p->at += length;
	ptx_skip(p);
	if (!at_modifier(p))
		return find_form(p, text, length);
	/* "ld .global .u32": modifiers that stand by themselves */
	char joined[512];
	uint32_t joined_length = 0;
	for (;;) {
		if (length >= sizeof(joined) - joined_length)
			ptx_fail(p, "an instruction name of more than %zu characters", sizeof(joined));
		memcpy(joined + joined_length, text, length);
		joined_length += length;
		if (!at_modifier(p))
			return find_form(p, joined, joined_length);
		text = p->at;
		length = form_length(text);
		p->at += length;
		ptx_skip(p);
	}
}
