/*
 * Stream-ordered allocation. An allocation gets its address at once; a freed one returns to its pool when the free has run in its
 * stream, or earlier for the same stream, whose later work comes after the free anyway. What a pool holds beyond its release
 * threshold goes back to the device at the next synchronisation.
 */
#include "soft/device/device.h"
#include "soft/device/graph.h"
#include "soft/device/ops.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct block { /* freed memory of a pool */
	struct block *next;
	struct sw_alloc *alloc;
	uint64_t id;               /* of the free; the FREE op carries it */
	struct sw_stream *stream;  /* where the free is still to run; NULL: it ran */
};

struct sw_pool {
	CUmemoryPool handle;
	struct sw_pool *next;
	CUmemPoolProps props;
	bool is_default, imported;
	struct block *blocks;
	uint64_t threshold, reserved, reserved_high, used, used_high;
	int32_t follow_events, opportunistic, internal_dependencies;
	int fd;                    /* exportable and imported pools: the file that holds their memory; else -1 */
	uint64_t file_bytes;       /* of it given out so far */
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all pools; inside the queue lock, outside alloc.c's */
static struct sw_pool *pools, *default_pool, *current_pool, *host_pool;
static uint64_t next_free_id;

/* ---- pools ----------------------------------------------------------------------------------------------------------------- */

static struct sw_pool *
pool_new(const CUmemPoolProps *props)
{
	struct sw_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->handle = fw_handle_new(SW_KIND_POOL, pool);
	if (!pool->handle) {
		free(pool);
		return NULL;
	}
	pool->props = *props;
	pool->fd = -1;
	pool->follow_events = pool->opportunistic = pool->internal_dependencies = 1;
	pool->next = pools;
	pools = pool;
	return pool;
}

/* The device's own pool, made at first use. Lock held. */
static struct sw_pool *
pool_default(void)
{
	if (!default_pool) {
		CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
		default_pool = pool_new(&props);
		if (default_pool)
			default_pool->is_default = true;
		if (!current_pool)
			current_pool = default_pool;
	}
	return default_pool;
}

bool
sw_pool_handle(struct sw_pool *pool, CUmemoryPool *out)
{
	*out = pool->handle;
	return true;
}

void
sw_pool_forget(void)
{
	pool_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	pools = default_pool = current_pool = host_pool = NULL;
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static void
count_use(struct sw_pool *pool, int64_t used, int64_t reserved)
{
	pool->used += (uint64_t)used;
	pool->reserved += (uint64_t)reserved;
	if (pool->used > pool->used_high)
		pool->used_high = pool->used;
	if (pool->reserved > pool->reserved_high)
		pool->reserved_high = pool->reserved;
}

/* Gives blocks whose free has run back until no more than `keep` bytes are reserved. Lock held. Returns the bytes. */
static uint64_t
release(struct sw_pool *pool, uint64_t keep)
{
	uint64_t released = 0;

	for (struct block **link = &pool->blocks; *link && pool->reserved > keep;) {
		struct block *block = *link;
		if (block->stream) {
			link = &block->next;
			continue;
		}
		*link = block->next;
		released += block->alloc->span;
		count_use(pool, 0, -(int64_t)block->alloc->span);
		if (pool->fd >= 0 && !pool->imported) /* its place in the file is not used again, its memory is given back */
			fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)block->alloc->segment->fd_offset,
			          (off_t)block->alloc->span);
		sw_alloc_free(block->alloc);
		free(block);
	}
	return released;
}

uint64_t
sw_pool_release_all(void)
{
	uint64_t released = 0;

	pthread_mutex_lock(&pool_lock);
	for (struct sw_pool *pool = pools; pool; pool = pool->next)
		released += release(pool, 0);
	pthread_mutex_unlock(&pool_lock);
	return released;
}

