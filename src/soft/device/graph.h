/*
 * Graphs of the software GPU: what graph.c (nodes and edges), graph_exec.c (instantiate, update, launch) and capture.c (streams
 * that record instead of run) share.
 *
 * A graph is a list of nodes in order of creation; an edge is kept by the node that depends. An executable graph owns a clone of
 * the graph, made by the same code, and finds its node for one of the original by the clone's `origin`. Everything here is
 * guarded by graph_lock; what a running launch reads is changed with the queue lock held as well.
 */
#ifndef SW_GRAPH_H
#define SW_GRAPH_H

#include "soft/device/device.h"
#include "soft/device/ops.h"

struct sw_edge {
	struct sw_node *from;
	CUgraphEdgeData data;
};

struct sw_graph_memory { /* what an allocation node allocates: address and memory exist as long as a graph that names it */
	struct sw_graph_memory *next; /* of all */
	struct sw_alloc *alloc;
	uint64_t id;             /* of the allocation, to see whether the program freed it meanwhile */
	CUdeviceptr address;
	uint32_t references;     /* nodes */
	bool live;               /* allocated by a launch and not freed yet */
};

struct sw_node {
	CUgraphNode handle;
	CUgraphNode origin;      /* of a clone: the node that it was made from */
	struct sw_graph *graph;
	struct sw_node *next, *previous;
	CUgraphNodeType type;
	struct sw_context *ctx;
	struct sw_edge *deps;
	uint32_t dep_count, dep_room;
	uint32_t order;          /* position in topological order, for traversals */
	bool leaf;               /* nothing depends on it; set by sw_graph_sort */
	bool enabled;
	union {
		struct {
			CUfunction function;           /* as given: function or kernel */
			struct sw_kernel launch;       /* its params are owned by the node */
			CUlaunchAttributeValue attributes[CU_LAUNCH_ATTRIBUTE_MAX];
			uint32_t attributes_set;
			void **param_pointers;         /* into launch.params, for cuGraphKernelNodeGetParams */
		} kernel;
		struct { CUDA_MEMCPY3D api; struct sw_copy copy; } copy;
		struct { CUDA_MEMSET_NODE_PARAMS api; struct sw_fill fill; } fill;
		struct { CUhostFn fn; void *user; } host;
		struct sw_graph *child;
		CUevent event;
		struct { CUDA_MEM_ALLOC_NODE_PARAMS api; CUmemAccessDesc *access; struct sw_graph_memory *memory; } alloc;
		CUdeviceptr freed;
		struct { CUstreamBatchMemOpParams *ops; uint32_t count; unsigned flags; } memop;
		struct {
			uint64_t handle;
			CUgraphConditionalNodeType type;
			uint32_t count;
			struct sw_graph **bodies;
			CUgraph *handles;              /* of the bodies, what phGraph_out points to */
		} conditional;
	};
};

struct sw_user_object {
	CUuserObject handle;
	uint64_t references;
	void *pointer;
	CUhostFn destroy;
};
struct sw_user_reference {
	struct sw_user_object *object;
	uint32_t count;
};

struct sw_graph {
	CUgraph handle;
	CUgraph origin;          /* of a clone */
	struct sw_graph *parent; /* a child graph or conditional body: the graph of its node; never destroyed by itself */
	struct sw_node *first, *last;
	uint32_t node_count;
	struct sw_node **sorted; /* of executable graphs: nodes in topological order */
	struct sw_user_reference *users;
	uint32_t user_count;
	uint32_t *conditionals;  /* indices of conditional handles made for this graph */
	uint32_t conditional_count;
};

extern pthread_mutex_t sw_graph_lock;

/* graph.c; the lock is held */
struct sw_graph *sw_graph_new(struct sw_graph *parent);
void sw_graph_free(struct sw_graph *graph);
/* Whether the modules of all kernels in it are still loaded. */
bool sw_graph_kernels_live(const struct sw_graph *graph);
/* A deep copy; NULL when out of memory. */
struct sw_graph *sw_graph_copy(const struct sw_graph *graph, struct sw_graph *parent);
struct sw_node *sw_node_new(struct sw_graph *graph, CUgraphNodeType type, struct sw_context *ctx);
void sw_node_free(struct sw_node *node);
/* Replaces what a node does by a copy of what another of the same type does. CUDA_ERROR_OUT_OF_MEMORY. */
CUresult sw_node_assign(struct sw_node *node, const struct sw_node *from);
CUresult sw_node_add_dep(struct sw_node *node, struct sw_node *from, const CUgraphEdgeData *data);
struct sw_node *sw_node_get(CUgraphNode handle);
struct sw_graph *sw_graph_get(CUgraph handle);
struct sw_node *sw_graph_find_clone(const struct sw_graph *graph, CUgraphNode origin);
/* A node that does what a captured operation would have done. */
CUresult sw_node_from_op(struct sw_graph *graph, struct sw_context *ctx, const struct sw_op *op, struct sw_node **out);
/* Fills `order` of all nodes; false if there is a cycle. `list` receives the nodes in order (node_count of them) unless NULL. */
bool sw_graph_sort(struct sw_graph *graph, struct sw_node **list);
/* Sets parameters from the API's description: a node of a graph, or the same node of an executable graph. */
CUresult sw_node_set_params(struct sw_node *node, const CUgraphNodeParams *params);
void sw_graph_charge(int64_t used, int64_t reserved);
struct sw_graph_memory *sw_graph_memory_find(CUdeviceptr address);

/* conditional handles: id 0 is none */
uint32_t sw_conditional_default(uint64_t handle, bool *assign);
uint32_t sw_conditional_value(uint64_t handle);
void sw_conditional_reset(const struct sw_graph *graph);
/* What a kernel's cudaGraphSetConditional does. */
void sw_conditional_set(uint64_t handle, uint32_t value);

