/*
 * The life of the library in a process: cuInit opens the device, fork() leaves the child without one, exit closes it.
 *
 * Nothing is done when the library is loaded. What a failed cuInit found is looked at again by the next one.
 */
#include "client.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client/remote.h"
#include "native/native.h"
#include "soft/soft.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards opening */
static enum { SOFT, REMOTE, NATIVE } kind; /* of the device; guarded by lock */
static const struct cuda_ops *opened; /* an open device that no cuInit may use yet or any more; guarded by lock */

static void
before_fork(void)
{
	pthread_mutex_lock(&lock); /* so that the child does not inherit a half-open device */
}

static void
after_fork_in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/*
 * The child has the parent's memory but none of its threads; the device is gone, as with CUDA. It is not touched, only
 * forgotten.
 */
static void
after_fork_in_child(void)
{
	pthread_mutex_init(&lock, NULL);
	cl_storage_after_fork();
	cl_context_after_fork();
	cl_logs_after_fork();
	if (__atomic_load_n(&cl_state, __ATOMIC_ACQUIRE) == CL_STATE_OPEN) {
		__atomic_or_fetch(&cl_gate, CL_GATE_CLOSED, __ATOMIC_RELEASE);
		__atomic_store_n(&cl_state, CL_STATE_FORKED, __ATOMIC_RELEASE);
	}
	if (opened && kind == REMOTE)
		rm_after_fork();
	else if (opened && kind == SOFT)
		sw_after_fork();
}

/* Once, when the first device is about to be opened. */
static bool
watch_forks(void)
{
	static bool watching;

	if (!watching)
		watching = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
	return watching;
}

static const uint8_t *
device_uuid(int device, void *user)
{
	const struct cuda_ops *ops = user;
	static CUuuid uuid; /* guarded by lock */
	CUdevice dev = 0;

	if (!ops->cuDeviceGet || !ops->cuDeviceGetUuid_v2 || ops->cuDeviceGet(&dev, device) != CUDA_SUCCESS ||
	    ops->cuDeviceGetUuid_v2(&uuid, dev) != CUDA_SUCCESS)
		return NULL;
	return (const uint8_t *)uuid.bytes;
}

static CUresult
open_soft(const struct cuda_ops **ops)
{
	struct sw_config config = { .cc = 86 };

	kind = SOFT;
	return sw_settings(&config) ? sw_open(&config, ops) : CUDA_ERROR_INVALID_VALUE;
}

#ifdef FARWARP_TEST_DRIVER

/* Built so for the tests of src/native, this library plays the machine's driver: it is the software GPU whatever the environment says. */
static CUresult
open_device(const struct cuda_ops **ops)
{
	return open_soft(ops);
}

static bool
wants_native(void)
{
	return false;
}

#else

static CUresult
open_native(const struct cuda_ops **ops)
{
	char why[NV_WHY];

	kind = NATIVE;
	CUresult result = nv_open(ops, why);
	if (result != CUDA_SUCCESS)
		fw_error("client", "%s", why);
	else
		fw_info("client", "%s", why);
	return result;
}

static bool
wants_native(void)
{
	const char *device = getenv("FARWARP_DEVICE"), *server = getenv("FARWARP_SERVER");

	return !(server && *server) && device && strcmp(device, "native") == 0;
}

/* Opens the device behind FARWARP_SERVER, or the one that FARWARP_DEVICE names. */
static CUresult
open_device(const struct cuda_ops **ops)
{
	const char *device = getenv("FARWARP_DEVICE"), *server = getenv("FARWARP_SERVER");

	if (server && *server) {
		kind = REMOTE;
		return rm_open(server, ops);
	}
	if (wants_native())
		return open_native(ops);
	if (device && *device && strcmp(device, "soft") != 0) {
		fw_error("client", "FARWARP_DEVICE is \"%.40s\"; this library knows \"soft\" and \"native\"", device);
		return CUDA_ERROR_INVALID_VALUE;
	}
	return open_soft(ops);
}

#endif

static CUresult
open_locked(void)
{
	int count = 0, visible[CL_MAX_DEVICES];

	if (!watch_forks())
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!opened) {
		CUresult result = open_device(&opened);
		if (result != CUDA_SUCCESS)
			return result;
	}
	CUresult result = opened->cuDeviceGetCount(&count);
	if (result != CUDA_SUCCESS)
		return result;
	if (count > CL_MAX_DEVICES)
		count = CL_MAX_DEVICES;
	bool chosen = kind == NATIVE || (kind == REMOTE && rm_devices_chosen()); /* a real driver has obeyed it */
	const char *list = chosen ? NULL : getenv("CUDA_VISIBLE_DEVICES");
	if (cl_settings_visible(list, count, device_uuid, (void *)opened, visible) == 0) {
		fw_info("client", "CUDA_VISIBLE_DEVICES is \"%.80s\": no device", list ? list : "");
		return CUDA_ERROR_NO_DEVICE;
	}
	cl_ops = opened;
	__atomic_store_n(&cl_state, CL_STATE_OPEN, __ATOMIC_RELEASE);
	__atomic_and_fetch(&cl_gate, ~(unsigned)CL_GATE_CLOSED, __ATOMIC_RELEASE);
	return CUDA_SUCCESS;
}

CUresult
cl_cuInit(unsigned flags)
{
	CUresult result = CUDA_SUCCESS;

	if (flags != 0)
		return CUDA_ERROR_INVALID_VALUE;
	cl_logs_begin();
	pthread_mutex_lock(&lock);
	switch (__atomic_load_n(&cl_state, __ATOMIC_ACQUIRE)) {
	case CL_STATE_NEW:
		result = open_locked();
		break;
	case CL_STATE_OPEN:
		break;
	case CL_STATE_FORKED:
		fw_warn_once("client", "this process is the child of one that had called cuInit; CUDA does not work in it");
		result = CUDA_ERROR_NOT_INITIALIZED;
		break;
	case CL_STATE_CLOSED:
		result = CUDA_ERROR_DEINITIALIZED;
	}
	pthread_mutex_unlock(&lock);
	return result;
}

/* Runs after the program's own exit handlers, so that those may still use the device. Calls after it answer softly. */
__attribute__((destructor)) static void
close_at_exit(void)
{
	enum cl_state open = CL_STATE_OPEN;

	if (__atomic_compare_exchange_n(&cl_state, &open, CL_STATE_CLOSED, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
		__atomic_or_fetch(&cl_gate, CL_GATE_CLOSED, __ATOMIC_RELEASE);
		if (kind == REMOTE)
			rm_close();
		else if (kind == SOFT)
			sw_close();
	}
}

int
cl_driver_version(void)
{
	int version = wants_native() ? nv_driver_version() : 0;

	return version > 0 && version < CL_DRIVER_VERSION ? version : CL_DRIVER_VERSION;
}

CUresult
cl_cuDriverGetVersion(int *version)
{
	*version = cl_driver_version();
	return CUDA_SUCCESS;
}

/* How modules are loaded is the program's wish; lazy is the default, as in a real driver since 12.2. */
CUresult
cl_cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
	const char *wish = getenv("CUDA_MODULE_LOADING");

	*mode = wish && strcasecmp(wish, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
	return CUDA_SUCCESS;
}

/* They tell a profiling tool when to collect. There is none attached, and then they do nothing, as documented. */
CUresult
cl_cuProfilerStart(void)
{
	return CUDA_SUCCESS;
}

CUresult
cl_cuProfilerStop(void)
{
	return CUDA_SUCCESS;
}
