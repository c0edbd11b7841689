/*
 * What lies behind the gate when it is not simply open: the answers of calls that come too early, too late or in a forked
 * child; calls that are not served. What is traced is in trace.c.
 */
#include "client.h"

#include "call/format.h"
#include "client/trace.h"

unsigned cl_gate = CL_GATE_CLOSED | CL_GATE_FIRST;
enum cl_state cl_state = CL_STATE_NEW;
const struct cuda_ops *cl_ops;

/* Whether the gate lets a call with these needs through. Reads what decides on traces when it is passed for the first time. */
static CUresult
pass(enum cl_needs needs)
{
	unsigned gate = __atomic_load_n(&cl_gate, __ATOMIC_ACQUIRE);

	if (gate & CL_GATE_FIRST) {
		if (cl_trace_wanted())
			__atomic_or_fetch(&cl_gate, CL_GATE_TRACE, __ATOMIC_RELAXED);
		gate = __atomic_and_fetch(&cl_gate, ~(unsigned)CL_GATE_FIRST, __ATOMIC_ACQUIRE);
	}
	if (!(gate & CL_GATE_CLOSED) || needs == CL_NEEDS_NONE)
		return CUDA_SUCCESS;
	if (__atomic_load_n(&cl_state, __ATOMIC_ACQUIRE) == CL_STATE_CLOSED)
		return CUDA_ERROR_DEINITIALIZED;
	return CUDA_ERROR_NOT_INITIALIZED;
}

CUresult
cl_enter_slow(enum cl_needs needs)
{
	return pass(needs);
}

CUresult
cl_slow_begin(struct cl_slow *slow, enum cuda_call_id call, enum cl_needs needs, const char *symbol, void *caller, const void *const *args)
{
	CUresult result = pass(needs);

	slow->traced = __atomic_load_n(&cl_gate, __ATOMIC_RELAXED) & CL_GATE_TRACE;
	if (slow->traced) {
		slow->call = call;
		slow->symbol = symbol;
		slow->caller = caller;
		slow->args = args;
		cl_trace_begin(slow);
	}
	return result;
}

CUresult
cl_slow_end(struct cl_slow *slow, CUresult result)
{
	if (slow->traced)
		cl_trace_end(slow, result);
	return result;
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
