/*
 * From a parsed function to code: the services that the sx_decode_* groups use (operands, constants, addresses, branches), the layout
 * of a frame, and the walk over the body in an order in which lanes that diverged meet again.
 *
 * It knows control flow (bra, brx, ret, exit end a basic block) and nothing of any other instruction. Part of isa_core.c.
 *
 * A frame:  parameters | return values | .param variables of calls (8-byte words x 32 lanes) | registers | temporaries
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "soft/exec/order.h"
#include "soft/exec/run.h"

#define SXD_WORD (8u * SX_LANES) /* bytes of one parameter word of all lanes */
#define SXD_FRAME_MAX (64u << 20)
#define SXD_NONE UINT32_MAX

/* A stretch of PTX instructions with one entry and one exit. Block n's instructions are [first, end). */
struct sxd_block {
	uint32_t first, end;
	uint32_t position; /* in the layout */
	uint32_t out;      /* index of its first instruction, behind the join check */
	bool joined;       /* some branch jumps forward to it */
	bool falls;        /* its end goes on to the next instruction */
};

struct sxd_fix { /* instruction whose target is the start of a block, or another instruction */
	uint32_t insn, block, to;
};

/* The targets of a brx.idx, as blocks until the code has its place. */
struct sxd_table {
	struct sxd_table *next;
	uint32_t count;
	uint32_t *blocks;
	const struct sx_insn **targets;
};

struct sx_decoder {
	struct sx_func *func;
	const struct ptx_func *ast;
	struct sx_image *image;
	const struct ptx_insn *in;   /* the one being decoded */
	uint32_t src;                /* its index */
	bool flow;                   /* it contains control flow, so a guard must be a branch around it */
	bool bad;
	struct ptx_error *error;

	struct sx_insn *insns;
	uint32_t count, capacity;
	uint8_t *pool;
	uint32_t pool_used, pool_capacity;
	struct sxd_const { uint64_t value; uint32_t offset, kind; } *constants; /* open hash */
	uint32_t constant_count, constant_capacity;

	struct sxd_fix *fixes;
	uint32_t fix_count, fix_capacity;
	struct sxd_table *tables;
	struct sxd_block *blocks;
	uint32_t block_count;
	uint32_t *order;             /* layout position to block */
	uint32_t *edge_first, *edges; /* the graph of blocks */
	uint32_t *block_first, *block_last; /* places of their instructions in the layout */
	uint32_t *block_of;          /* instruction to block; [insn_count] is the end block */

	bool recording;              /* first pass: the code is thrown away, what it reads and writes is kept */
	struct sx_ref *refs;
	uint32_t ref_count, ref_capacity, ref_start; /* start: of the present instruction's */
	uint32_t place, place_block;

	struct sx_fixed *fixed;      /* kernels: registers filled before blocks run ... */
	uint32_t fixed_count, fixed_capacity;
	bool *elided;                /* ... and the instructions that would have set them */

	uint32_t *slot;              /* register to frame offset, SXD_NONE: never mentioned */
	uint32_t frame_used, temp_base, temp_used, temp_max;
	uint32_t cc;                 /* the condition code register */
	uint32_t param_base, return_base;
	uint32_t *local_at;          /* function-scope variable to frame offset (.param) or local memory offset (.local) */
	uint32_t local_bytes, var_bytes; /* var: those of declared variables */

	struct sx_func **callees;
	uint32_t callee_count, callee_capacity;
	bool indirect, param_address, stack;
};

