/*
 * The JIT linker: collects PTX from texts, fat binaries, our own linked images, host objects and archives of them, checks that they
 * parse and link, and hands out an image (image/linked.c) that cuModuleLoadData takes back.
 *
 * Machine code and LTO intermediate code cannot be linked here and are refused. All PTX members of an archive take part, also those
 * that nothing refers to.
 */
#include "soft/device/module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct link_input {
	struct img_payload text;   /* owned */
	struct ptx_module *module; /* parsed; NULL once the linker took it */
};

struct sw_link {
	struct sw_child child;
	CUlinkState handle;
	struct sw_context *ctx;
	struct sw_jit jit;
	pthread_mutex_t lock; /* guards what follows */
	struct link_input *inputs;
	size_t count, room;
	void *image;          /* what cuLinkComplete gave out */
	size_t image_size;
};

static void
link_free(struct sw_link *link)
{
	fw_handle_end(link->handle, SW_KIND_LINK);
	sw_context_disown(link->ctx, &link->child);
	for (size_t i = 0; i < link->count; i++) {
		img_payload_free(&link->inputs[i].text);
		if (link->inputs[i].module)
			ptx_free(link->inputs[i].module);
	}
	pthread_mutex_destroy(&link->lock);
	free(link->inputs);
	free(link->image);
	free(link);
}

static void
link_child_destroy(struct sw_child *child)
{
	link_free((struct sw_link *)((char *)child - offsetof(struct sw_link, child)));
}

