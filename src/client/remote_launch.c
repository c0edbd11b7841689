/*
 * Kernel launches over the wire, and occupancy.
 *
 * A launch is a record with the parameters' bytes, gathered by the layout that the worker told when the function was first launched. The
 * first launch of a function with some shape on some stream is awaited: so the errors that CUDA reports at once (geometry, handles,
 * too much shared memory) come at once. Later ones like it are not awaited, until something ends or changes that they depend on.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "client/client.h"
#include "client/remote.h"

#define PARAM_MAX 32768 /* bytes: 32764 are the most that a kernel may have */
#define PARAMS_MAX 8192
#define BUCKETS 1024

/* ---- parameter layouts --------------------------------------------------------------------------------------------- */

struct layout {
	struct layout *next;
	uint64_t function, epoch; /* epoch: atomic */
	uint32_t count, bytes;
	struct {
		uint32_t offset, size;
	} params[];
};

static struct layout *layouts[BUCKETS]; /* atomic heads; never freed, as a thread may be reading one */
static pthread_mutex_t layout_lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned
bucket(uint64_t function)
{
	return (unsigned)((function * 0x9e3779b97f4a7c15u) >> 54) % BUCKETS;
}

/* Asks the worker for all parameters at once. */
static struct layout *
ask_layout(CUfunction f, uint64_t epoch, CUresult *result)
{
	struct rm_request r;
	struct fw_cursor in;
	struct layout *layout = NULL;

	rm_begin(&r, CALL_cuFuncGetParamInfo, 8);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)f);
	*result = rm_ask(&r, &in);
	if (*result == CUDA_SUCCESS) {
		uint64_t count = 0;
		const uint32_t *pairs = call_get_array(&in, 8, &count);
		bool sound = !in.bad && count <= PARAMS_MAX;
		layout = sound ? malloc(sizeof(*layout) + count * 8) : NULL;
		*result = layout ? CUDA_SUCCESS : sound ? CUDA_ERROR_OUT_OF_MEMORY : rm_nonsense(&r);
		if (layout) {
			*layout = (struct layout){ .function = (uint64_t)(uintptr_t)f, .epoch = epoch, .count = (uint32_t)count };
			if (count)
				memcpy(layout->params, pairs, count * 8);
			for (uint64_t n = 0; n < count; n++) {
				uint64_t end = (uint64_t)layout->params[n].offset + layout->params[n].size;
				if (end > PARAM_MAX) {
					*result = rm_nonsense(&r);
					break;
				}
				layout->bytes = end > layout->bytes ? (uint32_t)end : layout->bytes;
			}
		}
	}
	rm_end(&r);
	if (*result != CUDA_SUCCESS) {
		free(layout);
		return NULL;
	}
	return layout;
}

static bool
same_layout(const struct layout *a, const struct layout *b)
{
	return a->function == b->function && a->count == b->count && memcmp(a->params, b->params, a->count * sizeof(a->params[0])) == 0;
}

static const struct layout *
layout_of(CUfunction f, CUresult *result)
{
	struct layout **head = &layouts[bucket((uint64_t)(uintptr_t)f)];
	uint64_t epoch = rm_epoch(CALL_TOUCHES_OTHER);

	*result = CUDA_SUCCESS;
	for (const struct layout *l = __atomic_load_n(head, __ATOMIC_ACQUIRE); l; l = l->next)
		if (l->function == (uint64_t)(uintptr_t)f && __atomic_load_n(&l->epoch, __ATOMIC_ACQUIRE) == epoch)
			return l;
	struct layout *layout = ask_layout(f, epoch, result), *known;
	if (!layout)
		return NULL;
	pthread_mutex_lock(&layout_lock);
	for (known = *head; known && !same_layout(known, layout); known = known->next)
		;
	if (known) { /* what ended meanwhile was something else */
		__atomic_store_n(&known->epoch, epoch, __ATOMIC_RELEASE);
		free(layout);
		layout = known;
	} else {
		layout->next = *head;
		__atomic_store_n(head, layout, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&layout_lock);
	return layout;
}

/* ---- shapes that were accepted ------------------------------------------------------------------------------------- */

static struct rm_shape *
shape_place(const struct rm_shape *shape)
{
	uint64_t h = shape->function * 0x9e3779b97f4a7c15u ^ shape->stream * 0xc2b2ae3d27d4eb4fu ^ shape->grid[0] * 0x165667b19e3779f9u ^
	             shape->block[0] * 0x27d4eb2f165667c5u ^ shape->grid[1] * 0x85ebca77c2b2ae63u;

	struct rm_thread *thread = rm_thread();
	return thread ? &thread->shapes[(h >> 48) & (RM_SHAPES - 1)] : NULL;
}

/* All their bytes, padding too: the same attributes with other padding are taken for others, which is only slower. Never 0. */
static uint64_t
hash_attributes(const CUlaunchAttribute *attributes, unsigned count)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t n = 0; n < count * sizeof(*attributes) / 8; n++) {
		uint64_t word;
		memcpy(&word, (const uint8_t *)attributes + n * 8, 8);
		h = (h ^ word) * 0x100000001b3u;
		h ^= h >> 29;
	}
	return h | 1;
}

