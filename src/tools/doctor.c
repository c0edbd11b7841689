/* farwarp doctor: looks at the machine or at a recorded one, judges, reports. The exit code says what was found; see the help text. */
#include "tools.h"

#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "doctor/doctor.h"
#include "doctor/report.h"
#include "inspect/inspect.h"

#define MAX_PYTHON 32

enum { KEY_FORMAT = 256, KEY_RECORD, KEY_REDACT, KEY_REPLAY, KEY_EXPLAIN, KEY_QUICK, KEY_WATCH, KEY_DRIVER, KEY_LOAD, KEY_PYTHON, KEY_DEEP, KEY_ERROR };

static const struct format {
	const char *name;
	void (*print)(const struct dr_judgement *judgement, FILE *out);
} formats[] = {
	{ "text", dr_report_text }, { "json", dr_report_json }, { "nagios", dr_report_nagios }, { "npd", dr_report_npd },
	{ "prometheus", dr_report_prometheus }, { "slurm", dr_report_slurm }, { "html", dr_report_html } };

struct doctor_options {
	struct dr_options probe;
	const struct format *format;
	const char *record, *replay, *explain, *python[MAX_PYTHON + 1];
	int python_count;
	bool list, redact, watch;
	double watch_seconds;
};

static const struct argp_option option_table[] = {
	{ "json", 'j', NULL, 0, "print facts and verdict as JSON; the same as --format json", 0 },
	{ "format", KEY_FORMAT, "FORMAT", 0, "text, json, html, nagios, npd (node-problem-detector), prometheus or slurm", 0 },
	{ "quick", KEY_QUICK, NULL, 0, "make no context: for prologs and health checks", 0 },
	{ "deep", KEY_DEEP, NULL, 0, "fill up to 1 GiB of the GPU's memory and read it back, too", 0 },
	{ "record", KEY_RECORD, "FILE", 0, "write the facts to FILE (- for standard output)", 0 },
	{ "redact", KEY_REDACT, NULL, 0, "with --record: host and user names, addresses, serial numbers and UUIDs become pseudonyms", 0 },
	{ "replay", KEY_REPLAY, "FILE", 0, "judge recorded facts instead of this machine", 0 },
	{ "explain", KEY_EXPLAIN, "ID", 0, "print what a finding of doctor or inspect means, rests on and advises", 0 },
	{ "list", 'l', NULL, 0, "list the findings that this version of doctor and inspect knows", 0 },
	{ "watch", KEY_WATCH, "SECONDS", OPTION_ARG_OPTIONAL, "look again every SECONDS (default 60) and report changes", 0 },
	{ "python", KEY_PYTHON, "DIR", 0, "look at the Python environment in DIR as well (may be repeated); nothing is imported", 0 },
	{ "root", 'r', "DIR", 0, "look at a /sys, /proc and /dev below DIR; the driver is then not asked", 0 },
	{ "load", KEY_LOAD, NULL, 0, "let the driver load its modules and make its nodes, as a program's start does (else it can change nothing)", 0 },
	{ "error", KEY_ERROR, "NUMBER", 0, "the error that your program got, as 3 or 999: tells apart what a look alone cannot", 0 },
	{ "driver", KEY_DRIVER, "DIR", 0, "ask the libcuda.so.1 in DIR, not the one that a program would get", 0 },
	{ "deadline", 't', "SECONDS", 0, "how long a step of the driver may take (default 30)", 0 },
	{ 0 } };

static double
seconds(struct argp_state *state, const char *name, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (*end || end == text || !(value > 0) || value > 3600)
		argp_error(state, "--%s is a number of seconds up to 3600, not \"%s\"", name, text);
	return value;
}

static int
error_number(struct argp_state *state, const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end || end == text || value < 1 || value > 999)
		argp_error(state, "--error is an error of CUDA as a number from 1 to 999, not \"%s\"", text);
	return (int)value;
}

static void
set_format(struct doctor_options *o, struct argp_state *state, const char *name)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (strcmp(formats[i].name, name) == 0)
			o->format = &formats[i];
	if (!o->format)
		argp_error(state, "--format is text, json, html, nagios, npd, prometheus or slurm, not \"%s\"", name);
}

