/*
 * The readers of src/image on inputs of our own making: right ones, cut ones (copied to the very end of a page, so that one byte
 * too many is a crash), lying headers, sizes of decompression bombs.
 */
#include "image/image.h"
#include "tests/image/build.h"
#include "tests/tap.h"

#include <sys/mman.h>

static const char ptx75[] = ".version 7.5\n.target sm_75\n.address_size 64\n.visible .entry k1() { ret; }\n";
static const char ptx90[] = ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k1() { ret; }\n";
static const struct img_device device86 = { .cc = 86, .max_ptx = 91 };

/* The bytes so placed that the byte behind them is not readable. Release with unplace. */
static uint8_t *
place(const void *bytes, size_t size)
{
	size_t pages = (size + 4095) / 4096 * 4096;
	uint8_t *map = mmap(NULL, pages + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(map + pages, 4096, PROT_NONE);
	memcpy(map + pages - size, bytes, size);
	return map + pages - size;
}

static void
unplace(uint8_t *bytes, size_t size)
{
	size_t pages = (size + 4095) / 4096 * 4096;

	munmap(bytes + size - pages, pages + 4096);
}

/* Everything that can be asked of any image, for cut and damaged ones: no crash, no read outside. */
static void
read_all(const void *image, size_t size)
{
	struct img_fatbin fatbin;
	struct img_entry entry;
	struct img_elf elf;
	struct img_sources sources;
	struct img_payload payload;
	size_t length;

	struct img_object object;
	const void *inside;

	img_recognise(image, size);
	if (!img_object_open(&object, image, size, NULL))
		while (img_object_next(&object, &inside, &length, NULL) > 0)
			;
	img_length(image, size, &length, NULL);
	if (!img_fatbin_open(&fatbin, image, size, NULL))
		while (img_fatbin_next(&fatbin, &entry, NULL) > 0)
			if (img_entry_read(&entry, &payload, NULL) == IMG_OK)
				img_payload_free(&payload);
	if (img_choose(image, size, &device86, &sources, NULL) == IMG_OK) {
		img_sources_keep(&sources);
		img_sources_free(&sources);
	}
	if (!img_elf_open(&elf, image, size, NULL)) {
		struct img_section section;
		struct img_symbol symbol;
		struct img_param params[4];
		uint32_t total;
		for (uint32_t i = 0; i < elf.section_count; i++)
			img_elf_section(&elf, i, &section);
		for (uint32_t i = 0; i < img_elf_symbol_count(&elf); i++)
			if (!img_elf_symbol(&elf, i, &symbol) && symbol.kind == IMG_SYMBOL_KERNEL)
				img_elf_params(&elf, symbol.name, params, 4, &total);
	}
}

static void
cut_everywhere(const struct blob *blob)
{
	for (size_t size = 0; size < blob->size; size++) {
		uint8_t *image = place(blob->data, size);
		struct img_sources sources;
		read_all(image, size);
		enum img_status status = img_choose(image, size, &device86, &sources, NULL);
		CHECK(status == IMG_INVALID);
		if (status == IMG_OK)
			img_sources_free(&sources);
		unplace(image, size);
	}
}

/* Each byte replaced by each of some values. */
static void
damage_everywhere(const struct blob *blob)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	uint8_t *image = place(blob->data, blob->size);

	for (size_t i = 0; i < blob->size; i++) {
		uint8_t old = image[i];
		for (size_t v = 0; v < sizeof(values); v++) {
			image[i] = values[v];
			read_all(image, blob->size);
		}
		image[i] = old;
	}
	unplace(image, blob->size);
}

