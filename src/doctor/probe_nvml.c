/*
 * Probe of NVML, the management library: asks the libnvidia-ml.so.1 that a program would get, in a child, each call with the deadline.
 * What a product does not have (nvmlReturn_t 3) is absent; what fails otherwise is unseen, with its number. Layouts and numbers are those of
 * the NVML API reference; a call that a library lacks is unseen.
 */
#include "doctor/probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 32
#define MAX_PROCESSES 32
#define MAX_MIG 16
#define TEXT 96

enum { NOT_ASKED = -1, NO_SYMBOL = -2, NOT_SUPPORTED = 3, NO_FUNCTION = 13 }; /* beside nvmlReturn_t */

/* Numbers of a GPU, and where they go. */
enum number {
	MEMORY_TOTAL, MEMORY_USED, MEMORY_FREE, BAR1_FREE, FABRIC_STATE, FABRIC_STATUS, FABRIC_MASK, FABRIC_WRONG, MIG_CURRENT, MIG_PENDING,
	MIG_DEVICES, MIG_GPU_INSTANCES, ECC_CURRENT, ECC_UNCORRECTED, REMAP_PENDING, REMAP_FAILURE, RECOVERY, COMPUTE_MODE, PERSISTENCE, LICENSE, THROTTLE, TEMPERATURE, NUMBERS
};
static const struct { const char *fact; bool truth; } numbers[NUMBERS] = {
	{ "memory.total", false }, { "memory.used", false }, { "memory.free", false }, { "bar1_free", false }, { "fabric.state", false }, { "fabric.status", false },
	{ "fabric.health_mask", false }, { "fabric.incorrect_config", false }, { "mig.current", false }, { "mig.pending", false },
	{ "mig.devices", false }, { "mig.gpu_instances", false }, { "ecc.current", true }, { "ecc.uncorrected", false }, { "remapped.pending", true }, { "remapped.failure", true },
	{ "recovery_action", false }, { "compute_mode", false }, { "persistence", true }, { "license", false }, { "throttle", false },
	{ "temperature", false } };

enum text { NAME, UUID, SERIAL, PCI, ARCHITECTURE, CAPABILITY, VIRTUALIZATION, GSP, TEXTS };
static const char *const texts[TEXTS] = { "name", "uuid", "serial", "pci", "architecture", "capability", "virtualization", "gsp" };

struct process { /* nvmlProcessInfo_t of the _v3 calls */
	unsigned pid;
	unsigned long long memory;
	unsigned gpu_instance, compute_instance;
};

struct gpu {
	int handle;                                       /* result of asking for it */
	struct { int result; int64_t value; } number[NUMBERS];
	struct { int result; char value[TEXT]; } text[TEXTS];
	int fabric, processes;                            /* results */
	unsigned process_count;
	struct process process[MAX_PROCESSES];
};

struct nvml { /* shared with the child */
	volatile unsigned beat;
	bool load;
	char asked[512], dlerror[256], path[512], driver_version[TEXT], last[64];
	volatile int init;
	int cuda_result, cuda_version, count_result;
	unsigned count;
	int confidential, ready_result, multi_result;
	bool enabled, ready, multi;
	struct gpu gpu[MAX_GPUS];
	void *library;                                    /* the child's */
};

/* ---- in the child ---- */

static void *
symbol(struct nvml *n, const char *name)
{
	snprintf(n->last, sizeof(n->last), "%s", name);
	n->beat++;
	return dlsym(n->library, name);
}

/* Calls a function by its name, with the types of its parameters; NO_SYMBOL when the library lacks it. */
#define ASK(n, name, types, ...) \
	({ \
		int (*function_) types = (int (*) types)symbol(n, name); \
		function_ ? function_(__VA_ARGS__) : NO_SYMBOL; \
	})

static void
put(struct gpu *gpu, enum number which, int result, int64_t value)
{
	gpu->number[which].result = result;
	gpu->number[which].value = value;
}

static void
ask_fabric(struct nvml *n, struct gpu *gpu, void *device)
{
	struct { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned mask; } v2 =
		{ .version = sizeof(v2) | 2u << 24 };
	struct { unsigned char cluster[16]; int status; unsigned clique; unsigned char state; } v1 = { 0 };
	int result = ASK(n, "nvmlDeviceGetGpuFabricInfoV", (void *, void *), device, &v2);

	if (result == 0) {
		put(gpu, FABRIC_STATE, 0, v2.state);
		put(gpu, FABRIC_STATUS, 0, v2.status);
		put(gpu, FABRIC_MASK, 0, v2.mask);
		put(gpu, FABRIC_WRONG, 0, v2.mask >> 8 & 15);
	} else if (result != NOT_SUPPORTED) { /* a library before the versioned call */
		result = ASK(n, "nvmlDeviceGetGpuFabricInfo", (void *, void *), device, &v1);
		put(gpu, FABRIC_STATE, result, v1.state);
		put(gpu, FABRIC_STATUS, result, v1.status);
	}
	for (int i = FABRIC_STATE; result == NOT_SUPPORTED && i <= FABRIC_WRONG; i++)
		put(gpu, (enum number)i, result, 0);
	gpu->fabric = result;
}

