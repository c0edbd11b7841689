/*
 * Links without shared memory: the bytes of all channels go over one connection, in frames.
 *
 * Sending looks through the rings that this side writes and sends what is there, many records in one call; receiving appends what arrives
 * to the rings that this side reads. A channel sends no more than the other side has room for (credit), so one that is not read stalls no
 * other.
 *
 * A thread of each sort sees to it that this happens, napping for bounded times, so that who publishes a record makes no system call. Who
 * awaits an answer does both itself, while it waits: then a round trip wakes no other thread.
 *
 * What arrives is foreign: a frame's header is checked before anything is done, and it is no larger than the room that was told.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/link.h"

#define MASK (WIRE_RING_BYTES - 1)
#define FRAME_MAX (2u << 20)    /* bytes in a frame: more than a record can have */
#define FRAME_GOAL (512u << 10) /* so many and no more where records allow it: the other side begins with them when all are there */
#define BATCH_GOAL (2u << 20)
#define GRANT (WIRE_RING_BYTES / 8) /* bytes that were read and not told yet */
#define BEAT_NS 1000000000ull
#define NAP_MIN 50000u
#define NAP_MAX 1000000u
#define NAPS_BEFORE_SLEEP 1000
#define BUSY_NS 500000u         /* the receiver leaves the socket to who waits itself, if one did so in this time */

/* ---- sending ------------------------------------------------------------------------------------------------------- */

struct batch {
	struct wire_frame frames[64];
	struct iovec parts[130];
	unsigned frame_count, part_count;
	size_t bytes;
};

static struct wire_frame *
add_frame(struct batch *b, uint32_t kind, uint32_t channel, uint32_t size)
{
	struct wire_frame *frame = &b->frames[b->frame_count++];

	*frame = (struct wire_frame){ kind, channel, size, 0 };
	b->parts[b->part_count++] = (struct iovec){ frame, sizeof(*frame) };
	b->bytes += sizeof(*frame);
	return frame;
}

static bool
full(const struct batch *b)
{
	return b->frame_count + 4 > sizeof(b->frames) / sizeof(b->frames[0]) || b->bytes >= BATCH_GOAL;
}

/* Bytes of whole records at the ring's tail, at most `limit`, and no more than FRAME_GOAL unless the first is larger. */
static uint64_t
whole_records(const struct wire_ring *ring, uint64_t there, uint64_t limit)
{
	uint64_t bytes = 0;

	if (there <= limit && there <= FRAME_GOAL)
		return there;
	while (bytes < there) {
		const struct wire_record *record = (const struct wire_record *)(ring->data + ((ring->tail + bytes) & MASK));
		uint64_t next = bytes + ((sizeof(*record) + record->size + 31u) & ~31ull);
		if (next > limit || (bytes && next > FRAME_GOAL))
			break;
		bytes = next;
	}
	return bytes;
}

/* What a line has to say. *sent: bytes of its ring that the batch holds. */
static void
collect(struct wire_link *link, struct wire_line *line, struct batch *b, uint64_t *sent)
{
	*sent = 0;
	if (link->client && !line->opened) {
		add_frame(b, FRAME_OPEN, line->channel.id, 0);
		line->opened = true;
	}
	uint64_t read = __atomic_load_n(&line->from.shared->tail, __ATOMIC_ACQUIRE);
	if (read - line->from.granted >= GRANT) {
		add_frame(b, FRAME_CREDIT, line->channel.id, (uint32_t)(read - line->from.granted));
		__atomic_store_n(&line->from.granted, read, __ATOMIC_RELAXED);
	}
	bool closed = __atomic_load_n(&line->closed, __ATOMIC_ACQUIRE);
	uint64_t bytes = __atomic_load_n(&line->to.shared->head, __ATOMIC_ACQUIRE) - line->to.tail;
	bytes = whole_records(&line->to, bytes, __atomic_load_n(&line->credit, __ATOMIC_ACQUIRE));
	if (bytes) {
		struct wire_frame *frame = add_frame(b, FRAME_DATA, line->channel.id, (uint32_t)bytes);
		frame->core = link->one_host ? wire_core_here() : 0;
		/* Before they leave: what they make room for may be told while they are being sent. */
		__atomic_fetch_sub(&line->credit, bytes, __ATOMIC_ACQ_REL);
		b->parts[b->part_count++] = (struct iovec){ line->to.data + (line->to.tail & MASK), bytes };
		b->bytes += bytes;
		*sent = bytes;
	} else if (closed && !line->told) {
		add_frame(b, FRAME_CLOSE, line->channel.id, 0);
		line->told = true;
	}
}

