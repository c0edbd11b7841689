/*
 * Host memory that kernels reach, as a program uses it: managed allocations and variables, pinned and registered memory, touched by the
 * CPU and by kernels in turn, by host functions, by several threads, against plain references. What a device without concurrent managed
 * access does not promise is not asked for, except that work is waited for (see docs/bridge.md).
 */
#include "gpu.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024ul * 1024)

static int
attribute(CUdevice_attribute what)
{
	int value = -1;

	OK(CU(cuDeviceGetAttribute)(&value, what, 0));
	return value;
}

static CUresult
add(void *p, uint32_t n, uint32_t v, CUstream stream)
{
	return gpu_launch(gpu_kernel("add"), (n + 255) / 256, 256, stream, (void *[]){ &p, &n, &v });
}

/* ---- a model ------------------------------------------------------------------------------------------------------- */

struct model {
	uint32_t *there, *here; /* the memory, and what it has to hold */
	uint32_t count;
};

/* Kernels, copies, fills and the CPU change random ranges in turn; what the CPU reads is compared. */
static unsigned
run_model(struct model *models, unsigned count, unsigned steps, uint64_t seed, CUstream stream)
{
	unsigned wrong = 0, kernel = 0;
	bool busy = false;

	for (unsigned step = 0; step < steps; step++) {
		struct model *m = &models[gpu_random(&seed) % count], *o = &models[gpu_random(&seed) % count];
		uint32_t first = gpu_random(&seed) % m->count, n = 1 + gpu_random(&seed) % (m->count - first), v = gpu_random(&seed);
		unsigned what = gpu_random(&seed) % 6;
		if (n > 20000 && gpu_random(&seed) % 4)
			n = 1 + n % 3000;
		if (what < 2) { /* the CPU writes, reads */
			if (busy)
				OK(CU(cuStreamSynchronize)(stream));
			busy = false;
			for (uint32_t i = first; i < first + n && what == 0; i++)
				m->there[i] = m->here[i] = v + i;
			wrong += what == 1 && memcmp(m->there + first, m->here + first, n * 4) != 0;
			continue;
		}
		busy = true;
		if (what < 4) {
			OK(add(m->there + first, n, v, stream));
			for (uint32_t i = first; i < first + n; i++)
				m->here[i] += v;
			kernel++;
		} else if (what == 4) {
			OK(CU(cuMemsetD32Async)((CUdeviceptr)(uintptr_t)(m->there + first), v, n, stream));
			for (uint32_t i = first; i < first + n; i++)
				m->here[i] = v;
		} else if (o != m) {
			uint32_t from = gpu_random(&seed) % o->count, most = o->count - from < n ? o->count - from : n;
			OK(CU(cuMemcpyAsync)((CUdeviceptr)(uintptr_t)(m->there + first), (CUdeviceptr)(uintptr_t)(o->there + from), most * 4ul, stream));
			memcpy(m->here + first, o->here + from, most * 4ul);
		}
	}
	OK(CU(cuStreamSynchronize)(stream));
	for (unsigned i = 0; i < count; i++)
		wrong += memcmp(models[i].there, models[i].here, models[i].count * 4ul) != 0;
	CHECK(kernel > steps / 8);
	return wrong;
}

static void
model_init(struct model *m, void *memory, uint32_t count)
{
	*m = (struct model){ memory, calloc(count, 4), count };
	memset(memory, 0, count * 4ul);
}

TEST(managed_model)
{
	static const uint32_t counts[] = { 64, 1000, 1024, 5000, 100000, 1 << 19, 3 << 18 };
	struct model models[7];

	gpu_start();
	for (unsigned i = 0; i < 7; i++) {
		CUdeviceptr p;
		OK(CU(cuMemAllocManaged)(&p, counts[i] * 4ul, CU_MEM_ATTACH_GLOBAL));
		model_init(&models[i], (void *)(uintptr_t)p, counts[i]);
	}
	CHECK_INT(run_model(models, 7, 600, 4711, NULL), 0);
	for (unsigned i = 0; i < 7; i++) {
		OK(CU(cuMemFree_v2)((CUdeviceptr)(uintptr_t)models[i].there));
		free(models[i].here);
	}
}

