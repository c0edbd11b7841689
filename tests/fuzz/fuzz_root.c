/*
 * A machine whose files are the input: "@/proc/devices" begins a file, the lines up to the next such line are its text. The doctor's
 * probes look at it as at a root, with their children's work done in this process. What they write must read back (fuzz_facts judges such).
 */
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor/probe.h"

#define MAX_FILES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char root[64];

/* ---- child.c's functions without a child: so that a checker sees what happens there ---- */

void
dr_child_touch_nothing(void)
{
}

void *
dr_shared(size_t size)
{
	return calloc(1, size);
}

void
dr_unshare(void *memory, size_t size)
{
	(void)size;
	free(memory);
}

void
dr_child_run(void (*work)(void *shared), void *shared, const volatile unsigned *beat, double deadline, struct dr_child_end *end)
{
	(void)beat;
	(void)deadline;
	*end = (struct dr_child_end){ .ran = true };
	work(shared);
}

/* ---- the root ---- */

static int
remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status;
	(void)type;
	return walk->level ? remove(path) : 0;
}

static void
clear_root(void)
{
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
end_root(void)
{
	clear_root();
	rmdir(root);
}

static void
begin_root(void)
{
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

	snprintf(root, sizeof(root), "%s/farwarp-root-XXXXXX", tmp);
	if (!mkdtemp(root))
		abort();
	atexit(end_root);
}

/* A path of printable bytes that stays below the root and is not deep. */
static bool
is_path(const char *path)
{
	int parts = 0;

	for (const char *c = path; *c; c++) {
		if (*c < '!' || *c > '~')
			return false;
		parts += *c == '/';
	}
	return parts <= 12 && strlen(path) < 300 && !strstr(path, "..") && !strstr(path, "//");
}

static void
add_file(const char *path, const uint8_t *text, size_t size)
{
	char full[400];

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = 0;
		mkdir(full, 0777);
	}
	int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return; /* the name of a folder */
	ssize_t written = write(fd, text, size);
	(void)written;
	close(fd);
}

/* The next line that begins a file. */
static const uint8_t *
next_head(const uint8_t *at, const uint8_t *end)
{
	for (const uint8_t *line = at; line < end;) {
		if (end - line > 1 && line[0] == '@' && line[1] == '/')
			return line;
		const uint8_t *newline = memchr(line, '\n', (size_t)(end - line));
		line = newline ? newline + 1 : end;
	}
	return end;
}

static void
build(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size;
	int files = 0;

	for (const uint8_t *at = next_head(data, end); at < end && files < MAX_FILES; files++) {
		char path[320];
		const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
		const uint8_t *text = newline ? newline + 1 : end, *next = next_head(text, end);
		snprintf(path, sizeof(path), "%.*s", (int)((newline ? newline : end) - at) - 1, (const char *)at + 1);
		if (is_path(path))
			add_file(path, text, (size_t)(next - text));
		at = next;
	}
}

static void
check(struct fw_json *facts)
{
	char *text = NULL, error[400] = "";
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);

	if (!stream)
		abort();
	fw_json_write(facts, stream);
	fclose(stream);
	struct fw_json *again = dr_document_parse(text, size, "recorded", error, sizeof(error));
	if (!again) {
		fprintf(stderr, "what the probes wrote is refused: %s\n%.2000s\n", error, text);
		abort();
	}
	fw_json_free(again);
	free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static dr_probe_function *const probes[] = { dr_probe_pci, dr_probe_platform, dr_probe_kernel, dr_probe_module, dr_probe_nodes, dr_probe_container,
		dr_probe_runtime, dr_probe_services, dr_probe_disk };
	static const char *const python[] = { "/venv", NULL };
	const struct dr_options options = { .root = root, .deadline = 1, .python = python };
	struct fw_json *facts = dr_facts_new();

	if (!root[0])
		begin_root();
	if (!facts)
		abort();
	build(data, size);
	dr_set_text(facts, "env.HOME", "/root");
	for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
		probes[i](&options, facts);
	if (memmem(data, size, "@/venv", 6)) /* these two need more time than all others, even if nothing is there */
		dr_probe_python(&options, facts);
	if (memmem(data, size, ".so", 3))
		dr_probe_libraries(&options, facts);
	check(facts);
	fw_json_free(facts);
	clear_root();
	return 0;
}
