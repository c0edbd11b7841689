/*
 * Host memory that the device knows: allocated here (pinned), or the program's own, registered. The worker has it at the same address, and
 * registers it there, so that what the driver says of a pointer is said by the device itself.
 *
 * It lies in one file of this process, a piece for each run of pages. On one host the worker maps the same pieces: one memory for both.
 * Registered memory has contents already and other data beside it: its pages are replaced, in place, by a piece that holds the same
 * (docs/decisions/0004). Over a network the worker's pages stay closed, so that a kernel that reaches them fails, until the program asks for
 * a device pointer or gives an address in it to a kernel; from then on they are registered there and move as those of managed memory
 * (remote_pages.c). Until then questions about them are answered here.
 *
 * Registered memory that cannot be replaced (files, shared memory, stacks, what is read-only; over a network also what does not begin and
 * end with a page) can be copied, but kernels do not reach it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/remote.h"

#define PAGE 4096ul
#define FILE_BYTES (1ull << 50) /* of addresses in the file, never used twice */
#define FILE_TAG (UINT64_MAX - 1)
#define PART (16ul << 20) /* bytes that are replaced at a time: they exist twice meanwhile */
#define THAWED_NS 100000000 /* how long after a replacement a fault may still be due to it */

struct piece {
	struct piece *next;
	uintptr_t address;
	size_t size;
	uint64_t offset; /* in the file */
	unsigned users;  /* registrations; neighbours share the pages at their ends */
	bool ours;       /* from cuMemHostAlloc */
	bool in_file;    /* its pages are the file's */
	bool known;      /* the worker has memory there */
	bool moves;      /* remote_pages.c has it */
};

struct host {
	struct host *next;
	uintptr_t address;
	size_t size;
	unsigned flags;
	bool ours;
	bool known;   /* the worker has memory there */
	bool refused; /* kernels cannot be made to see it */
	bool reached; /* kernels and the worker's copies see its contents; it is registered there */
	CUcontext ctx;
};

static struct host *hosts;     /* guarded by lock; read without it for emptiness */
static struct piece *pieces;   /* guarded by lock and by change, either is enough to read */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t change = PTHREAD_MUTEX_INITIALIZER; /* one allocation, registration or end at a time; outside lock */
static int file = -1;          /* guarded by change */
static uint64_t file_used;

unsigned rm_host_unreached;

static size_t
round_up(size_t size)
{
	return (size + PAGE - 1) & ~(PAGE - 1);
}

/* ---- what the worker is told ---------------------------------------------------------------------------------------- */

/* Flags of an allocation are those of a registration but for the third (write-combining). */
static unsigned
registered_flags(bool ours, unsigned flags)
{
	return ours ? flags & 3u : flags;
}

static CUresult
tell(enum session_memory_action action, uintptr_t address, size_t size, uint64_t value, unsigned flags)
{
	struct session_memory memory = { action, address, size, value, flags };
	struct rm_request r;

	rm_begin(&r, SESSION_MEMORY, sizeof(memory));
	call_put(&r.out, &memory, sizeof(memory));
	return rm_do(&r);
}

static bool
open_file(void)
{
	if (file >= 0)
		return true;
	int fd = memfd_create("farwarp-pinned", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || fw_file_resize(fd, FILE_BYTES) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
	    (wire_can_share(rm_link()) && (!wire_share(rm_link(), fd, FILE_BYTES, FILE_TAG) ||
	                                   tell(SESSION_MEMORY_FILE, 0, FILE_BYTES, FILE_TAG, 0) != CUDA_SUCCESS))) {
		if (wire_alive(rm_link()))
			fw_warn_once("client", "no shared memory for pinned memory: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	file = fd;
	return true;
}

/* The worker's memory for a piece. CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED: the address is taken there. */
static CUresult
tell_piece(const struct piece *piece)
{
	bool shared = piece->in_file && wire_can_share(rm_link());

	return tell(SESSION_MEMORY_MAP, piece->address, piece->size, shared ? piece->offset : SESSION_MEMORY_CLOSED, 0);
}

/* On one host the worker registers what it maps. *reached: and kernels find it at the same address; not all devices do that. */
static CUresult
share(uintptr_t address, size_t size, unsigned flags, bool *reached)
{
	CUresult result = wire_can_share(rm_link()) ? tell(SESSION_MEMORY_REGISTER, address, size, 0, flags) : CUDA_ERROR_NOT_SUPPORTED;

	*reached = result == CUDA_SUCCESS;
	return result == CUDA_ERROR_NOT_SUPPORTED ? CUDA_SUCCESS : result;
}

static void
give_back(const struct piece *piece)
{
	if (piece->in_file)
		fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)piece->offset, (off_t)piece->size);
}

