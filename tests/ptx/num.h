/*
 * Scalar numbers for the references: every floating-point format of PTX by integer arithmetic, exact until the one rounding.
 *
 * A number is sign, kind and mantissa * 2^exponent with the mantissa's top bit at bit 126; bit 0 is a sticky bit that stands for
 * everything below. Nothing here uses the host's floating point, and nothing here comes from the interpreter: the references
 * must not share a mistake with what they check. num_selftest() compares with the host's arithmetic where both exist.
 */
#ifndef TESTS_PTX_NUM_H
#define TESTS_PTX_NUM_H

#include <stdbool.h>
#include <stdint.h>

enum num_format { N_F16, N_BF16, N_F32, N_F64, N_TF32, N_E4M3, N_E5M2, N_E2M3, N_E3M2, N_E2M1, N_FORMATS };
enum num_mode { N_RN, N_RZ, N_RM, N_RP, N_RNA /* ties away from zero */ };
enum num_kind { N_ZERO, N_FINITE, N_INF, N_NAN };

struct num {
	enum num_kind kind;
	bool neg;
	int exp;                     /* value = mant * 2^exp */
	unsigned __int128 mant;      /* N_FINITE: bit 126 is the top bit */
};

struct num num_unpack(enum num_format format, uint64_t bits);
/* Rounds; satfinite: what overflows and NaN become what the cvt description says. NaN is the format's canonical one. */
uint64_t num_pack(enum num_format format, struct num x, enum num_mode mode, bool satfinite);

struct num num_from_uint(unsigned __int128 value, bool neg);
/* To an integer, rounded; *out_of_range and clamped when it does not fit into lo..hi. NaN gives 0. */
__int128 num_to_int(struct num x, enum num_mode mode, __int128 lo, __int128 hi);
struct num num_round_int(struct num x, enum num_mode mode); /* to an integral value; keeps the sign of zero */

struct num num_add(struct num a, struct num b, enum num_mode mode); /* mode decides the sign of an exact zero */
struct num num_mul(struct num a, struct num b); /* exact: operands must come from num_unpack */
struct num num_div(struct num a, struct num b);
struct num num_sqrt(struct num a);
int num_compare(struct num a, struct num b); /* -1, 0, 1; 2 unordered */
struct num num_neg(struct num a);
bool num_is_subnormal(enum num_format format, uint64_t bits);
uint64_t num_flush(enum num_format format, uint64_t bits); /* subnormals to zero of their sign */
uint64_t num_nan(enum num_format format); /* the canonical NaN */
bool num_bits_nan(enum num_format format, uint64_t bits);
double num_double(struct num x); /* nearest double, for comparisons with a tolerance */
unsigned num_bits(enum num_format format);

int num_selftest(void); /* how many comparisons with the host failed; prints the first ones */

#endif
