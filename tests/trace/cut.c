/*
 * cut FILE...: a record that is cut at any byte is an error that names the offset, and what a whole one holds can be read. Prints one
 * line a file, ends with 1 at the first record that does not behave.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layers/record.h"

/* Reads all; 0 at the end, -1 at an error. */
static int
read_all(const void *bytes, size_t size, struct record_reader *reader, uint64_t *calls)
{
	struct record_entry entry;
	int more;

	*calls = 0;
	if (!record_open(reader, bytes, size))
		return -1;
	while ((more = record_next(reader, &entry)) > 0) {
		enum cuda_call_id call = (enum cuda_call_id)entry.event.kind;
		struct fw_cursor in = entry.inputs;
		struct record_launch launch;
		struct record_image image;
		struct record_box box;
		struct record_node node;
		struct call_arguments arguments;
		static uint8_t scratch[1 << 22] __attribute__((aligned(64)));
		bool ok = true;
		if (call >= CALL_COUNT || entry.event.flags & RECORD_OPAQUE)
			continue;
		switch (record_form(call)) {
		case RECORD_FORM_ROWS:
			ok = call_read(call, &in, scratch, sizeof(scratch), &arguments) && in.at == in.size;
			break;
		case RECORD_FORM_LAUNCH:
			ok = record_get_launch(&in, &launch);
			break;
		case RECORD_FORM_IMAGE:
			ok = record_get_image(&in, &image);
			record_free_image(&image);
			break;
		case RECORD_FORM_NODE:
			ok = record_get_node(&in, &node);
			break;
		case RECORD_FORM_BOX:
			ok = record_get_box(&in, &box);
			break;
		default:
			ok = false;
		}
		if (!ok) {
			printf("event %llu (%s) cannot be read\n", (unsigned long long)entry.number, call_descs[call].name);
			exit(1);
		}
		++*calls;
	}
	return more;
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		static uint8_t bytes[1 << 20];
		size_t size = file ? fread(bytes, 1, sizeof(bytes), file) : 0;
		struct record_reader reader;
		uint64_t calls, whole;
		if (!file || size == 0 || size == sizeof(bytes) || read_all(bytes, size, &reader, &whole) != 0) {
			printf("%s: %s\n", argv[i], reader.error);
			return 1;
		}
		fclose(file);
		size_t step = size < 20000 ? 1 : size / 20000 + 1;
		for (size_t cut = 0; cut < size; cut += step) {
			uint8_t *copy = malloc(cut ? cut : 1); /* so that a read behind its end is seen */
			memcpy(copy, bytes, cut);
			if (read_all(copy, cut, &reader, &calls) != -1 || !strstr(reader.error, "offset ") || calls > whole) {
				printf("%s cut at %zu: \"%s\"\n", argv[i], cut, reader.error);
				return 1;
			}
			free(copy);
		}
		printf("%s: %llu calls, cut %zu times\n", argv[i], (unsigned long long)whole, (size + step - 1) / step);
	}
	return 0;
}
