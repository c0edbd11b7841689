/*
 * What the worker asks of this process: to call functions of the program, and for the bytes of its memory.
 *
 * Lines, each a channel with a thread that serves one request after the other until the link ends: functions on one, memory on another, so
 * that a copy does not wait for a function; on a third it tells which events are done (remote_event.c). They begin when the program first does something that needs them.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "call/rows.h"
#include "client/remote.h"

/* ---- functions ----------------------------------------------------------------------------------------------------- */

/* False: not what this process asked for; nothing was called. */
static bool
run_callback(const struct session_callback *c)
{
	if (!rm_sealed(&c->kind, 3, c->seal))
		return false;
	switch ((enum session_callback_kind)c->kind) {
	case SESSION_HOST_FUNCTION:
	case SESSION_DESTRUCTOR:
		((CUhostFn)(uintptr_t)c->function)((void *)(uintptr_t)c->user);
		break;
	case SESSION_STREAM_CALLBACK:
		((CUstreamCallback)(uintptr_t)c->function)((CUstream)(uintptr_t)c->stream, (CUresult)c->status, (void *)(uintptr_t)c->user);
		break;
	}
	if (__atomic_load_n(&rm_pages_used, __ATOMIC_ACQUIRE))
		rm_pages_line_done();
	return true;
}

