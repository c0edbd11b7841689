/*
 * Launches of the software GPU: what is refused and with which error, the forms of parameters, attributes, occupancy, limits and facts
 * of the device.
 */
#include "gpu.h"

#include <dirent.h>

TEST(bounds)
{
	CUfunction add, bounded;
	CUdeviceptr p = 0;
	uint32_t n = 0, v = 0;
	void *params[] = { &p, &n, &v };

	gpu_start();
	add = gpu_kernel("add");
	bounded = gpu_kernel("bounded");
	static const struct { unsigned grid[3], block[3]; CUresult want; } shapes[] = {
		{ { 1, 1, 1 }, { 1, 1, 1 }, CUDA_SUCCESS },
		{ { 1, 1, 1 }, { 1024, 1, 1 }, CUDA_SUCCESS },
		{ { 1, 1, 1 }, { 16, 1, 64 }, CUDA_SUCCESS },
		{ { 0, 1, 1 }, { 1, 1, 1 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 0, 1 }, { 1, 1, 1 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 1, 1 }, { 1, 1, 0 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 1, 1 }, { 1025, 1, 1 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 1, 1 }, { 1, 1, 65 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 1, 1 }, { 64, 32, 1 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 65536, 1 }, { 1, 1, 1 }, CUDA_ERROR_INVALID_VALUE },
		{ { 1, 1, 65536 }, { 1, 1, 1 }, CUDA_ERROR_INVALID_VALUE },
		{ { 0x80000000u, 1, 1 }, { 1, 1, 1 }, CUDA_ERROR_INVALID_VALUE },
	};
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		CHECK_INT(CU(cuLaunchKernel)(add, shapes[i].grid[0], shapes[i].grid[1], shapes[i].grid[2], shapes[i].block[0],
		                             shapes[i].block[1], shapes[i].block[2], 0, NULL, params, NULL), shapes[i].want);
	OK(gpu_launch(bounded, 1, 64, NULL, NULL));
	CHECK_INT(gpu_launch(bounded, 1, 65, NULL, NULL), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
	OK(CU(cuLaunchKernel)(add, 1, 1, 1, 1, 1, 1, 48 << 10, NULL, params, NULL));
	CHECK_INT(CU(cuLaunchKernel)(add, 1, 1, 1, 1, 1, 1, (48 << 10) + 1, NULL, params, NULL), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuFuncSetAttribute)(add, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 90 << 10));
	OK(CU(cuLaunchKernel)(add, 1, 1, 1, 1, 1, 1, 90 << 10, NULL, params, NULL));
	CHECK_INT(CU(cuFuncSetAttribute)(add, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200 << 10),
	          CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(gpu_launch(NULL, 1, 1, NULL, NULL), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(gpu_launch((CUfunction)(uintptr_t)0x12345, 1, 1, NULL, NULL), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(gpu_launch(add, 1, 1, (CUstream)(uintptr_t)0x12345, params), CUDA_ERROR_INVALID_HANDLE);
	OK(CU(cuCtxSynchronize)());
}

TEST(parameters)
{
	CUfunction add;
	CUdeviceptr p;
	uint32_t n = 4, v = 3, out[4] = { 0 };
	struct { CUdeviceptr p; uint32_t n, v; } all;
	size_t size = sizeof(all);

	gpu_start();
	add = gpu_kernel("add");
	OK(CU(cuMemAlloc_v2)(&p, 16));
	OK(CU(cuMemsetD32_v2)(p, 0, 4));
	void *params[] = { &p, &n, &v };
	OK(gpu_launch(add, 1, 32, NULL, params));
	all.p = p;
	all.n = n;
	all.v = 10;
	void *extra[] = { (void *)1, &all, (void *)2, &size, NULL };
	OK(CU(cuLaunchKernel)(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
	memset(&all, 0xff, sizeof(all)); /* taken at the call */
	OK(CU(cuMemcpyDtoH_v2)(out, p, 16));
	CHECK(out[0] == 13 && out[3] == 13);
	CHECK_INT(CU(cuLaunchKernel)(add, 1, 1, 1, 32, 1, 1, 0, NULL, params, extra), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuLaunchKernel)(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
	size = 12;
	CHECK_INT(CU(cuLaunchKernel)(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra), CUDA_ERROR_INVALID_VALUE);
	extra[2] = (void *)7;
	CHECK_INT(CU(cuLaunchKernel)(add, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra), CUDA_ERROR_INVALID_VALUE);
	struct { CUdeviceptr p; uint32_t words[998]; } large = { .p = p };
	large.words[997] = 4711;
	OK(gpu_launch(gpu_kernel("big"), 1, 1, NULL, (void *[]){ &large }));
	OK(CU(cuMemcpyDtoH_v2)(out, p, 4));
	CHECK_INT(out[0], 4711);
	OK(CU(cuMemsetD32_v2)(p, 13, 1));
	/* the interface of CUDA 3 */
	OK(CU(cuFuncSetBlockShape)(add, 32, 1, 1));
	OK(CU(cuParamSetv)(add, 0, &p, 8));
	OK(CU(cuParamSeti)(add, 8, 4));
	OK(CU(cuParamSeti)(add, 12, 100));
	OK(CU(cuParamSetSize)(add, 16));
	OK(CU(cuLaunchGrid)(add, 1, 1));
	OK(CU(cuMemcpyDtoH_v2)(out, p, 16));
	CHECK(out[0] == 113 && out[3] == 113);
}

TEST(attributes)
{
	CUfunction fill;
	CUdeviceptr p;
	CUevent event;
	uint32_t v = 5, out;

	gpu_start();
	fill = gpu_kernel("fill");
	OK(CU(cuMemAlloc_v2)(&p, 4));
	OK(CU(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING));
	void *params[] = { &p, &v };
	CUlaunchAttribute attributes[3] = { { .id = CU_LAUNCH_ATTRIBUTE_PRIORITY, .value = { .priority = -2 } },
		{ .id = CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT, .value = { .launchCompletionEvent = { event, 0 } } },
		{ .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = { .cooperative = 1 } } };
	CUlaunchConfig config = { 1, 1, 1, 1, 1, 1, 0, NULL, attributes, 3 };
	OK(CU(cuLaunchKernelEx)(&config, fill, params, NULL));
	OK(CU(cuEventSynchronize)(event));
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 5);
	config.gridDimX = 1 << 20;
	CHECK_INT(CU(cuLaunchKernelEx)(&config, fill, params, NULL), CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
	CHECK_INT(CU(cuLaunchCooperativeKernel)(fill, 1 << 20, 1, 1, 1, 1, 1, 0, NULL, params),
	          CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
	config.gridDimX = 4;
	attributes[2] = (CUlaunchAttribute){ .id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, .value = { .clusterDim = { 2, 1, 1 } } };
	CHECK_INT(CU(cuLaunchKernelEx)(&config, fill, params, NULL), CUDA_ERROR_INVALID_CLUSTER_SIZE); /* 8.6 has none */
	attributes[2].id = (CUlaunchAttributeID)99;
	CHECK_INT(CU(cuLaunchKernelEx)(&config, fill, params, NULL), CUDA_ERROR_INVALID_VALUE);
}

TEST(clusters)
{
	CUfunction fill;
	CUdeviceptr p;
	uint32_t v = 6, out;
	int clusters = 0, size = 0;

	setenv("FARWARP_SOFT_CC", "9.0", 1);
	gpu_start();
	fill = gpu_kernel("fill");
	OK(CU(cuMemAlloc_v2)(&p, 4));
	void *params[] = { &p, &v };
	CUlaunchAttribute attribute = { .id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, .value = { .clusterDim = { 4, 1, 1 } } };
	CUlaunchConfig config = { 8, 1, 1, 32, 1, 1, 0, NULL, &attribute, 1 };
	OK(CU(cuLaunchKernelEx)(&config, fill, params, NULL));
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 6);
	OK(CU(cuOccupancyMaxActiveClusters)(&clusters, fill, &config));
	CHECK(clusters >= 1);
	OK(CU(cuOccupancyMaxPotentialClusterSize)(&size, fill, &config));
	CHECK_INT(size, 8);
	config.gridDimX = 6;
	CHECK_INT(CU(cuLaunchKernelEx)(&config, fill, params, NULL), CUDA_ERROR_INVALID_CLUSTER_SIZE);
	config.gridDimX = 16;
	attribute.value.clusterDim.x = 16;
	CHECK_INT(CU(cuLaunchKernelEx)(&config, fill, params, NULL), CUDA_ERROR_INVALID_CLUSTER_SIZE);
	OK(CU(cuFuncSetAttribute)(fill, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
	OK(CU(cuLaunchKernelEx)(&config, fill, params, NULL));
	OK(CU(cuCtxSynchronize)());
}

TEST(occupancy)
{
	CUfunction add;
	int blocks, threads, per_sm, registers, sms, grid, block;
	size_t shared;

	gpu_start();
	add = gpu_kernel("add");
	OK(CU(cuDeviceGetAttribute)(&per_sm, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 0));
	OK(CU(cuDeviceGetAttribute)(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
	OK(CU(cuFuncGetAttribute)(&registers, CU_FUNC_ATTRIBUTE_NUM_REGS, add));
	CHECK(registers >= 1 && registers <= 255);
	CHECK_INT(per_sm, 1536); /* 8.6 */
	OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, add, 256, 0));
	CHECK_INT(blocks, 6);
	OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, add, 32, 0));
	CHECK_INT(blocks, 16);
	OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, add, 256, 24 << 10));
	CHECK_INT(blocks, 4); /* 100 KiB, 25 with what the system keeps */
	OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, add, 2048, 0));
	CHECK_INT(blocks, 0);
	CHECK_INT(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, add, 0, 0), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuOccupancyMaxPotentialBlockSize)(&grid, &block, add, NULL, 0, 0));
	OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&threads, add, block, 0));
	CHECK_INT(threads * block, per_sm);
	CHECK_INT(grid, threads * sms);
	OK(CU(cuOccupancyAvailableDynamicSMemPerBlock)(&shared, add, 4, 256));
	OK(CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&blocks, add, 256, shared));
	CHECK_INT(blocks, 4);
}

