/*
 * farwarp serve: drives a GPU for programs elsewhere.
 */
#include "tools.h"

#include <argp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor/doctor.h"
#include "server/server.h"
#include "soft/soft.h"

#define CERTIFICATE_DAYS 3650

enum { KEY_WORKER = 256, KEY_WORKER_KIND, KEY_WORKER_LEASE, KEY_WORKER_REFUSE, KEY_INSECURE, KEY_MAX_CLIENTS, KEY_DEVICES, KEY_CERT,
	KEY_KEY, KEY_CLIENT_CA, KEY_SELF_SIGNED, KEY_ALLOW_UID, KEY_DRAIN, KEY_LOG_FORMAT, KEY_MEMORY, KEY_MAX_THREADS, KEY_MAX_HANDLES, KEY_NO_CHECK,
	KEY_IMAGE_CACHE, KEY_IMAGE_CACHE_SIZE };
#define PASSED 40
#define CHECK_MS 30000
#define FINDING_SECONDS 3.0 /* how long a step of the driver may take when the doctor looks why it failed */
#define EXIT_NO_GPU 2

struct serve_options {
	struct sv_options server;
	int worker_fd;
	enum wire_kind worker_kind;
	char *passed[PASSED]; /* to the workers; NULL-terminated */
	unsigned passed_count;
	const char *self_signed; /* folder */
	struct wire_certificate made;
	bool best;     /* no backend was named */
	bool no_check;
};

static const struct argp_option option_table[] = {
	{ "listen", 'l', "ADDRESS", 0, "where to listen: unix:PATH, tls: or tcp:HOST[:PORT], vsock:CID:PORT; may be given several times", 0 },
	{ "backend", 'b', "native|soft", 0, "what computes: this machine's GPU, or the software GPU (default: the former if it works)", 0 },
	{ "no-check", KEY_NO_CHECK, NULL, 0, "serve although the GPU has not been asked whether it works", 0 },
	{ "devices", KEY_DEVICES, "LIST", 0, "which of the machine's GPUs clients see, as in CUDA_VISIBLE_DEVICES (default: that variable)", 0 },
	{ "cc", 'c', "N.M", 0, "compute capability of the software GPU, 7.5 to 12.1 (default 8.6)", 0 },
	{ "mem", 'm', "SIZE", 0, "memory of the software GPU for each client, as 512M or 8G", 0 },
	{ "memory", KEY_MEMORY, "SIZE", 0, "device memory that each client may take, as 8G; more is out of memory (default: all there is)", 0 },
	{ "max-clients", KEY_MAX_CLIENTS, "N", 0, "how many are served at a time (default 64)", 0 },
	{ "max-threads", KEY_MAX_THREADS, "N", 0, "threads of a client that may call (default 256)", 0 },
	{ "max-handles", KEY_MAX_HANDLES, "N", 0, "streams, events, graphs and so on that a client may hold (default 1000000)", 0 },
	{ "allow-uid", KEY_ALLOW_UID, "UID,...", 0, "users besides this one and root who may connect to a unix: address", 0 },
	{ "image-cache", KEY_IMAGE_CACHE, "DIR|off", 0,
	  "where images that came over a network are kept for who has them too (default: in ~/.cache/farwarp)", 0 },
	{ "image-cache-size", KEY_IMAGE_CACHE_SIZE, "SIZE", 0, "how much is kept there (default 2G)", 0 },
	{ "drain", KEY_DRAIN, "SECONDS", 0, "after SIGTERM, how long clients may finish (default 0)", 0 },
	{ "log-format", KEY_LOG_FORMAT, "text|json", 0, "a line an event, as key=value (default) or JSON", 0 },
	{ "cert", KEY_CERT, "FILE", 0, "tls: the certificate to show, with those that signed it (PEM)", 0 },
	{ "key", KEY_KEY, "FILE", 0, "tls: its key (PEM; default: in the file of --cert)", 0 },
	{ "client-ca", KEY_CLIENT_CA, "FILE", 0, "tls: clients must show a certificate that one in this file signed, or that is in it", 0 },
	{ "self-signed", KEY_SELF_SIGNED, "DIR", 0,
	  "tls: use DIR/cert.pem and DIR/key.pem, made if they are not there (default without --cert: in ~/.local/state/farwarp)", 0 },
	{ "insecure", KEY_INSECURE, NULL, 0, "plain TCP beyond loopback, TLS for everyone: anyone who reaches it can use the GPU", 0 },
	{ "worker", KEY_WORKER, "FD", OPTION_HIDDEN, NULL, 0 },
	{ "worker-refuse", KEY_WORKER_REFUSE, "TEXT", OPTION_HIDDEN, NULL, 0 },
	{ "worker-kind", KEY_WORKER_KIND, "N", OPTION_HIDDEN, NULL, 0 },
	{ "worker-lease", KEY_WORKER_LEASE, "FD", OPTION_HIDDEN, NULL, 0 },
	{ 0 } };

