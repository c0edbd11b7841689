/*
 * Graphs of the software GPU through the driver API: nodes by hand, capture, update, conditional nodes, memory nodes, errors.
 */
#include <string.h>

#include "tests/api/lib.h"
#include "tests/tap.h"

static const char ptx[] =
	".version 8.0\n.target sm_75\n.address_size 64\n"
	/* p[tid] = p[tid] * m + a */
	".visible .entry step(.param .u64 p, .param .u32 m, .param .u32 a)\n{\n"
	"	.reg .u32 %r<6>; .reg .u64 %d<4>;\n"
	"	ld.param.u64 %d1, [p]; ld.param.u32 %r1, [m]; ld.param.u32 %r2, [a];\n"
	"	mov.u32 %r3, %tid.x; mul.wide.u32 %d2, %r3, 4; add.s64 %d1, %d1, %d2;\n"
	"	ld.global.u32 %r4, [%d1]; mad.lo.u32 %r4, %r4, %r1, %r2; st.global.u32 [%d1], %r4; ret;\n}\n"
	".extern .func cudaGraphSetConditional (.param .b64 h, .param .b32 v);\n"
	/* p[0] -= 1; condition = p[0] != 0 */
	".visible .entry countdown(.param .u64 p, .param .u64 handle)\n{\n"
	"	.reg .u32 %r<4>; .reg .u64 %d<4>; .reg .pred %q;\n"
	"	ld.param.u64 %d1, [p]; ld.param.u64 %d2, [handle];\n"
	"	ld.global.u32 %r1, [%d1]; sub.u32 %r1, %r1, 1; st.global.u32 [%d1], %r1;\n"
	"	setp.ne.u32 %q, %r1, 0; selp.u32 %r2, 1, 0, %q;\n"
	"	{ .param .b64 h; st.param.b64 [h], %d2; .param .b32 v; st.param.b32 [v], %r2;\n"
	"	call.uni cudaGraphSetConditional, (h, v); }\n"
	"	ret;\n}\n";

enum { N = 32 };
static CUfunction step, countdown;
static CUstream stream, other;
static CUdeviceptr data;
static unsigned got[N];

static void
start(void)
{
	CUcontext ctx;
	CUmodule module;

	CHECK_INT(CU(cuInit)(0), 0);
	CHECK_INT(CU(cuDevicePrimaryCtxRetain)(&ctx, 0), 0);
	CHECK_INT(CU(cuCtxSetCurrent)(ctx), 0);
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), 0);
	CHECK_INT(CU(cuModuleGetFunction)(&step, module, "step"), 0);
	CHECK_INT(CU(cuModuleGetFunction)(&countdown, module, "countdown"), 0);
	CHECK_INT(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING), 0);
	CHECK_INT(CU(cuStreamCreate)(&other, CU_STREAM_NON_BLOCKING), 0);
	CHECK_INT(CU(cuMemAlloc_v2)(&data, N * 4), 0);
	CHECK_INT(CU(cuMemsetD32_v2)(data, 1, N), 0);
	CHECK_INT(CU(cuCtxSynchronize)(), 0); /* the streams above do not wait for the default one */
}

static unsigned
result(void)
{
	CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(got, data, sizeof(got)), 0);
	for (int i = 1; i < N; i++)
		CHECK_INT(got[i], got[0]);
	return got[0];
}

static CUDA_KERNEL_NODE_PARAMS
kernel(CUfunction function, void **params)
{
	return (CUDA_KERNEL_NODE_PARAMS){ .func = function, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1, .blockDimX = N,
		.blockDimY = 1, .blockDimZ = 1, .kernelParams = params };
}

static CUgraphNode
add_step(CUgraph graph, CUgraphNode after, unsigned m, unsigned a)
{
	CUgraphNode node = NULL;
	CUDA_KERNEL_NODE_PARAMS params = kernel(step, (void *[]){ &data, &m, &a });
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&node, graph, after ? &after : NULL, after != NULL, &params), 0);
	return node;
}

static void
launch_step(CUstream to, unsigned m, unsigned a)
{
	CHECK_INT(CU(cuLaunchKernel)(step, 1, 1, 1, N, 1, 1, 0, to, (void *[]){ &data, &m, &a }, NULL), 0);
}

static void
count_call(void *user)
{
	++*(int *)user;
}

TEST(kernels_in_order)
{
	CUgraph graph;
	CUgraphExec exec;
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUgraphNode a = add_step(graph, NULL, 3, 0), b = add_step(graph, a, 1, 5);
	add_step(graph, b, 2, 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), (1 * 3 + 5) * 2);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), ((16 * 3 + 5) * 2 * 3 + 5) * 2);
	size_t count = 0, roots = 0, edges = 0;
	CHECK_INT(CU(cuGraphGetNodes)(graph, NULL, &count), 0);
	CHECK_INT(CU(cuGraphGetRootNodes)(graph, NULL, &roots), 0);
	CHECK_INT(CU(cuGraphGetEdges)(graph, NULL, NULL, &edges), 0);
	CHECK(count == 3 && roots == 1 && edges == 2);
	CHECK_INT(CU(cuGraphExecDestroy)(exec), 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), CUDA_ERROR_INVALID_VALUE);
}

