/*
 * A key and a certificate for a server that has none: EC P-256, signed by itself, trusted by its fingerprint or as its own authority.
 */
#include "wire/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef FARWARP_TLS

#include <arpa/inet.h>

#include "wire/openssl.h"

static bool
add_extension(const struct wire_openssl *o, X509 *x, int kind, const char *value)
{
	X509_EXTENSION *extension = o->X509V3_EXT_conf_nid(NULL, NULL, kind, value);
	bool ok = extension && o->X509_add_ext(x, extension, -1);

	if (extension)
		o->X509_EXTENSION_free(extension);
	return ok;
}

/* The names that it is for: this machine's, the loopback's, and the one that the server was told to listen at. */
static void
names_of(const char *host, char text[700])
{
	char machine[256] = "localhost";
	uint8_t number[16];
	size_t at;

	gethostname(machine, sizeof(machine) - 1);
	at = (size_t)snprintf(text, 700, "DNS:localhost,IP:127.0.0.1,IP:::1");
	if (strspn(machine, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") == strlen(machine) && *machine)
		at += (size_t)snprintf(text + at, 700 - at, ",DNS:%.250s", machine);
	if (!host || !*host || strcmp(host, machine) == 0 || strcmp(host, "localhost") == 0 || strchr(host, ','))
		return;
	bool numeric = inet_pton(AF_INET, host, number) == 1 || inet_pton(AF_INET6, host, number) == 1;
	snprintf(text + at, 700 - at, ",%s:%.250s", numeric ? "IP" : "DNS", host);
}

/* The certificate of a new key; NULL: OpenSSL does not. */
static X509 *
make(const struct wire_openssl *o, EVP_PKEY *key, const char *host, long days)
{
	X509 *x = o->X509_new();
	char names[700], machine[64] = "farwarp";
	uint64_t serial = 0;

	if (!x)
		return NULL;
	names_of(host, names);
	gethostname(machine, sizeof(machine) - 1);
	X509_NAME *name = o->X509_get_subject_name(x);
	bool ok = getrandom(&serial, sizeof(serial), 0) == (ssize_t)sizeof(serial) && o->X509_set_version(x, 2) &&
		o->ASN1_INTEGER_set_uint64(o->X509_get_serialNumber(x), serial >> 1 | 1) && o->X509_gmtime_adj(o->X509_getm_notBefore(x), -86400 * 2) &&
		o->X509_gmtime_adj(o->X509_getm_notAfter(x), 86400 * days) && o->X509_set_pubkey(x, key) &&
		o->X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"farwarp serve", -1, -1, 0) &&
		o->X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)machine, -1, -1, 0) && o->X509_set_issuer_name(x, name) &&
		add_extension(o, x, NID_subject_alt_name, names) && add_extension(o, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
		o->X509_sign(x, key, o->EVP_sha256());
	if (ok)
		return x;
	o->X509_free(x);
	return NULL;
}

/* Writes what was made beside the place and moves it there, so that nobody ever sees half of it. */
static bool
write_pem(const struct wire_openssl *o, const char *path, X509 *x, EVP_PKEY *key, char error[256])
{
	char beside[WIRE_PATH + 8], bytes[8192];
	BIO *memory = o->BIO_new(o->BIO_s_mem());
	int size = 0;

	if (memory && (x ? o->PEM_write_bio_X509(memory, x) : o->PEM_write_bio_PrivateKey(memory, key, NULL, NULL, 0, NULL, NULL)))
		size = o->BIO_read(memory, bytes, sizeof(bytes));
	if (memory)
		o->BIO_free(memory);
	snprintf(beside, sizeof(beside), "%s.new", path);
	unlink(beside);
	int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, x ? 0644 : 0600);
	bool ok = fd >= 0 && size > 0 && write(fd, bytes, (size_t)size) == size && fsync(fd) == 0;
	int why = errno;
	if (fd >= 0)
		ok &= close(fd) == 0;
	ok = ok && rename(beside, path) == 0;
	if (!ok)
		snprintf(error, 256, "cannot write %.150s: %s", path, strerror(fd < 0 || size > 0 ? why : ENOMEM));
	explicit_bzero(bytes, sizeof(bytes));
	return ok;
}

/* All folders of the path. */
static bool
make_folder(const char *folder, char error[256])
{
	char path[WIRE_PATH];

	snprintf(path, sizeof(path), "%s", folder);
	for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash)
			*slash = 0;
		if (mkdir(path, 0700) != 0 && errno != EEXIST) {
			snprintf(error, 256, "cannot make the folder %.150s: %s", path, strerror(errno));
			return false;
		}
		if (!slash)
			return true;
		*slash = '/';
	}
}

bool
wire_certificate_make(const char *folder, const char *host, int days, struct wire_certificate *made, char error[256])
{
	const struct wire_openssl *o = wire_openssl(error);

	if (!o)
		return false;
	if ((size_t)snprintf(made->cert, sizeof(made->cert), "%s/cert.pem", folder) >= sizeof(made->cert) ||
	    (size_t)snprintf(made->key, sizeof(made->key), "%s/key.pem", folder) >= sizeof(made->key)) {
		snprintf(error, 256, "%.100s...: the folder's name is too long", folder);
		return false;
	}
	if (access(made->cert, R_OK) == 0 && access(made->key, R_OK) == 0)
		return wire_fingerprint(made->cert, made->fingerprint, error);
	EVP_PKEY *key = o->EVP_PKEY_Q_keygen(o->context, NULL, "EC", "P-256");
	X509 *x = key ? make(o, key, host, days) : NULL;
	bool ok = x && make_folder(folder, error) && write_pem(o, made->key, NULL, key, error) && write_pem(o, made->cert, x, NULL, error);
	if (!x)
		snprintf(error, 256, "OpenSSL cannot make a key and a certificate");
	if (ok)
		wire_openssl_fingerprint(o, x, made->fingerprint);
	if (x)
		o->X509_free(x);
	if (key)
		o->EVP_PKEY_free(key);
	return ok;
}

bool
wire_fingerprint(const char *path, char text[WIRE_FINGERPRINT], char error[256])
{
	const struct wire_openssl *o = wire_openssl(error);
	BIO *file = o ? o->BIO_new_file(path, "r") : NULL;
	X509 *x = file ? o->PEM_read_bio_X509(file, NULL, NULL, NULL) : NULL;

	if (file)
		o->BIO_free(file);
	if (!x) {
		if (o) {
			o->ERR_clear_error();
			snprintf(error, 256, "%.150s is no file with a certificate (PEM)", path);
		}
		return false;
	}
	wire_openssl_fingerprint(o, x, text);
	o->X509_free(x);
	return true;
}

#else

bool
wire_certificate_make(const char *folder, const char *host, int days, struct wire_certificate *made, char error[256])
{
	return wire_tls_usable(error);
}

bool
wire_fingerprint(const char *path, char text[WIRE_FINGERPRINT], char error[256])
{
	return wire_tls_usable(error);
}

#endif
