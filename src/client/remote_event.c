/*
 * Records of events, and what the program asks about work: is it done?
 *
 * An event that the program asks about gets a mark (call/session.h), and its later records a number; when its mark has that number, it is done,
 * and nobody has to be asked. While the mark is smaller the answer is CUDA_ERROR_NOT_READY, also from here, unless this process has heard
 * anything meanwhile that could prove the event done (answers, functions that were called), and for at most ASK_NS: then the worker is
 * asked, which also tells of failures and of a server that is gone.
 *
 * What a synchronisation has proved holds as long as no thread sends a record or hears of one: who asks for the same again is answered here.
 *
 * Records of events and waits for them are not awaited where nothing can be wrong with them: both objects were created here and not ended,
 * and belong to the current context. All else is asked: see rm_objects_count(), and what makes an event `opaque`.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/remote.h"

#define ASK_NS 1000000   /* of polling, before the worker is asked; longer if it takes long to answer */
#define FIRST_ASKED 4    /* questions about events before there are marks: who asks once needs none */
#define MARKS_TAG (UINT64_MAX - 2)

/* ---- marks ------------------------------------------------------------------------------------------------------------- */

static const uint64_t *marks; /* atomic; set once: the worker's to write, or filled here by what it tells */
static uint64_t *told;        /* the same, if it tells */
static uint64_t tellings;     /* atomic; odd: some of what it tells is there, and some not yet */
static bool marks_sync;       /* they stand for cuEventSynchronize too */
static uint64_t numbers;      /* atomic: drawn so far */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static bool refused;
static uint32_t free_slots[SESSION_MARKS_COUNT], free_count, used_slots = 1; /* slot 0 means none */

