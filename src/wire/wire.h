/*
 * Links and rings: bytes between a client process and the worker that serves it. Knows nothing of calls.
 *
 * A link is one connection (unix socket, vsock, TCP, TLS). Over it run channels, one a client thread: a pair of rings of records, `to`
 * the worker and `from` it. On one host (unix) both rings lie in memory that the two processes share; elsewhere each side has its own
 * and a thread carries the bytes, so that who uses a ring never makes a system call to send. Records of one ring arrive in order; what
 * the order between rings is, says the ticket in each record (the caller's; see src/server).
 *
 * The other side is not trusted: a record's header is copied before it is checked, lengths are checked against what the ring holds, a
 * first bad byte kills the link. Its payload may change while it is read (shared memory): read each value once, through fw_cursor over a
 * copy, or be indifferent to its value.
 *
 * Death of the other side is noticed in every wait within WIRE_LIVENESS_MS (a closed or reset socket, no heartbeat over TCP): then
 * functions answer NULL or false, and wire_reason() says why. A link never comes back.
 */
#ifndef WIRE_WIRE_H
#define WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC; in a signal handler too. */
uint64_t wire_now(void);

#define WIRE_RING_BYTES (4u << 20) /* of one direction of a channel */
#define WIRE_PAYLOAD_MAX (1u << 20) /* of a record */
#define WIRE_LIVENESS_MS 100
#define WIRE_SILENCE_MS 10000 /* TCP: no heartbeat for so long is death */
#define WIRE_HELLO_MAX 4096
#define WIRE_CHANNELS_MAX 1024

struct wire_link;
struct wire_ring;
struct wire_stream;

/* What stands before each record. size is of the payload, in bytes; records begin at multiples of 32. */
struct wire_record {
	uint32_t size;
	uint16_t kind, flags; /* the caller's */
	uint64_t ticket;      /* the caller's: place in the order of all channels */
	uint64_t context;     /* the caller's */
	uint64_t more;        /* the caller's */
	uint8_t payload[];
};

struct wire_channel {
	struct wire_link *link;
	struct wire_ring *to, *from; /* seen from this side: what it writes, what it reads */
	uint32_t id;
	void *user;
};

/* ---- rings --------------------------------------------------------------------------------------------------------- */

/* Room for a record with up to `size` bytes of payload (at most WIRE_PAYLOAD_MAX); waits while the ring is full. NULL: link dead.
 * One thread at a time writes a ring. Nothing is seen before wire_publish(). Neither makes a system call when there is room and
 * the reader is awake or naps for a bounded time; a reader that sleeps after a long silence is woken once. */
struct wire_record *wire_reserve(struct wire_ring *ring, uint32_t size);
/* Publishes it; its size may have been made smaller than what was reserved. */
void wire_publish(struct wire_ring *ring, struct wire_record *record);
/* A record will be written soon: its place, which the reader has had last, comes to this core meanwhile. */
void wire_soon(const struct wire_ring *ring);
/* The same, and wakes a napping reader, or sends at once: for a record whose answer is awaited. */
void wire_publish_wake(struct wire_ring *ring, struct wire_record *record);

/* The oldest record: *header is a checked copy, the result points to its payload in the ring until wire_release(). NULL if none is
 * there, or the link is dead (wire_alive() tells). */
const uint8_t *wire_peek(struct wire_ring *ring, struct wire_record *header);
/* The same, but waits: spins, then naps, then sleeps. NULL: link dead, or timeout_ms (-1: none) passed. */
const uint8_t *wire_wait(struct wire_ring *ring, struct wire_record *header, int timeout_ms);
/* Gives the peeked record's room back. */
void wire_release(struct wire_ring *ring);

/* ---- links --------------------------------------------------------------------------------------------------------- */

enum wire_kind { WIRE_UNIX, WIRE_VSOCK, WIRE_TCP, WIRE_TLS };

