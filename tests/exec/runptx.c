/*
 * runptx FILE.ptx KERNEL GRID BLOCK [OPTION...] [ARGUMENT...]: launches a kernel of a PTX file on the interpreter alone and prints
 * its buffers. For trying out instructions; it is no part of what is installed.
 *
 *	runptx FILE.ptx --prepare          only decodes every kernel and says which cannot be
 *	GRID, BLOCK      N or X,Y,Z
 *	u32:5 s32:-1 u64:7 f32:1.5 f64:2   scalar parameters
 *	buf:TYPE:COUNT[:iota|:VALUE]        a buffer, zeroed, or counting up, or filled; printed at the end
 *	quiet:TYPE:COUNT[...]               the same, not printed
 *	-c CC  -s DYNAMIC_SHARED  -t THREADS  -n LAUNCHES  -k X,Y,Z (cluster)  -C (cooperative)  -S SLICE_US
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "soft/exec/exec.h"
#include "soft/space.h"

struct buffer {
	char type[8];
	uint64_t count;
	uint8_t *memory;
};

static struct buffer buffers[32];
static unsigned buffer_count;
static uint8_t params[4096];
static uint32_t param_bytes;

static void __attribute__((noreturn))
fail(const char *what, const char *detail)
{
	fprintf(stderr, "runptx: %s %s\n", what, detail);
	exit(2);
}

static unsigned
type_bytes(const char *type)
{
	return (unsigned)atoi(type + 1 + (type[0] == 'b' && type[1] == 'f')) / 8;
}

static void
store(uint8_t *to, const char *type, const char *text)
{
	float f = strtof(text, NULL);
	double d = strtod(text, NULL);
	uint64_t u = strtoull(text, NULL, 0);
	if (strcmp(type, "f32") == 0)
		memcpy(to, &f, 4);
	else if (strcmp(type, "f64") == 0)
		memcpy(to, &d, 8);
	else
		memcpy(to, &u, type_bytes(type));
}

static void
add_param(const void *value, uint32_t size)
{
	param_bytes = (param_bytes + size - 1) / size * size;
	memcpy(params + param_bytes, value, size);
	param_bytes += size;
}

static void
add_argument(char *text)
{
	char *kind = strtok(text, ":"), *type = kind, *value = strtok(NULL, ":");
	bool quiet = strcmp(kind, "quiet") == 0;
	uint8_t scalar[8] = { 0 };

	if (!value)
		fail("bad argument", text);
	if (strcmp(kind, "buf") != 0 && !quiet) {
		store(scalar, type, value);
		add_param(scalar, type_bytes(type));
		return;
	}
	struct buffer *buffer = &buffers[buffer_count++];
	char *count = strtok(NULL, ":"), *fill = strtok(NULL, ":");
	snprintf(buffer->type, sizeof(buffer->type), "%s", value);
	buffer->count = strtoull(count, NULL, 0);
	unsigned bytes = type_bytes(buffer->type);
	buffer->memory = sw_space_alloc(buffer->count * bytes, 256);
	for (uint64_t n = 0; fill && n < buffer->count; n++) {
		char number[32];
		snprintf(number, sizeof(number), "%llu", (unsigned long long)n);
		store(buffer->memory + n * bytes, buffer->type, strcmp(fill, "iota") == 0 ? number : fill);
	}
	add_param(&buffer->memory, 8);
	if (quiet)
		buffer->type[0] = 0;
}

static void
print_buffer(unsigned index)
{
	const struct buffer *buffer = &buffers[index];
	if (!buffer->type[0])
		return;
	printf("%u:", index);
	for (uint64_t n = 0; n < buffer->count; n++) {
		const uint8_t *at = buffer->memory + n * type_bytes(buffer->type);
		uint64_t u = 0;
		float f;
		double d;
		memcpy(&u, at, type_bytes(buffer->type));
		memcpy(&f, &u, 4);
		memcpy(&d, &u, 8);
		if (strcmp(buffer->type, "f32") == 0)
			printf(" %.9g", f);
		else if (strcmp(buffer->type, "f64") == 0)
			printf(" %.17g", d);
		else if (buffer->type[0] == 's')
			printf(" %lld", (long long)(u << (64 - 8 * type_bytes(buffer->type))) >> (64 - 8 * type_bytes(buffer->type)));
		else
			printf(buffer->type[0] == 'b' ? " %llx" : " %llu", (unsigned long long)u);
	}
	printf("\n");
}

static char *
read_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	char *text;
	if (!file || fseek(file, 0, SEEK_END) != 0)
		fail("cannot read", path);
	*size = (size_t)ftell(file);
	rewind(file);
	text = malloc(*size + 1);
	if (fread(text, 1, *size, file) != *size)
		fail("cannot read", path);
	text[*size] = 0;
	fclose(file);
	return text;
}

static void
dimensions(const char *text, uint32_t out[3])
{
	out[0] = out[1] = out[2] = 1;
	sscanf(text, "%u,%u,%u", &out[0], &out[1], &out[2]);
}

struct job {
	struct sx_grid *grid;
	struct sx_worker *worker;
	uint32_t slice_us;
	int *finished; /* atomic */
};

