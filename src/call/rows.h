/*
 * Rows of a box in memory against the packed bytes that travel, a piece at a time: pieces need not end where rows do.
 */
#ifndef CALL_ROWS_H
#define CALL_ROWS_H

#include <stdint.h>

struct call_rows {
	uint8_t *at;           /* the first row */
	uint64_t pitch, width; /* bytes from row to row, bytes of a row; width is not 0 */
	uint64_t done;         /* packed bytes so far */
};

/* The next `size` packed bytes, into the rows or out of them. The caller stays within the rows that there are. */
void call_rows_scatter(struct call_rows *rows, const uint8_t *packed, uint64_t size);
void call_rows_gather(struct call_rows *rows, uint8_t *packed, uint64_t size);

#endif