void
sw_pool_trim_all(void)
{
	if (!__atomic_load_n(&pools, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&pool_lock);
	for (struct sw_pool *pool = pools; pool; pool = pool->next)
		release(pool, pool->threshold);
	pthread_mutex_unlock(&pool_lock);
}

/* The smallest block that the stream may use and that wastes less than half of it. Lock held. */
static struct sw_alloc *
reuse(struct sw_pool *pool, uint64_t size, const struct sw_stream *stream)
{
	struct block **best = NULL;

	for (struct block **link = &pool->blocks; *link; link = &(*link)->next) {
		const struct block *block = *link;
		if ((block->stream && block->stream != stream) || block->alloc->span < size || block->alloc->span / 2 > sw_round_up(size, 512))
			continue;
		if (!best || block->alloc->span < (*best)->alloc->span)
			best = link;
	}
	if (!best)
		return NULL;
	struct block *block = *best;
	struct sw_alloc *alloc = block->alloc;
	*best = block->next;
	free(block);
	alloc->size = size;
	alloc->hidden = false;
	return alloc;
}

/* New memory for a pool: of its file, if it has one. */
static CUresult
fresh(struct sw_pool *pool, struct sw_context *ctx, uint64_t size, struct sw_alloc **out)
{
	if (pool->fd < 0)
		return sw_alloc_new(ctx, size, 512, SW_MEM_POOL, false, out);
	uint64_t span = sw_round_up(size, SW_GRANULE);
	if (fw_file_resize(pool->fd, pool->file_bytes + span) != 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = sw_alloc_new_file(ctx, size, SW_MEM_POOL, pool->fd, pool->file_bytes, out);
	if (result == CUDA_SUCCESS)
		pool->file_bytes += span;
	return result;
}

static CUresult
pool_alloc(struct sw_pool *pool, uint64_t size, const struct sw_stream *stream, struct sw_alloc **out)
{
	CUresult result = CUDA_SUCCESS;

	pthread_mutex_lock(&pool_lock);
	struct sw_alloc *alloc = reuse(pool, size, stream);
	if (alloc) {
		alloc->ctx = stream->ctx;
		count_use(pool, (int64_t)alloc->span, 0);
		*out = alloc;
		goto unlock;
	}
	uint64_t limit = pool->props.maxSize ? pool->props.maxSize : UINT64_MAX;
	if (pool->reserved + size > limit)
		release(pool, size < limit ? limit - size : 0);
	result = pool->reserved + size > limit ? CUDA_ERROR_OUT_OF_MEMORY : fresh(pool, stream->ctx, size, out);
	if (result == CUDA_ERROR_OUT_OF_MEMORY) {
		uint64_t released = 0;
		for (struct sw_pool *other = pools; other; other = other->next)
			released += release(other, 0);
		if (released)
			result = fresh(pool, stream->ctx, size, out);
	}
	if (result == CUDA_SUCCESS) {
		(*out)->pool = pool;
		count_use(pool, (int64_t)(*out)->span, (int64_t)(*out)->span);
	}
unlock:
	pthread_mutex_unlock(&pool_lock);
	return result;
}

/* Puts memory that the program let go among the free blocks. 0 or -1: out of memory. Lock held. */
static int
retire(struct sw_alloc *alloc, struct sw_stream *stream, uint64_t *id)
{
	struct sw_pool *pool = alloc->pool;
	struct block *block = malloc(sizeof(*block));

	if (!block)
		return -1;
	*id = ++next_free_id;
	*block = (struct block){ .next = pool->blocks, .alloc = alloc, .id = *id, .stream = stream };
	pool->blocks = block;
	alloc->hidden = true; /* no longer the program's */
	alloc->ctx = NULL;
	count_use(pool, -(int64_t)alloc->span, 0);
	return 0;
}

void
sw_pool_free_done(struct sw_op *op)
{
	pthread_mutex_lock(&pool_lock);
	for (struct block *block = op->memory.pool ? op->memory.pool->blocks : NULL; block; block = block->next)
		if (block->id == op->memory.id)
			block->stream = NULL;
	pthread_mutex_unlock(&pool_lock);
}

void
sw_pool_stream_gone(struct sw_stream *stream)
{
	pthread_mutex_lock(&pool_lock);
	/* The free itself is still on its way; only nobody may take the short cut of the same stream any more. */
	for (struct sw_pool *pool = pools; pool; pool = pool->next)
		for (struct block *block = pool->blocks; block; block = block->next)
			if (block->stream == stream)
				block->stream = (struct sw_stream *)&pools; /* no stream's address */
	pthread_mutex_unlock(&pool_lock);
}

CUresult
sw_pool_free_now(struct sw_alloc *alloc)
{
	uint64_t id;

	pthread_mutex_lock(&pool_lock);
	struct sw_pool *pool = alloc->pool;
	int failed = pool ? retire(alloc, NULL, &id) : -1;
	if (!failed)
		release(pool, pool->threshold);
	pthread_mutex_unlock(&pool_lock);
	return failed ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

void
sw_pool_drop_context(struct sw_context *ctx)
{
	struct sw_alloc *alloc;

	while ((alloc = sw_alloc_of_pool(ctx)) != NULL)
		if (sw_pool_free_now(alloc) != CUDA_SUCCESS)
			break; /* out of memory: then it stays, and is counted */
}

/* ---- calls: allocation ------------------------------------------------------------------------------------------------------ */

static CUresult
allocate(CUdeviceptr *dptr, size_t size, CUmemoryPool handle, bool of_device, CUstream stream_handle)
{
	struct sw_stream *stream = NULL;
	struct sw_alloc *alloc;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, stream_handle, &stream);
	if (result != CUDA_SUCCESS)
		return result;
	if (!size)
		return CUDA_ERROR_INVALID_VALUE;
	if (stream->capture && sw_capture_alloc(stream, size, dptr, &result))
		return result;
	pthread_mutex_lock(&pool_lock);
	struct sw_pool *pool = of_device ? (pool_default(), current_pool) : fw_handle_get(handle, SW_KIND_POOL);
	pthread_mutex_unlock(&pool_lock);
	if (!pool)
		return of_device ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
	if (pool->imported)
		return CUDA_ERROR_NOT_PERMITTED; /* only the exporting process allocates */
	result = pool_alloc(pool, size, stream, &alloc);
	if (result == CUDA_SUCCESS)
		*dptr = alloc->address;
	return result;
}

CUresult
sw_cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
	return allocate(dptr, bytesize, NULL, true, hStream);
}

CUresult
sw_cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
{
	return allocate(dptr, bytesize, pool, false, hStream);
}

CUresult
sw_cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
	struct sw_stream *stream = NULL;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, hStream, &stream);
	if (result != CUDA_SUCCESS)
		return result;
	if (!dptr)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_op op = { .kind = SW_OP_FREE, .memory = { .address = dptr } };
	if (stream->capture)
		return sw_submit(stream, &op);
	if (sw_graph_memory_release(dptr))
		return sw_submit(stream, &(struct sw_op){ .kind = SW_OP_EMPTY });
	struct sw_alloc *alloc = sw_alloc_find(dptr);
	if (!alloc || alloc->address != dptr || alloc->hidden || !alloc->pool)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&pool_lock);
	int failed = alloc->hidden ? -1 : retire(alloc, stream, &op.memory.id);
	op.memory.pool = alloc->pool;
	pthread_mutex_unlock(&pool_lock);
	return failed ? CUDA_ERROR_INVALID_VALUE : sw_submit(stream, &op);
}

