/*
 * Matrix instructions: the wmma interface, and mma.sync in inline PTX with the fragments laid out by hand as the PTX ISA draws them, so
 * that a layout that is wrong on both sides cannot hide.
 */
#include "t.h"

#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

using namespace nvcuda;

template <class T, class A, class LayoutA, class LayoutB, int M, int N, int K>
__global__ void
wmma_product(const T *a, const T *b, A *c, int lda, int ldb)
{
	wmma::fragment<wmma::matrix_a, M, N, K, T, LayoutA> fa;
	wmma::fragment<wmma::matrix_b, M, N, K, T, LayoutB> fb;
	wmma::fragment<wmma::accumulator, M, N, K, A> fc;
	wmma::fill_fragment(fc, A(1));
	wmma::load_matrix_sync(fa, a, lda);
	wmma::load_matrix_sync(fb, b, ldb);
	wmma::mma_sync(fc, fa, fb, fc);
	wmma::store_matrix_sync(c, fc, N, wmma::mem_row_major);
}

/* The same where a fragment's type is not that of the memory: tf32. */
template <class T, class F, class A, class LayoutA, class LayoutB, int M, int N, int K>
static __global__ void
wmma_product_of(const T *a, const T *b, A *c, int lda, int ldb)
{
	wmma::fragment<wmma::matrix_a, M, N, K, F, LayoutA> fa;
	wmma::fragment<wmma::matrix_b, M, N, K, F, LayoutB> fb;
	wmma::fragment<wmma::accumulator, M, N, K, A> fc;
	wmma::fill_fragment(fc, A(1));
	wmma::load_matrix_sync(fa, a, lda);
	wmma::load_matrix_sync(fb, b, ldb);
	wmma::mma_sync(fc, fa, fb, fc);
	wmma::store_matrix_sync(c, fc, N, wmma::mem_row_major);
}

static __device__ unsigned pack(__half x, __half y) { return (unsigned)__half_as_ushort(x) | (unsigned)__half_as_ushort(y) << 16; }
static __device__ unsigned pack(__nv_bfloat16 x, __nv_bfloat16 y) { return (unsigned)__bfloat16_as_ushort(x) | (unsigned)__bfloat16_as_ushort(y) << 16; }

/* m16n8k16: a row-major 16x16, b column-major 16x8. Element (row, column) of a lane as the ISA says. */
template <class T>
__global__ void
m16n8k16(const T *a, const T *b, float *c)
{
	int g = threadIdx.x / 4, t = threadIdx.x % 4;
	unsigned ra[4], rb[2];
	float d[4] = { 0.5f, 0.5f, 0.5f, 0.5f };
	for (int i = 0; i < 4; i++) {
		int row = g + (i % 2) * 8, column = t * 2 + (i / 2) * 8;
		ra[i] = pack(a[row * 16 + column], a[row * 16 + column + 1]);
	}
	for (int i = 0; i < 2; i++) {
		int k = t * 2 + i * 8;
		rb[i] = pack(b[k * 8 + g], b[(k + 1) * 8 + g]);
	}
	if (std::is_same<T, __half>::value)
		asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
	else
		asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
	for (int i = 0; i < 4; i++)
		c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

/* The accumulator in f16 as well. */
__global__ void
m16n8k16_half(const __half *a, const __half *b, float *c)
{
	int g = threadIdx.x / 4, t = threadIdx.x % 4;
	unsigned ra[4], rb[2], d[2] = { 0, 0 };
	for (int i = 0; i < 4; i++) {
		int row = g + (i % 2) * 8, column = t * 2 + (i / 2) * 8;
		ra[i] = pack(a[row * 16 + column], a[row * 16 + column + 1]);
	}
	for (int i = 0; i < 2; i++) {
		int k = t * 2 + i * 8;
		rb[i] = pack(b[k * 8 + g], b[(k + 1) * 8 + g]);
	}
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"
	             : "+r"(d[0]), "+r"(d[1]) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
	for (int i = 0; i < 4; i++)
		c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = __half2float(__ushort_as_half((unsigned short)(d[i / 2] >> (16 * (i % 2)))));
}

/* m16n8k32 of bytes: four along k in a register. */
__global__ void
m16n8k32(const signed char *a, const signed char *b, int *c)
{
	int g = threadIdx.x / 4, t = threadIdx.x % 4, d[4] = { 1000, 1000, 1000, 1000 };
	unsigned ra[4] = { 0 }, rb[2] = { 0 };
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < 4; k++)
			ra[i] |= (unsigned)(unsigned char)a[(g + i % 2 * 8) * 32 + t * 4 + k + i / 2 * 16] << (8 * k);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 4; k++)
			rb[i] |= (unsigned)(unsigned char)b[(t * 4 + k + i * 16) * 8 + g] << (8 * k);
	asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
	for (int i = 0; i < 4; i++)
		c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

