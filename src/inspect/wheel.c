/*
 * Wheels (PyPA's binary distribution format) and installed distributions: what they say of themselves, whether this machine and Python take
 * them, which modules their own Python files import without having them, and each library in them. Python files are searched, not run.
 */
#include "inspect/inspect.h"

#include <ctype.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TEXT ((uint64_t)4 << 20)         /* bytes of one text of a wheel that is read */
#define MAX_TEXTS ((uint64_t)128 << 20)      /* of all */
#define MAX_NAME 512
#define MAX_REQUIRES 4096
#define MAX_ABSENT 64

/* Files of a wheel or of an installed distribution. */
struct listing {
	struct in_report *report;
	const char **names; /* sorted */
	size_t count;
	const struct in_zip *zip;   /* or */
	const struct in_world *world;
	const char *site;
	uint64_t read;              /* bytes of texts so far */
};

static bool
ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);

	return length >= tail && strcmp(text + length - tail, end) == 0;
}

static const char *
base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool
is_library(const char *name)
{
	const char *base = base_of(name), *so = strstr(base, ".so");

	return so && so > base && (!so[3] || so[3] == '.') && !ends_with(base, ".py");
}

/* A text of the listing; false: not there, too long. Free with in_unload(). */
static bool
load_text(struct listing *l, const char *name, struct fw_cursor *text)
{
	struct in_source source;
	char path[4096];

	*text = (struct fw_cursor){ 0 };
	if (l->zip) {
		const struct in_member *m = in_zip_find(l->zip, name);
		if (!m || l->read + m->size > MAX_TEXTS || !in_zip_load(l->zip, m, MAX_TEXT, text, NULL))
			return false;
	} else {
		snprintf(path, sizeof(path), "%s/%s", l->site, name);
		if (!in_world_source(l->world, path, &source, NULL))
			return false;
		bool fine = source.size <= MAX_TEXT && l->read + source.size <= MAX_TEXTS && in_load(&source, 0, source.size, text);
		in_source_close(&source);
		if (!fine)
			return false;
	}
	l->read += text->size;
	return true;
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Is there a file of this name, or with `prefix` one whose name begins with it? */
static bool
listed(const struct listing *l, const char *name, bool prefix)
{
	size_t low = 0, high = l->count, length = strlen(name);

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (strcmp(l->names[middle], name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < l->count && (prefix ? strncmp(l->names[low], name, length) == 0 : strcmp(l->names[low], name) == 0);
}

/* ---- metadata */

/* "Key: value" lines up to the first empty one. Calls `visit` with each. */
static void
each_header(const struct fw_cursor *text, void (*visit)(const char *key, size_t length, const char *value, void *user), void *user)
{
	const char *at = (const char *)text->data, *end = at + text->size;

	while (at < end) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		size_t length = (size_t)((stop ? stop : end) - at);
		while (length && (at[length - 1] == '\r' || at[length - 1] == ' '))
			length--;
		if (!length)
			return;
		const char *colon = memchr(at, ':', length);
		if (colon && at[0] != ' ' && at[0] != '\t') {
			char value[MAX_NAME];
			const char *from = colon + 1;
			while (from < at + length && *from == ' ')
				from++;
			snprintf(value, sizeof(value), "%.*s", (int)(at + length - from), from);
			visit(at, (size_t)(colon - at), value, user);
		}
		at = stop ? stop + 1 : end;
	}
}

static bool
key_is(const char *key, size_t length, const char *want)
{
	return strlen(want) == length && strncasecmp(key, want, length) == 0;
}

/* "nvidia_cublas.cu12 (>=1)" to "nvidia-cublas-cu12". */
static void
clean_name(const char *from, char to[MAX_NAME])
{
	size_t n = 0;

	for (; *from && n + 1 < MAX_NAME && (isalnum((unsigned char)*from) || strchr("-_.", *from)); from++)
		to[n++] = *from == '_' || *from == '.' ? '-' : (char)tolower((unsigned char)*from);
	to[n] = 0;
}

struct metadata {
	struct in_report *report;
	struct in_wheel_needs needs;
	const char *purelib;
	char tags[MAX_NAME];
	bool requires_gpu;
};

static void
says_cuda(struct in_report *r, const char *why, const char *value)
{
	if (!r->wheel.cuda)
		r->wheel.cuda_why = in_print(r, why, value);
	r->wheel.cuda = true;
}

static bool
speaks_of_cuda(const char *text)
{
	return strcasestr(text, "cuda") || strcasestr(text, "cutlass") || strcasestr(text, "gpu");
}

static void
note_metadata(const char *key, size_t length, const char *value, void *user)
{
	struct metadata *m = user;
	struct in_report *r = m->report;
	char name[MAX_NAME];

	if (key_is(key, length, "Name")) {
		r->wheel.name = in_copy(r, value);
		if (speaks_of_cuda(value))
			says_cuda(r, "its name is %s", value);
	} else if (key_is(key, length, "Version")) {
		r->wheel.version = in_copy(r, value);
		if (strstr(value, "+cu"))
			says_cuda(r, "its version is %s", value);
	} else if (key_is(key, length, "Summary") || key_is(key, length, "Keywords")) {
		if (speaks_of_cuda(value))
			says_cuda(r, "it calls itself \"%.100s\"", value);
	} else if (key_is(key, length, "Classifier") && strstr(value, "NVIDIA CUDA")) {
		says_cuda(r, "its classifier is %s", value);
	} else if (key_is(key, length, "Requires-Dist") && m->needs.count < MAX_REQUIRES &&
	           in_grow(r, &m->needs.requires, m->needs.count, sizeof(const char *))) {
		clean_name(value, name);
		m->needs.requires[m->needs.count++] = in_copy(r, name);
		if (strcmp(name, "torch") == 0 || strncmp(name, "nvidia-", 7) == 0 || strncmp(name, "cupy", 4) == 0)
			says_cuda(r, "it requires %s", name);
	}
}

static void
note_wheel(const char *key, size_t length, const char *value, void *user)
{
	struct metadata *m = user;

	if (key_is(key, length, "Root-Is-Purelib")) {
		m->report->wheel.purelib_known = true;
		m->report->wheel.purelib = strcasecmp(value, "true") == 0;
	} else if (key_is(key, length, "Tag") && !m->report->wheel.tag) {
		m->report->wheel.tag = in_copy(m->report, value);
	}
}

/* ---- the tag: "cp311-cp311-manylinux_2_28_x86_64" */

struct here {
	unsigned glibc;      /* minor of 2.x */
	unsigned python;     /* minor of 3.x, 0 not known */
	char where[MAX_NAME];/* whose version it is */
};

/* "python3.11" in a path of an environment, or behind the python3 of PATH. */
static void
find_here(struct here *here, const struct in_inspector *i)
{
	const char *version = gnu_get_libc_version(), *found = i->world.site ? strstr(i->world.site, "/python3.") : NULL, *path = getenv("PATH");
	char candidate[4096], *real = NULL;

	*here = (struct here){ .glibc = strncmp(version, "2.", 2) == 0 ? (unsigned)strtoul(version + 2, NULL, 10) : 0 };
	for (; !found && path && *path; path += strcspn(path, ":"), path += *path == ':') {
		snprintf(candidate, sizeof(candidate), "%.*s/python3", (int)strcspn(path, ":"), path);
		if (access(candidate, X_OK) == 0) {
			real = realpath(candidate, NULL);
			found = real ? strstr(real, "/python3.") : NULL;
			break;
		}
	}
	if (found) {
		here->python = (unsigned)strtoul(found + strlen("/python3."), NULL, 10);
		snprintf(here->where, sizeof(here->where), "%.400s", real ? candidate : i->world.site);
	}
	free(real);
}

/* Why a platform tag does not fit, or NULL. */
static const char *
platform_wrong(struct in_report *r, const char *platform, const struct here *here, const char **id)
{
	static const struct { const char *name; unsigned glibc; } old[] = { { "manylinux1_", 5 }, { "manylinux2010_", 12 }, { "manylinux2014_", 17 } };
#if defined(__aarch64__)
	static const char mine[] = "aarch64";
#else
	static const char mine[] = "x86_64";
#endif
	unsigned glibc = 0;

	*id = "F07E";
	if (strcmp(platform, "any") == 0)
		return NULL;
	if (strncmp(platform, "musllinux", 9) == 0) {
		*id = "F07C";
		return in_print(r, "it is for musl (Alpine), this machine has glibc");
	}
	if (strncmp(platform, "linux", 5) != 0 && strncmp(platform, "manylinux", 9) != 0)
		return in_print(r, "it is for %s, this is Linux", platform);
	if (!ends_with(platform, mine))
		return in_print(r, "it is for %s, this machine is %s", platform, mine);
	if (strncmp(platform, "manylinux_2_", 12) == 0)
		glibc = (unsigned)strtoul(platform + 12, NULL, 10);
	for (size_t n = 0; n < 3; n++)
		if (strncmp(platform, old[n].name, strlen(old[n].name)) == 0)
			glibc = old[n].glibc;
	*id = "F07C";
	return glibc > here->glibc ? in_print(r, "it is for glibc 2.%u or newer, this machine has 2.%u", glibc, here->glibc) : NULL;
}

static bool
python_fits(const char *python, const char *abi, unsigned minor)
{
	bool cpython = strncmp(python, "cp3", 3) == 0;
	unsigned wants = (unsigned)strtoul(python + (python[0] && python[1] ? 3 : 0), NULL, 10);

	if (strncmp(python, "py3", 3) == 0)
		return wants <= minor;
	if (!cpython)
		return false;
	return strcmp(abi, "abi3") == 0 ? wants <= minor : wants == minor;
}

/* Does any of the dotted alternatives fit? The words of the last that does not go to *why. */
static void
check_tag(struct in_report *r, const struct here *here)
{
	char tag[MAX_NAME], *parts[3] = { NULL };
	const char *why = NULL, *id = "";
	bool platform = false, python = false;

	snprintf(tag, sizeof(tag), "%s", r->wheel.tag ? r->wheel.tag : "");
	for (int n = 2; n > 0; n--) {
		char *dash = strrchr(tag, '-');
		if (!dash)
			return;
		*dash = 0;
		parts[n] = dash + 1;
	}
	parts[0] = strrchr(tag, '-') ? strrchr(tag, '-') + 1 : tag;
	char *rest = parts[2];
	for (char *one; (one = strsep(&rest, "."));) {
		const char *its_id, *wrong = platform_wrong(r, one, here, &its_id);
		platform |= !wrong;
		if (wrong && !why) {
			why = wrong;
			id = its_id;
		}
	}
	rest = parts[0];
	for (char *one; (one = strsep(&rest, "."));)
		python |= python_fits(one, parts[1], here->python);
	if (!platform && why)
		in_find(r, IN_LEVEL_FAULT, id, "pip download --only-binary :all: PACKAGE            # takes the wheel that fits", "%s (tag %s)", why, r->wheel.tag);
	if (here->python && !python)
		in_find(r, IN_LEVEL_FAULT, "I08", "pip download --only-binary :all: PACKAGE            # takes the wheel that fits",
		        "it is for another Python (tag %s); %s is 3.%u", r->wheel.tag, here->where, here->python);
}

/* ---- imports of modules that are not there */

/* A module of native code, by its name: "_C", "_cuda_ops", "flash_attn_2_cuda". */
static bool
sounds_native(const char *name)
{
	static const char *const words[] = { "cuda", "cutlass", "cublas", "gpu", "kernel", "_ops", "_ext", "_native", "_impl" };

	if (strcmp(name, "_C") == 0 || strncmp(name, "_C_", 3) == 0)
		return true;
	for (size_t n = 0; name[0] == '_' && n < sizeof(words) / sizeof(words[0]); n++)
		if (strcasestr(name, words[n]))
			return true;
	return ends_with(name, "_cuda");
}

/* Is a module there, as Python file, package or library? Dots have become slashes. */
static bool
has_module(const struct listing *l, const char *path)
{
	static const char *const ends[] = { ".py", "/", ".so", ".cpython-", ".abi3.so", ".pyi", ".pyx" };
	char name[2 * MAX_NAME];

	for (size_t n = 0; n < sizeof(ends) / sizeof(ends[0]); n++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[n]);
		if (listed(l, name, true))
			return true;
	}
	return false;
}

/* Does the package's own __init__.py make a thing of this name? */
static bool
defined_in_package(struct listing *l, const char *package, const char *name)
{
	char path[2 * MAX_NAME], pattern[MAX_NAME + 16];
	struct fw_cursor text;
	bool found = false;
	static const char *const forms[] = { "\n%s =", "def %s(", "class %s", "as %s\n", "\n%s:" };

	snprintf(path, sizeof(path), "%s/__init__.py", package);
	if (!load_text(l, path, &text))
		return false;
	for (size_t n = 0; n < sizeof(forms) / sizeof(forms[0]); n++) {
		const char *hole = strchr(forms[n], '%');
		snprintf(pattern, sizeof(pattern), "%.*s%s%s", (int)(hole - forms[n]), forms[n], name, hole + 2);
		found |= strstr((const char *)text.data, pattern) != NULL;
	}
	in_unload(&text);
	return found;
}

/* A module `package`.`name` is imported in `file`: is it one of this distribution's own, native by its name, and absent? */
static void
note_import(struct listing *l, const char *file, const char *package, const char *name)
{
	struct in_wheel_facts *w = &l->report->wheel;
	char path[2 * MAX_NAME], top[MAX_NAME];

	if (!sounds_native(name) || w->absent_count == MAX_ABSENT)
		return;
	snprintf(path, sizeof(path), "%s%s%s", package, package[0] ? "/" : "", name);
	snprintf(top, sizeof(top), "%.*s/", (int)strcspn(file, "/"), file);
	if (package[0]) {
		/* Only modules of packages that are in here can be missed. */
		char own[2 * MAX_NAME];
		snprintf(own, sizeof(own), "%s/", package);
		if (!listed(l, own, true) || defined_in_package(l, package, name))
			return;
	} else if (strncmp(name, top, strlen(top) - 1) != 0) {
		return;
	}
	if (has_module(l, path))
		return;
	for (char *c = path; *c; c++)
		if (*c == '/')
			*c = '.';
	for (size_t n = 0; n < w->absent_count; n++)
		if (strncmp(w->absent[n], path, strlen(path)) == 0 && w->absent[n][strlen(path)] == ' ')
			return;
	if (in_grow(l->report, &w->absent, w->absent_count, sizeof(const char *)))
		w->absent[w->absent_count++] = in_print(l->report, "%s (imported by %s)", path, file);
}

/* The package that "..a.b" means in a file, with slashes; false if it leads out. */
static bool
package_of(const char *file, const char *dotted, size_t length, char to[MAX_NAME])
{
	size_t dots = 0, used = 0;

	while (dots < length && dotted[dots] == '.')
		dots++;
	if (dots) {
		snprintf(to, MAX_NAME, "%s", file);
		for (size_t n = 0; n < dots; n++) {
			char *slash = strrchr(to, '/');
			if (!slash)
				return false;
			*slash = 0;
		}
		used = strlen(to);
	}
	if (dots < length && used && used + 1 < MAX_NAME)
		to[used++] = '/';
	for (size_t n = dots; n < length && used + 1 < MAX_NAME; n++)
		to[used++] = dotted[n] == '.' ? '/' : dotted[n];
	to[used] = 0;
	return true;
}

static size_t
word(const char *at, const char *end)
{
	size_t n = 0;

	while (at + n < end && (isalnum((unsigned char)at[n]) || at[n] == '_' || at[n] == '.'))
		n++;
	return n;
}

static const char *
skip_blanks(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '(' || *at == ','))
		at++;
	return at;
}

