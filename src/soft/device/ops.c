/*
 * The table that the software GPU gives to the client. Rows come from the lists in ops.h, module.h and graph.h; a call
 * that is in no list stays NULL, and the client answers CUDA_ERROR_NOT_SUPPORTED.
 */
#include "soft/device/device.h"
#include "soft/device/ops.h"

#if __has_include("soft/device/module.h")
#include "soft/device/module.h"
#endif
#if __has_include("soft/device/graph.h")
#include "soft/device/graph.h"
#endif
#if __has_include("soft/device/texture.h")
#include "soft/device/texture.h"
#endif

/* The client's: the handle of the primary context, retained or not. */
static CUresult
primary_context(CUcontext *ctx, CUdevice dev)
{
	if (!sw_device_valid(dev))
		return CUDA_ERROR_INVALID_DEVICE;
	*ctx = sw_primary()->handle;
	return CUDA_SUCCESS;
}

static const struct cuda_ops ops = {
	.name = "soft",
	.primary_context = primary_context,
	SW_OPS_DEVICE(SW_OP_ROW)
	SW_OPS_CONTEXT(SW_OP_ROW)
	SW_OPS_MEMORY(SW_OP_ROW)
	SW_OPS_MANAGED(SW_OP_ROW)
	SW_OPS_COPY(SW_OP_ROW)
	SW_OPS_ARRAY(SW_OP_ROW)
	SW_OPS_VMM(SW_OP_ROW)
	SW_OPS_POOL(SW_OP_ROW)
	SW_OPS_STREAM(SW_OP_ROW)
	SW_OPS_LAUNCH(SW_OP_ROW)
	SW_OPS_OCCUPANCY(SW_OP_ROW)
	SW_OPS_IPC(SW_OP_ROW)
	SW_OPS_TENSOR(SW_OP_ROW)
#ifdef SW_OPS_MODULE
	SW_OPS_MODULE(SW_OP_ROW)
#endif
#ifdef SW_OPS_GRAPH
	SW_OPS_GRAPH(SW_OP_ROW)
#endif
#ifdef SW_OPS_TEXTURE
	SW_OPS_TEXTURE(SW_OP_ROW)
#endif
};

const struct cuda_ops *
sw_ops(void)
{
	return &ops;
}
