/* Reports for collectors: Nagios, node-problem-detector, Slurm, Prometheus. The exit code is the caller's. */
#include <string.h>

#include "doctor/report.h"

/* The worst of what was found besides the verdict: a warning turns Nagios yellow. */
static const struct dr_outcome *
first_warning(const struct dr_judgement *j)
{
	for (int i = 0; i < j->rules->count; i++)
		if (j->outcome[i].kind == DR_FIRED && j->outcome[i].rule->state == DR_WARN)
			return &j->outcome[i];
	return NULL;
}

void
dr_report_nagios(const struct dr_judgement *j, FILE *out)
{
	const struct dr_rule *rule = j->verdict->rule;
	const struct dr_outcome *warning = rule->state == DR_OK ? first_warning(j) : NULL;
	const char *word = rule->state == DR_FAULT ? "CRITICAL" : rule->state != DR_OK ? "UNKNOWN" : warning ? "WARNING" : "OK";

	if (warning)
		rule = warning->rule;
	fprintf(out, "%s - %s: %s | works=%d\n", word, rule->id, rule->title, j->verdict->rule->state == DR_OK);
}

void
dr_report_npd(const struct dr_judgement *j, FILE *out)
{
	fprintf(out, "%s: %s\n", j->verdict->rule->id, j->verdict->rule->title);
}

/* As a drain reason: no quotes, no commas' trouble, one line. */
void
dr_report_slurm(const struct dr_judgement *j, FILE *out)
{
	fprintf(out, "farwarp %s: %s\n", j->verdict->rule->id, j->verdict->rule->title);
}

static void
label(const char *text, FILE *out)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		fputc(*text == '\n' ? ' ' : *text, out);
	}
}

void
dr_report_prometheus(const struct dr_judgement *j, FILE *out)
{
	fprintf(out, "# HELP farwarp_doctor_works 1 if CUDA works here, 0 if a fault was found, -1 if that could not be told.\n"
	             "# TYPE farwarp_doctor_works gauge\nfarwarp_doctor_works %d\n",
	        j->verdict->rule->state == DR_OK ? 1 : j->verdict->rule->state == DR_FAULT ? 0 : -1);
	fprintf(out, "# HELP farwarp_doctor_finding Rules that fired; verdict=\"1\" marks the cause.\n# TYPE farwarp_doctor_finding gauge\n");
	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind != DR_FIRED && o != j->verdict)
			continue;
		fprintf(out, "farwarp_doctor_finding{id=\"%s\",state=\"%s\",layer=\"%s\",verdict=\"%d\",title=\"", o->rule->id,
		        dr_state_names[o->rule->state], dr_layer_names[o->rule->layer], o == j->verdict);
		label(o->rule->title, out);
		fputs("\"} 1\n", out);
	}
	fprintf(out, "# HELP farwarp_doctor_layer 1 ok, 0 fault, -1 unknown; a layer that does not apply is left out.\n"
	             "# TYPE farwarp_doctor_layer gauge\n");
	for (int i = 0; i < DR_LAYER_COUNT; i++)
		if (strcmp(j->layer[i].state, "not applicable") != 0)
			fprintf(out, "farwarp_doctor_layer{layer=\"%s\"} %d\n", dr_layer_names[i],
			        strcmp(j->layer[i].state, "ok") == 0 ? 1 : strcmp(j->layer[i].state, "fault") == 0 ? 0 : -1);
}