/* "from X import a, b" or "import X.y as z", one line. */
static void
read_import(struct listing *l, const char *file, const char *at, const char *end)
{
	char package[MAX_NAME], name[MAX_NAME], module[2 * MAX_NAME];
	bool from = end - at > 5 && strncmp(at, "from ", 5) == 0;

	if (!from && !(end - at > 7 && strncmp(at, "import ", 7) == 0))
		return;
	at = skip_blanks(at + (from ? 5 : 7), end);
	size_t length = word(at, end);
	if (!length || length >= MAX_NAME || !package_of(file, at, length, module))
		return;
	/* The module itself: its last part, in the package before it. */
	snprintf(package, sizeof(package), "%s", module);
	char *slash = strrchr(package, '/');
	snprintf(name, sizeof(name), "%s", slash ? slash + 1 : package);
	if (slash)
		*slash = 0;
	else
		package[0] = 0;
	note_import(l, file, package, name);
	at = skip_blanks(at + length, end);
	if (!from || end - at < 7 || strncmp(at, "import ", 7) != 0)
		return;
	for (at = skip_blanks(at + 7, end); at < end && (length = word(at, end)) > 0; at = skip_blanks(at + length, end)) {
		snprintf(name, sizeof(name), "%.*s", (int)(length < MAX_NAME ? length : MAX_NAME - 1), at);
		if (strcmp(name, "as") == 0) { /* the word behind it is a new name */
			at = skip_blanks(at + length, end);
			length = word(at, end);
			continue;
		}
		note_import(l, file, module, name);
	}
}

