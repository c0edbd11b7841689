/* The report as one page that needs nothing else: no script, no font, no picture; readable on a phone. */
#include <string.h>

#include "doctor/report.h"

static const char head[] =
	"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<style>\n"
	"*{box-sizing:border-box}body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:50rem;padding:1rem;color:#1b1b1b;background:#fff;"
	"overflow-wrap:anywhere}\n"
	"h1{font-size:1.25rem;line-height:1.3;margin:0 0 1rem;padding:.8rem 1rem;border-radius:.5rem;color:#fff}\n"
	"h2{font-size:1rem;margin:1.6rem 0 .4rem}p{margin:.3rem 0}\n"
	".ok{background:#146c2e}.fault{background:#a4161a}.unknown,.warn,.info{background:#7a5b00}\n"
	/* A command that is wrapped continues further to the right than the next one begins. */
	".do{background:#f2f2f2;padding:.5rem .8rem;border-radius:.4rem;font:.9rem/1.45 ui-monospace,monospace}"
	".do div{padding:.2rem 0 .2rem 1.5rem;text-indent:-1.5rem;white-space:pre-wrap}.do div+div{border-top:1px solid #ddd}\n"
	".beware{border-left:.3rem solid #b45309;padding:.1rem 0 .1rem .8rem}\n"
	"table{border-collapse:collapse;width:100%}td{vertical-align:top;padding:.35rem .5rem;border-top:1px solid #ddd}"
	"td:first-child{padding-left:0}.id td:first-child{white-space:nowrap;width:1%}.fact td:first-child{width:45%}\n"
	"b{white-space:nowrap;font-size:.85rem;padding:.05rem .45rem;border-radius:.3rem;color:#fff}.na{background:#5c5c5c}\n"
	".small{color:#555;font-size:.9rem}\n"
	"@media(max-width:34rem){.fact,.fact tbody,.fact tr,.fact td{display:block;width:auto}.fact td:first-child{width:auto;padding:.35rem 0 0}"
	".fact td+td{border:0;padding:0 0 .35rem 1rem}}\n"
	"@media(prefers-color-scheme:dark){body{background:#161616;color:#eaeaea}.do{background:#262626}td,.do div+div{border-color:#3a3a3a}"
	".small{color:#b0b0b0}.na{background:#6a6a6a}}\n";

static void
escaped(const char *text, FILE *out)
{
	for (; *text; text++)
		switch (*text) {
		case '<': fputs("&lt;", out); break;
		case '>': fputs("&gt;", out); break;
		case '&': fputs("&amp;", out); break;
		case '"': fputs("&quot;", out); break;
		default: fputc((unsigned char)*text < 0x20 && *text != '\n' ? '?' : *text, out);
		}
}

/* "CAUSE -> FIX", whose arrow must not be broken at a line's end. */
static void
title(const struct dr_rule *rule, FILE *out)
{
	const char *arrow = strstr(rule->title, " -> ");
	char cause[DR_FIRST_LINE + 1];

	snprintf(cause, sizeof(cause), "%.*s", (int)(arrow ? (size_t)(arrow - rule->title) : strlen(rule->title)), rule->title);
	escaped(cause, out);
	if (arrow) {
		fputs(" &rarr; ", out);
		escaped(arrow + 4, out);
	}
}

static void
heading(const char *text, FILE *out)
{
	fprintf(out, "<h2>%s</h2>\n", text);
}

/* Commands, each a block of its own; what stands behind " # " explains one. */
static void
commands(const struct dr_judgement *j, const struct dr_lines *lines, FILE *out)
{
	char text[DR_MAX_LINE + 200];

	if (!lines->count)
		return;
	heading("What to do", out);
	fputs("<div class=\"do\">\n", out);
	for (int i = 0; i < lines->count; i++) {
		dr_fill(j, lines->line[i], text, sizeof(text));
		char *comment = strstr(text, "  # "), *end = comment;
		while (end && end > text && end[-1] == ' ')
			end--;
		if (end)
			*end = 0;
		fputs("<div>", out);
		escaped(text, out);
		if (comment) {
			fputs(" <span class=\"small\">", out);
			escaped(comment + 2, out);
			fputs("</span>", out);
		}
		fputs("</div>\n", out);
	}
	fputs("</div>\n", out);
}

static void
sentences(const struct dr_judgement *j, const char *name, const char *class_name, const struct dr_lines *lines, FILE *out)
{
	char text[DR_MAX_LINE + 200];

	if (!lines->count)
		return;
	heading(name, out);
	for (int i = 0; i < lines->count; i++) {
		fprintf(out, "<p class=\"%s\">", class_name);
		escaped(dr_fill(j, lines->line[i], text, sizeof(text)), out);
		fputs("</p>\n", out);
	}
}

