/*
 * farwarp trace: which calls are shown, and what is said of them when the program has ended: counts, and who asked for what.
 *
 * The page was written by the program; texts in it are bounded when they are printed, numbers are only printed.
 */
#include "tools/trace.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "call/format.h"

/* ---- filters ------------------------------------------------------------------------------------------------------- */

static bool
fits(unsigned row, const char *word)
{
	static const char *const classes[] = { [CALL_CLASS_LOCAL] = "%local", [CALL_CLASS_ASYNC] = "%async", [CALL_CLASS_SYNC] = "%sync" };
	char plain[80];

	if (row >= CALL_COUNT)
		return fnmatch(word, "private", 0) == 0;
	const struct call_desc *desc = &call_descs[row];
	if (word[0] == '%')
		return strcmp(word, classes[desc->class]) == 0;
	snprintf(plain, sizeof(plain), "%s", desc->name);
	char *version = strrchr(plain, '_');
	if (version && version[1] == 'v')
		*version = 0;
	return fnmatch(word, desc->name, 0) == 0 || fnmatch(word, plain, 0) == 0;
}

bool
trace_filter(uint8_t shown[TRACE_ROWS], const char *word)
{
	bool away = word[0] == '!', any = false;

	for (unsigned row = 0; row < TRACE_ROWS; row++)
		if (fits(row, word + away)) {
			shown[row] = !away;
			any = true;
		}
	return any;
}

/* ---- counts -------------------------------------------------------------------------------------------------------- */

const char *
trace_row_name(const struct trace_page *page, unsigned row)
{
	static char name[TRACE_NAME];

	if (row < CALL_COUNT)
		return call_descs[row].name;
	if (row >= TRACE_ROWS)
		return "?";
	snprintf(name, sizeof(name), "%.*s", TRACE_NAME - 1, page->private_names[row - CALL_COUNT]);
	return name;
}

static const struct trace_page *sorted_page; /* for the comparison */
static enum trace_sort sorted_by;

static uint64_t
sort_key(const struct trace_count *c)
{
	switch (sorted_by) {
	case SORT_CALLS: return c->calls;
	case SORT_MAX: return c->max_ns;
	case SORT_AWAITED: return c->awaited;
	default: return c->ns;
	}
}

static int
compare(const void *a, const void *b)
{
	unsigned left = *(const unsigned *)a, right = *(const unsigned *)b;
	uint64_t x = sort_key(&sorted_page->rows[left]), y = sort_key(&sorted_page->rows[right]);
	char name[TRACE_NAME];

	if (sorted_by != SORT_NAME && x != y)
		return x < y ? 1 : -1;
	snprintf(name, sizeof(name), "%s", trace_row_name(sorted_page, left));
	return strcmp(name, trace_row_name(sorted_page, right));
}

/* The rows that were called, in order; their number. */
static unsigned
sort_rows(const struct trace_page *page, enum trace_sort sort, unsigned rows[TRACE_ROWS], struct trace_count *total)
{
	unsigned count = 0;

	*total = (struct trace_count){ 0 };
	for (unsigned row = 0; row < TRACE_ROWS; row++) {
		const struct trace_count *c = &page->rows[row];
		if (!c->calls)
			continue;
		rows[count++] = row;
		total->calls += c->calls;
		total->errors += c->errors;
		total->waits += c->waits;
		total->awaited += c->awaited;
		total->ns += c->ns;
		total->max_ns = c->max_ns > total->max_ns ? c->max_ns : total->max_ns;
		total->sent += c->sent;
		total->received += c->received;
	}
	sorted_page = page;
	sorted_by = sort;
	qsort(rows, count, sizeof(rows[0]), compare);
	return count;
}

static void
print_row(FILE *out, const struct trace_count *c, uint64_t all_ns, bool wire, const char *name, const char *class)
{
	fprintf(out, "%6.2f %11.3f %11.3f %11.3f %8llu %7llu", all_ns ? 100.0 * (double)c->ns / (double)all_ns : 0, (double)c->ns / 1e6,
	        c->calls ? (double)c->ns / 1e3 / (double)c->calls : 0, (double)c->max_ns / 1e3, (unsigned long long)c->calls,
	        (unsigned long long)c->errors);
	if (wire)
		fprintf(out, " %8llu %8llu %12llu %12llu", (unsigned long long)c->waits, (unsigned long long)c->awaited,
		        (unsigned long long)c->sent, (unsigned long long)c->received);
	fprintf(out, " %-7s %s\n", class, name);
}

static const char *
class_name(unsigned row)
{
	static const char *const names[] = { [CALL_CLASS_LOCAL] = "local", [CALL_CLASS_ASYNC] = "async", [CALL_CLASS_SYNC] = "sync" };

	return row < CALL_COUNT ? names[call_descs[row].class] : "private";
}

