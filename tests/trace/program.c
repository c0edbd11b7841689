/*
 * A program to be traced: program MODE. It needs no toolkit and prints what it computed.
 *
 *   plain    a copy, a launch, a copy back, an error, a call that is not served, a private table
 *   wait     a host function of 1.5 s, and a synchronisation that lasts so long
 *   crash    the same, but the host function dies of SIGSEGV
 *   threads  four threads with a stream each
 *   memory   copies of all kinds, managed and pinned memory, a pointer in device memory
 *   graph    a graph made by hand: kernels, memory of its own, a host function, a copy to pinned memory; and one that is changed
 *   exit N   nothing of CUDA, exit code N
 *   load F   opens the library F, calls nothing of it, and ends 0.5 s later
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <farwarp/cuda.h>

#define CALLS(X) \
	X(cuInit) X(cuDeviceGet) X(cuDevicePrimaryCtxRetain) X(cuCtxSetCurrent) X(cuModuleLoadData) X(cuModuleGetFunction) X(cuMemAlloc_v2) \
	X(cuMemFree_v2) X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2) X(cuMemcpyHtoDAsync_v2) X(cuMemcpyDtoHAsync_v2) X(cuLaunchKernel) \
	X(cuStreamCreate) X(cuStreamSynchronize) X(cuStreamDestroy_v2) X(cuLaunchHostFunc) X(cuCtxSynchronize) X(cuMemAllocPitch_v2) \
	X(cuMemcpy2D_v2) X(cuMemAllocHost_v2) X(cuMemFreeHost) X(cuMemHostGetDevicePointer_v2) X(cuMemAllocManaged) X(cuGetProcAddress_v2) \
	X(cuGetExportTable) X(cuMulticastAddDevice) X(cuMemsetD32_v2) X(cuMemcpy) X(cuModuleGetGlobal_v2) X(cuModuleUnload) X(cuEventCreate) \
	X(cuEventRecord) X(cuEventSynchronize) X(cuEventElapsedTime) X(cuLaunchKernelEx) X(cuEventQuery) \
	X(cuGraphCreate) X(cuGraphAddKernelNode_v2) X(cuGraphAddMemcpyNode) X(cuGraphAddHostNode) X(cuGraphAddMemAllocNode) \
	X(cuGraphAddMemFreeNode) X(cuGraphInstantiateWithFlags) X(cuGraphExecKernelNodeSetParams_v2) X(cuGraphLaunch) X(cuGraphDestroy) \
	X(cuGraphExecDestroy)
#define X(name) static __typeof__(&name) p_##name;
CALLS(X)
#undef X

#define CU(call) check(p_##call, #call)

static void
check(CUresult result, const char *call)
{
	if (result == CUDA_SUCCESS)
		return;
	fprintf(stderr, "%s: %d\n", call, (int)result);
	exit(1);
}

/* add(out, in, n): out[i] = in[i] + 1. follow(p): writes 7 through the pointer that lies at p. */
static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .global .align 8 .b64 where;\n"
	".visible .entry add(.param .u64 po, .param .u64 pi, .param .u32 pn)\n{\n"
	"	.reg .pred %p; .reg .b32 %r<5>; .reg .b64 %d<4>;\n"
	"	ld.param.u64 %d1, [po]; ld.param.u64 %d2, [pi]; ld.param.u32 %r1, [pn];\n"
	"	mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r2, %r2, %r3, %r4;\n"
	"	setp.ge.u32 %p, %r2, %r1; @%p bra END;\n"
	"	mul.wide.u32 %d3, %r2, 4; add.s64 %d1, %d1, %d3; add.s64 %d2, %d2, %d3;\n"
	"	ld.global.u32 %r3, [%d2]; add.u32 %r3, %r3, 1; st.global.u32 [%d1], %r3;\n"
	"END:	ret;\n}\n"
	".visible .entry follow(.param .u64 pp)\n{\n"
	"	.reg .b32 %r<2>; .reg .b64 %d<4>;\n"
	"	ld.param.u64 %d1, [pp]; ld.global.u64 %d2, [%d1]; mov.u32 %r1, 7; st.global.u32 [%d2], %r1;\n"
	"	ld.global.u64 %d3, [where]; st.global.u32 [%d3], %r1; ret;\n}\n";

