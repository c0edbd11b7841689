/* Prints what the readers find in a file: one line an entry, text, kernel, parameter or global. For nvcc.py and for people. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

static int failed;

static void
complain(const char *what, const struct img_error *error)
{
	printf("error %s: %s\n", what, error->text);
	failed = 1;
}

static void
dump_elf(const void *data, size_t size)
{
	struct img_elf elf;
	struct img_error error;

	if (img_elf_open(&elf, data, size, &error)) {
		complain("elf", &error);
		return;
	}
	printf("cubin sm_%u%s\n", elf.sm, elf.relocatable ? " relocatable" : "");
	for (uint32_t i = 1; i < img_elf_symbol_count(&elf); i++) {
		struct img_symbol symbol;
		struct img_param params[16];
		uint32_t bytes = 0;
		if (img_elf_symbol(&elf, i, &symbol)) {
			complain("symbol", &error);
		} else if (symbol.kind == IMG_SYMBOL_KERNEL) {
			int count = img_elf_params(&elf, symbol.name, params, 16, &bytes);
			printf("kernel %s params %d bytes %u:", symbol.name, count, bytes);
			for (int p = 0; p < count; p++)
				printf(" %u+%u", params[p].offset, params[p].size);
			printf("\n");
		} else if (symbol.kind == IMG_SYMBOL_GLOBAL && !symbol.external) {
			printf("global %s %llu%s\n", symbol.name, (unsigned long long)symbol.size, symbol.managed ? " managed" : "");
		}
	}
}

static void
dump_text(const struct img_payload *text)
{
	const char *line = text->data, *end = text->data + strnlen(text->data, text->size);

	printf("ptx of %zu bytes\n", (size_t)(end - line));
	for (; line < end; line = memchr(line, '\n', (size_t)(end - line)) ? (char *)memchr(line, '\n', (size_t)(end - line)) + 1 : end)
		if (strncmp(line, ".version", 8) == 0 || strncmp(line, ".target", 7) == 0 || strncmp(line, ".visible .entry", 15) == 0)
			printf("%.*s\n", (int)strcspn(line, "\n("), line);
}

static void
dump_fatbin(const void *data, size_t size)
{
	static const char *const packing[] = { "raw", "lz4", "zstd" };
	struct img_fatbin fatbin;
	struct img_entry entry;
	struct img_error error;
	int more;

	if (img_fatbin_open(&fatbin, data, size, &error)) {
		complain("fatbin", &error);
		return;
	}
	while ((more = img_fatbin_next(&fatbin, &entry, &error)) > 0) {
		struct img_payload payload;
		printf("entry kind %u arch %u%.1s version %u %s debug %d name %.*s\n", entry.kind, entry.arch, &entry.suffix,
		       entry.version, packing[entry.compression], !!(entry.flags & IMG_FLAG_DEBUG), (int)entry.name_size,
		       entry.name ? entry.name : "");
		if (img_entry_read(&entry, &payload, &error) != IMG_OK) {
			complain("payload", &error);
			continue;
		}
		if (entry.kind == IMG_ENTRY_ELF)
			dump_elf(payload.data, payload.size);
		else if (entry.kind == IMG_ENTRY_PTX)
			dump_text(&payload);
		img_payload_free(&payload);
	}
	if (more < 0)
		complain("entry", &error);
}

static void
dump_object(const void *data, size_t size)
{
	struct img_object object;
	struct img_error error;
	const void *fatbin;
	size_t length;
	int more;

	if (img_object_open(&object, data, size, &error)) {
		complain("object", &error);
		return;
	}
	while ((more = img_object_next(&object, &fatbin, &length, &error)) > 0) {
		printf("fatbin of %zu bytes\n", length);
		dump_fatbin(fatbin, length);
	}
	if (more < 0)
		complain("object", &error);
}

int
main(int argc, char **argv)
{
	FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
	if (!file)
		return 2;
	fseek(file, 0, SEEK_END);
	size_t size = (size_t)ftell(file);
	rewind(file);
	char *data = malloc(size + 1);
	if (fread(data, 1, size, file) != size)
		return 2;
	fclose(file);
	size_t length = 0;
	enum img_kind kind = img_recognise(data, size);
	if (kind == IMG_FATBIN || kind == IMG_PTX || (kind == IMG_ELF && data[18] == (char)190))
		printf("length %s\n", !img_length(data, kind == IMG_PTX ? size : IMG_SIZE_UNKNOWN, &length, NULL) && length == size ? "true" : "wrong");
	if (kind == IMG_FATBIN)
		dump_fatbin(data, size);
	else if (kind == IMG_PTX)
		dump_text(&(struct img_payload){ .data = data, .size = size });
	else if (kind == IMG_ELF && data[18] == (char)190)
		dump_elf(data, size);
	else
		dump_object(data, size);
	free(data);
	return failed;
}
