/* Bytes as a kernel module's file. */
#include <stdlib.h>

#include "doctor/modinfo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct in_source source = in_source_memory(data, size);
	struct in_error error = { "" };
	struct dr_modinfo info;

	if (!dr_modinfo_read(&info, &source, &error) && !error.text[0])
		abort(); /* an error says what */
	return 0;
}
