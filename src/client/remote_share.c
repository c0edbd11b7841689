/*
 * File descriptors that stand for allocations and pools: from the worker to this process and back, over a unix socket. Over a network
 * there is no such way: CUDA_ERROR_NOT_SUPPORTED, after the worker has said what else is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "client/remote.h"

#define HANDLE_BYTES 64 /* of a handle that is no descriptor: CUmemFabricHandle */

static uint64_t
next_tag(void)
{
	static uint64_t tag = 1ull << 63; /* atomic; those of shared memory begin at 1 */

	return __atomic_fetch_add(&tag, 1, __ATOMIC_RELAXED);
}

/* The descriptor that came over our end of the pair; -1: none. */
static int
receive_descriptor(int socket)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) <= 0)
		return -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(fd)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static CUresult
no_way(const char *call)
{
	fw_warn_once("client", "%s: a descriptor does not travel to a server on another host", call);
	return CUDA_ERROR_NOT_SUPPORTED;
}

/* `object`: an allocation or a pool. The worker puts the descriptor into a socket whose other end it is given. */
static CUresult
export(enum cuda_call_id call, void *out, uint64_t object, CUmemAllocationHandleType type, uint64_t flags)
{
	bool wants_fd = type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, can = wants_fd && wire_can_share(rm_link());
	int pair[2] = { -1, -1 };
	struct rm_request r;
	struct fw_cursor in;
	uint64_t tag = 0;

	if (can) {
		tag = next_tag();
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
			return CUDA_ERROR_OPERATING_SYSTEM;
		bool given = wire_give(rm_link(), pair[1], tag);
		close(pair[1]);
		if (!given) {
			close(pair[0]);
			return wire_alive(rm_link()) ? CUDA_ERROR_OPERATING_SYSTEM : rm_lost();
		}
	}
	rm_begin(&r, (uint16_t)call, 32);
	call_put_u64(&r.out, object);
	call_put_u64(&r.out, (uint64_t)type);
	call_put_u64(&r.out, flags);
	call_put_u64(&r.out, tag);
	CUresult result = rm_ask(&r, &in);
	const void *handle = result == CUDA_SUCCESS && !wants_fd ? call_get(&in, HANDLE_BYTES) : NULL;
	if (handle)
		memcpy(out, handle, HANDLE_BYTES);
	rm_end(&r);
	if (result == CUDA_SUCCESS && wants_fd) {
		int fd = can ? receive_descriptor(pair[0]) : -1;
		if (!can)
			result = no_way(call_descs[call].name);
		else if (fd < 0)
			result = CUDA_ERROR_OPERATING_SYSTEM;
		else
			memcpy(out, &fd, sizeof(fd));
	}
	if (can)
		close(pair[0]);
	return result;
}

static CUresult
import(enum cuda_call_id call, uint64_t *object, void *handle, CUmemAllocationHandleType type, uint64_t flags)
{
	bool is_fd = type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	int fd = (int)(intptr_t)handle;
	struct rm_request r;
	struct fw_cursor in;
	uint64_t tag = 0;

	if (is_fd && fcntl(fd, F_GETFD) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	if (is_fd && !wire_can_share(rm_link()))
		return no_way(call_descs[call].name);
	if (is_fd) {
		tag = next_tag();
		if (!wire_give(rm_link(), fd, tag))
			return wire_alive(rm_link()) ? CUDA_ERROR_OPERATING_SYSTEM : rm_lost();
	}
	rm_begin(&r, (uint16_t)call, 32 + HANDLE_BYTES);
	call_put_u64(&r.out, (uint64_t)type);
	call_put_u64(&r.out, flags);
	call_put_u64(&r.out, tag);
	if (type == CU_MEM_HANDLE_TYPE_FABRIC && handle)
		call_put_array(&r.out, handle, HANDLE_BYTES, 1);
	else
		call_put_array(&r.out, NULL, 0, 1);
	CUresult result = rm_ask(&r, &in);
	*object = call_get_u64(&in);
	rm_end(&r);
	return result;
}

CUresult
rm_cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType handleType,
                                unsigned long long flags)
{
	return export(CALL_cuMemExportToShareableHandle, shareableHandle, handle, handleType, flags);
}

CUresult
rm_cuMemPoolExportToShareableHandle(void *handle_out, CUmemoryPool pool, CUmemAllocationHandleType handleType, unsigned long long flags)
{
	return export(CALL_cuMemPoolExportToShareableHandle, handle_out, (uint64_t)(uintptr_t)pool, handleType, flags);
}

CUresult
rm_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle, CUmemAllocationHandleType shHandleType)
{
	uint64_t object = 0;
	CUresult result = import(CALL_cuMemImportFromShareableHandle, &object, osHandle, shHandleType, 0);

	if (result == CUDA_SUCCESS)
		*handle = object;
	return result;
}

CUresult
rm_cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle, CUmemAllocationHandleType handleType, unsigned long long flags)
{
	uint64_t object = 0;
	CUresult result = import(CALL_cuMemPoolImportFromShareableHandle, &object, handle, handleType, flags);

	if (result == CUDA_SUCCESS)
		*pool_out = (CUmemoryPool)(uintptr_t)object;
	return result;
}
