/* C = A x B with 16 x 16 tiles in shared memory. */
#include <math.h>

#include "driver.h"

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry matmul(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u32 pn)\n{\n"
	"	.shared .align 4 .f32 sa[256]; .shared .align 4 .f32 sb[256];\n"
	"	.reg .pred %p<3>; .reg .b32 %r<24>; .reg .b64 %d<12>; .reg .f32 %f<6>;\n"
	"	ld.param.u64 %d1, [pa]; ld.param.u64 %d2, [pb]; ld.param.u64 %d3, [pc]; ld.param.u32 %r1, [pn];\n"
	"	mov.u32 %r2, %tid.x; mov.u32 %r3, %tid.y; mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y;\n"
	"	shl.b32 %r6, %r4, 4; add.s32 %r6, %r6, %r2;\n"            /* column */
	"	shl.b32 %r7, %r5, 4; add.s32 %r7, %r7, %r3;\n"            /* row */
	"	mad.lo.s32 %r8, %r7, %r1, %r2; mul.wide.s32 %d4, %r8, 4; add.s64 %d4, %d1, %d4;\n" /* &A[row][tx] */
	"	mad.lo.s32 %r9, %r3, %r1, %r6; mul.wide.s32 %d5, %r9, 4; add.s64 %d5, %d2, %d5;\n" /* &B[ty][column] */
	"	shl.b32 %r10, %r1, 6; cvt.s64.s32 %d6, %r10;\n"           /* 16 rows of B */
	"	shl.b32 %r11, %r3, 6; shl.b32 %r12, %r2, 2;\n"
	"	mov.u32 %r13, sa; mov.u32 %r14, sb;\n"
	"	add.s32 %r15, %r13, %r11; add.s32 %r16, %r15, %r12;\n"    /* sa[ty], sa[ty][tx] */
	"	add.s32 %r17, %r14, %r12; add.s32 %r18, %r17, %r11;\n"    /* sb[0][tx], sb[ty][tx] */
	"	mov.f32 %f1, 0f00000000; shr.u32 %r19, %r1, 4;\n"
	"TILE:\n"
	"	ld.global.f32 %f2, [%d4]; st.shared.f32 [%r16], %f2;\n"
	"	ld.global.f32 %f3, [%d5]; st.shared.f32 [%r18], %f3;\n"
	"	bar.sync 0;\n"
	"	mov.u32 %r20, %r15; mov.u32 %r21, %r17; mov.u32 %r22, 16;\n"
	"INNER:\n"
	"	ld.shared.f32 %f4, [%r20]; ld.shared.f32 %f5, [%r21]; fma.rn.f32 %f1, %f4, %f5, %f1;\n"
	"	ld.shared.f32 %f4, [%r20+4]; ld.shared.f32 %f5, [%r21+64]; fma.rn.f32 %f1, %f4, %f5, %f1;\n"
	"	ld.shared.f32 %f4, [%r20+8]; ld.shared.f32 %f5, [%r21+128]; fma.rn.f32 %f1, %f4, %f5, %f1;\n"
	"	ld.shared.f32 %f4, [%r20+12]; ld.shared.f32 %f5, [%r21+192]; fma.rn.f32 %f1, %f4, %f5, %f1;\n"
	"	add.s32 %r20, %r20, 16; add.s32 %r21, %r21, 256; sub.s32 %r22, %r22, 4;\n"
	"	setp.ne.s32 %p1, %r22, 0; @%p1 bra INNER;\n"
	"	bar.sync 0;\n"
	"	add.s64 %d4, %d4, 64; add.s64 %d5, %d5, %d6; sub.s32 %r19, %r19, 1;\n"
	"	setp.ne.s32 %p2, %r19, 0; @%p2 bra TILE;\n"
	"	mad.lo.s32 %r23, %r7, %r1, %r6; mul.wide.s32 %d7, %r23, 4; add.s64 %d7, %d3, %d7;\n"
	"	st.global.f32 [%d7], %f1;\n"
	"	ret;\n}\n";

enum { N = 256 };
static float a[N][N], b[N][N], c[N][N];

int
main(void)
{
	CUmodule module = driver_start(ptx);
	CUfunction kernel = driver_function(module, "matmul");
	CUdeviceptr da = driver_alloc(sizeof(a)), db = driver_alloc(sizeof(b)), dc = driver_alloc(sizeof(c));
	unsigned n = N;
	long wrong = 0;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			a[i][j] = (float)((i * 7 + j * 3) % 11) - 5;
			b[i][j] = (float)((i * 5 + j) % 13) * 0.25f;
		}
	CU(cuMemcpyHtoD_v2(da, a, sizeof(a)));
	CU(cuMemcpyHtoD_v2(db, b, sizeof(b)));
	double begin = seconds();
	CU(cuLaunchKernel(kernel, N / 16, N / 16, 1, 16, 16, 1, 0, NULL, (void *[]){ &da, &db, &dc, &n }, NULL));
	CU(cuCtxSynchronize());
	double took = seconds() - begin;
	CU(cuMemcpyDtoH_v2(c, dc, sizeof(c)));
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			double sum = 0;
			for (int k = 0; k < N; k++)
				sum += (double)a[i][k] * (double)b[k][j];
			wrong += fabs(sum - (double)c[i][j]) > 1e-3;
		}
	CU(cuModuleUnload(module));
	return driver_verdict("matmul", wrong, took);
}
