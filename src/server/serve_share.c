/*
 * The worker's half of src/client/remote_share.c: file descriptors that stand for allocations and pools. The client sends one ahead of the
 * call: what is to be imported, or a socket into which the exported one goes.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/server.h"

#define HANDLE_BYTES 64

static bool
send_descriptor(int socket, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

static bool
export(struct sv_call *call, CUresult *result)
{
	uint64_t object = call_get_u64(&call->in);
	CUmemAllocationHandleType type = (CUmemAllocationHandleType)call_get_u64(&call->in);
	uint64_t flags = call_get_u64(&call->in), tag = call_get_u64(&call->in);
	union {
		int fd;
		uint8_t bytes[HANDLE_BYTES];
	} handle = { .bytes = { 0 } };

	if (call->in.bad)
		return false;
	int socket = tag ? sv_descriptor_take(call, tag) : -1;
	*result = call->id == CALL_cuMemExportToShareableHandle
		? call->ops->cuMemExportToShareableHandle(&handle, object, type, flags)
		: call->ops->cuMemPoolExportToShareableHandle(&handle, (CUmemoryPool)(uintptr_t)object, type, flags);
	if (*result == CUDA_SUCCESS && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
		if (socket >= 0 && !send_descriptor(socket, handle.fd))
			*result = CUDA_ERROR_OPERATING_SYSTEM;
		close(handle.fd);
	} else if (*result == CUDA_SUCCESS) {
		call_put(&call->out, &handle, sizeof(handle));
	}
	if (socket >= 0)
		close(socket);
	return true;
}

static bool
import(struct sv_call *call, CUresult *result)
{
	CUmemAllocationHandleType type = (CUmemAllocationHandleType)call_get_u64(&call->in);
	uint64_t flags = call_get_u64(&call->in), tag = call_get_u64(&call->in), size, object = 0;
	const void *bytes = call_get_array(&call->in, 1, &size);
	bool is_fd = type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	uint8_t copy[HANDLE_BYTES] = { 0 };

	if (call->in.bad || size > HANDLE_BYTES)
		return false;
	if (size)
		memcpy(copy, bytes, size);
	int fd = tag ? sv_descriptor_take(call, tag) : -1;
	void *handle = is_fd ? (void *)(intptr_t)fd : copy;
	if (is_fd && fd < 0) {
		*result = CUDA_ERROR_INVALID_VALUE;
	} else if (call->id == CALL_cuMemImportFromShareableHandle) {
		CUmemGenericAllocationHandle made = 0;
		*result = call->ops->cuMemImportFromShareableHandle(&made, handle, type);
		object = made;
	} else {
		CUmemoryPool made = NULL;
		*result = call->ops->cuMemPoolImportFromShareableHandle(&made, handle, type, flags);
		object = (uint64_t)(uintptr_t)made;
	}
	if (fd >= 0)
		close(fd);
	call_put_u64(&call->out, object);
	return true;
}

bool
sv_cuMemExportToShareableHandle(struct sv_call *call, CUresult *result)
{
	return export(call, result);
}

bool
sv_cuMemPoolExportToShareableHandle(struct sv_call *call, CUresult *result)
{
	return export(call, result);
}

bool
sv_cuMemImportFromShareableHandle(struct sv_call *call, CUresult *result)
{
	return import(call, result);
}

bool
sv_cuMemPoolImportFromShareableHandle(struct sv_call *call, CUresult *result)
{
	return import(call, result);
}
