/*
 * Narrow floats: f16, bf16 and fp8 arithmetic and conversions, compared with the headers' own host functions and with wider arithmetic.
 */
#include "t.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

template <class T, class T2>
__global__ void
arithmetic(const T *a, const T *b, T *out, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	T *o = out + i * 12;
	o[0] = __hadd(a[i], b[i]);
	o[1] = __hsub(a[i], b[i]);
	o[2] = __hmul(a[i], b[i]);
	o[3] = __hfma(a[i], b[i], a[i]);
	o[4] = __hmax(a[i], b[i]);
	o[5] = __hmin(a[i], b[i]);
	o[6] = __hneg(a[i]);
	o[7] = __habs(b[i]);
	o[8] = __hdiv(a[i], b[i]);
	o[9] = __hgt(a[i], b[i]) ? a[i] : b[i];
	T2 p, q;
	p.x = a[i], p.y = b[i], q.x = b[i], q.y = b[i];
	T2 r = __hfma2(p, q, p);
	o[10] = r.x;
	o[11] = r.y;
}

__global__ void
conversions(const float *in, unsigned short *h, unsigned short *b, unsigned char *e4, unsigned char *e5, float *back, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	h[i] = __half_as_ushort(__float2half_rn(in[i]));
	b[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
	e4[i] = __nv_cvt_float_to_fp8(in[i], __NV_SATFINITE, __NV_E4M3);
	e5[i] = __nv_cvt_float_to_fp8(in[i], __NV_SATFINITE, __NV_E5M2);
	back[i * 2] = __half2float(__float2half_rz(in[i]));
	back[i * 2 + 1] = __bfloat162float(__float2bfloat16_rn(in[i]));
}

__global__ void
integers(const int *in, unsigned short *h, int *back, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	h[i * 2] = __half_as_ushort(__int2half_rn(in[i]));
	h[i * 2 + 1] = __half_as_ushort(__uint2half_rz((unsigned)in[i] % 70000));
	back[i] = __half2int_rn(__ushort_as_half((unsigned short)in[i])) + __half2short_rz(__ushort_as_half((unsigned short)(in[i] >> 3)));
}

__global__ void
sum_atomic(__half2 *s, __half *one, __nv_bfloat16 *bf)
{
	atomicAdd(s, __floats2half2_rn(1.0f, 0.5f));
	atomicAdd(one, __float2half(0.25f));
	atomicAdd(bf, __float2bfloat16(1.0f));
}

static bool is_nan16(unsigned short x, bool bf) { return bf ? (x & 0x7fff) > 0x7f80 : (x & 0x7fff) > 0x7c00; }

/* correctly rounded: through the header's double conversion */
static __half to(double x, __half) { return __double2half(x); }
static __nv_bfloat16 to(double x, __nv_bfloat16) { return __double2bfloat16(x); }
static double from(__half x) { return (double)__half2float(x); }
static double from(__nv_bfloat16 x) { return (double)__bfloat162float(x); }

/* x * y + z rounded to odd, so that the rounding to the narrow type that follows is the only one that counts. */
static double
fused(double x, double y, double z)
{
	double p = x * y, s = p + z, back = s - p, error = (p - (s - back)) + (z - back);
	uint64_t bits;
	memcpy(&bits, &s, 8);
	if (error != 0 && error == error && !std::isinf(s) && !(bits & 1))
		s = std::nextafter(s, error > 0 ? INFINITY : -INFINITY);
	return s;
}

template <class T, class T2>
static void
check(const char *name, bool bf)
{
	Random r(bf ? 5 : 3);
	const int n = 4000;
	std::vector<T> a(n), b(n);
	for (int i = 0; i < n; i++) {
		unsigned short x = (unsigned short)r.next(), y = (unsigned short)r.next();
		if (i % 2) { /* numbers of like size, so that sums round */
			x = (unsigned short)((x & 0x83ff) | (bf ? 0x3f80 : 0x3c00));
			y = (unsigned short)((y & 0x8bff) | (bf ? 0x3f00 : 0x3400));
		}
		memcpy(&a[i], &x, 2);
		memcpy(&b[i], &y, 2);
	}
	Device<T> da(a), db(b), out(n * 12);
	arithmetic<T, T2><<<(n + 127) / 128, 128>>>(da.p, db.p, out.p, n);
	CU(cudaGetLastError());
	std::vector<T> got = out.get();
	int wrong = 0, first = -1;
	for (int i = 0; i < n; i++) {
		double x = from(a[i]), y = from(b[i]);
		T want[12];
		/* sums and products of such short numbers are exact in double, or so far apart that rounding twice does no harm */
		want[0] = to(x + y, T());
		want[1] = to(x - y, T());
		want[2] = to(x * y, T());
		want[3] = to(fused(x, y, x), T());
		bool nx = x != x, ny = y != y;
		want[4] = nx ? b[i] : ny ? a[i] : x > y || (x == y && !signbit(x)) ? a[i] : b[i];
		want[5] = nx ? b[i] : ny ? a[i] : x < y || (x == y && signbit(x)) ? a[i] : b[i];
		want[6] = to(-x, T());
		want[7] = to(fabs(y), T());
		want[8] = to(x / y, T());
		want[9] = x > y ? a[i] : b[i];
		want[10] = to(fused(x, y, x), T());
		want[11] = to(fused(y, y, y), T());
		for (int k = 0; k < 12; k++) {
			unsigned short g, w;
			memcpy(&g, &got[i * 12 + k], 2);
			memcpy(&w, &want[k], 2);
			bool same_zero = (g & 0x7fff) == 0 && (w & 0x7fff) == 0;
			/* division is not required to be rounded correctly */
			bool near_by = k == 8 && abs((g & 0x7fff) - (w & 0x7fff)) <= 1;
			if (g != w && !(is_nan16(g, bf) && is_nan16(w, bf)) && !same_zero && !near_by) {
				wrong++;
				if (first < 0)
					first = i * 12 + k;
			}
		}
	}
	ok(wrong == 0, name, "%d wrong, the first is %d: %g, from %g and %g", wrong, first % 12, first < 0 ? 0.0 : from(got[first]),
	   first < 0 ? 0.0 : from(a[first / 12]), first < 0 ? 0.0 : from(b[first / 12]));
}

int
main()
{
	cudaDeviceProp p;
	CU(cudaGetDeviceProperties(&p, 0));
	check<__half, __half2>("f16 arithmetic", false);
	check<__nv_bfloat16, __nv_bfloat162>("bf16 arithmetic", true);
	{
		Random r(9);
		const int n = 20000;
		std::vector<float> in(n);
		for (int i = 0; i < n; i++) {
			unsigned x = (unsigned)r.next();
			if (i % 4) /* near the range of the narrow formats */
				x = (x & 0x807fffff) | (100 + r.below(50)) << 23;
			if (i % 8 == 1)
				x &= 0xffffe000;
			memcpy(&in[i], &x, 4);
		}
		in[0] = INFINITY, in[1] = -INFINITY, in[2] = NAN, in[3] = -0.0f, in[4] = 65520, in[5] = 448, in[6] = 464, in[7] = 57344, in[8] = 61440;
		Device<float> din(in), back(n * 2);
		Device<unsigned short> h(n), b(n);
		Device<unsigned char> e4(n), e5(n);
		conversions<<<(n + 127) / 128, 128>>>(din, h, b, e4, e5, back, n);
		CU(cudaGetLastError());
		auto gh = h.get(), gb = b.get();
		auto g4 = e4.get(), g5 = e5.get();
		auto gf = back.get();
		int wrong[6] = { 0 };
		for (int i = 0; i < n; i++) {
			bool nan = in[i] != in[i];
			unsigned short wh = __half_as_ushort(__float2half_rn(in[i])), wb = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
			wrong[0] += gh[i] != wh && !nan;
			wrong[1] += gb[i] != wb && !nan;
			wrong[2] += g4[i] != __nv_cvt_float_to_fp8(in[i], __NV_SATFINITE, __NV_E4M3) && !nan;
			wrong[3] += g5[i] != __nv_cvt_float_to_fp8(in[i], __NV_SATFINITE, __NV_E5M2) && !nan;
			wrong[4] += gf[i * 2] != __half2float(__float2half_rz(in[i])) && !nan;
			wrong[5] += gf[i * 2 + 1] != __bfloat162float(__float2bfloat16_rn(in[i])) && !nan;
		}
		static const char *const names[] = { "float to f16", "float to bf16", "float to e4m3", "float to e5m2", "f16 towards zero and back", "bf16 and back" };
		for (int k = 0; k < 6; k++)
			ok(wrong[k] == 0, names[k], "%d wrong", wrong[k]);
	}
	{
		Random r(11);
		const int n = 5000;
		std::vector<int> in(n);
		for (int &x : in)
			x = (int)r.next() >> r.below(31);
		Device<int> din(in), back(n);
		Device<unsigned short> h(n * 2);
		integers<<<(n + 127) / 128, 128>>>(din, h, back, n);
		auto gh = h.get();
		auto gi = back.get();
		int wrong = 0;
		for (int i = 0; i < n; i++) {
			__half a = __ushort_as_half((unsigned short)in[i]), b = __ushort_as_half((unsigned short)(in[i] >> 3));
			wrong += gh[i * 2] != __half_as_ushort(__int2half_rn(in[i]));
			wrong += gh[i * 2 + 1] != __half_as_ushort(__uint2half_rz((unsigned)in[i] % 70000));
			if (!is_nan16((unsigned short)in[i], false) && !is_nan16((unsigned short)(in[i] >> 3), false))
				wrong += gi[i] != (int)fmin(fmax(rint(from(a)), -2147483648.0), 2147483647.0) + (int)fmin(fmax(trunc(from(b)), -32768.0), 32767.0);
		}
		ok(wrong == 0, "f16 and integers", "%d wrong", wrong);
	}
	{
		Device<__half2> s(1);
		Device<__half> one(1);
		Device<__nv_bfloat16> bf(1);
		s.zero(), one.zero(), bf.zero();
		sum_atomic<<<2, 64>>>(s, one, bf);
		auto gs = s.get()[0];
		ok(__low2float(gs) == 128 && __high2float(gs) == 64 && __half2float(one.get()[0]) == 32 && __bfloat162float(bf.get()[0]) == 128,
		   "atomic sums of narrow floats", "%g %g %g %g", __low2float(gs), __high2float(gs), __half2float(one.get()[0]), __bfloat162float(bf.get()[0]));
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