TEST(device_facts)
{
	char name[256], bus[32], again[4] = "xxx";
	int value, domain, pci_bus, pci_device, count;
	unsigned a, b, c;
	CUdevice device = 5;
	CUuuid uuid, other;

	gpu_start();
	OK(CU(cuDeviceGetCount)(&count));
	CHECK_INT(count, 1);
	OK(CU(cuDeviceGetName)(name, sizeof(name), 0));
	CHECK(strstr(name, "farwarp") != NULL);
	OK(CU(cuDeviceGetName)(again, sizeof(again), 0));
	CHECK_STR(again, "far");
	/* Every attribute is answered. */
	for (int i = 1; i < CU_DEVICE_ATTRIBUTE_MAX; i++)
			CHECK_INT(CU(cuDeviceGetAttribute)(&value, (CUdevice_attribute)i, 0), CUDA_SUCCESS);
	CHECK_INT(CU(cuDeviceGetAttribute)(&value, CU_DEVICE_ATTRIBUTE_MAX, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuDeviceGetAttribute)(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 1), CUDA_ERROR_INVALID_DEVICE);
	OK(CU(cuDeviceGetPCIBusId)(bus, sizeof(bus), 0));
	OK(CU(cuDeviceGetAttribute)(&domain, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 0));
	OK(CU(cuDeviceGetAttribute)(&pci_bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 0));
	OK(CU(cuDeviceGetAttribute)(&pci_device, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0));
	CHECK(sscanf(bus, "%x:%x:%x", &a, &b, &c) == 3 && (int)a == domain && (int)b == pci_bus && (int)c == pci_device);
	OK(CU(cuDeviceGetByPCIBusId)(&device, bus));
	CHECK_INT(device, 0);
	CHECK_INT(CU(cuDeviceGetByPCIBusId)(&device, "0000:01:00.0"), CUDA_ERROR_INVALID_DEVICE);
	OK(CU(cuDeviceGetUuid)(&uuid, 0));
	OK(CU(cuDeviceGetUuid_v2)(&other, 0));
	CHECK(memcmp(&uuid, &other, sizeof(uuid)) == 0);
}

