/*
 * Modules, libraries, functions, JIT options and the JIT linker of the software GPU, through the driver API.
 */
#include "lib.h"
#include "tap.h"
#include "tests/image/build.h"

#include <pthread.h>
#include <unistd.h>

#define HEAD ".version 7.5\n.target sm_75\n.address_size 64\n"

/* k1: p[tid] = g + i; k2 does nothing and has parameters of all kinds. */
static const char ptx[] = HEAD
	".visible .global .align 4 .u32 g = 40;\n"
	".global .align 8 .b8 hidden[24];\n"
	".visible .const .align 4 .f32 c[3] = {1.0, 2.0, 3.0};\n"
	".visible .entry k1(.param .u64 p, .param .u32 i)\n"
	"{\n"
	"	.reg .u32 %r<5>; .reg .u64 %rd<5>;\n"
	"	ld.param.u64 %rd1, [p]; cvta.to.global.u64 %rd1, %rd1;\n"
	"	ld.param.u32 %r1, [i]; ld.global.u32 %r2, [g]; add.u32 %r1, %r1, %r2;\n"
	"	mov.u32 %r3, %tid.x; mul.wide.u32 %rd2, %r3, 4; add.u64 %rd1, %rd1, %rd2;\n"
	"	st.global.u32 [%rd1], %r1; ret;\n"
	"}\n"
	".visible .entry k2(.param .u8 a, .param .align 8 .b8 b[12], .param .f64 c2, .param .u16 d)\n"
	".maxntid 128, 1, 1\n"
	"{\n"
	"	.shared .align 4 .b8 s[1000];\n"
	"	ret;\n"
	"}\n";

static CUcontext
start(void)
{
	CUcontext ctx = NULL;

	CHECK_INT(CU(cuInit)(0), CUDA_SUCCESS);
	CHECK_INT(CU(cuDevicePrimaryCtxRetain)(&ctx, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuCtxSetCurrent)(ctx), CUDA_SUCCESS);
	return ctx;
}

/* Launches k1 of one block of 8 and checks what it wrote. */
static void
launch_k1(CUfunction f, uint32_t i, uint32_t want)
{
	CUdeviceptr p = 0;
	uint32_t out[8] = { 0 };
	void *params[] = { &p, &i };

	CHECK_INT(CU(cuMemAlloc_v2)(&p, sizeof(out)), CUDA_SUCCESS);
	CHECK_INT(CU(cuLaunchKernel)(f, 1, 1, 1, 8, 1, 1, 0, NULL, params, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(out, p, sizeof(out)), CUDA_SUCCESS);
	CHECK_INT(out[0], want);
	CHECK_INT(out[7], want);
	CHECK_INT(CU(cuMemFree_v2)(p), CUDA_SUCCESS);
}

TEST(module_from_text)
{
	CUmodule module, same;
	CUfunction f, again, list[4] = { NULL };
	unsigned count = 0;
	const char *name = NULL;

	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetFunction)(&again, module, "k1"), CUDA_SUCCESS);
	CHECK(f == again);
	CHECK_INT(CU(cuModuleGetFunction)(&again, module, "k"), CUDA_ERROR_NOT_FOUND);
	CHECK_INT(CU(cuModuleGetFunction)(&again, module, NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleGetFunctionCount)(&count, module), CUDA_SUCCESS);
	CHECK_INT(count, 2);
	CHECK_INT(CU(cuModuleEnumerateFunctions)(list, 1, module), CUDA_SUCCESS);
	CHECK(list[0] && !list[1]);
	CHECK_INT(CU(cuModuleEnumerateFunctions)(list, 4, module), CUDA_SUCCESS);
	CHECK((list[0] == f || list[1] == f) && list[0] != list[1] && !list[2]);
	CHECK_INT(CU(cuFuncGetName)(&name, f), CUDA_SUCCESS);
	CHECK_STR(name, "k1");
	CHECK_INT(CU(cuFuncGetModule)(&same, f), CUDA_SUCCESS);
	CHECK(same == module);
	launch_k1(f, 2, 42);
	CHECK_INT(CU(cuModuleUnload)(module), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleUnload)(module), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuFuncGetName)(&name, f), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_ERROR_INVALID_HANDLE);
}

