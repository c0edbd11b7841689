/*
 * Random control flow: programs of basic blocks that jump anywhere (loops, irreducible ones, unreachable code), with guards, calls and
 * registers of every width. What each thread stores must equal what a scalar evaluation of the same program gives. This is the test of
 * divergence, reconvergence, block order and slot sharing. RANDOM_PROGRAMS says how many, RANDOM_SEED where to begin.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "soft/exec/exec.h"
#include "soft/space.h"
#include "tests/tap.h"

#define VARS 12   /* %r0.. live all over the program */
#define WIDES 4   /* %d0.. 64 bits */
#define PREDS 4
#define TEMPS 6   /* of one block */
#define BLOCKS 14
#define STEPS 8
#define THREADS 80
#define FUEL 200

enum kind { ADD, SUB, MUL, XOR, SHIFT, WIDE, NARROW, SETP, SELP, TEMP, CALL, KINDS };

struct step {
	enum kind kind;
	uint8_t d, a, b, p, guard; /* guard: 0 none, else 1 + predicate * 2 + negated */
	uint32_t imm;
};

struct block {
	struct step steps[STEPS];
	int count;
	int end; /* 0 falls through, 1 bra, 2 @p bra, 3 @!p bra, 4 brx.idx, 5 @p exit */
	uint8_t p, var;
	int targets[3];
};

struct program {
	struct block blocks[BLOCKS];
	int count;
};

static uint64_t state;

static uint32_t
pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 20) % below;
}

static void
generate(struct program *p)
{
	p->count = 2 + (int)pick(BLOCKS - 2);
	for (int n = 0; n < p->count; n++) {
		struct block *b = &p->blocks[n];
		b->count = (int)pick(STEPS + 1);
		for (int s = 0; s < b->count; s++) {
			b->steps[s] = (struct step){ .kind = pick(KINDS), .d = (uint8_t)pick(VARS), .a = (uint8_t)pick(VARS),
				.b = (uint8_t)pick(VARS), .p = (uint8_t)pick(PREDS), .imm = pick(1000) };
			if (pick(3) == 0)
				b->steps[s].guard = (uint8_t)(1 + pick(PREDS * 2));
		}
		b->end = (int)pick(12) == 0 ? 5 : (int)pick(5);
		b->p = (uint8_t)pick(PREDS);
		b->var = (uint8_t)pick(VARS);
		for (int t = 0; t < 3; t++)
			b->targets[t] = (int)pick((uint32_t)p->count + 1); /* the last one is the end */
	}
}

/* ---- as text ------------------------------------------------------------------------------------------------------ */

static char *text;
static size_t used, room;

static void __attribute__((format(printf, 1, 2)))
put(const char *format, ...)
{
	va_list args;
	if (room - used < 512)
		text = realloc(text, room = room * 2 + 4096);
	va_start(args, format);
	used += (size_t)vsnprintf(text + used, room - used, format, args);
	va_end(args);
}

