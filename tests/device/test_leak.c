/*
 * Everything that can be made is made and ended many times; also calls that fail half way. Device memory, descriptors, mappings and
 * the process's memory have to come back.
 */
#include "gpu.h"

#include <dirent.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 400
#define WARM 40                   /* rounds before the first look: caches, arenas, kept objects */
/* Mappings more than before; a sanitizer uses no memory twice for a while. One a round is seen all the same. */
#define MAPPINGS (TIMES_SLOWER == 1 ? 8u : ROUNDS / 2u)
#define GROWTH ((size_t)2 << 20) /* bytes over all measured rounds that allocators may keep: a leak of 6 KiB a round is seen */

struct look {
	size_t device, resident, descriptors, mappings;
};

static size_t
lines(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t count = 0;

	for (int c; file && (c = getc(file)) != EOF;)
		count += c == '\n';
	if (file)
		fclose(file);
	return count;
}

static struct look
look(void)
{
	struct look l = { .device = gpu_used() };
	DIR *folder = opendir("/proc/self/fd");
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	malloc_trim(0);
	if (file && fscanf(file, "%*u %lu", &pages) == 1)
		l.resident = pages * (size_t)sysconf(_SC_PAGESIZE);
	if (file)
		fclose(file);
	while (folder && readdir(folder))
		l.descriptors++;
	if (folder)
		closedir(folder);
	l.mappings = lines("/proc/self/maps");
	return l;
}

static void
name_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	char target[200];

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		ssize_t size = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
		if (size > 0)
			printf("# descriptor %s: %.*s\n", entry->d_name, (int)size, target);
	}
	if (folder)
		closedir(folder);
}

/* The rounds, and what is there behind them. */
static struct look
measure(void (*round)(void), int rounds, size_t descriptors)
{
	for (int i = 0; i < rounds; i++)
		round();
	OK(CU(cuCtxSynchronize)());
	struct look l = look();
	/* A channel to a server that is not on this host is closed by the thread that sends, when the server has closed it too. */
	for (int tries = 0; l.descriptors > descriptors && tries < 200; tries++) {
		usleep(10000);
		l = look();
	}
	return l;
}

static void
repeat(void (*round)(void))
{
	gpu_start();
	struct look before = measure(round, WARM, SIZE_MAX);
	struct look after = measure(round, ROUNDS, before.descriptors);
	if (after.descriptors > before.descriptors) {
		/* A thread whose first work came late has a channel that it keeps: no more may follow. */
		printf("# %zu descriptors before, %zu after\n", before.descriptors, after.descriptors);
		name_descriptors();
		before.descriptors = after.descriptors;
		after.descriptors = measure(round, ROUNDS, before.descriptors).descriptors;
	}
	CHECK_INT(after.device, before.device);
	CHECK(after.descriptors <= before.descriptors);
#ifndef __SANITIZE_THREAD__ /* which keeps mappings of its own for each that there was */
	if (after.mappings > before.mappings + MAPPINGS)
		printf("# %zu mappings before, %zu after\n", before.mappings, after.mappings);
	CHECK(after.mappings <= before.mappings + MAPPINGS);
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* A channel to a server has two rings of 4 MiB, whose pages are touched as they go round. */
	size_t growth = GROWTH + (getenv("FARWARP_SERVER") ? (size_t)8 << 20 : 0);
	if (!getenv("LD_PRELOAD") && after.resident > before.resident + growth)
		printf("# %zu KiB resident before, %zu after\n", before.resident >> 10, after.resident >> 10);
	CHECK(getenv("LD_PRELOAD") || after.resident <= before.resident + growth);
#endif
}

static void
streams(void)
{
	CUstream stream;
	CUevent event;
	CUdeviceptr p;

	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	OK(CU(cuEventCreate)(&event, 0));
	OK(CU(cuMemAllocAsync)(&p, 100000, stream));
	OK(CU(cuMemsetD8Async)(p, 1, 100000, stream));
	OK(CU(cuEventRecord)(event, stream));
	OK(CU(cuMemFreeAsync)(p, stream));
	OK(CU(cuEventSynchronize)(event));
	OK(CU(cuEventDestroy_v2)(event));
	OK(CU(cuStreamDestroy_v2)(stream));
}
TEST(streams_and_events)
{
	repeat(streams);
}

