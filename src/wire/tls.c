/*
 * TLS 1.3 for streams. OpenSSL transforms bytes between buffers here and never sees a socket: so reading and writing wait without its
 * lock, nothing raises SIGPIPE, and many TLS records travel in one call.
 *
 * No earlier version, no session tickets, no early data. A client trusts FARWARP_TLS_PIN, else the file FARWARP_TLS_CA, else what the
 * system trusts, and in the latter two the certificate has to be for the host in the address.
 */
#include "wire/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/link.h"

#ifdef FARWARP_TLS

#include <dlfcn.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>

#include "wire/openssl.h"

#define IN_BYTES (256u << 10)   /* of the socket's at a time */
#define RECORD_MAX (17u << 10)  /* of a TLS record, and more */
#define PIECE (128u << 10)      /* of plain text to encrypt before it is sent */
#define GATHER (16u << 10)      /* parts are gathered up to a TLS record */
#define OUT_BYTES (PIECE + 2 * GATHER) /* the cipher text of both, or what a handshake says */

struct wire_tls {
	const struct wire_openssl *o;
	SSL_CTX *context;
	SSL *ssl;
	pthread_mutex_t lock;    /* guards ssl and out */
	uint8_t *in;             /* the taker's: cipher text that ssl has not read */
	size_t in_at, in_end;
	uint8_t *out;            /* cipher text that was not sent */
	size_t out_size;
	uint8_t *leaving;        /* the putter's: what is being sent */
	uint8_t *gathered;       /* the putter's: small parts, GATHER bytes at most */
	uint32_t pending;        /* atomic: taking more needs no more from the socket */
	bool is_client;
	const char *pin;
	char seen[WIRE_FINGERPRINT], name[128]; /* of the peer's certificate, if it was looked at */
	char why[256];           /* under lock */
};

/* ---- OpenSSL's side ------------------------------------------------------------------------------------------------ */

static const struct wire_openssl *bio_openssl;

static int
bio_read(BIO *bio, char *bytes, int size)
{
	struct wire_tls *tls = bio_openssl->BIO_get_data(bio);
	size_t there = tls->in_end - tls->in_at, take = there < (size_t)size ? there : (size_t)size;

	bio_openssl->BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
	if (!take) {
		bio_openssl->BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
		return -1;
	}
	memcpy(bytes, tls->in + tls->in_at, take);
	tls->in_at += take;
	return (int)take;
}

static int
bio_write(BIO *bio, const char *bytes, int size)
{
	struct wire_tls *tls = bio_openssl->BIO_get_data(bio);

	bio_openssl->BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
	if ((size_t)size > OUT_BYTES - tls->out_size)
		return -1; /* cannot be: it is emptied before each piece */
	memcpy(tls->out + tls->out_size, bytes, (size_t)size);
	tls->out_size += (size_t)size;
	return size;
}

static long
bio_control(BIO *bio, int command, long number, void *pointer)
{
	return command == BIO_CTRL_FLUSH;
}

/* ---- the library --------------------------------------------------------------------------------------------------- */

static struct wire_openssl loaded;
static char load_error[256];

/* Where a sanitizer is built in, the flag that binds a library to its own dependencies is not possible. */
static int
binding(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return 0;
#else
	return RTLD_DEEPBIND;
#endif
}

static void
load(void)
{
	void *library = dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL | binding());

	if (!library) {
		snprintf(load_error, sizeof(load_error), "tls: needs OpenSSL 3 (libssl.so.3; package libssl3 or openssl-libs): %.120s", dlerror());
		return;
	}