static void
search_imports(struct listing *l)
{
	for (size_t n = 0; n < l->count; n++) {
		struct fw_cursor text;
		if (!ends_with(l->names[n], ".py") || strlen(l->names[n]) >= MAX_NAME || !load_text(l, l->names[n], &text))
			continue;
		const char *at = (const char *)text.data, *end = at + text.size;
		while (at < end) {
			const char *stop = memchr(at, '\n', (size_t)(end - at));
			stop = stop ? stop : end;
			read_import(l, l->names[n], skip_blanks(at, stop), stop);
			at = stop + 1;
		}
		in_unload(&text);
	}
}

/* ---- judging what is (not) in it */

static void
count_files(struct listing *l, size_t *native, size_t *python)
{
	static const char *const others[] = { ".a", ".h", ".hpp", ".cuh", ".inl", ".o", ".bc", ".exe", ".pyd", ".dll" };

	*native = *python = 0;
	for (size_t n = 0; n < l->count; n++) {
		const char *name = l->names[n];
		bool other = strstr(name, "/bin/") || strstr(name, ".data/scripts/");
		l->report->wheel.files++;
		l->report->wheel.libraries += is_library(name);
		l->report->wheel.sources += ends_with(name, ".cu") || ends_with(name, ".cuh");
		for (size_t t = 0; t < sizeof(others) / sizeof(others[0]); t++)
			other |= ends_with(name, others[t]);
		*native += other;
		*python += ends_with(name, ".py") && !strstr(name, ".dist-info/");
	}
}

