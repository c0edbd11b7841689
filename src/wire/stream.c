/*
 * Streams over sockets: bounded waits, no signals. See stream.h; TLS is in tls.c.
 */
#include "wire/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/link.h"

struct wire_stream *
wire_stream_new(int fd, enum wire_kind kind)
{
	struct wire_stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		close(fd);
		return NULL;
	}
	stream->fd = fd;
	stream->kind = kind;
	stream->carried = kind != WIRE_UNIX;
	return stream;
}

void
wire_stream_close(struct wire_stream *stream)
{
	if (!stream)
		return;
	wire_tls_free(stream->tls);
	close(stream->fd);
	wire_delay_end(stream->delay);
	free(stream);
}

void
wire_stream_shut(struct wire_stream *stream)
{
	shutdown(stream->fd, SHUT_RDWR);
}

uint64_t
wire_until(int timeout_ms)
{
	return wire_now() + (uint64_t)timeout_ms * 1000000;
}

const char *
wire_stream_why(const struct wire_stream *stream)
{
	return stream->tls ? wire_tls_why(stream->tls) : "";
}

long
wire_stream_take(struct wire_stream *stream, void *bytes, size_t size)
{
	if (stream->tls)
		return wire_tls_take(stream, bytes, size);
	for (;;) {
		ssize_t got = recv(stream->fd, bytes, size, MSG_DONTWAIT);
		if (got > 0)
			return got;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got == 0)
			errno = 0;
		return -1;
	}
}

/* Waits for an event of the socket. False, with ETIMEDOUT: too late. */
static bool
ready(int fd, short events, uint64_t until)
{
	struct pollfd p = { .fd = fd, .events = events };
	uint64_t now = until ? wire_now() : 0;

	if (until && now >= until) {
		errno = ETIMEDOUT;
		return false;
	}
	poll(&p, 1, until ? (int)((until - now) / 1000000) + 1 : -1);
	return true;
}

bool
wire_stream_get(struct wire_stream *stream, void *bytes, size_t size, uint64_t until)
{
	if (stream->tls && !until)
		return wire_tls_get(stream, bytes, size);
	for (size_t at = 0; at < size;) {
		long got;
		if (!until) { /* as many at a time as there are */
			got = recv(stream->fd, (char *)bytes + at, size - at, MSG_WAITALL);
			if (got < 0 && errno == EINTR)
				continue;
			if (got == 0)
				errno = 0;
			if (got <= 0)
				return false;
		} else {
			got = wire_stream_take(stream, (char *)bytes + at, size - at);
		}
		if (got < 0 || (got == 0 && !ready(stream->fd, POLLIN, until)))
			return false;
		at += (size_t)got;
	}
	return true;
}

bool
wire_stream_put(struct wire_stream *stream, struct iovec *parts, unsigned count, uint64_t until)
{
	return stream->tls ? wire_tls_put(stream, parts, count, until) : wire_socket_put(stream->fd, parts, count, until);
}

bool
wire_socket_put(int fd, struct iovec *parts, unsigned count, uint64_t until)
{
	while (count) {
		struct msghdr m = { .msg_iov = parts, .msg_iovlen = count };
		ssize_t sent = sendmsg(fd, &m, MSG_NOSIGNAL | (until ? MSG_DONTWAIT : 0));
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN && ready(fd, POLLOUT, until))
			continue;
		if (sent < 0)
			return false;
		size_t bytes = (size_t)sent;
		for (; count && bytes >= parts->iov_len; count--)
			bytes -= (parts++)->iov_len;
		if (count) {
			parts->iov_base = (char *)parts->iov_base + bytes;
			parts->iov_len -= bytes;
		}
	}
	return true;
}

void
wire_stream_await(struct wire_stream *stream, int bell, int timeout_ms)
{
	struct pollfd p[2] = { { .fd = stream->fd, .events = POLLIN }, { .fd = bell, .events = POLLIN } };
	uint64_t count;

	if (stream->tls && wire_tls_pending(stream->tls))
		return;
	if (poll(p, 2, timeout_ms) > 0 && p[1].revents & POLLIN && read(bell, &count, sizeof(count)) < 0)
		return; /* another one has heard it */
}
