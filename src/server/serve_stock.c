/*
 * The worker's half of src/client/remote_stock.c: streams and events by the batch.
 */
#include <string.h>

#include "server/server.h"

static CUresult
make_one(struct sv_call *call, const struct session_stock *stock, uint64_t *handle)
{
	CUevent event = NULL;
	CUstream stream = NULL;
	CUresult result;

	if (stock->kind == SESSION_STOCK_EVENT)
		result = call->ops->cuEventCreate(&event, stock->flags);
	else if (stock->kind == SESSION_STOCK_STREAM)
		result = call->ops->cuStreamCreate(&stream, stock->flags);
	else
		result = call->ops->cuStreamCreateWithPriority(&stream, stock->flags, stock->priority);
	*handle = event ? (uint64_t)(uintptr_t)event : (uint64_t)(uintptr_t)stream;
	return result;
}

bool
sv_serve_stock(struct sv_call *call, CUresult *result)
{
	uint64_t handles[SESSION_STOCK_MAX], made = 0;
	struct session_stock stock;
	const void *bytes = call_get(&call->in, sizeof(stock));

	if (!bytes)
		return false;
	memcpy(&stock, bytes, sizeof(stock));
	if (stock.kind >= SESSION_STOCK_KINDS || !stock.count || stock.count > SESSION_STOCK_MAX)
		return false;
	for (*result = CUDA_SUCCESS; made < stock.count && *result == CUDA_SUCCESS;) {
		if (!sv_handle_room(stock.kind == SESSION_STOCK_EVENT ? "cuEventCreate" : "cuStreamCreate", made == 0))
			*result = CUDA_ERROR_OUT_OF_MEMORY;
		else
			*result = make_one(call, &stock, &handles[made]);
		if (*result == CUDA_SUCCESS) {
			sv_handle_made();
			made++;
		}
	}
	if (made)
		*result = CUDA_SUCCESS; /* who lacks one more asks for it */
	call_put_array(&call->out, handles, made, sizeof(handles[0]));
	return true;
}
