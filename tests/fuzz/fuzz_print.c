/* Bytes as the memory that a kernel's printf names: the format first, its arguments in the middle, nothing readable behind. */
#include <stdlib.h>
#include <string.h>

#include "soft/exec/print.h"
#include "soft/space.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sw_space sw_space;

/* Only the input itself may be read, so that the sanitizer sees one byte too many. */
static uint64_t input, input_size;

bool
sw_space_host(uint64_t address, uint64_t size)
{
	return address - input < input_size && size <= input_size - (address - input);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sx_text text = { 0 };
	uint8_t *memory = malloc(size ? size : 1);

	if (!memory)
		return 0;
	if (size)
		memcpy(memory, data, size);
	input = (uint64_t)(uintptr_t)memory;
	input_size = size;
	/* Strings can be reached only by address: the second quarter's words become offsets into the input. */
	for (size_t at = (size / 4 + 7) & ~(size_t)7; at + 8 <= size / 2; at += 8) {
		uint64_t word;
		memcpy(&word, memory + at, 8);
		if (word >> 56 == 's') {
			word = input + word % size;
			memcpy(memory + at, &word, 8);
		}
	}
	sx_print(&text, input, input + ((size / 4 + 7) & ~(size_t)7));
	free(text.data);
	free(memory);
	return 0;
}