static void
ask_memory(struct nvml *n, struct gpu *gpu, void *device)
{
	struct { unsigned long long total, free, used; } memory = { 0 }, bar1 = { 0 };

	int result = ASK(n, "nvmlDeviceGetMemoryInfo", (void *, void *), device, &memory);
	put(gpu, MEMORY_TOTAL, result, (int64_t)memory.total);
	put(gpu, MEMORY_USED, result, (int64_t)memory.used);
	put(gpu, MEMORY_FREE, result, (int64_t)memory.free);
	result = ASK(n, "nvmlDeviceGetBAR1MemoryInfo", (void *, void *), device, &bar1);
	put(gpu, BAR1_FREE, result, (int64_t)bar1.free);
}

/* GPU instances of all profiles. A profile that this GPU does not have is not supported, one that the library does not know an invalid argument. */
static int
count_gpu_instances(struct nvml *n, void *device, unsigned *found)
{
	enum { PROFILES = 32, MOST = 64, INVALID_ARGUMENT = 2 };
	struct { unsigned id, peer, slices, instances, others[6]; unsigned long long memory; unsigned long long room[8]; } profile = { 0 };
	void *instances[MOST];

	for (unsigned i = 0; i < PROFILES; i++) {
		int result = ASK(n, "nvmlDeviceGetGpuInstanceProfileInfo", (void *, unsigned, void *), device, i, &profile);
		if (result == NOT_SUPPORTED || result == INVALID_ARGUMENT)
			continue;
		unsigned count = MOST;
		if (result == 0 && profile.instances > MOST)
			return NO_FUNCTION;
		if (result == 0) /* the call asks for room for so many */
			result = ASK(n, "nvmlDeviceGetGpuInstances", (void *, unsigned, void **, unsigned *), device, profile.id, instances, &count);
		if (result != 0)
			return result;
		*found += count;
	}
	return 0;
}

static void
ask_mig(struct nvml *n, struct gpu *gpu, void *device)
{
	unsigned current = 0, pending = 0, most = 0, found = 0, instances = 0;

	int result = ASK(n, "nvmlDeviceGetMigMode", (void *, unsigned *, unsigned *), device, &current, &pending);
	put(gpu, MIG_CURRENT, result, current);
	put(gpu, MIG_PENDING, result, pending);
	int counted = result == 0 && current ? count_gpu_instances(n, device, &instances) : result;
	put(gpu, MIG_GPU_INSTANCES, counted, instances);
	if (result == 0)
		result = ASK(n, "nvmlDeviceGetMaxMigDeviceCount", (void *, unsigned *), device, &most);
	for (unsigned i = 0; result == 0 && i < most && i < MAX_MIG; i++) {
		void *mig = NULL;
		found += ASK(n, "nvmlDeviceGetMigDeviceHandleByIndex", (void *, unsigned, void **), device, i, &mig) == 0;
	}
	put(gpu, MIG_DEVICES, result, found);
}