/* ---- launches ------------------------------------------------------------------------------------------------------ */

/* Pairs of a number and a value: 1 the buffer, 2 its size, 0 the end. */
static CUresult
read_extra(void **extra, const void **buffer, size_t *size)
{
	for (; *extra; extra += 2) {
		if (*extra == (void *)1)
			*buffer = extra[1];
		else if (*extra == (void *)2 && extra[1])
			*size = *(const size_t *)extra[1];
		else
			return CUDA_ERROR_INVALID_VALUE;
	}
	return *size > PARAM_MAX || (*size && !*buffer) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult
rm_gather(CUfunction f, void **params, void **extra, uint64_t *how, void **bytes, size_t *size)
{
	const struct layout *layout = NULL;
	const void *buffer = NULL;
	CUresult result = CUDA_SUCCESS;

	*how = params && extra ? SESSION_PARAMS_BOTH : params ? SESSION_PARAMS_LIST : extra ? SESSION_PARAMS_BUFFER : SESSION_PARAMS_NONE;
	*bytes = NULL;
	*size = 0;
	if (*how == SESSION_PARAMS_BUFFER)
		result = read_extra(extra, &buffer, size);
	else if (*how == SESSION_PARAMS_LIST && !(layout = layout_of(f, &result)))
		return rm_thread() ? CUDA_SUCCESS : result;
	if (layout)
		*size = layout->bytes;
	if (result != CUDA_SUCCESS || !*size)
		return result;
	uint8_t *block = *bytes = calloc(1, *size);
	if (!block)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (buffer)
		memcpy(block, buffer, *size);
	for (uint32_t n = 0; layout && n < layout->count; n++)
		memcpy(block + layout->params[n].offset, params[n], layout->params[n].size);
	return CUDA_SUCCESS;
}

static CUresult
send_launch(const CUlaunchConfig *c, CUfunction f, bool cooperative, void **params, void **extra)
{
	struct rm_shape shape = { (uint64_t)(uintptr_t)f, (uint64_t)(uintptr_t)c->hStream, (uint64_t)(uintptr_t)fw_thread.ctx |
		fw_thread.per_thread_stream, rm_epoch(CALL_TOUCHES_STREAM | CALL_TOUCHES_SETTING | CALL_TOUCHES_OTHER), { c->gridDimX, c->gridDimY, c->gridDimZ }, { c->blockDimX, c->blockDimY, c->blockDimZ },
		c->sharedMemBytes, cooperative, 0, 0 };
	const struct rm_thread *thread = rm_thread();
	const struct layout *layout = NULL;
	const void *buffer = NULL;
	size_t buffer_bytes = 0;
	struct rm_request r;
	CUresult result;

	if (thread)
		wire_soon(thread->channel->to);
	if (params && extra)
		return CUDA_ERROR_INVALID_VALUE;
	if (extra) {
		result = read_extra(extra, &buffer, &buffer_bytes);
		if (result != CUDA_SUCCESS)
			return result;
	} else {
		layout = layout_of(f, &result);
		if (!layout)
			return result;
		if (layout->count && !params)
			return CUDA_ERROR_INVALID_VALUE;
		buffer_bytes = layout->bytes;
	}
	if (c->numAttrs && !c->attrs)
		return CUDA_ERROR_INVALID_VALUE;
	shape.param_bytes = buffer_bytes << 1 | !layout;
	rm_begin(&r, CALL_cuLaunchKernel, sizeof(struct session_launch) + ((buffer_bytes + 7) & ~7ul) + c->numAttrs * sizeof(CUlaunchAttribute));
	if (r.record) {
		struct session_launch *launch = (struct session_launch *)r.out.data;
		*launch = (struct session_launch){ shape.function, shape.stream, { shape.grid[0], shape.grid[1], shape.grid[2] },
			{ shape.block[0], shape.block[1], shape.block[2] }, shape.shared, cooperative, (uint32_t)buffer_bytes, c->numAttrs };
		uint8_t *bytes = (uint8_t *)(launch + 1);
		if (layout) {
			for (uint32_t n = 0; n < layout->count; n++)
				memcpy(bytes + layout->params[n].offset, params[n], layout->params[n].size);
		} else if (buffer_bytes) {
			memcpy(bytes, buffer, buffer_bytes);
		}
		bytes += (buffer_bytes + 7) & ~7ul;
		if (c->numAttrs)
			memcpy(bytes, c->attrs, c->numAttrs * sizeof(CUlaunchAttribute));
		r.out.at = r.out.size;
	}
	struct rm_shape *place = shape_place(&shape);
	if (!place || !r.record)
		return rm_do(&r);
	if (c->numAttrs)
		shape.attributes = hash_attributes(c->attrs, c->numAttrs);
	for (unsigned n = 0; n < c->numAttrs; n++) /* the launch records the event */
		if (c->attrs[n].id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT || c->attrs[n].id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT)
			rm_event_opaque(&c->attrs[n].value, sizeof(c->attrs[n].value));
	if (memcmp(place, &shape, sizeof(shape)) == 0 && !rm_may_capture())
		return rm_send(&r);
	result = rm_do(&r);
	if (result == CUDA_SUCCESS)
		*place = shape;
	return result;
}

CUresult
rm_cuLaunchKernel(CUfunction f, unsigned gridDimX, unsigned gridDimY, unsigned gridDimZ, unsigned blockDimX, unsigned blockDimY,
                  unsigned blockDimZ, unsigned sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
	CUlaunchConfig config = { gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes, hStream, NULL, 0 };

	return send_launch(&config, f, false, kernelParams, extra);
}

CUresult
rm_cuLaunchCooperativeKernel(CUfunction f, unsigned gridDimX, unsigned gridDimY, unsigned gridDimZ, unsigned blockDimX,
                             unsigned blockDimY, unsigned blockDimZ, unsigned sharedMemBytes, CUstream hStream, void **kernelParams)
{
	CUlaunchConfig config = { gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes, hStream, NULL, 0 };

	return send_launch(&config, f, true, kernelParams, NULL);
}

CUresult
rm_cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
	return config ? send_launch(config, f, false, kernelParams, extra) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
rm_cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	CUresult result;
	const struct layout *layout = layout_of(func, &result);

	if (!layout)
		return result;
	if (paramIndex >= layout->count)
		return CUDA_ERROR_INVALID_VALUE;
	*paramOffset = layout->params[paramIndex].offset;
	if (paramSize)
		*paramSize = layout->params[paramIndex].size;
	return CUDA_SUCCESS;
}

