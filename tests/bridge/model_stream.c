/*
 * Streams, events, kernels, host functions, modules, captures and graphs of the random program.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

/* ---- streams ------------------------------------------------------------------------------------------------------- */

static bool
is_made(const struct world *w, unsigned s)
{
	return s >= MADE_STREAMS && w->streams[s].alive;
}

/* The legacy stream depends on blocking streams, which must not capture then. */
static bool
legacy_is_safe(const struct world *w)
{
	for (unsigned s = 1; s < STREAMS; s++)
		if (w->streams[s].captured && !(w->streams[s].flags & CU_STREAM_NON_BLOCKING))
			return false;
	return true;
}

unsigned
pick_stream(struct world *w)
{
	if (w->aim >= 0)
		return (unsigned)w->aim;
	bool careless = w->capture.active && chance(w, 2);
	for (unsigned tries = 0; tries < 20; tries++) {
		unsigned s = draw(w, 100) < 15 ? 0 : draw(w, 100) < 12 ? 1 + w->thread : MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS);
		if (w->streams[s].alive && (careless || (!w->streams[s].captured && (s != 0 || legacy_is_safe(w)))))
			return s;
	}
	return 1 + w->thread;
}

static void
make_stream(struct world *w, unsigned s)
{
	struct stream *stream = &w->streams[s];
	unsigned flags = chance(w, 60) ? CU_STREAM_NON_BLOCKING : 0;
	int priority = (int)draw(w, 9) - 6;
	CUstream handle = NULL;
	CUresult result;

	if (w->lines == LINES)
		return;
	if (chance(w, 50))
		result = MUST(w, CU(cuStreamCreate)(&handle, flags), "s%u flags %u", s, flags);
	else
		result = MUST(w, CU(cuStreamCreateWithPriority)(&handle, flags, priority), "s%u flags %u priority %d", s, flags, priority);
	if (result == CUDA_SUCCESS)
		*stream = (struct stream){ .handle = handle, .line = order_new_line(w), .flags = flags, .alive = true };
}

static void
destroy_stream(struct world *w, unsigned s)
{
	struct stream *stream = &w->streams[s];

	if (stream->captured)
		return;
	if (MUST(w, CU(cuStreamDestroy_v2)(stream->handle), "s%u", s) == CUDA_SUCCESS) {
		w->stale_stream = stream->handle;
		stream->alive = false;
	}
}

void
stream_step(struct world *w)
{
	unsigned s = chance(w, 50) ? MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS) : pick_stream(w);
	struct stream *stream = &w->streams[s];
	CUstreamCaptureStatus status = (CUstreamCaptureStatus)9;
	unsigned flags = 99;
	int priority = 99;
	CUcontext context = NULL;

	if (!stream->alive) {
		if (!w->capture.active || chance(w, 20))
			make_stream(w, s);
		return;
	}
	struct clock clock = order_clock(w, s);
	CUstream handle = pick_handle(w, s);
	switch (draw(w, 7)) {
	case 0:
		if (is_made(w, s) && chance(w, 40))
			destroy_stream(w, s);
		break;
	case 1:
	case 2:
		if (stream->captured && chance(w, 80))
			break;
		if (MUST(w, CU(cuStreamSynchronize)(handle), "s%u", s) == CUDA_SUCCESS)
			order_join(&w->host, &w->now.line[stream->line]);
		break;
	case 3:
		if (stream->captured && chance(w, 80))
			break;
		/* Whether the legacy stream and blocking ones answer for each other is not said. */
		QUERY(w, stream->flags & CU_STREAM_NON_BLOCKING && !stream->captured && order_clock_is_done(w, &clock), CU(cuStreamQuery)(handle), "s%u", s);
		break;
	case 4:
		RUN(w, CU(cuStreamGetFlags)(handle, &flags), "s%u flags %u", s, flags);
		break;
	case 5:
		RUN(w, CU(cuStreamGetPriority)(handle, &priority), "s%u priority %d", s, priority);
		break;
	default:
		RUN(w, CU(cuStreamIsCapturing)(handle, &status), "s%u status %d", s, result_ == CUDA_SUCCESS ? (int)status : -1);
		RUN(w, CU(cuStreamGetCtx)(handle, &context), "s%u ours %d", s, context == w->context);
	}
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

