/* Unit tests of src/base/json: what is read is what was written; what is no JSON is refused, at its line and column. */
#include "base/json.h"
#include "tests/tap.h"

static const char sample[] =
	"{\n \"a\": [\n  1,\n  -2,\n  3.5,\n  1e+300,\n  true,\n  false,\n  null\n ],\n \"text\": \"quote \\\" back \\\\ line \\n \xc3\xa9\",\n"
	" \"empty\": {},\n \"none\": []\n}";

static char *
written(const struct fw_json *value)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fw_json_write(value, out);
	fclose(out);
	return text;
}

TEST(json_comes_back)
{
	struct fw_json_error error;
	struct fw_json *value = fw_json_read(sample, sizeof(sample) - 1, &error), *copy = fw_json_copy(value);
	char *text = written(copy);

	CHECK_STR(text, sample);
	CHECK_INT(fw_json_size(fw_json_get(value, "a")), 7);
	CHECK_INT(fw_json_as_int(fw_json_at(fw_json_get(value, "a"), 1)), -2);
	CHECK(fw_json_as_number(fw_json_at(fw_json_get(value, "a"), 2)) == 3.5);
	CHECK_STR(fw_json_name_at(value, 3), "none");
	CHECK(fw_json_get(value, "nothing") == NULL && fw_json_at(value, 4) == NULL && fw_json_get(NULL, "a") == NULL);
	fw_json_free(value);
	fw_json_free(copy);
	free(text);
}

TEST(json_reads_escapes)
{
	static const char text[] = "[\"\\u00e9\\u20ac\\ud83d\\ude00\\/\\b\"]";
	struct fw_json_error error;
	struct fw_json *value = fw_json_read(text, sizeof(text) - 1, &error);

	CHECK_STR(fw_json_as_text(fw_json_at(value, 0)), "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80/\b");
	fw_json_free(value);
}

TEST(json_refuses_what_is_none)
{
	static const char *const wrong[] = { "", " ", "{", "[", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\":1 \"b\":2}", "01", "-",
		"1.", ".5", "+1", "1e", "1e5x", "0x10", "--1", "nul", "truE", "\"", "\"\\x\"", "\"\\u12\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud800\\u0041\"",
		"\"\\udc00\"", "\"\x01\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "[1] 2", "{\"a\":1,\"a\":2}", "9223372036854775808", "1e999", "NaN",
		"Infinity", "'a'", "[1 2]", "]" };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct fw_json_error error;
		struct fw_json *value = fw_json_read(wrong[i], strlen(wrong[i]), &error);
		if (value || !error.what || error.line < 1 || error.column < 1)
			printf("# %s\n", wrong[i]);
		CHECK(!value && error.what && error.line >= 1 && error.column >= 1);
	}
}

TEST(json_says_where)
{
	static const char text[] = "{\n  \"a\": 1,\n  \"b\": [,]\n}";
	struct fw_json_error error;

	CHECK(fw_json_read(text, sizeof(text) - 1, &error) == NULL);
	CHECK_INT(error.line, 3);
	CHECK_INT(error.column, 9);
}

TEST(json_cut_at_every_byte)
{
	for (size_t size = 0; size < sizeof(sample) - 1; size++) {
		char *cut = malloc(size ? size : 1); /* its end is the end of memory, so that a sanitizer sees a byte too many */
		struct fw_json_error error;
		memcpy(cut, sample, size);
		CHECK(fw_json_read(cut, size, &error) == NULL && error.what);
		free(cut);
	}
}

TEST(json_is_bounded)
{
	enum { SIZE = 1 << 20 };
	char *text = malloc(SIZE);
	struct fw_json_error error;

	memset(text, '[', SIZE);
	CHECK(fw_json_read(text, SIZE, &error) == NULL);
	CHECK_INT(error.column, FW_JSON_MAX_DEPTH + 1);
	for (int i = 0; i < SIZE; i++)
		text[i] = "[0,"[i == 0 ? 0 : 2 - i % 2];
	CHECK(fw_json_read(text, SIZE, &error) == NULL);
	CHECK_STR(error.what, "the array has too many elements");
	size_t used = 1;
	text[0] = '{';
	for (int i = 0; i < FW_JSON_MAX_MEMBERS + 1; i++)
		used += (size_t)snprintf(text + used, SIZE - used, "%s\"%d\":0", i ? "," : "", i);
	CHECK(fw_json_read(text, used, &error) == NULL);
	CHECK_STR(error.what, "the object has too many members");
	free(text);
}

TEST(json_puts_and_replaces)
{
	struct fw_json *object = fw_json_object(), *array = fw_json_array();

	CHECK(fw_json_set(object, "a", fw_json_int(1)) && fw_json_set(object, "b", fw_json_int(2)) && fw_json_set(object, "a", fw_json_text("x")));
	CHECK_INT(fw_json_size(object), 2);
	CHECK_STR(fw_json_as_text(fw_json_at(object, 0)), "x");
	CHECK(!fw_json_set(object, "c", NULL) && !fw_json_set(array, "c", fw_json_null()) && !fw_json_append(object, fw_json_null()));
	CHECK(!fw_json_replace(array, 0, fw_json_null()) && fw_json_append(array, fw_json_null()) && fw_json_replace(array, 0, fw_json_bool(true)));
	CHECK(fw_json_is_true(fw_json_at(array, 0)));
	CHECK(fw_json_text("\xff") == NULL && fw_json_real(1.0 / 0.0) == NULL && fw_json_text(NULL) == NULL);
	CHECK(fw_json_set(object, "list", array));
	fw_json_free(object);
}

TEST_MAIN()
