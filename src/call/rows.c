/* Rows against packed bytes. See rows.h. */
#include "call/rows.h"

#include <string.h>

/* What is left of the row that comes next, at most `size`; *at is where it lies. */
static uint64_t
next_part(const struct call_rows *rows, uint64_t size, uint8_t **at)
{
	uint64_t x = rows->done % rows->width, left = rows->width - x;

	*at = rows->at + rows->done / rows->width * rows->pitch + x;
	return left < size ? left : size;
}

void
call_rows_scatter(struct call_rows *rows, const uint8_t *packed, uint64_t size)
{
	for (uint64_t part; size; size -= part, packed += part) {
		uint8_t *at;
		part = next_part(rows, size, &at);
		memcpy(at, packed, part);
		rows->done += part;
	}
}

void
call_rows_gather(struct call_rows *rows, uint8_t *packed, uint64_t size)
{
	for (uint64_t part; size; size -= part, packed += part) {
		uint8_t *at;
		part = next_part(rows, size, &at);
		memcpy(packed, at, part);
		rows->done += part;
	}
}
