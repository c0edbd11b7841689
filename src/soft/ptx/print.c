/*
 * Instructions back to text, for messages.
 */
#include "ptx.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* Text that is cut where the buffer ends. */
struct out {
	char *text;
	size_t size, used;
};

static void put(struct out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_operand(struct out *out, const struct ptx_func *func, const struct ptx_operand *o);

static void
put(struct out *out, const char *format, ...)
{
	va_list args;

	if (out->used + 1 >= out->size)
		return;
	va_start(args, format);
	int n = vsnprintf(out->text + out->used, out->size - out->used, format, args);
	va_end(args);
	if (n > 0)
		out->used = out->used + (size_t)n < out->size ? out->used + (size_t)n : out->size - 1;
}

static void
put_reg(struct out *out, const struct ptx_func *func, uint32_t reg)
{
	if (reg >= func->reg_count) {
		put(out, "?");
		return;
	}
	const struct ptx_reg *r = &func->regs[reg];
	put(out, "%s", func->reg_names[r->name]);
	if (r->number < PTX_REG_X)
		put(out, "%u", r->number);
	else if (r->number != PTX_REG_PLAIN)
		put(out, ".%c", "xyzw"[(r->number - PTX_REG_X) & 3]);
}

static void
put_list(struct out *out, const struct ptx_func *func, const struct ptx_operand *elems, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		put(out, i ? ", " : "");
		put_operand(out, func, &elems[i]);
	}
}

static void
put_special(struct out *out, const struct ptx_operand *o)
{
	const char *name = o->special < PTX_SR_COUNT ? ptx_special_names[o->special] : "?";

	if (o->special == PTX_SR_pm64)
		put(out, "%%pm%" PRId64 "_64", o->imm);
	else if (o->special == PTX_SR_pm || o->special == PTX_SR_envreg || o->special == PTX_SR_reserved_smem_offset)
		put(out, "%%%s%s%" PRId64, name, o->special == PTX_SR_reserved_smem_offset ? "_" : "", o->imm);
	else
		put(out, "%%%s", name);
	if (o->component)
		put(out, ".%c", "xyzw"[(o->component - 1) & 3]);
}

static void
put_address(struct out *out, const struct ptx_func *func, const struct ptx_operand *o)
{
	put(out, "[");
	if (o->base_is_reg)
		put_reg(out, func, o->reg);
	else if (o->name)
		put(out, "%s", o->name);
	if (!o->base_is_reg && !o->name)
		put(out, "%" PRId64, o->imm);
	else if (o->imm)
		put(out, "%+" PRId64, o->imm);
	if (o->count)
		put(out, ", ");
	put_list(out, func, o->elems, o->count);
	put(out, "]");
}

static void
put_operand(struct out *out, const struct ptx_func *func, const struct ptx_operand *o)
{
	if (o->negate)
		put(out, o->kind == PTX_OP_REG && o->reg < func->reg_count && func->regs[o->reg].type == PTX_pred ? "!" : "-");
	switch ((enum ptx_operand_kind)o->kind) {
	case PTX_OP_NONE:
		break;
	case PTX_OP_REG:
		put_reg(out, func, o->reg);
		if (o->component)
			put(out, ".%c%0*" PRIx64, o->component, (int)o->count, (uint64_t)o->imm);
		break;
	case PTX_OP_IMM:
		put(out, "%" PRId64, o->imm);
		break;
	case PTX_OP_FLOAT:
		if (o->is_f32)
			put(out, "0f%08" PRIX32, ptx_f32_bits(o));
		else
			put(out, "0d%016" PRIX64, (uint64_t)o->imm);
		break;
	case PTX_OP_SPECIAL:
		put_special(out, o);
		break;
	case PTX_OP_SYMBOL:
		put(out, "%s", o->name);
		if (o->imm)
			put(out, "%+" PRId64, o->imm);
		break;
	case PTX_OP_ADDRESS:
		put_address(out, func, o);
		break;
	case PTX_OP_LABEL:
	case PTX_OP_TARGETS:
		put(out, "%s", o->name);
		break;
	case PTX_OP_VECTOR:
	case PTX_OP_LIST:
		put(out, o->kind == PTX_OP_LIST ? "(" : "{");
		put_list(out, func, o->elems, o->count);
		put(out, o->kind == PTX_OP_LIST ? ")" : "}");
		break;
	case PTX_OP_SINK:
		put(out, "_");
		break;
	}
	if (o->second) {
		put(out, "|");
		put_operand(out, func, o->second);
	}
}

void
ptx_print_insn(const struct ptx_func *func, const struct ptx_insn *insn, char *buffer, size_t size)
{
	struct out out = { buffer, size, 0 };

	if (size == 0)
		return;
	buffer[0] = 0;
	if (insn->guarded) {
		put(&out, insn->guard_negated ? "@!" : "@");
		put_reg(&out, func, insn->guard);
		put(&out, " ");
	}
	put(&out, "%s", insn->op);
	for (unsigned i = 0; i < insn->mod_count; i++)
		put(&out, ".%s", insn->mods[i]);
	put(&out, insn->operand_count ? " " : "");
	put_list(&out, func, insn->operands, insn->operand_count);
}