#define X(name) \
	if (!(loaded.name = (__typeof__(loaded.name))dlsym(library, #name))) { \
		snprintf(load_error, sizeof(load_error), "the OpenSSL of this machine has no %s; tls: needs 3.0 or newer", #name); \
		return; \
	}
	WIRE_OPENSSL(X)
#undef X
	/* No clean-up at exit: threads of ours may still be in it. */
	loaded.OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	loaded.context = loaded.OSSL_LIB_CTX_new();
	loaded.bio = loaded.BIO_meth_new(loaded.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "farwarp");
	if (!loaded.context || !loaded.bio) {
		snprintf(load_error, sizeof(load_error), "OpenSSL: out of memory");
		return;
	}
	loaded.BIO_meth_set_read(loaded.bio, bio_read);
	loaded.BIO_meth_set_write(loaded.bio, bio_write);
	loaded.BIO_meth_set_ctrl(loaded.bio, bio_control);
	bio_openssl = &loaded;
}

const struct wire_openssl *
wire_openssl(char error[256])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	if (load_error[0])
		snprintf(error, 256, "%s", load_error);
	return load_error[0] ? NULL : &loaded;
}

bool
wire_tls_usable(char error[256])
{
	return wire_openssl(error) != NULL;
}

void
wire_openssl_fingerprint(const struct wire_openssl *o, X509 *certificate, char text[WIRE_FINGERPRINT])
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	size_t at = (size_t)snprintf(text, WIRE_FINGERPRINT, "sha256:");

	if (!o->X509_digest(certificate, o->EVP_sha256(), digest, &size))
		size = 0;
	for (unsigned n = 0; n < size; n++)
		at += (size_t)snprintf(text + at, WIRE_FINGERPRINT - at, "%02x", digest[n]);
}

/* ---- errors as sentences ------------------------------------------------------------------------------------------- */

/* What the other side's alert, or its bytes, say. NULL: nothing of that sort. */
static const char *
alert_sentence(int reason, bool is_client)
{
	switch (reason) {
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return "it wants a client certificate: set FARWARP_TLS_CERT and FARWARP_TLS_KEY to files with one that it trusts and its key";
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return "the client shows no certificate (FARWARP_TLS_CERT and FARWARP_TLS_KEY there)";
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return is_client ? NULL : "the client's certificate is expired, or nobody in the file of --client-ca signed it";
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
		return is_client ? "it does not trust the certificate of FARWARP_TLS_CERT: the file of --client-ca there has to hold who signed it"
			: "the client does not trust this server's certificate (FARWARP_TLS_PIN or FARWARP_TLS_CA there)";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return is_client ? "it says that the certificate of FARWARP_TLS_CERT has expired: a new one is needed"
			: "the client says that this server's certificate has expired: a new one is needed";
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_UNKNOWN_PROTOCOL:
		return "the other side does not speak TLS: is it tcp: in place of tls:?";
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_NO_PROTOCOLS_AVAILABLE:
		return "the other side offers no TLS 1.3, and nothing older is used";
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		return "the other side closed the connection";
	default:
		return NULL;
	}
}

/* Why a certificate was not accepted. */
static void
verify_sentence(const struct wire_tls *tls, long result, const char *host, char text[256])
{
	switch (result) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		snprintf(text, 256, "its certificate (of \"%.60s\") has expired: the server needs a new one",
		         tls->name);
		return;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		snprintf(text, 256, "its certificate (of \"%.60s\") is not valid yet: is a clock wrong, there or here?", tls->name);
		return;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		snprintf(text, 256, "its certificate is of \"%.60s\", not for %.60s: use the name that it is for in the address, or FARWARP_TLS_PIN",
		         tls->name, host);
		return;
	default:
		snprintf(text, 256, "nobody known here signed its certificate; set FARWARP_TLS_CA=FILE or, if the server printed just this, "
		         "FARWARP_TLS_PIN=%s", tls->seen);
	}
}

/* With the lock held: OpenSSL's word for the last failure, as this side's reason. */
static void
keep_reason(struct wire_tls *tls)
{
	unsigned long code = tls->o->ERR_peek_error();
	const char *sentence = code ? alert_sentence(ERR_GET_REASON(code), tls->is_client) : NULL;
	const char *word = code ? tls->o->ERR_reason_error_string(code) : NULL;

	if (!tls->why[0] && (sentence || word))
		snprintf(tls->why, sizeof(tls->why), "%s%s", sentence ? "" : "TLS: ", sentence ? sentence : word);
	tls->o->ERR_clear_error();
}

const char *
wire_tls_why(const struct wire_tls *tls)
{
	return tls->why;
}

