/*
 * What the runtime says about the device and its functions: properties, occupancy, function attributes, limits, devices.
 */
#include "t.h"

__global__ void plain(int *p) { *p = 1; }
__global__ void __launch_bounds__(256, 2) bounded(float *p) { __shared__ float a[512]; a[threadIdx.x] = p[threadIdx.x]; __syncthreads(); p[threadIdx.x] = a[255 - threadIdx.x]; }
__global__ void dynamic(int *p, int n) { extern __shared__ int a[]; for (int i = threadIdx.x; i < n; i += blockDim.x) a[i] = i; __syncthreads(); int s = 0; for (int i = threadIdx.x; i < n; i += blockDim.x) s += a[n - 1 - i]; atomicAdd(p, s); }
__global__ void geometry(unsigned *p) { if (threadIdx.x == blockDim.x - 1 && blockIdx.x == gridDim.x - 1) { p[0] = gridDim.x; p[1] = blockDim.x; p[2] = warpSize; } }

int
main()
{
	int count = 0, version = 0, runtime = 0;
	cudaDeviceProp p;
	CU(cudaGetDeviceCount(&count));
	CU(cudaDriverGetVersion(&version));
	CU(cudaRuntimeGetVersion(&runtime));
	ok(count >= 1 && version >= runtime, "a device, and a driver not older than the runtime", "%d, %d >= %d", count, version, runtime);
	CU(cudaGetDeviceProperties(&p, 0));
	ok(p.name[0] && p.major * 10 + p.minor >= 75 && p.totalGlobalMem > 0 && p.multiProcessorCount > 0, "properties", "%s %d.%d", p.name, p.major, p.minor);
	ok(p.warpSize == 32 && p.maxThreadsPerBlock == 1024 && p.maxThreadsDim[2] == 64 && p.maxGridSize[0] == 2147483647 && p.maxGridSize[1] == 65535 &&
	   p.sharedMemPerBlock == 49152 && p.sharedMemPerBlockOptin >= 65536 - 1024 && p.regsPerBlock == 65536, "limits of a block",
	   "%d %d %d %zu %zu", p.maxThreadsPerBlock, p.maxThreadsDim[2], p.maxGridSize[0], p.sharedMemPerBlock, p.sharedMemPerBlockOptin);
	ok(p.unifiedAddressing && p.canMapHostMemory && p.managedMemory, "unified addressing, mapped and managed memory");
	cudaFuncAttributes a;
	CU(cudaFuncGetAttributes(&a, bounded));
	ok(a.maxThreadsPerBlock == 256 && a.sharedSizeBytes == 2048 && a.numRegs > 0, "attributes of a function", "%d %zu %d", a.maxThreadsPerBlock, a.sharedSizeBytes, a.numRegs);
	CU(cudaFuncGetAttributes(&a, plain));
	ok(a.maxThreadsPerBlock == 1024 && a.sharedSizeBytes == 0 && a.ptxVersion >= 75 && a.binaryVersion >= 75, "and of another one", "%d %d %d", a.maxThreadsPerBlock, a.ptxVersion, a.binaryVersion);
	int blocks = -1, grid = 0, block = 0;
	CU(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, plain, 128, 0));
	ok(blocks >= 1 && blocks * 128 <= p.maxThreadsPerMultiProcessor, "occupancy", "%d", blocks);
	int fewer = -1;
	CU(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fewer, plain, 1024, 40000));
	ok(fewer >= 1 && fewer <= blocks, "less of it with more shared memory", "%d", fewer);
	CU(cudaOccupancyMaxPotentialBlockSize(&grid, &block, plain, 0, 0));
	ok(grid > 0 && block >= 32 && block <= 1024 && block % 32 == 0, "the best block size", "%d x %d", grid, block);
	CU(cudaFuncSetAttribute(dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000));
	Device<int> sum(1);
	sum.zero();
	dynamic<<<1, 96, 60000>>>(sum, 15000);
	CU(cudaGetLastError());
	same("60000 bytes of dynamic shared memory", sum.get(), { 15000 / 2 * 14999 });
	EXPECT(cudaFuncSetAttribute(dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 24), cudaErrorInvalidValue);
	cudaGetLastError();
	size_t stack = 0;
	CU(cudaDeviceSetLimit(cudaLimitStackSize, 4096));
	CU(cudaDeviceGetLimit(&stack, cudaLimitStackSize));
	ok(stack >= 4096, "stack limit", "%zu", stack);
	Device<unsigned> g(3);
	geometry<<<70001, 33>>>(g);
	same("a grid of many blocks", g.get(), { 70001u, 33u, 32u });
	cudaLaunchConfig_t config = {};
	cudaLaunchAttribute attribute = {};
	attribute.id = cudaLaunchAttributePriority;
	attribute.val.priority = 0;
	config.gridDim = dim3(4);
	config.blockDim = dim3(64);
	config.attrs = &attribute;
	config.numAttrs = 1;
	CU(cudaLaunchKernelEx(&config, geometry, g.p));
	same("cudaLaunchKernelEx", g.get(), { 4u, 64u, 32u });
	int least = 0, flags = 0;
	CU(cudaDeviceGetAttribute(&least, cudaDevAttrComputeCapabilityMajor, 0));
	CU(cudaSetDevice(0));
	CU(cudaGetDevice(&flags));
	ok(least == p.major && flags == 0, "attribute and current device");
	char bus[32];
	int again = -1;
	CU(cudaDeviceGetPCIBusId(bus, sizeof bus, 0));
	CU(cudaDeviceGetByPCIBusId(&again, bus));
	ok(again == 0, "found by its PCI bus id", "%s %d", bus, again);
	T_END();
}