TEST(limits)
{
	size_t value;

	gpu_start();
	OK(CU(cuCtxSetLimit)(CU_LIMIT_STACK_SIZE, 4000));
	OK(CU(cuCtxGetLimit)(&value, CU_LIMIT_STACK_SIZE));
	CHECK(value >= 4000 && value < 4096);
	OK(CU(cuCtxSetLimit)(CU_LIMIT_MALLOC_HEAP_SIZE, 1 << 20));
	OK(CU(cuCtxGetLimit)(&value, CU_LIMIT_MALLOC_HEAP_SIZE));
	CHECK_INT(value, 1 << 20);
	OK(CU(cuCtxGetLimit)(&value, CU_LIMIT_CIG_ENABLED));
	CHECK_INT(value, 0);
	CHECK_INT(CU(cuCtxGetLimit)(&value, (CUlimit)77), CUDA_ERROR_UNSUPPORTED_LIMIT);
	CHECK_INT(CU(cuCtxSetLimit)(CU_LIMIT_STACK_SIZE, (size_t)1 << 30), CUDA_ERROR_INVALID_VALUE);
}

/* Blocks count themselves, meet, and look whether all were counted, eight times; in between they meet once more. */
static const char meet_ptx[] =
	".version 6.0\n.target sm_60\n.address_size 64\n"
	".extern .func (.param .b64 h) cudaCGGetIntrinsicHandle(.param .b32 scope);\n"
	".extern .func (.param .b32 e) cudaCGSynchronize(.param .b64 h, .param .b32 flags);\n"
	".visible .entry meet(.param .u64 p)\n{\n"
	"	.reg .pred %q, %one; .reg .u32 %r<9>; .reg .u64 %rd<3>; .param .b32 scope, flags, e; .param .b64 h;\n"
	"	ld.param.u64 %rd1, [p]; mov.u32 %r7, 0; mov.u32 %r3, %nctaid.x; mov.u32 %r2, 0;\n"
	"	st.param.b32 [scope], 1; call.uni (h), cudaCGGetIntrinsicHandle, (scope); ld.param.b64 %rd2, [h];\n"
	"	mov.u32 %r1, %tid.x; setp.eq.u32 %one, %r1, 0;\n"
	"AGAIN:\n	add.u32 %r2, %r2, %r3;\n"
	"	@%one red.global.add.u32 [%rd1], 1;\n"
	"	st.param.b64 [h], %rd2; st.param.b32 [flags], 0;\n"
	"	call.uni (e), cudaCGSynchronize, (h, flags); ld.param.b32 %r4, [e];\n"
	"	setp.ne.u32 %q, %r4, 0; @%q bra NONE;\n"
	"	ld.volatile.global.u32 %r5, [%rd1]; setp.ne.u32 %q, %r5, %r2; @%q red.global.add.u32 [%rd1+4], 1;\n"
	"	st.param.b64 [h], %rd2; st.param.b32 [flags], 0;\n"
	"	call.uni (e), cudaCGSynchronize, (h, flags);\n"
	"	add.u32 %r7, %r7, 1; setp.lt.u32 %q, %r7, 8; @%q bra AGAIN;\n	ret;\n"
	"NONE:\n	red.global.add.u32 [%rd1+8], %r4;\n	ret;\n}\n";

