/*
 * Links without shared memory: two threads carry the bytes of all channels over one connection.
 *
 * The sender looks through the rings that this side writes and sends what is there, many records in one call; the receiver appends what
 * arrives to the rings that this side reads. A channel sends no more than the other side has room for (credit), so one that is not read
 * stalls no other. Who publishes a record makes no system call: the sender naps for bounded times.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "wire/link.h"

enum frame_kind { FRAME_DATA = 1, FRAME_CREDIT, FRAME_OPEN, FRAME_CLOSE, FRAME_BEAT };

struct frame {
	uint32_t kind, channel, size, reserved; /* size: bytes behind a DATA frame; of CREDIT: that were read */
};

#define MASK (WIRE_RING_BYTES - 1)
#define DATA_MAX (2u << 20) /* more than a record can have */
#define BEAT_NS 1000000000ull
#define NAP_MIN 50000u
#define NAP_MAX 1000000u
#define NAPS_BEFORE_SLEEP 1000

/* ---- sending ------------------------------------------------------------------------------------------------------- */

struct batch {
	struct frame frames[64];
	struct iovec parts[130];
	unsigned frame_count, part_count;
	size_t bytes;
};

static struct frame *
add_frame(struct batch *b, uint32_t kind, uint32_t channel, uint32_t size)
{
	struct frame *frame = &b->frames[b->frame_count++];

	*frame = (struct frame){ kind, channel, size, 0 };
	b->parts[b->part_count++] = (struct iovec){ frame, sizeof(*frame) };
	b->bytes += sizeof(*frame);
	return frame;
}

static bool
full(const struct batch *b)
{
	return b->frame_count + 4 > sizeof(b->frames) / sizeof(b->frames[0]) || b->bytes >= DATA_MAX;
}