static void
modules(void)
{
	CUmodule module;
	CUlibrary library;
	CUkernel kernel;
	CUfunction f;
	CUdeviceptr p;
	uint32_t v = 1;
	char log[256] = "";
	CUjit_option options[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { log, (void *)sizeof(log) };

	OK(CU(cuModuleLoadData)(&module, gpu_ptx));
	OK(CU(cuModuleGetFunction)(&f, module, "fill"));
	OK(CU(cuMemAlloc_v2)(&p, 4));
	OK(gpu_launch(f, 1, 32, NULL, (void *[]){ &p, &v }));
	OK(CU(cuModuleUnload)(module));
	OK(CU(cuMemFree_v2)(p));
	OK(CU(cuLibraryLoadData)(&library, gpu_ptx, NULL, NULL, 0, NULL, NULL, 0));
	OK(CU(cuLibraryGetKernel)(&kernel, library, "fill"));
	OK(CU(cuKernelGetFunction)(&f, kernel));
	OK(CU(cuLibraryUnload)(library));
	CHECK_INT(CU(cuModuleLoadDataEx)(&module, ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry f(\n", 2, options, values),
	          CUDA_ERROR_INVALID_PTX);
	CHECK(log[0] != 0);
	CHECK_INT(CU(cuModuleLoadData)(&module, "nothing"), CUDA_ERROR_INVALID_IMAGE);
}
TEST(modules_and_libraries)
{
	repeat(modules);
}

static void
memory(void)
{
	CUdeviceptr p, q;
	void *host, *own = gpu_own_alloc(16, 8192);
	CUarray array;
	CUmemoryPool pool;
	CUDA_ARRAY_DESCRIPTOR plane = { .Width = 64, .Height = 64, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4 };
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE } };

	OK(CU(cuMemAlloc_v2)(&p, 1 << 20));
	OK(CU(cuMemAllocManaged)(&q, 1 << 20, CU_MEM_ATTACH_GLOBAL));
	memset((void *)(uintptr_t)q, 1, 1 << 20);
	OK(CU(cuMemcpyDtoD_v2)(p, q, 1 << 20));
	OK(CU(cuMemHostAlloc)(&host, 1 << 16, CU_MEMHOSTALLOC_DEVICEMAP));
	OK(CU(cuMemHostRegister_v2)(own, 8192, 0));
	OK(CU(cuArrayCreate_v2)(&array, &plane));
	OK(CU(cuMemPoolCreate)(&pool, &props));
	OK(CU(cuMemPoolDestroy)(pool));
	OK(CU(cuArrayDestroy)(array));
	OK(CU(cuMemHostUnregister)(own));
	OK(CU(cuMemFreeHost)(host));
	OK(CU(cuMemFree_v2)(q));
	OK(CU(cuMemFree_v2)(p));
	CHECK_INT(CU(cuMemFree_v2)(p), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemAlloc_v2)(&p, (size_t)1 << 46), CUDA_ERROR_OUT_OF_MEMORY);
	gpu_own_free(own, 8192);
}
TEST(memory_of_all_kinds)
{
	repeat(memory);
}

static void
mappings(void)
{
	CUmemGenericAllocationHandle handle;
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE },
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	CUmemAccessDesc access = { .location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUdeviceptr p;
	size_t size = 0;
	int fd = -1;

	OK(CU(cuMemGetAllocationGranularity)(&size, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
	OK(CU(cuMemAddressReserve)(&p, 2 * size, 0, 0, 0));
	OK(CU(cuMemCreate)(&handle, size, &prop, 0));
	OK(CU(cuMemMap)(p, size, 0, handle, 0));
	OK(CU(cuMemSetAccess)(p, size, &access, 1));
	OK(CU(cuMemsetD8_v2)(p, 1, size));
	OK(CU(cuMemExportToShareableHandle)(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	close(fd);
	OK(CU(cuMemUnmap)(p, size));
	OK(CU(cuMemRelease)(handle));
	OK(CU(cuMemAddressFree)(p, 2 * size));
}
TEST(virtual_memory)
{
	repeat(mappings);
}

static void
graphs(void)
{
	CUstream stream;
	CUgraph graph, clone;
	CUgraphExec exec;
	CUdeviceptr p;
	uint32_t v = 7;

	OK(CU(cuMemAlloc_v2)(&p, 4096));
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	OK(CU(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	OK(CU(cuMemsetD32Async)(p, 3, 1024, stream));
	OK(gpu_launch(gpu_kernel("fill"), 1, 32, stream, (void *[]){ &p, &v }));
	OK(CU(cuStreamEndCapture)(stream, &graph));
	OK(CU(cuGraphClone)(&clone, graph));
	OK(CU(cuGraphInstantiateWithFlags)(&exec, graph, 0));
	OK(CU(cuGraphLaunch)(exec, stream));
	OK(CU(cuGraphDestroy)(clone));
	OK(CU(cuGraphDestroy)(graph));
	OK(CU(cuGraphExecDestroy)(exec));
	OK(CU(cuStreamDestroy_v2)(stream));
	OK(CU(cuMemFree_v2)(p));
}
TEST(graphs_and_capture)
{
	repeat(graphs);
}

/* What a context held goes with it. */
static void
contexts(void)
{
	CUcontext ctx, old = NULL;
	CUmodule module;
	CUstream stream;
	CUevent event;
	CUdeviceptr p;

	OK(CU(cuCtxGetCurrent)(&old));
	OK(CU(cuCtxCreate_v4)(&ctx, NULL, 0, 0));
	OK(CU(cuModuleLoadData)(&module, gpu_ptx));
	OK(CU(cuStreamCreate)(&stream, 0));
	OK(CU(cuEventCreate)(&event, 0));
	OK(CU(cuMemAlloc_v2)(&p, 12345));
	OK(CU(cuMemsetD8Async)(p, 1, 12345, stream));
	OK(CU(cuCtxDestroy_v2)(ctx));
	OK(CU(cuCtxSetCurrent)(old));
}
TEST(contexts_take_everything_along)
{
	repeat(contexts);
}

TEST_MAIN()
