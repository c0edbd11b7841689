/*
 * The mathematical functions, float and double, against the host's, within a few units in the last place; with -DFAST the compiler's
 * fast forms within their looser bounds. Intrinsics with explicit rounding are compared exactly.
 */
#include "t.h"

#include <cfenv>

#define EACH_FUNCTION(X) \
	X(sin, -50, 50, 3) X(cos, -50, 50, 3) X(tan, -1.5, 1.5, 5) X(exp, -80, 80, 3) X(exp2, -100, 100, 3) X(log, 0.001, 1000, 3) X(log2, 0.001, 1000, 3) \
	X(log10, 0.001, 1000, 4) X(log1p, -0.9, 100, 3) X(expm1, -5, 5, 3) X(sqrt, 0, 1e6, 1) X(rsqrt, 0.001, 1e6, 3) X(cbrt, -1000, 1000, 3) \
	X(asin, -1, 1, 5) X(acos, -1, 1, 5) X(atan, -100, 100, 5) X(sinh, -10, 10, 5) X(cosh, -10, 10, 5) X(tanh, -5, 5, 5) X(asinh, -100, 100, 5) \
	X(acosh, 1, 100, 5) X(atanh, -0.99, 0.99, 5) X(erf, -4, 4, 5) X(erfc, -3, 3, 8) X(tgamma, 0.1, 20, 12) X(lgamma, 3, 100, 8) X(floor, -1e5, 1e5, 0) \
	X(ceil, -1e5, 1e5, 0) X(trunc, -1e5, 1e5, 0) X(rint, -1e5, 1e5, 0) X(round, -1e5, 1e5, 0)

enum function {
#define ONE(name, lo, hi, ulps) F_##name,
	EACH_FUNCTION(ONE)
#undef ONE
	FUNCTIONS
};

template <class T> __device__ T
apply(int f, T x)
{
	switch (f) {
#define ONE(name, lo, hi, ulps) case F_##name: return name(x);
	EACH_FUNCTION(ONE)
#undef ONE
	}
	return 0;
}

template <class T> __global__ void
all(const T *in, T *out, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		out[blockIdx.y * n + i] = apply(blockIdx.y, in[blockIdx.y * n + i]);
}

static long double
host(int f, double x)
{
	long double y = x;
	switch (f) {
#define rsqrt(v) (1 / std::sqrt(v))
#define exp2(v) std::exp2(v)
#define log2(v) std::log2(v)
#define ONE(name, lo, hi, ulps) case F_##name: { using namespace std; return name(y); }
	EACH_FUNCTION(ONE)
#undef ONE
#undef rsqrt
#undef exp2
#undef log2
	}
	return 0;
}

static const struct { const char *name; double lo, hi, ulps; } functions[] = {
#define ONE(name, lo, hi, ulps) { #name, lo, hi, ulps },
	EACH_FUNCTION(ONE)
#undef ONE
};

template <class T> static void
check(const char *type, double looseness)
{
	const int n = 500;
	Random r(sizeof(T));
	std::vector<T> in(n * FUNCTIONS);
	for (int f = 0; f < FUNCTIONS; f++)
		for (int i = 0; i < n; i++)
			in[f * n + i] = (T)(functions[f].lo + (functions[f].hi - functions[f].lo) * ((r.next() >> 11) * 0x1p-53));
	Device<T> din(in), dout(n * FUNCTIONS);
	all<T><<<dim3((n + 127) / 128, FUNCTIONS), 128>>>(din.p, dout.p, n);
	CU(cudaGetLastError());
	std::vector<T> got = dout.get();
	for (int f = 0; f < FUNCTIONS; f++) {
		double worst = 0;
		int where = 0;
		for (int i = 0; i < n; i++) {
			long double want = host(f, (double)in[f * n + i]);
			double e;
			T w = (T)want;
			double ulp = fabs((double)(std::nextafter(w, (T)INFINITY) - w));
			e = (double)fabsl((long double)got[f * n + i] - want) / (ulp > 0 ? ulp : 1e-300);
			if (looseness > 1) /* fast forms have absolute bounds too */
				e = fabs((double)got[f * n + i] - (double)want) <= 2e-5 * fmax(1, fabs((double)want)) ? 0 : e;
			if (!(e <= worst)) {
				worst = e;
				where = i;
			}
		}
		char name[64];
		snprintf(name, sizeof name, "%s, %s", functions[f].name, type);
		ok(worst <= functions[f].ulps * looseness + 0.51, name, "%.2f ulp at %.17g: %.17g, not %.17Lg", worst, (double)in[f * n + where],
		   (double)got[f * n + where], host(f, (double)in[f * n + where]));
	}
}

__global__ void
intrinsics(const float *a, const float *b, const double *c, const double *d, float *f, double *g, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	float *o = f + i * 16;
	double *p = g + i * 16;
	o[0] = __fadd_rz(a[i], b[i]), o[1] = __fadd_ru(a[i], b[i]), o[2] = __fadd_rd(a[i], b[i]), o[3] = __fmul_rz(a[i], b[i]);
	o[4] = __fmul_ru(a[i], b[i]), o[5] = __fdiv_rn(a[i], b[i]), o[6] = __fdiv_rd(a[i], b[i]), o[7] = __fsqrt_ru(fabsf(a[i]));
	o[8] = __fmaf_rn(a[i], b[i], a[i]), o[9] = __fmaf_rz(a[i], b[i], b[i]), o[10] = __frcp_rn(b[i]), o[11] = __double2float_ru(c[i]);
	o[12] = __int2float_rz((int)(c[i] * 1e5)), o[13] = __ull2float_rd((unsigned long long)fabs(c[i] * 1e15)), o[14] = __saturatef(a[i]), o[15] = (float)__float2int_rd(b[i]);
	p[0] = __dadd_rz(c[i], d[i]), p[1] = __dadd_ru(c[i], d[i]), p[2] = __dmul_rd(c[i], d[i]), p[3] = __ddiv_rz(c[i], d[i]);
	p[4] = __dsqrt_rd(fabs(c[i])), p[5] = __fma_ru(c[i], d[i], c[i]), p[6] = __drcp_rn(d[i]), p[7] = (double)__double2ll_rn(c[i] * 1e9);
	p[8] = __longlong_as_double(__double_as_longlong(d[i]) ^ 1), p[9] = __hiloint2double(__double2hiint(c[i]), 0), p[10] = fmod(c[i] * 100, d[i]), p[11] = fmax(c[i], d[i]);
	p[12] = ldexp(c[i], i % 40 - 20), p[13] = copysign(c[i], d[i]), p[14] = __ll2double_rn((long long)(c[i] * 1e12)), p[15] = remainder(c[i] * 10, d[i]);
}

