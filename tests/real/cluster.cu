/*
 * Thread-block clusters and distributed shared memory, at compute capability 9.0 and above.
 */
#include "t.h"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

/* Each block of a cluster holds a part of a histogram in its shared memory; all blocks add to all parts. */
__global__ void __cluster_dims__(4, 1, 1)
histogram(const unsigned char *in, unsigned *bins, int n)
{
	__shared__ unsigned part[64];
	cg::cluster_group cluster = cg::this_cluster();
	for (int i = threadIdx.x; i < 64; i += blockDim.x)
		part[i] = 0;
	cluster.sync();
	int blocks = gridDim.x / cluster.num_blocks();
	int first = blockIdx.x / cluster.num_blocks() * cluster.num_threads() + cluster.thread_rank();
	for (int i = first; i < n; i += blocks * cluster.num_threads()) {
		unsigned *remote = cluster.map_shared_rank(part, in[i] / 64);
		atomicAdd(&remote[in[i] % 64], 1);
	}
	cluster.sync();
	for (int i = threadIdx.x; i < 64; i += blockDim.x)
		atomicAdd(&bins[cluster.block_rank() * 64 + i], part[i]);
}

/* The cluster size comes with the launch. */
__global__ void
neighbours(int *out)
{
	__shared__ int mine;
	cg::cluster_group cluster = cg::this_cluster();
	if (threadIdx.x == 0)
		mine = (int)blockIdx.x * 10;
	cluster.sync();
	int next = (int)((cluster.block_rank() + 1) % cluster.num_blocks());
	int got = *cluster.map_shared_rank(&mine, next);
	cluster.sync();
	if (threadIdx.x == 0)
		out[blockIdx.x] = got + (int)cluster.num_blocks() * 1000;
}

int
main()
{
	cudaDeviceProp p;
	CU(cudaGetDeviceProperties(&p, 0));
	if (p.major < 9) {
		skip("clusters", "the device has no clusters");
		T_END();
	}
	int has = 0;
	CU(cudaDeviceGetAttribute(&has, cudaDevAttrClusterLaunch, 0));
	ok(has == 1, "the device says it has clusters");
	Random r;
	const int n = 20000;
	std::vector<unsigned char> in(n);
	std::vector<unsigned> want(256);
	for (auto &b : in)
		want[b = (unsigned char)(r.below(16) * r.below(17))]++;
	Device<unsigned char> din(in);
	Device<unsigned> bins(256);
	bins.zero();
	histogram<<<8, 128>>>(din, bins, n);
	CU(cudaGetLastError());
	same("a histogram over distributed shared memory", bins.get(), want);
	for (unsigned size = 1; size <= 8; size *= 2) {
		Device<int> out(16);
		std::vector<int> w(16);
		for (int b = 0; b < 16; b++)
			w[b] = (int)(b / size * size + (b + 1) % size) * 10 + (int)size * 1000;
		cudaLaunchConfig_t config = {};
		cudaLaunchAttribute attribute = {};
		attribute.id = cudaLaunchAttributeClusterDimension;
		attribute.val.clusterDim.x = size;
		attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
		config.gridDim = dim3(16);
		config.blockDim = dim3(64);
		config.attrs = &attribute;
		config.numAttrs = 1;
		CU(cudaLaunchKernelEx(&config, neighbours, out.p));
		char name[64];
		snprintf(name, sizeof name, "clusters of %u by the launch", size);
		same(name, out.get(), w);
		if (size == 8) {
			int clusters = 0;
			CU(cudaOccupancyMaxActiveClusters(&clusters, neighbours, &config));
			ok(clusters > 0, "occupancy in clusters", "%d", clusters);
		}
		config.gridDim = dim3(17);
		if (size > 1) {
			cudaError_t e = cudaLaunchKernelEx(&config, neighbours, out.p);
			ok(e != cudaSuccess, "a grid that clusters do not divide is refused");
			cudaGetLastError();
		}
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
