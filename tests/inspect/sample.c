/* A small library with all that farwarp inspect's ELF reader knows: versions needed and defined, RUNPATH, a fat binary. Tests cut it at every byte. */
extern int versioned(void) __attribute__((weak));
int sample_call(void);
const char *sample_other(void);

int
sample_call(void)
{
	return versioned ? versioned() : 0;
}

const char *
sample_other(void)
{
	return "libcuda.so.1";
}

/* One fat binary: PTX 8.4 for compute_80 and machine code for sm_90a, as tests/image/build.h describes them. */
__asm__(".section .nv_fatbin,\"a\"\n.p2align 3\n"
        ".long 0xba55ed50\n.short 1, 16\n.quad 160\n"
        ".short 1, 0x101\n.long 64\n.quad 24\n.long 0, 0\n.short 4, 8\n.long 80, 0, 0\n.quad 0x11, 0, 0\n.ascii \".version 8.4 .target sm_\"\n"
        ".short 2, 0x101\n.long 64\n.quad 8\n.long 0, 0\n.short 1, 8\n.long 90, 0, 0\n.quad 0x100011, 0, 0\n.quad 0\n.text\n");
