/*
 * Reads ELF files (System V ABI; GNU's symbol versions and hash table as in the Linux Standard Base). Tables are found the way the loader
 * finds them, through program headers and the dynamic section, and are in memory only while they are read.
 */
#include "elf/elf_file.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADERS 4096
#define MAX_DYNAMIC 65536
#define MAX_STRINGS_KEPT ((size_t)256 << 20)

/* What is needed while reading. */
struct reader {
	struct in_source *source;
	struct in_elf *elf;
	struct in_error *error;
	struct in_range loads[64]; /* in the file */
	uint64_t load_addresses[64];
	size_t load_count;
	uint64_t section_table;
	uint32_t section_count, section_names;
	struct in_range dynamic;
	uint64_t strtab, strsz, symtab, hash, gnu_hash, versym, verneed, verneed_count, verdef, verdef_count, symbol_count;
	struct fw_cursor strings; /* of the symbols */
	struct fw_cursor versions;
};

uint64_t
in_hash(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
	hash ^= hash >> 32;
	return hash ? hash : 1;
}

const char *
in_machine_name(uint16_t machine)
{
	switch (machine) {
	case IN_EM_X86_64: return "x86_64";
	case IN_EM_AARCH64: return "aarch64";
	case EM_386: return "i386";
	case EM_ARM: return "arm";
	case EM_PPC64: return "ppc64";
	case EM_RISCV: return "riscv";
	case EM_S390: return "s390";
	case 190: return "CUDA";
	default: return "another machine";
	}
}

bool
in_elf_recognise(struct in_source *source)
{
	char magic[4];

	return in_read(source, 0, magic, 4) && memcmp(magic, ELFMAG, 4) == 0;
}

/* Where an address lies in the file; 0 if in none of the loaded ranges, for nothing of use begins a file. */
static uint64_t
offset_of(const struct reader *r, uint64_t address, uint64_t *room)
{
	for (size_t n = 0; n < r->load_count; n++) {
		uint64_t within = address - r->load_addresses[n];
		if (address >= r->load_addresses[n] && within < r->loads[n].size) {
			*room = r->loads[n].size - within;
			return r->loads[n].at + within;
		}
	}
	return 0;
}

/* `size` bytes at an address, which may be cut to what is there when `whole` is false. */
static bool
load_address(const struct reader *r, uint64_t address, uint64_t size, bool whole, struct fw_cursor *copy)
{
	uint64_t room = 0, at = offset_of(r, address, &room);

	*copy = (struct fw_cursor){ 0 };
	if (!at || (whole && room < size))
		return false;
	return in_load(r->source, at, room < size ? room : size, copy);
}

static const char *
string_at(const struct fw_cursor *strings, uint64_t offset)
{
	if (offset >= strings->size || !memchr(strings->data + offset, 0, strings->size - (size_t)offset))
		return NULL;
	return (const char *)strings->data + offset;
}

static const char *
keep(struct reader *r, const char *text)
{
	size_t length = text ? strlen(text) : IN_MAX_SYMBOL_NAME;
	return length < IN_MAX_SYMBOL_NAME ? fw_arena_strndup(&r->elf->strings, text, length) : NULL;
}

/* ---- headers */

static bool
read_program_header(struct reader *r, struct fw_cursor *c)
{
	uint32_t type = fw_cursor_u32(c);
	fw_cursor_u32(c);
	uint64_t offset = fw_cursor_u64(c), address = fw_cursor_u64(c);
	fw_cursor_u64(c);
	uint64_t size = fw_cursor_u64(c);
	fw_cursor_u64(c);
	fw_cursor_u64(c);
	if (type == PT_LOAD || type == PT_DYNAMIC || type == PT_INTERP) {
		if (offset > r->source->size || size > r->source->size - offset)
			return in_fail(r->error, "the ELF file is cut short: a segment ends at byte %llu of %llu", (unsigned long long)(offset + size),
			               (unsigned long long)r->source->size);
	}
	if (type == PT_LOAD && r->load_count < 64) {
		r->load_addresses[r->load_count] = address;
		r->loads[r->load_count++] = (struct in_range){ offset, size };
	} else if (type == PT_DYNAMIC) {
		r->dynamic = (struct in_range){ offset, size };
	} else if (type == PT_INTERP) {
		char path[512];
		if (!size || size > sizeof(path) || !in_read(r->source, offset, path, (size_t)size) || path[size - 1])
			return in_fail(r->error, "the ELF file's interpreter is no path");
		r->elf->interpreter = keep(r, path);
		r->elf->program = true;
	}
	return true;
}

