/* Probe of the kernel: modules of interest in /sys/module, /proc/devices, /proc/driver/nvidia, nvidia modules on disk. */
#include "doctor/probe.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const modules[] = {
	"nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_fs", "nvidia_peermem", "nvidia_vgpu_vfio", "gdrdrv", "nouveau", "nova_core",
	"vfio_pci", "dxgkrnl", "ib_umad", "mlx5_ib" };

struct parameters {
	const struct dr_options *options;
	struct fw_json *module;
	const char *folder;
};

static void
add_parameter(const char *name, void *user)
{
	const struct parameters *p = user;
	char path[512], fact[160];

	snprintf(path, sizeof(path), "%s/%.100s", p->folder, name);
	snprintf(fact, sizeof(fact), "parameters.%.100s", name);
	if (!strpbrk(name, ".["))
		dr_text_fact(p->options, p->module, fact, path);
}

static void
probe_modules(const struct dr_options *o, struct fw_json *facts)
{
	char path[160], fact[80], text[64];

	dr_put(facts, "kernel.modules", fw_json_object());
	if (!dr_exists(o, "/sys/module")) {
		dr_unseen(facts, "kernel.modules", ENOENT, "/sys/module", NULL);
		return;
	}
	for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
		/* A module that is built in, or has parameters only, has a folder as well: initstate tells. */
		snprintf(path, sizeof(path), "/sys/module/%s/initstate", modules[i]);
		if (dr_read_small(o, path, text, sizeof(text)))
			continue;
		snprintf(fact, sizeof(fact), "kernel.modules.%s", modules[i]);
		dr_put(facts, fact, fw_json_object());
		struct fw_json *module = dr_get(facts, fact);
		dr_set_bool(module, "loaded", strcmp(text, "live") == 0);
		snprintf(path, sizeof(path), "/sys/module/%s/version", modules[i]);
		dr_text_fact(o, module, "version", path);
		snprintf(path, sizeof(path), "/sys/module/%s/refcnt", modules[i]);
		dr_int_fact(o, module, "refcount", path);
		snprintf(path, sizeof(path), "/sys/module/%s/parameters", modules[i]);
		dr_put(module, "parameters", fw_json_object());
		struct parameters p = { o, module, path };
		dr_each_name(o, path, 256, add_parameter, &p);
	}
}

static void
probe_devices(const struct dr_options *o, struct fw_json *facts)
{
	char *text = dr_read_file(o, "/proc/devices", 65536), *rest = text;

	if (!text) {
		dr_unseen(facts, "kernel.devices", errno, "/proc/devices", NULL);
		return;
	}
	dr_put(facts, "kernel.devices", fw_json_object());
	for (char *line; (line = strsep(&rest, "\n"));) {
		char name[64], fact[100];
		int major;
		if (strncmp(line, "Block", 5) == 0)
			break;
		if (sscanf(line, "%d %63s", &major, name) == 2 && strstr(name, "nvidia") && !strpbrk(name, ".[")) {
			snprintf(fact, sizeof(fact), "kernel.devices.%s", name);
			dr_set_int(facts, fact, major);
		}
	}
	free(text);
}

/* "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  Release ...": the first word of digits and dots. */
static void
read_version(struct fw_json *proc, char *text)
{
	dr_set_bool(proc, "open", strstr(text, "Open Kernel Module") != NULL);
	char *rest = text;
	for (char *word; (word = strsep(&rest, " \t\n"));)
		if (isdigit((unsigned char)word[0]) && strchr(word, '.') && strspn(word, "0123456789.") == strlen(word)) {
			dr_set_text(proc, "version", word);
			return;
		}
	dr_unseen(proc, "version", 0, "no version is in the file", NULL);
}

/* The value of "Key:   value" in a file of /proc/driver/nvidia, copied. */
static bool
value_of(const char *text, const char *key, char *value, size_t size)
{
	const char *at = strstr(text, key);

	if (!at || !(at = strchr(at, ':')))
		return false;
	at += 1 + strspn(at + 1, " \t");
	snprintf(value, size, "%.*s", (int)strcspn(at, "\n"), at);
	return true;
}

