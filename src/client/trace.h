/* What the gate and the private tables tell the trace. See trace.c. */
#ifndef CL_TRACE_H
#define CL_TRACE_H

#include "client/client.h"

/* Whether calls are to be traced: decided at the first call, by FARWARP_TRACE and FARWARP_LOG. */
bool cl_trace_wanted(void);
void cl_trace_begin(struct cl_slow *slow);
void cl_trace_end(struct cl_slow *slow, CUresult result);

/* Calls through a private table: `number` of the slot among all that are served, its name, up to 4 arguments. */
void cl_trace_private_begin(struct cl_slow *slow, unsigned number, const char *name, void *caller, unsigned arguments,
                            const uint64_t *values);
void cl_trace_private_end(struct cl_slow *slow, uint64_t result);
/* A private table was asked for; its name, or its UUID as text if it is not served. */
void cl_trace_table(const char *name);

#endif
