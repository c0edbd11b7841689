/*
 * Fat binaries inside files for the host: ELF objects, programs and shared libraries (sections .nv_fatbin and
 * __nv_relfatbin), and ar archives of objects. Reads section headers and member headers, nothing else of them.
 */
#include "image.h"

#include <string.h>

#define ARCHIVE_MAGIC "!<arch>\n"
#define MEMBER_HEADER 60
#define SHT_NOBITS 8

static bool
is_elf(const struct fw_cursor *file)
{
	return file->size >= 64 && memcmp(file->data, "\x7f" "ELF\2\1", 6) == 0;
}

/* The offset and size of a section; an empty range when it has none in the file. */
static struct fw_cursor
section_bytes(const struct img_object *o, uint32_t index, uint32_t *name)
{
	struct fw_cursor c = o->object;

	fw_cursor_seek(&c, o->section_table + 64 * (uint64_t)index);
	*name = fw_cursor_u32(&c);
	uint32_t type = fw_cursor_u32(&c);
	fw_cursor_u64(&c);
	fw_cursor_u64(&c);
	uint64_t offset = fw_cursor_u64(&c), size = fw_cursor_u64(&c);
	if (c.bad)
		return (struct fw_cursor){ .bad = true };
	return type == SHT_NOBITS ? (struct fw_cursor){ 0 } : fw_cursor_sub(&o->object, offset, size);
}

/* Starts on one object. False if it is none that could hold a fat binary. */
static bool
begin_object(struct img_object *o, struct fw_cursor object)
{
	uint32_t name;
	struct fw_cursor c = object;

	o->section_table = 0;
	if (!is_elf(&object))
		return false;
	o->object = object;
	fw_cursor_seek(&c, 40);
	o->section_table = fw_cursor_u64(&c);
	fw_cursor_seek(&c, 58);
	uint32_t each = fw_cursor_u16(&c);
	o->section_count = fw_cursor_u16(&c);
	uint32_t names = fw_cursor_u16(&c);
	o->section = 0;
	if (each != 64 || names >= o->section_count)
		o->section_count = 0;
	o->names = o->section_count ? section_bytes(o, names, &name) : (struct fw_cursor){ 0 };
	return true;
}

/* The next member of the archive: 1, 0 at the end, -1. */
static int
next_member(struct img_object *o, struct img_error *error)
{
	struct fw_cursor c = o->file;
	uint64_t size = 0;

	if (o->next_member >= o->file.size)
		return 0;
	fw_cursor_seek(&c, o->next_member);
	const char *header = fw_cursor_bytes(&c, MEMBER_HEADER);
	if (!header || header[58] != '`' || header[59] != '\n')
		return img_fail(error, "the archive is damaged or cut short at byte %zu", o->next_member);
	for (int i = 48; i < 58 && header[i] != ' '; i++) {
		if (header[i] < '0' || header[i] > '9')
			return img_fail(error, "the archive is damaged at byte %zu", o->next_member);
		size = size * 10 + (uint64_t)(header[i] - '0');
	}
	struct fw_cursor member = fw_cursor_sub(&o->file, o->next_member + MEMBER_HEADER, size);
	if (member.bad)
		return img_fail(error, "the archive is cut short: a member claims %llu bytes", (unsigned long long)size);
	o->next_member += MEMBER_HEADER + size + (size & 1);
	begin_object(o, member);
	return 1;
}

int
img_object_open(struct img_object *object, const void *data, size_t size, struct img_error *error)
{
	struct img_object o = { .file = fw_cursor(data, size) };

	if (size >= 8 && memcmp(data, ARCHIVE_MAGIC, 8) == 0) {
		o.archive = true;
		o.next_member = 8;
	} else if (!begin_object(&o, o.file)) {
		return img_fail(error, "neither an ELF object nor an archive of objects");
	}
	*object = o;
	return 0;
}

static bool
holds_fatbins(const struct img_object *o, uint32_t name)
{
	static const char *const names[] = { ".nv_fatbin", "__nv_relfatbin" };

	for (size_t i = 0; i < 2; i++) {
		size_t length = strlen(names[i]) + 1;
		if (name <= o->names.size && o->names.size - name >= length && memcmp(o->names.data + name, names[i], length) == 0)
			return true;
	}
	return false;
}

/* One fat binary of the section in hand, which holds them one behind the other, padded. */
static int
next_in_section(struct img_object *o, const void **fatbin, size_t *size, struct img_error *error)
{
	struct fw_cursor *c = &o->fatbins;

	while (c->at + 16 <= c->size) {
		if (img_recognise(c->data + c->at, c->size - c->at) != IMG_FATBIN) {
			c->at += 8;
			continue;
		}
		if (img_length(c->data + c->at, c->size - c->at, size, error))
			return -1;
		*fatbin = c->data + c->at;
		c->at += *size + 7;
		c->at -= (size_t)(c->data + c->at - o->object.data) % 8; /* the section begins at a multiple of 8 */
		return 1;
	}
	o->fatbins = (struct fw_cursor){ 0 };
	return 0;
}

int
img_object_next(struct img_object *o, const void **fatbin, size_t *size, struct img_error *error)
{
	for (;;) {
		int found = next_in_section(o, fatbin, size, error);
		if (found)
			return found;
		if (o->section_table && o->section < o->section_count) {
			uint32_t name;
			struct fw_cursor bytes = section_bytes(o, o->section++, &name);
			if (bytes.bad)
				return img_fail(error, "section %u of the object lies outside of it", o->section - 1);
			if (holds_fatbins(o, name))
				o->fatbins = bytes;
			continue;
		}
		if (!o->archive)
			return 0;
		int more = next_member(o, error);
		if (more <= 0)
			return more;
	}
}
