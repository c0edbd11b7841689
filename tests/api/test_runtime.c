/*
 * NVIDIA's runtime library, of any major version that is installed, on this libcuda.so.1: start, memory, a kernel from a
 * registered fat binary, reset, and the start again. The fat binary is made here, with PTX of our own, so that no toolkit is
 * needed; the kernels of CUDA 11 come through a private table, those of later versions through cuLibraryLoadData.
 *
 * Which libraries: those of the colon-separated list CUDART, and what a toolkit in /usr/local/cuda has.
 */
#include "tap.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT 1000

static const char ptx[] =
	".version 6.4\n.target sm_75\n.address_size 64\n"
	".visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)\n"
	"{\n"
	"\t.reg .pred %p;\n\t.reg .b32 %r<6>;\n\t.reg .b64 %d<8>;\n\t.reg .f32 %f<4>;\n"
	"\tld.param.u64 %d1, [a];\n\tld.param.u64 %d2, [b];\n\tld.param.u64 %d3, [c];\n\tld.param.u32 %r1, [n];\n"
	"\tmov.u32 %r2, %ctaid.x;\n\tmov.u32 %r3, %ntid.x;\n\tmov.u32 %r4, %tid.x;\n"
	"\tmad.lo.u32 %r5, %r2, %r3, %r4;\n\tsetp.ge.u32 %p, %r5, %r1;\n\t@%p ret;\n"
	"\tmul.wide.u32 %d4, %r5, 4;\n\tadd.u64 %d5, %d1, %d4;\n\tadd.u64 %d6, %d2, %d4;\n\tadd.u64 %d7, %d3, %d4;\n"
	"\tld.global.f32 %f1, [%d5];\n\tld.global.f32 %f2, [%d6];\n\tadd.f32 %f3, %f1, %f2;\n\tst.global.f32 [%d7], %f3;\n"
	"\tret;\n}\n";

static struct {
	struct {
		uint32_t magic;
		uint16_t version, header_bytes;
		uint64_t bytes;
	} header;
	struct {
		uint16_t kind, version;
		uint32_t header_bytes;
		uint64_t payload_bytes;
		uint32_t compressed_bytes, options;
		uint16_t minor, major;
		uint32_t arch, name_offset, name_bytes;
		uint64_t flags, zero, plain_bytes;
	} entry;
	char payload[(sizeof(ptx) + 7) / 8 * 8];
} fatbin = {
	{ 0xba55ed50, 1, 16, sizeof(fatbin) - 16 },
	{ 1, 0x0101, 64, sizeof(fatbin.payload), 0, 0, 4, 6, 75, 0, 0, 0x11, 0, 0 },
	"",
};

static struct {
	uint32_t magic, version;
	const void *data, *files;
} wrapper = { 0x466243b1, 1, &fatbin, NULL };

struct dim { unsigned x, y, z; };

/* What is used of the runtime, with its own types where they are passed by value. */
struct runtime {
	void *library;
	void **(*register_fatbin)(void *wrapper);
	void (*register_fatbin_end)(void **handle);
	void (*register_function)(void **handle, const char *stub, char *name, const char *device_name, int limit, void *tid,
	                          void *bid, void *block, void *grid, int *warp);
	int (*count)(int *count);
	int (*version)(int *version);
	int (*alloc)(void **pointer, size_t size);
	int (*release)(void *pointer);
	int (*copy)(void *to, const void *from, size_t size, int kind);
	int (*launch)(const void *stub, struct dim grid, struct dim block, void **args, size_t shared, void *stream);
	int (*synchronize)(void);
	int (*reset)(void);
};

