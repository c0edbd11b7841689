/*
 * Cooperative groups: grid synchronisation, tiled partitions, coalesced groups, reductions and scans of groups.
 */
#include "t.h"

#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

namespace cg = cooperative_groups;

/* Rounds of a sum over the whole grid: each round reads what all blocks wrote in the one before. */
__global__ void
grid_rounds(int *values, int *scratch, int n, int rounds)
{
	cg::grid_group grid = cg::this_grid();
	for (int r = 0; r < rounds; r++) {
		for (int i = (int)grid.thread_rank(); i < n; i += (int)grid.size())
			scratch[i] = values[(i + 1) % n] + 1;
		grid.sync();
		for (int i = (int)grid.thread_rank(); i < n; i += (int)grid.size())
			values[i] = scratch[i];
		grid.sync();
	}
}

__global__ void
tiles(int *out)
{
	cg::thread_block block = cg::this_thread_block();
	auto tile8 = cg::tiled_partition<8>(block);
	auto tile32 = cg::tiled_partition<32>(block);
	auto tile4 = cg::tiled_partition(tile32, 4);
	int t = (int)block.thread_rank(), *mine = out + t * 8;
	mine[0] = cg::reduce(tile8, t, cg::plus<int>());
	mine[1] = cg::reduce(tile32, t, cg::greater<int>());
	mine[2] = tile8.shfl_xor(t, 3);
	mine[3] = cg::inclusive_scan(tile8, 1);
	mine[4] = (int)tile8.ballot(t % 2);
	mine[5] = (int)tile4.thread_rank() + 10 * (int)tile4.size() + 1000 * (int)tile8.meta_group_rank();
	mine[6] = cg::exclusive_scan(tile32, t);
	tile8.sync();
	mine[7] = tile32.any(t == 40) + 2 * tile32.all(t < 64);
}

/* Lanes that pass the filter count themselves with one atomic a group. */
__global__ void
filter(const int *in, int *out, int *count, int n)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n && in[i] > 0) {
		cg::coalesced_group g = cg::coalesced_threads();
		int base;
		if (g.thread_rank() == 0)
			base = atomicAdd(count, (int)g.size());
		base = g.shfl(base, 0);
		out[base + g.thread_rank()] = in[i];
	}
}

__global__ void
partitions(int *out)
{
	auto tile = cg::tiled_partition<32>(cg::this_thread_block());
	int t = threadIdx.x;
	auto odd = cg::binary_partition(tile, t % 2 == 1);
	auto label = cg::labeled_partition(tile, t % 3);
	out[t * 3] = (int)odd.size() * 100 + (int)odd.thread_rank();
	out[t * 3 + 1] = (int)label.size() * 100 + (int)label.thread_rank();
	out[t * 3 + 2] = cg::reduce(label, t, cg::plus<int>());
}

int
main()
{
	int device = 0, cooperative = 0;
	CU(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device));
	ok(cooperative == 1, "the device says it launches cooperatively");
	{
		int per_sm = 0, sms = 0, n = 1000, rounds = 5;
		CU(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, grid_rounds, 128, 0));
		CU(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
		ok(per_sm > 0 && sms > 0, "occupancy");
		int blocks = per_sm * sms < 8 ? per_sm * sms : 8;
		std::vector<int> v(n), want(n);
		for (int i = 0; i < n; i++)
			v[i] = i * 7;
		for (int i = 0; i < n; i++)
			want[i] = (i + rounds) % n * 7 + rounds;
		Device<int> values(v), scratch(n);
		int *pv = values, *ps = scratch;
		void *args[] = { &pv, &ps, &n, &rounds };
		CU(cudaLaunchCooperativeKernel(grid_rounds, dim3(blocks), dim3(128), args));
		same("grid sync", values.get(), want);
		cudaError_t e = cudaLaunchCooperativeKernel(grid_rounds, dim3(per_sm * sms + 1), dim3(128), args);
		ok(e == cudaErrorCooperativeLaunchTooLarge, "too large a cooperative grid is refused", "%s", cudaGetErrorName(e));
		cudaGetLastError();
	}
	{
		std::vector<int> want(64 * 8);
		for (int t = 0; t < 64; t++) {
			int *w = &want[t * 8], base = t / 8 * 8, warp = t / 32 * 32;
			w[0] = base * 8 + 28;
			w[1] = warp + 31;
			w[2] = t ^ 3;
			w[3] = t % 8 + 1;
			w[4] = 0xaa;
			w[5] = t % 4 + 40 + 1000 * (t / 8);
			for (int k = warp; k < t; k++)
				w[6] += k;
			w[7] = (t >= 32) + 2;
		}
		Device<int> out(64 * 8);
		tiles<<<1, 64>>>(out);
		same("tiled partitions", out.get(), want);
	}
	{
		Random r;
		int n = 2000, positive = 0;
		long long sum = 0;
		std::vector<int> v(n);
		for (int &x : v) {
			x = (int)r.below(100) - 50;
			positive += x > 0;
			sum += x > 0 ? x : 0;
		}
		Device<int> in(v), out(n), count(1);
		count.zero();
		filter<<<(n + 255) / 256, 256>>>(in, out, count, n);
		std::vector<int> got = out.get();
		int c = count.get()[0];
		for (int i = 0; i < c && i < n; i++)
			sum -= got[i];
		ok(c == positive && sum == 0, "coalesced groups", "%d of %d, off by %lld", c, positive, sum);
	}
	{
		std::vector<int> want(32 * 3);
		for (int t = 0; t < 32; t++) {
			want[t * 3] = 1600 + t / 2;
			want[t * 3 + 1] = (t % 3 == 2 ? 10 : 11) * 100 + t / 3;
			for (int k = t % 3; k < 32; k += 3)
				want[t * 3 + 2] += k;
		}
		Device<int> out(32 * 3);
		partitions<<<1, 32>>>(out);
		same("binary and labeled partitions", out.get(), want);
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
