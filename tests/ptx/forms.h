/*
 * The table of PTX forms under test: an instruction text, its operand types, and a scalar reference for it.
 *
 * The reference gets the operands of one thread and says what one thread's result is. It is written from the PTX ISA description;
 * src/soft/exec is not its source. ref_*.c hold the references and the rows, run_forms.c runs them on a device through the driver API.
 *
 * A row's text names its operands $d (result) $a $b $c $e. Several instructions stand in braces. Types are letters, the result's first:
 *   c 8-bit integer in a 16-bit register   h w d  16-, 32-, 64-bit integer   s 32-bit shift count   p predicate (0 or 1)
 *   f f32   g f64   k f16   z bf16   K f16x2   Z bf16x2   x pair of 16-bit integers   v four bytes
 *   y every 16-bit pattern   q every byte   n lengths, positions and selectors
 */
#ifndef TESTS_PTX_FORMS_H
#define TESTS_PTX_FORMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "num.h"

#define FORM_OPERANDS 4

struct answer {
	uint64_t bits;    /* what the result must be; with a tolerance, the bits of the exact value as a double */
	uint64_t also;    /* another result that is as right */
	bool has_also;
	bool any;         /* the ISA leaves it open */
	bool any_nan;     /* any NaN of the result's format will do (f64, abs, neg ...) */
	double error;     /* largest absolute error for this operand; only with a tolerance */
	bool toleranced;
	uint64_t ignore;  /* bits of the result that are not compared */
};

/* k: the row's own constants. */
typedef void ref_fn(struct answer *r, const uint64_t *v, const int *k);

struct form {
	const char *group;
	const char *text;
	const char *types;
	ref_fn *ref;
	int k[6];
	bool pair;      /* x K Z operands: the reference sees one half at a time */
	unsigned sm;    /* least target */
};

struct form *form(const char *group, const char *types, ref_fn *ref, const int *k, unsigned sm, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
#define K(...) ((const int[6]){ __VA_ARGS__ })

extern struct form *forms;
extern size_t form_count;

void forms_integer(void);
void forms_logic(void);
void forms_float(void);
void forms_half(void);
void forms_convert(void);
void forms_compare(void);
void forms_approx(void);
void forms_move(void);
void forms_video(void);
void forms_video(void);

/* Of one type letter. */
unsigned letter_bits(char letter);         /* of the register: 16 for bytes; 1 for predicates */
int letter_format(char letter);            /* enum num_format of one element, -1 */
bool letter_packed(char letter);           /* two halves of 16 bits */

/* Test vectors: fills in[operand][index] for up to `max` vectors; returns how many. */
size_t form_vectors(const struct form *f, uint64_t *in[FORM_OPERANDS], size_t max);

#endif
