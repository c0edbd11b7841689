/*
 * Links: channels over a connection, memory that is passed, and how the end of the other side is noticed. Links without shared memory
 * are in carry.c.
 *
 * Over a unix socket travel only fixed messages with descriptors: a channel's two rings, memory, the end of a channel. Records never do.
 */
#include "wire/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum message_kind { MESSAGE_OPEN = 1, MESSAGE_CLOSE, MESSAGE_MEMORY, MESSAGE_DESCRIPTOR };

struct message {
	uint32_t kind, channel;
	uint64_t size, tag;
};

bool
wire_alive(const struct wire_link *link)
{
	return !__atomic_load_n(&link->dead, __ATOMIC_ACQUIRE);
}

const char *
wire_reason(const struct wire_link *link)
{
	return wire_alive(link) ? "" : link->reason;
}

void
wire_kill(struct wire_link *link, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&link->lock);
	bool first = !link->dead;
	if (first) { /* the reason stands there before anyone sees that the link is dead */
		va_start(args, format);
		vsnprintf(link->reason, sizeof(link->reason), format, args);
		va_end(args);
		__atomic_store_n(&link->dead, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&link->lock);
	if (!first)
		return;
	wire_stream_shut(link->stream);
	wire_bulk_shut(link);
	pthread_mutex_lock(&link->lock);
	for (struct wire_line *line = link->lines; line; line = line->next) {
		wire_wake(line->from.sleep);
		wire_wake(line->to.sleep);
	}
	pthread_cond_broadcast(&link->event_there);
	pthread_mutex_unlock(&link->lock);
	wire_wake(&link->sender_sleep);
	wire_wake(&link->receiver_sleep);
}

void
wire_kill_stream(struct wire_link *link, struct wire_stream *stream)
{
	int error = errno;
	const char *why = wire_stream_why(stream);

	if (why[0])
		wire_kill(link, "%s", why);
	else if (error)
		wire_kill(link, "the connection broke: %s", strerror(error));
	else
		wire_kill(link, "the other side closed the connection");
}

/* ---- messages with descriptors ------------------------------------------------------------------------------------- */

