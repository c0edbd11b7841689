/*
 * Thrust: sort, by key, stable, transform, reduce, scan, unique.
 */
#include "t.h"

#include <algorithm>
#include <numeric>
#include <thrust/device_vector.h>
#include <thrust/functional.h>
#include <thrust/reduce.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

struct Square {
	__host__ __device__ int operator()(int x) const { return x * x; }
};

int
main()
{
	Random r;
	const int n = 20000;
	std::vector<int> v(n), sorted;
	std::vector<float> f(n);
	for (int i = 0; i < n; i++) {
		v[i] = (int)r.next();
		f[i] = (r.unit() - 0.5f) * 1e6f;
	}
	thrust::device_vector<int> d(v.begin(), v.end());
	thrust::sort(d.begin(), d.end());
	sorted = v;
	std::sort(sorted.begin(), sorted.end());
	std::vector<int> got(n);
	thrust::copy(d.begin(), d.end(), got.begin());
	same("thrust::sort, int", got, sorted);
	thrust::device_vector<float> df(f.begin(), f.end());
	thrust::sort(df.begin(), df.end(), thrust::greater<float>());
	std::vector<float> gf(n), sf = f;
	std::sort(sf.begin(), sf.end(), std::greater<float>());
	thrust::copy(df.begin(), df.end(), gf.begin());
	same("thrust::sort, float, greater", gf, sf);
	std::vector<int> keys(n), index(n);
	for (int i = 0; i < n; i++) {
		keys[i] = (int)r.below(50);
		index[i] = i;
	}
	thrust::device_vector<int> dk(keys.begin(), keys.end()), di(index.begin(), index.end());
	thrust::stable_sort_by_key(dk.begin(), dk.end(), di.begin());
	std::stable_sort(index.begin(), index.end(), [&](int a, int b) { return keys[a] < keys[b]; });
	thrust::copy(di.begin(), di.end(), got.begin());
	same("thrust::stable_sort_by_key", got, index);
	thrust::device_vector<int> small(1000);
	for (int i = 0; i < 1000; i++)
		got[i] = i;
	got.resize(1000);
	thrust::copy(got.begin(), got.end(), small.begin());
	thrust::transform(small.begin(), small.end(), small.begin(), Square());
	int total = thrust::reduce(small.begin(), small.end(), 0, thrust::plus<int>());
	ok(total == 332833500, "transform and reduce", "%d", total);
	T_END();
}