/* ---- beginning ----------------------------------------------------------------------------------------------------- */

/* Notes what certificate the peer shows, and lets the pin decide alone if there is one. */
static int
verify(X509_STORE_CTX *store, void *argument)
{
	struct wire_tls *tls = argument;
	X509 *certificate = tls->o->X509_STORE_CTX_get0_cert(store);

	wire_openssl_fingerprint(tls->o, certificate, tls->seen);
	tls->o->X509_NAME_get_text_by_NID(tls->o->X509_get_subject_name(certificate), NID_commonName, tls->name, sizeof(tls->name));
	if (!tls->pin)
		return tls->o->X509_verify_cert(store);
	if (strcasecmp(tls->pin, tls->seen) == 0) {
		tls->o->X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	tls->o->X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

static int
no_password(char *bytes, int size, int writing, void *user)
{
	return -1; /* a terminal is not asked */
}

void
wire_tls_free(struct wire_tls *tls)
{
	if (!tls)
		return;
	if (tls->ssl)
		tls->o->SSL_free(tls->ssl);
	if (tls->context)
		tls->o->SSL_CTX_free(tls->context);
	pthread_mutex_destroy(&tls->lock);
	free(tls->in);
	free(tls->out);
	free(tls->leaving);
	free(tls->gathered);
	free(tls);
}

/* With a context that speaks TLS 1.3 alone. */
static struct wire_tls *
begin(char error[256])
{
	const struct wire_openssl *o = wire_openssl(error);
	struct wire_tls *tls = o ? calloc(1, sizeof(*tls)) : NULL;

	if (!tls) {
		if (o)
			snprintf(error, 256, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&tls->lock, NULL);
	tls->o = o;
	o->ERR_clear_error();
	tls->in = malloc(IN_BYTES);
	tls->out = malloc(OUT_BYTES);
	tls->leaving = malloc(OUT_BYTES);
	tls->gathered = malloc(GATHER);
	tls->context = o->SSL_CTX_new_ex(o->context, NULL, o->TLS_method());
	if (!tls->in || !tls->out || !tls->leaving || !tls->gathered || !tls->context ||
	    !o->SSL_CTX_ctrl(tls->context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_3_VERSION, NULL)) {
		snprintf(error, 256, "OpenSSL: no TLS 1.3, or out of memory");
		wire_tls_free(tls);
		return NULL;
	}
	o->SSL_CTX_set_num_tickets(tls->context, 0);
	o->SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	o->SSL_CTX_set_default_passwd_cb(tls->context, no_password);
	return tls;
}

static bool
use_certificate(struct wire_tls *tls, const char *cert, const char *key, const char *what, char error[256])
{
	const struct wire_openssl *o = tls->o;
	const char *bad = NULL;

	if (o->SSL_CTX_use_certificate_chain_file(tls->context, cert) != 1)
		bad = cert;
	else if (o->SSL_CTX_use_PrivateKey_file(tls->context, key, SSL_FILETYPE_PEM) != 1)
		bad = key;
	else if (o->SSL_CTX_check_private_key(tls->context) != 1)
		bad = key;
	if (!bad)
		return true;
	const char *word = o->ERR_reason_error_string(o->ERR_peek_error());
	snprintf(error, 256, "%s: %.100s cannot be used (%.60s); PEM files are wanted, the key without a password and of that certificate", what,
	         bad, word ? word : "it does not fit");
	o->ERR_clear_error();
	return false;
}

static bool
flush(struct wire_stream *stream, uint64_t until)
{
	struct wire_tls *tls = stream->tls;

	pthread_mutex_lock(&tls->lock);
	size_t size = tls->out_size;
	uint8_t *bytes = tls->out;
	tls->out = tls->leaving;
	tls->leaving = bytes;
	tls->out_size = 0;
	pthread_mutex_unlock(&tls->lock);
	struct iovec part = { bytes, size };
	if (!size)
		return true;
	return wire_socket_put(stream->fd, &part, 1, until);
}

/* More cipher text, as much as there is; as wire_stream_take(), or with flags of recv() that wait. */
static long
refill(struct wire_stream *stream, int flags)
{
	struct wire_tls *tls = stream->tls;
	ssize_t got;

	do
		got = recv(stream->fd, tls->in, IN_BYTES, flags);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		tls->in_at = 0;
		tls->in_end = (size_t)got;
		return got;
	}
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got == 0)
		errno = 0;
	return -1;
}

/* The handshake, within the time. False with a sentence. */
static bool
shake_hands(struct wire_stream *stream, const char *host, uint64_t until, char error[256])
{
	struct wire_tls *tls = stream->tls;
	const struct wire_openssl *o = tls->o;

	for (;;) {
		o->ERR_clear_error();
		int done = o->SSL_do_handshake(tls->ssl), state = o->SSL_get_error(tls->ssl, done);
		if (done != 1 && state != SSL_ERROR_WANT_READ)
			keep_reason(tls);
		bool sent = flush(stream, until); /* an alert too */
		if (done == 1 && sent)
			return true;
		if (done != 1 && state != SSL_ERROR_WANT_READ) {
			long result = host ? o->SSL_get_verify_result(tls->ssl) : X509_V_OK;
			if (result == X509_V_ERR_APPLICATION_VERIFICATION)
				snprintf(error, 256, "its certificate is %s, not the one of FARWARP_TLS_PIN: another server, a new one, or someone in between",
				         tls->seen);
			else if (result != X509_V_OK && tls->seen[0])
				verify_sentence(tls, result, host, error);
			else
				snprintf(error, 256, "%s", tls->why[0] ? tls->why : "the TLS handshake failed");
			return false;
		}
		struct pollfd p = { .fd = stream->fd, .events = POLLIN };
		uint64_t now = wire_now();
		long got = !sent ? -1 : now < until && poll(&p, 1, (int)((until - now) / 1000000) + 1) >= 0 ? refill(stream, MSG_DONTWAIT) : -1;
		if (got < 0) {
			if (wire_now() >= until)
				snprintf(error, 256, "no TLS handshake in time");
			else if (tls->is_client && !tls->seen[0])
				snprintf(error, 256, "the other side ended the connection instead of a TLS handshake: is it tcp: in place of tls:?");
			else
				snprintf(error, 256, "the TLS handshake broke off: %s", errno ? strerror(errno) : "the other side closed the connection");
			return false;
		}
	}
}

static bool
attach(struct wire_stream *stream, struct wire_tls *tls, char error[256])
{
	const struct wire_openssl *o = tls->o;
	BIO *bio = o->BIO_new(o->bio);

	tls->ssl = bio ? o->SSL_new(tls->context) : NULL;
	if (!tls->ssl) {
		snprintf(error, 256, "out of memory");
		if (bio)
			o->BIO_free(bio);
		return false;
	}
	o->BIO_set_data(bio, tls);
	o->BIO_set_init(bio, 1);
	o->SSL_set_bio(tls->ssl, bio, bio);
	stream->tls = tls;
	return true;
}

static const char *
unless_empty(const char *text)
{
	return text && *text ? text : NULL;
}

/* Whom a client trusts. */
static bool
trust(struct wire_tls *tls, char error[256])
{
	const struct wire_openssl *o = tls->o;
	const char *ca = unless_empty(getenv("FARWARP_TLS_CA")), *cert = unless_empty(getenv("FARWARP_TLS_CERT"));
	const char *key = unless_empty(getenv("FARWARP_TLS_KEY"));

	tls->pin = unless_empty(getenv("FARWARP_TLS_PIN"));
	if (tls->pin && (strncasecmp(tls->pin, "sha256:", 7) != 0 || strspn(tls->pin + 7, "0123456789abcdefABCDEF") != 64 || tls->pin[71])) {
		snprintf(error, 256, "FARWARP_TLS_PIN is sha256: and 64 hexadecimal digits, as farwarp serve prints it");
		return false;
	}
	if (!tls->pin && ca && o->SSL_CTX_load_verify_file(tls->context, ca) != 1) {
		snprintf(error, 256, "FARWARP_TLS_CA: %.150s is no file with certificates (PEM)", ca);
		return false;
	}
	if (!tls->pin && !ca)
		o->SSL_CTX_set_default_verify_paths(tls->context);
	o->ERR_clear_error();
	o->SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
	o->SSL_CTX_set_cert_verify_callback(tls->context, verify, tls);
	return !cert || use_certificate(tls, cert, key ? key : cert, "FARWARP_TLS_CERT and FARWARP_TLS_KEY", error);
}

/* The name that the certificate has to be for; a number is no name, and is not asked for by name. */
static bool
expect_host(struct wire_tls *tls, const char *host)
{
	const struct wire_openssl *o = tls->o;

	if (o->X509_VERIFY_PARAM_set1_ip_asc(o->SSL_get0_param(tls->ssl), host) == 1)
		return true;
	o->ERR_clear_error();
	return o->SSL_set1_host(tls->ssl, host) == 1 &&
	       o->SSL_ctrl(tls->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)host) == 1;
}