static void *
model_thread(void *argument)
{
	struct model models[3];
	CUcontext ctx;
	CUstream stream;
	unsigned *wrong = argument;

	OK(CU(cuDevicePrimaryCtxRetain)(&ctx, 0));
	OK(CU(cuCtxSetCurrent)(ctx));
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < 3; i++) {
		CUdeviceptr p;
		OK(CU(cuMemAllocManaged)(&p, 40000, CU_MEM_ATTACH_GLOBAL));
		model_init(&models[i], (void *)(uintptr_t)p, 10000);
	}
	*wrong = run_model(models, 3, 150, (uintptr_t)argument | 1, stream);
	OK(CU(cuStreamDestroy_v2)(stream));
	return NULL;
}

TEST(managed_threads)
{
	pthread_t threads[3];
	unsigned wrong[3];

	gpu_start();
	gpu_kernel("add");
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, model_thread, &wrong[i]);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		CHECK_INT(wrong[i], 0);
	}
}

TEST(managed_many_small)
{
	enum { COUNT = 3000 };
	static uint32_t *all[COUNT];
	unsigned wrong = 0;

	gpu_start();
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			CUdeviceptr p;
			OK(CU(cuMemAllocManaged)(&p, 16 + i % 300, CU_MEM_ATTACH_GLOBAL));
			all[i] = (uint32_t *)(uintptr_t)p;
			all[i][0] = i;
			all[i][3] = ~i;
		}
		for (unsigned i = 0; i < COUNT; i += 100)
			OK(add(all[i], 1, 7, NULL));
		OK(CU(cuCtxSynchronize)());
		for (unsigned i = 0; i < COUNT; i++)
			wrong += all[i][0] != i + (i % 100 ? 0 : 7) || all[i][3] != ~i;
		for (unsigned i = 0; i < COUNT; i++)
			OK(CU(cuMemFree_v2)((CUdeviceptr)(uintptr_t)all[i]));
	}
	CHECK_INT(wrong, 0);
}

/*
 * Where a device that chooses its own addresses is likely to put the next allocation this process has something else: it is put elsewhere.
 * When that is so of all that it has, there is no memory. What this process has is not touched.
 */
TEST(managed_elsewhere)
{
	enum { BLOCKS = 600 };
	static CUdeviceptr device[BLOCKS];
	static uint8_t *own[BLOCKS];
	static const size_t sizes[] = { 100, 5000, 3 * MIB };
	const size_t block = 2 * MIB;
	unsigned blocks, taken, refused;
	CUdeviceptr p;

	gpu_start();
	gpu_kernel("add");
	for (unsigned left = 2; left--;) {
		const bool all = left; /* first: what is reserved for managed memory later stays so */
		blocks = taken = refused = 0;
		while (blocks < (all ? BLOCKS : 1) && CU(cuMemAlloc_v2)(&device[blocks], block) == CUDA_SUCCESS)
			blocks++;
		for (unsigned i = 0; i < blocks; i++) {
			void *at = mmap((void *)(uintptr_t)device[i], block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
			                -1, 0);
			own[i] = at == MAP_FAILED ? NULL : at;
			taken += own[i] != NULL;
			if (own[i])
				own[i][0] = own[i][block - 1] = 0x5a;
		}
		for (unsigned i = 0; i < blocks; i++)
			OK(CU(cuMemFree_v2)(device[i]));
		for (unsigned i = 0; i < 3 && taken < BLOCKS; i++) {
			CUresult result = CU(cuMemAllocManaged)(&p, sizes[i], CU_MEM_ATTACH_GLOBAL);
			uint32_t *m = (uint32_t *)(uintptr_t)p, n = (uint32_t)(sizes[i] / 4);
			refused += result == CUDA_ERROR_OUT_OF_MEMORY;
			if (all && result == CUDA_ERROR_OUT_OF_MEMORY)
				continue;
			OK(result);
			if (result != CUDA_SUCCESS)
				continue;
			m[0] = m[n - 1] = 7;
			OK(add(m, n, 3, NULL));
			OK(CU(cuCtxSynchronize)());
			CHECK(m[0] == 10 && m[n - 1] == 10);
			OK(CU(cuMemFree_v2)(p));
		}
		for (unsigned i = 0; i < blocks; i++)
			if (own[i]) {
				CHECK(own[i][0] == 0x5a && own[i][block - 1] == 0x5a);
				munmap(own[i], block);
			}
		if (!all || blocks < BLOCKS) /* else it has more than these */
			CHECK(all && taken == blocks ? refused : !refused);
		printf("# %u of %u blocks of the device's addresses were taken, %u allocations refused\n", taken, blocks, refused);
	}
}

