/*
 * Records of hand-written calls as a worker reads them: whole ones are calls, ones that are cut anywhere are none, and nothing that stands in
 * them leads out of their bytes (run under ASan too).
 */
#include <sys/mman.h>

#include "tests/bridge/serving.h"
#include "tests/tap.h"

static uint8_t record[8192];
static struct call_writer out;

static struct call_writer *
begin(void)
{
	out = (struct call_writer){ .data = record, .size = sizeof(record) };
	return &out;
}

static const struct serving *
serving_of(enum cuda_call_id call)
{
	for (size_t n = 0; n < SERVINGS; n++)
		if (servings[n].call == call)
			return &servings[n];
	return NULL;
}

/* The record that was written is a call; none of its beginnings is. */
static void
check_cuts(enum cuda_call_id call, CUresult want)
{
	const struct serving *serving = serving_of(call);
	CUresult result;

	CHECK(!out.bad && out.at > 0);
	CHECK(serving_run(serving, record, out.at, &result));
	CHECK_INT(result, want);
	for (size_t size = 0; size < out.at; size++)
		if (serving_run(serving, record, size, &result)) {
			printf("# %s: %zu of %zu bytes are a call too\n", call < CALL_COUNT ? call_descs[call].name : "a record", size, out.at);
			CHECK(0);
			return;
		}
}

static void
put_node(const CUgraphNodeParams *params, uint64_t how, const void *bytes, size_t size)
{
	call_put(&out, params, sizeof(*params));
	call_put_u64(&out, how);
	call_put_array(&out, bytes, bytes ? size : 1, 1);
}

TEST(nodes)
{
	CUgraphNode deps[2] = { (CUgraphNode)1, (CUgraphNode)2 };
	CUgraphEdgeData edges[2] = { { 0 } };
	uint8_t params[24] = { 1 };
	CUgraphNodeParams kernel = { .type = CU_GRAPH_NODE_TYPE_KERNEL };

	call_put_u64(begin(), 7);
	call_put_array(&out, deps, 2, sizeof(deps[0]));
	call_put_array(&out, edges, 2, sizeof(edges[0]));
	put_node(&kernel, SESSION_PARAMS_LIST, params, sizeof(params));
	check_cuts(CALL_cuGraphAddNode_v2, CUDA_SUCCESS);

	/* Lists whose length is not what the structure says. */
	CUstreamBatchMemOpParams ops[3] = { { 0 } };
	CUgraphNodeParams batch = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, .memOp = { .count = 3 } };
	call_put_u64(begin(), 0);
	call_put_u64(&out, 7);
	put_node(&batch, 0, ops, sizeof(ops));
	check_cuts(CALL_cuGraphNodeSetParams, CUDA_SUCCESS);
	batch.memOp.count = 4;
	call_put_u64(begin(), 0);
	call_put_u64(&out, 7);
	put_node(&batch, 0, ops, sizeof(ops));
	CUresult result;
	CHECK(!serving_run(serving_of(CALL_cuGraphNodeSetParams), record, out.at, &result));
	CUmemAccessDesc access[2] = { { .location = { .id = 0 } } };
	CUgraphNodeParams alloc = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC, .alloc = { .accessDescCount = 1000, .accessDescs = access } };
	call_put_u64(begin(), 1);
	call_put_u64(&out, 7);
	put_node(&alloc, 0, access, sizeof(access));
	check_cuts(CALL_cuGraphExecNodeSetParams, CUDA_ERROR_INVALID_VALUE);

	/* A copy may not name memory of the worker. */
	CUgraphNodeParams copy = { .type = CU_GRAPH_NODE_TYPE_MEMCPY, .memcpy = { .copyParams = { .srcMemoryType = CU_MEMORYTYPE_HOST,
		.srcHost = record, .dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = 4096, .WidthInBytes = 8, .Height = 1, .Depth = 1 } } };
	call_put_u64(begin(), 0);
	call_put_u64(&out, 7);
	put_node(&copy, 0, NULL, 0);
	check_cuts(CALL_cuGraphNodeSetParams, CUDA_ERROR_INVALID_VALUE);
	copy.memcpy.copyParams.srcHost = (void *)(uintptr_t)(4096 | SESSION_FAR); /* this device could not ask for it */
	call_put_u64(begin(), 0);
	call_put_u64(&out, 7);
	put_node(&copy, 0, NULL, 0);
	check_cuts(CALL_cuGraphNodeSetParams, CUDA_ERROR_NOT_SUPPORTED);
	struct session_callback function = { .kind = SESSION_HOST_FUNCTION, .function = 5 };
	CUgraphNodeParams host = { .type = CU_GRAPH_NODE_TYPE_HOST };
	call_put_u64(begin(), 0);
	call_put_u64(&out, 7);
	put_node(&host, 0, &function, sizeof(function));
	check_cuts(CALL_cuGraphNodeSetParams, CUDA_SUCCESS);
}