/* Memory that the worker will write, sealed so that none of it vanishes. */
static const uint64_t *
share_memory(void)
{
	int fd = memfd_create("farwarp-marks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *at = MAP_FAILED;

	if (fd >= 0 && fw_file_resize(fd, SESSION_MARKS_BYTES) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 &&
	    wire_share(rm_link(), fd, SESSION_MARKS_BYTES, MARKS_TAG))
		at = mmap(NULL, SESSION_MARKS_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	return at == MAP_FAILED ? NULL : at;
}

/* With the lock held. */
static bool
begin_marks(void)
{
	struct session_marks given = { .tag = wire_can_share(rm_link()) ? MARKS_TAG : 0 };
	const uint64_t *at = given.tag ? share_memory() : (told = calloc(SESSION_MARKS_COUNT, sizeof(*told)));
	struct rm_request r;
	struct fw_cursor in;

	if (!at || (!given.tag && rm_line_begin(SESSION_LINE_MARKS) != CUDA_SUCCESS))
		return false;
	rm_begin(&r, SESSION_MARKS, sizeof(given));
	call_put(&r.out, &given, sizeof(given));
	CUresult result = rm_ask(&r, &in);
	marks_sync = call_get_u64(&in) == SESSION_MARKS_SYNCED;
	rm_end(&r);
	if (result == CUDA_SUCCESS)
		__atomic_store_n(&marks, at, __ATOMIC_RELEASE);
	return result == CUDA_SUCCESS;
}

/* From its next record on the event has a mark, if there are any. */
static void
watch(struct rm_object *event)
{
	static unsigned asked;

	if (__atomic_load_n(&event->slot, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&lock);
	if (!marks && !refused && ++asked >= FIRST_ASKED)
		refused = !begin_marks();
	if (marks && !event->slot && (free_count || used_slots < SESSION_MARKS_COUNT))
		__atomic_store_n(&event->slot, free_count ? free_slots[--free_count] : used_slots++, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
}

void
rm_mark_release(uint32_t slot)
{
	if (!slot)
		return;
	pthread_mutex_lock(&lock);
	free_slots[free_count++] = slot; /* what the event's records still write is smaller than what the next event's will */
	pthread_mutex_unlock(&lock);
}

bool
rm_marked(const void *bytes, size_t size)
{
	bool good = told && size % sizeof(struct session_mark) == 0;

	__atomic_add_fetch(&tellings, 1, __ATOMIC_SEQ_CST);
	for (size_t at = 0; good && at < size; at += sizeof(struct session_mark)) {
		struct session_mark mark;
		memcpy(&mark, (const uint8_t *)bytes + at, sizeof(mark));
		good = mark.slot < SESSION_MARKS_COUNT;
		if (good)
			__atomic_store_n(&told[mark.slot], mark.number, __ATOMIC_RELEASE);
	}
	__atomic_add_fetch(&tellings, 1, __ATOMIC_SEQ_CST);
	return good;
}

void
rm_event_after_fork(void)
{
	lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

/* ---- what is known of events and streams ----------------------------------------------------------------------------- */

/* The event, if what is known of it here is what the device would say. */
static struct rm_object *
known_event(CUevent handle)
{
	struct rm_object *event = rm_object_find(RM_EVENT, handle);

	return event && __atomic_load_n(&event->context, __ATOMIC_RELAXED) == (uint64_t)(uintptr_t)fw_thread.ctx && !__atomic_load_n(&event->opaque, __ATOMIC_RELAXED) &&
	       rm_objects_count() ? event : NULL;
}

static bool
is_known_stream(CUstream handle)
{
	if ((uintptr_t)handle <= 2) /* the default streams */
		return true;
	const struct rm_object *stream = rm_object_find(RM_STREAM, handle);
	return stream && __atomic_load_n(&stream->context, __ATOMIC_RELAXED) == (uint64_t)(uintptr_t)fw_thread.ctx;
}

/* A number that two handles share only if they mean the same stream: a thread's own has one for each thread. Never 0. */
static uint64_t
stream_key(CUstream handle)
{
	bool is_default = !handle, is_own = handle == CU_STREAM_PER_THREAD || (is_default && fw_thread.per_thread_stream);
	const struct rm_thread *thread = rm_thread();

	return is_own ? 2 | (thread ? thread->number : 0) << 2 : is_default ? 1 : (uint64_t)(uintptr_t)handle;
}

void
rm_event_begin(struct rm_object *event)
{
	__atomic_store_n(&event->slot, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->opaque, false, __ATOMIC_RELAXED);
	__atomic_store_n(&event->captured, false, __ATOMIC_RELAXED);
	__atomic_store_n(&event->stream, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->number, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->marked, false, __ATOMIC_RELAXED);
	__atomic_store_n(&event->done, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->synced, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->heard, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->asked, 0, __ATOMIC_RELAXED);
}

void
rm_event_opaque(const void *words, size_t size)
{
	for (size_t at = 0; at + 8 <= size; at += 8) {
		void *handle;
		memcpy(&handle, (const uint8_t *)words + at, sizeof(handle));
		struct rm_object *event = rm_object_find(RM_EVENT, handle);
		if (event)
			__atomic_store_n(&event->opaque, true, __ATOMIC_RELAXED);
	}
}

/* ---- what is proved ------------------------------------------------------------------------------------------------------ */

/* After the answer to `r`: nothing else was sent meanwhile, so it holds until something is. */
static struct rm_proof *
prove(const struct rm_request *r)
{
	struct rm_thread *thread = rm_thread();

	/* A record that was on its way when this one was sent may be served after it, if it is awaited. */
	if (!thread || rm_tickets() != r->ticket + 1 || rm_heard() != r->heard + 1)
		return NULL;
	struct rm_proof *proof = &thread->proof;
	if (proof->tickets != r->ticket || proof->heard != r->heard || proof->context != (uint64_t)(uintptr_t)fw_thread.ctx)
		*proof = (struct rm_proof){ .context = (uint64_t)(uintptr_t)fw_thread.ctx };
	proof->tickets = r->ticket + 1;
	proof->heard = r->heard + 1;
	return proof;
}

/* What still holds; NULL: nothing. */
static const struct rm_proof *
proved(void)
{
	const struct rm_thread *thread = rm_thread();

	return thread && thread->proof.tickets == rm_tickets() && thread->proof.heard == rm_heard() && thread->proof.context == (uint64_t)(uintptr_t)fw_thread.ctx && rm_objects_count() &&
	       !rm_has_printed() ? &thread->proof : NULL;
}

void
rm_stream_proved(const struct rm_request *r, CUstream stream)
{
	struct rm_proof *proof = prove(r);

	if (proof)
		proof->stream = stream_key(stream);
}

static bool
is_idle(CUstream stream)
{
	const struct rm_proof *proof = proved();

	return proof && (proof->stream == stream_key(stream) || (proof->all && is_known_stream(stream)));
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

static CUresult
ask_stream(enum cuda_call_id call, CUstream stream)
{
	struct rm_request r;

	if (is_idle(stream))
		return CUDA_SUCCESS;
	rm_begin(&r, (uint16_t)call, 8);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)stream);
	CUresult result = rm_do(&r);
	if (result == CUDA_SUCCESS && call == CALL_cuStreamSynchronize)
		rm_stream_proved(&r, stream);
	return result;
}

CUresult
rm_cuStreamSynchronize(CUstream hStream)
{
	return ask_stream(CALL_cuStreamSynchronize, hStream);
}

/* Proves nothing that a synchronisation could use: it brings nothing home. */
CUresult
rm_cuStreamQuery(CUstream hStream)
{
	return ask_stream(CALL_cuStreamQuery, hStream);
}

CUresult
rm_cuCtxSynchronize(void)
{
	const struct rm_proof *known = proved();
	struct rm_request r;

	if (known && known->all)
		return CUDA_SUCCESS;
	rm_begin(&r, CALL_cuCtxSynchronize, 0);
	CUresult result = rm_do(&r);
	struct rm_proof *proof = result == CUDA_SUCCESS ? prove(&r) : NULL;
	if (proof)
		proof->all = true;
	return result;
}

/* ---- records and waits --------------------------------------------------------------------------------------------------- */

/* `slot`: of the mark, 0: there is none. */
static CUresult
send_record(CUevent handle, CUstream stream, uint64_t number, uint32_t slot)
{
	struct session_record record = { .event = (uint64_t)(uintptr_t)handle, .stream = (uint64_t)(uintptr_t)stream, .number = number, .slot = slot };
	struct rm_request r;

	rm_begin(&r, slot ? SESSION_RECORD : CALL_cuEventRecord, sizeof(record));
	if (slot) {
		call_put(&r.out, &record, sizeof(record));
	} else {
		call_put_u64(&r.out, record.event);
		call_put_u64(&r.out, record.stream);
	}
	return rm_send(&r);
}

/* Nothing is known of its last record. */
static void
lose_track(struct rm_object *event)
{
	__atomic_store_n(&event->number, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->stream, 0, __ATOMIC_RELAXED);
	if (rm_may_capture())
		__atomic_store_n(&event->captured, true, __ATOMIC_RELAXED);
}

static CUresult
record(enum cuda_call_id call, CUevent handle, CUstream stream, unsigned flags)
{
	struct rm_object *event = known_event(handle), *any;

	if (!event || flags || !is_known_stream(stream)) {
		any = rm_object_find(RM_EVENT, handle);
		if (any)
			lose_track(any);
		if (any && flags && rm_may_capture()) /* a node of the graph, which records it each time */
			__atomic_store_n(&any->opaque, true, __ATOMIC_RELAXED);
		return rm_call(call, (const void *const[]){ &handle, &stream, &flags });
	}
	uint64_t number = __atomic_add_fetch(&numbers, 1, __ATOMIC_RELAXED);
	uint32_t slot = __atomic_load_n(&event->slot, __ATOMIC_ACQUIRE);
	__atomic_store_n(&event->marked, slot != 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->captured, false, __ATOMIC_RELAXED);
	__atomic_store_n(&event->stream, stream_key(stream), __ATOMIC_RELAXED);
	__atomic_store_n(&event->asked, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&event->heard, rm_heard(), __ATOMIC_RELAXED);
	__atomic_store_n(&event->number, number, __ATOMIC_RELEASE);
	return send_record(handle, stream, number, slot);
}

CUresult
rm_cuEventRecord(CUevent hEvent, CUstream hStream)
{
	return record(CALL_cuEventRecord, hEvent, hStream, 0);
}

CUresult
rm_cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned flags)
{
	return record(CALL_cuEventRecordWithFlags, hEvent, hStream, flags);
}

CUresult
rm_cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned Flags)
{
	const struct rm_object *event = known_event(hEvent);
	const void *const args[] = { &hStream, &hEvent, &Flags };
	struct rm_request r;

	if (!event || Flags || !is_known_stream(hStream) || __atomic_load_n(&event->captured, __ATOMIC_RELAXED))
		return rm_call(CALL_cuStreamWaitEvent, args);
	rm_begin(&r, CALL_cuStreamWaitEvent, call_pack_bound(CALL_cuStreamWaitEvent, args));
	call_pack(&r.out, CALL_cuStreamWaitEvent, args);
	return rm_send(&r);
}

/* ---- questions about events ---------------------------------------------------------------------------------------------- */

static uint64_t patience = ASK_NS; /* atomic: how long the worker is not asked */

/* The last record has a number, and its mark has it too. The mark may have been another event's before: then the record went without. */
static bool
is_marked(const struct rm_object *event, uint64_t number)
{
	const uint64_t *all = __atomic_load_n(&marks, __ATOMIC_ACQUIRE);

	return all && __atomic_load_n(&event->marked, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&all[__atomic_load_n(&event->slot, __ATOMIC_RELAXED)], __ATOMIC_ACQUIRE) >= number;
}

/* Its last record is known to be done. */
static bool
is_done(const struct rm_object *event)
{
	uint64_t number = __atomic_load_n(&event->number, __ATOMIC_ACQUIRE);

	return number && (__atomic_load_n(&event->done, __ATOMIC_RELAXED) == number || is_marked(event, number));
}

/* And a synchronisation would bring nothing home. */
static bool
is_synced(const struct rm_object *event)
{
	uint64_t number = __atomic_load_n(&event->number, __ATOMIC_ACQUIRE);

	return number && !rm_has_printed() &&
	       (__atomic_load_n(&event->synced, __ATOMIC_RELAXED) == number || (marks_sync && is_marked(event, number)));
}

/* It is known not to be done, as far as anybody here has heard. Not for long. `before`: tellings before its mark was read. */
static bool
is_pending(struct rm_object *event, uint64_t before)
{
	if (before & 1 || before != __atomic_load_n(&tellings, __ATOMIC_ACQUIRE))
		return false;
	if (!__atomic_load_n(&event->number, __ATOMIC_ACQUIRE) || !__atomic_load_n(&event->marked, __ATOMIC_RELAXED) ||
	    __atomic_load_n(&event->heard, __ATOMIC_RELAXED) != rm_heard())
		return false;
	uint64_t asked = __atomic_load_n(&event->asked, __ATOMIC_RELAXED), now = wire_now();
	if (!asked)
		__atomic_store_n(&event->asked, now, __ATOMIC_RELAXED); /* the first question after the record */
	return !asked || now - asked < __atomic_load_n(&patience, __ATOMIC_RELAXED);
}

static bool
is_proved(const struct rm_object *event)
{
	const struct rm_proof *proof = proved();
	uint64_t stream = __atomic_load_n(&event->stream, __ATOMIC_RELAXED);

	return proof && (proof->all || proof->event == __atomic_load_n(&event->handle, __ATOMIC_RELAXED) || (stream && proof->stream == stream)) &&
	       !__atomic_load_n(&event->captured, __ATOMIC_RELAXED);
}

static CUresult
ask_event(enum cuda_call_id call, CUevent handle, struct rm_object *event)
{
	uint64_t number = event ? __atomic_load_n(&event->number, __ATOMIC_ACQUIRE) : 0, heard = rm_heard(), begin = event ? wire_now() : 0;
	struct rm_request r;

	rm_begin(&r, (uint16_t)call, 8);
	call_put_u64(&r.out, (uint64_t)(uintptr_t)handle);
	CUresult result = rm_do(&r);
	if (!event || (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY))
		return result;
	uint64_t end = wire_now(), pause = 4 * (end - begin);
	if (result == CUDA_ERROR_NOT_READY)
		__atomic_store_n(&patience, pause > ASK_NS ? pause : ASK_NS, __ATOMIC_RELAXED);
	__atomic_store_n(&event->heard, heard + 1, __ATOMIC_RELAXED); /* its own answer: any other's makes another number of it */
	__atomic_store_n(&event->asked, end, __ATOMIC_RELAXED);
	if (result == CUDA_SUCCESS) {
		__atomic_store_n(&event->done, number, __ATOMIC_RELAXED);
		if (call == CALL_cuEventSynchronize)
			__atomic_store_n(&event->synced, number, __ATOMIC_RELAXED);
		struct rm_proof *proof = call == CALL_cuEventSynchronize ? prove(&r) : NULL;
		if (proof)
			proof->event = (uint64_t)(uintptr_t)handle;
	}
	watch(event);
	return result;
}

CUresult
rm_cuEventQuery(CUevent hEvent)
{
	struct rm_object *event = known_event(hEvent);
	uint64_t before = __atomic_load_n(&tellings, __ATOMIC_ACQUIRE);

	if (event && (is_done(event) || is_proved(event)))
		return CUDA_SUCCESS;
	if (event && is_pending(event, before))
		return CUDA_ERROR_NOT_READY;
	return ask_event(CALL_cuEventQuery, hEvent, event);
}

CUresult
rm_cuEventSynchronize(CUevent hEvent)
{
	struct rm_object *event = known_event(hEvent);

	if (event && (is_proved(event) || is_synced(event)))
		return CUDA_SUCCESS;
	return ask_event(CALL_cuEventSynchronize, hEvent, event);
}

/* A real driver writes a mark a moment before the event is done: what was answered for done is waited for here. */
static CUresult
elapsed(enum cuda_call_id call, float *milliseconds, CUevent start, CUevent end)
{
	const void *const args[] = { &milliseconds, &start, &end };
	struct rm_object *from = known_event(start), *to = known_event(end);
	CUresult result = rm_call(call, args);

	if (result != CUDA_ERROR_NOT_READY || !from || !to || !is_done(from) || !is_done(to))
		return result;
	result = ask_event(CALL_cuEventSynchronize, start, from);
	if (result == CUDA_SUCCESS)
		result = ask_event(CALL_cuEventSynchronize, end, to);
	return result == CUDA_SUCCESS ? rm_call(call, args) : result;
}

CUresult
rm_cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	return elapsed(CALL_cuEventElapsedTime, pMilliseconds, hStart, hEnd);
}

CUresult
rm_cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	return elapsed(CALL_cuEventElapsedTime_v2, pMilliseconds, hStart, hEnd);
}
