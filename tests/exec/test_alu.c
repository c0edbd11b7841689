/*
 * Arithmetic beside the golden forms of tests/ptx: which forms must not be known, registers wider than a type, packing, the
 * carry flag of single lanes, and that the calling thread's floating-point mode does not matter.
 */
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "soft/exec/exec.h"
#include "soft/space.h"
#include "tests/tap.h"

static const struct sx_target target = { .cc = 120, .sm_count = 1, .max_shared_block = 99 << 10 };

/* A kernel of one instruction or several on registers that hold `in` (b, c, d in %r2..%r4 and %rd2..%rd4). Result: %r1, %rd1, %p1. */
static const char body[] =
	".version 9.0\n.target sm_120a\n.address_size 64\n"
	".visible .entry k(.param .u64 at) {\n"
	".reg .pred %%p<8>; .reg .b8 %%rb<8>; .reg .b16 %%rs<8>; .reg .b32 %%r<8>; .reg .b64 %%rd<12>; .reg .b128 %%rq<4>;\n"
	"ld.param.u64 %%rd9, [at];\nmov.u32 %%r7, %%tid.x;\nmul.wide.u32 %%rd8, %%r7, 32;\nadd.u64 %%rd9, %%rd9, %%rd8;\n"
	"ld.global.u64 %%rd2, [%%rd9+8];\nld.global.u64 %%rd3, [%%rd9+16];\nld.global.u64 %%rd4, [%%rd9+24];\n"
	"cvt.u32.u64 %%r2, %%rd2;\ncvt.u32.u64 %%r3, %%rd3;\ncvt.u32.u64 %%r4, %%rd4;\n"
	"cvt.u16.u64 %%rs2, %%rd2;\ncvt.u16.u64 %%rs3, %%rd3;\n"
	"mov.u64 %%rd1, 0;\nmov.u32 %%r1, 0;\nmov.u16 %%rs1, 0;\nsetp.ne.u32 %%p1, %%r1, %%r1;\nsetp.eq.u32 %%p2, %%r1, %%r1;\n"
	"setp.ne.u32 %%p3, %%r1, %%r1;\n"
	"%s\n%s\nst.global.u64 [%%rd9], %%rd1;\nret;\n}\n";

static struct sx_image *
load(const char *instruction, const char *result)
{
	static char text[4096];
	struct ptx_error error = { 0 };

	snprintf(text, sizeof(text), body, instruction, result);
	struct ptx_module *module = ptx_parse(text, strlen(text), &error);
	return module ? sx_image_link(&module, 1, &target, &error) : NULL;
}

static bool
known(const char *instruction)
{
	struct sx_image *image = load(instruction, "");
	struct ptx_error error = { 0 };
	const bool good = image && sx_func_prepare(sx_image_find_kernel(image, "k"), &error) == 0;
	if (image)
		sx_image_free(image);
	return good;
}

/* Runs it on `lanes` threads; each has the same inputs but lane k has in[0] + k. */
static uint64_t
compute(const char *instruction, const char *result, const uint64_t in[3], unsigned lanes, uint64_t *all)
{
	struct sx_image *image = load(instruction, result);
	struct ptx_error error = { 0 };

	if (!image || sx_func_prepare(sx_image_find_kernel(image, "k"), &error)) {
		printf("# %s: %s\n", instruction, error.text);
		return 0xdeadbeefdeadbeef;
	}
	uint64_t *memory = sw_space_alloc(32 * 32, 64), address = (uint64_t)memory;
	for (unsigned l = 0; l < lanes; l++)
		memcpy(memory + 4 * l + 1, (uint64_t[]){ in[0] + l, in[1], in[2] }, 24);
	struct sx_launch launch = { .func = sx_image_find_kernel(image, "k"), .grid = { 1, 1, 1 }, .block = { lanes, 1, 1 },
		.cluster = { 1, 1, 1 }, .params = &address, .param_bytes = 8, .stack_bytes = 1024, .max_resident = 1 };
	struct sx_grid *grid = sx_grid_new(&launch);
	struct sx_worker *worker = sx_worker_new();
	while (sx_grid_work(grid, worker, 1000) != SX_FINISHED)
		;
	const uint64_t value = sx_grid_fault(grid) ? 0xfa17 : memory[0];
	for (unsigned l = 0; all && l < lanes; l++)
		all[l] = memory[4 * l];
	sx_grid_free(grid);
	sx_worker_free(worker);
	sw_space_free(memory);
	sx_image_free(image);
	return value;
}