TEST(globals)
{
	CUmodule module;
	CUdeviceptr p = 0;
	CUfunction f;
	size_t size = 0;
	uint32_t value = 100;
	float c[3];

	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetGlobal_v2)(&p, &size, module, "g"), CUDA_SUCCESS);
	CHECK_INT(size, 4);
	CHECK_INT(CU(cuMemcpyHtoD_v2)(p, &value, 4), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_SUCCESS);
	launch_k1(f, 5, 105);
	CUdeviceptr base = 0;
	unsigned type = 0, managed = 1;
	CHECK_INT(CU(cuMemGetAddressRange_v2)(&base, &size, p + 3), CUDA_SUCCESS);
	CHECK(base == p && size == 4);
	CHECK_INT(CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p), CUDA_SUCCESS);
	CHECK_INT(CU(cuPointerGetAttribute)(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p), CUDA_SUCCESS);
	CHECK(type == CU_MEMORYTYPE_DEVICE && !managed);
	CHECK_INT(CU(cuModuleGetGlobal_v2)(&p, NULL, module, "c"), CUDA_SUCCESS);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(c, p, sizeof(c)), CUDA_SUCCESS);
	CHECK(c[0] == 1 && c[2] == 3);
	CHECK_INT(CU(cuModuleGetGlobal_v2)(NULL, &size, module, "hidden"), CUDA_SUCCESS);
	CHECK_INT(size, 24);
	CHECK_INT(CU(cuModuleGetGlobal_v2)(NULL, NULL, module, "g"), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleGetGlobal_v2)(&p, &size, module, "k1"), CUDA_ERROR_NOT_FOUND);
	CHECK_INT(CU(cuModuleGetGlobal_v2)(&p, &size, module, NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleGetTexRef)((CUtexref *)&p, module, "t"), CUDA_ERROR_NOT_FOUND);
	CHECK_INT(CU(cuModuleGetSurfRef)((CUsurfref *)&p, module, "t"), CUDA_ERROR_NOT_FOUND);
}

TEST(parameters_and_attributes)
{
	static const struct { size_t offset, size; } want[] = { { 0, 1 }, { 8, 12 }, { 24, 8 }, { 32, 2 } };
	CUmodule module;
	CUfunction f;
	size_t offset, size;
	int value = 0;

	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k2"), CUDA_SUCCESS);
	for (size_t i = 0; i < 4; i++) {
		CHECK_INT(CU(cuFuncGetParamInfo)(f, i, &offset, &size), CUDA_SUCCESS);
		CHECK_INT(offset, want[i].offset);
		CHECK_INT(size, want[i].size);
	}
	CHECK_INT(CU(cuFuncGetParamInfo)(f, 0, &offset, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncGetParamInfo)(f, 4, &offset, &size), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f), CUDA_SUCCESS);
	CHECK_INT(value, 128);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f), CUDA_SUCCESS);
	CHECK_INT(value, 1000);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_PTX_VERSION, f), CUDA_SUCCESS);
	CHECK_INT(value, 75);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, f), CUDA_SUCCESS);
	CHECK(value >= 16 && value <= 255);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, f), CUDA_SUCCESS);
	CHECK_INT(value, 49152 - 1000);
	for (int a = 0; a < CU_FUNC_ATTRIBUTE_MAX; a++)
		CHECK_INT(CU(cuFuncGetAttribute)(&value, (CUfunction_attribute)a, f), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX, f), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuFuncSetAttribute)(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60000), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, f), CUDA_SUCCESS);
	CHECK_INT(value, 60000);
	CHECK_INT(CU(cuFuncSetAttribute)(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuFuncSetAttribute)(f, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 101), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuFuncSetAttribute)(f, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncSetAttribute)(f, CU_FUNC_ATTRIBUTE_NUM_REGS, 50), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuFuncSetCacheConfig)(f, CU_FUNC_CACHE_PREFER_L1), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncSetCacheConfig)(f, (CUfunc_cache)9), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuFuncSetSharedMemConfig)(f, CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE), CUDA_SUCCESS);
	CUfunctionLoadingState state;
	CHECK_INT(CU(cuFuncLoad)(f), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncIsLoaded)(&state, f), CUDA_SUCCESS);
	CHECK_INT(state, CU_FUNCTION_LOADING_STATE_LOADED);
}

/* Loads with both log buffers and returns the result; the error log is left in `text`. */
static CUresult
load_logged(const void *image, char *text, size_t room, size_t *length)
{
	CUmodule module;
	char info[64];
	CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_INFO_LOG_BUFFER,
		CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_WALL_TIME, CU_JIT_MAX_REGISTERS };
	void *values[] = { text, (void *)room, info, (void *)sizeof(info), NULL, (void *)32 };

	CUresult result = CU(cuModuleLoadDataEx)(&module, image, 6, options, values);
	*length = (size_t)values[1];
	float ms;
	memcpy(&ms, &values[4], sizeof(ms));
	CHECK(ms >= 0 && ms < 60000);
	return result;
}

