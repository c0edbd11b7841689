/* Bytes of values whose type another argument decides. 0 for an attribute that does not exist. See sizes.c. */
#ifndef CALL_SIZES_H
#define CALL_SIZES_H

#include <stddef.h>

typedef size_t (*call_size_fn)(int selector);
/* In the order of SIZES in api/gen.py. */
enum { CALL_SIZE_POOL_ATTRIBUTE, CALL_SIZE_GRAPH_MEMORY_ATTRIBUTE, CALL_SIZE_POINTER_ATTRIBUTE };
extern const call_size_fn call_sizes[3];

#endif
