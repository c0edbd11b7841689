/*
 * The device of a worker: the software GPU or the machine's driver, opened as the server's options and the client's environment say.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call/format.h"
#include "layers/quota.h"
#include "native/native.h"
#include "server/server.h"
#include "soft/soft.h"

#define DEVICES_MAX 64

/* ---- which of the machine's devices ------------------------------------------------------------------------------------- */

/* The next word of a list separated by commas, without blanks around it; false at its end. */
static bool
next_word(const char **list, const char **word, size_t *length)
{
	if (!*list)
		return false;
	*word = *list + strspn(*list, " \t");
	*length = strcspn(*word, ",");
	*list = (*word)[*length] ? *word + *length + 1 : NULL;
	while (*length && strchr(" \t", (*word)[*length - 1]))
		--*length;
	return true;
}

/* The word of `allowed` that `word` means: its place there, or its own name, which may be cut short. NULL: none. */
static const char *
find_allowed(const char *allowed, const char *word, size_t length, size_t *found_length)
{
	const char *rest = allowed, *found;
	char *end;
	unsigned long place = strtoul(word, &end, 10), n = 0;
	bool is_place = length && word[0] >= '0' && word[0] <= '9' && end == word + length;

	while (next_word(&rest, &found, found_length)) {
		if (is_place ? n == place : length >= 5 && length <= *found_length && strncasecmp(found, word, length) == 0)
			return found;
		n++;
	}
	return NULL;
}

bool
sv_device_list(const char *allowed, const char *wanted, char *list, size_t size)
{
	const char *rest = wanted, *word, *found;
	size_t length, found_length, used = 0;

	if (!allowed || !wanted) {
		snprintf(list, size, "%s", allowed ? allowed : wanted ? wanted : "");
		return allowed || wanted;
	}
	list[0] = 0;
	while (next_word(&rest, &word, &length)) {
		found = find_allowed(allowed, word, length, &found_length);
		if (!found || used + found_length + 2 > size)
			break; /* as in CUDA: the first word that names no device ends the list */
		if (used)
			list[used++] = ',';
		memcpy(list + used, found, found_length);
		used += found_length;
		list[used] = 0;
	}
	if (!used)
		snprintf(list, size, "-1"); /* none: an empty value would say the same, but reads as if it were unset */
	return true;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------- */

static CUresult
open_native(const struct sv_options *options, const struct session_hello *hello, struct session_welcome *welcome, const struct cuda_ops **ops)
{
	char list[2 * SESSION_VISIBLE_MAX], why[NV_WHY];

	if (sv_device_list(options->devices, hello->flags & SESSION_HELLO_VISIBLE ? hello->visible : NULL, list, sizeof(list)))
		setenv("CUDA_VISIBLE_DEVICES", list, 1);
	else
		unsetenv("CUDA_VISIBLE_DEVICES"); /* the server's own was taken for its option */
	CUresult result = nv_open(ops, why);
	snprintf(welcome->text, sizeof(welcome->text), "%s", why);
	welcome->flags |= SESSION_WELCOME_CHOSEN;
	return result;
}

static bool has_far;

bool
sv_reaches_far(void)
{
	return has_far;
}

void *
sv_device_bytes(uint64_t address, uint64_t size)
{
	return has_far ? sw_device_bytes(address, size) : NULL;
}

static CUresult
open_soft(const struct session_hello *hello, struct session_welcome *welcome, const struct cuda_ops **ops)
{
	struct sw_config config = { .cc = 86 };

	sv_space_choose(hello->spaces, &config.space_base, &config.space_size);
	CUresult result = sw_settings(&config) ? sw_open(&config, ops) : CUDA_ERROR_INVALID_VALUE;

	has_far = result == CUDA_SUCCESS;
	if (has_far)
		sw_far_install(&sv_far);
	if (result == CUDA_SUCCESS && config.space_size)
		sv_space_opened(&welcome->space);
	if (result == CUDA_SUCCESS)
		snprintf(welcome->text, sizeof(welcome->text), "software GPU, compute capability %u.%u", config.cc / 10, config.cc % 10);
	else
		snprintf(welcome->text, sizeof(welcome->text), "the software GPU does not open: %s", call_error_text(result));
	return result;
}

CUresult
sv_device_open(const struct sv_options *options, const struct session_hello *hello, struct session_welcome *welcome,
               const struct cuda_ops **ops)
{
	bool native = options->backend == SV_BACKEND_NATIVE;

	if (hello->flags & SESSION_HELLO_BLOCKING)
		setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
	if (hello->flags & SESSION_HELLO_EAGER)
		setenv("CUDA_MODULE_LOADING", "EAGER", 1);
	if (hello->flags & SESSION_HELLO_NO_JIT)
		setenv("CUDA_DISABLE_PTX_JIT", "1", 1);
	if (!sv_output_begin(native)) {
		snprintf(welcome->text, sizeof(welcome->text), "the server is out of memory or descriptors");
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (native)
		sv_addresses_keep(hello->used);
	CUresult result = native ? open_native(options, hello, welcome, ops) : open_soft(hello, welcome, ops);
	if (!native) /* which lies where the client has nothing */
		sv_addresses_keep(hello->used);
	if (result == CUDA_SUCCESS && !welcome->space.size)
		*ops = sv_managed_watch(*ops);
	if (result == CUDA_SUCCESS && native)
		*ops = sv_stage_watch(*ops);
	if (result == CUDA_SUCCESS && options->memory)
		*ops = quota_open(*ops, options->memory);
	return result;
}
