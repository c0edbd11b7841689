/*
 * Bulk: the bytes of large copies, over connections of their own beside the one that carries records. See wire.h.
 *
 * The client asks for them over the link (FRAME_STREAMS); the worker listens for them on a socket that only its own user's processes may
 * use, and says so. The client then dials the server again and begins with WIRE_BULK_MAGIC and the link's name. The supervisor, which reads
 * nothing, starts a worker for that as for any connection; it sees the magic and passes the descriptor to the worker of that name. There
 * TLS begins, and inside it the client proves by the link's secret that it is the same client.
 *
 * Whoever sends a transfer writes straight from its memory, whoever receives one reads straight into it: the kernel's copies are the only
 * ones. Piece k of a transfer goes over connection k modulo their number.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire/link.h"

#define WIRE_BULK_MAGIC "FWS1"
#define NAME_BYTES (WIRE_KEY_BYTES / 2)
#define MAKE_MS 5000

enum bulk_state { BULK_NONE, BULK_ASKED, BULK_ANSWERED, BULK_READY, BULK_FAILED };

/* One direction's transfers. */
struct bulk_order {
	pthread_mutex_t sending; /* held from wire_bulk_begin() to the end of wire_bulk_send() */
	uint64_t sent;           /* transfers; guarded by it */
	uint64_t received;       /* transfers; guarded by the bulk's lock */
};

struct wire_bulk {
	pthread_mutex_t lock;
	pthread_cond_t changed;    /* state, received; or the link died */
	enum bulk_state state;     /* guarded by lock, read without it for BULK_READY */
	unsigned count, made;
	struct wire_stream *streams[WIRE_STREAMS_MAX];
	uint8_t *pieces[2][WIRE_STREAMS_MAX]; /* [sending][stream]: WIRE_PIECE bytes, from malloc when first needed */
	struct bulk_order order;
	int listener;
	pthread_t acceptor;
	bool has_acceptor;
};

struct wire_bulk *
wire_bulk_new(void)
{
	struct wire_bulk *bulk = calloc(1, sizeof(*bulk));

	if (!bulk)
		return NULL;
	pthread_mutex_init(&bulk->lock, NULL);
	pthread_mutex_init(&bulk->order.sending, NULL);
	pthread_cond_init(&bulk->changed, NULL);
	bulk->listener = -1;
	return bulk;
}

void
wire_bulk_shut(struct wire_link *link)
{
	struct wire_bulk *bulk = link->bulk;

	if (!bulk)
		return;
	pthread_mutex_lock(&bulk->lock);
	for (unsigned n = 0; n < WIRE_STREAMS_MAX; n++)
		if (bulk->streams[n])
			wire_stream_shut(bulk->streams[n]);
	if (bulk->listener >= 0)
		shutdown(bulk->listener, SHUT_RDWR);
	pthread_cond_broadcast(&bulk->changed);
	pthread_mutex_unlock(&bulk->lock);
}

void
wire_bulk_free(struct wire_link *link)
{
	struct wire_bulk *bulk = link->bulk;

	if (!bulk)
		return;
	if (bulk->has_acceptor)
		pthread_join(bulk->acceptor, NULL);
	for (unsigned n = 0; n < WIRE_STREAMS_MAX; n++) {
		wire_stream_close(bulk->streams[n]);
		free(bulk->pieces[0][n]);
		free(bulk->pieces[1][n]);
	}
	if (bulk->listener >= 0)
		close(bulk->listener);
	free(bulk);
	link->bulk = NULL;
}

void
wire_bulk_after_fork(struct wire_link *link)
{
	for (unsigned n = 0; link->bulk && n < WIRE_STREAMS_MAX; n++)
		if (link->bulk->streams[n]) {
			wire_delay_after_fork(link->bulk->streams[n]->delay);
			close(link->bulk->streams[n]->fd);
		}
}

static void
set_state(struct wire_bulk *bulk, enum bulk_state state)
{
	pthread_mutex_lock(&bulk->lock);
	__atomic_store_n(&bulk->state, state, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&bulk->changed);
	pthread_mutex_unlock(&bulk->lock);
}

/* With the lock held: waits until something changed, at most as long as a dead link may go unnoticed. */
static void
await_change(struct wire_bulk *bulk)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += WIRE_LIVENESS_MS * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&bulk->changed, &bulk->lock, &t);
}

/* Puts a stream into its place, unless it is taken or the link has died meanwhile. The last one makes bulk ready. */
static bool
add_stream(struct wire_link *link, unsigned index, struct wire_stream *stream)
{
	struct wire_bulk *bulk = link->bulk;

	pthread_mutex_lock(&bulk->lock);
	bool ok = index < bulk->count && !bulk->streams[index] && wire_alive(link);
	if (ok) {
		bulk->streams[index] = stream;
		bulk->made++;
	}
	pthread_mutex_unlock(&bulk->lock);
	return ok;
}

