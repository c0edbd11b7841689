/*
 * Probe of the libraries that programs get: every libcuda, libnvidia-ml, libcudart, and some more, in the order in which the loader looks
 * for them (ld.so(8)), and where drivers lie that it does not look. Files are read and none is loaded; what they are is told by their
 * content. In a child, for a folder of LD_LIBRARY_PATH may lie on a server that is gone.
 *
 * Not followed: RPATH and RUNPATH, which are a program's own (farwarp inspect PROGRAM), LD_AUDIT, glibc-hwcaps.
 */
#include "doctor/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "base/ldcache.h"
#include "base/ours.h"
#include "elf/elf_file.h"

#define MAX_ANSWER (512 << 10)       /* bytes of the facts, as JSON */
#define MAX_FILES 256                /* libraries that are looked at */
#define MAX_NAMES 16384              /* of a folder */
#define MAX_MOUNTS_FILE (1 << 20)
#define MAX_OWN_DATA (64u << 20)     /* bytes of a library that are searched for farwarp's mark */
#define MAX_STUB_CALLS 3             /* functions that a stub calls, at most; whatever does any work calls more */

#if defined(__aarch64__)
#define MACHINE IN_EM_AARCH64
#else
#define MACHINE IN_EM_X86_64
#endif

enum family { CUDA, NVML, CUDART, SIBLINGS, TOOLKIT, STDCXX, FAMILIES };
static const char *const facts_of[FAMILIES] = { "libcuda", "libnvidia_ml", "libcudart", "siblings", "toolkit", "libstdcxx" };

static const struct {
	const char *name; /* up to ".so" */
	enum family family;
} wanted[] = {
	{ "libcuda", CUDA }, { "libnvidia-ml", NVML }, { "libcudart", CUDART },
	{ "libnvidia-ptxjitcompiler", SIBLINGS }, { "libnvidia-nvvm", SIBLINGS }, { "libnvidia-gpucomp", SIBLINGS },
	{ "libnvJitLink", TOOLKIT }, { "libcublas", TOOLKIT }, { "libcublasLt", TOOLKIT }, { "libcudnn", TOOLKIT }, { "libcufft", TOOLKIT },
	{ "libcusolver", TOOLKIT }, { "libcusparse", TOOLKIT }, { "libnccl", TOOLKIT }, { "libnvrtc", TOOLKIT }, { "libstdc++", STDCXX },
};

/* Where distributions, installers and container runtimes put the driver's libraries without telling the loader. */
static const char *const elsewhere[] = {
	"/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib/aarch64-linux-gnu/nvidia/current",
	"/usr/lib/nvidia", "/usr/lib64/nvidia", "/usr/lib/wsl/lib", "/run/opengl-driver/lib", "/var/lib/nvidia/lib64",
	"/opt/nvidia/lib64", "/run/nvidia/driver/usr/lib/x86_64-linux-gnu", "/run/nvidia/driver/usr/lib64", "/.singularity.d/libs",
	"/usr/lib/aarch64-linux-gnu/tegra", "/usr/lib/i386-linux-gnu", "/usr/lib32" };

struct file {
	enum family family;
	char *path, *real;         /* below the root; real NULL: a link to nothing */
	char *full;                /* real, as this process opens it */
	const char *found_by;
	dev_t device;
	ino_t inode;
};

struct work { /* shared with the child */
	volatile unsigned beat;
	const struct dr_options *options;
	const struct fw_json *facts;
	char answer[MAX_ANSWER];
};

struct look {
	struct work *work;
	char root[PATH_MAX];       /* options->root without links */
	struct file file[MAX_FILES];
	size_t count;
	const char *folder, *found_by; /* at hand */
	bool below;                /* the folder is below the root */
	struct fw_json *preload;   /* of the facts */
	char *mounts;              /* /proc/self/mountinfo; NULL: not in a container, or not readable */
};

/* ---- what a library is ---- */