TEST(lists_of_copies)
{
	uint64_t addresses[2] = { 0, 0 }, sizes[2] = { 8, 8 }, index = 0;
	CUmemcpyAttributes attributes = { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM };
	CUDA_MEMCPY3D_BATCH_OP box = { .src = { .type = CU_MEMCPY_OPERAND_TYPE_POINTER }, .dst = { .type = CU_MEMCPY_OPERAND_TYPE_POINTER },
		.extent = { 8, 1, 1 } };

	for (unsigned second = 0; second < 2; second++) {
		addresses[1] = second ? (uint64_t)(uintptr_t)record : 0;
		call_put_u64(begin(), 3);
		call_put_u64(&out, 2);
		call_put_u64(&out, 1);
		call_put_array(&out, addresses, 2, 8);
		call_put_array(&out, addresses, 2, 8);
		call_put_array(&out, sizes, 2, 8);
		call_put_array(&out, &attributes, 1, sizeof(attributes));
		call_put_array(&out, &index, 1, 8);
		check_cuts(CALL_cuMemcpyBatchAsync, second ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS);
	}
	call_put_u64(begin(), 3);
	call_put_u64(&out, 0);
	call_put_u64(&out, 1);
	call_put_array(&out, &box, 1, sizeof(box));
	check_cuts(CALL_cuMemcpy3DBatchAsync, CUDA_SUCCESS);
	CUDA_MEMCPY3D_PEER peer = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED, .srcDevice = (CUdeviceptr)(uintptr_t)record, .WidthInBytes = 8,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .Height = 1, .Depth = 1 };
	call_put(begin(), &peer, sizeof(peer));
	call_put_u64(&out, 0);
	check_cuts(CALL_cuMemcpy3DPeerAsync, CUDA_ERROR_INVALID_VALUE);
}

TEST(linker)
{
	uint32_t option = CU_JIT_OPTIMIZATION_LEVEL, wrapper[8] = { 0x466243b1u, 1 };
	uint64_t value = 3;
	CUresult result;

	call_put_array(begin(), &option, 1, 4);
	call_put_array(&out, &value, 1, 8);
	check_cuts(CALL_cuLinkCreate_v2, CUDA_SUCCESS);
	for (unsigned pointers = 0; pointers < 2; pointers++) {
		call_put_u64(begin(), 0); /* the state that the device above gave */
		call_put_u64(&out, CU_JIT_INPUT_FATBINARY);
		wrapper[0] = pointers ? 0x466243b1u : 0xba55ed50u;
		call_put_array(&out, wrapper, sizeof(wrapper), 1);
		call_put_string(&out, "name");
		call_put_array(&out, &option, 1, 4);
		call_put_array(&out, &value, 1, 8);
		if (pointers)
			CHECK(!serving_run(serving_of(CALL_cuLinkAddData_v2), record, out.at, &result));
		else
			check_cuts(CALL_cuLinkAddData_v2, CUDA_SUCCESS);
	}
	option = CU_JIT_GLOBAL_SYMBOL_NAMES;
	call_put_array(begin(), &option, 1, 4);
	call_put_array(&out, &value, 1, 8);
	CHECK(!serving_run(serving_of(CALL_cuLinkCreate_v2), record, out.at, &result));
	call_put_u64(begin(), 999);
	CHECK(serving_run(serving_of(CALL_cuLinkComplete), record, out.at, &result));
	CHECK_INT(result, CUDA_ERROR_INVALID_HANDLE);
	CHECK(serving_run(serving_of(CALL_cuLinkDestroy), record, out.at, &result));
	CHECK_INT(result, CUDA_ERROR_INVALID_HANDLE);
}

