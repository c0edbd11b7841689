/* Bytes as the kernel's log, in both of its writings. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/probe_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_log *log = dr_log_new();
	struct fw_json *facts = dr_facts_new();
	char *text = malloc(size + 1);

	if (!log || !facts || !text)
		abort();
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	dr_log_take(log, text);
	dr_log_end(log, facts);
	fw_json_free(facts);
	free(text);
	return 0;
}
