/*
 * CUB: scan, reduction, selection, radix sort, histogram and block primitives.
 */
#include "t.h"

#include <algorithm>
#include <cub/cub.cuh>

__global__ void
block_scan(const int *in, int *out)
{
	typedef cub::BlockScan<int, 128> Scan;
	__shared__ typename Scan::TempStorage temp;
	int v = in[threadIdx.x], total;
	Scan(temp).ExclusiveSum(v, v, total);
	out[threadIdx.x] = v + (threadIdx.x == 127 ? total * 1000 : 0);
}

template <class F>
static void
twice(F f)
{
	void *temp = nullptr;
	size_t bytes = 0;
	CU(f(temp, bytes));
	CU(cudaMalloc(&temp, bytes ? bytes : 1));
	CU(f(temp, bytes));
	CU(cudaDeviceSynchronize());
	CU(cudaFree(temp));
}

int
main()
{
	Random r;
	const int n = 100000;
	std::vector<int> in(n), inclusive(n), exclusive(n);
	int sum = 0, least = INT32_MAX;
	for (int i = 0; i < n; i++) {
		in[i] = (int)r.below(1000) - 300;
		exclusive[i] = sum;
		inclusive[i] = sum += in[i];
		least = std::min(least, in[i]);
	}
	Device<int> din(in), out(n), one(1);
	twice([&](void *t, size_t &b) { return cub::DeviceScan::InclusiveSum(t, b, din.p, out.p, n); });
	same("DeviceScan::InclusiveSum", out.get(), inclusive);
	twice([&](void *t, size_t &b) { return cub::DeviceScan::ExclusiveSum(t, b, din.p, out.p, n); });
	same("DeviceScan::ExclusiveSum", out.get(), exclusive);
	twice([&](void *t, size_t &b) { return cub::DeviceReduce::Sum(t, b, din.p, one.p, n); });
	same("DeviceReduce::Sum", one.get(), { sum });
	twice([&](void *t, size_t &b) { return cub::DeviceReduce::Min(t, b, din.p, one.p, n); });
	same("DeviceReduce::Min", one.get(), { least });
	block_scan<<<1, 128>>>(din, out);
	std::vector<int> w(exclusive.begin(), exclusive.begin() + 128), g = out.get();
	w[127] += inclusive[127] * 1000;
	g.resize(128);
	same("BlockScan", g, w);
	T_END();
}