struct wire_tls *
wire_tls_client(struct wire_stream *stream, const char *host, uint64_t until, char error[256])
{
	struct wire_tls *tls = begin(error);

	if (!tls)
		return NULL;
	tls->is_client = true;
	if (!trust(tls, error) || !attach(stream, tls, error)) {
		wire_tls_free(tls);
		return NULL;
	}
	tls->o->SSL_set_connect_state(tls->ssl);
	bool named = expect_host(tls, host);
	if (!named)
		snprintf(error, 256, "\"%.100s\" is no host name that a certificate can be for", host);
	if (named && shake_hands(stream, host, until, error))
		return tls;
	stream->tls = NULL;
	wire_tls_free(tls);
	return NULL;
}

/* A server's side before there is a connection. */
static struct wire_tls *
begin_server(const struct wire_tls_files *files, char error[256])
{
	struct wire_tls *tls = begin(error);

	if (!tls)
		return NULL;
	bool ok = use_certificate(tls, files->cert, files->key, "--cert and --key", error);
	if (ok && files->client_ca) {
		tls->o->SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		ok = tls->o->SSL_CTX_load_verify_file(tls->context, files->client_ca) == 1;
		if (!ok)
			snprintf(error, 256, "--client-ca: %.150s is no file with certificates (PEM)", files->client_ca);
		tls->o->ERR_clear_error();
	}
	if (ok)
		return tls;
	wire_tls_free(tls);
	return NULL;
}

