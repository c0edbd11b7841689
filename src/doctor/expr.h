/* Conditions as trees: what parse.c builds and eval.c walks. Inside the doctor only. */
#ifndef DR_EXPR_H
#define DR_EXPR_H

#include "doctor/rules.h"

enum dr_expr_kind {
	DR_E_AND, DR_E_OR, DR_E_NOT,
	DR_E_ANY, DR_E_ALL,       /* of path's elements: left */
	DR_E_TRUE,                /* a bare path: it is true */
	DR_E_EXISTS, DR_E_ABSENT, DR_E_SEEN,
	DR_E_EQ, DR_E_NE, DR_E_LT, DR_E_LE, DR_E_GT, DR_E_GE,
	DR_E_MATCH,               /* operand[0] ~ regex */
	DR_E_IN                   /* operand[0] in list, or in set */
};

enum dr_operand_kind { DR_O_PATH, DR_O_NUMBER, DR_O_TEXT, DR_O_BOOL, DR_O_COUNT };

struct dr_operand {
	enum dr_operand_kind kind;
	const char *text;              /* a path, or text; a path that begins with "." is of the element at hand */
	double number;                 /* or truth */
	const struct dr_expr *filter;  /* of count(), or NULL */
	const char *filter_text;
};

struct dr_expr {
	enum dr_expr_kind kind;
	const struct dr_expr *left, *right;
	const char *path;
	const char *left_text;    /* of any and all: as the rule has it */
	struct dr_operand operand[2];
	const struct dr_operand *list; /* of in () */
	int list_count;
	const regex_t *regex;
};

/* Bounds an expression's own text; names sets and regular expressions of `rules`. NULL: an error, at *column (from 1) of the text. */
const struct dr_expr *dr_expr_parse(struct dr_rules *rules, const char *text, int *column, char *error, size_t size);

#endif