static bool
opens(const char *full, struct in_source *source, struct in_elf *elf)
{
	int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || !in_source_fd(source, fd, NULL))
		return false;
	if (!in_elf_read(elf, source, NULL)) {
		in_source_close(source);
		return false;
	}
	return true;
}

/* farwarp's own library answers to an id, which stands in its constants. */
static bool
has_our_mark(const struct in_elf *elf, struct in_source *source)
{
	bool found = false;

	for (size_t i = 0; i < elf->data_count && !found; i++) {
		struct fw_cursor bytes;
		if (elf->data[i].size <= MAX_OWN_DATA && in_load(source, elf->data[i].at, elf->data[i].size, &bytes)) {
			found = memmem(bytes.data, bytes.size, FW_OURS_ID, strlen(FW_OURS_ID)) != NULL;
			in_unload(&bytes);
		}
	}
	return found;
}

static size_t
calls_of(const struct in_elf *elf)
{
	size_t calls = 0;

	for (size_t i = 0; i < elf->undefined_count; i++)
		calls += !elf->undefined[i].weak;
	return calls;
}

/* "570.195.03" of ".../libcuda.so.570.195.03"; NULL of one that has no more than the interface's number. */
static const char *
version_in(const char *real)
{
	const char *slash = strrchr(real, '/'), *version = strstr(slash ? slash : real, ".so.");

	return version && strchr(version + 4, '.') ? version + 4 : NULL;
}

static bool
is_compat(const char *real)
{
	return strstr(real, "/compat/") || strstr(real, "cuda-compat");
}

/*
 * NVIDIA's own libcuda serves its debugger, which no stub and no shim does. A stub does no work and so calls nothing. What cannot be read
 * (another machine's) is judged by its name.
 */
static const char *
kind_of_libcuda(const char *real, const struct in_elf *elf, struct in_source *source)
{
	if (strstr(real, "/stubs/"))
		return "stub";
	if (strstr(real, "/wsl/"))
		return "driver";
	if (elf ? in_elf_exports(elf, "cudbgApiInit") : version_in(real) != NULL)
		return is_compat(real) ? "compat" : "driver";
	if (!elf)
		return NULL;
	if (has_our_mark(elf, source))
		return "farwarp";
	return in_elf_exports(elf, "cuInit") && calls_of(elf) <= MAX_STUB_CALLS ? "stub" : "shim";
}

static const char *
kind_of(enum family family, const char *real, const struct in_elf *elf, struct in_source *source)
{
	switch (family) {
	case CUDA:
		return kind_of_libcuda(real, elf, source);
	case NVML:
		if (strstr(real, "/stubs/"))
			return "stub";
		if (elf ? in_elf_exports(elf, "nvmlInternalGetExportTable") : version_in(real) != NULL)
			return "driver";
		return !elf ? NULL : calls_of(elf) <= MAX_STUB_CALLS ? "stub" : "shim";
	case CUDART: /* NVIDIA's defines the version that nvcc binds programs to */
		return !elf ? NULL : elf->define_count ? "runtime" : "shim";
	case SIBLINGS:
		return is_compat(real) ? "compat" : version_in(real) ? "driver" : NULL;
	default:
		return NULL;
	}
}

const char *
dr_kind_of_libcuda(const char *real)
{
	struct in_source source;
	struct in_elf elf;

	if (!opens(real, &source, &elf))
		return kind_of_libcuda(real, NULL, NULL);
	const char *kind = kind_of_libcuda(real, elf.readable ? &elf : NULL, &source);
	in_elf_free(&elf);
	in_source_close(&source);
	return kind;
}

/* ---- where they lie ---- */

