/*
 * Rules: from facts to a verdict. Rules are data in rules/NAME.rules, read at start by parse.c; eval.c evaluates their conditions in three
 * values; judge.c chooses. docs/how-to-add-a-rule.md shows the language. Nothing here touches the machine.
 */
#ifndef DR_RULES_H
#define DR_RULES_H

#include <regex.h>

#include "base/arena.h"
#include "doctor/facts.h"

#define DR_MAX_RULES 512
#define DR_MAX_CONDITIONS 20  /* of a rule, need and not together */
#define DR_MAX_LINES 24       /* fix, warn, note, source lines of a rule, each */
#define DR_MAX_AFTER 24
#define DR_MAX_LINE 1000      /* bytes of a rule line, continuations included */
#define DR_MAX_NESTING 16     /* of brackets and any() in a condition */
#define DR_FIRST_LINE 80      /* what collectors keep: id, cause and fix fit in it */

enum dr_layer {
	DR_LAYER_PCI, DR_LAYER_KERNEL, DR_LAYER_NODES, DR_LAYER_FABRIC, DR_LAYER_CONTAINER, DR_LAYER_LIBRARY, DR_LAYER_DRIVER,
	DR_LAYER_FRAMEWORK, DR_LAYER_DISK, DR_LAYER_COUNT
};
extern const char *const dr_layer_names[DR_LAYER_COUNT]; /* as the rules name them: "pci" */

/* What a rule says when it fires. Only a fault makes the machine faulty; warn and info are further findings. */
enum dr_state { DR_OK, DR_FAULT, DR_UNKNOWN, DR_WARN, DR_INFO };
extern const char *const dr_state_names[]; /* "ok", ... */

enum dr_truth { DR_FALSE, DR_TRUE, DR_UNSEEN };

struct dr_expr; /* in expr.h */

struct dr_condition {
	const char *text;           /* as the rule has it */
	const struct dr_expr *expr;
	bool excludes;              /* a "not": true rules the rule out, unseen lowers confidence */
};

struct dr_lines {
	const char *line[DR_MAX_LINES];
	int count;
};

struct dr_rule {
	const char *id;             /* "F025", stable */
	enum dr_layer layer;
	enum dr_state state;
	char confidence;            /* 'A' read in source or a thread, 'B' documented, 'C' general knowledge */
	bool fallback;              /* names a symptom, no cause: gives way to any other rule */
	const char *who;            /* "root,provider" */
	const char *title;          /* "CAUSE -> FIX" */
	struct dr_condition condition[DR_MAX_CONDITIONS];
	int conditions;
	struct dr_lines fix, warn, note, source, group;
	const char *after[DR_MAX_AFTER]; /* rules that are preferred to this one when they fire too */
	int after_count;
	const char *file;
	int line;
};

/* What makes a layer ok or not applicable; fault is when a fault rule of the layer fires. */
struct dr_layer_rule {
	const char *title;
	struct dr_condition ok, na;
};

struct dr_set { /* named values: "set sxm 0x2330 0x2335" */
	const char *name;
	const char **value;
	int count;
	struct dr_set *next;
};

struct dr_regex { /* compiled patterns, so that they can be freed */
	regex_t regex;
	struct dr_regex *next;
};

struct dr_rules {
	struct fw_arena arena;
	struct dr_rule rule[DR_MAX_RULES];
	int count;
	struct dr_layer_rule layer[DR_LAYER_COUNT];
	struct dr_set *sets;
	struct dr_regex *regexes;
};

/* The rules that are built in; parsed once and kept. NULL only when memory is out or the built-in text is wrong, which is then printed. */
const struct dr_rules *dr_rules_builtin(void);
/* Reads rule text into `rules` (zeroed by the caller). An error is written as "NAME:LINE:COLUMN: what"; false. Then free it all the same. */
bool dr_rules_parse(struct dr_rules *rules, const char *name, const char *text, size_t length, char *error, size_t size);
/* Names that rules give each other (after) exist and go in no circle. */
bool dr_rules_check(const struct dr_rules *rules, char *error, size_t size);
void dr_rules_free(struct dr_rules *rules);
/* In either case of letters; NULL: there is none. */
const struct dr_rule *dr_rule_find(const struct dr_rules *rules, const char *id);
/* In words: "root on this machine, or the cloud provider". */
const char *dr_who_text(const char *who, char *text, size_t size);

/* ---- evaluating ---- */

struct dr_evidence {
	const char *path;           /* "pci.gpus[0].driver" */
	const char *value;          /* as JSON, shortened; or why it could not be seen */
	const char *get;            /* only if it could not be seen: the command that would */
};

#define DR_MAX_EVIDENCE 8
struct dr_finding { /* of one condition */
	enum dr_truth truth;
	struct dr_evidence evidence[DR_MAX_EVIDENCE];
	int count;
};

/* Evaluates a condition on a document. Texts of the evidence live in the arena. */
void dr_evaluate(const struct dr_expr *expr, const struct fw_json *facts, struct fw_arena *arena, struct dr_finding *finding);

enum dr_outcome_kind { DR_RULED_OUT, DR_POSSIBLE, DR_FIRED };

struct dr_outcome {
	const struct dr_rule *rule;
	enum dr_outcome_kind kind;
	char confidence;            /* the rule's, one lower for each exclusion that could not be checked */
	int seen, unseen;           /* needs that are true; needs that could not be seen */
	int decided_by;             /* ruled out: the condition that did it */
	struct dr_finding *finding; /* of each condition */
};

struct dr_layer_state {
	const char *state;          /* "ok", "fault", "not applicable", "unknown" */
	const char *why;
};

struct dr_judgement {
	struct fw_arena arena;
	const struct fw_json *facts;
	const struct dr_rules *rules;
	const struct dr_outcome *verdict;
	bool possible;              /* the verdict is the likeliest of causes for which evidence is missing */
	struct dr_outcome *outcome; /* a rule each, as rules->rule */
	struct dr_layer_state layer[DR_LAYER_COUNT];
};

/* For the mutation test only: judges as if a condition (or an after) of a rule were not there. */
struct dr_drop {
	const char *id;
	int condition;              /* -1 none */
	int after;                  /* -1 none */
};

/* Judges a document, which must outlive the judgement. false: out of memory. */
bool dr_judge(struct dr_judgement *judgement, const struct dr_rules *rules, const struct fw_json *facts, const struct dr_drop *drop);
void dr_judgement_free(struct dr_judgement *judgement);
const struct dr_outcome *dr_outcome_of(const struct dr_judgement *judgement, const char *id);
/* 0 works, 1 a fault, 2 could not tell. */
int dr_exit_code(const struct dr_judgement *judgement);

#endif
