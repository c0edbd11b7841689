/*
 * What a call means by "current": the calling thread's CUDA context and default stream.
 *
 * The client keeps the per-thread context stack and writes its top here; the implementation behind struct cuda_ops
 * reads it. A server's worker writes it from the record it serves. Nothing else is per thread.
 */
#ifndef FW_BASE_THREAD_H
#define FW_BASE_THREAD_H

#include <stdbool.h>

struct fw_thread {
	void *ctx;              /* the current CUcontext, NULL if there is none */
	bool in_callback;       /* inside a function that a stream called: calls that wait for the device are refused */
	bool per_thread_stream; /* the call came through a _ptds or stream-less _ptsz entry: stream 0 is CU_STREAM_PER_THREAD */
};

extern __thread struct fw_thread fw_thread __attribute__((tls_model("initial-exec")));

#endif