/* ---- the worker: connections that come ------------------------------------------------------------------------------ */

static socklen_t
place_of(const uint8_t *name, struct sockaddr_un *un)
{
	char text[2 * NAME_BYTES + 1];

	for (unsigned n = 0; n < NAME_BYTES; n++)
		snprintf(text + 2 * n, 3, "%02x", name[n]);
	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int size = snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1, "farwarp-%s", text);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)size);
}

/* A descriptor from another worker of this user; -1: none. */
static int
take_descriptor(int connection)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct ucred peer;
	socklen_t size = sizeof(peer);
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control) };
	struct pollfd p = { .fd = connection, .events = POLLIN };
	int fd = -1;

	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || (peer.uid != geteuid() && peer.uid != 0) ||
	    poll(&p, 1, 1000) != 1 || recvmsg(connection, &m, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* What a client says inside a further connection. */
struct bulk_hello {
	uint8_t secret[WIRE_KEY_BYTES - NAME_BYTES];
	uint32_t index, count;
};

/* Whether the connection is the client's: then it is the link's now. */
static void
admit(struct wire_link *link, int fd)
{
	struct wire_bulk *bulk = link->bulk;
	struct bulk_hello hello;
	unsigned differ = 0;
	char error[256], yes = 1;
	struct iovec part = { &yes, 1 };
	uint64_t until = wire_until(MAKE_MS);
	struct wire_stream *stream = wire_stream_new(fd, link->kind);

	if (!stream)
		return;
	stream->carried = true;
	wire_socket_tune(fd, link->kind);
	if (link->kind == WIRE_TLS && !(stream->tls = wire_tls_server(stream, link->files, until, error)))
		goto refuse;
	if (!wire_stream_get(stream, &hello, sizeof(hello), until))
		goto refuse;
	for (unsigned n = 0; n < sizeof(hello.secret); n++)
		differ |= hello.secret[n] ^ link->stream->key[NAME_BYTES + n];
	if (differ || hello.count != bulk->count || !add_stream(link, hello.index, stream))
		goto refuse;
	if (bulk->made == bulk->count)
		set_state(bulk, BULK_READY);
	if (!wire_stream_put(stream, &part, 1, until))
		wire_kill(link, "a connection for bulk broke");
	return;
refuse:
	wire_stream_close(stream);
}

static void *
accept_main(void *argument)
{
	struct wire_link *link = argument;
	struct wire_bulk *bulk = link->bulk;
	uint64_t until = wire_until(2 * MAKE_MS);

	while (wire_alive(link) && wire_now() < until && bulk->made < bulk->count) {
		struct pollfd p = { .fd = bulk->listener, .events = POLLIN };
		if (poll(&p, 1, WIRE_LIVENESS_MS) != 1)
			continue;
		int connection = accept4(bulk->listener, NULL, NULL, SOCK_CLOEXEC);
		int fd = connection >= 0 ? take_descriptor(connection) : -1;
		if (connection >= 0)
			close(connection);
		if (fd >= 0)
			admit(link, fd);
	}
	if (bulk->made < bulk->count)
		set_state(bulk, BULK_FAILED);
	pthread_mutex_lock(&bulk->lock);
	close(bulk->listener);
	bulk->listener = -1;
	pthread_mutex_unlock(&bulk->lock);
	return NULL;
}

/* The worker's thread that receives calls it: it must not wait. */
static bool
listen_for_more(struct wire_link *link, unsigned count)
{
	struct wire_bulk *bulk = link->bulk;
	struct sockaddr_un un;
	socklen_t size = place_of(link->stream->key, &un);

	bulk->count = count;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&un, size) == 0 && listen(fd, WIRE_STREAMS_MAX) == 0;
	pthread_mutex_lock(&bulk->lock);
	bulk->listener = fd;
	pthread_mutex_unlock(&bulk->lock);
	if (!ok)
		return false;
	bulk->has_acceptor = pthread_create(&bulk->acceptor, NULL, accept_main, link) == 0;
	return bulk->has_acceptor;
}

void
wire_bulk_asked(struct wire_link *link, unsigned count)
{
	struct wire_bulk *bulk = link->bulk;

	if (link->client) {
		pthread_mutex_lock(&bulk->lock);
		if (bulk->state == BULK_ASKED)
			__atomic_store_n(&bulk->state, BULK_ANSWERED, __ATOMIC_RELEASE);
		pthread_cond_broadcast(&bulk->changed);
		pthread_mutex_unlock(&bulk->lock);
		return;
	}
	if (bulk->state != BULK_NONE)
		return; /* once is enough */
	set_state(bulk, BULK_ASKED);
	if (listen_for_more(link, count)) { /* else the client's wait ends, and it does without */
		__atomic_store_n(&link->streams_to_say, count, __ATOMIC_RELEASE);
		wire_wake_sender(link);
	}
}

