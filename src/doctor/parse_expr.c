/*
 * Parses one condition of a rule:
 *
 *	or     := and { "or" and }          and := unary { "and" unary }        unary := "not" unary | test
 *	test   := "(" or ")" | any(PATH, or) | all(PATH, or) | exists(PATH) | absent(PATH) | seen(PATH)
 *	        | operand [ ("==" | "!=" | "<" | "<=" | ">" | ">=") operand | "~" "ERE" | "in" SET | "in" "(" operand { "," operand } ")" ]
 *	operand:= PATH | .PATH | NUMBER | "TEXT" | true | false | count(PATH [, or])
 *
 * Every path is one of the schema, and a bare one is a bool: a misspelt rule does not parse. Nesting and lengths are bounded.
 */
#include "doctor/expr.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LIST 32
#define MAX_PATTERN 160

struct parser {
	struct dr_rules *rules;
	const char *text, *at;
	const char *scope[DR_MAX_NESTING]; /* what "." stands for, as a schema path */
	int depth, scopes;
	char *error;
	size_t size;
	bool failed;
	const char *failed_at;
};

static const struct dr_expr *parse_or(struct parser *p);

static const void *
fail(struct parser *p, const char *what, const char *detail)
{
	if (!p->failed) {
		p->failed = true;
		p->failed_at = p->at;
		snprintf(p->error, p->size, "%s%s%.80s%s", what, detail ? " \"" : "", detail ? detail : "", detail ? "\"" : "");
	}
	return NULL;
}

static void
skip_space(struct parser *p)
{
	while (*p->at == ' ' || *p->at == '\t')
		p->at++;
}

/* A mark such as "(" or "==" if it comes next. */
static bool
take(struct parser *p, const char *mark)
{
	skip_space(p);
	size_t length = strlen(mark);
	if (strncmp(p->at, mark, length) != 0)
		return false;
	char after = p->at[length];
	if (isalpha((unsigned char)mark[0]) && (isalnum((unsigned char)after) || (after && strchr("_.[-", after))))
		return false; /* a longer word */
	p->at += length;
	return true;
}

/* A word that is followed by "(". */
static bool
take_function(struct parser *p, const char *name)
{
	skip_space(p);
	size_t length = strlen(name);
	if (strncmp(p->at, name, length) != 0 || p->at[length] != '(')
		return false;
	p->at += length + 1;
	return true;
}

static bool
want(struct parser *p, const char *mark)
{
	if (take(p, mark))
		return true;
	fail(p, "wanted here: ", mark);
	return false;
}

static void *
allocate(struct parser *p, size_t size)
{
	void *memory = fw_arena_alloc(&p->rules->arena, size);
	if (!memory)
		fail(p, "out of memory", NULL);
	return memory;
}

static struct dr_expr *
make(struct parser *p, enum dr_expr_kind kind)
{
	struct dr_expr *expr = allocate(p, sizeof(*expr));
	if (expr)
		expr->kind = kind;
	return expr;
}

/* The schema's row of a path; "." paths are put behind the element's. */
static const struct dr_schema_row *
row_of(struct parser *p, const char *path)
{
	char full[DR_MAX_PATH * 2];

	if (path[0] != '.')
		return dr_schema_find(path);
	if (p->scopes == 0)
		return NULL;
	const char *scope = p->scope[p->scopes - 1];
	snprintf(full, sizeof(full), "%s%s", scope, path[1] ? path : "");
	return dr_schema_find(full);
}

static const char *
parse_path(struct parser *p, const struct dr_schema_row **row)
{
	skip_space(p);
	size_t length = 0;
	while (isalnum((unsigned char)p->at[length]) || (p->at[length] && strchr("_.-[]", p->at[length])))
		length++;
	if (length == 0 || length >= DR_MAX_PATH)
		return fail(p, "wanted here: a path", NULL);
	char *path = fw_arena_strndup(&p->rules->arena, p->at, length);
	if (!path)
		return fail(p, "out of memory", NULL);
	*row = row_of(p, path);
	if (!*row)
		return fail(p, "facts.schema has no path", path);
	p->at += length;
	return path;
}

/* The path of a list or map, and one more level for its elements' condition. */
static const char *
open_list(struct parser *p)
{
	const struct dr_schema_row *row = NULL;
	const char *path = parse_path(p, &row);

	if (!path)
		return NULL;
	if (row->type != DR_LIST && row->type != DR_MAP)
		return fail(p, "is no list or map:", path);
	if (p->scopes >= DR_MAX_NESTING)
		return fail(p, "nested too deep", NULL);
	char *scope = allocate(p, strlen(row->path) + 3);
	if (!scope)
		return NULL;
	memcpy(scope, row->path, strlen(row->path));
	memcpy(scope + strlen(row->path), row->type == DR_LIST ? "[]" : ".*", 3);
	p->scope[p->scopes++] = scope;
	return path;
}

