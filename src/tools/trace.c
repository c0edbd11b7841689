/*
 * farwarp trace: runs a program and shows each CUDA driver call that it makes: strace for CUDA.
 *
 * The client library in the program writes the lines (src/client/trace.c). This process stays outside: it watches the shared page for
 * calls that do not return, says how the program ended and in which calls, and prints the counts. The program's exit code, or the signal
 * that killed it, is passed through.
 */
#include "tools/trace.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "call/format.h"
#include "call/pack.h"
#include "layers/record.h"
#include "tools/run.h"
#include "tools/tools.h"

#define LOOK_MS 100 /* how often the page is looked at */

struct trace_options {
	struct run_options run;
	const char *output, *record;
	bool lines, counts, json, callers, filtered;
	enum trace_time time;
	enum trace_sort sort;
	double hang; /* seconds after which a call is said to last; 0: never */
	uint8_t shown[TRACE_ROWS];
};

enum { KEY_JSON = 0x100, KEY_RECORD, KEY_HANG, KEY_SORT, KEY_CALLERS };

static const struct argp_option option_table[] = {
	{ "output", 'o', "FILE", 0, "write the trace to FILE (default: standard error)", 1 },
	{ "expr", 'e', "[trace=]WORD,...", 0, "show only these calls: names with * and ?, %local, %async, %sync, private; !WORD leaves out", 1 },
	{ "count", 'c', NULL, 0, "count calls, errors, times, round trips and bytes instead of showing lines", 1 },
	{ "lines-and-count", 'C', NULL, 0, "show lines and count", 1 },
	{ "sort", KEY_SORT, "time|calls|max|awaited|name", 0, "order of the counts (default: time)", 1 },
	{ "json", KEY_JSON, NULL, 0, "one JSON object a line", 1 },
	{ "clock", 't', NULL, 0, "time of day instead of seconds since the first call", 1 },
	{ "relative", 'r', NULL, 0, "seconds since the call before", 1 },
	{ "callers", KEY_CALLERS, NULL, 0, "say for each call which library made it", 1 },
	{ "hang", KEY_HANG, "SECONDS", 0, "say of a call that it lasts after so long (default 1; 0: never)", 1 },
	{ "record", KEY_RECORD, "FILE", 0, "write a record that farwarp replay plays", 1 },
	{ 0 } };

static void
parse_filter(struct trace_options *o, char *arg, struct argp_state *state)
{
	char *words = strncmp(arg, "trace=", 6) == 0 ? arg + 6 : arg, *word;

	if (!o->filtered)
		memset(o->shown, words[0] == '!', sizeof(o->shown));
	o->filtered = true;
	while ((word = strsep(&words, ",")))
		if (!trace_filter(o->shown, word))
			argp_error(state, "-e: no call is called \"%s\"", word);
}

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	static const char *const sorts[] = { "time", "calls", "max", "awaited", "name" };
	struct trace_options *o = state->input;
	char *end;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &o->run;
		break;
	case 'o':
		o->output = arg;
		break;
	case 'e':
		parse_filter(o, arg, state);
		break;
	case 'c':
		o->counts = true;
		o->lines = false;
		break;
	case 'C':
		o->counts = o->lines = true;
		break;
	case KEY_SORT:
		for (unsigned i = 0; i < 5; i++)
			if (strcmp(arg, sorts[i]) == 0) {
				o->sort = (enum trace_sort)i;
				return 0;
			}
		argp_error(state, "--sort is time, calls, max, awaited or name, not \"%s\"", arg);
		break;
	case KEY_JSON:
		o->json = true;
		break;
	case 't':
		o->time = TRACE_TIME_CLOCK;
		break;
	case 'r':
		o->time = TRACE_TIME_DELTA;
		break;
	case KEY_CALLERS:
		o->callers = true;
		break;
	case KEY_HANG:
		o->hang = strtod(arg, &end);
		if (end == arg || *end || !(o->hang >= 0 && o->hang <= 86400))
			argp_error(state, "--hang is a number of seconds from 0 to 86400, not \"%s\"", arg);
		break;
	case KEY_RECORD:
		o->record = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the page ------------------------------------------------------------------------------------------------------ */

static int
open_output(const char *path)
{
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666) : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		fprintf(stderr, "farwarp trace: cannot write to %s: %s\n", path ? path : "standard error", strerror(errno));
	return fd;
}

