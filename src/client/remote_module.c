/*
 * Images over the wire: modules and libraries. The bytes of an image are found here, where its pointers mean something (a wrapper, the
 * length of what has none); the worker looks into them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/log.h"
#include "client/remote.h"
#include "image/image.h"

#define LOG_MAX (1u << 20) /* bytes of a log buffer that are asked for */

/* ---- the bytes of an image ----------------------------------------------------------------------------------------- */

/*
 * An image as it travels: the version of its wrapper (0: there is none), then its parts: the finished fat binary (empty if there is none)
 * and the relocatable ones.
 */
struct parts {
	uint64_t version;
	size_t count;
	struct {
		const void *data;
		size_t size;
	} *part;
};

static CUresult
measure(struct parts *parts, const void *data)
{
	struct img_error error;
	size_t size = 0;

	if (data && img_length(data, IMG_SIZE_UNKNOWN, &size, &error)) {
		fw_error("client", "module: %s", error.text);
		return CUDA_ERROR_INVALID_IMAGE;
	}
	parts->part[parts->count].data = data;
	parts->part[parts->count++].size = size;
	return CUDA_SUCCESS;
}

static CUresult
find_parts(const void *image, struct parts *parts)
{
	struct img_wrapper wrapper = { .fatbin = image };
	struct img_error error;

	*parts = (struct parts){ 0 };
	if (!image)
		return CUDA_ERROR_INVALID_VALUE;
	if (img_recognise(image, IMG_SIZE_UNKNOWN) == IMG_WRAPPER) {
		if (img_wrapper_read(image, &wrapper, &error)) {
			fw_error("client", "module: %s", error.text);
			return CUDA_ERROR_INVALID_IMAGE;
		}
		parts->version = wrapper.version;
	}
	parts->part = calloc(wrapper.part_count + 1, sizeof(*parts->part));
	if (!parts->part)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = measure(parts, wrapper.fatbin);
	for (size_t n = 0; result == CUDA_SUCCESS && n < wrapper.part_count; n++)
		result = measure(parts, wrapper.parts[n]);
	if (result != CUDA_SUCCESS)
		free(parts->part);
	return result;
}

static size_t
parts_bound(const struct parts *parts)
{
	size_t bound = 16;

	for (size_t n = 0; n < parts->count; n++)
		bound += 24 + parts->part[n].size;
	return bound;
}

static void
put_parts(struct call_writer *out, const struct parts *parts)
{
	call_put_u64(out, parts->version);
	call_put_u64(out, parts->count);
	for (size_t n = 0; n < parts->count; n++)
		call_put_array(out, parts->part[n].data, parts->part[n].size, 1);
}

