/*
 * What the programs against NVIDIA's libraries share: checks that say what failed, and the exit statuses that run.py reads
 * (0 passed, 1 failed, 77 cannot run here; a line "# skip REASON" says why).
 *
 * The programs are host C; kernels come from the libraries, from PTX text or from NVRTC.
 */
#ifndef FARWARP_TESTS_LIBS_H
#define FARWARP_TESTS_LIBS_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_SKIP 77

static int failures;

#define CHECK(condition, ...) \
	do { \
		if (!(condition)) { \
			failures++; \
			printf("# %s:%d: %s: ", __FILE__, __LINE__, #condition); \
			printf(__VA_ARGS__); \
			printf("\n"); \
		} \
	} while (0)

/* A call of any library that answers 0 for success; the program cannot go on without it. */
#define MUST(call) \
	do { \
		int must_status = (int)(call); \
		if (must_status != 0) { \
			printf("# %s:%d: %s answered %d\n", __FILE__, __LINE__, #call, must_status); \
			exit(1); \
		} \
	} while (0)

/* The same numbers on each run, in -1..1. */
static inline double
noise(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return (double)(int32_t)*state / 2147483648.0;
}

#endif
