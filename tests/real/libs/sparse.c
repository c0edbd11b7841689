/*
 * cuSPARSE: a matrix in compressed rows times a vector and times a matrix, against loops on the CPU. Where the library has no
 * PTX for the device, calls say so with the library's own errors.
 */
#include "libs.h"

#include <cuda_runtime_api.h>
#include <cusparse.h>

#define ROWS 200
#define COLS 150
#define WIDE 5

static int offsets[ROWS + 1], columns[ROWS * COLS];
static float values[ROWS * COLS], x[COLS * WIDE], y[ROWS * WIDE];
static int missing;

static void *
on_device(const void *host, size_t size)
{
	void *device;

	MUST(cudaMalloc(&device, size));
	MUST(cudaMemcpy(device, host, size, cudaMemcpyHostToDevice));
	return device;
}

static int
served(const char *what, int status)
{
	if (status == CUSPARSE_STATUS_SUCCESS)
		return 1;
	printf("# %s answered %d (%s)\n", what, status, cusparseGetErrorName(status));
	missing++;
	return 0;
}

static void
compare(const char *what, const float *device, int wide)
{
	float *got = malloc(sizeof(float) * (size_t)(ROWS * wide));

	MUST(cudaMemcpy(got, device, sizeof(float) * (size_t)(ROWS * wide), cudaMemcpyDeviceToHost));
	for (int j = 0; j < wide; j++)
		for (int row = 0; row < ROWS; row++) {
			double sum = 0;
			for (int at = offsets[row]; at < offsets[row + 1]; at++)
				sum += (double)values[at] * x[j * COLS + columns[at]];
			sum = 2 * sum - y[j * ROWS + row];
			CHECK(fabs(got[j * ROWS + row] - sum) < 1e-3, "%s: row %d column %d is %g instead of %g", what, row, j,
			      got[j * ROWS + row], sum);
		}
	free(got);
}

static void
multiply(cusparseHandle_t sparse)
{
	float alpha = 2, beta = -1;
	void *space = NULL;
	size_t size = 0;
	cusparseSpMatDescr_t matrix;
	cusparseDnVecDescr_t in, out;
	cusparseDnMatDescr_t many_in, many_out;
	void *d_offsets = on_device(offsets, sizeof(offsets)), *d_columns = on_device(columns, sizeof(columns));
	void *d_values = on_device(values, sizeof(values)), *dx = on_device(x, sizeof(x)), *dy = on_device(y, sizeof(y));

	MUST(cusparseCreateCsr(&matrix, ROWS, COLS, offsets[ROWS], d_offsets, d_columns, d_values, CUSPARSE_INDEX_32I,
	                       CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F));
	MUST(cusparseCreateDnVec(&in, COLS, dx, CUDA_R_32F));
	MUST(cusparseCreateDnVec(&out, ROWS, dy, CUDA_R_32F));
	if (served("SpMV_bufferSize", cusparseSpMV_bufferSize(sparse, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, matrix, in, &beta, out,
	                                                      CUDA_R_32F, CUSPARSE_SPMV_ALG_DEFAULT, &size))) {
		MUST(cudaMalloc(&space, size + 1));
		if (served("SpMV", cusparseSpMV(sparse, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, matrix, in, &beta, out, CUDA_R_32F,
		                                CUSPARSE_SPMV_ALG_DEFAULT, space)))
			compare("SpMV", dy, 1);
		MUST(cudaFree(space));
	}
	MUST(cudaMemcpy(dy, y, sizeof(y), cudaMemcpyHostToDevice));
	MUST(cusparseCreateDnMat(&many_in, COLS, WIDE, COLS, dx, CUDA_R_32F, CUSPARSE_ORDER_COL));
	MUST(cusparseCreateDnMat(&many_out, ROWS, WIDE, ROWS, dy, CUDA_R_32F, CUSPARSE_ORDER_COL));
	if (served("SpMM_bufferSize", cusparseSpMM_bufferSize(sparse, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE,
	                                                      &alpha, matrix, many_in, &beta, many_out, CUDA_R_32F,
	                                                      CUSPARSE_SPMM_ALG_DEFAULT, &size))) {
		MUST(cudaMalloc(&space, size + 1));
		if (served("SpMM", cusparseSpMM(sparse, CUSPARSE_OPERATION_NON_TRANSPOSE, CUSPARSE_OPERATION_NON_TRANSPOSE, &alpha, matrix,
		                                many_in, &beta, many_out, CUDA_R_32F, CUSPARSE_SPMM_ALG_DEFAULT, space)))
			compare("SpMM", dy, WIDE);
	}
}

int
main(void)
{
	cusparseHandle_t sparse;
	uint32_t seed = 11;
	int version = 0;

	for (int row = 0, at = 0; row < ROWS; row++, offsets[row] = at)
		for (int column = 0; column < COLS; column++)
			if (noise(&seed) > (row % 7 ? 0.8 : 0.2)) {
				columns[at] = column;
				values[at++] = (float)noise(&seed);
			}
	for (int i = 0; i < COLS * WIDE; i++)
		x[i] = (float)noise(&seed);
	for (int i = 0; i < ROWS * WIDE; i++)
		y[i] = (float)noise(&seed);
	if (served("create", cusparseCreate(&sparse))) {
		MUST(cusparseGetVersion(sparse, &version));
		printf("# cuSPARSE %d\n", version);
		multiply(sparse);
		MUST(cusparseDestroy(sparse));
	}
	int sticky = cudaDeviceSynchronize();
	CHECK(sticky == 0, "the context holds error %d (%s)", sticky, cudaGetErrorName(sticky));
	if (missing && !failures) {
		printf("# skip the library has no PTX for this device in %d calls\n", missing);
		return EXIT_SKIP;
	}
	return failures != 0;
}
