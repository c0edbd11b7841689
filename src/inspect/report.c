/* Making of reports: memory, findings, the verdict. Knows nothing of files. */
#include "inspect/inspect.h"

#include <stdlib.h>
#include <string.h>

#define MAX_REPORT_BYTES ((size_t)256 << 20)

const char *const in_kind_names[] = { "elf", "wheel", "folder", "process", "other" };

struct in_report *
in_report_new(const char *path, enum in_kind kind)
{
	struct in_report *report = calloc(1, sizeof(*report));

	if (!report)
		return NULL;
	report->memory.cap = MAX_REPORT_BYTES;
	report->kind = kind;
	report->path = in_copy(report, path);
	if (report->path)
		return report;
	in_report_free(report);
	return NULL;
}

void
in_report_free(struct in_report *report)
{
	if (!report)
		return;
	for (size_t n = 0; n < report->member_count; n++)
		in_report_free(report->members[n]);
	fw_arena_free(&report->memory);
	free(report);
}

/* Names of files end up on terminals: control characters become question marks. */
const char *
in_copy(struct in_report *report, const char *text)
{
	char *copy = text ? fw_arena_strndup(&report->memory, text, strlen(text)) : NULL;

	for (char *c = copy; c && *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = *c == '\n' ? '\n' : '?';
	return copy;
}

static const char *
vprint(struct in_report *report, const char *format, va_list arguments)
{
	char text[2048];

	vsnprintf(text, sizeof(text), format, arguments);
	return in_copy(report, text);
}

const char *
in_print(struct in_report *report, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	const char *text = vprint(report, format, arguments);
	va_end(arguments);
	return text ? text : "";
}

bool
in_grow(struct in_report *report, void *list, size_t count, size_t each)
{
	void *old;

	if (count & (count - 1) || (count && count < 8)) /* room is 8, 16, 32 ... */
		return true;
	memcpy(&old, list, sizeof(old));
	void *more = fw_arena_alloc(&report->memory, (count < 8 ? 8 : 2 * count) * each);
	if (!more)
		return false;
	if (count)
		memcpy(more, old, count * each);
	memcpy(list, &more, sizeof(more));
	return true;
}

void
in_find(struct in_report *report, int level, const char *id, const char *fix, const char *format, ...)
{
	va_list arguments;

	if (!in_grow(report, &report->findings, report->finding_count, sizeof(*report->findings)))
		return;
	va_start(arguments, format);
	const char *text = vprint(report, format, arguments);
	va_end(arguments);
	const char *kept = in_copy(report, fix);
	struct in_finding *f = &report->findings[report->finding_count++];
	*f = (struct in_finding){ .id = id, .text = text ? text : "out of memory", .fix = kept ? kept : "" };
	f->level = level;
}

bool
in_add_member(struct in_report *report, struct in_report *member, bool all)
{
	if (!member)
		return false;
	if (!all && !member->uses_cuda && !member->finding_count && member->kind == IN_KIND_ELF) {
		report->plain_count++;
		in_report_free(member);
		return true;
	}
	if (!in_grow(report, &report->members, report->member_count, sizeof(struct in_report *))) {
		in_report_free(member);
		return false;
	}
	report->members[report->member_count++] = member;
	return true;
}

enum in_state
in_verdict(const struct in_report *report, const struct in_finding **why, const struct in_report **where)
{
	enum in_state state = IN_WORKS;

	*why = NULL;
	*where = report;
	for (size_t n = 0; n < report->finding_count; n++) {
		const struct in_finding *f = &report->findings[n];
		enum in_state its = f->level == IN_LEVEL_FAULT ? IN_FAULT : f->level == IN_LEVEL_UNSURE ? IN_UNKNOWN : IN_WORKS;
		if (its == IN_WORKS || (state != IN_WORKS && !(its == IN_FAULT && state == IN_UNKNOWN)))
			continue;
		state = its;
		*why = f;
	}
	for (size_t n = 0; n < report->member_count && state != IN_FAULT; n++) {
		const struct in_finding *its_why;
		const struct in_report *its_where;
		enum in_state its = in_verdict(report->members[n], &its_why, &its_where);
		if (its == IN_FAULT || (its == IN_UNKNOWN && state == IN_WORKS)) {
			state = its;
			*why = its_why;
			*where = its_where;
		}
	}
	return state;
}