static bool
read_headers(struct reader *r)
{
	uint8_t header[64];
	struct fw_cursor table, c = fw_cursor(header, sizeof(header));

	if (!in_read(r->source, 0, header, sizeof(header)))
		return in_fail(r->error, "the ELF header is cut short");
	fw_cursor_seek(&c, 32);
	uint64_t phoff = fw_cursor_u64(&c);
	r->section_table = fw_cursor_u64(&c);
	fw_cursor_seek(&c, 54);
	uint32_t phentsize = fw_cursor_u16(&c), phnum = fw_cursor_u16(&c), shentsize = fw_cursor_u16(&c);
	r->section_count = fw_cursor_u16(&c);
	r->section_names = fw_cursor_u16(&c);
	if (phnum > MAX_HEADERS || (phnum && phentsize != 56))
		return in_fail(r->error, "the ELF file has %u program headers of %u bytes", phnum, phentsize);
	if (!in_load(r->source, phnum ? phoff : 0, 56 * (uint64_t)phnum, &table))
		return in_fail(r->error, "the ELF file is cut short: its program headers lie outside of it");
	bool fine = true;
	for (uint32_t n = 0; n < phnum && fine; n++)
		fine = read_program_header(r, &table);
	in_unload(&table);
	if (r->section_count && shentsize != 64)
		return in_fail(r->error, "the ELF file has section headers of %u bytes instead of 64", shentsize);
	if (fine && r->section_count && (r->section_table > r->source->size || r->source->size - r->section_table < 64 * (uint64_t)r->section_count))
		return in_fail(r->error, "the ELF file is cut short: its section headers lie outside of it");
	r->elf->program |= r->elf->type == ET_EXEC;
	return fine;
}

/* ---- sections: fat binaries, texts, build id, the number of symbols */

static void
note_section(struct reader *r, const char *name, uint32_t type, uint64_t flags, uint64_t address, struct in_range range)
{
	struct in_elf *elf = r->elf;
	bool relocatable = strcmp(name, "__nv_relfatbin") == 0;

	if (type == SHT_NOBITS || type == SHT_NULL)
		return;
	if ((relocatable || strcmp(name, ".nv_fatbin") == 0) && elf->fatbin_count < IN_MAX_FATBIN_SECTIONS) {
		elf->relocatable[elf->fatbin_count] = relocatable;
		elf->fatbins[elf->fatbin_count++] = range;
	} else if (type == SHT_DYNSYM && address == r->symtab && address) {
		r->symbol_count = range.size / 24;
	} else if (strcmp(name, ".note.gnu.build-id") == 0 && range.size >= 16 && range.size <= 16 + 20) {
		uint8_t id[20];
		size_t size = (size_t)range.size - 16;
		if (in_read(r->source, range.at + 16, id, size))
			for (size_t n = 0; n < size; n++)
				snprintf(elf->build_id + 2 * n, 3, "%02x", id[n]);
	} else if (type == SHT_PROGBITS && (flags & SHF_ALLOC) && !(flags & SHF_EXECINSTR) && strncmp(name, ".eh_frame", 9) != 0 &&
	           elf->data_count < IN_MAX_DATA_SECTIONS) {
		elf->constant[elf->data_count] = !(flags & SHF_WRITE);
		elf->data[elf->data_count++] = range;
	}
}

