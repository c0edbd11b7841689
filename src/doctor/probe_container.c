/* Probe of what stands between this process and the machine: container, orchestrator, sandbox, namespaces, mounts of a GPU. */
#include "doctor/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_MOUNTS 200
#define MAX_RULES 64 /* lines of a device list */

/* Marks that a runtime leaves, the more specific first. */
static void
probe_kind(const struct dr_options *o, struct fw_json *container)
{
	static const struct { const char *path, *kind; } marks[] = {
		{ "/var/run/secrets/kubernetes.io", "kubernetes" }, { "/.dockerenv", "docker" }, { "/run/.containerenv", "podman" },
		{ "/.singularity.d", "apptainer" }, { "/dev/lxd/sock", "lxc" } };
	static const struct { const char *in, *kind; } groups[] = {
		{ "kubepods", "kubernetes" }, { "docker", "docker" }, { "libpod", "podman" }, { "containerd", "containerd" }, { "/lxc", "lxc" },
		{ "machine.slice/systemd-nspawn", "nspawn" } };
	char text[4096];

	dr_set_absent(container, "kind");
	/* systemd's own mark for what it runs in */
	if (dr_read_small(o, "/run/systemd/container", text, sizeof(text)) == 0 && text[0]) {
		dr_set_text(container, "kind", strcmp(text, "systemd-nspawn") == 0 ? "nspawn" : text);
		return;
	}
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (dr_exists(o, marks[i].path)) {
			dr_set_text(container, "kind", marks[i].kind);
			return;
		}
	if (dr_read_small(o, "/proc/1/cgroup", text, sizeof(text)) == 0)
		for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
			if (strstr(text, groups[i].in)) {
				dr_set_text(container, "kind", groups[i].kind);
				return;
			}
}

/* What devices a group of version 1 may use; version 2 asks a program in the kernel, which cannot be read. */
static void
probe_cgroup_devices(const struct dr_options *o, struct fw_json *container)
{
	static const char path[] = "/sys/fs/cgroup/devices/devices.list";
	char *text = dr_read_file(o, path, 65536), *rest = text;

	if (!text) {
		bool second = dr_get_int(container, "cgroup.version", 0) == 2;
		dr_unseen(container, "cgroup.devices", second ? 0 : errno, second ? "version 2 filters by a program in the kernel" : path, NULL);
		return;
	}
	struct fw_json *list = dr_list(container, "cgroup.devices");
	for (char *line; (line = strsep(&rest, "\n")) && fw_json_size(list) < MAX_RULES;)
		if (*line)
			dr_append_text(list, line);
	free(text);
}

/* The number in a group's file: -1 for "max", -2 if there is none. */
static int64_t
group_number(const struct dr_options *o, const char *folder, const char *name)
{
	char path[1100], text[64], *end;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (dr_read_small(o, path, text, sizeof(text)) != 0)
		return -2;
	long long number = strtoll(text, &end, 10);
	return strcmp(text, "max") == 0 ? -1 : end == text ? -2 : number;
}

/* The limit of processes that leaves the least room, of this group and those above it. */
static void
probe_pids(const struct dr_options *o, struct fw_json *container, const char *base, const char *group)
{
	char folder[1024];
	int64_t least = -1, used = -1;
	size_t fixed = strlen(base);

	snprintf(folder, sizeof(folder), "%s%.900s", base, group);
	for (;;) {
		int64_t limit = group_number(o, folder, "pids.max"), now = group_number(o, folder, "pids.current");
		if (now >= 0 && (used < 0 || (limit >= 0 && (least < 0 || limit - now < least - used)))) {
			used = now;
			least = limit;
		}
		char *slash = strrchr(folder, '/');
		if (!slash || slash < folder + fixed)
			break;
		*slash = 0;
	}
	if (least >= 0)
		dr_set_int(container, "cgroup.pids_max", least);
	else if (used >= 0)
		dr_set_absent(container, "cgroup.pids_max");
	else
		dr_unseen(container, "cgroup.pids_max", ENOENT, base, NULL);
	if (used >= 0)
		dr_set_int(container, "cgroup.pids_current", used);
	if (least >= 0)
		dr_set_int(container, "cgroup.pids_left", used < least ? least - used : 0);
	else if (used >= 0)
		dr_set_absent(container, "cgroup.pids_left");
	if (used < 0)
		dr_unseen(container, "cgroup.pids_current", ENOENT, base, NULL);
}

