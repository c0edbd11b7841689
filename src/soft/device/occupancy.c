/*
 * Occupancy: how many blocks of a kernel a multiprocessor of the reported capability would hold, from its limits on
 * threads, blocks, registers and shared memory. It is also what bounds the blocks that are kept in flight here.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#define PARTITIONS 4u        /* of a multiprocessor; a warp's registers come from one */
#define REGISTER_UNIT 256u   /* registers are given to a warp in these */

static uint32_t
least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t
by_registers(uint32_t registers, uint32_t warps)
{
	uint32_t per_warp = (uint32_t)sw_round_up(registers * 32, REGISTER_UNIT);

	if (per_warp * (uint32_t)sw_round_up(warps, PARTITIONS) > SW_MAX_REGISTERS)
		return 0;
	return SW_MAX_REGISTERS / PARTITIONS / per_warp * PARTITIONS / warps;
}

static uint64_t
shared_of_block(const struct sw_function *function, uint64_t dynamic)
{
	uint64_t user = function->info->static_shared + dynamic;

	return sw_round_up(user + sw_device.limits->shared_reserved, sw_device.limits->shared_unit);
}

/* Blocks on a multiprocessor, of a shape that the function allows. */
static uint32_t
fitting(const struct sw_function *function, uint32_t threads, uint64_t dynamic_shared)
{
	const struct sw_limits *limits = sw_device.limits;
	uint32_t warps = (threads + 31) / 32;
	uint32_t blocks = least(limits->sm_blocks, limits->sm_threads / 32 / warps);

	blocks = least(blocks, by_registers(function->info->registers, warps));
	uint64_t shared = shared_of_block(function, dynamic_shared);
	if (shared > limits->shared_reserved || function->info->static_shared)
		blocks = least(blocks, (uint32_t)(limits->sm_shared / (shared ? shared : 1)));
	return blocks;
}

uint32_t
sw_occupancy(const struct sw_function *function, uint32_t threads, uint64_t dynamic_shared)
{
	if (!threads || threads > SW_MAX_THREADS_PER_BLOCK || threads > function->info->max_threads ||
	    dynamic_shared > __atomic_load_n(&function->max_dynamic_shared, __ATOMIC_RELAXED))
		return 0;
	return fitting(function, threads, dynamic_shared);
}

uint32_t
sw_occupancy_device(const struct sw_function *function, uint32_t threads, uint64_t dynamic_shared)
{
	return fitting(function, threads, dynamic_shared) * sw_device.sm_count;
}

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

#define FUNCTION(function, handle) \
	SW_CTX(ctx); \
	struct sw_function *function = NULL; \
	do { \
		CUresult found_ = sw_function_get(ctx, handle, &function); \
		if (found_ != CUDA_SUCCESS) \
			return found_; \
	} while (0)

CUresult
sw_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *numBlocks, CUfunction func, int blockSize, size_t dynamicSMemSize,
                                                        unsigned flags)
{
	FUNCTION(function, func);
	if (blockSize <= 0 || (flags & ~(unsigned)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE))
		return CUDA_ERROR_INVALID_VALUE;
	*numBlocks = (int)sw_occupancy(function, (uint32_t)blockSize, dynamicSMemSize);
	return CUDA_SUCCESS;
}

CUresult
sw_cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize, size_t dynamicSMemSize)
{
	return sw_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize, dynamicSMemSize, 0);
}

CUresult
sw_cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
                                             CUoccupancyB2DSize blockSizeToDynamicSMemSize, size_t dynamicSMemSize,
                                             int blockSizeLimit, unsigned flags)
{
	FUNCTION(function, func);
	if (flags & ~(unsigned)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
		return CUDA_ERROR_INVALID_VALUE;
	uint32_t limit = least(function->info->max_threads, SW_MAX_THREADS_PER_BLOCK);
	if (blockSizeLimit > 0)
		limit = least(limit, (uint32_t)blockSizeLimit);
	uint32_t best_size = 0, best_threads = 0, best_blocks = 0;
	/* From the largest down, whole warps; the largest of equals wins. */
	for (uint32_t size = (uint32_t)sw_round_up(limit, 32); size > 0; size -= 32) {
		uint32_t tried = least(size, limit);
		size_t shared = blockSizeToDynamicSMemSize ? blockSizeToDynamicSMemSize((int)tried) : dynamicSMemSize;
		uint32_t blocks = sw_occupancy(function, tried, shared);
		if (blocks * tried > best_threads) {
			best_threads = blocks * tried;
			best_size = tried;
			best_blocks = blocks;
		}
		if (best_threads == sw_device.limits->sm_threads)
			break;
	}
	*minGridSize = (int)(best_blocks * sw_device.sm_count);
	*blockSize = (int)best_size;
	return CUDA_SUCCESS;
}

CUresult
sw_cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func,
                                    CUoccupancyB2DSize blockSizeToDynamicSMemSize, size_t dynamicSMemSize, int blockSizeLimit)
{
	return sw_cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize, blockSize, func, blockSizeToDynamicSMemSize,
	                                                    dynamicSMemSize, blockSizeLimit, 0);
}

