/*
 * The first byte says what the others are: 0 an archive, inspected whole as a wheel; 1 its METADATA, 2 its WHEEL, 3 a Python file of it,
 * 4 raw deflate that claims to become 64 KiB, 5 the name of the wheel's file. What it needs is looked for in an empty root.
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

/* Read forward, backward and forward: with restarts. */
static void
inflate(const uint8_t *data, size_t size)
{
	struct in_source outer = in_source_memory(data, size), source;
	uint8_t bytes[100];

	/* The checksum is right for one in 2^32 inputs; the decompressor is what is tested. */
	if (!in_source_deflate(&source, &outer, 0, size, 65536, 0, NULL))
		return;
	in_read(&source, 65000, bytes, 100);
	in_read(&source, 3, bytes, 100);
	in_source_close(&source);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0]) {
	case 0: inspect_as("demo-1.0-cp311-cp311-linux_x86_64.whl", data + 1, size - 1); break;
	case 4: inflate(data + 1, size - 1); break;
	case 1: case 2: case 3: case 5: inspect_text(data[0], data + 1, size - 1); break;
	default: break;
	}
	return 0;
}
