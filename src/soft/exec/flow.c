/*
 * Control flow of a warp: branches, divergence and reconvergence, calls, barriers, exit, traps, special registers.
 *
 * A warp is one running fragment {frame, pc, lanes} and up to 31 that wait. Of those that can run the one in the deepest frame with
 * the lowest pc goes first; the code is laid out so that lanes then meet where their paths join. `wake` is the next pc at which
 * someone waits: taken branches and the joins before labels compare against it, nothing else costs anything while lanes diverge.
 *
 * Back edges count down. At zero the warp leaves the loop so that its block can look around; one that seems to spin also lets its
 * least recently run fragment go first (`rotated`), which is what makes locks between lanes of a warp work. Part of isa_core.c.
 */
#include <stdarg.h>
#include <time.h>

static void flow_spread(struct sx_warp *w, uint32_t slot, uint64_t value, bool wide);

#define FLOW_TOP ((const struct sx_insn *)UINTPTR_MAX)
#define FLOW_BUDGET 4096         /* back edges between two looks around */
#define FLOW_SPIN_COST 256       /* of one in a loop that synchronises */
#define FLOW_FRAME_MAX (64u << 20) /* bytes of heap frames of a warp */
#define FLOW_DEPTH_MAX 200000

/* ---- fragments --------------------------------------------------------------------------------------------------- */

static inline void
flow_set_mask(struct sx_warp *w, uint32_t mask)
{
	w->mask = w->exec = mask;
	w->all = mask == w->frame->live;
}

static inline void
flow_set_frame(struct sx_warp *w, struct sx_frame *frame)
{
	w->frame = frame;
	w->base[0] = frame->regs;
	w->base[1] = frame->code->pool;
}

/* Finds out at which pc the running fragment, which is at `pc`, must look for others. */
static void
flow_look(struct sx_warp *w, const struct sx_insn *pc)
{
	w->wake = FLOW_TOP;
	w->rotated = false;
	for (uint32_t n = 0; n < w->frag_count; n++) {
		const struct sx_fragment *f = &w->frags[n];
		if (f->wait)
			continue;
		if (f->frame != w->frame) {
			w->rotated |= f->frame->depth > w->frame->depth;
			continue;
		}
		if (f->pc < pc)
			w->rotated = true;
		else if (f->pc < w->wake)
			w->wake = f->pc;
	}
}

/* Adds lanes that can go on at a place; they join those that wait there already. */
static void
flow_add(struct sx_warp *w, struct sx_frame *frame, const struct sx_insn *pc, uint32_t mask)
{
	for (uint32_t n = 0; n < w->frag_count; n++) {
		struct sx_fragment *f = &w->frags[n];
		if (f->pc == pc && f->frame == frame && !f->wait) {
			f->mask |= mask;
			return;
		}
	}
	w->frags[w->frag_count++] = (struct sx_fragment){ .frame = frame, .pc = pc, .mask = mask, .stamp = w->stamp };
}

static inline void
flow_remove(struct sx_warp *w, uint32_t n)
{
	w->frags[n] = w->frags[--w->frag_count];
}

/* Makes waiting fragment n the running one; returns its pc. Others at the same place come along. */
static const struct sx_insn *
flow_run(struct sx_warp *w, uint32_t n)
{
	struct sx_fragment f = w->frags[n];
	flow_remove(w, n);
	for (n = 0; n < w->frag_count;) {
		if (w->frags[n].pc == f.pc && w->frags[n].frame == f.frame && !w->frags[n].wait) {
			f.mask |= w->frags[n].mask;
			flow_remove(w, n);
		} else {
			n++;
		}
	}
	flow_set_frame(w, f.frame);
	flow_set_mask(w, f.mask);
	flow_look(w, f.pc);
	return f.pc;
}

static bool flow_converge_release(struct sx_warp *w);

/* Picks the fragment to run: deepest frame, then lowest pc. NULL, and the reason in w->state, when none can. */
static const struct sx_insn *
flow_pick(struct sx_warp *w)
{
	uint32_t best;

	do {
		best = SX_LANES;
		for (uint32_t n = 0; n < w->frag_count; n++) {
			const struct sx_fragment *f = &w->frags[n];
			if (f->wait)
				continue;
			if (best == SX_LANES || f->frame->depth > w->frags[best].frame->depth ||
			    (f->frame->depth == w->frags[best].frame->depth && f->pc < w->frags[best].pc))
				best = n;
		}
	} while (best == SX_LANES && w->frag_count && flow_converge_release(w));
	if (best < SX_LANES)
		return flow_run(w, best);
	w->pc = NULL;
	w->state = SX_WARP_BLOCKED;
	w->block->ready &= ~(1u << w->index);
	return NULL;
}

/* The running fragment has come to a pc at which, or above which, another one waits. */
static const struct sx_insn *
flow_reach(struct sx_warp *w, const struct sx_insn *pc)
{
	uint32_t mask = w->mask;
	bool lower = false;

	for (uint32_t n = 0; n < w->frag_count;) {
		struct sx_fragment *f = &w->frags[n];
		if (f->frame == w->frame && !f->wait && f->pc == pc) {
			mask |= f->mask;
			flow_remove(w, n);
			continue;
		}
		lower |= f->frame == w->frame && !f->wait && f->pc < pc;
		n++;
	}
	if (lower && !w->rotated) {
		flow_add(w, w->frame, pc, mask);
		return flow_pick(w);
	}
	flow_set_mask(w, mask); /* a rotated fragment keeps its turn */
	flow_look(w, pc);
	return pc;
}

static inline const struct sx_insn *
flow_go(struct sx_warp *w, const struct sx_insn *pc)
{
	return __builtin_expect(pc < w->wake, 1) ? pc : flow_reach(w, pc);
}

/* Goes on at pc after something that may have woken other lanes of the warp. */
static const struct sx_insn *
flow_woken(struct sx_warp *w, const struct sx_insn *pc)
{
	if (!w->frag_count)
		return pc;
	flow_add(w, w->frame, pc, w->mask);
	return flow_pick(w);
}

/* The warp leaves its loop and will go on with the running fragment at pc. */
static const struct sx_insn *
flow_leave(struct sx_warp *w, const struct sx_insn *pc, enum sx_warp_state state)
{
	w->pc = pc;
	w->state = state;
	return NULL;
}

/* Gives way: to the fragment that has waited longest, and to other warps. */
static const struct sx_insn *
flow_rotate(struct sx_warp *w, const struct sx_insn *pc)
{
	uint32_t oldest = SX_LANES;

	w->stamp++;
	flow_add(w, w->frame, pc, w->mask);
	for (uint32_t n = 0; n < w->frag_count; n++) {
		struct sx_fragment *f = &w->frags[n];
		if (f->frame == w->frame && f->pc == pc)
			f->stamp = w->stamp;
		if (!f->wait && (oldest == SX_LANES || (int32_t)(f->stamp - w->frags[oldest].stamp) < 0))
			oldest = n;
	}
	pc = flow_run(w, oldest);
	return flow_leave(w, pc, SX_WARP_SPUN);
}

