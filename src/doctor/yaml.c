/*
 * Reads plain YAML into a JSON tree: see cdi.h. One pass over lines; a node is known by the column at which it begins. What is not
 * understood is an error with its place, never a guess.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/cdi.h"

struct reader {
	const char *at, *end;      /* what is left of the text */
	const char *line_begin;
	int line, column;          /* of the node at hand, from 0; column -1: the text has ended */
	struct fw_json_error *error;
	char scalar[DR_YAML_MAX_SCALAR];
};

static struct fw_json *read_node(struct reader *r, int least, int depth);

static struct fw_json *
fail(struct reader *r, const char *what)
{
	if (!r->error->what)
		*r->error = (struct fw_json_error){ r->line + 1, (int)(r->at - r->line_begin) + 1, what };
	return NULL;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool
at_line_end(const struct reader *r)
{
	return r->at == r->end || *r->at == '\n' || (*r->at == '\r' && (r->at + 1 == r->end || r->at[1] == '\n'));
}

/* Steps over blanks, and over a comment, which a blank or the line's begin must precede. */
static void
skip_blanks(struct reader *r)
{
	while (r->at < r->end && is_blank(*r->at))
		r->at++;
	if (r->at < r->end && *r->at == '#' && (r->at == r->line_begin || is_blank(r->at[-1])))
		while (r->at < r->end && *r->at != '\n')
			r->at++;
}

/* To the first character of the next line that holds something. */
static void
next_line(struct reader *r)
{
	for (;;) {
		while (r->at < r->end && *r->at != '\n')
			r->at++;
		if (r->at == r->end) {
			r->column = -1;
			return;
		}
		r->line_begin = ++r->at;
		r->line++;
		while (r->at < r->end && *r->at == ' ')
			r->at++;
		r->column = (int)(r->at - r->line_begin);
		if (r->at < r->end && *r->at == '\t')
			fail(r, "a tab indents");
		skip_blanks(r);
		if (!at_line_end(r))
			return;
	}
}

static bool
is_mark(const struct reader *r, const char *mark)
{
	size_t left = (size_t)(r->end - r->at);
	return r->column == 0 && left >= 3 && memcmp(r->at, mark, 3) == 0 && (left == 3 || isspace((unsigned char)r->at[3]));
}

static bool
is_item(const struct reader *r)
{
	return r->at < r->end && *r->at == '-' && (r->at + 1 == r->end || isspace((unsigned char)r->at[1]));
}

/* ---- texts ---- */

static bool
put(struct reader *r, size_t *used, char c)
{
	if (c == 0 || *used == sizeof(r->scalar) - 1) {
		fail(r, c ? "a text is too long" : "a zero is in it");
		return false;
	}
	r->scalar[(*used)++] = c;
	r->scalar[*used] = 0;
	return true;
}

/* A quoted text on one line, into r->scalar. */
static bool
read_quoted(struct reader *r)
{
	static const char escapes[] = "\"\"\\\\//n\nt\tr\r";
	char quote = *r->at++;
	size_t used = 0;

	r->scalar[0] = 0;
	for (; !at_line_end(r); r->at++) {
		char c = *r->at;
		if (c == quote && quote == '\'' && r->at + 1 < r->end && r->at[1] == '\'') {
			r->at++;
		} else if (c == quote) {
			r->at++;
			return true;
		} else if (c == '\\' && quote == '"') {
			const char *known = escapes;
			if (++r->at < r->end)
				while (*known && *known != *r->at)
					known += 2;
			if (r->at == r->end || !*known)
				return fail(r, "an escape that is not understood") != NULL;
			c = known[1];
		}
		if (!put(r, &used, c))
			return false;
	}
	return fail(r, "a quoted text does not end on its line") != NULL;
}

/* A plain text up to the line's end, a comment, ": " or, within brackets, a comma or bracket; into r->scalar. */
static bool
read_plain(struct reader *r, bool within, size_t used)
{
	if (r->at < r->end && strchr("&*!|>%@`{}[],?", *r->at) && *r->at) /* signs that begin something else */
		return fail(r, "this form is not understood") != NULL;
	for (; !at_line_end(r); r->at++) {
		bool last = r->at + 1 == r->end || isspace((unsigned char)r->at[1]);
		if ((*r->at == ':' && last) || (*r->at == '#' && r->at > r->line_begin && is_blank(r->at[-1])) ||
		    (within && (*r->at == ',' || *r->at == ']')))
			break;
		if (!put(r, &used, *r->at))
			return false;
	}
	while (used && is_blank(r->scalar[used - 1]))
		used--;
	r->scalar[used] = 0;
	return true;
}

static struct fw_json *
text_value(struct reader *r)
{
	struct fw_json *value = fw_json_text(r->scalar);
	return value ? value : fail(r, "a text is not UTF-8");
}

/* What a plain text stands for: nothing, a truth, a decimal number, or itself. */
static struct fw_json *
plain_value(struct reader *r)
{
	const char *text = r->scalar, *digits = text + (*text == '-');
	char *end;

	if (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)
		return fw_json_null();
	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return fw_json_bool(*text == 't');
	if (*digits && strspn(digits, "0123456789") == strlen(digits) && strlen(digits) <= 18 && (*digits != '0' || !digits[1]))
		return fw_json_int(strtoll(text, &end, 10));
	return text_value(r);
}

static struct fw_json *
read_scalar(struct reader *r, bool within)
{
	bool quoted = r->at < r->end && (*r->at == '"' || *r->at == '\'');

	r->scalar[0] = 0;
	if (!(quoted ? read_quoted(r) : read_plain(r, within, 0)))
		return NULL;
	return quoted ? text_value(r) : plain_value(r);
}

/* Puts an item at a list's end and takes it over. */
static bool
append(struct reader *r, struct fw_json *list, struct fw_json *item)
{
	if (item && fw_json_size(list) < FW_JSON_MAX_SIZE)
		return fw_json_append(list, item) || fail(r, "out of memory");
	fw_json_free(item);
	return fail(r, "a list is too long") != NULL;
}

/* "[a, b]" of texts, or "{}". */
static struct fw_json *
read_flow(struct reader *r)
{
	bool braces = *r->at++ == '{';
	struct fw_json *value = braces ? fw_json_object() : fw_json_array();
	char end = braces ? '}' : ']';

	for (;;) {
		while (r->at < r->end && is_blank(*r->at))
			r->at++;
		if (r->at < r->end && *r->at == end) {
			r->at++;
			return value;
		}
		if (at_line_end(r) || braces || !append(r, value, read_scalar(r, true)))
			break;
		skip_blanks(r);
		if (r->at < r->end && *r->at == ',')
			r->at++;
		else if (r->at == r->end || *r->at != end)
			break;
	}
	fail(r, "a list in brackets is not understood");
	fw_json_free(value);
	return NULL;
}

/* The value behind "key:" or "- " on the same line; a plain text goes on in lines that are indented deeper than `column`. */
static struct fw_json *
read_inline(struct reader *r, int column)
{
	struct fw_json *value;

	if (*r->at == '[' || *r->at == '{') {
		value = read_flow(r);
	} else if (*r->at == '"' || *r->at == '\'') {
		value = read_scalar(r, false);
	} else {
		r->scalar[0] = 0;
		bool good = read_plain(r, false, 0);
		skip_blanks(r);
		while (good && at_line_end(r)) {
			next_line(r);
			if (r->column <= column || r->error->what)
				return r->error->what ? NULL : plain_value(r);
			size_t used = strlen(r->scalar);
			good = put(r, &used, ' ') && read_plain(r, false, used);
			skip_blanks(r);
		}
		return good ? fail(r, "this form is not understood") : NULL;
	}
	skip_blanks(r);
	if (value && !at_line_end(r)) {
		fw_json_free(value);
		return fail(r, "something stands behind a value");
	}
	if (value)
		next_line(r);
	return value;
}

/* ---- lists and maps ---- */

static struct fw_json *
read_list(struct reader *r, int depth)
{
	int column = r->column;
	struct fw_json *list = fw_json_array();

	while (list && r->column == column && is_item(r)) {
		struct fw_json *item;
		r->at++;
		skip_blanks(r);
		if (at_line_end(r)) {
			next_line(r);
			item = read_node(r, column + 1, depth + 1);
		} else { /* what follows the dash stands at a column of its own */
			r->column = (int)(r->at - r->line_begin);
			item = read_node(r, column + 1, depth + 1);
		}
		if (!append(r, list, item)) {
			fw_json_free(list);
			return NULL;
		}
	}
	return list;
}

/* Whether "key:" stands here. Looks ahead: only r->scalar changes. */
static bool
is_key(struct reader *r)
{
	struct fw_json_error ignored = { 0 }, *error = r->error;
	const char *at = r->at;

	if (is_item(r) || at == r->end)
		return false;
	r->error = &ignored;
	bool read = *at == '"' || *at == '\'' ? read_quoted(r) : read_plain(r, false, 0);
	bool key = read && r->at < r->end && *r->at == ':';
	r->error = error;
	r->at = at;
	return key;
}

/* The value of a key whose colon was read. */
static struct fw_json *
read_member(struct reader *r, int column, int depth)
{
	skip_blanks(r);
	if (!at_line_end(r))
		return read_inline(r, column);
	next_line(r);
	if (r->column == column && is_item(r)) /* a list may stand at its key's column */
		return read_list(r, depth + 1);
	return read_node(r, column + 1, depth + 1);
}

static struct fw_json *
read_map(struct reader *r, int depth)
{
	int column = r->column;
	struct fw_json *map = fw_json_object();
	char key[128];

	while (map && r->column == column && !r->error->what && is_key(r)) {
		bool quoted = *r->at == '"' || *r->at == '\'';
		bool good = quoted ? read_quoted(r) : read_plain(r, false, 0);
		size_t length = good ? strlen(r->scalar) : sizeof(key);
		struct fw_json *value = NULL;
		r->at++;
		if (length < sizeof(key))
			memcpy(key, r->scalar, length + 1);
		if (length >= sizeof(key) || fw_json_get(map, key) || fw_json_size(map) >= FW_JSON_MAX_MEMBERS)
			fail(r, "a key is too long, stands twice, or is one too many");
		else
			value = read_member(r, column, depth);
		if (!value || !fw_json_set(map, key, value)) {
			fail(r, "a key is not UTF-8");
			fw_json_free(map);
			return NULL;
		}
	}
	return map;
}

/* The node that begins here, at a column of at least `least`; null if there is none. */
static struct fw_json *
read_node(struct reader *r, int least, int depth)
{
	if (r->error->what)
		return NULL;
	if (r->column < least)
		return fw_json_null();
	if (depth > DR_YAML_MAX_DEPTH)
		return fail(r, "values are nested too deeply");
	if (is_item(r))
		return read_list(r, depth);
	if (is_key(r))
		return read_map(r, depth);
	return read_inline(r, least - 1);
}

struct fw_json *
dr_yaml_read(const char *text, size_t length, struct fw_json_error *error)
{
	struct reader *r = malloc(sizeof(*r));

	*error = (struct fw_json_error){ 0 };
	if (!r) {
		error->what = "out of memory";
		return NULL;
	}
	*r = (struct reader){ .at = text, .end = text + length, .line_begin = text, .error = error };
	while (r->at < r->end && *r->at == ' ')
		r->at++;
	r->column = (int)(r->at - r->line_begin);
	skip_blanks(r);
	if (at_line_end(r))
		next_line(r);
	if (is_mark(r, "---"))
		next_line(r);
	struct fw_json *value = is_mark(r, "...") ? fw_json_null() : read_node(r, 0, 0);
	if (value && is_mark(r, "..."))
		next_line(r);
	if (value && (r->column >= 0 || error->what)) {
		fail(r, "this is not indented as what is above it");
		fw_json_free(value);
		value = NULL;
	}
	if (!value)
		fail(r, "out of memory");
	free(r);
	return value;
}
