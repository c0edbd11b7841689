/*
 * Streams and events of the software GPU: order against a model, the legacy and per-thread streams, callbacks, memory
 * operations, priorities, sticky errors.
 */
#include "gpu.h"

#include <pthread.h>
#include <unistd.h>

/* ---- order ---------------------------------------------------------------------------------------------------------- */

#define STREAMS 5
#define EVENTS 4
#define STEPS 400

/*
 * Each host function writes the step it belongs to into a log. The model keeps, for each stream, the set of steps that must have been
 * logged before its next one; a random program of launches, records, waits and legacy work must never break it.
 */
static uint32_t log_order[STEPS]; /* 1-based position in which a step ran, 0: not yet */
static uint32_t log_count;

static void
note(void *user)
{
	log_order[(uintptr_t)user] = __atomic_add_fetch(&log_count, 1, __ATOMIC_RELAXED);
}

struct set {
	uint64_t bits[(STEPS + 63) / 64];
};

static void
set_join(struct set *to, const struct set *from)
{
	for (size_t i = 0; i < sizeof(to->bits) / 8; i++)
		to->bits[i] |= from->bits[i];
}

TEST(random_order)
{
	static struct set before[STEPS], stream_set[STREAMS], event_set[EVENTS];
	CUstream streams[STREAMS] = { CU_STREAM_LEGACY };
	CUevent events[EVENTS];
	uint64_t random = 0x123456789abcdefull;

	gpu_start();
	for (int i = 1; i < STREAMS; i++)
		OK(CU(cuStreamCreateWithPriority)(&streams[i], i >= 3 ? CU_STREAM_NON_BLOCKING : 0, -i));
	for (int i = 0; i < EVENTS; i++)
		OK(CU(cuEventCreate)(&events[i], i % 2 ? CU_EVENT_DISABLE_TIMING : 0));
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned s = gpu_random(&random) % STREAMS, e = gpu_random(&random) % EVENTS;
		/* The legacy stream waits for blocking streams 1 and 2, and they wait for it; 3 and 4 are on their own. */
		if (s == 0)
			for (int i = 1; i < 3; i++)
				set_join(&stream_set[0], &stream_set[i]);
		else if (s < 3)
			set_join(&stream_set[s], &stream_set[0]);
		switch (gpu_random(&random) % 4) {
		case 0:
			OK(CU(cuEventRecord)(events[e], streams[s]));
			event_set[e] = stream_set[s];
			break;
		case 1:
			OK(CU(cuStreamWaitEvent)(streams[s], events[e], 0));
			set_join(&stream_set[s], &event_set[e]);
			break;
		default:
			log_order[step] = UINT32_MAX; /* is to run */
			OK(CU(cuLaunchHostFunc)(streams[s], note, (void *)(uintptr_t)step));
			before[step] = stream_set[s];
			stream_set[s].bits[step / 64] |= 1ull << step % 64;
		}
	}
	OK(CU(cuCtxSynchronize)());
	for (unsigned step = 0; step < STEPS; step++)
		for (unsigned other = 0; other < STEPS; other++)
			if (before[step].bits[other / 64] >> other % 64 & 1)
				CHECK(log_order[other] < log_order[step]);
	for (unsigned step = 0; step < STEPS; step++)
		CHECK(log_order[step] != UINT32_MAX);
}

TEST(kernels_in_order_and_beside)
{
	CUstream a, b;
	CUdeviceptr p, flag;
	uint32_t one = 1, n = 1 << 16, v = 1, *out = malloc(4u << 16);

	gpu_start();
	OK(CU(cuStreamCreate)(&a, CU_STREAM_NON_BLOCKING));
	OK(CU(cuStreamCreate)(&b, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&p, 4u << 16));
	OK(CU(cuMemAlloc_v2)(&flag, 4));
	OK(CU(cuMemsetD32_v2)(p, 0, 1 << 16));
	OK(CU(cuMemsetD32_v2)(flag, 0, 1));
	OK(CU(cuCtxSynchronize)());
	/* A kernel in a waits for a flag that a kernel in b sets: both must make progress. */
	OK(gpu_launch(gpu_kernel("wait_for"), 1, 1, a, (void *[]){ &flag, &one }));
	CHECK_INT(CU(cuStreamQuery)(a), CUDA_ERROR_NOT_READY);
	for (int i = 0; i < 50; i++)
		OK(gpu_launch(gpu_kernel("add"), 256, 256, b, (void *[]){ &p, &n, &v }));
	OK(gpu_launch(gpu_kernel("fill"), 1, 1, b, (void *[]){ &flag, &one }));
	OK(CU(cuStreamSynchronize)(a));
	OK(CU(cuStreamSynchronize)(b));
	OK(CU(cuMemcpyDtoH_v2)(out, p, 4u << 16));
	for (uint32_t i = 0; i < n; i++)
		if (out[i] != 50) {
			CHECK_INT(out[i], 50);
			break;
		}
	free(out);
}

