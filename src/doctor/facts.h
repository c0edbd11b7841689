/*
 * The fact document: what probes saw of a machine, as a JSON tree. facts.schema names every path.
 *
 * A leaf is a value; null, which says that it was looked for and is not there; or {"unseen": {"errno", "why", "get"}}, which says
 * that it could not be seen, why, and which command obtains it by hand. A path that is missing was not looked at, which is unseen as
 * well, unless the schema calls its parent a map: then it is not there.
 *
 * Paths are "pci.gpus[0].driver". Writing fails only when memory is out; what is then missing from the tree reads as unseen.
 */
#ifndef DR_FACTS_H
#define DR_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

#define DR_FACTS_VERSION 1
#define DR_MAX_PATH 160         /* bytes of a path, with its end */
#define DR_MAX_DEPTH 12         /* steps of a path, and how deep a document may nest below its schema */
#define DR_MAX_DOCUMENT (8 << 20) /* bytes of a document that is read */

enum dr_type { DR_TEXT, DR_INT, DR_REAL, DR_BOOL, DR_LIST, DR_MAP, DR_OBJECT };

struct dr_schema_row {
	const char *path;   /* "pci.gpus[].driver", "env.*" */
	enum dr_type type;
	const char *get;    /* command that obtains it by hand, or "" */
	const char *meaning; /* of a number: "0 none, 1 reset, ..." */
};
size_t dr_schema_size(void);
const struct dr_schema_row *dr_schema_at(size_t index);
/* The row of a path, whose list steps may be "[]" or "[7]"; NULL if the schema has none. */
const struct dr_schema_row *dr_schema_find(const char *path);
/* The command that obtains a path by hand: its own or that of what holds it; "" if none is known. */
const char *dr_schema_get(const char *path);

/* An empty document; the caller ends it with fw_json_free. NULL: out of memory. */
struct fw_json *dr_facts_new(void);

/* Writing, below `at`: a document or any object of one. Objects on the way are made; a list must exist up to its index. */
void dr_set_text(struct fw_json *at, const char *path, const char *value);      /* bytes that are not UTF-8 become '?'; NULL is null */
void dr_set_int(struct fw_json *at, const char *path, int64_t value);
void dr_set_real(struct fw_json *at, const char *path, double value);
void dr_set_bool(struct fw_json *at, const char *path, bool value);
void dr_set_absent(struct fw_json *at, const char *path);
/* Could not be seen. error: errno or 0; get NULL: the schema's command. */
void dr_unseen(struct fw_json *at, const char *path, int error, const char *why, const char *get);
/* Puts a value that it takes over; false (and value is freed) if the path cannot be made. */
bool dr_put(struct fw_json *at, const char *path, struct fw_json *value);
/* The list at a path, made if there is none; borrowed. NULL: out of memory. */
struct fw_json *dr_list(struct fw_json *at, const char *path);
/* A new empty object at a list's end; borrowed. NULL: out of memory. */
struct fw_json *dr_append(struct fw_json *list);
void dr_append_text(struct fw_json *list, const char *value);

/* Reading: what is at a path, borrowed; NULL if it is missing. Follows nothing into "unseen". */
struct fw_json *dr_get(const struct fw_json *at, const char *path);
/* The text, number or truth at a path, or the fallback where that is not what is there. */
const char *dr_get_text(const struct fw_json *at, const char *path, const char *fallback);
int64_t dr_get_int(const struct fw_json *at, const char *path, int64_t fallback);
bool dr_get_bool(const struct fw_json *at, const char *path, bool fallback);
/* The {"errno", "why", "get"} of a leaf that could not be seen, else NULL. */
const struct fw_json *dr_is_unseen(const struct fw_json *leaf);

/* The name of an errno, as "EACCES"; "ok" for 0. */
const char *dr_errno_name(int error);

/*
 * Reads a document. `path` names the file, or the text's origin. An error is written as "PATH:LINE:COLUMN: what" and NULL is returned.
 * Test machines are documents too: "base" names a document beside the file, and the other keys are paths into it; see document.c.
 */
struct fw_json *dr_document_read(const char *path, const char *variant, char *error, size_t size);
/* Only the JSON of a file, as it stands. */
struct fw_json *dr_document_load(const char *path, char *error, size_t size);
struct fw_json *dr_document_parse(const char *text, size_t length, const char *origin, char *error, size_t size);
/* Writes a document to a file, or to standard output for "-". 0 or errno. */
int dr_document_write(const struct fw_json *facts, const char *path);

/* Replaces host and user names, addresses, serial numbers and UUIDs by pseudonyms, equal ones by equal ones. */
bool dr_redact(struct fw_json *facts); /* false: out of memory, and nothing is redacted */

#endif