static void
load(struct runtime *runtime, const char *path)
{
	static const struct { const char *name; size_t offset; } rows[] = {
		{ "__cudaRegisterFatBinary", offsetof(struct runtime, register_fatbin) },
		{ "__cudaRegisterFatBinaryEnd", offsetof(struct runtime, register_fatbin_end) },
		{ "__cudaRegisterFunction", offsetof(struct runtime, register_function) },
		{ "cudaGetDeviceCount", offsetof(struct runtime, count) },
		{ "cudaRuntimeGetVersion", offsetof(struct runtime, version) },
		{ "cudaMalloc", offsetof(struct runtime, alloc) },
		{ "cudaFree", offsetof(struct runtime, release) },
		{ "cudaMemcpy", offsetof(struct runtime, copy) },
		{ "cudaLaunchKernel", offsetof(struct runtime, launch) },
		{ "cudaDeviceSynchronize", offsetof(struct runtime, synchronize) },
		{ "cudaDeviceReset", offsetof(struct runtime, reset) },
	};

	runtime->library = dlopen(path, RTLD_NOW);
	if (!runtime->library) {
		printf("# %s\n", dlerror());
		exit(1);
	}
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		void *symbol = dlsym(runtime->library, rows[i].name);
		if (!symbol) {
			printf("# %s has no %s\n", path, rows[i].name);
			exit(1);
		}
		memcpy((char *)runtime + rows[i].offset, &symbol, sizeof(symbol));
	}
}

static void
stub(void)
{
}

static void
add_vectors(const struct runtime *runtime)
{
	static float a[COUNT], b[COUNT], c[COUNT];
	void *da, *db, *dc;
	int count = COUNT, wrong = 0;

	for (int i = 0; i < COUNT; i++) {
		a[i] = (float)i;
		b[i] = (float)(2 * i);
		c[i] = -1;
	}
	CHECK_INT(runtime->alloc(&da, sizeof(a)), 0);
	CHECK_INT(runtime->alloc(&db, sizeof(b)), 0);
	CHECK_INT(runtime->alloc(&dc, sizeof(c)), 0);
	CHECK_INT(runtime->copy(da, a, sizeof(a), 1), 0);
	CHECK_INT(runtime->copy(db, b, sizeof(b), 1), 0);
	void *args[] = { &da, &db, &dc, &count };
	CHECK_INT(runtime->launch((const void *)stub, (struct dim){ 8, 1, 1 }, (struct dim){ 128, 1, 1 }, args, 0, NULL), 0);
	CHECK_INT(runtime->synchronize(), 0);
	CHECK_INT(runtime->copy(c, dc, sizeof(c), 2), 0);
	for (int i = 0; i < COUNT; i++)
		wrong += c[i] != (float)(3 * i);
	CHECK_INT(wrong, 0);
	CHECK_INT(runtime->release(da), 0);
	CHECK_INT(runtime->release(db), 0);
	CHECK_INT(runtime->release(dc), 0);
}

static int
run(const char *path)
{
	int status = 0;

	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		struct runtime runtime;
		int count = 0, version = 0;
		load(&runtime, path);
		memcpy(fatbin.payload, ptx, sizeof(ptx));
		void **handle = runtime.register_fatbin(&wrapper);
		runtime.register_function(handle, (const char *)stub, (char *)"add", "add", -1, NULL, NULL, NULL, NULL, NULL);
		runtime.register_fatbin_end(handle);
		CHECK_INT(runtime.version(&version), 0);
		CHECK_INT(runtime.count(&count), 0);
		CHECK_INT(count, 1);
		printf("# runtime %d from %s\n", version, path);
		add_vectors(&runtime);
		CHECK_INT(runtime.reset(), 0);
		add_vectors(&runtime);
		exit(tap_failures ? 1 : 0); /* with the runtime's exit handlers */
	}
	waitpid(child, &status, 0);
	return status;
}

TEST(runtimes)
{
	static const char toolkit[] = "/usr/local/cuda/lib64/libcudart.so.11.0:/usr/local/cuda/lib64/libcudart.so.12:"
	                              "/usr/local/cuda/lib64/libcudart.so.13";
	const char *extra = getenv("CUDART");
	char list[4096];
	int tried = 0;

	snprintf(list, sizeof(list), "%s:%s", extra ? extra : "", getenv("FARWARP_NO_TOOLKIT") ? "" : toolkit);
	for (char *save, *path = strtok_r(list, ":", &save); path; path = strtok_r(NULL, ":", &save)) {
		if (access(path, R_OK) != 0)
			continue;
		tried++;
		int status = run(path);
		if (status != 0)
			printf("# %s: status %#x\n", path, (unsigned)status);
		CHECK_INT(status, 0);
	}
	if (!tried)
		SKIP("no libcudart in /usr/local/cuda, none named by CUDART");
}

TEST_MAIN()
