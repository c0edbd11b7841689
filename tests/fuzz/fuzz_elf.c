/* Bytes as a cubin: sections, symbols, parameter layouts, and as a linked image of our own. */
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_elf elf;
	struct img_error error;
	struct img_section section;
	struct img_symbol symbol;
	struct img_param params[8];
	struct img_sources sources;
	uint32_t total;

	if (img_elf_open(&elf, data, size, &error))
		return 0;
	for (uint32_t i = 0; i < elf.section_count; i++)
		img_elf_section(&elf, i, &section);
	for (uint32_t i = 0; i < img_elf_symbol_count(&elf) && i < 64; i++)
		if (!img_elf_symbol(&elf, i, &symbol) && symbol.kind == IMG_SYMBOL_KERNEL)
			img_elf_params(&elf, symbol.name, params, 8, &total);
	if (img_linked_read(&elf, &sources, &error) > 0)
		img_sources_free(&sources);
	return 0;
}