static void
ask_elapsed(struct world *w, unsigned a, unsigned b)
{
	struct event *from = &w->events[a], *to = &w->events[b];
	float ms = -1e9f;

	if (!from->alive || !to->alive || !from->recorded || !to->recorded || from->in_capture || to->in_capture)
		return;
	bool known = order_clock_is_done(w, &from->clock) && order_clock_is_done(w, &to->clock);
	bool ordered = true;
	for (unsigned n = 0; n < LINES; n++)
		ordered &= from->clock.at[n] <= to->clock.at[n];
	CUresult result = QUERY(w, known, CU(cuEventElapsedTime)(&ms, from->handle, to->handle), "e%u e%u", a, b);
	if (result == CUDA_SUCCESS && ordered && ms < 0)
		wrong(w, "e%u came before e%u, but %g ms after it", a, b, -ms);
}

void
event_step(struct world *w)
{
	static const unsigned flags[] = { 0, CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC };
	unsigned e = draw(w, EVENTS), s = pick_stream(w);
	struct event *event = &w->events[e];

	if (!event->alive) {
		CUevent handle = NULL;
		unsigned flag = flags[draw(w, 4)];
		if (MUST(w, CU(cuEventCreate)(&handle, flag), "e%u flags %u", e, flag) == CUDA_SUCCESS)
			*event = (struct event){ .handle = handle, .flags = flag, .alive = true };
		return;
	}
	unsigned what = draw(w, 20);
	if (what == 0) {
		if (MUST(w, CU(cuEventDestroy_v2)(event->handle), "e%u", e) == CUDA_SUCCESS) {
			w->stale_event = event->handle;
			event->alive = false;
		}
	} else if (what < 8) {
		CUresult result = chance(w, 80) ? MUST(w, CU(cuEventRecord)(event->handle, pick_handle(w, s)), "e%u s%u", e, s)
		                                : MUST(w, CU(cuEventRecordWithFlags)(event->handle, pick_handle(w, s), 0), "e%u s%u", e, s);
		if (result == CUDA_SUCCESS)
			order_record(w, s, event);
	} else if (what < 14) {
		/* An event of the capture draws the stream in; one from outside ends the capture. Both only on purpose. */
		bool crosses = event->in_capture != w->streams[s].captured;
		if (crosses && !(event->in_capture && w->capture.active && is_made(w, s) && chance(w, 30)) && !(w->capture.active && chance(w, 5)))
			return;
		if (RUN(w, CU(cuStreamWaitEvent)(pick_handle(w, s), event->handle, 0), "s%u e%u", s, e) == CUDA_SUCCESS)
			order_wait(w, s, event);
		else if (!w->capture.active && !event->in_capture && !w->poisoned)
			wrong(w, "waiting for an event must succeed");
	} else if (what < 16) {
		bool known = !event->recorded || (!event->in_capture && order_clock_is_done(w, &event->clock));
		QUERY(w, known, CU(cuEventQuery)(event->handle), "e%u", e);
	} else if (what < 18) {
		CUresult result = RUN(w, CU(cuEventSynchronize)(event->handle), "e%u", e);
		if (result == CUDA_SUCCESS && event->recorded && !event->in_capture)
			order_join(&w->host, &event->clock);
	} else {
		ask_elapsed(w, e, draw(w, EVENTS));
	}
}

/* Asks until it is not CUDA_ERROR_NOT_READY: how often, time decides. */
static CUresult
poll(struct world *w, const char *what, CUevent event)
{
	CUresult result;

	do
		result = CU(cuEventQuery)(event);
	while (result == CUDA_ERROR_NOT_READY);
	say_call(w, "polled", result, " %s", what);
	return result;
}

