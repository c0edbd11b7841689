/*
 * What a program should not do, and what the driver has to say then: wrong geometry, handles that are none or are no more, sizes that
 * cannot be, too much memory, other contexts, and kernels that fail.
 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

static void
wrong_launch(struct world *w)
{
	unsigned m = draw(w, MODULES), s = pick_stream(w);
	CUstream stream = pick_handle(w, s);
	uint32_t value = 1;
	void *params[] = { &value };
	CUfunction f = w->modules[m].bump;

	if (!w->modules[m].alive || w->streams[s].captured)
		return;
	switch (draw(w, 14)) {
	case 0:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 0, 1, 1, 32, 1, 1, 0, stream, params, NULL), "no blocks s%u", s);
		break;
	case 1:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 1, 1, 1, 1025, 1, 1, 0, stream, params, NULL), "1025 threads s%u", s);
		break;
	case 2:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 1, 65536, 1, 32, 1, 1, 0, stream, params, NULL), "tall s%u", s);
		break;
	case 3:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 1, 1, 1, 1, 1, 65, 0, stream, params, NULL), "deep s%u", s);
		break;
	case 4:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 1, 1, 1, 32, 1, 1, 1 << 20, stream, params, NULL), "shared s%u", s);
		break;
	case 5:
		FAILS(w, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, CU(cuLaunchKernel)(w->modules[m].bounded, 1, 1, 1, 128, 1, 1, 0, stream, NULL, NULL),
		      "more than .maxntid s%u", s);
		break;
	case 6:
		FAILS(w, CUDA_ERROR_INVALID_HANDLE, CU(cuLaunchKernel)(NULL, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL), "no function s%u", s);
		break;
	case 7:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL), "no parameters s%u", s);
		break;
	case 8:
		if (w->stale_function)
			MUST_FAIL(w, CU(cuLaunchKernel)(w->stale_function, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL), "stale function s%u", s);
		break;
	case 9:
		if (w->stale_stream)
			MUST_FAIL(w, CU(cuLaunchKernel)(f, 1, 1, 1, 32, 1, 1, 0, w->stale_stream, params, NULL), "stale stream");
		break;
	case 10:
		MUST_FAIL(w, CU(cuLaunchKernel)((CUfunction)w->events[0].handle, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL), "an event s%u", s);
		break;
	case 11: {
		void *extra[] = { (void *)7, &value, NULL };
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuLaunchKernel)(f, 1, 1, 1, 32, 1, 1, 0, stream, NULL, extra), "wrong extra s%u", s);
		break;
	}
	case 12: {
		size_t size = 2;
		void *extra[] = { (void *)1, &value, (void *)2, &size, NULL };
		RUN(w, CU(cuLaunchKernel)(f, 1, 1, 1, 1, 0, 1, 0, stream, NULL, extra), "short extra, no threads s%u", s);
		break;
	}
	default: {
		CUlaunchAttribute attribute = { .id = (CUlaunchAttributeID)9999 };
		CUlaunchConfig config = { 1, 1, 1, 32, 1, 1, 0, stream, &attribute, 1 };
		MUST_FAIL(w, CU(cuLaunchKernelEx)(&config, f, params, NULL), "attribute 9999 s%u", s);
	}
	}
}

static void
wrong_copy(struct world *w)
{
	static uint8_t bytes[64];
	unsigned b = find_buffer(w, 0, DEVICE_BUFFERS, 1 << DEVICE), s = pick_stream(w);
	CUstream stream = pick_handle(w, s);

	if (b == BUFFERS || w->streams[s].captured)
		return;
	CUdeviceptr p = w->buffers[b].address, end = p + w->buffers[b].size;
	memset(bytes, 0x55, sizeof(bytes));
	switch (draw(w, 17)) {
	case 0: {
		/* Nothing of a copy that is refused may have been written. */
		size_t size = ((w->buffers[b].size + 0xfff) & ~0xffful) + (2u << 20);
		uint8_t *many = malloc(size);
		memset(many, 0x77, size);
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(many, p, size), "b%u beyond its end", b);
		for (size_t n = 0; n < size && !w->poisoned; n++)
			if (many[n] != 0x77) {
				wrong(w, "a copy that was refused wrote");
				break;
			}
		free(many);
		break;
	}
	case 1: {
		size_t size = ((w->buffers[b].size + 0xfff) & ~0xffful) + (2u << 20);
		uint8_t *many = calloc(1, size);
		if (!w->capture.active)
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD_v2)(p, many, size), "b%u beyond its end", b);
		free(many);
		break;
	}
	case 2:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoHAsync_v2)(bytes, end - 4, 64, stream), "b%u across its end s%u", b, s);
		break;
	case 3:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoDAsync_v2)(end - 4, bytes, 64, stream), "b%u across its end s%u", b, s);
		break;
	case 4:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD_v2)(p, NULL, 16), "b%u from NULL", b);
		break;
	case 5:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(NULL, p, 16), "b%u to NULL", b);
		break;
	case 6:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoD_v2)(p, 0, 16), "b%u from 0", b);
		break;
	case 7:
		RUN(w, CU(cuMemcpyDtoH_v2)(bytes, p, 0), "b%u nothing", b);
		RUN(w, CU(cuMemcpyDtoH_v2)(NULL, 0, 0), "nothing");
		RUN(w, CU(cuMemcpyHtoDAsync_v2)(p, NULL, 0, stream), "nothing s%u", s);
		break;
	case 8:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD32_v2)(p + 2, 1, 1), "b%u not aligned", b);
		break;
	case 9:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD8Async)(p, 1, w->buffers[b].size + 4096 * 1024, stream), "b%u too long s%u", b, s);
		break;
	case 10:
		if (w->stale_pointer) {
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(bytes, w->stale_pointer, 8), "stale");
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD8Async)(w->stale_pointer, 1, 8, stream), "stale s%u", s);
		}
		break;
	case 11:
		if (w->stale_stream) {
			MUST_FAIL(w, CU(cuMemcpyDtoHAsync_v2)(bytes, p, 8, w->stale_stream), "stale stream");
			MUST_FAIL(w, CU(cuMemcpyHtoDAsync_v2)(p, bytes, 0, w->stale_stream), "stale stream, nothing");
			MUST_FAIL(w, CU(cuMemsetD8Async)(p, 1, 8, w->stale_stream), "stale stream");
			MUST_FAIL(w, CU(cuMemcpyDtoDAsync_v2)(p, p + 8, 4, w->stale_stream), "stale stream");
		}
		break;
	case 12: {
		CUDA_MEMCPY2D c = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = p, .srcPitch = 4, .dstMemoryType = CU_MEMORYTYPE_HOST,
			.dstHost = bytes, .dstPitch = 8, .WidthInBytes = 8, .Height = 2 };
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2D_v2)(&c), "pitch too small");
		c.srcPitch = 8;
		c.dstPitch = 4;
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2DAsync_v2)(&c, stream), "pitch too small s%u", s);
		c.dstPitch = 8;
		c.srcMemoryType = (CUmemorytype)9;
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpy2D_v2)(&c), "memory type 9");
		c.srcMemoryType = CU_MEMORYTYPE_ARRAY;
		MUST_FAIL(w, CU(cuMemcpy2D_v2)(&c), "no array");
		c.Height = 0;
		RUN(w, CU(cuMemcpy2D_v2)(&c), "no rows");
		break;
	}
	case 13:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoD_v2)(p, p, SIZE_MAX - 16), "b%u as long as can be", b);
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyHtoD_v2)((CUdeviceptr)(uintptr_t)bytes, bytes, 16), "to the host");
		break;
	case 14:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemcpyDtoH_v2)(bytes, (CUdeviceptr)(uintptr_t)bytes, 16), "from the host");
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemsetD8_v2)((CUdeviceptr)(uintptr_t)bytes, 1, 16), "of the host");
		break;
	case 15: {
		MUST_FAIL(w, CU(cuMemcpyPeer)(p, w->stale_context, p + 8, w->context, 4), "no context");
		break;
	}
	default: {
		CUdeviceptr base;
		size_t size;
		RUN(w, CU(cuMemGetAddressRange_v2)(&base, &size, (CUdeviceptr)(uintptr_t)bytes), "of the host");
		RUN(w, CU(cuMemGetAddressRange_v2)(&base, &size, 0), "of 0");
		unsigned type;
		RUN(w, CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)bytes), "of the host");
		RUN(w, CU(cuPointerGetAttribute)(&type, (CUpointer_attribute)999, p), "attribute 999");
		RUN(w, CU(cuPointerGetAttribute)(NULL, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p), "to NULL");
	}
	}
	for (unsigned n = 0; n < sizeof(bytes) && !w->poisoned && !w->capture.active; n++)
		if (bytes[n] != 0x55) {
			wrong(w, "a copy that was refused wrote");
			break;
		}
}