static void
print_askers(FILE *out, const struct trace_page *page)
{
	unsigned asked = 0, called = 0;

	for (unsigned i = 0; i < TRACE_ASKERS && page->askers[i].used == 2; i++) {
		const struct trace_asker *a = &page->askers[i];
		fprintf(out, "%s%.*s: asked for %u functions", i ? "" : "\n", TRACE_NAME, a->name, a->functions);
		for (unsigned n = 0; n < a->missing && n < TRACE_MISSING; n++)
			fprintf(out, "%s%.*s", n ? ", " : ", not found: ", TRACE_NAME, a->missed[n]);
		if (a->missing > TRACE_MISSING)
			fprintf(out, " and %u more", a->missing - TRACE_MISSING);
		bool any = false;
		for (unsigned t = 0; t < 32; t++)
			if (a->tables >> t & 1) {
				fprintf(out, "%s%.*s", any ? ", " : "; private tables: ", (int)sizeof(page->tables[t]), page->tables[t]);
				any = true;
			}
		fprintf(out, "\n");
	}
	for (unsigned c = 0; c < CALL_COUNT; c++) {
		asked += page->asked[c] != 0;
		called += page->asked[c] && page->rows[c].calls;
	}
	if (asked)
		fprintf(out, "%u different functions were found for them, %u of these were called\n", asked, called);
}

void
trace_print_counts(FILE *out, const struct trace_page *page, enum trace_sort sort)
{
	unsigned rows[TRACE_ROWS];
	struct trace_count total;
	unsigned count = sort_rows(page, sort, rows, &total);
	bool wire = total.sent || total.awaited;

	fprintf(out, "%6s %11s %11s %11s %8s %7s", "% time", "total ms", "mean us", "max us", "calls", "errors");
	if (wire)
		fprintf(out, " %8s %8s %12s %12s", "waiting", "awaited", "bytes out", "bytes in");
	fprintf(out, " %-7s %s\n", "class", "call");
	for (unsigned i = 0; i < count; i++)
		print_row(out, &page->rows[rows[i]], total.ns, wire, trace_row_name(page, rows[i]), class_name(rows[i]));
	print_row(out, &total, total.ns, wire, "total", "");
	if (wire)
		fprintf(out, "%llu round trips to the server in %llu of %llu calls\n", (unsigned long long)total.awaited,
		        (unsigned long long)total.waits, (unsigned long long)total.calls);
	print_askers(out, page);
}

/* A text of the page, bounded, as JSON. */
static void
print_text(FILE *out, const char *text, size_t size)
{
	char copy[TRACE_NAME + 1], quoted[8 * TRACE_NAME];

	snprintf(copy, sizeof(copy), "%.*s", (int)size, text);
	call_format_json_string(quoted, sizeof(quoted), copy);
	fprintf(out, "%s", quoted);
}

void
trace_print_counts_json(FILE *out, const struct trace_page *page, enum trace_sort sort)
{
	unsigned rows[TRACE_ROWS];
	struct trace_count total;
	unsigned count = sort_rows(page, sort, rows, &total);

	fprintf(out, "{\"counts\":[");
	for (unsigned i = 0; i < count; i++) {
		const struct trace_count *c = &page->rows[rows[i]];
		fprintf(out, "%s{\"call\":", i ? "," : "");
		print_text(out, trace_row_name(page, rows[i]), TRACE_NAME);
		fprintf(out, ",\"class\":\"%s\",\"calls\":%llu,\"errors\":%llu,\"waiting\":%llu,\"awaited\":%llu,\"ns\":%llu,\"max_ns\":%llu,"
		        "\"sent\":%llu,\"received\":%llu}", class_name(rows[i]), (unsigned long long)c->calls, (unsigned long long)c->errors,
		        (unsigned long long)c->waits, (unsigned long long)c->awaited, (unsigned long long)c->ns, (unsigned long long)c->max_ns,
		        (unsigned long long)c->sent, (unsigned long long)c->received);
	}
	fprintf(out, "],\"libraries\":[");
	for (unsigned i = 0; i < TRACE_ASKERS && page->askers[i].used == 2; i++) {
		const struct trace_asker *a = &page->askers[i];
		fprintf(out, "%s{\"name\":", i ? "," : "");
		print_text(out, a->name, TRACE_NAME);
		fprintf(out, ",\"functions\":%u,\"missing\":[", a->functions);
		for (unsigned n = 0; n < a->missing && n < TRACE_MISSING; n++) {
			fprintf(out, "%s", n ? "," : "");
			print_text(out, a->missed[n], TRACE_NAME);
		}
		fprintf(out, "],\"tables\":[");
		bool any = false;
		for (unsigned t = 0; t < 32; t++)
			if (a->tables >> t & 1) {
				fprintf(out, "%s", any ? "," : "");
				print_text(out, page->tables[t], sizeof(page->tables[t]));
				any = true;
			}
		fprintf(out, "]}");
	}
	fprintf(out, "]}\n");
}
