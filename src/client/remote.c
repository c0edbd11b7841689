/*
 * Calls to a worker: records out, answers in, one channel a thread. See remote.h.
 */
#include "client/remote.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

#define CONNECT_MS 10000
#define KEPT 1024 /* answers that are kept */
#define DEVICES 64     /* whose attributes are kept */
#define SETTINGS 512   /* attributes of functions that are kept */

static struct wire_link *link_;
static pthread_key_t thread_key;
static __thread struct rm_thread *mine __attribute__((tls_model("initial-exec")));
static uint64_t tickets __attribute__((aligned(128))); /* atomic */
uint64_t rm_epochs[CALL_TOUCHES_KINDS];
static uint64_t heard __attribute__((aligned(128))); /* atomic */
static bool strict;
static bool closed, failed, printed; /* atomic */
static bool chosen; /* the worker has obeyed CUDA_VISIBLE_DEVICES */
static bool keeps_images; /* the server may be told the names of images */
static uint8_t image_nonce[SESSION_NONCE];
static char server[300];

struct wire_link *
rm_link(void)
{
	return link_;
}

bool
rm_strict(void)
{
	return strict;
}

uint64_t
rm_tickets(void)
{
	return __atomic_load_n(&tickets, __ATOMIC_ACQUIRE);
}

uint64_t
rm_heard(void)
{
	return __atomic_load_n(&heard, __ATOMIC_ACQUIRE);
}

void
rm_hear(void)
{
	__atomic_add_fetch(&heard, 1, __ATOMIC_ACQ_REL);
}

bool
rm_has_printed(void)
{
	return __atomic_load_n(&printed, __ATOMIC_RELAXED);
}

/* The program is past its end, or is the child of a fork: nothing may be told to the server. */
static bool
is_closed(void)
{
	return __atomic_load_n(&closed, __ATOMIC_ACQUIRE);
}

