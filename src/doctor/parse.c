/*
 * Reads rule files. A line is a word and its text; a line that begins with a tab continues the one above; "#" begins a comment.
 *
 *	set NAME VALUE...                     layer NAME TITLE / ok CONDITION / na CONDITION
 *	rule ID LAYER STATE [conf=A] [who=you,root] [fallback]
 *	title CAUSE -> FIX | need CONDITION | not CONDITION | fix COMMAND | warn TEXT | note TEXT | source TEXT | group WORD | after ID...
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "doctor/expr.h"
#include "doctor/schema.h"

const char *const dr_layer_names[DR_LAYER_COUNT] = { "pci", "kernel", "nodes", "fabric", "container", "library", "driver", "framework", "disk" };
const char *const dr_state_names[] = { "ok", "fault", "unknown", "warn", "info" };

static const struct { const char *word, *text; } people[] = {
	{ "you", "you" }, { "root", "root on this machine" }, { "host", "the host's administrator" }, { "provider", "the cloud provider" },
	{ "image", "the image's builder" }, { "app", "the application's developer" }, { "vendor", "the hardware's vendor" },
	{ "nobody", "nobody needs to" } };

struct reader {
	struct dr_rules *rules;
	const char *name;
	int line;
	struct dr_rule *rule;             /* the paragraph at hand: one of the two */
	struct dr_layer_rule *layer;
	char *error;
	size_t size;
};

static bool
fail(struct reader *r, int column, const char *what, const char *detail)
{
	snprintf(r->error, r->size, "%s:%d:%d: %s%s%.60s%s", r->name, r->line, column, what, detail ? " \"" : "", detail ? detail : "",
	         detail ? "\"" : "");
	return false;
}

static const char *
keep(struct reader *r, const char *text, size_t length)
{
	return fw_arena_strndup(&r->rules->arena, text, length);
}

/* The next word of *text, which is cut there; NULL at the end. */
static char *
next_word(char **text)
{
	char *word;

	while ((word = strsep(text, " \t")) && !*word)
		;
	return word;
}

static int
index_of(const char *word, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(word, names[i]) == 0)
			return i;
	return -1;
}

static bool
known_people(const char *who)
{
	char copy[120], *rest = copy;

	snprintf(copy, sizeof(copy), "%s", who);
	for (char *word; (word = strsep(&rest, ","));) {
		bool found = false;
		for (size_t i = 0; i < sizeof(people) / sizeof(people[0]); i++)
			found |= strcmp(people[i].word, word) == 0;
		if (!found)
			return false;
	}
	return true;
}

static bool
read_rule(struct reader *r, char *text)
{
	char *id = next_word(&text), *layer = next_word(&text), *state = next_word(&text);

	if (!state)
		return fail(r, 1, "wanted: rule ID LAYER STATE", NULL);
	if (r->rules->count == DR_MAX_RULES)
		return fail(r, 1, "too many rules", NULL);
	if (strlen(id) > 12 || dr_rule_find(r->rules, id))
		return fail(r, 6, "an id is at most 12 bytes and used once:", id);
	int layer_index = index_of(layer, dr_layer_names, DR_LAYER_COUNT), state_index = index_of(state, dr_state_names, 5);
	if (layer_index < 0 || state_index < 0)
		return fail(r, 6, layer_index < 0 ? "no layer" : "no state", layer_index < 0 ? layer : state);
	struct dr_rule *rule = &r->rules->rule[r->rules->count];
	*rule = (struct dr_rule){ .id = keep(r, id, strlen(id)), .layer = (enum dr_layer)layer_index, .state = (enum dr_state)state_index,
		.confidence = 'C', .who = "nobody", .title = "", .file = keep(r, r->name, strlen(r->name)), .line = r->line };
	for (char *word; (word = next_word(&text));) {
		if (strncmp(word, "conf=", 5) == 0 && word[5] >= 'A' && word[5] <= 'C' && !word[6])
			rule->confidence = word[5];
		else if (strncmp(word, "who=", 4) == 0 && known_people(word + 4))
			rule->who = keep(r, word + 4, strlen(word + 4));
		else if (strcmp(word, "fallback") == 0)
			rule->fallback = true;
		else
			return fail(r, 6, "not understood:", word);
	}
	if (!rule->id || !rule->who || !rule->file)
		return fail(r, 1, "out of memory", NULL);
	r->rules->count++;
	r->rule = rule;
	r->layer = NULL;
	return true;
}

static bool
read_layer(struct reader *r, char *text)
{
	char *word = next_word(&text);
	int index = word ? index_of(word, dr_layer_names, DR_LAYER_COUNT) : -1;

	if (index < 0 || !text || r->rules->layer[index].title)
		return fail(r, 7, "wanted: layer NAME TITLE, each once", NULL);
	r->layer = &r->rules->layer[index];
	r->layer->title = keep(r, text, strlen(text));
	r->rule = NULL;
	return r->layer->title || fail(r, 1, "out of memory", NULL);
}

