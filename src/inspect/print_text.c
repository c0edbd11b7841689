/* The report for people: the verdict first, then what to do, then what was seen. */
#include "inspect/inspect.h"

#include <string.h>
#include <unistd.h>

static void
print_lines(FILE *out, const char *indent, const char *text)
{
	while (*text) {
		const char *end = strchrnul(text, '\n');
		fprintf(out, "%s%.*s\n", indent, (int)(end - text), text);
		text = *end ? end + 1 : end;
	}
}

static const char *
base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

static const char *
compression_of(const struct in_arch *a, char *text, size_t size)
{
	size_t used = 0;

	text[0] = 0;
	if (a->zstd)
		used += (size_t)snprintf(text + used, size - used, ", zstd");
	if (a->lz4)
		used += (size_t)snprintf(text + used, size - used, ", LZ4");
	if (a->raw && used)
		snprintf(text + used, size - used, ", some not compressed");
	else if (a->raw)
		snprintf(text + used, size - used, ", not compressed");
	return text;
}

static void
print_bytes(FILE *out, uint64_t bytes)
{
	if (bytes < 10000)
		fprintf(out, "%llu B", (unsigned long long)bytes);
	else if (bytes < 10000000)
		fprintf(out, "%.1f kB", (double)bytes / 1e3);
	else
		fprintf(out, "%.1f MB", (double)bytes / 1e6);
}

static void
print_kernels(const struct in_report *r, const struct in_inspector *i, FILE *out)
{
	const struct in_kernels *k = &r->kernels;
	char text[80];

	if (!k->modules && !k->relocatable)
		return;
	fprintf(out, "  kernels      %u modules", k->modules);
	if (k->embedded)
		fprintf(out, " (%u in its data)", k->embedded);
	if (k->relocatable)
		fprintf(out, " and %u for the device linker", k->relocatable);
	if (k->toolkit[0])
		fprintf(out, ", compiled by CUDA %s", k->toolkit);
	if (i->machine.device.cc && k->modules) {
		fprintf(out, "; for sm_%u: %u with machine code", i->machine.device.cc, k->native);
		if (k->jit)
			fprintf(out, ", %u with PTX to compile at start", k->jit);
		if (k->too_new)
			fprintf(out, ", %u with PTX too new for the driver", k->too_new);
		if (k->uncovered)
			fprintf(out, ", %u with neither", k->uncovered);
	}
	fputc('\n', out);
	for (size_t n = 0; n < k->arch_count; n++) {
		const struct in_arch *a = &k->archs[n];
		snprintf(text, sizeof(text), "%s_%u%.1s", a->ptx ? "compute" : "sm", a->arch, a->suffix ? &a->suffix : "");
		fprintf(out, "    %-12s %5u x %s", text, a->count, a->ptx ? "PTX" : "machine code");
		if (a->ptx && a->oldest != a->newest)
			fprintf(out, " %u.%u to %u.%u", a->oldest / 10, a->oldest % 10, a->newest / 10, a->newest % 10);
		else if (a->ptx)
			fprintf(out, " %u.%u", a->newest / 10, a->newest % 10);
		fprintf(out, "%s, ", compression_of(a, text, sizeof(text)));
		print_bytes(out, a->packed);
		if (a->size != a->packed) {
			fputs(" of ", out);
			print_bytes(out, a->size);
		}
		fputc('\n', out);
	}
	if (k->archs_full)
		fputs("    ... more architectures than are listed\n", out);
}

static void
print_libraries(const struct in_report *r, bool all, FILE *out)
{
	size_t hidden = 0;

	for (size_t n = 0; n < r->library_count; n++) {
		const struct in_library *l = &r->libraries[n];
		size_t symbols = 0;
		if (r->kind == IN_KIND_ELF && !all && !l->cuda && l->path) {
			hidden++;
			continue;
		}
		for (size_t u = 0; u < r->use_count; u++)
			symbols += r->uses[u].library ? strcmp(r->uses[u].library, l->name) == 0 : r->uses[u].path && l->path && strcmp(r->uses[u].path, l->path) == 0;
		fprintf(out, "  %-24s %s", l->name, l->path ? l->path : l->how);
		if (l->path)
			fprintf(out, " (%s)", l->how);
		if (symbols)
			fprintf(out, ", %zu symbols", symbols);
		if (!l->direct && l->by)
			fprintf(out, ", for %s", base_of(l->by));
		fputc('\n', out);
	}
	if (hidden)
		fprintf(out, "  and %zu other libraries, all found (--all lists them)\n", hidden);
}

