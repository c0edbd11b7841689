/*
 * Rules: facts to a verdict. Each row is an AND over evidence, most specific first; the first that fires is the verdict. A return
 * code alone names no cause. Nothing here touches the machine.
 */
#include "doctor.h"

#include <errno.h>
#include <string.h>

const char *const dr_layer_names[DR_LAYER_COUNT] = { "PCI bus", "kernel module", "device nodes", "library", "driver API" };

static bool
is_ours(const struct dr_facts *f)
{
	return strncmp(f->driver.name, "farwarp", 7) == 0;
}

static bool
any_gpu_bound_to(const struct dr_facts *f, const char *driver)
{
	for (int i = 0; i < f->pci_count; i++)
		if ((f->pci[i].class_code & 0xff00) == 0x0300 && strcmp(f->pci[i].driver, driver) == 0)
			return true;
	return false;
}

static bool
node_errno(const struct dr_facts *f, int error)
{
	for (int i = 0; i < f->node_count; i++)
		if (f->nodes[i].open_errno == error)
			return true;
	return false;
}

static bool
has_node(const struct dr_facts *f, const char *path)
{
	for (int i = 0; i < f->node_count; i++)
		if (strcmp(f->nodes[i].path, path) == 0)
			return true;
	return false;
}

static bool works(const struct dr_facts *f) { return f->driver.stage == DR_STAGE_DONE && f->driver.count > 0 && !is_ours(f); }
static bool works_soft(const struct dr_facts *f) { return f->driver.stage == DR_STAGE_DONE && f->driver.count > 0 && is_ours(f); }
static bool hangs(const struct dr_facts *f) { return f->driver.hung; }
static bool crashes(const struct dr_facts *f) { return f->driver.signal != 0; }
static bool hidden(const struct dr_facts *f)
{
	return f->driver.init_result == 100 && f->visible_set && f->gpu_node_count > 0 &&
	       (f->visible_devices[0] == 0 || f->visible_devices[0] == '-');
}
static bool stub(const struct dr_facts *f) { return f->driver.path[0] && (f->driver.init_result == 34 || strstr(f->driver.path, "/stubs/")); }
static bool no_gpu(const struct dr_facts *f)
{
	return f->pci_errno == 0 && f->gpu_count == 0 && f->node_count == 0 && !f->wsl && !f->container && !f->module_loaded;
}
static bool no_gpu_container(const struct dr_facts *f)
{
	return f->gpu_count == 0 && f->node_count == 0 && !f->wsl && f->container && !f->module_loaded;
}
static bool vfio(const struct dr_facts *f) { return any_gpu_bound_to(f, "vfio-pci") && f->gpu_node_count == 0; }
static bool nouveau(const struct dr_facts *f) { return any_gpu_bound_to(f, "nouveau") || (f->nouveau_loaded && !f->module_loaded && f->gpu_count); }
static bool no_module(const struct dr_facts *f) { return f->gpu_count > 0 && !f->module_loaded; }
static bool not_in_container(const struct dr_facts *f) { return f->container && f->gpu_node_count == 0 && (f->gpu_count > 0 || f->module_loaded); }
static bool denied(const struct dr_facts *f) { return node_errno(f, EACCES); }
static bool cgroup(const struct dr_facts *f) { return node_errno(f, EPERM); }
static bool no_uvm(const struct dr_facts *f)
{
	return f->driver.init_result == 999 && f->gpu_node_count > 0 && !has_node(f, "/dev/nvidia-uvm");
}
static bool fabric(const struct dr_facts *f) { return f->driver.init_result == 802; }
static bool mismatch(const struct dr_facts *f) { return f->driver.init_result == 803; }
static bool compat(const struct dr_facts *f) { return f->driver.init_result == 804; }
static bool no_library(const struct dr_facts *f) { return f->driver.asked && f->driver.dlerror[0]; }
static bool fails(const struct dr_facts *f) { return f->driver.init_result != 0 || f->driver.count_result != 0; }
static bool always(const struct dr_facts *f) { (void)f; return true; }

