// Histogram of bytes: shared-memory atomics per block, then global atomics.
#include <vector>

#include "check.h"

__global__ void
histogram(const unsigned char *in, unsigned *out, int n)
{
	__shared__ unsigned bins[256];
	bins[threadIdx.x] = 0;
	__syncthreads();
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&bins[in[i]], 1);
	__syncthreads();
	atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
}

int
main()
{
	const int n = 1 << 20;
	std::vector<unsigned char> in(n);
	unsigned *dout, got[256], expected[256] = {}, state = 1;
	unsigned char *din;
	long wrong = 0;

	for (auto &value : in) {
		state = state * 1664525u + 1013904223u;
		value = state >> 24 & state >> 16;
		expected[value]++;
	}
	CHECK(cudaMalloc(&din, n));
	CHECK(cudaMalloc(&dout, sizeof(got)));
	CHECK(cudaMemcpy(din, in.data(), n, cudaMemcpyHostToDevice));
	CHECK(cudaMemset(dout, 0, sizeof(got)));
	histogram<<<32, 256>>>(din, dout, n);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(got, dout, sizeof(got), cudaMemcpyDeviceToHost));
	for (int i = 0; i < 256; i++)
		wrong += got[i] != expected[i];
	CHECK(cudaFree(din));
	CHECK(cudaFree(dout));
	return verdict("histogram", wrong);
}
