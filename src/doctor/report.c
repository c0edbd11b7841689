/* The report for people, in a terminal, and what all reports share. */
#include "doctor/report.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor/doctor.h"

static const struct {
	int value;
	const char *name, *text;
} error_names[] = {
#include "cuda_names.inc"
};

const char *
dr_cuda_error_name(int result)
{
	for (size_t i = 0; i < sizeof(error_names) / sizeof(error_names[0]); i++)
		if (error_names[i].value == result)
			return error_names[i].name;
	return "(unknown code)";
}

const char *
dr_printable(const char *value, char *text, size_t size)
{
	size_t used = 0;

	for (; *value && used + 1 < size; value++)
		text[used++] = (unsigned char)*value < 0x20 || *value == 0x7f ? '?' : *value;
	text[used] = 0;
	return text;
}

const char *
dr_fill(const struct dr_judgement *j, const char *line, char *text, size_t size)
{
	char path[DR_MAX_PATH];
	size_t used = 0;

	while (*line && used + 1 < size) {
		const char *close = *line == '{' ? strchr(line, '}') : NULL;
		if (close && (size_t)(close - line) < sizeof(path)) {
			snprintf(path, sizeof(path), "%.*s", (int)(close - line - 1), line + 1);
			const struct fw_json *value = dr_schema_find(path) ? dr_get(j->facts, path) : NULL;
			char shown[200] = "";
			if (fw_json_is(value, FW_JSON_TEXT))
				dr_printable(fw_json_as_text(value), shown, sizeof(shown));
			else if (fw_json_is(value, FW_JSON_INT))
				snprintf(shown, sizeof(shown), "%lld", (long long)fw_json_as_int(value));
			if (dr_schema_find(path)) {
				if (!shown[0]) { /* not known: its name, in capitals, to be filled in */
					snprintf(shown, sizeof(shown), "%s", strrchr(path, '.') ? strrchr(path, '.') + 1 : path);
					for (char *c = shown; *c; c++)
						*c = (char)toupper((unsigned char)*c);
				}
				used += (size_t)snprintf(text + used, size - used, "%s", shown);
				used = used < size ? used : size - 1;
				line = close + 1;
				continue;
			}
		}
		text[used++] = *line++;
	}
	text[used] = 0;
	return text;
}

/* The words behind a number in a meaning: "0 none, 1 reset". false: it does not say. */
static bool
meaning_of(const char *meaning, long long number, char *words, size_t size)
{
	char wanted[24];
	size_t length = (size_t)snprintf(wanted, sizeof(wanted), "%lld ", number);

	for (const char *at = meaning; (at = strstr(at, wanted)); at++)
		if (at == meaning || (at[-1] == ' ' && at - meaning > 1 && (at[-2] == ',' || at[-2] == ';'))) {
			snprintf(words, size, "%.*s", (int)strcspn(at + length, ",;"), at + length);
			return true;
		}
	return false;
}

/* What tells an element of a list from the others: its path, address or name, if the evidence is another fact of it. */
static const char *
element_of(const struct dr_judgement *j, const char *path)
{
	static const char *const names[] = { "path", "address", "name", "dir" };
	char element[DR_MAX_PATH];
	const char *close = strrchr(path, ']');

	if (!close || !close[1])
		return NULL;
	snprintf(element, sizeof(element), "%.*s", (int)(close - path) + 1, path);
	const struct fw_json *object = dr_get(j->facts, element);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (dr_get_text(object, names[i], NULL))
			return strcmp(close + 2, names[i]) == 0 ? NULL : dr_get_text(object, names[i], NULL);
	return NULL;
}

const char *
dr_value(const struct dr_judgement *j, const struct dr_evidence *e, char *text, size_t size)
{
	char value[200], words[80] = "", of[120] = "", *end;
	const struct dr_schema_row *row = dr_schema_find(e->path);
	long long number = strtoll(e->value, &end, 10);
	const char *element = element_of(j, e->path);

	if (row && row->type == DR_INT && end != e->value && !*end) {
		bool cuda = strncmp(e->path, "driver.steps.", 13) == 0 && !strstr(e->path, ".dlopen.");
		if (cuda)
			snprintf(words, sizeof(words), "%s", dr_cuda_error_name((int)number));
		else
			meaning_of(row->meaning, number, words, sizeof(words));
	}
	dr_printable(e->value, value, sizeof(value));
	if (element)
		dr_printable(element, of, sizeof(of));
	snprintf(text, size, "%s%s%s%s%s%s", value, *words ? " (" : "", words, *words ? ")" : "", *of ? ", of " : "", of);
	return text;
}

