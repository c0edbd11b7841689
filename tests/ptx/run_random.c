/*
 * Random programs: structured control flow over integer and floating-point registers, local and shared memory, calls, warp operations
 * and barriers, run on a device and by a scalar interpreter of our own that takes one thread at a time; all registers must agree.
 *
 * Programs are well defined by construction: warp operations, shared memory and barriers stand at the top level, where all threads
 * come by. The reference executes a top-level statement for every thread before it goes on to the next one.
 *
 *	run_random [--seed N] [--count N] [--ptxas FILE] [--print]
 */
#include "../slow.h"
#include "driver.h"
#include "num.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 80 /* the last warp is not full */
#define NR 8 /* registers of each class */
#define ND 6
#define NF 6
#define NG 4
#define NP 5
#define LOCALS 8
#define FUNCTIONS 3
#define STEPS_MAX 20000000

/* ---- programs ---------------------------------------------------------------------------------------------------- */

enum kind { OP, IF, LOOP, BREAK, CONTINUE, LOCAL_STORE, LOCAL_LOAD, CALL, RETURN, SHUFFLE, BALLOT, SHARED, ATOMIC };

struct statement {
	enum kind kind;
	int op, dst, src[3];
	bool immediate[3];
	uint64_t value[3];
	int guard;        /* predicate or -1 */
	bool guard_not;
	int count, step;  /* LOOP: its counter's number, mask of the trip count */
	struct statement *body, *other, *next;
};

struct function {
	struct statement *body;
};

static uint64_t seed;

static uint64_t
rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull >> 11;
}

static int
below(int n)
{
	return (int)(rnd() % (uint64_t)n);
}