/* ---- calls: pools -------------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *poolProps)
{
	if (!poolProps || poolProps->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	if (poolProps->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return poolProps->location.type == CU_MEM_LOCATION_TYPE_HOST || poolProps->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA
		               ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
	if (!sw_device_valid(poolProps->location.id))
		return CUDA_ERROR_INVALID_DEVICE;
	if (poolProps->handleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	int fd = poolProps->handleTypes ? memfd_create("farwarp", MFD_CLOEXEC) : -1;
	pthread_mutex_lock(&pool_lock);
	struct sw_pool *pool = poolProps->handleTypes && fd < 0 ? NULL : pool_new(poolProps);
	if (pool)
		pool->fd = fd;
	pthread_mutex_unlock(&pool_lock);
	if (!pool) {
		if (fd >= 0)
			close(fd);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = pool->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemPoolDestroy(CUmemoryPool handle)
{
	struct sw_context *ctx = NULL;
	struct sw_pool *pool = fw_handle_get(handle, SW_KIND_POOL);

	if (!pool || pool->is_default)
		return CUDA_ERROR_INVALID_VALUE;
	if (sw_context_current(&ctx) == CUDA_SUCCESS)
		sw_queue_drain(ctx); /* frees on their way name the pool */
	pthread_mutex_lock(&pool_lock);
	if (current_pool == pool)
		current_pool = default_pool;
	fw_handle_end(handle, SW_KIND_POOL);
	release(pool, 0);
	/* Outstanding allocations keep the pool until they are freed; so does nothing else, and the struct is small: it stays listed
	 * and is emptied by the next trim. */
	pool->threshold = 0;
	pthread_mutex_unlock(&pool_lock);
	return CUDA_SUCCESS;
}

