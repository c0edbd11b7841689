/* Probe of the PCI bus through sysfs: NVIDIA's GPUs, NVSwitches and other functions. Reads config space's first dword only. */
#include "doctor/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define MAX_FUNCTIONS 4096

struct bus {
	const struct dr_options *options;
	struct fw_json *facts;
	int functions;
};

/* Device ids of NVSwitches. A function of class 0x0680 alone is none: old chipsets of the same vendor have such bridges. */
static bool
is_switch(unsigned device)
{
	return (device & 0xfff0) == 0x1ac0 || device == 0x1af1 || device == 0x22a3;
}

static void
probe_regions(const struct dr_options *options, struct fw_json *gpu, const char *path)
{
	char text[2048];
	int error = dr_read_small(options, path, text, sizeof(text));

	if (error) {
		dr_unseen(gpu, "bars", error, path, NULL);
		dr_unseen(gpu, "bar1_size", error, path, NULL);
		return;
	}
	struct fw_json *bars = dr_list(gpu, "bars");
	int64_t bar1 = 0;
	char *rest = text;
	for (int index = 0; index < 6; index++) {
		char *line = strsep(&rest, "\n");
		unsigned long long first, last, flags;
		if (!line || sscanf(line, "%llx %llx %llx", &first, &last, &flags) != 3)
			break;
		if (last <= first || (first == 0 && flags == 0))
			continue;
		struct fw_json *bar = dr_append(bars);
		dr_set_int(bar, "index", index);
		dr_set_int(bar, "size", (int64_t)(last - first + 1));
		if (index == 1)
			bar1 = (int64_t)(last - first + 1);
	}
	dr_set_int(gpu, "bar1_size", bar1);
}

static void
probe_config(const struct dr_options *options, struct fw_json *function, const char *path)
{
	char full[PATH_MAX], text[16];
	unsigned char bytes[4];

	snprintf(full, sizeof(full), "%s%s", options->root, path);
	int fd = open(full, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
	int error = errno;
	if (fd >= 0)
		close(fd);
	if (got != sizeof(bytes)) {
		dr_unseen(function, "config_dword", got < 0 ? error : 0, path, NULL);
		return;
	}
	snprintf(text, sizeof(text), "0x%02x%02x%02x%02x", bytes[3], bytes[2], bytes[1], bytes[0]);
	dr_set_text(function, "config_dword", text);
}

static void
link_fact(const struct dr_options *options, struct fw_json *at, const char *fact, const char *path)
{
	char name[128];
	int error = dr_read_link_name(options, path, name, sizeof(name));

	if (error == 0)
		dr_set_text(at, fact, name);
	else if (error == ENOENT)
		dr_set_absent(at, fact);
	else
		dr_unseen(at, fact, error, path, NULL);
}

/* "TOTAL_ERR_FATAL 0" at the end of an AER file. */
static void
aer_fact(const struct dr_options *options, struct fw_json *gpu, const char *fact, const char *path)
{
	char text[1024];

	if (dr_read_small(options, path, text, sizeof(text))) {
		dr_set_absent(gpu, fact);
		return;
	}
	const char *total = strstr(text, "TOTAL_ERR_");
	const char *number = total ? strchr(total, ' ') : NULL;
	if (number)
		dr_set_int(gpu, fact, strtoll(number, NULL, 10));
	else
		dr_unseen(gpu, fact, 0, "no total is in it", NULL);
}

static void
probe_gpu(const struct dr_options *o, struct fw_json *gpu, const char *folder)
{
	static const struct { const char *fact, *file; bool number; } files[] = {
		{ "class", "class", false }, { "revision", "revision", false }, { "driver_override", "driver_override", false },
		{ "link.width", "current_link_width", true }, { "link.max_width", "max_link_width", true },
		{ "link.speed", "current_link_speed", false }, { "link.max_speed", "max_link_speed", false },
		{ "power_state", "power_state", false }, { "runtime_status", "power/runtime_status", false }, { "irq", "irq", true },
		{ "iommu_type", "iommu_group/type", false } };
	char path[512], vendor[32], device[32], text[80];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, files[i].file);
		(files[i].number ? dr_int_fact : dr_text_fact)(o, gpu, files[i].fact, path);
	}
	if (strcmp(dr_get_text(gpu, "driver_override", ""), "(null)") == 0)
		dr_set_absent(gpu, "driver_override");
	snprintf(path, sizeof(path), "%s/subsystem_vendor", folder);
	dr_read_small(o, path, vendor, sizeof(vendor));
	snprintf(path, sizeof(path), "%s/subsystem_device", folder);
	dr_read_small(o, path, device, sizeof(device));
	snprintf(text, sizeof(text), "%s:%s", vendor, device);
	dr_set_text(gpu, "subsystem", text);
	snprintf(path, sizeof(path), "%s/config", folder);
	probe_config(o, gpu, path);
	snprintf(path, sizeof(path), "%s/resource", folder);
	probe_regions(o, gpu, path);
	snprintf(path, sizeof(path), "%s/d3cold_allowed", folder);
	if (dr_read_small(o, path, text, sizeof(text)) == 0)
		dr_set_bool(gpu, "d3cold_allowed", text[0] == '1');
	else
		dr_set_absent(gpu, "d3cold_allowed");
	snprintf(path, sizeof(path), "%s/iommu_group", folder);
	link_fact(o, gpu, "iommu_group", path);
	snprintf(path, sizeof(path), "%s/physfn", folder);
	dr_set_bool(gpu, "vf", dr_exists(o, path));
	snprintf(path, sizeof(path), "%s/msi_irqs", folder);
	dr_set_bool(gpu, "msi", dr_exists(o, path));
	snprintf(path, sizeof(path), "%s/aer_dev_fatal", folder);
	aer_fact(o, gpu, "aer_fatal", path);
	snprintf(path, sizeof(path), "%s/aer_dev_correctable", folder);
	aer_fact(o, gpu, "aer_correctable", path);
}