struct wire_address {
	enum wire_kind kind;
	char host[256]; /* path of a unix socket ("@name": abstract), host name or address, context id */
	uint16_t port;  /* WIRE_PORT if none was given; vsock: 32 bits in vport */
	uint32_t vport;
};
#define WIRE_PORT 7749

/* unix:PATH, vsock:CID:PORT, tcp:HOST[:PORT], tls:HOST[:PORT], [IPv6] in brackets. False with a sentence in error[256]. */
bool wire_address_parse(const char *text, struct wire_address *address, char error[256]);
size_t wire_address_format(const struct wire_address *address, char *text, size_t size);

/*
 * Connects, sends the hello (at most WIRE_HELLO_MAX bytes), and awaits the answer, `timeout_ms` in all. *reply_size: in capacity, out
 * size. NULL with a sentence in error[256] that names the address and the reason; *reply_size is then 0, or the answer was there and no
 * link came after it, as another version's may not.
 */
struct wire_link *wire_connect(const struct wire_address *address, const void *hello, size_t hello_size, void *reply, size_t *reply_size,
                               int timeout_ms, char error[256]);

/* A listening socket, close-on-exec; -1 with a sentence. A stale unix socket file is replaced, a live one is not. */
int wire_listen(const struct wire_address *address, char error[256]);

/* What a TLS server shows and whom it lets in: PEM files. */
struct wire_tls_files {
	const char *cert, *key;
	const char *client_ca; /* who signed the certificates that clients must show; NULL: they need none */
};
/* Whether these files can be used; a sentence if not. */
bool wire_tls_check(const struct wire_tls_files *files, char error[256]);
/*
 * On an accepted connection, whose descriptor is the stream's from then on: the TLS handshake if it is WIRE_TLS, within timeout_ms. NULL
 * with a sentence; NULL with an empty one: it belongs to a link of another worker, which has it now.
 */
struct wire_stream *wire_accept(int fd, enum wire_kind kind, const struct wire_tls_files *files, int timeout_ms, char error[256]);
void wire_stream_close(struct wire_stream *stream);
/* The bounded hello, within timeout_ms; its size, or -1 with a sentence. Allocates nothing. */
long wire_hello_read(struct wire_stream *stream, uint8_t hello[WIRE_HELLO_MAX], int timeout_ms, char error[256]);
bool wire_hello_answer(struct wire_stream *stream, const void *reply, size_t size);
/* Makes a link of a connection whose hello was answered. The stream is the link's from then on, also on failure. `files` outlives it. */
struct wire_link *wire_adopt(struct wire_stream *stream, const struct wire_tls_files *files, char error[256]);

/* ---- certificates --------------------------------------------------------------------------------------------------- */

#define WIRE_PATH 4096
#define WIRE_FINGERPRINT 72 /* "sha256:" and 64 hexadecimal digits */

struct wire_certificate {
	char cert[WIRE_PATH], key[WIRE_PATH]; /* files */
	char fingerprint[WIRE_FINGERPRINT];
};
/* Whether this build and this machine have TLS; a sentence if not. */
bool wire_tls_usable(char error[256]);
/*
 * DIR/cert.pem and DIR/key.pem: what is there, else a new EC key and a certificate of it, signed by itself, for this machine's names and
 * `host` (may be NULL), valid for so many days. False with a sentence.
 */
bool wire_certificate_make(const char *folder, const char *host, int days, struct wire_certificate *made, char error[256]);
bool wire_fingerprint(const char *path, char text[WIRE_FINGERPRINT], char error[256]);

/* ---- bulk ------------------------------------------------------------------------------------------------------------ */

/*
 * Bytes of large copies go beside the rings, over connections of their own, straight from memory and into it. Each direction carries one
 * transfer at a time, in the order of their numbers, which the caller tells the other side in a record. FARWARP_WIRE_STREAMS connections
 * (1 to 8, 0: none; default: from the CPUs) share each transfer of WIRE_STRIPED bytes and more.
 */
