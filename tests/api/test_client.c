/*
 * The client library by itself, in front of fake.c, and again in front of the software GPU (SOFT): initialisation, fork, contexts, context-local storage, private tables,
 * the map of names, traces and logs. Every test is a process of its own.
 */
#include "tap.h"

#include <pthread.h>
#include <stdint.h>
#include <strings.h>

#include "lib.h"

#define CHECK_CU(call, want) CHECK_INT((call), (want))
#define OK CUDA_SUCCESS
#define FAKE_ONLY() \
	do { \
		if (getenv("SOFT")) \
			SKIP("needs the fake device"); \
	} while (0)

static const uint8_t guid_cudart[16] = { 0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a,
	                                 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9 };
static const uint8_t guid_hooks[16] = { 0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74,
	                                0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66 };
static const uint8_t guid_storage[16] = { 0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11,
	                                  0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93 };
static const uint8_t guid_context[16] = { 0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48,
	                                  0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8, 0xf2 };
static const uint8_t guid_unknown[16] = { 0xf8, 0xcf, 0xf9, 0x51, 0x21, 0x46, 0x8b, 0x4e,
	                                  0xb9, 0xe2, 0xfb, 0x46, 0x9e, 0x7c, 0x0d, 0xd9 };

typedef void (*destructor)(CUcontext ctx, void *key, void *value);

struct storage { /* the private table of context-local storage */
	CUresult (*put)(CUcontext ctx, void *key, void *value, destructor destructor);
	CUresult (*delete)(CUcontext ctx, void *key);
	CUresult (*get)(void **value, CUcontext ctx, void *key);
};

static const void *
table(const uint8_t guid[16])
{
	const void *found = NULL;
	CUuuid id;

	memcpy(id.bytes, guid, 16);
	CHECK_CU(CU(cuGetExportTable)(&found, &id), OK);
	return found;
}

static CUcontext
new_context(void)
{
	CUcontext ctx = NULL;

	CHECK_CU(CU(cuCtxCreate_v2)(&ctx, 0, 0), OK);
	return ctx;
}

static CUcontext
current(void)
{
	CUcontext ctx = (CUcontext)(uintptr_t)1;

	CHECK_CU(CU(cuCtxGetCurrent)(&ctx), OK);
	return ctx;
}

/* ---- before, without and after a device ---------------------------------------------------------------------------- */

