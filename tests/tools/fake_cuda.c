/*
 * A libcuda.so.1 for tests that says what FAKE_CUDA tells it: "init=802", "count=0", "hang=init", "crash=init", "name=TEXT",
 * separated by commas. It has the four symbols that the doctor asks, and so many more that a context can be synchronised; then it writes
 * "printed by the driver" to descriptor 1, as a driver may. "name=visible": the device is called as CUDA_VISIBLE_DEVICES says.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int cuInit(unsigned flags);
EXPORT int cuDriverGetVersion(int *version);
EXPORT int cuDeviceGetCount(int *count);
EXPORT int cuDeviceGetName(char *name, int size, int device);
EXPORT int cuDeviceGet(int *device, int ordinal);
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device);
EXPORT int cuDevicePrimaryCtxRelease_v2(int device);
EXPORT int cuCtxSetCurrent(void *context);
EXPORT int cuCtxSynchronize(void);

static const char *
setting(const char *name)
{
	static char value[64];
	const char *script = getenv("FAKE_CUDA");
	size_t length = strlen(name);

	for (; script && *script; script += strcspn(script, ","), script += *script == ',')
		if (strncmp(script, name, length) == 0 && script[length] == '=') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(script + length + 1, ","), script + length + 1);
			return value;
		}
	return NULL;
}

int
cuInit(unsigned flags)
{
	(void)flags;
	if (setting("hang"))
		for (;;)
			pause();
	if (setting("crash"))
		raise(SIGSEGV);
	return setting("init") ? (int)strtol(setting("init"), NULL, 10) : 0;
}

int
cuDriverGetVersion(int *version)
{
	*version = 12080;
	return 0;
}

int
cuDeviceGetCount(int *count)
{
	*count = setting("count") ? (int)strtol(setting("count"), NULL, 10) : 1;
	return 0;
}

int
cuDeviceGetName(char *name, int size, int device)
{
	const char *text = setting("name") ? setting("name") : "Fake H100";

	(void)device;
	if (strcmp(text, "visible") == 0)
		text = getenv("CUDA_VISIBLE_DEVICES") ? getenv("CUDA_VISIBLE_DEVICES") : "all";
	snprintf(name, (size_t)size, "%s", text);
	return 0;
}

int
cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal;
	return 0;
}

int
cuDevicePrimaryCtxRetain(void **context, int device)
{
	*context = (char *)0x7f0000000000 + 64 * device;
	return 0;
}

int
cuDevicePrimaryCtxRelease_v2(int device)
{
	(void)device;
	return 0;
}

int
cuCtxSetCurrent(void *context)
{
	(void)context;
	return 0;
}

int
cuCtxSynchronize(void)
{
	static const char text[] = "printed by the driver\n";

	return write(1, text, sizeof(text) - 1) > 0 ? 0 : 999;
}
