/*
 * Managed memory: one memory for host and device, so nothing migrates. Advice and prefetches are remembered a page at a time, because
 * programs ask for them again; they change nothing else.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096u

enum { NOWHERE, ON_DEVICE, ON_HOST, ON_NUMA }; /* a location, two bits */

struct page {
	uint8_t read_mostly : 1, by_device : 1, by_host : 1;
	uint8_t preferred : 2, prefetched : 2;
};

struct sw_advice { /* of one allocation */
	size_t count;
	struct page pages[];
};

void
sw_advice_free(struct sw_advice *advice)
{
	free(advice);
}

/* ---- ranges ------------------------------------------------------------------------------------------------------------ */

struct pages {
	struct sw_alloc *alloc;
	size_t first, last; /* inclusive */
};

/* The managed pages that a range touches. */
static bool
pages_of(CUdeviceptr address, size_t size, struct pages *out)
{
	struct sw_alloc *alloc = sw_alloc_find(address);

	if (!alloc || alloc->kind != SW_MEM_MANAGED || !size || size > alloc->size - (address - alloc->address))
		return false;
	out->alloc = alloc;
	out->first = (address - alloc->address) / PAGE;
	out->last = (address - alloc->address + size - 1) / PAGE;
	return true;
}

static pthread_mutex_t advice_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all advice */

/* Lock held. NULL: out of memory. */
static struct page *
pages_for_change(const struct pages *range)
{
	struct sw_alloc *alloc = range->alloc;

	if (!alloc->advice) {
		size_t count = (size_t)((alloc->size + PAGE - 1) / PAGE);
		alloc->advice = calloc(1, sizeof(*alloc->advice) + count * sizeof(struct page));
		if (!alloc->advice)
			return NULL;
		alloc->advice->count = count;
	}
	return alloc->advice->pages;
}

/* A location as two bits; -1 when it is none. */
static int
place_of(CUmemLocation location)
{
	switch (location.type) {
	case CU_MEM_LOCATION_TYPE_DEVICE:
		return sw_device_valid(location.id) ? ON_DEVICE : -1;
	case CU_MEM_LOCATION_TYPE_HOST:
		return ON_HOST;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA:
		return location.id == 0 ? ON_NUMA : -1;
	case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
		return ON_NUMA;
	default:
		return -1;
	}
}

static CUmemLocation
location_of(CUdevice device)
{
	CUmemLocationType type = device == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE;

	return (CUmemLocation){ .type = type, .id = device == CU_DEVICE_CPU ? 0 : device };
}

/* ---- calls ---------------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned flags)
{
	struct sw_alloc *alloc;
	SW_CTX(ctx);
	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = sw_alloc_new(ctx, bytesize, 256, SW_MEM_MANAGED, false, &alloc);
	if (result != CUDA_SUCCESS)
		return result;
	alloc->flags = flags;
	*dptr = alloc->address;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
	struct pages range;
	SW_CTX(ctx);
	if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY || !pages_of(devPtr, count, &range))
		return CUDA_ERROR_INVALID_VALUE;
	bool located = advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION || advice >= CU_MEM_ADVISE_SET_ACCESSED_BY;
	int place = located ? place_of(location) : NOWHERE;
	if (place < 0)
		return location.type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	if (advice >= CU_MEM_ADVISE_SET_ACCESSED_BY && place == ON_NUMA)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&advice_lock);
	struct page *pages = pages_for_change(&range);
	for (size_t i = range.first; pages && i <= range.last; i++) {
		struct page *page = &pages[i];
		bool set = advice == CU_MEM_ADVISE_SET_ACCESSED_BY;
		switch (advice) {
		case CU_MEM_ADVISE_SET_READ_MOSTLY: page->read_mostly = 1; break;
		case CU_MEM_ADVISE_UNSET_READ_MOSTLY: page->read_mostly = 0; break;
		case CU_MEM_ADVISE_SET_PREFERRED_LOCATION: page->preferred = (uint8_t)place & 3; break;
		case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION: page->preferred = NOWHERE; break;
		default:
			if (place == ON_DEVICE)
				page->by_device = set;
			else
				page->by_host = set;
		}
	}
	pthread_mutex_unlock(&advice_lock);
	return pages ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult
sw_cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
	return sw_cuMemAdvise_v2(devPtr, count, advice, location_of(device));
}

static CUresult
prefetch(const struct pages *range, int place)
{
	pthread_mutex_lock(&advice_lock);
	struct page *pages = pages_for_change(range);
	for (size_t i = range->first; pages && i <= range->last; i++)
		pages[i].prefetched = (uint8_t)place & 3;
	pthread_mutex_unlock(&advice_lock);
	return pages ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* The stream of a call that only has to take its place in it. */