static bool
read_sections(struct reader *r)
{
	struct fw_cursor table, names = { 0 };

	if (!r->section_count)
		return true;
	if (!in_load(r->source, r->section_table, 64 * (uint64_t)r->section_count, &table))
		return in_fail(r->error, "the ELF file's section headers cannot be read");
	for (uint32_t pass = 0; pass < 2; pass++) {
		for (uint32_t n = 0; n < r->section_count; n++) {
			struct fw_cursor c = fw_cursor_sub(&table, 64 * (uint64_t)n, 64);
			uint32_t name = fw_cursor_u32(&c), type = fw_cursor_u32(&c);
			uint64_t flags = fw_cursor_u64(&c), address = fw_cursor_u64(&c);
			struct in_range range = { .at = fw_cursor_u64(&c) };
			range.size = fw_cursor_u64(&c);
			if (type != SHT_NOBITS && type != SHT_NULL && (range.at > r->source->size || range.size > r->source->size - range.at)) {
				in_unload(&names);
				in_unload(&table);
				return in_fail(r->error, "the ELF file is cut short: section %u ends at byte %llu of %llu", n,
				               (unsigned long long)(range.at + range.size), (unsigned long long)r->source->size);
			}
			const char *text = pass ? string_at(&names, name) : NULL;
			if (text)
				note_section(r, text, type, flags, address, range);
			else if (!pass && n == r->section_names && type == SHT_STRTAB)
				in_load(r->source, range.at, range.size, &names);
		}
	}
	in_unload(&names);
	in_unload(&table);
	return true;
}

/* ---- the dynamic section */

/* First the addresses, since a name can stand before the table it is in. */
static void
note_dynamic(struct reader *r, uint64_t tag, uint64_t value)
{
	switch (tag) {
	case DT_STRTAB: r->strtab = value; break;
	case DT_STRSZ: r->strsz = value; break;
	case DT_SYMTAB: r->symtab = value; break;
	case DT_HASH: r->hash = value; break;
	case DT_GNU_HASH: r->gnu_hash = value; break;
	case DT_VERSYM: r->versym = value; break;
	case DT_VERNEED: r->verneed = value; break;
	case DT_VERNEEDNUM: r->verneed_count = value; break;
	case DT_VERDEF: r->verdef = value; break;
	case DT_VERDEFNUM: r->verdef_count = value; break;
	case DT_BIND_NOW: r->elf->bind_now = true; break;
	case DT_FLAGS: r->elf->bind_now |= (value & DF_BIND_NOW) != 0; break;
	case DT_FLAGS_1:
		r->elf->bind_now |= (value & DF_1_NOW) != 0;
		r->elf->no_default_folders = (value & DF_1_NODEFLIB) != 0;
		r->elf->program |= (value & DF_1_PIE) != 0;
		break;
	default: break;
	}
}

static bool
note_name(struct reader *r, uint64_t tag, uint64_t value)
{
	struct in_elf *elf = r->elf;

	if (tag != DT_NEEDED && tag != DT_SONAME && tag != DT_RPATH && tag != DT_RUNPATH)
		return true;
	const char *text = keep(r, string_at(&r->strings, value));
	if (!text)
		return in_fail(r->error, "a name in the ELF file's dynamic section lies outside of its strings");
	if (tag == DT_SONAME)
		elf->soname = text;
	else if (tag == DT_RPATH)
		elf->rpath = text;
	else if (tag == DT_RUNPATH)
		elf->runpath = text;
	else if (elf->needed_count == IN_MAX_NEEDED)
		return in_fail(r->error, "the ELF file needs more than %d libraries", IN_MAX_NEEDED);
	else
		elf->needed[elf->needed_count++] = text;
	return true;
}

static bool
read_dynamic(struct reader *r)
{
	struct fw_cursor table;
	size_t count, needed = 0;
	bool fine = true;

	if (!r->dynamic.size)
		return true;
	if (r->dynamic.size > 16 * MAX_DYNAMIC || !in_load(r->source, r->dynamic.at, r->dynamic.size, &table))
		return in_fail(r->error, "the ELF file's dynamic section has %llu bytes", (unsigned long long)r->dynamic.size);
	r->elf->dynamic = true;
	for (count = 0; count < table.size / 16; count++) {
		uint64_t tag = fw_cursor_u64(&table), value = fw_cursor_u64(&table);
		if (tag == DT_NULL)
			break;
		needed += tag == DT_NEEDED;
		note_dynamic(r, tag, value);
	}
	r->elf->needed = fw_arena_alloc(&r->elf->strings, (needed + 1) * sizeof(const char *));
	if (r->strsz && !load_address(r, r->strtab, r->strsz, true, &r->strings))
		fine = in_fail(r->error, "the ELF file's dynamic strings lie outside of it");
	if (!r->elf->needed)
		fine = in_fail(r->error, "out of memory");
	fw_cursor_seek(&table, 0);
	for (size_t n = 0; n < count && fine; n++) {
		uint64_t tag = fw_cursor_u64(&table), value = fw_cursor_u64(&table);
		fine = note_name(r, tag, value);
	}
	in_unload(&table);
	return fine;
}

