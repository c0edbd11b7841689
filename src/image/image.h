/*
 * Readers of what CUDA programs hand to a driver: fat binaries and their wrappers, cubin ELF files, PTX text.
 *
 * A program passes a pointer without a length, so the length is computed from the image; a file comes with its size, which then
 * bounds everything. All bytes are read through fw_cursor; every offset, length and count in a header is checked against the size
 * that is known or announced, and against the caps below. Only the pointers inside a wrapper are trusted: they point into the
 * program itself.
 *
 * Not here: parsing PTX (soft/ptx), running anything, wheels and other archives.
 */
#ifndef IMG_IMAGE_H
#define IMG_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cursor.h"

#define IMG_SIZE_UNKNOWN ((size_t)-1)

/* Caps. What exceeds one is no image of this world. */
#define IMG_MAX_IMAGE ((uint64_t)1 << 36)   /* a fat binary or an ELF file */
#define IMG_MAX_TEXT ((uint64_t)1 << 30)    /* PTX text, and any decompressed entry */
#define IMG_MAX_RATIO 4096                  /* decompressed to compressed, above IMG_RATIO_FREE */
#define IMG_RATIO_FREE ((uint64_t)16 << 20)
#define IMG_MAX_ENTRIES 65536               /* of a fat binary */
#define IMG_MAX_RELOCATABLE 65536           /* fat binaries behind one wrapper */

struct img_error {
	char text[240];
};

/* ---- what is it, and how long (recognise.c) */

enum img_kind {
	IMG_UNKNOWN,
	IMG_WRAPPER, /* 466243B1: holds pointers, only in memory */
	IMG_FATBIN,  /* BA55ED50 */
	IMG_ELF,     /* a cubin, or a linked image of our own (linked.c) */
	IMG_PTX,
};

/* Looks at no more bytes than it needs, and at none past a NUL that ends a text. */
enum img_kind img_recognise(const void *image, size_t size);

/* The image's own length in bytes (text: without the NUL), at most `size`. 0, or -1 with *error. Not for wrappers. */
int img_length(const void *image, size_t size, size_t *length, struct img_error *error);

struct img_wrapper {
	uint32_t version;          /* 1, or 2: relocatable device code */
	const void *fatbin;        /* v2: the one that nvlink finished */
	const void *const *parts;  /* v2: the relocatable fat binaries that it was made from */
	size_t part_count;
};
int img_wrapper_read(const void *image, struct img_wrapper *wrapper, struct img_error *error);

/* ---- fat binary (fatbin.c) */

enum img_entry_kind { IMG_ENTRY_PTX = 1, IMG_ENTRY_ELF = 2, IMG_ENTRY_NVVM = 8 }; /* others exist and are passed through */
enum img_compression { IMG_RAW, IMG_LZ4, IMG_ZSTD };

#define IMG_FLAG_64BIT 0x1u
#define IMG_FLAG_DEBUG 0x2u
#define IMG_FLAG_LZ4 0x2000u
#define IMG_FLAG_ZSTD 0x8000u
#define IMG_FLAG_ARCH 0x100000u   /* sm_90a */
#define IMG_FLAG_FAMILY 0x200000u /* sm_100f */

struct img_entry {
	uint32_t kind;            /* enum img_entry_kind or another number */
	uint32_t arch;            /* 86 */
	char suffix;              /* 'a', 'f' or 0 */
	uint32_t version;         /* of the format, 10 * major + minor: PTX ISA 9.0 is 90 */
	uint64_t flags;
	enum img_compression compression;
	const uint8_t *payload;   /* in the image */
	size_t payload_size;      /* compressed, without the padding when that is known */
	uint64_t size;            /* decompressed; equals payload_size when raw */
	const char *name;         /* source file, not terminated; NULL if not said */
	size_t name_size;
	const char *options;      /* of ptxas, not terminated; NULL if none */
	size_t options_size;
};

struct img_fatbin {
	struct fw_cursor bytes; /* the entries */
	uint32_t count;         /* read so far */
};
int img_fatbin_open(struct img_fatbin *fatbin, const void *image, size_t size, struct img_error *error);
/* 1 with *entry, 0 at the end, -1 with *error. */
int img_fatbin_next(struct img_fatbin *fatbin, struct img_entry *entry, struct img_error *error);

#define IMG_ENTRY_HEADER 64 /* bytes, at least */
/*
 * For who has not the whole fat binary in memory: reads an entry's header of which the first `size` bytes are at hand, `left` being
 * what the fat binary has from the entry on. entry->payload stays NULL, name and options are absent unless they are at hand too; the
 * payload is `header_size` behind the entry, the next entry `length`. 0, or -1 with *error.
 */
int img_entry_header(const void *bytes, size_t size, uint64_t left, struct img_entry *entry, uint64_t *header_size, uint64_t *length,
                     struct img_error *error);

/* ---- decompression (inflate.c) */

