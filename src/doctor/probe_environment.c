/* Probe of the environment: variables of CUDA, NVIDIA, the loader, schedulers and frameworks. Others are not recorded. */
#include "doctor/probe.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A trailing '*' is any rest. Nothing that holds secrets: no TOKEN, KEY or PASSWORD is taken, whatever its beginning. */
static const char *const names[] = {
	"CUDA_*", "NVIDIA_*", "NV_*", "NVML_*", "NCCL_*", "GGML_CUDA_*", "OLLAMA_*", "PYTORCH_*", "TORCH_CUDA_*", "TF_*", "XLA_*", "JAX_*",
	"SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_GPUS*", "SLURM_STEP_GPUS", "SLURMD_NODENAME", "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT",
	"LIBRARY_PATH", "KUBERNETES_SERVICE_HOST", "SNAP", "SNAP_NAME", "CONDA_PREFIX", "VIRTUAL_ENV", "PYTHONPATH", "TMPDIR", "HOME", "USER",
	"HOSTNAME", "XDG_CACHE_HOME", "PIP_CACHE_DIR", "FARWARP_*", "COMPUTE_PROFILE", "GPU_DEVICE_ORDINAL", "container", "WSL_DISTRO_NAME",
	"APPTAINER_NAME", "SINGULARITY_NAME" };
static const char *const secrets[] = { "TOKEN", "KEY", "PASSWORD", "SECRET", "CREDENTIAL", "AUTH" };

static bool
wanted(const char *name, size_t length)
{
	char copy[64];

	snprintf(copy, sizeof(copy), "%.*s", (int)length, name);
	for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++)
		if (strcasestr(copy, secrets[i]))
			return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t fixed = strcspn(names[i], "*");
		if (names[i][fixed] ? strncmp(copy, names[i], fixed) == 0 : strcmp(copy, names[i]) == 0)
			return true;
	}
	return false;
}

void
dr_probe_environment(const struct dr_options *options, struct fw_json *facts)
{
	char fact[80], host[80];

	dr_put(facts, "env", fw_json_object());
	for (char **variable = environ; variable && *variable; variable++) {
		size_t length = strcspn(*variable, "=");
		if ((*variable)[length] != '=' || length > 60 || memchr(*variable, '.', length) || memchr(*variable, '[', length) ||
		    !wanted(*variable, length))
			continue;
		snprintf(fact, sizeof(fact), "env.%.*s", (int)length, *variable);
		dr_set_text(facts, fact, *variable + length + 1);
	}
	dr_set_text(facts, "user.name", dr_get_text(facts, "env.USER", NULL));
	dr_put(facts, "container.kubernetes", fw_json_null());
	if (fw_json_is(dr_get(facts, "env.KUBERNETES_SERVICE_HOST"), FW_JSON_TEXT) || dr_exists(options, "/var/run/secrets/kubernetes.io"))
		dr_set_bool(facts, "container.kubernetes.present", true);
	dr_set_absent(facts, "container.slurm");
	if (fw_json_is(dr_get(facts, "env.SLURM_JOB_ID"), FW_JSON_TEXT)) {
		dr_set_text(facts, "container.slurm.job", dr_get_text(facts, "env.SLURM_JOB_ID", ""));
		const char *gpus = dr_get_text(facts, "env.SLURM_JOB_GPUS", dr_get_text(facts, "env.SLURM_GPUS", NULL));
		dr_set_text(facts, "container.slurm.gpus", gpus);
	}
	dr_set_text(facts, "container.snap", dr_get_text(facts, "env.SNAP", NULL));
	if (!*options->root && gethostname(host, sizeof(host)) == 0 && !fw_json_is(dr_get(facts, "platform.host"), FW_JSON_TEXT))
		dr_set_text(facts, "platform.host", host);
}
