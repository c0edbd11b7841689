// The benchmark kernels for OpenCL; kernels.cu holds the same, line for line, for CUDA.
#define TILE 16

kernel void
empty(void)
{
}

kernel void
vector_add(global const float *a, global const float *b, global float *c, int n)
{
	int i = get_global_id(0);
	if (i < n)
		c[i] = a[i] + b[i];
}

kernel void
matmul(global const float *a, global const float *b, global float *c, int n)
{
	local float ta[TILE][TILE], tb[TILE][TILE];
	int tx = get_local_id(0), ty = get_local_id(1);
	int column = get_group_id(0) * TILE + tx, row = get_group_id(1) * TILE + ty;
	float sum = 0.0f;
	for (int tile = 0; tile < n / TILE; tile++) {
		ta[ty][tx] = a[row * n + tile * TILE + tx];
		tb[ty][tx] = b[(tile * TILE + ty) * n + column];
		barrier(CLK_LOCAL_MEM_FENCE);
		for (int k = 0; k < TILE; k++)
			sum += ta[ty][k] * tb[k][tx];
		barrier(CLK_LOCAL_MEM_FENCE);
	}
	c[row * n + column] = sum;
}

kernel void
reduction(global const float *in, global float *out, int n)
{
	local float part[256];
	int t = get_local_id(0);
	float sum = 0.0f;
	for (int i = get_global_id(0); i < n; i += get_global_size(0))
		sum += in[i];
	part[t] = sum;
	barrier(CLK_LOCAL_MEM_FENCE);
	for (int step = 128; step > 0; step >>= 1) {
		if (t < step)
			part[t] += part[t + step];
		barrier(CLK_LOCAL_MEM_FENCE);
	}
	if (t == 0)
		out[get_group_id(0)] = part[0];
}

kernel void
histogram_global(global const unsigned *in, global unsigned *bins, int n)
{
	for (int i = get_global_id(0); i < n; i += get_global_size(0))
		atomic_add(&bins[in[i] & 255u], 1u);
}

kernel void
histogram_shared(global const unsigned *in, global unsigned *bins, int n)
{
	local unsigned part[256];
	int t = get_local_id(0);
	part[t] = 0;
	barrier(CLK_LOCAL_MEM_FENCE);
	for (int i = get_global_id(0); i < n; i += get_global_size(0))
		atomic_add(&part[in[i] & 255u], 1u);
	barrier(CLK_LOCAL_MEM_FENCE);
	atomic_add(&bins[t], part[t]);
}

kernel void
nbody(global const float4 *position, global float4 *acceleration, int n)
{
	local float4 tile[256];
	int i = get_global_id(0);
	float4 me = position[i];
	float ax = 0.0f, ay = 0.0f, az = 0.0f;
	for (int base = 0; base < n; base += 256) {
		tile[get_local_id(0)] = position[base + get_local_id(0)];
		barrier(CLK_LOCAL_MEM_FENCE);
		for (int k = 0; k < 256; k++) {
			float4 other = tile[k];
			float dx = other.x - me.x, dy = other.y - me.y, dz = other.z - me.z;
			float inverse = rsqrt(dx * dx + dy * dy + dz * dz + 0.01f);
			float strength = other.w * inverse * inverse * inverse;
			ax += dx * strength;
			ay += dy * strength;
			az += dz * strength;
		}
		barrier(CLK_LOCAL_MEM_FENCE);
	}
	acceleration[i] = (float4)(ax, ay, az, 0.0f);
}

kernel void
mandelbrot(global unsigned *out, int width, int height, int limit)
{
	int px = get_global_id(0), py = get_global_id(1);
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
