/*
 * The driver API for the examples: finds libcuda.so.1 as any CUDA program does, stops with a sentence on the first error.
 *
 * The examples need no CUDA toolkit: declarations come from <farwarp/cuda.h>, kernels are PTX text, and the same binaries run on
 * NVIDIA's driver and on farwarp.
 */
#ifndef EXAMPLES_DRIVER_H
#define EXAMPLES_DRIVER_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <farwarp/cuda.h>

#define DRIVER_CALLS(X) \
	X(cuInit) X(cuDeviceGet) X(cuDeviceGetName) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease_v2) X(cuCtxSetCurrent) \
	X(cuModuleLoadDataEx) X(cuModuleUnload) X(cuModuleGetFunction) X(cuMemAlloc_v2) X(cuMemFree_v2) X(cuMemcpyHtoD_v2) \
	X(cuMemcpyDtoH_v2) X(cuMemsetD32_v2) X(cuLaunchKernel) X(cuCtxSynchronize) X(cuGetErrorName) X(cuGetErrorString)
#define X(name) static __typeof__(&name) p_##name;
DRIVER_CALLS(X)
#undef X

#define CU(call) driver_check(p_##call, #call)

__attribute__((unused)) static void
driver_check(CUresult result, const char *call)
{
	const char *name = "?", *text = "?";
	if (result == CUDA_SUCCESS)
		return;
	p_cuGetErrorName(result, &name);
	p_cuGetErrorString(result, &text);
	fprintf(stderr, "%s: %s (%s)\n", call, name, text);
	exit(1);
}

/* Loads the driver, takes device 0 and its primary context, and compiles the PTX text. */
__attribute__((unused)) static CUmodule
driver_start(const char *ptx)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW);
	char name[128], log[2048] = "";
	CUdevice device;
	CUcontext context;
	CUmodule module;

	if (!library) {
		fprintf(stderr, "%s\nTry: farwarp run -- THIS PROGRAM\n", dlerror());
		exit(1);
	}
#define X(call) \
	p_##call = (__typeof__(p_##call))dlsym(library, #call); \
	if (!p_##call) { \
		fprintf(stderr, "libcuda.so.1 has no " #call "\n"); \
		exit(1); \
	}
	DRIVER_CALLS(X)
#undef X
	CU(cuInit(0));
	CU(cuDeviceGet(&device, 0));
	CU(cuDeviceGetName(name, sizeof(name), device));
	CU(cuDevicePrimaryCtxRetain(&context, device));
	CU(cuCtxSetCurrent(context));
	printf("device: %s\n", name);
	CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { log, (void *)(uintptr_t)sizeof(log) };
	CUresult result = p_cuModuleLoadDataEx(&module, ptx, 2, options, values);
	if (result != CUDA_SUCCESS)
		fprintf(stderr, "%s\n", log);
	driver_check(result, "cuModuleLoadDataEx");
	return module;
}

__attribute__((unused)) static CUfunction
driver_function(CUmodule module, const char *name)
{
	CUfunction function;
	CU(cuModuleGetFunction(&function, module, name));
	return function;
}

__attribute__((unused)) static CUdeviceptr
driver_alloc(size_t bytes)
{
	CUdeviceptr pointer;
	CU(cuMemAlloc_v2(&pointer, bytes));
	return pointer;
}

__attribute__((unused)) static double
seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints the verdict and is the exit code of main. */
__attribute__((unused)) static int
driver_verdict(const char *what, long wrong, double took)
{
	if (wrong)
		printf("%s: WRONG, %ld values differ from the CPU's\n", what, wrong);
	else
		printf("%s: right, in %.3f s\n", what, took);
	return wrong != 0;
}

#endif