/* Moves a 32- or 16-bit result or a predicate into %rd1. */
#define R32 "cvt.u64.u32 %rd1, %r1;"
#define R16 "cvt.u64.u16 %rd1, %rs1;"
#define P1 "selp.u64 %rd1, 1, 0, %p1;"
#define PQ "selp.u64 %rd1, 1, 0, %p1; @%p4 or.b64 %rd1, %rd1, 2;"
#define R64 ""

static const struct {
	const char *instruction, *result;
	uint64_t in[3], want;
} values[] = {
	/* the source is cut to its type, the result extended to its register */
	{ "cvt.s8.s32 %r1, %r2;", R32, { 0x1234ff80 }, 0xffffff80 },
	{ "cvt.u8.s32 %r1, %r2;", R32, { 0x1234ff80 }, 0x80 },
	{ "cvt.s16.s8 %r1, %r2;", R32, { 0x0180 }, 0xffffff80 },
	{ "cvt.u16.s8 %r1, %r2;", R32, { 0x0180 }, 0xff80 },
	{ "cvt.u16.s8 %rs1, %rs2;", R16, { 0x80 }, 0xff80 },
	{ "cvt.s16.s8 %rs1, %rs2;", R16, { 0x80 }, 0xff80 },
	{ "cvt.u64.s8 %rd1, %r2;", R64, { 0x80 }, 0xffffffffffffff80 },
	{ "cvt.u32.s8 %rd1, %r2;", R64, { 0x80 }, 0xffffff80 },
	{ "cvt.s32.s8 %rd1, %r2;", R64, { 0x80 }, 0xffffffffffffff80 },
	{ "cvt.s32.u64 %rd1, %rd2;", R64, { 0x180000000 }, 0xffffffff80000000 },
	{ "cvt.sat.s8.s32 %r1, %r2;", R32, { 200 }, 127 },
	{ "cvt.sat.u8.s64 %rd1, %rd2;", R64, { -5 }, 0 },
	{ "cvt.sat.s64.u64 %rd1, %rd2;", R64, { -5 }, INT64_MAX },
	{ "cvt.rn.f32.u8 %r1, %r2;", R32, { 0xff05 }, 0x40a00000 },
	{ "cvt.rn.f32.s8 %r1, %r2;", R32, { 0x00ff }, 0xbf800000 },
	{ "cvt.rzi.s8.f32 %r1, %r2;", R32, { 0xc3960000 }, 0xffffff80 },
	{ "cvt.rzi.u8.f32 %rd1, %r2;", R64, { 0x43960000 }, 255 },
	/* f16 alone may stand in a register of 32 bits */
	{ "cvt.rn.f16.f32 %r1, %r2;", R32, { 0x3f800000 }, 0x3c00 },
	{ "cvt.f32.f16 %r1, %r2;", R32, { 0xabcd3c00 }, 0x3f800000 },
	{ "cvt.rni.s32.f16 %r1, %r2;", R32, { 0xabcdc500 }, 0xfffffffb },
	/* float to integer: NaN */
	{ "cvt.rzi.s32.f32 %r1, %r2;", R32, { 0x7fc00000 }, 0 },
	{ "cvt.rzi.s64.f32 %rd1, %r2;", R64, { 0x7fc00000 }, 0x8000000000000000 },
	{ "cvt.rzi.u32.f64 %r1, %rd2;", R32, { 0x7ff8000000000000 }, 0x80000000 },
	/* packing */
	{ "mov.b64 %rd1, {%rs2, %rs3, %rs2, %rs3};", R64, { 0x1111, 0x2222 }, 0x2222111122221111 },
	{ "mov.b64 {_, %r1}, %rd2;", R32, { 0x1234567800000000 }, 0x12345678 },
	{ "mov.b64 {%rs4, %rs5, %rs1, %rs6}, %rd2;", R16, { 0x4444333322221111 }, 0x3333 },
	{ "mov.b32 %r1, {%rs3, %rs2};", R32, { 0x1111, 0x2222 }, 0x11112222 },
	{ "cvt.u8.u32 %rb1, %r2; cvt.u8.u32 %rb2, %r3; mov.b32 %r1, {%rb1, %rb2, %rb1, %rb2};", R32, { 0x101, 0x202 }, 0x02010201 },
	{ "mov.b128 %rq1, {%rd2, %rd3}; mov.b128 {%rd5, %rd6}, %rq1; sub.u64 %rd1, %rd6, %rd5;", R64, { 5, 12 }, 7 },
	{ "mov.b128 %rq1, {%rd2, %rd3}; mov.b128 %rq2, %rq1; mov.b128 {_, %rd1}, %rq2;", R64, { 5, 12 }, 12 },
	/* packed comparison: lower half alone, both */
	{ "setp.lt.f16x2 %p1, %r2, %r3;", P1, { 0x3c003c00, 0x3c004000 }, 1 },
	{ "setp.lt.f16x2 %p1|%p4, %r2, %r3;", PQ, { 0x3c003c00, 0x40003c00 }, 2 },
	{ "setp.lt.and.f16x2 %p1|%p4, %r2, %r3, !%p3;", PQ, { 0x3c003c00, 0x40004000 }, 3 },
	/* q is the negated comparison, both with the Boolean operation */
	{ "setp.gt.or.s32 %p1|%p4, %r2, %r3, %p2;", PQ, { 1, 2 }, 3 },
	{ "setp.gt.and.s32 %p1|%p4, %r2, %r3, %p2;", PQ, { 1, 2 }, 2 },
	/* ue8m0: the sign is ignored */
	{ "cvt.rp.satfinite.ue8m0x2.f32 %rs1, %r2, %r3;", R16, { 0x3f800001, 0xff800000 }, 0x80fe },
	{ "cvt.rz.ue8m0x2.f32 %rs1, %r2, %r3;", R16, { 0x3fffffff, 0x7f800000 }, 0x7fff },
	{ "cvt.rn.bf16x2.ue8m0x2 %r1, %rs2;", R32, { 0x00ff }, 0x00407fff },
	/* carry chains */
	{ "add.cc.u64 %rd5, %rd2, %rd2; addc.u64 %rd1, %rd3, 0;", R64, { UINT64_MAX, 7 }, 8 },
	{ "sub.cc.u32 %r5, %r2, %r3; subc.u32 %r1, %r4, 0;", R32, { 1, 2, 10 }, 9 },
	{ "mad.lo.cc.u32 %r5, %r2, %r2, %r2; madc.hi.u32 %r1, %r2, %r2, 0;", R32, { 0xffffffff }, 0xffffffff },
	/* shifts take their count in full */
	{ "shl.b32 %r1, %r2, %r3;", R32, { 1, 0x100000001 }, 2 },
	{ "shr.s16 %rs1, %rs2, %r3;", R16, { 0x8000, 300 }, 0xffff },
	/* integers divided by zero, and the quotient that does not exist */
	{ "div.s32 %r1, %r2, %r3;", R32, { 0x80000000, 0xffffffff }, 0x80000000 },
	{ "rem.s64 %rd1, %rd2, %rd3;", R64, { 0x8000000000000000, -1 }, 0 },
	{ "div.u64 %rd1, %rd2, %rd3;", R64, { 4503599627370497, 3 }, 1501199875790165 },
	{ "div.s64 %rd1, %rd2, %rd3;", R64, { -7, 2 }, -3 },
	{ "rem.s64 %rd1, %rd2, %rd3;", R64, { -7, 2 }, -1 },
	{ "div.u64 %rd1, %rd2, %rd3;", R64, { UINT64_MAX, 10 }, 1844674407370955161 },
};

