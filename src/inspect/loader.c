/* The loader's search for libraries, and its lookup of symbols, by reading files alone. */
#include "inspect/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ldcache.h"

#define MAX_PATH 4096
#define MAX_LIST 65536 /* bytes of a list of folders */

/* ---- files */

int
in_world_open_path(const struct in_world *world, const char *path, int flags)
{
	if (world->root < 0)
		return open(path, flags | O_CLOEXEC | O_NONBLOCK);
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC | O_NONBLOCK), .resolve = RESOLVE_IN_ROOT };
	return (int)syscall(SYS_openat2, world->root, path, &how, sizeof(how));
}

void
in_world_open(struct in_world *world, const char *root)
{
	struct in_source source;

	*world = (struct in_world){ .root = -1 };
	if (root && *root && strcmp(root, "/") != 0)
		world->root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = in_world_open_path(world, "/etc/ld.so.cache", O_RDONLY);
	if (fd >= 0 && in_source_fd(&source, fd, NULL)) {
		if (source.size <= FW_LDCACHE_MAX)
			in_load(&source, 0, source.size, &world->cache);
		in_source_close(&source);
	}
}

void
in_world_trim(struct in_world *world, bool all)
{
	if (!all && world->object_bytes < IN_MAX_CACHED)
		return;
	for (struct in_object *o = world->objects, *next; o; o = next) {
		next = o->next;
		in_elf_free(&o->elf);
		free(o->path);
		free(o);
	}
	world->objects = NULL;
	world->object_bytes = 0;
}

void
in_world_close(struct in_world *world)
{
	in_world_trim(world, true);
	in_unload(&world->cache);
	if (world->root >= 0)
		close(world->root);
}

/* "/a/./b/../c" to "/a/c", for members of a wheel: archives have no symbolic links. */
static void
normalise(const char *path, char *to, size_t size)
{
	size_t used = 0;

	to[0] = 0;
	while (*path) {
		while (*path == '/')
			path++;
		size_t length = strcspn(path, "/");
		if (length == 2 && path[0] == '.' && path[1] == '.') {
			char *last = strrchr(to, '/');
			used = last ? (size_t)(last - to) : 0;
			to[used] = 0;
		} else if (length && !(length == 1 && path[0] == '.') && used + length + 2 <= size) {
			to[used++] = '/';
			memcpy(to + used, path, length);
			used += length;
			to[used] = 0;
		}
		path += length;
	}
}

static const struct in_member *
wheel_member(const struct in_world *world, const char *path)
{
	static const char *const schemes[] = { "platlib", "purelib" };
	char clean[MAX_PATH], name[MAX_PATH * 2];

	if (!world->wheel)
		return NULL;
	normalise(path, clean, sizeof(clean));
	size_t site = strlen(world->site);
	if (strncmp(clean, world->site, site) != 0 || clean[site] != '/')
		return NULL;
	const struct in_member *member = in_zip_find(world->wheel, clean + site + 1);
	for (size_t n = 0; n < 2 && !member && world->wheel_data; n++) {
		snprintf(name, sizeof(name), "%s/%s/%s", world->wheel_data, schemes[n], clean + site + 1);
		member = in_zip_find(world->wheel, name);
	}
	return member && !member->folder ? member : NULL;
}

bool
in_world_source(const struct in_world *world, const char *path, struct in_source *source, struct in_error *error)
{
	const struct in_member *member = wheel_member(world, path);

	if (member)
		return in_zip_source(world->wheel, member, source, error);
	int fd = in_world_open_path(world, path, O_RDONLY);
	if (fd < 0)
		return in_fail(error, "%s", strerror(errno));
	return in_source_fd(source, fd, error);
}

/* Who a file is: its place on a device, or for a member its place in the archive. */
static bool
identify(const struct in_world *world, const char *path, const struct in_source *source, uint64_t *device, uint64_t *inode)
{
	const struct in_member *member = wheel_member(world, path);
	struct stat status;

	*device = 0;
	*inode = member ? member->header + 1 : 0;
	if (member)
		return true;
	if (fstat(source->fd, &status) != 0)
		return false;
	*device = status.st_dev;
	*inode = status.st_ino;
	return true;
}

