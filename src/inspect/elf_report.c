/*
 * One ELF file: facts of its libraries, symbols, fat binaries and way to the driver, and what is wrong with them here. The order of the checks is
 * the order in which a program would fail: wrong machine, no loader, no library, no version, no symbol, no kernel.
 */
#include "inspect/inspect.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/image.h"

#define TEXT_CHUNK 65536
#define NAMES_SHOWN 4
#define DRIVER "libcuda.so.1"
#define ASK_SECONDS 10
#define EM_CUDA 190

#if defined(__aarch64__)
#define THIS_MACHINE IN_EM_AARCH64
#else
#define THIS_MACHINE IN_EM_X86_64
#endif

struct check {
	struct in_inspector *inspector;
	struct in_report *report;
	struct in_scope *scope;
	const struct in_loaded *self;
	const struct in_elf *elf;
	const struct in_wheel_needs *wheel;
	uint32_t cuda_major;  /* that the file was built for; 0 not known */
	bool incomplete;      /* libraries are missing, or brought by others: missing symbols prove nothing */
	bool mapped;          /* of a process: libraries are there already */
};

/* ---- facts */

/* The greatest "PREFIX1.2.3" among the needed versions, of the file alone. */
static const char *
newest_version(const struct in_elf *elf, const char *prefix)
{
	const char *best = NULL;

	for (size_t n = 0; n < elf->need_count; n++) {
		const char *name = elf->needs[n].name;
		if (strncmp(name, prefix, strlen(prefix)) == 0 && isdigit((unsigned char)name[strlen(prefix)]) && (!best || strverscmp(name, best) > 0))
			best = name;
	}
	return best;
}

/* Reads the constant texts in pieces for words that betray how the driver is reached. */
static void
find_texts(struct check *c, struct in_source *source)
{
	static const char driver[] = "libcuda.so", runtime[] = "cudaErrorCudartUnloading";
	const size_t overlap = sizeof(runtime);
	uint8_t *buffer = malloc(TEXT_CHUNK + overlap);

	for (size_t n = 0; buffer && n < c->elf->data_count; n++) {
		struct in_range range = c->elf->data[n];
		for (uint64_t at = 0; at < range.size && c->elf->constant[n]; at += TEXT_CHUNK) {
			size_t size = range.size - at < TEXT_CHUNK + overlap ? (size_t)(range.size - at) : TEXT_CHUNK + overlap;
			if (!in_read(source, range.at + at, buffer, size))
				break;
			c->report->dlopens_driver |= memmem(buffer, size, driver, sizeof(driver) - 1) != NULL;
			c->report->static_runtime |= memmem(buffer, size, runtime, sizeof(runtime) - 1) != NULL;
		}
	}
	free(buffer);
	const char *soname = c->elf->soname;
	if (soname && strncmp(soname, "libcudart.so", 12) == 0)
		c->report->static_runtime = false; /* it is the runtime */
	if (soname && strncmp(soname, "libcuda.so", 10) == 0)
		c->report->dlopens_driver = false; /* it is the driver */
}

/* Which CUDA a file was built for shows in its libraries' names. */
static uint32_t
cuda_major_of(const struct in_elf *elf)
{
	static const char *const telling[] = { "libcudart.so.", "libcublas.so.", "libcublasLt.so.", "libnvJitLink.so.", "libnvrtc.so." };

	for (size_t n = 0; n < elf->needed_count; n++)
		for (size_t t = 0; t < sizeof(telling) / sizeof(telling[0]); t++)
			if (strncmp(elf->needed[n], telling[t], strlen(telling[t])) == 0)
				return (uint32_t)strtoul(elf->needed[n] + strlen(telling[t]), NULL, 10);
	return 0;
}

