/*
 * Context-local storage: a map from (context, key) to a value, in which each copy of the CUDA runtime keeps its state of a
 * context. It is asked once per runtime call, so a look-up takes no lock; putting and deleting take one.
 *
 * A context has few keys (one a copy of the runtime), so a chain of small arrays is searched from end to end.
 */
#include "client.h"

#include <pthread.h>
#include <stdlib.h>

#define CHUNK_ENTRIES 15

struct entry {
	void *key;   /* atomic; NULL: free. Written after the value (release), cleared before it changes */
	void *value; /* atomic */
	cl_storage_destructor destructor;
};

struct cl_storage_chunk {
	struct cl_storage_chunk *next; /* immutable once the chunk can be seen */
	struct entry entries[CHUNK_ENTRIES];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards every change */

static struct entry *
find(struct cl_context *context, const void *key)
{
	struct cl_storage_chunk *chunk = __atomic_load_n(&context->storage.chunks, __ATOMIC_ACQUIRE);

	for (; chunk; chunk = chunk->next)
		for (int i = 0; i < CHUNK_ENTRIES; i++)
			if (__atomic_load_n(&chunk->entries[i].key, __ATOMIC_ACQUIRE) == key)
				return &chunk->entries[i];
	return NULL;
}

CUresult
cl_storage_get(struct cl_context *context, void *key, void **value)
{
	struct entry *entry = key ? find(context, key) : NULL;

	if (!entry)
		return CUDA_ERROR_INVALID_HANDLE;
	void *found = __atomic_load_n(&entry->value, __ATOMIC_ACQUIRE);
	/* If the entry was deleted meanwhile, the value may be another key's. */
	if (__atomic_load_n(&entry->key, __ATOMIC_ACQUIRE) != key)
		return CUDA_ERROR_INVALID_HANDLE;
	*value = found;
	return CUDA_SUCCESS;
}

CUresult
cl_storage_put(struct cl_context *context, void *key, void *value, cl_storage_destructor destructor)
{
	CUresult result = CUDA_SUCCESS;

	if (!key)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	struct entry *entry = find(context, key);
	if (!entry)
		entry = find(context, NULL);
	if (!entry) {
		struct cl_storage_chunk *chunk = calloc(1, sizeof(*chunk));
		if (chunk) {
			chunk->next = context->storage.chunks;
			entry = &chunk->entries[0];
			__atomic_store_n(&context->storage.chunks, chunk, __ATOMIC_RELEASE);
		}
	}
	if (entry) {
		entry->destructor = destructor;
		__atomic_store_n(&entry->value, value, __ATOMIC_RELEASE);
		__atomic_store_n(&entry->key, key, __ATOMIC_RELEASE);
	} else {
		result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	pthread_mutex_unlock(&lock);
	return result;
}

CUresult
cl_storage_delete(struct cl_context *context, void *key)
{
	pthread_mutex_lock(&lock);
	struct entry *entry = key ? find(context, key) : NULL;
	if (entry)
		__atomic_store_n(&entry->key, NULL, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
	return entry ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Takes one entry out; false when there is none left. */
static bool
take(struct cl_context *context, struct entry *taken)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (struct cl_storage_chunk *chunk = context->storage.chunks; chunk && !found; chunk = chunk->next)
		for (int i = 0; i < CHUNK_ENTRIES && !found; i++)
			if (chunk->entries[i].key) {
				*taken = chunk->entries[i];
				__atomic_store_n(&chunk->entries[i].key, NULL, __ATOMIC_RELEASE);
				found = true;
			}
	pthread_mutex_unlock(&lock);
	return found;
}

void
cl_storage_destroy(struct cl_context *context)
{
	CUcontext handle = __atomic_load_n(&context->handle, __ATOMIC_RELAXED);
	struct entry entry;

	while (take(context, &entry))
		if (entry.destructor)
			entry.destructor(handle, entry.key, entry.value);
}

void
cl_storage_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
}
