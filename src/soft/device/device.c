/*
 * The device's facts: what its compute capability fixes, what this machine gives, and the calls that ask for them. Opening and
 * closing it. Nothing is measured or made up: what a CPU does not have is answered with 0 or "not supported".
 */
#include "soft/device/device.h"
#include "soft/device/graph.h"
#include "soft/device/ops.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

struct sw_device sw_device;

static const struct sw_limits limits[] = {
	/* cc threads blocks  shared/SM   opt-in  reserved unit clusters */
	{  75, 1024, 16,  65536,  65536,    0, 256, 0,  0 },
	{  80, 2048, 32, 167936, 166912, 1024, 128, 0,  0 },
	{  86, 1536, 16, 102400, 101376, 1024, 128, 0,  0 },
	{  87, 1536, 16, 167936, 166912, 1024, 128, 0,  0 },
	{  88, 1536, 16, 102400, 101376, 1024, 128, 0,  0 },
	{  89, 1536, 24, 102400, 101376, 1024, 128, 0,  0 },
	{  90, 2048, 32, 233472, 232448, 1024, 128, 8, 16 },
	{ 100, 2048, 32, 233472, 232448, 1024, 128, 8, 16 },
	{ 103, 2048, 32, 233472, 232448, 1024, 128, 8, 16 },
	{ 110, 1536, 24, 233472, 232448, 1024, 128, 8, 16 },
	{ 120, 1536, 24, 102400, 101376, 1024, 128, 8,  8 },
	{ 121, 1536, 24, 102400, 101376, 1024, 128, 8,  8 },
};

/* ---- this machine ------------------------------------------------------------------------------------------------------ */

/* The first number in a small file, or `otherwise`. "max" is no number. */
static uint64_t
read_number(const char *path, uint64_t otherwise)
{
	unsigned long long value;
	FILE *file = fopen(path, "re");

	if (!file)
		return otherwise;
	if (fscanf(file, "%llu", &value) != 1)
		value = otherwise;
	fclose(file);
	return value;
}

/* The smallest memory limit of this process's control groups, both hierarchies. */
static uint64_t
group_limit(void)
{
	uint64_t least = UINT64_MAX;
	char line[512], path[640];
	FILE *file = fopen("/proc/self/cgroup", "re");

	while (file && fgets(line, sizeof(line), file)) {
		char *name = strstr(line, "::"), *slash;
		line[strcspn(line, "\n")] = 0;
		bool unified = name && name == line + 1;
		if (!unified && !strstr(line, ":memory:"))
			continue;
		name = unified ? line + 3 : strstr(line, ":memory:") + 8;
		/* A limit of any parent counts too. In a container the path may not exist: then the root is ours. */
		for (;;) {
			snprintf(path, sizeof(path), unified ? "/sys/fs/cgroup%s/memory.max"
			                                     : "/sys/fs/cgroup/memory%s/memory.limit_in_bytes", name);
			uint64_t value = read_number(path, UINT64_MAX);
			if (value < least)
				least = value;
			slash = strrchr(name, '/');
			if (!slash || !*name)
				break;
			*slash = 0;
		}
	}
	if (file)
		fclose(file);
	return least;
}

static uint64_t
machine_memory(void)
{
	struct sysinfo info;
	uint64_t ram = sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : (uint64_t)4 << 30;
	uint64_t limit = group_limit();

	return (limit < ram ? limit : ram) / 4 * 3;
}

static uint32_t
machine_threads(void)
{
	cpu_set_t set;
	int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);

	return count > 0 ? (uint32_t)count : 1;
}

static uint32_t
machine_clock_khz(void)
{
	uint64_t khz = read_number("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", 0);
	char line[256];
	double mhz;
	FILE *file = khz ? NULL : fopen("/proc/cpuinfo", "re");

	while (file && !khz && fgets(line, sizeof(line), file))
		if (sscanf(line, "cpu MHz : %lf", &mhz) == 1)
			khz = (uint64_t)(mhz * 1000);
	if (file)
		fclose(file);
	return khz ? (uint32_t)khz : 1000000;
}