static void
note_facts(struct check *c)
{
	struct in_report *r = c->report;
	const struct in_elf *e = c->elf;

	r->program = e->program;
	r->machine = in_machine_name(e->machine);
	r->interpreter = in_copy(r, e->interpreter);
	r->soname = in_copy(r, e->soname);
	r->rpath = in_copy(r, e->rpath);
	r->runpath = in_copy(r, e->runpath);
	r->build_id = in_copy(r, e->build_id[0] ? e->build_id : NULL);
	r->glibc = in_copy(r, newest_version(e, "GLIBC_"));
	r->glibcxx = in_copy(r, newest_version(e, "GLIBCXX_"));
	r->cxxabi = in_copy(r, newest_version(e, "CXXABI_"));
	r->strings = e->new_strings && e->old_strings ? "both" : e->new_strings ? "C++11" : e->old_strings ? "old" : NULL;
	for (size_t n = 0; n < e->needed_count; n++) {
		r->linked_driver |= strncmp(e->needed[n], "libcuda.so", 10) == 0;
		r->uses_cuda |= in_is_cuda_library(e->needed[n]);
	}
	r->uses_cuda |= e->fatbin_count > 0 || r->dlopens_driver || r->static_runtime || (e->soname && in_is_cuda_library(e->soname));
	c->cuda_major = cuda_major_of(e);
}

/* A path for people: a member of a wheel by its name in it. */
static const char *
shown(struct check *c, const char *path)
{
	const struct in_world *world = &c->inspector->world;
	size_t site = world->wheel ? strlen(world->site) : 0;

	if (path && site && strncmp(path, world->site, site) == 0 && path[site] == '/')
		return in_print(c->report, "wheel:%s", path + site + 1);
	return in_copy(c->report, path);
}

static void
note_libraries(struct check *c)
{
	struct in_report *r = c->report;

	for (size_t n = 0; n < c->scope->count; n++) {
		const struct in_loaded *l = &c->scope->loaded[n];
		const char *base = strrchr(l->name, '/');
		bool wanted = !c->mapped;
		for (size_t k = 0; k < c->elf->needed_count && !wanted; k++)
			wanted = in_scope_named(c->scope, c->elf->needed[k]) == (int)n;
		if (l == c->self || !wanted || !in_grow(r, &r->libraries, r->library_count, sizeof(*r->libraries)))
			continue;
		struct in_library *library = &r->libraries[r->library_count++];
		*library = (struct in_library){ .name = in_copy(r, c->mapped && base ? base + 1 : l->name), .path = shown(c, l->object ? l->object->path : NULL),
		                                .how = in_copy(r, l->how), .cuda = in_is_cuda_library(l->name), .direct = l->parent == 0 };
		if (l->parent >= 0)
			library->by = in_copy(r, c->scope->loaded[l->parent].name);
	}
}

/* ---- findings: machine, loader, libraries */

static bool
runs_here(struct check *c)
{
	const struct in_elf *e = c->elf;

	if (e->bits == 64 && e->order == 1 && e->machine == THIS_MACHINE)
		return true;
	if (e->machine != EM_CUDA)
		in_find(c->report, IN_LEVEL_FAULT, "F07E", "get the build for this machine: uname -m", "it is for %u-bit %s, this machine is 64-bit %s",
		        e->bits, in_machine_name(e->machine), in_machine_name(THIS_MACHINE));
	return false;
}

static void
check_interpreter(struct check *c)
{
	const char *path = c->elf->interpreter;

	if (!path || c->wheel)
		return;
	int fd = in_world_open_path(&c->inspector->world, path, O_RDONLY);
	if (fd >= 0) {
		close(fd);
		return;
	}
	bool musl = strstr(path, "ld-musl") != NULL;
	in_find(c->report, IN_LEVEL_FAULT, "F07C", musl ? "get the build for glibc, or run it in a musl container (Alpine); NVIDIA's driver needs glibc" :
	        "run it on a distribution whose loader is there", "its loader %s is not on this machine (\"No such file or directory\" at start)", path);
}

static bool
wheel_requires(const struct check *c, const char *distribution)
{
	for (size_t n = 0; c->wheel && n < c->wheel->count; n++)
		if (strcmp(c->wheel->requires[n], distribution) == 0)
			return true;
	return false;
}

