/*
 * Evaluates conditions on a fact document in three values: true, false, and unseen where a fact that decides could not be seen. Records
 * the facts that decided. A comparison with a fact that is known not to be there is false ("!=": true).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/expr.h"

struct evaluation {
	const struct fw_json *facts;
	struct fw_arena *arena;
	struct dr_finding *finding;
	const struct fw_json *scope[DR_MAX_NESTING]; /* the elements at hand, innermost last */
	char scope_path[DR_MAX_NESTING][DR_MAX_PATH];
	int scopes;
};

struct fact {
	enum { PRESENT, ABSENT, UNSEEN } state;
	const struct fw_json *value;       /* of a present one */
	const struct fw_json *reason;      /* of an unseen one; NULL: it was not looked at */
	char path[DR_MAX_PATH];
};

static enum dr_truth evaluate(struct evaluation *e, const struct dr_expr *expr);

/* ---- facts ---- */

/* Adds a step's text to a path; too long a path is cut, which only shortens evidence. */
static void
extend(char *path, const char *text, size_t length, bool dot)
{
	size_t used = strlen(path);
	snprintf(path + used, DR_MAX_PATH - used, "%s%.*s", dot && used ? "." : "", (int)length, text);
}

static bool
is_map(const char *path)
{
	const struct dr_schema_row *row = dr_schema_find(path);
	return row && row->type == DR_MAP;
}

/* What is missing below a map is absent; elsewhere it was not looked at. */
static bool
in_a_map(const char *holder)
{
	return *holder && is_map(holder);
}

static void
look(const struct evaluation *e, const char *path, struct fact *fact)
{
	const struct fw_json *at = e->facts;

	*fact = (struct fact){ .state = PRESENT };
	if (path[0] == '.' && e->scopes > 0) {
		at = e->scope[e->scopes - 1];
		snprintf(fact->path, sizeof(fact->path), "%s", e->scope_path[e->scopes - 1]);
		path++;
	}
	for (;;) {
		fact->reason = dr_is_unseen(at);
		if (fact->reason || !at) {
			fact->state = UNSEEN;
			break;
		}
		if (fw_json_is(at, FW_JSON_NULL)) {
			fact->state = ABSENT;
			break;
		}
		if (!*path)
			break;
		if (*path == '[') {
			size_t length = strcspn(path, "]") + 1;
			size_t index = strtoul(path + 1, NULL, 10);
			extend(fact->path, path, length, false);
			path += length + (path[length] == '.');
			if (index >= fw_json_size(at)) {
				fact->state = ABSENT;
				break;
			}
			at = fw_json_at(at, index);
			continue;
		}
		size_t length = strcspn(path, ".[");
		char name[DR_MAX_PATH], holder[DR_MAX_PATH];
		snprintf(name, sizeof(name), "%.*s", (int)length, path);
		memcpy(holder, fact->path, sizeof(holder));
		extend(fact->path, path, length, true);
		path += length + (path[length] == '.');
		const struct fw_json *next = fw_json_get(at, name);
		if (!next && in_a_map(holder)) {
			fact->state = ABSENT;
			break;
		}
		at = next;
	}
	if (*path && fact->state != PRESENT) { /* name what was asked, not where the search ended */
		size_t length = strlen(path);
		extend(fact->path, path, length, path[0] != '[');
	}
	fact->value = at;
}

/* ---- evidence ---- */

static const char *
shown(struct evaluation *e, const struct fact *fact)
{
	char text[160];

	if (fact->state == ABSENT)
		return "not there";
	if (fact->state == UNSEEN) {
		const char *name = dr_get_text(fact->reason, "errno", ""), *why = dr_get_text(fact->reason, "why", "");
		snprintf(text, sizeof(text), "could not be seen: %s%s%.100s", *name || *why ? name : "not looked at", *name && *why ? ", " : "", why);
	} else if (fw_json_is(fact->value, FW_JSON_TEXT)) {
		snprintf(text, sizeof(text), "%.150s", fw_json_as_text(fact->value));
	} else if (fw_json_is(fact->value, FW_JSON_OBJECT) && !is_map(fact->path)) {
		snprintf(text, sizeof(text), "there");
	} else if (fw_json_is(fact->value, FW_JSON_ARRAY) || fw_json_is(fact->value, FW_JSON_OBJECT)) {
		size_t size = fw_json_size(fact->value), used = 0;
		snprintf(text, sizeof(text), size ? "%zu" : "none", size);
		for (size_t i = 0; i < size && fw_json_is(fw_json_at(fact->value, i), FW_JSON_TEXT) && used < sizeof(text); i++)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i ? ", " : "", fw_json_as_text(fw_json_at(fact->value, i)));
	} else if (fw_json_is(fact->value, FW_JSON_INT)) {
		snprintf(text, sizeof(text), "%lld", (long long)fw_json_as_int(fact->value));
	} else if (fw_json_is(fact->value, FW_JSON_REAL)) {
		snprintf(text, sizeof(text), "%.3g", fw_json_as_number(fact->value));
	} else {
		snprintf(text, sizeof(text), "%s", fw_json_is_true(fact->value) ? "true" : "false");
	}
	return fw_arena_strndup(e->arena, text, strlen(text));
}

