/*
 * Probe of the CUDA driver: asks the libcuda.so.1 that a program started now would get, in a child, step by step; each has the deadline.
 * A step that hangs, crashes or fails ends the sequence. A full look makes a context, moves memory and runs a kernel of ours.
 */
#include "doctor/probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum step {
	STEP_DLOPEN, STEP_SYMBOLS, STEP_VERSION, STEP_INIT, STEP_COUNT, STEP_DEVICE,
	STEP_CONTEXT, STEP_MEM_INFO, STEP_ALLOC, STEP_COPY_IN, STEP_MODULE, STEP_LAUNCH, STEP_COPY_OUT, STEP_FREE,
	STEP_DEEP_ALLOC, STEP_DEEP_COPY, STEPS
};
static const char *const step_names[STEPS] = {
	"dlopen", "symbols", "version", "init", "count", "device",
	"context", "mem_info", "alloc", "copy_in", "module", "launch", "copy_out", "free",
	"deep_alloc", "deep_copy" };

#define MAX_GPUS 32
#define MAX_PEERS 16
#define AFTER_A_HANG 3.0 /* seconds: the open of a node, or NVML, hangs already: the driver will most likely too */
#define NUMBERS 1024 /* that the kernel works on */
#define DEEP_MOST (1ull << 30)  /* bytes of the deep look */
#define DEEP_SLICE (16ull << 20)

/* out[i] = 3 * in[i] + i: what no stub gets right by chance. The oldest target that every driver since 2016 compiles. */
static const char kernel[] =
	".version 6.0\n.target sm_50\n.address_size 64\n"
	".visible .entry farwarp_doctor(.param .u64 p)\n{\n"
	"\t.reg .b32 %r<6>;\n\t.reg .b64 %a<4>;\n"
	"\tld.param.u64 %a1, [p];\n\tcvta.to.global.u64 %a1, %a1;\n"
	"\tmov.u32 %r1, %ctaid.x;\n\tmov.u32 %r2, %ntid.x;\n\tmov.u32 %r3, %tid.x;\n\tmad.lo.s32 %r1, %r1, %r2, %r3;\n"
	"\tmul.wide.s32 %a2, %r1, 4;\n\tadd.s64 %a3, %a1, %a2;\n"
	"\tld.global.u32 %r4, [%a3];\n\tmad.lo.s32 %r5, %r4, 3, %r1;\n\tst.global.u32 [%a3], %r5;\n\tret;\n}\n";

struct gpu {
	char name[128];
	unsigned char uuid[16];
	int major, minor, watchdog;
	size_t memory;
};

struct driver { /* shared with the child */
	volatile unsigned beat;         /* steps begun */
	bool full, unmask, load, deep;
	volatile enum step last;
	struct { volatile bool done; int result; double seconds; } step[STEPS];
	char asked[512], dlerror[256], path[512]; /* asked: what is given to dlopen */
	int version, count;
	struct gpu gpu[MAX_GPUS];
	size_t free, total;
	bool correct, deep_correct;
	int pairs, accessible;          /* of different GPUs */
	uint64_t deep_bytes;
	double deep_in, deep_out;       /* seconds of the copies */
};

static void
begin(struct driver *d, enum step step)
{
	d->last = step;
	d->step[step].seconds = -dr_now();
	d->beat++;
}

static bool
end(struct driver *d, enum step step, int result)
{
	d->step[step].seconds += dr_now();
	d->step[step].result = result;
	d->step[step].done = true;
	return result == 0;
}

static void *
symbol(void *library, const char *name, struct driver *d)
{
	void *found = dlsym(library, name);

	if (!found && !d->dlerror[0])
		snprintf(d->dlerror, sizeof(d->dlerror), "it has no %s", name);
	return found;
}

/* Which GPUs can reach which others' memory: asked of the driver, nothing is made. */
static void
ask_peers(struct driver *d, void *library)
{
	int (*can)(int *, int, int) = (int (*)(int *, int, int))dlsym(library, "cuDeviceCanAccessPeer");
	int count = d->count < MAX_PEERS ? d->count : MAX_PEERS, yes = 0;

	for (int i = 0; i < count && can; i++)
		for (int k = 0; k < count; k++)
			if (i != k && can(&yes, i, k) == 0) {
				d->pairs++;
				d->accessible += yes != 0;
			}
}

