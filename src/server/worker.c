/*
 * A worker: one client's process on the server's side. A thread of its own serves each channel, in the order of the tickets.
 *
 * The client is not trusted: what its records say is copied before it is looked at, read through a cursor, and the first bytes that are
 * no call end the session, which is the process.
 */
#include "server/server.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

#define HELLO_MS 5000
#define SPINS 2000 /* before a thread that waits for its turn lets others run */

static const struct cuda_ops *device;
static uint64_t turn; /* atomic: the ticket that may be served; all below it were, or await an answer of their own */

static const sv_serve_fn custom[CALL_COUNT] = {
#define CUSTOM(name) [CALL_##name] = sv_##name,
#include "server_custom.inc"
#undef CUSTOM
};

/* The end of the session: everything that the client held goes with the process. */
__attribute__((noreturn)) static void
leave(int status)
{
	fflush(NULL);
	_exit(status);
}

__attribute__((noreturn)) static void
broken(const char *what)
{
	fw_error("worker", "%s: the client does not speak the protocol; its session ends", what);
	leave(3);
}

/* ---- the order of channels ----------------------------------------------------------------------------------------- */

static bool
await_turn(const struct sv_channel *channel, uint64_t ticket)
{
	for (unsigned spins = 0; __atomic_load_n(&turn, __ATOMIC_ACQUIRE) != ticket; spins++) {
		if (spins < SPINS) {
			__builtin_ia32_pause();
		} else {
			if (!wire_alive(channel->wire->link))
				return false;
			usleep(20);
		}
	}
	return true;
}