/* ---- finding -------------------------------------------------------------------------------------------------------- */

/* With the lock held. */
static struct host **
find_host(uint64_t p, size_t size)
{
	for (struct host **at = &hosts; *at; at = &(*at)->next)
		if (p - (*at)->address < (*at)->size && size <= (*at)->size - (p - (*at)->address))
			return at;
	return NULL;
}

enum rm_host
rm_host_kind(uint64_t p, size_t size)
{
	if (!__atomic_load_n(&hosts, __ATOMIC_RELAXED))
		return RM_HOST_NONE;
	pthread_rwlock_rdlock(&lock);
	struct host **found = find_host(p, size);
	enum rm_host kind = !found ? RM_HOST_NONE : (*found)->reached ? RM_HOST_SHARED : RM_HOST_OWN;
	pthread_rwlock_unlock(&lock);
	return kind;
}

static void
add_host(struct host *host)
{
	pthread_rwlock_wrlock(&lock);
	host->next = hosts;
	__atomic_store_n(&hosts, host, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&lock);
	if (!host->reached)
		__atomic_store_n(&rm_host_unreached, 1, __ATOMIC_RELEASE);
}

/* Takes the record out whose memory begins there; NULL if there is none of that sort. */
static struct host *
take_host(const void *p, bool ours)
{
	pthread_rwlock_wrlock(&lock);
	struct host **found = find_host((uintptr_t)p, 1), *host = found ? *found : NULL;
	if (host && (host->address != (uintptr_t)p || host->ours != ours))
		host = NULL;
	if (host)
		__atomic_store_n(found, host->next, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&lock);
	return host;
}

/* The first piece that ends behind an address. */
static struct piece *
piece_behind(uintptr_t address)
{
	struct piece *first = NULL;

	for (struct piece *piece = pieces; piece; piece = piece->next)
		if (piece->address + piece->size > address && (!first || piece->address < first->address))
			first = piece;
	return first;
}

static void
add_piece(struct piece *piece)
{
	pthread_rwlock_wrlock(&lock);
	piece->next = pieces;
	pieces = piece;
	pthread_rwlock_unlock(&lock);
}

static void
drop_piece(struct piece *piece)
{
	pthread_rwlock_wrlock(&lock);
	struct piece **at = &pieces;
	while (*at != piece)
		at = &(*at)->next;
	*at = piece->next;
	pthread_rwlock_unlock(&lock);
	free(piece);
}

/* ---- what lies at an address ---------------------------------------------------------------------------------------- */

enum kind { NOTHING, REPLACEABLE, OURS, OTHER };

/* By /proc/self/maps: the kind of all pages of a range. OURS: they are the file's at `offset`. */
static enum kind
look(uintptr_t from, uintptr_t to, uint64_t offset)
{
	unsigned long low, high, at, inode;
	unsigned major_, minor_;
	char line[512], rights[8], name[8];
	enum kind kind = NOTHING;
	struct stat st;
	FILE *maps = fopen("/proc/self/maps", "re");

	if (!maps)
		return OTHER;
	bool has_file = file >= 0 && fstat(file, &st) == 0;
	uintptr_t next = from;
	while (next < to && fgets(line, sizeof(line), maps)) {
		name[0] = 0;
		if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu %7s", &low, &high, rights, &at, &major_, &minor_, &inode, name) < 7 || high <= next)
			continue;
		if (low > next)
			break;
		enum kind this = OTHER;
		if (has_file && inode == st.st_ino && makedev(major_, minor_) == st.st_dev)
			this = rights[3] == 'p' ? REPLACEABLE : at + (next - low) == offset + (next - from) ? OURS : OTHER; /* 'p': restored */
		else if (strncmp(rights, "rw", 2) == 0 && rights[3] == 'p' && (!inode || name[0] == '/') && strncmp(name, "[stack", 6) != 0 &&
		         strncmp(name, "/anon_h", 7) != 0)
			this = REPLACEABLE;
		kind = next == from || kind == this ? this : OTHER;
		next = high;
	}
	if (next < to)
		kind = NOTHING;
	fclose(maps);
	return kind;
}