struct holder {
	const struct dr_options *options;
	struct fw_json *facts;
};

static void
add_gpu(const char *address, void *user)
{
	const struct holder *h = user;
	char path[160], value[160];

	snprintf(path, sizeof(path), "/proc/driver/nvidia/gpus/%.60s/information", address);
	char *text = dr_read_file(h->options, path, 8192);
	struct fw_json *gpu = dr_append(dr_list(h->facts, "proc_driver.gpus"));
	dr_set_text(gpu, "address", address);
	if (!text)
		return;
	if (value_of(text, "Model:", value, sizeof(value)))
		dr_set_text(gpu, "model", value);
	if (value_of(text, "GPU UUID:", value, sizeof(value)))
		dr_set_text(gpu, "uuid", value);
	if (value_of(text, "GPU Firmware:", value, sizeof(value)))
		dr_set_text(gpu, "firmware", value);
	if (value_of(text, "Device Minor:", value, sizeof(value)))
		dr_set_int(gpu, "minor", strtoll(value, NULL, 10));
	if (value_of(text, "GPU Excluded:", value, sizeof(value)))
		dr_set_bool(gpu, "excluded", strcmp(value, "Yes") == 0);
	free(text);
}

static void
probe_proc_driver(const struct dr_options *o, struct fw_json *facts)
{
	struct holder holder = { o, facts };
	char *text = dr_read_file(o, "/proc/driver/nvidia/version", 4096);

	if (!text) {
		if (errno == ENOENT)
			dr_set_absent(facts, "proc_driver");
		else
			dr_unseen(facts, "proc_driver", errno, "/proc/driver/nvidia/version", NULL);
		return;
	}
	dr_put(facts, "proc_driver", fw_json_object());
	read_version(dr_get(facts, "proc_driver"), text);
	free(text);
	dr_list(facts, "proc_driver.gpus");
	dr_each_name(o, "/proc/driver/nvidia/gpus", 64, add_gpu, &holder);
	dr_set_bool(facts, "proc_driver.capabilities", dr_exists(o, "/proc/driver/nvidia/capabilities"));
	text = dr_read_file(o, "/proc/driver/nvidia/params", 16384);
	if (text) {
		char *rest = text;
		dr_put(facts, "proc_driver.params", fw_json_object());
		for (char *line; (line = strsep(&rest, "\n"));) {
			char fact[120];
			size_t length = strcspn(line, ":");
			if (line[length] != ':' || length == 0 || length > 80 || memchr(line, '.', length) || memchr(line, '[', length))
				continue;
			snprintf(fact, sizeof(fact), "proc_driver.params.%.*s", (int)length, line);
			dr_set_text(facts, fact, line + length + 1 + strspn(line + length + 1, " \""));
		}
	}
	free(text);
	/* A module that is loaded but whose /sys is hidden (some containers) is loaded all the same. */
	if (!fw_json_is(dr_get(facts, "kernel.modules.nvidia"), FW_JSON_OBJECT)) {
		dr_set_bool(facts, "kernel.modules.nvidia.loaded", true);
		dr_set_text(facts, "kernel.modules.nvidia.version", dr_get_text(facts, "proc_driver.version", NULL));
	}
	dr_set_bool(facts, "kernel.modules.nvidia.open", dr_get_bool(facts, "proc_driver.open", false));
}

/* ---- modules on disk ---- */

#define MAX_FILES 64

struct walk {
	const struct dr_options *options;
	struct fw_json *facts;
	const char *release, *running;
	char folder[600];
	int depth;
};