/* Makes the page, and tells the program where it is. NULL after an error line. */
static struct trace_page *
make_page(const struct trace_options *o, int out_fd, int record_fd)
{
	char place[64];
	int fd = memfd_create("farwarp-trace", MFD_CLOEXEC);
	struct trace_page *page = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, sizeof(*page)) == 0)
		page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		fprintf(stderr, "farwarp trace: cannot share memory with the program: %s\n", strerror(errno));
		return NULL;
	}
	memcpy(page->magic, TRACE_MAGIC, sizeof(TRACE_MAGIC));
	page->hash = call_protocol_hash();
	page->bytes = sizeof(*page);
	page->tracer = getpid();
	page->out_fd = out_fd;
	page->record_fd = record_fd;
	page->lines = o->lines;
	page->counts = o->counts;
	page->json = o->json;
	page->callers = o->callers;
	page->time = o->time;
	memcpy(page->shown, o->shown, sizeof(page->shown));
	page->start = page->last = now_ns();
	snprintf(place, sizeof(place), "/proc/%d/fd/%d", getpid(), fd);
	if (setenv("FARWARP_TRACE", place, 1) != 0) {
		fprintf(stderr, "farwarp trace: out of memory\n");
		return NULL;
	}
	return page;
}

/* ---- watching ------------------------------------------------------------------------------------------------------ */

struct watch {
	const struct trace_options *options;
	const struct trace_page *page;
	FILE *out;
	pid_t child;
	struct {
		uint64_t begin; /* of the call that was said to last */
		double next;    /* seconds after which it is said again */
	} slots[TRACE_SLOTS];
	char library[PATH_MAX]; /* the libcuda that the program has loaded, while it has called nothing */
};

/* `2.341 s` in the unit that reads best. */
static const char *
duration(double seconds)
{
	static char text[32];

	snprintf(text, sizeof(text), seconds < 10 ? "%.1f s" : "%.0f s", seconds);
	return text;
}

static void
say(const struct watch *w, const char *event, int pid, int tid, unsigned row, double seconds, const char *inputs)
{
	uint64_t us = (now_ns() - w->page->start) / 1000;
	char name[8 * TRACE_NAME];

	if (w->options->json) {
		call_format_json_string(name, sizeof(name), trace_row_name(w->page, row));
		fprintf(w->out, "{\"time\":%" PRIu64 ".%06" PRIu64 ",\"event\":\"%s\",\"pid\":%d,\"tid\":%d,\"call\":%s,\"seconds\":%.3f}\n", us / 1000000,
		        us % 1000000, event, pid, tid, name, seconds);
	} else {
		fprintf(w->out, "%" PRIu64 ".%06" PRIu64 " [%d] ... %s in %s(%.999s) %s %s\n", us / 1000000, us % 1000000, tid, event,
		        trace_row_name(w->page, row), inputs, strcmp(event, "still") == 0 ? "for" : "after", duration(seconds));
	}
	fflush(w->out);
}

/* The calls that a process was in when it ended. */
static void
say_last_calls(const struct watch *w, pid_t pid)
{
	for (unsigned i = 0; i < TRACE_SLOTS; i++) {
		const struct trace_slot *slot = &w->page->slots[i];
		uint64_t begin = __atomic_load_n(&slot->begin, __ATOMIC_ACQUIRE);
		if (slot->pid != pid || !begin)
			continue;
		char inputs[sizeof(slot->text)];
		snprintf(inputs, sizeof(inputs), "%.*s", (int)sizeof(slot->text) - 1, slot->text);
		say(w, "ended", pid, slot->tid, slot->row, (double)(now_ns() - begin) / 1e9, inputs);
	}
}

