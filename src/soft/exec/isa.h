/*
 * The interpreter's insides: what the decoder emits and what instruction handlers see.
 *
 * decode.c, flow.c, alu_*.c, mem.c, warp.c ... are compiled once for each CPU level (generic, x86-64-v3, x86-64-v4), as the three
 * translation units isa_core.c, isa_alu.c and isa_mem.c; what they share has the level in its symbol, the rest is static. exec.c picks
 * a level at run time through struct sx_backend.
 *
 * Values. A warp's registers are arrays of 32 lanes:
 *   .b8 .b16 .b32 (and what fits): uint32_t[32]; 8- and 16-bit values are kept ZERO-EXTENDED in their slot
 *   .b64: uint64_t[32]      .b128: uint64_t[2][32], low halves first      .pred: one uint32_t, a bit a lane
 * An operand in struct sx_insn is a byte offset: into the frame's registers, or, with bit 31 set, into the function's
 * constant pool (immediates, spread to 32 lanes when decoded). Vector slots are 64-byte aligned.
 *
 * Masks. w->exec are the lanes that execute. w->all says that exec covers every lane that lives in this frame, so a handler may
 * compute and store all 32 lanes (lanes without a thread hold garbage); otherwise lanes outside exec must keep their value.
 * A guard (@p) is a prefix instruction that narrows exec for one instruction: handlers never look at guards.
 */
#ifndef SX_ISA_H
#define SX_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "soft/exec/exec.h"
#include "soft/space.h"

#define SX_LANES 32
#define SX_POOL 0x80000000u /* operand bit: constant pool */
#define SX_NO_REG 0x7fffffffu /* destination "_" or absent */

struct sx_warp;
struct sx_insn;

/* Executes one instruction; returns the next one (i + 1 for all but control flow), or NULL to leave the loop: the warp waits,
 * yields, ended or faulted, and flow.c has recorded which. Handlers other than flow.c's return i + 1 or sx_raise(). */
typedef const struct sx_insn *(*sx_fn)(struct sx_warp *w, const struct sx_insn *i);

struct sx_insn {
	sx_fn fn;
	uint32_t d, a, b, c; /* operands, meaning by handler: destination, sources */
	uint32_t e, f;       /* further operands (second destination, fourth source) */
	union {
		int64_t imm;     /* address offset, shift, ... */
		const struct sx_insn *target;
		void *ptr;
	};
	uint32_t aux;        /* the handler's own: a sub-operation, a width, a mask */
	uint32_t src;        /* index of the PTX instruction in its function, for messages */
};

/* A called function's (or the kernel's) registers. Lanes that diverge inside one call share it. */
struct sx_frame {
	struct sx_frame *parent;
	const struct sx_code *code;
	const struct sx_insn *ret;  /* where the caller goes on; ret[-1] is the call */
	uint32_t live;              /* lanes that have not returned or exited */
	uint32_t local_offset;      /* of this frame's .local variables in each lane's stack */
	uint32_t stack_bytes;       /* local memory taken by alloca, above the variables */
	uint32_t depth;
	uint8_t *regs;              /* code->frame_bytes, 64-byte aligned */
	struct sx_frame *kept;      /* heap frames of the block, in use or not */
};

/* A register that holds the same in all blocks of a grid. It has a slot of its own, filled before the first block runs. */
struct sx_fixed {
	enum { SX_FIXED_PARAM, SX_FIXED_VIEW, SX_FIXED_TID } kind;
	uint32_t bits;   /* 32 or 64 */
	uint32_t slot;   /* in the kernel's frame */
	uint32_t offset; /* in the parameters, in the block's view, or 0 to 2 for %tid.x to z */
};

/* A decoded function. */
struct sx_code {
	struct sx_func *func;
	struct sx_insn *insns;
	uint32_t insn_count;
	uint8_t *pool;              /* constants */
	uint32_t frame_bytes;       /* registers and call parameter space of a frame */
	uint32_t local_bytes;       /* per lane */
	bool param_address;         /* a kernel that takes the address of its parameters */
	const struct sx_fixed *fixed; /* kernels */
	uint32_t fixed_count;
	uint32_t param_base, return_base; /* device functions: frame offset of the first word of parameters and return values */
};

