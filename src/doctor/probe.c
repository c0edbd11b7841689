/*
 * Probes of the machine: what sysfs, proc and /dev show. They read and record, with errno where something cannot be read.
 * They do not judge, and open nothing that may block other than device nodes with O_NONBLOCK.
 */
#include "doctor.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads a small file below the root into buffer, without trailing white space. 0 or errno. */
static int
read_small(const char *root, const char *path, char *buffer, size_t size)
{
	char full[PATH_MAX];
	snprintf(full, sizeof(full), "%s%s", root, path);
	buffer[0] = 0;
	int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

static bool
exists(const char *root, const char *path)
{
	char full[PATH_MAX];
	struct stat st;
	snprintf(full, sizeof(full), "%s%s", root, path);
	return stat(full, &st) == 0;
}

static void
probe_pci(struct dr_facts *f)
{
	char path[PATH_MAX], text[64];
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices", f->root);
	DIR *dir = opendir(path);
	if (!dir) {
		f->pci_errno = errno;
		return;
	}
	for (struct dirent *entry; (entry = readdir(dir)) && f->pci_count < DR_MAX_PCI;) {
		if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof(f->pci[0].address))
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vendor", entry->d_name);
		if (read_small(f->root, path, text, sizeof(text)) || strtoul(text, NULL, 16) != 0x10de)
			continue;
		struct dr_pci *pci = &f->pci[f->pci_count++];
		snprintf(pci->address, sizeof(pci->address), "%.23s", entry->d_name);
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/device", entry->d_name);
		if (!read_small(f->root, path, text, sizeof(text)))
			pci->device = (unsigned)strtoul(text, NULL, 16);
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/class", entry->d_name);
		if (!read_small(f->root, path, text, sizeof(text)))
			pci->class_code = (unsigned)strtoul(text, NULL, 16) >> 8;
		char link[PATH_MAX];
		snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/driver", f->root, entry->d_name);
		ssize_t length = readlink(path, link, sizeof(link) - 1);
		if (length > 0) {
			link[length] = 0;
			const char *name = strrchr(link, '/');
			snprintf(pci->driver, sizeof(pci->driver), "%.31s", name ? name + 1 : link);
		}
		/* 0x0300 VGA and 0x0302 3-D controllers are GPUs; 0x0403 is their audio function, 0x0680 an NVSwitch. */
		f->gpu_count += pci->class_code == 0x0300 || pci->class_code == 0x0302;
	}
	closedir(dir);
}

static void
probe_module(struct dr_facts *f)
{
	char text[512];
	f->module_loaded = exists(f->root, "/sys/module/nvidia/initstate") || exists(f->root, "/proc/driver/nvidia/version");
	f->uvm_loaded = exists(f->root, "/sys/module/nvidia_uvm");
	f->nouveau_loaded = exists(f->root, "/sys/module/nouveau/initstate");
	read_small(f->root, "/sys/module/nvidia/version", f->module_version, sizeof(f->module_version));
	/* "NVRM version: ... 570.195.03 date": the first word that starts with a digit and holds a dot */
	if (read_small(f->root, "/proc/driver/nvidia/version", text, sizeof(text)) == 0) {
		f->module_open = strstr(text, "Open Kernel Module") != NULL;
		char *rest = text;
		for (char *word; !f->module_version[0] && (word = strsep(&rest, " \t\n"));)
			if (isdigit((unsigned char)word[0]) && strchr(word, '.'))
				snprintf(f->module_version, sizeof(f->module_version), "%.63s", word);
	}
}

static void
probe_nodes(struct dr_facts *f)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/dev", f->root);
	DIR *dir = opendir(path);
	if (!dir)
		return;
	for (struct dirent *entry; (entry = readdir(dir)) && f->node_count < DR_MAX_NODES;) {
		if (strncmp(entry->d_name, "nvidia", 6) != 0 && strcmp(entry->d_name, "dxg") != 0)
			continue;
		struct stat st;
		snprintf(path, sizeof(path), "%s/dev/%.50s", f->root, entry->d_name);
		if (stat(path, &st) != 0 || S_ISDIR(st.st_mode))
			continue;
		struct dr_node *node = &f->nodes[f->node_count++];
		snprintf(node->path, sizeof(node->path), "/dev/%.50s", entry->d_name);
		int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		node->open_errno = fd < 0 ? errno : 0;
		if (fd >= 0)
			close(fd);
		f->gpu_node_count += isdigit((unsigned char)entry->d_name[6]) != 0;
	}
	closedir(dir);
}

static void
probe_surroundings(struct dr_facts *f)
{
	char text[4096];
	static const struct { const char *path, *kind; } marks[] = {
		{ "/.dockerenv", "docker" }, { "/run/.containerenv", "podman" },
		{ "/var/run/secrets/kubernetes.io", "kubernetes" }, { "/proc/vz", "openvz" } };
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (exists(f->root, marks[i].path)) {
			f->container = true;
			snprintf(f->container_kind, sizeof(f->container_kind), "%s", marks[i].kind);
		}
	f->wsl = exists(f->root, "/dev/dxg");
	if (read_small(f->root, "/proc/cpuinfo", text, sizeof(text)) == 0)
		f->hypervisor = strstr(text, " hypervisor") != NULL;
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	f->visible_set = visible != NULL;
	snprintf(f->visible_devices, sizeof(f->visible_devices), "%s", visible ? visible : "");
}

void
dr_probe_machine(struct dr_facts *facts, const char *root)
{
	*facts = (struct dr_facts){ .root = root };
	probe_pci(facts);
	probe_module(facts);
	probe_nodes(facts);
	probe_surroundings(facts);
}
