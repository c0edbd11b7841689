/*
 * The few driver calls that these tests need, from the libcuda.so.1 that FARWARP_TEST_LIBCUDA names (else the system finds it), so that
 * the same tests run on the software GPU and on a real one. No CUDA header is needed.
 */
#ifndef TESTS_PTX_DRIVER_H
#define TESTS_PTX_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t dptr;

struct driver {
	int (*Init)(unsigned);
	int (*DeviceGet)(int *, int);
	int (*DeviceGetAttribute)(int *, int, int);
	int (*CtxCreate)(void **, unsigned, int);
	int (*CtxSynchronize)(void);
	int (*ModuleLoadDataEx)(void **, const void *, unsigned, int *, void **);
	int (*ModuleUnload)(void *);
	int (*ModuleGetFunction)(void **, void *, const char *);
	int (*ModuleGetGlobal)(dptr *, size_t *, void *, const char *);
	int (*MemAlloc)(dptr *, size_t);
	int (*MemFree)(dptr);
	int (*MemcpyHtoD)(dptr, const void *, size_t);
	int (*MemcpyDtoH)(void *, dptr, size_t);
	int (*MemsetD8)(dptr, unsigned char, size_t);
	int (*FuncSetAttribute)(void *, int, int);
	int (*LaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
	int (*LaunchKernelEx)(const void *, void *, void **, void **);
	int (*LaunchCooperativeKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **);
	int (*GetErrorName)(int, const char **);
};
extern struct driver cu;
extern int cu_cc; /* compute capability times ten */

/* For the first line of main(): where FARWARP_ISA asks for a CPU level that this processor has not, says so and skips the test. */
void cu_need_level(void);
/* Loads the library, initialises it, makes a context. NULL, or why not (no GPU is one reason). */
const char *cu_open(void);
const char *cu_name(int error);
/* Loads PTX; on failure returns the error with the JIT log in log. */
int cu_load(void **module, const char *ptx, char *log, size_t log_size);

#endif
