/* Reading of the bytes of inspected files, whatever they lie in. Knows no format. */
#include "elf/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf/inflate.h"

bool
in_fail(struct in_error *error, const char *format, ...)
{
	if (error) {
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(error->text, sizeof(error->text), format, arguments);
		va_end(arguments);
	}
	return false;
}

struct in_source
in_source_memory(const void *data, size_t size)
{
	return (struct in_source){ .size = size, .memory = data, .fd = -1 };
}

bool
in_source_fd(struct in_source *source, int fd, struct in_error *error)
{
	struct stat status;

	*source = (struct in_source){ .fd = fd, .owned = true };
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < 0 || (uint64_t)status.st_size > IN_MAX_FILE) {
		in_source_close(source);
		return in_fail(error, "not a regular file of a size that makes sense");
	}
	source->size = (uint64_t)status.st_size;
	return true;
}

struct in_source
in_source_range(struct in_source *outer, uint64_t base, uint64_t size)
{
	return (struct in_source){ .size = size, .fd = -1, .outer = outer, .base = base };
}

bool
in_source_deflate(struct in_source *source, struct in_source *outer, uint64_t base, uint64_t packed, uint64_t size, uint32_t crc,
                  struct in_error *error)
{
	*source = in_source_range(outer, base, size);
	source->inflate = in_inflate_open(outer, base, packed, size, crc, error);
	return source->inflate != NULL;
}

void
in_source_close(struct in_source *source)
{
	in_inflate_close(source->inflate);
	if (source->owned && source->fd >= 0)
		close(source->fd);
	*source = (struct in_source){ .fd = -1 };
}

static bool
read_file(int fd, uint64_t at, uint8_t *to, size_t size)
{
	while (size) {
		ssize_t got = pread(fd, to, size, (off_t)at);
		if (got <= 0)
			return false; /* an end here: the file has shrunk */
		to += got;
		at += (uint64_t)got;
		size -= (size_t)got;
	}
	return true;
}

bool
in_read(struct in_source *source, uint64_t at, void *to, size_t size)
{
	if (at > source->size || size > source->size - at)
		return false;
	if (!size)
		return true;
	if (source->inflate)
		return in_inflate_read(source->inflate, at, to, size);
	if (source->outer)
		return in_read(source->outer, source->base + at, to, size);
	if (source->fd >= 0)
		return read_file(source->fd, at, to, size);
	memcpy(to, source->memory + at, size);
	return true;
}

bool
in_load(struct in_source *source, uint64_t at, uint64_t size, struct fw_cursor *copy)
{
	*copy = (struct fw_cursor){ 0 };
	if (size > IN_MAX_TABLE || at > source->size || size > source->size - at)
		return false;
	uint8_t *data = malloc((size_t)size + 1);
	if (!data || !in_read(source, at, data, (size_t)size)) {
		free(data);
		return false;
	}
	data[size] = 0;
	*copy = fw_cursor(data, (size_t)size);
	return true;
}

void
in_unload(struct fw_cursor *copy)
{
	free((void *)(uintptr_t)copy->data);
	*copy = (struct fw_cursor){ 0 };
}