static struct in_object *
known_object(const struct in_world *world, const char *path)
{
	for (struct in_object *o = world->objects; o; o = o->next)
		if (strcmp(o->path, path) == 0)
			return o;
	return NULL;
}

struct in_object *
in_world_object_of(struct in_world *world, const char *path, struct in_source *source, struct in_error *error)
{
	uint64_t device, inode;
	struct in_object *o = known_object(world, path);

	if (o)
		return o;
	if (!identify(world, path, source, &device, &inode)) {
		in_fail(error, "%s", strerror(errno));
		return NULL;
	}
	o = calloc(1, sizeof(*o));
	if (!o || !(o->path = strdup(path)) || !in_elf_read(&o->elf, source, error)) {
		free(o ? o->path : NULL);
		free(o);
		return NULL;
	}
	o->device = device;
	o->inode = inode;
	o->next = world->objects;
	world->objects = o;
	world->object_bytes += o->elf.strings.total + o->elf.export_places * sizeof(struct in_export);
	return o;
}

struct in_object *
in_world_object(struct in_world *world, const char *path, struct in_error *error)
{
	struct in_source source;
	struct in_object *o = known_object(world, path);

	if (o || !in_world_source(world, path, &source, error))
		return o;
	o = in_world_object_of(world, path, &source, error);
	in_source_close(&source);
	return o;
}

bool
in_same_file(const struct in_object *a, const struct in_object *b)
{
	return a == b || (a && b && a->device == b->device && a->inode == b->inode);
}

/* ---- the search for one library */

struct search {
	struct in_scope *scope;
	struct in_world *world;
	const struct in_elf *first; /* of which kind a library has to be */
	const char *name;
	struct in_object *found;
	const char *how;
	char wrong[160];            /* a file of that name that could not be taken, and why */
};

static bool
try_path(struct search *s, const char *path)
{
	struct in_error error;

	if (++s->world->tries > IN_MAX_TRIES) {
		s->scope->full = true;
		return false;
	}
	struct in_object *o = in_world_object(s->world, path, &error);
	if (!o) {
		struct in_source source;
		if (!s->wrong[0] && in_world_source(s->world, path, &source, NULL)) {
			in_source_close(&source);
			snprintf(s->wrong, sizeof(s->wrong), "%.70s: %.80s", path, error.text);
		}
		return false;
	}
	/* As the loader does: a file for another kind of machine is passed over. */
	if (o->elf.bits != s->first->bits || o->elf.order != s->first->order || o->elf.machine != s->first->machine || !o->elf.readable) {
		if (!s->wrong[0])
			snprintf(s->wrong, sizeof(s->wrong), "%.90s is for %u-bit %s", path, o->elf.bits, in_machine_name(o->elf.machine));
		return false;
	}
	s->found = o;
	return true;
}

static bool
try_folder(struct search *s, const char *folder, size_t length)
{
	char path[MAX_PATH];
#if defined(__x86_64__)
	static const char *const levels[] = { "x86-64-v4", "x86-64-v3", "x86-64-v2" };
	bool runs[] = { __builtin_cpu_supports("x86-64-v4") > 0, __builtin_cpu_supports("x86-64-v3") > 0, __builtin_cpu_supports("x86-64-v2") > 0 };

	for (size_t n = 0; n < 3; n++)
		if (runs[n] && snprintf(path, sizeof(path), "%.*s/glibc-hwcaps/%s/%s", (int)length, folder, levels[n], s->name) < MAX_PATH &&
		    try_path(s, path))
			return true;
#endif
	while (length > 1 && folder[length - 1] == '/')
		length--;
	return snprintf(path, sizeof(path), "%.*s/%s", (int)length, length == 1 && folder[0] == '/' ? "" : folder, s->name) < MAX_PATH &&
	       try_path(s, path);
}

