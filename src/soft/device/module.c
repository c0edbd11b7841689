/*
 * Modules: from an image of any kind to kernels and variables in a context.
 *
 * The image's reader (image/) finds the PTX texts, the parser reads them, the interpreter's linker makes one image of them. A module
 * loads at once: its errors are those of the loading call. Machine code is never run: an image without PTX is refused, what
 * CUDA_FORCE_PTX_JIT asks for holds always, and CUDA_DISABLE_PTX_JIT leaves nothing to run.
 */
#include "soft/device/module.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static CUresult
status_result(enum img_status status)
{
	switch (status) {
	case IMG_OK:
		return CUDA_SUCCESS;
	case IMG_INVALID:
		return CUDA_ERROR_INVALID_IMAGE;
	case IMG_NO_BINARY:
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	case IMG_TOO_NEW:
		return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
	case IMG_NO_MEMORY:
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return CUDA_ERROR_UNKNOWN;
}

/* The driver's switch that forbids compiling PTX at run time; there is nothing else that could run here. */
static bool
jit_disabled(void)
{
	static int disabled = -1; /* atomic; every thread finds the same */
	int known = __atomic_load_n(&disabled, __ATOMIC_RELAXED);

	if (known < 0) {
		static const char *const names[] = { "CUDA_DISABLE_PTX_JIT", "CUDA_DISABLE_JIT" };
		known = 0;
		for (size_t i = 0; i < 2; i++) {
			const char *value = getenv(names[i]);
			if (value && strcmp(value, "1") == 0)
				known = 1;
		}
		__atomic_store_n(&disabled, known, __ATOMIC_RELAXED);
	}
	return known;
}

CUresult
sw_sources_choose(const void *image, size_t size, struct sw_jit *jit, struct img_sources *sources)
{
	struct img_device device = { .cc = jit->target, .max_ptx = SW_MAX_PTX };
	struct img_error error;

	if (jit->target > sw_device.cc) {
		sw_jit_error(jit, "the target sm_%u asked for is newer than the device, sm_%u", jit->target, sw_device.cc);
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	}
	enum img_status status = img_choose(image, size, &device, sources, &error);
	if (status != IMG_OK) {
		sw_jit_error(jit, "%s", error.text);
		return status_result(status);
	}
	if (jit_disabled()) {
		img_sources_free(sources);
		sw_jit_error(jit, "CUDA_DISABLE_PTX_JIT is set, and the software GPU runs nothing but PTX");
		return CUDA_ERROR_JIT_COMPILATION_DISABLED;
	}
	return CUDA_SUCCESS;
}

static CUresult
read_all(int fd, char *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got = read(fd, data + at, size - at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return CUDA_ERROR_INVALID_IMAGE;
		at += (size_t)got;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_file_read(const char *path, void **data, size_t *size)
{
	struct stat status;
	CUresult result;
	char *bytes;

	int fd = open(path, O_RDONLY | O_CLOEXEC);
	result = CUDA_ERROR_FILE_NOT_FOUND;
	if (fd < 0 || fstat(fd, &status) != 0) {
		fw_warn("module", "cannot read %s: %m", path);
		goto close_file;
	}
	if (!S_ISREG(status.st_mode)) {
		fw_warn("module", "cannot read %s: not a file", path);
		goto close_file;
	}
	result = CUDA_ERROR_INVALID_IMAGE;
	if ((uint64_t)status.st_size > IMG_MAX_IMAGE)
		goto close_file;
	result = CUDA_ERROR_OUT_OF_MEMORY;
	bytes = malloc((size_t)status.st_size + 1);
	if (!bytes)
		goto close_file;
	result = read_all(fd, bytes, (size_t)status.st_size);
	if (result != CUDA_SUCCESS) {
		free(bytes);
		goto close_file;
	}
	bytes[status.st_size] = 0;
	*data = bytes;
	*size = (size_t)status.st_size;
close_file:
	if (fd >= 0)
		close(fd);
	return result;
}

/* What a text's first directives say must suit the device, before anything else is looked at. */
static CUresult
check_header(const struct img_payload *text, const char *name, struct sw_jit *jit)
{
	uint32_t version, target;
	char suffix = 0;

	if (ptx_peek(text->data, text->size, &version, &target, &suffix))
		return CUDA_SUCCESS; /* the parser says what is wrong, and where */
	if (version > SW_MAX_PTX) {
		sw_jit_error(jit, "%s: unsupported .version %u.%u; the newest that is read is %d.%d", name, version / 10, version % 10,
		             SW_MAX_PTX / 10, SW_MAX_PTX % 10);
		return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
	}
	if (!img_arch_fits(target, suffix, jit->target)) {
		sw_jit_error(jit, "%s: .target sm_%u%.1s does not run on sm_%u", name, target, &suffix, jit->target);
		return CUDA_ERROR_INVALID_PTX;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_source_parse(const struct img_entry *entry, const char *name, struct sw_jit *jit, struct ptx_module **out)
{
	struct img_payload text;
	struct img_error damage;
	struct ptx_error error = { 0 };

	enum img_status status = img_entry_read(entry, &text, &damage);
	if (status != IMG_OK) {
		sw_jit_error(jit, "%s: %s", name, damage.text);
		return status_result(status);
	}
	CUresult result = check_header(&text, name, jit);
	if (result == CUDA_SUCCESS) {
		*out = ptx_parse(text.data, text.size, &error);
		if (!*out) {
			sw_jit_error(jit, "%s, line %d: error: %s", name, error.line, error.text);
			result = CUDA_ERROR_INVALID_PTX;
		}
	}
	img_payload_free(&text);
	return result;
}

static void
describe(struct sw_jit *jit, const struct sx_image *image)
{
	for (size_t i = 0; i < sx_image_kernel_count(image); i++) {
		const struct sx_func_info *info = sx_func_info(sx_image_kernel(image, i));
		sw_jit_info(jit, "%s: %u registers, %u bytes shared, %u bytes local, %u bytes of parameters", info->name,
		            info->registers, info->static_shared, info->local_bytes, info->param_bytes);
	}
}

/* Links and takes the modules over. */
static CUresult
link_modules(struct ptx_module **modules, size_t count, struct sw_jit *jit, struct sx_image **out)
{
	struct sx_target target = { .cc = sw_device.cc, .sm_count = sw_device.sm_count,
		.max_shared_block = sw_device.limits->block_shared_optin };
	struct ptx_error error = { 0 };

	*out = sx_image_link(modules, count, &target, &error);
	if (*out)
		return CUDA_SUCCESS;
	if (strncmp(error.text, "out of memory", 13) == 0) {
		sw_jit_error(jit, "%s", error.text);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	sw_jit_error(jit, "ptx input, line %d: error: %s", error.line, error.text);
	return CUDA_ERROR_INVALID_PTX;
}

CUresult
sw_image_build(const struct img_sources *sources, struct sw_jit *jit, struct sw_shared_image **out)
{
	struct sx_image *image = NULL;
	uint64_t start = sw_now_ns();
	size_t count = 0;

	struct ptx_module **modules = calloc(sources->count + 1, sizeof(*modules));
	if (!modules)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = CUDA_SUCCESS;
	for (; count < sources->count; count++) {
		result = sw_source_parse(&sources->entries[count], "ptx input", jit, &modules[count]);
		if (result != CUDA_SUCCESS)
			break;
	}
	if (result == CUDA_SUCCESS && sw_devrt_needed(modules, count)) {
		struct ptx_error error;
		modules[count] = sw_devrt_parse(&error);
		if (modules[count])
			count++;
		else
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result == CUDA_SUCCESS)
		result = link_modules(modules, count, jit, &image);
	else
		while (count)
			ptx_free(modules[--count]);
	free(modules);
	if (result != CUDA_SUCCESS)
		return result;
	fw_debug("module", "%zu texts, %zu kernels, %zu variables, %llu us", sources->count, sx_image_kernel_count(image),
	         sx_image_var_count(image), (unsigned long long)(sw_now_ns() - start) / 1000);
	if (jit->verbose)
		describe(jit, image);
	for (size_t i = 0; i < sx_image_var_count(image); i++) { /* for sw_variable_at() */
		struct sw_alloc *alloc = sw_alloc_find(sx_image_var(image, i)->address);
		if (alloc && sw_is_internal(alloc))
			alloc->owner = image;
	}
	*out = sw_shared_image_new(image);
	return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

const struct sx_var *
sw_variable_at(const struct sw_alloc *alloc, uint64_t address)
{
	const struct sx_image *image = sw_is_internal(alloc) ? alloc->owner : NULL;

	for (size_t i = 0; image && i < sx_image_var_count(image); i++) {
		const struct sx_var *var = sx_image_var(image, i);
		if (address - var->address < var->size)
			return var;
	}
	return NULL;
}

static const char *
kernel_name(const struct sw_shared_image *shared, size_t index)
{
	return sx_func_info(sx_image_kernel(shared->image, index))->name;
}

/* The slot that holds the kernel's index, or the free one where it would be. */
static uint32_t *
slot_of(const struct sw_shared_image *shared, const char *name)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	for (const char *c = name; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
	size_t at = (hash ^ hash >> 32) & shared->slot_mask;
	while (shared->slots[at] && strcmp(kernel_name(shared, shared->slots[at] - 1), name) != 0)
		at = (at + 1) & shared->slot_mask;
	return &shared->slots[at];
}

struct sw_shared_image *
sw_shared_image_new(struct sx_image *image)
{
	struct sw_shared_image *shared = calloc(1, sizeof(*shared));
	size_t count = sx_image_kernel_count(image), room = 8;

	while (room < 2 * count)
		room *= 2;
	uint32_t *slots = calloc(room, sizeof(*slots));
	if (!shared || !slots) {
		sx_image_free(image);
		free(shared);
		free(slots);
		return NULL;
	}
	*shared = (struct sw_shared_image){ .image = image, .references = 1, .slots = slots, .slot_mask = room - 1 };
	for (size_t i = 0; i < count; i++) {
		uint32_t *slot = slot_of(shared, kernel_name(shared, i));
		if (!*slot)
			*slot = (uint32_t)i + 1;
	}
	return shared;
}

long
sw_shared_image_find(const struct sw_shared_image *shared, const char *name)
{
	return (long)*slot_of(shared, name) - 1;
}

void
sw_shared_image_unref(struct sw_shared_image *shared)
{
	if (__atomic_sub_fetch(&shared->references, 1, __ATOMIC_ACQ_REL) == 0) {
		sx_image_free(shared->image);
		free(shared->slots);
		free(shared);
	}
}

/* The context goes away; its work is done. */
static void
module_child_destroy(struct sw_child *child)
{
	struct sw_module *module = (struct sw_module *)((char *)child - offsetof(struct sw_module, child));

	if (module->library)
		sw_library_drop(module);
	else
		sw_module_free(module);
}

CUresult
sw_module_new(struct sw_context *ctx, struct sw_library *library, struct sw_shared_image *image, struct sw_module **out)
{
	struct sw_module *module = calloc(1, sizeof(*module));

	if (!module)
		goto no_memory;
	module->ctx = ctx;
	module->library = library;
	module->image = image;
	module->function_count = sx_image_kernel_count(image->image);
	module->functions = calloc(module->function_count + 1, sizeof(*module->functions));
	if (!module->functions)
		goto no_memory;
	module->handle = fw_handle_new(SW_KIND_MODULE, module);
	if (!module->handle)
		goto no_memory;
	pthread_mutex_init(&module->lock, NULL);
	sw_context_adopt(ctx, &module->child, module_child_destroy);
	*out = module;
	return CUDA_SUCCESS;
no_memory:
	if (module)
		free(module->functions);
	free(module);
	sw_shared_image_unref(image);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

void
sw_module_free(struct sw_module *module)
{
	fw_handle_end(module->handle, SW_KIND_MODULE);
	sw_context_disown(module->ctx, &module->child);
	for (size_t i = 0; i < module->function_count; i++)
		if (module->functions[i])
			sw_module_function_free(module->functions[i]);
	sw_shared_image_unref(module->image);
	pthread_mutex_destroy(&module->lock);
	free(module->functions);
	free(module);
}

static CUresult
load_image(struct sw_context *ctx, const void *image, size_t size, struct sw_jit *jit, CUmodule *out)
{
	struct img_sources sources;
	struct sw_module *module;
	struct sw_shared_image *shared;

	CUresult result = sw_sources_choose(image, size, jit, &sources);
	if (result != CUDA_SUCCESS)
		return result;
	result = sw_image_build(&sources, jit, &shared);
	img_sources_free(&sources);
	if (result == CUDA_SUCCESS)
		result = sw_module_new(ctx, NULL, shared, &module);
	if (result == CUDA_SUCCESS)
		*out = module->handle;
	return result;
}

CUresult
sw_cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned numOptions, CUjit_option *options, void **optionValues)
{
	struct sw_jit jit;

	SW_CTX(ctx);
	if (!image)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_jit_open(&jit, numOptions, options, optionValues);
	if (result == CUDA_SUCCESS) {
		result = load_image(ctx, image, IMG_SIZE_UNKNOWN, &jit, module);
		sw_jit_close(&jit);
	}
	return result;
}

CUresult
sw_cuModuleLoadData(CUmodule *module, const void *image)
{
	return sw_cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

CUresult
sw_cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
	return sw_cuModuleLoadDataEx(module, fatCubin, 0, NULL, NULL);
}

CUresult
sw_cuModuleLoad(CUmodule *module, const char *fname)
{
	struct sw_jit jit;
	void *data;
	size_t size;

	SW_CTX(ctx);
	if (!fname)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_file_read(fname, &data, &size);
	if (result != CUDA_SUCCESS)
		return result;
	sw_jit_open(&jit, 0, NULL, NULL);
	result = load_image(ctx, data, size, &jit, module);
	free(data);
	return result;
}

CUresult
sw_cuModuleUnload(CUmodule hmod)
{
	SW_CTX(ctx);
	struct sw_module *module = fw_handle_get(hmod, SW_KIND_MODULE);
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	if (module->library)
		return CUDA_ERROR_NOT_PERMITTED; /* it goes with its library */
	if (sw_queue_on_callback_thread())
		return CUDA_ERROR_NOT_PERMITTED; /* would wait for itself */
	sw_queue_drain(module->ctx);
	sw_module_free(module);
	return CUDA_SUCCESS;
}

CUresult
sw_cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
	struct sw_module_function *function;

	SW_CTX(ctx);
	struct sw_module *module = fw_handle_get(hmod, SW_KIND_MODULE);
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_module_find(module, name, &function);
	if (result == CUDA_SUCCESS)
		*hfunc = function->f.handle;
	return result;
}

CUresult
sw_cuModuleGetFunctionCount(unsigned *count, CUmodule mod)
{
	SW_CTX(ctx);
	struct sw_module *module = fw_handle_get(mod, SW_KIND_MODULE);
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	*count = (unsigned)module->function_count;
	return CUDA_SUCCESS;
}

CUresult
sw_cuModuleEnumerateFunctions(CUfunction *functions, unsigned numFunctions, CUmodule mod)
{
	SW_CTX(ctx);
	struct sw_module *module = fw_handle_get(mod, SW_KIND_MODULE);
	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	for (unsigned i = 0; i < numFunctions && i < module->function_count; i++) {
		struct sw_module_function *function;
		CUresult result = sw_module_function(module, i, &function);
		if (result != CUDA_SUCCESS)
			return result;
		functions[i] = function->f.handle;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_module_global(const struct sw_module *module, const char *name, bool managed, CUdeviceptr *dptr, size_t *bytes)
{
	if (!name || (!dptr && !bytes))
		return CUDA_ERROR_INVALID_VALUE;
	const struct sx_var *var = sx_image_find_var(module->image->image, name);
	if (!var || (managed && !var->managed))
		return CUDA_ERROR_NOT_FOUND;
	if (dptr)
		*dptr = var->address;
	if (bytes)
		*bytes = var->size;
	return CUDA_SUCCESS;
}

CUresult
sw_cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
	SW_CTX(ctx);
	struct sw_module *module = fw_handle_get(hmod, SW_KIND_MODULE);
	return module ? sw_module_global(module, name, false, dptr, bytes) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult
sw_cuModuleGetGlobal(CUdeviceptr_v1 *dptr, unsigned *bytes, CUmodule hmod, const char *name)
{
	CUdeviceptr address = 0;
	size_t size = 0;

	CUresult result = sw_cuModuleGetGlobal_v2(&address, &size, hmod, name);
	if (result != CUDA_SUCCESS)
		return result;
	if ((dptr && address > UINT32_MAX) || size > UINT32_MAX) {
		fw_warn_once("module", "cuModuleGetGlobal of CUDA 2 cannot hold an address of 64 bits");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (dptr)
		*dptr = (CUdeviceptr_v1)address;
	if (bytes)
		*bytes = (unsigned)size;
	return CUDA_SUCCESS;
}

/* Texture and surface references left CUDA with version 12; what PTX declares of them is named, but cannot be bound. */
static CUresult
reference_of(CUmodule hmod, const char *name, const char *what)
{
	struct sw_module *module = fw_handle_get(hmod, SW_KIND_MODULE);

	if (!module)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sx_image_find_var(module->image->image, name))
		return CUDA_ERROR_NOT_FOUND;
	fw_warn_once("module", "%s references are not served (%s)", what, name);
	return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult
sw_cuModuleGetTexRef(CUtexref *pTexRef, CUmodule hmod, const char *name)
{
	SW_CTX(ctx);
	return reference_of(hmod, name, "texture");
}

CUresult
sw_cuModuleGetSurfRef(CUsurfref *pSurfRef, CUmodule hmod, const char *name)
{
	SW_CTX(ctx);
	return reference_of(hmod, name, "surface");
}
