/*
 * Work between threads: reductions by shared memory and by shuffles, scans, histograms with atomics, warp primitives, atomics of all types.
 */
#include "t.h"

__global__ void
reduce_shared(const int *in, int *out, int n)
{
	extern __shared__ int part[];
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	part[threadIdx.x] = i < n ? in[i] : 0;
	__syncthreads();
	for (int s = blockDim.x / 2; s > 0; s >>= 1) {
		if (threadIdx.x < s)
			part[threadIdx.x] += part[threadIdx.x + s];
		__syncthreads();
	}
	if (threadIdx.x == 0)
		atomicAdd(out, part[0]);
}

__global__ void
reduce_shuffle(const int *in, int *out, int n)
{
	__shared__ int warps[32];
	int sum = 0;
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		sum += in[i];
	for (int s = 16; s > 0; s >>= 1)
		sum += __shfl_down_sync(0xffffffff, sum, s);
	if (threadIdx.x % 32 == 0)
		warps[threadIdx.x / 32] = sum;
	__syncthreads();
	if (threadIdx.x < 32) {
		sum = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0;
		for (int s = 16; s > 0; s >>= 1)
			sum += __shfl_xor_sync(0xffffffff, sum, s);
		if (threadIdx.x == 0)
			atomicAdd(out, sum);
	}
}

__global__ void
reduce_max(const float *in, float *out, int n)
{
	float best = -INFINITY;
	for (int i = threadIdx.x; i < n; i += blockDim.x)
		best = fmaxf(best, in[i]);
	for (int s = 16; s > 0; s >>= 1)
		best = fmaxf(best, __shfl_xor_sync(0xffffffff, best, s));
	if (threadIdx.x == 0)
		*out = best;
}

/* Inclusive scan of a block, Hillis and Steele. */
__global__ void
scan_block(const int *in, int *out)
{
	__shared__ int a[2][256];
	int t = threadIdx.x, from = 0;
	a[0][t] = in[t];
	__syncthreads();
	for (int s = 1; s < blockDim.x; s *= 2) {
		a[1 - from][t] = t >= s ? a[from][t] + a[from][t - s] : a[from][t];
		from = 1 - from;
		__syncthreads();
	}
	out[t] = a[from][t];
}

__global__ void
histogram_global(const unsigned char *in, unsigned *bins, int n)
{
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&bins[in[i]], 1);
}

__global__ void
histogram_shared(const unsigned char *in, unsigned *bins, int n)
{
	__shared__ unsigned mine[256];
	for (int i = threadIdx.x; i < 256; i += blockDim.x)
		mine[i] = 0;
	__syncthreads();
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&mine[in[i]], 1);
	__syncthreads();
	for (int i = threadIdx.x; i < 256; i += blockDim.x)
		atomicAdd(&bins[i], mine[i]);
}

__global__ void
warp_primitives(unsigned *out)
{
	unsigned t = threadIdx.x;
	unsigned *mine = out + t * 12;
	mine[0] = __ballot_sync(0xffffffff, t % 3 == 0);
	mine[1] = __any_sync(0xffffffff, t == 31) + 2 * __all_sync(0xffffffff, t < 32) + 4 * __any_sync(0xffffffff, t > 40);
	mine[2] = __shfl_up_sync(0xffffffff, t, 5);
	mine[3] = __shfl_sync(0xffffffff, t * 2, 7, 16);
	mine[4] = __match_any_sync(0xffffffff, t / 8);
	mine[5] = 0;
	if (t % 2)
		mine[5] = __activemask() & 0x55555555;
	__syncwarp();
	mine[6] = __reduce_add_sync(0xffffffff, t);
	mine[7] = __reduce_max_sync(0xffffffff, t ^ 5);
	double d = __shfl_xor_sync(0xffffffff, (double)t + 0.5, 1);
	mine[8] = (unsigned)(d * 2);
	long long q = __shfl_sync(0xffffffff, (long long)t << 33, 3);
	mine[9] = (unsigned)(q >> 32);
	int all;
	mine[10] = __match_all_sync(0xffffffff, 5, &all) + all;
	mine[11] = __fns(0x55555555, 0, (int)t % 16 + 1);
}

__global__ void
bit_functions(const unsigned *in, unsigned *out)
{
	unsigned x = in[threadIdx.x];
	unsigned long long y = (unsigned long long)x << 32 | ~x;
	unsigned *mine = out + threadIdx.x * 10;
	mine[0] = __popc(x);
	mine[1] = __clz(x);
	mine[2] = __brev(x);
	mine[3] = __ffs(x);
	mine[4] = __popcll(y) + 100 * __clzll(y) + 10000 * __ffsll(y);
	mine[5] = __byte_perm(x, 0x12345678, 0x4261);
	mine[6] = __funnelshift_l(x, 0x80000001, x);
	mine[7] = __umulhi(x, 0x9e3779b9);
	mine[8] = __usad(x, 1000, 5);
	mine[9] = (unsigned)__mulhi((int)x, -77777);
}

