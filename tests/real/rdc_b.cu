/*
 * Separate compilation, second file.
 */
#include <cuda_runtime.h>

#include "rdc.h"

extern __device__ int here(int x);
__device__ int elsewhere_counter = 0;
__constant__ int elsewhere_table[4] = { 7, 8, 9, 1000 };

__device__ int from_elsewhere(int x) { return here(x) + 1; }
struct Negative : Base {
	__device__ Negative(int v) : Base(v) {}
	__device__ int value() override { return -x; }
};
__device__ Base *make(int x) { return x % 2 ? new Base(x) : new Negative(x); }
__global__ void other_kernel(int *out) { out[threadIdx.x] = elsewhere_counter + (int)threadIdx.x; }
