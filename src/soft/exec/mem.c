/*
 * Memory instructions: where lanes' addresses point, ld and st of every space, type and vector, cvta, isspacep, mapa, fences, hints.
 *
 * Address model (space.h, isa.h). A generic, global or constant address is a host address inside sw_space or registered host
 * memory. A shared address is an offset into the block's window, with rank + 1 of the cluster's block in bits 24..31 for
 * another block's. A local address is an offset into the lane's linear stack. A kernel parameter's is an offset into the
 * parameter buffer. Parameters of device functions live in frames, not in memory (SXD_FRAME).
 *
 * sx_at() turns the lanes' addresses into host addresses and checks them; sx_ld_any and sx_st_any do every form from there, a lane
 * at a time. mem_fast.c has the forms that programs spend their time in. Atomics are in atom.c, asynchronous copies
 * and mbarriers in async.c, matrix instructions in matrix.c.
 *
 * Each lane is checked before the first byte is written, so a faulting store changes nothing.
 */
#ifndef SX_MEM_C
#define SX_MEM_C

#include "soft/exec/isa.h"

/* How an instruction gives its address; the operand is i->a, the offset i->imm. */
enum sx_at_kind {
	SX_AT_GLOBAL,    /* 64-bit register: generic, global, constant */
	SX_AT_FIXED,     /* the same, known when decoded: imm alone */
	SX_AT_SHARED,    /* 32-bit register: offset into the shared window */
	SX_AT_SHARED_FIXED,
	SX_AT_LOCAL,     /* 32-bit register: offset into the lane's stack */
	SX_AT_LOCAL_VAR, /* imm, relative to the frame's variables */
	SX_AT_PARAM,     /* imm: offset into the kernel's parameters */
};

/* Fields of sx_insn.aux for memory instructions. */
#define SX_MEM_KIND(aux) ((enum sx_at_kind)((aux) & 7))
#define SX_MEM_LOG(aux) ((aux) >> 3 & 7)            /* log2 of an element's bytes */
#define SX_MEM_COUNT(aux) (1u << ((aux) >> 6 & 3))  /* elements: 1, 2, 4 */
#define SX_MEM_SIGNED 0x100u                        /* sign-extend into a wider register */
#define SX_MEM_ORDERED 0x200u                       /* acquire load, release store */
#define SX_MEM_SPIN 0x400u                          /* volatile or stronger: another thread may be waited for */
#define SX_MEM_ALIGN(aux) (1u << ((aux) >> 12 & 7)) /* bytes that the address must be a multiple of */
#define SX_MEM_BITS(aux) (8u << ((aux) >> 16 & 7))  /* destination register: 8 .. 128 */
#define SX_MEM_WIDE(aux, element) ((aux) >> (20 + (element)) & 1) /* store: element's source is a 64-bit slot */

#define SX_CLUSTER_SHIFT 24
#define SX_CLUSTER_OFFSET ((1u << SX_CLUSTER_SHIFT) - 1)

static const char *const sx_space_words[] = { "global", "global", "shared", "shared", "local", "local", "parameter" };

static inline unsigned
sx_next_lane(uint32_t *lanes)
{
	unsigned lane = (unsigned)__builtin_ctz(*lanes);
	*lanes &= *lanes - 1;
	return lane;
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

/* Host address of a shared address, or 0 when [offset, offset + bytes) is in no window of the cluster. */
static inline uint64_t
sx_shared_host(const struct sx_block_view *view, uint32_t offset, uint32_t bytes)
{
	if ((uint64_t)offset + bytes <= view->shared_bytes)
		return view->shared_base + offset;
	uint32_t rank = (offset >> SX_CLUSTER_SHIFT) - 1; /* none given: wraps and is too large */
	offset &= SX_CLUSTER_OFFSET;
	if (rank < view->cluster_size && view->cluster_shared && (uint64_t)offset + bytes <= view->shared_bytes)
		return view->cluster_shared[rank] + offset;
	return 0;
}

/* The local stack of a lane. */
static inline uint64_t
sx_local_host(const struct sx_warp *w, unsigned lane, uint32_t offset, uint32_t bytes)
{
	if ((uint64_t)offset + bytes > w->local_stride)
		return 0;
	return w->local_base + (uint64_t)lane * w->local_stride + offset;
}

/* Reports the access of `lane` at `address` (as the program sees it) as a fault. */
static const struct sx_insn *
sx_bad_access(struct sx_warp *w, const struct sx_insn *i, enum sx_at_kind kind, CUresult code, unsigned lane,
              uint64_t address, uint32_t bytes, uint8_t access)
{
	const char *verb = access == SW_ACCESS_READ ? "read" : access == SW_ACCESS_WRITE ? "write" : "atomic access";
	const char *what = code == CUDA_ERROR_MISALIGNED_ADDRESS ? "misaligned" : "invalid";

	return sx_raise(w, i, code, lane, address, "%s %s memory %s of %u bytes at 0x%llx", what, sx_space_words[kind], verb,
	                bytes, (unsigned long long)address);
}

/* Kernel parameters may be read by generic address too. */
static inline bool
sx_is_param(const struct sx_block_view *view, uint64_t address, uint32_t bytes, uint8_t access)
{
	uint64_t offset = address - (uint64_t)(uintptr_t)view->params;

	return access == SW_ACCESS_READ && offset < view->launch->param_bytes && bytes <= view->launch->param_bytes - offset;
}

/*
 * Host addresses of all lanes of exec, checked: `bytes` at each, aligned to `align`, `access` allowed. False after a fault.
 * Lanes outside exec are 0.
 */
static bool
sx_at(struct sx_warp *w, const struct sx_insn *i, enum sx_at_kind kind, uint32_t bytes, uint32_t align, uint8_t access,
      uint64_t at[SX_LANES])
{
	const struct sx_block_view *view = sx_view(w);
	uint64_t shown[SX_LANES]; /* the address in the program's terms */
	uint32_t lanes = w->exec;

	memset(at, 0, 8 * SX_LANES);
	while (lanes) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t address = (uint64_t)i->imm;
		uint64_t host;

		switch (kind) {
		case SX_AT_GLOBAL:
			address += SX_S64(w, i->a)[l];
			host = address;
			break;
		case SX_AT_FIXED:
			host = address;
			break;
		case SX_AT_SHARED:
			address = (uint32_t)(address + SX_S32(w, i->a)[l]);
			host = sx_shared_host(view, (uint32_t)address, bytes);
			break;
		case SX_AT_SHARED_FIXED:
			address = (uint32_t)address;
			host = sx_shared_host(view, (uint32_t)address, bytes);
			break;
		case SX_AT_LOCAL:
			address = (uint32_t)(address + SX_S32(w, i->a)[l]);
			host = sx_local_host(w, l, (uint32_t)address, bytes);
			break;
		case SX_AT_LOCAL_VAR:
			address = (uint32_t)(address + w->frame->local_offset);
			host = sx_local_host(w, l, (uint32_t)address, bytes);
			break;
		default:
			host = address + bytes <= view->launch->param_bytes && address + bytes >= address
				? (uint64_t)(uintptr_t)view->params + address : 0;
			if (access & SW_ACCESS_WRITE)
				host = 0; /* kernel parameters are constant */
			break;
		}
		shown[l] = address;
		at[l] = host;
	}
	lanes = w->exec;
	while (lanes) {
		unsigned l = sx_next_lane(&lanes);
		CUresult code = CUDA_SUCCESS;

		if (shown[l] & (align - 1))
			code = CUDA_ERROR_MISALIGNED_ADDRESS;
		else if (!at[l])
			code = CUDA_ERROR_ILLEGAL_ADDRESS;
		else if (kind <= SX_AT_FIXED && !sw_space_check(at[l], bytes, access) && !sx_is_param(view, at[l], bytes, access))
			code = CUDA_ERROR_ILLEGAL_ADDRESS;
		if (code != CUDA_SUCCESS) {
			sx_bad_access(w, i, kind, code, l, shown[l], bytes, access);
			return false;
		}
	}
	return true;
}

