/*
 * cuGetExportTable: private tables of functions that the CUDA runtime and NVIDIA's libraries ask a driver for.
 *
 * What is served was learnt by watching what those libraries ask for and how they take the answers; see the list at each
 * table. A slot that nobody was seen to call logs its table and number and answers CUDA_ERROR_NOT_SUPPORTED. A table that
 * nobody needs is not served: CUDA_ERROR_INVALID_VALUE, as a real driver answers for a table that it does not know.
 *
 * Word 0 of a table is its size in bytes (except in the table of context-local storage).
 */
#include "client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/ours.h"
#include "client/trace.h"

#define CALLBACK_IDS 1024 /* elements of the flag arrays; the runtime wants at least 523 and 14 */

/* ---- slots that nobody was seen to call ---------------------------------------------------------------------------- */

#define MAX_WORDS 80

static CUresult
unknown_slot(int slot)
{
	static bool said[MAX_WORDS];

	if (!__atomic_exchange_n(&said[slot], true, __ATOMIC_RELAXED))
		fw_warn("client", "slot %d of a private table is not served, answered CUDA_ERROR_NOT_SUPPORTED", slot);
	return CUDA_ERROR_NOT_SUPPORTED;
}

/* One function a slot number, so that the log can name it; which table it was, a debugger tells. */
#define UNKNOWN_LIST(X) \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) \
	X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31) X(32) X(33) X(34) X(35) X(36) X(37) X(38) \
	X(39) X(40) X(41) X(42) X(43) X(44) X(45) X(46) X(47) X(48) X(49) X(50) X(51) X(52) X(53) X(54) X(55) X(56) X(57) \
	X(58) X(59) X(60) X(61) X(62) X(63) X(64) X(65) X(66) X(67) X(68) X(69) X(70) X(71) X(72) X(73) X(74) X(75) X(76)
#define UNKNOWN(n) \
	static CUresult unknown_##n(void) \
	{ \
		return unknown_slot(n); \
	}
UNKNOWN_LIST(UNKNOWN)
#define UNKNOWN_NAME(n) (void *)unknown_##n,
static void *const unknown_slots[] = { UNKNOWN_LIST(UNKNOWN_NAME) };
#define UNKNOWN_COUNT ((int)(sizeof(unknown_slots) / sizeof(unknown_slots[0])))

/* ---- what the runtime asks at its start: the primary context ------------------------------------------------------- */

static CUresult
cudart_primary_context(CUcontext *ctx, CUdevice dev)
{
	CUresult result = cl_enter(CL_NEEDS_INIT);

	if (result == CUDA_SUCCESS && !ctx)
		result = CUDA_ERROR_INVALID_VALUE;
	return result == CUDA_SUCCESS ? cl_context_primary(ctx, dev) : result;
}

/* Module loaders of older runtimes. */
static CUresult
cudart_load(CUmodule *module, const void *wrapper)
{
	return cuModuleLoadData(module, wrapper);
}

static CUresult
cudart_load_options(CUmodule *module, const void *wrapper, void *a, void *b, unsigned c)
{
	return cuModuleLoadData(module, wrapper);
}

static CUresult
cudart_load_header(const void *fatbin, CUmodule *module, void *a, void *b, unsigned c)
{
	return cuModuleLoadData(module, fatbin);
}

static void
cudart_nothing(size_t a)
{
}

static CUresult
cudart_success(void)
{
	return CUDA_SUCCESS;
}

/* ---- hooks for tools: arrays of flags, one a call of the runtime; none is ever set --------------------------------- */

static uint32_t runtime_flags[CALLBACK_IDS], resource_flags[CALLBACK_IDS];

static void
tools_runtime_flags(uint32_t **flags, size_t *count)
{
	*flags = runtime_flags;
	*count = CALLBACK_IDS;
}

static void
tools_resource_flags(uint32_t **flags, size_t *count)
{
	*flags = resource_flags;
	*count = CALLBACK_IDS;
}

static CUresult
tools_current_context(CUcontext *ctx)
{
	CUresult result = cl_enter(CL_NEEDS_INIT);

	if (result == CUDA_SUCCESS && !ctx)
		result = CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS)
		*ctx = fw_thread.ctx;
	return result;
}

/* ---- context-local storage ------------------------------------------------------------------------------------------ */

static CUresult
find_context(CUcontext ctx, struct cl_context **context)
{
	CUresult result = cl_enter(CL_NEEDS_INIT);

	if (result != CUDA_SUCCESS)
		return result;
	*context = cl_context_find(ctx);
	return *context ? CUDA_SUCCESS : cl_context_missing(ctx);
}