TEST(every_kind_of_node)
{
	CUgraph graph, child;
	CUgraphExec exec;
	CUgraphNode fill, copy, host, event, wait, empty, inner;
	CUevent mark;
	unsigned mirror[N] = { 0 };
	static int calls;
	start();
	CHECK_INT(CU(cuEventCreate)(&mark, 0), 0);
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CHECK_INT(CU(cuGraphCreate)(&child, 0), 0);
	add_step(child, add_step(child, NULL, 1, 1), 10, 0);
	CUDA_MEMSET_NODE_PARAMS set = { data, 0, 7, 4, N, 1 };
	CHECK_INT(CU(cuGraphAddMemsetNode)(&fill, graph, NULL, 0, &set, NULL), 0);
	CHECK_INT(CU(cuGraphAddChildGraphNode)(&inner, graph, &fill, 1, child), 0);
	CHECK_INT(CU(cuGraphAddEventRecordNode)(&event, graph, &inner, 1, mark), 0);
	CHECK_INT(CU(cuGraphAddEventWaitNode)(&wait, graph, &event, 1, mark), 0);
	CHECK_INT(CU(cuGraphAddEmptyNode)(&empty, graph, &wait, 1), 0);
	CUDA_MEMCPY3D move = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = data, .dstMemoryType = CU_MEMORYTYPE_HOST,
		.dstHost = mirror, .WidthInBytes = sizeof(mirror), .Height = 1, .Depth = 1 };
	CHECK_INT(CU(cuGraphAddMemcpyNode)(&copy, graph, &empty, 1, &move, NULL), 0);
	CUDA_HOST_NODE_PARAMS call = { count_call, &calls };
	CHECK_INT(CU(cuGraphAddHostNode)(&host, graph, &copy, 1, &call), 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CHECK_INT(CU(cuGraphDestroy)(child), 0);
	for (int i = 0; i < 3; i++)
		CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
	CHECK_INT(mirror[5], (7 + 1) * 10);
	CHECK_INT(calls, 3);
	CHECK_INT(CU(cuEventQuery)(mark), 0);
	CUgraphNodeType type;
	CHECK_INT(CU(cuGraphNodeGetType)(inner, &type), 0);
	CHECK_INT(type, CU_GRAPH_NODE_TYPE_GRAPH);
	CUDA_MEMCPY3D back;
	CHECK_INT(CU(cuGraphMemcpyNodeGetParams)(copy, &back), 0);
	CHECK(back.dstHost == mirror);
	CHECK_INT(CU(cuGraphMemcpyNodeGetParams)(host, &back), CUDA_ERROR_INVALID_VALUE);
}

TEST(capture_forks_and_joins)
{
	CUgraph graph = NULL;
	CUgraphExec exec;
	CUevent fork, join;
	CUdeviceptr second;
	CUstreamCaptureStatus status;
	size_t count = 0;
	unsigned m = 1, a = 100, mirror[N];
	start();
	CHECK_INT(CU(cuMemAlloc_v2)(&second, N * 4), 0);
	CHECK_INT(CU(cuMemsetD32_v2)(second, 0, N), 0);
	CHECK_INT(CU(cuEventCreate)(&fork, CU_EVENT_DISABLE_TIMING), 0);
	CHECK_INT(CU(cuEventCreate)(&join, CU_EVENT_DISABLE_TIMING), 0);
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	launch_step(stream, 2, 0);
	CHECK_INT(CU(cuEventRecord)(fork, stream), 0);
	CHECK_INT(CU(cuStreamWaitEvent)(other, fork, 0), 0);
	CHECK_INT(CU(cuStreamIsCapturing)(other, &status), 0);
	CHECK_INT(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
	CHECK_INT(CU(cuLaunchKernel)(step, 1, 1, 1, N, 1, 1, 0, other, (void *[]){ &second, &m, &a }, NULL), 0);
	launch_step(stream, 1, 4);
	CHECK_INT(CU(cuEventRecord)(join, other), 0);
	CHECK_INT(CU(cuStreamWaitEvent)(stream, join, 0), 0);
	CHECK_INT(CU(cuMemcpyDtoHAsync_v2)(mirror, second, sizeof(mirror), stream), 0);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), 0);
	CHECK_INT(CU(cuGraphGetNodes)(graph, NULL, &count), 0);
	CHECK_INT(count, 4);
	CHECK_INT(result(), 1); /* nothing ran yet */
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), 6);
	CHECK_INT(mirror[31], 100);
	CHECK_INT(CU(cuStreamIsCapturing)(other, &status), 0);
	CHECK_INT(status, CU_STREAM_CAPTURE_STATUS_NONE);
}