/* ---- replacing pages in place ---------------------------------------------------------------------------------------- */

/* Ranges that cannot be written for a moment, and those that could not until a moment ago: a fault there is repeated. */
static struct frozen {
	uintptr_t from, to;
	uint64_t until; /* 0: still frozen */
} frozen[64];           /* atomic members */
static unsigned frozen_next;
static __thread struct {
	uint64_t address, until;
} repeated __attribute__((tls_model("initial-exec"))); /* the last fault that came too late */

bool
rm_host_replacing(uint64_t address)
{
	uint64_t thawed = 0; /* last */

	for (unsigned n = 0; n < sizeof(frozen) / sizeof(frozen[0]); n++) {
		struct frozen *f = &frozen[n];
		if (address < __atomic_load_n(&f->from, __ATOMIC_ACQUIRE) || address >= __atomic_load_n(&f->to, __ATOMIC_ACQUIRE))
			continue;
		uint64_t until;
		while (!(until = __atomic_load_n(&f->until, __ATOMIC_ACQUIRE)))
			sched_yield();
		thawed = until > thawed ? until : thawed;
	}
	if (thawed && wire_now() < thawed)
		return true;
	if (!thawed || (repeated.address == address && repeated.until == thawed))
		return false;
	repeated.address = address; /* a thread may run long after its fault: once more, to see */
	repeated.until = thawed;
	return true;
}

static struct frozen *
freeze(uintptr_t from, size_t size)
{
	struct frozen *f = &frozen[frozen_next++ % (sizeof(frozen) / sizeof(frozen[0]))];

	__atomic_store_n(&f->to, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&f->until, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&f->from, from, __ATOMIC_RELEASE);
	__atomic_store_n(&f->to, from + size, __ATOMIC_RELEASE);
	if (mprotect((void *)from, size, PROT_READ) == 0)
		return f;
	__atomic_store_n(&f->until, wire_now() + THAWED_NS, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Makes `to` the same as `from`, whole pages that other threads may be writing. Not by memcpy, which the program's sanitizer would watch: beside
 * registered memory lie its red zones.
 */
__attribute__((no_sanitize("address", "thread")))
static void
copy_pages(uint64_t *to, const uint64_t *from, size_t size)
{
	for (size_t n = 0; n < size / 8; n++) {
		uint64_t word = __atomic_load_n(&from[n], __ATOMIC_RELAXED);
		if (to[n] != word)
			to[n] = word;
	}
}

/*
 * The pages at `from` become the file's, with what they hold. Other threads may write them meanwhile: they are copied, closed for writing
 * (who writes waits in the handler of SIGSEGV), compared, and replaced by one system call.
 */
static bool
replace_part(uintptr_t from, size_t size, uint64_t offset)
{
	uint64_t *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, (off_t)offset), *old = (uint64_t *)from;

	if (copy == MAP_FAILED)
		return false;
	copy_pages(copy, old, size);
	struct frozen *f = freeze(from, size);
	if (f)
		copy_pages(copy, old, size);
	bool good = f && mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, old) == old;
	if (!good) {
		mprotect(old, size, PROT_READ | PROT_WRITE);
		munmap(copy, size);
	}
	if (f)
		__atomic_store_n(&f->until, wire_now() + THAWED_NS, __ATOMIC_RELEASE);
	return good;
}

/* Each page becomes this process's own by being written. For a sanitizer it holds as for copy_pages. */
__attribute__((no_sanitize("address", "thread")))
static void
own_pages(uint8_t *at, size_t size)
{
	for (size_t n = 0; n < size; n += PAGE)
		__atomic_fetch_or(at + n, 0, __ATOMIC_RELAXED);
}

