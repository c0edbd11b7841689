/*
 * For tests of the software GPU through the driver API: a context, and a few kernels as PTX.
 */
#ifndef TESTS_DEVICE_GPU_H
#define TESTS_DEVICE_GPU_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#include "tests/api/lib.h"
#include "tests/tap.h"

#define OK(call) CHECK_INT(call, CUDA_SUCCESS)

/*
 * add(p, n, v): p[i] += v for i < n        fill(p, v): p[0] = v by one thread
 * wait_for(p, v): spins until p[0] == v    poke(p): stores through any pointer
 * trap_now(): traps                      big(s): stores the last word of a 4000-byte structure through its first
 */
static const char gpu_ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry add(.param .u64 p, .param .u32 n, .param .u32 v)\n{\n"
	"	.reg .pred %q; .reg .u32 %r<8>; .reg .u64 %rd<4>;\n"
	"	ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [v];\n"
	"	mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x; mad.lo.u32 %r6, %r3, %r4, %r5;\n"
	"	setp.ge.u32 %q, %r6, %r1; @%q bra DONE;\n"
	"	mul.wide.u32 %rd2, %r6, 4; add.u64 %rd3, %rd1, %rd2;\n"
	"	ld.global.u32 %r7, [%rd3]; add.u32 %r7, %r7, %r2; st.global.u32 [%rd3], %r7;\n"
	"DONE:\n	ret;\n}\n"
	".visible .entry fill(.param .u64 p, .param .u32 v)\n{\n"
	"	.reg .u32 %r1; .reg .u64 %rd1;\n"
	"	ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [v]; st.global.u32 [%rd1], %r1; ret;\n}\n"
	".visible .entry wait_for(.param .u64 p, .param .u32 v)\n{\n"
	"	.reg .pred %q; .reg .u32 %r<3>; .reg .u64 %rd1;\n"
	"	ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [v];\n"
	"AGAIN:\n	ld.volatile.global.u32 %r2, [%rd1]; setp.ne.u32 %q, %r1, %r2; @%q bra AGAIN;\n	ret;\n}\n"
	".visible .entry poke(.param .u64 p)\n{\n"
	"	.reg .u32 %r1; .reg .u64 %rd1;\n"
	"	ld.param.u64 %rd1, [p]; mov.u32 %r1, 1; st.global.u32 [%rd1], %r1; ret;\n}\n"
	".visible .entry big(.param .align 8 .b8 s[4000])\n{\n"
	"	.reg .u32 %r1; .reg .u64 %rd1;\n"
	"	ld.param.u64 %rd1, [s]; ld.param.u32 %r1, [s+3996]; st.global.u32 [%rd1], %r1; ret;\n}\n"
	".visible .entry trap_now()\n{\n	trap; ret;\n}\n"
	".visible .entry bounded()\n.maxntid 64, 1, 1\n{\n	.shared .align 4 .b8 s[1024];\n	ret;\n}\n";

static CUmodule gpu_module;

static inline void
gpu_start(void)
{
	CUcontext ctx = NULL;

	OK(CU(cuInit)(0));
	OK(CU(cuDevicePrimaryCtxRetain)(&ctx, 0));
	OK(CU(cuCtxSetCurrent)(ctx));
}

static inline CUfunction
gpu_kernel(const char *name)
{
	CUfunction function = NULL;

	if (!gpu_module)
		OK(CU(cuModuleLoadData)(&gpu_module, gpu_ptx));
	OK(CU(cuModuleGetFunction)(&function, gpu_module, name));
	return function;
}

static inline CUresult
gpu_launch(CUfunction function, unsigned blocks, unsigned threads, CUstream stream, void **params)
{
	return CU(cuLaunchKernel)(function, blocks, 1, 1, threads, 1, 1, 0, stream, params, NULL);
}

/*
 * Memory to be registered. Sanitizers have that of malloc at the same addresses in every process, so that a worker built with one never has
 * them free: it is mapped then, below where programs are loaded, as the worker's device may have much of what is above.
 */
static inline void *
gpu_own_alloc(size_t alignment, size_t size)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	static uintptr_t next = 0x550000000000; /* atomic */
	uintptr_t hint = __atomic_fetch_add(&next, (size + 0x3fffff) & ~(uintptr_t)0x1fffff, __ATOMIC_RELAXED);
	(void)alignment;
	void *p = mmap((void *)hint, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
#else
	return aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1));
#endif
}

static inline void
gpu_own_free(void *p, size_t size)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	munmap(p, size);
#else
	(void)size;
	free(p);
#endif
}

static inline size_t
gpu_used(void)
{
	size_t available = 0, total = 0;

	OK(CU(cuMemGetInfo_v2)(&available, &total));
	return total - available;
}

/* xorshift: the same numbers in every run */
static inline uint32_t
gpu_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 16);
}

#endif
