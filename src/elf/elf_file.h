/*
 * ELF files for the host, as the loader (ld.so) sees them: what they need, what they export, where they look. Sections are read only for
 * what the loader does not need: fat binaries and texts. Nothing is loaded, mapped or executed.
 */
#ifndef IN_ELF_H
#define IN_ELF_H

#include "base/arena.h"
#include "elf/source.h"

#define IN_MAX_NEEDED 4096
#define IN_MAX_VERSIONS 1024        /* needed or defined */
#define IN_MAX_SYMBOL_NAME 65536
#define IN_MAX_SYMBOLS (8u << 20)
#define IN_MAX_SECTIONS 65536
#define IN_MAX_FATBIN_SECTIONS 16
#define IN_MAX_DATA_SECTIONS 64

#define IN_EM_X86_64 62
#define IN_EM_AARCH64 183

struct in_version {
	const char *file;  /* needed: of which library; NULL for one that is defined here */
	const char *name;  /* "GLIBC_2.34" */
	uint32_t index;    /* in the symbols' versions */
	bool weak;         /* may be missing */
};

struct in_symbol {
	const char *name;
	const struct in_version *version; /* NULL: any */
	uint64_t hash;
	bool weak, function;
};

/* A symbol that others may find here. The name is kept as in_hash(name). */
struct in_export {
	uint64_t hash;    /* 0: a free place of the table */
	uint16_t version; /* as the file says: 0 and 1 mean none */
	bool hidden;      /* only for who asks for this version */
};

struct in_range {
	uint64_t at, size;
};

struct in_elf {
	uint8_t bits, order;      /* 64 or 32; 1 little-endian */
	uint16_t type, machine;
	bool readable;            /* 64-bit little-endian: all that follows was read */
	bool program;             /* has an entry in the table of the kernel: an interpreter, or ET_EXEC */
	bool dynamic;
	bool bind_now, no_default_folders, versioned; /* versioned: symbols carry versions */
	const char *interpreter, *soname, *rpath, *runpath; /* NULL: none */
	const char **needed;
	size_t needed_count;
	struct in_version *needs, *defines;
	size_t need_count, define_count;
	struct in_symbol *undefined;
	size_t undefined_count;
	struct in_export *exports; /* a hash table */
	size_t export_places;      /* a power of two */
	size_t export_count;
	bool new_strings, old_strings; /* symbols name C++11's std::string, or the one before it */
	struct in_range fatbins[IN_MAX_FATBIN_SECTIONS];
	bool relocatable[IN_MAX_FATBIN_SECTIONS];
	size_t fatbin_count;
	struct in_range data[IN_MAX_DATA_SECTIONS]; /* other sections with data: texts, and fat binaries that a library loads by itself */
	bool constant[IN_MAX_DATA_SECTIONS];        /* .rodata and the like */
	size_t data_count;
	char build_id[48];
	struct fw_arena strings;   /* owns all of the above */
};

uint64_t in_hash(const char *name);

/* True if the bytes begin as an ELF file does. */
bool in_elf_recognise(struct in_source *source);
/* A file that is no ELF file or is damaged: false with *error. One of another kind (32-bit, ...) is read as far as `readable` says. */
bool in_elf_read(struct in_elf *elf, struct in_source *source, struct in_error *error);
void in_elf_free(struct in_elf *elf);

/* True if others may find a symbol of this name here, in any version. */
bool in_elf_exports(const struct in_elf *elf, const char *name);

const char *in_machine_name(uint16_t machine);

#endif
