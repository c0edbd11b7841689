/*
 * Probe of Python environments that --python names: which CUDA the packages in them are built for, read from the installed metadata, and what
 * their libraries hold (python_native.h); nothing is imported or run. In a child, for a folder may lie on a server that is gone.
 *
 * A package wants native code when its own Python files import a module of its own that is named after CUDA or kernels ("from . import
 * _cuda_ops", "from pkg import _C"): if the package then holds no such file, its build left the kernels out.
 */
#include "doctor/probe.h"

#include <ctype.h>
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/python_native.h"

#define MAX_ANSWER (512 << 10)   /* bytes of an environment, as JSON */
#define MAX_RECORD (8 << 20)
#define MAX_SOURCE (256 << 10)   /* bytes of a Python file that is looked at */
#define MAX_SOURCES 300          /* of a package */
#define MAX_PACKAGES 2000
#define MAX_ENVIRONMENTS 32

struct work { /* shared with the child */
	volatile unsigned beat;
	const struct dr_options *options;
	struct in_device device;         /* the first GPU; zeros: none is known */
	char answer[MAX_ANSWER];
};

struct environment {
	const struct dr_options *options;
	char folder[512];                /* that holds the packages */
	struct fw_json *packages;
	regex_t *imports;
	volatile unsigned *beat;
	struct dr_native native;
	unsigned seen;
	bool jax_plugin;
};

/* Whose version tells for which CUDA it was built; F120 is about these. */
static bool
is_framework(const char *name)
{
	return strcmp(name, "torch") == 0 || strcmp(name, "jaxlib") == 0 || strcmp(name, "tensorflow") == 0 || strncmp(name, "cupy", 4) == 0 ||
	       strcmp(name, "tensorflow_cpu") == 0 || strcmp(name, "tensorflow-cpu") == 0;
}

