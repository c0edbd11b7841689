/*
 * What only a real driver and its GPU can answer, asked: probe [NAME ...]. One "NAME: ANSWER" a line.
 *
 * Each question has a process of its own with a deadline, because some of them call functions that no document describes: one that
 * crashes or hangs is said and the others go on. The driver is the libcuda.so.1 that the loader finds, or the one that LIBCUDA names. The exit
 * status is 0 if every question got its answer. docs/bridge.md ("Behind a real driver") says what depends on them.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <farwarp/cuda.h>

#define DEADLINE 60 /* seconds a question may take */

#define CALLS(X) \
	X(cuInit) X(cuDriverGetVersion) X(cuDeviceGetName) X(cuDeviceGetAttribute) X(cuDevicePrimaryCtxRetain) X(cuCtxSetCurrent) \
	X(cuGetExportTable) X(cuGetProcAddress_v2) X(cuStreamCreate) X(cuStreamSynchronize) X(cuMemHostAlloc) X(cuMemHostRegister_v2) \
	X(cuMemHostUnregister) X(cuMemHostGetDevicePointer_v2) X(cuMemAlloc_v2) X(cuMemcpyHtoDAsync_v2) X(cuMemcpyDtoHAsync_v2) \
	X(cuStreamWriteValue32_v2) X(cuModuleLoadData) X(cuModuleGetFunction) X(cuLaunchKernel) X(cuGetErrorName)
#define X(name) static __typeof__(&name) p_##name;
CALLS(X)
#undef X

/* mark(page, value): what a kernel does to say that it is done to who looks at a page of host memory. */
static const char ptx[] =
	".version 6.3\n.target sm_75\n.address_size 64\n.visible .entry mark(.param .u64 page, .param .u32 value)\n{\n"
	"	.reg .u64 %rd<2>;\n	.reg .u32 %r<2>;\n	ld.param.u64 %rd0, [page];\n	ld.param.u32 %r0, [value];\n"
	"	st.release.sys.global.u32 [%rd0], %r0;\n	ret;\n}\n";

static CUcontext context;
static CUdevice device;

static const char *
error(CUresult result)
{
	const char *name = NULL;

	if (p_cuGetErrorName)
		p_cuGetErrorName(result, &name);
	return name ? name : "an unknown error";
}