static void
add_file(struct look *l, enum family family, const char *path, bool below)
{
	char full[PATH_MAX], real[PATH_MAX];
	struct stat status;

	l->work->beat++;
	if (l->count == MAX_FILES || snprintf(full, sizeof(full), "%s%s", below ? l->root : "", path) >= (int)sizeof(full) || lstat(full, &status) != 0)
		return;
	bool there = realpath(full, real) && stat(real, &status) == 0;
	if (there && !S_ISREG(status.st_mode))
		return;
	const char *base = strrchr(path, '/');
	for (size_t i = 0; i < l->count && there; i++) {
		struct file *f = &l->file[i];
		if (f->family != family || !f->real || f->device != status.st_dev || f->inode != status.st_ino)
			continue;
		/* One file under several names: the one that programs ask for, libX.so.1, is told. */
		const char *known = strrchr(f->path, '/'), *so = base ? strstr(base, ".so.") : NULL;
		if (so && !strchr(so + 4, '.') && known && (!strstr(known, ".so.") || version_in(f->path)) && f->found_by == l->found_by) {
			char *better = strdup(path);
			free(better ? f->path : NULL);
			f->path = better ? better : f->path;
		}
		return;
	}
	size_t root = strlen(l->root);
	struct file *f = &l->file[l->count];
	*f = (struct file){ .family = family, .found_by = l->found_by, .device = status.st_dev, .inode = status.st_ino };
	f->path = strdup(path);
	f->full = there ? strdup(real) : NULL;
	f->real = there ? strdup(root && strncmp(real, l->root, root) == 0 && real[root] == '/' ? real + root : real) : NULL;
	l->count += f->path && (!there || (f->full && f->real));
}

/* A file of a wanted name: adds it. */
static void
consider(struct look *l, const char *name, const char *path, bool below)
{
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		size_t length = strlen(wanted[i].name);
		if (strncmp(name, wanted[i].name, length) == 0 && strncmp(name + length, ".so", 3) == 0 && (!name[length + 3] || name[length + 3] == '.'))
			add_file(l, wanted[i].family, path, below);
	}
}

static void
consider_name(const char *name, void *user)
{
	struct look *l = user;
	char path[PATH_MAX];

	if (strncmp(name, "lib", 3) == 0 && strstr(name, ".so") && snprintf(path, sizeof(path), "%s/%s", l->folder, name) < (int)sizeof(path))
		consider(l, name, path, l->below);
}

static void
look_in(struct look *l, const char *folder, const char *found_by, bool below)
{
	const struct dr_options outside = { .root = "" };

	l->folder = folder;
	l->found_by = found_by;
	l->below = below;
	dr_each_name(below ? l->work->options : &outside, folder, MAX_NAMES, consider_name, l);
}

/* Each part of a list of paths. */
static void
each_part(struct look *l, const char *list, const char *separators, void (*each)(struct look *l, const char *part))
{
	char part[PATH_MAX];

	for (; list && *list; list += *list != 0) {
		size_t length = strcspn(list, separators);
		if (length && length < sizeof(part)) {
			memcpy(part, list, length);
			part[length] = 0;
			each(l, part);
		}
		list += length;
	}
}

static void
look_in_part(struct look *l, const char *folder)
{
	if (*folder == '/' || !*l->work->options->root) /* from where this process stands */
		look_in(l, folder, "LD_LIBRARY_PATH", true);
}

static void
add_preloaded(struct look *l, const char *path)
{
	const char *slash = strrchr(path, '/');

	dr_append_text(l->preload, path);
	l->found_by = "preload";
	if (slash)
		consider(l, slash + 1, path, true);
}

static bool
add_cached(const char *name, const char *path, void *user)
{
	struct look *l = user;

	if (!strstr(path, "/glibc-hwcaps/"))
		consider(l, name, path, true);
	return false;
}