static CUresult
storage_put(CUcontext ctx, void *key, void *value, cl_storage_destructor destructor)
{
	struct cl_context *context;
	CUresult result = find_context(ctx, &context);

	return result == CUDA_SUCCESS ? cl_storage_put(context, key, value, destructor) : result;
}

static CUresult
storage_delete(CUcontext ctx, void *key)
{
	struct cl_context *context;
	CUresult result = find_context(ctx, &context);

	return result == CUDA_SUCCESS ? cl_storage_delete(context, key) : result;
}

static CUresult
storage_get(void **value, CUcontext ctx, void *key)
{
	struct cl_context *context;
	CUresult result = find_context(ctx, &context);

	if (result == CUDA_SUCCESS && !value)
		result = CUDA_ERROR_INVALID_VALUE;
	return result == CUDA_SUCCESS ? cl_storage_get(context, key, value) : result;
}

/* ---- checks of a context: nothing stands against using one ---------------------------------------------------------- */

static CUresult
checks_context(CUcontext ctx, uint32_t *flag, void **pointer)
{
	if (flag)
		*flag = 0;
	return CUDA_SUCCESS;
}

static uint32_t
checks_none(void)
{
	return 0;
}

/* ---- numbers for contexts and streams, asked by cuBLAS, cuBLASLt and cuFFT ------------------------------------------ */

static char default_stream_object; /* its address stands for stream 0, which has no handle */

static CUresult
context_number(CUcontext ctx, uint64_t *number)
{
	if (!number)
		return CUDA_ERROR_INVALID_VALUE;
	struct cl_context *context = ctx ? cl_context_find(ctx) : NULL;
	*number = context ? context->id : 0;
	return CUDA_SUCCESS;
}

static CUresult
context_stream_object(CUcontext ctx, CUstream stream, void **object)
{
	if (!object)
		return CUDA_ERROR_INVALID_VALUE;
	*object = stream ? (void *)stream : &default_stream_object;
	return CUDA_SUCCESS;
}

/* Never 0, which would mean that the stream has no work of its own. */
static CUresult
context_stream_number(CUcontext ctx, void *object, uint64_t *number)
{
	unsigned long long id = 0;
	CUstream stream = object == &default_stream_object ? NULL : object;
	CUresult result = cl_enter(CL_NEEDS_CONTEXT);

	if (result == CUDA_SUCCESS && !number)
		result = CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS && !cl_ops->cuStreamGetId)
		result = cl_unserved(CALL_cuStreamGetId);
	if (result == CUDA_SUCCESS)
		result = cl_ops->cuStreamGetId(stream, &id);
	if (result == CUDA_SUCCESS)
		*number = id ? id : UINT64_MAX;
	return result;
}

/* ---- the functions of a module, asked by cuFFT ---------------------------------------------------------------------- */

/* Calls back for each function; 1 when done, 0 when not. */
static int
module_each_function(CUcontext ctx, CUmodule module, void (*visit)(void *user, CUfunction function, uint64_t zero), void *user)
{
	unsigned count = 0;

	if (!visit || cl_enter(CL_NEEDS_CONTEXT) != CUDA_SUCCESS || !cl_ops->cuModuleGetFunctionCount ||
	    !cl_ops->cuModuleEnumerateFunctions || cl_ops->cuModuleGetFunctionCount(&count, module) != CUDA_SUCCESS)
		return 0;
	CUfunction *functions = calloc(count ? count : 1, sizeof(*functions));
	if (!functions)
		return 0;
	int done = count == 0 || cl_ops->cuModuleEnumerateFunctions(functions, count, module) == CUDA_SUCCESS;
	for (unsigned i = 0; done && i < count; i++)
		visit(user, functions[i], 0);
	free(functions);
	return done;
}

/* ---- two pointers that cuBLASLt can do without ---------------------------------------------------------------------- */

static CUresult
pair_none(void **a, void **b)
{
	return CUDA_SUCCESS; /* the caller has set both to NULL */
}

/* ---- the tables ------------------------------------------------------------------------------------------------------ */

static CUresult validity_question(uint32_t id, uint64_t seconds, uint8_t answer[16]);

struct slot {
	int number;
	void *function;
	int arguments; /* shown in traces */
};
#define SLOTS 8 /* that a table serves at most */