static bool
send_message(struct wire_link *link, const struct message *message, const int *fds, unsigned count)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec data = { (void *)(uintptr_t)message, sizeof(*message) };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

	if (count) {
		m.msg_control = control.bytes;
		m.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	pthread_mutex_lock(&link->lock);
	ssize_t sent;
	do
		sent = sendmsg(link->stream->fd, &m, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	pthread_mutex_unlock(&link->lock);
	if (sent == (ssize_t)sizeof(*message))
		return true;
	if (sent < 0 && (errno == ETOOMANYREFS || errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
		return false; /* nothing was sent: the link goes on */
	wire_kill(link, "the connection broke: %s", sent < 0 ? strerror(errno) : "a message was cut");
	return false;
}

/* The next message; its descriptors, at most 2, are the caller's. False: the link has ended. */
static bool
receive_message(struct wire_link *link, struct message *message, int fds[2])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	size_t at = 0;

	fds[0] = fds[1] = -1;
	while (at < sizeof(*message)) {
		struct iovec data = { (char *)message + at, sizeof(*message) - at };
		struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(link->stream->fd, &m, MSG_CMSG_CLOEXEC);
		if (got < 0 && errno == EINTR)
			continue;
		for (struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
			if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
				continue;
			size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t n = 0; n < count; n++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + n * sizeof(int), sizeof(fd));
				if (fds[0] < 0)
					fds[0] = fd;
				else if (fds[1] < 0)
					fds[1] = fd;
				else
					close(fd);
			}
		}
		if (got > 0 && m.msg_flags & MSG_CTRUNC) {
			wire_kill(link, "out of file descriptors");
			return false;
		}
		if (got <= 0) {
			wire_kill(link, got == 0 ? "the other side closed the connection" : "the connection broke: %s", strerror(errno));
			return false;
		}
		at += (size_t)got;
	}
	return true;
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

struct wire_line *
wire_line_new(struct wire_link *link, uint32_t id, int to_fd, int from_fd)
{
	struct wire_line *line = aligned_alloc(64, (sizeof(*line) + 63) & ~63ul);

	if (!line)
		return NULL;
	memset(line, 0, sizeof(*line));
	if (!wire_ring_map(&line->to, to_fd, link) || !wire_ring_map(&line->from, from_fd, link)) {
		if (line->to.shared) {
			line->to.fd = -1;
			wire_ring_unmap(&line->to);
		}
		free(line);
		return NULL;
	}
	line->channel = (struct wire_channel){ .link = link, .to = &line->to, .from = &line->from, .id = id };
	line->credit = WIRE_RING_BYTES;
	if (link->carried)
		line->to.sleep = &link->sender_sleep;
	return line;
}

void
wire_line_free(struct wire_line *line)
{
	wire_ring_unmap(&line->to);
	wire_ring_unmap(&line->from);
	free(line);
}

static void
add_line(struct wire_link *link, struct wire_line *line)
{
	pthread_mutex_lock(&link->lock);
	line->next = link->lines;
	link->lines = line;
	pthread_mutex_unlock(&link->lock);
}

static void
remove_line(struct wire_link *link, struct wire_line *line)
{
	pthread_mutex_lock(&link->lock);
	for (struct wire_line **at = &link->lines; *at; at = &(*at)->next)
		if (*at == line) {
			*at = line->next;
			break;
		}
	pthread_mutex_unlock(&link->lock);
}

static unsigned
line_count(struct wire_link *link)
{
	unsigned count = 0;

	pthread_mutex_lock(&link->lock);
	for (struct wire_line *line = link->lines; line; line = line->next)
		count++;
	pthread_mutex_unlock(&link->lock);
	return count;
}

struct wire_channel *
wire_channel_open(struct wire_link *link)
{
	if (!wire_alive(link) || line_count(link) >= WIRE_CHANNELS_MAX)
		return NULL;
	int fds[2] = { wire_ring_create(), wire_ring_create() };
	struct message message = { .kind = MESSAGE_OPEN, .channel = __atomic_add_fetch(&link->next_channel, 1, __ATOMIC_RELAXED) };
	struct wire_line *line = fds[0] >= 0 && fds[1] >= 0 ? wire_line_new(link, message.channel, fds[0], fds[1]) : NULL;
	if (!line) {
		for (unsigned n = 0; n < 2; n++)
			if (fds[n] >= 0)
				close(fds[n]);
		return NULL;
	}
	add_line(link, line);
	if (!link->carried && !send_message(link, &message, fds, 2)) {
		remove_line(link, line);
		wire_line_free(line);
		return NULL;
	}
	if (link->carried)
		wire_send_now(link); /* tells the other side */
	return &line->channel;
}

void
wire_channel_close(struct wire_channel *channel)
{
	struct wire_line *line = (struct wire_line *)channel;
	struct wire_link *link = channel ? channel->link : NULL;

	if (!channel)
		return;
	wire_ring_end(&line->to);
	if (link->carried) { /* the sender frees it when all has been sent; with a dead link, wire_close() */
		__atomic_store_n(&line->closed, true, __ATOMIC_RELEASE);
		wire_wake(&link->sender_sleep);
		return;
	}
	remove_line(link, line);
	wire_line_free(line);
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

bool
wire_can_share(const struct wire_link *link)
{
	return !link->carried;
}

bool
wire_share(struct wire_link *link, int fd, uint64_t size, uint64_t tag)
{
	struct message message = { .kind = MESSAGE_MEMORY, .size = size, .tag = tag };

	return !link->carried && wire_alive(link) && send_message(link, &message, &fd, 1);
}

bool
wire_give(struct wire_link *link, int fd, uint64_t tag)
{
	struct message message = { .kind = MESSAGE_DESCRIPTOR, .tag = tag };

	return !link->carried && wire_alive(link) && send_message(link, &message, &fd, 1);
}

/* ---- events -------------------------------------------------------------------------------------------------------- */

/* A message as an event; false: nothing for the caller, or the link died. */
static bool
take_message(struct wire_link *link, const struct message *message, const int fds[2], struct wire_event *event)
{
	struct stat st;

	switch (message->kind) {
	case MESSAGE_OPEN: {
		struct wire_line *line = fds[1] >= 0 && line_count(link) < WIRE_CHANNELS_MAX
			? wire_line_new(link, message->channel, fds[1], fds[0]) : NULL;
		if (!line)
			break;
		add_line(link, line);
		*event = (struct wire_event){ .kind = WIRE_EVENT_CHANNEL, .channel = &line->channel, .fd = -1 };
		return true;
	}
	case MESSAGE_MEMORY:
		if (fds[0] < 0 || fds[1] >= 0 || fstat(fds[0], &st) != 0 || (uint64_t)st.st_size != message->size ||
		    !(fcntl(fds[0], F_GET_SEALS) & F_SEAL_SHRINK))
			break;
		*event = (struct wire_event){ .kind = WIRE_EVENT_MEMORY, .fd = fds[0], .size = message->size, .tag = message->tag };
		return true;
	case MESSAGE_DESCRIPTOR:
		if (fds[0] < 0 || fds[1] >= 0)
			break;
		*event = (struct wire_event){ .kind = WIRE_EVENT_DESCRIPTOR, .fd = fds[0], .tag = message->tag };
		return true;
	default:
		break;
	}
	for (unsigned n = 0; n < 2; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	wire_kill(link, "the other side sent a message that makes no sense");
	return false;
}

bool
wire_event_wait(struct wire_link *link, struct wire_event *event)
{
	struct message message;
	int fds[2];

	if (!link->carried)
		return receive_message(link, &message, fds) && take_message(link, &message, fds, event);
	pthread_mutex_lock(&link->lock);
	while (!link->event_count && wire_alive(link))
		pthread_cond_wait(&link->event_there, &link->lock);
	bool there = link->event_count > 0;
	if (there) {
		*event = link->events[0];
		memmove(link->events, link->events + 1, --link->event_count * sizeof(link->events[0]));
	}
	pthread_mutex_unlock(&link->lock);
	return there;
}

/* ---- beginning and end --------------------------------------------------------------------------------------------- */

/* A client's side of a shared link: the worker sends nothing, so all that comes is the end. */
static void *
watch(void *argument)
{
	struct wire_link *link = argument;
	char byte;
	ssize_t got;

	do
		got = recv(link->stream->fd, &byte, 1, 0);
	while (got < 0 && errno == EINTR);
	wire_kill(link, got > 0 ? "the other side sent what makes no sense" : "the other side closed the connection");
	return NULL;
}

static struct wire_link *
begin(struct wire_stream *stream, bool client, char error[256])
{
	struct wire_link *link = aligned_alloc(WIRE_LINE, (sizeof(*link) + WIRE_LINE - 1) & ~(size_t)(WIRE_LINE - 1));

	if (!link) {
		wire_stream_close(stream);
		snprintf(error, 256, "out of memory");
		return NULL;
	}
	memset(link, 0, sizeof(*link));
	*link = (struct wire_link){ .kind = stream->kind, .stream = stream, .client = client, .carried = stream->carried, .heard_ns = wire_now(),
		.bell = -1, .silence_ns = WIRE_SILENCE_MS * 1000000ull };
	pthread_mutex_init(&link->lock, NULL);
	pthread_mutex_init(&link->sending, NULL);
	pthread_mutex_init(&link->receiving, NULL);
	pthread_cond_init(&link->event_there, NULL);
	return link;
}

/* Starts its threads. */
static struct wire_link *
start(struct wire_link *link, char error[256])
{
	if (link->carried)
		link->has_sender = wire_carry_begin(link);
	else if (link->client)
		link->has_receiver = pthread_create(&link->receiver, NULL, watch, link) == 0;
	if ((link->carried && !link->has_sender) || (!link->carried && link->client && !link->has_receiver)) {
		snprintf(error, 256, "no thread for the connection");
		wire_close(link);
		return NULL;
	}
	return link;
}

struct wire_link *
wire_adopt(struct wire_stream *stream, const struct wire_tls_files *files, char error[256])
{
	struct wire_link *link = begin(stream, false, error);

	if (link)
		link->files = files;
	return link ? start(link, error) : NULL;
}

struct wire_link *
wire_begin_client(struct wire_stream *stream, const struct wire_address *address, struct wire_limits *limits, char error[256])
{
	struct wire_link *link = begin(stream, true, error);

	if (!link) {
		free(limits);
		return NULL;
	}
	link->address = *address;
	link->limits = limits;
	return start(link, error);
}

void
wire_close(struct wire_link *link)
{
	if (!link)
		return;
	wire_kill(link, "closed");
	if (link->has_receiver)
		pthread_join(link->receiver, NULL);
	if (link->carried && link->has_sender)
		pthread_join(link->sender, NULL);
	wire_bulk_free(link);
	while (link->lines) {
		struct wire_line *line = link->lines;
		link->lines = line->next;
		wire_line_free(line);
	}
	wire_stream_close(link->stream);
	if (link->bell >= 0)
		close(link->bell);
	free(link->intake.bytes);
	free(link->limits);
	free(link);
}

void
wire_after_fork(struct wire_link *link)
{
	if (!link)
		return;
	wire_bulk_after_fork(link);
	wire_delay_after_fork(link->stream->delay);
	close(link->stream->fd);
	link->stream->fd = -1;
	link->dead = 1;
}

bool
wire_peer(const struct wire_link *link, int *pid, unsigned *uid)
{
	struct ucred credentials;
	socklen_t size = sizeof(credentials);

	if (link->kind != WIRE_UNIX || getsockopt(link->stream->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
		return false;
	*pid = credentials.pid;
	*uid = credentials.uid;
	return true;
}

void
wire_counts(const struct wire_link *link, struct wire_counts *counts)
{
	*counts = link->counts;
}
