/*
 * farwarp run: chooses a GPU, sets the library path for one program, and becomes that program.
 *
 * The program is executed in place, so its exit code, signals, terminal and process id are its own. Nothing is preloaded and
 * nothing outside the program's environment is changed. A healthy local GPU is used natively: then the environment stays as it is.
 */
#include "tools.h"

#include <argp.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor/doctor.h"
#include "tools/run.h"
#include "wire/wire.h"

#define QUICK_CHECK_SECONDS 10.0

static const struct argp_option option_table[] = {
	{ "device", 'd', "soft|local|native", 0, "the software GPU, this machine's own, or that with farwarp's library in front (default: the best there is)", 0 },
	{ "backend", 'b', NULL, OPTION_ALIAS, NULL, 0 },
	{ "server", 'S', "ADDRESS", 0, "a GPU behind farwarp serve: unix:PATH, tls:HOST[:PORT], tcp:HOST[:PORT], vsock:CID:PORT (or FARWARP_SERVER)", 0 },
	{ "cc", 'c', "N.M", 0, "compute capability of the software GPU, 7.5 to 12.1 (default 8.6)", 0 },
	{ "mem", 'm', "SIZE", 0, "memory of the software GPU, as 512M or 8G (default: three quarters of RAM)", 0 },
	{ "sms", 's', "N", 0, "multiprocessors that the software GPU reports (default: from the CPU cores)", 0 },
	{ "threads", 't', "N", 0, "threads that execute kernels (default: the CPU cores)", 0 },
	{ "quiet", 'q', NULL, 0, "do not say which GPU was chosen", 0 },
	{ 0 } };

static bool
is_count(const char *text)
{
	char *end;
	errno = 0;
	long value = strtol(text, &end, 10);
	return *text && !*end && !errno && value >= 1 && value <= 65536;
}

static bool
is_size(const char *text)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (end == text || errno || value == 0 || text[0] == '-')
		return false;
	if (*end && strchr("kKmMgGtT", *end))
		end++;
	if (end[0] == 'i' && end[1] == 'B')
		end += 2;
	else if (end[0] == 'B')
		end++;
	return *end == 0;
}

static bool
is_capability(const char *text)
{
	unsigned major, minor;
	char rest;
	return sscanf(text, "%2u.%1u%c", &major, &minor, &rest) == 2 && major * 10 + minor >= 75 && major * 10 + minor <= 121;
}

static bool
names_a_device(const struct run_options *o)
{
	return o->device != DEVICE_BEST || o->cc || o->mem || o->sms || o->threads;
}

/* The server that is asked for, by --server or else by FARWARP_SERVER; options that name another GPU come before the environment. */
static void
find_server(struct run_options *o, struct argp_state *state)
{
	const char *server = getenv("FARWARP_SERVER");
	struct wire_address address;
	char error[256];

	if (o->asked && names_a_device(o))
		argp_error(state, "--server names a GPU elsewhere: --device and the options of the software GPU are given to farwarp serve");
	if (!o->asked && server && *server) {
		o->overruled = names_a_device(o);
		o->server = o->overruled ? NULL : server;
	}
	if (o->server && !wire_address_parse(o->server, &address, error))
		argp_error(state, "%s: %s", o->asked ? "--server" : "FARWARP_SERVER", error);
}

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	struct run_options *o = state->input;

	switch (key) {
	case 'd':
		if (strcmp(arg, "soft") == 0)
			o->device = DEVICE_SOFT;
		else if (strcmp(arg, "local") == 0)
			o->device = DEVICE_LOCAL;
		else if (strcmp(arg, "native") == 0)
			o->device = DEVICE_NATIVE;
		else
			argp_error(state, "--device is soft, local or native, not \"%s\"", arg);
		break;
	case 'S':
		o->server = arg;
		o->asked = true;
		break;
	case 'c':
		if (!is_capability(arg))
			argp_error(state, "--cc is a compute capability from 7.5 to 12.1, not \"%s\"", arg);
		o->cc = arg;
		break;
	case 'm':
		if (!is_size(arg))
			argp_error(state, "--mem is a size such as 512M or 8G, not \"%s\"", arg);
		o->mem = arg;
		break;
	case 's':
	case 't':
		if (!is_count(arg))
			argp_error(state, "--%s is a number from 1 to 65536, not \"%s\"", key == 's' ? "sms" : "threads", arg);
		*(key == 's' ? &o->sms : &o->threads) = arg;
		break;
	case 'q':
		o->quiet = true;
		break;
	case ARGP_KEY_END:
		find_server(o, state);
		break;
	case ARGP_KEY_ARGS:
		o->program = state->argv + state->next;
		break;
	case ARGP_KEY_NO_ARGS:
		if (o->missing)
			argp_error(state, "%s", o->missing);
		argp_error(state, "which program? As in: %s -- ./vector_add", state->name);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* The folder of our libcuda.so.1: beside this binary in a build (lib/), ../lib/farwarp when installed. */
static bool
library_folder(char *folder, size_t size)
{
	static const char *const places[] = { "lib", "../lib/farwarp", "../lib/x86_64-linux-gnu/farwarp" };
	char self[PATH_MAX], probe[PATH_MAX + 64], real[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length <= 0)
		return false;
	self[length] = 0;
	*strrchr(self, '/') = 0;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(probe, sizeof(probe), "%s/%s/libcuda.so.1", self, places[i]);
		if (access(probe, R_OK) == 0) {
			snprintf(probe, sizeof(probe), "%s/%s", self, places[i]);
			if (realpath(probe, real) && strlen(real) < size) {
				memcpy(folder, real, strlen(real) + 1);
				return true;
			}
		}
	}
	fprintf(stderr, "farwarp: libcuda.so.1 is not beside %s (looked in lib, ../lib/farwarp); build it with make\n", self);
	return false;
}

