/*
 * Conditional graph nodes: kernels that decide whether and how often a part of the graph runs.
 */
#include "t.h"

#include <cuda_device_runtime_api.h>

__global__ void step(int *p) { p[threadIdx.x]++; }
__global__ void decide_while(cudaGraphConditionalHandle h, int *count, int limit) { cudaGraphSetConditional(h, ++*count < limit); }
__global__ void decide_if(cudaGraphConditionalHandle h, const int *flag) { cudaGraphSetConditional(h, *flag); }

static cudaGraphNode_t
kernel_node(cudaGraph_t graph, const cudaGraphNode_t *after, size_t n, void *f, unsigned threads, void **args)
{
	cudaKernelNodeParams p = {};
	cudaGraphNode_t node;
	p.func = f;
	p.gridDim = dim3(1);
	p.blockDim = dim3(threads);
	p.kernelParams = args;
	CU(cudaGraphAddKernelNode(&node, graph, after, n, &p));
	return node;
}

static cudaGraph_t
conditional(cudaGraph_t graph, cudaGraphNode_t after, cudaGraphConditionalHandle handle, cudaGraphConditionalNodeType type)
{
	cudaGraphNodeParams p = {};
	cudaGraphNode_t node;
	p.type = cudaGraphNodeTypeConditional;
	p.conditional.handle = handle;
	p.conditional.type = type;
	p.conditional.size = 1;
#if CUDART_VERSION >= 13000
	CU(cudaGraphAddNode(&node, graph, &after, nullptr, 1, &p));
#else
	CU(cudaGraphAddNode(&node, graph, &after, 1, &p));
#endif
	return p.conditional.phGraph_out[0];
}

int
main()
{
	cudaStream_t s;
	CU(cudaStreamCreate(&s));
	for (int flag = 0; flag < 2; flag++) {
		Device<int> p(32), f(std::vector<int>{ flag });
		p.zero();
		cudaGraph_t graph;
		cudaGraphExec_t exec;
		cudaGraphConditionalHandle h;
		CU(cudaGraphCreate(&graph, 0));
		CU(cudaGraphConditionalHandleCreate(&h, graph, 0, cudaGraphCondAssignDefault));
		int *pp = p, *pf = f;
		void *args[] = { &h, &pf }, *step_args[] = { &pp };
		cudaGraphNode_t first = kernel_node(graph, nullptr, 0, (void *)decide_if, 1, args);
		cudaGraph_t body = conditional(graph, first, h, cudaGraphCondTypeIf);
		kernel_node(body, nullptr, 0, (void *)step, 32, step_args);
		CU(cudaGraphInstantiate(&exec, graph, 0));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same(flag ? "an if node that is taken" : "an if node that is not", p.get(), std::vector<int>(32, 2 * flag));
		CU(cudaGraphExecDestroy(exec));
		CU(cudaGraphDestroy(graph));
	}
	{
		Device<int> p(32), count(1);
		p.zero();
		count.zero();
		cudaGraph_t graph;
		cudaGraphExec_t exec;
		cudaGraphConditionalHandle h;
		CU(cudaGraphCreate(&graph, 0));
		CU(cudaGraphConditionalHandleCreate(&h, graph, 1, cudaGraphCondAssignDefault));
		int *pp = p, *pc = count, limit = 10;
		void *step_args[] = { &pp }, *args[] = { &h, &pc, &limit };
		cudaGraphNode_t first = kernel_node(graph, nullptr, 0, (void *)step, 32, step_args);
		cudaGraph_t body = conditional(graph, first, h, cudaGraphCondTypeWhile);
		cudaGraphNode_t inside = kernel_node(body, nullptr, 0, (void *)step, 32, step_args);
		kernel_node(body, &inside, 1, (void *)decide_while, 1, args);
		CU(cudaGraphInstantiate(&exec, graph, 0));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("a while node, ten rounds", p.get(), std::vector<int>(32, 11));
		CU(cudaGraphExecDestroy(exec));
		CU(cudaGraphDestroy(graph));
	}
	CU(cudaStreamDestroy(s));
	CU(cudaDeviceSynchronize());
	T_END();
}
