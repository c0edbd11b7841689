/* Writes the first inputs of the fuzz targets that read binary formats into FOLDER/fatbin, elf, wrapper, object,
 * cache, wire, record, library and wheel. SAMPLE is a library made of tests/inspect/sample.c. */
#include <stdio.h>
#include <sys/stat.h>

#include "image/image.h"
#include "layers/record.h"
#include "tests/image/build.h"
#include "tests/inspect/build.h"
#include "tests/native/cache.h"

static const char ptx[] = ".version 7.5\n.target sm_75\n.address_size 64\n.visible .entry k1() { ret; }\n";
static const char *folder;

static void
save(const char *target, const char *name, const void *data, size_t size)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", folder, target);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s", folder, target, name);
	FILE *file = fopen(path, "wb");
	if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
		perror(path);
		exit(1);
	}
}

static void
fatbins(void)
{
	for (int packing = 0; packing < 3; packing++) {
		struct blob blob = { 0 }, wrapped = { 0 };
		char name[32];
		fatbin_begin(&blob);
		fatbin_add(&blob, &(struct entry){ .kind = 2, .arch = 86, .data = "\x7f" "ELF", .size = 4 });
		fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 75, .version = 75, .packing = packing, .data = ptx,
		                                  .size = sizeof(ptx), .name = "a.cu", .options = "-g" });
		fatbin_add(&blob, &(struct entry){ .kind = 1, .arch = 90, .version = 90, .flags = 0x100000, .data = ptx,
		                                  .size = sizeof(ptx) });
		snprintf(name, sizeof(name), "packing%d", packing);
		save("fatbin", name, blob.data, blob.size);
		blob_add(&wrapped, "\x14", 1);
		blob_add(&wrapped, blob.data + 16, blob.size - 16);
		save("wrapper", name, wrapped.data, wrapped.size);
		free(blob.data);
		free(wrapped.data);
	}
}

static void
caches(void)
{
	static const char *const pairs[][2] = { { "libc.so.6", "/lib/libc.so.6" }, { "libcuda.so.1", "/opt/a/libcuda.so.1" } };
	uint8_t bytes[1024];

	for (int old = 0; old < 2; old++)
		save("cache", old ? "old" : "new", bytes, cache_build(bytes, sizeof(bytes), old, pairs, 2));
}

/* fuzz_wire.c: a hello, frames to a worker and to a client, a ring. */
static void
wires(void)
{
	enum { DATA = 1, CREDIT, OPEN, CLOSE, BEAT, STREAMS };
	static const uint32_t record[8] = { 0, 7 };
	static const uint32_t frames[][4] = { { OPEN, 1 }, { DATA, 1, 32 }, { 0 }, { 0 }, { CREDIT, 1, 0 }, { BEAT }, { STREAMS, 0, 2 }, { CLOSE, 1 } };
	struct blob blob = { 0 };

	blob_add(&blob, "\0\5\0\0\0hello", 10);
	save("wire", "hello", blob.data, blob.size);
	for (unsigned client = 0; client < 2; client++) {
		blob.size = 0;
		blob_add(&blob, client ? "\2" : "\1", 1);
		for (unsigned n = client; n < sizeof(frames) / sizeof(frames[0]); n++)
			blob_add(&blob, frames[n], sizeof(frames[n]));
		save("wire", client ? "to_client" : "to_worker", blob.data, blob.size);
	}
	blob.size = 0;
	blob_add(&blob, "\3" "\100\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\0", 17);
	blob_add(&blob, record, sizeof(record));
	blob_add(&blob, record, sizeof(record));
	save("wire", "ring", blob.data, blob.size);
	free(blob.data);
}

/* An event with these inputs and 8 bytes of outputs, behind what is there. */
static void
add_event(struct blob *blob, unsigned kind, const void *inputs, uint64_t size)
{
	const uint64_t zeros[2] = { 0 }, eight = 8, padding = (8 - size % 8) % 8;
	struct record_event event = { .mark = RECORD_MARK, .kind = (uint16_t)kind, .flags = RECORD_OUTPUTS, .size = 32 + size + padding };

	blob_add(blob, &event, sizeof(event));
	blob_add(blob, &size, 8);
	blob_add(blob, inputs, size);
	blob_add(blob, zeros, padding);
	blob_add(blob, &eight, 8);
	blob_add(blob, zeros, 8);
	blob_add(blob, zeros, 8);
}