static void
look_in_cache(struct look *l)
{
	char path[PATH_MAX];
	struct in_source source;
	struct fw_cursor bytes = { 0 };

	snprintf(path, sizeof(path), "%s/etc/ld.so.cache", l->work->options->root);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || !in_source_fd(&source, fd, NULL))
		return;
	l->found_by = "cache";
	if (source.size <= FW_LDCACHE_MAX && in_load(&source, 0, source.size, &bytes))
		fw_ldcache_all(bytes.data, bytes.size, add_cached, l);
	in_unload(&bytes);
	in_source_close(&source);
}

static void
look_everywhere(struct look *l)
{
	const struct dr_options *o = l->work->options;
	const struct fw_json *facts = l->work->facts;
	char preload[4096], multiarch[2][64];

	each_part(l, dr_get_text(facts, "env.LD_PRELOAD", NULL), " :", add_preloaded);
	if (dr_read_small(o, "/etc/ld.so.preload", preload, sizeof(preload)) == 0)
		each_part(l, preload, " :\t\n", add_preloaded);
	if (o->driver) /* stands for the folder in which programs find it first */
		look_in(l, o->driver, "LD_LIBRARY_PATH", false);
	each_part(l, dr_get_text(facts, "env.LD_LIBRARY_PATH", NULL), ":;", look_in_part);
	look_in_cache(l);
	snprintf(multiarch[0], sizeof(multiarch[0]), "/lib/%s-linux-gnu", in_machine_name(MACHINE));
	snprintf(multiarch[1], sizeof(multiarch[1]), "/usr/lib/%s-linux-gnu", in_machine_name(MACHINE));
	const char *const folders[] = { multiarch[0], multiarch[1], "/lib64", "/usr/lib64", "/lib", "/usr/lib" };
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		look_in(l, folders[i], "default", true);
	for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++)
		look_in(l, elsewhere[i], "elsewhere", true);
}

/* ---- what is told of them ---- */

/* In a container: no mount but the root's holds the file. */
static bool
is_baked(const struct look *l, const char *real)
{
	char target[1024];

	for (const char *line = l->mounts; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		size_t length = sscanf(line, "%*s %*s %*s %*s %1023s", target) == 1 ? strlen(target) : 0;
		if (length > 1 && strncmp(real, target, length) == 0 && (real[length] == '/' || !real[length]))
			return false;
	}
	return true;
}

/* Whether a program that asks for the library's soname gets this file: the driver's loader said so, or none stands before it. */
static bool
is_mapped(const struct look *l, const struct fw_json *list, const struct file *f, const struct in_elf *elf)
{
	const struct fw_json *facts = l->work->facts, *library = dr_get(facts, "driver.library");
	const char *base = strrchr(f->path, '/');

	if (f->family == CUDA && fw_json_is(library, FW_JSON_NULL))
		return false;
	if (f->family == CUDA && library && !dr_is_unseen(library))
		return strcmp(dr_get_text(library, "real", ""), f->full) == 0;
	if (elf->machine != MACHINE || !elf->soname || !base || strcmp(base + 1, elf->soname) != 0 || strcmp(f->found_by, "elsewhere") == 0)
		return false;
	for (size_t i = 0; i < fw_json_size(list); i++) {
		const struct fw_json *before = fw_json_at(list, i);
		if (dr_get_bool(before, "mapped", false) && strcmp(dr_get_text(before, "soname", ""), elf->soname) == 0)
			return false;
	}
	return true;
}