/* What is freed and allocated again at the same place is what the program writes there, also if it writes what it read before. */
TEST(managed_again)
{
	CUdeviceptr p, other;
	unsigned wrong = 0;

	gpu_start();
	OK(CU(cuMemAllocManaged)(&other, 64, CU_MEM_ATTACH_GLOBAL)); /* keeps the place in use */
	for (uint32_t round = 0; round < 20; round++) {
		OK(CU(cuMemAllocManaged)(&p, 9000 + round % 3, CU_MEM_ATTACH_GLOBAL));
		volatile uint32_t *m = (uint32_t *)(uintptr_t)p;
		for (uint32_t i = 0; i < 2250; i++)
			m[i] = 3;
		OK(add((void *)m, 2250, round % 2, NULL));
		OK(CU(cuCtxSynchronize)());
		for (uint32_t i = 0; i < 2250; i++)
			wrong += m[i] != 3 + round % 2;
		*(volatile uint32_t *)(uintptr_t)other = round;
		OK(CU(cuMemFree_v2)(p));
	}
	CHECK_INT(wrong, 0);
	OK(CU(cuMemFree_v2)(other));
}

/* A child has no managed memory, as it has no device; what it does is not seen. */
TEST(managed_fork)
{
	CUdeviceptr p;
	int status = -1;

	gpu_start();
	OK(CU(cuMemAllocManaged)(&p, 8192, CU_MEM_ATTACH_GLOBAL));
	volatile uint32_t *m = (uint32_t *)(uintptr_t)p;
	m[0] = m[1500] = 1;
	if (attribute(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS))
		return; /* one memory: what a child does with it is its own fault */
	pid_t child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		m[0] = m[1500] = 99;
		_exit(0);
	}
	waitpid(child, &status, 0);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	OK(add((void *)m, 2000, 1, NULL));
	OK(CU(cuCtxSynchronize)());
	CHECK(m[0] == 2 && m[1500] == 2);
	OK(CU(cuMemFree_v2)(p));
}

/* ---- variables ----------------------------------------------------------------------------------------------------- */

TEST(managed_variable)
{
	static const char ptx[] =
		".version 7.0\n.target sm_75\n.address_size 64\n"
		".visible .global .attribute(.managed) .align 4 .u32 counter = 7;\n"
		".visible .global .attribute(.managed) .align 4 .b8 table[20000];\n"
		".visible .global .align 4 .u32 hidden = 1;\n"
		".visible .entry bump()\n{\n	.reg .u32 %r<3>;\n"
		"	ld.global.u32 %r1, [counter]; add.u32 %r1, %r1, 1; st.global.u32 [counter], %r1;\n"
		"	ld.global.u32 %r2, [hidden]; add.u32 %r2, %r2, 1; st.global.u32 [hidden], %r2;\n"
		"	st.global.u32 [table+19996], %r2; ret;\n}\n";
	CUmodule module;
	CUfunction bump;
	CUdeviceptr p, table, hidden;
	size_t size;

	gpu_start();
	OK(CU(cuModuleLoadData)(&module, ptx));
	OK(CU(cuModuleGetFunction)(&bump, module, "bump"));
	OK(CU(cuModuleGetGlobal_v2)(&p, &size, module, "counter"));
	CHECK_INT(size, 4);
	OK(CU(cuModuleGetGlobal_v2)(&table, &size, module, "table"));
	OK(CU(cuModuleGetGlobal_v2)(&hidden, NULL, module, "hidden"));
	volatile uint32_t *counter = (uint32_t *)(uintptr_t)p, *last = (uint32_t *)(uintptr_t)table + 4999;
	CHECK_INT(*counter, 7);
	for (uint32_t i = 0; i < 20; i++) {
		*counter += 10;
		OK(gpu_launch(bump, 1, 1, NULL, NULL));
		OK(CU(cuCtxSynchronize)());
		CHECK_INT(*counter, 7 + (i + 1) * 11);
		CHECK_INT(*last, i + 2);
	}
	uint32_t got;
	OK(CU(cuMemcpyDtoH_v2)(&got, hidden, 4));
	CHECK_INT(got, 21);
	*counter = 1; /* that it ends with pages that the program has changed is nobody's loss */
	OK(CU(cuModuleUnload)(module));
	OK(CU(cuMemAlloc_v2)(&p, 64));
	OK(CU(cuMemsetD8_v2)(p, 0, 64));
	OK(CU(cuMemFree_v2)(p));
	OK(CU(cuModuleLoadData)(&module, ptx));
	OK(CU(cuModuleGetGlobal_v2)(&p, NULL, module, "counter"));
	CHECK_INT(*(volatile uint32_t *)(uintptr_t)p, 7);
}