/* ---- versions */

/* The table is a list in a list, linked by offsets that only go forward: 16 bytes a library, 16 a version. */
static bool
read_needs(struct reader *r)
{
	struct in_elf *elf = r->elf;
	struct fw_cursor table;

	if (!r->verneed || !r->verneed_count)
		return true;
	if (!load_address(r, r->verneed, IN_MAX_VERSIONS * 32, false, &table))
		return in_fail(r->error, "the ELF file's needed versions lie outside of it");
	elf->needs = fw_arena_alloc(&elf->strings, IN_MAX_VERSIONS * sizeof(*elf->needs));
	uint64_t at = 0, count = r->verneed_count;
	bool fine = elf->needs != NULL;
	while (fine && count--) {
		struct fw_cursor c = table;
		fw_cursor_seek(&c, at);
		fw_cursor_u16(&c);
		uint32_t versions = fw_cursor_u16(&c), name = fw_cursor_u32(&c), first = fw_cursor_u32(&c), next = fw_cursor_u32(&c);
		const char *file = keep(r, string_at(&r->strings, name));
		uint64_t version_at = at + first;
		for (fine = !c.bad && file; fine && versions--;) {
			c = table;
			fw_cursor_seek(&c, version_at);
			fw_cursor_u32(&c); /* hash */
			uint32_t flags = fw_cursor_u16(&c), index = fw_cursor_u16(&c);
			const char *text = keep(r, string_at(&r->strings, fw_cursor_u32(&c)));
			uint32_t step = fw_cursor_u32(&c);
			fine = !c.bad && text && elf->need_count < IN_MAX_VERSIONS;
			if (fine)
				elf->needs[elf->need_count++] = (struct in_version){ .file = file, .name = text, .index = index & 0x7fff,
				                                                     .weak = (flags & VER_FLG_WEAK) != 0 };
			if (!step)
				break;
			version_at += step;
		}
		if (!next)
			break;
		at += next;
	}
	in_unload(&table);
	return fine || in_fail(r->error, "the ELF file's needed versions are damaged");
}

static bool
read_defines(struct reader *r)
{
	struct in_elf *elf = r->elf;
	struct fw_cursor table;

	if (!r->verdef || !r->verdef_count)
		return true;
	if (!load_address(r, r->verdef, IN_MAX_VERSIONS * 40, false, &table))
		return in_fail(r->error, "the ELF file's versions lie outside of it");
	elf->defines = fw_arena_alloc(&elf->strings, IN_MAX_VERSIONS * sizeof(*elf->defines));
	uint64_t at = 0, count = r->verdef_count;
	bool fine = elf->defines != NULL;
	while (fine && count--) {
		struct fw_cursor c = table;
		fw_cursor_seek(&c, at);
		fw_cursor_u16(&c);
		uint32_t flags = fw_cursor_u16(&c), index = fw_cursor_u16(&c);
		fw_cursor_u16(&c);
		fw_cursor_u32(&c); /* hash */
		uint32_t first = fw_cursor_u32(&c), next = fw_cursor_u32(&c);
		fw_cursor_seek(&c, at + first);
		const char *text = keep(r, string_at(&r->strings, fw_cursor_u32(&c)));
		fine = !c.bad && text && elf->define_count < IN_MAX_VERSIONS;
		if (fine && !(flags & VER_FLG_BASE))
			elf->defines[elf->define_count++] = (struct in_version){ .name = text, .index = index & 0x7fff };
		if (!next)
			break;
		at += next;
	}
	in_unload(&table);
	return fine || in_fail(r->error, "the ELF file's versions are damaged");
}

/* ---- symbols */