/* Many events, which live as long as it takes to ask about them again and again; and a stream that nothing else uses. */
void
poll_step(struct world *w)
{
	struct event made[12] = { 0 };
	unsigned count = 1 + draw(w, 12), s = pick_stream(w), flag = chance(w, 50) ? CU_EVENT_DISABLE_TIMING : 0, alive = 0;
	CUstream extra = NULL;
	CUevent other = NULL;

	if (w->streams[s].captured || (w->capture.active && !chance(w, 10)))
		return;
	for (unsigned e = 0; e < count; e++)
		if (MUST(w, CU(cuEventCreate)(&made[e].handle, flag), "poll%u", e) == CUDA_SUCCESS)
			alive = e + 1;
	MUST(w, CU(cuStreamCreate)(&extra, CU_STREAM_NON_BLOCKING), "extra");
	MUST(w, CU(cuEventCreate)(&other, flag), "extra");
	for (unsigned rounds = 1 + draw(w, 6); rounds && alive == count && other && extra; rounds--) {
		w->aim = (int)s;
		launch_step(w);
		w->aim = -1;
		for (unsigned e = 0; e < count; e++)
			if (MUST(w, CU(cuEventRecord)(made[e].handle, pick_handle(w, s)), "poll%u s%u", e, s) == CUDA_SUCCESS)
				order_record(w, s, &made[e]);
		MUST(w, CU(cuStreamWaitEvent)(extra, made[0].handle, 0), "extra poll0");
		MUST(w, CU(cuEventRecord)(other, extra), "extra");
		unsigned last = draw(w, count);
		if (chance(w, 50) && poll(w, "extra", other) == CUDA_SUCCESS) /* it waited for the first */
			QUERY(w, made[0].recorded && !made[0].in_capture, CU(cuEventQuery)(made[0].handle), "poll0");
		if (chance(w, 20))
			RUN(w, CU(cuEventSynchronize)(made[last].handle), "poll%u", last);
		if (poll(w, "last", made[last].handle) == CUDA_SUCCESS && made[last].recorded && !made[last].in_capture) {
			order_join(&w->host, &made[last].clock);
			for (unsigned e = 0; e < count; e++)
				QUERY(w, made[e].recorded && e <= last, CU(cuEventQuery)(made[e].handle), "poll%u", e);
			RUN(w, CU(cuEventSynchronize)(made[last].handle), "poll%u", last);
		}
	}
	if (other)
		MUST(w, CU(cuEventDestroy_v2)(other), "extra");
	if (extra && MUST(w, CU(cuStreamDestroy_v2)(extra), "extra") == CUDA_SUCCESS && chance(w, 10))
		RUN(w, CU(cuStreamSynchronize)(extra), "extra, which has ended");
	for (unsigned e = 0; e < alive; e++)
		if (MUST(w, CU(cuEventDestroy_v2)(made[e].handle), "poll%u", e) == CUDA_SUCCESS && chance(w, 10))
			RUN(w, CU(cuEventQuery)(made[e].handle), "poll%u, which has ended", e);
}

/* ---- kernels ------------------------------------------------------------------------------------------------------- */

/* Launches by one of the calls that launch. */
static CUresult
launch(struct world *w, unsigned s, CUfunction f, const char *what, unsigned blocks, unsigned threads, void **params, void *packed, size_t size)
{
	void *extra[] = { (void *)1, packed, (void *)2, &size, NULL };
	CUlaunchAttribute priority = { .id = CU_LAUNCH_ATTRIBUTE_PRIORITY, .value = { .priority = -2 } };
	CUlaunchConfig config = { blocks, 1, 1, threads, 1, 1, 0, pick_handle(w, s), &priority, chance(w, 50) };
	CUstream stream = config.hStream;
#define SHAPE "%s<%u,%u> s%u", what, blocks, threads, s

	if (s >= 1 && s <= THREADS && chance(w, 50))
		return RUN(w, ((__typeof__(&cuLaunchKernel))lib_symbol("cuLaunchKernel_ptsz"))(f, blocks, 1, 1, threads, 1, 1, 0, NULL, params, NULL),
		           SHAPE);
	switch (draw(w, 6)) {
	case 0:
		return RUN(w, CU(cuLaunchKernel)(f, blocks, 1, 1, threads, 1, 1, 0, stream, NULL, extra), SHAPE);
	case 1:
		return RUN(w, CU(cuLaunchKernelEx)(&config, f, params, NULL), SHAPE);
	case 2:
		if (blocks <= 2)
			return RUN(w, CU(cuLaunchCooperativeKernel)(f, blocks, 1, 1, threads, 1, 1, 0, stream, params), SHAPE);
		/* fallthrough */
	default:
		return RUN(w, CU(cuLaunchKernel)(f, blocks, 1, 1, threads, 1, 1, 0, stream, params, NULL), SHAPE);
	}
#undef SHAPE
}

