/*
 * The worker's half of src/client/remote_link.c: the linker. A state that a client names is looked up among those it was given.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "server/server.h"

#define WRAPPER_MAGIC 0x466243b1u

struct link {
	struct link *next;
	CUlinkState state;
	struct sv_jit options; /* the device writes into it until the state is destroyed */
};

static struct link *links; /* guarded by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* NULL: the client has no such state. */
static struct link *
get_link(struct sv_call *call, bool take)
{
	CUlinkState state = (CUlinkState)(uintptr_t)call_get_u64(&call->in);

	pthread_mutex_lock(&lock);
	struct link **at = &links, *link;
	while (*at && (*at)->state != state)
		at = &(*at)->next;
	link = *at;
	if (link && take)
		*at = link->next;
	pthread_mutex_unlock(&lock);
	return link;
}

static void
free_link(struct link *link)
{
	sv_jit_drop(&link->options);
	free(link);
}

bool
sv_cuLinkCreate_v2(struct sv_call *call, CUresult *result)
{
	struct link *link = calloc(1, sizeof(*link));

	if (!link) {
		*result = CUDA_ERROR_OUT_OF_MEMORY;
		return true;
	}
	if (!sv_jit_get(&call->in, &link->options)) {
		free_link(link);
		return false;
	}
	struct sv_jit *o = &link->options;
	*result = call->ops->cuLinkCreate_v2((unsigned)o->count, o->numbers, o->values, &link->state);
	call_put_u64(&call->out, (uint64_t)(uintptr_t)link->state);
	sv_jit_put(&call->out, o);
	if (*result != CUDA_SUCCESS) {
		free_link(link);
		return true;
	}
	pthread_mutex_lock(&lock);
	link->next = links;
	links = link;
	pthread_mutex_unlock(&lock);
	return true;
}

bool
sv_cuLinkAddData_v2(struct sv_call *call, CUresult *result)
{
	struct link *link = get_link(call, false);
	CUjitInputType type = (CUjitInputType)call_get_u64(&call->in);
	uint64_t size;
	const void *data = call_get_array(&call->in, 1, &size);
	const char *name = call_get_string(&call->in);
	struct sv_jit options = { 0 };
	uint32_t magic = 0;

	bool ok = !call->in.bad && sv_jit_get(&call->in, &options);
	if (ok && size >= sizeof(magic))
		memcpy(&magic, data, sizeof(magic));
	ok = ok && magic != WRAPPER_MAGIC; /* it would hold pointers, of another process */
	if (ok && !link)
		*result = CUDA_ERROR_INVALID_HANDLE;
	else if (ok)
		*result = call->ops->cuLinkAddData_v2(link->state, type, (void *)(uintptr_t)data, size, name, (unsigned)options.count, options.numbers,
		                                      options.values);
	if (ok && link) {
		sv_jit_put(&call->out, &link->options);
		sv_jit_put(&call->out, &options);
	}
	sv_jit_drop(&options);
	return ok;
}

bool
sv_cuLinkComplete(struct sv_call *call, CUresult *result)
{
	struct link *link = get_link(call, false);
	void *image = NULL;
	size_t size = 0;

	if (call->in.bad)
		return false;
	*result = link ? call->ops->cuLinkComplete(link->state, &image, &size) : CUDA_ERROR_INVALID_HANDLE;
	if (!link)
		return true;
	size_t room = sizeof(struct sv_jit) + link->options.log_size[0] + link->options.log_size[1] + size + 8192;
	uint8_t *answer = malloc(room);
	if (!answer) {
		*result = CUDA_ERROR_OUT_OF_MEMORY;
		return true;
	}
	struct call_writer out = { .data = answer, .size = room, .at = 8 };
	sv_jit_put(&out, &link->options);
	call_put_array(&out, image, *result == CUDA_SUCCESS ? size : 0, 1);
	sv_answer_with(call, answer, out.at);
	return true;
}

bool
sv_cuLinkDestroy(struct sv_call *call, CUresult *result)
{
	struct link *link = get_link(call, true);

	if (call->in.bad)
		return false;
	*result = link ? call->ops->cuLinkDestroy(link->state) : CUDA_ERROR_INVALID_HANDLE;
	if (link)
		free_link(link);
	return true;
}
