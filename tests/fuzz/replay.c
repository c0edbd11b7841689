/*
 * Runs a fuzz target on files and folders of files, for builds without libFuzzer: each is a test that must not crash. With --cut each file is
 * tried cut at every byte, too.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned count;
static bool cut;

static void
run_bytes(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1); /* so that a checker sees a byte too many */

	memcpy(exact, data, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
	count++;
}

static void
run(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat status;

	if (!file || fstat(fileno(file), &status) != 0) {
		perror(path);
		exit(1);
	}
	uint8_t *data = malloc((size_t)status.st_size + 1);
	size_t size = fread(data, 1, (size_t)status.st_size, file);
	run_bytes(data, size);
	for (size_t less = 0; cut && less < size; less++)
		run_bytes(data, less);
	free(data);
	fclose(file);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--cut") == 0) {
			cut = true;
			continue;
		}
		DIR *folder = opendir(argv[i]);
		if (!folder) {
			run(argv[i]);
			continue;
		}
		for (struct dirent *entry; (entry = readdir(folder));) {
			char path[4096];
			snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
			if (entry->d_name[0] != '.')
				run(path);
		}
		closedir(folder);
	}
	printf("%u inputs\n", count);
	return count ? 0 : 1;
}