static const struct table {
	const char *name;
	uint8_t guid[16];
	int words;
	bool sized; /* word 0 is the size in bytes */
	struct slot slots[SLOTS];
} tables[] = {
	/* T1: every copy of the runtime */
	{ "cudart interface",
	  { 0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9 },
	  13, true,
	  { { 1, cudart_load, 2 }, { 2, cudart_primary_context, 2 }, { 6, cudart_load_options, 4 }, { 7, cudart_nothing, 1 },
	    { 8, cudart_load_header, 4 }, { 12, cudart_success, 0 } } },
	/* T2: every copy of the runtime */
	{ "tools runtime callback hooks",
	  { 0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66 },
	  7, true,
	  { { 2, tools_runtime_flags, 2 }, { 6, tools_resource_flags, 2 } } },
	/* T3: every copy of the runtime; cuBLASLt and cuFFT use it before each use of T7 */
	{ "tools thread-local storage",
	  { 0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec, 0xdc },
	  4, true,
	  { { 2, tools_current_context, 1 } } },
	/* T4: every copy of the runtime, once per runtime call */
	{ "context-local storage",
	  { 0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93 },
	  4, false,
	  { { 0, storage_put, 4 }, { 1, storage_delete, 2 }, { 2, storage_get, 3 } } },
	/* T5: every copy of the runtime */
	{ "context checks",
	  { 0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa, 0x7e },
	  4, true,
	  { { 2, checks_context, 3 }, { 3, checks_none, 0 } } },
	/* T6: every copy of the runtime; see validity.c */
	{ "software validity",
	  { 0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1, 0xf2 },
	  3, true,
	  { { 1, validity_question, 3 } } },
	/* T7: cuBLASLt 4; cuBLAS 39, 51; cuFFT 4 */
	{ "tools context",
	  { 0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48, 0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8, 0xf2 },
	  77, true,
	  { { 4, context_number, 2 }, { 39, context_stream_number, 3 }, { 51, context_stream_object, 3 } } },
	/* T8: cuFFT */
	{ "tools module",
	  { 0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d, 0x83, 0x5c, 0xe1, 0x82, 0xaf, 0xf1, 0x99, 0x1e },
	  64, true,
	  { { 7, module_each_function, 4 } } },
	/* T9: cuBLASLt at capability 9.0; it does not check whether it got the table */
	{ "pair",
	  { 0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca },
	  16, true,
	  { { 4, pair_none, 2 } } },
};
#define TABLE_COUNT ((int)(sizeof(tables) / sizeof(tables[0])))
enum { TABLE_CUDART = 0, TABLE_VALIDITY = 5 };

static void *words[TABLE_COUNT][MAX_WORDS]; /* the tables as they are handed out; built once, at addresses that stay */
static pthread_once_t build_once = PTHREAD_ONCE_INIT;

/*
 * While calls are traced, a slot is one of these: it tells the trace and passes on what the registers hold, which is enough for functions
 * of up to six numbers and pointers. One for each slot that a table may serve.
 */
static uint64_t
traced_slot(unsigned table, unsigned slot, void *caller, const uint64_t a[6])
{
	const struct slot *s = &tables[table].slots[slot];
	uint64_t (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t) =
		(uint64_t(*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t))s->function;
	struct cl_slow slow;
	char name[64];

	snprintf(name, sizeof(name), "private:%s[%d]", tables[table].name, s->number);
	cl_trace_private_begin(&slow, table * SLOTS + slot, name, caller, (unsigned)s->arguments, a);
	uint64_t result = function(a[0], a[1], a[2], a[3], a[4], a[5]);
	cl_trace_private_end(&slow, result);
	return result;
}

#define TRACED_SLOTS(X, t) X(t, 0) X(t, 1) X(t, 2) X(t, 3) X(t, 4) X(t, 5) X(t, 6) X(t, 7)
#define TRACED_LIST(X) \
	TRACED_SLOTS(X, 0) TRACED_SLOTS(X, 1) TRACED_SLOTS(X, 2) TRACED_SLOTS(X, 3) TRACED_SLOTS(X, 4) TRACED_SLOTS(X, 5) TRACED_SLOTS(X, 6) \
	TRACED_SLOTS(X, 7) TRACED_SLOTS(X, 8)
#define TRACED(t, s) \
	static uint64_t traced_##t##_##s(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) \
	{ \
		return traced_slot(t, s, __builtin_return_address(0), (const uint64_t[]){ a, b, c, d, e, f }); \
	}
TRACED_LIST(TRACED)
#define TRACED_NAME(t, s) (void *)traced_##t##_##s,
static void *const traced_slots[] = { TRACED_LIST(TRACED_NAME) };
_Static_assert(sizeof(traced_slots) / sizeof(traced_slots[0]) == (size_t)TABLE_COUNT * SLOTS, "a traced slot for each slot");