/* A table is begun by its first row, so that none is empty. */
static void
row(bool *begun, const char *name, const char *class_name, const char *first, const char *second, const char *third, FILE *out)
{
	if (!*begun) {
		heading(name, out);
		fprintf(out, "<table class=\"%s\">\n", class_name);
	}
	*begun = true;
	fputs("<tr><td>", out);
	escaped(first, out);
	fputs("</td><td>", out);
	escaped(second, out);
	if (third && *third) {
		fputs("<br><span class=\"small\">", out);
		escaped(third, out);
		fputs("</span>", out);
	}
	fputs("</td></tr>\n", out);
}

static void
end_table(bool begun, FILE *out)
{
	if (begun)
		fputs("</table>\n", out);
}

/* What was seen; or, in a second table, what could not be and how it can. */
static void
evidence(const struct dr_judgement *j, const struct dr_outcome *o, bool missing, FILE *out)
{
	char value[400], get[600];
	bool begun = false;

	for (int i = 0; i < o->rule->conditions; i++)
		for (int k = 0; k < o->finding[i].count; k++) {
			const struct dr_evidence *e = &o->finding[i].evidence[k];
			if ((e->get != NULL) != missing)
				continue;
			snprintf(get, sizeof(get), "%s%s", missing && *e->get ? "get it with: " : "", missing ? e->get : "");
			row(&begun, missing ? "Could not be seen" : "Evidence", "fact", e->path, dr_value(j, e, value, sizeof(value)), get, out);
		}
	end_table(begun, out);
}

static void
others(const struct dr_judgement *j, FILE *out)
{
	bool found = false, ruled_out = false, possible = false;
	char text[600];

	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		bool shown = o->kind == DR_FIRED && o != j->verdict && o->rule->state != DR_OK && o->rule->state != DR_UNKNOWN && !o->rule->fallback;
		if (shown)
			row(&found, "Found as well", "id", o->rule->id, o->rule->title, dr_state_names[o->rule->state], out);
	}
	end_table(found, out);
	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind == DR_RULED_OUT && o != j->verdict && dr_look_alike(o->rule, j->verdict->rule))
			row(&ruled_out, "Ruled out", "id", o->rule->id, o->rule->title, dr_reason(j, o, text, sizeof(text)), out);
	}
	end_table(ruled_out, out);
	for (int i = 0; i < j->rules->count; i++)
		if (dr_may_be(j, &j->outcome[i]))
			row(&possible, "Possible, with evidence missing", "id", j->outcome[i].rule->id, j->outcome[i].rule->title,
			    dr_missing(&j->outcome[i], text, sizeof(text)), out);
	end_table(possible, out);
}

static void
layers(const struct dr_judgement *j, FILE *out)
{
	heading("Layers", out);
	fputs("<table class=\"id\">\n", out);
	for (int i = 0; i < DR_LAYER_COUNT; i++) {
		const char *state = j->layer[i].state;
		fprintf(out, "<tr><td>%s</td><td><b class=\"%s\">%s</b><br><span class=\"small\">", j->rules->layer[i].title ? j->rules->layer[i].title :
		        dr_layer_names[i], strcmp(state, "not applicable") == 0 ? "na" : state, state);
		escaped(j->layer[i].why, out);
		fputs("</span></td></tr>\n", out);
	}
	fputs("</table>\n", out);
}

void
dr_report_html(const struct dr_judgement *j, FILE *out)
{
	const struct dr_rule *rule = j->verdict->rule;
	char text[600];

	fprintf(out, "%s</style><title>%s: farwarp doctor</title></head><body>\n<h1 class=\"%s\">%s: ", head, rule->id, dr_state_names[rule->state], rule->id);
	title(rule, out);
	fputs("</h1>\n", out);
	if (strcmp(rule->who, "nobody") != 0) {
		fputs("<p>Who can fix it: ", out);
		escaped(dr_who_text(rule->who, text, sizeof(text)), out);
		fprintf(out, ".%s</p>\n", j->possible ? " This is the likeliest cause; some of its evidence could not be seen." : "");
	}
	commands(j, &rule->fix, out);
	sentences(j, "Beware", "beware", &rule->warn, out);
	sentences(j, "Note", "note", &rule->note, out);
	evidence(j, j->verdict, false, out);
	evidence(j, j->verdict, true, out);
	others(j, out);
	layers(j, out);
	fputs("<p class=\"small\">", out);
	if (rule->state == DR_FAULT)
		fprintf(out, "Confidence %c; farwarp doctor --explain %s says what it rests on. ", j->verdict->confidence, rule->id);
	fputs("Looked at ", out);
	escaped(dr_get_text(j->facts, "recorded.time", "an unknown time"), out);
	fputs(" by farwarp ", out);
	escaped(dr_get_text(j->facts, "recorded.version", "of an unknown version"), out);
	fputs(".</p>\n</body></html>\n", out);
}
