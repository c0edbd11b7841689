/*
 * Calls as bytes: what is packed is what the call gets, what it writes comes back, and inputs that are cut or changed make no call or
 * a harmless one.
 */
#include "tests/tap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "call/pack.h"
#include "call/session.h"

static unsigned made; /* calls that reached the device */

static CUresult
get_attribute(int *value, CUdevice_attribute attribute, CUdevice dev)
{
	made++;
	*value = (int)attribute * 1000 + dev;
	return CUDA_SUCCESS;
}

static CUresult
get_name(char *name, int len, CUdevice dev)
{
	made++;
	(void)dev;
	snprintf(name, (size_t)len, "a device of %d", len);
	return CUDA_SUCCESS;
}

static CUresult
get_function(CUfunction *function, CUmodule module, const char *name)
{
	made++;
	*function = (CUfunction)(uintptr_t)(0x1000 + strlen(name) + (uintptr_t)module);
	return strcmp(name, "kernel") == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

static CUresult
get_global(CUdeviceptr *dptr, size_t *bytes, CUmodule module, const char *name)
{
	made++;
	(void)module;
	(void)name;
	if (dptr)
		*dptr = 0x123456789abcdef0u;
	if (bytes)
		*bytes = 77;
	return CUDA_SUCCESS;
}

static CUresult
get_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
	made++;
	(void)graph;
	for (size_t n = 0; nodes && n < *count; n++)
		nodes[n] = n < 3 ? (CUgraphNode)(uintptr_t)(n + 1) : NULL;
	*count = 3;
	return CUDA_SUCCESS;
}

static CUresult
set_access(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
	made++;
	CHECK(ptr == 0x5000 && size == 4096 && count == 2 && desc[0].location.id == 4 && desc[1].location.id == 5);
	return CUDA_SUCCESS;
}

static const struct cuda_ops device = { .name = "test", .cuDeviceGetAttribute = get_attribute, .cuDeviceGetName = get_name,
	.cuModuleGetFunction = get_function, .cuModuleGetGlobal_v2 = get_global, .cuGraphGetNodes = get_nodes, .cuMemSetAccess = set_access };

static uint8_t wire[65536] __attribute__((aligned(64))), reply[65536] __attribute__((aligned(64))), memory[65536] __attribute__((aligned(64)));

/* Packs, serves and unpacks; *size: bytes of the inputs. Every cut of them has to be refused without a call. */
static CUresult
go(enum cuda_call_id call, const void *const *args)
{
	struct call_writer out = { .data = wire, .size = sizeof(wire) };
	bool broken = true;

	CHECK(call_packs(call));
	CHECK(call_pack(&out, call, args));
	CHECK(out.at <= call_pack_bound(call, args));
	unsigned before = made;
	for (size_t cut = 0; cut < out.at; cut++) {
		uint8_t *exact = malloc(cut + 1); /* so that a sanitizer sees a read behind it */
		memcpy(exact, wire, cut);
		struct fw_cursor in = fw_cursor(exact, cut);
		struct call_writer answer = { .data = reply, .size = sizeof(reply) };
		CHECK(!call_serve(&device, call, &in, &answer, memory, sizeof(memory)));
		free(exact);
	}
	CHECK_INT(made, before);
	struct fw_cursor in = fw_cursor(wire, out.at);
	struct call_writer answer = { .data = reply, .size = sizeof(reply) };
	CHECK(call_serve(&device, call, &in, &answer, memory, sizeof(memory)));
	CHECK_INT(made, before + 1);
	CHECK(answer.at <= call_reply_bound(call, args));
	struct fw_cursor back = fw_cursor(reply, answer.at);
	CUresult result = call_unpack_reply(&back, call, args, &broken);
	CHECK(!broken);
	return result;
}
#define GO(name, ...) go(CALL_##name, (const void *const[]){ __VA_ARGS__ })

TEST(values_and_outputs)
{
	int value = 0, *pointer = &value, len = 20;
	CUdevice_attribute attribute = 75;
	CUdevice dev = 3;
	char name[32], *text = name;

	CHECK_INT(GO(cuDeviceGetAttribute, &pointer, &attribute, &dev), CUDA_SUCCESS);
	CHECK_INT(value, 75003);
	memset(name, 'x', sizeof(name));
	CHECK_INT(GO(cuDeviceGetName, &text, &len, &dev), CUDA_SUCCESS);
	CHECK(strcmp(name, "a device of 20") == 0 && name[20] == 'x'); /* no more than was asked for */
}

