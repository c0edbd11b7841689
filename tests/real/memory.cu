/*
 * Memory: symbols, constants, managed and mapped memory, copies of every shape, pools, virtual memory, pointer attributes.
 */
#include "t.h"

#include <cuda.h>
#include <sys/wait.h>
#include <unistd.h>

__constant__ int table[64];
__constant__ float weights[4] = { 0.5f, 1.5f, -2, 8 };
__device__ int counters[16] = { 1, 2, 3 };
__device__ double scale = 2.5;
__managed__ int shared_word = 11;
__managed__ int shared_array[100];
struct Config { int a; float b; char name[8]; };
__constant__ Config config = { 3, 1.25f, "abc" };

__global__ void use_constants(float *out) { int t = threadIdx.x; out[t] = table[t % 64] * weights[t % 4] + config.a * config.b + config.name[t % 3]; }
__global__ void bump() { atomicAdd(&counters[threadIdx.x % 16], 10); if (threadIdx.x == 0) scale *= 2; }
__global__ void touch_managed() { int t = threadIdx.x; if (t == 0) shared_word *= 3; if (t < 100) shared_array[t] += t; }
__global__ void fill(int *p, int n, int base) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] = base + i; }
__global__ void increment(int *p, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i]++; }
__global__ void list_sum(const int *const *lists, int *out) { out[threadIdx.x] = lists[threadIdx.x][threadIdx.x]; }

static void
symbols()
{
	std::vector<int> t(64);
	for (int i = 0; i < 64; i++)
		t[i] = i * i;
	CU(cudaMemcpyToSymbol(table, t.data(), 64 * sizeof(int)));
	int five = 555;
	CU(cudaMemcpyToSymbol(table, &five, sizeof five, 5 * sizeof(int)));
	t[5] = 555;
	std::vector<float> want(128);
	const float w[4] = { 0.5f, 1.5f, -2, 8 };
	for (int i = 0; i < 128; i++)
		want[i] = t[i % 64] * w[i % 4] + 3 * 1.25f + "abc"[i % 3];
	Device<float> out(128);
	use_constants<<<1, 128>>>(out);
	same("constants with and without initial values", out.get(), want);
	std::vector<int> c(16);
	bump<<<1, 32>>>();
	CU(cudaMemcpyFromSymbol(c.data(), counters, 16 * sizeof(int)));
	std::vector<int> wc(16, 20);
	wc[0] = 21, wc[1] = 22, wc[2] = 23;
	same("__device__ array", c, wc);
	double d = 0;
	CU(cudaMemcpyFromSymbol(&d, scale, sizeof d));
	ok(d == 5, "__device__ double", "%g", d);
	void *address = nullptr;
	size_t size = 0;
	CU(cudaGetSymbolAddress(&address, counters));
	CU(cudaGetSymbolSize(&size, counters));
	ok(address && size == 64, "address and size of a symbol", "%p %zu", address, size);
	increment<<<1, 16>>>((int *)address, 16);
	CU(cudaMemcpyFromSymbol(c.data(), counters, 16 * sizeof(int)));
	for (int &x : wc)
		x++;
	same("a kernel through the symbol's address", c, wc);
}

static void
managed()
{
	touch_managed<<<1, 128>>>();
	CU(cudaDeviceSynchronize());
	int wrong = 0;
	for (int i = 0; i < 100; i++)
		wrong += shared_array[i] != i;
	ok(shared_word == 33 && wrong == 0, "__managed__ variables", "%d, %d wrong", shared_word, wrong);
	shared_word = 5;
	touch_managed<<<1, 128>>>();
	CU(cudaDeviceSynchronize());
	ok(shared_word == 15, "written by the host between kernels", "%d", shared_word);
	int *p;
	const int n = 5000;
	CU(cudaMallocManaged(&p, n * sizeof(int)));
	for (int i = 0; i < n; i++)
		p[i] = i;
	cudaMemLocation here = {};
	here.type = cudaMemLocationTypeDevice;
	here.id = 0;
	cudaError_t e = cudaMemPrefetchAsync(p, n * sizeof(int), here, 0, 0);
	ok(e == cudaSuccess, "cudaMemPrefetchAsync", "%s", cudaGetErrorName(e));
	e = cudaMemAdvise(p, n * sizeof(int), cudaMemAdviseSetReadMostly, here);
	ok(e == cudaSuccess, "cudaMemAdvise", "%s", cudaGetErrorName(e));
	increment<<<(n + 127) / 128, 128>>>(p, n);
	CU(cudaDeviceSynchronize());
	wrong = 0;
	for (int i = 0; i < n; i++)
		wrong += p[i] != i + 1;
	ok(wrong == 0, "cudaMallocManaged", "%d wrong", wrong);
	cudaPointerAttributes a;
	CU(cudaPointerGetAttributes(&a, p));
	ok(a.type == cudaMemoryTypeManaged && a.devicePointer == p && a.hostPointer == p, "attributes of managed memory", "type %d", a.type);
	CU(cudaFree(p));
}

