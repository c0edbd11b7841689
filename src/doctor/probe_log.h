/* Reading of kernel log lines, apart from where they come from; see probe_log.c. */
#ifndef DR_PROBE_LOG_H
#define DR_PROBE_LOG_H

#include "doctor/probe.h"

struct dr_log;
struct dr_log *dr_log_new(void);                           /* NULL: out of memory */
void dr_log_take(struct dr_log *log, char *text);          /* whole lines, of /dev/kmsg or of the console; the text is changed */
void dr_log_end(struct dr_log *log, struct fw_json *facts); /* writes kernel.log and frees the log */

#endif
