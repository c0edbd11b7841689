/*
 * NVRTC: CUDA C++ is compiled at run time to PTX, loaded by the driver API with and without the linker, and run. A template,
 * a constant and a name that is asked for by its expression; what the compiler says of a wrong program.
 */
#include "libs.h"

#include <cuda.h>
#include <nvrtc.h>

#define COUNT 1000

static const char source[] =
	"template <typename T, int N> __global__ void scale(T *out, const T *in, T by, int n)\n"
	"{\n"
	"	int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
	"	if (i >= n)\n"
	"		return;\n"
	"	T sum = 0;\n"
	"	for (int k = 0; k < N; k++)\n"
	"		sum += in[(i + k) % n] * by;\n"
	"	out[i] = sum;\n"
	"}\n"
	"__constant__ int offset = 3;\n"
	"__device__ unsigned counter;\n"
	"extern \"C\" __global__ void count(int *out)\n"
	"{\n"
	"	__shared__ int sum;\n"
	"	if (threadIdx.x == 0)\n"
	"		sum = 0;\n"
	"	__syncthreads();\n"
	"	atomicAdd(&sum, (int)threadIdx.x + offset);\n"
	"	atomicInc(&counter, 0xffffffff);\n"
	"	__syncthreads();\n"
	"	if (threadIdx.x == 0)\n"
	"		out[blockIdx.x] = sum;\n"
	"}\n";

static char *
compile(const char *option, char *lowered, size_t lowered_size)
{
	static const char expression[] = "scale<float, 3>";
	const char *options[] = { option, "--std=c++17", "-default-device" };
	const char *name;
	nvrtcProgram program;
	size_t size = 0;

	MUST(nvrtcCreateProgram(&program, source, "kernels.cu", 0, NULL, NULL));
	MUST(nvrtcAddNameExpression(program, expression));
	int status = nvrtcCompileProgram(program, 3, options);
	if (status != 0) {
		MUST(nvrtcGetProgramLogSize(program, &size));
		char *log = calloc(size + 1, 1);
		nvrtcGetProgramLog(program, log);
		printf("# %s\n", log);
	}
	MUST(status);
	MUST(nvrtcGetLoweredName(program, expression, &name));
	snprintf(lowered, lowered_size, "%s", name);
	MUST(nvrtcGetPTXSize(program, &size));
	char *ptx = malloc(size);
	MUST(nvrtcGetPTX(program, ptx));
	MUST(nvrtcDestroyProgram(&program));
	return ptx;
}

static void
run(CUmodule module, const char *lowered)
{
	float in[COUNT], out[COUNT], by = 0.5f;
	int n = COUNT, sums[4];
	unsigned counter = 0;
	CUfunction scale, count;
	CUdeviceptr d_in, d_out, d_counter;
	size_t size = 0;

	MUST(cuModuleGetFunction(&scale, module, lowered));
	MUST(cuModuleGetFunction(&count, module, "count"));
	MUST(cuMemAlloc(&d_in, sizeof(in)));
	MUST(cuMemAlloc(&d_out, sizeof(out)));
	for (int i = 0; i < COUNT; i++)
		in[i] = (float)(i % 17);
	MUST(cuMemcpyHtoD(d_in, in, sizeof(in)));
	void *parameters[] = { &d_out, &d_in, &by, &n };
	MUST(cuLaunchKernel(scale, (COUNT + 127) / 128, 1, 1, 128, 1, 1, 0, NULL, parameters, NULL));
	MUST(cuMemcpyDtoH(out, d_out, sizeof(out)));
	for (int i = 0; i < COUNT; i++) {
		float wanted = (in[i] + in[(i + 1) % n] + in[(i + 2) % n]) * by;
		CHECK(out[i] == wanted, "element %d is %g instead of %g", i, out[i], wanted);
	}
	void *one[] = { &d_out };
	MUST(cuLaunchKernel(count, 4, 1, 1, 100, 1, 1, 0, NULL, one, NULL));
	MUST(cuMemcpyDtoH(sums, d_out, sizeof(sums)));
	for (int i = 0; i < 4; i++)
		CHECK(sums[i] == 100 * 99 / 2 + 300, "block %d counted %d", i, sums[i]);
	MUST(cuModuleGetGlobal(&d_counter, &size, module, "counter"));
	MUST(cuMemcpyDtoH(&counter, d_counter, sizeof(counter)));
	CHECK(size == 4 && counter == 400, "the counter of %zu bytes holds %u", size, counter);
	MUST(cuMemFree(d_in));
	MUST(cuMemFree(d_out));
}

static void
wrong_program(void)
{
	const char *option = "--gpu-architecture=compute_80";
	nvrtcProgram program;
	size_t size = 0;

	MUST(nvrtcCreateProgram(&program, "__global__ void f() { nonsense; }", "wrong.cu", 0, NULL, NULL));
	int status = nvrtcCompileProgram(program, 1, &option);
	CHECK(status == NVRTC_ERROR_COMPILATION, "a wrong program: %d", status);
	MUST(nvrtcGetProgramLogSize(program, &size));
	char *log = calloc(size + 1, 1);
	MUST(nvrtcGetProgramLog(program, log));
	CHECK(strstr(log, "nonsense") != NULL, "the log says: %s", log);
	free(log);
	MUST(nvrtcDestroyProgram(&program));
}

int
main(void)
{
	char option[64], lowered[200];
	int major = 0, minor = 0, version[2];
	CUdevice device;
	CUcontext context;
	CUmodule module;
	CUlinkState linker;
	void *image;
	size_t size = 0;

	MUST(cuInit(0));
	MUST(cuDeviceGet(&device, 0));
	MUST(cuDevicePrimaryCtxRetain(&context, device));
	MUST(cuCtxSetCurrent(context));
	MUST(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
	MUST(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
	MUST(nvrtcVersion(&version[0], &version[1]));
	printf("# NVRTC %d.%d, compute_%d%d\n", version[0], version[1], major, minor);
	snprintf(option, sizeof(option), "--gpu-architecture=compute_%d%d", major, minor);
	char *ptx = compile(option, lowered, sizeof(lowered));

	MUST(cuModuleLoadData(&module, ptx));
	run(module, lowered);
	MUST(cuModuleUnload(module));

	MUST(cuLinkCreate(0, NULL, NULL, &linker));
	MUST(cuLinkAddData(linker, CU_JIT_INPUT_PTX, ptx, strlen(ptx) + 1, "kernels", 0, NULL, NULL));
	MUST(cuLinkComplete(linker, &image, &size));
	MUST(cuModuleLoadData(&module, image));
	MUST(cuLinkDestroy(linker));
	run(module, lowered);
	MUST(cuModuleUnload(module));

	wrong_program();
	MUST(cuDevicePrimaryCtxRelease(device));
	return failures != 0;
}