static const char *
list_absent(struct in_report *r)
{
	const struct in_wheel_facts *w = &r->wheel;

	return w->absent_count > 2 ? in_print(r, "%s, %s and %zu more", w->absent[0], w->absent[1], w->absent_count - 2) :
	       w->absent_count == 2 ? in_print(r, "%s and %s", w->absent[0], w->absent[1]) : w->absent[0];
}

#define BUILD_AGAIN \
	"build where torch and nvcc are importable: setup.py leaves CUDAExtension out without them\n" \
	"pip wheel --no-build-isolation --no-deps . -v        # and read what it compiles\n" \
	"unzip -l dist/*.whl | grep '\\.so'                    # nothing printed: fail the release\n" \
	"df -h . /tmp ~/.cache                                # a full disk ends a build early"

static void
judge_content(struct listing *l)
{
	struct in_report *r = l->report;
	struct in_wheel_facts *w = &r->wheel;
	size_t native, python;

	count_files(l, &native, &python);
	search_imports(l);
	bool any = !w->tag || ends_with(w->tag, "-any");
	if (w->absent_count && !w->libraries && (w->cuda || strcasestr(w->absent[0], "cuda")))
		in_find(r, IN_LEVEL_FAULT, "F122", BUILD_AGAIN, "a wheel without native code: no .so among its %zu files, but it wants %s", w->files, list_absent(r));
	else if (w->purelib_known && !w->purelib && !w->libraries && !native)
		in_find(r, IN_LEVEL_FAULT, "F122", BUILD_AGAIN, "a wheel without native code: it says Root-Is-Purelib: false, and none of its %zu files is native",
		        w->files);
	else if (!any && !w->libraries && !native && python)
		in_find(r, IN_LEVEL_FAULT, "F122", BUILD_AGAIN, "a wheel without native code: it is tagged %s, and none of its %zu files is native", w->tag, w->files);
	else if (w->absent_count && (w->cuda || strcasestr(w->absent[0], "cuda")))
		in_find(r, IN_LEVEL_NOTE, "", "", "modules that its Python files import and that are not in it (optional ones?): %s", list_absent(r));
	else if (w->cuda && !w->libraries && python && w->sources)
		in_find(r, IN_LEVEL_NOTE, "", "", "it holds CUDA sources and no libraries: they are compiled when first used, which needs nvcc or NVRTC");
	else if (w->cuda && !w->libraries && python)
		in_find(r, IN_LEVEL_NOTE, "", "", "it holds no native code (%s); kernels, if any, come from its requirements", w->cuda_why);
	if (w->name && w->version && strcmp(w->name, "torch") == 0 && (strstr(w->version, "+cpu") || (w->libraries && !listed(l, "torch/lib/libtorch_cuda.so", false))))
		in_find(r, IN_LEVEL_FAULT, "F120", "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128",
		        "torch %s is a build for the CPU only: it has no libtorch_cuda.so", w->version);
}

