/* The reader of .modinfo: a module's version, license and signature; a cut or damaged file is an error. */
#include "doctor/modinfo.h"
#include "tests/tap.h"

static struct dr_modinfo info;
static struct in_error error;

static uint8_t *
load(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = calloc(1, 65536);

	*size = file && bytes ? fread(bytes, 1, 65536, file) : 0;
	if (file)
		fclose(file);
	return bytes;
}

static bool
look(const uint8_t *bytes, size_t size)
{
	struct in_source source = in_source_memory(bytes, size);
	return dr_modinfo_read(&info, &source, &error);
}

TEST(what_a_module_says)
{
	size_t size;
	uint8_t *bytes = load(CORPUS "/signed", &size);

	CHECK(look(bytes, size));
	CHECK_STR(info.version, "570.195.03");
	CHECK_STR(info.license, "Dual MIT/GPL");
	CHECK(info.is_signed);
	free(bytes);
	bytes = load(CORPUS "/plain", &size);
	CHECK(look(bytes, size));
	CHECK_STR(info.version, "550.54.14");
	CHECK_STR(info.license, "NVIDIA");
	CHECK(!info.is_signed);
	bytes[4] = 1; /* 32-bit */
	CHECK(!look(bytes, size) && error.text[0]);
	free(bytes);
}

/* Each beginning is an error, for the table of sections is last; a copy, so that a read past its end is caught. */
TEST(cut_at_every_byte)
{
	size_t size;
	uint8_t *bytes = load(CORPUS "/plain", &size);

	CHECK(size > 200);
	for (size_t n = 0; n < size; n++) {
		uint8_t *copy = malloc(n ? n : 1);
		if (!copy)
			abort();
		memcpy(copy, bytes, n);
		error.text[0] = 0;
		CHECK(!look(copy, n) && error.text[0]);
		free(copy);
	}
	free(bytes);
}

TEST(numbers_that_lie)
{
	size_t size;
	uint8_t *bytes = load(CORPUS "/plain", &size);
	static const struct { size_t from_header, from_end; } places[] = {
		{ 40, 0 }, { 58, 0 }, { 60, 0 }, { 62, 0 }, { 0, 128 - 24 }, { 0, 128 - 32 }, { 0, 64 - 24 }, { 0, 64 - 32 } };

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		uint8_t *at = bytes + (places[i].from_header ? places[i].from_header : size - places[i].from_end), kept[2];
		memcpy(kept, at, 2);
		memset(at, 0xff, 2);
		bool read = look(bytes, size);
		CHECK(!read || !info.version[0]); /* a lie about where texts lie finds none of them */
		memcpy(at, kept, 2);
	}
	CHECK(look(bytes, size));
	free(bytes);
}

TEST_MAIN()