enum { N = 1000 };
static CUcontext context;
static CUmodule module;
static CUfunction add, follow;

static void
start(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW);
	CUdevice device;

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
#define X(name) \
	if (!(p_##name = (__typeof__(p_##name))dlsym(library, #name))) { \
		fprintf(stderr, "no %s\n", #name); \
		exit(1); \
	}
	CALLS(X)
#undef X
	CU(cuInit(0));
	CU(cuDeviceGet(&device, 0));
	CU(cuDevicePrimaryCtxRetain(&context, device));
	CU(cuCtxSetCurrent(context));
	CU(cuModuleLoadData(&module, ptx));
	CU(cuModuleGetFunction(&add, module, "add"));
	CU(cuModuleGetFunction(&follow, module, "follow"));
}

static unsigned
sum(const unsigned *values)
{
	unsigned total = 0;

	for (int i = 0; i < N; i++)
		total += values[i];
	return total;
}

static void
fill(unsigned *values, unsigned first)
{
	for (unsigned i = 0; i < N; i++)
		values[i] = first + i;
}

static void
plain(void)
{
	static unsigned values[N];
	CUdeviceptr in, out;
	unsigned n = N;
	void *function = NULL;
	const void *table = NULL;
	CUuuid none = { "no table at all" };
	CUuuid tools = { { 0x42, (char)0xd8, 0x5a, (char)0x81, 0x23, (char)0xf6, (char)0xcb, 0x47, (char)0x82, (char)0x98, (char)0xf6, (char)0xe7,
	                   (char)0x8a, 0x3a, (char)0xec, (char)0xdc } };
	CUcontext current = NULL;

	fill(values, 5);
	CU(cuMemAlloc_v2(&in, sizeof(values)));
	CU(cuMemAlloc_v2(&out, sizeof(values)));
	CU(cuMemcpyHtoD_v2(in, values, sizeof(values)));
	CU(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, NULL, (void *[]){ &out, &in, &n }, NULL));
	CU(cuMemcpyDtoH_v2(values, out, sizeof(values)));
	printf("plain %u\n", sum(values));
	printf("free of nothing %d\n", (int)p_cuMemFree_v2(12345));
	printf("not served %d\n", (int)p_cuMulticastAddDevice(0, 0));
	CU(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, NULL));
	CU(cuGetProcAddress_v2("cuNoSuchCall", &function, 12000, 0, NULL));
	p_cuGetExportTable(&table, &none);
	if (p_cuGetExportTable(&table, &tools) == CUDA_SUCCESS)
		((CUresult(*)(CUcontext *))((void *const *)table)[2])(&current);
	printf("current %d\n", current == context);
	CU(cuMemFree_v2(in));
	CU(cuMemFree_v2(out));
}

static void
nap(void *user)
{
	usleep(1500000);
}

static void
die(void *user)
{
	usleep(200000);
	raise(SIGSEGV);
}

static void
wait_for(CUhostFn function)
{
	CUstream stream;

	CU(cuStreamCreate(&stream, 0));
	CU(cuLaunchHostFunc(stream, function, NULL));
	CU(cuStreamSynchronize(stream));
	CU(cuStreamDestroy_v2(stream));
}

static void *
thread_main(void *argument)
{
	unsigned first = (unsigned)(uintptr_t)argument, n = N, values[N];
	CUdeviceptr in, out;
	CUstream stream;

	CU(cuCtxSetCurrent(context));
	CU(cuStreamCreate(&stream, 1));
	CU(cuMemAlloc_v2(&in, sizeof(values)));
	CU(cuMemAlloc_v2(&out, sizeof(values)));
	for (int round = 0; round < 20; round++) {
		fill(values, first + (unsigned)round);
		CU(cuMemcpyHtoDAsync_v2(in, values, sizeof(values), stream));
		CU(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, stream, (void *[]){ &out, &in, &n }, NULL));
		CU(cuMemcpyDtoHAsync_v2(values, out, sizeof(values), stream));
		CU(cuStreamSynchronize(stream));
		if (values[N - 1] != first + (unsigned)round + N)
			exit(3);
	}
	CU(cuStreamDestroy_v2(stream));
	CU(cuMemFree_v2(in));
	CU(cuMemFree_v2(out));
	return NULL;
}