const char *
dr_reason(const struct dr_judgement *j, const struct dr_outcome *outcome, char *text, size_t size)
{
	const struct dr_finding *finding = &outcome->finding[outcome->decided_by];
	const struct dr_condition *condition = &outcome->rule->condition[outcome->decided_by];
	size_t used = 0;
	char value[400];
	bool told = finding->count == 1 && strstr(finding->evidence[0].value, " with "); /* the value repeats the condition */

	text[0] = 0;
	for (int i = 0; i < finding->count && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s: %s", used ? ", " : "", finding->evidence[i].path,
		                         dr_value(j, &finding->evidence[i], value, sizeof(value)));
	if (used < size && !told)
		snprintf(text + used, size - used, "%s(%s: %s)", used ? " " : "", condition->excludes ? "excluded by" : "needs", condition->text);
	return text;
}

bool
dr_look_alike(const struct dr_rule *a, const struct dr_rule *b)
{
	for (int i = 0; i < a->group.count; i++)
		for (int k = 0; k < b->group.count; k++)
			if (strcmp(a->group.line[i], b->group.line[k]) == 0)
				return true;
	return false;
}

bool
dr_may_be(const struct dr_judgement *j, const struct dr_outcome *o)
{
	const struct dr_rule *verdict = j->verdict->rule;
	bool unsure = verdict->fallback || verdict->state == DR_UNKNOWN || j->possible;

	return unsure && o->kind == DR_POSSIBLE && o != j->verdict && o->rule->state == DR_FAULT && o->seen > o->unseen;
}

const char *
dr_missing(const struct dr_outcome *o, char *text, size_t size)
{
	size_t used = 0;

	text[0] = 0;
	for (int i = 0; i < o->rule->conditions; i++)
		for (int k = 0; k < o->finding[i].count && used < size; k++) {
			const struct dr_evidence *e = &o->finding[i].evidence[k];
			if (e->get && *e->get)
				used += (size_t)snprintf(text + used, size - used, "%s%s: %s", used ? "; " : "see ", e->path, e->get);
		}
	return text;
}

static void
print_lines(const struct dr_judgement *j, const char *heading, const struct dr_lines *lines, FILE *out)
{
	char text[DR_MAX_LINE + 200];

	if (lines->count)
		fprintf(out, "\n  %s\n", heading);
	for (int i = 0; i < lines->count; i++)
		fprintf(out, "    %s\n", dr_fill(j, lines->line[i], text, sizeof(text)));
}

/* Sentences, in lines of at most 100 bytes; commands are never broken. */
static void
print_prose(const struct dr_judgement *j, const char *heading, const struct dr_lines *lines, FILE *out)
{
	char text[DR_MAX_LINE + 200];

	if (lines->count)
		fprintf(out, "\n  %s\n", heading);
	for (int i = 0; i < lines->count; i++) {
		const char *at = dr_fill(j, lines->line[i], text, sizeof(text));
		for (int indent = 4; *at; indent = 6) {
			size_t length = strlen(at), room = 100 - (size_t)indent, fits = length;
			if (length > room)
				for (fits = room; fits > 0 && at[fits] != ' ';)
					fits--;
			if (!fits) /* a word that is longer than a line */
				fits = strcspn(at, " ");
			fprintf(out, "%*s%.*s\n", indent, "", (int)fits, at);
			at += fits;
			at += strspn(at, " ");
		}
	}
}

/* What was seen that makes an outcome, and what is missing. */
static void
print_evidence(const struct dr_judgement *j, const struct dr_outcome *o, FILE *out)
{
	char value[400];
	bool heading = false;

	for (int pass = 0; pass < 2; pass++, heading = false)
		for (int i = 0; i < o->rule->conditions; i++)
			for (int k = 0; k < o->finding[i].count; k++) {
				const struct dr_evidence *e = &o->finding[i].evidence[k];
				bool missing = e->get != NULL;
				if (missing != (pass == 1))
					continue;
				if (!heading)
					fprintf(out, "\n  %s\n", pass ? "could not be seen; each would make this surer:" : "evidence:");
				heading = true;
				fprintf(out, "    %-36s %s\n", e->path, dr_value(j, e, value, sizeof(value)));
				if (missing && *e->get)
					fprintf(out, "    %-36s get it with: %s\n", "", e->get);
			}
}

static void
print_findings(const struct dr_judgement *j, FILE *out)
{
	bool heading = false;

	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		bool shown = o->kind == DR_FIRED && o != j->verdict && o->rule->state != DR_OK && o->rule->state != DR_UNKNOWN && !o->rule->fallback;
		if (!shown)
			continue;
		if (!heading)
			fprintf(out, "\n  found as well:\n");
		heading = true;
		fprintf(out, "    %-5s %s: %s\n", dr_state_names[o->rule->state], o->rule->id, o->rule->title);
	}
	if (heading)
		fprintf(out, "    farwarp doctor --explain ID says what to do about each\n");
}

