/* The commands of the farwarp binary. Each has a main of its own that gets its name as argv[0] and returns the exit code. */
#ifndef FW_TOOLS_H
#define FW_TOOLS_H

#define FW_EXIT_USAGE 64 /* as sysexits.h: the command line is wrong */

struct fw_command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help; /* one line */
};
extern const struct fw_command fw_commands[]; /* ends with a NULL name */

/* At a command's end: code, or FW_EXIT_USAGE with a word if what it printed could not be written (a full disk). */
int fw_printed(const char *program, int code);

int tool_serve(int argc, char **argv);
int tool_run(int argc, char **argv);
int tool_trace(int argc, char **argv);
int tool_replay(int argc, char **argv);
int tool_doctor(int argc, char **argv);
int tool_inspect(int argc, char **argv);
int tool_help(int argc, char **argv);

#endif
