/* farwarp doctor: gathers facts, judges, reports. Exit code: 0 works, 1 a fault was found, 2 could not tell. */
#include "tools.h"

#include <argp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/doctor.h"

struct doctor_options {
	bool json, no_driver, list;
	const char *root;
	double deadline;
};

static const struct argp_option option_table[] = {
	{ "json", 'j', NULL, 0, "print facts and verdict as JSON", 0 },
	{ "root", 'r', "DIR", 0, "look at a recorded /sys, /proc and /dev below DIR; the driver is then not asked", 0 },
	{ "deadline", 't', "SECONDS", 0, "how long the driver may take to answer (default 30)", 0 },
	{ "list", 'l', NULL, 0, "list the findings that this version knows", 0 },
	{ 0 } };

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	struct doctor_options *o = state->input;
	char *end;

	switch (key) {
	case 'j': o->json = true; break;
	case 'l': o->list = true; break;
	case 'r':
		o->root = arg;
		o->no_driver = true;
		break;
	case 't':
		o->deadline = strtod(arg, &end);
		if (*end || o->deadline <= 0 || o->deadline > 3600)
			argp_error(state, "--deadline is a number of seconds up to 3600, not \"%s\"", arg);
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int
tool_doctor(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse, NULL,
		"Says whether CUDA works on this machine and, if not, why, who can fix it and how. Works without a GPU, in virtual machines and "
		"containers; asks the driver in a child process, so a driver that hangs is a finding.\v"
		"Exit code: 0 CUDA works, 1 a fault was found, 2 could not tell, 64 wrong usage.", NULL, NULL, NULL };
	struct doctor_options o = { .root = "", .deadline = 30 };
	struct dr_facts facts;
	char name[] = "farwarp doctor";

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.list) {
		for (size_t i = 0; i < dr_rule_count(); i++)
			printf("%-8s %s\n", dr_rule_at(i)->id, dr_rule_at(i)->title);
		return 0;
	}
	dr_probe_machine(&facts, o.root);
	if (!o.no_driver)
		dr_probe_driver(&facts.driver, o.deadline);
	const struct dr_rule *verdict = dr_judge(&facts);
	(o.json ? dr_report_json : dr_report_text)(&facts, verdict, stdout);
	return (int)verdict->state;
}
