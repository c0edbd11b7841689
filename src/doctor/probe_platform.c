/* Probe of the machine itself: hypervisor, firmware's names, kernel, secure boot, uptime, who asks. */
#include "doctor/probe.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static void
probe_dmi(const struct dr_options *o, struct fw_json *platform)
{
	static const char *const names[] = { "sys_vendor", "product_name", "board_name", "bios_vendor", "bios_version" };
	char path[80], fact[40];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "/sys/class/dmi/id/%s", names[i]);
		snprintf(fact, sizeof(fact), "dmi.%s", names[i]);
		dr_text_fact(o, platform, fact, path);
	}
}

/* Who virtualises: the kernel's own word, then what the firmware says, then the CPU's flag. */
static void
probe_hypervisor(const struct dr_options *o, struct fw_json *platform)
{
	static const struct { const char *in, *name; } vendors[] = {
		{ "QEMU", "kvm" }, { "KVM", "kvm" }, { "Google", "kvm" }, { "Amazon EC2", "kvm" }, { "OpenStack", "kvm" }, { "Nutanix", "kvm" },
		{ "VMware", "vmware" }, { "Xen", "xen" }, { "innotek", "oracle" }, { "Parallels", "parallels" }, { "Hyper-V", "microsoft" },
		{ "Cloud Hypervisor", "kvm" }, { "Virtual Machine", "microsoft" } };
	char type[64], text[512];
	char *cpuinfo = dr_read_file(o, "/proc/cpuinfo", 65536);
	bool flag = cpuinfo && strstr(cpuinfo, " hypervisor");

	free(cpuinfo);
	if (dr_read_small(o, "/sys/hypervisor/type", type, sizeof(type)) == 0 && type[0]) {
		dr_set_text(platform, "hypervisor", type);
		return;
	}
	snprintf(text, sizeof(text), "%s %s %s", dr_get_text(platform, "dmi.sys_vendor", ""), dr_get_text(platform, "dmi.product_name", ""),
	         dr_get_text(platform, "dmi.bios_vendor", ""));
	/* Bare metal of a cloud carries its vendor's name as well: then the flag decides. */
	for (size_t i = 0; flag && i < sizeof(vendors) / sizeof(vendors[0]); i++)
		if (strstr(text, vendors[i].in)) {
			dr_set_text(platform, "hypervisor", vendors[i].name);
			return;
		}
	if (flag)
		dr_set_text(platform, "hypervisor", "unknown");
	else if (dr_exists(o, "/proc/cpuinfo"))
		dr_set_absent(platform, "hypervisor");
	else
		dr_unseen(platform, "hypervisor", ENOENT, "/proc/cpuinfo", NULL);
}

/* A word's value in /etc/os-release, without quotes. */
static void
os_fact(struct fw_json *platform, const char *fact, const char *text, const char *key)
{
	char value[80];
	const char *at = text;
	size_t length = strlen(key);

	while (at && !(strncmp(at, key, length) == 0 && at[length] == '='))
		at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
	if (!at) {
		dr_set_absent(platform, fact);
		return;
	}
	at += length + 1;
	at += *at == '"';
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\"\n"), at);
	dr_set_text(platform, fact, value);
}

static void
find_secure_boot(const char *name, void *user)
{
	if (strncmp(name, "SecureBoot-", 11) == 0)
		snprintf(user, 80, "%s", name);
}

static void
probe_secure_boot(const struct dr_options *o, struct fw_json *platform)
{
	char name[80] = "", path[160];
	int error = dr_each_name(o, "/sys/firmware/efi/efivars", 4096, find_secure_boot, name);

	if (error == ENOENT && dr_exists(o, "/sys/firmware")) {
		dr_set_absent(platform, "secure_boot"); /* no EFI */
		return;
	}
	if (error || !name[0]) {
		dr_unseen(platform, "secure_boot", error, error ? "/sys/firmware/efi/efivars" : "the variable is not shown", NULL);
		return;
	}
	snprintf(path, sizeof(path), "/sys/firmware/efi/efivars/%s", name);
	char *bytes = dr_read_file(o, path, 16);
	if (bytes)
		dr_set_bool(platform, "secure_boot", bytes[4] == 1); /* behind four bytes of attributes */
	else
		dr_unseen(platform, "secure_boot", errno, path, NULL);
	free(bytes);
}