#define SAY(...) (printf("%s: ", question), printf(__VA_ARGS__), putchar('\n'))
/* Ends the question with what went wrong: an answer too. */
#define OK(call) \
	do { \
		CUresult result_ = p_##call; \
		if (result_ != CUDA_SUCCESS) { \
			SAY("%s answers %d %s", #call, (int)result_, error(result_)); \
			return; \
		} \
	} while (0)

static const char *question;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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

/* ---- private tables ------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	unsigned char guid[17];
} tables[] = {
	{ "T0", "\xf8\xcf\xf9\x51\x21\x46\x8b\x4e\xb9\xe2\xfb\x46\x9e\x7c\x0d\xd9" },
	{ "T7", "\x21\x31\x8c\x60\x97\x14\x32\x48\x8c\xa6\x41\xff\x73\x24\xc8\xf2" },
	{ "T8", "\x6e\x16\x3f\xbe\xb9\x58\x44\x4d\x83\x5c\xe1\x82\xaf\xf1\x99\x1e" },
	{ "T9", "\x17\x34\xdc\x26\x80\x0d\x47\x45\x87\x26\xc0\xf1\xe7\xdd\x8b\xca" },
	{ "T10", "\xda\x91\x51\xd3\x3a\xe6\xcc\x41\xa5\xc0\x4f\x26\xd5\x33\xe3\x28" },
};
enum { T0, T7, T8, T9, T10 };

static void *const *
table(int which)
{
	const void *words = NULL;
	CUuuid id;

	memcpy(id.bytes, tables[which].guid, sizeof(id.bytes));
	CUresult result = p_cuGetExportTable(&words, &id);
	if (result != CUDA_SUCCESS || !words)
		SAY("%s: no table, %d %s", tables[which].name, (int)result, error(result));
	return result == CUDA_SUCCESS ? words : NULL;
}

/* How many bytes the tables have that farwarp's client gives sizes of its own. */
static void
ask_table_sizes(void)
{
	for (int n = T0; n <= T10; n++) {
		void *const *words = table(n);
		if (words)
			SAY("%s has %zu words", tables[n].name, (size_t)words[0] / sizeof(void *));
	}
}

static void
ask_empty_name(void)
{
	CUdriverProcAddressQueryResult status = (CUdriverProcAddressQueryResult)-1;
	void *function = NULL;
	CUresult result = p_cuGetProcAddress_v2("", &function, 0, 0, &status);

	SAY("cuGetProcAddress_v2(\"\") answers %d %s, status %d, %s", (int)result, error(result), (int)status, function ? "a function" : "NULL");
}

/* T7[51] gives a stream's object, T7[39] a number of that: cuBLAS goes on at once when the number is 0. */
static void
ask_stream_numbers(void)
{
	void *const *words = table(T7);
	CUstream streams[4] = { NULL, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD };
	static const char *const names[] = { "NULL", "legacy", "per thread", "a stream" };

	if (!words)
		return;
	if ((size_t)words[0] / sizeof(void *) <= 51) {
		SAY("the table has no word 51");
		return;
	}
	CUresult (*object_of)(CUcontext, CUstream, void **) = (CUresult (*)(CUcontext, CUstream, void **))words[51];
	CUresult (*number_of)(CUcontext, void *, uint64_t *) = (CUresult (*)(CUcontext, void *, uint64_t *))words[39];
	OK(cuStreamCreate(&streams[3], 0));
	for (int n = 0; n < 4; n++) {
		void *object = NULL;
		uint64_t number[2] = { 0xbad, 0xbad };
		CUresult first = object_of(context, streams[n], &object), second = CUDA_ERROR_UNKNOWN, again = CUDA_ERROR_UNKNOWN;
		if (first == CUDA_SUCCESS) {
			second = number_of(context, object, &number[0]);
			again = number_of(context, object, &number[1]);
		}
		SAY("stream %s: T7[51] %d, object %s; T7[39] %d, number %llu; again %d, %llu", names[n], (int)first,
		    !object ? "NULL" : object == (void *)streams[n] ? "the stream" : "another", (int)second, (unsigned long long)number[0],
		    (int)again, (unsigned long long)number[1]);
		fflush(stdout);
	}
}

/* The mapping that an address lies in, as /proc says it. */
static void
where(const void *address, char *text, size_t size)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long begin, end;
	char line[512], rights[8], file[256];

	snprintf(text, size, "nowhere mapped");
	while (maps && fgets(line, sizeof(line), maps)) {
		file[0] = 0;
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &begin, &end, rights, file) >= 3 && (uintptr_t)address >= begin &&
		    (uintptr_t)address < end)
			snprintf(text, size, "%s %s", rights, file[0] ? file : "anonymous");
	}
	if (maps)
		fclose(maps);
}

static void
ask_pair(void)
{
	void *const *words = table(T9);
	void *pair[2] = { NULL, NULL };
	char text[2][300];

	if (!words)
		return;
	CUresult result = ((CUresult (*)(void **, void **))words[4])(&pair[0], &pair[1]);
	for (int n = 0; n < 2; n++)
		where(pair[n], text[n], sizeof(text[n]));
	SAY("T9[4] answers %d: %s (%s), %s (%s)", (int)result, pair[0] ? "a pointer" : "NULL", pair[0] ? text[0] : "-",
	    pair[1] ? "a pointer" : "NULL", pair[1] ? text[1] : "-");
}

/* ---- shared memory -------------------------------------------------------------------------------------------------------- */

struct shared {
	char *ours;  /* registered with the driver, at an address where another process would have it as well */
	char *other; /* the same pages a second time, as the other process sees them */
	size_t size;
};

/* As the client makes pinned memory: a sealed memfd. */
static bool
make_shared(struct shared *s, size_t size)
{
	int fd = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	bool ok = fd >= 0 && ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;

	*s = (struct shared){ .size = size };
	if (ok) {
		s->ours = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		s->other = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ok = s->ours != MAP_FAILED && s->other != MAP_FAILED;
		close(fd);
	}
	if (!ok)
		SAY("no shared memory on this machine");
	return ok;
}