TEST(values_beside_the_golden_forms)
{
	for (size_t n = 0; n < sizeof(values) / sizeof(values[0]); n++) {
		const uint64_t got = compute(values[n].instruction, values[n].result, values[n].in, 1, NULL);
		if (got != values[n].want) {
			tap_failures++;
			printf("# %s: 0x%llx, not 0x%llx\n", values[n].instruction, (unsigned long long)got, (unsigned long long)values[n].want);
		}
	}
}

TEST(forms_that_do_not_exist_are_not_known)
{
	static const char *const forms[] = {
		"add.b32 %r1, %r2, %r3;", "add.u32 %r1, %r2;", "add.u32 %r1, %r2, %r3, %r4;", "add.u32 %rs1, %r2, %r3;",
		"add.u32 %r1, %rd2, %r3;", "add.sat.u32 %r1, %r2, %r3;", "add.rn.s32 %r1, %r2, %r3;", "add.rn.rz.f32 %r1, %r2, %r3;",
		"add.ftz.f64 %rd1, %rd2, %rd3;", "add.rz.f16 %rs1, %rs2, %rs3;", "add.ftz.bf16 %rs1, %rs2, %rs3;", "add.f32 %r1, %r2, %p1;",
		"add.u32 5, %r2, %r3;", "add.u32 _, %r2, %r3;", "add.u32 %r1, -%r2, %r3;", "add.u32 %r1, {%rs2, %rs3}, %r3;",
		"add.u32 %r1|%p1, %r2, %r3;", "add.nonsense.u32 %r1, %r2, %r3;", "add.u32.u32 %r1, %r2, %r3;",
		"mul.u32 %r1, %r2, %r3;", "mul.wide.u64 %rd1, %rd2, %rd3;", "mul.wide.u32 %r1, %r2, %r3;", "mul.lo.hi.u32 %r1, %r2, %r3;",
		"mad.lo.sat.s32 %r1, %r2, %r3, %r4;", "mad.f32 %r1, %r2, %r3, %r4;", "fma.f32 %r1, %r2, %r3, %r4;", "fma.rn.sat.relu.f16 %rs1, %rs2, %rs3, %rs2;",
		"div.f32 %r1, %r2, %r3;", "div.approx.f64 %rd1, %rd2, %rd3;", "div.full.rn.f32 %r1, %r2, %r3;", "rcp.f32 %r1, %r2;",
		"sqrt.approx.f64 %rd1, %rd2;", "sin.f32 %r1, %r2;", "sin.approx.f64 %rd1, %rd2;", "rsqrt.rn.f32 %r1, %r2;",
		"min.ftz.s32 %r1, %r2, %r3;", "min.xorsign.f32 %r1, %r2, %r3;", "min.f16 %rs1, %rs2, %rs3, %rs2;", "max.NaN.f64 %rd1, %rd2, %rd3;",
		"and.u32 %r1, %r2, %r3;", "not.s32 %r1, %r2;", "shl.s32 %r1, %r2, %r3;", "shl.b64 %rd1, %rd2, %rd3;", "popc.u32 %r1, %r2;",
		"popc.b64 %rd1, %rd2;", "bfe.b32 %r1, %r2, %r3, %r4;", "bmsk.b32 %r1, %r2, %r3;", "shf.l.b32 %r1, %r2, %r3, %r4;",
		"selp.b32 %r1, %r2, %r3, %r4;", "selp.pred %p1, %p2, %p3, %p2;", "setp.s32 %p1, %r2, %r3;", "setp.lt.b32 %p1, %r2, %r3;",
		"setp.ltu.s32 %p1, %r2, %r3;", "setp.lo.s32 %p1, %r2, %r3;", "setp.lt.eq.s32 %p1, %r2, %r3;", "setp.lt.and.s32 %p1, %r2, %r3;",
		"setp.lt.s32 %r1, %r2, %r3;", "setp.lt.ftz.f64 %p1, %rd2, %rd3;", "setp.lt.f16 %p1|%p2, %rs2, %rs3;",
		"set.lt.u64.s32 %rd1, %r2, %r3;", "set.lt.f16x2.f32 %r1, %r2, %r3;", "slct.u32.u32 %r1, %r2, %r3, %r4;",
		"mov.b32 %r1, %rd2;", "mov.f16 %rs1, %rs2;", "mov.u32 {%rs1, %rs2}, %r1;", "mov.b64 %rd1, {%r2, %r3, %r4};", "mov.b64 %rd1, {%rs2, %rs3};",
		"mov.b32 {%r1, %r2}, %r3;", "mov.b128 %rq1, 5;", "cvt.f32.s32 %r1, %r2;", "cvt.rzi.f32.s32 %r1, %r2;", "cvt.rn.s32.f32 %r1, %r2;",
		"cvt.s32.f32 %r1, %r2;", "cvt.rn.f64.f32 %rd1, %r2;", "cvt.f32.f64 %r1, %rd2;", "cvt.rn.relu.f32.f64 %r1, %rd2;", "cvt.u32.u32 %rs1, %r2;",
		"cvt.rn.tf32.f64 %r1, %rd2;", "cvt.rn.tf32.s32 %r1, %r2;", "cvt.rna.relu.tf32.f32 %r1, %r2;", "cvt.rn.bf16.u8 %rs1, %rs2;",
		"cvt.rn.sat.bf16.f32 %rs1, %r2;", "cvt.rn.f16x2.f32 %r1, %r2;", "cvt.rm.f16x2.f32 %r1, %r2, %r3;", "cvt.rn.e4m3x2.f32 %rs1, %r2, %r3;",
		"cvt.rs.f16x2.f32 %r1, %r2, %r3, %r4;", "cvt.rn.ue8m0x2.f32 %rs1, %r2, %r3;", "cvt.pack.u8.s32.b32 %r1, %r2, %r3, %r4;",
		"cvt.pack.sat.u8.s32 %r1, %r2, %r3;", "lop3.b32 %r1, %r2, %r3, %r4, 256;", "lop3.xor.b32 %r1|%p1, %r2, %r3, %r4, 1, %p2;",
		"lop3.b64 %rd1, %rd2, %rd3, %rd4, 1;", "prmt.lo.b32 %r1, %r2, %r3, %r4;", "testp.f32 %p1, %r2;", "testp.normal.finite.f32 %p1, %r2;",
		"dp4a.u32 %r1, %r2, %r3, %r4;", "dp2a.s32.s32 %r1, %r2, %r3, %r4;", "addc.u16 %rs1, %rs2, %rs3;", "copysign.f16 %rs1, %rs2, %rs3;",
		"fma.rn.oob.f16 %rs1, %rs2, %rs3, %rs2;",
	};
	for (size_t n = 0; n < sizeof(forms) / sizeof(forms[0]); n++)
		if (known(forms[n])) {
			tap_failures++;
			printf("# known: %s\n", forms[n]);
		}
	CHECK(known("add.u32 %r1, %r2, %r3;"));
}