TEST(capture_errors)
{
	CUgraph graph = (CUgraph)1;
	CUevent fork;
	CUdeviceptr p;
	start();
	CHECK_INT(CU(cuEventCreate)(&fork, CU_EVENT_DISABLE_TIMING), 0);
	CHECK_INT(CU(cuStreamBeginCapture_v2)(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
	/* an unjoined fork */
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_ILLEGAL_STATE);
	launch_step(stream, 1, 0);
	CHECK_INT(CU(cuEventRecord)(fork, stream), 0);
	CHECK_INT(CU(cuStreamWaitEvent)(other, fork, 0), 0);
	launch_step(other, 1, 0);
	CHECK_INT(CU(cuStreamEndCapture)(other, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
	CHECK(graph == NULL);
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	launch_step(stream, 1, 0);
	CHECK_INT(CU(cuEventRecord)(fork, stream), 0);
	CHECK_INT(CU(cuStreamWaitEvent)(other, fork, 0), 0);
	launch_step(other, 1, 0);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
	/* synchronising a capturing stream invalidates */
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_RELAXED), 0);
	CHECK_INT(CU(cuStreamSynchronize)(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
	/* an unsafe call in global mode, allowed in relaxed mode */
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_RELAXED), 0);
	CHECK_INT(CU(cuMemAlloc_v2)(&p, 64), 0);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(result(), 1);
}

TEST(exec_changes)
{
	CUgraph graph, changed;
	CUgraphExec exec;
	CUgraphExecUpdateResultInfo info;
	unsigned m = 1, a = 9, enabled = 5;
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUgraphNode first = add_step(graph, NULL, 2, 0), second = add_step(graph, first, 1, 1);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CUDA_KERNEL_NODE_PARAMS params = kernel(step, (void *[]){ &data, &m, &a });
	CHECK_INT(CU(cuGraphExecKernelNodeSetParams_v2)(exec, second, &params), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), 1 * 2 + 9);
	CHECK_INT(CU(cuGraphNodeSetEnabled)(exec, first, 0), 0);
	CHECK_INT(CU(cuGraphNodeGetEnabled)(exec, first, &enabled), 0);
	CHECK_INT(enabled, 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), 20);
	CHECK_INT(CU(cuGraphNodeSetEnabled)(exec, first, 1), 0);
	CHECK_INT(CU(cuGraphCreate)(&changed, 0), 0);
	add_step(changed, add_step(changed, NULL, 1, 2), 3, 0);
	CHECK_INT(CU(cuGraphExecUpdate_v2)(exec, changed, &info), 0);
	CHECK_INT(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), 66);
	add_step(changed, NULL, 1, 0);
	CHECK_INT(CU(cuGraphExecUpdate_v2)(exec, changed, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
	CHECK_INT(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
}

TEST(clone_and_edges)
{
	CUgraph graph, clone;
	CUgraphNode twin;
	size_t count = 5;
	CUgraphNode list[5];
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUgraphNode a = add_step(graph, NULL, 1, 0), b = add_step(graph, NULL, 1, 0), c = add_step(graph, b, 1, 0);
	CHECK_INT(CU(cuGraphAddDependencies)(graph, &a, &b, 1), 0);
	CHECK_INT(CU(cuGraphAddDependencies)(graph, &a, &b, 1), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphAddDependencies)(graph, &c, &a, 1), CUDA_ERROR_INVALID_VALUE); /* a cycle */
	CHECK_INT(CU(cuGraphNodeGetDependentNodes)(a, list, &count), 0);
	CHECK(count == 1 && list[0] == b && list[1] == NULL);
	CHECK_INT(CU(cuGraphClone)(&clone, graph), 0);
	CHECK_INT(CU(cuGraphNodeFindInClone)(&twin, b, clone), 0);
	CHECK(twin != b);
	CHECK_INT(CU(cuGraphRemoveDependencies)(graph, &a, &b, 1), 0);
	count = 5;
	CHECK_INT(CU(cuGraphNodeGetDependencies)(twin, list, &count), 0);
	CHECK_INT(count, 1); /* the clone keeps its edge */
	CHECK_INT(CU(cuGraphDestroyNode)(b), 0);
	count = 5;
	CHECK_INT(CU(cuGraphNodeGetDependencies)(c, list, &count), 0);
	CHECK_INT(count, 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuGraphDestroyNode)(c), CUDA_ERROR_INVALID_VALUE);
}