static void
print_elf(const struct in_report *r, const struct in_inspector *i, bool all, FILE *out)
{
	print_libraries(r, all, out);
	if (r->driver_path || r->driver_how)
		fprintf(out, "  driver       %s, %s: %s\n", r->linked_driver ? "linked" : r->static_runtime ? "opened by name by the CUDA runtime that is linked in" :
		        r->dlopens_driver ? "opened by name" : "opened by libcudart", r->driver_how, r->driver_path ? r->driver_path : "none");
	print_kernels(r, i, out);
	if (r->rpath || r->runpath)
		fprintf(out, "  %s      %s\n", r->runpath ? "RUNPATH" : "RPATH  ", r->runpath ? r->runpath : r->rpath);
	if (r->glibc || r->glibcxx || r->strings)
		fprintf(out, "  needs        %s%s%s%s%s%s%s\n", r->glibc ? r->glibc : "", r->glibc && r->glibcxx ? ", " : "", r->glibcxx ? r->glibcxx : "",
		        r->cxxabi ? ", " : "", r->cxxabi ? r->cxxabi : "", r->strings ? "; std::string: " : "", r->strings ? r->strings : "");
	for (size_t n = 0; n < r->use_count && all; n++)
		fprintf(out, "    %s %s%s%s\n", r->uses[n].result == IN_FOUND ? "has    " : "MISSING", r->uses[n].symbol, r->uses[n].version ? "@" : "",
		        r->uses[n].version ? r->uses[n].version : "");
}

static void
print_wheel(const struct in_report *r, FILE *out)
{
	const struct in_wheel_facts *w = &r->wheel;

	if (!w->name)
		return;
	fprintf(out, "  wheel        %s %s, tag %s; %zu files, %zu libraries, %zu of them with kernels\n", w->name, w->version ? w->version : "?",
	        w->tag ? w->tag : "?", w->files, w->libraries, w->with_kernels);
	if (w->cuda)
		fprintf(out, "  CUDA         %s\n", w->cuda_why);
}

/* What a report that works says in one line. */
static void
print_fine(const struct in_report *r, const struct in_inspector *i, FILE *out)
{
	if (r->kind == IN_KIND_ELF && r->machine && strcmp(r->machine, "CUDA") == 0)
		fprintf(out, "machine code that sm_%u runs", i->machine.device.cc);
	else if (r->kind == IN_KIND_ELF && !r->uses_cuda)
		fputs("nothing of CUDA in it; all its libraries are here", out);
	else if (r->kind == IN_KIND_ELF && r->kernels.modules && i->machine.device.cc)
		fprintf(out, "all libraries and symbols are here, %s for sm_%u", r->kernels.native ? "machine code" : "PTX", i->machine.device.cc);
	else if (r->kind == IN_KIND_ELF)
		fputs("all libraries and symbols are here", out);
	else if (r->kind == IN_KIND_WHEEL && !r->wheel.libraries)
		fputs("no native code in it, and nothing that would need it", out);
	else
		fprintf(out, "%zu files with CUDA and %zu others, nothing wrong with them", r->member_count, r->plain_count);
}

static void
print_one(const struct in_report *r, const struct in_inspector *i, bool all, int depth, FILE *out)
{
	static const char *const words[] = { "works here", "will not work here", "could not tell" };
	static const char *const paints[] = { "\033[1;32m", "\033[1;31m", "\033[1;33m" };
	const struct in_finding *why;
	const struct in_report *where;
	enum in_state state = in_verdict(r, &why, &where);
	bool colour = isatty(fileno(out));

	/* The first characters carry id, cause and file: collectors cut lines. */
	fprintf(out, "%s%s%s%s%s: ", depth ? "\n" : "", colour ? paints[state] : "", why ? why->id : "OK", why && why->id[0] ? " " : why ? "" : " ", base_of(r->path));
	if (why && where != r)
		fprintf(out, "%s: ", base_of(where->path));
	if (why)
		fputs(why->text, out);
	else
		print_fine(r, i, out);
	fprintf(out, "%s\n  %s: %s\n", colour ? "\033[0m" : "", words[state], r->path);
	for (size_t n = 0; n < r->finding_count; n++) {
		const struct in_finding *f = &r->findings[n];
		if (f != why)
			fprintf(out, "  %s%s%s\n", f->level == IN_LEVEL_NOTE ? "note: " : f->id, f->level == IN_LEVEL_NOTE ? "" : " ", f->text);
		if (f->fix[0] && f->level != IN_LEVEL_NOTE) {
			fprintf(out, "  what to do:\n");
			print_lines(out, "    ", f->fix);
		}
	}
	if (r->kind == IN_KIND_ELF)
		print_elf(r, i, all, out);
	print_wheel(r, out);
	if (r->kind == IN_KIND_PROCESS && r->driver_path)
		fprintf(out, "  driver       mapped: %s\n", r->driver_path);
	for (size_t n = 0; n < r->member_count; n++)
		print_one(r->members[n], i, all, depth + 1, out);
	if (r->kind != IN_KIND_ELF && r->plain_count)
		fprintf(out, "%s  and %zu files without CUDA, nothing wrong with them\n", r->member_count ? "\n" : "", r->plain_count);
}

void
in_print_text(const struct in_report *report, const struct in_inspector *inspector, bool all, FILE *out)
{
	print_one(report, inspector, all, 0, out);
	if (inspector->machine.text[0])
		fprintf(out, "  device       %s\n", inspector->machine.text);
}