static void
wrong_memory(struct world *w)
{
	unsigned b = find_buffer(w, 0, DEVICE_BUFFERS, 1 << DEVICE | 1 << POOL), h = find_buffer(w, FIRST_PINNED, FIRST_PAGEABLE, 1 << PINNED);
	unsigned s = pick_stream(w);
	CUdeviceptr p = 0;
	void *q = NULL;

	switch (draw(w, 11)) {
	case 0:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc_v2)(&p, 0), "nothing");
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemAlloc_v2)(NULL, 16), "to NULL");
		break;
	case 1:
		FAILS(w, CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&p, 1ull << 44), "16 TiB");
		FAILS(w, CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&p, SIZE_MAX), "all there can be");
		break;
	case 2:
		FAILS(w, CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAlloc_v2)(&p, 3ull << 30), "3 GiB of 1");
		break;
	case 3:
		FAILS(w, CUDA_ERROR_OUT_OF_MEMORY, CU(cuMemAllocAsync)(&p, 3ull << 30, pick_handle(w, s)), "3 GiB of 1 s%u", s);
		break;
	case 4:
		MUST(w, CU(cuMemFree_v2)(0), "0");
		MUST(w, CU(cuMemFreeHost)(NULL), "NULL");
		break;
	case 5:
		if (b != BUFFERS)
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(w->buffers[b].address + 8), "inside b%u", b);
		break;
	case 6:
		if (w->stale_pointer) {
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(w->stale_pointer), "twice");
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemFreeAsync)(w->stale_pointer, pick_handle(w, s)), "twice s%u", s);
		}
		break;
	case 7:
		if (h != BUFFERS)
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemFree_v2)(w->buffers[h].address), "pinned b%u", h);
		break;
	case 8:
		if (b != BUFFERS)
			FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemFreeHost)((void *)(uintptr_t)w->buffers[b].address), "device b%u", b);
		MUST_FAIL(w, CU(cuMemHostUnregister)(&p), "never registered");
		break;
	case 9:
		FAILS(w, CUDA_ERROR_INVALID_VALUE, CU(cuMemHostAlloc)(&q, 4096, 0x4000), "flags 0x4000");
		RUN(w, CU(cuMemHostAlloc)(&q, 0, 0), "nothing: %d", q != NULL);
		break;
	default:
		if (h != BUFFERS)
			RUN(w, CU(cuMemHostRegister_v2)((void *)(uintptr_t)w->buffers[h].address, 4096, 0), "b%u twice", h);
		RUN(w, CU(cuMemHostRegister_v2)(NULL, 4096, 0), "NULL");
	}
}

