/*
 * Pages of memory that this process and a worker elsewhere both have, at the same addresses: managed memory, and pinned memory that kernels
 * reach. A page is either the program's (HERE) or the device's (AWAY), as CUDA says of devices without concurrent managed access: all work
 * for the device takes all pages away, with what the program changed in them; a page that the program touches comes back, after the
 * device has become idle. So neither side ever sees old contents; a program that waits for what a running kernel writes waits for the
 * kernel's end.
 *
 * A page that came is remembered as it came (its twin): what goes back are the bytes that differ, so that what the device writes beside
 * them at the same time (a host function may touch pages while other kernels run) is not lost.
 *
 * The program's view of a page is closed while it is AWAY. Touching it ends in a thread of ours: through userfaultfd, or where that is
 * forbidden through SIGSEGV, whose earlier handler gets all other faults. System calls that touch a closed page fail with EFAULT in
 * the second case. FARWARP_FAULTS=signal chooses it. The thread reads and writes pages through a second view of the same memory.
 *
 * When the server is lost, all pages are opened with what they last held.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "client/remote.h"

#define PAGE_BITS 12
#define PAGE ((uint64_t)1 << PAGE_BITS)
#define BLOCK_BITS 21 /* the unit in which pages that are HERE are found again */
#define BLOCK_PAGES ((uint64_t)1 << (BLOCK_BITS - PAGE_BITS))
#define WINDOW_LEAST 16  /* pages that come with the one that was touched: more while touches go on behind each other */
#define WINDOW_MOST BLOCK_PAGES
#define WANTED_MOST (64 * BLOCK_PAGES)

/* NONE: not ours. FRESH: what it holds does not matter yet. WHOLE: HERE, and all of it goes back. */
enum state { NONE, AWAY, FRESH, HERE, WHOLE };

struct area {
	struct area *next;
	uint64_t base, size;
	uint8_t *view, *twin;  /* the second view; each page as it came */
	uint8_t *state;        /* enum state, of each page; written with the lock held, and read in the handler of SIGSEGV without it */
	uint8_t *wanted;       /* of each block: the program said that it will touch it all */
	uint16_t *here;        /* of each block: pages that are HERE or WHOLE */
	int file;
	uint64_t offset;       /* of the area in the file */
	size_t room;           /* bytes of `state` */
	uint64_t next_touch, window; /* pages */
};

