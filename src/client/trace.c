/*
 * Traces: each call as a line while farwarp trace looks on (layers/trace.h), or on the log with FARWARP_LOG=calls.
 *
 * A call that lasts stands in the shared page, so that farwarp trace can show it while it hangs and after a crash. Nothing here takes a
 * lock that a call could hang on, and nothing runs when no trace is wanted.
 */
#include "client/trace.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "call/format.h"
#include "call/pack.h"
#include "client/record.h"
#include "client/remote.h"
#include "layers/trace.h"

#define FIRST_FD 500 /* out of the way of programs that close or count low descriptors */

static struct trace_page *page; /* NULL: only the log */
static int out_fd = -1;

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void
add(uint64_t *counter, uint64_t value)
{
	__atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
}

/* ---- names of kernels ---------------------------------------------------------------------------------------------- */

/* Names of functions and kernels by their handles, learnt from the calls that give them. */
struct name {
	struct name *next;
	uint64_t handle;
	char text[];
};
#define NAME_BUCKETS 512
static struct name *names[NAME_BUCKETS]; /* atomic heads; never freed: the newest of a handle is found first */

static struct name **
name_bucket(uint64_t handle)
{
	return &names[(handle * 0x9e3779b97f4a7c15u >> 40) % NAME_BUCKETS];
}

static const char *
find_name(uint64_t handle)
{
	for (const struct name *n = __atomic_load_n(name_bucket(handle), __ATOMIC_ACQUIRE); n; n = n->next)
		if (n->handle == handle)
			return n->text;
	return NULL;
}