bool
wire_tls_check(const struct wire_tls_files *files, char error[256])
{
	struct wire_tls *tls = begin_server(files, error);

	wire_tls_free(tls);
	return tls != NULL;
}

struct wire_tls *
wire_tls_server(struct wire_stream *stream, const struct wire_tls_files *files, uint64_t until, char error[256])
{
	struct wire_tls *tls = begin_server(files, error);

	if (!tls)
		return NULL;
	if (!attach(stream, tls, error)) {
		wire_tls_free(tls);
		return NULL;
	}
	tls->o->SSL_set_accept_state(tls->ssl);
	if (shake_hands(stream, NULL, until, error))
		return tls;
	stream->tls = NULL;
	wire_tls_free(tls);
	return NULL;
}

/* ---- bytes --------------------------------------------------------------------------------------------------------- */

bool
wire_tls_pending(const struct wire_tls *tls)
{
	return __atomic_load_n(&tls->pending, __ATOMIC_ACQUIRE);
}

/* As wire_stream_take(); or, waiting, all of it. */
static long
decrypt(struct wire_stream *stream, void *bytes, size_t size, bool all)
{
	struct wire_tls *tls = stream->tls;
	const struct wire_openssl *o = tls->o;
	size_t at = 0;

	for (;;) {
		int state = SSL_ERROR_NONE;
		pthread_mutex_lock(&tls->lock);
		while (at < size && state == SSL_ERROR_NONE) {
			size_t got = 0;
			o->ERR_clear_error();
			int ok = o->SSL_read_ex(tls->ssl, (char *)bytes + at, size - at, &got);
			state = ok ? SSL_ERROR_NONE : o->SSL_get_error(tls->ssl, ok);
			at += got;
		}
		if (state != SSL_ERROR_NONE && state != SSL_ERROR_WANT_READ && state != SSL_ERROR_ZERO_RETURN)
			keep_reason(tls);
		bool more = state == SSL_ERROR_NONE && (tls->in_at < tls->in_end || o->SSL_has_pending(tls->ssl));
		pthread_mutex_unlock(&tls->lock);
		__atomic_store_n(&tls->pending, more, __ATOMIC_RELEASE);
		if (all ? at == size : at > 0)
			return (long)at;
		if (state != SSL_ERROR_WANT_READ) {
			errno = 0;
			return -1;
		}
		/* What is missing takes at least as much cipher text, but for a part of a TLS record that OpenSSL may hold already. */
		long got = refill(stream, !all ? MSG_DONTWAIT : size - at >= IN_BYTES + RECORD_MAX ? MSG_WAITALL : 0);
		if (got <= 0)
			return got;
	}
}