TEST(recognises)
{
	CHECK_INT(img_recognise("\xb1\x43\x62\x46", 4), IMG_WRAPPER);
	CHECK_INT(img_recognise("\x50\xed\x55\xba", 4), IMG_FATBIN);
	CHECK_INT(img_recognise("\x7f" "ELF", 4), IMG_ELF);
	CHECK_INT(img_recognise("\x7f" "EL", 3), IMG_UNKNOWN);
	CHECK_INT(img_recognise(ptx75, IMG_SIZE_UNKNOWN), IMG_PTX);
	CHECK_INT(img_recognise("\n   .version 5.0", IMG_SIZE_UNKNOWN), IMG_PTX);
	CHECK_INT(img_recognise("// a\n/* b */ .version 5.0", IMG_SIZE_UNKNOWN), IMG_PTX);
	CHECK_INT(img_recognise("/* never ends", IMG_SIZE_UNKNOWN), IMG_UNKNOWN);
	CHECK_INT(img_recognise("", IMG_SIZE_UNKNOWN), IMG_UNKNOWN);
	CHECK_INT(img_recognise("hello", IMG_SIZE_UNKNOWN), IMG_UNKNOWN);
}

TEST(text_of_one_byte_at_the_end_of_memory)
{
	uint8_t *empty = place("", 1), *slash = place("/", 2), *magic = place("\x7f" "E", 3);
	CHECK_INT(img_recognise(empty, IMG_SIZE_UNKNOWN), IMG_UNKNOWN);
	CHECK_INT(img_recognise(slash, IMG_SIZE_UNKNOWN), IMG_UNKNOWN);
	CHECK_INT(img_recognise(magic, IMG_SIZE_UNKNOWN), IMG_UNKNOWN);
}

TEST(length_without_size)
{
	struct blob fatbin = { 0 }, elf = { 0 };
	size_t length = 0;

	fatbin_begin(&fatbin);
	fatbin_add(&fatbin, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .data = ptx75, .size = sizeof(ptx75) });
	elf_build(&elf, 0, 86);
	CHECK(!img_length(fatbin.data, IMG_SIZE_UNKNOWN, &length, NULL));
	CHECK_INT(length, fatbin.size);
	uint8_t *image = place(elf.data, elf.size);
	CHECK(!img_length(image, IMG_SIZE_UNKNOWN, &length, NULL));
	CHECK_INT(length, elf.size);
	CHECK(!img_length(ptx75, IMG_SIZE_UNKNOWN, &length, NULL));
	CHECK_INT(length, sizeof(ptx75) - 1);
}

TEST(reads_entries_of_every_packing)
{
	for (int packing = 0; packing < 3; packing++) {
		struct blob blob = { 0 };
		struct img_fatbin fatbin;
		struct img_entry entry;
		struct img_payload payload;
		fatbin_begin(&blob);
		fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = 80, .version = 18, .data = "\x7f" "ELF", .size = 4 });
		fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 100, .version = 90, .packing = packing, .flags = 0x200002,
		                                  .data = ptx90, .size = sizeof(ptx90), .name = "t3.cu", .options = " -g " });
		CHECK(!img_fatbin_open(&fatbin, blob.data, blob.size, NULL));
		CHECK_INT(img_fatbin_next(&fatbin, &entry, NULL), 1);
		CHECK_INT(entry.kind, IMG_ENTRY_ELF);
		CHECK_INT(entry.arch, 80);
		CHECK(entry.suffix == 0 && !entry.name && !entry.options);
		CHECK_INT(img_fatbin_next(&fatbin, &entry, NULL), 1);
		CHECK_INT(entry.kind, IMG_ENTRY_PTX);
		CHECK_INT(entry.arch, 100);
		CHECK_INT(entry.suffix, 'f');
		CHECK_INT(entry.version, 90);
		CHECK(entry.flags & IMG_FLAG_DEBUG);
		CHECK(entry.name_size == 5 && memcmp(entry.name, "t3.cu", 5) == 0);
		CHECK(entry.options_size == 4 && memcmp(entry.options, " -g ", 4) == 0);
		CHECK_INT(img_entry_read(&entry, &payload, NULL), IMG_OK);
		CHECK(payload.size >= sizeof(ptx90) && memcmp(payload.data, ptx90, sizeof(ptx90)) == 0);
		img_payload_free(&payload);
		CHECK_INT(img_fatbin_next(&fatbin, &entry, NULL), 0);
		free(blob.data);
	}
}