/* ---- ld and st, every form ---------------------------------------------------------------------------------------- */

/* Element operands of vector forms, in order; the address is i->a. */
static inline uint32_t
sx_element(const struct sx_insn *i, unsigned n)
{
	return n == 0 ? i->d : n == 1 ? i->b : n == 2 ? i->c : i->e;
}

/* What volatile and ordered accesses need besides the access: acquire loads before later accesses, release stores after earlier ones. */
static inline void
sx_mem_order(uint32_t aux, struct sx_warp *w)
{
	if (__builtin_expect(!(aux & (SX_MEM_SPIN | SX_MEM_ORDERED)), 1))
		return;
	w->spinning = true;
	if (aux & SX_MEM_ORDERED)
		__atomic_thread_fence(__ATOMIC_ACQ_REL);
}

/* Kernels race as they please; each value is whole all the same. */
static inline uint64_t
sx_peek(uint64_t at, unsigned log)
{
	switch (log) {
	case 0:
		return __atomic_load_n((const uint8_t *)at, __ATOMIC_RELAXED);
	case 1:
		return __atomic_load_n((const uint16_t *)at, __ATOMIC_RELAXED);
	case 2:
		return __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED);
	default:
		return __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
	}
}

static inline void
sx_poke(uint64_t at, unsigned log, uint64_t value)
{
	switch (log) {
	case 0:
		__atomic_store_n((uint8_t *)at, (uint8_t)value, __ATOMIC_RELAXED);
		break;
	case 1:
		__atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n((uint64_t *)at, value, __ATOMIC_RELAXED);
	}
}

/*
 * A lane's whole vector of up to 32 bytes, in pieces of at most 16. The PTX ISA promises no more than whole elements; GPUs do not tear
 * an aligned vector of 16 bytes, and published scans pass a value with its state that way.
 */
static inline void
sx_copy_whole(uint64_t to, uint64_t from, unsigned bytes)
{
	static const uint8_t logs[9] = { [2] = 1, [4] = 2, [8] = 3 };

	if (bytes < 16)
		sx_poke(to, logs[bytes], sx_peek(from, logs[bytes]));
	for (unsigned n = 0; n + 16 <= bytes; n += 16) {
#if defined(__x86_64__) /* an aligned one is one access on every processor with AVX */
		__asm__ volatile("movdqu %1, %%xmm0\n\tmovdqu %%xmm0, %0"
			: "=m"(*(__int128 *)(to + n)) : "m"(*(const __int128 *)(from + n)) : "xmm0");
#else
		sx_poke(to + n, 3, sx_peek(from + n, 3));
		sx_poke(to + n + 8, 3, sx_peek(from + n + 8, 3));
#endif
	}
}

/* Writes raw values of 1 << log bytes into a register of `bits`, extended or cut as ld says. `high` is of 128-bit elements. */
static void
sx_put_loaded(struct sx_warp *w, uint32_t operand, unsigned bits, unsigned log, bool is_signed, uint64_t raw[SX_LANES],
              const uint64_t high[SX_LANES])
{
	uint32_t narrow[SX_LANES];

	if (operand == SX_NO_REG)
		return;
	if (is_signed && log < 3) {
		unsigned shift = 64 - (8u << log);
		for (int l = 0; l < SX_LANES; l++)
			raw[l] = (uint64_t)((int64_t)(raw[l] << shift) >> shift);
	}
	if (bits >= 64) {
		sx_put64(w, operand, raw);
		if (bits == 128)
			sx_put64(w, operand + 8 * SX_LANES, high);
		return;
	}
	uint32_t mask = bits == 32 ? ~0u : (1u << bits) - 1;
	for (int l = 0; l < SX_LANES; l++)
		narrow[l] = (uint32_t)raw[l] & mask;
	sx_put32(w, operand, narrow);
}

