/*
 * The supervisor: listens, and starts a worker process for each connection. It reads nothing from a client; a worker that crashes is one
 * client's loss. On SIGTERM it listens no more and lets clients finish for as long as --drain says; then, or on SIGINT, the workers end too.
 *
 * A service manager may give it its sockets (LISTEN_FDS, sd_listen_fds(3)) and hears when it is ready (NOTIFY_SOCKET, sd_notify(3)).
 */
#include "server/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define SOCKETS_MAX 16 /* of options and of the service manager together */
#define WORKERS_MAX 1024
#define REFUSERS_MAX 16 /* workers that tell a client why it is turned away; more are closed without a word */
#define FIRST_GIVEN_FD 3 /* sd_listen_fds(3) */
#define HELLO_AWAITED_MS 100 /* a client that said nothing for so long gives its place to another one */

static struct worker {
	pid_t pid;
	bool leased;      /* its client was accepted */
	bool refuser;     /* it only says why its client is turned away */
	uint64_t started; /* ms */
} workers[WORKERS_MAX]; /* in the order of their start */
static unsigned worker_count;
static int leases[2]; /* a pipe: workers write their process id when their client was accepted */

static struct listener {
	int fd;
	enum wire_kind kind;
	char name[300];
	const char *path; /* of a unix socket made here, to be removed; NULL: none */
} listeners[SOCKETS_MAX];
static unsigned listener_count;

/* Who connected, as far as the socket tells. */
struct peer {
	bool known; /* uid and pid */
	unsigned uid, pid;
	char address[64]; /* of another host; "" on a unix socket */
};

static uint64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- workers --------------------------------------------------------------------------------------------------------- */

static void
forget(unsigned n)
{
	worker_count--;
	memmove(&workers[n], &workers[n + 1], (worker_count - n) * sizeof(workers[0]));
}

static void
reap(void)
{
	int status;

	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (unsigned n = 0; n < worker_count; n++)
			if (workers[n].pid == pid) {
				bool killed = WIFSIGNALED(status);
				SV_EVENT("exit", { "worker", NULL, (uint64_t)pid }, { killed ? "signal" : "status", NULL,
				         (uint64_t)(killed ? WTERMSIG(status) : WEXITSTATUS(status)) }, { "ms", NULL, now_ms() - workers[n].started });
				if (killed)
					fw_error("serve", "worker %d died of signal %d; its client's work is lost, nobody else's", (int)pid, WTERMSIG(status));
				forget(n);
			}
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
	unsigned silent = 0, clients = 0;

	for (unsigned n = 0; n < worker_count; n++)
		clients += !workers[n].refuser;
	if (clients < max)
		return worker_count < WORKERS_MAX;
	read_leases();
	while (silent < worker_count && (workers[silent].leased || workers[silent].refuser))
		silent++;
	if (silent == worker_count || now_ms() - workers[silent].started < HELLO_AWAITED_MS)
		return false;
	kill(workers[silent].pid, SIGKILL);
	waitpid(workers[silent].pid, NULL, 0);
	forget(silent);
	return true;
}

