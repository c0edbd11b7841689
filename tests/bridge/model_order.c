/*
 * The order of work, as a program may rely on it: vector clocks of streams, events and the host (programming guide, "Streams", "Implicit
 * Synchronization", "Legacy Default Stream").
 *
 * Only what CUDA promises counts. What a device happens to do more (a free that waits, work of one stream that is done in the order of
 * another) adds no order here.
 */
#include <string.h>

#include "model.h"

void
order_join(struct clock *to, const struct clock *from)
{
	for (unsigned n = 0; n < LINES; n++)
		if (from->at[n] > to->at[n])
			to->at[n] = from->at[n];
}

static struct order *
order_of(struct world *w, unsigned s)
{
	return w->streams[s].captured ? &w->capture.order : &w->now;
}

struct clock
order_clock(struct world *w, unsigned s)
{
	struct stream *stream = &w->streams[s];
	struct clock clock = order_of(w, s)->line[stream->line];

	if (stream->captured)
		return clock;
	order_join(&clock, &w->host);
	if (s == 0) {
		for (unsigned n = 1; n < STREAMS; n++)
			if (w->streams[n].alive && !w->streams[n].captured && !(w->streams[n].flags & CU_STREAM_NON_BLOCKING))
				order_join(&clock, &w->now.line[w->streams[n].line]);
	} else if (!(stream->flags & CU_STREAM_NON_BLOCKING)) {
		order_join(&clock, &w->now.line[w->streams[0].line]);
	}
	return clock;
}

unsigned
work_uses(const struct work *work, struct use uses[2])
{
	unsigned count = 0;

	uses[count++] = (struct use){ work->dst, true };
	if (work->kind == COPY || work->kind == MIX)
		uses[count++] = (struct use){ work->src, false };
	return count;
}

/* A line whose work conflicts; LINES: none. */
static unsigned
conflict(const struct order *order, const struct clock *clock, const struct use *uses, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		const struct access *access = &order->access[uses[n].buffer];
		for (unsigned line = 0; line < LINES; line++)
			if (access->write[line] > clock->at[line] || (uses[n].write && access->read[line] > clock->at[line]))
				return line;
	}
	return LINES;
}

/* Orders stream s behind what the line's stream holds now. False: it cannot be. */
static bool
add_order(struct world *w, unsigned s, unsigned line)
{
	unsigned other = 0;

	while (other < STREAMS && !(w->streams[other].alive && w->streams[other].line == line))
		other++;
	bool capturing = w->capture.active;
	bool theirs = other > 0 && other <= THREADS && other != 1 + w->thread; /* another thread's own stream: no handle of it here */
	unsigned how = draw(w, 4);
	if (w->streams[s].captured || (other < STREAMS && w->streams[other].captured != w->streams[s].captured))
		how = 0;
	if (other == STREAMS || theirs) {
		if (capturing || w->concurrent)
			return false;
		if (MUST(w, CU(cuCtxSynchronize)()) == CUDA_SUCCESS)
			order_all_done(w);
		return true;
	}
	if (w->streams[s].captured != w->streams[other].captured || (capturing && how > 0 && (other == 0 || s == 0)))
		return false;
	if (how == 3 && !capturing && !w->concurrent) {
		if (MUST(w, CU(cuCtxSynchronize)()) == CUDA_SUCCESS)
			order_all_done(w);
		return true;
	}
	if (how == 2) {
		if (MUST(w, CU(cuStreamSynchronize)(pick_handle(w, other)), "s%u", other) == CUDA_SUCCESS)
			order_join(&w->host, &w->now.line[line]);
		return true;
	}
	unsigned e = draw(w, EVENTS);
	struct event *event = &w->events[e];
	if (!event->alive)
		return false;
	if (MUST(w, CU(cuEventRecord)(event->handle, pick_handle(w, other)), "e%u s%u", e, other) != CUDA_SUCCESS)
		return false;
	order_record(w, other, event);
	if (MUST(w, CU(cuStreamWaitEvent)(pick_handle(w, s), event->handle, 0), "s%u e%u", s, e) == CUDA_SUCCESS)
		order_wait(w, s, event);
	return true;
}

bool
order_before(struct world *w, unsigned s, const struct use *uses, unsigned count)
{
	if (w->poisoned)
		return true;
	for (unsigned tries = 0; tries < 8; tries++) {
		struct clock clock = order_clock(w, s);
		unsigned line = conflict(order_of(w, s), &clock, uses, count);
		if (line == LINES)
			return true;
		if (!add_order(w, s, line))
			return false;
	}
	return false;
}

void
order_issued(struct world *w, unsigned s, const struct use *uses, unsigned count)
{
	struct order *order = order_of(w, s);
	unsigned line = w->streams[s].line;

	order->line[line] = order_clock(w, s);
	uint32_t now = ++order->line[line].at[line];
	for (unsigned n = 0; n < count; n++) {
		struct access *access = &order->access[uses[n].buffer];
		if (uses[n].write)
			access->write[line] = now;
		else
			access->read[line] = now;
	}
}

void
order_all_done(struct world *w)
{
	for (unsigned n = 0; n < LINES; n++)
		order_join(&w->host, &w->now.line[n]);
}

bool
order_clock_is_done(const struct world *w, const struct clock *clock)
{
	for (unsigned n = 0; n < LINES; n++)
		if (clock->at[n] > w->host.at[n])
			return false;
	return true;
}

bool
order_is_done(const struct world *w, unsigned buffer, bool for_reading)
{
	const struct access *access = &w->now.access[buffer];

	for (unsigned n = 0; n < LINES; n++)
		if (access->write[n] > w->host.at[n] || (!for_reading && access->read[n] > w->host.at[n]))
			return false;
	return true;
}

void
order_forget(struct world *w, unsigned buffer)
{
	memset(&w->now.access[buffer], 0, sizeof(w->now.access[buffer]));
	memset(&w->capture.order.access[buffer], 0, sizeof(w->capture.order.access[buffer]));
}

unsigned
order_new_line(struct world *w)
{
	return w->lines < LINES ? w->lines++ : LINES;
}

void
order_record(struct world *w, unsigned s, struct event *e)
{
	order_issued(w, s, NULL, 0);
	e->clock = order_of(w, s)->line[w->streams[s].line];
	e->recorded = true;
	e->in_capture = w->streams[s].captured;
}

void
order_wait(struct world *w, unsigned s, struct event *e)
{
	if (e->in_capture && w->capture.active && !w->streams[s].captured) {
		w->streams[s].captured = true; /* drawn into the capture */
		memset(&w->capture.order.line[w->streams[s].line], 0, sizeof(struct clock));
	}
	if (e->recorded && e->in_capture == w->streams[s].captured)
		order_join(&order_of(w, s)->line[w->streams[s].line], &e->clock);
}
