/*
 * The calls that the device side serves, one row each, by file. A row X(cuName) declares sw_cuName with the prototype of
 * struct cuda_ops and puts it into the table in ops.c. module.h and graph.h have lists of their own.
 */
#ifndef SW_OPS_H
#define SW_OPS_H

#include "cuda_ops.h"

#define SW_OPS_DEVICE(X) \
	X(cuDeviceGet) X(cuDeviceGetCount) X(cuDeviceGetName) X(cuDeviceGetUuid_v2) X(cuDeviceGetUuid) X(cuDeviceTotalMem_v2) \
	X(cuDeviceGetTexture1DLinearMaxWidth) X(cuDeviceGetAttribute) X(cuDeviceGetHostAtomicCapabilities) \
	X(cuDeviceGetExecAffinitySupport) X(cuFlushGPUDirectRDMAWrites) X(cuDeviceGetProperties) X(cuDeviceComputeCapability) \
	X(cuDeviceGetByPCIBusId) X(cuDeviceGetPCIBusId) X(cuDeviceCanAccessPeer) X(cuDeviceGetP2PAttribute) \
	X(cuDeviceGetP2PAtomicCapabilities) X(cuCtxEnablePeerAccess) X(cuCtxDisablePeerAccess)

#define SW_OPS_CONTEXT(X) \
	X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease_v2) X(cuDevicePrimaryCtxRelease) X(cuDevicePrimaryCtxSetFlags_v2) \
	X(cuDevicePrimaryCtxSetFlags) X(cuDevicePrimaryCtxGetState) X(cuDevicePrimaryCtxReset_v2) X(cuDevicePrimaryCtxReset) \
	X(cuCtxCreate_v4) X(cuCtxCreate_v3) X(cuCtxCreate_v2) X(cuCtxCreate) X(cuCtxDestroy_v2) X(cuCtxDestroy) X(cuCtxGetFlags) \
	X(cuCtxSetFlags) X(cuCtxSynchronize) X(cuCtxSynchronize_v2) X(cuCtxSetLimit) X(cuCtxGetLimit) X(cuCtxGetCacheConfig) \
	X(cuCtxSetCacheConfig) X(cuCtxGetStreamPriorityRange) X(cuCtxResetPersistingL2Cache) X(cuCtxGetSharedMemConfig) \
	X(cuCtxSetSharedMemConfig) X(cuCtxGetExecAffinity) X(cuCtxRecordEvent) X(cuCtxWaitEvent)

#define SW_OPS_MEMORY(X) \
	X(cuMemGetInfo_v2) X(cuMemAlloc_v2) X(cuMemAllocPitch_v2) X(cuMemFree_v2) X(cuMemGetAddressRange_v2) X(cuMemAllocHost_v2) \
	X(cuMemFreeHost) X(cuMemHostAlloc) X(cuMemHostGetDevicePointer_v2) X(cuMemHostGetFlags) X(cuMemHostRegister_v2) \
	X(cuMemHostRegister) X(cuMemHostUnregister)

#define SW_OPS_MANAGED(X) \
	X(cuMemAllocManaged) X(cuMemAdvise) X(cuMemAdvise_v2) X(cuMemPrefetchAsync) \
	X(cuMemPrefetchAsync_v2) X(cuMemPrefetchBatchAsync) X(cuMemDiscardBatchAsync) X(cuMemDiscardAndPrefetchBatchAsync) \
	X(cuMemRangeGetAttribute) X(cuMemRangeGetAttributes) X(cuStreamAttachMemAsync) X(cuPointerGetAttribute) \
	X(cuPointerGetAttributes) X(cuPointerSetAttribute)

#define SW_OPS_COPY(X) \
	X(cuMemcpy) X(cuMemcpyAsync) X(cuMemcpyHtoD_v2) X(cuMemcpyHtoDAsync_v2) X(cuMemcpyDtoH_v2) X(cuMemcpyDtoHAsync_v2) \
	X(cuMemcpyDtoD_v2) X(cuMemcpyDtoDAsync_v2) X(cuMemcpyPeer) X(cuMemcpyPeerAsync) X(cuMemcpyDtoA_v2) X(cuMemcpyAtoD_v2) \
	X(cuMemcpyHtoA_v2) X(cuMemcpyAtoH_v2) X(cuMemcpyAtoA_v2) X(cuMemcpyHtoAAsync_v2) X(cuMemcpyAtoHAsync_v2) \
	X(cuMemcpy2D_v2) X(cuMemcpy2DUnaligned_v2) X(cuMemcpy2DAsync_v2) X(cuMemcpy3D_v2) X(cuMemcpy3DAsync_v2) X(cuMemcpy3DPeer) \
	X(cuMemcpy3DPeerAsync) X(cuMemcpyBatchAsync) X(cuMemcpyBatchAsync_v2) X(cuMemcpy3DBatchAsync) X(cuMemcpy3DBatchAsync_v2) \
	X(cuMemsetD8_v2) X(cuMemsetD16_v2) X(cuMemsetD32_v2) X(cuMemsetD2D8_v2) X(cuMemsetD2D16_v2) X(cuMemsetD2D32_v2) \
	X(cuMemsetD8Async) X(cuMemsetD16Async) X(cuMemsetD32Async) X(cuMemsetD2D8Async) X(cuMemsetD2D16Async) X(cuMemsetD2D32Async)

