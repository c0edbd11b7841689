/*
 * Finds libraries as the loader (ld.so of glibc) would for a program started now, and says which symbols it would not find. Reads files; loads,
 * maps and executes none. Rules: ld.so(8); for versions glibc's elf/dl-version.c and dl-lookup.c.
 *
 * What is not followed: LD_AUDIT, prelinking, dlmopen, musl's own rules.
 */
#ifndef IN_LOADER_H
#define IN_LOADER_H

#include "elf/elf_file.h"
#include "inspect/zip.h"

#define IN_MAX_LOADED 4096
#define IN_MAX_TRIES 500000 /* files that are tried for all libraries of one scope */
#define IN_MAX_CACHED ((size_t)192 << 20) /* bytes of what files said that is kept between inspections */

/* A file that was read, kept for the other files that need it. */
struct in_object {
	struct in_object *next;
	char *path;         /* as it was found, without the root */
	uint64_t device, inode;
	struct in_elf elf;
};

/* The world in which names are looked up. */
struct in_world {
	int root;                    /* descriptor of the folder that stands for "/", or -1: the real one */
	const char *library_path;    /* LD_LIBRARY_PATH, NULL: none */
	const char *preload;         /* LD_PRELOAD */
	const char *imported;        /* folders of libraries that a Python program has loaded before its extensions, with colons; NULL: none */
	const struct in_zip *wheel;  /* files below `site` come from here first; NULL: no wheel */
	const char *site;            /* folder that a wheel would be installed in */
	const char *wheel_data;      /* "name-1.0.data" of the wheel, or NULL */
	struct fw_cursor cache;      /* /etc/ld.so.cache */
	struct in_object *objects;
	size_t object_bytes;
	size_t tries;                /* of the present scope */
};

void in_world_open(struct in_world *world, const char *root);
void in_world_close(struct in_world *world);
/* Forgets what files said once it is more than IN_MAX_CACHED; no scope may be in use. `all`: in any case. */
void in_world_trim(struct in_world *world, bool all);

/* A path below the root as the world's files see it; symbolic links stay below it. -1 with errno. */
int in_world_open_path(const struct in_world *world, const char *path, int flags);
/* Opens a path as source: a member of the wheel, else a file. */
bool in_world_source(const struct in_world *world, const char *path, struct in_source *source, struct in_error *error);
/* The file as ELF, from what is kept if it was read before; NULL with *error. */
struct in_object *in_world_object(struct in_world *world, const char *path, struct in_error *error);
/* The same for a path whose source is open already. */
struct in_object *in_world_object_of(struct in_world *world, const char *path, struct in_source *source, struct in_error *error);

/* The loader loads a file once, by whatever path; of two paths of one file $ORIGIN differs, so both are kept. */
bool in_same_file(const struct in_object *a, const struct in_object *b);

struct in_loaded {
	struct in_object *object; /* NULL: not found */
	const char *name;         /* as it was asked for */
	int parent;               /* who needs it, index; -1 the program or LD_PRELOAD */
	const char *how;          /* "RUNPATH", "LD_LIBRARY_PATH", ...; or why it was not found */
};

/* The program or library (0) and all it needs, in the loader's order. */
struct in_scope {
	struct in_loaded *loaded;
	size_t count;
	bool full;
	struct fw_arena strings;
};

/* False: out of memory. */
bool in_scope_load(struct in_scope *scope, struct in_world *world, struct in_object *first);
/* A scope of files that are known to be loaded, in this order (a process). */
bool in_scope_add(struct in_scope *scope, struct in_object *object);
void in_scope_free(struct in_scope *scope);
/* Where dlopen(name), called in scope->loaded[by], would find it: path in `scope->strings`, NULL: nowhere. */
const char *in_scope_find(struct in_scope *scope, struct in_world *world, size_t by, const char *name, const char **how);
/* Index of the library that carries a name (as asked for, or its soname); -1: none. */
int in_scope_named(const struct in_scope *scope, const char *name);

enum in_lookup {
	IN_FOUND,
	IN_NOWHERE,      /* no library of the scope has such a symbol */
	IN_NOT_VERSIONED,/* the library that should have it carries no versions: the loader stops the program */
	IN_OTHER_VERSION /* some library has the symbol, but not in this version */
};
/* `where`: the library found, or the one that has another version; -1 none. */
enum in_lookup in_scope_lookup(const struct in_scope *scope, const struct in_symbol *symbol, int *where);
/* True if the library defines that version. */
bool in_defines_version(const struct in_elf *elf, const char *name);

#endif
