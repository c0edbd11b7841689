/*
 * The server: a supervisor that hands each connection to a worker process of its own, and what a worker's files share.
 *
 * The supervisor (supervisor.c) reads nothing that a client sends. A worker (worker.c) reads the bounded hello, opens the device, and
 * serves channels, one thread each; serve_*.c are the calls that the table's rows cannot say. When its link dies, it exits, and all that
 * its client held is gone with it.
 */
#ifndef SV_SERVER_H
#define SV_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "call/pack.h"
#include "call/session.h"
#include "wire/wire.h"

enum sv_backend { SV_BACKEND_SOFT, SV_BACKEND_NATIVE };

struct sv_options {
	enum sv_backend backend;
	struct wire_address listen[8];
	unsigned listen_count;
	unsigned max_clients;
	uint64_t memory;       /* bytes of device memory of a client; 0: all there is */
	unsigned max_threads;  /* channels of a client */
	unsigned max_handles;  /* streams, events, graphs and so on of a client */
	bool insecure;         /* plain TCP beyond loopback */
	unsigned allow[32];    /* users besides the server's own who may connect to a unix socket */
	unsigned allow_count;
	unsigned drain_seconds; /* after SIGTERM, for clients to finish */
	const char *refuse;    /* in a worker: say this to the client and end */
	const char *devices;   /* native: which of the machine's, as in CUDA_VISIBLE_DEVICES; NULL: all */
	struct wire_tls_files tls; /* for tls: addresses */
	const char *token;     /* clients have to say it; NULL: none */
	const char *executable; /* of the worker: this program */
	const char *images;     /* folder of the cache of images; NULL: the usual one */
	uint64_t images_size;   /* bytes that it may hold; 0: there is none */
	int lease_fd;           /* in a worker: where it tells the supervisor its process id when its client was accepted */
	char *const *worker_arguments; /* after "serve --worker FD KIND"; NULL-terminated */
};

/* ---- events.c: the log ------------------------------------------------------------------------------------------------ */

struct sv_field {
	const char *name; /* NULL: the end */
	const char *text; /* NULL: the number */
	uint64_t number;
};
/* One line: the event and its fields, up to the one without a name. */
void sv_event(const char *event, const struct sv_field *fields);
#define SV_EVENT(event, ...) sv_event(event, (struct sv_field[]){ __VA_ARGS__, { 0 } })
/* From now on as JSON, also what else is logged. */
void sv_events_json(void);

/* ---- check.c ------------------------------------------------------------------------------------------------------------ */

struct sv_check {
	bool answered, hung;
	int signal;      /* that ended the one who asked; 0: none */
	CUresult result; /* of cuInit and cuDeviceGetCount */
	int version, count;
	char name[128];  /* of the first device */
	char text[1024]; /* which driver it is, or what is wrong */
};
/* Asks the machine's driver whether it works, in a child. */
void sv_check_native(const struct sv_options *options, int timeout_ms, struct sv_check *check);

/* Serves until SIGINT or SIGTERM. An exit status. */
int sv_supervise(const struct sv_options *options);

/* A worker's whole life on an accepted connection. Does not return. */
void sv_work(int fd, enum wire_kind kind, const struct sv_options *options) __attribute__((noreturn));

/* ---- inside a worker ----------------------------------------------------------------------------------------------- */

/* A channel that is being served: its thread's own. */
struct sv_channel {
	struct wire_channel *wire;
	const struct cuda_ops *ops;
	uint8_t *blob;           /* inputs that came in parts */
	size_t blob_size, blob_at;
	CUresult late;           /* of the first failed call whose answer nobody awaited */
	uint8_t *scratch;        /* SV_SCRATCH bytes for outputs */
	uint8_t *inputs;         /* WIRE_PAYLOAD_MAX bytes: a copy of the record, which the client cannot change any more */
	uint64_t bytes_in, bytes_out; /* of records; read by others */
	struct sv_channel *next;      /* among those being served */
	bool handed_over;        /* it carries callbacks now and is not served any more */
};
#define SV_SCRATCH (1u << 20)

/* A call being served. */
struct sv_call {
	struct sv_channel *channel;
	const struct cuda_ops *ops;
	enum cuda_call_id id;
	bool wants_answer;
	struct fw_cursor in;
	struct call_writer out; /* behind the CUresult */
	uint8_t *own;           /* a larger answer, from malloc: 8 bytes for the CUresult, then what follows it */
	size_t own_size;
};

/* Serves a hand-made record: its result goes into the answer. False: the bytes are no such call, the session ends. */
typedef bool (*sv_serve_fn)(struct sv_call *call, CUresult *result);

/* Sends a part of the answer now, up to SESSION_CHUNK bytes that `fill` writes; for bulk answers. False: link dead. */
void *sv_part_reserve(struct sv_call *call, uint32_t size);
void sv_part_send(struct sv_call *call, void *part, uint32_t size);

/* Answers with memory of its own: 8 bytes for the CUresult first. */
void sv_answer_with(struct sv_call *call, uint8_t *bytes, size_t size);

