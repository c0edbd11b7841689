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
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

#define HELLO_MS 5000
#define SPINS 2000 /* before a thread that waits for its turn lets others run */

static const struct cuda_ops *device;
static int handles, max_handles; /* that the client holds (atomic), and may hold */
static unsigned channels, max_channels; /* the same of channels */
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

/* To a number that this thread alone writes. */
static void
add(uint64_t *number, uint64_t more)
{
	__atomic_store_n(number, *number + more, __ATOMIC_RELAXED);
}

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
	add(&channel->bytes_out, sizeof(*record) + size);
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
	add(&call->channel->bytes_out, sizeof(*record) + size);
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
		send_record(channel, SESSION_FLUSH, SESSION_LOG, line->text, line->size, line->level);
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

/* 1: the call makes an object that stays, -1: it ends one. */
static int
handle_change(enum cuda_call_id call)
{
	static const struct {
		const char *word;
		int change;
	} words[] = { { "Create", 1 }, { "Instantiate", 1 }, { "Clone", 1 }, { "Destroy", -1 } };
	static int8_t known[CALL_COUNT]; /* atomic: the change and 2 */
	int8_t answer = __atomic_load_n(&known[call], __ATOMIC_RELAXED);

	if (!answer) {
		answer = 2;
		if (call == CALL_cuMemRelease)
			answer = 1;
		for (size_t n = 0; n < sizeof(words) / sizeof(words[0]) && answer == 2; n++)
			if (strstr(call_descs[call].name, words[n].word))
				answer = (int8_t)(2 + words[n].change);
		__atomic_store_n(&known[call], answer, __ATOMIC_RELAXED);
	}
	return answer - 2;
}

bool
sv_handle_room(const char *name, bool say)
{
	bool room = __atomic_load_n(&handles, __ATOMIC_RELAXED) < max_handles;

	if (!room && say)
		fw_warn_once("worker", "%s: the client holds %d handles, as many as --max-handles allows", name, max_handles);
	return room;
}

void
sv_handle_made(void)
{
	__atomic_add_fetch(&handles, 1, __ATOMIC_RELAXED);
}

static bool
ends_context(enum cuda_call_id call)
{
	return call == CALL_cuCtxDestroy_v2 || call == CALL_cuDevicePrimaryCtxReset_v2 || call == CALL_cuDevicePrimaryCtxRelease_v2;
}

static bool
serve_device_facts(struct sv_call *call, CUresult *result)
{
	CUdevice dev = (CUdevice)call_get_u64(&call->in);
	struct session_fact facts[CU_DEVICE_ATTRIBUTE_MAX - 1];

	if (call->in.bad)
		return false;
	for (int n = 1; n < CU_DEVICE_ATTRIBUTE_MAX; n++) {
		int value = 0;
		facts[n - 1].result = (int32_t)call->ops->cuDeviceGetAttribute(&value, (CUdevice_attribute)n, dev);
		facts[n - 1].value = value;
	}
	*result = CUDA_SUCCESS;
	call_put_array(&call->out, facts, CU_DEVICE_ATTRIBUTE_MAX - 1, sizeof(facts[0]));
	return true;
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
		int change = handle_change((enum cuda_call_id)kind);
		if (change > 0 && !sv_handle_room(call_descs[kind].name, true)) {
			result = CUDA_ERROR_OUT_OF_MEMORY;
			call_put_u64(&call->out, (uint64_t)result);
		} else {
			ok = call_serve(call->ops, (enum cuda_call_id)kind, &call->in, &call->out, outputs, sizeof(outputs));
			if (ok && call->out.at >= 8)
				memcpy(&result, call->out.data, sizeof(result));
			if (result == CUDA_SUCCESS && ends_context((enum cuda_call_id)kind)) {
				__atomic_store_n(&handles, 0, __ATOMIC_RELAXED); /* with it went what it held; other contexts' are few */
				sv_marks_context_ended();
			} else if (result == CUDA_SUCCESS && change) {
				__atomic_add_fetch(&handles, change, __ATOMIC_RELAXED);
			}
		}
	} else {
		call_put_u64(&call->out, 0);
		if (kind < CALL_COUNT)
			ok = custom[kind](call, &result) || link_died(channel);
		else if (kind == SESSION_PRIMARY_CONTEXT)
			ok = serve_primary_context(call, &result);
		else if (kind == SESSION_DEVICE_FACTS)
			ok = serve_device_facts(call, &result);
		else if (kind == SESSION_MEMORY)
			ok = sv_serve_memory(call, &result);
		else if (kind == SESSION_BULK_IN)
			ok = sv_serve_bulk_in(call, &result) || link_died(channel);
		else if (kind == SESSION_BULK_OUT)
			ok = sv_serve_bulk_out(call, &result) || link_died(channel);
		else if (kind == SESSION_MANAGED_FILE)
			ok = sv_serve_managed_file(call, &result);
		else if (kind == SESSION_MANAGED_ALLOC)
			ok = sv_serve_managed_alloc(call, &result);
		else if (kind == SESSION_PAGES_GET)
			ok = sv_serve_pages_get(call, &result);
		else if (kind == SESSION_PAGES_PUT)
			ok = sv_serve_pages_put(call, &result);
		else if (kind == SESSION_STOCK)
			ok = sv_serve_stock(call, &result);
		else if (kind == SESSION_MARKS)
			ok = sv_serve_marks(call, &result);
		else if (kind == SESSION_RECORD)
			ok = sv_serve_record(call, &result);
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
	fw_thread.in_callback = header->flags & SESSION_IN_CALLBACK;
	serve(&call, header->kind);
	if (!call.wants_answer)
		pass_turn(header->ticket);
	if (header->flags & SESSION_BLOB) {
		free(channel->blob);
		channel->blob = NULL;
	}
}