static uint32_t
chosen(const struct blob *blob, uint32_t cc, char *suffix)
{
	struct img_sources sources;
	struct img_device device = { .cc = cc, .max_ptx = 91 };

	if (img_choose(blob->data, blob->size, &device, &sources, NULL) != IMG_OK)
		return 0;
	uint32_t arch = sources.entries[0].arch;
	*suffix = sources.entries[0].suffix;
	CHECK_INT(sources.count, 1);
	img_sources_free(&sources);
	return arch;
}

TEST(chooses_ptx_for_the_device)
{
	struct blob blob = { 0 };
	char suffix = 0;

	fatbin_begin(&blob);
	static const struct { int kind, arch; uint64_t flags; } entries[] = {
		{ 2, 86, 0 }, { 1, 75, 0 }, { 1, 90, 0 }, { 1, 90, 0x100000 }, { 1, 100, 0x200000 }, { 1, 120, 0x100000 }, { 2, 120, 0 },
	};
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
		fatbin_add(&blob, &(struct entry){ .kind = entries[i].kind, .arch = entries[i].arch, .version = 80,
		                                  .flags = entries[i].flags, .data = ptx75, .size = sizeof(ptx75) });
	CHECK_INT(chosen(&blob, 75, &suffix), 75);
	CHECK_INT(chosen(&blob, 86, &suffix), 75); /* not the machine code of exactly this architecture */
	CHECK_INT(suffix, 0);
	CHECK_INT(chosen(&blob, 90, &suffix), 90);
	CHECK_INT(suffix, 'a');
	CHECK_INT(chosen(&blob, 100, &suffix), 100);
	CHECK_INT(suffix, 'f');
	CHECK_INT(chosen(&blob, 103, &suffix), 100);
	CHECK_INT(suffix, 'f');
	CHECK_INT(chosen(&blob, 110, &suffix), 90);
	CHECK_INT(suffix, 0); /* neither sm_90a nor sm_100f code runs on 11.0 */
	CHECK_INT(chosen(&blob, 121, &suffix), 90);
	CHECK_INT(chosen(&blob, 70, &suffix), 0);
}

TEST(refusals_say_what_the_image_holds)
{
	struct blob blob = { 0 }, elf = { 0 };
	struct img_sources sources;
	struct img_error error = { "" };

	fatbin_begin(&blob);
	fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = 80, .data = "x", .size = 1 });
	fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = 90, .flags = 0x100000, .data = "x", .size = 1 });
	fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = 80, .data = "x", .size = 1 });
	fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 120, .version = 90, .data = ptx90, .size = sizeof(ptx90) });
	CHECK_INT(img_choose(blob.data, blob.size, &device86, &sources, &error), IMG_NO_BINARY);
	CHECK_STR(error.text, "no PTX that sm_86 can run; the image holds machine code for sm_80 sm_90a and PTX for compute_120; "
	                      "a device of compute capability 12.0 can (--cc 12.0)");
	elf_build(&elf, 0, 90);
	CHECK_INT(img_choose(elf.data, elf.size, &device86, &sources, &error), IMG_NO_BINARY);
	CHECK_STR(error.text, "no PTX that sm_86 can run; the image holds machine code for sm_90 and no PTX at all");
	for (int arch = 30; arch < 90; arch++)
		fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = arch, .data = "x", .size = 1 });
	CHECK_INT(img_choose(blob.data, blob.size, &device86, &sources, &error), IMG_NO_BINARY);
	CHECK(strstr(error.text, " ... and PTX for compute_120") != NULL);
}

