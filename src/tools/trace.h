/* What the files of farwarp trace share. */
#ifndef TOOLS_TRACE_H
#define TOOLS_TRACE_H

#include <stdbool.h>
#include <stdio.h>

#include "layers/trace.h"

enum trace_sort { SORT_TIME, SORT_CALLS, SORT_MAX, SORT_AWAITED, SORT_NAME };

/*
 * Applies one word of -e to the rows: a name with * and ?, with or without its version (_v2), %local, %async, %sync, or private; "!" before
 * it takes away. False: it fits nothing.
 */
bool trace_filter(uint8_t shown[TRACE_ROWS], const char *word);

/* The table of -c and who asked for what, or one JSON object. `overflow`: the tracer's own. */
void trace_print_counts(FILE *out, const struct trace_page *page, enum trace_sort sort);
void trace_print_counts_json(FILE *out, const struct trace_page *page, enum trace_sort sort);

/* The name of a row: a call, or a slot of a private table. */
const char *trace_row_name(const struct trace_page *page, unsigned row);

#endif