#define WIRE_STRIPED (8u << 20)
#define WIRE_PIECE (512u << 10) /* at most, of what the functions below are called with */

/* Client: whether there are such connections; the first call makes them. Where they cannot be made: false, for good. */
bool wire_bulk_usable(struct wire_link *link);
/* Begins to send: waits for the transfer before, and gives this one's number. False: link dead. */
bool wire_bulk_begin(struct wire_link *link, uint64_t *number);
/* Sends the bytes at `bytes`, or, if that is NULL, what `piece` writes for each part. Ends what wire_bulk_begin() began.
 * False: link dead. */
typedef void (*wire_piece_fn)(void *user, size_t at, void *bytes, size_t size);
bool wire_bulk_send(struct wire_link *link, const void *bytes, size_t size, wire_piece_fn piece, void *user);
/* Receives transfer `number` into `bytes`, or, if that is NULL, gives each part to `piece`. Several threads may call it at a time. */
bool wire_bulk_receive(struct wire_link *link, uint64_t number, void *bytes, size_t size, wire_piece_fn piece, void *user);

/* Client: a new channel. NULL: link dead or out of memory or descriptors. */
struct wire_channel *wire_channel_open(struct wire_link *link);
/* Either side; the other one reads what is left and then sees its ring's end: wire_wait() gives NULL and wire_ended() true. */
void wire_channel_close(struct wire_channel *channel);
bool wire_ended(const struct wire_ring *ring);

/* What arrives at a worker besides records. */
struct wire_event {
	enum { WIRE_EVENT_CHANNEL, WIRE_EVENT_MEMORY, WIRE_EVENT_DESCRIPTOR } kind;
	struct wire_channel *channel; /* the new channel; the caller closes it */
	int fd;                       /* the caller's to close. MEMORY: a memfd that cannot shrink. DESCRIPTOR: any */
	uint64_t size, tag;           /* size: of MEMORY */
};
/* Worker: waits for the next one. False: link dead or closed. */
bool wire_event_wait(struct wire_link *link, struct wire_event *event);
/* Client: gives the worker memory (unix only). False elsewhere or when the link is dead. The descriptor stays the caller's. */
bool wire_share(struct wire_link *link, int fd, uint64_t size, uint64_t tag);
/* Client: gives the worker a descriptor that is no memory of ours. As wire_share(); also false when this process is out of them. */
bool wire_give(struct wire_link *link, int fd, uint64_t tag);
bool wire_can_share(const struct wire_link *link);

bool wire_alive(const struct wire_link *link);
/* Why the link is dead, "" while it lives. Valid as long as the link. */
const char *wire_reason(const struct wire_link *link);
/* Ends the link from this side, for a reason that wire_reason() tells; the first one stays. The descriptors stay until wire_close(). */
void wire_kill(struct wire_link *link, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Who is at the other end of a unix socket; false elsewhere. */
bool wire_peer(const struct wire_link *link, int *pid, unsigned *uid);
/* Ends the link: the other side sees a closed connection. Channels must have been closed; idempotent on NULL. */
void wire_close(struct wire_link *link);
/* In the child of a fork: closes descriptors, frees nothing that other threads held. */
void wire_after_fork(struct wire_link *link);

/*
 * For tests and benchmarks, read by wire_connect() from the environment: FARWARP_WIRE_RTT_US adds half of it to each direction (records
 * become visible that much later, in order, overlapping), FARWARP_WIRE_MBPS limits each direction's bytes a second (in millions). With
 * either of them a unix link carries its bytes like TCP does.
 */

/* Counters, for reports and tests. */
struct wire_counts {
	uint64_t records_to, records_from, bytes_to, bytes_from, wakes, sleeps;
};
void wire_counts(const struct wire_link *link, struct wire_counts *counts);

#endif
