/*
 * Asynchronous copies and memory barriers: cp.async, cp.async.bulk without tensors, st.async, red.async, mbarrier. Included by mem.c.
 *
 * A copy is done when it is issued, which PTX allows; so commit and wait groups have nothing to wait for, and a copy that
 * completes on an mbarrier completes at once. All blocks of a cluster run on one OS thread, so barriers need no atomics.
 *
 * An mbarrier object is 64 bits of our own layout (PTX leaves it open): see struct sx_mbarrier. The state that arrive returns is
 * the object before the arrival.
 */
#ifndef SX_ASYNC_C
#define SX_ASYNC_C

/* ---- mbarrier -------------------------------------------------------------------------------------------------------- */

#define SX_MBAR_COUNT_MAX 0xfffffu /* 2^20 - 1, PTX ISA 9.7.13.15.2 */

struct sx_mbarrier {
	uint32_t expected; /* arrivals of each phase: 20 bits */
	uint32_t pending;  /* arrivals missing in this phase: 20 bits */
	int32_t tx;        /* bytes still to come: 21 bits, signed */
	uint32_t phase;    /* 3 bits, wraps */
};

static inline struct sx_mbarrier
sx_mbar_unpack(uint64_t word)
{
	return (struct sx_mbarrier){ .expected = word & SX_MBAR_COUNT_MAX, .pending = word >> 20 & SX_MBAR_COUNT_MAX,
		.tx = (int32_t)((int64_t)(word << 3) >> 43), .phase = (uint32_t)(word >> 61) };
}

static inline uint64_t
sx_mbar_pack(struct sx_mbarrier b)
{
	return (uint64_t)(b.expected & SX_MBAR_COUNT_MAX) | (uint64_t)(b.pending & SX_MBAR_COUNT_MAX) << 20 |
		(uint64_t)((uint32_t)b.tx & 0x1fffff) << 40 | (uint64_t)(b.phase & 7) << 61;
}

static inline void
sx_mbar_settle(struct sx_mbarrier *b)
{
	if (b->pending == 0 && b->tx == 0) {
		b->phase++;
		b->pending = b->expected;
	}
}

static inline void
sx_mbar_complete_tx(uint64_t at, uint64_t bytes)
{
	struct sx_mbarrier b = sx_mbar_unpack(sx_peek(at, 3));

	b.tx -= (int32_t)bytes;
	sx_mbar_settle(&b);
	sx_poke(at, 3, sx_mbar_pack(b));
}

enum sx_mbar_op { SX_MBAR_INIT, SX_MBAR_INVAL, SX_MBAR_EXPECT_TX, SX_MBAR_COMPLETE_TX, SX_MBAR_ARRIVE, SX_MBAR_ARRIVE_TX,
	SX_MBAR_DROP, SX_MBAR_DROP_TX, SX_MBAR_ASYNC, SX_MBAR_TEST, SX_MBAR_TEST_PARITY };
#define SX_MBAR_OP(aux) ((enum sx_mbar_op)((aux) >> 16 & 0xff))
#define SX_MBAR_WIDE (1u << 24) /* the value is a 64-bit slot */

/* Changes the object as the operation says; `value` is its count, bytes, state or parity. Returns what test asks, else 0. */
static inline bool
sx_mbar_apply(struct sx_mbarrier *b, enum sx_mbar_op op, uint64_t value)
{
	uint32_t arrivals = 1;

	switch (op) {
	case SX_MBAR_INIT:
		*b = (struct sx_mbarrier){ .expected = (uint32_t)value, .pending = (uint32_t)value };
		return false;
	case SX_MBAR_INVAL:
		*b = (struct sx_mbarrier){ 0 };
		return false;
	case SX_MBAR_EXPECT_TX:
		b->tx += (int32_t)value;
		return false;
	case SX_MBAR_COMPLETE_TX:
		b->tx -= (int32_t)value;
		sx_mbar_settle(b);
		return false;
	case SX_MBAR_TEST:
		return b->phase != sx_mbar_unpack(value).phase;
	case SX_MBAR_TEST_PARITY:
		return (b->phase & 1) != (value & 1);
	case SX_MBAR_ASYNC: /* counts itself in and, its copies being done, out again */
		return false;
	case SX_MBAR_ARRIVE_TX:
	case SX_MBAR_DROP_TX:
		b->tx += (int32_t)value;
		break;
	default:
		arrivals = (uint32_t)value;
		break;
	}
	if (op == SX_MBAR_DROP || op == SX_MBAR_DROP_TX)
		b->expected -= arrivals < b->expected ? arrivals : b->expected;
	b->pending -= arrivals < b->pending ? arrivals : b->pending;
	sx_mbar_settle(b);
	return false;
}