/* The pages become this process's own again: a private view of the file, each page of which is then copied by writing it. */
static void
restore(const struct piece *piece)
{
	if (look(piece->address, piece->address + piece->size, piece->offset) != OURS) {
		fw_warn("client", "registered memory at 0x%lx was unmapped before it was unregistered", (unsigned long)piece->address);
		return;
	}
	/* Not by mmap(), which the program's sanitizer would take for the writing of all that is there; the contents stay. */
	if (syscall(SYS_mmap, piece->address, piece->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, file, piece->offset) == -1)
		return; /* it stays shared, which harms nobody while the worker has let it go */
	own_pages((uint8_t *)piece->address, piece->size);
	give_back(piece);
}

static bool
replace(struct piece *piece)
{
	char here;
	uintptr_t end = piece->address + piece->size;

	if ((uintptr_t)&here >= piece->address - 65536 && (uintptr_t)&here < end + 65536)
		return false; /* this thread's stack: it could not wait for itself */
	if (!open_file() || !rm_faults_catch() || look(piece->address, end, 0) != REPLACEABLE)
		return false;
	piece->offset = file_used;
	file_used += piece->size;
	for (size_t at = 0; at < piece->size; at += PART) {
		size_t size = piece->size - at < PART ? piece->size - at : PART;
		if (!replace_part(piece->address + at, size, piece->offset + at)) {
			struct piece done = *piece;
			done.size = at;
			done.in_file = true;
			if (at)
				restore(&done);
			return false;
		}
	}
	piece->in_file = true;
	return true;
}

/* ---- pieces of registered memory ------------------------------------------------------------------------------------- */

/* Ends the use of what lies in a page range. `changed`: the device may have written it. */
static void
release_pieces(uintptr_t from, uintptr_t to)
{
	for (struct piece *piece; (piece = piece_behind(from)) && piece->address < to;) {
		from = piece->address + piece->size;
		if (piece->ours || --piece->users)
			continue;
		if (piece->moves)
			rm_pages_keep(piece->address, piece->size);
		if (piece->known)
			tell(SESSION_MEMORY_UNMAP, piece->address, piece->size, 0, 0);
		if (piece->in_file)
			restore(piece);
		drop_piece(piece);
	}
}

/* Pieces for all pages of a range; those that neighbours have are shared with them. *reached, *known: of all of them. */
static bool
claim_pieces(uintptr_t from, uintptr_t to, bool *reached, bool *known)
{
	*reached = *known = true;
	for (uintptr_t at = from, end; at < to; at = end) {
		struct piece *piece = piece_behind(at);
		if (!piece || piece->address > at) {
			end = piece && piece->address < to ? piece->address : to;
			piece = calloc(1, sizeof(*piece));
			if (!piece) {
				release_pieces(from, at);
				return false;
			}
			*piece = (struct piece){ .address = at, .size = end - at };
			if (wire_can_share(rm_link()) && !replace(piece))
				fw_warn_once("client", "kernels will not reach registered memory at 0x%lx: it is no private writable memory", (unsigned long)at);
			if (piece->in_file || !wire_can_share(rm_link()))
				piece->known = tell_piece(piece) == CUDA_SUCCESS;
			add_piece(piece);
		}
		piece->users++;
		end = piece->address + piece->size;
		*reached &= piece->known && (piece->moves || (piece->in_file && wire_can_share(rm_link())));
		*known &= piece->known;
	}
	return true;
}

/* Over a network: the pages of a range begin to move. */
static bool
move_pieces(uintptr_t from, uintptr_t to)
{
	for (uintptr_t at = from; at < to;) {
		struct piece *piece = piece_behind(at);
		if (!piece || piece->address > at || !piece->known)
			return false;
		if (!piece->in_file && !replace(piece))
			return false;
		if (!piece->moves) {
			if (tell(SESSION_MEMORY_OPEN, piece->address, piece->size, 0, 0) != CUDA_SUCCESS ||
			    !rm_pages_area(piece->address, piece->size, file, piece->offset) || !rm_pages_adopt(piece->address, piece->size))
				return false;
			piece->moves = true;
		}
		at = piece->address + piece->size;
	}
	return true;
}

