/*
 * The worker's half of src/client/remote_launch.c: kernel launches, and what a launch would be like.
 */
#include <string.h>

#include "server/server.h"

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

uint64_t
sv_param_layout(const struct cuda_ops *ops, CUfunction f, uint32_t (*pairs)[2], CUresult *result)
{
	uint64_t count = 0;

	for (*result = CUDA_SUCCESS; count < SV_PARAMS_MAX; count++) {
		size_t offset = 0, size = 0;
		*result = ops->cuFuncGetParamInfo(f, count, &offset, &size);
		if (*result != CUDA_SUCCESS)
			break;
		pairs[count][0] = (uint32_t)offset;
		pairs[count][1] = (uint32_t)size;
	}
	if (*result == CUDA_ERROR_INVALID_VALUE) /* there is no parameter of this number: that was all */
		*result = CUDA_SUCCESS;
	return count;
}

/* All parameters of a function at once: an array of pairs of offset and size. */
bool
sv_cuFuncGetParamInfo(struct sv_call *call, CUresult *result)
{
	CUfunction f = (CUfunction)(uintptr_t)call_get_u64(&call->in);
	uint32_t pairs[SV_PARAMS_MAX][2];

	if (call->in.bad)
		return false;
	uint64_t count = sv_param_layout(call->ops, f, pairs, result);
	call_put_array(&call->out, pairs, count, sizeof(pairs[0]));
	return true;
}

/* ---- occupancy ----------------------------------------------------------------------------------------------------- */

/* A launch that is asked about: the function, then CUlaunchConfig without its list, then the list. */
static bool
get_config(struct sv_call *call, CUfunction *f, CUlaunchConfig *config)
{
	uint64_t count;

	*f = (CUfunction)(uintptr_t)call_get_u64(&call->in);
	const void *given = call_get(&call->in, sizeof(*config));
	const CUlaunchAttribute *attributes = call_get_array(&call->in, sizeof(*attributes), &count);
	if (call->in.bad)
		return false;
	memcpy(config, given, sizeof(*config));
	config->attrs = (CUlaunchAttribute *)(uintptr_t)attributes;
	return !attributes || count == config->numAttrs;
}

static bool
ask_occupancy(struct sv_call *call, CUresult *result, CUresult (*ask)(int *, CUfunction, const CUlaunchConfig *))
{
	CUlaunchConfig config;
	CUfunction f;
	int number = 0;

	if (!get_config(call, &f, &config))
		return false;
	*result = ask(&number, f, &config);
	call_put_u64(&call->out, (uint64_t)number);
	return true;
}

bool
sv_cuOccupancyMaxPotentialClusterSize(struct sv_call *call, CUresult *result)
{
	return ask_occupancy(call, result, call->ops->cuOccupancyMaxPotentialClusterSize);
}

bool
sv_cuOccupancyMaxActiveClusters(struct sv_call *call, CUresult *result)
{
	return ask_occupancy(call, result, call->ops->cuOccupancyMaxActiveClusters);
}