static uint32_t
machine_cache(void)
{
	long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);

	if (bytes <= 0)
		bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
	return bytes > 0 && bytes < INT32_MAX ? (uint32_t)bytes : 1u << 20;
}

/* FNV-1a over text; two of them with different starts make the 128 bits. */
static uint64_t
hash(const char *text, uint64_t start)
{
	uint64_t value = start;

	for (; *text; text++)
		value = (value ^ (unsigned char)*text) * 0x100000001b3ull;
	return value;
}

/* The same machine with the same settings has the same identity, in every process. */
static void
make_uuid(CUuuid *uuid)
{
	char text[256], id[64] = "";
	FILE *file = fopen("/etc/machine-id", "re");

	if (!file || !fgets(id, sizeof(id), file))
		gethostname(id, sizeof(id) - 1);
	if (file)
		fclose(file);
	id[strcspn(id, "\n")] = 0;
	snprintf(text, sizeof(text), "farwarp/%s/%u/%llu/%u", id, sw_device.cc, (unsigned long long)sw_device.mem_total,
	         sw_device.sm_count);
	uint64_t halves[2] = { hash(text, 0xcbf29ce484222325ull), hash(text, 0x6c62272e07bb0142ull) };
	memcpy(uuid->bytes, halves, sizeof(uuid->bytes));
}

CUresult
sw_open(const struct sw_config *config, const struct cuda_ops **ops)
{
	const char *blocking = getenv("CUDA_LAUNCH_BLOCKING");

	if (config->no_device)
		return CUDA_ERROR_NO_DEVICE;
	sw_device = (struct sw_device){ .config = *config };
	sw_device.cc = config->cc ? config->cc : 86;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (limits[i].cc == sw_device.cc)
			sw_device.limits = &limits[i];
	if (!sw_device.limits) {
		fw_error("device", "compute capability %u.%u is none that exists from 7.5 to 12.1", sw_device.cc / 10,
		         sw_device.cc % 10);
		return CUDA_ERROR_INVALID_VALUE;
	}
	sw_device.threads = config->threads ? config->threads : machine_threads();
	sw_device.sm_count = config->sm_count ? config->sm_count : sw_device.threads > 2 ? sw_device.threads : 2;
	sw_device.mem_total = (config->mem_bytes ? config->mem_bytes : machine_memory()) & ~(SW_GRANULE - 1);
	if (sw_device.mem_total < SW_GRANULE)
		sw_device.mem_total = SW_GRANULE;
	sw_device.clock_khz = machine_clock_khz();
	sw_device.l2_bytes = machine_cache();
	sw_device.launch_blocking = blocking && strtol(blocking, NULL, 10) != 0;
	snprintf(sw_device.name, sizeof(sw_device.name), "farwarp software GPU (%u thread%s)", sw_device.threads,
	         sw_device.threads == 1 ? "" : "s");
	make_uuid(&sw_device.uuid);
	CUresult result = sw_space_open(sw_device.mem_total, config->space_base, config->space_size);
	if (result == CUDA_SUCCESS)
		result = sw_context_init();
	sw_capture_install();
	if (result != CUDA_SUCCESS)
		return result;
	sw_device.open = true;
	fw_info("device", "%s: capability %u.%u, %u multiprocessors, %llu MiB, interpreter for %s", sw_device.name, sw_device.cc / 10,
	        sw_device.cc % 10, sw_device.sm_count, (unsigned long long)(sw_device.mem_total >> 20), sx_isa_name());
	*ops = sw_ops();
	return CUDA_SUCCESS;
}

void
sw_close(void)
{
	if (!sw_device.open)
		return;
	sw_device.open = false;
	sw_queue_stop();
	sw_output_flush();
}