struct block {
	struct area *area;
	uint64_t number;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct area *areas;           /* atomic head; records are never freed */
static struct block *blocks;         /* with pages that are HERE; guarded by lock */
static size_t block_count, block_room;
static struct fresh {
	struct area *area;
	uint64_t first, end; /* pages */
} *fresh;                            /* where pages may be FRESH; guarded by lock */
static size_t fresh_count, fresh_room;
static unsigned here;                /* atomic: work has something to take away */
static bool lost;                    /* atomic */
static pid_t owner;                  /* the process that has the threads */

unsigned rm_pages_used;

static struct area *
find_area(uint64_t address)
{
	for (struct area *area = __atomic_load_n(&areas, __ATOMIC_ACQUIRE); area; area = area->next) {
		uint64_t size = __atomic_load_n(&area->size, __ATOMIC_ACQUIRE); /* before the base, which was written before it */
		if (address - __atomic_load_n(&area->base, __ATOMIC_RELAXED) < size)
			return area;
	}
	return NULL;
}

/* Without the lock. */
static enum state
state_at(const struct area *area, uint64_t address)
{
	uint64_t page = (address - __atomic_load_n(&area->base, __ATOMIC_RELAXED)) >> PAGE_BITS;

	return (enum state)__atomic_load_n(&area->state[page], __ATOMIC_ACQUIRE);
}

/* Lock held. */
static void
put_states(struct area *area, uint64_t first, uint64_t count, enum state state)
{
	for (uint64_t n = first; n < first + count; n++)
		__atomic_store_n(&area->state[n], (uint8_t)state, __ATOMIC_RELEASE);
}

/* ---- work that may not be done yet --------------------------------------------------------------------------------- */

static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;
static CUcontext *pending;           /* contexts with such work; guarded by pending_lock */
static size_t pending_count, pending_room;
static CUcontext pending_last;       /* atomic: the newest of them, so that most work adds nothing */

static void
note_work(void)
{
	CUcontext ctx = fw_thread.ctx;

	if (!ctx || __atomic_load_n(&pending_last, __ATOMIC_ACQUIRE) == ctx)
		return;
	pthread_mutex_lock(&pending_lock);
	size_t n = 0;
	while (n < pending_count && pending[n] != ctx)
		n++;
	if (n == pending_room) {
		CUcontext *more = realloc(pending, (pending_room + 16) * sizeof(*pending));
		if (more) {
			pending = more;
			pending_room += 16;
		}
	}
	if (n < pending_room) {
		pending[n] = ctx;
		pending_count = n + 1 > pending_count ? n + 1 : pending_count;
		__atomic_store_n(&pending_last, ctx, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&pending_lock);
}

/* Waits for all work that was noted. Called without the lock, by the thread of faults that can wait. */
static void
await_work(void)
{
	for (;;) {
		pthread_mutex_lock(&pending_lock);
		__atomic_store_n(&pending_last, NULL, __ATOMIC_RELEASE);
		CUcontext ctx = pending_count ? pending[--pending_count] : NULL;
		pthread_mutex_unlock(&pending_lock);
		if (!ctx)
			return;
		fw_thread.ctx = ctx;
		rm_ops_table()->cuCtxSynchronize(); /* its error is told again to who asks for it */
		fw_thread.ctx = NULL;
	}
}

/* ---- opening and closing ------------------------------------------------------------------------------------------- */

static int uffd = -1; /* -1: by signals */

static void
open_pages(const struct area *area, uint64_t first, uint64_t count)
{
	uint64_t address = area->base + (first << PAGE_BITS), size = count << PAGE_BITS;

	if (uffd < 0) {
		mprotect((void *)(uintptr_t)address, size, PROT_READ | PROT_WRITE);
		return;
	}
	for (uint64_t n = 0; n < count; n++) /* what is continued has to be there */
		*(volatile uint8_t *)(area->view + ((first + n) << PAGE_BITS));
	while (size) {
		struct uffdio_continue go = { .range = { address, size } };
		if (ioctl(uffd, UFFDIO_CONTINUE, &go) == 0)
			return;
		uint64_t done = go.mapped > 0 ? (uint64_t)go.mapped : 0;
		if (!done && errno == EEXIST) { /* it is open; who waits for it has to be woken */
			struct uffdio_range wake = { address, PAGE };
			ioctl(uffd, UFFDIO_WAKE, &wake);
			done = PAGE;
		} else if (!done && errno != EAGAIN) {
			return;
		}
		address += done;
		size -= done;
	}
}

static void
close_pages(const struct area *area, uint64_t first, uint64_t count)
{
	void *address = (void *)(uintptr_t)(area->base + (first << PAGE_BITS));

	if (uffd < 0)
		mprotect(address, count << PAGE_BITS, PROT_NONE);
	else
		madvise(address, count << PAGE_BITS, MADV_DONTNEED); /* of this view; the file keeps them */
}

/* The server is lost: everything is opened, with what it last held. Lock held. */
static void
open_all(void)
{
	if (__atomic_exchange_n(&lost, true, __ATOMIC_ACQ_REL))
		return;
	for (struct area *area = areas; area; area = area->next)
		for (uint64_t block = 0; block << BLOCK_BITS < area->size; block++) {
			static const uint8_t none[BLOCK_PAGES];
			uint64_t first = block * BLOCK_PAGES, left = (area->size >> PAGE_BITS) - first, run;
			left = left < BLOCK_PAGES ? left : BLOCK_PAGES;
			if (memcmp(area->state + first, none, left) == 0)
				continue;
			for (uint64_t n = 0; n < left; n += run) {
				for (run = 0; n + run < left && area->state[first + n + run]; run++)
					;
				put_states(area, first + n, run, HERE);
				struct uffdio_range range = { area->base + ((first + n) << PAGE_BITS), run << PAGE_BITS };
				if (run && uffd < 0)
					open_pages(area, first + n, run);
				else if (run)
					ioctl(uffd, UFFDIO_UNREGISTER, &range);
				run += !run;
			}
		}
	fw_warn("client", "memory that host and device took turns with holds what it held when it was last here");
}

/* Pages that are open now. Lock held. */
static void
set_here(struct area *area, uint64_t first, uint64_t count, enum state state)
{
	put_states(area, first, count, state);
	for (uint64_t n = first; n < first + count; n++) {
		uint64_t block = n / BLOCK_PAGES;
		if (area->here[block]++)
			continue;
		if (block_count == block_room) {
			struct block *more = realloc(blocks, (block_room * 2 + 64) * sizeof(*blocks));
			if (!more) {
				fw_error("client", "out of memory for the pages of managed memory");
				abort(); /* to go on would be to lose what the program writes */
			}
			blocks = more;
			block_room = block_room * 2 + 64;
		}
		blocks[block_count++] = (struct block){ area, block };
	}
	__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
}

/* ---- pages come ---------------------------------------------------------------------------------------------------- */

struct arrival {
	struct area *area;
	uint64_t at, end; /* offsets in the area */
};

static void
take_pages(void *user, const uint8_t *bytes, size_t size)
{
	struct arrival *arrival = user;

	if (size > arrival->end - arrival->at)
		size = arrival->end - arrival->at;
	memcpy(arrival->area->view + arrival->at, bytes, size);
	memcpy(arrival->area->twin + arrival->at, bytes, size);
	arrival->at += size;
}

/* Lock held. */
static bool
fetch(struct area *area, uint64_t first, uint64_t count)
{
	struct arrival arrival = { area, first << PAGE_BITS, (first + count) << PAGE_BITS };
	struct rm_request r;
	struct fw_cursor in;

	rm_begin(&r, SESSION_PAGES_GET, 16);
	r.sink = take_pages;
	r.user = &arrival;
	call_put_u64(&r.out, area->base + arrival.at);
	call_put_u64(&r.out, count << PAGE_BITS);
	CUresult result = rm_ask(&r, &in);
	rm_end(&r);
	return result == CUDA_SUCCESS && arrival.at == arrival.end;
}

/* How many pages come with one that was touched: in its state, and not farther than the block or what was wanted. Lock held. */
static uint64_t
window(struct area *area, uint64_t page)
{
	uint64_t pages = area->size >> PAGE_BITS, most, count = 1;
	uint8_t state = area->state[page];

	area->window = page != area->next_touch ? WINDOW_LEAST : area->window * 2 < WINDOW_MOST ? area->window * 2 : WINDOW_MOST;
	most = area->window;
	if (area->wanted[page / BLOCK_PAGES]) {
		uint64_t block = page / BLOCK_PAGES, last = block;
		while (last + 1 < (pages + BLOCK_PAGES - 1) / BLOCK_PAGES && area->wanted[last + 1] && last - block < WANTED_MOST / BLOCK_PAGES)
			last++;
		most = (last + 1) * BLOCK_PAGES - page;
		memset(area->wanted + block, 0, last + 1 - block);
	} else if (most > BLOCK_PAGES - page % BLOCK_PAGES) {
		most = BLOCK_PAGES - page % BLOCK_PAGES;
	}
	while (count < most && page + count < pages && area->state[page + count] == state)
		count++;
	area->next_touch = page + count;
	return count;
}

/*
 * Fetches and opens pages from one that is AWAY. False: work has begun meanwhile that may write them, and nothing was opened. Who begins
 * work notes it, then looks whether anything is here; so of the two sides at least one sees the other. Lock held.
 */
static bool
bring(struct area *area, uint64_t page, bool at_once)
{
	uint64_t count = window(area, page);

	__atomic_store_n(&here, 1, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&lost, __ATOMIC_ACQUIRE) && !fetch(area, page, count)) {
		if (!wire_alive(rm_link())) {
			open_all();
			return true;
		}
		fw_error("client", "managed memory at 0x%llx cannot be fetched: it is not on the device any more",
		         (unsigned long long)(area->base + (page << PAGE_BITS)));
	}
	if (!at_once && __atomic_load_n(&pending_last, __ATOMIC_SEQ_CST))
		return false;
	set_here(area, page, count, HERE);
	open_pages(area, page, count);
	return true;
}

/* Opens what was touched. False: the address is none of ours. `at_once`: for a line's thread, which other work waits for. */
static bool
touched(uint64_t address, bool at_once)
{
	struct area *area = find_area(address);
	uint64_t page = area ? (address - area->base) >> PAGE_BITS : 0;
	bool ours = area != NULL, opened = false;

	while (ours && !opened) {
		pthread_mutex_lock(&lock);
		if (!at_once && area->state[page] == AWAY) {
			pthread_mutex_unlock(&lock);
			await_work();
			pthread_mutex_lock(&lock);
		}
		switch ((enum state)area->state[page]) {
		case NONE:
			ours = false;
			break;
		case FRESH: {
			uint64_t count = window(area, page);
			open_pages(area, page, count);
			set_here(area, page, count, WHOLE);
			opened = true;
			break;
		}
		case AWAY:
			opened = bring(area, page, at_once);
			break;
		case HERE:
		case WHOLE:
			open_pages(area, page, 1);
			opened = true;
			break;
		}
		pthread_mutex_unlock(&lock);
	}
	return ours;
}

/* ---- pages go ------------------------------------------------------------------------------------------------------ */

/* What differs, as runs, in records that are filled one after the other. */
struct outgoing {
	struct rm_request r;
	size_t room;
	bool open, await;
	CUresult result;
};

static void
send_runs(struct outgoing *out)
{
	if (out->open) {
		CUresult result = out->await ? rm_do(&out->r) : rm_send(&out->r);
		if (out->result == CUDA_SUCCESS)
			out->result = result;
	}
	out->open = false;
}

static void
put_run(struct outgoing *out, uint64_t address, const uint8_t *bytes, uint64_t size)
{
	while (size) {
		if (out->open && out->room < 64)
			send_runs(out);
		if (!out->open) {
			out->room = SESSION_CHUNK;
			rm_begin(&out->r, SESSION_PAGES_PUT, out->room);
			out->open = true;
		}
		uint64_t part = size < out->room - 24 ? size : (out->room - 24) & ~7ul;
		call_put_u64(&out->r.out, address);
		call_put_u64(&out->r.out, part);
		call_put(&out->r.out, bytes, part);
		out->room -= 16 + ((part + 7) & ~7ul);
		address += part;
		bytes += part;
		size -= part;
	}
}

static void
put_changes(struct outgoing *out, const struct area *area, uint64_t page)
{
	const uint8_t *now = area->view + (page << PAGE_BITS), *then = area->twin + (page << PAGE_BITS);
	uint64_t address = area->base + (page << PAGE_BITS);

	if (memcmp(now, then, PAGE) == 0)
		return;
	for (uint64_t at = 0, end; at < PAGE; at = end) {
		for (end = at; end < PAGE && now[end] == then[end]; end++)
			;
		for (at = end; end < PAGE && now[end] != then[end]; end++)
			;
		if (at < end)
			put_run(out, address + at, now + at, end - at);
	}
}

/* Takes a block's pages away from the program. Lock held. */
static void
take_block(struct outgoing *out, struct area *area, uint64_t block)
{
	uint64_t first = block * BLOCK_PAGES, left = (area->size >> PAGE_BITS) - first, run;

	left = left < BLOCK_PAGES ? left : BLOCK_PAGES;
	for (uint64_t n = first; n < first + left; n += run) {
		uint8_t state = area->state[n];
		for (run = 1; n + run < first + left && area->state[n + run] == state; run++)
			;
		if (state != HERE && state != WHOLE)
			continue;
		close_pages(area, n, run);
		if (state == WHOLE)
			put_run(out, area->base + (n << PAGE_BITS), area->view + (n << PAGE_BITS), run << PAGE_BITS);
		else
			for (uint64_t page = n; page < n + run; page++)
				put_changes(out, area, page);
		put_states(area, n, run, AWAY);
	}
	madvise(area->twin + (first << PAGE_BITS), left << PAGE_BITS, MADV_DONTNEED);
	area->here[block] = 0;
}

/* `await`: the answer is awaited, as the order of records does not hold for what comes next. */
static void
take_all(bool await)
{
	struct outgoing out = { .await = await };

	pthread_mutex_lock(&lock);
	if (!__atomic_load_n(&lost, __ATOMIC_ACQUIRE)) {
		for (size_t n = 0; n < block_count; n++)
			take_block(&out, blocks[n].area, blocks[n].number);
		block_count = 0;
		for (size_t n = 0; n < fresh_count; n++) /* the device may write them now */
			for (uint64_t page = fresh[n].first; page < fresh[n].end; page++)
				if (fresh[n].area->state[page] == FRESH)
					put_states(fresh[n].area, page, 1, AWAY);
		fresh_count = 0;
		send_runs(&out);
		if (!wire_alive(rm_link()))
			open_all();
		else if (out.result != CUDA_SUCCESS)
			fw_error("client", "what was written to managed memory did not reach the device: %s", call_error_text(out.result));
		/* Not before all that is taken has its ticket: another thread's work, which sees this, may follow at once. */
		__atomic_store_n(&here, 0, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&lock);
}

void
rm_pages_before_work(void)
{
	note_work();
	if (__atomic_load_n(&here, __ATOMIC_SEQ_CST))
		take_all(false);
}

void
rm_pages_after_work(void)
{
	note_work(); /* again: a touch in between may have waited before the work was there */
	if (__atomic_load_n(&here, __ATOMIC_SEQ_CST))
		take_all(false);
}

/* ---- the thread ---------------------------------------------------------------------------------------------------- */

/* A fault, on its way to the thread that ends it. */
struct post {
	uint64_t address;
	uint32_t *answer; /* a futex: 1 opened, 2 not ours; NULL: a fault of userfaultfd */
};

/*
 * Two threads, as one waits for the device to become idle, and what the device waits for may touch pages meanwhile: host functions of the
 * program, and copies of its memory that the worker makes when their turn comes. Their faults are ended `at_once`, by the other thread.
 */
enum { PATIENT, AT_ONCE, FAULT_THREADS };
static int pipes[FAULT_THREADS][2] = { { -1, -1 }, { -1, -1 } };
static struct sigaction earlier;
static __thread bool is_line __attribute__((tls_model("initial-exec")));
static pid_t line_threads[SESSION_LINES]; /* atomic; 0: none */

static void
futex(uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

/* What a fault was that is none of ours. */
static void
pass_on(int number, siginfo_t *info, void *context)
{
	if (earlier.sa_flags & SA_SIGINFO)
		earlier.sa_sigaction(number, info, context);
	else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN)
		earlier.sa_handler(number);
	else
		signal(number, SIG_DFL); /* it happens again */
}

static void
on_fault(int number, siginfo_t *info, void *context)
{
	uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
	struct area *area = find_area(address);
	uint32_t answer = 0;
	struct post post = { address, &answer };
	int error = errno, to = pipes[is_line ? AT_ONCE : PATIENT][1];

	if (rm_host_replacing(address)) {
		errno = error;
		return;
	}
	if (!area || to < 0 || state_at(area, address) == NONE) {
		pass_on(number, info, context);
		return;
	}
	if (getpid() != owner) { /* the child of a fork has no thread for this, and no device */
		if (mprotect((void *)(uintptr_t)(address & ~(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE) != 0)
			pass_on(number, info, context);
	} else if (write(to, &post, sizeof(post)) == sizeof(post)) {
		while (!__atomic_load_n(&answer, __ATOMIC_ACQUIRE))
			futex(&answer, FUTEX_WAIT_PRIVATE, 0);
		if (answer == 2)
			pass_on(number, info, context);
	}
	errno = error;
}

bool
rm_faults_catch(void)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	static bool caught;
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

	pthread_mutex_lock(&once);
	caught = caught || sigaction(SIGSEGV, &action, &earlier) == 0;
	pthread_mutex_unlock(&once);
	return caught;
}

static void
end_fault(const struct post *post, bool at_once)
{
	bool ours = touched(post->address, at_once);

	if (post->answer) {
		__atomic_store_n(post->answer, ours ? 1 : 2, __ATOMIC_RELEASE);
		futex(post->answer, FUTEX_WAKE_PRIVATE, 1); /* of an address that may be gone: that is harmless */
	} else if (!ours) { /* freed memory: it has no contents */
		struct uffdio_range range = { post->address, PAGE };
		ioctl(uffd, UFFDIO_UNREGISTER, &range);
		mprotect((void *)(uintptr_t)post->address, PAGE, PROT_NONE);
	}
}

/* Faults from a pipe, one after the other. */
static void *
serve_posts(void *argument)
{
	int thread = argument == &pipes[AT_ONCE] ? AT_ONCE : PATIENT;
	struct post post;

	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED; /* its waits are no part of what a stream records */
	rm_ops_table()->cuThreadExchangeStreamCaptureMode(&mode);
	for (;;)
		if (read(pipes[thread][0], &post, sizeof(post)) == sizeof(post))
			end_fault(&post, thread == AT_ONCE);
	return argument;
}

static bool
is_line_thread(pid_t thread)
{
	for (unsigned n = 0; n < SESSION_LINES; n++)
		if (__atomic_load_n(&line_threads[n], __ATOMIC_ACQUIRE) == thread)
			return true;
	return false;
}

/* Faults from userfaultfd: those that have to wait go through a pipe to the other thread. */
static void *
serve_uffd(void *argument)
{
	struct pollfd polled = { .fd = uffd, .events = POLLIN };
	struct uffd_msg message;

	for (;;) {
		if (poll(&polled, 1, -1) < 0 || read(uffd, &message, sizeof(message)) != sizeof(message) || message.event != UFFD_EVENT_PAGEFAULT)
			continue;
		struct post post = { message.arg.pagefault.address & ~(PAGE - 1), NULL };
		if (is_line_thread((pid_t)message.arg.pagefault.feat.ptid) || write(pipes[PATIENT][1], &post, sizeof(post)) != sizeof(post))
			end_fault(&post, true);
	}
	return argument;
}

static int
open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID };
	const char *wish = getenv("FARWARP_FAULTS");

	if (wish && strcmp(wish, "signal") == 0)
		return -1;
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) != 0) { /* a kernel before 5.14 */
		close(fd);
		fd = -1;
	}
	return fd;
}