static void
mapped()
{
	const int n = 3000;
	int *host, *device, *own;
	CU(cudaHostAlloc(&host, n * sizeof(int), cudaHostAllocMapped | cudaHostAllocPortable));
	CU(cudaHostGetDevicePointer(&device, host, 0));
	fill<<<(n + 255) / 256, 256>>>(device, n, 7);
	CU(cudaDeviceSynchronize());
	int wrong = 0;
	for (int i = 0; i < n; i++)
		wrong += host[i] != i + 7;
	ok(wrong == 0, "mapped host memory", "%d wrong", wrong);
	cudaPointerAttributes a;
	CU(cudaPointerGetAttributes(&a, host));
	ok(a.type == cudaMemoryTypeHost && a.hostPointer == host && a.devicePointer == device, "attributes of pinned memory", "type %d", a.type);
	unsigned flags = 0;
	CU(cudaHostGetFlags(&flags, host));
	ok((flags & (cudaHostAllocMapped | cudaHostAllocPortable)) == (cudaHostAllocMapped | cudaHostAllocPortable), "flags of pinned memory", "%x", flags);
	CU(cudaFreeHost(host));
	own = (int *)aligned_alloc(4096, 16384);
	memset(own, 0, 16384);
	CU(cudaHostRegister(own, 16384, cudaHostRegisterMapped));
	CU(cudaHostGetDevicePointer(&device, own, 0));
	fill<<<16, 256>>>(device, 4096, 0);
	CU(cudaDeviceSynchronize());
	wrong = 0;
	for (int i = 0; i < 4096; i++)
		wrong += own[i] != i;
	ok(wrong == 0, "registered host memory", "%d wrong", wrong);
	EXPECT(cudaHostRegister(own, 16384, cudaHostRegisterMapped), cudaErrorHostMemoryAlreadyRegistered);
	CU(cudaHostUnregister(own));
	EXPECT(cudaHostUnregister(own), cudaErrorHostMemoryNotRegistered);
	cudaGetLastError();
	free(own);
	int local = 0;
	CU(cudaPointerGetAttributes(&a, &local));
	ok(a.type == cudaMemoryTypeUnregistered && a.devicePointer == nullptr, "attributes of ordinary memory", "type %d", a.type);
}