TEST(strings_and_errors)
{
	CUfunction function = (CUfunction)7, *pointer = &function;
	CUmodule module = (CUmodule)0x100;
	const char *name = "kernel";

	CHECK_INT(GO(cuModuleGetFunction, &pointer, &module, &name), CUDA_SUCCESS);
	CHECK(function == (CUfunction)0x1106);
	function = (CUfunction)7;
	name = "none";
	CHECK_INT(GO(cuModuleGetFunction, &pointer, &module, &name), CUDA_ERROR_NOT_FOUND);
	CHECK(function == (CUfunction)7); /* a failed call writes nothing */
}

TEST(optional_outputs)
{
	CUdeviceptr address = 0, *to = &address, *nowhere = NULL;
	size_t bytes = 0, *count = &bytes, *none = NULL;
	CUmodule module = NULL;
	const char *name = "g";

	CHECK_INT(GO(cuModuleGetGlobal_v2, &to, &none, &module, &name), CUDA_SUCCESS);
	CHECK(address == 0x123456789abcdef0u && bytes == 0);
	CHECK_INT(GO(cuModuleGetGlobal_v2, &nowhere, &count, &module, &name), CUDA_SUCCESS);
	CHECK_INT(bytes, 77);
}

TEST(arrays)
{
	CUgraphNode nodes[5] = { NULL }, *to = nodes, *none = NULL;
	size_t count = 5, *number = &count;
	CUgraph graph = (CUgraph)1;
	CUmemAccessDesc desc[2] = { { .location = { .id = 4 } }, { .location = { .id = 5 } } }, *from = desc;
	CUdeviceptr ptr = 0x5000;
	size_t size = 4096, two = 2;

	CHECK_INT(GO(cuGraphGetNodes, &graph, &to, &number), CUDA_SUCCESS);
	CHECK(count == 3 && nodes[0] == (CUgraphNode)1 && nodes[2] == (CUgraphNode)3 && nodes[3] == NULL);
	count = 0;
	CHECK_INT(GO(cuGraphGetNodes, &graph, &none, &number), CUDA_SUCCESS);
	CHECK_INT(count, 3);
	CHECK_INT(GO(cuMemSetAccess, &ptr, &size, &from, &two), CUDA_SUCCESS);
}

/* A count that the call would go by has to be that of the elements that are there. */
TEST(counts_that_lie)
{
	CUmemAccessDesc desc[2] = { { .location = { .id = 4 } }, { .location = { .id = 5 } } }, *from = desc;
	CUdeviceptr ptr = 0x5000;
	size_t size = 4096, two = 2;
	const void *const args[] = { &ptr, &size, &from, &two };
	struct call_writer out = { .data = wire, .size = sizeof(wire) };

	CHECK(call_pack(&out, CALL_cuMemSetAccess, args));
	uint64_t many = 1000;
	memcpy(wire + out.at - 8, &many, 8); /* the parameter "count" */
	unsigned before = made;
	struct fw_cursor in = fw_cursor(wire, out.at);
	struct call_writer answer = { .data = reply, .size = sizeof(reply) };
	CHECK(!call_serve(&device, CALL_cuMemSetAccess, &in, &answer, memory, sizeof(memory)));
	CHECK_INT(made, before);
}

/* Random bytes as inputs of every call, to a device that serves none: nothing is touched that is not there. */
TEST(random_bytes)
{
	static const struct cuda_ops nothing = { .name = "nothing" };
	uint64_t state = 88172645463325252u;
	unsigned taken = 0;

	for (unsigned round = 0; round < 400000; round++) {
		uint8_t bytes[256];
		for (size_t n = 0; n < sizeof(bytes); n += 8) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			uint64_t word = state % 3 ? state % 5 : state; /* small counts often */
			memcpy(bytes + n, &word, 8);
		}
		struct fw_cursor in = fw_cursor(bytes, state % sizeof(bytes));
		struct call_writer answer = { .data = reply, .size = sizeof(reply) };
		taken += call_serve(&nothing, (enum cuda_call_id)(round % CALL_COUNT), &in, &answer, memory, 4096);
	}
	CHECK(taken > 1000); /* some of them are calls */
}

TEST(the_protocol_has_a_number)
{
	CHECK(call_protocol_hash() != 0);
	CHECK(call_protocol_hash() == call_protocol_hash());
}

TEST_MAIN()
