/*
 * What a pointer without a length points to, and how long it is. Reads byte by byte as long as a text could still end.
 */
#include "image.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WRAPPER_MAGIC 0x466243b1u
#define FATBIN_MAGIC 0xba55ed50u
#define ELF_MAGIC 0x464c457fu
#define SHT_NOBITS 8

int
img_fail(struct img_error *error, const char *format, ...)
{
	if (error) {
		va_list args;
		va_start(args, format);
		vsnprintf(error->text, sizeof(error->text), format, args);
		va_end(args);
	}
	return -1;
}

/* Does the image begin with these four bytes? No byte behind a mismatch is read. */
static bool
begins(const uint8_t *bytes, size_t size, uint32_t magic)
{
	for (size_t i = 0; i < 4; i++)
		if (i >= size || bytes[i] != (uint8_t)(magic >> 8 * i))
			return false;
	return true;
}

/*
 * The first thing in a PTX text besides blanks and comments is a directive. More is left to the parser, whose errors
 * have a line and a reason.
 */
static bool
is_ptx(const char *text, size_t size)
{
	size_t i = 0;

	while (i < size && text[i]) {
		if (strchr(" \t\r\n\v\f", text[i])) {
			i++;
		} else if (text[i] == '/' && i + 1 < size && text[i + 1] == '/') {
			while (i < size && text[i] && text[i] != '\n')
				i++;
		} else if (text[i] == '/' && i + 1 < size && text[i + 1] == '*') {
			i += 2;
			while (i < size && text[i] && !(text[i] == '*' && i + 1 < size && text[i + 1] == '/'))
				i++;
			if (i >= size || !text[i])
				return false;
			i += 2;
		} else {
			return text[i] == '.';
		}
	}
	return false;
}

enum img_kind
img_recognise(const void *image, size_t size)
{
	if (begins(image, size, WRAPPER_MAGIC))
		return IMG_WRAPPER;
	if (begins(image, size, FATBIN_MAGIC))
		return IMG_FATBIN;
	if (begins(image, size, ELF_MAGIC))
		return IMG_ELF;
	return is_ptx(image, size < IMG_MAX_TEXT ? size : IMG_MAX_TEXT) ? IMG_PTX : IMG_UNKNOWN;
}

/* end = max(end, offset + count * each), false beyond the cap. */
static bool
extend(uint64_t *end, uint64_t offset, uint64_t count, uint64_t each)
{
	uint64_t bytes, last;

	if (__builtin_mul_overflow(count, each, &bytes) || __builtin_add_overflow(offset, bytes, &last) || last > IMG_MAX_IMAGE)
		return false;
	if (last > *end)
		*end = last;
	return true;
}

/* An ELF file has no length in its header: it ends where the last of its tables and sections does. */
static int
elf_length(const uint8_t *image, size_t size, size_t *length, struct img_error *error)
{
	struct fw_cursor c = fw_cursor(image, size < 64 ? size : 64);
	uint64_t end = 64;

	fw_cursor_seek(&c, 4);
	if (fw_cursor_u8(&c) != 2 || fw_cursor_u8(&c) != 1)
		return img_fail(error, "the ELF file is not 64-bit little-endian");
	fw_cursor_seek(&c, 32);
	uint64_t phoff = fw_cursor_u64(&c), shoff = fw_cursor_u64(&c);
	fw_cursor_seek(&c, 54);
	uint32_t phentsize = fw_cursor_u16(&c), phnum = fw_cursor_u16(&c), shentsize = fw_cursor_u16(&c), shnum = fw_cursor_u16(&c);
	if (c.bad)
		return img_fail(error, "the ELF header is cut short");
	if (shnum && shentsize != 64)
		return img_fail(error, "the ELF section headers have %u bytes instead of 64", shentsize);
	if (!extend(&end, phoff, phnum, phentsize) || !extend(&end, shoff, shnum, shentsize))
		return img_fail(error, "the ELF header tables lie beyond all bounds");
	if (end > size)
		return img_fail(error, "the ELF file is cut short: its tables end at byte %llu of %zu", (unsigned long long)end, size);
	c = fw_cursor(image, (size_t)end);
	for (uint32_t i = 0; i < shnum; i++) {
		fw_cursor_seek(&c, shoff + 64 * (uint64_t)i + 4);
		uint32_t type = fw_cursor_u32(&c);
		fw_cursor_seek(&c, shoff + 64 * (uint64_t)i + 24);
		uint64_t offset = fw_cursor_u64(&c), bytes = fw_cursor_u64(&c);
		if (type != SHT_NOBITS && type != 0 && !extend(&end, offset, bytes, 1))
			return img_fail(error, "ELF section %u lies beyond all bounds", i);
	}
	if (end > size)
		return img_fail(error, "the ELF file is cut short: its sections end at byte %llu of %zu", (unsigned long long)end, size);
	*length = (size_t)end;
	return 0;
}