/* ---- a wheel */

/* The folder NAME.dist-info at the top of a wheel; false: there is none. */
static bool
find_info(const struct listing *l, char info[MAX_NAME])
{
	for (size_t n = 0; n < l->count; n++) {
		const char *end = strstr(l->names[n], ".dist-info/WHEEL"), *slash = strchr(l->names[n], '/');
		if (!end || slash != end + strlen(".dist-info") || slash - l->names[n] >= MAX_NAME)
			continue;
		snprintf(info, MAX_NAME, "%.*s", (int)(slash - l->names[n]), l->names[n]);
		return true;
	}
	return false;
}

static void
read_metadata(struct listing *l, const char *info, struct metadata *m)
{
	char path[2 * MAX_NAME];
	struct fw_cursor text;

	m->report = l->report;
	snprintf(path, sizeof(path), "%s/METADATA", info);
	if (load_text(l, path, &text))
		each_header(&text, note_metadata, m);
	in_unload(&text);
	snprintf(path, sizeof(path), "%s/WHEEL", info);
	if (load_text(l, path, &text))
		each_header(&text, note_wheel, m);
	in_unload(&text);
}

static void
inspect_libraries(struct in_inspector *i, struct listing *l, const struct metadata *m)
{
	for (size_t n = 0; n < l->count; n++) {
		char path[8192];
		if (!is_library(l->names[n]) && !strstr(l->names[n], "/bin/") && !strstr(l->names[n], ".data/scripts/"))
			continue;
		if (l->report->member_count + l->report->plain_count >= IN_MAX_REPORTS)
			return;
		snprintf(path, sizeof(path), "%s/%s", i->world.site, l->names[n]);
		if (!is_library(l->names[n])) {
			struct in_source source = { .fd = -1 };
			bool elf = in_world_source(&i->world, path, &source, NULL) && in_elf_recognise(&source);
			in_source_close(&source);
			if (!elf)
				continue;
		}
		struct in_report *member = in_inspect_elf(i, path, l->names[n], &m->needs);
		if (member) {
			l->report->wheel.with_kernels += member->kernels.modules > 0;
			in_add_member(l->report, member, i->options->all);
		}
	}
}