/* With the lock held. */
static bool
begin_threads(void)
{
	pthread_t thread;
	sigset_t all, before;

	if (owner)
		return true;
	uffd = open_uffd();
	if (pipe2(pipes[PATIENT], O_CLOEXEC) != 0 || (uffd < 0 && (pipe2(pipes[AT_ONCE], O_CLOEXEC) != 0 || !rm_faults_catch())))
		return false;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	bool good = pthread_create(&thread, NULL, serve_posts, &pipes[PATIENT]) == 0 && pthread_detach(thread) == 0 &&
	            pthread_create(&thread, NULL, uffd < 0 ? serve_posts : serve_uffd, &pipes[AT_ONCE]) == 0 && pthread_detach(thread) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (good) {
		owner = getpid();
		fw_debug("client", "pages of managed memory move by %s", uffd >= 0 ? "userfaultfd" : "SIGSEGV");
	}
	return good;
}

void
rm_pages_line(enum session_line line)
{
	is_line = true;
	__atomic_store_n(&line_threads[line], (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
}

void
rm_pages_line_done(void)
{
	struct rm_request r;

	/* What comes next in the stream reads what it wrote; another thread may have taken that, so all that was sent is awaited. */
	take_all(true);
	rm_begin(&r, SESSION_FLUSH, 0);
	rm_do(&r);
}

/* ---- which pages --------------------------------------------------------------------------------------------------- */

static void *
reserve(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* An area that has ended, with room for so many pages; handlers may still look at its states, so those are kept. Lock held. */
static struct area *
reuse(size_t pages)
{
	for (struct area *area = areas; area; area = area->next)
		if (!area->size && area->room >= pages && area->room <= 4 * pages)
			return area;
	return NULL;
}

bool
rm_pages_area(uint64_t base, uint64_t size, int file, uint64_t offset)
{
	size_t blocks_in = (size >> BLOCK_BITS) + 1, pages = size >> PAGE_BITS;

	pthread_mutex_lock(&lock);
	struct area *old = reuse(pages), *area = old ? old : calloc(1, sizeof(*area));
	bool good = area != NULL;
	if (good) {
		area->view = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, (off_t)offset);
		area->twin = reserve(size);
		area->wanted = reserve(blocks_in);
		area->here = reserve(blocks_in * sizeof(*area->here));
		area->state = old ? old->state : reserve(pages);
		area->room = old ? old->room : pages;
		area->file = file;
		area->offset = offset;
		area->next_touch = UINT64_MAX;
		good = area->view != MAP_FAILED && area->twin && area->state && area->wanted && area->here && begin_threads();
	}
	if (good) {
		madvise(area->view, size, MADV_DONTDUMP);
		madvise(area->twin, size, MADV_DONTDUMP);
		__atomic_store_n(&area->base, base, __ATOMIC_RELEASE);
		__atomic_store_n(&area->size, size, __ATOMIC_RELEASE);
		if (!old) {
			area->next = areas;
			__atomic_store_n(&areas, area, __ATOMIC_RELEASE);
		}
		__atomic_store_n(&rm_pages_used, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lock);
	return good; /* what is lost otherwise is the end of memory anyhow */
}

/* Forgets the HERE and FRESH pages of a range. Lock held. */
static void
forget_pages(struct area *area, uint64_t first, uint64_t count)
{
	for (uint64_t page = first; page < first + count; page++)
		if (area->state[page] == HERE || area->state[page] == WHOLE)
			area->here[page / BLOCK_PAGES]--;
	put_states(area, first, count, NONE);
	for (size_t n = 0; n < block_count;)
		if (blocks[n].area == area && !area->here[blocks[n].number])
			blocks[n] = blocks[--block_count];
		else
			n++;
}

/* Lock held. */
static void
end_area(struct area *area)
{
	uint64_t size = area->size, pages = size >> PAGE_BITS;

	forget_pages(area, 0, pages);
	__atomic_store_n(&area->size, 0, __ATOMIC_RELEASE);
	for (size_t n = 0; n < fresh_count;)
		if (fresh[n].area == area)
			fresh[n] = fresh[--fresh_count];
		else
			n++;
	munmap(area->view, size);
	munmap(area->twin, size);
	munmap(area->wanted, (size >> BLOCK_BITS) + 1);
	munmap(area->here, ((size >> BLOCK_BITS) + 1) * sizeof(*area->here));
}

bool
rm_pages_adopt(uint64_t base, uint64_t size)
{
	struct area *area = find_area(base);
	struct uffdio_register claim = { .range = { base, size }, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };

	pthread_mutex_lock(&lock);
	bool good = area && (uffd < 0 || ioctl(uffd, UFFDIO_REGISTER, &claim) == 0);
	if (good)
		set_here(area, 0, size >> PAGE_BITS, WHOLE);
	pthread_mutex_unlock(&lock);
	return good;
}

void
rm_pages_keep(uint64_t base, uint64_t size)
{
	struct area *area = find_area(base);
	struct uffdio_range range = { base, size };
	uint64_t pages = size >> PAGE_BITS, run;

	if (!area)
		return;
	pthread_mutex_lock(&lock);
	for (uint64_t n = 0; n < pages; n += run) {
		for (run = 1; n + run < pages && run < BLOCK_PAGES && area->state[n + run] == area->state[n]; run++)
			;
		if (area->state[n] == AWAY && !__atomic_load_n(&lost, __ATOMIC_ACQUIRE))
			fetch(area, n, run);
	}
	if (uffd < 0)
		mprotect((void *)(uintptr_t)base, size, PROT_READ | PROT_WRITE);
	else
		ioctl(uffd, UFFDIO_UNREGISTER, &range);
	end_area(area);
	pthread_mutex_unlock(&lock);
}

void
rm_pages_drop(uint64_t base, uint64_t size)
{
	struct area *area = find_area(base);

	pthread_mutex_lock(&lock);
	if (area && area->base == base && area->size == size)
		end_area(area);
	pthread_mutex_unlock(&lock);
}

bool
rm_pages_map(uint64_t base, uint64_t size)
{
	struct area *area = find_area(base);
	struct uffdio_register claim = { .range = { base, size }, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };

	if (!area)
		return false;
	pthread_mutex_lock(&lock);
	bool is_lost = __atomic_load_n(&lost, __ATOMIC_ACQUIRE);
	void *at = mmap((void *)(uintptr_t)base, size, uffd < 0 && !is_lost ? PROT_NONE : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE |
	                MAP_FIXED, area->file, (off_t)(area->offset + base - area->base));
	bool good = at != MAP_FAILED && (uffd < 0 || is_lost || ioctl(uffd, UFFDIO_REGISTER, &claim) == 0);
	if (good) {
		madvise(at, size, MADV_DONTFORK); /* what a child wrote would be this process's */
		put_states(area, (base - area->base) >> PAGE_BITS, size >> PAGE_BITS, is_lost ? HERE : AWAY);
	}
	pthread_mutex_unlock(&lock);
	return good;
}

void
rm_pages_unmap(uint64_t base, uint64_t size)
{
	struct area *area = find_area(base);

	if (!area)
		return;
	pthread_mutex_lock(&lock);
	uint64_t first = (base - area->base) >> PAGE_BITS, count = size >> PAGE_BITS;
	forget_pages(area, first, count);
	mmap((void *)(uintptr_t)base, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	fallocate(area->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(area->offset + base - area->base), (off_t)size);
	madvise(area->twin + (base - area->base), size, MADV_DONTNEED);
	pthread_mutex_unlock(&lock);
}

/* Lock held. Pages of which the range is a part hold other memory too. */
static void
add_fresh(struct area *area, uint64_t from, uint64_t to)
{
	uint64_t first = (from + PAGE - 1) >> PAGE_BITS, end = to >> PAGE_BITS;

	for (uint64_t n = from >> PAGE_BITS; n < (to + PAGE - 1) >> PAGE_BITS; n++)
		if (area->state[n] == HERE) /* what it held when it came is not what the device has now */
			put_states(area, n, 1, WHOLE);
	if (fresh_count == fresh_room) {
		struct fresh *more = realloc(fresh, (fresh_room * 2 + 64) * sizeof(*fresh));
		fresh = more ? more : fresh;
		fresh_room = more ? fresh_room * 2 + 64 : fresh_room;
	}
	if (fresh_count == fresh_room || first >= end)
		return;
	fresh[fresh_count++] = (struct fresh){ area, first, end };
	for (uint64_t n = first; n < end; n++)
		if (area->state[n] == AWAY)
			put_states(area, n, 1, FRESH);
	__atomic_store_n(&here, 1, __ATOMIC_SEQ_CST);
}

void
rm_pages_fresh(uint64_t address, uint64_t size)
{
	uint64_t end = address + size;

	pthread_mutex_lock(&lock);
	for (struct area *area; address < end && (area = find_area(address)); address = area->base + area->size)
		add_fresh(area, address - area->base, (end - area->base < area->size ? end - area->base : area->size));
	pthread_mutex_unlock(&lock);
}

void
rm_pages_wanted(uint64_t address, uint64_t size)
{
	uint64_t end = address + size;

	pthread_mutex_lock(&lock);
	for (struct area *area; address < end && (area = find_area(address)); address = area->base + area->size) {
		uint64_t last = (end - area->base < area->size ? end - area->base : area->size) - 1;
		memset(area->wanted + ((address - area->base) >> BLOCK_BITS), 1, (last >> BLOCK_BITS) - ((address - area->base) >> BLOCK_BITS) + 1);
	}
	pthread_mutex_unlock(&lock);
}