TEST(errors_have_a_line_and_a_reason)
{
	char text[512], small[16];
	size_t length = 0;

	start();
	CHECK_INT(load_logged(HEAD ".visible .entry k()\n{\n\tret\n}\n", text, sizeof(text), &length), CUDA_ERROR_INVALID_PTX);
	printf("# %s", text);
	CHECK(strstr(text, "line 6") || strstr(text, "line 7"));
	CHECK_INT(length, strlen(text));
	CHECK_INT(load_logged(HEAD ".visible .entry k()\n{\n\tmov.u32 %r1, %r2;\nret;\n}\n", text, sizeof(text), &length),
	          CUDA_ERROR_INVALID_PTX);
	CHECK(strstr(text, "line 6") && strstr(text, "%r"));
	CHECK_INT(load_logged(HEAD ".visible .entry k()\n{\n\tmov.u32 %r1, %r2;\nret;\n}\n", small, sizeof(small), &length),
	          CUDA_ERROR_INVALID_PTX);
	CHECK_INT(length, sizeof(small) - 1);
	CHECK_INT(strlen(small), sizeof(small) - 1);
	CHECK_INT(load_logged(ptx, text, sizeof(text), &length), CUDA_SUCCESS);
	CHECK_INT(length, 0);
	CHECK_STR(text, "");
	CHECK_INT(load_logged(".version 10.2\n.target sm_75\n.address_size 64\n", text, sizeof(text), &length),
	          CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
	CHECK(strstr(text, "10.2") && strstr(text, "9.9"));
	CHECK_INT(load_logged(".version 9.0\n.target sm_121a\n.address_size 64\n", text, sizeof(text), &length),
	          CUDA_ERROR_INVALID_PTX);
	CHECK(strstr(text, "sm_121a"));
	CHECK_INT(load_logged("hello", text, sizeof(text), &length), CUDA_ERROR_INVALID_IMAGE);
	CHECK_INT(load_logged("", text, sizeof(text), &length), CUDA_ERROR_INVALID_IMAGE);
}

TEST(bad_options)
{
	CUmodule module;
	CUjit_option unknown = (CUjit_option)99, level = CU_JIT_OPTIMIZATION_LEVEL, target = CU_JIT_TARGET;
	void *value = (void *)9;

	start();
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ptx, 1, &unknown, &value), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ptx, 1, &level, &value), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ptx, 1, NULL, &value), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, NULL, 0, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
	value = (void *)75;
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ptx, 1, &target, &value), CUDA_SUCCESS);
	value = (void *)70;
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ptx, 1, &target, &value), CUDA_ERROR_INVALID_PTX);
	value = (void *)121;
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ptx, 1, &target, &value), CUDA_ERROR_NO_BINARY_FOR_GPU);
}

static void
make_fatbin(struct blob *blob, int packing, int arch, const char *text)
{
	fatbin_begin(blob);
	fatbin_add(blob, &(struct entry){ .kind = 2, .arch = 86, .version = 18, .data = "\x7f" "ELF", .size = 4 });
	fatbin_add(blob, &(struct entry){ .kind = 1, .arch = arch, .version = 75, .packing = packing, .data = text,
	                                 .size = strlen(text) + 1 });
}

TEST(fat_binaries)
{
	CUmodule module;
	CUfunction f;
	char text[512];
	size_t length;

	start();
	for (int packing = 0; packing < 3; packing++) {
		struct blob blob = { 0 };
		make_fatbin(&blob, packing, 75, ptx);
		struct { uint32_t magic, version; const void *data, *more; } wrapper = { 0x466243b1, 1, blob.data, NULL };
		CHECK_INT(CU(cuModuleLoadFatBinary)(&module, blob.data), CUDA_SUCCESS);
		CHECK_INT(CU(cuModuleLoadData)(&module, &wrapper), CUDA_SUCCESS);
		memset(blob.data, 0, blob.size);
		CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_SUCCESS);
		launch_k1(f, 1, 41);
	}
	struct blob newer = { 0 }, cubin = { 0 }, damaged = { 0 };
	make_fatbin(&newer, 2, 120, ptx);
	CHECK_INT(load_logged(newer.data, text, sizeof(text), &length), CUDA_ERROR_NO_BINARY_FOR_GPU);
	CHECK(strstr(text, "sm_86") && strstr(text, "compute_120"));
	elf_build(&cubin, 0, 86);
	CHECK_INT(load_logged(cubin.data, text, sizeof(text), &length), CUDA_ERROR_NO_BINARY_FOR_GPU);
	CHECK(strstr(text, "machine code for sm_86"));
	make_fatbin(&damaged, 2, 75, ptx);
	damaged.data[damaged.size - 20] ^= 0x55;
	damaged.data[damaged.size - 60] ^= 0x55;
	CHECK(load_logged(damaged.data, text, sizeof(text), &length) != CUDA_SUCCESS);
}

