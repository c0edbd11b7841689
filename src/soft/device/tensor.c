/*
 * Tensor maps: checks a description of a tensor as the driver API documents it and writes it down in our own form (tensor.h). Devices
 * before 9.0 have none.
 */
#include "soft/device/tensor.h"

#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <string.h>

static const uint8_t type_bytes[] = { /* by CUtensorMapDataType */
	[CU_TENSOR_MAP_DATA_TYPE_UINT8] = 1, [CU_TENSOR_MAP_DATA_TYPE_UINT16] = 2, [CU_TENSOR_MAP_DATA_TYPE_UINT32] = 4,
	[CU_TENSOR_MAP_DATA_TYPE_INT32] = 4, [CU_TENSOR_MAP_DATA_TYPE_UINT64] = 8, [CU_TENSOR_MAP_DATA_TYPE_INT64] = 8,
	[CU_TENSOR_MAP_DATA_TYPE_FLOAT16] = 2, [CU_TENSOR_MAP_DATA_TYPE_FLOAT32] = 4, [CU_TENSOR_MAP_DATA_TYPE_FLOAT64] = 8,
	[CU_TENSOR_MAP_DATA_TYPE_BFLOAT16] = 2, [CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ] = 4, [CU_TENSOR_MAP_DATA_TYPE_TFLOAT32] = 4,
	[CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ] = 4,
};

static bool
is_float(CUtensorMapDataType type)
{
	return (type >= CU_TENSOR_MAP_DATA_TYPE_FLOAT16 && type <= CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ);
}

static uint32_t
swizzle_bytes(CUtensorMapSwizzle swizzle)
{
	return swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 32 : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64 : 128;
}

/* What all three forms have in common. */
struct shape {
	CUtensorMapDataType type;
	uint32_t rank, least_rank;
	void *address;
	const uint64_t *sizes, *strides;
	const uint32_t *element_strides;
	CUtensorMapInterleave interleave;
	CUtensorMapSwizzle swizzle;
	CUtensorMapL2promotion promotion;
	CUtensorMapFloatOOBfill fill;
};

static CUresult
encode_shape(struct sw_tensor *out, const struct shape *s)
{
	uint64_t unit = s->interleave == CU_TENSOR_MAP_INTERLEAVE_32B ? 32 : 16, address = (uint64_t)(uintptr_t)s->address;

	if (!sw_device.limits->cluster_max) /* 9.0 and later */
		return CUDA_ERROR_NOT_SUPPORTED;
	if ((unsigned)s->type >= sizeof(type_bytes) || !s->sizes || !s->element_strides || (s->rank > 1 && !s->strides))
		return (unsigned)s->type <= CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
	if (s->rank < s->least_rank || s->rank > 5 || (s->interleave != CU_TENSOR_MAP_INTERLEAVE_NONE && s->rank < 3))
		return CUDA_ERROR_INVALID_VALUE;
	if (!address || address % unit || (unsigned)s->interleave > CU_TENSOR_MAP_INTERLEAVE_32B ||
	    (unsigned)s->swizzle > CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B || (unsigned)s->promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B ||
	    (unsigned)s->fill > CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA)
		return CUDA_ERROR_INVALID_VALUE;
	if (s->interleave == CU_TENSOR_MAP_INTERLEAVE_32B && s->swizzle != CU_TENSOR_MAP_SWIZZLE_32B)
		return CUDA_ERROR_INVALID_VALUE;
	if (s->fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE && !is_float(s->type))
		return CUDA_ERROR_INVALID_VALUE;
	*out = (struct sw_tensor){ .magic = SW_TENSOR_MAGIC, .type = (uint8_t)s->type, .rank = (uint8_t)s->rank,
		.interleave = (uint8_t)s->interleave, .swizzle = (uint8_t)s->swizzle, .address = address,
		.promotion = (uint8_t)s->promotion, .fill = (uint8_t)s->fill };
	for (uint32_t i = 0; i < s->rank; i++) {
		if (!s->sizes[i] || s->sizes[i] > (uint64_t)1 << 32 || !s->element_strides[i] || s->element_strides[i] > 8)
			return CUDA_ERROR_INVALID_VALUE;
		out->size[i] = (uint32_t)(s->sizes[i] - 1);
		out->element_stride[i] = (uint8_t)s->element_strides[i];
	}
	for (uint32_t i = 0; i + 1 < s->rank; i++) {
		if (s->strides[i] % unit || s->strides[i] >= (uint64_t)1 << 36)
			return s->strides[i] % unit || s->strides[i] >= (uint64_t)1 << 40 ? CUDA_ERROR_INVALID_VALUE
			                                                                  : CUDA_ERROR_NOT_SUPPORTED;
		out->stride16[i] = (uint32_t)(s->strides[i] / 16);
	}
	return CUDA_SUCCESS;
}