/* Is it brought by a requirement of the wheel, under whatever CUDA suffix? */
static bool
wheel_brings(const struct check *c, const char *library, char distribution[64])
{
	for (uint32_t major = 11; major <= 14; major++)
		if (in_distribution_of(library, major, distribution) && wheel_requires(c, distribution))
			return true;
	if (in_distribution_of(library, 0, distribution) && wheel_requires(c, distribution))
		return true;
	const char *importer = in_brought_by_importer(library);
	if (importer)
		snprintf(distribution, 64, "%s", importer);
	/* torch brings CUDA's libraries along, and so do cuda-toolkit's extras. */
	if (!importer && in_is_cuda_library(library) && wheel_requires(c, "torch"))
		return snprintf(distribution, 64, "torch") > 0;
	if (!importer && in_is_cuda_library(library) && wheel_requires(c, "cuda-toolkit"))
		return snprintf(distribution, 64, "cuda-toolkit") > 0;
	return importer && (wheel_requires(c, importer) || strcmp(importer, "python") == 0);
}

static void
miss_driver(struct check *c, const char *by)
{
	if (c->inspector->options->device.cc) /* asked for a device that is elsewhere, and so is its driver */
		return;
	in_find(c->report, IN_LEVEL_FAULT, "F070",
	        "farwarp doctor                    # why there is no driver\nfarwarp run -- PROGRAM            # with a GPU elsewhere, or in software",
	        "the driver's library " DRIVER " is nowhere on this machine; %s needs it", by);
}

/* Plugins that their library opens only where what they need is installed: NVSHMEM's and NCCL's transports, compilers' plugins. */
static bool
is_optional(const char *path)
{
	const char *base = strrchr(path, '/');

	base = base ? base + 1 : path;
	return strcasestr(base, "plugin") || strstr(base, "_transport_") || strstr(base, "_bootstrap_") || strncmp(base, "libnccl-net", 11) == 0;
}

static void
miss_library(struct check *c, const struct in_loaded *l)
{
	char distribution[64], fix[512];
	const char *by = l->parent >= 0 ? c->scope->loaded[l->parent].name : c->report->path;
	const char *importer = in_brought_by_importer(l->name);

	if (strncmp(l->name, "libcuda.so", 10) == 0) {
		miss_driver(c, by);
		return;
	}
	if (c->wheel && wheel_brings(c, l->name, distribution)) {
		in_find(c->report, IN_LEVEL_NOTE, "", "", "%s comes with its requirement %s", l->name, distribution);
		return;
	}
	if (importer && !c->elf->program) {
		in_find(c->report, IN_LEVEL_NOTE, "", "", "%s has to be loaded already: import %s first", l->name, importer);
		return;
	}
	if (is_optional(c->report->path)) {
		in_find(c->report, IN_LEVEL_NOTE, "", "", "%s is not found: this plugin cannot be used here", l->name);
		return;
	}
	bool wrong = strcmp(l->how, "not found") != 0;
	const char *id = wrong ? "F07E" : in_is_cuda_library(l->name) ? "F127" : "I01";
	if (in_distribution_of(l->name, c->cuda_major, distribution))
		snprintf(fix, sizeof(fix), "pip install %s            # into the environment that uses it; else\n"
		         "LD_LIBRARY_PATH=FOLDER_OF_%s:$LD_LIBRARY_PATH PROGRAM", distribution, l->name);
	else
		snprintf(fix, sizeof(fix), "apt-file search %s        # or: dnf provides '*/%s'", l->name, l->name);
	in_find(c->report, IN_LEVEL_FAULT, id, fix, "%s, which %s needs, is not found%s%s", l->name, by, wrong ? ": " : "", wrong ? l->how : "");
}

static void
check_libraries(struct check *c)
{
	for (size_t n = 0; n < c->scope->count; n++)
		if (!c->scope->loaded[n].object) {
			c->incomplete = true;
			miss_library(c, &c->scope->loaded[n]);
		}
	if (c->scope->full)
		in_find(c->report, IN_LEVEL_UNSURE, "I05", "", "it needs more than %d libraries, or more than %d files were tried for them", IN_MAX_LOADED, IN_MAX_TRIES);
}

/* ---- findings: versions and symbols */

