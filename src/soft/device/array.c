/*
 * CUDA arrays and mipmapped arrays: descriptors over memory that is laid out row after row, slice after slice. Sparse, deferred,
 * multi-planar and block-compressed arrays are refused.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <stdlib.h>
#include <string.h>

#define PITCH_UNIT 64
#define MAX_LEVELS 18
#define FLAGS_SERVED (unsigned)(CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_CUBEMAP | \
	CUDA_ARRAY3D_TEXTURE_GATHER | CUDA_ARRAY3D_DEPTH_TEXTURE | CUDA_ARRAY3D_COLOR_ATTACHMENT)

struct sw_mipmap {
	struct sw_child child;
	CUmipmappedArray handle;
	struct sw_context *ctx;
	uint32_t levels;
	struct sw_array *level[MAX_LEVELS];
};

static const struct { CUarray_format format; uint8_t bytes, channels; /* 0: 1, 2 or 4 */ } formats[] = {
	{ CU_AD_FORMAT_UNSIGNED_INT8, 1, 0 }, { CU_AD_FORMAT_UNSIGNED_INT16, 2, 0 }, { CU_AD_FORMAT_UNSIGNED_INT32, 4, 0 },
	{ CU_AD_FORMAT_SIGNED_INT8, 1, 0 }, { CU_AD_FORMAT_SIGNED_INT16, 2, 0 }, { CU_AD_FORMAT_SIGNED_INT32, 4, 0 },
	{ CU_AD_FORMAT_HALF, 2, 0 }, { CU_AD_FORMAT_FLOAT, 4, 0 },
	{ CU_AD_FORMAT_UNORM_INT8X1, 1, 1 }, { CU_AD_FORMAT_UNORM_INT8X2, 1, 2 }, { CU_AD_FORMAT_UNORM_INT8X4, 1, 4 },
	{ CU_AD_FORMAT_UNORM_INT16X1, 2, 1 }, { CU_AD_FORMAT_UNORM_INT16X2, 2, 2 }, { CU_AD_FORMAT_UNORM_INT16X4, 2, 4 },
	{ CU_AD_FORMAT_SNORM_INT8X1, 1, 1 }, { CU_AD_FORMAT_SNORM_INT8X2, 1, 2 }, { CU_AD_FORMAT_SNORM_INT8X4, 1, 4 },
	{ CU_AD_FORMAT_SNORM_INT16X1, 2, 1 }, { CU_AD_FORMAT_SNORM_INT16X2, 2, 2 }, { CU_AD_FORMAT_SNORM_INT16X4, 2, 4 },
};

uint32_t
sw_format_bytes(CUarray_format format)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (formats[i].format == format)
			return formats[i].bytes;
	return 0;
}

static uint32_t
element_bytes(CUarray_format format, unsigned channels)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (formats[i].format != format)
			continue;
		bool fits = formats[i].channels ? channels == formats[i].channels : channels == 1 || channels == 2 || channels == 4;
		return fits ? formats[i].bytes * channels : 0;
	}
	return 0;
}

/* ---- descriptors -------------------------------------------------------------------------------------------------------- */