void
sw_after_fork(void)
{
	sw_device.open = false;
	sw_queue_forget();
	sw_stream_forget();
	sw_context_forget();
	sw_pool_forget();
	sw_vmm_forget();
	sw_registered_forget();
	sw_alloc_forget();
	sw_space_forget();
}

/* ---- attributes ------------------------------------------------------------------------------------------------------- */

#define PCI_DOMAIN 0xfa57 /* no bus has it: this device is on none */
#define TEXTURE_1D 131072
#define TEXTURE_2D 131072
#define TEXTURE_3D 16384
#define LAYERS 2048

/* What depends on the capability or the machine. True if it is one of those. */
static bool
attribute_computed(CUdevice_attribute attribute, int *value)
{
	const struct sw_limits *l = sw_device.limits;

	switch (attribute) {
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = (int)l->cc / 10; return true;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = (int)l->cc % 10; return true;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = (int)sw_device.sm_count; return true;
	case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = (int)l->sm_threads; return true;
	case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *value = (int)l->sm_blocks; return true;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = (int)l->sm_shared; return true;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = (int)l->block_shared_optin; return true;
	case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: *value = (int)l->shared_reserved; return true;
	case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH: *value = l->cluster_max != 0; return true;
	case CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED: *value = 0; return true;
	case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = (int)sw_device.clock_khz; return true;
	case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = (int)sw_device.l2_bytes; return true;
	case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *value = sw_device.threads > 1 ? 2 : 1; return true;
	case CU_DEVICE_ATTRIBUTE_MAX_PITCH: *value = INT32_MAX; return true;
	case CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO: *value = 2; return true; /* vector lanes of the CPU */
	default: return false;
	}
}