/* a address, b value, d state or predicate. */
static const struct sx_insn *
sx_mbar(struct sx_warp *w, const struct sx_insn *i)
{
	enum sx_mbar_op op = SX_MBAR_OP(i->aux);
	bool test = op == SX_MBAR_TEST || op == SX_MBAR_TEST_PARITY, wide = i->aux & SX_MBAR_WIDE;
	uint64_t at[SX_LANES], state[SX_LANES] = { 0 };
	uint32_t yes = 0;

	w->spinning = true;
	if (!sx_at(w, i, SX_MEM_KIND(i->aux), 8, 8, SW_ACCESS_READ | SW_ACCESS_WRITE, at))
		return NULL;
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t value = i->b == SX_NO_REG ? 0 : sx_source_lane(w, i->b, wide, l);
		state[l] = sx_peek(at[l], 3);
		struct sx_mbarrier b = sx_mbar_unpack(state[l]);
		yes |= (uint32_t)sx_mbar_apply(&b, op, value) << l;
		if (!test)
			sx_poke(at[l], 3, sx_mbar_pack(b));
	}
	if (test)
		sx_put_pred(w, i->d, yes);
	else if (i->d != SX_NO_REG)
		sx_put64(w, i->d, state);
	return i + 1;
}

/* d: count, a: state */
static const struct sx_insn *
sx_mbar_pending(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *a = SX_S64(w, i->a);
	uint32_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = sx_mbar_unpack(a[l]).pending;
	sx_put32(w, i->d, r);
	return i + 1;
}

/* ---- copies ------------------------------------------------------------------------------------------------------------ */

/*
 * A second or third address of an instruction: register operand and offset, always generic. Shared addresses are made generic by
 * instructions in front (sx_generic_operand).
 */
static inline bool
sx_check_generic(struct sx_warp *w, const struct sx_insn *i, unsigned lane, uint64_t address, uint64_t bytes, unsigned align,
                 uint8_t access)
{
	CUresult code = CUDA_SUCCESS;

	if (address & (align - 1))
		code = CUDA_ERROR_MISALIGNED_ADDRESS;
	else if (bytes && !sw_space_check(address, bytes, access))
		code = CUDA_ERROR_ILLEGAL_ADDRESS;
	if (code == CUDA_SUCCESS)
		return true;
	sx_bad_access(w, i, SX_AT_GLOBAL, code, lane, address, (uint32_t)bytes, access);
	return false;
}

#define SX_COPY_SIZED (1u << 20)   /* c is the number of source bytes, the rest is zero */
#define SX_COPY_IGNORED (1u << 21) /* c is a predicate: where set, zeros are written */

/* cp.async. a and imm: destination in shared memory, b: generic source; c as the flags say; bytes 1 << SX_MEM_LOG. */
static const struct sx_insn *
sx_copy_async(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned bytes = 1u << SX_MEM_LOG(i->aux);
	const uint64_t *source = SX_S64(w, i->b);
	uint64_t at[SX_LANES];

	if (!sx_at(w, i, SX_MEM_KIND(i->aux), bytes, bytes, SW_ACCESS_WRITE, at))
		return NULL;
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint32_t size = bytes;
		if (i->aux & SX_COPY_SIZED)
			size = SX_S32(w, i->c)[l] < bytes ? SX_S32(w, i->c)[l] : bytes;
		else if ((i->aux & SX_COPY_IGNORED) && (SX_SP(w, i->c) >> l & 1))
			size = 0;
		uint64_t from = source[l] + (uint64_t)(int64_t)(int32_t)i->f;
		if (size && !sx_check_generic(w, i, l, from, size, bytes, SW_ACCESS_READ))
			return NULL;
		uint8_t block[16] = { 0 };
		memcpy(block, (const void *)(uintptr_t)from, size);
		memcpy((void *)(uintptr_t)at[l], block, bytes);
	}
	return i + 1;
}

#define SX_BULK_MAX (1u << 20) /* more than any shared window */