static void
threads(void)
{
	pthread_t ids[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&ids[i], NULL, thread_main, (void *)(i * 1000));
	for (int i = 0; i < 4; i++)
		pthread_join(ids[i], NULL);
	printf("threads done\n");
}

static void
memory(void)
{
	static unsigned values[N], back[N];
	CUdeviceptr in, out, target, cell, pitched, where;
	size_t pitch, bytes;
	unsigned n = N, *pinned, result = 0;
	CUevent before, after;
	float ms;

	CU(cuEventCreate(&before, 0));
	CU(cuEventCreate(&after, 0));
	CU(cuEventRecord(before, NULL));
	/* A pointer in device memory, and one in a variable of the module. */
	CU(cuMemAlloc_v2(&target, 8));
	CU(cuMemAlloc_v2(&cell, 8));
	CU(cuMemsetD32_v2(target, 1, 2));
	CU(cuMemcpyHtoD_v2(cell, &target, sizeof(target)));
	CUdeviceptr second = target + 4;
	CU(cuModuleGetGlobal_v2(&where, &bytes, module, "where"));
	CU(cuMemcpyHtoD_v2(where, &second, sizeof(second)));
	CU(cuLaunchKernel(follow, 1, 1, 1, 1, 1, 1, 0, NULL, (void *[]){ &cell }, NULL));
	CU(cuMemcpyDtoH_v2(back, target, 8));
	printf("through pointers %u %u\n", back[0], back[1]);
	/* Rows with a pitch, a copy whose direction the driver finds out, a launch by its other name with a buffer of parameters. */
	fill(values, 100);
	CU(cuMemAlloc_v2(&in, sizeof(values)));
	CU(cuMemAlloc_v2(&out, sizeof(values)));
	CU(cuMemAllocPitch_v2(&pitched, &pitch, 40, 25 * 4, 4));
	CUDA_MEMCPY2D to = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = values, .srcPitch = 40, .dstMemoryType = CU_MEMORYTYPE_DEVICE,
	                     .dstDevice = pitched, .dstPitch = pitch, .WidthInBytes = 40, .Height = 100 };
	CU(cuMemcpy2D_v2(&to));
	CUDA_MEMCPY2D from = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = pitched, .srcPitch = pitch, .dstMemoryType = CU_MEMORYTYPE_DEVICE,
	                       .dstDevice = in, .dstPitch = 40, .WidthInBytes = 40, .Height = 100 };
	CU(cuMemcpy2D_v2(&from));
	struct {
		CUdeviceptr out, in;
		unsigned n;
	} parameters = { out, in, n };
	size_t size = 20;
	void *extra[] = { (void *)1, &parameters, (void *)2, &size, NULL };
	CUlaunchConfig config = { .gridDimX = 8, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 128, .blockDimY = 1, .blockDimZ = 1 };
	CU(cuLaunchKernelEx(&config, add, NULL, extra));
	CU(cuMemcpy((CUdeviceptr)(uintptr_t)back, out, sizeof(back)));
	printf("rows %u\n", sum(back));
	/* Pinned memory that a kernel reads and writes. */
	CU(cuMemAllocHost_v2((void **)&pinned, sizeof(values)));
	fill(pinned, 7);
	CUdeviceptr mapped;
	CU(cuMemHostGetDevicePointer_v2(&mapped, pinned, 0));
	CU(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, NULL, (void *[]){ &mapped, &mapped, &n }, NULL));
	CU(cuCtxSynchronize());
	printf("pinned %u\n", sum(pinned));
	CU(cuMemFreeHost(pinned));
	/* Managed memory, written by the program between kernels. */
	CUdeviceptr managed;
	CU(cuMemAllocManaged(&managed, sizeof(values), 1));
	for (unsigned round = 0; round < 3; round++) {
		fill((unsigned *)(uintptr_t)managed, round * 50);
		CU(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, NULL, (void *[]){ &managed, &managed, &n }, NULL));
		CU(cuCtxSynchronize());
		result += sum((unsigned *)(uintptr_t)managed);
	}
	printf("managed %u\n", result);
	CU(cuMemFree_v2(managed));
	CU(cuEventRecord(after, NULL));
	CU(cuEventSynchronize(after));
	CU(cuEventElapsedTime(&ms, before, after));
	CU(cuEventQuery(after));
	CU(cuMemFree_v2(in));
	CU(cuMemFree_v2(out));
	CU(cuMemFree_v2(pitched));
	CU(cuMemFree_v2(target));
	CU(cuMemFree_v2(cell));
	CU(cuModuleUnload(module));
}