/* Classes of registers: r u32, d u64, f f32, g f64, p predicate. The text's operands: %0 destination, %1.. sources. */
struct op {
	const char *text;
	const char *classes; /* destination, then sources */
	int weight;
};
enum {
	ADD, SUB, MUL, MULHI_U, MULHI_S, AND, OR, XOR, NOT, SHL, SHR_U, SHR_S, MIN_S, MAX_U, POPC, CLZ, BREV, BFE, PRMT, LOP3, SHF, MAD, SELP, SAD,
	DIV_U, REM_U, DIV_S, NEG, CVT_RD, CVT_RF, CVT_RG, CVT_S16, MOV_RF, SET,
	ADD64, SUB64, MUL64, WIDE_U, WIDE_S, SHL64, SHR64_S, XOR64, AND64, CVT_DR_U, CVT_DR_S, MIN64, MOV_D, ADDC, SELP64,
	FADD, FSUB, FMUL, FFMA, FMUL_Z, FMIN, FMAX, FCVT_S, FCVT_U, FDIV, FSQRT, FADD_FTZ, FCVT_G, MOV_FR, FSELP,
	GADD, GMUL, GFMA, GCVT_F, GCVT_S, GDIV, GSUB_P,
	P_LT, P_NE64, P_GT_F, P_GEU_G, P_AND, P_XOR, P_NOT, P_LE_AND,
	OPS
};
static const struct op ops[OPS] = {
	[ADD] = { "add.s32 %0, %1, %2", "rrr", 4 },
	[SUB] = { "sub.s32 %0, %1, %2", "rrr", 3 },
	[MUL] = { "mul.lo.s32 %0, %1, %2", "rrr", 3 },
	[MULHI_U] = { "mul.hi.u32 %0, %1, %2", "rrr", 1 },
	[MULHI_S] = { "mul.hi.s32 %0, %1, %2", "rrr", 1 },
	[AND] = { "and.b32 %0, %1, %2", "rrr", 2 },
	[OR] = { "or.b32 %0, %1, %2", "rrr", 1 },
	[XOR] = { "xor.b32 %0, %1, %2", "rrr", 3 },
	[NOT] = { "not.b32 %0, %1", "rr", 1 },
	[SHL] = { "shl.b32 %0, %1, %2", "rrr", 2 },
	[SHR_U] = { "shr.u32 %0, %1, %2", "rrr", 2 },
	[SHR_S] = { "shr.s32 %0, %1, %2", "rrr", 1 },
	[MIN_S] = { "min.s32 %0, %1, %2", "rrr", 1 },
	[MAX_U] = { "max.u32 %0, %1, %2", "rrr", 1 },
	[POPC] = { "popc.b32 %0, %1", "rr", 1 },
	[CLZ] = { "clz.b32 %0, %1", "rr", 1 },
	[BREV] = { "brev.b32 %0, %1", "rr", 1 },
	[BFE] = { "bfe.s32 %0, %1, %2, %3", "rrRR", 1 },
	[PRMT] = { "prmt.b32 %0, %1, %2, %3", "rrrr", 1 },
	[LOP3] = { "lop3.b32 %0, %1, %2, %3, 0x6a", "rrrr", 1 },
	[SHF] = { "shf.r.wrap.b32 %0, %1, %2, %3", "rrrr", 1 },
	[MAD] = { "mad.lo.s32 %0, %1, %2, %3", "rrrr", 2 },
	[SELP] = { "selp.b32 %0, %1, %2, %3", "rrrp", 3 },
	[SAD] = { "sad.u32 %0, %1, %2, %3", "rrrr", 1 },
	[DIV_U] = { "div.u32 %0, %1, %2", "rri", 1 }, /* i: an immediate that is not zero */
	[REM_U] = { "rem.u32 %0, %1, %2", "rri", 1 },
	[DIV_S] = { "div.s32 %0, %1, %2", "rri", 1 },
	[NEG] = { "neg.s32 %0, %1", "rr", 1 },
	[CVT_RD] = { "cvt.u32.u64 %0, %1", "rd", 3 },
	[CVT_RF] = { "cvt.rzi.s32.f32 %0, %1", "rf", 2 },
	[CVT_RG] = { "cvt.rni.u32.f64 %0, %1", "rg", 1 },
	[CVT_S16] = { "cvt.s32.s16 %0, %1", "rr", 1 },
	[MOV_RF] = { "mov.b32 %0, %1", "rf", 1 },
	[SET] = { "set.lt.u32.s32 %0, %1, %2", "rrr", 1 },
	[ADD64] = { "add.s64 %0, %1, %2", "ddd", 2 },
	[SUB64] = { "sub.s64 %0, %1, %2", "ddd", 1 },
	[MUL64] = { "mul.lo.s64 %0, %1, %2", "ddd", 1 },
	[WIDE_U] = { "mul.wide.u32 %0, %1, %2", "drr", 2 },
	[WIDE_S] = { "mul.wide.s32 %0, %1, %2", "drr", 1 },
	[SHL64] = { "shl.b64 %0, %1, %2", "ddr", 1 },
	[SHR64_S] = { "shr.s64 %0, %1, %2", "ddr", 1 },
	[XOR64] = { "xor.b64 %0, %1, %2", "ddd", 1 },
	[AND64] = { "and.b64 %0, %1, %2", "ddd", 1 },
	[CVT_DR_U] = { "cvt.u64.u32 %0, %1", "dr", 1 },
	[CVT_DR_S] = { "cvt.s64.s32 %0, %1", "dr", 2 },
	[MIN64] = { "min.s64 %0, %1, %2", "ddd", 1 },
	[MOV_D] = { "mov.b64 %0, {%1, %2}", "dRR", 1 }, /* R: a register, never an immediate */
	[ADDC] = { "{ .reg .b32 x, y; mov.b32 y, 7; add.cc.u32 x, %1, %2; addc.u32 x, y, 0; cvt.u64.u32 %0, x; }", "dRR", 1 },
	[SELP64] = { "selp.b64 %0, %1, %2, %3", "dddp", 1 },
	[FADD] = { "add.rn.f32 %0, %1, %2", "fff", 3 },
	[FSUB] = { "sub.rn.f32 %0, %1, %2", "fff", 2 },
	[FMUL] = { "mul.rn.f32 %0, %1, %2", "fff", 3 },
	[FFMA] = { "fma.rn.f32 %0, %1, %2, %3", "ffff", 2 },
	[FMUL_Z] = { "mul.rz.f32 %0, %1, %2", "fff", 1 },
	[FMIN] = { "min.f32 %0, %1, %2", "fff", 1 },
	[FMAX] = { "max.f32 %0, %1, %2", "fff", 1 },
	[FCVT_S] = { "cvt.rn.f32.s32 %0, %1", "fr", 3 },
	[FCVT_U] = { "cvt.rp.f32.u64 %0, %1", "fd", 1 },
	[FDIV] = { "div.rn.f32 %0, %1, %2", "fff", 1 },
	[FSQRT] = { "sqrt.rm.f32 %0, %1", "ff", 1 },
	[FADD_FTZ] = { "add.ftz.f32 %0, %1, %2", "fff", 1 },
	[FCVT_G] = { "cvt.rn.f32.f64 %0, %1", "fg", 2 },
	[MOV_FR] = { "mov.b32 %0, %1", "fr", 1 },
	[FSELP] = { "selp.f32 %0, %1, %2, %3", "fffp", 1 },
	[GADD] = { "add.rn.f64 %0, %1, %2", "ggg", 1 },
	[GMUL] = { "mul.rm.f64 %0, %1, %2", "ggg", 1 },
	[GFMA] = { "fma.rn.f64 %0, %1, %2, %3", "gggg", 1 },
	[GCVT_F] = { "cvt.f64.f32 %0, %1", "gf", 2 },
	[GCVT_S] = { "cvt.rn.f64.s64 %0, %1", "gd", 1 },
	[GDIV] = { "div.rn.f64 %0, %1, %2", "ggg", 1 },
	[GSUB_P] = { "sub.rp.f64 %0, %1, %2", "ggg", 1 },
	[P_LT] = { "setp.lt.s32 %0, %1, %2", "prr", 4 },
	[P_NE64] = { "setp.hi.u64 %0, %1, %2", "pdd", 1 },
	[P_GT_F] = { "setp.gt.f32 %0, %1, %2", "pff", 2 },
	[P_GEU_G] = { "setp.geu.f64 %0, %1, %2", "pgg", 1 },
	[P_AND] = { "and.pred %0, %1, %2", "ppp", 1 },
	[P_XOR] = { "xor.pred %0, %1, %2", "ppp", 1 },
	[P_NOT] = { "not.pred %0, %1", "pp", 1 },
	[P_LE_AND] = { "setp.le.or.u32 %0, %1, %2, !%3", "prrp", 1 },
};

static int
class_size(char c)
{
	return c == 'r' || c == 'R' ? NR : c == 'd' ? ND : c == 'f' ? NF : c == 'g' ? NG : NP;
}

static int loop_numbers;

static struct statement *
new_statement(enum kind kind)
{
	struct statement *s = calloc(1, sizeof *s);

	if (!s)
		abort();
	s->kind = kind;
	s->guard = -1;
	return s;
}