/* cp.async.bulk. a destination, b source, e mbarrier or SX_NO_REG: generic; c bytes. */
static const struct sx_insn *
sx_copy_bulk(struct sx_warp *w, const struct sx_insn *i)
{
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t to = SX_S64(w, i->a)[l], from = SX_S64(w, i->b)[l];
		uint32_t size = SX_S32(w, i->c)[l];
		if ((size & 15) || size > SX_BULK_MAX)
			return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, l, to, "size %u of a bulk copy is no multiple of 16", size);
		if (!sx_check_generic(w, i, l, to, size, 16, SW_ACCESS_WRITE) || !sx_check_generic(w, i, l, from, size, 16, SW_ACCESS_READ))
			return NULL;
		memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, size);
		if (i->e == SX_NO_REG)
			continue;
		uint64_t barrier = SX_S64(w, i->e)[l];
		if (!sx_check_generic(w, i, l, barrier, 8, 8, SW_ACCESS_READ | SW_ACCESS_WRITE))
			return NULL;
		sx_mbar_complete_tx(barrier, size);
	}
	return i + 1;
}

/* The same into the shared memory of several blocks: f is the mask of their ranks; destination and barrier lie at the same offsets. */
static const struct sx_insn *
sx_copy_multicast(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_block_view *view = sx_view(w);

	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		uint64_t from = SX_S64(w, i->b)[l];
		uint32_t to = sx_shared_offset(view, SX_S64(w, i->a)[l]) & SX_CLUSTER_OFFSET;
		uint32_t barrier = sx_shared_offset(view, SX_S64(w, i->e)[l]) & SX_CLUSTER_OFFSET;
		uint32_t size = SX_S32(w, i->c)[l], ranks = SX_S32(w, i->f)[l] & 0xffff;
		if ((size & 15) || size > SX_BULK_MAX)
			return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, l, to, "size %u of a bulk copy is no multiple of 16", size);
		if (!sx_check_generic(w, i, l, from, size, 16, SW_ACCESS_READ))
			return NULL;
		for (; ranks; ranks &= ranks - 1) {
			uint32_t rank = (uint32_t)__builtin_ctz(ranks) + 1;
			uint64_t place = sx_shared_host(view, rank << SX_CLUSTER_SHIFT | to, size);
			uint64_t object = sx_shared_host(view, rank << SX_CLUSTER_SHIFT | barrier, 8);
			if (!place || !object || (place & 15) || (object & 7))
				return sx_bad_access(w, i, SX_AT_SHARED, CUDA_ERROR_ILLEGAL_ADDRESS, l, to, size, SW_ACCESS_WRITE);
			memmove((void *)(uintptr_t)place, (const void *)(uintptr_t)from, size);
			sx_mbar_complete_tx(object, size);
		}
	}
	return i + 1;
}

/* What follows st.async and red.async: b bytes (a number, no operand) have arrived at the mbarrier at a and imm. */
static const struct sx_insn *
sx_mbar_bytes(struct sx_warp *w, const struct sx_insn *i)
{
	uint64_t at[SX_LANES];

	if (!sx_at(w, i, SX_MEM_KIND(i->aux), 8, 8, SW_ACCESS_READ | SW_ACCESS_WRITE, at))
		return NULL;
	for (uint32_t lanes = w->exec; lanes;) {
		unsigned l = sx_next_lane(&lanes);
		sx_mbar_complete_tx(at[l], i->b);
	}
	return i + 1;
}

/* ---- decoding ------------------------------------------------------------------------------------------------------------ */

/* A 32-bit count: register, immediate or special register. */
static bool
sx_count_source(struct sx_decoder *d, const struct ptx_operand *operand, uint32_t *source)
{
	unsigned bits = sxd_bits(d, operand);

	if (operand->kind == PTX_OP_ADDRESS || (bits != 0 && bits != 32))
		return false;
	*source = sxd_src(d, operand, PTX_u32);
	return true;
}

/* A 64-bit temporary that fn computes from a register and an offset. */
static uint32_t
sx_offset_temp(struct sx_decoder *d, sx_fn fn, uint32_t source, int64_t imm)
{
	uint32_t temp = sxd_temp(d, 64);
	struct sx_insn *i = sxd_emit(d, fn);

	i->d = temp;
	i->a = source;
	i->imm = imm;
	return temp;
}

/* The generic address of the shared address a + imm. */
static const struct sx_insn *
sx_shared_generic(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sx_block_view *view = sx_view(w);
	const uint64_t *a = SX_S64(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++) {
		uint32_t offset = (uint32_t)(a[l] + (uint64_t)i->imm);
		uint64_t host = sx_shared_host(view, offset, 1);
		r[l] = host ? host : ~0ull << 16; /* outside every window: faults at the access, with any alignment */
	}
	sx_put64(w, i->d, r);
	return i + 1;
}