CUresult
launch_work(struct world *w, unsigned s, const struct work *work)
{
	static const unsigned shapes[][2] = { { 1, 32 }, { 2, 64 }, { 3, 100 }, { 1, 256 }, { 5, 128 }, { 1, 1 } };
	const unsigned *shape = shapes[draw(w, 6)];
	const struct module *module = &w->modules[work->module];
	char what[100];

	if (work->kind == BUMP) {
		uint32_t value = work->value;
		snprintf(what, sizeof(what), "bump b%u by %u", work->dst, value);
		return launch(w, s, module->bump, what, shape[0], 16 + draw(w, 2) * 16, (void *[]){ &value }, &value, 4);
	}
	struct {
		uint64_t dst, src;
		uint32_t count, a, b, spin;
	} p = { w->buffers[work->dst].address, w->buffers[work->src].address, work->count, work->a, work->b, 0 };
	if (chance(w, 25)) {
		p.spin = draw(w, 3000);
		shape = shapes[0];
	}
	void *params[] = { &p.dst, &p.src, &p.count, &p.a, &p.b, &p.spin };
	snprintf(what, sizeof(what), "mix b%u * %u + b%u * %u, %u words, spin %u", work->dst, p.a, work->src, p.b, p.count, p.spin);
	CUresult result = launch(w, s, module->mix, what, shape[0], shape[1], params, &p, sizeof(p));
	memset(&p, 0xff, sizeof(p)); /* parameters were taken when the call returned */
	return result;
}

void
launch_step(struct world *w)
{
	unsigned m = draw(w, MODULES), s = pick_stream(w), kinds = 1 << DEVICE | 1 << POOL;
	struct work work = { .module = m };

	if (!w->modules[m].alive)
		return;
	if (chance(w, 30)) {
		work.kind = BUMP;
		work.dst = FIRST_GLOBAL + m;
		work.value = draw(w, 1000);
	} else {
		if (w->features & MAPPED)
			kinds |= 1 << PINNED;
		work.kind = MIX;
		work.dst = find_buffer(w, 0, FIRST_PAGEABLE, kinds);
		work.src = find_buffer(w, 0, FIRST_PAGEABLE, kinds);
		if (work.dst == BUFFERS || w->buffers[work.dst].registered || w->buffers[work.src].registered)
			return;
		size_t d = w->buffers[work.dst].size / 4, n = w->buffers[work.src].size / 4;
		work.count = (uint32_t)(d < n ? d : n);
		work.count = work.count > 8192 ? 8192 : work.count;
		work.a = draw(w, 100) * 2 + 1;
		work.b = draw(w, 100);
	}
	for (unsigned times = chance(w, 30) ? 1 + draw(w, 6) : 1; times; times--) {
		struct work again = work;
		if (!issue(w, s, &again, false))
			break;
	}
}

/* ---- host functions ------------------------------------------------------------------------------------------------ */

struct note {
	uint64_t *cell;
	uint32_t value;
	int *forbidden; /* where the result of a call that is not allowed there goes; NULL: none is made */
	CUstream stream;
};

static void
note_now(void *user)
{
	struct note *note = user;

	if (note->forbidden)
		*note->forbidden = (int)CU(cuStreamSynchronize)(note->stream);
	*note->cell = *note->cell * 1000003 + note->value;
}

static void
note_status(CUstream stream, CUresult status, void *user)
{
	struct note *note = user;

	note->value += (uint32_t)status + (stream != note->stream); /* 0 */
	note_now(user);
}

/* `note` is never freed: a graph may call it again. */
void
note_work(struct world *w, unsigned s, const struct work *work, CUresult *result)
{
	struct note *note = malloc(sizeof(*note));
	unsigned cell = work->dst;

	*note = (struct note){ (uint64_t *)(uintptr_t)w->buffers[cell].address, work->value, NULL, pick_handle(w, s) };
	if (chance(w, 10))
		note->forbidden = &w->forbidden[cell];
	if (w->streams[s].captured || chance(w, 70)) {
		*result = RUN(w, CU(cuLaunchHostFunc)(note->stream, note_now, note), "b%u s%u", cell, s);
	} else {
		CUstream stream = note->stream;
		note->forbidden = NULL;
		*result = RUN(w, CU(cuStreamAddCallback)(stream, note_status, note, 0), "b%u s%u", cell, s);
	}
}

void
callback_step(struct world *w)
{
	struct work work = { .kind = NOTE, .dst = FIRST_CELL + draw(w, FIRST_GLOBAL - FIRST_CELL), .value = draw(w, 1000000) };

	issue(w, pick_stream(w), &work, false);
}