/* A back edge where the countdown ended or others wait below. */
static const struct sx_insn *
flow_back_slow(struct sx_warp *w, const struct sx_insn *target)
{
	bool spun = w->spinning;

	w->spinning = false;
	if (w->budget >= 0) {
		flow_look(w, target);
		return flow_go(w, target);
	}
	w->budget = FLOW_BUDGET;
	if (sx_stopped(w->block->view.grid))
		return flow_leave(w, target, SX_WARP_STOPPED);
	if (spun || (++w->ticks & 63) == 0)
		return flow_rotate(w, target);
	flow_look(w, target);
	return flow_leave(w, target, SX_WARP_TICK);
}

static inline const struct sx_insn *
flow_back(struct sx_warp *w, const struct sx_insn *target)
{
	w->budget -= 1 + (w->spinning ? FLOW_SPIN_COST : 0);
	if (__builtin_expect(w->budget < 0 || w->rotated, 0))
		return flow_back_slow(w, target);
	w->spinning = false;
	return target;
}

/* ---- branches ---------------------------------------------------------------------------------------------------- */

/* Before a label that branches jump to. */
static const struct sx_insn *
flow_join(struct sx_warp *w, const struct sx_insn *i)
{
	return flow_go(w, i + 1);
}

static const struct sx_insn *
flow_jump(struct sx_warp *w, const struct sx_insn *i)
{
	return flow_go(w, i->target);
}

static const struct sx_insn *
flow_jump_back(struct sx_warp *w, const struct sx_insn *i)
{
	return flow_back(w, i->target);
}

/* aux: UINT32_MAX negates the predicate. */
static inline uint32_t
flow_guard_lanes(const struct sx_warp *w, const struct sx_insn *i)
{
	return (SX_SP(w, i->a) ^ i->aux) & w->mask;
}

static const struct sx_insn *
flow_branch(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t taken = flow_guard_lanes(w, i);

	if (!taken)
		return flow_go(w, i + 1);
	if (taken == w->mask)
		return flow_go(w, i->target);
	flow_add(w, w->frame, i->target, taken);
	flow_set_mask(w, w->mask & ~taken);
	if (i->target < w->wake)
		w->wake = i->target;
	return flow_go(w, i + 1);
}

static const struct sx_insn *
flow_branch_back(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t taken = flow_guard_lanes(w, i);

	if (!taken)
		return flow_go(w, i + 1);
	if (taken != w->mask) {
		flow_add(w, w->frame, i + 1, w->mask & ~taken);
		flow_set_mask(w, taken);
		if (i + 1 < w->wake)
			w->wake = i + 1;
	}
	return flow_back(w, i->target);
}

/* brx.idx: ptr is the table, a the index. */
static const struct sx_insn *
flow_brx(struct sx_warp *w, const struct sx_insn *i)
{
	const struct sxd_table *table = i->ptr;
	const uint32_t *index = SX_S32(w, i->a);
	uint32_t left = w->mask;

	for (uint32_t l = 0; l < SX_LANES; l++)
		if ((left >> l & 1) && index[l] >= table->count)
			return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, l, 0, "index %u of %u targets", index[l], table->count);
	while (left) {
		uint32_t first = index[__builtin_ctz(left)], same = 0;
		for (uint32_t l = 0; l < SX_LANES; l++)
			same |= (uint32_t)(index[l] == first) << l;
		flow_add(w, w->frame, table->targets[first], same & left);
		left &= ~same;
	}
	const struct sx_insn *next = flow_pick(w);
	return next && next <= i ? flow_back(w, next) : next;
}

/* @p before one instruction that does not change the flow; aux negates; target is behind it. */
static const struct sx_insn *
flow_guard_one(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t lanes = flow_guard_lanes(w, i);

	if (!lanes)
		return i + 2;
	if (lanes == w->mask)
		return i + 1;
	w->exec = lanes;
	w->all = false;
	w->now = i + 1;
	const struct sx_insn *next = i[1].fn(w, i + 1);
	flow_set_mask(w, w->mask);
	return next;
}

static const struct sx_insn *
flow_guard(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t lanes = flow_guard_lanes(w, i);
	const struct sx_insn *end = i->target, *next = i + 1;

	if (!lanes)
		return end;
	if (lanes == w->mask)
		return next;
	w->exec = lanes;
	w->all = false;
	while (next && next != end) {
		w->now = next;
		next = next->fn(w, next);
	}
	flow_set_mask(w, w->mask);
	return next;
}

/* ---- frames and calls -------------------------------------------------------------------------------------------- */

/* Size class of a heap frame: 128 << class bytes. */
static uint32_t
flow_frame_class(uint64_t bytes)
{
	uint32_t n = 0;
	while (((uint64_t)128 << n) < bytes)
		n++;
	return n;
}

#define FLOW_FRAME_HEAD ((sizeof(struct sx_frame) + 63) & ~(size_t)63)

/* A frame for the callee. Its memory: the struct, padded to 64 bytes, then registers. */
static struct sx_frame *
flow_frame_new(struct sx_warp *w, const struct sx_code *code)
{
	struct sx_block *block = w->block;
	uint32_t n = flow_frame_class(FLOW_FRAME_HEAD + code->frame_bytes);
	uint64_t bytes = (uint64_t)128 << n;
	struct sx_frame *frame = block->frame_free[n];

	if (w->frame_bytes + bytes > FLOW_FRAME_MAX)
		return NULL;
	if (frame) {
		block->frame_free[n] = frame->parent;
	} else {
		frame = aligned_alloc(64, bytes);
		if (!frame)
			return NULL;
		frame->kept = block->frames_kept;
		block->frames_kept = frame;
	}
	w->frame_bytes += bytes;
	*frame = (struct sx_frame){ .code = code, .regs = (uint8_t *)(void *)frame + FLOW_FRAME_HEAD, .kept = frame->kept };
	return frame;
}

static void
flow_frame_free(struct sx_warp *w, struct sx_frame *frame)
{
	uint32_t n = flow_frame_class(FLOW_FRAME_HEAD + frame->code->frame_bytes);

	w->frame_bytes -= (uint64_t)128 << n;
	frame->parent = w->block->frame_free[n];
	w->block->frame_free[n] = frame;
}

/* What a call passes: source or destination words in the caller's frame. */
struct flow_words {
	uint32_t at, words;
};
struct flow_call {
	struct sx_func *func;              /* NULL: indirect */
	const struct sx_builtin *builtin;
	const char *name;                  /* for messages */
	uint32_t arg_count, ret_count;
	struct flow_words args[];          /* arguments, then results */
};

/* A value in a register to and from a parameter word: d register, a word, aux bits of the register. */
static const struct sx_insn *
flow_word_get(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *word = SX_S64(w, i->a);
	uint32_t narrow[SX_LANES];

	if (i->aux == 1) {
		uint32_t bits = 0;
		for (int l = 0; l < SX_LANES; l++)
			bits |= (uint32_t)(word[l] & 1) << l;
		sx_put_pred(w, i->d, bits);
	} else if (i->aux > 32) {
		for (uint32_t half = 0; half < (i->aux + 63) / 64; half++)
			sx_put64(w, i->d + 256 * half, word + 32 * half);
	} else {
		uint32_t keep = i->aux < 32 ? (1u << i->aux) - 1 : UINT32_MAX;
		for (int l = 0; l < SX_LANES; l++)
			narrow[l] = (uint32_t)word[l] & keep;
		sx_put32(w, i->d, narrow);
	}
	return i + 1;
}

