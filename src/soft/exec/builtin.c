/*
 * Device functions that PTX text only declares and the driver provides: vprintf, malloc, free, __assertfail,
 * cudaGraphSetConditional. memcpy and memset in kernels are ordinary PTX and not here. Part of isa_core.c.
 */
#ifndef SX_BUILTIN_C
#define SX_BUILTIN_C

#include <stdio.h>
#include <stdlib.h>

#include "soft/exec/isa.h"
#include "soft/exec/print.h"

/* int vprintf(const char *format, void *args) */
static const struct sx_insn *
sx_builtin_vprintf(struct sx_warp *w, const struct sx_insn *i, const uint64_t *const *args, uint64_t *result)
{
	for (uint32_t lanes = w->exec; lanes; lanes &= lanes - 1) {
		unsigned l = (unsigned)__builtin_ctz(lanes);
		struct sx_text text = { 0 };
		int count = sx_print(&text, args[0][l], args[1][l]);
		uint64_t bad = text.bad;
		if (!bad && text.used)
			sw_output_append(text.data, text.used);
		free(text.data);
		if (bad)
			return sx_raise(w, i, CUDA_ERROR_ILLEGAL_ADDRESS, l, bad, "vprintf reads invalid memory at 0x%llx",
			                (unsigned long long)bad);
		if (result)
			result[l] = (uint32_t)count;
	}
	return i + 1;
}

/* void *malloc(size_t size) */
static const struct sx_insn *
sx_builtin_malloc(struct sx_warp *w, const struct sx_insn *i, const uint64_t *const *args, uint64_t *result)
{
	for (uint32_t lanes = w->exec; lanes; lanes &= lanes - 1) {
		unsigned l = (unsigned)__builtin_ctz(lanes);
		uint64_t memory = (uint64_t)(uintptr_t)sw_heap_alloc(args[0][l]);
		if (result)
			result[l] = memory;
		else if (memory)
			sw_heap_free((void *)(uintptr_t)memory);
	}
	return i + 1;
}

/* void free(void *memory) */
static const struct sx_insn *
sx_builtin_free(struct sx_warp *w, const struct sx_insn *i, const uint64_t *const *args, uint64_t *result)
{
	for (uint32_t lanes = w->exec; lanes; lanes &= lanes - 1) {
		unsigned l = (unsigned)__builtin_ctz(lanes);
		uint64_t memory = args[0][l];
		if (memory && !sw_heap_free((void *)(uintptr_t)memory))
			return sx_raise(w, i, CUDA_ERROR_LAUNCH_FAILED, l, memory, "free of 0x%llx, which malloc did not return or which "
			                "was freed before", (unsigned long long)memory);
	}
	return i + 1;
}

/* void __assertfail(const char *message, const char *file, unsigned line, const char *function, size_t char_size) */
static const struct sx_insn *
sx_builtin_assertfail(struct sx_warp *w, const struct sx_insn *i, const uint64_t *const *args, uint64_t *result)
{
	const struct sx_block_view *view = sx_view(w);
	char message[512], file[512], function[512];

	for (uint32_t lanes = w->exec; lanes; lanes &= lanes - 1) {
		unsigned l = (unsigned)__builtin_ctz(lanes);
		sx_device_string(args[0][l], message, sizeof message);
		sx_device_string(args[1][l], file, sizeof file);
		sx_device_string(args[3][l], function, sizeof function);
		fprintf(stderr, "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n", file,
		        (unsigned)args[2][l], function, view->ctaid[0], view->ctaid[1], view->ctaid[2], w->tid[0][l], w->tid[1][l],
		        w->tid[2][l], message);
	}
	return sx_raise(w, i, CUDA_ERROR_ASSERT, (unsigned)__builtin_ctz(w->exec), 0, "assertion failed");
}

/* void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value) */
static const struct sx_insn *
sx_builtin_set_conditional(struct sx_warp *w, const struct sx_insn *i, const uint64_t *const *args, uint64_t *result)
{
	for (uint32_t lanes = w->exec; lanes; lanes &= lanes - 1) {
		unsigned l = (unsigned)__builtin_ctz(lanes);
		if (!sw_conditional_set)
			return sx_raise(w, i, CUDA_ERROR_NOT_SUPPORTED, l, 0, "this device has no conditional graph nodes");
		sw_conditional_set(args[0][l], (uint32_t)args[1][l]);
	}
	return i + 1;
}

const struct sx_builtin *
sx_builtins(void)
{
	static const struct sx_builtin table[] = {
		{ "__assertfail", 5, sx_builtin_assertfail },
		{ "cudaGraphSetConditional", 2, sx_builtin_set_conditional },
		{ "free", 1, sx_builtin_free },
		{ "malloc", 1, sx_builtin_malloc },
		{ "vprintf", 2, sx_builtin_vprintf },
		{ NULL, 0, NULL },
	};
	return table;
}

#endif
