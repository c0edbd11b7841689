/*
 * Allocations in the device's address space. Up to 1 MiB they share 2 MiB segments in units of 256 bytes; larger ones have a
 * segment of their own, whole granules. Device and pool memory counts against the device's total by segments, as on a real
 * device. An empty shared segment is kept, uncounted and out of kernels' reach, for the next small allocation of its kind.
 */
#include "soft/device/device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNIT 256u
#define UNITS (uint32_t)(SW_GRANULE / UNIT)
#define SMALL (SW_GRANULE / 2)

static pthread_mutex_t alloc_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below; space.c's lock nests inside */
static struct sw_segment *shared_segments[SW_MEM_KIND_COUNT];  /* that are suballocated, by kind */
static struct sw_segment *spare[SW_MEM_KIND_COUNT];            /* empty, mapped, uncounted */
static struct sw_segment **segment_of;                         /* by granule */
static uint64_t segment_slots;
static struct sw_alloc *of_context;                            /* all that belong to some context */
static uint64_t next_id;
static int managed_file = -1;                                  /* that managed memory lies in, each byte where it lies in the space */

static bool
is_counted(enum sw_memory_kind kind)
{
	return kind == SW_MEM_DEVICE || kind == SW_MEM_POOL;
}

static bool
table_open(void)
{
	if (segment_of)
		return true;
	segment_slots = sw_space.size >> SW_GRANULE_BITS;
	segment_of = mmap(NULL, segment_slots * sizeof(*segment_of), PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (segment_of == MAP_FAILED)
		segment_of = NULL;
	return segment_of != NULL;
}

static void
table_set(const struct sw_segment *segment, struct sw_segment *value)
{
	uint64_t first = (segment->base - sw_space.base) >> SW_GRANULE_BITS;

	for (uint64_t g = 0; g < segment->size >> SW_GRANULE_BITS; g++)
		segment_of[first + g] = value;
}

static struct sw_segment *
segment_at(uint64_t address)
{
	uint64_t granule = (address - sw_space.base) >> SW_GRANULE_BITS;

	return segment_of && granule < segment_slots ? segment_of[granule] : NULL;
}

/* ---- segments -------------------------------------------------------------------------------------------------------- */

static int
memory_file(uint64_t size)
{
	int fd = sw_ipc_file();

	if (fd >= 0 && fw_file_resize(fd, size) != 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void
segment_free(struct sw_segment *segment)
{
	table_set(segment, NULL);
	sw_range_unmap(segment->base, segment->size);
	if (segment->in_file)
		fallocate(managed_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(segment->base - sw_space.base), (off_t)segment->size);
	sw_range_release(segment->base, segment->size);
	if (segment->fd >= 0)
		close(segment->fd);
	free(segment->units);
	free(segment);
}

static struct sw_segment *
segment_new(uint64_t size, uint64_t align, enum sw_memory_kind kind, bool in_units, bool shared, int file, uint64_t offset)
{
	struct sw_segment *segment = table_open() ? calloc(1, sizeof(*segment)) : NULL;

	if (!segment)
		return NULL;
	segment->size = sw_round_up(size, SW_GRANULE);
	segment->kind = kind;
	segment->fd = file >= 0 ? fcntl(file, F_DUPFD_CLOEXEC, 0) : shared ? memory_file(segment->size) : -1;
	segment->fd_offset = offset;
	segment->units = in_units ? calloc(UNITS, sizeof(*segment->units)) : NULL;
	segment->free_units = UNITS;
	if ((in_units && !segment->units) || ((shared || file >= 0) && segment->fd < 0))
		goto fail;
	segment->base = sw_range_reserve(segment->size, align, 0);
	if (!segment->base)
		goto fail;
	segment->in_file = managed_file >= 0 && (kind == SW_MEM_MANAGED || kind == SW_MEM_VARIABLES);
	if (segment->in_file ? sw_range_map(segment->base, segment->size, managed_file, segment->base - sw_space.base, SW_ACCESS_READ | SW_ACCESS_WRITE)
	                     : sw_range_map(segment->base, segment->size, segment->fd, offset, SW_ACCESS_READ | SW_ACCESS_WRITE)) {
		sw_range_release(segment->base, segment->size);
		goto fail;
	}
	table_set(segment, segment);
	return segment;
fail:
	if (segment->fd >= 0)
		close(segment->fd);
	free(segment->units);
	free(segment);
	return NULL;
}

static void
segment_link(struct sw_segment *segment)
{
	struct sw_segment **head = &shared_segments[segment->kind];

	segment->previous = NULL;
	segment->next = *head;
	if (segment->next)
		segment->next->previous = segment;
	*head = segment;
}

static void
segment_unlink(struct sw_segment *segment)
{
	if (segment->previous)
		segment->previous->next = segment->next;
	else
		shared_segments[segment->kind] = segment->next;
	if (segment->next)
		segment->next->previous = segment->previous;
}

/* First run of `count` free units on a multiple of `step`; UNITS if there is none. */
static uint32_t
find_units(const struct sw_segment *segment, uint32_t count, uint32_t step)
{
	if (segment->free_units < count)
		return UNITS;
	for (uint32_t at = 0; at + count <= UNITS;) {
		uint32_t taken = at + count;
		while (taken > at && !segment->units[taken - 1])
			taken--;
		if (taken == at)
			return at;
		/* units[taken - 1] is taken: go on behind that allocation. */
		const struct sw_alloc *alloc = segment->units[taken - 1];
		uint32_t behind = (uint32_t)((alloc->address - segment->base + alloc->span) / UNIT);
		at = (uint32_t)sw_round_up(behind, step);
	}
	return UNITS;
}

static bool
take_small(struct sw_alloc *alloc, uint32_t count, uint64_t align)
{
	uint32_t step = align > UNIT ? (uint32_t)(align / UNIT) : 1, at = UNITS;
	struct sw_segment *segment;

	for (segment = shared_segments[alloc->kind]; segment; segment = segment->next)
		if ((at = find_units(segment, count, step)) < UNITS)
			break;
	if (!segment) {
		if (is_counted(alloc->kind) && !sw_space_charge(SW_GRANULE))
			return false;
		segment = spare[alloc->kind];
		spare[alloc->kind] = NULL;
		if (segment)
			sw_range_access(segment->base, segment->size, SW_ACCESS_READ | SW_ACCESS_WRITE);
		else
			segment = segment_new(SW_GRANULE, SW_GRANULE, alloc->kind, true, false, -1, 0);
		if (!segment) {
			if (is_counted(alloc->kind))
				sw_space_uncharge(SW_GRANULE);
			return false;
		}
		segment_link(segment);
		at = 0;
	}
	for (uint32_t i = 0; i < count; i++)
		segment->units[at + i] = alloc;
	segment->free_units -= count;
	alloc->segment = segment;
	alloc->address = segment->base + (uint64_t)at * UNIT;
	alloc->span = (uint64_t)count * UNIT;
	return true;
}

static bool
take_large(struct sw_alloc *alloc, uint64_t align, bool shared, int file, uint64_t offset)
{
	uint64_t span = sw_round_up(alloc->size, SW_GRANULE);

	if (is_counted(alloc->kind) && !sw_space_charge(span))
		return false;
	struct sw_segment *segment = segment_new(span, align, alloc->kind, false, shared, file, offset);
	if (!segment) {
		if (is_counted(alloc->kind))
			sw_space_uncharge(span);
		return false;
	}
	segment->whole = alloc;
	alloc->segment = segment;
	alloc->address = segment->base;
	alloc->span = span;
	return true;
}

static void
give_back(struct sw_alloc *alloc)
{
	struct sw_segment *segment = alloc->segment;

	if (!segment->units) {
		segment_free(segment);
		if (is_counted(alloc->kind))
			sw_space_uncharge(alloc->span);
		return;
	}
	uint32_t at = (uint32_t)((alloc->address - segment->base) / UNIT), count = (uint32_t)(alloc->span / UNIT);
	memset(&segment->units[at], 0, count * sizeof(*segment->units));
	segment->free_units += count;
	if (segment->free_units < UNITS)
		return;
	segment_unlink(segment);
	if (is_counted(alloc->kind))
		sw_space_uncharge(SW_GRANULE);
	if (spare[alloc->kind] || segment->fd >= 0) {
		segment_free(segment);
	} else {
		sw_range_access(segment->base, segment->size, SW_ACCESS_NONE);
		spare[alloc->kind] = segment;
	}
}

/* ---- allocations ------------------------------------------------------------------------------------------------------- */

static CUresult
alloc_new(struct sw_context *ctx, uint64_t size, uint64_t align, enum sw_memory_kind kind, bool shared, int file, uint64_t offset,
          struct sw_alloc **out)
{
	if (size == 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (size > sw_space.size)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct sw_alloc *alloc = calloc(1, sizeof(*alloc));
	if (!alloc)
		return CUDA_ERROR_OUT_OF_MEMORY;
	alloc->size = size;
	alloc->kind = kind;
	alloc->ctx = ctx;
	pthread_mutex_lock(&alloc_lock);
	bool taken = size <= SMALL && align <= SMALL && !shared && file < 0
	                     ? take_small(alloc, (uint32_t)(sw_round_up(size, UNIT) / UNIT), align)
	                     : take_large(alloc, align, shared, file, offset);
	if (taken) {
		alloc->id = ++next_id;
		if (ctx) {
			alloc->next = of_context;
			if (alloc->next)
				alloc->next->link = &alloc->next;
			alloc->link = &of_context;
			of_context = alloc;
		}
	}
	pthread_mutex_unlock(&alloc_lock);
	if (!taken) {
		free(alloc);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = alloc;
	return CUDA_SUCCESS;
}

CUresult
sw_alloc_new(struct sw_context *ctx, uint64_t size, uint64_t align, enum sw_memory_kind kind, bool shared,
             struct sw_alloc **out)
{
	return alloc_new(ctx, size, align, kind, shared, -1, 0, out);
}

CUresult
sw_alloc_new_file(struct sw_context *ctx, uint64_t size, enum sw_memory_kind kind, int fd, uint64_t offset, struct sw_alloc **out)
{
	return alloc_new(ctx, size, SW_GRANULE, kind, false, fd, offset, out);
}

static void
alloc_free_locked(struct sw_alloc *alloc)
{
	if (alloc->link) {
		*alloc->link = alloc->next;
		if (alloc->next)
			alloc->next->link = alloc->link;
	}
	give_back(alloc);
	if (alloc->advice)
		sw_advice_free(alloc->advice);
	free(alloc);
}

void
sw_alloc_free(struct sw_alloc *alloc)
{
	pthread_mutex_lock(&alloc_lock);
	alloc_free_locked(alloc);
	pthread_mutex_unlock(&alloc_lock);
}

void
sw_alloc_free_context(struct sw_context *ctx)
{
	pthread_mutex_lock(&alloc_lock);
	for (struct sw_alloc *alloc = of_context, *next; alloc; alloc = next) {
		next = alloc->next;
		if (alloc->ctx == ctx)
			alloc_free_locked(alloc);
	}
	pthread_mutex_unlock(&alloc_lock);
}

struct sw_alloc *
sw_alloc_of_pool(const struct sw_context *ctx)
{
	struct sw_alloc *alloc;

	pthread_mutex_lock(&alloc_lock);
	for (alloc = of_context; alloc; alloc = alloc->next)
		if (alloc->ctx == ctx && alloc->pool)
			break;
	pthread_mutex_unlock(&alloc_lock);
	return alloc;
}

struct sw_alloc *
sw_alloc_find(uint64_t address)
{
	struct sw_alloc *alloc = NULL;

	if (!sw_in_space(address))
		return NULL;
	pthread_mutex_lock(&alloc_lock);
	struct sw_segment *segment = segment_at(address);
	if (segment && segment->units)
		alloc = segment->units[(address - segment->base) / UNIT];
	else if (segment)
		alloc = segment->whole;
	pthread_mutex_unlock(&alloc_lock);
	/* The rest of the last unit or granule is not part of what was asked for. */
	return alloc && address - alloc->address < alloc->size ? alloc : NULL;
}

int
sw_alloc_share(struct sw_alloc *alloc)
{
	int result = 0;

	pthread_mutex_lock(&alloc_lock);
	struct sw_segment *segment = alloc->segment;
	if (segment->fd < 0) {
		int fd = memory_file(segment->size);
		uint64_t done = 0;
		while (fd >= 0 && done < segment->size) {
			ssize_t wrote = pwrite(fd, (const void *)(uintptr_t)(segment->base + done), segment->size - done, (off_t)done);
			if (wrote <= 0 && errno != EINTR) {
				close(fd);
				fd = -1;
			} else if (wrote > 0) {
				done += (uint64_t)wrote;
			}
		}
		if (fd >= 0 && sw_range_map(segment->base, segment->size, fd, 0, SW_ACCESS_READ | SW_ACCESS_WRITE) != 0) {
			close(fd);
			fd = -1;
		}
		segment->fd = fd;
		result = fd < 0 ? -1 : 0;
	}
	pthread_mutex_unlock(&alloc_lock);
	return result;
}

void
sw_alloc_forget(void)
{
	alloc_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	memset(shared_segments, 0, sizeof(shared_segments));
	memset(spare, 0, sizeof(spare));
	segment_of = NULL;
	of_context = NULL;
	managed_file = -1;
}

CUresult
sw_managed_file(int fd)
{
	pthread_mutex_lock(&alloc_lock);
	bool early = managed_file < 0;
	for (uint64_t g = 0; segment_of && g < segment_slots && early; g++)
		early = !segment_of[g] || (segment_of[g]->kind != SW_MEM_MANAGED && segment_of[g]->kind != SW_MEM_VARIABLES);
	if (early)
		managed_file = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	CUresult result = !early ? CUDA_ERROR_ILLEGAL_STATE : managed_file < 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
	pthread_mutex_unlock(&alloc_lock);
	return result;
}

/* ---- memory of the interpreter ------------------------------------------------------------------------------------------- */

void *
sw_space_alloc(uint64_t size, uint64_t align)
{
	struct sw_alloc *alloc;

	if (size == 0)
		size = 1;
	if (sw_alloc_new(NULL, size, align, SW_MEM_INTERNAL, false, &alloc) != CUDA_SUCCESS)
		return NULL;
	void *memory = (void *)(uintptr_t)alloc->address;
	if (alloc->segment->units) /* a segment of its own is fresh, hence zero */
		memset(memory, 0, alloc->span);
	return memory;
}

void *
sw_space_alloc_managed(uint64_t size, uint64_t align)
{
	struct sw_alloc *alloc;

	/* Whole granules: the host touches them by pages, and no other program's data may lie in those. */
	if (sw_alloc_new(NULL, sw_round_up(size, SW_GRANULE), align, SW_MEM_VARIABLES, false, &alloc) != CUDA_SUCCESS)
		return NULL;
	return (void *)(uintptr_t)alloc->address;
}

void
sw_space_free(void *memory)
{
	struct sw_alloc *alloc = memory ? sw_alloc_find((uint64_t)(uintptr_t)memory) : NULL;

	if (alloc)
		sw_alloc_free(alloc);
}
