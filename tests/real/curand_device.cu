/*
 * cuRAND's device generators: the same header code runs on the device and on the host, and must give the same numbers.
 */
#include "t.h"

#define QUALIFIERS static __forceinline__ __host__ __device__
#include <curand_kernel.h>

template <class State>
__global__ void
generate(unsigned *bits, float *uniform, float *normal, int per)
{
	int t = blockIdx.x * blockDim.x + threadIdx.x;
	State s;
	curand_init(1234, t, 0, &s);
	for (int i = 0; i < per; i++) {
		bits[t * per + i] = curand(&s);
		uniform[t * per + i] = curand_uniform(&s);
		normal[t * per + i] = curand_normal(&s);
	}
}

/* The generators alone, step by step on the host. */
template <class State>
static void
check(const char *name)
{
	const int threads = 128, per = 20;
	Device<unsigned> bits(threads * per);
	Device<float> uniform(threads * per), normal(threads * per);
	generate<State><<<2, 64>>>(bits.p, uniform.p, normal.p, per);
	CU(cudaGetLastError());
	std::vector<unsigned> got = bits.get(), want(threads * per);
	std::vector<float> u = uniform.get(), z = normal.get(), wu(threads * per), wz(threads * per);
	double sum = 0, squares = 0;
	for (int t = 0; t < threads; t++) {
		State s;
		curand_init(1234, t, 0, &s);
		for (int i = 0; i < per; i++) {
			want[t * per + i] = curand(&s);
			wu[t * per + i] = curand_uniform(&s);
			wz[t * per + i] = curand_normal(&s);
			sum += z[t * per + i];
			squares += (double)z[t * per + i] * z[t * per + i];
		}
	}
	char title[96];
	snprintf(title, sizeof title, "%s, bits", name);
	same(title, got, want);
	snprintf(title, sizeof title, "%s, uniform", name);
	near(title, u, wu, 1e-6);
	snprintf(title, sizeof title, "%s, normal", name);
	near(title, z, wz, 1e-4, 1e-4);
	int n = threads * per;
	ok(fabs(sum / n) < 0.1 && fabs(squares / n - 1) < 0.15, name, "mean %g, variance %g", sum / n, squares / n);
}

int
main()
{
	check<curandStateXORWOW_t>("XORWOW");
	check<curandStatePhilox4_32_10_t>("Philox 4x32-10");
	check<curandStateMRG32k3a_t>("MRG32k3a");
	T_END();
}