/* $ORIGIN, $LIB and $PLATFORM, with or without braces; what else begins with a dollar sign stays. */
static size_t
expand(const struct search *s, const char *from, size_t length, const char *object_path, char *to, size_t size)
{
	const char *slash = strrchr(object_path, '/');
	size_t used = 0;

	for (size_t n = 0; n < length && used + 1 < size;) {
		static const char *const names[] = { "ORIGIN", "LIB", "PLATFORM" };
		bool brace = from[n] == '$' && n + 1 < length && from[n + 1] == '{';
		int which = -1;
		size_t step = 1;
		for (int t = 0; from[n] == '$' && t < 3 && which < 0; t++) {
			size_t name = strlen(names[t]), from_name = n + 1 + brace;
			if (from_name + name <= length && memcmp(from + from_name, names[t], name) == 0 &&
			    (!brace || (from_name + name < length && from[from_name + name] == '}'))) {
				which = t;
				step = 1 + name + 2 * (size_t)brace;
			}
		}
		const char *text = from + n;
		size_t text_length = 1;
		char lib[64];
		if (which == 0) {
			text = slash ? object_path : ".";
			text_length = slash ? (slash == object_path ? 1 : (size_t)(slash - object_path)) : 1;
		} else if (which == 1) {
			struct stat status;
			snprintf(lib, sizeof(lib), "lib/%s-linux-gnu", in_machine_name(s->first->machine));
			char absolute[80];
			snprintf(absolute, sizeof(absolute), "/%s", lib);
			text = stat(absolute, &status) == 0 ? lib : "lib64";
			text_length = strlen(text);
		} else if (which == 2) {
			text = in_machine_name(s->first->machine);
			text_length = strlen(text);
		}
		if (used + text_length >= size)
			return 0;
		memcpy(to + used, text, text_length);
		used += text_length;
		n += step;
	}
	to[used] = 0;
	return used;
}

/* A list of folders with colons between (LD_LIBRARY_PATH: semicolons too). An empty one is the working directory. */
static bool
try_list(struct search *s, const char *list, const char *separators, const char *object_path, const char *how)
{
	char folder[MAX_PATH];

	if (!list || strlen(list) > MAX_LIST)
		return false;
	for (;;) {
		size_t length = strcspn(list, separators);
		size_t used = expand(s, list, length, object_path, folder, sizeof(folder));
		if (!length)
			used = (size_t)snprintf(folder, sizeof(folder), ".");
		if (used && try_folder(s, folder, used)) {
			s->how = how;
			return true;
		}
		if (!list[length])
			return false;
		list += length + 1;
	}
}

/* A file of the loader's cache; those for better CPUs than this are passed over. */
static bool
try_cached(const char *path, void *user)
{
	struct search *s = user;
	const char *level = strstr(path, "/glibc-hwcaps/");

#if defined(__x86_64__)
	if (level && ((strstr(level, "-v4/") && !__builtin_cpu_supports("x86-64-v4")) || (strstr(level, "-v3/") && !__builtin_cpu_supports("x86-64-v3"))))
		return false;
#else
	if (level)
		return false;
#endif
	return try_path(s, path);
}

static bool
try_system(struct search *s, const struct in_elf *by)
{
	if (!by->no_default_folders && s->world->cache.size &&
	    fw_ldcache_each(s->world->cache.data, s->world->cache.size, s->name, try_cached, s)) {
		s->how = "ld.so.cache";
		return true;
	}
	if (by->no_default_folders)
		return false;
	char multiarch[2][64];
	snprintf(multiarch[0], sizeof(multiarch[0]), "/lib/%s-linux-gnu", in_machine_name(s->first->machine));
	snprintf(multiarch[1], sizeof(multiarch[1]), "/usr/lib/%s-linux-gnu", in_machine_name(s->first->machine));
	const char *const folders[] = { multiarch[0], multiarch[1], "/lib64", "/usr/lib64", "/lib", "/usr/lib" };
	for (size_t n = 0; n < sizeof(folders) / sizeof(folders[0]); n++)
		if (try_folder(s, folders[n], strlen(folders[n]))) {
			s->how = "default folder";
			return true;
		}
	return false;
}

