/* Bytes as a library or program of the host: what the loader would see of it, and its kernels. */
#include "elf/kernels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct in_device device = { .cc = 90, .max_ptx = 84 };
	struct in_source source = in_source_memory(data, size);
	struct in_kernels kernels;
	struct in_error error;
	struct in_elf elf;

	if (!in_elf_read(&elf, &source, &error))
		return 0;
	in_kernels_read(&kernels, &elf, &source, &device);
	if (kernels.native + kernels.jit + kernels.too_new + kernels.uncovered != kernels.modules)
		__builtin_trap();
	in_elf_free(&elf);
	return 0;
}