static void
count_call(void *user)
{
	++*(int *)user;
}

static void
graph(void)
{
	static unsigned values[N];
	unsigned n = N, *pinned;
	int calls = 0;
	CUdeviceptr in;
	CUgraph g;
	CUgraphExec exec;
	CUgraphNode alloc, first, second, host, copy, release;

	fill(values, 30);
	CU(cuMemAlloc_v2(&in, sizeof(values)));
	CU(cuMemcpyHtoD_v2(in, values, sizeof(values)));
	CU(cuMemAllocHost_v2((void **)&pinned, sizeof(values)));
	memset(pinned, 0, sizeof(values));
	CU(cuGraphCreate(&g, 0));
	CUDA_MEM_ALLOC_NODE_PARAMS own = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE } },
	                                   .bytesize = sizeof(values) };
	CU(cuGraphAddMemAllocNode(&alloc, g, NULL, 0, &own));
	void *into[] = { &own.dptr, &in, &n }, *again[] = { &own.dptr, &own.dptr, &n }, *back[] = { &in, &own.dptr, &n };
	CUDA_KERNEL_NODE_PARAMS kernel = { .func = add, .gridDimX = 8, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 128, .blockDimY = 1, .blockDimZ = 1,
	                                   .kernelParams = into };
	CU(cuGraphAddKernelNode_v2(&first, g, &alloc, 1, &kernel));
	kernel.kernelParams = again;
	CU(cuGraphAddKernelNode_v2(&second, g, &first, 1, &kernel));
	CUDA_HOST_NODE_PARAMS function = { count_call, &calls };
	CU(cuGraphAddHostNode(&host, g, &second, 1, &function));
	CUDA_MEMCPY3D out = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = own.dptr, .srcPitch = sizeof(values), .srcHeight = 1,
	                      .dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = pinned, .dstPitch = sizeof(values), .dstHeight = 1,
	                      .WidthInBytes = sizeof(values), .Height = 1, .Depth = 1 };
	CU(cuGraphAddMemcpyNode(&copy, g, &host, 1, &out, context));
	CU(cuGraphAddMemFreeNode(&release, g, &copy, 1, own.dptr));
	CU(cuGraphInstantiateWithFlags(&exec, g, 0));
	CU(cuGraphLaunch(exec, NULL));
	CU(cuCtxSynchronize());
	printf("graph %u\n", sum(pinned));
	kernel.kernelParams = back;
	CU(cuGraphExecKernelNodeSetParams_v2(exec, second, &kernel));
	CU(cuGraphLaunch(exec, NULL));
	CU(cuCtxSynchronize());
	CU(cuMemcpyDtoH_v2(values, in, sizeof(values)));
	printf("changed %u %u, %d host functions\n", sum(pinned), sum(values), calls);
	CU(cuGraphExecDestroy(exec));
	CU(cuGraphDestroy(g));
	CU(cuMemFreeHost(pinned));
	CU(cuMemFree_v2(in));
}

int
main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "plain";

	if (strcmp(mode, "exit") == 0)
		return argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
	if (strcmp(mode, "load") == 0) {
		if (argc < 3 || !dlopen(argv[2], RTLD_NOW))
			return 1;
		usleep(500000);
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	start();
	if (strcmp(mode, "plain") == 0)
		plain();
	else if (strcmp(mode, "wait") == 0)
		wait_for(nap);
	else if (strcmp(mode, "crash") == 0)
		wait_for(die);
	else if (strcmp(mode, "threads") == 0)
		threads();
	else if (strcmp(mode, "memory") == 0)
		memory();
	else if (strcmp(mode, "graph") == 0)
		graph();
	else
		return 2;
	return 0;
}
