/*
 * What the device asks of the client: to call its functions, for bytes of its memory; and what kernels print, on its way home.
 *
 * Requests go over two channels of their own (src/client/remote_callback.c); the stream waits until the client has answered. Standard
 * output of this process is a stream that collects: device printf of the software GPU ends there, and goes ahead of the next answer. Under a
 * real driver descriptor 1 collects as well.
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
#include "soft/soft.h"

/* ---- lines --------------------------------------------------------------------------------------------------------- */

/* A request runs with the line's lock held: they come one after the other. */
static struct line {
	pthread_mutex_t lock;
	pthread_cond_t there;
	struct wire_channel *channel; /* guarded by lock */
} lines[SESSION_LINES] = {
	{ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL },
	{ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL },
	{ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL },
};

bool
sv_line_take(struct wire_channel *channel, uint64_t which)
{
	if (which >= SESSION_LINES)
		return false;
	struct line *line = &lines[which];
	pthread_mutex_lock(&line->lock);
	bool first = !line->channel;
	line->channel = first ? channel : line->channel;
	pthread_cond_broadcast(&line->there);
	pthread_mutex_unlock(&line->lock);
	return first;
}

static struct line *
line_lock(enum session_line which)
{
	struct line *line = &lines[which];

	pthread_mutex_lock(&line->lock);
	while (!line->channel)
		pthread_cond_wait(&line->there, &line->lock);
	return line;
}

/* False: the link has ended, and with it this process soon. */
static bool
say(struct line *line, uint16_t kind, const void *bytes, uint32_t size)
{
	struct wire_record *record = wire_reserve(line->channel->to, size);

	if (!record)
		return false;
	*record = (struct wire_record){ .size = size, .kind = kind };
	memcpy(record->payload, bytes, size);
	wire_publish_wake(line->channel->to, record);
	return true;
}

bool
sv_line_tell(enum session_line which, uint16_t kind, const void *bytes, uint32_t size)
{
	struct line *line = line_lock(which);
	bool good = say(line, kind, bytes, size);

	pthread_mutex_unlock(&line->lock);
	return good;
}

static void
await_done(struct line *line)
{
	struct wire_record header;

	if (wire_wait(line->channel->from, &header, -1))
		wire_release(line->channel->from);
}

/* ---- the client's memory ------------------------------------------------------------------------------------------- */

static void
far_read(void *to, uint64_t from, uint64_t pitch, uint64_t width, uint64_t rows)
{
	struct session_far far = { from, pitch, width, rows };
	uint64_t total = width * rows, done = 0;
	struct wire_record header;
	struct line *line = line_lock(SESSION_LINE_MEMORY);

	if (say(line, SESSION_FAR_READ, &far, sizeof(far))) {
		while (done < total) {
			const uint8_t *packed = wire_wait(line->channel->from, &header, -1);
			if (!packed)
				break;
			uint64_t part = header.size < total - done ? header.size : total - done;
			memcpy((uint8_t *)to + done, packed, part);
			done += part;
			wire_release(line->channel->from);
		}
	}
	pthread_mutex_unlock(&line->lock);
}

static void
far_write(uint64_t to, uint64_t pitch, const void *from, uint64_t width, uint64_t rows)
{
	struct session_far far = { to, pitch, width, rows };
	uint64_t total = width * rows;
	struct line *line = line_lock(SESSION_LINE_MEMORY);
	bool good = say(line, SESSION_FAR_WRITE, &far, sizeof(far));

	for (uint64_t at = 0; at < total && good; at += SESSION_CHUNK) {
		uint32_t part = total - at < SESSION_CHUNK ? (uint32_t)(total - at) : SESSION_CHUNK;
		good = say(line, SESSION_FAR_WRITE, (const uint8_t *)from + at, part);
	}
	if (good)
		await_done(line);
	pthread_mutex_unlock(&line->lock);
}

const struct sw_far sv_far = { far_read, far_write };
_Static_assert(SW_FAR == SESSION_FAR, "the device and the client mean the same addresses");

/* ---- functions ----------------------------------------------------------------------------------------------------- */

void
sv_callback(const struct session_callback *callback)
{
	struct line *line = line_lock(SESSION_LINE_FUNCTIONS);

	if (say(line, SESSION_CALLBACK, callback, sizeof(*callback)))
		await_done(line);
	pthread_mutex_unlock(&line->lock);
}

void
sv_host_function(void *user)
{
	sv_callback(user);
}