static void
wrong_handle(struct world *w)
{
	unsigned e = draw(w, EVENTS), s = pick_stream(w);
	CUstream stream = pick_handle(w, s), junk = (CUstream)(uintptr_t)(0x123450 + draw(w, 4) * 8);
	struct event *event = &w->events[e];
	CUmodule module = NULL;
	CUfunction function = NULL;
	CUgraphExec exec = NULL;
	CUgraph graph = NULL;
	CUevent other = NULL;
	CUdeviceptr p = 0;
	size_t size = 0;
	float ms = 0;

	if (w->streams[s].captured)
		return;
	switch (draw(w, 20)) {
	case 0:
		MUST_FAIL(w, CU(cuStreamQuery)(junk));
		MUST_FAIL(w, CU(cuStreamSynchronize)(junk));
		MUST_FAIL(w, CU(cuStreamDestroy_v2)(junk));
		break;
	case 1:
		if (!w->stale_stream)
			break;
		MUST_FAIL(w, CU(cuStreamQuery)(w->stale_stream), "stale");
		MUST_FAIL(w, CU(cuStreamSynchronize)(w->stale_stream), "stale");
		MUST_FAIL(w, CU(cuStreamDestroy_v2)(w->stale_stream), "stale");
		MUST_FAIL(w, CU(cuLaunchHostFunc)(w->stale_stream, (CUhostFn)(uintptr_t)1, NULL), "stale");
		break;
	case 2:
		if (event->alive && w->stale_stream) {
			MUST_FAIL(w, CU(cuEventRecord)(event->handle, w->stale_stream), "e%u stale stream", e);
			MUST_FAIL(w, CU(cuStreamWaitEvent)(w->stale_stream, event->handle, 0), "e%u stale stream", e);
		}
		break;
	case 3:
		if (w->stale_event) {
			MUST_FAIL(w, CU(cuEventRecord)(w->stale_event, stream), "stale s%u", s);
			MUST_FAIL(w, CU(cuStreamWaitEvent)(stream, w->stale_event, 0), "stale s%u", s);
			MUST_FAIL(w, CU(cuEventQuery)(w->stale_event), "stale");
			MUST_FAIL(w, CU(cuEventSynchronize)(w->stale_event), "stale");
			MUST_FAIL(w, CU(cuEventDestroy_v2)(w->stale_event), "stale");
		}
		break;
	case 4:
		if (event->alive) {
			MUST_FAIL(w, CU(cuStreamWaitEvent)(stream, event->handle, 0x80), "e%u flags s%u", e, s);
			MUST_FAIL(w, CU(cuEventRecordWithFlags)(event->handle, stream, 0x80), "e%u flags s%u", e, s);
			if (w->stale_event)
				MUST_FAIL(w, CU(cuEventElapsedTime)(&ms, event->handle, w->stale_event), "stale");
			MUST_FAIL(w, CU(cuEventRecord)((CUevent)w->modules[0].handle, stream), "a module s%u", s);
		}
		break;
	case 5:
		MUST_FAIL(w, CU(cuEventCreate)(&other, 0x40), "flags 0x40");
		MUST_FAIL(w, CU(cuEventCreate)(NULL, 0), "to NULL");
		MUST_FAIL(w, CU(cuStreamCreate)(&junk, 0x40), "flags 0x40");
		break;
	case 6:
		RUN(w, CU(cuStreamDestroy_v2)(chance(w, 50) ? CU_STREAM_LEGACY : CU_STREAM_PER_THREAD), "a default stream");
		RUN(w, CU(cuStreamDestroy_v2)(NULL), "NULL");
		break;
	case 7:
		if (w->modules[0].alive) {
			FAILS(w, CUDA_ERROR_NOT_FOUND, CU(cuModuleGetFunction)(&function, w->modules[0].handle, "no_such"), "no_such");
			FAILS(w, CUDA_ERROR_NOT_FOUND, CU(cuModuleGetGlobal_v2)(&p, &size, w->modules[0].handle, "no_such"), "no_such");
			RUN(w, CU(cuModuleGetFunction)(&function, w->modules[0].handle, NULL), "NULL");
		}
		break;
	case 8:
		if (w->stale_module) {
			MUST_FAIL(w, CU(cuModuleUnload)(w->stale_module), "stale");
			MUST_FAIL(w, CU(cuModuleGetFunction)(&function, w->stale_module, "mix"), "stale");
		}
		break;
	case 9:
		MUST_FAIL(w, CU(cuModuleLoadData)(&module, "this is no image"), "text");
		MUST_FAIL(w, CU(cuModuleLoadData)(&module, ".version 7.0\n.target sm_75\n.address_size 64\n.entry x( { ret; }\n"), "bad ptx");
		MUST_FAIL(w, CU(cuModuleLoadData)(&module, NULL), "NULL");
		MUST_FAIL(w, CU(cuModuleLoad)(&module, "/nowhere/kernel.ptx"), "a file that is not there");
		break;
	case 10:
		if (w->stale_function) {
			int value;
			MUST_FAIL(w, CU(cuFuncGetAttribute)(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, w->stale_function), "stale");
			MUST_FAIL(w, CU(cuOccupancyMaxActiveBlocksPerMultiprocessor)(&value, w->stale_function, 32, 0), "stale");
		}
		break;
	case 11:
		if (w->stale_exec) {
			MUST_FAIL(w, CU(cuGraphLaunch)(w->stale_exec, stream), "stale s%u", s);
			MUST_FAIL(w, CU(cuGraphExecDestroy)(w->stale_exec), "stale");
		}
		break;
	case 12:
		if (w->stale_graph) {
			MUST_FAIL(w, CU(cuGraphInstantiateWithFlags)(&exec, w->stale_graph, 0), "stale");
			MUST_FAIL(w, CU(cuGraphDestroy)(w->stale_graph), "stale");
			MUST_FAIL(w, CU(cuGraphClone)(&graph, w->stale_graph), "stale");
		}
		break;
	case 13:
		MUST_FAIL(w, CU(cuGraphLaunch)(NULL, stream), "NULL s%u", s);
		MUST_FAIL(w, CU(cuStreamEndCapture)(stream, &graph), "s%u does not capture", s);
		break;
	case 14:
		if (!w->capture.active)
			MUST_FAIL(w, CU(cuStreamBeginCapture_v2)(CU_STREAM_LEGACY, CU_STREAM_CAPTURE_MODE_RELAXED), "legacy");
		break;
	case 15:
		MUST_FAIL(w, CU(cuCtxSetCurrent)((CUcontext)junk));
		MUST_FAIL(w, CU(cuCtxPushCurrent_v2)(NULL), "NULL");
		if (w->stale_context) {
			MUST_FAIL(w, CU(cuCtxSetCurrent)(w->stale_context), "stale");
			MUST_FAIL(w, CU(cuCtxDestroy_v2)(w->stale_context), "stale");
		}
		break;
	case 16: {
		int value;
		CUdevice device;
		FAILS(w, CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGet)(&device, 99), "99");
		MUST_FAIL(w, CU(cuDeviceGetAttribute)(&value, (CUdevice_attribute)9999, 0), "attribute 9999");
		FAILS(w, CUDA_ERROR_INVALID_DEVICE, CU(cuDeviceGetAttribute)(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 5), "device 5");
		break;
	}
	case 17: {
		size_t limit;
		MUST_FAIL(w, CU(cuCtxGetLimit)(&limit, (CUlimit)99), "99");
		MUST_FAIL(w, CU(cuCtxSetLimit)((CUlimit)99, 1), "99");
		break;
	}
	case 18:
		MUST_FAIL(w, CU(cuLaunchHostFunc)(stream, NULL, NULL), "NULL s%u", s);
		MUST_FAIL(w, CU(cuStreamAddCallback)(stream, NULL, NULL, 0), "NULL s%u", s);
		break;
	default:
		if (event->alive && w->events[(e + 1) % EVENTS].alive && (event->flags & CU_EVENT_DISABLE_TIMING))
			MUST_FAIL(w, CU(cuEventElapsedTime)(&ms, event->handle, w->events[(e + 1) % EVENTS].handle), "e%u without timing", e);
	}
}