/* The device's greatest extents for the kind of array that a descriptor means (attributes MAXIMUM_TEXTURE...). */
static CUresult
check_extent(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	bool layered = d->Flags & CUDA_ARRAY3D_LAYERED, cube = d->Flags & CUDA_ARRAY3D_CUBEMAP;
	size_t width = 131072, height = 65536, depth = 0;

	if (!d->Width)
		return CUDA_ERROR_INVALID_VALUE;
	if (cube) {
		if (d->Width != d->Height || (layered ? d->Depth % 6 || !d->Depth : d->Depth != 6))
			return CUDA_ERROR_INVALID_VALUE;
		width = height = 32768;
		depth = 2046 * 6;
	} else if (layered) {
		if (!d->Depth)
			return CUDA_ERROR_INVALID_VALUE;
		width = height = 32768;
		depth = 2048;
	} else if (d->Depth) {
		if (!d->Height)
			return CUDA_ERROR_INVALID_VALUE;
		width = height = depth = 16384;
	}
	return d->Width <= width && d->Height <= height && d->Depth <= depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult
check_descriptor(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
	if (d->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING | CUDA_ARRAY3D_VIDEO_ENCODE_DECODE)) {
		fw_warn_once("device", "sparse, deferred and video arrays are not supported");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (d->Flags & ~FLAGS_SERVED)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sw_format_bytes(d->Format)) {
		fw_warn_once("device", "array format 0x%x is not supported", (unsigned)d->Format);
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (!element_bytes(d->Format, d->NumChannels))
		return CUDA_ERROR_INVALID_VALUE;
	return check_extent(d);
}

/* ---- arrays ---------------------------------------------------------------------------------------------------------------- */

static void
array_free(struct sw_array *array)
{
	fw_handle_end(array->handle, SW_KIND_ARRAY);
	if (array->alloc)
		sw_alloc_free(array->alloc);
	free(array);
}

static void
array_destroy(struct sw_child *child)
{
	struct sw_array *array = (struct sw_array *)child;

	sw_context_disown(array->ctx, child);
	array_free(array);
}

static CUresult
array_new(struct sw_context *ctx, const CUDA_ARRAY3D_DESCRIPTOR *desc, struct sw_array **out)
{
	struct sw_array *array = calloc(1, sizeof(*array));

	if (!array)
		return CUDA_ERROR_OUT_OF_MEMORY;
	array->ctx = ctx;
	array->desc = *desc;
	array->element = element_bytes(desc->Format, desc->NumChannels);
	array->rows = desc->Height ? desc->Height : 1;
	array->slices = desc->Depth ? desc->Depth : 1;
	array->pitch = sw_round_up(desc->Width * array->element, PITCH_UNIT);
	array->slice = array->pitch * array->rows;
	CUresult result = sw_alloc_new(ctx, array->slice * array->slices, 512, SW_MEM_DEVICE, false, &array->alloc);
	if (result == CUDA_SUCCESS) {
		array->alloc->hidden = true;
		array->address = array->alloc->address;
		array->handle = fw_handle_new(SW_KIND_ARRAY, array);
		if (!array->handle) {
			sw_alloc_free(array->alloc);
			result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	if (result != CUDA_SUCCESS) {
		free(array);
		return result;
	}
	*out = array;
	return CUDA_SUCCESS;
}

CUresult
sw_cuArray3DCreate_v2(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pAllocateArray)
{
	struct sw_array *array;
	SW_CTX(ctx);
	if (!pAllocateArray)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = check_descriptor(pAllocateArray);
	if (result == CUDA_SUCCESS)
		result = array_new(ctx, pAllocateArray, &array);
	if (result != CUDA_SUCCESS)
		return result;
	sw_context_adopt(ctx, &array->child, array_destroy);
	*pHandle = array->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuArrayCreate_v2(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR *pAllocateArray)
{
	if (!pAllocateArray)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_ARRAY3D_DESCRIPTOR desc = { .Width = pAllocateArray->Width, .Height = pAllocateArray->Height,
		.Format = pAllocateArray->Format, .NumChannels = pAllocateArray->NumChannels };
	return sw_cuArray3DCreate_v2(pHandle, &desc);
}

CUresult
sw_cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
	SW_CTX(ctx);
	struct sw_array *array = fw_handle_get(hArray, SW_KIND_ARRAY);
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	*pArrayDescriptor = array->desc;
	return CUDA_SUCCESS;
}

CUresult
sw_cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
	SW_CTX(ctx);
	struct sw_array *array = fw_handle_get(hArray, SW_KIND_ARRAY);
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	*pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR){ .Width = array->desc.Width, .Height = array->desc.Height,
		.Format = array->desc.Format, .NumChannels = array->desc.NumChannels };
	return CUDA_SUCCESS;
}

CUresult
sw_cuArrayDestroy(CUarray hArray)
{
	SW_CTX(ctx);
	struct sw_array *array = fw_handle_get(hArray, SW_KIND_ARRAY);
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	if (array->mipmap)
		return CUDA_ERROR_INVALID_VALUE; /* a level goes with its mipmapped array */
	sw_queue_drain(array->ctx);
	array_destroy(&array->child);
	return CUDA_SUCCESS;
}

CUresult
sw_cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *memoryRequirements, CUarray array, CUdevice device)
{
	SW_CTX(ctx);
	if (!sw_device_valid(device))
		return CUDA_ERROR_INVALID_DEVICE;
	return fw_handle_get(array, SW_KIND_ARRAY) ? CUDA_ERROR_INVALID_VALUE /* none has deferred mapping */
	                                           : CUDA_ERROR_INVALID_HANDLE;
}

CUresult
sw_cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *sparseProperties, CUarray array)
{
	SW_CTX(ctx);
	return fw_handle_get(array, SW_KIND_ARRAY) ? CUDA_ERROR_INVALID_VALUE /* none is sparse */ : CUDA_ERROR_INVALID_HANDLE;
}