static void
miss_version(struct check *c, const struct in_loaded *by, const struct in_version *v, const struct in_loaded *in)
{
	char fix[512];

	if (strncmp(v->name, "GLIBC_", 6) == 0) {
		const char *have = NULL;
		const struct in_elf *libc = &in->object->elf;
		for (size_t n = 0; n < libc->define_count; n++)
			if (strncmp(libc->defines[n].name, "GLIBC_2", 7) == 0 && (!have || strverscmp(libc->defines[n].name, have) > 0))
				have = libc->defines[n].name;
		in_find(c->report, IN_LEVEL_FAULT, "F07C", "use a build for an older glibc (manylinux), or a newer distribution or container",
		        "glibc is too old: %s needs %s, %s has up to %s", by->name, v->name, in->object->path, have ? have : "none");
		return;
	}
	bool cxx = strncmp(v->name, "GLIBCXX_", 8) == 0 || strncmp(v->name, "CXXABI_", 7) == 0 || strncmp(v->name, "GCC_", 4) == 0;
	bool cuda = in_is_cuda_library(v->file);
	if (cxx)
		snprintf(fix, sizeof(fix), "conda install -c conda-forge libstdcxx-ng        # in a conda environment; else a newer libstdc++6, and\n"
		         "ldd PROGRAM | grep %s                           # check that no older copy is found first", v->file);
	else if (cuda)
		snprintf(fix, sizeof(fix), "take %s out of the way if it is a shim or another CUDA version's: it must define the version %s\n"
		         "its author: export the symbols with a version script:  %s { global: *; };", in->object->path, v->name, v->name);
	else
		snprintf(fix, sizeof(fix), "install a newer %s", v->file);
	in_find(c->report, IN_LEVEL_FAULT, cxx ? "F07D" : cuda ? "F07B" : "I02", fix, "%s has no version %s, which %s needs (found by: %s)",
	        in->object->path, v->name, by->name, in->how);
}

/* As glibc at start: every needed version must be defined by the library of that name, if that defines any. */
static void
check_versions(struct check *c, const struct in_loaded *by)
{
	for (size_t n = 0; n < by->object->elf.need_count; n++) {
		const struct in_version *v = &by->object->elf.needs[n];
		int at = in_scope_named(c->scope, v->file);
		if (at < 0 || !c->scope->loaded[at].object || v->weak)
			continue;
		const struct in_loaded *in = &c->scope->loaded[at];
		if (in->object->elf.define_count && !in_defines_version(&in->object->elf, v->name))
			miss_version(c, by, v, in);
	}
}

/* Names that look like the driver's or the toolkit's interface. */
static bool
is_cuda_symbol(const struct in_symbol *s)
{
	static const char *const prefixes[] = { "cuda", "__cuda", "cublas", "cudnn", "cufft", "curand", "cusolver", "cusparse", "nccl", "nvrtc", "nvJitLink",
		"__nvJitLink", "nvml", "nvtx", "cupti", "nvshmem" };

	if (s->version)
		return in_is_cuda_library(s->version->file);
	for (size_t n = 0; n < sizeof(prefixes) / sizeof(prefixes[0]); n++)
		if (strncmp(s->name, prefixes[n], strlen(prefixes[n])) == 0)
			return true;
	return s->name[0] == 'c' && s->name[1] == 'u' && isupper((unsigned char)s->name[2]);
}

static void
note_use(struct check *c, const struct in_symbol *s, const struct in_loaded *by, const struct in_loaded *in, enum in_lookup result)
{
	struct in_report *r = c->report;

	if (!in_grow(r, &r->uses, r->use_count, sizeof(*r->uses)))
		return;
	r->uses[r->use_count++] = (struct in_use){ .symbol = in_copy(r, s->name), .version = in_copy(r, s->version ? s->version->name : NULL),
		.library = in_copy(r, s->version ? s->version->file : NULL), .path = in_copy(r, in ? in->object->path : NULL),
		.by = in_copy(r, by->name), .result = result };
	r->missing += result != IN_FOUND;
}

