/*
 * JIT options of cuModuleLoadDataEx, cuLibraryLoadData and cuLink*: the log buffers, the target, outputs that are written back.
 * Options that steer an optimiser are checked and otherwise without meaning here; nothing is said about them.
 */
#include "soft/device/module.h"

#include <stdio.h>
#include <string.h>

static void
say(struct sw_jit_log *log, const char *line)
{
	if (!log->text || log->used + 1 >= log->room)
		return;
	size_t room = log->room - log->used;
	int length = snprintf(log->text + log->used, room, "%s\n", line);
	log->used += (size_t)length < room ? (size_t)length : room - 1;
}

/*
 * A library that has nothing for the device asks again with each kernel: one line is enough. True for a text that was said
 * before; of more texts than fit, the rest are said each time.
 */
static bool
said_before(const char *line)
{
	static uint64_t said[64]; /* hashes, atomic; 0 is free */
	uint64_t hash = 0xcbf29ce484222325;

	for (; *line; line++)
		hash = (hash ^ (unsigned char)*line) * 0x100000001b3;
	hash |= 1;
	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
		uint64_t seen = 0;
		if (__atomic_compare_exchange_n(&said[i], &seen, hash, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return false;
		if (seen == hash)
			return true;
	}
	return false;
}

void
sw_jit_error(struct sw_jit *jit, const char *format, ...)
{
	char line[640];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fw_log(said_before(line) ? FW_LOG_DEBUG : FW_LOG_WARN, "module", "%s", line);
	say(&jit->error, line);
}

void
sw_jit_info(struct sw_jit *jit, const char *format, ...)
{
	char line[640];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fw_debug("module", "%s", line);
	say(&jit->info, line);
}

static void
log_buffer(struct sw_jit_log *log, void *text)
{
	log->text = text;
	log->used = 0;
	if (text && log->room)
		log->text[0] = 0;
}

static void
log_room(struct sw_jit_log *log, void **value)
{
	log->room = (uint32_t)(uintptr_t)*value;
	log->size = value;
	if (log->text && log->room)
		log->text[0] = 0;
}

static CUresult
target_option(struct sw_jit *jit, uint32_t value)
{
	uint32_t arch = value & 0xffff;

	if (arch < 30 || arch > 130)
		return CUDA_ERROR_INVALID_VALUE;
	jit->target = arch;
	return CUDA_SUCCESS;
}

static CUresult
one_option(struct sw_jit *jit, CUjit_option option, void **value)
{
	switch ((int)option) {
	case CU_JIT_INFO_LOG_BUFFER:
		log_buffer(&jit->info, *value);
		break;
	case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
		log_room(&jit->info, value);
		break;
	case CU_JIT_ERROR_LOG_BUFFER:
		log_buffer(&jit->error, *value);
		break;
	case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
		log_room(&jit->error, value);
		break;
	case CU_JIT_WALL_TIME:
		jit->wall_time = value;
		break;
	case CU_JIT_THREADS_PER_BLOCK: /* out: what was compiled for; our code runs with any block up to that */
		jit->threads = value;
		break;
	case CU_JIT_LOG_VERBOSE:
		jit->verbose = *value != NULL;
		break;
	case CU_JIT_TARGET_FROM_CUCONTEXT:
		jit->target = sw_device.cc;
		break;
	case CU_JIT_TARGET:
		return target_option(jit, (uint32_t)(uintptr_t)*value);
	case CU_JIT_OPTIMIZATION_LEVEL:
		return (uintptr_t)*value > 4 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	case CU_JIT_GLOBAL_SYMBOL_COUNT:
		if (*value) {
			fw_warn_once("module", "CU_JIT_GLOBAL_SYMBOL_NAMES is not served");
			return CUDA_ERROR_NOT_SUPPORTED;
		}
		break;
	default:
		if ((int)option < 0 || option >= CU_JIT_NUM_OPTIONS)
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_jit_options(struct sw_jit *jit, unsigned count, const CUjit_option *options, void **values)
{
	if (count && (!options || !values))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++) {
		CUresult result = one_option(jit, options[i], &values[i]);
		if (result != CUDA_SUCCESS)
			return result;
	}
	return CUDA_SUCCESS;
}

CUresult
sw_jit_open(struct sw_jit *jit, unsigned count, const CUjit_option *options, void **values)
{
	*jit = (struct sw_jit){ .target = sw_device.cc, .start_ns = sw_now_ns() };
	return sw_jit_options(jit, count, options, values);
}

void
sw_jit_close(struct sw_jit *jit)
{
	float ms = (float)(sw_now_ns() - jit->start_ns) / 1e6f;
	uint32_t threads = SW_MAX_THREADS_PER_BLOCK;

	if (jit->info.size)
		*jit->info.size = (void *)(uintptr_t)jit->info.used;
	if (jit->error.size)
		*jit->error.size = (void *)(uintptr_t)jit->error.used;
	if (jit->wall_time)
		memcpy(jit->wall_time, &ms, sizeof(ms));
	if (jit->threads)
		memcpy(jit->threads, &threads, sizeof(threads));
}