static void
ask_devices(struct driver *d, void *library)
{
	int (*get)(int *, int) = (int (*)(int *, int))dlsym(library, "cuDeviceGet");
	int (*get_name)(char *, int, int) = (int (*)(char *, int, int))dlsym(library, "cuDeviceGetName");
	int (*get_attribute)(int *, int, int) = (int (*)(int *, int, int))dlsym(library, "cuDeviceGetAttribute");
	int (*get_uuid)(unsigned char *, int) = (int (*)(unsigned char *, int))dlsym(library, "cuDeviceGetUuid");
	int (*get_memory)(size_t *, int) = (int (*)(size_t *, int))dlsym(library, "cuDeviceTotalMem_v2");
	int result = 0;

	begin(d, STEP_DEVICE);
	for (int i = 0; i < d->count && i < MAX_GPUS && !result; i++) {
		struct gpu *gpu = &d->gpu[i];
		int device = i;
		if (get)
			result = get(&device, i);
		if (get_name && !result)
			result = get_name(gpu->name, sizeof(gpu->name), device);
		if (get_attribute && !result) {
			get_attribute(&gpu->major, 75, device);
			get_attribute(&gpu->minor, 76, device);
			get_attribute(&gpu->watchdog, 17, device);
		}
		if (get_uuid)
			get_uuid(gpu->uuid, device);
		if (get_memory)
			get_memory(&gpu->memory, device);
	}
	if (!result)
		ask_peers(d, library);
	end(d, STEP_DEVICE, result);
}

/* A number for each place of the deep look's memory: neighbours and slices differ in every byte's worth of bits. */
static uint32_t
pattern(uint64_t place)
{
	return (uint32_t)(place * 2654435761u) ^ (uint32_t)(place >> 7);
}

/* Fills up to 1 GiB of free memory from the host, slice by slice, then reads all of it back. */
static void
look_deep(struct driver *d, int (*alloc)(uint64_t *, size_t), int (*copy_in)(uint64_t, const void *, size_t),
          int (*copy_out)(void *, uint64_t, size_t), int (*free_memory)(uint64_t))
{
	uint64_t bytes = d->free / 2 < DEEP_MOST ? d->free / 2 / DEEP_SLICE * DEEP_SLICE : DEEP_MOST, memory = 0;
	uint32_t *host = malloc(DEEP_SLICE);
	int result = 0;

	begin(d, STEP_DEEP_ALLOC);
	if (!end(d, STEP_DEEP_ALLOC, !host || !bytes ? 2 : alloc(&memory, bytes))) {
		free(host);
		return;
	}
	begin(d, STEP_DEEP_COPY);
	d->deep_correct = true;
	for (int pass = 0; pass < 2; pass++)
		for (uint64_t at = 0; at < bytes && !result; at += DEEP_SLICE, d->beat++) {
			for (uint64_t i = 0; i < DEEP_SLICE / 4 && pass == 0; i++)
				host[i] = pattern(at / 4 + i);
			double since = dr_now();
			result = pass == 0 ? copy_in(memory + at, host, DEEP_SLICE) : copy_out(host, memory + at, DEEP_SLICE);
			*(pass == 0 ? &d->deep_in : &d->deep_out) += dr_now() - since;
			for (uint64_t i = 0; i < DEEP_SLICE / 4 && pass == 1 && !result; i++)
				d->deep_correct &= host[i] == pattern(at / 4 + i);
		}
	d->deep_bytes = bytes;
	int freed = free_memory(memory);
	end(d, STEP_DEEP_COPY, result ? result : freed);
	free(host);
}

