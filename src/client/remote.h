/*
 * The device behind a server, as an implementation of struct cuda_ops: what its files share.
 *
 * remote.c packs and asks; calls that rows can say are generated (client_remote.inc), the others are written by hand in remote_copy.c
 * (host memory), remote_batch.c (lists of copies), remote_launch.c (kernels), remote_callback.c (functions of the program),
 * remote_module.c (images), remote_link.c (the linker), remote_graph.c (nodes, capture), remote_share.c (descriptors), remote_stock.c (streams
 * and events by the batch), remote_event.c (whether work is done). Each has its other half of the same name in src/server.
 */
#ifndef CL_REMOTE_H
#define CL_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "call/pack.h"
#include "call/session.h"
#include "wire/wire.h"

/*
 * Connects to the server that `address` names. CUDA_ERROR_INVALID_VALUE for an address that is none, CUDA_ERROR_SYSTEM_NOT_READY for a
 * server that is not there or refuses, else what opening the device answered there; the log has the reason. *ops is valid for the life
 * of the process.
 */
CUresult rm_open(const char *address, const struct cuda_ops **ops);
/* Whether the server has obeyed CUDA_VISIBLE_DEVICES already. */
bool rm_devices_chosen(void);
/* The key of proofs (struct session_image), SESSION_NONCE bytes; NULL: the server keeps no images. */
const uint8_t *rm_image_nonce(void);
/* At process exit: what kernels printed comes home; the link ends. */
void rm_close(void);
void rm_after_fork(void);

/* Whether the context is known to have failed: then every call is awaited, as each of them has to tell it. */
bool rm_failed(void);

/* One record on its way, and its answer. On the caller's stack. */
struct rm_request {
	struct wire_channel *channel; /* of this thread; NULL: the server is lost */
	struct wire_record *record;   /* being filled; NULL if the inputs are collected in `heap` */
	uint8_t *heap, *parts;        /* larger inputs; larger answers */
	size_t part_size;
	uint16_t kind;
	struct call_writer out;       /* where the inputs go */
	uint64_t ticket, heard;       /* of the record that was sent; rm_heard() before it was */
	bool answered;                /* an answer lies in the ring, to be released */
	/* If set, takes parts of the answer as they come, instead of collecting them. */
	void (*sink)(void *user, const uint8_t *bytes, size_t size);
	void (*after_send)(void *user); /* if set, called when the record is on its way, before its answer is awaited */
	void *user;
};

/* Begins a record with up to `bound` bytes of inputs. Errors are kept and reported by rm_send or rm_ask. */
void rm_begin(struct rm_request *r, uint16_t kind, size_t bound);
/* Sends it without awaiting an answer. With FARWARP_STRICT=1 it is awaited all the same. */
CUresult rm_send(struct rm_request *r);
/* Sends it, awaits the answer: its CUresult, and *in over what follows it, until rm_end(). */
CUresult rm_ask(struct rm_request *r, struct fw_cursor *in);
void rm_end(struct rm_request *r);
/* Sends it, awaits the answer and its result alone. */
CUresult rm_do(struct rm_request *r);

/* Sends it, and awaits the answer only if none like it, as `words` say, was accepted since something ended that it may name. */
CUresult rm_send_like(struct rm_request *r, const uint64_t *words, size_t count);

/* A call that rows can say. */
CUresult rm_call(enum cuda_call_id call, const void *const *args);

/* The sticky error after the server was lost; said once on the log. A thread that only has no channel yet gets an error of its own. */
CUresult rm_lost(void);
/* The same, after an answer that makes no sense: a server that gives one is lost. */
CUresult rm_nonsense(const struct rm_request *r);
struct wire_link *rm_link(void);

/* seal.c: a mark of words that this process sends out and wants to recognise when a worker hands them back. */
uint64_t rm_seal(const uint64_t *words, size_t count);
bool rm_sealed(const uint64_t *words, size_t count, uint64_t seal);

/* A launch that the worker has accepted: one like it need not be awaited. */
struct rm_shape {
	uint64_t function, stream, context, epoch;
	uint32_t grid[3], block[3];
	uint32_t shared, cooperative;
	uint64_t param_bytes;
	uint64_t attributes; /* a hash of them; 0: none */
};
/* An address range that the worker said is the device's. */
struct rm_range {
	uint64_t base, size, epoch;
};
#define RM_SHAPES 256 /* a power of two */
#define RM_ACCEPTED 256
#define RM_RANGES 8

