/* Fact documents: writing and reading by path, and the schema's rows. See facts.h. */
#include "doctor/facts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "doctor/schema.h"

/* One step of a path: a member's name, or an index. */
struct step {
	char name[80];
	long index; /* -1: a member; -2: "[]" */
};

/* Takes the next step off a path. 1 taken, 0 the path is at its end, -1 it is no path. */
static int
next_step(const char **path, struct step *step)
{
	const char *p = *path;

	if (!*p)
		return 0;
	if (*p == '[') {
		step->index = 0;
		p++;
		if (*p == ']')
			step->index = -2;
		for (int digits = 0; *p != ']'; p++, digits++) {
			if (*p < '0' || *p > '9' || digits > 5)
				return -1;
			step->index = step->index * 10 + (*p - '0');
		}
		*path = p[1] == '.' ? p + 2 : p + 1;
		return 1;
	}
	size_t length = strcspn(p, ".[");
	if (length == 0 || length >= sizeof(step->name))
		return -1;
	memcpy(step->name, p, length);
	step->name[length] = 0;
	step->index = -1;
	p += length;
	*path = *p == '.' ? p + 1 : p;
	return 1;
}

/* ---- writing ---- */

bool
dr_put(struct fw_json *at, const char *path, struct fw_json *value)
{
	struct step step, after;

	if (!value)
		return false;
	for (int taken = next_step(&path, &step), depth = 0; taken == 1 && depth < DR_MAX_DEPTH; depth++) {
		int more = next_step(&path, &after);
		struct fw_json *next = NULL;
		if (more == 0) {
			return step.index >= 0 ? fw_json_replace(at, (size_t)step.index, value) : fw_json_set(at, step.name, value);
		}
		if (step.index >= 0)
			next = fw_json_at(at, (size_t)step.index);
		else if (step.index == -1)
			next = fw_json_get(at, step.name);
		bool wanted = after.index == -1 ? fw_json_is(next, FW_JSON_OBJECT) && !dr_is_unseen(next) : fw_json_is(next, FW_JSON_ARRAY);
		if (!wanted) { /* nothing, null or unseen stood there */
			next = after.index == -1 ? fw_json_object() : fw_json_array();
			if (!(step.index >= 0 ? fw_json_replace(at, (size_t)step.index, next) : fw_json_set(at, step.name, next)))
				break;
		}
		at = next;
		step = after;
		taken = more;
	}
	fw_json_free(value);
	return false;
}

/* Text as JSON: foreign bytes (a device's name, a log line) need not be UTF-8. */
static struct fw_json *
text_value(const char *value)
{
	char clean[4096];

	if (!value)
		return fw_json_null();
	struct fw_json *text = fw_json_text(value);
	if (text)
		return text;
	size_t length = strnlen(value, sizeof(clean) - 1);
	for (size_t i = 0; i < length; i++)
		clean[i] = (unsigned char)value[i] >= 0x80 ? '?' : value[i];
	clean[length] = 0;
	return fw_json_text(clean);
}

void dr_set_text(struct fw_json *at, const char *path, const char *value) { dr_put(at, path, text_value(value)); }
void dr_set_int(struct fw_json *at, const char *path, int64_t value) { dr_put(at, path, fw_json_int(value)); }
void dr_set_real(struct fw_json *at, const char *path, double value) { dr_put(at, path, fw_json_real(value)); }
void dr_set_bool(struct fw_json *at, const char *path, bool value) { dr_put(at, path, fw_json_bool(value)); }
void dr_set_absent(struct fw_json *at, const char *path) { dr_put(at, path, fw_json_null()); }

void
dr_unseen(struct fw_json *at, const char *path, int error, const char *why, const char *get)
{
	struct fw_json *leaf = fw_json_object(), *reason = fw_json_object();

	if (error)
		fw_json_set(reason, "errno", fw_json_text(dr_errno_name(error)));
	if (why)
		fw_json_set(reason, "why", text_value(why));
	if (get)
		fw_json_set(reason, "get", text_value(get));
	fw_json_set(leaf, "unseen", reason);
	dr_put(at, path, leaf);
}