/* Packages with kernels of their own, whatever their version says. */
static bool
has_kernels(const char *name)
{
	static const char *const names[] = {
		"torch", "torchvision", "torchaudio", "flash-attn", "flash_attn", "xformers", "vllm", "bitsandbytes", "onnxruntime-gpu", "mamba-ssm", "mamba_ssm",
		"causal-conv1d", "causal_conv1d", "ctranslate2", "llama_cpp_python", "llama-cpp-python", "sgl-kernel", "sgl_kernel", "apex", "tensorflow",
		"pytorch3d", "detectron2", "spconv", "mmcv", "nvdiffrast", "gsplat", "xgboost", "lightgbm" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return strncmp(name, "cupy", 4) == 0;
}

/* The value of "Key: value" in METADATA's head. */
static bool
header(const char *text, const char *key, char *value, size_t size)
{
	size_t length = strlen(key);

	for (const char *line = text; line && *line && *line != '\n'; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (strncasecmp(line, key, length) == 0 && line[length] == ':') {
			line += length + 1;
			line += strspn(line, " ");
			snprintf(value, size, "%.*s", (int)strcspn(line, "\r\n"), line);
			return true;
		}
	return false;
}

/* "cuda: Optional[str] = '12.8'" or "cuda = None" of torch/version.py: the text in quotes. false: there is no such line. */
static bool
torch_cuda(const char *text, char *value, size_t size)
{
	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		if (strncmp(line, "cuda", 4) != 0 || isalnum((unsigned char)line[4]) || line[4] == '_')
			continue;
		const char *end = line + strcspn(line, "\n"), *quote = line + strcspn(line, "'\"\n");
		value[0] = 0;
		if (quote < end)
			snprintf(value, size, "%.*s", (int)strcspn(quote + 1, "'\"\n"), quote + 1);
		return true;
	}
	return false;
}

static void
build_of(struct environment *e, struct fw_json *package, const char *name, const char *version)
{
	char path[700], value[64] = "";
	bool known = true, cpu = false;

	if (strcmp(name, "torch") == 0) {
		snprintf(path, sizeof(path), "%s/torch/version.py", e->folder);
		char *text = dr_read_file(e->options, path, 65536);
		known = text && torch_cuda(text, value, sizeof(value));
		bool rocm = strstr(version, "+rocm");
		cpu = known && !value[0] && !rocm;
		free(text);
	} else if (strcmp(name, "jaxlib") == 0) {
		cpu = !e->jax_plugin;
	} else if (strncmp(name, "cupy", 4) == 0) {
		const char *cuda = strstr(name, "cuda");
		snprintf(value, sizeof(value), "%s", cuda ? cuda + 4 : "");
	} else {
		snprintf(path, sizeof(path), "%s/tensorflow/python/platform/build_info.py", e->folder);
		char *text = dr_read_file(e->options, path, 65536);
		const char *flag = text ? strstr(text, "is_cuda_build") : NULL;
		known = flag != NULL;
		cpu = known && strncmp(flag + strcspn(flag, "TF\n"), "True", 4) != 0;
		free(text);
	}
	if (!known) {
		dr_unseen(package, "cpu_only", 0, "its version file does not say", NULL);
		return;
	}
	dr_set_bool(package, "cpu_only", cpu);
	dr_set_text(package, "cuda", value[0] ? value : NULL);
}

/* Whether RECORD names a file of a module: "pkg/_name.", "pkg/_name/". */
static bool
holds(const char *record, const char *package, const char *module, size_t length)
{
	char wanted[256];
	int size = snprintf(wanted, sizeof(wanted), "%s/%.*s", package, (int)length, module);

	if (size >= (int)sizeof(wanted))
		return true; /* too long to tell: no alarm */
	for (const char *at = record; (at = strstr(at, wanted)); at++)
		if ((at == record || at[-1] == '\n') && (at[size] == '.' || at[size] == '/'))
			return true;
	return false;
}

/* Whether a Python file of a package imports a native module of its own that is not there. */
static bool
misses_native(struct environment *e, const char *file, const char *record)
{
	char path[1100], package[200];
	regmatch_t match[4];
	const char *slash = strchr(file, '/');
	bool missing = false;

	snprintf(path, sizeof(path), "%s/%s", e->folder, file);
	char *text = slash ? dr_read_file(e->options, path, MAX_SOURCE) : NULL;
	if (!text)
		return false;
	snprintf(package, sizeof(package), "%.*s", (int)(slash - file), file);
	for (const char *at = text; !missing && regexec(e->imports, at, 4, match, 0) == 0; at += match[0].rm_eo) {
		/* match 2: what it is imported from, "." or the package's own name; 3: the module. */
		const char *from = at + match[2].rm_so;
		size_t length = (size_t)(match[2].rm_eo - match[2].rm_so), own = strlen(package);
		bool ours = (length > 0 && from[0] == '.') || (length == own && strncmp(from, package, own) == 0);
		bool top = length == 1 || from[0] != '.'; /* further below, the folder is not known */
		bool in_top = strchr(slash + 1, '/') == NULL;
		if (ours && top && (from[0] != '.' || in_top))
			missing = !holds(record, package, at + match[3].rm_so, (size_t)(match[3].rm_eo - match[3].rm_so));
	}
	free(text);
	return missing;
}

/* Native files that RECORD names, and whether the package's Python files want some that it does not. */
static void
contents_of(struct environment *e, const char *info, int *native, bool *wants)
{
	char path[1100];
	unsigned sources = 0;

	snprintf(path, sizeof(path), "%s/%s/RECORD", e->folder, info);
	char *record = dr_read_file(e->options, path, MAX_RECORD);
	*native = 0;
	*wants = false;
	for (const char *line = record; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		size_t length = strcspn(line, ",\n");
		bool library = length > 3 && (strncmp(line + length - 3, ".so", 3) == 0 || memmem(line, length, ".so.", 4));
		*native += library;
	}
	for (const char *line = record; *native == 0 && !*wants && line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		size_t length = strcspn(line, ",\n");
		char file[512];
		if (length < 4 || length >= sizeof(file) || strncmp(line + length - 3, ".py", 3) != 0 || line[0] == '.' || sources++ >= MAX_SOURCES)
			continue;
		snprintf(file, sizeof(file), "%.*s", (int)length, line);
		*wants = misses_native(e, file, record);
	}
	free(record);
}

static void
look_for_plugin(const char *name, void *user)
{
	struct environment *e = user;

	e->jax_plugin |= strncasecmp(name, "jax_cuda", 8) == 0 || strncasecmp(name, "jax-cuda", 8) == 0;
}

static void
add_package(const char *info, void *user)
{
	struct environment *e = user;
	char path[1100], name[128] = "", version[128] = "";
	const char *end = strstr(info, ".dist-info");
	int native = 0;
	bool wants = false;

	if (!end || end[10] || e->seen++ >= MAX_PACKAGES)
		return;
	(*e->beat)++;
	snprintf(path, sizeof(path), "%s/%.400s/METADATA", e->folder, info);
	char *metadata = dr_read_file(e->options, path, 1 << 20);
	if (!metadata || !header(metadata, "Name", name, sizeof(name)) || !header(metadata, "Version", version, sizeof(version))) {
		free(metadata);
		return;
	}
	free(metadata);
	contents_of(e, info, &native, &wants);
	bool framework = is_framework(name), nvidia = strncmp(name, "nvidia-", 7) == 0;
	if (!framework && !nvidia && !wants && !has_kernels(name))
		return;
	struct fw_json *package = fw_json_object();
	dr_set_text(package, "version", version);
	if (framework)
		build_of(e, package, name, version);
	else
		dr_set_bool(package, "cpu_only", false);
	dr_set_int(package, "native_files", native);
	dr_set_bool(package, "wants_native", wants || native > 0);
	if (has_kernels(name))
		dr_native_package(&e->native, name, info, package);
	fw_json_set(e->packages, name, package);
}

/* The version of an environment: pyvenv.cfg's, or the folder's name. */
static void
version_of(const struct dr_options *o, struct fw_json *item, const char *dir, const char *folder)
{
	char path[700], value[64] = "";
	const char *named = strstr(folder, "/python3.");

	snprintf(path, sizeof(path), "%s/pyvenv.cfg", dir);
	char *text = dr_read_file(o, path, 4096);
	const char *line = text ? strstr(text, "version") : NULL;
	line = line ? line + strcspn(line, "=\n") : NULL;
	if (line && *line == '=')
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + 1 + strspn(line + 1, " "), "\r\n"), line + 1 + strspn(line + 1, " "));
	else if (named)
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(named + 7, "/"), named + 7);
	free(text);
	dr_set_text(item, "version", value[0] ? value : NULL);
}