static void
ask_health(struct nvml *n, struct gpu *gpu, void *device)
{
	unsigned current = 0, pending = 0, correctable = 0, uncorrectable = 0, is_pending = 0, failed = 0, temperature = 0, mode = 0;
	unsigned long long errors = 0, reasons = 0;
	struct { unsigned field, scope; long long time, latency; unsigned type; int result; unsigned long long value; } field = { .field = 230 };

	int result = ASK(n, "nvmlDeviceGetEccMode", (void *, unsigned *, unsigned *), device, &current, &pending);
	put(gpu, ECC_CURRENT, result, current);
	result = ASK(n, "nvmlDeviceGetTotalEccErrors", (void *, unsigned, unsigned, unsigned long long *), device, 1, 0, &errors);
	put(gpu, ECC_UNCORRECTED, result, (int64_t)errors);
	result = ASK(n, "nvmlDeviceGetRemappedRows", (void *, unsigned *, unsigned *, unsigned *, unsigned *), device, &correctable, &uncorrectable,
	             &is_pending, &failed);
	put(gpu, REMAP_PENDING, result, is_pending);
	put(gpu, REMAP_FAILURE, result, failed);
	result = ASK(n, "nvmlDeviceGetFieldValues", (void *, int, void *), device, 1, &field);
	put(gpu, RECOVERY, result ? result : field.result, (int64_t)(field.value & 0xffffffff)); /* an unsigned int in the value's union */
	result = ASK(n, "nvmlDeviceGetComputeMode", (void *, unsigned *), device, &mode);
	put(gpu, COMPUTE_MODE, result, mode);
	result = ASK(n, "nvmlDeviceGetPersistenceMode", (void *, unsigned *), device, &mode);
	put(gpu, PERSISTENCE, result, mode);
	result = ASK(n, "nvmlDeviceGetCurrentClocksThrottleReasons", (void *, unsigned long long *), device, &reasons);
	put(gpu, THROTTLE, result, (int64_t)reasons);
	result = ASK(n, "nvmlDeviceGetTemperature", (void *, unsigned, unsigned *), device, 0, &temperature);
	put(gpu, TEMPERATURE, result, temperature);
}

/* A vGPU's license: the state of the first licensable feature. */
static void
ask_license(struct nvml *n, struct gpu *gpu, void *device)
{
	struct { int supported; unsigned count; struct { unsigned code, state; char rest[512]; } first; char room[4096]; } features = { 0 };

	int result = ASK(n, "nvmlDeviceGetGridLicensableFeatures_v4", (void *, void *), device, &features);
	if (result == 0 && (!features.supported || !features.count))
		result = NOT_SUPPORTED;
	put(gpu, LICENSE, result, features.first.state);
}

static void
ask_names(struct nvml *n, struct gpu *gpu, void *device)
{
	static const char *const architectures[] = { "", "", "kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell" };
	static const char *const virtualizations[] = { "none", "passthrough", "vgpu", "host-vgpu", "host-vsga" };
	static const struct { enum text which; const char *name; } calls[] = {
		{ NAME, "nvmlDeviceGetName" }, { UUID, "nvmlDeviceGetUUID" }, { SERIAL, "nvmlDeviceGetSerial" } };
	struct { char old[16]; unsigned domain, bus, device, id, subsystem; char text[32]; char room[64]; } pci = { 0 };
	unsigned architecture = 0, mode = 0;
	int major = 0, minor = 0;

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		gpu->text[calls[i].which].result = ASK(n, calls[i].name, (void *, char *, unsigned), device, gpu->text[calls[i].which].value, TEXT);
	gpu->text[GSP].result = ASK(n, "nvmlDeviceGetGspFirmwareVersion", (void *, char *), device, gpu->text[GSP].value);
	gpu->text[PCI].result = ASK(n, "nvmlDeviceGetPciInfo_v3", (void *, void *), device, &pci);
	snprintf(gpu->text[PCI].value, TEXT, "%04x:%02x:%02x.0", pci.domain, pci.bus, pci.device);
	gpu->text[ARCHITECTURE].result = ASK(n, "nvmlDeviceGetArchitecture", (void *, unsigned *), device, &architecture);
	snprintf(gpu->text[ARCHITECTURE].value, TEXT, "%s",
	         architecture < sizeof(architectures) / sizeof(architectures[0]) ? architectures[architecture] : "newer");
	gpu->text[CAPABILITY].result = ASK(n, "nvmlDeviceGetCudaComputeCapability", (void *, int *, int *), device, &major, &minor);
	snprintf(gpu->text[CAPABILITY].value, TEXT, "%d.%d", major, minor);
	gpu->text[VIRTUALIZATION].result = ASK(n, "nvmlDeviceGetVirtualizationMode", (void *, unsigned *), device, &mode);
	snprintf(gpu->text[VIRTUALIZATION].value, TEXT, "%s",
	         mode < sizeof(virtualizations) / sizeof(virtualizations[0]) ? virtualizations[mode] : "another");
}

static void
ask_confidential(struct nvml *n)
{
	struct { unsigned environment, feature, tools; } state = { 0 };
	struct { unsigned version, environment, feature, tools, multi; } settings = { .version = sizeof(settings) | 1u << 24 };
	unsigned ready = 0;

	n->confidential = ASK(n, "nvmlSystemGetConfComputeState", (void *), &state);
	n->enabled = state.feature != 0;
	n->ready_result = ASK(n, "nvmlSystemGetConfComputeGpusReadyState", (unsigned *), &ready);
	n->ready = ready != 0;
	n->multi_result = ASK(n, "nvmlSystemGetConfComputeSettings", (void *), &settings);
	n->multi = settings.multi != 0;
}

