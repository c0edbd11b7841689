/*
 * The worker's half of src/client/remote_launch.c: kernel launches.
 */
#include <string.h>

#include "server/server.h"

#define PARAMS_MAX 8192

bool
sv_cuLaunchKernel(struct sv_call *call, CUresult *result)
{
	struct session_launch l;
	CUlaunchAttribute attributes[64];
	const void *bytes = fw_cursor_bytes(&call->in, sizeof(l));

	if (!bytes)
		return false;
	memcpy(&l, bytes, sizeof(l));
	const void *params = call_get(&call->in, l.param_bytes);
	if (l.attribute_count + (l.cooperative != 0) > sizeof(attributes) / sizeof(attributes[0])) {
		*result = CUDA_ERROR_INVALID_VALUE;
		return true;
	}
	const void *given = fw_cursor_bytes(&call->in, l.attribute_count * sizeof(attributes[0]));
	if (!params || !given)
		return false;
	memcpy(attributes, given, l.attribute_count * sizeof(attributes[0]));
	if (l.cooperative)
		attributes[l.attribute_count++] = (CUlaunchAttribute){ .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = { .cooperative = 1 } };
	size_t size = l.param_bytes;
	void *extra[] = { (void *)1, (void *)(uintptr_t)params, (void *)2, &size, NULL };
	void **parameters = size ? extra : NULL;
	CUfunction f = (CUfunction)(uintptr_t)l.function;
	CUstream stream = (CUstream)(uintptr_t)l.stream;
	if (l.attribute_count) {
		CUlaunchConfig config = { l.grid[0], l.grid[1], l.grid[2], l.block[0], l.block[1], l.block[2], l.shared, stream, attributes,
			l.attribute_count };
		*result = call->ops->cuLaunchKernelEx(&config, f, NULL, parameters);
	} else {
		*result = call->ops->cuLaunchKernel(f, l.grid[0], l.grid[1], l.grid[2], l.block[0], l.block[1], l.block[2], l.shared, stream, NULL,
		                                    parameters);
	}
	return true;
}

/* All parameters of a function at once: an array of pairs of offset and size. */
bool
sv_cuFuncGetParamInfo(struct sv_call *call, CUresult *result)
{
	CUfunction f = (CUfunction)(uintptr_t)call_get_u64(&call->in);
	uint32_t pairs[PARAMS_MAX][2];
	uint64_t count = 0;

	if (call->in.bad)
		return false;
	for (*result = CUDA_SUCCESS; count < PARAMS_MAX; count++) {
		size_t offset = 0, size = 0;
		*result = call->ops->cuFuncGetParamInfo(f, count, &offset, &size);
		if (*result != CUDA_SUCCESS)
			break;
		pairs[count][0] = (uint32_t)offset;
		pairs[count][1] = (uint32_t)size;
	}
	if (*result == CUDA_ERROR_INVALID_VALUE) /* there is no parameter of this number: that was all */
		*result = CUDA_SUCCESS;
	call_put_array(&call->out, pairs, count, sizeof(pairs[0]));
	return true;
}