static const struct { int attribute, value; } fixed_attributes[] = {
#define A(name, value) { CU_DEVICE_ATTRIBUTE_##name, value },
	A(MAX_THREADS_PER_BLOCK, SW_MAX_THREADS_PER_BLOCK) A(MAX_BLOCK_DIM_X, 1024) A(MAX_BLOCK_DIM_Y, 1024) A(MAX_BLOCK_DIM_Z, 64)
	A(MAX_GRID_DIM_X, INT32_MAX) A(MAX_GRID_DIM_Y, 65535) A(MAX_GRID_DIM_Z, 65535)
	A(MAX_SHARED_MEMORY_PER_BLOCK, SW_SHARED_DEFAULT) A(TOTAL_CONSTANT_MEMORY, 65536) A(WARP_SIZE, 32)
	A(MAX_REGISTERS_PER_BLOCK, SW_MAX_REGISTERS) A(MAX_REGISTERS_PER_MULTIPROCESSOR, SW_MAX_REGISTERS)
	A(TEXTURE_ALIGNMENT, 512) A(TEXTURE_PITCH_ALIGNMENT, 32) A(SURFACE_ALIGNMENT, 512)
	A(GPU_OVERLAP, 1) A(KERNEL_EXEC_TIMEOUT, 0) A(CAN_MAP_HOST_MEMORY, 1) A(COMPUTE_MODE, CU_COMPUTEMODE_DEFAULT)
	/* Its memory is this machine's memory, but programs that treat an integrated GPU specially expect a shared cache
	 * hierarchy with graphics; device memory is accounted for apart, so it answers as a discrete one. */
	A(INTEGRATED, 0)
	A(MAXIMUM_TEXTURE1D_WIDTH, TEXTURE_1D) A(MAXIMUM_TEXTURE1D_LINEAR_WIDTH, 1 << 28) A(MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH, 32768)
	A(MAXIMUM_TEXTURE1D_LAYERED_WIDTH, 32768) A(MAXIMUM_TEXTURE1D_LAYERED_LAYERS, LAYERS)
	A(MAXIMUM_TEXTURE2D_WIDTH, TEXTURE_2D) A(MAXIMUM_TEXTURE2D_HEIGHT, 65536) A(MAXIMUM_TEXTURE2D_LINEAR_WIDTH, TEXTURE_2D)
	A(MAXIMUM_TEXTURE2D_LINEAR_HEIGHT, 65000) A(MAXIMUM_TEXTURE2D_LINEAR_PITCH, 2097120)
	A(MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH, 32768) A(MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT, 32768)
	A(MAXIMUM_TEXTURE2D_LAYERED_WIDTH, 32768) A(MAXIMUM_TEXTURE2D_LAYERED_HEIGHT, 32768) A(MAXIMUM_TEXTURE2D_LAYERED_LAYERS, LAYERS)
	A(CAN_TEX2D_GATHER, 1) A(MAXIMUM_TEXTURE2D_GATHER_WIDTH, 32768) A(MAXIMUM_TEXTURE2D_GATHER_HEIGHT, 32768)
	A(MAXIMUM_TEXTURE3D_WIDTH, TEXTURE_3D) A(MAXIMUM_TEXTURE3D_HEIGHT, TEXTURE_3D) A(MAXIMUM_TEXTURE3D_DEPTH, TEXTURE_3D)
	A(MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE, 8192) A(MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE, 8192)
	A(MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE, 32768) A(MAXIMUM_TEXTURECUBEMAP_WIDTH, 32768)
	A(MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH, 32768) A(MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS, 2046)
	A(MAXIMUM_SURFACE1D_WIDTH, 32768) A(MAXIMUM_SURFACE2D_WIDTH, TEXTURE_2D) A(MAXIMUM_SURFACE2D_HEIGHT, 65536)
	A(MAXIMUM_SURFACE3D_WIDTH, TEXTURE_3D) A(MAXIMUM_SURFACE3D_HEIGHT, TEXTURE_3D) A(MAXIMUM_SURFACE3D_DEPTH, TEXTURE_3D)
	A(MAXIMUM_SURFACE1D_LAYERED_WIDTH, 32768) A(MAXIMUM_SURFACE1D_LAYERED_LAYERS, LAYERS)
	A(MAXIMUM_SURFACE2D_LAYERED_WIDTH, 32768) A(MAXIMUM_SURFACE2D_LAYERED_HEIGHT, 32768)
	A(MAXIMUM_SURFACE2D_LAYERED_LAYERS, LAYERS) A(MAXIMUM_SURFACECUBEMAP_WIDTH, 32768)
	A(MAXIMUM_SURFACECUBEMAP_LAYERED_WIDTH, 32768) A(MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS, 2046)
	A(CONCURRENT_KERNELS, 1) A(ECC_ENABLED, 0) A(PCI_BUS_ID, 0) A(PCI_DEVICE_ID, 0) A(PCI_DOMAIN_ID, PCI_DOMAIN) A(TCC_DRIVER, 0)
	A(MEMORY_CLOCK_RATE, 0) A(GLOBAL_MEMORY_BUS_WIDTH, 64) A(UNIFIED_ADDRESSING, 1) A(STREAM_PRIORITIES_SUPPORTED, 1)
	A(GLOBAL_L1_CACHE_SUPPORTED, 1) A(LOCAL_L1_CACHE_SUPPORTED, 1) A(MANAGED_MEMORY, 1) A(MULTI_GPU_BOARD, 0)
	A(MULTI_GPU_BOARD_GROUP_ID, 0) A(HOST_NATIVE_ATOMIC_SUPPORTED, 1) A(PAGEABLE_MEMORY_ACCESS, 0)
	A(CONCURRENT_MANAGED_ACCESS, 1) A(COMPUTE_PREEMPTION_SUPPORTED, 1) A(CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1)
	A(CAN_USE_STREAM_MEM_OPS_V1, 1) A(CAN_USE_64_BIT_STREAM_MEM_OPS_V1, 1) A(CAN_USE_STREAM_WAIT_VALUE_NOR_V1, 1)
	A(COOPERATIVE_LAUNCH, 1) A(COOPERATIVE_MULTI_DEVICE_LAUNCH, 0) A(CAN_FLUSH_REMOTE_WRITES, 0) A(HOST_REGISTER_SUPPORTED, 1)
	A(PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, 0) A(DIRECT_MANAGED_MEM_ACCESS_FROM_HOST, 1)
	A(VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1) A(HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 1)
	A(HANDLE_TYPE_WIN32_HANDLE_SUPPORTED, 0) A(HANDLE_TYPE_WIN32_KMT_HANDLE_SUPPORTED, 0) A(GENERIC_COMPRESSION_SUPPORTED, 0)
	A(MAX_PERSISTING_L2_CACHE_SIZE, 0) A(MAX_ACCESS_POLICY_WINDOW_SIZE, 0) A(GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 0)
	A(SPARSE_CUDA_ARRAY_SUPPORTED, 0) A(READ_ONLY_HOST_REGISTER_SUPPORTED, 1) A(TIMELINE_SEMAPHORE_INTEROP_SUPPORTED, 0)
	A(MEMORY_POOLS_SUPPORTED, 1) A(GPU_DIRECT_RDMA_SUPPORTED, 0) A(GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS, 0)
	A(GPU_DIRECT_RDMA_WRITES_ORDERING, CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE)
	A(MEMPOOL_SUPPORTED_HANDLE_TYPES, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) A(DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED, 0)
	A(CAN_USE_64_BIT_STREAM_MEM_OPS, 1) A(CAN_USE_STREAM_WAIT_VALUE_NOR, 1) A(DMA_BUF_SUPPORTED, 0) A(IPC_EVENT_SUPPORTED, 1)
	A(MEM_SYNC_DOMAIN_COUNT, 1) A(HANDLE_TYPE_FABRIC_SUPPORTED, 0) A(UNIFIED_FUNCTION_POINTERS, 1)
	A(NUMA_CONFIG, CU_DEVICE_NUMA_CONFIG_NONE) A(NUMA_ID, -1) A(MULTICAST_SUPPORTED, 0) A(MPS_ENABLED, 0) A(HOST_NUMA_ID, -1)
	A(D3D12_CIG_SUPPORTED, 0) A(MEM_DECOMPRESS_ALGORITHM_MASK, 0) A(MEM_DECOMPRESS_MAXIMUM_LENGTH, 0) A(VULKAN_CIG_SUPPORTED, 0)
	A(GPU_PCI_DEVICE_ID, 0) A(GPU_PCI_SUBSYSTEM_ID, 0) A(HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0)
	A(HOST_NUMA_MEMORY_POOLS_SUPPORTED, 0) A(HOST_NUMA_MULTINODE_IPC_SUPPORTED, 0) A(HOST_MEMORY_POOLS_SUPPORTED, 0)
	A(HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1) A(HOST_ALLOC_DMA_BUF_SUPPORTED, 0)
	A(ONLY_PARTIAL_HOST_NATIVE_ATOMIC_SUPPORTED, 0)
#undef A
};

