/*
 * Log: one line an event on stderr, or in the file that FARWARP_LOG names.
 *
 * FARWARP_LOG=LEVEL[:FILE] with LEVEL error, warn (the default), info, debug or calls. A line is
 * "farwarp: COMPONENT: text". Who decides that something is an error logs it, once; callers pass it on in silence.
 * Off costs one load and one branch. Not for what a command prints to its user.
 */
#ifndef FW_BASE_LOG_H
#define FW_BASE_LOG_H

#include <stdbool.h>

enum fw_log_level { FW_LOG_ERROR, FW_LOG_WARN, FW_LOG_INFO, FW_LOG_DEBUG, FW_LOG_CALLS };

extern int fw_log_threshold; /* -1 until the environment has been read */

/* If set, sees each line that is written, without "farwarp: " and line end, on the thread that logs. */
extern void (*fw_log_observer)(enum fw_log_level level, const char *text);

/* If set, writes the lines in place of this. Set before threads begin. */
extern void (*fw_log_writer)(enum fw_log_level level, const char *component, const char *text);

int fw_log_init(void); /* reads FARWARP_LOG once; returns the threshold */

/* Lines up to `level` reach the observer, also those that FARWARP_LOG hides: they are not written. */
void fw_log_observe(enum fw_log_level level);

static inline bool
fw_log_on(enum fw_log_level level)
{
	int threshold = fw_log_threshold;
	return (int)level <= (threshold >= 0 ? threshold : fw_log_init());
}

void fw_log_write(enum fw_log_level level, const char *component, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define fw_log(level, component, ...) \
	do { \
		if (fw_log_on(level)) \
			fw_log_write(level, component, __VA_ARGS__); \
	} while (0)
#define fw_error(component, ...) fw_log(FW_LOG_ERROR, component, __VA_ARGS__)
#define fw_warn(component, ...) fw_log(FW_LOG_WARN, component, __VA_ARGS__)
#define fw_info(component, ...) fw_log(FW_LOG_INFO, component, __VA_ARGS__)
#define fw_debug(component, ...) fw_log(FW_LOG_DEBUG, component, __VA_ARGS__)

/* The same, but the first time only that this line of the source is reached. */
#define fw_warn_once(component, ...) \
	do { \
		static bool said_; \
		if (!__atomic_exchange_n(&said_, true, __ATOMIC_RELAXED)) \
			fw_warn(component, __VA_ARGS__); \
	} while (0)

#endif
