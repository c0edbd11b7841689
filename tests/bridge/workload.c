/*
 * A program that does a bit of everything behind a server, and checks each result, until its time is over or the server is lost.
 *
 *	workload SECONDS SEED THREADS
 *
 * Prints one line: "right ROUNDS" (0), "wrong NUMBER WHAT" (1), "error CODE WHAT" for an error that did not stay (2), "lost CODE WHAT" for one that
 * did (3), "refused CODE" when the device did not open (4). The number is the exit status.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/api/lib.h"

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);\n"
	".global .align 1 .b8 text[6] = {116, 105, 99, 107, 10, 0};\n"
	".visible .entry add(.param .u64 p, .param .u32 n, .param .u32 v)\n{\n"
	"	.reg .pred %q; .reg .u32 %r<8>; .reg .u64 %rd<4>;\n"
	"	ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [v];\n"
	"	mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x; mad.lo.u32 %r6, %r3, %r4, %r5;\n"
	"	setp.ge.u32 %q, %r6, %r1; @%q bra DONE;\n"
	"	mul.wide.u32 %rd2, %r6, 4; add.u64 %rd3, %rd1, %rd2;\n"
	"	ld.global.u32 %r7, [%rd3]; add.u32 %r7, %r7, %r2; st.global.u32 [%rd3], %r7;\n"
	"DONE:\n	ret;\n}\n"
	".visible .entry say()\n{\n"
	"	.reg .u64 %rd<2>; .reg .u32 %r<2>;\n"
	"	mov.u64 %rd1, text; cvta.global.u64 %rd1, %rd1;\n"
	"	{ .param .b64 f; .param .b64 a; .param .b32 r; st.param.b64 [f], %rd1; st.param.b64 [a], 0;\n"
	"	call.uni (r), vprintf, (f, a); ld.param.b32 %r1, [r]; }\n	ret;\n}\n";

enum { SMALL = 1000, LARGE = 700000 }; /* words */

static double end_time;
static CUcontext context;
static CUfunction add, say;
static atomic_int stop, rounds;
static atomic_int verdict; /* the worst so far */
static pthread_mutex_t word_lock = PTHREAD_MUTEX_INITIALIZER;
static char words[128];

struct thread {
	pthread_t id;
	uint64_t random;
	CUstream stream;
	CUdeviceptr small, large;
	uint32_t *host; /* LARGE words */
	uint32_t value; /* what each word of `small` is */
	atomic_int called;
};

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint32_t
next(struct thread *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (uint32_t)(t->random >> 16);
}

static void
judge(int status, const char *what, int code)
{
	static const char *const names[] = { "right", "wrong", "error", "lost", "refused" };

	pthread_mutex_lock(&word_lock);
	/* wrong beats error beats lost */
	if (!verdict || status < verdict) {
		verdict = status;
		snprintf(words, sizeof(words), "%s %d %s", names[status], code, what);
	}
	stop = 1;
	pthread_mutex_unlock(&word_lock);
}

/* An error that the program did not make: does it stay? */
static bool
failed(CUresult result, const char *what)
{
	if (result == CUDA_SUCCESS)
		return false;
	CUresult again = CU(cuCtxSynchronize)();
	CUdeviceptr p;
	CUresult third = CU(cuMemAlloc_v2)(&p, 4096);
	judge(again == result && third == result ? 3 : 2, what, (int)result);
	return true;
}

