/*
 * The programs that everyone writes first: vector add, SAXPY, matrix products, transpose, stencil, n-body, Mandelbrot set.
 */
#include "t.h"

template <class T>
__global__ void
vector_add(const T *a, const T *b, T *c, size_t n)
{
	size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
	if (i < n)
		c[i] = a[i] + b[i];
}

__global__ void
saxpy(int n, float a, const float *x, float *y)
{
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		y[i] = a * x[i] + y[i];
}

__global__ void
matmul_naive(const float *a, const float *b, float *c, int n)
{
	int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
	float sum = 0;
	if (row >= n || column >= n)
		return;
	for (int k = 0; k < n; k++)
		sum += a[row * n + k] * b[k * n + column];
	c[row * n + column] = sum;
}

template <int TILE>
__global__ void
matmul_tiled(const float *a, const float *b, float *c, int n)
{
	__shared__ float ta[TILE][TILE], tb[TILE][TILE];
	int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
	float sum = 0;
	for (int t = 0; t < (n + TILE - 1) / TILE; t++) {
		int k = t * TILE;
		ta[threadIdx.y][threadIdx.x] = row < n && k + threadIdx.x < n ? a[row * n + k + threadIdx.x] : 0;
		tb[threadIdx.y][threadIdx.x] = column < n && k + threadIdx.y < n ? b[(k + threadIdx.y) * n + column] : 0;
		__syncthreads();
#pragma unroll
		for (int i = 0; i < TILE; i++)
			sum += ta[threadIdx.y][i] * tb[i][threadIdx.x];
		__syncthreads();
	}
	if (row < n && column < n)
		c[row * n + column] = sum;
}

__global__ void
transpose(const float *in, float *out, int width, int height)
{
	__shared__ float tile[32][33];
	int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
	for (int j = 0; j < 32; j += 8)
		if (x < width && y + j < height)
			tile[threadIdx.y + j][threadIdx.x] = in[(y + j) * width + x];
	__syncthreads();
	x = blockIdx.y * 32 + threadIdx.x;
	y = blockIdx.x * 32 + threadIdx.y;
	for (int j = 0; j < 32; j += 8)
		if (x < height && y + j < width)
			out[(y + j) * height + x] = tile[threadIdx.x][threadIdx.y + j];
}

#define RADIUS 3
__global__ void
stencil(const int *in, int *out, int n)
{
	__shared__ int near_by[128 + 2 * RADIUS];
	int g = blockIdx.x * blockDim.x + threadIdx.x, l = threadIdx.x + RADIUS;
	near_by[l] = g < n ? in[g] : 0;
	if (threadIdx.x < RADIUS) {
		near_by[l - RADIUS] = g >= RADIUS && g - RADIUS < n ? in[g - RADIUS] : 0;
		near_by[l + blockDim.x] = g + blockDim.x < n ? in[g + blockDim.x] : 0;
	}
	__syncthreads();
	int sum = 0;
	for (int k = -RADIUS; k <= RADIUS; k++)
		sum += near_by[l + k];
	if (g < n)
		out[g] = sum;
}

__global__ void
nbody(const float4 *bodies, float3 *force, int n)
{
	__shared__ float4 part[64];
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	float4 me = bodies[i];
	float3 sum = make_float3(0, 0, 0);
	for (int t = 0; t < n; t += 64) {
		part[threadIdx.x] = bodies[t + threadIdx.x];
		__syncthreads();
		for (int k = 0; k < 64; k++) {
			float dx = part[k].x - me.x, dy = part[k].y - me.y, dz = part[k].z - me.z;
			float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + 0.01f);
			float s = part[k].w * inverse * inverse * inverse;
			sum.x += dx * s;
			sum.y += dy * s;
			sum.z += dz * s;
		}
		__syncthreads();
	}
	force[i] = sum;
}

/* Written so that host and device round alike: explicit multiplications and additions. */
static __host__ __device__ int
escape(float cx, float cy, int limit)
{
	float x = 0, y = 0;
	int i = 0;
	for (; i < limit; i++) {
#ifdef __CUDA_ARCH__
		float xx = __fmul_rn(x, x), yy = __fmul_rn(y, y), xy = __fmul_rn(x, y);
		if (__fadd_rn(xx, yy) > 4)
			break;
		x = __fadd_rn(__fsub_rn(xx, yy), cx);
		y = __fadd_rn(__fadd_rn(xy, xy), cy);
#else
		volatile float xx = x * x, yy = y * y, xy = x * y, sum = xx + yy, d = xx - yy, two = xy + xy;
		if (sum > 4)
			break;
		x = d + cx;
		y = two + cy;
#endif
	}
	return i;
}

__global__ void
mandelbrot(int *out, int w, int h, int limit)
{
	int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
	if (x < w && y < h)
		out[y * w + x] = escape(x * (3.0f / 256) - 2, y * (2.0f / 128) - 1, limit);
}