TEST(files)
{
	CUmodule module;
	CUlibrary library;
	char path[] = "/tmp/farwarp-test-XXXXXX";

	start();
	int fd = mkstemp(path);
	CHECK(fd >= 0 && write(fd, ptx, sizeof(ptx) - 1) == (ssize_t)sizeof(ptx) - 1); /* without a NUL */
	CHECK_INT(CU(cuModuleLoad)(&module, path), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryLoadFromFile)(&library, path, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	CHECK(ftruncate(fd, 0) == 0);
	CHECK_INT(CU(cuModuleLoad)(&module, path), CUDA_ERROR_INVALID_IMAGE);
	unlink(path);
	close(fd);
	CHECK_INT(CU(cuModuleLoad)(&module, path), CUDA_ERROR_FILE_NOT_FOUND);
	CHECK_INT(CU(cuModuleLoad)(&module, "/"), CUDA_ERROR_FILE_NOT_FOUND);
	CHECK_INT(CU(cuModuleLoad)(&module, NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuLibraryLoadFromFile)(&library, path, NULL, NULL, 0, NULL, NULL, 0), CUDA_ERROR_FILE_NOT_FOUND);
}

TEST(library_kernels)
{
	CUlibrary library, same;
	CUkernel kernel, again, list[3] = { NULL };
	CUfunction f;
	CUmodule module;
	CUdeviceptr p;
	unsigned count = 0;
	size_t offset, size;
	int value = 0;
	const char *name = NULL;

	start();
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k1"), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetKernel)(&again, library, "k1"), CUDA_SUCCESS);
	CHECK(kernel == again);
	CHECK_INT(CU(cuLibraryGetKernel)(&again, library, "none"), CUDA_ERROR_NOT_FOUND);
	CHECK_INT(CU(cuLibraryGetKernelCount)(&count, library), CUDA_SUCCESS);
	CHECK_INT(count, 2);
	CHECK_INT(CU(cuLibraryEnumerateKernels)(list, 3, library), CUDA_SUCCESS);
	CHECK((list[0] == kernel || list[1] == kernel) && !list[2]);
	CHECK_INT(CU(cuKernelGetName)(&name, kernel), CUDA_SUCCESS);
	CHECK_STR(name, "k1");
	CHECK_INT(CU(cuKernelGetLibrary)(&same, kernel), CUDA_SUCCESS);
	CHECK(same == library);
	CHECK_INT(CU(cuKernelGetParamInfo)(kernel, 1, &offset, &size), CUDA_SUCCESS);
	CHECK(offset == 8 && size == 4);
	CHECK_INT(CU(cuKernelGetParamInfo)(kernel, 2, &offset, &size), CUDA_ERROR_INVALID_VALUE);
	launch_k1((CUfunction)kernel, 3, 43); /* a CUkernel as CUfunction */
	CHECK_INT(CU(cuKernelGetFunction)(&f, kernel), CUDA_SUCCESS);
	launch_k1(f, 4, 44);
	CHECK_INT(CU(cuFuncGetName)(&name, (CUfunction)kernel), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetGlobal)(&p, &size, library, "g"), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetManaged)(&p, &size, library, "g"), CUDA_ERROR_NOT_FOUND);
	CHECK_INT(CU(cuLibraryGetUnifiedFunction)((void **)&p, library, "k1"), CUDA_ERROR_NOT_FOUND);
	CHECK_INT(CU(cuLibraryGetModule)(&module, library), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleUnload)(module), CUDA_ERROR_NOT_PERMITTED);
	CHECK_INT(CU(cuKernelSetAttribute)(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 50000, kernel, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, f), CUDA_SUCCESS);
	CHECK_INT(value, 50000);
	CHECK_INT(CU(cuKernelGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, kernel, 7), CUDA_ERROR_INVALID_DEVICE);
	CHECK_INT(CU(cuLibraryUnload)(library), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryUnload)(library), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuKernelGetName)(&name, kernel), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuFuncGetName)(&name, f), CUDA_ERROR_INVALID_HANDLE);
}

