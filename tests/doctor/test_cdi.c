/* The reader of CDI specifications: what nvidia-ctk writes, what differs from the machine, and that no cut or foreign form misleads it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/cdi.h"
#include "doctor/facts.h"
#include "tests/tap.h"

static bool
exists(const char *path, void *user)
{
	(void)user;
	return strcmp(path, "/run/nvidia-persistenced/socket") != 0 && strcmp(path, "/dev/dri/card1") != 0 && strncmp(path, "/gone", 5) != 0;
}

static int
major_of(const char *path, void *user)
{
	(void)user;
	return strcmp(path, "/dev/nvidia-uvm") == 0 ? 510 : strstr(path, "/dev/nvidia") ? 195 : -1;
}

static const struct dr_cdi_machine machine = { exists, major_of, NULL };
static struct fw_json_error error;

static struct fw_json *
read_text(const char *text)
{
	return dr_cdi_read(text, strlen(text), &error);
}

static char *
read_file(const char *path, size_t *length)
{
	FILE *file = fopen(path, "rb");
	char *text = calloc(1, 65536);

	*length = file && text ? fread(text, 1, 65535, file) : 0;
	if (file)
		fclose(file);
	return text;
}

TEST(what_nvidia_ctk_writes)
{
	size_t length;
	char *text = read_file(CORPUS "/nvidia.yaml", &length);
	struct fw_json *specification = dr_cdi_read(text, length, &error), *fact = fw_json_object();

	CHECK_STR(error.what ? error.what : "", "");
	dr_cdi_describe(specification, &machine, fact);
	CHECK_STR(dr_get_text(fact, "kind", ""), "nvidia.com/gpu");
	CHECK_INT(dr_get_int(fact, "devices", 0), 2);
	CHECK_STR(dr_get_text(fact, "driver_version", ""), "570.195.03");
	CHECK(dr_get_bool(fact, "majors_differ", false));
	const struct fw_json *missing = dr_get(fact, "missing");
	CHECK_INT(fw_json_size(missing), 2);
	CHECK_STR(fw_json_as_text(fw_json_at(missing, 0)), "/run/nvidia-persistenced/socket");
	CHECK_STR(fw_json_as_text(fw_json_at(missing, 1)), "/dev/dri/card1");
	const struct fw_json *edits = fw_json_get(specification, "containerEdits");
	const struct fw_json *args = fw_json_get(fw_json_at(fw_json_get(edits, "hooks"), 0), "args");
	CHECK_INT(fw_json_size(args), 4);
	CHECK_STR(fw_json_as_text(fw_json_at(args, 3)), "/usr/lib/it's here");
	CHECK_STR(dr_get_text(specification, "note", ""), "a plain text that a serialiser folded into two lines");
	CHECK(fw_json_is(fw_json_get(fw_json_at(fw_json_get(specification, "devices"), 0), "name"), FW_JSON_TEXT));
	fw_json_free(specification);
	fw_json_free(fact);
	free(text);
}

TEST(json)
{
	size_t length;
	char *text = read_file(CORPUS "/nvidia.json", &length);
	struct fw_json *specification = dr_cdi_read(text, length, &error), *fact = fw_json_object();

	dr_cdi_describe(specification, &machine, fact);
	CHECK_STR(dr_get_text(fact, "driver_version", ""), "550.54.14");
	CHECK(!dr_get_bool(fact, "majors_differ", true));
	CHECK_INT(fw_json_size(dr_get(fact, "missing")), 0);
	fw_json_free(specification);
	fw_json_free(fact);
	free(text);
}

/* Each beginning of the file is read or refused with a place inside it; it is copied, so that a read past its end is caught. */
static void
cut(const char *path)
{
	bool good = true;
	size_t length;
	char *text = read_file(path, &length);

	CHECK(length > 100);
	for (size_t n = 0; n <= length; n++) {
		char *copy = malloc(n ? n : 1);
		struct fw_json *fact = fw_json_object();
		if (!copy)
			abort();
		memcpy(copy, text, n);
		struct fw_json *specification = dr_cdi_read(copy, n, &error);
		if (specification)
			dr_cdi_describe(specification, &machine, fact);
		else
			good &= error.what && error.line >= 1 && error.column >= 1;
		fw_json_free(specification);
		fw_json_free(fact);
		free(copy);
	}
	CHECK(good);
	free(text);
}

TEST(cut_at_every_byte)
{
	cut(CORPUS "/nvidia.yaml");
	cut(CORPUS "/nvidia.json");
}

TEST(forms)
{
	static const struct { const char *text; int line, column; } refused[] = {
		{ "a: &x 1\n", 1, 4 }, { "a: *x\n", 1, 4 }, { "a: |\n  text\n", 1, 4 }, { "a: !!int 1\n", 1, 4 }, { "a: {b: 1}\n", 1, 5 },
		{ "a: 1\na: 2\n", 2, 3 }, { "a:\n\tb: 1\n", 2, 1 }, { "a: b: c\n", 1, 5 }, { "a: \"x\n", 1, 6 }, { "a: [1, 2\n", 1, 9 },
		{ "a: 1\n  b: 2\n", 2, 4 }, { "- a\nb: 1\n", 2, 1 }, { "a: 1\n---\nb: 2\n", 2, 1 }, { "a: \"\\q\"\n", 1, 6 },
		{ "a: 'x' y\n", 1, 8 }, { "{\"a\": 1,}", 1, 9 }, { "a: \xff\n", 2, 1 } };
	char *deep = calloc(1, 4 * DR_YAML_MAX_DEPTH + 400), *wide = calloc(1, DR_YAML_MAX_SCALAR + 20);
	struct fw_json *value;

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		value = read_text(refused[i].text);
		CHECK(!value);
		CHECK_INT(error.line * 1000 + error.column, refused[i].line * 1000 + refused[i].column);
		if (value || error.line != refused[i].line || error.column != refused[i].column)
			printf("# of %zu: %s\n", i, error.what ? error.what : "taken");
		fw_json_free(value);
	}
	for (int i = 0; i < DR_YAML_MAX_DEPTH + 8; i++)
		memcpy(deep + 2 * i, "- ", 2);
	value = read_text(deep);
	CHECK(!value && strstr(error.what, "deeply"));
	fw_json_free(value);
	memset(wide, 'x', DR_YAML_MAX_SCALAR + 10);
	value = read_text(wide);
	CHECK(!value && strstr(error.what, "long"));
	fw_json_free(value);
	static const char *const empty[] = { "", "\n", "---\n", "# nothing\n", "--- # x\n...\n" };
	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
		value = read_text(empty[i]);
		CHECK(fw_json_is(value, FW_JSON_NULL));
		fw_json_free(value);
	}
	value = read_text("a:\r\n- -1\r\n-   b: true\r\n    c: ~\r\n-\r\n  - x:y\r\n  - 'z' # text\r\nd: http://h/#x\r\n");
	const struct fw_json *list = fw_json_get(value, "a");
	CHECK_INT(fw_json_as_int(fw_json_at(list, 0)), -1);
	CHECK(fw_json_is_true(fw_json_get(fw_json_at(list, 1), "b")));
	CHECK(fw_json_is(fw_json_get(fw_json_at(list, 1), "c"), FW_JSON_NULL));
	CHECK_STR(fw_json_as_text(fw_json_at(fw_json_at(list, 2), 0)), "x:y");
	CHECK_STR(fw_json_as_text(fw_json_at(fw_json_at(list, 2), 1)), "z");
	CHECK_STR(dr_get_text(value, "d", ""), "http://h/#x");
	fw_json_free(value);
	free(deep);
	free(wide);
}

TEST_MAIN()
