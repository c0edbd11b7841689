/*
 * The worker's half of src/client/remote_module.c: images and names.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "image/image.h"
#include "server/server.h"

#define PARTS_MAX 65536
#define LOG_MAX (1u << 20)
#define WRAPPER_MAGIC 0x466243b1u

/* ---- images -------------------------------------------------------------------------------------------------------- */

/* An image as a program would pass it: the bytes, or a wrapper that points to them. */
struct image {
	const void *image;
	bool wanted;             /* it was named, and its bytes have to be sent */
	uint64_t only_size;      /* of its one part, which was sent; 0: it was not, or there are more */
	void *copies[2];         /* the bytes and the list of parts, to be freed */
	struct {
		uint32_t magic, version;
		const void *fatbin;
		const void *const *parts;
	} wrapper;
	const void **parts;
};

/* Ends the bytes of a part with zeros, which end a text, and moves *used behind them. False: a part that says that it is longer than it is,
 * or is a wrapper, which holds pointers: the device believes both. */
static bool
finish_part(uint8_t *at, size_t *used, uint64_t size)
{
	struct img_error error;
	size_t length = 0;

	memset(at + size, 0, 64);
	*used += (size + 64 + 63) & ~63ull;
	if (img_length(at, size, &length, &error) == 0 && length <= size)
		return true;
	fw_warn("worker", "module: %s", error.text);
	return false;
}

