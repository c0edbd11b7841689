/*
 * Graphs: by capture and by hand, with every ordinary kind of node, updated, cloned, launched many times.
 */
#include "t.h"

__global__ void set(int *p, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] = v; }
__global__ void add(int *p, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] += v; }
__global__ void combine(int *to, const int *a, const int *b, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) to[i] = a[i] * 10 + b[i]; }

static int host_calls;
static void CUDART_CB count_call(void *user) { host_calls += *(int *)user; }

static cudaKernelNodeParams
kernel(void *f, int n, void **args)
{
	cudaKernelNodeParams p = {};
	p.func = f;
	p.gridDim = dim3((n + 127) / 128);
	p.blockDim = dim3(128);
	p.kernelParams = args;
	return p;
}

int
main()
{
	const int n = 1000;
	const unsigned blocks = (n + 127) / 128;
	cudaStream_t s, side;
	cudaGraph_t graph;
	cudaGraphExec_t exec;
	size_t nodes = 0;
	int one = 1;

	CU(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
	CU(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
	{
		Device<int> x(n);
		x.zero();
		CU(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
		for (int i = 1; i <= 5; i++)
			add<<<blocks, 128, 0, s>>>(x, i, n);
		cudaStreamCaptureStatus status;
		CU(cudaStreamIsCapturing(s, &status));
		ok(status == cudaStreamCaptureStatusActive, "the stream captures");
		CU(cudaStreamEndCapture(s, &graph));
		CU(cudaGraphGetNodes(graph, nullptr, &nodes));
		ok(nodes == 5, "five nodes", "%zu", nodes);
		same("nothing ran yet", x.get(), std::vector<int>(n, 0));
		CU(cudaGraphInstantiate(&exec, graph, 0));
		for (int i = 0; i < 3; i++)
			CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("launched three times", x.get(), std::vector<int>(n, 45));
		CU(cudaGraphExecDestroy(exec));
		CU(cudaGraphDestroy(graph));
	}
	{
		/* fork and join over events, copies, memset and a host function */
		Device<int> a(n), b(n), c(n);
		std::vector<int> in(n, 3), out(n);
		cudaEvent_t forked, joined;
		CU(cudaEventCreate(&forked));
		CU(cudaEventCreate(&joined));
		host_calls = 0;
		CU(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
		CU(cudaMemcpyAsync(a.p, in.data(), n * 4, cudaMemcpyHostToDevice, s));
		CU(cudaEventRecord(forked, s));
		CU(cudaStreamWaitEvent(side, forked, 0));
		CU(cudaMemsetAsync(b.p, 0, n * 4, side));
		add<<<blocks, 128, 0, side>>>(b, 4, n);
		CU(cudaLaunchHostFunc(side, count_call, &one));
		CU(cudaEventRecord(joined, side));
		add<<<blocks, 128, 0, s>>>(a, 1, n);
		CU(cudaStreamWaitEvent(s, joined, 0));
		combine<<<blocks, 128, 0, s>>>(c, a, b, n);
		CU(cudaMemcpyAsync(out.data(), c.p, n * 4, cudaMemcpyDeviceToHost, s));
		CU(cudaStreamEndCapture(s, &graph));
		CU(cudaGraphInstantiate(&exec, graph, 0));
		for (int i = 0; i < 4; i++)
			CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("fork and join", out, std::vector<int>(n, 44));
		ok(host_calls == 4, "host nodes", "%d", host_calls);
		CU(cudaGraphExecDestroy(exec));
		CU(cudaGraphDestroy(graph));
		CU(cudaEventDestroy(forked));
		CU(cudaEventDestroy(joined));
	}
	{
		/* by hand */
		Device<int> a(n), b(n), c(n);
		std::vector<int> out(n);
		int *pa = a, *pb = b, *pc = c, seven = 7, nine = 9, count = n;
		void *args_a[] = { &pa, &seven, &count }, *args_b[] = { &pb, &nine, &count }, *args_c[] = { &pc, &pa, &pb, &count };
		cudaGraphNode_t na, nb, nc, copy, host, empty, zero;
		host_calls = 0;
		CU(cudaGraphCreate(&graph, 0));
		cudaMemsetParams mp = {};
		mp.dst = pb;
		mp.elementSize = 4;
		mp.width = n;
		mp.height = 1;
		mp.value = 1;
		CU(cudaGraphAddMemsetNode(&zero, graph, nullptr, 0, &mp));
		cudaKernelNodeParams ka = kernel((void *)set, n, args_a), kb = kernel((void *)add, n, args_b), kc = kernel((void *)combine, n, args_c);
		CU(cudaGraphAddKernelNode(&na, graph, nullptr, 0, &ka));
		CU(cudaGraphAddKernelNode(&nb, graph, &zero, 1, &kb));
		cudaGraphNode_t both[] = { na, nb };
		CU(cudaGraphAddEmptyNode(&empty, graph, both, 2));
		CU(cudaGraphAddKernelNode(&nc, graph, &empty, 1, &kc));
		CU(cudaGraphAddMemcpyNode1D(&copy, graph, &nc, 1, out.data(), pc, n * 4, cudaMemcpyDeviceToHost));
		cudaHostNodeParams hp = { count_call, &one };
		CU(cudaGraphAddHostNode(&host, graph, &copy, 1, &hp));
		CU(cudaGraphInstantiate(&exec, graph, 0));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("a graph by hand", out, std::vector<int>(n, 80));
		ok(host_calls == 1, "its host node", "%d", host_calls);
		cudaGraphNodeType type;
		CU(cudaGraphNodeGetType(copy, &type));
		size_t edges = 0;
#if CUDART_VERSION >= 13000
		CU(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
#else
		CU(cudaGraphGetEdges(graph, nullptr, nullptr, &edges));
#endif
		ok(type == cudaGraphNodeTypeMemcpy && edges == 6, "node type and edges", "%d %zu", type, edges);
		/* other parameters for the executable graph */
		seven = 2;
		cudaError_t e = cudaGraphExecKernelNodeSetParams(exec, na, &ka);
		ok(e == cudaSuccess, "cudaGraphExecKernelNodeSetParams", "%s", cudaGetErrorName(e));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("after it", out, std::vector<int>(n, 30));
		/* a whole update from another graph of the same shape */
		nine = 5;
		CU(cudaGraphKernelNodeSetParams(nb, &kb));
		cudaGraphExecUpdateResultInfo info;
		CU(cudaGraphExecUpdate(exec, graph, &info));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("after cudaGraphExecUpdate", out, std::vector<int>(n, info.result == cudaGraphExecUpdateSuccess ? 76 : -1));
		/* a clone and a child graph */
		cudaGraph_t clone, parent;
		cudaGraphNode_t child, after;
		CU(cudaGraphClone(&clone, graph));
		CU(cudaGraphCreate(&parent, 0));
		CU(cudaGraphAddChildGraphNode(&child, parent, nullptr, 0, clone));
		void *args_more[] = { &pc, &one, &count };
		cudaKernelNodeParams km = kernel((void *)add, n, args_more);
		CU(cudaGraphAddKernelNode(&after, parent, &child, 1, &km));
		cudaGraphExec_t exec2;
		CU(cudaGraphInstantiate(&exec2, parent, 0));
		CU(cudaGraphLaunch(exec2, s));
		CU(cudaStreamSynchronize(s));
		same("a child graph, then a kernel", c.get(), std::vector<int>(n, 77));
		CU(cudaGraphExecDestroy(exec2));
		CU(cudaGraphDestroy(parent));
		CU(cudaGraphDestroy(clone));
		CU(cudaGraphExecDestroy(exec));
		CU(cudaGraphDestroy(graph));
	}
	{
		/* memory allocated and freed inside a graph */
		std::vector<int> out(n);
		int *p;
		CU(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
		CU(cudaMallocAsync(&p, n * 4, s));
		set<<<blocks, 128, 0, s>>>(p, 6, n);
		add<<<blocks, 128, 0, s>>>(p, 1, n);
		CU(cudaMemcpyAsync(out.data(), p, n * 4, cudaMemcpyDeviceToHost, s));
		CU(cudaFreeAsync(p, s));
		CU(cudaStreamEndCapture(s, &graph));
		CU(cudaGraphInstantiate(&exec, graph, 0));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaGraphLaunch(exec, s));
		CU(cudaStreamSynchronize(s));
		same("memory nodes", out, std::vector<int>(n, 7));
		CU(cudaGraphExecDestroy(exec));
		CU(cudaGraphDestroy(graph));
	}
	{
		/* what a capture does not allow breaks it */
		CU(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
		cudaError_t e = cudaStreamSynchronize(s);
		ok(e == cudaErrorStreamCaptureUnsupported, "synchronising a capturing stream", "%s", cudaGetErrorName(e));
		e = cudaStreamEndCapture(s, &graph);
		ok(e == cudaErrorStreamCaptureInvalidated && graph == nullptr, "the capture is invalid then", "%s", cudaGetErrorName(e));
		cudaGetLastError();
		EXPECT(cudaStreamEndCapture(s, &graph), cudaErrorIllegalState);
		cudaGetLastError();
		EXPECT(cudaGraphLaunch(nullptr, s), cudaErrorInvalidValue);
		cudaGetLastError();
	}
	CU(cudaStreamDestroy(s));
	CU(cudaStreamDestroy(side));
	CU(cudaDeviceSynchronize());
	T_END();
}
