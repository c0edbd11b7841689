/*
 * Judges every recorded machine of a folder, in TAP.
 *
 *	test_machines FOLDER              each machine and variant has the outcome that it expects; every path is the schema's; each rule has
 *	                                  a machine where it fires and one that it must not be taken for; and dropping any one condition, or
 *	                                  "after", of a rule changes some machine's outcome
 *	test_machines --coverage FOLDER   prints docs/doctor-coverage.md
 *
 * What a machine expects: {"verdict": ID, "also": [IDs that fire too], "not": [look-alikes], "possible": bool, "layers": {LAYER: STATE}}.
 * What fires is exactly verdict and also; a fallback need not be named.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "doctor/rules.h"

#define MAX_MACHINES 4000

struct machine {
	char *name;      /* "F020" or "F020:nouveau-too" */
	struct fw_json *facts, *expect;
};

static struct machine machine[MAX_MACHINES];
static int machines, number;
static const struct dr_rules *rules;
static bool quiet; /* only the page is wanted */

static void
result(bool good, const char *what, const char *of)
{
	number++;
	if (!quiet)
		printf("%sok %d - %s%s%s\n", good ? "" : "not ", number, what, of ? " " : "", of ? of : "");
}

static void
add(const char *path, const char *name, const char *variant, const struct fw_json *expect)
{
	char error[400], full[400];
	struct fw_json *facts = dr_document_read(path, variant, error, sizeof(error));

	snprintf(full, sizeof(full), "%s%s%s", name, variant ? ":" : "", variant ? variant : "");
	if (!facts && !quiet)
		printf("# %s\n", error);
	if (!facts || !fw_json_is(expect, FW_JSON_OBJECT) || machines == MAX_MACHINES) {
		result(false, "machine has facts and says what it expects:", full);
		fw_json_free(facts);
		return;
	}
	machine[machines++] = (struct machine){ strdup(full), facts, fw_json_copy(expect) };
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void
load(const char *folder)
{
	struct dirent **entry;
	int count = scandir(folder, &entry, NULL, by_name);

	for (int i = 0; i < count; i++) {
		char path[4096], name[256];
		size_t length = strlen(entry[i]->d_name);
		if (length < 6 || strcmp(entry[i]->d_name + length - 5, ".json") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry[i]->d_name);
		snprintf(name, sizeof(name), "%.*s", (int)(length - 5), entry[i]->d_name);
		char error[400];
		struct fw_json *document = dr_document_load(path, error, sizeof(error));
		if (!document) {
			if (!quiet)
				printf("# %s\n", error);
			result(false, "machine can be read:", name);
			continue;
		}
		add(path, name, NULL, fw_json_get(document, "expect"));
		const struct fw_json *variants = fw_json_get(document, "variants");
		for (size_t k = 0; k < fw_json_size(variants); k++)
			add(path, name, fw_json_name_at(variants, k), fw_json_get(fw_json_at(variants, k), "expect"));
		fw_json_free(document);
	}
	for (int i = 0; i < count; i++)
		free(entry[i]);
	if (count >= 0)
		free(entry);
	if (!quiet)
		printf("# %d machines\n", machines);
}

/* ---- expectations ---- */

static bool
names(const struct fw_json *list, const char *id)
{
	for (size_t i = 0; i < fw_json_size(list); i++)
		if (fw_json_is(fw_json_at(list, i), FW_JSON_TEXT) && strcmp(fw_json_as_text(fw_json_at(list, i)), id) == 0)
			return true;
	return false;
}

/* Whether a rule belongs to the set that a machine names exactly. */
static bool
is_named(const struct dr_rule *rule)
{
	return !rule->fallback;
}

static bool
check_ids(const struct machine *m, const char *key)
{
	const struct fw_json *list = fw_json_get(m->expect, key);
	bool good = true;

	for (size_t i = 0; i < fw_json_size(list); i++) {
		const char *id = fw_json_as_text(fw_json_at(list, i));
		if (!id || !dr_rule_find(rules, id)) {
			printf("# \"%s\" names %s, which is no rule\n", key, id ? id : "something");
			good = false;
		}
	}
	return good;
}

static bool
as_expected(const struct machine *m, const struct dr_judgement *j, bool say)
{
	const char *want = dr_get_text(m->expect, "verdict", "");
	const struct fw_json *also = fw_json_get(m->expect, "also"), *not = fw_json_get(m->expect, "not");
	bool good = strcmp(j->verdict->rule->id, want) == 0;

	if (!good && say)
		printf("# verdict is %s, not %s\n", j->verdict->rule->id, want);
	if (dr_get_bool(m->expect, "possible", false) != j->possible) {
		good = false;
		if (say)
			printf("# the verdict is %s\n", j->possible ? "a possible one only" : "sure, not a possible one");
	}
	for (int i = 0; i < rules->count; i++) {
		const struct dr_rule *rule = &rules->rule[i];
		bool fired = j->outcome[i].kind == DR_FIRED, wanted = strcmp(rule->id, want) == 0 || names(also, rule->id);
		if (j->possible && strcmp(rule->id, want) == 0)
			wanted = false;
		if (is_named(rule) && fired != wanted) {
			good = false;
			if (say)
				printf("# %s %s\n", rule->id, fired ? "fires and is not expected" : "does not fire");
		}
		if (fired && names(not, rule->id)) {
			good = false;
			if (say)
				printf("# %s fires and is named under not\n", rule->id);
		}
	}
	for (int i = 0; i < DR_LAYER_COUNT; i++) {
		const char *state = fw_json_as_text(fw_json_get(fw_json_get(m->expect, "layers"), dr_layer_names[i]));
		if (state && strcmp(j->layer[i].state, state) != 0) {
			good = false;
			if (say)
				printf("# layer %s is %s, not %s\n", dr_layer_names[i], j->layer[i].state, state);
		}
	}
	return good;
}

/* ---- the schema ---- */

static bool
check_paths(const struct fw_json *value, const char *path, int depth)
{
	char below[DR_MAX_PATH];
	bool good = true;
	const struct dr_schema_row *row = *path ? dr_schema_find(path) : NULL;

	bool element = *path && path[strlen(path) - 1] == ']'; /* a list's elements have rows for their members only */
	if (*path && !row && !element) {
		printf("# facts.schema has no path %s\n", path);
		return false;
	}
	if (row && !dr_is_unseen(value) && !fw_json_is(value, FW_JSON_NULL)) {
		static const enum dr_type types[] = { [FW_JSON_TEXT] = DR_TEXT, [FW_JSON_INT] = DR_INT, [FW_JSON_REAL] = DR_REAL, [FW_JSON_BOOL] = DR_BOOL,
		                                      [FW_JSON_ARRAY] = DR_LIST, [FW_JSON_OBJECT] = DR_OBJECT };
		enum dr_type is = types[fw_json_kind(value)];
		if (is != row->type && !(is == DR_OBJECT && row->type == DR_MAP) && !(is == DR_INT && row->type == DR_REAL) &&
		    !(is == DR_OBJECT && row->type == DR_OBJECT)) {
			printf("# %s has another type than facts.schema says\n", path);
			good = false;
		}
	}
	if (dr_is_unseen(value) || depth > DR_MAX_DEPTH)
		return good;
	for (size_t i = 0; i < fw_json_size(value); i++) {
		const char *name = fw_json_name_at(value, i);
		const struct fw_json *member = fw_json_at(value, i);
		if (name)
			snprintf(below, sizeof(below), "%s%s%s", path, *path ? "." : "", name);
		else
			snprintf(below, sizeof(below), "%s[%zu]", path, i);
		good &= (!name && !fw_json_is(member, FW_JSON_OBJECT)) || check_paths(member, below, depth + 1);
	}
	return good;
}

/* ---- coverage and mutation ---- */

struct coverage {
	int fires, look_alikes, conditions, killed;
	const char *first_fires, *first_look_alike;
	bool kill[DR_MAX_CONDITIONS + DR_MAX_AFTER];
};
static struct coverage coverage[DR_MAX_RULES];

/* Of a rule whose firing machines name exactly: dropping a condition is seen if the others hold and it does not. */
static void
mutate_named(const struct machine *m, int index)
{
	const struct dr_rule *rule = &rules->rule[index];
	struct fw_arena arena = { 0 };
	int failing = -1, count = 0;

	for (int i = 0; i < rule->conditions; i++) {
		struct dr_finding finding;
		dr_evaluate(rule->condition[i].expr, m->facts, &arena, &finding);
		bool holds = rule->condition[i].excludes ? finding.truth != DR_TRUE : finding.truth == DR_TRUE;
		if (!holds) {
			failing = i;
			count++;
		}
	}
	if (count == 1)
		coverage[index].kill[failing] = true;
	fw_arena_free(&arena);
}

/* Of others, and of "after": judge again and compare. */
static void
mutate_verdict(const struct machine *m, int index, bool conditions)
{
	const struct dr_rule *rule = &rules->rule[index];

	for (int i = 0; i < (conditions ? rule->conditions : 0) + rule->after_count; i++) {
		bool is_after = !conditions || i >= rule->conditions;
		int which = is_after && conditions ? i - rule->conditions : i;
		struct dr_drop drop = { rule->id, is_after ? -1 : which, is_after ? which : -1 };
		struct dr_judgement j;
		bool *kill = &coverage[index].kill[is_after ? rule->conditions + which : which];
		if (*kill || !dr_judge(&j, rules, m->facts, &drop))
			continue;
		*kill = !as_expected(m, &j, false);
		dr_judgement_free(&j);
	}
}

static void
cover(void)
{
	for (int k = 0; k < machines; k++) {
		const struct machine *m = &machine[k];
		struct dr_judgement j;
		if (!dr_judge(&j, rules, m->facts, NULL))
			continue;
		for (int i = 0; i < rules->count; i++) {
			struct coverage *c = &coverage[i];
			const struct dr_rule *rule = &rules->rule[i];
			const char *verdict = dr_get_text(m->expect, "verdict", "");
			if (j.outcome[i].kind == DR_FIRED && (strcmp(verdict, rule->id) == 0 || (is_named(rule) && rule->state != DR_FAULT))) {
				if (!c->fires++)
					c->first_fires = m->name;
			}
			if (names(fw_json_get(m->expect, "not"), rule->id) && !c->look_alikes++)
				c->first_look_alike = m->name;
			if (is_named(rule))
				mutate_named(m, i);
			if (!is_named(rule) || rule->after_count)
				mutate_verdict(m, i, !is_named(rule));
		}
		dr_judgement_free(&j);
	}
	for (int i = 0; i < rules->count; i++) {
		coverage[i].conditions = rules->rule[i].conditions + rules->rule[i].after_count;
		for (int k = 0; k < coverage[i].conditions; k++)
			coverage[i].killed += coverage[i].kill[k];
	}
}

static void
check_rules(void)
{
	for (int i = 0; i < rules->count; i++) {
		const struct dr_rule *rule = &rules->rule[i];
		struct coverage *c = &coverage[i];
		bool good = c->fires > 0 && (c->look_alikes > 0 || rule->state == DR_OK || rule->state == DR_UNKNOWN || rule->fallback);
		if (!c->fires)
			printf("# no machine has it as its verdict\n");
		if (!good && !c->look_alikes)
			printf("# no machine names it under \"not\"\n");
		for (int k = 0; k < c->conditions; k++)
			if (!c->kill[k]) {
				good = false;
				printf("# dropping \"%s%s\" changes no machine's outcome\n", k < rule->conditions ? "" : "after ",
				       k < rule->conditions ? rule->condition[k].text : rule->after[k - rule->conditions]);
			}
		result(good, "rule is covered:", rule->id);
	}
}

static void
print_coverage(void)
{
	int total = 0, killed = 0;

	printf("# What the doctor's tests cover\n\nMade by `test_machines --coverage tests/machines`; a test keeps it equal. Every rule has a recorded "
	       "machine where it is the finding, and a look-alike\nthat must not be taken for it; dropping any one of its conditions changes the outcome "
	       "of some machine.\n\n| rule | layer | state | finding | fires in | look-alike that it must not be | conditions |\n|---|---|---|---|---|---|---|\n");
	for (int i = 0; i < rules->count; i++) {
		const struct dr_rule *rule = &rules->rule[i];
		const struct coverage *c = &coverage[i];
		printf("| %s | %s | %s | %s | %s (%d) | %s (%d) | %d of %d |\n", rule->id, dr_layer_names[rule->layer], dr_state_names[rule->state],
		       rule->title, c->first_fires ? c->first_fires : "-", c->fires, c->first_look_alike ? c->first_look_alike : "-", c->look_alikes,
		       c->killed, c->conditions);
		total += c->conditions;
		killed += c->killed;
	}
	printf("\n%d rules, %d machines, %d of %d conditions shown to matter.\n", rules->count, machines, killed, total);
}

int
main(int argc, char **argv)
{
	bool print = argc == 3 && strcmp(argv[1], "--coverage") == 0;
	struct timespec begin, end;

	setvbuf(stdout, NULL, _IOLBF, 0);
	rules = dr_rules_builtin();
	if ((argc != 2 && !print) || !rules) {
		fprintf(stderr, "usage: test_machines [--coverage] FOLDER\n");
		return 64;
	}
	if (print) {
		quiet = true;
		load(argv[2]);
		cover();
		print_coverage();
		return 0;
	}
	load(argv[1]);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
	for (int i = 0; i < machines; i++) {
		struct dr_judgement j;
		bool good = check_ids(&machine[i], "also") & check_ids(&machine[i], "not") & check_paths(machine[i].facts, "", 0);
		if (!dr_judge(&j, rules, machine[i].facts, NULL))
			return 1;
		good &= as_expected(&machine[i], &j, true);
		result(good, "machine", machine[i].name);
		dr_judgement_free(&j);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	double each = ((double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-6) / (machines ? machines : 1);
	printf("# %.3f ms a machine\n", each);
	result(machines > 0 && each < 50, "judging is quick", NULL);
	cover();
	check_rules();
	printf("1..%d\n", number);
	for (int i = 0; i < machines; i++) {
		free(machine[i].name);
		fw_json_free(machine[i].facts);
		fw_json_free(machine[i].expect);
	}
	return 0;
}
