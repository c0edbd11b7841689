/*
 * Archives (ZIP, which wheels are), bounded: every offset, length and count is checked against the file and against the caps below before
 * it is used. Refused by name: names that lead out of the folder of installation, names given twice, members that share bytes, headers
 * that disagree with the directory, sizes that no compression reaches, encryption, methods other than stored and deflate.
 */
#ifndef IN_ZIP_H
#define IN_ZIP_H

#include "base/arena.h"
#include "elf/source.h"

#define IN_MAX_MEMBERS 262144
#define IN_MAX_DIRECTORY ((uint64_t)64 << 20) /* bytes of the central directory */
#define IN_MAX_NAME 4096
#define IN_MAX_UNPACKED ((uint64_t)1 << 37)   /* bytes of all members together */
#define IN_MAX_RATIO 1040                     /* deflate's most is 1032 */
#define IN_FREE_SIZE ((uint64_t)256 << 20)    /* bytes of a member from which on the ratio is no more than: */
#define IN_MAX_RATIO_LARGE 200

struct in_member {
	const char *name;
	uint64_t size, packed, header, data; /* bytes unpacked and packed; where header and data begin */
	uint32_t crc;
	uint16_t method;
	bool folder;
};

struct in_zip {
	struct in_source *file;
	struct in_member *members; /* by name */
	size_t count;
	struct fw_arena names;
};

bool in_zip_open(struct in_zip *zip, struct in_source *file, struct in_error *error);
void in_zip_close(struct in_zip *zip);
const struct in_member *in_zip_find(const struct in_zip *zip, const char *name);
/* The member as a source; the zip must outlive it. */
bool in_zip_source(const struct in_zip *zip, const struct in_member *member, struct in_source *source, struct in_error *error);
/* All of a member of at most `cap` bytes, checksum checked; free with in_unload(). */
bool in_zip_load(const struct in_zip *zip, const struct in_member *member, uint64_t cap, struct fw_cursor *copy, struct in_error *error);

#endif
