/*
 * Rings and links between two processes: order, every size, a full ring, the death of the other side, and contents that no honest side
 * writes.
 */
#include "tests/tap.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire/link.h"

static enum wire_kind kind = WIRE_UNIX;

static double
seconds(void)
{
	return (double)wire_now() / 1e9;
}

/* A worker's side in a child, which `serve` is, and a client's side here. */
static struct wire_link *
start(void (*serve)(struct wire_link *), pid_t *child)
{
	struct wire_address address;
	char error[256], text[64], reply[16], hello[16] = "hello";
	size_t size = sizeof(reply);
	static int number;

	if (kind == WIRE_UNIX)
		snprintf(text, sizeof(text), "unix:@farwarp-test-%d-%d", (int)getpid(), number++);
	else
		snprintf(text, sizeof(text), "tcp:127.0.0.1:%d", 20000 + (int)getpid() % 20000);
	CHECK(wire_address_parse(text, &address, error));
	int listener = wire_listen(&address, error);
	CHECK(listener >= 0);
	if ((*child = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* no test leaves one behind */
		uint8_t got[WIRE_HELLO_MAX];
		int fd = -1;
		while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
			usleep(1000);
		struct wire_stream *stream = wire_accept(fd, kind, NULL, 2000, error);
		struct wire_link *link = stream && wire_hello_read(stream, got, 2000, error) == 16 && wire_hello_answer(stream, "welcome", 8)
			? wire_adopt(stream, NULL, error) : NULL;
		if (link)
			serve(link);
		_exit(link ? 0 : 1);
	}
	struct wire_link *link = wire_connect(&address, hello, sizeof(hello), reply, &size, 2000, error);
	close(listener);
	if (!link)
		printf("# %s\n", error);
	CHECK(link && size == 8);
	return link;
}

static uint8_t
pattern(uint64_t n, uint32_t at)
{
	return (uint8_t)(n * 31 + at * 7);
}

static bool
is_pattern(const uint8_t *bytes, uint32_t size, uint64_t n)
{
	for (uint32_t at = 0; at < size; at += size > 4096 ? 61 : 1)
		if (bytes[at] != pattern(n, at))
			return false;
	return true;
}

/* Answers each record with its sum, until the channel ends. */
static void
echo(struct wire_link *link)
{
	struct wire_event event;
	struct wire_record header;
	const uint8_t *payload;

	if (!wire_event_wait(link, &event) || event.kind != WIRE_EVENT_CHANNEL)
		_exit(2);
	for (uint64_t expected = 0; (payload = wire_wait(event.channel->from, &header, 20000)); expected++) {
		bool good = header.ticket == expected && is_pattern(payload, header.size, expected);
		wire_release(event.channel->from);
		if (!(header.flags & 1) && good)
			continue;
		struct wire_record *answer = wire_reserve(event.channel->to, 0);
		if (!answer)
			_exit(3);
		*answer = (struct wire_record){ .ticket = header.ticket, .more = good };
		wire_publish_wake(event.channel->to, answer);
	}
	wire_channel_close(event.channel);
}

static void
send_one(struct wire_channel *channel, uint64_t n, uint32_t size, bool ask)
{
	struct wire_record *record = wire_reserve(channel->to, size);

	CHECK(record != NULL);
	if (!record)
		exit(1);
	*record = (struct wire_record){ .size = size, .ticket = n, .flags = ask };
	for (uint32_t at = 0; at < size; at++)
		record->payload[at] = pattern(n, at);
	if (ask)
		wire_publish_wake(channel->to, record);
	else
		wire_publish(channel->to, record);
}

static void
exchange(void)
{
	struct wire_record header;
	pid_t child;
	struct wire_link *link = start(echo, &child);
	struct wire_channel *channel = wire_channel_open(link);
	uint64_t n = 0;

	CHECK(channel != NULL);
	for (uint32_t size = 0; size < 300; size++)
		send_one(channel, n++, size, false);
	for (unsigned round = 0; round < 40; round++) { /* wraps many times, and is full now and then */
		send_one(channel, n++, WIRE_PAYLOAD_MAX - round, false);
		send_one(channel, n++, 4096 + round, false);
	}
	for (unsigned round = 0; round < 2000; round++)
		send_one(channel, n++, 64, false);
	send_one(channel, n, 100, true);
	CHECK(wire_wait(channel->from, &header, 20000) != NULL);
	CHECK(header.ticket == n && header.more == 1);
	wire_release(channel->from);
	CHECK(wire_reserve(channel->to, WIRE_PAYLOAD_MAX + 1) == NULL);
	wire_channel_close(channel);
	int status = 1;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	wire_close(link);
}

TEST(records_of_every_size_over_shared_memory)
{
	exchange();
}

TEST(records_of_every_size_over_tcp)
{
	kind = WIRE_TCP;
	exchange();
}

/* Takes a channel and then nothing any more. */
static void
sit(struct wire_link *link)
{
	struct wire_event event;

	wire_event_wait(link, &event);
	for (;;)
		pause();
}

static void
death(int how)
{
	struct wire_record header;
	pid_t child;
	struct wire_link *link = start(sit, &child);
	struct wire_channel *channel = wire_channel_open(link);

	send_one(channel, 0, 64, true);
	CHECK(wire_wait(channel->from, &header, 50) == NULL && wire_alive(link)); /* a time-out is no death */
	kill(child, how);
	double begin = seconds();
	CHECK(wire_wait(channel->from, &header, 5000) == NULL);
	CHECK(!wire_alive(link) && wire_reason(link)[0]);
	CHECK(seconds() - begin < 1);
	CHECK(wire_reserve(channel->to, 64) == NULL);
	wire_channel_close(channel);
	wire_close(link);
	waitpid(child, NULL, 0);
}

TEST(death_while_waiting)
{
	death(SIGKILL);
}

TEST(death_while_waiting_over_tcp)
{
	kind = WIRE_TCP;
	death(SIGKILL);
}

TEST(death_while_the_ring_is_full)
{
	pid_t child;
	struct wire_link *link = start(sit, &child);
	struct wire_channel *channel = wire_channel_open(link);

	for (unsigned n = 0; n < 3; n++)
		send_one(channel, n, WIRE_PAYLOAD_MAX, false);
	if (fork() == 0) {
		usleep(200000);
		kill(child, SIGKILL);
		_exit(0);
	}
	double begin = seconds();
	while (wire_reserve(channel->to, WIRE_PAYLOAD_MAX)) {
		struct wire_record *record = wire_reserve(channel->to, WIRE_PAYLOAD_MAX);
		if (!record)
			break;
		*record = (struct wire_record){ .size = WIRE_PAYLOAD_MAX };
		wire_publish(channel->to, record);
	}
	CHECK(!wire_alive(link));
	CHECK(seconds() - begin > 0.1 && seconds() - begin < 2);
	wire_channel_close(channel);
	wire_close(link);
}

/* ---- hostile contents: this process writes into the ring that it reads as if the other side had ------------------- */

static struct wire_line *
hostile(struct wire_link **link, pid_t *child)
{
	*link = start(sit, child);
	return (struct wire_line *)wire_channel_open(*link);
}

static void
refused(void (*poison)(struct wire_line *line))
{
	struct wire_record header;
	struct wire_link *link;
	pid_t child;
	struct wire_line *line = hostile(&link, &child);

	poison(line);
	CHECK(wire_peek(&line->from, &header) == NULL);
	CHECK(!wire_alive(link));
	kill(child, SIGKILL);
	wire_channel_close(&line->channel);
	wire_close(link);
}

static void
huge_record(struct wire_line *line)
{
	((struct wire_record *)line->from.data)->size = UINT32_MAX;
	line->from.shared->head = 64;
}

static void
record_beyond_the_head(struct wire_line *line)
{
	((struct wire_record *)line->from.data)->size = 4096;
	line->from.shared->head = 64;
}

static void
head_far_ahead(struct wire_line *line)
{
	line->from.shared->head = UINT64_MAX & ~31ull;
}

static void
head_in_between(struct wire_line *line)
{
	line->from.shared->head = 33;
}

TEST(hostile_rings_end_the_link)
{
	refused(huge_record);
	refused(record_beyond_the_head);
	refused(head_far_ahead);
	refused(head_in_between);
	struct wire_link *link;
	pid_t child;
	struct wire_line *line = hostile(&link, &child);
	line->to.shared->tail = 1u << 30; /* more than was ever written */
	line->to.head = line->to.tail_seen + WIRE_RING_BYTES;
	CHECK(wire_reserve(&line->to, 64) == NULL && !wire_alive(link));
	kill(child, SIGKILL);
	wire_channel_close(&line->channel);
	wire_close(link);
}

TEST(addresses)
{
	static const struct {
		const char *text;
		bool good;
	} rows[] = { { "unix:/tmp/x", true }, { "unix:", false }, { "unix:@name", true }, { "tcp:localhost", true }, { "tcp:localhost:80", true },
		{ "tcp:[::1]:80", true }, { "tcp:[::1", false }, { "tcp::80", false }, { "tcp:h:0", false }, { "tcp:h:65536", false },
		{ "tcp:h:8x", false }, { "vsock:2:1024", true }, { "vsock:x:1", false }, { "", false }, { "http://x", false } };
	struct wire_address address;
	char error[256], text[300];

	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		error[0] = 0;
		bool good = wire_address_parse(rows[n].text, &address, error);
		if (good != rows[n].good || (!good && !error[0]))
			printf("# \"%s\"\n", rows[n].text);
		CHECK(good == rows[n].good && (good || error[0]));
	}
	CHECK(wire_address_parse("tcp:[fe80::1]:1234", &address, error));
	wire_address_format(&address, text, sizeof(text));
	CHECK(strcmp(text, "tcp:[fe80::1]:1234") == 0);
}

TEST_MAIN()