/* ---- the worker that a further connection reached ------------------------------------------------------------------- */

static bool
is_further(int fd, uint64_t until)
{
	char magic[4];

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = wire_now();
		if (now >= until || poll(&p, 1, (int)((until - now) / 1000000) + 1) <= 0)
			return false;
		ssize_t got = recv(fd, magic, sizeof(magic), MSG_PEEK | MSG_DONTWAIT);
		if (got <= 0 || memcmp(magic, WIRE_BULK_MAGIC, (size_t)got) != 0)
			return false;
		if (got == sizeof(magic))
			return true;
		usleep(1000); /* it is readable, and yet not all there */
	}
}

bool
wire_bulk_hand_over(int fd, uint64_t until)
{
	uint8_t head[4 + NAME_BYTES];
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control) };
	struct sockaddr_un un;
	struct wire_stream plain = { .fd = fd };

	if (!is_further(fd, until))
		return false;
	int to = wire_stream_get(&plain, head, sizeof(head), until) ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
	if (to >= 0 && connect(to, (struct sockaddr *)&un, place_of(head + 4, &un)) == 0) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		sendmsg(to, &m, MSG_NOSIGNAL);
	}
	if (to >= 0)
		close(to);
	close(fd);
	return true;
}

/* ---- the client: connections that are made -------------------------------------------------------------------------- */

static unsigned
wished_streams(void)
{
	const char *wish = getenv("FARWARP_WIRE_STREAMS");
	cpu_set_t set;
	int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	if (wish && *wish >= '0' && *wish <= '9') {
		unsigned long number = strtoul(wish, NULL, 10);
		return number < WIRE_STREAMS_MAX ? (unsigned)number : WIRE_STREAMS_MAX;
	}
	return cpus < 2 ? 1 : cpus < 8 ? 2 : 4;
}

static bool
dial_one(struct wire_link *link, unsigned index)
{
	struct wire_bulk *bulk = link->bulk;
	struct bulk_hello hello = { .index = index, .count = bulk->count };
	struct iovec part = { &hello, sizeof(hello) };
	uint8_t before[4 + NAME_BYTES];
	uint64_t until = wire_until(MAKE_MS);
	char error[256], yes = 0;

	memcpy(before, WIRE_BULK_MAGIC, 4);
	memcpy(before + 4, link->stream->key, NAME_BYTES);
	memcpy(hello.secret, link->stream->key + NAME_BYTES, sizeof(hello.secret));
	struct wire_stream *stream = wire_dial(&link->address, link->limits, before, sizeof(before), until, error);
	if (stream && wire_stream_put(stream, &part, 1, until) && wire_stream_get(stream, &yes, 1, until) && yes == 1 &&
	    add_stream(link, index, stream))
		return true;
	wire_stream_close(stream);
	return false;
}

/* Asks for connections and makes them, without the lock. */
static bool
make_streams(struct wire_link *link)
{
	struct wire_bulk *bulk = link->bulk;
	uint64_t until = wire_until(MAKE_MS);

	bulk->count = wished_streams();
	if (!bulk->count)
		return false;
	__atomic_store_n(&link->streams_to_say, bulk->count, __ATOMIC_RELEASE);
	wire_send_now(link);
	pthread_mutex_lock(&bulk->lock);
	while (bulk->state == BULK_ASKED && wire_alive(link) && wire_now() < until)
		await_change(bulk);
	bool answered = bulk->state == BULK_ANSWERED;
	pthread_mutex_unlock(&bulk->lock);
	for (unsigned n = 0; answered && n < bulk->count; n++)
		answered = dial_one(link, n);
	return answered;
}

bool
wire_bulk_usable(struct wire_link *link)
{
	struct wire_bulk *bulk = link->bulk;

	if (!bulk || !link->client)
		return false;
	if (__atomic_load_n(&bulk->state, __ATOMIC_ACQUIRE) == BULK_READY)
		return true;
	pthread_mutex_lock(&bulk->lock);
	bool first = bulk->state == BULK_NONE;
	if (first)
		__atomic_store_n(&bulk->state, BULK_ASKED, __ATOMIC_RELEASE);
	while (!first && (bulk->state == BULK_ASKED || bulk->state == BULK_ANSWERED) && wire_alive(link))
		await_change(bulk);
	pthread_mutex_unlock(&bulk->lock);
	if (first)
		set_state(bulk, make_streams(link) ? BULK_READY : BULK_FAILED);
	return __atomic_load_n(&bulk->state, __ATOMIC_ACQUIRE) == BULK_READY;
}