/* The steps from a context to a checked result. On a failure the rest is left to the end of the process. */
static void
ask_work(struct driver *d, void *library)
{
	int (*retain)(void **, int), (*set_current)(void *), (*mem_info)(size_t *, size_t *), (*alloc)(uint64_t *, size_t);
	int (*copy_in)(uint64_t, const void *, size_t), (*copy_out)(void *, uint64_t, size_t), (*free_memory)(uint64_t);
	int (*load)(void **, const void *), (*get_function)(void **, void *, const char *), (*synchronize)(void), (*unload)(void *);
	int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
	const struct { const char *name; void *at; } wanted[] = {
		{ "cuDevicePrimaryCtxRetain", &retain }, { "cuCtxSetCurrent", &set_current }, { "cuMemGetInfo_v2", &mem_info },
		{ "cuMemAlloc_v2", &alloc }, { "cuMemcpyHtoD_v2", &copy_in }, { "cuMemcpyDtoH_v2", &copy_out }, { "cuMemFree_v2", &free_memory },
		{ "cuModuleLoadData", &load }, { "cuModuleGetFunction", &get_function }, { "cuCtxSynchronize", &synchronize },
		{ "cuModuleUnload", &unload }, { "cuLaunchKernel", &launch } };
	void *context = NULL, *module = NULL, *function = NULL;
	uint64_t memory = 0;
	int32_t numbers[NUMBERS];

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		void *found = symbol(library, wanted[i].name, d);
		if (!found)
			return;
		memcpy(wanted[i].at, &found, sizeof(found));
	}
	begin(d, STEP_CONTEXT);
	int result = retain(&context, 0);
	if (!end(d, STEP_CONTEXT, result ? result : set_current(context)))
		return;
	begin(d, STEP_MEM_INFO);
	if (!end(d, STEP_MEM_INFO, mem_info(&d->free, &d->total)))
		return;
	begin(d, STEP_ALLOC);
	if (!end(d, STEP_ALLOC, alloc(&memory, sizeof(numbers))))
		return;
	for (int i = 0; i < NUMBERS; i++)
		numbers[i] = i * 7 - 1000;
	begin(d, STEP_COPY_IN);
	if (!end(d, STEP_COPY_IN, copy_in(memory, numbers, sizeof(numbers))))
		return;
	begin(d, STEP_MODULE);
	result = load(&module, kernel);
	if (!end(d, STEP_MODULE, result ? result : get_function(&function, module, "farwarp_doctor")))
		return;
	begin(d, STEP_LAUNCH);
	void *arguments[] = { &memory };
	result = launch(function, NUMBERS / 128, 1, 1, 128, 1, 1, 0, NULL, arguments, NULL);
	if (!end(d, STEP_LAUNCH, result ? result : synchronize()))
		return;
	begin(d, STEP_COPY_OUT);
	memset(numbers, 0, sizeof(numbers));
	if (!end(d, STEP_COPY_OUT, copy_out(numbers, memory, sizeof(numbers))))
		return;
	d->correct = true;
	for (int i = 0; i < NUMBERS; i++)
		d->correct &= numbers[i] == (i * 7 - 1000) * 3 + i;
	begin(d, STEP_FREE);
	result = free_memory(memory);
	if (end(d, STEP_FREE, result ? result : unload(module)) && d->deep)
		look_deep(d, alloc, copy_in, copy_out, free_memory);
}

/* In the child. */
static void
ask(void *shared)
{
	struct driver *d = shared;
	int (*init)(unsigned), (*get_version)(int *), (*get_count)(int *);
	struct link_map *map;

	if (!d->load)
		dr_child_touch_nothing();
	setenv("CUDA_CACHE_DISABLE", "1", 1); /* our kernel is not to lie in the user's cache */
	if (d->unmask)
		unsetenv("CUDA_VISIBLE_DEVICES");
	begin(d, STEP_DLOPEN);
	void *library = dlopen(d->asked, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		snprintf(d->dlerror, sizeof(d->dlerror), "%s", dlerror());
	if (!end(d, STEP_DLOPEN, library ? 0 : 1))
		return;
	if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0)
		snprintf(d->path, sizeof(d->path), "%s", map->l_name);
	begin(d, STEP_SYMBOLS);
	init = (int (*)(unsigned))symbol(library, "cuInit", d);
	get_version = (int (*)(int *))symbol(library, "cuDriverGetVersion", d);
	get_count = (int (*)(int *))symbol(library, "cuDeviceGetCount", d);
	if (!end(d, STEP_SYMBOLS, init && get_version && get_count ? 0 : 1))
		return;
	begin(d, STEP_VERSION);
	end(d, STEP_VERSION, get_version(&d->version));
	begin(d, STEP_INIT);
	if (!end(d, STEP_INIT, init(0)))
		return;
	begin(d, STEP_COUNT);
	if (!end(d, STEP_COUNT, get_count(&d->count)) || d->count <= 0)
		return;
	ask_devices(d, library);
	if (d->full && d->step[STEP_DEVICE].result == 0)
		ask_work(d, library);
}

/* ---- in the parent ---- */

/* What the mapped library is, by its content and what it answers. */
static void
report_library(struct fw_json *facts, const struct driver *d)
{
	char real[PATH_MAX];

	if (!d->path[0]) {
		dr_set_absent(facts, "driver.library");
		return;
	}
	if (!realpath(d->path, real))
		snprintf(real, sizeof(real), "%s", d->path);
	const char *file = strrchr(real, '/');
	const char *version = strstr(file ? file : real, "libcuda.so.");
	version = version ? version + strlen("libcuda.so.") : NULL;
	bool numbered = version && strchr(version, '.'); /* 570.195.03, not 1 */
	const char *kind = dr_kind_of_libcuda(real);
	if (strncmp(d->gpu[0].name, "farwarp", 7) == 0)
		kind = "farwarp";
	else if (d->step[STEP_INIT].result == 34)
		kind = "stub";
	dr_set_text(facts, "driver.library.path", d->path);
	dr_set_text(facts, "driver.library.real", real);
	dr_set_text(facts, "driver.library.version", numbered ? version : NULL);
	dr_set_text(facts, "driver.library.kind", kind);
}

