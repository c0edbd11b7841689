/*
 * What calls cost the thread that makes them, in process and through a server: bench_bridge prints one "NAME VALUE UNIT" a line. The library
 * is the libcuda.so.1 that the loader finds; FARWARP_SERVER decides where the device is. Run by bench/bridge.py.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint64_t dptr;

static const char ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry empty(.param .u64 a, .param .u32 b)\n{\n	ret;\n}\n"
	/* work(out, n): n multiply-adds in each thread, the result added to what is there. */
	".visible .entry work(.param .u64 a, .param .u32 b)\n{\n"
	"	.reg .u64 %rd<4>;\n	.reg .u32 %r<6>;\n	.reg .f32 %f<4>;\n	.reg .pred %p;\n"
	"	ld.param.u64 %rd0, [a];\n	ld.param.u32 %r0, [b];\n"
	"	mov.u32 %r1, %tid.x;\n	mov.u32 %r2, %ctaid.x;\n	mov.u32 %r3, %ntid.x;\n	mad.lo.u32 %r4, %r2, %r3, %r1;\n"
	"	mul.wide.u32 %rd1, %r4, 4;\n	add.u64 %rd2, %rd0, %rd1;\n	ld.global.f32 %f0, [%rd2];\n"
	"loop:\n	fma.rn.f32 %f0, %f0, 0f3F7FF972, 0f3A83126F;\n	sub.u32 %r0, %r0, 1;\n	setp.ne.u32 %p, %r0, 0;\n	@%p bra loop;\n"
	"	st.global.f32 [%rd2], %f0;\n	ret;\n}\n";

#define CALLS(X) \
	X(cuInit, (unsigned)) X(cuDevicePrimaryCtxRetain, (void **, int)) X(cuCtxSetCurrent, (void *)) X(cuCtxSynchronize, (void)) \
	X(cuModuleLoadData, (void **, const void *)) X(cuModuleGetFunction, (void **, void *, const char *)) \
	X(cuLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **)) \
	X(cuMemAlloc_v2, (dptr *, size_t)) X(cuMemHostAlloc, (void **, size_t, unsigned)) X(cuMemcpyHtoD_v2, (dptr, const void *, size_t)) \
	X(cuMemcpyDtoH_v2, (void *, dptr, size_t)) X(cuMemGetInfo_v2, (size_t *, size_t *)) X(cuEventCreate, (void **, unsigned)) \
	X(cuEventRecord, (void *, void *))
#define X(name, args) static int (*name) args;
CALLS(X)
#undef X

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void
must(int result, const char *what)
{
	if (result) {
		fprintf(stderr, "%s: error %d\n", what, result);
		exit(1);
	}
}
#define OK(call) must(call, #call)

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double
middle(double *v, size_t count)
{
	qsort(v, count, sizeof(*v), compare);
	return v[count / 2];
}

#define MANY 2000
static double times[MANY];

static void
bandwidth(const char *name, int out, dptr device, void *host, size_t size)
{
	double v[25];

	for (unsigned n = 0; n < 25; n++) {
		double begin = now();
		if (out)
			OK(cuMemcpyDtoH_v2(host, device, size));
		else
			OK(cuMemcpyHtoD_v2(device, host, size));
		v[n] = (double)size / (now() - begin) / 1e9;
	}
	printf("%s %.2f GB/s\n", name, middle(v, 25));
}

/* On the thread that launches, no faster than a program computes what to launch. */
static void
launches(void *function, void **params)
{
	for (unsigned round = 0; round < 3; round++)
		for (unsigned n = 0; n < MANY; n++) {
			double begin = now();
			OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
			times[n] = now() - begin;
			while (now() - begin < 5e-6) /* no faster than a program computes what to launch */
				;
		}
	OK(cuCtxSynchronize());
	printf("launch_issue_p50 %.0f ns\n", middle(times, MANY) * 1e9);
	printf("launch_issue_p99 %.0f ns\n", times[MANY * 99 / 100] * 1e9);
}

static void
round_trips(void)
{
	size_t free, total;

	for (unsigned n = 0; n < MANY; n++) {
		double begin = now();
		OK(cuMemGetInfo_v2(&free, &total)); /* an answer that nobody else can give */
		times[n] = now() - begin;
	}
	printf("round_trip_p50 %.2f us\n", middle(times, MANY) * 1e6);
}

