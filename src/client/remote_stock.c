/*
 * Streams and events that this process created: what it knows of each, and some in stock.
 *
 * Handles are the device's own. The first object of a sort (context, flags, priority) is asked for; from the second on one round trip gets
 * several, twice as many each time, and those that the program did not ask for yet lie in stock: to create one is then to take it from there.
 * An object that is known is ended by a record that nobody awaits.
 *
 * The stock belongs to the worker's books as well (--max-handles, memory of a real driver): where something is out of memory it is given back
 * before the error is believed. It ends with its context.
 *
 * Objects that other processes gave (IPC), that are ended while a context has failed or a stream captures, or that another context is
 * current for, are the device's business alone: each such call is asked.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/thread.h"
#include "client/remote.h"

#define BUCKETS 16384 /* a power of two */
#define SORTS 32      /* that have a stock at a time */
#define STREAMS_MAX 8 /* of a batch: a stream costs a real driver more than an event */

/* ---- objects that are known ------------------------------------------------------------------------------------------ */

static struct rm_object *buckets[BUCKETS]; /* atomic heads; objects are taken again, never freed, as a thread may be reading one */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards changes of the objects and the stock */

static struct rm_object **
bucket_of(uint64_t handle)
{
	return &buckets[(handle * 0x9e3779b97f4a7c15u) >> 50];
}

struct rm_object *
rm_object_find(enum rm_object_kind kind, const void *handle)
{
	uint64_t key = (uint64_t)(uintptr_t)handle;

	if (!key)
		return NULL;
	for (struct rm_object *o = __atomic_load_n(bucket_of(key), __ATOMIC_ACQUIRE); o; o = o->next)
		if (__atomic_load_n(&o->handle, __ATOMIC_ACQUIRE) == key)
			return __atomic_load_n(&o->kind, __ATOMIC_RELAXED) == kind ? o : NULL;
	return NULL;
}

