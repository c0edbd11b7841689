/*
 * The dozen driver calls of tests/ptx, straight on the interpreter: every launch runs at once, on MINICUDA_THREADS threads (2). With it
 * the PTX tests run without the device, its streams and its client, and under the sanitizers of the interpreter alone.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <farwarp/cuda.h>

#include "soft/exec/exec.h"
#include "soft/space.h"

#define EXPORT __attribute__((visibility("default")))
#define MAX_THREADS 16

static CUresult sticky;
static struct sx_worker *workers[MAX_THREADS];

static uint32_t
setting(const char *name, uint32_t otherwise)
{
	const char *text = getenv(name);
	return text && *text ? (uint32_t)strtoul(text, NULL, 0) : otherwise;
}

EXPORT CUresult
cuInit(unsigned flags)
{
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuDeviceGet(CUdevice *device, int ordinal)
{
	*device = 0;
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
	int cc = (int)setting("MINICUDA_CC", 120);
	*value = (int)attribute == 75 ? cc / 10 : (int)attribute == 76 ? cc % 10 : 0;
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
	*context = NULL;
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuCtxSynchronize(void)
{
	fflush(stdout);
	return sticky;
}

EXPORT CUresult
cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values)
{
	struct sx_target target = { .cc = setting("MINICUDA_CC", 120), .sm_count = 4, .max_shared_block = 99 << 10 };
	struct ptx_error error = { 0 };
	struct ptx_module *parsed = ptx_parse(image, strlen(image), &error);
	struct sx_image *linked = parsed ? sx_image_link(&parsed, 1, &target, &error) : NULL;

	*module = (CUmodule)linked;
	if (!linked && count == 2)
		snprintf(values[0], (size_t)values[1], "line %d: %s", error.line, error.text);
	return linked ? CUDA_SUCCESS : CUDA_ERROR_INVALID_PTX;
}

EXPORT CUresult
cuModuleUnload(CUmodule module)
{
	sx_image_free((struct sx_image *)module);
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
	*function = (CUfunction)sx_image_find_kernel((struct sx_image *)module, name);
	return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult
cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *size, CUmodule module, const char *name)
{
	const struct sx_var *var = sx_image_find_var((struct sx_image *)module, name);
	if (!var)
		return CUDA_ERROR_NOT_FOUND;
	*address = var->address;
	if (size)
		*size = var->size;
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
	*address = (CUdeviceptr)(uintptr_t)sw_space_alloc(size, 256);
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuMemFree_v2(CUdeviceptr address)
{
	sw_space_free((void *)(uintptr_t)address);
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size)
{
	memcpy((void *)(uintptr_t)to, from, size);
	return sticky;
}

EXPORT CUresult
cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size)
{
	memcpy(to, (void *)(uintptr_t)from, size);
	return sticky;
}

EXPORT CUresult
cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t size)
{
	memset((void *)(uintptr_t)to, value, size);
	return sticky;
}

EXPORT CUresult
cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
	return CUDA_SUCCESS;
}

struct job {
	struct sx_grid *grid;
	struct sx_worker *worker;
	int *finished; /* atomic */
};

static void *
work(void *argument)
{
	struct job *job = argument;
	while (!__atomic_load_n(job->finished, __ATOMIC_ACQUIRE)) {
		enum sx_progress progress = sx_grid_work(job->grid, job->worker, 500);
		if (progress == SX_FINISHED)
			__atomic_store_n(job->finished, 1, __ATOMIC_RELEASE);
		if (progress == SX_NO_WORK)
			break;
	}
	return NULL;
}

static void
run(struct sx_grid *grid)
{
	uint32_t threads = setting("MINICUDA_THREADS", 2);
	pthread_t ids[MAX_THREADS];
	struct job jobs[MAX_THREADS];
	int finished = 0;

	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	for (uint32_t n = 0; n < threads; n++) {
		if (!workers[n])
			workers[n] = sx_worker_new();
		jobs[n] = (struct job){ grid, workers[n], &finished };
		if (n)
			pthread_create(&ids[n], NULL, work, &jobs[n]);
	}
	work(&jobs[0]);
	for (uint32_t n = 1; n < threads; n++)
		pthread_join(ids[n], NULL);
	if (!finished) {
		fprintf(stderr, "minicuda: the grid did not finish\n");
		abort();
	}
}