CUresult
sw_cuOccupancyAvailableDynamicSMemPerBlock(size_t *dynamicSmemSize, CUfunction func, int numBlocks, int blockSize)
{
	FUNCTION(function, func);
	const struct sw_limits *limits = sw_device.limits;
	if (numBlocks <= 0 || blockSize <= 0)
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t share = limits->sm_shared / (uint32_t)numBlocks / limits->shared_unit * limits->shared_unit;
	uint64_t taken = (uint64_t)limits->shared_reserved + function->info->static_shared;
	uint64_t most = limits->block_shared_optin > function->info->static_shared
	                        ? limits->block_shared_optin - function->info->static_shared : 0;
	*dynamicSmemSize = share > taken ? (share - taken < most ? share - taken : most) : 0;
	return CUDA_SUCCESS;
}

/* ---- clusters ---------------------------------------------------------------------------------------------------------- */

/* The cluster shape of a configuration, else the function's own; 0 blocks if neither says one. */
static uint32_t
cluster_blocks(const struct sw_function *function, const CUlaunchConfig *config)
{
	uint32_t blocks = 1;

	for (unsigned i = 0; i < 3; i++)
		blocks *= __atomic_load_n(&function->cluster[i], __ATOMIC_RELAXED);
	for (unsigned i = 0; config->attrs && i < config->numAttrs; i++)
		if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
			blocks = config->attrs[i].value.clusterDim.x * config->attrs[i].value.clusterDim.y *
			         config->attrs[i].value.clusterDim.z;
	return blocks;
}

static uint32_t
config_threads(const CUlaunchConfig *config)
{
	uint64_t threads = (uint64_t)config->blockDimX * config->blockDimY * config->blockDimZ;

	return threads > SW_MAX_THREADS_PER_BLOCK ? SW_MAX_THREADS_PER_BLOCK + 1 : (uint32_t)threads;
}

static uint32_t
cluster_limit(const struct sw_function *function)
{
	return __atomic_load_n(&function->nonportable_cluster, __ATOMIC_RELAXED) ? sw_device.limits->cluster_max : sw_device.limits->cluster_portable;
}

CUresult
sw_cuOccupancyMaxPotentialClusterSize(int *clusterSize, CUfunction func, const CUlaunchConfig *config)
{
	FUNCTION(function, func);
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sw_device.limits->cluster_max)
		return CUDA_ERROR_NOT_SUPPORTED;
	*clusterSize = sw_occupancy(function, config_threads(config), config->sharedMemBytes) ? (int)cluster_limit(function) : 0;
	return CUDA_SUCCESS;
}

CUresult
sw_cuOccupancyMaxActiveClusters(int *numClusters, CUfunction func, const CUlaunchConfig *config)
{
	FUNCTION(function, func);
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	if (!sw_device.limits->cluster_max)
		return CUDA_ERROR_NOT_SUPPORTED;
	uint32_t blocks = cluster_blocks(function, config);
	if (!blocks)
		return CUDA_ERROR_INVALID_VALUE;
	if (blocks > cluster_limit(function))
		return CUDA_ERROR_INVALID_CLUSTER_SIZE;
	/* A cluster runs as a whole on one worker, so one always fits if a block does. */
	uint32_t fit = sw_occupancy(function, config_threads(config), config->sharedMemBytes) * sw_device.sm_count;
	*numClusters = fit ? (int)(fit / blocks ? fit / blocks : 1) : 0;
	return CUDA_SUCCESS;
}
