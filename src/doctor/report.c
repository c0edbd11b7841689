/* Reports of the doctor: text for people, JSON for programs. They print what facts and verdict hold and decide nothing. */
#include "doctor.h"

#include <string.h>
#include <unistd.h>

static const struct {
	int value;
	const char *name, *text;
} error_names[] = {
#include "cuda_names.inc"
};

const char *
dr_cuda_error_name(int result)
{
	for (size_t i = 0; i < sizeof(error_names) / sizeof(error_names[0]); i++)
		if (error_names[i].value == result)
			return error_names[i].name;
	return "(unknown code)";
}

static void
print_lines(FILE *out, const char *indent, const char *text)
{
	while (*text) {
		const char *end = strchrnul(text, '\n');
		fprintf(out, "%s%.*s\n", indent, (int)(end - text), text);
		text = *end ? end + 1 : end;
	}
}

void
dr_report_text(const struct dr_facts *f, const struct dr_rule *verdict, FILE *out)
{
	int colour = isatty(fileno(out));
	const char *paint = !colour ? "" : verdict->state == DR_OK ? "\033[1;32m" : verdict->state == DR_FAULT ? "\033[1;31m" : "\033[1;33m";
	const char *plain = colour ? "\033[0m" : "";
	char why[512];

	fprintf(out, "%s%s: %s%s\n", paint, verdict->id, verdict->title, plain);
	fprintf(out, "  who can fix it: %s\n", verdict->who);
	fprintf(out, "  what to do:\n");
	print_lines(out, "    ", verdict->fix);
	fprintf(out, "  evidence:\n");
	for (int layer = 0; layer < DR_LAYER_COUNT; layer++) {
		const char *state = dr_layer_state(f, (enum dr_layer)layer, why, sizeof(why));
		fprintf(out, "    %-14s %-15s %s\n", dr_layer_names[layer], state, why);
	}
	for (int i = 0; i < f->pci_count; i++)
		if ((f->pci[i].class_code & 0xff00) == 0x0300)
			fprintf(out, "    GPU %s       10de:%04x, driver %s\n", f->pci[i].address, f->pci[i].device,
			        f->pci[i].driver[0] ? f->pci[i].driver : "none");
	if (f->visible_set)
		fprintf(out, "    CUDA_VISIBLE_DEVICES is \"%s\"\n", f->visible_devices);
	if (f->container || f->hypervisor || f->wsl)
		fprintf(out, "    surroundings   %s%s%s%s\n", f->hypervisor ? "virtual machine " : "", f->container ? "container " : "",
		        f->container_kind, f->wsl ? " WSL" : "");
}

static void
json_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c == '\n')
			fputs("\\n", out);
		else if (c < 0x20 || c == 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static void
json_field(FILE *out, const char *name, const char *value)
{
	fprintf(out, "\"%s\": ", name);
	json_string(out, value);
}

void
dr_report_json(const struct dr_facts *f, const struct dr_rule *verdict, FILE *out)
{
	static const char *const states[] = { "ok", "fault", "unknown" };
	char why[512];

	fprintf(out, "{\n  \"schema\": 1,\n  \"verdict\": {");
	json_field(out, "id", verdict->id);
	fprintf(out, ", \"state\": \"%s\", ", states[verdict->state]);
	json_field(out, "title", verdict->title);
	fputs(", ", out);
	json_field(out, "who", verdict->who);
	fputs(", ", out);
	json_field(out, "fix", verdict->fix);
	fputs("},\n  \"layers\": [", out);
	for (int layer = 0; layer < DR_LAYER_COUNT; layer++) {
		const char *state = dr_layer_state(f, (enum dr_layer)layer, why, sizeof(why));
		fprintf(out, "%s\n    {\"layer\": \"%s\", \"state\": \"%s\", ", layer ? "," : "", dr_layer_names[layer], state);
		json_field(out, "why", why);
		fputc('}', out);
	}
	fputs("\n  ],\n  \"facts\": {\n    \"pci\": [", out);
	for (int i = 0; i < f->pci_count; i++) {
		fprintf(out, "%s{", i ? ", " : "");
		json_field(out, "address", f->pci[i].address);
		fprintf(out, ", \"device\": \"%04x\", \"class\": \"%04x\", ", f->pci[i].device, f->pci[i].class_code);
		json_field(out, "driver", f->pci[i].driver);
		fputc('}', out);
	}
	fprintf(out, "],\n    \"pci_errno\": %d,\n    \"module\": {\"loaded\": %s, \"open\": %s, \"uvm\": %s, \"nouveau\": %s, ", f->pci_errno,
	        f->module_loaded ? "true" : "false", f->module_open ? "true" : "false", f->uvm_loaded ? "true" : "false",
	        f->nouveau_loaded ? "true" : "false");
	json_field(out, "version", f->module_version);
	fputs("},\n    \"nodes\": [", out);
	for (int i = 0; i < f->node_count; i++) {
		fprintf(out, "%s{", i ? ", " : "");
		json_field(out, "path", f->nodes[i].path);
		fprintf(out, ", \"errno\": %d}", f->nodes[i].open_errno);
	}
	const struct dr_driver *d = &f->driver;
	fprintf(out, "],\n    \"container\": %s, \"hypervisor\": %s, \"wsl\": %s,\n", f->container ? "true" : "false",
	        f->hypervisor ? "true" : "false", f->wsl ? "true" : "false");
	fprintf(out, "    \"driver\": {\"asked\": %s, \"stage\": \"%s\", \"hung\": %s, \"signal\": %d, \"cuInit\": %d, \"version\": %d, "
	             "\"devices\": %d, \"seconds\": %.3f, ", d->asked ? "true" : "false", dr_stage_names[d->stage],
	        d->hung ? "true" : "false", d->signal, d->init_result, d->version, d->count, d->seconds);
	json_field(out, "library", d->path);
	fputs(", ", out);
	json_field(out, "dlerror", d->dlerror);
	fputs(", ", out);
	json_field(out, "name", d->name);
	fputs("}\n  }\n}\n", out);
}
