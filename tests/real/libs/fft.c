/*
 * cuFFT against a DFT on the CPU: complex and real, single and double, sizes of each of its algorithms (powers of two, mixed
 * radix, primes), batches, two and three dimensions, in place and not.
 */
#include "libs.h"

#include <complex.h>
#include <cuda_runtime_api.h>
#include <cufft.h>

typedef double complex cplx;

static double worst_single, worst_double; /* over all cases, of the root mean square of the result */
static const double pi = 3.14159265358979323846;

static cplx
make(double re, double im)
{
	return CMPLX(re, im);
}

/* One transform of n numbers that lie `stride` apart, in place; by definition, with the angles from a table. */
static void
dft_line(cplx *x, int n, int stride, int sign)
{
	cplx *root = malloc(sizeof(*root) * (size_t)n), *y = malloc(sizeof(*y) * (size_t)n);

	for (int i = 0; i < n; i++)
		root[i] = make(cos(2 * pi * i / n), sign * sin(2 * pi * i / n));
	for (int k = 0; k < n; k++) {
		cplx sum = 0;
		for (int i = 0, at = 0; i < n; i++, at = (at + k) % n)
			sum += x[(size_t)i * (size_t)stride] * root[at];
		y[k] = sum;
	}
	for (int k = 0; k < n; k++)
		x[(size_t)k * (size_t)stride] = y[k];
	free(root);
	free(y);
}

static void
dft(cplx *x, int rank, const int *dims, int sign)
{
	int total = 1, stride = 1;

	for (int d = 0; d < rank; d++)
		total *= dims[d];
	for (int d = rank - 1; d >= 0; stride *= dims[d--])
		for (int i = 0; i < total; i++)
			if (i / stride % dims[d] == 0)
				dft_line(x + i, dims[d], stride, sign);
}

static void
compare(const char *what, const cplx *got, const cplx *wanted, int n, double tolerance)
{
	double worst = 0, norm = 0;

	for (int i = 0; i < n; i++) {
		double error = cabs(got[i] - wanted[i]);
		worst = error > worst || error != error ? error : worst;
		norm += cabs(wanted[i]) * cabs(wanted[i]);
	}
	norm = sqrt(norm / n);
	double *most = tolerance < 1e-8 ? &worst_double : &worst_single;
	if (norm > 0 && worst / norm > *most)
		*most = worst / norm;
	CHECK(worst <= tolerance * norm, "%s: worst error %g of %g", what, worst, norm);
}

static int
product(int rank, const int *dims)
{
	int total = 1;

	for (int d = 0; d < rank; d++)
		total *= dims[d];
	return total;
}

static void
name_it(char *name, size_t size, const char *kind, int rank, const int *dims, int batch)
{
	int used = snprintf(name, size, "%s", kind);

	for (int d = 0; d < rank; d++)
		used += snprintf(name + used, size - (size_t)used, "%c%d", d ? 'x' : ' ', dims[d]);
	snprintf(name + used, size - (size_t)used, " batch %d", batch);
}

/* Forward and back, complex. */
static void
complex_case(int rank, int *dims, int batch, int twice)
{
	int n = product(rank, dims), all = n * batch;
	size_t width = twice ? sizeof(cufftDoubleComplex) : sizeof(cufftComplex), bytes = width * (size_t)all;
	cplx *x = malloc(sizeof(*x) * (size_t)all), *y = malloc(sizeof(*y) * (size_t)all), *back = malloc(sizeof(*x) * (size_t)all);
	char *host = malloc(bytes), name[100];
	void *in, *out;
	uint32_t seed = (uint32_t)n;
	cufftHandle plan;

	name_it(name, sizeof(name), twice ? "Z2Z" : "C2C", rank, dims, batch);
	for (int i = 0; i < all; i++) {
		double re = noise(&seed), im = noise(&seed);
		if (twice)
			((cufftDoubleComplex *)(void *)host)[i] = (cufftDoubleComplex){ re, im };
		else
			((cufftComplex *)(void *)host)[i] = (cufftComplex){ (float)re, (float)im };
		x[i] = twice ? make(re, im) : make((float)re, (float)im);
		y[i] = x[i];
		x[i] *= n; /* what comes back is not scaled */
	}
	MUST(cudaMalloc(&in, bytes));
	MUST(cudaMalloc(&out, bytes));
	MUST(cudaMemcpy(in, host, bytes, cudaMemcpyHostToDevice));
	int status = cufftPlanMany(&plan, rank, dims, NULL, 1, n, NULL, 1, n, twice ? CUFFT_Z2Z : CUFFT_C2C, batch);
	CHECK(status == CUFFT_SUCCESS, "%s: plan answered %d", name, status);
	for (int direction = 0; status == CUFFT_SUCCESS && direction < 2; direction++) {
		int way = direction ? CUFFT_INVERSE : CUFFT_FORWARD;
		void *from = direction ? out : in; /* back: in place */
		if (twice)
			status = cufftExecZ2Z(plan, from, out, way);
		else
			status = cufftExecC2C(plan, from, out, way);
		CHECK(status == CUFFT_SUCCESS, "%s: exec answered %d", name, status);
		int copied = cudaMemcpy(host, out, bytes, cudaMemcpyDeviceToHost);
		CHECK(copied == 0, "%s: copy answered %d", name, copied);
		for (int i = 0; i < all; i++)
			back[i] = twice ? make(((cufftDoubleComplex *)(void *)host)[i].x, ((cufftDoubleComplex *)(void *)host)[i].y)
					: make(((cufftComplex *)(void *)host)[i].x, ((cufftComplex *)(void *)host)[i].y);
		for (int b = 0; direction == 0 && b < batch; b++)
			dft(y + b * n, rank, dims, -1);
		compare(name, back, direction ? x : y, all, twice ? 1e-11 : 2e-5);
	}
	if (status == CUFFT_SUCCESS)
		MUST(cufftDestroy(plan));
	MUST(cudaFree(in));
	MUST(cudaFree(out));
	free(x);
	free(y);
	free(back);
	free(host);
}