/* Where execvp would find the program; false when nowhere. */
static bool
find_program(const char *name, char *path, size_t size)
{
	if (strchr(name, '/')) {
		snprintf(path, size, "%s", name);
		return access(path, F_OK) == 0;
	}
	const char *list = getenv("PATH");
	for (list = list ? list : "/usr/bin:/bin"; *list;) {
		const char *end = strchrnul(list, ':');
		snprintf(path, size, "%.*s/%s", (int)(end - list), list, name);
		if (access(path, X_OK) == 0)
			return true;
		list = *end ? end + 1 : end;
	}
	return false;
}

/* Says what would keep the program from seeing the library path. Best effort: unreadable or foreign files are left to exec. */
static void
warn_of_obstacles(const char *path)
{
	struct stat st;
	Elf64_Ehdr header;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && (st.st_mode & (S_ISUID | S_ISGID)) && geteuid() != 0)
		fprintf(stderr, "farwarp: %s is set-user-id: the loader ignores the library path for it\n", path);
	if (pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
	    header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_phentsize == sizeof(Elf64_Phdr) && header.e_phnum < 256) {
		bool dynamic = false;
		for (unsigned i = 0; i < header.e_phnum; i++) {
			Elf64_Phdr segment;
			off_t at = (off_t)(header.e_phoff + (uint64_t)i * sizeof(segment));
			if (pread(fd, &segment, sizeof(segment), at) == (ssize_t)sizeof(segment))
				dynamic |= segment.p_type == PT_INTERP || segment.p_type == PT_DYNAMIC;
		}
		if (!dynamic)
			fprintf(stderr, "farwarp: %s is fully static: it may be unable to load any libcuda.so.1\n", path);
	}
	close(fd);
}

static bool
set_environment(const struct run_options *o, const char *folder)
{
	const char *old = getenv("LD_LIBRARY_PATH");
	char *joined = NULL;

	if (asprintf(&joined, "%s%s%s", folder, old && *old ? ":" : "", old ? old : "") < 0)
		return false;
	bool ok = setenv("LD_LIBRARY_PATH", joined, 1) == 0 &&
	          (o->server ? setenv("FARWARP_SERVER", o->server, 1) == 0
	                     : setenv("FARWARP_DEVICE", o->device == DEVICE_NATIVE ? "native" : "soft", 1) == 0 && unsetenv("FARWARP_SERVER") == 0);
	free(joined);
	const struct { const char *name, *value; } settings[] = {
		{ "FARWARP_SOFT_CC", o->cc }, { "FARWARP_SOFT_MEM", o->mem },
		{ "FARWARP_SOFT_SMS", o->sms }, { "FARWARP_SOFT_THREADS", o->threads } };
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (settings[i].value)
			ok = ok && setenv(settings[i].name, settings[i].value, 1) == 0;
	return ok;
}