/* As a training step does: a batch in, a thousand launches that compute, the loss out, a synchronisation. Milliseconds. */
static double
training_step(void *module, unsigned steps)
{
	float batch[4096] = { 1 }, loss[32];
	uint64_t a = 0;
	uint32_t b = 100;
	void *params[] = { &a, &b }, *work;
	double v[64];

	OK(cuModuleGetFunction(&work, module, "work"));
	OK(cuMemAlloc_v2(&a, sizeof(batch)));
	for (unsigned n = 0; n < steps; n++) {
		double begin = now();
		OK(cuMemcpyHtoD_v2(a, batch, sizeof(batch)));
		for (unsigned k = 0; k < 1000; k++)
			OK(cuLaunchKernel(work, 16, 1, 1, 128, 1, 1, 0, NULL, params, NULL));
		OK(cuMemcpyDtoH_v2(loss, a, sizeof(loss)));
		OK(cuCtxSynchronize());
		v[n] = (now() - begin) * 1e3;
	}
	return middle(v, (int)steps);
}

/* Without an argument all; "steps": the training step alone; "copies": large copies of pageable memory alone;
 * "trips": launches and round trips, twice. */
int
main(int argc, char **argv)
{
	const size_t size = (size_t)64 << 20;
	void *library = dlopen("libcuda.so.1", RTLD_NOW), *context, *module, *function, *event, *pinned;
	dptr device;
	uint64_t a = 0;
	uint32_t b = 0;
	void *params[] = { &a, &b };
	double v[9];

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
#define X(name, args) *(void **)&name = dlsym(library, #name);
	CALLS(X)
#undef X
	double begin = now();
	OK(cuInit(0));
	OK(cuDevicePrimaryCtxRetain(&context, 0));
	OK(cuCtxSetCurrent(context));
	OK(cuModuleLoadData(&module, ptx));
	OK(cuModuleGetFunction(&function, module, "empty"));
	OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
	OK(cuCtxSynchronize());
	printf("cuInit_to_first_kernel %.2f ms\n", (now() - begin) * 1e3);
	if (argc > 1 && strcmp(argv[1], "steps") == 0) {
		printf("training_step_of_1000_launches %.3f ms\n", training_step(module, 9));
		return 0;
	}

	if (argc > 1 && strcmp(argv[1], "trips") == 0) {
		for (unsigned n = 0; n < 2; n++) {
			launches(function, params);
			round_trips();
		}
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "copies") == 0) {
		char *bytes = malloc(size);
		memset(bytes, 1, size);
		OK(cuMemAlloc_v2(&device, size));
		for (unsigned out = 0; out < 2; out++)
			bandwidth(out ? "device_to_pageable" : "pageable_to_device", (int)out, device, bytes, size);
		return 0;
	}

	launches(function, params);

	round_trips();

	OK(cuEventCreate(&event, 0));
	for (unsigned n = 0; n < MANY; n++) {
		begin = now();
		OK(cuEventRecord(event, NULL));
		times[n] = now() - begin;
	}
	OK(cuCtxSynchronize());
	printf("event_record_p50 %.0f ns\n", middle(times, MANY) * 1e9);

	for (unsigned n = 0; n < 9; n++) { /* a training-like step: a thousand launches and one synchronisation */
		begin = now();
		for (unsigned k = 0; k < 1000; k++)
			OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
		OK(cuCtxSynchronize());
		v[n] = (now() - begin) * 1e3;
	}
	printf("step_of_1000_empty_launches %.3f ms\n", middle(v, 9));

	printf("training_step_of_1000_launches %.3f ms\n", training_step(module, 9));

	char *host = malloc(size), *other = malloc(size);
	OK(cuMemAlloc_v2(&device, size));
	OK(cuMemHostAlloc(&pinned, size, 0));
	memset(host, 1, size);
	memset(other, 2, size);
	memset(pinned, 3, size);
	for (unsigned n = 0; n < 9; n++) {
		begin = now();
		memcpy(other, host, size);
		v[n] = (double)size / (now() - begin) / 1e9;
	}
	printf("memcpy %.2f GB/s\n", middle(v, 9));
	bandwidth("pageable_to_device", 0, device, host, size);
	bandwidth("device_to_pageable", 1, device, host, size);
	bandwidth("pinned_to_device", 0, device, pinned, size);
	bandwidth("device_to_pinned", 1, device, pinned, size);
	return 0;
}