__global__ void
m16n8k8_tf32(const float *a, const float *b, float *c)
{
	int g = threadIdx.x / 4, t = threadIdx.x % 4;
	unsigned ra[4], rb[2];
	float d[4] = { 0, 0, 0, 0 };
	for (int i = 0; i < 4; i++)
		asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(ra[i]) : "f"(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]));
	for (int i = 0; i < 2; i++)
		asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rb[i]) : "f"(b[(t + i * 4) * 8 + g]));
	asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
	for (int i = 0; i < 4; i++)
		c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

__global__ void
m8n8k4_double(const double *a, const double *b, double *c)
{
	int g = threadIdx.x / 4, t = threadIdx.x % 4;
	double d[2] = { 0, 0 }, ra = a[g * 4 + t], rb = b[t * 8 + g];
	asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+d"(d[0]), "+d"(d[1]) : "d"(ra), "d"(rb));
	c[g * 8 + t * 2] = d[0];
	c[g * 8 + t * 2 + 1] = d[1];
}

/* ldmatrix: four 8x8 matrices, plain and transposed. Lane l gets two elements of row l / 4 of each. */
__global__ void
load_matrix(unsigned *out)
{
	__shared__ __align__(16) unsigned short m[4][8][8];
	int l = threadIdx.x;
	for (int i = l; i < 256; i += 32)
		(&m[0][0][0])[i] = (unsigned short)i;
	__syncwarp();
	unsigned address = (unsigned)__cvta_generic_to_shared(&m[l / 8][l % 8][0]), r[4], s[4];
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(s[0]), "=r"(s[1]), "=r"(s[2]), "=r"(s[3]) : "r"(address));
	for (int i = 0; i < 4; i++) {
		out[l * 8 + i] = r[i];
		out[l * 8 + 4 + i] = s[i];
	}
}

template <class T> static double wide(T x) { return (double)(float)x; }
static double wide(double x) { return x; }

template <class T>
static std::vector<double>
product(const std::vector<T> &a, const std::vector<T> &b, int m, int n, int k, double start)
{
	std::vector<double> c(m * n, start);
	for (int i = 0; i < m; i++)
		for (int j = 0; j < n; j++)
			for (int x = 0; x < k; x++)
				c[i * n + j] += wide(a[i * k + x]) * wide(b[x * n + j]);
	return c;
}

template <class T>
static std::vector<double>
doubles(const std::vector<T> &v)
{
	return std::vector<double>(v.begin(), v.end());
}

template <class T>
static std::vector<T>
numbers(int n, uint64_t seed)
{
	Random r(seed);
	std::vector<T> v(n);
	for (T &x : v)
		x = T((float)((int)r.below(129) - 64) / 16); /* exact in every type, and so are the products */
	return v;
}

/* One shape of wmma with inputs T, of which the fragments hold F, and sums A; both layouts of each input. */
template <class T, class F, class A, int M, int N, int K>
static void
wmma_shape(const char *name, uint64_t seed)
{
	auto a = numbers<T>(M * K, seed), b = numbers<T>(K * N, seed + 1);
	std::vector<T> ta(M * K), tb(K * N);
	for (int i = 0; i < M; i++)
		for (int x = 0; x < K; x++)
			ta[x * M + i] = a[i * K + x];
	for (int x = 0; x < K; x++)
		for (int j = 0; j < N; j++)
			tb[j * K + x] = b[x * N + j];
	Device<T> da(a), db(b), dta(ta), dtb(tb);
	Device<A> dc(M * N);
	auto want = product(a, b, M, N, K, 1);
	char text[96];
	wmma_product_of<T, F, A, wmma::row_major, wmma::col_major, M, N, K><<<1, 32>>>(da.p, dtb.p, dc.p, K, K);
	snprintf(text, sizeof(text), "wmma %dx%dx%d, %s, row and column", M, N, K, name);
	near(text, doubles(dc.get()), want, 1e-6);
	wmma_product_of<T, F, A, wmma::col_major, wmma::row_major, M, N, K><<<1, 32>>>(dta.p, db.p, dc.p, M, N);
	snprintf(text, sizeof(text), "wmma %dx%dx%d, %s, column and row", M, N, K, name);
	near(text, doubles(dc.get()), want, 1e-6);
}

