/*
 * Reads an archive's directory (PKWARE's APPNOTE: end record, its 64-bit form, central directory, local headers). The directory is believed
 * only where the local headers say the same. Names are UTF-8 or ASCII; nothing is written anywhere.
 */
#include "inspect/zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define END_SIZE 22
#define END_MAGIC 0x06054b50u
#define LOCATOR_SIZE 20
#define LOCATOR_MAGIC 0x07064b50u
#define END64_SIZE 56
#define END64_MAGIC 0x06064b50u
#define ENTRY_MAGIC 0x02014b50u
#define LOCAL_SIZE 30
#define LOCAL_MAGIC 0x04034b50u
#define EXTRA_64 1
#define METHOD_STORED 0
#define METHOD_DEFLATE 8
#define FLAG_ENCRYPTED 0x2041 /* encrypted, strongly, or with a masked directory */

struct directory {
	uint64_t count, size, at; /* members; bytes; where it begins */
	uint64_t end;             /* what lies behind it begins here */
};

static bool
read_end64(struct in_source *file, uint64_t end, struct directory *d, struct in_error *error)
{
	struct fw_cursor c;
	uint8_t bytes[END64_SIZE];

	if (end < LOCATOR_SIZE || !in_read(file, end - LOCATOR_SIZE, bytes, LOCATOR_SIZE))
		return in_fail(error, "the archive's 64-bit end record is missing");
	c = fw_cursor(bytes, LOCATOR_SIZE);
	uint32_t magic = fw_cursor_u32(&c);
	fw_cursor_u32(&c);
	uint64_t at = fw_cursor_u64(&c);
	if (magic != LOCATOR_MAGIC || end - LOCATOR_SIZE < END64_SIZE || at > end - LOCATOR_SIZE - END64_SIZE ||
	    !in_read(file, at, bytes, END64_SIZE))
		return in_fail(error, "the archive's 64-bit end record is missing");
	c = fw_cursor(bytes, END64_SIZE);
	if (fw_cursor_u32(&c) != END64_MAGIC)
		return in_fail(error, "the archive's 64-bit end record is damaged");
	fw_cursor_seek(&c, 24);
	uint64_t here = fw_cursor_u64(&c);
	d->count = fw_cursor_u64(&c);
	d->size = fw_cursor_u64(&c);
	d->at = fw_cursor_u64(&c);
	d->end = at;
	if (here != d->count)
		return in_fail(error, "the archive is one of several parts");
	return true;
}

/* The end record is the last thing in the file but for its comment, which fills the rest exactly. */
static bool
find_directory(struct in_source *file, struct directory *d, struct in_error *error)
{
	uint64_t tail = file->size < END_SIZE + 65535 ? file->size : END_SIZE + 65535;
	struct fw_cursor bytes;

	if (file->size < END_SIZE || !in_load(file, file->size - tail, tail, &bytes))
		return in_fail(error, "too short for an archive (%llu bytes)", (unsigned long long)file->size);
	for (size_t from_end = END_SIZE; from_end <= bytes.size; from_end++) {
		struct fw_cursor c = fw_cursor_sub(&bytes, bytes.size - from_end, from_end);
		if (fw_cursor_u32(&c) != END_MAGIC)
			continue;
		uint32_t disk = fw_cursor_u16(&c), start = fw_cursor_u16(&c), here = fw_cursor_u16(&c);
		*d = (struct directory){ .count = fw_cursor_u16(&c), .end = file->size - from_end };
		d->size = fw_cursor_u32(&c);
		d->at = fw_cursor_u32(&c);
		if (fw_cursor_u16(&c) != from_end - END_SIZE)
			continue;
		in_unload(&bytes);
		if (d->count == 0xffff || d->size == UINT32_MAX || d->at == UINT32_MAX)
			return read_end64(file, file->size - from_end, d, error);
		if (disk || start || here != d->count)
			return in_fail(error, "the archive is one of several parts");
		return true;
	}
	in_unload(&bytes);
	return in_fail(error, "not an archive, or cut short: it has no end record");
}

/* Sizes and offset that did not fit into 32 bits, in the order in which they are missing. */
static bool
read_extra(struct fw_cursor *extra, struct in_member *m)
{
	bool size = m->size == UINT32_MAX, packed = m->packed == UINT32_MAX, header = m->header == UINT32_MAX;

	while (extra->at < extra->size) {
		uint32_t id = fw_cursor_u16(extra), length = fw_cursor_u16(extra);
		struct fw_cursor field = fw_cursor_sub(extra, extra->at, length);
		fw_cursor_bytes(extra, length);
		if (extra->bad)
			return !(size || packed || header); /* padding of some writers, harmless where nothing is needed of it */
		if (id != EXTRA_64)
			continue;
		if (size)
			m->size = fw_cursor_u64(&field);
		if (packed)
			m->packed = fw_cursor_u64(&field);
		if (header)
			m->header = fw_cursor_u64(&field);
		return !field.bad;
	}
	return !(size || packed || header);
}

