/*
 * A libcuda.so.1 for tests that says what FAKE_CUDA tells it, separated by commas: "init=802", "context=46", "launch=719", "count=0",
 * "cc=90" (of the devices), "version=12080" (of the driver), "name=TEXT", "numbered=1" (each device has a name of its own), "crash=1", "exit=1",
 * "hang=init" or "hang=launch", "wrong=1" (the kernel's results), "flip=1" (a bit of a large copy), "watchdog=1", "peer=0" (no GPU
 * reaches another), "masked=1" (CUDA_VISIBLE_DEVICES hides all), "mknod=PATH" (cuInit makes a device node, as the real one does), "name=rights" (the
 * device is called as the process's rights are).
 * It has the symbols that the doctor asks, and "runs" the doctor's own kernel. With FAKE_NVIDIA it has the mark by which NVIDIA's own
 * library is told from a shim.
 */
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static const char *
setting(const char *name)
{
	static char value[256];
	const char *script = getenv("FAKE_CUDA");
	size_t length = strlen(name);

	for (; script && *script; script += strcspn(script, ","), script += *script == ',')
		if (strncmp(script, name, length) == 0 && script[length] == '=') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(script + length + 1, ","), script + length + 1);
			return value;
		}
	return NULL;
}

static void
hang(const char *where)
{
	const char *asked = setting("hang");

	while (asked && strcmp(asked, where) == 0)
		pause();
}

static int
result(const char *of)
{
	return setting(of) ? (int)strtol(setting(of), NULL, 10) : 0;
}

#ifdef FAKE_NVIDIA
EXPORT void cudbgApiInit(unsigned flags);
void
cudbgApiInit(unsigned flags)
{
	(void)flags;
}
#endif

EXPORT int cuInit(unsigned flags);
int
cuInit(unsigned flags)
{
	(void)flags;
	hang("init");
	if (setting("crash"))
		raise(SIGSEGV);
	if (setting("exit"))
		exit(3);
	if (setting("mknod"))
		return mknod(setting("mknod"), S_IFCHR | 0666, makedev(195, 255)) == 0 ? 0 : 100;
	if (setting("masked") && getenv("CUDA_VISIBLE_DEVICES"))
		return 100;
	return result("init");
}

EXPORT int cuDriverGetVersion(int *version);
int
cuDriverGetVersion(int *version)
{
	*version = setting("version") ? (int)strtol(setting("version"), NULL, 10) : 12080;
	return 0;
}

EXPORT int cuDeviceGetCount(int *count);
int
cuDeviceGetCount(int *count)
{
	*count = setting("count") ? (int)strtol(setting("count"), NULL, 10) : 1;
	return 0;
}

/* "CapBnd 0000... NoNewPrivs 1" of this process. */
static void
rights(char *text, size_t size)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256], word[32], value[64];
	size_t used = 0;

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "%31[^:]: %63s", word, value) == 2 && (strcmp(word, "CapBnd") == 0 || strcmp(word, "NoNewPrivs") == 0) && used < size)
			used += (size_t)snprintf(text + used, size - used, "%s %s ", word, value);
	if (status)
		fclose(status);
}

EXPORT int cuDeviceGetName(char *name, int size, int device);
int
cuDeviceGetName(char *name, int size, int device)
{
	const char *asked = setting("name");

	snprintf(name, (size_t)size, "%s", asked ? asked : "Fake H100");
	if (setting("numbered") && device > 0)
		snprintf(name, (size_t)size, "Fake H100 %d", device);
	if (asked && strcmp(asked, "rights") == 0)
		rights(name, (size_t)size);
	return 0;
}

EXPORT int cuDeviceGet(int *device, int ordinal);
int
cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal;
	return 0;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device);
int
cuDeviceGetAttribute(int *value, int attribute, int device)
{
	int cc = setting("cc") ? (int)strtol(setting("cc"), NULL, 10) : 90;

	(void)device;
	*value = attribute == 75 ? cc / 10 : attribute == 76 ? cc % 10 : attribute == 17 && setting("watchdog") ? 1 : 0;
	return 0;
}

EXPORT int cuDeviceCanAccessPeer(int *can, int device, int peer);
int
cuDeviceCanAccessPeer(int *can, int device, int peer)
{
	*can = device != peer && !setting("peer");
	return 0;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device);
int
cuDevicePrimaryCtxRelease_v2(int device)
{
	(void)device;
	return 0;
}

EXPORT int cuDevicePrimaryCtxRetain(void **context, int device);
int
cuDevicePrimaryCtxRetain(void **context, int device)
{
	*context = (char *)0x7f0000000000 + 64 * device;
	return result("context");
}

EXPORT int cuCtxSetCurrent(void *context);
int
cuCtxSetCurrent(void *context)
{
	(void)context;
	return 0;
}

EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total);
int
cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	*free_bytes = 64 << 20;
	*total = 128 << 20;
	return result("mem_info");
}

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t size);
int
cuMemAlloc_v2(uint64_t *address, size_t size)
{
	*address = (uint64_t)(uintptr_t)malloc(size);
	return result("alloc");
}

EXPORT int cuMemFree_v2(uint64_t address);
int
cuMemFree_v2(uint64_t address)
{
	free((void *)(uintptr_t)address);
	return 0;
}

EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size);
int
cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size)
{
	memcpy((void *)(uintptr_t)to, from, size);
	return result("copy");
}

EXPORT int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size);
int
cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size)
{
	memcpy(to, (const void *)(uintptr_t)from, size);
	if (setting("flip") && size > 1 << 20)
		((char *)to)[size / 3] ^= 4;
	return 0;
}

EXPORT int cuModuleLoadData(void **module, const void *image);
int
cuModuleLoadData(void **module, const void *image)
{
	*module = (void *)(uintptr_t)image;
	return result("module");
}

EXPORT int cuModuleGetFunction(void **function, void *module, const char *name);
int
cuModuleGetFunction(void **function, void *module, const char *name)
{
	(void)name;
	*function = module;
	return 0;
}

EXPORT int cuModuleUnload(void *module);
int
cuModuleUnload(void *module)
{
	(void)module;
	return 0;
}

EXPORT int cuCtxSynchronize(void);
int
cuCtxSynchronize(void)
{
	return 0;
}

EXPORT int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments, void **extra);
int
cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments, void **extra)
{
	int32_t *numbers = (int32_t *)(uintptr_t)*(uint64_t *)arguments[0];

	(void)function, (void)gy, (void)gz, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
	hang("launch");
	for (unsigned i = 0; i < gx * bx; i++)
		numbers[i] = numbers[i] * 3 + (int32_t)i + (setting("wrong") ? 1 : 0);
	return result("launch");
}