static void
probe_cgroup(const struct dr_options *o, struct fw_json *container)
{
	char text[4096], group[1024];

	if (dr_exists(o, "/sys/fs/cgroup/cgroup.controllers"))
		dr_set_int(container, "cgroup.version", 2);
	else if (dr_exists(o, "/sys/fs/cgroup/devices") || dr_exists(o, "/sys/fs/cgroup/memory"))
		dr_set_int(container, "cgroup.version", 1);
	else
		dr_unseen(container, "cgroup.version", ENOENT, "/sys/fs/cgroup", NULL);
	int error = dr_read_small(o, "/proc/self/cgroup", text, sizeof(text));
	const char *path = error ? NULL : strrchr(text, ':'), *pids = strstr(text, ":pids:");
	if (path)
		dr_set_text(container, "cgroup.path", path + 1);
	else
		dr_unseen(container, "cgroup.path", error, "/proc/self/cgroup", NULL);
	pids = pids ? pids + strlen(":pids:") : path ? path + 1 : "/";
	snprintf(group, sizeof(group), "%.*s", (int)strcspn(pids, "\n"), pids);
	bool first = dr_get_int(container, "cgroup.version", 2) == 1;
	probe_pids(o, container, first ? "/sys/fs/cgroup/pids" : "/sys/fs/cgroup", strcmp(group, "/") == 0 ? "" : group);
	probe_cgroup_devices(o, container);
}

/*
 * Whether this process is in a namespace of its own. The kernel's first ones have fixed numbers (include/linux/proc_ns.h), but for the
 * network's: there process 1 tells, unless it is in the same container.
 */
static void
probe_namespace(const struct dr_options *o, struct fw_json *container, const char *kind, const char *first)
{
	char path[64], fact[64], own[64], other[64];

	snprintf(fact, sizeof(fact), "namespaces.%s", kind);
	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
	int error = dr_read_link_name(o, path, own, sizeof(own));
	if (error) {
		dr_unseen(container, fact, error, path, NULL);
		return;
	}
	if (first) {
		dr_set_bool(container, fact, strstr(own, first) == NULL);
		return;
	}
	snprintf(path, sizeof(path), "/proc/1/ns/%s", kind);
	error = dr_read_link_name(o, path, other, sizeof(other));
	if (!error && strcmp(own, other) != 0)
		dr_set_bool(container, fact, true);
	else if (!error && !dr_get_bool(container, "namespaces.pid", true))
		dr_set_bool(container, fact, false);
	else
		dr_unseen(container, fact, error, error ? path : "process 1 is this container's own", NULL);
}

static void
probe_namespaces(const struct dr_options *o, struct fw_json *container)
{
	char *map = dr_read_file(o, "/proc/self/uid_map", 4096);
	unsigned long inside, outside, count;

	if (map && sscanf(map, "%lu %lu %lu", &inside, &outside, &count) == 3)
		dr_set_bool(container, "namespaces.user", !(inside == 0 && outside == 0 && count == 4294967295UL));
	else
		dr_unseen(container, "namespaces.user", map ? 0 : errno, "/proc/self/uid_map", NULL);
	free(map);
	probe_namespace(o, container, "pid", "[4026531836]");
	probe_namespace(o, container, "ipc", "[4026531839]");
	probe_namespace(o, container, "net", NULL);
	char *status = dr_read_file(o, "/proc/self/status", 8192);
	const char *seccomp = status ? strstr(status, "\nSeccomp:") : NULL;
	if (seccomp)
		dr_set_int(container, "seccomp", strtol(seccomp + 9, NULL, 10));
	free(status);
}

/* Seconds since process 1 began: of a container, its age. Field 22 of stat counts ticks since boot. */
static void
probe_age(const struct dr_options *o, struct fw_json *container)
{
	char text[1024], uptime[64];
	int error = dr_read_small(o, "/proc/1/stat", text, sizeof(text));
	const char *at = error ? NULL : strrchr(text, ')');

	if (!error)
		error = dr_read_small(o, "/proc/uptime", uptime, sizeof(uptime));
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (error || !at)
		dr_unseen(container, "age", error, "/proc/1/stat", NULL);
	else
		dr_set_real(container, "age", strtod(uptime, NULL) - strtod(at, NULL) / (double)sysconf(_SC_CLK_TCK));
}

/* Which program made the container: Podman's own word, or where the layers of its root lie. */
static void
probe_runtime(const struct dr_options *o, struct fw_json *container, const char *root_mount)
{
	static const struct { const char *in, *name; } places[] = {
		{ "/docker/", "docker" }, { "/io.containerd.", "containerd" }, { "/containers/storage/", "podman or cri-o" }, { "/lxc/", "lxc" } };
	char text[512];
	const char *engine = dr_read_small(o, "/run/.containerenv", text, sizeof(text)) == 0 ? strstr(text, "engine=\"") : NULL;

	dr_set_absent(container, "runtime");
	if (engine) {
		char name[64];
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(engine + 8, "\""), engine + 8);
		dr_set_text(container, "runtime", name);
		return;
	}
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (strstr(root_mount, places[i].in)) {
			dr_set_text(container, "runtime", places[i].name);
			return;
		}
}