/* What went over all channels, for the log. */
static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sv_channel *counted; /* those being served; guarded by count_lock */
static uint64_t ended_in, ended_out; /* of those that ended; guarded by count_lock */

static void
count_channel(struct sv_channel *channel, bool begins)
{
	pthread_mutex_lock(&count_lock);
	struct sv_channel **at = &counted;
	while (*at && *at != channel)
		at = &(*at)->next;
	if (begins) {
		channel->next = counted;
		counted = channel;
	} else {
		*at = channel->next;
		ended_in += channel->bytes_in;
		ended_out += channel->bytes_out;
	}
	pthread_mutex_unlock(&count_lock);
}

static void
count_bytes(uint64_t *in, uint64_t *out)
{
	pthread_mutex_lock(&count_lock);
	*in = ended_in;
	*out = ended_out;
	for (const struct sv_channel *c = counted; c; c = c->next) {
		*in += __atomic_load_n(&c->bytes_in, __ATOMIC_RELAXED);
		*out += __atomic_load_n(&c->bytes_out, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&count_lock);
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
	count_channel(&channel, true);
	while ((payload = wire_wait(channel.wire->from, &header, -1))) {
		add(&channel.bytes_in, sizeof(header) + header.size);
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
	count_channel(&channel, false);
	free(channel.blob);
	free(channel.inputs);
	free(channel.scratch);
	__atomic_sub_fetch(&channels, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* ---- the session --------------------------------------------------------------------------------------------------- */

static CUresult
open_device(const struct sv_options *options, const struct session_hello *hello, struct session_welcome *welcome)
{
	sv_log_begin((int)hello->log);
	return sv_device_open(options, hello, welcome, &device);
}

static uint64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
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
	pid_t self = getpid();
	if (options->refuse) {
		snprintf(welcome.text, sizeof(welcome.text), "%s", options->refuse);
		welcome.result = CUDA_ERROR_SYSTEM_NOT_READY;
	} else if (!sv_hello_take(bytes, (size_t)size, &welcome.version, options->token, &hello, welcome.text, sizeof(welcome.text))) {
		welcome.result = CUDA_ERROR_SYSTEM_NOT_READY;
	} else if (write(options->lease_fd, &self, sizeof(self)) != sizeof(self)) {
		leave(2);
	} else {
		welcome.result = (int32_t)open_device(options, &hello, &welcome);
		if (kind != WIRE_UNIX)
			sv_images_open(options, &welcome);
	}
	bool answered = wire_hello_answer(stream, &welcome, sizeof(welcome));
	if (welcome.result != CUDA_SUCCESS) {
		if (!options->refuse) /* else the supervisor has said it */
			SV_EVENT("refused", { "worker", NULL, (uint64_t)self }, { "why", welcome.text, 0 });
		leave(2);
	}
	struct wire_link *link = answered ? wire_adopt(stream, &options->tls, error) : NULL;
	if (!link)
		leave(2);
	uint64_t begin = now_ms();
	max_handles = (int)options->max_handles;
	max_channels = options->max_threads;
	SV_EVENT("lease", { "worker", NULL, (uint64_t)self }, { "client", NULL, hello.pid }, { "device", welcome.text, 0 });
	for (struct wire_event event; wire_event_wait(link, &event);) {
		pthread_t thread;
		if (event.kind == WIRE_EVENT_MEMORY || event.kind == WIRE_EVENT_DESCRIPTOR) {
			sv_memory_arrived(event.fd, event.size, event.tag); /* a descriptor's size is 0 */
		} else if (__atomic_add_fetch(&channels, 1, __ATOMIC_RELAXED) > max_channels) {
			fw_error("worker", "the client has more than %u threads that call, which is what --max-threads allows: its session ends", max_channels);
			leave(4);
		} else if (pthread_create(&thread, NULL, serve_channel, event.channel) == 0) {
			pthread_detach(thread);
		} else {
			fw_error("worker", "no thread for another channel");
			leave(4);
		}
	}
	uint64_t bytes_in, bytes_out;
	count_bytes(&bytes_in, &bytes_out);
	SV_EVENT("end", { "worker", NULL, (uint64_t)self }, { "client", NULL, hello.pid }, { "why", wire_reason(link), 0 },
	         { "ms", NULL, now_ms() - begin }, { "bytes_in", NULL, bytes_in }, { "bytes_out", NULL, bytes_out });
	sv_images_settle();
	leave(0);
}