TEST(library_is_lazy)
{
	static const char broken[] = HEAD ".visible .entry k()\n{\n\tmov.u32 %r1, %r2;\nret;\n}\n";
	CUlibrary library;
	CUkernel kernel;
	char text[256] = "";
	CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { text, (void *)sizeof(text) };

	start();
	CHECK_INT(CU(cuLibraryLoadData)(&library, broken, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k"), CUDA_ERROR_INVALID_PTX);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k"), CUDA_ERROR_INVALID_PTX);
	CHECK_INT(CU(cuLibraryUnload)(library), CUDA_SUCCESS);
	/* who passes log buffers is told at once */
	CHECK_INT(CU(cuLibraryLoadData)(&library, broken, options, values, 2, NULL, NULL, 0), CUDA_ERROR_INVALID_PTX);
	CHECK(strstr(text, "line 6") != NULL);
	/* a fat binary that has nothing for the device is refused at once */
	struct blob newer = { 0 };
	make_fatbin(&newer, 2, 121, ptx);
	CHECK_INT(CU(cuLibraryLoadData)(&library, newer.data, NULL, NULL, 0, NULL, NULL, 0), CUDA_ERROR_NO_BINARY_FOR_GPU);
}

TEST(library_is_eager_if_told)
{
	setenv("CUDA_MODULE_LOADING", "EAGER", 1);
	static const char broken[] = HEAD ".visible .entry k()\n{\n\tmov.u32 %r1, %r2;\nret;\n}\n";
	CUlibrary library;
	start();
	CHECK_INT(CU(cuLibraryLoadData)(&library, broken, NULL, NULL, 0, NULL, NULL, 0), CUDA_ERROR_INVALID_PTX);
}

TEST(library_copies_unless_preserved)
{
	struct blob blob = { 0 };
	CUlibrary library;
	CUkernel kernel;
	CUlibraryOption option = CU_LIBRARY_BINARY_IS_PRESERVED;
	void *no = NULL;

	start();
	make_fatbin(&blob, 1, 75, ptx);
	CHECK_INT(CU(cuLibraryLoadData)(&library, blob.data, NULL, NULL, 0, &option, &no, 1), CUDA_SUCCESS);
	memset(blob.data, 0, blob.size);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k1"), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, &option, NULL, 1), CUDA_SUCCESS); /* as cuBLASLt does */
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, NULL, NULL, 1), CUDA_ERROR_INVALID_VALUE);
	option = (CUlibraryOption)17;
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, &option, &no, 1), CUDA_ERROR_INVALID_VALUE);
}

TEST(library_outlives_a_reset)
{
	CUlibrary library;
	CUkernel kernel;
	CUdeviceptr p;
	CUfunction f;
	uint32_t value = 7;
	const char *name;

	start();
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k1"), CUDA_SUCCESS);
	CHECK_INT(CU(cuKernelGetFunction)(&f, kernel), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetGlobal)(&p, NULL, library, "g"), CUDA_SUCCESS);
	CHECK_INT(CU(cuMemcpyHtoD_v2)(p, &value, 4), CUDA_SUCCESS);
	launch_k1((CUfunction)kernel, 0, 7);
	CHECK_INT(CU(cuDevicePrimaryCtxReset_v2)(0), CUDA_SUCCESS);
	start();
	CHECK_INT(CU(cuFuncGetName)(&name, f), CUDA_ERROR_INVALID_HANDLE);
	launch_k1((CUfunction)kernel, 0, 40); /* the variable has its first value again */
	CHECK_INT(CU(cuLibraryUnload)(library), CUDA_SUCCESS);
}