/* ---- transfers ------------------------------------------------------------------------------------------------------ */

struct transfer {
	struct wire_link *link;
	bool sending;
	uint8_t *bytes;
	size_t size;
	wire_piece_fn piece;
	void *user;
	unsigned streams;
};

/* The part of a transfer that one connection carries. */
struct share {
	const struct transfer *transfer;
	unsigned index;
	bool ok;
	pthread_t thread;
};

static bool
move_piece(const struct transfer *t, unsigned index, size_t at, size_t size)
{
	struct wire_bulk *bulk = t->link->bulk;
	struct wire_stream *stream = bulk->streams[index];
	uint8_t *bytes = t->bytes ? t->bytes + at : bulk->pieces[t->sending][index];
	struct iovec part = { bytes, size };

	if (t->sending && !t->bytes)
		t->piece(t->user, at, bytes, size);
	bool ok = t->sending ? wire_stream_put(stream, &part, 1, 0) : wire_stream_get(stream, bytes, size, 0);
	if (!ok)
		wire_kill_stream(t->link, stream);
	else if (!t->sending && !t->bytes)
		t->piece(t->user, at, bytes, size);
	return ok;
}

static void *
move_share(void *argument)
{
	struct share *share = argument;
	const struct transfer *t = share->transfer;
	uint8_t **staging = &t->link->bulk->pieces[t->sending][share->index];

	if (!t->bytes && !*staging && !(*staging = aligned_alloc(4096, WIRE_PIECE))) {
		wire_kill(t->link, "out of memory");
		return NULL;
	}
	share->ok = true;
	for (size_t at = (size_t)share->index * WIRE_PIECE; share->ok && at < t->size; at += (size_t)t->streams * WIRE_PIECE)
		share->ok = move_piece(t, share->index, at, t->size - at < WIRE_PIECE ? t->size - at : WIRE_PIECE);
	return NULL;
}

static bool
move(struct transfer *t)
{
	struct share shares[WIRE_STREAMS_MAX];
	unsigned begun = 1;
	bool ok = true;

	t->streams = t->size >= WIRE_STRIPED ? t->link->bulk->count : 1;
	for (unsigned n = 0; n < t->streams; n++)
		shares[n] = (struct share){ .transfer = t, .index = n };
	for (; begun < t->streams; begun++)
		if (pthread_create(&shares[begun].thread, NULL, move_share, &shares[begun]) != 0)
			break;
	if (begun < t->streams) /* the other side has begun to share it so */
		wire_kill(t->link, "no thread for a copy");
	move_share(&shares[0]);
	for (unsigned n = 1; n < begun; n++)
		pthread_join(shares[n].thread, NULL);
	for (unsigned n = 0; n < begun; n++)
		ok &= shares[n].ok;
	return ok && begun == t->streams;
}

static bool
is_ready(const struct wire_link *link)
{
	return link->bulk && __atomic_load_n(&link->bulk->state, __ATOMIC_ACQUIRE) == BULK_READY;
}

bool
wire_bulk_begin(struct wire_link *link, uint64_t *number)
{
	if (!is_ready(link))
		return false;
	pthread_mutex_lock(&link->bulk->order.sending);
	*number = link->bulk->order.sent++;
	if (wire_alive(link))
		return true;
	pthread_mutex_unlock(&link->bulk->order.sending);
	return false;
}

bool
wire_bulk_send(struct wire_link *link, const void *bytes, size_t size, wire_piece_fn piece, void *user)
{
	struct transfer t = { link, true, (uint8_t *)(uintptr_t)bytes, size, piece, user, 0 };
	bool ok = move(&t);

	pthread_mutex_unlock(&link->bulk->order.sending);
	return ok;
}

bool
wire_bulk_receive(struct wire_link *link, uint64_t number, void *bytes, size_t size, wire_piece_fn piece, void *user)
{
	struct transfer t = { link, false, bytes, size, piece, user, 0 };
	struct wire_bulk *bulk = link->bulk;

	if (!is_ready(link)) {
		wire_kill(link, "the other side announced bytes on a connection that is not there");
		return false;
	}
	pthread_mutex_lock(&bulk->lock);
	while (bulk->order.received < number && wire_alive(link))
		await_change(bulk);
	bool ours = bulk->order.received == number;
	pthread_mutex_unlock(&bulk->lock);
	if (!ours)
		wire_kill(link, "the other side announced bytes twice");
	if (!ours || !wire_alive(link))
		return false;
	bool ok = move(&t);
	pthread_mutex_lock(&bulk->lock);
	bulk->order.received++;
	pthread_cond_broadcast(&bulk->changed);
	pthread_mutex_unlock(&bulk->lock);
	return ok;
}
