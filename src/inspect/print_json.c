/* The report for programs: all facts of all reports as one JSON document (docs/inspect.md). Texts that are no UTF-8 have it replaced. */
#include "inspect/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* A string, or null. Bytes that are no UTF-8 become question marks, for names of files may hold anything. */
static struct fw_json *
string(const char *text)
{
	struct fw_json *value = text ? fw_json_text(text) : fw_json_null();

	if (value)
		return value;
	char *plain = strdup(text);
	for (char *c = plain; c && *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	value = plain ? fw_json_text(plain) : NULL;
	free(plain);
	return value;
}

static void
put(struct fw_json *object, const char *key, struct fw_json *value)
{
	fw_json_set(object, key, value ? value : fw_json_null());
}

static struct fw_json *
findings_of(const struct in_report *r)
{
	static const char *const levels[] = { "fault", "unsure", "note" };
	struct fw_json *list = fw_json_array();

	for (size_t n = 0; n < r->finding_count; n++) {
		struct fw_json *f = fw_json_object();
		put(f, "level", fw_json_text(levels[r->findings[n].level]));
		put(f, "id", string(r->findings[n].id));
		put(f, "text", string(r->findings[n].text));
		put(f, "fix", string(r->findings[n].fix));
		fw_json_append(list, f);
	}
	return list;
}

static struct fw_json *
libraries_of(const struct in_report *r)
{
	struct fw_json *list = fw_json_array();

	for (size_t n = 0; n < r->library_count; n++) {
		const struct in_library *l = &r->libraries[n];
		struct fw_json *o = fw_json_object();
		put(o, "name", string(l->name));
		put(o, "path", string(l->path));
		put(o, "how", string(l->how));
		put(o, "needed_by", string(l->by));
		put(o, "direct", fw_json_bool(l->direct));
		put(o, "cuda", fw_json_bool(l->cuda));
		fw_json_append(list, o);
	}
	return list;
}

static struct fw_json *
symbols_of(const struct in_report *r)
{
	static const char *const results[] = { "found", "nowhere", "library without versions", "other version" };
	struct fw_json *list = fw_json_array();

	for (size_t n = 0; n < r->use_count; n++) {
		const struct in_use *u = &r->uses[n];
		struct fw_json *o = fw_json_object();
		put(o, "name", string(u->symbol));
		put(o, "version", string(u->version));
		put(o, "library", string(u->library));
		put(o, "path", string(u->path));
		put(o, "needed_by", string(u->by));
		put(o, "result", fw_json_text(results[u->result]));
		fw_json_append(list, o);
	}
	return list;
}

static struct fw_json *
kernels_of(const struct in_report *r, uint32_t cc)
{
	const struct in_kernels *k = &r->kernels;
	struct fw_json *o = fw_json_object(), *archs = fw_json_array();

	put(o, "modules", fw_json_int(k->modules));
	put(o, "empty", fw_json_int(k->empty));
	put(o, "embedded", fw_json_int(k->embedded));
	put(o, "relocatable", fw_json_int(k->relocatable));
	put(o, "toolkit", string(k->toolkit[0] ? k->toolkit : NULL));
	for (size_t n = 0; n < k->arch_count; n++) {
		const struct in_arch *a = &k->archs[n];
		char name[32], isa[16];
		struct fw_json *one = fw_json_object();
		snprintf(name, sizeof(name), "%s_%u%.1s", a->ptx ? "compute" : "sm", a->arch, a->suffix ? &a->suffix : "");
		snprintf(isa, sizeof(isa), "%u.%u", a->newest / 10, a->newest % 10);
		put(one, "arch", fw_json_text(name));
		put(one, "kind", fw_json_text(a->ptx ? "ptx" : "sass"));
		put(one, "isa", a->ptx ? fw_json_text(isa) : fw_json_null());
		put(one, "count", fw_json_int(a->count));
		put(one, "bytes", fw_json_int((int64_t)a->packed));
		put(one, "bytes_unpacked", fw_json_int((int64_t)a->size));
		put(one, "raw", fw_json_int(a->raw));
		put(one, "lz4", fw_json_int(a->lz4));
		put(one, "zstd", fw_json_int(a->zstd));
		fw_json_append(archs, one);
	}
	put(o, "archs", archs);
	if (cc) {
		struct fw_json *covered = fw_json_object();
		put(covered, "sass", fw_json_int(k->native));
		put(covered, "ptx", fw_json_int(k->jit));
		put(covered, "ptx_too_new", fw_json_int(k->too_new));
		put(covered, "none", fw_json_int(k->uncovered));
		put(o, "coverage", covered);
	}
	return o;
}

static struct fw_json *
elf_of(const struct in_report *r)
{
	struct fw_json *o = fw_json_object();

	put(o, "machine", string(r->machine));
	put(o, "program", fw_json_bool(r->program));
	put(o, "interpreter", string(r->interpreter));
	put(o, "soname", string(r->soname));
	put(o, "rpath", string(r->rpath));
	put(o, "runpath", string(r->runpath));
	put(o, "build_id", string(r->build_id));
	put(o, "glibc", string(r->glibc));
	put(o, "glibcxx", string(r->glibcxx));
	put(o, "cxxabi", string(r->cxxabi));
	put(o, "std_string", string(r->strings));
	return o;
}

static struct fw_json *
driver_of(const struct in_report *r)
{
	struct fw_json *o = fw_json_object();

	put(o, "linked", fw_json_bool(r->linked_driver));
	put(o, "named", fw_json_bool(r->dlopens_driver));
	put(o, "static_runtime", fw_json_bool(r->static_runtime));
	put(o, "path", string(r->driver_path));
	put(o, "how", string(r->driver_how));
	return o;
}

static struct fw_json *
wheel_of(const struct in_report *r)
{
	const struct in_wheel_facts *w = &r->wheel;
	struct fw_json *o = fw_json_object(), *absent = fw_json_array();

	put(o, "name", string(w->name));
	put(o, "version", string(w->version));
	put(o, "tag", string(w->tag));
	put(o, "purelib", w->purelib_known ? fw_json_bool(w->purelib) : fw_json_null());
	put(o, "cuda", string(w->cuda_why));
	put(o, "files", fw_json_int((int64_t)w->files));
	put(o, "libraries", fw_json_int((int64_t)w->libraries));
	put(o, "with_kernels", fw_json_int((int64_t)w->with_kernels));
	for (size_t n = 0; n < w->absent_count; n++)
		fw_json_append(absent, string(w->absent[n]));
	put(o, "absent_modules", absent);
	return o;
}

static struct fw_json *
report_of(const struct in_report *r, uint32_t cc)
{
	static const char *const states[] = { "works", "fault", "unknown" };
	const struct in_finding *why;
	const struct in_report *where;
	struct fw_json *o = fw_json_object(), *verdict = fw_json_object();
	enum in_state state = in_verdict(r, &why, &where);

	put(o, "path", string(r->path));
	put(o, "kind", fw_json_text(in_kind_names[r->kind]));
	put(verdict, "state", fw_json_text(states[state]));
	put(verdict, "id", string(why ? why->id : "OK"));
	put(verdict, "text", string(why ? why->text : ""));
	put(verdict, "fix", string(why ? why->fix : ""));
	put(verdict, "file", string(where->path));
	put(o, "verdict", verdict);
	put(o, "findings", findings_of(r));
	if (r->kind == IN_KIND_ELF) {
		put(o, "elf", elf_of(r));
		put(o, "libraries", libraries_of(r));
		put(o, "symbols", symbols_of(r));
		put(o, "kernels", kernels_of(r, cc));
		put(o, "driver", driver_of(r));
	} else if (r->kind == IN_KIND_WHEEL) {
		put(o, "wheel", wheel_of(r));
	} else if (r->kind == IN_KIND_PROCESS) {
		put(o, "driver", driver_of(r));
	}
	if (r->kind != IN_KIND_ELF) {
		struct fw_json *members = fw_json_array();
		for (size_t n = 0; n < r->member_count; n++)
			fw_json_append(members, report_of(r->members[n], cc));
		put(o, "members", members);
		put(o, "others", fw_json_int((int64_t)r->plain_count));
	}
	return o;
}

bool
in_print_json(struct in_report *const *reports, size_t count, const struct in_inspector *inspector, FILE *out)
{
	struct fw_json *root = fw_json_object(), *list = fw_json_array(), *device = fw_json_object();
	const struct in_machine *m = &inspector->machine;
	char cc[16];

	put(root, "schema", fw_json_int(1));
	snprintf(cc, sizeof(cc), "%u.%u", m->device.cc / 10, m->device.cc % 10);
	put(device, "capability", m->device.cc ? fw_json_text(cc) : fw_json_null());
	put(device, "text", string(m->text[0] ? m->text : "not asked: nothing holds kernels"));
	put(device, "asked_for", fw_json_bool(m->given));
	put(root, "device", device);
	for (size_t n = 0; n < count; n++)
		fw_json_append(list, report_of(reports[n], m->device.cc));
	put(root, "files", list);
	bool fine = root && fw_json_write(root, out) && fputc('\n', out) != EOF;
	fw_json_free(root);
	return fine;
}