#define POOL(pool, handle) \
	struct sw_pool *pool = fw_handle_get(handle, SW_KIND_POOL); \
	if (!pool) \
		return CUDA_ERROR_INVALID_VALUE

CUresult
sw_cuMemPoolTrimTo(CUmemoryPool handle, size_t minBytesToKeep)
{
	POOL(pool, handle);
	pthread_mutex_lock(&pool_lock);
	release(pool, minBytesToKeep);
	pthread_mutex_unlock(&pool_lock);
	return CUDA_SUCCESS;
}

static int32_t *
reuse_switch(struct sw_pool *pool, CUmemPool_attribute attr)
{
	return attr == CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES ? &pool->follow_events
	       : attr == CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC     ? &pool->opportunistic
	       : attr == CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES ? &pool->internal_dependencies : NULL;
}

CUresult
sw_cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void *value)
{
	CUresult result = CUDA_SUCCESS;
	uint64_t wide;
	POOL(pool, handle);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&pool_lock);
	if (reuse_switch(pool, attr)) {
		memcpy(reuse_switch(pool, attr), value, sizeof(int32_t));
	} else if (attr == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) {
		memcpy(&pool->threshold, value, sizeof(pool->threshold));
	} else {
		/* High-water marks can only be reset. */
		memcpy(&wide, value, sizeof(wide));
		if (attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH && wide == 0)
			pool->reserved_high = pool->reserved;
		else if (attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH && wide == 0)
			pool->used_high = pool->used;
		else
			result = CUDA_ERROR_INVALID_VALUE;
	}
	pthread_mutex_unlock(&pool_lock);
	return result;
}

CUresult
sw_cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void *value)
{
	CUresult result = CUDA_SUCCESS;
	POOL(pool, handle);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&pool_lock);
	if (reuse_switch(pool, attr))
		memcpy(value, reuse_switch(pool, attr), sizeof(int32_t));
	else if (attr == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
		memcpy(value, &pool->threshold, sizeof(uint64_t));
	else if (attr == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
		memcpy(value, &pool->reserved, sizeof(uint64_t));
	else if (attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
		memcpy(value, &pool->reserved_high, sizeof(uint64_t));
	else if (attr == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
		memcpy(value, &pool->used, sizeof(uint64_t));
	else if (attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
		memcpy(value, &pool->used_high, sizeof(uint64_t));
	else
		result = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_unlock(&pool_lock);
	return result;
}

CUresult
sw_cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *map, size_t count)
{
	POOL(pool, handle);
	if (!map && count)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
			return CUDA_ERROR_INVALID_VALUE;
		if (!sw_device_valid(map[i].location.id))
			return CUDA_ERROR_INVALID_DEVICE;
		/* The owning device's access cannot be taken away. */
		if (map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool memPool, CUmemLocation *location)
{
	POOL(pool, memPool);
	if (!location || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sw_device_valid(location->id))
		return CUDA_ERROR_INVALID_DEVICE;
	*flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
	return CUDA_SUCCESS;
}

/* ---- calls: the device's pool ------------------------------------------------------------------------------------------------------ */

CUresult
sw_cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&pool_lock);
	struct sw_pool *pool = pool_default();
	pthread_mutex_unlock(&pool_lock);
	if (!pool)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*pool_out = pool->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetMemPool(CUmemoryPool *out, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&pool_lock);
	struct sw_pool *pool = pool_default() ? current_pool : NULL;
	pthread_mutex_unlock(&pool_lock);
	if (!pool)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*out = pool->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle)
{
	POOL(pool, handle);
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&pool_lock);
	pool_default();
	current_pool = pool;
	pthread_mutex_unlock(&pool_lock);
	return CUDA_SUCCESS;
}

/* The newer calls name a location and a kind of memory; we have pools of device memory only. */
static CUresult
location_check(const CUmemLocation *location, CUmemAllocationType type)
{
	if (!location)
		return CUDA_ERROR_INVALID_VALUE;
	if (type == CU_MEM_ALLOCATION_TYPE_MANAGED)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	return location->type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult
sw_cuMemGetDefaultMemPool(CUmemoryPool *pool_out, CUmemLocation *location, CUmemAllocationType type)
{
	CUresult result = location_check(location, type);

	return result == CUDA_SUCCESS ? sw_cuDeviceGetDefaultMemPool(pool_out, location->id) : result;
}

CUresult
sw_cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type)
{
	CUresult result = location_check(location, type);

	return result == CUDA_SUCCESS ? sw_cuDeviceGetMemPool(pool, location->id) : result;
}

CUresult
sw_cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
	CUresult result = location_check(location, type);

	return result == CUDA_SUCCESS ? sw_cuDeviceSetMemPool(location->id, pool) : result;
}

