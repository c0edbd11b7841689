/*
 * Functions of the client that the device calls, and what kernels print, on their way home.
 *
 * A callback goes over a channel of its own; the stream waits until the client has answered. Standard output of this process is a
 * stream that collects: device printf of the software GPU ends there, and goes ahead of the next answer. Under a real driver descriptor 1
 * collects as well.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "server/server.h"

/* ---- callbacks ----------------------------------------------------------------------------------------------------- */

static struct wire_channel *callbacks; /* guarded by callback_lock, which is held while one runs: they come one after the other */
static pthread_mutex_t callback_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t callbacks_there = PTHREAD_COND_INITIALIZER;

void
sv_callbacks_take(struct wire_channel *channel)
{
	pthread_mutex_lock(&callback_lock);
	callbacks = channel;
	pthread_cond_broadcast(&callbacks_there);
	pthread_mutex_unlock(&callback_lock);
}

void
sv_callback(const struct session_callback *callback)
{
	struct wire_record header;

	pthread_mutex_lock(&callback_lock);
	while (!callbacks)
		pthread_cond_wait(&callbacks_there, &callback_lock);
	struct wire_record *record = wire_reserve(callbacks->to, sizeof(*callback));
	if (record) {
		*record = (struct wire_record){ .size = sizeof(*callback), .kind = SESSION_CALLBACK };
		memcpy(record->payload, callback, sizeof(*callback));
		wire_publish_wake(callbacks->to, record);
		if (wire_wait(callbacks->from, &header, -1))
			wire_release(callbacks->from);
	}
	pthread_mutex_unlock(&callback_lock);
}

static void
host_function(void *user)
{
	sv_callback(user);
}

static void
stream_callback(CUstream stream, CUresult status, void *user)
{
	struct session_callback callback = *(struct session_callback *)user;

	callback.stream = callback.stream ? callback.stream : (uint64_t)(uintptr_t)stream;
	callback.status = status;
	sv_callback(&callback);
	free(user);
}

/* The record's callback, in memory that outlives the call: host functions of a graph run as often as it does. */
static struct session_callback *
keep(struct sv_call *call)
{
	const void *bytes = call_get(&call->in, sizeof(struct session_callback));
	struct session_callback *kept = bytes ? malloc(sizeof(*kept)) : NULL;

	if (kept)
		memcpy(kept, bytes, sizeof(*kept));
	return kept;
}

bool
sv_cuLaunchHostFunc(struct sv_call *call, CUresult *result)
{
	struct session_callback *kept = keep(call);

	if (!kept)
		return false;
	*result = call->ops->cuLaunchHostFunc((CUstream)(uintptr_t)kept->stream, host_function, kept);
	return true;
}

bool
sv_cuStreamAddCallback(struct sv_call *call, CUresult *result)
{
	struct session_callback *kept = keep(call);

	if (!kept)
		return false;
	*result = call->ops->cuStreamAddCallback((CUstream)(uintptr_t)kept->stream, stream_callback, kept, 0);
	if (*result != CUDA_SUCCESS)
		free(kept);
	return true;
}

/* ---- output -------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;
static char *output;       /* guarded by output_lock */
static size_t output_size; /* atomic, written under the lock */

/* With the lock held. */
static void
append(const char *text, size_t size)
{
	char *more = realloc(output, output_size + size);

	if (more) {
		output = more;
		memcpy(output + output_size, text, size);
		__atomic_store_n(&output_size, output_size + size, __ATOMIC_RELEASE);
	}
}

static ssize_t
take_text(void *cookie, const char *text, size_t size)
{
	(void)cookie;
	pthread_mutex_lock(&output_lock);
	append(text, size);
	pthread_mutex_unlock(&output_lock);
	return (ssize_t)size;
}

/* A file that descriptor 1 writes to: bytes from `taken` on are new. */
static int captured = -1;
static off_t taken; /* guarded by output_lock */

/* A driver may write to the descriptor and not to the stream. */
static bool
capture_descriptor(void)
{
	int fd = memfd_create("farwarp-output", MFD_CLOEXEC);

	/* Written at its end, whoever writes, and read by offset. */
	if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND) != 0 || dup2(fd, STDOUT_FILENO) < 0)
		return false;
	captured = fd;
	return true;
}

bool
sv_output_begin(bool descriptor)
{
	FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = take_text });

	if (!stream)
		return false;
	fflush(stdout);
	stdout = stream;
	return !descriptor || capture_descriptor();
}

/* Adds what came to the descriptor to the output, and gives its pages back. */
static void
look_at_descriptor(void)
{
	char text[4096];
	struct stat st;

	if (fstat(captured, &st) != 0 || st.st_size == __atomic_load_n(&taken, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&output_lock);
	for (ssize_t got; (got = pread(captured, text, sizeof(text), taken)) > 0;) {
		append(text, (size_t)got);
		taken += got;
	}
	pthread_mutex_unlock(&output_lock);
	fallocate(captured, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size);
}

char *
sv_output_take(size_t *size, bool look)
{
	*size = 0;
	if (__fpending(stdout) > 0)
		fflush(stdout);
	if (look && captured >= 0)
		look_at_descriptor();
	if (!__atomic_load_n(&output_size, __ATOMIC_ACQUIRE))
		return NULL;
	pthread_mutex_lock(&output_lock);
	char *text = output;
	*size = output_size;
	output = NULL;
	__atomic_store_n(&output_size, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&output_lock);
	return text;
}