TEST(before_init)
{
	int number = 77;
	CUdeviceptr pointer = 77;
	CUcontext ctx = (CUcontext)(uintptr_t)77;

	CHECK_CU(CU(cuDriverGetVersion)(&number), OK);
	CHECK_INT(number, 13010);
	number = 77;
	CHECK_CU(CU(cuDeviceGetCount)(&number), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_INT(number, 77);
	CHECK_CU(CU(cuMemAlloc_v2)(&pointer, 16), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_INT(pointer, 77);
	CHECK_CU(CU(cuCtxGetCurrent)(&ctx), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_INT((uintptr_t)ctx, 77);
	CHECK_CU(CU(cuCtxSetCurrent)(NULL), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_CU(CU(cuProfilerStart)(), CUDA_ERROR_NOT_INITIALIZED);
}

TEST(init)
{
	int count = 0;

	CHECK_CU(CU(cuInit)(1), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuDeviceGetCount)(&count), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_CU(CU(cuInit)(0), OK);
	CHECK_CU(CU(cuInit)(0), OK);
	CHECK_CU(CU(cuDeviceGetCount)(&count), OK);
	CHECK_INT(count, 1);
	CHECK_CU(CU(cuDeviceGetCount)(NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuMemGetInfo_v2)(NULL, NULL), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuDriverGetVersion)(NULL), CUDA_ERROR_INVALID_VALUE);
}

TEST(visible_devices)
{
	/* UUID of the fake: 10111213-1415-1617-1819-1a1b1c1d1e1f */
	static const struct {
		const char *list;
		CUresult want;
	} rows[] = {
		{ "0", OK }, { " 0 ", OK }, { "0,1", OK }, { "0,-1", OK }, { "0,", OK },
		{ "GPU-10111213", OK }, { "gpu-10111213-1415-1617-1819-1a1b1c1d1e1f", OK }, { "GPU-1,0x", OK },
		{ "", CUDA_ERROR_NO_DEVICE }, { "-1", CUDA_ERROR_NO_DEVICE }, { "NoDevFiles", CUDA_ERROR_NO_DEVICE },
		{ "1", CUDA_ERROR_NO_DEVICE }, { "1,0", CUDA_ERROR_NO_DEVICE }, { "-1,0", CUDA_ERROR_NO_DEVICE },
		{ ",0", CUDA_ERROR_NO_DEVICE }, { "0,0", CUDA_ERROR_NO_DEVICE }, { "GPU-x20", CUDA_ERROR_NO_DEVICE },
		{ "MIG-10111213-1415-1617-1819-1a1b1c1d1e1f", CUDA_ERROR_NO_DEVICE }, { "0 1", CUDA_ERROR_NO_DEVICE },
		{ "99999999999999999999", CUDA_ERROR_NO_DEVICE },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int status = 0;
		if (getenv("SOFT") && strncasecmp(rows[i].list, "GPU-1", 5) == 0)
			continue; /* the fake's */
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			setenv("CUDA_VISIBLE_DEVICES", rows[i].list, 1);
			_exit(CU(cuInit)(0) == rows[i].want ? 0 : 1);
		}
		waitpid(child, &status, 0);
		if (status != 0)
			printf("# list \"%s\"\n", rows[i].list);
		CHECK_INT(status, 0);
	}
}

TEST(no_device_each_time)
{
	int count = 5;

	setenv("CUDA_VISIBLE_DEVICES", "-1", 1);
	CHECK_CU(CU(cuInit)(0), CUDA_ERROR_NO_DEVICE);
	CHECK_CU(CU(cuInit)(0), CUDA_ERROR_NO_DEVICE);
	CHECK_CU(CU(cuDeviceGetCount)(&count), CUDA_ERROR_NOT_INITIALIZED);
	CHECK_INT(count, 5);
	unsetenv("CUDA_VISIBLE_DEVICES");
	CHECK_CU(CU(cuInit)(0), OK);
}

TEST(bad_settings)
{
	static const char *const rows[][2] = {
		{ "FARWARP_DEVICE", "gpu9" }, { "FARWARP_SOFT_CC", "7.4" }, { "FARWARP_SOFT_CC", "12.2" },
		{ "FARWARP_SOFT_CC", "eight" }, { "FARWARP_SOFT_CC", "8.6x" }, { "FARWARP_SOFT_MEM", "lots" },
		{ "FARWARP_SOFT_MEM", "0" }, { "FARWARP_SOFT_MEM", "-1G" }, { "FARWARP_SOFT_MEM", "1Gx" },
		{ "FARWARP_SOFT_SMS", "0" }, { "FARWARP_SOFT_THREADS", "2.5" },
	};

	setenv("FARWARP_LOG", "error:/dev/null", 1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		setenv(rows[i][0], rows[i][1], 1);
		if (CU(cuInit)(0) != CUDA_ERROR_INVALID_VALUE) {
			printf("# %s=%s was taken\n", rows[i][0], rows[i][1]);
			CHECK(0);
		}
		unsetenv(rows[i][0]);
	}
	setenv("FARWARP_SOFT_CC", "9.0", 1);
	setenv("FARWARP_SOFT_MEM", "1.5GiB", 1);
	setenv("FARWARP_SOFT_SMS", "4", 1);
	CHECK_CU(CU(cuInit)(0), OK);
}

static int
in_child(int (*what)(void))
{
	int status = 0;

	fflush(stdout);
	pid_t child = fork();
	if (child == 0)
		_exit(what());
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int
child_calls(void)
{
	int count = 0, version = 0;
	CUcontext ctx;

	if (CU(cuInit)(0) != CUDA_ERROR_NOT_INITIALIZED || CU(cuDeviceGetCount)(&count) != CUDA_ERROR_NOT_INITIALIZED)
		return 1;
	if (CU(cuCtxGetCurrent)(&ctx) != CUDA_ERROR_NOT_INITIALIZED || CU(cuDriverGetVersion)(&version) != OK)
		return 2;
	return 0;
}

static int
child_inits(void)
{
	return CU(cuInit)(0) != OK || new_context() == NULL;
}

TEST(fork_after_init)
{
	CHECK_CU(CU(cuInit)(0), OK);
	CUcontext ctx = new_context();
	CHECK_INT(in_child(child_calls), 0);
	CHECK(current() == ctx);
}

TEST(fork_before_init)
{
	lib_open();
	CHECK_INT(in_child(child_inits), 0);
	CHECK_CU(CU(cuInit)(0), OK);
}

static void
at_exit(void)
{
	int count = 0;

	if (CU(cuDeviceGetCount)(&count) != OK)
		_exit(2);
}

static int
child_exits(void)
{
	atexit(at_exit);
	if (CU(cuInit)(0) != OK)
		return 1;
	exit(0);
}

/* Exit handlers of the program, also older ones, may still use the device; nothing crashes. */
TEST(exit_is_quiet)
{
	CHECK_INT(in_child(child_exits), 0);
}

/* ---- contexts ------------------------------------------------------------------------------------------------------- */

TEST(stack)
{
	CUcontext popped = NULL, a, b;

	CHECK_CU(CU(cuInit)(0), OK);
	CHECK(current() == NULL);
	CHECK_CU(CU(cuCtxPopCurrent_v2)(&popped), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuCtxPushCurrent_v2)(NULL), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuCtxPushCurrent_v2)((CUcontext)(uintptr_t)0x1234), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuCtxSetCurrent)((CUcontext)(uintptr_t)0x1234), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuCtxSetCurrent)(NULL), OK);
	a = new_context();
	b = new_context();
	CHECK(a && b && a != b && current() == b);
	CHECK_CU(CU(cuCtxPopCurrent_v2)(&popped), OK);
	CHECK(popped == b && current() == a);
	CHECK_CU(CU(cuCtxSetCurrent)(b), OK); /* replaces a */
	CHECK(current() == b);
	CHECK_CU(CU(cuCtxPopCurrent_v2)(NULL), OK);
	CHECK(current() == NULL);
	for (int i = 0; i < 100; i++)
		CHECK_CU(CU(cuCtxPushCurrent_v2)(i % 2 ? a : b), OK);
	for (int i = 99; i >= 0; i--) {
		CHECK_CU(CU(cuCtxPopCurrent_v2)(&popped), OK);
		CHECK(popped == (i % 2 ? a : b));
	}
	CHECK(current() == NULL);
}

