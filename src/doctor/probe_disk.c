/*
 * Probe of the disks: free space and inodes of every mount that builds, caches and temporary files use, and of every large one. Asking a
 * file system of a dead server never returns: it is done in a child.
 */
#include "doctor/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAX_MOUNTS 128
#define LARGE (10ll << 30)
#define FULL_BYTES (1ll << 30)
#define USES 8

struct mount {
	char path[256], fs[32], options[128];
	unsigned uses;              /* bits of `use` below */
	int error;                  /* -1: not asked */
	long long total, free, inodes, inodes_free;
};

struct disks { /* shared with the child */
	volatile unsigned at;
	unsigned count;
	char root[PATH_MAX];
	struct mount mount[MAX_MOUNTS];
	char cache[256];
	int cache_writable;
};

struct use {
	const char *name;
	char path[256];
};

/* File systems that hold no files of anybody, or are full by nature. */
static bool
is_pseudo(const char *fs)
{
	static const char *const names[] = {
		"proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "fusectl", "configfs",
		"pstore", "hugetlbfs", "autofs", "binfmt_misc", "rpc_pipefs", "nsfs", "efivarfs", "squashfs", "iso9660", "ramfs", "erofs" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], fs) == 0)
			return true;
	return false;
}

/* In the child. */
static void
ask(void *shared)
{
	struct disks *d = shared;
	char full[2 * PATH_MAX];

	for (unsigned i = 0; i < d->count; i++) {
		struct mount *mount = &d->mount[i];
		struct statvfs status;
		d->at = i + 1;
		snprintf(full, sizeof(full), "%s%s", d->root, mount->path);
		if (statvfs(full, &status) != 0) {
			mount->error = errno;
			continue;
		}
		mount->total = (long long)status.f_blocks * (long long)status.f_frsize;
		mount->free = (long long)status.f_bavail * (long long)status.f_frsize;
		mount->inodes = (long long)status.f_files;
		mount->inodes_free = (long long)status.f_favail;
		mount->error = 0;
	}
	d->at = d->count + 1;
	/* The cache is made at its first use: what counts is the folder above. */
	snprintf(full, sizeof(full), "%s%s", d->root, d->cache);
	while (access(full, F_OK) != 0 && strrchr(full, '/') && strrchr(full, '/') != full)
		*strrchr(full, '/') = 0;
	d->cache_writable = access(full, W_OK) == 0;
	d->at = d->count + 2;
}

/* The kernel writes white space and backslashes of a path as \ooo. */
static void
unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		bool escape = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' && from[3] <= '7';
		*to = escape ? (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0')) : *from;
		from += escape ? 4 : 1;
	}
	*to = 0;
}

/* Lines of mountinfo: "id parent major:minor root target options ... - fs source superoptions". A later mount hides an earlier one. */
static void
read_mounts(struct disks *d, char *text)
{
	for (char *line; (line = strsep(&text, "\n"));) {
		struct mount mount = { .error = -1 };
		const char *dash = strstr(line, " - ");
		if (!dash || sscanf(dash + 3, "%31s", mount.fs) != 1 || is_pseudo(mount.fs) ||
		    sscanf(line, "%*s %*s %*s %*s %255s %127s", mount.path, mount.options) != 2)
			continue;
		unescape(mount.path);
		unsigned at = 0;
		while (at < d->count && strcmp(d->mount[at].path, mount.path) != 0)
			at++;
		if (at == MAX_MOUNTS)
			break;
		d->mount[at] = mount;
		d->count += at == d->count;
	}
}

/* The mount that a path lies on: the longest that is a beginning of it. */
static struct mount *
mount_of(struct disks *d, const char *path)
{
	struct mount *best = NULL;
	size_t best_length = 0;

	for (unsigned i = 0; i < d->count; i++) {
		size_t length = strlen(d->mount[i].path);
		bool root = length == 1;
		bool holds = root || (strncmp(path, d->mount[i].path, length) == 0 && (path[length] == '/' || path[length] == 0));
		if (holds && (!best || length >= best_length)) {
			best = &d->mount[i];
			best_length = length;
		}
	}
	return best;
}

/* A variable's value, or a folder below HOME; "" if neither is known. */
static void
name_use(const struct fw_json *facts, struct use *use, const char *name, const char *variable, const char *below_home, const char *fixed)
{
	char fact[80];
	const char *home = dr_get_text(facts, "env.HOME", "");

	use->name = name;
	snprintf(fact, sizeof(fact), "env.%s", variable);
	const char *value = *variable ? dr_get_text(facts, fact, "") : "";
	if (*value == '/')
		snprintf(use->path, sizeof(use->path), "%s", value);
	else if (*below_home && *home == '/')
		snprintf(use->path, sizeof(use->path), "%.200s%s", home, below_home);
	else
		snprintf(use->path, sizeof(use->path), "%s", fixed);
}

