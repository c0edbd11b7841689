/* Raw deflate, read anywhere: used by source.c alone. */
#ifndef IN_INFLATE_H
#define IN_INFLATE_H

#include "elf/source.h"

struct in_inflate;

/* Decompresses all once, checks size and CRC-32, and remembers restart points. NULL with *error. */
struct in_inflate *in_inflate_open(struct in_source *outer, uint64_t base, uint64_t packed, uint64_t size, uint32_t crc,
                                   struct in_error *error);
bool in_inflate_read(struct in_inflate *inflate, uint64_t at, void *to, size_t size);
void in_inflate_close(struct in_inflate *inflate);

#endif