/* The loader's order: ld.so(8), "If filename does not contain a slash". `by`: who needs it. */
static bool
search(struct search *s, int by)
{
	const struct in_loaded *loaded = s->scope->loaded;
	const struct in_elf *needs = &loaded[by].object->elf;

	if (strchr(s->name, '/')) {
		char path[MAX_PATH];
		s->how = "path";
		return expand(s, s->name, strlen(s->name), loaded[by].object->path, path, sizeof(path)) && try_path(s, path);
	}
	for (int at = by; !needs->runpath && at >= 0; at = loaded[at].parent) {
		const struct in_object *o = loaded[at].object;
		if (!o->elf.runpath && try_list(s, o->elf.rpath, ":", o->path, "RPATH"))
			return true;
		if (loaded[at].parent < 0 && at != 0 && loaded[0].object->elf.program && !loaded[0].object->elf.runpath &&
		    try_list(s, loaded[0].object->elf.rpath, ":", loaded[0].object->path, "RPATH"))
			return true;
	}
	return try_list(s, s->world->library_path, ":;", loaded[0].object->path, "LD_LIBRARY_PATH") ||
	       try_list(s, needs->runpath, ":", loaded[by].object->path, "RUNPATH") || try_system(s, needs) ||
	       (!loaded[0].object->elf.program && try_list(s, s->world->imported, ":", loaded[0].object->path, "a package imported before"));
}

/* ---- the scope */

bool
in_scope_add(struct in_scope *scope, struct in_object *object)
{
	if (scope->count == IN_MAX_LOADED) {
		scope->full = true;
		return true;
	}
	if (!scope->loaded)
		scope->loaded = calloc(IN_MAX_LOADED, sizeof(*scope->loaded));
	if (!scope->loaded)
		return false;
	scope->loaded[scope->count++] = (struct in_loaded){ .object = object, .name = object ? object->path : NULL, .parent = -1, .how = "loaded" };
	return true;
}

void
in_scope_free(struct in_scope *scope)
{
	free(scope->loaded);
	fw_arena_free(&scope->strings);
	*scope = (struct in_scope){ 0 };
}

int
in_scope_named(const struct in_scope *scope, const char *name)
{
	for (size_t n = 0; n < scope->count; n++) {
		const struct in_loaded *l = &scope->loaded[n];
		const char *base = l->object && l->object->path ? strrchr(l->object->path, '/') : NULL;
		if (n && strcmp(l->name, name) == 0)
			return (int)n;
		if (l->object && l->object->elf.soname && strcmp(l->object->elf.soname, name) == 0)
			return (int)n;
		if (l->object && !l->object->elf.soname && base && strcmp(base + 1, name) == 0)
			return (int)n;
	}
	return -1;
}

/* Adds what `by` needs under a name, unless something of the scope already answers to it. */
static bool
load_needed(struct in_scope *scope, struct in_world *world, int by, const char *name)
{
	struct search s = { .scope = scope, .world = world, .first = &scope->loaded[0].object->elf, .name = name };

	if (in_scope_named(scope, name) >= 0)
		return true;
	bool found = search(&s, by);
	for (size_t n = 0; n < scope->count && found; n++)
		if (in_same_file(scope->loaded[n].object, s.found))
			return true;
	if (!in_scope_add(scope, s.found))
		return false;
	struct in_loaded *l = &scope->loaded[scope->count - 1];
	l->name = name;
	l->parent = by;
	l->how = found ? s.how : s.wrong[0] ? fw_arena_strndup(&scope->strings, s.wrong, strlen(s.wrong)) : "not found";
	return true;
}

static bool
load_preloaded(struct in_scope *scope, struct in_world *world)
{
	char name[MAX_PATH];

	for (const char *at = world->preload; at && *at;) {
		size_t length = strcspn(at, " :");
		if (length && length < sizeof(name)) {
			memcpy(name, at, length);
			name[length] = 0;
			const char *kept = fw_arena_strndup(&scope->strings, name, length);
			size_t before = scope->count;
			if (!kept || !load_needed(scope, world, 0, kept))
				return false;
			if (scope->count > before) {
				scope->loaded[before].parent = -1;
				if (scope->loaded[before].object)
					scope->loaded[before].how = "LD_PRELOAD";
				else
					scope->count = before; /* the loader warns and goes on */
			}
		}
		at += length + (at[length] != 0);
	}
	return true;
}

