/* What farwarp run and farwarp trace share: the options that choose a GPU, and the program's environment. See run.c. */
#ifndef TOOLS_RUN_H
#define TOOLS_RUN_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>

struct run_options {
	enum { DEVICE_BEST, DEVICE_SOFT, DEVICE_LOCAL, DEVICE_NATIVE } device;
	const char *server; /* --server or FARWARP_SERVER */
	bool asked;         /* by --server */
	bool overruled;     /* FARWARP_SERVER is set, and other options name a GPU */
	const char *cc, *mem, *sms, *threads;
	bool quiet;
	bool in_front;      /* a local GPU is used behind farwarp's library, not natively */
	char **program;
	const char *missing; /* what is said if there is no program; NULL: run's own words */
};

/* The options alone; its input is a struct run_options. */
extern const struct argp run_options_argp;

/*
 * Chooses a GPU, says which and why, and sets this process's environment for the program. *local: the machine's own driver is to be used
 * and nothing was set. `who` begins error lines. Returns 0 or an exit status.
 */
int run_prepare(const struct run_options *options, const char *who, bool *local);
/* The same without a look at the program; `folder` gets that of our libcuda.so.1 unless *local. */
int run_environment(const struct run_options *options, const char *who, bool *local, char *folder, size_t size);
/* Becomes the program; returns an exit status if that fails. */
int run_program(const struct run_options *options, const char *who);

#endif