void *
rm_read_file(const char *name, size_t *size, CUresult *result)
{
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	bool there = fd >= 0 && fstat(fd, &st) == 0;

	*result = CUDA_ERROR_FILE_NOT_FOUND;
	if (!there || !S_ISREG(st.st_mode)) {
		fw_warn("module", "cannot read %s: %s", name, there ? "not a file" : strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	char *data = (uint64_t)st.st_size <= IMG_MAX_IMAGE ? malloc((size_t)st.st_size + 1) : NULL;
	for (*size = 0; data && *size < (size_t)st.st_size;) {
		ssize_t got = read(fd, data + *size, (size_t)st.st_size - *size);
		if (got <= 0)
			break;
		*size += (size_t)got;
	}
	close(fd);
	if (!data || *size != (size_t)st.st_size) {
		free(data);
		*result = CUDA_ERROR_INVALID_IMAGE;
		return NULL;
	}
	data[*size] = 0;
	*result = CUDA_SUCCESS;
	return data;
}

/* ---- JIT options --------------------------------------------------------------------------------------------------- */

/* Options whose value points somewhere else than to a log. */
static bool
points_elsewhere(CUjit_option option)
{
	switch (option) {
	case CU_JIT_GLOBAL_SYMBOL_NAMES:
	case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
	case CU_JIT_REFERENCED_KERNEL_NAMES:
	case CU_JIT_REFERENCED_VARIABLE_NAMES:
		return true;
	default:
		return false;
	}
}

CUresult
rm_put_options(struct call_writer *out, unsigned count, const CUjit_option *options, void *const *values)
{
	uint32_t numbers[RM_OPTIONS_MAX];
	uint64_t slots[RM_OPTIONS_MAX];

	if (count > RM_OPTIONS_MAX || (count && (!options || !values)))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned n = 0; n < count; n++) {
		if (points_elsewhere(options[n])) {
			fw_warn_once("client", "JIT option %d is not forwarded", (int)options[n]);
			return CUDA_ERROR_NOT_SUPPORTED;
		}
		numbers[n] = (uint32_t)options[n];
		slots[n] = (uint64_t)(uintptr_t)values[n];
		if (options[n] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[n] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
			slots[n] = (uint32_t)slots[n] < LOG_MAX ? (uint32_t)slots[n] : LOG_MAX;
	}
	call_put_array(out, numbers, count, sizeof(numbers[0]));
	call_put_array(out, slots, count, sizeof(slots[0]));
	return CUDA_SUCCESS;
}

void
rm_log_rooms(unsigned count, const CUjit_option *options, void *const *values, uint32_t rooms[2])
{
	rooms[0] = rooms[1] = 0;
	for (unsigned n = 0; options && values && n < count; n++)
		if (options[n] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[n] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
			rooms[options[n] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES] = (uint32_t)(uintptr_t)values[n];
}

bool
rm_take_options(struct fw_cursor *in, unsigned count, const CUjit_option *options, void **values, const uint32_t rooms[2])
{
	uint64_t slot_count, log_size[2];
	const uint64_t *slots = call_get_array(in, 8, &slot_count);
	const char *log[2];

	log[0] = call_get_array(in, 1, &log_size[0]);
	log[1] = call_get_array(in, 1, &log_size[1]);
	if (in->bad || slot_count != count)
		return false;
	for (unsigned n = 0; n < count; n++) {
		uint64_t slot;
		memcpy(&slot, slots + n, 8);
		switch (options[n]) {
		case CU_JIT_INFO_LOG_BUFFER:
		case CU_JIT_ERROR_LOG_BUFFER: {
			unsigned which = options[n] == CU_JIT_ERROR_LOG_BUFFER;
			uint64_t room = rooms[which] < log_size[which] ? rooms[which] : log_size[which];
			if (room && values[n] && log[which])
				memcpy(values[n], log[which], room);
			break;
		}
		case CU_JIT_WALL_TIME:
		case CU_JIT_THREADS_PER_BLOCK:
		case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
		case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
			break; /* below: a buffer's size is read above first */
		default:
			break;
		}
	}
	for (unsigned n = 0; n < count; n++) {
		uint64_t slot;
		memcpy(&slot, slots + n, 8);
		if (options[n] == CU_JIT_WALL_TIME || options[n] == CU_JIT_THREADS_PER_BLOCK || options[n] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES ||
		    options[n] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
			values[n] = (void *)(uintptr_t)slot;
	}
	return true;
}

/* ---- names of images ----------------------------------------------------------------------------------------------- */

/* Names the one part, if the server keeps images and this one is worth a round trip. */
static bool
name_image(const struct parts *parts, struct session_image *image)
{
	const uint8_t *nonce = rm_image_nonce();
	uint8_t digest[FW_DIGEST];
	const size_t half = sizeof(image->name);

	if (!nonce || parts->count != 1 || parts->part[0].size < SESSION_IMAGE_MIN)
		return false;
	fw_digest(parts->part[0].data, parts->part[0].size, digest);
	image->size = parts->part[0].size;
	memcpy(image->name, digest, half);
	fw_blake2b(nonce, SESSION_NONCE, digest + half, sizeof(digest) - half, image->proof, sizeof(image->proof));
	return true;
}

/* ---- loading ------------------------------------------------------------------------------------------------------- */

/* How an image is told: by its name, by bytes beside the record, by bytes in it. */
enum telling { NAMED, BESIDE, WITHIN };

static CUresult
ask_load(enum cuda_call_id call, uint64_t *handle, const struct parts *parts, enum telling telling, const struct session_image *name, unsigned count,
         CUjit_option *options, void **values, bool preserved)
{
	struct rm_outgoing outgoing = { parts->part[0].data, parts->part[0].size, false };
	struct session_beside beside = { .size = outgoing.size };
	uint8_t bytes[64 + 2 * 24 * RM_OPTIONS_MAX] __attribute__((aligned(8)));
	struct call_writer told = { .data = bytes, .size = sizeof(bytes) };
	struct rm_request r;
	struct fw_cursor in;
	uint32_t rooms[2];

	CUresult result = rm_put_options(&told, count, options, values);
	if (result != CUDA_SUCCESS)
		return result;
	rm_begin(&r, (uint16_t)call, (telling == WITHIN ? parts_bound(parts) : 256) + sizeof(bytes));
	if (telling == BESIDE && !rm_bulk_send_with(&r, &outgoing, &beside.number)) {
		rm_end(&r);
		return rm_lost();
	}
	if (telling == WITHIN) {
		put_parts(&r.out, parts);
	} else {
		call_put_u64(&r.out, parts->version | (telling == NAMED ? SESSION_IMAGE_NAMED : SESSION_IMAGE_BESIDE));
		call_put_u64(&r.out, 1);
		if (telling == NAMED)
			call_put_array(&r.out, name, 1, sizeof(*name));
		else
			call_put_array(&r.out, &beside, 1, sizeof(beside));
	}
	call_put(&r.out, told.data, told.at);
	if (call == CALL_cuLibraryLoadData)
		call_put_u64(&r.out, preserved);
	rm_log_rooms(count, options, values, rooms);
	result = rm_ask(&r, &in);
	if (telling == BESIDE)
		rm_bulk_sent(&outgoing);
	*handle = call_get_u64(&in);
	bool wanted = telling == NAMED && result == CUDA_SUCCESS && *handle == SESSION_IMAGE_WANTED;
	if (!wanted && !rm_take_options(&in, count, options, values, rooms) && result == CUDA_SUCCESS)
		result = rm_nonsense(&r);
	rm_end(&r);
	return result;
}

/* cuModuleLoadDataEx and cuLibraryLoadData are the two records; the others are made of them. */
static CUresult
load(enum cuda_call_id call, uint64_t *handle, const void *image, unsigned count, CUjit_option *options, void **values,
     unsigned library_count, const CUlibraryOption *library_options, void *const *library_values)
{
	struct session_image name;
	struct parts parts;
	bool preserved = false;

	/* HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE points into the program: it says nothing that the worker needs. */
	for (unsigned n = 0; n < library_count; n++) {
		if (!library_options || (library_options[n] != CU_LIBRARY_BINARY_IS_PRESERVED &&
		                         library_options[n] != CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE))
			return CUDA_ERROR_INVALID_VALUE;
		preserved |= library_options[n] == CU_LIBRARY_BINARY_IS_PRESERVED && library_values && library_values[n];
	}
	CUresult result = find_parts(image, &parts);
	if (result != CUDA_SUCCESS)
		return result;
	*handle = SESSION_IMAGE_WANTED;
	if (name_image(&parts, &name))
		result = ask_load(call, handle, &parts, NAMED, &name, count, options, values, preserved);
	if (result == CUDA_SUCCESS && *handle == SESSION_IMAGE_WANTED)
		result = ask_load(call, handle, &parts, parts.count == 1 && rm_bulk_wanted(parts.part[0].size) ? BESIDE : WITHIN, NULL, count, options,
		                  values, preserved);
	free(parts.part);
	return result;
}

CUresult
rm_cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned numOptions, CUjit_option *options, void **optionValues)
{
	uint64_t handle = 0;
	CUresult result = load(CALL_cuModuleLoadDataEx, &handle, image, numOptions, options, optionValues, 0, NULL, NULL);

	if (result == CUDA_SUCCESS)
		*module = (CUmodule)(uintptr_t)handle;
	return result;
}

CUresult
rm_cuModuleLoadData(CUmodule *module, const void *image)
{
	return rm_cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

CUresult
rm_cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
	return rm_cuModuleLoadDataEx(module, fatCubin, 0, NULL, NULL);
}

CUresult
rm_cuModuleLoad(CUmodule *module, const char *fname)
{
	size_t size;
	CUresult result;
	void *image = fname ? rm_read_file(fname, &size, &result) : NULL;

	if (!fname)
		return CUDA_ERROR_INVALID_VALUE;
	if (image)
		result = rm_cuModuleLoadDataEx(module, image, 0, NULL, NULL);
	free(image);
	return result;
}

CUresult
rm_cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions, void **jitOptionsValues, unsigned numJitOptions,
                     CUlibraryOption *libraryOptions, void **libraryOptionValues, unsigned numLibraryOptions)
{
	uint64_t handle = 0;
	CUresult result = load(CALL_cuLibraryLoadData, &handle, code, numJitOptions, jitOptions, jitOptionsValues, numLibraryOptions,
	                       libraryOptions, libraryOptionValues);

	if (result == CUDA_SUCCESS)
		*library = (CUlibrary)(uintptr_t)handle;
	return result;
}

CUresult
rm_cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions, void **jitOptionsValues,
                         unsigned numJitOptions, CUlibraryOption *libraryOptions, void **libraryOptionValues, unsigned numLibraryOptions)
{
	size_t size;
	CUresult result;
	void *image = fileName ? rm_read_file(fileName, &size, &result) : NULL;

	if (!fileName)
		return CUDA_ERROR_INVALID_VALUE;
	if (image)
		result = rm_cuLibraryLoadData(library, image, jitOptions, jitOptionsValues, numJitOptions, libraryOptions, libraryOptionValues,
		                              numLibraryOptions);
	free(image);
	return result;
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

/* Names that programs keep pointers to: one copy each, for the life of the process. */
static const char *
intern(const char *text, size_t size)
{
	static struct name {
		struct name *next;
		char text[];
	} *names;
	struct name *head = __atomic_load_n(&names, __ATOMIC_ACQUIRE), *name = malloc(sizeof(*name) + size + 1);

	if (!name)
		return NULL;
	memcpy(name->text, text, size);
	name->text[size] = 0;
	for (struct name *n = head; n; n = n->next)
		if (strcmp(n->text, name->text) == 0) {
			free(name);
			return n->text;
		}
	name->next = head;
	while (!__atomic_compare_exchange_n(&names, &name->next, name, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	return name->text;
}

static CUresult
ask_name(enum cuda_call_id call, const char **name, uint64_t handle)
{
	struct rm_request r;
	struct fw_cursor in;

	rm_begin(&r, (uint16_t)call, 8);
	call_put_u64(&r.out, handle);
	CUresult result = rm_ask(&r, &in);
	if (result == CUDA_SUCCESS) {
		uint64_t size = 0;
		const char *text = call_get_array(&in, 1, &size); /* whose end the server may still move */
		*name = size ? intern(text, size - 1) : NULL;
		result = *name ? CUDA_SUCCESS : text ? CUDA_ERROR_OUT_OF_MEMORY : rm_nonsense(&r);
	}
	rm_end(&r);
	return result;
}

CUresult
rm_cuFuncGetName(const char **name, CUfunction hfunc)
{
	return ask_name(CALL_cuFuncGetName, name, (uint64_t)(uintptr_t)hfunc);
}

CUresult
rm_cuKernelGetName(const char **name, CUkernel hfunc)
{
	return ask_name(CALL_cuKernelGetName, name, (uint64_t)(uintptr_t)hfunc);
}

/* cuBLAS asks for long lists of names in a library that is NULL: what the device says of that does not depend on the name. */
CUresult
rm_cuLibraryGetKernel(CUkernel *pKernel, CUlibrary library, const char *name)
{
	static CUresult of_none; /* atomic; CUDA_SUCCESS: not known */
	bool none = pKernel && !library && name && !rm_strict() && !rm_failed();
	CUresult result = none ? __atomic_load_n(&of_none, __ATOMIC_RELAXED) : CUDA_SUCCESS;

	if (result != CUDA_SUCCESS)
		return result;
	result = rm_call(CALL_cuLibraryGetKernel, (const void *const[]){ &pKernel, &library, &name });
	if (none && result == CUDA_ERROR_INVALID_HANDLE)
		__atomic_store_n(&of_none, result, __ATOMIC_RELAXED);
	return result;
}

/* A function that host and device share could not be called here: what the worker finds wrong with the question is the answer. */
CUresult
rm_cuLibraryGetUnifiedFunction(void **fptr, CUlibrary library, const char *symbol)
{
	struct rm_request r;

	(void)fptr;
	rm_begin(&r, CALL_cuLibraryGetUnifiedFunction, 32 + (symbol ? strlen(symbol) : 0));
	call_put_u64(&r.out, (uint64_t)(uintptr_t)library);
	call_put_string(&r.out, symbol);
	CUresult result = rm_do(&r);
	return result == CUDA_SUCCESS ? CUDA_ERROR_NOT_SUPPORTED : result;
}

/* ---- images for records -------------------------------------------------------------------------------------------- */

bool
rm_image_bytes(const void *image, uint8_t **bytes, size_t *size)
{
	struct parts parts;

	if (find_parts(image, &parts) != CUDA_SUCCESS)
		return false;
	struct call_writer out = { .size = parts_bound(&parts) };
	out.data = *bytes = malloc(out.size);
	if (out.data)
		put_parts(&out, &parts);
	*size = out.at;
	free(parts.part);
	return out.data && !out.bad;
}

bool
rm_file_bytes(const char *name, uint8_t **bytes, size_t *size)
{
	CUresult result;
	size_t file_size;
	void *image = rm_read_file(name, &file_size, &result);
	bool ok = image && rm_image_bytes(image, bytes, size);

	free(image);
	return ok;
}
