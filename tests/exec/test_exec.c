/*
 * The interpreter through exec.h, without a device: linking, preparing, grids that fault, hang, are cancelled, wait for each other,
 * and that the end of a grid is told exactly once.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "soft/exec/exec.h"
#include "soft/exec/order.h"
#include "soft/space.h"
#include "tests/tap.h"

#define HEAD ".version 8.0\n.target sm_80\n.address_size 64\n"

static const struct sx_target target = { .cc = 86, .sm_count = 4, .max_shared_block = 99 << 10 };

static struct ptx_module *
parse(const char *text)
{
	struct ptx_error error;
	struct ptx_module *module = ptx_parse(text, strlen(text), &error);
	if (!module)
		printf("# parse: line %d: %s\n", error.line, error.text);
	return module;
}

static struct sx_image *
load(const char *text)
{
	struct ptx_module *module = parse(text);
	struct ptx_error error = { 0 };
	struct sx_image *image = module ? sx_image_link(&module, 1, &target, &error) : NULL;
	if (!image)
		printf("# link: line %d: %s\n", error.line, error.text);
	return image;
}

struct run {
	struct sx_launch launch;
	uint64_t params[8];
	struct sx_grid *grid;
	int finished;       /* atomic: how often SX_FINISHED came */
	int stop;           /* atomic */
	int yields;         /* atomic */
	unsigned threads;
};

static struct run
prepare(struct sx_image *image, const char *kernel, uint32_t blocks, uint32_t threads)
{
	struct run r = { .threads = 2 };
	struct ptx_error error = { 0 };

	r.launch = (struct sx_launch){ .func = sx_image_find_kernel(image, kernel), .grid = { blocks, 1, 1 }, .block = { threads, 1, 1 },
		.cluster = { 1, 1, 1 }, .stack_bytes = 1024, .max_resident = 16 };
	if (sx_func_prepare(r.launch.func, &error))
		printf("# prepare: line %d: %s\n", error.line, error.text);
	return r;
}

static void *
work(void *argument)
{
	struct run *r = argument;
	struct sx_worker *worker = sx_worker_new();

	while (!__atomic_load_n(&r->finished, __ATOMIC_ACQUIRE)) {
		enum sx_progress progress = sx_grid_work(r->grid, worker, 200);
		if (progress == SX_FINISHED)
			__atomic_add_fetch(&r->finished, 1, __ATOMIC_ACQ_REL);
		else if (progress == SX_YIELDED)
			__atomic_add_fetch(&r->yields, 1, __ATOMIC_RELAXED);
		else
			break;
		/* a kernel that does not end by itself */
		if (r->stop && __atomic_load_n(&r->yields, __ATOMIC_RELAXED) >= r->stop)
			sx_grid_cancel(r->grid);
	}
	sx_worker_free(worker);
	return NULL;
}

static void
run(struct run *r)
{
	pthread_t ids[8];

	r->launch.params = r->params;
	r->launch.param_bytes = sizeof(r->params);
	r->grid = sx_grid_new(&r->launch);
	for (unsigned n = 1; n < r->threads; n++)
		pthread_create(&ids[n], NULL, work, r);
	work(r);
	for (unsigned n = 1; n < r->threads; n++)
		pthread_join(ids[n], NULL);
	CHECK_INT(r->finished, 1);
}

static const char count_text[] = HEAD
	".visible .entry count(.param .u64 at) {\n.reg .b64 %a; .reg .b32 %r;\n"
	"ld.param.u64 %a, [at];\natom.global.add.u32 %r, [%a], 1;\nret;\n}\n";

TEST(every_block_runs_once_and_the_end_is_told_once)
{
	struct sx_image *image = load(count_text);
	uint32_t *counter = sw_space_alloc(4, 4);
	for (unsigned threads = 1; threads <= 4; threads++) {
		for (uint32_t blocks = 1; blocks < 3000; blocks = blocks * 7 + 1) {
			struct run r = prepare(image, "count", blocks, 40);
			r.threads = threads;
			r.params[0] = (uint64_t)(uintptr_t)counter;
			*counter = 0;
			run(&r);
			CHECK_INT(*counter, blocks * 40);
			CHECK(!sx_grid_fault(r.grid));
			CHECK_INT(sx_grid_work(r.grid, NULL, 0), SX_NO_WORK);
			sx_grid_free(r.grid);
		}
	}
	sx_image_free(image);
}

