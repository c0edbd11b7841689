/*
 * Preloaded into the doctor by tests: answers stat() and open() of device nodes as FAKE_NODES says, "NAME=MAJOR:MINOR:MODE:ANSWER"
 * separated by commas, for paths that end in /dev/NAME. ANSWER is ok, hang, or an errno's name. With FAKE_UNKILLABLE set, a process cannot
 * kill another: as if that were in state D. statvfs() answers for paths that end in
 * PATH as FAKE_DISKS says, "PATH=TOTAL:FREE:INODES:FREE" in MiB and numbers; TOTAL 0 hangs.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct node {
	unsigned major, minor, mode;
	char answer[16];
};

static bool
find(const char *path, struct node *node)
{
	const char *script = getenv("FAKE_NODES"), *name = path ? strstr(path, "/dev/") : NULL;

	for (; script && name && *script; script += strcspn(script, ","), script += *script == ',') {
		size_t length = strcspn(script, "=");
		const char *end = name + strlen(name);
		if ((size_t)(end - name) > length && strncmp(end - length, script, length) == 0 && end[-(long)length - 1] == '/')
			return sscanf(script + length, "=%u:%u:%o:%15[^,]", &node->major, &node->minor, &node->mode, node->answer) == 4;
	}
	return false;
}

static int
answer(const char *path, const struct node *node)
{
	static const struct { const char *name; int number; } errors[] = {
		{ "EPERM", EPERM }, { "EACCES", EACCES }, { "ENXIO", ENXIO }, { "ENODEV", ENODEV }, { "EIO", EIO }, { "EBUSY", EBUSY } };
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");

	while (strcmp(node->answer, "hang") == 0)
		pause();
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (strcmp(errors[i].name, node->answer) == 0) {
			errno = errors[i].number;
			return -1;
		}
	return real(path, O_RDONLY | O_CLOEXEC);
}

EXPORT int open(const char *path, int flags, ...);
int
open(const char *path, int flags, ...)
{
	struct node node;
	va_list list;
	va_start(list, flags);
	unsigned mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, unsigned) : 0;
	va_end(list);
	if (find(path, &node))
		return answer(path, &node);
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	return real(path, flags, mode);
}

EXPORT int stat(const char *restrict path, struct stat *restrict status);
int
stat(const char *restrict path, struct stat *restrict status)
{
	int (*real)(const char *, struct stat *) = (int (*)(const char *, struct stat *))dlsym(RTLD_NEXT, "stat");
	struct node node;
	int result = real(path, status);

	if (result == 0 && find(path, &node)) {
		status->st_mode = S_IFCHR | node.mode;
		status->st_rdev = makedev(node.major, node.minor);
	}
	return result;
}

EXPORT int statvfs(const char *restrict path, struct statvfs *restrict status);
int
statvfs(const char *restrict path, struct statvfs *restrict status)
{
	int (*real)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
	size_t length = strlen(path);

	for (const char *script = getenv("FAKE_DISKS"); script && *script; script += strcspn(script, ","), script += *script == ',') {
		unsigned long long total, left, inodes, inodes_left;
		size_t name = strcspn(script, "=");
		if (name > length || strncmp(path + length - name, script, name) != 0 ||
		    sscanf(script + name, "=%llu:%llu:%llu:%llu", &total, &left, &inodes, &inodes_left) != 4)
			continue;
		while (total == 0)
			pause();
		*status = (struct statvfs){ .f_frsize = 1 << 20, .f_blocks = total, .f_bavail = left, .f_files = inodes, .f_favail = inodes_left };
		return 0;
	}
	return real(path, status);
}

EXPORT int kill(pid_t pid, int number);
int
kill(pid_t pid, int number)
{
	int (*real)(pid_t, int) = (int (*)(pid_t, int))dlsym(RTLD_NEXT, "kill");
	return getenv("FAKE_UNKILLABLE") ? 0 : real(pid, number);
}