/* ---- a stream that is held up ---------------------------------------------------------------------------------------- */

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool gate_open;

static void
gate(void *user)
{
	(void)user;
	pthread_mutex_lock(&gate_lock);
	while (!gate_open)
		pthread_cond_wait(&gate_changed, &gate_lock);
	pthread_mutex_unlock(&gate_lock);
}

static void
set_gate(bool open)
{
	pthread_mutex_lock(&gate_lock);
	gate_open = open;
	pthread_cond_broadcast(&gate_changed);
	pthread_mutex_unlock(&gate_lock);
}

/* A host function holds a stream up: what is issued behind it must not block, must not be done, and another stream must go on. */
void
gate_step(struct world *w)
{
	unsigned s = MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS), other = MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS);
	unsigned b = find_buffer(w, 0, DEVICE_BUFFERS, 1 << DEVICE), e = draw(w, EVENTS);

	if (w->concurrent || w->capture.active || w->poisoned || !is_made(w, s) || !is_made(w, other) || s == other || b == BUFFERS ||
	    !w->events[e].alive || !w->modules[0].alive || !(w->streams[s].flags & w->streams[other].flags & CU_STREAM_NON_BLOCKING))
		return;
	if (synchronize(w) != CUDA_SUCCESS)
		return;
	set_gate(false);
	MUST(w, CU(cuLaunchHostFunc)(w->streams[s].handle, gate, NULL), "closed s%u", s);
	for (unsigned times = 2 + draw(w, 8); times; times--) {
		struct work fill = { .kind = FILL, .dst = b, .element = 1, .value = draw(w, 256), .width = w->buffers[b].size, .height = 1,
			.dst_pitch = w->buffers[b].size };
		struct work mix = { .kind = MIX, .dst = b, .src = b, .count = (uint32_t)(w->buffers[b].size / 4 > 4096 ? 4096 : w->buffers[b].size / 4),
			.a = 3, .b = draw(w, 9) };
		if (times & 1)
			issue(w, s, &fill, false);
		else
			issue(w, s, &mix, false);
	}
	if (MUST(w, CU(cuEventRecord)(w->events[e].handle, w->streams[s].handle), "e%u s%u", e, s) == CUDA_SUCCESS)
		order_record(w, s, &w->events[e]);
	if (RUN(w, CU(cuStreamQuery)(w->streams[s].handle), "s%u", s) != CUDA_ERROR_NOT_READY)
		wrong(w, "s%u is held up", s);
	if (RUN(w, CU(cuEventQuery)(w->events[e].handle), "e%u", e) != CUDA_ERROR_NOT_READY)
		wrong(w, "s%u is held up, so is e%u", s, e);
	struct work bump = { .kind = BUMP, .dst = FIRST_GLOBAL, .value = draw(w, 1000) };
	issue(w, other, &bump, false);
	if (MUST(w, CU(cuStreamSynchronize)(w->streams[other].handle), "s%u", other) == CUDA_SUCCESS)
		order_join(&w->host, &w->now.line[w->streams[other].line]);
	w->aim = (int)other;
	check(w, FIRST_GLOBAL);
	w->aim = -1;
	say(w, "opened");
	set_gate(true);
	if (MUST(w, CU(cuStreamSynchronize)(w->streams[s].handle), "s%u", s) == CUDA_SUCCESS)
		order_join(&w->host, &w->now.line[w->streams[s].line]);
}

/* ---- modules ------------------------------------------------------------------------------------------------------- */

void
load_module(struct world *w, unsigned m)
{
	struct module *module = &w->modules[m];
	CUjit_option options[] = { CU_JIT_MAX_REGISTERS };
	void *values[] = { (void *)64 };
	CUdeviceptr p = 0;
	size_t size = 0;
	CUmodule handle = NULL;
	CUresult result = chance(w, 50) ? MUST(w, CU(cuModuleLoadData)(&handle, model_ptx), "m%u", m)
	                                : MUST(w, CU(cuModuleLoadDataEx)(&handle, model_ptx, 1, options, values), "m%u", m);

	if (result != CUDA_SUCCESS)
		return;
	*module = (struct module){ .handle = handle, .alive = true, .generation = module->generation + 1 };
	MUST(w, CU(cuModuleGetFunction)(&module->mix, handle, "mix"));
	MUST(w, CU(cuModuleGetFunction)(&module->bump, handle, "bump"));
	MUST(w, CU(cuModuleGetFunction)(&module->poke, handle, "poke"));
	MUST(w, CU(cuModuleGetFunction)(&module->bounded, handle, "bounded"));
	MUST(w, CU(cuModuleGetFunction)(&module->trap, handle, "trap_now"));
	MUST(w, CU(cuModuleGetGlobal_v2)(&p, &size, handle, "g"), "size %zu", size);
	if (!p || size != 64)
		return;
	occupy(w, FIRST_GLOBAL + m, GLOBAL, p, size);
	for (uint32_t n = 0, value; n < 16; n++) {
		value = n + 1;
		memcpy(w->buffers[FIRST_GLOBAL + m].model + 4 * n, &value, 4);
	}
	w->stale_pointer = 0;
}

