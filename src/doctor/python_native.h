/* What the libraries of an installed Python package hold: kernels for the GPU at hand, and symbols that they want of the torch beside them. */
#ifndef DR_PYTHON_NATIVE_H
#define DR_PYTHON_NATIVE_H

#include "doctor/probe.h"
#include "elf/kernels.h"

#define DR_MAX_TORCH 16 /* libraries of torch whose symbols are known */

/* An environment whose packages are read; the caller sets the first four. */
struct dr_native {
	const struct dr_options *options;
	const char *folder;               /* that holds the packages, below the root */
	const struct in_device *device;   /* the first GPU; zeros: none is known */
	volatile unsigned *beat;          /* a sign of life for who waits */
	struct in_elf torch[DR_MAX_TORCH];
	size_t torch_count;
	bool torch_read;
};

/* Writes archs, kernels and torch_lacks of a package whose folder of metadata is `info`. */
void dr_native_package(struct dr_native *native, const char *name, const char *info, struct fw_json *package);
void dr_native_end(struct dr_native *native);

#endif