int
main()
{
	wmma_shape<__half, __half, float, 16, 16, 16>("f16", 20);
	wmma_shape<__half, __half, float, 8, 32, 16>("f16", 22);
	wmma_shape<__half, __half, float, 32, 8, 16>("f16", 24);
	wmma_shape<__nv_bfloat16, __nv_bfloat16, float, 16, 16, 16>("bf16", 26);
	wmma_shape<__nv_bfloat16, __nv_bfloat16, float, 8, 32, 16>("bf16", 28);
	wmma_shape<__nv_bfloat16, __nv_bfloat16, float, 32, 8, 16>("bf16", 30);
	wmma_shape<signed char, signed char, int, 16, 16, 16>("s8", 32);
	wmma_shape<signed char, signed char, int, 8, 32, 16>("s8", 34);
	wmma_shape<signed char, signed char, int, 32, 8, 16>("s8", 36);
	wmma_shape<unsigned char, unsigned char, int, 16, 16, 16>("u8", 38);
	wmma_shape<float, wmma::precision::tf32, float, 16, 16, 8>("tf32", 40);
	wmma_shape<double, double, double, 8, 8, 4>("f64", 42);
	{
		auto a = numbers<__half>(256, 1), b = numbers<__half>(256, 2);
		Device<__half> da(a), db(b);
		Device<float> dc(256);
		wmma_product<__half, float, wmma::row_major, wmma::row_major, 16, 16, 16><<<1, 32>>>(da.p, db.p, dc.p, 16, 16);
		CU(cudaGetLastError());
		near("wmma 16x16x16, f16, f32", doubles(dc.get()), product(a, b, 16, 16, 16, 1), 1e-6);
		std::vector<__half> ta(256);
		for (int i = 0; i < 256; i++)
			ta[i % 16 * 16 + i / 16] = a[i];
		Device<__half> dta(ta);
		wmma_product<__half, float, wmma::col_major, wmma::row_major, 16, 16, 16><<<1, 32>>>(dta.p, db.p, dc.p, 16, 16);
		near("wmma with a column-major matrix", doubles(dc.get()), product(a, b, 16, 16, 16, 1), 1e-6);
	}
	{
		auto a = numbers<__half>(32 * 16, 3), b = numbers<__half>(16 * 8, 4);
		Device<__half> da(a), db(b);
		Device<float> dc(256);
		wmma_product<__half, float, wmma::row_major, wmma::row_major, 32, 8, 16><<<1, 32>>>(da.p, db.p, dc.p, 16, 8);
		near("wmma 32x8x16", doubles(dc.get()), product(a, b, 32, 8, 16, 1), 1e-6);
	}
	{
		auto a = numbers<__half>(256, 5), b = numbers<__half>(128, 6);
		Device<__half> da(a), db(b);
		Device<float> dc(128);
		m16n8k16<__half><<<1, 32>>>(da.p, db.p, dc.p);
		near("mma m16n8k16, f16, f32", doubles(dc.get()), product(a, b, 16, 8, 16, 0.5), 1e-6);
		m16n8k16_half<<<1, 32>>>(da, db, dc);
		near("mma m16n8k16, f16, f16", doubles(dc.get()), product(a, b, 16, 8, 16, 0), 2e-3, 0.13);
	}
	{
		auto a = numbers<__nv_bfloat16>(256, 7), b = numbers<__nv_bfloat16>(128, 8);
		Device<__nv_bfloat16> da(a), db(b);
		Device<float> dc(128);
		m16n8k16<__nv_bfloat16><<<1, 32>>>(da.p, db.p, dc.p);
		near("mma m16n8k16, bf16", doubles(dc.get()), product(a, b, 16, 8, 16, 0.5), 1e-6);
	}
	{
		Random r(9);
		std::vector<signed char> a(512), b(256);
		for (auto &x : a)
			x = (signed char)r.next();
		for (auto &x : b)
			x = (signed char)r.next();
		Device<signed char> da(a), db(b);
		Device<int> dc(128);
		m16n8k32<<<1, 32>>>(da, db, dc);
		near("mma m16n8k32, s8", doubles(dc.get()), product(a, b, 16, 8, 32, 1000), 0);
	}
	{
		auto a = numbers<float>(128, 10), b = numbers<float>(64, 11);
		Device<float> da(a), db(b), dc(128);
		m16n8k8_tf32<<<1, 32>>>(da, db, dc);
		near("mma m16n8k8, tf32", doubles(dc.get()), product(a, b, 16, 8, 8, 0), 1e-6);
	}
	{
		auto a = numbers<double>(32, 12), b = numbers<double>(32, 13);
		Device<double> da(a), db(b), dc(64);
		m8n8k4_double<<<1, 32>>>(da, db, dc);
		near("mma m8n8k4, f64", dc.get(), product(a, b, 8, 8, 4, 0), 1e-15);
	}
	{
		std::vector<unsigned> want(256);
		for (int l = 0; l < 32; l++)
			for (int i = 0; i < 4; i++) {
				int row = l / 4, column = l % 4 * 2, base = i * 64;
				want[l * 8 + i] = (unsigned)(base + row * 8 + column) | (unsigned)(base + row * 8 + column + 1) << 16;
				want[l * 8 + 4 + i] = (unsigned)(base + column * 8 + row) | (unsigned)(base + (column + 1) * 8 + row) << 16;
			}
		Device<unsigned> out(256);
		load_matrix<<<1, 32>>>(out);
		same("ldmatrix, plain and transposed", out.get(), want);
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