/* A first few names, "a, b and 7 more", of the uses that went wrong with this library in this way. */
static const char *
names_of(struct check *c, const char *library, enum in_lookup result)
{
	char text[600] = "";
	size_t used = 0, count = 0;
	struct in_report *r = c->report;

	for (size_t n = 0; n < r->use_count; n++) {
		const struct in_use *u = &r->uses[n];
		if (u->result != result || (u->library ? !library || strcmp(u->library, library) != 0 : library != NULL))
			continue;
		if (count++ < NAMES_SHOWN)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%.80s%s%.40s", used ? ", " : "", u->symbol, u->version ? "@" : "",
			                         u->version ? u->version : "");
	}
	return count > NAMES_SHOWN ? in_print(r, "%s and %zu more", text, count - NAMES_SHOWN) : in_print(r, "%s", text);
}

/* Would the symbol be found without LD_LIBRARY_PATH? Then that shadows the right library. */
static const char *
found_without_library_path(struct check *c, const struct in_use *use)
{
	const struct in_version version = { .file = use->library, .name = use->version };
	const struct in_symbol symbol = { .name = use->symbol, .version = &version, .hash = in_hash(use->symbol) };
	struct in_world *world = &c->inspector->world;
	const char *path = world->library_path, *found = NULL;
	struct in_scope scope;
	int where;

	if (!path || !*path || c->mapped)
		return NULL;
	world->library_path = NULL;
	if (in_scope_load(&scope, world, c->self->object) && in_scope_lookup(&scope, &symbol, &where) == IN_FOUND)
		found = in_copy(c->report, scope.loaded[where].object->path);
	in_scope_free(&scope);
	world->library_path = path;
	return found;
}

/* One finding for all symbols with versions that a library lacks. */
static void
miss_symbols_of(struct check *c, const struct in_use *use, const struct in_loaded *in)
{
	const char *names = names_of(c, use->library, use->result), *better;
	bool cuda = in_is_cuda_library(use->library);
	char fix[700];

	if (cuda && strcmp(in->how, "LD_LIBRARY_PATH") == 0 && (better = found_without_library_path(c, use))) {
		in_find(c->report, IN_LEVEL_FAULT, "F07A", "env -u LD_LIBRARY_PATH PROGRAM", "LD_LIBRARY_PATH puts %s before %s, and it lacks %s",
		        in->object->path, better, names);
		return;
	}
	snprintf(fix, sizeof(fix), "replace %.200s by NVIDIA's %.60s, or put the folder of NVIDIA's first in LD_LIBRARY_PATH\n"
	         "who made it: give each symbol its version when linking (-Wl,--version-script):  %.60s { global: *; };", in->object->path, use->library,
	         use->version);
	in_find(c->report, IN_LEVEL_FAULT, cuda ? "F07B" : "I02", fix, "%s missing in %s%s", names, in->object->path,
	        use->result == IN_NOT_VERSIONED ? " (it has no symbol versions at all: the loader stops the program)" :
	        use->result == IN_OTHER_VERSION ? " (it is there, but not in this version)" : "");
}

/* The driver's library, when the file is linked with it and one of its calls is among the symbols that nobody has. */
static const char *
missing_in_driver(struct check *c)
{
	int at = in_scope_named(c->scope, DRIVER);

	if (!c->report->linked_driver || at < 0 || !c->scope->loaded[at].object)
		return NULL;
	for (size_t n = 0; n < c->report->use_count; n++) {
		const struct in_use *u = &c->report->uses[n];
		if (u->result == IN_NOWHERE && !u->library && u->symbol[0] == 'c' && u->symbol[1] == 'u' && isupper((unsigned char)u->symbol[2]))
			return c->scope->loaded[at].object->path;
	}
	return NULL;
}

