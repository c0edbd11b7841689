/*
 * PTX text through the whole interpreter: parsed, linked, decoded, and every kernel that can be decoded run with one small block for a
 * moment. Nothing may crash: the text is foreign, and so is what the kernel does.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "soft/exec/exec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KERNELS 4
#define YIELDS 2 /* of 200 us: then it is cancelled */

static void
run(struct sx_func *func, struct sx_worker *worker)
{
	static const uint64_t params[64];
	const struct sx_func_info *info = sx_func_info(func);
	struct sx_launch launch = { .func = func, .grid = { 2, 1, 1 }, .block = { 40, 1, 1 }, .cluster = { 1, 1, 1 }, .dynamic_shared = 256,
		.params = params, .param_bytes = sizeof(params), .stack_bytes = 1024, .max_resident = 4 };
	struct ptx_error error;
	unsigned yields = 0;

	if (info->static_shared > 1 << 16 || sx_func_prepare(func, &error))
		return;
	struct sx_grid *grid = sx_grid_new(&launch);
	if (!grid)
		return;
	for (;;) {
		enum sx_progress progress = sx_grid_work(grid, worker, 200);
		if (progress == SX_FINISHED)
			break;
		if (progress == SX_NO_WORK)
			abort(); /* one thread: it must end here */
		if (++yields >= YIELDS)
			sx_grid_cancel(grid);
	}
	const struct sx_fault *fault = sx_grid_fault(grid);
	if (fault && strstr(fault->text, ": signal "))
		abort(); /* an access that was not checked: all of the device's range is mapped */
	sx_grid_free(grid);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sx_target target = { .cc = 90, .sm_count = 4, .max_shared_block = 99 << 10 };
	struct ptx_error error;
	struct ptx_module *module = ptx_parse((const char *)data, size, &error);
	struct sx_image *image = module ? sx_image_link(&module, 1, &target, &error) : NULL;
	struct sx_worker *worker = image ? sx_worker_new() : NULL;

	for (size_t n = 0; worker && n < sx_image_kernel_count(image) && n < KERNELS; n++)
		run(sx_image_kernel(image, n), worker);
	sx_worker_free(worker);
	sx_image_free(image);
	return 0;
}
