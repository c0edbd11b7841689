/*
 * What the files of the interpreter share about running things: functions, images, grids, blocks, barriers, and the table by which a
 * CPU level is called. Handlers of instructions need only isa.h; flow.c, decode.c, grid.c, image.c and exec.c see this.
 */
#ifndef SX_RUN_H
#define SX_RUN_H

#include <pthread.h>
#include <stdarg.h>

#include "soft/exec/isa.h"

#define SX_BARRIERS 16
#define SX_MAX_WARPS 32
#define SX_MAX_CLUSTER 16

/* A variable with its place, after linking. */
struct sx_symbol {
	struct sx_var var;
	const struct ptx_var *ast;
	struct sx_func *owner;    /* function-scope variables */
	uint32_t module;
	bool dynamic_shared;      /* .extern .shared x[]: behind the kernel's static shared memory */
	uint32_t shared_offset;   /* .shared ones: in the window */
	uint32_t users, order;    /* of lay_out_shared(): kernels that reach it, first come */
};

/* A function: the prepare() state is guarded by its image's lock; `prepared` is the release of it. */
struct sx_func {
	struct sx_func_info info;
	struct ptx_func *ast;
	struct sx_image *image;
	uint32_t module;
	const struct sx_code *code;      /* atomic: NULL until decoded */
	bool failed;                     /* decode failed: error says why */
	struct ptx_error error;
	struct sx_func **callees;        /* of the decoded body, direct ones and those whose address it takes */
	uint32_t callee_count;
	bool indirect;                   /* calls through a pointer */
	int32_t prepared;                /* atomic: 0 not yet, 1 ready, -1 failed */
	uint32_t lane_bytes;             /* kernels: local memory a lane, callees and stack included */
	bool needs_stack;                /* recursion or indirect calls: launch->stack_bytes more */
	uint32_t mark;                   /* of walks through the call graph */
	struct sx_symbol *locals;        /* by index in ast->locals */
};

struct sx_image {
	struct ptx_module **modules;
	size_t module_count;
	struct sx_target target;
	struct sx_func *funcs;           /* all with a body or declared, module by module */
	size_t func_count;
	uint32_t *func_base;             /* of each module's first in funcs */
	struct sx_symbol *symbols;       /* module-scope variables, likewise */
	size_t symbol_count;
	uint32_t *symbol_base;
	struct sx_symbol **resolved;     /* by symbol: the definition that the linker chose */
	struct sx_func **func_resolved;
	struct sx_func **kernels, **kernels_by_name;
	size_t kernel_count;
	const struct sx_symbol **exported; /* by name */
	size_t exported_count;
	void *memory;                    /* of global and constant variables */
	uint64_t const_base, const_bytes; /* the part with the constant ones */
	pthread_mutex_t lock;            /* decoding, call graphs */
	struct fw_arena arena;
	uint32_t mark;
};

/* The function or variable behind a symbol operand of a module; NULL if nothing defines it. */
struct sx_func *sx_image_func(const struct sx_image *image, uint32_t module, uint32_t index);
struct sx_symbol *sx_image_symbol(const struct sx_image *image, uint32_t module, uint32_t index);
/* The function whose address in kernels is this value, or NULL. */
struct sx_func *sx_image_func_at(const struct sx_image *image, uint64_t address);
/* Decodes one function if that is still to be done. NULL with func->error otherwise. Takes the image's lock. */
const struct sx_code *sx_func_code(struct sx_func *func);

enum sx_wait { SX_RUNNABLE, SX_WAIT_BARRIER /* + number */, SX_WAIT_CONVERGE = SX_WAIT_BARRIER + SX_BARRIERS, SX_WAIT_CLUSTER };

enum sx_warp_state {
	SX_WARP_BLOCKED, /* every fragment waits */
	SX_WARP_TICK,    /* many back edges: look whether to stop */
	SX_WARP_SPUN,    /* it seems to wait for someone else */
	SX_WARP_DONE,    /* no thread left */
	SX_WARP_STOPPED, /* fault or cancel */
};

struct sx_barrier {
	uint32_t full;     /* warps all of whose live lanes have arrived */
	uint32_t partial;  /* warps some of whose lanes have: see arrived */
	uint32_t waiting;  /* warps to wake */
	uint32_t parked;   /* those of them that wait as a whole: no fragment of theirs needs a look */
	uint32_t expected; /* threads, 0: all of the block */
	uint32_t count;    /* threads that have arrived, when expected */
	uint32_t popc;     /* bar.red: of this phase */
	bool all, any;
	uint32_t done_popc; /* of the last complete phase */
	bool done_all, done_any;
	uint32_t arrived[SX_MAX_WARPS];
};

