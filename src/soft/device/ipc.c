/*
 * Memory and events shared between processes. A handle names a memfd of the exporting process by its pid and descriptor; the importer
 * opens it through /proc, which the kernel allows to the same user. A handle comes from another process, and the importer may be a
 * server's worker that acts for a stranger: the handle holds a secret that is the file's name, so that no file can be opened by who was
 * not given a handle for it.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMORY_MAGIC 0x6d776600u
#define EVENT_MAGIC 0x65776600u
#define SECRET 24 /* characters, of 4 bits each */
#define PREFIX "/memfd:farwarp-"

struct handle { /* in the 64 bytes of CUipcMemHandle and CUipcEventHandle */
	uint32_t magic;
	int32_t pid, fd;
	uint32_t flags;
	uint64_t inode;
	uint64_t offset, size; /* of the allocation in the file */
	char secret[SECRET];   /* no NUL */
};
_Static_assert(sizeof(struct handle) <= CU_IPC_HANDLE_SIZE, "a handle fits CUDA's structure");

int
sw_ipc_file(void)
{
	uint8_t random[SECRET / 2];
	char name[sizeof("farwarp-") + SECRET];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -1;
	memcpy(name, "farwarp-", sizeof("farwarp-"));
	for (size_t n = 0; n < SECRET; n++)
		name[sizeof("farwarp-") - 1 + n] = "0123456789abcdef"[random[n / 2] >> 4 * (n % 2) & 15];
	name[sizeof(name) - 1] = 0;
	return memfd_create(name, MFD_CLOEXEC);
}

/* The secret in an open file's name; false for a file that has none. */
static bool
secret_of(int fd, char secret[SECRET])
{
	char path[64], name[sizeof(PREFIX) + SECRET + 16];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(path, name, sizeof(name));
	if (length < (ssize_t)(sizeof(PREFIX) - 1 + SECRET) || memcmp(name, PREFIX, sizeof(PREFIX) - 1) != 0)
		return false;
	memcpy(secret, name + sizeof(PREFIX) - 1, SECRET);
	return true;
}

/* In constant time, so that trying does not tell how much of a guess was right. */
static bool
same_secret(const char *a, const char *b)
{
	volatile unsigned differ = 0;

	for (size_t n = 0; n < SECRET; n++)
		differ |= (unsigned char)a[n] ^ (unsigned char)b[n];
	return !differ;
}

/* Describes a file of this process. */
static int
describe(struct handle *handle, uint32_t magic, int fd)
{
	struct stat status;

	if (fstat(fd, &status) != 0)
		return -1;
	*handle = (struct handle){ .magic = magic, .pid = (int32_t)getpid(), .fd = fd, .inode = (uint64_t)status.st_ino };
	return secret_of(fd, handle->secret) ? 0 : -1;
}

/* The file that a handle names, and its size; -1 if it is not there any more or is another. */
static int
follow(const struct handle *handle, uint64_t *size)
{
	char path[64], secret[SECRET];
	struct stat status;

	/* What else may lie there (a device, a FIFO) is not opened: opening it could do something. */
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", handle->pid, handle->fd);
	if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_ino != handle->inode)
		return -1;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		fw_warn("device", "cannot open memory shared by process %d: %m", handle->pid);
		return -1;
	}
	if (fstat(fd, &status) != 0 || !secret_of(fd, secret) || !same_secret(secret, handle->secret)) {
		close(fd);
		return -1;
	}
	*size = (uint64_t)status.st_size;
	return fd;
}

/* ---- memory --------------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuIpcGetMemHandle(CUipcMemHandle *pHandle, CUdeviceptr dptr)
{
	struct handle out;
	SW_CTX(ctx);
	struct sw_alloc *alloc = sw_alloc_find(dptr);
	if (!alloc || alloc->hidden || alloc->kind != SW_MEM_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	/* The memory moves into a file once; nothing may be using it meanwhile. */
	sw_queue_drain(alloc->ctx ? alloc->ctx : ctx);
	if (sw_alloc_share(alloc) != 0 || describe(&out, MEMORY_MAGIC, alloc->segment->fd) != 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	out.offset = alloc->address - alloc->segment->base;
	out.size = alloc->size;
	memset(pHandle, 0, sizeof(*pHandle));
	memcpy(pHandle, &out, sizeof(out));
	return CUDA_SUCCESS;
}