static const char forever_text[] = HEAD
	".visible .entry plain() {\nL: bra L;\n}\n"
	".visible .entry polls(.param .u64 at) {\n.reg .b64 %a; .reg .b32 %r; .reg .pred %p;\nld.param.u64 %a, [at];\n"
	"L: ld.volatile.global.u32 %r, [%a];\nsetp.eq.u32 %p, %r, 0;\n@%p bra L;\nret;\n}\n"
	".visible .entry meets() {\nL: bar.sync 0;\nbra L;\n}\n"
	".visible .entry stuck() {\n.reg .b32 %t; .reg .pred %p;\nmov.u32 %t, %tid.x;\nsetp.eq.u32 %p, %t, 0;\n"
	"@%p barrier.sync 1, 96;\n@!%p barrier.sync 2, 96;\nret;\n}\n";

TEST(a_kernel_that_runs_forever_can_be_cancelled)
{
	static const char *const kernels[] = { "plain", "polls", "meets", "stuck" };
	struct sx_image *image = load(forever_text);
	void *memory = sw_space_alloc(4, 4);
	for (int k = 0; k < 4; k++) {
		struct run r = prepare(image, kernels[k], 100, 64);
		r.params[0] = (uint64_t)(uintptr_t)memory;
		r.stop = 20;
		run(&r);
		CHECK(r.yields >= 20);
		CHECK(!sx_grid_fault(r.grid));
		sx_grid_free(r.grid);
	}
	sx_image_free(image);
}

TEST(endless_recursion_is_a_stack_error)
{
	struct sx_image *image = load(
		HEAD ".visible .func (.param .b32 q) f(.param .b32 p) {\n.local .align 8 .b8 x[16];\n.reg .b32 %a;\nld.param.b32 %a, [p];\n"
		     "add.u32 %a, %a, 1;\nst.local.u32 [x], %a;\n{\n.param .b32 i;\n.param .b32 o;\nst.param.b32 [i], %a;\n"
		     "call (o), f, (i);\nld.param.b32 %a, [o];\n}\nst.param.b32 [q], %a;\nret;\n}\n"
		     ".visible .entry deep() {\n.reg .b32 %a;\n{\n.param .b32 i;\n.param .b32 o;\nst.param.b32 [i], 0;\n"
		     "call (o), f, (i);\nld.param.b32 %a, [o];\n}\nret;\n}\n");
	struct run r = prepare(image, "deep", 3, 64);
	run(&r);
	const struct sx_fault *fault = sx_grid_fault(r.grid);
	CHECK(fault != NULL);
	CHECK_INT(fault ? fault->code : 0, CUDA_ERROR_HARDWARE_STACK_ERROR);
	sx_grid_free(r.grid);
	sx_image_free(image);
}

TEST(a_trap_names_kernel_line_block_and_thread)
{
	struct sx_image *image = load(
		HEAD ".visible .entry t() {\n.reg .b32 %t, %c; .reg .pred %p;\nmov.u32 %t, %tid.x;\nmov.u32 %c, %ctaid.x;\n"
		     "setp.eq.u32 %p, %t, 37;\nsetp.eq.and.u32 %p, %c, 5, %p;\n@%p trap;\nret;\n}\n");
	struct run r = prepare(image, "t", 9, 64);
	run(&r);
	const struct sx_fault *fault = sx_grid_fault(r.grid);
	CHECK(fault != NULL);
	if (!fault)
		return;
	CHECK_INT(fault->code, CUDA_ERROR_LAUNCH_FAILED);
	CHECK_STR(fault->kernel, "t");
	CHECK_INT(fault->line, 10);
	CHECK_INT(fault->block[0], 5);
	CHECK_INT(fault->thread[0], 37);
	CHECK(strstr(fault->text, "trap") && strstr(fault->text, "line 10"));
	sx_grid_free(r.grid);
	sx_image_free(image);
}

