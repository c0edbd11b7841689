/*
 * Kernel launches: everything about a launch is checked here, before it is submitted, with the error that CUDA documents; the
 * parameters are gathered into one buffer. How blocks run is queue.c's and the interpreter's business.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <stdlib.h>
#include <string.h>

struct sw_old_launch { /* what cuFuncSetBlockShape and its like have set */
	uint32_t block[3], shared;
	uint32_t param_bytes;
	uint8_t params[4096];
};

/* ---- checks ---------------------------------------------------------------------------------------------------------- */

static bool
shape_valid(const uint32_t grid[3], const uint32_t block[3])
{
	static const uint32_t most_block[3] = { 1024, 1024, 64 }, most_grid[3] = { INT32_MAX, 65535, 65535 };

	for (int i = 0; i < 3; i++)
		if (!grid[i] || !block[i] || grid[i] > most_grid[i] || block[i] > most_block[i])
			return false;
	return (uint64_t)block[0] * block[1] * block[2] <= SW_MAX_THREADS_PER_BLOCK;
}

static CUresult
cluster_check(const struct sw_function *function, const struct sw_kernel *kernel)
{
	const struct sw_limits *limits = sw_device.limits;
	uint64_t blocks = (uint64_t)kernel->cluster[0] * kernel->cluster[1] * kernel->cluster[2];

	if (blocks == 1)
		return CUDA_SUCCESS;
	if (!blocks || blocks > (__atomic_load_n(&function->nonportable_cluster, __ATOMIC_RELAXED) ? limits->cluster_max : limits->cluster_portable))
		return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	for (int i = 0; i < 3; i++)
		if (kernel->grid[i] % kernel->cluster[i])
			return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	return CUDA_SUCCESS;
}

/* Does the kernel run in this shape? */
static CUresult
kernel_check(const struct sw_kernel *kernel)
{
	const struct sw_function *function = kernel->function;
	const struct sx_func_info *info = function->info;
	uint32_t threads = kernel->block[0] * kernel->block[1] * kernel->block[2];

	if (info->reqntid[0])
		for (int i = 0; i < 3; i++)
			if (kernel->block[i] != (info->reqntid[i] ? info->reqntid[i] : 1))
				return CUDA_ERROR_INVALID_VALUE;
	if (kernel->dynamic_shared > __atomic_load_n(&function->max_dynamic_shared, __ATOMIC_RELAXED))
		return CUDA_ERROR_INVALID_VALUE;
	if (threads > info->max_threads)
		return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
	CUresult result = cluster_check(function, kernel);
	if (result != CUDA_SUCCESS)
		return result;
	uint32_t resident = sw_occupancy(function, threads, kernel->dynamic_shared);
	if (!resident)
		return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
	if (kernel->cooperative) {
		uint64_t blocks = (uint64_t)kernel->grid[0] * kernel->grid[1] * kernel->grid[2];
		if (blocks > (uint64_t)resident * sw_device.sm_count)
			return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
	}
	return CUDA_SUCCESS;
}

/* Decodes the kernel if that has not been done. What is not known to the interpreter is said once, and refused each time. */
static CUresult
decode(struct sw_function *function)
{
	struct ptx_error error = { 0 };

	if (sx_func_prepare(function->func, &error) == 0)
		return CUDA_SUCCESS;
	if (!__atomic_exchange_n(&function->refused, true, __ATOMIC_RELAXED))
		fw_error("device", "kernel %s cannot run here: line %d: %s", function->info->name, error.line, error.text);
	return CUDA_ERROR_NOT_SUPPORTED;
}

/* ---- parameters --------------------------------------------------------------------------------------------------------- */