/* The condition of each element; *text: as it is written. */
static const struct dr_expr *
parse_filter(struct parser *p, const char **text)
{
	skip_space(p);
	const char *begin = p->at;
	const struct dr_expr *filter = parse_or(p);

	if (filter && !(*text = fw_arena_strndup(&p->rules->arena, begin, (size_t)(p->at - begin))))
		return fail(p, "out of memory", NULL);
	return filter;
}

static const char *
parse_text(struct parser *p)
{
	skip_space(p);
	if (*p->at != '"')
		return fail(p, "wanted here: a text in quotes", NULL);
	const char *end = strchr(p->at + 1, '"');
	if (!end)
		return fail(p, "a text without its closing quote", NULL);
	const char *text = fw_arena_strndup(&p->rules->arena, p->at + 1, (size_t)(end - p->at - 1));
	p->at = end + 1;
	return text ? text : fail(p, "out of memory", NULL);
}

static bool
parse_operand(struct parser *p, struct dr_operand *operand, const struct dr_schema_row **row)
{
	*operand = (struct dr_operand){ 0 };
	*row = NULL;
	skip_space(p);
	if (*p->at == '"') {
		operand->kind = DR_O_TEXT;
		return (operand->text = parse_text(p)) != NULL;
	}
	if (isdigit((unsigned char)*p->at) || (*p->at == '-' && isdigit((unsigned char)p->at[1]))) {
		char *end;
		bool hex = p->at[0] == '0' && (p->at[1] == 'x' || p->at[1] == 'X');
		operand->kind = DR_O_NUMBER;
		operand->number = hex ? (double)strtoull(p->at, &end, 16) : strtod(p->at, &end);
		p->at = end;
		return true;
	}
	if (take(p, "true") || take(p, "false")) {
		operand->kind = DR_O_BOOL;
		operand->number = p->at[-2] == 'u'; /* tr-u-e */
		return true;
	}
	if (take_function(p, "count")) {
		operand->kind = DR_O_COUNT;
		operand->text = open_list(p);
		if (!operand->text)
			return false;
		if (take(p, ",") && !(operand->filter = parse_filter(p, &operand->filter_text)))
			return false;
		p->scopes--;
		return want(p, ")");
	}
	operand->kind = DR_O_PATH;
	return (operand->text = parse_path(p, row)) != NULL;
}

/* A text is not compared with a number: that is a slip in the rule. */
static bool
comparable(struct parser *p, const struct dr_operand *operand, const struct dr_schema_row *row, const struct dr_operand *other)
{
	enum dr_type type = row ? row->type : DR_TEXT;
	bool text = operand->kind == DR_O_TEXT || (operand->kind == DR_O_PATH && type == DR_TEXT);
	bool number = operand->kind == DR_O_NUMBER || operand->kind == DR_O_COUNT ||
	              (operand->kind == DR_O_PATH && (type == DR_INT || type == DR_REAL));
	bool truth = operand->kind == DR_O_BOOL || (operand->kind == DR_O_PATH && type == DR_BOOL);

	if ((other->kind == DR_O_TEXT && !text) || (other->kind == DR_O_NUMBER && !number) || (other->kind == DR_O_BOOL && !truth)) {
		fail(p, "compares values of different types", NULL);
		return false;
	}
	return true;
}

