/*
 * A call's inputs as a worker reads them, and an answer as a client reads it. The device serves nothing, so only the reading is tried.
 */
#include <stdint.h>
#include <string.h>

#include "call/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct cuda_ops nothing = { .name = "nothing" };
	static uint8_t answer[65536], memory[65536] __attribute__((aligned(64)));
	uint16_t call;

	if (size < sizeof(call))
		return 0;
	memcpy(&call, data, sizeof(call));
	struct fw_cursor in = fw_cursor(data + sizeof(call), size - sizeof(call));
	struct call_writer out = { .data = answer, .size = sizeof(answer) };
	call_serve(&nothing, (enum cuda_call_id)(call % CALL_COUNT), &in, &out, memory, sizeof(memory));

	in = fw_cursor(data + sizeof(call), size - sizeof(call));
	uint64_t count;
	while (!in.bad && in.at < in.size) {
		call_get_array(&in, 1 + call % 16, &count);
		call_get_string(&in);
	}
	return 0;
}