/* Lines of mountinfo: "id parent major:minor root target options ... - fs source superoptions". */
static void
probe_mounts(const struct dr_options *o, struct fw_json *container)
{
	char *text = dr_read_file(o, "/proc/self/mountinfo", 1 << 20), *rest = text;

	if (!text) {
		dr_unseen(container, "mounts", errno, "/proc/self/mountinfo", NULL);
		return;
	}
	struct fw_json *mounts = dr_list(container, "mounts");
	for (char *line; (line = strsep(&rest, "\n")) && fw_json_size(mounts) < MAX_MOUNTS;) {
		char root[512], target[512], options[256], fs[64];
		const char *dash = strstr(line, " - ");
		if (!dash || sscanf(line, "%*s %*s %*s %511s %511s %255s", root, target, options) != 3 || sscanf(dash + 3, "%63s", fs) != 1)
			continue;
		if (strcmp(target, "/") == 0)
			probe_runtime(o, container, dash);
		if (!strstr(line, "nvidia") && !strstr(line, "libcuda") && !strstr(line, "dxg") && strcmp(target, "/dev") != 0)
			continue;
		struct fw_json *mount = dr_append(mounts);
		dr_set_text(mount, "target", target);
		dr_set_text(mount, "source", root);
		dr_set_text(mount, "fs", fs);
		dr_set_text(mount, "options", options);
	}
	free(text);
}

static void
probe_surroundings(const struct dr_options *o, struct fw_json *container)
{
	char text[512];
	bool wsl = dr_read_small(o, "/proc/sys/kernel/osrelease", text, sizeof(text)) == 0 && (strstr(text, "icrosoft") || strstr(text, "WSL"));

	dr_set_absent(container, "wsl");
	if (wsl) {
		dr_put(container, "wsl", fw_json_object());
		dr_set_int(container, "wsl.version", strstr(text, "WSL2") || strstr(text, "microsoft-standard") ? 2 : 1);
		dr_set_bool(container, "wsl.dxg", dr_exists(o, "/dev/dxg"));
		dr_set_bool(container, "wsl.lib", dr_exists(o, "/usr/lib/wsl/lib/libcuda.so.1"));
	}
	dr_set_bool(container, "flatpak", dr_exists(o, "/.flatpak-info"));
	bool gvisor = dr_read_small(o, "/proc/version", text, sizeof(text)) == 0 && strstr(text, "gVisor");
	dr_set_bool(container, "gvisor", gvisor);
	if (dr_read_small(o, "/proc/self/attr/current", text, sizeof(text)) == 0 && text[0] && strcmp(text, "unconfined") != 0) {
		bool context = strchr(text, ':') != NULL; /* user:role:type:level is SELinux's */
		dr_set_text(container, context ? "selinux" : "apparmor", text);
		dr_set_absent(container, context ? "apparmor" : "selinux");
	} else {
		dr_set_absent(container, "selinux");
		dr_set_absent(container, "apparmor");
	}
}

static void
look_for_library(const char *name, void *user)
{
	static const char begin[] = "libcuda.so.";

	if (strncmp(name, begin, strlen(begin)) == 0 && strchr(name + strlen(begin), '.'))
		snprintf(user, 64, "%s", name + strlen(begin));
}

/* A driver container (GPU operator) shows its root below /run: the version of the driver's library there. */
static void
probe_driver_root(const struct dr_options *o, struct fw_json *container)
{
	static const char *const folders[] = {
		"/run/nvidia/driver/usr/lib/x86_64-linux-gnu", "/run/nvidia/driver/usr/lib/aarch64-linux-gnu", "/run/nvidia/driver/usr/lib64" };
	char version[64] = "";

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]) && !version[0]; i++)
		dr_each_name(o, folders[i], 8192, look_for_library, version);
	dr_set_text(container, "driver_root", version[0] ? version : NULL);
}

void
dr_probe_container(const struct dr_options *o, struct fw_json *facts)
{
	dr_put(facts, "container", fw_json_object());
	struct fw_json *container = dr_get(facts, "container");

	if (!container)
		return;
	probe_kind(o, container);
	probe_cgroup(o, container);
	probe_namespaces(o, container);
	probe_age(o, container);
	probe_mounts(o, container);
	probe_surroundings(o, container);
	probe_driver_root(o, container);
	const struct fw_json *devices = dr_get(facts, "kernel.devices");
	if (fw_json_is(devices, FW_JSON_OBJECT) && !dr_is_unseen(devices))
		dr_set_bool(container, "host_majors", fw_json_size(devices) > 0);
}