long
wire_tls_take(struct wire_stream *stream, void *bytes, size_t size)
{
	return decrypt(stream, bytes, size, false);
}

bool
wire_tls_get(struct wire_stream *stream, void *bytes, size_t size)
{
	return decrypt(stream, bytes, size, true) == (long)size;
}

static bool
encrypt(struct wire_tls *tls, const uint8_t *bytes, size_t size)
{
	size_t done = 0;

	pthread_mutex_lock(&tls->lock);
	tls->o->ERR_clear_error();
	bool ok = tls->o->SSL_write_ex(tls->ssl, bytes, size, &done) && done == size;
	if (!ok)
		keep_reason(tls);
	pthread_mutex_unlock(&tls->lock);
	errno = 0;
	return ok;
}

bool
wire_tls_put(struct wire_stream *stream, struct iovec *parts, unsigned count, uint64_t until)
{
	struct wire_tls *tls = stream->tls;
	size_t gathered = 0;

	for (unsigned n = 0; n < count; n++) {
		const uint8_t *bytes = parts[n].iov_base;
		size_t size = parts[n].iov_len;
		if (gathered + size <= GATHER) {
			memcpy(tls->gathered + gathered, bytes, size);
			gathered += size;
			continue;
		}
		if (gathered && !encrypt(tls, tls->gathered, gathered))
			return false;
		gathered = 0;
		for (size_t at = 0, piece; at < size; at += piece) {
			piece = size - at < PIECE ? size - at : PIECE;
			if (!encrypt(tls, bytes + at, piece) || !flush(stream, until))
				return false;
		}
	}
	return !gathered || (encrypt(tls, tls->gathered, gathered) && flush(stream, until));
}

#else /* built without OpenSSL */

static void *
no_tls(char error[256])
{
	snprintf(error, 256, "this farwarp was built without TLS (meson -Dtls=enabled, with OpenSSL 3); use tcp: through a tunnel, as of ssh -L");
	return NULL;
}

bool
wire_tls_usable(char error[256])
{
	return no_tls(error) != NULL;
}

bool
wire_tls_check(const struct wire_tls_files *files, char error[256])
{
	return no_tls(error) != NULL;
}

struct wire_tls *
wire_tls_client(struct wire_stream *stream, const char *host, uint64_t until, char error[256])
{
	return no_tls(error);
}

struct wire_tls *
wire_tls_server(struct wire_stream *stream, const struct wire_tls_files *files, uint64_t until, char error[256])
{
	return no_tls(error);
}

long
wire_tls_take(struct wire_stream *stream, void *bytes, size_t size)
{
	errno = ENOTSUP;
	return -1;
}

bool
wire_tls_get(struct wire_stream *stream, void *bytes, size_t size)
{
	errno = ENOTSUP;
	return false;
}

bool
wire_tls_put(struct wire_stream *stream, struct iovec *parts, unsigned count, uint64_t until)
{
	errno = ENOTSUP;
	return false;
}

bool
wire_tls_pending(const struct wire_tls *tls)
{
	return false;
}

const char *
wire_tls_why(const struct wire_tls *tls)
{
	return "";
}

void
wire_tls_free(struct wire_tls *tls)
{
}

#endif