/* serve_callback.c: a channel that carries requests to the client; false: there is no such line, or it is there already. */
bool sv_line_take(struct wire_channel *channel, uint64_t which);
/* Tells the client something that it does not answer; waits for the line to be there. False: the link has ended. */
bool sv_line_tell(enum session_line which, uint16_t kind, const void *bytes, uint32_t size);
/* Runs in the client; returns when it has returned there. */
void sv_callback(const struct session_callback *callback);
/* The same as a CUhostFn, with what sv_callback_keep() gave: a record that lives as long as this process. NULL: out of memory. */
void sv_host_function(void *user);
struct session_callback *sv_callback_keep(const struct session_callback *callback);
/* The client's memory, for the software GPU. */
extern const struct sw_far sv_far;
/* device.c: the device is the software GPU: copies may name the client's memory (SESSION_FAR), it asks when they run; and it writes marks of events. */
bool sv_reaches_far(void);
/* device.c: device memory that is memory of this process; NULL: it is not, or not all of the range is. */
void *sv_device_bytes(uint64_t address, uint64_t size);

/* serve_copy.c: a captured copy would remember memory of this process that means nothing later; says so once. */
bool sv_is_capturing(struct sv_call *call, CUstream stream);
/* serve_bulk.c */
bool sv_serve_bulk_in(struct sv_call *call, CUresult *result);
bool sv_serve_bulk_out(struct sv_call *call, CUresult *result);

/* serve_copy.c: memory that the client shares with this worker, and other descriptors that it gives. */
void sv_memory_arrived(int fd, uint64_t size, uint64_t tag);
/* The one with this tag, the caller's to close; -1: it did not come. */
int sv_descriptor_take(struct sv_call *call, uint64_t tag);
/* Of memory from memfd_create whose size the client cannot take back, so that no page of it vanishes under this process. */
bool sv_cannot_shrink(int fd);
bool sv_serve_memory(struct sv_call *call, CUresult *result);
/* Whether the device may touch what the client named: memory that it shares, the device's, its own if it can be asked for. NULL passes. */
CUresult sv_may_touch(struct sv_call *call, uint64_t address, uint64_t size);
/* The same for a side of a box that is the host's or unified; others the device checks. */
CUresult sv_may_touch_box(struct sv_call *call, const CUDA_MEMCPY3D *c, bool is_source);
/*
 * serve_stage.c: the sides of a copy that the device makes later. One that the device cannot ask for becomes memory of this process, which is
 * fetched before the copy and sent behind it; others are checked as above. One struct for each copy or list of copies, zero but for the first
 * three; sv_stage_after() in any case, with what the copy answered, for the answer of it all.
 */
struct sv_staging {
	struct sv_call *call;
	CUstream stream;
	bool synchronous; /* what is sent has arrived when it returns */
	struct sv_staged *staged;
	const struct sv_staged *like; /* whose memory it may use */
	bool captured, begun;
};
/* `now`: a source is read before the call returns, and never again. */
CUresult sv_stage(struct sv_staging *staging, CUdeviceptr *address, uint64_t size, bool in, bool now);
CUresult sv_stage_box(struct sv_staging *staging, CUDA_MEMCPY3D *c, bool is_source);
/* Whether this is done at all. */
bool sv_stages(void);
/* A pointer that the device cannot ask for; bytes of an element. */
CUresult sv_stage_operand(struct sv_staging *staging, CUmemcpy3DOperand *operand, const CUextent3D *extent, size_t element, bool in, bool now);
CUresult sv_stage_before(struct sv_staging *staging);
CUresult sv_stage_after(struct sv_staging *staging, CUresult result);
/* Whether a host node is one of those, which the program did not make. */
bool sv_is_stage_function(CUhostFn function);
/* The same device, whose graphs show nodes of such copies as memcpy nodes. */
const struct cuda_ops *sv_stage_watch(const struct cuda_ops *ops);
/* Whether a side has to be fetched or sent. Then a node is made so, or set so (NULL: of the graph itself; false: it is nothing of this sort). */
bool sv_wants_stage(const CUDA_MEMCPY3D *c);
CUresult sv_stage_add(struct sv_call *call, CUgraphNode *node, CUgraph graph, const CUgraphNode *nodes, const CUgraphEdgeData *edges, size_t count,
                      const CUDA_MEMCPY3D *given, CUcontext ctx);
bool sv_stage_set(struct sv_call *call, CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *given, CUcontext ctx, CUresult *result);
/* The node of a copy into the graph that a stream is captured into; false: it is none, or no side has to be fetched or sent. */
bool sv_stage_capture(struct sv_call *call, CUstream stream, const CUDA_MEMCPY3D *c, CUresult *result);
/* Keeps what is free of these ranges for memory that the client registers; before the device is opened, which may take it. */
void sv_addresses_keep(const struct session_space used[SESSION_USED]);
/* Whether the range is host memory that the client told of. */
bool sv_memory_covers(uint64_t address, uint64_t size);

