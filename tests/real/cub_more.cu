/*
 * More of CUB: radix sort, selection, histograms, run lengths, segmented reduction.
 */
#include "t.h"

#include <algorithm>
#include <cub/cub.cuh>

struct Odd {
	__host__ __device__ bool operator()(int x) const { return x & 1; }
};

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
	const int n = 30000;
	std::vector<unsigned> keys(n), values(n), order(n);
	std::vector<int> in(n), odd;
	for (int i = 0; i < n; i++) {
		keys[i] = (unsigned)r.next() >> r.below(20);
		order[i] = values[i] = (unsigned)i;
		in[i] = (int)r.below(5000);
		if (in[i] & 1)
			odd.push_back(in[i]);
	}
	Device<unsigned> k(keys), v(values), ko(n), vo(n);
	twice([&](void *t, size_t &b) { return cub::DeviceRadixSort::SortPairs(t, b, k.p, ko.p, v.p, vo.p, n); });
	std::stable_sort(order.begin(), order.end(), [&](unsigned a, unsigned b) { return keys[a] < keys[b]; });
	same("DeviceRadixSort::SortPairs is stable", vo.get(), order);
	Device<int> din(in), out(n), count(1);
	twice([&](void *t, size_t &b) { return cub::DeviceSelect::If(t, b, din.p, out.p, count.p, n, Odd()); });
	auto got = out.get();
	got.resize((size_t)count.get()[0]);
	same("DeviceSelect::If", got, odd);
	{
		std::vector<int> want(50);
		for (int x : in)
			want[x / 100]++;
		Device<int> bins(50);
		twice([&](void *t, size_t &b) { return cub::DeviceHistogram::HistogramEven(t, b, din.p, bins.p, 51, 0, 5000, n); });
		same("DeviceHistogram::HistogramEven", bins.get(), want);
	}
	{
		std::vector<int> offsets, sums;
		for (int at = 0; at < n; at += 1 + (int)r.below(400))
			offsets.push_back(at);
		int segments = (int)offsets.size();
		offsets.push_back(n);
		for (int s = 0; s < segments; s++) {
			int sum = 0;
			for (int i = offsets[s]; i < offsets[s + 1]; i++)
				sum += in[i];
			sums.push_back(sum);
		}
		Device<int> o(offsets), result(segments);
		twice([&](void *t, size_t &b) { return cub::DeviceSegmentedReduce::Sum(t, b, din.p, result.p, segments, o.p, o.p + 1); });
		same("DeviceSegmentedReduce::Sum", result.get(), sums);
	}
	T_END();
}