TEST(while_loop_on_the_device)
{
	CUgraph graph, body;
	CUgraphExec exec;
	CUgraphNode node, inside;
	CUgraphConditionalHandle handle;
	CUdeviceptr counter;
	unsigned five = 5, m = 2, a = 0;
	start();
	CHECK_INT(CU(cuMemAlloc_v2)(&counter, 4), 0);
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CHECK_INT(CU(cuGraphConditionalHandleCreate)(&handle, graph, NULL, 1, CU_GRAPH_COND_ASSIGN_DEFAULT), 0);
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_CONDITIONAL,
		.conditional = { .handle = handle, .type = CU_GRAPH_COND_TYPE_WHILE, .size = 1 } };
	CHECK_INT(CU(cuGraphAddNode_v2)(&node, graph, NULL, NULL, 0, &params), 0);
	body = params.conditional.phGraph_out[0];
	CUDA_KERNEL_NODE_PARAMS work = kernel(step, (void *[]){ &data, &m, &a });
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&inside, body, NULL, 0, &work), 0);
	CUDA_KERNEL_NODE_PARAMS count = kernel(countdown, (void *[]){ &counter, &handle });
	count.blockDimX = 1;
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&inside, body, &inside, 1, &count), 0);
	add_step(graph, node, 1, 1);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	for (int i = 0; i < 2; i++) {
		CHECK_INT(CU(cuMemcpyHtoD_v2)(counter, &five, 4), 0);
		CHECK_INT(CU(cuMemsetD32_v2)(data, 1, N), 0);
	CHECK_INT(CU(cuCtxSynchronize)(), 0); /* the streams above do not wait for the default one */
		CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
		CHECK_INT(result(), 33);
	}
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuGraphExecDestroy)(exec), 0);
}

TEST(memory_nodes)
{
	CUgraph graph;
	CUgraphExec exec;
	CUgraphNode alloc, fill, copy, gone;
	uint64_t used = 99;
	unsigned mirror[N] = { 0 };
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUDA_MEM_ALLOC_NODE_PARAMS params = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE } }, .bytesize = N * 4 };
	CHECK_INT(CU(cuGraphAddMemAllocNode)(&alloc, graph, NULL, 0, &params), 0);
	CHECK(params.dptr != 0);
	CUDA_MEMSET_NODE_PARAMS set = { params.dptr, 0, 3, 4, N, 1 };
	CHECK_INT(CU(cuGraphAddMemsetNode)(&fill, graph, &alloc, 1, &set, NULL), 0);
	CUDA_MEMCPY3D move = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = params.dptr, .dstMemoryType = CU_MEMORYTYPE_HOST,
		.dstHost = mirror, .WidthInBytes = sizeof(mirror), .Height = 1, .Depth = 1 };
	CHECK_INT(CU(cuGraphAddMemcpyNode)(&copy, graph, &fill, 1, &move, NULL), 0);
	CHECK_INT(CU(cuGraphAddMemFreeNode)(&gone, graph, &copy, 1, params.dptr), 0);
	CHECK_INT(CU(cuGraphAddMemFreeNode)(&gone, graph, &copy, 1, data), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	for (int i = 0; i < 2; i++)
		CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
	CHECK_INT(mirror[9], 3);
	CHECK_INT(CU(cuDeviceGetGraphMemAttribute)(0, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used), 0);
	CHECK_INT(used, 0);
	CHECK_INT(CU(cuGraphExecDestroy)(exec), 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuDeviceGetGraphMemAttribute)(0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &used), 0);
	CHECK_INT(used, 0);
}

TEST(user_objects_are_released)
{
	CUgraph graph;
	CUgraphExec exec;
	CUuserObject object;
	static int ended;
	start();
	CHECK_INT(CU(cuUserObjectCreate)(&object, &ended, count_call, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC), 0);
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	add_step(graph, NULL, 1, 0);
	CHECK_INT(CU(cuGraphRetainUserObject)(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE), 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(ended, 0);
	CHECK_INT(CU(cuGraphExecDestroy)(exec), 0);
	CHECK_INT(ended, 1);
	CHECK_INT(CU(cuUserObjectRelease)(object, 1), CUDA_ERROR_INVALID_VALUE);
}

TEST(destroy_while_it_runs)
{
	CUgraph graph;
	CUgraphExec exec;
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUgraphNode last = NULL;
	for (int i = 0; i < 200; i++)
		last = add_step(graph, last, 1, 1);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	for (int i = 0; i < 20; i++)
		CHECK_INT(CU(cuGraphLaunch)(exec, i & 1 ? stream : other), 0);
	CHECK_INT(CU(cuGraphExecDestroy)(exec), 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuStreamSynchronize)(other), 0);
	CHECK_INT(result(), 4001);
}

/* A graph may outlive the module of its kernels: then it is launched no more, and nothing is touched that is gone. */
TEST(module_unloaded)
{
	CUgraph graph, clone;
	CUgraphExec exec;
	CUmodule module;
	CUfunction loaded = NULL;
	start();
	CHECK_INT(CU(cuModuleLoadData)(&module, ptx), 0);
	CHECK_INT(CU(cuModuleGetFunction)(&loaded, module, "step"), 0);
	step = loaded;
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	add_step(graph, NULL, 3, 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(result(), 3);
	CHECK_INT(CU(cuModuleUnload)(module), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuGraphClone)(&clone, graph), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuGraphExecDestroy)(exec), 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(result(), 3);
}