/* Real to complex and back; the last dimension of the result holds n/2+1. */
static void
real_case(int rank, int *dims, int batch)
{
	int n = product(rank, dims), last = dims[rank - 1], half = last / 2 + 1, lines = n / last * batch, all = n * batch;
	size_t real_bytes = sizeof(float) * (size_t)all, half_bytes = sizeof(cufftComplex) * (size_t)(lines * half);
	float *host = malloc(real_bytes), *again = malloc(real_bytes);
	cufftComplex *spectrum = malloc(half_bytes);
	cplx *y = malloc(sizeof(*y) * (size_t)all), *got = malloc(sizeof(*got) * (size_t)(all + lines)),
	     *wanted = malloc(sizeof(*wanted) * (size_t)(all + lines));
	char name[100];
	void *in, *out;
	uint32_t seed = (uint32_t)n + 7;
	cufftHandle there, back;

	name_it(name, sizeof(name), "R2C", rank, dims, batch);
	for (int i = 0; i < all; i++) {
		host[i] = (float)noise(&seed);
		y[i] = host[i];
	}
	MUST(cudaMalloc(&in, real_bytes));
	MUST(cudaMalloc(&out, half_bytes));
	MUST(cudaMemcpy(in, host, real_bytes, cudaMemcpyHostToDevice));
	int status = cufftPlanMany(&there, rank, dims, NULL, 1, n, NULL, 1, n / last * half, CUFFT_R2C, batch);
	CHECK(status == CUFFT_SUCCESS, "%s: plan answered %d", name, status);
	if (status != CUFFT_SUCCESS)
		return;
	MUST(cufftPlanMany(&back, rank, dims, NULL, 1, n / last * half, NULL, 1, n, CUFFT_C2R, batch));
	MUST(cufftExecR2C(there, in, out));
	MUST(cudaMemcpy(spectrum, out, half_bytes, cudaMemcpyDeviceToHost));
	for (int b = 0; b < batch; b++)
		dft(y + b * n, rank, dims, -1);
	for (int line = 0, at = 0; line < lines; line++)
		for (int k = 0; k < half; k++, at++) {
			got[at] = make(spectrum[at].x, spectrum[at].y);
			wanted[at] = y[line * last + k];
		}
	compare(name, got, wanted, lines * half, 2e-5);
	MUST(cufftExecC2R(back, out, in));
	MUST(cudaMemcpy(again, in, real_bytes, cudaMemcpyDeviceToHost));
	for (int i = 0; i < all; i++) {
		got[i] = again[i];
		wanted[i] = (double)n * host[i];
	}
	name[0] = 'C', name[2] = 'R';
	compare(name, got, wanted, all, 2e-5);
	MUST(cufftDestroy(there));
	MUST(cufftDestroy(back));
	MUST(cudaFree(in));
	MUST(cudaFree(out));
	free(host);
	free(again);
	free(spectrum);
	free(y);
	free(got);
	free(wanted);
}

/* A power of two of each length, then mixed radices, then primes (which take Bluestein's or Rader's way). */
static int lengths[] = { 1, 2, 4, 8, 16, 64, 256, 1024, 4096, 8192, 3, 5, 6, 7, 9, 10, 11, 12, 13, 15, 30, 49, 77, 100, 121, 169, 210,
	360, 1000, 1001, 2310, 17, 19, 31, 97, 127, 251, 509, 1021, 2039, 34, 289 };
static int planes[][2] = { { 8, 8 }, { 16, 32 }, { 64, 64 }, { 15, 12 }, { 30, 7 }, { 128, 96 }, { 17, 19 } };
static int boxes[][3] = { { 8, 8, 8 }, { 16, 8, 4 }, { 12, 10, 6 } };

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int
main(int argc, char **argv)
{
	cufftHandle probe;
	int version = 0;

	if (argc > 1) { /* one length, for a closer look */
		lengths[0] = atoi(argv[1]);
		complex_case(1, lengths, argc > 2 ? atoi(argv[2]) : 1, 0);
		real_case(1, lengths, argc > 2 ? atoi(argv[2]) : 1);
		return failures != 0;
	}
	MUST(cufftGetVersion(&version));
	printf("# cuFFT %d\n", version);
	int status = cufftPlan1d(&probe, 256, CUFFT_C2C, 1);
	if (status != CUFFT_SUCCESS) {
		printf("# skip the library has no PTX for this device: the first plan answered %d\n", status);
		return EXIT_SKIP;
	}
	MUST(cufftDestroy(probe));
	for (int i = 0; i < COUNT(lengths); i++) {
		complex_case(1, &lengths[i], 1, 0);
		real_case(1, &lengths[i], 1);
	}
	for (int i = 0; i < COUNT(lengths); i += 4)
		complex_case(1, &lengths[i], 3, 1);
	for (int i = 0; i < COUNT(planes); i++) {
		complex_case(2, planes[i], 1, 0);
		real_case(2, planes[i], 2);
	}
	for (int i = 0; i < COUNT(boxes); i++) {
		complex_case(3, boxes[i], 1, 0);
		real_case(3, boxes[i], 1);
	}
	printf("# worst errors: single %.2g, double %.2g\n", worst_single, worst_double);
	return failures != 0;
}