CUresult
sw_cuIpcOpenMemHandle_v2(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned Flags)
{
	struct sw_alloc *alloc;
	struct handle in;
	uint64_t size;
	SW_CTX(ctx);
	memcpy(&in, &handle, sizeof(in));
	if ((Flags & ~(unsigned)CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) || in.magic != MEMORY_MAGIC)
		return CUDA_ERROR_INVALID_VALUE;
	if (in.pid == (int32_t)getpid())
		return CUDA_ERROR_INVALID_CONTEXT; /* "cannot be opened in the process that exported it" */
	int fd = follow(&in, &size);
	if (fd < 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (!size || size % SW_GRANULE || !in.size || in.offset > size || in.size > size - in.offset) {
		close(fd);
		return CUDA_ERROR_INVALID_VALUE;
	}
	CUresult result = sw_alloc_new_file(ctx, size, SW_MEM_IPC, fd, 0, &alloc);
	close(fd);
	if (result != CUDA_SUCCESS)
		return CUDA_ERROR_MAP_FAILED;
	/* The whole segment is mapped; the program sees its allocation. */
	alloc->address += in.offset;
	alloc->size = in.size;
	*pdptr = alloc->address;
	return CUDA_SUCCESS;
}

CUresult
sw_cuIpcOpenMemHandle(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned Flags)
{
	return sw_cuIpcOpenMemHandle_v2(pdptr, handle, Flags);
}

CUresult
sw_cuIpcCloseMemHandle(CUdeviceptr dptr)
{
	SW_CTX(ctx);
	struct sw_alloc *alloc = sw_alloc_find(dptr);
	if (!alloc || alloc->kind != SW_MEM_IPC || alloc->pool || alloc->address != dptr)
		return CUDA_ERROR_INVALID_VALUE;
	sw_queue_drain(alloc->ctx ? alloc->ctx : ctx);
	sw_alloc_free(alloc);
	return CUDA_SUCCESS;
}

/* ---- events ------------------------------------------------------------------------------------------------------------------ */

struct counters { /* in shared memory; both only grow */
	uint64_t recorded; /* atomic: records asked for */
	uint64_t finished; /* atomic: newest record that ran; waited for by futex on its low half */
};

struct sw_shared_event {
	int fd;
	struct counters *counters;
};

static struct sw_shared_event *
shared_new(int fd)
{
	struct sw_shared_event *shared = malloc(sizeof(*shared));
	void *memory = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (!shared || memory == MAP_FAILED) {
		if (memory != MAP_FAILED)
			munmap(memory, sizeof(struct counters));
		free(shared);
		return NULL;
	}
	*shared = (struct sw_shared_event){ fd, memory };
	return shared;
}

int
sw_shared_event_open(struct sw_event *event)
{
	int fd = sw_ipc_file();

	if (fd < 0)
		return -1;
	event->shared = fw_file_resize(fd, 4096) == 0 ? shared_new(fd) : NULL;
	if (!event->shared)
		close(fd);
	return event->shared ? 0 : -1;
}

void
sw_shared_event_close(struct sw_event *event)
{
	struct sw_shared_event *shared = event->shared;

	/* Waits in this process's streams may still look at the counters. */
	sw_queue_drain(event->ctx);
	event->shared = NULL;
	munmap(shared->counters, sizeof(*shared->counters));
	close(shared->fd);
	free(shared);
}

uint64_t
sw_shared_event_record(struct sw_event *event)
{
	return __atomic_add_fetch(&event->shared->counters->recorded, 1, __ATOMIC_ACQ_REL);
}

void
sw_shared_event_target(const struct sw_event *event, CUstreamBatchMemOpParams *wait)
{
	struct counters *counters = event->shared->counters;

	*wait = (CUstreamBatchMemOpParams){ .waitValue = { .operation = CU_STREAM_MEM_OP_WAIT_VALUE_64,
		.address = (CUdeviceptr)(uintptr_t)&counters->finished,
		.value64 = __atomic_load_n(&counters->recorded, __ATOMIC_ACQUIRE), .flags = CU_STREAM_WAIT_VALUE_GEQ } };
}

void
sw_shared_event_complete(struct sw_event *event)
{
	struct counters *counters = event->shared->counters;
	uint64_t before = __atomic_load_n(&counters->finished, __ATOMIC_RELAXED);

	while (before < event->finished &&
	       !__atomic_compare_exchange_n(&counters->finished, &before, event->finished, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
	syscall(SYS_futex, &counters->finished, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool
sw_shared_event_ready(struct sw_event *event)
{
	const struct counters *counters = event->shared->counters;

	return __atomic_load_n(&counters->finished, __ATOMIC_ACQUIRE) >= __atomic_load_n(&counters->recorded, __ATOMIC_ACQUIRE);
}

void
sw_shared_event_wait(struct sw_event *event)
{
	struct counters *counters = event->shared->counters;
	uint64_t target = __atomic_load_n(&counters->recorded, __ATOMIC_ACQUIRE), have;
	/* Wakes now and then, because the process that owes the record may have died after asking for it. */
	struct timespec pause = { .tv_nsec = 100000000 };

	while ((have = __atomic_load_n(&counters->finished, __ATOMIC_ACQUIRE)) < target)
		syscall(SYS_futex, &counters->finished, FUTEX_WAIT, (uint32_t)have, &pause, NULL, 0);
}

CUresult
sw_cuIpcGetEventHandle(CUipcEventHandle *pHandle, CUevent hEvent)
{
	struct handle out;
	SW_CTX(ctx);
	struct sw_event *event = sw_event_get(hEvent);
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!event->shared)
		return CUDA_ERROR_INVALID_VALUE;
	if (describe(&out, EVENT_MAGIC, event->shared->fd) != 0)
		return CUDA_ERROR_OPERATING_SYSTEM;
	out.flags = event->flags;
	memset(pHandle, 0, sizeof(*pHandle));
	memcpy(pHandle, &out, sizeof(out));
	return CUDA_SUCCESS;
}

CUresult
sw_cuIpcOpenEventHandle(CUevent *phEvent, CUipcEventHandle handle)
{
	struct handle in;
	uint64_t size;
	SW_CTX(ctx);
	memcpy(&in, &handle, sizeof(in));
	if (in.magic != EVENT_MAGIC)
		return CUDA_ERROR_INVALID_VALUE;
	if (in.pid == (int32_t)getpid())
		return CUDA_ERROR_INVALID_CONTEXT;
	int fd = follow(&in, &size);
	struct sw_shared_event *shared = fd >= 0 && size >= sizeof(struct counters) ? shared_new(fd) : NULL;
	if (!shared) {
		if (fd >= 0)
			close(fd);
		return CUDA_ERROR_INVALID_VALUE;
	}
	CUresult result = sw_event_new(ctx, CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS, shared, phEvent);
	if (result != CUDA_SUCCESS) {
		munmap(shared->counters, sizeof(*shared->counters));
		close(fd);
		free(shared);
	}
	return result;
}
