/*
 * Asks the driver library in a child: the library may crash, hang in the kernel or print, and none of it may reach the doctor.
 * The child reports each stage before it begins it, through shared memory; the parent waits until a deadline.
 */
#include "doctor.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *const dr_stage_names[] = { "start", "dlopen", "symbols", "cuInit", "cuDeviceGetCount", "cuDeviceGetName", "done" };

static double
now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* In the child. The volatile stage is what the parent sees of a hang. */
static void
ask(struct dr_driver *d)
{
	int (*init)(unsigned), (*get_version)(int *), (*get_count)(int *), (*get_name)(char *, int, int);
	struct link_map *map;

	d->stage = DR_STAGE_DLOPEN;
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(d->dlerror, sizeof(d->dlerror), "%s", dlerror());
		return;
	}
	if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0)
		snprintf(d->path, sizeof(d->path), "%s", map->l_name);
	d->stage = DR_STAGE_SYMBOLS;
	init = (int (*)(unsigned))dlsym(library, "cuInit");
	get_version = (int (*)(int *))dlsym(library, "cuDriverGetVersion");
	get_count = (int (*)(int *))dlsym(library, "cuDeviceGetCount");
	get_name = (int (*)(char *, int, int))dlsym(library, "cuDeviceGetName");
	if (!init || !get_version || !get_count || !get_name) {
		snprintf(d->dlerror, sizeof(d->dlerror), "it has no cuInit: no CUDA driver library");
		return;
	}
	get_version(&d->version);
	d->stage = DR_STAGE_INIT;
	d->init_result = init(0);
	if (d->init_result)
		return;
	d->stage = DR_STAGE_COUNT;
	d->count_result = get_count(&d->count);
	d->stage = DR_STAGE_NAME;
	if (d->count > 0)
		get_name(d->name, sizeof(d->name), 0);
	d->stage = DR_STAGE_DONE;
}

/* What the kernel says of a child that does not end. */
static void
look_at_hang(struct dr_driver *d, pid_t child)
{
	char path[64], text[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
	FILE *file = fopen(path, "re");
	if (file) {
		size_t got = fread(text, 1, sizeof(text) - 1, file);
		text[got] = 0;
		const char *close_paren = strrchr(text, ')');
		if (close_paren && close_paren[1])
			d->hung_state = close_paren[2];
		fclose(file);
	}
	snprintf(path, sizeof(path), "/proc/%d/wchan", (int)child);
	file = fopen(path, "re");
	if (file) {
		size_t got = fread(d->hung_wchan, 1, sizeof(d->hung_wchan) - 1, file);
		d->hung_wchan[got] = 0;
		fclose(file);
	}
}

void
dr_probe_driver(struct dr_driver *driver, double deadline_seconds)
{
	*driver = (struct dr_driver){ .stage = DR_STAGE_START };
	struct dr_driver *shared =
		mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return;
	int ended[2]; /* closes when the child ends, however it ends */
	if (pipe2(ended, O_CLOEXEC) < 0) {
		munmap(shared, sizeof(*shared));
		return;
	}
	double begin = now();
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);
		if (null >= 0) {
			dup2(null, STDOUT_FILENO);
			dup2(null, STDERR_FILENO);
		}
		shared->asked = true;
		ask(shared);
		_exit(0); /* no exit handlers: a broken library must not hang here */
	}
	close(ended[1]);
	if (child > 0) {
		struct pollfd wait_for = { .fd = ended[0], .events = POLLIN };
		int ready = poll(&wait_for, 1, (int)(deadline_seconds * 1000));
		int status = 0;
		if (ready == 0) {
			look_at_hang(shared, child);
			shared->hung = true;
			kill(child, SIGKILL);
			/* A child in D state does not die; do not wait for it for long. */
			struct timespec pause = { .tv_nsec = 10000000 };
			for (int i = 0; i < 50 && waitpid(child, &status, WNOHANG) == 0; i++)
				nanosleep(&pause, NULL);
		} else if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
			shared->signal = WTERMSIG(status);
		}
		shared->seconds = now() - begin;
		*driver = *shared;
	}
	close(ended[0]);
	munmap(shared, sizeof(*shared));
}