static const struct sx_insn *
sx_ld_any(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t aux = i->aux;
	unsigned log = SX_MEM_LOG(aux), count = SX_MEM_COUNT(aux);
	uint64_t at[SX_LANES], raw[4][SX_LANES], high[SX_LANES];

	if (!sx_at(w, i, SX_MEM_KIND(aux), count << log, SX_MEM_ALIGN(aux), SW_ACCESS_READ, at))
		return NULL;
	memset(raw, 0, sizeof raw[0] * count);
	memset(high, 0, sizeof high);
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t words[4];
		sx_copy_whole((uint64_t)words, at[l], count << log);
		for (unsigned n = 0; n < count; n++)
			memcpy(&raw[n][l], (const uint8_t *)words + (n << log), log < 3 ? 1u << log : 8);
		high[l] = words[1];
	}
	sx_mem_order(aux, w);
	for (unsigned n = 0; n < count; n++)
		sx_put_loaded(w, sx_element(i, n), SX_MEM_BITS(aux), log, aux & SX_MEM_SIGNED, raw[n], high);
	return i + 1;
}

/* A store's source as 64-bit values. */
static inline uint64_t
sx_source_lane(const struct sx_warp *w, uint32_t operand, bool wide, unsigned lane)
{
	return wide ? SX_S64(w, operand)[lane] : SX_S32(w, operand)[lane];
}

static const struct sx_insn *
sx_st_any(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t aux = i->aux;
	unsigned log = SX_MEM_LOG(aux), count = SX_MEM_COUNT(aux);
	uint64_t at[SX_LANES];

	if (!sx_at(w, i, SX_MEM_KIND(aux), count << log, SX_MEM_ALIGN(aux), SW_ACCESS_WRITE, at))
		return NULL;
	sx_mem_order(aux, w);
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t words[4];
		for (unsigned n = 0; n < count; n++) {
			uint64_t value = sx_source_lane(w, sx_element(i, n), SX_MEM_WIDE(aux, n), l);
			memcpy((uint8_t *)words + (n << log), &value, log < 3 ? 1u << log : 8);
		}
		if (log == 4)
			words[1] = SX_S64(w, i->d)[SX_LANES + l];
		sx_copy_whole(at[l], (uint64_t)words, count << log);
	}
	return i + 1;
}

/* ---- parameters of device functions: in the frame ------------------------------------------------------------------ */

/* i->a: frame offset of the first word, imm: byte offset of the element, a multiple of its size. One element. */
static const struct sx_insn *
sx_ld_frame(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned log = SX_MEM_LOG(i->aux);
	const uint64_t *word = SX_S64(w, i->a) + (uint64_t)i->imm / 8 * SX_LANES;
	unsigned shift = (unsigned)(i->imm & 7) * 8;
	uint64_t raw[SX_LANES], mask = log >= 3 ? ~0ull : (1ull << (8u << log)) - 1;

	for (int l = 0; l < SX_LANES; l++)
		raw[l] = word[l] >> shift & mask;
	sx_put_loaded(w, i->d, SX_MEM_BITS(i->aux), log, i->aux & SX_MEM_SIGNED, raw, word + SX_LANES);
	return i + 1;
}

static const struct sx_insn *
sx_st_frame(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned log = SX_MEM_LOG(i->aux);
	uint32_t at = i->a + (uint32_t)(i->imm / 8) * 8 * SX_LANES;
	const uint64_t *word = SX_S64(w, at);
	unsigned shift = (unsigned)(i->imm & 7) * 8;
	uint64_t mask = (log >= 3 ? ~0ull : (1ull << (8u << log)) - 1) << shift, r[SX_LANES];
	bool wide = SX_MEM_WIDE(i->aux, 0);

	if (wide) {
		const uint64_t *value = SX_S64(w, i->d);
		for (int l = 0; l < SX_LANES; l++)
			r[l] = (word[l] & ~mask) | (value[l] << shift & mask);
	} else {
		const uint32_t *value = SX_S32(w, i->d);
		for (int l = 0; l < SX_LANES; l++)
			r[l] = (word[l] & ~mask) | ((uint64_t)value[l] << shift & mask);
	}
	sx_put64(w, at, r);
	if (log == 4)
		sx_put64(w, at + 8 * SX_LANES, SX_S64(w, i->d) + SX_LANES);
	return i + 1;
}

/* ---- conversions of addresses ------------------------------------------------------------------------------------- */

static const struct sx_insn *
sx_copy32(struct sx_warp *w, const struct sx_insn *i)
{
	sx_put32(w, i->d, SX_S32(w, i->a));
	return i + 1;
}

static const struct sx_insn *
sx_copy64(struct sx_warp *w, const struct sx_insn *i)
{
	sx_put64(w, i->d, SX_S64(w, i->a));
	return i + 1;
}

/* 64-bit offsets plus imm as 32-bit ones; what does not fit becomes an offset outside every window. */
static const struct sx_insn *
sx_narrow_offset(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *a = SX_S64(w, i->a);
	uint32_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = (a[l] + (uint64_t)i->imm) >> 32 ? 0xffffff00u : (uint32_t)(a[l] + (uint64_t)i->imm);
	sx_put32(w, i->d, r);
	return i + 1;
}

