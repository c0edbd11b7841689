/*
 * Work in a child process: a driver library or a device node may hang in the kernel, crash or print, and none of it may reach the doctor.
 * The child shows its progress in shared memory; the parent waits until progress stops for longer than a deadline.
 */
#include "doctor/probe.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MILLISECONDS 50 /* how often progress is looked at */

static const struct dr_options machine = { .root = "" };

void *
dr_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void
dr_unshare(void *memory, size_t size)
{
	if (memory)
		munmap(memory, size);
}

void
dr_child_touch_nothing(void)
{
	static const int taken[] = { CAP_MKNOD, CAP_SYS_MODULE };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	struct statvfs dev;

	/* Device nodes can be opened on a mount that is read-only, and neither made nor changed. Needs more than many containers give. */
	if (statvfs("/dev", &dev) == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", "none", MS_REC | MS_SLAVE, "") == 0)
		mount("none", "/dev", "none", MS_REMOUNT | MS_BIND | MS_RDONLY | (dev.f_flag & (MS_NOSUID | MS_NOEXEC)), "");
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		prctl(PR_CAPBSET_DROP, taken[i]);
	if (syscall(SYS_capget, &header, data) == 0) {
		for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
			data[0].effective &= ~(1u << taken[i]);
			data[0].permitted &= ~(1u << taken[i]);
			data[0].inheritable &= ~(1u << taken[i]);
		}
		syscall(SYS_capset, &header, data);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* The descriptor that the child opened last and that explains a hang: a node, a pipe of MPS, a socket. */
static void
look_at_file(const char *name, void *user)
{
	struct { pid_t child; struct dr_child_end *end; long best; } *look = user;
	char path[64], target[160];
	long number = strtol(name, NULL, 10);

	snprintf(path, sizeof(path), "/proc/%d/fd/%.12s", (int)look->child, name);
	ssize_t length = readlink(path, target, sizeof(target) - 1);
	if (length <= 0)
		return;
	target[length] = 0;
	if (number > look->best && number > 2 && (strstr(target, "nvidia") || strstr(target, "socket:") || strstr(target, "dxg"))) {
		look->best = number;
		memcpy(look->end->file, target, sizeof(target));
	}
}

/* What the kernel says of a child that makes no progress. */
static void
look_at_hang(struct dr_child_end *end, pid_t child)
{
	char path[64], text[512];
	struct { pid_t child; struct dr_child_end *end; long best; } look = { child, end, -1 };

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
	if (dr_read_small(&machine, path, text, sizeof(text)) == 0) {
		const char *close_paren = strrchr(text, ')');
		if (close_paren && close_paren[1])
			end->state = close_paren[2];
	}
	snprintf(path, sizeof(path), "/proc/%d/wchan", (int)child);
	dr_read_small(&machine, path, end->wchan, sizeof(end->wchan));
	if (strcmp(end->wchan, "0") == 0) /* it runs, or we may not see where */
		end->wchan[0] = 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)child);
	dr_each_name(&machine, path, 256, look_at_file, &look);
}

/* Waits for the end of the pipe, or for progress that stopped: true. */
static bool
stops(int pipe, const volatile unsigned *beat, double deadline)
{
	unsigned seen = beat ? *beat : 0;
	double since = dr_now();

	for (;;) {
		double left = deadline - (dr_now() - since);
		if (left <= 0)
			return true;
		struct pollfd wait_for = { .fd = pipe, .events = POLLIN };
		int milliseconds = left * 1000 < LOOK_MILLISECONDS ? (int)(left * 1000) + 1 : LOOK_MILLISECONDS;
		if (poll(&wait_for, 1, milliseconds) > 0)
			return false;
		if (beat && *beat != seen) {
			seen = *beat;
			since = dr_now();
		}
	}
}

void
dr_child_run(void (*work)(void *shared), void *shared, const volatile unsigned *beat, double deadline, struct dr_child_end *end)
{
	int ended[2]; /* closes when the child ends, however it ends */
	double begin = dr_now();

	*end = (struct dr_child_end){ 0 };
	if (pipe2(ended, O_CLOEXEC) < 0)
		return;
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0) {
			dup2(null, STDOUT_FILENO);
			dup2(null, STDERR_FILENO);
		}
		work(shared);
		_exit(0); /* no exit handlers: a broken library must not hang here */
	}
	close(ended[1]);
	if (child > 0) {
		int status = 0;
		end->ran = true;
		if (stops(ended[0], beat, deadline)) {
			look_at_hang(end, child);
			end->hung = true;
			kill(child, SIGKILL);
			/* A child in state D does not die; do not wait for it for long. */
			struct timespec pause = { .tv_nsec = 10000000 };
			for (int i = 0; i < 20 && waitpid(child, &status, WNOHANG) == 0; i++)
				nanosleep(&pause, NULL);
		} else if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
			end->signal = WTERMSIG(status);
		}
		end->seconds = dr_now() - begin;
	}
	close(ended[0]);
}
