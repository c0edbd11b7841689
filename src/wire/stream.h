/*
 * Streams: the bytes of one connection, in clear or through TLS. Links (link.h) are made of them.
 *
 * One thread at a time takes from a stream and one at a time puts into it; the two may differ. A stream's end is told apart from
 * nothing being there. No function raises SIGPIPE.
 */
#ifndef WIRE_STREAM_H
#define WIRE_STREAM_H

#include <pthread.h>
#include <sys/uio.h>

#include "wire/wire.h"

#define WIRE_KEY_BYTES 32 /* 16 that name a link among a host's workers, 16 that only its two sides know */

struct wire_tls;
struct wire_delay;

struct wire_stream {
	int fd;
	enum wire_kind kind;
	bool carried;              /* no shared memory: the bytes of records travel in it */
	struct wire_tls *tls;      /* NULL: in clear */
	struct wire_delay *delay;  /* NULL: none injected */
	uint8_t key[WIRE_KEY_BYTES];
};

/* stream.c. The descriptor is the stream's from then on; NULL: out of memory, and it is closed. */
struct wire_stream *wire_stream_new(int fd, enum wire_kind kind);
/* Up to `size` bytes that are there: their number, 0: nothing now, -1: the stream has ended, with errno (0: it was closed). */
long wire_stream_take(struct wire_stream *stream, void *bytes, size_t size);
/* Exactly `size` bytes; waits. until: wire_now() at most, 0: for ever. False: ended, or too late (ETIMEDOUT). */
bool wire_stream_get(struct wire_stream *stream, void *bytes, size_t size, uint64_t until);
/* All of the parts, which are changed on the way; waits. False as above. */
bool wire_stream_put(struct wire_stream *stream, struct iovec *parts, unsigned count, uint64_t until);
/* The same below TLS. */
bool wire_socket_put(int fd, struct iovec *parts, unsigned count, uint64_t until);
/* Waits until wire_stream_take() may find something, `bell` (-1: none) rings, or the time is over. */
void wire_stream_await(struct wire_stream *stream, int bell, int timeout_ms);
/* Ends it for both directions, from any thread: who waits on it returns. */
void wire_stream_shut(struct wire_stream *stream);
/* Why it ended, with what can be done about it: "" if the sentence is errno's. */
const char *wire_stream_why(const struct wire_stream *stream);
uint64_t wire_until(int timeout_ms);

/* tls.c. Like those above, for stream->tls. */
struct wire_tls *wire_tls_client(struct wire_stream *stream, const char *host, uint64_t until, char error[256]);
struct wire_tls *wire_tls_server(struct wire_stream *stream, const struct wire_tls_files *files, uint64_t until, char error[256]);
long wire_tls_take(struct wire_stream *stream, void *bytes, size_t size);
bool wire_tls_get(struct wire_stream *stream, void *bytes, size_t size); /* without a time limit */
bool wire_tls_put(struct wire_stream *stream, struct iovec *parts, unsigned count, uint64_t until);
bool wire_tls_pending(const struct wire_tls *tls);
const char *wire_tls_why(const struct wire_tls *tls);
void wire_tls_free(struct wire_tls *tls);

/* delay.c: puts a delay line between the stream and its connection. `limits` is shared by the connections of one link. */
struct wire_limits {
	uint64_t half_rtt_ns, bytes_per_s;
	uint64_t free_ns[2]; /* atomic: when each direction's wire is free again */
};
bool wire_delay_begin(struct wire_stream *stream, struct wire_limits *limits);
void wire_delay_end(struct wire_delay *delay);
void wire_delay_after_fork(struct wire_delay *delay);

#endif
