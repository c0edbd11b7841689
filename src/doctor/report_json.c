/* The report for programs: one JSON object, whose "schema" says its version, with the fact document inside. */
#include <string.h>

#include "doctor/report.h"

static struct fw_json *
lines(const struct dr_judgement *j, const struct dr_lines *from)
{
	struct fw_json *list = fw_json_array();
	char text[DR_MAX_LINE + 200];

	for (int i = 0; i < from->count; i++)
		dr_append_text(list, dr_fill(j, from->line[i], text, sizeof(text)));
	return list;
}

static struct fw_json *
evidence(const struct dr_outcome *o, int first, int last)
{
	struct fw_json *list = fw_json_array();

	for (int i = first; i < last; i++)
		for (int k = 0; k < o->finding[i].count; k++) {
			const struct dr_evidence *e = &o->finding[i].evidence[k];
			struct fw_json *item = dr_append(list);
			dr_set_text(item, "condition", o->rule->condition[i].text);
			dr_set_text(item, "path", e->path);
			dr_set_text(item, "value", e->value);
			if (e->get)
				dr_set_text(item, "get", e->get);
		}
	return list;
}

static struct fw_json *
people(const char *who)
{
	struct fw_json *list = fw_json_array();

	for (const char *at = who; *at; at += strcspn(at, ","), at += *at == ',')
		fw_json_append(list, fw_json_text_n(at, strcspn(at, ",")));
	return list;
}

static struct fw_json *
finding(const struct dr_judgement *j, const struct dr_outcome *o)
{
	const struct dr_rule *rule = o->rule;
	char confidence[2] = { o->confidence, 0 };
	struct fw_json *item = fw_json_object();

	dr_set_text(item, "id", rule->id);
	dr_set_text(item, "state", dr_state_names[rule->state]);
	dr_set_text(item, "layer", dr_layer_names[rule->layer]);
	dr_set_text(item, "title", rule->title);
	dr_set_text(item, "confidence", confidence);
	fw_json_set(item, "who", people(rule->who));
	fw_json_set(item, "fix", lines(j, &rule->fix));
	fw_json_set(item, "warn", lines(j, &rule->warn));
	fw_json_set(item, "note", lines(j, &rule->note));
	fw_json_set(item, "evidence", evidence(o, 0, rule->conditions));
	return item;
}

/* A rule that could have been the verdict and is not, and the evidence that says so. */
static struct fw_json *
excluded(const struct dr_outcome *o)
{
	struct fw_json *item = fw_json_object();

	dr_set_text(item, "id", o->rule->id);
	dr_set_text(item, "title", o->rule->title);
	fw_json_set(item, "because", evidence(o, o->decided_by, o->decided_by + 1));
	return item;
}

static struct fw_json *
layers(const struct dr_judgement *j)
{
	struct fw_json *list = fw_json_array();

	for (int i = 0; i < DR_LAYER_COUNT; i++) {
		struct fw_json *item = dr_append(list);
		dr_set_text(item, "layer", dr_layer_names[i]);
		dr_set_text(item, "state", j->layer[i].state);
		dr_set_text(item, "why", j->layer[i].why);
	}
	return list;
}

void
dr_report_json(const struct dr_judgement *j, FILE *out)
{
	struct fw_json *report = fw_json_object(), *others = fw_json_array(), *possible = fw_json_array(), *ruled_out = fw_json_array();
	struct fw_json *verdict = finding(j, j->verdict);

	dr_set_int(report, "schema", 1);
	dr_set_bool(verdict, "possible", j->possible);
	fw_json_set(report, "verdict", verdict);
	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o == j->verdict)
			continue;
		if (o->kind == DR_FIRED && o->rule->state != DR_OK && o->rule->state != DR_UNKNOWN && !o->rule->fallback)
			fw_json_append(others, finding(j, o));
		else if (o->kind == DR_POSSIBLE)
			fw_json_append(possible, finding(j, o));
		else if (o->kind == DR_RULED_OUT && dr_look_alike(o->rule, j->verdict->rule))
			fw_json_append(ruled_out, excluded(o));
	}
	fw_json_set(report, "findings", others);
	fw_json_set(report, "possible", possible);
	fw_json_set(report, "ruled_out", ruled_out);
	fw_json_set(report, "layers", layers(j));
	fw_json_set(report, "facts", fw_json_copy(j->facts));
	fw_json_write(report, out);
	fputc('\n', out);
	fw_json_free(report);
}