CUresult
sw_cuArrayGetPlane(CUarray *pPlaneArray, CUarray hArray, unsigned planeIdx)
{
	SW_CTX(ctx);
	return fw_handle_get(hArray, SW_KIND_ARRAY) ? CUDA_ERROR_INVALID_VALUE /* none has planes */ : CUDA_ERROR_INVALID_HANDLE;
}

/* ---- mipmapped arrays ------------------------------------------------------------------------------------------------------ */

static void
mipmap_free(struct sw_mipmap *mipmap)
{
	fw_handle_end(mipmap->handle, SW_KIND_MIPMAP);
	for (uint32_t i = 0; i < mipmap->levels; i++)
		array_free(mipmap->level[i]);
	free(mipmap);
}

static void
mipmap_destroy(struct sw_child *child)
{
	struct sw_mipmap *mipmap = (struct sw_mipmap *)child;

	sw_context_disown(mipmap->ctx, child);
	mipmap_free(mipmap);
}

static size_t
halve(size_t extent)
{
	return extent > 1 ? extent / 2 : extent;
}

CUresult
sw_cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pMipmappedArrayDesc, unsigned numMipmapLevels)
{
	SW_CTX(ctx);
	if (!pMipmappedArrayDesc)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_ARRAY3D_DESCRIPTOR desc = *pMipmappedArrayDesc;
	CUresult result = check_descriptor(&desc);
	if (result != CUDA_SUCCESS)
		return result;
	bool layered = desc.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);
	size_t largest = desc.Width > desc.Height ? desc.Width : desc.Height;
	if (!layered && desc.Depth > largest)
		largest = desc.Depth;
	uint32_t most = 64 - (uint32_t)__builtin_clzll(largest); /* 1 + floor(log2) */
	if (!numMipmapLevels)
		return CUDA_ERROR_INVALID_VALUE;
	struct sw_mipmap *mipmap = calloc(1, sizeof(*mipmap));
	if (!mipmap)
		return CUDA_ERROR_OUT_OF_MEMORY;
	mipmap->ctx = ctx;
	if (numMipmapLevels > most)
		numMipmapLevels = most; /* "clamped to the range [1, 1 + floor(log2(max extent))]" */
	for (; mipmap->levels < numMipmapLevels && result == CUDA_SUCCESS; mipmap->levels++) {
		struct sw_array *level;
		result = array_new(ctx, &desc, &level);
		if (result != CUDA_SUCCESS)
			break;
		level->mipmap = mipmap;
		level->level = mipmap->levels;
		mipmap->level[mipmap->levels] = level;
		desc.Width = halve(desc.Width);
		desc.Height = halve(desc.Height);
		if (!layered)
			desc.Depth = halve(desc.Depth);
	}
	if (result == CUDA_SUCCESS && !(mipmap->handle = fw_handle_new(SW_KIND_MIPMAP, mipmap)))
		result = CUDA_ERROR_OUT_OF_MEMORY;
	if (result != CUDA_SUCCESS) {
		mipmap_free(mipmap);
		return result;
	}
	sw_context_adopt(ctx, &mipmap->child, mipmap_destroy);
	*pHandle = mipmap->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMipmappedArrayGetLevel(CUarray *pLevelArray, CUmipmappedArray hMipmappedArray, unsigned level)
{
	SW_CTX(ctx);
	struct sw_mipmap *mipmap = fw_handle_get(hMipmappedArray, SW_KIND_MIPMAP);
	if (!mipmap)
		return CUDA_ERROR_INVALID_HANDLE;
	if (level >= mipmap->levels)
		return CUDA_ERROR_INVALID_VALUE;
	*pLevelArray = mipmap->level[level]->handle;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
	SW_CTX(ctx);
	struct sw_mipmap *mipmap = fw_handle_get(hMipmappedArray, SW_KIND_MIPMAP);
	if (!mipmap)
		return CUDA_ERROR_INVALID_HANDLE;
	sw_queue_drain(mipmap->ctx);
	mipmap_destroy(&mipmap->child);
	return CUDA_SUCCESS;
}

CUresult
sw_cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *memoryRequirements, CUmipmappedArray mipmap, CUdevice device)
{
	SW_CTX(ctx);
	if (!sw_device_valid(device))
		return CUDA_ERROR_INVALID_DEVICE;
	return fw_handle_get(mipmap, SW_KIND_MIPMAP) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
}

CUresult
sw_cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *sparseProperties, CUmipmappedArray mipmap)
{
	SW_CTX(ctx);
	return fw_handle_get(mipmap, SW_KIND_MIPMAP) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
}