TEST(too_new_only_if_there_is_nothing_older)
{
	struct blob blob = { 0 };
	struct img_sources sources;

	fatbin_begin(&blob);
	fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 80, .version = 93, .data = ptx90, .size = sizeof(ptx90) });
	CHECK_INT(img_choose(blob.data, blob.size, &device86, &sources, NULL), IMG_TOO_NEW);
	fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .data = ptx75, .size = sizeof(ptx75) });
	CHECK_INT(img_choose(blob.data, blob.size, &device86, &sources, NULL), IMG_OK);
	CHECK_INT(sources.entries[0].arch, 75);
	img_sources_free(&sources);
}

TEST(wrappers)
{
	struct blob parts[2] = { { 0 }, { 0 } };
	struct img_sources sources;
	struct img_error error = { "" };

	for (int i = 0; i < 2; i++) {
		fatbin_begin(&parts[i]);
		fatbin_add(&parts[i], &(struct entry){ .kind = 1, .arch = 75 + i, .version = 75, .packing = i + 1, .data = ptx75,
		                                      .size = sizeof(ptx75) });
	}
	const void *list[] = { parts[0].data, parts[1].data, NULL };
	struct { uint32_t magic, version; const void *data, *more; } wrapper = { 0x466243b1, 1, parts[1].data, "file.cu" };
	CHECK_INT(img_choose(&wrapper, IMG_SIZE_UNKNOWN, &device86, &sources, &error), IMG_OK);
	CHECK_INT(sources.count, 1);
	CHECK_INT(sources.entries[0].arch, 76);
	img_sources_free(&sources);
	wrapper.version = 2;
	wrapper.more = list;
	CHECK_INT(img_choose(&wrapper, IMG_SIZE_UNKNOWN, &device86, &sources, &error), IMG_OK);
	CHECK_INT(sources.count, 2);
	CHECK(img_sources_keep(&sources));
	memset(parts[0].data, 0, parts[0].size); /* the copy does not depend on it */
	struct img_payload payload;
	CHECK_INT(img_entry_read(&sources.entries[0], &payload, &error), IMG_OK);
	CHECK_STR(payload.data, ptx75);
	img_payload_free(&payload);
	img_sources_free(&sources);
	wrapper.version = 3;
	CHECK_INT(img_choose(&wrapper, IMG_SIZE_UNKNOWN, &device86, &sources, &error), IMG_INVALID);
	wrapper.version = 1;
	wrapper.data = NULL;
	CHECK_INT(img_choose(&wrapper, IMG_SIZE_UNKNOWN, &device86, &sources, &error), IMG_INVALID);
	CHECK_INT(img_choose(&wrapper, sizeof(wrapper), &device86, &sources, &error), IMG_INVALID);
}

TEST(cubins_of_both_styles)
{
	for (int old = 0; old < 2; old++) {
		struct blob blob = { 0 };
		struct img_elf elf;
		struct img_symbol symbol;
		struct img_param params[3];
		struct img_section section;
		struct img_error error = { "" };
		uint32_t total = 0;
		elf_build(&blob, old, old ? 90 : 120);
		CHECK_INT(img_elf_open(&elf, blob.data, blob.size, &error), 0);
		CHECK_STR(error.text, "");
		CHECK_INT(elf.sm, old ? 90 : 120);
		CHECK_INT(elf.virtual_arch, old ? 90 : 0);
		CHECK_INT(img_elf_symbol_count(&elf), 6);
		CHECK(!img_elf_symbol(&elf, 1, &symbol) && symbol.kind == IMG_SYMBOL_KERNEL);
		CHECK_STR(symbol.name, "k1");
		CHECK(!img_elf_symbol(&elf, 2, &symbol) && symbol.kind == IMG_SYMBOL_FUNCTION);
		CHECK(!img_elf_symbol(&elf, 3, &symbol) && symbol.kind == IMG_SYMBOL_GLOBAL && symbol.size == 40 && !symbol.managed);
		CHECK(!img_elf_symbol(&elf, 4, &symbol) && symbol.managed);
		CHECK(!img_elf_symbol(&elf, 5, &symbol) && symbol.external);
		CHECK(img_elf_symbol(&elf, 6, &symbol) != 0);
		CHECK_INT(img_elf_params(&elf, "k1", params, 3, &total), 3);
		CHECK_INT(total, 56);
		CHECK(params[0].offset == 0 && params[0].size == 8);
		CHECK(params[1].offset == 8 && params[1].size == 4);
		CHECK(params[2].offset == 16 && params[2].size == 40);
		CHECK_INT(img_elf_params(&elf, "k2", params, 3, &total), -1);
		CHECK(!img_elf_find(&elf, ".nv.global", &section) && section.size == 48 && section.bytes.size == 0);
		free(blob.data);
	}
}