static const struct sx_insn *
sx_widen_address(struct sx_warp *w, const struct sx_insn *i)
{
	const uint32_t *a = SX_S32(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = a[l];
	sx_put64(w, i->d, r);
	return i + 1;
}

static const struct sx_insn *
sx_cvta_shared(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_block_view *view = sx_view(w);
	const uint64_t *a = SX_S64(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++) {
		uint32_t rank = ((uint32_t)a[l] >> SX_CLUSTER_SHIFT) - 1;
		r[l] = rank < view->cluster_size && view->cluster_shared
			? view->cluster_shared[rank] + (a[l] & SX_CLUSTER_OFFSET) : view->shared_base + a[l];
	}
	sx_put64(w, i->d, r);
	return i + 1;
}

/* The shared address of a generic one: of this block's window, else of the cluster's; else an address in no window. */
static inline uint32_t
sx_shared_offset(const struct sx_block_view *view, uint64_t address)
{
	if (address - view->shared_base <= view->shared_bytes)
		return (uint32_t)(address - view->shared_base);
	for (uint32_t rank = 0; view->cluster_shared && rank < view->cluster_size; rank++)
		if (address - view->cluster_shared[rank] <= view->shared_bytes)
			return (rank + 1) << SX_CLUSTER_SHIFT | (uint32_t)(address - view->cluster_shared[rank]);
	return 0xffffff00u;
}

static const struct sx_insn *
sx_cvta_to_shared(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_block_view *view = sx_view(w);
	const uint64_t *a = SX_S64(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = sx_shared_offset(view, a[l]);
	sx_put64(w, i->d, r);
	return i + 1;
}

static const struct sx_insn *
sx_cvta_local(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *a = SX_S64(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = a[l] + w->local_base + (uint64_t)l * w->local_stride;
	sx_put64(w, i->d, r);
	return i + 1;
}

static const struct sx_insn *
sx_cvta_to_local(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *a = SX_S64(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = a[l] - w->local_base - (uint64_t)l * w->local_stride;
	sx_put64(w, i->d, r);
	return i + 1;
}

/* Tests of isspacep, in i->aux. */
enum sx_isspace { SX_IS_GLOBAL, SX_IS_SHARED, SX_IS_CLUSTER, SX_IS_LOCAL, SX_IS_CONST, SX_IS_PARAM };

static bool
sx_is_space(const struct sx_warp *w, enum sx_isspace space, uint64_t address)
{
	const struct sx_block_view *view = sx_view(w);
	bool shared = address - view->shared_base < view->shared_bytes;
	bool cluster = shared || sx_shared_offset(view, address) >> SX_CLUSTER_SHIFT != 0xff;
	bool local = address - w->local_base < (uint64_t)w->local_stride * SX_LANES;
	bool param = address - (uint64_t)(uintptr_t)view->params < view->launch->param_bytes;

	switch (space) {
	case SX_IS_SHARED:
		return shared;
	case SX_IS_CLUSTER:
		return cluster;
	case SX_IS_LOCAL:
		return local;
	case SX_IS_PARAM:
		return param;
	case SX_IS_CONST:
		return address - view->const_base < view->const_bytes;
	default:
		return address && !cluster && !local && !param;
	}
}

static const struct sx_insn *
sx_isspacep(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *a = SX_S64(w, i->a);
	uint32_t bits = 0;

	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		bits |= (uint32_t)sx_is_space(w, (enum sx_isspace)i->aux, a[l]) << l;
	}
	sx_put_pred(w, i->d, bits);
	return i + 1;
}

/* mapa: the address that the shared address a has in the block with cluster rank b. aux: 1 shared::cluster form, 0 generic. */
static const struct sx_insn *
sx_mapa(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_block_view *view = sx_view(w);
	const uint64_t *a = SX_S64(w, i->a);
	const uint32_t *b = SX_S32(w, i->b);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++) {
		uint32_t rank = b[l] < view->cluster_size ? b[l] : 0;
		uint32_t offset = i->aux ? (uint32_t)a[l] : sx_shared_offset(view, a[l]);
		offset &= SX_CLUSTER_OFFSET;
		if (i->aux)
			r[l] = (rank + 1) << SX_CLUSTER_SHIFT | offset;
		else
			r[l] = (view->cluster_shared ? view->cluster_shared[rank] : view->shared_base) + offset;
	}
	sx_put64(w, i->d, r);
	return i + 1;
}

/* getctarank: the cluster rank of the block that the address is in. */
static const struct sx_insn *
sx_getctarank(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_block_view *view = sx_view(w);
	const uint64_t *a = SX_S64(w, i->a);
	uint32_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++) {
		uint32_t offset = i->aux ? (uint32_t)a[l] : sx_shared_offset(view, a[l]);
		uint32_t rank = (offset >> SX_CLUSTER_SHIFT) - 1;
		r[l] = rank < view->cluster_size ? rank : view->cluster_rank;
	}
	sx_put32(w, i->d, r);
	return i + 1;
}

/* ---- fences and hints --------------------------------------------------------------------------------------------- */

/* A block runs on one thread, so only a fence beyond the block costs anything. aux: 1 sequentially consistent. */
static const struct sx_insn *
sx_fence(struct sx_warp *w, const struct sx_insn *i)
{
	if (i->aux)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	else
		__atomic_thread_fence(__ATOMIC_ACQ_REL);
	return i + 1;
}

/* createpolicy: cache policies are hints without a meaning here; the operand still needs a defined value. */
static const struct sx_insn *
sx_zero64(struct sx_warp *w, const struct sx_insn *i)
{
	static const uint64_t zero[SX_LANES];

	sx_put64(w, i->d, zero);
	return i + 1;
}

/* ---- decoding: modifiers ------------------------------------------------------------------------------------------- */

/* What the modifiers of a memory instruction say. */
struct sx_mem_form {
	enum ptx_space space;
	enum ptx_type type;  /* the last one */
	bool cluster_space;  /* .shared::cluster */
	bool entry, func;    /* .param::entry, .param::func */
	bool ordered;        /* .acquire .release .acq_rel .sc */
	bool sc;
	bool strong;         /* .volatile .relaxed or ordered */
	bool block_scope;    /* .cta: only this block's threads */
	uint8_t vector;      /* 1, 2, 4, 8 */
	bool noftz;
	const char *op;      /* the operation of atom, red, ...: the first modifier that is none of the above */
	const char *op2;     /* the second one */
	bool bad;            /* a third one */
};

struct sx_mod_row {
	const char *name;
	uint16_t meaning;
};
enum { SXM_HINT, SXM_SPACE, SXM_CLUSTER_SPACE, SXM_ENTRY, SXM_FUNC, SXM_STRONG, SXM_ORDERED, SXM_SC, SXM_CTA, SXM_SCOPE,
	SXM_VECTOR, SXM_NOFTZ };

static const struct sx_mod_row sx_mod_rows[] = {
	{ "ca", SXM_HINT }, { "cg", SXM_HINT }, { "cs", SXM_HINT }, { "lu", SXM_HINT }, { "cv", SXM_STRONG },
	{ "wb", SXM_HINT }, { "wt", SXM_HINT }, { "nc", SXM_HINT }, { "weak", SXM_HINT }, { "unified", SXM_HINT },
	{ "volatile", SXM_STRONG }, { "relaxed", SXM_STRONG }, { "mmio", SXM_STRONG },
	{ "acquire", SXM_ORDERED }, { "release", SXM_ORDERED }, { "acq_rel", SXM_ORDERED }, { "sc", SXM_SC },
	{ "cta", SXM_CTA }, { "cluster", SXM_SCOPE }, { "gpu", SXM_SCOPE }, { "sys", SXM_SCOPE },
	{ "noftz", SXM_NOFTZ },
	{ "v2", SXM_VECTOR | 2 << 8 }, { "v4", SXM_VECTOR | 4 << 8 }, { "v8", SXM_VECTOR | 8 << 8 },
	{ "global", SXM_SPACE | PTX_SPACE_GLOBAL << 8 }, { "shared", SXM_SPACE | PTX_SPACE_SHARED << 8 },
	{ "shared::cta", SXM_SPACE | PTX_SPACE_SHARED << 8 },
	{ "shared::cluster", SXM_CLUSTER_SPACE | PTX_SPACE_SHARED << 8 },
	{ "local", SXM_SPACE | PTX_SPACE_LOCAL << 8 }, { "const", SXM_SPACE | PTX_SPACE_CONST << 8 },
	{ "param", SXM_SPACE | PTX_SPACE_PARAM << 8 }, { "param::entry", SXM_ENTRY | PTX_SPACE_PARAM << 8 },
	{ "param::func", SXM_FUNC | PTX_SPACE_PARAM << 8 },
};

static void
sx_mem_modifier(struct sx_mem_form *form, const char *mod)
{
	if (strncmp(mod, "L1::", 4) == 0 || strncmp(mod, "L2::", 4) == 0 || strncmp(mod, "level::", 7) == 0)
		return; /* cache sizes, priorities and hints */
	for (size_t n = 0; n < sizeof sx_mod_rows / sizeof *sx_mod_rows; n++) {
		if (strcmp(mod, sx_mod_rows[n].name) != 0)
			continue;
		unsigned meaning = sx_mod_rows[n].meaning & 0xff, value = sx_mod_rows[n].meaning >> 8;
		if (meaning == SXM_VECTOR)
			form->vector = (uint8_t)value;
		else if (value)
			form->space = (enum ptx_space)value;
		form->cluster_space |= meaning == SXM_CLUSTER_SPACE;
		form->entry |= meaning == SXM_ENTRY;
		form->func |= meaning == SXM_FUNC;
		form->strong |= meaning == SXM_STRONG || meaning == SXM_ORDERED || meaning == SXM_SC;
		form->ordered |= meaning == SXM_ORDERED || meaning == SXM_SC;
		form->sc |= meaning == SXM_SC;
		form->block_scope |= meaning == SXM_CTA;
		form->noftz |= meaning == SXM_NOFTZ;
		return;
	}
	if (!form->op)
		form->op = mod;
	else if (!form->op2)
		form->op2 = mod;
	else
		form->bad = true;
}

static struct sx_mem_form
sx_mem_form(const struct ptx_insn *in)
{
	struct sx_mem_form form = { .vector = 1 };

	for (unsigned n = 0; n < in->mod_count; n++) {
		bool is_type = false;
		for (unsigned t = 0; t < in->type_count; t++)
			is_type |= strcmp(in->mods[n], ptx_type_names[in->types[t]]) == 0;
		if (!is_type)
			sx_mem_modifier(&form, in->mods[n]);
	}
	if (in->type_count)
		form.type = (enum ptx_type)in->types[in->type_count - 1];
	return form;
}

static inline unsigned
sx_log2(unsigned value)
{
	return (unsigned)__builtin_ctz(value);
}

/* ---- decoding: addresses -------------------------------------------------------------------------------------------- */

/* The address of an operand for a handler: sets *kind, *reg (i->a) and *imm. False if it can be none. */
struct sx_operand_at {
	enum sx_at_kind kind;
	uint32_t reg;
	int64_t imm;
	bool frame; /* a parameter in a frame: reg and imm, kind says nothing */
};

static uint32_t
sx_unary_temp(struct sx_decoder *d, sx_fn fn, uint32_t source, unsigned bits)
{
	uint32_t temp = sxd_temp(d, bits);
	struct sx_insn *i = sxd_emit(d, fn);
	i->d = temp;
	i->a = source;
	return temp;
}

static bool
sx_operand_at(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_space space, struct sx_operand_at *at)
{
	struct sxd_address address = sxd_address(d, operand, space);
	enum sx_at_kind reg_kind = SX_AT_GLOBAL, fixed_kind = SX_AT_FIXED;

	switch (address.space) {
	case PTX_SPACE_SHARED:
		reg_kind = SX_AT_SHARED;
		fixed_kind = SX_AT_SHARED_FIXED;
		break;
	case PTX_SPACE_LOCAL:
		reg_kind = SX_AT_LOCAL;
		break;
	case PTX_SPACE_PARAM: /* never in a register: the decoder makes those generic */
		fixed_kind = SX_AT_PARAM;
		break;
	default:
		break;
	}
	*at = (struct sx_operand_at){ .reg = address.reg, .imm = address.imm };
	switch (address.kind) {
	case SXD_UNIFORM:
		if (address.space == PTX_SPACE_LOCAL) { /* an absolute address of the stack */
			at->reg = sxd_const32(d, 0);
			fixed_kind = SX_AT_LOCAL;
		}
		at->kind = fixed_kind;
		return true;
	case SXD_REG32:
		at->kind = reg_kind;
		if (reg_kind == SX_AT_GLOBAL)
			at->reg = sx_unary_temp(d, sx_widen_address, address.reg, 64);
		return true;
	case SXD_REG64:
		at->kind = reg_kind;
		if (reg_kind == SX_AT_GLOBAL)
			return true;
		at->reg = sxd_temp(d, 32); /* the sum may fit where the register alone does not */
		struct sx_insn *i = sxd_emit(d, sx_narrow_offset);
		i->d = at->reg;
		i->a = address.reg;
		i->imm = address.imm;
		at->imm = 0;
		return true;
	case SXD_PARAM:
		at->kind = SX_AT_PARAM;
		return true;
	case SXD_LOCAL:
		at->kind = SX_AT_LOCAL_VAR;
		return true;
	case SXD_FRAME:
		at->frame = true;
		return true;
	default:
		return false;
	}
}

/* The elements of a vector or the one scalar. 0 when there are not as many as the form says. */
static unsigned
sx_elements(const struct ptx_operand *operand, unsigned vector, const struct ptx_operand **elements)
{
	if (vector == 1 && operand->kind != PTX_OP_VECTOR) {
		elements[0] = operand;
		return 1;
	}
	if (operand->kind != PTX_OP_VECTOR || operand->count != vector)
		return 0;
	for (unsigned n = 0; n < vector; n++)
		elements[n] = &operand->elems[n];
	return vector;
}

/* ---- decoding: ld and st -------------------------------------------------------------------------------------------- */

static uint32_t
sx_mem_aux(const struct sx_mem_form *form, enum sx_at_kind kind, unsigned bytes, unsigned count, unsigned align)
{
	bool is_signed = form->type == PTX_s8 || form->type == PTX_s16 || form->type == PTX_s32;

	return (uint32_t)kind | sx_log2(bytes) << 3 | sx_log2(count) << 6 | (is_signed ? SX_MEM_SIGNED : 0) |
		(form->ordered ? SX_MEM_ORDERED : 0) | (form->strong ? SX_MEM_SPIN : 0) | sx_log2(align) << 12;
}

static inline void
sx_set_element(struct sx_insn *i, unsigned n, uint32_t operand)
{
	*(n == 0 ? &i->d : n == 1 ? &i->b : n == 2 ? &i->c : &i->e) = operand;
}

/* Checks what ld and st have in common. The number of elements, or 0. */
static unsigned
sx_access_form(const struct sx_mem_form *form, const struct ptx_operand *value, const struct ptx_operand **elements)
{
	unsigned bits = form->type ? ptx_type_bits[form->type] : 0;

	if (form->op || bits < 8 || bits > 128 || (bits & (bits - 1)) || bits * form->vector > 256)
		return 0;
	return sx_elements(value, form->vector, elements);
}

#include "soft/exec/mem_fast.c"

/* Emits the load of up to four elements at `at`. */
static bool
sx_emit_ld(struct sx_decoder *d, const struct sx_mem_form *form, const struct sx_operand_at *at,
           const struct ptx_operand *const *elements, unsigned count, unsigned align)
{
	unsigned bytes = ptx_type_bits[form->type] / 8, bits = 0;
	uint32_t regs[4];

	for (unsigned n = 0; n < count; n++) {
		regs[n] = sxd_dst(d, elements[n]);
		if (regs[n] == SX_NO_REG)
			continue;
		unsigned own = sxd_bits(d, elements[n]);
		if (own < 8 || own < 8 * bytes || (bits && own != bits))
			return false; /* a register narrower than the type, or a predicate */
		bits = own;
	}
	uint32_t aux = sx_mem_aux(form, at->kind, bytes, count, align) | sx_log2((bits ? bits : 32) / 8) << 16;
	struct sx_insn *i = sxd_emit(d, at->frame ? sx_ld_frame : sx_pick_ld(aux));
	i->a = at->reg;
	i->imm = at->imm;
	i->aux = aux;
	for (unsigned n = 0; n < count; n++)
		sx_set_element(i, n, regs[n]);
	for (unsigned n = 0; n < count; n++)
		if (regs[n] == SX_NO_REG && !at->frame)
			i->fn = sx_ld_any;
	return true;
}

static bool
sx_emit_st(struct sx_decoder *d, const struct sx_mem_form *form, const struct sx_operand_at *at,
           const struct ptx_operand *const *elements, unsigned count, unsigned align)
{
	unsigned bytes = ptx_type_bits[form->type] / 8;
	uint32_t aux = sx_mem_aux(form, at->kind, bytes, count, align);
	uint32_t regs[4];

	for (unsigned n = 0; n < count; n++) {
		unsigned own = sxd_bits(d, elements[n]);
		if ((own && (own < 8 || own < 8 * bytes)) || (!own && bytes > 8))
			return false;
		regs[n] = sxd_src(d, elements[n], form->type);
		if (own ? own >= 64 : bytes == 8)
			aux |= 1u << (20 + n);
	}
	struct sx_insn *i = sxd_emit(d, at->frame ? sx_st_frame : sx_pick_st(aux));
	i->a = at->reg;
	i->imm = at->imm;
	i->aux = aux;
	for (unsigned n = 0; n < count; n++)
		sx_set_element(i, n, regs[n]);
	return true;
}

/* Bytes of the words that a parameter or .param variable has in its frame. */
static uint64_t
sx_frame_bytes(struct sx_decoder *d, const struct ptx_operand *place)
{
	const struct ptx_func *func = sxd_func(d);
	uint64_t size = 0;

	if (place->symbol_kind == PTX_SYM_PARAM && place->symbol < func->param_count)
		size = func->params[place->symbol].size;
	else if (place->symbol_kind == PTX_SYM_RETURN_PARAM && place->symbol < func->return_count)
		size = func->returns[place->symbol].size;
	else if (place->symbol_kind == PTX_SYM_LOCAL_VAR && place->symbol < func->local_count)
		size = func->locals[place->symbol].size;
	else
		return 0;
	return size ? (size + 7) / 8 * 8 : 8;
}

/* A call's parameters: an instruction for each element. */
static bool
sx_emit_frame(struct sx_decoder *d, const struct sx_mem_form *form, const struct ptx_operand *place, const struct sx_operand_at *at,
              const struct ptx_operand *const *elements, unsigned count, bool load)
{
	unsigned bytes = ptx_type_bits[form->type] / 8;
	uint64_t size = sx_frame_bytes(d, place);

	if (at->imm < 0 || (uint64_t)at->imm > size || (uint64_t)bytes * count > size - (uint64_t)at->imm) {
		sxd_fail(d, "access outside of the parameter");
		return true;
	}
	for (unsigned n = 0; n < count; n++) {
		struct sx_operand_at one = *at;
		one.imm += n * bytes;
		if (one.imm % bytes) {
			sxd_fail(d, "misaligned parameter access");
			return true;
		}
		if (!(load ? sx_emit_ld : sx_emit_st)(d, form, &one, &elements[n], 1, bytes))
			return false;
	}
	return true;
}

static bool sx_emit_arrived(struct sx_decoder *d, const struct ptx_operand *barrier, const struct sx_mem_form *form);

/* st.async...mbarrier::complete_tx::bytes [a], value, [mbarrier] */
static bool
sx_decode_store_async(struct sx_decoder *d, const struct ptx_insn *in, struct sx_mem_form form)
{
	const struct ptx_operand *elements[8];
	struct sx_operand_at at;

	if (in->operand_count != 3 || !form.op2 || strcmp(form.op2, "mbarrier::complete_tx::bytes") != 0)
		return false;
	form.op = NULL;
	unsigned count = sx_access_form(&form, &in->operands[1], elements);
	if (!count || count > 4 || form.space != PTX_SPACE_SHARED || !sx_operand_at(d, &in->operands[0], form.space, &at) || at.frame)
		return false;
	return sx_emit_st(d, &form, &at, elements, count, ptx_type_bits[form.type] / 8 * count) &&
		sx_emit_arrived(d, &in->operands[2], &form);
}

static bool
sx_decode_ldst(struct sx_decoder *d, const struct ptx_insn *in, bool load)
{
	struct sx_mem_form form = sx_mem_form(in);
	const struct ptx_operand *elements[8];
	struct sx_operand_at at;

	if (!load && form.op && strcmp(form.op, "async") == 0)
		return sx_decode_store_async(d, in, form);
	if (in->operand_count < 2 || in->operand_count > 3 || form.bad)
		return false;
	const struct ptx_operand *value = &in->operands[load ? 0 : 1], *place = &in->operands[load ? 1 : 0];
	unsigned count = sx_access_form(&form, value, elements);
	if (!count || place->kind != PTX_OP_ADDRESS || (!load && form.space == PTX_SPACE_CONST))
		return false;
	if (!sx_operand_at(d, place, form.space, &at))
		return false;
	if (at.frame)
		return sx_emit_frame(d, &form, place, &at, elements, count, load);
	unsigned bytes = ptx_type_bits[form.type] / 8, align = bytes * count;
	bool (*emit)(struct sx_decoder *, const struct sx_mem_form *, const struct sx_operand_at *,
	             const struct ptx_operand *const *, unsigned, unsigned) = load ? sx_emit_ld : sx_emit_st;
	if (count <= 4)
		return emit(d, &form, &at, elements, count, align);
	/* Eight elements: two instructions. The first may overwrite the address, so both use a copy. */
	if (load && at.kind != SX_AT_FIXED && at.kind != SX_AT_SHARED_FIXED && at.kind != SX_AT_LOCAL_VAR && at.kind != SX_AT_PARAM)
		at.reg = sx_unary_temp(d, at.kind == SX_AT_GLOBAL ? sx_copy64 : sx_copy32, at.reg, at.kind == SX_AT_GLOBAL ? 64 : 32);
	struct sx_operand_at upper = at;
	upper.imm += 4 * bytes;
	return emit(d, &form, &at, elements, 4, align) && emit(d, &form, &upper, elements + 4, 4, align / 2);
}

/* ---- decoding: the rest ---------------------------------------------------------------------------------------------- */

/* An address as a value, in a 64-bit slot. */
static uint32_t
sx_address_source(struct sx_decoder *d, const struct ptx_operand *operand)
{
	unsigned bits = operand->kind == PTX_OP_REG ? sxd_bits(d, operand) : 64;
	uint32_t source = sxd_src(d, operand, PTX_u64);

	if (bits == 32)
		return sx_unary_temp(d, sx_widen_address, source, 64);
	if (bits != 64)
		sxd_fail(d, "the address is neither 32 nor 64 bits wide");
	return source;
}

static bool
sx_decode_cvta(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct sx_mem_form form = sx_mem_form(in);
	bool to = form.op && strcmp(form.op, "to") == 0;

	if (in->operand_count != 2 || (form.op && !to) || form.op2 || form.type != PTX_u64 || sxd_bits(d, &in->operands[0]) != 64)
		return false;
	uint32_t source = sx_address_source(d, &in->operands[1]);
	sx_fn fn = sx_copy64;
	switch (form.space) {
	case PTX_SPACE_GLOBAL:
	case PTX_SPACE_CONST:
	case PTX_SPACE_PARAM: /* the address of a kernel parameter is generic from the start */
		break;
	case PTX_SPACE_SHARED:
		fn = to ? sx_cvta_to_shared : sx_cvta_shared;
		break;
	case PTX_SPACE_LOCAL:
		fn = to ? sx_cvta_to_local : sx_cvta_local;
		break;
	default:
		return false;
	}
	uint32_t target = sxd_dst(d, &in->operands[0]);
	if (target == SX_NO_REG)
		return true;
	struct sx_insn *i = sxd_emit(d, fn);
	i->d = target;
	i->a = source;
	return true;
}

static bool
sx_decode_isspacep(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct sx_mem_form form = sx_mem_form(in);
	static const enum sx_isspace tests[] = { [PTX_SPACE_GLOBAL] = SX_IS_GLOBAL, [PTX_SPACE_CONST] = SX_IS_CONST,
		[PTX_SPACE_LOCAL] = SX_IS_LOCAL, [PTX_SPACE_PARAM] = SX_IS_PARAM, [PTX_SPACE_SHARED] = SX_IS_SHARED };

	if (in->operand_count != 2 || form.op || form.type || !form.space || sxd_bits(d, &in->operands[0]) != 1)
		return false;
	uint32_t source = sx_address_source(d, &in->operands[1]);
	uint32_t target = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, sx_isspacep);
	i->d = target;
	i->a = source;
	i->aux = form.cluster_space ? SX_IS_CLUSTER : tests[form.space];
	return true;
}

