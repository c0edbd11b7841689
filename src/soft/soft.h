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
	uint64_t space_base, space_size; /* where its memory's addresses are to lie; 0: anywhere */
	bool no_device;      /* CUDA_VISIBLE_DEVICES hides it: cuInit answers CUDA_ERROR_NO_DEVICE */
};

/* Writes what FARWARP_SOFT_* say to *config; false after an error line if one of them cannot be read. */
bool sw_settings(struct sw_config *config);
/* "8.6" or "86" gives 86; 0 if it is neither. */
unsigned sw_settings_capability(const char *text);
/* "2G", "512M", "1.5GiB", plain bytes; false if it cannot be read or is 0. */
bool sw_settings_size(const char *text, uint64_t *bytes);

/*
 * Opens the device (no thread is started before the first work) and returns its operations, valid for the life of the process.
 * The client calls it once, from cuInit; *ops is written on success only. CUDA_ERROR_OUT_OF_MEMORY when the address range
 * cannot be reserved, CUDA_ERROR_NO_DEVICE, CUDA_ERROR_INVALID_VALUE for a capability outside the range.
 */
CUresult sw_open(const struct sw_config *config, const struct cuda_ops **ops);

/*
 * Memory that this process does not have but can ask for: addresses with the bit SW_FAR, valid as the host's side of a copy, whether it
 * runs now, in stream order or in a graph. Rows of `width` bytes, `pitch` bytes apart there, packed here. They may block; any thread.
 */
#define SW_FAR (1ull << 62)
struct sw_far {
	void (*read)(void *to, uint64_t from, uint64_t pitch, uint64_t width, uint64_t rows);
	void (*write)(uint64_t to, uint64_t pitch, const void *from, uint64_t width, uint64_t rows);
};
/* Before the first copy; without it such addresses are none. */
void sw_far_install(const struct sw_far *far);
/* The range itself, which the device's memory is in this process: NULL unless all of it is one allocation of device memory. */
void *sw_device_bytes(uint64_t address, uint64_t size);
/*
 * The calling thread's next cuEventRecord: when the record is done and the context has not failed, and nothing that kernels printed waits to be
 * taken, `number` is written to `at` (release) unless a newer record of the event was there first: before anything that waits for the event goes
 * on. NULL: nothing is written.
 */
void sw_mark_next_record(uint64_t *at, uint64_t number);
/* Where its addresses lie, once it is open. */
void sw_space_bounds(uint64_t *base, uint64_t *size);
/*
 * Managed memory and the variables of modules that have managed ones will lie in this file (a memfd of the space's size at least; the
 * descriptor is duplicated), each byte at its distance from the space's beginning: so another process can share it. To be called before
 * there is any: else CUDA_ERROR_ILLEGAL_STATE.
 */
CUresult sw_managed_file(int fd);

/* At process exit: flushes device printf, stops the workers. Later calls return CUDA_ERROR_DEINITIALIZED. */
void sw_close(void);

/* In the child of a fork: forgets everything without touching locks or threads of the parent. */
void sw_after_fork(void);

#endif
