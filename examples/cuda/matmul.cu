// C = A x B with 16 x 16 tiles in shared memory.
#include <cmath>
#include <vector>

#include "check.h"

const int TILE = 16;

__global__ void
matmul(const float *a, const float *b, float *c, int n)
{
	__shared__ float ta[TILE][TILE], tb[TILE][TILE];
	int column = blockIdx.x * TILE + threadIdx.x, row = blockIdx.y * TILE + threadIdx.y;
	float sum = 0;

	for (int tile = 0; tile < n / TILE; tile++) {
		ta[threadIdx.y][threadIdx.x] = a[row * n + tile * TILE + threadIdx.x];
		tb[threadIdx.y][threadIdx.x] = b[(tile * TILE + threadIdx.y) * n + column];
		__syncthreads();
		for (int k = 0; k < TILE; k++)
			sum += ta[threadIdx.y][k] * tb[k][threadIdx.x];
		__syncthreads();
	}
	c[row * n + column] = sum;
}

int
main()
{
	const int n = 256;
	size_t bytes = n * n * sizeof(float);
	std::vector<float> a(n * n), b(n * n), c(n * n);
	float *da, *db, *dc;
	long wrong = 0;

	for (int i = 0; i < n * n; i++) {
		a[i] = i % 11 - 5;
		b[i] = i % 13 * 0.25f;
	}
	CHECK(cudaMalloc(&da, bytes));
	CHECK(cudaMalloc(&db, bytes));
	CHECK(cudaMalloc(&dc, bytes));
	CHECK(cudaMemcpy(da, a.data(), bytes, cudaMemcpyHostToDevice));
	CHECK(cudaMemcpy(db, b.data(), bytes, cudaMemcpyHostToDevice));
	matmul<<<dim3(n / TILE, n / TILE), dim3(TILE, TILE)>>>(da, db, dc, n);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(c.data(), dc, bytes, cudaMemcpyDeviceToHost));
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++) {
			double sum = 0;
			for (int k = 0; k < n; k++)
				sum += (double)a[i * n + k] * b[k * n + j];
			wrong += std::fabs(sum - c[i * n + j]) > 1e-3;
		}
	CHECK(cudaFree(da));
	CHECK(cudaFree(db));
	CHECK(cudaFree(dc));
	return verdict("matmul", wrong);
}