static void
pass_turn(uint64_t ticket)
{
	__atomic_store_n(&turn, ticket + 1, __ATOMIC_RELEASE);
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static void
send_record(struct sv_channel *channel, uint16_t kind, uint16_t flags, const void *bytes, size_t size, uint64_t more)
{
	struct wire_record *record = wire_reserve(channel->wire->to, (uint32_t)size);

	if (!record)
		leave(0);
	record->size = (uint32_t)size;
	record->kind = kind;
	record->flags = flags;
	record->more = more;
	if (size)
		memcpy(record->payload, bytes, size);
	wire_publish_wake(channel->wire->to, record);
}

void *
sv_part_reserve(struct sv_call *call, uint32_t size)
{
	struct wire_record *record = wire_reserve(call->channel->wire->to, size);

	if (!record)
		leave(0);
	return record->payload;
}

void
sv_part_send(struct sv_call *call, void *part, uint32_t size)
{
	struct wire_record *record = (struct wire_record *)((uint8_t *)part - offsetof(struct wire_record, payload));

	record->size = size;
	record->kind = (uint16_t)call->id;
	record->flags = SESSION_MORE;
	record->more = 0;
	wire_publish_wake(call->channel->wire->to, record);
}

void
sv_answer_with(struct sv_call *call, uint8_t *bytes, size_t size)
{
	call->own = bytes;
	call->own_size = size;
}

/* A real driver prints within calls that wait (CUDA C++ programming guide, formatted output). */
static bool
may_print(uint16_t kind)
{
	return kind >= CALL_COUNT || call_descs[kind].class == CALL_CLASS_SYNC;
}

/* What kernels printed and the device logged goes ahead of the answer, so that a program that synchronises sees it. */
static void
send_output(struct sv_channel *channel, uint16_t kind)
{
	size_t size = 0;
	char *text = sv_output_take(&size, may_print(kind));

	for (struct sv_line *line; (line = sv_log_take()); free(line))
		send_record(channel, SESSION_FLUSH, SESSION_LOG, line->text, line->size, (uint64_t)line->level);
	for (size_t at = 0; at < size; at += SESSION_CHUNK)
		send_record(channel, SESSION_FLUSH, SESSION_OUTPUT, text + at, size - at < SESSION_CHUNK ? size - at : SESSION_CHUNK, 0);
	free(text);
}

static void
answer(struct sv_channel *channel, uint16_t kind, const uint8_t *bytes, size_t size)
{
	size_t at = 0;

	send_output(channel, kind);
	for (; size - at > WIRE_PAYLOAD_MAX; at += SESSION_CHUNK)
		send_record(channel, kind, SESSION_MORE, bytes + at, SESSION_CHUNK, 0);
	send_record(channel, kind, SESSION_ANSWER, bytes + at, size - at, (uint64_t)channel->late);
	channel->late = CUDA_SUCCESS;
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

static void
take_blob_part(struct sv_channel *channel, const struct wire_record *header, const uint8_t *payload)
{
	if (!channel->blob) {
		if (header->more > SESSION_BLOB_MAX || header->more == 0)
			broken("a call's inputs are too large");
		channel->blob = malloc(header->more);
		channel->blob_size = header->more;
		channel->blob_at = 0;
		if (!channel->blob) {
			fw_error("worker", "out of memory for %llu bytes of a call's inputs", (unsigned long long)header->more);
			leave(4);
		}
	}
	if (header->size > channel->blob_size - channel->blob_at)
		broken("parts of a call's inputs");
	memcpy(channel->blob + channel->blob_at, payload, header->size);
	channel->blob_at += header->size;
}

static bool
serve_primary_context(struct sv_call *call, CUresult *result)
{
	CUdevice dev = (CUdevice)call_get_u64(&call->in);
	CUcontext ctx = NULL;

	if (call->in.bad)
		return false;
	*result = call->ops->primary_context(&ctx, dev);
	call_put_u64(&call->out, (uint64_t)(uintptr_t)ctx);
	return true;
}

/* A session that ends because its link does is not its client's fault. */
static bool
link_died(const struct sv_channel *channel)
{
	if (!wire_alive(channel->wire->link))
		leave(0);
	return false;
}

/* Serves one call whose inputs stand in call->in. */
static void
serve(struct sv_call *call, uint16_t kind)
{
	struct sv_channel *channel = call->channel;
	CUresult result = CUDA_ERROR_NOT_SUPPORTED;
	bool ok = true;

	call->out = (struct call_writer){ .data = channel->scratch, .size = SV_SCRATCH };
	if (kind < CALL_COUNT && !custom[kind]) {
		static __thread uint8_t outputs[SV_SCRATCH] __attribute__((aligned(64)));
		if (!call_packs((enum cuda_call_id)kind))
			broken("a call that is not forwarded");
		ok = call_serve(call->ops, (enum cuda_call_id)kind, &call->in, &call->out, outputs, sizeof(outputs));
		if (ok && call->out.at >= 8)
			memcpy(&result, call->out.data, sizeof(result));
	} else {
		call_put_u64(&call->out, 0);
		if (kind < CALL_COUNT)
			ok = custom[kind](call, &result);
		else if (kind == SESSION_PRIMARY_CONTEXT)
			ok = serve_primary_context(call, &result);
		else if (kind == SESSION_MEMORY)
			ok = sv_serve_memory(call, &result);
		else if (kind == SESSION_BULK_IN)
			ok = sv_serve_bulk_in(call, &result) || link_died(channel);
		else if (kind == SESSION_BULK_OUT)
			ok = sv_serve_bulk_out(call, &result) || link_died(channel);
		else if (kind == SESSION_MANAGED_FILE)
			ok = sv_serve_managed_file(call, &result);
		else if (kind == SESSION_PAGES_GET)
			ok = sv_serve_pages_get(call, &result);
		else if (kind == SESSION_PAGES_PUT)
			ok = sv_serve_pages_put(call, &result);
		else if (kind == SESSION_FLUSH)
			result = CUDA_SUCCESS;
		else
			ok = false;
		int64_t value = result;
		memcpy(call->out.data, &value, sizeof(value));
		if (call->own)
			memcpy(call->own, &value, sizeof(value));
	}
	if (!ok || call->out.bad)
		broken(kind < CALL_COUNT ? call_descs[kind].name : "a record");
	if (call->wants_answer)
		answer(channel, kind, call->own ? call->own : call->out.data, call->own ? call->own_size : call->out.at);
	else if (result != CUDA_SUCCESS && channel->late == CUDA_SUCCESS)
		channel->late = result;
	free(call->own);
}

/* Calls whose bytes stay in the ring; serve_copy.c does not care what they are. */
static bool
is_bulk(uint16_t kind)
{
	return kind == CALL_cuMemcpyHtoD_v2 || kind == CALL_cuMemcpyHtoDAsync_v2;
}

static void
take_record(struct sv_channel *channel, const struct wire_record *header, const uint8_t *payload)
{
	struct sv_call call = { .channel = channel, .ops = channel->ops, .id = (enum cuda_call_id)header->kind,
		.wants_answer = header->flags & SESSION_ANSWER };

	if (header->flags & SESSION_BLOB) {
		if (!channel->blob || channel->blob_at != channel->blob_size || header->size)
			broken("parts of a call's inputs");
		call.in = fw_cursor(channel->blob, channel->blob_size);
	} else if (is_bulk(header->kind)) {
		call.in = fw_cursor(payload, header->size); /* each number in it is read once */
	} else {
		memcpy(channel->inputs, payload, header->size);
		call.in = fw_cursor(channel->inputs, header->size);
	}
	if (!await_turn(channel, header->ticket))
		leave(0);
	if (call.wants_answer)
		pass_turn(header->ticket);
	fw_thread.ctx = (void *)(uintptr_t)header->context;
	fw_thread.per_thread_stream = header->flags & SESSION_PER_THREAD;
	serve(&call, header->kind);
	if (!call.wants_answer)
		pass_turn(header->ticket);
	if (header->flags & SESSION_BLOB) {
		free(channel->blob);
		channel->blob = NULL;
	}
}

static void *
serve_channel(void *argument)
{
	struct sv_channel channel = { .wire = argument, .ops = device, .inputs = malloc(WIRE_PAYLOAD_MAX),
		.scratch = malloc(SV_SCRATCH) };
	struct wire_record header;
	const uint8_t *payload;

	if (!channel.inputs || !channel.scratch) {
		fw_error("worker", "out of memory for a channel");
		leave(4);
	}
	while ((payload = wire_wait(channel.wire->from, &header, -1))) {
		if (header.kind == SESSION_CALLBACKS) {
			wire_release(channel.wire->from);
			if (!sv_line_take(channel.wire, header.more))
				broken("a line for requests");
			channel.handed_over = true;
			break;
		}
		if (header.kind == SESSION_BLOB_PART)
			take_blob_part(&channel, &header, payload);
		else if (header.kind < SESSION_KINDS)
			take_record(&channel, &header, payload);
		else
			broken("a record");
		wire_release(channel.wire->from);
	}
	if (!channel.handed_over)
		wire_channel_close(channel.wire);
	free(channel.blob);
	free(channel.inputs);
	free(channel.scratch);
	return NULL;
}

/* ---- the session --------------------------------------------------------------------------------------------------- */

static CUresult
open_device(const struct sv_options *options, const struct session_hello *hello, struct session_welcome *welcome)
{
	sv_log_begin((int)hello->log);
	return sv_device_open(options, hello, welcome, &device);
}

/* Constant time, so that how long it takes does not tell how much of it was right. */
static bool
same_token(const char *a, const char *b, size_t size)
{
	volatile unsigned differ = 0; /* no early end is made of it */

	for (size_t n = 0; n < size; n++)
		differ |= (unsigned char)a[n] ^ (unsigned char)b[n];
	return !differ;
}

/* Whether the client may have a lease; else a sentence says why not. */
static bool
accept_hello(const struct sv_options *options, const struct session_version *mine, const struct session_hello *hello, long size, char *text,
             size_t text_size)
{
	char token[sizeof(hello->token)] = "";

	if (size < (long)sizeof(hello->version) || memcmp(hello->version.magic, SESSION_MAGIC, sizeof(SESSION_MAGIC)) != 0) {
		snprintf(text, text_size, "this is a farwarp server; the client is something else");
		return false;
	}
	if (size != (long)sizeof(*hello) || hello->version.protocol != mine->protocol) {
		session_mismatch(text, text_size, "server", mine, "client", &hello->version);
		return false;
	}
	if (options->token)
		snprintf(token, sizeof(token), "%s", options->token);
	if (!same_token(token, hello->token, sizeof(token))) {
		snprintf(text, text_size, "the lease token is missing or wrong");
		return false;
	}
	return true;
}

void
sv_work(int fd, enum wire_kind kind, const struct sv_options *options)
{
	struct session_hello hello;
	uint8_t bytes[WIRE_HELLO_MAX];
	struct session_welcome welcome = { .version = { .magic = SESSION_MAGIC, .protocol = call_protocol_hash(), .version = FARWARP_VERSION } };
	char error[256];

	signal(SIGPIPE, SIG_IGN);
	/* No supervisor, no lease; also for a stopped worker, and if it died before this. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct pollfd supervisor = { .fd = options->lease_fd };
	if (poll(&supervisor, 1, 0) > 0)
		leave(2);
	struct wire_stream *stream = wire_accept(fd, kind, &options->tls, HELLO_MS, error);
	if (!stream && !error[0])
		leave(0); /* another worker's */
	long size = stream ? wire_hello_read(stream, bytes, HELLO_MS, error) : -1;
	if (size < 0) {
		fw_warn("worker", "%s", error);
		leave(2);
	}
	memset(&hello, 0, sizeof(hello));
	memcpy(&hello, bytes, (size_t)size < sizeof(hello) ? (size_t)size : sizeof(hello));
	hello.version.version[sizeof(hello.version.version) - 1] = hello.token[sizeof(hello.token) - 1] = hello.visible[sizeof(hello.visible) - 1] = 0;
	pid_t self = getpid();
	if (!accept_hello(options, &welcome.version, &hello, size, welcome.text, sizeof(welcome.text)))
		welcome.result = CUDA_ERROR_SYSTEM_NOT_READY;
	else if (write(options->lease_fd, &self, sizeof(self)) != sizeof(self))
		leave(2);
	else
		welcome.result = (int32_t)open_device(options, &hello, &welcome);
	bool answered = wire_hello_answer(stream, &welcome, sizeof(welcome));
	if (welcome.result != CUDA_SUCCESS) {
		fw_warn("worker", "client refused: %s", welcome.text);
		leave(2);
	}
	struct wire_link *link = answered ? wire_adopt(stream, &options->tls, error) : NULL;
	if (!link)
		leave(2);
	fw_info("worker", "client %u: %s", hello.pid, welcome.text);
	for (struct wire_event event; wire_event_wait(link, &event);) {
		pthread_t thread;
		if (event.kind == WIRE_EVENT_MEMORY || event.kind == WIRE_EVENT_DESCRIPTOR) {
			sv_memory_arrived(event.fd, event.size, event.tag); /* a descriptor's size is 0 */
		} else if (pthread_create(&thread, NULL, serve_channel, event.channel) == 0) {
			pthread_detach(thread);
		} else {
			fw_error("worker", "no thread for another channel");
			leave(4);
		}
	}
	fw_info("worker", "client %u left: %s", hello.pid, wire_reason(link));
	leave(0);
}
