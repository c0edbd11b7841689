/*
 * Reads the libraries that an installed Python package brought. Nothing is loaded. Of symbols only those of torch's own namespaces are looked
 * at, which nothing but torch can define.
 */
#include "doctor/python_native.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LIBRARIES 64         /* of a package */
#define MAX_RECORD (8 << 20)

struct package {
	struct in_kernels kernels;          /* of all its libraries */
	struct in_elf linked[MAX_LIBRARIES]; /* those that are linked with torch */
	size_t linked_count;
};

static bool
opens(const struct dr_native *n, const char *file, struct in_source *source, struct in_elf *elf)
{
	char path[PATH_MAX];

	(*n->beat)++;
	snprintf(path, sizeof(path), "%s%s/%s", n->options->root, n->folder, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || !in_source_fd(source, fd, NULL))
		return false;
	if (in_elf_read(elf, source, NULL)) {
		if (elf->readable)
			return true;
		in_elf_free(elf);
	}
	in_source_close(source);
	return false;
}

/* ---- kernels ---- */

static void
add_kernels(struct in_kernels *sum, const struct in_kernels *k)
{
	sum->native += k->native;
	sum->jit += k->jit;
	sum->too_new += k->too_new;
	sum->uncovered += k->uncovered;
	sum->modules += k->modules;
	for (size_t i = 0; i < k->arch_count; i++) {
		const struct in_arch *a = &k->archs[i];
		size_t at = 0;
		while (at < sum->arch_count && (sum->archs[at].arch != a->arch || sum->archs[at].suffix != a->suffix || sum->archs[at].ptx != a->ptx))
			at++;
		if (at == sum->arch_count && at < IN_MAX_ARCHS)
			sum->archs[sum->arch_count++] = *a;
	}
}

static void
tell_kernels(const struct dr_native *n, const struct in_kernels *sum, struct fw_json *package)
{
	char text[16];

	if (!sum->modules) { /* it has none, or compiles them while it runs */
		dr_set_absent(package, "archs");
		dr_set_absent(package, "kernels");
		return;
	}
	struct fw_json *archs = dr_list(package, "archs");
	for (size_t i = 0; i < sum->arch_count; i++) {
		snprintf(text, sizeof(text), "%s_%u%.1s", sum->archs[i].ptx ? "compute" : "sm", sum->archs[i].arch, &sum->archs[i].suffix);
		dr_append_text(archs, text);
	}
	if (!n->device->cc) {
		dr_unseen(package, "kernels", 0, "no GPU answers for which they could be counted", "farwarp inspect DIR --cc 9.0");
		return;
	}
	dr_set_int(package, "kernels.native", sum->native);
	dr_set_int(package, "kernels.jit", sum->jit);
	dr_set_int(package, "kernels.too_new", sum->too_new);
	dr_set_int(package, "kernels.neither", sum->uncovered);
}

/* ---- symbols of torch ---- */

static void
read_torch(const char *name, void *user)
{
	struct dr_native *n = user;
	struct in_source source;
	char file[300];
	size_t length = strlen(name);

	if (n->torch_count == DR_MAX_TORCH || length < 3 || strcmp(name + length - 3, ".so") != 0)
		return;
	snprintf(file, sizeof(file), "torch/lib/%.255s", name);
	if (opens(n, file, &source, &n->torch[n->torch_count])) {
		n->torch_count++;
		in_source_close(&source);
	}
}

static bool
one_has(const struct in_elf *elf, size_t count, const char *symbol)
{
	for (size_t i = 0; i < count; i++)
		if (in_elf_exports(&elf[i], symbol))
			return true;
	return false;
}