TEST(library_in_two_contexts)
{
	CUlibrary library;
	CUkernel kernel;
	CUcontext first = start(), second;
	CUfunction f1, f2;
	CUdeviceptr p1, p2;

	CHECK_INT(CU(cuCtxCreate_v4)(&second, NULL, 0, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuCtxSetCurrent)(first), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k1"), CUDA_SUCCESS);
	CHECK_INT(CU(cuKernelGetFunction)(&f1, kernel), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetGlobal)(&p1, NULL, library, "g"), CUDA_SUCCESS);
	CHECK_INT(CU(cuCtxSetCurrent)(second), CUDA_SUCCESS);
	CHECK_INT(CU(cuKernelGetFunction)(&f2, kernel), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetGlobal)(&p2, NULL, library, "g"), CUDA_SUCCESS);
	CHECK(f1 != f2 && p1 != p2);
	launch_k1(f2, 1, 41);
	CHECK_INT(CU(cuLaunchKernel)(f1, 1, 1, 1, 1, 1, 1, 0, NULL, (void *[]){ &p1, &p1 }, NULL), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuCtxDestroy_v2)(second), CUDA_SUCCESS);
	CHECK_INT(CU(cuCtxSetCurrent)(first), CUDA_SUCCESS);
	launch_k1((CUfunction)kernel, 1, 41);
	CHECK_INT(CU(cuLibraryUnload)(library), CUDA_SUCCESS);
}

TEST(managed_before_any_context)
{
	static const char text[] = HEAD ".visible .global .attribute(.managed) .align 4 .u32 m = 5;\n"
		".visible .entry k() { .reg .u32 %r; ld.global.u32 %r, [m]; add.u32 %r, %r, 1; st.global.u32 [m], %r; ret; }\n";
	CUlibrary library;
	CUkernel kernel;
	CUdeviceptr p = 0;
	size_t size = 0;

	CHECK_INT(CU(cuInit)(0), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryLoadData)(&library, text, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryGetManaged)(&p, &size, library, "m"), CUDA_SUCCESS);
	CHECK_INT(size, 4);
	volatile uint32_t *m = (uint32_t *)(uintptr_t)p;
	CHECK_INT(*m, 5);
	*m = 10;
	start();
	unsigned managed = 0;
	void *host = NULL;
	CHECK_INT(CU(cuPointerGetAttribute)(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p), CUDA_SUCCESS);
	CHECK_INT(managed, 1);
	CHECK_INT(CU(cuPointerGetAttribute)(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, p), CUDA_SUCCESS);
	CHECK(host == (void *)(uintptr_t)p);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k"), CUDA_SUCCESS);
	CHECK_INT(CU(cuLaunchKernel)((CUfunction)kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_SUCCESS);
	CHECK_INT(*m, 11);
}

static const char caller[] = HEAD
	".extern .func (.param .b32 r) twice(.param .b32 x);\n"
	".extern .global .align 4 .u32 base;\n"
	".visible .entry k1(.param .u64 p, .param .u32 i)\n"
	"{\n"
	"	.reg .u32 %r<5>; .reg .u64 %rd<5>;\n"
	"	ld.param.u64 %rd1, [p]; cvta.to.global.u64 %rd1, %rd1; ld.param.u32 %r1, [i];\n"
	"	{ .param .b32 a; .param .b32 v; st.param.b32 [a], %r1; call (v), twice, (a); ld.param.b32 %r1, [v]; }\n"
	"	ld.global.u32 %r2, [base]; add.u32 %r1, %r1, %r2;\n"
	"	mov.u32 %r3, %tid.x; mul.wide.u32 %rd2, %r3, 4; add.u64 %rd1, %rd1, %rd2;\n"
	"	st.global.u32 [%rd1], %r1; ret;\n"
	"}\n";
static const char callee[] = HEAD
	".visible .global .align 4 .u32 base = 1000;\n"
	".visible .func (.param .b32 r) twice(.param .b32 x)\n"
	"{\n"
	"	.reg .u32 %r; ld.param.b32 %r, [x]; add.u32 %r, %r, %r; st.param.b32 [r], %r; ret;\n"
	"}\n";

TEST(linker)
{
	CUlinkState state;
	CUmodule module;
	CUfunction f;
	void *image = NULL;
	size_t size = 0;
	char path[] = "/tmp/farwarp-test-XXXXXX";
	struct blob fatbin = { 0 };

	start();
	CHECK_INT(CU(cuLinkCreate_v2)(0, NULL, NULL, &state), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, (void *)caller, sizeof(caller), "caller", 0, NULL, NULL), CUDA_SUCCESS);
	make_fatbin(&fatbin, 2, 75, callee);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_FATBINARY, fatbin.data, fatbin.size, NULL, 0, NULL, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_SUCCESS);
	CHECK(image && size > sizeof(caller) + sizeof(callee) - 2);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, (void *)callee, sizeof(callee), "x", 0, NULL, NULL),
	          CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuModuleLoadData)(&module, image), CUDA_SUCCESS);
	int fd = mkstemp(path);
	CHECK(write(fd, image, size) == (ssize_t)size);
	close(fd);
	CHECK_INT(CU(cuLinkDestroy)(state), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkDestroy)(state), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_SUCCESS);
	launch_k1(f, 21, 1042);
	/* what was linked can be linked again, from a file, beside something else */
	CHECK_INT(CU(cuLinkCreate_v2)(0, NULL, NULL, &state), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkAddFile_v2)(state, CU_JIT_INPUT_CUBIN, path, 0, NULL, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleLoadData)(&module, image), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkAddFile_v2)(state, CU_JIT_INPUT_PTX, "/none", 0, NULL, NULL), CUDA_ERROR_FILE_NOT_FOUND);
	CHECK_INT(CU(cuLinkDestroy)(state), CUDA_SUCCESS);
	unlink(path);
}