TEST(linked_images)
{
	struct img_payload texts[] = { { .data = ptx75, .size = sizeof(ptx75) - 1 }, { .data = ptx90, .size = sizeof(ptx90) - 1 } };
	struct img_sources sources;
	size_t size = 0, length = 0;

	void *image = img_linked_write(texts, 2, 86, &size);
	CHECK(image && !img_length(image, IMG_SIZE_UNKNOWN, &length, NULL));
	CHECK_INT(length, size);
	CHECK_INT(img_choose(image, IMG_SIZE_UNKNOWN, &device86, &sources, NULL), IMG_OK);
	CHECK_INT(sources.count, 2);
	for (int i = 0; i < 2; i++)
		CHECK(sources.entries[i].size == texts[i].size && memcmp(sources.entries[i].payload, texts[i].data, texts[i].size) == 0);
	img_sources_free(&sources);
	struct blob blob = { .data = image, .size = size };
	cut_everywhere(&blob);
	damage_everywhere(&blob);
}

TEST(fat_binaries_cut_and_damaged)
{
	struct blob blob = { 0 };

	fatbin_begin(&blob);
	fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = 86, .data = "\x7f" "ELF", .size = 4 });
	for (int packing = 0; packing < 3; packing++)
		fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .packing = packing, .data = ptx75,
		                                  .size = sizeof(ptx75), .name = "a.cu", .options = "-g" });
	cut_everywhere(&blob);
	damage_everywhere(&blob);
}

TEST(cubins_cut_and_damaged)
{
	struct blob blob = { 0 };

	elf_build(&blob, 1, 80);
	cut_everywhere(&blob);
	damage_everywhere(&blob);
}

static int
count_fatbins(const void *data, size_t size)
{
	struct img_object object;
	struct img_error error = { "" };
	const void *fatbin;
	size_t length;
	int count = 0, more;

	if (img_object_open(&object, data, size, &error))
		return -1;
	while ((more = img_object_next(&object, &fatbin, &length, &error)) > 0) {
		CHECK((const uint8_t *)fatbin >= (const uint8_t *)data && (const uint8_t *)fatbin + length <= (const uint8_t *)data + size);
		count++;
	}
	if (more < 0)
		CHECK(error.text[0]);
	return more < 0 ? -1 : count;
}

TEST(objects_and_archives)
{
	struct blob object = { 0 }, archive = { 0 }, odd = { 0 };

	object_build(&object, (const char *[]){ ptx75, ptx90, ptx75 }, 3);
	CHECK_INT(count_fatbins(object.data, object.size), 3);
	archive_begin(&archive);
	CHECK_INT(count_fatbins(archive.data, archive.size), 0);
	archive_add(&archive, &object);
	blob_add(&odd, "no object", 9);
	archive_add(&archive, &odd); /* such as a table of symbols */
	archive_add(&archive, &object);
	CHECK_INT(count_fatbins(archive.data, archive.size), 6);
	CHECK_INT(count_fatbins("!<arch>", 7), -1);
	CHECK_INT(count_fatbins(ptx75, sizeof(ptx75)), -1);
	for (size_t size = 0; size < archive.size; size++) {
		uint8_t *image = place(archive.data, size);
		CHECK(count_fatbins(image, size) < 6);
		read_all(image, size);
		unplace(image, size);
	}
	damage_everywhere(&object);
	damage_everywhere(&archive);
}