struct fw_json *
dr_list(struct fw_json *at, const char *path)
{
	struct fw_json *list = dr_get(at, path);

	if (fw_json_is(list, FW_JSON_ARRAY))
		return list;
	return dr_put(at, path, fw_json_array()) ? dr_get(at, path) : NULL;
}

struct fw_json *
dr_append(struct fw_json *list)
{
	struct fw_json *object = fw_json_object();

	return fw_json_append(list, object) ? object : NULL;
}

void
dr_append_text(struct fw_json *list, const char *value)
{
	fw_json_append(list, text_value(value));
}

struct fw_json *
dr_facts_new(void)
{
	struct fw_json *facts = fw_json_object();

	dr_set_int(facts, "farwarp_facts", DR_FACTS_VERSION);
	return facts;
}

/* ---- reading ---- */

const struct fw_json *
dr_is_unseen(const struct fw_json *leaf)
{
	return fw_json_is(leaf, FW_JSON_OBJECT) ? fw_json_get(leaf, "unseen") : NULL;
}

struct fw_json *
dr_get(const struct fw_json *at, const char *path)
{
	struct step step;
	int taken = 0;

	while (at && (taken = next_step(&path, &step)) == 1)
		at = step.index >= 0 ? fw_json_at(at, (size_t)step.index) : step.index == -1 ? fw_json_get(at, step.name) : NULL;
	return taken < 0 ? NULL : (struct fw_json *)at;
}

const char *
dr_get_text(const struct fw_json *at, const char *path, const char *fallback)
{
	const char *text = fw_json_as_text(dr_get(at, path));
	return text ? text : fallback;
}

int64_t
dr_get_int(const struct fw_json *at, const char *path, int64_t fallback)
{
	const struct fw_json *value = dr_get(at, path);
	return fw_json_is(value, FW_JSON_INT) ? fw_json_as_int(value) : fallback;
}

bool
dr_get_bool(const struct fw_json *at, const char *path, bool fallback)
{
	const struct fw_json *value = dr_get(at, path);
	return fw_json_is(value, FW_JSON_BOOL) ? fw_json_is_true(value) : fallback;
}

/* ---- the schema ---- */

size_t
dr_schema_size(void)
{
	return dr_schema_row_count;
}

const struct dr_schema_row *
dr_schema_at(size_t index)
{
	return index < dr_schema_row_count ? &dr_schema_rows[index] : NULL;
}

static bool
matches(const char *pattern, const char *path)
{
	struct step wanted, is;

	for (;;) {
		int more = next_step(&pattern, &wanted), there = next_step(&path, &is);
		if (more != there || more < 0)
			return false;
		if (more == 0)
			return true;
		if ((wanted.index == -1) != (is.index == -1))
			return false;
		if (wanted.index == -1 && strcmp(wanted.name, "*") != 0 && strcmp(wanted.name, is.name) != 0)
			return false;
	}
}

const struct dr_schema_row *
dr_schema_find(const char *path)
{
	size_t first = strcspn(path, ".["); /* most rows differ in their first word */

	for (size_t i = 0; i < dr_schema_row_count; i++)
		if (strncmp(dr_schema_rows[i].path, path, first) == 0 && matches(dr_schema_rows[i].path, path))
			return &dr_schema_rows[i];
	return NULL;
}

const char *
dr_schema_get(const char *path)
{
	char part[DR_MAX_PATH];

	snprintf(part, sizeof(part), "%s", path);
	while (*part) {
		const struct dr_schema_row *row = dr_schema_find(part);
		if (row && *row->get)
			return row->get;
		char *end = part + strlen(part) - 1;
		while (end > part && *end != '.' && *end != '[')
			end--;
		*end = 0;
	}
	return "";
}

const char *
dr_errno_name(int error)
{
	if (error == 0)
		return "ok";
	const char *name = strerrorname_np(error);
	return name ? name : "unknown errno";
}