TEST(linker_takes_objects_and_archives)
{
	struct blob object = { 0 }, archive = { 0 };
	CUlinkState state;
	CUmodule module;
	CUfunction f;
	void *image;
	size_t size;

	start();
	object_build(&object, (const char *[]){ caller, callee }, 2);
	archive_begin(&archive);
	archive_add(&archive, &object);
	for (int archived = 0; archived < 2; archived++) {
		struct blob *input = archived ? &archive : &object;
		CHECK_INT(CU(cuLinkCreate_v2)(0, NULL, NULL, &state), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkAddData_v2)(state, archived ? CU_JIT_INPUT_LIBRARY : CU_JIT_INPUT_OBJECT, input->data, input->size, "o",
		                               0, NULL, NULL), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_SUCCESS);
		CHECK_INT(CU(cuModuleLoadData)(&module, image), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkDestroy)(state), CUDA_SUCCESS);
		CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_SUCCESS);
		launch_k1(f, 4, 1008);
	}
}

TEST(linker_errors)
{
	CUlinkState state;
	void *image;
	size_t size;
	char text[256] = "";
	CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { text, (void *)sizeof(text) };

	start();
	CHECK_INT(CU(cuLinkCreate_v2)(2, options, values, &state), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, (void *)"hello", 5, "greeting", 0, NULL, NULL), CUDA_ERROR_INVALID_PTX);
	CHECK(strstr(text, "greeting, line 1") != NULL);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, (void *)caller, sizeof(caller), "caller", 0, NULL, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_ERROR_NO_BINARY_FOR_GPU);
	CHECK(strstr(text, "undefined reference to function twice") != NULL);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, (void *)callee, sizeof(callee), "callee", 0, NULL, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, (void *)callee, sizeof(callee), "callee", 0, NULL, NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_ERROR_NO_BINARY_FOR_GPU); /* twice */
	CHECK((size_t)values[1] == strlen(text));
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_NVVM, (void *)callee, sizeof(callee), "n", 0, NULL, NULL),
	          CUDA_ERROR_NOT_SUPPORTED);
	CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_OBJECT, (void *)callee, sizeof(callee), "o", 0, NULL, NULL),
	          CUDA_ERROR_INVALID_IMAGE);
	CHECK_INT(CU(cuLinkAddData_v2)(state, (CUjitInputType)9, (void *)callee, sizeof(callee), "o", 0, NULL, NULL),
	          CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuLinkDestroy)(state), CUDA_SUCCESS);
}

TEST(jit_can_be_forbidden)
{
	CUmodule module;
	setenv("CUDA_DISABLE_PTX_JIT", "1", 1);
	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_ERROR_JIT_COMPILATION_DISABLED);
}

TEST(wrong_handles)
{
	CUmodule module;
	CUfunction f;
	CUkernel kernel;
	CUlibrary library;
	unsigned count;
	int value;
	void *image;
	size_t size;

	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k1"), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleGetFunction)(&f, (CUmodule)f, "k1"), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuModuleGetFunctionCount)(&count, NULL), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuLibraryGetKernel)(&kernel, (CUlibrary)module, "k1"), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuLibraryUnload)((CUlibrary)1), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuKernelGetFunction)(&f, (CUkernel)module), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuKernelGetLibrary)(&library, (CUkernel)&value), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuFuncGetAttribute)(&value, 0, (CUfunction)module), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuLinkComplete)((CUlinkState)module, &image, &size), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuCtxSetCurrent)(NULL), CUDA_SUCCESS);
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_ERROR_INVALID_CONTEXT);
}

static CUlibrary common;
static CUcontext common_ctx;

