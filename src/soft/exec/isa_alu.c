/*
 * One CPU level's build of arithmetic, logic, comparison and conversion: see isa.h.
 */
#include "soft/exec/isa.h"

#include "soft/exec/alu_int.c"
#include "soft/exec/alu_float.c"
#include "soft/exec/alu_approx.c"
#include "soft/exec/alu_half.c"
#include "soft/exec/alu_cmp.c"
#include "soft/exec/alu_mov.c"
#include "soft/exec/alu_cvt.c"
#include "soft/exec/alu_cvt8.c"
#include "soft/exec/alu_table.c"
