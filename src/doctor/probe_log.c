/*
 * Probe of the kernel log: what NVIDIA's modules and their neighbours wrote since boot. Reads /dev/kmsg, which needs a right that users
 * often lack; then the log is unseen. Of each kind the latest lines are kept.
 *
 *	NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.
 *	nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 24007, Fatal, Link 51 sourcetrack timeout error (First)
 *	NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0x65:1860)
 */
#include "doctor/probe_log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_KEPT 48          /* lines of a kind */
#define MAX_TEXT 240         /* bytes of a line that are kept */
#define MAX_LOG (8 << 20)    /* bytes that are looked at */
#define MAX_RECORD 8192      /* of /dev/kmsg; longer ones do not exist (CONSOLE_EXT_LOG_MAX) */

enum kind { XID, SXID, RM_INIT_ADAPTER, NVRM, OTHER, KINDS };
static const char *const kind_names[KINDS] = { "xid", "sxid", "rm_init_adapter", "nvrm", "other" };

struct line {
	double time;
	char text[MAX_TEXT];
};

struct dr_log { /* a ring a kind */
	struct line line[KINDS][MAX_KEPT];
	unsigned count[KINDS];
};

/* Words of lines that matter though another part of the kernel wrote them. */
static const char *const others[] = {
	"PM: suspend exit", "PM: hibernation: hibernation exit", "blocked for more than", "AER:", "DMAR:", "IO_PAGE_FAULT", "nvidia", "nouveau",
	"Loading of unsigned module", "module verification failed", "Out of memory: Killed process", "NVRM", "can't assign; no space",
	"Unable to change power state", "uvm", "virtual machine fork", "libspdm" };

static enum kind
kind_of(const char *text)
{
	bool nvrm = strncmp(text, "NVRM: ", 6) == 0;

	if (nvrm && strncmp(text + 6, "Xid (", 5) == 0)
		return XID;
	if (strstr(text, "SXid ("))
		return SXID;
	if (nvrm && strstr(text, "RmInitAdapter failed!"))
		return RM_INIT_ADAPTER;
	if (nvrm)
		return NVRM;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strstr(text, others[i]))
			return OTHER;
	return KINDS;
}

static void
keep(struct dr_log *log, double time, const char *text)
{
	enum kind kind = kind_of(text);

	if (kind == KINDS)
		return;
	struct line *line = &log->line[kind][log->count[kind]++ % MAX_KEPT];
	line->time = time;
	snprintf(line->text, sizeof(line->text), "%s", text);
}

/* A line without its end: "6,339,5140900,-;text" of /dev/kmsg, or "<6>[    5.140900] text" of the console. It is changed. */
static void
take_line(struct dr_log *log, char *line)
{
	double time = 0;
	char *text = line;

	if (*line == ' ') /* "SUBSYSTEM=pci" below a record of /dev/kmsg */
		return;
	if (isdigit((unsigned char)*line)) {
		char *comma = strchr(line, ',');
		comma = comma ? strchr(comma + 1, ',') : NULL;
		text = strchr(line, ';');
		if (!comma || !text || comma > text)
			return;
		time = strtod(comma + 1, NULL) * 1e-6;
		text++;
	} else {
		if (*text == '<')
			text += strcspn(text, ">") + (strchr(text, '>') != NULL);
		if (*text == '[') {
			time = strtod(text + 1, NULL);
			text += strcspn(text, "]") + (strchr(text, ']') != NULL);
		}
		text += *text == ' ';
	}
	if (!(time >= 0 && time < 1e12)) /* the time of no clock */
		time = 0;
	keep(log, time, text);
}

struct dr_log *
dr_log_new(void)
{
	return calloc(1, sizeof(struct dr_log));
}

void
dr_log_take(struct dr_log *log, char *text)
{
	for (char *line; (line = strsep(&text, "\n"));)
		if (*line)
			take_line(log, line);
}

/* ---- what the lines say ---- */

/* Behind "(" or "(PCI:" up to ")": a PCI address. Returns what follows ")", or NULL. */
static const char *
take_address(const char *text, char *address, size_t size)
{
	const char *open = strchr(text, '('), *close = open ? strchr(open, ')') : NULL;

	address[0] = 0;
	if (!close)
		return NULL;
	open++;
	if (strncmp(open, "PCI:", 4) == 0)
		open += 4;
	snprintf(address, size, "%.*s", (int)(close - open), open);
	return close + 1;
}

