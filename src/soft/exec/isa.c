/*
 * One CPU level's build of everything that runs instructions: see isa.h. SX_LEVEL is generic, v3 or v4.
 */
#define SX_ISA
#include "soft/exec/isa.h"

#include "soft/exec/decode.c"
#include "soft/exec/flow.c"

#include "soft/exec/alu_int.c"
#include "soft/exec/alu_float.c"
#include "soft/exec/alu_approx.c"
#include "soft/exec/alu_half.c"
#include "soft/exec/alu_cmp.c"
#include "soft/exec/alu_mov.c"
#include "soft/exec/alu_cvt.c"
#include "soft/exec/alu_cvt8.c"
#include "soft/exec/alu_table.c"
#include "soft/exec/mem.c"
#include "soft/exec/warp.c"
#include "soft/exec/video.c"
#include "soft/exec/builtin.c"

#ifndef SX_LEVEL
#define SX_LEVEL generic
#define SX_LEVEL_NAME "generic"
#endif
#define SX_PASTE2(a, b) a##b
#define SX_PASTE(a, b) SX_PASTE2(a, b)

const struct sx_backend SX_PASTE(sx_backend_, SX_LEVEL) = {
	.name = SX_LEVEL_NAME,
	.decode = sxd_decode,
	.run = flow_run_warp,
};
