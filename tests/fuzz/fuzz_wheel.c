/*
 * The first byte says what the others are: 0 an archive, inspected whole as a wheel; 1 its METADATA, 2 its WHEEL, 3 a Python file of it,
 * 4 raw deflate, 5 the name of the wheel's file. What it needs is looked for in an empty root.
 */
#include "inspect/inspect.h"
#include "tests/inspect/build.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
inspect_as(const char *name, const void *data, size_t size)
{
	static const struct in_options options = { .device = { .cc = 90 }, .root = "/proc/self/fdinfo" };
	struct in_source source = in_source_memory(data, size);
	struct in_inspector inspector;

	in_inspector_open(&inspector, &options);
	inspector.world.site = "/site";
	struct in_report *report = in_inspect_wheel(&inspector, name, &source);
	const struct in_finding *why;
	const struct in_report *where;
	in_verdict(report, &why, &where);
	in_report_free(report);
	in_inspector_close(&inspector);
}

static void
inspect_text(int which, const uint8_t *data, size_t size)
{
	struct archive a = { 0 };
	char name[64] = "";

	archive_member(&a, "demo/__init__.py", which == 3 ? data : (const void *)"", which == 3 ? size : 0, 0);
	archive_member(&a, "demo-1.0.dist-info/METADATA", which == 1 ? data : (const void *)WHEEL_METADATA, which == 1 ? size : sizeof(WHEEL_METADATA) - 1, 0);
	archive_member(&a, "demo-1.0.dist-info/WHEEL", which == 2 ? data : (const void *)WHEEL_WHEEL, which == 2 ? size : sizeof(WHEEL_WHEEL) - 1, 0);
	archive_end(&a);
	if (which == 5)
		memcpy(name, data, size < sizeof(name) - 1 ? size : sizeof(name) - 1);
	inspect_as(which == 5 ? name : which == 2 ? "renamed.whl" : "demo-1.0-cp311-cp311-linux_x86_64.whl", a.file.data, a.file.size);
	free(a.file.data);
}

#ifdef FARWARP_ZLIB
/* What zlib makes of it in one go must be what is read forward, backward and forward again. */
static void
compare_deflated(const uint8_t *data, size_t size)
{
	static uint8_t whole[4 << 20];
	uint8_t bytes[100];
	z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size, .next_out = whole, .avail_out = sizeof(whole) };

	if (inflateInit2(&z, -15) != Z_OK)
		return;
	int state = inflate(&z, Z_FINISH);
	size_t made = z.total_out;
	inflateEnd(&z);
	struct in_source outer = in_source_memory(data, size), source;
	bool fine = in_source_deflate(&source, &outer, 0, size, made, (uint32_t)crc32(0, whole, (uInt)made), NULL);
	if (fine != (state == Z_STREAM_END))
		__builtin_trap();
	static const size_t thirds[] = { 2, 0, 1, 0, 2 };
	for (size_t n = 0; fine && made > 100 && n < sizeof(thirds) / sizeof(thirds[0]); n++) {
		size_t at = (made - 100) / 2 * thirds[n];
		if (!in_read(&source, at, bytes, 100) || memcmp(bytes, whole + at, 100) != 0)
			__builtin_trap();
	}
	if (fine)
		in_source_close(&source);
}
#else
static void
compare_deflated(const uint8_t *data, size_t size)
{
}
#endif

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0]) {
	case 0: inspect_as("demo-1.0-cp311-cp311-linux_x86_64.whl", data + 1, size - 1); break;
	case 4: compare_deflated(data + 1, size - 1); break;
	case 1: case 2: case 3: case 5: inspect_text(data[0], data + 1, size - 1); break;
	default: break;
	}
	return 0;
}
