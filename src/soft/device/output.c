/*
 * What kernels printed, until a synchronisation writes it to stdout.
 *
 * A ring of CU_LIMIT_PRINTF_FIFO_SIZE bytes holds the texts of printf calls, each behind its length. When it is full the oldest
 * texts are dropped, as CUDA documents. Written with stdio, so that the order against the program's own printf is kept.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "soft/device/device.h"

#define SW_OUTPUT_DEFAULT ((uint64_t)1 << 20)
#define SW_OUTPUT_MAX ((uint64_t)1 << 30)

static struct {
	pthread_mutex_t lock;       /* guards everything here */
	pthread_mutex_t flush_lock; /* one flush at a time, so that texts keep their order; taken before `lock` */
	char *ring;
	uint64_t size, limit;       /* of the ring; wanted for the next ring */
	uint64_t head, used;        /* oldest byte; bytes */
	bool waits;                 /* atomic: used is not 0 */
} sw_output = { .lock = PTHREAD_MUTEX_INITIALIZER, .flush_lock = PTHREAD_MUTEX_INITIALIZER, .limit = SW_OUTPUT_DEFAULT };

static void
ring_put(const void *bytes, uint64_t count)
{
	uint64_t at = (sw_output.head + sw_output.used) % sw_output.size, first = sw_output.size - at;

	if (first > count)
		first = count;
	memcpy(sw_output.ring + at, bytes, first);
	memcpy(sw_output.ring, (const char *)bytes + first, count - first);
	sw_output.used += count;
}

static void
ring_get(void *bytes, uint64_t count)
{
	uint64_t first = sw_output.size - sw_output.head;

	if (first > count)
		first = count;
	if (bytes) {
		memcpy(bytes, sw_output.ring + sw_output.head, first);
		memcpy((char *)bytes + first, sw_output.ring, count - first);
	}
	sw_output.head = (sw_output.head + count) % sw_output.size;
	sw_output.used -= count;
}

void
sw_output_append(const char *text, size_t size)
{
	pthread_mutex_lock(&sw_output.lock);
	if (!sw_output.ring) {
		sw_output.ring = malloc(sw_output.limit);
		sw_output.size = sw_output.ring ? sw_output.limit : 0;
		sw_output.head = sw_output.used = 0;
	}
	uint32_t length = size < sw_output.size - sizeof length ? (uint32_t)size : (uint32_t)(sw_output.size - sizeof length);
	if (sw_output.ring) {
		while (sw_output.size - sw_output.used < length + sizeof length) {
			uint32_t oldest;
			ring_get(&oldest, sizeof oldest);
			ring_get(NULL, oldest);
			fw_warn_once("soft", "device printf: the buffer is full, oldest text dropped (CU_LIMIT_PRINTF_FIFO_SIZE %llu)",
			             (unsigned long long)sw_output.size);
		}
		ring_put(&length, sizeof length);
		ring_put(text, length);
	}
	__atomic_store_n(&sw_output.waits, sw_output.used != 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&sw_output.lock);
}

void
sw_output_flush(void)
{
	pthread_mutex_lock(&sw_output.flush_lock);
	pthread_mutex_lock(&sw_output.lock);
	uint64_t used = sw_output.used;
	char *text = used ? malloc(used) : NULL;
	uint64_t size = 0;
	while (text && sw_output.used) {
		uint32_t length;
		ring_get(&length, sizeof length);
		ring_get(text + size, length);
		size += length;
	}
	__atomic_store_n(&sw_output.waits, sw_output.used != 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&sw_output.lock);
	if (size)
		fwrite(text, 1, size, stdout);
	free(text);
	pthread_mutex_unlock(&sw_output.flush_lock);
}

bool
sw_output_waits(void)
{
	return __atomic_load_n(&sw_output.waits, __ATOMIC_RELAXED);
}

/* A new size holds from the next printf on; what is in the ring is written out first. */
void
sw_output_limit(uint64_t bytes)
{
	sw_output_flush();
	pthread_mutex_lock(&sw_output.lock);
	sw_output.limit = bytes < 1024 ? 1024 : bytes > SW_OUTPUT_MAX ? SW_OUTPUT_MAX : bytes;
	if (sw_output.ring && !sw_output.used) {
		free(sw_output.ring);
		sw_output.ring = NULL;
		sw_output.size = 0;
	}
	pthread_mutex_unlock(&sw_output.lock);
}