/* Symbols that no library names: a program cannot start; a library may get them from who loads it. */
static void
miss_symbols_of_anyone(struct check *c)
{
	const char *names = names_of(c, NULL, IN_NOWHERE), *driver = missing_in_driver(c);

	if (driver) {
		in_find(c->report, IN_LEVEL_FAULT, "F079", "update the driver: nvidia-smi shows its version", "the driver %s is too old: it lacks %s", driver, names);
		return;
	}
	if (c->elf->program) {
		in_find(c->report, IN_LEVEL_FAULT, "I03", "rebuild it against the libraries of this machine", "no library has the symbols %s", names);
		return;
	}
	bool wants_new = false, wants_old = false;
	for (size_t n = 0; n < c->report->use_count; n++) {
		const struct in_use *u = &c->report->uses[n];
		if (u->result == IN_NOWHERE && !u->library) {
			wants_new |= strstr(u->symbol, "__cxx11") != NULL;
			wants_old |= strstr(u->symbol, "RKSs") != NULL || strncmp(u->symbol, "_ZNSs", 5) == 0;
		}
	}
	for (size_t n = 1; n < c->scope->count; n++) {
		const struct in_object *o = c->scope->loaded[n].object;
		if (!o || (o->elf.soname && strncmp(o->elf.soname, "libstdc++", 9) == 0))
			continue;
		if ((wants_new && o->elf.old_strings && !o->elf.new_strings) || (wants_old && o->elf.new_strings && !o->elf.old_strings)) {
			in_find(c->report, IN_LEVEL_FAULT, "F07D",
			        wants_new ? "rebuild it with -D_GLIBCXX_USE_CXX11_ABI=0, or get the library's build with the C++11 ABI" :
			        "rebuild it with -D_GLIBCXX_USE_CXX11_ABI=1, or get the library's build with the old ABI",
			        "%s are missing: it was built with %s std::string, %s with the other", names, wants_new ? "C++11's" : "the old",
			        c->scope->loaded[n].name);
			return;
		}
	}
	in_find(c->report, IN_LEVEL_NOTE, "", "", "symbols that the program that loads it must have: %s", names);
}

/* Symbols that an interpreter has which loads a file as its extension. */
static bool
is_of_interpreter(const char *name)
{
	return strncmp(name, "Py", 2) == 0 || strncmp(name, "_Py", 3) == 0 || strncmp(name, "napi_", 5) == 0 || strncmp(name, "node_api", 8) == 0;
}

/* Findings for the symbols that went wrong from the use `first` on: one for each library and each way. */
static void
tell_missing(struct check *c, size_t first)
{
	const struct in_use *uses = c->report->uses;

	for (size_t n = first; n < c->report->use_count; n++) {
		bool told = uses[n].result == IN_FOUND;
		for (size_t m = first; m < n && !told; m++)
			told = uses[m].result == uses[n].result && (uses[m].library && uses[n].library ? strcmp(uses[m].library, uses[n].library) == 0 :
			                                             uses[m].library == uses[n].library);
		if (told)
			continue;
		if (uses[n].library)
			miss_symbols_of(c, &uses[n], &c->scope->loaded[in_scope_named(c->scope, uses[n].library)]);
		else
			miss_symbols_of_anyone(c);
	}
}

/* Of the file itself all are looked up; of the libraries that it needs only those of CUDA, which nobody else brings. */
static void
check_symbols(struct check *c, const struct in_loaded *by)
{
	const struct in_elf *elf = &by->object->elf;
	size_t first = c->report->use_count;

	for (size_t n = 0; n < elf->undefined_count; n++) {
		const struct in_symbol *s = &elf->undefined[n];
		bool cuda = is_cuda_symbol(s);
		int where, at = s->version ? in_scope_named(c->scope, s->version->file) : -1;
		if (by != c->self && !cuda)
			continue;
		if (s->version && (at < 0 || !c->scope->loaded[at].object))
			continue; /* its library is missing: told already */
		enum in_lookup result = in_scope_lookup(c->scope, s, &where);
		if (result == IN_FOUND) {
			if (cuda && by == c->self)
				note_use(c, s, by, &c->scope->loaded[where], result);
			continue;
		}
		const struct in_loaded *in = at >= 0 ? &c->scope->loaded[at] : NULL;
		if (s->weak || (in && in->object->elf.define_count && !in_defines_version(&in->object->elf, s->version->name)))
			continue; /* may be missing; or told of the version */
		if (!s->version && (by != c->self || c->incomplete || is_of_interpreter(s->name)))
			continue;
		note_use(c, s, by, in, result);
	}
	tell_missing(c, first);
}

/* ---- findings: driver and kernels */