/* What went over the wire for a thread. */
struct rm_traffic {
	uint64_t awaited;        /* answers, each a round trip */
	uint64_t sent, received; /* bytes of records */
};

/*
 * What the thread has been told is done; it holds while no thread sends a record and none that was on its way is answered: while tickets is
 * rm_tickets() and heard is rm_heard().
 */
struct rm_proof {
	uint64_t tickets, heard, context;
	uint64_t stream, event; /* a key and a handle; 0: none */
	bool all;               /* the whole context */
};

/* What a thread keeps. In memory of its own: a library that is opened late has little room for thread-local variables. */
struct rm_thread {
	struct wire_channel *channel;
	uint64_t number; /* never used twice */
	struct rm_traffic traffic;
	struct rm_proof proof;
	struct rm_shape shapes[RM_SHAPES];
	struct rm_range ranges[RM_RANGES];
	struct {
		uint64_t hash, epoch;
	} accepted[RM_ACCEPTED]; /* calls that the worker took without an error, by all that they say */
	unsigned next_range;
};
/* The calling thread's, with a channel; NULL: the server is lost, or out of memory. */
struct rm_thread *rm_thread(void);
bool rm_strict(void);
/* Of records that any thread has sent. */
uint64_t rm_tickets(void);
/* Of answers and requests that came to this process: while it is the same, nothing was heard. rm_hear(): something was. */
uint64_t rm_heard(void);
void rm_hear(void);
/* Kernels have printed something: this program wants to see it as soon as it can. */
bool rm_has_printed(void);
/* Of the calling thread so far. */
struct rm_traffic rm_traffic(void);

/*
 * remote_module.c: JIT options of a call, and what the worker brought back for them: sizes and times into `values`, logs into the buffers
 * that they name (false: it sent nonsense). At most RM_OPTIONS_MAX; those that point into the program are CUDA_ERROR_NOT_SUPPORTED.
 */
#define RM_OPTIONS_MAX 64
#define RM_OPTIONS_BYTES (32 + 12 * RM_OPTIONS_MAX)
CUresult rm_put_options(struct call_writer *out, unsigned count, const CUjit_option *options, void *const *values);
bool rm_take_options(struct fw_cursor *in, unsigned count, const CUjit_option *options, void **values, const uint32_t rooms[2]);
/* Bytes of the buffers for information and for errors, as the options say before the worker writes what was used. */
void rm_log_rooms(unsigned count, const CUjit_option *options, void *const *values, uint32_t rooms[2]);
/* A file in memory from malloc, a NUL behind it. NULL: *result says why. */
void *rm_read_file(const char *name, size_t *size, CUresult *result);

/* A hand-written call has ended something: to be said before it is sent and after its answer. */
void rm_ended(enum cuda_call_id call);
/* The operations themselves, for calls that are made of others. */
const struct cuda_ops *rm_ops_table(void);
/* Grows with each call that may end an object of one of the kinds (CALL_TOUCHES_*) or change what the worker accepts of it: what was
 * learnt of them before it no longer counts. */
extern uint64_t rm_epochs[CALL_TOUCHES_KINDS]; /* atomic */

static inline uint64_t
rm_epoch(unsigned kinds)
{
	uint64_t sum = 1; /* of numbers that only grow: it never is what it was */

	for (unsigned n = 0; n < CALL_TOUCHES_KINDS; n++)
		if (kinds >> n & 1)
			sum += __atomic_load_n(&rm_epochs[n], __ATOMIC_ACQUIRE);
	return sum;
}

/*
 * remote_stock.c: a stream or an event that this process created and did not end, as far as it knows. Found without a lock, and its memory
 * stays, so that who uses an object while another thread ends it reads nonsense of it and no other memory.
 */