/* Makes the device see the memory at an address. CUDA_ERROR_INVALID_VALUE: it is none of this sort. */
static CUresult
reach(uint64_t p)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&change);
	struct host **found = find_host(p, 1), *host = found ? *found : NULL;
	if (host && !host->reached && !host->refused) {
		bool whole = !(host->address & (PAGE - 1)) && (host->ours || !(host->size & (PAGE - 1)));
		bool good = host->known && !wire_can_share(rm_link()) && whole && move_pieces(host->address, host->address + round_up(host->size)) &&
		            tell(SESSION_MEMORY_REGISTER, host->address, host->size, 0, registered_flags(host->ours, host->flags)) == CUDA_SUCCESS;
		pthread_rwlock_wrlock(&lock);
		host->reached = good;
		host->refused = !good;
		pthread_rwlock_unlock(&lock);
		if (!good && wire_alive(rm_link()))
			fw_warn_once("client", "kernels do not reach the registered memory at 0x%lx (%zu bytes): %s", (unsigned long)host->address, host->size,
			             !host->known ? "its addresses are taken on the server" : whole ? "it is no private writable memory"
			             : "over a network it has to begin and end with a page");
	}
	if (host)
		result = host->reached ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
	pthread_mutex_unlock(&change);
	return result;
}

uint64_t
rm_host_own(const void *words, size_t size)
{
	uint64_t word, own = 0;

	pthread_rwlock_rdlock(&lock);
	for (size_t at = 0; at + 8 <= size && !own; at += 8) {
		memcpy(&word, (const uint8_t *)words + at, 8);
		struct host **found = find_host(word, 1);
		if (found && !(*found)->reached && !(*found)->refused)
			own = word;
	}
	pthread_rwlock_unlock(&lock);
	return own;
}

void
rm_host_reach(uint64_t p)
{
	reach(p);
}

/* ---- allocations ------------------------------------------------------------------------------------------------------ */

static void *
unlikely_address(void)
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = (uint64_t)(uintptr_t)&random * 0x9e3779b97f4a7c15u;
	return (void *)(uintptr_t)(RM_EMPTY_BASE + (random % RM_EMPTY_SIZE & ~0x1fffffull));
}

/* Memory at an address that is free in both processes. */
static CUresult
allocate(struct piece *piece)
{
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;

	for (unsigned tries = 0; tries < 8; tries++) {
		void *at = mmap(unlikely_address(), piece->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, file, (off_t)piece->offset);
		if (at == MAP_FAILED && errno != EEXIST)
			break;
		if (at == MAP_FAILED)
			continue;
		piece->address = (uintptr_t)at;
		result = tell_piece(piece);
		if (result == CUDA_SUCCESS)
			return CUDA_SUCCESS;
		munmap(at, piece->size);
		if (result != CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
			return result;
	}
	return result == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED ? CUDA_ERROR_OUT_OF_MEMORY : result;
}

static void
free_piece(struct piece *piece)
{
	if (piece->moves)
		rm_pages_drop(piece->address, piece->size);
	munmap((void *)piece->address, piece->size);
	give_back(piece);
	drop_piece(piece);
}

CUresult
rm_cuMemHostAlloc(void **pp, size_t bytesize, unsigned Flags)
{
	size_t size = round_up(bytesize);
	CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
	bool reached = false;

	if (Flags & ~7u)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bytesize) {
		*pp = NULL;
		return CUDA_SUCCESS;
	}
	struct host *host = calloc(1, sizeof(*host));
	struct piece *piece = calloc(1, sizeof(*piece));
	pthread_mutex_lock(&change);
	bool fits = host && piece && size >= bytesize && size < FILE_BYTES - file_used;
	if (fits && !open_file() && !wire_alive(rm_link())) {
		result = rm_lost();
	} else if (fits && file >= 0) {
		*piece = (struct piece){ .size = size, .offset = file_used, .ours = true, .in_file = true, .known = true };
		file_used += size;
		result = allocate(piece);
	}
	if (result == CUDA_SUCCESS) {
		add_piece(piece);
		result = share(piece->address, bytesize, registered_flags(true, Flags), &reached);
		if (result != CUDA_SUCCESS) {
			tell(SESSION_MEMORY_UNMAP, piece->address, piece->size, 0, 0);
			free_piece(piece);
			piece = NULL;
		}
	}
	if (result == CUDA_SUCCESS) {
		*host = (struct host){ .address = piece->address, .size = bytesize, .flags = Flags, .ours = true, .known = true,
			.reached = reached, .ctx = fw_thread.ctx };
		*pp = (void *)piece->address;
		add_host(host);
	} else {
		free(host);
		free(piece);
	}
	pthread_mutex_unlock(&change);
	return result;
}