struct session_callback
rm_callback(enum session_callback_kind kind, void *function, void *user)
{
	struct session_callback callback = { .kind = kind, .function = (uint64_t)(uintptr_t)function, .user = (uint64_t)(uintptr_t)user };

	callback.seal = rm_seal(&callback.kind, 3);
	return callback;
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

/* What the program has named in copies that run later: the worker may ask for it, and for nothing else. Sorted; none touches another. */
static struct range {
	uint64_t from, to;
} *offered; /* guarded by offered_lock */
static size_t offered_count, offered_room;
static pthread_mutex_t offered_lock = PTHREAD_MUTEX_INITIALIZER;

/* The first range that ends at or behind `address`. With the lock held. */
static size_t
find_range(uint64_t address)
{
	size_t low = 0, high = offered_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (offered[middle].to < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool
offer(uint64_t from, uint64_t to)
{
	pthread_mutex_lock(&offered_lock);
	size_t at = find_range(from), end = at;
	while (end < offered_count && offered[end].from <= to) { /* all that touch it become one */
		from = offered[end].from < from ? offered[end].from : from;
		to = offered[end].to > to ? offered[end].to : to;
		end++;
	}
	if (end == at && offered_count == offered_room) {
		struct range *more = realloc(offered, (2 * offered_room + 64) * sizeof(*more));
		if (!more) {
			pthread_mutex_unlock(&offered_lock);
			return false;
		}
		offered = more;
		offered_room = 2 * offered_room + 64;
	}
	memmove(offered + at + 1, offered + end, (offered_count - end) * sizeof(*offered));
	offered[at] = (struct range){ from, to };
	offered_count += at + 1 - end;
	pthread_mutex_unlock(&offered_lock);
	return true;
}

CUresult
rm_offer(uint64_t address, uint64_t size)
{
	uint64_t to;

	if (__builtin_add_overflow(address, size, &to))
		return CUDA_ERROR_INVALID_VALUE;
	return offer(address, to) ? rm_line_begin(SESSION_LINE_MEMORY) : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Bytes that rows have packed, if the worker may ask for them. */
static bool
far_total(const struct session_far *far, uint64_t *total)
{
	uint64_t end;

	if (!far->width || !far->rows || __builtin_mul_overflow(far->width, far->rows, total) ||
	    __builtin_mul_overflow(far->rows - 1, far->pitch, &end) || __builtin_add_overflow(end, far->width, &end) ||
	    __builtin_add_overflow(end, far->address, &end))
		return false;
	pthread_mutex_lock(&offered_lock);
	size_t at = find_range(end);
	bool good = at < offered_count && offered[at].from <= far->address && end <= offered[at].to;
	pthread_mutex_unlock(&offered_lock);
	return good;
}

static bool
give_rows(struct wire_channel *channel, const struct session_far *far)
{
	struct call_rows rows = { .at = (uint8_t *)(uintptr_t)far->address, .pitch = far->pitch, .width = far->width };
	uint64_t total;

	if (!far_total(far, &total))
		return false;
	while (rows.done < total) {
		uint32_t part = total - rows.done < SESSION_CHUNK ? (uint32_t)(total - rows.done) : SESSION_CHUNK;
		struct wire_record *record = wire_reserve(channel->to, part);
		if (!record)
			return false;
		*record = (struct wire_record){ .kind = SESSION_FAR_READ, .size = part };
		call_rows_gather(&rows, record->payload, part);
		if (rows.done == total && rm_moves(far->address))
			rm_pages_line_done();
		wire_publish_wake(channel->to, record);
	}
	return true;
}

static bool
take_rows(struct wire_channel *channel, const struct session_far *far)
{
	struct call_rows rows = { .at = (uint8_t *)(uintptr_t)far->address, .pitch = far->pitch, .width = far->width };
	struct wire_record header;
	uint64_t total;

	if (!far_total(far, &total))
		return false;
	while (rows.done < total) {
		const uint8_t *packed = wire_wait(channel->from, &header, -1);
		if (!packed || header.kind != SESSION_FAR_WRITE || header.size > total - rows.done)
			return false;
		call_rows_scatter(&rows, packed, header.size);
		wire_release(channel->from);
	}
	if (rm_moves(far->address))
		rm_pages_line_done();
	return true;
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

static bool
say_done(struct wire_channel *channel, uint16_t kind)
{
	struct wire_record *done = wire_reserve(channel->to, 0);

	if (!done)
		return false;
	*done = (struct wire_record){ .kind = kind };
	wire_publish_wake(channel->to, done);
	return true;
}

/* One request, whose payload is given back before it is carried out. False: it is none, or the link has ended. */
static bool
serve(struct wire_channel *channel, const struct wire_record *header, const uint8_t *payload)
{
	struct session_callback callback;
	struct session_far far;
	bool is_callback = header->kind == SESSION_CALLBACK && header->size == sizeof(callback);
	bool is_told = header->kind == SESSION_MARKED, good = !is_told || rm_marked(payload, header->size);
	bool is_far = (header->kind == SESSION_FAR_READ || header->kind == SESSION_FAR_WRITE) && header->size == sizeof(far);

	if (is_callback)
		memcpy(&callback, payload, sizeof(callback));
	else if (is_far)
		memcpy(&far, payload, sizeof(far));
	wire_release(channel->from);
	if (is_told)
		return good;
	if (is_callback ? !run_callback(&callback) : !is_far)
		return false;
	if (is_callback)
		return say_done(channel, header->kind);
	if (header->kind == SESSION_FAR_READ)
		return give_rows(channel, &far);
	return take_rows(channel, &far) && say_done(channel, header->kind);
}

static struct wire_channel *channels[SESSION_LINES];

static void *
line_main(void *argument)
{
	enum session_line line = *(const enum session_line *)argument;
	struct wire_channel *channel = channels[line];
	struct wire_record header;
	const uint8_t *payload;

	fw_thread.in_callback = true;
	rm_pages_line(line);
	while ((payload = wire_wait(channel->from, &header, -1))) {
		if (line != SESSION_LINE_MARKS)
			rm_hear();
		if (!serve(channel, &header, payload)) {
			wire_kill(channel->link, "it asked for what it was never given");
			break;
		}
	}
	return NULL;
}

CUresult
rm_line_begin(enum session_line line)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool begun[SESSION_LINES]; /* atomic */
	CUresult result = CUDA_SUCCESS;
	pthread_t thread;

	if (__atomic_load_n(&begun[line], __ATOMIC_ACQUIRE))
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	if (!begun[line]) {
		static const enum session_line lines[SESSION_LINES] = { SESSION_LINE_FUNCTIONS, SESSION_LINE_MEMORY, SESSION_LINE_MARKS };
		struct wire_channel *channel = channels[line] = wire_channel_open(rm_link());
		struct wire_record *record = channel ? wire_reserve(channel->to, 0) : NULL;
		if (!record) {
			result = rm_lost();
		} else if (pthread_create(&thread, NULL, line_main, (void *)&lines[line]) != 0) {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		} else {
			pthread_detach(thread);
			*record = (struct wire_record){ .kind = SESSION_CALLBACKS, .more = line };
			wire_publish_wake(channel->to, record);
			__atomic_store_n(&begun[line], true, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&lock);
	return result;
}

/* ---- the calls ----------------------------------------------------------------------------------------------------- */

static CUresult
send_callback(uint16_t call, enum session_callback_kind kind, CUstream stream, void *function, void *user)
{
	struct session_callback callback = rm_callback(kind, function, user);
	struct rm_request r;
	CUresult result = rm_line_begin(SESSION_LINE_FUNCTIONS);

	if (result != CUDA_SUCCESS)
		return result;
	callback.stream = (uint64_t)(uintptr_t)stream;
	rm_begin(&r, call, sizeof(callback));
	call_put(&r.out, &callback, sizeof(callback));
	return rm_do(&r);
}

CUresult
rm_cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
	return fn ? send_callback(CALL_cuLaunchHostFunc, SESSION_HOST_FUNCTION, hStream, (void *)fn, userData) : CUDA_ERROR_INVALID_VALUE;
}

CUresult
rm_cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned flags)
{
	if (!callback || flags)
		return CUDA_ERROR_INVALID_VALUE;
	return send_callback(CALL_cuStreamAddCallback, SESSION_STREAM_CALLBACK, hStream, (void *)callback, userData);
}

/* The destructor runs on the thread of the line, which "may be any thread" (driver API, cuUserObjectCreate). */
CUresult
rm_cuUserObjectCreate(CUuserObject *object_out, void *ptr, CUhostFn destroy, unsigned initialRefcount, unsigned flags)
{
	struct session_callback callback = rm_callback(SESSION_DESTRUCTOR, (void *)destroy, ptr);
	struct rm_request r;
	struct fw_cursor in;

	if (!destroy)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = rm_line_begin(SESSION_LINE_FUNCTIONS);
	if (result != CUDA_SUCCESS)
		return result;
	rm_begin(&r, CALL_cuUserObjectCreate, sizeof(callback) + 16);
	call_put(&r.out, &callback, sizeof(callback));
	call_put_u64(&r.out, initialRefcount);
	call_put_u64(&r.out, flags);
	result = rm_ask(&r, &in);
	if (result == CUDA_SUCCESS)
		*object_out = (CUuserObject)(uintptr_t)call_get_u64(&in);
	rm_end(&r);
	return result;
}