/* Emits fn with a 32- or 64-bit register as its destination, through a 64-bit temporary when the register has 32 bits. */
static bool
sx_emit_to(struct sx_decoder *d, const struct ptx_operand *target, sx_fn fn, uint32_t a, uint32_t b, uint32_t aux)
{
	uint32_t reg = sxd_dst(d, target);
	bool narrow = sxd_bits(d, target) == 32;
	uint32_t result = narrow ? sxd_temp(d, 64) : reg;
	struct sx_insn *i = sxd_emit(d, fn);

	i->d = result;
	i->a = a;
	i->b = b;
	i->aux = aux;
	if (narrow) {
		i = sxd_emit(d, sx_narrow_offset);
		i->d = reg;
		i->a = result;
	}
	return true;
}

static bool
sx_decode_cluster_address(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct sx_mem_form form = sx_mem_form(in);
	bool mapa = sxd_is(in, "mapa");

	if (in->operand_count != (mapa ? 3 : 2) || form.op || (form.type != PTX_u32 && form.type != PTX_u64))
		return false;
	if (form.space != PTX_SPACE_NONE && !form.cluster_space)
		return false;
	unsigned bits = sxd_bits(d, &in->operands[0]);
	if (bits != (mapa ? ptx_type_bits[form.type] : 32))
		return false;
	uint32_t a = sx_address_source(d, &in->operands[1]);
	if (mapa) {
		unsigned rank_bits = sxd_bits(d, &in->operands[2]);
		return (rank_bits == 0 || rank_bits == 32) &&
			sx_emit_to(d, &in->operands[0], sx_mapa, a, sxd_src(d, &in->operands[2], PTX_u32), form.cluster_space);
	}
	uint32_t target = sxd_dst(d, &in->operands[0]);
	struct sx_insn *i = sxd_emit(d, sx_getctarank);
	i->d = target;
	i->a = a;
	i->aux = form.cluster_space;
	return true;
}