static const struct sx_insn *
flow_word_put(struct sx_warp *w, const struct sx_insn *i)
{
	uint64_t wide[SX_LANES];

	if (i->aux == 1) {
		uint32_t bits = SX_SP(w, i->d);
		for (int l = 0; l < SX_LANES; l++)
			wide[l] = bits >> l & 1;
	} else if (i->aux > 32) {
		for (uint32_t half = 0; half < (i->aux + 63) / 64; half++)
			sx_put64(w, i->a + 256 * half, SX_S64(w, i->d) + 32 * half);
		return i + 1;
	} else {
		const uint32_t *value = SX_S32(w, i->d);
		for (int l = 0; l < SX_LANES; l++)
			wide[l] = value[l];
	}
	sx_put64(w, i->a, wide);
	return i + 1;
}

/* Enters a function with some of the running lanes; the caller has decided what becomes of the others. */
static const struct sx_insn *
flow_enter(struct sx_warp *w, const struct sx_insn *i, struct sx_func *func, uint32_t lanes)
{
	const struct flow_call *call = i->ptr;
	const struct sx_code *code = __atomic_load_n(&func->code, __ATOMIC_ACQUIRE);
	uint32_t first = (uint32_t)__builtin_ctz(lanes);

	if (!code)
		code = sx_func_code(func);
	if (!code)
		return func->failed
		       ? sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, first, 0, "%s: line %d: %s", func->info.name, func->error.line,
		                  func->error.text)
		       : sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, first, 0, "call of %s, which nothing defines", func->info.name);
	struct sx_frame *frame = flow_frame_new(w, code);
	uint32_t local = w->frame->local_offset + w->frame->code->local_bytes + w->frame->stack_bytes;
	if (!frame || w->frame->depth > FLOW_DEPTH_MAX || local + code->local_bytes > w->local_stride) {
		if (frame)
			flow_frame_free(w, frame);
		return sx_raise(w, i, CUDA_ERROR_HARDWARE_STACK_ERROR, first, 0, "stack overflow at call depth %u", w->frame->depth);
	}
	frame->parent = w->frame;
	frame->depth = w->frame->depth + 1;
	frame->ret = i + 1;
	frame->live = lanes;
	frame->local_offset = local;
	uint8_t *to = frame->regs + code->param_base, *end = frame->regs + code->return_base;
	for (uint32_t n = 0; n < call->arg_count; n++) {
		uint32_t bytes = call->args[n].words * SXD_WORD;
		if (to + bytes > end)
			break; /* an indirect call with too many arguments */
		memcpy(to, w->base[0] + call->args[n].at, bytes);
		to += bytes;
	}
	flow_set_frame(w, frame);
	flow_set_mask(w, lanes);
	w->wake = FLOW_TOP;
	return code->insns;
}

static const struct sx_insn *
flow_call(struct sx_warp *w, const struct sx_insn *i)
{
	const struct flow_call *call = i->ptr;
	return flow_enter(w, i, call->func, w->mask);
}

/* a: the function's address. */
static const struct sx_insn *
flow_call_indirect(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *address = SX_S64(w, i->a);
	uint32_t first = (uint32_t)__builtin_ctz(w->mask), same = 0;
	struct sx_func *func = sx_image_func_at(w->frame->code->func->image, address[first]);

	if (!func || func->ast->entry)
		return sx_raise(w, i, CUDA_ERROR_INVALID_PC, first, address[first], "call of %#llx, which is no function",
		                (unsigned long long)address[first]);
	for (uint32_t l = 0; l < SX_LANES; l++)
		same |= (uint32_t)(address[l] == address[first]) << l;
	same &= w->mask;
	if (same != w->mask) /* the others call when they are next */
		flow_add(w, w->frame, i, w->mask & ~same);
	return flow_enter(w, i, func, same);
}

static const struct sx_insn *
flow_call_builtin(struct sx_warp *w, const struct sx_insn *i)
{
	const struct flow_call *call = i->ptr;
	const uint64_t *args[SX_BUILTIN_ARGS] = { NULL };

	for (uint32_t n = 0; n < call->arg_count; n++)
		args[n] = sx_src(w, call->args[n].at);
	return call->builtin->call(w, i, args, call->ret_count ? sx_dst(w, call->args[call->arg_count].at) : NULL);
}

/* Reached only if the program calls what was left unresolved. */
static const struct sx_insn *
flow_call_unresolved(struct sx_warp *w, const struct sx_insn *i)
{
	const struct flow_call *call = i->ptr;
	return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, (unsigned)__builtin_ctz(w->mask), 0,
	                "call of %s, which nothing defines", call->name);
}

/* Copies results to the caller's words. */
static void
flow_return_values(struct sx_frame *frame, uint32_t lanes)
{
	const struct flow_call *call = frame->ret[-1].ptr;
	const uint64_t *from = (const uint64_t *)(const void *)(frame->regs + frame->code->return_base);
	uint32_t words = sxd_param_words(frame->code->func->ast->returns, frame->code->func->ast->return_count);

	for (uint32_t n = call->arg_count; n < call->arg_count + call->ret_count; n++) {
		uint64_t *to = (uint64_t *)(void *)(frame->parent->regs + call->args[n].at);
		for (uint32_t k = 0; k < call->args[n].words && words; k++, words--) {
			for (int l = 0; l < SX_LANES; l++)
				to[l] = (lanes >> l & 1) ? from[l] : to[l];
			from += SX_LANES;
			to += SX_LANES;
		}
	}
}

/* ret in a device function. */
static const struct sx_insn *
flow_ret(struct sx_warp *w, const struct sx_insn *i)
{
	struct sx_frame *frame = w->frame, *parent = frame->parent;
	const struct sx_insn *ret = frame->ret;
	uint32_t lanes = w->mask;

	flow_return_values(frame, lanes);
	frame->live &= ~lanes;
	if (!frame->live)
		flow_frame_free(w, frame);
	if (w->frag_count) {
		flow_add(w, parent, ret, lanes);
		return flow_pick(w);
	}
	flow_set_frame(w, parent);
	flow_set_mask(w, lanes);
	w->wake = FLOW_TOP;
	w->rotated = false;
	return ret;
}

static void flow_lanes_gone(struct sx_warp *w);
static void flow_cluster_check(struct sx_unit *unit);

/* exit, and ret in a kernel. */
static const struct sx_insn *
flow_exit(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t lanes = w->mask;

	for (struct sx_frame *frame = w->frame, *parent; frame; frame = parent) {
		parent = frame->parent;
		frame->live &= ~lanes;
		if (!frame->live && parent)
			flow_frame_free(w, frame);
	}
	w->live &= ~lanes;
	if (!w->live) {
		w->pc = NULL;
		w->state = SX_WARP_DONE;
		w->block->live_warps &= ~(1u << w->index);
		w->block->ready &= ~(1u << w->index);
	}
	flow_lanes_gone(w);
	return w->live ? flow_pick(w) : NULL;
}

static const struct sx_insn *
flow_trap(struct sx_warp *w, const struct sx_insn *i)
{
	return sx_raise(w, i, CUDA_ERROR_LAUNCH_FAILED, (unsigned)__builtin_ctz(w->mask), 0, "trap");
}

