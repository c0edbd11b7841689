/* What the trace tells the recorder. See record.c. */
#ifndef CL_RECORD_H
#define CL_RECORD_H

#include "client/client.h"
#include "layers/trace.h"

/* Begins to write to `fd`. */
void cl_record_open(int fd, struct trace_page *page);
bool cl_record_on(void);
/* Before a call is made, and after it has returned; NULL: it is not recorded. */
struct recording *cl_record_begin(const struct cl_slow *slow);
void cl_record_end(struct recording *recording, const struct cl_slow *slow, CUresult result);

#endif