static CUresult
take_place(CUstream handle)
{
	struct sw_stream *stream = NULL;
	SW_CTX(ctx);
	CUresult result = sw_stream_get(ctx, handle, &stream);
	if (result != CUDA_SUCCESS)
		return result;
	if (stream->capture)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	return sw_submit(stream, &(struct sw_op){ .kind = SW_OP_EMPTY });
}

CUresult
sw_cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned flags, CUstream hStream)
{
	struct pages range;
	SW_CTX(ctx);
	int place = place_of(location);
	if (flags || !pages_of(devPtr, count, &range))
		return CUDA_ERROR_INVALID_VALUE;
	if (place < 0)
		return location.type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	CUresult result = take_place(hStream);
	return result == CUDA_SUCCESS ? prefetch(&range, place) : result;
}

CUresult
sw_cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
	return sw_cuMemPrefetchAsync_v2(devPtr, count, location_of(dstDevice), 0, hStream);
}

/* Checks the lists that the batch calls share. `locations` NULL: none are given. */
static CUresult
check_batch(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *locations, size_t *indices, size_t locations_count,
            unsigned long long flags, bool located)
{
	struct pages range;

	if (!dptrs || !sizes || !count || flags)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++)
		if (!pages_of(dptrs[i], sizes[i], &range))
			return CUDA_ERROR_INVALID_VALUE;
	if (!located)
		return CUDA_SUCCESS;
	if (!locations || !indices || !locations_count || locations_count > count || indices[0] != 0)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < locations_count; i++)
		if (place_of(locations[i]) < 0 || indices[i] >= count || (i && indices[i] <= indices[i - 1]))
			return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

static CUresult
prefetch_batch(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *locations, size_t *indices, size_t locations_count,
               unsigned long long flags, CUstream hStream)
{
	struct pages range;
	SW_CTX(ctx);
	CUresult result = check_batch(dptrs, sizes, count, locations, indices, locations_count, flags, true);
	if (result == CUDA_SUCCESS)
		result = take_place(hStream);
	for (size_t i = 0, at = 0; i < count && result == CUDA_SUCCESS; i++) {
		if (at + 1 < locations_count && indices[at + 1] == i)
			at++;
		if (pages_of(dptrs[i], sizes[i], &range))
			result = prefetch(&range, place_of(locations[at]));
	}
	return result;
}

CUresult
sw_cuMemPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,
                           size_t numPrefetchLocs, unsigned long long flags, CUstream hStream)
{
	return prefetch_batch(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, hStream);
}

CUresult
sw_cuMemDiscardBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, unsigned long long flags, CUstream hStream)
{
	SW_CTX(ctx);
	/* What is discarded may hold anything, also what it held before. */
	CUresult result = check_batch(dptrs, sizes, count, NULL, NULL, 0, flags, false);
	return result == CUDA_SUCCESS ? take_place(hStream) : result;
}

CUresult
sw_cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs,
                                     size_t *prefetchLocIdxs, size_t numPrefetchLocs, unsigned long long flags, CUstream hStream)
{
	return prefetch_batch(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, hStream);
}