/* Gives a worker this option as well. */
static void
pass(struct serve_options *o, const char *option, char *value)
{
	if (o->passed_count + 2 < PASSED) {
		o->passed[o->passed_count++] = (char *)(uintptr_t)option;
		o->passed[o->passed_count++] = value;
	}
}

static error_t
parse(int key, char *arg, struct argp_state *state)
{
	struct serve_options *o = state->input;
	char error[256];
	uint64_t bytes;
	long number;
	char *end;

	switch (key) {
	case 'l':
		if (o->server.listen_count == sizeof(o->server.listen) / sizeof(o->server.listen[0]))
			argp_error(state, "--listen: at most 8 addresses");
		else if (!wire_address_parse(arg, &o->server.listen[o->server.listen_count++], error))
			argp_error(state, "--listen: %s", error);
		break;
	case 'b':
		if (strcmp(arg, "soft") != 0 && strcmp(arg, "native") != 0)
			argp_error(state, "--backend is native or soft, not \"%s\"", arg);
		o->server.backend = strcmp(arg, "native") == 0 ? SV_BACKEND_NATIVE : SV_BACKEND_SOFT;
		o->best = false;
		break;
	case KEY_DEVICES:
		if (!*arg)
			argp_error(state, "--devices: which? As in --devices 0,2");
		o->server.devices = arg;
		pass(o, "--devices", arg);
		break;
	case 'c':
		if (sw_settings_capability(arg) < 75 || sw_settings_capability(arg) > 121)
			argp_error(state, "--cc is a compute capability from 7.5 to 12.1, not \"%s\"", arg);
		setenv("FARWARP_SOFT_CC", arg, 1); /* the workers inherit it */
		break;
	case 'm':
		if (!sw_settings_size(arg, &bytes))
			argp_error(state, "--mem is a size such as 512M or 8G, not \"%s\"", arg);
		setenv("FARWARP_SOFT_MEM", arg, 1);
		break;
	case KEY_MAX_CLIENTS:
		number = strtol(arg, &end, 10);
		if (end == arg || *end || number < 1 || number > 1024)
			argp_error(state, "--max-clients is a number from 1 to 1024, not \"%s\"", arg);
		o->server.max_clients = (unsigned)number;
		break;
	case KEY_ALLOW_UID:
		for (char *at = arg; *at; at = *end == ',' ? end + 1 : end) {
			number = strtol(at, &end, 10);
			if (end == at || (*end && *end != ',') || number < 0 || number > UINT32_MAX - 1l)
				argp_error(state, "--allow-uid is a list of user numbers as 1000,1001, not \"%s\"", arg);
			if (o->server.allow_count == sizeof(o->server.allow) / sizeof(o->server.allow[0]))
				argp_error(state, "--allow-uid: at most %zu users", sizeof(o->server.allow) / sizeof(o->server.allow[0]));
			o->server.allow[o->server.allow_count++] = (unsigned)number;
		}
		break;
	case KEY_MEMORY:
		if (!sw_settings_size(arg, &o->server.memory))
			argp_error(state, "--memory is a size such as 512M or 8G, not \"%s\"", arg);
		pass(o, "--memory", arg);
		break;
	case KEY_MAX_THREADS:
	case KEY_MAX_HANDLES:
		number = strtol(arg, &end, 10);
		if (end == arg || *end || number < 1 || number > INT32_MAX)
			argp_error(state, "--%s is a number from 1 on, not \"%s\"", key == KEY_MAX_THREADS ? "max-threads" : "max-handles", arg);
		*(key == KEY_MAX_THREADS ? &o->server.max_threads : &o->server.max_handles) = (unsigned)number;
		pass(o, key == KEY_MAX_THREADS ? "--max-threads" : "--max-handles", arg);
		break;
	case KEY_DRAIN:
		number = strtol(arg, &end, 10);
		if (end == arg || *end || number < 0 || number > 86400)
			argp_error(state, "--drain is a number of seconds up to 86400, not \"%s\"", arg);
		o->server.drain_seconds = (unsigned)number;
		break;
	case KEY_LOG_FORMAT:
		if (strcmp(arg, "text") != 0 && strcmp(arg, "json") != 0)
			argp_error(state, "--log-format is text or json, not \"%s\"", arg);
		pass(o, "--log-format", arg);
		if (strcmp(arg, "json") == 0)
			sv_events_json();
		break;
	case KEY_IMAGE_CACHE:
		if (strcmp(arg, "off") != 0 && *arg != '/')
			argp_error(state, "--image-cache is off or a folder from the root on, not \"%s\"", arg);
		o->server.images = arg;
		pass(o, "--image-cache", arg);
		break;
	case KEY_IMAGE_CACHE_SIZE:
		if (!sw_settings_size(arg, &o->server.images_size))
			argp_error(state, "--image-cache-size is a size such as 512M or 8G, not \"%s\"", arg);
		pass(o, "--image-cache-size", arg);
		break;
	case KEY_NO_CHECK:
		o->no_check = true;
		break;
	case KEY_WORKER_REFUSE:
		o->server.refuse = arg;
		break;
	case KEY_INSECURE:
		o->server.insecure = true;
		break;
	case KEY_CERT:
		o->server.tls.cert = arg;
		break;
	case KEY_KEY:
		o->server.tls.key = arg;
		break;
	case KEY_CLIENT_CA:
		o->server.tls.client_ca = arg;
		break;
	case KEY_SELF_SIGNED:
		o->self_signed = arg;
		break;
	case KEY_WORKER:
		o->worker_fd = (int)strtol(arg, NULL, 10);
		break;
	case KEY_WORKER_KIND:
		o->worker_kind = (enum wire_kind)strtol(arg, NULL, 10);
		break;
	case KEY_WORKER_LEASE:
		o->server.lease_fd = (int)strtol(arg, NULL, 10);
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "there are no arguments beside options: \"%s\"", arg);
		break;
	case ARGP_KEY_END:
		if (o->worker_fd < 0 && o->server.listen_count == 0 && !o->self_signed && !getenv("LISTEN_FDS"))
			argp_error(state, "where to listen? As in: farwarp serve --listen unix:/run/farwarp.sock");
		if (o->self_signed && o->server.tls.cert)
			argp_error(state, "--cert and --self-signed exclude each other");
		if (o->server.tls.key && !o->server.tls.cert)
			argp_error(state, "--key needs --cert");
		if (o->server.images && strcmp(o->server.images, "off") == 0)
			o->server.images_size = 0;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* Where a certificate is kept if nobody says where. */
static bool
state_folder(char folder[PATH_MAX])
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (state && *state == '/')
		return (size_t)snprintf(folder, PATH_MAX, "%s/farwarp", state) < PATH_MAX;
	return home && *home == '/' && (size_t)snprintf(folder, PATH_MAX, "%s/.local/state/farwarp", home) < PATH_MAX;
}

