/* Sum of a million integers: shuffles inside a warp, one atomic a warp. */
#include "driver.h"

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry reduce(.param .u64 pin, .param .u64 pout, .param .u32 pn)\n{\n"
	"	.reg .pred %p<4>; .reg .b32 %r<16>; .reg .b64 %d<5>;\n"
	"	ld.param.u64 %d1, [pin]; ld.param.u64 %d2, [pout]; ld.param.u32 %r1, [pn];\n"
	"	mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mov.u32 %r5, %nctaid.x;\n"
	"	mad.lo.s32 %r6, %r2, %r3, %r4; mul.lo.s32 %r7, %r3, %r5;\n" /* first index, stride of the grid */
	"	mov.u32 %r8, 0;\n"
	"LOOP:	setp.ge.u32 %p1, %r6, %r1; @%p1 bra DONE;\n"
	"	mul.wide.u32 %d3, %r6, 4; add.s64 %d3, %d1, %d3; ld.global.u32 %r9, [%d3];\n"
	"	add.s32 %r8, %r8, %r9; add.s32 %r6, %r6, %r7; bra LOOP;\n"
	"DONE:\n"
	"	shfl.sync.bfly.b32 %r10, %r8, 16, 31, -1; add.s32 %r8, %r8, %r10;\n"
	"	shfl.sync.bfly.b32 %r10, %r8, 8, 31, -1; add.s32 %r8, %r8, %r10;\n"
	"	shfl.sync.bfly.b32 %r10, %r8, 4, 31, -1; add.s32 %r8, %r8, %r10;\n"
	"	shfl.sync.bfly.b32 %r10, %r8, 2, 31, -1; add.s32 %r8, %r8, %r10;\n"
	"	shfl.sync.bfly.b32 %r10, %r8, 1, 31, -1; add.s32 %r8, %r8, %r10;\n"
	"	mov.u32 %r11, %laneid; setp.eq.s32 %p2, %r11, 0;\n"
	"	@%p2 red.global.add.u32 [%d2], %r8;\n"
	"	ret;\n}\n";

enum { N = 1000003 };
static unsigned in[N];

int
main(void)
{
	CUmodule module = driver_start(ptx);
	CUfunction kernel = driver_function(module, "reduce");
	CUdeviceptr din = driver_alloc(sizeof(in)), dout = driver_alloc(4);
	unsigned n = N, expected = 0, got = 0;

	for (int i = 0; i < N; i++)
		expected += in[i] = (unsigned)i * 2654435761u;
	CU(cuMemcpyHtoD_v2(din, in, sizeof(in)));
	CU(cuMemsetD32_v2(dout, 0, 1));
	double begin = seconds();
	CU(cuLaunchKernel(kernel, 64, 1, 1, 256, 1, 1, 0, NULL, (void *[]){ &din, &dout, &n }, NULL));
	CU(cuCtxSynchronize());
	double took = seconds() - begin;
	CU(cuMemcpyDtoH_v2(&got, dout, 4));
	CU(cuModuleUnload(module));
	return driver_verdict("reduction", got != expected, took);
}