bool
in_scope_load(struct in_scope *scope, struct in_world *world, struct in_object *first)
{
	*scope = (struct in_scope){ 0 };
	world->tries = 0;
	if (!in_scope_add(scope, first) || !load_preloaded(scope, world))
		return false;
	for (size_t n = 0; n < scope->count; n++) {
		const struct in_object *o = scope->loaded[n].object;
		for (size_t k = 0; o && k < o->elf.needed_count && !scope->full; k++)
			if (!load_needed(scope, world, (int)n, o->elf.needed[k]))
				return false;
	}
	return true;
}

const char *
in_scope_find(struct in_scope *scope, struct in_world *world, size_t by, const char *name, const char **how)
{
	struct search s = { .scope = scope, .world = world, .first = &scope->loaded[0].object->elf, .name = name };
	int there = in_scope_named(scope, name);

	if (there >= 0 && scope->loaded[there].object) {
		*how = "already loaded";
		return scope->loaded[there].object->path;
	}
	if (!scope->loaded[by].object || !search(&s, (int)by)) {
		*how = s.wrong[0] ? fw_arena_strndup(&scope->strings, s.wrong, strlen(s.wrong)) : "not found";
		return NULL;
	}
	*how = s.how;
	return s.found->path;
}

/* ---- symbols */

bool
in_defines_version(const struct in_elf *elf, const char *name)
{
	for (size_t n = 0; n < elf->define_count; n++)
		if (strcmp(elf->defines[n].name, name) == 0)
			return true;
	return false;
}

static const char *
version_of(const struct in_elf *elf, const struct in_export *e)
{
	for (size_t n = 0; n < elf->define_count && e->version > 1; n++)
		if (elf->defines[n].index == e->version)
			return elf->defines[n].name;
	return NULL;
}

/* glibc's check_match: a version that is asked for matches itself, or a symbol without one that is not hidden. */
static enum in_lookup
look_in(const struct in_loaded *l, const struct in_symbol *s)
{
	const struct in_elf *elf = &l->object->elf;
	enum in_lookup result = IN_NOWHERE;

	if (!elf->export_places)
		return IN_NOWHERE;
	for (size_t place = s->hash & (elf->export_places - 1); elf->exports[place].hash; place = (place + 1) & (elf->export_places - 1)) {
		const struct in_export *e = &elf->exports[place];
		if (e->hash != s->hash)
			continue;
		if (!s->version) {
			if (!e->hidden || e->version < 3)
				return IN_FOUND;
			result = IN_OTHER_VERSION;
			continue;
		}
		bool named = strcmp(l->name, s->version->file) == 0 || (elf->soname && strcmp(elf->soname, s->version->file) == 0);
		if (!elf->versioned)
			return named ? IN_NOT_VERSIONED : IN_FOUND;
		const char *version = version_of(elf, e);
		if (version ? strcmp(version, s->version->name) == 0 : !e->hidden)
			return IN_FOUND;
		result = IN_OTHER_VERSION;
	}
	return result;
}

enum in_lookup
in_scope_lookup(const struct in_scope *scope, const struct in_symbol *symbol, int *where)
{
	enum in_lookup best = IN_NOWHERE;

	*where = -1;
	for (size_t n = 0; n < scope->count; n++) {
		if (!scope->loaded[n].object)
			continue;
		enum in_lookup result = look_in(&scope->loaded[n], symbol);
		if (result == IN_NOWHERE)
			continue;
		if (result != IN_OTHER_VERSION || best == IN_NOWHERE) {
			best = result;
			*where = (int)n;
		}
		if (result != IN_OTHER_VERSION)
			return result;
	}
	return best;
}
