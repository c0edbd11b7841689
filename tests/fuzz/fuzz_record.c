/*
 * A record's events as farwarp replay reads them, behind a right head; nothing is played.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "layers/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record_head head = { .magic = RECORD_MAGIC, .version = RECORD_VERSION, .bytes = sizeof(head), .protocol = call_protocol_hash() };
	static uint8_t scratch[1 << 18] __attribute__((aligned(64)));
	uint8_t *bytes = malloc(sizeof(head) + size);
	struct record_reader reader;
	struct record_entry entry;

	if (!bytes)
		return 0;
	memcpy(bytes, &head, sizeof(head));
	if (size)
		memcpy(bytes + sizeof(head), data, size);
	for (bool open = record_open(&reader, bytes, sizeof(head) + size); open && record_next(&reader, &entry) > 0;) {
		struct fw_cursor in = entry.inputs;
		struct call_arguments arguments;
		struct record_launch launch;
		struct record_image image;
		struct record_box box;
		struct record_node node;
		char text[512];
		if (entry.event.kind < CALL_COUNT && call_read((enum cuda_call_id)entry.event.kind, &in, scratch, sizeof(scratch), &arguments))
			call_format_inputs(text, sizeof(text), CALL_TEXT, (enum cuda_call_id)entry.event.kind, arguments.args);
		in = entry.inputs;
		record_get_launch(&in, &launch);
		in = entry.inputs;
		record_get_image(&in, &image);
		record_free_image(&image);
		in = entry.inputs;
		record_get_box(&in, &box);
		in = entry.inputs;
		record_get_node(&in, &node);
	}
	free(bytes);
	return 0;
}