/*
 * fence and membar. membar.cta and fence of .cta or .cluster scope order what one thread does anyway; the proxies (async, alias,
 * tensormap) are one memory here.
 */
static bool
sx_decode_fence(struct sx_decoder *d, const struct ptx_insn *in)
{
	bool membar = sxd_is(in, "membar"), wide = false, sc = membar;

	/* Only the proxy fences name memory: [address], size. */
	if (in->mod_count == 0 || (in->operand_count != 0 && strncmp(in->mods[0], "proxy", 5) != 0))
		return false;
	for (unsigned n = 0; n < in->mod_count; n++) {
		const char *mod = in->mods[n];
		wide |= !strcmp(mod, "gl") || !strcmp(mod, "gpu") || !strcmp(mod, "sys");
		sc |= !strcmp(mod, "sc");
	}
	struct sx_insn *i = sxd_emit(d, sx_fence);
	i->aux = wide && sc;
	return true;
}

static bool
sx_decode_hint(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (sxd_is(in, "createpolicy")) {
		if (in->operand_count < 1 || sxd_bits(d, &in->operands[0]) != 64)
			return false;
		uint32_t target = sxd_dst(d, &in->operands[0]);
		sxd_emit(d, sx_zero64)->d = target;
		return true;
	}
	return true; /* prefetch, prefetchu, applypriority, discard */
}

