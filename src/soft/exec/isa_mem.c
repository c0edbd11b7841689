/*
 * One CPU level's build of memory: loads and stores, atomics, asynchronous copies, matrices. See isa.h.
 */
#include "soft/exec/isa.h"

#include "soft/exec/mem.c"
