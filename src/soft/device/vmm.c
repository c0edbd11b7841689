/*
 * Virtual memory management: reserved addresses, memory objects, mappings between them. A memory object is a memfd, so that it can be
 * mapped twice and given to another process. What kernels may do with a mapping is what cuMemSetAccess allowed.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct memory { /* CUmemGenericAllocationHandle */
	CUmemGenericAllocationHandle handle; /* 0: all references by handle are gone, mappings still hold it */
	uint32_t references;                 /* by handle */
	uint32_t mappings;
	uint64_t size, id;
	int fd;
	bool charged;
	CUmemAllocationProp prop;
};

struct reservation {
	uint64_t base, size;
};

struct mapping {
	uint64_t base, size, offset;
	unsigned access;
	struct memory *memory;
};

static pthread_mutex_t vmm_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static struct reservation *reservations; /* sorted */
static size_t reservation_count, reservation_room;
static struct mapping *mappings;         /* sorted */
static size_t mapping_count, mapping_room;
static uint64_t next_id = (uint64_t)1 << 40;

/* ---- sorted tables -------------------------------------------------------------------------------------------------- */

/* The first mapping that ends behind the address. */
static size_t
mapping_at(uint64_t address)
{
	size_t low = 0, high = mapping_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (mappings[middle].base + mappings[middle].size <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct mapping *
mapping_of(uint64_t address)
{
	size_t i = mapping_at(address);

	return i < mapping_count && mappings[i].base <= address ? &mappings[i] : NULL;
}

static const struct reservation *
reservation_of(uint64_t address)
{
	for (size_t i = 0; i < reservation_count; i++)
		if (address - reservations[i].base < reservations[i].size)
			return &reservations[i];
	return NULL;
}

/* Room for one more element at `at`; NULL when out of memory. */
static void *
table_insert(void **table, size_t *count, size_t *room, size_t size, size_t at)
{
	if (*count == *room) {
		size_t more = *room ? *room * 2 : 16;
		void *grown = realloc(*table, more * size);
		if (!grown)
			return NULL;
		*table = grown;
		*room = more;
	}
	char *element = (char *)*table + at * size;
	memmove(element + size, element, (*count - at) * size);
	(*count)++;
	return element;
}

/* Is [address, address + size) mapped without a gap? */
static bool
is_covered(uint64_t address, uint64_t size)
{
	uint64_t end = address + size;

	for (size_t i = mapping_at(address); i < mapping_count && mappings[i].base <= address; i++) {
		address = mappings[i].base + mappings[i].size;
		if (address >= end)
			return true;
	}
	return false;
}

bool
sw_mapping_find(uint64_t address, struct sw_mapping *out)
{
	pthread_mutex_lock(&vmm_lock);
	const struct reservation *range = reservation_of(address);
	const struct mapping *mapping = range ? mapping_of(address) : NULL;
	if (range) {
		*out = (struct sw_mapping){ .range_base = range->base, .range_size = range->size };
		if (mapping) {
			out->base = mapping->base;
			out->size = mapping->size;
			out->access = mapping->access;
			out->handle_types = mapping->memory->prop.requestedHandleTypes;
			out->id = mapping->memory->id;
			out->host = mapping->memory->prop.location.type != CU_MEM_LOCATION_TYPE_DEVICE;
		}
	}
	pthread_mutex_unlock(&vmm_lock);
	return range != NULL;
}

bool
sw_mapping_covers(uint64_t address, uint64_t size)
{
	pthread_mutex_lock(&vmm_lock);
	bool covered = is_covered(address, size);
	for (size_t i = mapping_at(address); covered && i < mapping_count && mappings[i].base < address + size; i++)
		covered = mappings[i].access != SW_ACCESS_NONE;
	pthread_mutex_unlock(&vmm_lock);
	return covered;
}

void
sw_vmm_forget(void)
{
	vmm_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	reservations = NULL;
	mappings = NULL;
	reservation_count = reservation_room = mapping_count = mapping_room = 0;
}

/* ---- addresses -------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr, unsigned long long flags)
{
	if (!size || size % SW_GRANULE || (alignment & (alignment - 1)) || flags)
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t base = sw_range_reserve(size, alignment, addr);
	if (!base)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&vmm_lock);
	struct reservation *range = table_insert((void **)&reservations, &reservation_count, &reservation_room, sizeof(*range),
	                                         reservation_count);
	if (range)
		*range = (struct reservation){ base, size };
	pthread_mutex_unlock(&vmm_lock);
	if (!range) {
		sw_range_release(base, size);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*ptr = base;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&vmm_lock);
	size_t first = mapping_at(ptr);
	bool mapped = first < mapping_count && mappings[first].base < ptr + size;
	for (size_t i = 0; i < reservation_count && !mapped; i++) {
		if (reservations[i].base != ptr || reservations[i].size != size)
			continue;
		reservations[i] = reservations[--reservation_count];
		sw_range_release(ptr, size);
		result = CUDA_SUCCESS;
		break;
	}
	pthread_mutex_unlock(&vmm_lock);
	return result;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

static CUresult
prop_check(const CUmemAllocationProp *prop)
{
	if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE && !sw_device_valid(prop->location.id))
		return CUDA_ERROR_INVALID_DEVICE;
	if (prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE && prop->location.type != CU_MEM_LOCATION_TYPE_HOST)
		return prop->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
		       prop->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT ? CUDA_ERROR_NOT_SUPPORTED
		                                                                     : CUDA_ERROR_INVALID_VALUE;
	if (prop->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	return CUDA_SUCCESS; /* compression and RDMA are requests that need not be met */
}

/* The last reference or mapping is gone. Lock held. */
static void
memory_free(struct memory *memory)
{
	if (memory->charged)
		sw_space_uncharge(memory->size);
	close(memory->fd);
	free(memory);
}

static CUresult
memory_new(int fd, uint64_t size, const CUmemAllocationProp *prop, bool charged, CUmemGenericAllocationHandle *out)
{
	struct memory *memory = calloc(1, sizeof(*memory));
	void *handle = memory ? fw_handle_new(SW_KIND_MEMORY, memory) : NULL;

	if (!handle) {
		free(memory);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*memory = (struct memory){ .handle = (CUmemGenericAllocationHandle)(uintptr_t)handle, .references = 1, .size = size,
		.fd = fd, .charged = charged, .prop = *prop };
	pthread_mutex_lock(&vmm_lock);
	memory->id = ++next_id;
	pthread_mutex_unlock(&vmm_lock);
	*out = memory->handle;
	return CUDA_SUCCESS;
}

static struct memory *
memory_get(CUmemGenericAllocationHandle handle)
{
	return fw_handle_get((void *)(uintptr_t)handle, SW_KIND_MEMORY);
}

CUresult
sw_cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags)
{
	CUresult result = prop_check(prop);

	if (result != CUDA_SUCCESS)
		return result;
	if (!size || size % SW_GRANULE || flags)
		return CUDA_ERROR_INVALID_VALUE;
	bool charged = prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
	if (charged && !sw_space_charge(size) && !(sw_pool_release_all() && sw_space_charge(size)))
		return CUDA_ERROR_OUT_OF_MEMORY;
	int fd = memfd_create("farwarp", MFD_CLOEXEC);
	result = fd >= 0 && fw_file_resize(fd, size) == 0 ? memory_new(fd, size, prop, charged, handle) : CUDA_ERROR_OUT_OF_MEMORY;
	if (result != CUDA_SUCCESS) {
		if (fd >= 0)
			close(fd);
		if (charged)
			sw_space_uncharge(size);
	}
	return result;
}

CUresult
sw_cuMemRelease(CUmemGenericAllocationHandle handle)
{
	pthread_mutex_lock(&vmm_lock);
	struct memory *memory = memory_get(handle);
	if (memory && --memory->references == 0) {
		fw_handle_end((void *)(uintptr_t)handle, SW_KIND_MEMORY);
		memory->handle = 0;
		if (!memory->mappings)
			memory_free(memory);
	}
	pthread_mutex_unlock(&vmm_lock);
	return memory ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	pthread_mutex_lock(&vmm_lock);
	const struct mapping *mapping = mapping_of((uint64_t)(uintptr_t)addr);
	struct memory *memory = mapping ? mapping->memory : NULL;
	if (memory && !memory->handle) /* only mappings held it: it gets a new name */
		memory->handle = (CUmemGenericAllocationHandle)(uintptr_t)fw_handle_new(SW_KIND_MEMORY, memory);
	if (memory && memory->handle) {
		memory->references++;
		*handle = memory->handle;
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&vmm_lock);
	return result;
}

CUresult
sw_cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop, CUmemAllocationGranularity_flags option)
{
	CUresult result = prop_check(prop);

	if (result != CUDA_SUCCESS)
		return result;
	if (option != CU_MEM_ALLOC_GRANULARITY_MINIMUM && option != CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
		return CUDA_ERROR_INVALID_VALUE;
	*granularity = SW_GRANULE;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop, CUmemGenericAllocationHandle handle)
{
	struct memory *memory = memory_get(handle);

	if (!memory)
		return CUDA_ERROR_INVALID_VALUE;
	*prop = memory->prop;
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType handleType,
                                unsigned long long flags)
{
	struct memory *memory = memory_get(handle);

	if (!memory || flags || !(memory->prop.requestedHandleTypes & handleType))
		return CUDA_ERROR_INVALID_VALUE;
	if (handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	int fd = fcntl(memory->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return CUDA_ERROR_OPERATING_SYSTEM;
	memcpy(shareableHandle, &fd, sizeof(fd));
	return CUDA_SUCCESS;
}

CUresult
sw_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle, CUmemAllocationHandleType shHandleType)
{
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
	struct stat status;

	if (shHandleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_NOT_SUPPORTED;
	/* The descriptor itself, passed as a pointer value. It stays the caller's. */
	int given = (int)(intptr_t)osHandle;
	if (fstat(given, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size % (off_t)SW_GRANULE ||
	    fcntl(given, F_GET_SEALS) < 0) /* only a memfd has seals */
		return CUDA_ERROR_INVALID_VALUE;
	int fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return CUDA_ERROR_OPERATING_SYSTEM;
	/* Not counted again here: the exporting process has counted it. */
	CUresult result = memory_new(fd, (uint64_t)status.st_size, &prop, false, handle);
	if (result != CUDA_SUCCESS)
		close(fd);
	return result;
}

/* ---- mappings ---------------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	if (!size || size % SW_GRANULE || ptr % SW_GRANULE || offset % SW_GRANULE || flags)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&vmm_lock);
	struct memory *memory = memory_get(handle);
	const struct reservation *range = reservation_of(ptr);
	size_t at = mapping_at(ptr);
	bool fits = memory && range && size <= range->size - (ptr - range->base) && offset <= memory->size &&
	            size <= memory->size - offset && !(at < mapping_count && mappings[at].base < ptr + size);
	if (fits) {
		struct mapping *mapping = table_insert((void **)&mappings, &mapping_count, &mapping_room, sizeof(*mapping), at);
		if (!mapping) {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		} else if (sw_range_map(ptr, size, memory->fd, offset, SW_ACCESS_NONE) != 0) {
			memmove(mapping, mapping + 1, (--mapping_count - at) * sizeof(*mapping));
			result = CUDA_ERROR_OUT_OF_MEMORY;
		} else {
			*mapping = (struct mapping){ .base = ptr, .size = size, .offset = offset, .memory = memory };
			memory->mappings++;
			result = CUDA_SUCCESS;
		}
	}
	pthread_mutex_unlock(&vmm_lock);
	return result;
}

CUresult
sw_cuMemUnmap(CUdeviceptr ptr, size_t size)
{
	struct sw_context *ctx = NULL;

	/* Kernels in flight may still use it, and would fault where a device would not yet have let go. */
	if (sw_context_current(&ctx) == CUDA_SUCCESS)
		sw_queue_drain(ctx);
	pthread_mutex_lock(&vmm_lock);
	size_t first = mapping_at(ptr), last = first;
	uint64_t end = ptr + size;
	bool whole = size && is_covered(ptr, size) && mappings[first].base == ptr;
	while (whole && last < mapping_count && mappings[last].base < end)
		last++;
	whole = whole && mappings[last - 1].base + mappings[last - 1].size == end;
	if (whole) {
		sw_range_unmap(ptr, size);
		for (size_t i = first; i < last; i++) {
			struct memory *memory = mappings[i].memory;
			if (--memory->mappings == 0 && !memory->handle)
				memory_free(memory);
		}
		memmove(&mappings[first], &mappings[last], (mapping_count - last) * sizeof(*mappings));
		mapping_count -= last - first;
	}
	pthread_mutex_unlock(&vmm_lock);
	return whole ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
	unsigned access = SW_ACCESS_NONE;
	bool device = false;

	if (!size || size % SW_GRANULE || ptr % SW_GRANULE || !desc || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		unsigned wanted = desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? SW_ACCESS_READ | SW_ACCESS_WRITE
		                  : desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ    ? SW_ACCESS_READ
		                                                                      : SW_ACCESS_NONE;
		if (!wanted && desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE)
			return CUDA_ERROR_INVALID_VALUE;
		if (desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
			if (!sw_device_valid(desc[i].location.id))
				return CUDA_ERROR_INVALID_DEVICE;
			access = wanted;
			device = true;
		} else if (desc[i].location.type != CU_MEM_LOCATION_TYPE_HOST) {
			return CUDA_ERROR_INVALID_VALUE;
		}
	}
	pthread_mutex_lock(&vmm_lock);
	bool covered = is_covered(ptr, size);
	if (covered && device) {
		/* Whole mappings only, as far as bookkeeping goes; granules are exact. */
		for (size_t i = mapping_at(ptr); i < mapping_count && mappings[i].base < ptr + size; i++)
			mappings[i].access = access;
		sw_range_access(ptr, size, access);
	}
	pthread_mutex_unlock(&vmm_lock);
	return covered ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;

	if (!location)
		return CUDA_ERROR_INVALID_VALUE;
	if (location->type == CU_MEM_LOCATION_TYPE_DEVICE && !sw_device_valid(location->id))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&vmm_lock);
	const struct mapping *mapping = mapping_of(ptr);
	if (mapping && location->type == CU_MEM_LOCATION_TYPE_DEVICE) {
		*flags = mapping->access & SW_ACCESS_WRITE ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
		         : mapping->access & SW_ACCESS_READ ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_NONE;
		result = CUDA_SUCCESS;
	} else if (mapping && location->type == CU_MEM_LOCATION_TYPE_HOST) {
		bool host = mapping->memory->prop.location.type != CU_MEM_LOCATION_TYPE_DEVICE;
		*flags = host ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
		result = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&vmm_lock);
	return result;
}