/* Starts a worker for an accepted connection, or one that says `refusal`. The descriptor is closed here in any case. Its process, or -1. */
static pid_t
start_worker(const struct sv_options *options, int fd, enum wire_kind kind, const char *refusal)
{
	char fd_text[16], kind_text[16], lease_text[16];
	const char *arguments[64] = { options->executable, "serve", "--worker", fd_text, "--worker-kind", kind_text, "--worker-lease", lease_text };
	unsigned count = 8;

	snprintf(fd_text, sizeof(fd_text), "%d", fd);
	snprintf(kind_text, sizeof(kind_text), "%d", (int)kind);
	snprintf(lease_text, sizeof(lease_text), "%d", leases[1]);
	if (refusal) {
		arguments[count++] = "--worker-refuse";
		arguments[count++] = refusal;
	}
	for (char *const *a = options->worker_arguments; *a && count < 63; a++)
		arguments[count++] = *a;
	pid_t pid = fork();
	if (pid == 0) {
		sigset_t none;
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* as sv_work() does, but before it could be stopped on its way there */
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
		return -1;
	}
	workers[worker_count++] = (struct worker){ .pid = pid, .refuser = refusal, .started = now_ms() };
	return pid;
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

/* ---- the service manager ----------------------------------------------------------------------------------------------- */

/* sd_notify(3): one datagram; nobody listens: nothing. */
static void
notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = path ? strlen(path) : 0;

	if ((length && path[0] != '/' && path[0] != '@') || length < 2 || length >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		fw_warn("serve", "NOTIFY_SOCKET %s: %s", path, strerror(errno));
	close(fd);
}

/* What a socket that was given listens on; false if it is none that clients could come by. */
static bool
describe_given(int fd, struct listener *listener)
{
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} address;
	socklen_t size = sizeof(address), length = sizeof(int);
	char host[INET6_ADDRSTRLEN] = "";
	int listens = 0;

	memset(&address, 0, sizeof(address));
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || !listens || getsockname(fd, &address.any, &size) != 0)
		return false;
	switch (address.any.sa_family) {
	case AF_UNIX:
		listener->kind = WIRE_UNIX;
		snprintf(listener->name, sizeof(listener->name), "unix:%s%.100s", address.un.sun_path[0] ? "" : "@",
		         address.un.sun_path + !address.un.sun_path[0]);
		return true;
	case AF_INET:
	case AF_INET6: {
		bool six = address.any.sa_family == AF_INET6;
		const void *bytes = six ? (const void *)&address.in6.sin6_addr : &address.in.sin_addr;
		listener->kind = WIRE_TCP;
		snprintf(listener->name, sizeof(listener->name), six ? "tcp:[%s]:%u" : "tcp:%s:%u", inet_ntop(address.any.sa_family, bytes, host, sizeof(host)),
		         ntohs(six ? address.in6.sin6_port : address.in.sin_port));
		return true;
	}
	case AF_VSOCK:
		listener->kind = WIRE_VSOCK;
		snprintf(listener->name, sizeof(listener->name), "vsock");
		return true;
	default:
		return false;
	}
}

/* sd_listen_fds(3): the sockets from descriptor 3 on are ours if LISTEN_PID says so. Those whose name begins with "tls" speak TLS. */
static bool
take_given(const struct sv_options *options)
{
	const char *names = getenv("LISTEN_FDNAMES");
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid())
		return true;
	long given = strtol(count, NULL, 10);
	unsetenv("LISTEN_PID"); /* not the workers' */
	unsetenv("LISTEN_FDS");
	char *all = names ? strdup(names) : NULL, *rest = all;
	unsetenv("LISTEN_FDNAMES");
	for (long n = 0; n < given; n++) {
		struct listener listener = { .fd = (int)(FIRST_GIVEN_FD + n) };
		if (listener_count == SOCKETS_MAX || !describe_given(listener.fd, &listener)) {
			fprintf(stderr, "farwarp serve: the service manager's descriptor %d is no listening socket that farwarp knows\n", listener.fd);
			return false;
		}
		const char *name = rest ? strsep(&rest, ":") : "";
		if (listener.kind == WIRE_TCP && strncmp(name, "tls", 3) == 0) {
			if (!options->tls.cert) {
				fprintf(stderr, "farwarp serve: the socket %s of the service manager needs --cert\n", name);
				return false;
			}
			listener.kind = WIRE_TLS;
			memcpy(listener.name, "tls", 3);
		}
		if (listener.kind == WIRE_TCP && strncmp(listener.name, "tcp:127.", 8) != 0 && strncmp(listener.name, "tcp:[::1]", 9) != 0 &&
		    !options->insecure) {
			fprintf(stderr, "farwarp serve: %s of the service manager is plain TCP beyond loopback: name it tls, or say --insecure\n", listener.name);
			return false;
		}
		fcntl(listener.fd, F_SETFD, FD_CLOEXEC);
		fcntl(listener.fd, F_SETFL, fcntl(listener.fd, F_GETFL) | O_NONBLOCK);
		listeners[listener_count++] = listener;
	}
	free(all);
	return true;
}