/* capture.c */
void sw_capture_install(void);
/* cuGraphLaunch into a stream that is being captured: a child graph node. sw_graph_lock held. */
CUresult sw_capture_child(struct sw_stream *stream, const struct sw_graph *graph);
/* cuStreamWaitEvent: an event recorded while capturing draws the stream into the capture. True: done, *result is the answer. */
bool sw_capture_wait(struct sw_stream *stream, struct sw_event *event, CUresult *result);
/* cuMemAllocAsync on a stream that is being captured: an allocation node. True: done. */
bool sw_capture_alloc(struct sw_stream *stream, uint64_t size, CUdeviceptr *out, CUresult *result);
/* cuMemFree or cuMemFreeAsync outside a graph of memory that an allocation node made. True: it was such memory. */
bool sw_graph_memory_release(CUdeviceptr address);
/* A stream that may be capturing goes away with its context. */
void sw_capture_drop_stream(struct sw_stream *stream);
void sw_event_forget_capture(struct sw_event *event);

#define SW_OPS_GRAPH(X) \
	X(cuThreadExchangeStreamCaptureMode) X(cuGraphCreate) X(cuGraphAddKernelNode_v2) X(cuGraphKernelNodeGetParams_v2) \
	X(cuGraphKernelNodeSetParams_v2) X(cuGraphAddMemcpyNode) X(cuGraphMemcpyNodeGetParams) X(cuGraphMemcpyNodeSetParams) \
	X(cuGraphAddMemsetNode) X(cuGraphMemsetNodeGetParams) X(cuGraphMemsetNodeSetParams) X(cuGraphAddHostNode) \
	X(cuGraphHostNodeGetParams) X(cuGraphHostNodeSetParams) X(cuGraphAddChildGraphNode) X(cuGraphChildGraphNodeGetGraph) \
	X(cuGraphAddEmptyNode) X(cuGraphAddEventRecordNode) X(cuGraphEventRecordNodeGetEvent) X(cuGraphEventRecordNodeSetEvent) \
	X(cuGraphAddEventWaitNode) X(cuGraphEventWaitNodeGetEvent) X(cuGraphEventWaitNodeSetEvent) X(cuGraphAddBatchMemOpNode) \
	X(cuGraphBatchMemOpNodeGetParams) X(cuGraphBatchMemOpNodeSetParams) X(cuGraphExecBatchMemOpNodeSetParams) \
	X(cuGraphAddMemAllocNode) X(cuGraphMemAllocNodeGetParams) X(cuGraphAddMemFreeNode) X(cuGraphMemFreeNodeGetParams) \
	X(cuDeviceGraphMemTrim) X(cuDeviceGetGraphMemAttribute) X(cuDeviceSetGraphMemAttribute) X(cuGraphClone) \
	X(cuGraphNodeFindInClone) X(cuGraphNodeGetType) X(cuGraphGetNodes) X(cuGraphGetRootNodes) X(cuGraphGetEdges_v2) \
	X(cuGraphNodeGetDependencies_v2) X(cuGraphNodeGetDependentNodes_v2) X(cuGraphAddDependencies_v2) \
	X(cuGraphRemoveDependencies_v2) X(cuGraphDestroyNode) X(cuGraphInstantiateWithFlags) X(cuGraphExecGetFlags) \
	X(cuGraphExecKernelNodeSetParams_v2) X(cuGraphExecMemcpyNodeSetParams) X(cuGraphExecMemsetNodeSetParams) \
	X(cuGraphExecHostNodeSetParams) X(cuGraphExecChildGraphNodeSetParams) X(cuGraphExecEventRecordNodeSetEvent) \
	X(cuGraphExecEventWaitNodeSetEvent) X(cuGraphNodeSetEnabled) X(cuGraphNodeGetEnabled) X(cuGraphExecDestroy) \
	X(cuGraphDestroy) X(cuGraphExecUpdate_v2) X(cuGraphExecUpdate) X(cuGraphKernelNodeCopyAttributes) \
	X(cuGraphKernelNodeGetAttribute) X(cuGraphKernelNodeSetAttribute) X(cuGraphDebugDotPrint) X(cuUserObjectCreate) \
	X(cuUserObjectRetain) X(cuUserObjectRelease) X(cuGraphRetainUserObject) X(cuGraphReleaseUserObject) X(cuGraphAddNode_v2) \
	X(cuGraphAddNode) X(cuGraphNodeSetParams) X(cuGraphExecNodeSetParams) X(cuGraphConditionalHandleCreate) \
	X(cuStreamBeginCapture) X(cuStreamBeginCapture_v2) X(cuStreamBeginCaptureToGraph) X(cuStreamEndCapture) \
	X(cuStreamIsCapturing) X(cuStreamGetCaptureInfo) X(cuStreamGetCaptureInfo_v2) X(cuStreamGetCaptureInfo_v3) \
	X(cuStreamUpdateCaptureDependencies) X(cuStreamUpdateCaptureDependencies_v2) X(cuGraphAddKernelNode) \
	X(cuGraphKernelNodeGetParams) X(cuGraphKernelNodeSetParams) X(cuGraphExecKernelNodeSetParams) \
	X(cuGraphInstantiateWithParams) X(cuGraphInstantiate) X(cuGraphInstantiate_v2) X(cuGraphUpload) X(cuGraphLaunch) \
	X(cuGraphGetEdges) X(cuGraphNodeGetDependencies) X(cuGraphNodeGetDependentNodes) X(cuGraphAddDependencies) \
	X(cuGraphRemoveDependencies)

SW_OPS_GRAPH(SW_OP_DECLARE)

#endif