/* Of "name-1.0-cp311-cp311-linux_x86_64.whl" the last three parts; a file that was renamed keeps the tag that WHEEL says. */
static void
tag_of_file(struct in_report *r, const char *base)
{
	const char *from = base + strlen(base);
	int dashes = 0, count = 0;

	for (const char *c = base; *c; c++)
		count += *c == '-';
	while (count >= 4 && from > base && !(from[-1] == '-' && ++dashes == 3))
		from--;
	if (count >= 4 && strlen(from) < MAX_NAME)
		r->wheel.tag = in_print(r, "%.*s", (int)(strlen(from) - strlen(".whl")), from);
}

struct in_report *
in_inspect_wheel(struct in_inspector *i, const char *path, struct in_source *source)
{
	struct in_report *report = in_report_new(path, IN_KIND_WHEEL);
	struct in_error error;
	struct in_zip zip;

	if (!report)
		return NULL;
	if (!in_zip_open(&zip, source, &error)) {
		in_find(report, IN_LEVEL_FAULT, "I04", "get the file again, and compare its checksum: sha256sum FILE", "%s", error.text);
		return report;
	}
	struct listing l = { .report = report, .names = calloc(zip.count + 1, sizeof(const char *)), .zip = &zip };
	struct metadata m = { 0 };
	char info[MAX_NAME], data[MAX_NAME + 8];
	for (size_t n = 0; l.names && n < zip.count; n++)
		if (!zip.members[n].folder)
			l.names[l.count++] = zip.members[n].name;
	if (!l.names || !find_info(&l, info)) {
		in_find(report, IN_LEVEL_UNSURE, "I07", "", "an archive, but no wheel: it has no .dist-info/WHEEL");
	} else {
		const char *base = base_of(path), *tag = ends_with(base, ".whl") ? base : NULL;
		struct here here;
		read_metadata(&l, info, &m);
		find_here(&here, i);
		if (tag)
			tag_of_file(report, tag);
		judge_content(&l);
		check_tag(report, &here);
		/* Its libraries find each other as they would where the wheel is installed. */
		snprintf(data, sizeof(data), "%.*s.data", (int)(strlen(info) - strlen(".dist-info")), info);
		i->world.wheel = &zip;
		i->world.wheel_data = data;
		in_world_trim(&i->world, true);
		inspect_libraries(i, &l, &m);
		in_world_trim(&i->world, true);
		i->world.wheel = NULL;
		i->world.wheel_data = NULL;
	}
	report->uses_cuda = true;
	free(l.names);
	in_zip_close(&zip);
	return report;
}

