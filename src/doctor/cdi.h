/*
 * Specifications of the Container Device Interface (CDI): which nodes, files and hooks a runtime brings into a container for a device.
 * They are YAML or JSON that any tool may have written; both are read within bounds into a JSON tree.
 */
#ifndef DR_CDI_H
#define DR_CDI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"

#define DR_YAML_MAX_DEPTH 32     /* values within values */
#define DR_YAML_MAX_SCALAR 8192  /* bytes of one text */

/*
 * Reads the part of YAML 1.2 that serialisers of plain data write: block maps and lists, plain and quoted texts, lists of texts in
 * brackets, {}, comments, one document. Anchors, tags, block texts (| and >) and maps in braces are refused. Further bounds are
 * those of base/json.h. NULL and where.
 */
struct fw_json *dr_yaml_read(const char *text, size_t length, struct fw_json_error *error);

/* Reads a specification, JSON if its first character is a brace. NULL and where. */
struct fw_json *dr_cdi_read(const char *text, size_t length, struct fw_json_error *error);

struct dr_cdi_machine { /* what a specification is held against */
	bool (*exists)(const char *path, void *user);
	int (*major)(const char *path, void *user); /* that a node should have; -1: not known */
	void *user;
};
/* Writes kind, devices, driver_version, missing and majors_differ of a specification into `fact`. */
void dr_cdi_describe(const struct fw_json *specification, const struct dr_cdi_machine *machine, struct fw_json *fact);

#endif
