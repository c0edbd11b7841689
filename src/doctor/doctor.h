/*
 * The doctor: why does CUDA not work here, who can fix it, how.
 *
 * Probes gather facts and never judge (probe.h); the facts are one document (facts.h) that can be recorded and replayed; rules judge and
 * never touch the machine (rules.h); reports print (report.h). This is what other parts of farwarp use of it.
 */
#ifndef DR_DOCTOR_H
#define DR_DOCTOR_H

#include <stdbool.h>

#include "base/json.h"

struct dr_options {
	const char *root;           /* "" or a folder that stands for / */
	double deadline;            /* seconds that a step of the driver, or a node's open(), may take */
	bool load;                  /* the driver may load its modules and make its nodes, as a program's start would */
	int error;                  /* the driver's code that the user's program got; 0: it is not told */
	bool quick;                 /* only what a prolog needs: no context is made */
	bool deep;                  /* write and read back more memory; not with quick */
	const char *driver;         /* folder whose libcuda.so.1 is asked; NULL: the one that a program would get, if root is "" */
	const char *const *python;  /* folders of Python environments to look at, up to a NULL; or NULL */
};

/* Looks at the machine: a fact document that the caller ends with fw_json_free. Never waits longer than some deadlines. */
struct fw_json *dr_probe(const struct dr_options *options);

struct dr_quick {
	bool works;        /* a hardware GPU answers natively */
	bool fault;        /* the verdict is a fault, not "could not tell" */
	char id[16];       /* of the verdict */
	char title[96];    /* "CAUSE -> FIX" */
	char who[96];      /* can fix it */
	char gpu[128];     /* name of the first one; "" none */
};
/* Whether the local GPU works: the quick probes, judged. Each driver step may take `deadline` seconds. */
void dr_quick_check(struct dr_quick *quick, double deadline);

/* "CUDA_ERROR_NO_DEVICE" of 100. */
const char *dr_cuda_error_name(int result);

#endif