struct sx_block; /* run.h: a running thread block */

/* Lanes of a warp that are together but do not run now. */
struct sx_fragment {
	struct sx_frame *frame;
	const struct sx_insn *pc;
	uint32_t mask;
	uint32_t wait;          /* enum sx_wait; runnable if 0 */
	uint32_t need;          /* SX_WAIT_CONVERGE: lanes that it waits for */
	uint32_t stamp;         /* when it last ran */
};

struct sx_warp {
	const uint8_t *base[2]; /* [0] the frame's registers, [1] its function's pool: index is operand bit 31 */
	uint32_t exec;          /* lanes that execute this instruction */
	bool all;               /* exec covers all live lanes of the frame */
	bool spinning;          /* set by atomics, volatile or acquire loads and nanosleep: back edges then yield sooner */
	uint32_t mask;          /* lanes of the running fragment: exec without guards */
	struct sx_frame *frame;
	struct sx_block *block;
	uint32_t index;         /* of the warp in its block */
	uint32_t live;          /* lanes that have a thread which has not exited */
	uint64_t local_base;    /* generic address of lane 0's local memory */
	uint32_t local_stride;  /* bytes a lane */
	const uint32_t *tid[3]; /* %tid.x .y .z of each lane */
	const struct sx_insn *now; /* the instruction being executed, for faults */

	/* flow.c's own state from here on */
	const struct sx_insn *wake; /* lowest waiting pc above the running one in this frame; code that reaches it must merge */
	int32_t budget;         /* back edges until the warp looks around */
	uint32_t state;         /* enum sx_warp_state, why the loop was left */
	const struct sx_insn *pc; /* where the running fragment goes on; NULL: pick one */
	bool rotated;           /* the running fragment is not the one that comes first in the code */
	uint32_t frag_count;
	uint32_t stamp, ticks;
	struct sx_frame *root;  /* the kernel's frame */
	uint64_t frame_bytes;   /* heap frames in use */
	struct sx_fragment frags[SX_LANES];
};

/* What handlers may know of the block. */
struct sx_block_view {
	uint64_t shared_base;        /* generic address of this block's shared window */
	uint32_t shared_bytes;       /* static + dynamic */
	uint32_t ctaid[3];
	uint32_t linear;             /* block index in the grid, x fastest */
	uint32_t cluster_rank;       /* %cluster_ctarank */
	const struct sx_launch *launch;
	const uint8_t *params;       /* kernel parameters, generic address */
	struct sx_grid *grid;
	/* shared windows of the cluster's blocks by rank; [cluster_rank] is this block's. 32-bit shared::cluster addresses carry
	 * rank + 1 in bits 24..31, 0 there means this block. */
	const uint64_t *cluster_shared;
	uint32_t cluster_size;
	uint32_t smid;
	uint32_t ntid[3], nctaid[3];
	uint32_t clusterid[3], nclusterid[3], cluster_ctaid[3], cluster_nctaid[3];
	uint64_t const_base, const_bytes; /* the image's .const variables, for isspacep */
	uint32_t dynamic_shared, dynamic_offset; /* bytes, and where they begin in the window */
};

static inline const struct sx_block_view *
sx_view(const struct sx_warp *w)
{
	return (const struct sx_block_view *)w->block; /* struct sx_block begins with its view */
}

/* ---- operands --------------------------------------------------------------------------------------------------- */

static inline const void *
sx_src(const struct sx_warp *w, uint32_t operand)
{
	return w->base[operand >> 31] + (operand & 0x7fffffff);
}
static inline void *
sx_dst(const struct sx_warp *w, uint32_t operand)
{
	return (void *)(w->base[0] + operand);
}
#define SX_S32(w, op) ((const uint32_t *)__builtin_assume_aligned(sx_src(w, op), 64))
#define SX_S64(w, op) ((const uint64_t *)__builtin_assume_aligned(sx_src(w, op), 64))
#define SX_D32(w, op) ((uint32_t *)__builtin_assume_aligned(sx_dst(w, op), 64))
#define SX_D64(w, op) ((uint64_t *)__builtin_assume_aligned(sx_dst(w, op), 64))
#define SX_SP(w, op) (*(const uint32_t *)sx_src(w, op)) /* predicate as a lane mask */
#define SX_DP(w, op) (*(uint32_t *)sx_dst(w, op))