/* d = a + imm, 64 bits */
static const struct sx_insn *
sx_add_offset(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *a = SX_S64(w, i->a);
	uint64_t r[SX_LANES];

	for (int l = 0; l < SX_LANES; l++)
		r[l] = a[l] + (uint64_t)i->imm;
	sx_put64(w, i->d, r);
	return i + 1;
}

/* Any address as a 64-bit slot of generic addresses. */
static bool
sx_generic_operand(struct sx_decoder *d, const struct ptx_operand *operand, enum ptx_space space, uint32_t *source)
{
	struct sx_operand_at at;

	if (operand->kind != PTX_OP_ADDRESS || !sx_operand_at(d, operand, space, &at) || at.frame)
		return false;
	switch (at.kind) {
	case SX_AT_FIXED:
		*source = sxd_const64(d, (uint64_t)at.imm);
		return true;
	case SX_AT_GLOBAL:
		*source = at.imm ? sx_offset_temp(d, sx_add_offset, at.reg, at.imm) : at.reg;
		return true;
	case SX_AT_SHARED:
		*source = sx_unary_temp(d, sx_widen_address, at.reg, 64);
		break;
	case SX_AT_SHARED_FIXED:
		*source = sxd_const64(d, 0);
		break;
	default:
		return false;
	}
	*source = sx_offset_temp(d, sx_shared_generic, *source, at.imm);
	return true;
}

/* A destination for a state or "_". */
static bool
sx_state_target(struct sx_decoder *d, const struct ptx_operand *operand, uint32_t *target)
{
	if (operand->kind != PTX_OP_SINK && (operand->kind != PTX_OP_REG || sxd_bits(d, operand) != 64))
		return false;
	*target = sxd_dst(d, operand);
	return true;
}

static bool
sx_emit_mbar(struct sx_decoder *d, const struct ptx_operand *place, enum ptx_space space, enum sx_mbar_op op, uint32_t target,
             uint32_t value, bool wide)
{
	struct sx_operand_at at;

	if (place->kind != PTX_OP_ADDRESS || !sx_operand_at(d, place, space, &at) || at.frame)
		return false;
	struct sx_insn *i = sxd_emit(d, sx_mbar);
	i->d = target;
	i->a = at.reg;
	i->imm = at.imm;
	i->b = value;
	i->aux = (uint32_t)at.kind | 3 << 3 | (uint32_t)op << 16 | (wide ? SX_MBAR_WIDE : 0);
	return true;
}

/* mbarrier.test_wait and try_wait: p, [a], state or parity {, time hint} */
static bool
sx_decode_mbar_wait(struct sx_decoder *d, const struct ptx_insn *in, const struct sx_mem_form *form, bool parity)
{
	const struct ptx_operand *o = in->operands;
	unsigned bits = in->operand_count >= 3 ? sxd_bits(d, &o[2]) : 0;

	if (in->operand_count < 3 || in->operand_count > 4 || o[0].kind != PTX_OP_REG || sxd_bits(d, &o[0]) != 1)
		return false;
	if (bits && bits != (parity ? 32 : 64))
		return false;
	uint32_t value = sxd_src(d, &o[2], parity ? PTX_u32 : PTX_u64);
	return sx_emit_mbar(d, &o[1], form->space, parity ? SX_MBAR_TEST_PARITY : SX_MBAR_TEST, sxd_dst(d, &o[0]), value, !parity);
}

/* mbarrier.arrive and arrive_drop {.expect_tx}: {state or _,} [a] {, count or bytes} */
static bool
sx_decode_mbar_arrive(struct sx_decoder *d, const struct ptx_insn *in, const struct sx_mem_form *form, bool drop, bool tx)
{
	const struct ptx_operand *o = in->operands;
	unsigned n = in->operand_count && o[0].kind != PTX_OP_ADDRESS;
	uint32_t target = SX_NO_REG, value;

	if (in->operand_count <= n || in->operand_count > n + 2 || (tx && in->operand_count != n + 2))
		return false;
	if (n && !sx_state_target(d, &o[0], &target))
		return false;
	if (in->operand_count == n + 2) {
		if (!sx_count_source(d, &o[n + 1], &value))
			return false;
	} else {
		value = sxd_const32(d, 1);
	}
	enum sx_mbar_op op = tx ? drop ? SX_MBAR_DROP_TX : SX_MBAR_ARRIVE_TX : drop ? SX_MBAR_DROP : SX_MBAR_ARRIVE;
	return sx_emit_mbar(d, &o[n], form->space, op, target, value, false);
}

