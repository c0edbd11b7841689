// The benchmark kernels for CUDA; kernels.cl holds the same, line for line, for OpenCL.
#define TILE 16

extern "C" __global__ void
empty(void)
{
}

extern "C" __global__ void
vector_add(const float *a, const float *b, float *c, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		c[i] = a[i] + b[i];
}

extern "C" __global__ void
matmul(const float *a, const float *b, float *c, int n)
{
	__shared__ float ta[TILE][TILE], tb[TILE][TILE];
	int tx = threadIdx.x, ty = threadIdx.y;
	int column = blockIdx.x * TILE + tx, row = blockIdx.y * TILE + ty;
	float sum = 0.0f;
	for (int tile = 0; tile < n / TILE; tile++) {
		ta[ty][tx] = a[row * n + tile * TILE + tx];
		tb[ty][tx] = b[(tile * TILE + ty) * n + column];
		__syncthreads();
		for (int k = 0; k < TILE; k++)
			sum += ta[ty][k] * tb[k][tx];
		__syncthreads();
	}
	c[row * n + column] = sum;
}

extern "C" __global__ void
reduction(const float *in, float *out, int n)
{
	__shared__ float part[256];
	int t = threadIdx.x;
	float sum = 0.0f;
	for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x)
		sum += in[i];
	part[t] = sum;
	__syncthreads();
	for (int step = 128; step > 0; step >>= 1) {
		if (t < step)
			part[t] += part[t + step];
		__syncthreads();
	}
	if (t == 0)
		out[blockIdx.x] = part[0];
}

extern "C" __global__ void
histogram_global(const unsigned *in, unsigned *bins, int n)
{
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&bins[in[i] & 255u], 1u);
}

extern "C" __global__ void
histogram_shared(const unsigned *in, unsigned *bins, int n)
{
	__shared__ unsigned local[256];
	int t = threadIdx.x;
	local[t] = 0;
	__syncthreads();
	for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&local[in[i] & 255u], 1u);
	__syncthreads();
	atomicAdd(&bins[t], local[t]);
}

extern "C" __global__ void
nbody(const float4 *position, float4 *acceleration, int n)
{
	__shared__ float4 tile[256];
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	float4 me = position[i];
	float ax = 0.0f, ay = 0.0f, az = 0.0f;
	for (int base = 0; base < n; base += 256) {
		tile[threadIdx.x] = position[base + threadIdx.x];
		__syncthreads();
		for (int k = 0; k < 256; k++) {
			float4 other = tile[k];
			float dx = other.x - me.x, dy = other.y - me.y, dz = other.z - me.z;
			float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + 0.01f);
			float strength = other.w * inverse * inverse * inverse;
			ax += dx * strength;
			ay += dy * strength;
			az += dz * strength;
		}
		__syncthreads();
	}
	acceleration[i] = make_float4(ax, ay, az, 0.0f);
}

extern "C" __global__ void
mandelbrot(unsigned *out, int width, int height, int limit)
{
	int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
	float cx = -2.0f + 3.0f * px / width, cy = -1.0f + 2.0f * py / height, x = 0.0f, y = 0.0f;
	int i = 0;
	while (i < limit && x * x + y * y <= 4.0f) {
		float t = x * x - y * y + cx;
		y = 2.0f * x * y + cy;
		x = t;
		i++;
	}
	out[py * width + px] = i;
}