void
wrong_step(struct world *w)
{
	if (w->capture.active && !chance(w, 5))
		return;
	switch (draw(w, 4)) {
	case 0:
		wrong_launch(w);
		break;
	case 1:
		wrong_copy(w);
		break;
	case 2:
		wrong_memory(w);
		break;
	default:
		wrong_handle(w);
	}
}

/* ---- contexts ------------------------------------------------------------------------------------------------------ */

static void
other_context(struct world *w)
{
	CUcontext context = NULL, popped = NULL, current = NULL;
	CUdeviceptr p = 0;
	CUstream stream = NULL;
	uint32_t value = 0, one = 1;
	unsigned e = draw(w, EVENTS);

	if (MUST(w, CU(cuCtxCreate_v2)(&context, 0, 0)) != CUDA_SUCCESS)
		return;
	MUST(w, CU(cuCtxGetCurrent)(&current), "the new one %d", current == context);
	MUST(w, CU(cuMemAlloc_v2)(&p, 4096));
	MUST(w, CU(cuMemsetD32_v2)(p, 7 + w->step, 1024));
	MUST(w, CU(cuStreamCreate)(&stream, 0));
	MUST(w, CU(cuMemcpyDtoHAsync_v2)(&value, p + 4092, 4, stream), "%u", value);
	if (value != 7 + w->step && !w->poisoned)
		wrong(w, "the new context's memory holds %u", value);
	if (w->modules[0].alive)
		MUST_FAIL(w, CU(cuLaunchKernel)(w->modules[0].bump, 1, 1, 1, 32, 1, 1, 0, stream, (void *[]){ &one }, NULL), "another context's function");
	if (w->events[e].alive)
		MUST_FAIL(w, CU(cuEventRecord)(w->events[e].handle, stream), "another context's event e%u", e);
	MUST(w, CU(cuCtxPushCurrent_v2)(w->context), "first");
	MUST(w, CU(cuMemcpyDtoH_v2)(&value, p, 4), "from the first: %u", value);
	MUST(w, CU(cuCtxPopCurrent_v2)(&popped), "the first %d", popped == w->context);
	if (chance(w, 50))
		MUST(w, CU(cuStreamDestroy_v2)(stream), "of the new one");
	if (chance(w, 50))
		MUST(w, CU(cuMemFree_v2)(p), "of the new one");
	if (chance(w, 50))
		MUST(w, CU(cuCtxPopCurrent_v2)(&popped), "the new one %d", popped == context);
	MUST(w, CU(cuCtxDestroy_v2)(context));
	w->stale_context = context;
	RUN(w, CU(cuCtxGetCurrent)(&current), "the first %d", current == w->context);
	MUST_FAIL(w, CU(cuStreamQuery)(stream), "of a context that is gone");
	if (!w->concurrent)
		MUST_FAIL(w, CU(cuMemcpyDtoH_v2)(&value, p, 4), "of a context that is gone");
	MUST(w, CU(cuCtxSetCurrent)(w->context), "first");
}

