/*
 * The readers of farwarp inspect on files that are whole, cut at every byte and changed at every byte. Each input is in memory of exactly its
 * size, so that a checker sees a byte too many. INSPECT_SAMPLE is a library made of sample.c.
 */
#define TAP_SECONDS 240
#include "tests/tap.h"

#include "inspect/inspect.h"
#include "tests/inspect/build.h"

static uint8_t *sample;
static size_t sample_size;

static void
load_sample(void)
{
	FILE *file = fopen(getenv("INSPECT_SAMPLE"), "rb");

	sample = malloc(1 << 20);
	sample_size = file ? fread(sample, 1, 1 << 20, file) : 0;
	CHECK(sample_size > 1000 && sample_size < 1 << 20);
	if (file)
		fclose(file);
}

/* Reads bytes as an ELF file with its kernels. */
static bool
read_elf(const void *data, size_t size, struct in_elf *elf, struct in_kernels *kernels)
{
	static const struct in_device device = { .cc = 90 };
	uint8_t *exact = malloc(size ? size : 1);
	struct in_error error = { "" };

	memcpy(exact, data, size);
	struct in_source source = in_source_memory(exact, size);
	bool fine = in_elf_read(elf, &source, &error);
	if (fine)
		in_kernels_read(kernels, elf, &source, &device);
	else
		CHECK(error.text[0]);
	free(exact);
	return fine;
}

TEST(reads_a_library)
{
	struct in_elf elf;
	struct in_kernels kernels;

	load_sample();
	CHECK(read_elf(sample, sample_size, &elf, &kernels));
	CHECK(elf.readable && elf.dynamic && !elf.program && elf.versioned);
	CHECK_STR(elf.soname, "libsample.so.1");
	CHECK_STR(elf.runpath, "$ORIGIN/../lib");
	CHECK(in_defines_version(&elf, "SAMPLE_1") && in_defines_version(&elf, "SAMPLE_2") && !in_defines_version(&elf, "SAMPLE_3"));
	CHECK_INT(elf.export_count, 2);
	CHECK_INT(elf.undefined_count, 1);
	CHECK(elf.undefined[0].weak && strcmp(elf.undefined[0].name, "versioned") == 0);
	CHECK(elf.data_count >= 1 && elf.constant[0] && elf.data[0].size >= 13);
	CHECK_INT(kernels.modules, 1);
	CHECK_INT(kernels.arch_count, 2);
	CHECK_INT(kernels.native, 1);
	CHECK(!kernels.archs[0].ptx && kernels.archs[0].arch == 90 && kernels.archs[0].suffix == 'a');
	CHECK(kernels.archs[1].ptx && kernels.archs[1].arch == 80 && kernels.archs[1].newest == 84);
	CHECK_STR(kernels.damage.text, "");
	in_elf_free(&elf);
}

TEST(a_library_cut_at_every_byte)
{
	struct in_elf elf;
	struct in_kernels kernels;
	size_t fine = 0;

	load_sample();
	for (size_t size = 0; size < sample_size; size++)
		if (read_elf(sample, size, &elf, &kernels)) {
			fine++;
			in_elf_free(&elf);
		}
	CHECK_INT(fine, 0); /* its section headers stand at the end */
}

TEST(a_library_changed_at_every_byte)
{
	static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff };
	struct in_elf elf;
	struct in_kernels kernels;

	load_sample();
	for (size_t at = 0; at < sample_size; at++)
		for (size_t v = 0; v < sizeof(values); v++) {
			uint8_t before = sample[at];
			sample[at] = values[v];
			if (read_elf(sample, sample_size, &elf, &kernels))
				in_elf_free(&elf);
			sample[at] = before;
		}
}

/* Opens bytes as an archive and reads every member; -1 refused, else how many could be read. */
static int
read_zip(const void *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	struct in_error error = { "" };
	struct in_zip zip;
	int count = -1;

	memcpy(exact, data, size);
	struct in_source source = in_source_memory(exact, size);
	if (in_zip_open(&zip, &source, &error)) {
		count = 0;
		for (size_t n = 0; n < zip.count; n++) {
			struct fw_cursor copy;
			if (in_zip_load(&zip, &zip.members[n], 1 << 20, &copy, &error))
				count++;
			in_unload(&copy);
		}
		in_zip_close(&zip);
	} else {
		CHECK(error.text[0]);
	}
	free(exact);
	return count;
}

TEST(a_wheel_cut_at_every_byte)
{
	load_sample();
	for (int packed = 0; packed < 2; packed++) {
		struct archive a = { 0 };
		wheel_build(&a, sample, sample_size, packed);
		CHECK_INT(read_zip(a.file.data, a.file.size), 4);
		int refused = 0;
		for (size_t size = 0; size < a.file.size; size++)
			refused += read_zip(a.file.data, size) < 0;
		CHECK_INT(refused, a.file.size);
		free(a.file.data);
	}
}

