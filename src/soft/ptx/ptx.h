/*
 * PTX text as a tree: what the parser produces and everything behind it reads.
 *
 * The parser knows the grammar of PTX ISA 3.2 to 9.1, not the meaning of instructions: every opcode with any modifiers
 * parses into struct ptx_insn, and only the decoder of a kernel that is launched decides whether a form exists. It does
 * resolve names: registers, labels, variables, functions, prototypes. All memory of a module is in its arena.
 */
#ifndef SW_PTX_H
#define SW_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

/* Fundamental types (PTX ISA 5.2) and the packed and alternate ones that appear as instruction types. */
#define PTX_TYPES(X) \
	X(none, 0) X(b8, 8) X(b16, 16) X(b32, 32) X(b64, 64) X(b128, 128) X(u8, 8) X(u16, 16) X(u32, 32) X(u64, 64) \
	X(s8, 8) X(s16, 16) X(s32, 32) X(s64, 64) X(f16, 16) X(f16x2, 32) X(bf16, 16) X(bf16x2, 32) X(f32, 32) X(f64, 64) \
	X(f32x2, 64) X(tf32, 32) X(e4m3, 8) X(e5m2, 8) X(e4m3x2, 16) X(e5m2x2, 16) X(e4m3x4, 32) X(e5m2x4, 32) \
	X(e2m3x2, 16) X(e3m2x2, 16) X(e2m1x2, 8) X(e2m3x4, 32) X(e3m2x4, 32) X(e2m1x4, 16) X(ue8m0x2, 16) \
	X(e2m1, 4) X(e2m3, 6) X(e3m2, 6) X(ue8m0, 8) X(ue4m3, 8) X(s2f6x2, 16) X(u8x4, 32) X(s8x4, 32) X(u16x2, 32) X(s16x2, 32) X(u4, 4) X(s4, 4) X(b1, 1) X(pred, 1) \
	X(texref, 64) X(samplerref, 64) X(surfref, 64)
enum ptx_type {
#define X(name, bits) PTX_##name,
	PTX_TYPES(X)
#undef X
	PTX_TYPE_COUNT
};
extern const uint8_t ptx_type_bits[PTX_TYPE_COUNT];
extern const char *const ptx_type_names[PTX_TYPE_COUNT]; /* "s32", without the dot */

enum ptx_space { PTX_SPACE_NONE, PTX_SPACE_REG, PTX_SPACE_CONST, PTX_SPACE_GLOBAL, PTX_SPACE_LOCAL, PTX_SPACE_PARAM,
	PTX_SPACE_SHARED, PTX_SPACE_TEX };

enum ptx_linkage { PTX_LINK_NONE, PTX_LINK_EXTERN, PTX_LINK_VISIBLE, PTX_LINK_WEAK, PTX_LINK_COMMON };

/* An address that an initialiser contains; the loader adds the symbol's final address. */
struct ptx_reloc {
	uint64_t offset;     /* byte offset in the variable */
	uint8_t size;        /* bytes to write: 4 or 8, or 1 with mask() */
	uint8_t shift;       /* mask(0xFF<<shift) initialisers write byte (address >> shift); else 0 */
	bool generic;        /* generic(symbol): the generic address, else the address in the symbol's own space */
	const char *symbol;  /* variable or function */
	int64_t addend;
	int line;
};

/* A variable in module scope or function scope (.local, .shared, .param, ...). */
struct ptx_var {
	const char *name;
	enum ptx_space space;
	enum ptx_linkage linkage;
	enum ptx_type type;
	uint32_t vector;       /* 1, 2, 4 (8) for .v2 .v4 ... */
	uint32_t align;        /* bytes, explicit or natural */
	uint64_t size;         /* bytes, 0 for an array of unknown bound (.extern .shared x[]) */
	bool unsized;          /* declared with [] */
	bool managed;          /* .attribute(.managed) */
	bool ptr_align_given;
	const uint8_t *init;   /* `size` bytes, or NULL: zeros */
	struct ptx_reloc *relocs;
	uint32_t reloc_count;
	int line;
	uint32_t index;        /* position in its list (module vars, function locals) */
};

struct ptx_param {
	const char *name;
	enum ptx_type type;
	uint32_t align;
	uint32_t size;    /* bytes; a .b8 array has its length */
	uint32_t offset;  /* in the parameter buffer, computed by the parser: each aligned to its own alignment */
	bool is_array;
	bool in_reg;      /* declared .reg (device functions of older PTX) */
	uint32_t reg;     /* its register number when in_reg */
	enum ptx_space ptr_space; /* .ptr .global etc., NONE if not said */
};