TEST(destroy)
{
	CUdeviceptr pointer;
	CUdevice device = 5;
	unsigned version = 0;
	unsigned long long id = 0, other = 0;
	CUcontext a, b;

	CHECK_CU(CU(cuInit)(0), OK);
	CHECK_CU(CU(cuCtxGetDevice)(&device), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuCtxGetId)(NULL, &id), CUDA_ERROR_INVALID_CONTEXT);
	a = new_context();
	b = new_context();
	CHECK_CU(CU(cuCtxGetDevice)(&device), OK);
	CHECK_INT(device, 0);
	CHECK_CU(CU(cuCtxGetApiVersion)(a, &version), OK);
	CHECK_INT(version, 3020);
	CHECK_CU(CU(cuCtxGetId)(NULL, &id), OK);
	CHECK_CU(CU(cuCtxGetId)(a, &other), OK);
	CHECK(id != 0 && other != 0 && id != other);
	CHECK_CU(CU(cuCtxDestroy_v2)(NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuCtxDestroy_v2)(b), OK); /* current: popped */
	CHECK(current() == a);
	CHECK_CU(CU(cuCtxDestroy_v2)(b), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuCtxGetApiVersion)(b, &version), CUDA_ERROR_INVALID_CONTEXT);
	b = new_context();
	CHECK_CU(CU(cuCtxDestroy_v2)(a), OK); /* below the top: stays on the stack */
	CHECK(current() == b);
	CHECK_CU(CU(cuCtxPopCurrent_v2)(NULL), OK);
	CHECK(current() == a);
	CHECK_CU(CU(cuMemAlloc_v2)(&pointer, 1), CUDA_ERROR_CONTEXT_IS_DESTROYED);
	CHECK_CU(CU(cuCtxGetDevice)(&device), CUDA_ERROR_CONTEXT_IS_DESTROYED);
	CHECK_CU(CU(cuCtxSetCurrent)(b), OK);
	CHECK_CU(CU(cuMemAlloc_v2)(&pointer, 1), OK);
	CHECK_CU(CU(cuMemFree_v2)(pointer), OK);
}