static CUresult
params_from_extra(void **extra, uint32_t bytes, void *buffer)
{
	const void *from = NULL;
	size_t size = 0;

	for (; *extra != (void *)CU_LAUNCH_PARAM_END_AS_INT; extra += 2) {
		if (*extra == (void *)CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT)
			from = extra[1];
		else if (*extra == (void *)CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT)
			size = extra[1] ? *(const size_t *)extra[1] : 0;
		else
			return CUDA_ERROR_INVALID_VALUE;
	}
	if (size < bytes || (bytes && !from))
		return CUDA_ERROR_INVALID_VALUE;
	if (bytes)
		memcpy(buffer, from, bytes);
	return CUDA_SUCCESS;
}

static CUresult
params_gather(const struct sx_func_info *info, void **params, void **extra, void *buffer)
{
	if (info->param_bytes > SW_MAX_PARAM_BYTES)
		return CUDA_ERROR_INVALID_VALUE;
	if (params && extra)
		return CUDA_ERROR_INVALID_VALUE;
	if (extra)
		return params_from_extra(extra, info->param_bytes, buffer);
	if (!params)
		return info->param_count ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	for (uint32_t i = 0; i < info->param_count; i++) {
		const struct ptx_param *param = &info->params[i];
		if (!params[i])
			return CUDA_ERROR_INVALID_VALUE;
		memcpy((char *)buffer + param->offset, params[i], param->size);
	}
	return CUDA_SUCCESS;
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------- */

/* Applies one; *event: an event to record behind the kernel. */
static CUresult
attribute_apply(const CUlaunchAttribute *attribute, struct sw_kernel *kernel, CUevent *event)
{
	const CUlaunchAttributeValue *value = &attribute->value;

	switch (attribute->id) {
	case CU_LAUNCH_ATTRIBUTE_IGNORE:
	case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
	case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
	case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
	case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: /* permission to overlap, which need not be used */
	case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
	case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
	case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
	case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
	case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
		return CUDA_SUCCESS; /* hints */
	case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
		kernel->cooperative = value->cooperative != 0;
		return CUDA_SUCCESS;
	case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
		kernel->cluster[0] = value->clusterDim.x;
		kernel->cluster[1] = value->clusterDim.y;
		kernel->cluster[2] = value->clusterDim.z;
		return CUDA_SUCCESS;
	case CU_LAUNCH_ATTRIBUTE_PRIORITY:
		kernel->priority = value->priority > 0 ? 0
		                   : value->priority < SW_PRIORITY_GREATEST ? SW_PRIORITY_GREATEST : value->priority;
		return CUDA_SUCCESS;
	case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
		*event = value->programmaticEvent.event;
		return CUDA_SUCCESS;
	case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
		*event = value->launchCompletionEvent.event;
		return CUDA_SUCCESS;
	case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
		return value->deviceUpdatableKernelNode.deviceUpdatable ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

static void
cluster_default(struct sw_kernel *kernel)
{
	for (int i = 0; i < 3; i++) {
		uint32_t blocks = __atomic_load_n(&kernel->function->cluster[i], __ATOMIC_RELAXED);
		kernel->cluster[i] = blocks ? blocks : 1;
	}
}

CUresult
sw_kernel_from_api(struct sw_context *ctx, CUfunction handle, const CUlaunchConfig *config, void **params, void **extra,
                   struct sw_kernel *kernel, void *buffer, CUevent *event)
{
	struct sw_function *function = NULL;
	CUresult result = sw_function_get(ctx, handle, &function);

	*event = NULL;
	if (result != CUDA_SUCCESS)
		return result;
	*kernel = (struct sw_kernel){
		.function = function,
		.grid = { config->gridDimX, config->gridDimY, config->gridDimZ },
		.block = { config->blockDimX, config->blockDimY, config->blockDimZ },
		.dynamic_shared = config->sharedMemBytes,
		.priority = SW_PRIORITY_STREAM,
		.params = buffer,
		.param_bytes = function->info->param_bytes,
	};
	if (!shape_valid(kernel->grid, kernel->block))
		return CUDA_ERROR_INVALID_VALUE;
	cluster_default(kernel);
	if (config->numAttrs && !config->attrs)
		return CUDA_ERROR_INVALID_VALUE;
	bool cluster_given = __atomic_load_n(&function->cluster[0], __ATOMIC_RELAXED) != 0;
	for (unsigned i = 0; i < config->numAttrs; i++) {
		result = attribute_apply(&config->attrs[i], kernel, event);
		if (result != CUDA_SUCCESS)
			return result;
		cluster_given |= config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
	}
	if (function->cluster_must_be_set && !cluster_given)
		return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	if (function->info->cluster[0]) /* fixed by the kernel: a launch may only repeat it */
		for (int i = 0; i < 3; i++)
			if (kernel->cluster[i] != (function->info->cluster[i] ? function->info->cluster[i] : 1))
				return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	result = kernel_check(kernel);
	if (result == CUDA_SUCCESS)
		result = params_gather(function->info, params, extra, buffer);
	return result == CUDA_SUCCESS ? decode(function) : result;
}

/* ---- launches --------------------------------------------------------------------------------------------------------------- */

/* `buffer`: room for the parameters. */
static CUresult
launch_into(struct sw_stream *stream, CUfunction f, const CUlaunchConfig *config, void **params, void **extra, void *buffer)
{
	struct sw_launch_source source = { f, config };
	struct sw_op op = { .kind = SW_OP_KERNEL, .source = &source };
	CUevent event;
	CUresult result = sw_kernel_from_api(stream->ctx, f, config, params, extra, &op.kernel, buffer, &event);

	if (result != CUDA_SUCCESS)
		return result;
	if (op.kernel.function->ctx != stream->ctx)
		return CUDA_ERROR_INVALID_HANDLE;
	struct sw_event *record = event ? sw_event_get(event) : NULL;
	if (event && (!record || record->ctx != stream->ctx))
		return CUDA_ERROR_INVALID_HANDLE;
	result = sw_submit(stream, &op);
	if (result == CUDA_SUCCESS && record) {
		/* "Begun" is only known here when the kernel has ended: later than need be, never too early. */
		struct sw_op after = { .kind = SW_OP_RECORD, .event = { record, 0 } };
		result = sw_submit(stream, &after);
	}
	return result;
}

static CUresult
launch(CUfunction f, const CUlaunchConfig *config, void **params, void **extra, bool cooperative)
{
	_Alignas(16) uint8_t few[1024]; /* programs launch from small stacks too */
	CUlaunchAttribute all_resident = { .id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value = { .cooperative = 1 } };
	struct sw_function *function = NULL;
	struct sw_stream *stream = NULL;
	CUlaunchConfig with_attribute;
	void *many = NULL;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, config->hStream, &stream);
	if (result == CUDA_SUCCESS)
		result = sw_function_get(stream->ctx, f, &function);
	if (result != CUDA_SUCCESS)
		return result;
	if (cooperative) {
		with_attribute = *config;
		with_attribute.attrs = &all_resident;
		with_attribute.numAttrs = 1;
		config = &with_attribute;
	}
	if (function->info->param_bytes > sizeof(few) && !(many = malloc(function->info->param_bytes)))
		return CUDA_ERROR_OUT_OF_MEMORY;
	result = launch_into(stream, f, config, params, extra, many ? many : few);
	free(many);
	if (result == CUDA_SUCCESS && sw_device.launch_blocking && !stream->capture)
		result = sw_stream_wait(stream);
	return result;
}

CUresult
sw_cuLaunchKernel(CUfunction f, unsigned gridDimX, unsigned gridDimY, unsigned gridDimZ, unsigned blockDimX, unsigned blockDimY,
                  unsigned blockDimZ, unsigned sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
	CUlaunchConfig config = { gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes, hStream, NULL, 0 };

	return launch(f, &config, kernelParams, extra, false);
}

CUresult
sw_cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
	return config ? launch(f, config, kernelParams, extra, false) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuLaunchCooperativeKernel(CUfunction f, unsigned gridDimX, unsigned gridDimY, unsigned gridDimZ, unsigned blockDimX,
                             unsigned blockDimY, unsigned blockDimZ, unsigned sharedMemBytes, CUstream hStream,
                             void **kernelParams)
{
	CUlaunchConfig config = { gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes, hStream, NULL, 0 };

	return launch(f, &config, kernelParams, NULL, true);
}

/* ---- launches as they were before cuLaunchKernel ------------------------------------------------------------------------------ */

void
sw_old_launch_free(struct sw_old_launch *old)
{
	free(old);
}

/* The function's settings, made at first use. */
static CUresult
old_of(CUfunction handle, struct sw_function **function, struct sw_old_launch **old)
{
	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, handle, function);
	if (result != CUDA_SUCCESS)
		return result;
	if (!(*function)->old)
		(*function)->old = calloc(1, sizeof(**old));
	*old = (*function)->old;
	return *old ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult
sw_cuFuncSetBlockShape(CUfunction hfunc, int x, int y, int z)
{
	struct sw_function *function;
	struct sw_old_launch *old;
	CUresult result = old_of(hfunc, &function, &old);

	if (result != CUDA_SUCCESS)
		return result;
	if (x <= 0 || y <= 0 || z <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	old->block[0] = (uint32_t)x;
	old->block[1] = (uint32_t)y;
	old->block[2] = (uint32_t)z;
	return CUDA_SUCCESS;
}

CUresult
sw_cuFuncSetSharedSize(CUfunction hfunc, unsigned bytes)
{
	struct sw_function *function;
	struct sw_old_launch *old;
	CUresult result = old_of(hfunc, &function, &old);

	if (result == CUDA_SUCCESS)
		old->shared = bytes;
	return result;
}

CUresult
sw_cuParamSetSize(CUfunction hfunc, unsigned numbytes)
{
	struct sw_function *function;
	struct sw_old_launch *old;
	CUresult result = old_of(hfunc, &function, &old);

	if (result != CUDA_SUCCESS)
		return result;
	if (numbytes > sizeof(old->params))
		return CUDA_ERROR_INVALID_VALUE;
	old->param_bytes = numbytes;
	return CUDA_SUCCESS;
}

CUresult
sw_cuParamSetv(CUfunction hfunc, int offset, void *ptr, unsigned numbytes)
{
	struct sw_function *function;
	struct sw_old_launch *old;
	CUresult result = old_of(hfunc, &function, &old);

	if (result != CUDA_SUCCESS)
		return result;
	if (offset < 0 || !ptr || numbytes > sizeof(old->params) || (size_t)offset > sizeof(old->params) - numbytes)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(old->params + offset, ptr, numbytes);
	return CUDA_SUCCESS;
}

CUresult
sw_cuParamSeti(CUfunction hfunc, int offset, unsigned value)
{
	return sw_cuParamSetv(hfunc, offset, &value, sizeof(value));
}

CUresult
sw_cuParamSetf(CUfunction hfunc, int offset, float value)
{
	return sw_cuParamSetv(hfunc, offset, &value, sizeof(value));
}

CUresult
sw_cuLaunchGridAsync(CUfunction f, int grid_width, int grid_height, CUstream hStream)
{
	struct sw_function *function;
	struct sw_old_launch *old;
	CUresult result = old_of(f, &function, &old);

	if (result != CUDA_SUCCESS)
		return result;
	if (grid_width <= 0 || grid_height <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	size_t size = old->param_bytes;
	void *extra[] = { (void *)CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT, old->params, (void *)CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT,
		&size, (void *)CU_LAUNCH_PARAM_END_AS_INT };
	CUlaunchConfig config = { (unsigned)grid_width, (unsigned)grid_height, 1, old->block[0], old->block[1], old->block[2],
		old->shared, hStream, NULL, 0 };
	return launch(f, &config, NULL, extra, false);
}

CUresult
sw_cuLaunchGrid(CUfunction f, int grid_width, int grid_height)
{
	return sw_cuLaunchGridAsync(f, grid_width, grid_height, NULL);
}

CUresult
sw_cuLaunch(CUfunction f)
{
	return sw_cuLaunchGridAsync(f, 1, 1, NULL);
}
