/* Bytes as PTX text: parsed, and what comes out of it printed and looked through. */
#include "soft/ptx/ptx.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the parser promises to whoever reads the tree: indices are inside their lists. */
static void
check_operands(const struct ptx_module *m, const struct ptx_func *f, const struct ptx_operand *operands, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct ptx_operand *o = &operands[i];
		bool fits = true;
		if (o->kind == PTX_OP_REG || o->base_is_reg)
			fits = o->reg < f->reg_count;
		else if (o->kind == PTX_OP_LABEL)
			fits = o->symbol < f->label_count && f->labels[o->symbol].insn <= f->insn_count;
		else if (o->kind == PTX_OP_TARGETS)
			fits = o->symbol < f->target_count;
		else if (o->kind == PTX_OP_SPECIAL)
			fits = o->special < PTX_SR_COUNT;
		else if (o->symbol_kind == PTX_SYM_MODULE_VAR)
			fits = o->symbol < m->var_count && strcmp(m->vars[o->symbol].name, o->name) == 0;
		else if (o->symbol_kind == PTX_SYM_LOCAL_VAR)
			fits = o->symbol < f->local_count;
		else if (o->symbol_kind == PTX_SYM_PARAM)
			fits = o->symbol < f->param_count;
		else if (o->symbol_kind == PTX_SYM_RETURN_PARAM)
			fits = o->symbol < f->return_count;
		else if (o->symbol_kind == PTX_SYM_FUNC)
			fits = o->symbol < m->func_count && strcmp(m->funcs[o->symbol].name, o->name) == 0;
		else
			fits = o->symbol_kind == PTX_SYM_NONE;
		if (!fits)
			__builtin_trap();
		check_operands(m, f, o->elems, o->elems ? o->count : 0);
		check_operands(m, f, o->second, o->second != NULL);
	}
}

static void
check_func(const struct ptx_module *m, const struct ptx_func *f)
{
	char text[300];

	for (uint32_t i = 0; i < f->insn_count; i++) {
		const struct ptx_insn *in = &f->insns[i];
		if (in->guarded && f->regs[in->guard].type != PTX_pred)
			__builtin_trap();
		if (in->loc > m->loc_count || in->operand_count > PTX_MAX_OPERANDS || in->mod_count > PTX_MAX_MODS)
			__builtin_trap();
		check_operands(m, f, in->operands, in->operand_count);
		ptx_print_insn(f, in, text, sizeof(text));
		if (strlen(text) >= sizeof(text))
			__builtin_trap();
	}
	for (uint32_t i = 0; i < f->reg_count; i += f->reg_count / 100 + 1)
		if (f->reg_names[f->regs[i].name] == NULL)
			__builtin_trap();
	for (uint32_t i = 0; i < f->target_count; i++)
		for (uint32_t k = 0; f->targets[i].labels && k < f->targets[i].count; k++)
			if (f->targets[i].labels[k] >= f->label_count)
				__builtin_trap();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ptx_error error;
	uint32_t version, target;
	char suffix;
	struct ptx_module *m = ptx_parse((const char *)data, size, &error);

	ptx_peek((const char *)data, size, &version, &target, &suffix);
	if (!m) {
		if (!error.text[0] || strlen(error.text) >= sizeof(error.text))
			__builtin_trap();
		return 0;
	}
	for (uint32_t i = 0; i < m->var_count; i++)
		for (uint32_t k = 0; k < m->vars[i].reloc_count; k++)
			if (m->vars[i].relocs[k].offset + m->vars[i].relocs[k].size > m->vars[i].size || !m->vars[i].init)
				__builtin_trap();
	for (uint32_t i = 0; i < m->func_count; i++)
		check_func(m, &m->funcs[i]);
	ptx_free(m);
	return 0;
}
