/*
 * The worker's half of src/client/remote_event.c: marks of events (call/session.h).
 *
 * The device writes them: the software GPU itself when a record is done, a real driver by a write of a value in the stream ahead of the record
 * (cuStreamWriteValue64), where it takes their memory for registering: so whatever waits for the event finds the mark written. Where the memory is not shared with the client, a thread looks at those
 * that are to change and tells the client.
 *
 * What the client says of a mark is its place and a number; what stands in memory that it shares is never believed.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "server/server.h"
#include "soft/soft.h"

#define NAP_MIN_US 20
#define NAP_MAX_US 200
#define STALE_US 1000000     /* what has not changed for so long ... */
#define NAP_STALE_US 10000   /* ... is looked at less often: a context that has failed changes no mark any more */

static uint64_t *marks; /* atomic; set once: SESSION_MARKS_COUNT of them, the device's to write */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static bool is_told; /* the client does not see this memory: it is told */

/* ---- marks that are to change ---------------------------------------------------------------------------------------- */

static struct expected {
	uint64_t number, told; /* what the mark is to become, at least; what the client knows of it */
	bool listed;
} expected[SESSION_MARKS_COUNT];
static uint32_t listed[SESSION_MARKS_COUNT]; /* slots, in no order */
static uint32_t listed_count;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static bool is_waiting; /* for `more`: the thread that looks is not about to look anyhow */

/* What has changed since the client was told; those that are what they were to become leave the list. With the lock held. */
static uint32_t
look(struct session_mark *changed)
{
	uint32_t count = 0;

	for (uint32_t n = 0; n < listed_count;) {
		struct expected *e = &expected[listed[n]];
		uint64_t number = __atomic_load_n(&marks[listed[n]], __ATOMIC_ACQUIRE);
		if (number > e->told)
			changed[count++] = (struct session_mark){ listed[n], e->told = number };
		if (number < e->number) {
			n++;
			continue;
		}
		e->listed = false;
		listed[n] = listed[--listed_count];
	}
	return count;
}

/* Looks until nothing is new: then what had to be done before something that is told of is told of too. In memory from malloc, or NULL. */
static struct session_mark *
collect(uint32_t *count)
{
	struct session_mark *changed = malloc((listed_count + 1) * sizeof(*changed)), *more_of_it;
	uint32_t room = listed_count + 1, found;

	*count = 0;
	while (changed && (found = look(changed + *count))) {
		*count += found;
		if (room - *count > listed_count)
			continue;
		room = *count + listed_count + 1;
		more_of_it = realloc(changed, room * sizeof(*changed));
		if (!more_of_it)
			break;
		changed = more_of_it;
	}
	return changed;
}

/* With the lock held: until there is more to look at, or at most so long; 0: for good. Whether there is. */
static bool
wait_for_more(useconds_t us)
{
	struct timespec until;
	int error = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)us * 1000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	is_waiting = true;
	if (us)
		error = pthread_cond_timedwait(&more, &lock, &until);
	else
		pthread_cond_wait(&more, &lock);
	is_waiting = false;
	return !error;
}

static void *
watch(void *unused)
{
	uint64_t idle_us = 0;
	useconds_t nap = NAP_MIN_US;
	uint32_t count = 0;

	(void)unused;
	for (;;) {
		pthread_mutex_lock(&lock);
		if ((!listed_count || idle_us >= STALE_US) && wait_for_more(listed_count ? NAP_STALE_US : 0)) {
			idle_us = 0;
			nap = NAP_MIN_US;
		}
		struct session_mark *changed = collect(&count);
		pthread_mutex_unlock(&lock);
		bool good = !count || sv_line_tell(SESSION_LINE_MARKS, SESSION_MARKED, changed, (uint32_t)(count * sizeof(*changed)));
		free(changed);
		if (!good)
			return NULL;
		nap = count ? NAP_MIN_US : nap * 2 < NAP_MAX_US ? nap * 2 : NAP_MAX_US;
		idle_us = count ? 0 : idle_us + nap;
		if (idle_us < STALE_US)
			usleep(nap);
	}
}