void
module_step(struct world *w)
{
	unsigned m = draw(w, MODULES);
	struct module *module = &w->modules[m];
	int value = -1;
	unsigned count = 99;

	if (w->capture.active && !chance(w, 5))
		return;
	if (!module->alive) {
		load_module(w, m);
		return;
	}
	switch (draw(w, 4)) {
	case 0:
		if (chance(w, 60) || (w->concurrent && !order_is_done(w, FIRST_GLOBAL + m, false)))
			break;
		if (MUST(w, CU(cuModuleUnload)(module->handle), "m%u", m) == CUDA_SUCCESS) {
			w->stale_module = module->handle;
			w->stale_function = chance(w, 50) ? module->mix : module->bump;
			module->alive = false;
			module->generation++;
			vacate(w, FIRST_GLOBAL + m);
		}
		break;
	case 1:
		RUN(w, CU(cuModuleGetFunctionCount)(&count, module->handle), "m%u %u", m, count);
		break;
	case 2:
		RUN(w, CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, chance(w, 50) ? module->bounded : module->mix),
		    "m%u %d", m, value);
		break;
	default:
		RUN(w, CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&value, module->mix, 32u << draw(w, 6), draw(w, 3) * 10000), "m%u %d", m, value);
	}
}

/* ---- captures ------------------------------------------------------------------------------------------------------ */

static void
begin_capture(struct world *w)
{
	static const CUstreamCaptureMode modes[] = { CU_STREAM_CAPTURE_MODE_RELAXED, CU_STREAM_CAPTURE_MODE_RELAXED,
		CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_GLOBAL };
	unsigned s = MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS);
	CUstreamCaptureMode mode = modes[draw(w, 4)];

	if (!w->streams[s].alive || w->concurrent)
		return;
	if (MUST(w, CU(cuStreamBeginCapture_v2)(w->streams[s].handle, mode), "s%u mode %d", s, mode) != CUDA_SUCCESS || w->poisoned)
		return;
	w->capture.active = true;
	w->capture.origin = s;
	w->capture.thread = w->thread;
	w->capture.left = 3 + draw(w, 12);
	w->capture.mode = mode;
	w->capture.count = 0;
	memset(&w->capture.order, 0, sizeof(w->capture.order));
	w->streams[s].captured = true;
}

/* Another stream joins in by an event. */
static void
fork_capture(struct world *w, unsigned from)
{
	unsigned s = MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS), e = draw(w, EVENTS);

	if (!w->streams[s].alive || s == from || !w->events[e].alive)
		return;
	if (MUST(w, CU(cuEventRecord)(w->events[e].handle, w->streams[from].handle), "e%u s%u", e, from) == CUDA_SUCCESS)
		order_record(w, from, &w->events[e]);
	if (MUST(w, CU(cuStreamWaitEvent)(w->streams[s].handle, w->events[e].handle, 0), "s%u e%u", s, e) == CUDA_SUCCESS)
		order_wait(w, s, &w->events[e]);
}

static void
instantiate(struct world *w, struct graph *graph, unsigned g)
{
	CUgraphExec exec = NULL;
	CUresult result = chance(w, 50) ? MUST(w, CU(cuGraphInstantiateWithFlags)(&exec, graph->graph, 0), "g%u", g)
	                                : MUST(w, CU(cuGraphInstantiate_v2)(&exec, graph->graph, NULL, NULL, 0), "g%u", g);

	if (result != CUDA_SUCCESS)
		return;
	graph->exec = exec;
	graph->executable = true;
	graph->exec_count = graph->count;
	memcpy(graph->exec_work, graph->work, sizeof(graph->work));
}

