/*
 * A libcuda.so.1 for tests that says what FAKE_CUDA tells it: "init=802", "count=0", "hang=init", "crash=init", "name=TEXT",
 * separated by commas. It has just the four symbols that the doctor asks.
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
	(void)device;
	snprintf(name, (size_t)size, "%s", setting("name") ? setting("name") : "Fake H100");
	return 0;
}