static void
build(void)
{
	bool traced = __atomic_load_n(&cl_gate, __ATOMIC_RELAXED) & CL_GATE_TRACE;

	for (int t = 0; t < TABLE_COUNT; t++) {
		const struct table *table = &tables[t];
		for (int w = 0; w < table->words; w++)
			words[t][w] = table->sized ? unknown_slots[w % UNKNOWN_COUNT] : NULL;
		if (table->sized)
			words[t][0] = (void *)(uintptr_t)((size_t)table->words * sizeof(void *));
		for (int s = 0; s < SLOTS; s++)
			if (table->slots[s].function)
				words[t][table->slots[s].number] = traced ? traced_slots[t * SLOTS + s] : table->slots[s].function;
	}
}

static void
log_unknown_table(const CUuuid *id)
{
	static __thread char text[33]; /* the trace reads it when the call ends */

	for (int i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", (uint8_t)id->bytes[i]);
	cl_trace_table(text);
	fw_info("client", "private table %s is not served", text);
}

CUresult
cl_cuGetExportTable(const void **out, const CUuuid *id)
{
	if (!id)
		return CUDA_ERROR_INVALID_VALUE;
#ifndef FARWARP_TEST_DRIVER
	if (memcmp(id->bytes, FW_OURS_ID, sizeof(id->bytes)) == 0) {
		*out = words; /* anything but NULL: this is farwarp's library and no driver */
		return CUDA_SUCCESS;
	}
#endif
	pthread_once(&build_once, build);
	for (int t = 0; t < TABLE_COUNT; t++)
		if (memcmp(id->bytes, tables[t].guid, sizeof(tables[t].guid)) == 0) {
			cl_trace_table(tables[t].name);
			*out = words[t];
			return CUDA_SUCCESS;
		}
	log_unknown_table(id);
	*out = NULL;
	return CUDA_ERROR_INVALID_VALUE;
}

/* ---- the software validity question ------------------------------------------------------------------------------------ */

static CUresult
read_validity_device(int ordinal, struct cl_validity_device *device)
{
	CUdevice dev = 0;
	CUuuid uuid;
	CUresult result = cl_ops->cuDeviceGet(&dev, ordinal);

	if (result == CUDA_SUCCESS)
		result = cl_ops->cuDeviceGetUuid_v2(&uuid, dev);
	if (result == CUDA_SUCCESS) {
		memcpy(device->uuid, uuid.bytes, sizeof(device->uuid));
		result = cl_ops->cuDeviceGetAttribute(&device->pci_domain, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, dev);
	}
	if (result == CUDA_SUCCESS)
		result = cl_ops->cuDeviceGetAttribute(&device->pci_bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, dev);
	if (result == CUDA_SUCCESS)
		result = cl_ops->cuDeviceGetAttribute(&device->pci_device, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, dev);
	return result;
}

static CUresult
validity_question(uint32_t id, uint64_t seconds, uint8_t answer[16])
{
	static const uint64_t fixed[2][2] = { { 0x3341181c03cb675c, 0x8ed383aa1f4cd1e8 },
	                                      { 0x1841181c03cb675c, 0x8ed383aa1f4cd1e8 } };
	struct cl_validity_device devices[CL_MAX_DEVICES];
	int count = 0;
	CUresult result = cl_enter(CL_NEEDS_INIT);

	if (result == CUDA_SUCCESS && !answer)
		result = CUDA_ERROR_INVALID_VALUE;
	if (result != CUDA_SUCCESS)
		return result;
	if (id % 10 < 2) {
		memcpy(answer, fixed[id % 10], 16);
		return CUDA_SUCCESS;
	}
	result = cl_ops->cuDeviceGetCount(&count);
	for (int i = 0; result == CUDA_SUCCESS && i < count && i < CL_MAX_DEVICES; i++)
		result = read_validity_device(i, &devices[i]);
	if (result != CUDA_SUCCESS)
		return result;
	struct cl_validity_input input = {
		.driver_version = (uint32_t)cl_driver_version(),
		.id = id,
		.pid = (uint32_t)getpid(), /* asked each time: the process may be the child of a fork */
		.thread = (uint32_t)(uintptr_t)pthread_self(),
		.cudart_table = (uintptr_t)words[TABLE_CUDART],
		.validity_table = (uintptr_t)words[TABLE_VALIDITY],
		.validity_function = (uintptr_t)words[TABLE_VALIDITY][1],
		.seconds = seconds,
	};
	if (!cl_validity_answer(&input, devices, count, answer))
		fw_warn_once("client", "this library was built without the answer to the CUDA runtime's software validity "
		             "question; the runtime will report error 103");
	return CUDA_SUCCESS;
}