static uint64_t
some_value(char c)
{
	static const uint32_t words[] = { 0, 1, 2, 3, 5, 31, 32, 255, 65535, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 100, 0x12345678 };
	static const float floats[] = { 0, 1, -1, 0.5f, 1.5f, 3.25f, -1e10f, 1e-40f, 1e38f, 0.1f };
	uint64_t bits = 0;

	if (c == 'f') {
		memcpy(&bits, &floats[below(10)], 4);
	} else if (c == 'g') {
		double d = floats[below(10)];
		memcpy(&bits, &d, 8);
	} else {
		bits = words[below(15)];
		if (c == 'd' && below(2))
			bits = bits << 32 | words[below(15)];
		if (c == 'i' && (bits == 0 || bits == 0xffffffff))
			bits = 7;
	}
	return bits;
}

static struct statement *
random_op(void)
{
	static int total;
	struct statement *s = new_statement(OP);

	if (!total)
		for (int i = 0; i < OPS; i++)
			total += ops[i].weight;
	int pick = below(total);
	while (pick >= ops[s->op].weight)
		pick -= ops[s->op++].weight;
	const char *c = ops[s->op].classes;
	s->dst = below(class_size(c[0]));
	for (int i = 0; c[i + 1]; i++) {
		s->immediate[i] = c[i + 1] == 'i' || (c[i + 1] != 'p' && c[i + 1] != 'R' && i > 0 && below(4) == 0);
		if (s->immediate[i])
			s->value[i] = some_value(c[i + 1]);
		else
			s->src[i] = below(class_size(c[i + 1]));
	}
	if (below(5) == 0 && ops[s->op].text[0] != '{') {
		s->guard = below(NP);
		s->guard_not = below(2);
	}
	return s;
}

static struct statement *block(int depth, int length, bool in_loop, int calls, bool top);

static struct statement *
random_statement(int depth, bool in_loop, int calls, bool top)
{
	struct statement *s;
	int r = below(100);

	if (depth < 4 && r < 14) {
		s = new_statement(IF);
		s->guard = below(NP);
		s->guard_not = below(2);
		s->body = block(depth + 1, 1 + below(6), in_loop, calls, false);
		if (below(2))
			s->other = block(depth + 1, 1 + below(5), in_loop, calls, false);
		return s;
	}
	if (depth < 3 && r < 21) {
		s = new_statement(LOOP);
		s->src[0] = below(NR);
		s->step = 3 + 4 * below(2); /* up to 3 or 7 rounds, by the lane's own register */
		s->count = loop_numbers++;
		s->body = block(depth + 1, 2 + below(6), true, calls, false);
		return s;
	}
	if (in_loop && r < 25) {
		s = new_statement(below(2) ? BREAK : CONTINUE);
		s->guard = below(NP);
		s->guard_not = below(2);
		return s;
	}
	if (r < 31 || (calls < 0 && r < 36)) {
		s = new_statement(r % 2 ? LOCAL_STORE : LOCAL_LOAD);
		s->dst = below(NR);
		s->src[0] = below(NR);
		return s;
	}
	if (calls > 0 && r < 35) {
		s = new_statement(CALL);
		s->op = below(calls);
		s->dst = below(NR);
		s->src[0] = below(NR);
		s->src[1] = below(NR);
		return s;
	}
	if (calls <= 0 && !top && depth > 0 && r == 36) {
		s = new_statement(RETURN);
		s->guard = below(NP);
		s->guard_not = below(2);
		return s;
	}
	if (top && r < 50) {
		static const enum kind kinds[] = { SHUFFLE, SHUFFLE, BALLOT, SHARED, ATOMIC };
		s = new_statement(kinds[below(5)]);
		s->op = below(4);
		s->dst = below(NR);
		s->src[0] = below(NR);
		s->value[0] = (uint64_t)below(32);
		s->guard = s->kind == BALLOT ? below(NP) : -1;
		return s;
	}
	return random_op();
}

static struct statement *
block(int depth, int length, bool in_loop, int calls, bool top)
{
	struct statement *first = NULL, **last = &first;

	while (length-- > 0) {
		*last = random_statement(depth, in_loop, calls, top);
		last = &(*last)->next;
	}
	return first;
}

/* ---- as PTX ------------------------------------------------------------------------------------------------------- */

struct text {
	char *at;
	size_t size, space;
};

static void __attribute__((format(printf, 2, 3)))
put(struct text *t, const char *format, ...)
{
	va_list args;

	if (t->space - t->size < 2048) {
		t->space = t->space ? t->space * 2 : 1 << 16;
		t->at = realloc(t->at, t->space);
		if (!t->at)
			abort();
	}
	va_start(args, format);
	t->size += (size_t)vsnprintf(t->at + t->size, t->space - t->size, format, args);
	va_end(args);
}

static int labels;

static void
put_guard(struct text *t, const struct statement *s, bool inverted)
{
	if (s->guard >= 0)
		put(t, "@%s%%p%d ", s->guard_not != inverted ? "!" : "", s->guard);
}

