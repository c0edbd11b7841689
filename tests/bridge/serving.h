/*
 * A worker's hand-written calls without a worker: records straight into src/server's serve_*.c, in front of a device whose calls all succeed
 * and do nothing. For the test that cuts records and for the fuzzer.
 */
#ifndef TESTS_BRIDGE_SERVING_H
#define TESTS_BRIDGE_SERVING_H

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "server/server.h"
#include "wire/link.h"

/* Those whose records carry lists, structures or names. Calls that answer in parts, or map memory, need a worker around them. */
static const struct serving {
	enum cuda_call_id call;
	sv_serve_fn serve;
} servings[] = {
#define SERVING(name) { CALL_##name, sv_##name },
	SERVING(cuGraphAddNode_v2) SERVING(cuGraphNodeSetParams) SERVING(cuGraphExecNodeSetParams) SERVING(cuGraphKernelNodeGetParams_v2)
	SERVING(cuGraphMemcpyNodeGetParams) SERVING(cuGraphHostNodeGetParams) SERVING(cuGraphBatchMemOpNodeGetParams)
	SERVING(cuGraphMemAllocNodeGetParams) SERVING(cuGraphDestroy) SERVING(cuGraphDestroyNode) SERVING(cuStreamGetCaptureInfo_v3)
	SERVING(cuGraphDebugDotPrint) SERVING(cuMemcpyBatchAsync) SERVING(cuMemcpyBatchAsync_v2) SERVING(cuMemcpy3DBatchAsync)
	SERVING(cuMemcpy3DBatchAsync_v2) SERVING(cuMemcpy3DPeer) SERVING(cuMemcpy3DPeerAsync) SERVING(cuLinkCreate_v2) SERVING(cuLinkAddData_v2)
	SERVING(cuLinkComplete) SERVING(cuLinkDestroy) SERVING(cuLaunchHostFunc) SERVING(cuStreamAddCallback) SERVING(cuUserObjectCreate)
	SERVING(cuMemExportToShareableHandle) SERVING(cuMemImportFromShareableHandle) SERVING(cuMemPoolExportToShareableHandle)
	SERVING(cuMemPoolImportFromShareableHandle) SERVING(cuOccupancyMaxPotentialClusterSize) SERVING(cuOccupancyMaxActiveClusters)
	SERVING(cuLaunchKernel) SERVING(cuModuleLoadDataEx) SERVING(cuLibraryLoadData) SERVING(cuLibraryGetUnifiedFunction)
#undef SERVING
	{ (enum cuda_call_id)SESSION_STOCK, sv_serve_stock }, { (enum cuda_call_id)SESSION_MARKS, sv_serve_marks },
	{ (enum cuda_call_id)SESSION_RECORD, sv_serve_record },
};
#define SERVINGS (sizeof(servings) / sizeof(servings[0]))

static CUresult
serving_success(void)
{
	return CUDA_SUCCESS;
}

/* Every member of the table is a function that answers CUDA_SUCCESS and looks at none of its arguments. */
static const struct cuda_ops *
serving_device(void)
{
	static struct cuda_ops ops;
	CUresult (*success)(void) = serving_success;

	for (size_t at = offsetof(struct cuda_ops, name) + sizeof(ops.name); at < sizeof(ops); at += sizeof(success))
		memcpy((char *)&ops + at, &success, sizeof(success));
	ops.name = "nothing";
	return &ops;
}

static uint64_t serving_handle __attribute__((unused)); /* the first number of the last answer */

/* Serves a copy of the record that ends where the record does. False: it is none. */
static bool
serving_run(const struct serving *serving, const void *record, size_t size, CUresult *result)
{
	static struct wire_link link = { .dead = 1 }; /* nothing is waited for */
	static struct wire_channel wire = { .link = &link };
	static uint8_t answer[SV_SCRATCH] __attribute__((aligned(64)));
	struct sv_channel channel = { .wire = &wire };
	void *copy = malloc(size ? size : 1);

	fw_log_threshold = FW_LOG_ERROR; /* of what is wrong with records there are warnings */
	if (size)
		memcpy(copy, record, size);
	struct sv_call call = { .channel = &channel, .ops = serving_device(), .id = serving->call, .wants_answer = true, .in = fw_cursor(copy, size),
		.out = { .data = answer, .size = sizeof(answer) } };
	call_put_u64(&call.out, 0);
	*result = CUDA_ERROR_NOT_SUPPORTED;
	bool good = serving->serve(&call, result) && !call.out.bad;
	memcpy(&serving_handle, answer + 8, sizeof(serving_handle));
	free(call.own);
	free(copy);
	return good;
}

#endif