static void
check_driver(struct check *c)
{
	struct in_report *r = c->report;
	const char *how = NULL;
	int runtime = -1;

	for (size_t n = 0; n < c->scope->count && runtime < 0; n++)
		if (c->scope->loaded[n].object && strncmp(c->scope->loaded[n].name, "libcudart.so", 12) == 0)
			runtime = (int)n;
	size_t by = r->dlopens_driver || r->linked_driver || runtime < 0 ? (size_t)(c->self - c->scope->loaded) : (size_t)runtime;
	if (!r->linked_driver && !r->dlopens_driver && !r->static_runtime && runtime < 0)
		return;
	const char *path = in_scope_find(c->scope, &c->inspector->world, by, DRIVER, &how);
	r->driver_path = in_copy(r, path);
	r->driver_how = in_copy(r, how);
	if (!path && !r->linked_driver && !c->mapped)
		miss_driver(c, by == (size_t)(c->self - c->scope->loaded) ? "it opens it by name and" : c->scope->loaded[by].name);
	if (path && strstr(path, "/stubs/"))
		in_find(r, IN_LEVEL_FAULT, "F072", "remove the stubs folder from LD_LIBRARY_PATH, RUNPATH and /etc/ld.so.conf.d", "it gets the toolkit's stub %s in "
		        "place of the driver (error 34)", path);
}

/* " sm_80 sm_90a compute_90", cut when long. */
static const char *
list_archs(struct in_report *r)
{
	char text[512] = "";
	size_t used = 0;

	for (size_t n = 0; n < r->kernels.arch_count && used + 24 < sizeof(text); n++) {
		const struct in_arch *a = &r->kernels.archs[n];
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %s_%u%.1s", a->ptx ? "compute" : "sm", a->arch, a->suffix ? &a->suffix : "");
	}
	return in_print(r, "%s", text);
}

static void
check_kernels(struct check *c, struct in_source *source)
{
	struct in_report *r = c->report;
	struct in_kernels *k = &r->kernels;
	struct in_machine *m = &c->inspector->machine;

	if (!r->uses_cuda)
		return;
	if (c->elf->fatbin_count)
		in_machine_ask(m, ASK_SECONDS);
	in_kernels_read(k, c->elf, source, &m->device);
	if (!c->cuda_major && k->toolkit[0])
		c->cuda_major = (uint32_t)strtoul(k->toolkit, NULL, 10);
	if (k->damage.text[0])
		in_find(r, IN_LEVEL_FAULT, "F096", "install it again; check the free space: df -h . /tmp", "%s", k->damage.text);
	if (!k->modules)
		return;
	uint32_t cc = m->device.cc, cuda = in_cuda_of_ptx(k->newest_ptx);
	if (!cc) {
		in_find(r, IN_LEVEL_UNSURE, "I06", "farwarp inspect --cc 9.0 FILE      # compare with a device that is not here",
		        "its kernels (%s ) could not be compared with a GPU: %s", list_archs(r), m->text);
	} else if (!k->native && !k->jit && k->too_new) {
		in_find(r, IN_LEVEL_FAULT, "F098", "update the driver, or get a build with machine code for this GPU",
		        "for sm_%u it has only PTX ISA %u.%u, which needs a driver for CUDA %u.%u", cc, k->newest_ptx / 10, k->newest_ptx % 10, cuda / 10,
		        cuda % 10);
	} else if (!k->native && !k->jit) {
		const struct in_arch *last = &k->archs[k->arch_count - 1];
		bool old = cc < k->archs[0].arch && cc < last->arch;
		in_find(r, IN_LEVEL_FAULT, "F097", old ? "get an older build, from before this GPU was dropped, or use a newer GPU" :
		        "get a build that lists this architecture (newer CUDA), or rebuild: nvcc -gencode arch=compute_XY,code=[sm_XY,compute_XY]",
		        "no kernel for sm_%u; it has%s (error 209)", cc, list_archs(r));
	} else if (k->uncovered || k->too_new) {
		in_find(r, IN_LEVEL_NOTE, "", "", "%u of %u modules hold nothing for sm_%u (made for others on purpose, or error 209 when they are used)",
		        k->uncovered + k->too_new, k->modules, cc);
	}
}