static bool
read_set(struct reader *r, char *text)
{
	char *name = next_word(&text);
	struct dr_set *set = fw_arena_alloc(&r->rules->arena, sizeof(*set));
	const char **values = fw_arena_alloc(&r->rules->arena, 32 * sizeof(*values));

	if (!name || !text)
		return fail(r, 5, "wanted: set NAME VALUE...", NULL);
	if (!set || !values || !(set->name = keep(r, name, strlen(name))))
		return fail(r, 1, "out of memory", NULL);
	set->value = values;
	for (char *word; (word = next_word(&text));) {
		if (set->count == 32)
			return fail(r, 5, "a set is at most 32 long", NULL);
		if (!(values[set->count++] = keep(r, word, strlen(word))))
			return fail(r, 1, "out of memory", NULL);
	}
	set->next = r->rules->sets;
	r->rules->sets = set;
	r->rule = NULL;
	r->layer = NULL;
	return true;
}

static bool
read_condition(struct reader *r, struct dr_condition *condition, const char *text, int begin, bool excludes)
{
	char why[160];
	int column = 1;

	condition->expr = dr_expr_parse(r->rules, text, &column, why, sizeof(why));
	if (!condition->expr)
		return fail(r, begin + column - 1, why, NULL);
	condition->text = keep(r, text, strlen(text));
	condition->excludes = excludes;
	return condition->text || fail(r, 1, "out of memory", NULL);
}

static bool
read_after(struct reader *r, char *text)
{
	for (char *word; (word = next_word(&text));) {
		if (r->rule->after_count == DR_MAX_AFTER)
			return fail(r, 7, "after names too many rules", NULL);
		if (!(r->rule->after[r->rule->after_count++] = keep(r, word, strlen(word))))
			return fail(r, 1, "out of memory", NULL);
	}
	return true;
}

static bool
read_title(struct reader *r, const char *text)
{
	if (strlen(r->rule->id) + 2 + strlen(text) > DR_FIRST_LINE)
		return fail(r, 7, "id and title are longer than the 80 bytes that collectors keep", NULL);
	if (r->rule->state == DR_FAULT && !strstr(text, " -> "))
		return fail(r, 7, "a fault's title is CAUSE -> FIX", NULL);
	r->rule->title = keep(r, text, strlen(text));
	return r->rule->title || fail(r, 1, "out of memory", NULL);
}

/* A line within a rule or layer: `begin` is the text's column. */
static bool
read_part(struct reader *r, const char *word, char *text, int begin)
{
	if (r->layer) {
		bool ok = strcmp(word, "ok") == 0;
		if (!ok && strcmp(word, "na") != 0)
			return fail(r, 1, "a layer has ok and na, not", word);
		return read_condition(r, ok ? &r->layer->ok : &r->layer->na, text, begin, false);
	}
	if (!r->rule)
		return fail(r, 1, "wanted: rule, layer or set, not", word);
	struct dr_rule *rule = r->rule;
	const struct { const char *word; struct dr_lines *lines; } lists[] = {
		{ "fix", &rule->fix }, { "warn", &rule->warn }, { "note", &rule->note }, { "source", &rule->source }, { "group", &rule->group } };
	if (strcmp(word, "title") == 0)
		return read_title(r, text);
	if (strcmp(word, "need") == 0 || strcmp(word, "not") == 0) {
		if (rule->conditions == DR_MAX_CONDITIONS)
			return fail(r, 1, "too many conditions", NULL);
		return read_condition(r, &rule->condition[rule->conditions++], text, begin, word[1] == 'o');
	}
	if (strcmp(word, "after") == 0)
		return read_after(r, text);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (strcmp(word, lists[i].word) == 0) {
			if (lists[i].lines->count == DR_MAX_LINES)
				return fail(r, 1, "too many lines of", word);
			const char *kept = keep(r, text, strlen(text));
			lists[i].lines->line[lists[i].lines->count++] = kept;
			return kept || fail(r, 1, "out of memory", NULL);
		}
	return fail(r, 1, "not understood:", word);
}

static bool
read_line(struct reader *r, char *line)
{
	char *rest = line, *word = strsep(&rest, " ");

	if (!rest || !*rest)
		return fail(r, 1, "wanted: a word and its text", NULL);
	rest += strspn(rest, " \t");
	if (strcmp(word, "rule") == 0)
		return read_rule(r, rest);
	if (strcmp(word, "layer") == 0)
		return read_layer(r, rest);
	if (strcmp(word, "set") == 0)
		return read_set(r, rest);
	return read_part(r, word, rest, (int)(rest - line) + 1);
}