static void
tell(const struct look *l, struct fw_json *list, const struct file *f)
{
	struct in_source source;
	struct in_elf elf;
	struct fw_json *item = dr_append(list);

	l->work->beat++;
	dr_set_text(item, "path", f->path);
	dr_set_text(item, "found_by", f->found_by);
	dr_set_bool(item, "mapped", false);
	dr_set_text(item, "real", f->real);
	if (!f->real) {
		dr_set_absent(item, "kind");
		return;
	}
	dr_set_text(item, "version", version_in(f->real));
	if (l->mounts)
		dr_set_bool(item, "baked", is_baked(l, f->real));
	else
		dr_set_absent(item, "baked");
	if (!opens(f->full, &source, &elf)) {
		dr_set_absent(item, "kind");
		dr_set_absent(item, "machine");
		return;
	}
	dr_set_text(item, "machine", in_machine_name(elf.machine));
	dr_set_text(item, "kind", kind_of(f->family, f->real, elf.readable ? &elf : NULL, &source));
	if (elf.readable) {
		dr_set_text(item, "soname", elf.soname);
		dr_set_text(item, "build_id", elf.build_id[0] ? elf.build_id : NULL);
		dr_set_bool(item, "versioned", elf.define_count > 0);
		dr_set_bool(item, "mapped", is_mapped(l, list, f, &elf));
	}
	in_elf_free(&elf);
	in_source_close(&source);
}

/* Where Ollama's installer and distributions put its backends: cuda_v12, cuda_v13, vulkan... */
static void
add_ollama(const char *name, void *user)
{
	if (strncmp(name, "cuda_", 5) == 0)
		dr_append_text(user, name);
}

static void
find_musl(const char *name, void *user)
{
	bool *found = user;

	*found |= strncmp(name, "ld-musl-", 8) == 0;
}

/* In the child. */
static void
ask(void *shared)
{
	struct work *w = shared;
	struct look *l = calloc(1, sizeof(*l));
	struct fw_json *libraries = fw_json_object();
	bool musl = false;

	if (!l)
		return;
	l->work = w;
	if (*w->options->root && !realpath(w->options->root, l->root))
		return;
	if (*dr_get_text(w->facts, "container.kind", ""))
		l->mounts = dr_read_file(w->options, "/proc/self/mountinfo", MAX_MOUNTS_FILE);
	l->preload = dr_list(libraries, "preload");
	look_everywhere(l);
	for (int family = 0; family < FAMILIES; family++) {
		struct fw_json *list = dr_list(libraries, facts_of[family]);
		for (size_t i = 0; i < l->count; i++)
			if ((int)l->file[i].family == family)
				tell(l, list, &l->file[i]);
	}
	dr_each_name(w->options, "/lib", MAX_NAMES, find_musl, &musl);
	dr_set_bool(libraries, "musl", musl);
	struct fw_json *ollama = dr_list(libraries, "ollama");
	dr_each_name(w->options, "/usr/local/lib/ollama", 256, add_ollama, ollama);
	dr_each_name(w->options, "/usr/lib/ollama", 256, add_ollama, ollama);
#ifdef __GLIBC__
	dr_set_text(libraries, "glibc", gnu_get_libc_version());
#else
	dr_set_absent(libraries, "glibc");
#endif
	FILE *out = fmemopen(w->answer, sizeof(w->answer) - 1, "w");
	if (out) {
		fw_json_write(libraries, out);
		fclose(out);
	}
	fw_json_free(libraries);
	for (size_t i = 0; i < l->count; i++) {
		free(l->file[i].path);
		free(l->file[i].real);
		free(l->file[i].full);
	}
	free(l->mounts);
	free(l);
}

void
dr_probe_libraries(const struct dr_options *o, struct fw_json *facts)
{
	struct fw_json_error error;
	struct dr_child_end e;
	struct work *w = dr_shared(sizeof(*w));

	if (!w) {
		dr_unseen(facts, "libraries", ENOMEM, "no memory to share with a child", NULL);
		return;
	}
	w->options = o;
	w->facts = facts;
	dr_child_run(ask, w, &w->beat, o->deadline, &e);
	w->answer[sizeof(w->answer) - 1] = 0;
	struct fw_json *libraries = w->answer[0] ? fw_json_read(w->answer, strlen(w->answer), &error) : NULL;
	if (libraries)
		dr_put(facts, "libraries", libraries);
	else
		dr_unseen(facts, "libraries", 0, e.hung ? "a folder of the loader's path does not answer" : "they could not be read", NULL);
	dr_unshare(w, sizeof(*w));
}
