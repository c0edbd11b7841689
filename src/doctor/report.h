/* Reports: they print what a judgement holds and decide nothing. */
#ifndef DR_REPORT_H
#define DR_REPORT_H

#include <stdio.h>

#include "doctor/rules.h"

void dr_report_text(const struct dr_judgement *judgement, FILE *out);
void dr_report_json(const struct dr_judgement *judgement, FILE *out);
void dr_report_html(const struct dr_judgement *judgement, FILE *out);
/* One line, "ID: CAUSE -> FIX", of which the first 80 bytes say it all; and what each collector wants around it. */
void dr_report_nagios(const struct dr_judgement *judgement, FILE *out);
void dr_report_npd(const struct dr_judgement *judgement, FILE *out);
void dr_report_slurm(const struct dr_judgement *judgement, FILE *out);
void dr_report_prometheus(const struct dr_judgement *judgement, FILE *out);
/* A rule as a person reads it. */
void dr_report_rule(const struct dr_rule *rule, FILE *out);

/* The next path in braces of a rule's text is replaced by the fact's value: "free {disk.empty.path}". Returns text. */
const char *dr_fill(const struct dr_judgement *judgement, const char *line, char *text, size_t size);

/* Control characters of a fact as '?', so that no terminal obeys a file. Returns text. */
const char *dr_printable(const char *value, char *text, size_t size);

/*
 * What a person reads of a piece of evidence: its value, what a number means ("2 (in progress)"), and of what it is where the path has
 * an index only ("true, of /ephemeral"). Returns text.
 */
const char *dr_value(const struct dr_judgement *judgement, const struct dr_evidence *evidence, char *text, size_t size);
/* "VALUE of PATH, ..." of the condition that ruled an outcome out. Returns text. */
const char *dr_reason(const struct dr_judgement *judgement, const struct dr_outcome *outcome, char *text, size_t size);
/* Whether a rule other than the verdict is worth a word because no cause is sure, and more of it is seen than missing. */
bool dr_may_be(const struct dr_judgement *judgement, const struct dr_outcome *outcome);
/* The commands that obtain what is missing of an outcome. Returns text. */
const char *dr_missing(const struct dr_outcome *outcome, char *text, size_t size);
/* Whether two rules are look-alikes: they share a group. */
bool dr_look_alike(const struct dr_rule *a, const struct dr_rule *b);

#endif
