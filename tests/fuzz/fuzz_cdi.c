/* Bytes as a CDI specification, YAML or JSON, and what is said of it. */
#include <stdint.h>
#include <stdlib.h>

#include "doctor/cdi.h"
#include "doctor/facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
exists(const char *path, void *user)
{
	(void)user;
	return path[1] == 'd';
}

static int
major_of(const char *path, void *user)
{
	(void)user;
	return path[1] == 'd' ? 195 : -1;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct dr_cdi_machine machine = { exists, major_of, NULL };
	struct fw_json_error error;
	struct fw_json *fact = fw_json_object(), *specification = dr_cdi_read((const char *)data, size, &error);

	if (!specification && (!error.what || error.line < 1 || error.column < 1))
		abort(); /* an error has its place */
	if (specification)
		dr_cdi_describe(specification, &machine, fact);
	fw_json_free(specification);
	fw_json_free(fact);
	return 0;
}
