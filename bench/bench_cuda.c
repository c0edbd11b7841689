/* The benchmarks through the CUDA driver API: bench_cuda KERNELS.ptx [NAME]. Runs on farwarp and on a real driver. */
#include "bench.h"
#include "examples/driver.h"

static CUmodule module;

static void *
cu_alloc(size_t bytes)
{
	return (void *)(uintptr_t)driver_alloc(bytes);
}

static void
cu_put(void *buffer, const void *data, size_t bytes)
{
	CU(cuMemcpyHtoD_v2((CUdeviceptr)(uintptr_t)buffer, data, bytes));
}

static void
cu_get(void *data, void *buffer, size_t bytes)
{
	CU(cuMemcpyDtoH_v2(data, (CUdeviceptr)(uintptr_t)buffer, bytes));
}

static void
cu_launch(const char *kernel, int gx, int gy, int bx, int by, int buffer_count, void **buffers, int int_count, const int *ints)
{
	static const char *last;
	static CUfunction function;
	void *params[8];
	int count = 0;

	if (last != kernel)
		function = driver_function(module, last = kernel);
	for (int i = 0; i < buffer_count; i++)
		params[count++] = &buffers[i];
	for (int i = 0; i < int_count; i++)
		params[count++] = (void *)&ints[i];
	CU(cuLaunchKernel(function, (unsigned)gx, (unsigned)gy, 1, (unsigned)bx, (unsigned)by, 1, 0, NULL, params, NULL));
}

static void
cu_finish(void)
{
	CU(cuCtxSynchronize());
}

int
main(int argc, char **argv)
{
	static char text[1 << 20];
	FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;

	if (!file || !fread(text, 1, sizeof(text) - 1, file)) {
		fprintf(stderr, "usage: bench_cuda KERNELS.ptx [NAME]\n");
		return 2;
	}
	fclose(file);
	module = driver_start(text);
	bench_main(&(struct device){ cu_alloc, cu_put, cu_get, cu_launch, cu_finish }, argc > 2 ? argv[2] : NULL);
	return 0;
}
