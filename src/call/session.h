/*
 * What the client library and a worker say to each other around the calls: the hello, its answer, and the records of a channel.
 *
 * A channel is one client thread. Its records carry in `kind` an enum cuda_call_id or one of enum session_kind, in `context` the thread's
 * current context, in `ticket` their place among all records of the link: a record is served when every record with a smaller ticket
 * that awaits no answer has been served. So one thread's work is issued before what another thread issues after it.
 *
 * A call whose inputs are larger than a record sends them as blob records first. An answer larger than a record comes as records with
 * SESSION_MORE before the last one. `more` of an answer is the first failure of a call whose answer nobody awaited, as a CUresult.
 */
#ifndef CALL_SESSION_H
#define CALL_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "cuda_ops.h"

#define SESSION_MAGIC "farwarp"
#define SESSION_REVISION 8 /* grows when the meaning of a record changes while its size does not; part of the protocol's hash */
#define SESSION_VISIBLE_MAX 512
#define SESSION_CHUNK (512u << 10)    /* bytes of a blob record or of a part of an answer */
#define SESSION_BLOB_MAX (2ull << 30) /* of all inputs of one call */

/* Flags of a record. */
enum {
	SESSION_ANSWER = 1,     /* an answer is awaited */
	SESSION_PER_THREAD = 2, /* fw_thread.per_thread_stream */
	SESSION_BLOB = 4,       /* the inputs came as blobs */
	SESSION_MORE = 8,       /* an answer goes on in the next record */
	SESSION_OUTPUT = 16,    /* not the answer, but what kernels printed before it */
	SESSION_IN_CALLBACK = 64, /* fw_thread.in_callback */
	SESSION_LOG = 32,       /* not the answer, but a line of the device's log before it; more: enum fw_log_level */
};

#define SESSION_LOG_RAW UINT64_MAX /* as a level: no line of the log, but what device code wrote to standard error */

enum session_kind {
	SESSION_BLOB_PART = CALL_COUNT, /* payload: the next part of the next call's inputs; more: bytes of all parts */
	SESSION_PRIMARY_CONTEXT,        /* device; answers with the context */
	SESSION_DEVICE_FACTS,           /* device; answers with all its attributes at once: an array of struct session_fact */
	SESSION_CALLBACKS,              /* this channel carries requests to the client from now on, answers back; more: enum session_line */
	SESSION_CALLBACK,               /* to the client: struct session_callback; the answer has no payload */
	SESSION_FAR_READ,               /* to the client: struct session_far; answered by records of packed rows */
	SESSION_FAR_WRITE,              /* to the client: struct session_far, then records of packed rows; the answer has no payload */
	SESSION_FLUSH,                  /* answers when all that kernels printed was sent */
	SESSION_MEMORY,                 /* struct session_memory */
	SESSION_BULK_IN,                /* struct session_bulk: a copy to the device, whose bytes come beside the records as transfer `number` */
	SESSION_BULK_OUT,               /* the same from it; a part of the answer says the number before the bytes come */
	SESSION_MANAGED_FILE,           /* the tag of a shared file: managed memory shall lie in it */
	SESSION_MANAGED_ALLOC,          /* size, flags, an array of struct session_space where the client has something else: cuMemAllocManaged elsewhere */
	SESSION_PAGES_GET,              /* address, size: answers with the bytes of the worker's memory there */
	SESSION_PAGES_PUT,              /* runs of an address, a size, bytes padded to 8: written to the worker's memory */
	SESSION_STOCK,                  /* struct session_stock; answers with the handles, an array of uint64_t */
	SESSION_MARKS,                  /* struct session_marks: there are marks from now on; answers with what they say, an enum session_marks_say */
	SESSION_RECORD,                 /* struct session_record: cuEventRecord, and its mark */
	SESSION_MARKED,                 /* to the client: struct session_mark, several; not answered */
	SESSION_KINDS
};

/* Addresses that are free in the client and may be the device's: so what lies there can have one address in both processes. */
struct session_space {
	uint64_t base, size; /* size 0: none */
};
#define SESSION_SPACES 4
#define SESSION_USED 8 /* ranges where the client has memory */
#define SESSION_AVOIDED_MAX 16 /* ranges of SESSION_MANAGED_ALLOC */

/* What hello and welcome begin with in every version, so that two that differ can tell each other. */
struct session_version {
	char magic[8];
	uint64_t protocol; /* call_protocol_hash() */
	char version[32];  /* of farwarp, NUL-terminated */
};

enum {
	SESSION_HELLO_VISIBLE = 1,  /* the program has CUDA_VISIBLE_DEVICES: `visible` */
	SESSION_HELLO_BLOCKING = 2, /* CUDA_LAUNCH_BLOCKING=1 */
	SESSION_HELLO_EAGER = 4,    /* CUDA_MODULE_LOADING=EAGER */
	SESSION_HELLO_NO_JIT = 8,   /* CUDA_DISABLE_PTX_JIT=1 or CUDA_DISABLE_JIT=1 */
};
struct session_hello {
	struct session_version version;
	uint32_t pid, flags;
	uint32_t log, reserved;             /* log: enum fw_log_level, the lines of the device that the client wants */
	char token[128];                    /* of the lease, NUL-terminated, or empty */
	char visible[SESSION_VISIBLE_MAX];  /* NUL-terminated */
	struct session_space spaces[SESSION_SPACES]; /* the client has reserved them until it knows which one is taken */
	struct session_space used[SESSION_USED]; /* where it has memory, which it may register: kept free by the worker as far as it can */
};