bool
dr_rules_parse(struct dr_rules *rules, const char *name, const char *text, size_t length, char *error, size_t size)
{
	struct reader r = { .rules = rules, .name = name, .error = error, .size = size };
	char line[DR_MAX_LINE + 1];
	size_t have = 0;
	int number = 0;

	rules->arena.cap = 16 << 20;
	for (size_t at = 0; at <= length;) {
		const char *end = at < length ? memchr(text + at, '\n', length - at) : NULL;
		size_t part = at < length ? (end ? (size_t)(end - text) - at : length - at) : 0;
		const char *start = text + at;
		bool last = at >= length;
		at += part + 1;
		number++;
		while (part && isspace((unsigned char)start[part - 1]))
			part--;
		bool continues = part && start[0] == '\t';
		if (have && !continues) { /* the line before is complete */
			line[have] = 0;
			if (!read_line(&r, line))
				return false;
			have = 0;
		}
		if (last)
			break;
		while (continues && part && (*start == '\t' || *start == ' '))
			start++, part--;
		if (part == 0 || (!continues && *start == '#'))
			continue;
		if (!have)
			r.line = number;
		if (memchr(start, 0, part) || have + part + 1 > DR_MAX_LINE || (continues && !have)) {
			r.line = number;
			return fail(&r, 1, continues && !have ? "continues nothing" : "a line is at most 1000 bytes, without zeros", NULL);
		}
		if (have)
			line[have++] = ' ';
		memcpy(line + have, start, part);
		have += part;
	}
	return true;
}

const struct dr_rule *
dr_rule_find(const struct dr_rules *rules, const char *id)
{
	for (int i = 0; i < rules->count; i++)
		if (strcasecmp(rules->rule[i].id, id) == 0)
			return &rules->rule[i];
	return NULL;
}

/* Whether `after` leads from a rule back to the one that was begun with. */
static bool
leads_to(const struct dr_rules *rules, const struct dr_rule *rule, const struct dr_rule *goal, int depth)
{
	for (int i = 0; i < rule->after_count; i++) {
		const struct dr_rule *next = dr_rule_find(rules, rule->after[i]);
		if (next == goal || depth > 8 || (next && leads_to(rules, next, goal, depth + 1)))
			return true;
	}
	return false;
}

bool
dr_rules_check(const struct dr_rules *rules, char *error, size_t size)
{
	for (int i = 0; i < rules->count; i++) {
		const struct dr_rule *rule = &rules->rule[i];
		for (int k = 0; k < rule->after_count; k++)
			if (!dr_rule_find(rules, rule->after[k])) {
				snprintf(error, size, "%s:%d:1: %s is after %s, which is no rule", rule->file, rule->line, rule->id, rule->after[k]);
				return false;
			}
		if (leads_to(rules, rule, rule, 0)) {
			snprintf(error, size, "%s:%d:1: the rules that %s is after lead back to it, or more than 8 steps on", rule->file, rule->line,
			         rule->id);
			return false;
		}
	}
	return true;
}

void
dr_rules_free(struct dr_rules *rules)
{
	for (struct dr_regex *regex = rules->regexes; regex; regex = regex->next)
		regfree(&regex->regex);
	fw_arena_free(&rules->arena);
	rules->regexes = NULL;
	rules->count = 0;
}

const struct dr_rules *
dr_rules_builtin(void)
{
	static struct dr_rules *builtin;
	char error[300];

	if (builtin)
		return builtin;
	struct dr_rules *rules = calloc(1, sizeof(*rules));
	bool good = rules != NULL;
	for (size_t i = 0; good && i < dr_rule_file_count; i++)
		if (!dr_rules_parse(rules, dr_rule_files[i].name, dr_rule_files[i].text, strlen(dr_rule_files[i].text), error, sizeof(error))) {
			fprintf(stderr, "farwarp doctor: %s\n", error);
			good = false;
		}
	if (good && !dr_rules_check(rules, error, sizeof(error))) {
		fprintf(stderr, "farwarp doctor: %s\n", error);
		good = false;
	}
	if (!good && rules) {
		dr_rules_free(rules);
		free(rules);
		rules = NULL;
	}
	return builtin = rules;
}

const char *
dr_who_text(const char *who, char *text, size_t size)
{
	char copy[120], *rest = copy;
	size_t used = 0;

	snprintf(copy, sizeof(copy), "%s", who);
	text[0] = 0;
	for (char *word; (word = strsep(&rest, ","));)
		for (size_t i = 0; i < sizeof(people) / sizeof(people[0]); i++)
			if (strcmp(people[i].word, word) == 0 && used < size)
				used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", or " : "", people[i].text);
	return text;
}
