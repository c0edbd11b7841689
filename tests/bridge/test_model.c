/*
 * A random program for the driver API beside a model of what it must do (model.h).
 *
 *	test_model --seed FIRST[-LAST] [--steps N] [--skip A-B,C...] [--features capture-copies,mapped]
 *
 * Each seed runs in a process of its own and prints its trace. Runs of the same seed on any device that farwarp gives print the same bytes;
 * what the model does not allow is a line that begins with "!". The exit status is 1 if there was one, or a seed crashed or hung. Steps
 * can be skipped without changing the others: model.py looks for the few that are needed to show a difference.
 *
 * Most seeds are one world that three threads take turns in; every fifth is two worlds, each with a thread of its own, side by side.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../slow.h"
#include "model.h"

#define SECONDS 120 /* for a seed */

const char model_ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .global .align 4 .u32 g[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };\n"
	/* d[i] = d[i] * a + s[i] * b + i for i < n, after `spin` turns of a loop */
	".visible .entry mix(.param .u64 d, .param .u64 s, .param .u32 n, .param .u32 a, .param .u32 b, .param .u32 spin)\n{\n"
	"	.reg .pred %p<3>; .reg .u32 %r<16>; .reg .u64 %rd<8>;\n"
	"	ld.param.u64 %rd1, [d]; ld.param.u64 %rd2, [s]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [a]; ld.param.u32 %r3, [b];\n"
	"	ld.param.u32 %r4, [spin]; mov.u32 %r5, 0;\n"
	"SPIN:\n	setp.ge.u32 %p1, %r5, %r4; @%p1 bra GO; add.u32 %r5, %r5, 1; bra SPIN;\n"
	"GO:\n	mov.u32 %r6, %ctaid.x; mov.u32 %r7, %ntid.x; mov.u32 %r8, %tid.x; mad.lo.u32 %r9, %r6, %r7, %r8;\n"
	"	mov.u32 %r10, %nctaid.x; mul.lo.u32 %r10, %r10, %r7;\n"
	"LOOP:\n	setp.ge.u32 %p2, %r9, %r1; @%p2 bra DONE;\n"
	"	mul.wide.u32 %rd3, %r9, 4; add.u64 %rd4, %rd1, %rd3; add.u64 %rd5, %rd2, %rd3;\n"
	"	ld.global.u32 %r11, [%rd4]; ld.global.u32 %r12, [%rd5];\n"
	"	mul.lo.u32 %r11, %r11, %r2; mad.lo.u32 %r11, %r12, %r3, %r11; add.u32 %r11, %r11, %r9; st.global.u32 [%rd4], %r11;\n"
	"	add.u32 %r9, %r9, %r10; bra LOOP;\nDONE:\n	ret;\n}\n"
	/* g[i] = g[i] * 3 + v + i, by the first block */
	".visible .entry bump(.param .u32 v)\n{\n"
	"	.reg .pred %p<3>; .reg .u32 %r<6>; .reg .u64 %rd<4>;\n"
	"	ld.param.u32 %r1, [v]; mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x; setp.ne.u32 %p1, %r3, 0; @%p1 bra DONE;\n"
	"	setp.ge.u32 %p2, %r2, 16; @%p2 bra DONE;\n"
	"	mov.u64 %rd1, g; mul.wide.u32 %rd2, %r2, 4; add.u64 %rd1, %rd1, %rd2;\n"
	"	ld.global.u32 %r4, [%rd1]; mul.lo.u32 %r4, %r4, 3; add.u32 %r4, %r4, %r1; add.u32 %r4, %r4, %r2; st.global.u32 [%rd1], %r4;\n"
	"DONE:\n	ret;\n}\n"
	".visible .entry poke(.param .u64 p)\n{\n"
	"	.reg .u32 %r1; .reg .u64 %rd1;\n	ld.param.u64 %rd1, [p]; mov.u32 %r1, 1; st.global.u32 [%rd1], %r1; ret;\n}\n"
	".visible .entry trap_now()\n{\n	trap; ret;\n}\n"
	".visible .entry bounded()\n.maxntid 64, 1, 1\n{\n	.shared .align 4 .b8 s[1024];\n	ret;\n}\n";

