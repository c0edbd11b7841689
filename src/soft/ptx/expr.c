/*
 * Literals and constant expressions: 64-bit signed or unsigned integers and doubles, with C's operators and precedence.
 */
#include "parser.h"

#include <locale.h>
#include <pthread.h>
#include <stdlib.h>

static double
as_double(struct ptx_value v)
{
	double d;

	if (!v.is_float)
		return v.is_unsigned ? (double)(uint64_t)v.bits : (double)v.bits;
	memcpy(&d, &v.bits, sizeof(d));
	return d;
}

static struct ptx_value
from_double(double d)
{
	struct ptx_value v = { .is_float = true };

	memcpy(&v.bits, &d, sizeof(d));
	return v;
}

static struct ptx_value
from_int(int64_t bits, bool is_unsigned)
{
	return (struct ptx_value){ .bits = bits, .is_unsigned = is_unsigned };
}

/* The double of a float's pattern; signalling NaNs keep their payload, which a conversion by the CPU would not leave alone. */
static int64_t
widen(uint32_t f)
{
	float value;
	double wide;
	uint64_t bits;

	if ((f & 0x7f800000) == 0x7f800000)
		return (int64_t)((uint64_t)(f >> 31) << 63 | 0x7ff0000000000000 | (uint64_t)(f & 0x7fffff) << 29);
	memcpy(&value, &f, sizeof(value));
	wide = value;
	memcpy(&bits, &wide, sizeof(bits));
	return (int64_t)bits;
}

static struct ptx_value
hex_float(struct ptx_parser *p, unsigned digits)
{
	uint64_t bits = 0;
	unsigned n = 0;

	for (p->at += 2; ptx_is(*p->at, PTX_C_HEX) && n <= digits; p->at++, n++)
		bits = bits << 4 | (uint64_t)(*p->at <= '9' ? *p->at - '0' : (*p->at | 32) - 'a' + 10);
	if (n != digits || ptx_is(*p->at, PTX_C_IDENT))
		ptx_fail(p, "a 0%c literal needs %u hexadecimal digits", digits == 8 ? 'f' : 'd', digits);
	if (digits == 8)
		return (struct ptx_value){ .is_float = true, .is_f32 = true, .bits = widen((uint32_t)bits) };
	return (struct ptx_value){ .is_float = true, .bits = (int64_t)bits };
}

static locale_t c_locale;

static void
make_locale(void)
{
	c_locale = newlocale(LC_ALL_MASK, "C", NULL);
}

static struct ptx_value
decimal_float(struct ptx_parser *p)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char text[128], *end;
	size_t n = 0;

	/* The program may have set a locale with another decimal point. */
	pthread_once(&once, make_locale);
	for (const char *at = p->at; ptx_is(*at, PTX_C_DIGIT) || *at == '.' || (*at | 32) == 'e' ||
	     ((*at == '+' || *at == '-') && n && (text[n - 1] | 32) == 'e'); at++) {
		if (n == sizeof(text) - 1)
			ptx_fail(p, "a number of more than %zu characters", sizeof(text) - 1);
		text[n++] = *at;
	}
	text[n] = 0;
	double value = c_locale ? strtod_l(text, &end, c_locale) : strtod(text, &end);
	if (end != text + n || ptx_is(p->at[n], PTX_C_IDENT))
		ptx_fail_token(p, "a number");
	p->at += n;
	return from_double(value);
}

struct ptx_value
ptx_number(struct ptx_parser *p)
{
	const char *start = p->at;
	char kind = *start == '0' ? (char)(start[1] | 32) : 0;
	struct ptx_value v = { 0 };
	unsigned base = 10;

	if (kind == 'f' || kind == 'd') {
		v = hex_float(p, kind == 'f' ? 8 : 16);
		ptx_skip(p);
		return v;
	}
	if (kind == 'x' || kind == 'b') {
		base = kind == 'x' ? 16 : 2;
		p->at += 2;
	} else {
		const char *at = start;
		while (ptx_is(*at, PTX_C_DIGIT))
			at++;
		if (*at == '.' || (*at | 32) == 'e') {
			v = decimal_float(p);
			ptx_skip(p);
			return v;
		}
		base = *start == '0' ? 8 : 10;
	}
	const char *digits = p->at;
	uint64_t value = 0;
	for (; ptx_is(*p->at, PTX_C_HEX); p->at++) {
		unsigned digit = (unsigned)(*p->at <= '9' ? *p->at - '0' : (*p->at | 32) - 'a' + 10);
		if (digit >= base)
			break;
		if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, digit, &value))
			ptx_fail(p, "an integer that does not fit into 64 bits");
	}
	if (p->at == digits || (ptx_is(*p->at, PTX_C_IDENT) && *p->at != 'U')) {
		p->at = start;
		ptx_fail_token(p, "a number");
	}
	v = from_int((int64_t)value, value > INT64_MAX);
	if (*p->at == 'U') {
		p->at++;
		v.is_unsigned = true;
	}
	ptx_skip(p);
	return v;
}