static void *
use_libraries(void *user)
{
	CUkernel kernel = NULL, own = NULL;
	CUlibrary library;

	CHECK_INT(CU(cuCtxSetCurrent)(common_ctx), CUDA_SUCCESS);
	for (int i = 0; i < 5; i++) {
		CHECK_INT(CU(cuLibraryGetKernel)(&kernel, common, "k1"), CUDA_SUCCESS);
		launch_k1((CUfunction)kernel, 2, 42);
		CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
		CHECK_INT(CU(cuLibraryGetKernel)(&own, library, "k1"), CUDA_SUCCESS);
		launch_k1((CUfunction)own, 3, 43);
		CHECK_INT(CU(cuLibraryUnload)(library), CUDA_SUCCESS);
	}
	*(CUkernel *)user = kernel;
	return NULL;
}

TEST(libraries_from_many_threads)
{
	pthread_t threads[6];
	CUkernel kernels[6];

	common_ctx = start();
	CHECK_INT(CU(cuLibraryLoadData)(&common, ptx, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	for (int i = 0; i < 6; i++)
		CHECK_INT(pthread_create(&threads[i], NULL, use_libraries, &kernels[i]), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	for (int i = 1; i < 6; i++)
		CHECK(kernels[i] == kernels[0]);
}

static CUresult in_callback[2];

static void
unload_in_callback(void *user)
{
	in_callback[0] = CU(cuModuleUnload)(((void **)user)[0]);
	in_callback[1] = CU(cuLibraryUnload)(((void **)user)[1]);
}

TEST(unload_in_a_callback_is_refused)
{
	CUmodule module;
	CUlibrary library;

	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), CUDA_SUCCESS);
	CHECK_INT(CU(cuLibraryLoadData)(&library, ptx, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
	void *both[] = { module, library };
	CHECK_INT(CU(cuLaunchHostFunc)(NULL, unload_in_callback, both), CUDA_SUCCESS);
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_SUCCESS);
	CHECK(in_callback[0] != CUDA_SUCCESS && in_callback[1] != CUDA_SUCCESS);
}

static size_t
resident_pages(void)
{
	size_t total = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file && fscanf(file, "%zu %zu", &total, &resident) != 2)
		resident = 0;
	if (file)
		fclose(file);
	return resident;
}

/* Each round makes about 3 MB of text, tree and variables; kept, they would show. */
TEST(nothing_is_left_behind)
{
#ifdef __SANITIZE_THREAD__
	SKIP("slow, and nothing for a thread checker");
#endif
	size_t room = 256 << 10, length = 0, before = 0;
	char *text = malloc(room);

	length += (size_t)snprintf(text, room, HEAD ".global .align 4 .b8 big[1048576] = {1};\n.visible .entry k()\n{\n.reg .u32 %%r<9>;\n");
	while (length < room - 64)
		length += (size_t)snprintf(text + length, 64, "add.u32 %%r1, %%r2, %%r3;\n");
	snprintf(text + length, 64, "ret; }\n");
	start();
	for (int round = 0; round < 120; round++) {
		CUmodule module;
		CUlibrary library;
		CUkernel kernel;
		CUfunction f;
		CUlinkState state;
		void *image;
		size_t size;
		CHECK_INT(CU(cuModuleLoadData)(&module, text), CUDA_SUCCESS);
		CHECK_INT(CU(cuModuleGetFunction)(&f, module, "k"), CUDA_SUCCESS);
		CHECK_INT(CU(cuLaunchKernel)(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_SUCCESS);
		CHECK_INT(CU(cuModuleUnload)(module), CUDA_SUCCESS); /* with the launch still on its way */
		CHECK_INT(CU(cuLibraryLoadData)(&library, text, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
		CHECK_INT(CU(cuLibraryGetKernel)(&kernel, library, "k"), CUDA_SUCCESS);
		CHECK_INT(CU(cuKernelGetFunction)(&f, kernel), CUDA_SUCCESS);
		CHECK_INT(CU(cuLibraryUnload)(library), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkCreate_v2)(0, NULL, NULL, &state), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkAddData_v2)(state, CU_JIT_INPUT_PTX, text, strlen(text), "t", 0, NULL, NULL), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkComplete)(state, &image, &size), CUDA_SUCCESS);
		CHECK_INT(CU(cuLinkDestroy)(state), CUDA_SUCCESS);
		if (round == 20)
			before = resident_pages();
	}
	size_t after = resident_pages();
	printf("# %zu pages after 20 rounds, %zu after 120\n", before, after);
	CHECK(after < before + 8192);
	free(text);
}

TEST_MAIN()
