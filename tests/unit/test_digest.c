/* BLAKE2b and the digest made of it, beside what Python's hashlib gives for the same bytes. */
#include "base/digest.h"
#include "tests/tap.h"

static uint8_t data[100001];

static void
fill(void)
{
	for (size_t n = 0; n < sizeof(data); n++)
		data[n] = (uint8_t)(n * 7 + n / 251);
}

/* The first 16 bytes as text. */
static const char *
text(const uint8_t *digest)
{
	static char hex[33];

	for (unsigned n = 0; n < 16; n++)
		snprintf(hex + 2 * n, 3, "%02x", digest[n]);
	return hex;
}

TEST(digest)
{
	static const struct {
		size_t size;
		const char *want;
	} rows[] = {
		{ 0, "d1772ded03bda173aacbb853e8d706ae" }, { 1, "ccbc15efd79a01132643b496a1640d7e" }, { 127, "5d294c0aaf64dbc0f84f8ac449342d5b" },
		{ 128, "ad85e7b947a335eea1f7b247a7386e7f" }, { 511, "9d0a7827de098bdca6492122f4d75cf8" }, { 512, "c629e0112d5b477ac856657069b3d731" },
		{ 513, "9be2f9cdad862c9bd457009b166bf275" }, { 1024, "cf28aa81838aa672b32122024e21506b" }, { 1025, "61e8656293006fe192ee99cca66e1d96" },
		{ 100000, "851da6500b6415259262035e14d5ae2f" },
	};
	uint8_t digest[FW_DIGEST], again[FW_DIGEST];

	fill();
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		fw_digest(data, rows[n].size, digest);
		CHECK_STR(text(digest), rows[n].want);
		memmove(data + 1, data, 100000); /* wherever it lies */
		fw_digest(data + 1, rows[n].size, again);
		CHECK(memcmp(digest, again, sizeof(digest)) == 0);
		fill();
	}
	/* What is filled up is not what has zeros at its end. */
	memset(data, 0, sizeof(data));
	fw_digest(data, 600, digest);
	fw_digest(data, 1024, again);
	CHECK(memcmp(digest, again, sizeof(digest)) != 0);
}

TEST(blake2b)
{
	static const struct {
		size_t key, size;
		const char *want;
	} rows[] = {
		{ 0, 0, "0e5751c026e543b2e8ab2eb06099daa1" }, { 0, 128, "14696d2a98d9f8a280da8b132b1045b3" },
		{ 0, 129, "3934215260b1039be9d9d2b073b059bc" }, { 0, 1000, "215bbdb5d56e0153eca48cbf15747f1d" },
		{ 32, 0, "d06b530dd4df6d3b517ec2a927a8463c" }, { 32, 32, "b747c114f264439c7862b0ca2b886fb6" },
		{ 64, 128, "35dab288f3ac522d9143227f7199fe74" }, { 64, 300, "ca3bf1fa742622071ea9441dc62cecb6" },
	};
	uint8_t digest[32];

	fill();
	for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
		fw_blake2b(rows[n].key ? data + 5 : NULL, rows[n].key, data, rows[n].size, digest, sizeof(digest));
		CHECK_STR(text(digest), rows[n].want);
	}
	/* RFC 7693, appendix A */
	uint8_t whole[64];
	fw_blake2b(NULL, 0, "abc", 3, whole, sizeof(whole));
	CHECK_STR(text(whole), "ba80a53f981c4d0d6a2797b69f12f6e9");
}

TEST_MAIN()