TEST(lying_sizes)
{
	static const struct { size_t at, size; uint64_t value; } lies[] = {
		{ 4, 4, 0 }, { 4, 4, 63 }, { 4, 4, ~0u }, { 8, 8, ~0ull }, { 8, 8, ~0ull - 15 }, { 8, 8, 1ull << 63 }, /* header, payload */
		{ 16, 4, ~0u }, { 56, 8, 0 }, { 56, 8, 1 }, { 56, 8, ~0ull }, { 56, 8, 1ull << 29 }, { 56, 8, 1ull << 40 },
		{ 40, 8, 0xa011 }, /* both compressions */
	};
	for (int packing = 1; packing < 3; packing++) {
		struct blob blob = { 0 };
		fatbin_begin(&blob);
		size_t start = fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .packing = packing,
		                                                 .data = ptx75, .size = sizeof(ptx75) });
		for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
			uint8_t *image = place(blob.data, blob.size);
			struct img_fatbin fatbin;
			struct img_entry entry;
			struct img_payload payload;
			struct img_error error = { "" };
			memcpy(image + start + lies[i].at, &lies[i].value, lies[i].size);
			int good = !img_fatbin_open(&fatbin, image, blob.size, &error) && img_fatbin_next(&fatbin, &entry, &error) > 0 &&
			           img_entry_read(&entry, &payload, &error) == IMG_OK;
			if (good)
				printf("# lie %zu believed\n", i);
			CHECK(!good && error.text[0]);
			read_all(image, blob.size);
			unplace(image, blob.size);
		}
	}
}

TEST(bombs_take_no_memory)
{
	struct blob blob = { 0 };
	struct img_fatbin fatbin;
	struct img_entry entry;
	struct img_payload payload;
	struct img_error error = { "" };
	size_t size = 600u << 20;
	char *zeros = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	/* a true zstd frame of a few kilobytes that yields 600 MB */
	fatbin_begin(&blob);
	uint8_t *packed = malloc(1 << 20);
	size_t packed_size = ZSTD_compress(packed, 1 << 20, zeros, size, 1);
	CHECK(packed_size < 1 << 20);
	size_t start = fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .data = packed, .size = packed_size });
	blob_set(&blob, start + 16, packed_size, 4);
	blob_set(&blob, start + 40, 0x8011, 8);
	blob_set(&blob, start + 56, size, 8);
	CHECK(!img_fatbin_open(&fatbin, blob.data, blob.size, NULL));
	CHECK_INT(img_fatbin_next(&fatbin, &entry, NULL), 1);
	CHECK_INT(img_entry_read(&entry, &payload, &error), IMG_INVALID);
	CHECK(strstr(error.text, "claims to become 629145600") != NULL);
}

TEST(wrong_decompressed_size)
{
	for (int packing = 1; packing < 3; packing++)
		for (int off = -1; off <= 1; off++) {
			struct blob blob = { 0 };
			struct img_fatbin fatbin;
			struct img_entry entry;
			struct img_payload payload;
			fatbin_begin(&blob);
			size_t start = fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .packing = packing,
			                                                 .data = ptx75, .size = sizeof(ptx75) });
			blob_set(&blob, start + 56, sizeof(ptx75) + (size_t)off, 8);
			CHECK(!img_fatbin_open(&fatbin, blob.data, blob.size, NULL));
			CHECK_INT(img_fatbin_next(&fatbin, &entry, NULL), 1);
			CHECK_INT(img_entry_read(&entry, &payload, NULL), off ? IMG_INVALID : IMG_OK);
		}
}

TEST_MAIN()
