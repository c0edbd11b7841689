/*
 * What both benchmark programs measure, independent of the API: sizes, repetitions, and the device as five functions.
 * Each program fills struct device and calls bench_main, which prints one "NAME VALUE UNIT" line a measurement: the best of the
 * repetitions for rates, since anything above it is the machine's noise; run.py takes medians over whole runs.
 */
#ifndef BENCH_H
#define BENCH_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct device {
	void *(*alloc)(size_t bytes);
	void (*put)(void *buffer, const void *data, size_t bytes);
	void (*get)(void *data, void *buffer, size_t bytes);
	/* grid and block in 2-D; buffers and ints in the kernel's order: buffers first */
	void (*launch)(const char *kernel, int gx, int gy, int bx, int by, int buffer_count, void **buffers, int int_count, const int *ints);
	void (*finish)(void);
};

static double
now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct kernel_run {
	const char *name;
	int gx, gy, bx, by, buffer_count;
	void *buffers[3];
	int int_count, ints[3];
};

static double
best_of(const struct device *d, const struct kernel_run *k, int repetitions)
{
	double best = 1e30;
	for (int i = 0; i <= repetitions; i++) {
		double begin = now();
		d->launch(k->name, k->gx, k->gy, k->bx, k->by, k->buffer_count, (void **)k->buffers, k->int_count, k->ints);
		d->finish();
		double took = now() - begin;
		if (i > 0 && took < best) /* the first one compiles */
			best = took;
	}
	return best;
}

static void
require(int right, const char *what)
{
	if (!right) {
		fprintf(stderr, "%s: wrong result\n", what);
		exit(1);
	}
}

static void
bench_main(const struct device *d, const char *only)
{
	enum { N = 512, R = 1 << 23, H = 1 << 22, B = 4096, M = 1024 };
	float *f = malloc(R * sizeof(float)), *g = malloc(R * sizeof(float));
	unsigned *u = (unsigned *)g;
	void *b1 = d->alloc(R * sizeof(float)), *b2 = d->alloc(R * sizeof(float)), *b3 = d->alloc(R * sizeof(float));
#define WANTED(name) (!only || strcmp(only, name) == 0)

	if (WANTED("launch")) {
		double best = 1e30, best_sync = 1e30;
		for (int round = 0; round < 6; round++) {
			double begin = now();
			for (int i = 0; i < 2000; i++)
				d->launch("empty", 1, 1, 32, 1, 0, NULL, 0, NULL);
			d->finish();
			double took = (now() - begin) / 2000;
			best = round && took < best ? took : best;
			begin = now();
			for (int i = 0; i < 1000; i++) {
				d->launch("empty", 1, 1, 32, 1, 0, NULL, 0, NULL);
				d->finish();
			}
			took = (now() - begin) / 1000;
			best_sync = round && took < best_sync ? took : best_sync;
		}
		printf("launch_pipelined %.3f us\nlaunch_sync %.3f us\n", best * 1e6, best_sync * 1e6);
	}
	if (WANTED("vector_add")) {
		for (int i = 0; i < R; i++)
			f[i] = (float)(i & 1023);
		d->put(b1, f, R * sizeof(float));
		d->put(b2, f, R * sizeof(float));
		struct kernel_run k = { "vector_add", R / 256, 1, 256, 1, 3, { b1, b2, b3 }, 1, { R } };
		double t = best_of(d, &k, 5);
		d->get(g, b3, R * sizeof(float));
		require(g[12345] == 2 * f[12345] && g[R - 1] == 2 * f[R - 1], "vector_add");
		printf("vector_add %.3f GB/s\n", 12.0 * R / t * 1e-9);
	}
	if (WANTED("matmul")) {
		for (int i = 0; i < N * N; i++)
			f[i] = (float)(i % 7 - 3);
		d->put(b1, f, N * N * sizeof(float));
		d->put(b2, f, N * N * sizeof(float));
		struct kernel_run k = { "matmul", N / 16, N / 16, 16, 16, 3, { b1, b2, b3 }, 1, { N } };
		double t = best_of(d, &k, 4), sum = 0;
		d->get(g, b3, N * N * sizeof(float));
		for (int i = 0; i < N; i++)
			sum += (double)f[17 * N + i] * (double)f[i * N + 33];
		require(fabs(sum - (double)g[17 * N + 33]) < 1e-2, "matmul");
		printf("matmul %.3f GF/s\n", 2.0 * N * N * N / t * 1e-9);
	}
	if (WANTED("reduction")) {
		for (int i = 0; i < R; i++)
			f[i] = (float)(i & 3);
		d->put(b1, f, R * sizeof(float));
		struct kernel_run k = { "reduction", 1024, 1, 256, 1, 2, { b1, b3 }, 1, { R } };
		double t = best_of(d, &k, 5), sum = 0;
		d->get(g, b3, 1024 * sizeof(float));
		for (int i = 0; i < 1024; i++)
			sum += (double)g[i];
		require(sum == 1.5 * R, "reduction");
		printf("reduction %.3f GB/s\n", 4.0 * R / t * 1e-9);
	}
	for (int shared = 0; shared < 2; shared++) {
		const char *name = shared ? "histogram_shared" : "histogram_global";
		if (!WANTED(name))
			continue;
		unsigned state = 1, zeros[256] = { 0 };
		for (int i = 0; i < H; i++)
			u[i] = state = state * 1664525u + 1013904223u, u[i] >>= 13;
		d->put(b1, u, H * sizeof(unsigned));
		d->put(b2, zeros, sizeof(zeros));
		struct kernel_run k = { name, 256, 1, 256, 1, 2, { b1, b2 }, 1, { H } };
		double t = best_of(d, &k, 4), total = 0;
		d->get(zeros, b2, sizeof(zeros));
		for (int i = 0; i < 256; i++)
			total += zeros[i];
		require(total == 5.0 * H, name);
		printf("%s %.4f G/s\n", name, H / t * 1e-9);
	}
	if (WANTED("nbody")) {
		for (int i = 0; i < 4 * B; i++)
			f[i] = (float)((i * 7919) % 1000) * 0.001f;
		d->put(b1, f, 4 * B * sizeof(float));
		struct kernel_run k = { "nbody", B / 256, 1, 256, 1, 2, { b1, b3 }, 1, { B } };
		double t = best_of(d, &k, 3), ax = 0;
		d->get(g, b3, 4 * B * sizeof(float));
		for (int i = 0; i < B; i++) {
			double x = (double)f[4 * i] - (double)f[400], y = (double)f[4 * i + 1] - (double)f[401], z = (double)f[4 * i + 2] - (double)f[402];
			ax += x * (double)f[4 * i + 3] * pow(x * x + y * y + z * z + 0.01, -1.5);
		}
		require(fabs(ax - (double)g[400]) < 1e-3 * fabs(ax) + 1e-2, "nbody");
		printf("nbody %.3f GF/s\n", 20.0 * B * B / t * 1e-9);
	}
	if (WANTED("mandelbrot")) {
		struct kernel_run k = { "mandelbrot", M / 16, M / 16, 16, 16, 1, { b3 }, 3, { M, M, 256 } };
		double t = best_of(d, &k, 3), iterations = 0;
		d->get(u, b3, M * M * sizeof(unsigned));
		for (int i = 0; i < M * M; i++)
			iterations += u[i];
		require(iterations > 50.0 * M * M && iterations < 100.0 * M * M, "mandelbrot");
		printf("mandelbrot %.4f Giter/s\n", iterations / t * 1e-9);
	}
	free(f);
	free(g);
}

#endif