TEST(bad_arguments)
{
	CUgraph graph;
	CUgraphExec exec;
	CUgraphNode node, junk = (CUgraphNode)0x1234;
	unsigned m = 1, a = 0;
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 1), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUDA_KERNEL_NODE_PARAMS params = kernel(step, (void *[]){ &data, &m, &a });
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&node, (CUgraph)5, NULL, 0, &params), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&node, graph, &junk, 1, &params), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&node, graph, NULL, 3, &params), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&node, graph, NULL, 0, NULL), CUDA_ERROR_INVALID_VALUE);
	params.gridDimX = 0;
	CHECK_INT(CU(cuGraphAddKernelNode_v2)(&node, graph, NULL, 0, &params), CUDA_ERROR_INVALID_VALUE);
	size_t count = 0;
	CHECK_INT(CU(cuGraphGetNodes)(graph, NULL, &count), 0);
	CHECK_INT(count, 0); /* nothing half made is left */
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, (CUgraph)7, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphLaunch)((CUgraphExec)9, stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphAddChildGraphNode)(&node, graph, NULL, 0, graph), CUDA_ERROR_INVALID_VALUE);
}

/* What nodes answer lies in memory that is theirs, and means what was given. */
TEST(parameters_come_back)
{
	CUgraph graph;
	CUgraphNode host, alloc, ops;
	CUDA_KERNEL_NODE_PARAMS kernel_back;
	CUDA_KERNEL_NODE_PARAMS_v1 old_back;
	CUDA_HOST_NODE_PARAMS host_back;
	CUDA_BATCH_MEM_OP_NODE_PARAMS ops_back;
	CUDA_MEM_ALLOC_NODE_PARAMS alloc_back;
	CUgraphExec exec;
	CUcontext ctx;
	static int calls, others;
	start();
	CHECK_INT(CU(cuCtxGetCurrent)(&ctx), 0);
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	CUgraphNode first = add_step(graph, NULL, 7, 9);
	CHECK_INT(CU(cuGraphKernelNodeGetParams_v2)(first, &kernel_back), 0);
	CHECK(kernel_back.func == step && kernel_back.blockDimX == N && !kernel_back.extra);
	CHECK(*(CUdeviceptr *)kernel_back.kernelParams[0] == data && *(unsigned *)kernel_back.kernelParams[1] == 7 &&
	      *(unsigned *)kernel_back.kernelParams[2] == 9);
	CHECK_INT(CU(cuGraphKernelNodeGetParams)(first, &old_back), 0);
	CHECK_INT(*(unsigned *)old_back.kernelParams[2], 9);
	unsigned eleven = 11;
	old_back.kernelParams = (void *[]){ &data, &eleven, &eleven };
	CHECK_INT(CU(cuGraphKernelNodeSetParams)(first, &old_back), 0);
	CHECK_INT(CU(cuGraphKernelNodeGetParams_v2)(first, &kernel_back), 0);
	CHECK_INT(*(unsigned *)kernel_back.kernelParams[1], 11);
	CUDA_HOST_NODE_PARAMS call = { count_call, &calls };
	CHECK_INT(CU(cuGraphAddHostNode)(&host, graph, &first, 1, &call), 0);
	CHECK_INT(CU(cuGraphHostNodeGetParams)(host, &host_back), 0);
	CHECK(host_back.fn == count_call && host_back.userData == &calls);
	CHECK_INT(CU(cuGraphHostNodeGetParams)(first, &host_back), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphAddHostNode)(&ops, graph, NULL, 0, &(CUDA_HOST_NODE_PARAMS){ NULL, NULL }), CUDA_ERROR_INVALID_VALUE);
	CUstreamBatchMemOpParams write[2] = {
		{ .writeValue = { CU_STREAM_MEM_OP_WRITE_VALUE_32, data, { 5 }, 0, 0 } },
		{ .writeValue = { CU_STREAM_MEM_OP_WRITE_VALUE_32, data + 4, { 6 }, 0, 0 } } };
	CUDA_BATCH_MEM_OP_NODE_PARAMS batch = { ctx, 2, write, 0 };
	CHECK_INT(CU(cuGraphAddBatchMemOpNode)(&ops, graph, &host, 1, &batch), 0);
	CHECK_INT(CU(cuGraphBatchMemOpNodeGetParams)(ops, &ops_back), 0);
	CHECK(ops_back.count == 2 && ops_back.paramArray != write && ops_back.paramArray[1].writeValue.value == 6 && ops_back.ctx == ctx);
	CUmemAccessDesc access = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 }, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUDA_MEM_ALLOC_NODE_PARAMS memory = { .poolProps = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE } }, .bytesize = 4096, .accessDescs = &access, .accessDescCount = 1 };
	CHECK_INT(CU(cuGraphAddMemAllocNode)(&alloc, graph, NULL, 0, &memory), 0);
	CHECK_INT(CU(cuGraphMemAllocNodeGetParams)(alloc, &alloc_back), 0);
	CHECK(alloc_back.dptr == memory.dptr && alloc_back.accessDescCount == 1 && alloc_back.accessDescs != &access &&
	      alloc_back.accessDescs[0].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	CUDA_HOST_NODE_PARAMS other_call = { count_call, &others };
	CHECK_INT(CU(cuGraphExecHostNodeSetParams)(exec, host, &other_call), 0);
	write[0].writeValue.value = 50;
	CHECK_INT(CU(cuGraphExecBatchMemOpNodeSetParams)(exec, ops, &batch), 0);
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
	CHECK(calls == 0 && others == 1);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(got, data, sizeof(got)), 0);
	CHECK(got[0] == 50 && got[1] == 6 && got[2] == 22);
	CHECK_INT(CU(cuGraphDestroyNode)(host), 0);
	CHECK_INT(CU(cuGraphHostNodeGetParams)(host, &host_back), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuGraphKernelNodeGetParams_v2)(first, &kernel_back), CUDA_ERROR_INVALID_VALUE);
}

