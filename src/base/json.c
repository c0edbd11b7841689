/* JSON trees: see json.h. */
#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct fw_json {
	enum fw_json_kind kind;
	union {
		bool truth;
		int64_t integer;
		double real;
		char *text;
		struct {
			struct fw_json **item;
			char **name;           /* of an object only */
			size_t count, room;
		};
	};
};

/* ---- making ---- */

static struct fw_json *
make(enum fw_json_kind kind)
{
	struct fw_json *value = calloc(1, sizeof(*value));

	if (value)
		value->kind = kind;
	return value;
}

/* Bytes of the UTF-8 character at text, of at most `left` bytes; 0 if there is none (overlong forms and surrogates are none). */
static size_t
character(const unsigned char *text, size_t left)
{
	static const struct { unsigned char first, mask, size; uint32_t least; } forms[] = {
		{ 0x00, 0x80, 1, 0 }, { 0xc0, 0xe0, 2, 0x80 }, { 0xe0, 0xf0, 3, 0x800 }, { 0xf0, 0xf8, 4, 0x10000 } };

	for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
		if ((text[0] & forms[f].mask) != forms[f].first)
			continue;
		uint32_t code = text[0] & (unsigned char)~forms[f].mask;
		if (forms[f].size > left)
			return 0;
		for (size_t i = 1; i < forms[f].size; i++) {
			if ((text[i] & 0xc0) != 0x80)
				return 0;
			code = code << 6 | (text[i] & 0x3f);
		}
		return code < forms[f].least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : forms[f].size;
	}
	return 0;
}

static bool
is_utf8(const char *text, size_t length)
{
	for (size_t at = 0, size; at < length; at += size)
		if (!(size = character((const unsigned char *)text + at, length - at)))
			return false;
	return true;
}

struct fw_json *
fw_json_null(void)
{
	return make(FW_JSON_NULL);
}

struct fw_json *
fw_json_bool(bool truth)
{
	struct fw_json *value = make(FW_JSON_BOOL);

	if (value)
		value->truth = truth;
	return value;
}

struct fw_json *
fw_json_int(int64_t integer)
{
	struct fw_json *value = make(FW_JSON_INT);

	if (value)
		value->integer = integer;
	return value;
}

struct fw_json *
fw_json_real(double real)
{
	struct fw_json *value = isfinite(real) ? make(FW_JSON_REAL) : NULL;

	if (value)
		value->real = real;
	return value;
}

struct fw_json *
fw_json_text_n(const char *text, size_t length)
{
	struct fw_json *value = is_utf8(text, length) ? make(FW_JSON_TEXT) : NULL;

	if (value && !(value->text = strndup(text, length))) {
		free(value);
		return NULL;
	}
	return value;
}

struct fw_json *
fw_json_text(const char *text)
{
	return text ? fw_json_text_n(text, strlen(text)) : NULL;
}

struct fw_json *
fw_json_array(void)
{
	return make(FW_JSON_ARRAY);
}

struct fw_json *
fw_json_object(void)
{
	return make(FW_JSON_OBJECT);
}

static bool
holds(const struct fw_json *value)
{
	return value && value->kind >= FW_JSON_ARRAY;
}

void
fw_json_free(struct fw_json *value)
{
	if (holds(value)) {
		for (size_t i = 0; i < value->count; i++) {
			fw_json_free(value->item[i]);
			if (value->name)
				free(value->name[i]);
		}
		free(value->item);
		free(value->name);
	} else if (value && value->kind == FW_JSON_TEXT) {
		free(value->text);
	}
	free(value);
}

struct fw_json *
fw_json_copy(const struct fw_json *value)
{
	if (!value)
		return NULL;
	if (value->kind == FW_JSON_TEXT)
		return fw_json_text(value->text);
	struct fw_json *copy = make(value->kind);
	if (!holds(value)) {
		if (copy)
			*copy = *value;
		return copy;
	}
	for (size_t i = 0; copy && i < value->count; i++) {
		struct fw_json *item = fw_json_copy(value->item[i]);
		if (value->kind == FW_JSON_ARRAY ? fw_json_append(copy, item) : fw_json_set(copy, value->name[i], item))
			continue;
		fw_json_free(copy);
		copy = NULL;
	}
	return copy;
}

/* ---- putting ---- */