/* A register; numbered over the whole function, %r<10> expands to ten. */
struct ptx_reg {
	enum ptx_type type; /* .pred, .b16, .u32, ... as declared */
	uint32_t name;      /* index into func->reg_names, and number within it, for messages */
	uint32_t number;    /* or PTX_REG_PLAIN, or PTX_REG_X + 0..3: a component of a vector register, each a register here */
};
#define PTX_REG_PLAIN 0xffffffffu
#define PTX_REG_X 0xfffffff0u

enum ptx_operand_kind {
	PTX_OP_NONE,
	PTX_OP_REG,     /* register; .negate: !p or -r (old forms) */
	PTX_OP_IMM,     /* integer literal */
	PTX_OP_FLOAT,   /* floating literal: 0f/0d hex or decimal; imm holds the 64-bit double pattern; is_f32 said 0fXXXXXXXX */
	PTX_OP_SPECIAL, /* %tid.x and the like */
	PTX_OP_SYMBOL,  /* variable or function name, plus offset: its address as a value */
	PTX_OP_ADDRESS, /* [base + offset]: base register, symbol, or none (absolute) */
	PTX_OP_LABEL,   /* branch target, index into func->labels */
	PTX_OP_VECTOR,  /* {a, b, ...}: elements in elems */
	PTX_OP_LIST,    /* (a, b, ...): call argument and return lists */
	PTX_OP_TARGETS, /* name of a .branchtargets, .calltargets or .callprototype */
	PTX_OP_SINK,    /* _ */
};

/* What a name that is not a register means. */
enum ptx_symbol_kind { PTX_SYM_NONE, PTX_SYM_MODULE_VAR, PTX_SYM_LOCAL_VAR, PTX_SYM_PARAM, PTX_SYM_RETURN_PARAM,
	PTX_SYM_FUNC, PTX_SYM_UNRESOLVED };

struct ptx_operand {
	uint8_t kind;      /* enum ptx_operand_kind */
	uint8_t negate;    /* !p */
	uint8_t component; /* SPECIAL: 0 none, 1..4 = .x .y .z .w. REG of a video instruction: 'b' or 'h' with selector .b0, .h1,
	                    * .b7654 ...: imm holds its digits, 4 bits each, the last one lowest; count says how many. Vector
	                    * registers have none: each component is a register. */
	uint8_t is_f32;    /* PTX_OP_FLOAT written as 0f */
	uint8_t symbol_kind;
	uint8_t special;   /* enum ptx_special; component in `component` */
	uint8_t base_is_reg; /* ADDRESS: base is register `reg`, else a symbol, or neither */
	uint32_t reg;      /* REG, or base of ADDRESS */
	uint32_t symbol;   /* index of the variable, parameter, function or label */
	const char *name;  /* SYMBOL, ADDRESS with a symbol, TARGETS, unresolved ones */
	int64_t imm;       /* IMM value; FLOAT bit pattern of the double; offset of SYMBOL and ADDRESS */
	uint32_t count;    /* elements of VECTOR and LIST; ADDRESS: operands after the comma ([a, {x, y}], [tex, sampler, {x, y}]) */
	struct ptx_operand *elems;
	struct ptx_operand *second; /* p|q : the q */
};

#define PTX_MAX_MODS 16
#define PTX_MAX_OPERANDS 12

/* opcode.mod.mod.type.type a, b, c; */
struct ptx_insn {
	const char *op;                  /* "add"; interned: equal opcodes have equal pointers within the process */
	const char *const *mods;         /* every modifier in order without the dot, types included, interned; then "" */
	uint8_t mod_count;               /* up to PTX_MAX_MODS */
	uint8_t type_count;
	uint8_t types[6];                /* the first six of mods that are types, in order (enum ptx_type) */
	uint8_t operand_count;
	bool guarded, guard_negated;     /* @p, @!p */
	uint32_t guard;                  /* register */
	uint32_t line;                   /* in the PTX text, from 1 */
	uint32_t loc;                    /* index+1 into func->module->locs of the .loc before it, 0 none */
	struct ptx_operand *operands;
};

struct ptx_label {
	const char *name;
	uint32_t insn; /* index of the instruction that it stands before (== insn_count: the end) */
	bool used;     /* something branches to it; debug information leaves many that nothing does */
};

/* .branchtargets, .calltargets, .callprototype */
struct ptx_targets {
	const char *name;
	enum { PTX_BRANCH_TARGETS, PTX_CALL_TARGETS, PTX_CALL_PROTOTYPE } kind;
	const char **names; /* labels or functions */
	uint32_t *labels;   /* for branch targets: label indices */
	uint32_t count;
	struct ptx_param *params, *returns; /* prototype */
	uint32_t param_count, return_count;
};

