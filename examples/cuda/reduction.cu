// Sum of a million integers: shuffles inside a warp, one atomic a warp.
#include <vector>

#include "check.h"

__global__ void
reduce(const unsigned *in, unsigned *out, int n)
{
	unsigned sum = 0;
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		sum += in[i];
	for (int step = 16; step; step /= 2)
		sum += __shfl_xor_sync(0xffffffff, sum, step);
	if (threadIdx.x % 32 == 0)
		atomicAdd(out, sum);
}

int
main()
{
	const int n = 1000003;
	std::vector<unsigned> in(n);
	unsigned *din, *dout, got, expected = 0;

	for (int i = 0; i < n; i++)
		expected += in[i] = i * 2654435761u;
	CHECK(cudaMalloc(&din, n * sizeof(unsigned)));
	CHECK(cudaMalloc(&dout, sizeof(unsigned)));
	CHECK(cudaMemcpy(din, in.data(), n * sizeof(unsigned), cudaMemcpyHostToDevice));
	CHECK(cudaMemset(dout, 0, sizeof(unsigned)));
	reduce<<<64, 256>>>(din, dout, n);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(&got, dout, sizeof(unsigned), cudaMemcpyDeviceToHost));
	CHECK(cudaFree(din));
	CHECK(cudaFree(dout));
	return verdict("reduction", got != expected);
}