static double
rate(bool out, CUdeviceptr memory, void *host, size_t size)
{
	double v[9];

	for (int n = 0; n < 9; n++) {
		double begin = now();
		CUresult result = out ? p_cuMemcpyDtoHAsync_v2(host, memory, size, NULL) : p_cuMemcpyHtoDAsync_v2(memory, host, size, NULL);
		if (result != CUDA_SUCCESS || p_cuStreamSynchronize(NULL) != CUDA_SUCCESS)
			return -1;
		v[n] = (double)size / (now() - begin) / 1e9;
	}
	return middle(v, 9);
}

/* Whether the driver takes a memfd for registering, at which address kernels have it, and how fast copies are beside its own memory. */
static void
ask_registering(void)
{
	const size_t size = (size_t)64 << 20;
	static const struct {
		unsigned flags;
		const char *name;
	} ways[] = { { 0, "0" }, { CU_MEMHOSTREGISTER_PORTABLE, "PORTABLE" }, { CU_MEMHOSTREGISTER_DEVICEMAP, "DEVICEMAP" },
		     { CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP, "PORTABLE | DEVICEMAP" } };
	struct shared s;
	CUdeviceptr memory, seen = 0;
	void *pinned;

	if (!make_shared(&s, size))
		return;
	for (size_t n = 0; n < sizeof(ways) / sizeof(ways[0]); n++) {
		CUresult result = p_cuMemHostRegister_v2(s.ours, size, ways[n].flags);
		if (result != CUDA_SUCCESS) {
			SAY("a sealed memfd, flags %s: cuMemHostRegister answers %d %s", ways[n].name, (int)result, error(result));
			continue;
		}
		result = p_cuMemHostGetDevicePointer_v2(&seen, s.ours, 0);
		SAY("a sealed memfd, flags %s: registered, cuMemHostGetDevicePointer answers %d, %s", ways[n].name, (int)result,
		    result != CUDA_SUCCESS ? "none" : seen == (CUdeviceptr)(uintptr_t)s.ours ? "the same address" : "another address");
		OK(cuMemHostUnregister(s.ours));
	}
	OK(cuMemAlloc_v2(&memory, size));
	OK(cuMemHostAlloc(&pinned, size, 0));
	OK(cuMemHostRegister_v2(s.ours, size, 0));
	memset(pinned, 1, size);
	memset(s.other, 2, size);
	double in = rate(false, memory, pinned, size), in_shared = rate(false, memory, s.ours, size);
	double out_shared = rate(true, memory, s.ours, size), out = rate(true, memory, pinned, size);
	SAY("copies of 64 MiB, GB/s: cuMemHostAlloc to the device %.2f, registered memfd %.2f; from it %.2f, %.2f", in, in_shared, out, out_shared);
	memset(s.other, 7, size);
	OK(cuMemcpyHtoDAsync_v2(memory, s.ours, size, NULL));
	OK(cuStreamSynchronize(NULL));
	memset(s.ours, 0, size);
	OK(cuMemcpyDtoHAsync_v2(s.ours, memory, size, NULL));
	OK(cuStreamSynchronize(NULL));
	size_t wrong = 0;
	for (size_t n = 0; n < size; n++)
		wrong += s.other[n] != 7;
	SAY("what another mapping of the file wrote came back to it: %zu bytes of %zu wrong", wrong, size);
}

enum way { STORE, SYNCHRONIZE, WRITE_VALUE };

/* Microseconds from asking for a value to be written to a page until it is seen in another mapping; negative if it never is. */
static double
until_seen(enum way way, CUfunction mark, CUdeviceptr page, volatile uint32_t *seen)
{
	enum { COUNT = 200 };
	static uint32_t value;
	void *params[] = { &page, &value };
	double v[COUNT];

	for (int n = 0; n < COUNT; n++) {
		double begin = now();
		value++;
		CUresult result = way == WRITE_VALUE ? p_cuStreamWriteValue32_v2(NULL, page, value, 0)
			: p_cuLaunchKernel(mark, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL);
		if (result == CUDA_SUCCESS && way == SYNCHRONIZE)
			result = p_cuStreamSynchronize(NULL);
		while (result == CUDA_SUCCESS && *seen != value)
			if (now() - begin > 5)
				result = CUDA_ERROR_TIMEOUT;
		v[n] = (now() - begin) * 1e6;
		if (result == CUDA_SUCCESS)
			result = p_cuStreamSynchronize(NULL);
		if (result != CUDA_SUCCESS) {
			SAY("%s: %d %s", way == WRITE_VALUE ? "cuStreamWriteValue32 to the page" : "a kernel's store to the page", (int)result, error(result));
			return -1;
		}
	}
	return middle(v, COUNT);
}