struct ptx_func {
	const char *name;
	struct ptx_module *module;
	bool entry;            /* .entry: a kernel */
	bool has_body;
	bool noreturn;
	enum ptx_linkage linkage;
	struct ptx_param *params, *returns;
	uint32_t param_count, return_count;
	uint32_t param_bytes;  /* of the parameter buffer, unpadded end of the last parameter */
	uint32_t maxntid[3];   /* 0: not given */
	uint32_t reqntid[3];
	uint32_t maxnreg, minnctapersm, maxnctapersm;
	uint32_t reqnctapercluster[3];
	uint32_t maxclusterrank;
	bool explicitcluster, blocksareclusters;
	struct ptx_reg *regs;
	uint32_t reg_count;
	const char **reg_names;
	struct ptx_var *locals; /* .local, .shared, .param, .const, .global declared inside the body */
	uint32_t local_count;
	struct ptx_label *labels;
	uint32_t label_count;
	struct ptx_targets *targets;
	uint32_t target_count;
	struct ptx_insn *insns;
	uint32_t insn_count;
	int line;
	uint32_t index;
	const char *alias_of;   /* .alias */
};

struct ptx_loc { uint32_t file, line, column; };
struct ptx_file { uint32_t number; const char *name; };

struct ptx_module {
	struct fw_arena arena;
	uint32_t version;        /* 10 * major + minor: 90 is PTX ISA 9.0 */
	uint32_t target;         /* 75 for sm_75 */
	char target_suffix;      /* 'a' or 'f' for sm_90a, sm_100f; else 0 */
	uint32_t address_size;   /* 32 or 64 */
	bool debug;
	struct ptx_var *vars;
	uint32_t var_count;
	struct ptx_func *funcs;
	uint32_t func_count;
	struct ptx_loc *locs;
	uint32_t loc_count;
	struct ptx_file *files;
	uint32_t file_count;
};

/* Special registers (PTX ISA 10). */
#define PTX_SPECIALS(X) \
	X(tid) X(ntid) X(laneid) X(warpid) X(nwarpid) X(ctaid) X(nctaid) X(smid) X(nsmid) X(gridid) \
	X(is_explicit_cluster) X(clusterid) X(nclusterid) X(cluster_ctaid) X(cluster_nctaid) X(cluster_ctarank) \
	X(cluster_nctarank) X(lanemask_eq) X(lanemask_le) X(lanemask_lt) X(lanemask_ge) X(lanemask_gt) \
	X(clock) X(clock_hi) X(clock64) X(pm) X(pm64) X(envreg) X(globaltimer) X(globaltimer_lo) X(globaltimer_hi) \
	X(reserved_smem_offset_begin) X(reserved_smem_offset_end) X(reserved_smem_offset_cap) \
	X(reserved_smem_offset) X(total_smem_size) X(aggr_smem_size) X(dynamic_smem_size) X(current_graph_exec)
enum ptx_special {
#define X(name) PTX_SR_##name,
	PTX_SPECIALS(X)
#undef X
	PTX_SR_COUNT
};
extern const char *const ptx_special_names[PTX_SR_COUNT]; /* "tid" */
/* For %pm<i>, %envreg<i>, %reserved_smem_offset_<i> the number is in operand.imm. */

struct ptx_error {
	int line;        /* 0: not tied to a line */
	char text[256];  /* without the line */
};

/* Largest PTX text, module memory and nesting that the parser takes. */
#define PTX_MAX_TEXT ((size_t)1 << 30)

/*
 * Parses `size` bytes of PTX text (a NUL inside or at the end ends it). Returns the module, or NULL with *error filled:
 * a syntax error or unknown name. Thread-safe. Free with ptx_free.
 */
struct ptx_module *ptx_parse(const char *text, size_t size, struct ptx_error *error);
void ptx_free(struct ptx_module *module);

/* True if the instruction has this modifier (interned or not). */
bool ptx_has(const struct ptx_insn *insn, const char *modifier);

/* The 32-bit pattern of a PTX_OP_FLOAT operand: exact for 0f literals, NaNs included; others are rounded. */
uint32_t ptx_f32_bits(const struct ptx_operand *operand);

/* Writes an instruction as text, for messages: "add.s32 %r1, %r2, 3". Always terminated. */
void ptx_print_insn(const struct ptx_func *func, const struct ptx_insn *insn, char *buffer, size_t size);

/* Only the directives at the top: version, target, suffix. 0, or -1 when it is no PTX. Reads at most the first 64 KiB. */
int ptx_peek(const char *text, size_t size, uint32_t *version, uint32_t *target, char *suffix);

/* Returns the interned copy of a string; process lifetime; only for opcodes and modifiers. */
const char *ptx_intern(const char *text, size_t length);

#endif
