/*
 * A libnvidia-ml.so.1 for tests: a GPU that works, but for what FAKE_NVML says, "NAME=NUMBER" separated by commas.
 *
 *	init handle        what nvmlInit_v2 and the request of the handle return; hang=1: nvmlInit_v2 does not
 *	count second       how many GPUs, all alike but for the second's state of the fabric
 *	fabric status mask state, status and health mask of the fabric; fabric=-1: not supported
 *	cc ready           confidential computing is on, its GPUs are ready; cc=-1: not supported
 *	mig pending migs   MIG mode, pending mode, MIG devices; mig=-1: not supported
 *	instances          GPU instances, all of the second profile; -1: not permitted
 *	bar1               free bytes of the window, in MiB
 *	errors remap failed recovery mode throttle license virtualization used
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { NOT_SUPPORTED = 3 };

static long
number(const char *name, long otherwise)
{
	const char *script = getenv("FAKE_NVML");
	size_t length = strlen(name);

	for (; script && *script; script += strcspn(script, ","), script += *script == ',')
		if (strncmp(script, name, length) == 0 && script[length] == '=')
			return strtol(script + length + 1, NULL, 10);
	return otherwise;
}

static int
text(char *to, const char *value)
{
	memcpy(to, value, strlen(value) + 1);
	return 0;
}

/* By this NVIDIA's own library is told from a shim. */
EXPORT int nvmlInternalGetExportTable(void);
int
nvmlInternalGetExportTable(void)
{
	return 3;
}

EXPORT int nvmlInit_v2(void);
int
nvmlInit_v2(void)
{
	while (number("hang", 0))
		pause();
	return (int)number("init", 0);
}

EXPORT int nvmlSystemGetDriverVersion(char *to, unsigned size);
int
nvmlSystemGetDriverVersion(char *to, unsigned size)
{
	(void)size;
	return text(to, "570.195.03");
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version);
int
nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	*version = 12080;
	return 0;
}

struct cc_state { unsigned environment, feature, tools; };
EXPORT int nvmlSystemGetConfComputeState(struct cc_state *state);
int
nvmlSystemGetConfComputeState(struct cc_state *state)
{
	state->feature = number("cc", -1) > 0;
	return number("cc", -1) < 0 ? NOT_SUPPORTED : 0;
}

EXPORT int nvmlSystemGetConfComputeGpusReadyState(unsigned *ready);
int
nvmlSystemGetConfComputeGpusReadyState(unsigned *ready)
{
	*ready = (unsigned)number("ready", 0);
	return 0;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count);
int
nvmlDeviceGetCount_v2(unsigned *count)
{
	*count = (unsigned)number("count", 1);
	return 0;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int
nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
	*device = (char *)0x1000 + index;
	return (int)number("handle", 0);
}

EXPORT int nvmlDeviceGetName(void *device, char *to, unsigned size);
int
nvmlDeviceGetName(void *device, char *to, unsigned size)
{
	(void)device, (void)size;
	return text(to, "NVIDIA Fake");
}

EXPORT int nvmlDeviceGetUUID(void *device, char *to, unsigned size);
int
nvmlDeviceGetUUID(void *device, char *to, unsigned size)
{
	(void)device, (void)size;
	return text(to, "GPU-00000000-1111-2222-3333-444444444444");
}

struct memory { unsigned long long total, free, used; };
EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory);
int
nvmlDeviceGetMemoryInfo(void *device, struct memory *memory)
{
	(void)device;
	memory->total = 80ull << 30;
	memory->used = (unsigned long long)number("used", 1) << 20;
	memory->free = memory->total - memory->used;
	return 0;
}

EXPORT int nvmlDeviceGetBAR1MemoryInfo(void *device, struct memory *memory);
int
nvmlDeviceGetBAR1MemoryInfo(void *device, struct memory *memory)
{
	(void)device;
	memory->total = 128ull << 30;
	memory->free = (unsigned long long)number("bar1", 131000) << 20;
	memory->used = memory->total - memory->free;
	return 0;
}

struct fabric { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned mask; };
EXPORT int nvmlDeviceGetGpuFabricInfoV(void *device, struct fabric *fabric);
int
nvmlDeviceGetGpuFabricInfoV(void *device, struct fabric *fabric)
{
	if (fabric->version != (sizeof(*fabric) | 2u << 24))
		return 25;
	fabric->state = (unsigned char)number(device == (char *)0x1001 ? "second" : "fabric", number("fabric", 0));
	fabric->status = (int)number("status", 0);
	fabric->mask = (unsigned)number("mask", 0);
	return number("fabric", -1) < 0 ? NOT_SUPPORTED : 0;
}

