/* The table behind the handles (handles.h): chunks of slots that never move, so that lookups need no lock. */
#include "handles.h"

#include <pthread.h>
#include <stdlib.h>

/*
 * handle: 0 1 | kind (7 bits) | generation (24 bits) | slot (31 bits). The top bit is clear because callers exist that take a
 * handle for a signed number (Python's cuda.bindings).
 */
#define MARK ((uint64_t)1 << 62)
#define SLOT_BITS 31
#define SLOT_MASK 0x7fffffffu
#define CHUNK_BITS 10
#define CHUNK_SIZE (1u << CHUNK_BITS)
#define CHUNK_COUNT 4096u

struct slot {
	void *object;        /* NULL when free; written last on creation, first on end (release/acquire) */
	uint32_t tag;        /* kind << 24 | generation, of the present or last use */
	uint32_t next_free;  /* slot + 1 of the next free slot, guarded by `lock` */
};

static struct slot *chunks[CHUNK_COUNT];
static uint32_t used_slots; /* guarded by lock */
static uint32_t first_free; /* slot + 1, guarded by lock */
static unsigned live[128];  /* guarded by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards creation and end */

static void *
handle_of(uint32_t tag, uint32_t index)
{
	return (void *)(uintptr_t)(MARK | (uint64_t)tag << SLOT_BITS | index);
}

static struct slot *
slot_of(const void *handle)
{
	uint64_t value = (uint64_t)(uintptr_t)handle;
	uint32_t index = (uint32_t)value & SLOT_MASK;

	if (value >> 62 != 1 || index >= CHUNK_COUNT * CHUNK_SIZE)
		return NULL;
	struct slot *chunk = __atomic_load_n(&chunks[index >> CHUNK_BITS], __ATOMIC_ACQUIRE);
	if (!chunk)
		return NULL;
	struct slot *slot = &chunk[index & (CHUNK_SIZE - 1)];
	return __atomic_load_n(&slot->tag, __ATOMIC_RELAXED) == (uint32_t)(value >> SLOT_BITS & 0x7fffffff) ? slot : NULL;
}

void *
fw_handle_new(unsigned kind, void *object)
{
	struct slot *slot;
	uint32_t index;

	pthread_mutex_lock(&lock);
	if (first_free) {
		index = first_free - 1;
		slot = &chunks[index >> CHUNK_BITS][index & (CHUNK_SIZE - 1)];
		first_free = slot->next_free;
	} else {
		index = used_slots;
		if (index >= CHUNK_COUNT * CHUNK_SIZE)
			goto fail;
		if (!chunks[index >> CHUNK_BITS]) {
			struct slot *chunk = calloc(CHUNK_SIZE, sizeof(*chunk));
			if (!chunk)
				goto fail;
			__atomic_store_n(&chunks[index >> CHUNK_BITS], chunk, __ATOMIC_RELEASE);
		}
		used_slots++;
		slot = &chunks[index >> CHUNK_BITS][index & (CHUNK_SIZE - 1)];
	}
	uint32_t tag = kind << 24 | ((slot->tag + 1) & 0xffffff);
	__atomic_store_n(&slot->tag, tag, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->object, object, __ATOMIC_RELEASE);
	live[kind]++;
	pthread_mutex_unlock(&lock);
	return handle_of(tag, index);
fail:
	pthread_mutex_unlock(&lock);
	return NULL;
}

void *
fw_handle_get(const void *handle, unsigned kind)
{
	struct slot *slot = slot_of(handle);

	if (!slot || (slot->tag >> 24) != kind)
		return NULL;
	return __atomic_load_n(&slot->object, __ATOMIC_ACQUIRE);
}

unsigned
fw_handle_kind(const void *handle)
{
	struct slot *slot = slot_of(handle);

	return slot && __atomic_load_n(&slot->object, __ATOMIC_ACQUIRE) ? slot->tag >> 24 : 0;
}

void *
fw_handle_end(void *handle, unsigned kind)
{
	void *object = NULL;

	pthread_mutex_lock(&lock);
	struct slot *slot = slot_of(handle);
	if (slot && (slot->tag >> 24) == kind && slot->object) {
		object = slot->object;
		__atomic_store_n(&slot->object, NULL, __ATOMIC_RELEASE);
		slot->next_free = first_free;
		first_free = ((uint32_t)(uintptr_t)handle & SLOT_MASK) + 1;
		live[kind]--;
	}
	pthread_mutex_unlock(&lock);
	return object;
}

void
fw_handle_each(unsigned kind, void (*visit)(void *handle, void *object, void *user), void *user)
{
	for (uint32_t index = 0; index < __atomic_load_n(&used_slots, __ATOMIC_ACQUIRE); index++) {
		struct slot *slot = &chunks[index >> CHUNK_BITS][index & (CHUNK_SIZE - 1)];
		void *object = __atomic_load_n(&slot->object, __ATOMIC_ACQUIRE);
		if (object && (slot->tag >> 24) == kind)
			visit(handle_of(slot->tag, index), object, user);
	}
}

unsigned
fw_handle_count(unsigned kind)
{
	pthread_mutex_lock(&lock);
	unsigned count = live[kind & 127];
	pthread_mutex_unlock(&lock);
	return count;
}
