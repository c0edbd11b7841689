/*
 * Modules, libraries, kernels, functions and the JIT linker: what the files module.c, library.c, function.c, link.c and jit.c share,
 * and the calls that they serve. launch.c and the others need only struct sw_function (device.h).
 *
 * A module belongs to a context. A library belongs to none; each context that uses it gets a module of its own, made from the
 * library's texts at first use. Locks, outermost first: a library's, a module's, a context's own.
 */
#ifndef SW_MODULE_H
#define SW_MODULE_H

#include <stdarg.h>

#include "cuda_ops.h"
#include "image/image.h"
#include "soft/device/device.h"

#define SW_MAX_PTX 99 /* any PTX ISA 9.x: libraries of today hold 9.4, and an instruction that is not known is refused where it is used */

/* ---- JIT options (jit.c) ------------------------------------------------------------------------------------------ */

struct sw_jit_log {
	char *text;  /* the caller's buffer, or NULL */
	size_t room, used;
	void **size; /* where the length is written back, or NULL */
};

struct sw_jit {
	struct sw_jit_log info, error;
	void **wall_time, **threads; /* slots of outputs, or NULL */
	uint32_t target;             /* CU_JIT_TARGET as 86; the device's capability by default */
	bool verbose;
	uint64_t start_ns;
};

