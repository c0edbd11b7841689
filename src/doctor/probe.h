/*
 * Probes gather facts and never judge. Each is one function in a file of its own, registered in probe.c's table; it reads, writes what it
 * saw into the fact document, and says of what it could not see why (dr_unseen). A probe opens nothing for writing but device nodes, and
 * does in a child with a deadline (child.c) whatever may block.
 */
#ifndef DR_PROBE_H
#define DR_PROBE_H

#include <limits.h>

#include "doctor/doctor.h"
#include "doctor/facts.h"

typedef void dr_probe_function(const struct dr_options *options, struct fw_json *facts);

dr_probe_function dr_probe_pci, dr_probe_platform, dr_probe_kernel, dr_probe_module, dr_probe_nodes, dr_probe_container, dr_probe_runtime,
	dr_probe_environment, dr_probe_log, dr_probe_services, dr_probe_disk, dr_probe_python, dr_probe_nvml, dr_probe_driver, dr_probe_libraries;

/* Every path that a probe opens is below options->root: "" or a folder that stands for / in tests. */

/* Reads a small file into buffer, without the white space at its end. 0 or errno; buffer is then "". */
int dr_read_small(const struct dr_options *options, const char *path, char *buffer, size_t size);
/* Reads a file of up to `limit` bytes; the caller frees. NULL and errno. What the file does not fill is zero, and a byte more. */
char *dr_read_file(const struct dr_options *options, const char *path, size_t limit);
bool dr_exists(const struct dr_options *options, const char *path);
/* The last part of a link's target. 0 or errno. */
int dr_read_link_name(const struct dr_options *options, const char *path, char *buffer, size_t size);
/*
 * Calls `each` with every name in a folder but "." and "..", sorted, at most `limit` of them. 0 or errno. What is below a folder that
 * cannot be listed is unseen, not absent.
 */
int dr_each_name(const struct dr_options *options, const char *path, size_t limit, void (*each)(const char *name, void *user), void *user);
/* Reads a small file into a text fact: null if there is no such file, unseen with errno if it cannot be read. */
void dr_text_fact(const struct dr_options *options, struct fw_json *at, const char *fact, const char *file);
/* The same for a number in base 0 (0x.. is hexadecimal). */
void dr_int_fact(const struct dr_options *options, struct fw_json *at, const char *fact, const char *file);

/* What a file that is loaded as libcuda.so.1 is, by its content: driver, compat, stub, farwarp, shim; NULL: it cannot be told. */
const char *dr_kind_of_libcuda(const char *real);
/* What the file of a kernel module says of itself: version, license, signed. */
void dr_probe_module_file(const struct dr_options *options, const char *path, struct fw_json *fact);

/* Whether a library of the driver may load modules and make nodes now: asked for, and a GPU is not known to be missing. */
bool dr_may_load(const struct dr_options *options, const struct fw_json *facts);

double dr_now(void); /* seconds, monotonic */

/* ---- child.c: work that may hang, crash or print ---- */

struct dr_child_end {
	bool ran, hung;
	int signal;           /* that ended it, 0 none */
	char state;           /* of a hung one: D, S, R */
	char wchan[64];       /* its kernel function */
	char file[160];       /* the NVIDIA node, pipe or socket that it opened last */
	double seconds;
};

/*
 * From now on this process, a child, can load no module, make no device node and, where the kernel lets it, change nothing in /dev;
 * neither can what it starts. The driver's library does all of that when root asks it, and by its set-user-id helper for others.
 */
void dr_child_touch_nothing(void);
/* Memory that a child shares with its parent; zeroed. NULL: out of memory. */
void *dr_shared(size_t size);
void dr_unshare(void *memory, size_t size);
/*
 * Runs work(shared) in a child, whose output goes to /dev/null, until it ends or *beat (in the shared memory; NULL: it never does) has not
 * changed for `deadline` seconds. A child that does not die when killed is left to the kernel.
 */
void dr_child_run(void (*work)(void *shared), void *shared, const volatile unsigned *beat, double deadline, struct dr_child_end *end);

#endif
