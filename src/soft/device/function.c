/*
 * Functions: a kernel in a context, its attributes and parameters. A CUkernel is taken wherever a CUfunction is expected.
 */
#include "soft/device/module.h"

#include <stdlib.h>
#include <string.h>

static void
set_defaults(struct sw_function *f)
{
	const struct sx_func_info *info = f->info;

	f->max_dynamic_shared = info->static_shared < SW_SHARED_DEFAULT ? SW_SHARED_DEFAULT - info->static_shared : 0;
	f->carveout = CU_SHAREDMEM_CARVEOUT_DEFAULT;
	f->cache_config = CU_FUNC_CACHE_PREFER_NONE;
	memcpy(f->cluster, info->cluster, sizeof(f->cluster));
	f->cluster_must_be_set = info->cluster[0] != 0;
}

/* What was set on the CUkernel holds for its function in each context that has no setting of its own. */
static void
inherit(struct sw_module_function *function)
{
	const struct sw_library_kernel *kernel = function->kernel;

	for (int i = 0; i < CU_FUNC_ATTRIBUTE_MAX; i++)
		if (kernel->set >> i & 1)
			sw_function_set(&function->f, (CUfunction_attribute)i, kernel->values[i]);
	if (kernel->cache_config >= 0)
		function->f.cache_config = (CUfunc_cache)kernel->cache_config;
}

CUresult
sw_module_function(struct sw_module *module, size_t index, struct sw_module_function **out)
{
	CUresult result = CUDA_SUCCESS;

	pthread_mutex_lock(&module->lock);
	struct sw_module_function *function = module->functions[index];
	if (!function) {
		function = calloc(1, sizeof(*function));
		if (function)
			function->f.handle = fw_handle_new(SW_KIND_FUNCTION, &function->f);
		if (!function || !function->f.handle) {
			free(function);
			result = CUDA_ERROR_OUT_OF_MEMORY;
			goto unlock;
		}
		function->f.module = module;
		function->f.ctx = module->ctx;
		function->f.func = sx_image_kernel(module->image->image, index);
		function->f.info = sx_func_info(function->f.func);
		set_defaults(&function->f);
		if (module->library && module->library->kernels && module->library->kernels[index]) {
			function->kernel = module->library->kernels[index];
			inherit(function);
		}
		module->functions[index] = function;
	}
	*out = function;
unlock:
	pthread_mutex_unlock(&module->lock);
	return result;
}

CUresult
sw_module_find(struct sw_module *module, const char *name, struct sw_module_function **out)
{
	long index = sw_shared_image_find(module->image, name);

	return index < 0 ? CUDA_ERROR_NOT_FOUND : sw_module_function(module, (size_t)index, out);
}

void
sw_module_function_free(struct sw_module_function *function)
{
	fw_handle_end(function->f.handle, SW_KIND_FUNCTION);
	if (function->f.old)
		sw_old_launch_free(function->f.old);
	free(function);
}

CUresult
sw_function_get(struct sw_context *ctx, CUfunction handle, struct sw_function **out)
{
	struct sw_function *f = fw_handle_get(handle, SW_KIND_FUNCTION);

	if (f) {
		if (f->ctx != ctx)
			return CUDA_ERROR_INVALID_HANDLE;
		*out = f;
		return CUDA_SUCCESS;
	}
	struct sw_library_kernel *kernel = fw_handle_get(handle, SW_KIND_KERNEL);
	if (!kernel)
		return CUDA_ERROR_INVALID_HANDLE;
	/* pairs with the release in sw_library_function: the function is complete when it is seen */
	struct sw_module_function *function = __atomic_load_n(&kernel->function, __ATOMIC_ACQUIRE);
	if (!function || function->f.ctx != ctx) {
		CUresult result = sw_library_function(kernel, ctx, &function);
		if (result != CUDA_SUCCESS)
			return result;
	}
	*out = &function->f;
	return CUDA_SUCCESS;
}

