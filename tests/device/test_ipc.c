/*
 * Memory, events and pools shared between processes. Each test runs this program again with the handle as an argument, because
 * a forked child of a process that uses CUDA may not use it.
 */
#include "gpu.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void
as_text(const void *bytes, size_t size, char *text)
{
	for (size_t i = 0; i < size; i++)
		sprintf(text + 2 * i, "%02x", ((const uint8_t *)bytes)[i]);
}

static void
from_text(const char *text, void *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		sscanf(text + 2 * i, "%2hhx", (uint8_t *)bytes + i);
}

/* Starts this program as `role` with 64 bytes and a number; returns its process. */
static pid_t
run_role(const char *role, const void *bytes, int number)
{
	char text[129], digits[16];

	as_text(bytes, 64, text);
	snprintf(digits, sizeof(digits), "%d", number);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		execl("/proc/self/exe", "test_ipc", "--role", role, text, digits, (char *)NULL);
		_exit(99);
	}
	return child;
}

static int
ended(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* ---- the other process -------------------------------------------------------------------------------------------------- */

static int
role_memory(const char *text)
{
	CUipcMemHandle handle;
	CUdeviceptr p = 0;
	uint32_t out[8] = { 0 }, n = 1000, v = 1;

	from_text(text, &handle, 64);
	gpu_start();
	OK(CU(cuIpcOpenMemHandle_v2)(&p, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
	OK(CU(cuMemcpyDtoH_v2)(out, p, sizeof(out)));
	CHECK(out[0] == 41 && out[7] == 41);
	OK(gpu_launch(gpu_kernel("add"), 4, 256, NULL, (void *[]){ &p, &n, &v }));
	OK(CU(cuCtxSynchronize)());
	CHECK_INT(CU(cuMemFree_v2)(p), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(out, p + 4000, 4), CUDA_ERROR_INVALID_VALUE); /* beyond it */
	OK(CU(cuIpcCloseMemHandle)(p));
	CHECK_INT(CU(cuIpcCloseMemHandle)(p), CUDA_ERROR_INVALID_VALUE);
	for (int at = 16; at <= 40; at += 24) { /* another file; the same one, but the handle was guessed */
		CUipcMemHandle wrong = handle;
		((char *)&wrong)[at] ^= 1;
		CHECK_INT(CU(cuIpcOpenMemHandle_v2)(&p, wrong, 0), CUDA_ERROR_INVALID_VALUE);
	}
	OK(CU(cuIpcOpenMemHandle_v2)(&p, handle, 0));
	OK(CU(cuIpcCloseMemHandle)(p));
	return tap_failures;
}

static int
role_event(const char *text)
{
	CUipcEventHandle handle;
	CUevent event = NULL;
	CUstream stream;

	from_text(text, &handle, 64);
	gpu_start();
	OK(CU(cuIpcOpenEventHandle)(&event, handle));
	CHECK_INT(CU(cuEventQuery)(event), CUDA_ERROR_NOT_READY);
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	OK(CU(cuStreamWaitEvent)(stream, event, 0));
	CHECK_INT(CU(cuStreamQuery)(stream), CUDA_ERROR_NOT_READY);
	if (write(STDOUT_FILENO, "", 0) < 0 || kill(getppid(), SIGUSR1) != 0)
		CHECK(!"cannot tell the parent");
	OK(CU(cuStreamSynchronize)(stream));
	OK(CU(cuEventSynchronize)(event));
	OK(CU(cuEventQuery)(event));
	OK(CU(cuEventDestroy_v2)(event));
	return tap_failures;
}

static int
role_fd(const char *text, int fd, bool pool)
{
	CUmemGenericAllocationHandle memory;
	CUmemAccessDesc access = { { CU_MEM_LOCATION_TYPE_DEVICE, 0 }, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemPoolPtrExportData data;
	CUmemoryPool imported;
	CUdeviceptr p = 0;
	uint32_t out = 0;

	gpu_start();
	if (pool) {
		from_text(text, &data, 64);
		OK(CU(cuMemPoolImportFromShareableHandle)(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
		OK(CU(cuMemPoolImportPointer)(&p, imported, &data));
		CHECK_INT(CU(cuMemAllocFromPoolAsync)(&(CUdeviceptr){ 0 }, 64, imported, NULL), CUDA_ERROR_NOT_PERMITTED);
		((uint8_t *)&data)[20] ^= 0xff; /* a size beyond the file */
		CHECK_INT(CU(cuMemPoolImportPointer)(&(CUdeviceptr){ 0 }, imported, &data), CUDA_ERROR_INVALID_VALUE);
	} else {
		OK(CU(cuMemImportFromShareableHandle)(&memory, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
		OK(CU(cuMemAddressReserve)(&p, 2 << 20, 0, 0, 0));
		OK(CU(cuMemMap)(p, 2 << 20, 0, memory, 0));
		OK(CU(cuMemSetAccess)(p, 2 << 20, &access, 1));
	}
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 1234);
	OK(CU(cuMemsetD32_v2)(p, 4321, 1));
	OK(CU(cuCtxSynchronize)());
	if (pool)
		OK(CU(cuMemFree_v2)(p));
	return tap_failures;
}

/* ---- tests -------------------------------------------------------------------------------------------------------------------- */

TEST(memory)
{
	CUdeviceptr big, p;
	CUipcMemHandle handle;
	uint32_t out[1000], n = 1000, v = 0;

	gpu_start();
	OK(CU(cuMemAlloc_v2)(&big, 1000)); /* a neighbour in the same segment */
	OK(CU(cuMemsetD8_v2)(big, 7, 1000));
	OK(CU(cuMemAlloc_v2)(&p, 4000));
	OK(CU(cuMemsetD32_v2)(p, 41, 1000));
	OK(CU(cuIpcGetMemHandle)(&handle, p));
	CHECK_INT(CU(cuIpcOpenMemHandle_v2)(&big, handle, 0), CUDA_ERROR_INVALID_CONTEXT);
	OK(CU(cuIpcGetMemHandle)(&handle, p)); /* again: the same file */
	CHECK_INT(ended(run_role("memory", &handle, 0)), 0);
	OK(gpu_launch(gpu_kernel("add"), 4, 256, NULL, (void *[]){ &p, &n, &v }));
	OK(CU(cuMemcpyDtoH_v2)(out, p, 4000));
	CHECK(out[0] == 42 && out[999] == 42);
	OK(CU(cuMemFree_v2)(p));
	OK(CU(cuMemFree_v2)(big));
	CHECK_INT(gpu_used(), 0);
}

static volatile sig_atomic_t told;

static void
on_signal(int signal)
{
	told = signal;
}

TEST(event)
{
	CUipcEventHandle handle;
	CUstream stream, apart;
	CUdeviceptr flag;
	CUevent event;
	uint32_t one = 1;

	gpu_start();
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	OK(CU(cuStreamCreate)(&apart, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&flag, 4));
	OK(CU(cuMemsetD32_v2)(flag, 0, 1));
	OK(CU(cuCtxSynchronize)());
	OK(CU(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS));
	OK(CU(cuIpcGetEventHandle)(&handle, event));
	OK(gpu_launch(gpu_kernel("wait_for"), 1, 1, stream, (void *[]){ &flag, &one }));
	OK(CU(cuEventRecord)(event, stream));
	signal(SIGUSR1, on_signal);
	pid_t child = run_role("event", &handle, 0);
	while (!told && waitpid(child, NULL, WNOHANG) == 0)
		usleep(1000); /* until the other process waits */
	OK(CU(cuMemsetD32Async)(flag, 1, 1, apart));
	CHECK_INT(ended(child), 0);
	OK(CU(cuEventSynchronize)(event));
}

TEST(virtual_memory)
{
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	CUmemAccessDesc access = { prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle memory;
	CUdeviceptr p;
	uint8_t nothing[64] = { 0 };
	uint32_t out;
	int fd, kept;

	gpu_start();
	OK(CU(cuMemAddressReserve)(&p, 2 << 20, 0, 0, 0));
	OK(CU(cuMemCreate)(&memory, 2 << 20, &prop, 0));
	OK(CU(cuMemMap)(p, 2 << 20, 0, memory, 0));
	OK(CU(cuMemSetAccess)(p, 2 << 20, &access, 1));
	OK(CU(cuMemsetD32_v2)(p, 1234, 1));
	OK(CU(cuCtxSynchronize)());
	OK(CU(cuMemExportToShareableHandle)(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	kept = dup(fd); /* without close-on-exec: how the child inherits it */
	CHECK_INT(ended(run_role("vmm", nothing, kept)), 0);
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 4321);
}

TEST(pool)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	CUmemPoolPtrExportData data;
	CUmemoryPool pool;
	CUdeviceptr first, p;
	uint32_t out;
	int fd;

	gpu_start();
	OK(CU(cuMemPoolCreate)(&pool, &props));
	OK(CU(cuMemAllocFromPoolAsync)(&first, 3 << 20, pool, NULL));
	OK(CU(cuMemAllocFromPoolAsync)(&p, 4096, pool, NULL));
	OK(CU(cuMemsetD32_v2)(p, 1234, 1));
	OK(CU(cuCtxSynchronize)());
	OK(CU(cuMemPoolExportToShareableHandle)(&fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	OK(CU(cuMemPoolExportPointer)(&data, p));
	CHECK_INT(ended(run_role("pool", &data, dup(fd))), 0);
	OK(CU(cuMemcpyDtoH_v2)(&out, p, 4));
	CHECK_INT(out, 4321);
	OK(CU(cuMemFree_v2)(p));
	OK(CU(cuMemFree_v2)(first));
}

int
main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "--role") == 0)
		return strcmp(argv[2], "memory") == 0  ? role_memory(argv[3])
		       : strcmp(argv[2], "event") == 0 ? role_event(argv[3])
		                                       : role_fd(argv[3], atoi(argv[4]), strcmp(argv[2], "pool") == 0);
	return tap_main(argc, argv);
}