struct Results {
	int add, sub, exch, min, max, inc, dec, cas, land, lor, lxor;
	unsigned long long add64, min64, max64, and64, or64, cas64;
	long long smin64;
	float addf;
	double addd;
};

__global__ void
atomics(Results *r)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	atomicAdd(&r->add, i);
	atomicSub(&r->sub, 2);
	atomicMin(&r->min, 100 - i);
	atomicMax(&r->max, i);
	atomicInc((unsigned *)&r->inc, 9);
	atomicDec((unsigned *)&r->dec, 9);
	atomicAnd(&r->land, ~(i & 0xf0));
	atomicOr(&r->lor, i);
	atomicXor(&r->lxor, i);
	atomicCAS(&r->cas, 7, 8);
	atomicAdd(&r->add64, 0x100000000ull + i);
	atomicMin(&r->min64, 5000000000ull - i);
	atomicMax(&r->max64, 5000000000ull + i);
	atomicMin(&r->smin64, -5000000000ll + i);
	atomicAnd(&r->and64, ~(unsigned long long)i << 32);
	atomicOr(&r->or64, (unsigned long long)i << 40);
	atomicCAS(&r->cas64, 1ull << 40, 3ull);
	atomicAdd(&r->addf, 0.5f);
	atomicAdd(&r->addd, 0.25);
	atomicAdd_system(&r->exch, 1);
}

/* A double add by compare-and-swap, as before sm_60. */
__global__ void
cas_add(double *sum)
{
	unsigned long long *p = (unsigned long long *)sum, old = *p, seen;
	do {
		seen = old;
		old = atomicCAS(p, seen, __double_as_longlong(1.5 + __longlong_as_double(seen)));
	} while (seen != old);
}

/* A lock that lanes of one warp compete for. */
__global__ void
locked(int *lock, volatile int *count)
{
	bool done = false;
	while (!done) {
		if (atomicCAS(lock, 0, 1) == 0) {
			*count = *count + 1;
			__threadfence();
			atomicExch(lock, 0);
			done = true;
		}
	}
}

/* The last block to finish adds up: threadfence and a ticket. */
__device__ unsigned ticket;
__global__ void
last_block(int *parts, int *total)
{
	__shared__ bool last;
	if (threadIdx.x == 0) {
		parts[blockIdx.x] = blockIdx.x + 1;
		__threadfence();
		last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
	}
	__syncthreads();
	if (last && threadIdx.x == 0) {
		int sum = 0;
		for (int i = 0; i < gridDim.x; i++)
			sum += ((volatile int *)parts)[i];
		*total = sum;
	}
}

