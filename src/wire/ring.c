/*
 * Rings: one writer, one reader, records in order, in memory that is mapped twice so that none wraps. See wire.h.
 */
#include "wire/link.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/order.h"

#define PAGE 4096u
#define MASK (WIRE_RING_BYTES - 1)
#define HEADER sizeof(struct wire_record)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define NAP_MIN 50000u        /* ns */
#define NAP_MAX 1000000u
#define SOON_NS 200000u        /* a wait that is over in this time is worth spinning for: twice what waking up takes */
#define YIELD_NS 3000u         /* what a side that is awake and has a core of its own answers in */
#define LEAVE_NS 10000000u     /* a core is left no oftener */
#define NAPS_BEFORE_SLEEP 1000 /* about a second of naps */

static void
pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

uint64_t
wire_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool spin_is_fixed; /* atomic: somebody said for how long */

/*
 * Spinning is for machines with cores to spare: where there are two, who spins keeps the other side's kernels from running. But where
 * answers come at once, both sides have to be awake: one that gives up before the other can wake up makes every round trip a slow one.
 */
unsigned
wire_spin_ns(void)
{
	static unsigned spin; /* atomic */
	unsigned value = __atomic_load_n(&spin, __ATOMIC_RELAXED);

	if (!value) {
		const char *wish = getenv("FARWARP_WIRE_SPIN_US");
		cpu_set_t set;
		int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
		value = cpus <= 2 ? 20000 : 100000;
		if (wish && *wish) {
			value = (unsigned)strtoul(wish, NULL, 10) * 1000 + 1;
			__atomic_store_n(&spin_is_fixed, true, __ATOMIC_RELAXED);
		}
		__atomic_store_n(&spin, value, __ATOMIC_RELAXED);
	}
	return value;
}