/* Stores 32 results with respect to exec. `result` may be computed for all lanes. */
static inline void
sx_put32(const struct sx_warp *w, uint32_t operand, const uint32_t *restrict result)
{
	uint32_t *d = SX_D32(w, operand);
	if (w->all) {
		memcpy(d, result, 4 * SX_LANES);
	} else {
		for (int l = 0; l < SX_LANES; l++)
			d[l] = (w->exec >> l & 1) ? result[l] : d[l];
	}
}
static inline void
sx_put64(const struct sx_warp *w, uint32_t operand, const uint64_t *restrict result)
{
	uint64_t *d = SX_D64(w, operand);
	if (w->all) {
		memcpy(d, result, 8 * SX_LANES);
	} else {
		for (int l = 0; l < SX_LANES; l++)
			d[l] = (w->exec >> l & 1) ? result[l] : d[l];
	}
}
static inline void
sx_put_pred(const struct sx_warp *w, uint32_t operand, uint32_t bits)
{
	uint32_t *d = &SX_DP(w, operand);
	*d = (*d & ~w->exec) | (bits & w->exec);
}

#ifdef SX_LEVEL /* the rest is for the files that are compiled for each level */

/* The name of a shared function at this level. */
#define SX_PASTE2(name, level) name##_##level
#define SX_PASTE(name, level) SX_PASTE2(name, level)
#define SX_AT_LEVEL(name) SX_PASTE(name, SX_LEVEL)
#define sx_decode_flow SX_AT_LEVEL(sx_decode_flow)
#define sx_decode_alu SX_AT_LEVEL(sx_decode_alu)
#define sx_decode_mem SX_AT_LEVEL(sx_decode_mem)
#define sx_decode_warp SX_AT_LEVEL(sx_decode_warp)
#define sx_decode_video SX_AT_LEVEL(sx_decode_video)
#define sxd_emit SX_AT_LEVEL(sxd_emit)
#define sxd_emit_converge SX_AT_LEVEL(sxd_emit_converge)
#define sxd_src SX_AT_LEVEL(sxd_src)
#define sxd_dst SX_AT_LEVEL(sxd_dst)
#define sxd_bits SX_AT_LEVEL(sxd_bits)
#define sxd_temp SX_AT_LEVEL(sxd_temp)
#define sxd_cc SX_AT_LEVEL(sxd_cc)
#define sxd_const32 SX_AT_LEVEL(sxd_const32)
#define sxd_const64 SX_AT_LEVEL(sxd_const64)
#define sxd_const_pred SX_AT_LEVEL(sxd_const_pred)
#define sxd_address SX_AT_LEVEL(sxd_address)
#define sx_builtins SX_AT_LEVEL(sx_builtins)
#define sxd_keep SX_AT_LEVEL(sxd_keep)
#define sxd_func SX_AT_LEVEL(sxd_func)
#define sxd_target SX_AT_LEVEL(sxd_target)
#define sxd_fail SX_AT_LEVEL(sxd_fail)
#define sx_raise SX_AT_LEVEL(sx_raise)

/* ---- faults ------------------------------------------------------------------------------------------------------ */