/* With the lock held. That there is no memory for it only makes its calls slower. */
static void
learn(enum rm_object_kind kind, uint64_t handle, uint64_t context)
{
	struct rm_object **head = bucket_of(handle), *o = *head;

	while (o && o->handle && o->handle != handle)
		o = o->next;
	if (!o) {
		o = calloc(1, sizeof(*o));
		if (!o)
			return;
		o->next = *head;
		__atomic_store_n(head, o, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&o->kind, kind, __ATOMIC_RELAXED);
	__atomic_store_n(&o->context, context, __ATOMIC_RELAXED);
	rm_event_begin(o);
	__atomic_store_n(&o->handle, handle, __ATOMIC_RELEASE);
}

/* With the lock held. */
static void
forget(struct rm_object *o)
{
	__atomic_store_n(&o->handle, 0, __ATOMIC_RELEASE);
	rm_mark_release(__atomic_exchange_n(&o->slot, 0, __ATOMIC_RELAXED));
}

bool
rm_objects_count(void)
{
	return !rm_strict() && !rm_failed() && !rm_may_capture() && !fw_thread.in_callback && wire_alive(rm_link());
}

/* ---- the stock --------------------------------------------------------------------------------------------------------- */

struct sort {
	enum session_stock_kind kind;
	uint32_t flags;
	int32_t priority;
	uint64_t context; /* 0: the place is free */
	uint32_t batch;   /* objects of the last batch */
	uint32_t count;
	uint64_t handles[2 * SESSION_STOCK_MAX];
};

static struct sort sorts[SORTS]; /* guarded by lock */

static enum cuda_call_id
create_call(enum session_stock_kind kind)
{
	return kind == SESSION_STOCK_EVENT ? CALL_cuEventCreate : kind == SESSION_STOCK_STREAM ? CALL_cuStreamCreate : CALL_cuStreamCreateWithPriority;
}

static enum cuda_call_id
destroy_call(enum session_stock_kind kind)
{
	return kind == SESSION_STOCK_EVENT ? CALL_cuEventDestroy_v2 : CALL_cuStreamDestroy_v2;
}

static enum rm_object_kind
object_kind(enum session_stock_kind kind)
{
	return kind == SESSION_STOCK_EVENT ? RM_EVENT : RM_STREAM;
}

/* With the lock held: the stock of the sort, a new one if there is room; NULL: there is none. */
static struct sort *
sort_of(const struct sort *like)
{
	struct sort *free_place = NULL;

	for (struct sort *s = sorts; s < sorts + SORTS; s++) {
		if (s->context == like->context && s->kind == like->kind && s->flags == like->flags && s->priority == like->priority)
			return s;
		if (!s->context && !free_place)
			free_place = s;
	}
	if (free_place)
		*free_place = *like;
	return free_place;
}

/* The worker's objects that nobody will have. `sure`: they are there, so that nobody has to wait to hear it. */
static void
end_all(enum session_stock_kind kind, const uint64_t *handles, uint32_t count, bool sure)
{
	enum cuda_call_id call = destroy_call(kind);
	struct rm_request r;

	for (uint32_t n = 0; n < count; n++) {
		const void *const args[] = { &handles[n] };
		if (!sure) {
			rm_call(call, args);
			continue;
		}
		rm_begin(&r, (uint16_t)call, call_pack_bound(call, args));
		call_pack(&r.out, call, args);
		rm_send(&r);
	}
}

bool
rm_stock_give_back(void)
{
	bool any = false;

	if (!rm_objects_count())
		return false;
	for (struct sort *s = sorts; s < sorts + SORTS; s++) {
		pthread_mutex_lock(&lock);
		struct sort mine = *s;
		s->batch = s->count = 0;
		pthread_mutex_unlock(&lock);
		any |= mine.count > 0;
		end_all(mine.kind, mine.handles, mine.count, true);
	}
	return any;
}

void
rm_stock_context_ended(CUcontext ctx)
{
	uint64_t context = (uint64_t)(uintptr_t)ctx;

	pthread_mutex_lock(&lock);
	for (struct sort *s = sorts; s < sorts + SORTS; s++)
		if (s->context == context)
			*s = (struct sort){ 0 };
	for (unsigned n = 0; n < BUCKETS; n++)
		for (struct rm_object *o = buckets[n]; o; o = o->next)
			if (o->context == context)
				forget(o);
	pthread_mutex_unlock(&lock);
}

void
rm_stock_after_fork(void)
{
	lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

/* ---- creation ---------------------------------------------------------------------------------------------------------- */

/* Takes one from the stock; else *batch is how many to ask for, 1: as the program does. */
static bool
take(const struct sort *like, uint64_t *handle, uint32_t *batch)
{
	uint32_t most = like->kind == SESSION_STOCK_EVENT ? SESSION_STOCK_MAX : STREAMS_MAX;

	*batch = 1;
	pthread_mutex_lock(&lock);
	struct sort *s = sort_of(like);
	bool taken = s && s->count;
	if (taken) {
		*handle = s->handles[--s->count];
		learn(object_kind(like->kind), *handle, like->context);
	} else if (s && s->batch) {
		*batch = 2 * s->batch < most ? 2 * s->batch : most;
	}
	pthread_mutex_unlock(&lock);
	return taken;
}

/* What came: the first is the program's, the others lie in stock from now on. Some may find no room. */
static void
keep(const struct sort *like, const uint64_t *handles, uint32_t count, uint32_t batch, uint64_t epoch)
{
	uint32_t kept = 1;

	pthread_mutex_lock(&lock);
	/* Else a context may have ended since they were asked for, and the same one begun anew. */
	if (rm_epoch(CALL_TOUCHES_OTHER) == epoch) {
		struct sort *s = sort_of(like);
		learn(object_kind(like->kind), handles[0], like->context);
		if (s)
			s->batch = count == batch ? batch : 0;
		while (s && kept < count && s->count < sizeof(s->handles) / sizeof(s->handles[0]))
			s->handles[s->count++] = handles[kept++];
	}
	pthread_mutex_unlock(&lock);
	end_all(like->kind, handles + kept, count - kept, false);
}

/* As the program asks. */
static CUresult
create_one(const struct sort *like, uint64_t *handle)
{
	enum cuda_call_id call = create_call(like->kind);

	return rm_call(call, (const void *const[]){ &handle, &like->flags, &like->priority });
}

static CUresult
create_batch(const struct sort *like, uint32_t batch, uint64_t handles[SESSION_STOCK_MAX], uint32_t *count)
{
	struct session_stock stock = { .kind = (uint32_t)like->kind, .count = batch, .flags = like->flags, .priority = like->priority };
	struct rm_request r;
	struct fw_cursor in;
	uint64_t got = 0;

	rm_begin(&r, SESSION_STOCK, sizeof(stock));
	call_put(&r.out, &stock, sizeof(stock));
	CUresult result = rm_ask(&r, &in);
	const uint64_t *from = result == CUDA_SUCCESS ? call_get_array(&in, sizeof(*from), &got) : NULL;
	if (result == CUDA_SUCCESS && (!from || !got || got > batch))
		result = rm_nonsense(&r);
	for (uint32_t n = 0; result == CUDA_SUCCESS && n < got; n++)
		handles[n] = __atomic_load_n(&from[n], __ATOMIC_RELAXED);
	*count = (uint32_t)got;
	rm_end(&r);
	return result;
}

static CUresult
create(enum session_stock_kind kind, uint32_t flags, int32_t priority, uint64_t *handle)
{
	struct sort like = { .kind = kind, .flags = flags, .priority = priority, .context = (uint64_t)(uintptr_t)fw_thread.ctx };
	uint64_t handles[SESSION_STOCK_MAX], epoch = rm_epoch(CALL_TOUCHES_OTHER);
	uint32_t batch, count = 1;

	/* An event for other processes is more than a handle. */
	if (!rm_objects_count() || (kind == SESSION_STOCK_EVENT && flags & CU_EVENT_INTERPROCESS))
		return create_one(&like, handle);
	if (take(&like, handle, &batch))
		return CUDA_SUCCESS;
	CUresult result = batch > 1 ? create_batch(&like, batch, handles, &count) : create_one(&like, &handles[0]);
	if (result == CUDA_ERROR_OUT_OF_MEMORY && batch > 1) {
		count = 1;
		result = create_one(&like, &handles[0]);
	}
	if (result != CUDA_SUCCESS)
		return result;
	keep(&like, handles, count, batch, epoch);
	*handle = handles[0];
	return CUDA_SUCCESS;
}

CUresult
rm_cuEventCreate(CUevent *phEvent, unsigned Flags)
{
	return create(SESSION_STOCK_EVENT, Flags, 0, (uint64_t *)phEvent);
}

CUresult
rm_cuStreamCreate(CUstream *phStream, unsigned Flags)
{
	return create(SESSION_STOCK_STREAM, Flags, 0, (uint64_t *)phStream);
}

CUresult
rm_cuStreamCreateWithPriority(CUstream *phStream, unsigned flags, int priority)
{
	return create(SESSION_STOCK_PRIORITY_STREAM, flags, priority, (uint64_t *)phStream);
}

/* ---- the end ----------------------------------------------------------------------------------------------------------- */

/* With the lock held. A driver gives handles again: one that has ended for the program may be that of an object in stock. */
static bool
is_in_stock(uint64_t handle)
{
	for (const struct sort *s = sorts; s < sorts + SORTS; s++)
		for (uint32_t n = 0; n < s->count; n++)
			if (s->handles[n] == handle)
				return true;
	return false;
}

/* An object's end: nothing can be wrong with that of one that is known, and that the current context has. */
static CUresult
destroy(enum cuda_call_id call, enum rm_object_kind kind, uint64_t handle)
{
	const void *const args[] = { &handle };
	struct rm_request r;

	pthread_mutex_lock(&lock);
	bool spare = is_in_stock(handle);
	struct rm_object *o = rm_object_find(kind, (const void *)(uintptr_t)handle);
	bool known = o && o->context == (uint64_t)(uintptr_t)fw_thread.ctx && rm_objects_count();
	if (known)
		forget(o);
	pthread_mutex_unlock(&lock);
	if (spare)
		return CUDA_ERROR_INVALID_HANDLE;
	if (known) {
		rm_ended(call);
		rm_begin(&r, (uint16_t)call, call_pack_bound(call, args));
		call_pack(&r.out, call, args);
		CUresult result = rm_send(&r);
		rm_ended(call); /* again: another thread may have asked between the two */
		return result;
	}
	CUresult result = rm_call(call, args);
	if (o && result == CUDA_SUCCESS) {
		pthread_mutex_lock(&lock);
		if (o->handle == handle)
			forget(o);
		pthread_mutex_unlock(&lock);
	}
	return result;
}

CUresult
rm_cuEventDestroy_v2(CUevent hEvent)
{
	return destroy(CALL_cuEventDestroy_v2, RM_EVENT, (uint64_t)(uintptr_t)hEvent);
}

CUresult
rm_cuEventDestroy(CUevent hEvent)
{
	return destroy(CALL_cuEventDestroy, RM_EVENT, (uint64_t)(uintptr_t)hEvent);
}

CUresult
rm_cuStreamDestroy_v2(CUstream hStream)
{
	return destroy(CALL_cuStreamDestroy_v2, RM_STREAM, (uint64_t)(uintptr_t)hStream);
}

CUresult
rm_cuStreamDestroy(CUstream hStream)
{
	return destroy(CALL_cuStreamDestroy, RM_STREAM, (uint64_t)(uintptr_t)hStream);
}