/* Gives way to others; the least recently run fragment is next. */
static const struct sx_insn *
flow_nanosleep(struct sx_warp *w, const struct sx_insn *i)
{
	w->spinning = true;
	w->budget -= FLOW_BUDGET / 4;
	return i + 1;
}

/* Copies aux bytes of parameter words at a to local memory at b of the frame; d: its address plus imm. */
static const struct sx_insn *
flow_param_copy(struct sx_warp *w, const struct sx_insn *i)
{
	const uint64_t *words = SX_S64(w, i->a);
	uint64_t place = w->frame->local_offset + (uint64_t)i->b;

	for (uint32_t l = 0; l < SX_LANES; l++) {
		if (!(w->exec >> l & 1))
			continue;
		uint8_t *to = (uint8_t *)(uintptr_t)(w->local_base + (uint64_t)l * w->local_stride + place);
		for (uint32_t at = 0; at < i->aux; at += 8)
			memcpy(to + at, &words[at / 8 * SX_LANES + l], i->aux - at < 8 ? i->aux - at : 8);
	}
	flow_spread(w, i->d, place + (uint64_t)i->imm, true);
	return i + 1;
}

/* alloca: d result of e bits, a sizes, aux alignment. Lanes that run together get the same place, so the largest size counts. */
static const struct sx_insn *
flow_alloca(struct sx_warp *w, const struct sx_insn *i)
{
	struct sx_frame *frame = w->frame;
	uint64_t at = frame->local_offset + (uint64_t)frame->code->local_bytes + frame->stack_bytes, most = 0;

	for (uint32_t l = 0; l < SX_LANES; l++) {
		uint64_t size = i->e == 64 ? SX_S64(w, i->a)[l] : SX_S32(w, i->a)[l];
		if ((w->exec >> l & 1) && size > most)
			most = size;
	}
	at = (at + i->aux - 1) / i->aux * i->aux;
	if (most > w->local_stride || at + most > w->local_stride)
		return sx_raise(w, i, CUDA_ERROR_HARDWARE_STACK_ERROR, (unsigned)__builtin_ctz(w->exec), 0, "stack overflow");
	frame->stack_bytes = (uint32_t)(at + ((most + 7) & ~(uint64_t)7) - frame->local_offset - frame->code->local_bytes);
	flow_spread(w, i->d, at, i->e == 64);
	return i + 1;
}

/* stacksave: d of e bits. */
static const struct sx_insn *
flow_stacksave(struct sx_warp *w, const struct sx_insn *i)
{
	flow_spread(w, i->d, w->frame->stack_bytes, i->e == 64);
	return i + 1;
}

/* stackrestore: a of e bits. While other lanes may still use what lies above, nothing is given back. */
static const struct sx_insn *
flow_stackrestore(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned first = (unsigned)__builtin_ctz(w->exec);
	uint64_t saved = i->e == 64 ? SX_S64(w, i->a)[first] : SX_S32(w, i->a)[first];

	if (w->all && saved < w->frame->stack_bytes)
		w->frame->stack_bytes = (uint32_t)saved;
	return i + 1;
}

static const struct sx_insn *
flow_nothing(struct sx_warp *w, const struct sx_insn *i)
{
	return i + 1;
}

/* ---- warp convergence -------------------------------------------------------------------------------------------- */

/* Lanes whose member masks, as they stand at this instruction, are all here; the rest must wait. */
static uint32_t
flow_complete(const struct sx_warp *w, const struct sx_insn *i, const uint8_t *regs, uint32_t here)
{
	const uint32_t *members = i->fn == flow_converge
	                          ? (const uint32_t *)(const void *)((i->a & SX_POOL ? w->base[1] : regs) + (i->a & ~SX_POOL)) : NULL;
	uint32_t complete = 0;

	for (uint32_t l = 0; l < SX_LANES; l++)
		if ((here >> l & 1) && !((members ? members[l] : i->aux) & w->live & ~here))
			complete |= 1u << l;
	return complete;
}

/* Some lanes are missing: collect those that wait here already, let complete groups go, and others run. */
static const struct sx_insn *
flow_converge_slow(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t here = w->mask;

	for (uint32_t n = 0; n < w->frag_count;) {
		struct sx_fragment *f = &w->frags[n];
		if (f->frame == w->frame && f->pc == i && (!f->wait || f->wait == SX_WAIT_CONVERGE)) {
			here |= f->mask;
			flow_remove(w, n);
		} else {
			n++;
		}
	}
	uint32_t go = flow_complete(w, i, w->frame->regs, here);
	if (here & ~go)
		w->frags[w->frag_count++] = (struct sx_fragment){ .frame = w->frame, .pc = i, .mask = here & ~go,
			.wait = SX_WAIT_CONVERGE, .stamp = w->stamp };
	if (!go)
		return flow_pick(w);
	flow_set_mask(w, go);
	flow_look(w, i + 1);
	return i + 1;
}

/* aux: the member mask. */
static const struct sx_insn *
flow_converge_const(struct sx_warp *w, const struct sx_insn *i)
{
	return __builtin_expect(!(i->aux & w->live & ~w->mask), 1) ? i + 1 : flow_converge_slow(w, i);
}

/* a: the member mask of each lane. */
static const struct sx_insn *
flow_converge(struct sx_warp *w, const struct sx_insn *i)
{
	const uint32_t *members = SX_S32(w, i->a);
	uint32_t need = 0;

	for (uint32_t l = 0; l < SX_LANES; l++)
		need |= (w->mask >> l & 1) ? members[l] : 0;
	return !(need & w->live & ~w->mask) ? i + 1 : flow_converge_slow(w, i);
}

/*
 * Nothing else can run: lanes that they wait for may have exited, or wait at another *.sync. In both cases they go on, each group with
 * the lanes that it has. True if some can.
 */
static bool
flow_converge_release(struct sx_warp *w)
{
	uint32_t syncing = 0;
	bool some = false;

	for (uint32_t n = 0; n < w->frag_count; n++)
		if (w->frags[n].wait == SX_WAIT_CONVERGE)
			syncing |= w->frags[n].mask;
	for (uint32_t n = 0; n < w->frag_count; n++) {
		struct sx_fragment *f = &w->frags[n];
		if (f->wait != SX_WAIT_CONVERGE)
			continue;
		/* the pool of the fragment's own function */
		const uint8_t *pool = w->base[1];
		w->base[1] = f->frame->code->pool;
		uint32_t go = flow_complete(w, f->pc, f->frame->regs, syncing) & f->mask;
		w->base[1] = pool;
		if (go != f->mask)
			continue;
		f->wait = SX_RUNNABLE;
		f->pc++;
		some = true;
	}
	return some;
}

/* ---- block barriers ---------------------------------------------------------------------------------------------- */

enum { FLOW_BAR_SYNC, FLOW_BAR_ARRIVE, FLOW_BAR_POPC, FLOW_BAR_AND, FLOW_BAR_OR };