static void
put_block(struct text *t, const struct statement *s, int break_to, int continue_to, bool function)
{
	for (; s; s = s->next) {
		int a, b, c;
		switch (s->kind) {
		case OP:
			put_guard(t, s, false);
			for (const char *p = ops[s->op].text; *p; p++) {
				if (*p != '%') {
					put(t, "%c", *p);
					continue;
				}
				int i = *++p - '1';
				char k = ops[s->op].classes[i + 1];
				if (i >= 0 && s->immediate[i])
					put(t, k == 'f' ? "0f%08llx" : k == 'g' ? "0d%016llx" : "0x%llx", (unsigned long long)s->value[i]);
				else
					put(t, "%%%c%d", k == 'R' ? 'r' : k, i < 0 ? s->dst : s->src[i]);
			}
			put(t, ops[s->op].text[0] == '{' ? "\n" : ";\n");
			break;
		case IF:
			a = labels++, b = labels++;
			put_guard(t, s, true);
			put(t, "bra L%d;\n", a);
			put_block(t, s->body, break_to, continue_to, function);
			if (s->other)
				put(t, "bra L%d;\n", b);
			put(t, "L%d:\n", a);
			put_block(t, s->other, break_to, continue_to, function);
			if (s->other)
				put(t, "L%d:\n", b);
			break;
		case LOOP:
			a = labels++, b = labels++, c = labels++;
			put(t, "and.b32 %%n%d, %%r%d, %d;\nL%d:\nsetp.eq.u32 %%q, %%n%d, 0;\n@%%q bra L%d;\nsub.u32 %%n%d, %%n%d, 1;\n", s->count, s->src[0],
			    s->step, a, s->count, b, s->count, s->count);
			put_block(t, s->body, b, c, function);
			put(t, "L%d:\nbra L%d;\nL%d:\n", c, a, b);
			break;
		case BREAK:
		case CONTINUE:
			put_guard(t, s, false);
			put(t, "bra L%d;\n", s->kind == BREAK ? break_to : continue_to);
			break;
		case RETURN:
			put_guard(t, s, false);
			put(t, "bra RETURN;\n");
			break;
		case LOCAL_STORE:
		case LOCAL_LOAD:
			put(t, "and.b32 %%t, %%r%d, %d;\nmul.wide.u32 %%o, %%t, 4;\nadd.u64 %%o, %%l, %%o;\n", s->src[0], LOCALS - 1);
			if (s->kind == LOCAL_STORE)
				put(t, "st.local.b32 [%%o], %%r%d;\n", s->dst);
			else
				put(t, "ld.local.b32 %%r%d, [%%o];\n", s->dst);
			break;
		case CALL:
			put(t, "{ .param .b32 pa; .param .b32 pb; .param .b32 pc; st.param.b32 [pa], %%r%d; st.param.b32 [pb], %%r%d; call (pc), fn%d_%s, (pa, pb); "
			    "ld.param.b32 %%r%d, [pc]; }\n", s->src[0], s->src[1], s->op, "NUMBER", s->dst);
			break;
		case SHUFFLE:
			put(t, "shfl.sync.%s.b32 %%r%d, %%r%d, %d, %s, %%m;\n", s->op == 0 ? "up" : s->op == 1 ? "down" : s->op == 2 ? "bfly" : "idx", s->dst, s->src[0],
			    (int)s->value[0] % (s->op == 2 ? 16 : 32), s->op == 0 ? "0" : "31");
			break;
		case BALLOT:
			put(t, "vote.sync.ballot.b32 %%r%d, %%p%d, %%m;\n", s->dst, s->guard);
			break;
		case SHARED:
			put(t, "st.shared.b32 [%%s], %%r%d;\nbar.sync 0;\nadd.u32 %%t, %%i, %d;\nrem.u32 %%t, %%t, %d;\nshl.b32 %%t, %%t, 2;\nadd.u32 %%t, %%t, %%s0;\n"
			    "ld.shared.b32 %%r%d, [%%t];\nbar.sync 0;\n", s->src[0], (int)s->value[0], THREADS, s->dst);
			break;
		case ATOMIC:
			put(t, "setp.eq.u32 %%q, %%i, 0;\n@%%q st.shared.b32 [word], 5;\nbar.sync 0;\nred.shared.%s.%s [word], %%r%d;\nbar.sync 0;\nld.shared.b32 %%r%d, [word];\n"
			    "bar.sync 0;\n", s->op == 0 ? "add" : s->op == 1 ? "xor" : s->op == 2 ? "max" : "and", s->op % 2 ? "b32" : "u32", s->src[0], s->dst);
			break;
		}
	}
}

static void
put_registers(struct text *t)
{
	put(t, ".reg .b32 %%r<%d>, %%n<%d>, %%t, %%i, %%s, %%s0, %%m, %%h;\n.reg .b64 %%d<%d>, %%o, %%l, %%a;\n.reg .f32 %%f<%d>;\n.reg .f64 %%g<%d>;\n"
	    ".reg .pred %%p<%d>, %%q;\n.local .align 4 .b8 mine[%d];\n", NR, loop_numbers + 1, ND, NF, NG, NP, LOCALS * 4);
}

/* Registers begin with values of the thread's number, h, in the same way as reset() makes them. */
static void
put_reset(struct text *t)
{
	for (int k = 0; k < NR; k++)
		put(t, "mad.lo.u32 %%r%d, %%h, %u, %u;\n", k, 0x9e3779b1u * (unsigned)(k + 1), (unsigned)k);
	for (int k = 0; k < ND; k++)
		put(t, "mul.wide.u32 %%d%d, %%r%d, %%r%d;\n", k, k, k + 1);
	for (int k = 0; k < NF; k++)
		put(t, "and.b32 %%t, %%r%d, 1023;\ncvt.rn.f32.u32 %%f%d, %%t;\n", k, k);
	for (int k = 0; k < NG; k++)
		put(t, "cvt.f64.f32 %%g%d, %%f%d;\n", k, k);
	for (int k = 0; k < NP; k++)
		put(t, "and.b32 %%t, %%r%d, %d;\nsetp.ne.u32 %%p%d, %%t, 0;\n", k, 8 << k, k);
	put(t, "mov.u64 %%l, mine;\n");
	for (int k = 0; k < LOCALS; k++)
		put(t, "st.local.b32 [mine+%d], %%r%d;\n", k * 4, k % NR);
}

