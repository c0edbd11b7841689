/*
 * A limit of device memory around any struct cuda_ops: an allocation beyond it answers CUDA_ERROR_OUT_OF_MEMORY, and what the device says of
 * its memory is what the limit leaves of it.
 *
 * Counted is what a program asks for: allocations, arrays, physical memory (until it is released and unmapped), and what pools keep back.
 * Not counted is what the driver takes for itself: contexts, code and variables of modules, printf buffers.
 */
#ifndef LAYERS_QUOTA_H
#define LAYERS_QUOTA_H

#include <stdint.h>

#include "cuda_ops.h"

/* The operations of `inner` with a limit of `bytes`. Once a process; valid for its life. */
const struct cuda_ops *quota_open(const struct cuda_ops *inner, uint64_t bytes);

#endif