enum { WIDE = 700000 }; /* words: more than one piece on the way to a server */

static struct seen {
	const unsigned *words;
	unsigned first, last;
} seen;

static void
look_at(void *user)
{
	struct seen *s = user;
	s->first = s->words[0];
	s->last = s->words[WIDE - 1];
}

static void
add_five(void *user)
{
	unsigned *words = user;

	for (int i = 0; i < 64; i++)
		words[i] += 5;
}

/* What a stream captures of ordinary memory outlives the capture and its graph: in clones, in several executable graphs, between host functions. */
TEST(captured_ordinary_memory)
{
	CUgraph graph, clone;
	CUgraphExec execs[2];
	CUdeviceptr there;
	static unsigned from[64], to[64], rows[8][8];

	start();
	CHECK_INT(CU(cuMemAlloc_v2)(&there, sizeof(from)), 0);
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	CHECK_INT(CU(cuLaunchHostFunc)(stream, add_five, from), 0);
	CHECK_INT(CU(cuMemcpyHtoDAsync_v2)(there, from, sizeof(from), stream), 0);
	CHECK_INT(CU(cuMemcpyDtoHAsync_v2)(to, there, sizeof(to), stream), 0);
	CHECK_INT(CU(cuLaunchHostFunc)(stream, add_five, to), 0);
	CUDA_MEMCPY2D out = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = there, .srcPitch = 16, .dstMemoryType = CU_MEMORYTYPE_HOST,
		.dstHost = rows, .dstPitch = 32, .dstXInBytes = 8, .dstY = 1, .WidthInBytes = 16, .Height = 6 };
	CHECK_INT(CU(cuMemcpy2DAsync_v2)(&out, stream), 0);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), 0);
	CHECK_INT(CU(cuGraphClone)(&clone, graph), 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&execs[0], graph, 0), 0);
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&execs[1], clone, 0), 0);
	CHECK_INT(CU(cuGraphDestroy)(clone), 0);
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 64; i++)
			from[i] = round * 1000 + i;
		CHECK_INT(CU(cuGraphLaunch)(execs[round % 2], stream), 0);
		CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
		CHECK(from[0] == round * 1000 + 5 && to[0] == round * 1000 + 10 && to[63] == round * 1000 + 73);
		for (unsigned i = 0; i < 64; i++)
			CHECK_INT(rows[i / 8][i % 8], i / 8 >= 1 && i / 8 < 7 && i % 8 >= 2 && i % 8 < 6 ? from[(i / 8 - 1) * 4 + i % 8 - 2] : 0);
		if (round == 3) {
			CHECK_INT(CU(cuGraphExecDestroy)(execs[0]), 0);
			execs[0] = execs[1];
		}
	}
	CHECK_INT(CU(cuGraphExecDestroy)(execs[1]), 0);
}

