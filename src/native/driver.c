/*
 * Calls to the machine's driver. What is current is said by fw_thread, as for every struct cuda_ops; it is made current in the driver
 * when it differs from what the calling thread last made so there. The driver's own context stack never holds more than that one.
 */
#include "native/native.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"

#define DEVICES_MAX 64
#define OLDEST_DRIVER 12000 /* CUDA 12.0: libraries and kernels without a context, which programs of today begin with */

/* Functions that the table leaves to the client: the driver's side of what is current. */
static struct {
	CUresult (*init)(unsigned);
	CUresult (*get_version)(int *);
	CUresult (*set_current)(CUcontext);
	CUresult (*pop_current)(CUcontext *);
	CUresult (*get_error_name)(CUresult, const char **);
	CUresult (*get_error_string)(CUresult, const char **);
	CUresult (*get_proc)(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);
} basic;

static struct nv_library loaded;
static char load_error[NV_WHY];
static int version; /* of the driver, as cuDriverGetVersion says it */

/* Grows when a context ends: what was current in another thread then has to be made so again, as an address may come back. */
static unsigned generation = 1; /* atomic */
static __thread struct {
	void *ctx;
	unsigned generation; /* 0: not known */
} current __attribute__((tls_model("initial-exec")));

/* ---- what is current --------------------------------------------------------------------------------------------------- */

static CUresult
switch_context(void)
{
	unsigned now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
	CUresult result = basic.set_current ? basic.set_current(fw_thread.ctx) : CUDA_ERROR_NOT_SUPPORTED;

	current.ctx = fw_thread.ctx;
	current.generation = result == CUDA_SUCCESS ? now : 0;
	return result;
}

/* Makes the thread's context current in the driver. Calls that need none are made all the same when that fails. */
static inline CUresult
enter(bool needs_context)
{
	if (__builtin_expect(current.ctx == fw_thread.ctx && current.generation == __atomic_load_n(&generation, __ATOMIC_RELAXED), 1))
		return CUDA_SUCCESS;
	CUresult result = switch_context();
	return needs_context ? result : CUDA_SUCCESS;
}

static void
context_ended(void)
{
	__atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
}

/* ---- calls that the driver lacks --------------------------------------------------------------------------------------- */