TEST(legacy_stream)
{
	CUstream blocking, apart;
	CUdeviceptr flag, p;
	uint32_t one = 1, out = 0;

	gpu_start();
	OK(CU(cuStreamCreate)(&blocking, 0));
	OK(CU(cuStreamCreate)(&apart, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&flag, 4));
	OK(CU(cuMemAlloc_v2)(&p, 4));
	OK(CU(cuMemsetD32_v2)(flag, 0, 1));
	OK(CU(cuMemsetD32_v2)(p, 0, 1));
	OK(CU(cuCtxSynchronize)());
	OK(gpu_launch(gpu_kernel("wait_for"), 1, 1, blocking, (void *[]){ &flag, &one }));
	OK(CU(cuMemsetD32_v2)(p, 5, 1)); /* legacy: behind the blocking stream, and does not wait itself */
	CHECK_INT(CU(cuStreamQuery)(NULL), CUDA_ERROR_NOT_READY);
	CHECK_INT(CU(cuStreamQuery)(apart), CUDA_SUCCESS);
	OK(CU(cuMemcpyDtoHAsync_v2)(&out, p, 4, apart)); /* not behind it */
	CHECK_INT(out, 0);
	OK(CU(cuMemsetD32Async)(flag, 1, 1, apart));
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 5);
	OK(CU(cuStreamDestroy_v2)(blocking));
	CHECK_INT(CU(cuStreamQuery)(blocking), CUDA_ERROR_INVALID_HANDLE);
}

TEST(destroyed_stream_goes_on)
{
	CUstream s;
	CUdeviceptr flag, p;
	CUstream apart;
	uint32_t one = 1, out = 0;

	gpu_start();
	OK(CU(cuStreamCreate)(&s, 0));
	OK(CU(cuStreamCreate)(&apart, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&flag, 4));
	OK(CU(cuMemAlloc_v2)(&p, 4));
	OK(CU(cuMemsetD32_v2)(flag, 0, 1));
	OK(CU(cuCtxSynchronize)());
	OK(gpu_launch(gpu_kernel("wait_for"), 1, 1, s, (void *[]){ &flag, &one }));
	OK(CU(cuMemsetD32Async)(p, 9, 1, s));
	OK(CU(cuStreamDestroy_v2)(s));
	CHECK_INT(CU(cuStreamQuery)(NULL), CUDA_ERROR_NOT_READY); /* the legacy stream still waits for it */
	OK(CU(cuMemsetD32Async)(flag, 1, 1, apart));
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 9);
}

static pthread_barrier_t all_there;

static void *
per_thread(void *user)
{
	CUcontext ctx = user;
	unsigned long long id = 0;

	pthread_barrier_wait(&all_there); /* an id may come again when its thread has ended */

	OK(CU(cuCtxSetCurrent)(ctx));
	OK(CU(cuStreamGetId)(CU_STREAM_PER_THREAD, &id));
	OK(CU(cuStreamSynchronize)(CU_STREAM_PER_THREAD));
	return (void *)(uintptr_t)id;
}

TEST(per_thread_streams)
{
	pthread_t threads[4];
	void *ids[4];
	CUcontext ctx;

	gpu_start();
	OK(CU(cuCtxGetCurrent)(&ctx));
	pthread_barrier_init(&all_there, NULL, 4);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, per_thread, ctx);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], &ids[i]);
	for (int i = 0; i < 4; i++)
		for (int k = 0; k < i; k++)
			CHECK(ids[i] != ids[k]);
}

/* ---- events ------------------------------------------------------------------------------------------------------------ */

