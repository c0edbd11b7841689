/*
 * JSON: a tree of values, read from foreign text within bounds, written to a file (RFC 8259).
 *
 * A value belongs to the array or object that it was put into; who makes one that is put nowhere ends it with fw_json_free. Members keep
 * their order. NULL is taken everywhere and means "no value", so that a chain of calls needs one check, at its end.
 */
#ifndef FW_BASE_JSON_H
#define FW_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FW_JSON_MAX_DEPTH 48      /* values within values, in a text that is read */
#define FW_JSON_MAX_SIZE 65536    /* elements of an array that is read */
#define FW_JSON_MAX_MEMBERS 4096  /* members of an object that is read; they are found one after the other */

enum fw_json_kind { FW_JSON_NULL, FW_JSON_BOOL, FW_JSON_INT, FW_JSON_REAL, FW_JSON_TEXT, FW_JSON_ARRAY, FW_JSON_OBJECT };

struct fw_json;

struct fw_json_error {
	int line, column;      /* from 1; bytes */
	const char *what;      /* a constant text */
};

/* Making. NULL: out of memory; for text also when it is not UTF-8. */
struct fw_json *fw_json_null(void);
struct fw_json *fw_json_bool(bool value);
struct fw_json *fw_json_int(int64_t value);
struct fw_json *fw_json_real(double value); /* NULL when it is not finite: JSON has no such number */
struct fw_json *fw_json_text(const char *value);
struct fw_json *fw_json_text_n(const char *value, size_t length);
struct fw_json *fw_json_array(void);
struct fw_json *fw_json_object(void);
struct fw_json *fw_json_copy(const struct fw_json *value);
void fw_json_free(struct fw_json *value);

/* Putting: takes `value` over, and frees it when it cannot be put (then false). */
bool fw_json_append(struct fw_json *array, struct fw_json *value);
bool fw_json_replace(struct fw_json *array, size_t index, struct fw_json *value); /* index is below the size */
bool fw_json_set(struct fw_json *object, const char *name, struct fw_json *value); /* a member of that name is replaced in its place */

/* Looking. Of another kind than asked for: 0, false or NULL. */
enum fw_json_kind fw_json_kind(const struct fw_json *value); /* FW_JSON_NULL of NULL as well */
bool fw_json_is(const struct fw_json *value, enum fw_json_kind kind); /* false of NULL */
bool fw_json_is_true(const struct fw_json *value);
int64_t fw_json_as_int(const struct fw_json *value);
double fw_json_as_number(const struct fw_json *value); /* of an int or a real */
const char *fw_json_as_text(const struct fw_json *value);
size_t fw_json_size(const struct fw_json *value); /* of an array or object */
struct fw_json *fw_json_at(const struct fw_json *value, size_t index); /* of an array or object, in order; borrowed; NULL past the end */
const char *fw_json_name_at(const struct fw_json *object, size_t index);
struct fw_json *fw_json_get(const struct fw_json *object, const char *name);

/* Reads one value that is all of the text. Refused: a name twice in an object, \u0000, text that is not UTF-8, an int beyond 64 bits, sizes
 * and depths beyond the bounds above. NULL and where. */
struct fw_json *fw_json_read(const char *text, size_t length, struct fw_json_error *error);

/* One member or element a line, indented by one space a depth; no line feed at the end. false: the stream has an error. */
bool fw_json_write(const struct fw_json *value, FILE *out);

#endif