static CUresult
missing(enum cuda_call_id call, const char *name)
{
	static bool said[CALL_COUNT];

	if (!__atomic_exchange_n(&said[call], true, __ATOMIC_RELAXED))
		fw_warn("native", "%s: the driver %s (CUDA %d.%d) does not have it, answered CUDA_ERROR_NOT_SUPPORTED", name, loaded.path,
		        version / 1000, version % 1000 / 10);
	return CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult primary_context(CUcontext *ctx, CUdevice dev);

#include "native_calls.inc"

/* ---- contexts ------------------------------------------------------------------------------------------------------------ */

/*
 * Primary contexts. A program wants the handle before it retains the context (struct cuda_ops), and the driver tells it to who retains:
 * so it is retained here once, and the program's first retain takes that over. The handle stays the same however often the context is
 * released and retained (driver API, CUDA_ERROR_CONTEXT_IS_DESTROYED: "or is a primary context which has not yet been initialized").
 */
static struct primary {
	CUcontext handle; /* NULL: not asked for yet */
	bool lent;        /* retained here and not by the program */
	unsigned retained;
} primaries[DEVICES_MAX]; /* guarded by primary_lock */
static pthread_mutex_t primary_lock = PTHREAD_MUTEX_INITIALIZER;

/* With the lock held. */
static CUresult
know_primary(CUdevice dev)
{
	struct primary *p = &primaries[dev];

	if (p->handle)
		return CUDA_SUCCESS;
	if (!driver.cuDevicePrimaryCtxRetain)
		return missing(CALL_cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
	CUresult result = driver.cuDevicePrimaryCtxRetain(&p->handle, dev);
	p->lent = result == CUDA_SUCCESS;
	return result;
}

static bool
is_device(CUdevice dev)
{
	return (unsigned)dev < DEVICES_MAX;
}

static CUresult
primary_context(CUcontext *ctx, CUdevice dev)
{
	if (!is_device(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&primary_lock);
	CUresult result = know_primary(dev);
	if (result == CUDA_SUCCESS)
		*ctx = primaries[dev].handle;
	pthread_mutex_unlock(&primary_lock);
	return result;
}

static CUresult
nv_cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
	if (!is_device(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&primary_lock);
	struct primary *p = &primaries[dev];
	CUresult result = know_primary(dev);
	if (result == CUDA_SUCCESS && !p->lent)
		result = driver.cuDevicePrimaryCtxRetain(&p->handle, dev);
	if (result == CUDA_SUCCESS) {
		p->lent = false;
		p->retained++;
		*pctx = p->handle;
	}
	pthread_mutex_unlock(&primary_lock);
	return result;
}

static CUresult
release_primary(CUdevice dev, CUresult (*release)(CUdevice))
{
	CUresult result = CUDA_ERROR_INVALID_CONTEXT; /* not retained */

	if (!is_device(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&primary_lock);
	if (primaries[dev].retained) {
		result = release(dev);
		if (result == CUDA_SUCCESS && --primaries[dev].retained == 0)
			context_ended();
	}
	pthread_mutex_unlock(&primary_lock);
	return result;
}

static CUresult
nv_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	return driver.cuDevicePrimaryCtxRelease_v2 ? release_primary(dev, driver.cuDevicePrimaryCtxRelease_v2)
		: missing(CALL_cuDevicePrimaryCtxRelease_v2, "cuDevicePrimaryCtxRelease_v2");
}

static CUresult
nv_cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return driver.cuDevicePrimaryCtxRelease ? release_primary(dev, driver.cuDevicePrimaryCtxRelease)
		: missing(CALL_cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease");
}

static CUresult
nv_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	CUresult result = driver.cuDevicePrimaryCtxReset_v2 ? driver.cuDevicePrimaryCtxReset_v2(dev)
		: missing(CALL_cuDevicePrimaryCtxReset_v2, "cuDevicePrimaryCtxReset_v2");

	context_ended();
	return result;
}

static CUresult
nv_cuDevicePrimaryCtxReset(CUdevice dev)
{
	CUresult result = driver.cuDevicePrimaryCtxReset ? driver.cuDevicePrimaryCtxReset(dev)
		: missing(CALL_cuDevicePrimaryCtxReset, "cuDevicePrimaryCtxReset");

	context_ended();
	return result;
}

static CUresult
nv_cuDevicePrimaryCtxGetState(CUdevice dev, unsigned *flags, int *active)
{
	if (!driver.cuDevicePrimaryCtxGetState)
		return missing(CALL_cuDevicePrimaryCtxGetState, "cuDevicePrimaryCtxGetState");
	CUresult result = driver.cuDevicePrimaryCtxGetState(dev, flags, active);
	if (result == CUDA_SUCCESS && is_device(dev)) {
		pthread_mutex_lock(&primary_lock);
		if (primaries[dev].lent)
			*active = 0; /* the program has not retained it */
		pthread_mutex_unlock(&primary_lock);
	}
	return result;
}

/* The driver pushed the new context onto its stack; here the client says what is current. */
static CUresult
made_context(CUresult result)
{
	CUcontext pushed;

	if (result == CUDA_SUCCESS && basic.pop_current)
		basic.pop_current(&pushed);
	current.generation = 0;
	return result;
}

static CUresult
nv_cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned flags, CUdevice dev)
{
	return driver.cuCtxCreate_v4 ? made_context(driver.cuCtxCreate_v4(pctx, ctxCreateParams, flags, dev))
		: missing(CALL_cuCtxCreate_v4, "cuCtxCreate_v4");
}

static CUresult
nv_cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned flags, CUdevice dev)
{
	return driver.cuCtxCreate_v3 ? made_context(driver.cuCtxCreate_v3(pctx, paramsArray, numParams, flags, dev))
		: missing(CALL_cuCtxCreate_v3, "cuCtxCreate_v3");
}

static CUresult
nv_cuCtxCreate_v2(CUcontext *pctx, unsigned flags, CUdevice dev)
{
	return driver.cuCtxCreate_v2 ? made_context(driver.cuCtxCreate_v2(pctx, flags, dev)) : missing(CALL_cuCtxCreate_v2, "cuCtxCreate_v2");
}

static CUresult
nv_cuCtxCreate(CUcontext *pctx, unsigned flags, CUdevice dev)
{
	return driver.cuCtxCreate ? made_context(driver.cuCtxCreate(pctx, flags, dev)) : missing(CALL_cuCtxCreate, "cuCtxCreate");
}

static CUresult
nv_cuCtxDestroy_v2(CUcontext ctx)
{
	CUresult result = driver.cuCtxDestroy_v2 ? driver.cuCtxDestroy_v2(ctx) : missing(CALL_cuCtxDestroy_v2, "cuCtxDestroy_v2");

	context_ended();
	return result;
}

static CUresult
nv_cuCtxDestroy(CUcontext ctx)
{
	return nv_cuCtxDestroy_v2(ctx);
}

/* ---- functions ----------------------------------------------------------------------------------------------------------- */

/* A launch takes kernels for functions (driver API, cuLaunchKernel), so a server asks the layout of either by this call. */
static CUresult
nv_cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
	CUresult result = enter(true);

	if (result != CUDA_SUCCESS)
		return result;
	if (!driver.cuFuncGetParamInfo)
		return missing(CALL_cuFuncGetParamInfo, "cuFuncGetParamInfo");
	result = driver.cuFuncGetParamInfo(func, paramIndex, paramOffset, paramSize);
	if (result == CUDA_ERROR_INVALID_HANDLE && driver.cuKernelGetParamInfo)
		result = driver.cuKernelGetParamInfo((CUkernel)func, paramIndex, paramOffset, paramSize);
	return result;
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