static bool
is_full(const struct mount *mount)
{
	return (mount->free < FULL_BYTES && mount->free * 50 < mount->total) || (mount->inodes > 0 && mount->inodes_free == 0);
}

/* `why` it could not be asked, or NULL. */
static void
report_mount(struct fw_json *list, const struct mount *mount, const struct use *use, const char *why)
{
	struct fw_json *item = dr_append(list);

	dr_set_text(item, "path", mount->path);
	dr_set_text(item, "fs", mount->fs);
	dr_set_text(item, "options", mount->options);
	if (why) {
		dr_unseen(item, "full", mount->error > 0 ? mount->error : 0, why, NULL);
	} else {
		dr_set_int(item, "total", mount->total);
		dr_set_int(item, "free", mount->free);
		dr_set_int(item, "inodes", mount->inodes);
		dr_set_int(item, "inodes_free", mount->inodes_free);
		dr_set_bool(item, "full", is_full(mount));
	}
	struct fw_json *uses = dr_list(item, "uses");
	for (int i = 0; i < USES; i++)
		if (mount->uses >> i & 1)
			dr_append_text(uses, use[i].name);
}

static void
report(struct fw_json *facts, struct disks *d, const struct use *use, const struct dr_child_end *e)
{
	struct fw_json *list = dr_list(facts, "disk.mounts");
	const struct mount *empty = NULL, *shm = mount_of(d, "/dev/shm");

	for (unsigned i = 0; i < d->count; i++) {
		const struct mount *mount = &d->mount[i];
		if (mount->error != 0) {
			bool hangs = mount->error < 0 && e->hung && d->at == i + 1;
			if (mount->uses || mount->error < 0) /* a mount of others may be closed to us */
				report_mount(list, mount, use, mount->error > 0 ? "statvfs" : hangs ? "it does not answer" : "another mount does not answer");
			continue;
		}
		if (mount->uses || mount->total >= LARGE)
			report_mount(list, mount, use, NULL);
		bool disk = strcmp(mount->fs, "tmpfs") != 0 && mount->total >= LARGE && mount->free > mount->total / 2;
		if (disk && strncmp(mount->options, "rw", 2) == 0 && (!empty || mount->free > empty->free))
			empty = mount;
	}
	dr_set_absent(facts, "disk.empty");
	if (empty) {
		dr_set_text(facts, "disk.empty.path", empty->path);
		dr_set_int(facts, "disk.empty.free", empty->free);
	}
	dr_set_absent(facts, "disk.shm");
	if (shm && strcmp(shm->path, "/dev/shm") == 0 && shm->error == 0) {
		dr_set_int(facts, "disk.shm.total", shm->total);
		dr_set_int(facts, "disk.shm.free", shm->free);
	}
	dr_set_text(facts, "disk.jit_cache.path", d->cache[0] ? d->cache : NULL);
	if (d->at == d->count + 2)
		dr_set_bool(facts, "disk.jit_cache.writable", d->cache_writable);
	else
		dr_unseen(facts, "disk.jit_cache.writable", 0, "a mount does not answer", NULL);
}

void
dr_probe_disk(const struct dr_options *o, struct fw_json *facts)
{
	struct use use[USES];
	struct dr_child_end e;
	char *text = dr_read_file(o, "/proc/self/mountinfo", 1 << 20);
	struct disks *d = text ? dr_shared(sizeof(*d)) : NULL;

	if (!d) {
		dr_unseen(facts, "disk", text ? ENOMEM : errno, text ? "no memory to share with a child" : "/proc/self/mountinfo", NULL);
		free(text);
		return;
	}
	name_use(facts, &use[0], "root", "", "", "/");
	name_use(facts, &use[1], "tmp", "TMPDIR", "", "/tmp");
	name_use(facts, &use[2], "home", "HOME", "", "");
	name_use(facts, &use[3], "var", "", "", "/var");
	name_use(facts, &use[4], "cache", "XDG_CACHE_HOME", "/.cache", "");
	name_use(facts, &use[5], "docker", "", "", "/var/lib/docker");
	name_use(facts, &use[6], "shm", "", "", "/dev/shm");
	name_use(facts, &use[7], "nv-cache", "CUDA_CACHE_PATH", "/.nv/ComputeCache", "");
	read_mounts(d, text);
	free(text);
	for (int i = 0; i < USES; i++) {
		struct mount *mount = use[i].path[0] ? mount_of(d, use[i].path) : NULL;
		if (mount)
			mount->uses |= 1u << i;
	}
	snprintf(d->root, sizeof(d->root), "%s", o->root);
	snprintf(d->cache, sizeof(d->cache), "%s", use[7].path);
	dr_child_run(ask, d, &d->at, o->deadline < 5 ? o->deadline : 5, &e);
	if (e.ran)
		report(facts, d, use, &e);
	else
		dr_unseen(facts, "disk", EAGAIN, "no child could be started", "ulimit -u");
	dr_unshare(d, sizeof(*d));
}