/* The inner extent of a box in shared memory: whole 16 bytes, and inside the swizzle span. */
static bool
inner_fits(const struct shape *s, uint64_t elements)
{
	uint64_t bytes = elements * type_bytes[s->type];

	if (s->interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
		return true;
	return bytes % 16 == 0 && (s->swizzle == CU_TENSOR_MAP_SWIZZLE_NONE || bytes <= swizzle_bytes(s->swizzle));
}

static CUresult
finish(CUtensorMap *map, const struct sw_tensor *tensor)
{
	if ((uintptr_t)map % 64)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(map, tensor, sizeof(*tensor));
	return CUDA_SUCCESS;
}

CUresult
sw_cuTensorMapEncodeTiled(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType, uint32_t tensorRank, void *globalAddress,
                          const uint64_t *globalDim, const uint64_t *globalStrides, const uint32_t *boxDim,
                          const uint32_t *elementStrides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                          CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill)
{
	struct shape shape = { tensorDataType, tensorRank, 1, globalAddress, globalDim, globalStrides, elementStrides, interleave,
		swizzle, l2Promotion, oobFill };
	struct sw_tensor tensor;
	CUresult result = encode_shape(&tensor, &shape);

	if (result != CUDA_SUCCESS)
		return result;
	if (!boxDim)
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < tensorRank; i++) {
		if (!boxDim[i] || boxDim[i] > 256)
			return CUDA_ERROR_INVALID_VALUE;
		tensor.box[i] = (uint16_t)boxDim[i];
	}
	return inner_fits(&shape, boxDim[0]) ? finish(tensorMap, &tensor) : CUDA_ERROR_INVALID_VALUE;
}

/* Corners of an im2col box lie within what their number of dimensions leaves for bits: 16, 8 or 4 (rank 3, 4, 5). */
static bool
corners_fit(struct sw_tensor *tensor, uint32_t rank, const int *lower, const int *upper)
{
	int most = rank == 3 ? 32767 : rank == 4 ? 127 : 15;

	for (uint32_t i = 0; i + 2 < rank; i++) {
		if (lower[i] < -most - 1 || lower[i] > most || upper[i] < -most - 1 || upper[i] > most)
			return false;
		tensor->lower[i] = (int16_t)lower[i];
		tensor->upper[i] = (int16_t)upper[i];
	}
	return true;
}

CUresult
sw_cuTensorMapEncodeIm2col(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType, uint32_t tensorRank, void *globalAddress,
                           const uint64_t *globalDim, const uint64_t *globalStrides, const int *pixelBoxLowerCorner,
                           const int *pixelBoxUpperCorner, uint32_t channelsPerPixel, uint32_t pixelsPerColumn,
                           const uint32_t *elementStrides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                           CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill)
{
	struct shape shape = { tensorDataType, tensorRank, 3, globalAddress, globalDim, globalStrides, elementStrides, interleave,
		swizzle, l2Promotion, oobFill };
	struct sw_tensor tensor;
	CUresult result = encode_shape(&tensor, &shape);

	if (result != CUDA_SUCCESS)
		return result;
	if (!pixelBoxLowerCorner || !pixelBoxUpperCorner || !channelsPerPixel || channelsPerPixel > 256 || !pixelsPerColumn ||
	    pixelsPerColumn > 1024 || !corners_fit(&tensor, tensorRank, pixelBoxLowerCorner, pixelBoxUpperCorner) ||
	    !inner_fits(&shape, channelsPerPixel))
		return CUDA_ERROR_INVALID_VALUE;
	tensor.mode = 1;
	tensor.box[0] = (uint16_t)channelsPerPixel;
	tensor.box[1] = (uint16_t)pixelsPerColumn;
	return finish(tensorMap, &tensor);
}

CUresult
sw_cuTensorMapEncodeIm2colWide(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType, uint32_t tensorRank, void *globalAddress,
                               const uint64_t *globalDim, const uint64_t *globalStrides, int pixelBoxLowerCornerWidth,
                               int pixelBoxUpperCornerWidth, uint32_t channelsPerPixel, uint32_t pixelsPerColumn,
                               const uint32_t *elementStrides, CUtensorMapInterleave interleave, CUtensorMapIm2ColWideMode mode,
                               CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill)
{
	struct shape shape = { tensorDataType, tensorRank, 3, globalAddress, globalDim, globalStrides, elementStrides, interleave,
		swizzle, l2Promotion, oobFill };
	struct sw_tensor tensor;

	if (sw_device.cc < 100)
		return CUDA_ERROR_NOT_SUPPORTED;
	CUresult result = encode_shape(&tensor, &shape);
	if (result != CUDA_SUCCESS)
		return result;
	if (pixelBoxLowerCornerWidth < INT16_MIN || pixelBoxLowerCornerWidth > INT16_MAX || pixelBoxUpperCornerWidth < INT16_MIN ||
	    pixelBoxUpperCornerWidth > INT16_MAX || !channelsPerPixel || channelsPerPixel > 256 || !pixelsPerColumn ||
	    pixelsPerColumn > 1024 || (unsigned)mode > CU_TENSOR_MAP_IM2COL_WIDE_MODE_W128 || !inner_fits(&shape, channelsPerPixel))
		return CUDA_ERROR_INVALID_VALUE;
	tensor.mode = 2;
	tensor.wide_mode = (uint8_t)mode;
	tensor.lower[0] = (int16_t)pixelBoxLowerCornerWidth;
	tensor.upper[0] = (int16_t)pixelBoxUpperCornerWidth;
	tensor.box[0] = (uint16_t)channelsPerPixel;
	tensor.box[1] = (uint16_t)pixelsPerColumn;
	return finish(tensorMap, &tensor);
}

CUresult
sw_cuTensorMapReplaceAddress(CUtensorMap *tensorMap, void *globalAddress)
{
	struct sw_tensor tensor;
	uint64_t address = (uint64_t)(uintptr_t)globalAddress;

	memcpy(&tensor, tensorMap, sizeof(tensor));
	if (tensor.magic != SW_TENSOR_MAGIC || !address ||
	    address % (tensor.interleave == CU_TENSOR_MAP_INTERLEAVE_32B ? 32 : 16))
		return CUDA_ERROR_INVALID_VALUE;
	tensor.address = address;
	memcpy(tensorMap, &tensor, sizeof(tensor));
	return CUDA_SUCCESS;
}
