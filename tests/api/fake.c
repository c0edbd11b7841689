/*
 * A device that only answers what the client library needs to start: one device, contexts, memory from malloc. For tests of
 * the client by itself; it computes nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/handles.h"
#include "base/thread.h"
#include "soft/soft.h"

static int fake_retained;
static CUcontext primary;

static CUresult
fake_get(CUdevice *device, int ordinal)
{
	*device = 0;
	return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult
fake_count(int *count)
{
	*count = 1;
	return CUDA_SUCCESS;
}

static CUresult
fake_name(char *name, int len, CUdevice dev)
{
	memset(name, 0, (size_t)len);
	strncpy(name, "fake", (size_t)len - 1);
	return dev == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult
fake_uuid(CUuuid *uuid, CUdevice dev)
{
	for (int i = 0; i < 16; i++)
		uuid->bytes[i] = (char)(0x10 + i);
	return dev == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult
fake_total(size_t *bytes, CUdevice dev)
{
	*bytes = 1u << 30;
	return dev == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult
fake_attribute(int *value, CUdevice_attribute attribute, CUdevice dev)
{
	*value = (int)attribute;
	return dev == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult
fake_primary(CUcontext *ctx, CUdevice dev)
{
	if (dev != 0)
		return CUDA_ERROR_INVALID_DEVICE;
	if (!primary)
		primary = fw_handle_new(1, &primary);
	*ctx = primary;
	return CUDA_SUCCESS;
}

static CUresult
fake_retain(CUcontext *ctx, CUdevice dev)
{
	CUresult result = fake_primary(ctx, dev);

	fake_retained += result == CUDA_SUCCESS;
	return result;
}

static CUresult
fake_release(CUdevice dev)
{
	if (dev != 0)
		return CUDA_ERROR_INVALID_DEVICE;
	if (fake_retained == 0)
		return CUDA_ERROR_INVALID_CONTEXT;
	fake_retained--;
	return CUDA_SUCCESS;
}

static CUresult
fake_reset(CUdevice dev)
{
	return dev == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult
fake_create(CUcontext *ctx, unsigned flags, CUdevice dev)
{
	static int object;

	if (dev != 0)
		return CUDA_ERROR_INVALID_DEVICE;
	*ctx = fw_handle_new(1, &object);
	return CUDA_SUCCESS;
}

static CUresult
fake_destroy(CUcontext ctx)
{
	return fw_handle_end(ctx, 1) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult
fake_alloc(CUdeviceptr *dptr, size_t size)
{
	if (!fw_handle_get(fw_thread.ctx, 1))
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	*dptr = (CUdeviceptr)(uintptr_t)malloc(size);
	return *dptr ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult
fake_free(CUdeviceptr dptr)
{
	free((void *)(uintptr_t)dptr);
	return CUDA_SUCCESS;
}

/* Answers which default stream the call meant. */
static CUresult
fake_copy(CUdeviceptr dst, CUdeviceptr src, size_t size)
{
	memset((void *)(uintptr_t)dst, fw_thread.per_thread_stream ? 2 : 1, size);
	return CUDA_SUCCESS;
}

static CUresult
fake_stream_id(CUstream stream, unsigned long long *id)
{
	*id = (unsigned long long)(uintptr_t)stream;
	return CUDA_SUCCESS;
}

static const struct cuda_ops ops = {
	.name = "fake",
	.primary_context = fake_primary,
	.cuDeviceGet = fake_get,
	.cuDeviceGetCount = fake_count,
	.cuDeviceGetName = fake_name,
	.cuDeviceGetUuid_v2 = fake_uuid,
	.cuDeviceGetUuid = fake_uuid,
	.cuDeviceTotalMem_v2 = fake_total,
	.cuDeviceGetAttribute = fake_attribute,
	.cuDevicePrimaryCtxRetain = fake_retain,
	.cuDevicePrimaryCtxRelease_v2 = fake_release,
	.cuDevicePrimaryCtxReset_v2 = fake_reset,
	.cuCtxCreate_v2 = fake_create,
	.cuCtxDestroy_v2 = fake_destroy,
	.cuMemAlloc_v2 = fake_alloc,
	.cuMemFree_v2 = fake_free,
	.cuMemcpy = fake_copy,
	.cuStreamGetId = fake_stream_id,
};

CUresult
sw_open(const struct sw_config *config, const struct cuda_ops **out)
{
	*out = &ops;
	return CUDA_SUCCESS;
}

void
sw_close(void)
{
}

void
sw_after_fork(void)
{
}