static void *
work(void *argument)
{
	struct job *job = argument;
	while (!__atomic_load_n(job->finished, __ATOMIC_ACQUIRE)) {
		enum sx_progress progress = sx_grid_work(job->grid, job->worker, job->slice_us);
		if (progress == SX_FINISHED)
			__atomic_store_n(job->finished, 1, __ATOMIC_RELEASE);
		if (progress == SX_NO_WORK)
			break;
	}
	return NULL;
}

/* Decodes every kernel; returns the exit status. */
static int
prepare_all(struct sx_image *image)
{
	unsigned failed = 0;
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (size_t n = 0; n < sx_image_kernel_count(image); n++) {
		struct sx_func *func = sx_image_kernel(image, n);
		struct ptx_error error;
		if (sx_func_prepare(func, &error)) {
			printf("%.60s: line %d: %s\n", sx_func_info(func)->name, error.line, error.text);
			failed++;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%zu kernels, %u cannot be decoded, %.1f ms\n", sx_image_kernel_count(image), failed,
	       (double)(end.tv_sec - start.tv_sec) * 1e3 + 1e-6 * (double)(end.tv_nsec - start.tv_nsec));
	return failed ? 1 : 0;
}

int
main(int argc, char **argv)
{
	bool prepare = argc == 3 && strcmp(argv[2], "--prepare") == 0;
	struct sx_target target = { .cc = 86, .sm_count = 4, .max_shared_block = 99 << 10 };
	struct sx_launch launch = { .cluster = { 1, 1, 1 }, .stack_bytes = 1024, .max_resident = 64 };
	unsigned threads = 1, launches = 1;
	uint32_t slice_us = 1000;
	struct ptx_error error;
	size_t size;

	if (argc < 5 && !prepare)
		fail("usage:", "runptx FILE KERNEL GRID BLOCK ...");
	if (!prepare) {
		dimensions(argv[3], launch.grid);
		dimensions(argv[4], launch.block);
	}
	for (int n = 5; n < argc; n++) {
		if (argv[n][0] != '-') {
			add_argument(argv[n]);
			continue;
		}
		char option = argv[n][1];
		if (option == 'C') {
			launch.cooperative = true;
			continue;
		}
		const char *value = ++n < argc ? argv[n] : "";
		switch (option) {
		case 'c': target.cc = (uint32_t)atoi(value); break;
		case 's': launch.dynamic_shared = (uint32_t)atoi(value); break;
		case 't': threads = (unsigned)atoi(value); break;
		case 'n': launches = (unsigned)atoi(value); break;
		case 'r': launch.max_resident = (uint32_t)atoi(value); break;
		case 'k': dimensions(value, launch.cluster); break;
		case 'S': slice_us = (uint32_t)atoi(value); break;
		default: fail("unknown option", argv[n - 1]);
		}
	}
	char *text = read_file(argv[1], &size);
	struct ptx_module *module = ptx_parse(text, size, &error);
	if (!module) {
		fprintf(stderr, "runptx: line %d: %s\n", error.line, error.text);
		return 1;
	}
	struct sx_image *image = sx_image_link(&module, 1, &target, &error);
	if (image && prepare)
		return prepare_all(image);
	launch.func = image ? sx_image_find_kernel(image, argv[2]) : NULL;
	if (image && !launch.func)
		fail("no kernel", argv[2]);
	if (!image || sx_func_prepare(launch.func, &error)) {
		fprintf(stderr, "runptx: line %d: %s\n", error.line, error.text);
		return 1;
	}
	launch.params = params;
	launch.param_bytes = param_bytes;
	struct sx_worker *workers[64];
	for (unsigned n = 0; n < threads; n++)
		workers[n] = sx_worker_new();
	double best = 1e30;
	for (unsigned l = 0; l < launches; l++) {
		struct timespec start, end;
		struct sx_grid *grid = sx_grid_new(&launch);
		int finished = 0;
		pthread_t ids[64];
		struct job jobs[64];
		clock_gettime(CLOCK_MONOTONIC, &start);
		for (unsigned n = 0; n < threads; n++) {
			jobs[n] = (struct job){ grid, workers[n], slice_us, &finished };
			if (n)
				pthread_create(&ids[n], NULL, work, &jobs[n]);
		}
		work(&jobs[0]);
		for (unsigned n = 1; n < threads; n++)
			pthread_join(ids[n], NULL);
		clock_gettime(CLOCK_MONOTONIC, &end);
		double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
		best = seconds < best ? seconds : best;
		const struct sx_fault *fault = sx_grid_fault(grid);
		if (!finished)
			fail("the grid did not finish", "");
		if (fault) {
			printf("fault %d: %s\n", (int)fault->code, fault->text);
			return 3;
		}
		sx_grid_free(grid);
	}
	for (unsigned n = 0; n < buffer_count; n++)
		print_buffer(n);
	fprintf(stderr, "%s %.3f us\n", sx_isa_name(), best * 1e6);
	for (unsigned n = 0; n < threads; n++)
		sx_worker_free(workers[n]);
	sx_image_free(image);
	free(text);
	return 0;
}