static void
shapes()
{
	/* 2-D, with pitches on both sides */
	const size_t w = 100, h = 37;
	std::vector<unsigned char> in(128 * h), back(112 * h, 0xee);
	for (size_t i = 0; i < in.size(); i++)
		in[i] = (unsigned char)(i * 7);
	unsigned char *p;
	size_t pitch;
	CU(cudaMallocPitch(&p, &pitch, w, h));
	ok(pitch >= w && pitch % 32 == 0, "pitch", "%zu", pitch);
	CU(cudaMemset2D(p, pitch, 0x33, w, h));
	CU(cudaMemcpy2D(p, pitch, in.data(), 128, w - 10, h - 3, cudaMemcpyHostToDevice));
	CU(cudaMemcpy2D(back.data(), 112, p, pitch, w, h, cudaMemcpyDeviceToHost));
	int wrong = 0;
	for (size_t y = 0; y < h; y++)
		for (size_t x = 0; x < 112; x++)
			wrong += back[y * 112 + x] != (x >= w ? 0xee : x < w - 10 && y < h - 3 ? in[y * 128 + x] : 0x33);
	ok(wrong == 0, "2-D copies and memset", "%d wrong", wrong);
	CU(cudaFree(p));
	/* 3-D */
	cudaExtent extent = make_cudaExtent(20 * sizeof(int), 10, 6);
	cudaPitchedPtr cube;
	CU(cudaMalloc3D(&cube, extent));
	std::vector<int> data(20 * 10 * 6), result(20 * 10 * 6, -1);
	for (size_t i = 0; i < data.size(); i++)
		data[i] = (int)i * 3;
	cudaMemcpy3DParms c = {};
	c.srcPtr = make_cudaPitchedPtr(data.data(), 20 * sizeof(int), 20, 10);
	c.dstPtr = cube;
	c.extent = extent;
	c.kind = cudaMemcpyHostToDevice;
	CU(cudaMemcpy3D(&c));
	cudaMemcpy3DParms d = {};
	d.srcPtr = cube;
	d.srcPos = make_cudaPos(4 * sizeof(int), 2, 1);
	d.dstPtr = make_cudaPitchedPtr(result.data(), 20 * sizeof(int), 20, 10);
	d.dstPos = make_cudaPos(sizeof(int), 1, 0);
	d.extent = make_cudaExtent(10 * sizeof(int), 5, 4);
	d.kind = cudaMemcpyDeviceToHost;
	CU(cudaMemcpy3D(&d));
	wrong = 0;
	for (int z = 0; z < 6; z++)
		for (int y = 0; y < 10; y++)
			for (int x = 0; x < 20; x++) {
				bool inside = z < 4 && y >= 1 && y < 6 && x >= 1 && x < 11;
				int want = inside ? data[((z + 1) * 10 + y + 1) * 20 + x + 3] : -1;
				wrong += result[(z * 10 + y) * 20 + x] != want;
			}
	ok(wrong == 0, "3-D copies with positions", "%d wrong", wrong);
	CU(cudaMemset3D(cube, 0x11, extent));
	CU(cudaMemcpy3D(&d));
	ok(result[21] == 0x11111111 && result[0] == -1, "3-D memset", "%x", result[21]);
	CU(cudaFree(cube.ptr));
	/* device to device, overlapping types of memset, default direction */
	Device<int> a(1000), b(1000);
	fill<<<8, 128>>>(a, 1000, 50);
	CU(cudaMemcpy(b.p, a.p, 4000, cudaMemcpyDeviceToDevice));
	CU(cudaMemset(b.p + 10, 0xff, 40));
	std::vector<int> got(1000), want(1000);
	CU(cudaMemcpy(got.data(), b.p, 4000, cudaMemcpyDefault));
	for (int i = 0; i < 1000; i++)
		want[i] = i >= 10 && i < 20 ? -1 : i + 50;
	same("device to device, memset, default direction", got, want);
	/* pointers in memory */
	std::vector<int *> lists = { a.p, a.p + 100, b.p + 500 };
	Device<int *> dl(lists);
	Device<int> sums(3);
	list_sum<<<1, 3>>>(dl, sums);
	same("pointers stored in device memory", sums.get(), { 50, 151, 552 });
}