/* ---- an installed distribution */

/* RECORD is a table: path, checksum, size; paths with commas are quoted. */
static void
read_record(struct listing *l, const struct fw_cursor *text)
{
	const char *at = (const char *)text->data, *end = at + text->size;

	while (at < end) {
		const char *stop = memchr(at, '\n', (size_t)(end - at)), *name = at;
		stop = stop ? stop : end;
		char close = *name == '"' ? '"' : ',';
		name += *name == '"';
		const char *name_end = memchr(name, close, (size_t)(stop - name));
		if (name_end && name_end > name && in_grow(l->report, &l->names, l->count, sizeof(const char *))) {
			const char *kept = fw_arena_strndup(&l->report->memory, name, (size_t)(name_end - name));
			if (kept)
				l->names[l->count++] = kept;
		}
		at = stop + 1;
	}
	if (l->count)
		qsort(l->names, l->count, sizeof(const char *), by_text);
}

void
in_inspect_installed(struct in_inspector *i, const char *folder, struct in_report *into)
{
	const char *base = base_of(folder);
	char site[4096], record[MAX_NAME];
	struct in_report *report = in_report_new(folder, IN_KIND_WHEEL);
	struct metadata m = { 0 };
	struct fw_cursor text;

	if (!report || strlen(base) > MAX_NAME - 16 || base == folder) {
		in_report_free(report);
		return;
	}
	snprintf(site, sizeof(site), "%.*s", (int)(base - folder - 1), folder);
	snprintf(record, sizeof(record), "%s/RECORD", base);
	struct listing l = { .report = report, .world = &i->world, .site = site };
	if (load_text(&l, record, &text)) {
		read_record(&l, &text);
		read_metadata(&l, base, &m);
		judge_content(&l);
	}
	in_unload(&text);
	bool fault = false;
	for (size_t n = 0; n < report->finding_count; n++)
		fault |= report->findings[n].level == IN_LEVEL_FAULT;
	if (fault)
		in_add_member(into, report, true);
	else
		in_report_free(report);
}