CUresult
sw_cuLinkCreate_v2(unsigned numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut)
{
	SW_CTX(ctx);
	struct sw_link *link = calloc(1, sizeof(*link));
	if (!link)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = sw_jit_open(&link->jit, numOptions, options, optionValues);
	if (result == CUDA_SUCCESS && link->jit.target > sw_device.cc) {
		sw_jit_error(&link->jit, "linking for sm_%u on sm_%u is not served", link->jit.target, sw_device.cc);
		result = CUDA_ERROR_NO_BINARY_FOR_GPU;
	}
	if (result == CUDA_SUCCESS) {
		link->handle = fw_handle_new(SW_KIND_LINK, link);
		if (!link->handle)
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result != CUDA_SUCCESS) {
		sw_jit_close(&link->jit);
		free(link);
		return result;
	}
	link->ctx = ctx;
	pthread_mutex_init(&link->lock, NULL);
	sw_context_adopt(ctx, &link->child, link_child_destroy);
	*stateOut = link->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuLinkCreate(unsigned numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut)
{
	return sw_cuLinkCreate_v2(numOptions, options, optionValues, stateOut);
}

/* A text of the program's own is copied; one that was decompressed is already ours. */
static CUresult
own_text(struct img_payload *text)
{
	if (text->owned)
		return CUDA_SUCCESS;
	char *copy = malloc(text->size + 1);
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(copy, text->data, text->size);
	copy[text->size] = 0;
	*text = (struct img_payload){ .data = copy, .size = strnlen(copy, text->size), .owned = copy };
	return CUDA_SUCCESS;
}

static CUresult
add_text(struct sw_link *link, const struct img_entry *entry, const char *name)
{
	struct link_input input = { 0 };

	if (link->count == link->room) {
		size_t room = link->room ? 2 * link->room : 8;
		struct link_input *inputs = realloc(link->inputs, room * sizeof(*inputs));
		if (!inputs)
			return CUDA_ERROR_OUT_OF_MEMORY;
		link->inputs = inputs;
		link->room = room;
	}
	CUresult result = sw_source_parse(entry, name, &link->jit, &input.module);
	if (result != CUDA_SUCCESS)
		return result;
	/* it could be decompressed just now */
	if (img_entry_read(entry, &input.text, NULL) != IMG_OK || own_text(&input.text) != CUDA_SUCCESS) {
		ptx_free(input.module);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	link->inputs[link->count++] = input;
	return CUDA_SUCCESS;
}

static CUresult
add_image(struct sw_link *link, const void *data, size_t size, const char *name)
{
	struct img_sources sources;

	CUresult result = sw_sources_choose(data, size, &link->jit, &sources);
	if (result != CUDA_SUCCESS)
		return result;
	for (size_t i = 0; i < sources.count && result == CUDA_SUCCESS; i++)
		result = add_text(link, &sources.entries[i], name);
	img_sources_free(&sources);
	return result;
}

static CUresult
add_object(struct sw_link *link, const void *data, size_t size, const char *name)
{
	struct img_object object;
	struct img_error error;
	const void *fatbin;
	size_t fatbin_size, taken = 0, refused = 0;
	int more;

	if (img_object_open(&object, data, size, &error)) {
		sw_jit_error(&link->jit, "%s: %s", name, error.text);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	while ((more = img_object_next(&object, &fatbin, &fatbin_size, &error)) > 0) {
		CUresult result = add_image(link, fatbin, fatbin_size, name);
		if (result == CUDA_ERROR_NO_BINARY_FOR_GPU)
			refused++; /* harmless if nothing refers to it; the archive of the device runtime is linked by habit */
		else if (result != CUDA_SUCCESS)
			return result;
		else
			taken++;
	}
	if (more < 0) {
		sw_jit_error(&link->jit, "%s: %s", name, error.text);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	sw_jit_info(&link->jit, "%s: %zu fat binaries taken, %zu without PTX for sm_%u", name, taken, refused, link->jit.target);
	return CUDA_SUCCESS;
}

static CUresult
add_data(struct sw_link *link, CUjitInputType type, const void *data, size_t size, const char *name)
{
	if (link->image)
		return CUDA_ERROR_INVALID_VALUE; /* complete */
	switch (type) {
	case CU_JIT_INPUT_PTX: {
		struct img_entry entry = { .kind = IMG_ENTRY_PTX, .payload = data, .payload_size = size, .size = size };
		return size > IMG_MAX_TEXT ? CUDA_ERROR_INVALID_PTX : add_text(link, &entry, name);
	}
	case CU_JIT_INPUT_CUBIN:
	case CU_JIT_INPUT_FATBINARY:
		return add_image(link, data, size, name);
	case CU_JIT_INPUT_OBJECT:
	case CU_JIT_INPUT_LIBRARY:
		return add_object(link, data, size, name);
	case CU_JIT_INPUT_NVVM:
		sw_jit_error(&link->jit, "%s: LTO intermediate code is not served, only PTX", name);
		return CUDA_ERROR_NOT_SUPPORTED;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
}

CUresult
sw_cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name, unsigned numOptions,
                    CUjit_option *options, void **optionValues)
{
	struct sw_link *link = fw_handle_get(state, SW_KIND_LINK);

	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!data || !size)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&link->lock);
	struct sw_jit general = link->jit; /* the options given here hold for this input only, as do their addresses */
	CUresult result = sw_jit_options(&link->jit, numOptions, options, optionValues);
	if (result == CUDA_SUCCESS)
		result = add_data(link, type, data, size, name ? name : "ptx input");
	sw_jit_close(&link->jit);
	if (link->jit.info.text == general.info.text)
		general.info.used = link->jit.info.used;
	if (link->jit.error.text == general.error.text)
		general.error.used = link->jit.error.used;
	link->jit = general;
	pthread_mutex_unlock(&link->lock);
	return result;
}

CUresult
sw_cuLinkAddData(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name, unsigned numOptions,
                 CUjit_option *options, void **optionValues)
{
	return sw_cuLinkAddData_v2(state, type, data, size, name, numOptions, options, optionValues);
}

CUresult
sw_cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned numOptions, CUjit_option *options,
                    void **optionValues)
{
	void *data;
	size_t size;

	if (!fw_handle_get(state, SW_KIND_LINK))
		return CUDA_ERROR_INVALID_HANDLE;
	if (!path)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_file_read(path, &data, &size);
	if (result != CUDA_SUCCESS)
		return result;
	result = sw_cuLinkAddData_v2(state, type, data, size, path, numOptions, options, optionValues);
	free(data);
	return result;
}

CUresult
sw_cuLinkAddFile(CUlinkState state, CUjitInputType type, const char *path, unsigned numOptions, CUjit_option *options,
                 void **optionValues)
{
	return sw_cuLinkAddFile_v2(state, type, path, numOptions, options, optionValues);
}

/* What the device provides to every kernel (exec/builtin.c), and the device runtime's entry points, which fault when called. */
static bool
is_provided(const char *name)
{
	static const char *const names[] = { "vprintf", "malloc", "free", "__assertfail" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return strncmp(name, "cuda", 4) == 0 || strncmp(name, "__cuda", 6) == 0;
}

static bool
names_function(const struct ptx_operand *operand, uint32_t function)
{
	if ((operand->kind == PTX_OP_SYMBOL || operand->kind == PTX_OP_ADDRESS) && operand->symbol_kind == PTX_SYM_FUNC &&
	    operand->symbol == function)
		return true;
	for (uint32_t i = 0; operand->elems && i < operand->count; i++)
		if (names_function(&operand->elems[i], function))
			return true;
	return false;
}

static bool
is_used(const struct ptx_module *module, uint32_t function)
{
	for (uint32_t f = 0; f < module->func_count; f++)
		for (uint32_t i = 0; i < module->funcs[f].insn_count; i++) {
			const struct ptx_insn *insn = &module->funcs[f].insns[i];
			for (uint32_t o = 0; o < insn->operand_count; o++)
				if (names_function(&insn->operands[o], function))
					return true;
		}
	return false;
}

static bool
is_defined(const struct sw_link *link, const char *name)
{
	for (size_t i = 0; i < link->count; i++) {
		const struct ptx_module *module = link->inputs[i].module;
		for (uint32_t f = 0; f < module->func_count; f++)
			if ((module->funcs[f].has_body || module->funcs[f].alias_of) && strcmp(module->funcs[f].name, name) == 0)
				return true;
	}
	return false;
}

/* Functions that are called and nowhere defined; a load would let them pass, until they are called. */
static bool
all_defined(struct sw_link *link)
{
	bool good = true;

	for (size_t i = 0; i < link->count; i++) {
		const struct ptx_module *module = link->inputs[i].module;
		for (uint32_t f = 0; f < module->func_count; f++) {
			const struct ptx_func *func = &module->funcs[f];
			if (func->has_body || func->alias_of || is_provided(func->name) || is_defined(link, func->name) || !is_used(module, f))
				continue;
			sw_jit_error(&link->jit, "link: error: undefined reference to function %s", func->name);
			good = false;
		}
	}
	return good;
}

/* Links for real, so that what is missing or defined twice is found here; the result itself is made again by each load. */
static CUresult
try_link(struct sw_link *link)
{
	struct sx_target target = { .cc = sw_device.cc, .sm_count = sw_device.sm_count,
		.max_shared_block = sw_device.limits->block_shared_optin };
	struct ptx_error error = { 0 };

	if (!all_defined(link))
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	struct ptx_module **modules = calloc(link->count, sizeof(*modules));
	if (!modules)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t i = 0; i < link->count; i++) {
		modules[i] = link->inputs[i].module;
		link->inputs[i].module = NULL;
	}
	struct sx_image *image = sx_image_link(modules, link->count, &target, &error);
	free(modules);
	if (!image) {
		sw_jit_error(&link->jit, "link: error: %s", error.text);
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	}
	sx_image_free(image);
	return CUDA_SUCCESS;
}

static CUresult
complete(struct sw_link *link)
{
	if (link->image)
		return CUDA_SUCCESS;
	if (!link->count || !link->inputs[0].module)
		return CUDA_ERROR_INVALID_VALUE; /* nothing to link, or it failed before */
	CUresult result = try_link(link);
	if (result != CUDA_SUCCESS)
		return result;
	struct img_payload *texts = calloc(link->count, sizeof(*texts));
	if (texts) {
		for (size_t i = 0; i < link->count; i++)
			texts[i] = link->inputs[i].text;
		link->image = img_linked_write(texts, link->count, link->jit.target, &link->image_size);
		free(texts);
	}
	return link->image ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult
sw_cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
	struct sw_link *link = fw_handle_get(state, SW_KIND_LINK);

	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&link->lock);
	CUresult result = complete(link);
	sw_jit_close(&link->jit);
	if (result == CUDA_SUCCESS) {
		if (cubinOut)
			*cubinOut = link->image;
		if (sizeOut)
			*sizeOut = link->image_size;
	}
	pthread_mutex_unlock(&link->lock);
	return result;
}

CUresult
sw_cuLinkDestroy(CUlinkState state)
{
	struct sw_link *link = fw_handle_get(state, SW_KIND_LINK);

	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	link_free(link);
	return CUDA_SUCCESS;
}
