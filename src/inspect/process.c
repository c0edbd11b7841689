/*
 * A running process: the files it has mapped, looked at below its own root, with its own environment. What it would load later by name is
 * judged with the LD_LIBRARY_PATH it was started with.
 */
#include "inspect/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ENVIRONMENT ((size_t)4 << 20)

/* Text of a file below /proc, malloc'ed and terminated; NULL with errno. */
static char *
read_proc(int pid, const char *name, size_t *size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	size_t room = 65536, used = 0;
	char *text = malloc(room + 1);
	ssize_t got = 0;
	while (text && used < MAX_ENVIRONMENT * 8 && (got = read(fd, text + used, room - used)) > 0) {
		used += (size_t)got;
		if (used == room) {
			char *more = realloc(text, 2 * room + 1);
			if (!more)
				break;
			text = more;
			room *= 2;
		}
	}
	int error = errno;
	close(fd);
	errno = error;
	if (got < 0) {
		free(text);
		return NULL;
	}
	if (text)
		text[used] = 0;
	*size = used;
	return text;
}

static const char *
variable(const char *environment, size_t size, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = environment; at && at < environment + size; at += strlen(at) + 1)
		if (strncmp(at, name, length) == 0 && at[length] == '=')
			return at + length + 1;
	return NULL;
}

/* Adds the ELF files of /proc/PID/maps, each once, in the order of the map; the program first. */
static void
add_mapped(struct in_inspector *i, struct in_scope *scope, struct in_report *report, const char *program, char *maps)
{
	struct in_error error;
	struct in_object *first = program ? in_world_object(&i->world, program, &error) : NULL;

	if (first)
		in_scope_add(scope, first);
	for (char *line = maps, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		char *path = strchr(line, '/'), *deleted = path ? strstr(path, " (deleted)") : NULL;
		if (!path || strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/memfd:", 7) == 0 || strncmp(path, "/SYSV", 5) == 0)
			continue;
		if (deleted) {
			*deleted = 0;
			if (in_is_cuda_library(path) && strstr(line, " r-x"))
				in_find(report, IN_LEVEL_FAULT, "F073", "restart the process", "%s was replaced or removed since the process mapped it", path);
			continue;
		}
		struct in_object *object = in_world_object(&i->world, path, &error);
		bool known = !object || !object->elf.readable;
		for (size_t n = 0; n < scope->count && !known; n++)
			known = in_same_file(scope->loaded[n].object, object);
		if (!known)
			in_scope_add(scope, object);
	}
}

static void
inspect_mapped_files(struct in_inspector *i, int pid, struct in_report *report, char *maps)
{
	struct in_scope scope = { 0 };
	char link[64], program[4096];
	size_t drivers = 0;

	snprintf(link, sizeof(link), "/proc/%d/exe", pid);
	ssize_t length = readlink(link, program, sizeof(program) - 1);
	if (length > 0)
		program[length] = 0;
	in_world_trim(&i->world, true);
	add_mapped(i, &scope, report, length > 0 ? program : NULL, maps);
	for (size_t n = 0; n < scope.count; n++) {
		const char *soname = scope.loaded[n].object->elf.soname;
		if (soname && strncmp(soname, "libcuda.so", 10) == 0) {
			drivers++;
			report->driver_path = in_copy(report, scope.loaded[n].object->path);
			report->driver_how = "mapped";
		}
		in_add_member(report, in_inspect_mapped(i, &scope, n), i->options->all);
	}
	if (drivers > 1)
		in_find(report, IN_LEVEL_FAULT, "F073", "find out who loads the second one: farwarp trace --callers -- PROGRAM",
		        "%zu different libraries named libcuda.so are mapped", drivers);
	report->plain_count += scope.full;
	in_scope_free(&scope);
}

struct in_report *
in_inspect_process(struct in_inspector *i, int pid)
{
	char name[64], root[64];
	size_t size = 0, environment_size = 0;

	snprintf(name, sizeof(name), "process %d", pid);
	struct in_report *report = in_report_new(name, IN_KIND_PROCESS);
	char *maps = report ? read_proc(pid, "maps", &size) : NULL;
	if (!report)
		return NULL;
	if (!maps) {
		bool gone = errno == ENOENT || errno == ESRCH;
		in_find(report, IN_LEVEL_UNSURE, "I07", gone ? "" : "sudo farwarp inspect PID", gone ? "there is no such process (and no such file)" :
		        "its maps cannot be read: %s", strerror(errno));
		return report;
	}
	/* Its files are seen as it sees them; the loader's cache is its own too. */
	struct in_world outer = i->world;
	snprintf(root, sizeof(root), "/proc/%d/root", pid);
	in_world_open(&i->world, root);
	char *environment = read_proc(pid, "environ", &environment_size);
	i->world.library_path = variable(environment, environment_size, "LD_LIBRARY_PATH");
	if (!environment)
		in_find(report, IN_LEVEL_NOTE, "", "", "its environment cannot be read: %s", strerror(errno));
	inspect_mapped_files(i, pid, report, maps);
	in_world_close(&i->world);
	i->world = outer;
	free(environment);
	free(maps);
	return report;
}