static struct ptx_value ternary(struct ptx_parser *p);

static void
deeper(struct ptx_parser *p)
{
	if (++p->depth > PTX_MAX_DEPTH)
		ptx_fail(p, "an expression nested deeper than %d", PTX_MAX_DEPTH);
}

static struct ptx_value
unary(struct ptx_parser *p)
{
	char c = *p->at;
	struct ptx_value v;

	if (ptx_is(c, PTX_C_DIGIT))
		return ptx_number(p);
	deeper(p);
	if (c == '-' || c == '+' || c == '~' || c == '!') {
		ptx_expect(p, c);
		v = unary(p);
		if (c == '-' && v.is_float)
			v.bits = (int64_t)((uint64_t)v.bits ^ (uint64_t)1 << 63);
		else if (c == '-')
			v.bits = (int64_t)(0 - (uint64_t)v.bits);
		else if (c == '~' && !v.is_float)
			v.bits = ~v.bits;
		else if (c == '!' && !v.is_float)
			v = from_int(!v.bits, false);
		else if (c != '+')
			ptx_fail(p, "'%c' of a floating-point constant", c);
	} else if (c == '(' ) {
		ptx_expect(p, '(');
		if (*p->at == '.') {
			struct ptx_word word = ptx_directive(p);
			bool is_unsigned = ptx_word_is(&word, "u64");
			if (!is_unsigned && !ptx_word_is(&word, "s64"))
				ptx_fail(p, "a cast to .%.*s in a constant expression", (int)word.length, word.text);
			ptx_expect(p, ')');
			v = unary(p);
			if (v.is_float)
				ptx_fail(p, "a cast of a floating-point constant");
			v.is_unsigned = is_unsigned;
		} else {
			v = ternary(p);
			ptx_expect(p, ')');
		}
	} else if (strncmp(p->at, "WARP_SZ", 7) == 0 && !ptx_is(p->at[7], PTX_C_IDENT)) {
		ptx_word(p);
		v = from_int(32, false);
	} else {
		ptx_fail_token(p, "a constant");
	}
	p->depth--;
	return v;
}

/* Binary operators by precedence; of those that begin alike, the longer first. */
enum op { OR_ELSE, AND_ALSO, BIT_OR, BIT_XOR, BIT_AND, EQ, NE, LE, GE, SHL, SHR, LT, GT, ADD, SUB, MUL, DIV, REM };
static const struct { char text[3]; uint8_t op, level; } operators[] = {
	{ "||", OR_ELSE, 1 }, { "&&", AND_ALSO, 2 }, { "==", EQ, 6 }, { "!=", NE, 6 }, { "<=", LE, 7 }, { ">=", GE, 7 },
	{ "<<", SHL, 8 }, { ">>", SHR, 8 }, { "|", BIT_OR, 3 }, { "^", BIT_XOR, 4 }, { "&", BIT_AND, 5 }, { "<", LT, 7 },
	{ ">", GT, 7 }, { "+", ADD, 9 }, { "-", SUB, 9 }, { "*", MUL, 10 }, { "/", DIV, 10 }, { "%", REM, 10 },
};

static struct ptx_value
apply_float(struct ptx_parser *p, enum op op, double a, double b)
{
	switch (op) {
	case ADD: return from_double(a + b);
	case SUB: return from_double(a - b);
	case MUL: return from_double(a * b);
	case DIV: return from_double(a / b);
	case EQ: return from_int(a == b, false);
	case NE: return from_int(a != b, false);
	case LT: return from_int(a < b, false);
	case LE: return from_int(a <= b, false);
	case GT: return from_int(a > b, false);
	case GE: return from_int(a >= b, false);
	default: ptx_fail(p, "an integer operator on floating-point constants");
	}
}

