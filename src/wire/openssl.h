/*
 * OpenSSL 3, loaded when the first tls: address is used and never linked: the client library must not pull another libssl into programs
 * that have their own. Its symbols stay local to the handle, bind to each other, and work in a library context of their own, so neither
 * the program's OpenSSL configuration nor its clean-up at exit touches them.
 */
#ifndef WIRE_OPENSSL_H
#define WIRE_OPENSSL_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "wire/wire.h"

#define WIRE_OPENSSL(X) \
	X(OPENSSL_init_ssl) X(OSSL_LIB_CTX_new) X(ERR_clear_error) X(ERR_peek_error) X(ERR_reason_error_string) \
	X(BIO_meth_new) X(BIO_meth_set_read) X(BIO_meth_set_write) X(BIO_meth_set_ctrl) X(BIO_get_new_index) X(BIO_new) X(BIO_set_data) \
	X(BIO_get_data) X(BIO_set_init) X(BIO_set_flags) X(BIO_clear_flags) X(BIO_new_file) X(BIO_s_mem) X(BIO_read) X(BIO_free) \
	X(TLS_method) X(SSL_CTX_new_ex) X(SSL_CTX_free) X(SSL_CTX_ctrl) X(SSL_CTX_set_options) X(SSL_CTX_set_num_tickets) X(SSL_CTX_set_verify) \
	X(SSL_CTX_load_verify_file) X(SSL_CTX_set_default_verify_paths) X(SSL_CTX_use_certificate_chain_file) X(SSL_CTX_use_PrivateKey_file) \
	X(SSL_CTX_check_private_key) X(SSL_new) X(SSL_free) X(SSL_set_bio) X(SSL_ctrl) X(SSL_set1_host) X(SSL_get0_param) \
	X(X509_VERIFY_PARAM_set1_ip_asc) X(SSL_set_connect_state) X(SSL_set_accept_state) X(SSL_do_handshake) X(SSL_read_ex) X(SSL_write_ex) \
	X(SSL_has_pending) X(SSL_get_error) X(SSL_shutdown) X(SSL_get_verify_result) X(SSL_get1_peer_certificate) \
	X(X509_verify_cert_error_string) \
	X(X509_digest) X(EVP_sha256) X(X509_free) X(X509_get_subject_name) X(X509_NAME_get_text_by_NID) X(SSL_CTX_set_cert_verify_callback) \
	X(X509_verify_cert) X(X509_STORE_CTX_get0_cert) X(X509_STORE_CTX_get_error) X(X509_STORE_CTX_set_error) X(SSL_CTX_set_default_passwd_cb) \
	X(EVP_PKEY_Q_keygen) X(EVP_PKEY_free) X(X509_new) X(X509_set_version) X(X509_get_serialNumber) X(ASN1_INTEGER_set_uint64) \
	X(X509_gmtime_adj) X(X509_getm_notBefore) X(X509_getm_notAfter) X(X509_set_pubkey) X(X509_NAME_add_entry_by_txt) X(X509_set_issuer_name) \
	X(X509V3_EXT_conf_nid) X(X509_add_ext) X(X509_EXTENSION_free) X(X509_sign) X(PEM_write_bio_X509) X(PEM_write_bio_PrivateKey) \
	X(PEM_read_bio_X509)

struct wire_openssl {
#define X(name) __typeof__(&name) name;
	WIRE_OPENSSL(X)
#undef X
	OSSL_LIB_CTX *context;
	BIO_METHOD *bio; /* tls.c's */
};

/* The library; NULL with a sentence where it is not there. Loaded once, never unloaded. */
const struct wire_openssl *wire_openssl(char error[256]);
/* "sha256:" and 64 hexadecimal digits. */
void wire_openssl_fingerprint(const struct wire_openssl *o, X509 *certificate, char text[WIRE_FINGERPRINT]);

#endif