/* All have arrived: wakes who waits and starts the next phase. */
static void
flow_barrier_complete(struct sx_block *block, uint32_t number)
{
	struct sx_barrier *b = &block->barriers[number];

	for (uint32_t left = b->waiting & ~b->parked; left; left &= left - 1) {
		struct sx_warp *w = &block->warps[__builtin_ctz(left)];
		for (uint32_t n = 0; n < w->frag_count; n++)
			if (w->frags[n].wait == SX_WAIT_BARRIER + number)
				w->frags[n].wait = SX_RUNNABLE;
	}
	block->ready |= b->waiting;
	for (uint32_t left = b->partial; left; left &= left - 1)
		b->arrived[__builtin_ctz(left)] = 0;
	b->done_popc = b->popc;
	b->done_all = b->all;
	b->done_any = b->any;
	b->full = b->partial = b->waiting = b->parked = b->expected = b->count = b->popc = 0;
	b->all = true;
	b->any = false;
	block->barriers_used &= ~(1u << number);
	block->events++;
}

static bool
flow_barrier_is_complete(const struct sx_block *block, const struct sx_barrier *b)
{
	return b->expected ? b->count >= b->expected : !(block->live_warps & ~b->full);
}

/* Counts the running lanes in. */
static void
flow_barrier_arrive(struct sx_warp *w, struct sx_barrier *b, uint32_t expected)
{
	uint32_t bit = 1u << w->index, lanes = w->mask;
	bool whole = true;

	if (lanes != w->live) {
		b->partial |= bit;
		lanes = b->arrived[w->index] |= lanes;
		whole = (w->live & ~lanes) == 0;
	}
	if (whole)
		b->full |= bit;
	if (expected) {
		b->expected = expected;
		/* lanes without a thread count with the last ones of their warp */
		b->count += (uint32_t)__builtin_popcount(w->mask) + (whole ? SX_LANES - (uint32_t)__builtin_popcount(w->live) : 0);
	}
	w->block->barriers_used |= 1u << (b - w->block->barriers);
}

/* Lanes exited: barriers wait no longer for them. */
static void
flow_lanes_gone(struct sx_warp *w)
{
	struct sx_block *block = w->block;

	block->events++;
	for (uint32_t left = block->barriers_used; left; left &= left - 1) {
		uint32_t number = (uint32_t)__builtin_ctz(left);
		struct sx_barrier *b = &block->barriers[number];
		if ((b->partial >> w->index & 1) && !(w->live & ~b->arrived[w->index]))
			b->full |= 1u << w->index;
		if (block->live_warps && flow_barrier_is_complete(block, b))
			flow_barrier_complete(block, number);
	}
	if (block->unit->block_count > 1)
		flow_cluster_check(block->unit);
}

/* imm: number, or b: operand with it; a: operand with the thread count or SX_NO_REG; c: predicate of bar.red (f: its complement);
 * aux: FLOW_BAR_*. */
static const struct sx_insn *
flow_bar(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t first = (uint32_t)__builtin_ctz(w->mask);
	uint32_t number = i->b == SX_NO_REG ? (uint32_t)i->imm : SX_S32(w, i->b)[first];
	uint32_t expected = i->a == SX_NO_REG ? 0 : SX_S32(w, i->a)[first];

	if (number >= SX_BARRIERS)
		return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, first, 0, "barrier %u does not exist", number);
	if (i->a != SX_NO_REG && (expected == 0 || expected % SX_LANES))
		return sx_raise(w, i, CUDA_ERROR_ILLEGAL_INSTRUCTION, first, 0, "%u threads at a barrier: not a multiple of 32", expected);
	struct sx_barrier *b = &w->block->barriers[number];
	if (i->aux >= FLOW_BAR_POPC) {
		uint32_t value = SX_SP(w, i->c) & w->mask;
		b->popc += (uint32_t)__builtin_popcount(value);
		b->all &= value == w->mask;
		b->any |= value != 0;
	}
	flow_barrier_arrive(w, b, expected);
	if (flow_barrier_is_complete(w->block, b)) {
		flow_barrier_complete(w->block, number);
		return flow_woken(w, i + 1);
	}
	if (i->aux == FLOW_BAR_ARRIVE)
		return i + 1;
	b->waiting |= 1u << w->index;
	if (!w->frag_count) { /* the whole warp waits: it stays as it is */
		b->parked |= 1u << w->index;
		w->block->ready &= ~(1u << w->index);
		return flow_leave(w, i + 1, SX_WARP_BLOCKED);
	}
	w->frags[w->frag_count++] = (struct sx_fragment){ .frame = w->frame, .pc = i + 1, .mask = w->mask,
		.wait = SX_WAIT_BARRIER + number, .stamp = w->stamp };
	return flow_pick(w);
}

/* Behind the barrier of a bar.red: reads the result. Operands as there. */
static const struct sx_insn *
flow_bar_result(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t number = i->b == SX_NO_REG ? (uint32_t)i->imm : SX_S32(w, i->b)[__builtin_ctz(w->mask)];
	const struct sx_barrier *b = &w->block->barriers[number & (SX_BARRIERS - 1)];
	uint32_t value[SX_LANES];

	if (i->aux != FLOW_BAR_POPC) {
		sx_put_pred(w, i->d, (i->aux == FLOW_BAR_AND ? b->done_all : b->done_any) ? UINT32_MAX : 0);
		return i + 1;
	}
	for (int l = 0; l < SX_LANES; l++)
		value[l] = b->done_popc;
	sx_put32(w, i->d, value);
	return i + 1;
}

/* ---- cluster barrier --------------------------------------------------------------------------------------------- */

/* Completes the cluster barrier if all live threads of all its blocks have arrived. */
static void
flow_cluster_check(struct sx_unit *unit)
{
	bool some = false;

	for (uint32_t n = 0; n < unit->block_count; n++) {
		struct sx_block *block = unit->blocks[n];
		for (uint32_t left = block->live_warps; left; left &= left - 1) {
			uint32_t index = (uint32_t)__builtin_ctz(left);
			if (block->warps[index].live & ~block->cluster_arrived[index])
				return;
			some = true;
		}
	}
	if (!some)
		return;
	for (uint32_t n = 0; n < unit->block_count; n++) {
		struct sx_block *block = unit->blocks[n];
		block->events++;
		for (uint32_t index = 0; index < block->warp_count; index++) {
			struct sx_warp *w = &block->warps[index];
			block->cluster_arrived[index] = 0;
			for (uint32_t f = 0; f < w->frag_count; f++) {
				if (w->frags[f].wait == SX_WAIT_CLUSTER) {
					w->frags[f].wait = SX_RUNNABLE;
					block->ready |= 1u << index;
				}
			}
		}
	}
}

static const struct sx_insn *
flow_cluster_arrive(struct sx_warp *w, const struct sx_insn *i)
{
	w->block->cluster_arrived[w->index] |= w->mask;
	flow_cluster_check(w->block->unit);
	return flow_woken(w, i + 1);
}

/* Waits while the lanes' own arrival is not yet part of a complete phase. */
static const struct sx_insn *
flow_cluster_wait(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t waiting = w->mask & w->block->cluster_arrived[w->index];

	if (!waiting)
		return i + 1;
	w->frags[w->frag_count++] = (struct sx_fragment){ .frame = w->frame, .pc = i + 1, .mask = waiting,
		.wait = SX_WAIT_CLUSTER, .stamp = w->stamp };
	if (w->mask & ~waiting)
		flow_add(w, w->frame, i + 1, w->mask & ~waiting);
	return flow_pick(w);
}

/* ---- special registers ------------------------------------------------------------------------------------------- */

