/*
 * One CPU level's build of the decoder, control flow and what is neither arithmetic nor memory: see isa.h. SX_LEVEL is generic, v3 or v4.
 */
#include "soft/exec/isa.h"

#include "soft/exec/decode.c"
#include "soft/exec/flow.c"

#include "soft/exec/warp.c"
#include "soft/exec/video.c"
#include "soft/exec/builtin.c"

const struct sx_backend SX_AT_LEVEL(sx_backend) = {
	.name = SX_LEVEL_NAME,
	.decode = sxd_decode,
	.run = flow_run_warp,
};
