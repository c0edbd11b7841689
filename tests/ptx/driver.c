/*
 * The driver calls of these tests. See driver.h.
 */
#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct driver cu;
int cu_cc;

static const struct {
	const char *name;
	size_t offset;
	int optional;
} calls[] = {
#define CALL(field, symbol) { symbol, offsetof(struct driver, field), 0 }
#define CALL_OPTIONAL(field, symbol) { symbol, offsetof(struct driver, field), 1 }
	CALL(Init, "cuInit"),
	CALL(DeviceGet, "cuDeviceGet"),
	CALL(DeviceGetAttribute, "cuDeviceGetAttribute"),
	CALL(CtxCreate, "cuCtxCreate_v2"),
	CALL(CtxSynchronize, "cuCtxSynchronize"),
	CALL(ModuleLoadDataEx, "cuModuleLoadDataEx"),
	CALL(ModuleUnload, "cuModuleUnload"),
	CALL(ModuleGetFunction, "cuModuleGetFunction"),
	CALL(ModuleGetGlobal, "cuModuleGetGlobal_v2"),
	CALL(MemAlloc, "cuMemAlloc_v2"),
	CALL(MemFree, "cuMemFree_v2"),
	CALL(MemcpyHtoD, "cuMemcpyHtoD_v2"),
	CALL(MemcpyDtoH, "cuMemcpyDtoH_v2"),
	CALL(MemsetD8, "cuMemsetD8_v2"),
	CALL(FuncSetAttribute, "cuFuncSetAttribute"),
	CALL(LaunchKernel, "cuLaunchKernel"),
	CALL_OPTIONAL(LaunchKernelEx, "cuLaunchKernelEx"),
	CALL(LaunchCooperativeKernel, "cuLaunchCooperativeKernel"),
	CALL(GetErrorName, "cuGetErrorName"),
};

const char *
cu_name(int error)
{
	const char *name = NULL;
	static char number[32];

	if (cu.GetErrorName && cu.GetErrorName(error, &name) == 0 && name)
		return name;
	snprintf(number, sizeof number, "error %d", error);
	return number;
}

void
cu_need_level(void)
{
	const char *level = getenv("FARWARP_ISA");
	bool there = true;

#if defined(__x86_64__)
	__builtin_cpu_init();
	if (level && strcmp(level, "x86-64-v3") == 0)
		there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
	if (level && strcmp(level, "x86-64-v4") == 0)
		there = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
	if (!there) {
		printf("1..0 # SKIP this processor has no %s\n", level);
		exit(77);
	}
}

const char *
cu_open(void)
{
	static char why[256];
	const char *path = getenv("FARWARP_TEST_LIBCUDA");
	void *library = dlopen(path && *path ? path : "libcuda.so.1", RTLD_NOW);
	void *context;
	int error, device = 0, major = 0, minor = 0;

	if (!library) {
		snprintf(why, sizeof why, "%s", dlerror());
		return why;
	}
	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		void *symbol = dlsym(library, calls[i].name);
		if (!symbol && !calls[i].optional) {
			snprintf(why, sizeof why, "no symbol %s", calls[i].name);
			return why;
		}
		*(void **)((char *)&cu + calls[i].offset) = symbol;
	}
	if ((error = cu.Init(0)) || (error = cu.DeviceGet(&device, 0)) || (error = cu.DeviceGetAttribute(&major, 75, device)) ||
	    (error = cu.DeviceGetAttribute(&minor, 76, device)) || (error = cu.CtxCreate(&context, 0, device))) {
		snprintf(why, sizeof why, "start-up: %s", cu_name(error));
		return why;
	}
	cu_cc = major * 10 + minor;
	return NULL;
}

int
cu_load(void **module, const char *ptx, char *log, size_t log_size)
{
	int options[] = { 5, 6 }; /* error log buffer, its size */
	void *values[] = { log, (void *)log_size };

	log[0] = 0;
	return cu.ModuleLoadDataEx(module, ptx, 2, options, values);
}