static void
learn_name(uint64_t handle, const char *text)
{
	const char *known = find_name(handle);

	if (!text || (known && strcmp(known, text) == 0))
		return;
	size_t size = strlen(text) + 1;
	struct name *name = malloc(sizeof(*name) + size), **head = name_bucket(handle);
	if (!name)
		return;
	name->handle = handle;
	memcpy(name->text, text, size);
	name->next = __atomic_load_n(head, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(head, &name->next, name, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static uint64_t
argument(const struct cl_slow *slow, unsigned i)
{
	return *(const uint64_t *)slow->args[i];
}

/* What a successful call says about names. */
static void
learn_names(const struct cl_slow *slow)
{
	switch (slow->call) {
	case CALL_cuModuleGetFunction:  /* function, module, name */
	case CALL_cuLibraryGetKernel:
		learn_name(*(const uint64_t *)(uintptr_t)argument(slow, 0), (const char *)(uintptr_t)argument(slow, 2));
		break;
	case CALL_cuKernelGetFunction:  /* function, kernel */
		learn_name(*(const uint64_t *)(uintptr_t)argument(slow, 0), find_name(argument(slow, 1)));
		break;
	case CALL_cuFuncGetName:        /* name, function */
	case CALL_cuKernelGetName:
		learn_name(argument(slow, 1), *(const char *const *)(uintptr_t)argument(slow, 0));
		break;
	default:
		break;
	}
}

/* The kernel that a launch is about. Asks the device for one whose name no call told. */
static const char *
launched(const struct cl_slow *slow)
{
	unsigned at;
	const char *name = NULL;

	switch (slow->call) {
	case CALL_cuLaunchKernel:
	case CALL_cuLaunchCooperativeKernel:
		at = 0;
		break;
	case CALL_cuLaunchKernelEx:
		at = 1;
		break;
	default:
		return NULL;
	}
	CUfunction function = (CUfunction)(uintptr_t)argument(slow, at);
	if ((name = find_name((uintptr_t)function)) || !function)
		return name;
	if (cl_ops && cl_ops->cuFuncGetName && cl_ops->cuFuncGetName(&name, function) == CUDA_SUCCESS)
		learn_name((uintptr_t)function, name);
	return name;
}

/* ---- who asked ----------------------------------------------------------------------------------------------------- */

/* The file name of the library, or program, that an address lies in. */
static void
caller_name(void *address, char name[TRACE_NAME])
{
	Dl_info info;
	const char *path = dladdr(address, &info) && info.dli_fname ? info.dli_fname : "?", *slash = strrchr(path, '/');

	snprintf(name, TRACE_NAME, "%s", slash ? slash + 1 : path);
}

static struct trace_asker *
asker(void *address)
{
	char name[TRACE_NAME];

	caller_name(address, name);
	for (unsigned i = 0; i < TRACE_ASKERS; i++) {
		struct trace_asker *a = &page->askers[i];
		uint32_t used = 0;
		if (__atomic_compare_exchange_n(&a->used, &used, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
			memcpy(a->name, name, sizeof(a->name));
			__atomic_store_n(&a->used, 2, __ATOMIC_RELEASE);
			return a;
		}
		while (__atomic_load_n(&a->used, __ATOMIC_ACQUIRE) == 1)
			usleep(10); /* another thread is writing its name */
		if (strncmp(a->name, name, sizeof(a->name)) == 0)
			return a;
	}
	return NULL;
}

/* Which call an address that was handed out is. */
static int
call_of(void *address)
{
	Dl_info info;

	if (!dladdr(address, &info) || !info.dli_sname)
		return -1;
	const char *family = strstr(info.dli_sname, "_pt");
	size_t length = family ? (size_t)(family - info.dli_sname) : strlen(info.dli_sname);
	for (int c = 0; c < CALL_COUNT; c++)
		if (strncmp(call_descs[c].name, info.dli_sname, length) == 0 && !call_descs[c].name[length])
			return c;
	return -1;
}

/* A function was asked for by name. */
static void
note_function(const struct cl_slow *slow)
{
	const char *symbol = (const char *)(uintptr_t)argument(slow, 0);
	void *const *found = (void *const *)(uintptr_t)argument(slow, 1);
	struct trace_asker *a = symbol && found ? asker(slow->caller) : NULL;

	if (!a)
		return;
	__atomic_fetch_add(&a->functions, 1, __ATOMIC_RELAXED);
	if (*found) {
		int call = call_of(*found);
		if (call >= 0)
			__atomic_store_n(&page->asked[call], 1, __ATOMIC_RELAXED);
		return;
	}
	uint32_t n = __atomic_fetch_add(&a->missing, 1, __ATOMIC_RELAXED);
	if (n < TRACE_MISSING)
		snprintf(a->missed[n], sizeof(a->missed[n]), "%s", symbol);
}

static __thread const char *table_name; /* that the call being made asked for */

void
cl_trace_table(const char *name)
{
	table_name = page ? name : NULL;
}

static void
note_table(const struct cl_slow *slow)
{
	struct trace_asker *a = table_name ? asker(slow->caller) : NULL;

	for (unsigned i = 0; a && i < 32; i++) {
		char *known = page->tables[i];
		if (!known[0])
			snprintf(known, sizeof(page->tables[i]), "%s", table_name); /* two at once: one is told again, or not at all */
		if (strcmp(known, table_name) == 0) {
			__atomic_fetch_or(&a->tables, 1u << i, __ATOMIC_RELAXED);
			break;
		}
	}
}

/* ---- calls that last ----------------------------------------------------------------------------------------------- */

static struct trace_slot *
take_slot(uint32_t row, uint64_t begin, const char *text)
{
	static __thread unsigned hint;
	int32_t pid = getpid();

	for (unsigned n = 0; n < TRACE_SLOTS; n++) {
		struct trace_slot *slot = &page->slots[(hint + n) % TRACE_SLOTS];
		int32_t none = 0;
		if (__atomic_load_n(&slot->pid, __ATOMIC_RELAXED) ||
		    !__atomic_compare_exchange_n(&slot->pid, &none, pid, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		hint = (unsigned)(slot - page->slots);
		slot->tid = (int32_t)syscall(SYS_gettid);
		slot->row = row;
		snprintf(slot->text, sizeof(slot->text), "%.999s", text);
		__atomic_store_n(&slot->begin, begin, __ATOMIC_RELEASE);
		return slot;
	}
	return NULL;
}

static void
free_slot(struct trace_slot *slot)
{
	__atomic_store_n(&slot->begin, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->pid, 0, __ATOMIC_RELEASE);
}

static void
begin(struct cl_slow *slow)
{
	struct rm_traffic traffic = rm_traffic();

	slow->awaited = traffic.awaited;
	slow->sent = traffic.sent;
	slow->received = traffic.received;
	slow->begin = now_ns();
	slow->slot = take_slot(slow->row, slow->begin, page->json ? "" : slow->text);
}

static void
count(const struct cl_slow *slow, uint64_t took, bool failed)
{
	struct trace_count *c = &page->rows[slow->row];
	struct rm_traffic traffic = rm_traffic();
	uint64_t longest = __atomic_load_n(&c->max_ns, __ATOMIC_RELAXED);

	add(&c->calls, 1);
	add(&c->errors, failed);
	add(&c->waits, traffic.awaited != slow->awaited);
	add(&c->awaited, traffic.awaited - slow->awaited);
	add(&c->sent, traffic.sent - slow->sent);
	add(&c->received, traffic.received - slow->received);
	add(&c->ns, took);
	while (took > longest && !__atomic_compare_exchange_n(&c->max_ns, &longest, took, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

static void
put_time(char text[40], uint64_t begin_ns)
{
	uint64_t us = (begin_ns - page->start) / 1000;
	struct timespec wall;
	struct tm local;

	if (page->time == TRACE_TIME_DELTA)
		us = (begin_ns - __atomic_exchange_n(&page->last, begin_ns, __ATOMIC_RELAXED)) / 1000;
	if (page->time != TRACE_TIME_CLOCK) {
		snprintf(text, 40, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &wall);
	uint64_t then = (uint64_t)wall.tv_sec * 1000000u + (uint64_t)wall.tv_nsec / 1000 - (now_ns() - begin_ns) / 1000;
	time_t seconds = (time_t)(then / 1000000);
	localtime_r(&seconds, &local);
	snprintf(text, 40, "%02d:%02d:%02d.%06u", local.tm_hour, local.tm_min, local.tm_sec, (unsigned)(then % 1000000));
}

/* The line of a call that has returned. `result` is an error's name or a number. */
static void
write_line(const struct cl_slow *slow, const char *result, bool result_is_name, const char *outputs, uint64_t took)
{
	char line[TRACE_LINE], time[40], caller[TRACE_NAME] = "", waited[64] = "";
	uint64_t awaited = rm_traffic().awaited - slow->awaited;
	bool asks = slow->call == CALL_cuGetProcAddress || slow->call == CALL_cuGetProcAddress_v2 || slow->call == CALL_cuGetExportTable;
	long tid = syscall(SYS_gettid);
	int length;

	put_time(time, slow->begin);
	if (page->callers || asks)
		caller_name(slow->caller, caller);
	if (page->json) {
		char name[128];
		const char *quote = result_is_name ? "\"" : "", *clock = page->time == TRACE_TIME_CLOCK ? "\"" : "";
		call_format_json_string(name, sizeof(name), slow->symbol);
		length = snprintf(line, sizeof(line), "{\"time\":%s%s%s,\"pid\":%d,\"tid\":%ld,\"call\":%s,\"in\":{%s},\"result\":%s%s%s,\"out\":{%s},"
		                  "\"us\":%" PRIu64 ".%03" PRIu64 ",\"awaited\":%" PRIu64, clock, time, clock, getpid(), tid, name, slow->text, quote,
		                  result, quote, outputs, took / 1000, took % 1000, awaited);
		if (caller[0] && length < (int)sizeof(line)) {
			call_format_json_string(name, sizeof(name), caller);
			length += snprintf(line + length, sizeof(line) - (size_t)length, ",\"caller\":%s", name);
		}
		if (length < (int)sizeof(line))
			length += snprintf(line + length, sizeof(line) - (size_t)length, "}\n");
		if (length >= (int)sizeof(line)) /* without its arguments, it is JSON again */
			length = snprintf(line, sizeof(line), "{\"time\":%s%s%s,\"pid\":%d,\"tid\":%ld,\"call\":\"%.80s\",\"result\":%s%s%s,\"cut\":true}\n",
			                  clock, time, clock, getpid(), tid, slow->symbol, quote, result, quote);
	} else {
		if (awaited)
			snprintf(waited, sizeof(waited), awaited == 1 ? " awaited" : " awaited %" PRIu64, awaited);
		length = snprintf(line, sizeof(line), "%s [%ld] %s(%s) = %s%s%s%s <%" PRIu64 ".%03" PRIu64 " us>%s%s%s\n", time, tid, slow->symbol,
		                  slow->text, result, outputs[0] ? " {" : "", outputs, outputs[0] ? "}" : "", took / 1000, took % 1000, waited,
		                  caller[0] ? " <- " : "", caller);
		if (length >= (int)sizeof(line)) {
			length = sizeof(line) - 1;
			line[length - 1] = '\n';
		}
	}
	if (write(out_fd, line, (size_t)length) < 0)
		fw_warn_once("trace", "lines cannot be written: %m");
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

static void
put_inputs(struct cl_slow *slow, enum call_style style)
{
	const char *kernel = launched(slow);
	size_t used = 0;

	if (kernel && style == CALL_TEXT) {
		used = (size_t)snprintf(slow->text, CL_SLOW_TEXT / 2, "kernel %s, ", kernel);
	} else if (kernel) {
		used = (size_t)snprintf(slow->text, CL_SLOW_TEXT, "\"kernel\":");
		used += call_format_json_string(slow->text + used, CL_SLOW_TEXT / 2, kernel);
		used += (size_t)snprintf(slow->text + used, CL_SLOW_TEXT - used, ",");
	}
	if (used >= CL_SLOW_TEXT / 2 && style == CALL_TEXT)
		used = CL_SLOW_TEXT / 2 - 1;
	used += call_format_inputs(slow->text + used, CL_SLOW_TEXT - used, style, slow->call, slow->args);
	if (style == CALL_JSON && used >= CL_SLOW_TEXT - 1)
		snprintf(slow->text, CL_SLOW_TEXT, "\"cut\":true");
}

void
cl_trace_begin(struct cl_slow *slow)
{
	slow->text[0] = 0;
	slow->slot = NULL;
	slow->shown = !page || (page->shown[slow->call] && page->lines);
	table_name = NULL;
	if (slow->shown)
		put_inputs(slow, page && page->json ? CALL_JSON : CALL_TEXT);
	slow->row = slow->call;
	slow->recording = cl_record_on() ? cl_record_begin(slow) : NULL;
	if (page)
		begin(slow);
	else
		slow->begin = now_ns();
}

static void
log_call(const struct cl_slow *slow, const char *result, const char *outputs, uint64_t took)
{
	fw_log_write(FW_LOG_CALLS, "call", "%ld %s(%.1000s) = %s%s%.600s%s %" PRIu64 ".%03" PRIu64 " us", syscall(SYS_gettid), slow->symbol, slow->text,
	             result, outputs[0] ? " {" : "", outputs, outputs[0] ? "}" : "", took / 1000, took % 1000);
}

void
cl_trace_end(struct cl_slow *slow, CUresult result)
{
	uint64_t took = now_ns() - slow->begin;
	char outputs[1200] = "";
	const char *name = call_error_name((int)result);

	if (slow->slot)
		free_slot(slow->slot);
	if (slow->shown && result == CUDA_SUCCESS) {
		enum call_style style = page && page->json ? CALL_JSON : CALL_TEXT;
		if (call_format_outputs(outputs, sizeof(outputs), style, slow->call, slow->args) >= sizeof(outputs) - 1 && style == CALL_JSON)
			snprintf(outputs, sizeof(outputs), "\"cut\":true");
	}
	if (slow->shown && table_name && result == CUDA_SUCCESS) {
		size_t used = strlen(outputs);
		snprintf(outputs + used, sizeof(outputs) - used, page->json ? ",\"table\":\"%s\"" : ", table \"%s\"", table_name);
	}
	if (fw_log_on(FW_LOG_CALLS) && slow->shown && !(page && page->json))
		log_call(slow, name ? name : "?", outputs, took);
	if (!page)
		return;
	add(&page->all_calls, 1);
	if (page->shown[slow->call])
		count(slow, took, result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY);
	__atomic_store_n(&page->last_row, (uint32_t)slow->call + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&page->last_end, slow->begin + took, __ATOMIC_RELAXED);
	if (result == CUDA_SUCCESS)
		learn_names(slow);
	if (slow->call == CALL_cuGetProcAddress || slow->call == CALL_cuGetProcAddress_v2)
		note_function(slow);
	if (slow->call == CALL_cuGetExportTable)
		note_table(slow);
	if (slow->shown)
		write_line(slow, name ? name : "?", true, outputs, took);
	if (slow->recording)
		cl_record_end(slow->recording, slow, result);
}

void
cl_trace_private_begin(struct cl_slow *slow, unsigned number, const char *name, void *caller, unsigned arguments, const uint64_t *values)
{
	size_t used = 0;

	slow->call = CALL_COUNT;
	slow->symbol = name;
	slow->caller = caller;
	slow->row = CALL_COUNT + number % TRACE_PRIVATE;
	slow->slot = NULL;
	slow->text[0] = 0;
	if (!page)
		return;
	slow->traced = page->shown[slow->row];
	slow->shown = slow->traced && page->lines;
	for (unsigned i = 0; slow->shown && i < arguments; i++) {
		if (page->json)
			used += (size_t)snprintf(slow->text + used, CL_SLOW_TEXT - used, "%s\"%u\":\"0x%" PRIx64 "\"", i ? "," : "", i, values[i]);
		else
			used += (size_t)snprintf(slow->text + used, CL_SLOW_TEXT - used, "%s0x%" PRIx64, i ? ", " : "", values[i]);
	}
	if (!page->private_names[slow->row - CALL_COUNT][0])
		snprintf(page->private_names[slow->row - CALL_COUNT], TRACE_NAME, "%s", name);
	begin(slow);
}

void
cl_trace_private_end(struct cl_slow *slow, uint64_t result)
{
	char text[24];

	if (!page)
		return;
	uint64_t took = now_ns() - slow->begin;
	if (slow->slot)
		free_slot(slow->slot);
	add(&page->all_calls, 1);
	if (slow->traced)
		count(slow, took, false);
	snprintf(text, sizeof(text), "%" PRId32, (int32_t)result);
	if (slow->shown)
		write_line(slow, text, false, "", took);
}

/* ---- whether ------------------------------------------------------------------------------------------------------- */

/* Opens again what farwarp trace has open. If that cannot be (a socket): standard error, for lines, else -1. */
static int
open_tracers(int fd, bool lines)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", page->tracer, fd);
	int own = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (own < 0 && !lines)
		return -1;
	int high = fcntl(own >= 0 ? own : STDERR_FILENO, F_DUPFD_CLOEXEC, FIRST_FD);
	if (high < 0) /* a low limit of descriptors */
		return own >= 0 ? own : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (own >= 0)
		close(own);
	return high;
}

static bool
attach(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0 || st.st_size != sizeof(struct trace_page)) {
		fw_error("trace", "FARWARP_TRACE=%.60s is not what farwarp trace sets: no trace of this process", path);
		if (fd >= 0)
			close(fd);
		return false;
	}
	struct trace_page *found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (found == MAP_FAILED)
		return false;
	if (memcmp(found->magic, TRACE_MAGIC, sizeof(TRACE_MAGIC)) != 0 || found->bytes != sizeof(*found) || found->hash != call_protocol_hash()) {
		fw_error("trace", "farwarp trace and libcuda.so.1 are of different versions: no trace of this process");
		munmap(found, sizeof(*found));
		return false;
	}
	page = found;
	out_fd = open_tracers(page->out_fd, true);
	__atomic_fetch_add(&page->processes, 1, __ATOMIC_RELAXED);
	if (page->record_fd >= 0)
		cl_record_open(open_tracers(page->record_fd, false), page);
	return true;
}

bool
cl_trace_wanted(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool decided, wanted;
	const char *path = getenv("FARWARP_TRACE");

	pthread_mutex_lock(&lock);
	if (!decided) {
		wanted = path && *path && attach(path);
		wanted |= fw_log_on(FW_LOG_CALLS);
		decided = true;
	}
	pthread_mutex_unlock(&lock);
	return wanted;
}
