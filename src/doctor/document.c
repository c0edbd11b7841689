/*
 * Fact documents as files.
 *
 * A recorded machine is a JSON object with the sections of facts.schema. A test machine is written shorter: "base" names a document
 * beside it, and every other key is a path whose value is merged into the base: objects member by member, all else replaces. "[*]" in a
 * path stands for every element of the list that is there, and a "!" at its end replaces without merging. "variants" holds further
 * machines, each upon this one. "about" and "expect" are for the tests. A foreign file can do no more than be wrong: sizes and depths
 * are bounded, and a base is a plain name in the file's own folder.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor/facts.h"

#define MAX_BASES 4
#define MAX_KEY 200

static bool
fail(char *error, size_t size, const char *origin, int line, int column, const char *what)
{
	if (line)
		snprintf(error, size, "%s:%d:%d: %s", origin, line, column < 1 ? 1 : column, what);
	else /* of the file, not of its text */
		snprintf(error, size, "%s: %s", origin, what);
	return false;
}

/* Puts a copy of value at a path: objects are merged, all else replaces. */
static bool
merge(struct fw_json *facts, const char *path, const struct fw_json *value, bool replace)
{
	struct fw_json *there = dr_get(facts, path);

	if (replace || !fw_json_is(value, FW_JSON_OBJECT) || !fw_json_is(there, FW_JSON_OBJECT) || dr_is_unseen(value) || dr_is_unseen(there))
		return dr_put(facts, path, fw_json_copy(value));
	for (size_t i = 0; i < fw_json_size(value); i++) {
		char below[MAX_KEY];
		if (snprintf(below, sizeof(below), "%s.%s", path, fw_json_name_at(value, i)) >= (int)sizeof(below) ||
		    !merge(facts, below, fw_json_at(value, i), false))
			return false;
	}
	return true;
}

/* A key with "[*]" is one for each element. */
static bool
apply(struct fw_json *facts, const char *key, const struct fw_json *value, int depth)
{
	char path[MAX_KEY];
	const char *star = strstr(key, "[*]");

	if (!star) {
		size_t length = strlen(key);
		bool replace = length && key[length - 1] == '!';
		if (length >= sizeof(path))
			return false;
		snprintf(path, sizeof(path), "%.*s", (int)(length - replace), key);
		return merge(facts, path, value, replace);
	}
	snprintf(path, sizeof(path), "%.*s", (int)(star - key), key);
	struct fw_json *list = dr_get(facts, path);
	if (!fw_json_is(list, FW_JSON_ARRAY) || depth > 3)
		return false;
	for (size_t i = 0; i < fw_json_size(list); i++) {
		if (snprintf(path, sizeof(path), "%.*s[%zu]%s", (int)(star - key), key, i, star + 3) >= (int)sizeof(path) ||
		    !apply(facts, path, value, depth + 1))
			return false;
	}
	return true;
}

/* All keys of a document that are paths. */
static bool
apply_all(struct fw_json *facts, struct fw_json *document, const char *origin, char *error, size_t size)
{
	static const char *const reserved[] = { "about", "base", "expect", "variants" };

	for (size_t k = 0; k < fw_json_size(document); k++) {
		const char *key = fw_json_name_at(document, k);
		bool skip = false;
		for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
			skip |= strcmp(key, reserved[i]) == 0;
		if (!skip && !apply(facts, key, fw_json_at(document, k), 0)) {
			char what[MAX_KEY];
			snprintf(what, sizeof(what), "\"%.100s\" is no path that a value can be put at", key);
			return fail(error, size, origin, 1, 1, what);
		}
	}
	return true;
}

static struct fw_json *
parse(const char *text, size_t length, const char *origin, char *error, size_t size)
{
	struct fw_json_error where;
	struct fw_json *document = fw_json_read(text, length, &where);

	if (!document)
		fail(error, size, origin, where.line, where.column, where.what);
	else if (!fw_json_is(document, FW_JSON_OBJECT)) {
		fail(error, size, origin, 1, 1, "a fact document is a JSON object");
		fw_json_free(document);
		return NULL;
	}
	return document;
}

