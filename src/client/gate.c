/*
 * What lies behind the gate when it is not simply open: the answers of calls that come too early, too late or in a forked
 * child; calls that are not served; traces.
 */
#include "client.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "call/format.h"

#define TRACE_LINE 1536

unsigned cl_gate = CL_GATE_CLOSED | CL_GATE_FIRST;
enum cl_state cl_state = CL_STATE_NEW;
const struct cuda_ops *cl_ops;

static __thread uint64_t trace_start; /* of the innermost traced call of this thread */

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

CUresult
cl_enter_slow(enum cl_needs needs)
{
	unsigned gate = __atomic_load_n(&cl_gate, __ATOMIC_ACQUIRE);

	if (gate & CL_GATE_FIRST) {
		if (fw_log_on(FW_LOG_CALLS))
			__atomic_or_fetch(&cl_gate, CL_GATE_TRACE, __ATOMIC_RELAXED);
		gate = __atomic_and_fetch(&cl_gate, ~(unsigned)CL_GATE_FIRST, __ATOMIC_ACQUIRE);
	}
	if (gate & CL_GATE_TRACE)
		trace_start = now_ns();
	if (!(gate & CL_GATE_CLOSED) || needs == CL_NEEDS_NONE)
		return CUDA_SUCCESS;
	if (__atomic_load_n(&cl_state, __ATOMIC_ACQUIRE) == CL_STATE_CLOSED)
		return CUDA_ERROR_DEINITIALIZED;
	return CUDA_ERROR_NOT_INITIALIZED;
}

void
cl_trace(enum cuda_call_id call, CUresult result, const void *const *args)
{
	uint64_t took = trace_start ? now_ns() - trace_start : 0;
	char text[TRACE_LINE];
	const char *name = call_error_name((int)result);

	trace_start = 0; /* of a call that turned the trace on itself, nothing is known */
	call_format(text, sizeof(text), call, args + 1, result == CUDA_SUCCESS);
	fw_log_write(FW_LOG_CALLS, "call", "%ld %s = %s %" PRIu64 ".%03" PRIu64 " us", syscall(SYS_gettid), text,
	             name ? name : "?", took / 1000, took % 1000);
}

/* True the first time that it is asked about this call. */
static bool
first_time(enum cuda_call_id call)
{
	static bool said[CALL_COUNT];

	return !__atomic_exchange_n(&said[call], true, __ATOMIC_RELAXED);
}

CUresult
cl_refuse(enum cuda_call_id call, CUresult error)
{
	if (fw_log_on(FW_LOG_WARN) && first_time(call))
		fw_warn("client", "%s is not served, answered %s", call_descs[call].name, call_error_name((int)error));
	return error;
}

CUresult
cl_unserved(enum cuda_call_id call)
{
	if (fw_log_on(FW_LOG_WARN) && first_time(call))
		fw_warn("client", "%s is not served by the device \"%s\", answered CUDA_ERROR_NOT_SUPPORTED",
		        call_descs[call].name, cl_ops->name);
	return CUDA_ERROR_NOT_SUPPORTED;
}
