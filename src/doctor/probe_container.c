/* Probe of what stands between this process and the machine: container, orchestrator, sandbox, namespaces, mounts of a GPU. */
#include "doctor/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MOUNTS 200

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

static void
probe_cgroup(const struct dr_options *o, struct fw_json *container)
{
	char text[4096];

	if (dr_exists(o, "/sys/fs/cgroup/cgroup.controllers"))
		dr_set_int(container, "cgroup.version", 2);
	else if (dr_exists(o, "/sys/fs/cgroup/devices") || dr_exists(o, "/sys/fs/cgroup/memory"))
		dr_set_int(container, "cgroup.version", 1);
	else
		dr_unseen(container, "cgroup.version", ENOENT, "/sys/fs/cgroup", NULL);
	int error = dr_read_small(o, "/proc/self/cgroup", text, sizeof(text));
	char *path = error ? NULL : strrchr(text, ':');
	if (path)
		dr_set_text(container, "cgroup.path", path + 1);
	else
		dr_unseen(container, "cgroup.path", error, "/proc/self/cgroup", NULL);
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
	char *status = dr_read_file(o, "/proc/self/status", 8192);
	const char *seccomp = status ? strstr(status, "\nSeccomp:") : NULL;
	if (seccomp)
		dr_set_int(container, "seccomp", strtol(seccomp + 9, NULL, 10));
	free(status);
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
		if (!dash || (!strstr(line, "nvidia") && !strstr(line, "libcuda") && !strstr(line, "dxg")))
			continue;
		if (sscanf(line, "%*s %*s %*s %511s %511s %255s", root, target, options) != 3 || sscanf(dash + 3, "%63s", fs) != 1)
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
	dr_text_fact(o, container, "driver_root", "/run/nvidia/driver/proc/driver/nvidia/version");
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
	probe_mounts(o, container);
	probe_surroundings(o, container);
	const struct fw_json *devices = dr_get(facts, "kernel.devices");
	if (fw_json_is(devices, FW_JSON_OBJECT) && !dr_is_unseen(devices))
		dr_set_bool(container, "host_majors", fw_json_size(devices) > 0);
}