CUresult
sw_cuStreamAttachMemAsync(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned flags)
{
	SW_CTX(ctx);
	struct sw_alloc *alloc = sw_alloc_find(dptr);
	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags == CU_MEM_ATTACH_SINGLE && (!hStream || hStream == CU_STREAM_LEGACY || hStream == CU_STREAM_PER_THREAD))
		return CUDA_ERROR_INVALID_VALUE;
	if (!alloc || alloc->kind != SW_MEM_MANAGED || alloc->address != dptr || (length && length != alloc->size))
		return CUDA_ERROR_INVALID_VALUE;
	return take_place(hStream); /* with concurrent managed access, attachment restricts nothing */
}

/* ---- questions -------------------------------------------------------------------------------------------------------------- */

/* The location that all pages of the range agree on; NOWHERE if they do not. */
static int
common_place(const struct pages *range, bool preferred)
{
	const struct sw_advice *advice = range->alloc->advice;
	int place = NOWHERE;

	for (size_t i = range->first; advice && i <= range->last; i++) {
		int here = preferred ? advice->pages[i].preferred : advice->pages[i].prefetched;
		if (i > range->first && here != place)
			return NOWHERE;
		place = here;
	}
	return place;
}

static void
accessed_by(const struct pages *range, int32_t *out, size_t count)
{
	const struct sw_advice *advice = range->alloc->advice;
	bool device = advice != NULL, host = advice != NULL;
	size_t used = 0;

	for (size_t i = range->first; advice && i <= range->last; i++) {
		device &= advice->pages[i].by_device;
		host &= advice->pages[i].by_host;
	}
	if (device && used < count)
		out[used++] = 0;
	if (host && used < count)
		out[used++] = CU_DEVICE_CPU;
	while (used < count)
		out[used++] = CU_DEVICE_INVALID;
}

static int32_t
as_device(int place)
{
	return place == ON_DEVICE ? 0 : place == NOWHERE ? CU_DEVICE_INVALID : CU_DEVICE_CPU;
}

static int32_t
as_type(int place)
{
	static const CUmemLocationType types[] = { CU_MEM_LOCATION_TYPE_INVALID, CU_MEM_LOCATION_TYPE_DEVICE,
		CU_MEM_LOCATION_TYPE_HOST, CU_MEM_LOCATION_TYPE_HOST_NUMA };

	return (int32_t)types[place];
}

static CUresult
range_attribute(void *data, size_t size, CUmem_range_attribute attribute, const struct pages *range)
{
	int32_t value = 0;

	if (!data || size < 4 || size % 4 || (attribute != CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY && size != 4))
		return CUDA_ERROR_INVALID_VALUE;
	switch (attribute) {
	case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
		value = range->alloc->advice != NULL;
		for (size_t i = range->first; value && i <= range->last; i++)
			value = range->alloc->advice->pages[i].read_mostly;
		break;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION: value = as_device(common_place(range, true)); break;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION: value = as_device(common_place(range, false)); break;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE: value = as_type(common_place(range, true)); break;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE: value = as_type(common_place(range, false)); break;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID: break; /* device 0, node 0 */
	case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
		accessed_by(range, data, size / 4);
		return CUDA_SUCCESS;
	default:
		return CUDA_ERROR_INVALID_VALUE;
	}
	memcpy(data, &value, sizeof(value));
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemRangeGetAttribute(void *data, size_t dataSize, CUmem_range_attribute attribute, CUdeviceptr devPtr, size_t count)
{
	struct pages range;
	SW_CTX(ctx);
	if (!pages_of(devPtr, count, &range))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&advice_lock);
	CUresult result = range_attribute(data, dataSize, attribute, &range);
	pthread_mutex_unlock(&advice_lock);
	return result;
}

CUresult
sw_cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes, size_t numAttributes,
                           CUdeviceptr devPtr, size_t count)
{
	CUresult result = data && dataSizes && attributes && numAttributes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

	for (size_t i = 0; i < numAttributes && result == CUDA_SUCCESS; i++)
		result = sw_cuMemRangeGetAttribute(data[i], dataSizes[i], attributes[i], devPtr, count);
	return result;
}