static CUresult
launch(CUfunction function, const unsigned shape[6], const unsigned cluster[3], unsigned shared, void **params, bool cooperative)
{
	struct sx_func *func = (struct sx_func *)function;
	const struct sx_func_info *info = sx_func_info(func);
	struct sx_launch l = { .func = func, .grid = { shape[0], shape[1], shape[2] }, .block = { shape[3], shape[4], shape[5] },
		.cluster = { cluster[0], cluster[1], cluster[2] }, .dynamic_shared = shared, .param_bytes = info->param_bytes,
		.cooperative = cooperative, .stack_bytes = 1024, .max_resident = 32 };
	uint8_t *bytes = calloc(1, info->param_bytes + 1);
	struct ptx_error error;

	if (sticky)
		return sticky;
	for (uint32_t n = 0; n < info->param_count; n++)
		memcpy(bytes + info->params[n].offset, params[n], info->params[n].size);
	l.params = bytes;
	if (sx_func_prepare(func, &error)) {
		fprintf(stderr, "minicuda: line %d: %s\n", error.line, error.text);
		free(bytes);
		return CUDA_ERROR_INVALID_PTX;
	}
	struct sx_grid *grid = sx_grid_new(&l);
	free(bytes);
	if (!grid)
		return CUDA_ERROR_OUT_OF_MEMORY;
	run(grid);
	const struct sx_fault *fault = sx_grid_fault(grid);
	if (fault) {
		fprintf(stderr, "minicuda: %s\n", fault->text);
		sticky = fault->code;
	}
	sx_grid_free(grid);
	return CUDA_SUCCESS;
}

EXPORT CUresult
cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
               CUstream stream, void **params, void **extra)
{
	const uint32_t *c = sx_func_info((struct sx_func *)function)->cluster;
	return launch(function, (unsigned[]){ gx, gy, gz, bx, by, bz },
	              (unsigned[]){ c[0] ? c[0] : 1, c[1] ? c[1] : 1, c[2] ? c[2] : 1 }, shared, params, false);
}

EXPORT CUresult
cuLaunchCooperativeKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, CUstream stream, void **params)
{
	return launch(function, (unsigned[]){ gx, gy, gz, bx, by, bz }, (unsigned[]){ 1, 1, 1 }, shared, params, true);
}

EXPORT CUresult
cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra)
{
	unsigned cluster[3] = { 1, 1, 1 };

	for (unsigned n = 0; n < config->numAttrs; n++)
		if ((int)config->attrs[n].id == 4)
			memcpy(cluster, &config->attrs[n].value, sizeof(cluster));
	return launch(function, (unsigned[]){ config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX, config->blockDimY,
		config->blockDimZ }, cluster, config->sharedMemBytes, params, false);
}

EXPORT CUresult
cuGetErrorName(CUresult error, const char **name)
{
	switch (error) {
#define NAME(id) case id: *name = #id; break;
	NAME(CUDA_SUCCESS) NAME(CUDA_ERROR_INVALID_PTX) NAME(CUDA_ERROR_NOT_FOUND) NAME(CUDA_ERROR_OUT_OF_MEMORY)
	NAME(CUDA_ERROR_ILLEGAL_ADDRESS) NAME(CUDA_ERROR_MISALIGNED_ADDRESS) NAME(CUDA_ERROR_LAUNCH_FAILED) NAME(CUDA_ERROR_ASSERT)
	NAME(CUDA_ERROR_ILLEGAL_INSTRUCTION) NAME(CUDA_ERROR_INVALID_PC) NAME(CUDA_ERROR_HARDWARE_STACK_ERROR)
	NAME(CUDA_ERROR_INVALID_ADDRESS_SPACE)
	default: return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}