static void
keep_graph(struct world *w, CUgraph handle)
{
	unsigned g = draw(w, GRAPHS);
	struct graph *graph = &w->graphs[g];
	size_t nodes = 0;

	if (graph->alive) {
		MUST(w, CU(cuGraphDestroy)(graph->graph), "g%u", g);
		w->stale_graph = graph->graph;
	}
	graph->alive = true;
	graph->graph = handle;
	graph->count = w->capture.count;
	memcpy(graph->work, w->capture.work, sizeof(graph->work));
	MUST(w, CU(cuGraphGetNodes)(handle, NULL, &nodes), "g%u %zu nodes", g, nodes);
	if (nodes != graph->count)
		wrong(w, "g%u has %zu nodes, not %u", g, nodes, graph->count);
	if (!graph->executable)
		instantiate(w, graph, g);
}

void
end_capture(struct world *w)
{
	unsigned origin = w->capture.origin;
	CUgraph graph = NULL;

	if (w->thread != w->capture.thread && w->capture.mode != CU_STREAM_CAPTURE_MODE_RELAXED && !chance(w, 30))
		return;
	for (unsigned s = MADE_STREAMS; s < STREAMS; s++) {
		unsigned e = draw(w, EVENTS);
		if (s == origin || !w->streams[s].captured || !w->events[e].alive || chance(w, 5))
			continue;
		if (MUST(w, CU(cuEventRecord)(w->events[e].handle, w->streams[s].handle), "e%u s%u", e, s) == CUDA_SUCCESS)
			order_record(w, s, &w->events[e]);
		MUST(w, CU(cuStreamWaitEvent)(w->streams[origin].handle, w->events[e].handle, 0), "s%u e%u", origin, e);
	}
	CUresult result = RUN(w, CU(cuStreamEndCapture)(w->streams[origin].handle, &graph), "s%u graph %d", origin, graph != NULL);
	if (result == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)
		return;
	w->capture.active = false;
	for (unsigned s = 0; s < STREAMS; s++) {
		CUstreamCaptureStatus status = (CUstreamCaptureStatus)9;
		if (w->streams[s].captured)
			RUN(w, CU(cuStreamIsCapturing)(w->streams[s].handle, &status), "s%u status %d", s, status);
		w->streams[s].captured = false;
	}
	for (unsigned e = 0; e < EVENTS; e++) /* what was recorded in the capture orders nothing outside */
		if (w->events[e].in_capture)
			w->events[e].clock = (struct clock){ 0 };
	if (result == CUDA_SUCCESS && graph)
		keep_graph(w, graph);
}

void
capture_step(struct world *w)
{
	CUgraph graph = NULL;

	if (!w->capture.active) {
		begin_capture(w);
		return;
	}
	if (w->capture.left-- == 0) {
		end_capture(w);
		w->capture.left = 0;
		return;
	}
	unsigned s = MADE_STREAMS + draw(w, STREAMS - MADE_STREAMS);
	for (unsigned n = 0; n < STREAMS && !w->streams[s].captured; n++)
		s = s + 1 < STREAMS ? s + 1 : MADE_STREAMS;
	w->aim = (int)s;
	switch (draw(w, 12)) {
	case 0:
	case 1:
		fork_capture(w, s);
		break;
	case 2:
		event_step(w);
		break;
	case 3:
	case 4:
		fill_step(w);
		break;
	case 5:
	case 6:
		copy_step(w);
		break;
	case 7:
		callback_step(w);
		break;
	case 8: /* what is not for a stream that captures: most end the capture */
		if (chance(w, 70))
			break;
		switch (draw(w, 5)) {
		case 0:
			MUST_FAIL(w, CU(cuStreamSynchronize)(w->streams[s].handle), "s%u", s);
			break;
		case 1:
			MUST_FAIL(w, CU(cuStreamQuery)(w->streams[s].handle), "s%u", s);
			break;
		case 2:
			MUST_FAIL(w, CU(cuStreamBeginCapture_v2)(w->streams[s].handle, CU_STREAM_CAPTURE_MODE_RELAXED), "s%u", s);
			break;
		case 3:
			MUST_FAIL(w, CU(cuStreamAddCallback)(w->streams[s].handle, note_status, NULL, 0), "s%u", s);
			break;
		default:
			if (s != w->capture.origin)
				MUST_FAIL(w, CU(cuStreamEndCapture)(w->streams[s].handle, &graph), "s%u", s);
		}
		break;
	default:
		launch_step(w);
	}
	w->aim = -1;
}