TEST(descriptors)
{
	call_put_u64(begin(), CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	call_put_u64(&out, 0);
	call_put_u64(&out, 12345); /* a tag under which nothing came */
	call_put_array(&out, NULL, 0, 1);
	check_cuts(CALL_cuMemImportFromShareableHandle, CUDA_ERROR_INVALID_VALUE);
}

TEST(stock)
{
	struct session_stock stock = { .kind = SESSION_STOCK_EVENT, .count = 4 };
	CUresult result;

	call_put(begin(), &stock, sizeof(stock));
	check_cuts((enum cuda_call_id)SESSION_STOCK, CUDA_ERROR_OUT_OF_MEMORY); /* no worker around it allows any */
	for (unsigned wrong = 0; wrong < 3; wrong++) {
		stock = (struct session_stock){ .kind = wrong == 0 ? SESSION_STOCK_KINDS : SESSION_STOCK_STREAM,
			.count = wrong == 1 ? 0 : wrong == 2 ? SESSION_STOCK_MAX + 1 : 4 };
		call_put(begin(), &stock, sizeof(stock));
		CHECK(!serving_run(serving_of((enum cuda_call_id)SESSION_STOCK), record, out.at, &result));
	}
}

/* ---- addresses for what the client registers ---- */

static CUresult
memory(enum session_memory_action action, uint64_t address, uint64_t size)
{
	static const struct serving serving = { (enum cuda_call_id)SESSION_MEMORY, sv_serve_memory };
	struct session_memory m = { action, address, size, SESSION_MEMORY_CLOSED, 0 };
	CUresult result = CUDA_ERROR_UNKNOWN;

	call_put(begin(), &m, sizeof(m));
	CHECK(serving_run(&serving, record, out.at, &result));
	return result;
}

static bool
is_free(uint64_t address)
{
	void *at = mmap((void *)(uintptr_t)address, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (at != MAP_FAILED)
		munmap(at, 4096);
	return at == (void *)(uintptr_t)address;
}

TEST(addresses_kept)
{
	const uint64_t part = 1 << 20;
	uint8_t *whole = mmap(NULL, 8 * part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t base = (uint64_t)(uintptr_t)whole;

	/* Mine lies in the middle of what the client says. What it says else is nonsense. */
	munmap(whole, 3 * part);
	munmap(whole + 4 * part, 4 * part);
	whole[3 * part] = 77;
	sv_addresses_keep((struct session_space[SESSION_USED]){ { base, 8 * part }, { base + 1, part }, { UINT64_MAX - 4095, 8192 },
		{ 4096, UINT64_MAX - 4095 }, { 0, part }, { 1ull << 46, 1ull << 47 }, { base + 4096, 0 } });
	CHECK(!is_free(base) && !is_free(base + 3 * part - 4096) && !is_free(base + 4 * part) && !is_free(base + 8 * part - 4096));
	CHECK_INT(memory(SESSION_MEMORY_MAP, base + part, part), CUDA_SUCCESS);
	CHECK_INT(memory(SESSION_MEMORY_MAP, base + part, part), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	CHECK_INT(memory(SESSION_MEMORY_MAP, base + 2 * part - 4096, 8192), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	CHECK_INT(memory(SESSION_MEMORY_MAP, base + 3 * part, 4096), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	CHECK_INT(memory(SESSION_MEMORY_MAP, base + 3 * part - 4096, 8192), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	CHECK_INT(memory(SESSION_MEMORY_MAP, base + 4 * part, 4 * part), CUDA_SUCCESS);
	CHECK_INT(memory(SESSION_MEMORY_OPEN, base + 4 * part, 4 * part), CUDA_SUCCESS);
	whole[4 * part] = 1;
	CHECK_INT(memory(SESSION_MEMORY_UNMAP, base + 3 * part, part), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(memory(SESSION_MEMORY_UNMAP, base + part, part), CUDA_SUCCESS);
	CHECK_INT(memory(SESSION_MEMORY_UNMAP, base + 4 * part, 4 * part), CUDA_SUCCESS);
	CHECK(!is_free(base + part) && !is_free(base + 4 * part)); /* kept for the next one */
	CHECK_INT(memory(SESSION_MEMORY_MAP, base, 3 * part), CUDA_SUCCESS);
	CHECK_INT(memory(SESSION_MEMORY_UNMAP, base, 3 * part), CUDA_SUCCESS);
	CHECK_INT(whole[3 * part], 77);
}

/* ---- managed memory of a device that chooses its addresses ---- */

static uint8_t *pages;                   /* what it has: two pages with one of this process between them */
static bool is_there[2];
static unsigned copied;

static CUresult
give_page(CUdeviceptr *p, size_t size, unsigned flags)
{
	*p = (CUdeviceptr)(uintptr_t)(pages + (flags ? 8192 : 0)) + 16;
	is_there[flags != 0] = true;
	return size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult
end_page(CUdeviceptr p)
{
	is_there[p >= (CUdeviceptr)(uintptr_t)pages + 8192] = false;
	return CUDA_SUCCESS;
}

static CUresult
whose(void *data, CUpointer_attribute attribute, CUdeviceptr p)
{
	CUdeviceptr first = (CUdeviceptr)(uintptr_t)pages;
	unsigned managed = (p - first < 4096 && is_there[0]) || (p - first - 8192 < 4096 && is_there[1]);

	CHECK_INT(attribute, CU_POINTER_ATTRIBUTE_IS_MANAGED);
	memcpy(data, &managed, sizeof(managed));
	return CUDA_SUCCESS;
}

/* The driver copies where the CPU may not read. */
static CUresult
copy_closed(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
	(void)stream;
	copied++;
	mprotect(pages, 12288, PROT_READ | PROT_WRITE);
	memcpy(to, (void *)(uintptr_t)from, size);
	mprotect(pages, 12288, PROT_NONE);
	return CUDA_SUCCESS;
}

TEST(managed_pages)
{
	struct cuda_ops device = *serving_device();
	uint8_t out_[4096];
	CUdeviceptr p, q;

	pages = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(pages, 7, 12288);
	device.cuMemAllocManaged = give_page;
	device.cuMemFree_v2 = end_page;
	device.cuPointerGetAttribute = whose;
	device.cuMemcpyDtoHAsync_v2 = copy_closed;
	const struct cuda_ops *watched = sv_managed_watch(&device);
	uint64_t first = (uint64_t)(uintptr_t)pages;
	CHECK(!sv_managed_covers(first, 4096) && !sv_managed_move(out_, first, 16, false));
	CHECK_INT(watched->cuMemAllocManaged(&p, 100, 0), CUDA_SUCCESS);
	CHECK_INT(watched->cuMemAllocManaged(&q, 100, 1), CUDA_SUCCESS);
	/* Whole pages, and not one byte of what lies before, between or behind them; nor what both ends are of. */
	CHECK(sv_managed_covers(first, 4096) && sv_managed_covers(first + 4095, 1) && sv_managed_covers(first + 8192, 4096));
	CHECK(!sv_managed_covers(first - 1, 2) && !sv_managed_covers(first, 4097) && !sv_managed_covers(first + 4096, 1));
	CHECK(!sv_managed_covers(first, 12288) && !sv_managed_covers(first + 8191, 2) && !sv_managed_covers(first + 12288, 1));
	CHECK(!sv_managed_covers(first, UINT64_MAX) && !sv_managed_covers(UINT64_MAX, 1) && !sv_managed_covers(0, 1) && !sv_managed_covers(first, 0));
	out_[0] = 1;
	CHECK(sv_managed_move(out_, first + 20, 1, true) && pages[20] == 1);
	CHECK(!sv_managed_move(out_, first + 4090, 10, true) && pages[4090] == 7);
	mprotect(pages, 12288, PROT_NONE);
	memset(out_, 9, sizeof(out_));
	CHECK(sv_managed_move(out_, first, 4096, false)); /* by the driver, and no more than what is allocated */
	CHECK(copied == 1 && out_[15] == 0 && out_[16] == 7 && out_[20] == 1 && out_[115] == 7 && out_[116] == 0 && out_[4095] == 0);
	mprotect(pages, 12288, PROT_READ | PROT_WRITE);
	CHECK_INT(watched->cuMemFree_v2(p), CUDA_SUCCESS);
	CHECK(!sv_managed_covers(first, 1) && sv_managed_covers(first + 8192, 1));
	is_there[1] = false; /* it ends unseen */
	CHECK(!sv_managed_covers(first + 8192, 1) && !sv_managed_move(out_, first + 8192, 1, false));
	CHECK_INT(watched->cuMemAllocManaged(&q, 5000, 1), CUDA_SUCCESS); /* in the place of what has ended */
	CHECK(sv_managed_covers(first + 8192, 4096));
	CHECK_INT(watched->cuMemFree_v2(q), CUDA_SUCCESS);
	CHECK(!sv_managed_covers(first + 8192, 1));
	munmap(pages, 12288);
}

TEST(marks)
{
	struct session_marks marks = { .tag = 12345 }; /* under which nothing came */
	struct session_record mark = { .event = 1, .number = 1, .slot = 1 };
	CUresult result;

	call_put(begin(), &mark, sizeof(mark));
	CHECK(!serving_run(serving_of((enum cuda_call_id)SESSION_RECORD), record, out.at, &result)); /* there are none */
	call_put(begin(), &marks, sizeof(marks));
	check_cuts((enum cuda_call_id)SESSION_MARKS, CUDA_ERROR_INVALID_VALUE);
	marks.tag = 0;
	call_put(begin(), &marks, sizeof(marks));
	check_cuts((enum cuda_call_id)SESSION_MARKS, CUDA_SUCCESS);
	check_cuts((enum cuda_call_id)SESSION_MARKS, CUDA_ERROR_INVALID_VALUE); /* once */
	call_put(begin(), &mark, sizeof(mark));
	check_cuts((enum cuda_call_id)SESSION_RECORD, CUDA_SUCCESS);
	static const uint32_t outside[] = { SESSION_MARKS_COUNT, SESSION_MARKS_COUNT + 1, UINT32_MAX };
	for (unsigned n = 0; n < 3; n++) {
		mark.slot = outside[n];
		call_put(begin(), &mark, sizeof(mark));
		CHECK(!serving_run(serving_of((enum cuda_call_id)SESSION_RECORD), record, out.at, &result));
	}
}

/* Numbers of all sizes in all places; what is not a call is refused, what is one is served, nothing else happens. */
TEST(random_records)
{
	static const uint64_t numbers[] = { 0, 1, 2, 3, 7, 8, 64, 256, 4096, 65536, 1ull << 31, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX };
	uint64_t seed = 88172645463325252u, served = 0, refused = 0;
	CUresult result;

	for (unsigned round = 0; round < 8000; round++) {
		const struct serving *serving = &servings[round % SERVINGS];
		size_t size = 0;
		for (size_t n = 0; n < sizeof(record); n += 8) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			uint64_t word = seed % 3 ? numbers[seed / 3 % (sizeof(numbers) / sizeof(numbers[0]))] : seed % 64;
			memcpy(record + n, &word, 8);
			if (n == 0)
				size = seed / 16 % (round % 4 ? 512 : sizeof(record));
		}
		if (serving_run(serving, record, size, &result))
			served++;
		else
			refused++;
	}
	CHECK(served > 100 && refused > 100);
}

TEST_MAIN()