static void
put_step(const struct step *s, int block, int index)
{
	char guard[16] = "";
	if (s->guard)
		snprintf(guard, sizeof(guard), "@%s%%p%d ", (s->guard - 1) & 1 ? "!" : "", (s->guard - 1) / 2);
	switch (s->kind) {
	case ADD: put("%sadd.u32 %%r%d, %%r%d, %%r%d;\n", guard, s->d, s->a, s->b); break;
	case SUB: put("%ssub.u32 %%r%d, %%r%d, %u;\n", guard, s->d, s->a, s->imm); break;
	case MUL: put("%smul.lo.u32 %%r%d, %%r%d, %%r%d;\n", guard, s->d, s->a, s->b); break;
	case XOR: put("%sxor.b32 %%r%d, %%r%d, %u;\n", guard, s->d, s->a, s->imm); break;
	case SHIFT: put("%sshr.u32 %%r%d, %%r%d, %u;\n", guard, s->d, s->a, s->imm % 32); break;
	case WIDE: put("%smad.wide.u32 %%d%d, %%r%d, %u, %%d%d;\n", guard, s->d % WIDES, s->a, s->imm, s->b % WIDES); break;
	case NARROW: put("%scvt.u32.u64 %%r%d, %%d%d;\n", guard, s->d, s->a % WIDES); break;
	case SETP: put("%ssetp.lt.u32 %%p%d, %%r%d, %%r%d;\n", guard, s->p, s->a, s->b); break;
	case SELP: put("%sselp.u32 %%r%d, %%r%d, %%r%d, %%p%d;\n", guard, s->d, s->a, s->b, s->p); break;
	case TEMP: /* registers that live for two instructions */
		put("add.u32 %%t%d_%d, %%r%d, %u;\n", block, index % TEMPS, s->a, s->imm);
		put("%sxor.b32 %%r%d, %%t%d_%d, %%r%d;\n", guard, s->d, block, index % TEMPS, s->b);
		break;
	case CALL:
		put("%scall (%%r%d), %s, (%%r%d, %%r%d);\n", guard, s->d, s->imm & 1 ? "odd" : "even", s->a, s->b);
		break;
	case KINDS: break;
	}
}

static void
put_program(const struct program *p)
{
	used = 0;
	put(".version 7.0\n.target sm_75\n.address_size 64\n"
	    ".func (.param .b32 o) even(.param .b32 x, .param .b32 y) {\n.reg .b32 %%x, %%y; .reg .pred %%p;\nld.param.b32 %%x, [x];\n"
	    "ld.param.b32 %%y, [y];\nsetp.gt.u32 %%p, %%x, %%y;\n@%%p bra L;\nadd.u32 %%x, %%x, 7;\nst.param.b32 [o], %%x;\nret;\n"
	    "L:\nsub.u32 %%x, %%x, %%y;\nst.param.b32 [o], %%x;\nret;\n}\n"
	    ".func (.param .b32 o) odd(.param .b32 x, .param .b32 y) {\n.reg .b32 %%x, %%y, %%n; .reg .pred %%p;\nld.param.b32 %%x, [x];\n"
	    "ld.param.b32 %%y, [y];\nand.b32 %%n, %%y, 7;\nL:\nsetp.eq.u32 %%p, %%n, 0;\n@%%p bra E;\nmul.lo.u32 %%x, %%x, 3;\n"
	    "sub.u32 %%n, %%n, 1;\nbra L;\nE:\nst.param.b32 [o], %%x;\nret;\n}\n"
	    ".visible .entry k(.param .u64 at) {\n.reg .b64 %%a, %%o, %%d<%d>;\n.reg .b32 %%i, %%c, %%n, %%fuel, %%r<%d>;\n"
	    ".reg .pred %%done, %%p<%d>;\n", WIDES, VARS, PREDS);
	for (int n = 0; n < p->count; n++)
		for (int t = 0; t < TEMPS; t++)
			put(".reg .b32 %%t%d_%d;\n", n, t);
	put("mov.u32 %%i, %%tid.x;\nmov.u32 %%c, %%ctaid.x;\nmov.u32 %%n, %%ntid.x;\nmad.lo.u32 %%i, %%c, %%n, %%i;\nmov.u32 %%fuel, %d;\n", FUEL);
	for (int v = 0; v < VARS; v++)
		put("mad.lo.u32 %%r%d, %%i, %d, %d;\n", v, 7 * v + 1, 13 * v);
	for (int v = 0; v < WIDES; v++)
		put("mul.wide.u32 %%d%d, %%i, %d;\n", v, 1000003 * (v + 1));
	for (int v = 0; v < PREDS; v++)
		put("setp.gt.u32 %%p%d, %%i, %d;\n", v, 9 * v + 5);
	for (int n = 0; n < p->count; n++) {
		const struct block *b = &p->blocks[n];
		put("B%d:\nsub.u32 %%fuel, %%fuel, 1;\nsetp.eq.u32 %%done, %%fuel, 0;\n@%%done bra B%d;\n", n, p->count);
		for (int s = 0; s < b->count; s++)
			put_step(&b->steps[s], n, s);
		switch (b->end) {
		case 1: put("bra B%d;\n", b->targets[0]); break;
		case 2: put("@%%p%d bra B%d;\n", b->p, b->targets[0]); break;
		case 3: put("@!%%p%d bra B%d;\n", b->p, b->targets[0]); break;
		case 4:
			put("rem.u32 %%c, %%r%d, 3;\nT%d: .branchtargets B%d, B%d, B%d;\nbrx.idx %%c, T%d;\n", b->var, n, b->targets[0],
			    b->targets[1], b->targets[2], n);
			break;
		case 5: put("@%%p%d exit;\n", b->p); break;
		}
	}
	put("B%d:\nld.param.u64 %%a, [at];\nmul.wide.u32 %%o, %%i, 4;\nadd.u64 %%a, %%a, %%o;\nmov.u32 %%n, %%fuel;\n", p->count);
	for (int v = 0; v < VARS; v++)
		put("mad.lo.u32 %%n, %%n, 31, %%r%d;\n", v);
	for (int v = 0; v < WIDES; v++)
		put("shr.u64 %%d%d, %%d%d, 3;\ncvt.u32.u64 %%c, %%d%d;\nmad.lo.u32 %%n, %%n, 31, %%c;\n", v, v, v);
	for (int v = 0; v < PREDS; v++)
		put("selp.u32 %%c, 1, 0, %%p%d;\nmad.lo.u32 %%n, %%n, 31, %%c;\n", v);
	put("st.global.u32 [%%a], %%n;\nret;\n}\n");
}

