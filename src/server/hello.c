/*
 * A client's hello: what of it is believed, and whether it gets a lease.
 */
#include <stdio.h>
#include <string.h>

#include "server/server.h"

/* Constant time, so that how long it takes does not tell how much of it was right. */
static bool
same_token(const char *a, const char *b, size_t size)
{
	volatile unsigned differ = 0; /* no early end is made of it */

	for (size_t n = 0; n < size; n++)
		differ |= (unsigned char)a[n] ^ (unsigned char)b[n];
	return !differ;
}

bool
sv_hello_take(const uint8_t *bytes, size_t size, const struct session_version *mine, const char *token, struct session_hello *hello, char *text,
              size_t text_size)
{
	char wanted[sizeof(hello->token)] = "";

	memset(hello, 0, sizeof(*hello));
	memcpy(hello, bytes, size < sizeof(*hello) ? size : sizeof(*hello));
	hello->version.version[sizeof(hello->version.version) - 1] = hello->token[sizeof(hello->token) - 1] = 0;
	hello->visible[sizeof(hello->visible) - 1] = 0;
	if (size < sizeof(hello->version) || memcmp(hello->version.magic, SESSION_MAGIC, sizeof(SESSION_MAGIC)) != 0) {
		snprintf(text, text_size, "this is a farwarp server; the client is something else");
		return false;
	}
	if (size != sizeof(*hello) || hello->version.protocol != mine->protocol) {
		session_mismatch(text, text_size, "server", mine, "client", &hello->version);
		return false;
	}
	if (token)
		snprintf(wanted, sizeof(wanted), "%s", token);
	if (!same_token(wanted, hello->token, sizeof(wanted))) {
		snprintf(text, text_size, "the lease token is missing or wrong");
		return false;
	}
	return true;
}