TEST(events)
{
	CUevent start, end, plain, never;
	CUstream apart;
	CUdeviceptr flag;
	uint32_t one = 1;
	float ms = -1;

	gpu_start();
	OK(CU(cuEventCreate)(&start, 0));
	OK(CU(cuEventCreate)(&end, CU_EVENT_BLOCKING_SYNC));
	OK(CU(cuEventCreate)(&plain, CU_EVENT_DISABLE_TIMING));
	OK(CU(cuEventCreate)(&never, 0));
	OK(CU(cuStreamCreate)(&apart, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&flag, 4));
	OK(CU(cuMemsetD32_v2)(flag, 0, 1));
	OK(CU(cuCtxSynchronize)());
	OK(CU(cuEventQuery)(never));
	OK(CU(cuEventSynchronize)(never));
	CHECK_INT(CU(cuEventElapsedTime_v2)(&ms, start, never), CUDA_ERROR_INVALID_HANDLE);
	OK(CU(cuEventRecord)(start, NULL));
	OK(gpu_launch(gpu_kernel("wait_for"), 1, 1, NULL, (void *[]){ &flag, &one }));
	OK(CU(cuEventRecord)(end, NULL));
	CHECK_INT(CU(cuEventQuery)(end), CUDA_ERROR_NOT_READY);
	OK(CU(cuEventSynchronize)(start));
	CHECK_INT(CU(cuEventElapsedTime)(&ms, start, end), CUDA_ERROR_NOT_READY);
	usleep(3000); /* time for the clock to move; nothing depends on how much */
	OK(CU(cuMemsetD32Async)(flag, 1, 1, apart));
	OK(CU(cuEventSynchronize)(end));
	OK(CU(cuEventElapsedTime_v2)(&ms, start, end));
	CHECK(ms >= 2.5f && ms < 60000);
	OK(CU(cuEventRecord)(plain, NULL));
	OK(CU(cuEventSynchronize)(plain));
	CHECK_INT(CU(cuEventElapsedTime)(&ms, start, plain), CUDA_ERROR_INVALID_HANDLE);
	CHECK_INT(CU(cuEventCreate)(&never, 0x80), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuEventCreate)(&never, CU_EVENT_INTERPROCESS), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuEventDestroy_v2)(end));
	CHECK_INT(CU(cuEventQuery)(end), CUDA_ERROR_INVALID_HANDLE);
}

/* ---- callbacks ----------------------------------------------------------------------------------------------------------- */

static struct {
	CUstream stream;
	CUresult status, inner;
	int calls;
} seen;

static void
callback(CUstream stream, CUresult status, void *user)
{
	seen.stream = stream;
	seen.status = status;
	seen.calls++;
	__atomic_add_fetch((uint32_t *)user, 1, __ATOMIC_RELEASE); /* who polls it may look at the others then */
}

static void
host_function(void *user)
{
	seen.inner = CU(cuCtxSynchronize)();
	*(uint32_t *)user *= 10;
}

TEST(callbacks)
{
	uint32_t value = 1;
	CUstream s;

	gpu_start();
	OK(CU(cuStreamCreate)(&s, 0));
	OK(CU(cuStreamAddCallback)(s, callback, &value, 0));
	OK(CU(cuLaunchHostFunc)(s, host_function, &value));
	OK(CU(cuStreamAddCallback)(s, callback, &value, 0));
	OK(CU(cuStreamSynchronize)(s));
	CHECK_INT(value, 21);
	CHECK(seen.stream == s && seen.status == CUDA_SUCCESS && seen.calls == 2);
	CHECK(seen.inner != CUDA_SUCCESS); /* no calls from in there */
	CHECK_INT(CU(cuStreamAddCallback)(s, callback, &value, 1), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuLaunchHostFunc)(s, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
}

/* ---- memory operations ------------------------------------------------------------------------------------------------------ */

TEST(memory_operations)
{
	CUstream a, b;
	CUdeviceptr p;
	uint64_t *host;
	uint32_t out;

	gpu_start();
	OK(CU(cuStreamCreate)(&a, CU_STREAM_NON_BLOCKING));
	OK(CU(cuStreamCreate)(&b, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemHostAlloc)((void **)&host, 64, CU_MEMHOSTALLOC_DEVICEMAP));
	memset(host, 0, 64);
	OK(CU(cuMemHostGetDevicePointer_v2)(&p, host, 0));
	OK(CU(cuStreamWaitValue32_v2)(a, p, 3, CU_STREAM_WAIT_VALUE_GEQ));
	OK(CU(cuStreamWriteValue64_v2)(a, p + 8, 0x1122334455667788ull, 0));
	CHECK_INT(CU(cuStreamQuery)(a), CUDA_ERROR_NOT_READY);
	OK(CU(cuStreamWriteValue32_v2)(b, p, 2, 0));
	OK(CU(cuStreamSynchronize)(b));
	CHECK_INT(CU(cuStreamQuery)(a), CUDA_ERROR_NOT_READY);
	__atomic_store_n((uint32_t *)host, 4, __ATOMIC_RELEASE); /* from the host */
	OK(CU(cuStreamSynchronize)(a));
	CHECK(host[1] == 0x1122334455667788ull);
	CUstreamBatchMemOpParams ops[3] = {
		{ .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_32, .address = p + 16, .value = 8 } },
		{ .waitValue = { .operation = CU_STREAM_MEM_OP_WAIT_VALUE_32, .address = p + 16, .value = 8,
			.flags = CU_STREAM_WAIT_VALUE_AND } },
		{ .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_32, .address = p + 20, .value = 6 } },
	};
	OK(CU(cuStreamBatchMemOp_v2)(a, 3, ops, 0));
	OK(CU(cuMemcpyDtoHAsync_v2)(&out, p + 20, 4, a));
	CHECK_INT(out, 6);
	CHECK_INT(CU(cuStreamWaitValue32_v2)(a, p + 2, 3, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuStreamWaitValue32_v2)(a, (CUdeviceptr)(uintptr_t)&out, 3, 0), CUDA_ERROR_INVALID_VALUE);
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------------- */