/* ---- who comes first ----------------------------------------------------------------------------------------------- */

static void
double_it(void *user)
{
	uint32_t *p = user;

	for (unsigned i = 0; i < 3000; i++)
		p[i] *= 2;
}

TEST(managed_host_functions)
{
	CUdeviceptr p;
	CUstream stream;

	gpu_start();
	OK(CU(cuStreamCreate)(&stream, 0));
	OK(CU(cuMemAllocManaged)(&p, 12000, CU_MEM_ATTACH_GLOBAL));
	uint32_t *m = (uint32_t *)(uintptr_t)p, want = 1;
	for (unsigned i = 0; i < 3000; i++)
		m[i] = 1;
	for (unsigned i = 0; i < 10; i++) {
		OK(add(m, 3000, 3, stream));
		OK(CU(cuLaunchHostFunc)(stream, double_it, m));
		OK(add(m, 3000, 5, stream));
		want = (want + 3) * 2 + 5;
	}
	OK(CU(cuStreamSynchronize)(stream));
	CHECK(m[0] == want && m[2999] == want);
	OK(CU(cuMemFree_v2)(p));
	OK(CU(cuStreamDestroy_v2)(stream));
}

/* Without concurrent access a touch of managed memory waits for the work that may write it; real devices of that kind crash. */
TEST(managed_touch_waits)
{
	CUdeviceptr p;

	gpu_start();
	OK(CU(cuMemAllocManaged)(&p, 2 * MIB, CU_MEM_ATTACH_GLOBAL));
	volatile uint32_t *m = (uint32_t *)(uintptr_t)p;
	m[0] = 0;
	OK(CU(cuCtxSynchronize)());
	for (uint32_t i = 1; i < 30 && !attribute(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS); i++) {
		OK(add((void *)m, 500000, 1, NULL));
		CHECK_INT(m[i * 1000], i);
	}
	OK(CU(cuMemFree_v2)(p));
}

TEST(managed_advice)
{
	CUdeviceptr p;
	CUmemLocation device = { .type = CU_MEM_LOCATION_TYPE_DEVICE }, host = { .type = CU_MEM_LOCATION_TYPE_HOST };
	const uint32_t n = 1 << 20;
	unsigned wrong = 0;

	gpu_start();
	OK(CU(cuMemAllocManaged)(&p, n * 4ul, CU_MEM_ATTACH_HOST));
	OK(CU(cuStreamAttachMemAsync)(NULL, p, 0, CU_MEM_ATTACH_GLOBAL));
	uint32_t *m = (uint32_t *)(uintptr_t)p;
	for (uint32_t i = 0; i < n; i++)
		m[i] = i;
	OK(CU(cuMemAdvise_v2)(p, n * 4ul, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device));
	OK(CU(cuMemPrefetchAsync_v2)(p, n * 4ul, device, 0, NULL));
	OK(add(m, n, 1, NULL));
	OK(CU(cuMemPrefetchAsync_v2)(p, n * 4ul, host, 0, NULL));
	OK(CU(cuMemPrefetchAsync)(p, n * 2ul, CU_DEVICE_CPU, NULL));
	OK(CU(cuCtxSynchronize)());
	for (uint32_t i = 0; i < n; i++)
		wrong += m[i] != i + 1;
	CHECK_INT(wrong, 0);
	OK(CU(cuMemFree_v2)(p));
}