static void
records(void)
{
	struct session_launch launch = { .grid = { 1, 1, 1 }, .block = { 32, 1, 1 } };
	const uint64_t alloc[] = { 1, 4096 }, image[] = { 0, 1, 8, 0x100000000 }, end[] = { 4, 0 };
	struct {
		CUDA_MEMCPY3D copy;
		uint64_t stream, size;
	} box = { .copy = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .dstMemoryType = CU_MEMORYTYPE_HOST, .WidthInBytes = 8, .Height = 1, .Depth = 1 } };
	struct blob blob = { 0 };

	add_event(&blob, CALL_cuMemAlloc_v2, alloc, sizeof(alloc));
	add_event(&blob, CALL_cuLaunchKernel, &launch, sizeof(launch));
	add_event(&blob, CALL_cuModuleLoadDataEx, image, sizeof(image));
	add_event(&blob, CALL_cuMemcpy3D_v2, &box, sizeof(box));
	add_event(&blob, RECORD_END, end, sizeof(end));
	save("record", "events", blob.data, blob.size);
	free(blob.data);
}

/* fuzz_library.c and fuzz_wheel.c: a library, and wheels and parts of wheels behind a byte that says which. */
static void
wheels(const char *sample)
{
	static const struct { const char *name, *text; } parts[] = { { NULL, NULL }, { "metadata", "\1" WHEEL_METADATA }, { "wheel", "\2" WHEEL_WHEEL },
		{ "python", "\3" WHEEL_PYTHON }, { NULL, NULL }, { "name", "\5demo-1.0-1-py3.cp311-abi3-musllinux_1_2_x86_64.linux_aarch64.whl" } };
	static uint8_t library[1 << 16];
	FILE *file = fopen(sample, "rb");
	size_t size = file ? fread(library, 1, sizeof(library), file) : 0;

	if (file)
		fclose(file);
	if (!size) {
		perror(sample);
		exit(1);
	}
	save("library", "sample", library, size);
	for (int packed = 0; packed < 2; packed++) {
		struct archive a = { 0 };
		struct blob seed = { 0 };
		wheel_build(&a, library, size, packed);
		blob_add(&seed, "", 1);
		blob_add(&seed, a.file.data, a.file.size);
		save("wheel", packed ? "deflated" : "stored", seed.data, seed.size);
		seed.size = 1;
		seed.data[0] = 4;
		deflated(library, size, &seed);
		save("wheel", "inflate", seed.data, seed.size);
		free(seed.data);
		free(a.file.data);
	}
	for (size_t n = 0; n < sizeof(parts) / sizeof(parts[0]); n++)
		if (parts[n].name)
			save("wheel", parts[n].name, parts[n].text, strlen(parts[n].text));
}

int
main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	folder = argv[1];
	mkdir(folder, 0777);
	fatbins();
	caches();
	wires();
	records();
	wheels(argv[2]);
	for (int old = 0; old < 2; old++) {
		struct blob blob = { 0 };
		elf_build(&blob, old, 86);
		save("elf", old ? "old" : "new", blob.data, blob.size);
		free(blob.data);
	}
	size_t size;
	void *linked = img_linked_write(&(struct img_payload){ .data = ptx, .size = sizeof(ptx) }, 1, 86, &size);
	save("elf", "linked", linked, size);
	free(linked);
	struct blob file = { 0 }, archive = { 0 };
	object_build(&file, (const char *[]){ ptx, ptx }, 2);
	save("object", "object", file.data, file.size);
	archive_begin(&archive);
	for (int i = 0; i < 2; i++)
		archive_add(&archive, &file);
	save("object", "archive", archive.data, archive.size);
	free(file.data);
	free(archive.data);
	return 0;
}