static void
probe_function(const char *address, void *user)
{
	struct bus *bus = user;
	const struct dr_options *o = bus->options;
	char folder[300], path[512], vendor[32], device[32], class_code[32];

	snprintf(folder, sizeof(folder), DEVICES "/%.200s", address);
	snprintf(path, sizeof(path), "%s/vendor", folder);
	if (dr_read_small(o, path, vendor, sizeof(vendor)))
		return;
	bus->functions++;
	snprintf(path, sizeof(path), "%s/device", folder);
	dr_read_small(o, path, device, sizeof(device));
	if (strcmp(vendor, "0x1414") == 0 && strcmp(device, "0x008e") == 0) {
		dr_set_text(dr_append(dr_list(bus->facts, "pci.gpu_pv")), "address", address);
		return;
	}
	if (strcmp(vendor, "0x10de") != 0)
		return;
	snprintf(path, sizeof(path), "%s/class", folder);
	dr_read_small(o, path, class_code, sizeof(class_code));
	bool gpu = strncmp(class_code, "0x0300", 6) == 0 || strncmp(class_code, "0x0302", 6) == 0;
	bool nvswitch = strncmp(class_code, "0x0680", 6) == 0 && is_switch((unsigned)strtoul(device, NULL, 16));
	struct fw_json *function = dr_append(dr_list(bus->facts, gpu ? "pci.gpus" : nvswitch ? "pci.nvswitches" : "pci.other"));
	dr_set_text(function, "address", address);
	dr_set_text(function, "device", device);
	dr_set_text(function, "class", class_code);
	snprintf(path, sizeof(path), "%s/driver", folder);
	link_fact(o, function, "driver", path);
	if (gpu)
		probe_gpu(o, function, folder);
	snprintf(path, sizeof(path), "%s/config", folder);
	if (nvswitch)
		probe_config(o, function, path);
}

void
dr_probe_pci(const struct dr_options *options, struct fw_json *facts)
{
	static const char *const lists[] = { "pci.gpus", "pci.nvswitches", "pci.other", "pci.gpu_pv" };
	struct bus bus = { options, facts, 0 };
	int error;

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		dr_list(facts, lists[i]);
	error = dr_each_name(options, DEVICES, MAX_FUNCTIONS, probe_function, &bus);
	if (!error || error == ENOENT)
		dr_set_int(facts, "pci.functions", bus.functions);
	if (error == ENOENT && dr_exists(options, "/sys/bus")) /* a kernel without PCI: no function is there */
		return;
	for (size_t i = 0; error && i < sizeof(lists) / sizeof(lists[0]); i++)
		dr_unseen(facts, lists[i], error, DEVICES, NULL);
}
