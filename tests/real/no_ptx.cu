/*
 * A program with machine code alone: the software GPU cannot run it and says so; everything that is no kernel works.
 */
#include "t.h"

__global__ void never(int *p) { *p = 1; }

int
main()
{
	int x = 5, y = 0;
	Device<int> d(1);
	CU(cudaMemcpy(d.p, &x, 4, cudaMemcpyHostToDevice));
	never<<<1, 1>>>(d);
	EXPECT(cudaGetLastError(), cudaErrorNoKernelImageForDevice);
	CU(cudaMemcpy(&y, d.p, 4, cudaMemcpyDeviceToHost));
	ok(y == 5, "the program goes on", "%d", y);
	cudaFuncAttributes a;
	EXPECT(cudaFuncGetAttributes(&a, never), cudaErrorNoKernelImageForDevice);
	cudaGetLastError();
	EXPECT(cudaDeviceSynchronize(), cudaSuccess);
	T_END();
}