/* A node of ordinary memory that is set to other memory, in the graph and in one of its executable graphs, which run side by side. */
TEST(ordinary_memory_set)
{
	enum { WORDS = 50000 };
	CUgraph graph;
	CUgraphNode in, out, nodes[4];
	CUgraphNodeType type;
	CUgraphExec execs[3];
	CUdeviceptr there[3];
	CUDA_MEMCPY3D back, node = { .srcMemoryType = CU_MEMORYTYPE_HOST, .dstMemoryType = CU_MEMORYTYPE_DEVICE, .WidthInBytes = WORDS * 4, .Height = 1, .Depth = 1 };
	CUDA_MEMCPY3D home = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .dstMemoryType = CU_MEMORYTYPE_HOST, .WidthInBytes = WORDS * 4, .Height = 1, .Depth = 1 };
	static unsigned from[3][WORDS], to[3][WORDS];
	size_t count = 4;

	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	for (int i = 0; i < 3; i++)
		CHECK_INT(CU(cuMemAlloc_v2)(&there[i], sizeof(from[i])), 0);
	node.srcHost = from[0];
	node.dstDevice = home.srcDevice = there[0];
	home.dstHost = to[0];
	CHECK_INT(CU(cuGraphAddMemcpyNode)(&in, graph, NULL, 0, &node, NULL), 0);
	CHECK_INT(CU(cuGraphAddMemcpyNode)(&out, graph, &in, 1, &home, NULL), 0);
	CHECK_INT(CU(cuGraphGetNodes)(graph, nodes, &count), 0);
	CHECK(count == 2 && nodes[0] == in && nodes[1] == out);
	CHECK_INT(CU(cuGraphNodeGetType)(in, &type), 0);
	CHECK_INT(type, CU_GRAPH_NODE_TYPE_MEMCPY);
	CUgraph child;
	CHECK_INT(CU(cuGraphChildGraphNodeGetGraph)(in, &child), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&execs[0], graph, 0), 0);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&execs[1], graph, 0), 0);
	node.srcHost = from[2];
	node.dstDevice = home.srcDevice = there[2];
	home.dstHost = to[2];
	CHECK_INT(CU(cuGraphMemcpyNodeSetParams)(in, &node), 0);
	CHECK_INT(CU(cuGraphMemcpyNodeSetParams)(out, &home), 0);
	CHECK_INT(CU(cuGraphMemcpyNodeGetParams)(in, &back), 0);
	CHECK(back.srcHost == from[2] && back.dstDevice == there[2]);
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&execs[2], graph, 0), 0);
	for (unsigned round = 0; round < 8; round++) {
		for (unsigned set = 0; set < 2; set++) { /* elsewhere first, and back */
			node.srcHost = from[set ? 1 : 2];
			node.dstDevice = home.srcDevice = there[1];
			home.dstHost = to[1];
			CHECK_INT(CU(cuGraphExecMemcpyNodeSetParams)(execs[1], in, &node, NULL), 0);
			CHECK_INT(CU(cuGraphExecMemcpyNodeSetParams)(execs[1], out, &home, NULL), 0);
		}
		for (unsigned i = 0; i < 3; i++)
			for (unsigned k = 0; k < WORDS; k++)
				from[i][k] = (round * 3 + i) * 100000 + k;
		CHECK_INT(CU(cuGraphLaunch)(execs[0], stream), 0);
		CHECK_INT(CU(cuGraphLaunch)(execs[1], other), 0);
		CHECK_INT(CU(cuGraphLaunch)(execs[2], stream), 0);
		CHECK_INT(CU(cuCtxSynchronize)(), 0);
		for (unsigned i = 0; i < 3; i++)
			CHECK(memcmp(from[i], to[i], sizeof(from[i])) == 0);
	}
	CHECK_INT(CU(cuGraphDestroy)(graph), 0);
	for (int i = 0; i < 3; i++)
		CHECK_INT(CU(cuGraphExecDestroy)(execs[i]), 0);
}

/* Ordinary memory in a graph is read and written when the graph runs, each time, and in the order of its nodes. */
TEST(pageable_memory_in_a_graph)
{
	CUgraph graph;
	CUgraphExec exec;
	CUdeviceptr there;
	CUgraphNode nodes[8];
	size_t count = 8;
	static unsigned from[WIDE], to[WIDE], square[16][16], corner[8][8];
	start();
	CHECK_INT(CU(cuMemAlloc_v2)(&there, sizeof(from)), 0);
	CHECK_INT(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), 0);
	CHECK_INT(CU(cuMemcpyHtoDAsync_v2)(there, from, sizeof(from), stream), 0);
	CHECK_INT(CU(cuMemcpyAsync)((CUdeviceptr)(uintptr_t)to, there, sizeof(to), stream), 0);
	CHECK_INT(CU(cuLaunchHostFunc)(stream, look_at, &seen), 0);
	/* 8 rows of 8 words out of the middle of 16 by 16, to the device and back. */
	CUDA_MEMCPY2D in = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = square, .srcPitch = 64, .srcXInBytes = 16, .srcY = 4,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = there, .dstPitch = 32, .WidthInBytes = 32, .Height = 8 };
	CHECK_INT(CU(cuMemcpy2DAsync_v2)(&in, stream), 0);
	CUDA_MEMCPY2D out = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = there, .srcPitch = 32, .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
		.dstDevice = (CUdeviceptr)(uintptr_t)corner, .dstPitch = 32, .WidthInBytes = 32, .Height = 8 };
	CHECK_INT(CU(cuMemcpy2DAsync_v2)(&out, stream), 0);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), 0);
	CHECK_INT(CU(cuGraphGetNodes)(graph, nodes, &count), 0);
	CHECK_INT(count, 5);
	CUDA_MEMCPY3D back;
	CHECK_INT(CU(cuGraphMemcpyNodeGetParams)(nodes[0], &back), 0);
	CHECK(back.srcHost == from || back.srcDevice == (CUdeviceptr)(uintptr_t)from);
	CHECK_INT(back.WidthInBytes * back.Height * back.Depth, sizeof(from));
	CHECK_INT(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0), 0);
	for (unsigned round = 1; round < 4; round++) {
		for (int i = 0; i < WIDE; i++)
			from[i] = (unsigned)i * round;
		for (int i = 0; i < 256; i++)
			square[i / 16][i % 16] = (unsigned)i + round;
		seen.words = to;
		CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
		CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
		CHECK_INT(seen.last, (unsigned)(WIDE - 1) * round);
		CHECK_INT(memcmp(from, to, sizeof(from)), 0);
		for (int i = 0; i < 64; i++)
			CHECK_INT(corner[i / 8][i % 8], square[4 + i / 8][4 + i % 8]);
	}
	/* Another target in the executable graph. */
	static unsigned elsewhere[WIDE];
	CUDA_MEMCPY3D moved = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = there, .dstMemoryType = CU_MEMORYTYPE_HOST,
		.dstHost = elsewhere, .WidthInBytes = sizeof(elsewhere), .Height = 1, .Depth = 1 };
	CHECK_INT(CU(cuGraphExecMemcpyNodeSetParams)(exec, nodes[1], &moved, NULL), 0);
	from[5] = 123456;
	CHECK_INT(CU(cuGraphLaunch)(exec, stream), 0);
	CHECK_INT(CU(cuStreamSynchronize)(stream), 0);
	CHECK(elsewhere[5] == 123456 && to[5] == 15);
}