/* ": 79, rest": the number; returns the rest. NULL if there is no number. */
static const char *
take_number(const char *text, long *number)
{
	char *end;

	text += strspn(text, ": ");
	*number = strtol(text, &end, 10);
	if (end == text || *number < 0 || *number > 1000000)
		return NULL;
	return end + strspn(end, ", ");
}

static void
put_xid(struct fw_json *list, const struct line *line, bool switches)
{
	char address[40];
	long number = 0;
	const char *rest = take_address(line->text, address, sizeof(address));

	rest = rest ? take_number(rest, &number) : NULL;
	if (!rest)
		return;
	struct fw_json *item = dr_append(list);
	dr_set_int(item, "number", number);
	dr_set_text(item, "pci", address);
	dr_set_real(item, "time", line->time);
	dr_set_text(item, "text", rest);
	if (switches) {
		dr_set_bool(item, "fatal", strncmp(rest, "Fatal", 5) == 0);
		return;
	}
	const char *pid = strstr(rest, "pid=");
	if (pid && isdigit((unsigned char)pid[4]))
		dr_set_int(item, "pid", strtol(pid + 4, NULL, 10));
}

static void
put_init(struct fw_json *list, const struct line *line)
{
	unsigned stage, status;
	char text[24], address[40] = "";
	const char *numbers = strstr(line->text, "failed! (");

	if (!numbers || sscanf(numbers, "failed! (%x:%x:", &stage, &status) != 2)
		return;
	struct fw_json *item = dr_append(list);
	snprintf(text, sizeof(text), "0x%02x", stage);
	dr_set_text(item, "stage", text);
	snprintf(text, sizeof(text), "0x%02x", status);
	dr_set_text(item, "status", text);
	const char *gpu = strstr(line->text, "GPU ");
	size_t length = gpu ? strspn(gpu + 4, "0123456789abcdefABCDEF:.") : 0;
	if (length && gpu[4 + length - 1] == ':')
		length--;
	if (length)
		snprintf(address, sizeof(address), "%.*s", (int)length, gpu + 4);
	dr_set_text(item, "pci", address[0] ? address : NULL);
	dr_set_real(item, "time", line->time);
}

void
dr_log_end(struct dr_log *log, struct fw_json *facts)
{
	for (int kind = 0; kind < KINDS; kind++) {
		char fact[40];
		snprintf(fact, sizeof(fact), "kernel.log.%s", kind_names[kind]);
		struct fw_json *list = dr_list(facts, fact);
		unsigned end = log->count[kind];
		for (unsigned i = end > MAX_KEPT ? end - MAX_KEPT : 0; i < end; i++) {
			const struct line *line = &log->line[kind][i % MAX_KEPT];
			if (kind == XID || kind == SXID) {
				put_xid(list, line, kind == SXID);
			} else if (kind == RM_INIT_ADAPTER) {
				put_init(list, line);
			} else {
				struct fw_json *item = dr_append(list);
				dr_set_text(item, "text", line->text + (kind == NVRM ? 6 : 0));
				dr_set_real(item, "time", line->time);
			}
		}
	}
	free(log);
}

/* A read of /dev/kmsg yields one record; of a file that stands for it in a test, as much as fits. */
void
dr_probe_log(const struct dr_options *options, struct fw_json *facts)
{
	char path[PATH_MAX], record[MAX_RECORD + 1];
	struct dr_log *log = dr_log_new();
	size_t have = 0, total = 0;

	snprintf(path, sizeof(path), "%s/dev/kmsg", options->root);
	int fd = log ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
	if (fd < 0) {
		dr_unseen(facts, "kernel.log", log ? errno : ENOMEM, "/dev/kmsg", NULL);
		free(log);
		return;
	}
	int error = 0;
	while (total < MAX_LOG) {
		ssize_t got = read(fd, record + have, sizeof(record) - 1 - have);
		if (got < 0 && errno == EPIPE) /* older records were overwritten meanwhile */
			continue;
		if (got < 0 && errno != EAGAIN)
			error = errno;
		if (got <= 0)
			break;
		total += (size_t)got;
		have += (size_t)got;
		record[have] = 0;
		char *end = strrchr(record, '\n');
		if (!end) { /* a line that does not end */
			have = have == sizeof(record) - 1 ? 0 : have;
			continue;
		}
		size_t rest = have - (size_t)(end + 1 - record);
		*end = 0;
		dr_log_take(log, record);
		memmove(record, end + 1, rest);
		have = rest;
	}
	close(fd);
	if (total == 0) { /* a kernel that runs has written something */
		dr_unseen(facts, "kernel.log", error, error ? "/dev/kmsg" : "/dev/kmsg is empty", NULL);
		free(log);
		return;
	}
	dr_log_end(log, facts);
}
