/* The Mandelbrot set, a pixel a thread: a loop whose lanes leave at different times. Writes mandelbrot.pgm if given a path. */
#include "driver.h"

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry mandelbrot(.param .u64 pout, .param .u32 pwidth, .param .u32 pheight, .param .u32 plimit)\n{\n"
	"	.reg .pred %p<4>; .reg .b32 %r<14>; .reg .b64 %d<3>; .reg .f32 %f<14>;\n"
	"	ld.param.u64 %d1, [pout]; ld.param.u32 %r1, [pwidth]; ld.param.u32 %r2, [pheight]; ld.param.u32 %r3, [plimit];\n"
	"	mov.u32 %r4, %ctaid.x; mov.u32 %r5, %tid.x; shl.b32 %r4, %r4, 4; add.s32 %r6, %r4, %r5;\n"
	"	mov.u32 %r4, %ctaid.y; mov.u32 %r5, %tid.y; shl.b32 %r4, %r4, 4; add.s32 %r7, %r4, %r5;\n"
	"	setp.ge.u32 %p1, %r6, %r1; @%p1 bra END; setp.ge.u32 %p1, %r7, %r2; @%p1 bra END;\n"
	"	cvt.rn.f32.u32 %f1, %r6; cvt.rn.f32.u32 %f2, %r1; div.rn.f32 %f1, %f1, %f2;\n"
	"	mul.rn.f32 %f3, %f1, 0f40400000; add.rn.f32 %f3, %f3, 0fc0000000;\n" /* -2 .. 1 */
	"	cvt.rn.f32.u32 %f1, %r7; cvt.rn.f32.u32 %f2, %r2; div.rn.f32 %f1, %f1, %f2;\n"
	"	mul.rn.f32 %f4, %f1, 0f40000000; add.rn.f32 %f4, %f4, 0fbf800000;\n" /* -1 .. 1 */
	"	mov.f32 %f5, 0f00000000; mov.f32 %f6, 0f00000000; mov.u32 %r8, 0;\n"
	"LOOP:	mul.rn.f32 %f7, %f5, %f5; mul.rn.f32 %f8, %f6, %f6; add.rn.f32 %f9, %f7, %f8;\n"
	"	setp.gt.f32 %p2, %f9, 0f40800000; @%p2 bra OUT;\n"
	"	mul.rn.f32 %f10, %f5, %f6; sub.rn.f32 %f5, %f7, %f8; add.rn.f32 %f5, %f5, %f3;\n"
	"	add.rn.f32 %f6, %f10, %f10; add.rn.f32 %f6, %f6, %f4;\n"
	"	add.s32 %r8, %r8, 1; setp.lt.u32 %p3, %r8, %r3; @%p3 bra LOOP;\n"
	"OUT:	mad.lo.s32 %r9, %r7, %r1, %r6; mul.wide.u32 %d2, %r9, 4; add.s64 %d2, %d1, %d2;\n"
	"	st.global.u32 [%d2], %r8;\n"
	"END:	ret;\n}\n";

enum { WIDTH = 480, HEIGHT = 320, LIMIT = 256 };
static unsigned got[HEIGHT][WIDTH];

static unsigned
reference(int px, int py)
{
	/* volatile keeps the compiler from contracting products and sums, which the kernel does not */
	volatile float cx = (float)px / WIDTH * 3.0f, cy = (float)py / HEIGHT * 2.0f, x = 0, y = 0;
	unsigned i = 0;

	cx += -2.0f;
	cy += -1.0f;
	while (i < LIMIT) {
		volatile float xx = x * x, yy = y * y, sum = xx + yy, xy = x * y;
		if (sum > 4.0f)
			break;
		x = xx - yy;
		x += cx;
		y = xy + xy;
		y += cy;
		i++;
	}
	return i;
}

int
main(int argc, char **argv)
{
	CUmodule module = driver_start(ptx);
	CUfunction kernel = driver_function(module, "mandelbrot");
	CUdeviceptr dout = driver_alloc(sizeof(got));
	unsigned width = WIDTH, height = HEIGHT, limit = LIMIT;
	long wrong = 0;
	double begin = seconds();

	CU(cuLaunchKernel(kernel, WIDTH / 16, HEIGHT / 16, 1, 16, 16, 1, 0, NULL, (void *[]){ &dout, &width, &height, &limit }, NULL));
	CU(cuCtxSynchronize());
	double took = seconds() - begin;
	CU(cuMemcpyDtoH_v2(got, dout, sizeof(got)));
	for (int y = 0; y < HEIGHT; y++)
		for (int x = 0; x < WIDTH; x++)
			wrong += got[y][x] != reference(x, y);
	if (argc > 1) {
		FILE *file = fopen(argv[1], "wb");
		if (!file) {
			perror(argv[1]);
			return 1;
		}
		fprintf(file, "P5 %d %d 255\n", WIDTH, HEIGHT);
		for (int y = 0; y < HEIGHT; y++)
			for (int x = 0; x < WIDTH; x++)
				fputc(got[y][x] == LIMIT ? 0 : (int)(got[y][x] * 7 % 256), file);
		fclose(file);
	} else {
		for (int y = HEIGHT / 40; y < HEIGHT; y += HEIGHT / 20) {
			for (int x = WIDTH / 120; x < WIDTH; x += WIDTH / 60)
				putchar(got[y][x] == LIMIT ? '#' : got[y][x] > 12 ? '+' : got[y][x] > 5 ? '.' : ' ');
			putchar('\n');
		}
	}
	CU(cuModuleUnload(module));
	return driver_verdict("mandelbrot", wrong, took);
}