static void
put_program(struct text *t, int number, const struct function *functions, const struct statement *body)
{
	struct text part = { 0 };

	for (int f = 0; f < FUNCTIONS; f++) {
		put(t, ".func (.param .b32 c) fn%d_%d(.param .b32 a, .param .b32 b)\n{\n", f, number);
		put_registers(t);
		put(t, "ld.param.b32 %%h, [a];\n");
		put_reset(t);
		put(t, "ld.param.b32 %%r1, [b];\n");
		part.size = 0;
		put(&part, "%s", "");
		put_block(&part, functions[f].body, 0, 0, true);
		/* calls name the functions of their own program */
		for (char *p = part.at, *q; p; p = q) {
			q = strstr(p, "NUMBER");
			for (char *c = p; *c && c != q; c++)
				put(t, "%c", *c);
			if (q) {
				put(t, "%d", number);
				q += 6;
			}
		}
		put(t, "RETURN:\nst.param.b32 [c], %%r0;\nret;\n}\n");
	}
	put(t, ".visible .entry k%d(.param .u64 out)\n{\n", number);
	put_registers(t);
	put(t, ".shared .align 4 .b8 slots[%d];\n.shared .align 4 .b32 word;\nmov.u32 %%i, %%tid.x;\nmov.u32 %%h, %%i;\nmov.u32 %%s0, slots;\nshl.b32 %%t, %%i, 2;\n"
	    "add.u32 %%s, %%s0, %%t;\nsetp.lt.u32 %%q, %%i, %d;\nmov.u32 %%m, 0x%x;\n@%%q mov.u32 %%m, 0xffffffff;\n", THREADS * 4, THREADS / 32 * 32,
	    (1u << THREADS % 32) - 1);
	put_reset(t);
	part.size = 0;
	put(&part, "%s", "");
	put_block(&part, body, 0, 0, false);
	for (char *p = part.at, *q; p; p = q) {
		q = strstr(p, "NUMBER");
		for (char *c = p; *c && c != q; c++)
			put(t, "%c", *c);
		if (q) {
			put(t, "%d", number);
			q += 6;
		}
	}
	free(part.at);
	put(t, "RETURN:\nld.param.u64 %%a, [out];\nmul.wide.u32 %%o, %%i, %d;\nadd.u64 %%a, %%a, %%o;\n", (NR + ND + NF + NG + NP) * 8);
	int at = 0;
	for (int k = 0; k < NR; k++, at += 8)
		put(t, "st.global.b32 [%%a+%d], %%r%d;\n", at, k);
	for (int k = 0; k < ND; k++, at += 8)
		put(t, "st.global.b64 [%%a+%d], %%d%d;\n", at, k);
	for (int k = 0; k < NF; k++, at += 8)
		put(t, "st.global.f32 [%%a+%d], %%f%d;\n", at, k);
	for (int k = 0; k < NG; k++, at += 8)
		put(t, "st.global.f64 [%%a+%d], %%g%d;\n", at, k);
	for (int k = 0; k < NP; k++, at += 8)
		put(t, "selp.b32 %%t, 1, 0, %%p%d;\nst.global.b32 [%%a+%d], %%t;\n", k, at);
	put(t, "ret;\n}\n");
}

/* ---- the reference: one thread at a time ------------------------------------------------------------------------- */

struct thread {
	uint32_t r[NR], local[LOCALS];
	uint64_t d[ND], f[NF], g[NG];
	bool p[NP];
	uint32_t h;
};

enum leave { STAY, BROKE, CONTINUED, RETURNED };

static const struct function *running;
static long steps;

static void
reset(struct thread *t, uint32_t h)
{
	t->h = h;
	for (int k = 0; k < NR; k++)
		t->r[k] = h * (0x9e3779b1u * (unsigned)(k + 1)) + (unsigned)k;
	for (int k = 0; k < ND; k++)
		t->d[k] = (uint64_t)t->r[k] * t->r[k + 1];
	for (int k = 0; k < NF; k++)
		t->f[k] = num_pack(N_F32, num_from_uint(t->r[k] & 1023, false), N_RN, false);
	for (int k = 0; k < NG; k++)
		t->g[k] = num_pack(N_F64, num_unpack(N_F32, t->f[k]), N_RN, false);
	for (int k = 0; k < NP; k++)
		t->p[k] = t->r[k] & (8u << k);
	for (int k = 0; k < LOCALS; k++)
		t->local[k] = t->r[k % NR];
}

static struct num
f32(uint64_t bits)
{
	return num_unpack(N_F32, bits);
}

static struct num
f64(uint64_t bits)
{
	return num_unpack(N_F64, bits);
}

static uint64_t
to32(struct num x, enum num_mode mode)
{
	return num_pack(N_F32, x, mode, false);
}

static uint64_t
to64(struct num x, enum num_mode mode)
{
	return num_pack(N_F64, x, mode, false);
}

static uint64_t
pick(uint64_t a, uint64_t b, bool greater)
{
	struct num x = f32(a), y = f32(b);

	if (x.kind == N_NAN && y.kind == N_NAN)
		return num_nan(N_F32);
	if (x.kind == N_NAN)
		return b;
	if (y.kind == N_NAN)
		return a;
	int order = num_compare(x, y);
	if (order == 0)
		order = x.neg == y.neg ? 0 : x.neg ? -1 : 1;
	return (order < 0) != greater ? a : b;
}