static const struct dr_rule rules[] = {
	{ "OK", DR_OK, DR_LAYER_DRIVER, works, "CUDA works here: the driver finds its GPU",
	  "nobody needs to", "farwarp run -- PROGRAM        # runs natively, untouched" },
	{ "SOFT", DR_OK, DR_LAYER_DRIVER, works_soft, "CUDA comes up on farwarp's software GPU, not on hardware",
	  "nobody needs to", "unset LD_LIBRARY_PATH; farwarp doctor        # to look at the machine itself" },
	{ "F09B", DR_FAULT, DR_LAYER_DRIVER, hangs, "the driver hangs: it does not answer in time",
	  "root on this machine, or its host's administrator",
	  "dmesg | grep -iE 'nvrm|xid'        # what the kernel module reports\nreboot the machine; if it returns, the host must reset the GPU" },
	{ "CRASH", DR_FAULT, DR_LAYER_LIBRARY, crashes, "the driver library crashes when it is asked",
	  "root on this machine", "reinstall the driver package that owns the library named below" },
	{ "F072", DR_FAULT, DR_LAYER_LIBRARY, stub, "a toolkit's stub libcuda.so.1 is loaded instead of the driver's",
	  "you", "remove the stubs folder from LD_LIBRARY_PATH and from RUNPATH; it is for linking only" },
	{ "F064", DR_FAULT, DR_LAYER_DRIVER, hidden, "CUDA_VISIBLE_DEVICES hides every GPU", "you", "unset CUDA_VISIBLE_DEVICES" },
	{ "F004", DR_FAULT, DR_LAYER_KERNEL, vfio, "the GPU is bound to vfio-pci, for a virtual machine",
	  "root on this machine",
	  "run the program inside the virtual machine that owns the GPU\nor unbind vfio-pci and bind nvidia (interrupts that machine)" },
	{ "F020", DR_FAULT, DR_LAYER_KERNEL, nouveau, "the nouveau driver owns the GPU",
	  "root on this machine", "install NVIDIA's driver, which blacklists nouveau, and reboot" },
	{ "F100", DR_FAULT, DR_LAYER_NODES, not_in_container, "the container was started without GPU access",
	  "who starts the container", "docker run --gpus all ...        # or --device nvidia.com/gpu=all with CDI; Kubernetes: limits: nvidia.com/gpu: 1" },
	{ "F021", DR_FAULT, DR_LAYER_KERNEL, no_module, "there is an NVIDIA GPU but no nvidia kernel module is loaded",
	  "root on this machine", "modprobe nvidia        # its error says why: not built for this kernel, refused by Secure Boot, not installed\ndkms status; dmesg | grep -i nvidia" },
	{ "F038", DR_FAULT, DR_LAYER_NODES, denied, "this user may not open the NVIDIA device nodes",
	  "root on this machine", "ls -l /dev/nvidia*; id        # add the user to the group that owns them" },
	{ "F039", DR_FAULT, DR_LAYER_NODES, cgroup, "a device cgroup forbids the NVIDIA nodes (EPERM)",
	  "who starts the container or the job", "start it again with GPU access; under Slurm ask for --gres=gpu:1" },
	{ "F036", DR_FAULT, DR_LAYER_NODES, no_uvm, "/dev/nvidia-uvm is missing while the GPU's node is there",
	  "root on this machine", "nvidia-modprobe -u -c=0        # on the host, then start the container again" },
	{ "F050", DR_FAULT, DR_LAYER_DRIVER, fabric, "error 802: the NVLink fabric of this GPU was never set up",
	  "the host's administrator or the cloud provider",
	  "systemctl status nvidia-fabricmanager        # with NVSwitches in sight\nelse ask the provider to finish the fabric of this GPU; in the guest it cannot be done" },
	{ "F073", DR_FAULT, DR_LAYER_LIBRARY, mismatch, "libcuda and the kernel module are of different versions",
	  "root on this machine", "reboot, or unload and load the nvidia modules, after a driver update" },
	{ "F071", DR_FAULT, DR_LAYER_LIBRARY, compat, "a forward-compatibility libcuda is loaded on a GPU that does not support it",
	  "you", "remove /usr/local/cuda*/compat from LD_LIBRARY_PATH" },
	{ "F001", DR_FAULT, DR_LAYER_PCI, no_gpu, "no NVIDIA GPU on this machine",
	  "who gives you the machine", "choose a machine with a GPU, or run on the software GPU:\n    farwarp run -- PROGRAM" },
	{ "F100", DR_FAULT, DR_LAYER_NODES, no_gpu_container, "no NVIDIA GPU in this container",
	  "who starts the container", "docker run --gpus all ...        # if the host has one\nor run on the software GPU: farwarp run -- PROGRAM" },
	{ "F070", DR_FAULT, DR_LAYER_LIBRARY, no_library, "the driver's libcuda.so.1 cannot be loaded",
	  "root on this machine, or the image's builder", "install the driver's user-space package of the module's version; ldconfig -p | grep libcuda" },
	{ "F092", DR_FAULT, DR_LAYER_DRIVER, fails, "the driver refuses to start, and no known cause fits",
	  "root on this machine", "dmesg | grep -iE 'nvrm|xid'; nvidia-smi -q" },
	{ "UNKNOWN", DR_UNKNOWN, DR_LAYER_DRIVER, always, "could not tell: the driver was not asked or said nothing",
	  "you", "farwarp doctor --json        # and report it" },
};

