/* For the nvcc examples: stops with a sentence on the first error, prints the verdict. */
#pragma once
#include <cstdio>
#include <cstdlib>

#define CHECK(call) \
	do { \
		cudaError_t error_ = (call); \
		if (error_ != cudaSuccess) { \
			fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(error_)); \
			exit(1); \
		} \
	} while (0)

static int
verdict(const char *what, long wrong)
{
	cudaDeviceProp device;
	CHECK(cudaGetDeviceProperties(&device, 0));
	if (wrong)
		printf("%s on %s: WRONG, %ld values differ from the CPU's\n", what, device.name, wrong);
	else
		printf("%s on %s: right\n", what, device.name);
	return wrong != 0;
}
