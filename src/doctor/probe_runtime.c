/*
 * Probe of what makes containers on this machine: Docker, NVIDIA's container toolkit, CDI specifications, the kubelet's device manager.
 * Their files are foreign: each is read up to a bound, and one that is not understood is said to be so.
 */
#include "doctor/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/cdi.h"

#define MAX_SPECIFICATIONS 16    /* CDI files that are looked at */
#define MAX_BYTES (2 << 20)      /* of any file here */

/* ---- CDI ---- */

struct search {
	const struct dr_options *options;
	const struct fw_json *facts;
	struct fw_json *list;
	const char *folder;
};

static bool
path_exists(const char *path, void *user)
{
	return dr_exists(((const struct search *)user)->options, path);
}

/* The major that the module registered for a node that is in /dev. */
static int
node_major(const char *path, void *user)
{
	const struct fw_json *nodes = dr_get(((const struct search *)user)->facts, "nodes");

	for (size_t i = 0; i < fw_json_size(nodes); i++)
		if (strcmp(dr_get_text(fw_json_at(nodes, i), "path", ""), path) == 0)
			return (int)dr_get_int(fw_json_at(nodes, i), "expected_major", -1);
	return -1;
}

static void
add_specification(const char *name, void *user)
{
	struct search *s = user;
	const char *dot = strrchr(name, '.');
	char path[256], why[160];
	struct fw_json_error error;
	const struct dr_cdi_machine machine = { path_exists, node_major, s };

	if (!dot || (strcmp(dot, ".yaml") != 0 && strcmp(dot, ".json") != 0) || fw_json_size(s->list) >= MAX_SPECIFICATIONS)
		return;
	snprintf(path, sizeof(path), "%s/%.200s", s->folder, name);
	char *text = dr_read_file(s->options, path, MAX_BYTES);
	int failed = errno;
	struct fw_json *fact = dr_append(s->list);
	dr_set_text(fact, "path", path);
	struct fw_json *specification = text ? dr_cdi_read(text, strlen(text), &error) : NULL;
	if (specification) {
		dr_cdi_describe(specification, &machine, fact);
	} else {
		if (text)
			snprintf(why, sizeof(why), "line %d, column %d: %s", error.line, error.column, error.what);
		dr_unseen(fact, "kind", text ? 0 : failed, text ? why : path, NULL);
	}
	fw_json_free(specification);
	free(text);
}

static void
probe_cdi(const struct dr_options *o, struct fw_json *facts)
{
	static const char *const folders[] = { "/etc/cdi", "/var/run/cdi" };
	struct search search = { .options = o, .facts = facts, .list = dr_list(facts, "container.cdi") };

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		search.folder = folders[i];
		int error = dr_each_name(o, folders[i], 256, add_specification, &search);
		if (error && error != ENOENT) {
			dr_unseen(facts, "container.cdi", error, folders[i], NULL);
			return;
		}
	}
}

/* ---- Docker, NVIDIA's toolkit ---- */

/* Whether a line of a TOML file, not a comment, says "key = true". */
static bool
is_true_in_toml(char *text, const char *key)
{
	bool truth = false;

	for (char *line; (line = strsep(&text, "\n"));) {
		line += strspn(line, " \t");
		size_t length = strlen(key);
		if (strncmp(line, key, length) != 0 || !strchr(" \t=", line[length]) || !line[length])
			continue;
		const char *value = line + length + strspn(line + length, " \t=");
		truth = strncmp(value, "true", 4) == 0;
	}
	return truth;
}

static void
probe_toolkit(const struct dr_options *o, struct fw_json *container)
{
	static const char config[] = "/etc/nvidia-container-runtime/config.toml";
	bool hook = dr_exists(o, "/usr/bin/nvidia-container-runtime-hook") ||
	            dr_exists(o, "/usr/local/nvidia/toolkit/nvidia-container-runtime-hook");
	char *text = dr_read_file(o, config, MAX_BYTES);
	int error = errno;

	dr_set_absent(container, "nvidia_runtime");
	if (!text && !hook && error == ENOENT)
		return;
	dr_set_bool(container, "nvidia_runtime.hook", hook);
	if (text || error == ENOENT)
		dr_set_bool(container, "nvidia_runtime.no_cgroups", text && is_true_in_toml(text, "no-cgroups"));
	else
		dr_unseen(container, "nvidia_runtime.no_cgroups", error, config, NULL);
	free(text);
}

static void
probe_docker(const struct dr_options *o, struct fw_json *container)
{
	static const char config[] = "/etc/docker/daemon.json";
	bool snap = dr_exists(o, "/snap/bin/docker"), installed = snap || dr_exists(o, "/usr/bin/dockerd");
	char *text = dr_read_file(o, config, MAX_BYTES);
	int failed = errno;
	struct fw_json_error error;

	dr_set_absent(container, "docker");
	if (!text && !installed)
		return;
	dr_set_bool(container, "docker.snap", snap);
	struct fw_json *daemon = text ? fw_json_read(text, strlen(text), &error) : NULL;
	if (daemon || (!text && failed == ENOENT))
		dr_set_bool(container, "docker.nvidia", fw_json_get(fw_json_get(daemon, "runtimes"), "nvidia") != NULL);
	else
		dr_unseen(container, "docker.nvidia", text ? 0 : failed, text ? error.what : config, NULL);
	fw_json_free(daemon);
	free(text);
}

/* ---- Kubernetes ---- */

/* The kubelet's device manager keeps what device plugins registered, and holds healthy, in a file. */
static void
probe_kubelet(const struct dr_options *o, struct fw_json *container)
{
	static const char path[] = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint";
	char *text = dr_read_file(o, path, MAX_BYTES);
	int failed = errno;
	struct fw_json_error error;
	int64_t gpus = 0;

	dr_set_absent(container, "kubelet");
	if (!text && failed == ENOENT)
		return;
	struct fw_json *checkpoint = text ? fw_json_read(text, strlen(text), &error) : NULL;
	const struct fw_json *devices = fw_json_get(fw_json_get(checkpoint, "Data"), "RegisteredDevices");
	for (size_t i = 0; i < fw_json_size(devices); i++)
		if (fw_json_name_at(devices, i) && strncmp(fw_json_name_at(devices, i), "nvidia.com/", 11) == 0)
			gpus += (int64_t)fw_json_size(fw_json_at(devices, i));
	if (checkpoint)
		dr_set_int(container, "kubelet.gpus", gpus);
	else
		dr_unseen(container, "kubelet", text ? 0 : failed, text ? error.what : path, NULL);
	fw_json_free(checkpoint);
	free(text);
}

void
dr_probe_runtime(const struct dr_options *o, struct fw_json *facts)
{
	struct fw_json *container = dr_get(facts, "container");

	if (!container)
		return;
	probe_cdi(o, facts);
	probe_toolkit(o, container);
	probe_docker(o, container);
	probe_kubelet(o, container);
}