/* ---- calls: pools shared between processes --------------------------------------------------------------------------------------- */

struct export { /* what CUmemPoolPtrExportData holds */
	uint32_t magic;
	uint32_t unused;
	uint64_t offset, size;
	uint64_t inode; /* of the pool's file */
};
#define EXPORT_MAGIC 0x50776600u
_Static_assert(sizeof(struct export) <= sizeof(CUmemPoolPtrExportData), "an exported pointer fits its structure");

CUresult
sw_cuMemPoolExportToShareableHandle(void *handle_out, CUmemoryPool handle, CUmemAllocationHandleType handleType,
                                    unsigned long long flags)
{
	POOL(pool, handle);
	if (flags || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || pool->fd < 0 || pool->imported)
		return CUDA_ERROR_INVALID_VALUE;
	int fd = fcntl(pool->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return CUDA_ERROR_OPERATING_SYSTEM;
	memcpy(handle_out, &fd, sizeof(fd));
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle, CUmemAllocationHandleType handleType,
                                      unsigned long long flags)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	int given = (int)(intptr_t)handle;

	if (flags || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || fcntl(given, F_GET_SEALS) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	int fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return CUDA_ERROR_OPERATING_SYSTEM;
	pthread_mutex_lock(&pool_lock);
	struct sw_pool *pool = pool_new(&props);
	if (pool) {
		pool->imported = true;
		pool->fd = fd;
	}
	pthread_mutex_unlock(&pool_lock);
	if (!pool) {
		close(fd);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*pool_out = pool->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemPoolExportPointer(CUmemPoolPtrExportData *shareData_out, CUdeviceptr ptr)
{
	struct sw_alloc *alloc = sw_alloc_find(ptr);
	struct stat status;

	if (!alloc || alloc->hidden || alloc->address != ptr || !alloc->pool || alloc->pool->fd < 0 || alloc->pool->imported ||
	    fstat(alloc->pool->fd, &status) != 0)
		return CUDA_ERROR_INVALID_VALUE;
	struct export out = { .magic = EXPORT_MAGIC, .offset = alloc->segment->fd_offset, .size = alloc->size,
		.inode = (uint64_t)status.st_ino };
	memset(shareData_out, 0, sizeof(*shareData_out));
	memcpy(shareData_out, &out, sizeof(out));
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemPoolImportPointer(CUdeviceptr *ptr_out, CUmemoryPool handle, CUmemPoolPtrExportData *shareData)
{
	struct sw_alloc *alloc;
	struct export in;
	struct stat status;
	POOL(pool, handle);
	if (!shareData || !pool->imported)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&in, shareData, sizeof(in));
	/* The other process wrote it: nothing but the file's own size is believed. */
	if (in.magic != EXPORT_MAGIC || fstat(pool->fd, &status) != 0 || in.inode != (uint64_t)status.st_ino || !in.size ||
	    in.offset % SW_GRANULE || in.offset > (uint64_t)status.st_size || in.size > (uint64_t)status.st_size - in.offset)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_alloc_new_file(NULL, in.size, SW_MEM_IPC, pool->fd, in.offset, &alloc);
	if (result != CUDA_SUCCESS)
		return result;
	pthread_mutex_lock(&pool_lock);
	alloc->pool = pool;
	count_use(pool, (int64_t)alloc->span, (int64_t)alloc->span);
	pthread_mutex_unlock(&pool_lock);
	*ptr_out = alloc->address;
	return CUDA_SUCCESS;
}