static struct ptx_value
apply(struct ptx_parser *p, enum op op, struct ptx_value left, struct ptx_value right)
{
	if (left.is_float || right.is_float)
		return apply_float(p, op, as_double(left), as_double(right));
	bool u = left.is_unsigned || right.is_unsigned;
	int64_t a = left.bits, b = right.bits;
	uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
	if ((op == DIV || op == REM) && b == 0)
		ptx_fail(p, "a division by zero in a constant expression");
	switch (op) {
	case OR_ELSE: return from_int(a || b, false);
	case AND_ALSO: return from_int(a && b, false);
	case BIT_OR: return from_int(a | b, u);
	case BIT_XOR: return from_int(a ^ b, u);
	case BIT_AND: return from_int(a & b, u);
	case EQ: return from_int(a == b, false);
	case NE: return from_int(a != b, false);
	case LT: return from_int(u ? ua < ub : a < b, false);
	case LE: return from_int(u ? ua <= ub : a <= b, false);
	case GT: return from_int(u ? ua > ub : a > b, false);
	case GE: return from_int(u ? ua >= ub : a >= b, false);
	case SHL: return from_int(ub > 63 ? 0 : (int64_t)(ua << ub), left.is_unsigned);
	case SHR:
		if (left.is_unsigned)
			return from_int(ub > 63 ? 0 : (int64_t)(ua >> ub), true);
		return from_int(a >> (ub > 63 ? 63 : ub), false);
	case ADD: return from_int((int64_t)(ua + ub), u);
	case SUB: return from_int((int64_t)(ua - ub), u);
	case MUL: return from_int((int64_t)(ua * ub), u);
	case DIV: return from_int(u ? (int64_t)(ua / ub) : b == -1 ? (int64_t)(0 - ua) : a / b, u);
	case REM: return from_int(u ? (int64_t)(ua % ub) : b == -1 ? 0 : a % b, u);
	}
	ptx_fail(p, "an operator that is not known");
}

static struct ptx_value
binary(struct ptx_parser *p, unsigned level)
{
	struct ptx_value left = unary(p);

	while (ptx_is(*p->at, PTX_C_OPERATOR)) {
		size_t i = 0, count = sizeof(operators) / sizeof(operators[0]);
		while (i < count && strncmp(p->at, operators[i].text, strlen(operators[i].text)) != 0)
			i++;
		if (i == count || operators[i].level < level)
			return left;
		p->at += strlen(operators[i].text);
		ptx_skip(p);
		deeper(p);
		left = apply(p, operators[i].op, left, binary(p, operators[i].level + 1u));
		p->depth--;
	}
	return left;
}

static struct ptx_value
ternary(struct ptx_parser *p)
{
	struct ptx_value v = binary(p, 1);

	if (!ptx_accept(p, '?'))
		return v;
	deeper(p);
	bool chosen = v.is_float ? as_double(v) != 0 : v.bits != 0;
	struct ptx_value yes = ternary(p);
	ptx_expect(p, ':');
	struct ptx_value no = ternary(p);
	p->depth--;
	return chosen ? yes : no;
}

struct ptx_value
ptx_expr(struct ptx_parser *p)
{
	return ternary(p);
}

int64_t
ptx_offset(struct ptx_parser *p)
{
	uint64_t sum = 0;

	while (*p->at == '+' || *p->at == '-') {
		bool minus = *p->at == '-';
		ptx_expect(p, *p->at);
		struct ptx_value v = binary(p, 10);
		if (v.is_float)
			ptx_fail(p, "a floating-point offset");
		sum += minus ? 0 - (uint64_t)v.bits : (uint64_t)v.bits;
	}
	return (int64_t)sum;
}

static uint64_t
checked(struct ptx_parser *p, struct ptx_value v, const char *what, uint64_t limit)
{
	if (v.is_float || (!v.is_unsigned && v.bits < 0))
		ptx_fail(p, "%s is not a number from 0 on", what);
	if ((uint64_t)v.bits > limit)
		ptx_fail(p, "%s %llu is more than %llu", what, (unsigned long long)v.bits, (unsigned long long)limit);
	return (uint64_t)v.bits;
}

uint64_t
ptx_uint(struct ptx_parser *p, const char *what, uint64_t limit)
{
	return checked(p, ptx_expr(p), what, limit);
}

uint64_t
ptx_range_count(struct ptx_parser *p, const char *what, uint64_t limit)
{
	ptx_expect(p, '<');
	uint64_t count = checked(p, binary(p, 9), what, limit);
	ptx_expect(p, '>');
	return count;
}
