/*
 * A program of a user of cuFFT or cuBLAS: trips fft|blas ROUNDS. bench/trips.py counts what a round asks of the driver. It links nothing of CUDA's;
 * the libraries are those that the loader finds. It checks no results: tests/real/libs does.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *
symbol(void *library, const char *name)
{
	void *found = library ? dlsym(library, name) : NULL;

	if (!found) {
		fprintf(stderr, "%s: %s\n", name, dlerror());
		exit(77);
	}
	return found;
}
#define FROM(library, name, ...) int (*name)(__VA_ARGS__) = symbol(library, #name)
#define OK(call) do { int result_ = (call); if (result_) { fprintf(stderr, "%s: %d\n", #call, result_); exit(1); } } while (0)

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "fft";
	int rounds = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 100;
	void *runtime = dlopen("libcudart.so.13", RTLD_NOW), *a, *b, *stream;
	FROM(runtime, cudaMalloc, void **, size_t);
	FROM(runtime, cudaMemcpyAsync, void *, const void *, size_t, int, void *);
	FROM(runtime, cudaMallocHost, void **, size_t);
	FROM(runtime, cudaStreamCreate, void **);
	FROM(runtime, cudaStreamSynchronize, void *);
	float *host, one = 1, zero = 0;
	const int n = 64;

	OK(cudaStreamCreate(&stream));
	OK(cudaMalloc(&a, 1 << 20));
	OK(cudaMalloc(&b, 1 << 20));
	OK(cudaMallocHost((void **)&host, 1 << 20));
	memset(host, 0, 1 << 20);
	if (strcmp(what, "fft") == 0) {
		void *library = dlopen("libcufft.so.12", RTLD_NOW);
		FROM(library, cufftPlan1d, int *, int, int, int);
		FROM(library, cufftSetStream, int, void *);
		FROM(library, cufftExecC2C, int, void *, void *, int);
		int plan;
		OK(cufftPlan1d(&plan, 1024, 0x29, 8));
		OK(cufftSetStream(plan, stream));
		for (int i = 0; i < rounds; i++) {
			OK(cudaMemcpyAsync(a, host, 65536, 1, stream));
			OK(cufftExecC2C(plan, a, b, -1));
			OK(cufftExecC2C(plan, b, a, 1));
			OK(cudaMemcpyAsync(host, a, 65536, 2, stream));
			OK(cudaStreamSynchronize(stream));
		}
	} else {
		void *library = dlopen("libcublas.so.13", RTLD_NOW), *handle;
		FROM(library, cublasCreate_v2, void **);
		FROM(library, cublasSetStream_v2, void *, void *);
		FROM(library, cublasSgemmStridedBatched, void *, int, int, int, int, int, const float *, const float *, int, long long, const float *, int,
		     long long, const float *, float *, int, long long, int);
		FROM(library, cublasSaxpy_v2, void *, int, const float *, const float *, int, float *, int);
		OK(cublasCreate_v2(&handle));
		OK(cublasSetStream_v2(handle, stream));
		for (int i = 0; i < rounds; i++) {
			OK(cudaMemcpyAsync(a, host, 65536, 1, stream));
			OK(cublasSgemmStridedBatched(handle, 0, 0, n, n, n, &one, a, n, n * n, a, n, n * n, &zero, b, n, n * n, 4));
			OK(cublasSaxpy_v2(handle, n * n, &one, b, 1, a, 1));
			OK(cudaMemcpyAsync(host, b, 65536, 2, stream));
			OK(cudaStreamSynchronize(stream));
		}
	}
	return 0;
}