CUresult
rm_cuMemAllocHost_v2(void **pp, size_t bytesize)
{
	return rm_cuMemHostAlloc(pp, bytesize, 0);
}

/* Waits for what uses it. */
static CUresult
unregister(const struct host *host)
{
	if (host->reached)
		return tell(SESSION_MEMORY_UNREGISTER, host->address, 0, 0, 0);
	return rm_may_capture() ? CUDA_SUCCESS : rm_ops_table()->cuCtxSynchronize(); /* no wait is allowed while a graph is captured */
}

static CUresult
end_allocation(struct host *host)
{
	struct piece *piece = piece_behind(host->address);

	CUresult result = unregister(host);
	tell(SESSION_MEMORY_UNMAP, piece->address, piece->size, 0, 0);
	free_piece(piece);
	free(host);
	return result;
}

CUresult
rm_cuMemFreeHost(void *p)
{
	if (!p)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&change);
	struct host *host = take_host(p, true);
	CUresult result = host ? end_allocation(host) : CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_unlock(&change);
	return result;
}

/* ---- registrations ---------------------------------------------------------------------------------------------------- */

static bool
overlaps(uintptr_t address, size_t size)
{
	for (struct host *host = hosts; host; host = host->next)
		if (address < host->address + host->size && host->address < address + size)
			return true;
	return false;
}

static CUresult
register_memory(uintptr_t address, size_t size, unsigned flags)
{
	uintptr_t from = address & ~(PAGE - 1), to = (address + size + PAGE - 1) & ~(PAGE - 1);
	bool reached, known;

	if (rm_in_space(address) || overlaps(address, size))
		return rm_in_space(address) && !rm_is_managed(address, 1) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
	if (look(from, to, 0) == NOTHING)
		return CUDA_ERROR_INVALID_VALUE;
	struct host *host = calloc(1, sizeof(*host));
	if (!host || !claim_pieces(from, to, &reached, &known)) {
		free(host);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	CUresult result = reached && known ? share(address, size, flags, &reached) : CUDA_SUCCESS;
	if (result != CUDA_SUCCESS) {
		release_pieces(from, to);
		free(host);
		return result;
	}
	*host = (struct host){ .address = address, .size = size, .flags = flags, .known = known, .reached = reached && known, .ctx = fw_thread.ctx };
	add_host(host);
	return CUDA_SUCCESS;
}

CUresult
rm_cuMemHostRegister_v2(void *p, size_t bytesize, unsigned Flags)
{
	uintptr_t address = (uintptr_t)p;

	if (!p || !bytesize || Flags & ~15u || address + bytesize < address || address + bytesize > UINTPTR_MAX - PAGE)
		return CUDA_ERROR_INVALID_VALUE;
	if (Flags & CU_MEMHOSTREGISTER_IOMEMORY)
		return CUDA_ERROR_NOT_SUPPORTED;
	pthread_mutex_lock(&change);
	CUresult result = register_memory(address, bytesize, Flags);
	pthread_mutex_unlock(&change);
	if (result == CUDA_SUCCESS && Flags & CU_MEMHOSTREGISTER_DEVICEMAP)
		reach(address); /* else a kernel that comes there fails */
	return result;
}

CUresult
rm_cuMemHostRegister(void *p, size_t bytesize, unsigned Flags)
{
	return rm_cuMemHostRegister_v2(p, bytesize, Flags);
}

static CUresult
end_registration(struct host *host)
{
	CUresult result = unregister(host);

	release_pieces(host->address & ~(PAGE - 1), (host->address + host->size + PAGE - 1) & ~(PAGE - 1));
	free(host);
	return result;
}

CUresult
rm_cuMemHostUnregister(void *p)
{
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&change);
	struct host *host = take_host(p, false);
	CUresult result = host ? end_registration(host) : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	pthread_mutex_unlock(&change);
	return result;
}