CUresult
sw_function_attribute(const struct sw_function *f, CUfunction_attribute attribute, int *value)
{
	const struct sx_func_info *info = f->info;

	switch (attribute) {
	case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
		*value = (int)info->max_threads;
		break;
	case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
		*value = (int)info->static_shared;
		break;
	case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
		*value = (int)info->const_bytes;
		break;
	case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
		*value = (int)info->local_bytes;
		break;
	case CU_FUNC_ATTRIBUTE_NUM_REGS:
		*value = (int)info->registers;
		break;
	case CU_FUNC_ATTRIBUTE_PTX_VERSION: /* in spite of its name the virtual architecture */
		*value = (int)info->target;
		break;
	case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
		*value = (int)sw_device.cc;
		break;
	case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
		*value = 0;
		break;
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
		*value = (int)__atomic_load_n(&f->max_dynamic_shared, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
		*value = __atomic_load_n(&f->carveout, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
		*value = f->cluster_must_be_set;
		break;
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
		*value = (int)__atomic_load_n(&f->cluster[attribute - CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH], __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
		*value = __atomic_load_n(&f->nonportable_cluster, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
		*value = __atomic_load_n(&f->cluster_policy, __ATOMIC_RELAXED);
		break;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_function_set(struct sw_function *f, CUfunction_attribute attribute, int value)
{
	switch (attribute) {
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
		if (value < 0 || (uint64_t)value + f->info->static_shared > sw_device.limits->block_shared_optin)
			return CUDA_ERROR_INVALID_VALUE;
		__atomic_store_n(&f->max_dynamic_shared, (uint32_t)value, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
		if (value < CU_SHAREDMEM_CARVEOUT_DEFAULT || value > CU_SHAREDMEM_CARVEOUT_MAX_SHARED)
			return CUDA_ERROR_INVALID_VALUE;
		__atomic_store_n(&f->carveout, value, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
	case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
		if (!sw_device.limits->cluster_max)
			return CUDA_ERROR_NOT_SUPPORTED;
		if (f->info->cluster[0])
			return CUDA_ERROR_NOT_PERMITTED; /* the kernel says it itself */
		if (value <= 0)
			return CUDA_ERROR_INVALID_VALUE;
		__atomic_store_n(&f->cluster[attribute - CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH], (uint32_t)value, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
		if (value != 0 && value != 1)
			return CUDA_ERROR_INVALID_VALUE;
		__atomic_store_n(&f->nonportable_cluster, value != 0, __ATOMIC_RELAXED);
		break;
	case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
		if (value < CU_CLUSTER_SCHEDULING_POLICY_DEFAULT || value > CU_CLUSTER_SCHEDULING_POLICY_LOAD_BALANCING)
			return CUDA_ERROR_INVALID_VALUE;
		__atomic_store_n(&f->cluster_policy, value, __ATOMIC_RELAXED);
		break;
	default: /* facts of the code, not settings */
		return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc)
{
	struct sw_function *f;

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, hfunc, &f);
	return result == CUDA_SUCCESS ? sw_function_attribute(f, attrib, pi) : result;
}

CUresult
sw_cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value)
{
	struct sw_function *f;

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, hfunc, &f);
	if (result == CUDA_SUCCESS)
		result = sw_function_set(f, attrib, value);
	if (result == CUDA_SUCCESS)
		__atomic_fetch_or(&((struct sw_module_function *)((char *)f - offsetof(struct sw_module_function, f)))->own, 1u << attrib, __ATOMIC_RELAXED);
	return result;
}

CUresult
sw_cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
	struct sw_function *f;

	SW_CTX(ctx);
	if (config > CU_FUNC_CACHE_PREFER_EQUAL)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_function_get(ctx, hfunc, &f);
	if (result == CUDA_SUCCESS)
		__atomic_store_n(&f->cache_config, config, __ATOMIC_RELAXED);
	return result;
}

CUresult
sw_cuFuncSetSharedMemConfig(CUfunction hfunc, CUsharedconfig config)
{
	struct sw_function *f;

	SW_CTX(ctx);
	if (config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE)
		return CUDA_ERROR_INVALID_VALUE;
	return sw_function_get(ctx, hfunc, &f); /* a hint about banks, of which there are none here */
}

CUresult
sw_cuFuncGetModule(CUmodule *hmod, CUfunction hfunc)
{
	struct sw_function *f;

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, hfunc, &f);
	if (result == CUDA_SUCCESS)
		*hmod = f->module->handle;
	return result;
}

CUresult
sw_cuFuncGetName(const char **name, CUfunction hfunc)
{
	struct sw_function *f;

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, hfunc, &f);
	if (result == CUDA_SUCCESS)
		*name = f->info->name;
	return result;
}

CUresult
sw_cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	struct sw_function *f;

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, func, &f);
	if (result != CUDA_SUCCESS)
		return result;
	if (paramIndex >= f->info->param_count)
		return CUDA_ERROR_INVALID_VALUE;
	*paramOffset = f->info->params[paramIndex].offset;
	if (paramSize)
		*paramSize = f->info->params[paramIndex].size;
	return CUDA_SUCCESS;
}

/* Code is decoded at the first launch, by cuFuncLoad, or by this question, which costs the same as not knowing. */
CUresult
sw_cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
	struct ptx_error error = { 0 };
	struct sw_function *f;

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, function, &f);
	if (result == CUDA_SUCCESS)
		*state = sx_func_prepare(f->func, &error) ? CU_FUNCTION_LOADING_STATE_UNLOADED : CU_FUNCTION_LOADING_STATE_LOADED;
	return result;
}

CUresult
sw_cuFuncLoad(CUfunction function)
{
	struct sw_function *f;
	struct ptx_error error = { 0 };

	SW_CTX(ctx);
	CUresult result = sw_function_get(ctx, function, &f);
	if (result != CUDA_SUCCESS)
		return result;
	if (sx_func_prepare(f->func, &error)) {
		fw_error("module", "kernel %s, line %d: %s", f->info->name, error.line, error.text);
		return CUDA_ERROR_NOT_SUPPORTED; /* as the launch says it */
	}
	return CUDA_SUCCESS;
}