TEST(capture_says_where_it_is)
{
	CUgraph graph = NULL, mine;
	CUstreamCaptureStatus status;
	const CUgraphNode *nodes = NULL;
	const CUgraphEdgeData *edges = NULL;
	size_t count = 0;
	uint64_t id = 0;
	start();
	CHECK_INT(CU(cuStreamGetCaptureInfo_v3)(stream, &status, &id, &graph, &nodes, &edges, &count), 0);
	CHECK(status == CU_STREAM_CAPTURE_STATUS_NONE && id == 0 && !graph && !nodes && !edges && count == 0);
	CHECK_INT(CU(cuGraphCreate)(&mine, 0), 0);
	CUgraphNode a = add_step(mine, NULL, 1, 1), b = add_step(mine, NULL, 1, 2);
	CHECK_INT(CU(cuStreamBeginCaptureToGraph)(stream, mine, &a, NULL, 1, CU_STREAM_CAPTURE_MODE_RELAXED), 0);
	CHECK_INT(CU(cuStreamGetCaptureInfo_v2)(stream, &status, &id, &graph, &nodes, &count), 0);
	CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE && id != 0 && graph == mine && count == 1 && nodes[0] == a);
	CHECK_INT(CU(cuStreamUpdateCaptureDependencies)(stream, &b, 1, CU_STREAM_ADD_CAPTURE_DEPENDENCIES), 0);
	CHECK_INT(CU(cuStreamGetCaptureInfo_v3)(stream, &status, NULL, NULL, &nodes, &edges, &count), 0);
	CHECK(count == 2 && nodes[0] == a && nodes[1] == b && edges[1].type == 0);
	launch_step(stream, 3, 0);
	CHECK_INT(CU(cuStreamGetCaptureInfo_v3)(stream, &status, NULL, NULL, &nodes, &edges, &count), 0);
	CHECK(count == 1 && nodes[0] != a && nodes[0] != b);
	CHECK_INT(CU(cuStreamUpdateCaptureDependencies)(stream, &a, 1, 5), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuStreamEndCapture)(stream, &graph), 0);
	CHECK(graph == mine);
}

TEST(picture_of_a_graph)
{
	CUgraph graph;
	char path[] = "/tmp/farwarp-dot-XXXXXX", text[4096] = "";
	start();
	CHECK_INT(CU(cuGraphCreate)(&graph, 0), 0);
	add_step(graph, add_step(graph, NULL, 1, 1), 2, 2);
	int fd = mkstemp(path);
	CHECK_INT(CU(cuGraphDebugDotPrint)(graph, path, 0), 0);
	CHECK(read(fd, text, sizeof(text) - 1) > 20);
	CHECK(strncmp(text, "digraph", 7) == 0 && strstr(text, "->") && strchr(text, '}'));
	CHECK_INT(CU(cuGraphDebugDotPrint)(graph, "/nowhere/graph.dot", 0), CUDA_ERROR_OPERATING_SYSTEM);
	CHECK_INT(CU(cuGraphDebugDotPrint)((CUgraph)4, path, 0), CUDA_ERROR_INVALID_VALUE);
	close(fd);
	unlink(path);
}

TEST_MAIN()
