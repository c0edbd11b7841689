/* Reads specifications of the Container Device Interface and says what is wrong with them: see cdi.h. Knows no machine of its own. */
#include "doctor/cdi.h"

#include <ctype.h>
#include <string.h>

#include "doctor/facts.h"

#define MAX_MISSING 16 /* paths that are named */

struct fw_json *
dr_cdi_read(const char *text, size_t length, struct fw_json_error *error)
{
	size_t begin = 0;

	while (begin < length && isspace((unsigned char)text[begin]))
		begin++;
	return begin < length && text[begin] == '{' ? fw_json_read(text, length, error) : dr_yaml_read(text, length, error);
}

struct description {
	const struct dr_cdi_machine *machine;
	struct fw_json *missing;
	const char *version;   /* of the libraries; borrowed from the specification */
	bool majors_differ;
};

static void
need_path(struct description *d, const char *path)
{
	if (!path || *path != '/' || fw_json_size(d->missing) >= MAX_MISSING || d->machine->exists(path, d->machine->user))
		return;
	for (size_t i = 0; i < fw_json_size(d->missing); i++)
		if (strcmp(fw_json_as_text(fw_json_at(d->missing, i)), path) == 0)
			return; /* each device names the nodes that "all" names again */
	dr_append_text(d->missing, path);
}

/* "570.195.03" of ".../libcuda.so.570.195.03". */
static const char *
library_version(const char *path)
{
	const char *name = strstr(path, "/libcuda.so.");

	name = name ? name + strlen("/libcuda.so.") : NULL;
	return name && isdigit((unsigned char)*name) && strchr(name, '.') ? name : NULL;
}

static void
describe_edits(struct description *d, const struct fw_json *edits)
{
	const struct fw_json *nodes = fw_json_get(edits, "deviceNodes"), *mounts = fw_json_get(edits, "mounts");
	const struct fw_json *hooks = fw_json_get(edits, "hooks");

	for (size_t i = 0; i < fw_json_size(nodes); i++) {
		const struct fw_json *node = fw_json_at(nodes, i), *major = fw_json_get(node, "major");
		const char *path = fw_json_as_text(fw_json_get(node, "path")), *host = fw_json_as_text(fw_json_get(node, "hostPath"));
		need_path(d, host ? host : path);
		int should = path ? d->machine->major(path, d->machine->user) : -1;
		if (fw_json_is(major, FW_JSON_INT) && should >= 0)
			d->majors_differ |= fw_json_as_int(major) != should;
	}
	for (size_t i = 0; i < fw_json_size(mounts); i++) {
		const char *path = fw_json_as_text(fw_json_get(fw_json_at(mounts, i), "hostPath"));
		need_path(d, path);
		if (path && !d->version)
			d->version = library_version(path);
	}
	for (size_t i = 0; i < fw_json_size(hooks); i++)
		need_path(d, fw_json_as_text(fw_json_get(fw_json_at(hooks, i), "path")));
}

void
dr_cdi_describe(const struct fw_json *specification, const struct dr_cdi_machine *machine, struct fw_json *fact)
{
	const struct fw_json *devices = fw_json_get(specification, "devices");
	struct description d = { .machine = machine, .missing = dr_list(fact, "missing") };

	dr_set_text(fact, "kind", fw_json_as_text(fw_json_get(specification, "kind")));
	dr_set_int(fact, "devices", (int64_t)fw_json_size(devices));
	describe_edits(&d, fw_json_get(specification, "containerEdits"));
	for (size_t i = 0; i < fw_json_size(devices); i++)
		describe_edits(&d, fw_json_get(fw_json_at(devices, i), "containerEdits"));
	dr_set_text(fact, "driver_version", d.version);
	dr_set_bool(fact, "majors_differ", d.majors_differ);
}