TEST(device_runtime)
{
	CUmodule module;
	CUfunction meet;
	CUdeviceptr p;
	uint32_t out[3];

	gpu_start();
	OK(CU(cuModuleLoadData)(&module, meet_ptx));
	OK(CU(cuModuleGetFunction)(&meet, module, "meet"));
	OK(CU(cuMemAlloc_v2)(&p, 12));
	OK(CU(cuMemsetD32_v2)(p, 0, 3));
	OK(CU(cuLaunchCooperativeKernel)(meet, 7, 1, 1, 70, 1, 1, 0, NULL, (void *[]){ &p }));
	OK(CU(cuMemcpyDtoH_v2)(out, p, 12));
	CHECK_INT(out[0], 56);
	CHECK_INT(out[1], 0);
	CHECK_INT(out[2], 0);
	OK(gpu_launch(meet, 2, 32, NULL, (void *[]){ &p })); /* not cooperative: there is no grid to meet */
	OK(CU(cuMemcpyDtoH_v2)(out, p, 12));
	CHECK_INT(out[2], 64);
	OK(CU(cuModuleUnload)(module));
}

/* Block 0 stores a counter into all elements of a vector, block 1 looks for vectors whose elements differ. */
static const char whole_ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry whole(.param .u64 p)\n{\n"
	"	.reg .pred %q, %reader, %differ; .reg .u32 %r<9>; .reg .u64 %rd<4>;\n"
	"	ld.param.u64 %rd1, [p]; mov.u32 %r1, %ctaid.x; setp.eq.u32 %reader, %r1, 1; mov.u32 %r2, 0; mov.u32 %r8, 0;\n"
	"AGAIN:\n	add.u32 %r2, %r2, 1; @%reader bra READ;\n"
	"	cvt.u64.u32 %rd2, %r2;\n"
	"	st.relaxed.gpu.global.v2.u32 [%rd1], {%r2, %r2}; st.relaxed.gpu.global.v2.u64 [%rd1+16], {%rd2, %rd2};\n"
	"	st.volatile.global.v4.u32 [%rd1+32], {%r2, %r2, %r2, %r2};\n"
	"	bra NEXT;\n"
	"READ:\n"
	"	ld.relaxed.gpu.global.v2.u32 {%r3, %r4}, [%rd1]; setp.ne.u32 %differ, %r3, %r4; @%differ add.u32 %r8, %r8, 1;\n"
	"	ld.relaxed.gpu.global.v2.u64 {%rd2, %rd3}, [%rd1+16]; setp.ne.u64 %differ, %rd2, %rd3; @%differ add.u32 %r8, %r8, 1;\n"
	"	ld.volatile.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1+32]; setp.ne.u32 %differ, %r3, %r4; @%differ add.u32 %r8, %r8, 1;\n"
	"	setp.ne.u32 %differ, %r3, %r6; @%differ add.u32 %r8, %r8, 1;\n"
	"NEXT:\n	setp.lt.u32 %q, %r2, 100000; @%q bra AGAIN;\n"
	"	@%reader st.global.u32 [%rd1+48], %r8;\n	ret;\n}\n";

TEST(vectors_are_whole)
{
	CUmodule module;
	CUfunction whole;
	CUdeviceptr p;
	uint32_t torn = 1;

	gpu_start();
	OK(CU(cuModuleLoadData)(&module, whole_ptx));
	OK(CU(cuModuleGetFunction)(&whole, module, "whole"));
	OK(CU(cuMemAlloc_v2)(&p, 64));
	OK(CU(cuMemsetD32_v2)(p, 0, 16));
	OK(gpu_launch(whole, 2, 1, NULL, (void *[]){ &p }));
	OK(CU(cuMemcpyDtoH_v2)(&torn, p + 48, 4));
	CHECK_INT(torn, 0);
}

static int
thread_count(void)
{
	int count = 0;
	DIR *tasks = opendir("/proc/self/task");

	for (struct dirent *entry; tasks && (entry = readdir(tasks));)
		count += entry->d_name[0] != '.';
	if (tasks)
		closedir(tasks);
	return count;
}

TEST(threads_appear_when_needed)
{
	CUdeviceptr p;
	uint32_t v = 1;

	int before = thread_count();
	gpu_start();
	OK(CU(cuMemAlloc_v2)(&p, 64));
	OK(CU(cuMemcpyHtoD_v2)(p, &v, 4));
	CHECK_INT(thread_count(), before);
	OK(gpu_launch(gpu_kernel("fill"), 1, 1, NULL, (void *[]){ &p, &v }));
	OK(CU(cuCtxSynchronize)());
	CHECK(thread_count() > before);
}

TEST_MAIN()