static int
fatbin_length(const void *image, size_t size, size_t *length, struct img_error *error)
{
	struct fw_cursor c = fw_cursor(image, size < 16 ? size : 16);

	fw_cursor_seek(&c, 4);
	uint32_t version = fw_cursor_u16(&c), header = fw_cursor_u16(&c);
	uint64_t body = fw_cursor_u64(&c);
	if (c.bad)
		return img_fail(error, "the fat binary's header is cut short");
	if (version != 1 || header < 16)
		return img_fail(error, "fat binary of unknown version %u (header of %u bytes)", version, header);
	if (body > IMG_MAX_IMAGE)
		return img_fail(error, "the fat binary claims %llu bytes", (unsigned long long)body);
	if (header > size || body > size - header)
		return img_fail(error, "the fat binary is cut short: it claims %llu bytes of %zu", (unsigned long long)(header + body), size);
	*length = header + (size_t)body;
	return 0;
}

int
img_length(const void *image, size_t size, size_t *length, struct img_error *error)
{
	switch (img_recognise(image, size)) {
	case IMG_FATBIN:
		return fatbin_length(image, size, length, error);
	case IMG_ELF:
		return elf_length(image, size, length, error);
	case IMG_PTX: {
		size_t cap = size < IMG_MAX_TEXT ? size : (size_t)IMG_MAX_TEXT;
		size_t text = strnlen(image, cap);
		if (text == IMG_MAX_TEXT)
			return img_fail(error, "the PTX text does not end within %llu bytes", (unsigned long long)IMG_MAX_TEXT);
		*length = text;
		return 0;
	}
	case IMG_WRAPPER:
		return img_fail(error, "a fat binary wrapper has no bytes of its own");
	case IMG_UNKNOWN:
		break;
	}
	return img_fail(error, "neither a fat binary nor an ELF file nor PTX text");
}

/* Layout of the wrapper in memory: u32 magic, u32 version, pointer to the fat binary, pointer to a list or a file name. */
int
img_wrapper_read(const void *image, struct img_wrapper *wrapper, struct img_error *error)
{
	struct fw_cursor c = fw_cursor(image, 8 + 2 * sizeof(void *));
	struct img_wrapper found = { 0 };

	if (fw_cursor_u32(&c) != WRAPPER_MAGIC)
		return img_fail(error, "no fat binary wrapper");
	found.version = fw_cursor_u32(&c);
	found.fatbin = (const void *)(uintptr_t)fw_cursor_u64(&c);
	if (found.version == 2)
		found.parts = (const void *const *)(uintptr_t)fw_cursor_u64(&c);
	else if (found.version != 1)
		return img_fail(error, "fat binary wrapper of unknown version %u", found.version);
	while (found.parts && found.parts[found.part_count])
		if (++found.part_count > IMG_MAX_RELOCATABLE)
			return img_fail(error, "the list of relocatable fat binaries does not end");
	if (!found.fatbin && !found.part_count)
		return img_fail(error, "the fat binary wrapper is empty");
	*wrapper = found;
	return 0;
}
