// c[i] = a[i] + b[i] for a million elements.   nvcc -o vector_add vector_add.cu; farwarp run -- ./vector_add
#include <vector>

#include "check.h"

__global__ void
vector_add(const float *a, const float *b, float *c, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		c[i] = a[i] + b[i];
}

int
main()
{
	const int n = 1 << 20;
	std::vector<float> a(n), b(n), c(n);
	float *da, *db, *dc;
	long wrong = 0;

	for (int i = 0; i < n; i++) {
		a[i] = i;
		b[i] = 0.5f * i;
	}
	CHECK(cudaMalloc(&da, n * sizeof(float)));
	CHECK(cudaMalloc(&db, n * sizeof(float)));
	CHECK(cudaMalloc(&dc, n * sizeof(float)));
	CHECK(cudaMemcpy(da, a.data(), n * sizeof(float), cudaMemcpyHostToDevice));
	CHECK(cudaMemcpy(db, b.data(), n * sizeof(float), cudaMemcpyHostToDevice));
	vector_add<<<(n + 255) / 256, 256>>>(da, db, dc, n);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(c.data(), dc, n * sizeof(float), cudaMemcpyDeviceToHost));
	for (int i = 0; i < n; i++)
		wrong += c[i] != a[i] + b[i];
	CHECK(cudaFree(da));
	CHECK(cudaFree(db));
	CHECK(cudaFree(dc));
	return verdict("vector_add", wrong);
}