static void
run_once(void *user)
{
	sv_callback(user);
	free(user);
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

#define BUCKETS 1024

/* Nodes name what they call as long as any graph lives: one record for each function with its argument, for ever. */
struct session_callback *
sv_callback_keep(const struct session_callback *callback)
{
	static struct kept {
		struct kept *next;
		struct session_callback callback;
	} *buckets[BUCKETS];
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards buckets */

	struct kept **head = &buckets[((callback->function ^ callback->user) * 0x9e3779b97f4a7c15u >> 54) % BUCKETS];
	pthread_mutex_lock(&lock);
	struct kept *kept = *head;
	while (kept && (kept->callback.function != callback->function || kept->callback.user != callback->user ||
	                kept->callback.seal != callback->seal))
		kept = kept->next;
	if (!kept && (kept = malloc(sizeof(*kept)))) {
		*kept = (struct kept){ *head, *callback };
		*head = kept;
	}
	pthread_mutex_unlock(&lock);
	return kept ? &kept->callback : NULL;
}

static bool
get_callback(struct sv_call *call, struct session_callback *callback)
{
	const void *bytes = call_get(&call->in, sizeof(*callback));

	if (bytes)
		memcpy(callback, bytes, sizeof(*callback));
	return bytes;
}

static struct session_callback *
copy_of(const struct session_callback *callback)
{
	struct session_callback *copy = malloc(sizeof(*copy));

	if (copy)
		*copy = *callback;
	return copy;
}

bool
sv_cuLaunchHostFunc(struct sv_call *call, CUresult *result)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	struct session_callback callback;

	if (!get_callback(call, &callback))
		return false;
	CUstream stream = (CUstream)(uintptr_t)callback.stream;
	/* What is captured runs as often as the graph does. */
	bool again = call->ops->cuStreamIsCapturing(stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
	struct session_callback *kept = again ? sv_callback_keep(&callback) : copy_of(&callback);
	*result = kept ? call->ops->cuLaunchHostFunc(stream, again ? sv_host_function : run_once, kept) : CUDA_ERROR_OUT_OF_MEMORY;
	if (*result != CUDA_SUCCESS && !again)
		free(kept);
	return true;
}

bool
sv_cuStreamAddCallback(struct sv_call *call, CUresult *result)
{
	struct session_callback callback;

	if (!get_callback(call, &callback))
		return false;
	struct session_callback *kept = copy_of(&callback);
	*result = kept ? call->ops->cuStreamAddCallback((CUstream)(uintptr_t)callback.stream, stream_callback, kept, 0) : CUDA_ERROR_OUT_OF_MEMORY;
	if (*result != CUDA_SUCCESS)
		free(kept);
	return true;
}

bool
sv_cuUserObjectCreate(struct sv_call *call, CUresult *result)
{
	struct session_callback callback;
	CUuserObject object = NULL;

	if (!get_callback(call, &callback))
		return false;
	unsigned references = (unsigned)call_get_u64(&call->in), flags = (unsigned)call_get_u64(&call->in);
	if (call->in.bad)
		return false;
	struct session_callback *kept = copy_of(&callback);
	*result = kept ? call->ops->cuUserObjectCreate(&object, kept, run_once, references, flags) : CUDA_ERROR_OUT_OF_MEMORY;
	if (*result != CUDA_SUCCESS)
		free(kept);
	call_put_u64(&call->out, (uint64_t)(uintptr_t)object);
	return true;
}

/* ---- log lines ----------------------------------------------------------------------------------------------------- */

#define LINES_MAX 4096 /* that wait for an answer to go ahead of: later ones are lost to the client, not to the server's log */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two below */
static struct sv_line *first_line, *last_line;
static unsigned line_count; /* atomic, written under the lock */
static int log_level;

/* What device code wrote to standard error goes the same way, as it is. */
static void
queue_line(uint64_t level, const char *text, size_t size)
{
	struct sv_line *line = malloc(sizeof(*line) + size);

	if (!line)
		return;
	*line = (struct sv_line){ .level = level, .size = size };
	memcpy(line->text, text, size);
	pthread_mutex_lock(&log_lock);
	bool fits = line_count < LINES_MAX;
	if (fits) {
		*(last_line ? &last_line->next : &first_line) = line;
		last_line = line;
		__atomic_add_fetch(&line_count, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&log_lock);
	if (!fits)
		free(line);
}

static void
observe(enum fw_log_level level, const char *text)
{
	static const char *const own[] = { "worker: ", "wire: ", "server: " };

	for (size_t n = 0; n < sizeof(own) / sizeof(own[0]); n++)
		if (strncmp(text, own[n], strlen(own[n])) == 0)
			return;
	if ((int)level <= log_level)
		queue_line((uint64_t)level, text, strlen(text));
}

void
sv_log_begin(int level)
{
	log_level = level < FW_LOG_ERROR ? FW_LOG_ERROR : level > FW_LOG_DEBUG ? FW_LOG_DEBUG : level;
	fw_log_observer = observe;
	fw_log_observe((enum fw_log_level)log_level);
}

struct sv_line *
sv_log_take(void)
{
	if (!__atomic_load_n(&line_count, __ATOMIC_ACQUIRE))
		return NULL;
	pthread_mutex_lock(&log_lock);
	struct sv_line *line = first_line;
	if (line) {
		first_line = line->next;
		if (!first_line)
			last_line = NULL;
		__atomic_sub_fetch(&line_count, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&log_lock);
	return line;
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

static ssize_t
take_error(void *cookie, const char *text, size_t size)
{
	(void)cookie;
	for (size_t at = 0; at < size; at += SESSION_CHUNK)
		queue_line(SESSION_LOG_RAW, text + at, size - at < SESSION_CHUNK ? size - at : SESSION_CHUNK);
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
	FILE *errors = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = take_error });

	if (!stream || !errors || setvbuf(errors, NULL, _IOLBF, 0) != 0)
		return false;
	fflush(stdout);
	stdout = stream;
	stderr = errors; /* the log does not use it */
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