/* serve_memory.c: the first of the client's ranges that is free here too; nothing is written if none is. */
void sv_space_choose(const struct session_space spaces[SESSION_SPACES], uint64_t *base, uint64_t *size);
/* After the software GPU was opened: where it lies. */
void sv_space_opened(struct session_space *told);
bool sv_serve_managed_file(struct sv_call *call, CUresult *result);
bool sv_serve_pages_get(struct sv_call *call, CUresult *result);
bool sv_serve_pages_put(struct sv_call *call, CUresult *result);

/* worker.c: whether the client may have one more handle, and that it has it; `say`: if not, on the log. */
bool sv_handle_room(const char *name, bool say);
void sv_handle_made(void);
/* serve_stock.c */
bool sv_serve_stock(struct sv_call *call, CUresult *result);
/* serve_event.c; the last: a context has ended, and what the device knew of the marks with it. */
bool sv_serve_marks(struct sv_call *call, CUresult *result);
bool sv_serve_record(struct sv_call *call, CUresult *result);
void sv_marks_context_ended(void);

/* managed.c: the same device, whose managed memory is known from now on. */
const struct cuda_ops *sv_managed_watch(const struct cuda_ops *ops);
bool sv_serve_managed_alloc(struct sv_call *call, CUresult *result);
/* Whether all pages of a range are those of managed memory that there is. */
bool sv_managed_covers(uint64_t address, uint64_t size);
/* Bytes in, to such pages, or out of them; false: they are none, or not to be had. */
bool sv_managed_move(void *here, uint64_t there, uint64_t size, bool in);
/* The same for any memory of this process; an address where nothing is is false too. */
bool sv_memory_move(void *here, uint64_t there, uint64_t size, bool in);

/* serve_callback.c: what is printed to standard output goes to the client; `descriptor`: also what a driver writes to descriptor 1. */
bool sv_output_begin(bool descriptor);
/* Takes what was printed so far: bytes (free them), or NULL. `look`: descriptor 1 too, which costs a system call. */
char *sv_output_take(size_t *size, bool look);

/*
 * hello.c: reads what a client said first, of which *hello is a copy whose texts end. Whether it may have a lease: it speaks the protocol
 * and knows the token (NULL: there is none); else a sentence in `text` says why not.
 */
bool sv_hello_take(const uint8_t *bytes, size_t size, const struct session_version *mine, const char *token, struct session_hello *hello, char *text,
                   size_t text_size);

/* device.c: opens what the options name, as the client's environment wants it; welcome->text and ->flags say what it is, or why not. */
CUresult sv_device_open(const struct sv_options *options, const struct session_hello *hello, struct session_welcome *welcome,
                        const struct cuda_ops **ops);
/*
 * The devices of a client: those of the server's list (NULL: all of the machine's) that its own CUDA_VISIBLE_DEVICES (NULL: unset) names
 * by their place in that list or by their own name. Writes what CUDA_VISIBLE_DEVICES has to be for the driver; false: it can stay unset.
 */
bool sv_device_list(const char *allowed, const char *wanted, char *list, size_t size);
/* Lines of the device's log up to `level` go to the client as well; the worker's own do not. */
void sv_log_begin(int level);
/* The oldest line that was not taken (free it), its level in front; NULL: none. */
struct sv_line {
	struct sv_line *next;
	uint64_t level; /* enum fw_log_level or SESSION_LOG_RAW */
	size_t size;
	char text[];
};
struct sv_line *sv_log_take(void);

/* images.c: opens the cache that the options name, if it can be had, and tells the client so. */
void sv_images_open(const struct sv_options *options, struct session_welcome *welcome);
/* An image that is kept and that the client has proved to have, to be read; -1: it is not, or the client has not. */
int sv_image_find(const struct session_image *image);
/* Reads its bytes, image->size of them, and checks them; false: they are not what was named. The descriptor is closed. */
bool sv_image_read(int fd, const struct session_image *image, uint8_t *bytes);
/*
 * Keeps the bytes of an image (from malloc) for others who have it too, if they are worth it and there is a cache: then true, and they are
 * freed when that is done, on a thread of its own.
 */
bool sv_image_keep(void *bytes, uint64_t size);
/* Waits a while for what is being kept. */
void sv_images_settle(void);

/* serve_module.c: JIT options of a call: read, what the device wrote put into an answer, freed. */
#define SV_JIT_MAX 64
struct sv_jit {
	uint64_t count;
	CUjit_option numbers[SV_JIT_MAX];
	void *values[SV_JIT_MAX];
	char *log[2]; /* information, errors */
	uint32_t log_size[2];
};
bool sv_jit_get(struct fw_cursor *in, struct sv_jit *o);
void sv_jit_put(struct call_writer *out, const struct sv_jit *o);
void sv_jit_drop(struct sv_jit *o);

/* serve_launch.c: pairs of offset and size of all parameters of a function; how many. */
#define SV_PARAMS_MAX 8192
uint64_t sv_param_layout(const struct cuda_ops *ops, CUfunction f, uint32_t (*pairs)[2], CUresult *result);

#define CUSTOM(name) bool sv_##name(struct sv_call *call, CUresult *result);
#include "server_custom.inc"
#undef CUSTOM

#endif
