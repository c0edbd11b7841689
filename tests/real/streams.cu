/*
 * Streams, events, callbacks, host functions, priorities, per-thread default streams and many host threads.
 */
#include "t.h"

#include <atomic>
#include <thread>
#include <unistd.h>

__global__ void set(int *p, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] = v; }
__global__ void add(int *p, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] += v; }
__global__ void copy_sum(const int *from, int *to, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) to[i] += from[i]; }
__global__ void wait_for(volatile int *flag) { while (*flag == 0) __nanosleep(100); }

static std::atomic<int> called;
static void CUDART_CB host_function(void *user) { called.fetch_add(*(int *)user); }
static void CUDART_CB stream_callback(cudaStream_t, cudaError_t status, void *user) { called.fetch_add(status == cudaSuccess ? *(int *)user : 1000000); }

int
main()
{
	const int n = 10000;
	const unsigned blocks = (n + 127) / 128;
	cudaStream_t a, b, quiet;
	cudaEvent_t first, second;
	int one = 1, ten = 10;

	CU(cudaStreamCreate(&a));
	CU(cudaStreamCreate(&b));
	CU(cudaStreamCreateWithFlags(&quiet, cudaStreamNonBlocking));
	CU(cudaEventCreate(&first));
	CU(cudaEventCreate(&second));
	{
		Device<int> x(n), y(n);
		x.zero();
		y.zero();
		CU(cudaDeviceSynchronize());
		set<<<blocks, 128, 0, a>>>(x, 5, n);
		CU(cudaEventRecord(first, a));
		CU(cudaStreamWaitEvent(b, first, 0));
		copy_sum<<<blocks, 128, 0, b>>>(x, y, n);
		add<<<blocks, 128, 0, b>>>(y, 2, n);
		CU(cudaStreamSynchronize(b));
		same("an event orders two streams", y.get(), std::vector<int>(n, 7));
	}
#ifndef PER_THREAD
	{
		/* the legacy stream waits for blocking streams and they for it */
		Device<int> x(n);
		for (int i = 0; i < 20; i++) {
			set<<<blocks, 128, 0, a>>>(x, i, n);
			add<<<blocks, 128>>>(x, 100, n);
			add<<<blocks, 128, 0, b>>>(x, 1000, n);
			add<<<blocks, 128>>>(x, 0, n); /* a and b are ordered only by what lies between them on the default stream */
		}
		same("the default stream orders the others", x.get(), std::vector<int>(n, 1119));
	}
#endif
	{
		/* a non-blocking stream runs while another one waits for the host */
		int *flag, *device_flag;
		CU(cudaHostAlloc(&flag, sizeof(int), cudaHostAllocMapped));
		CU(cudaHostGetDevicePointer(&device_flag, flag, 0));
		*(volatile int *)flag = 0;
		Device<int> x(n);
		CU(cudaDeviceSynchronize());
		wait_for<<<1, 1, 0, a>>>(device_flag);
		CU(cudaEventRecord(first, a));
		ok(cudaStreamQuery(a) == cudaErrorNotReady, "a busy stream is not ready");
		ok(cudaEventQuery(first) == cudaErrorNotReady, "its event is not ready");
		set<<<blocks, 128, 0, quiet>>>(x, 3, n);
		CU(cudaStreamSynchronize(quiet));
		ok(cudaStreamQuery(quiet) == cudaSuccess, "another stream got ahead");
		*(volatile int *)flag = 1;
		CU(cudaStreamSynchronize(a));
		ok(cudaEventQuery(first) == cudaSuccess, "then both are ready");
		same("what the other stream wrote", x.get(), std::vector<int>(n, 3));
		CU(cudaFreeHost(flag));
	}
	{
		float ms = -1;
		Device<int> x(n);
		CU(cudaEventRecord(first, a));
		for (int i = 0; i < 10; i++)
			set<<<blocks, 128, 0, a>>>(x, i, n);
		CU(cudaEventRecord(second, a));
		CU(cudaEventSynchronize(second));
		CU(cudaEventElapsedTime(&ms, first, second));
		ok(ms > 0 && ms < 60000, "elapsed time", "%g ms", ms);
		cudaEvent_t plain;
		CU(cudaEventCreateWithFlags(&plain, cudaEventDisableTiming));
		CU(cudaEventRecord(plain, a));
		CU(cudaEventSynchronize(plain));
		EXPECT(cudaEventElapsedTime(&ms, first, plain), cudaErrorInvalidResourceHandle);
		cudaGetLastError();
		CU(cudaEventDestroy(plain));
	}
	{
		called = 0;
		for (int i = 0; i < 50; i++)
			CU(cudaLaunchHostFunc(a, host_function, &one));
		CU(cudaStreamAddCallback(a, stream_callback, &ten, 0));
		CU(cudaStreamSynchronize(a));
		ok(called == 60, "host functions and a callback", "%d", called.load());
	}
	{
		int low = 1, high = 1;
		CU(cudaDeviceGetStreamPriorityRange(&low, &high));
		cudaStream_t urgent;
		int priority = 99;
		unsigned flags = 99;
		CU(cudaStreamCreateWithPriority(&urgent, cudaStreamNonBlocking, high));
		CU(cudaStreamGetPriority(urgent, &priority));
		CU(cudaStreamGetFlags(urgent, &flags));
		ok(priority == high && high <= low && flags == cudaStreamNonBlocking, "stream priorities", "%d in %d..%d, flags %u", priority, low, high, flags);
		CU(cudaStreamDestroy(urgent));
	}
	{
		/* asynchronous copies in pieces over two streams, from pinned memory */
		int *host;
		CU(cudaMallocHost(&host, n * sizeof(int)));
		Device<int> x(n);
		for (int i = 0; i < n; i++)
			host[i] = i;
		for (int part = 0; part < 10; part++) {
			cudaStream_t s = part % 2 ? a : b;
			size_t at = part * (n / 10);
			CU(cudaMemcpyAsync(x.p + at, host + at, n / 10 * sizeof(int), cudaMemcpyHostToDevice, s));
			add<<<(n / 10 + 127) / 128, 128, 0, s>>>(x.p + at, part, n / 10);
			CU(cudaMemcpyAsync(host + at, x.p + at, n / 10 * sizeof(int), cudaMemcpyDeviceToHost, s));
		}
		CU(cudaStreamSynchronize(a));
		CU(cudaStreamSynchronize(b));
		int wrong = 0;
		for (int i = 0; i < n; i++)
			wrong += host[i] != i + i / (n / 10);
		ok(wrong == 0, "copies and kernels overlapped", "%d wrong", wrong);
		CU(cudaFreeHost(host));
	}
	{
		/* many threads, each with a stream and with the per-thread stream */
		std::vector<std::thread> threads;
		std::atomic<int> good{ 0 };
		for (int t = 0; t < 8; t++)
			threads.emplace_back([t, &good] {
				const int m = 3000;
				cudaStream_t s;
				int *p;
				std::vector<int> got(m);
				bool right = cudaStreamCreate(&s) == cudaSuccess && cudaMalloc(&p, m * sizeof(int)) == cudaSuccess;
				for (int round = 0; right && round < 20; round++) {
					set<<<(m + 63) / 64, 64, 0, s>>>(p, t * 100, m);
					add<<<(m + 63) / 64, 64, 0, s>>>(p, round, m);
					right = cudaMemcpyAsync(got.data(), p, m * sizeof(int), cudaMemcpyDeviceToHost, s) == cudaSuccess &&
						cudaStreamSynchronize(s) == cudaSuccess;
					for (int x : got)
						right = right && x == t * 100 + round;
					add<<<(m + 63) / 64, 64, 0, cudaStreamPerThread>>>(p, 1, m);
					right = right && cudaStreamSynchronize(cudaStreamPerThread) == cudaSuccess &&
						cudaMemcpy(got.data(), p, m * sizeof(int), cudaMemcpyDeviceToHost) == cudaSuccess && got[m - 1] == t * 100 + round + 1;
				}
				cudaFree(p);
				cudaStreamDestroy(s);
				good += right;
			});
		for (auto &t : threads)
			t.join();
		ok(good == 8, "eight host threads", "%d right", good.load());
	}
	CU(cudaEventDestroy(first));
	CU(cudaEventDestroy(second));
	CU(cudaStreamDestroy(a));
	CU(cudaStreamDestroy(b));
	CU(cudaStreamDestroy(quiet));
	EXPECT(cudaStreamSynchronize((cudaStream_t)0x1234567), cudaErrorInvalidResourceHandle);
	cudaGetLastError();
	CU(cudaDeviceSynchronize());
	T_END();
}
