/*
 * The server's log: one line an event, as key=value or JSON, in one write. What a library of this process logs besides (base/log.h) becomes
 * an event as well when JSON was asked for, so that each line can be read by the same program.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "server/server.h"

#define LINE_MAX_BYTES 4096

static bool json;

struct line {
	char text[LINE_MAX_BYTES];
	size_t used;
};

static void
put(struct line *line, const char *text)
{
	size_t length = strlen(text), room = sizeof(line->text) - 2 - line->used;

	length = length < room ? length : room;
	memcpy(line->text + line->used, text, length);
	line->used += length;
}

/* A value that comes from elsewhere: whatever bytes it has, the line stays one line and can be read back. */
static void
put_quoted(struct line *line, const char *text)
{
	char code[8];

	put(line, "\"");
	for (const unsigned char *c = (const unsigned char *)text; *c && line->used < sizeof(line->text) - 16; c++) {
		if (*c == '"' || *c == '\\')
			snprintf(code, sizeof(code), "\\%c", *c);
		else if (*c < 0x20 || *c >= 0x7f)
			snprintf(code, sizeof(code), "\\u%04x", *c);
		else
			snprintf(code, sizeof(code), "%c", *c);
		put(line, code);
	}
	put(line, "\"");
}

static bool
is_plain(const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c; c++)
		if (*c <= ' ' || *c >= 0x7f || *c == '"' || *c == '\\' || *c == '=')
			return false;
	return *text != 0;
}

static void
put_field(struct line *line, const struct sv_field *field)
{
	char number[24];

	put(line, json ? ",\"" : " ");
	put(line, field->name);
	put(line, json ? "\":" : "=");
	if (!field->text) {
		snprintf(number, sizeof(number), "%llu", (unsigned long long)field->number);
		put(line, number);
	} else if (!json && is_plain(field->text)) {
		put(line, field->text);
	} else {
		put_quoted(line, field->text);
	}
}

void
sv_event(const char *event, const struct sv_field *fields)
{
	struct line line = { .used = 0 };
	struct timespec now;
	struct tm utc;
	char moment[64];
	int saved = errno;

	if (json) {
		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &utc);
		size_t used = strftime(moment, sizeof(moment), "{\"time\":\"%Y-%m-%dT%H:%M:%S", &utc);
		snprintf(moment + used, sizeof(moment) - used, ".%03ldZ\",\"event\":\"", now.tv_nsec / 1000000);
		put(&line, moment);
		put(&line, event);
		put(&line, "\"");
	} else {
		put(&line, "farwarp serve: ");
		put(&line, event);
	}
	for (const struct sv_field *f = fields; f->name; f++)
		put_field(&line, f);
	if (json)
		put(&line, "}");
	line.text[line.used++] = '\n';
	if (write(STDERR_FILENO, line.text, line.used) < 0)
		(void)0; /* nowhere left to say so */
	errno = saved;
}

static void
write_log(enum fw_log_level level, const char *component, const char *text)
{
	static const char *const levels[] = { "error", "warn", "info", "debug", "calls" };

	sv_event("log", (struct sv_field[]){ { "level", levels[level], 0 }, { "component", component, 0 }, { "text", text, 0 }, { 0 } });
}

void
sv_events_json(void)
{
	json = true;
	fw_log_writer = write_log;
}
