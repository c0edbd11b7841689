/*
 * Records: what a program asked of a device and what it got, in a file that can be played against another device.
 *
 * A file is a head, then events in the order in which calls returned, then an end event that farwarp trace writes when the program has
 * ended. Inputs and outputs of a call are the bytes of call/pack.h, so that there is one encoding; calls that rows cannot say are recorded
 * as the call that says the same: each launch as cuLaunchKernel (struct session_launch, parameters, attributes), each image as
 * cuModuleLoadDataEx or cuLibraryLoadData (as it travels to a server), each copy of boxes as cuMemcpy3D, each copy without a direction as
 * the one that has it. What a program does to host memory that a device may reach (pinned, managed) is between the calls.
 *
 * All is little-endian and padded to 8 bytes. The reader trusts nothing: a cut or changed file is an error that names the offset.
 */
#ifndef LAYERS_RECORD_H
#define LAYERS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cursor.h"
#include "call/pack.h"
#include "call/session.h"

#define RECORD_MAGIC "fwrecord" /* without the NUL */
#define RECORD_VERSION 1
#define RECORD_MARK 0x54564557u /* begins an event */
#define RECORD_PARAM_MAX 32768  /* bytes of a kernel's parameters */
#define RECORD_ATTRIBUTES_MAX 64
#define RECORD_PARTS_MAX 65536  /* images in a linked one */

struct record_head {
	char magic[8];
	uint32_t version, bytes; /* of this structure */
	uint64_t protocol;       /* call_protocol_hash() */
	char farwarp[40];        /* version that wrote it, NUL-terminated */
};

enum record_kind {
	RECORD_CONTEXT = CALL_COUNT, /* inputs: handle, device, 1 if primary: a context that the program uses and that no call gave */
	RECORD_HOST_WRITE,           /* inputs: address, bytes as an array: the program wrote to memory that the device may reach */
	RECORD_HOST_CHECK,           /* the same, but found after a synchronisation: the device wrote it */
	RECORD_END,                  /* inputs: events before it, the program's wait status */
	RECORD_KINDS
};

enum {
	RECORD_PTDS = 1,    /* called by its _ptds entry: the default stream is the thread's own */
	RECORD_OPAQUE = 2,  /* what it says could not be recorded; there are no inputs and outputs */
	RECORD_OUTPUTS = 4, /* what came out was recorded */
};

/* Then come, as arrays (count, bytes): inputs, outputs, ranges. */
struct record_event {
	uint32_t mark;
	uint16_t kind, flags;
	uint32_t thread;   /* of the system */
	int32_t result;    /* CUresult */
	uint64_t context;  /* current when the call was made */
	uint64_t size;     /* of what follows */
};

/* An allocation that an address among the outputs belongs to. */
struct record_range {
	uint64_t address, size;
};

/* ---- reading ------------------------------------------------------------------------------------------------------- */

struct record_reader {
	struct fw_cursor in;
	uint64_t events;
	bool ended;
	char error[200]; /* why record_open() or record_next() failed */
};

struct record_entry {
	struct record_event event;
	uint64_t offset, number; /* in the file; from 1 */
	struct fw_cursor inputs, outputs;
	const struct record_range *ranges;
	uint64_t range_count;
};

/* `bytes` is the whole file, and outlives the reader. */
bool record_open(struct record_reader *reader, const void *bytes, size_t size);
/* 1: *entry is the next event. 0: the end. -1: the file is cut or broken; reader->error says where. */
int record_next(struct record_reader *reader, struct record_entry *entry);

/* ---- calls that rows cannot say ------------------------------------------------------------------------------------ */

/* How a call's inputs are recorded. */
enum record_form {
	RECORD_FORM_NONE,    /* not at all: it changes nothing on the device */
	RECORD_FORM_ROWS,    /* call_pack() */
	RECORD_FORM_LAUNCH,
	RECORD_FORM_IMAGE,
	RECORD_FORM_BOX,
	RECORD_FORM_NODE,    /* a kernel of a graph: recorded as the _v2 of the call */
	RECORD_FORM_COPY,    /* cuMemcpy, cuMemcpyAsync: recorded as the call with a direction */
	RECORD_FORM_OPAQUE,
};
enum record_form record_form(enum cuda_call_id call);

struct record_launch {
	struct session_launch launch;
	const uint8_t *params;           /* launch.param_bytes */
	const CUlaunchAttribute *attributes;
};
bool record_get_launch(struct fw_cursor *in, struct record_launch *launch);

/* A kernel of a graph. launch.stream is the context, launch.cooperative says that the function is a CUkernel. */
struct record_node {
	uint64_t graph, node;        /* the graph, or the executable one; the node that is changed, 0: a new one */
	const uint64_t *dependencies;
	uint64_t count;
	struct record_launch launch; /* without attributes */
};
bool record_get_node(struct fw_cursor *in, struct record_node *node);

/* An image as a program would pass it: the bytes, or a wrapper that points to them. */
struct record_image {
	const void *image;
	void *memory, *parts; /* to be freed */
	struct {
		uint32_t magic, version;
		const void *fatbin;
		const void *const *parts;
	} wrapper;
};
/* False: no image, or out of memory. Free it in any case. */
bool record_get_image(struct fw_cursor *in, struct record_image *image);
void record_free_image(struct record_image *image);

/* A copy of a box; sides in host memory are packed rows, which follow (source) or are outputs (target). */
struct record_box {
	CUDA_MEMCPY3D copy;
	uint64_t stream;
	const uint8_t *rows; /* of a host source */
	uint64_t bytes;      /* of the box */
};
bool record_get_box(struct fw_cursor *in, struct record_box *box);
/* Bytes of the box; SIZE_MAX if they cannot be counted. */
size_t record_box_bytes(const CUDA_MEMCPY3D *copy);

#endif
