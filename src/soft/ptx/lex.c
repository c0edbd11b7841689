/*
 * The text of a PTX module: characters, blanks, names, punctuation, errors. Knows no grammar.
 */
#include "parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LOWER PTX_C_IDENT | PTX_C_START
const uint8_t ptx_chars[256] = {
	['0' ... '9'] = PTX_C_IDENT | PTX_C_DIGIT | PTX_C_HEX,
	['a' ... 'f'] = LOWER | PTX_C_HEX, ['g' ... 'z'] = LOWER,
	['A' ... 'F'] = LOWER | PTX_C_HEX, ['G' ... 'Z'] = LOWER,
	['_'] = LOWER, ['$'] = LOWER, ['%'] = PTX_C_START | PTX_C_OPERATOR,
	['|'] = PTX_C_OPERATOR, ['&'] = PTX_C_OPERATOR, ['^'] = PTX_C_OPERATOR, ['='] = PTX_C_OPERATOR,
	['!'] = PTX_C_OPERATOR, ['<'] = PTX_C_OPERATOR, ['>'] = PTX_C_OPERATOR, ['+'] = PTX_C_OPERATOR,
	['-'] = PTX_C_OPERATOR, ['*'] = PTX_C_OPERATOR, ['/'] = PTX_C_OPERATOR,
};

void
ptx_fail(struct ptx_parser *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	p->error->line = (int)p->line;
	vsnprintf(p->error->text, sizeof(p->error->text), format, args);
	va_end(args);
	longjmp(p->fail, 1);
}

void
ptx_fail_token(struct ptx_parser *p, const char *expected)
{
	char token[40];
	size_t n = 0;

	if (*p->at == 0)
		ptx_fail(p, "expected %s, found the end of the text", expected);
	do {
		unsigned char c = (unsigned char)p->at[n];
		token[n++] = c >= ' ' && c < 127 ? (char)c : '?';
	} while (n < sizeof(token) - 1 && ptx_is(p->at[n], PTX_C_IDENT));
	token[n] = 0;
	ptx_fail(p, "expected %s, found '%s'", expected, token);
}

static void
skip_comment(struct ptx_parser *p)
{
	uint32_t line = p->line;

	for (p->at += 2; p->at[0] != '*' || p->at[1] != '/'; p->at++) {
		if (*p->at == 0) {
			p->line = line;
			ptx_fail(p, "comment without an end");
		}
		p->line += *p->at == '\n';
	}
	p->at += 2;
}

void
ptx_skip(struct ptx_parser *p)
{
	for (;;) {
		switch (*p->at) {
		case '\n':
			p->line++;
			/* fall through */
		case ' ': case '\t': case '\r': case '\v': case '\f':
			p->at++;
			break;
		case '/':
			if (p->at[1] == '/')
				p->at += strcspn(p->at, "\n");
			else if (p->at[1] == '*')
				skip_comment(p);
			else
				return;
			break;
		default:
			return;
		}
	}
}

/* FNV-1a, which can be taken further character by character: a word's prefix hash falls out of its scan. */
#define HASH_START 2166136261u
#define HASH_STEP(hash, c) (((hash) ^ (uint8_t)(c)) * 16777619u)

uint32_t
ptx_hash(const char *text, size_t length)
{
	uint32_t hash = HASH_START;

	for (size_t i = 0; i < length; i++)
		hash = HASH_STEP(hash, text[i]);
	return hash;
}

static inline struct ptx_word
scan(const char *text, const char *end)
{
	struct ptx_word word = { .text = text };
	uint32_t hash = HASH_STEP(HASH_START, *text), prefix_hash = 0;
	const char *digits = NULL, *at = text + 1;

	for (; end ? at < end : ptx_is(*at, PTX_C_IDENT); at++) {
		if (!ptx_is(*at, PTX_C_DIGIT)) {
			digits = NULL;
		} else if (!digits) {
			digits = at;
			prefix_hash = hash;
		}
		hash = HASH_STEP(hash, *at);
	}
	word.length = (uint32_t)(at - text);
	word.hash = hash;
	if (digits && at - digits < 10) {
		word.prefix_length = (uint32_t)(digits - text);
		word.prefix_hash = prefix_hash;
		for (; digits < at; digits++)
			word.number = word.number * 10 + (uint32_t)(*digits - '0');
	}
	return word;
}

struct ptx_word
ptx_word(struct ptx_parser *p)
{
	if (!ptx_is(*p->at, PTX_C_START))
		ptx_fail_token(p, "a name");
	struct ptx_word word = scan(p->at, NULL);
	if (word.length > PTX_MAX_NAME)
		ptx_fail(p, "a name of more than %d characters", PTX_MAX_NAME);
	p->at += word.length;
	ptx_skip(p);
	return word;
}

struct ptx_word
ptx_text_word(const char *text, size_t length)
{
	return scan(text, text + length);
}

struct ptx_word
ptx_directive(struct ptx_parser *p)
{
	if (*p->at != '.' || !ptx_is(p->at[1], PTX_C_IDENT))
		ptx_fail_token(p, "a directive");
	struct ptx_word word = { .text = p->at + 1 };
	while (ptx_is(word.text[word.length], PTX_C_IDENT))
		word.length++;
	p->at += 1 + word.length;
	ptx_skip(p);
	return word;
}

bool
ptx_word_is(const struct ptx_word *word, const char *text)
{
	return strncmp(word->text, text, word->length) == 0 && text[word->length] == 0;
}

bool
ptx_accept(struct ptx_parser *p, char c)
{
	if (*p->at != c)
		return false;
	p->at++;
	ptx_skip(p);
	return true;
}

void
ptx_expect(struct ptx_parser *p, char c)
{
	if (*p->at != c)
		ptx_fail_token(p, (char[]){ '\'', c, '\'', 0 });
	p->at++;
	ptx_skip(p);
}

void
ptx_skip_string(struct ptx_parser *p)
{
	if (*p->at != '"')
		ptx_fail_token(p, "a string");
	do {
		p->at += *p->at == '\\' && p->at[1] ? 2 : 1;
		if (*p->at == 0 || *p->at == '\n')
			ptx_fail(p, "string without an end");
	} while (*p->at != '"');
	p->at++;
	ptx_skip(p);
}

void
ptx_skip_block(struct ptx_parser *p)
{
	uint32_t line = p->line, depth = 0;

	do {
		if (*p->at == 0) {
			p->line = line;
			ptx_fail(p, "'{' without '}'");
		}
		if (*p->at == '"') {
			ptx_skip_string(p);
			continue;
		}
		depth += *p->at == '{';
		depth -= *p->at == '}';
		p->at++;
		ptx_skip(p);
	} while (depth);
}

void *
ptx_alloc(struct ptx_parser *p, size_t size)
{
	void *memory = fw_arena_alloc(&p->module->arena, size);

	if (!memory)
		ptx_fail(p, "out of memory");
	return memory;
}

void *
ptx_copy(struct ptx_parser *p, const void *data, size_t size)
{
	if (size == 0)
		return NULL;
	return memcpy(ptx_alloc(p, size), data, size);
}

const char *
ptx_copy_text(struct ptx_parser *p, const char *text, size_t length)
{
	return memcpy(ptx_alloc(p, length + 1), text, length);
}

int
ptx_list_grow(struct ptx_parser *p, void **items, uint32_t *room, size_t item)
{
	uint32_t more = *room ? *room * 2 : 64;
	void *grown = *room > UINT32_MAX / 4 ? NULL : realloc(*items, more * item);

	if (!grown)
		ptx_fail(p, "out of memory");
	*items = grown;
	*room = more;
	return 0;
}
