/*
 * The linker over the wire. Inputs are read here, files too; what cuLinkComplete gives out is kept here until the state is destroyed. The
 * buffers for logs stay the program's: the worker has its own, and what stands in them comes back with each answer.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "client/remote.h"
#include "image/image.h"

struct link {
	struct link *next;
	CUlinkState state;       /* the worker's */
	unsigned count;
	CUjit_option *options;
	void **values;           /* the program's: written until the state is destroyed */
	uint32_t rooms[2];       /* bytes of its log buffers */
	void *image;
	size_t image_size;
};

static struct link *links; /* guarded by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct link **
find_link(CUlinkState state)
{
	struct link **at = &links;

	while (*at && (*at)->state != state)
		at = &(*at)->next;
	return at;
}

/* What stays of a link as long as it is not destroyed, which the program may not do meanwhile. */
static struct link *
get_link(CUlinkState state)
{
	pthread_mutex_lock(&lock);
	struct link *link = *find_link(state);
	pthread_mutex_unlock(&lock);
	return link;
}

static void
free_link(struct link *link)
{
	free(link->options);
	free(link->image);
	free(link);
}

CUresult
rm_cuLinkCreate_v2(unsigned numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut)
{
	struct rm_request r;
	struct fw_cursor in;

	if (numOptions > RM_OPTIONS_MAX || (numOptions && (!options || !optionValues)))
		return CUDA_ERROR_INVALID_VALUE;
	struct link *link = calloc(1, sizeof(*link));
	CUjit_option *copy = calloc(numOptions + 1, sizeof(*copy));
	if (!link || !copy) {
		free(link);
		free(copy);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (numOptions)
		memcpy(copy, options, numOptions * sizeof(*copy));
	*link = (struct link){ .count = numOptions, .options = copy, .values = optionValues };
	rm_log_rooms(numOptions, options, optionValues, link->rooms);
	rm_begin(&r, CALL_cuLinkCreate_v2, RM_OPTIONS_BYTES);
	CUresult result = rm_put_options(&r.out, numOptions, options, optionValues);
	if (result == CUDA_SUCCESS)
		result = rm_ask(&r, &in);
	if (result == CUDA_SUCCESS || r.answered) {
		link->state = (CUlinkState)(uintptr_t)call_get_u64(&in);
		rm_take_options(&in, numOptions, copy, optionValues, link->rooms);
	}
	rm_end(&r);
	if (result != CUDA_SUCCESS) {
		free_link(link);
		return result;
	}
	pthread_mutex_lock(&lock);
	link->next = links;
	links = link;
	pthread_mutex_unlock(&lock);
	*stateOut = link->state;
	return CUDA_SUCCESS;
}

CUresult
rm_cuLinkCreate(unsigned numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut)
{
	return rm_cuLinkCreate_v2(numOptions, options, optionValues, stateOut);
}

/* A wrapper points to what is meant. */
static CUresult
unwrap(const void **data, size_t *size)
{
	struct img_wrapper wrapper;
	struct img_error error;

	if (*size < 24 || img_recognise(*data, *size) != IMG_WRAPPER)
		return CUDA_SUCCESS;
	if (img_wrapper_read(*data, &wrapper, &error) || img_length(wrapper.fatbin, IMG_SIZE_UNKNOWN, size, &error)) {
		fw_error("client", "link: %s", error.text);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	*data = wrapper.fatbin;
	return CUDA_SUCCESS;
}

CUresult
rm_cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *given, size_t size, const char *name, unsigned numOptions,
                    CUjit_option *options, void **optionValues)
{
	struct link *link = get_link(state);
	const void *data = given;
	struct rm_request r;
	struct fw_cursor in;
	uint32_t rooms[2];

	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!data || !size || size > SESSION_BLOB_MAX / 2)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = unwrap(&data, &size);
	if (result != CUDA_SUCCESS)
		return result;
	rm_begin(&r, CALL_cuLinkAddData_v2, 48 + size + (name ? strlen(name) + 8 : 0) + RM_OPTIONS_BYTES);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)state);
	call_put_u64(&r.out, (uint64_t)type);
	call_put_array(&r.out, data, size, 1);
	call_put_string(&r.out, name);
	rm_log_rooms(numOptions, options, optionValues, rooms);
	result = rm_put_options(&r.out, numOptions, options, optionValues);
	if (result == CUDA_SUCCESS)
		result = rm_ask(&r, &in);
	if (r.answered) {
		rm_take_options(&in, link->count, link->options, link->values, link->rooms);
		rm_take_options(&in, numOptions, options, optionValues, rooms);
	}
	rm_end(&r);
	return result;
}

CUresult
rm_cuLinkAddData(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name, unsigned numOptions,
                 CUjit_option *options, void **optionValues)
{
	return rm_cuLinkAddData_v2(state, type, data, size, name, numOptions, options, optionValues);
}

CUresult
rm_cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned numOptions, CUjit_option *options,
                    void **optionValues)
{
	size_t size = 0;
	CUresult result;

	if (!get_link(state))
		return CUDA_ERROR_INVALID_HANDLE;
	if (!path)
		return CUDA_ERROR_INVALID_VALUE;
	void *data = rm_read_file(path, &size, &result);
	if (data)
		result = rm_cuLinkAddData_v2(state, type, data, size, path, numOptions, options, optionValues);
	free(data);
	return result;
}

CUresult
rm_cuLinkAddFile(CUlinkState state, CUjitInputType type, const char *path, unsigned numOptions, CUjit_option *options, void **optionValues)
{
	return rm_cuLinkAddFile_v2(state, type, path, numOptions, options, optionValues);
}

/* The image stays where it is when it is asked for again. */
static CUresult
keep_image(struct link *link, struct fw_cursor *in)
{
	uint64_t size;
	const void *bytes = call_get_array(in, 1, &size);

	if (in->bad || !bytes)
		return CUDA_ERROR_UNKNOWN;
	if (!link->image) {
		link->image = malloc(size + 64);
		if (!link->image)
			return CUDA_ERROR_OUT_OF_MEMORY;
		memcpy(link->image, bytes, size);
		memset((char *)link->image + size, 0, 64);
		link->image_size = size;
	}
	return CUDA_SUCCESS;
}

CUresult
rm_cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
	struct link *link = get_link(state);
	struct rm_request r;
	struct fw_cursor in;

	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	rm_begin(&r, CALL_cuLinkComplete, 8);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)state);
	CUresult result = rm_ask(&r, &in);
	if (r.answered)
		rm_take_options(&in, link->count, link->options, link->values, link->rooms);
	if (result == CUDA_SUCCESS)
		result = keep_image(link, &in);
	rm_end(&r);
	if (result == CUDA_SUCCESS) {
		*cubinOut = link->image;
		if (sizeOut)
			*sizeOut = link->image_size;
	}
	return result;
}

CUresult
rm_cuLinkDestroy(CUlinkState state)
{
	struct rm_request r;

	pthread_mutex_lock(&lock);
	struct link **at = find_link(state), *link = *at;
	if (link)
		*at = link->next;
	pthread_mutex_unlock(&lock);
	if (!link)
		return CUDA_ERROR_INVALID_HANDLE;
	free_link(link);
	rm_begin(&r, CALL_cuLinkDestroy, 8);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)state);
	return rm_do(&r);
}
