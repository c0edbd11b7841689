/*
 * cuLogs*: the errors and warnings of this library, readable by the program.
 *
 * The last lines are kept, numbered; an iterator is such a number. Lines that FARWARP_LOG hides are not kept either.
 */
#include "client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINES 128
#define LINE_BYTES 512
#define DUMP_MAX 25600 /* bytes that a dump to memory may have */

struct CUlogsCallbackEntry_st {
	CUlogsCallback function;
	void *user;
	struct CUlogsCallbackEntry_st *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards everything below */
static char lines[LINES][LINE_BYTES];                    /* line n is at n % LINES */
static unsigned next_line;
static struct CUlogsCallbackEntry_st *callbacks;

static __thread bool inside; /* a callback that logs must not call itself */

static void
observe(enum fw_log_level level, const char *text)
{
	struct CUlogsCallbackEntry_st copies[8];
	size_t count = 0;
	struct timespec now;
	char message[LINE_BYTES];

	if (level > FW_LOG_WARN || inside)
		return;
	inside = true;
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(message, sizeof(message), "[%lld.%03ld][CUDA][%c] %s", (long long)now.tv_sec, now.tv_nsec / 1000000,
	         level == FW_LOG_ERROR ? 'E' : 'W', text);
	pthread_mutex_lock(&lock);
	memcpy(lines[next_line++ % LINES], message, sizeof(message));
	for (struct CUlogsCallbackEntry_st *entry = callbacks; entry && count < 8; entry = entry->next)
		copies[count++] = *entry;
	pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < count; i++)
		copies[i].function(copies[i].user, level == FW_LOG_ERROR ? CU_LOG_LEVEL_ERROR : CU_LOG_LEVEL_WARNING, message,
		                   strlen(message));
	inside = false;
}

/* From the first cuInit on, whether a program reads them or not: it may ask for what was. */
void
cl_logs_begin(void)
{
	fw_log_observer = observe;
}

void
cl_logs_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
}

CUresult
cl_cuLogsRegisterCallback(CUlogsCallback function, void *user, CUlogsCallbackHandle *handle)
{
	if (!function)
		return CUDA_ERROR_INVALID_VALUE;
	struct CUlogsCallbackEntry_st *entry = malloc(sizeof(*entry));
	if (!entry)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*entry = (struct CUlogsCallbackEntry_st){ .function = function, .user = user };
	pthread_mutex_lock(&lock);
	entry->next = callbacks;
	callbacks = entry;
	pthread_mutex_unlock(&lock);
	if (handle)
		*handle = entry;
	return CUDA_SUCCESS;
}

CUresult
cl_cuLogsUnregisterCallback(CUlogsCallbackHandle handle)
{
	struct CUlogsCallbackEntry_st *found = NULL;

	pthread_mutex_lock(&lock);
	for (struct CUlogsCallbackEntry_st **at = &callbacks; *at; at = &(*at)->next)
		if (*at == handle) {
			found = *at;
			*at = found->next;
			break;
		}
	pthread_mutex_unlock(&lock);
	free(found);
	return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
cl_cuLogsCurrent(CUlogIterator *iterator, unsigned flags)
{
	if (flags != 0)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	*iterator = next_line;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

/* The first line that is still there from `iterator` on; the lock is held. */
static unsigned
first_kept(const CUlogIterator *iterator)
{
	unsigned oldest = next_line > LINES ? next_line - LINES : 0, first = iterator ? *iterator : oldest;

	return first < oldest || first > next_line ? oldest : first;
}

CUresult
cl_cuLogsDumpToFile(CUlogIterator *iterator, const char *path, unsigned flags)
{
	if (!path || flags != 0)
		return CUDA_ERROR_INVALID_VALUE;
	FILE *file = fopen(path, "w");
	if (!file)
		return errno == ENOENT ? CUDA_ERROR_FILE_NOT_FOUND : CUDA_ERROR_OPERATING_SYSTEM;
	pthread_mutex_lock(&lock);
	for (unsigned line = first_kept(iterator); line != next_line; line++)
		fprintf(file, "%s\n", lines[line % LINES]);
	if (iterator)
		*iterator = next_line;
	pthread_mutex_unlock(&lock);
	return fclose(file) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/* The newest lines that fit, with a NUL behind them that is not counted. */
CUresult
cl_cuLogsDumpToMemory(CUlogIterator *iterator, char *buffer, size_t *size, unsigned flags)
{
	size_t room = *size < DUMP_MAX ? *size : DUMP_MAX, used = 0;

	if (flags != 0 || room == 0)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	unsigned oldest = first_kept(iterator), line = next_line;
	while (line != oldest && used + strlen(lines[(line - 1) % LINES]) + 1 < room)
		used += strlen(lines[--line % LINES]) + 1;
	used = 0;
	for (; line != next_line; line++)
		used += (size_t)snprintf(buffer + used, room - used, "%s\n", lines[line % LINES]);
	buffer[used] = 0;
	if (iterator)
		*iterator = next_line;
	pthread_mutex_unlock(&lock);
	*size = used;
	return CUDA_SUCCESS;
}
