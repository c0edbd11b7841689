/*
 * cuGetProcAddress: from a name without suffix and the ABI version of the wanted prototype to a function.
 *
 * The map comes from the table, sorted by name, then plain before per-thread entries, then ABI version. The entry with the
 * greatest version that is not above the asked one wins; a name without per-thread entries answers with its plain ones.
 */
#include "client.h"

#include <string.h>

static const struct proc {
	const char *base;
	int per_thread, abi;
	void *address;
} procs[] = {
#include "client_procs.inc"
};
#define PROC_COUNT (sizeof(procs) / sizeof(procs[0]))

/* Index of the first row that is not below (base, per_thread). */
static size_t
lower_bound(const char *base, int per_thread)
{
	size_t low = 0, high = PROC_COUNT;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strcmp(procs[middle].base, base);
		if (order < 0 || (order == 0 && procs[middle].per_thread < per_thread))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static CUdriverProcAddressQueryResult
find(const char *base, unsigned version, bool per_thread, void **address)
{
	size_t plain = lower_bound(base, 0), threaded = lower_bound(base, 1), end = lower_bound(base, 2);
	size_t first = plain, last = threaded;

	*address = NULL;
	if (plain == end)
		return CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	if (per_thread && threaded < end) {
		first = threaded;
		last = end;
	}
	for (size_t i = first; i < last && (unsigned)procs[i].abi <= version; i++)
		*address = procs[i].address;
	return *address ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
}

/* The answer of a real driver to both: success for any name, so that the status or the NULL tells. */
CUresult
cl_cuGetProcAddress_v2(const char *symbol, void **pfn, int version, uint64_t flags, CUdriverProcAddressQueryResult *status)
{
	const uint64_t known = CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;

	if (!symbol || (flags & ~known))
		return CUDA_ERROR_INVALID_VALUE;
	CUdriverProcAddressQueryResult found =
		find(symbol, (unsigned)version, flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, pfn);
	if (found != CU_GET_PROC_ADDRESS_SUCCESS)
		fw_debug("client", "cuGetProcAddress %.64s version %d: %s", symbol, version,
		         found == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND ? "no such name" : "no version that old");
	if (status)
		*status = found;
	return CUDA_SUCCESS;
}

/* The first form has no status: it says in its result what was not found. */
CUresult
cl_cuGetProcAddress(const char *symbol, void **pfn, int version, uint64_t flags)
{
	CUresult result = cl_cuGetProcAddress_v2(symbol, pfn, version, flags, NULL);

	return result == CUDA_SUCCESS && !*pfn ? CUDA_ERROR_NOT_FOUND : result;
}
