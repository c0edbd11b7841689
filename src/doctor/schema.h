/* The schema's rows and the rule files, as embed.py writes them. Inside the doctor only. */
#ifndef DR_SCHEMA_H
#define DR_SCHEMA_H

#include "doctor/facts.h"

extern const struct dr_schema_row *const dr_schema_rows;
extern const size_t dr_schema_row_count;

struct dr_rule_file {
	const char *name, *text;
};
extern const struct dr_rule_file *const dr_rule_files;
extern const size_t dr_rule_file_count;

#endif
