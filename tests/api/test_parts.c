/*
 * Parts of the client that are worth testing without the library around them: MD2 and its keyed form, settings, formatting.
 */
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

/* Every call's text, cut at every length, stays inside its buffer. */
TEST(format_cut)
{
	char whole[1024], part[1024];
	uint64_t zeros[32] = { 0 };
	const void *args[32];

	for (int i = 0; i < 32; i++)
		args[i] = &zeros[i];
	for (int call = 0; call < CALL_COUNT; call++) {
		size_t length = call_format(whole, sizeof(whole), (enum cuda_call_id)call, args, true);
		CHECK_INT(length, strlen(whole));
		CHECK(strncmp(whole, call_descs[call].name, strlen(call_descs[call].name)) == 0);
		for (size_t size = 1; size <= length; size += 7) {
			memset(part, 'x', sizeof(part));
			CHECK_INT(call_format(part, size, (enum cuda_call_id)call, args, true), size - 1);
			CHECK(strlen(part) == size - 1 && part[size] == 'x' && strncmp(part, whole, size - 1) == 0);
		}
	}
}

TEST_MAIN()