/* What to type on the client. */
static void
say_client(const struct wire_address *address, const struct serve_options *o)
{
	struct wire_address reached = *address;
	char text[300];

	if (strcmp(address->host, "0.0.0.0") == 0 || strcmp(address->host, "::") == 0)
		gethostname(reached.host, sizeof(reached.host) - 1);
	wire_address_format(&reached, text, sizeof(text));
	fprintf(stderr, "farwarp serve: on the client:%s%s FARWARP_TLS_PIN=%s farwarp run --server %s -- PROGRAM\n",
	        o->server.token ? " FARWARP_TOKEN=..." : "", o->server.tls.client_ca ? " FARWARP_TLS_CERT=FILE FARWARP_TLS_KEY=FILE" : "",
	        o->made.fingerprint, text);
}

/* The certificate that tls: addresses show, made if need be; false with a line on standard error. */
static bool
prepare_tls(struct serve_options *o)
{
	const struct wire_address *tls = NULL;
	char error[256], folder[PATH_MAX];

	for (unsigned n = 0; n < o->server.listen_count; n++)
		if (o->server.listen[n].kind == WIRE_TLS)
			tls = &o->server.listen[n];
	if (!tls && !o->self_signed)
		return true;
	bool ok = true;
	if (o->server.tls.cert) {
		o->server.tls.key = o->server.tls.key ? o->server.tls.key : o->server.tls.cert;
		ok = wire_fingerprint(o->server.tls.cert, o->made.fingerprint, error);
	} else if (!o->self_signed && !state_folder(folder)) {
		snprintf(error, sizeof(error), "where to keep a certificate? Say --self-signed DIR, or --cert FILE --key FILE");
		ok = false;
	} else {
		ok = wire_certificate_make(o->self_signed ? o->self_signed : folder, tls ? tls->host : NULL, CERTIFICATE_DAYS, &o->made, error);
		o->server.tls.cert = o->made.cert;
		o->server.tls.key = o->made.key;
	}
	if (!ok || !wire_tls_check(&o->server.tls, error)) {
		fprintf(stderr, "farwarp serve: %s\n", error);
		return false;
	}
	fprintf(stderr, "farwarp serve: certificate %s, %s\n", o->server.tls.cert, o->made.fingerprint);
	for (unsigned n = 0; n < o->server.listen_count; n++)
		if (o->server.listen[n].kind == WIRE_TLS)
			say_client(&o->server.listen[n], o);
	return true;
}