enum {
	SESSION_WELCOME_CHOSEN = 1, /* the worker has obeyed `visible` */
	SESSION_WELCOME_IMAGES = 2, /* the server keeps images: they may be named (struct session_image) */
};
#define SESSION_NONCE 32 /* bytes */
struct session_welcome {
	struct session_version version;
	int32_t result; /* CUresult of opening the device; 0: the session goes on */
	uint32_t flags;
	struct session_space space; /* where the device's memory lies: inside one of the client's, or size 0 */
	uint8_t nonce[SESSION_NONCE]; /* for SESSION_WELCOME_IMAGES; another one for each session */
	char text[768]; /* the device in words, or why not; NUL-terminated */
};

/* A sentence for two versions that do not fit; `here` and `there`: "client", "server". */
void session_mismatch(char *text, size_t size, const char *here, const struct session_version *mine, const char *there,
                      const struct session_version *other);

/* Lines to the client, so that a copy does not wait for a function of the program that takes long. */
enum session_line { SESSION_LINE_FUNCTIONS, SESSION_LINE_MEMORY, SESSION_LINE_MARKS, SESSION_LINES };

/*
 * An address of the client's own memory, as a side of a copy that a worker makes: the worker asks for the bytes when the copy runs. Rows
 * of `width` bytes, `pitch` bytes apart; they travel packed, in records of at most SESSION_CHUNK bytes.
 */
#define SESSION_FAR (1ull << 62)
struct session_far {
	uint64_t address, pitch, width, rows;
};

enum session_callback_kind { SESSION_HOST_FUNCTION, SESSION_STREAM_CALLBACK, SESSION_DESTRUCTOR };

struct session_callback {
	uint64_t kind; /* enum session_callback_kind */
	uint64_t function, user;
	uint64_t seal; /* the client's, over the three before it: the worker hands all four back as they came */
	uint64_t stream;
	int64_t status;
};

/* A launch: then its parameters, as they lie in the kernel's parameter space, padded to 8, and its attributes (CUlaunchAttribute). */
struct session_launch {
	uint64_t function, stream;
	uint32_t grid[3], block[3];
	uint32_t shared, cooperative;
	uint32_t param_bytes, attribute_count;
};

/* How the parameters of a kernel node were given. */
enum session_params { SESSION_PARAMS_NONE, SESSION_PARAMS_LIST, SESSION_PARAMS_BUFFER, SESSION_PARAMS_BOTH };

/*
 * An image that is named and not sent. `name` is the first half of the digest (base/digest.h) of its bytes; `proof` that the client has them: the
 * BLAKE2b of the digest's other half, with the nonce for a key. A worker that has not got the image, or does not believe it, answers a handle
 * of SESSION_IMAGE_WANTED, whichever it is; then the bytes are sent.
 */
#define SESSION_IMAGE_NAMED (1ull << 32)  /* in the version of an image: its one part is a struct session_image */
#define SESSION_IMAGE_BESIDE (1ull << 33) /* the same: a struct session_beside */
#define SESSION_IMAGE_WANTED UINT64_MAX
#define SESSION_IMAGE_MIN (256u << 10)   /* bytes from which an image is worth a round trip */
struct session_image {
	uint64_t size;
	uint8_t name[32], proof[32];
};
/* An image whose bytes come beside the records, as transfer `number` (wire_bulk_receive). */
struct session_beside {
	uint64_t size, number;
};

/*
 * Several objects of one sort at once: the client gives them to the program one by one. Fewer than `count` come when there is no more room; none
 * is a failure with the error of the first.
 */
enum session_stock_kind { SESSION_STOCK_EVENT, SESSION_STOCK_STREAM, SESSION_STOCK_PRIORITY_STREAM, SESSION_STOCK_KINDS };
#define SESSION_STOCK_MAX 32
struct session_stock {
	uint32_t kind, count; /* kind: enum session_stock_kind */
	uint32_t flags;       /* of cuEventCreate, cuStreamCreate, cuStreamCreateWithPriority */
	int32_t priority;
};

/*
 * Marks of events: numbers in memory, one an event, which only grow. A record of an event carries a number that the client drew, larger than all
 * before it; when the record is done, the worker's device writes it. The client reads the memory that both share, or is told over a line.
 */
#define SESSION_MARKS_COUNT 4096
#define SESSION_MARKS_BYTES (SESSION_MARKS_COUNT * sizeof(uint64_t))
struct session_marks {
	uint64_t tag; /* of shared memory of SESSION_MARKS_BYTES; 0: the client wants to be told */
};
enum session_marks_say {
	SESSION_MARKS_DONE,   /* that the record is done */
	SESSION_MARKS_SYNCED, /* and that cuEventSynchronize has nothing to bring home: what kernels printed */
};
struct session_record {
	uint64_t event, stream, number;
	uint32_t slot, reserved;
};
struct session_mark {
	uint64_t slot, number;
};

struct session_bulk {
	uint64_t address, size, stream, number;
	uint32_t async, reserved;
};

/* An attribute of a device, from the first one on: what cuDeviceGetAttribute answers of it. */
struct session_fact {
	int32_t result, value;
};

/* Host memory that the worker is to have at the client's address; sizes and addresses of what is mapped are whole pages. */
enum session_memory_action {
	SESSION_MEMORY_FILE,       /* value: the tag of a shared file of `size` bytes, which pieces are of */
	SESSION_MEMORY_MAP,        /* a piece: of the file at offset `value`, or SESSION_MEMORY_CLOSED: the worker's own, closed */
	SESSION_MEMORY_OPEN,       /* a closed piece may be touched from now on */
	SESSION_MEMORY_UNMAP,
	SESSION_MEMORY_REGISTER,   /* any bytes in pieces; flags of cuMemHostRegister */
	SESSION_MEMORY_UNREGISTER, /* waits for what uses it */
};
#define SESSION_MEMORY_CLOSED UINT64_MAX
struct session_memory {
	uint64_t action, address, size, value, flags;
};

#endif
