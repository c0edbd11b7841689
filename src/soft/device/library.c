/*
 * Libraries and their kernels (CUDA 12): code that belongs to no context.
 *
 * A library keeps its texts, still compressed. They are parsed when a kernel or variable is asked for in a context, unless
 * CUDA_MODULE_LOADING=EAGER or the caller passed JIT options, whose buffers live only as long as the call. A context that is
 * reset loses its module; the next use makes a new one.
 *
 * Managed variables have one address in all contexts. An image that has any is therefore made once and shared, with its other
 * variables; only there do two contexts see each other's __device__ variables, and a reset does not restore their first values.
 */
#include "soft/device/module.h"

#include <stdlib.h>
#include <string.h>

static bool
eager(void)
{
	const char *value = getenv("CUDA_MODULE_LOADING");

	return value && strcmp(value, "EAGER") == 0;
}

static bool
has_managed(const struct sx_image *image)
{
	for (size_t i = 0; i < sx_image_var_count(image); i++)
		if (sx_image_var(image, i)->managed)
			return true;
	return false;
}

/* Builds the image, or takes the one that all contexts share. Library locked. */
static CUresult
library_image(struct sw_library *library, struct sw_jit *jit, struct sw_shared_image **out)
{
	if (library->broken != CUDA_SUCCESS)
		return library->broken;
	if (library->shared) {
		__atomic_add_fetch(&library->shared->references, 1, __ATOMIC_RELAXED);
		*out = library->shared;
		return CUDA_SUCCESS;
	}
	struct sw_shared_image *shared;
	CUresult result = sw_image_build(&library->sources, jit, &shared);
	if (result != CUDA_SUCCESS) {
		if (result != CUDA_ERROR_OUT_OF_MEMORY)
			library->broken = result;
		return result;
	}
	if (has_managed(shared->image)) {
		shared->references++;
		library->shared = shared;
	}
	*out = shared;
	return CUDA_SUCCESS;
}

static struct sw_module *
module_in(const struct sw_library *library, const struct sw_context *ctx)
{
	for (struct sw_module *module = library->modules; module; module = module->next)
		if (module->ctx == ctx)
			return module;
	return NULL;
}

/* The library's module in a context, made if there is none. Library locked. */
static CUresult
library_module(struct sw_library *library, struct sw_context *ctx, struct sw_jit *jit, struct sw_module **out)
{
	struct sw_shared_image *image;
	struct sw_module *module = module_in(library, ctx);

	if (!module) {
		CUresult result = library_image(library, jit, &image);
		if (result != CUDA_SUCCESS)
			return result;
		if (!library->kernels) {
			size_t count = sx_image_kernel_count(image->image);
			library->kernels = calloc(count + 1, sizeof(*library->kernels));
			if (!library->kernels) {
				sw_shared_image_unref(image);
				return CUDA_ERROR_OUT_OF_MEMORY;
			}
			library->kernel_count = count;
		}
		result = sw_module_new(ctx, library, image, &module);
		if (result != CUDA_SUCCESS)
			return result;
		module->next = library->modules;
		library->modules = module;
	}
	*out = module;
	return CUDA_SUCCESS;
}

/*
 * For questions that need no particular context: the current one, else any that has the library, else the primary one, which need
 * not be active. Library locked.
 */
static CUresult
library_any(struct sw_library *library, struct sw_module **out)
{
	struct sw_context *ctx = NULL;
	struct sw_jit jit;

	sw_context_current(&ctx);
	if (!ctx && library->modules) {
		*out = library->modules;
		return CUDA_SUCCESS;
	}
	sw_jit_open(&jit, 0, NULL, NULL);
	return library_module(library, ctx ? ctx : sw_primary(), &jit, out);
}

CUresult
sw_library_function(struct sw_library_kernel *kernel, struct sw_context *ctx, struct sw_module_function **out)
{
	struct sw_library *library = kernel->library;
	struct sw_module *module;
	struct sw_jit jit;

	sw_jit_open(&jit, 0, NULL, NULL);
	pthread_mutex_lock(&library->lock);
	CUresult result = library_module(library, ctx, &jit, &module);
	if (result == CUDA_SUCCESS)
		result = sw_module_function(module, kernel->index, out);
	if (result == CUDA_SUCCESS)
		__atomic_store_n(&kernel->function, *out, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&library->lock);
	return result;
}

/* No kernel may still point to a function of the module. Library locked. */
static void
forget_functions(struct sw_library *library, const struct sw_module *module)
{
	for (size_t i = 0; i < library->kernel_count; i++) {
		struct sw_library_kernel *kernel = library->kernels[i];
		if (kernel && kernel->function && kernel->function->f.module == module)
			__atomic_store_n(&kernel->function, NULL, __ATOMIC_RELEASE);
	}
}