/* Room for one more. */
static bool
grow(struct fw_json *value)
{
	if (value->count < value->room)
		return true;
	size_t room = value->room ? 2 * value->room : 8;
	struct fw_json **item = realloc(value->item, room * sizeof(*item));
	if (!item)
		return false;
	value->item = item;
	if (value->kind == FW_JSON_OBJECT) {
		char **name = realloc(value->name, room * sizeof(*name));
		if (!name)
			return false;
		value->name = name;
	}
	value->room = room;
	return true;
}

bool
fw_json_append(struct fw_json *array, struct fw_json *value)
{
	if (!value || !fw_json_is(array, FW_JSON_ARRAY) || !grow(array)) {
		fw_json_free(value);
		return false;
	}
	array->item[array->count++] = value;
	return true;
}

bool
fw_json_replace(struct fw_json *array, size_t index, struct fw_json *value)
{
	if (!value || !fw_json_is(array, FW_JSON_ARRAY) || index >= array->count) {
		fw_json_free(value);
		return false;
	}
	fw_json_free(array->item[index]);
	array->item[index] = value;
	return true;
}

static size_t
find(const struct fw_json *object, const char *name)
{
	size_t i = 0;

	while (i < object->count && strcmp(object->name[i], name) != 0)
		i++;
	return i;
}

bool
fw_json_set(struct fw_json *object, const char *name, struct fw_json *value)
{
	char *kept = NULL;

	if (!value || !fw_json_is(object, FW_JSON_OBJECT)) {
		fw_json_free(value);
		return false;
	}
	size_t at = find(object, name);
	if (at < object->count) {
		fw_json_free(object->item[at]);
		object->item[at] = value;
		return true;
	}
	if (!is_utf8(name, strlen(name)) || !(kept = strdup(name)) || !grow(object)) {
		free(kept);
		fw_json_free(value);
		return false;
	}
	object->name[object->count] = kept;
	object->item[object->count++] = value;
	return true;
}

/* ---- looking ---- */

enum fw_json_kind
fw_json_kind(const struct fw_json *value)
{
	return value ? value->kind : FW_JSON_NULL;
}

bool
fw_json_is(const struct fw_json *value, enum fw_json_kind kind)
{
	return value && value->kind == kind;
}

bool
fw_json_is_true(const struct fw_json *value)
{
	return fw_json_is(value, FW_JSON_BOOL) && value->truth;
}

int64_t
fw_json_as_int(const struct fw_json *value)
{
	return fw_json_is(value, FW_JSON_INT) ? value->integer : 0;
}

double
fw_json_as_number(const struct fw_json *value)
{
	return fw_json_is(value, FW_JSON_REAL) ? value->real : (double)fw_json_as_int(value);
}

const char *
fw_json_as_text(const struct fw_json *value)
{
	return fw_json_is(value, FW_JSON_TEXT) ? value->text : NULL;
}

size_t
fw_json_size(const struct fw_json *value)
{
	return holds(value) ? value->count : 0;
}

struct fw_json *
fw_json_at(const struct fw_json *value, size_t index)
{
	return index < fw_json_size(value) ? value->item[index] : NULL;
}

const char *
fw_json_name_at(const struct fw_json *object, size_t index)
{
	return fw_json_is(object, FW_JSON_OBJECT) && index < object->count ? object->name[index] : NULL;
}

struct fw_json *
fw_json_get(const struct fw_json *object, const char *name)
{
	return fw_json_is(object, FW_JSON_OBJECT) ? fw_json_at(object, find(object, name)) : NULL;
}

/* ---- reading ---- */

struct reader {
	const char *at, *end, *line_begin;
	int line, depth;
	char *scratch;          /* of a text that is read; as long as all of the input, which no text exceeds */
	struct fw_json_error *error;
};

static struct fw_json *read_value(struct reader *r);

static void *
fail(struct reader *r, const char *what)
{
	if (!r->error->what)
		*r->error = (struct fw_json_error){ r->line, (int)(r->at - r->line_begin) + 1, what };
	return NULL;
}

static int
peek(struct reader *r)
{
	return r->at < r->end ? (unsigned char)*r->at : -1;
}

static void
skip_space(struct reader *r)
{
	for (; r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at; r->at++)
		if (*r->at == '\n') {
			r->line++;
			r->line_begin = r->at + 1;
		}
}

/* Takes a mark behind white space. */
static bool
take(struct reader *r, char mark)
{
	skip_space(r);
	if (peek(r) != mark)
		return false;
	r->at++;
	return true;
}

