/*
 * NVIDIA's own libraries, as far as they hold PTX: cuFFT at capability 7.5 computes; those with machine code alone start, and their
 * first kernel fails with the documented error.
 */
#include "t.h"

#include <complex>
#include <dlfcn.h>

typedef int (*plan_1d)(int *, int, int, int);
typedef int (*plan_many)(int *, int, int *, int *, int, int, int *, int, int, int, int);
typedef int (*exec_c2c)(int, void *, void *, int);
typedef int (*exec_r2c)(int, void *, void *);
typedef int (*destroy)(int);

static void *
library(const char *name)
{
	void *l = dlopen(name, RTLD_NOW);
	if (!l)
		skip(name, dlerror());
	return l;
}

template <class F> static F
symbol(void *l, const char *name, F)
{
	F f = (F)dlsym(l, name);
	if (!f) {
		printf("Bail out! no %s\n", name);
		exit(1);
	}
	return f;
}

/* The largest difference from a DFT by its definition, relative to the largest value. */
static double
difference(const std::vector<std::complex<float>> &in, const std::complex<float> *got, int n, int outputs, int sign)
{
	double worst = 0, largest = 0;
	for (int k = 0; k < outputs; k++) {
		std::complex<double> sum = 0;
		for (int i = 0; i < n; i++)
			sum += std::complex<double>(in[i]) * std::polar(1.0, sign * 2 * M_PI * (double)((long long)i * k % n) / n);
		worst = fmax(worst, std::abs(sum - std::complex<double>(got[k])));
		largest = fmax(largest, std::abs(sum));
	}
	return worst / largest;
}

static void
fft(const char *path)
{
	void *l = library(path);
	if (!l)
		return;
	auto plan = symbol(l, "cufftPlan1d", (plan_1d) nullptr);
	auto many = symbol(l, "cufftPlanMany", (plan_many) nullptr);
	auto c2c = symbol(l, "cufftExecC2C", (exec_c2c) nullptr);
	auto r2c = symbol(l, "cufftExecR2C", (exec_r2c) nullptr);
	auto end = symbol(l, "cufftDestroy", (destroy) nullptr);
	Random r;
	for (int n : { 8, 64, 100, 256, 1024, 1001 }) {
		std::vector<std::complex<float>> in(n), out(n);
		for (auto &x : in)
			x = { r.unit() - 0.5f, r.unit() - 0.5f };
		Device<std::complex<float>> d(in);
		int handle = 0, e = plan(&handle, n, 0x29, 1);
		char name[64];
		snprintf(name, sizeof name, "cuFFT of %d points", n);
		if (e || (e = c2c(handle, d.p, d.p, -1))) {
			ok(false, name, "cuFFT error %d", e);
			continue;
		}
		out = d.get();
		double worst = difference(in, out.data(), n, n, -1);
		ok(worst < 2e-6, name, "off by %g", worst);
		e = c2c(handle, d.p, d.p, 1);
		out = d.get();
		double back = 0;
		for (int i = 0; i < n; i++)
			back = fmax(back, std::abs(out[i] / (float)n - in[i]));
		snprintf(name, sizeof name, "and back, %d points", n);
		ok(e == 0 && back < 1e-5, name, "error %d, off by %g", e, back);
		end(handle);
	}
	{
		int n = 128, batch = 5, handle = 0;
		std::vector<float> in(n * batch);
		for (float &x : in)
			x = r.unit();
		Device<float> d(in);
		Device<std::complex<float>> out((n / 2 + 1) * batch);
		int e = many(&handle, 1, &n, nullptr, 1, n, nullptr, 1, n / 2 + 1, 0x2a, batch);
		if (!e)
			e = r2c(handle, d.p, out.p);
		double worst = 0;
		auto got = out.get();
		for (int b = 0; b < batch && !e; b++) {
			std::vector<std::complex<float>> row(in.begin() + b * n, in.begin() + (b + 1) * n);
			worst = fmax(worst, difference(row, got.data() + b * (n / 2 + 1), n, n / 2 + 1, -1));
		}
		ok(e == 0 && worst < 2e-6, "cuFFT of real numbers, five at a time", "error %d, off by %g", e, worst);
		end(handle);
	}
}

