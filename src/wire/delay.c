/*
 * A delay line, for measurements: what a network with a given round trip and bandwidth would do to a connection's bytes.
 *
 * A thread stands between the stream and its connection. What arrives on one side leaves on the other when it would have crossed such a
 * wire: after the bytes before it (bandwidth, shared by all connections of a link) and half of a round trip later, overlapping.
 */
#include "wire/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/link.h"

#define QUEUED_MAX (64u << 20) /* bytes on the way in one direction */
#define CHUNK (64u << 10)
#define SPIN_NS 60000u         /* before a chunk is due: a timer is later than that */

struct chunk {
	struct chunk *next;
	uint64_t due;
	size_t size, at;
	uint8_t bytes[];
};

struct direction {
	int from, to;
	uint64_t *free_ns;
	struct chunk *first, **last;
	size_t queued;
	bool ended, passed_on; /* nothing more comes; and the other side knows it */
};

struct wire_delay {
	struct wire_limits *limits;
	int inner, outer; /* sockets: the stream's other end; the connection */
	pthread_t thread;
	uint64_t end_by;  /* atomic: 0, or when the thread ends in any case */
};

/* When a chunk that arrives now has crossed the wire. */
static uint64_t
due(const struct wire_limits *limits, uint64_t *free_ns, size_t size, uint64_t now)
{
	uint64_t takes = limits->bytes_per_s ? size * 1000000000ull / limits->bytes_per_s : 0;
	uint64_t begin, old = __atomic_load_n(free_ns, __ATOMIC_RELAXED);

	do
		begin = old > now ? old : now;
	while (!__atomic_compare_exchange_n(free_ns, &old, begin + takes, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return begin + takes + limits->half_rtt_ns;
}

/* Takes what has arrived. */
static void
take(const struct wire_delay *delay, struct direction *d)
{
	uint8_t bytes[CHUNK];
	size_t want = delay->limits->bytes_per_s ? CHUNK / 4 : CHUNK;

	while (!d->ended && d->queued < QUEUED_MAX) {
		ssize_t got = recv(d->from, bytes, want, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		struct chunk *chunk = got > 0 ? malloc(sizeof(*chunk) + (size_t)got) : NULL;
		if (!chunk) {
			d->ended = true;
			return;
		}
		*chunk = (struct chunk){ .size = (size_t)got, .due = due(delay->limits, d->free_ns, (size_t)got, wire_now()) };
		memcpy(chunk->bytes, bytes, (size_t)got);
		*d->last = chunk;
		d->last = &chunk->next;
		d->queued += (size_t)got;
	}
}

/* Passes on what has crossed. True: the other side takes no more now. */
static bool
give(struct direction *d)
{
	while (d->first && d->first->due <= wire_now()) {
		struct chunk *chunk = d->first;
		ssize_t sent = send(d->to, chunk->bytes + chunk->at, chunk->size - chunk->at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN)
			return true;
		if (sent < 0 && errno != EINTR) {
			d->ended = true;
			sent = (ssize_t)(chunk->size - chunk->at);
		}
		chunk->at += sent > 0 ? (size_t)sent : 0;
		if (chunk->at < chunk->size)
			continue;
		d->first = chunk->next;
		d->last = d->first ? d->last : &d->first;
		d->queued -= chunk->size;
		free(chunk);
	}
	if (d->ended && !d->first && !d->passed_on) {
		shutdown(d->to, SHUT_WR);
		d->passed_on = true;
	}
	return false;
}

/* How long nothing has to be done, in ns. */
static uint64_t
idle(const struct direction d[2], const bool blocked[2])
{
	uint64_t first = UINT64_MAX, now = wire_now();

	for (unsigned n = 0; n < 2; n++)
		if (d[n].first && !blocked[n] && d[n].first->due < first)
			first = d[n].first->due;
	if (first == UINT64_MAX)
		return 100000000;
	return first > now + SPIN_NS ? first - now - SPIN_NS : 0;
}

static void *
delay_main(void *argument)
{
	struct wire_delay *delay = argument;
	struct direction d[2] = { { .from = delay->inner, .to = delay->outer, .free_ns = &delay->limits->free_ns[0] },
		{ .from = delay->outer, .to = delay->inner, .free_ns = &delay->limits->free_ns[1] } };

	prctl(PR_SET_TIMERSLACK, 1);
	for (unsigned n = 0; n < 2; n++)
		d[n].last = &d[n].first;
	for (uint64_t end_by = 0; (!d[0].passed_on || !d[1].passed_on) && (!end_by || wire_now() < end_by);) {
		end_by = __atomic_load_n(&delay->end_by, __ATOMIC_ACQUIRE);
		bool blocked[2];
		struct pollfd p[2] = { { .fd = -1 }, { .fd = -1 } };
		for (unsigned n = 0; n < 2; n++) {
			take(delay, &d[n]);
			blocked[n] = give(&d[n]);
		}
		for (unsigned n = 0; n < 2; n++) { /* of socket n: what it has for us, and whether it takes what is due */
			p[n].events = (short)((!d[n].ended && d[n].queued < QUEUED_MAX ? POLLIN : 0) | (blocked[1 - n] ? POLLOUT : 0));
			p[n].fd = p[n].events ? d[n].from : -1;
		}
		uint64_t ns = idle(d, blocked);
		struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
		if (ns)
			ppoll(p, 2, &t, NULL);
	}
	for (unsigned n = 0; n < 2; n++)
		for (struct chunk *chunk = d[n].first, *next; chunk; chunk = next) {
			next = chunk->next;
			free(chunk);
		}
	return NULL;
}

bool
wire_delay_begin(struct wire_stream *stream, struct wire_limits *limits)
{
	struct wire_delay *delay = calloc(1, sizeof(*delay));
	int pair[2], size = 4 << 20;

	if (!delay || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
		free(delay);
		return false;
	}
	for (unsigned n = 0; n < 2; n++)
		setsockopt(pair[n], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*delay = (struct wire_delay){ .limits = limits, .inner = pair[1], .outer = stream->fd };
	if (pthread_create(&delay->thread, NULL, delay_main, delay) != 0) {
		close(pair[0]);
		close(pair[1]);
		free(delay);
		return false;
	}
	stream->fd = pair[0];
	stream->delay = delay;
	return true;
}

void
wire_delay_end(struct wire_delay *delay)
{
	if (!delay)
		return;
	/* The stream is closed: nothing more comes from it, and nothing has to reach it. What is on its way out still leaves. */
	__atomic_store_n(&delay->end_by, wire_now() + delay->limits->half_rtt_ns + 1000000000, __ATOMIC_RELEASE);
	shutdown(delay->outer, SHUT_RD);
	shutdown(delay->inner, SHUT_WR);
	pthread_join(delay->thread, NULL);
	close(delay->inner);
	close(delay->outer);
	free(delay);
}

void
wire_delay_after_fork(struct wire_delay *delay)
{
	if (delay) {
		close(delay->inner);
		close(delay->outer);
	}
}
