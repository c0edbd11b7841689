/*
 * Approximations: the exact value from the host's double precision functions, and the error that the PTX ISA allows.
 *
 * Where the ISA gives no bound (sine of huge arguments, quotients by huge divisors) any result is right.
 */
#include "forms.h"

#include <float.h>
#include <math.h>
#include <string.h>

static double
value(enum num_format f, uint64_t bits, int ftz)
{
	return num_double(num_unpack(f, ftz ? num_flush(f, bits) : bits));
}

static double
ulp32(double x)
{
	int e;

	if (x == 0)
		return ldexp(1, -149);
	frexp(x, &e);
	return ldexp(1, (e - 1 < -126 ? -126 : e - 1) - 23);
}

static void
within(struct answer *r, double exact, double error, int ftz)
{
	r->toleranced = true;
	r->error = error;
	memcpy(&r->bits, &exact, 8);
	if (isnan(exact) || isinf(exact))
		return;
	if (ftz && fabs(exact) < ldexp(1.0001, -126)) /* may be flushed */
		r->error = fabs(exact) + error;
	if (fabs(exact) > FLT_MAX * (1 - 1e-7)) /* may overflow */
		r->any = true;
}

enum fn { SIN, COS, LG2, EX2, RCP, SQRT, RSQRT, TANH };

/* k: function, ftz */
static void
ref_approx32(struct answer *r, const uint64_t *v, const int *k)
{
	double a = value(N_F32, v[0], k[1]), x;

	switch ((enum fn)k[0]) {
	case SIN:
	case COS:
		x = k[0] == SIN ? sin(a) : cos(a);
		if (fabs(a) > 100 * M_PI && isfinite(a))
			r->any = true;
		within(r, x, a == 0 && k[0] == SIN ? 0 : fabs(a) <= 2 * M_PI ? exp2(-20.5) : exp2(-14.7), 0);
		if (k[0] == SIN && a != 0)
			r->error += k[1] ? ldexp(1, -126) : 0;
		break;
	case LG2:
		x = log2(a);
		within(r, x, a > 0.5 && a < 2 ? exp2(-22.6) : fabs(x) * exp2(-22), 0);
		break;
	case EX2:
		x = exp2(a);
		if (x > FLT_MAX)
			x = INFINITY;
		within(r, x, isinf(x) || isinf(a) ? 0 : 2 * ulp32(x), k[1]);
		if (!isinf(a) && x < ldexp(1, -149)) /* underflows to zero */
			r->error = ldexp(1, -148);
		break;
	case RCP:
		x = 1 / a;
		within(r, x, isinf(a) ? 0 : ulp32(x), k[1]);
		if (fabs(x) > FLT_MAX) { /* of subnormal numbers */
			x = copysign(INFINITY, x);
			memcpy(&r->bits, &x, 8);
		}
		break;
	case SQRT:
		x = sqrt(a);
		within(r, x, a == 0 ? 0 : x * exp2(-23) + ldexp(1, -149), k[1]);
		break;
	case RSQRT:
		x = a == 0 ? copysign(INFINITY, a) : 1 / sqrt(a);
		within(r, x, isinf(a) ? 0 : x * exp2(-22.9), k[1]);
		break;
	case TANH:
		x = tanh(a);
		within(r, x, a == 0 ? 0 : fabs(x) * exp2(-11) + ldexp(1, -149), 0);
		break;
	}
}

/* k: function */
static void
ref_approx64(struct answer *r, const uint64_t *v, const int *k)
{
	double a = value(N_F64, v[0], k[1]), x = 0;

	if (k[0] == RCP) { /* 20 bits of mantissa, subnormal numbers flushed */
		x = 1 / a;
		r->error = isinf(a) ? 0 : fabs(x) * exp2(-19);
	} else {
		x = a == 0 ? copysign(INFINITY, a) : 1 / sqrt(a);
		r->error = isinf(a) ? 0 : x * (k[1] ? exp2(-19) : exp2(-45));
	}
	r->toleranced = true;
	memcpy(&r->bits, &x, 8);
	if (k[1] && fabs(x) < ldexp(1.0001, -1022))
		r->error = fabs(x) + ldexp(1, -1030);
	if (fabs(x) > DBL_MAX / 2)
		r->any = isfinite(x);
}