#define TRY(name, ...) \
	do { \
		if (failed(CU(name)(__VA_ARGS__), #name)) \
			return; \
	} while (0)

static CUresult
launch(struct thread *t, CUdeviceptr p, uint32_t n, uint32_t v)
{
	return CU(cuLaunchKernel)(add, (n + 127) / 128, 1, 1, 128, 1, 1, 0, t->stream, (void *[]){ &p, &n, &v }, NULL);
}

static void
check_small(struct thread *t)
{
	TRY(cuMemcpyDtoHAsync_v2, t->host, t->small, SMALL * 4, t->stream);
	TRY(cuStreamSynchronize, t->stream);
	for (int n = 0; n < SMALL; n++)
		if (t->host[n] != t->value) {
			judge(1, "kernel", (int)t->host[n]);
			return;
		}
}

static void
launches(struct thread *t)
{
	uint32_t count = 1 + next(t) % 200;

	for (uint32_t n = 0; n < count && !stop; n++) {
		if (failed(launch(t, t->small, SMALL, n), "cuLaunchKernel"))
			return;
		t->value += n;
	}
	check_small(t);
}

static void
small_copies(struct thread *t)
{
	t->value = next(t);
	for (int n = 0; n < SMALL; n++)
		t->host[n] = t->value;
	for (uint32_t n = 0; n < SMALL; n += 100)
		TRY(cuMemcpyHtoDAsync_v2, t->small + 4 * n, t->host + n, 400, t->stream);
	check_small(t);
}

static void
large_copies(struct thread *t)
{
	uint32_t first = next(t), count = 100000 + next(t) % (LARGE - 100000);

	for (uint32_t n = 0; n < count; n++)
		t->host[n] = first + n;
	TRY(cuMemcpyHtoDAsync_v2, t->large, t->host, 4ul * count, t->stream);
	if (failed(launch(t, t->large, 1000, 7), "cuLaunchKernel"))
		return;
	memset(t->host, 0, 4ul * count);
	TRY(cuMemcpyDtoHAsync_v2, t->host, t->large, 4ul * count, t->stream);
	TRY(cuStreamSynchronize, t->stream);
	for (uint32_t n = 0; n < count; n++)
		if (t->host[n] != first + n + (n < 1000 ? 7 : 0)) {
			judge(1, "large copy", (int)n);
			return;
		}
}

static void
graph(struct thread *t)
{
	CUgraph made = NULL;
	CUgraphExec exec = NULL;

	TRY(cuStreamBeginCapture_v2, t->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
	for (int n = 0; n < 5; n++)
		if (failed(launch(t, t->small, SMALL, 3), "cuLaunchKernel"))
			return;
	TRY(cuStreamEndCapture, t->stream, &made);
	TRY(cuGraphInstantiateWithFlags, &exec, made, 0);
	for (int n = 0; n < 4; n++)
		TRY(cuGraphLaunch, exec, t->stream);
	t->value += 4 * 5 * 3;
	check_small(t);
	TRY(cuGraphExecDestroy, exec);
	TRY(cuGraphDestroy, made);
}

static void
on_callback(void *user)
{
	((struct thread *)user)->called++;
}

static void
callbacks(struct thread *t)
{
	int before = t->called;

	for (int n = 0; n < 3; n++)
		TRY(cuLaunchHostFunc, t->stream, on_callback, t);
	TRY(cuStreamSynchronize, t->stream);
	if (t->called != before + 3)
		judge(1, "callback", t->called - before);
}

static void
prints(struct thread *t)
{
	TRY(cuLaunchKernel, say, 1, 1, 1, 1, 1, 1, 0, t->stream, NULL, NULL);
	TRY(cuStreamSynchronize, t->stream);
}

static void
pinned(struct thread *t)
{
	uint32_t *memory = NULL;
	CUdeviceptr device = 0;

	TRY(cuMemHostAlloc, (void **)&memory, SMALL * 4, 0);
	for (int n = 0; n < SMALL; n++)
		memory[n] = (uint32_t)n;
	CUresult result = CU(cuMemHostGetDevicePointer_v2)(&device, memory, 0);
	if (result == CUDA_SUCCESS) {
		if (failed(launch(t, device, SMALL, 5), "cuLaunchKernel"))
			return;
		TRY(cuStreamSynchronize, t->stream);
		for (int n = 0; n < SMALL; n++)
			if (memory[n] != (uint32_t)n + 5) { /* memory that moved stays as it was last here when the server is lost */
				if (!failed(CU(cuStreamSynchronize)(t->stream), "cuStreamSynchronize"))
					judge(1, "pinned", n);
				return;
			}
	} else if (result != CUDA_ERROR_NOT_SUPPORTED && failed(result, "cuMemHostGetDevicePointer")) {
		return;
	}
	TRY(cuMemcpyHtoDAsync_v2, t->large, memory, SMALL * 4, t->stream);
	TRY(cuStreamSynchronize, t->stream);
	TRY(cuMemFreeHost, memory);
}

static void
allocations(struct thread *t)
{
	CUdeviceptr p[8] = { 0 };
	uint32_t size = 4 + next(t) % 300000;

	for (int n = 0; n < 8; n++)
		TRY(cuMemAlloc_v2, &p[n], size);
	TRY(cuMemsetD8Async, p[3], 9, size, t->stream);
	TRY(cuMemcpyDtoHAsync_v2, t->host, p[3], size, t->stream);
	TRY(cuStreamSynchronize, t->stream);
	for (uint32_t n = 0; n < size; n++)
		if (((uint8_t *)t->host)[n] != 9) {
			judge(1, "memset", (int)n);
			return;
		}
	for (int n = 0; n < 8; n++)
		TRY(cuMemFree_v2, p[n]);
}

static void *
work(void *argument)
{
	static void (*const parts[])(struct thread *) = { launches, small_copies, large_copies, graph, callbacks, prints, pinned, allocations };
	struct thread *t = argument;

	if (failed(CU(cuCtxSetCurrent)(context), "cuCtxSetCurrent"))
		return NULL;
	if (failed(CU(cuStreamCreate)(&t->stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate") ||
	    failed(CU(cuMemAlloc_v2)(&t->small, SMALL * 4), "cuMemAlloc") || failed(CU(cuMemAlloc_v2)(&t->large, LARGE * 4), "cuMemAlloc") ||
	    failed(CU(cuMemsetD32Async)(t->small, 0, SMALL, t->stream), "cuMemsetD32Async"))
		return NULL;
	while (!stop && now() < end_time) {
		parts[next(t) % (sizeof(parts) / sizeof(parts[0]))](t);
		rounds++;
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	static struct thread threads[64];
	int count = argc > 3 ? atoi(argv[3]) : 2;
	CUmodule module;

	end_time = now() + (argc > 1 ? atof(argv[1]) : 1);
	CUresult result = CU(cuInit)(0);
	if (result == CUDA_SUCCESS)
		result = CU(cuDevicePrimaryCtxRetain)(&context, 0);
	if (result != CUDA_SUCCESS) {
		printf("refused %d\n", (int)result);
		return 4;
	}
	if (!failed(CU(cuCtxSetCurrent)(context), "cuCtxSetCurrent") && !failed(CU(cuModuleLoadData)(&module, ptx), "cuModuleLoadData") &&
	    !failed(CU(cuModuleGetFunction)(&add, module, "add"), "cuModuleGetFunction") &&
	    !failed(CU(cuModuleGetFunction)(&say, module, "say"), "cuModuleGetFunction")) {
		printf("begun\n");
		fflush(stdout);
		for (int n = 0; n < count && n < 64; n++) {
			threads[n].random = strtoull(argc > 2 ? argv[2] : "1", NULL, 10) * 0x9e3779b97f4a7c15u + (uint64_t)n + 1;
			threads[n].host = malloc(LARGE * 4);
			if (!threads[n].host || pthread_create(&threads[n].id, NULL, work, &threads[n]) != 0)
				count = n;
		}
		for (int n = 0; n < count && n < 64; n++)
			pthread_join(threads[n].id, NULL);
	}
	if (!verdict)
		snprintf(words, sizeof(words), "right %d", rounds);
	printf("%s\n", words);
	fflush(stdout);
	return verdict;
}