size_t
dr_rule_count(void)
{
	return sizeof(rules) / sizeof(rules[0]);
}

const struct dr_rule *
dr_rule_at(size_t index)
{
	return index < dr_rule_count() ? &rules[index] : NULL;
}

const struct dr_rule *
dr_judge(const struct dr_facts *facts)
{
	for (size_t i = 0; i < dr_rule_count(); i++)
		if (rules[i].fires(facts))
			return &rules[i];
	return &rules[dr_rule_count() - 1];
}

const char *
dr_layer_state(const struct dr_facts *f, enum dr_layer layer, char *why, size_t size)
{
	const struct dr_driver *d = &f->driver;
	why[0] = 0;
	switch (layer) {
	case DR_LAYER_PCI:
		if (f->pci_errno) {
			snprintf(why, size, "/sys/bus/pci: %s", strerror(f->pci_errno));
			return "unknown";
		}
		snprintf(why, size, "%d NVIDIA GPU%s of %d NVIDIA functions", f->gpu_count, f->gpu_count == 1 ? "" : "s", f->pci_count);
		return f->gpu_count ? "ok" : f->wsl ? "not applicable" : "fault";
	case DR_LAYER_KERNEL:
		if (f->module_loaded) {
			snprintf(why, size, "nvidia %s%s", f->module_version, f->module_open ? " (open)" : "");
			return "ok";
		}
		snprintf(why, size, "%s", f->nouveau_loaded ? "nouveau is loaded, nvidia is not" : "no nvidia module");
		return f->gpu_count ? "fault" : "not applicable";
	case DR_LAYER_NODES:
		snprintf(why, size, "%d of /dev/nvidia*", f->node_count);
		for (int i = 0; i < f->node_count; i++)
			if (f->nodes[i].open_errno) {
				snprintf(why, size, "%s: %s", f->nodes[i].path, strerror(f->nodes[i].open_errno));
				return "fault";
			}
		return f->gpu_node_count ? "ok" : f->module_loaded ? "fault" : "not applicable";
	case DR_LAYER_LIBRARY:
		if (!d->asked)
			return "unknown";
		snprintf(why, size, "%s", d->dlerror[0] ? d->dlerror : d->path);
		return d->dlerror[0] ? "fault" : "ok";
	case DR_LAYER_DRIVER:
		if (d->hung)
			snprintf(why, size, "%s did not return in %.0f s (state %c, in %s)", dr_stage_names[d->stage], d->seconds,
			         d->hung_state ? d->hung_state : '?', d->hung_wchan[0] ? d->hung_wchan : "?");
		else if (d->signal)
			snprintf(why, size, "%s ended by signal %d", dr_stage_names[d->stage], d->signal);
		else if (d->init_result)
			snprintf(why, size, "cuInit: %d %s", d->init_result, dr_cuda_error_name(d->init_result));
		else if (d->stage == DR_STAGE_DONE)
			snprintf(why, size, "CUDA %d.%d, %d device%s: %s", d->version / 1000, d->version % 1000 / 10, d->count,
			         d->count == 1 ? "" : "s", d->name);
		else {
			snprintf(why, size, "no library to ask");
			return "not applicable";
		}
		return d->hung || d->signal || d->init_result || d->count == 0 ? "fault" : "ok";
	default:
		return "unknown";
	}
}
