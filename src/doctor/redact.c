/*
 * Redaction of a fact document: host and user names, network addresses, serial numbers and UUIDs become pseudonyms, the same one
 * wherever the same secret stood, so that rules that compare facts judge as before. PCI addresses, versions and paths stay.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/facts.h"

#define MAX_SECRETS 512
#define MAX_TEXT 4096

enum kind { HOST, USER, UUID, ADDRESS, SERIAL, KINDS };

struct secret {
	enum kind kind;
	char text[80], pseudonym[80];
};

struct redaction {
	struct secret secret[MAX_SECRETS];
	int count, of_kind[KINDS];
};

static const struct secret *
pseudonym(struct redaction *r, enum kind kind, const char *text, size_t length)
{
	for (int i = 0; i < r->count; i++)
		if (r->secret[i].kind == kind && strncasecmp(r->secret[i].text, text, length) == 0 &&
		    (r->secret[i].text[length] == 0 || kind == UUID)) /* a UUID may be cut short */
			return &r->secret[i];
	struct secret *s = &r->secret[r->count < MAX_SECRETS - 1 ? r->count++ : MAX_SECRETS - 1];
	int number = ++r->of_kind[kind];
	s->kind = kind;
	snprintf(s->text, sizeof(s->text), "%.*s", (int)length, text);
	switch (kind) {
	case HOST: snprintf(s->pseudonym, sizeof(s->pseudonym), "host-%d", number); break;
	case USER: snprintf(s->pseudonym, sizeof(s->pseudonym), "user-%d", number); break;
	case UUID: snprintf(s->pseudonym, sizeof(s->pseudonym), "%08x-0000-0000-0000-000000000000", (unsigned)number); break;
	case ADDRESS: snprintf(s->pseudonym, sizeof(s->pseudonym), "192.0.2.%d", number); break;
	default: snprintf(s->pseudonym, sizeof(s->pseudonym), "serial-%d", number); break;
	}
	return s;
}

/* The length of a UUID at text: 8-4-4-4-12 hexadecimal digits, or 0. Behind "GPU-" or "MIG-" four digits are enough. */
static size_t
uuid_length(const char *text, bool behind_mark)
{
	static const int groups[] = { 8, 4, 4, 4, 12 };
	size_t at = 0, digits = 0;

	for (int g = 0; g < 5; g++) {
		int n = 0;
		while (n < groups[g] && isxdigit((unsigned char)text[at]))
			at++, n++, digits++;
		if (n < groups[g] || (g < 4 && text[at] != '-'))
			return behind_mark && digits >= 4 && !isalnum((unsigned char)text[at]) ? at : 0;
		if (g < 4)
			at++;
	}
	return isxdigit((unsigned char)text[at]) ? 0 : at;
}

/* An IPv4 address of four numbers, or a MAC or IPv6 address of at least four groups; 0 if there is none. */
static size_t
address_length(const char *text)
{
	size_t at = 0;
	int parts = 0, groups = 0;

	for (;; at++, parts++) {
		char *end;
		if (!isdigit((unsigned char)text[at]) || strtoul(text + at, &end, 10) > 255)
			break;
		at = (size_t)(end - text);
		if (text[at] != '.' || parts == 3)
			break;
	}
	if (parts == 3 && !isalnum((unsigned char)text[at]) && text[at] != '.')
		return at;
	for (at = 0; isxdigit((unsigned char)text[at]) || text[at] == ':'; at++)
		groups += text[at] == ':';
	return groups >= 4 && !isalnum((unsigned char)text[at]) ? at : 0;
}

/* A name of a host or user at text, as a word of its own. */
static const struct secret *
name_at(const struct redaction *r, const char *text, bool word_begins)
{
	for (int i = 0; word_begins && i < r->count; i++) {
		const struct secret *s = &r->secret[i];
		size_t length = strlen(s->text);
		if ((s->kind == HOST || s->kind == USER) && length > 1 && strncmp(text, s->text, length) == 0 &&
		    !isalnum((unsigned char)text[length]))
			return s;
	}
	return NULL;
}

/* The text with its secrets replaced; NULL if it has none. */
static struct fw_json *
redacted(struct redaction *r, const char *text)
{
	char out[MAX_TEXT];
	size_t used = 0;
	bool changed = false;

	for (const char *at = text; *at && used < sizeof(out) - 100;) {
		bool begins = at == text || !isalnum((unsigned char)at[-1]);
		bool mark = at - text >= 4 && (strncmp(at - 4, "GPU-", 4) == 0 || strncmp(at - 4, "MIG-", 4) == 0);
		const struct secret *s = name_at(r, at, begins);
		size_t length = s ? strlen(s->text) : 0;
		if (!s && begins && (length = uuid_length(at, mark)))
			s = pseudonym(r, UUID, at, length);
		else if (!s && begins && (at == text || at[-1] != '.') && (length = address_length(at)))
			s = pseudonym(r, ADDRESS, at, length);
		if (s) {
			used += (size_t)snprintf(out + used, sizeof(out) - used, "%s", s->pseudonym);
			at += length;
			changed = true;
		} else {
			out[used++] = *at++;
		}
	}
	out[used] = 0;
	return changed ? fw_json_text(out) : NULL;
}

/* What stands in place of a text that is called `name` ("" in a list); NULL: it stays. */
static struct fw_json *
replacement(struct redaction *r, const char *name, const char *text)
{
	if (strcmp(name, "serial") == 0)
		return fw_json_text(pseudonym(r, SERIAL, text, strlen(text))->pseudonym);
	return redacted(r, text);
}

/* Replaces in all texts below a value; with `collect` only learns full UUIDs, so that short ones find theirs. */
static void
walk(struct redaction *r, struct fw_json *value, bool collect)
{
	for (size_t i = 0; i < fw_json_size(value); i++) {
		struct fw_json *member = fw_json_at(value, i);
		const char *name = fw_json_name_at(value, i), *text = fw_json_as_text(member);
		if (!text) {
			walk(r, member, collect);
		} else if (collect) {
			size_t length = strlen(text);
			if (name && strcmp(name, "uuid") == 0 && length > 36)
				pseudonym(r, UUID, text + length - 36, 36);
		} else {
			struct fw_json *other = replacement(r, name ? name : "", text);
			if (other && name)
				fw_json_set(value, name, other);
			else if (other)
				fw_json_replace(value, i, other);
		}
	}
}

static void
learn(struct redaction *r, const struct fw_json *facts, const char *path, enum kind kind)
{
	const char *text = dr_get_text(facts, path, "");
	const char *slash = strrchr(text, '/');

	if (slash)
		text = slash + 1;
	if (strlen(text) > 1 && strcmp(text, "root") != 0)
		pseudonym(r, kind, text, strlen(text));
}

bool
dr_redact(struct fw_json *facts)
{
	struct redaction *r = calloc(1, sizeof(*r));

	if (!r)
		return false;
	learn(r, facts, "platform.host", HOST);
	learn(r, facts, "env.HOSTNAME", HOST);
	learn(r, facts, "env.SLURMD_NODENAME", HOST);
	learn(r, facts, "user.name", USER);
	learn(r, facts, "env.HOME", USER);
	walk(r, facts, true);
	walk(r, facts, false);
	dr_set_bool(facts, "recorded.redacted", true);
	free(r);
	return true;
}
