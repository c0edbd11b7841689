/* The GPU at hand: asks the driver that a program started now would get, in a child process that may hang, crash or print
 * and that can neither load modules nor make device nodes. */
#include "inspect/inspect.h"

#include <dlfcn.h>

#include "doctor/probe.h"

#define ATTRIBUTE_MAJOR 75 /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR */
#define ATTRIBUTE_MINOR 76

struct answer {
	int loaded, init, version, count, major, minor;
	char name[96];
};

static void
ask(struct answer *a)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return;
	a->loaded = 1;
	int (*init)(unsigned) = (int (*)(unsigned))dlsym(library, "cuInit");
	int (*version)(int *) = (int (*)(int *))dlsym(library, "cuDriverGetVersion");
	int (*count)(int *) = (int (*)(int *))dlsym(library, "cuDeviceGetCount");
	int (*attribute)(int *, int, int) = (int (*)(int *, int, int))dlsym(library, "cuDeviceGetAttribute");
	int (*name)(char *, int, int) = (int (*)(char *, int, int))dlsym(library, "cuDeviceGetName");
	if (!init || !version || !count)
		return;
	version(&a->version);
	a->init = init(0);
	if (a->init || count(&a->count) || !a->count || !attribute)
		return;
	attribute(&a->major, ATTRIBUTE_MAJOR, 0);
	attribute(&a->minor, ATTRIBUTE_MINOR, 0);
	if (name)
		name(a->name, sizeof(a->name) - 1, 0);
}

static void
ask_and_touch_nothing(void *answer)
{
	dr_child_touch_nothing();
	ask(answer);
}

void
in_machine_ask(struct in_machine *machine, double seconds)
{
	struct dr_child_end end = { 0 };

	if (machine->asked || machine->given)
		return;
	machine->asked = true;
	struct answer *shared = dr_shared(sizeof(*shared)), a = { 0 };
	if (shared) {
		dr_child_run(ask_and_touch_nothing, shared, NULL, seconds, &end);
		a = *shared;
		dr_unshare(shared, sizeof(*shared));
	}
	if (end.hung || !end.ran)
		snprintf(machine->text, sizeof(machine->text), "the driver gave no answer within %g s", seconds);
	else if (end.signal)
		snprintf(machine->text, sizeof(machine->text), "the driver crashed (signal %d)", end.signal);
	else if (!a.loaded)
		snprintf(machine->text, sizeof(machine->text), "no NVIDIA driver (libcuda.so.1) here");
	else if (a.init)
		snprintf(machine->text, sizeof(machine->text), "cuInit answers %d", a.init);
	else if (!a.count || !a.major)
		snprintf(machine->text, sizeof(machine->text), "the driver shows no GPU");
	if (machine->text[0])
		return;
	uint32_t cuda = (uint32_t)(a.version / 1000 * 10 + a.version % 1000 / 10);
	machine->device = (struct in_device){ .cc = (uint32_t)(10 * a.major + a.minor), .max_ptx = in_ptx_of_cuda(cuda) };
	a.name[sizeof(a.name) - 1] = 0;
	snprintf(machine->text, sizeof(machine->text), "%s, compute capability %d.%d, driver for CUDA %u.%u", a.name, a.major, a.minor, cuda / 10,
	         cuda % 10);
}
