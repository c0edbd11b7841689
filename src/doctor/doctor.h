/*
 * The doctor: facts are gathered by probes that never judge; rules judge and never touch the machine.
 *
 * This is the first cut: PCI bus, driver module, device nodes, which libcuda.so.1 is mapped, what cuInit says. A fact that
 * could not be seen says so with its errno. Rules are rows of a table in rules.c.
 */
#ifndef DR_DOCTOR_H
#define DR_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define DR_MAX_PCI 32
#define DR_MAX_NODES 40

struct dr_pci {
	char address[24];
	unsigned device, class_code;
	char driver[32]; /* "" if none is bound */
};

struct dr_node {
	char path[64];
	int open_errno; /* 0: it opens for reading and writing */
};

/* How far the child came that asks the driver library. */
enum dr_stage { DR_STAGE_START, DR_STAGE_DLOPEN, DR_STAGE_SYMBOLS, DR_STAGE_INIT, DR_STAGE_COUNT, DR_STAGE_NAME, DR_STAGE_DONE };
extern const char *const dr_stage_names[];

struct dr_driver {
	enum dr_stage stage;      /* the last one begun */
	bool asked, hung;
	int signal;               /* that ended the child, 0 none */
	char hung_state, hung_wchan[64];
	char dlerror[256];        /* "" when it loaded */
	char path[256];           /* of the libcuda.so.1 that was mapped */
	int init_result, count_result, version, count;
	char name[128];           /* of device 0 */
	double seconds;
};

struct dr_facts {
	const char *root;         /* "" or a directory that stands for / in tests */
	struct dr_pci pci[DR_MAX_PCI];
	int pci_count, gpu_count, pci_errno;
	bool module_loaded, nouveau_loaded, uvm_loaded;
	char module_version[64];
	bool module_open;         /* the open kernel module flavour */
	struct dr_node nodes[DR_MAX_NODES];
	int node_count, gpu_node_count;
	bool container, hypervisor, wsl;
	char container_kind[32];
	char visible_devices[128]; /* CUDA_VISIBLE_DEVICES */
	bool visible_set;
	struct dr_driver driver;
};

/* Gathers everything but the driver library; never blocks on a device. `root` "" is this machine. */
void dr_probe_machine(struct dr_facts *facts, const char *root);

/*
 * Asks the libcuda.so.1 that a program started now would get, in a child with a deadline: path, cuInit, device count, name. A child
 * that does not end is a finding and is left to the kernel when it cannot be killed.
 */
void dr_probe_driver(struct dr_driver *driver, double deadline_seconds);

enum dr_state { DR_OK, DR_FAULT, DR_UNKNOWN };
enum dr_layer { DR_LAYER_PCI, DR_LAYER_KERNEL, DR_LAYER_NODES, DR_LAYER_LIBRARY, DR_LAYER_DRIVER, DR_LAYER_COUNT };
extern const char *const dr_layer_names[DR_LAYER_COUNT];

struct dr_rule {
	const char *id;           /* "F001", stable */
	enum dr_state state;
	enum dr_layer layer;
	bool (*fires)(const struct dr_facts *facts);
	const char *title;        /* cause and fix in one line */
	const char *who;          /* who can fix it */
	const char *fix;          /* commands, a line each */
};

/* The first rule that fires; there is always one. */
const struct dr_rule *dr_judge(const struct dr_facts *facts);
size_t dr_rule_count(void);
const struct dr_rule *dr_rule_at(size_t index);

const char *dr_cuda_error_name(int result);

/* "ok", "fault", "not applicable" or "unknown" of a layer, with a few words why. */
const char *dr_layer_state(const struct dr_facts *facts, enum dr_layer layer, char *why, size_t size);

void dr_report_text(const struct dr_facts *facts, const struct dr_rule *verdict, FILE *out);
void dr_report_json(const struct dr_facts *facts, const struct dr_rule *verdict, FILE *out);

#endif