TEST(attach)
{
	CUcontext ctx = NULL, a;

	CHECK_CU(CU(cuInit)(0), OK);
	CHECK_CU(CU(cuCtxAttach)(&ctx, 0), CUDA_ERROR_INVALID_CONTEXT);
	a = new_context();
	CHECK_CU(CU(cuCtxAttach)(&ctx, 1), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuCtxAttach)(&ctx, 0), OK);
	CHECK(ctx == a);
	CHECK_CU(CU(cuCtxDetach)(a), OK);
	CHECK(current() == a);
	CHECK_CU(CU(cuCtxDetach)(a), OK);
	CHECK(current() == NULL);
	CHECK_CU(CU(cuCtxDetach)(a), CUDA_ERROR_INVALID_CONTEXT);
}

TEST(primary)
{
	CUresult (*primary_context)(CUcontext *, CUdevice);
	CUcontext before = NULL, ctx = NULL;

	CHECK_CU(CU(cuInit)(0), OK);
	memcpy(&primary_context, (char *)table(guid_cudart) + 16, sizeof(primary_context));
	CHECK_CU(primary_context(&before, 0), OK);
	CHECK_CU(primary_context(&ctx, 3), CUDA_ERROR_INVALID_DEVICE);
	CHECK_CU(CU(cuCtxSetCurrent)(before), OK);
	CHECK_CU(CU(cuDevicePrimaryCtxRetain)(&ctx, 0), OK);
	CHECK(before == ctx && current() == ctx);
	CHECK_CU(CU(cuCtxDestroy_v2)(ctx), CUDA_ERROR_INVALID_CONTEXT);
	CHECK_CU(CU(cuDevicePrimaryCtxRelease_v2)(0), OK);
	CHECK_CU(CU(cuDevicePrimaryCtxRelease)(0), CUDA_ERROR_INVALID_CONTEXT);
}

static void *
thread_has_none(void *ctx)
{
	CHECK(current() == NULL);
	CHECK_CU(CU(cuCtxSetCurrent)(ctx), OK);
	for (int i = 0; i < 20; i++)
		CHECK_CU(CU(cuCtxPushCurrent_v2)(ctx), OK);
	return NULL;
}

TEST(threads)
{
	pthread_t thread[4];

	CHECK_CU(CU(cuInit)(0), OK);
	CUcontext ctx = new_context();
	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, thread_has_none, ctx);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	CHECK(current() == ctx);
}

/* ---- context-local storage --------------------------------------------------------------------------------------------- */

static int destroyed;
static CUcontext destroyed_context;

static void
count_destroyed(CUcontext ctx, void *key, void *value)
{
	destroyed += (int)(uintptr_t)value;
	destroyed_context = ctx;
}

TEST(storage)
{
	char keys[40];
	void *value = &keys;
	CUcontext a;

	CHECK_CU(CU(cuInit)(0), OK);
	const struct storage *storage = table(guid_storage);
	CHECK_CU(storage->get(&value, NULL, &keys[0]), CUDA_ERROR_INVALID_CONTEXT);
	a = new_context();
	CHECK(storage->get(&value, NULL, &keys[0]) != OK && value == &keys);
	for (int i = 0; i < 40; i++)
		CHECK_CU(storage->put(i % 2 ? a : NULL, &keys[i], (void *)(uintptr_t)(i + 1), i % 2 ? NULL : count_destroyed), OK);
	for (int i = 0; i < 40; i++) {
		CHECK_CU(storage->get(&value, a, &keys[i]), OK);
		CHECK_INT((uintptr_t)value, i + 1);
	}
	CHECK_CU(storage->put(a, &keys[0], (void *)(uintptr_t)7, count_destroyed), OK);
	CHECK_CU(storage->get(&value, NULL, &keys[0]), OK);
	CHECK_INT((uintptr_t)value, 7);
	for (int i = 2; i < 40; i++)
		CHECK_CU(storage->delete(a, &keys[i]), OK);
	CHECK(storage->delete(a, &keys[2]) != OK);
	CHECK(storage->get(&value, a, &keys[2]) != OK);
	CHECK_CU(CU(cuCtxDestroy_v2)(a), OK);
	CHECK_INT(destroyed, 7);
	CHECK(destroyed_context == a);
	CHECK_CU(storage->get(&value, a, &keys[0]), CUDA_ERROR_INVALID_CONTEXT);
	a = new_context(); /* may use the same record */
	CHECK(storage->get(&value, a, &keys[0]) != OK);
}