static bool
check_version(const struct fw_json *facts, const char *origin, char *error, size_t size)
{
	const struct fw_json *version = dr_get(facts, "farwarp_facts");

	if (!fw_json_is(version, FW_JSON_INT))
		return fail(error, size, origin, 1, 1, "no fact document: \"farwarp_facts\" is missing");
	if (fw_json_as_int(version) != DR_FACTS_VERSION)
		return fail(error, size, origin, 1, 1, "a fact document of another version than 1");
	return true;
}

/* A document of its own: no base is followed. */
struct fw_json *
dr_document_parse(const char *text, size_t length, const char *origin, char *error, size_t size)
{
	struct fw_json *document = parse(text, length, origin, error, size), *facts = NULL;

	if (document && check_version(document, origin, error, size)) {
		facts = fw_json_object();
		if (facts && !apply_all(facts, document, origin, error, size)) {
			fw_json_free(facts);
			facts = NULL;
		}
	}
	fw_json_free(document);
	return facts;
}

static char *
read_file(const char *path, size_t *length, char *error, size_t size)
{
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char *text = file ? malloc(DR_MAX_DOCUMENT + 1) : NULL;

	if (!text) {
		fail(error, size, path, 0, 0, strerror(errno));
		if (file && file != stdin)
			fclose(file);
		return NULL;
	}
	*length = fread(text, 1, DR_MAX_DOCUMENT + 1, file);
	bool bad = ferror(file);
	int why = errno;
	if (file != stdin)
		fclose(file);
	if (bad || *length > DR_MAX_DOCUMENT) {
		fail(error, size, path, 0, 0, bad ? strerror(why) : "is larger than 8 MiB, which no fact document is");
		free(text);
		return NULL;
	}
	return text;
}

struct fw_json *
dr_document_load(const char *path, char *error, size_t size)
{
	size_t length = 0;
	char *text = read_file(path, &length, error, size);
	struct fw_json *document = text ? parse(text, length, path, error, size) : NULL;

	free(text);
	return document;
}

static struct fw_json *
read_with_base(const char *path, const char *variant, int depth, char *error, size_t size)
{
	struct fw_json *document = dr_document_load(path, error, size), *facts = NULL;

	if (!document)
		return NULL;
	const char *base = dr_get_text(document, "base", NULL);
	if (base) {
		char copy[PATH_MAX], next[PATH_MAX];
		snprintf(copy, sizeof(copy), "%s", path);
		snprintf(next, sizeof(next), "%.3000s/%.100s.json", dirname(copy), base);
		if (strchr(base, '/') || base[0] == '.' || depth == MAX_BASES)
			fail(error, size, path, 1, 1, depth == MAX_BASES ? "too many bases upon each other" : "a base is a name in the same folder");
		else
			facts = read_with_base(next, NULL, depth + 1, error, size);
	} else if (check_version(document, path, error, size)) {
		facts = fw_json_object();
	}
	bool good = facts && apply_all(facts, document, path, error, size);
	if (good && variant) {
		struct fw_json *further = fw_json_get(fw_json_get(document, "variants"), variant);
		if (!fw_json_is(further, FW_JSON_OBJECT))
			good = fail(error, size, path, 1, 1, "no such variant");
		else
			good = apply_all(facts, further, path, error, size);
	}
	fw_json_free(document);
	if (!good && facts) {
		fw_json_free(facts);
		facts = NULL;
	}
	return facts;
}

struct fw_json *
dr_document_read(const char *path, const char *variant, char *error, size_t size)
{
	return read_with_base(path, variant, 0, error, size);
}

int
dr_document_write(const struct fw_json *facts, const char *path)
{
	bool out = strcmp(path, "-") == 0;
	FILE *file = out ? stdout : fopen(path, "we");

	if (!file)
		return errno;
	errno = 0;
	bool good = fw_json_write(facts, file) && fputc('\n', file) != EOF;
	good &= (out ? fflush(file) : fclose(file)) == 0;
	return good ? 0 : errno ? errno : EIO;
}
