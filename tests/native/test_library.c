/*
 * Where the driver's library is looked for. LIBCUDA is our own library, FAKE_DRIVER one that is not ours; both are linked into roots made up
 * here.
 */
#include "tap.h"

#include <sys/stat.h>

#include "base/ldcache.h"
#include "native/native.h"
#include "tests/native/cache.h"

static char root[64], why[NV_WHY];
static struct nv_library library;

static void
begin(void)
{
	snprintf(root, sizeof(root), "/tmp/farwarp-native-XXXXXX");
	CHECK(mkdtemp(root) != NULL);
	unsetenv("FARWARP_NATIVE_LIBRARY");
	library = (struct nv_library){ 0 };
}

static void
end(void)
{
	const char *const arguments[] = { "rm", "-rf", root, NULL };
	if (fork() == 0) {
		execvp("rm", (char *const *)(uintptr_t)arguments);
		_exit(1);
	}
	int status;
	wait(&status);
}

static void
make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
}

/* A link below the root. */
static void
put(const char *where, const char *target)
{
	char path[512];

	snprintf(path, sizeof(path), "%s%s", root, where);
	make_folders(path);
	CHECK_INT(symlink(target, path), 0);
}

static void
put_cache(int old, const char *const (*pairs)[2], uint32_t count)
{
	uint8_t bytes[2048];
	char path[512];

	size_t size = cache_build(bytes, sizeof(bytes), old, pairs, count);
	snprintf(path, sizeof(path), "%s/etc/ld.so.cache", root);
	make_folders(path);
	FILE *file = fopen(path, "wb");
	CHECK(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static int
ends_with(const char *text, const char *end_)
{
	return strlen(text) >= strlen(end_) && strcmp(text + strlen(text) - strlen(end_), end_) == 0;
}

TEST(the_variable_decides)
{
	begin();
	put("/usr/lib64/libcuda.so.1", getenv("LIBCUDA"));
	setenv("FARWARP_NATIVE_LIBRARY", getenv("FAKE_DRIVER"), 1);
	CHECK(nv_library_open(&library, root, why));
	CHECK_STR(library.path, getenv("FAKE_DRIVER"));
	CHECK_STR(library.how, "FARWARP_NATIVE_LIBRARY");
	end();
}

TEST(a_variable_that_names_nothing_or_our_own_is_refused)
{
	begin();
	put("/usr/lib64/libcuda.so.1", getenv("FAKE_DRIVER"));
	setenv("FARWARP_NATIVE_LIBRARY", "/nowhere/libcuda.so.1", 1);
	CHECK(!nv_library_open(&library, root, why) && strstr(why, "/nowhere/libcuda.so.1"));
	setenv("FARWARP_NATIVE_LIBRARY", getenv("LIBCUDA"), 1);
	CHECK(!nv_library_open(&library, root, why) && strstr(why, "farwarp's own"));
	end();
}

TEST(the_cache_comes_before_the_folders)
{
	static const char *const pairs[][2] = { { "libc.so.6", "/lib/libc.so.6" }, { "libcuda.so.1", "/opt/a/libcuda.so.1" },
		{ "libcuda.so.1", "/opt/gone/libcuda.so.1" }, { "libcuda.so.1", "/opt/b/libcuda.so.1" } };

	for (int old = 0; old < 2; old++) {
		begin();
		put("/opt/a/libcuda.so.1", getenv("LIBCUDA")); /* ours is passed over, what is gone too */
		put("/opt/b/libcuda.so.1", getenv("FAKE_DRIVER"));
		put("/usr/lib/wsl/lib/libcuda.so.1", getenv("FAKE_DRIVER"));
		put_cache(old, pairs, 4);
		CHECK(nv_library_open(&library, root, why));
		CHECK(ends_with(library.path, "/opt/b/libcuda.so.1"));
		CHECK_STR(library.how, "the loader's cache");
		end();
	}
}

TEST(known_folders_in_their_order)
{
	begin();
	put("/usr/lib64/libcuda.so.1", getenv("FAKE_DRIVER"));
	CHECK(nv_library_open(&library, root, why) && ends_with(library.path, "/usr/lib64/libcuda.so.1"));
	put("/run/opengl-driver/lib/libcuda.so.1", getenv("FAKE_DRIVER"));
	CHECK(nv_library_open(&library, root, why) && ends_with(library.path, "/run/opengl-driver/lib/libcuda.so.1"));
	put("/usr/local/nvidia/lib64/libcuda.so.1", getenv("FAKE_DRIVER"));
	CHECK(nv_library_open(&library, root, why) && ends_with(library.path, "/usr/local/nvidia/lib64/libcuda.so.1"));
	put("/usr/lib/wsl/lib/libcuda.so.1", getenv("LIBCUDA"));
	CHECK(nv_library_open(&library, root, why) && ends_with(library.path, "/usr/local/nvidia/lib64/libcuda.so.1"));
	end();
}

TEST(what_does_not_load_is_named)
{
	begin();
	put("/usr/lib64/libcuda.so.1", "/etc/passwd");
	CHECK(!nv_library_open(&library, root, why) && strstr(why, "/usr/lib64/libcuda.so.1"));
	end();
	begin();
	CHECK(!nv_library_open(&library, root, why) && strstr(why, "no libcuda.so.1") && strstr(why, "farwarp doctor"));
	end();
}

static bool
count_path(const char *path, void *user)
{
	CHECK(path[0] == '/');
	++*(int *)user;
	return false;
}

TEST(a_cache_cut_at_every_byte)
{
	static const char *const pairs[][2] = { { "libcuda.so.1", "/opt/a/libcuda.so.1" }, { "libcuda.so.1", "/opt/b/libcuda.so.1" } };

	for (int old = 0; old < 2; old++) {
		uint8_t bytes[1024];
		size_t size = cache_build(bytes, sizeof(bytes), old, pairs, 2);
		for (size_t cut = 0; cut <= size; cut++) {
			uint8_t *copy = malloc(cut ? cut : 1); /* its end is where it is cut, for the sanitizer */
			int count = 0;
			memcpy(copy, bytes, cut);
			CHECK(!fw_ldcache_each(copy, cut, "libcuda.so.1", count_path, &count));
			CHECK_INT(count, cut == size ? 2 : count);
			CHECK(count <= 2);
			free(copy);
		}
	}
}

TEST_MAIN()