/* A function or variable of c10::, at:: or torch:: by its mangled name: "_ZN3c10...", "_ZNK2at...", "_ZTIN5torch...". */
static bool
is_torchs(const char *symbol)
{
	static const char *const beginnings[] = { "_ZN", "_ZNK", "_ZTIN", "_ZTVN" }, *const spaces[] = { "3c10", "2at", "5torch" };

	for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
		for (size_t k = 0; k < sizeof(spaces) / sizeof(spaces[0]); k++) {
			size_t length = strlen(beginnings[i]);
			if (strncmp(symbol, beginnings[i], length) == 0 && strncmp(symbol + length, spaces[k], strlen(spaces[k])) == 0)
				return true;
		}
	return false;
}

static bool
is_linked_with_torch(const struct in_elf *elf)
{
	for (size_t i = 0; i < elf->needed_count; i++)
		if (strcmp(elf->needed[i], "libc10.so") == 0 || strncmp(elf->needed[i], "libtorch", 8) == 0)
			return true;
	return false;
}

/* Symbols of torch that neither the torch here nor the package itself has. */
static void
tell_symbols(struct dr_native *n, const struct package *p, struct fw_json *package)
{
	char folder[PATH_MAX];
	const char *first = NULL;
	int lacks = 0;

	if (!p->linked_count) {
		dr_set_absent(package, "torch_lacks");
		return;
	}
	if (!n->torch_read) {
		n->torch_read = true;
		snprintf(folder, sizeof(folder), "%s/torch/lib", n->folder);
		dr_each_name(n->options, folder, 256, read_torch, n);
	}
	if (!n->torch_count) {
		dr_unseen(package, "torch_lacks", 0, "no torch lies beside it", NULL);
		return;
	}
	for (size_t i = 0; i < p->linked_count; i++)
		for (size_t k = 0; k < p->linked[i].undefined_count; k++) {
			const struct in_symbol *s = &p->linked[i].undefined[k];
			if (s->weak || !is_torchs(s->name) || one_has(n->torch, n->torch_count, s->name) || one_has(p->linked, p->linked_count, s->name))
				continue;
			first = first ? first : s->name;
			lacks++;
		}
	dr_set_int(package, "torch_lacks.symbols", lacks);
	dr_set_text(package, "torch_lacks.first", first);
}

/* ---- a package ---- */

static void
add_library(struct dr_native *n, const char *file, bool symbols, struct package *p)
{
	struct in_source source;
	struct in_elf elf;
	struct in_kernels kernels;

	if (!opens(n, file, &source, &elf))
		return;
	if (elf.fatbin_count) {
		in_kernels_read(&kernels, &elf, &source, n->device);
		add_kernels(&p->kernels, &kernels);
	}
	in_source_close(&source);
	if (symbols && is_linked_with_torch(&elf) && p->linked_count < MAX_LIBRARIES)
		p->linked[p->linked_count++] = elf;
	else
		in_elf_free(&elf);
}

void
dr_native_package(struct dr_native *n, const char *name, const char *info, struct fw_json *package)
{
	char path[1100];
	unsigned libraries = 0;
	struct package *p = calloc(1, sizeof(*p));

	if (!p)
		return;
	snprintf(path, sizeof(path), "%s/%s/RECORD", n->folder, info);
	char *record = dr_read_file(n->options, path, MAX_RECORD);
	for (const char *line = record; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		size_t length = strcspn(line, ",\n");
		char file[512];
		if (length < 4 || length >= sizeof(file) || strncmp(line + length - 3, ".so", 3) != 0 || line[0] == '.' || line[0] == '/' ||
		    libraries++ >= MAX_LIBRARIES)
			continue;
		snprintf(file, sizeof(file), "%.*s", (int)length, line);
		add_library(n, file, strcmp(name, "torch") != 0, p);
	}
	free(record);
	tell_kernels(n, &p->kernels, package);
	tell_symbols(n, p, package);
	for (size_t i = 0; i < p->linked_count; i++)
		in_elf_free(&p->linked[i]);
	free(p);
}

void
dr_native_end(struct dr_native *n)
{
	for (size_t i = 0; i < n->torch_count; i++)
		in_elf_free(&n->torch[i]);
	n->torch_count = 0;
}