static void
record_value(struct evaluation *e, const char *path, const char *value, const char *get)
{
	struct dr_finding *f = e->finding;

	for (int i = 0; i < f->count; i++)
		if (strcmp(f->evidence[i].path, path) == 0)
			return;
	if (f->count < DR_MAX_EVIDENCE && value) {
		const char *kept = fw_arena_strndup(e->arena, path, strlen(path));
		if (kept)
			f->evidence[f->count++] = (struct dr_evidence){ kept, value, get };
	}
}

static void
record(struct evaluation *e, const struct fact *fact)
{
	const char *get = NULL;

	if (fact->state == UNSEEN) {
		get = dr_get_text(fact->reason, "get", NULL);
		if (get)
			get = fw_arena_strndup(e->arena, get, strlen(get));
		if (!get)
			get = dr_schema_get(fact->path);
	}
	record_value(e, fact->path, shown(e, fact), get);
}

/* ---- values ---- */

struct value {
	enum { V_UNSEEN, V_ABSENT, V_NUMBER, V_TEXT, V_BOOL, V_OTHER } kind;
	double number;
	const char *text;
};

static struct value
value_of(const struct fact *fact)
{
	if (fact->state != PRESENT)
		return (struct value){ .kind = fact->state == ABSENT ? V_ABSENT : V_UNSEEN };
	if (fw_json_is(fact->value, FW_JSON_TEXT))
		return (struct value){ .kind = V_TEXT, .text = fw_json_as_text(fact->value) };
	if (fw_json_is(fact->value, FW_JSON_INT) || fw_json_is(fact->value, FW_JSON_REAL))
		return (struct value){ .kind = V_NUMBER, .number = fw_json_as_number(fact->value) };
	if (fw_json_is(fact->value, FW_JSON_BOOL))
		return (struct value){ .kind = V_BOOL, .number = fw_json_is_true(fact->value) };
	return (struct value){ .kind = V_OTHER };
}

/* Enters the index-th element of a list or map; false when there are no more. */
static bool
enter(struct evaluation *e, const struct fact *list, size_t index)
{
	const struct fw_json *element = fw_json_at(list->value, index);
	char *path = e->scope_path[e->scopes];
	char name[80];

	if (!element || e->scopes >= DR_MAX_NESTING)
		return false;
	memcpy(path, list->path, DR_MAX_PATH);
	if (fw_json_is(list->value, FW_JSON_ARRAY)) {
		snprintf(name, sizeof(name), "[%zu]", index);
		extend(path, name, strlen(name), false);
	} else {
		const char *member = fw_json_name_at(list->value, index);
		extend(path, member, strlen(member), true);
	}
	e->scope[e->scopes++] = element;
	return true;
}

/* How many elements of a list fulfil the filter. */
static struct value
count(struct evaluation *e, const struct dr_operand *operand)
{
	struct fact list;
	double found = 0;
	int before = e->finding->count;

	look(e, operand->text, &list);
	if (list.state == UNSEEN) {
		record(e, &list);
		return (struct value){ .kind = V_UNSEEN };
	}
	if (list.state == PRESENT && !operand->filter)
		found = (double)fw_json_size(list.value);
	for (size_t i = 0; list.state == PRESENT && operand->filter && enter(e, &list, i); i++) {
		enum dr_truth truth = evaluate(e, operand->filter);
		e->scopes--;
		if (truth == DR_UNSEEN)
			return (struct value){ .kind = V_UNSEEN };
		found += truth == DR_TRUE;
	}
	char text[160];
	e->finding->count = before;
	snprintf(text, sizeof(text), "%.0f with %.120s", found, operand->filter ? operand->filter_text : "");
	record_value(e, list.path, operand->filter ? fw_arena_strndup(e->arena, text, strlen(text)) : shown(e, &list), NULL);
	return (struct value){ .kind = V_NUMBER, .number = found };
}