/* Asks the machine's GPU before anybody is served. 0, or an exit status after lines that say what is wrong and how to go on. */
static int
choose_backend(struct serve_options *o)
{
	struct sv_check check;

	if (o->best)
		o->server.backend = SV_BACKEND_NATIVE;
	if (o->server.backend == SV_BACKEND_SOFT || (o->no_check && !o->best))
		return 0;
	sv_check_native(&o->server, CHECK_MS, &check);
	if (check.result == CUDA_SUCCESS && check.count > 0) {
		SV_EVENT("gpu", { "backend", "native", 0 }, { "devices", NULL, (uint64_t)check.count }, { "name", check.name, 0 },
		         { "driver", check.text, 0 });
		return 0;
	}
	struct dr_quick quick;
	dr_quick_check(&quick, FINDING_SECONDS);
	if (o->best) {
		/* The doctor looks at all devices, not at those that --devices names: it may find nothing wrong. */
		SV_EVENT("gpu", { "backend", "soft", 0 }, { "finding", quick.id, 0 }, { "why", quick.works ? check.text : quick.title, 0 });
		o->server.backend = SV_BACKEND_SOFT;
		return 0;
	}
	fprintf(stderr, "farwarp serve: the GPU of this machine does not work: %s\n", check.text);
	if (quick.fault)
		fprintf(stderr, "  %s: %s\n  who can fix it: %s\n", quick.id, quick.title, quick.who);
	fprintf(stderr, "  to go on without it: farwarp serve --backend soft ...; to serve all the same: --no-check\n");
	return EXIT_NO_GPU;
}

int
tool_serve(int argc, char **argv)
{
	static const struct argp argp = { option_table, parse, NULL,
		"Drives a GPU for programs elsewhere: in another process, a container, a virtual machine, on another host. Each client gets a worker "
		"process of its own; what it held is freed when it ends.\v"
		"On the client: farwarp run --server ADDRESS -- PROGRAM. FARWARP_TOKEN, when set here, has to be set to the same there.\n"
		"With a tls: address, what to set there is printed here.\n"
		"Ends with 0 after SIGTERM or SIGINT, 1: cannot listen, 2: the GPU does not work, 64: wrong usage.",
		NULL, NULL, NULL };
	char name[] = "farwarp serve", native[] = "native", soft[] = "soft", self[PATH_MAX];
	struct serve_options o = { .worker_fd = -1, .best = true, .server = { .max_clients = 64, .max_threads = 256, .max_handles = 1000000, .images_size = 2ull << 30 } };

	argv[0] = name;
	argp_err_exit_status = FW_EXIT_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	o.server.worker_arguments = o.passed;
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	if (!o.server.devices && visible && *visible)
		o.server.devices = visible;
	const char *token = getenv("FARWARP_TOKEN");
	o.server.token = token && *token ? token : NULL;
	if (o.server.token && strlen(token) >= sizeof(((struct session_hello *)0)->token)) {
		fprintf(stderr, "farwarp serve: FARWARP_TOKEN has more than %zu characters\n", sizeof(((struct session_hello *)0)->token) - 1);
		return FW_EXIT_USAGE;
	}
	if (o.worker_fd >= 0)
		sv_work(o.worker_fd, o.worker_kind, &o.server);
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length <= 0) {
		perror("farwarp serve: /proc/self/exe");
		return 1;
	}
	self[length] = 0;
	o.server.executable = self;
	if (!prepare_tls(&o))
		return 1;
	if (o.server.listen_count == 0 && !getenv("LISTEN_FDS"))
		return 0; /* a key and a certificate were wanted, no more */
	int status = choose_backend(&o);
	if (status)
		return status;
	pass(&o, "--backend", o.server.backend == SV_BACKEND_NATIVE ? native : soft);
	if (o.server.tls.cert) {
		pass(&o, "--cert", (char *)(uintptr_t)o.server.tls.cert);
		pass(&o, "--key", (char *)(uintptr_t)o.server.tls.key);
	}
	if (o.server.tls.client_ca)
		pass(&o, "--client-ca", (char *)(uintptr_t)o.server.tls.client_ca);
	return sv_supervise(&o.server);
}
