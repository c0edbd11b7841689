/*
 * What a peer can send before and after the hello: the hello itself, frames of a link without shared memory, to either side, and the
 * memory of a ring. The first byte says which. No thread runs: bytes are taken by wire_pump() as a waiting thread would.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A socket from which these bytes come, and then the end. */
static int
socket_with(const uint8_t *data, size_t size)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		abort();
	if (send(pair[1], data, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && size)
		abort();
	close(pair[1]);
	return pair[0];
}

static void
hello(const uint8_t *data, size_t size)
{
	uint8_t bytes[WIRE_HELLO_MAX];
	char error[256];
	struct wire_stream *stream = wire_accept(socket_with(data, size), WIRE_UNIX, NULL, 1000, error);

	if (!stream)
		return;
	long got = wire_hello_read(stream, bytes, 1000, error);
	if (got > WIRE_HELLO_MAX || got > (long)size)
		abort();
	wire_stream_close(stream);
}

static void
drain(struct wire_ring *ring)
{
	struct wire_record header;
	const uint8_t *payload;
	volatile uint8_t sum = 0;

	while ((payload = wire_peek(ring, &header))) {
		for (uint32_t n = 0; n < header.size; n++)
			sum += payload[n];
		wire_release(ring);
	}
}

static void
frames(const uint8_t *data, size_t size, bool client)
{
	struct wire_link link = { .kind = WIRE_TCP, .carried = true, .client = client, .bell = -1, .silence_ns = 1000000000 };

	pthread_mutex_init(&link.lock, NULL);
	pthread_mutex_init(&link.sending, NULL);
	pthread_mutex_init(&link.receiving, NULL);
	pthread_cond_init(&link.event_there, NULL);
	link.stream = wire_stream_new(socket_with(data, size), WIRE_TCP);
	link.intake.bytes = malloc(WIRE_TAKE);
	link.bulk = wire_bulk_new();
	if (client) { /* frames for it need a channel that it opened */
		int to = wire_ring_create(), from = wire_ring_create();
		link.lines = wire_line_new(&link, 1, to, from);
	}
	while (wire_alive(&link)) {
		wire_pump(&link);
		link.event_count = 0;
		for (struct wire_line *line = link.lines; line; line = line->next)
			drain(&line->from);
	}
	wire_bulk_free(&link);
	while (link.lines) {
		struct wire_line *line = link.lines;
		link.lines = line->next;
		wire_line_free(line);
	}
	wire_stream_close(link.stream);
	free(link.intake.bytes);
}

/* The memory of a ring that this side reads: where its writer says that it is, then what it wrote. */
static void
ring(const uint8_t *data, size_t size)
{
	static struct wire_link link = { .bell = -1 };
	static struct wire_line *line;
	uint64_t words[2] = { 0 };

	if (!line) {
		pthread_mutex_init(&link.lock, NULL);
		pthread_cond_init(&link.event_there, NULL);
		link.stream = wire_stream_new(socket_with(NULL, 0), WIRE_UNIX);
		int to = wire_ring_create(), from = wire_ring_create();
		line = wire_line_new(&link, 1, to, from);
	}
	memcpy(words, data, size < sizeof(words) ? size : sizeof(words));
	data += size < sizeof(words) ? size : sizeof(words);
	size -= size < sizeof(words) ? size : sizeof(words);
	link.dead = 0;
	line->from.tail = line->from.head_seen = 0;
	line->to.head = line->to.tail_seen = 0;
	memset(line->from.data, 0, 70000);
	memcpy(line->from.data, data, size < 70000 ? size : 70000);
	line->from.shared->head = words[0] % 3 ? words[0] % 70000 : words[0];
	drain(&line->from);
	line->to.shared->tail = words[1];
	for (unsigned n = 0; n < 8 && wire_alive(&link); n++) {
		line->to.tail_seen = 0;
		line->to.head = n * 600000ull; /* full at the end: then the tail is looked at */
		if (words[1] <= line->to.head && line->to.head + 2048 - words[1] > WIRE_RING_BYTES)
			break; /* a ring that is full, as it may be: it would wait */
		struct wire_record *record = wire_reserve(&line->to, 100 * n);
		if (record)
			memset(record, 0, sizeof(*record) + 100 * n);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size || size > 65536)
		return 0;
	switch (*data % 4) {
	case 0:
		hello(data + 1, size - 1);
		break;
	case 3:
		ring(data + 1, size - 1);
		break;
	default:
		frames(data + 1, size - 1, *data % 4 == 2);
	}
	return 0;
}
