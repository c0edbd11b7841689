/*
 * Every exported call with zeros for all arguments, before and after cuInit, each in a process of its own: none crashes,
 * and before cuInit nothing but what needs no device succeeds.
 */
#include "tap.h"

#include "lib.h"

#define NAMES 1024

static char names[NAMES][128];
static int name_count;

/* More arguments than any call has; the surplus is not looked at. */
typedef CUresult (*any_call)(long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long,
                             long, long, long, long);

static void
read_names(void)
{
	FILE *file = fopen(getenv("EXPORTS"), "r");

	while (file && name_count < NAMES && fscanf(file, "%127s", names[name_count]) == 1)
		name_count++;
	if (file)
		fclose(file);
	CHECK_INT(name_count, 637);
}

static int
call_in_child(const char *name, int with_device)
{
	int status = 0;

	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		CUcontext ctx;
		any_call call = (any_call)lib_symbol(name);
		alarm(20);
		setenv("FARWARP_LOG", "error", 1);
		if (with_device && (CU(cuInit)(0) != CUDA_SUCCESS || CU(cuCtxCreate_v2)(&ctx, 0, 0) != CUDA_SUCCESS))
			_exit(2);
		CUresult result = call(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
		if (!with_device && result == CUDA_SUCCESS && strcmp(name, "cuInit") != 0 && strncmp(name, "cuGetError", 10) != 0)
			_exit(3);
		_exit(0);
	}
	waitpid(child, &status, 0);
	return status;
}

static void
try_all(int with_device)
{
	read_names();
	for (int i = 0; i < name_count; i++) {
		int status = call_in_child(names[i], with_device);
		if (status != 0)
			printf("# %s: status %#x\n", names[i], (unsigned)status);
		CHECK_INT(status, 0);
	}
}

TEST(before_init)
{
	try_all(0);
}

TEST(with_a_context)
{
	try_all(1);
}

TEST_MAIN()