enum rm_object_kind { RM_STREAM, RM_EVENT };
struct rm_object {
	struct rm_object *next;
	uint64_t handle; /* 0: the place is free; atomic, as all that follows */
	uint64_t context;
	enum rm_object_kind kind;
	/* Of an event, remote_event.c's: */
	uint32_t slot;   /* of its mark; 0: it has none yet */
	bool opaque;     /* it is recorded in ways that this process does not follow */
	bool captured;   /* its last record may belong to a capture */
	uint64_t stream; /* of its last record, as a key; 0: not known */
	uint64_t number; /* of its last record; 0: not known */
	bool marked;     /* that record writes it to the mark */
	uint64_t done;   /* number of a record that the worker has said is done */
	uint64_t synced; /* and for which it has brought home what a synchronisation does */
	uint64_t heard;  /* rm_heard() when it was last recorded or asked about */
	uint64_t asked;  /* ns, when that was; 0: not since its last record */
};
struct rm_object *rm_object_find(enum rm_object_kind kind, const void *handle);
/* Whether what is known of objects counts: there is nothing that the device would have to say first. */
bool rm_objects_count(void);
/* Out of memory: gives the worker back what the program did not ask for yet. Whether that was anything. */
bool rm_stock_give_back(void);
void rm_stock_context_ended(CUcontext ctx);
void rm_stock_after_fork(void);

/* remote_event.c: a new one, of which nothing is known. */
void rm_event_begin(struct rm_object *event);
/* The mark of an event that has ended is free. 0: it had none. */
void rm_mark_release(uint32_t slot);
/* The worker has told of marks (an array of struct session_mark). False: nonsense. */
bool rm_marked(const void *bytes, size_t size);
/* Events among these words are recorded by others than cuEventRecord from now on: nothing is known of them any more. */
void rm_event_opaque(const void *words, size_t size);
/* The answer to `r` has proved that the stream is idle, and brought home what its kernels printed. */
void rm_stream_proved(const struct rm_request *r, CUstream stream);
void rm_event_after_fork(void);

/* remote_callback.c: the worker can ask from now on. */
CUresult rm_line_begin(enum session_line line);
/* A function of this process as the worker may ask for its call, by what it was given and nothing else. */
struct session_callback rm_callback(enum session_callback_kind kind, void *function, void *user);
/* The worker may ask for the bytes of this memory from now on, for as long as the process lives. */
CUresult rm_offer(uint64_t address, uint64_t size);

/*
 * remote_launch.c: a kernel's parameters as they lie in its parameter space, in memory from malloc (*bytes, NULL if there are none), for
 * nodes. *how is an enum session_params. A function that is none gives none: the device says so.
 */
CUresult rm_gather(CUfunction f, void **params, void **extra, uint64_t *how, void **bytes, size_t *size);

/*
 * remote_copy.c: a side of a copy that the worker makes later, or in stream order: memory of this process becomes an address for which it
 * asks (SESSION_FAR). rm_reach() is for a unified address of `size` bytes, the others for boxes.
 */
CUresult rm_reach(CUdeviceptr *address, size_t size);
struct rm_side {
	CUmemorytype type;
	size_t x, y, z, pitch, height;
};
CUresult rm_reach_side(const struct rm_side *side, const void **host, CUdeviceptr *device, size_t width, size_t height, size_t depth);
CUresult rm_reach_box(CUDA_MEMCPY3D *c); /* both sides */
/* Whether some stream may be capturing: else none has to be asked. While one is, no call is known to be accepted. */
bool rm_may_capture(void);

/* remote_bulk.c: copies of this process's memory whose bytes go beside the records, where the size and the link are for it. */
bool rm_bulk_wanted(size_t size);
/*
 * Bytes that go beside the records when the record of `r`, which says their number, is sent: between rm_begin() and that, and from then on the
 * transfer's place is ours. False: link dead. rm_bulk_sent() after the answer, whatever it is.
 */
struct rm_outgoing {
	const void *bytes;
	size_t size;
	bool sent;
};
bool rm_bulk_send_with(struct rm_request *r, struct rm_outgoing *outgoing, uint64_t *number);
void rm_bulk_sent(struct rm_outgoing *outgoing);
CUresult rm_bulk_in(bool async, uint64_t dst, const void *src, size_t size, CUstream stream);
CUresult rm_bulk_out(bool async, void *dst, uint64_t src, size_t size, CUstream stream);

/*
 * Addresses where neither process is likely to have anything, far from what kernels and loaders use; and how many of them managed memory may
 * have, which is what the software GPU asks for. ThreadSanitizer allows only the upper end, where there is room for little.
 */