static bool
sx_decode_mbarrier(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct sx_mem_form form = sx_mem_form(in);
	const struct ptx_operand *o = in->operands;
	const char *op = form.op ? form.op : "", *op2 = form.op2 ? form.op2 : "";
	uint32_t value, target;

	if (form.bad || form.type != PTX_b64 || (form.space != PTX_SPACE_NONE && form.space != PTX_SPACE_SHARED))
		return false;
	if (!strcmp(op, "pending_count")) {
		if (in->operand_count != 2 || sxd_bits(d, &o[0]) != 32 || sxd_bits(d, &o[1]) != 64)
			return false;
		value = sxd_src(d, &o[1], PTX_b64);
		target = sxd_dst(d, &o[0]);
		struct sx_insn *i = sxd_emit(d, sx_mbar_pending);
		i->d = target;
		i->a = value;
		return true;
	}
	if (!strcmp(op, "inval"))
		return in->operand_count == 1 && sx_emit_mbar(d, &o[0], form.space, SX_MBAR_INVAL, SX_NO_REG, SX_NO_REG, false);
	if (!strcmp(op, "init") || !strcmp(op, "expect_tx") || !strcmp(op, "complete_tx")) {
		enum sx_mbar_op code = op[0] == 'i' ? SX_MBAR_INIT : op[0] == 'e' ? SX_MBAR_EXPECT_TX : SX_MBAR_COMPLETE_TX;
		return in->operand_count == 2 && sx_count_source(d, &o[1], &value) &&
			sx_emit_mbar(d, &o[0], form.space, code, SX_NO_REG, value, false);
	}
	if (!strcmp(op, "arrive") || !strcmp(op, "arrive_drop")) {
		bool tx = !strcmp(op2, "expect_tx");
		if (*op2 && !tx && strcmp(op2, "noComplete") != 0)
			return false;
		return sx_decode_mbar_arrive(d, in, &form, !strcmp(op, "arrive_drop"), tx);
	}
	if (!strcmp(op, "test_wait") || !strcmp(op, "try_wait")) {
		bool parity = !strcmp(op2, "parity");
		return (!*op2 || parity) && sx_decode_mbar_wait(d, in, &form, parity);
	}
	return false;
}

/* cp.async.{ca,cg}.shared.global [to], [from], bytes {, source bytes or ignore predicate} {, policy} */
static bool
sx_decode_copy_small(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct ptx_operand *o = in->operands;
	struct sx_operand_at to, from;
	uint32_t flags = 0, third = SX_NO_REG, source;

	if (in->operand_count < 3 || o[2].kind != PTX_OP_IMM || (o[2].imm != 4 && o[2].imm != 8 && o[2].imm != 16))
		return false;
	if (o[0].kind != PTX_OP_ADDRESS || !sx_operand_at(d, &o[0], PTX_SPACE_SHARED, &to) || to.frame)
		return false;
	if (o[1].kind != PTX_OP_ADDRESS || !sx_operand_at(d, &o[1], PTX_SPACE_GLOBAL, &from) || from.frame)
		return false;
	if (from.kind == SX_AT_FIXED) {
		source = sxd_const64(d, (uint64_t)from.imm);
		from.imm = 0;
	} else if (from.kind == SX_AT_GLOBAL && from.imm == (int32_t)from.imm) {
		source = from.reg;
	} else {
		return false;
	}
	if (in->operand_count > 3) {
		unsigned bits = sxd_bits(d, &o[3]);
		if (bits == 1) {
			flags = SX_COPY_IGNORED;
			third = sxd_src(d, &o[3], PTX_pred);
		} else if (bits != 64) { /* 64 bits: a cache policy */
			flags = SX_COPY_SIZED;
			if (!sx_count_source(d, &o[3], &third))
				return false;
		}
	}
	struct sx_insn *i = sxd_emit(d, sx_copy_async);
	i->a = to.reg;
	i->imm = to.imm;
	i->b = source;
	i->f = (uint32_t)from.imm;
	i->c = third;
	i->aux = (uint32_t)to.kind | sx_log2((unsigned)o[2].imm) << 3 | flags;
	return true;
}