static uint8_t skipped[100000]; /* by step */
static unsigned steps = 150, features;

/* ---- what the steps share -------------------------------------------------------------------------------------------- */

static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

unsigned
draw(struct world *w, unsigned n)
{
	w->random += 0x9e3779b97f4a7c15u;
	return n ? (unsigned)((mix(w->random) >> 32) * n >> 32) : 0;
}

bool
chance(struct world *w, unsigned percent)
{
	return draw(w, 100) < percent;
}

static void
line(struct world *w, char mark, const char *format, va_list arguments)
{
	fprintf(w->out, "%c%s.%u ", mark, w->name, w->step);
	vfprintf(w->out, format, arguments);
	fputc('\n', w->out);
}

void
say(struct world *w, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	line(w, ' ', format, arguments);
	va_end(arguments);
}

void
wrong(struct world *w, const char *format, ...)
{
	va_list arguments;

	w->failures++;
	va_start(arguments, format);
	line(w, '!', format, arguments);
	va_end(arguments);
}

/* `call` is the expression CU(name)(arguments): its name is said. */
void
say_call(struct world *w, const char *call, CUresult result, const char *format, ...)
{
	const char *name = strstr(call, "cu");
	va_list arguments;

	while (name && name[2] >= 'a') /* not a word that begins so */
		name = strstr(name + 2, "cu");
	fprintf(w->out, " %s.%u.%u %.*s", w->name, w->step, w->thread, (int)strcspn(name ? name : call, ")\""), name ? name : call);
	va_start(arguments, format);
	vfprintf(w->out, format, arguments);
	va_end(arguments);
	fprintf(w->out, (int)result == -1 ? " = ?\n" : " = %d\n", (int)result);
}

uint32_t
checksum(const void *bytes, size_t size)
{
	const uint8_t *at = bytes;
	uint32_t h = 2166136261u;

	for (size_t n = 0; n < size; n++)
		h = (h ^ at[n]) * 16777619u;
	return h;
}

/* ---- a world --------------------------------------------------------------------------------------------------------- */

void
begin_world(struct world *w)
{
	static uint64_t cells[2][BUFFERS];
	unsigned which = strchr(w->name, 'b') != NULL;

	w->aim = -1;
	w->lines = 0;
	memset(&w->now, 0, sizeof(w->now));
	memset(&w->host, 0, sizeof(w->host));
	w->streams[0] = (struct stream){ .alive = true, .line = order_new_line(w) };
	for (unsigned t = 0; t < THREADS; t++)
		w->streams[1 + t] = (struct stream){ .alive = t < w->threads, .line = order_new_line(w) };
	for (unsigned b = FIRST_CELL; b < FIRST_GLOBAL; b++) {
		if (w->buffers[b].kind == FREE)
			occupy(w, b, CELL, (uint64_t)(uintptr_t)&cells[which][b], 8);
		order_forget(w, b);
	}
	for (unsigned m = 0; m < MODULES; m++)
		if (!w->modules[m].alive)
			load_module(w, m);
	for (unsigned n = 0; n < 30; n++) {
		memory_step(w);
		event_step(w);
		stream_step(w);
	}
}

/* The primary context begins anew: nothing of before is left. */
static void
reset(struct world *w)
{
	MUST(w, CU(cuDevicePrimaryCtxReset_v2)(0));
	w->poisoned = w->may_poison = false;
	if (MUST(w, CU(cuDevicePrimaryCtxRetain)(&w->context, 0)) != CUDA_SUCCESS || MUST(w, CU(cuCtxSetCurrent)(w->context)) != CUDA_SUCCESS)
		return;
	w->resets++;
	drop_memory(w);
	for (unsigned s = 0; s < STREAMS; s++)
		w->streams[s].alive = false;
	for (unsigned e = 0; e < EVENTS; e++)
		w->events[e].alive = false;
	for (unsigned m = 0; m < MODULES; m++) {
		w->modules[m].alive = false;
		w->modules[m].generation++;
	}
	memset(w->graphs, 0, sizeof(w->graphs));
	begin_world(w);
	/* Host functions that were on their way when the context failed ran or did not. */
	for (unsigned b = FIRST_CELL; b < FIRST_GLOBAL; b++) {
		memset(w->buffers[b].model, 0, 8);
		memset((void *)(uintptr_t)w->buffers[b].address, 0, 8);
	}
}

