/* farwarp inspect: what a file needs of CUDA, and whether this machine has it. Exit code: 0 works, 1 a fault was found, 2 could not tell. */
#include "tools.h"

#include <argp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "inspect/inspect.h"

#define MAX_FILES 4096

struct inspect_arguments {
	struct in_options options;
	bool json;
	const char *files[MAX_FILES];
	size_t count;
};

static const struct argp_option option_table[] = {
	{ "cc", 'c', "X.Y", 0, "compare kernels with a device of this compute capability, not with the GPU at hand", 0 },
	{ "cuda", 'u', "X.Y", 0, "with --cc: the newest CUDA that its driver knows (default: any PTX is compiled)", 0 },
	{ "python", 'p', "DIR", 0, "environment, or its site-packages, that wheels and extensions are for", 0 },
	{ "root", 'r', "DIR", 0, "the folder that stands for / (an unpacked image)", 0 },
	{ "all", 'a', NULL, 0, "list everything: other libraries, symbols, files without CUDA", 0 },
	{ "json", 'j', NULL, 0, "print all facts and findings as JSON", 0 },
	{ 0 } };

/* "9.0" to 90, "12.1" to 121; also "90" and "121". 0: neither. */
static uint32_t
parse_version(const char *text)
{
	char *end;
	unsigned long major = strtoul(text, &end, 10);

	if (end == text || major > 999)
		return 0;
	if (!*end)
		return (uint32_t)major;
	if (*end != '.' || end[1] < '0' || end[1] > '9' || end[2])
		return 0;
	return (uint32_t)(10 * major + (unsigned long)(end[1] - '0'));
}

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	struct inspect_arguments *a = state->input;
	uint32_t cuda;

	switch (key) {
	case 'j': a->json = true; break;
	case 'a': a->options.all = true; break;
	case 'p': a->options.python = arg; break;
	case 'r': a->options.root = arg; break;
	case 'c':
		a->options.device.cc = parse_version(arg);
		if (a->options.device.cc < 20 || a->options.device.cc > 300)
			argp_error(state, "--cc is a compute capability like 9.0, not \"%s\"", arg);
		break;
	case 'u':
		cuda = parse_version(arg);
		a->options.device.max_ptx = in_ptx_of_cuda(cuda);
		if (!a->options.device.max_ptx)
			argp_error(state, "--cuda is a version of CUDA like 12.4, not \"%s\"", arg);
		break;
	case ARGP_KEY_ARG:
		if (a->count == MAX_FILES)
			argp_error(state, "more than %d files; inspect their folder", MAX_FILES);
		a->files[a->count++] = arg;
		break;
	case ARGP_KEY_END:
		if (!a->count)
			argp_error(state, "which FILE? A wheel, library, program, folder or process id");
		if (a->options.device.max_ptx && !a->options.device.cc)
			argp_error(state, "--cuda goes with --cc");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int
tool_inspect(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse, "FILE...",
		"Says what wheels, libraries, programs, folders of them and running processes (by process id) need of CUDA: libraries and versioned symbols and "
		"where they are found, kernels for which GPUs, the driver, glibc and C++ libraries. Reads files and executes none.\v"
		"Exit code: 0 all works here, 1 a fault was found, 2 could not tell, 64 wrong usage, or the report could not be written. farwarp doctor --explain ID says what a finding means.", NULL, NULL, NULL };
	static struct inspect_arguments a; /* zero, and too large for a stack */
	struct in_inspector inspector;
	char name[] = "farwarp inspect";
	bool fault = false, unknown = false;

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	struct in_report **reports = calloc(a.count, sizeof(struct in_report *));
	if (!reports)
		return IN_UNKNOWN;
	in_inspector_open(&inspector, &a.options);
	for (size_t n = 0; n < a.count; n++) {
		const struct in_finding *why;
		const struct in_report *where;
		reports[n] = in_inspect(&inspector, a.files[n]);
		if (!reports[n]) {
			fprintf(stderr, "farwarp inspect: out of memory for %s\n", a.files[n]);
			a.count = n;
			unknown = true;
			break;
		}
		enum in_state state = in_verdict(reports[n], &why, &where);
		fault |= state == IN_FAULT;
		unknown |= state == IN_UNKNOWN;
		if (!a.json) {
			if (n)
				putchar('\n');
			in_print_text(reports[n], &inspector, a.options.all, stdout);
		}
	}
	if (a.json && !in_print_json(reports, a.count, &inspector, stdout))
		unknown = true;
	for (size_t n = 0; n < a.count; n++)
		in_report_free(reports[n]);
	free(reports);
	in_inspector_close(&inspector);
	return fw_printed("farwarp inspect", fault ? IN_FAULT : unknown ? IN_UNKNOWN : IN_WORKS);
}