void
sw_library_drop(struct sw_module *module)
{
	struct sw_library *library = module->library;

	pthread_mutex_lock(&library->lock);
	for (struct sw_module **link = &library->modules; *link; link = &(*link)->next)
		if (*link == module) {
			*link = module->next;
			break;
		}
	forget_functions(library, module);
	sw_module_free(module);
	pthread_mutex_unlock(&library->lock);
}

static void
library_free(struct sw_library *library)
{
	while (library->modules) {
		struct sw_module *module = library->modules;
		library->modules = module->next;
		sw_queue_drain(module->ctx);
		sw_module_free(module);
	}
	for (size_t i = 0; i < library->kernel_count; i++)
		if (library->kernels[i]) {
			fw_handle_end(library->kernels[i]->handle, SW_KIND_KERNEL);
			free(library->kernels[i]->name);
			free(library->kernels[i]);
		}
	if (library->shared)
		sw_shared_image_unref(library->shared);
	img_sources_free(&library->sources);
	pthread_mutex_destroy(&library->lock);
	free(library->kernels);
	free(library);
}

static CUresult
read_options(CUlibraryOption *options, void **values, unsigned count, bool *preserved)
{
	if (count && !options)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++) {
		/* cuBLASLt passes this option without values, and a buffer that it frees: only a value that says so is believed */
		if (options[i] == CU_LIBRARY_BINARY_IS_PRESERVED)
			*preserved = values && values[i];
		else if (options[i] != CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE) /* only for unified function pointers */
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

static CUresult
load_library(const void *code, size_t size, struct sw_jit *jit, bool keep, bool now, CUlibrary *out)
{
	struct sw_library *library = calloc(1, sizeof(*library));
	struct sw_shared_image *image;

	if (!library)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_init(&library->lock, NULL);
	CUresult result = sw_sources_choose(code, size, jit, &library->sources);
	if (result == CUDA_SUCCESS && !keep && !img_sources_keep(&library->sources))
		result = CUDA_ERROR_OUT_OF_MEMORY;
	if (result == CUDA_SUCCESS && now) {
		struct sw_context *ctx = NULL;
		struct sw_module *module;
		sw_context_current(&ctx);
		if (ctx) {
			result = library_module(library, ctx, jit, &module);
		} else {
			result = library_image(library, jit, &image);
			if (result == CUDA_SUCCESS)
				sw_shared_image_unref(image);
		}
	}
	if (result == CUDA_SUCCESS) {
		library->handle = fw_handle_new(SW_KIND_LIBRARY, library);
		if (!library->handle)
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result != CUDA_SUCCESS)
		library_free(library);
	else
		*out = library->handle;
	return result;
}

CUresult
sw_cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions, void **jitOptionsValues,
                     unsigned numJitOptions, CUlibraryOption *libraryOptions, void **libraryOptionValues,
                     unsigned numLibraryOptions)
{
	struct sw_jit jit;
	bool preserved = false;

	if (!code)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = read_options(libraryOptions, libraryOptionValues, numLibraryOptions, &preserved);
	if (result == CUDA_SUCCESS)
		result = sw_jit_open(&jit, numJitOptions, jitOptions, jitOptionsValues);
	if (result != CUDA_SUCCESS)
		return result;
	result = load_library(code, IMG_SIZE_UNKNOWN, &jit, preserved, numJitOptions || eager(), library);
	sw_jit_close(&jit);
	return result;
}

CUresult
sw_cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions, void **jitOptionsValues,
                         unsigned numJitOptions, CUlibraryOption *libraryOptions, void **libraryOptionValues,
                         unsigned numLibraryOptions)
{
	struct sw_jit jit;
	bool preserved = false;
	void *data;
	size_t size;

	if (!fileName)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = read_options(libraryOptions, libraryOptionValues, numLibraryOptions, &preserved);
	if (result == CUDA_SUCCESS && preserved)
		result = CUDA_ERROR_INVALID_VALUE; /* the option is one for data in memory */
	if (result == CUDA_SUCCESS)
		result = sw_jit_open(&jit, numJitOptions, jitOptions, jitOptionsValues);
	if (result == CUDA_SUCCESS)
		result = sw_file_read(fileName, &data, &size);
	if (result != CUDA_SUCCESS)
		return result;
	result = load_library(data, size, &jit, false, numJitOptions || eager(), library);
	sw_jit_close(&jit);
	free(data);
	return result;
}

CUresult
sw_cuLibraryUnload(CUlibrary library)
{
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED; /* would wait for itself */
	struct sw_library *l = fw_handle_end(library, SW_KIND_LIBRARY);
	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	library_free(l);
	return CUDA_SUCCESS;
}

