/*
 * The library under test, opened by the path in the environment variable LIBCUDA, and its calls by name.
 *
 *	CU(cuInit)(0) calls cuInit of that library with the type that the table gives it.
 */
#ifndef TESTS_API_LIB_H
#define TESTS_API_LIB_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <farwarp/cuda.h>

static inline void *
lib_open(void)
{
	static void *opened; /* atomic */
	const char *path = getenv("LIBCUDA");
	void *library = __atomic_load_n(&opened, __ATOMIC_ACQUIRE);

	if (!library)
		library = dlopen(path ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	__atomic_store_n(&opened, library, __ATOMIC_RELEASE);
	if (!library) {
		printf("# cannot open the library: %s\n", dlerror());
		exit(1);
	}
	return library;
}

static inline void *
lib_symbol(const char *name)
{
	void *symbol = dlsym(lib_open(), name);

	if (!symbol) {
		printf("# the library has no %s\n", name);
		exit(1);
	}
	return symbol;
}

#define CU(name) ((__typeof__(&name))lib_symbol(#name))

#endif