/* Whether who maps the page sees what the GPU wrote to it without asking the driver, and how much sooner than who asks. */
static void
ask_completion_pages(void)
{
	struct shared s;
	CUdeviceptr page;
	CUmodule module;
	CUfunction mark;
	int atomic = 0;

	OK(cuDeviceGetAttribute(&atomic, CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, device));
	SAY("host native atomics: %d", atomic);
	if (!make_shared(&s, 4096))
		return;
	OK(cuMemHostRegister_v2(s.ours, s.size, CU_MEMHOSTREGISTER_DEVICEMAP));
	OK(cuMemHostGetDevicePointer_v2(&page, s.ours, 0));
	OK(cuModuleLoadData(&module, ptx));
	OK(cuModuleGetFunction(&mark, module, "mark"));
	static const char *const names[] = { "a kernel's release store", "the same, after cuStreamSynchronize", "cuStreamWriteValue32" };
	for (int way = STORE; way <= WRITE_VALUE; way++) {
		double time = until_seen((enum way)way, mark, page, (volatile uint32_t *)s.other);
		if (time >= 0)
			SAY("%s is seen in another mapping of a registered page after %.1f us", names[way], time);
	}
}

/* ---- asking ----------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*ask)(void);
} questions[] = {
	{ "names", ask_empty_name },
	{ "tables", ask_table_sizes },
	{ "T7[39]", ask_stream_numbers },
	{ "T9[4]", ask_pair },
	{ "shared memory", ask_registering },
	{ "completion pages", ask_completion_pages },
};
#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

/* In a process of its own: loads the driver and asks. */
static int
answer(size_t n)
{
	const char *path = getenv("LIBCUDA");
	void *library = dlopen(path ? path : "libcuda.so.1", RTLD_NOW);

	if (!library) {
		SAY("%s", dlerror());
		return 1;
	}
#define X(name) \
	p_##name = (__typeof__(p_##name))dlsym(library, #name); \
	if (!p_##name) { \
		SAY("the driver has no " #name); \
		return 1; \
	}
	CALLS(X)
#undef X
	CUresult result = p_cuInit(0);
	if (result == CUDA_SUCCESS)
		result = p_cuDevicePrimaryCtxRetain(&context, device);
	if (result == CUDA_SUCCESS)
		result = p_cuCtxSetCurrent(context);
	if (result != CUDA_SUCCESS) {
		SAY("there is no context: %d %s", (int)result, error(result));
		return 1;
	}
	if (n == 0) {
		char name[128] = "";
		int version = 0;
		p_cuDeviceGetName(name, sizeof(name), device);
		p_cuDriverGetVersion(&version);
		SAY("%s, CUDA %d.%d", name, version / 1000, version % 1000 / 10);
	}
	questions[n].ask();
	return 0;
}

static bool
is_wanted(const char *name, int argc, char **argv)
{
	for (int n = 1; n < argc; n++)
		if (strcmp(argv[n], name) == 0)
			return true;
	return argc < 2;
}

int
main(int argc, char **argv)
{
	int failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t n = 0; n < QUESTIONS; n++) {
		int status = 0;
		if (!is_wanted(questions[n].name, argc, argv))
			continue;
		question = questions[n].name;
		pid_t child = fork();
		if (child == 0) {
			alarm(DEADLINE);
			int result = answer(n);
			fflush(NULL);
			_exit(result);
		}
		if (child < 0 || waitpid(child, &status, 0) < 0) {
			perror("probe");
			return 1;
		}
		if (WIFSIGNALED(status))
			SAY("no answer: %s", WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status)));
		failed += status != 0;
	}
	return failed != 0;
}
