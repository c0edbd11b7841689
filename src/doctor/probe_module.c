/*
 * Probe of what is behind a kernel module: its file, DKMS's builds, lines of modprobe.d that name it, its firmware, the processes that are
 * blocked in the kernel.
 */
#include "doctor/probe.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/modinfo.h"

#define MAX_BUILDS 64
#define MAX_LINES 64        /* of modprobe.d */
#define MAX_CONFIG 65536    /* bytes of a file there */
#define MAX_VERSIONS 32
#define MAX_BLOCKED 32

struct search {
	const struct dr_options *options;
	struct fw_json *list;
	const char *running;
	char module[64], version[64], folder[260];
	bool has_running;
	int count;
};

void
dr_probe_module_file(const struct dr_options *o, const char *path, struct fw_json *fact)
{
	static const char *const members[] = { "version", "license", "signed" };
	char full[PATH_MAX];
	struct in_source source = { .fd = -1 };
	struct in_error error = { "" };
	struct dr_modinfo info;
	const char *why = error.text;
	bool read = false;
	int failed = 0;

	size_t length = strlen(path);
	snprintf(full, sizeof(full), "%s%.3000s", o->root, path);
	if (length > 3 && strcmp(path + length - 3, ".ko") == 0) {
		int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		failed = fd < 0 ? errno : 0;
		read = fd >= 0 && in_source_fd(&source, fd, &error) && dr_modinfo_read(&info, &source, &error);
		in_source_close(&source);
	} else {
		why = "the file is compressed";
	}
	if (read) {
		dr_set_text(fact, "version", info.version[0] ? info.version : NULL);
		dr_set_text(fact, "license", info.license[0] ? info.license : NULL);
		dr_set_bool(fact, "signed", info.is_signed);
		return;
	}
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		dr_unseen(fact, members[i], failed, failed ? path : why, NULL);
}

/* ---- DKMS: /var/lib/dkms/MODULE/VERSION/RELEASE/ARCH/module ---- */

static void
add_build(struct search *s, const char *release, bool built)
{
	if (fw_json_size(s->list) >= MAX_BUILDS)
		return;
	struct fw_json *build = dr_append(s->list);
	dr_set_text(build, "module", s->module);
	dr_set_text(build, "version", s->version);
	dr_set_text(build, "release", release);
	dr_set_bool(build, "built", built);
}

static void
find_architecture(const char *name, void *user)
{
	struct search *s = user;
	char path[400];

	snprintf(path, sizeof(path), "%s/%.60s/module", s->folder, name);
	s->count += dr_exists(s->options, path);
}

static void
look_at_release(const char *release, void *user)
{
	struct search *s = user, below = *s;

	if (!isdigit((unsigned char)release[0])) /* build, source, kernel-RELEASE-ARCH */
		return;
	snprintf(below.folder, sizeof(below.folder), "/var/lib/dkms/%s/%s/%.60s", s->module, s->version, release);
	below.count = 0;
	dr_each_name(s->options, below.folder, 8, find_architecture, &below);
	s->has_running |= strcmp(release, s->running) == 0;
	add_build(s, release, below.count > 0);
}

static void
look_at_version(const char *version, void *user)
{
	struct search *s = user;
	char path[200];

	if (!isdigit((unsigned char)version[0]))
		return;
	snprintf(s->version, sizeof(s->version), "%.60s", version);
	snprintf(path, sizeof(path), "/var/lib/dkms/%s/%s", s->module, s->version);
	s->has_running = false;
	dr_each_name(s->options, path, 256, look_at_release, s);
	if (!s->has_running) /* it is known, and was not built for the kernel that runs */
		add_build(s, s->running, false);
}

static void
look_at_dkms_module(const char *module, void *user)
{
	struct search *s = user;
	char path[120];

	if (strncmp(module, "nvidia", 6) != 0)
		return;
	snprintf(s->module, sizeof(s->module), "%.50s", module);
	snprintf(path, sizeof(path), "/var/lib/dkms/%s", s->module);
	dr_each_name(s->options, path, 64, look_at_version, s);
}

static void
probe_dkms(const struct dr_options *o, struct fw_json *facts)
{
	struct search s = { .options = o, .list = dr_list(facts, "kernel.dkms"), .running = dr_get_text(facts, "platform.kernel", "") };
	int error = dr_each_name(o, "/var/lib/dkms", 256, look_at_dkms_module, &s);

	if (error == ENOENT)
		dr_set_absent(facts, "kernel.dkms");
	else if (error)
		dr_unseen(facts, "kernel.dkms", error, "/var/lib/dkms", NULL);
}

/* ---- modprobe.d ---- */