int
main()
{
	Random r;
	size_t n = 100003;
	std::vector<float> a(n), b(n), want(n);
	for (size_t i = 0; i < n; i++) {
		a[i] = r.unit();
		b[i] = r.unit();
		want[i] = a[i] + b[i];
	}
	{
		Device<float> da(a), db(b), dc(n);
		vector_add<<<(n + 255) / 256, 256>>>(da.p, db.p, dc.p, n);
		same("vector add, float", dc.get(), want);
		for (size_t i = 0; i < n; i++)
			want[i] = fmaf(2.5f, a[i], b[i]);
		saxpy<<<40, 128>>>((int)n, 2.5f, da, db);
		near("SAXPY", db.get(), want, 1e-6, 1e-7);
	}
	{
		std::vector<double> x(n), y(n), z(n);
		for (size_t i = 0; i < n; i++) {
			x[i] = a[i] * 1e10;
			y[i] = b[i] * 1e-10;
			z[i] = x[i] + y[i];
		}
		Device<double> dx(x), dy(y), dz(n);
		vector_add<<<(n + 95) / 96, 96>>>(dx.p, dy.p, dz.p, n);
		same("vector add, double, odd block size", dz.get(), z);
	}
	{
		const int m = 100;
		std::vector<float> c(m * m), ma(a.begin(), a.begin() + m * m), mb(b.begin(), b.begin() + m * m);
		for (int i = 0; i < m; i++)
			for (int j = 0; j < m; j++) {
				double sum = 0;
				for (int k = 0; k < m; k++)
					sum += (double)ma[i * m + k] * mb[k * m + j];
				c[i * m + j] = (float)sum;
			}
		Device<float> da(ma), db(mb), dc(m * m);
		dim3 block(16, 16), grid((m + 15) / 16, (m + 15) / 16);
		matmul_naive<<<grid, block>>>(da, db, dc, m);
		near("naive matrix product", dc.get(), c, 1e-5);
		dc.zero();
		matmul_tiled<16><<<grid, block>>>(da, db, dc, m);
		near("tiled matrix product, 16", dc.get(), c, 1e-5);
		dc.zero();
		matmul_tiled<32><<<dim3((m + 31) / 32, (m + 31) / 32), dim3(32, 32)>>>(da, db, dc, m);
		near("tiled matrix product, 32", dc.get(), c, 1e-5);
	}
	{
		const int w = 150, h = 77;
		std::vector<float> t(w * h), in(a.begin(), a.begin() + w * h);
		for (int y = 0; y < h; y++)
			for (int x = 0; x < w; x++)
				t[x * h + y] = in[y * w + x];
		Device<float> din(in), dout(w * h);
		transpose<<<dim3((w + 31) / 32, (h + 31) / 32), dim3(32, 8)>>>(din, dout, w, h);
		same("transpose", dout.get(), t);
	}
	{
		const int m = 1000;
		std::vector<int> in(m), out(m);
		for (int i = 0; i < m; i++)
			in[i] = (int)r.below(1000) - 500;
		for (int i = 0; i < m; i++)
			for (int k = -RADIUS; k <= RADIUS; k++)
				out[i] += i + k >= 0 && i + k < m ? in[i + k] : 0;
		Device<int> din(in), dout(m);
		stencil<<<(m + 127) / 128, 128>>>(din, dout, m);
		same("stencil", dout.get(), out);
	}
	{
		const int m = 256;
		std::vector<float4> bodies(m);
		for (auto &p : bodies)
			p = make_float4(r.unit() - 0.5f, r.unit() - 0.5f, r.unit() - 0.5f, r.unit());
		std::vector<float> got(m * 3), want3(m * 3);
		for (int i = 0; i < m; i++) {
			double f[3] = { 0, 0, 0 };
			for (int k = 0; k < m; k++) {
				double d[3] = { bodies[k].x - bodies[i].x, bodies[k].y - bodies[i].y, bodies[k].z - bodies[i].z };
				double s = bodies[k].w / pow(d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + 0.01, 1.5);
				for (int c = 0; c < 3; c++)
					f[c] += d[c] * s;
			}
			for (int c = 0; c < 3; c++)
				want3[i * 3 + c] = (float)f[c];
		}
		Device<float4> db(bodies);
		Device<float3> df(m);
		nbody<<<m / 64, 64>>>(db, df, m);
		CU(cudaMemcpy(got.data(), df.p, m * sizeof(float3), cudaMemcpyDeviceToHost));
		near("n-body forces", got, want3, 1e-4, 1e-3);
	}
	{
		const int w = 256, h = 128, limit = 100;
		std::vector<int> want_set(w * h);
		for (int y = 0; y < h; y++)
			for (int x = 0; x < w; x++)
				want_set[y * w + x] = escape(x * (3.0f / 256) - 2, y * (2.0f / 128) - 1, limit);
		Device<int> out(w * h);
		mandelbrot<<<dim3(w / 32, h / 4), dim3(32, 4)>>>(out, w, h, limit);
		same("Mandelbrot set, each count", out.get(), want_set);
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