static const struct {
	unsigned weight;
	void (*run)(struct world *w);
} kinds[] = { { 10, memory_step }, { 14, copy_step }, { 8, fill_step }, { 12, check_step }, { 4, info_step }, { 9, stream_step },
	{ 14, event_step }, { 4, poll_step }, { 20, launch_step }, { 6, callback_step }, { 2, gate_step }, { 3, module_step }, { 12, capture_step },
	{ 9, graph_step }, { 9, wrong_step }, { 2, context_step }, { 3, poison_step } };

static void
run_step(struct world *w)
{
	unsigned total = 0;

	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		total += kinds[n].weight;
	w->aim = -1;
	if (w->poisoned && chance(w, 3)) {
		reset(w);
		return;
	}
	if (w->capture.active && chance(w, 70)) {
		capture_step(w);
		return;
	}
	unsigned at = draw(w, total);
	for (size_t n = 0;; n++) {
		if (at < kinds[n].weight) {
			kinds[n].run(w);
			return;
		}
		at -= kinds[n].weight;
	}
}

static void
seek(struct world *w, unsigned step)
{
	w->step = step;
	w->random = mix(w->seed * 0x100000001b3u + step);
}

/* All work done, all memory as it must be. */
static void
finish(struct world *w)
{
	if (w->capture.active)
		end_capture(w);
	if (w->poisoned || w->capture.active)
		return;
	if (synchronize(w) == CUDA_SUCCESS)
		check_all(w);
}

/* ---- threads --------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn = -1; /* the thread that may run a step; -1: none; THREADS: all end */

struct thread {
	struct world *world;
	unsigned index, resets;
};

static void *
take_turns(void *argument)
{
	struct thread *thread = argument;
	struct world *w = thread->world;
	bool begun = false;

	for (;;) {
		pthread_mutex_lock(&turn_lock);
		while (turn != (int)thread->index && turn != THREADS)
			pthread_cond_wait(&turn_changed, &turn_lock);
		int mine = turn;
		pthread_mutex_unlock(&turn_lock);
		if (mine == THREADS)
			return NULL;
		w->thread = thread->index;
		if (!begun || thread->resets != w->resets)
			MUST(w, CU(cuCtxSetCurrent)(w->context), "thread %u", thread->index);
		begun = true;
		thread->resets = w->resets;
		if (w->step == 0)
			begin_world(w);
		else if (w->step > steps)
			finish(w);
		else
			run_step(w);
		thread->resets = w->resets;
		fflush(w->out);
		pthread_mutex_lock(&turn_lock);
		turn = -1;
		pthread_cond_broadcast(&turn_changed);
		pthread_mutex_unlock(&turn_lock);
	}
}

static void
give_turn(int to)
{
	pthread_mutex_lock(&turn_lock);
	turn = to;
	pthread_cond_broadcast(&turn_changed);
	while (to != THREADS && turn != -1)
		pthread_cond_wait(&turn_changed, &turn_lock);
	pthread_mutex_unlock(&turn_lock);
}

static void
run_turns(struct world *w)
{
	struct thread threads[THREADS];
	pthread_t ids[THREADS];

	for (unsigned t = 0; t < THREADS; t++) {
		threads[t] = (struct thread){ .world = w, .index = t };
		pthread_create(&ids[t], NULL, take_turns, &threads[t]);
	}
	seek(w, 0);
	give_turn(0);
	for (unsigned step = 1; step <= steps; step++) {
		seek(w, step);
		unsigned t = chance(w, 60) ? 0 : draw(w, THREADS);
		if (!skipped[step])
			give_turn((int)t);
	}
	seek(w, steps + 1);
	give_turn(w->capture.active ? (int)w->capture.thread : 0);
	give_turn(THREADS);
	for (unsigned t = 0; t < THREADS; t++)
		pthread_join(ids[t], NULL);
}