/* ---- scalar ------------------------------------------------------------------------------------------------------- */

struct thread {
	uint32_t r[VARS];
	uint64_t d[WIDES];
	bool p[PREDS];
};

static uint32_t
function(bool odd, uint32_t x, uint32_t y)
{
	if (!odd)
		return x > y ? x - y : x + 7;
	for (uint32_t n = y & 7; n; n--)
		x *= 3;
	return x;
}

static void
evaluate_step(const struct step *s, struct thread *t)
{
	if (s->guard && t->p[(s->guard - 1) / 2] == ((s->guard - 1) & 1))
		return;
	switch (s->kind) {
	case ADD: t->r[s->d] = t->r[s->a] + t->r[s->b]; break;
	case SUB: t->r[s->d] = t->r[s->a] - s->imm; break;
	case MUL: t->r[s->d] = t->r[s->a] * t->r[s->b]; break;
	case XOR: t->r[s->d] = t->r[s->a] ^ s->imm; break;
	case SHIFT: t->r[s->d] = t->r[s->a] >> (s->imm % 32); break;
	case WIDE: t->d[s->d % WIDES] = (uint64_t)t->r[s->a] * s->imm + t->d[s->b % WIDES]; break;
	case NARROW: t->r[s->d] = (uint32_t)t->d[s->a % WIDES]; break;
	case SETP: t->p[s->p] = t->r[s->a] < t->r[s->b]; break;
	case SELP: t->r[s->d] = t->p[s->p] ? t->r[s->a] : t->r[s->b]; break;
	case TEMP: t->r[s->d] = (t->r[s->a] + s->imm) ^ t->r[s->b]; break;
	case CALL: t->r[s->d] = function(s->imm & 1, t->r[s->a], t->r[s->b]); break;
	case KINDS: break;
	}
}

