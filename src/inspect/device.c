/* The GPU at hand: asks the driver that a program started now would get, in a child process that may hang, crash or print. */
#include "inspect/inspect.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

/* The child's answer; false if it gave none in time. A child that cannot be killed is left to the kernel. */
static bool
ask_in_child(struct answer *answer, double seconds)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return false;
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2) {
			ask(answer);
			_exit(write(ends[1], answer, sizeof(*answer)) != sizeof(*answer));
		}
		_exit(1);
	}
	close(ends[1]);
	struct pollfd poll_end = { .fd = ends[0], .events = POLLIN };
	bool fine = child > 0 && poll(&poll_end, 1, (int)(seconds * 1000)) == 1 && read(ends[0], answer, sizeof(*answer)) == sizeof(*answer);
	close(ends[0]);
	if (child > 0) {
		kill(child, SIGKILL);
		for (int n = 0; n < 100 && waitpid(child, NULL, WNOHANG) == 0; n++)
			nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	}
	return fine;
}

void
in_machine_ask(struct in_machine *machine, double seconds)
{
	struct answer a = { 0 };

	if (machine->asked || machine->given)
		return;
	machine->asked = true;
	if (!ask_in_child(&a, seconds))
		snprintf(machine->text, sizeof(machine->text), "the driver gave no answer within %g s", seconds);
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