static void *
run_beside(void *argument)
{
	struct world *w = argument;

	seek(w, 0);
	MUST(w, CU(cuCtxSetCurrent)(w->context));
	begin_world(w);
	for (unsigned step = 1; step <= steps; step++) {
		seek(w, step);
		if (!skipped[step])
			run_step(w);
	}
	seek(w, steps + 1);
	finish(w);
	return NULL;
}

static struct world *
new_world(uint64_t seed, const char *which, unsigned threads, bool concurrent)
{
	struct world *w = calloc(1, sizeof(*w));

	w->seed = seed + ((uint64_t)*which << 32);
	snprintf(w->name, sizeof(w->name), "%llu%s", (unsigned long long)seed, which);
	w->threads = threads;
	w->steps = steps;
	w->features = features;
	w->concurrent = concurrent;
	w->out = stdout;
	w->may_poison = mix(seed) % 4 == 0 && !concurrent;
	for (unsigned b = 0; b < BUFFERS; b++)
		w->forbidden[b] = -1;
	return w;
}

static unsigned
run_seed(uint64_t seed)
{
	bool concurrent = seed % 5 == 4;
	struct world *w = new_world(seed, concurrent ? "a" : "", concurrent ? 1 : THREADS, concurrent), *other = NULL;
	unsigned failures = 0;

	MUST(w, CU(cuInit)(0));
	if (MUST(w, CU(cuDeviceGet)(&w->device, 0)) != CUDA_SUCCESS || MUST(w, CU(cuDevicePrimaryCtxRetain)(&w->context, 0)) != CUDA_SUCCESS)
		return 1;
	if (!concurrent) {
		run_turns(w);
		return w->failures;
	}
	struct {
		struct world *world;
		char *text;
		size_t size;
		pthread_t thread;
	} beside[2] = { { .world = w }, { .world = other = new_world(seed, "b", 1, true) } };
	other->context = w->context;
	for (unsigned n = 0; n < 2; n++) {
		beside[n].world->out = open_memstream(&beside[n].text, &beside[n].size);
		pthread_create(&beside[n].thread, NULL, run_beside, beside[n].world);
	}
	for (unsigned n = 0; n < 2; n++) {
		pthread_join(beside[n].thread, NULL);
		fclose(beside[n].world->out);
		fwrite(beside[n].text, 1, beside[n].size, stdout);
		failures += beside[n].world->failures;
	}
	return failures;
}

/* ---- the command ----------------------------------------------------------------------------------------------------- */

static void
read_skips(const char *text)
{
	while (*text) {
		char *end;
		unsigned long from = strtoul(text, &end, 10), to = from;
		if (*end == '-')
			to = strtoul(end + 1, &end, 10);
		for (unsigned long n = from; n <= to && n < sizeof(skipped); n++)
			skipped[n] = 1;
		text = *end == ',' ? end + 1 : "";
	}
}

int
main(int argc, char **argv)
{
	unsigned long first = 1, last = 1;
	int status, bad = 0;
	char *end;

	for (int n = 1; n + 1 < argc; n += 2) {
		if (strcmp(argv[n], "--seed") == 0) {
			first = last = strtoul(argv[n + 1], &end, 10);
			if (*end == '-')
				last = strtoul(end + 1, NULL, 10);
		} else if (strcmp(argv[n], "--steps") == 0) {
			steps = (unsigned)strtoul(argv[n + 1], NULL, 10);
		} else if (strcmp(argv[n], "--skip") == 0) {
			read_skips(argv[n + 1]);
		} else if (strcmp(argv[n], "--features") == 0) {
			features |= strstr(argv[n + 1], "capture-copies") ? CAPTURE_COPIES : 0;
			features |= strstr(argv[n + 1], "mapped") ? MAPPED : 0;
		} else {
			fprintf(stderr, "test_model: what is %s?\n", argv[n]);
			return 64;
		}
	}
	if (steps + 2 > sizeof(skipped))
		return 64;
	for (unsigned long seed = first; seed <= last; seed++) {
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			alarm(SECONDS * TIMES_SLOWER);
			unsigned failures = run_seed(seed);
			fflush(stdout);
			exit(failures != 0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 71;
		if (WIFSIGNALED(status))
			printf("!%lu %s\n", seed, WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
		bad |= status != 0;
	}
	return bad;
}