static void
pools()
{
	int supported = 0;
	CU(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, 0));
	if (!supported) {
		skip("stream-ordered memory", "the device says no");
		return;
	}
	cudaStream_t s;
	CU(cudaStreamCreate(&s));
	std::vector<int> got(1000), want(1000);
	for (int i = 0; i < 1000; i++)
		want[i] = i + 4;
	int *p, *q;
	CU(cudaMallocAsync(&p, 4000, s));
	fill<<<8, 128, 0, s>>>(p, 1000, 3);
	increment<<<8, 128, 0, s>>>(p, 1000);
	CU(cudaMemcpyAsync(got.data(), p, 4000, cudaMemcpyDeviceToHost, s));
	CU(cudaFreeAsync(p, s));
	CU(cudaMallocAsync(&q, 4000, s));
	CU(cudaFreeAsync(q, s));
	CU(cudaStreamSynchronize(s));
	same("cudaMallocAsync", got, want);
	cudaMemPool_t pool;
	cudaMemPoolProps props = {};
	props.allocType = cudaMemAllocationTypePinned;
	props.location.type = cudaMemLocationTypeDevice;
	props.location.id = 0;
	CU(cudaMemPoolCreate(&pool, &props));
	uint64_t threshold = 1 << 20, used = 77;
	CU(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
	CU(cudaMallocFromPoolAsync(&p, 1 << 16, pool, s));
	CU(cudaStreamSynchronize(s));
	CU(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
	ok(used >= 1 << 16, "memory used of a pool", "%llu", (unsigned long long)used);
	CU(cudaFreeAsync(p, s));
	CU(cudaStreamSynchronize(s));
	CU(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
	ok(used == 0, "and none after it was freed", "%llu", (unsigned long long)used);
	CU(cudaMemPoolTrimTo(pool, 0));
	CU(cudaMemPoolDestroy(pool));
	CU(cudaStreamDestroy(s));
}

template <class F>
static F
driver(const char *name, F)
{
	void *f = nullptr;
	cudaDriverEntryPointQueryResult r;
	CU(cudaGetDriverEntryPointByVersion(name, &f, 12000, cudaEnableDefault, &r));
	if (r != cudaDriverEntryPointSuccess || !f) {
		printf("Bail out! no %s\n", name);
		exit(1);
	}
	return (F)f;
}
#define DRIVER(name) driver(#name, name)

static void
virtual_memory()
{
	auto granularity = driver("cuMemGetAllocationGranularity", (CUresult (*)(size_t *, const CUmemAllocationProp *, CUmemAllocationGranularity_flags))nullptr);
	auto create = driver("cuMemCreate", (CUresult (*)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long))nullptr);
	auto reserve = driver("cuMemAddressReserve", (CUresult (*)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))nullptr);
	auto map = driver("cuMemMap", (CUresult (*)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))nullptr);
	auto access = driver("cuMemSetAccess", (CUresult (*)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t))nullptr);
	auto unmap = driver("cuMemUnmap", (CUresult (*)(CUdeviceptr, size_t))nullptr);
	auto release = driver("cuMemRelease", (CUresult (*)(CUmemGenericAllocationHandle))nullptr);
	auto unreserve = driver("cuMemAddressFree", (CUresult (*)(CUdeviceptr, size_t))nullptr);
	CUmemAllocationProp prop = {};
	prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
	prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	prop.location.id = 0;
	size_t g = 0;
	CUresult e = granularity(&g, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	ok(e == CUDA_SUCCESS && g > 0, "granularity of virtual memory", "%d %zu", e, g);
	CUdeviceptr at = 0;
	CUmemGenericAllocationHandle h[2];
	CUmemAccessDesc both = {};
	both.location = prop.location;
	both.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
	bool good = reserve(&at, 4 * g, 0, 0, 0) == CUDA_SUCCESS && create(&h[0], g, &prop, 0) == CUDA_SUCCESS &&
		create(&h[1], g, &prop, 0) == CUDA_SUCCESS && map(at, g, 0, h[0], 0) == CUDA_SUCCESS && map(at + g, g, 0, h[1], 0) == CUDA_SUCCESS &&
		access(at, 2 * g, &both, 1) == CUDA_SUCCESS;
	ok(good, "reserve, create, map, set access");
	if (!good)
		return;
	int n = (int)(2 * g / sizeof(int));
	fill<<<(n + 255) / 256, 256>>>((int *)at, n, 1);
	std::vector<int> got(2);
	CU(cudaMemcpy(&got[0], (int *)(at + g) - 1, 8, cudaMemcpyDeviceToHost));
	same("one kernel across two mapped pieces", got, { (int)(g / 4), (int)(g / 4) + 1 });
	/* the second piece again at another place: the same memory */
	good = map(at + 3 * g, g, 0, h[1], 0) == CUDA_SUCCESS && access(at + 3 * g, g, &both, 1) == CUDA_SUCCESS;
	increment<<<1, 32>>>((int *)(at + 3 * g), 1);
	CU(cudaMemcpy(&got[0], (int *)(at + g), 8, cudaMemcpyDeviceToHost));
	ok(good && got[0] == (int)(g / 4) + 2, "memory mapped twice", "%d", got[0]);
	good = unmap(at, 2 * g) == CUDA_SUCCESS && unmap(at + 3 * g, g) == CUDA_SUCCESS && release(h[0]) == CUDA_SUCCESS &&
		release(h[1]) == CUDA_SUCCESS && unreserve(at, 4 * g) == CUDA_SUCCESS;
	ok(good, "unmap, release, free the range");
}