static struct value
operand_value(struct evaluation *e, const struct dr_operand *operand)
{
	struct fact fact;

	switch (operand->kind) {
	case DR_O_NUMBER: return (struct value){ .kind = V_NUMBER, .number = operand->number };
	case DR_O_TEXT: return (struct value){ .kind = V_TEXT, .text = operand->text };
	case DR_O_BOOL: return (struct value){ .kind = V_BOOL, .number = operand->number };
	case DR_O_COUNT: return count(e, operand);
	case DR_O_PATH: break;
	}
	look(e, operand->text, &fact);
	record(e, &fact);
	return value_of(&fact);
}

/* Versions by their numbers: "570.195.03" is above "570.9". -1, 0, 1. */
static int
compare_versions(const char *a, const char *b)
{
	for (;;) {
		char *end_a, *end_b;
		unsigned long x = strtoul(a, &end_a, 10), y = strtoul(b, &end_b, 10);
		if (x != y)
			return x < y ? -1 : 1;
		a = end_a + (*end_a == '.');
		b = end_b + (*end_b == '.');
		if (end_a == a && end_b == b) /* no more dots: what follows is text */
			return strcmp(a, b) < 0 ? -1 : strcmp(a, b) > 0;
	}
}

static enum dr_truth
compare(enum dr_expr_kind kind, struct value a, struct value b)
{
	int order;

	if (a.kind == V_UNSEEN || b.kind == V_UNSEEN)
		return DR_UNSEEN;
	if (a.kind != b.kind || a.kind == V_ABSENT || a.kind == V_OTHER)
		return kind == DR_E_NE && a.kind != b.kind ? DR_TRUE : DR_FALSE;
	if (a.kind != V_TEXT)
		order = a.number < b.number ? -1 : a.number > b.number;
	else if (kind == DR_E_EQ || kind == DR_E_NE)
		order = strcmp(a.text, b.text);
	else
		order = compare_versions(a.text, b.text);
	switch (kind) {
	case DR_E_EQ: return order == 0 ? DR_TRUE : DR_FALSE;
	case DR_E_NE: return order != 0 ? DR_TRUE : DR_FALSE;
	case DR_E_LT: return order < 0 ? DR_TRUE : DR_FALSE;
	case DR_E_LE: return order <= 0 ? DR_TRUE : DR_FALSE;
	case DR_E_GT: return order > 0 ? DR_TRUE : DR_FALSE;
	default: return order >= 0 ? DR_TRUE : DR_FALSE;
	}
}

/* ---- expressions ---- */

/* any(): true if one is, else unseen if one is unseen. all(): the opposite of any() of the opposite. */
static enum dr_truth
over_elements(struct evaluation *e, const struct dr_expr *expr)
{
	enum dr_truth decides = expr->kind == DR_E_ANY ? DR_TRUE : DR_FALSE;
	enum dr_truth result = expr->kind == DR_E_ANY ? DR_FALSE : DR_TRUE;
	int before = e->finding->count, unseen_count = 0;
	struct dr_evidence unseen[DR_MAX_EVIDENCE];
	struct fact list;

	look(e, expr->path, &list);
	if (list.state == UNSEEN) {
		record(e, &list);
		return DR_UNSEEN;
	}
	for (size_t i = 0; list.state == PRESENT && enter(e, &list, i); i++) {
		enum dr_truth truth = evaluate(e, expr->left);
		e->scopes--;
		if (truth == decides)
			return truth;
		if (truth == DR_UNSEEN && result != DR_UNSEEN) {
			result = DR_UNSEEN;
			unseen_count = e->finding->count - before;
			memcpy(unseen, e->finding->evidence + before, (size_t)unseen_count * sizeof(unseen[0]));
		}
		e->finding->count = before; /* an element that did not decide is no evidence */
	}
	if (result == DR_UNSEEN) {
		memcpy(e->finding->evidence + before, unseen, (size_t)unseen_count * sizeof(unseen[0]));
		e->finding->count = before + unseen_count;
	} else {
		char text[160];
		size_t size = list.state == PRESENT ? fw_json_size(list.value) : 0;
		if (size)
			snprintf(text, sizeof(text), expr->kind == DR_E_ANY ? "none of %zu with %.120s" : "all %zu with %.120s", size, expr->left_text);
		record_value(e, list.path, size ? fw_arena_strndup(e->arena, text, strlen(text)) : shown(e, &list), NULL);
	}
	return result;
}