/* Calls that last: said after --hang seconds, then each time that three times as long has passed, or a minute. */
static void
look_for_hangs(struct watch *w)
{
	uint64_t now = now_ns();

	for (unsigned i = 0; i < TRACE_SLOTS; i++) {
		const struct trace_slot *slot = &w->page->slots[i];
		uint64_t begin = __atomic_load_n(&slot->begin, __ATOMIC_ACQUIRE);
		if (!begin || begin > now) {
			w->slots[i].begin = 0;
			continue;
		}
		double seconds = (double)(now - begin) / 1e9;
		if (w->slots[i].begin != begin) {
			w->slots[i].begin = begin;
			w->slots[i].next = w->options->hang;
		}
		if (seconds < w->slots[i].next)
			continue;
		if (kill(slot->pid, 0) != 0 && errno == ESRCH) { /* a process of the program that died in it */
			w->slots[i].next = 1e18;
			say_last_calls(w, slot->pid);
			continue;
		}
		w->slots[i].next = seconds * 3 < seconds + 60 ? seconds * 3 : seconds + 60;
		char inputs[sizeof(slot->text)];
		snprintf(inputs, sizeof(inputs), "%.*s", (int)sizeof(slot->text) - 1, slot->text);
		say(w, "still", slot->pid, slot->tid, slot->row, seconds, inputs);
	}
}

/* Which libcuda the program has loaded, as long as it has made no call. */
static void
look_for_library(struct watch *w)
{
	char path[64], line[PATH_MAX + 128];

	if (w->page->processes)
		return;
	snprintf(path, sizeof(path), "/proc/%d/maps", w->child);
	FILE *maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps)) {
		char *file = strchr(line, '/');
		if (file && strstr(file, "/libcuda.so")) {
			file[strcspn(file, "\n")] = 0;
			snprintf(w->library, sizeof(w->library), "%s", file);
		}
	}
	if (maps)
		fclose(maps);
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

/* Whether a file is in the folder that run_environment() has put before the library path. */
static bool
is_ours(const char *file)
{
	const char *path = getenv("LD_LIBRARY_PATH");
	size_t length = path ? strcspn(path, ":") : 0;

	return length && strncmp(file, path, length) == 0 && file[length] == '/';
}

/* Is anything called at all? If not, where the calls may have gone. */
static void
say_nothing_was_called(const struct watch *w)
{
	const char *why;

	if (w->page->all_calls)
		return;
	if (!w->library[0])
		why = "the program did not load libcuda.so.1, as far as was seen";
	else if (is_ours(w->library))
		why = "libcuda.so.1 was loaded, but no function of it was called";
	else
		why = "the program loaded another libcuda than farwarp's, whose calls are not seen";
	if (w->options->json)
		fprintf(w->out, "{\"event\":\"no calls\",\"why\":\"%s\"}\n", why);
	else
		fprintf(w->out, "+++ no CUDA driver call was made: %s%s%s +++\n", why, w->library[0] ? ": " : "", w->library);
}

static void
say_end(const struct watch *w, int status)
{
	const struct trace_page *page = w->page;
	bool killed = WIFSIGNALED(status);
	uint32_t last = page->last_row;

	if (killed)
		say_last_calls(w, w->child);
	say_nothing_was_called(w);
	if (w->options->json) {
		if (killed)
			fprintf(w->out, "{\"event\":\"killed\",\"pid\":%d,\"signal\":\"SIG%s\",\"core\":%s}\n", w->child,
			        sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?", WCOREDUMP(status) ? "true" : "false");
		else
			fprintf(w->out, "{\"event\":\"exited\",\"pid\":%d,\"status\":%d}\n", w->child, WEXITSTATUS(status));
		return;
	}
	if (!killed) {
		fprintf(w->out, "+++ exited with %d +++\n", WEXITSTATUS(status));
		return;
	}
	fprintf(w->out, "+++ killed by SIG%s%s", sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?",
	        WCOREDUMP(status) ? " (core dumped)" : "");
	if (last && last <= TRACE_ROWS)
		fprintf(w->out, "; the last call that returned was %s, %s before", trace_row_name(page, last - 1),
		        duration((double)(now_ns() - page->last_end) / 1e9));
	fprintf(w->out, " +++\n");
}

/* Waits for the program, watching; its wait status. */
static int
watch(struct watch *w, const sigset_t *signals)
{
	int status = 0;

	for (;;) {
		const struct timespec nap = { 0, LOOK_MS * 1000000l };
		int signal = sigtimedwait(signals, NULL, &nap);
		pid_t done = waitpid(w->child, &status, WNOHANG);
		if (done == w->child || (done < 0 && errno == ECHILD))
			return status;
		if (signal == SIGTERM || signal == SIGHUP) /* SIGINT and SIGQUIT come from the terminal, to both */
			kill(w->child, signal);
		look_for_library(w);
		if (w->options->hang > 0)
			look_for_hangs(w);
	}
}

/* Ends as the program ended. */
static int
pass_on(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	const struct rlimit none = { 0, 0 };
	sigset_t all;
	setrlimit(RLIMIT_CORE, &none); /* the program has left one, if any */
	fflush(NULL);
	signal(WTERMSIG(status), SIG_DFL);
	sigemptyset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	raise(WTERMSIG(status));
	return 128 + WTERMSIG(status);
}

/* The record's head; -1 after an error line. */
static int
open_record(const char *path)
{
	struct record_head head = { .magic = RECORD_MAGIC, .version = RECORD_VERSION, .bytes = sizeof(head), .protocol = call_protocol_hash(),
		.farwarp = FARWARP_VERSION };
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);

	if (fd >= 0 && write(fd, &head, sizeof(head)) == (ssize_t)sizeof(head))
		return fd;
	fprintf(stderr, "farwarp trace: cannot write to %s: %s\n", path, strerror(errno));
	return -1;
}

