/*
 * Large copies between this process's memory and the device behind a server that is not on this host: their bytes go beside the records
 * (wire_bulk_*), straight from this memory and into it. The other half is src/server/serve_bulk.c; small copies are in remote_copy.c.
 */
#include <string.h>

#include "client/remote.h"

#define BULK_MIN (1u << 20) /* bytes: less goes as a record */

bool
rm_bulk_wanted(size_t size)
{
	return size >= BULK_MIN && wire_bulk_usable(rm_link());
}

/* The worker knows of them: here they come. */
static void
send_bytes(void *user)
{
	struct rm_outgoing *outgoing = user;

	wire_bulk_send(rm_link(), outgoing->bytes, outgoing->size, NULL, NULL);
	outgoing->sent = true;
}

bool
rm_bulk_send_with(struct rm_request *r, struct rm_outgoing *outgoing, uint64_t *number)
{
	/* From here to its bytes the transfer's place is ours: its number and its record's ticket come in one order. */
	if (!r->channel || !wire_bulk_begin(rm_link(), number))
		return false;
	r->after_send = send_bytes;
	r->user = outgoing;
	return true;
}

void
rm_bulk_sent(struct rm_outgoing *outgoing)
{
	if (!outgoing->sent)
		send_bytes(outgoing); /* the link is dead: this gives the place up */
}

CUresult
rm_bulk_in(bool async, uint64_t dst, const void *src, size_t size, CUstream stream)
{
	struct rm_outgoing outgoing = { src, size, false };
	struct session_bulk bulk = { .address = dst, .size = size, .stream = (uint64_t)(uintptr_t)stream, .async = async };
	struct rm_request r;

	rm_begin(&r, SESSION_BULK_IN, sizeof(bulk));
	if (!rm_bulk_send_with(&r, &outgoing, &bulk.number)) {
		rm_end(&r);
		return rm_lost();
	}
	call_put(&r.out, &bulk, sizeof(bulk));
	CUresult result = rm_do(&r);
	rm_bulk_sent(&outgoing);
	return result;
}

struct incoming {
	void *bytes;
	size_t size;
	bool received;
};

/* The worker says that the bytes come, as which transfer. */
static void
receive_bytes(void *user, const uint8_t *bytes, size_t size)
{
	struct incoming *incoming = user;
	uint64_t number;

	if (size != sizeof(number) || incoming->received) {
		wire_kill(rm_link(), "the server announces bytes in a way that makes no sense");
		return;
	}
	memcpy(&number, bytes, sizeof(number));
	incoming->received = wire_bulk_receive(rm_link(), number, incoming->bytes, incoming->size, NULL, NULL);
}

CUresult
rm_bulk_out(bool async, void *dst, uint64_t src, size_t size, CUstream stream)
{
	struct incoming incoming = { dst, size, false };
	struct session_bulk bulk = { .address = src, .size = size, .stream = (uint64_t)(uintptr_t)stream, .async = async };
	struct rm_request r;

	rm_begin(&r, SESSION_BULK_OUT, sizeof(bulk));
	call_put(&r.out, &bulk, sizeof(bulk));
	r.sink = receive_bytes;
	r.user = &incoming;
	CUresult result = rm_do(&r);
	return result == CUDA_SUCCESS && !incoming.received ? rm_nonsense(&r) : result;
}