static enum dr_truth
evaluate_in(struct evaluation *e, const struct dr_expr *expr)
{
	struct value value = operand_value(e, &expr->operand[0]);

	if (value.kind == V_UNSEEN)
		return DR_UNSEEN;
	for (int i = 0; i < expr->list_count; i++) {
		const struct dr_operand *item = &expr->list[i];
		if (item->kind == DR_O_TEXT ? value.kind == V_TEXT && strcmp(value.text, item->text) == 0
		                            : value.kind == V_NUMBER && value.number == item->number)
			return DR_TRUE;
	}
	return DR_FALSE;
}

/* The state of a fact itself. */
static enum dr_truth
evaluate_state(struct evaluation *e, const struct dr_expr *expr)
{
	struct fact fact;

	look(e, expr->path, &fact);
	record(e, &fact);
	if (expr->kind == DR_E_SEEN)
		return fact.state == UNSEEN ? DR_FALSE : DR_TRUE;
	if (fact.state == UNSEEN)
		return DR_UNSEEN;
	if (expr->kind == DR_E_TRUE)
		return fact.state == PRESENT && fw_json_is_true(fact.value) ? DR_TRUE : DR_FALSE;
	return (fact.state == PRESENT) == (expr->kind == DR_E_EXISTS) ? DR_TRUE : DR_FALSE;
}

/* and: false decides; or: true decides. What did not decide is dropped from the evidence. */
static enum dr_truth
evaluate_pair(struct evaluation *e, const struct dr_expr *expr)
{
	enum dr_truth decides = expr->kind == DR_E_AND ? DR_FALSE : DR_TRUE;
	struct dr_evidence kept[DR_MAX_EVIDENCE];
	int before = e->finding->count;

	enum dr_truth left = evaluate(e, expr->left);
	if (left == decides)
		return left;
	int middle = e->finding->count;
	memcpy(kept, e->finding->evidence, sizeof(kept));
	if (left != DR_UNSEEN && expr->kind == DR_E_OR)
		e->finding->count = before; /* a false alternative explains nothing if the other is true */
	enum dr_truth right = evaluate(e, expr->right);
	if (right == decides) {
		int added = e->finding->count - middle;
		if (expr->kind == DR_E_AND && added > 0) { /* only the false half */
			memmove(e->finding->evidence + before, e->finding->evidence + middle, (size_t)added * sizeof(kept[0]));
			e->finding->count = before + added;
		}
		return right;
	}
	return left == DR_UNSEEN || right == DR_UNSEEN ? DR_UNSEEN : right;
}

static enum dr_truth
evaluate(struct evaluation *e, const struct dr_expr *expr)
{
	switch (expr->kind) {
	case DR_E_AND:
	case DR_E_OR:
		return evaluate_pair(e, expr);
	case DR_E_NOT: {
		enum dr_truth truth = evaluate(e, expr->left);
		return truth == DR_UNSEEN ? truth : truth == DR_TRUE ? DR_FALSE : DR_TRUE;
	}
	case DR_E_ANY:
	case DR_E_ALL:
		return over_elements(e, expr);
	case DR_E_TRUE:
	case DR_E_EXISTS:
	case DR_E_ABSENT:
	case DR_E_SEEN:
		return evaluate_state(e, expr);
	case DR_E_MATCH: {
		struct value value = operand_value(e, &expr->operand[0]);
		if (value.kind == V_UNSEEN)
			return DR_UNSEEN;
		return value.kind == V_TEXT && regexec(expr->regex, value.text, 0, NULL, 0) == 0 ? DR_TRUE : DR_FALSE;
	}
	case DR_E_IN:
		return evaluate_in(e, expr);
	default: {
		struct value left = operand_value(e, &expr->operand[0]);
		return compare(expr->kind, left, operand_value(e, &expr->operand[1]));
	}
	}
}

void
dr_evaluate(const struct dr_expr *expr, const struct fw_json *facts, struct fw_arena *arena, struct dr_finding *finding)
{
	struct evaluation e = { .facts = facts, .arena = arena, .finding = finding };

	finding->count = 0;
	finding->truth = evaluate(&e, expr);
}
