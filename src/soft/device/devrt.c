/*
 * Functions of the device runtime that are given as PTX text of our own: a grid's barrier, as compilers call it that do not
 * expand it inline. Linked to a program that declares one of them and defines none. The handle is the address of the workspace
 * of a cooperative launch (exec/grid.c); its third word counts the blocks that have arrived, ever.
 */
#include "soft/device/module.h"

#include <string.h>

static const char text[] =
	".version 6.0\n"
	".target sm_30\n"
	".address_size 64\n"
	".visible .func (.param .b64 handle) cudaCGGetIntrinsicHandle(.param .b32 scope)\n"
	"{\n"
	"	.reg .pred %grid;\n"
	"	.reg .b32 %low, %high, %scope;\n"
	"	.reg .b64 %handle;\n"
	"	ld.param.u32 %scope, [scope];\n"
	"	setp.eq.u32 %grid, %scope, 1;\n"
	"	mov.b32 %high, %envreg1;\n"
	"	mov.b32 %low, %envreg2;\n"
	"	mov.b64 %handle, {%low, %high};\n"
	"	selp.b64 %handle, %handle, 0, %grid;\n"
	"	st.param.b64 [handle], %handle;\n"
	"	ret;\n"
	"}\n"
	".visible .func (.param .b32 error) cudaCGSynchronize(.param .b64 handle, .param .b32 flags)\n"
	"{\n"
	"	.reg .pred %no, %other, %early;\n"
	"	.reg .b32 %x, %y, %blocks, %ticket, %goal, %seen;\n"
	"	.reg .b64 %handle;\n"
	"	ld.param.u64 %handle, [handle];\n"
	"	setp.eq.u64 %no, %handle, 0;\n"
	"	@%no bra refuse;\n"
	"	bar.sync 0;\n"
	"	mov.u32 %x, %tid.x;\n"
	"	mov.u32 %y, %tid.y;\n"
	"	or.b32 %x, %x, %y;\n"
	"	mov.u32 %y, %tid.z;\n"
	"	or.b32 %x, %x, %y;\n"
	"	setp.ne.u32 %other, %x, 0;\n"
	"	@%other bra arrived;\n"
	"	mov.u32 %blocks, %nctaid.x;\n"
	"	mov.u32 %y, %nctaid.y;\n"
	"	mul.lo.u32 %blocks, %blocks, %y;\n"
	"	mov.u32 %y, %nctaid.z;\n"
	"	mul.lo.u32 %blocks, %blocks, %y;\n"
	"	membar.gl;\n"
	"	atom.add.u32 %ticket, [%handle+8], 1;\n"
	"	rem.u32 %y, %ticket, %blocks;\n"
	"	sub.u32 %goal, %ticket, %y;\n"
	"	add.u32 %goal, %goal, %blocks;\n"
	"wait:\n"
	"	ld.volatile.u32 %seen, [%handle+8];\n"
	"	sub.u32 %seen, %seen, %goal;\n"
	"	setp.lt.s32 %early, %seen, 0;\n"
	"	@%early bra wait;\n"
	"	membar.gl;\n"
	"arrived:\n"
	"	bar.sync 0;\n"
	"	mov.u32 %x, 0;\n"
	"	bra done;\n"
	"refuse:\n"
	"	mov.u32 %x, 1;\n" /* cudaErrorInvalidValue: the launch was not cooperative */
	"done:\n"
	"	st.param.b32 [error], %x;\n"
	"	ret;\n"
	"}\n";

static bool
is_ours(const char *name)
{
	return strcmp(name, "cudaCGGetIntrinsicHandle") == 0 || strcmp(name, "cudaCGSynchronize") == 0;
}

bool
sw_devrt_needed(struct ptx_module *const *modules, size_t count)
{
	bool needed = false;

	for (size_t m = 0; m < count; m++)
		for (uint32_t f = 0; f < modules[m]->func_count; f++) {
			const struct ptx_func *func = &modules[m]->funcs[f];
			if (!is_ours(func->name))
				continue;
			if (func->has_body || func->alias_of)
				return false;
			needed = true;
		}
	return needed;
}

struct ptx_module *
sw_devrt_parse(struct ptx_error *error)
{
	return ptx_parse(text, sizeof(text) - 1, error);
}