/* What the thread stores; `before` if it exits. */
static uint32_t
evaluate(const struct program *p, uint32_t i, uint32_t before)
{
	struct thread t;
	uint32_t fuel = FUEL;
	int at = 0;

	for (uint32_t v = 0; v < VARS; v++)
		t.r[v] = i * (7 * v + 1) + 13 * v;
	for (uint32_t v = 0; v < WIDES; v++)
		t.d[v] = (uint64_t)i * 1000003 * (v + 1);
	for (uint32_t v = 0; v < PREDS; v++)
		t.p[v] = i > 9 * v + 5;
	while (at < p->count) {
		const struct block *b = &p->blocks[at];
		if (--fuel == 0)
			break;
		for (int s = 0; s < b->count; s++)
			evaluate_step(&b->steps[s], &t);
		if (b->end == 5 && t.p[b->p])
			return before;
		if (b->end == 1 || (b->end == 2 && t.p[b->p]) || (b->end == 3 && !t.p[b->p]))
			at = b->targets[0];
		else
			at = b->end == 4 ? b->targets[t.r[b->var] % 3] : at + 1;
	}
	uint32_t n = fuel;
	for (int v = 0; v < VARS; v++)
		n = n * 31 + t.r[v];
	for (int v = 0; v < WIDES; v++)
		n = n * 31 + (uint32_t)(t.d[v] >> 3);
	for (int v = 0; v < PREDS; v++)
		n = n * 31 + t.p[v];
	return n;
}

/* ---- the comparison ------------------------------------------------------------------------------------------------ */

static int
run(struct sx_image *image, uint32_t blocks, uint32_t threads, uint32_t *out)
{
	uint64_t params[1] = { (uint64_t)(uintptr_t)out };
	struct ptx_error error;
	struct sx_launch launch = { .func = sx_image_find_kernel(image, "k"), .grid = { blocks, 1, 1 }, .block = { threads, 1, 1 },
		.cluster = { 1, 1, 1 }, .params = params, .param_bytes = 8, .stack_bytes = 1024, .max_resident = 8 };
	if (sx_func_prepare(launch.func, &error)) {
		printf("# line %d: %s\n", error.line, error.text);
		return -1;
	}
	struct sx_grid *grid = sx_grid_new(&launch);
	struct sx_worker *worker = sx_worker_new();
	while (sx_grid_work(grid, worker, 1000) != SX_FINISHED)
		;
	const struct sx_fault *fault = sx_grid_fault(grid);
	if (fault)
		printf("# %s\n", fault->text);
	sx_grid_free(grid);
	sx_worker_free(worker);
	return fault ? -1 : 0;
}

static bool
try_one(uint32_t *out)
{
	const struct sx_target target = { .cc = 86, .sm_count = 4, .max_shared_block = 99 << 10 };
	static struct program program;
	struct ptx_error error;
	bool good = true;

	generate(&program);
	put_program(&program);
	struct ptx_module *module = ptx_parse(text, used, &error);
	struct sx_image *image = module ? sx_image_link(&module, 1, &target, &error) : NULL;
	if (!image) {
		printf("# line %d: %s\n", error.line, error.text);
		return false;
	}
	for (uint32_t threads = THREADS; threads && good; threads = threads == THREADS ? 16 : 0) {
		for (uint32_t i = 0; i < THREADS; i++)
			out[i] = 0xdead0000 + i;
		good = run(image, THREADS / threads, threads, out) == 0;
		for (uint32_t i = 0; i < THREADS && good; i++) {
			uint32_t want = evaluate(&program, i, 0xdead0000 + i);
			if (out[i] != want) {
				printf("# thread %u stores %#x, not %#x\n", i, out[i], want);
				good = false;
			}
		}
	}
	sx_image_free(image);
	return good;
}

TEST(random_programs)
{
	const char *count = getenv("RANDOM_PROGRAMS"), *seed = getenv("RANDOM_SEED");
	uint64_t first = seed ? strtoull(seed, NULL, 0) : 1, last = first + (count ? strtoull(count, NULL, 0) : 300);
	uint32_t *out = sw_space_alloc(THREADS * 4, 256);

	for (uint64_t n = first; n < last; n++) {
		state = n * 0x9e3779b97f4a7c15u + 1;
		if (!try_one(out)) {
			printf("# RANDOM_SEED=%llu RANDOM_PROGRAMS=1\n", (unsigned long long)n);
			tap_failures++;
			if (getenv("RANDOM_SHOW"))
				fwrite(text, 1, used, stderr);
			break;
		}
	}
	free(text);
}

TEST_MAIN()