static void
ask(void *shared)
{
	struct nvml *n = shared;
	struct link_map *map;

	if (!n->load)
		dr_child_touch_nothing();
	n->library = dlopen(n->asked, RTLD_NOW | RTLD_LOCAL);
	if (!n->library) {
		snprintf(n->dlerror, sizeof(n->dlerror), "%s", dlerror());
		return;
	}
	if (dlinfo(n->library, RTLD_DI_LINKMAP, &map) == 0)
		snprintf(n->path, sizeof(n->path), "%s", map->l_name);
	n->init = ASK(n, "nvmlInit_v2", (void));
	if (n->init != 0)
		return;
	ASK(n, "nvmlSystemGetDriverVersion", (char *, unsigned), n->driver_version, TEXT);
	n->cuda_result = ASK(n, "nvmlSystemGetCudaDriverVersion_v2", (int *), &n->cuda_version);
	ask_confidential(n);
	n->count_result = ASK(n, "nvmlDeviceGetCount_v2", (unsigned *), &n->count);
	for (unsigned i = 0; n->count_result == 0 && i < n->count && i < MAX_GPUS; i++) {
		struct gpu *gpu = &n->gpu[i];
		void *device = NULL;
		gpu->handle = ASK(n, "nvmlDeviceGetHandleByIndex_v2", (unsigned, void **), i, &device);
		if (gpu->handle != 0)
			continue;
		ask_names(n, gpu, device);
		ask_memory(n, gpu, device);
		ask_fabric(n, gpu, device);
		ask_mig(n, gpu, device);
		ask_health(n, gpu, device);
		ask_license(n, gpu, device);
		gpu->process_count = MAX_PROCESSES;
		gpu->processes = ASK(n, "nvmlDeviceGetComputeRunningProcesses_v3", (void *, unsigned *, void *), device, &gpu->process_count, gpu->process);
	}
	n->last[0] = 0;
}

/* ---- in the parent ---- */

static bool
is_absent(int result)
{
	return result == NOT_SUPPORTED;
}

static void
unseen(struct fw_json *at, const char *fact, int result)
{
	char why[80];

	if (result == NOT_ASKED)
		snprintf(why, sizeof(why), "it was not asked: an earlier call did not return");
	else if (result == NO_SYMBOL || result == NO_FUNCTION)
		snprintf(why, sizeof(why), "libnvidia-ml.so.1 lacks the call");
	else
		snprintf(why, sizeof(why), "NVML error %d", result);
	dr_unseen(at, fact, 0, why, NULL);
}

static void
report_number(struct fw_json *at, enum number which, int result, int64_t value)
{
	const char *fact = numbers[which].fact, *dot = strchr(fact, '.');
	char group[32];

	snprintf(group, sizeof(group), "%.*s", dot ? (int)(dot - fact) : 0, fact);
	if (result == 0 && numbers[which].truth)
		dr_set_bool(at, fact, value != 0);
	else if (result == 0)
		dr_set_int(at, fact, value);
	else if (!is_absent(result))
		unseen(at, fact, result);
	else /* a product without ECC has no members of it either */
		dr_set_absent(at, dot && !fw_json_is(dr_get(at, group), FW_JSON_OBJECT) ? group : fact);
}

static void
report_gpu(struct fw_json *at, struct gpu *gpu)
{
	dr_set_int(at, "result", gpu->handle);
	if (gpu->handle != 0)
		return;
	for (int i = 0; i < TEXTS; i++) {
		gpu->text[i].value[TEXT - 1] = 0;
		if (gpu->text[i].result == 0)
			dr_set_text(at, texts[i], gpu->text[i].value);
		else if (is_absent(gpu->text[i].result))
			dr_set_absent(at, texts[i]);
		else
			unseen(at, texts[i], gpu->text[i].result);
	}
	if (gpu->fabric != NOT_ASKED && gpu->fabric != NO_SYMBOL)
		dr_set_int(at, "fabric.result", gpu->fabric);
	for (int i = 0; i < NUMBERS; i++)
		report_number(at, (enum number)i, gpu->number[i].result, gpu->number[i].value);
	if (gpu->processes != 0) {
		unseen(at, "processes", gpu->processes);
		return;
	}
	struct fw_json *list = dr_list(at, "processes");
	for (unsigned i = 0; i < gpu->process_count && i < MAX_PROCESSES; i++) {
		struct fw_json *process = dr_append(list);
		dr_set_int(process, "pid", gpu->process[i].pid);
		dr_set_int(process, "memory", (int64_t)gpu->process[i].memory);
	}
}

