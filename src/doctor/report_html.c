/* The report as one page that needs nothing else: no script, no font, no picture; readable on a phone. */
#include <string.h>

#include "doctor/report.h"

static const char head[] =
	"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>farwarp doctor</title>\n<style>\n"
	"body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:46rem;padding:1rem;color:#1b1b1b;background:#fff}\n"
	"h1{font-size:1.25rem;padding:.7rem .9rem;border-radius:.5rem;color:#fff;overflow-wrap:anywhere}\n"
	"h2{font-size:1rem;margin:1.4rem 0 .3rem}\n.ok{background:#146c2e}.fault{background:#a4161a}.unknown,.warn,.info{background:#7a5b00}\n"
	"pre{background:#f2f2f2;padding:.7rem;border-radius:.4rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0}\n"
	"table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .5rem;border-top:1px solid #ddd;"
	"overflow-wrap:anywhere}\n.small{color:#555;font-size:.9rem}\n"
	"@media(prefers-color-scheme:dark){body{background:#161616;color:#eaeaea}pre{background:#262626}td,th{border-color:#3a3a3a}"
	".small{color:#aaa}}\n</style></head><body>\n";

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

static void
block(const struct dr_judgement *j, const char *heading, const struct dr_lines *lines, FILE *out)
{
	char text[DR_MAX_LINE + 200];

	if (!lines->count)
		return;
	fprintf(out, "<h2>%s</h2>\n<pre>", heading);
	for (int i = 0; i < lines->count; i++) {
		escaped(dr_fill(j, lines->line[i], text, sizeof(text)), out);
		fputc('\n', out);
	}
	fputs("</pre>\n", out);
}

static void
row(const char *first, const char *second, const char *third, FILE *out)
{
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

void
dr_report_html(const struct dr_judgement *j, FILE *out)
{
	const struct dr_rule *rule = j->verdict->rule;
	char text[600];

	fprintf(out, "%s<h1 class=\"%s\">%s: ", head, dr_state_names[rule->state], rule->id);
	escaped(rule->title, out);
	fprintf(out, "</h1>\n<p>Who can fix it: ");
	escaped(dr_who_text(rule->who, text, sizeof(text)), out);
	fprintf(out, ".%s</p>\n", j->possible ? " This is the likeliest cause; some of its evidence could not be seen." : "");
	block(j, "What to do", &rule->fix, out);
	block(j, "Beware", &rule->warn, out);
	block(j, "Note", &rule->note, out);
	fputs("<h2>Evidence</h2>\n<table>\n", out);
	for (int i = 0; i < rule->conditions; i++)
		for (int k = 0; k < j->verdict->finding[i].count; k++) {
			const struct dr_evidence *e = &j->verdict->finding[i].evidence[k];
			row(e->path, e->value, e->get, out);
		}
	fputs("</table>\n<h2>Found as well</h2>\n<table>\n", out);
	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind == DR_FIRED && o != j->verdict && o->rule->state != DR_OK && o->rule->state != DR_UNKNOWN && !o->rule->fallback)
			row(o->rule->id, o->rule->title, dr_state_names[o->rule->state], out);
	}
	fputs("</table>\n<h2>Ruled out</h2>\n<table>\n", out);
	for (int i = 0; i < j->rules->count; i++) {
		const struct dr_outcome *o = &j->outcome[i];
		if (o->kind == DR_RULED_OUT && dr_look_alike(o->rule, rule))
			row(o->rule->id, o->rule->title, dr_reason(o, text, sizeof(text)), out);
	}
	fputs("</table>\n<h2>Layers</h2>\n<table>\n", out);
	for (int i = 0; i < DR_LAYER_COUNT; i++)
		row(j->rules->layer[i].title ? j->rules->layer[i].title : dr_layer_names[i], j->layer[i].state, j->layer[i].why, out);
	fputs("</table>\n</body></html>\n", out);
}
