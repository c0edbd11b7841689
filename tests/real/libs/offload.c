/*
 * OpenMP's target regions as GCC compiles them for an NVIDIA GPU: its libgomp drives the device through the driver API and
 * links many PTX modules at run time. Teams, parallel loops, reductions, a device's own memory, calls of libm, printf and
 * malloc on the device. libgomp falls back to the host in silence, so the program asks where it ran.
 */
#include "libs.h"

#include <omp.h>

#define COUNT 3000
#define SIDE 24

#pragma omp declare target
static int
collatz(int n)
{
	int steps = 0;

	while (n != 1) {
		n = n & 1 ? 3 * n + 1 : n / 2;
		steps++;
	}
	return steps;
}
#pragma omp end declare target

static double x[COUNT], y[COUNT];
static float a[SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE];

static int
where(void)
{
	int host = 1;

#pragma omp target map(from : host)
	host = omp_is_initial_device();
	return host;
}

static void
sums(void)
{
	double sum = 0, wanted = 0;
	long steps = 0, steps_wanted = 0;

	for (int i = 0; i < COUNT; i++)
		x[i] = i * 0.25, y[i] = i;
#pragma omp target teams distribute parallel for map(to : x) map(tofrom : y) reduction(+ : sum)
	for (int i = 0; i < COUNT; i++) {
		y[i] += 2 * x[i];
		sum += y[i];
	}
	for (int i = 0; i < COUNT; i++) {
		CHECK(y[i] == i + 0.5 * i, "element %d is %g", i, y[i]);
		wanted += y[i];
	}
	CHECK(fabs(sum - wanted) < 1e-6, "the sum is %g instead of %g", sum, wanted);
#pragma omp target teams distribute parallel for reduction(+ : steps) map(tofrom : steps)
	for (int i = 1; i < 500; i++)
		steps += collatz(i);
	for (int i = 1; i < 500; i++)
		steps_wanted += collatz(i);
	CHECK(steps == steps_wanted, "%ld steps instead of %ld", steps, steps_wanted);
}

static void
product(void)
{
	for (int i = 0; i < SIDE * SIDE; i++)
		a[i] = (float)(i % 13), b[i] = (float)(i % 7);
#pragma omp target data map(to : a, b) map(from : c)
	{
#pragma omp target teams distribute parallel for collapse(2)
		for (int i = 0; i < SIDE; i++)
			for (int j = 0; j < SIDE; j++) {
				float sum = 0;
				for (int k = 0; k < SIDE; k++)
					sum += a[i * SIDE + k] * b[k * SIDE + j];
				c[i * SIDE + j] = sum;
			}
	}
	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++) {
			float sum = 0;
			for (int k = 0; k < SIDE; k++)
				sum += a[i * SIDE + k] * b[k * SIDE + j];
			CHECK(c[i * SIDE + j] == sum, "(%d, %d) is %g instead of %g", i, j, c[i * SIDE + j], sum);
		}
}

static void
functions(void)
{
	double results[64];
	int threads = 0, order = 0;

#pragma omp target parallel for map(from : results)
	for (int i = 0; i < 64; i++)
		results[i] = sin(i * 0.1) + exp(i * -0.05) + pow(1.01, i);
	for (int i = 0; i < 64; i++)
		CHECK(fabs(results[i] - (sin(i * 0.1) + exp(i * -0.05) + pow(1.01, i))) < 1e-12, "function %d: %g", i, results[i]);
#pragma omp target map(tofrom : threads, order)
	{
#pragma omp parallel num_threads(4)
		{
#pragma omp atomic
			threads++;
#pragma omp barrier
#pragma omp critical
			order = order * 10 + 1;
		}
	}
	CHECK(threads >= 1 && threads <= 4 && order > 0, "%d threads, %d", threads, order);
}

static void
memory(void)
{
	int device = omp_get_default_device(), host = omp_get_initial_device(), values[10], again[10] = { 0 }, total = 0;
	int *there = omp_target_alloc(sizeof(values), device);

	for (int i = 0; i < 10; i++)
		values[i] = i * i;
	CHECK(there != NULL, "no memory on the device");
	MUST(omp_target_memcpy(there, values, sizeof(values), 0, 0, device, host));
#pragma omp target is_device_ptr(there) map(tofrom : total)
	{
		int *own = malloc(10 * sizeof(int));
		for (int i = 0; i < 10; i++)
			own[i] = there[i] + 1;
		for (int i = 0; i < 10; i++) {
			there[i] = own[i];
			total += own[i];
		}
		free(own);
		printf("# printf on the device: %d\n", total);
	}
	MUST(omp_target_memcpy(again, there, sizeof(values), 0, 0, host, device));
	for (int i = 0; i < 10; i++)
		CHECK(again[i] == i * i + 1, "element %d is %d", i, again[i]);
	CHECK(total == 285 + 10, "the total is %d", total);
	omp_target_free(there, device);
}

int
main(void)
{
	printf("# %d devices\n", omp_get_num_devices());
	fflush(stdout);
	CHECK(omp_get_num_devices() > 0, "no device");
	CHECK(where() == 0, "target regions run on the host");
	if (failures)
		return 1;
	sums();
	product();
	functions();
	memory();
	return failures != 0;
}