static void
read_config(const char *name, void *user)
{
	struct search *s = user;
	char path[360];
	size_t length = strlen(name);

	if (length < 5 || strcmp(name + length - 5, ".conf") != 0)
		return;
	snprintf(path, sizeof(path), "%s/%.80s", s->folder, name);
	char *text = dr_read_file(s->options, path, MAX_CONFIG), *rest = text;
	for (char *line; (line = strsep(&rest, "\n")) && fw_json_size(s->list) < MAX_LINES;) {
		line += strspn(line, " \t");
		if (*line == '#' || (!strstr(line, "nvidia") && !strstr(line, "nouveau")))
			continue;
		struct fw_json *item = dr_append(s->list);
		dr_set_text(item, "file", path);
		dr_set_text(item, "text", line);
	}
	free(text);
}

static void
probe_modprobe(const struct dr_options *o, struct fw_json *facts)
{
	static const char *const folders[] = { "/etc/modprobe.d", "/run/modprobe.d", "/lib/modprobe.d" };
	struct search s = { .options = o, .list = dr_list(facts, "kernel.modprobe") };

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(s.folder, sizeof(s.folder), "%s", folders[i]);
		int error = dr_each_name(o, folders[i], 256, read_config, &s);
		if (error && error != ENOENT) {
			dr_unseen(facts, "kernel.modprobe", error, folders[i], NULL);
			return;
		}
	}
}

/* ---- firmware, switches ---- */

static void
count_file(const char *name, void *user)
{
	((struct search *)user)->count += strncmp(name, "gsp_", 4) == 0;
}

static void
add_firmware(const char *version, void *user)
{
	struct search *s = user;

	if (!isdigit((unsigned char)version[0]) || !strchr(version, '.') || fw_json_size(s->list) >= MAX_VERSIONS)
		return; /* folders of single GPUs, as ga102, are nouveau's */
	snprintf(s->folder, sizeof(s->folder), "/lib/firmware/nvidia/%.60s", version);
	s->count = 0;
	dr_each_name(s->options, s->folder, 64, count_file, s);
	struct fw_json *item = dr_append(s->list);
	dr_set_text(item, "version", version);
	dr_set_int(item, "files", s->count);
}

static void
probe_firmware(const struct dr_options *o, struct fw_json *facts)
{
	struct search s = { .options = o, .list = dr_list(facts, "kernel.firmware") };
	int error = dr_each_name(o, "/lib/firmware/nvidia", 256, add_firmware, &s);

	if (error && !(error == ENOENT && dr_exists(o, "/lib/firmware"))) /* some systems keep it elsewhere */
		dr_unseen(facts, "kernel.firmware", error, "/lib/firmware/nvidia", NULL);
}

static void
count_name(const char *name, void *user)
{
	(void)name;
	((struct search *)user)->count++;
}

static void
probe_switches(const struct dr_options *o, struct fw_json *facts)
{
	static const char path[] = "/proc/driver/nvidia-nvswitch/devices";
	struct search s = { .options = o };

	if (!fw_json_is(dr_get(facts, "proc_driver.version"), FW_JSON_TEXT))
		return;
	int error = dr_each_name(o, path, 64, count_name, &s);
	if (error && error != ENOENT)
		dr_unseen(facts, "proc_driver.nvswitches", error, path, NULL);
	else
		dr_set_int(facts, "proc_driver.nvswitches", s.count);
}

/* ---- processes that the kernel does not let go on ---- */

static void
look_at_process(const char *name, void *user)
{
	struct search *s = user;
	char path[64], text[512], wchan[64];

	if (!isdigit((unsigned char)name[0]) || fw_json_size(s->list) >= MAX_BLOCKED)
		return;
	snprintf(path, sizeof(path), "/proc/%.12s/stat", name);
	if (dr_read_small(s->options, path, text, sizeof(text)) != 0)
		return;
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close || close < open || strncmp(close, ") D", 3) != 0)
		return;
	*close = 0;
	snprintf(path, sizeof(path), "/proc/%.12s/wchan", name);
	int error = dr_read_small(s->options, path, wchan, sizeof(wchan));
	struct fw_json *item = dr_append(s->list);
	dr_set_int(item, "pid", strtol(name, NULL, 10));
	dr_set_text(item, "name", open + 1);
	if (error || strcmp(wchan, "0") == 0)
		dr_unseen(item, "wchan", error ? error : EPERM, path, NULL);
	else
		dr_set_text(item, "wchan", wchan);
}

static void
probe_blocked(const struct dr_options *o, struct fw_json *facts)
{
	struct search s = { .options = o, .list = dr_list(facts, "kernel.blocked") };
	int error = dr_each_name(o, "/proc", 32768, look_at_process, &s);

	if (error)
		dr_unseen(facts, "kernel.blocked", error, "/proc", NULL);
}

void
dr_probe_module(const struct dr_options *o, struct fw_json *facts)
{
	probe_dkms(o, facts);
	probe_modprobe(o, facts);
	probe_firmware(o, facts);
	probe_switches(o, facts);
	probe_blocked(o, facts);
}