/* NULL, or why a name is not one of a file below the folder of installation. */
static const char *
bad_name(const char *name, size_t length)
{
	if (!length)
		return "is empty";
	if (length > IN_MAX_NAME)
		return "is too long";
	if (memchr(name, 0, length))
		return "has a NUL in it";
	if (memchr(name, '\\', length))
		return "has a backslash in it";
	if (name[0] == '/' || (length > 1 && name[1] == ':'))
		return "is absolute";
	for (const char *part = name, *end = name + length; part < end;) {
		const char *next = memchr(part, '/', (size_t)(end - part));
		size_t size = (size_t)((next ? next : end) - part);
		if (size == 2 && part[0] == '.' && part[1] == '.')
			return "leads out of the folder of installation";
		part = next ? next + 1 : end;
	}
	return NULL;
}

/* A name for messages: nothing that a terminal would obey. */
static const char *
shown(const char *name, size_t length, char *text, size_t size)
{
	size_t n = 0;

	for (; n < length && n + 1 < size; n++)
		text[n] = name[n] < ' ' || name[n] == 0x7f ? '?' : name[n];
	text[n] = 0;
	return text;
}

static bool
read_entry(struct in_zip *zip, struct fw_cursor *c, const struct directory *d, struct in_member *m, struct in_error *error)
{
	char text[80];

	if (fw_cursor_u32(c) != ENTRY_MAGIC)
		return in_fail(error, "the archive's directory is damaged at entry %zu", zip->count);
	fw_cursor_u32(c); /* versions */
	uint32_t flags = fw_cursor_u16(c);
	m->method = fw_cursor_u16(c);
	fw_cursor_u32(c); /* time */
	m->crc = fw_cursor_u32(c);
	m->packed = fw_cursor_u32(c);
	m->size = fw_cursor_u32(c);
	size_t name_size = fw_cursor_u16(c), extra_size = fw_cursor_u16(c), comment_size = fw_cursor_u16(c);
	fw_cursor_u64(c); /* disk, attributes */
	m->header = fw_cursor_u32(c);
	const char *name = fw_cursor_bytes(c, name_size);
	struct fw_cursor extra = fw_cursor_sub(c, c->at, extra_size);
	fw_cursor_bytes(c, extra_size);
	fw_cursor_bytes(c, comment_size);
	if (c->bad || !name)
		return in_fail(error, "the archive's directory is cut short at entry %zu", zip->count);
	const char *why = bad_name(name, name_size);
	shown(name, name_size, text, sizeof(text));
	if (why)
		return in_fail(error, "the name of a member %s: \"%s\"", why, text);
	if (!read_extra(&extra, m))
		return in_fail(error, "%s: its 64-bit sizes are missing", text);
	if (flags & FLAG_ENCRYPTED)
		return in_fail(error, "%s is encrypted", text);
	if (m->method != METHOD_STORED && m->method != METHOD_DEFLATE)
		return in_fail(error, "%s is compressed by method %u; wheels are stored or deflated", text, m->method);
	if (m->method == METHOD_STORED && m->packed != m->size)
		return in_fail(error, "%s is stored, yet has %llu bytes packed and %llu unpacked", text, (unsigned long long)m->packed,
		               (unsigned long long)m->size);
	if (m->size > IN_MAX_FILE || m->size / (m->size > IN_FREE_SIZE ? IN_MAX_RATIO_LARGE : IN_MAX_RATIO) > m->packed)
		return in_fail(error, "%s claims to become %llu bytes from %llu: an archive bomb", text, (unsigned long long)m->size,
		               (unsigned long long)m->packed);
	if (m->header >= d->at || d->at - m->header < LOCAL_SIZE || m->packed > d->at - m->header - LOCAL_SIZE)
		return in_fail(error, "%s claims bytes outside of the archive", text);
	m->folder = name[name_size - 1] == '/';
	m->name = fw_arena_strndup(&zip->names, name, name_size);
	return m->name || in_fail(error, "out of memory");
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct in_member *)a)->name, ((const struct in_member *)b)->name);
}

static int
by_place(const void *a, const void *b)
{
	const struct in_member *x = *(const struct in_member *const *)a, *y = *(const struct in_member *const *)b;

	return x->header < y->header ? -1 : x->header > y->header;
}

/* The local header says what the directory says; where the data begin. */
static bool
read_local(struct in_zip *zip, struct in_member *m, struct in_error *error)
{
	uint8_t bytes[LOCAL_SIZE];
	char name[IN_MAX_NAME + 1], text[80];

	shown(m->name, strlen(m->name), text, sizeof(text));
	if (!in_read(zip->file, m->header, bytes, sizeof(bytes)))
		return in_fail(error, "%s: its header cannot be read", text);
	struct fw_cursor c = fw_cursor(bytes, sizeof(bytes));
	uint32_t magic = fw_cursor_u32(&c);
	fw_cursor_seek(&c, 8);
	uint32_t method = fw_cursor_u16(&c);
	fw_cursor_seek(&c, 26);
	size_t name_size = fw_cursor_u16(&c), extra_size = fw_cursor_u16(&c);
	if (magic != LOCAL_MAGIC || method != m->method || name_size != strlen(m->name) || name_size > IN_MAX_NAME ||
	    !in_read(zip->file, m->header + LOCAL_SIZE, name, name_size) || memcmp(name, m->name, name_size) != 0)
		return in_fail(error, "%s: its header and the archive's directory do not say the same", text);
	m->data = m->header + LOCAL_SIZE + name_size + extra_size;
	return true;
}

