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
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define ADDRESSES_MAX 8
#define WORKERS_MAX 1024
#define HELLO_AWAITED_MS 100 /* a client that said nothing for so long gives its place to another one */

static struct worker {
	pid_t pid;
	bool leased;      /* its client was accepted */
	uint64_t started; /* ms */
} workers[WORKERS_MAX]; /* in the order of their start */
static unsigned worker_count;
static int leases[2]; /* a pipe: workers write their process id when their client was accepted */

static void
reap(void)
{
	int status;

	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (unsigned n = 0; n < worker_count; n++)
			if (workers[n].pid == pid) {
				worker_count--;
				memmove(&workers[n], &workers[n + 1], (worker_count - n) * sizeof(workers[0]));
				if (WIFSIGNALED(status))
					fw_error("serve", "worker %d died of signal %d; its client's work is lost, nobody else's", (int)pid, WTERMSIG(status));
				else
					fw_info("serve", "worker %d ended", (int)pid);
			}
}

static uint64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
read_leases(void)
{
	pid_t pid;

	while (read(leases[0], &pid, sizeof(pid)) == sizeof(pid))
		for (unsigned n = 0; n < worker_count; n++)
			workers[n].leased |= workers[n].pid == pid;
}

/* Room for one more worker: who does not say hello gives way, so that connections alone keep nobody out. */
static bool
make_room(unsigned max)
{
	unsigned silent = 0;

	if (worker_count < max)
		return true;
	read_leases();
	while (silent < worker_count && workers[silent].leased)
		silent++;
	if (silent == worker_count || now_ms() - workers[silent].started < HELLO_AWAITED_MS)
		return false;
	kill(workers[silent].pid, SIGKILL);
	waitpid(workers[silent].pid, NULL, 0);
	worker_count--;
	memmove(&workers[silent], &workers[silent + 1], (worker_count - silent) * sizeof(workers[0]));
	return true;
}

/* A unix socket is for the user of the server and for root, whatever its mode became; elsewhere there is no user to ask about. */
static bool
may_connect(int fd, enum wire_kind kind)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (kind != WIRE_UNIX)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return false;
	if (peer.uid == 0 || peer.uid == geteuid())
		return true;
	fw_warn("serve", "a client of user %u was turned away: this server is for user %u", (unsigned)peer.uid, (unsigned)geteuid());
	return false;
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
	char fd_text[16], kind_text[16], lease_text[16];
	const char *arguments[64] = { options->executable, "serve", "--worker", fd_text, "--worker-kind", kind_text, "--worker-lease", lease_text };
	unsigned count = 8;

	snprintf(fd_text, sizeof(fd_text), "%d", fd);
	snprintf(kind_text, sizeof(kind_text), "%d", (int)kind);
	snprintf(lease_text, sizeof(lease_text), "%d", leases[1]);
	for (char *const *a = options->worker_arguments; *a && count < 63; a++)
		arguments[count++] = *a;
	pid_t pid = fork();
	if (pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		fcntl(fd, F_SETFD, 0);
		fcntl(leases[1], F_SETFD, 0);
		execv(options->executable, (char *const *)(uintptr_t)arguments);
		_exit(127);
	}
	close(fd);
	if (pid < 0) {
		fw_error("serve", "no worker for a client: %s", strerror(errno));
		return;
	}
	workers[worker_count++] = (struct worker){ .pid = pid, .started = now_ms() };
	fw_info("serve", "worker %d started", (int)pid);
}

static void
stop_workers(void)
{
	for (unsigned n = 0; n < worker_count; n++)
		kill(workers[n].pid, SIGTERM);
	for (unsigned tries = 0; worker_count && tries < 100; tries++) {
		reap();
		usleep(20000);
	}
	for (unsigned n = 0; n < worker_count; n++)
		kill(workers[n].pid, SIGKILL);
	while (worker_count && waitpid(-1, NULL, 0) > 0)
		worker_count--;
}

int
sv_supervise(const struct sv_options *options)
{
	struct pollfd sockets[ADDRESSES_MAX + 1];
	char error[256], name[300];
	sigset_t set;

	signal(SIGPIPE, SIG_IGN); /* the log's reader may end, its file may reach a limit; workers inherit this */
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	struct pollfd *signals = &sockets[options->listen_count];
	*signals = (struct pollfd){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN };
	if (signals->fd < 0 || pipe2(leases, O_CLOEXEC) != 0 || fcntl(leases[0], F_SETFL, O_NONBLOCK) != 0) {
		perror("farwarp serve");
		return 1;
	}
	for (unsigned n = 0; n < options->listen_count; n++) {
		const struct wire_address *address = &options->listen[n];
		if (address->kind == WIRE_TLS && !options->token && !options->tls.client_ca && !options->insecure) {
			fprintf(stderr, "farwarp serve: without a token or client certificates anyone who reaches %s can use the GPU: set FARWARP_TOKEN "
			                "here and on the client (openssl rand -hex 16 makes one), or --client-ca FILE, or --insecure\n", address->host);
			return 64;
		}
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
	for (bool running = true; running;) {
		struct signalfd_siginfo info;
		if (poll(sockets, options->listen_count + 1, -1) < 0 && errno != EINTR)
			break;
		while (read(signals->fd, &info, sizeof(info)) == sizeof(info))
			running &= info.ssi_signo == SIGCHLD;
		read_leases();
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
			bool allowed = may_connect(fd, options->listen[n].kind);
			if (allowed && !make_room(options->max_clients < WORKERS_MAX ? options->max_clients : WORKERS_MAX)) {
				fw_warn("serve", "a client was turned away: %u are being served", worker_count);
				allowed = false;
			}
			if (!allowed) {
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