TEST(stream_facts)
{
	int least, greatest, priority;
	unsigned flags;
	unsigned long long id, other;
	CUstreamAttrValue value;
	CUstream s;
	CUcontext ctx, current;

	gpu_start();
	OK(CU(cuCtxGetStreamPriorityRange)(&least, &greatest));
	CHECK(least == 0 && greatest == -5);
	OK(CU(cuStreamCreateWithPriority)(&s, CU_STREAM_NON_BLOCKING, -100));
	OK(CU(cuStreamGetPriority)(s, &priority));
	CHECK_INT(priority, greatest);
	OK(CU(cuStreamGetFlags)(s, &flags));
	CHECK_INT(flags, CU_STREAM_NON_BLOCKING);
	OK(CU(cuStreamGetId)(s, &id));
	OK(CU(cuStreamGetId)(NULL, &other));
	CHECK(id != other && id && other);
	OK(CU(cuStreamGetCtx)(s, &ctx));
	OK(CU(cuCtxGetCurrent)(&current));
	CHECK(ctx == current);
	OK(CU(cuStreamGetAttribute)(s, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
	CHECK_INT(value.syncPolicy, CU_SYNC_POLICY_AUTO);
	value.syncPolicy = CU_SYNC_POLICY_YIELD;
	OK(CU(cuStreamSetAttribute)(s, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
	OK(CU(cuStreamCopyAttributes)(NULL, s));
	OK(CU(cuStreamGetAttribute)(NULL, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
	CHECK_INT(value.syncPolicy, CU_SYNC_POLICY_YIELD);
	CHECK_INT(CU(cuStreamGetAttribute)(s, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &value), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuStreamCreate)(&s, 2), CUDA_ERROR_INVALID_VALUE);
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------------ */

TEST(sticky_errors)
{
	CUdeviceptr bad = 64, p, q, flag;
	CUstream s, apart;
	CUevent event;
	CUcontext ctx;
	uint32_t value = 0, one = 1;
	size_t total;

	gpu_start();
	OK(CU(cuMemAlloc_v2)(&p, 64));
	OK(CU(cuStreamCreate)(&s, 0));
	OK(CU(cuEventCreate)(&event, 0));
	OK(CU(cuStreamCreate)(&apart, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&flag, 4));
	OK(CU(cuMemsetD32_v2)(flag, 0, 1));
	OK(CU(cuCtxSynchronize)());
	OK(gpu_launch(gpu_kernel("wait_for"), 1, 1, s, (void *[]){ &flag, &one })); /* until the callback has been added */
	OK(gpu_launch(gpu_kernel("poke"), 1, 1, s, (void *[]){ &bad }));
	OK(CU(cuStreamAddCallback)(s, callback, &value, 0));
	OK(CU(cuMemsetD32Async)(flag, 1, 1, apart));
	CUresult first = CU(cuStreamSynchronize)(s);
	CHECK_INT(first, CUDA_ERROR_ILLEGAL_ADDRESS);
	/* The error may be told before the callback has run. */
	for (int i = 0; i < 5000 && !__atomic_load_n(&value, __ATOMIC_ACQUIRE); i++)
		usleep(1000);
	CHECK(value == 1 && seen.status == CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuMemAlloc_v2)(&q, 64), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuMemFree_v2)(p), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuStreamQuery)(s), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuEventRecord)(event, s), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuMemGetInfo_v2)(&total, &total), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(&value, p, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
	OK(CU(cuDevicePrimaryCtxReset_v2)(0));
	gpu_module = NULL;
	OK(CU(cuDevicePrimaryCtxRetain)(&ctx, 0));
	OK(CU(cuMemAlloc_v2)(&p, 64));
	value = 7;
	OK(gpu_launch(gpu_kernel("fill"), 1, 1, NULL, (void *[]){ &p, &value }));
	OK(CU(cuMemcpyDtoH_v2)(&value, p, 4));
	CHECK_INT(value, 7);
	/* A use after free is found as well: the segment is gone. */
	OK(CU(cuMemAlloc_v2)(&q, 4 << 20));
	OK(CU(cuMemFree_v2)(q));
	OK(gpu_launch(gpu_kernel("poke"), 1, 1, NULL, (void *[]){ &q }));
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST(errors_stay_in_their_context)
{
	CUcontext own, primary;
	CUmodule module;
	CUfunction function;
	CUdeviceptr p;

	gpu_start();
	OK(CU(cuCtxGetCurrent)(&primary));
	OK(CU(cuCtxCreate_v2)(&own, 0, 0));
	OK(CU(cuModuleLoadData)(&module, gpu_ptx));
	OK(CU(cuModuleGetFunction)(&function, module, "trap_now"));
	OK(gpu_launch(function, 1, 1, NULL, NULL));
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_ERROR_LAUNCH_FAILED);
	CHECK_INT(CU(cuMemAlloc_v2)(&p, 64), CUDA_ERROR_LAUNCH_FAILED);
	OK(CU(cuCtxSetCurrent)(primary));
	OK(CU(cuMemAlloc_v2)(&p, 64));
	OK(CU(cuMemFree_v2)(p));
	OK(CU(cuCtxDestroy_v2)(own));
	CHECK_INT(CU(cuCtxSetCurrent)(own), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_INT(CU(cuCtxDestroy_v2)(own), CUDA_ERROR_INVALID_CONTEXT);
}

/* ---- many threads ------------------------------------------------------------------------------------------------------------------- */

static void *
worker(void *user)
{
	CUcontext ctx = user;
	CUstream s;
	CUevent e;
	CUdeviceptr p;
	uint32_t n = 512, v = 1, out[512];

	OK(CU(cuCtxSetCurrent)(ctx));
	OK(CU(cuStreamCreate)(&s, CU_STREAM_NON_BLOCKING));
	OK(CU(cuEventCreate)(&e, 0));
	CUfunction add = gpu_kernel("add");
	for (int round = 0; round < 10; round++) {
		OK(CU(cuMemAllocAsync)(&p, 2048, s));
		OK(CU(cuMemsetD32Async)(p, 0, 512, s));
		for (int i = 0; i < 10; i++)
			OK(gpu_launch(add, 2, 256, s, (void *[]){ &p, &n, &v }));
		OK(CU(cuEventRecord)(e, s));
		OK(CU(cuEventSynchronize)(e));
		OK(CU(cuMemcpyDtoHAsync_v2)(out, p, 2048, s));
		OK(CU(cuMemFreeAsync)(p, s));
		CHECK(out[0] == 10 && out[511] == 10);
	}
	OK(CU(cuStreamSynchronize)(s));
	OK(CU(cuEventDestroy_v2)(e));
	OK(CU(cuStreamDestroy_v2)(s));
	return NULL;
}

TEST(threads)
{
	pthread_t threads[4];
	CUcontext ctx;

	gpu_start();
	gpu_kernel("add");
	OK(CU(cuCtxGetCurrent)(&ctx));
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, worker, ctx);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	OK(CU(cuCtxSynchronize)());
	CHECK_INT(gpu_used(), 0);
}

TEST_MAIN()