/* Lines that both sides have closed are nobody's any more. */
static void
free_closed(struct wire_link *link)
{
	struct wire_line *gone = NULL;

	pthread_mutex_lock(&link->lock);
	for (struct wire_line **at = &link->lines; *at;) {
		struct wire_line *line = *at;
		if (line->told && __atomic_load_n(&line->peer_closed, __ATOMIC_ACQUIRE)) {
			*at = line->next;
			line->next = gone;
			gone = line;
		} else {
			at = &line->next;
		}
	}
	pthread_mutex_unlock(&link->lock);
	while (gone) {
		struct wire_line *next = gone->next;
		wire_line_free(gone);
		gone = next;
	}
}

/* One round through all lines, with link->sending held. False: nothing was there. */
static bool
send_round(struct wire_link *link, bool beat)
{
	struct batch b;
	struct {
		struct wire_line *line;
		uint64_t bytes;
	} sent[64];
	unsigned count = 0, streams = __atomic_exchange_n(&link->streams_to_say, 0, __ATOMIC_ACQ_REL);

	b.frame_count = b.part_count = 0;
	b.bytes = 0;
	if (beat)
		add_frame(&b, FRAME_BEAT, 0, 0);
	if (streams)
		add_frame(&b, FRAME_STREAMS, 0, streams);
	pthread_mutex_lock(&link->lock);
	for (struct wire_line *line = link->lines; line && !full(&b); line = line->next) {
		uint64_t bytes;
		collect(link, line, &b, &bytes);
		if (bytes) {
			sent[count].line = line;
			sent[count++].bytes = bytes;
		}
	}
	pthread_mutex_unlock(&link->lock);
	if (!b.part_count || !wire_alive(link))
		return false;
	if (!wire_stream_put(link->stream, b.parts, b.part_count, 0)) {
		wire_kill_stream(link, link->stream);
		return false;
	}
	__atomic_fetch_add(&link->counts.bytes_to, b.bytes, __ATOMIC_RELAXED);
	for (unsigned n = 0; n < count; n++) {
		struct wire_line *line = sent[n].line;
		line->to.tail += sent[n].bytes;
		__atomic_store_n(&line->to.shared->tail, line->to.tail, __ATOMIC_RELEASE);
	}
	free_closed(link);
	return true;
}

void
wire_send_now(struct wire_link *link)
{
	/* Either we get to send, or who is sending sees this afterwards. */
	__atomic_store_n(&link->more, 1, __ATOMIC_SEQ_CST);
	for (unsigned rounds = 0; __atomic_load_n(&link->more, __ATOMIC_SEQ_CST); rounds++) {
		if (pthread_mutex_trylock(&link->sending) != 0)
			return;
		bool ours = rounds < 4; /* more than that is the sender's affair */
		if (ours) {
			__atomic_store_n(&link->more, 0, __ATOMIC_SEQ_CST);
			if (send_round(link, false))
				__atomic_store_n(&link->more, 1, __ATOMIC_SEQ_CST);
		}
		pthread_mutex_unlock(&link->sending);
		if (!ours) {
			wire_wake(&link->sender_sleep);
			return;
		}
	}
}

void
wire_wake_sender(struct wire_link *link)
{
	__atomic_store_n(&link->more, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&link->sender_sleep, __ATOMIC_SEQ_CST) != WIRE_AWAKE)
		wire_wake(&link->sender_sleep);
}

/* A round of the sender's thread. */
static bool
send_in_turn(struct wire_link *link, bool beat)
{
	pthread_mutex_lock(&link->sending);
	__atomic_store_n(&link->more, 0, __ATOMIC_SEQ_CST);
	bool something = send_round(link, beat);
	pthread_mutex_unlock(&link->sending);
	return something || __atomic_load_n(&link->more, __ATOMIC_SEQ_CST);
}

