/*
 * Reads records, see record.h; and knows in which form each call is recorded. Writing is src/client/record.c.
 */
#include "layers/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRAPPER_MAGIC 0x466243b1u
#define BEHIND 64 /* zeros behind an image: readers of a device stop at what an image says of itself */

static bool
fail(struct record_reader *reader, uint64_t offset, const char *what)
{
	snprintf(reader->error, sizeof(reader->error), "offset %" PRIu64 ": %s", offset, what);
	return false;
}

static int
broken(struct record_reader *reader, uint64_t offset, const char *what)
{
	fail(reader, offset, what);
	return -1;
}

bool
record_open(struct record_reader *reader, const void *bytes, size_t size)
{
	struct record_head head;

	*reader = (struct record_reader){ .in = fw_cursor(bytes, size) };
	const void *found = fw_cursor_bytes(&reader->in, sizeof(head));
	if (!found)
		return fail(reader, size, "this is too short for a record of farwarp");
	memcpy(&head, found, sizeof(head));
	if (memcmp(head.magic, RECORD_MAGIC, sizeof(head.magic)) != 0)
		return fail(reader, 0, "this is no record of farwarp");
	if (head.version != RECORD_VERSION || head.bytes != sizeof(head) || head.protocol != call_protocol_hash()) {
		snprintf(reader->error, sizeof(reader->error), "it was written by farwarp %.*s, whose calls are packed differently: use that version",
		         (int)strnlen(head.farwarp, sizeof(head.farwarp)), head.farwarp);
		return false;
	}
	return true;
}

/* An array of bytes, as a cursor over it. */
static struct fw_cursor
get_bytes(struct fw_cursor *in)
{
	uint64_t size;
	const void *bytes = call_get_array(in, 1, &size);

	return fw_cursor(bytes, size);
}

int
record_next(struct record_reader *reader, struct record_entry *entry)
{
	uint64_t offset = reader->in.at;
	struct record_event *event = &entry->event;

	if (reader->ended && offset == reader->in.size)
		return 0;
	if (reader->ended)
		return broken(reader, offset, "bytes behind the end");
	if (offset == reader->in.size)
		return broken(reader, offset, "the record is cut: it has no end");
	const void *found = fw_cursor_bytes(&reader->in, sizeof(*event));
	if (!found)
		return broken(reader, offset, "the record is cut inside an event");
	memcpy(event, found, sizeof(*event));
	if (event->mark != RECORD_MARK || event->kind >= RECORD_KINDS || event->size % 8)
		return broken(reader, offset, "this is no event");
	const void *payload = fw_cursor_bytes(&reader->in, event->size);
	if (!payload)
		return broken(reader, offset, "the record is cut inside an event");
	struct fw_cursor in = fw_cursor(payload, event->size);
	entry->offset = offset;
	entry->number = ++reader->events;
	entry->inputs = get_bytes(&in);
	entry->outputs = get_bytes(&in);
	entry->ranges = call_get_array(&in, sizeof(struct record_range), &entry->range_count);
	if (in.bad || in.at != in.size)
		return broken(reader, offset, "an event's parts do not fill it");
	if (event->kind == RECORD_END) {
		if (call_get_u64(&entry->inputs) != reader->events - 1 || entry->inputs.bad)
			return broken(reader, offset, "events are missing: the end knows more of them");
		reader->ended = true;
	}
	return 1;
}

/* ---- forms --------------------------------------------------------------------------------------------------------- */

enum record_form
record_form(enum cuda_call_id call)
{
	/* Calls that only ask, and whose rows do not say all of the answer. */
	static const char *const questions[] = { "GetName", "GetParams", "CaptureInfo", "Occupancy", "GetAttributes", "DebugDot" };

	switch (call) {
	case CALL_cuLaunchKernel:
	case CALL_cuLaunchKernelEx:
	case CALL_cuLaunchCooperativeKernel:
		return RECORD_FORM_LAUNCH;
	case CALL_cuModuleLoad:
	case CALL_cuModuleLoadData:
	case CALL_cuModuleLoadDataEx:
	case CALL_cuModuleLoadFatBinary:
	case CALL_cuLibraryLoadData:
	case CALL_cuLibraryLoadFromFile:
		return RECORD_FORM_IMAGE;
	case CALL_cuMemcpy2D_v2:
	case CALL_cuMemcpy2DUnaligned_v2:
	case CALL_cuMemcpy2DAsync_v2:
	case CALL_cuMemcpy3D_v2:
	case CALL_cuMemcpy3DAsync_v2:
		return RECORD_FORM_BOX;
	case CALL_cuMemcpy:
	case CALL_cuMemcpyAsync:
		return RECORD_FORM_COPY;
	case CALL_cuGraphAddKernelNode:
	case CALL_cuGraphAddKernelNode_v2:
	case CALL_cuGraphKernelNodeSetParams:
	case CALL_cuGraphKernelNodeSetParams_v2:
	case CALL_cuGraphExecKernelNodeSetParams:
	case CALL_cuGraphExecKernelNodeSetParams_v2:
		return RECORD_FORM_NODE;
	case CALL_cuMemcpyHtoD_v2:
	case CALL_cuMemcpyHtoDAsync_v2:
	case CALL_cuMemcpyDtoH_v2:
	case CALL_cuMemcpyDtoHAsync_v2:
	case CALL_cuMemcpyHtoA_v2:
	case CALL_cuMemcpyHtoAAsync_v2:
	case CALL_cuMemcpyAtoH_v2:
	case CALL_cuMemcpyAtoHAsync_v2:
	case CALL_cuMemAllocManaged:
	case CALL_cuLibraryGetManaged:
	case CALL_cuMemAllocHost_v2:
	case CALL_cuMemHostAlloc:
	case CALL_cuMemFreeHost:
	case CALL_cuMemHostRegister:
	case CALL_cuMemHostRegister_v2:
	case CALL_cuMemHostUnregister:
	case CALL_cuMemHostGetDevicePointer_v2:
	case CALL_cuLaunchHostFunc:
	case CALL_cuStreamAddCallback:
	case CALL_cuGraphDestroy:
	case CALL_cuGraphDestroyNode:
	case CALL_cuGraphAddMemcpyNode:
	case CALL_cuGraphMemcpyNodeSetParams:
	case CALL_cuGraphExecMemcpyNodeSetParams:
	case CALL_cuGraphAddHostNode:
	case CALL_cuGraphHostNodeSetParams:
	case CALL_cuGraphExecHostNodeSetParams:
	case CALL_cuGraphAddMemAllocNode:
		return RECORD_FORM_ROWS;
	case CALL_cuFuncGetParamInfo:
	case CALL_cuMemHostGetFlags:
		return RECORD_FORM_NONE;
	default:
		break;
	}
	if (call >= CALL_COUNT)
		return RECORD_FORM_NONE;
	for (size_t n = 0; n < sizeof(questions) / sizeof(questions[0]); n++)
		if (strstr(call_descs[call].name, questions[n]))
			return RECORD_FORM_NONE;
	if (call_packs(call))
		return RECORD_FORM_ROWS;
	return call_descs[call].device ? RECORD_FORM_OPAQUE : RECORD_FORM_NONE;
}