EXPORT int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending);
int
nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending)
{
	(void)device;
	*current = number("mig", 0) > 0;
	*pending = (unsigned)number("pending", *current);
	return number("mig", -1) < 0 ? NOT_SUPPORTED : 0;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count);
int
nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count)
{
	(void)device;
	*count = 7;
	return 0;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **mig);
int
nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **mig)
{
	*mig = (char *)device + 16 + index;
	return (long)index < number("migs", 0) ? 0 : 6;
}

/* A GPU with the profiles 0 and 9, in a library that knows 16: the ids are not the profiles' numbers. */
struct profile { unsigned id, peer, slices, instances, multiprocessors, others[5]; unsigned long long memory; };
EXPORT int nvmlDeviceGetGpuInstanceProfileInfo(void *device, unsigned which, struct profile *profile);
int
nvmlDeviceGetGpuInstanceProfileInfo(void *device, unsigned which, struct profile *profile)
{
	(void)device;
	if (which != 0 && which != 9)
		return which < 16 ? NOT_SUPPORTED : 2;
	*profile = (struct profile){ .id = which == 0 ? 19 : 15, .slices = 1, .instances = which == 0 ? 7 : 4, .memory = 9856 };
	return 0;
}

EXPORT int nvmlDeviceGetGpuInstances(void *device, unsigned id, void **instances, unsigned *count);
int
nvmlDeviceGetGpuInstances(void *device, unsigned id, void **instances, unsigned *count)
{
	long some = number("instances", 0);

	if (some < 0 || (id != 15 && id != 19))
		return some < 0 ? 4 : 2;
	*count = id == 15 ? (unsigned)some : 0;
	for (unsigned i = 0; i < *count; i++)
		instances[i] = (char *)device + 64 + i;
	return 0;
}

EXPORT int nvmlDeviceGetTotalEccErrors(void *device, unsigned type, unsigned counter, unsigned long long *errors);
int
nvmlDeviceGetTotalEccErrors(void *device, unsigned type, unsigned counter, unsigned long long *errors)
{
	(void)device;
	*errors = type == 1 && counter == 0 ? (unsigned long long)number("errors", 0) : 77;
	return 0;
}

EXPORT int nvmlDeviceGetEccMode(void *device, unsigned *current, unsigned *pending);
int
nvmlDeviceGetEccMode(void *device, unsigned *current, unsigned *pending)
{
	(void)device;
	*current = *pending = 1;
	return 0;
}

EXPORT int nvmlDeviceGetRemappedRows(void *device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed);
int
nvmlDeviceGetRemappedRows(void *device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed)
{
	(void)device;
	*correctable = *uncorrectable = 0;
	*pending = number("remap", 0) != 0;
	*failed = number("failed", 0) != 0;
	return 0;
}

struct field { unsigned field, scope; long long time, latency; unsigned type; int result; unsigned value, high; };
EXPORT int nvmlDeviceGetFieldValues(void *device, int count, struct field *field);
int
nvmlDeviceGetFieldValues(void *device, int count, struct field *field)
{
	(void)device;
	field->result = count == 1 && field->field == 230 ? 0 : 2;
	field->value = (unsigned)number("recovery", 0);
	return 0;
}

EXPORT int nvmlDeviceGetComputeMode(void *device, unsigned *mode);
int
nvmlDeviceGetComputeMode(void *device, unsigned *mode)
{
	(void)device;
	*mode = (unsigned)number("mode", 0);
	return 0;
}

EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons);
int
nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons)
{
	(void)device;
	*reasons = (unsigned long long)number("throttle", 0);
	return 0;
}

EXPORT int nvmlDeviceGetVirtualizationMode(void *device, unsigned *mode);
int
nvmlDeviceGetVirtualizationMode(void *device, unsigned *mode)
{
	(void)device;
	*mode = (unsigned)number("virtualization", 0);
	return 0;
}

struct features { int supported; unsigned count; unsigned code, state; };
EXPORT int nvmlDeviceGetGridLicensableFeatures_v4(void *device, struct features *features);
int
nvmlDeviceGetGridLicensableFeatures_v4(void *device, struct features *features)
{
	(void)device;
	*features = (struct features){ 1, 1, 2, (unsigned)number("license", 0) };
	return number("license", -1) < 0 ? NOT_SUPPORTED : 0;
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu, compute; };
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *process);
int
nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *process)
{
	(void)device;
	*count = (unsigned)number("processes", 0);
	for (unsigned i = 0; i < *count; i++)
		process[i] = (struct process){ 4000 + i, 1ull << 30, 0, 0 };
	return 0;
}