#ifdef __SANITIZE_THREAD__
#define RM_EMPTY_BASE 0x7e8000000000u
#define RM_EMPTY_SIZE 0x008000000000u
#define RM_SPACE_BYTES ((uint64_t)1 << 36)
#else
#define RM_EMPTY_BASE 0x200000000000u
#define RM_EMPTY_SIZE 0x200000000000u
#define RM_SPACE_BYTES ((uint64_t)1 << 39)
#endif

/* remote_layout.c: where this process has memory. */
void rm_layout(struct session_space used[SESSION_USED]);

/* remote_managed.c: before the hello, ranges of addresses that are free here; after the answer, which one the device lies in. */
void rm_spaces_reserve(struct session_space spaces[SESSION_SPACES]);
void rm_spaces_settle(const struct session_space spaces[SESSION_SPACES], const struct session_space *taken);
/* Whether [address, address + size) is managed memory, which the worker has at the same address. */
bool rm_is_managed(uint64_t address, uint64_t size);
/* Whether the address is in a range that is reserved for the device: this process has nothing else there. */
bool rm_in_space(uint64_t address);
/* What belonged to the context is no more, or the variables of a module or library. */
void rm_managed_context_ended(CUcontext ctx);
void rm_managed_owner_ended(const void *module);
/* Whether host and device take turns with the memory at an address. */
bool rm_moves(uint64_t address);
/* Managed memory is the same memory in both processes; else its pages move. */
bool rm_managed_coherent(void);

/*
 * remote_pages.c: memory whose pages move between this process and the worker. An area is a range of addresses with a file of its size;
 * whole pages in it are mapped, and then opened and closed as they move. FRESH pages are not fetched: what they hold does not matter.
 */
bool rm_pages_area(uint64_t base, uint64_t size, int file, uint64_t offset); /* the descriptor stays open as long as the area is used */
/* What is mapped already, all of it, is the program's now; at the end it stays so, with what the device wrote, or is not used any more. */
bool rm_pages_adopt(uint64_t base, uint64_t size);
void rm_pages_keep(uint64_t base, uint64_t size);
void rm_pages_drop(uint64_t base, uint64_t size);
bool rm_pages_map(uint64_t base, uint64_t size);
void rm_pages_unmap(uint64_t base, uint64_t size);
void rm_pages_fresh(uint64_t address, uint64_t size);
void rm_pages_wanted(uint64_t address, uint64_t size);
/* This thread is a line's: what it touches comes at once. And after each touch of such memory by a host function or a copy, before it is told. */
void rm_pages_line(enum session_line line);
void rm_pages_line_done(void);
/* Around the record of work that may touch such memory; if rm_pages_used. */
extern unsigned rm_pages_used; /* atomic */
void rm_pages_before_work(void);
void rm_pages_after_work(void);
/* SIGSEGV comes to remote_pages.c; what is none of its faults goes to the handler that was there. */
bool rm_faults_catch(void);
/* remote_module.c: an image as it travels, in memory from malloc, for records; the second: a file's. False after an error line. */
bool rm_image_bytes(const void *image, uint8_t **bytes, size_t *size);
bool rm_file_bytes(const char *name, uint8_t **bytes, size_t *size);

/* remote_host.c: pinned and registered memory. OWN: the worker has it too, but not what it holds. */
enum rm_host { RM_HOST_NONE, RM_HOST_OWN, RM_HOST_SHARED };
enum rm_host rm_host_kind(uint64_t p, size_t size);
extern unsigned rm_host_unreached; /* atomic: there is memory that the device could be shown */
/* The first word that is an address in such memory, 0: none; and the device is shown that memory, if it can be. */
uint64_t rm_host_own(const void *words, size_t size);
void rm_host_reach(uint64_t p);
/* Answers of cuPointerGetAttribute for memory that the worker has not registered. False: it is none of that; *result is not set. */
bool rm_host_attribute(void *data, CUpointer_attribute attribute, CUdeviceptr p, CUresult *result);
void rm_host_context_ended(CUcontext ctx);
void rm_host_after_fork(void);
/* In the handler of SIGSEGV: the fault was due to pages being replaced; true when that is over and the access can be repeated. */
bool rm_host_replacing(uint64_t address);

/* Hand-written calls. */
#include "client_remote_hand.h"

#endif