CUresult
sw_cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (attribute_computed(attrib, pi))
		return CUDA_SUCCESS;
	for (size_t i = 0; i < sizeof(fixed_attributes) / sizeof(fixed_attributes[0]); i++) {
		if (fixed_attributes[i].attribute == (int)attrib) {
			*pi = fixed_attributes[i].value;
			return CUDA_SUCCESS;
		}
	}
	return CUDA_ERROR_INVALID_VALUE;
}

/* ---- other facts --------------------------------------------------------------------------------------------------------- */

CUresult
sw_cuDeviceGet(CUdevice *device, int ordinal)
{
	if (!sw_device_valid(ordinal))
		return CUDA_ERROR_INVALID_DEVICE;
	*device = ordinal;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetCount(int *count)
{
	*count = 1;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetName(char *name, int len, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (len <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	snprintf(name, (size_t)len, "%s", sw_device.name);
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	*uuid = sw_device.uuid;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
	return sw_cuDeviceGetUuid_v2(uuid, dev);
}

CUresult
sw_cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	*bytes = sw_device.mem_total;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetTexture1DLinearMaxWidth(size_t *maxWidthInElements, CUarray_format format, unsigned numChannels, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!sw_format_bytes(format) || (numChannels != 1 && numChannels != 2 && numChannels != 4))
		return CUDA_ERROR_INVALID_VALUE;
	*maxWidthInElements = (size_t)1 << 28;
	return CUDA_SUCCESS;
}

/* Bits of enum CUatomicOperationCapability: device and host share one memory, so host atomics are the CPU's own. */
static const unsigned atomic_capabilities[CU_ATOMIC_OPERATION_MAX] = {
#define INTEGER (CU_ATOMIC_CAPABILITY_SIGNED | CU_ATOMIC_CAPABILITY_UNSIGNED | CU_ATOMIC_CAPABILITY_REDUCTION | \
	CU_ATOMIC_CAPABILITY_SCALAR_32 | CU_ATOMIC_CAPABILITY_SCALAR_64)
	[CU_ATOMIC_OPERATION_INTEGER_ADD] = INTEGER,
	[CU_ATOMIC_OPERATION_INTEGER_MIN] = INTEGER,
	[CU_ATOMIC_OPERATION_INTEGER_MAX] = INTEGER,
	[CU_ATOMIC_OPERATION_INTEGER_INCREMENT] = CU_ATOMIC_CAPABILITY_UNSIGNED | CU_ATOMIC_CAPABILITY_REDUCTION |
		CU_ATOMIC_CAPABILITY_SCALAR_32,
	[CU_ATOMIC_OPERATION_INTEGER_DECREMENT] = CU_ATOMIC_CAPABILITY_UNSIGNED | CU_ATOMIC_CAPABILITY_REDUCTION |
		CU_ATOMIC_CAPABILITY_SCALAR_32,
	[CU_ATOMIC_OPERATION_AND] = INTEGER,
	[CU_ATOMIC_OPERATION_OR] = INTEGER,
	[CU_ATOMIC_OPERATION_XOR] = INTEGER,
	[CU_ATOMIC_OPERATION_EXCHANGE] = CU_ATOMIC_CAPABILITY_UNSIGNED | CU_ATOMIC_CAPABILITY_SCALAR_32 |
		CU_ATOMIC_CAPABILITY_SCALAR_64,
	[CU_ATOMIC_OPERATION_CAS] = CU_ATOMIC_CAPABILITY_UNSIGNED | CU_ATOMIC_CAPABILITY_SCALAR_32 | CU_ATOMIC_CAPABILITY_SCALAR_64,
	[CU_ATOMIC_OPERATION_FLOAT_ADD] = CU_ATOMIC_CAPABILITY_SIGNED | CU_ATOMIC_CAPABILITY_REDUCTION |
		CU_ATOMIC_CAPABILITY_SCALAR_32 | CU_ATOMIC_CAPABILITY_SCALAR_64,
#undef INTEGER
};

CUresult
sw_cuDeviceGetHostAtomicCapabilities(unsigned *capabilities, const CUatomicOperation *operations, unsigned count, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (!operations || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++)
		if ((unsigned)operations[i] >= CU_ATOMIC_OPERATION_MAX)
			return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++)
		capabilities[i] = atomic_capabilities[operations[i]];
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetExecAffinitySupport(int *pi, CUexecAffinityType type, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	if (type != CU_EXEC_AFFINITY_TYPE_SM_COUNT)
		return CUDA_ERROR_INVALID_VALUE;
	*pi = 0;
	return CUDA_SUCCESS;
}

CUresult
sw_cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target, CUflushGPUDirectRDMAWritesScope scope)
{
	SW_CTX(ctx);
	return CUDA_ERROR_NOT_SUPPORTED; /* attribute GPU_DIRECT_RDMA_SUPPORTED is 0 */
}