/* The loader knows no number of symbols; it follows from the hash tables, or from where the strings begin. */
static void
count_symbols(struct reader *r)
{
	struct fw_cursor c;
	uint64_t room, at;

	if (r->symbol_count)
		return;
	if (r->hash && load_address(r, r->hash, 8, true, &c)) {
		fw_cursor_u32(&c);
		r->symbol_count = fw_cursor_u32(&c);
		in_unload(&c);
	} else if (r->gnu_hash && load_address(r, r->gnu_hash, 16, true, &c)) {
		uint32_t buckets = fw_cursor_u32(&c), first = fw_cursor_u32(&c), bloom = fw_cursor_u32(&c), last = 0, link;
		uint64_t table = r->gnu_hash + 16 + 8 * (uint64_t)bloom;
		in_unload(&c);
		if (buckets > IN_MAX_SYMBOLS || !load_address(r, table, 4 * (uint64_t)buckets, true, &c))
			return;
		for (uint32_t n = 0; n < buckets; n++) {
			uint32_t index = fw_cursor_u32(&c);
			last = index > last ? index : last;
		}
		in_unload(&c);
		at = last >= first ? offset_of(r, table + 4 * (uint64_t)buckets + 4 * (uint64_t)(last - first), &room) : 0;
		for (; at && last < IN_MAX_SYMBOLS && in_read(r->source, at, &link, 4); at += 4, last++)
			if (link & 1)
				break;
		r->symbol_count = last ? last + 1 : 0;
	}
	/* A table without exports says nothing of the symbols that are needed. */
	if (r->symbol_count <= 1 && r->strtab > r->symtab)
		r->symbol_count = (r->strtab - r->symtab) / 24;
}

static void
add_export(struct in_elf *elf, uint64_t hash, uint16_t version)
{
	size_t place = hash & (elf->export_places - 1);

	while (elf->exports[place].hash)
		place = (place + 1) & (elf->export_places - 1);
	elf->exports[place] = (struct in_export){ .hash = hash, .version = version & 0x7fff, .hidden = version >> 15 };
	elf->export_count++;
}

static const struct in_version *
need_of(const struct in_elf *elf, uint32_t index)
{
	for (size_t n = 0; n < elf->need_count; n++)
		if (elf->needs[n].index == index)
			return &elf->needs[n];
	return NULL;
}

/* Both std::string types show in mangled names: "Ss" or "Sa" stand alone for the old ones, the new ones live in std::__cxx11. */
static void
note_string_abi(struct in_elf *elf, const char *name)
{
	if (name[0] != '_' || name[1] != 'Z')
		return;
	if (strstr(name, "__cxx11"))
		elf->new_strings = true;
	else if (strstr(name, "RKSs") || strncmp(name, "_ZNSs", 5) == 0 || strncmp(name, "_ZNKSs", 6) == 0)
		elf->old_strings = true;
}

/* Symbol types that a lookup can find: none of them sections or files. */
static bool
found_by_lookup(unsigned type, unsigned binding, unsigned visibility)
{
	return (type <= STT_FUNC || type == STT_COMMON || type == STT_TLS || type == STT_GNU_IFUNC) && binding != STB_LOCAL &&
	       (visibility == STV_DEFAULT || visibility == STV_PROTECTED);
}

static bool
read_symbol(struct reader *r, struct fw_cursor *c, bool counting, size_t *undefined, size_t *defined)
{
	struct in_elf *elf = r->elf;
	uint32_t name_at = fw_cursor_u32(c);
	unsigned info = fw_cursor_u8(c), other = fw_cursor_u8(c), section = fw_cursor_u16(c);
	uint64_t value = fw_cursor_u64(c);
	fw_cursor_u64(c);
	uint16_t version = r->versions.size ? fw_cursor_u16(&r->versions) : 1;

	if (!name_at || c->bad)
		return !c->bad;
	const char *name = string_at(&r->strings, name_at);
	if (!name)
		return false;
	if (section == SHN_UNDEF) {
		++*undefined;
		if (counting || info >> 4 == STB_LOCAL)
			return true;
		struct in_symbol *s = &elf->undefined[elf->undefined_count];
		*s = (struct in_symbol){ .name = keep(r, name), .version = need_of(elf, version & 0x7fff), .hash = in_hash(name),
		                         .weak = info >> 4 == STB_WEAK, .function = (info & 15) == STT_FUNC };
		elf->undefined_count += s->name != NULL;
		if (!s->name)
			return false;
	} else if (found_by_lookup(info & 15, info >> 4, other & 3) && (value || (info & 15) == STT_TLS || section == SHN_ABS)) {
		++*defined;
		if (!counting)
			add_export(elf, in_hash(name), version);
	}
	if (!counting)
		note_string_abi(elf, name);
	return true;
}

