/* Histogram of bytes: shared-memory atomics per block, then global atomics. */
#include "driver.h"

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry histogram(.param .u64 pin, .param .u64 pout, .param .u32 pn)\n{\n"
	"	.shared .align 4 .b8 bins[1024];\n"
	"	.reg .pred %p<3>; .reg .b16 %h; .reg .b32 %r<14>; .reg .b64 %d<6>;\n"
	"	ld.param.u64 %d1, [pin]; ld.param.u64 %d2, [pout]; ld.param.u32 %r1, [pn];\n"
	"	mov.u32 %r2, %tid.x; shl.b32 %r3, %r2, 2; mov.u32 %r4, bins; add.s32 %r5, %r4, %r3;\n"
	"	mov.u32 %r6, 0; st.shared.u32 [%r5], %r6;\n"
	"	bar.sync 0;\n"
	"	mov.u32 %r7, %ctaid.x; mov.u32 %r8, %nctaid.x; mad.lo.s32 %r9, %r7, 256, %r2; shl.b32 %r10, %r8, 8;\n"
	"LOOP:	setp.ge.u32 %p1, %r9, %r1; @%p1 bra DONE;\n"
	"	cvt.u64.u32 %d3, %r9; add.s64 %d3, %d1, %d3; ld.global.u8 %h, [%d3];\n"
	"	cvt.u32.u16 %r11, %h; shl.b32 %r11, %r11, 2; add.s32 %r11, %r4, %r11;\n"
	"	atom.shared.add.u32 %r12, [%r11], 1;\n"
	"	add.s32 %r9, %r9, %r10; bra LOOP;\n"
	"DONE:	bar.sync 0;\n"
	"	ld.shared.u32 %r13, [%r5]; mul.wide.u32 %d4, %r2, 4; add.s64 %d4, %d2, %d4;\n"
	"	red.global.add.u32 [%d4], %r13;\n"
	"	ret;\n}\n";

enum { N = 1 << 20 };
static unsigned char in[N];

int
main(void)
{
	CUmodule module = driver_start(ptx);
	CUfunction kernel = driver_function(module, "histogram");
	CUdeviceptr din = driver_alloc(sizeof(in)), dout = driver_alloc(1024);
	unsigned n = N, expected[256] = { 0 }, got[256], state = 1;
	long wrong = 0;

	for (int i = 0; i < N; i++) {
		state = state * 1664525u + 1013904223u;
		in[i] = (unsigned char)(state >> 24 & state >> 16);
		expected[in[i]]++;
	}
	CU(cuMemcpyHtoD_v2(din, in, sizeof(in)));
	CU(cuMemsetD32_v2(dout, 0, 256));
	double begin = seconds();
	CU(cuLaunchKernel(kernel, 32, 1, 1, 256, 1, 1, 0, NULL, (void *[]){ &din, &dout, &n }, NULL));
	CU(cuCtxSynchronize());
	double took = seconds() - begin;
	CU(cuMemcpyDtoH_v2(got, dout, sizeof(got)));
	for (int i = 0; i < 256; i++)
		wrong += got[i] != expected[i];
	CU(cuModuleUnload(module));
	return driver_verdict("histogram", wrong, took);
}
