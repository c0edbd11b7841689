/*
 * Reads the section .modinfo of a kernel module, "key=value" texts that end with a zero, and the mark behind an appended signature
 * (include/linux/module_signature.h). Only headers, names and that section are read: a module may have a hundred megabytes.
 */
#include "doctor/modinfo.h"

#include <stdio.h>
#include <string.h>

#define MAX_SECTIONS 8192
#define MAX_NAMES (1 << 20)     /* bytes of the sections' names */
#define MAX_MODINFO (1 << 16)
#define SECTION_SIZE 64         /* of a section header */

static uint64_t
number(const uint8_t *at, int bytes)
{
	uint64_t value = 0;

	for (int i = bytes; i-- > 0;)
		value = value << 8 | at[i];
	return value;
}

static void
take_value(const char *pair, size_t length, const char *key, char *value, size_t size)
{
	size_t name = strlen(key);

	if (length > name && strncmp(pair, key, name) == 0 && pair[name] == '=' && !value[0])
		snprintf(value, size, "%s", pair + name + 1);
}

static bool
read_section(struct dr_modinfo *info, struct in_source *source, uint64_t at, uint64_t size, struct in_error *error)
{
	struct fw_cursor copy;

	if (size > MAX_MODINFO || !in_load(source, at, size, &copy))
		return in_fail(error, ".modinfo lies outside of the file or is too large");
	for (const char *pair = (const char *)copy.data, *end = pair + size; pair < end; pair += strlen(pair) + 1) { /* a zero follows the copy */
		take_value(pair, strlen(pair), "version", info->version, sizeof(info->version));
		take_value(pair, strlen(pair), "license", info->license, sizeof(info->license));
	}
	in_unload(&copy);
	return true;
}

bool
dr_modinfo_read(struct dr_modinfo *info, struct in_source *source, struct in_error *error)
{
	static const char mark[] = "~Module signature appended~\n";
	uint8_t header[64], section[SECTION_SIZE];
	char end[sizeof(mark) - 1], name[9];

	*info = (struct dr_modinfo){ 0 };
	if (!in_read(source, 0, header, sizeof(header)) || memcmp(header, "\177ELF\2\1", 6) != 0)
		return in_fail(error, "no 64-bit ELF file");
	uint64_t table = number(header + 40, 8), count = number(header + 60, 2), names = number(header + 62, 2);
	if (number(header + 58, 2) != SECTION_SIZE || count > MAX_SECTIONS || names >= count)
		return in_fail(error, "the table of sections is damaged");
	if (!in_read(source, table + names * SECTION_SIZE, section, sizeof(section)))
		return in_fail(error, "the table of sections lies outside of the file");
	uint64_t names_at = number(section + 24, 8), names_size = number(section + 32, 8);
	if (names_size > MAX_NAMES || names_at > source->size || names_size > source->size - names_at)
		return in_fail(error, "the names of sections lie outside of the file or are too large");
	for (uint64_t i = 0; i < count; i++) {
		if (!in_read(source, table + i * SECTION_SIZE, section, sizeof(section)))
			return in_fail(error, "the table of sections lies outside of the file");
		uint64_t at = number(section, 4);
		if (at + sizeof(name) > names_size || !in_read(source, names_at + at, name, sizeof(name)) || memcmp(name, ".modinfo", 9) != 0)
			continue;
		if (!read_section(info, source, number(section + 24, 8), number(section + 32, 8), error))
			return false;
	}
	info->is_signed = source->size >= sizeof(end) && in_read(source, source->size - sizeof(end), end, sizeof(end)) &&
	                  memcmp(end, mark, sizeof(end)) == 0;
	return true;
}