/* The client waits to be told. */
static void
expect(uint32_t slot, uint64_t number)
{
	pthread_mutex_lock(&lock);
	if (is_told) {
		struct expected *e = &expected[slot];
		e->number = number > e->number ? number : e->number;
		if (!e->listed) {
			e->listed = true;
			listed[listed_count++] = slot;
			if (is_waiting)
				pthread_cond_signal(&more);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* ---- a real driver ------------------------------------------------------------------------------------------------------ */

/* The context that knows the marks' memory, and where it has it. Other contexts' records have no marks. */
static void *marks_context; /* guarded by lock */
static CUdeviceptr marks_device;
static bool cannot;         /* the driver does not take the memory, or does not write values */

void
sv_marks_context_ended(void)
{
	pthread_mutex_lock(&lock);
	marks_context = NULL; /* the registration ended with it; if it was another's, registering again says so, and works */
	pthread_mutex_unlock(&lock);
}

/* Where the current context's device finds the marks; 0: nowhere. */
static CUdeviceptr
device_marks(const struct cuda_ops *ops)
{
	pthread_mutex_lock(&lock);
	if (!marks_context && !cannot) {
		CUresult result = ops->cuMemHostRegister_v2(marks, SESSION_MARKS_BYTES, CU_MEMHOSTREGISTER_DEVICEMAP);
		if (result == CUDA_SUCCESS || result == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
			result = ops->cuMemHostGetDevicePointer_v2(&marks_device, marks, 0);
		cannot = result != CUDA_SUCCESS;
		marks_context = cannot ? NULL : fw_thread.ctx;
	}
	CUdeviceptr at = marks_context == fw_thread.ctx ? marks_device : 0;
	pthread_mutex_unlock(&lock);
	return at;
}

/* Ahead of the record, in its stream. False: there will be no mark. */
static bool
write_ahead(const struct cuda_ops *ops, CUstream stream, uint32_t slot, uint64_t number)
{
	CUdeviceptr at = device_marks(ops);

	if (!at)
		return false;
	CUresult result = ops->cuStreamWriteValue64_v2(stream, at + slot * sizeof(uint64_t), number, 0);
	if (result == CUDA_ERROR_NOT_SUPPORTED || result == CUDA_ERROR_INVALID_VALUE) {
		pthread_mutex_lock(&lock);
		cannot = true;
		marks_context = NULL;
		pthread_mutex_unlock(&lock);
	}
	return result == CUDA_SUCCESS;
}

/* ---- records ----------------------------------------------------------------------------------------------------------- */

/* Memory that the client shares, or of this process. NULL: it is not what was said. */
static void *
map_marks(struct sv_call *call, uint64_t tag)
{
	struct stat st;
	void *at = MAP_FAILED;

	if (!tag) {
		at = mmap(NULL, SESSION_MARKS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	} else {
		int fd = sv_descriptor_take(call, tag);
		if (sv_cannot_shrink(fd) && fstat(fd, &st) == 0 && st.st_size == (off_t)SESSION_MARKS_BYTES)
			at = mmap(NULL, SESSION_MARKS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (fd >= 0)
			close(fd);
	}
	return at == MAP_FAILED ? NULL : at;
}

bool
sv_serve_marks(struct sv_call *call, CUresult *result)
{
	struct session_marks given;
	const void *bytes = call_get(&call->in, sizeof(given));
	pthread_t thread;

	if (!bytes)
		return false;
	memcpy(&given, bytes, sizeof(given));
	call_put_u64(&call->out, sv_reaches_far() ? SESSION_MARKS_SYNCED : SESSION_MARKS_DONE);
	*result = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	void *at = marks ? NULL : map_marks(call, given.tag);
	bool good = at && (given.tag || pthread_create(&thread, NULL, watch, NULL) == 0);
	if (good) {
		is_told = !given.tag;
		if (is_told)
			pthread_detach(thread);
		__atomic_store_n(&marks, at, __ATOMIC_RELEASE);
		*result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&lock);
	if (at && !good)
		munmap(at, SESSION_MARKS_BYTES);
	return true;
}

bool
sv_serve_record(struct sv_call *call, CUresult *result)
{
	struct session_record record;
	const void *bytes = call_get(&call->in, sizeof(record));
	uint64_t *at = __atomic_load_n(&marks, __ATOMIC_ACQUIRE);

	if (!bytes)
		return false;
	memcpy(&record, bytes, sizeof(record));
	if (record.slot >= SESSION_MARKS_COUNT || !at)
		return false;
	/* What failed before on this channel has to be told by a real answer. */
	bool marked = call->channel->late == CUDA_SUCCESS;
	CUstream stream = (CUstream)(uintptr_t)record.stream;
	if (sv_reaches_far())
		sw_mark_next_record(marked ? &at[record.slot] : NULL, record.number);
	else
		marked = marked && write_ahead(call->ops, stream, record.slot, record.number);
	*result = call->ops->cuEventRecord((CUevent)(uintptr_t)record.event, stream);
	if (sv_reaches_far())
		sw_mark_next_record(NULL, 0);
	if (marked && *result == CUDA_SUCCESS)
		expect(record.slot, record.number);
	return true;
}