static void *
sender_main(void *argument)
{
	struct wire_link *link = argument;
	uint64_t last = wire_now(), nap = NAP_MIN, beat = last;
	unsigned naps = 0;

	while (wire_alive(link)) {
		uint64_t now = wire_now();
		bool due = now - beat >= BEAT_NS;
		if (due)
			beat = now;
		if (send_in_turn(link, due)) {
			__atomic_store_n(&link->sender_sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
			if (!due) {
				nap = NAP_MIN;
				naps = 0;
			}
			continue;
		}
		uint32_t state = naps++ < NAPS_BEFORE_SLEEP ? WIRE_NAPPING : WIRE_SLEEPING;
		uint32_t before = __atomic_exchange_n(&link->sender_sleep, state, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!send_in_turn(link, false) && wire_alive(link)) /* who sleeps naps first: see wire_publish() */
			wire_nap(&link->sender_sleep, state, state != before || state == WIRE_NAPPING ? nap : WIRE_LIVENESS_MS * 1000000ull);
		nap = nap * 2 < NAP_MAX ? nap * 2 : NAP_MAX;
	}
	return NULL;
}

/* ---- what arrives -------------------------------------------------------------------------------------------------- */

static struct wire_line *
find_line(struct wire_link *link, uint32_t id)
{
	struct wire_line *found = NULL;

	pthread_mutex_lock(&link->lock);
	for (struct wire_line *line = link->lines; line && !found; line = line->next)
		if (line->channel.id == id)
			found = line;
	pthread_mutex_unlock(&link->lock);
	return found;
}

void
wire_wake_reader(struct wire_ring *ring)
{
	uint32_t state = __atomic_load_n(ring->sleep, __ATOMIC_RELAXED);
	uint64_t one = 1;

	if (state == WIRE_POLLING && write(ring->link->bell, &one, sizeof(one)) < 0)
		return; /* it rings already */
	if (state == WIRE_NAPPING || state == WIRE_SLEEPING)
		wire_wake(ring->sleep);
}

/* The head of a DATA frame: its bytes come next, and there is room for them. */
static bool
begin_data(struct wire_link *link, const struct wire_frame *frame)
{
	struct wire_line *line = find_line(link, frame->channel);
	struct wire_ring *ring = line ? &line->from : NULL;

	if (!ring || line->peer_closed || frame->size > FRAME_MAX || frame->size & 31 || !frame->size ||
	    frame->size > WIRE_RING_BYTES - (ring->head - __atomic_load_n(&ring->shared->tail, __ATOMIC_ACQUIRE))) {
		wire_kill(link, "the other side sent %u bytes that nobody has room for", frame->size);
		return false;
	}
	__atomic_store_n(&ring->shared->core, link->one_host ? frame->core : 0, __ATOMIC_RELAXED);
	link->intake.line = line;
	link->intake.left = frame->size;
	link->intake.done = 0;
	return true;
}

/* Bytes of the frame that is arriving have been put into its ring; all of them: they are shown. */
static void
advance_data(struct wire_link *link, uint32_t bytes)
{
	struct wire_intake *in = &link->intake;
	struct wire_ring *ring = &in->line->from;

	in->left -= bytes;
	in->done += bytes;
	if (in->left)
		return;
	ring->head += in->done;
	__atomic_fetch_add(&link->counts.bytes_from, in->done, __ATOMIC_RELAXED);
	__atomic_store_n(&ring->shared->head, ring->head, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wire_wake_reader(ring);
}

static bool
take_open(struct wire_link *link, uint32_t id)
{
	int fds[2] = { -1, -1 };
	struct wire_line *line = NULL;

	if (!link->client && !find_line(link, id) && (fds[0] = wire_ring_create()) >= 0 && (fds[1] = wire_ring_create()) >= 0)
		line = wire_line_new(link, id, fds[0], fds[1]);
	pthread_mutex_lock(&link->lock);
	bool room = line && link->event_count < sizeof(link->events) / sizeof(link->events[0]);
	if (room) {
		line->next = link->lines;
		link->lines = line;
		link->events[link->event_count++] = (struct wire_event){ .kind = WIRE_EVENT_CHANNEL, .channel = &line->channel, .fd = -1 };
		pthread_cond_signal(&link->event_there);
	}
	pthread_mutex_unlock(&link->lock);
	if (room)
		return true;
	if (line)
		wire_line_free(line);
	for (unsigned n = 0; !line && n < 2; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	wire_kill(link, "no room for another channel");
	return false;
}

static bool
take_frame(struct wire_link *link, const struct wire_frame *frame)
{
	struct wire_line *line;

	switch (frame->kind) {
	case FRAME_DATA:
		return begin_data(link, frame);
	case FRAME_OPEN:
		return take_open(link, frame->channel);
	case FRAME_CREDIT:
		line = find_line(link, frame->channel);
		if (!line || line->peer_closed)
			return true; /* closed meanwhile, and perhaps freed at any moment */
		if (frame->size > WIRE_RING_BYTES - __atomic_load_n(&line->credit, __ATOMIC_ACQUIRE))
			break;
		__atomic_fetch_add(&line->credit, frame->size, __ATOMIC_ACQ_REL);
		/* What waited for it is the sender's affair: who receives must never wait for the other side to receive. */
		if (__atomic_load_n(&line->to.shared->head, __ATOMIC_ACQUIRE) != __atomic_load_n(&line->to.shared->tail, __ATOMIC_RELAXED))
			wire_wake_sender(link);
		return true;
	case FRAME_CLOSE:
		line = find_line(link, frame->channel);
		if (line && !line->peer_closed) {
			__atomic_store_n(&line->from.shared->ended, 1, __ATOMIC_RELEASE);
			wire_wake_reader(&line->from);
			__atomic_store_n(&line->peer_closed, true, __ATOMIC_RELEASE); /* from here the sender may free it */
			wire_wake_sender(link);
		}
		return true;
	case FRAME_STREAMS:
		if (frame->size == 0 || frame->size > WIRE_STREAMS_MAX)
			break;
		wire_bulk_asked(link, frame->size);
		return true;
	case FRAME_BEAT:
		return true;
	default:
		break;
	}
	wire_kill(link, "the other side sent a frame that makes no sense");
	return false;
}

/* Goes through the bytes that were taken; what is left is part of a frame's head. */
static bool
take_apart(struct wire_link *link)
{
	struct wire_intake *in = &link->intake;

	while (in->at < in->end) {
		size_t there = in->end - in->at;
		if (in->left) {
			uint32_t part = there < in->left ? (uint32_t)there : in->left;
			memcpy(in->line->from.data + ((in->line->from.head + in->done) & MASK), in->bytes + in->at, part);
			in->at += part;
			advance_data(link, part);
			continue;
		}
		struct wire_frame frame;
		if (there < sizeof(frame))
			break;
		memcpy(&frame, in->bytes + in->at, sizeof(frame));
		in->at += sizeof(frame);
		if (!take_frame(link, &frame))
			return false;
	}
	memmove(in->bytes, in->bytes + in->at, in->end - in->at);
	in->end -= in->at;
	in->at = 0;
	return true;
}

/* With link->receiving held: takes once from the stream. False: nothing was there, or the link is dead. */
static bool
receive_once(struct wire_link *link)
{
	struct wire_intake *in = &link->intake;
	bool direct = in->left >= WIRE_TAKE / 2 && in->end == 0; /* straight into the ring */
	long got;

	if (!wire_alive(link))
		return false;
	if (direct)
		got = wire_stream_take(link->stream, in->line->from.data + ((in->line->from.head + in->done) & MASK), in->left);
	else
		got = wire_stream_take(link->stream, in->bytes + in->end, WIRE_TAKE - in->end);
	if (got < 0)
		wire_kill_stream(link, link->stream);
	if (got <= 0)
		return false;
	__atomic_store_n(&link->heard_ns, wire_now(), __ATOMIC_RELAXED);
	if (direct) {
		advance_data(link, (uint32_t)got);
		return true;
	}
	in->end += (size_t)got;
	return take_apart(link);
}

bool
wire_pump(struct wire_link *link)
{
	if (pthread_mutex_trylock(&link->receiving) != 0)
		return false;
	bool something = receive_once(link);
	pthread_mutex_unlock(&link->receiving);
	if (something)
		__atomic_store_n(&link->pumped_ns, wire_now(), __ATOMIC_RELAXED);
	return something;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

void
wire_carried_released(struct wire_ring *ring)
{
	if (ring->tail - __atomic_load_n(&ring->granted, __ATOMIC_RELAXED) >= GRANT)
		wire_send_now(ring->link);
}

/* Whether nothing is there for the reader of the ring, who is about to sleep. */
static bool
still_nothing(const struct wire_ring *ring)
{
	return __atomic_load_n(&ring->shared->head, __ATOMIC_RELAXED) == ring->tail && wire_alive(ring->link) && !wire_ended(ring);
}

void
wire_carried_wait(struct wire_ring *ring, uint64_t ns)
{
	struct wire_link *link = ring->link;
	bool polls = !__atomic_exchange_n(&link->poller, 1, __ATOMIC_ACQ_REL);

	__atomic_store_n(ring->sleep, polls ? WIRE_POLLING : WIRE_SLEEPING, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (still_nothing(ring)) {
		__atomic_fetch_add(&link->counts.sleeps, 1, __ATOMIC_RELAXED);
		if (polls)
			wire_stream_await(link->stream, link->bell, (int)(ns / 1000000));
		else
			wire_nap(ring->sleep, WIRE_SLEEPING, ns);
	}
	__atomic_store_n(ring->sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
	if (!polls)
		return;
	wire_pump(link);
	__atomic_store_n(&link->poller, 0, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&link->receiver_sleep, __ATOMIC_RELAXED) == WIRE_SLEEPING)
		wire_wake(&link->receiver_sleep); /* nobody else may be looking now */
}

/* Takes what no waiting thread takes. */
static void *
receiver_main(void *argument)
{
	struct wire_link *link = argument;

	while (wire_alive(link)) {
		uint64_t heard = __atomic_load_n(&link->heard_ns, __ATOMIC_RELAXED), now = wire_now();
		uint64_t silence = __atomic_load_n(&link->silence_ns, __ATOMIC_RELAXED);
		if (now > heard && now - heard > silence) {
			wire_kill(link, "nothing was heard from the other side for %.0f s", (double)silence / 1e9);
			break;
		}
		uint64_t pumped = __atomic_load_n(&link->pumped_ns, __ATOMIC_RELAXED);
		if (now < pumped + BUSY_NS) { /* who waits will look again */
			__atomic_store_n(&link->receiver_sleep, WIRE_NAPPING, __ATOMIC_RELAXED);
			wire_nap(&link->receiver_sleep, WIRE_NAPPING, BUSY_NS);
			__atomic_store_n(&link->receiver_sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
			continue;
		}
		__atomic_store_n(&link->receiver_sleep, WIRE_SLEEPING, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&link->poller, __ATOMIC_ACQUIRE) && wire_alive(link)) {
			wire_nap(&link->receiver_sleep, WIRE_SLEEPING, WIRE_LIVENESS_MS * 1000000ull);
			__atomic_store_n(&link->receiver_sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
			continue;
		}
		__atomic_store_n(&link->receiver_sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
		wire_stream_await(link->stream, -1, WIRE_LIVENESS_MS);
		/* All that is there, unless another one takes it. */
		while (wire_alive(link) && pthread_mutex_trylock(&link->receiving) == 0) {
			bool something = receive_once(link);
			pthread_mutex_unlock(&link->receiving);
			if (!something)
				break;
		}
	}
	return NULL;
}

/* Whether the connection's two ends have one address. */
static bool
is_one_host(int fd)
{
	struct sockaddr_storage here, there;
	socklen_t here_size = sizeof(here), there_size = sizeof(there);

	if (getsockname(fd, (struct sockaddr *)&here, &here_size) != 0 || getpeername(fd, (struct sockaddr *)&there, &there_size) != 0 ||
	    here.ss_family != there.ss_family)
		return false;
	const struct sockaddr_in *in[2] = { (struct sockaddr_in *)&here, (struct sockaddr_in *)&there };
	const struct sockaddr_in6 *in6[2] = { (struct sockaddr_in6 *)&here, (struct sockaddr_in6 *)&there };
	return here.ss_family == AF_INET ? in[0]->sin_addr.s_addr == in[1]->sin_addr.s_addr
		: here.ss_family == AF_INET6 && IN6_ARE_ADDR_EQUAL(&in6[0]->sin6_addr, &in6[1]->sin6_addr);
}

bool
wire_carry_begin(struct wire_link *link)
{
	link->intake.bytes = malloc(WIRE_TAKE);
	link->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	link->bulk = wire_bulk_new();
	link->one_host = is_one_host(link->stream->fd);
	if (!link->bulk || !link->intake.bytes || link->bell < 0 || pthread_create(&link->receiver, NULL, receiver_main, link) != 0)
		return false;
	link->has_receiver = true;
	if (pthread_create(&link->sender, NULL, sender_main, link) != 0) {
		wire_kill(link, "no thread for the connection");
		return false;
	}
	return true;
}