CUresult
sw_cuDeviceGetProperties(CUdevprop *prop, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	*prop = (CUdevprop){
		.maxThreadsPerBlock = SW_MAX_THREADS_PER_BLOCK,
		.maxThreadsDim = { 1024, 1024, 64 },
		.maxGridSize = { INT32_MAX, 65535, 65535 },
		.sharedMemPerBlock = SW_SHARED_DEFAULT,
		.totalConstantMemory = 65536,
		.SIMDWidth = 32,
		.memPitch = INT32_MAX,
		.regsPerBlock = SW_MAX_REGISTERS,
		.clockRate = (int)sw_device.clock_khz,
		.textureAlign = 512,
	};
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	*major = (int)sw_device.cc / 10;
	*minor = (int)sw_device.cc % 10;
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
	char text[16];

	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	int size = snprintf(text, sizeof(text), "%04X:%02X:%02X.0", PCI_DOMAIN, 0, 0);
	if (len <= size)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(pciBusId, text, (size_t)size + 1);
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetByPCIBusId(CUdevice *dev, const char *pciBusId)
{
	unsigned domain = 0, bus = 0, device = 0, function = 0;
	int end = 0;

	if (!pciBusId)
		return CUDA_ERROR_INVALID_VALUE;
	bool full = sscanf(pciBusId, "%x:%x:%x.%x%n", &domain, &bus, &device, &function, &end) == 4 && !pciBusId[end];
	if (!full)
		full = sscanf(pciBusId, "%x:%x:%x%n", &domain, &bus, &device, &end) == 3 && !pciBusId[end];
	if (!full) {
		domain = 0;
		full = sscanf(pciBusId, "%x:%x.%x%n", &bus, &device, &function, &end) == 3 && !pciBusId[end];
	}
	if (!full || domain != PCI_DOMAIN || bus || device || function)
		return full ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
	*dev = 0;
	return CUDA_SUCCESS;
}

/* ---- peers: there is one device ------------------------------------------------------------------------------------------ */

CUresult
sw_cuDeviceCanAccessPeer(int *canAccessPeer, CUdevice dev, CUdevice peerDev)
{
	if (!sw_device_valid(dev) || !sw_device_valid(peerDev))
		return CUDA_ERROR_INVALID_DEVICE;
	*canAccessPeer = 0; /* not its own peer */
	return CUDA_SUCCESS;
}

CUresult
sw_cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attrib, CUdevice srcDevice, CUdevice dstDevice)
{
	if (!sw_device_valid(srcDevice) || !sw_device_valid(dstDevice) || srcDevice == dstDevice)
		return CUDA_ERROR_INVALID_DEVICE;
	return CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuDeviceGetP2PAtomicCapabilities(unsigned *capabilities, const CUatomicOperation *operations, unsigned count,
                                    CUdevice srcDevice, CUdevice dstDevice)
{
	if (!sw_device_valid(srcDevice) || !sw_device_valid(dstDevice) || srcDevice == dstDevice)
		return CUDA_ERROR_INVALID_DEVICE;
	return CUDA_ERROR_INVALID_VALUE;
}

CUresult
sw_cuCtxEnablePeerAccess(CUcontext peerContext, unsigned Flags)
{
	SW_CTX(ctx);
	if (Flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!fw_handle_get(peerContext, SW_KIND_CONTEXT) || peerContext == ctx->handle)
		return CUDA_ERROR_INVALID_CONTEXT;
	return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED; /* both are on the same device */
}

CUresult
sw_cuCtxDisablePeerAccess(CUcontext peerContext)
{
	SW_CTX(ctx);
	if (!fw_handle_get(peerContext, SW_KIND_CONTEXT))
		return CUDA_ERROR_INVALID_CONTEXT;
	return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
}