template <class T> static T add_(T a, T b, int m) { fesetround(m); volatile T x = a, y = b; volatile T r = x + y; fesetround(FE_TONEAREST); return r; }
template <class T> static T mul_(T a, T b, int m) { fesetround(m); volatile T x = a, y = b; volatile T r = x * y; fesetround(FE_TONEAREST); return r; }
template <class T> static T div_(T a, T b, int m) { fesetround(m); volatile T x = a, y = b; volatile T r = x / y; fesetround(FE_TONEAREST); return r; }
template <class T> static T sqrt_(T a, int m) { fesetround(m); volatile T x = a; volatile T r = std::sqrt(x); fesetround(FE_TONEAREST); return r; }
template <class T> static T fma_(T a, T b, T c, int m) { fesetround(m); volatile T x = a, y = b, z = c; volatile T r = std::fma((T)x, (T)y, (T)z); fesetround(FE_TONEAREST); return r; }
static float narrow_(double a, int m) { fesetround(m); volatile double x = a; volatile float r = (float)x; fesetround(FE_TONEAREST); return r; }
template <class I> static float int_(I a, int m) { fesetround(m); volatile I x = a; volatile float r = (float)x; fesetround(FE_TONEAREST); return r; }

int
main()
{
#ifdef FAST
	check<float>("float, fast", 1000);
#else
	check<float>("float", 1);
	const int n = 3000;
	Random r(77);
	std::vector<float> a(n), b(n), wf(n * 16);
	std::vector<double> c(n), d(n), wd(n * 16);
	for (int i = 0; i < n; i++) {
		a[i] = (r.unit() - 0.5f) * exp2f((float)r.below(20) - 10);
		b[i] = (r.unit() + 0.01f) * exp2f((float)r.below(20) - 10) * (i % 2 ? 1 : -1);
		c[i] = ((double)(r.next() >> 11) * 0x1p-53 - 0.5) * exp2((int)r.below(20) - 10);
		d[i] = ((double)(r.next() >> 11) * 0x1p-53 + 0.01) * (i % 3 ? 1 : -1);
		float *o = &wf[i * 16];
		double *p = &wd[i * 16];
		const int N = FE_TONEAREST, Z = FE_TOWARDZERO, U = FE_UPWARD, D = FE_DOWNWARD;
		o[0] = add_(a[i], b[i], Z), o[1] = add_(a[i], b[i], U), o[2] = add_(a[i], b[i], D), o[3] = mul_(a[i], b[i], Z);
		o[4] = mul_(a[i], b[i], U), o[5] = div_(a[i], b[i], N), o[6] = div_(a[i], b[i], D), o[7] = sqrt_(fabsf(a[i]), U);
		o[8] = fma_(a[i], b[i], a[i], N), o[9] = fma_(a[i], b[i], b[i], Z), o[10] = div_(1.0f, b[i], N), o[11] = narrow_(c[i], U);
		o[12] = int_((int)(c[i] * 1e5), Z), o[13] = int_((unsigned long long)fabs(c[i] * 1e15), D), o[14] = fminf(fmaxf(a[i], 0), 1), o[15] = floorf(b[i]);
		p[0] = add_(c[i], d[i], Z), p[1] = add_(c[i], d[i], U), p[2] = mul_(c[i], d[i], D), p[3] = div_(c[i], d[i], Z);
		p[4] = sqrt_(fabs(c[i]), D), p[5] = fma_(c[i], d[i], c[i], U), p[6] = div_(1.0, d[i], N), p[7] = (double)llrint(c[i] * 1e9);
		uint64_t bits;
		memcpy(&bits, &d[i], 8);
		bits ^= 1;
		memcpy(&p[8], &bits, 8);
		memcpy(&bits, &c[i], 8);
		bits &= 0xffffffff00000000;
		memcpy(&p[9], &bits, 8);
		p[10] = fmod(c[i] * 100, d[i]), p[11] = fmax(c[i], d[i]), p[12] = ldexp(c[i], i % 40 - 20), p[13] = copysign(c[i], d[i]);
		p[14] = (double)(long long)(c[i] * 1e12), p[15] = remainder(c[i] * 10, d[i]);
	}
	Device<float> da(a), db(b), df(n * 16);
	Device<double> dc(c), dd(d), dg(n * 16);
	intrinsics<<<(n + 127) / 128, 128>>>(da, db, dc, dd, df, dg, n);
	CU(cudaGetLastError());
	std::vector<float> gf = df.get();
	for (size_t i = 0; i < gf.size(); i++)
		if (gf[i] == 0 && wf[i] == 0)
			gf[i] = wf[i]; /* the sign of zero is not what this is about */
	same("float intrinsics with rounding", gf, wf);
	same("double intrinsics with rounding", dg.get(), wd);
#endif
	check<double>("double", 1);
	T_END();
}