/* System calls on it; where faults come as signals, a page that is away is EFAULT, so it is touched before. */
TEST(managed_system_calls)
{
	CUdeviceptr p;
	int ends[2];
	const char *by = getenv("FARWARP_FAULTS");

	gpu_start();
	OK(CU(cuMemAllocManaged)(&p, 8192, CU_MEM_ATTACH_GLOBAL));
	char *m = (char *)(uintptr_t)p;
	CHECK(pipe2(ends, O_NONBLOCK) == 0); /* where there is no managed memory nothing comes to be read */
	OK(CU(cuMemsetD8_v2)(p, 'x', 8192));
	OK(CU(cuCtxSynchronize)());
	if (by && strcmp(by, "signal") == 0)
		CHECK(*(volatile char *)m == 'x' && *(volatile char *)(m + 4096) == 'x');
	CHECK_INT(write(ends[1], m + 4000, 200), 200);
	CHECK_INT(read(ends[0], m + 100, 200), 200);
	CHECK(m[100] == 'x' && m[299] == 'x');
	close(ends[0]);
	close(ends[1]);
	OK(CU(cuMemFree_v2)(p));
}

/* ---- pinned and registered memory ----------------------------------------------------------------------------------- */

static bool
over_network(void)
{
	const char *server = getenv("FARWARP_SERVER");

	return server && *server && strncmp(server, "unix:", 5) != 0;
}

TEST(pinned_model)
{
	static const uint32_t counts[] = { 64, 5000, 300000 };
	struct model models[4];
	CUdeviceptr p;

	gpu_start();
	for (unsigned i = 0; i < 3; i++) {
		void *host;
		OK(CU(cuMemHostAlloc)(&host, counts[i] * 4ul, i ? CU_MEMHOSTALLOC_DEVICEMAP : 0));
		model_init(&models[i], host, counts[i]);
	}
	OK(CU(cuMemAllocManaged)(&p, 40000, CU_MEM_ATTACH_GLOBAL));
	model_init(&models[3], (void *)(uintptr_t)p, 10000);
	CHECK_INT(run_model(models, 4, 300, 99, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		OK(CU(cuMemFreeHost)(models[i].there));
	OK(CU(cuMemFree_v2)(p));
}

TEST(registered_model)
{
	struct model models[3];

	gpu_start();
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 3; i++) {
			uint32_t count = 1024u << (3 * i);
			uint32_t *own = gpu_own_alloc(4096, count * 4ul);
			model_init(&models[i], own, count);
			for (uint32_t k = 0; k < count; k++)
				models[i].here[k] = own[k] = k * 7 + i;
			OK(CU(cuMemHostRegister_v2)(own, count * 4ul, i == 1 ? CU_MEMHOSTREGISTER_DEVICEMAP : 0));
			CHECK(memcmp(own, models[i].here, count * 4ul) == 0);
		}
		CHECK_INT(run_model(models, 3, 200, 5 + round, NULL), 0);
		for (unsigned i = 0; i < 3; i++) {
			OK(CU(cuMemHostUnregister)(models[i].there));
			CHECK(memcmp(models[i].there, models[i].here, models[i].count * 4ul) == 0);
			gpu_own_free(models[i].there, models[i].count * 4ul);
			free(models[i].here);
		}
	}
}

/* Each thread counts in memory beside registered memory, which lies in the same pages: no count is lost. */
static bool counting; /* atomic */

static void *
count_beside(void *argument)
{
	volatile uint64_t *beside = argument;
	uintptr_t n = 0;

	while (__atomic_load_n(&counting, __ATOMIC_RELAXED))
		*beside = ++n;
	CHECK(*beside == n);
	return (void *)n;
}

TEST(registered_neighbours)
{
	enum { COUNT = 4, BYTES = 3000 };
	struct {
		uint64_t beside;
		uint32_t data[BYTES / 4];
	} *all = gpu_own_alloc(4096, sizeof(*all) * COUNT);
	pthread_t threads[COUNT];

	gpu_start();
	gpu_kernel("add");
	__atomic_store_n(&counting, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < COUNT; i++) {
		memset(all[i].data, (int)i, BYTES);
		all[i].beside = 0;
		pthread_create(&threads[i], NULL, count_beside, &all[i].beside);
	}
	for (unsigned round = 0; round < 30; round++) {
		for (unsigned i = 0; i < COUNT; i++)
			OK(CU(cuMemHostRegister_v2)(all[i].data, BYTES, 0));
		for (unsigned i = 0; i < COUNT && !over_network(); i++)
			OK(add(all[i].data, BYTES / 4, 1, NULL));
		OK(CU(cuCtxSynchronize)());
		for (unsigned i = 0; i < COUNT; i++)
			OK(CU(cuMemHostUnregister)(all[(i + round) % COUNT].data));
	}
	__atomic_store_n(&counting, false, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < COUNT; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < COUNT && !over_network(); i++)
		CHECK(all[i].data[0] == i * 0x1010101 + 30 && all[i].data[BYTES / 4 - 1] == i * 0x1010101 + 30);
	gpu_own_free(all, sizeof(*all) * COUNT);
}