static void
report_gpus(struct fw_json *facts, const struct driver *d)
{
	struct fw_json *gpus = dr_list(facts, "driver.gpus");
	char text[80];

	for (int i = 0; i < d->count && i < MAX_GPUS; i++) {
		const struct gpu *g = &d->gpu[i];
		const unsigned char *u = g->uuid;
		struct fw_json *gpu = dr_append(gpus);
		dr_set_text(gpu, "name", g->name);
		snprintf(text, sizeof(text), "%d.%d", g->major, g->minor);
		dr_set_text(gpu, "capability", g->major ? text : NULL);
		snprintf(text, sizeof(text), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3],
		         u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
		dr_set_text(gpu, "uuid", text);
		dr_set_int(gpu, "memory", (int64_t)g->memory);
		dr_set_bool(gpu, "watchdog", g->watchdog != 0);
	}
}

static void
report_steps(struct fw_json *facts, const struct driver *d, const struct dr_child_end *e)
{
	bool works = d->count > 0;
	int last = d->deep ? STEP_DEEP_COPY : d->full ? STEP_FREE : STEP_DEVICE;

	dr_put(facts, "driver.steps", fw_json_object());
	for (int i = 0; i <= (int)d->last; i++) {
		char fact[64];
		snprintf(fact, sizeof(fact), "driver.steps.%s", step_names[i]);
		dr_put(facts, fact, fw_json_object());
		struct fw_json *step = dr_get(facts, fact);
		bool here = i == (int)d->last && !d->step[i].done;
		dr_set_bool(step, "hung", here && e->hung);
		dr_set_int(step, "signal", here ? e->signal : 0);
		dr_set_bool(step, "ended", here && e->ran && !e->hung && !e->signal);
		if (d->step[i].done) {
			dr_set_int(step, "result", d->step[i].result);
			if (i >= STEP_VERSION)
				dr_set_text(step, "name", dr_cuda_error_name(d->step[i].result));
			dr_set_real(step, "seconds", d->step[i].seconds);
		} else {
			dr_set_absent(step, "result");
		}
		if (i <= STEP_SYMBOLS && d->step[i].result)
			dr_set_text(step, "error", d->dlerror);
	}
	for (int i = 0; i <= last; i++)
		works &= d->step[i].done && d->step[i].result == 0;
	dr_set_bool(facts, "driver.works", works && (!d->full || d->correct) && (!d->deep || d->deep_correct));
	dr_set_text(facts, "driver.last_step", step_names[d->last]);
	if (d->full && d->step[STEP_DEVICE].done && !d->step[STEP_CONTEXT].done && d->last == STEP_DEVICE && d->dlerror[0])
		dr_set_text(facts, "driver.steps.symbols.error", d->dlerror);
}

static void
report_hang(struct fw_json *facts, const struct driver *d, const struct dr_child_end *e)
{
	char state[2] = { e->state, 0 };

	dr_set_absent(facts, "driver.hang");
	if (!e->hung)
		return;
	dr_set_text(facts, "driver.hang.step", step_names[d->last]);
	dr_set_text(facts, "driver.hang.state", e->state ? state : NULL);
	dr_set_text(facts, "driver.hang.wchan", e->wchan[0] ? e->wchan : NULL);
	dr_set_text(facts, "driver.hang.file", e->file[0] ? e->file : NULL);
}

static void
prepare(const struct dr_options *o, const struct fw_json *facts, struct driver *d)
{
	d->load = dr_may_load(o, facts);
	d->deep = o->deep && !o->quick;
	snprintf(d->asked, sizeof(d->asked), "%s%slibcuda.so.1", o->driver ? o->driver : "", o->driver ? "/" : "");
}

/* No device was found and the environment names some: do they appear without it? */
static void
probe_unmasked(const struct dr_options *o, struct fw_json *facts, struct driver *d)
{
	struct dr_child_end e;

	memset(d, 0, sizeof(*d));
	prepare(o, facts, d);
	d->unmask = true;
	dr_child_run(ask, d, &d->beat, o->deadline, &e);
	if (d->step[STEP_INIT].done)
		dr_set_int(facts, "driver.unmasked.init", d->step[STEP_INIT].result);
	dr_set_int(facts, "driver.unmasked.count", d->count);
}