struct img_payload {
	const char *data;
	size_t size;
	void *owned; /* to be freed, NULL when data lies in the image */
};
enum img_status {
	IMG_OK,
	IMG_INVALID,   /* not an image, cut short, or lying */
	IMG_NO_BINARY, /* nothing in it that the device can run */
	IMG_TOO_NEW,   /* only PTX of a newer ISA than the device takes */
	IMG_NO_MEMORY,
};
enum img_status img_entry_read(const struct img_entry *entry, struct img_payload *payload, struct img_error *error);
void img_payload_free(struct img_payload *payload);

/* ---- choice for a device that runs PTX only (choose.c) */

struct img_device {
	uint32_t cc;      /* 86 */
	uint32_t max_ptx; /* newest PTX ISA, 91 */
};

/* PTX texts that make one module together, still compressed. */
struct img_sources {
	struct img_entry *entries;
	size_t count;
	void *copy; /* the bytes that the entries point to, once img_sources_keep() was called */
};

/*
 * Takes any kind of image. Of each fat binary the newest PTX that the device may run is taken, also where machine code of exactly
 * this architecture lies beside it; of a wrapper v2 the PTX of all its parts. On failure *error is one line that names the
 * architectures the image holds. The entries point into the image. Free with img_sources_free.
 */
enum img_status img_choose(const void *image, size_t size, const struct img_device *device, struct img_sources *sources,
                           struct img_error *error);
/* Copies the (compressed) bytes, so that the image may go away. False when out of memory. */
bool img_sources_keep(struct img_sources *sources);
void img_sources_free(struct img_sources *sources);

/* True if the device may run code for this virtual architecture (CUDA programming guide, compute capability features). */
bool img_arch_fits(uint32_t arch, char suffix, uint32_t cc);

/* ---- cubin (elf.c) */

struct img_elf {
	struct fw_cursor file;
	uint32_t sm;           /* 86 */
	char suffix;           /* 'a' where the header says so (old style only), else 0 */
	uint32_t virtual_arch; /* 0 when the header does not say (new style) */
	bool relocatable;
	uint64_t section_table;
	uint32_t section_count;
	struct fw_cursor section_names, symbols, strings; /* empty when there is none */
};
int img_elf_open(struct img_elf *elf, const void *image, size_t size, struct img_error *error);

struct img_section {
	const char *name;
	uint32_t type, link, info;
	uint64_t flags;
	struct fw_cursor bytes; /* empty for .nv.shared and the like, which occupy no file space */
	uint64_t size;
};
int img_elf_section(const struct img_elf *elf, uint32_t index, struct img_section *section);
int img_elf_find(const struct img_elf *elf, const char *name, struct img_section *section); /* -1: there is none */

enum img_symbol_kind { IMG_SYMBOL_OTHER, IMG_SYMBOL_KERNEL, IMG_SYMBOL_FUNCTION, IMG_SYMBOL_GLOBAL };
struct img_symbol {
	enum img_symbol_kind kind;
	const char *name;
	uint64_t value, size;
	uint32_t section;
	bool managed, external; /* external: not defined here */
};
uint32_t img_elf_symbol_count(const struct img_elf *elf);
int img_elf_symbol(const struct img_elf *elf, uint32_t index, struct img_symbol *symbol);

struct img_param {
	uint32_t offset, size;
};
/*
 * The parameter layout of a kernel, from its KPARAM_INFO records: returns how many parameters it has (at most `capacity` are
 * written, by ordinal) and the bytes of the parameter buffer, or -1.
 */
int img_elf_params(const struct img_elf *elf, const char *kernel, struct img_param *params, uint32_t capacity,
                   uint32_t *total_bytes);

/* ---- linked images of our own (linked.c) */

/* What cuLinkComplete hands out: an ELF file for EM_CUDA that holds PTX texts instead of machine code. NULL: out of memory. */
void *img_linked_write(const struct img_payload *texts, size_t count, uint32_t cc, size_t *size);
/* The texts of such an ELF; 0 for one that is not ours, -1 with *error when it is damaged. */
int img_linked_read(const struct img_elf *elf, struct img_sources *sources, struct img_error *error);

/* ---- host objects and archives of them (object.c) */

/* The fat binaries in an object or executable file for the host, or in the members of an archive ("ar") of such objects. */
struct img_object {
	struct fw_cursor file;
	bool archive;
	size_t next_member;      /* archive: where the next header is */
	uint64_t section_table;  /* of the object being read; 0: none */
	uint32_t section, section_count;
	struct fw_cursor object, names, fatbins; /* fatbins: the rest of a section that holds them */
};
int img_object_open(struct img_object *object, const void *data, size_t size, struct img_error *error);
/* 1 with a fat binary, 0 at the end, -1 with *error. */
int img_object_next(struct img_object *object, const void **fatbin, size_t *size, struct img_error *error);

/* ---- shared by the readers */

/* Writes the text; returns -1, for `return img_fail(...)`. error may be NULL. */
int img_fail(struct img_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
