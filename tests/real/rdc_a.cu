/*
 * Separate compilation, first file: calls, variables, constants and virtual functions of the other one.
 */
#include "t.h"
#include "rdc.h"

extern __device__ int from_elsewhere(int x);
extern __device__ int elsewhere_counter;
extern __constant__ int elsewhere_table[4];
__device__ int here(int x) { return x * 100; }

__global__ void call(int *out) { int t = threadIdx.x; out[t] = from_elsewhere(t) + elsewhere_table[t % 4]; atomicAdd(&elsewhere_counter, 1); }
__global__ void objects(int *out) { Base *b = make(threadIdx.x); out[threadIdx.x] = b->value(); delete b; }
extern __global__ void other_kernel(int *out);

int
main()
{
	std::vector<int> want(64), want_objects(64), want_other(64);
	const int table[4] = { 7, 8, 9, 1000 };
	for (int t = 0; t < 64; t++) {
		want[t] = t * 100 + 1 + table[t % 4];
		want_objects[t] = t % 2 ? t * 2 : -t;
		want_other[t] = 64 + t;
	}
	Device<int> out(64);
	call<<<1, 64>>>(out);
	same("functions, variables and constants across files", out.get(), want);
	objects<<<1, 64>>>(out);
	same("virtual functions across files", out.get(), want_objects);
	other_kernel<<<1, 64>>>(out);
	same("a kernel of the other file", out.get(), want_other);
	CU(cudaDeviceSynchronize());
	T_END();
}