static const struct sx_insn *
flow_not(struct sx_warp *w, const struct sx_insn *i)
{
	sx_put_pred(w, i->d, ~SX_SP(w, i->a));
	return i + 1;
}

static void
flow_spread(struct sx_warp *w, uint32_t slot, uint64_t value, bool wide)
{
	uint32_t narrow[SX_LANES];
	uint64_t whole[SX_LANES];

	if (wide) {
		for (int l = 0; l < SX_LANES; l++)
			whole[l] = value;
		sx_put64(w, slot, whole);
	} else {
		for (int l = 0; l < SX_LANES; l++)
			narrow[l] = (uint32_t)value;
		sx_put32(w, slot, narrow);
	}
}

/* aux: offset in the block's view; e: bits of the slot; imm is added. */
static const struct sx_insn *
flow_view32(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t value;
	memcpy(&value, (const char *)w->block + i->aux, sizeof(value));
	flow_spread(w, i->d, value + (uint64_t)i->imm, i->e == 64);
	return i + 1;
}

static const struct sx_insn *
flow_tid(struct sx_warp *w, const struct sx_insn *i)
{
	uint64_t wide[SX_LANES];

	if (i->e != 64) {
		sx_put32(w, i->d, w->tid[i->aux]);
		return i + 1;
	}
	for (int l = 0; l < SX_LANES; l++)
		wide[l] = w->tid[i->aux][l];
	sx_put64(w, i->d, wide);
	return i + 1;
}