/* flow.c */
static const struct sx_insn *flow_guard(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_guard_one(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_join(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_jump(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_jump_back(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_branch(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_exit(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_ret(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_not(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_converge(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_converge_const(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_special32(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_special64(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_view32(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_word_get(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_word_put(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_param_copy(struct sx_warp *w, const struct sx_insn *i);
static const struct sx_insn *flow_tid(struct sx_warp *w, const struct sx_insn *i);
/* Values that are not PTX special registers but are read like them; they follow PTX_SR_COUNT. */
enum { SXS_DYNAMIC_OFFSET = PTX_SR_COUNT, SXS_LOCAL_OFFSET, SXS_PARAM_ADDRESS };

/* ---- growing arrays ---------------------------------------------------------------------------------------------- */

/* Makes room for one more element. False, and the decoder marked bad, when the machine has no memory. */
static bool
sxd_grow(struct sx_decoder *d, void *array, uint32_t *capacity, uint32_t count, size_t size)
{
	void **pointer = array;
	if (count < *capacity)
		return true;
	uint32_t more = *capacity ? *capacity * 2 : 64;
	void *bigger = realloc(*pointer, more * size);
	if (!bigger) {
		sxd_fail(d, "out of memory");
		return false;
	}
	*pointer = bigger;
	*capacity = more;
	return true;
}

void *
sxd_keep(struct sx_decoder *d, const void *value, size_t size)
{
	void *memory = fw_arena_alloc(&d->image->arena, size);

	if (memory)
		memcpy(memory, value, size);
	else
		sxd_fail(d, "out of memory");
	return memory;
}

const struct ptx_func *
sxd_func(const struct sx_decoder *d)
{
	return d->ast;
}

const struct sx_target *
sxd_target(const struct sx_decoder *d)
{
	return &d->image->target;
}

void
sxd_fail(struct sx_decoder *d, const char *format, ...)
{
	char reason[100], text[160] = "";
	va_list args;

	if (d->bad)
		return;
	d->bad = true;
	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	if (d->in)
		ptx_print_insn(d->ast, d->in, text, 140);
	d->error->line = d->in ? (int)d->in->line : d->ast->line;
	snprintf(d->error->text, sizeof(d->error->text), "%s%s%s", text, d->in ? ": " : "", reason);
}

struct sx_insn *
sxd_emit(struct sx_decoder *d, sx_fn fn)
{
	if (!sxd_grow(d, &d->insns, &d->capacity, d->count, sizeof(*d->insns))) {
		static __thread struct sx_insn waste; /* the function is bad already; callers may still write to what they get */
		return &waste;
	}
	struct sx_insn *insn = &d->insns[d->count++];
	*insn = (struct sx_insn){ .fn = fn, .src = d->src, .d = SX_NO_REG };
	return insn;
}

/* ---- constants --------------------------------------------------------------------------------------------------- */

static uint32_t
sxd_pool_take(struct sx_decoder *d, uint32_t size)
{
	while (d->pool_used + size > d->pool_capacity) {
		uint32_t more = d->pool_capacity ? d->pool_capacity * 2 : 4096;
		uint8_t *bigger = realloc(d->pool, more);
		if (!bigger || more > SXD_FRAME_MAX) {
			free(bigger ? bigger : d->pool);
			d->pool = NULL;
			d->pool_used = d->pool_capacity = 0;
			sxd_fail(d, "out of memory for constants");
			return SXD_NONE;
		}
		d->pool = bigger;
		d->pool_capacity = more;
	}
	uint32_t offset = d->pool_used;
	d->pool_used += size;
	return offset;
}

/* Finds the constant or its empty place. kind: 1, 32 or 64 bits. */
static struct sxd_const *
sxd_const_find(struct sx_decoder *d, uint64_t value, uint32_t kind)
{
	if (d->constant_count * 2 >= d->constant_capacity) {
		uint32_t old = d->constant_capacity, size = old ? old * 2 : 128;
		struct sxd_const *before = d->constants, *table = calloc(size, sizeof(*table));
		if (!table) {
			sxd_fail(d, "out of memory for constants");
			return NULL;
		}
		for (uint32_t n = 0; n < old; n++) {
			if (!before[n].kind)
				continue;
			uint32_t at = (uint32_t)((before[n].value * 0x9e3779b97f4a7c15u) >> 40) & (size - 1);
			while (table[at].kind)
				at = (at + 1) & (size - 1);
			table[at] = before[n];
		}
		free(before);
		d->constants = table;
		d->constant_capacity = size;
	}
	uint32_t at = (uint32_t)((value * 0x9e3779b97f4a7c15u) >> 40) & (d->constant_capacity - 1);
	while (d->constants[at].kind && (d->constants[at].kind != kind || d->constants[at].value != value))
		at = (at + 1) & (d->constant_capacity - 1);
	return &d->constants[at];
}

static uint32_t
sxd_const(struct sx_decoder *d, uint64_t value, uint32_t kind)
{
	struct sxd_const *known = sxd_const_find(d, value, kind);
	if (!known)
		return SX_POOL;
	if (!known->kind) {
		uint32_t offset = sxd_pool_take(d, kind == 64 ? 256 : kind == 32 ? 128 : 64);
		if (offset == SXD_NONE)
			return SX_POOL;
		for (int l = 0; l < SX_LANES; l++) {
			if (kind == 64)
				((uint64_t *)(void *)(d->pool + offset))[l] = value;
			else if (kind == 32)
				((uint32_t *)(void *)(d->pool + offset))[l] = (uint32_t)value;
		}
		if (kind == 1)
			memset(d->pool + offset, value ? 0xff : 0, 64);
		*known = (struct sxd_const){ value, offset, kind };
		d->constant_count++;
	}
	return known->offset | SX_POOL;
}

uint32_t
sxd_const32(struct sx_decoder *d, uint32_t value)
{
	return sxd_const(d, value, 32);
}

uint32_t
sxd_const64(struct sx_decoder *d, uint64_t value)
{
	return sxd_const(d, value, 64);
}

uint32_t
sxd_const_pred(struct sx_decoder *d, bool value)
{
	return sxd_const(d, value, 1);
}

/* A constant that differs by lane. */
static uint32_t
sxd_const_lanes(struct sx_decoder *d, const uint32_t lanes[SX_LANES])
{
	uint32_t offset = sxd_pool_take(d, 128);
	if (offset == SXD_NONE)
		return SX_POOL;
	memcpy(d->pool + offset, lanes, 128);
	return offset | SX_POOL;
}

/* ---- registers --------------------------------------------------------------------------------------------------- */

static uint32_t
sxd_slot_bytes(unsigned bits)
{
	return bits == 1 ? 4 : bits <= 32 ? 128 : bits <= 64 ? 256 : 512;
}

static uint32_t
sxd_take(uint32_t *used, uint32_t size)
{
	uint32_t align = size < 64 ? size : 64;
	uint32_t offset = (*used + align - 1) & ~(align - 1);
	*used = offset + size;
	return offset;
}

/* The frame offset of a register that the present instruction reads or writes. */
static uint32_t
sxd_reg(struct sx_decoder *d, uint32_t reg, bool writes)
{
	if (reg >= d->ast->reg_count) {
		sxd_fail(d, "unknown register");
		return 0;
	}
	if (d->recording && sxd_grow(d, &d->refs, &d->ref_capacity, d->ref_count, sizeof(*d->refs)))
		d->refs[d->ref_count++] = (struct sx_ref){ .reg = reg, .place = d->place, .block = d->place_block, .writes = writes,
			.kills = writes && !(d->in && d->in->guarded) };
	return d->slot[reg];
}

/* An instruction is complete: puts what it reads before what it writes. */
static void
sxd_sort_refs(struct sx_decoder *d)
{
	struct sx_ref *refs = d->refs;
	uint32_t reads = d->ref_start;

	for (uint32_t n = d->ref_start; n < d->ref_count; n++) {
		if (refs[n].writes)
			continue;
		struct sx_ref read = refs[n];
		refs[n] = refs[reads];
		refs[reads++] = read;
	}
	d->ref_start = d->ref_count;
	d->place++;
}

static unsigned
sxd_reg_bits(struct sx_decoder *d, uint32_t reg)
{
	return reg < d->ast->reg_count ? ptx_type_bits[d->ast->regs[reg].type] : 0;
}

uint32_t
sxd_temp(struct sx_decoder *d, unsigned bits)
{
	uint32_t offset = sxd_take(&d->temp_used, bits == 1 ? 64 : sxd_slot_bytes(bits));
	if (d->temp_used > d->temp_max)
		d->temp_max = d->temp_used;
	return d->temp_base + offset;
}

uint32_t
sxd_cc(struct sx_decoder *d)
{
	return d->cc;
}

/* Temporary parameter words. */
static uint32_t
sxd_temp_words(struct sx_decoder *d, uint32_t words)
{
	uint32_t offset = sxd_take(&d->temp_used, words * SXD_WORD);
	if (d->temp_used > d->temp_max)
		d->temp_max = d->temp_used;
	return d->temp_base + offset;
}

/* Is the special register (or our own) 64 bits wide? */
static bool
sxd_special_wide(uint32_t special)
{
	switch (special) {
	case PTX_SR_clock64:
	case PTX_SR_pm64:
	case PTX_SR_globaltimer:
	case PTX_SR_gridid:
	case PTX_SR_current_graph_exec:
	case SXS_PARAM_ADDRESS:
		return true;
	}
	return false;
}

unsigned
sxd_bits(struct sx_decoder *d, const struct ptx_operand *operand)
{
	if (operand->kind == PTX_OP_REG)
		return sxd_reg_bits(d, operand->reg);
	if (operand->kind == PTX_OP_SPECIAL)
		return operand->special == PTX_SR_is_explicit_cluster ? 1 : sxd_special_wide(operand->special) ? 64 : 32;
	return 0;
}

#define SXD_VIEW(field) (uint32_t)offsetof(struct sx_block_view, field)

/* Special registers that are a word of the block's view; component x, y, z counts on. */
static const struct { uint8_t special; bool vector; uint32_t offset; } sxd_view_words[] = {
	{ PTX_SR_ctaid, true, SXD_VIEW(ctaid) },
	{ PTX_SR_ntid, true, SXD_VIEW(ntid) },
	{ PTX_SR_nctaid, true, SXD_VIEW(nctaid) },
	{ PTX_SR_clusterid, true, SXD_VIEW(clusterid) },
	{ PTX_SR_nclusterid, true, SXD_VIEW(nclusterid) },
	{ PTX_SR_cluster_ctaid, true, SXD_VIEW(cluster_ctaid) },
	{ PTX_SR_cluster_nctaid, true, SXD_VIEW(cluster_nctaid) },
	{ PTX_SR_cluster_ctarank, false, SXD_VIEW(cluster_rank) },
	{ PTX_SR_cluster_nctarank, false, SXD_VIEW(cluster_size) },
	{ PTX_SR_smid, false, SXD_VIEW(smid) },
	{ PTX_SR_total_smem_size, false, SXD_VIEW(shared_bytes) },
	{ PTX_SR_aggr_smem_size, false, SXD_VIEW(shared_bytes) },
	{ PTX_SR_dynamic_smem_size, false, SXD_VIEW(dynamic_shared) },
	{ SXS_DYNAMIC_OFFSET, false, SXD_VIEW(dynamic_offset) },
};

/* Per-lane masks known at decode time; false if the special register is none of them. */
static bool
sxd_special_lanes(uint32_t special, uint32_t lanes[SX_LANES])
{
	for (uint32_t l = 0; l < SX_LANES; l++) {
		uint32_t bit = 1u << l;
		switch (special) {
		case PTX_SR_laneid: lanes[l] = l; break;
		case PTX_SR_lanemask_eq: lanes[l] = bit; break;
		case PTX_SR_lanemask_lt: lanes[l] = bit - 1; break;
		case PTX_SR_lanemask_le: lanes[l] = bit | (bit - 1); break;
		case PTX_SR_lanemask_gt: lanes[l] = ~(bit | (bit - 1)); break;
		case PTX_SR_lanemask_ge: lanes[l] = ~(bit - 1); break;
		default: return false;
		}
	}
	return true;
}

/* Emits the reading of a special register into a slot of 32 or 64 bits. component: 0 for x. */
static void
sxd_special_into(struct sx_decoder *d, uint32_t special, uint32_t component, unsigned bits, uint32_t slot, int64_t imm)
{
	struct sx_insn *insn;

	for (size_t n = 0; n < sizeof(sxd_view_words) / sizeof(sxd_view_words[0]); n++) {
		if (sxd_view_words[n].special != special)
			continue;
		if (sxd_view_words[n].vector && component == 3) {
			special = PTX_SR_pm; /* .w reads as zero */
			break;
		}
		insn = sxd_emit(d, flow_view32);
		insn->d = slot;
		insn->aux = sxd_view_words[n].offset + (sxd_view_words[n].vector ? 4 * component : 0);
		insn->imm = imm;
		insn->e = bits;
		return;
	}
	if (special == PTX_SR_tid && component < 3) {
		insn = sxd_emit(d, flow_tid);
		insn->d = slot;
		insn->aux = component;
		insn->e = bits;
		return;
	}
	if (special == PTX_SR_tid)
		special = PTX_SR_pm;
	insn = sxd_emit(d, bits == 64 ? flow_special64 : flow_special32);
	insn->d = slot;
	insn->aux = special;
	insn->imm = imm;
}

/* A special register as a source. */
static uint32_t
sxd_special(struct sx_decoder *d, uint32_t special, uint32_t component, enum ptx_type type, int64_t imm)
{
	unsigned bits = ptx_type_bits[type] > 32 ? 64 : ptx_type_bits[type] ? 32 : sxd_special_wide(special) ? 64 : 32;
	uint32_t lanes[SX_LANES];

	if (special == PTX_SR_is_explicit_cluster) {
		return sxd_const_pred(d, d->ast->explicitcluster || d->ast->reqnctapercluster[0] > 0);
	}
	if (bits == 32 && sxd_special_lanes(special, lanes))
		return sxd_const_lanes(d, lanes);
	uint32_t slot = sxd_temp(d, bits);
	sxd_special_into(d, special, component, bits, slot, imm);
	return slot;
}

/* ---- symbols ----------------------------------------------------------------------------------------------------- */

static void
sxd_add_callee(struct sx_decoder *d, struct sx_func *func)
{
	for (uint32_t n = 0; n < d->callee_count; n++)
		if (d->callees[n] == func)
			return;
	if (sxd_grow(d, &d->callees, &d->callee_capacity, d->callee_count, sizeof(*d->callees)))
		d->callees[d->callee_count++] = func;
}

/* Words of a parameter. */
static uint32_t
sxd_words(uint32_t size)
{
	return size ? (size + 7) / 8 : 1;
}

static uint32_t
sxd_param_words(const struct ptx_param *params, uint32_t count)
{
	uint32_t words = 0;
	for (uint32_t n = 0; n < count; n++)
		words += sxd_words(params[n].size);
	return words;
}

/* The variable of a symbol operand, NULL (and bad) if there is none. */
static const struct sx_symbol *
sxd_symbol(struct sx_decoder *d, const struct ptx_operand *operand)
{
	const struct sx_symbol *symbol = NULL;
	if (operand->symbol_kind == PTX_SYM_MODULE_VAR)
		symbol = sx_image_symbol(d->image, d->func->module, operand->symbol);
	else if (operand->symbol_kind == PTX_SYM_LOCAL_VAR && operand->symbol < d->ast->local_count)
		symbol = &d->func->locals[operand->symbol];
	if (!symbol)
		sxd_fail(d, "unresolved symbol %s", operand->name ? operand->name : "");
	return symbol;
}

static struct sxd_address
sxd_bad_address(struct sx_decoder *d, const char *why)
{
	sxd_fail(d, "%s", why);
	return (struct sxd_address){ .kind = SXD_BAD };
}

static struct sxd_address
sxd_address_var(struct sx_decoder *d, const struct ptx_operand *operand)
{
	const struct sx_symbol *symbol = sxd_symbol(d, operand);

	if (!symbol)
		return (struct sxd_address){ .kind = SXD_BAD };
	switch (symbol->ast->space) {
	case PTX_SPACE_SHARED:
		if (symbol->dynamic_shared && !d->ast->entry)
			return (struct sxd_address){ .kind = SXD_REG32, .space = PTX_SPACE_SHARED, .imm = operand->imm,
				.reg = sxd_special(d, SXS_DYNAMIC_OFFSET, 0, PTX_u32, 0) };
		return (struct sxd_address){ .kind = SXD_UNIFORM, .space = PTX_SPACE_SHARED,
			.imm = operand->imm + (symbol->dynamic_shared ? (d->func->info.static_shared + 15) & ~15 : symbol->shared_offset) };
	case PTX_SPACE_LOCAL:
		return (struct sxd_address){ .kind = SXD_LOCAL, .space = PTX_SPACE_LOCAL,
			.imm = operand->imm + (operand->symbol_kind == PTX_SYM_LOCAL_VAR ? d->local_at[operand->symbol] : 0) };
	case PTX_SPACE_PARAM:
		return (struct sxd_address){ .kind = SXD_FRAME, .space = PTX_SPACE_PARAM, .imm = operand->imm,
			.reg = d->local_at[operand->symbol] };
	default:
		return (struct sxd_address){ .kind = SXD_UNIFORM, .imm = operand->imm + (int64_t)symbol->var.address };
	}
}

static struct sxd_address
sxd_address_param(struct sx_decoder *d, const struct ptx_operand *operand)
{
	bool result = operand->symbol_kind == PTX_SYM_RETURN_PARAM;
	const struct ptx_param *params = result ? d->ast->returns : d->ast->params;
	uint32_t count = result ? d->ast->return_count : d->ast->param_count;

	if (operand->symbol >= count)
		return sxd_bad_address(d, "unknown parameter");
	if (d->ast->entry)
		return (struct sxd_address){ .kind = SXD_PARAM, .space = PTX_SPACE_PARAM,
			.imm = operand->imm + params[operand->symbol].offset };
	return (struct sxd_address){ .kind = SXD_FRAME, .space = PTX_SPACE_PARAM, .imm = operand->imm,
		.reg = (result ? d->return_base : d->param_base) + SXD_WORD * sxd_param_words(params, operand->symbol) };
}

struct sxd_address
sxd_address(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_space space)
{
	if (operand->kind == PTX_OP_ADDRESS && operand->base_is_reg) {
		unsigned bits = sxd_reg_bits(d, operand->reg);
		if (bits != 32 && bits != 64)
			return sxd_bad_address(d, "address register is neither 32 nor 64 bits wide");
		/* The parameter space of a kernel is generic memory. */
		return (struct sxd_address){ .kind = bits == 64 ? SXD_REG64 : SXD_REG32, .reg = sxd_reg(d, operand->reg, false),
			.imm = operand->imm, .space = space == PTX_SPACE_PARAM ? PTX_SPACE_NONE : space };
	}
	if (operand->kind == PTX_OP_REG) { /* old texts leave out the brackets nowhere, but atom [a] may be a plain register */
		unsigned bits = sxd_reg_bits(d, operand->reg);
		if (bits != 32 && bits != 64)
			return sxd_bad_address(d, "address register is neither 32 nor 64 bits wide");
		return (struct sxd_address){ .kind = bits == 64 ? SXD_REG64 : SXD_REG32, .reg = sxd_reg(d, operand->reg, false), .space = space };
	}
	if (operand->kind != PTX_OP_ADDRESS && operand->kind != PTX_OP_SYMBOL)
		return sxd_bad_address(d, "operand is no address");
	switch (operand->symbol_kind) {
	case PTX_SYM_NONE:
		return (struct sxd_address){ .kind = SXD_UNIFORM, .imm = operand->imm, .space = space };
	case PTX_SYM_MODULE_VAR:
	case PTX_SYM_LOCAL_VAR:
		return sxd_address_var(d, operand);
	case PTX_SYM_PARAM:
	case PTX_SYM_RETURN_PARAM:
		return sxd_address_param(d, operand);
	case PTX_SYM_FUNC: {
		struct sx_func *func = sx_image_func(d->image, d->func->module, operand->symbol);
		if (func)
			return (struct sxd_address){ .kind = SXD_UNIFORM, .imm = operand->imm + (int64_t)sx_func_address(func) };
		break;
	}
	}
	sxd_fail(d, "unresolved symbol %s", operand->name ? operand->name : "");
	return (struct sxd_address){ .kind = SXD_BAD };
}

/* A device function's parameter whose address is taken moves to local memory: a copy is made there, its address is the value. */
static uint32_t
sxd_param_copy(struct sx_decoder *d, const struct ptx_param *param, struct sxd_address at)
{
	uint32_t align = param->align > 8 ? param->align : 8, slot = sxd_temp(d, 64);
	uint32_t place = (d->local_bytes + align - 1) / align * align;

	d->local_bytes = place + ((param->size + 7) & ~7u);
	if (d->local_bytes > SXD_FRAME_MAX)
		sxd_fail(d, "the function's variables are too large");
	struct sx_insn *insn = sxd_emit(d, flow_param_copy);
	insn->d = slot;
	insn->a = at.reg;
	insn->b = place;
	insn->aux = param->size;
	insn->imm = at.imm;
	return slot;
}

/* A symbol's address as a value. */
static uint32_t
sxd_symbol_value(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_type type)
{
	bool wide = ptx_type_bits[type] != 32;

	if (operand->symbol_kind == PTX_SYM_FUNC) {
		struct sx_func *func = sx_image_func(d->image, d->func->module, operand->symbol);
		if (!func) {
			sxd_fail(d, "unresolved function %s", operand->name ? operand->name : "");
			return SX_POOL;
		}
		sxd_add_callee(d, func);
		return sxd_const64(d, sx_func_address(func) + (uint64_t)operand->imm);
	}
	struct sxd_address at = sxd_address(d, operand, PTX_SPACE_NONE);
	switch (at.kind) {
	case SXD_UNIFORM:
		return wide ? sxd_const64(d, (uint64_t)at.imm) : sxd_const32(d, (uint32_t)at.imm);
	case SXD_REG32: /* dynamic shared memory in a device function */
		return sxd_special(d, SXS_DYNAMIC_OFFSET, 0, wide ? PTX_u64 : PTX_u32, at.imm);
	case SXD_LOCAL:
		if (d->ast->entry) /* the kernel's frame is the first */
			return wide ? sxd_const64(d, (uint64_t)at.imm) : sxd_const32(d, (uint32_t)at.imm);
		return sxd_special(d, SXS_LOCAL_OFFSET, 0, wide ? PTX_u64 : PTX_u32, at.imm);
	case SXD_PARAM:
		d->param_address = true;
		return sxd_special(d, SXS_PARAM_ADDRESS, 0, PTX_u64, at.imm);
	case SXD_FRAME:
		if (operand->symbol_kind == PTX_SYM_PARAM && wide)
			return sxd_param_copy(d, &d->ast->params[operand->symbol], at);
		/* fall through */
	default:
		sxd_fail(d, "the address of %s cannot be taken", operand->name ? operand->name : "this operand");
		return SX_POOL;
	}
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

/* The bits of a floating literal: imm holds a double. */
static uint32_t
sxd_f32_bits(const struct ptx_operand *operand)
{
	uint64_t bits = (uint64_t)operand->imm;
	if ((bits >> 52 & 0x7ff) == 0x7ff) /* keep the payload of a NaN */
		return (uint32_t)(bits >> 32 & 0x80000000u) | 0x7f800000u | (uint32_t)(bits >> 29 & 0x7fffff);
	double value;
	memcpy(&value, &bits, sizeof(value));
	float narrow = (float)value;
	uint32_t result;
	memcpy(&result, &narrow, sizeof(result));
	return result;
}

static uint32_t
sxd_immediate(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_type type)
{
	unsigned bits = ptx_type_bits[type];
	uint64_t value = (uint64_t)operand->imm;

	if (type == PTX_pred)
		return sxd_const_pred(d, value != 0);
	if (operand->kind == PTX_OP_FLOAT) {
		if (bits == 32 || operand->is_f32)
			value = sxd_f32_bits(operand);
		else if (bits && bits < 32)
			sxd_fail(d, "floating literal for a %u-bit operand", bits);
	} else if (type == PTX_f32) {
		float number = (float)(int64_t)value;
		uint32_t pattern;
		memcpy(&pattern, &number, sizeof(pattern));
		value = pattern;
	} else if (type == PTX_f64) {
		double number = (double)(int64_t)value;
		memcpy(&value, &number, sizeof(value));
	}
	if (bits == 8 || bits == 16)
		value &= (1u << bits) - 1;
	return bits == 64 ? sxd_const64(d, value) : sxd_const32(d, (uint32_t)value);
}

uint32_t
sxd_src(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_type type)
{
	switch (operand->kind) {
	case PTX_OP_REG: {
		uint32_t slot = sxd_reg(d, operand->reg, false);
		if (!operand->negate)
			return slot;
		if (sxd_reg_bits(d, operand->reg) != 1) {
			sxd_fail(d, "negated operand is no predicate");
			return slot;
		}
		uint32_t temp = sxd_temp(d, 1);
		struct sx_insn *insn = sxd_emit(d, flow_not);
		insn->d = temp;
		insn->a = slot;
		return temp;
	}
	case PTX_OP_IMM:
	case PTX_OP_FLOAT:
		return sxd_immediate(d, operand, type);
	case PTX_OP_SPECIAL:
		return sxd_special(d, operand->special, operand->component ? operand->component - 1u : 0, type, operand->imm);
	case PTX_OP_SYMBOL:
		return sxd_symbol_value(d, operand, type);
	}
	sxd_fail(d, "operand cannot be a source");
	return SX_POOL;
}

uint32_t
sxd_dst(struct sx_decoder *d, const struct ptx_operand *operand)
{
	if (operand->kind == PTX_OP_SINK)
		return SX_NO_REG;
	if (operand->kind == PTX_OP_REG && !operand->negate)
		return sxd_reg(d, operand->reg, true);
	sxd_fail(d, "operand cannot be a destination");
	return 0;
}

void
sxd_emit_converge(struct sx_decoder *d, uint32_t member_mask)
{
	d->flow = true;
	if ((member_mask & SX_POOL) && d->pool) {
		uint32_t mask;
		memcpy(&mask, d->pool + (member_mask & ~SX_POOL), sizeof(mask));
		sxd_emit(d, flow_converge_const)->aux = mask;
		return;
	}
	sxd_emit(d, flow_converge)->a = member_mask;
}

/* ---- control flow ------------------------------------------------------------------------------------------------ */

static void
sxd_fix_add(struct sx_decoder *d, uint32_t insn, uint32_t block, uint32_t to)
{
	if (sxd_grow(d, &d->fixes, &d->fix_capacity, d->fix_count, sizeof(*d->fixes)))
		d->fixes[d->fix_count++] = (struct sxd_fix){ insn, block, to };
}

/* The block that a label operand names; the end block if something is wrong. */
static uint32_t
sxd_label_block(struct sx_decoder *d, uint32_t label)
{
	if (label >= d->ast->label_count || d->ast->labels[label].insn > d->ast->insn_count) {
		sxd_fail(d, "unknown label");
		return d->block_count - 1;
	}
	return d->block_of[d->ast->labels[label].insn];
}

/* Is a jump from the present instruction to this block a backward one? */
static bool
sxd_backward(struct sx_decoder *d, uint32_t block)
{
	return d->blocks[block].position <= d->blocks[d->block_of[d->src]].position;
}

/* Emits a jump to a block. */
static void
sxd_emit_jump(struct sx_decoder *d, uint32_t block)
{
	sxd_emit(d, sxd_backward(d, block) ? flow_jump_back : flow_jump);
	sxd_fix_add(d, d->count - 1, block, 0);
}

static const struct ptx_targets *
sxd_targets(const struct ptx_func *ast, const char *name)
{
	for (uint32_t n = 0; name && n < ast->target_count; n++)
		if (strcmp(ast->targets[n].name, name) == 0)
			return &ast->targets[n];
	return NULL;
}

/* The .branchtargets of a brx.idx, or NULL. */
static const struct ptx_targets *
sxd_branch_targets(const struct ptx_func *ast, const struct ptx_insn *in)
{
	if (in->operand_count < 2)
		return NULL;
	const struct ptx_targets *targets = sxd_targets(ast, in->operands[1].name);
	return targets && targets->kind == PTX_BRANCH_TARGETS ? targets : NULL;
}

/* Does the instruction end a basic block, and can it go on to the next one? */
static bool
sxd_ends_block(const struct ptx_insn *in, bool *falls)
{
	bool branch = sxd_is(in, "bra") || sxd_is(in, "brx");
	bool leaves = sxd_is(in, "ret") || sxd_is(in, "exit") || sxd_is(in, "trap");
	*falls = in->guarded || !(branch || leaves);
	return branch || leaves;
}

/* Calls visit for each block that the instruction may jump to. */
static void
sxd_each_target(struct sx_decoder *d, const struct ptx_insn *in, void (*visit)(struct sx_decoder *, uint32_t block, void *),
                void *user)
{
	const struct ptx_func *ast = d->ast;
	if (sxd_is(in, "bra")) {
		const struct ptx_operand *to = in->operand_count ? &in->operands[in->operand_count - 1] : NULL;
		if (to && to->kind == PTX_OP_LABEL && to->symbol < ast->label_count && ast->labels[to->symbol].insn <= ast->insn_count)
			visit(d, d->block_of[ast->labels[to->symbol].insn], user);
	} else if (sxd_is(in, "brx")) {
		const struct ptx_targets *targets = sxd_branch_targets(ast, in);
		for (uint32_t n = 0; targets && n < targets->count; n++)
			if (targets->labels[n] < ast->label_count && ast->labels[targets->labels[n]].insn <= ast->insn_count)
				visit(d, d->block_of[ast->labels[targets->labels[n]].insn], user);
	}
}

static void
sxd_add_edge(struct sx_decoder *d, uint32_t block, void *user)
{
	uint32_t *count = user;
	if (d->edges)
		d->edges[*count] = block;
	++*count;
}

/* Builds the graph and decides the layout. */
static bool
sxd_find_edges(struct sx_decoder *d)
{
	d->edge_first = calloc(d->block_count + 1u, sizeof(*d->edge_first));
	d->block_first = calloc(d->block_count + 1u, sizeof(*d->block_first));
	d->block_last = calloc(d->block_count + 1u, sizeof(*d->block_last));
	for (int pass = 0; pass < 2 && d->edge_first; pass++) { /* count, then fill */
		uint32_t count = 0;
		for (uint32_t n = 0; n < d->block_count; n++) {
			const struct sxd_block *b = &d->blocks[n];
			d->edge_first[n] = count;
			if (b->end > b->first)
				sxd_each_target(d, &d->ast->insns[b->end - 1], sxd_add_edge, &count);
			if (b->falls)
				sxd_add_edge(d, n + 1, &count);
		}
		d->edge_first[d->block_count] = count;
		if (pass == 0)
			d->edges = calloc(count + 1u, sizeof(*d->edges));
		if (!d->edges)
			break;
	}
	if (!d->edges || !d->block_first || !d->block_last ||
	    !sx_order_blocks(&(struct sx_graph){ d->block_count, d->edge_first, d->edges }, d->order)) {
		sxd_fail(d, "out of memory");
		return false;
	}
	for (uint32_t p = 0; p < d->block_count; p++)
		d->blocks[d->order[p]].position = p;
	return true;
}

/* Cuts the body into blocks. The last one is empty: the end of the function. */
static bool
sxd_find_blocks(struct sx_decoder *d)
{
	const struct ptx_func *ast = d->ast;
	uint32_t count = ast->insn_count;
	uint8_t *leader = calloc(count + 2, 1);

	d->block_of = calloc((size_t)count + 1, sizeof(*d->block_of));
	if (!leader || !d->block_of) {
		free(leader);
		sxd_fail(d, "out of memory");
		return false;
	}
	leader[0] = leader[count] = 1;
	for (uint32_t n = 0; n < ast->label_count; n++)
		if (ast->labels[n].insn <= count)
			leader[ast->labels[n].insn] = 1;
	for (uint32_t n = 0; n < count; n++) {
		bool falls;
		if (sxd_ends_block(&ast->insns[n], &falls))
			leader[n + 1] = 1;
	}
	for (uint32_t n = 0; n <= count; n++)
		d->block_count += leader[n];
	d->blocks = calloc(d->block_count, sizeof(*d->blocks));
	d->order = calloc(d->block_count, sizeof(*d->order));
	if (!d->blocks || !d->order) {
		free(leader);
		sxd_fail(d, "out of memory");
		return false;
	}
	uint32_t block = 0;
	for (uint32_t n = 0; n <= count; n++) {
		if (leader[n] && n)
			d->blocks[block++].end = n;
		if (leader[n])
			d->blocks[block].first = n;
		d->block_of[n] = block;
	}
	d->blocks[block].end = count;
	free(leader);
	for (uint32_t n = 0; n < d->block_count; n++) {
		struct sxd_block *b = &d->blocks[n];
		b->falls = n + 1 < d->block_count;
		if (b->end > b->first)
			sxd_ends_block(&ast->insns[b->end - 1], &b->falls);
	}
	return sxd_find_edges(d);
}

static void
sxd_mark_forward(struct sx_decoder *d, uint32_t block, void *user)
{
	uint32_t from = *(const uint32_t *)user;
	if (d->blocks[block].position > d->blocks[from].position)
		d->blocks[block].joined = true;
}

static void
sxd_find_joins(struct sx_decoder *d)
{
	for (uint32_t n = 0; n < d->block_count; n++) {
		struct sxd_block *b = &d->blocks[n];
		if (b->end > b->first)
			sxd_each_target(d, &d->ast->insns[b->end - 1], sxd_mark_forward, &n);
		/* a fall-through that the layout turned into a jump */
		if (b->falls && d->blocks[n + 1].position != b->position + 1)
			sxd_mark_forward(d, n + 1, &n);
	}
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static void
sxd_decode_insn(struct sx_decoder *d, uint32_t index)
{
	const struct ptx_insn *in = &d->ast->insns[index];
	/* Branches take their guard themselves. */
	bool guarded = in->guarded && !sxd_is(in, "bra");
	uint32_t guard = d->count;

	d->in = in;
	d->src = index;
	d->flow = false;
	d->temp_used = 0;
	if (guarded) {
		uint32_t slot = sxd_reg(d, in->guard, false);
		if (sxd_reg_bits(d, in->guard) != 1)
			sxd_fail(d, "the guard is no predicate");
		struct sx_insn *insn = sxd_emit(d, flow_guard);
		insn->a = slot;
		insn->aux = in->guard_negated ? UINT32_MAX : 0;
	}
	if (!sx_decode_flow(d, in) && !d->bad && !sx_decode_alu(d, in) && !d->bad && !sx_decode_mem(d, in) && !d->bad &&
	    !sx_decode_warp(d, in) && !d->bad && !sx_decode_video(d, in) && !d->bad)
		sxd_fail(d, "not known to the software GPU");
	if (!guarded || d->bad)
		return;
	if (d->flow) {
		d->insns[guard].fn = flow_branch;
		d->insns[guard].aux = ~d->insns[guard].aux; /* jumps when the guard does not hold */
		sxd_emit(d, flow_join);
	} else if (d->count == guard + 2) {
		d->insns[guard].fn = flow_guard_one;
	}
	sxd_fix_add(d, guard, SXD_NONE, d->count);
}

/* Device functions of old texts pass values in registers: parameters come from words, results go back to words. */
static void
sxd_emit_words(struct sx_decoder *d, const struct ptx_param *params, uint32_t count, uint32_t base, sx_fn fn)
{
	for (uint32_t n = 0; n < count; n++) {
		if (!params[n].in_reg)
			continue;
		uint32_t slot = sxd_reg(d, params[n].reg, fn == flow_word_get);
		if (slot == SXD_NONE) /* a parameter that the function never looks at */
			continue;
		struct sx_insn *insn = sxd_emit(d, fn);
		insn->d = slot;
		insn->a = base + SXD_WORD * sxd_param_words(params, n);
		insn->aux = sxd_reg_bits(d, params[n].reg);
	}
}

/* Leaves the function. */
static void
sxd_emit_return(struct sx_decoder *d)
{
	if (!d->ast->entry)
		sxd_emit_words(d, d->ast->returns, d->ast->return_count, d->return_base, flow_word_put);
	sxd_emit(d, d->ast->entry ? flow_exit : flow_ret);
}

static void
sxd_decode_body(struct sx_decoder *d)
{
	bool reached = false; /* does the block before fall into this one? */

	for (uint32_t position = 0; position < d->block_count && !d->bad; position++) {
		uint32_t n = d->order[position];
		struct sxd_block *b = &d->blocks[n];
		if (b->joined && reached) {
			d->src = b->first < d->ast->insn_count ? b->first : d->ast->insn_count - 1;
			sxd_emit(d, flow_join);
		}
		b->out = d->count;
		d->place_block = n;
		d->block_first[n] = d->place;
		for (uint32_t index = b->first; index < b->end && !d->bad; index++) {
			if (!d->elided || !d->elided[index])
				sxd_decode_insn(d, index);
			sxd_sort_refs(d);
		}
		if (n + 1 == d->block_count) { /* the end of the text returns */
			d->src = d->ast->insn_count ? d->ast->insn_count - 1 : 0;
			d->in = NULL;
			sxd_emit_return(d);
			sxd_sort_refs(d);
		}
		d->block_last[n] = d->place > d->block_first[n] ? d->place - 1 : d->place;
		reached = b->falls && d->blocks[n + 1].position == position + 1;
		if (b->falls && !reached) {
			d->src = b->end > b->first ? b->end - 1 : b->first;
			sxd_emit_jump(d, n + 1);
		}
	}
}

/* Places of parameters, variables and registers. */
static bool
sxd_lay_out_frame(struct sx_decoder *d)
{
	const struct ptx_func *ast = d->ast;
	uint64_t total = 0;

	d->slot = calloc(ast->reg_count + 1u, sizeof(*d->slot));
	d->local_at = calloc(ast->local_count + 1u, sizeof(*d->local_at));
	if (!d->slot || !d->local_at) {
		sxd_fail(d, "out of memory");
		return false;
	}
	if (!ast->entry) {
		d->param_base = 0;
		d->return_base = SXD_WORD * sxd_param_words(ast->params, ast->param_count);
		total = (uint64_t)d->return_base + SXD_WORD * sxd_param_words(ast->returns, ast->return_count);
	}
	for (uint32_t n = 0; n < ast->local_count; n++) {
		const struct ptx_var *var = &ast->locals[n];
		uint32_t align = var->align ? var->align : 1;
		if (var->space == PTX_SPACE_PARAM) {
			d->local_at[n] = (uint32_t)total;
			total += SXD_WORD * (var->size ? (var->size + 7) / 8 : 1);
		} else if (var->space == PTX_SPACE_LOCAL) {
			if (var->size > SXD_FRAME_MAX || d->local_bytes > SXD_FRAME_MAX)
				break;
			d->local_at[n] = (d->local_bytes + align - 1) / align * align;
			d->local_bytes = d->local_at[n] + (uint32_t)var->size;
		}
	}
	if (total > SXD_FRAME_MAX || d->local_bytes > SXD_FRAME_MAX) {
		sxd_fail(d, "the function's variables are too large");
		return false;
	}
	d->frame_used = (uint32_t)total;
	d->var_bytes = d->local_bytes;
	return true;
}

/* ---- registers that are the same in all blocks ----------------------------------------------------------------------- */

/* Is this instruction, the only one that sets its register, the reading of something that stays the same for all blocks? Parameters,
 * %tid, %ntid, %nctaid, and addresses converted from such a register. known: registers that are, by index + 1 in d->fixed. */
static bool
sxd_is_fixed(struct sx_decoder *d, const struct ptx_insn *in, const uint32_t *known, struct sx_fixed *fixed)
{
	if (in->guarded || in->operand_count != 2)
		return false;
	const struct ptx_operand *to = &in->operands[0], *from = &in->operands[1];
	if (to->kind != PTX_OP_REG || to->negate || to->second || in->type_count != 1)
		return false;
	fixed->bits = sxd_reg_bits(d, to->reg);
	if ((fixed->bits != 32 && fixed->bits != 64) || ptx_type_bits[in->types[0]] != fixed->bits)
		return false;
	if (sxd_is(in, "ld") && in->mod_count == 2 && ptx_has(in, "param") && from->kind == PTX_OP_ADDRESS && !from->base_is_reg &&
	    from->symbol_kind == PTX_SYM_PARAM && from->symbol < d->ast->param_count && !from->count) {
		const struct ptx_param *param = &d->ast->params[from->symbol];
		fixed->kind = SX_FIXED_PARAM;
		fixed->offset = param->offset + (uint32_t)from->imm;
		return from->imm >= 0 && (uint64_t)from->imm + fixed->bits / 8 <= param->size && fixed->offset % (fixed->bits / 8) == 0;
	}
	if (sxd_is(in, "mov") && from->kind == PTX_OP_SPECIAL && fixed->bits == 32 && from->component >= 1 && from->component <= 3) {
		fixed->kind = from->special == PTX_SR_tid ? SX_FIXED_TID : SX_FIXED_VIEW;
		fixed->offset = (from->special == PTX_SR_tid ? 1 : 4) * (from->component - 1u);
		fixed->offset += from->special == PTX_SR_ntid ? SXD_VIEW(ntid) : from->special == PTX_SR_nctaid ? SXD_VIEW(nctaid) : 0;
		return from->special == PTX_SR_tid || from->special == PTX_SR_ntid || from->special == PTX_SR_nctaid;
	}
	if (sxd_is(in, "cvta") && ptx_has(in, "global") && from->kind == PTX_OP_REG && !from->negate && fixed->bits == 64 &&
	    from->reg < d->ast->reg_count && known[from->reg]) {
		*fixed = d->fixed[known[from->reg] - 1];
		return fixed->bits == 64;
	}
	return false;
}

/* Finds them, after the first pass; their instructions are not emitted. Slots follow one another from `base`. */
static bool
sxd_find_fixed(struct sx_decoder *d, uint64_t *base)
{
	const struct ptx_func *ast = d->ast;
	uint32_t *known = calloc(ast->reg_count + 1u, sizeof(*known)), *writes = calloc(ast->reg_count + 1u, sizeof(*writes));

	d->elided = calloc(ast->insn_count + 1u, sizeof(*d->elided));
	if (!known || !writes || !d->elided)
		sxd_fail(d, "out of memory");
	for (uint32_t n = 0; n < d->ref_count && !d->bad; n++)
		writes[d->refs[n].reg] += d->refs[n].writes;
	for (uint32_t n = 0; n < ast->insn_count && ast->entry && !d->bad; n++) {
		struct sx_fixed fixed = { .bits = 0 };
		if (!sxd_is_fixed(d, &ast->insns[n], known, &fixed))
			continue;
		uint32_t reg = ast->insns[n].operands[0].reg;
		if (writes[reg] != 1 || !sxd_grow(d, &d->fixed, &d->fixed_capacity, d->fixed_count, sizeof(*d->fixed)))
			continue;
		fixed.slot = (uint32_t)*base;
		*base += sxd_slot_bytes(fixed.bits);
		d->fixed[d->fixed_count++] = fixed;
		known[reg] = d->fixed_count;
		d->elided[n] = true;
		if (*base > SXD_FRAME_MAX)
			sxd_fail(d, "too many registers");
	}
	/* what was recorded of them no longer matters */
	uint32_t kept = 0;
	for (uint32_t n = 0; n < d->ref_count && !d->bad; n++)
		if (!known[d->refs[n].reg])
			d->refs[kept++] = d->refs[n];
	d->ref_count = kept;
	for (uint32_t n = 0; n < ast->reg_count && !d->bad; n++)
		d->slot[n] = known[n] ? d->fixed[known[n] - 1].slot : SXD_NONE;
	free(known);
	free(writes);
	return !d->bad;
}

/* Gives the registers places in the frame, from what the first pass has recorded. */
static bool
sxd_place_registers(struct sx_decoder *d)
{
	static const unsigned bytes[4] = { 512, 256, 128, 4 }; /* wide ones first: no holes */
	const struct ptx_func *ast = d->ast;
	uint8_t *class = calloc(ast->reg_count + 1u, 1);
	uint64_t base[4], total = d->frame_used;
	struct sx_graph graph = { d->block_count, d->edge_first, d->edges };
	struct sx_slot_job slots = { .graph = &graph, .order = d->order, .block_first = d->block_first, .block_last = d->block_last,
		.reg_count = ast->reg_count, .size_class = class };

	if (!sxd_find_fixed(d, &total)) {
		free(class);
		return false;
	}
	slots.refs = d->refs;
	slots.ref_count = d->ref_count;
	slots.number = malloc((ast->reg_count + 1u) * sizeof(*slots.number));
	for (uint32_t n = 0; class && n < ast->reg_count; n++)
		for (uint8_t c = 0; c < 4; c++)
			if (sxd_slot_bytes(ptx_type_bits[ast->regs[n].type]) == bytes[c])
				class[n] = c;
	if (!class || !slots.number || !sx_assign_slots(&slots)) {
		free(class);
		free(slots.number);
		sxd_fail(d, "out of memory");
		return false;
	}
	for (int c = 0; c < 4; c++) {
		base[c] = total;
		total += (uint64_t)bytes[c] * slots.used[c];
	}
	total = (total + 63) & ~(uint64_t)63;
	for (uint32_t n = 0; n < ast->reg_count && total < SXD_FRAME_MAX; n++)
		if (slots.number[n] != SXD_NONE)
			d->slot[n] = (uint32_t)base[class[n]] + slots.number[n] * bytes[class[n]];
	free(class);
	free(slots.number);
	if (total >= SXD_FRAME_MAX) {
		sxd_fail(d, "too many registers");
		return false;
	}
	d->cc = (uint32_t)total;
	d->temp_base = (uint32_t)total + 64;
	return true;
}

static void
sxd_patch(struct sx_decoder *d, struct sx_insn *insns)
{
	for (uint32_t n = 0; n < d->fix_count; n++) {
		const struct sxd_fix *fix = &d->fixes[n];
		uint32_t to = fix->block == SXD_NONE ? fix->to : d->blocks[fix->block].out;
		if (fix->insn == SXD_NONE)
			continue;
		insns[fix->insn].target = &insns[to];
	}
}

static void
sxd_patch_tables(struct sx_decoder *d, struct sx_insn *insns)
{
	for (struct sxd_table *table = d->tables; table; table = table->next)
		for (uint32_t n = 0; n < table->count; n++)
			table->targets[n] = &insns[d->blocks[table->blocks[n]].out];
}

static struct sx_code *
sxd_finish(struct sx_decoder *d)
{
	struct fw_arena *arena = &d->image->arena;
	struct sx_code *code = fw_arena_alloc(arena, sizeof(*code));
	struct sx_insn *insns = fw_arena_alloc(arena, sizeof(*insns) * (d->count + 1u));
	uint8_t *pool = fw_arena_alloc(arena, d->pool_used + 128u);
	struct sx_fixed *fixed = fw_arena_alloc(arena, sizeof(*fixed) * (d->fixed_count + 1u));

	if (!code || !insns || !pool || !fixed) {
		sxd_fail(d, "out of memory");
		return NULL;
	}
	pool += -(uintptr_t)pool & 63;
	memcpy(insns, d->insns, sizeof(*insns) * d->count);
	if (d->pool_used)
		memcpy(pool, d->pool, d->pool_used);
	sxd_patch(d, insns);
	sxd_patch_tables(d, insns);
	if (d->fixed_count)
		memcpy(fixed, d->fixed, d->fixed_count * sizeof(*fixed));
	*code = (struct sx_code){ .func = d->func, .fixed = fixed, .fixed_count = d->fixed_count, .insns = insns, .insn_count = d->count, .pool = pool,
		.frame_bytes = (d->temp_base + d->temp_max + 127u) & ~63u, .local_bytes = (d->local_bytes + 15u) & ~15u,
		.param_address = d->param_address, .param_base = d->param_base, .return_base = d->return_base };
	return code;
}

static void
sxd_free(struct sx_decoder *d)
{
	free(d->insns);
	free(d->pool);
	free(d->constants);
	free(d->fixes);
	free(d->blocks);
	free(d->order);
	free(d->edge_first);
	free(d->edges);
	free(d->block_first);
	free(d->block_last);
	free(d->refs);
	free(d->fixed);
	free(d->elided);
	free(d->block_of);
	free(d->slot);
	free(d->local_at);
	free(d->callees);
}

/* Between the passes. */
static void
sxd_forget_code(struct sx_decoder *d)
{
	d->count = d->fix_count = d->pool_used = d->constant_count = 0;
	d->temp_used = d->temp_max = d->place = 0;
	d->local_bytes = d->var_bytes;
	d->in = NULL;
	d->tables = NULL;
	if (d->constants)
		memset(d->constants, 0, d->constant_capacity * sizeof(*d->constants));
}

/* sx_backend.decode */
static bool
sxd_decode(struct sx_func *func, struct sx_decoded *out, struct ptx_error *error)
{
	struct sx_decoder d = { .func = func, .ast = func->ast, .image = func->image, .error = error };

	if (sxd_lay_out_frame(&d) && sxd_find_blocks(&d)) {
		sxd_find_joins(&d);
		d.recording = true;
		sxd_decode_body(&d);
		d.recording = false;
		if (!d.bad && sxd_place_registers(&d)) {
			sxd_forget_code(&d);
			if (!d.ast->entry)
				sxd_emit_words(&d, d.ast->params, d.ast->param_count, d.param_base, flow_word_get);
			sxd_decode_body(&d);
		}
	}
	*out = (struct sx_decoded){ .indirect = d.indirect || d.stack, .callee_count = d.callee_count };
	if (!d.bad)
		out->code = sxd_finish(&d);
	if (!d.bad && d.callee_count) {
		out->callees = fw_arena_alloc(&d.image->arena, sizeof(*out->callees) * d.callee_count);
		if (out->callees)
			memcpy(out->callees, d.callees, sizeof(*out->callees) * d.callee_count);
		else
			sxd_fail(&d, "out of memory");
	}
	sxd_free(&d);
	return !d.bad;
}