/* Four hexadecimal digits; -1 if they are not there. */
static long
read_hex(struct reader *r)
{
	long code = 0;

	for (int i = 0; i < 4; i++, r->at++) {
		int c = peek(r), digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	return code;
}

/* What follows "\u": one code, or two that are a pair. Its UTF-8 bytes go to `to`; 0 if it is none. */
static size_t
read_code(struct reader *r, char *to)
{
	long code = read_hex(r);

	if (code >= 0xd800 && code < 0xdc00) {
		if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u')
			return 0;
		r->at += 2;
		long low = read_hex(r);
		if (low < 0xdc00 || low >= 0xe000)
			return 0;
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	} else if (code <= 0 || (code >= 0xdc00 && code < 0xe000)) {
		return 0;
	}
	size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const unsigned char first[] = { 0, 0x00, 0xc0, 0xe0, 0xf0 };
	for (size_t i = size; i-- > 1; code >>= 6)
		to[i] = (char)(0x80 | (code & 0x3f));
	to[0] = (char)(first[size] | code);
	return size;
}

/* A text, whose first quote was taken, into scratch. NULL: refused. */
static const char *
read_text(struct reader *r, size_t *length)
{
	static const char escapes[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
	char *to = r->scratch;

	for (;;) {
		int c = peek(r);
		size_t size;
		if (c < 0)
			return fail(r, "the text does not end");
		if (c == '"')
			break;
		if (c < 0x20)
			return fail(r, "a control character stands in a text");
		if (c != '\\') {
			size = character((const unsigned char *)r->at, (size_t)(r->end - r->at));
			if (!size)
				return fail(r, "the text is not UTF-8");
			memcpy(to, r->at, size);
			to += size;
			r->at += size;
			continue;
		}
		r->at++;
		c = peek(r);
		const char *escape = c > 0 ? strchr(escapes, c) : NULL;
		if (c == 'u') {
			r->at++;
			size = read_code(r, to);
			if (!size)
				return fail(r, "no character has this code");
			to += size;
		} else if (escape) {
			*to++ = means[escape - escapes];
			r->at++;
		} else {
			return fail(r, "no such escape");
		}
	}
	r->at++;
	*length = (size_t)(to - r->scratch);
	return r->scratch;
}

static struct fw_json *
read_number(struct reader *r)
{
	const char *begin = r->at;
	char copy[64], *end;
	size_t length = 0;

	while (begin + length < r->end && length < sizeof(copy) - 1 && begin[length] && strchr("+-.0123456789eE", begin[length]))
		length++;
	memcpy(copy, begin, length);
	copy[length] = 0;
	bool real = strpbrk(copy, ".eE");
	const char *digits = copy + (copy[0] == '-'), *dot = strchr(copy, '.');
	if (*digits < '0' || *digits > '9' || (*digits == '0' && digits[1] >= '0' && digits[1] <= '9') || (dot && (dot[1] < '0' || dot[1] > '9')))
		return fail(r, "this is no number");
	errno = 0;
	double number = real ? strtod(copy, &end) : 0;
	long long integer = real ? 0 : strtoll(copy, &end, 10);
	if (*end)
		return fail(r, "this is no number");
	if (errno == ERANGE && (!real || fabs(number) > 1))
		return fail(r, "the number is too large");
	r->at += length;
	return real ? fw_json_real(number) : fw_json_int(integer);
}

static struct fw_json *
read_array(struct reader *r)
{
	struct fw_json *array = fw_json_array();

	if (take(r, ']'))
		return array;
	do {
		if (fw_json_size(array) == FW_JSON_MAX_SIZE) {
			fail(r, "the array has too many elements");
			break;
		}
		struct fw_json *value = read_value(r);
		if (!value || !fw_json_append(array, value))
			break;
		if (take(r, ']'))
			return array;
	} while (take(r, ',') || fail(r, "a comma or ] is missing"));
	fw_json_free(array);
	return NULL;
}

/* A member's name and value into an object. */
static bool
read_member(struct reader *r, struct fw_json *object)
{
	size_t length;

	if (!take(r, '"'))
		return fail(r, "a name in quotes is missing");
	const char *begin = r->at, *text = read_text(r, &length);
	char *name = text ? strndup(text, length) : NULL;
	bool good = false;
	if (name && fw_json_get(object, name)) {
		r->at = begin;
		fail(r, "the object has this name twice");
	} else if (name && fw_json_size(object) == FW_JSON_MAX_MEMBERS) {
		fail(r, "the object has too many members");
	} else if (name && !take(r, ':')) {
		fail(r, "a colon is missing");
	} else if (name) {
		good = fw_json_set(object, name, read_value(r));
	}
	free(name);
	return good;
}

static struct fw_json *
read_object(struct reader *r)
{
	struct fw_json *object = fw_json_object();

	if (take(r, '}'))
		return object;
	do {
		if (!object || !read_member(r, object))
			break;
		if (take(r, '}'))
			return object;
	} while (take(r, ',') || fail(r, "a comma or } is missing"));
	fw_json_free(object);
	return NULL;
}

static struct fw_json *
read_word(struct reader *r)
{
	static const char *const words[] = { "null", "true", "false" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t length = strlen(words[i]);
		if ((size_t)(r->end - r->at) >= length && memcmp(r->at, words[i], length) == 0) {
			r->at += length;
			return i == 0 ? fw_json_null() : fw_json_bool(i == 1);
		}
	}
	return fail(r, r->at == r->end ? "the text ends where a value is due" : "this is no value");
}

static struct fw_json *
read_value(struct reader *r)
{
	struct fw_json *value = NULL;
	size_t length;

	skip_space(r);
	int c = peek(r);
	if (c == '[' || c == '{') {
		if (r->depth == FW_JSON_MAX_DEPTH)
			return fail(r, "values are nested too deep");
		r->at++;
		r->depth++;
		value = c == '[' ? read_array(r) : read_object(r);
		r->depth--;
		return value;
	}
	if (c == '"') {
		r->at++;
		const char *text = read_text(r, &length);
		return text ? fw_json_text_n(text, length) : NULL;
	}
	return c == '-' || (c >= '0' && c <= '9') ? read_number(r) : read_word(r);
}

struct fw_json *
fw_json_read(const char *text, size_t length, struct fw_json_error *error)
{
	struct reader r = { .at = text, .end = text + length, .line_begin = text, .line = 1, .scratch = malloc(length + 1), .error = error };

	*error = (struct fw_json_error){ 0 };
	struct fw_json *value = r.scratch ? read_value(&r) : NULL;
	if (value) {
		skip_space(&r);
		if (r.at < r.end) {
			fail(&r, "something follows the value");
			fw_json_free(value);
			value = NULL;
		}
	}
	free(r.scratch);
	if (!value)
		fail(&r, "out of memory");
	return value;
}

/* ---- writing ---- */

static void
write_text(const char *text, FILE *out)
{
	fputc('"', out);
	for (; *text; text++) {
		const char *escape = strchr("\"\\\n\t\r", *text);
		if (escape)
			fprintf(out, "\\%c", "\"\\ntr"[escape - "\"\\\n\t\r"]);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			fprintf(out, "\\u%04x", (unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

static void
write_value(const struct fw_json *value, int depth, FILE *out)
{
	char number[40];
	const char *brackets = fw_json_is(value, FW_JSON_ARRAY) ? "[]" : "{}";

	switch (fw_json_kind(value)) {
	case FW_JSON_NULL: fputs("null", out); break;
	case FW_JSON_BOOL: fputs(value->truth ? "true" : "false", out); break;
	case FW_JSON_INT: fprintf(out, "%lld", (long long)value->integer); break;
	case FW_JSON_TEXT: write_text(value->text, out); break;
	case FW_JSON_REAL:
		snprintf(number, sizeof(number), "%.9g", value->real);
		fprintf(out, "%s%s", number, strpbrk(number, ".e") ? "" : ".0");
		break;
	default:
		fputc(brackets[0], out);
		for (size_t i = 0; i < value->count; i++) {
			fprintf(out, "%s\n%*s", i ? "," : "", depth + 1, "");
			if (value->kind == FW_JSON_OBJECT) {
				write_text(value->name[i], out);
				fputs(": ", out);
			}
			write_value(value->item[i], depth + 1, out);
		}
		if (value->count)
			fprintf(out, "\n%*s", depth, "");
		fputc(brackets[1], out);
	}
}

bool
fw_json_write(const struct fw_json *value, FILE *out)
{
	write_value(value, 0, out);
	return !ferror(out);
}
