// The Mandelbrot set, a pixel a thread. The __f*_rn functions keep products and sums apart, as the CPU's check has them.
#include <vector>

#include "check.h"

const int WIDTH = 480, HEIGHT = 320, LIMIT = 256;

__host__ __device__ static float
product(float a, float b)
{
#ifdef __CUDA_ARCH__
	return __fmul_rn(a, b);
#else
	volatile float p = a * b;
	return p;
#endif
}

__host__ __device__ static int
iterations(float cx, float cy)
{
	float x = 0, y = 0;
	int i = 0;
	for (; i < LIMIT; i++) {
		float xx = product(x, x), yy = product(y, y), xy = product(x, y);
		if (xx + yy > 4.0f)
			break;
		x = xx - yy + cx;
		y = xy + xy + cy;
	}
	return i;
}

__global__ void
mandelbrot(const float *cx, const float *cy, int *out)
{
	int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
	out[py * WIDTH + px] = iterations(cx[px], cy[py]);
}

int
main()
{
	std::vector<float> cx(WIDTH), cy(HEIGHT);
	std::vector<int> got(WIDTH * HEIGHT);
	float *dx, *dy;
	int *dout;
	long wrong = 0;

	for (int i = 0; i < WIDTH; i++)
		cx[i] = -2.0f + 3.0f * i / WIDTH;
	for (int i = 0; i < HEIGHT; i++)
		cy[i] = -1.0f + 2.0f * i / HEIGHT;
	CHECK(cudaMalloc(&dx, WIDTH * sizeof(float)));
	CHECK(cudaMalloc(&dy, HEIGHT * sizeof(float)));
	CHECK(cudaMalloc(&dout, got.size() * sizeof(int)));
	CHECK(cudaMemcpy(dx, cx.data(), WIDTH * sizeof(float), cudaMemcpyHostToDevice));
	CHECK(cudaMemcpy(dy, cy.data(), HEIGHT * sizeof(float), cudaMemcpyHostToDevice));
	mandelbrot<<<dim3(WIDTH / 16, HEIGHT / 16), dim3(16, 16)>>>(dx, dy, dout);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(got.data(), dout, got.size() * sizeof(int), cudaMemcpyDeviceToHost));
	for (int y = 0; y < HEIGHT; y++)
		for (int x = 0; x < WIDTH; x++)
			wrong += got[y * WIDTH + x] != iterations(cx[x], cy[y]);
	CHECK(cudaFree(dx));
	CHECK(cudaFree(dy));
	CHECK(cudaFree(dout));
	return verdict("mandelbrot", wrong);
}