static struct sw_library_kernel *
kernel_new(struct sw_library *library, size_t index, const char *name)
{
	struct sw_library_kernel *kernel = calloc(1, sizeof(*kernel));

	if (!kernel)
		return NULL;
	*kernel = (struct sw_library_kernel){ .library = library, .index = index, .name = strdup(name), .cache_config = -1 };
	kernel->handle = kernel->name ? fw_handle_new(SW_KIND_KERNEL, kernel) : NULL;
	if (!kernel->handle) {
		free(kernel->name);
		free(kernel);
		return NULL;
	}
	return kernel;
}

/* The CUkernel for the kernel with this index in `module`, one of the library's. Library locked. */
static CUresult
kernel_at(struct sw_library *library, const struct sw_module *module, size_t index, CUkernel *out)
{
	struct sw_library_kernel *kernel = library->kernels[index];

	if (!kernel) {
		kernel = kernel_new(library, index, sx_func_info(sx_image_kernel(module->image->image, index))->name);
		if (!kernel)
			return CUDA_ERROR_OUT_OF_MEMORY;
		library->kernels[index] = kernel;
		for (struct sw_module *each = library->modules; each; each = each->next)
			if (each->functions[index])
				each->functions[index]->kernel = kernel;
	}
	*out = kernel->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuLibraryGetKernel(CUkernel *pKernel, CUlibrary library, const char *name)
{
	struct sw_library *l = fw_handle_get(library, SW_KIND_LIBRARY);
	struct sw_module *module;

	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&l->lock);
	CUresult result = library_any(l, &module);
	if (result == CUDA_SUCCESS) {
		long index = sw_shared_image_find(module->image, name);
		result = index < 0 ? CUDA_ERROR_NOT_FOUND : kernel_at(l, module, (size_t)index, pKernel);
	}
	pthread_mutex_unlock(&l->lock);
	return result;
}

CUresult
sw_cuLibraryGetKernelCount(unsigned *count, CUlibrary lib)
{
	struct sw_library *l = fw_handle_get(lib, SW_KIND_LIBRARY);
	struct sw_module *module;

	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&l->lock);
	CUresult result = library_any(l, &module);
	if (result == CUDA_SUCCESS)
		*count = (unsigned)l->kernel_count;
	pthread_mutex_unlock(&l->lock);
	return result;
}

CUresult
sw_cuLibraryEnumerateKernels(CUkernel *kernels, unsigned numKernels, CUlibrary lib)
{
	struct sw_library *l = fw_handle_get(lib, SW_KIND_LIBRARY);
	struct sw_module *module;

	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&l->lock);
	CUresult result = library_any(l, &module);
	for (size_t i = 0; result == CUDA_SUCCESS && i < numKernels && i < l->kernel_count; i++)
		result = kernel_at(l, module, i, &kernels[i]);
	pthread_mutex_unlock(&l->lock);
	return result;
}

CUresult
sw_cuLibraryGetModule(CUmodule *pMod, CUlibrary library)
{
	struct sw_module *module;
	struct sw_jit jit;

	SW_CTX(ctx);
	struct sw_library *l = fw_handle_get(library, SW_KIND_LIBRARY);
	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	sw_jit_open(&jit, 0, NULL, NULL);
	pthread_mutex_lock(&l->lock);
	CUresult result = library_module(l, ctx, &jit, &module);
	if (result == CUDA_SUCCESS)
		*pMod = module->handle;
	pthread_mutex_unlock(&l->lock);
	return result;
}

CUresult
sw_cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	struct sw_module *module;
	struct sw_jit jit;

	SW_CTX(ctx);
	struct sw_library *l = fw_handle_get(library, SW_KIND_LIBRARY);
	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	sw_jit_open(&jit, 0, NULL, NULL);
	pthread_mutex_lock(&l->lock);
	CUresult result = library_module(l, ctx, &jit, &module);
	if (result == CUDA_SUCCESS)
		result = sw_module_global(module, name, false, dptr, bytes);
	pthread_mutex_unlock(&l->lock);
	return result;
}

/* Asked for at a program's start, when no context exists yet. */
CUresult
sw_cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary library, const char *name)
{
	struct sw_library *l = fw_handle_get(library, SW_KIND_LIBRARY);
	struct sw_module *module;

	if (!l)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&l->lock);
	CUresult result = library_any(l, &module);
	if (result == CUDA_SUCCESS)
		result = sw_module_global(module, name, true, dptr, bytes);
	pthread_mutex_unlock(&l->lock);
	return result;
}