/* Over a network a kernel cannot reach memory that shares pages with other data: it fails, and says so. */
TEST(registered_refused)
{
	uint32_t *own = gpu_own_alloc(16, 20000);

	gpu_start();
	memset(own, 0, 20000);
	OK(CU(cuMemHostRegister_v2)(own, 20000, 0));
	CUresult pointer = CU(cuMemHostGetDevicePointer_v2)(&(CUdeviceptr){ 0 }, own, 0);
	OK(add(own, 5000, 3, NULL));
	CUresult done = CU(cuCtxSynchronize)();
	if (over_network())
		CHECK(pointer == CUDA_ERROR_NOT_SUPPORTED && done == CUDA_ERROR_ILLEGAL_ADDRESS);
	else
		CHECK(pointer == CUDA_SUCCESS && done == CUDA_SUCCESS && own[0] == 3 && own[4999] == 3);
}

TEST(registered_kinds)
{
	unsigned type, flags;
	int file = open("/proc/self/exe", O_RDONLY);
	uint8_t out[100], *map = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, file, 0);
	static uint8_t zeros[10000];
	CUdeviceptr p;

	gpu_start();
	OK(CU(cuMemAlloc_v2)(&p, 8192));
	CHECK_INT(CU(cuMemHostRegister_v2)(zeros, 100, CU_MEMHOSTREGISTER_IOMEMORY), CUDA_ERROR_NOT_SUPPORTED);
	OK(CU(cuMemHostRegister_v2)(map, 8192, CU_MEMHOSTREGISTER_READ_ONLY)); /* a file: copies */
	OK(CU(cuMemcpyHtoDAsync_v2)(p, map, 8192, NULL));
	OK(CU(cuMemcpyDtoH_v2)(out, p + 50, 100));
	CHECK(memcmp(out, map + 50, 100) == 0);
	OK(CU(cuMemHostUnregister)(map));
	OK(CU(cuMemHostRegister_v2)(zeros, sizeof(zeros), CU_MEMHOSTREGISTER_PORTABLE)); /* variables */
	OK(CU(cuMemHostGetFlags)(&flags, zeros));
	CHECK_INT(flags, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
	OK(CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)zeros + 9000));
	CHECK_INT(type, CU_MEMORYTYPE_HOST);
	OK(CU(cuMemsetD8_v2)(p, 7, 8192));
	OK(CU(cuMemcpy)((CUdeviceptr)(uintptr_t)zeros + 1, p, 8000));
	CHECK(!zeros[0] && zeros[1] == 7 && zeros[8000] == 7 && !zeros[8001]);
	OK(CU(cuMemHostUnregister)(zeros));
	CHECK(!zeros[0] && zeros[1] == 7 && zeros[8000] == 7 && !zeros[8001]);
	CHECK_INT(CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)zeros), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMemFree_v2)(p));
}

/* A child has its own copy: what it writes is not the parent's, and what it inherited is right. */
TEST(registered_fork)
{
	uint32_t *own = gpu_own_alloc(16, 40000);
	void *pinned;
	int status = -1;

	gpu_start();
	for (unsigned i = 0; i < 10000; i++)
		own[i] = i;
	OK(CU(cuMemHostRegister_v2)(own, 40000, 0));
	OK(CU(cuMemHostAlloc)(&pinned, 4096, 0));
	memset(pinned, 1, 4096);
	pid_t child = fork();
	if (child == 0) {
		bool good = own[0] == 0 && own[9999] == 9999 && *(uint8_t *)pinned == 1;
		memset(own, 0xff, 40000);
		memset(pinned, 0xff, 4096);
		free(malloc(100000));
		_exit(good ? 0 : 1);
	}
	waitpid(child, &status, 0);
	CHECK_INT(status, 0);
	CHECK(own[0] == 0 && own[9999] == 9999 && *(uint8_t *)pinned == 1);
	OK(CU(cuMemHostUnregister)(own));
	OK(CU(cuMemFreeHost)(pinned));
	CHECK(own[0] == 0 && own[9999] == 9999);
	gpu_own_free(own, 40000);
}

TEST_MAIN()
