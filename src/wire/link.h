/*
 * What the files of src/wire share: the insides of links, channels and rings. See wire.h for what they are for.
 */
#ifndef WIRE_LINK_H
#define WIRE_LINK_H

#include <pthread.h>

#include "wire/wire.h"

#define WIRE_LINE 128 /* bytes that no two processors write at a time */

/* What a ring's reader does when it finds nothing: the word that its writer looks at. */
enum wire_sleep { WIRE_AWAKE, WIRE_NAPPING, WIRE_SLEEPING };

/* The part of a ring that both sides see, one page in front of the bytes. Nothing in it is trusted. */
struct wire_shared {
	uint64_t head __attribute__((aligned(WIRE_LINE))); /* atomic: bytes ever written */
	uint64_t tail __attribute__((aligned(WIRE_LINE))); /* atomic: bytes ever released */
	uint32_t sleep __attribute__((aligned(WIRE_LINE))); /* atomic: enum wire_sleep of the reader; a futex */
	uint32_t ended;                                     /* atomic: the writer closed it */
};

struct wire_ring {
	struct wire_shared *shared;
	uint8_t *data;        /* WIRE_RING_BYTES, mapped twice one behind the other: records are contiguous */
	struct wire_link *link;
	uint32_t *sleep;      /* where the reader sleeps: shared->sleep, or the link's word if a thread carries the bytes */
	int fd;
	/* of the side that writes */
	uint64_t head, tail_seen;
	/* of the side that reads */
	uint64_t tail, head_seen;
	uint32_t peeked;      /* bytes that wire_release() gives back */
};

/* A channel with what its carriers need. */
struct wire_line {
	struct wire_channel channel; /* first: wire_channel_close() gets it back from this */
	struct wire_ring to, from;
	struct wire_line *next;
	uint64_t credit;             /* carried: bytes that the other side has room for; the sender's */
	uint64_t granted;            /* carried: of `from`, bytes whose room was told */
	bool opened, closed, told;   /* carried: the other side knows it, we closed it, the other side knows that */
	bool peer_closed;
};

struct wire_link {
	enum wire_kind kind;
	bool carried;                /* no shared memory: threads carry the bytes */
	bool client;
	int fd;
	uint32_t dead;               /* atomic */
	char reason[200];
	pthread_mutex_t lock;        /* lines, reason, writing to the socket of a shared link */
	struct wire_line *lines;
	uint32_t next_channel;
	uint32_t sender_sleep;       /* atomic: enum wire_sleep of the sender; a futex */
	pthread_t sender, receiver;
	bool has_sender, has_receiver;
	struct wire_event events[64]; /* carried, worker: arrived and not taken; guarded by lock */
	unsigned event_count;
	pthread_cond_t event_there;
	uint64_t half_rtt_ns, bytes_per_s; /* injected */
	uint64_t heard_ns;           /* atomic: when the other side was last heard */
	struct wire_counts counts;   /* atomic members */
};

/* ring.c */
int wire_ring_create(void);                                       /* a sealed memfd, -1 with errno */
bool wire_ring_map(struct wire_ring *ring, int fd, struct wire_link *link); /* false: not a ring, or no memory; fd is the ring's then */
void wire_ring_unmap(struct wire_ring *ring);
void wire_ring_end(struct wire_ring *ring);                       /* by its writer */
void wire_wake(uint32_t *sleep);
/* Waits up to `ns` at a futex that holds `state`. */
void wire_nap(uint32_t *sleep, uint32_t state, uint64_t ns);
uint64_t wire_now(void);
unsigned wire_spin_ns(void);

/* link.c */
struct wire_link *wire_begin_client(int fd, enum wire_kind kind, char error[256]);
struct wire_line *wire_line_new(struct wire_link *link, uint32_t id, int to_fd, int from_fd);
void wire_line_free(struct wire_line *line);

/* carry.c: the threads of a link without shared memory. */
bool wire_carry_begin(struct wire_link *link);

#endif