/* Twice: to count, and to keep. */
static bool
read_symbols(struct reader *r)
{
	struct in_elf *elf = r->elf;
	struct fw_cursor table;
	bool fine = true;
	size_t undefined, defined;

	count_symbols(r);
	if (!r->symtab || r->symbol_count <= 1)
		return true;
	if (r->symbol_count > IN_MAX_SYMBOLS)
		return in_fail(r->error, "the ELF file has %llu symbols", (unsigned long long)r->symbol_count);
	if (!load_address(r, r->symtab, 24 * r->symbol_count, true, &table))
		return in_fail(r->error, "the ELF file's symbols lie outside of it");
	if (r->versym) {
		fine = load_address(r, r->versym, 2 * r->symbol_count, true, &r->versions);
		elf->versioned = fine;
	}
	for (int counting = 1; counting >= 0 && fine; counting--) {
		fw_cursor_seek(&table, 24);
		fw_cursor_seek(&r->versions, r->versions.size ? 2 : 0);
		undefined = defined = 0;
		for (uint64_t n = 1; n < r->symbol_count && fine; n++)
			fine = read_symbol(r, &table, counting, &undefined, &defined);
		if (!fine || !counting)
			break;
		elf->export_places = 16;
		while (elf->export_places < 2 * defined)
			elf->export_places *= 2;
		elf->exports = calloc(elf->export_places, sizeof(*elf->exports));
		elf->undefined = fw_arena_alloc(&elf->strings, (undefined + 1) * sizeof(*elf->undefined));
		fine = elf->exports && elf->undefined;
	}
	in_unload(&r->versions);
	in_unload(&table);
	return fine || in_fail(r->error, "the ELF file's symbols are damaged");
}

bool
in_elf_read(struct in_elf *elf, struct in_source *source, struct in_error *error)
{
	struct reader r = { .source = source, .elf = elf, .error = error };
	uint8_t ident[20];

	*elf = (struct in_elf){ .strings.cap = MAX_STRINGS_KEPT };
	if (!in_elf_recognise(source))
		return in_fail(error, "not an ELF file");
	if (!in_read(source, 0, ident, sizeof(ident)))
		return in_fail(error, "the ELF header is cut short");
	elf->bits = ident[EI_CLASS] == ELFCLASS64 ? 64 : ident[EI_CLASS] == ELFCLASS32 ? 32 : 0;
	elf->order = ident[EI_DATA];
	bool big = elf->order == ELFDATA2MSB;
	elf->type = (uint16_t)(big ? ident[16] << 8 | ident[17] : ident[17] << 8 | ident[16]);
	elf->machine = (uint16_t)(big ? ident[18] << 8 | ident[19] : ident[19] << 8 | ident[18]);
	if (elf->bits != 64 || elf->order != ELFDATA2LSB)
		return elf->bits && elf->order && elf->order <= 2 ? true : in_fail(error, "the ELF header makes no sense");
	bool fine = read_headers(&r) && read_dynamic(&r) && read_sections(&r) && read_needs(&r) && read_defines(&r) && read_symbols(&r);
	in_unload(&r.strings);
	elf->readable = fine;
	if (!fine)
		in_elf_free(elf);
	return fine;
}

bool
in_elf_exports(const struct in_elf *elf, const char *name)
{
	uint64_t hash = in_hash(name);

	for (size_t place = hash & (elf->export_places - 1); elf->export_places && elf->exports[place].hash; place = (place + 1) & (elf->export_places - 1))
		if (elf->exports[place].hash == hash)
			return true;
	return false;
}

void
in_elf_free(struct in_elf *elf)
{
	free(elf->exports);
	fw_arena_free(&elf->strings);
	*elf = (struct in_elf){ 0 };
}
