/*
 * Rings and links between two processes: order, every size, a full ring, the death of the other side, and contents that no honest side
 * writes.
 */
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
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

/* TLS in this test: a certificate of its own in a folder of its own, which goes when the test does. */
static struct wire_tls_files files;
static char folder[64];

static void
remove_folder(void)
{
	char path[100];

	for (unsigned n = 0; n < 2; n++) {
		snprintf(path, sizeof(path), "%s/%s.pem", folder, n ? "key" : "cert");
		unlink(path);
	}
	rmdir(folder);
}

/* False: this build, or this machine, has no TLS; the test is skipped. */
static bool
prepare_tls(int days)
{
	static struct wire_certificate made;
	char error[256];

	if (!wire_tls_usable(error)) {
		SKIP(error);
		return false;
	}
	snprintf(folder, sizeof(folder), "/tmp/farwarp-test-XXXXXX");
	CHECK(mkdtemp(folder) != NULL);
	CHECK(wire_certificate_make(folder, NULL, days, &made, error));
	files = (struct wire_tls_files){ .cert = made.cert, .key = made.key };
	setenv("FARWARP_TLS_PIN", made.fingerprint, 1);
	atexit(remove_folder);
	return true;
}

/* Whether this kernel connects vsock to itself. */
static bool
prepare_vsock(void)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = 20000 + (unsigned)getpid() };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&vm, sizeof(vm)) == 0;

	if (fd >= 0)
		close(fd);
	if (!ok)
		SKIP("no vsock loopback here (the kernel's vsock_loopback)");
	return ok;
}

/* A port that nobody has at the moment. */
static int
free_port(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0 && getsockname(fd, (struct sockaddr *)&in, &size) == 0);
	close(fd);
	return ntohs(in.sin_port);
}

static void
name_address(char *text, size_t size, int number)
{
	if (kind == WIRE_UNIX)
		snprintf(text, size, "unix:@farwarp-test-%d-%d", (int)getpid(), number);
	else if (kind == WIRE_VSOCK)
		snprintf(text, size, "vsock:%u:%d", VMADDR_CID_LOCAL, 20000 + (int)getpid());
	else
		snprintf(text, size, "%s:127.0.0.1:%d", kind == WIRE_TLS ? "tls" : "tcp", free_port());
}