/* Records a fault of this instruction (the first one of the grid wins) and ends the grid; handlers `return` its value. */
const struct sx_insn *sx_raise(struct sx_warp *w, const struct sx_insn *i, CUresult code, unsigned lane,
                                      uint64_t address, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

struct sx_decoder; /* decode.c */

/*
 * One of these per group of instructions; each looks at in->op and the modifiers, emits one or more struct sx_insn and returns true,
 * or returns false when the form is not one of its own. Operand counts and kinds must be checked: the text is foreign.
 */
bool sx_decode_flow(struct sx_decoder *d, const struct ptx_insn *in); /* flow.c: bra call ret exit bar barrier trap ... */
bool sx_decode_alu(struct sx_decoder *d, const struct ptx_insn *in);  /* alu_*.c: arithmetic, logic, compare, convert, mov */
bool sx_decode_mem(struct sx_decoder *d, const struct ptx_insn *in);  /* mem.c: ld st atom red cvta isspacep cp.async ... */
bool sx_decode_warp(struct sx_decoder *d, const struct ptx_insn *in); /* warp.c: shfl vote match redux activemask elect ... */
bool sx_decode_video(struct sx_decoder *d, const struct ptx_insn *in); /* video.c: vadd vset4 ... */

/* Appends an instruction, zeroed but for fn and src. The pointer is valid until the next sxd_ call. */
struct sx_insn *sxd_emit(struct sx_decoder *d, sx_fn fn);
/* Before a *.sync instruction: waits until all lanes of the member mask (a 32-bit source operand) have arrived or exited. */
void sxd_emit_converge(struct sx_decoder *d, uint32_t member_mask);
/* A source operand as the handler reads it. `type` says how an immediate is spread (its width, and float bits for f types);
 * a register's own class decides its slot. Symbols give their address, special registers are read into a temporary first.
 * Negated predicates are computed into a temporary. On a kind that cannot be a source, marks the function bad. */
uint32_t sxd_src(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_type type);
/* A destination register, or SX_NO_REG for "_". */
uint32_t sxd_dst(struct sx_decoder *d, const struct ptx_operand *operand);
/* Declared bits of a register operand: 1 for .pred, 8, 16, 32, 64, 128; for an immediate or symbol 0. */
unsigned sxd_bits(struct sx_decoder *d, const struct ptx_operand *operand);
/* A fresh temporary of 1, 32, 64 or 128 bits. */
uint32_t sxd_temp(struct sx_decoder *d, unsigned bits);
/* The condition code register CC.CF of the function: a lane mask in the frame, for the carry chains. */
uint32_t sxd_cc(struct sx_decoder *d);
/* A pool constant spread to all lanes: 32- or 64-bit slot. */
uint32_t sxd_const32(struct sx_decoder *d, uint32_t value);
uint32_t sxd_const64(struct sx_decoder *d, uint64_t value);
uint32_t sxd_const_pred(struct sx_decoder *d, bool value);

/* Where a memory operand points. */
struct sxd_address {
	enum { SXD_UNIFORM, /* a known generic (or space-relative) address: imm alone */
		SXD_REG32, SXD_REG64, /* register (a 32- or 64-bit slot) + imm */
		SXD_PARAM, /* kernel parameter: byte offset imm in the parameter buffer */
		SXD_FRAME, /* a .param variable of a call or of a device function: frame offset `reg` of its first word, byte offset imm;
		            * 8-byte word k of lane l is ((uint64_t *)(base + reg))[k * 32 + l] */
		SXD_LOCAL, /* a .local variable: byte offset imm in this frame's local memory (add w->frame->local_offset) */
		SXD_BAD } kind;
	uint32_t reg;
	int64_t imm;
	enum ptx_space space; /* that the address is relative to; PTX_SPACE_NONE generic. Shared ones are window offsets. */
};
struct sxd_address sxd_address(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_space space);

/*
 * Device functions that the interpreter provides (vprintf, malloc, __assertfail ...); builtin.c has the table, ended by a NULL name.
 * args[n] points to argument n: its 8-byte word k in lane l is args[n][k * 32 + l], smaller values zero-extended; likewise result,
 * which is NULL when the caller takes none. Works for the lanes of w->exec. Returns i + 1 or sx_raise().
 */
struct sx_builtin {
	const char *name;
	uint32_t arg_count;
	const struct sx_insn *(*call)(struct sx_warp *w, const struct sx_insn *i, const uint64_t *const *args, uint64_t *result);
};
#define SX_BUILTIN_ARGS 8
const struct sx_builtin *sx_builtins(void);

/* A copy of a value that lives as long as the code, for an instruction's ptr; out of memory: NULL and the function is bad. */
void *sxd_keep(struct sx_decoder *d, const void *value, size_t size);
/* The function being decoded and its image's target. */
const struct ptx_func *sxd_func(const struct sx_decoder *d);
const struct sx_target *sxd_target(const struct sx_decoder *d);
/* Marks the function as undecodable; the text is reported when a kernel that uses it is launched. The first one wins. */
void sxd_fail(struct sx_decoder *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

static inline bool
sxd_is(const struct ptx_insn *in, const char *op)
{
	return strcmp(in->op, op) == 0;
}

#endif