#define SW_OPS_ARRAY(X) \
	X(cuArrayCreate_v2) X(cuArray3DCreate_v2) X(cuArrayGetDescriptor_v2) X(cuArray3DGetDescriptor_v2) X(cuArrayDestroy) \
	X(cuArrayGetMemoryRequirements) X(cuArrayGetSparseProperties) X(cuArrayGetPlane) X(cuMipmappedArrayCreate) \
	X(cuMipmappedArrayGetLevel) X(cuMipmappedArrayDestroy) X(cuMipmappedArrayGetMemoryRequirements) \
	X(cuMipmappedArrayGetSparseProperties)

#define SW_OPS_VMM(X) \
	X(cuMemAddressReserve) X(cuMemAddressFree) X(cuMemCreate) X(cuMemRelease) X(cuMemMap) X(cuMemUnmap) X(cuMemSetAccess) \
	X(cuMemGetAccess) X(cuMemExportToShareableHandle) X(cuMemImportFromShareableHandle) X(cuMemGetAllocationGranularity) \
	X(cuMemGetAllocationPropertiesFromHandle) X(cuMemRetainAllocationHandle)

#define SW_OPS_POOL(X) \
	X(cuDeviceGetDefaultMemPool) X(cuDeviceGetMemPool) X(cuDeviceSetMemPool) X(cuMemGetDefaultMemPool) X(cuMemGetMemPool) \
	X(cuMemSetMemPool) X(cuMemPoolCreate) X(cuMemPoolDestroy) X(cuMemPoolTrimTo) X(cuMemPoolSetAttribute) \
	X(cuMemPoolGetAttribute) X(cuMemPoolSetAccess) X(cuMemPoolGetAccess) X(cuMemPoolExportToShareableHandle) \
	X(cuMemPoolImportFromShareableHandle) X(cuMemPoolExportPointer) X(cuMemPoolImportPointer) X(cuMemAllocAsync) \
	X(cuMemAllocFromPoolAsync) X(cuMemFreeAsync)

#define SW_OPS_STREAM(X) \
	X(cuStreamCreate) X(cuStreamCreateWithPriority) X(cuStreamDestroy_v2) X(cuStreamDestroy) X(cuStreamGetPriority) \
	X(cuStreamGetId) X(cuStreamGetFlags) X(cuStreamGetDevice) X(cuStreamGetCtx) X(cuStreamGetCtx_v2) X(cuStreamWaitEvent) \
	X(cuStreamAddCallback) X(cuLaunchHostFunc) X(cuStreamQuery) X(cuStreamSynchronize) X(cuStreamCopyAttributes) \
	X(cuStreamGetAttribute) X(cuStreamSetAttribute) X(cuEventCreate) X(cuEventQuery) X(cuEventSynchronize) X(cuEventDestroy_v2) \
	X(cuEventDestroy) X(cuEventElapsedTime_v2) X(cuEventElapsedTime) X(cuEventRecord) X(cuEventRecordWithFlags) \
	X(cuStreamWriteValue32_v2) X(cuStreamWaitValue32_v2) X(cuStreamWriteValue64_v2) X(cuStreamWaitValue64_v2) \
	X(cuStreamBatchMemOp_v2) X(cuStreamWriteValue32) X(cuStreamWaitValue32) X(cuStreamWriteValue64) X(cuStreamWaitValue64) \
	X(cuStreamBatchMemOp)

#define SW_OPS_LAUNCH(X) \
	X(cuLaunchKernel) X(cuLaunchKernelEx) X(cuLaunchCooperativeKernel) \
	X(cuFuncSetBlockShape) X(cuFuncSetSharedSize) X(cuParamSetSize) X(cuParamSeti) X(cuParamSetf) X(cuParamSetv) X(cuLaunch) \
	X(cuLaunchGrid) X(cuLaunchGridAsync)

#define SW_OPS_OCCUPANCY(X) \
	X(cuOccupancyMaxActiveBlocksPerMultiprocessor) X(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags) \
	X(cuOccupancyMaxPotentialBlockSize) X(cuOccupancyMaxPotentialBlockSizeWithFlags) X(cuOccupancyAvailableDynamicSMemPerBlock) \
	X(cuOccupancyMaxPotentialClusterSize) X(cuOccupancyMaxActiveClusters)

#define SW_OPS_IPC(X) \
	X(cuIpcGetMemHandle) X(cuIpcOpenMemHandle_v2) X(cuIpcOpenMemHandle) X(cuIpcCloseMemHandle) X(cuIpcGetEventHandle) \
	X(cuIpcOpenEventHandle)

#define SW_OPS_TENSOR(X) \
	X(cuTensorMapEncodeTiled) X(cuTensorMapEncodeIm2col) X(cuTensorMapEncodeIm2colWide) X(cuTensorMapReplaceAddress)

#define SW_OP_DECLARE(name) extern __typeof__(*((struct cuda_ops *)0)->name) sw_##name;
#define SW_OP_ROW(name) .name = sw_##name,

SW_OPS_DEVICE(SW_OP_DECLARE)
SW_OPS_CONTEXT(SW_OP_DECLARE)
SW_OPS_MEMORY(SW_OP_DECLARE)
SW_OPS_MANAGED(SW_OP_DECLARE)
SW_OPS_COPY(SW_OP_DECLARE)
SW_OPS_ARRAY(SW_OP_DECLARE)
SW_OPS_VMM(SW_OP_DECLARE)
SW_OPS_POOL(SW_OP_DECLARE)
SW_OPS_STREAM(SW_OP_DECLARE)
SW_OPS_LAUNCH(SW_OP_DECLARE)
SW_OPS_OCCUPANCY(SW_OP_DECLARE)
SW_OPS_IPC(SW_OP_DECLARE)
SW_OPS_TENSOR(SW_OP_DECLARE)

#endif