static void
blas(const char *path)
{
	void *l = library(path);
	if (!l)
		return;
	auto create = symbol(l, "cublasCreate_v2", (int (*)(void **)) nullptr);
	auto gemm = symbol(l, "cublasSgemm_v2", (int (*)(void *, int, int, int, int, int, const float *, const float *, int, const float *, int,
	                                                 const float *, float *, int)) nullptr);
	void *handle = nullptr;
	int e = create(&handle);
	if (e) { /* its first kernels are loaded here already */
		ok(e == 1 || e == 3 || e == 8, "cuBLAS has machine code alone, and says so", "status %d", e);
		return;
	}
	const int n = 32;
	std::vector<float> a(n * n), b(n * n), want(n * n);
	Random r;
	for (int i = 0; i < n * n; i++) {
		a[i] = r.unit();
		b[i] = r.unit();
	}
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++)
			for (int k = 0; k < n; k++)
				want[j * n + i] += a[k * n + i] * b[j * n + k];
	Device<float> da(a), db(b), dc(n * n);
	float one = 1, zero = 0;
	e = gemm(handle, 0, 0, n, n, n, &one, da, n, db, n, &zero, dc, n);
	cudaError_t s = cudaDeviceSynchronize();
	if (e == 0 && s == cudaSuccess)
		near("cuBLAS computes", dc.get(), want, 1e-4);
	else /* architecture mismatch, execution failed, internal error, not supported */
		ok(e == 8 || (e >= 13 && e <= 15) || s == cudaErrorNoKernelImageForDevice, "cuBLAS has machine code alone, and says so", "status %d, %s", e, cudaGetErrorName(s));
	cudaGetLastError();
}

static void
random_numbers(const char *path, bool computes)
{
	void *l = library(path);
	if (!l)
		return;
	auto create = symbol(l, "curandCreateGenerator", (int (*)(void **, int)) nullptr);
	auto uniform = symbol(l, "curandGenerateUniform", (int (*)(void *, float *, size_t)) nullptr);
	void *generator = nullptr;
	int e = create(&generator, 100);
	ok(e == 0, "cuRAND starts", "status %d", e);
	if (e)
		return;
	Device<float> d(1000);
	e = uniform(generator, d, 1000);
	cudaError_t s = cudaDeviceSynchronize();
	double sum = 0;
	for (float x : d.get())
		sum += x;
	if (e == 0 && s == cudaSuccess)
		ok(fabs(sum / 1000 - 0.5) < 0.05, "cuRAND computes", "mean %g", sum / 1000);
	else if (computes)
		ok(false, "cuRAND computes", "status %d, %s", e, cudaGetErrorName(s));
	else /* 201: launch failure, 204: architecture mismatch, 203: initialisation failed */
		ok(e == 201 || e == 204 || e == 203 || s == cudaErrorNoKernelImageForDevice, "cuRAND has machine code alone, and says so", "status %d, %s", e, cudaGetErrorName(s));
	cudaGetLastError();
}

static void
sparse(const char *path)
{
	void *l = library(path);
	if (!l)
		return;
	auto create = symbol(l, "cusparseCreate", (int (*)(void **)) nullptr);
	void *handle = nullptr;
	int e = create(&handle);
	ok(e == 0, "cuSPARSE starts", "status %d", e);
}

int
main(int argc, char **argv)
{
	const char *which = argc > 1 ? argv[1] : "";
	CU(cudaFree(nullptr));
	if (strcmp(which, "cufft") == 0)
		fft(argc > 2 ? argv[2] : "libcufft.so.12");
	else if (strcmp(which, "cublas") == 0)
		blas(argc > 2 ? argv[2] : "libcublas.so.13");
	else if (strcmp(which, "curand") == 0)
		random_numbers(argc > 2 ? argv[2] : "libcurand.so.10", argc > 3);
	else if (strcmp(which, "cusparse") == 0)
		sparse(argc > 2 ? argv[2] : "libcusparse.so.12");
	else
		skip("libraries", "names one: cufft, cublas, curand, cusparse");
	T_END();
}
