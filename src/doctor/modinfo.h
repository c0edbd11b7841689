/* What a kernel module's file says of itself (modinfo), read without loading it. */
#ifndef DR_MODINFO_H
#define DR_MODINFO_H

#include "elf/source.h"

struct dr_modinfo {
	char version[64], license[64]; /* "" if the file does not say */
	bool is_signed;                /* a signature is appended; whether the kernel trusts it is not checked */
};

/* False if it is no 64-bit little-endian ELF file, or a damaged one; *error says what. */
bool dr_modinfo_read(struct dr_modinfo *info, struct in_source *source, struct in_error *error);

#endif
