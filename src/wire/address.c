/*
 * Addresses of servers: text to struct and back, sockets that listen and connect, and the bounded hello before anything else.
 *
 * A hello is its size (4 bytes, little-endian, top bit: HELLO_CARRIED) and its bytes; so is the answer, then the link's key.
 */
#include "wire/link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define HELLO_CARRIED 0x80000000u /* in a hello's size: the client wants records carried, not in shared memory */

static const struct {
	const char *name;
	enum wire_kind kind;
} kinds[] = { { "unix:", WIRE_UNIX }, { "vsock:", WIRE_VSOCK }, { "tcp:", WIRE_TCP }, { "tls:", WIRE_TLS } };

static bool
read_number(const char *text, unsigned long max, unsigned long *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoul(text, &end, 10);
	return !errno && !*end && *number <= max;
}

/* HOST, HOST:PORT, [HOST]:PORT */
static bool
read_host(const char *rest, struct wire_address *address, char error[256])
{
	const char *port = NULL, *end;
	unsigned long number = WIRE_PORT;

	if (*rest == '[') {
		end = strchr(++rest, ']');
		if (!end || (end[1] && end[1] != ':')) {
			snprintf(error, 256, "\"%.100s\": an address in brackets ends with ]:PORT", rest);
			return false;
		}
		port = end[1] ? end + 2 : NULL;
	} else {
		end = strrchr(rest, ':');
		port = end ? end + 1 : NULL;
		end = end ? end : rest + strlen(rest);
	}
	if (end == rest || (size_t)(end - rest) >= sizeof(address->host)) {
		snprintf(error, 256, "\"%.100s\": no host", rest);
		return false;
	}
	if (port && (!read_number(port, 65535, &number) || number == 0)) {
		snprintf(error, 256, "\"%.100s\": the port is a number from 1 to 65535", port);
		return false;
	}
	memcpy(address->host, rest, (size_t)(end - rest));
	address->host[end - rest] = 0;
	address->port = (uint16_t)number;
	return true;
}

static bool
read_vsock(const char *rest, struct wire_address *address, char error[256])
{
	const char *colon = strchr(rest, ':');
	unsigned long cid, port = WIRE_PORT;
	char text[16] = "";

	if (colon && (size_t)(colon - rest) < sizeof(text))
		memcpy(text, rest, (size_t)(colon - rest));
	else if (!colon && strlen(rest) < sizeof(text))
		memcpy(text, rest, strlen(rest));
	if (!read_number(text, UINT32_MAX, &cid) || (colon && !read_number(colon + 1, UINT32_MAX - 1, &port))) {
		snprintf(error, 256, "\"vsock:%.100s\" is not vsock:CID:PORT", rest);
		return false;
	}
	snprintf(address->host, sizeof(address->host), "%lu", cid);
	address->vport = (uint32_t)port;
	return true;
}

bool
wire_address_parse(const char *text, struct wire_address *address, char error[256])
{
	*address = (struct wire_address){ 0 };
	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++) {
		size_t length = strlen(kinds[n].name);
		if (strncmp(text, kinds[n].name, length) != 0)
			continue;
		const char *rest = text + length;
		address->kind = kinds[n].kind;
		if (address->kind == WIRE_TLS && !wire_tls_usable(error))
			return false;
		if (address->kind == WIRE_VSOCK)
			return read_vsock(rest, address, error);
		if (address->kind != WIRE_UNIX)
			return read_host(rest, address, error);
		if (!*rest || strlen(rest) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
			snprintf(error, 256, "\"%.150s\": a socket's path has 1 to %zu characters", text, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
			return false;
		}
		memcpy(address->host, rest, strlen(rest) + 1);
		return true;
	}
	snprintf(error, 256, "\"%.100s\" is no address: unix:PATH, tcp:HOST[:PORT], tls:HOST[:PORT] or vsock:CID:PORT", text);
	return false;
}

size_t
wire_address_format(const struct wire_address *address, char *text, size_t size)
{
	bool brackets = strchr(address->host, ':') != NULL;

	if (address->kind == WIRE_UNIX)
		return (size_t)snprintf(text, size, "unix:%s", address->host);
	if (address->kind == WIRE_VSOCK)
		return (size_t)snprintf(text, size, "vsock:%s:%u", address->host, address->vport);
	return (size_t)snprintf(text, size, "%s:%s%s%s:%u", address->kind == WIRE_TLS ? "tls" : "tcp", brackets ? "[" : "", address->host,
	                        brackets ? "]" : "", address->port);
}

/* ---- sockets ------------------------------------------------------------------------------------------------------- */

