/*
 * The C++ standard library on the device: atomics with scopes and orders, barriers, latches, semaphores, asynchronous copies, pipelines.
 */
#include "t.h"

#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuda/atomic>
#include <cuda/barrier>
#include <cuda/pipeline>
#include <cuda/semaphore>
#include <cuda/std/array>
#include <cuda/std/complex>
#include <cuda/std/tuple>

namespace cg = cooperative_groups;

__global__ void
atomics(int *out, double *sum, unsigned long long *least)
{
	cuda::atomic_ref<int, cuda::thread_scope_device> count(*out);
	count.fetch_add(1, cuda::memory_order_relaxed);
	cuda::atomic_ref<double, cuda::thread_scope_device> s(*sum);
	s.fetch_add(0.5);
	cuda::atomic_ref<unsigned long long, cuda::thread_scope_system> m(*least);
	m.fetch_min(1000 - threadIdx.x);
	__shared__ cuda::atomic<int, cuda::thread_scope_block> local;
	if (threadIdx.x == 0)
		local.store(0, cuda::memory_order_release);
	__syncthreads();
	int seen = local.load();
	while (!local.compare_exchange_weak(seen, seen + 2))
		;
	__syncthreads();
	if (threadIdx.x == 0)
		out[1] = local.load(cuda::memory_order_acquire);
}

/* One thread publishes, another one of a later block waits: release and acquire on a flag. */
__global__ void
publish(int *data, int *flag, int *out)
{
	cuda::atomic_ref<int, cuda::thread_scope_device> f(*flag);
	if (blockIdx.x == 0 && threadIdx.x == 0) {
		for (int i = 0; i < 100; i++)
			data[i] = i * i;
		f.store(1, cuda::memory_order_release);
		f.notify_all();
	} else if (blockIdx.x == 1) {
		f.wait(0, cuda::memory_order_acquire);
		if (threadIdx.x < 100)
			out[threadIdx.x] = data[threadIdx.x] + 1;
	}
}

/* Tiles come by cp.async while the one before is worked on. */
__global__ void
pipelined(const int *in, int *out, int tiles)
{
	__shared__ int stage[2][128];
	cg::thread_block block = cg::this_thread_block();
	__shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
	auto pipe = cuda::make_pipeline(block, &state);
	int sum = 0, fetched = 0;
	for (int t = 0; t < tiles; t++) {
		for (; fetched < tiles && fetched < t + 2; fetched++) {
			pipe.producer_acquire();
			cuda::memcpy_async(block, stage[fetched % 2], in + fetched * 128, sizeof(int) * 128, pipe);
			pipe.producer_commit();
		}
		pipe.consumer_wait();
		sum += stage[t % 2][(threadIdx.x + 1) % 128];
		pipe.consumer_release();
	}
	out[threadIdx.x] = sum;
}

__global__ void
barriers(int *out)
{
	__shared__ int values[96];
	__shared__ cuda::barrier<cuda::thread_scope_block> bar;
	if (threadIdx.x == 0)
		init(&bar, blockDim.x);
	__syncthreads();
	int v = threadIdx.x;
	for (int round = 0; round < 5; round++) {
		values[threadIdx.x] = v;
		bar.arrive_and_wait();
		v = values[(threadIdx.x + 1) % 96] + 1;
		auto token = bar.arrive();
		bar.wait(cuda::std::move(token));
	}
	out[threadIdx.x] = v;
}

__global__ void
group_copy(const int4 *in, int4 *out)
{
	__shared__ int4 stage[64];
	cg::thread_block block = cg::this_thread_block();
	cg::memcpy_async(block, stage, in, sizeof stage);
	cg::wait(block);
	out[threadIdx.x] = stage[63 - threadIdx.x];
}

__global__ void
semaphores(int *out)
{
	__shared__ cuda::counting_semaphore<cuda::thread_scope_block, 1> s;
	if (threadIdx.x == 0)
		new (&s) cuda::counting_semaphore<cuda::thread_scope_block, 1>(1);
	__syncthreads();
	s.acquire();
	volatile int *p = out;
	*p = *p + 1;
	s.release();
}

__global__ void
types(float *out)
{
	cuda::std::array<int, 4> a = { 1, 2, 3, (int)threadIdx.x };
	cuda::std::complex<float> z(1, (float)a[3]), w = z * z;
	auto t = cuda::std::make_tuple(w.real(), w.imag());
	out[threadIdx.x * 2] = cuda::std::get<0>(t);
	out[threadIdx.x * 2 + 1] = cuda::std::get<1>(t) + (float)a.size();
}

int
main()
{
	{
		Device<int> out(2);
		Device<double> sum(1);
		Device<unsigned long long> least(std::vector<unsigned long long>{ 5000 });
		out.zero(), sum.zero();
		atomics<<<1, 128>>>(out, sum, least);
		CU(cudaGetLastError());
		same("atomics", out.get(), { 128, 256 });
		ok(sum.get()[0] == 64 && least.get()[0] == 1000 - 127, "atomics of double and 64 bits", "%g %llu", sum.get()[0], least.get()[0]);
	}
	{
		Device<int> data(100), flag(1), out(100);
		flag.zero();
		publish<<<2, 128>>>(data, flag, out);
		std::vector<int> want(100);
		for (int i = 0; i < 100; i++)
			want[i] = i * i + 1;
		same("wait and notify between blocks", out.get(), want);
	}
	{
		const int tiles = 9;
		std::vector<int> in(tiles * 128), want(128);
		for (size_t i = 0; i < in.size(); i++)
			in[i] = (int)(i * 7 % 1000);
		for (int t = 0; t < 128; t++)
			for (int k = 0; k < tiles; k++)
				want[t] += in[k * 128 + (t + 1) % 128];
		Device<int> din(in), out(128);
		pipelined<<<1, 128>>>(din, out, tiles);
		CU(cudaGetLastError());
		same("a pipeline of two stages", out.get(), want);
	}
	{
		Device<int> out(96);
		std::vector<int> want(96);
		for (int t = 0; t < 96; t++)
			want[t] = (t + 5) % 96 + 5;
		barriers<<<1, 96>>>(out);
		same("cuda::barrier", out.get(), want);
	}
	{
		std::vector<int> in(256), want(256);
		for (int i = 0; i < 256; i++) {
			in[i] = i;
			want[i] = (63 - i / 4) * 4 + i % 4;
		}
		Device<int> din(in), out(256);
		group_copy<<<1, 64>>>((const int4 *)din.p, (int4 *)out.p);
		same("memcpy_async of a group", out.get(), want);
	}
	{
		Device<int> out(1);
		out.zero();
		semaphores<<<1, 64>>>(out);
		same("a semaphore", out.get(), { 64 });
	}
	{
		std::vector<float> want(64);
		for (int t = 0; t < 32; t++) {
			want[t * 2] = 1 - (float)t * t;
			want[t * 2 + 1] = 2 * (float)t + 4;
		}
		Device<float> out(64);
		types<<<1, 32>>>(out);
		same("array, complex, tuple", out.get(), want);
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