/* The end, which a record that was cut does not have. */
static void
end_record(int fd, const struct trace_page *page, int status)
{
	const struct {
		struct record_event event;
		uint64_t in_size, events, status, out_size, ranges;
	} end = { { .mark = RECORD_MARK, .kind = RECORD_END, .size = 40 }, 16, page->record_events, (uint64_t)(int64_t)status, 0, 0 };

	if (write(fd, &end, sizeof(end)) != (ssize_t)sizeof(end))
		fprintf(stderr, "farwarp trace: the record is cut: %s\n", strerror(errno));
	close(fd);
}

static int
trace(const struct trace_options *o)
{
	static struct watch w;
	sigset_t signals, before;
	int out_fd = open_output(o->output), record_fd = -1;

	if (out_fd >= 0 && o->record && (record_fd = open_record(o->record)) < 0)
		return 125;
	struct trace_page *page = out_fd < 0 ? NULL : make_page(o, out_fd, record_fd);
	if (!page)
		return 125;
	FILE *out = fdopen(dup(out_fd), "a");
	if (!out)
		return 125;
	w = (struct watch){ .options = o, .page = page, .out = out };
	sigemptyset(&signals);
	const int handled[] = { SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT };
	for (unsigned i = 0; i < sizeof(handled) / sizeof(handled[0]); i++)
		sigaddset(&signals, handled[i]);
	sigprocmask(SIG_BLOCK, &signals, &before);
	fflush(NULL);
	w.child = fork();
	if (w.child < 0) {
		fprintf(stderr, "farwarp trace: cannot start the program: %s\n", strerror(errno));
		return 125;
	}
	if (w.child == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		_exit(run_program(&o->run, "farwarp trace"));
	}
	int status = watch(&w, &signals);
	if (record_fd >= 0)
		end_record(record_fd, page, status);
	if (o->lines || WIFSIGNALED(status))
		say_end(&w, status);
	else
		say_nothing_was_called(&w);
	if (o->counts && page->all_calls)
		(o->json ? trace_print_counts_json : trace_print_counts)(out, page, o->sort);
	fclose(out);
	return pass_on(status);
}

int
tool_trace(int argc, char **argv)
{
	static const struct argp_child children[] = { { &run_options_argp, 0, "Where the program runs, as for farwarp run (long forms only for "
	                                               "-c and -t):", 2 }, { 0 } };
	static const struct argp argp = { option_table, parse, "-- PROGRAM [ARGUMENT...]",
		"Runs an unmodified CUDA program and shows each CUDA driver call that it and its libraries make: when, which thread, arguments, "
		"result, what came out, how long it took, and whether a server's answer was awaited. Says of a call that does not return that it "
		"lasts, and how the program ended and in which call.\v"
		"The program's exit code, or the signal that killed it, is passed through; 125, 126, 127 and 64 are as for farwarp run.\n\n"
		"farwarp trace -e 'cuLaunch*,cuMemcpy*' -- ./program\nfarwarp trace -e '!cuGetProcAddress,!private' -o FILE -- ./program\n"
		"farwarp trace -c --server tcp:host -- ./program\n",
		children, NULL, NULL };
	static struct trace_options o = { .lines = true, .hang = 1 };
	char name[] = "farwarp trace";
	bool local;

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	memset(o.shown, 1, sizeof(o.shown));
	o.run.in_front = true;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o);
	int status = run_prepare(&o.run, name, &local);
	return status ? status : trace(&o);
}