/* The device has no function pointers that host and device share (CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS is 0). */
CUresult
sw_cuLibraryGetUnifiedFunction(void **fptr, CUlibrary library, const char *symbol)
{
	if (!fw_handle_get(library, SW_KIND_LIBRARY))
		return CUDA_ERROR_INVALID_HANDLE;
	return symbol ? CUDA_ERROR_NOT_FOUND : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuKernelGetFunction(CUfunction *pFunc, CUkernel kernel)
{
	struct sw_function *f;

	SW_CTX(ctx);
	if (!fw_handle_get(kernel, SW_KIND_KERNEL))
		return CUDA_ERROR_INVALID_HANDLE;
	CUresult result = sw_function_get(ctx, (CUfunction)kernel, &f);
	if (result == CUDA_SUCCESS)
		*pFunc = f->handle;
	return result;
}

CUresult
sw_cuKernelGetLibrary(CUlibrary *pLib, CUkernel kernel)
{
	struct sw_library_kernel *k = fw_handle_get(kernel, SW_KIND_KERNEL);

	if (!k)
		return CUDA_ERROR_INVALID_HANDLE;
	*pLib = k->library->handle;
	return CUDA_SUCCESS;
}

/*
 * The kernel's function in the current context, or in one of those that serve questions without. A CUfunction is taken as well, as
 * the runtime passes what cuKernelGetFunction returned.
 */
static CUresult
function_of(CUkernel handle, struct sw_library_kernel **kernel, struct sw_function **out)
{
	struct sw_function *f = fw_handle_get(handle, SW_KIND_FUNCTION);
	struct sw_module_function *function;
	struct sw_module *module;

	if (f) {
		*kernel = ((struct sw_module_function *)((char *)f - offsetof(struct sw_module_function, f)))->kernel;
		*out = f;
		return CUDA_SUCCESS;
	}
	struct sw_library_kernel *k = fw_handle_get(handle, SW_KIND_KERNEL);
	if (!k)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&k->library->lock);
	CUresult result = library_any(k->library, &module);
	if (result == CUDA_SUCCESS)
		result = sw_module_function(module, k->index, &function);
	pthread_mutex_unlock(&k->library->lock);
	if (result == CUDA_SUCCESS) {
		*kernel = k;
		*out = &function->f;
	}
	return result;
}

CUresult
sw_cuKernelGetAttribute(int *pi, CUfunction_attribute attrib, CUkernel kernel, CUdevice dev)
{
	struct sw_library_kernel *k;
	struct sw_function *f;

	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	CUresult result = function_of(kernel, &k, &f);
	return result == CUDA_SUCCESS ? sw_function_attribute(f, attrib, pi) : result;
}

CUresult
sw_cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel kernel, CUdevice dev)
{
	struct sw_library_kernel *k;
	struct sw_function *f;

	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	CUresult result = function_of(kernel, &k, &f);
	if (result == CUDA_SUCCESS)
		result = sw_function_set(f, attrib, val);
	if (result != CUDA_SUCCESS || !k)
		return result;
	pthread_mutex_lock(&k->library->lock);
	k->set |= 1u << attrib;
	k->values[attrib] = val;
	for (struct sw_module *module = k->library->modules; module; module = module->next) {
		struct sw_module_function *function = module->functions[k->index];
		if (function && !(__atomic_load_n(&function->own, __ATOMIC_RELAXED) >> attrib & 1))
			sw_function_set(&function->f, attrib, val);
	}
	pthread_mutex_unlock(&k->library->lock);
	return CUDA_SUCCESS;
}

CUresult
sw_cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
	struct sw_library_kernel *k;
	struct sw_function *f;

	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (config > CU_FUNC_CACHE_PREFER_EQUAL)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = function_of(kernel, &k, &f);
	if (result == CUDA_SUCCESS) {
		__atomic_store_n(&f->cache_config, config, __ATOMIC_RELAXED);
		if (k)
			k->cache_config = (int)config;
	}
	return result;
}

CUresult
sw_cuKernelGetName(const char **name, CUkernel hfunc)
{
	struct sw_library_kernel *k;
	struct sw_function *f;

	CUresult result = function_of(hfunc, &k, &f);
	if (result == CUDA_SUCCESS)
		*name = k ? k->name : f->info->name;
	return result;
}

CUresult
sw_cuKernelGetParamInfo(CUkernel kernel, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	struct sw_library_kernel *k;
	struct sw_function *f;

	CUresult result = function_of(kernel, &k, &f);
	if (result != CUDA_SUCCESS)
		return result;
	if (paramIndex >= f->info->param_count)
		return CUDA_ERROR_INVALID_VALUE;
	*paramOffset = f->info->params[paramIndex].offset;
	if (paramSize)
		*paramSize = f->info->params[paramIndex].size;
	return CUDA_SUCCESS;
}
