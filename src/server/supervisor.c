/*
 * The supervisor: listens, and starts a worker process for each connection. It reads nothing from a client; a worker that crashes is one
 * client's loss. On SIGTERM or SIGINT the workers end too.
 */
#include "server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

#define ADDRESSES_MAX 8
#define WORKERS_MAX 1024

static pid_t workers[WORKERS_MAX];
static unsigned worker_count;

static void
reap(void)
{
	int status;

	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (unsigned n = 0; n < worker_count; n++)
			if (workers[n] == pid) {
				workers[n] = workers[--worker_count];
				if (WIFSIGNALED(status))
					fw_error("serve", "worker %d died of signal %d; its client's work is lost, nobody else's", (int)pid, WTERMSIG(status));
				else
					fw_info("serve", "worker %d ended", (int)pid);
			}
}

/* A loopback address of any family. */
static bool
is_loopback(const struct wire_address *address)
{
	return strcmp(address->host, "localhost") == 0 || strcmp(address->host, "::1") == 0 || strncmp(address->host, "127.", 4) == 0;
}

/* Starts a worker for an accepted connection. The descriptor is closed here in any case. */
static void
start_worker(const struct sv_options *options, int fd, enum wire_kind kind)
{
	char fd_text[16], kind_text[16];
	const char *arguments[64] = { options->executable, "serve", "--worker", fd_text, "--worker-kind", kind_text };
	unsigned count = 6;

	snprintf(fd_text, sizeof(fd_text), "%d", fd);
	snprintf(kind_text, sizeof(kind_text), "%d", (int)kind);
	for (char *const *a = options->worker_arguments; *a && count < 63; a++)
		arguments[count++] = *a;
	pid_t pid = fork();
	if (pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		fcntl(fd, F_SETFD, 0);
		execv(options->executable, (char *const *)(uintptr_t)arguments);
		_exit(127);
	}
	close(fd);
	if (pid < 0) {
		fw_error("serve", "no worker for a client: %s", strerror(errno));
		return;
	}
	workers[worker_count++] = pid;
	fw_info("serve", "worker %d started", (int)pid);
}

static void
stop_workers(void)
{
	for (unsigned n = 0; n < worker_count; n++)
		kill(workers[n], SIGTERM);
	for (unsigned tries = 0; worker_count && tries < 100; tries++) {
		reap();
		usleep(20000);
	}
	for (unsigned n = 0; n < worker_count; n++)
		kill(workers[n], SIGKILL);
	while (worker_count && waitpid(-1, NULL, 0) > 0)
		worker_count--;
}

int
sv_supervise(const struct sv_options *options)
{
	struct pollfd sockets[ADDRESSES_MAX + 1];
	char error[256], name[300];
	sigset_t set;

	for (unsigned n = 0; n < options->listen_count; n++) {
		const struct wire_address *address = &options->listen[n];
		if (address->kind == WIRE_TCP && !is_loopback(address) && !options->insecure) {
			fprintf(stderr, "farwarp serve: plain TCP beyond loopback lets anyone on the network use the GPU and read what it does; "
			                "use tls:, or --insecure on a network that you trust\n");
			return 64;
		}
		int fd = wire_listen(address, error);
		if (fd < 0) {
			fprintf(stderr, "farwarp serve: %s\n", error);
			return 1;
		}
		sockets[n] = (struct pollfd){ .fd = fd, .events = POLLIN };
		wire_address_format(address, name, sizeof(name));
		fprintf(stderr, "farwarp serve: listening on %s\n", name);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sockets[options->listen_count] = (struct pollfd){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN };
	for (bool running = true; running;) {
		struct signalfd_siginfo info;
		if (poll(sockets, options->listen_count + 1, -1) < 0 && errno != EINTR)
			break;
		while (read(sockets[options->listen_count].fd, &info, sizeof(info)) == sizeof(info))
			running &= info.ssi_signo == SIGCHLD;
		reap();
		for (unsigned n = 0; running && n < options->listen_count; n++) {
			if (!(sockets[n].revents & POLLIN))
				continue;
			int fd = accept4(sockets[n].fd, NULL, NULL, SOCK_CLOEXEC);
			if (fd < 0) {
				if (errno == EMFILE || errno == ENFILE)
					usleep(10000); /* a worker's end may free one */
				continue;
			}
			if (worker_count >= options->max_clients || worker_count >= WORKERS_MAX) {
				fw_warn("serve", "a client was turned away: %u are being served", worker_count);
				close(fd);
				continue;
			}
			start_worker(options, fd, options->listen[n].kind);
		}
	}
	stop_workers();
	for (unsigned n = 0; n < options->listen_count; n++) {
		close(sockets[n].fd);
		if (options->listen[n].kind == WIRE_UNIX && options->listen[n].host[0] != '@')
			unlink(options->listen[n].host);
	}
	return 0;
}
