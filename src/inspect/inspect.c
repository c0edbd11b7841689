/* Finds out what a path is, and walks folders. */
#include "inspect/inspect.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_PATH 4096
#define VIRTUAL_SITE "/.farwarp/site-packages" /* where a wheel is thought to be installed when no place is known */

void
in_inspector_open(struct in_inspector *i, const struct in_options *options)
{
	*i = (struct in_inspector){ .options = options };
	in_world_open(&i->world, options->root);
	i->world.library_path = getenv("LD_LIBRARY_PATH");
	i->world.preload = getenv("LD_PRELOAD");
	if (options->device.cc) {
		i->machine.given = true;
		i->machine.device = options->device;
		snprintf(i->machine.text, sizeof(i->machine.text), "compute capability %u.%u, as asked for", options->device.cc / 10, options->device.cc % 10);
	}
}

void
in_inspector_close(struct in_inspector *i)
{
	in_world_close(&i->world);
}

/* Folders of the packages in a site-packages folder that load their libraries before anyone's extension. */
static char *
imported_folders(const struct in_world *world, const char *site)
{
	char *text = NULL, path[MAX_PATH];
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "%s/torch/lib", site);
	snprintf(path, sizeof(path), "%s/nvidia", site);
	int fd = in_world_open_path(world, path, O_RDONLY | O_DIRECTORY);
	DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
	for (struct dirent *entry; folder && (entry = readdir(folder));)
		if (entry->d_name[0] != '.')
			fprintf(out, ":%s/nvidia/%s/lib", site, entry->d_name);
	if (folder)
		closedir(folder);
	return fclose(out) == 0 ? text : NULL;
}

/* The site-packages folder of --python, or the one in which the file lies; malloc'ed, NULL none. */
static char *
site_of(const struct in_inspector *i, const char *path)
{
	static const char name[] = "/site-packages", debian[] = "/dist-packages";
	const char *python = i->options->python, *end = python ? NULL : strstr(path, name);
	char library[MAX_PATH], *site = NULL;

	if (!python) {
		end = end ? end : strstr(path, debian);
		return end && (end[sizeof(name) - 1] == '/' || !end[sizeof(name) - 1]) ? strndup(path, (size_t)(end - path) + sizeof(name) - 1) : NULL;
	}
	snprintf(library, sizeof(library), "%s/lib", python);
	int fd = in_world_open_path(&i->world, library, O_RDONLY | O_DIRECTORY);
	DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
	for (struct dirent *entry; folder && !site && (entry = readdir(folder));)
		if (strncmp(entry->d_name, "python", 6) == 0 && asprintf(&site, "%s/%s/site-packages", library, entry->d_name) < 0)
			site = NULL;
	if (folder)
		closedir(folder);
	return site ? site : strdup(python);
}

static bool
ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);

	return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* ---- folders */

struct folder_walk {
	struct in_inspector *inspector;
	struct in_report *report;
	size_t files;
	bool full;
};

static struct in_report *inspect_file(struct in_inspector *i, const char *path, struct in_source *source);

static void
walk_file(struct folder_walk *w, const char *path)
{
	struct in_source source;
	bool wheel = ends_with(path, ".whl");

	if (!in_world_source(&w->inspector->world, path, &source, NULL))
		return;
	if (!wheel && !in_elf_recognise(&source)) {
		in_source_close(&source);
		return;
	}
	if (w->files++ >= IN_MAX_REPORTS)
		w->full = true;
	else
		in_add_member(w->report, inspect_file(w->inspector, path, &source), w->inspector->options->all);
	in_source_close(&source);
}