/* ---- listening ----------------------------------------------------------------------------------------------------------- */

/* A loopback address of any family. */
static bool
is_loopback(const struct wire_address *address)
{
	return strcmp(address->host, "localhost") == 0 || strcmp(address->host, "::1") == 0 || strncmp(address->host, "127.", 4) == 0;
}

/* Listens where the options say and where the service manager did. 0, or an exit status after a line. */
static int
begin_listening(const struct sv_options *options)
{
	char error[256];

	if (!take_given(options))
		return 1;
	for (unsigned n = 0; n < options->listen_count; n++) {
		const struct wire_address *address = &options->listen[n];
		struct listener *listener = &listeners[listener_count];
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
		int fd = listener_count < SOCKETS_MAX ? wire_listen(address, error) : -1;
		if (fd < 0) {
			fprintf(stderr, "farwarp serve: %s\n", listener_count < SOCKETS_MAX ? error : "too many sockets");
			return 1;
		}
		*listener = (struct listener){ .fd = fd, .kind = address->kind };
		if (address->kind == WIRE_UNIX && address->host[0] != '@') {
			listener->path = address->host;
			if (options->allow_count && chmod(address->host, 0666) != 0) /* who may connect is asked of the kernel */
				fw_warn("serve", "%s: %s", address->host, strerror(errno));
		}
		wire_address_format(address, listener->name, sizeof(listener->name));
		listener_count++;
	}
	if (!listener_count) {
		fprintf(stderr, "farwarp serve: where to listen? As in: farwarp serve --listen unix:/run/farwarp.sock\n");
		return 64;
	}
	for (unsigned n = 0; n < listener_count; n++)
		SV_EVENT("listening", { "address", listeners[n].name, 0 });
	return 0;
}

static void
stop_listening(void)
{
	for (unsigned n = 0; n < listener_count; n++) {
		close(listeners[n].fd);
		if (listeners[n].path)
			unlink(listeners[n].path);
	}
	listener_count = 0;
}

/* ---- clients --------------------------------------------------------------------------------------------------------------- */

static struct peer
ask_peer(int fd, enum wire_kind kind)
{
	struct peer peer = { .known = false };
	struct ucred credentials;
	socklen_t size = sizeof(credentials);
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} address;
	socklen_t length = sizeof(address);

	if (kind == WIRE_UNIX) {
		peer.known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0;
		peer.uid = peer.known ? credentials.uid : 0;
		peer.pid = peer.known ? (unsigned)credentials.pid : 0;
	} else if (getpeername(fd, &address.any, &length) == 0 && (address.any.sa_family == AF_INET || address.any.sa_family == AF_INET6)) {
		bool six = address.any.sa_family == AF_INET6;
		const void *bytes = six ? (const void *)&address.in6.sin6_addr : &address.in.sin_addr;
		inet_ntop(address.any.sa_family, bytes, peer.address, sizeof(peer.address));
	}
	return peer;
}

/*
 * A unix socket is for the user of the server, for root and for whom --allow-uid names, whatever its mode became; elsewhere there is no
 * user to ask about.
 */
static bool
may_connect(const struct sv_options *options, const struct peer *peer, enum wire_kind kind)
{
	if (kind != WIRE_UNIX)
		return true;
	if (!peer->known)
		return false;
	for (unsigned n = 0; n < options->allow_count; n++)
		if (options->allow[n] == peer->uid)
			return true;
	return peer->uid == 0 || peer->uid == geteuid();
}

/* Turns a client away with a sentence that it can print. */
static void
turn_away(const struct sv_options *options, int fd, enum wire_kind kind, const char *why)
{
	unsigned refusers = 0;

	for (unsigned n = 0; n < worker_count; n++)
		refusers += workers[n].refuser;
	if (refusers < REFUSERS_MAX && worker_count < WORKERS_MAX)
		start_worker(options, fd, kind, why);
	else
		close(fd);
}

