/*
 * cuSOLVER: LU and Cholesky factors of a small dense matrix, used to solve for a known vector. Where the library, or cuBLAS
 * under it, has no PTX for the device, calls say so with the library's own errors.
 */
#include "libs.h"

#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#define N 48

static double matrix[N * N], solution[N], right[N];
static int missing;

static int
served(const char *what, int status)
{
	if (status == CUSOLVER_STATUS_SUCCESS)
		return 1;
	printf("# %s answered %d\n", what, status);
	missing++;
	return 0;
}

static void
solve(cusolverDnHandle_t solver, int cholesky)
{
	double *a, *b, *space, got[N];
	int size = 0, *pivots, *info, status;

	MUST(cudaMalloc((void **)&a, sizeof(matrix)));
	MUST(cudaMalloc((void **)&b, sizeof(right)));
	MUST(cudaMalloc((void **)&pivots, N * sizeof(int)));
	MUST(cudaMalloc((void **)&info, sizeof(int)));
	MUST(cudaMemcpy(a, matrix, sizeof(matrix), cudaMemcpyHostToDevice));
	MUST(cudaMemcpy(b, right, sizeof(right), cudaMemcpyHostToDevice));
	status = cholesky ? cusolverDnDpotrf_bufferSize(solver, CUBLAS_FILL_MODE_LOWER, N, a, N, &size)
	                  : cusolverDnDgetrf_bufferSize(solver, N, N, a, N, &size);
	if (!served("bufferSize", status))
		return;
	MUST(cudaMalloc((void **)&space, sizeof(double) * (size_t)(size + 1)));
	status = cholesky ? cusolverDnDpotrf(solver, CUBLAS_FILL_MODE_LOWER, N, a, N, space, size, info)
	                  : cusolverDnDgetrf(solver, N, N, a, N, space, pivots, info);
	if (!served(cholesky ? "potrf" : "getrf", status))
		return;
	status = cholesky ? cusolverDnDpotrs(solver, CUBLAS_FILL_MODE_LOWER, N, 1, a, N, b, N, info)
	                  : cusolverDnDgetrs(solver, CUBLAS_OP_N, N, 1, a, N, pivots, b, N, info);
	if (!served(cholesky ? "potrs" : "getrs", status))
		return;
	MUST(cudaMemcpy(got, b, sizeof(got), cudaMemcpyDeviceToHost));
	for (int i = 0; i < N; i++)
		CHECK(fabs(got[i] - solution[i]) < 1e-9, "%s: element %d is %g instead of %g", cholesky ? "potrs" : "getrs", i, got[i],
		      solution[i]);
}

int
main(void)
{
	cusolverDnHandle_t solver;
	uint32_t seed = 17;

	for (int i = 0; i < N; i++)
		for (int j = 0; j <= i; j++)
			matrix[i * N + j] = matrix[j * N + i] = noise(&seed) + (i == j) * N;
	for (int i = 0; i < N; i++)
		solution[i] = noise(&seed);
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++)
			right[i] += matrix[j * N + i] * solution[j];
	if (served("create", cusolverDnCreate(&solver))) {
		solve(solver, 0);
		solve(solver, 1);
		MUST(cusolverDnDestroy(solver));
	}
	int sticky = cudaDeviceSynchronize();
	CHECK(sticky == 0, "the context holds error %d (%s)", sticky, cudaGetErrorName(sticky));
	if (missing && !failures) {
		printf("# skip the library has no PTX for this device in %d calls\n", missing);
		return EXIT_SKIP;
	}
	return failures != 0;
}
