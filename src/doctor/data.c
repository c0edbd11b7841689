/* The doctor's data: schema and rules, written by embed.py from facts.schema and rules/. */
#include "doctor/schema.h"

#include "doctor_data.inc"

const struct dr_schema_row *const dr_schema_rows = schema_rows;
const size_t dr_schema_row_count = sizeof(schema_rows) / sizeof(schema_rows[0]);
const struct dr_rule_file *const dr_rule_files = rule_files;
const size_t dr_rule_file_count = sizeof(rule_files) / sizeof(rule_files[0]);