TEST(every_lane_has_a_carry_of_its_own)
{
	uint64_t all[32];

	/* lane l adds l to 2^32 - 16; only the even lanes go on to the second word */
	compute("add.cc.u32 %r5, %r2, 0xfffffff0; and.b32 %r6, %r7, 1; setp.eq.u32 %p4, %r6, 0; @%p4 addc.u32 %r1, %r3, 0;", R32,
	        (uint64_t[3]){ 0, 100, 0 }, 32, all);
	for (unsigned l = 0; l < 32; l++)
		CHECK_INT(all[l], l % 2 ? 0 : l >= 16 ? 101 : 100);
	/* an add.cc of some lanes leaves the others' flags */
	compute("add.cc.u32 %r5, %r2, 0xfffffff0; setp.lt.u32 %p4, %r7, 20; @%p4 add.cc.u32 %r5, %r2, 0; addc.u32 %r1, %r3, 0;", R32,
	        (uint64_t[3]){ 0, 100, 0 }, 32, all);
	for (unsigned l = 0; l < 32; l++)
		CHECK_INT(all[l], l >= 20 ? 101 : 100);
}

TEST(the_callers_floating_point_mode_does_not_matter)
{
	const uint64_t third[3] = { 0x3f800000, 0x40400000 }, small[3] = { 0x00800001, 0x3f000000 };
	static const int modes[] = { FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };

	for (int m = 0; m < 4; m++) {
		fesetround(modes[m]);
#if defined(__SSE2__)
		_mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
#endif
		CHECK_INT(compute("div.rn.f32 %r1, %r2, %r3;", R32, third, 1, NULL), 0x3eaaaaab);
		CHECK_INT(compute("div.rz.f32 %r1, %r2, %r3;", R32, third, 1, NULL), 0x3eaaaaaa);
		CHECK_INT(compute("mul.f32 %r1, %r2, %r3;", R32, small, 1, NULL), 0x00400000);
		CHECK_INT(compute("mul.rp.f32 %r1, %r2, %r3;", R32, small, 1, NULL), 0x00400001);
		CHECK_INT(compute("mul.ftz.f32 %r1, %r2, %r3;", R32, small, 1, NULL), 0);
		CHECK_INT(fegetround(), modes[m]);
#if defined(__SSE2__)
		CHECK_INT(_mm_getcsr() & 0x8040, 0x8040);
		_mm_setcsr(_mm_getcsr() & ~0x8040u);
#endif
	}
	fesetround(FE_TONEAREST);
}

/* FARWARP_ISA decides; where this processor or build has no such level another one is taken, with a line on the log. */
TEST(the_level_that_was_asked_for)
{
	const char *wanted = getenv("FARWARP_ISA");
	bool there = true;

#if defined(__x86_64__)
	__builtin_cpu_init();
	if (wanted && strcmp(wanted, "x86-64-v3") == 0)
		there = __builtin_cpu_supports("avx2");
	if (wanted && strcmp(wanted, "x86-64-v4") == 0)
		there = __builtin_cpu_supports("avx512bw");
#endif
	if (!wanted || !there)
		SKIP("no level is asked for, or this processor does not have it");
	CHECK(strcmp(sx_isa_name(), wanted) == 0);
}

TEST_MAIN()