#include "soft/exec/async.c"
#include "soft/exec/atom.c"
#include "soft/exec/matrix.c"

bool
sx_decode_mem(struct sx_decoder *d, const struct ptx_insn *in)
{
	static const char *const hints[] = { "prefetch", "prefetchu", "discard", "applypriority", "createpolicy" };

	if (sxd_is(in, "ld") || sxd_is(in, "ldu"))
		return sx_decode_ldst(d, in, true);
	if (sxd_is(in, "st"))
		return sx_decode_ldst(d, in, false);
	if (sxd_is(in, "cvta"))
		return sx_decode_cvta(d, in);
	if (sxd_is(in, "isspacep"))
		return sx_decode_isspacep(d, in);
	if (sxd_is(in, "mapa") || sxd_is(in, "getctarank"))
		return sx_decode_cluster_address(d, in);
	if (sxd_is(in, "fence") || sxd_is(in, "membar"))
		return sx_decode_fence(d, in);
	for (size_t n = 0; n < sizeof hints / sizeof *hints; n++)
		if (sxd_is(in, hints[n]))
			return sx_decode_hint(d, in);
	if (sxd_is(in, "cp"))
		return sx_decode_cp(d, in);
	if (sxd_is(in, "mbarrier"))
		return sx_decode_mbarrier(d, in);
	return sx_decode_atom(d, in) || sx_decode_matrix(d, in);
}

#endif
