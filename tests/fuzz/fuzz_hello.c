/*
 * A hello as a worker takes it from a connection: its size, its bytes, and whether it gets a lease. Bits of the first byte: the server has a
 * token; the bytes carry this build's protocol; and the right token.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/server.h"
#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HAS_TOKEN = 1, PROTOCOL = 2, RIGHT_TOKEN = 4 };

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char token[] = "a lease";
	struct session_version mine = { .magic = SESSION_MAGIC, .protocol = call_protocol_hash(), .version = "1" };
	struct session_hello hello;
	uint8_t sent[8192], got[WIRE_HELLO_MAX];
	char text[256] = "", error[256];
	int pair[2];

	if (size < 5 || size > sizeof(sent) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return 0;
	memcpy(sent, data + 1, size - 1);
	size--;
	if (data[0] & PROTOCOL && size >= 4 + sizeof(mine)) {
		memcpy(sent + 4, &mine, offsetof(struct session_version, version));
		memcpy(sent, &(uint32_t){ sizeof(hello) }, 4);
	}
	if (data[0] & RIGHT_TOKEN && size >= 4 + sizeof(hello))
		memcpy(sent + 4 + offsetof(struct session_hello, token), token, sizeof(token));
	if (write(pair[1], sent, size) < 0)
		abort();
	shutdown(pair[1], SHUT_WR);
	struct wire_stream *stream = wire_accept(pair[0], WIRE_TCP, NULL, 100, error);
	long length = stream ? wire_hello_read(stream, got, 100, error) : -1;
	if (length >= 0) {
		bool taken = sv_hello_take(got, (size_t)length, &mine, data[0] & HAS_TOKEN ? token : NULL, &hello, text, sizeof(text));
		bool known = strcmp(hello.token, data[0] & HAS_TOKEN ? token : "") == 0;
		if (taken ? !known || hello.version.protocol != mine.protocol || length != (long)sizeof(hello) : !text[0])
			abort();
	}
	if (stream)
		wire_stream_close(stream);
	close(pair[1]);
	return 0;
}