static CUresult
make_memory(struct image *image, uint64_t total, uint64_t count)
{
	image->copies[0] = aligned_alloc(64, (total + 63) & ~63ull);
	image->parts = calloc(count + 1, sizeof(*image->parts));
	image->copies[1] = image->parts;
	return image->copies[0] && image->parts ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* What the client names and has shown to have. */
static bool
get_named(struct fw_cursor *in, struct image *image, CUresult *result)
{
	uint64_t count;
	const void *bytes = call_get_array(in, sizeof(struct session_image), &count);
	struct session_image name;
	size_t used = 0;

	if (in->bad || count != 1)
		return false;
	memcpy(&name, bytes, sizeof(name));
	int fd = sv_image_find(&name);
	image->wanted = fd < 0;
	if (image->wanted)
		return true;
	*result = make_memory(image, name.size + 128, 1);
	if (*result != CUDA_SUCCESS) {
		close(fd);
		return true;
	}
	image->wanted = !sv_image_read(fd, &name, image->copies[0]);
	if (image->wanted)
		return true;
	image->image = image->wrapper.fatbin = image->copies[0];
	if (!finish_part(image->copies[0], &used, name.size))
		*result = CUDA_ERROR_INVALID_IMAGE;
	return true;
}

static void
drop_piece(void *user, size_t at, void *bytes, size_t size)
{
	(void)user, (void)at, (void)bytes, (void)size;
}

/* Bytes that come beside the record; they have to be taken in any case. */
static bool
get_beside(struct sv_call *call, struct image *image, CUresult *result)
{
	uint64_t count;
	const void *bytes = call_get_array(&call->in, sizeof(struct session_beside), &count);
	struct session_beside beside;
	size_t used = 0;

	if (call->in.bad || count != 1)
		return false;
	memcpy(&beside, bytes, sizeof(beside));
	if (beside.size == 0 || beside.size > SESSION_BLOB_MAX || !call->wants_answer)
		return false;
	*result = make_memory(image, beside.size + 128, 1);
	bool have = *result == CUDA_SUCCESS;
	if (!wire_bulk_receive(call->channel->wire->link, beside.number, have ? image->copies[0] : NULL, beside.size, have ? NULL : drop_piece, NULL))
		return false;
	if (!have)
		return true;
	image->image = image->wrapper.fatbin = image->copies[0];
	image->only_size = beside.size;
	if (!finish_part(image->copies[0], &used, beside.size))
		*result = CUDA_ERROR_INVALID_IMAGE;
	return true;
}

/* Parts as bytes. */
static bool
get_parts(struct fw_cursor *in, uint64_t count, struct image *image, CUresult *result)
{
	uint64_t total = 0;
	size_t used = 0;
	struct fw_cursor look = *in;

	for (uint64_t n = 0; n < count; n++) {
		uint64_t size;
		call_get_array(&look, 1, &size);
		total += size + 128;
	}
	if (look.bad)
		return false;
	struct fw_cursor parts = *in;
	*in = look; /* behind the image, whatever becomes of it */
	*result = make_memory(image, total, count);
	if (*result != CUDA_SUCCESS)
		return true;
	for (uint64_t n = 0; n < count; n++) {
		uint64_t size;
		const void *bytes = call_get_array(&parts, 1, &size);
		uint8_t *copy = size ? (uint8_t *)image->copies[0] + used : NULL;
		if (size) {
			memcpy(copy, bytes, size);
			if (!finish_part(copy, &used, size)) {
				*result = CUDA_ERROR_INVALID_IMAGE;
				return true;
			}
		}
		if (n == 0) {
			image->image = image->wrapper.fatbin = copy;
			image->only_size = count == 1 ? size : 0;
		} else if (copy) {
			image->parts[n - 1] = copy;
		} else {
			return false; /* a hole would end the list */
		}
	}
	return true;
}

static bool
get_image(struct sv_call *call, struct image *image, CUresult *result)
{
	struct fw_cursor *in = &call->in;
	uint64_t first = call_get_u64(in), count = call_get_u64(in), version = first & ~(SESSION_IMAGE_NAMED | SESSION_IMAGE_BESIDE);
	bool named = first & SESSION_IMAGE_NAMED, beside = first & SESSION_IMAGE_BESIDE;

	*image = (struct image){ 0 };
	*result = CUDA_SUCCESS;
	if (in->bad || count == 0 || count > PARTS_MAX || version > 2 || (named && beside) || ((version != 2 || named || beside) && count != 1))
		return false;
	if (!(named ? get_named(in, image, result) : beside ? get_beside(call, image, result) : get_parts(in, count, image, result)))
		return false;
	if (image->wanted || *result != CUDA_SUCCESS)
		return true;
	if (version) {
		image->wrapper.magic = WRAPPER_MAGIC;
		image->wrapper.version = (uint32_t)version;
		image->wrapper.parts = version == 2 ? image->parts : NULL;
		image->image = &image->wrapper;
	}
	if (!image->image)
		*result = CUDA_ERROR_INVALID_IMAGE;
	return true;
}

static void
drop_image(struct image *image)
{
	free(image->copies[0]);
	free(image->copies[1]);
}

/* ---- JIT options --------------------------------------------------------------------------------------------------- */

bool
sv_jit_get(struct fw_cursor *in, struct sv_jit *o)
{
	uint64_t values = 0;
	const uint32_t *numbers = call_get_array(in, 4, &o->count);
	const uint64_t *slots = call_get_array(in, 8, &values);
	bool wanted[2] = { false, false };

	if (in->bad || values != o->count || o->count > SV_JIT_MAX)
		return false;
	for (uint64_t n = 0; n < o->count; n++) {
		uint64_t slot;
		memcpy(&slot, slots + n, 8);
		o->numbers[n] = (CUjit_option)numbers[n];
		o->values[n] = (void *)(uintptr_t)slot;
		switch (o->numbers[n]) {
		case CU_JIT_INFO_LOG_BUFFER:
			wanted[0] = true;
			break;
		case CU_JIT_ERROR_LOG_BUFFER:
			wanted[1] = true;
			break;
		case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
			o->log_size[0] = (uint32_t)slot;
			break;
		case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
			o->log_size[1] = (uint32_t)slot;
			break;
		case CU_JIT_GLOBAL_SYMBOL_NAMES:
		case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
		case CU_JIT_REFERENCED_KERNEL_NAMES:
		case CU_JIT_REFERENCED_VARIABLE_NAMES:
			return false; /* pointers of another process */
		default:
			break;
		}
	}
	for (unsigned which = 0; which < 2; which++) {
		if (!wanted[which] || o->log_size[which] > LOG_MAX)
			o->log_size[which] = 0;
		o->log[which] = calloc(1, o->log_size[which] + 1u);
	}
	for (uint64_t n = 0; n < o->count; n++)
		if (o->numbers[n] == CU_JIT_INFO_LOG_BUFFER || o->numbers[n] == CU_JIT_ERROR_LOG_BUFFER)
			o->values[n] = o->log_size[o->numbers[n] == CU_JIT_ERROR_LOG_BUFFER] ? o->log[o->numbers[n] == CU_JIT_ERROR_LOG_BUFFER] : NULL;
	return o->log[0] && o->log[1];
}

void
sv_jit_put(struct call_writer *out, const struct sv_jit *o)
{
	uint64_t slots[SV_JIT_MAX];

	for (uint64_t n = 0; n < o->count; n++) {
		bool log = o->numbers[n] == CU_JIT_INFO_LOG_BUFFER || o->numbers[n] == CU_JIT_ERROR_LOG_BUFFER;
		slots[n] = log ? 0 : (uint64_t)(uintptr_t)o->values[n];
	}
	call_put_array(out, slots, o->count, 8);
	for (unsigned which = 0; which < 2; which++) {
		size_t room = out->size - out->at > 4096 ? out->size - out->at - 4096 : 0;
		call_put_array(out, o->log[which], o->log_size[which] < room ? o->log_size[which] : room, 1);
	}
}

void
sv_jit_drop(struct sv_jit *o)
{
	free(o->log[0]);
	free(o->log[1]);
}

/* ---- loading ------------------------------------------------------------------------------------------------------- */

/* What both answer: the handle, or that the bytes are wanted. */
static void
put_loaded(struct sv_call *call, struct image *image, uint64_t handle, const struct sv_jit *options, CUresult result)
{
	call_put_u64(&call->out, image->wanted ? SESSION_IMAGE_WANTED : handle);
	if (image->wanted)
		return;
	sv_jit_put(&call->out, options);
	if (result == CUDA_SUCCESS && image->only_size && sv_image_keep(image->copies[0], image->only_size))
		image->copies[0] = NULL;
}

bool
sv_cuModuleLoadDataEx(struct sv_call *call, CUresult *result)
{
	struct image image = { 0 };
	struct sv_jit options = { 0 };
	CUmodule module = NULL;
	bool ok = get_image(call, &image, result) && sv_jit_get(&call->in, &options);

	if (ok && *result == CUDA_SUCCESS && !image.wanted)
		*result = call->ops->cuModuleLoadDataEx(&module, image.image, (unsigned)options.count, options.numbers, options.values);
	if (ok)
		put_loaded(call, &image, (uint64_t)(uintptr_t)module, &options, *result);
	sv_jit_drop(&options);
	drop_image(&image);
	return ok;
}

bool
sv_cuLibraryLoadData(struct sv_call *call, CUresult *result)
{
	struct image image = { 0 };
	struct sv_jit options = { 0 };
	CUlibrary library = NULL;
	bool ok = get_image(call, &image, result) && sv_jit_get(&call->in, &options);

	call_get_u64(&call->in); /* whether the program keeps the image: the worker's copy ends with the call all the same */
	ok = ok && !call->in.bad;
	if (ok && *result == CUDA_SUCCESS && !image.wanted)
		*result = call->ops->cuLibraryLoadData(&library, image.image, options.numbers, options.values, (unsigned)options.count, NULL, NULL, 0);
	if (ok)
		put_loaded(call, &image, (uint64_t)(uintptr_t)library, &options, *result);
	sv_jit_drop(&options);
	drop_image(&image);
	return ok;
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

bool
sv_cuFuncGetName(struct sv_call *call, CUresult *result)
{
	CUfunction f = (CUfunction)(uintptr_t)call_get_u64(&call->in);
	const char *name = NULL;

	if (call->in.bad)
		return false;
	*result = call->ops->cuFuncGetName(&name, f);
	call_put_string(&call->out, name ? name : "");
	return true;
}

bool
sv_cuKernelGetName(struct sv_call *call, CUresult *result)
{
	CUkernel kernel = (CUkernel)(uintptr_t)call_get_u64(&call->in);
	const char *name = NULL;

	if (call->in.bad)
		return false;
	*result = call->ops->cuKernelGetName(&name, kernel);
	call_put_string(&call->out, name ? name : "");
	return true;
}

bool
sv_cuLibraryGetUnifiedFunction(struct sv_call *call, CUresult *result)
{
	CUlibrary library = (CUlibrary)(uintptr_t)call_get_u64(&call->in);
	const char *symbol = call_get_string(&call->in);
	void *function;

	if (call->in.bad)
		return false;
	*result = call->ops->cuLibraryGetUnifiedFunction(&function, library, symbol);
	return true;
}
