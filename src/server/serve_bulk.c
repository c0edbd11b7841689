/*
 * The worker's half of src/client/remote_bulk.c: large copies whose bytes come and go beside the records. The software GPU's memory is
 * this process's, so the socket reads and writes it; with a driver a piece is copied while the kernel receives or sends others.
 */
#include <string.h>

#include "base/thread.h"
#include "server/server.h"

/* A copy whose pieces several threads may move. */
struct copy {
	const struct cuda_ops *ops;
	struct fw_thread thread; /* of who serves the call */
	struct session_bulk bulk;
	int result;              /* atomic: the first failure of a piece */
};

static void
keep_result(struct copy *copy, CUresult result)
{
	int none = CUDA_SUCCESS;

	if (result != CUDA_SUCCESS)
		__atomic_compare_exchange_n(&copy->result, &none, (int)result, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static void
piece_in(void *user, size_t at, void *bytes, size_t size)
{
	struct copy *copy = user;
	CUstream stream = (CUstream)(uintptr_t)copy->bulk.stream;
	CUdeviceptr to = copy->bulk.address + at;

	if (__atomic_load_n(&copy->result, __ATOMIC_RELAXED) != CUDA_SUCCESS)
		return; /* what comes still has to be taken */
	fw_thread.ctx = copy->thread.ctx;
	fw_thread.per_thread_stream = copy->thread.per_thread_stream;
	keep_result(copy, copy->bulk.async ? copy->ops->cuMemcpyHtoDAsync_v2(to, bytes, size, stream) : copy->ops->cuMemcpyHtoD_v2(to, bytes, size));
}

static void
piece_out(void *user, size_t at, void *bytes, size_t size)
{
	struct copy *copy = user;
	CUstream stream = (CUstream)(uintptr_t)copy->bulk.stream;
	CUdeviceptr from = copy->bulk.address + at;

	fw_thread.ctx = copy->thread.ctx;
	fw_thread.per_thread_stream = copy->thread.per_thread_stream;
	if (__atomic_load_n(&copy->result, __ATOMIC_RELAXED) == CUDA_SUCCESS)
		keep_result(copy, copy->bulk.async ? copy->ops->cuMemcpyDtoHAsync_v2(bytes, from, size, stream)
			: copy->ops->cuMemcpyDtoH_v2(bytes, from, size));
	if (__atomic_load_n(&copy->result, __ATOMIC_RELAXED) != CUDA_SUCCESS)
		memset(bytes, 0, size); /* the client awaits so many bytes, and gets the error behind them */
}

static bool
begin(struct sv_call *call, struct copy *copy)
{
	const void *bytes = call_get(&call->in, sizeof(copy->bulk));

	if (!bytes || !call->wants_answer)
		return false;
	*copy = (struct copy){ .ops = call->ops, .result = CUDA_SUCCESS, .thread = fw_thread };
	memcpy(&copy->bulk, bytes, sizeof(copy->bulk));
	copy->result = (int)sv_may_touch(call, copy->bulk.address, copy->bulk.size); /* of a copy that is refused, no part is made */
	if (copy->bulk.async && sv_is_capturing(call, (CUstream)(uintptr_t)copy->bulk.stream))
		copy->result = CUDA_ERROR_NOT_SUPPORTED;
	return true;
}

/* Whether the ends of the range can be read, and all that the copy has to wait for has happened: then its bytes can travel. */
static CUresult
try_ends(struct sv_call *call, const struct copy *copy)
{
	CUstream stream = (CUstream)(uintptr_t)copy->bulk.stream;
	const uint64_t ends[2] = { copy->bulk.address, copy->bulk.address + copy->bulk.size - 1 };
	CUresult result = copy->bulk.size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	uint8_t byte;

	for (unsigned n = 0; n < 2 && result == CUDA_SUCCESS; n++)
		result = copy->bulk.async ? call->ops->cuMemcpyDtoHAsync_v2(&byte, ends[n], 1, stream) : call->ops->cuMemcpyDtoH_v2(&byte, ends[n], 1);
	return result;
}

bool
sv_serve_bulk_in(struct sv_call *call, CUresult *result)
{
	struct wire_link *link = call->channel->wire->link;
	struct copy copy;

	if (!begin(call, &copy))
		return false;
	void *direct = copy.result == CUDA_SUCCESS ? sv_device_bytes(copy.bulk.address, copy.bulk.size) : NULL;
	if (direct && (copy.result = (int)try_ends(call, &copy)) != CUDA_SUCCESS)
		direct = NULL;
	if (!wire_bulk_receive(link, copy.bulk.number, direct, copy.bulk.size, direct ? NULL : piece_in, &copy))
		return false;
	*result = (CUresult)copy.result;
	return true;
}

bool
sv_serve_bulk_out(struct sv_call *call, CUresult *result)
{
	struct wire_link *link = call->channel->wire->link;
	struct copy copy;
	uint64_t number;

	if (!begin(call, &copy))
		return false;
	*result = copy.result != CUDA_SUCCESS ? (CUresult)copy.result : try_ends(call, &copy);
	if (*result != CUDA_SUCCESS)
		return true;
	if (!wire_bulk_begin(link, &number))
		return false;
	void *part = sv_part_reserve(call, sizeof(number));
	memcpy(part, &number, sizeof(number));
	sv_part_send(call, part, sizeof(number));
	const void *direct = sv_device_bytes(copy.bulk.address, copy.bulk.size);
	if (!wire_bulk_send(link, direct, copy.bulk.size, direct ? NULL : piece_out, &copy))
		return false;
	*result = (CUresult)copy.result;
	return true;
}