void
context_step(struct world *w)
{
	CUcontext popped = NULL, current = NULL;
	CUdeviceptr p = 0;
	CUdevice device = 77;

	if (w->capture.active)
		return;
	switch (draw(w, 4)) {
	case 0:
		other_context(w);
		break;
	case 1:
		MUST(w, CU(cuCtxPushCurrent_v2)(w->context), "first");
		MUST(w, CU(cuCtxGetDevice)(&device), "%d", device);
		MUST(w, CU(cuCtxPopCurrent_v2)(&popped), "the first %d", popped == w->context);
		break;
	case 2:
		MUST(w, CU(cuCtxSetCurrent)(NULL), "none");
		FAILS(w, CUDA_ERROR_INVALID_CONTEXT, CU(cuMemAlloc_v2)(&p, 16), "without a context");
		FAILS(w, CUDA_ERROR_INVALID_CONTEXT, CU(cuStreamQuery)(NULL), "without a context");
		FAILS(w, CUDA_ERROR_INVALID_CONTEXT, CU(cuCtxSynchronize)(), "without a context");
		FAILS(w, CUDA_ERROR_INVALID_CONTEXT, CU(cuMemsetD8Async)(16, 1, 1, NULL), "without a context");
		RUN(w, CU(cuCtxPopCurrent_v2)(&popped), "without a context");
		MUST(w, CU(cuCtxGetCurrent)(&current), "none %d", current == NULL);
		MUST(w, CU(cuCtxSetCurrent)(w->context), "first");
		break;
	default: {
		unsigned flags = 99;
		int active = 7;
		MUST(w, CU(cuDevicePrimaryCtxGetState)(0, &flags, &active), "flags %u active %d", flags, active);
	}
	}
}