/* ---- graphs -------------------------------------------------------------------------------------------------------- */

/* Whether all that the work names is what it was when it was captured. */
static bool
is_current(const struct world *w, const struct work *work, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		bool copies = work[n].kind == COPY || work[n].kind == MIX, runs = work[n].kind == MIX || work[n].kind == BUMP;
		if (w->buffers[work[n].dst].generation != work[n].dst_generation ||
		    (copies && w->buffers[work[n].src].generation != work[n].src_generation) ||
		    (runs && (!w->modules[work[n].module].alive || w->modules[work[n].module].generation != work[n].module_generation)))
			return false;
	}
	return true;
}

static void
launch_graph(struct world *w, struct graph *graph, unsigned g)
{
	struct use uses[2 * GRAPH_WORK];
	unsigned count = 0, s = pick_stream(w);

	if (w->streams[s].captured || !is_current(w, graph->exec_work, graph->exec_count))
		return;
	for (unsigned n = 0; n < graph->exec_count; n++)
		count += work_uses(&graph->exec_work[n], &uses[count]);
	if (!order_before(w, s, uses, count))
		return;
	if (MUST(w, CU(cuGraphLaunch)(graph->exec, pick_handle(w, s)), "g%u s%u", g, s) != CUDA_SUCCESS || w->poisoned)
		return;
	order_issued(w, s, uses, count);
	for (unsigned n = 0; n < graph->exec_count; n++)
		apply(w, &graph->exec_work[n]);
}

static void
update_graph(struct world *w, struct graph *graph, unsigned g, unsigned other)
{
	CUgraphExecUpdateResultInfo info = { 0 };
	const struct graph *from = &w->graphs[other];

	if (!from->alive || !is_current(w, from->work, from->count))
		return;
	CUresult result = RUN(w, CU(cuGraphExecUpdate_v2)(graph->exec, from->graph, &info), "g%u from g%u: %d", g, other, info.result);
	if (result == CUDA_SUCCESS) {
		graph->exec_count = from->count;
		memcpy(graph->exec_work, from->work, sizeof(from->work));
	}
}

void
graph_step(struct world *w)
{
	unsigned g = draw(w, GRAPHS);
	struct graph *graph = &w->graphs[g];
	size_t nodes = 0, edges = 0, roots = 0;
	CUgraph clone = NULL;

	if (w->capture.active && !chance(w, 10))
		return;
	if (!graph->alive && !graph->executable)
		return;
	switch (draw(w, 12)) {
	case 0:
		if (!graph->alive || chance(w, 50))
			break;
		MUST(w, CU(cuGraphDestroy)(graph->graph), "g%u", g);
		w->stale_graph = graph->graph;
		graph->alive = false;
		break;
	case 1:
		if (!graph->executable || chance(w, 50))
			break;
		MUST(w, CU(cuGraphExecDestroy)(graph->exec), "g%u", g);
		w->stale_exec = graph->exec;
		graph->executable = false;
		break;
	case 2:
		if (graph->alive && !graph->executable && is_current(w, graph->work, graph->count))
			instantiate(w, graph, g);
		break;
	case 3:
	case 4:
		if (graph->executable)
			update_graph(w, graph, g, draw(w, GRAPHS));
		break;
	case 5:
		if (!graph->alive || !is_current(w, graph->work, graph->count))
			break;
		RUN(w, CU(cuGraphGetEdges)(graph->graph, NULL, NULL, &edges), "g%u %zu edges", g, edges);
		RUN(w, CU(cuGraphGetRootNodes)(graph->graph, NULL, &roots), "g%u %zu roots", g, roots);
		if (MUST(w, CU(cuGraphClone)(&clone, graph->graph), "g%u", g) == CUDA_SUCCESS) {
			RUN(w, CU(cuGraphGetNodes)(clone, NULL, &nodes), "clone of g%u %zu nodes", g, nodes);
			MUST(w, CU(cuGraphDestroy)(clone), "clone of g%u", g);
		}
		break;
	default:
		if (graph->executable)
			for (unsigned times = 1 + draw(w, 3); times; times--)
				launch_graph(w, graph, g);
	}
}
