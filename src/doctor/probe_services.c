/*
 * Probe of daemons and of what limits a process: NVIDIA's services by their processes and binaries, InfiniBand devices, resource limits.
 * In a container the host's processes cannot be seen: there a service that is not found is unseen, not absent.
 */
#include "doctor/probe.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define MAX_LINES 20
#define MAX_LOG (4 << 20)   /* bytes of a service's log that are looked at */

static const struct service {
	const char *name, *comm, *file, *log; /* comm: as the kernel cuts it, 15 bytes */
} services[] = {
	{ "fabricmanager", "nv-fabricmanage", "/usr/bin/nv-fabricmanager", "/var/log/fabricmanager.log" },
	{ "imex", "nvidia-imex", "/usr/bin/nvidia-imex", "/var/log/nvidia-imex.log" },
	{ "mps", "nvidia-cuda-mps", "/usr/bin/nvidia-cuda-mps-control", "" },
	{ "persistenced", "nvidia-persiste", "/usr/bin/nvidia-persistenced", "" },
	{ "gridd", "nvidia-gridd", "/usr/bin/nvidia-gridd", "" },
	{ "nvlsm", "nvlsm", "/opt/nvidia/nvlsm/sbin/nvlsm", "/var/log/nvlsm.log" },
	{ "dcgm", "nv-hostengine", "/usr/bin/nv-hostengine", "" },
	{ "powerd", "nvidia-powerd", "/usr/bin/nvidia-powerd", "" },
	{ "slurmd", "slurmd", "/usr/sbin/slurmd", "/var/log/slurm/slurmd.log" } };
enum { SERVICES = sizeof(services) / sizeof(services[0]) };

struct search {
	const struct dr_options *options;
	long pid[SERVICES];
	unsigned uid[SERVICES];
};

static void
look_at_process(const char *name, void *user)
{
	struct search *s = user;
	char path[64], full[PATH_MAX], comm[32];
	struct stat status;

	if (!isdigit((unsigned char)*name))
		return;
	snprintf(path, sizeof(path), "/proc/%.12s/comm", name);
	if (dr_read_small(s->options, path, comm, sizeof(comm)) != 0)
		return;
	for (int i = 0; i < SERVICES; i++)
		if (!s->pid[i] && strcmp(comm, services[i].comm) == 0) {
			s->pid[i] = strtol(name, NULL, 10);
			snprintf(full, sizeof(full), "%s/proc/%.12s", s->options->root, name);
			s->uid[i] = stat(full, &status) == 0 ? status.st_uid : 0;
		}
}

/* The last lines of a log that tell of a fault or of what the service takes the machine for. */
static void
read_log(const struct dr_options *o, struct fw_json *service, const char *path)
{
	static const char *const words[] = {
		"rror", "ERROR", "ail", "arn", "WARN", "NV_", "atal", "don't match", "etected", "uccessfully", "abort", "refused" };
	char *text = dr_read_file(o, path, MAX_LOG), *rest = text, *kept[MAX_LINES];
	unsigned count = 0;

	if (!text) {
		if (errno != ENOENT)
			dr_unseen(service, "log", errno, path, NULL);
		else
			dr_set_absent(service, "log");
		return;
	}
	for (char *line; (line = strsep(&rest, "\n"));)
		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			if (strstr(line, words[i])) {
				kept[count++ % MAX_LINES] = line;
				break;
			}
	struct fw_json *list = dr_list(service, "log");
	for (unsigned i = count > MAX_LINES ? count - MAX_LINES : 0; i < count; i++) {
		char line[320];
		snprintf(line, sizeof(line), "%s", kept[i % MAX_LINES]);
		dr_append_text(list, line);
	}
	free(text);
}

static void
probe_services(const struct dr_options *o, struct fw_json *facts)
{
	struct search search = { .options = o };
	int error = dr_each_name(o, "/proc", 32768, look_at_process, &search);
	bool hidden = fw_json_is(dr_get(facts, "container.kind"), FW_JSON_TEXT);

	dr_put(facts, "services", fw_json_object());
	for (int i = 0; i < SERVICES; i++) {
		char fact[64];
		bool installed = dr_exists(o, services[i].file);
		snprintf(fact, sizeof(fact), "services.%s", services[i].name);
		if (!search.pid[i] && (error || hidden)) {
			dr_unseen(facts, fact, error, error ? "/proc" : "a container does not see the host's processes", "systemctl status 'nvidia-*'");
			continue;
		}
		if (!search.pid[i] && !installed)
			continue; /* below a map: it is not there */
		dr_put(facts, fact, fw_json_object());
		struct fw_json *service = dr_get(facts, fact);
		dr_set_bool(service, "installed", installed);
		dr_set_bool(service, "running", search.pid[i] != 0);
		if (search.pid[i]) {
			dr_set_int(service, "pid", search.pid[i]);
			dr_set_int(service, "uid", search.uid[i]);
		}
		if (*services[i].log)
			read_log(o, service, services[i].log);
	}
}

/* ---- InfiniBand: of NVLink 5 systems the switches' management ---- */

struct devices {
	const struct dr_options *options;
	struct fw_json *list;
};

static void
add_device(const char *name, void *user)
{
	const struct devices *d = user;
	char path[256];

	struct fw_json *device = dr_append(d->list);
	dr_set_text(device, "name", name);
	snprintf(path, sizeof(path), "/sys/class/infiniband/%.80s/ports/1/state", name);
	dr_text_fact(d->options, device, "state", path);
	snprintf(path, sizeof(path), "/sys/class/infiniband/%.80s/device/vpd", name);
	char *vpd = dr_read_file(d->options, path, 4096);
	int error = errno;
	if (vpd)
		dr_set_bool(device, "switch_management", memmem(vpd, 4096, "SW_MNG", 6) != NULL);
	else if (error == ENOENT)
		dr_set_bool(device, "switch_management", false);
	else
		dr_unseen(device, "switch_management", error, path, NULL);
	free(vpd);
}

static void
probe_infiniband(const struct dr_options *o, struct fw_json *facts)
{
	struct devices devices = { o, dr_list(facts, "infiniband.devices") };
	int error = dr_each_name(o, "/sys/class/infiniband", 256, add_device, &devices);

	if (error && !(error == ENOENT && dr_exists(o, "/sys/bus")))
		dr_unseen(facts, "infiniband.devices", error, "/sys/class/infiniband", NULL);
}

static void
probe_limits(const struct dr_options *o, struct fw_json *facts)
{
	static const struct { const char *fact; int which; } limits[] = {
		{ "limits.memlock", RLIMIT_MEMLOCK }, { "limits.nofile", RLIMIT_NOFILE }, { "limits.address_space", RLIMIT_AS },
		{ "limits.nproc", RLIMIT_NPROC } };
	struct rlimit limit;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (getrlimit((__rlimit_resource_t)limits[i].which, &limit) == 0)
			dr_set_int(facts, limits[i].fact, limit.rlim_cur == RLIM_INFINITY ? -1 : (int64_t)limit.rlim_cur);
	dr_int_fact(o, facts, "limits.overcommit", "/proc/sys/vm/overcommit_memory");
}

void
dr_probe_services(const struct dr_options *o, struct fw_json *facts)
{
	probe_services(o, facts);
	probe_infiniband(o, facts);
	if (!*o->root || o->driver) /* of this process: they say nothing of another machine */
		probe_limits(o, facts);
	else
		dr_unseen(facts, "limits", 0, "the facts are not of this machine", "ulimit -a");
}