/* Bytes of whole records at the ring's tail, at most `limit`: the other side is never shown half of one. */
static uint64_t
whole_records(const struct wire_ring *ring, uint64_t there, uint64_t limit)
{
	uint64_t bytes = 0;

	if (there <= limit)
		return there;
	for (;;) {
		const struct wire_record *record = (const struct wire_record *)(ring->data + ((ring->tail + bytes) & MASK));
		uint64_t next = bytes + ((sizeof(*record) + record->size + 31u) & ~31ull);
		if (next > limit)
			return bytes;
		bytes = next;
	}
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
	if (read - line->granted >= WIRE_RING_BYTES / 8) {
		add_frame(b, FRAME_CREDIT, line->channel.id, (uint32_t)(read - line->granted));
		line->granted = read;
	}
	bool closed = __atomic_load_n(&line->closed, __ATOMIC_ACQUIRE);
	uint64_t bytes = __atomic_load_n(&line->to.shared->head, __ATOMIC_ACQUIRE) - line->to.tail;
	uint64_t credit = __atomic_load_n(&line->credit, __ATOMIC_ACQUIRE);
	bytes = whole_records(&line->to, bytes, credit < DATA_MAX ? credit : DATA_MAX);
	if (bytes) {
		add_frame(b, FRAME_DATA, line->channel.id, (uint32_t)bytes);
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

static bool
send_batch(struct wire_link *link, struct batch *b)
{
	struct iovec *part = b->parts;
	unsigned left = b->part_count;

	while (left) {
		struct msghdr m = { .msg_iov = part, .msg_iovlen = left };
		ssize_t sent = sendmsg(link->fd, &m, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0) {
			wire_kill(link, "the connection broke: %s", strerror(errno));
			return false;
		}
		for (size_t bytes = (size_t)sent; left && bytes >= part->iov_len; left--)
			bytes -= (part++)->iov_len, sent = (ssize_t)bytes;
		if (left) {
			part->iov_base = (char *)part->iov_base + sent;
			part->iov_len -= (size_t)sent;
		}
	}
	return true;
}

/* Delays and limits for measurements: the batch leaves when it may. */
static void
hold_back(struct wire_link *link, size_t bytes)
{
	uint64_t ns = link->bytes_per_s ? bytes * 1000000000u / link->bytes_per_s : 0;

	if (ns) {
		struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
		nanosleep(&t, NULL);
	}
}

/* One round through all lines. False: nothing was there. */
static bool
send_round(struct wire_link *link, bool beat)
{
	struct batch b = { .frame_count = 0 };
	struct {
		struct wire_line *line;
		uint64_t bytes;
	} sent[64];
	struct wire_line *gone = NULL;
	unsigned count = 0;

	if (beat)
		add_frame(&b, FRAME_BEAT, 0, 0);
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
	if (!b.part_count)
		return false;
	hold_back(link, b.bytes);
	if (!send_batch(link, &b))
		return false;
	__atomic_fetch_add(&link->counts.bytes_to, b.bytes, __ATOMIC_RELAXED);
	for (unsigned n = 0; n < count; n++) {
		struct wire_line *line = sent[n].line;
		line->to.tail += sent[n].bytes;
		__atomic_store_n(&line->to.shared->tail, line->to.tail, __ATOMIC_RELEASE);
	}
	/* Lines that both sides have closed are nobody's any more. */
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
	return true;
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
		/* The receiver may have heard something since `now` was read. */
		if (now > __atomic_load_n(&link->heard_ns, __ATOMIC_RELAXED) + (uint64_t)WIRE_SILENCE_MS * 1000000) {
			wire_kill(link, "nothing was heard for %d s", WIRE_SILENCE_MS / 1000);
			break;
		}
		if (send_round(link, due)) {
			last = now;
			nap = NAP_MIN;
			naps = 0;
			continue;
		}
		if (now - last < wire_spin_ns())
			continue;
		uint32_t state = naps++ < NAPS_BEFORE_SLEEP ? WIRE_NAPPING : WIRE_SLEEPING;
		__atomic_store_n(&link->sender_sleep, state, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!send_round(link, false) && wire_alive(link))
			wire_nap(&link->sender_sleep, state, state == WIRE_NAPPING ? nap : WIRE_LIVENESS_MS * 1000000ull);
		else
			last = wire_now();
		__atomic_store_n(&link->sender_sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
		nap = nap * 2 < NAP_MAX ? nap * 2 : NAP_MAX;
	}
	return NULL;
}

/* ---- receiving ----------------------------------------------------------------------------------------------------- */

static bool
receive(struct wire_link *link, void *bytes, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got = recv(link->fd, (char *)bytes + at, size - at, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			wire_kill(link, got == 0 ? "the other side closed the connection" : "the connection broke: %s", strerror(errno));
			return false;
		}
		at += (size_t)got;
		__atomic_store_n(&link->heard_ns, wire_now(), __ATOMIC_RELAXED);
	}
	return true;
}

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

/* Half of an injected round trip each way is both halves here, as only the client injects: what comes back waits for it. */
static void
delay(const struct wire_link *link)
{
	if (link->half_rtt_ns) {
		uint64_t ns = 2 * link->half_rtt_ns;
		struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
		nanosleep(&t, NULL);
	}
}

static bool
take_data(struct wire_link *link, const struct frame *frame)
{
	struct wire_line *line = find_line(link, frame->channel);
	struct wire_ring *ring = line ? &line->from : NULL;

	if (!ring || frame->size > DATA_MAX || frame->size & 31 || !frame->size ||
	    frame->size > WIRE_RING_BYTES - (ring->head - __atomic_load_n(&ring->shared->tail, __ATOMIC_ACQUIRE))) {
		wire_kill(link, "the other side sent %u bytes that nobody has room for", frame->size);
		return false;
	}
	if (!receive(link, ring->data + (ring->head & MASK), frame->size))
		return false;
	delay(link);
	ring->head += frame->size;
	__atomic_fetch_add(&link->counts.bytes_from, frame->size, __ATOMIC_RELAXED);
	__atomic_store_n(&ring->shared->head, ring->head, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(ring->sleep, __ATOMIC_RELAXED) != WIRE_AWAKE)
		wire_wake(ring->sleep);
	return true;
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
	wire_kill(link, "no room for another channel");
	return false;
}

static bool
take_frame(struct wire_link *link, const struct frame *frame)
{
	struct wire_line *line;

	switch (frame->kind) {
	case FRAME_DATA:
		return take_data(link, frame);
	case FRAME_OPEN:
		return take_open(link, frame->channel);
	case FRAME_CREDIT:
		line = find_line(link, frame->channel);
		if (line && frame->size <= WIRE_RING_BYTES - __atomic_load_n(&line->credit, __ATOMIC_ACQUIRE)) {
			__atomic_fetch_add(&line->credit, frame->size, __ATOMIC_ACQ_REL);
			return true;
		}
		if (!line)
			return true; /* closed meanwhile */
		break;
	case FRAME_CLOSE:
		line = find_line(link, frame->channel);
		if (line) {
			wire_ring_end(&line->from);
			__atomic_store_n(&line->peer_closed, true, __ATOMIC_RELEASE);
			wire_wake(&link->sender_sleep);
		}
		return true;
	case FRAME_BEAT:
		return true;
	default:
		break;
	}
	wire_kill(link, "the other side sent a frame that makes no sense");
	return false;
}

static void *
receiver_main(void *argument)
{
	struct wire_link *link = argument;
	struct frame frame;

	while (wire_alive(link) && receive(link, &frame, sizeof(frame)) && take_frame(link, &frame))
		;
	return NULL;
}

bool
wire_carry_begin(struct wire_link *link)
{
	if (pthread_create(&link->receiver, NULL, receiver_main, link) != 0)
		return false;
	link->has_receiver = true;
	if (pthread_create(&link->sender, NULL, sender_main, link) != 0) {
		wire_kill(link, "no thread for the connection");
		return false;
	}
	return true;
}
