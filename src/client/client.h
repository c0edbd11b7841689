/*
 * The client library inside: the gate that every exported call passes, and what the hand-written answers share.
 *
 * An exported function is generated (client_exports.inc): if the gate is open, which is one load and one branch, its answer_NAME checks
 * the context and the outputs, and asks the implementation in cl_ops or a hand-written cl_NAME. If not (before cuInit, in a forked child,
 * while traced), slow_NAME does so between cl_slow_begin() and cl_slow_end().
 */
#ifndef CL_CLIENT_H
#define CL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/thread.h"
#include "client_custom.h"
#include "cuda_ops.h"

#define CL_EXPORT __attribute__((visibility("default")))
#define CL_DRIVER_VERSION 13010 /* the most that cuDriverGetVersion answers: PTX ISA 9.1 and the API of CUDA 13.0 */
#define CL_MAX_DEVICES 16

enum cl_needs { CL_NEEDS_NONE, CL_NEEDS_INIT, CL_NEEDS_CONTEXT };

/* Bits of cl_gate. Zero means: open, no trace. */
enum {
	CL_GATE_CLOSED = 1, /* before cuInit, after it failed, in the child of a fork, during exit: cl_state says which */
	CL_GATE_TRACE = 2,  /* farwarp trace, or FARWARP_LOG=calls */
	CL_GATE_FIRST = 4,  /* whether to trace has not been read yet */
};
extern unsigned cl_gate; /* atomic; cleared (release) after cl_ops was written, so that it pairs with the load in cl_enter */

enum cl_state {
	CL_STATE_NEW,      /* cuInit has not succeeded */
	CL_STATE_OPEN,
	CL_STATE_FORKED,   /* the child of a process that had called cuInit */
	CL_STATE_CLOSED,   /* the process is exiting */
};
extern enum cl_state cl_state; /* atomic */

/* What cuDriverGetVersion answers, also before cuInit: that of the machine's driver if it is the device and older. */
int cl_driver_version(void);

extern const struct cuda_ops *cl_ops; /* the implementation; NULL until cuInit has succeeded */

CUresult cl_enter_slow(enum cl_needs needs);

static inline CUresult
cl_enter(enum cl_needs needs)
{
	if (__builtin_expect(__atomic_load_n(&cl_gate, __ATOMIC_ACQUIRE) != 0, 0)) {
		CUresult result = cl_enter_slow(needs);
		if (result != CUDA_SUCCESS)
			return result;
	}
	if (needs == CL_NEEDS_CONTEXT && __builtin_expect(fw_thread.ctx == NULL, 0))
		return CUDA_ERROR_INVALID_CONTEXT;
	return CUDA_SUCCESS;
}

static inline bool
cl_gate_is_open(void)
{
	return __builtin_expect(__atomic_load_n(&cl_gate, __ATOMIC_ACQUIRE) == 0, 1);
}

/* A call that goes the slow way; on the stack of slow_NAME. */
struct trace_slot;
struct recording;
#define CL_SLOW_TEXT 2400
struct cl_slow {
	bool traced;
	enum cuda_call_id call;
	const char *symbol; /* the exported name that was called */
	void *caller;       /* an address in the code that called it */
	const void *const *args;
	/* The rest is trace.c's. */
	uint64_t begin, awaited, sent, received;
	unsigned row; /* of counts */
	struct trace_slot *slot;
	struct recording *recording;
	bool shown;
	char text[CL_SLOW_TEXT]; /* the inputs */
};
CUresult cl_slow_begin(struct cl_slow *slow, enum cuda_call_id call, enum cl_needs needs, const char *symbol, void *caller,
                       const void *const *args);
CUresult cl_slow_end(struct cl_slow *slow, CUresult result);
#define CL_SLOW static __attribute__((cold, noinline))

CUresult cl_refuse(enum cuda_call_id call, CUresult error); /* the table says that this is not served */
CUresult cl_unserved(enum cuda_call_id call);               /* the implementation does not serve it */

/* Around a call that came through a per-thread entry whose stream is not an argument. */
static inline void
cl_ptds_begin(void)
{
	fw_thread.per_thread_stream = true;
}

static inline void
cl_ptds_end(void)
{
	fw_thread.per_thread_stream = false;
}

/* ---- contexts (context.c) and their local storage (storage.c) ---------------------------------------------------- */

struct cl_storage_chunk;

struct cl_storage {
	struct cl_storage_chunk *chunks; /* atomic; chunks are added at the front and live as long as their context's record */
};

/* What the client knows of a context. Records are reused and never freed, so that a thread may keep a pointer to one. */
struct cl_context {
	CUcontext handle; /* atomic; NULL: the record is free. A record fits a handle only as long as they are equal */
	CUdevice device;
	unsigned api_version;
	unsigned users;    /* cuCtxAttach counts; guarded by the context lock */
	unsigned retained; /* of a primary context; guarded by the context lock */
	bool primary;
	bool dying;        /* guarded by the context lock */
	uint64_t id;       /* never 0, never used twice */
	struct cl_storage storage;
};

/* The record of a context, or of the current one for NULL; NULL if there is none (or it was destroyed). */
struct cl_context *cl_context_find(CUcontext ctx);
/* 201 for no context, 709 for a current one that was destroyed; only after cl_context_find(NULL) answered NULL. */
CUresult cl_context_missing(CUcontext ctx);
CUresult cl_context_primary(CUcontext *ctx, CUdevice dev); /* the handle, not retained */
void cl_context_after_fork(void);

typedef void (*cl_storage_destructor)(CUcontext ctx, void *key, void *value);

CUresult cl_storage_put(struct cl_context *context, void *key, void *value, cl_storage_destructor destructor);
CUresult cl_storage_delete(struct cl_context *context, void *key);
CUresult cl_storage_get(struct cl_context *context, void *key, void **value);
void cl_storage_destroy(struct cl_context *context); /* calls the destructors, on the calling thread, without a lock held */
void cl_storage_after_fork(void);

/* ---- which devices are visible (settings.c) ---------------------------------------------------------- */

/*
 * CUDA_VISIBLE_DEVICES: writes the ordinals of the devices that stay visible, in its order, and returns their number.
 * `uuid(i, user)` gives the 16 bytes of device i. `list` NULL: all.
 */
int cl_settings_visible(const char *list, int count, const uint8_t *(*uuid)(int device, void *user), void *user,
                        int *visible);

/* ---- private tables (export_tables.c) and the software validity answer (validity.c) -------------------------------- */

struct cl_validity_device {
	uint8_t uuid[16];
	int32_t pci_domain, pci_bus, pci_device;
};

/* What goes into the answer besides the devices. */
struct cl_validity_input {
	uint32_t driver_version, id, pid, thread;
	uint64_t cudart_table, validity_table, validity_function, seconds;
};

/* Writes the 16 bytes of the answer; false if this library was built without it. */
bool cl_validity_answer(const struct cl_validity_input *input, const struct cl_validity_device *devices, int count,
                        uint8_t answer[16]);
void cl_md2(const void *data, size_t size, uint8_t digest[16]);
void cl_hmac_md2(const uint8_t key[16], const void *data, size_t size, uint8_t digest[16]);

/* ---- messages that programs may read (logs.c) ---------------------------------------------------------------------- */

void cl_logs_begin(void);
void cl_logs_after_fork(void);

#endif
