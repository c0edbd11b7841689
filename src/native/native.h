/*
 * The machine's real driver as an implementation of struct cuda_ops.
 *
 * Its libcuda.so.1 is found and loaded at run time (library.c); nothing of NVIDIA's is needed to build. Which functions are wanted of it
 * and how a call is passed on is made from api/cuda.api (native_calls.inc); driver.c writes by hand what is more than that: whose context
 * is current, and contexts' beginning and end. A call that the driver lacks answers CUDA_ERROR_NOT_SUPPORTED and is logged once.
 */
#ifndef NV_NATIVE_H
#define NV_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda_ops.h"

#define NV_WHY 768 /* bytes of a sentence */

/*
 * Finds the driver, loads it and calls cuInit. *ops, valid for the life of the process, is written on success only; `why` says in both
 * cases which library it is and where it was found, or what is wrong with it. Errors: what cuInit answered; CUDA_ERROR_NO_DEVICE if there
 * is no driver library; CUDA_ERROR_NOT_INITIALIZED if it has no cuInit. One thread at a time.
 */
CUresult nv_open(const struct cuda_ops **ops, char why[NV_WHY]);

/* cuDriverGetVersion of the driver, loaded for it if need be but not initialised; 0 if there is none. */
int nv_driver_version(void);

/* ---- library.c ------------------------------------------------------------------------------------------------------- */

struct nv_library {
	void *handle;    /* of dlopen */
	char path[512];  /* as it was loaded */
	const char *how; /* in what way it was found */
};

/*
 * Loads the driver's library: the one that FARWARP_NATIVE_LIBRARY names, else the first libcuda.so.1 of the loader's cache
 * and of the folders where drivers are known to be put, below `root` ("" but in tests). farwarp's own is passed over, as is one that does
 * not load. False with a sentence that names what was tried.
 */
bool nv_library_open(struct nv_library *library, const char *root, char why[NV_WHY]);

#endif
