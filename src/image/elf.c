/*
 * Cubin ELF files: architecture, kernels, their parameter layout, globals. Machine code is not looked at.
 *
 * Two styles of e_flags exist: up to CUDA 12 (ABI version 7) the architecture is bits 0 to 7 and the virtual one bits 16 to 23;
 * from CUDA 13 (ABI version 8) it is bits 8 to 15.
 */
#include "image.h"

#include <stdio.h>
#include <string.h>

#define EM_CUDA 190
#define SHT_SYMTAB 2
#define SHT_NOBITS 8
#define STT_OBJECT 1
#define STT_FUNC 2
#define STO_MANAGED 0x04 /* bits of st_other */
#define STO_ENTRY 0x10
#define EF_ACCELERATORS_OLD 0x800 /* sm_90a */

/* Records of .nv.info.KERNEL: u8 format, u8 attribute, u16 value or, for format 4, length of what follows. */
#define INFO_FORMAT_SIZED 4
#define INFO_KPARAM 0x17
#define INFO_PARAM_BYTES 0x19

/* A terminated string at `offset` of a string table, NULL if it is not there. */
static const char *
table_string(const struct fw_cursor *table, uint32_t offset)
{
	if (offset >= table->size || !memchr(table->data + offset, 0, table->size - offset))
		return NULL;
	return (const char *)table->data + offset;
}

int
img_elf_section(const struct img_elf *elf, uint32_t index, struct img_section *section)
{
	struct fw_cursor c = elf->file;
	struct img_section s = { 0 };

	if (index >= elf->section_count)
		return -1;
	fw_cursor_seek(&c, elf->section_table + 64 * (uint64_t)index);
	uint32_t name = fw_cursor_u32(&c);
	s.type = fw_cursor_u32(&c);
	s.flags = fw_cursor_u64(&c);
	fw_cursor_u64(&c); /* address */
	uint64_t offset = fw_cursor_u64(&c);
	s.size = fw_cursor_u64(&c);
	s.link = fw_cursor_u32(&c);
	s.info = fw_cursor_u32(&c);
	if (s.type != SHT_NOBITS && s.type != 0)
		s.bytes = fw_cursor_sub(&elf->file, offset, s.size);
	s.name = elf->section_names.size ? table_string(&elf->section_names, name) : "";
	if (c.bad || s.bytes.bad || !s.name)
		return -1;
	*section = s;
	return 0;
}

int
img_elf_find(const struct img_elf *elf, const char *name, struct img_section *section)
{
	for (uint32_t i = 1; i < elf->section_count; i++) {
		struct img_section s;
		if (!img_elf_section(elf, i, &s) && s.name && strcmp(s.name, name) == 0) {
			*section = s;
			return 0;
		}
	}
	return -1;
}

static void
read_architecture(struct img_elf *elf, uint32_t abi, uint32_t flags)
{
	if (abi >= 8) {
		elf->sm = flags >> 8 & 0xff;
	} else {
		elf->sm = flags & 0xff;
		elf->virtual_arch = flags >> 16 & 0xff;
		elf->suffix = flags & EF_ACCELERATORS_OLD ? 'a' : 0;
	}
}

static int
find_symbols(struct img_elf *elf, struct img_error *error)
{
	for (uint32_t i = 1; i < elf->section_count; i++) {
		struct img_section symbols, strings;
		if (img_elf_section(elf, i, &symbols))
			return img_fail(error, "ELF section %u lies outside the file or has no name", i);
		if (symbols.type != SHT_SYMTAB || elf->symbols.size)
			continue;
		if (img_elf_section(elf, symbols.link, &strings))
			return img_fail(error, "the ELF symbol table has no strings");
		elf->symbols = symbols.bytes;
		elf->strings = strings.bytes;
	}
	return 0;
}