/* Members one behind the other, none within another's bytes. */
static bool
check_places(struct in_zip *zip, const struct directory *d, struct in_error *error)
{
	struct in_member **order = calloc(zip->count + 1, sizeof(struct in_member *));
	bool fine = order != NULL;

	if (!order)
		return in_fail(error, "out of memory");
	for (size_t n = 0; n < zip->count; n++)
		order[n] = &zip->members[n];
	qsort(order, zip->count, sizeof(struct in_member *), by_place);
	for (size_t n = 0; n < zip->count && fine; n++) {
		fine = read_local(zip, order[n], error);
		uint64_t limit = n + 1 < zip->count ? order[n + 1]->header : d->at;
		if (fine && (order[n]->data > limit || order[n]->packed > limit - order[n]->data))
			fine = in_fail(error, "members share bytes: %.100s and what follows it", order[n]->name);
	}
	free(order);
	return fine;
}

static bool
read_directory(struct in_zip *zip, const struct directory *d, struct in_error *error)
{
	struct fw_cursor bytes;
	uint64_t total = 0;
	bool fine = true;

	if (!in_load(zip->file, d->at, d->size, &bytes))
		return in_fail(error, "the archive's directory cannot be read");
	zip->members = calloc((size_t)d->count + 1, sizeof(*zip->members));
	if (!zip->members)
		fine = in_fail(error, "out of memory");
	while (fine && zip->count < d->count) {
		struct in_member *m = &zip->members[zip->count];
		fine = read_entry(zip, &bytes, d, m, error);
		total += m->size;
		if (fine && total > IN_MAX_UNPACKED)
			fine = in_fail(error, "the archive claims to become more than %llu bytes", (unsigned long long)IN_MAX_UNPACKED);
		zip->count += fine;
	}
	if (fine && bytes.at != bytes.size)
		fine = in_fail(error, "the archive's directory holds more than its %llu entries", (unsigned long long)d->count);
	in_unload(&bytes);
	return fine;
}

bool
in_zip_open(struct in_zip *zip, struct in_source *file, struct in_error *error)
{
	struct directory d = { 0 };

	*zip = (struct in_zip){ .file = file, .names.cap = (size_t)IN_MAX_DIRECTORY * 2 };
	if (!find_directory(file, &d, error))
		return false;
	if (d.count > IN_MAX_MEMBERS || d.size > IN_MAX_DIRECTORY)
		return in_fail(error, "the archive claims %llu members in a directory of %llu bytes", (unsigned long long)d.count,
		               (unsigned long long)d.size);
	if (d.at > d.end || d.size != d.end - d.at)
		return in_fail(error, "the archive's end record does not fit its directory");
	bool fine = read_directory(zip, &d, error) && check_places(zip, &d, error);
	if (fine)
		qsort(zip->members, zip->count, sizeof(*zip->members), by_name);
	for (size_t n = 1; fine && n < zip->count; n++)
		if (strcmp(zip->members[n - 1].name, zip->members[n].name) == 0)
			fine = in_fail(error, "the archive has two members named %.100s", zip->members[n].name);
	if (!fine)
		in_zip_close(zip);
	return fine;
}

void
in_zip_close(struct in_zip *zip)
{
	free(zip->members);
	fw_arena_free(&zip->names);
	*zip = (struct in_zip){ 0 };
}

const struct in_member *
in_zip_find(const struct in_zip *zip, const char *name)
{
	const struct in_member key = { .name = name };

	return zip->count ? bsearch(&key, zip->members, zip->count, sizeof(key), by_name) : NULL;
}

bool
in_zip_source(const struct in_zip *zip, const struct in_member *m, struct in_source *source, struct in_error *error)
{
	if (m->method == METHOD_DEFLATE)
		return in_source_deflate(source, zip->file, m->data, m->packed, m->size, m->crc, error);
	*source = in_source_range(zip->file, m->data, m->size);
	return true;
}

bool
in_zip_load(const struct in_zip *zip, const struct in_member *m, uint64_t cap, struct fw_cursor *copy, struct in_error *error)
{
	struct in_source source;

	*copy = (struct fw_cursor){ 0 };
	if (m->size > cap)
		return in_fail(error, "%.100s has %llu bytes, more than %llu are not read", m->name, (unsigned long long)m->size,
		               (unsigned long long)cap);
	if (!in_zip_source(zip, m, &source, error))
		return false;
	bool fine = in_load(&source, 0, m->size, copy);
	in_source_close(&source);
	if (!fine)
		return in_fail(error, "%.100s cannot be read", m->name);
	if (m->method == METHOD_STORED && in_crc32(0, copy->data, copy->size) != m->crc) {
		in_unload(copy);
		return in_fail(error, "%.100s does not have the checksum that the archive says", m->name);
	}
	return true;
}