static socklen_t
unix_address(const struct wire_address *address, struct sockaddr_un *un)
{
	size_t length = strlen(address->host);

	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(un->sun_path, address->host, length);
	if (un->sun_path[0] == '@')
		un->sun_path[0] = 0;
	else
		length++;
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

void
wire_socket_tune(int fd, enum wire_kind kind)
{
	int one = 1, timeout = WIRE_SILENCE_MS;

	if (kind != WIRE_TCP && kind != WIRE_TLS)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

/* Connects within the time; the socket, or -1 with errno. */
static int
connect_in_time(int family, int type, const struct sockaddr *address, socklen_t length, int timeout_ms)
{
	int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
	socklen_t size = sizeof(error);

	if (fd < 0)
		return -1;
	int status = connect(fd, address, length);
	/* Of a unix socket: so many are waiting there that no more may (connect(2)). */
	for (uint64_t until = wire_until(timeout_ms); status != 0 && errno == EAGAIN && wire_now() < until;) {
		usleep(2000);
		status = connect(fd, address, length);
	}
	if (status != 0) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		if (errno != EINPROGRESS)
			error = errno;
		else if (poll(&p, 1, timeout_ms) != 1)
			error = ETIMEDOUT;
		else
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	}
	if (error) {
		close(fd);
		errno = error;
		return -1;
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	return fd;
}

static int
dial(const struct wire_address *address, int timeout_ms, const char **why)
{
	struct sockaddr_un un;
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_port = address->vport, .svm_cid = (unsigned)strtoul(address->host, NULL, 10) };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	char port[8];
	int fd = -1;

	*why = NULL;
	if (address->kind == WIRE_UNIX)
		return connect_in_time(AF_UNIX, SOCK_STREAM, (struct sockaddr *)&un, unix_address(address, &un), timeout_ms);
	if (address->kind == WIRE_VSOCK)
		return connect_in_time(AF_VSOCK, SOCK_STREAM, (struct sockaddr *)&vm, sizeof(vm), timeout_ms);
	snprintf(port, sizeof(port), "%u", address->port);
	int status = getaddrinfo(address->host, port, &hints, &list);
	if (status) {
		*why = gai_strerror(status);
		return -1;
	}
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = connect_in_time(a->ai_family, SOCK_STREAM, a->ai_addr, a->ai_addrlen, timeout_ms);
	int error = errno;
	freeaddrinfo(list);
	errno = error;
	return fd;
}

struct wire_stream *
wire_dial(const struct wire_address *address, struct wire_limits *limits, const void *before, size_t size, uint64_t until, char error[256])
{
	char name[300], reason[256];
	const char *why;
	struct iovec part = { (void *)(uintptr_t)before, size };
	uint64_t now = wire_now();

	wire_address_format(address, name, sizeof(name));
	int fd = dial(address, now < until ? (int)((until - now) / 1000000) : 0, &why);
	if (fd < 0) {
		snprintf(error, 256, "cannot reach the server %.120s: %s; is farwarp serve running there?", name, why ? why : strerror(errno));
		return NULL;
	}
	wire_socket_tune(fd, address->kind);
	struct wire_stream *stream = wire_stream_new(fd, address->kind);
	if (!stream || (limits && !wire_delay_begin(stream, limits))) {
		snprintf(error, 256, "out of memory or descriptors");
		wire_stream_close(stream);
		return NULL;
	}
	stream->carried |= limits != NULL;
	if (size && !wire_stream_put(stream, &part, 1, until)) {
		snprintf(error, 256, "the server %.120s closed the connection", name);
		wire_stream_close(stream);
		return NULL;
	}
	if (address->kind == WIRE_TLS && !(stream->tls = wire_tls_client(stream, address->host, until, reason))) {
		snprintf(error, 256, "%.60s: %.190s", name, reason);
		wire_stream_close(stream);
		return NULL;
	}
	return stream;
}

/* What is injected; NULL: nothing. */
static struct wire_limits *
wished_limits(void)
{
	const char *rtt = getenv("FARWARP_WIRE_RTT_US"), *rate = getenv("FARWARP_WIRE_MBPS");
	uint64_t half = rtt ? strtoull(rtt, NULL, 10) * 500 : 0, bytes = rate ? strtoull(rate, NULL, 10) * 1000000 : 0;
	struct wire_limits *limits = half || bytes ? calloc(1, sizeof(*limits)) : NULL;

	if (limits)
		*limits = (struct wire_limits){ .half_rtt_ns = half, .bytes_per_s = bytes };
	return limits;
}

struct wire_link *
wire_connect(const struct wire_address *address, const void *hello, size_t hello_size, void *reply, size_t *reply_size, int timeout_ms,
             char error[256])
{
	char name[300];
	uint64_t until = wire_until(timeout_ms);
	struct wire_limits *limits = wished_limits();
	struct wire_stream *stream = wire_dial(address, limits, NULL, 0, until, error);

	size_t capacity = *reply_size;
	*reply_size = 0;
	if (!stream) {
		free(limits);
		return NULL;
	}
	uint32_t size = (uint32_t)hello_size | (stream->carried ? HELLO_CARRIED : 0);
	struct iovec parts[2] = { { &size, sizeof(size) }, { (void *)(uintptr_t)hello, hello_size } };
	if (hello_size <= WIRE_HELLO_MAX && wire_stream_put(stream, parts, 2, until) && wire_stream_get(stream, &size, sizeof(size), until) &&
	    size <= capacity && wire_stream_get(stream, reply, size, until)) {
		*reply_size = size; /* also if no key follows: another version may have none */
		if (wire_stream_get(stream, stream->key, sizeof(stream->key), until))
			return wire_begin_client(stream, address, limits, error);
	}
	wire_address_format(address, name, sizeof(name));
	if (wire_stream_why(stream)[0])
		snprintf(error, 256, "the server %.60s: %.180s", name, wire_stream_why(stream));
	else
		snprintf(error, 256, "the server %.120s does not answer as farwarp serve does%s", name, wire_now() >= until ? " (time-out)"
			: ": it closed the connection; it may be full, or want tls: in place of tcp:");
	wire_stream_close(stream);
	free(limits);
	return NULL;
}

/* ---- the worker's side of a beginning ------------------------------------------------------------------------------- */

struct wire_stream *
wire_accept(int fd, enum wire_kind kind, const struct wire_tls_files *files, int timeout_ms, char error[256])
{
	uint64_t until = wire_until(timeout_ms);

	error[0] = 0;
	if (wire_bulk_hand_over(fd, until))
		return NULL;
	struct wire_stream *stream = wire_stream_new(fd, kind);
	if (!stream) {
		snprintf(error, 256, "out of memory");
		return NULL;
	}
	wire_socket_tune(fd, kind);
	if (kind == WIRE_TLS && !(stream->tls = wire_tls_server(stream, files, until, error))) {
		wire_stream_close(stream);
		return NULL;
	}
	return stream;
}

long
wire_hello_read(struct wire_stream *stream, uint8_t hello[WIRE_HELLO_MAX], int timeout_ms, char error[256])
{
	uint64_t until = wire_until(timeout_ms);
	uint32_t size = 0;

	bool begun = wire_stream_get(stream, &size, sizeof(size), until);
	if (begun && size & HELLO_CARRIED) {
		stream->carried = true;
		size &= ~HELLO_CARRIED;
	}
	if (!begun || size > WIRE_HELLO_MAX || !wire_stream_get(stream, hello, size, until)) {
		if (size > WIRE_HELLO_MAX)
			snprintf(error, 256, "a hello of %u bytes: no farwarp client", size);
		else
			snprintf(error, 256, "no hello in time (%u bytes announced)%s%.150s", size, wire_stream_why(stream)[0] ? ": " : "",
			         wire_stream_why(stream));
		return -1;
	}
	return (long)size;
}

bool
wire_hello_answer(struct wire_stream *stream, const void *reply, size_t size)
{
	uint32_t length = (uint32_t)size;
	struct iovec parts[3] = { { &length, sizeof(length) }, { (void *)(uintptr_t)reply, size }, { stream->key, sizeof(stream->key) } };

	return getrandom(stream->key, sizeof(stream->key), 0) == (ssize_t)sizeof(stream->key) &&
	       wire_stream_put(stream, parts, 3, wire_until(5000));
}

/* Whether a unix socket's path is a socket that nobody listens on any more. */
static bool
is_stale(const struct wire_address *address)
{
	struct sockaddr_un un;
	struct stat st;

	if (address->host[0] == '@' || stat(address->host, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	int fd = connect_in_time(AF_UNIX, SOCK_STREAM, (struct sockaddr *)&un, unix_address(address, &un), 1000);
	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == ECONNREFUSED;
}

int
wire_listen(const struct wire_address *address, char error[256])
{
	struct sockaddr_un un;
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_port = address->vport, .svm_cid = (unsigned)strtoul(address->host, NULL, 10) };
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list = NULL;
	const struct sockaddr *where = (struct sockaddr *)&un;
	socklen_t length = 0;
	char name[300], port[8];
	int one = 1, family = AF_UNIX;

	wire_address_format(address, name, sizeof(name));
	if (address->kind == WIRE_UNIX) {
		length = unix_address(address, &un);
		if (is_stale(address))
			unlink(address->host);
	} else if (address->kind == WIRE_VSOCK) {
		family = AF_VSOCK;
		where = (struct sockaddr *)&vm;
		length = sizeof(vm);
	} else {
		snprintf(port, sizeof(port), "%u", address->port);
		int status = getaddrinfo(address->host, port, &hints, &list);
		if (status) {
			snprintf(error, 256, "cannot listen on %.120s: %s", name, gai_strerror(status));
			return -1;
		}
		family = list->ai_family;
		where = list->ai_addr;
		length = list->ai_addrlen;
	}
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* The socket is for its owner alone; who wants to share it changes its mode or its folder's. */
	mode_t old = umask(0177);
	bool ok = fd >= 0 && bind(fd, where, length) == 0 && listen(fd, 128) == 0;
	umask(old);
	if (!ok) {
		snprintf(error, 256, "cannot listen on %.120s: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	if (list)
		freeaddrinfo(list);
	return fd;
}