struct places {
	const char *base;
	char found[512];
	const struct dr_options *options;
};

static void
find_packages(const char *name, void *user)
{
	static const char *const folders[] = { "site-packages", "dist-packages" };
	struct places *p = user;

	for (size_t i = 0; !p->found[0] && i < 2 && strncmp(name, "python3", 7) == 0; i++) {
		char path[512];
		if (snprintf(path, sizeof(path), "%s/%s/%s", p->base, name, folders[i]) < (int)sizeof(path) && dr_exists(p->options, path))
			memcpy(p->found, path, sizeof(path));
	}
}

/* In the child: one environment. */
static void
add_environment(struct work *w, struct fw_json *list, const char *dir, regex_t *imports)
{
	static const char *const bases[] = { "/lib", "/lib64", "/local/lib" };
	struct environment e = { .options = w->options, .imports = imports, .beat = &w->beat };
	struct places places = { .options = w->options };
	char base[512];

	struct fw_json *item = dr_append(list);
	dr_set_text(item, "dir", dir);
	for (size_t i = 0; i < 3 && !places.found[0]; i++) {
		snprintf(base, sizeof(base), "%.400s%s", dir, bases[i]);
		places.base = base;
		dr_each_name(w->options, base, 64, find_packages, &places);
	}
	snprintf(e.folder, sizeof(e.folder), "%.500s", places.found[0] ? places.found : dir);
	version_of(w->options, item, dir, e.folder);
	e.native = (struct dr_native){ .options = w->options, .folder = e.folder, .device = &w->device, .beat = &w->beat };
	e.packages = fw_json_object();
	dr_each_name(w->options, e.folder, 8192, look_for_plugin, &e);
	int error = dr_each_name(w->options, e.folder, 8192, add_package, &e);
	dr_native_end(&e.native);
	if (error) {
		fw_json_free(e.packages);
		dr_unseen(item, "packages", error, e.folder, NULL);
	} else {
		fw_json_set(item, "packages", e.packages);
	}
}

static void
ask(void *shared)
{
	struct work *w = shared;
	struct fw_json *list = fw_json_array();
	regex_t imports;

	/* from . import _x, from pkg import _x */
	if (regcomp(&imports, "(^|\n)[ \t]*from[ \t]+([.A-Za-z_0-9]*)[ \t]+import[ \t]+\\(?[ \t]*"
	            "(_[A-Za-z0-9_]*(cuda|cutlass|kernel|gpu)[A-Za-z0-9_]*|_C)", REG_EXTENDED) != 0) {
		fw_json_free(list);
		return;
	}
	for (unsigned i = 0; i < MAX_ENVIRONMENTS && w->options->python[i]; i++)
		add_environment(w, list, w->options->python[i], &imports);
	FILE *out = fmemopen(w->answer, sizeof(w->answer) - 1, "w");
	if (out) {
		fw_json_write(list, out);
		fclose(out);
	}
	regfree(&imports);
	fw_json_free(list);
}

void
dr_probe_python(const struct dr_options *o, struct fw_json *facts)
{
	struct fw_json_error error;
	struct dr_child_end e;

	if (!o->python || !o->python[0])
		return; /* not looked at: no environment was named */
	struct work *w = dr_shared(sizeof(*w));
	if (!w) {
		dr_unseen(facts, "python", ENOMEM, "no memory to share with a child", NULL);
		return;
	}
	int major = 0, minor = 0;
	int64_t version = dr_get_int(facts, "driver.version", 0);
	if (sscanf(dr_get_text(facts, "driver.gpus[0].capability", ""), "%d.%d", &major, &minor) == 2)
		w->device = (struct in_device){ .cc = (uint32_t)(10 * major + minor), .max_ptx = in_ptx_of_cuda((uint32_t)(version / 1000 * 10 + version % 1000 / 10)) };
	w->options = o;
	dr_child_run(ask, w, &w->beat, o->deadline, &e);
	w->answer[sizeof(w->answer) - 1] = 0;
	struct fw_json *list = w->answer[0] ? fw_json_read(w->answer, strlen(w->answer), &error) : NULL;
	if (list)
		dr_put(facts, "python", list);
	else
		dr_unseen(facts, "python", 0, e.hung ? "the folder does not answer" : "it could not be read", NULL);
	dr_unshare(w, sizeof(*w));
}