/* cp.async.bulk.DST.SRC...: [to], [from], bytes {, [mbarrier]} {, mask} {, policy} */
static bool
sx_decode_copy_bulk(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct ptx_operand *o = in->operands;
	bool multicast = ptx_has(in, "multicast::cluster"), group = ptx_has(in, "bulk_group");
	enum ptx_space to = ptx_has(in, "global") && group ? PTX_SPACE_GLOBAL : PTX_SPACE_SHARED;
	enum ptx_space from = ptx_has(in, "global") && !group ? PTX_SPACE_GLOBAL : PTX_SPACE_SHARED;
	uint32_t a, b, size, barrier = SX_NO_REG, ranks = SX_NO_REG;

	if (ptx_has(in, "cp_mask") || (multicast && group) || (!group && !ptx_has(in, "mbarrier::complete_tx::bytes")))
		return false;
	if (in->operand_count < (group ? 3u : 4u) + multicast || !sx_generic_operand(d, &o[0], to, &a) ||
	    !sx_generic_operand(d, &o[1], from, &b) || !sx_count_source(d, &o[2], &size))
		return false;
	if (!group && !sx_generic_operand(d, &o[3], PTX_SPACE_SHARED, &barrier))
		return false;
	if (multicast) {
		unsigned bits = sxd_bits(d, &o[4]);
		if (bits != 0 && bits != 16 && bits != 32)
			return false;
		ranks = sxd_src(d, &o[4], PTX_b16);
	}
	struct sx_insn *i = sxd_emit(d, multicast ? sx_copy_multicast : sx_copy_bulk);
	i->a = a;
	i->b = b;
	i->c = size;
	i->e = barrier;
	i->f = ranks;
	return true;
}

/* cp.async.mbarrier.arrive{.noinc}: the copies are done, so without .noinc nothing changes, with it an arrival is counted. */
static bool
sx_decode_copy_arrive(struct sx_decoder *d, const struct ptx_insn *in)
{
	bool noinc = ptx_has(in, "noinc"), shared = ptx_has(in, "shared") || ptx_has(in, "shared::cta");

	return in->operand_count == 1 && sx_emit_mbar(d, &in->operands[0], shared ? PTX_SPACE_SHARED : PTX_SPACE_NONE,
		noinc ? SX_MBAR_ARRIVE : SX_MBAR_ASYNC, SX_NO_REG, noinc ? sxd_const32(d, 1) : SX_NO_REG, false);
}

static bool sx_decode_reduce_bulk(struct sx_decoder *d, const struct ptx_insn *in); /* atom.c */

static bool
sx_decode_cp(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (in->mod_count > 4 && !strcmp(in->mods[0], "reduce") && !strcmp(in->mods[1], "async") && !strcmp(in->mods[2], "bulk"))
		return sx_decode_reduce_bulk(d, in);
	if (in->mod_count < 2 || strcmp(in->mods[0], "async") != 0)
		return false;
	const char *what = in->mods[1];
	if (!strcmp(what, "commit_group") || !strcmp(what, "wait_all"))
		return in->operand_count == 0;
	if (!strcmp(what, "wait_group"))
		return in->operand_count == 1;
	if (!strcmp(what, "mbarrier"))
		return sx_decode_copy_arrive(d, in);
	if (!strcmp(what, "ca") || !strcmp(what, "cg"))
		return sx_decode_copy_small(d, in);
	if (strcmp(what, "bulk") != 0 || in->mod_count < 3)
		return false;
	if (!strcmp(in->mods[2], "commit_group") || !strcmp(in->mods[2], "wait_group"))
		return true;
	if (!strcmp(in->mods[2], "prefetch"))
		return !ptx_has(in, "tensor");
	return strcmp(in->mods[2], "tensor") != 0 && sx_decode_copy_bulk(d, in);
}

/* st.async and red.async: [a], value, [mbarrier]; an ordinary store or reduction, then the bytes are counted. */
static bool
sx_emit_arrived(struct sx_decoder *d, const struct ptx_operand *barrier, const struct sx_mem_form *form)
{
	struct sx_operand_at at;

	if (barrier->kind != PTX_OP_ADDRESS || !sx_operand_at(d, barrier, form->space, &at) || at.frame)
		return false;
	struct sx_insn *i = sxd_emit(d, sx_mbar_bytes);
	i->a = at.reg;
	i->imm = at.imm;
	i->b = ptx_type_bits[form->type] / 8 * form->vector;
	i->aux = at.kind;
	return true;
}

#endif