static void
accept_client(const struct sv_options *options, const struct listener *listener)
{
	char why[200] = "";
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			usleep(10000); /* a worker's end may free one */
		return;
	}
	struct peer peer = ask_peer(fd, listener->kind);
	if (!may_connect(options, &peer, listener->kind))
		snprintf(why, sizeof(why), "user %u may not use this server; it is for user %u and whom --allow-uid names", peer.uid, (unsigned)geteuid());
	else if (!make_room(options->max_clients < WORKERS_MAX ? options->max_clients : WORKERS_MAX))
		snprintf(why, sizeof(why), "the server is full: %u clients are being served, as --max-clients says; try again later", options->max_clients);
	struct sv_field who[] = { { "address", listener->name, 0 }, { peer.known ? "uid" : "peer", peer.known ? NULL : peer.address, peer.uid },
		{ peer.known ? "pid" : NULL, NULL, peer.pid }, { 0 } };
	if (why[0]) {
		sv_event("refused", (struct sv_field[]){ who[0], who[1], { "why", why, 0 }, { 0 } });
		turn_away(options, fd, listener->kind, why);
		return;
	}
	pid_t worker = start_worker(options, fd, listener->kind, NULL);
	if (worker > 0)
		sv_event("connect", (struct sv_field[]){ { "worker", NULL, (uint64_t)worker }, who[0], who[1], who[2], { 0 } });
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------- */

/* No more listening; the clients there are may finish until `seconds` have passed or another signal comes. */
static void
drain(const struct sv_options *options, int signals)
{
	uint64_t until = now_ms() + options->drain_seconds * 1000ull;
	struct pollfd wait = { .fd = signals, .events = POLLIN };

	notify("STOPPING=1");
	stop_listening();
	SV_EVENT("drain", { "clients", NULL, worker_count }, { "seconds", NULL, options->drain_seconds });
	for (uint64_t now; reap(), worker_count && (now = now_ms()) < until;) {
		struct signalfd_siginfo info;
		if (poll(&wait, 1, until - now < 1000 ? (int)(until - now) : 1000) < 0 && errno != EINTR)
			return;
		while (read(signals, &info, sizeof(info)) == sizeof(info))
			if (info.ssi_signo != SIGCHLD)
				return;
	}
}

int
sv_supervise(const struct sv_options *options)
{
	struct pollfd waits[SOCKETS_MAX + 1];
	struct signalfd_siginfo info;
	sigset_t set;
	int asked = 0; /* the signal that ends it */

	signal(SIGPIPE, SIG_IGN); /* the log's reader may end, its file may reach a limit; workers inherit this */
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0 || pipe2(leases, O_CLOEXEC) != 0 || fcntl(leases[0], F_SETFL, O_NONBLOCK) != 0) {
		perror("farwarp serve");
		return 1;
	}
	int status = begin_listening(options);
	if (status)
		return status;
	notify("READY=1");
	for (unsigned n = 0; n < listener_count; n++)
		waits[n] = (struct pollfd){ .fd = listeners[n].fd, .events = POLLIN };
	waits[listener_count] = (struct pollfd){ .fd = signals, .events = POLLIN };
	while (!asked) {
		if (poll(waits, listener_count + 1, -1) < 0 && errno != EINTR)
			break;
		while (read(signals, &info, sizeof(info)) == sizeof(info))
			asked = info.ssi_signo == SIGCHLD ? asked : (int)info.ssi_signo;
		read_leases();
		reap();
		for (unsigned n = 0; !asked && n < listener_count; n++)
			if (waits[n].revents & POLLIN)
				accept_client(options, &listeners[n]);
	}
	if (asked == SIGTERM)
		drain(options, signals);
	stop_listening();
	stop_workers();
	SV_EVENT("stopped", { "signal", NULL, (uint64_t)asked });
	return 0;
}
