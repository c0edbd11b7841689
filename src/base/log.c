/* Where log lines go (log.h). One write a line; never blocks on anything but that write. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>

int fw_log_threshold = -1;

void (*fw_log_observer)(enum fw_log_level level, const char *text);
void (*fw_log_writer)(enum fw_log_level level, const char *component, const char *text);

static int log_fd = STDERR_FILENO;
static int written = FW_LOG_CALLS; /* lines beyond it are only observed */

int
fw_log_init(void)
{
	static const char *const names[] = { "error", "warn", "info", "debug", "calls" };
	const char *setting = getenv("FARWARP_LOG");
	int threshold = FW_LOG_WARN;

	if (setting) {
		const char *colon = strchr(setting, ':');
		size_t length = colon ? (size_t)(colon - setting) : strlen(setting);
		for (int i = 0; i < 5; i++)
			if (strlen(names[i]) == length && strncmp(setting, names[i], length) == 0)
				threshold = i;
		if (colon) {
			int fd = open(colon + 1, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
			if (fd >= 0)
				log_fd = fd;
			else
				dprintf(STDERR_FILENO, "farwarp: log: cannot open %s: %s; logging to stderr\n", colon + 1,
				        strerror(errno));
		}
	}
	fw_log_threshold = threshold;
	return threshold;
}

void
fw_log_observe(enum fw_log_level level)
{
	int threshold = fw_log_threshold >= 0 ? fw_log_threshold : fw_log_init();

	written = threshold;
	if (threshold < (int)level)
		fw_log_threshold = (int)level;
}

void
fw_log_write(enum fw_log_level level, const char *component, const char *format, ...)
{
	int saved = errno;
	char line[2048];
	int used = snprintf(line, sizeof(line), "farwarp: %s: ", component);
	int prefix = used;
	va_list args;

	errno = saved; /* %m in the format means the caller's */
	va_start(args, format);
	int more = vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
	va_end(args);
	if (more > 0)
		used += more;
	if ((size_t)used > sizeof(line) - 2)
		used = sizeof(line) - 2;
	/* Of what another process said nothing ends the line or speaks to a terminal. */
	for (int i = 0; i < used; i++)
		if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 0x7f)
			line[i] = ' ';
	line[used] = 0;
	if (fw_log_observer)
		fw_log_observer(level, line + sizeof("farwarp: ") - 1);
	if ((int)level > written) {
		errno = saved;
		return;
	}
	if (fw_log_writer) {
		fw_log_writer(level, component, line + prefix);
		errno = saved;
		return;
	}
	line[used++] = '\n';
	/* One write a line, so that lines of several threads and processes do not mix. */
	if (write(log_fd, line, (size_t)used) < 0)
		(void)0; /* nowhere left to say so */
	errno = saved;
}
