/*
 * The shared CUDA runtime from host C, beside the driver API: what the runtime allocates a kernel that the driver loads can use,
 * both see the same context, device, streams and errors. The same source for the runtimes of CUDA 12 and 13.
 */
#include "libs.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#define COUNT 5000

static const char ptx[] =
	".version 6.0\n"
	".target sm_50\n"
	".address_size 64\n"
	".visible .entry twice(.param .u64 out, .param .u64 in, .param .u32 n)\n"
	"{\n"
	"	.reg .pred %p;\n"
	"	.reg .f32 %f;\n"
	"	.reg .b32 %r<5>;\n"
	"	.reg .b64 %a<5>;\n"
	"	ld.param.u64 %a1, [out];\n"
	"	ld.param.u64 %a2, [in];\n"
	"	ld.param.u32 %r1, [n];\n"
	"	mov.u32 %r2, %ctaid.x;\n"
	"	mov.u32 %r3, %ntid.x;\n"
	"	mov.u32 %r4, %tid.x;\n"
	"	mad.lo.s32 %r2, %r2, %r3, %r4;\n"
	"	setp.ge.u32 %p, %r2, %r1;\n"
	"	@%p bra done;\n"
	"	mul.wide.u32 %a3, %r2, 4;\n"
	"	add.s64 %a2, %a2, %a3;\n"
	"	ld.global.f32 %f, [%a2];\n"
	"	add.f32 %f, %f, %f;\n"
	"	add.s64 %a1, %a1, %a3;\n"
	"	st.global.f32 [%a1], %f;\n"
	"done:\n"
	"	ret;\n"
	"}\n";

static void
properties(void)
{
	struct cudaDeviceProp about;
	char name[256];
	size_t total = 0, freed = 0, all = 0;
	int count = 0, major = 0;

	MUST(cudaGetDeviceCount(&count));
	CHECK(count >= 1, "%d devices", count);
	MUST(cudaSetDevice(0));
	MUST(cudaGetDeviceProperties(&about, 0));
	MUST(cuDeviceGetName(name, sizeof(name), 0));
	MUST(cuDeviceTotalMem(&total, 0));
	MUST(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
	MUST(cudaMemGetInfo(&freed, &all));
	CHECK(strcmp(name, about.name) == 0, "names %s and %s", name, about.name);
	CHECK(total == about.totalGlobalMem && total == all && freed <= all, "memory %zu, %zu, %zu", total, about.totalGlobalMem, all);
	CHECK(major == about.major && about.warpSize == 32, "capability %d, warps of %d", about.major, about.warpSize);
}

static void
kernel_of_the_driver(void)
{
	static float in[COUNT], out[COUNT];
	float *d_in, *d_out;
	unsigned n = COUNT;
	float elapsed = -1;
	CUmodule module;
	CUfunction twice;
	CUcontext context = NULL;
	cudaStream_t stream;
	cudaEvent_t before, after;

	MUST(cuCtxGetCurrent(&context));
	CHECK(context != NULL, "the runtime has made no context current");
	for (int i = 0; i < COUNT; i++)
		in[i] = (float)i;
	MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
	MUST(cudaEventCreate(&before));
	MUST(cudaEventCreate(&after));
	MUST(cudaMallocAsync((void **)&d_in, sizeof(in), stream));
	MUST(cudaMalloc((void **)&d_out, sizeof(out)));
	MUST(cuModuleLoadData(&module, ptx));
	MUST(cuModuleGetFunction(&twice, module, "twice"));
	void *parameters[] = { &d_out, &d_in, &n };
	MUST(cudaEventRecord(before, stream));
	MUST(cudaMemcpyAsync(d_in, in, sizeof(in), cudaMemcpyHostToDevice, stream));
	MUST(cuLaunchKernel(twice, (COUNT + 255) / 256, 1, 1, 256, 1, 1, 0, stream, parameters, NULL));
	MUST(cudaMemcpyAsync(out, d_out, sizeof(out), cudaMemcpyDeviceToHost, stream));
	MUST(cudaEventRecord(after, stream));
	MUST(cudaStreamSynchronize(stream));
	MUST(cudaEventElapsedTime(&elapsed, before, after));
	CHECK(elapsed >= 0 && elapsed < 60000, "%g ms", elapsed);
	for (int i = 0; i < COUNT; i++)
		CHECK(out[i] == 2 * in[i], "element %d is %g", i, out[i]);

	struct cudaPointerAttributes attributes;
	MUST(cudaPointerGetAttributes(&attributes, d_out));
	CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0, "type %d", attributes.type);
	MUST(cudaFreeAsync(d_in, stream));
	MUST(cudaFree(d_out));
	MUST(cudaStreamDestroy(stream));
	MUST(cudaEventDestroy(before));
	MUST(cudaEventDestroy(after));
	MUST(cuModuleUnload(module));
}

static void
errors(void)
{
	void *memory;
	int status = cudaMalloc(&memory, (size_t)1 << 60);

	CHECK(status == cudaErrorMemoryAllocation, "an impossible allocation: %d", status);
	CHECK(cudaGetLastError() == cudaErrorMemoryAllocation, "the last error is another");
	CHECK(cudaGetLastError() == cudaSuccess, "an error that is not sticky stays");
	status = cudaSetDevice(77);
	CHECK(status == cudaErrorInvalidDevice, "device 77: %d", status);
	(void)cudaGetLastError();
}

int
main(void)
{
	int runtime = 0, driver = 0;

	MUST(cudaRuntimeGetVersion(&runtime));
	MUST(cudaDriverGetVersion(&driver));
	printf("# runtime %d, driver %d\n", runtime, driver);
	CHECK(runtime == CUDART_VERSION, "built for %d", CUDART_VERSION);
	properties();
	kernel_of_the_driver();
	errors();
	MUST(cudaDeviceReset());
	properties();
	kernel_of_the_driver();
	return failures != 0;
}