/* ---- occupancy ----------------------------------------------------------------------------------------------------- */

/*
 * The block size that keeps most threads resident, whole warps from the largest down (driver API, cuOccupancyMaxPotentialBlockSize). Here,
 * because the program's function says how much shared memory a size needs.
 */
CUresult
rm_cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func, CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                             size_t dynamicSMemSize, int blockSizeLimit, unsigned flags)
{
	const struct cuda_ops *ops = rm_ops_table();
	int limit = 0, processors = 0, threads = 0, best = 0, best_threads = 0, best_blocks = 0;
	const struct cl_context *context = cl_context_find(NULL);
	CUdevice device = context ? context->device : 0;

	CUresult result = ops->cuFuncGetAttribute(&limit, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, func);
	if (result == CUDA_SUCCESS)
		result = ops->cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
	if (result == CUDA_SUCCESS)
		result = ops->cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device);
	if (blockSizeLimit > 0 && blockSizeLimit < limit)
		limit = blockSizeLimit;
	for (int size = (limit + 31) / 32 * 32; result == CUDA_SUCCESS && size > 0 && best_threads < threads; size -= 32) {
		int tried = size < limit ? size : limit, blocks = 0;
		size_t shared = blockSizeToDynamicSMemSize ? blockSizeToDynamicSMemSize(tried) : dynamicSMemSize;
		result = ops->cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, func, tried, shared, flags);
		if (blocks * tried > best_threads) {
			best_threads = blocks * tried;
			best = tried;
			best_blocks = blocks;
		}
	}
	if (result != CUDA_SUCCESS)
		return result;
	*minGridSize = best_blocks * processors;
	*blockSize = best;
	return CUDA_SUCCESS;
}

CUresult
rm_cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func, CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                    size_t dynamicSMemSize, int blockSizeLimit)
{
	return rm_cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize, blockSize, func, blockSizeToDynamicSMemSize, dynamicSMemSize,
	                                                    blockSizeLimit, 0);
}

static CUresult
ask_clusters(enum cuda_call_id call, int *number, CUfunction func, const CUlaunchConfig *config)
{
	struct rm_request r;
	struct fw_cursor in;

	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	CUlaunchConfig sent = *config;
	size_t count = sent.attrs ? sent.numAttrs : 0;
	sent.attrs = NULL;
	rm_begin(&r, (uint16_t)call, 32 + sizeof(sent) + count * sizeof(CUlaunchAttribute));
	call_put_u64(&r.out, (uint64_t)(uintptr_t)func);
	call_put(&r.out, &sent, sizeof(sent));
	call_put_array(&r.out, config->attrs, config->attrs ? count : 1, sizeof(CUlaunchAttribute));
	CUresult result = rm_ask(&r, &in);
	if (result == CUDA_SUCCESS)
		*number = (int)call_get_u64(&in);
	rm_end(&r);
	return result;
}

CUresult
rm_cuOccupancyMaxPotentialClusterSize(int *clusterSize, CUfunction func, const CUlaunchConfig *config)
{
	return ask_clusters(CALL_cuOccupancyMaxPotentialClusterSize, clusterSize, func, config);
}

CUresult
rm_cuOccupancyMaxActiveClusters(int *numClusters, CUfunction func, const CUlaunchConfig *config)
{
	return ask_clusters(CALL_cuOccupancyMaxActiveClusters, numClusters, func, config);
}
