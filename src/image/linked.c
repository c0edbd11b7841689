/*
 * Linked images of our own: what cuLinkComplete hands out and cuModuleLoadData takes back.
 *
 * An ELF file of the form of a cubin (64-bit, EM_CUDA, old style flags), so that its length can be computed and tools see what
 * it is; but its sections, all named ".farwarp.ptx", hold PTX texts that make one module together. No machine code.
 */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#define SECTION_NAME ".farwarp.ptx"
#define HEADER_BYTES 64
#define NAMES ("\0" SECTION_NAME "\0.shstrtab")
#define NAMES_BYTES (1 + sizeof(SECTION_NAME) + sizeof(".shstrtab"))

static void
put(uint8_t *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static void
put_header(uint8_t *header, uint32_t cc, size_t sections)
{
	memcpy(header, "\x7f" "ELF\2\1\1\x33\7", 9);
	put(header + 16, 2, 2);                           /* executable */
	put(header + 18, 190, 2);                         /* EM_CUDA */
	put(header + 20, 1, 4);
	put(header + 40, HEADER_BYTES, 8);                /* section headers follow at once */
	put(header + 48, 0x500 | cc | (uint64_t)cc << 16, 4); /* 64-bit addresses, unified textures */
	put(header + 52, HEADER_BYTES, 2);
	put(header + 58, 64, 2);
	put(header + 60, sections, 2);
	put(header + 62, sections - 1, 2);
}

static void
put_section(uint8_t *section, uint32_t name, uint32_t type, uint64_t offset, uint64_t size)
{
	put(section, name, 4);
	put(section + 4, type, 4);
	put(section + 24, offset, 8);
	put(section + 32, size, 8);
	put(section + 48, 1, 8);
}

void *
img_linked_write(const struct img_payload *texts, size_t count, uint32_t cc, size_t *size)
{
	size_t sections = count + 2, at = HEADER_BYTES + 64 * sections, total = at + NAMES_BYTES;

	if (sections >= 0xff00)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (__builtin_add_overflow(total, texts[i].size, &total))
			return NULL;
	uint8_t *image = calloc(1, total);
	if (!image)
		return NULL;
	put_header(image, cc, sections);
	for (size_t i = 0; i < count; i++) {
		put_section(image + HEADER_BYTES + 64 * (i + 1), 1, 1, at, texts[i].size);
		if (texts[i].size)
			memcpy(image + at, texts[i].data, texts[i].size);
		at += texts[i].size;
	}
	put_section(image + HEADER_BYTES + 64 * (sections - 1), 1 + sizeof(SECTION_NAME), 3, at, NAMES_BYTES);
	memcpy(image + at, NAMES, NAMES_BYTES);
	*size = total;
	return image;
}

int
img_linked_read(const struct img_elf *elf, struct img_sources *sources, struct img_error *error)
{
	struct img_section section;
	size_t count = 0;

	for (uint32_t i = 1; i < elf->section_count; i++)
		count += !img_elf_section(elf, i, &section) && strcmp(section.name, SECTION_NAME) == 0;
	if (!count)
		return 0;
	struct img_sources found = { .entries = calloc(count, sizeof(*found.entries)) };
	if (!found.entries)
		return img_fail(error, "out of memory for %zu linked texts", count);
	for (uint32_t i = 1; i < elf->section_count; i++)
		if (!img_elf_section(elf, i, &section) && strcmp(section.name, SECTION_NAME) == 0)
			found.entries[found.count++] = (struct img_entry){
				.kind = IMG_ENTRY_PTX, .arch = elf->sm, .payload = section.bytes.data,
				.payload_size = section.bytes.size, .size = section.bytes.size,
			};
	*sources = found;
	return (int)count;
}
