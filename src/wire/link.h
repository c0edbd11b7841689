/*
 * What the files of src/wire share: the insides of links, channels and rings. See wire.h for what they are for.
 */
#ifndef WIRE_LINK_H
#define WIRE_LINK_H

#include <pthread.h>

#include "wire/stream.h"
#include "wire/wire.h"

#define WIRE_LINE 128 /* bytes that no two processors write at a time */

/* What a ring's reader does when it finds nothing: the word that its writer looks at. */
enum wire_sleep { WIRE_AWAKE, WIRE_NAPPING, WIRE_SLEEPING, WIRE_POLLING /* waits for the socket and the bell */ };

/* The part of a ring that both sides see, one page in front of the bytes. Nothing in it is trusted. */
struct wire_shared {
	uint64_t head __attribute__((aligned(WIRE_LINE))); /* atomic: bytes ever written */
	uint32_t core;                                      /* atomic: that the writer waits on, and 1; 0: not known */
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
	uint64_t patience;    /* ns that a wait spins; 0: not known yet */
	uint64_t left;        /* when it last left the writer's core */
	uint32_t peeked;      /* bytes that wire_release() gives back */
	uint64_t granted;     /* carried; atomic: bytes whose room the other side was told */
};

/* A channel with what its carriers need. */
struct wire_line {
	struct wire_channel channel; /* first: wire_channel_close() gets it back from this */
	struct wire_ring to, from;
	struct wire_line *next;
	uint64_t credit;             /* carried: bytes that the other side has room for; the sender's */
	bool opened, closed, told;   /* carried: the other side knows it, we closed it, the other side knows that */
	bool peer_closed;
};

/* A frame of a carried link; little-endian. */
enum wire_frame_kind { FRAME_DATA = 1, FRAME_CREDIT, FRAME_OPEN, FRAME_CLOSE, FRAME_BEAT, FRAME_STREAMS };

struct wire_frame {
	uint32_t kind, channel, size; /* size: bytes behind a DATA frame; of CREDIT: that were read; of STREAMS: how many */
	uint32_t core;                /* of DATA on one host: as in struct wire_shared, else 0 */
};

#define WIRE_STREAMS_MAX 8
#define WIRE_TAKE (64u << 10) /* bytes of small frames taken at a time */

/* What was received and is not in a ring yet; guarded by `receiving`. */
struct wire_intake {
	uint8_t *bytes;           /* WIRE_TAKE of them */
	size_t at, end;
	struct wire_line *line;   /* of the DATA frame that is arriving */
	uint32_t left, done;      /* of its bytes */
};

struct wire_bulk;

struct wire_link {
	enum wire_kind kind;
	bool carried;                /* no shared memory: threads carry the bytes */
	bool client;
	bool one_host;               /* carried: between two processes of one machine all the same */
	struct wire_stream *stream;
	struct wire_address address; /* client: where the stream leads */
	const struct wire_tls_files *files; /* worker */
	uint32_t dead;               /* atomic */
	char reason[300];
	pthread_mutex_t lock;        /* lines, reason, writing to the socket of a shared link */
	struct wire_line *lines;
	uint32_t next_channel;
	pthread_t sender, receiver;
	bool has_sender, has_receiver;
	struct wire_event events[64]; /* carried, worker: arrived and not taken; guarded by lock */
	unsigned event_count;
	pthread_cond_t event_there;
	/* carried: who sends, who receives */
	pthread_mutex_t sending;     /* held around send_round() */
	uint32_t streams_to_say;     /* atomic: a FRAME_STREAMS that is to be sent, or 0 */
	uint32_t more;               /* atomic: something was published for whoever sends */
	uint32_t sender_sleep;       /* atomic: enum wire_sleep of the sender; a futex */
	pthread_mutex_t receiving;   /* held around taking from the stream */
	struct wire_intake intake;
	uint32_t poller;             /* atomic: a waiting thread polls the socket in the receiver's place */
	uint32_t receiver_sleep;     /* atomic: enum wire_sleep of the receiver; a futex */
	int bell;                    /* eventfd, rung for the thread that polls */
	uint64_t pumped_ns;          /* atomic: when a waiting thread last took something from the socket */
	uint64_t heard_ns;           /* atomic: when the other side was last heard */
	uint64_t silence_ns;         /* atomic: so much of it is death */
	struct wire_limits *limits;  /* client, from malloc: NULL unless delays are injected */
	struct wire_bulk *bulk;
	struct wire_counts counts;   /* atomic members */
};

/* ring.c */
uint32_t wire_core_here(void);                                    /* for struct wire_shared */
int wire_ring_create(void);                                       /* a sealed memfd, -1 with errno */
bool wire_ring_map(struct wire_ring *ring, int fd, struct wire_link *link); /* false: not a ring, or no memory; fd is the ring's then */
void wire_ring_unmap(struct wire_ring *ring);
void wire_ring_end(struct wire_ring *ring);                       /* by its writer */
void wire_wake(uint32_t *sleep);
/* Waits up to `ns` at a futex that holds `state`. */
void wire_nap(uint32_t *sleep, uint32_t state, uint64_t ns);
unsigned wire_spin_ns(void);

/* link.c */
/* For a stream that ended: with its own reason, or errno's. */
void wire_kill_stream(struct wire_link *link, struct wire_stream *stream);
struct wire_link *wire_begin_client(struct wire_stream *stream, const struct wire_address *address, struct wire_limits *limits,
                                    char error[256]);
struct wire_line *wire_line_new(struct wire_link *link, uint32_t id, int to_fd, int from_fd);
void wire_line_free(struct wire_line *line);

/* address.c: connects to where a link leads, with TLS and injected delays if it is so; NULL with errno, or a sentence in error[256]. */
struct wire_stream *wire_dial(const struct wire_address *address, struct wire_limits *limits, const void *before, size_t size,
                              uint64_t until, char error[256]);

void wire_socket_tune(int fd, enum wire_kind kind);

/* carry.c: links without shared memory. */
bool wire_carry_begin(struct wire_link *link);
/* Takes what the socket has, without waiting, unless another thread does. True: something was there. */
bool wire_pump(struct wire_link *link);
/* Sends what the rings hold, or has it sent by who is sending. */
void wire_send_now(struct wire_link *link);
/* Has it sent by the sender's thread. */
void wire_wake_sender(struct wire_link *link);
/* Waits at most `ns` for a record in the ring, polling the socket or sleeping while another thread does. */
void wire_carried_wait(struct wire_ring *ring, uint64_t ns);
/* After a reader gave room back: tells the other side, if it is time. */
void wire_carried_released(struct wire_ring *ring);
/* Wakes the reader of the ring. */
void wire_wake_reader(struct wire_ring *ring);

/* bulk.c */
struct wire_bulk *wire_bulk_new(void);
void wire_bulk_after_fork(struct wire_link *link);
void wire_bulk_asked(struct wire_link *link, unsigned count);     /* worker: the client wants connections; client: it may make them */
void wire_bulk_shut(struct wire_link *link);
void wire_bulk_free(struct wire_link *link);
/* On an accepted connection: whether it is a further one of another worker's link; then it has it, or it is closed. */
bool wire_bulk_hand_over(int fd, uint64_t until);

#endif