static void
report_confidential(struct fw_json *facts, const struct nvml *n)
{
	if (n->confidential == NOT_SUPPORTED || n->confidential == NO_SYMBOL || n->confidential == NO_FUNCTION) {
		dr_set_absent(facts, "nvml.conf_compute");
		return;
	}
	if (n->confidential != 0) {
		unseen(facts, "nvml.conf_compute", n->confidential);
		return;
	}
	dr_set_bool(facts, "nvml.conf_compute.enabled", n->enabled);
	if (n->ready_result == 0)
		dr_set_bool(facts, "nvml.conf_compute.ready", n->ready);
	else
		unseen(facts, "nvml.conf_compute.ready", n->ready_result);
	if (n->multi_result == 0)
		dr_set_text(facts, "nvml.conf_compute.multi_gpu", n->multi ? "ppcie" : "none");
}

static void
report(struct fw_json *facts, struct nvml *n, const struct dr_child_end *e)
{
	char real[PATH_MAX];

	dr_set_text(facts, "nvml.dlopen", n->path[0] ? "ok" : n->dlerror[0] ? n->dlerror : "the child ended in it");
	dr_set_bool(facts, "nvml.hung", e->hung);
	dr_set_real(facts, "nvml.seconds", e->seconds);
	const char *version = n->path[0] && realpath(n->path, real) ? strstr(real, "libnvidia-ml.so.") : NULL;
	dr_set_text(facts, "nvml.library_version", version && strchr(version + 16, '.') ? version + 16 : NULL);
	if (n->init == NOT_ASKED || n->init == NO_SYMBOL)
		dr_set_absent(facts, "nvml.init");
	else
		dr_set_int(facts, "nvml.init", n->init);
	if (n->init != 0) {
		dr_unseen(facts, "nvml.gpus", 0, n->path[0] ? e->hung ? "NVML hangs" : "NVML does not start" : "libnvidia-ml.so.1 is not there", NULL);
		dr_unseen(facts, "nvml.conf_compute", 0, "NVML does not start", NULL);
		return;
	}
	dr_set_text(facts, "nvml.driver_version", n->driver_version[0] ? n->driver_version : NULL);
	if (n->cuda_result == 0)
		dr_set_int(facts, "nvml.cuda_version", n->cuda_version);
	report_confidential(facts, n);
	if (n->count_result != 0) {
		unseen(facts, "nvml.gpus", n->count_result);
		return;
	}
	dr_set_int(facts, "nvml.count", n->count);
	struct fw_json *list = dr_list(facts, "nvml.gpus");
	for (unsigned i = 0; i < n->count && i < MAX_GPUS; i++)
		report_gpu(dr_append(list), &n->gpu[i]);
}

void
dr_probe_nvml(const struct dr_options *o, struct fw_json *facts)
{
	struct dr_child_end e;

	if (*o->root && !o->driver) {
		dr_unseen(facts, "nvml", 0, "it was not asked: the facts are not of this machine", "nvidia-smi -q");
		return;
	}
	struct nvml *n = dr_shared(sizeof(*n));
	if (!n) {
		dr_unseen(facts, "nvml", ENOMEM, "no memory to share with a child", NULL);
		return;
	}
	snprintf(n->asked, sizeof(n->asked), "%s%slibnvidia-ml.so.1", o->driver ? o->driver : "", o->driver ? "/" : "");
	n->load = dr_may_load(o, facts);
	n->init = n->count_result = n->confidential = n->ready_result = n->multi_result = n->cuda_result = NOT_ASKED;
	for (int i = 0; i < MAX_GPUS; i++) {
		struct gpu *gpu = &n->gpu[i];
		gpu->handle = gpu->fabric = gpu->processes = NOT_ASKED;
		for (int k = 0; k < NUMBERS; k++)
			gpu->number[k].result = NOT_ASKED;
		for (int k = 0; k < TEXTS; k++)
			gpu->text[k].result = NOT_ASKED;
	}
	dr_child_run(ask, n, &n->beat, o->deadline, &e);
	/* A broken library may have written into what the child shares. */
	n->dlerror[sizeof(n->dlerror) - 1] = n->path[sizeof(n->path) - 1] = n->driver_version[TEXT - 1] = 0;
	if (e.ran) {
		dr_put(facts, "nvml", fw_json_object());
		report(facts, n, &e);
	} else {
		dr_unseen(facts, "nvml", EAGAIN, "no child could be started", "ulimit -u");
	}
	dr_unshare(n, sizeof(*n));
}