/* A path that the user names and that is none is a slip, not a finding. */
static void
want_folder(struct argp_state *state, const char *name, const char *path)
{
	struct stat status;

	if (!path || !*path)
		return;
	if (stat(path, &status) != 0)
		argp_error(state, "--%s %s: %s", name, path, strerror(errno));
	else if (!S_ISDIR(status.st_mode))
		argp_error(state, "--%s %s: not a folder", name, path);
}

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	struct doctor_options *o = state->input;

	switch (key) {
	case 'j': set_format(o, state, "json"); break;
	case KEY_FORMAT: o->format = NULL; set_format(o, state, arg); break;
	case KEY_PYTHON:
		if (o->python_count == MAX_PYTHON)
			argp_error(state, "--python is given more than %d times", MAX_PYTHON);
		o->python[o->python_count++] = arg;
		o->probe.python = o->python;
		break;
	case KEY_DEEP: o->probe.deep = true; break;
	case KEY_LOAD: o->probe.load = true; break;
	case KEY_ERROR: o->probe.error = error_number(state, arg); break;
	case KEY_DRIVER: o->probe.driver = arg; break;
	case 'l': o->list = true; break;
	case 'r':
		o->probe.root = arg;
		break;
	case 't': o->probe.deadline = seconds(state, "deadline", arg); break;
	case KEY_RECORD: o->record = arg; break;
	case KEY_REDACT: o->redact = true; break;
	case KEY_REPLAY: o->replay = arg; break;
	case KEY_EXPLAIN: o->explain = arg; break;
	case KEY_QUICK: o->probe.quick = true; break;
	case KEY_WATCH:
		o->watch = true;
		o->watch_seconds = arg ? seconds(state, "watch", arg) : 60;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", arg);
		break;
	case ARGP_KEY_END:
		if (o->list || o->explain) {
			if (o->format || o->record || o->replay || o->watch || (o->list && o->explain))
				argp_error(state, "--list and --explain stand alone: they print text and look at nothing");
			break;
		}
		want_folder(state, "root", o->probe.root);
		want_folder(state, "driver", o->probe.driver);
		if (o->probe.quick && o->probe.deep)
			argp_error(state, "--quick and --deep exclude each other");
		if (o->redact && !o->record)
			argp_error(state, "--redact is for --record");
		if (o->replay && (o->watch || o->probe.quick || o->probe.deep || o->probe.load || o->python_count || *o->probe.root || o->probe.driver))
			argp_error(state, "--replay looks at no machine: it excludes --watch, --quick, --deep, --load, --python, --root and --driver");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* FILE, or FILE:VARIANT of a test machine. NULL: an error, which was printed. */
static struct fw_json *
replayed(const char *name)
{
	char error[400], path[4096];
	const char *colon = strrchr(name, ':');
	const char *variant = NULL;
	struct stat status;

	snprintf(path, sizeof(path), "%s", name);
	if (colon && stat(name, &status) != 0 && (size_t)(colon - name) < sizeof(path)) {
		path[colon - name] = 0;
		variant = colon + 1;
	}
	struct fw_json *facts = dr_document_read(path, variant, error, sizeof(error));
	if (!facts)
		fprintf(stderr, "farwarp doctor: %s\n", error);
	return facts;
}

/* Nagios has its own order: 0 ok, 1 warning, 2 critical, 3 unknown. */
static int
exit_code(const struct doctor_options *o, const struct dr_judgement *j)
{
	int code = dr_exit_code(j);

	if (o->format->print != dr_report_nagios)
		return code;
	if (code != 0)
		return code == 1 ? 2 : 3;
	for (int i = 0; i < j->rules->count; i++)
		if (j->outcome[i].kind == DR_FIRED && j->outcome[i].rule->state == DR_WARN)
			return 1;
	return 0;
}

/* The folders that --python names are looked at in the probe's child, since one may not answer. false: one is none. */
static bool
environments_are_there(const struct doctor_options *o, const struct fw_json *facts)
{
	bool good = true;

	for (int i = 0; i < o->python_count; i++) {
		const struct fw_json *packages = fw_json_get(fw_json_at(dr_get(facts, "python"), (size_t)i), "packages");
		const struct fw_json *unseen = dr_is_unseen(packages);
		if (unseen) {
			const char *name = dr_get_text(unseen, "errno", "");
			bool slip = strcmp(name, "ENOENT") == 0 || strcmp(name, "ENOTDIR") == 0;
			fprintf(stderr, "farwarp doctor: --python %s: %s\n", o->python[i], slip ? "there is no such folder" : name);
			good &= !slip;
		} else if (packages && fw_json_size(packages) == 0) {
			fprintf(stderr, "farwarp doctor: --python %s: no package is installed in it\n", o->python[i]);
		}
	}
	return good;
}

/* Looks, records, judges and reports once. `last`, if given, is the verdict that was reported before; equal ones are not reported again. */
static int
look(const struct doctor_options *o, const struct dr_rules *rules, char last[16])
{
	struct dr_judgement judgement;
	struct fw_json *facts = o->replay ? replayed(o->replay) : dr_probe(&o->probe);
	int code = 2;
	bool slip = false;

	if (!facts)
		return o->replay ? FW_EXIT_USAGE : 2;
	if (!o->replay)
		slip = !environments_are_there(o, facts);
	if (o->record) {
		if (o->redact && !dr_redact(facts)) {
			fprintf(stderr, "farwarp doctor: out of memory: nothing is written\n");
			fw_json_free(facts);
			return 2;
		}
		int error = dr_document_write(facts, o->record);
		if (error) /* the report is not withheld for it */
			fprintf(stderr, "farwarp doctor: --record %s: %s\n", o->record, strerror(error));
		slip |= error != 0;
	}
	if (dr_judge(&judgement, rules, facts, NULL)) {
		bool same = last && strcmp(last, judgement.verdict->rule->id) == 0;
		if (!same && !(o->record && strcmp(o->record, "-") == 0))
			o->format->print(&judgement, stdout);
		if (last)
			snprintf(last, 16, "%s", judgement.verdict->rule->id);
		code = exit_code(o, &judgement);
		dr_judgement_free(&judgement);
	} else {
		fprintf(stderr, "farwarp doctor: out of memory\n");
	}
	fw_json_free(facts);
	return slip ? FW_EXIT_USAGE : code;
}

/* Until it is interrupted. */
__attribute__((noreturn)) static void
watch(const struct doctor_options *o, const struct dr_rules *rules)
{
	char last[16] = "", stamp[40];
	struct timespec pause = { .tv_sec = (time_t)o->watch_seconds };

	pause.tv_nsec = (long)((o->watch_seconds - (double)pause.tv_sec) * 1e9);
	for (;;) {
		char before[16];
		memcpy(before, last, sizeof(before));
		look(o, rules, last);
		if (before[0] && strcmp(before, last) != 0) {
			time_t now = time(NULL);
			struct tm local;
			strftime(stamp, sizeof(stamp), "%F %T", localtime_r(&now, &local));
			fprintf(stderr, "farwarp doctor: %s: %s became %s\n", stamp, before, last);
		}
		fflush(stdout);
		nanosleep(&pause, NULL);
	}
}

/* All rules, then what only farwarp inspect reports. */
static int
list_ids(const struct dr_rules *rules)
{
	for (int i = 0; i < rules->count; i++)
		printf("%-8s %-10s %-7s %s\n", rules->rule[i].id, dr_layer_names[rules->rule[i].layer], dr_state_names[rules->rule[i].state],
		       rules->rule[i].title);
	for (size_t i = 0; in_meaning(i); i++)
		if (!dr_rule_find(rules, in_meaning(i)->id))
			printf("%-8s %-10s %-7s %s\n", in_meaning(i)->id, "file", "inspect", in_meaning(i)->cause);
	return 0;
}

/* An id may be a rule's, a finding's of farwarp inspect, or both. */
static int
explain(const struct dr_rules *rules, const char *id)
{
	const struct dr_rule *rule = dr_rule_find(rules, id);
	const struct in_meaning *meaning = in_meaning_of(id);

	if (rule)
		dr_report_rule(rule, stdout);
	if (rule && meaning)
		printf("\nand of a file:\n");
	if (meaning)
		in_print_meaning(meaning, stdout);
	if (!rule && !meaning) {
		fprintf(stderr, "farwarp doctor: there is no finding \"%s\"; farwarp doctor --list shows them\n", id);
		return FW_EXIT_USAGE;
	}
	return 0;
}

int
tool_doctor(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse, NULL,
		"Says whether CUDA works on this machine and, if not, why, who can fix it and how. Works without a GPU, in virtual machines and "
		"containers; asks the driver in a child process, so a driver that hangs is a finding.\v"
		"Exit code: 0 CUDA works, 1 a fault was found, 2 could not tell, 64 wrong usage or a file that cannot be read or written. With --format nagios: "
		"0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.", NULL, NULL, NULL };
	struct doctor_options o = { .probe = { .root = "", .deadline = 30 } };
	char name[] = "farwarp doctor";

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (!o.format)
		o.format = &formats[0];
	const struct dr_rules *rules = dr_rules_builtin();
	if (!rules)
		return 2;
	if (o.list)
		return fw_printed("farwarp doctor", list_ids(rules));
	if (o.explain)
		return fw_printed("farwarp doctor", explain(rules, o.explain));
	if (o.watch)
		watch(&o, rules);
	return fw_printed("farwarp doctor", look(&o, rules, NULL));
}