TEST(storage_of_the_primary)
{
	char key;
	void *value;
	CUcontext ctx;

	CHECK_CU(CU(cuInit)(0), OK);
	const struct storage *storage = table(guid_storage);
	CHECK_CU(CU(cuDevicePrimaryCtxRetain)(&ctx, 0), OK);
	CHECK_CU(CU(cuDevicePrimaryCtxRetain)(&ctx, 0), OK);
	CHECK_CU(storage->put(ctx, &key, (void *)(uintptr_t)1, count_destroyed), OK);
	CHECK_CU(CU(cuDevicePrimaryCtxRelease_v2)(0), OK);
	CHECK_CU(storage->get(&value, ctx, &key), OK);
	CHECK_CU(CU(cuDevicePrimaryCtxReset_v2)(0), OK);
	CHECK_INT(destroyed, 1);
	CHECK(storage->get(&value, ctx, &key) != OK);
	CHECK_CU(storage->put(ctx, &key, (void *)(uintptr_t)10, count_destroyed), OK);
	CHECK_CU(CU(cuDevicePrimaryCtxRelease_v2)(0), OK);
	CHECK_INT(destroyed, 11);
}

static CUcontext shared_context;

static void *
storage_thread(void *user)
{
	const struct storage *storage = table(guid_storage);
	static char keys[8];
	size_t me = (size_t)(uintptr_t)user;

	for (uintptr_t i = 1; i < 20000; i++) {
		void *value = NULL;
		if (storage->put(shared_context, &keys[me], (void *)(me << 32 | i), NULL) != OK ||
		    storage->get(&value, shared_context, &keys[me]) != OK || value != (void *)(me << 32 | i) ||
		    storage->delete(shared_context, &keys[me]) != OK || storage->get(&value, shared_context, &keys[me]) == OK)
			return (void *)1;
	}
	return NULL;
}

TEST(storage_of_many_threads)
{
	pthread_t thread[4];

	CHECK_CU(CU(cuInit)(0), OK);
	shared_context = new_context();
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, storage_thread, (void *)i);
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(thread[i], &failed);
		CHECK(failed == NULL);
	}
}

/* ---- private tables ---------------------------------------------------------------------------------------------------- */

TEST(tables)
{
	const void *found = &found;
	CUuuid id;
	void (*flags)(uint32_t **, size_t *);
	CUresult (*context_number)(CUcontext, uint64_t *), (*stream_number)(CUcontext, void *, uint64_t *),
		(*stream_object)(CUcontext, CUstream, void **);
	uint32_t *array = NULL;
	size_t count = 0;
	uint64_t number = 1;
	void *object = NULL;

	memcpy(id.bytes, guid_unknown, 16);
	CHECK_CU(CU(cuGetExportTable)(&found, &id), CUDA_ERROR_INVALID_VALUE);
	CHECK(found == NULL);
	CHECK_CU(CU(cuGetExportTable)(&found, NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuGetExportTable)(NULL, &id), CUDA_ERROR_INVALID_VALUE);
	void *const *hooks = table(guid_hooks);
	CHECK_INT((uintptr_t)hooks[0], 7 * 8);
	CHECK(table(guid_hooks) == hooks);
	memcpy(&flags, &hooks[2], sizeof(flags));
	flags(&array, &count);
	CHECK(count >= 523 && array);
	for (size_t i = 0; i < count; i++)
		CHECK_INT(array[i], 0);
	memcpy(&flags, &hooks[6], sizeof(flags));
	flags(&array, &count);
	CHECK(count >= 14 && array);
	void *const *context = table(guid_context);
	memcpy(&context_number, &context[4], sizeof(context_number));
	memcpy(&stream_number, &context[39], sizeof(stream_number));
	memcpy(&stream_object, &context[51], sizeof(stream_object));
	CHECK_CU(CU(cuInit)(0), OK);
	CUcontext ctx = new_context();
	CHECK_CU(context_number(NULL, &number), OK);
	CHECK_INT(number, 0);
	CHECK_CU(context_number(ctx, &number), OK);
	CHECK(number != 0);
	CHECK_CU(stream_object(ctx, NULL, &object), OK);
	CHECK(object != NULL);
	CHECK_CU(stream_number(ctx, object, &number), OK);
	CHECK(number != 0);
	/* Slots that nobody uses answer instead of crashing. */
	for (uintptr_t i = 1; i < (uintptr_t)context[0] / 8; i++)
		CHECK(context[i] != NULL);
}

