/*
 * The interpreter as the device sees it: link parsed modules into an image, describe its kernels, run a grid.
 *
 * It knows nothing of contexts, streams or handles. Memory comes from soft/space.h. Everything here is safe from any thread,
 * except that one sx_worker belongs to one thread.
 */
#ifndef SX_EXEC_H
#define SX_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <farwarp/cuda.h>

#include "soft/ptx/ptx.h"

struct sx_image;
struct sx_func;

/* What kernels and special registers see of the device. */
struct sx_target {
	uint32_t cc;               /* 86 */
	uint32_t sm_count;
	uint32_t max_shared_block; /* opt-in maximum per block, bytes */
};

struct sx_var { /* a module-scope variable that has memory */
	const char *name;
	uint64_t address, size;
	enum ptx_space space;
	bool managed, visible;
};

/*
 * Links parsed modules into an image and takes them over, also on failure. Cross-module names resolve as a linker does
 * (.visible before .weak before .common; .extern must be found, except device functions that are built in and
 * `allow_unresolved`, whose use then faults at launch). Variables get memory and their initial values.
 * Bodies are decoded at first use. NULL with *error (line, text) otherwise; error->text names the symbol.
 */
struct sx_image *sx_image_link(struct ptx_module **modules, size_t count, const struct sx_target *target,
                               struct ptx_error *error);
void sx_image_free(struct sx_image *image); /* no grid of it may be running */

size_t sx_image_kernel_count(const struct sx_image *image);
struct sx_func *sx_image_kernel(const struct sx_image *image, size_t index);
struct sx_func *sx_image_find_kernel(const struct sx_image *image, const char *name);
/* Any .visible or .weak function or kernel, for cuLibraryGetUnifiedFunction; NULL if there is none. */
struct sx_func *sx_image_find_func(const struct sx_image *image, const char *name);
const struct sx_var *sx_image_find_var(const struct sx_image *image, const char *name);
size_t sx_image_var_count(const struct sx_image *image);
const struct sx_var *sx_image_var(const struct sx_image *image, size_t index);

/* The 64-bit value that the address of a device function has in kernels. */
uint64_t sx_func_address(const struct sx_func *func);

struct sx_func_info {
	const char *name;
	uint32_t param_count, param_bytes;
	const struct ptx_param *params;
	uint32_t static_shared;   /* bytes */
	uint32_t local_bytes;     /* per thread, without callees' stack */
	uint32_t const_bytes;
	uint32_t registers;       /* an estimate, 16..255, never 0 */
	uint32_t max_threads;     /* per block, from .maxntid/.reqntid or 1024 */
	uint32_t reqntid[3];      /* 0: none */
	uint32_t cluster[3];      /* .reqnctapercluster, 0: none */
	uint32_t ptx_version, target;
	bool uses_clusters, uses_grid_sync;
};
const struct sx_func_info *sx_func_info(const struct sx_func *func);

/*
 * Decodes the kernel and what it calls, if not done yet. 0, or -1 with *error: the instruction form that is not known, with its
 * line. Called by a launch; cheap when done.
 */
int sx_func_prepare(struct sx_func *func, struct ptx_error *error);

struct sx_launch {
	struct sx_func *func;
	uint32_t grid[3], block[3];
	uint32_t cluster[3];       /* 1,1,1 without clusters */
	uint32_t dynamic_shared;   /* bytes */
	const void *params;        /* copied by sx_grid_new */
	uint32_t param_bytes;
	bool cooperative;          /* all blocks are kept resident */
	uint64_t grid_id;
	uint32_t stack_bytes;      /* CU_LIMIT_STACK_SIZE */
	uint32_t max_resident;     /* blocks that may be started and unfinished at a time (occupancy x SMs), at least 1 */
};

/* Why a grid ended early. `code` is what the device reports from then on. */
struct sx_fault {
	CUresult code;
	char kernel[128];
	char insn[160];
	uint32_t line;            /* in the PTX text */
	uint32_t block[3], thread[3];
	uint64_t address;
	char text[256];           /* one line for the log */
};

struct sx_grid;
struct sx_worker;

struct sx_worker *sx_worker_new(void);  /* a thread's memory for blocks; NULL when out of memory */
void sx_worker_free(struct sx_worker *worker);

/* sx_func_prepare() must have succeeded. NULL when out of memory. */
struct sx_grid *sx_grid_new(const struct sx_launch *launch);
void sx_grid_free(struct sx_grid *grid);

enum sx_progress {
	SX_NO_WORK,  /* nothing left to claim for this worker now; others still run blocks */
	SX_YIELDED,  /* the time slice ended with blocks unfinished: call again, after others had their turn */
	SX_FINISHED, /* the last block of the grid ended in this call (returned exactly once a grid) */
};

/*
 * Runs blocks of the grid on this thread, in increasing order of block index, until none is left or, when blocks are suspended
 * (waiting for others at a grid barrier or in a spin loop), `slice_us` have passed. Any number of threads may call it at once.
 */
enum sx_progress sx_grid_work(struct sx_grid *grid, struct sx_worker *worker, uint32_t slice_us);

/* How many threads could usefully call sx_grid_work now. */
uint32_t sx_grid_parallelism(const struct sx_grid *grid);

/* Stops the grid at the next back edge (device reset, process exit). */
void sx_grid_cancel(struct sx_grid *grid);

/* NULL if the grid had no fault; valid after SX_FINISHED until sx_grid_free. */
const struct sx_fault *sx_grid_fault(const struct sx_grid *grid);

/* Which build of the interpreter runs: "x86-64-v4", "x86-64-v3", "generic". */
const char *sx_isa_name(void);

#endif
