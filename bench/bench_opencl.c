/* The benchmarks through OpenCL, for PoCL: bench_opencl KERNELS.cl [NAME]. Takes the first CPU device. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "bench.h"

static cl_context context;
static cl_command_queue queue;
static cl_program program;

#define CL(call) cl_check(call, #call)

static void
cl_check(cl_int result, const char *call)
{
	if (result != CL_SUCCESS) {
		fprintf(stderr, "%s: OpenCL error %d\n", call, result);
		exit(1);
	}
}

static void *
ocl_alloc(size_t bytes)
{
	cl_int result;
	void *buffer = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &result);
	CL(result);
	return buffer;
}

static void
ocl_put(void *buffer, const void *data, size_t bytes)
{
	CL(clEnqueueWriteBuffer(queue, buffer, CL_TRUE, 0, bytes, data, 0, NULL, NULL));
}

static void
ocl_get(void *data, void *buffer, size_t bytes)
{
	CL(clEnqueueReadBuffer(queue, buffer, CL_TRUE, 0, bytes, data, 0, NULL, NULL));
}

static void
ocl_launch(const char *name, int gx, int gy, int bx, int by, int buffer_count, void **buffers, int int_count, const int *ints)
{
	static const char *last;
	static cl_kernel kernel;
	cl_int result;
	size_t local[2] = { (size_t)bx, (size_t)by }, global[2] = { (size_t)gx * (size_t)bx, (size_t)gy * (size_t)by };
	cl_uint count = 0;

	if (last != name) {
		kernel = clCreateKernel(program, last = name, &result);
		CL(result);
	}
	for (int i = 0; i < buffer_count; i++)
		CL(clSetKernelArg(kernel, count++, sizeof(cl_mem), &buffers[i]));
	for (int i = 0; i < int_count; i++)
		CL(clSetKernelArg(kernel, count++, sizeof(int), &ints[i]));
	CL(clEnqueueNDRangeKernel(queue, kernel, 2, NULL, global, local, 0, NULL, NULL));
}

static void
ocl_finish(void)
{
	CL(clFinish(queue));
}

int
main(int argc, char **argv)
{
	static char text[1 << 20];
	const char *source = text;
	cl_platform_id platform;
	cl_device_id device;
	cl_int result;
	char name[256];
	FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;

	if (!file || !fread(text, 1, sizeof(text) - 1, file)) {
		fprintf(stderr, "usage: bench_opencl KERNELS.cl [NAME]\n");
		return 2;
	}
	fclose(file);
	CL(clGetPlatformIDs(1, &platform, NULL));
	CL(clGetDeviceIDs(platform, CL_DEVICE_TYPE_CPU, 1, &device, NULL));
	CL(clGetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof(name), name, NULL));
	printf("device: %s\n", name);
	context = clCreateContext(NULL, 1, &device, NULL, NULL, &result);
	CL(result);
	queue = clCreateCommandQueue(context, device, 0, &result);
	CL(result);
	program = clCreateProgramWithSource(context, 1, &source, NULL, &result);
	CL(result);
	CL(clBuildProgram(program, 1, &device, "-cl-mad-enable", NULL, NULL));
	bench_main(&(struct device){ ocl_alloc, ocl_put, ocl_get, ocl_launch, ocl_finish }, argc > 2 ? argv[2] : NULL);
	return 0;
}