static void
accounting()
{
	size_t free0, free1, free2, total;
	void *p;
	CU(cudaMemGetInfo(&free0, &total));
	CU(cudaMalloc(&p, 64 << 20));
	CU(cudaMemGetInfo(&free1, &total));
	CU(cudaFree(p));
	CU(cudaMemGetInfo(&free2, &total));
	ok(free1 + (64 << 20) <= free0 && free2 >= free1 + (64 << 20) && free0 <= total, "memory is accounted", "%zu %zu %zu of %zu", free0, free1, free2, total);
	EXPECT(cudaMalloc(&p, total * 2), cudaErrorMemoryAllocation);
	EXPECT(cudaGetLastError(), cudaErrorMemoryAllocation);
	EXPECT(cudaGetLastError(), cudaSuccess);
	EXPECT(cudaFree((void *)0x7000), cudaErrorInvalidValue);
	cudaGetLastError();
	CU(cudaFree(nullptr));
	EXPECT(cudaMemcpy((void *)0x10, (void *)0x20, 4, (cudaMemcpyKind)17), cudaErrorInvalidMemcpyDirection);
	cudaGetLastError();
	cudaPointerAttributes a;
	Device<int> d(10);
	CU(cudaPointerGetAttributes(&a, d.p + 3));
	ok(a.type == cudaMemoryTypeDevice && a.device == 0 && a.devicePointer == d.p + 3, "attributes of device memory", "type %d", a.type);
}

/* A child opens the parent's memory; it starts before the parent has touched CUDA. */
static int to_child[2], to_parent[2];
static pid_t child;

static void
start_child()
{
	if (pipe(to_child) || pipe(to_parent) || (child = fork()) != 0)
		return;
	cudaIpcMemHandle_t handle;
	cudaIpcEventHandle_t event_handle;
	int *p = nullptr, result = 1;
	if (read(to_child[0], &handle, sizeof handle) == sizeof handle && read(to_child[0], &event_handle, sizeof event_handle) == sizeof event_handle) {
		cudaError_t e = cudaIpcOpenMemHandle((void **)&p, handle, cudaIpcMemLazyEnablePeerAccess);
		if (e == cudaSuccess) {
			increment<<<4, 256>>>(p, 1000);
			e = cudaDeviceSynchronize();
		}
		if (e == cudaSuccess)
			e = cudaIpcCloseMemHandle(p);
		result = e;
	}
	if (write(to_parent[1], &result, sizeof result) != sizeof result)
		_exit(1);
	_exit(0);
}

static void
ipc()
{
	Device<int> p(1000);
	fill<<<4, 256>>>(p, 1000, 0);
	cudaIpcMemHandle_t handle;
	cudaIpcEventHandle_t event_handle = {};
	CU(cudaDeviceSynchronize());
	cudaError_t e = cudaIpcGetMemHandle(&handle, p.p);
	int result = -1;
	if (e != cudaSuccess) {
		ok(false, "cudaIpcGetMemHandle", "%s", cudaGetErrorName(e));
		cudaGetLastError();
		return;
	}
	bool sent = write(to_child[1], &handle, sizeof handle) == sizeof handle && write(to_child[1], &event_handle, sizeof event_handle) == sizeof event_handle;
	bool answered = sent && read(to_parent[0], &result, sizeof result) == sizeof result;
	waitpid(child, nullptr, 0);
	ok(answered && result == 0, "another process opens the memory", "%s", cudaGetErrorName((cudaError_t)result));
	std::vector<int> want(1000);
	for (int i = 0; i < 1000; i++)
		want[i] = i + 1;
	same("what it wrote", p.get(), want);
}

int
main()
{
	start_child();
	symbols();
	managed();
	mapped();
	shapes();
	pools();
	virtual_memory();
	accounting();
	ipc();
	CU(cudaDeviceSynchronize());
	T_END();
}