void
wire_wake(uint32_t *sleep)
{
	__atomic_store_n(sleep, WIRE_AWAKE, __ATOMIC_RELEASE);
	syscall(SYS_futex, sleep, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void
wire_nap(uint32_t *sleep, uint32_t state, uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	syscall(SYS_futex, sleep, FUTEX_WAIT, state, &t, NULL, 0);
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

int
wire_ring_create(void)
{
	int fd = memfd_create("farwarp-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -1;
	if (fw_file_resize(fd, PAGE + WIRE_RING_BYTES) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

bool
wire_ring_map(struct wire_ring *ring, int fd, struct wire_link *link)
{
	struct stat st;
	const size_t bytes = PAGE + 2 * (size_t)WIRE_RING_BYTES;

	/* What could shrink would end this process by SIGBUS at the other side's pleasure. */
	if (fstat(fd, &st) != 0 || st.st_size != (off_t)(PAGE + WIRE_RING_BYTES) || (fcntl(fd, F_GET_SEALS) & SEALS) != SEALS)
		return false;
	uint8_t *base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return false;
	if (mmap(base, PAGE + WIRE_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
	    mmap(base + PAGE + WIRE_RING_BYTES, WIRE_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, PAGE) == MAP_FAILED) {
		munmap(base, bytes);
		return false;
	}
	*ring = (struct wire_ring){ .shared = (struct wire_shared *)base, .data = base + PAGE, .link = link, .fd = fd };
	ring->sleep = &ring->shared->sleep;
	return true;
}

void
wire_ring_unmap(struct wire_ring *ring)
{
	if (ring->shared) {
		munmap(ring->shared, PAGE + 2 * (size_t)WIRE_RING_BYTES);
		close(ring->fd);
	}
	ring->shared = NULL;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static uint32_t
room_of(uint32_t payload)
{
	return (uint32_t)((HEADER + payload + 31u) & ~31u);
}

/* Whether `need` more bytes fit. A tail that cannot be kills the link. */
static bool
fits(struct wire_ring *ring, uint32_t need)
{
	if (ring->head + need - ring->tail_seen <= WIRE_RING_BYTES)
		return true;
	uint64_t tail = __atomic_load_n(&ring->shared->tail, __ATOMIC_ACQUIRE);
	if (tail < ring->tail_seen || tail > ring->head) {
		wire_kill(ring->link, "the other side broke a ring");
		return false;
	}
	ring->tail_seen = tail;
	return ring->head + need - tail <= WIRE_RING_BYTES;
}

struct wire_record *
wire_reserve(struct wire_ring *ring, uint32_t size)
{
	uint32_t need = room_of(size);
	uint64_t begin = 0, nap = NAP_MIN / 2;

	if (size > WIRE_PAYLOAD_MAX)
		return NULL;
	while (!fits(ring, need)) {
		if (!wire_alive(ring->link))
			return NULL;
		if (!begin)
			begin = wire_now();
		if (ring->link->carried) { /* the room that was told lies in the socket, perhaps */
			wire_send_now(ring->link);
			if (wire_pump(ring->link))
				continue;
		}
		if (wire_now() - begin < wire_spin_ns()) {
			pause_cpu();
			continue;
		}
		/* Full: the reader is behind. It may be asleep with a full ring only if it never woke: wake it to be sure. */
		if (__atomic_load_n(ring->sleep, __ATOMIC_ACQUIRE) != WIRE_AWAKE)
			wire_wake(ring->sleep);
		struct timespec t = { 0, (long)nap };
		nanosleep(&t, NULL);
		nap = nap * 2 < NAP_MAX ? nap * 2 : NAP_MAX;
	}
	if (__builtin_expect(__atomic_load_n(&ring->link->dead, __ATOMIC_RELAXED), 0))
		return NULL;
	return (struct wire_record *)(ring->data + (ring->head & MASK));
}

static void
show(struct wire_ring *ring, const struct wire_record *record)
{
	ring->head += room_of(record->size);
	if (!ring->link->carried)
		fw_order_told(ring->link);
	__atomic_store_n(&ring->shared->head, ring->head, __ATOMIC_RELEASE);
}

static void
wake_reader(struct wire_ring *ring, uint32_t wakes_from)
{
	if (__builtin_expect(__atomic_load_n(ring->sleep, __ATOMIC_RELAXED) >= wakes_from, 0)) {
		__atomic_fetch_add(&ring->link->counts.wakes, 1, __ATOMIC_RELAXED);
		wire_wake(ring->sleep);
	}
}

void
wire_soon(const struct wire_ring *ring)
{
#if defined(__x86_64__)
	const uint8_t *next = ring->data + (ring->head & MASK);

	for (unsigned n = 0; n < 6; n++)
		__asm__ volatile("prefetchw %0" : : "m"(next[n * WIRE_LINE]));
	__asm__ volatile("prefetchw %0" : : "m"(ring->shared->head));
#endif
}

/*
 * Without a fence, which would wait until the reader's core has given the line away. So the reader may say that it sleeps and not see the record
 * yet, while we do not see that it sleeps; but it looks again after a nap, and the record is there by then.
 */
void
wire_publish(struct wire_ring *ring, struct wire_record *record)
{
	show(ring, record);
	wake_reader(ring, WIRE_SLEEPING);
}

uint32_t
wire_core_here(void)
{
	return (uint32_t)(sched_getcpu() + 1);
}

void
wire_publish_wake(struct wire_ring *ring, struct wire_record *record)
{
	if (!ring->link->carried) {
		__atomic_store_n(&ring->shared->core, wire_core_here(), __ATOMIC_RELAXED);
		show(ring, record);
		/* Pairs with the fence of who goes to sleep: either it sees the record, or we see that it sleeps. */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		wake_reader(ring, WIRE_NAPPING);
		return;
	}
	show(ring, record);
	wire_send_now(ring->link);
}

void
wire_ring_end(struct wire_ring *ring)
{
	__atomic_store_n(&ring->shared->ended, 1, __ATOMIC_RELEASE);
	wire_wake(ring->sleep);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* Bytes that are there; a head that cannot be kills the link. */
static uint64_t
there(struct wire_ring *ring)
{
	if (ring->head_seen == ring->tail) {
		uint64_t head = __atomic_load_n(&ring->shared->head, __ATOMIC_ACQUIRE);
		if (head < ring->tail || head - ring->tail > WIRE_RING_BYTES || head & 31) {
			wire_kill(ring->link, "the other side broke a ring");
			return 0;
		}
		if (!ring->link->carried)
			fw_order_heard(ring->link);
		ring->head_seen = head;
	}
	return ring->head_seen - ring->tail;
}

const uint8_t *
wire_peek(struct wire_ring *ring, struct wire_record *header)
{
	uint64_t bytes = there(ring);

	if (!bytes)
		return NULL;
	const struct wire_record *record = (const struct wire_record *)(ring->data + (ring->tail & MASK));
	memcpy(header, record, HEADER);
	if (header->size > WIRE_PAYLOAD_MAX || room_of(header->size) > bytes) {
		wire_kill(ring->link, "the other side sent a record of %u bytes where %llu are", header->size, (unsigned long long)bytes);
		return NULL;
	}
	ring->peeked = room_of(header->size);
	return record->payload;
}

bool
wire_ended(const struct wire_ring *ring)
{
	return __atomic_load_n(&ring->shared->ended, __ATOMIC_ACQUIRE) &&
	       __atomic_load_n(&ring->shared->head, __ATOMIC_ACQUIRE) == ring->tail;
}

/*
 * Two sides on one core take turns, and each turn is a switch: the scheduler, which sees two busy threads and perhaps an idle core, takes its
 * time. The worker's thread goes elsewhere; the program's is not ours to move.
 */
static bool
shares_core(struct wire_ring *ring, uint64_t now)
{
	uint32_t core = __atomic_load_n(&ring->shared->core, __ATOMIC_RELAXED);
	cpu_set_t all, others;

	if (!core || core != wire_core_here())
		return false;
	if (ring->link->client || now - ring->left < LEAVE_NS || sched_getaffinity(0, sizeof(all), &all) != 0)
		return true;
	ring->left = now;
	others = all;
	CPU_CLR(core - 1, &others);
	if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof(others), &others) != 0)
		return true;
	sched_setaffinity(0, sizeof(all), &all);
	return false;
}

const uint8_t *
wire_wait(struct wire_ring *ring, struct wire_record *header, int timeout_ms)
{
	const uint8_t *payload;
	uint64_t begin = 0, nap = NAP_MIN;
	unsigned naps = 0;

	if (!ring->patience)
		ring->patience = wire_spin_ns();
	while (!(payload = wire_peek(ring, header))) {
		uint64_t now = wire_now();
		if (!begin)
			begin = now;
		if (!wire_alive(ring->link) || wire_ended(ring) || (timeout_ms >= 0 && now - begin > (uint64_t)timeout_ms * 1000000))
			break;
		if (ring->link->carried && wire_pump(ring->link))
			continue;
		if (now - begin < ring->patience) {
			if (now - begin > YIELD_NS || shares_core(ring, now))
				sched_yield(); /* the other side may be waiting for this very core */
			for (unsigned n = 0; n < 16; n++)
				pause_cpu();
			continue;
		}
		if (ring->link->carried) {
			uint64_t left = timeout_ms < 0 ? UINT64_MAX : begin + (uint64_t)timeout_ms * 1000000 - now;
			wire_carried_wait(ring, left < WIRE_LIVENESS_MS * 1000000ull ? left : WIRE_LIVENESS_MS * 1000000ull);
			continue;
		}
		/* Naps are bounded, so that who sends a record that can wait need not wake us; after a second of them we sleep. */
		uint32_t state = naps++ < NAPS_BEFORE_SLEEP ? WIRE_NAPPING : WIRE_SLEEPING;
		uint32_t before = __atomic_exchange_n(ring->sleep, state, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&ring->shared->head, __ATOMIC_RELAXED) == ring->tail && wire_alive(ring->link) && !wire_ended(ring)) {
			/* Who sleeps naps first: see wire_publish(). */
			wire_nap(ring->sleep, state, state != before || state == WIRE_NAPPING ? nap : WIRE_LIVENESS_MS * 1000000ull);
			__atomic_fetch_add(&ring->link->counts.sleeps, 1, __ATOMIC_RELAXED);
		}
		nap = nap * 2 < NAP_MAX ? nap * 2 : NAP_MAX;
	}
	if (naps)
		__atomic_store_n(ring->sleep, WIRE_AWAKE, __ATOMIC_RELAXED);
	/* The next wait is taken to be like this one. */
	if (payload && begin && !__atomic_load_n(&spin_is_fixed, __ATOMIC_RELAXED))
		ring->patience = wire_now() - begin < SOON_NS ? SOON_NS : wire_spin_ns();
	return payload;
}

void
wire_release(struct wire_ring *ring)
{
	ring->tail += ring->peeked;
	ring->peeked = 0;
	__atomic_store_n(&ring->shared->tail, ring->tail, __ATOMIC_RELEASE);
	if (ring->link->carried)
		wire_carried_released(ring);
}
