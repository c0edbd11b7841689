/*
 * Parts of the client that are worth testing without the library around them: MD2 and its keyed form, settings, formatting.
 */
#include <sys/mman.h>

#include "tap.h"

#include "call/format.h"
#include "client/client.h"
#include "soft/soft.h"

static const char *
hex(const uint8_t digest[16])
{
	static char text[33];

	for (int i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	return text;
}

/* The test suite of RFC 1319. */
TEST(md2)
{
	static const char *const rows[][2] = {
		{ "", "8350e5a3e24c153df2275c9f80692773" },
		{ "a", "32ec01ec4a6dac72c0ab96fb34c0b5d1" },
		{ "abc", "da853b0d3f88d99b30283a69e6ded6bb" },
		{ "message digest", "ab4f496bfb2a530b219ff33031fe06b0" },
		{ "abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b" },
		{ "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "da33def2a42df13975352846c30338cd" },
		{ "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
		  "d5976f79d83d3a0dc9806c3c66f3efd8" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t digest[16];
		cl_md2(rows[i][0], strlen(rows[i][0]), digest);
		CHECK_STR(hex(digest), rows[i][1]);
	}
}

/* RFC 2104, step by step, with MD2 and a key of one block. */
TEST(hmac)
{
	uint8_t key[16], message[100], inner[16 + sizeof(message)], outer[32], want[16], got[16];

	for (size_t i = 0; i < sizeof(message); i++)
		message[i] = (uint8_t)(3 * i + 1);
	for (int i = 0; i < 16; i++) {
		key[i] = (uint8_t)(17 * i);
		inner[i] = key[i] ^ 0x36;
		outer[i] = key[i] ^ 0x5c;
	}
	memcpy(inner + 16, message, sizeof(message));
	cl_md2(inner, sizeof(inner), outer + 16);
	cl_md2(outer, sizeof(outer), want);
	cl_hmac_md2(key, message, sizeof(message), got);
	CHECK(memcmp(want, got, 16) == 0);
	cl_hmac_md2(key, message, 0, got);
	CHECK(memcmp(want, got, 16) != 0);
}

TEST(capability)
{
	CHECK_INT(sw_settings_capability("8.6"), 86);
	CHECK_INT(sw_settings_capability("86"), 86);
	CHECK_INT(sw_settings_capability("12.1"), 121);
	CHECK_INT(sw_settings_capability("121"), 121);
	CHECK_INT(sw_settings_capability("8"), 0);
	CHECK_INT(sw_settings_capability(""), 0);
	CHECK_INT(sw_settings_capability("-8.6"), 0);
	CHECK_INT(sw_settings_capability("8.6a"), 0);
	CHECK_INT(sw_settings_capability("8.66"), 0);
	CHECK_INT(sw_settings_capability("sm_86"), 0);
}

TEST(size)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} rows[] = {
		{ "1", 1 }, { "4096", 4096 }, { "1k", 1024 }, { "2K", 2048 }, { "512M", 512ull << 20 }, { "8G", 8ull << 30 },
		{ "8GB", 8ull << 30 }, { "8GiB", 8ull << 30 }, { "1.5G", 3ull << 29 }, { "2T", 2ull << 40 }, { "0", 0 },
		{ "", 0 }, { "G", 0 }, { "-1", 0 }, { "1X", 0 }, { "1GG", 0 }, { "99999999999T", 0 }, { "nan", 0 }, { "1e400", 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t bytes = 0;
		bool read = sw_settings_size(rows[i].text, &bytes);
		if (read != (rows[i].bytes != 0) || bytes != rows[i].bytes)
			printf("# \"%s\"\n", rows[i].text);
		CHECK_INT(read, rows[i].bytes != 0);
		CHECK_INT(bytes, rows[i].bytes);
	}
}

/* Every call's text, cut at every length, stays inside its buffer; for pointers that are NULL, that point nowhere, and that point somewhere. */
TEST(format_cut)
{
	static char whole[8192], part[8192], memory[4096];
	const uint64_t values[] = { 0, 0x1234567, (uint64_t)(uintptr_t)memory };
	uint64_t words[32][32] = { { 0 } };
	const void *args[32];

	memset(memory, 'a', sizeof(memory));
	for (int round = 0; round < 6; round++) {
		enum call_style style = round & 1 ? CALL_JSON : CALL_TEXT;
		for (int call = 0; call < CALL_COUNT; call++) {
			const struct call_desc *desc = &call_descs[call];
			for (unsigned i = 0; i < 32; i++) {
				bool pointer = i < desc->param_count && desc->params[i].shape != CALL_SHAPE_VALUE;
				/* A count is read by the call itself, wherever it lies. */
				bool counts = false;
				for (unsigned n = 0; n < desc->param_count; n++)
					counts |= desc->params[n].shape == CALL_SHAPE_ARRAY_AT && desc->params[n].other == i;
				memset(words[i], 0, sizeof(words[i]));
				words[i][0] = pointer ? counts && round / 2 == 1 ? (uint64_t)(uintptr_t)memory : values[round / 2] : 3;
				args[i] = words[i];
			}
			for (int out = 0; out < 2; out++) {
				size_t (*format)(char *, size_t, enum call_style, enum cuda_call_id, const void *const *) =
					out ? call_format_outputs : call_format_inputs;
				size_t length = format(whole, sizeof(whole), style, (enum cuda_call_id)call, args);
				CHECK_INT(length, strlen(whole));
				for (size_t size = 1; size <= length; size += 1 + length / 16) {
					memset(part, 'x', sizeof(part));
					CHECK_INT(format(part, size, style, (enum cuda_call_id)call, args), size - 1);
					CHECK(strlen(part) == size - 1 && part[size] == 'x' && strncmp(part, whole, size - 1) == 0);
				}
			}
		}
	}
}

TEST(format_values)
{
	char text[1024];
	CUdeviceptr pointer = 0x7f0000001000;
	CUdeviceptr *out = &pointer;
	size_t size = 4096, *sizes = &size;
	CUdevice_attribute attribute = CU_DEVICE_ATTRIBUTE_WARP_SIZE;
	int warp = 32, *pi = &warp;
	CUdevice device = 0;

	call_format_inputs(text, sizeof(text), CALL_TEXT, CALL_cuMemAlloc_v2, (const void *[]){ &out, &size });
	CHECK(strcmp(text, "bytesize 4096") == 0);
	call_format_outputs(text, sizeof(text), CALL_TEXT, CALL_cuMemAlloc_v2, (const void *[]){ &out, &size });
	CHECK(strcmp(text, "dptr 0x7f0000001000") == 0);
	call_format_outputs(text, sizeof(text), CALL_JSON, CALL_cuMemAlloc_v2, (const void *[]){ &out, &size });
	CHECK(strcmp(text, "\"dptr\":\"0x7f0000001000\"") == 0);
	call_format_inputs(text, sizeof(text), CALL_TEXT, CALL_cuDeviceGetAttribute, (const void *[]){ &pi, &attribute, &device });
	CHECK(strcmp(text, "attrib CU_DEVICE_ATTRIBUTE_WARP_SIZE, dev 0") == 0);
	out = NULL;
	call_format_inputs(text, sizeof(text), CALL_TEXT, CALL_cuMemGetAddressRange_v2, (const void *[]){ &out, &sizes, &pointer });
	CHECK(strcmp(text, "pbase NULL, dptr 0x7f0000001000") == 0);
	CUDA_MEMCPY2D copy = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = 0x1000, .dstMemoryType = CU_MEMORYTYPE_HOST, .Height = 7 }, *at = &copy;
	call_format_inputs(text, sizeof(text), CALL_TEXT, CALL_cuMemcpy2D_v2, (const void *[]){ &at });
	CHECK(strstr(text, "pCopy {srcXInBytes 0, ") == text);
	CHECK(strstr(text, "srcMemoryType CU_MEMORYTYPE_DEVICE, srcHost NULL, srcDevice 0x1000, ") != NULL);
	CHECK(strstr(text, "Height 7}") != NULL);
	CUlaunchConfig config = { .gridDimX = 4, .blockDimX = 32, .hStream = CU_STREAM_PER_THREAD }, *launch = &config;
	CUfunction function = NULL;
	void **params = NULL;
	call_format_inputs(text, sizeof(text), CALL_TEXT, CALL_cuLaunchKernelEx, (const void *[]){ &launch, &function, &params, &params });
	CHECK(strstr(text, "config {gridDimX 4, gridDimY 0, ") == text && strstr(text, "hStream CU_STREAM_PER_THREAD") != NULL);
	const char *name = "a\"b\n";
	call_format_inputs(text, sizeof(text), CALL_JSON, CALL_cuDeviceGetByPCIBusId, (const void *[]){ &pi, &name });
	CHECK(strcmp(text, "\"pciBusId\":\"a\\u0022b\\u000a\"") == 0);
	/* A string up to the end of what is mapped. */
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	munmap(page + 4096, 4096);
	name = memcpy(page + 4096 - 4, "end", 4);
	call_format_inputs(text, sizeof(text), CALL_TEXT, CALL_cuDeviceGetByPCIBusId, (const void *[]){ &pi, &name });
	CHECK(strcmp(text, "pciBusId \"end\"") == 0);
	munmap(page, 4096);
}

TEST_MAIN()
