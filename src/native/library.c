/*
 * Finds the libcuda.so.1 of the machine's driver among the places where drivers put it, and never takes farwarp's own for it.
 */
#include "native/native.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ldcache.h"
#include "base/log.h"
#include "base/ours.h"

#define NAME "libcuda.so.1"

/* Where drivers are put without the loader's cache knowing it, or where there is no cache. */
static const struct {
	const char *folder, *how;
} places[] = {
	{ "/usr/lib/wsl/lib", "WSL's driver" },
	{ "/usr/local/nvidia/lib64", "the container's driver" },
	{ "/usr/local/nvidia/lib", "the container's driver" },
	{ "/run/opengl-driver/lib", "NixOS's driver" },
#if defined(__x86_64__)
	{ "/usr/lib/x86_64-linux-gnu", "the system's libraries" },
	{ "/lib/x86_64-linux-gnu", "the system's libraries" },
	{ "/usr/lib/x86_64-linux-gnu/nvidia/current", "the system's libraries" },
#elif defined(__aarch64__)
	{ "/usr/lib/aarch64-linux-gnu", "the system's libraries" },
	{ "/lib/aarch64-linux-gnu", "the system's libraries" },
	{ "/usr/lib/aarch64-linux-gnu/nvidia", "Tegra's driver" },
	{ "/usr/lib/aarch64-linux-gnu/tegra", "Tegra's driver" },
#endif
	{ "/usr/lib64", "the system's libraries" },
	{ "/usr/lib64/nvidia", "the system's libraries" },
	{ "/usr/lib", "the system's libraries" },
};

struct search {
	struct nv_library *library;
	const char *root, *how;
	char *why; /* NV_WHY bytes: what was found and not taken */
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void
say(struct search *s, const char *format, ...)
{
	va_list arguments;

	if (s->used + 3 > NV_WHY)
		return;
	if (s->used) {
		memcpy(s->why + s->used, "; ", 3);
		s->used += 2;
	}
	va_start(arguments, format);
	int length = vsnprintf(s->why + s->used, NV_WHY - s->used, format, arguments);
	va_end(arguments);
	s->used += length < 0 ? 0 : (size_t)length;
	if (s->used > NV_WHY - 1)
		s->used = NV_WHY - 1;
}

/* Whether it is a libcuda.so.1 of farwarp, which would call itself. */
static bool
is_ours(void *handle)
{
	CUresult (*table)(const void **, const CUuuid *) = (CUresult (*)(const void **, const CUuuid *))dlsym(handle, "cuGetExportTable");
	const void *answer = NULL;
	CUuuid id;

	memcpy(id.bytes, FW_OURS_ID, sizeof(id.bytes));
	return table && table(&answer, &id) == CUDA_SUCCESS && answer;
}

static bool
load(const char *path, struct search *s)
{
	/* With a libcuda in the global scope (ours, under a program that links it) the driver's inner calls have to stay its own. */
	void *program = dlopen(NULL, RTLD_LAZY);
	int deep = program && dlsym(program, "cuInit") ? RTLD_DEEPBIND : 0;
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | deep);

	if (!handle) {
		const char *error = dlerror();
		say(s, "%s", error ? error : path);
		return false;
	}
	if (is_ours(handle)) {
		fw_debug("native", "%s is farwarp's own: passed over", path);
		dlclose(handle);
		return false;
	}
	s->library->handle = handle;
	s->library->how = s->how;
	snprintf(s->library->path, sizeof(s->library->path), "%s", path);
	return true;
}

/* A path below the root, if such a file is there. */
static bool
try_path(const char *path, void *user)
{
	struct search *s = user;
	char full[sizeof(s->library->path)];

	if (snprintf(full, sizeof(full), "%s%s", s->root, path) >= (int)sizeof(full) || access(full, F_OK) != 0)
		return false;
	return load(full, s);
}

static bool
try_cache(struct search *s)
{
	char path[4096];
	struct stat st;
	bool found = false;

	snprintf(path, sizeof(path), "%s/etc/ld.so.cache", s->root);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= (off_t)FW_LDCACHE_MAX) {
		char *bytes = malloc((size_t)st.st_size);
		ssize_t size = bytes ? read(fd, bytes, (size_t)st.st_size) : -1;
		found = size > 0 && fw_ldcache_each(bytes, (size_t)size, NAME, try_path, s);
		free(bytes);
	}
	close(fd);
	return found;
}

bool
nv_library_open(struct nv_library *library, const char *root, char why[NV_WHY])
{
	const char *wish = getenv("FARWARP_NATIVE_LIBRARY");
	struct search s = { .library = library, .root = root, .why = why };
	char path[sizeof(library->path)];

	why[0] = 0;
	if (wish && *wish) {
		s.how = "FARWARP_NATIVE_LIBRARY";
		if (load(wish, &s))
			return true;
		if (!s.used)
			say(&s, "FARWARP_NATIVE_LIBRARY: %s is farwarp's own library, not a driver's", wish);
		return false;
	}
	s.how = "the loader's cache";
	if (try_cache(&s))
		return true;
	for (size_t n = 0; n < sizeof(places) / sizeof(places[0]); n++) {
		s.how = places[n].how;
		snprintf(path, sizeof(path), "%s/%s", places[n].folder, NAME);
		if (try_path(path, &s))
			return true;
	}
	if (!s.used)
		say(&s, "there is no %s of an NVIDIA driver on this machine (the loader's cache and the usual folders were looked at; "
		    "FARWARP_NATIVE_LIBRARY names one elsewhere); farwarp doctor says more", NAME);
	return false;
}
