/* The table of probes, and what they share: reading small files below a root. */
#include "doctor/probe.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* In the order in which they run: a later one may read what an earlier one wrote. */
static const struct {
	dr_probe_function *probe;
	bool quick;       /* part of --quick */
} probes[] = {
	{ dr_probe_pci, true },
	{ dr_probe_platform, true },
	{ dr_probe_kernel, true },
	{ dr_probe_module, false },
	{ dr_probe_nodes, true },
	{ dr_probe_container, true },
	{ dr_probe_environment, true },
	{ dr_probe_runtime, false },
	{ dr_probe_log, false },
	{ dr_probe_services, false },
	{ dr_probe_disk, false },
	{ dr_probe_nvml, false },
	{ dr_probe_driver, true },
	{ dr_probe_libraries, true },
	{ dr_probe_python, false },
};

struct fw_json *
dr_probe(const struct dr_options *options)
{
	struct fw_json *facts = dr_facts_new();
	double begin = dr_now();
	char stamp[32];
	time_t now = time(NULL);
	struct tm utc;

	if (!facts)
		return NULL;
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	dr_set_text(facts, "recorded.time", stamp);
	dr_set_text(facts, "recorded.version", FARWARP_VERSION);
	dr_set_bool(facts, "recorded.as_root", geteuid() == 0);
	dr_set_bool(facts, "recorded.redacted", false);
	dr_set_bool(facts, "recorded.quick", options->quick);
	dr_set_bool(facts, "recorded.may_load", options->load);
	if (options->error)
		dr_set_int(facts, "recorded.error", options->error);
	else
		dr_set_absent(facts, "recorded.error");
	for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
		if (probes[i].quick || !options->quick)
			probes[i].probe(options, facts);
	dr_set_real(facts, "recorded.seconds", dr_now() - begin);
	return facts;
}

bool
dr_may_load(const struct dr_options *options, const struct fw_json *facts)
{
	bool none = dr_get_int(facts, "pci.functions", 0) > 0 && fw_json_size(dr_get(facts, "pci.gpus")) == 0;

	return options->load && !none;
}

double
dr_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
open_below(const struct dr_options *options, const char *path, int flags)
{
	char full[PATH_MAX];

	if (snprintf(full, sizeof(full), "%s%s", options->root, path) >= (int)sizeof(full)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return open(full, flags | O_CLOEXEC);
}

int
dr_read_small(const struct dr_options *options, const char *path, char *buffer, size_t size)
{
	buffer[0] = 0;
	int fd = open_below(options, path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return errno;
	ssize_t got = read(fd, buffer, size - 1);
	int error = got < 0 ? errno : 0;
	close(fd);
	buffer[got > 0 ? got : 0] = 0;
	for (char *end = buffer + strlen(buffer); end > buffer && isspace((unsigned char)end[-1]);)
		*--end = 0;
	return error;
}

char *
dr_read_file(const struct dr_options *options, const char *path, size_t limit)
{
	int fd = open_below(options, path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return NULL;
	char *text = calloc(1, limit + 1); /* zeroed: binary files are searched up to the limit */
	size_t have = 0;
	ssize_t got = -1;
	while (text && have < limit && (got = read(fd, text + have, limit - have)) > 0)
		have += (size_t)got;
	int error = errno;
	close(fd);
	if (!text || (got < 0 && have == 0)) {
		free(text);
		errno = text ? error : ENOMEM;
		return NULL;
	}
	text[have] = 0;
	return text;
}

bool
dr_exists(const struct dr_options *options, const char *path)
{
	char full[PATH_MAX];
	struct stat status;

	snprintf(full, sizeof(full), "%s%s", options->root, path);
	return stat(full, &status) == 0;
}

int
dr_read_link_name(const struct dr_options *options, const char *path, char *buffer, size_t size)
{
	char full[PATH_MAX], link[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", options->root, path);
	ssize_t length = readlink(full, link, sizeof(link) - 1);
	if (length < 0)
		return errno;
	link[length] = 0;
	const char *slash = strrchr(link, '/');
	snprintf(buffer, size, "%s", slash ? slash + 1 : link);
	return 0;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int
dr_each_name(const struct dr_options *options, const char *path, size_t limit, void (*each)(const char *name, void *user), void *user)
{
	int fd = open_below(options, path, O_RDONLY | O_DIRECTORY);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	char **names = calloc(limit, sizeof(*names));
	size_t count = 0;

	if (!dir || !names) {
		int error = dir ? ENOMEM : errno;
		if (dir)
			closedir(dir);
		else if (fd >= 0)
			close(fd);
		free(names);
		return error;
	}
	for (struct dirent *entry; count < limit && (entry = readdir(dir));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && (names[count] = strdup(entry->d_name)))
			count++;
	closedir(dir);
	qsort(names, count, sizeof(*names), by_name);
	for (size_t i = 0; i < count; i++) {
		each(names[i], user);
		free(names[i]);
	}
	free(names);
	return 0;
}

void
dr_text_fact(const struct dr_options *options, struct fw_json *at, const char *fact, const char *file)
{
	char text[1024];
	int error = dr_read_small(options, file, text, sizeof(text));

	if (error == 0)
		dr_set_text(at, fact, text);
	else if (error == ENOENT || error == ENOTDIR)
		dr_set_absent(at, fact);
	else
		dr_unseen(at, fact, error, file, NULL);
}

void
dr_int_fact(const struct dr_options *options, struct fw_json *at, const char *fact, const char *file)
{
	char text[64], *end;
	int error = dr_read_small(options, file, text, sizeof(text));

	if (error == ENOENT || error == ENOTDIR) {
		dr_set_absent(at, fact);
		return;
	}
	long long value = strtoll(text, &end, 0);
	if (error || end == text)
		dr_unseen(at, fact, error, error ? file : "no number is in it", NULL);
	else
		dr_set_int(at, fact, value);
}