TEST(a_wheel_changed_at_every_byte)
{
	load_sample();
	for (int packed = 0; packed < 2; packed++) {
		struct archive a = { 0 };
		size_t whole = 0;
		wheel_build(&a, sample, sample_size, packed);
		for (size_t at = 0; at < a.file.size; at++) {
			a.file.data[at] ^= 0xff;
			whole += read_zip(a.file.data, a.file.size) == 4;
			a.file.data[at] ^= 0xff;
		}
		/* What may change unnoticed: times, versions and attributes, some 30 bytes a member. */
		CHECK(whole < 4 * 40);
		free(a.file.data);
	}
}

/* The whole report of a wheel in memory, as far as it depends on the wheel. */
static void
inspect_wheel(const void *data, size_t size)
{
	static const struct in_options options = { .device = { .cc = 90 }, .root = "/proc/self/fdinfo" };
	struct in_inspector inspector;
	uint8_t *exact = malloc(size ? size : 1);

	memcpy(exact, data, size);
	struct in_source source = in_source_memory(exact, size);
	in_inspector_open(&inspector, &options);
	inspector.world.site = "/site";
	struct in_report *report = in_inspect_wheel(&inspector, "demo-1.0-cp311-cp311-linux_x86_64.whl", &source);
	const struct in_finding *why;
	const struct in_report *where;
	CHECK(report != NULL);
	if (report)
		in_verdict(report, &why, &where);
	in_report_free(report);
	in_inspector_close(&inspector);
	free(exact);
}

TEST(a_wheel_reported_whole_and_changed)
{
	struct archive a = { 0 };

	load_sample();
	wheel_build(&a, sample, sample_size, 0);
	inspect_wheel(a.file.data, a.file.size);
	for (size_t at = 0; at < a.file.size; at += 3) {
		a.file.data[at] ^= 0x55;
		inspect_wheel(a.file.data, a.file.size);
		a.file.data[at] ^= 0x55;
	}
	free(a.file.data);
}

#ifdef FARWARP_ZLIB
TEST(deflated_bytes_are_read_anywhere)
{
	enum { SIZE = 24 << 20 };
	uint8_t *data = malloc(SIZE), *part = malloc(1 << 20);
	uint32_t state = 1;

	/* Runs of bytes, so that it packs and blocks are of many lengths. */
	for (size_t n = 0; n < SIZE;) {
		state = state * 1664525 + 1013904223;
		for (uint32_t run = state >> 20 & 63; run-- && n < SIZE;)
			data[n++] = (uint8_t)(state >> 8 & 0x3f);
	}
	struct blob packed = { 0 };
	deflated(data, SIZE, &packed);
	struct in_source outer = in_source_memory(packed.data, packed.size), source;
	struct in_error error = { "" };
	CHECK(in_source_deflate(&source, &outer, 0, packed.size, SIZE, crc_of(data, SIZE), &error));
	for (int n = 0; n < 300; n++) {
		state = state * 1664525 + 1013904223;
		size_t at = (state >> 2) % SIZE, size = state >> 14 & 0xffff;
		if (n % 10 == 0)
			size = 1 << 20;
		bool inside = size <= SIZE - at;
		CHECK(in_read(&source, at, part, size) == inside);
		CHECK(!inside || memcmp(part, data + at, size) == 0);
	}
	in_source_close(&source);
	/* A length or a checksum that is not the data's. */
	CHECK(!in_source_deflate(&source, &outer, 0, packed.size, SIZE - 1, crc_of(data, SIZE), &error) && strstr(error.text, "more than"));
	CHECK(!in_source_deflate(&source, &outer, 0, packed.size, SIZE + 1, crc_of(data, SIZE), &error) && strstr(error.text, "not the"));
	CHECK(!in_source_deflate(&source, &outer, 0, packed.size, SIZE, 1, &error) && strstr(error.text, "checksum"));
	CHECK(!in_source_deflate(&source, &outer, 0, packed.size - 9, SIZE, 1, &error) && strstr(error.text, "cut short"));
	free(packed.data);
	free(part);
	free(data);
}
#endif

TEST(a_file_that_shrinks_is_an_error)
{
	char path[] = "/tmp/farwarp-inspect-XXXXXX";
	int fd = mkstemp(path);
	struct in_source source;
	char bytes[100];

	CHECK(fd >= 0 && ftruncate(fd, 1000) == 0);
	CHECK(in_source_fd(&source, fd, NULL));
	CHECK(in_read(&source, 900, bytes, 100) && !in_read(&source, 901, bytes, 100));
	CHECK(truncate(path, 950) == 0);
	CHECK(!in_read(&source, 900, bytes, 100));
	in_source_close(&source);
	unlink(path);
}

TEST_MAIN()