/* "none [integrity] confidentiality": the word in brackets. */
static void
probe_lockdown(const struct dr_options *o, struct fw_json *platform)
{
	char text[128];
	int error = dr_read_small(o, "/sys/kernel/security/lockdown", text, sizeof(text));
	char *open = strchr(text, '['), *close = strchr(text, ']');

	if (error == 0 && open && close > open) {
		*close = 0;
		dr_set_text(platform, "lockdown", open + 1);
	} else if (error == ENOENT) {
		dr_set_absent(platform, "lockdown");
	} else {
		dr_unseen(platform, "lockdown", error, "/sys/kernel/security/lockdown", NULL);
	}
}

static void
probe_numbers(const struct dr_options *o, struct fw_json *platform)
{
	char text[256];

	dr_int_fact(o, platform, "taint", "/proc/sys/kernel/tainted");
	dr_int_fact(o, platform, "suspends", "/sys/power/suspend_stats/success");
	if (dr_read_small(o, "/proc/uptime", text, sizeof(text)) == 0)
		dr_set_real(platform, "uptime", strtod(text, NULL));
	char *memory = dr_read_file(o, "/proc/meminfo", 4096);
	const char *total = memory ? strstr(memory, "MemTotal:") : NULL;
	long long kilobytes = total ? strtoll(total + 9, NULL, 10) : 0;
	if (kilobytes > 0 && kilobytes < 1ll << 50)
		dr_set_int(platform, "memory", kilobytes * 1024);
	free(memory);
	if (!*o->root)
		dr_set_int(platform, "cpus", sysconf(_SC_NPROCESSORS_ONLN));
}

static void
probe_user(const struct dr_options *o, struct fw_json *facts)
{
	gid_t groups[256];
	int count = getgroups(256, groups);

	dr_set_int(facts, "user.uid", geteuid());
	struct fw_json *list = dr_list(facts, "user.groups");
	for (int i = 0; i < count; i++)
		fw_json_append(list, fw_json_int(groups[i]));
}

static void
probe_device_tree(const struct dr_options *o, struct fw_json *platform)
{
	enum { LIMIT = 1024 };
	char *text = dr_read_file(o, "/proc/device-tree/compatible", LIMIT);

	dr_set_absent(platform, "tegra");
	for (const char *at = text; at && at < text + LIMIT && *at; at += strlen(at) + 1)
		if (strncmp(at, "nvidia,tegra", 12) == 0)
			dr_set_text(platform, "tegra", at);
	free(text);
}

void
dr_probe_platform(const struct dr_options *o, struct fw_json *facts)
{
	struct utsname name;

	dr_put(facts, "platform", fw_json_object());
	struct fw_json *platform = dr_get(facts, "platform");
	if (!platform)
		return;
	probe_dmi(o, platform);
	probe_hypervisor(o, platform);
	if (*o->root) { /* a recorded tree says its kernel in /proc */
		dr_text_fact(o, platform, "kernel", "/proc/sys/kernel/osrelease");
		dr_text_fact(o, platform, "arch", "/proc/sys/kernel/arch");
		dr_text_fact(o, platform, "host", "/proc/sys/kernel/hostname");
	} else if (uname(&name) == 0) {
		dr_set_text(platform, "kernel", name.release);
		dr_set_text(platform, "arch", name.machine);
		dr_set_text(platform, "host", name.nodename);
	}
	dr_text_fact(o, platform, "cmdline", "/proc/cmdline");
	dr_text_fact(o, platform, "lsm", "/sys/kernel/security/lsm");
	char *os = dr_read_file(o, "/etc/os-release", 8192);
	if (os) {
		os_fact(platform, "os.id", os, "ID");
		os_fact(platform, "os.version", os, "VERSION_ID");
	}
	free(os);
	char text[64];
	if (dr_read_small(o, "/sys/fs/selinux/enforce", text, sizeof(text)) == 0)
		dr_set_text(platform, "selinux", text[0] == '1' ? "enforcing" : "permissive");
	else
		dr_set_absent(platform, "selinux");
	dr_set_text(platform, "confidential", dr_exists(o, "/dev/tdx_guest") ? "tdx" : dr_exists(o, "/dev/sev-guest") ? "sev-snp" : NULL);
	probe_secure_boot(o, platform);
	probe_lockdown(o, platform);
	probe_numbers(o, platform);
	probe_device_tree(o, platform);
	probe_user(o, facts);
}
