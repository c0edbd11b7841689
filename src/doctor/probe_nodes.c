/* Probe of the device nodes: what /dev holds, its majors against /proc/devices, and what open() says, asked in a child. */
#include "doctor/probe.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAX_NODES 160

struct opening { /* shared with the child that opens */
	volatile unsigned at;            /* the node being opened */
	unsigned count;
	volatile int error[MAX_NODES];   /* -1: not yet */
	char path[MAX_NODES][PATH_MAX / 8];
};

struct search {
	const struct dr_options *options;
	struct fw_json *nodes;
	const struct fw_json *facts;
	const char *folder;
};

/* The kind of a node by its name, and the name of its major in /proc/devices. */
static const char *
kind_of(const char *folder, const char *name, const char **devices)
{
	*devices = "nvidia";
	if (strcmp(folder, "/dev/nvidia-caps") == 0)
		return *devices = "nvidia-caps", "caps";
	if (strcmp(folder, "/dev/nvidia-caps-imex-channels") == 0)
		return *devices = "nvidia-caps-imex-channels", "imex";
	if (strcmp(name, "dxg") == 0)
		return *devices = "dxg", "dxg";
	if (strncmp(name, "nvidia", 6) != 0)
		return NULL;
	name += 6;
	if (isdigit((unsigned char)*name) && name[strspn(name, "0123456789")] == 0)
		return *devices = "nvidia-frontend", "gpu";
	if (strcmp(name, "ctl") == 0)
		return *devices = "nvidia-frontend", "control";
	if (strcmp(name, "-uvm") == 0 || strcmp(name, "-uvm-tools") == 0)
		return *devices = "nvidia-uvm", name[4] ? "uvm-tools" : "uvm";
	if (strcmp(name, "-modeset") == 0)
		return *devices = "nvidia-modeset", "modeset";
	if (strncmp(name, "-nvswitch", 9) == 0)
		return *devices = "nvidia-nvswitch", "nvswitch";
	return NULL;
}

static void
expected_major(const struct fw_json *facts, struct fw_json *node, const char *device)
{
	const struct fw_json *devices = dr_get(facts, "kernel.devices");

	if (!fw_json_is(devices, FW_JSON_OBJECT) || dr_is_unseen(devices)) {
		dr_unseen(node, "expected_major", 0, "/proc/devices could not be read", NULL);
		return;
	}
	const struct fw_json *major = fw_json_get(devices, device);
	if (!major && strcmp(device, "nvidia-frontend") == 0) /* its name before release 560 or so, and after */
		major = fw_json_get(devices, "nvidia");
	if (fw_json_is(major, FW_JSON_INT))
		dr_set_int(node, "expected_major", fw_json_as_int(major));
	else
		dr_set_absent(node, "expected_major");
}

static void
add_node(const char *name, void *user)
{
	const struct search *s = user;
	const char *devices, *kind = kind_of(s->folder, name, &devices);
	char full[PATH_MAX], text[PATH_MAX];
	struct stat status;

	snprintf(text, sizeof(text), "%s/%.200s", s->folder, name);
	snprintf(full, sizeof(full), "%s%.3000s", s->options->root, text);
	if (!kind || fw_json_size(s->nodes) >= MAX_NODES || stat(full, &status) != 0 || S_ISDIR(status.st_mode))
		return;
	struct fw_json *node = dr_append(s->nodes);
	dr_set_text(node, "path", text);
	dr_set_text(node, "kind", kind);
	const char *digit = name + strcspn(name, "0123456789");
	if (*digit)
		dr_set_int(node, "index", strtol(digit, NULL, 10));
	dr_set_int(node, "major", major(status.st_rdev));
	dr_set_int(node, "minor", minor(status.st_rdev));
	expected_major(s->facts, node, devices);
	snprintf(text, sizeof(text), "%04o", status.st_mode & 07777);
	dr_set_text(node, "mode", text);
	dr_set_int(node, "uid", status.st_uid);
	dr_set_int(node, "gid", status.st_gid);
}

/* Whether a driver has registered a character device's major: where none has, open() makes the kernel look for a module to load. */
static bool
has_major(const char *devices, int64_t major)
{
	for (const char *line = devices; line && strncmp(line, "Block", 5) != 0; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (strtol(line, NULL, 10) == major)
			return true;
	return false;
}

static void
open_nodes(void *shared)
{
	struct opening *o = shared;

	for (unsigned i = 0; i < o->count; i++) {
		o->at = i + 1;
		if (o->error[i] >= 0)
			continue;
		int fd = open(o->path[i], O_RDWR | O_CLOEXEC | O_NONBLOCK);
		o->error[i] = fd < 0 ? errno : 0;
		if (fd >= 0)
			close(fd);
	}
	o->at = o->count + 1;
}

/* Opens all nodes in one child; after one that hangs, no other is tried: they share the lock that it waits for. */
static void
probe_open(const struct dr_options *options, struct fw_json *nodes)
{
	struct opening *o = dr_shared(sizeof(*o));
	struct dr_child_end end;

	if (!o)
		return;
	o->count = (unsigned)fw_json_size(nodes);
	char *devices = dr_read_file(options, "/proc/devices", 65536);
	for (unsigned i = 0; i < o->count; i++) {
		struct fw_json *node = fw_json_at(nodes, i);
		snprintf(o->path[i], sizeof(o->path[i]), "%s%s", options->root, dr_get_text(node, "path", ""));
		bool driven = options->load || !devices || has_major(devices, dr_get_int(node, "major", 0));
		o->error[i] = driven ? -1 : ENXIO;
	}
	free(devices);
	if (o->count)
		dr_child_run(open_nodes, o, &o->at, options->deadline, &end);
	for (unsigned i = 0; i < o->count; i++) {
		struct fw_json *node = fw_json_at(nodes, i);
		if (o->error[i] >= 0)
			dr_set_text(node, "open", dr_errno_name(o->error[i]));
		else if (end.hung && o->at == i + 1)
			dr_set_text(node, "open", "hang");
		else
			dr_unseen(node, "open", 0, end.hung ? "the open of another node hangs" : "the child that opens ended", NULL);
	}
	dr_unshare(o, sizeof(*o));
}

void
dr_probe_nodes(const struct dr_options *options, struct fw_json *facts)
{
	static const char *const folders[] = { "/dev", "/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels" };
	struct fw_json *nodes = dr_list(facts, "nodes");

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		struct search search = { options, nodes, facts, folders[i] };
		int error = dr_each_name(options, folders[i], 4096, add_node, &search);
		if (error && i == 0) {
			dr_unseen(facts, "nodes", error, "/dev", NULL);
			return;
		}
	}
	probe_open(options, nodes);
}
