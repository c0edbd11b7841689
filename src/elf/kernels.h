/* What the fat binaries of a file hold, and whether a device can run it. */
#ifndef IN_KERNELS_H
#define IN_KERNELS_H

#include "elf/elf_file.h"

#define IN_MAX_ARCHS 64

struct in_device {
	uint32_t cc;      /* 90; 0: not known */
	uint32_t max_ptx; /* newest PTX ISA that the driver compiles, 84 for 8.4; 0: not known */
};

struct in_arch {
	uint32_t arch;    /* 90 */
	char suffix;      /* 'a', 'f' or 0 */
	bool ptx;         /* else machine code */
	uint32_t oldest, newest; /* PTX: ISA versions */
	uint32_t count;
	uint64_t packed, size; /* bytes in the file and decompressed */
	uint32_t raw, lz4, zstd; /* entries by compression */
};

struct in_kernels {
	uint32_t modules;     /* fat binaries that a program loads */
	uint32_t relocatable; /* more of them, input of the device linker only */
	uint32_t empty;       /* others, without anything in them (told apart only where they would not fit the device) */
	uint32_t embedded;    /* of the modules: found in data, where a library keeps those that it loads by itself */
	uint32_t other;       /* entries that are neither PTX nor machine code */
	struct in_arch archs[IN_MAX_ARCHS]; /* machine code first, by number */
	size_t arch_count;
	bool archs_full;
	/* With a device: how many modules have machine code for it, else PTX that its driver compiles, else neither. */
	uint32_t native, jit, too_new, uncovered;
	uint32_t newest_ptx;  /* of the PTX that is too new, or that jit modules need */
	char toolkit[32];     /* "12.4", of the compiler; "" if not seen */
	struct in_error damage; /* "" : none */
};

/* Reads entry headers, not kernels: a few KB of each module. What is damaged is told in *kernels and ends the reading. */
void in_kernels_read(struct in_kernels *kernels, const struct in_elf *elf, struct in_source *source, const struct in_device *device);

/* May machine code for an architecture run on a device? CUDA C++ programming guide, "Binary Compatibility" and the suffixes. */
bool in_machine_code_fits(uint32_t arch, char suffix, uint32_t cc);
/* The CUDA version whose drivers are the first to compile a PTX ISA, as 10 * major + minor (124 for 12.4); 0: unknown. And back; IN_ANY_PTX for a
 * CUDA that is newer than this table. */
#define IN_ANY_PTX 9999
uint32_t in_cuda_of_ptx(uint32_t isa);
uint32_t in_ptx_of_cuda(uint32_t cuda);

#endif