struct row {
	const char *symbol, *base;
	int abi, per_thread;
	void **function;
};

/*
 * By name, version and family from the driver's own map; where that does not know it, by its exported name, which stands for one
 * prototype alone. A version newer than the driver is not asked for, because it might answer with an older prototype.
 */
static void *
find(const struct row *row)
{
	uint64_t family = row->per_thread ? CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM : CU_GET_PROC_ADDRESS_LEGACY_STREAM;
	CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
	void *function = NULL;

	if (basic.get_proc && row->abi <= version && basic.get_proc(row->base, &function, row->abi, family, &status) == CUDA_SUCCESS &&
	    status == CU_GET_PROC_ADDRESS_SUCCESS && function)
		return function;
	return dlsym(loaded.handle, row->symbol);
}

static void
find_all(void)
{
	static const struct row rows[] = { NATIVE_ROWS };
	unsigned found = 0, count = sizeof(rows) / sizeof(rows[0]);

	for (unsigned n = 0; n < count; n++)
		found += (*rows[n].function = find(&rows[n])) != NULL;
	fw_debug("native", "%u of %u functions are there", found, count);
}

static void
load_library(void)
{
	static const struct {
		const char *symbol;
		void **function;
	} rows[] = {
		{ "cuInit", (void **)&basic.init }, { "cuDriverGetVersion", (void **)&basic.get_version },
		{ "cuCtxSetCurrent", (void **)&basic.set_current }, { "cuCtxPopCurrent_v2", (void **)&basic.pop_current },
		{ "cuGetErrorName", (void **)&basic.get_error_name }, { "cuGetErrorString", (void **)&basic.get_error_string },
		{ "cuGetProcAddress_v2", (void **)&basic.get_proc },
	};

	if (!nv_library_open(&loaded, "", load_error))
		return;
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
		*rows[n].function = dlsym(loaded.handle, rows[n].symbol);
	if (basic.get_version && basic.get_version(&version) != CUDA_SUCCESS)
		version = 0;
}

static bool
load_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_library);
	return loaded.handle != NULL;
}

int
nv_driver_version(void)
{
	return load_once() ? version : 0;
}

/* What is known of a cuInit that fails, in a few words; the doctor says more. */
static const char *
init_hint(CUresult result)
{
	switch ((int)result) {
	case CUDA_ERROR_STUB_LIBRARY:
		return "it is a toolkit's stub for linking, not a driver";
	case CUDA_ERROR_NOT_INITIALIZED:
		return "the library is no driver, or the driver behind it does not run";
	case CUDA_ERROR_NO_DEVICE:
		return "it finds no GPU that this process may use (/dev/nvidia*, CUDA_VISIBLE_DEVICES)";
	case CUDA_ERROR_SYSTEM_NOT_READY:
		return "the GPU's NVLink fabric is not set up, or its services do not run (nvidia-fabricmanager)";
	case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
		return "the library and the loaded kernel module are of different driver versions";
	case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
		return "it is a forward-compatibility library, and this GPU does not support that";
	case CUDA_ERROR_UNKNOWN:
		return "the kernel module or a device node (/dev/nvidia-uvm) is missing or broken";
	default:
		return "the driver does not start";
	}
}

CUresult
nv_open(const struct cuda_ops **ops, char why[NV_WHY])
{
	const char *name = NULL, *text = NULL;

	if (!load_once()) {
		snprintf(why, NV_WHY, "%s", load_error);
		return CUDA_ERROR_NO_DEVICE;
	}
	if (!basic.init) {
		snprintf(why, NV_WHY, "%s (%s) has no cuInit: it is no CUDA driver", loaded.path, loaded.how);
		return CUDA_ERROR_NOT_INITIALIZED;
	}
	CUresult result = basic.init(0);
	if (result != CUDA_SUCCESS) {
		if (basic.get_error_name)
			basic.get_error_name(result, &name);
		if (basic.get_error_string)
			basic.get_error_string(result, &text);
		snprintf(why, NV_WHY, "the driver %s (%s, CUDA %d.%d): cuInit answers %d%s%s%s%s: %s; farwarp doctor says more", loaded.path,
		         loaded.how, version / 1000, version % 1000 / 10, (int)result, name ? " " : "", name ? name : "", text ? ", " : "",
		         text ? text : "", init_hint(result));
		return result;
	}
	if (version < OLDEST_DRIVER) {
		snprintf(why, NV_WHY, "the driver %s (%s) is of CUDA %d.%d; farwarp needs one of CUDA %d.%d or newer: update the driver", loaded.path,
		         loaded.how, version / 1000, version % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10);
		return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
	}
	find_all();
	snprintf(why, NV_WHY, "the driver %s (%s), CUDA %d.%d", loaded.path, loaded.how, version / 1000, version % 1000 / 10);
	*ops = &nv_ops;
	return CUDA_SUCCESS;
}