/* How many devices CUDA_VISIBLE_DEVICES names. */
static void
report_named(struct fw_json *facts)
{
	const char *list = dr_get_text(facts, "env.CUDA_VISIBLE_DEVICES", NULL);
	int named = 0;

	if (!list) {
		dr_set_absent(facts, "driver.named");
		return;
	}
	for (; *list; list += strcspn(list, ","), list += *list == ',')
		named += *list != ',';
	dr_set_int(facts, "driver.named", named);
}

static bool
driver_hangs(const struct fw_json *facts)
{
	const struct fw_json *nodes = dr_get(facts, "nodes");

	for (size_t i = 0; i < fw_json_size(nodes); i++)
		if (strcmp(dr_get_text(fw_json_at(nodes, i), "open", ""), "hang") == 0)
			return true;
	return dr_get_bool(facts, "nvml.hung", false);
}

void
dr_probe_driver(const struct dr_options *o, struct fw_json *facts)
{
	if (*o->root && !o->driver) {
		dr_unseen(facts, "driver", 0, "it was not asked: the facts are not of this machine", "farwarp doctor");
		return;
	}
	struct driver *d = dr_shared(sizeof(*d));
	struct dr_child_end e;
	double deadline = driver_hangs(facts) && o->deadline > AFTER_A_HANG ? AFTER_A_HANG : o->deadline;
	if (!d) {
		dr_unseen(facts, "driver", ENOMEM, "no memory to share with a child", NULL);
		return;
	}
	prepare(o, facts, d);
	d->full = !o->quick;
	dr_child_run(ask, d, &d->beat, deadline, &e);
	if (!e.ran) {
		dr_unseen(facts, "driver", EAGAIN, "no child could be started", "ulimit -u");
		dr_unshare(d, sizeof(*d));
		return;
	}
	/* A broken library may have written into what the child shares. */
	d->dlerror[sizeof(d->dlerror) - 1] = d->path[sizeof(d->path) - 1] = 0;
	for (int i = 0; i < MAX_GPUS; i++)
		d->gpu[i].name[sizeof(d->gpu[i].name) - 1] = 0;
	if (d->last >= STEPS)
		d->last = STEP_DLOPEN;
	dr_put(facts, "driver", fw_json_object());
	report_library(facts, d);
	report_steps(facts, d, &e);
	report_hang(facts, d, &e);
	if (d->step[STEP_VERSION].done)
		dr_set_int(facts, "driver.version", d->version);
	dr_set_real(facts, "driver.seconds", e.seconds);
	dr_set_absent(facts, "driver.unmasked");
	report_named(facts);
	if (d->step[STEP_COUNT].done) {
		dr_set_int(facts, "driver.count", d->count);
		dr_set_absent(facts, "driver.peer");
		if (d->pairs) {
			dr_set_int(facts, "driver.peer.pairs", d->pairs);
			dr_set_int(facts, "driver.peer.accessible", d->accessible);
		}
		report_gpus(facts, d);
	}
	if (d->step[STEP_MEM_INFO].done) {
		dr_set_int(facts, "driver.memory.free", (int64_t)d->free);
		dr_set_int(facts, "driver.memory.total", (int64_t)d->total);
	}
	if (d->step[STEP_COPY_OUT].done && d->step[STEP_COPY_OUT].result == 0)
		dr_set_bool(facts, "driver.kernel_correct", d->correct);
	dr_set_absent(facts, "driver.deep");
	if (d->step[STEP_DEEP_COPY].done && d->step[STEP_DEEP_COPY].result == 0) {
		dr_set_int(facts, "driver.deep.bytes", (int64_t)d->deep_bytes);
		dr_set_real(facts, "driver.deep.to_device", (double)d->deep_bytes / (d->deep_in > 0 ? d->deep_in : 1e-9));
		dr_set_real(facts, "driver.deep.from_device", (double)d->deep_bytes / (d->deep_out > 0 ? d->deep_out : 1e-9));
		dr_set_bool(facts, "driver.deep.correct", d->deep_correct);
	}
	bool none = (d->step[STEP_INIT].done && d->step[STEP_INIT].result == 100) || (d->step[STEP_COUNT].done && d->count == 0);
	if (none && fw_json_is(dr_get(facts, "env.CUDA_VISIBLE_DEVICES"), FW_JSON_TEXT))
		probe_unmasked(o, facts, d);
	dr_unshare(d, sizeof(*d));
}
