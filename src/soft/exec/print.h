/*
 * Device printf: a format and its arguments in device memory to text.
 */
#ifndef SX_PRINT_H
#define SX_PRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sx_text { /* grows; free() data in the end */
	char *data;
	size_t used, size;
	bool full;          /* out of memory or over SX_TEXT_MAX: the rest is dropped */
	uint64_t bad;       /* an address that could not be read, 0 none */
};
#define SX_TEXT_MAX ((size_t)1 << 20) /* of one printf call */

/*
 * Appends the text of vprintf(format, args); both are generic addresses. Returns the number of arguments used, -1 when format
 * is null. text->bad says that an address could not be read.
 */
int sx_print(struct sx_text *text, uint64_t format, uint64_t args);

/* Copies a string from device memory, at most size - 1 bytes; false (and "" in the buffer) if it cannot be read. */
bool sx_device_string(uint64_t address, char *buffer, size_t size);

#endif