struct sx_unit;

struct sx_block {
	struct sx_block_view view; /* must be first: sx_view() */
	struct sx_unit *unit;
	const struct sx_code *code;
	uint32_t warp_count;
	uint32_t ready;            /* warps that can run */
	uint32_t live_warps;
	uint32_t barriers_used;    /* bits: barriers with arrivals in their present phase */
	uint32_t done_warps;
	uint32_t events;           /* counts what may have helped a waiting warp: barrier releases, ends */
	uint32_t cluster_arrived[SX_MAX_WARPS];
	struct sx_barrier barriers[SX_BARRIERS];
	struct sx_frame *frame_free[32]; /* heap frames by size class, kept for the next block; linked by parent */
	struct sx_frame *frames_kept;    /* all of them */
	struct sx_warp *warps;
	struct sx_frame *roots;
	uint8_t *regs;
	uint64_t local_memory;     /* generic address of the block's local memory */
};

/* What the memory of a unit is laid out for; equal keys can share it. Compared as bytes. */
struct sx_layout {
	const struct sx_code *code;
	uint32_t frame_bytes, lane_bytes, shared_stride, unit_blocks;
	uint32_t block[3], cluster[3];
};

/* Blocks that are resident together on one worker: a cluster, or one block. The memory outlives the blocks and is used again. */
struct sx_unit {
	struct sx_unit *next;
	struct sx_layout shape;
	uint64_t grid_serial;      /* of the grid whose facts are in the views */
	uint32_t block_count;
	uint32_t spun_rounds;
	bool stuck_said;
	uint64_t linear;           /* index of the cluster (or block) in the grid */
	uint8_t *memory, *shared, *local;
	uint64_t memory_size, shared_size, local_size;
	uint64_t shared_at[SX_MAX_CLUSTER];
	struct sx_block *blocks[SX_MAX_CLUSTER];
};

/* Units that were claimed but not started. */
struct sx_range {
	uint64_t first, end;
	struct sx_range *next;
};

struct sx_grid {
	struct sx_launch launch;
	struct sx_func *func;
	const struct sx_code *code;
	const uint8_t *params;
	void *param_memory;               /* from sw_space_alloc, if kernels may see its address */
	void *workspace;                  /* cooperative launches: what %envreg1 and 2 point to */
	uint64_t serial;
	struct sx_layout shape;
	uint32_t threads, warps;          /* of a block */
	uint32_t clusters[3];             /* grid of clusters (or of blocks) */
	uint64_t unit_total;
	uint32_t shared_bytes;
	uint64_t next;                    /* atomic: next unit to claim */
	uint64_t progress;                /* atomic: units not ended, and threads in sx_grid_work: see grid.c */
	uint32_t stop;                    /* atomic: fault or cancel */
	uint32_t fault_claimed;           /* atomic: someone writes `fault` */
	bool stuck_said;
	pthread_mutex_t lock;             /* the next three */
	struct sx_unit *suspended, **suspended_tail;
	struct sx_range *leftovers;
	uint32_t waiting;                 /* atomic: suspended units plus leftover ranges, written with the lock held */
	uint32_t suspended_count;         /* atomic: likewise */
	struct sx_fault fault;            /* written by who claimed it; read when the grid has finished */
	uint8_t param_bytes[] __attribute__((aligned(64)));
};

struct sx_worker {
	struct sx_unit *free_units;
	uint32_t free_count;
};

/* Grid events that handlers cause. */
void sx_fault_record(struct sx_warp *w, const struct sx_insn *i, CUresult code, unsigned lane, uint64_t address,
                     const char *format, va_list args);
static inline bool
sx_stopped(const struct sx_grid *grid)
{
	return __atomic_load_n(&grid->stop, __ATOMIC_RELAXED) != 0;
}

/* fault.c: runs `body`; if a signal for a bad memory access arrives meanwhile, false with its address. */
bool sx_guarded(void (*body)(void *), void *argument, uint64_t *address, int *signal_number);

struct sx_decoded {
	struct sx_code *code;
	struct sx_func **callees;
	uint32_t callee_count;
	bool indirect;
};

/* A build of the interpreter for one CPU level. */
struct sx_backend {
	const char *name;
	/* Decodes a function; false with *error. Memory is from the image's arena, whose lock is held. */
	bool (*decode)(struct sx_func *func, struct sx_decoded *out, struct ptx_error *error);
	void (*run)(struct sx_warp *w);
};
extern const struct sx_backend sx_backend_generic;
extern const struct sx_backend sx_backend_v3;
extern const struct sx_backend sx_backend_v4;
const struct sx_backend *sx_backend(void);

#endif
