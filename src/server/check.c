/*
 * The quick check of the machine's GPU before anybody is served: the driver is asked in a child, because it may hang or crash, and because a
 * process that called cuInit must not fork.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "native/native.h"
#include "server/server.h"

/* In the child. */
static void
ask(const struct sv_options *options, struct sv_check *check)
{
	const struct cuda_ops *ops = NULL;
	CUdevice device;
	char why[NV_WHY], list[2 * SESSION_VISIBLE_MAX];

	if (sv_device_list(options->devices, NULL, list, sizeof(list)))
		setenv("CUDA_VISIBLE_DEVICES", list, 1);
	check->version = nv_driver_version();
	check->result = nv_open(&ops, why);
	snprintf(check->text, sizeof(check->text), "%s", why);
	if (check->result == CUDA_SUCCESS)
		check->result = ops->cuDeviceGetCount(&check->count);
	if (check->result == CUDA_SUCCESS && check->count > 0 && ops->cuDeviceGet(&device, 0) == CUDA_SUCCESS)
		ops->cuDeviceGetName(check->name, sizeof(check->name), device);
}

void
sv_check_native(const struct sv_options *options, int timeout_ms, struct sv_check *check)
{
	int ends[2], status = 0;

	*check = (struct sv_check){ .result = CUDA_ERROR_UNKNOWN };
	if (pipe2(ends, O_CLOEXEC) != 0) {
		snprintf(check->text, sizeof(check->text), "no pipe for the check: %s", strerror(errno));
		return;
	}
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_RDWR);
		if (null >= 0)
			dup2(null, STDOUT_FILENO);
		ask(options, check);
		ssize_t written = write(ends[1], check, sizeof(*check)); /* at most PIPE_BUF: whole */
		_exit(written == (ssize_t)sizeof(*check) ? 0 : 1);       /* no exit handlers: a broken driver must not hang here */
	}
	close(ends[1]);
	struct pollfd wait = { .fd = ends[0], .events = POLLIN };
	int ready = child > 0 ? poll(&wait, 1, timeout_ms) : -1;
	if (ready > 0 && read(ends[0], check, sizeof(*check)) == (ssize_t)sizeof(*check)) {
		check->answered = true;
		check->text[sizeof(check->text) - 1] = check->name[sizeof(check->name) - 1] = 0;
		waitpid(child, &status, 0);
	} else if (ready == 0) {
		snprintf(check->text, sizeof(check->text), "the driver does not answer within %d s: it hangs", timeout_ms / 1000);
		check->hung = true;
		kill(child, SIGKILL); /* in vain if it hangs in the kernel: it is not waited for */
		waitpid(child, &status, WNOHANG);
	} else if (child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
		check->signal = WTERMSIG(status);
		snprintf(check->text, sizeof(check->text), "the driver crashes when it is asked (signal %d)", check->signal);
	} else {
		snprintf(check->text, sizeof(check->text), "the driver could not be asked");
	}
	close(ends[0]);
}
