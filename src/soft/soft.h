/*
 * The software GPU as an implementation of struct cuda_ops: an honest CUDA device made of CPU cores.
 */
#ifndef SW_SOFT_H
#define SW_SOFT_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda_ops.h"

struct sw_config {
	uint32_t cc;         /* compute capability times 10: 86; 75 to 121 */
	uint64_t mem_bytes;  /* device memory; 0: from the machine's RAM */
	uint32_t sm_count;   /* 0: from the number of CPU cores */
	uint32_t threads;    /* worker threads; 0: as many as this process may run on */
	bool no_device;      /* CUDA_VISIBLE_DEVICES hides it: cuInit answers CUDA_ERROR_NO_DEVICE */
};

/*
 * Opens the device (no thread is started before the first work) and returns its operations, valid for the life of the process.
 * The client calls it once, from cuInit; *ops is written on success only. CUDA_ERROR_OUT_OF_MEMORY when the address range
 * cannot be reserved, CUDA_ERROR_NO_DEVICE, CUDA_ERROR_INVALID_VALUE for a capability outside the range.
 */
CUresult sw_open(const struct sw_config *config, const struct cuda_ops **ops);

/* At process exit: flushes device printf, stops the workers. Later calls return CUDA_ERROR_DEINITIALIZED. */
void sw_close(void);

/* In the child of a fork: forgets everything without touching locks or threads of the parent. */
void sw_after_fork(void);

#endif