CUresult
rm_lost(void)
{
	static bool said;

	if (wire_alive(link_) && !is_closed() && !mine) {
		fw_warn_once("client", "a thread gets no channel to the server: out of memory or descriptors");
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (!is_closed())
		wire_kill(link_, "it ended a channel");
	if (!is_closed() && !__atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
		fw_error("client", "the server %s is lost: %s; all that this process had on its GPU is gone", server, wire_reason(link_));
	return CUDA_ERROR_DEVICE_UNAVAILABLE;
}

CUresult
rm_nonsense(const struct rm_request *r)
{
	wire_kill(link_, "its answer to %s makes no sense", r->kind < CALL_COUNT ? call_descs[r->kind].name : "a request");
	return rm_lost();
}

static void
end_thread(void *argument)
{
	struct rm_thread *thread = argument;

	if (!is_closed())
		wire_channel_close(thread->channel);
	free(thread);
}

struct rm_thread *
rm_thread(void)
{
	if (__builtin_expect(mine != NULL, 1))
		return mine;
	struct rm_thread *thread = is_closed() ? NULL : calloc(1, sizeof(*thread));
	if (thread && !(thread->channel = wire_channel_open(link_))) {
		free(thread);
		thread = NULL;
	}
	if (thread) {
		static uint64_t numbers;
		thread->number = __atomic_add_fetch(&numbers, 1, __ATOMIC_RELAXED);
		pthread_setspecific(thread_key, thread);
	}
	mine = thread;
	return thread;
}

struct rm_traffic
rm_traffic(void)
{
	return mine ? mine->traffic : (struct rm_traffic){ 0 };
}

/* ---- calls by their names ------------------------------------------------------------------------------------------ */

static bool
has_word(enum cuda_call_id call, const char *const *words, size_t count)
{
	for (size_t n = 0; n < count; n++)
		if (strstr(call_descs[call].name, words[n]))
			return true;
	return false;
}

static bool
is_of_graphs(enum cuda_call_id call)
{
	return strncmp(call_descs[call].name, "cuGraph", 7) == 0;
}

/* ---- memory whose pages move --------------------------------------------------------------------------------------- */

/* Work for the device, that may read or write memory. Host functions and events do not; nor do allocations. */
static bool
is_work(uint16_t kind)
{
	static const char *const not[] = { "cuEvent", "cuStreamWaitEvent", "cuStreamAttach", "cuMemAdvise", "cuMemAlloc", "cuMemFree",
		"cuLaunchHostFunc", "cuStreamAddCallback" };
	static const char *const yes[] = { "Memcpy", "Memset", "Launch" };
	static uint8_t known[CALL_COUNT]; /* atomic: 1 no, 2 yes */

	if (kind >= CALL_COUNT)
		return kind == SESSION_BULK_IN || kind == SESSION_BULK_OUT;
	uint8_t answer = __atomic_load_n(&known[kind], __ATOMIC_RELAXED);
	if (!answer) {
		answer = call_descs[kind].class == CALL_CLASS_ASYNC || has_word(kind, yes, sizeof(yes) / sizeof(yes[0])) ? 2 : 1;
		for (size_t n = 0; n < sizeof(not) / sizeof(not[0]); n++)
			if (strncmp(call_descs[kind].name, not[n], strlen(not[n])) == 0)
				answer = 1;
		__atomic_store_n(&known[kind], answer, __ATOMIC_RELAXED);
	}
	return answer == 2;
}

static inline bool
pages_move(uint16_t kind)
{
	return __builtin_expect(__atomic_load_n(&rm_pages_used, __ATOMIC_RELAXED) != 0, 0) && is_work(kind);
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

void
rm_begin(struct rm_request *r, uint16_t kind, size_t bound)
{
	struct rm_thread *thread = rm_thread();

	if (pages_move(kind))
		rm_pages_before_work();
	*r = (struct rm_request){ .channel = thread ? thread->channel : NULL, .kind = kind };
	if (bound <= WIRE_PAYLOAD_MAX) {
		r->record = r->channel ? wire_reserve(r->channel->to, (uint32_t)bound) : NULL;
		if (!r->record)
			r->channel = NULL;
		else
			r->out = (struct call_writer){ .data = r->record->payload, .size = bound };
	} else if ((r->heap = malloc(bound))) {
		r->out = (struct call_writer){ .data = r->heap, .size = bound };
	}
}

static void
publish(struct rm_request *r, struct wire_record *record, uint16_t kind, uint16_t flags, uint64_t more, uint32_t size)
{
	record->kind = kind;
	record->flags = (uint16_t)(flags | (fw_thread.per_thread_stream ? SESSION_PER_THREAD : 0) |
	                           (fw_thread.in_callback ? SESSION_IN_CALLBACK : 0));
	record->context = (uint64_t)(uintptr_t)fw_thread.ctx;
	record->more = more;
	record->size = size;
	mine->traffic.sent += sizeof(*record) + size;
	/* From here to the publication nothing waits: other threads' records may be behind this ticket. */
	record->ticket = r->ticket = kind == SESSION_BLOB_PART ? 0 : __atomic_fetch_add(&tickets, 1, __ATOMIC_ACQ_REL);
	if (flags & SESSION_ANSWER)
		wire_publish_wake(r->channel->to, record);
	else
		wire_publish(r->channel->to, record);
}

static CUresult
send(struct rm_request *r, uint16_t flags)
{
	if (!r->channel)
		return rm_lost();
	if (r->record) {
		publish(r, r->record, r->kind, flags, 0, (uint32_t)r->out.at);
		return CUDA_SUCCESS;
	}
	if (!r->heap)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (size_t at = 0; at < r->out.at; at += SESSION_CHUNK) {
		size_t size = r->out.at - at < SESSION_CHUNK ? r->out.at - at : SESSION_CHUNK;
		struct wire_record *part = wire_reserve(r->channel->to, (uint32_t)size);
		if (!part)
			return rm_lost();
		memcpy(part->payload, r->heap + at, size);
		publish(r, part, SESSION_BLOB_PART, 0, r->out.at, (uint32_t)size);
	}
	struct wire_record *last = wire_reserve(r->channel->to, 0);
	if (!last)
		return rm_lost();
	publish(r, last, r->kind, flags | SESSION_BLOB, 0, 0);
	return CUDA_SUCCESS;
}

bool
rm_failed(void)
{
	return __atomic_load_n(&failed, __ATOMIC_RELAXED);
}

/* Errors of execution, which stay with the context (driver API, CUresult). */
static bool
is_sticky(CUresult result)
{
	return result == CUDA_ERROR_ILLEGAL_ADDRESS || result == CUDA_ERROR_LAUNCH_TIMEOUT || result == CUDA_ERROR_ASSERT ||
	       (result >= CUDA_ERROR_HARDWARE_STACK_ERROR && result <= CUDA_ERROR_LAUNCH_FAILED);
}

/*
 * What the device is given may name host memory that it does not see yet (rm_host_unreached): parameters of kernels, fills, nodes of graphs.
 * It is shown that memory before the record goes, over a channel of its own, as this record is being filled.
 */
static void
show_memory(const struct rm_request *r)
{
	static struct rm_thread *side; /* guarded by lock */
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct rm_thread *own = mine;
	uint64_t p;

	if (!r->channel || r->kind >= CALL_COUNT || r->kind == CALL_cuMemcpyHtoD_v2 || r->kind == CALL_cuMemcpyHtoDAsync_v2 ||
	    (!is_work(r->kind) && !is_of_graphs(r->kind)))
		return;
	while ((p = rm_host_own(r->out.data, r->out.at))) {
		pthread_mutex_lock(&lock);
		if (!side && (side = calloc(1, sizeof(*side))) && !(side->channel = wire_channel_open(link_))) {
			free(side);
			side = NULL;
		}
		mine = side;
		if (side) {
			rm_host_reach(p);
			rm_pages_before_work();
		}
		mine = own;
		pthread_mutex_unlock(&lock);
		if (!side)
			return;
	}
}

CUresult
rm_send(struct rm_request *r)
{
	if (__builtin_expect(__atomic_load_n(&rm_host_unreached, __ATOMIC_ACQUIRE) != 0, 0))
		show_memory(r);
	if (strict || rm_failed())
		return rm_do(r);
	CUresult result = send(r, 0);
	rm_end(r);
	return result;
}

/* "component: text" of the device's log, as a line of ours. */
static void
log_line(const struct wire_record *header, const uint8_t *payload)
{
	char text[2048];
	size_t size = header->size < sizeof(text) ? header->size : sizeof(text) - 1;
	int level = header->more < FW_LOG_DEBUG ? (int)header->more : FW_LOG_DEBUG;

	if (header->more == SESSION_LOG_RAW) {
		fwrite(payload, 1, header->size, stderr);
		return;
	}
	for (size_t n = 0; n < size; n++)
		text[n] = payload[n] < ' ' || payload[n] == 127 ? ' ' : (char)payload[n];
	text[size] = 0;
	char *colon = strstr(text, ": ");
	if (colon)
		*colon = 0;
	fw_log((enum fw_log_level)level, colon ? text : "server", "%s", colon ? colon + 2 : text);
}

/* A part of an answer; false when out of memory. */
static bool
take_part(struct rm_request *r, const struct wire_record *header, const uint8_t *payload)
{
	if (header->flags & SESSION_LOG) {
		log_line(header, payload);
		return true;
	}
	if (header->flags & SESSION_OUTPUT) {
		__atomic_store_n(&printed, true, __ATOMIC_RELAXED);
		fwrite(payload, 1, header->size, stdout);
		fflush(stdout);
		return true;
	}
	if (r->sink) {
		r->sink(r->user, payload, header->size);
		return true;
	}
	uint8_t *more = r->part_size < SESSION_BLOB_MAX ? realloc(r->parts, r->part_size + header->size + WIRE_PAYLOAD_MAX) : NULL;
	if (!more)
		return false;
	r->parts = more;
	memcpy(r->parts + r->part_size, payload, header->size);
	r->part_size += header->size;
	return true;
}

/* Calls that may name an event which is then recorded otherwise than by cuEventRecord: by nodes of graphs. They are awaited, all of them. */
static bool
gives_events_away(uint16_t kind)
{
	return kind < CALL_COUNT && kind != CALL_cuGraphLaunch && is_of_graphs(kind);
}

CUresult
rm_ask(struct rm_request *r, struct fw_cursor *in)
{
	struct wire_record header;
	const uint8_t *payload;
	bool whole = true;

	*in = fw_cursor(NULL, 0);
	if (__builtin_expect(__atomic_load_n(&rm_host_unreached, __ATOMIC_ACQUIRE) != 0, 0))
		show_memory(r);
	if (gives_events_away(r->kind))
		rm_event_opaque(r->out.data, r->out.data ? r->out.at : 0);
	r->heard = rm_heard();
	CUresult result = send(r, SESSION_ANSWER);
	if (result != CUDA_SUCCESS)
		return result;
	if (r->after_send)
		r->after_send(r->user);
	mine->traffic.awaited++;
	for (;;) {
		payload = wire_wait(r->channel->from, &header, -1);
		if (!payload)
			return rm_lost();
		mine->traffic.received += sizeof(header) + header.size;
		if (header.kind != r->kind && !(header.flags & (SESSION_OUTPUT | SESSION_LOG)))
			return rm_nonsense(r);
		if (!(header.flags & (SESSION_MORE | SESSION_OUTPUT | SESSION_LOG)))
			break;
		whole &= take_part(r, &header, payload);
		wire_release(r->channel->from);
	}
	r->answered = true;
	rm_hear();
	if (r->parts && whole) { /* take_part() left room for the last one */
		memcpy(r->parts + r->part_size, payload, header.size);
		*in = fw_cursor(r->parts, r->part_size + header.size);
	} else {
		*in = fw_cursor(payload, header.size);
	}
	result = (CUresult)(int64_t)call_get_u64(in);
	if (in->bad)
		return rm_nonsense(r);
	if (!whole)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (result == CUDA_SUCCESS)
		result = (CUresult)header.more;
	if (is_sticky(result))
		__atomic_store_n(&failed, true, __ATOMIC_RELAXED);
	return result;
}

void
rm_end(struct rm_request *r)
{
	if (r->answered)
		wire_release(r->channel->from);
	free(r->heap);
	free(r->parts);
	r->answered = false;
	r->heap = r->parts = NULL;
	if (pages_move(r->kind))
		rm_pages_after_work();
}

CUresult
rm_do(struct rm_request *r)
{
	struct fw_cursor in;
	CUresult result = rm_ask(r, &in);

	rm_end(r);
	return result;
}

/* ---- calls that rows can say --------------------------------------------------------------------------------------- */

static CUresult
unpack(struct fw_cursor *in, enum cuda_call_id call, const void *const *args)
{
	bool is_broken = false;
	CUresult result = call_unpack_reply(in, call, args, &is_broken);

	return is_broken ? rm_nonsense(&(struct rm_request){ .kind = (uint16_t)call }) : result;
}

/* Calls after which a handle, an address range or an attribute may not be what it was. */
static bool
ends_something(enum cuda_call_id call)
{
	static const char *const words[] = { "Free", "Unmap", "Unload", "Destroy", "Reset", "Release", "Set", "Trim", "BeginCapture", "EndCapture" };
	static uint8_t known[CALL_COUNT]; /* atomic: 1 no, 2 yes */
	uint8_t answer = __atomic_load_n(&known[call], __ATOMIC_RELAXED);

	if (!answer) {
		answer = has_word(call, words, sizeof(words) / sizeof(words[0])) ? 2 : 1;
		__atomic_store_n(&known[call], answer, __ATOMIC_RELAXED);
	}
	return answer == 2;
}

/* Calls that take memory or a handle of the client's share. */
static bool
makes_something(enum cuda_call_id call)
{
	static const char *const words[] = { "Create", "Instantiate", "Clone", "Alloc" };

	return has_word(call, words, sizeof(words) / sizeof(words[0]));
}

static void
end_epoch(unsigned kinds)
{
	for (unsigned n = 0; n < CALL_TOUCHES_KINDS; n++)
		if (kinds >> n & 1)
			__atomic_add_fetch(&rm_epochs[n], 1, __ATOMIC_ACQ_REL);
}

/* A call's bytes (whole words) and what they mean where it is made. */
static uint64_t
bytes_hash(uint16_t call, const uint8_t *bytes, size_t size)
{
	uint64_t h = 0xcbf29ce484222325u ^ call ^ (uint64_t)(uintptr_t)fw_thread.ctx * 0x9e3779b97f4a7c15u ^ fw_thread.per_thread_stream;

	for (size_t n = 0; n + 8 <= size; n += 8) {
		uint64_t word;
		memcpy(&word, bytes + n, 8);
		h = (h ^ word) * 0x100000001b3u;
		h ^= h >> 29;
	}
	return h;
}

/* ---- answers that are kept ------------------------------------------------------------------------------------------- */

/*
 * Answers of the calls of class local: facts of the device, of a function, of a stream. Each holds until something of a kind that the call
 * names ends or is set.
 */
struct kept {
	uint64_t epoch, context;
	uint64_t thread; /* who asked, of streams: some are each thread's own */
	enum cuda_call_id call;
	uint32_t input_size, answer_size;
	bool per_thread_stream;
	uint8_t bytes[]; /* inputs, then the answer */
};

static struct kept *kept_answers[KEPT];
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static int captures; /* atomic: streams whose capture began and has not ended */

bool
rm_may_capture(void)
{
	return __atomic_load_n(&captures, __ATOMIC_ACQUIRE) > 0;
}

static bool
is_same_question(const struct kept *a, const struct kept *b, const uint8_t *inputs)
{
	return a->epoch == b->epoch && a->context == b->context && a->thread == b->thread && a->call == b->call && a->input_size == b->input_size &&
	       a->per_thread_stream == b->per_thread_stream && memcmp(a->bytes, inputs, a->input_size) == 0;
}

/* Whether the answer may be kept now: a stream's capture spreads to others with the events that they wait for. */
static bool
may_keep(enum cuda_call_id call)
{
	bool asks_for_capture = call == CALL_cuStreamIsCapturing || call == CALL_cuStreamGetCaptureInfo;

	return !rm_failed() && !(asks_for_capture && rm_may_capture());
}

/* An answer that stays true. That a module has no such thing does too: libraries go through long lists of names. */
static bool
stays_true(enum cuda_call_id call, CUresult result)
{
	return result == CUDA_SUCCESS || (result == CUDA_ERROR_NOT_FOUND && (call == CALL_cuLibraryGetKernel || call == CALL_cuLibraryGetGlobal ||
	                                  call == CALL_cuModuleGetFunction || call == CALL_cuModuleGetGlobal_v2));
}

static CUresult
call_local(enum cuda_call_id call, const void *const *args)
{
	const struct rm_thread *thread = rm_thread();
	uint8_t inputs[1024];
	struct call_writer out = { .data = inputs, .size = sizeof(inputs) };
	bool keeps = may_keep(call) && call_pack(&out, call, args) && !out.bad, is_known = false;
	struct kept question = { .epoch = rm_epoch(call_descs[call].touches | CALL_TOUCHES_SETTING), .context = (uint64_t)(uintptr_t)fw_thread.ctx, .call = call,
		.thread = thread && call_descs[call].touches & CALL_TOUCHES_STREAM ? thread->number : 0,
		.input_size = (uint32_t)out.at, .per_thread_stream = fw_thread.per_thread_stream };
	struct kept **place = &kept_answers[bytes_hash(call, inputs, out.at) % KEPT];
	CUresult result = CUDA_SUCCESS;
	struct rm_request r;
	struct fw_cursor in;

	if (keeps) {
		pthread_mutex_lock(&kept_lock);
		if (*place && is_same_question(*place, &question, inputs)) {
			in = fw_cursor((*place)->bytes + out.at, (*place)->answer_size);
			result = unpack(&in, call, args);
			is_known = true;
		}
		pthread_mutex_unlock(&kept_lock);
	}
	if (is_known)
		return result;
	rm_begin(&r, (uint16_t)call, call_pack_bound(call, args));
	call_pack(&r.out, call, args);
	result = rm_ask(&r, &in);
	if (r.answered) {
		in.at = 0; /* call_unpack_reply() reads the result too */
		bool late = result != (CUresult)(int64_t)call_get_u64(&in); /* another call's */
		in.at = 0;
		struct kept *answer = keeps && stays_true(call, result) && !late ? malloc(sizeof(*answer) + out.at + in.size) : NULL;
		if (answer) {
			*answer = question;
			answer->answer_size = (uint32_t)in.size;
			memcpy(answer->bytes, inputs, out.at);
			memcpy(answer->bytes + out.at, in.data, in.size);
			pthread_mutex_lock(&kept_lock);
			free(*place);
			*place = answer;
			pthread_mutex_unlock(&kept_lock);
		}
		CUresult unpacked = unpack(&in, call, args);
		result = result == CUDA_SUCCESS ? unpacked : result;
	}
	rm_end(&r);
	return result;
}

/* The attributes of a device, which come all at once. False: *result is not known from them. */
static bool
device_attribute(const void *const *args, CUresult *result)
{
	static const struct session_fact *known[DEVICES]; /* atomic pointers, never freed */
	int *value = *(int *const *)args[0], attribute = *(const int *)args[1];
	CUdevice dev = *(const CUdevice *)args[2];
	struct rm_request r;
	struct fw_cursor in;
	uint64_t count = 0;

	if ((unsigned)dev >= DEVICES || attribute < 1 || attribute >= CU_DEVICE_ATTRIBUTE_MAX || rm_failed())
		return false;
	const struct session_fact *facts = __atomic_load_n(&known[dev], __ATOMIC_ACQUIRE), *none = NULL;
	if (!facts) {
		rm_begin(&r, SESSION_DEVICE_FACTS, 8);
		call_put_u64(&r.out, (uint64_t)dev);
		*result = rm_ask(&r, &in);
		const void *got = *result == CUDA_SUCCESS ? call_get_array(&in, sizeof(*facts), &count) : NULL;
		struct session_fact *copy = got && count == CU_DEVICE_ATTRIBUTE_MAX - 1 ? malloc(count * sizeof(*copy)) : NULL;
		if (copy)
			memcpy(copy, got, count * sizeof(*copy));
		rm_end(&r);
		if (!copy)
			return false;
		facts = copy;
		if (!__atomic_compare_exchange_n(&known[dev], &none, facts, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			free(copy);
			facts = none;
		}
	}
	*result = (CUresult)facts[attribute - 1].result;
	if (*result == CUDA_SUCCESS)
		*value = facts[attribute - 1].value;
	return true;
}

/* ---- calls whose answer nobody needs --------------------------------------------------------------------------------- */

static bool
is_accepted(uint64_t h, uint64_t epoch)
{
	const struct rm_thread *thread = rm_thread();
	unsigned at = (unsigned)(h >> 40) % RM_ACCEPTED;

	return thread && thread->accepted[at].hash == h && thread->accepted[at].epoch == epoch;
}

static void
accept(uint64_t h, uint64_t epoch)
{
	struct rm_thread *thread = rm_thread();
	unsigned at = (unsigned)(h >> 40) % RM_ACCEPTED;

	if (!thread)
		return;
	thread->accepted[at].hash = h;
	thread->accepted[at].epoch = epoch;
}

/*
 * A function's attributes. Programs set the same value before each launch: one that is known to be set is not sent again, so that nothing
 * has to be asked anew. One table for all threads, held while the worker is asked: the last value set is the last one in it.
 */
static bool
is_setter(enum cuda_call_id call)
{
	return call == CALL_cuFuncSetAttribute || call == CALL_cuKernelSetAttribute;
}

static CUresult
set_attribute(enum cuda_call_id call, const void *const *args)
{
	static struct {
		uint64_t key, epoch;
		int value;
	} known[SETTINGS];
	static uint16_t set_by; /* a kernel and its function are two names for one thing: only what one call set is known */
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	/* cuFuncSetAttribute(function, attribute, value), cuKernelSetAttribute(attribute, value, kernel, device). */
	bool is_kernel = call == CALL_cuKernelSetAttribute;
	int value = *(const int *)args[is_kernel ? 1 : 2], attribute = *(const int *)args[is_kernel ? 0 : 1];
	uint64_t object = (uint64_t)(uintptr_t)*(void *const *)args[is_kernel ? 2 : 0];
	uint64_t key = (object ^ (uint64_t)attribute << 48) * 0x9e3779b97f4a7c15u + (is_kernel ? (uint64_t)*(const CUdevice *)args[3] : 0);
	struct rm_request r;

	pthread_mutex_lock(&lock);
	if (set_by != call)
		memset(known, 0, sizeof(known));
	set_by = (uint16_t)call;
	unsigned at = (unsigned)(key >> 40) % SETTINGS;
	uint64_t epoch = rm_epoch(CALL_TOUCHES_OTHER);
	CUresult result = CUDA_SUCCESS;
	if (known[at].key != key || known[at].epoch != epoch || known[at].value != value || rm_failed()) {
		end_epoch(CALL_TOUCHES_SETTING);
		rm_begin(&r, (uint16_t)call, call_pack_bound(call, args));
		call_pack(&r.out, call, args);
		result = rm_do(&r);
		known[at].key = key;
		known[at].epoch = result == CUDA_SUCCESS ? epoch : 0;
		known[at].value = value;
		end_epoch(CALL_TOUCHES_SETTING); /* again: another thread may have asked between the two */
	}
	pthread_mutex_unlock(&lock);
	return result;
}

/*
 * A call whose answer nobody needs. The first time it is awaited, because what is wrong with it has to be told at once (a handle that is
 * none, an address outside); one that says the same again is not, until something ends that it may name.
 */
static CUresult
send_or_ask(struct rm_request *r)
{
	if (!r->record || r->out.bad)
		return rm_do(r);
	uint64_t h = bytes_hash(r->kind, r->out.data, r->out.at), now = rm_epoch(call_descs[r->kind].touches);
	if (is_accepted(h, now) && !rm_may_capture())
		return rm_send(r);
	CUresult result = rm_do(r);
	if (result == CUDA_SUCCESS)
		accept(h, now);
	return result;
}

void
rm_ended(enum cuda_call_id call)
{
	end_epoch(call_descs[call].first);
}

/* Ends a capture: all but those that say that there was none (driver API, cuStreamEndCapture). */
static void
count_capture(enum cuda_call_id call, CUresult result)
{
	bool begins = call == CALL_cuStreamBeginCapture || call == CALL_cuStreamBeginCapture_v2 || call == CALL_cuStreamBeginCaptureToGraph;

	if (begins && result == CUDA_SUCCESS)
		__atomic_add_fetch(&captures, 1, __ATOMIC_ACQ_REL);
	if (call == CALL_cuStreamEndCapture && (result == CUDA_SUCCESS || result == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED ||
	                                        result == CUDA_ERROR_STREAM_CAPTURE_UNJOINED))
		__atomic_sub_fetch(&captures, 1, __ATOMIC_ACQ_REL);
}

/* After a call that may have ended a context or a module: what this process has of it ends too. */
static void
end_context(enum cuda_call_id call, const void *const *args)
{
	CUcontext ctx = NULL;
	unsigned flags;
	int active = 0;

	switch (call) {
	case CALL_cuCtxDestroy:
	case CALL_cuCtxDestroy_v2:
		rm_stock_context_ended(*(const CUcontext *)args[0]);
		rm_managed_context_ended(*(const CUcontext *)args[0]);
		rm_host_context_ended(*(const CUcontext *)args[0]);
		break;
	case CALL_cuDevicePrimaryCtxRelease:
	case CALL_cuDevicePrimaryCtxRelease_v2:
		if (rm_ops_table()->cuDevicePrimaryCtxGetState(*(const CUdevice *)args[0], &flags, &active) != CUDA_SUCCESS || active)
			break;
		/* fall through */
	case CALL_cuDevicePrimaryCtxReset:
	case CALL_cuDevicePrimaryCtxReset_v2:
		if (rm_ops_table()->primary_context(&ctx, *(const CUdevice *)args[0]) == CUDA_SUCCESS) {
			rm_stock_context_ended(ctx);
			rm_managed_context_ended(ctx);
			rm_host_context_ended(ctx);
		}
		break;
	case CALL_cuModuleUnload:
	case CALL_cuLibraryUnload:
		rm_managed_owner_ended(*(void *const *)args[0]);
		break;
	default:
		break;
	}
}

/*
 * What the context has failed with, if it has: calls written by hand tell it before they look at their arguments, as all others do there.
 * Asked anew each time, as another context may be current now, or the failed one begun again.
 */
static CUresult
rm_told(void)
{
	size_t available, total;

	return __builtin_expect(rm_failed(), 0) ? rm_call(CALL_cuMemGetInfo_v2, (const void *const[]){ &(size_t *){ &available }, &(size_t *){ &total } })
	                                        : CUDA_SUCCESS;
}

/*
 * A stream that waits for a value in memory whose pages move would wait for ever: the program's touch of that memory, to write it, waits for
 * the stream.
 */
static bool
waits_for_moving(enum cuda_call_id call, const void *const *args)
{
	const CUstreamBatchMemOpParams *ops;

	switch (call) {
	case CALL_cuStreamWaitValue32:
	case CALL_cuStreamWaitValue64:
	case CALL_cuStreamWaitValue32_v2:
	case CALL_cuStreamWaitValue64_v2:
		return rm_moves(*(const CUdeviceptr *)args[1]);
	case CALL_cuStreamBatchMemOp:
	case CALL_cuStreamBatchMemOp_v2:
		ops = *(CUstreamBatchMemOpParams *const *)args[2];
		for (unsigned n = 0; ops && n < *(const unsigned *)args[1]; n++)
			if ((ops[n].operation == CU_STREAM_MEM_OP_WAIT_VALUE_32 || ops[n].operation == CU_STREAM_MEM_OP_WAIT_VALUE_64) &&
			    rm_moves(ops[n].waitValue.address))
				return true;
		return false;
	default:
		return false;
	}
}

CUresult
rm_send_like(struct rm_request *r, const uint64_t *words, size_t count)
{
	uint64_t h = bytes_hash(r->kind, (const uint8_t *)words, count * sizeof(*words)), now = rm_epoch(CALL_TOUCHES_ALL & ~CALL_TOUCHES_EVENT);

	if (!r->record || r->out.bad)
		return rm_do(r);
	if (is_accepted(h, now) && !rm_may_capture())
		return rm_send(r);
	CUresult result = rm_do(r);
	if (result == CUDA_SUCCESS)
		accept(h, now);
	return result;
}

/* Sends it as its rows say and awaits the answer, if need be. */
static CUresult
call_rows(enum cuda_call_id call, const void *const *args)
{
	struct rm_request r;
	struct fw_cursor in;

	rm_begin(&r, (uint16_t)call, call_pack_bound(call, args));
	if (!call_pack(&r.out, call, args) && r.channel) {
		rm_end(&r);
		fw_warn_once("client", "%s: what its arguments point to is not forwarded to a server", call_descs[call].name);
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (call_descs[call].class == CALL_CLASS_ASYNC && !ends_something(call))
		return send_or_ask(&r);
	CUresult result = rm_ask(&r, &in);
	if (r.answered) {
		in.at = 0;
		CUresult unpacked = unpack(&in, call, args);
		result = result == CUDA_SUCCESS ? unpacked : result;
	}
	rm_end(&r);
	return result;
}

CUresult
rm_call(enum cuda_call_id call, const void *const *args)
{
	CUresult result;

	if (call == CALL_cuDeviceGetAttribute && device_attribute(args, &result))
		return result;
	if (call_descs[call].class == CALL_CLASS_LOCAL)
		return call_local(call, args);
	if (is_setter(call))
		return set_attribute(call, args);
	if (call == CALL_cuPointerGetAttribute) {
		result = rm_told();
		if (result != CUDA_SUCCESS || rm_host_attribute(*(void *const *)args[0], *(const CUpointer_attribute *)args[1],
		                                                *(const CUdeviceptr *)args[2], &result))
			return result;
	}
	if (ends_something(call))
		end_epoch(call_descs[call].first);
	if (call == CALL_cuCtxRecordEvent)
		rm_event_opaque(args[1], sizeof(CUevent));
	if (waits_for_moving(call, args)) {
		fw_warn_once("client", "%s: a stream cannot wait for host or managed memory over a network", call_descs[call].name);
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	result = call_rows(call, args);
	if (result == CUDA_ERROR_OUT_OF_MEMORY && makes_something(call) && rm_stock_give_back())
		result = call_rows(call, args); /* now it is as if nothing had been in stock */
	if (ends_something(call)) /* again: another thread may have asked between the two */
		end_epoch(call_descs[call].first);
	count_capture(call, result);
	if (result == CUDA_SUCCESS)
		end_context(call, args);
	return result;
}

static CUresult
primary_context(CUcontext *ctx, CUdevice dev)
{
	static CUcontext known[16]; /* atomic: it never changes */
	struct rm_request r;
	struct fw_cursor in;

	if ((unsigned)dev < 16 && (*ctx = __atomic_load_n(&known[dev], __ATOMIC_RELAXED)))
		return CUDA_SUCCESS;
	rm_begin(&r, SESSION_PRIMARY_CONTEXT, 8);
	call_put_u64(&r.out, (uint64_t)(int64_t)dev);
	CUresult result = rm_ask(&r, &in);
	*ctx = (CUcontext)(uintptr_t)call_get_u64(&in);
	if (result == CUDA_SUCCESS && !*ctx)
		result = rm_nonsense(&r);
	rm_end(&r);
	if (result == CUDA_SUCCESS && (unsigned)dev < 16)
		__atomic_store_n(&known[dev], *ctx, __ATOMIC_RELAXED);
	return result;
}

#include "client_remote.inc"

const struct cuda_ops *
rm_ops_table(void)
{
	return &rm_ops;
}

/* ---- the link ------------------------------------------------------------------------------------------------------ */

/* A setting into the hello; false after a line if it is too long. */
static bool
put_setting(char *field, size_t size, const char *name, const char *value)
{
	if (value && strlen(value) >= size) {
		fw_error("client", "%s has more than %zu characters", name, size - 1);
		return false;
	}
	if (value)
		memcpy(field, value, strlen(value));
	return true;
}

/* What the server answered: its device, or why not. A version other than this one may have a welcome of another shape. */
static CUresult
read_welcome(const struct session_version *own, const uint8_t *reply, size_t size, struct session_space *space)
{
	struct session_welcome welcome;
	char why[512];

	memset(&welcome, 0, sizeof(welcome));
	memcpy(&welcome, reply, size < sizeof(welcome) ? size : sizeof(welcome));
	welcome.text[sizeof(welcome.text) - 1] = welcome.version.version[sizeof(welcome.version.version) - 1] = 0;
	if (size < sizeof(welcome.version) || memcmp(welcome.version.magic, SESSION_MAGIC, sizeof(SESSION_MAGIC)) != 0) {
		fw_error("client", "%s is no farwarp server", server);
		return CUDA_ERROR_SYSTEM_NOT_READY;
	}
	if (size != sizeof(welcome) || welcome.version.protocol != own->protocol) {
		session_mismatch(why, sizeof(why), "client", own, "server", &welcome.version);
		fw_error("client", "the server %s does not fit: %s", server, why);
		return CUDA_ERROR_SYSTEM_NOT_READY;
	}
	if (welcome.result != CUDA_SUCCESS) {
		fw_error("client", "the server %s refuses: %s", server, welcome.text);
		return (CUresult)welcome.result;
	}
	fw_info("client", "server %s: %s", server, welcome.text);
	chosen = welcome.flags & SESSION_WELCOME_CHOSEN;
	keeps_images = welcome.flags & SESSION_WELCOME_IMAGES;
	memcpy(image_nonce, welcome.nonce, sizeof(image_nonce));
	*space = welcome.space;
	return CUDA_SUCCESS;
}

bool
rm_devices_chosen(void)
{
	return chosen;
}

const uint8_t *
rm_image_nonce(void)
{
	return keeps_images ? image_nonce : NULL;
}

static bool
is_set(const char *name, const char *to)
{
	const char *value = getenv(name);

	return value && strcmp(value, to) == 0;
}

CUresult
rm_open(const char *text, const struct cuda_ops **ops)
{
	struct wire_address address;
	struct session_hello hello = { .version = { .magic = SESSION_MAGIC, .protocol = call_protocol_hash(), .version = FARWARP_VERSION },
		.pid = (uint32_t)getpid(), .log = (uint32_t)fw_log_threshold };
	struct session_space space = { 0 };
	uint8_t reply[WIRE_HELLO_MAX];
	size_t size = sizeof(reply);
	const char *wish = getenv("FARWARP_STRICT");
	char error[256];

	if (!wire_address_parse(text, &address, error)) {
		fw_error("client", "FARWARP_SERVER: %s", error);
		return CUDA_ERROR_INVALID_VALUE;
	}
	wire_address_format(&address, server, sizeof(server));
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	if (!put_setting(hello.token, sizeof(hello.token), "FARWARP_TOKEN", getenv("FARWARP_TOKEN")) ||
	    !put_setting(hello.visible, sizeof(hello.visible), "CUDA_VISIBLE_DEVICES", visible))
		return CUDA_ERROR_INVALID_VALUE;
	hello.flags = (visible ? SESSION_HELLO_VISIBLE : 0) | (is_set("CUDA_LAUNCH_BLOCKING", "1") ? SESSION_HELLO_BLOCKING : 0) |
	              (is_set("CUDA_MODULE_LOADING", "EAGER") ? SESSION_HELLO_EAGER : 0) |
	              (is_set("CUDA_DISABLE_PTX_JIT", "1") || is_set("CUDA_DISABLE_JIT", "1") ? SESSION_HELLO_NO_JIT : 0);
	rm_layout(hello.used);
	rm_spaces_reserve(hello.spaces);
	link_ = wire_connect(&address, &hello, sizeof(hello), reply, &size, CONNECT_MS, error);
	CUresult result = size ? read_welcome(&hello.version, reply, size, &space) : CUDA_SUCCESS;
	if (!link_) {
		rm_spaces_settle(hello.spaces, &(struct session_space){ 0 });
		if (result == CUDA_SUCCESS)
			fw_error("client", "%s", error);
		return result == CUDA_SUCCESS ? CUDA_ERROR_SYSTEM_NOT_READY : result;
	}
	if (result == CUDA_SUCCESS && pthread_key_create(&thread_key, end_thread) != 0)
		result = CUDA_ERROR_OUT_OF_MEMORY;
	if (result != CUDA_SUCCESS) {
		rm_spaces_settle(hello.spaces, &(struct session_space){ 0 });
		wire_close(link_);
		link_ = NULL;
		return result;
	}
	rm_spaces_settle(hello.spaces, &space);
	strict = wish && *wish && strcmp(wish, "0") != 0;
	*ops = &rm_ops;
	return CUDA_SUCCESS;
}

void
rm_close(void)
{
	struct rm_request r;

	if (wire_alive(link_)) {
		rm_begin(&r, SESSION_FLUSH, 0);
		rm_do(&r);
	}
	__atomic_store_n(&closed, true, __ATOMIC_RELEASE);
}

void
rm_after_fork(void)
{
	rm_host_after_fork();
	rm_stock_after_fork();
	rm_event_after_fork();
	__atomic_store_n(&closed, true, __ATOMIC_RELEASE);
	mine = NULL;
	wire_after_fork(link_);
}
