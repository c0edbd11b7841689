/*
 * farwarp inspect: what a file needs of CUDA and of this machine, and whether it gets it. A file is a program, a library, a wheel, a folder of
 * such or a running process. Files are read, never loaded or executed; only the driver is asked, in a child process, for the GPU at hand.
 *
 * Facts and findings of a file are one struct in_report; reports print it and decide nothing.
 */
#ifndef IN_INSPECT_H
#define IN_INSPECT_H

#include <stdio.h>

#include "elf/kernels.h"
#include "inspect/loader.h"

#define IN_MAX_REPORTS 20000 /* files of a folder or wheel that are looked into */
#define IN_MAX_DEPTH 40      /* of folders */

enum in_state { IN_WORKS, IN_FAULT, IN_UNKNOWN }; /* also the exit codes */

struct in_finding {
	enum { IN_LEVEL_FAULT, IN_LEVEL_UNSURE, IN_LEVEL_NOTE } level;
	const char *id;   /* of the failure catalogue ("F07B"), or I.. where it has none; "" for notes */
	const char *text;
	const char *fix;  /* commands, a line each; "" none */
};

struct in_library {
	const char *name, *path, *how, *by; /* path NULL: not found, `how` says why */
	bool direct, cuda;
};

/* A symbol of CUDA's that is needed, or any that is missing. */
struct in_use {
	const char *symbol, *version, *library, *path, *by; /* version and library NULL: any; path: where it was found, NULL nowhere */
	enum in_lookup result;
};

struct in_wheel_facts {
	const char *name, *version, *tag;    /* tag: of the file name or of WHEEL */
	bool purelib, purelib_known, cuda;   /* cuda: it says that it is about CUDA; why: */
	const char *cuda_why;
	size_t files, libraries, sources;    /* libraries: ELF files; sources: CUDA sources */
	size_t with_kernels;
	const char **absent;                 /* modules that its Python files import and that are not in it */
	size_t absent_count;
};

enum in_kind { IN_KIND_ELF, IN_KIND_WHEEL, IN_KIND_FOLDER, IN_KIND_PROCESS, IN_KIND_OTHER };
extern const char *const in_kind_names[];

struct in_report {
	const char *path;
	enum in_kind kind;
	struct in_finding *findings;
	size_t finding_count;
	/* ELF */
	bool program, linked_driver, dlopens_driver, static_runtime, uses_cuda;
	const char *machine, *interpreter, *soname, *rpath, *runpath, *build_id; /* NULL: none */
	const char *glibc, *glibcxx, *cxxabi, *strings; /* the newest versions needed; which std::string: "C++11", "old", "both" */
	const char *driver_path, *driver_how;           /* the libcuda.so.1 it would get */
	struct in_library *libraries;
	size_t library_count;
	struct in_use *uses;
	size_t use_count;
	size_t missing;                                 /* of uses */
	struct in_kernels kernels;
	struct in_wheel_facts wheel;
	/* wheel, folder, process */
	struct in_report **members;                     /* those that have to do with CUDA or have a finding */
	size_t member_count, plain_count;               /* plain: others, without a finding */
	struct fw_arena memory;                         /* owns all strings and lists of this report, not of the members */
};

struct in_options {
	struct in_device device; /* cc 0: ask the driver */
	const char *python;      /* folder: an environment or its site-packages; NULL: where the file lies, if in one */
	const char *root;        /* "" or a folder that stands for "/" */
	bool all;                /* members without CUDA too */
};

/* What is known of the GPU at hand; asked once, when first needed. */
struct in_machine {
	bool asked, given;       /* given: by options, no driver is asked */
	struct in_device device;
	char text[200];          /* "NVIDIA H200 (9.0), driver for CUDA 13.0", or why there is none */
};
/* Asks libcuda.so.1 in a child process; at most `seconds`. */
void in_machine_ask(struct in_machine *machine, double seconds);

struct in_inspector {
	const struct in_options *options;
	struct in_machine machine;
	struct in_world world;
};

void in_inspector_open(struct in_inspector *inspector, const struct in_options *options);
void in_inspector_close(struct in_inspector *inspector);

/* Always a report, NULL only when out of memory. Free with in_report_free(). */
struct in_report *in_inspect(struct in_inspector *inspector, const char *path);
struct in_report *in_inspect_process(struct in_inspector *inspector, int pid);
void in_report_free(struct in_report *report);

/* The worst of its findings and of its members', and the finding that says so (NULL: works). */
enum in_state in_verdict(const struct in_report *report, const struct in_finding **why, const struct in_report **where);

void in_print_text(const struct in_report *report, const struct in_inspector *inspector, bool all, FILE *out);
/* One JSON document of all reports; false: out of memory or not written. */
bool in_print_json(struct in_report *const *reports, size_t count, const struct in_inspector *inspector, FILE *out);

/* What an id means, wherever it is reported. */
struct in_meaning {
	const char *id, *cause, *text, *fix; /* fix: a line each */
};
const struct in_meaning *in_meaning(size_t index);       /* NULL behind the last */
const struct in_meaning *in_meaning_of(const char *id);  /* in either case of letters; NULL: inspect reports no such id */
void in_print_meaning(const struct in_meaning *meaning, FILE *out);

/* ---- shared by the files of this folder */

struct in_report *in_report_new(const char *path, enum in_kind kind);
/* A finding; text and fix are copied. */
void in_find(struct in_report *report, int level, const char *id, const char *fix, const char *format, ...) __attribute__((format(printf, 5, 6)));
const char *in_copy(struct in_report *report, const char *text); /* NULL stays NULL */
const char *in_print(struct in_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A list of `count` that has room for one more; `*list` moves. False: out of memory. */
bool in_grow(struct in_report *report, void *list, size_t count, size_t each);
bool in_add_member(struct in_report *report, struct in_report *member, bool all);

/* elf_report.c: all about one ELF file at a path of the world. `wheel`: the report of the wheel it lies in, with its requirements, or NULL. */
struct in_wheel_needs {
	const char **requires; /* names, lower case with hyphens */
	size_t count;
};
struct in_report *in_inspect_elf(struct in_inspector *inspector, const char *path, const char *shown, const struct in_wheel_needs *wheel);
/* The same for a scope that is known: member `index` of the files that a process has mapped. */
struct in_report *in_inspect_mapped(struct in_inspector *inspector, struct in_scope *scope, size_t index);
struct in_report *in_inspect_wheel(struct in_inspector *inspector, const char *path, struct in_source *source);
/* A folder NAME.dist-info of an installed distribution, by its RECORD. */
void in_inspect_installed(struct in_inspector *inspector, const char *folder, struct in_report *into);

bool in_is_cuda_library(const char *name);
/* "nvidia-cublas-cu12" for "libcublas.so.12": the distribution on PyPI that brings a library, into `name`; false: none known. */
bool in_distribution_of(const char *library, uint32_t cuda_major, char name[64]);
/* A library that the program which imports an extension has loaded already: torch's, Python's. Its distribution, or NULL. */
const char *in_brought_by_importer(const char *library);

#endif