bool
record_get_launch(struct fw_cursor *in, struct record_launch *launch)
{
	const void *head = call_get(in, sizeof(launch->launch));

	if (!head)
		return false;
	memcpy(&launch->launch, head, sizeof(launch->launch));
	if (launch->launch.param_bytes > RECORD_PARAM_MAX || launch->launch.attribute_count > RECORD_ATTRIBUTES_MAX)
		return false;
	launch->params = call_get(in, launch->launch.param_bytes);
	launch->attributes = call_get(in, launch->launch.attribute_count * sizeof(CUlaunchAttribute));
	return !in->bad && in->at == in->size;
}

bool
record_get_node(struct fw_cursor *in, struct record_node *node)
{
	node->graph = call_get_u64(in);
	node->node = call_get_u64(in);
	node->dependencies = call_get_array(in, 8, &node->count);
	return record_get_launch(in, &node->launch) && node->launch.launch.attribute_count == 0;
}

bool
record_get_image(struct fw_cursor *in, struct record_image *image)
{
	uint64_t version = call_get_u64(in), count = call_get_u64(in), total = 0, size;

	*image = (struct record_image){ 0 };
	if (in->bad || count == 0 || count > RECORD_PARTS_MAX || version > 2 || (version != 2 && count != 1))
		return false;
	struct fw_cursor look = *in;
	for (uint64_t n = 0; n < count; n++) {
		call_get_array(&look, 1, &size);
		total += size + 2 * BEHIND;
	}
	if (look.bad)
		return false;
	uint8_t *memory = image->memory = calloc(1, total);
	const void **parts = image->parts = calloc(count + 1, sizeof(*parts));
	if (!memory || !parts)
		return false;
	for (uint64_t n = 0; n < count; n++) {
		const void *bytes = call_get_array(in, 1, &size);
		if (!size && n)
			return false; /* a hole would end the list */
		if (size)
			memcpy(memory, bytes, size);
		if (n)
			parts[n - 1] = memory;
		else
			image->image = image->wrapper.fatbin = size ? memory : NULL;
		memory += (size + BEHIND + BEHIND - 1) & ~(uint64_t)(BEHIND - 1);
	}
	if (version) {
		image->wrapper.magic = WRAPPER_MAGIC;
		image->wrapper.version = (uint32_t)version;
		image->wrapper.parts = version == 2 ? parts : NULL;
		image->image = &image->wrapper;
	}
	return image->image && in->at == in->size;
}

void
record_free_image(struct record_image *image)
{
	free(image->memory);
	free(image->parts);
}

size_t
record_box_bytes(const CUDA_MEMCPY3D *c)
{
	size_t rows, bytes;

	if (__builtin_mul_overflow(c->Height, c->Depth, &rows) || __builtin_mul_overflow(rows, c->WidthInBytes, &bytes))
		return SIZE_MAX;
	return bytes;
}

bool
record_get_box(struct fw_cursor *in, struct record_box *box)
{
	const void *copy = call_get(in, sizeof(box->copy));

	if (!copy)
		return false;
	memcpy(&box->copy, copy, sizeof(box->copy));
	box->stream = call_get_u64(in);
	uint64_t size;
	box->rows = call_get_array(in, 1, &size);
	box->bytes = record_box_bytes(&box->copy);
	bool from_host = box->copy.srcMemoryType == CU_MEMORYTYPE_HOST;
	return !in->bad && in->at == in->size && size == (from_host ? box->bytes : 0) && box->bytes != SIZE_MAX;
}