TEST(memory_that_vanished_is_a_fault_and_not_a_crash)
{
	struct sx_image *image = load(
		HEAD ".visible .entry rd(.param .u64 at) {\n.reg .b64 %a; .reg .b32 %r;\nld.param.u64 %a, [at];\n"
		     "ld.global.u32 %r, [%a];\nst.global.u32 [%a+4], %r;\nret;\n}\n");
	void *memory = sw_space_alloc(1 << 20, 1 << 12);
	CHECK(mprotect(memory, 4096, PROT_NONE) == 0);
	struct run r = prepare(image, "rd", 4, 32);
	r.params[0] = (uint64_t)(uintptr_t)memory;
	run(&r);
	const struct sx_fault *fault = sx_grid_fault(r.grid);
	CHECK(fault != NULL);
	CHECK_INT(fault ? fault->code : 0, CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK(fault && fault->address == (uint64_t)(uintptr_t)memory);
	CHECK_INT(fault ? fault->line : 0, 7);
	sx_grid_free(r.grid);
	sx_image_free(image);
}

TEST(unknown_instructions_fail_when_prepared)
{
	struct sx_image *image = load(
		HEAD ".visible .entry good() {\nret;\n}\n.visible .entry bad() {\n.reg .b32 %r;\nfrobnicate.u32 %r, %r;\nret;\n}\n");
	struct ptx_error error;
	CHECK(image != NULL);
	CHECK_INT(sx_func_prepare(sx_image_find_kernel(image, "good"), &error), 0);
	for (int n = 0; n < 2; n++) {
		CHECK_INT(sx_func_prepare(sx_image_find_kernel(image, "bad"), &error), -1);
		CHECK_INT(error.line, 9);
		CHECK_STR(error.text, "frobnicate.u32 %r, %r: not known to the software GPU");
	}
	sx_image_free(image);
}

TEST(modules_are_linked_by_name)
{
	struct ptx_module *modules[2];
	struct ptx_error error = { 0 };
	modules[0] = parse(HEAD ".extern .func (.param .b32 o) twice(.param .b32 i);\n.extern .global .u32 factor;\n"
	                        ".weak .global .u32 both = 1;\n"
	                        ".visible .entry k(.param .u64 at) {\n.reg .b64 %a; .reg .b32 %r, %f;\nld.param.u64 %a, [at];\n"
	                        "ld.global.u32 %f, [factor];\n{\n.param .b32 i;\n.param .b32 o;\nst.param.b32 [i], %f;\n"
	                        "call (o), twice, (i);\nld.param.b32 %r, [o];\n}\nld.global.u32 %f, [both];\nadd.u32 %r, %r, %f;\n"
	                        "st.global.u32 [%a], %r;\nret;\n}\n");
	modules[1] = parse(HEAD ".visible .global .u32 factor = 21;\n.visible .global .u32 both = 100;\n"
	                        ".visible .func (.param .b32 o) twice(.param .b32 i) {\n.reg .b32 %r;\nld.param.b32 %r, [i];\n"
	                        "shl.b32 %r, %r, 1;\nst.param.b32 [o], %r;\nret;\n}\n");
	struct sx_image *image = sx_image_link(modules, 2, &target, &error);
	CHECK(image != NULL);
	uint32_t *out = sw_space_alloc(4, 4);
	struct run r = prepare(image, "k", 1, 1);
	r.params[0] = (uint64_t)(uintptr_t)out;
	run(&r);
	CHECK_INT(*out, 142);
	CHECK(sx_image_find_var(image, "factor") && sx_image_find_var(image, "both"));
	sx_grid_free(r.grid);
	sx_image_free(image);

	modules[0] = parse(HEAD ".extern .global .u32 nowhere;\n.visible .entry k() {\nret;\n}\n");
	CHECK(sx_image_link(modules, 1, &target, &error) == NULL);
	CHECK_STR(error.text, "undefined symbol nowhere");
}

TEST(what_nothing_defines_faults_only_when_called)
{
	struct sx_image *image = load(
		HEAD ".extern .func nobody();\n.visible .entry k(.param .u32 on) {\n.reg .b32 %r; .reg .pred %p;\nld.param.u32 %r, [on];\n"
		     "setp.ne.u32 %p, %r, 0;\n@%p call nobody;\nret;\n}\n");
	for (uint64_t on = 0; on < 2; on++) {
		struct run r = prepare(image, "k", 1, 32);
		r.params[0] = on;
		run(&r);
		const struct sx_fault *fault = sx_grid_fault(r.grid);
		CHECK((fault != NULL) == (on == 1));
		CHECK(!fault || strstr(fault->text, "nobody"));
		sx_grid_free(r.grid);
	}
	sx_image_free(image);
}

/* Block 0 waits for all the others, which can only run if it gives way. */
TEST(blocks_that_wait_give_way)
{
	struct sx_image *image = load(
		HEAD ".visible .entry w(.param .u64 at) {\n.reg .b64 %a; .reg .b32 %c, %r, %n; .reg .pred %p;\nld.param.u64 %a, [at];\n"
		     "mov.u32 %c, %ctaid.x;\nmov.u32 %n, %nctaid.x;\nsub.u32 %n, %n, 1;\nsetp.eq.u32 %p, %c, 0;\n@%p bra WAIT;\n"
		     "atom.global.add.u32 %r, [%a], 1;\nret;\nWAIT: ld.volatile.global.u32 %r, [%a];\nsetp.lt.u32 %p, %r, %n;\n"
		     "@%p bra WAIT;\nst.global.u32 [%a+4], %r;\nret;\n}\n");
	uint32_t *memory = sw_space_alloc(8, 8);
	for (unsigned threads = 1; threads <= 3; threads++) {
		struct run r = prepare(image, "w", 500, 1);
		r.threads = threads;
		r.params[0] = (uint64_t)(uintptr_t)memory;
		memory[0] = memory[1] = 0;
		run(&r);
		CHECK_INT(memory[1], 499);
		sx_grid_free(r.grid);
	}
	sx_image_free(image);
}

TEST(shared_variables_of_kernels_do_not_add_up)
{
	struct sx_image *image = load(
		HEAD ".shared .b8 both[100];\n.shared .align 16 .b8 first[1000];\n.shared .align 16 .b8 second[2000];\n"
		     ".extern .shared .align 16 .b8 rest[];\n.func f() {\n.reg .b32 %r;\nld.shared.u8 %r, [both];\nret;\n}\n"
		     ".visible .entry a() {\n.reg .b32 %r;\ncall f;\nld.shared.u8 %r, [first];\nret;\n}\n"
		     ".visible .entry b() {\n.reg .b32 %r;\ncall f;\nmov.u32 %r, second;\nret;\n}\n"
		     ".visible .entry c() {\n.reg .b32 %r;\n.shared .b8 own[64];\nmov.u32 %r, own;\nret;\n}\n");
	CHECK_INT(sx_func_info(sx_image_find_kernel(image, "a"))->static_shared, 112 + 1000);
	CHECK_INT(sx_func_info(sx_image_find_kernel(image, "b"))->static_shared, 112 + 2000);
	CHECK_INT(sx_func_info(sx_image_find_kernel(image, "c"))->static_shared, 64);
	sx_image_free(image);
}

/* Blocks: 0 -> 3; 3 -> 1, 4; 1 -> 2; 2 -> 3; the loop 3 1 2 must come together, its exit 4 behind it. */
TEST(loops_are_contiguous)
{
	static const uint32_t first[] = { 0, 1, 2, 3, 5, 5, 5 }, edges[] = { 3, 2, 3, 1, 4 };
	uint32_t order[6];
	CHECK(sx_order_blocks(&(struct sx_graph){ 6, first, edges }, order));
	static const uint32_t want[] = { 0, 3, 1, 2, 4, 5 };
	for (int n = 0; n < 6; n++)
		CHECK_INT(order[n], want[n]);
}

/* r0 lives through a loop in which r1 and r2 follow each other: these share a slot, r0 does not. */
TEST(registers_share_slots_only_when_they_may)
{
	static const uint32_t first[] = { 0, 1, 3, 3 }, edges[] = { 1, 1, 2 }, order[] = { 0, 1, 2 };
	static const uint32_t starts[] = { 0, 1, 6 }, ends[] = { 0, 5, 6 };
	static const struct sx_ref refs[] = {
		{ 0, 0, 0, true, true },
		{ 1, 1, 1, true, true }, { 1, 2, 1, false, false }, { 2, 4, 1, true, true }, { 2, 5, 1, false, false },
		{ 0, 6, 2, false, false },
	};
	static const uint8_t classes[3] = { 2, 2, 2 };
	uint32_t number[3];
	struct sx_graph graph = { 3, first, edges };
	struct sx_slot_job job = { .graph = &graph, .order = order, .block_first = starts, .block_last = ends, .refs = refs,
		.ref_count = 6, .reg_count = 3, .size_class = classes, .number = number };
	CHECK(sx_assign_slots(&job));
	CHECK(number[0] != number[1] && number[0] != number[2]);
	CHECK_INT(number[1], number[2]);
	CHECK_INT(job.used[2], 2);
}

TEST_MAIN()