/* A worker's side in a child, which `serve` is, and a client's side here. */
static struct wire_link *
start(void (*serve)(struct wire_link *), pid_t *child)
{
	struct wire_address address;
	char error[256], text[64], reply[16], hello[16] = "hello";
	size_t size = sizeof(reply);
	static int number;

	name_address(text, sizeof(text), number++);
	CHECK(wire_address_parse(text, &address, error));
	int listener = wire_listen(&address, error);
	CHECK(listener >= 0);
	if ((*child = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* no test leaves one behind */
		uint8_t got[WIRE_HELLO_MAX];
		int fd = -1;
		while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
			usleep(1000);
		struct wire_stream *stream = wire_accept(fd, kind, &files, 2000, error);
		struct wire_link *link = stream && wire_hello_read(stream, got, 2000, error) == 16 && wire_hello_answer(stream, "welcome", 8)
			? wire_adopt(stream, &files, error) : NULL;
		if (link)
			serve(link);
		wire_close(link);
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

TEST(records_of_every_size_over_tls)
{
	kind = WIRE_TLS;
	if (prepare_tls(10))
		exchange();
}

TEST(records_of_every_size_over_vsock)
{
	kind = WIRE_VSOCK;
	if (prepare_vsock())
		exchange();
}

TEST(records_of_every_size_over_a_unix_socket_with_delays)
{
	setenv("FARWARP_WIRE_RTT_US", "100", 1);
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

TEST(death_while_waiting_over_tls)
{
	kind = WIRE_TLS;
	if (prepare_tls(10))
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

/* ---- ring memory that changes while it is read ---------------------------------------------------------------------- */

struct mutator {
	struct wire_line *line;
	bool stop; /* atomic */
};

/* Writes what an honest writer never would, all over the ring's head, its tail, and the heads of records. */
static void *
mutate(void *argument)
{
	struct mutator *m = argument;
	struct wire_ring *ring = &m->line->from;
	uint64_t random = 88172645463325252u;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		uint64_t near = __atomic_load_n(&ring->shared->tail, __ATOMIC_RELAXED) + (random >> 40) % 8192;
		if (random % 4 == 0)
			__atomic_store_n(&ring->shared->head, random % 64 ? near & ~31ull : random, __ATOMIC_RELEASE);
		else
			__atomic_store_n((uint32_t *)(ring->data + (near & (WIRE_RING_BYTES - 32))), (uint32_t)(random % 16 ? random % 600 : random >> 20),
			                 __ATOMIC_RELAXED);
	}
	return NULL;
}

TEST(ring_memory_that_changes_while_it_is_read)
{
	uint64_t records = 0, deaths = 0;
	double begin = seconds();

#ifdef __SANITIZE_THREAD__
	SKIP("the race is what is tested");
#endif
	while (seconds() - begin < 2 && deaths < 200) {
		struct wire_link *link;
		pid_t child;
		struct mutator m = { .line = hostile(&link, &child) };
		pthread_t thread;
		CHECK(m.line != NULL);
		CHECK(pthread_create(&thread, NULL, mutate, &m) == 0);
		for (unsigned n = 0; n < 200000 && wire_alive(link); n++) {
			struct wire_record header;
			const uint8_t *payload = wire_peek(&m.line->from, &header);
			if (!payload)
				continue;
			CHECK(header.size <= WIRE_PAYLOAD_MAX && payload >= m.line->from.data &&
			      payload + header.size <= m.line->from.data + 2 * WIRE_RING_BYTES);
			volatile uint8_t sum = 0;
			for (uint32_t at = 0; at < header.size; at += 16)
				sum += payload[at];
			wire_release(&m.line->from);
			records++;
		}
		deaths += !wire_alive(link);
		__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
		kill(child, SIGKILL);
		wire_channel_close(&m.line->channel);
		wire_close(link);
		waitpid(child, NULL, 0);
	}
	printf("# %llu records, %llu links ended\n", (unsigned long long)records, (unsigned long long)deaths);
	CHECK(deaths > 0);
}

/* ---- what a network does to a connection ----------------------------------------------------------------------------- */

/* A proxy in a thread: passes bytes on until it has passed `budget` of them to the server, or is told to pass nothing any more. */
struct proxy {
	int listener, to_client, to_server;
	struct wire_address server;
	uint64_t budget;    /* bytes from the client */
	uint64_t passed;    /* atomic */
	bool dead_air;      /* atomic: nothing passes, nothing is closed */
	bool stop;          /* atomic */
	pthread_t thread;
	char address[64];
	uint8_t *seen;      /* if set: what the client said, up to 65536 bytes */
};

static int
dial_plain(const struct wire_address *address)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(address->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
	return fd;
}

static bool
pass_bytes(struct proxy *p, int from, int to, bool to_server)
{
	uint8_t bytes[65536];
	uint64_t passed = __atomic_load_n(&p->passed, __ATOMIC_RELAXED);
	uint64_t room = to_server ? p->budget - passed : sizeof(bytes);
	ssize_t got = recv(from, bytes, room < sizeof(bytes) ? room : sizeof(bytes), 0);

	if (got <= 0)
		return false;
	if (to_server) {
		for (ssize_t n = 0; p->seen && n < got && passed + (uint64_t)n < 65536; n++)
			p->seen[passed + (uint64_t)n] = bytes[n];
		__atomic_fetch_add(&p->passed, (uint64_t)got, __ATOMIC_RELAXED);
	}
	return send(to, bytes, (size_t)got, MSG_NOSIGNAL) == got && (!to_server || p->passed < p->budget);
}

static void *
proxy_main(void *argument)
{
	struct proxy *p = argument;

	p->to_client = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	p->to_server = dial_plain(&p->server);
	while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd fds[2] = { { .fd = p->to_client, .events = POLLIN }, { .fd = p->to_server, .events = POLLIN } };
		if (__atomic_load_n(&p->dead_air, __ATOMIC_ACQUIRE)) {
			usleep(1000);
			continue;
		}
		if (poll(fds, 2, 10) <= 0)
			continue;
		if ((fds[0].revents && !pass_bytes(p, p->to_client, p->to_server, true)) ||
		    (fds[1].revents && !pass_bytes(p, p->to_server, p->to_client, false)))
			break;
	}
	if (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
		close(p->to_client);
		close(p->to_server);
	}
	return NULL;
}

static void
proxy_begin(struct proxy *p, const struct wire_address *server, uint64_t budget)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(in);

	*p = (struct proxy){ .server = *server, .budget = budget };
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(bind(p->listener, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(p->listener, 4) == 0);
	CHECK(getsockname(p->listener, (struct sockaddr *)&in, &size) == 0);
	snprintf(p->address, sizeof(p->address), "tcp:127.0.0.1:%d", ntohs(in.sin_port));
	CHECK(pthread_create(&p->thread, NULL, proxy_main, p) == 0);
}

static void
proxy_end(struct proxy *p)
{
	__atomic_store_n(&p->stop, true, __ATOMIC_RELEASE);
	pthread_join(p->thread, NULL);
	close(p->listener);
}

/* Both sides of a link in this process, over TCP, through a proxy if there is one. */
struct meeting {
	int listener;
	char text[64];
	struct wire_address address;
	struct wire_link *worker;
	unsigned connections; /* how many come: the first is the link, the others are handed to it */
	pthread_t thread;
};

static void *
meet(void *argument)
{
	struct meeting *m = argument;
	uint8_t got[WIRE_HELLO_MAX];
	char error[256];

	for (unsigned n = 0; n < m->connections; n++) {
		struct pollfd p = { .fd = m->listener, .events = POLLIN };
		int fd = poll(&p, 1, 5000) == 1 ? accept4(m->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
		struct wire_stream *stream = fd >= 0 ? wire_accept(fd, kind, &files, 2000, error) : NULL;
		if (n || !stream)
			wire_stream_close(stream);
		else if (wire_hello_read(stream, got, 2000, error) == 16 && wire_hello_answer(stream, "welcome", 8))
			m->worker = wire_adopt(stream, &files, error);
		else
			wire_stream_close(stream);
	}
	return NULL;
}

static void
meeting_begin(struct meeting *m, unsigned connections)
{
	char error[256];

	*m = (struct meeting){ .connections = connections };
	name_address(m->text, sizeof(m->text), 0);
	CHECK(wire_address_parse(m->text, &m->address, error));
	m->listener = wire_listen(&m->address, error);
	CHECK(m->listener >= 0);
	CHECK(pthread_create(&m->thread, NULL, meet, m) == 0);
}

static struct wire_link *
meeting_connect(const char *text, char error[256])
{
	struct wire_address address;
	char reply[16], hello[16] = "hello";
	size_t size = sizeof(reply);

	CHECK(wire_address_parse(text, &address, error));
	return wire_connect(&address, hello, sizeof(hello), reply, &size, 2000, error);
}

/* The channel of a link that the client has opened, on the worker's side. */
static struct wire_channel *
other_end(struct wire_link *worker)
{
	struct wire_event event;

	CHECK(wire_event_wait(worker, &event) && event.kind == WIRE_EVENT_CHANNEL);
	return event.channel;
}

TEST(a_connection_that_is_cut_at_every_byte)
{
	uint8_t seen[65536];
	struct wire_record header;
	struct wire_link *link = NULL;
	struct meeting m;
	struct proxy p;
	char error[256];

	kind = WIRE_TCP;
	/* What a client says: a hello, an opened channel, two records, the channel's end. */
	meeting_begin(&m, 1);
	proxy_begin(&p, &m.address, 65536);
	p.seen = seen;
	link = meeting_connect(p.address, error);
	pthread_join(m.thread, NULL);
	CHECK(link && m.worker);
	struct wire_channel *channel = wire_channel_open(link), *other = other_end(m.worker);
	send_one(channel, 0, 100, true);
	send_one(channel, 1, 40, true);
	wire_channel_close(channel);
	for (unsigned n = 0; n < 2; n++) {
		CHECK(wire_wait(other->from, &header, 2000) != NULL);
		wire_release(other->from);
	}
	CHECK(wire_wait(other->from, &header, 2000) == NULL && wire_ended(other->from) && wire_alive(m.worker));
	uint64_t total = p.passed;
	wire_channel_close(other);
	wire_close(link);
	wire_close(m.worker);
	proxy_end(&p);
	close(m.listener);
	CHECK(total > 16 + 4 + 100 + 40 && total < 2000);

	for (uint64_t cut = 0; cut < total; cut++) {
		int pair[2];
		uint8_t got[WIRE_HELLO_MAX];
		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
		CHECK(send(pair[1], seen, cut, MSG_NOSIGNAL) == (ssize_t)cut);
		shutdown(pair[1], SHUT_WR);
		struct wire_stream *stream = wire_accept(pair[0], WIRE_TCP, NULL, 2000, error);
		bool greeted = stream && wire_hello_read(stream, got, 2000, error) == 16;
		CHECK(greeted == (cut >= 20) && (greeted || error[0]));
		if (!greeted) {
			wire_stream_close(stream);
			close(pair[1]);
			continue;
		}
		CHECK(wire_hello_answer(stream, "welcome", 8));
		struct wire_link *worker = wire_adopt(stream, NULL, error);
		struct wire_event event;
		unsigned records = 0;
		double begin = seconds();
		if (wire_event_wait(worker, &event)) {
			while (wire_wait(event.channel->from, &header, 2000)) {
				CHECK(header.ticket == records && header.size == (records ? 40 : 100));
				wire_release(event.channel->from);
				records++;
			}
			wire_channel_close(event.channel);
		}
		while (wire_event_wait(worker, &event))
			;
		CHECK(!wire_alive(worker) && seconds() - begin < 1 && records <= 2);
		wire_close(worker);
		close(pair[1]);
	}
	printf("# %llu bytes\n", (unsigned long long)total);
}

TEST(a_connection_that_is_cut_while_a_client_connects)
{
	kind = WIRE_TCP;
	for (uint64_t budget = 1; budget <= 24; budget++) {
		struct meeting m;
		struct proxy p;
		char error[256] = "";
		meeting_begin(&m, 1);
		proxy_begin(&p, &m.address, budget);
		double begin = seconds();
		struct wire_link *link = meeting_connect(p.address, error);
		CHECK(link || error[0]);
		if (link)
			CHECK(wire_wait(wire_channel_open(link)->from, &(struct wire_record){ 0 }, 1000) == NULL && !wire_alive(link));
		CHECK(seconds() - begin < 1.5);
		wire_close(link);
		pthread_join(m.thread, NULL);
		wire_close(m.worker);
		proxy_end(&p);
		close(m.listener);
	}
}

TEST(a_peer_that_is_gone_without_a_word)
{
	struct wire_record header;
	struct meeting m;
	struct proxy p;
	char error[256];

	kind = WIRE_TCP;
	meeting_begin(&m, 1);
	proxy_begin(&p, &m.address, UINT64_MAX);
	struct wire_link *link = meeting_connect(p.address, error);
	pthread_join(m.thread, NULL);
	CHECK(link && m.worker);
	CHECK(link->silence_ns == WIRE_SILENCE_MS * 1000000ull);
	__atomic_store_n(&link->silence_ns, 2500000000u, __ATOMIC_RELAXED); /* so that the test is shorter; beats come once a second */
	__atomic_store_n(&m.worker->silence_ns, 2500000000u, __ATOMIC_RELAXED);
	struct wire_channel *channel = wire_channel_open(link);
	CHECK(wire_wait(channel->from, &header, 4000) == NULL && wire_alive(link)); /* silence of records alone is no death */
	__atomic_store_n(&p.dead_air, true, __ATOMIC_RELEASE);
	double begin = seconds();
	CHECK(wire_wait(channel->from, &header, 10000) == NULL && !wire_alive(link) && strstr(wire_reason(link), "nothing was heard"));
	CHECK(seconds() - begin < 6);
	struct wire_event event;
	while (wire_event_wait(m.worker, &event))
		wire_channel_close(event.channel);
	CHECK(seconds() - begin < 8 && strstr(wire_reason(m.worker), "nothing was heard"));
	wire_channel_close(channel);
	wire_close(link);
	wire_close(m.worker);
	proxy_end(&p);
	close(p.to_client);
	close(p.to_server);
	close(m.listener);
}

/* ---- injected delays ------------------------------------------------------------------------------------------------- */

/* The shortest of a few round trips of a small record, in seconds: what a busy machine adds is not the wire's. */
static double
round_trip(struct wire_channel *channel, uint64_t *n)
{
	struct wire_record header;
	double shortest = 1e9;

	for (unsigned k = 0; k < 9; k++) {
		double begin = seconds();
		send_one(channel, (*n)++, 64, true);
		CHECK(wire_wait(channel->from, &header, 5000) != NULL);
		wire_release(channel->from);
		shortest = seconds() - begin < shortest ? seconds() - begin : shortest;
	}
	return shortest;
}

static void
delayed(enum wire_kind over)
{
	struct wire_record header;
	uint64_t n = 0;
	pid_t child;

	kind = over;
	setenv("FARWARP_WIRE_RTT_US", "40000", 1);
	struct wire_link *link = start(echo, &child);
	struct wire_channel *channel = wire_channel_open(link);
	CHECK(!wire_can_share(link));
	double trip = round_trip(channel, &n);
	printf("# a round trip of %.2f ms\n", trip * 1e3);
	CHECK(trip >= 0.040 && trip < 0.044);
	/* Overlapping: many records at intervals shorter than the delay, each awaited, arrive at those intervals. */
	double begin = seconds();
	for (unsigned k = 0; k < 200; k++) {
		send_one(channel, n++, 4096, true);
		usleep(100);
	}
	for (unsigned k = 0; k < 200; k++) {
		CHECK(wire_wait(channel->from, &header, 5000) != NULL);
		wire_release(channel->from);
	}
	double all = seconds() - begin;
	printf("# 200 of them, overlapping, in %.1f ms\n", all * 1e3);
	CHECK(all < 2); /* one after the other they take 8 */
	wire_channel_close(channel);
	wire_close(link);
	waitpid(child, NULL, 0);
}

TEST(a_round_trip_is_added_over_tcp)
{
	delayed(WIRE_TCP);
}

TEST(a_round_trip_is_added_over_unix)
{
	delayed(WIRE_UNIX);
}

TEST(bytes_a_second_are_limited)
{
	struct wire_record header;
	uint64_t n = 0;
	pid_t child;

	setenv("FARWARP_WIRE_MBPS", "20", 1);
	struct wire_link *link = start(echo, &child);
	struct wire_channel *channel = wire_channel_open(link);
	round_trip(channel, &n);
	double begin = seconds();
	for (unsigned k = 0; k < 100; k++)
		send_one(channel, n++, 100000, k == 99);
	CHECK(wire_wait(channel->from, &header, 20000) != NULL);
	wire_release(channel->from);
	double rate = 100 * 100000 / (seconds() - begin) / 1e6;
	printf("# %.1f MB/s of 20\n", rate);
	CHECK(rate > 18 && rate < 20.2);
	wire_channel_close(channel);
	wire_close(link);
	waitpid(child, NULL, 0);
}

/* ---- bulk ------------------------------------------------------------------------------------------------------------ */

#define BULK_BYTES (20u << 20)

struct bulk_side {
	struct wire_link *link;
	uint8_t *bytes;
	uint64_t number;
	size_t size, calls;
	bool ok;
};

static void
keep_piece(void *user, size_t at, void *bytes, size_t size)
{
	struct bulk_side *side = user;

	CHECK(size <= WIRE_PIECE && at + size <= side->size);
	memcpy(side->bytes + at, bytes, size);
	__atomic_fetch_add(&side->calls, 1, __ATOMIC_RELAXED);
}

static void
make_piece(void *user, size_t at, void *bytes, size_t size)
{
	struct bulk_side *side = user;

	memcpy(bytes, side->bytes + at, size);
}

static void *
receive_in_pieces(void *argument)
{
	struct bulk_side *side = argument;

	side->ok = wire_bulk_receive(side->link, side->number, NULL, side->size, keep_piece, side);
	return NULL;
}

static void *
send_in_pieces(void *argument)
{
	struct bulk_side *side = argument;

	side->ok = wire_bulk_begin(side->link, &side->number) && wire_bulk_send(side->link, NULL, side->size, make_piece, side);
	return NULL;
}

/* Transfers of several sizes, both ways at a time. */
static void
transfer_both_ways(struct wire_link *client, struct wire_link *worker)
{
	static const size_t sizes[] = { 1, 4096, WIRE_PIECE, WIRE_PIECE + 1, WIRE_STRIPED - 1, WIRE_STRIPED, BULK_BYTES };
	uint8_t *from = malloc(BULK_BYTES), *to = malloc(BULK_BYTES), *back = malloc(BULK_BYTES), *returned = malloc(BULK_BYTES);
	uint64_t number;

	for (size_t n = 0; n < BULK_BYTES; n++) {
		from[n] = (uint8_t)(n * 2654435761u >> 13);
		back[n] = (uint8_t)(n * 40503u >> 9);
	}
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		struct bulk_side in = { worker, to, k, sizes[k], 0, false }, out = { worker, back, 0, sizes[k], 0, false };
		pthread_t threads[2];
		memset(to, 0, BULK_BYTES);
		memset(returned, 0, BULK_BYTES);
		CHECK(pthread_create(&threads[0], NULL, receive_in_pieces, &in) == 0);
		CHECK(pthread_create(&threads[1], NULL, send_in_pieces, &out) == 0);
		CHECK(wire_bulk_begin(client, &number) && number == k);
		CHECK(wire_bulk_send(client, from, sizes[k], NULL, NULL));
		CHECK(wire_bulk_receive(client, k, returned, sizes[k], NULL, NULL));
		pthread_join(threads[0], NULL);
		pthread_join(threads[1], NULL);
		CHECK(in.ok && out.ok && in.calls == (sizes[k] + WIRE_PIECE - 1) / WIRE_PIECE);
		CHECK(memcmp(from, to, sizes[k]) == 0 && memcmp(back, returned, sizes[k]) == 0);
		CHECK(sizes[k] == BULK_BYTES || (to[sizes[k]] == 0 && returned[sizes[k]] == 0));
	}
	free(from);
	free(to);
	free(back);
	free(returned);
}

static void
bulk(const char *streams)
{
	struct meeting m;
	char error[256];

	setenv("FARWARP_WIRE_STREAMS", streams, 1);
	meeting_begin(&m, 1 + (unsigned)strtoul(streams, NULL, 10));
	struct wire_link *link = meeting_connect(m.text, error);
	if (!link)
		printf("# %s\n", error);
	CHECK(link && wire_bulk_usable(link) && wire_bulk_usable(link));
	pthread_join(m.thread, NULL);
	transfer_both_ways(link, m.worker);
	/* A link that dies ends who waits for a transfer, and who sends one that nobody takes. */
	struct bulk_side waits = { m.worker, NULL, 7, 100, 0, true };
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, receive_in_pieces, &waits) == 0);
	usleep(50000);
	wire_close(link);
	pthread_join(thread, NULL);
	uint64_t number;
	CHECK(!waits.ok && !wire_alive(m.worker) && !wire_bulk_begin(m.worker, &number));
	wire_close(m.worker);
	close(m.listener);
}

TEST(bulk_over_one_connection)
{
	kind = WIRE_TCP;
	bulk("1");
}

TEST(bulk_over_three_connections)
{
	kind = WIRE_TCP;
	bulk("3");
}

TEST(bulk_over_tls)
{
	kind = WIRE_TLS;
	if (prepare_tls(10))
		bulk("2");
}

TEST(bulk_over_a_unix_socket_with_delays)
{
	setenv("FARWARP_WIRE_RTT_US", "1000", 1);
	bulk("2");
}

TEST(no_connections_for_bulk)
{
	struct meeting m;
	char error[256];

	kind = WIRE_TCP;
	setenv("FARWARP_WIRE_STREAMS", "0", 1);
	meeting_begin(&m, 1);
	struct wire_link *link = meeting_connect(m.text, error);
	pthread_join(m.thread, NULL);
	CHECK(link && m.worker && !wire_bulk_usable(link));
	/* A transfer that was never agreed on ends the link of who is told of it. */
	CHECK(!wire_bulk_receive(m.worker, 0, NULL, 100, keep_piece, NULL) && !wire_alive(m.worker));
	wire_close(link);
	wire_close(m.worker);
	close(m.listener);
}

/* ---- who is trusted --------------------------------------------------------------------------------------------------- */

/* A client that has to fail with this in its sentence. */
static void
not_let_in(const char *host, const char *says)
{
	struct meeting m;
	struct wire_address address;
	char text[64], error[256] = "", reply[16], hello[16] = "hello";
	size_t size = sizeof(reply);

	meeting_begin(&m, 1);
	snprintf(text, sizeof(text), "tls:%s:%u", host, m.address.port);
	CHECK(wire_address_parse(text, &address, error));
	struct wire_link *link = wire_connect(&address, hello, sizeof(hello), reply, &size, 2000, error);
	if (link || !strstr(error, says))
		printf("# \"%s\" has no \"%s\"\n", error, says);
	CHECK(!link && strstr(error, says) != NULL);
	wire_close(link);
	pthread_join(m.thread, NULL);
	wire_close(m.worker);
	close(m.listener);
}

TEST(who_cannot_be_trusted_is_told_apart)
{
	char other[WIRE_FINGERPRINT];

	kind = WIRE_TLS;
	if (!prepare_tls(10))
		return;
	snprintf(other, sizeof(other), "%s", getenv("FARWARP_TLS_PIN"));
	other[70] = other[70] == '0' ? '1' : '0';
	setenv("FARWARP_TLS_PIN", other, 1);
	not_let_in("127.0.0.1", "not the one of FARWARP_TLS_PIN");
	unsetenv("FARWARP_TLS_PIN");
	not_let_in("127.0.0.1", "nobody known here signed");
	setenv("FARWARP_TLS_CA", files.cert, 1);
	struct meeting m;
	char error[256];
	meeting_begin(&m, 1);
	struct wire_link *link = meeting_connect(m.text, error);
	CHECK(link != NULL);
	pthread_join(m.thread, NULL);
	wire_close(link);
	wire_close(m.worker);
	close(m.listener);
	kind = WIRE_TCP; /* the server speaks no TLS */
	not_let_in("127.0.0.1", "tcp: in place of tls:");
}

TEST(a_certificate_for_another_host)
{
	kind = WIRE_TLS;
	if (!prepare_tls(10))
		return;
	unsetenv("FARWARP_TLS_PIN");
	setenv("FARWARP_TLS_CA", files.cert, 1);
	not_let_in("127.1", "not for 127.1"); /* another way to write the address, and no name that it is for */
}

TEST(a_certificate_that_has_expired)
{
	kind = WIRE_TLS;
	if (!prepare_tls(-1))
		return;
	unsetenv("FARWARP_TLS_PIN");
	setenv("FARWARP_TLS_CA", files.cert, 1);
	not_let_in("127.0.0.1", "has expired");
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
