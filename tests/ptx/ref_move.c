/*
 * mov between widths, immediates in every form, and guards: scalar references and rows.
 */
#include "forms.h"

#include <stdio.h>

/* k: bits kept, from bit */
static void
ref_bits(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = v[0] >> k[1] & (k[0] == 64 ? ~0ull : (1ull << k[0]) - 1);
}

/* k: bits of each operand; the first is lowest; how many */
static void
ref_join(struct answer *r, const uint64_t *v, const int *k)
{
	for (int i = 0; i < k[1]; i++)
		r->bits |= (v[i] & (k[0] == 64 ? ~0ull : (1ull << k[0]) - 1)) << (k[0] * i);
}

/* k: the constant's low and high words */
static void
ref_constant(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = (uint64_t)(uint32_t)k[1] << 32 | (uint32_t)k[0];
}

static void
ref_swap(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = v[0] << 32 | v[1];
}

static void
ref_conditional(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = (v[0] != 0) == (k[0] != 0) ? v[1] : v[2];
}

static void
ref_add_constant(struct answer *r, const uint64_t *v, const int *k)
{
	r->bits = v[0] + (uint64_t)(int64_t)k[0];
}

void
forms_move(void)
{
	form("mov", "hh", ref_bits, K(16), 0, "mov.b16 $d, $a;");
	form("mov", "hh", ref_bits, K(16), 0, "mov.u16 $d, $a;");
	form("mov", "ww", ref_bits, K(32), 0, "mov.s32 $d, $a;");
	form("mov", "ff", ref_bits, K(32), 0, "mov.f32 $d, $a;");
	form("mov", "dd", ref_bits, K(64), 0, "mov.u64 $d, $a;");
	form("mov", "gg", ref_bits, K(64), 0, "mov.f64 $d, $a;");
	form("mov", "pp", ref_bits, K(1), 0, "mov.pred $d, $a;");
	form("mov", "whh", ref_join, K(16, 2), 0, "mov.b32 $d, {$a, $b};");
	form("mov", "dww", ref_join, K(32, 2), 0, "mov.b64 $d, {$a, $b};");
	form("mov", "dhhhh", ref_join, K(16, 4), 0, "mov.b64 $d, {$a, $b, $c, $e};");
	form("mov", "hw", ref_bits, K(16, 0), 0, "{ .reg .b16 x; mov.b32 {$d, x}, $a; }");
	form("mov", "hw", ref_bits, K(16, 16), 0, "{ .reg .b16 x; mov.b32 {x, $d}, $a; }");
	form("mov", "hw", ref_bits, K(16, 16), 0, "mov.b32 {_, $d}, $a;");
	form("mov", "wd", ref_bits, K(32, 0), 0, "mov.b64 {$d, _}, $a;");
	form("mov", "wd", ref_bits, K(32, 32), 0, "mov.b64 {_, $d}, $a;");
	form("mov", "hd", ref_bits, K(16, 32), 0, "{ .reg .b16 x, y, z; mov.b64 {x, y, $d, z}, $a; }");
	form("mov", "ddd", ref_bits, K(64, 0), 70, "{ .reg .b128 x; mov.b128 x, {$a, $b}; mov.b128 {$d, _}, x; }");
	form("mov", "dww", ref_swap, NULL, 0, "mov.b64 $d, {$b, $a};");
	/* the halves of one register exchanged in place */
	form("mov", "dww", ref_join, K(32, 2), 0, "{ .reg .b32 x, y; mov.b64 $d, {$b, $a}; mov.b64 {x, y}, $d; mov.b64 $d, {y, x}; }");

	form("immediate", "ww", ref_constant, K(42), 0, "mov.u32 $d, 42;");
	form("immediate", "ww", ref_constant, K(-42), 0, "mov.s32 $d, -42;");
	form("immediate", "ww", ref_constant, K(0x7fffffff), 0, "mov.u32 $d, 0x7FFFFFFFU;");
	form("immediate", "ww", ref_constant, K(0765), 0, "mov.u32 $d, 0765;");
	form("immediate", "ww", ref_constant, K(5), 0, "mov.u32 $d, 0b101;");
	form("immediate", "ww", ref_constant, K((7 + 3) * 4 - (1 << 3)), 0, "mov.u32 $d, (7 + 3) * 4 - (1 << 3);");
	form("immediate", "ww", ref_constant, K(~5 ^ 3), 0, "mov.b32 $d, ~5 ^ 3;");
	form("immediate", "ww", ref_constant, K(17), 0, "mov.b32 $d, 3 > 2 ? 17 : 4;");
	form("immediate", "dd", ref_constant, K((int)0xdeadbeef, 0x12345678), 0, "mov.u64 $d, 0x12345678deadbeef;");
	form("immediate", "dd", ref_constant, K(-1, -1), 0, "mov.s64 $d, -1;");
	form("immediate", "ff", ref_constant, K(0x3fc00000), 0, "mov.f32 $d, 0f3fC00000;");
	form("immediate", "ff", ref_constant, K(0x3fc00000), 0, "mov.f32 $d, 1.5;");
	form("immediate", "ff", ref_constant, K(0x3dcccccd), 0, "mov.f32 $d, 0.1;");
	form("immediate", "ff", ref_constant, K((int)0xc4bb8000), 0, "mov.f32 $d, -1.5e3;");
	form("immediate", "gg", ref_constant, K(0, 0x40090000), 0, "mov.f64 $d, 0d4009000000000000;");
	form("immediate", "gg", ref_constant, K(0, 0x40090000), 0, "mov.f64 $d, 3.125;");
	form("immediate", "ww", ref_add_constant, K(-5), 0, "add.s32 $d, $a, -5;");
	form("immediate", "ww", ref_add_constant, K(-1), 0, "add.u32 $d, $a, 0xffffffff;");
	form("immediate", "dd", ref_add_constant, K(-7), 0, "add.s64 $d, $a, -7;");
	form("immediate", "hh", ref_add_constant, K(-300), 0, "add.s16 $d, $a, -300;");
	form("immediate", "hh", ref_add_constant, K(-1), 0, "add.u16 $d, $a, 65535;");
	form("guard", "wwww", ref_conditional, K(1), 0, "{ .reg .pred p; setp.ne.u32 p, $a, 0; mov.u32 $d, $c; @p mov.u32 $d, $b; }");
	form("guard", "wwww", ref_conditional, K(0), 0, "{ .reg .pred p; setp.ne.u32 p, $a, 0; mov.u32 $d, $c; @!p mov.u32 $d, $b; }");
	form("guard", "dwdd", ref_conditional, K(1), 0, "{ .reg .pred p; setp.ne.u32 p, $a, 0; mov.u64 $d, $c; @p mov.u64 $d, $b; }");
}