/* ---- names, traces, messages ------------------------------------------------------------------------------------------- */

TEST(error_names)
{
	const char *text = "x";

	CHECK_CU(CU(cuGetErrorName)(CUDA_ERROR_NO_BINARY_FOR_GPU, &text), OK);
	CHECK_STR(text, "CUDA_ERROR_NO_BINARY_FOR_GPU");
	CHECK_CU(CU(cuGetErrorString)(CUDA_ERROR_OUT_OF_MEMORY, &text), OK);
	CHECK_STR(text, "out of memory");
	CHECK_CU(CU(cuGetErrorName)((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
	CHECK(text == NULL);
	text = "x";
	CHECK_CU(CU(cuGetErrorString)((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
	CHECK(text == NULL);
}

TEST(proc_address_edges)
{
	static const struct {
		const char *name;
		int version;
		uint64_t flags;
		int status;
		const char *symbol; /* NULL: none */
	} rows[] = { /* as a real driver answers */
		{ "", 0, 0, 1, NULL }, { "", 12000, 0, 1, NULL }, { "cuInit", 2000, 0, 0, "cuInit" }, { "cuInit", 1999, 0, 2, NULL },
		{ "cuInit", 2000, 1, 0, "cuInit" }, { "cuInit", 2000, 2, 0, "cuInit" }, { "cuInit", 2000, 3, 0, "cuInit" },
		{ "cuMemAlloc", 3020, 0, 0, "cuMemAlloc_v2" }, { "cuMemAlloc", 2000, 0, 0, "cuMemAlloc" },
		{ "cuMemAlloc", 99999, 0, 0, "cuMemAlloc_v2" }, { "cuMemAlloc", -1, 0, 0, "cuMemAlloc_v2" },
		{ "cuMemAlloc_v2", 13000, 0, 1, NULL }, { "cuNope", 13000, 0, 1, NULL },
		{ "cuMemcpyHtoD", 6999, 2, 2, NULL }, { "cuMemcpyHtoD", 7000, 2, 0, "cuMemcpyHtoD_v2_ptds" },
		{ "cuMemcpyHtoD", 7000, 1, 0, "cuMemcpyHtoD_v2" }, { "cuMemcpy", 4000, 2, 2, NULL },
		{ "cuGraphAddNode", 12030, 0, 0, "cuGraphAddNode_v2" }, { "cuGraphAddNode", 12020, 0, 0, "cuGraphAddNode" },
		{ "cuGLInit", 13000, 0, 1, NULL }, { "cuEGLStreamConsumerConnect", 13000, 0, 1, NULL },
		{ "cuVDPAUGetDevice", 13000, 0, 1, NULL }, { "cuGetProcAddress", 12000, 0, 0, "cuGetProcAddress_v2" },
	};
	void *found;
	CUdriverProcAddressQueryResult status;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		void *want = rows[i].symbol ? lib_symbol(rows[i].symbol) : NULL;
		found = &found;
		CHECK_CU(CU(cuGetProcAddress_v2)(rows[i].name, &found, rows[i].version, rows[i].flags, &status), OK);
		if ((int)status != rows[i].status || found != want)
			printf("# %s %d\n", rows[i].name, rows[i].version);
		CHECK_INT(status, rows[i].status);
		CHECK(found == want);
		found = &found;
		CHECK_CU(CU(cuGetProcAddress_v2)(rows[i].name, &found, rows[i].version, rows[i].flags, NULL), OK);
		CHECK(found == want);
		CHECK_CU(CU(cuGetProcAddress)(rows[i].name, &found, rows[i].version, rows[i].flags),
		         want ? OK : CUDA_ERROR_NOT_FOUND);
	}
	CHECK_CU(CU(cuGetProcAddress_v2)("cuInit", &found, 2000, 4, &status), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuGetProcAddress_v2)(NULL, &found, 2000, 0, &status), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuGetProcAddress_v2)("cuInit", NULL, 2000, 0, &status), CUDA_ERROR_INVALID_VALUE);
}

/* Every row of the golden map, and every version around it, against a search of the golden file itself. */
TEST(proc_address_map)
{
	static struct row {
		char base[100], family[16], symbol[110];
		int abi;
	} rows[1024];
	int count = 0;
	FILE *file = fopen(getenv("PROCS"), "r");

	CHECK(file != NULL);
	while (file && count < 1024 && fscanf(file, "%99s %15s %d %109s", rows[count].base, rows[count].family, &rows[count].abi,
	                                      rows[count].symbol) == 4)
		count++;
	CHECK_INT(count, 637);
	for (int i = 0; i < count; i++)
		for (int delta = -1; delta <= 1; delta++) {
			const struct row *best = NULL;
			int threaded = strcmp(rows[i].family, "plain") != 0, version = rows[i].abi + delta;
			for (int j = 0; j < count; j++)
				if (strcmp(rows[j].base, rows[i].base) == 0 && strcmp(rows[j].family, rows[i].family) == 0 &&
				    rows[j].abi <= version && (!best || rows[j].abi > best->abi))
					best = &rows[j];
			void *found = NULL;
			CHECK_CU(CU(cuGetProcAddress_v2)(rows[i].base, &found, version, threaded ? 2 : 0, NULL), OK);
			CHECK(found == (best ? lib_symbol(best->symbol) : NULL));
		}
}

/* A twin without a stream argument tells the device that it means the per-thread default stream. */
TEST(per_thread_twins)
{
	char *bytes;
	CUdeviceptr pointer = 0;

	FAKE_ONLY();
	CHECK_CU(CU(cuInit)(0), OK);
	new_context();
	CHECK_CU(CU(cuMemAlloc_v2)(&pointer, 4), OK);
	bytes = (char *)(uintptr_t)pointer;
	CHECK_CU(CU(cuMemcpy)(pointer, 0, 4), OK);
	CHECK_INT(bytes[0], 1);
	CHECK_CU(((CUresult(*)(CUdeviceptr, CUdeviceptr, size_t))lib_symbol("cuMemcpy_ptds"))(pointer, 0, 4), OK);
	CHECK_INT(bytes[0], 2);
	CHECK_CU(CU(cuMemcpy)(pointer, 0, 4), OK);
	CHECK_INT(bytes[0], 1);
	unsigned long long id = 0;
	CHECK_CU(CU(cuStreamGetId)(NULL, &id), OK);
	CHECK_INT(id, 0);
	CHECK_CU(((CUresult(*)(CUstream, unsigned long long *))lib_symbol("cuStreamGetId_ptsz"))(NULL, &id), OK);
	CHECK_INT(id, 2);
	CHECK_CU(CU(cuMemFree_v2)(pointer), OK);
}

/* Every output that must be there: NULL for it is CUDA_ERROR_INVALID_VALUE, and nothing is touched. */
TEST(null_outputs)
{
	static long scratch[512];
	int count = 0;

	setenv("FARWARP_LOG", "error", 1);
	CHECK_CU(CU(cuInit)(0), OK);
	new_context();
#define NULL_TEST(symbol, parameter, ...) \
	count++; \
	if (CU(symbol)(__VA_ARGS__) != CUDA_ERROR_INVALID_VALUE) { \
		printf("# NULL for " #parameter " of " #symbol "\n"); \
		CHECK(0); \
	}
#include "cuda_null_tests.inc"
	CHECK(count > 200);
}

static char *
read_file(const char *path)
{
	static char text[65536];
	FILE *file = fopen(path, "r");
	size_t size = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

	text[size] = 0;
	if (file)
		fclose(file);
	return text;
}

TEST(trace)
{
	char path[] = "/tmp/farwarp-trace-XXXXXX", setting[64];
	CUdeviceptr pointer;
	int fd = mkstemp(path);

	CHECK(fd >= 0);
	snprintf(setting, sizeof(setting), "calls:%s", path);
	setenv("FARWARP_LOG", setting, 1);
	CHECK_CU(CU(cuInit)(0), OK);
	new_context();
	CHECK_CU(CU(cuMemAlloc_v2)(&pointer, 4096), OK);
	CHECK_CU(CU(cuMemFree_v2)(pointer), OK);
	CHECK_CU(CU(cuModuleLoad)(NULL, "a \"file\"\n"), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuMulticastAddDevice)(0, 0), CUDA_ERROR_NOT_SUPPORTED);
	char *text = read_file(path);
	CHECK(strstr(text, "cuInit(Flags 0) = CUDA_SUCCESS ") != NULL);
	CHECK(strstr(text, "cuMemAlloc_v2(bytesize 4096) = CUDA_SUCCESS {dptr 0x") != NULL);
	CHECK(strstr(text, "cuModuleLoad(module NULL, fname \"a \\x22file\\x22\\x0a\") = CUDA_ERROR_INVALID_VALUE ") != NULL);
	CHECK(strstr(text, "cuMulticastAddDevice is not served") != NULL);
	unlink(path);
	close(fd);
}

static char heard[256];

static void
hear(void *user, CUlogLevel level, char *message, size_t length)
{
	snprintf(heard, sizeof(heard), "%d %s", (int)level, message);
	CHECK_INT(length, strlen(message));
}

TEST(logs)
{
	CUlogsCallbackHandle handle = NULL;
	CUlogIterator here = 0;
	char text[400];
	size_t size = sizeof(text);

	setenv("FARWARP_LOG", "warn:/dev/null", 1);
	CHECK_CU(CU(cuInit)(0), OK);
	CHECK_CU(CU(cuLogsRegisterCallback)(NULL, NULL, &handle), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuLogsRegisterCallback)(hear, NULL, &handle), OK);
	CHECK_CU(CU(cuLogsCurrent)(&here, 0), OK);
	new_context();
	CHECK_CU(CU(cuMulticastAddDevice)(0, 0), CUDA_ERROR_NOT_SUPPORTED);
	CHECK(strstr(heard, "cuMulticastAddDevice is not served") != NULL && heard[0] == '1');
	CHECK_CU(CU(cuLogsDumpToMemory)(&here, text, &size, 0), OK);
	CHECK(strstr(text, "cuMulticastAddDevice is not served") != NULL);
	CHECK_INT(size, strlen(text));
	size = sizeof(text);
	CHECK_CU(CU(cuLogsDumpToMemory)(&here, text, &size, 0), OK);
	CHECK_INT(size, 0);
	size = 10;
	CHECK_CU(CU(cuLogsDumpToMemory)(NULL, text, &size, 0), OK);
	CHECK_INT(size, 0);
	CHECK_CU(CU(cuLogsUnregisterCallback)(handle), OK);
	CHECK_CU(CU(cuLogsUnregisterCallback)(handle), CUDA_ERROR_INVALID_VALUE);
	CHECK_CU(CU(cuLogsDumpToFile)(NULL, "/nonexistent/file", 0), CUDA_ERROR_FILE_NOT_FOUND);
}

TEST(loading_mode)
{
	CUmoduleLoadingMode mode = 0;

	CHECK_CU(CU(cuInit)(0), OK);
	CHECK_CU(CU(cuModuleGetLoadingMode)(&mode), OK);
	CHECK_INT(mode, CU_MODULE_LAZY_LOADING);
	setenv("CUDA_MODULE_LOADING", "EAGER", 1);
	CHECK_CU(CU(cuModuleGetLoadingMode)(&mode), OK);
	CHECK_INT(mode, CU_MODULE_EAGER_LOADING);
}

TEST_MAIN()
