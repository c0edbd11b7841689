/* c[i] = a[i] + b[i] for a million elements. */
#include "driver.h"

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry vector_add(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u32 pn)\n{\n"
	"	.reg .pred %p; .reg .b32 %r<5>; .reg .b64 %d<5>; .reg .f32 %f<4>;\n"
	"	ld.param.u64 %d1, [pa]; ld.param.u64 %d2, [pb]; ld.param.u64 %d3, [pc]; ld.param.u32 %r1, [pn];\n"
	"	mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;\n"
	"	mad.lo.s32 %r2, %r2, %r3, %r4;\n"
	"	setp.ge.u32 %p, %r2, %r1; @%p bra END;\n"
	"	mul.wide.u32 %d4, %r2, 4;\n"
	"	add.s64 %d1, %d1, %d4; add.s64 %d2, %d2, %d4; add.s64 %d3, %d3, %d4;\n"
	"	ld.global.f32 %f1, [%d1]; ld.global.f32 %f2, [%d2];\n"
	"	add.rn.f32 %f3, %f1, %f2;\n"
	"	st.global.f32 [%d3], %f3;\n"
	"END:	ret;\n}\n";

enum { N = 1 << 20 };
static float a[N], b[N], c[N];

int
main(void)
{
	CUmodule module = driver_start(ptx);
	CUfunction kernel = driver_function(module, "vector_add");
	CUdeviceptr da = driver_alloc(sizeof(a)), db = driver_alloc(sizeof(b)), dc = driver_alloc(sizeof(c));
	unsigned n = N;
	long wrong = 0;

	for (int i = 0; i < N; i++) {
		a[i] = (float)i;
		b[i] = 0.5f * (float)i;
	}
	double begin = seconds();
	CU(cuMemcpyHtoD_v2(da, a, sizeof(a)));
	CU(cuMemcpyHtoD_v2(db, b, sizeof(b)));
	CU(cuLaunchKernel(kernel, (N + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, (void *[]){ &da, &db, &dc, &n }, NULL));
	CU(cuMemcpyDtoH_v2(c, dc, sizeof(c)));
	double took = seconds() - begin;
	for (int i = 0; i < N; i++)
		wrong += c[i] != a[i] + b[i];
	CU(cuMemFree_v2(da));
	CU(cuMemFree_v2(db));
	CU(cuMemFree_v2(dc));
	CU(cuModuleUnload(module));
	return driver_verdict("vector_add", wrong, took);
}
