/*
 * The page that farwarp trace and the client library of the traced program share: what is wanted, what is counted, who is inside a call.
 *
 * It lies in a memfd of farwarp trace. The library finds it by FARWARP_TRACE=/proc/PID/fd/N at the first call, writes the lines itself
 * (one write each), and leaves in it what outlives the program: counts, and the calls that have not returned. farwarp trace looks into
 * it from outside, so that nothing of the program (a lock, a signal, a thread of its own) is needed to show where it hangs or died.
 *
 * What the program writes here is not trusted: indexes are checked and texts are bounded when they are read.
 */
#ifndef LAYERS_TRACE_H
#define LAYERS_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda_ops.h"

#define TRACE_MAGIC "fwtrace"
#define TRACE_PRIVATE 128     /* slots of private tables that are counted */
#define TRACE_ROWS (CALL_COUNT + TRACE_PRIVATE)
#define TRACE_SLOTS 256       /* calls that are seen while they last */
#define TRACE_ASKERS 32       /* libraries that ask for functions */
#define TRACE_NAME 64
#define TRACE_MISSING 8       /* names that were not found, kept a library */
#define TRACE_LINE 4096       /* bytes of a line: one that a pipe takes whole */

enum trace_time { TRACE_TIME_SINCE, TRACE_TIME_CLOCK, TRACE_TIME_DELTA };

struct trace_count {
	uint64_t calls, errors;
	uint64_t waits;          /* calls that awaited the server */
	uint64_t awaited;        /* answers that they awaited */
	uint64_t ns, max_ns;
	uint64_t sent, received; /* bytes over the wire */
};

/* A call that lasts. Claimed by setting `pid`; the other fields are written before `begin`, which is 0 while they are not whole. */
struct trace_slot {
	int32_t pid, tid;  /* pid 0: free */
	uint64_t begin;    /* CLOCK_MONOTONIC, ns */
	uint32_t row;
	uint32_t reserved;
	char text[1000];   /* the inputs, if they are shown */
};

/* A library (or the program itself) that asked for functions and tables. Claimed by setting `used`. */
struct trace_asker {
	uint32_t used, functions, missing, tables; /* tables: a bit each, by trace_page.tables */
	char name[TRACE_NAME];
	char missed[TRACE_MISSING][TRACE_NAME];
};

struct trace_page {
	char magic[8];
	uint64_t hash;       /* call_protocol_hash() */
	uint64_t bytes;      /* sizeof(struct trace_page) */
	int32_t tracer;      /* process id */
	int32_t out_fd;      /* of the tracer: where lines go */
	int32_t record_fd;   /* of the tracer: where the record goes; -1: none */
	bool lines, counts, json, callers;
	enum trace_time time;
	uint8_t shown[TRACE_ROWS];

	/* From here on written by the program, atomically. */
	uint64_t start;      /* CLOCK_MONOTONIC, ns */
	uint64_t last;       /* when the last line was written */
	uint32_t processes;  /* that made a call */
	int32_t recorder;    /* the one process that is recorded */
	uint64_t record_events;
	uint32_t last_row;   /* the last call that returned, plus 1 */
	uint64_t last_end;
	uint64_t all_calls;  /* shown or not */
	struct trace_count rows[TRACE_ROWS];
	uint8_t asked[CALL_COUNT];
	char private_names[TRACE_PRIVATE][TRACE_NAME];
	char tables[32][40]; /* private tables that were asked for */
	struct trace_asker askers[TRACE_ASKERS];
	struct trace_slot slots[TRACE_SLOTS];
};

#endif