static uint64_t
apply(const struct thread *t, int op, const uint64_t *v)
{
	uint32_t a = (uint32_t)v[0], b = (uint32_t)v[1], c = (uint32_t)v[2], x = 0;
	int order;

	(void)t;
	switch (op) {
	case ADD: return a + b;
	case SUB: return a - b;
	case MUL: return a * b;
	case MULHI_U: return (uint64_t)a * b >> 32;
	case MULHI_S: return (uint32_t)((int64_t)(int32_t)a * (int32_t)b >> 32);
	case AND: return a & b;
	case OR: return a | b;
	case XOR: return a ^ b;
	case NOT: return ~a;
	case SHL: return b > 31 ? 0 : a << b;
	case SHR_U: return b > 31 ? 0 : a >> b;
	case SHR_S: return (uint32_t)((int32_t)a >> (b > 31 ? 31 : b));
	case MIN_S: return (int32_t)a < (int32_t)b ? a : b;
	case MAX_U: return a > b ? a : b;
	case POPC:
		for (; a; a &= a - 1)
			x++;
		return x;
	case CLZ:
		for (x = 32; a; a >>= 1)
			x--;
		return x;
	case BREV:
		for (int i = 0; i < 32; i++)
			x |= (a >> i & 1) << (31 - i);
		return x;
	case BFE: {
		unsigned pos = b & 255, len = c & 255;
		uint32_t sign = len == 0 ? 0 : a >> (pos + len - 1 < 31 ? pos + len - 1 : 31) & 1;
		for (unsigned i = 0; i < 32; i++)
			x |= (i < len && pos + i < 32 ? a >> (pos + i) & 1 : sign) << i;
		return x;
	}
	case PRMT:
		for (int i = 0; i < 4; i++) {
			unsigned n = c >> (4 * i) & 15;
			uint32_t byte = (uint32_t)(((uint64_t)b << 32 | a) >> (8 * (n & 7))) & 255;
			x |= (n & 8 ? (byte & 128 ? 255 : 0) : byte) << (8 * i);
		}
		return x;
	case LOP3:
		for (int i = 0; i < 32; i++)
			x |= (0x6au >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i;
		return x;
	case SHF: return (uint32_t)(((uint64_t)b << 32 | a) >> (c & 31));
	case MAD: return a * b + c;
	case SELP: return v[2] ? a : b;
	case SAD: return (a > b ? a - b : b - a) + c;
	case DIV_U: return a / b;
	case REM_U: return a % b;
	case DIV_S: return (uint32_t)((int64_t)(int32_t)a / (int32_t)b);
	case NEG: return 0 - a;
	case CVT_RD: return a;
	case CVT_RF: return (uint32_t)num_to_int(f32(v[0]), N_RZ, INT32_MIN, INT32_MAX);
	case CVT_RG: return f64(v[0]).kind == N_NAN ? 0x80000000u : (uint32_t)num_to_int(f64(v[0]), N_RN, 0, UINT32_MAX);
	case CVT_S16: return (uint32_t)(int16_t)a;
	case MOV_RF: return a;
	case SET: return (int32_t)a < (int32_t)b ? 0xffffffff : 0;
	case ADD64: return v[0] + v[1];
	case SUB64: return v[0] - v[1];
	case MUL64: return v[0] * v[1];
	case WIDE_U: return (uint64_t)a * b;
	case WIDE_S: return (uint64_t)((int64_t)(int32_t)a * (int32_t)b);
	case SHL64: return b > 63 ? 0 : v[0] << b;
	case SHR64_S: return (uint64_t)((int64_t)v[0] >> (b > 63 ? 63 : b));
	case XOR64: return v[0] ^ v[1];
	case AND64: return v[0] & v[1];
	case CVT_DR_U: return a;
	case CVT_DR_S: return (uint64_t)(int64_t)(int32_t)a;
	case MIN64: return (int64_t)v[0] < (int64_t)v[1] ? v[0] : v[1];
	case MOV_D: return (uint64_t)b << 32 | a;
	case ADDC: return 7 + (((uint64_t)a + b) >> 32);
	case SELP64: return v[2] ? v[0] : v[1];
	case FADD: return to32(num_add(f32(a), f32(b), N_RN), N_RN);
	case FSUB: return to32(num_add(f32(a), num_neg(f32(b)), N_RN), N_RN);
	case FMUL: return to32(num_mul(f32(a), f32(b)), N_RN);
	case FFMA: return to32(num_add(num_mul(f32(a), f32(b)), f32(c), N_RN), N_RN);
	case FMUL_Z: return to32(num_mul(f32(a), f32(b)), N_RZ);
	case FMIN: return pick(a, b, false);
	case FMAX: return pick(a, b, true);
	case FCVT_S: return to32(num_from_uint((int32_t)a < 0 ? 0 - (uint64_t)(int64_t)(int32_t)a : a, (int32_t)a < 0), N_RN);
	case FCVT_U: return to32(num_from_uint(v[0], false), N_RP);
	case FDIV: return to32(num_div(f32(a), f32(b)), N_RN);
	case FSQRT: return to32(num_sqrt(f32(a)), N_RM);
	case FADD_FTZ: return num_flush(N_F32, to32(num_add(f32(num_flush(N_F32, a)), f32(num_flush(N_F32, b)), N_RN), N_RN));
	case FCVT_G: return to32(f64(v[0]), N_RN);
	case MOV_FR: return a;
	case FSELP: return v[2] ? a : b;
	case GADD: return to64(num_add(f64(v[0]), f64(v[1]), N_RN), N_RN);
	case GMUL: return to64(num_mul(f64(v[0]), f64(v[1])), N_RM);
	case GFMA: return to64(num_add(num_mul(f64(v[0]), f64(v[1])), f64(v[2]), N_RN), N_RN);
	case GCVT_F: return to64(f32(v[0]), N_RN);
	case GCVT_S: return to64(num_from_uint((int64_t)v[0] < 0 ? 0 - v[0] : v[0], (int64_t)v[0] < 0), N_RN);
	case GDIV: return to64(num_div(f64(v[0]), f64(v[1])), N_RN);
	case GSUB_P: return to64(num_add(f64(v[0]), num_neg(f64(v[1])), N_RP), N_RP);
	case P_LT: return (int32_t)a < (int32_t)b;
	case P_NE64: return v[0] > v[1];
	case P_GT_F: return num_compare(f32(a), f32(b)) == 1;
	case P_GEU_G: order = num_compare(f64(v[0]), f64(v[1])); return order >= 0;
	case P_AND: return v[0] && v[1];
	case P_XOR: return (v[0] != 0) != (v[1] != 0);
	case P_NOT: return !v[0];
	case P_LE_AND: return a <= b || !v[2];
	}
	return 0;
}

static bool
guarded_out(const struct thread *t, const struct statement *s)
{
	return s->guard >= 0 && t->p[s->guard] == s->guard_not;
}

static void
do_op(struct thread *t, const struct statement *s)
{
	const char *c = ops[s->op].classes;
	uint64_t v[3] = { 0 };

	if (guarded_out(t, s))
		return;
	for (int i = 0; c[i + 1]; i++) {
		int n = s->src[i];
		v[i] = s->immediate[i] ? s->value[i] : c[i + 1] == 'r' || c[i + 1] == 'R' ? t->r[n] : c[i + 1] == 'd' ? t->d[n] : c[i + 1] == 'f' ? t->f[n] :
			c[i + 1] == 'g' ? t->g[n] : t->p[n];
	}
	uint64_t x = apply(t, s->op, v);
	switch (c[0]) {
	case 'r': t->r[s->dst] = (uint32_t)x; break;
	case 'd': t->d[s->dst] = x; break;
	case 'f': t->f[s->dst] = x & 0xffffffff; break;
	case 'g': t->g[s->dst] = x; break;
	case 'p': t->p[s->dst] = x; break;
	}
}

static enum leave
run(struct thread *t, const struct statement *s)
{
	for (; s; s = s->next) {
		enum leave how = STAY;
		if (++steps > STEPS_MAX)
			return RETURNED;
		switch (s->kind) {
		case OP:
			do_op(t, s);
			break;
		case IF:
			how = run(t, guarded_out(t, s) ? s->other : s->body);
			break;
		case LOOP:
			for (uint32_t n = t->r[s->src[0]] & (uint32_t)s->step; n; n--) {
				how = run(t, s->body);
				if (how == BROKE || how == RETURNED)
					break;
			}
			if (how != RETURNED)
				how = STAY;
			break;
		case BREAK:
		case CONTINUE:
			if (!guarded_out(t, s))
				how = s->kind == BREAK ? BROKE : CONTINUED;
			break;
		case RETURN:
			if (!guarded_out(t, s))
				how = RETURNED;
			break;
		case LOCAL_STORE:
			t->local[t->r[s->src[0]] % LOCALS] = t->r[s->dst];
			break;
		case LOCAL_LOAD:
			t->r[s->dst] = t->local[t->r[s->src[0]] % LOCALS];
			break;
		case CALL: {
			struct thread callee;
			reset(&callee, t->r[s->src[0]]);
			callee.r[1] = t->r[s->src[1]];
			run(&callee, running[s->op].body);
			t->r[s->dst] = callee.r[0];
			break;
		}
		default:
			break;
		}
		if (how != STAY)
			return how;
	}
	return STAY;
}

/* A statement of the top level that concerns all threads. */
static bool
together(struct thread *all, const struct statement *s)
{
	uint32_t before[THREADS], word = 5;

	for (int i = 0; i < THREADS; i++)
		before[i] = all[i].r[s->src[0]];
	switch (s->kind) {
	case SHUFFLE:
		for (int i = 0; i < THREADS; i++) {
			int lane = i % 32, n = (int)s->value[0] % (s->op == 2 ? 16 : 32), from = lane, lanes = i / 32 * 32 + 32 > THREADS ? THREADS % 32 : 32;
			from = s->op == 0 ? (lane - n >= 0 ? lane - n : lane) : s->op == 1 ? (lane + n <= 31 ? lane + n : lane) : s->op == 2 ? lane ^ n : n;
			if (from < lanes)
				all[i].r[s->dst] = before[i / 32 * 32 + from];
		}
		return true;
	case BALLOT:
		for (int w = 0; w < THREADS; w += 32) {
			uint32_t votes = 0;
			for (int l = 0; l < 32 && w + l < THREADS; l++)
				votes |= (uint32_t)all[w + l].p[s->guard] << l;
			for (int l = 0; l < 32 && w + l < THREADS; l++)
				all[w + l].r[s->dst] = votes;
		}
		return true;
	case SHARED:
		for (int i = 0; i < THREADS; i++)
			all[i].r[s->dst] = before[(i + (int)s->value[0]) % THREADS];
		return true;
	case ATOMIC:
		for (int i = 0; i < THREADS; i++)
			word = s->op == 0 ? word + before[i] : s->op == 1 ? word ^ before[i] : s->op == 2 ? (before[i] > word ? before[i] : word) : word & before[i];
		for (int i = 0; i < THREADS; i++)
			all[i].r[s->dst] = word;
		return true;
	default:
		return false;
	}
}

/* ---- one program after the other --------------------------------------------------------------------------------- */

struct program {
	struct function functions[FUNCTIONS];
	struct statement *body;
};

/* A shuffle from a lane that does not exist in the last warp is not defined: the last warp's lanes must find their source. */
static void
tame(struct statement *s)
{
	for (; s; s = s->next)
		if (s->kind == SHUFFLE && THREADS % 32) {
			s->value[0] %= THREADS % 32; /* 16: bfly with less than 16 stays inside, idx too */
			if (s->op == 1)
				s->op = 0;
		}
}

static struct program
generate(uint64_t number)
{
	struct program p = { 0 };

	seed = number * 0x9e3779b97f4a7c15ull + 0x1234567;
	for (int i = 0; i < 5; i++)
		rnd();
	loop_numbers = 0;
	for (int f = 0; f < FUNCTIONS; f++)
		p.functions[f].body = block(1, 4 + below(10), false, f, false);
	p.body = block(0, 15 + below(40), false, FUNCTIONS, true);
	tame(p.body);
	return p;
}

static int
differ(const struct program *p, const uint64_t *got, uint64_t number)
{
	static struct thread all[THREADS];
	const int words = NR + ND + NF + NG + NP;
	int wrong = 0;

	running = p->functions;
	steps = 0;
	for (int i = 0; i < THREADS; i++)
		reset(&all[i], (uint32_t)i);
	for (const struct statement *s = p->body; s; s = s->next) {
		if (together(all, s))
			continue;
		struct statement one = *s;
		one.next = NULL;
		for (int i = 0; i < THREADS; i++)
			run(&all[i], &one);
	}
	if (steps > STEPS_MAX) {
		printf("# seed %llu: too long, not compared\n", (unsigned long long)number);
		return 0;
	}
	for (int i = 0; i < THREADS; i++) {
		const uint64_t *g = got + i * words;
		for (int k = 0; k < words; k++) {
			char class = k < NR ? 'r' : k < NR + ND ? 'd' : k < NR + ND + NF ? 'f' : k < words - NP ? 'g' : 'p';
			int n = class == 'r' ? k : class == 'd' ? k - NR : class == 'f' ? k - NR - ND : class == 'g' ? k - NR - ND - NF : k - (words - NP);
			uint64_t want = class == 'r' ? all[i].r[n] : class == 'd' ? all[i].d[n] : class == 'f' ? all[i].f[n] : class == 'g' ? all[i].g[n] : all[i].p[n];
			uint64_t have = class == 'd' || class == 'g' ? g[k] : g[k] & 0xffffffff;
			bool nan = class == 'g' && num_bits_nan(N_F64, want) && num_bits_nan(N_F64, have);
			if (have != want && !nan && wrong++ < 3)
				printf("# seed %llu: thread %d: %c%d is %llx, not %llx\n", (unsigned long long)number, i, class, n, (unsigned long long)have,
				       (unsigned long long)want);
		}
	}
	return wrong;
}

int
main(int argc, char **argv)
{
	uint64_t first = 1, count = 200, wrong = 0;
	const char *ptxas = NULL;
	bool print = false;
	static struct text text;
	const size_t bytes = (size_t)THREADS * (NR + ND + NF + NG + NP) * 8;
	uint64_t *got = malloc(bytes);
	char log[2048];
	dptr out = 0;

	cu_need_level();
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--print") == 0)
			print = true;
		else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
			first = strtoull(argv[++i], NULL, 0), count = 1;
		else if (i + 1 < argc && strcmp(argv[i], "--count") == 0)
			count = strtoull(argv[++i], NULL, 0);
		else if (i + 1 < argc && strcmp(argv[i], "--ptxas") == 0)
			ptxas = argv[++i];
	}
	if (!ptxas && !print) {
		const char *why = cu_open();
		if (why || cu.MemAlloc(&out, bytes)) {
			printf("Bail out! %s\n", why ? why : "no memory");
			return 1;
		}
	}
	for (uint64_t n = first; n < first + count; n++) {
		struct program p = generate(n);
		labels = 0;
		text.size = 0;
		put(&text, ".version 7.0\n.target sm_75\n.address_size 64\n");
		put_program(&text, (int)n, p.functions, p.body);
		if (print) {
			fputs(text.at, stdout);
			continue;
		}
		if (ptxas) {
			char path[] = "/tmp/farwarp-random-XXXXXX", command[512];
			int fd = mkstemp(path);
			if (fd < 0 || write(fd, text.at, text.size) != (ssize_t)text.size)
				return 1;
			close(fd);
			snprintf(command, sizeof command, "'%s' -O0 -arch=sm_75 -o /dev/null %s 2>&1 | sed 's/^/# /'", ptxas, path);
			FILE *pipe = popen(command, "r");
			char line[512];
			bool bad = false;
			while (pipe && fgets(line, sizeof line, pipe))
				if (!bad && (strstr(line, "error") || strstr(line, "fatal"))) {
					printf("# seed %llu: %s", (unsigned long long)n, line + 2);
					bad = true;
				}
			if (pipe)
				pclose(pipe);
			unlink(path);
			wrong += bad;
			continue;
		}
		void *module, *function, *params[] = { &out };
		char name[32];
		snprintf(name, sizeof name, "k%d", (int)n);
		alarm(60 * TIMES_SLOWER);
		int error = cu_load(&module, text.at, log, sizeof log);
		if (error) {
			printf("# seed %llu: not loaded: %s: %s\n", (unsigned long long)n, cu_name(error), log);
			wrong++;
			continue;
		}
		if ((error = cu.ModuleGetFunction(&function, module, name)) || (error = cu.MemsetD8(out, 0, bytes)) ||
		    (error = cu.LaunchKernel(function, 1, 1, 1, THREADS, 1, 1, 0, NULL, params, NULL)) || (error = cu.CtxSynchronize()) ||
		    (error = cu.MemcpyDtoH(got, out, bytes))) {
			printf("# seed %llu: %s\n", (unsigned long long)n, cu_name(error));
			wrong++;
			break;
		}
		wrong += differ(&p, got, n) != 0;
		cu.ModuleUnload(module);
	}
	if (print)
		return 0;
	printf("%sok 1 - %llu random programs %s\n1..1\n", wrong ? "not " : "", (unsigned long long)count, ptxas ? "are accepted by the assembler" : "agree");
	return 0;
}