static uint64_t
flow_clock(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

static uint64_t
flow_globaltimer(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The value of a special register that is the same in all lanes. */
static uint64_t
flow_special(struct sx_warp *w, uint32_t special, int64_t imm)
{
	const struct sx_block_view *view = &w->block->view;
	switch (special) {
	case PTX_SR_warpid: return w->index;
	case PTX_SR_nwarpid: return 48;
	case PTX_SR_nsmid: return w->frame->code->func->image->target.sm_count;
	case PTX_SR_gridid: return view->launch->grid_id;
	case PTX_SR_clock:
	case PTX_SR_clock64: w->spinning = true; return flow_clock();
	case PTX_SR_clock_hi: return flow_clock() >> 32;
	case PTX_SR_globaltimer:
	case PTX_SR_globaltimer_lo: w->spinning = true; return flow_globaltimer();
	case PTX_SR_globaltimer_hi: return flow_globaltimer() >> 32;
	case PTX_SR_envreg: /* cooperative groups find the grid's barrier through these two */
		return imm == 1 ? (uint64_t)(uintptr_t)view->grid->workspace >> 32 : imm == 2 ? (uintptr_t)view->grid->workspace : 0;
	case SXS_LOCAL_OFFSET: return w->frame->local_offset + (uint64_t)imm;
	case SXS_PARAM_ADDRESS: return (uint64_t)(uintptr_t)view->params + (uint64_t)imm;
	}
	return 0; /* %pm, %envreg, reserved shared memory, graph: nothing there */
}

static const struct sx_insn *
flow_special32(struct sx_warp *w, const struct sx_insn *i)
{
	flow_spread(w, i->d, flow_special(w, i->aux, i->imm), false);
	return i + 1;
}

static const struct sx_insn *
flow_special64(struct sx_warp *w, const struct sx_insn *i)
{
	uint32_t lanes[SX_LANES];
	uint64_t wide[SX_LANES];

	if (!sxd_special_lanes(i->aux, lanes)) {
		flow_spread(w, i->d, flow_special(w, i->aux, i->imm), true);
		return i + 1;
	}
	for (int l = 0; l < SX_LANES; l++)
		wide[l] = lanes[l];
	sx_put64(w, i->d, wide);
	return i + 1;
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

const struct sx_insn *
sx_raise(struct sx_warp *w, const struct sx_insn *i, CUresult code, unsigned lane, uint64_t address, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	sx_fault_record(w, i, code, lane, address, format, args);
	va_end(args);
	w->pc = NULL;
	w->state = SX_WARP_STOPPED;
	return NULL;
}

/* sx_backend.run: runs the warp until it waits, yields or ends. */
static void
flow_run_warp(struct sx_warp *w)
{
	const struct sx_insn *i = w->pc;
	if (!i)
		i = flow_pick(w);
	while (i) {
		w->now = i;
		i = i->fn(w, i);
	}
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static bool
flow_decode_bra(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct ptx_operand *to = in->operand_count ? &in->operands[in->operand_count - 1] : NULL;

	if (in->operand_count != 1 || to->kind != PTX_OP_LABEL) {
		sxd_fail(d, "the target is no label");
		return true;
	}
	uint32_t block = sxd_label_block(d, to->symbol);
	if (!in->guarded) {
		sxd_emit_jump(d, block);
		return true;
	}
	if (sxd_reg_bits(d, in->guard) != 1)
		sxd_fail(d, "the guard is no predicate");
	uint32_t slot = sxd_reg(d, in->guard, false);
	struct sx_insn *insn = sxd_emit(d, sxd_backward(d, block) ? flow_branch_back : flow_branch);
	insn->a = slot;
	insn->aux = in->guard_negated ? UINT32_MAX : 0;
	sxd_fix_add(d, d->count - 1, block, 0);
	return true;
}

static bool
flow_decode_brx(struct sx_decoder *d, const struct ptx_insn *in)
{
	const struct ptx_targets *targets = sxd_branch_targets(d->ast, in);
	struct fw_arena *arena = &d->image->arena;

	if (!targets || !targets->count || sxd_bits(d, &in->operands[0]) != 32) {
		sxd_fail(d, targets ? "the index is no 32-bit register" : "no .branchtargets");
		return true;
	}
	struct sxd_table *table = fw_arena_alloc(arena, sizeof(*table));
	uint32_t *blocks = fw_arena_alloc(arena, targets->count * sizeof(*blocks));
	const struct sx_insn **places = fw_arena_alloc(arena, targets->count * sizeof(*places));
	if (!table || !blocks || !places) {
		sxd_fail(d, "out of memory");
		return true;
	}
	for (uint32_t n = 0; n < targets->count; n++)
		blocks[n] = sxd_label_block(d, targets->labels[n]);
	*table = (struct sxd_table){ .next = d->tables, .count = targets->count, .blocks = blocks, .targets = places };
	d->tables = table;
	d->flow = true; /* a guard becomes a branch around it */
	uint32_t index = sxd_src(d, &in->operands[0], PTX_u32);
	struct sx_insn *insn = sxd_emit(d, flow_brx);
	insn->a = index;
	insn->ptr = table;
	return true;
}

/* Where an argument or result of a call lies: its .param variable's words, or temporary words for a register or constant. */
static struct flow_words
flow_call_words(struct sx_decoder *d, const struct ptx_operand *operand, const struct ptx_param *param, bool result)
{
	if ((operand->kind == PTX_OP_SYMBOL || operand->kind == PTX_OP_ADDRESS) && operand->symbol_kind != PTX_SYM_FUNC &&
	    operand->symbol_kind != PTX_SYM_MODULE_VAR) {
		struct sxd_address at = sxd_address(d, operand, PTX_SPACE_PARAM);
		uint32_t words = 1;
		if (operand->symbol_kind == PTX_SYM_LOCAL_VAR && operand->symbol < d->ast->local_count)
			words = sxd_words((uint32_t)d->ast->locals[operand->symbol].size);
		else if (param)
			words = sxd_words(param->size);
		if (at.kind != SXD_FRAME || at.imm)
			sxd_fail(d, "%s is no .param variable", operand->name ? operand->name : "an argument");
		return (struct flow_words){ at.reg, words };
	}
	unsigned bits = sxd_bits(d, operand);
	if (!bits)
		bits = param ? 8 * param->size : 32;
	struct flow_words words = { sxd_temp_words(d, bits > 64 ? 2 : 1), bits > 64 ? 2 : 1 };
	if (!result) {
		uint32_t value = sxd_src(d, operand, bits == 64 ? PTX_b64 : PTX_b32);
		struct sx_insn *insn = sxd_emit(d, flow_word_put);
		insn->d = value;
		insn->a = words.at;
		insn->aux = bits;
	}
	return words;
}

/* The parts of a call instruction. */
struct flow_call_parts {
	const struct ptx_operand *returns, *target, *arguments, *prototype;
};

static bool
flow_call_split(const struct ptx_insn *in, struct flow_call_parts *parts)
{
	for (uint32_t n = 0; n < in->operand_count; n++) {
		const struct ptx_operand *operand = &in->operands[n];
		if (operand->kind == PTX_OP_NONE)
			continue;
		if (operand->kind == PTX_OP_LIST) {
			if (!parts->target)
				parts->returns = operand;
			else
				parts->arguments = operand;
		} else if (!parts->target) {
			parts->target = operand;
		} else {
			parts->prototype = operand;
		}
	}
	return parts->target != NULL;
}

static const struct sx_builtin *
flow_builtin(const char *name)
{
	for (const struct sx_builtin *b = sx_builtins(); name && b->name; b++)
		if (strcmp(b->name, name) == 0)
			return b;
	return NULL;
}

static bool
flow_decode_call(struct sx_decoder *d, const struct ptx_insn *in)
{
	struct flow_call_parts parts = { .returns = NULL };
	struct sx_func *func = NULL;
	const struct ptx_param *params = NULL, *returns = NULL;
	uint32_t param_count = 0, return_count = 0, address = 0;

	d->flow = true;
	if (!flow_call_split(in, &parts)) {
		sxd_fail(d, "call without a function");
		return true;
	}
	if (parts.target->kind == PTX_OP_SYMBOL || parts.target->kind == PTX_OP_ADDRESS) {
		if (parts.target->symbol_kind == PTX_SYM_FUNC)
			func = sx_image_func(d->image, d->func->module, parts.target->symbol);
	} else {
		const struct ptx_targets *proto = parts.prototype ? sxd_targets(d->ast, parts.prototype->name) : NULL;
		if (proto) {
			params = proto->params;
			param_count = proto->param_count;
			returns = proto->returns;
			return_count = proto->return_count;
		}
		if (sxd_bits(d, parts.target) != 64) {
			sxd_fail(d, "the function's address is no 64-bit register");
			return true;
		}
		address = sxd_src(d, parts.target, PTX_b64);
		d->indirect = true;
	}
	if (func) {
		params = func->ast->params;
		param_count = func->ast->param_count;
		returns = func->ast->returns;
		return_count = func->ast->return_count;
	}
	uint32_t args = parts.arguments ? parts.arguments->count : 0, rets = parts.returns ? parts.returns->count : 0;
	if (func && (args != param_count || rets != return_count)) {
		sxd_fail(d, "%u arguments and %u results where the function has %u and %u", args, rets, param_count, return_count);
		return true;
	}
	struct flow_call *call = fw_arena_alloc(&d->image->arena, sizeof(*call) + (args + rets) * sizeof(call->args[0]));
	if (!call) {
		sxd_fail(d, "out of memory");
		return true;
	}
	*call = (struct flow_call){ .func = func, .name = parts.target->name, .arg_count = args, .ret_count = rets };
	for (uint32_t n = 0; n < args; n++)
		call->args[n] = flow_call_words(d, &parts.arguments->elems[n], n < param_count ? &params[n] : NULL, false);
	for (uint32_t n = 0; n < rets; n++)
		call->args[args + n] = flow_call_words(d, &parts.returns->elems[n], n < return_count ? &returns[n] : NULL, true);
	sx_fn fn = flow_call_indirect;
	if (parts.target->kind != PTX_OP_REG) {
		call->builtin = func && func->ast->has_body ? NULL : flow_builtin(parts.target->name);
		fn = call->builtin ? flow_call_builtin : func && func->ast->has_body ? flow_call : flow_call_unresolved;
		if (call->builtin && (args != call->builtin->arg_count || rets > 1))
			sxd_fail(d, "%u arguments where %s takes %u", args, call->builtin->name, call->builtin->arg_count);
		if (fn == flow_call)
			sxd_add_callee(d, func);
	}
	struct sx_insn *insn = sxd_emit(d, fn);
	insn->a = address;
	insn->ptr = call;
	for (uint32_t n = 0; n < rets; n++) {
		const struct ptx_operand *to = &parts.returns->elems[n];
		if (to->kind != PTX_OP_REG)
			continue;
		uint32_t slot = sxd_dst(d, to);
		insn = sxd_emit(d, flow_word_get);
		insn->d = slot;
		insn->a = call->args[args + n].at;
		insn->aux = sxd_reg_bits(d, to->reg);
	}
	return true;
}

/* The kind of bar and barrier: sync, arrive, red. */
static bool
flow_decode_bar(struct sx_decoder *d, const struct ptx_insn *in)
{
	static const char *const reductions[] = { "popc", "and", "or" };
	bool red = ptx_has(in, "red"), arrive = ptx_has(in, "arrive");
	uint32_t kind = arrive ? FLOW_BAR_ARRIVE : FLOW_BAR_SYNC, at = 0, dst = SX_NO_REG, predicate = SX_NO_REG;
	uint32_t operands = in->operand_count, number = SX_NO_REG, threads = SX_NO_REG;
	int64_t imm = 0;

	d->flow = true;
	if (ptx_has(in, "warp")) { /* bar.warp.sync mask */
		if (operands != 1) {
			sxd_fail(d, "wrong number of operands");
			return true;
		}
		sxd_emit_converge(d, sxd_src(d, &in->operands[0], PTX_b32));
		return true;
	}
	if (red) {
		for (uint32_t n = 0; n < 3; n++)
			if (ptx_has(in, reductions[n]))
				kind = FLOW_BAR_POPC + n;
		if (kind == FLOW_BAR_SYNC || operands < 3 || operands > 4) {
			sxd_fail(d, "wrong reduction");
			return true;
		}
		dst = sxd_dst(d, &in->operands[at++]);
		if (sxd_bits(d, &in->operands[0]) != (kind == FLOW_BAR_POPC ? 32u : 1u) && dst != SX_NO_REG)
			sxd_fail(d, "wrong type of the result");
		predicate = sxd_src(d, &in->operands[operands - 1], PTX_pred);
		if (in->operands[operands - 1].kind == PTX_OP_REG && sxd_bits(d, &in->operands[operands - 1]) != 1)
			sxd_fail(d, "the value is no predicate");
		operands--;
	}
	if (operands <= at || operands > at + 2 || (arrive && operands != at + 2)) {
		sxd_fail(d, "wrong number of operands");
		return true;
	}
	if (in->operands[at].kind == PTX_OP_IMM)
		imm = in->operands[at].imm;
	else
		number = sxd_src(d, &in->operands[at], PTX_u32);
	if (imm < 0 || imm >= SX_BARRIERS)
		sxd_fail(d, "there are 16 barriers");
	if (operands == at + 2)
		threads = sxd_src(d, &in->operands[at + 1], PTX_u32);
	for (uint32_t pass = 0; pass < (red && dst != SX_NO_REG ? 2u : 1u); pass++) {
		struct sx_insn *insn = sxd_emit(d, pass ? flow_bar_result : flow_bar);
		insn->d = dst;
		insn->a = threads;
		insn->b = number;
		insn->c = predicate;
		insn->imm = imm;
		insn->aux = kind;
	}
	return true;
}

static bool
flow_decode_barrier(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (!ptx_has(in, "cluster"))
		return flow_decode_bar(d, in);
	d->flow = true;
	if (in->operand_count) {
		sxd_fail(d, "wrong number of operands");
		return true;
	}
	if (ptx_has(in, "aligned"))
		sxd_emit_converge(d, sxd_const32(d, UINT32_MAX));
	if (ptx_has(in, "arrive"))
		sxd_emit(d, flow_cluster_arrive);
	else if (ptx_has(in, "wait"))
		sxd_emit(d, flow_cluster_wait);
	else
		sxd_fail(d, "not known to the software GPU");
	return true;
}

/* mov.pred from %is_explicit_cluster: the launch or the kernel (aux) names a cluster. */
static const struct sx_insn *
flow_explicit_cluster(struct sx_warp *w, const struct sx_insn *i)
{
	sx_put_pred(w, i->d, i->aux || sx_view(w)->cluster_size > 1 ? UINT32_MAX : 0);
	return i + 1;
}

/* mov from a special register goes straight into the destination; also the vector form. */
static bool
flow_decode_mov(struct sx_decoder *d, const struct ptx_insn *in)
{
	if (in->operand_count != 2 || in->operands[1].kind != PTX_OP_SPECIAL)
		return false;
	const struct ptx_operand *to = &in->operands[0], *from = &in->operands[1];
	uint32_t lanes[SX_LANES], count = to->kind == PTX_OP_VECTOR ? to->count : 1;

	if (from->special == PTX_SR_is_explicit_cluster) {
		if (sxd_bits(d, to) != 1)
			return false;
		uint32_t slot = sxd_dst(d, to);
		struct sx_insn *insn = sxd_emit(d, flow_explicit_cluster);
		insn->d = slot;
		insn->aux = sxd_func(d)->explicitcluster || sxd_func(d)->reqnctapercluster[0] > 0;
		return true;
	}
	if ((count == 1 && sxd_special_lanes(from->special, lanes)) || count > 4)
		return false;
	for (uint32_t n = 0; n < count; n++) {
		const struct ptx_operand *element = to->kind == PTX_OP_VECTOR ? &to->elems[n] : to;
		unsigned bits = sxd_bits(d, element);
		uint32_t slot = sxd_dst(d, element);
		if (slot == SX_NO_REG)
			continue;
		if (bits != 32 && bits != 64) {
			if (bits == 16 && to->kind != PTX_OP_VECTOR)
				return false;
			sxd_fail(d, "wrong width of the destination");
			return true;
		}
		uint32_t component = to->kind == PTX_OP_VECTOR ? n : from->component ? from->component - 1u : 0;
		sxd_special_into(d, from->special, component, bits, slot, from->imm);
	}
	return true;
}

static bool
flow_decode_return(struct sx_decoder *d, const struct ptx_insn *in)
{
	d->flow = true;
	if (sxd_is(in, "exit"))
		sxd_emit(d, flow_exit);
	else
		sxd_emit_return(d);
	return true;
}

static bool
flow_decode_trap(struct sx_decoder *d, const struct ptx_insn *in)
{
	d->flow = true;
	sxd_emit(d, flow_trap);
	return true;
}

static bool
flow_decode_nanosleep(struct sx_decoder *d, const struct ptx_insn *in)
{
	sxd_emit(d, flow_nanosleep);
	return true;
}

/* alloca, stacksave, stackrestore: .u32 or .u64. */
static bool
flow_decode_stack(struct sx_decoder *d, const struct ptx_insn *in)
{
	unsigned bits = in->type_count == 1 ? ptx_type_bits[in->types[0]] : 0;
	bool reserve = sxd_is(in, "alloca"), restore = sxd_is(in, "stackrestore");
	uint32_t slot = 0, size = 0;

	if ((bits != 32 && bits != 64) || in->operand_count < (reserve ? 2 : 1) || in->operand_count > (reserve ? 3 : 1) ||
	    sxd_bits(d, &in->operands[0]) != bits || (reserve && in->operands[1].kind == PTX_OP_REG &&
	    sxd_bits(d, &in->operands[1]) != bits))
		return false;
	int64_t align = reserve && in->operand_count == 3 ? in->operands[2].imm : 8;
	if (align <= 0 || align > 256 || (align & (align - 1)) || (reserve && in->operand_count == 3 && in->operands[2].kind != PTX_OP_IMM)) {
		sxd_fail(d, "wrong alignment");
		return true;
	}
	if (restore || reserve)
		size = sxd_src(d, &in->operands[reserve], in->types[0]);
	if (!restore)
		slot = sxd_dst(d, &in->operands[0]);
	if (slot == SX_NO_REG)
		return true;
	d->stack = true;
	struct sx_insn *insn = sxd_emit(d, reserve ? flow_alloca : restore ? flow_stackrestore : flow_stacksave);
	insn->d = slot;
	insn->a = size;
	insn->e = bits;
	insn->aux = (uint32_t)align;
	return true;
}

/* Hints to hardware: there is nothing to do. Grids of a stream run one after the other, so griddepcontrol never waits. */
static bool
flow_decode_nothing(struct sx_decoder *d, const struct ptx_insn *in)
{
	sxd_emit(d, flow_nothing);
	return true;
}

bool
sx_decode_flow(struct sx_decoder *d, const struct ptx_insn *in)
{
	static const struct { const char *op; bool (*decode)(struct sx_decoder *, const struct ptx_insn *); } table[] = {
		{ "alloca", flow_decode_stack },
		{ "bar", flow_decode_bar },
		{ "barrier", flow_decode_barrier },
		{ "bra", flow_decode_bra },
		{ "brkpt", flow_decode_trap },
		{ "brx", flow_decode_brx },
		{ "call", flow_decode_call },
		{ "exit", flow_decode_return },
		{ "griddepcontrol", flow_decode_nothing },
		{ "mov", flow_decode_mov },
		{ "nanosleep", flow_decode_nanosleep },
		{ "pmevent", flow_decode_nothing },
		{ "ret", flow_decode_return },
		{ "setmaxnreg", flow_decode_nothing },
		{ "stackrestore", flow_decode_stack },
		{ "stacksave", flow_decode_stack },
		{ "trap", flow_decode_trap },
	};
	for (size_t n = 0; n < sizeof(table) / sizeof(table[0]); n++)
		if (sxd_is(in, table[n].op))
			return table[n].decode(d, in);
	return false;
}