/* A cubin: no file for the loader, but for cuModuleLoad. */
static void
check_cubin(struct check *c, struct in_source *source)
{
	struct in_machine *m = &c->inspector->machine;
	struct img_error error = { "" };
	struct fw_cursor copy;
	struct img_elf cubin;

	c->report->uses_cuda = true;
	if (!in_load(source, 0, source->size, &copy))
		return;
	in_machine_ask(m, ASK_SECONDS);
	if (img_elf_open(&cubin, copy.data, copy.size, &error))
		in_find(c->report, IN_LEVEL_FAULT, "F096", "make it again", "a damaged cubin: %s", error.text);
	else if (!m->device.cc)
		in_find(c->report, IN_LEVEL_UNSURE, "I06", "farwarp inspect --cc 9.0 FILE      # compare with a device that is not here",
		        "machine code for sm_%u, which could not be compared with a GPU: %s", cubin.sm, m->text);
	else if (!in_machine_code_fits(cubin.sm, cubin.suffix, m->device.cc))
		in_find(c->report, IN_LEVEL_FAULT, "F097", "make it for this GPU, or ship PTX", "machine code for sm_%u alone, which sm_%u cannot run (error 209)",
		        cubin.sm, m->device.cc);
	else
		in_find(c->report, IN_LEVEL_NOTE, "", "", "machine code for sm_%u%s", cubin.sm, cubin.relocatable ? ", still to be linked" : "");
	in_unload(&copy);
}

/* ---- all of it */

static void
inspect(struct check *c, struct in_source *source)
{
	struct in_report *r = c->report;

	find_texts(c, source);
	note_facts(c);
	if (c->elf->machine == EM_CUDA)
		check_cubin(c, source);
	if (!runs_here(c))
		return;
	note_libraries(c);
	check_interpreter(c);
	if (!c->mapped)
		check_libraries(c);
	for (size_t n = 0; n < c->scope->count; n++)
		if (c->scope->loaded[n].object && (!c->mapped || &c->scope->loaded[n] == c->self))
			check_versions(c, &c->scope->loaded[n]);
	for (size_t n = 0; n < c->scope->count; n++)
		if (c->scope->loaded[n].object && (!c->mapped || &c->scope->loaded[n] == c->self))
			check_symbols(c, &c->scope->loaded[n]);
	check_kernels(c, source);
	if (r->uses_cuda)
		check_driver(c);
}

static struct in_report *
unreadable(const char *shown, const struct in_error *error)
{
	struct in_report *r = in_report_new(shown, IN_KIND_ELF);

	if (r)
		in_find(r, IN_LEVEL_FAULT, "I04", "install it again; check the free space: df -h . /tmp", "%s", error->text);
	return r;
}

struct in_report *
in_inspect_elf(struct in_inspector *inspector, const char *path, const char *shown, const struct in_wheel_needs *wheel)
{
	struct in_error error;
	struct in_source source;
	struct in_scope scope;

	in_world_trim(&inspector->world, false);
	if (!in_world_source(&inspector->world, path, &source, &error))
		return unreadable(shown, &error);
	struct in_object *object = in_world_object_of(&inspector->world, path, &source, &error);
	struct in_report *report = object ? in_report_new(shown, IN_KIND_ELF) : unreadable(shown, &error);
	if (object && report && in_scope_load(&scope, &inspector->world, object)) {
		scope.loaded[0].name = report->path;
		struct check c = { .inspector = inspector, .report = report, .scope = &scope, .self = &scope.loaded[0], .elf = &object->elf, .wheel = wheel };
		inspect(&c, &source);
		in_scope_free(&scope);
	}
	in_source_close(&source);
	return report;
}

struct in_report *
in_inspect_mapped(struct in_inspector *inspector, struct in_scope *scope, size_t index)
{
	struct in_error error;
	struct in_source source;
	struct in_object *object = scope->loaded[index].object;

	if (!in_world_source(&inspector->world, object->path, &source, &error))
		return unreadable(object->path, &error);
	struct in_report *report = in_report_new(object->path, IN_KIND_ELF);
	if (report) {
		struct check c = { .inspector = inspector, .report = report, .scope = scope, .self = &scope->loaded[index], .elf = &object->elf, .mapped = true };
		inspect(&c, &source);
	}
	in_source_close(&source);
	return report;
}