int
main()
{
	Random r;
	const int n = 50001;
	std::vector<int> in(n);
	int sum = 0;
	for (int &x : in) {
		x = (int)r.below(2000) - 1000;
		sum += x;
	}
	Device<int> din(in), out(1);
	out.zero();
	reduce_shared<<<(n + 255) / 256, 256, 256 * sizeof(int)>>>(din, out, n);
	same("reduction in shared memory", out.get(), { sum });
	out.zero();
	reduce_shuffle<<<20, 192>>>(din, out, n);
	same("reduction by shuffles", out.get(), { sum });
	{
		std::vector<float> f(1000);
		float best = -INFINITY;
		for (float &x : f) {
			x = r.unit() * 100 - 120;
			best = fmaxf(best, x);
		}
		Device<float> df(f), m(1);
		reduce_max<<<1, 32>>>(df, m, 1000);
		same("maximum of floats", m.get(), { best });
	}
	{
		std::vector<int> want(256);
		for (int i = 0, s = 0; i < 256; i++)
			want[i] = s += in[i];
		Device<int> scanned(256);
		scan_block<<<1, 256>>>(din, scanned);
		same("scan of a block", scanned.get(), want);
	}
	{
		std::vector<unsigned char> bytes(n);
		std::vector<unsigned> want(256);
		for (auto &b : bytes)
			want[b = (unsigned char)(r.below(16) * r.below(16))]++;
		Device<unsigned char> db(bytes);
		Device<unsigned> bins(256);
		bins.zero();
		histogram_global<<<10, 128>>>(db, bins, n);
		same("histogram with global atomics", bins.get(), want);
		bins.zero();
		histogram_shared<<<10, 128>>>(db, bins, n);
		same("histogram with shared atomics", bins.get(), want);
	}
	{
		std::vector<unsigned> want(32 * 12);
		for (unsigned t = 0; t < 32; t++) {
			unsigned *w = &want[t * 12];
			w[0] = 0x49249249;
			w[1] = 3;
			w[2] = t < 5 ? t : t - 5;
			w[3] = (t / 16 * 16 + 7) * 2;
			w[4] = 0xffu << (t / 8 * 8);
			w[6] = 496;
			w[7] = 31;
			w[8] = (t ^ 1) * 2 + 1;
			w[9] = 6;
			w[10] = 0;
			w[11] = t % 16 * 2;
		}
		Device<unsigned> o(32 * 12);
		warp_primitives<<<1, 32>>>(o);
		same("warp primitives", o.get(), want);
	}
	{
		std::vector<unsigned> x(64), want(640);
		for (int i = 0; i < 64; i++)
			x[i] = i < 4 ? (unsigned[]){ 0, 1, 0xffffffff, 0x80000000 }[i] : (unsigned)r.next() >> r.below(32);
		for (int i = 0; i < 64; i++) {
			unsigned v = x[i], *w = &want[i * 10];
			unsigned long long y = (unsigned long long)v << 32 | ~v;
			w[0] = __builtin_popcount(v);
			w[1] = v ? __builtin_clz(v) : 32;
			for (int b = 0; b < 32; b++)
				w[2] |= (v >> b & 1) << (31 - b);
			w[3] = __builtin_ffs(v);
			w[4] = __builtin_popcountll(y) + 100 * (y ? __builtin_clzll(y) : 64) + 10000 * __builtin_ffsll(y);
			unsigned char bytes[8];
			memcpy(bytes, &v, 4);
			memcpy(bytes + 4, "\x78\x56\x34\x12", 4);
			w[5] = bytes[1] | bytes[6] << 8 | bytes[2] << 16 | bytes[4] << 24;
			w[6] = (unsigned)((0x80000001ull << 32 | v) << (v & 31) >> 32);
			w[7] = (unsigned)((unsigned long long)v * 0x9e3779b9 >> 32);
			w[8] = (v > 1000 ? v - 1000 : 1000 - v) + 5;
			w[9] = (unsigned)((long long)(int)v * -77777 >> 32);
		}
		Device<unsigned> dx(x), o(640);
		bit_functions<<<1, 64>>>(dx, o);
		same("bit functions", o.get(), want);
	}
	{
		Results init = {}, got;
		const int threads = 640;
		init.land = -1;
		init.cas = 7;
		init.dec = 3;
		init.min64 = ~0ull;
		init.and64 = ~0ull;
		init.cas64 = 1ull << 40;
		Device<Results> d(std::vector<Results>{ init });
		atomics<<<5, 128>>>(d);
		got = d.get()[0];
		ok(got.add == threads * (threads - 1) / 2, "atomicAdd int", "%d", got.add);
		ok(got.sub == -2 * threads, "atomicSub", "%d", got.sub);
		ok(got.min == 100 - (threads - 1) && got.max == threads - 1, "atomicMin, atomicMax", "%d %d", got.min, got.max);
		ok(got.inc == threads % 10 && got.dec == (3 + 10 * 64 - threads) % 10, "atomicInc, atomicDec", "%d %d", got.inc, got.dec);
		int lxor = 0;
		for (int i = 0; i < threads; i++)
			lxor ^= i;
		ok(got.land == ~0xf0 && got.lor == 1023 && got.lxor == lxor, "atomicAnd, Or, Xor", "%x %x %x", got.land, got.lor, got.lxor);
		ok(got.cas == 8 && got.cas64 == 3, "atomicCAS", "%d %llu", got.cas, got.cas64);
		ok(got.add64 == (0x100000000ull * threads) + threads * (threads - 1) / 2, "atomicAdd 64", "%llx", got.add64);
		ok(got.min64 == 5000000000ull - (threads - 1) && got.max64 == 5000000000ull + threads - 1 && got.smin64 == -5000000000ll,
		   "atomicMin, Max 64", "%llu %llu %lld", got.min64, got.max64, got.smin64);
		ok(got.and64 == ~1023ull << 32 && got.or64 == 1023ull << 40, "atomicAnd, Or 64", "%llx %llx", got.and64, got.or64);
		ok(got.addf == threads * 0.5f && got.addd == threads * 0.25, "atomicAdd float, double", "%g %g", got.addf, got.addd);
		ok(got.exch == threads, "atomicAdd_system", "%d", got.exch);
		Device<double> s(1);
		s.zero();
		cas_add<<<4, 64>>>(s);
		same("double add by compare-and-swap", s.get(), { 256 * 1.5 });
		Device<int> two(2);
		two.zero();
		locked<<<4, 64>>>(two.p, two.p + 1);
		same("a lock between lanes", two.get(), { 0, 256 });
		Device<int> parts(50), total(1);
		last_block<<<50, 64>>>(parts, total);
		last_block<<<50, 64>>>(parts, total);
		same("the last block adds up", total.get(), { 50 * 51 / 2 });
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