/* Reads the options. The buffers in them are used until sw_jit_close. */
CUresult sw_jit_open(struct sw_jit *jit, unsigned count, const CUjit_option *options, void **values);
/* The same later, for the options of a further step: only what they set changes. */
CUresult sw_jit_options(struct sw_jit *jit, unsigned count, const CUjit_option *options, void **values);
/* One line for the caller's error log, and for ours. */
void sw_jit_error(struct sw_jit *jit, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sw_jit_info(struct sw_jit *jit, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sw_jit_close(struct sw_jit *jit); /* writes lengths and times back */

/* ---- images (module.c) --------------------------------------------------------------------------------------------- */

/* What is to be run from an image of any kind; logs why there is nothing. */
CUresult sw_sources_choose(const void *image, size_t size, struct sw_jit *jit, struct img_sources *sources);
/* A file's bytes, to be freed. CUDA_ERROR_FILE_NOT_FOUND. */
CUresult sw_file_read(const char *path, void **data, size_t *size);
/* Parses one text; `name` is said in messages. */
CUresult sw_source_parse(const struct img_entry *entry, const char *name, struct sw_jit *jit, struct ptx_module **out);
/* Whether the modules call functions of the device runtime that are given as PTX text, and that text's module; NULL: out of memory. */
bool sw_devrt_needed(struct ptx_module *const *modules, size_t count);
struct ptx_module *sw_devrt_parse(struct ptx_error *error);
/* The variable of a module that lies at an address of the module's memory; NULL: none. */
const struct sx_var *sw_variable_at(const struct sw_alloc *alloc, uint64_t address);
/* An image, which several modules may use, and where its kernels are by name. */
struct sw_shared_image {
	struct sx_image *image;
	uint32_t references; /* atomic */
	uint32_t *slots;     /* open hash: index of a kernel plus 1 */
	size_t slot_mask;
};
/* With one reference; takes the image over, also on failure (NULL: out of memory). */
struct sw_shared_image *sw_shared_image_new(struct sx_image *image);
void sw_shared_image_unref(struct sw_shared_image *shared);
/* The index of a kernel, or -1. */
long sw_shared_image_find(const struct sw_shared_image *shared, const char *name);
/* Parses and links all texts; a new image with one reference. */
CUresult sw_image_build(const struct img_sources *sources, struct sw_jit *jit, struct sw_shared_image **out);

struct sw_module {
	struct sw_child child;
	CUmodule handle;
	struct sw_context *ctx;
	struct sw_library *library;    /* NULL: loaded by cuModuleLoad and its kin */
	struct sw_module *next;        /* of the same library, in other contexts */
	struct sw_shared_image *image;
	pthread_mutex_t lock;          /* guards functions */
	struct sw_module_function **functions; /* by index of the kernel, NULL until asked for */
	size_t function_count;
};

/* Makes a module of an image that was built; takes the reference over, also on failure. */
CUresult sw_module_new(struct sw_context *ctx, struct sw_library *library, struct sw_shared_image *image,
                       struct sw_module **out);
/* The context must be idle. */
void sw_module_free(struct sw_module *module);
CUresult sw_module_global(const struct sw_module *module, const char *name, bool managed, CUdeviceptr *dptr, size_t *bytes);

/* ---- functions (function.c) ----------------------------------------------------------------------------------------- */

/* Attributes that a program set by itself, so that those of the kernel do not overwrite them. */
struct sw_module_function {
	struct sw_function f;
	struct sw_library_kernel *kernel; /* NULL: of a module */
	uint32_t own;                     /* bits by CUfunction_attribute */
};

/* The function of the kernel with this index in the image. */
CUresult sw_module_function(struct sw_module *module, size_t index, struct sw_module_function **out);
CUresult sw_module_find(struct sw_module *module, const char *name, struct sw_module_function **out);
void sw_module_function_free(struct sw_module_function *function);
CUresult sw_function_attribute(const struct sw_function *function, CUfunction_attribute attribute, int *value);
CUresult sw_function_set(struct sw_function *function, CUfunction_attribute attribute, int value);

/* ---- libraries (library.c) -------------------------------------------------------------------------------------------- */

struct sw_library_kernel { /* CUkernel */
	CUkernel handle;
	struct sw_library *library;
	size_t index;                        /* of the kernel in the image */
	char *name;
	struct sw_module_function *function; /* atomic: the one that was used last, of whichever context */
	uint32_t set;                        /* bits by CUfunction_attribute */
	int values[CU_FUNC_ATTRIBUTE_MAX];   /* of those that are set */
	int cache_config;                    /* -1: not set */
};

struct sw_library {
	CUlibrary handle;
	pthread_mutex_t lock;           /* guards all that follows */
	struct img_sources sources;
	CUresult broken;                /* the texts do not load: every use says so again */
	struct sw_module *modules;      /* one per context that used it */
	struct sw_shared_image *shared; /* if it has managed variables, which all contexts share */
	struct sw_library_kernel **kernels; /* by index, NULL until asked for */
	size_t kernel_count;
};

/* The function of a kernel in a context; loads the library there if it was not yet used. */
CUresult sw_library_function(struct sw_library_kernel *kernel, struct sw_context *ctx, struct sw_module_function **out);
/* A module of a library dies with its context. */
void sw_library_drop(struct sw_module *module);

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

#define SW_OPS_MODULE(X) \
	X(cuModuleLoad) X(cuModuleLoadData) X(cuModuleLoadDataEx) X(cuModuleLoadFatBinary) X(cuModuleUnload) X(cuModuleGetFunction) \
	X(cuModuleGetFunctionCount) X(cuModuleEnumerateFunctions) X(cuModuleGetGlobal_v2) X(cuModuleGetGlobal) X(cuModuleGetTexRef) \
	X(cuModuleGetSurfRef) X(cuLinkCreate_v2) X(cuLinkCreate) X(cuLinkAddData_v2) X(cuLinkAddData) X(cuLinkAddFile_v2) \
	X(cuLinkAddFile) X(cuLinkComplete) X(cuLinkDestroy) X(cuLibraryLoadData) X(cuLibraryLoadFromFile) X(cuLibraryUnload) \
	X(cuLibraryGetKernel) X(cuLibraryGetKernelCount) X(cuLibraryEnumerateKernels) X(cuLibraryGetModule) X(cuLibraryGetGlobal) \
	X(cuLibraryGetManaged) X(cuLibraryGetUnifiedFunction) X(cuKernelGetFunction) X(cuKernelGetLibrary) X(cuKernelGetAttribute) \
	X(cuKernelSetAttribute) X(cuKernelSetCacheConfig) X(cuKernelGetName) X(cuKernelGetParamInfo) X(cuFuncGetAttribute) \
	X(cuFuncSetAttribute) X(cuFuncSetCacheConfig) X(cuFuncSetSharedMemConfig) X(cuFuncGetModule) X(cuFuncGetName) \
	X(cuFuncGetParamInfo) X(cuFuncIsLoaded) X(cuFuncLoad)

#define SW_MODULE_DECLARE(name) extern __typeof__(*((struct cuda_ops *)0)->name) sw_##name;
SW_OPS_MODULE(SW_MODULE_DECLARE)

#endif