void
rm_host_context_ended(CUcontext ctx)
{
	struct host *ended = NULL;

	pthread_mutex_lock(&change);
	pthread_rwlock_wrlock(&lock);
	for (struct host **at = &hosts; *at;) {
		struct host *host = *at;
		if (host->ctx != ctx) {
			at = &host->next;
			continue;
		}
		__atomic_store_n(at, host->next, __ATOMIC_RELEASE);
		host->next = ended;
		ended = host;
	}
	pthread_rwlock_unlock(&lock);
	for (struct host *host; (host = ended);) {
		ended = host->next;
		if (host->ours)
			end_allocation(host);
		else
			end_registration(host);
	}
	pthread_mutex_unlock(&change);
}

/* In the child of a fork: what it writes is its own. Pages at the ends, which hold other data too, are copied now. */
void
rm_host_after_fork(void)
{
	for (struct piece *piece = pieces; piece; piece = piece->next) {
		void *at = !piece->in_file ? MAP_FAILED : mmap((void *)piece->address, piece->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE |
		                                               MAP_FIXED, file, (off_t)piece->offset);
		if (at == MAP_FAILED || piece->ours)
			continue;
		__atomic_fetch_or((uint8_t *)at, 0, __ATOMIC_RELAXED);
		__atomic_fetch_or((uint8_t *)at + piece->size - PAGE, 0, __ATOMIC_RELAXED);
	}
	lock = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
	change = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

/* ---- questions --------------------------------------------------------------------------------------------------------- */

CUresult
rm_cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned Flags)
{
	if (Flags || !p)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = rm_is_managed((uintptr_t)p, 1) ? CUDA_SUCCESS : reach((uintptr_t)p);
	if (result == CUDA_SUCCESS)
		*pdptr = (CUdeviceptr)(uintptr_t)p;
	return result;
}

CUresult
rm_cuMemHostGetFlags(unsigned *pFlags, void *p)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_rwlock_rdlock(&lock);
	struct host **found = find_host((uintptr_t)p, 1);
	if (found) {
		*pFlags = (*found)->flags | CU_MEMHOSTALLOC_DEVICEMAP; /* as always under unified addressing */
		result = CUDA_SUCCESS;
	}
	pthread_rwlock_unlock(&lock);
	return result;
}

#define ANSWER(type, value) *result = (memcpy(data, &(type){ value }, sizeof(type)), CUDA_SUCCESS)

bool
rm_host_attribute(void *data, CUpointer_attribute attribute, CUdeviceptr p, CUresult *result)
{
	if (!data || rm_host_kind(p, 1) != RM_HOST_OWN)
		return false;
	if (attribute == CU_POINTER_ATTRIBUTE_DEVICE_POINTER) {
		*result = reach(p);
		return *result != CUDA_SUCCESS; /* the worker knows it now */
	}
	pthread_rwlock_rdlock(&lock);
	struct host **found = find_host(p, 1), host = found ? **found : (struct host){ 0 };
	pthread_rwlock_unlock(&lock);
	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
		ANSWER(CUcontext, host.ctx);
		break;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		ANSWER(unsigned, CU_MEMORYTYPE_HOST);
		break;
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		ANSWER(void *, (void *)(uintptr_t)p);
		break;
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
		ANSWER(unsigned, 0);
		break;
	case CU_POINTER_ATTRIBUTE_MAPPED:
		ANSWER(unsigned, 1);
		break;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		ANSWER(int, 0);
		break;
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
		ANSWER(CUdeviceptr, host.address);
		break;
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
		ANSWER(size_t, host.size);
		break;
	default:
		*result = CUDA_ERROR_INVALID_VALUE;
	}
	return true;
}
#undef ANSWER