static int
no_dots(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* Symbolic links are not followed: what they lead to is looked at where it is, or not asked for. */
static void
walk(struct folder_walk *w, int parent, const char *name, const char *path, int depth)
{
	struct dirent **entries;
	int fd = parent < 0 ? in_world_open_path(&w->inspector->world, path, O_RDONLY | O_DIRECTORY) :
	         openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int count = fd >= 0 ? scandirat(fd, ".", &entries, no_dots, alphasort) : -1;

	for (int n = 0; n < count; n++) {
		char below[MAX_PATH];
		struct stat status;
		if (snprintf(below, sizeof(below), "%s/%s", path, entries[n]->d_name) < MAX_PATH && !w->full &&
		    fstatat(fd, entries[n]->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
			if (S_ISREG(status.st_mode))
				walk_file(w, below);
			else if (S_ISDIR(status.st_mode) && depth < IN_MAX_DEPTH)
				walk(w, fd, entries[n]->d_name, below, depth + 1);
			if (S_ISDIR(status.st_mode) && ends_with(below, ".dist-info"))
				in_inspect_installed(w->inspector, below, w->report);
		}
		free(entries[n]);
	}
	if (count >= 0)
		free(entries);
	if (fd >= 0)
		close(fd);
}

static struct in_report *
inspect_folder(struct in_inspector *i, const char *path)
{
	struct folder_walk w = { .inspector = i, .report = in_report_new(path, IN_KIND_FOLDER) };

	if (!w.report)
		return NULL;
	walk(&w, -1, NULL, path, 0);
	if (w.full)
		in_find(w.report, IN_LEVEL_UNSURE, "I05", "farwarp inspect a folder below it", "more than %d files: the rest was not looked at", IN_MAX_REPORTS);
	if (!w.files && !w.report->member_count)
		in_find(w.report, IN_LEVEL_UNSURE, "I07", "", "no program, library or wheel in this folder");
	return w.report;
}

/* ---- one path */

static struct in_report *
inspect_file(struct in_inspector *i, const char *path, struct in_source *source)
{
	char magic[4] = "";

	if (in_elf_recognise(source))
		return in_inspect_elf(i, path, path, NULL);
	if (ends_with(path, ".whl") || (in_read(source, 0, magic, 4) && memcmp(magic, "PK\3\4", 4) == 0))
		return in_inspect_wheel(i, path, source);
	struct in_report *report = in_report_new(path, IN_KIND_OTHER);
	if (report)
		in_find(report, IN_LEVEL_UNSURE, "I07", "", "neither a program, a library nor a wheel%s",
		        source->size == 0 ? ": it is empty" : magic[0] == '#' && magic[1] == '!' ? " but a script: inspect its interpreter and what it imports" : "");
	return report;
}

static struct in_report *
inspect_path(struct in_inspector *i, const char *path)
{
	struct in_source source;
	struct stat status;
	int fd = in_world_open_path(&i->world, path, O_RDONLY);

	if (fd < 0 || fstat(fd, &status) != 0) {
		struct in_report *report = in_report_new(path, IN_KIND_OTHER);
		if (report)
			in_find(report, IN_LEVEL_UNSURE, "I07", "", "%s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return report;
	}
	if (S_ISDIR(status.st_mode)) {
		close(fd);
		return inspect_folder(i, path);
	}
	struct in_error error;
	if (!in_source_fd(&source, fd, &error)) {
		struct in_report *report = in_report_new(path, IN_KIND_OTHER);
		if (report)
			in_find(report, IN_LEVEL_UNSURE, "I07", "", "%s", error.text);
		return report;
	}
	struct in_report *report = inspect_file(i, path, &source);
	in_source_close(&source);
	return report;
}

/* The path from "/", so that $ORIGIN and the folders above mean something; below a root it is taken as given. */
static char *
absolute(const struct in_inspector *i, const char *path)
{
	if (i->world.root < 0) {
		char *real = realpath(path, NULL);
		return real ? real : strdup(path);
	}
	return strdup(path);
}

struct in_report *
in_inspect(struct in_inspector *i, const char *path)
{
	struct stat status;
	size_t digits = strspn(path, "0123456789");

	if (digits && digits < 10 && !path[digits] && stat(path, &status) != 0)
		return in_inspect_process(i, (int)strtol(path, NULL, 10));
	char *full = absolute(i, path), *site = full ? site_of(i, full) : NULL, *imported = site ? imported_folders(&i->world, site) : NULL;
	if (!full)
		return NULL;
	i->world.imported = imported;
	i->world.site = site ? site : VIRTUAL_SITE;
	struct in_report *report = inspect_path(i, full);
	i->world.imported = i->world.site = NULL;
	free(imported);
	free(site);
	free(full);
	return report;
}