static const struct dr_expr *
parse_match(struct parser *p, struct dr_expr *expr)
{
	const char *pattern = parse_text(p);

	if (!pattern)
		return NULL;
	/* Intervals and back references make the compiled pattern or the match large; rules need neither. */
	if (strlen(pattern) > MAX_PATTERN || strchr(pattern, '{'))
		return fail(p, "a pattern is at most 160 bytes and has no {", NULL);
	for (const char *c = pattern; *c; c++)
		if (*c == '\\' && isdigit((unsigned char)c[1]))
			return fail(p, "a pattern has no back reference", NULL);
	struct dr_regex *regex = allocate(p, sizeof(*regex));
	if (!regex)
		return NULL;
	if (regcomp(&regex->regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		return fail(p, "no regular expression:", pattern);
	regex->next = p->rules->regexes;
	p->rules->regexes = regex;
	expr->kind = DR_E_MATCH;
	expr->regex = &regex->regex;
	return expr;
}

static const struct dr_expr *
parse_in(struct parser *p, struct dr_expr *expr, const struct dr_schema_row *row)
{
	struct dr_operand *list = allocate(p, MAX_LIST * sizeof(*list));
	const struct dr_schema_row *none;

	if (!list)
		return NULL;
	expr->kind = DR_E_IN;
	expr->list = list;
	if (take(p, "(")) {
		do {
			if (expr->list_count == MAX_LIST)
				return fail(p, "a list is at most 32 long; use a set", NULL);
			struct dr_operand *value = &list[expr->list_count++];
			if (!parse_operand(p, value, &none))
				return NULL;
			if (value->kind != DR_O_TEXT && value->kind != DR_O_NUMBER)
				return fail(p, "a list holds texts and numbers", NULL);
			if (!comparable(p, &expr->operand[0], row, value))
				return NULL;
		} while (take(p, ","));
		return want(p, ")") ? expr : NULL;
	}
	skip_space(p);
	size_t length = strspn(p->at, "abcdefghijklmnopqrstuvwxyz0123456789_");
	for (struct dr_set *set = p->rules->sets; set; set = set->next)
		if (strlen(set->name) == length && strncmp(set->name, p->at, length) == 0) {
			for (int i = 0; i < set->count && i < MAX_LIST; i++)
				list[expr->list_count++] = (struct dr_operand){ .kind = DR_O_TEXT, .text = set->value[i] };
			p->at += length;
			return expr;
		}
	return fail(p, "no set of this name", NULL);
}

static const struct dr_expr *
parse_test(struct parser *p)
{
	static const struct { const char *name; enum dr_expr_kind kind; } functions[] = {
		{ "any", DR_E_ANY }, { "all", DR_E_ALL }, { "exists", DR_E_EXISTS }, { "absent", DR_E_ABSENT }, { "seen", DR_E_SEEN } };
	static const struct { const char *mark; enum dr_expr_kind kind; } operators[] = {
		{ "==", DR_E_EQ }, { "!=", DR_E_NE }, { "<=", DR_E_LE }, { ">=", DR_E_GE }, { "<", DR_E_LT }, { ">", DR_E_GT } };
	const struct dr_schema_row *row = NULL, *other = NULL;

	if (take(p, "(")) {
		const struct dr_expr *inner = parse_or(p);
		return inner && want(p, ")") ? inner : NULL;
	}
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		if (take_function(p, functions[i].name)) {
			bool of_list = functions[i].kind == DR_E_ANY || functions[i].kind == DR_E_ALL;
			struct dr_expr *expr = make(p, functions[i].kind);
			if (!expr || !(expr->path = of_list ? open_list(p) : parse_path(p, &row)))
				return NULL;
			if (of_list) {
				if (!want(p, ",") || !(expr->left = parse_filter(p, &expr->left_text)))
					return NULL;
				p->scopes--;
			}
			return want(p, ")") ? expr : NULL;
		}
	struct dr_expr *expr = make(p, DR_E_TRUE);
	if (!expr || !parse_operand(p, &expr->operand[0], &row))
		return NULL;
	for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++)
		if (take(p, operators[i].mark)) {
			expr->kind = operators[i].kind;
			if (!parse_operand(p, &expr->operand[1], &other) || !comparable(p, &expr->operand[0], row, &expr->operand[1]) ||
			    !comparable(p, &expr->operand[1], other, &expr->operand[0]))
				return NULL;
			return expr;
		}
	if (take(p, "~"))
		return row && row->type != DR_TEXT ? fail(p, "a pattern is for texts", NULL) : parse_match(p, expr);
	if (take(p, "in"))
		return parse_in(p, expr, row);
	if (expr->operand[0].kind != DR_O_PATH || row->type != DR_BOOL)
		return fail(p, "a condition that stands alone is of a path of type bool", NULL);
	expr->path = expr->operand[0].text;
	return expr;
}

static const struct dr_expr *
parse_unary(struct parser *p)
{
	const struct dr_expr *result;

	if (++p->depth > DR_MAX_NESTING)
		return fail(p, "nested too deep", NULL);
	if (take(p, "not")) {
		const struct dr_expr *inner = parse_unary(p);
		struct dr_expr *expr = inner ? make(p, DR_E_NOT) : NULL;
		if (expr)
			expr->left = inner;
		result = expr;
	} else {
		result = parse_test(p);
	}
	p->depth--;
	return result;
}

/* Operands with one word between them, from the left. */
static const struct dr_expr *
parse_chain(struct parser *p, const char *word, enum dr_expr_kind kind, const struct dr_expr *(*operand)(struct parser *))
{
	const struct dr_expr *left = operand(p);

	while (left && take(p, word)) {
		struct dr_expr *expr = make(p, kind);
		const struct dr_expr *right = operand(p);
		if (!expr || !right)
			return NULL;
		expr->left = left;
		expr->right = right;
		left = expr;
	}
	return left;
}

static const struct dr_expr *
parse_and(struct parser *p)
{
	return parse_chain(p, "and", DR_E_AND, parse_unary);
}

static const struct dr_expr *
parse_or(struct parser *p)
{
	return parse_chain(p, "or", DR_E_OR, parse_and);
}

const struct dr_expr *
dr_expr_parse(struct dr_rules *rules, const char *text, int *column, char *error, size_t size)
{
	struct parser p = { .rules = rules, .text = text, .at = text, .error = error, .size = size };
	const struct dr_expr *expr = parse_or(&p);

	skip_space(&p);
	if (expr && *p.at)
		expr = fail(&p, "not understood from here on", p.at);
	if (!expr)
		*column = (int)((p.failed_at ? p.failed_at : p.at) - text) + 1;
	return expr;
}
