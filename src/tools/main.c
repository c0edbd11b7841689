/*
 * farwarp: finds the command in a table and runs it. Options of the commands are theirs; only --help and --version are here.
 */
#include "tools.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const struct fw_command fw_commands[] = {
	{ "run",    tool_run,    "run an unmodified CUDA program on the best GPU there is" },
	{ "trace",  tool_trace,  "show each CUDA call that a program makes" },
	{ "replay", tool_replay, "play a record of a program's calls against another device" },
	{ "serve",  tool_serve,  "drive a GPU for programs elsewhere" },
	{ "doctor", tool_doctor, "say why CUDA does not work here, who can fix it, and how" },
	{ "inspect", tool_inspect, "say what a wheel, library, program or process needs of CUDA, and whether it is here" },
	{ "help",   tool_help,   "show this help, or that of a command" },
	{ NULL, NULL, NULL },
};

int
fw_printed(const char *program, int code)
{
	bool closed = fcntl(STDOUT_FILENO, F_GETFD) < 0; /* on purpose: the exit code is all that is asked for */

	errno = 0;
	if ((fflush(stdout) == 0 && !ferror(stdout)) || closed)
		return code;
	fprintf(stderr, "%s: standard output: %s\n", program, errno ? strerror(errno) : "could not be written");
	return FW_EXIT_USAGE;
}

static void
print_help(FILE *out)
{
	fprintf(out, "usage: farwarp COMMAND [OPTION...]\n\n");
	for (const struct fw_command *c = fw_commands; c->name; c++)
		fprintf(out, "  %-8s %s\n", c->name, c->help);
	fprintf(out, "\n  farwarp COMMAND --help   the options of a command\n  farwarp --version\n\n"
	             "Examples:\n  farwarp doctor\n  farwarp inspect ./my_program\n  farwarp run -- ./vector_add\n  farwarp trace -- ./vector_add\n  farwarp serve --listen unix:/tmp/gpu.sock\n  farwarp run --device soft --cc 9.0 -- python3 train.py\n");
}

static const struct fw_command *
find(const char *name)
{
	for (const struct fw_command *c = fw_commands; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

int
tool_help(int argc, char **argv)
{
	const struct fw_command *command = argc > 1 ? find(argv[1]) : NULL;

	if (argc > 1 && !command) {
		fprintf(stderr, "farwarp: there is no command \"%s\"\n", argv[1]);
		return FW_EXIT_USAGE;
	}
	if (!command || command->run == tool_help) {
		print_help(stdout);
		return 0;
	}
	char *help[] = { argv[1], (char *)"--help", NULL };
	return command->run(2, help);
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		print_help(stderr);
		return FW_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_help(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("farwarp %s\n", FARWARP_VERSION);
		return 0;
	}
	const struct fw_command *command = find(argv[1]);
	if (!command) {
		fprintf(stderr, "farwarp: there is no command \"%s\"; farwarp --help lists them\n", argv[1]);
		return FW_EXIT_USAGE;
	}
	return command->run(argc - 1, argv + 1);
}