/* k: format, function, ftz */
static void
ref_approx16(struct answer *r, const uint64_t *v, const int *k)
{
	enum num_format f = (enum num_format)k[0];
	double a = value(f, v[0], k[2]), x, largest = f == N_F16 ? 65504 : 3.3895313892515355e38, tiny = f == N_F16 ? ldexp(1, -24) : ldexp(1, -133);

	r->toleranced = true;
	if (k[1] == TANH) {
		x = tanh(a);
		r->error = a == 0 ? 0 : f == N_F16 ? exp2(-10.987) : exp2(-8);
	} else {
		x = exp2(a);
		if (x > largest)
			r->any = x < 2 * largest, x = INFINITY;
		r->error = isinf(x) || isinf(a) ? 0 : x * (f == N_F16 ? exp2(-9.9) : exp2(-7)) + tiny;
		if (k[2] && x < (f == N_F16 ? ldexp(1, -14) : ldexp(1, -126)))
			r->error = x + tiny;
	}
	memcpy(&r->bits, &x, 8);
}

/* k: full range, ftz */
static void
ref_div(struct answer *r, const uint64_t *v, const int *k)
{
	double a = value(N_F32, v[0], k[1]), b = value(N_F32, v[1], k[1]), x = a / b;

	within(r, x, isinf(x) || isinf(b) || a == 0 ? 0 : 2 * ulp32(x), k[1]);
	if (isfinite(x) && fabs(x) > FLT_MAX)
		r->any = true;
	if (!k[0] && b != 0 && isfinite(b) && (fabs(b) < ldexp(1, -126) || fabs(b) > ldexp(1, 126)))
		r->any = true;
	/* the quick form multiplies by a reciprocal: products of tiny ones and infinities of huge ones are inside its bound only in range */
	if (!k[0] && isfinite(a) && isfinite(b) && b != 0 && (fabs(x) < ldexp(1, -126) || fabs(a) < ldexp(1, -126)))
		r->any = true;
	if (k[0] && fabs(x) < ldexp(1, -126) && isfinite(b) && a != 0)
		r->error += 2 * ldexp(1, -149);
}

void
forms_approx(void)
{
	static const char *const names[] = { "sin", "cos", "lg2", "ex2", "rcp", "sqrt", "rsqrt" };

	for (int fn = SIN; fn <= RSQRT; fn++)
		for (int ftz = 0; ftz < 2; ftz++)
			form("approx.f32", "ff", ref_approx32, K(fn, ftz), 0, "%s.approx%s.f32 $d, $a;", names[fn], ftz ? ".ftz" : "");
	form("approx.f32", "ff", ref_approx32, K(TANH), 75, "tanh.approx.f32 $d, $a;");
	form("approx.f64", "gg", ref_approx64, K(RCP, 1), 0, "rcp.approx.ftz.f64 $d, $a;");
	form("approx.f64", "gg", ref_approx64, K(RSQRT, 0), 0, "rsqrt.approx.f64 $d, $a;");
	form("approx.f64", "gg", ref_approx64, K(RSQRT, 1), 0, "rsqrt.approx.ftz.f64 $d, $a;");
	form("approx.f16", "ky", ref_approx16, K(N_F16, TANH), 75, "tanh.approx.f16 $d, $a;");
	form("approx.f16", "KK", ref_approx16, K(N_F16, TANH), 75, "tanh.approx.f16x2 $d, $a;");
	form("approx.f16", "zy", ref_approx16, K(N_BF16, TANH), 90, "tanh.approx.bf16 $d, $a;");
	form("approx.f16", "ZZ", ref_approx16, K(N_BF16, TANH), 90, "tanh.approx.bf16x2 $d, $a;");
	form("approx.f16", "ky", ref_approx16, K(N_F16, EX2), 75, "ex2.approx.f16 $d, $a;");
	form("approx.f16", "KK", ref_approx16, K(N_F16, EX2), 75, "ex2.approx.f16x2 $d, $a;");
	form("approx.f16", "zy", ref_approx16, K(N_BF16, EX2, 1), 90, "ex2.approx.ftz.bf16 $d, $a;");
	form("approx.f16", "ZZ", ref_approx16, K(N_BF16, EX2, 1), 90, "ex2.approx.ftz.bf16x2 $d, $a;");
	for (int ftz = 0; ftz < 2; ftz++) {
		form("div.approx", "fff", ref_div, K(0, ftz), 0, "div.approx%s.f32 $d, $a, $b;", ftz ? ".ftz" : "");
		form("div.approx", "fff", ref_div, K(1, ftz), 0, "div.full%s.f32 $d, $a, $b;", ftz ? ".ftz" : "");
	}
}
