/*
 * Calls as bytes: inputs of a call into a record, the call made from it on the other side, its outputs back. Driven by the rows that
 * gen.py makes from cuda.api; knows no sockets. What rows cannot say (copies, launches, images, callbacks, structures with pointers)
 * is marked wire=custom in the table and packed by hand: client half in src/client/remote_*.c, worker half in src/server/serve_*.c.
 *
 * Inputs, in the order of parameters: a value takes 8 bytes (a structure its size, rounded up to 8); behind each pointer that is read
 * (in, inout): an 8-byte element count, or ~0 for NULL, then the elements, padded to 8. An optional or unread output says with 8 bytes
 * whether it is wanted and its capacity. Outputs: CUresult (8 bytes), then, when it is success (or the table says always), each wanted
 * output likewise. Fixed-width little-endian; structures as api/cuda.types lays them out, pointers in them are not followed.
 */
#ifndef CALL_PACK_H
#define CALL_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cursor.h"
#include "call/format.h"

/* Bytes that are written front to back. Writing past the end sets `bad` and nothing else. */
struct call_writer {
	uint8_t *data;
	size_t size, at;
	bool bad;
};

/* Whether the rows say everything about the call: else its record is custom. */
bool call_packs(enum cuda_call_id call);
/* Bytes that call_pack() writes at most. args[i] points to argument i. */
size_t call_pack_bound(enum cuda_call_id call, const void *const *args);
/* Writes the inputs. False if they do not fit. */
bool call_pack(struct call_writer *out, enum cuda_call_id call, const void *const *args);
/* Bytes that the outputs take at most. */
size_t call_reply_bound(enum cuda_call_id call, const void *const *args);
/* Reads an answer and writes the caller's outputs; the call's result. CUDA_ERROR_UNKNOWN, and *broken set, for bytes that are no answer. */
CUresult call_unpack_reply(struct fw_cursor *in, enum cuda_call_id call, const void *const *args, bool *broken);

/*
 * The worker's side: reads inputs, makes the call through `ops`, writes the answer. Every count is bounded by the bytes that are there
 * or, for outputs, by what `out` can hold. False for bytes that are no inputs of this call: the session ends. A call that ops does
 * not serve answers CUDA_ERROR_NOT_SUPPORTED. `scratch` holds outputs meanwhile (64-byte aligned, at least as large as `out`).
 */
bool call_serve(const struct cuda_ops *ops, enum cuda_call_id call, struct fw_cursor *in, struct call_writer *out, void *scratch,
                size_t scratch_size);

/* A call's arguments, and how many elements lay behind each pointer before it was made (a capacity may be an output itself). */
#define CALL_PARAMS_MAX 24
struct call_arguments {
	const void *args[CALL_PARAMS_MAX];
	uint64_t counts[CALL_PARAMS_MAX];
};
/* The parts of call_serve(): inputs into memory of ours, the call, its outputs; for any call, as far as its rows say it. */
bool call_read(enum cuda_call_id call, struct fw_cursor *in, void *scratch, size_t scratch_size, struct call_arguments *arguments);
CUresult call_invoke(const struct cuda_ops *ops, enum cuda_call_id call, const void *const *args);
bool call_put_outputs(struct call_writer *out, enum cuda_call_id call, const struct call_arguments *arguments);
/* Sets the counts from the arguments. */
void call_count(enum cuda_call_id call, struct call_arguments *arguments);

/* Writers for hand-made records. */
void call_put(struct call_writer *out, const void *bytes, size_t size); /* padded to 8 */
void call_put_u64(struct call_writer *out, uint64_t value);
void call_put_array(struct call_writer *out, const void *elements, uint64_t count, size_t size); /* count or ~0, elements */
void call_put_string(struct call_writer *out, const char *text);                                 /* with its NUL, as an array */
/* Readers. */
uint64_t call_get_u64(struct fw_cursor *in);
const void *call_get(struct fw_cursor *in, size_t size);                                         /* padded to 8 */
const void *call_get_array(struct fw_cursor *in, size_t size, uint64_t *count);                  /* NULL and count 0 for a NULL */
const char *call_get_string(struct fw_cursor *in);                                               /* NUL-terminated inside, or NULL */

/* A number over all that decides whether two builds understand each other: calls, rows, sizes of structures. */
uint64_t call_protocol_hash(void);

#endif