/* Debian names the files by branch: nvidia-current-uvm, nvidia-tesla-470, nvidia-legacy-390xx; loaded they are nvidia-uvm, nvidia. */
static void
without_branch(char *module)
{
	static const char *const branches[] = { "-current", "-tesla", "-legacy", "-open" };

	for (size_t i = 0; i < sizeof(branches) / sizeof(branches[0]); i++) {
		char *at = strstr(module, branches[i]), *end = at ? at + strlen(branches[i]) : NULL;
		if (!at || (*end && *end != '-'))
			continue;
		if (*end && isdigit((unsigned char)end[1])) /* -470, -390xx */
			end += 1 + strcspn(end + 1, "-");
		memmove(at, end, strlen(end) + 1);
	}
}

static void
walk_modules(const char *name, void *user)
{
	struct walk *w = user;
	char *dot = strstr(name, ".ko");

	if (strncmp(name, "nvidia", 6) == 0 && dot) {
		struct fw_json *list = dr_list(w->facts, "kernel.module_files");
		if (fw_json_size(list) >= MAX_FILES)
			return;
		char path[1024], module[64];
		snprintf(path, sizeof(path), "%s/%.200s", w->folder, name);
		snprintf(module, sizeof(module), "%.*s", (int)(dot - name), name);
		without_branch(module);
		struct fw_json *file = dr_append(list);
		dr_set_text(file, "name", module);
		dr_set_text(file, "path", path);
		dr_set_text(file, "release", w->release);
		dr_set_bool(file, "running", strcmp(w->release, w->running) == 0);
		dr_probe_module_file(w->options, path, file);
		return;
	}
	/* Folders where packages put it: updates/dkms, extra, kernel/drivers/video, kernel/nvidia-570, weak-updates/nvidia. */
	static const char *const below[] = { "updates", "dkms", "extra", "weak-updates", "kernel", "drivers", "video", "misc" };
	bool enter = strncmp(name, "nvidia", 6) == 0;
	for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++)
		enter |= strcmp(name, below[i]) == 0;
	if (!enter || w->depth >= 5 || dot)
		return;
	struct walk deeper = *w;
	size_t used = strlen(w->folder);
	snprintf(deeper.folder + used, sizeof(deeper.folder) - used, "/%.80s", name);
	deeper.depth++;
	dr_each_name(w->options, deeper.folder, 256, walk_modules, &deeper);
}

static void
walk_release(const char *release, void *user)
{
	struct walk w = *(struct walk *)user;

	w.release = release;
	snprintf(w.folder, sizeof(w.folder), "/lib/modules/%.200s", release);
	dr_each_name(w.options, w.folder, 256, walk_modules, &w);
}

static void
probe_files(const struct dr_options *o, struct fw_json *facts)
{
	char path[300];
	const char *running = dr_get_text(facts, "platform.kernel", "");
	struct walk w = { .options = o, .facts = facts, .running = running };

	dr_list(facts, "kernel.module_files");
	int error = dr_each_name(o, "/lib/modules", 64, walk_release, &w);
	if (error) /* a container shows the image's /lib/modules, which says nothing of the host's */
		dr_unseen(facts, "kernel.module_files", error, "/lib/modules", NULL);
	snprintf(path, sizeof(path), "/lib/modules/%.200s/build", running);
	if (error)
		dr_unseen(facts, "kernel.headers", error, "/lib/modules", NULL);
	else
		dr_set_bool(facts, "kernel.headers", dr_exists(o, path));
}

/* The program that the driver's library starts when a module or node is missing. */
static void
probe_helper(const struct dr_options *o, struct fw_json *facts)
{
	char path[PATH_MAX];
	struct stat status;

	snprintf(path, sizeof(path), "%s/usr/bin/nvidia-modprobe", o->root);
	if (stat(path, &status) == 0)
		dr_set_text(facts, "kernel.modprobe_helper", status.st_mode & S_ISUID ? "setuid" : "plain");
	else
		dr_set_absent(facts, "kernel.modprobe_helper");
}

void
dr_probe_kernel(const struct dr_options *o, struct fw_json *facts)
{
	probe_modules(o, facts);
	probe_devices(o, facts);
	probe_proc_driver(o, facts);
	probe_files(o, facts);
	probe_helper(o, facts);
}