/* Look-alikes of the verdict that it is not; and, where no cause is sure, what it may be. */
static void
print_others(const struct dr_judgement *j, FILE *out)
{
	const struct dr_rule *verdict = j->verdict->rule;
	bool heading = false;
	char text[600];

	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind != DR_RULED_OUT || o == j->verdict || !dr_look_alike(o->rule, verdict))
			continue;
		if (!heading)
			fprintf(out, "\n  ruled out:\n");
		heading = true;
		fprintf(out, "    %s: %s\n          not this: %s\n", o->rule->id, o->rule->title, dr_reason(j, o, text, sizeof(text)));
	}
	heading = false;
	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (!dr_may_be(j, o))
			continue;
		if (!heading)
			fprintf(out, "\n  possible, with evidence missing:\n");
		heading = true;
		fprintf(out, "    %s: %s\n", o->rule->id, o->rule->title);
		for (int c = 0; c < o->rule->conditions; c++)
			for (int k = 0; k < o->finding[c].count; k++)
				if (o->finding[c].evidence[k].get && *o->finding[c].evidence[k].get)
					fprintf(out, "          see %s: %s\n", o->finding[c].evidence[k].path, o->finding[c].evidence[k].get);
	}
}

void
dr_report_text(const struct dr_judgement *j, FILE *out)
{
	const struct dr_rule *rule = j->verdict->rule;
	bool colour = isatty(fileno(out));
	const char *paint = !colour ? "" : rule->state == DR_OK ? "\033[1;32m" : rule->state == DR_FAULT ? "\033[1;31m" : "\033[1;33m";
	char text[400];

	fprintf(out, "%s%s: %s%s\n", paint, rule->id, rule->title, colour ? "\033[0m" : "");
	if (j->possible)
		fprintf(out, "  possible: some of its evidence could not be seen\n");
	if (strcmp(rule->who, "nobody") != 0)
		fprintf(out, "  who can fix it: %s\n", dr_who_text(rule->who, text, sizeof(text)));
	print_lines(j, "what to do:", &rule->fix, out);
	print_prose(j, "beware:", &rule->warn, out);
	print_prose(j, "note:", &rule->note, out);
	print_evidence(j, j->verdict, out);
	print_findings(j, out);
	print_others(j, out);
	fprintf(out, "\n  layers:\n");
	for (int i = 0; i < DR_LAYER_COUNT; i++)
		fprintf(out, "    %-22s %-15s %s\n", j->rules->layer[i].title ? j->rules->layer[i].title : dr_layer_names[i], j->layer[i].state,
		        dr_printable(j->layer[i].why, text, sizeof(text)));
	if (rule->state == DR_FAULT)
		fprintf(out, "\n  confidence %c; farwarp doctor --explain %s says what it rests on\n", j->verdict->confidence, rule->id);
}

void
dr_report_rule(const struct dr_rule *rule, FILE *out)
{
	static const char *const sureness[] = { "read in source code or in a public report", "documented by the vendor", "general knowledge" };
	const struct { const char *heading; const struct dr_lines *lines; } parts[] = {
		{ "what to do:", &rule->fix }, { "beware:", &rule->warn }, { "note:", &rule->note }, { "source:", &rule->source } };
	char text[400];

	fprintf(out, "%s: %s\n", rule->id, rule->title);
	fprintf(out, "  layer: %s; state: %s; confidence %c: %s\n", dr_layer_names[rule->layer], dr_state_names[rule->state], rule->confidence,
	        sureness[rule->confidence - 'A']);
	fprintf(out, "  who can fix it: %s\n", dr_who_text(rule->who, text, sizeof(text)));
	fprintf(out, "\n  fires when:\n");
	for (int i = 0; i < rule->conditions; i++)
		fprintf(out, "    %s %s\n", rule->condition[i].excludes ? "unless" : "      ", rule->condition[i].text);
	for (int i = 0; i < rule->after_count; i++)
		fprintf(out, "    gives way to %s\n", rule->after[i]);
	for (size_t p = 0; p < sizeof(parts) / sizeof(parts[0]); p++) {
		if (parts[p].lines->count)
			fprintf(out, "\n  %s\n", parts[p].heading);
		for (int i = 0; i < parts[p].lines->count; i++)
			fprintf(out, "    %s\n", parts[p].lines->line[i]);
	}
}
