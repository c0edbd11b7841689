/*
 * The worker's half of src/client/remote_managed.c and remote_pages.c: where the device's memory lies, the file that managed memory shares
 * with a client on this host, and pages that a client elsewhere fetches and brings back.
 *
 * Pages are read and written through the kernel (process_vm_readv of this process): an address where nothing is answers an error
 * instead of ending the worker. All of the software GPU's range may be touched so: its kernels, which are the client's, reach it as well. Of a device
 * that chooses its own addresses, managed memory alone (managed.c).
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "server/server.h"
#include "soft/soft.h"

static struct session_space space; /* of the software GPU; size 0: another device */

/* ---- where it lies ------------------------------------------------------------------------------------------------- */

void
sv_space_choose(const struct session_space spaces[SESSION_SPACES], uint64_t *base, uint64_t *size)
{
	for (unsigned n = 0; n < SESSION_SPACES; n++) {
		if (spaces[n].size < (uint64_t)1 << 32 || spaces[n].size > (uint64_t)1 << 46 || spaces[n].base & 4095 || spaces[n].size & 4095)
			continue;
		void *hint = (void *)(uintptr_t)spaces[n].base;
		void *at = mmap(hint, spaces[n].size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		if (at != MAP_FAILED)
			munmap(at, spaces[n].size);
		if (at == hint) {
			*base = spaces[n].base;
			*size = spaces[n].size;
			return;
		}
	}
	fw_warn("worker", "no range of addresses is free here and in the client: it takes managed memory address by address");
}

void
sv_space_opened(struct session_space *told)
{
	sw_space_bounds(&space.base, &space.size);
	*told = space;
}

bool
sv_serve_managed_file(struct sv_call *call, CUresult *result)
{
	uint64_t tag = call_get_u64(&call->in), size = call_get_u64(&call->in);
	struct stat st;

	if (call->in.bad || !tag)
		return false;
	int fd = sv_descriptor_take(call, tag);
	bool fits = fd >= 0 && space.size && fstat(fd, &st) == 0 && st.st_size >= 0 && (uint64_t)st.st_size >= space.size;
	*result = fits && size >= space.size && sv_cannot_shrink(fd) ? sw_managed_file(fd) : CUDA_ERROR_INVALID_VALUE;
	if (fd >= 0)
		close(fd);
	return true;
}

/* ---- pages --------------------------------------------------------------------------------------------------------- */

/* Between this process and memory that the client also has, as pages: the software GPU's, host memory that it registered, managed memory. */
static bool
move(void *here, uint64_t there, uint64_t size, bool in)
{
	bool ours = there - space.base < space.size && size <= space.size - (there - space.base);

	return ours || sv_memory_covers(there, size) ? sv_memory_move(here, there, size, in) : sv_managed_move(here, there, size, in);
}

bool
sv_serve_pages_get(struct sv_call *call, CUresult *result)
{
	uint64_t address = call_get_u64(&call->in), size = call_get_u64(&call->in);

	if (call->in.bad || !call->wants_answer || !size || size > SESSION_BLOB_MAX || address > UINT64_MAX - size)
		return false;
	*result = CUDA_SUCCESS;
	for (uint64_t at = 0; at < size && *result == CUDA_SUCCESS;) {
		uint32_t part = size - at < SESSION_CHUNK ? (uint32_t)(size - at) : SESSION_CHUNK;
		void *room = sv_part_reserve(call, part);
		if (move(room, address + at, part, false))
			sv_part_send(call, room, part);
		else
			*result = CUDA_ERROR_INVALID_VALUE;
		at += part;
	}
	return true;
}

bool
sv_serve_pages_put(struct sv_call *call, CUresult *result)
{
	*result = CUDA_SUCCESS;
	while (call->in.at < call->in.size) { /* all runs, whatever becomes of one */
		uint64_t address = call_get_u64(&call->in), size = call_get_u64(&call->in);
		const void *bytes = size ? call_get(&call->in, size) : NULL;
		if (!bytes || address > UINT64_MAX - size)
			return false;
		if (!move((void *)(uintptr_t)bytes, address, size, true))
			*result = CUDA_ERROR_INVALID_VALUE;
	}
	return true;
}