int
img_elf_open(struct img_elf *elf, const void *image, size_t size, struct img_error *error)
{
	size_t length;
	struct img_elf e = { 0 };

	if (img_recognise(image, size) != IMG_ELF)
		return img_fail(error, "no ELF file");
	if (img_length(image, size, &length, error))
		return -1;
	e.file = fw_cursor(image, length);
	struct fw_cursor c = e.file;
	fw_cursor_seek(&c, 8);
	uint32_t abi = fw_cursor_u8(&c);
	fw_cursor_seek(&c, 16);
	e.relocatable = fw_cursor_u16(&c) == 1;
	uint32_t machine = fw_cursor_u16(&c);
	if (machine != EM_CUDA)
		return img_fail(error, "an ELF file for machine %u, not for CUDA", machine);
	fw_cursor_seek(&c, 40);
	e.section_table = fw_cursor_u64(&c);
	read_architecture(&e, abi, fw_cursor_u32(&c));
	fw_cursor_seek(&c, 60);
	e.section_count = fw_cursor_u16(&c);
	uint32_t names = fw_cursor_u16(&c);
	if (e.section_count) {
		struct img_section section;
		if (img_elf_section(&e, names, &section))
			return img_fail(error, "the ELF file has no section names");
		e.section_names = section.bytes;
	}
	if (find_symbols(&e, error))
		return -1;
	*elf = e;
	return 0;
}

uint32_t
img_elf_symbol_count(const struct img_elf *elf)
{
	return (uint32_t)(elf->symbols.size / 24);
}

int
img_elf_symbol(const struct img_elf *elf, uint32_t index, struct img_symbol *symbol)
{
	struct fw_cursor c = elf->symbols;
	struct img_symbol s = { 0 };

	fw_cursor_seek(&c, 24 * (uint64_t)index);
	uint32_t name = fw_cursor_u32(&c);
	unsigned info = fw_cursor_u8(&c), other = fw_cursor_u8(&c);
	s.section = fw_cursor_u16(&c);
	s.value = fw_cursor_u64(&c);
	s.size = fw_cursor_u64(&c);
	s.name = table_string(&elf->strings, name);
	if (c.bad || !s.name)
		return -1;
	s.external = s.section == 0;
	if ((info & 15) == STT_FUNC) {
		s.kind = other & STO_ENTRY ? IMG_SYMBOL_KERNEL : IMG_SYMBOL_FUNCTION;
	} else if ((info & 15) == STT_OBJECT) {
		s.kind = IMG_SYMBOL_GLOBAL;
		s.managed = other & STO_MANAGED;
	}
	*symbol = s;
	return 0;
}

int
img_elf_params(const struct img_elf *elf, const char *kernel, struct img_param *params, uint32_t capacity,
               uint32_t *total_bytes)
{
	char name[1024];
	struct img_section section;
	uint32_t count = 0, total = 0;

	if (snprintf(name, sizeof(name), ".nv.info.%s", kernel) >= (int)sizeof(name) || img_elf_find(elf, name, &section))
		return -1;
	struct fw_cursor c = section.bytes;
	while (!c.bad && c.at < c.size) {
		unsigned format = fw_cursor_u8(&c), attribute = fw_cursor_u8(&c), value = fw_cursor_u16(&c);
		if (attribute == INFO_PARAM_BYTES && format != INFO_FORMAT_SIZED)
			total = value;
		if (format != INFO_FORMAT_SIZED)
			continue;
		struct fw_cursor record = fw_cursor_sub(&c, c.at, value);
		fw_cursor_bytes(&c, value);
		if (attribute != INFO_KPARAM)
			continue;
		fw_cursor_u32(&record);
		uint32_t ordinal = fw_cursor_u16(&record), offset = fw_cursor_u16(&record), size = fw_cursor_u32(&record) >> 18;
		if (record.bad)
			return -1;
		if (ordinal >= count)
			count = ordinal + 1;
		if (ordinal < capacity)
			params[ordinal] = (struct img_param){ .offset = offset, .size = size };
	}
	if (c.bad)
		return -1;
	*total_bytes = total;
	return (int)count;
}