/* ---- kernels that fail ----------------------------------------------------------------------------------------------- */

/* A call between the failure and the call that is sure to tell it: either answer is right. */
static void
may_tell(struct world *w, CUresult error)
{
	unsigned s = pick_stream(w);
	CUstream stream = pick_handle(w, s);
	CUresult result;

	switch (draw(w, 4)) {
	case 0:
		result = CU(cuLaunchKernel)(w->modules[0].bump, 1, 1, 1, 1, 1, 1, 0, stream, (void *[]){ &(uint32_t){ 1 } }, NULL);
		break;
	case 1:
		result = CU(cuEventRecord)(w->events[0].handle, stream);
		break;
	case 2:
		result = CU(cuStreamQuery)(stream);
		result = result == CUDA_ERROR_NOT_READY ? CUDA_SUCCESS : result;
		break;
	default:
		result = CU(cuMemsetD8Async)(w->buffers[FIRST_GLOBAL].address, 1, 1, stream);
	}
	say(w, "a call that may know it: %s", result == CUDA_SUCCESS || result == error ? "~" : "something else");
	if (result != CUDA_SUCCESS && result != error)
		wrong(w, "%d after a kernel failed with %d", result, error);
}

void
poison_step(struct world *w)
{
	unsigned s = pick_stream(w), what = draw(w, 5);
	struct module *module = &w->modules[0];
	static const CUdeviceptr nowhere[] = { 0, 16, 0x7000000000000, 1 };
	CUdeviceptr p = nowhere[what % 4];
	CUresult error = CUDA_ERROR_ILLEGAL_ADDRESS;
	uint8_t byte;

	if (!w->may_poison || w->concurrent || w->capture.active || w->poisoned || !module->alive || !w->events[0].alive || w->step < w->steps / 3)
		return;
	if (what == 3) {
		error = CUDA_ERROR_LAUNCH_FAILED;
		MUST(w, CU(cuLaunchKernel)(module->trap, 1, 1, 1, 1, 1, 1, 0, pick_handle(w, s), NULL, NULL), "traps s%u", s);
	} else {
		MUST(w, CU(cuLaunchKernel)(module->poke, 1, 1, 1, 1, 1, 1, 0, pick_handle(w, s), (void *[]){ &p }, NULL), "pokes %d s%u", what, s);
	}
	for (unsigned times = draw(w, 4); times; times--)
		may_tell(w, error);
	w->poisoned = true;
	CUresult result;
	switch (draw(w, 3)) {
	case 0:
		result = RUN(w, CU(cuStreamSynchronize)(pick_handle(w, s)), "s%u", s);
		break;
	case 1:
		if (!(w->streams[s].flags & CU_STREAM_NON_BLOCKING)) {
			result = RUN(w, CU(cuMemcpyDtoH_v2)(&byte, w->buffers[FIRST_GLOBAL].address, 1));
			break;
		}
		/* fallthrough */
	default:
		result = RUN(w, CU(cuCtxSynchronize)());
	}
	if (result != error && !(result == CUDA_ERROR_ILLEGAL_INSTRUCTION && what == 3))
		wrong(w, "%d where the kernel's failure was to be told, %d", result, error);
}