/* One line: which GPU and why. Returns true for the local one. */
static bool
choose(const struct run_options *o)
{
	const char *asked = o->overruled ? "asked for, in place of the server in FARWARP_SERVER" : "asked for";
	struct dr_quick quick;

	if (o->server) {
		if (!o->quiet)
			fprintf(stderr, "farwarp: GPU behind the server %s (%s)\n", o->server, o->asked ? "asked for" : "FARWARP_SERVER");
		return false;
	}
	if (o->device == DEVICE_NATIVE) {
		if (!o->quiet)
			fprintf(stderr, "farwarp: local GPU behind farwarp's library (%s)\n", asked);
		return false;
	}
	if (o->device == DEVICE_SOFT || (o->device == DEVICE_BEST && names_a_device(o))) {
		if (!o->quiet)
			fprintf(stderr, "farwarp: software GPU, compute capability %s (%s)\n", o->cc ? o->cc : "8.6",
			        o->device == DEVICE_SOFT || o->overruled ? asked : "its options were given");
		return false;
	}
	dr_quick_check(&quick, QUICK_CHECK_SECONDS);
	bool local = quick.works;
	if (o->device == DEVICE_LOCAL) {
		if (!o->quiet && local)
			fprintf(stderr, "farwarp: local GPU %s (%s)\n", quick.gpu, asked);
		else if (!local)
			fprintf(stderr, "farwarp: local GPU (%s), though %s: %s\n", asked, quick.id, quick.title);
		return true;
	}
	if (!o->quiet) {
		if (local)
			fprintf(stderr, "farwarp: local GPU %s, %s (CUDA works here)\n", quick.gpu,
			        o->in_front ? "behind farwarp's library" : "natively");
		else
			fprintf(stderr, "farwarp: software GPU, compute capability 8.6 (%s: %s)\n", quick.id, quick.title);
	}
	return local;
}

const struct argp run_options_argp = { option_table, parse, NULL, NULL, NULL, NULL, NULL };

int
run_environment(const struct run_options *given, const char *who, bool *local, char *folder, size_t size)
{
	struct run_options o = *given;

	*local = choose(&o);
	if (*local && !o.in_front)
		return 0;
	if (*local)
		o.device = DEVICE_NATIVE;
	if (!library_folder(folder, size))
		return 125;
	if (!set_environment(&o, folder)) {
		fprintf(stderr, "%s: out of memory\n", who);
		return 125;
	}
	return 0;
}

int
run_prepare(const struct run_options *o, const char *who, bool *local)
{
	char folder[PATH_MAX], path[PATH_MAX];

	if (!find_program(o->program[0], path, sizeof(path))) {
		fprintf(stderr, "%s: %s: no such program\n", who, o->program[0]);
		return 127;
	}
	int status = run_environment(o, who, local, folder, sizeof(folder));
	if (status == 0 && (!*local || o->in_front))
		warn_of_obstacles(path);
	return status;
}

int
run_program(const struct run_options *o, const char *who)
{
	fflush(NULL);
	execvp(o->program[0], o->program);
	fprintf(stderr, "%s: cannot execute %s: %s\n", who, o->program[0], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}

int
tool_run(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse, "-- PROGRAM [ARGUMENT...]",
		"Runs an unmodified CUDA program on the best GPU there is: one behind a server if --server or FARWARP_SERVER names it, this "
		"machine's own if CUDA works on it, else the software GPU, which executes the program's PTX on the CPU.\v"
		"The program's exit code is passed through; 127: the program was not found, 126: it cannot be executed, 125: farwarp could not "
		"prepare, 64: wrong usage.\n\nFARWARP_LOG=calls logs each CUDA driver call; FARWARP_LOG=LEVEL:FILE writes to a file.",
		NULL, NULL, NULL };
	struct run_options o = { 0 };
	char name[] = "farwarp run";
	bool local;

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o);
	int status = run_prepare(&o, name, &local);
	return status ? status : run_program(&o, name);
}
