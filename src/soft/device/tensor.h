/*
 * The 128 bytes of a CUtensorMap as this device writes them (tensor.c) and as whatever reads them must understand them. NVIDIA's own
 * layout is opaque; programs only pass the value on.
 */
#ifndef SW_TENSOR_H
#define SW_TENSOR_H

#include <stdint.h>

#define SW_TENSOR_MAGIC 0x776674u

struct sw_tensor {
	uint32_t magic : 24, mode : 8; /* mode: 0 tiled, 1 im2col, 2 im2col wide */
	uint8_t type, rank, interleave, swizzle;
	uint64_t address;
	uint32_t size[5];              /* elements less one, innermost first */
	uint32_t stride16[4];          /* bytes from index to index of dimension 1..4, in units of 16 bytes */
	uint16_t box[5];               /* tiled: elements; im2col: [0] channels, [1] pixels a column */
	uint8_t element_stride[5];
	uint8_t promotion, fill, wide_mode;
	int16_t lower[3], upper[3];    /* im2col: corners of the bounding box */
	uint8_t reserved[42];
};
_Static_assert(sizeof(struct sw_tensor) == 128, "a tensor map has 128 bytes");

#endif
