/*
 * Memory of the software GPU: accounting, every shape of copy against a plain reference, fills, arrays, host and managed memory,
 * pointer attributes, virtual memory, pools.
 */
#include "gpu.h"

#include <fcntl.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

TEST(accounting)
{
	CUdeviceptr p[64], large;
	size_t before, total, available;

	setenv("FARWARP_SOFT_MEM", "64M", 1);
	gpu_start();
	OK(CU(cuMemGetInfo_v2)(&available, &total));
	CHECK_INT(total, 64 * MIB);
	before = gpu_used();
	for (int i = 0; i < 64; i++) {
		OK(CU(cuMemAlloc_v2)(&p[i], 1000));
		CHECK_INT(p[i] % 256, 0);
	}
	CHECK(gpu_used() > before);
	for (int i = 0; i < 64; i++)
		OK(CU(cuMemFree_v2)(p[i]));
	CHECK_INT(gpu_used(), before);
	/* All of it can be had in 1 MiB pieces, and not one more. */
	for (int i = 0; i < 64; i++)
		OK(CU(cuMemAlloc_v2)(&p[i], MIB));
	CHECK_INT(CU(cuMemAlloc_v2)(&large, 1), CUDA_ERROR_OUT_OF_MEMORY);
	for (int i = 0; i < 64; i += 2)
		OK(CU(cuMemFree_v2)(p[i]));
	OK(CU(cuMemAlloc_v2)(&large, 1000 * 1000));
	OK(CU(cuMemFree_v2)(large));
	CHECK_INT(CU(cuMemAlloc_v2)(&large, 40 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
	for (int i = 1; i < 64; i += 2)
		OK(CU(cuMemFree_v2)(p[i]));
	CHECK_INT(gpu_used(), before);
	OK(CU(cuMemAlloc_v2)(&large, 64 * MIB));
	OK(CU(cuMemFree_v2)(large));
	CHECK_INT(CU(cuMemFree_v2)(large), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMemFree_v2)(0));
	CHECK_INT(CU(cuMemAlloc_v2)(&large, 0), CUDA_ERROR_INVALID_VALUE);
}

static int
open_files(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static int
mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	int count = 0;

	for (int c; maps && (c = getc(maps)) != EOF;)
		count += c == '\n';
	if (maps)
		fclose(maps);
	return count;
}

TEST(reset_frees_everything)
{
	CUdeviceptr p, q;
	CUstream stream;
	CUevent event;
	CUarray array;
	CUcontext ctx;
	void *host;
	size_t total;

	gpu_start();
	size_t before = gpu_used();
	int files = 0, maps = 0;
	for (int round = 0; round < 20; round++) {
		if (round == 5) { /* what is kept once has been made by now */
			files = open_files();
			maps = mappings();
		}
		OK(CU(cuMemAlloc_v2)(&p, 5 * MIB));
		OK(CU(cuMemAlloc_v2)(&p, 5000));
		OK(CU(cuMemAllocManaged)(&p, 5000, CU_MEM_ATTACH_GLOBAL));
		OK(CU(cuMemHostAlloc)(&host, 5000, 0));
		OK(CU(cuStreamCreate)(&stream, 0));
		OK(CU(cuMemAllocAsync)(&p, 50000, stream));
		OK(CU(cuMemAllocAsync)(&q, 50000, stream));
		OK(CU(cuMemFreeAsync)(q, stream));
		OK(CU(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS));
		OK(CU(cuEventRecord)(event, stream));
		OK(CU(cuMemsetD8Async)(p, 1, 5000, stream));
		OK(CU(cuArrayCreate_v2)(&array, &(CUDA_ARRAY_DESCRIPTOR){ 64, 64, CU_AD_FORMAT_FLOAT, 1 }));
		OK(CU(cuDevicePrimaryCtxReset_v2)(0));
		CHECK_INT(CU(cuMemGetInfo_v2)(&total, &total), CUDA_ERROR_CONTEXT_IS_DESTROYED);
		OK(CU(cuDevicePrimaryCtxRetain)(&ctx, 0));
		CHECK_INT(gpu_used(), before);
		CHECK_INT(CU(cuStreamDestroy_v2)(stream), CUDA_ERROR_INVALID_HANDLE);
		CHECK_INT(CU(cuEventDestroy_v2)(event), CUDA_ERROR_INVALID_HANDLE);
		CHECK_INT(CU(cuArrayDestroy)(array), CUDA_ERROR_INVALID_HANDLE);
	}
	CHECK_INT(open_files(), files);
	CHECK(mappings() <= maps + 2);
}

TEST(simple_copies)
{
	uint8_t out[1000], in[1001];
	CUdeviceptr p, r;

	gpu_start();
	for (int i = 0; i < 1000; i++)
		in[i] = (uint8_t)(i * 7);
	OK(CU(cuMemAlloc_v2)(&p, 1000));
	OK(CU(cuMemAlloc_v2)(&r, 1000));
	OK(CU(cuMemcpyHtoD_v2)(p, in, 1000));
	OK(CU(cuMemcpyDtoD_v2)(r, p, 1000));
	OK(CU(cuMemcpyDtoH_v2)(out, r, 1000));
	CHECK(memcmp(in, out, 1000) == 0);
	OK(CU(cuMemcpy)(p + 10, (CUdeviceptr)(uintptr_t)in, 500));
	OK(CU(cuMemcpy)((CUdeviceptr)(uintptr_t)out, p, 1000));
	CHECK(memcmp(out + 10, in, 500) == 0 && memcmp(out, in, 10) == 0 && memcmp(out + 510, in + 510, 490) == 0);
	CHECK_INT(CU(cuMemcpyHtoD_v2)(p, in, 1001), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemcpyHtoD_v2)(p + 1, in, 1000), CUDA_ERROR_INVALID_VALUE);
	for (unsigned i = 0; i < 3; i++) { /* sizes that no memory has: an error, and nothing is read */
		size_t wrong = (size_t[]){ (size_t)-1, 1ul << 40, (size_t)-4096 }[i];
		CHECK_INT(CU(cuMemcpyHtoD_v2)(p, in, wrong), CUDA_ERROR_INVALID_VALUE);
		CHECK_INT(CU(cuMemcpyHtoDAsync_v2)(p, in, wrong, NULL), CUDA_ERROR_INVALID_VALUE);
		CHECK_INT(CU(cuMemcpyDtoH_v2)(out, p, wrong), CUDA_ERROR_INVALID_VALUE);
	}
	CHECK_INT(CU(cuMemcpyDtoH_v2)(out, p + 500, 501), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemcpyHtoD_v2)((CUdeviceptr)(uintptr_t)out, in, 10), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemcpyHtoD_v2)(0, in, 10), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMemcpyHtoD_v2)(p, in, 0));
}

TEST(fills)
{
	CUdeviceptr p;
	uint32_t out[256];

	gpu_start();
	OK(CU(cuMemAlloc_v2)(&p, sizeof(out)));
	OK(CU(cuMemsetD32_v2)(p, 0x12345678, 256));
	OK(CU(cuMemcpyDtoH_v2)(out, p, sizeof(out)));
	CHECK(out[0] == 0x12345678 && out[255] == 0x12345678);
	OK(CU(cuMemsetD16_v2)(p + 4, 0xabcd, 4));
	OK(CU(cuMemsetD8_v2)(p + 16, 0x5a, 3));
	OK(CU(cuMemcpyDtoH_v2)(out, p, sizeof(out)));
	CHECK(out[0] == 0x12345678 && out[1] == 0xabcdabcd && out[2] == 0xabcdabcd && out[3] == 0x12345678 && out[4] == 0x125a5a5a);
	OK(CU(cuMemsetD2D32_v2)(p, 64, 7, 3, 4));
	OK(CU(cuMemcpyDtoH_v2)(out, p, sizeof(out)));
	for (int row = 0; row < 4; row++)
		CHECK(out[row * 16] == 7 && out[row * 16 + 2] == 7 && out[row * 16 + 3] != 7);
	CHECK_INT(CU(cuMemsetD32_v2)(p + 2, 0, 1), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemsetD8_v2)(p, 0, 1025), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemsetD2D8_v2)(p, 16, 0, 17, 2), CUDA_ERROR_INVALID_VALUE);
}

/* One side of a random 3-D copy: where element (x, y, z) lies, in a buffer that we hold or in an array. */
struct side {
	CUmemorytype type;
	uint8_t *host;
	CUdeviceptr device;
	CUarray array;
	size_t x, y, z, pitch, height;
};

#define BOX 40 /* bytes, rows and slices of the whole */

static void
side_make(struct side *side, uint64_t *random, size_t width, size_t height, size_t depth)
{
	side->x = gpu_random(random) % (BOX - width + 1) / 4 * 4;
	side->y = gpu_random(random) % (BOX - height + 1);
	side->z = gpu_random(random) % (BOX - depth + 1);
	side->pitch = side->height = BOX;
	switch (gpu_random(random) % 4) {
	case 0: side->type = CU_MEMORYTYPE_HOST; break;
	case 1: side->type = CU_MEMORYTYPE_DEVICE; break;
	case 2: side->type = CU_MEMORYTYPE_UNIFIED; break;
	default: side->type = CU_MEMORYTYPE_ARRAY; break;
	}
}

/* The whole content of a side, as bytes in BOX x BOX x BOX order. */
static void
side_read(const struct side *side, uint8_t *out)
{
	if (side->type == CU_MEMORYTYPE_HOST)
		memcpy(out, side->host, BOX * BOX * BOX);
	else if (side->type != CU_MEMORYTYPE_ARRAY)
		OK(CU(cuMemcpyDtoH_v2)(out, side->device, BOX * BOX * BOX));
	else
		OK(CU(cuMemcpy3D_v2)(&(CUDA_MEMCPY3D){ .srcMemoryType = CU_MEMORYTYPE_ARRAY, .srcArray = side->array,
			.dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = out, .dstPitch = BOX, .dstHeight = BOX, .WidthInBytes = BOX,
			.Height = BOX, .Depth = BOX }));
}

TEST(random_boxes)
{
	static uint8_t host[2][BOX * BOX * BOX], before[2][BOX * BOX * BOX], after[BOX * BOX * BOX];
	CUdeviceptr device[2];
	CUarray array[2];
	uint64_t random = 88172645463325252ull;
	CUstream stream;

	gpu_start();
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	for (int i = 0; i < 2; i++) {
		CUDA_ARRAY3D_DESCRIPTOR desc = { .Width = BOX / 4, .Height = BOX, .Depth = BOX, .Format = CU_AD_FORMAT_UNSIGNED_INT8,
			.NumChannels = 4 };
		OK(CU(cuMemAlloc_v2)(&device[i], BOX * BOX * BOX));
		OK(CU(cuArray3DCreate_v2)(&array[i], &desc));
		for (size_t at = 0; at < sizeof(host[i]); at++)
			host[i][at] = (uint8_t)gpu_random(&random);
		OK(CU(cuMemcpyHtoD_v2)(device[i], host[i], sizeof(host[i])));
		OK(CU(cuMemcpy3D_v2)(&(CUDA_MEMCPY3D){ .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = host[i], .srcPitch = BOX,
			.srcHeight = BOX, .dstMemoryType = CU_MEMORYTYPE_ARRAY, .dstArray = array[i], .WidthInBytes = BOX, .Height = BOX,
			.Depth = BOX }));
	}
	for (int round = 0; round < 300; round++) {
		struct side s[2] = { { .host = host[0], .device = device[0], .array = array[0] },
			{ .host = host[1], .device = device[1], .array = array[1] } };
		size_t width = (1 + gpu_random(&random) % (BOX / 4)) * 4, height = 1 + gpu_random(&random) % BOX;
		size_t depth = round % 3 == 0 ? 1 : 1 + gpu_random(&random) % BOX;
		for (int i = 0; i < 2; i++) {
			side_make(&s[i], &random, width, height, depth);
			side_read(&s[i], before[i]);
		}
		CUDA_MEMCPY3D c = { .srcXInBytes = s[0].x, .srcY = s[0].y, .srcZ = s[0].z, .srcMemoryType = s[0].type,
			.srcHost = s[0].host, .srcDevice = s[0].device, .srcArray = s[0].array, .srcPitch = BOX, .srcHeight = BOX,
			.dstXInBytes = s[1].x, .dstY = s[1].y, .dstZ = s[1].z, .dstMemoryType = s[1].type, .dstHost = s[1].host,
			.dstDevice = s[1].device, .dstArray = s[1].array, .dstPitch = BOX, .dstHeight = BOX, .WidthInBytes = width,
			.Height = height, .Depth = depth };
		if (round % 2) {
			OK(CU(cuMemcpy3D_v2)(&c));
			OK(CU(cuStreamSynchronize)(NULL)); /* device to device does not wait */
		} else {
			OK(CU(cuMemcpy3DAsync_v2)(&c, stream));
			OK(CU(cuStreamSynchronize)(stream));
		}
		for (size_t z = 0; z < depth; z++)
			for (size_t y = 0; y < height; y++)
				memcpy(&before[1][((s[1].z + z) * BOX + s[1].y + y) * BOX + s[1].x],
				       &before[0][((s[0].z + z) * BOX + s[0].y + y) * BOX + s[0].x], width);
		side_read(&s[1], after);
		if (memcmp(after, before[1], sizeof(after)) != 0) {
			CHECK(!"a box differs");
			break;
		}
	}
	/* What does not fit is refused as a whole. */
	CUDA_MEMCPY3D bad = { .srcMemoryType = CU_MEMORYTYPE_ARRAY, .srcArray = array[0], .srcY = 1,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = device[0], .dstPitch = BOX, .dstHeight = BOX, .WidthInBytes = BOX,
		.Height = BOX, .Depth = 1 };
	CHECK_INT(CU(cuMemcpy3D_v2)(&bad), CUDA_ERROR_INVALID_VALUE);
	bad.srcY = 0;
	bad.dstZ = BOX;
	CHECK_INT(CU(cuMemcpy3D_v2)(&bad), CUDA_ERROR_INVALID_VALUE);
	bad.dstZ = 0;
	bad.dstPitch = BOX - 1;
	CHECK_INT(CU(cuMemcpy3D_v2)(&bad), CUDA_ERROR_INVALID_VALUE);
	bad.dstPitch = BOX;
	bad.dstMemoryType = (CUmemorytype)9;
	CHECK_INT(CU(cuMemcpy3D_v2)(&bad), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuArrayDestroy)(array[0]));
	bad.dstMemoryType = CU_MEMORYTYPE_DEVICE;
	CHECK_INT(CU(cuMemcpy3D_v2)(&bad), CUDA_ERROR_INVALID_HANDLE);
}

TEST(large_copies)
{
	size_t size = 37 * MIB + 12345;
	uint8_t *in = malloc(size), *out = calloc(1, size);
	CUdeviceptr p, r;
	CUstream stream;
	uint64_t random = 99;

	gpu_start();
	for (size_t i = 0; i < size; i++)
		in[i] = (uint8_t)(i % 4096 ? i * 31 : gpu_random(&random));
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	OK(CU(cuMemAlloc_v2)(&p, size));
	OK(CU(cuMemAlloc_v2)(&r, size));
	OK(CU(cuMemcpyHtoD_v2)(p, in, size)); /* several threads share it */
	OK(CU(cuMemcpyDtoDAsync_v2)(r, p, size, stream));
	OK(CU(cuMemsetD32Async)(p, 0xabcdef01, size / 4, stream));
	OK(CU(cuMemcpyDtoHAsync_v2)(out, r, size, stream));
	CHECK(memcmp(in, out, size) == 0);
	OK(CU(cuMemcpyDtoHAsync_v2)(out, p, size, stream));
	for (size_t i = 0; i < size / 4; i++)
		if (((uint32_t *)out)[i] != 0xabcdef01) {
			CHECK(!"a fill has a hole");
			break;
		}
	CHECK(out[size - 1] == in[size - 1]);
	free(in);
	free(out);
}

TEST(pitch_and_2d)
{
	uint8_t in[50 * 20], out[50 * 20] = { 0 };
	CUdeviceptr p;
	size_t pitch;

	gpu_start();
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 13);
	OK(CU(cuMemAllocPitch_v2)(&p, &pitch, 50, 20, 4));
	CHECK(pitch >= 50 && pitch % 256 == 0);
	CUDA_MEMCPY2D c = { .srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = in, .srcPitch = 50, .dstMemoryType = CU_MEMORYTYPE_DEVICE,
		.dstDevice = p, .dstPitch = pitch, .WidthInBytes = 50, .Height = 20 };
	OK(CU(cuMemcpy2D_v2)(&c));
	CUDA_MEMCPY2D back = { .srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = p, .srcPitch = pitch,
		.dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = out, .dstPitch = 50, .WidthInBytes = 50, .Height = 20 };
	OK(CU(cuMemcpy2DUnaligned_v2)(&back));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	back.srcPitch = 49;
	CHECK_INT(CU(cuMemcpy2D_v2)(&back), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemAllocPitch_v2)(&p, &pitch, 50, 20, 5), CUDA_ERROR_INVALID_VALUE);
}

TEST(arrays)
{
	CUDA_ARRAY3D_DESCRIPTOR desc = { .Width = 16, .Height = 8, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 2 }, got;
	CUmipmappedArray mipmap;
	CUarray array, level;
	float in[32], out[32];

	gpu_start();
	OK(CU(cuArray3DCreate_v2)(&array, &desc));
	OK(CU(cuArray3DGetDescriptor_v2)(&got, array));
	CHECK(got.Width == 16 && got.Height == 8 && got.NumChannels == 2);
	for (int i = 0; i < 32; i++)
		in[i] = (float)i;
	OK(CU(cuMemcpyHtoA_v2)(array, 0, in, sizeof(in)));
	OK(CU(cuMemcpyAtoH_v2)(out, array, 0, sizeof(out)));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	CHECK_INT(CU(cuMemcpyHtoA_v2)(array, 8, in, sizeof(in)), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuArrayDestroy)(array));
	CHECK_INT(CU(cuArrayDestroy)(array), CUDA_ERROR_INVALID_HANDLE);
	desc.NumChannels = 3;
	CHECK_INT(CU(cuArray3DCreate_v2)(&array, &desc), CUDA_ERROR_INVALID_VALUE);
	desc.NumChannels = 4;
	desc.Width = 1 << 20;
	CHECK_INT(CU(cuArray3DCreate_v2)(&array, &desc), CUDA_ERROR_INVALID_VALUE);
	desc.Width = 16;
	OK(CU(cuMipmappedArrayCreate)(&mipmap, &desc, 99));
	OK(CU(cuMipmappedArrayGetLevel)(&level, mipmap, 4));
	OK(CU(cuArray3DGetDescriptor_v2)(&got, level));
	CHECK(got.Width == 1 && got.Height == 1);
	CHECK_INT(CU(cuMipmappedArrayGetLevel)(&level, mipmap, 5), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuArrayDestroy)(level), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMipmappedArrayDestroy)(mipmap));
	CHECK_INT(gpu_used(), 0);
}

TEST(host_memory)
{
	uint32_t *host, *own = gpu_own_alloc(4096, 8192);
	CUdeviceptr device;
	unsigned flags;

	gpu_start();
	OK(CU(cuMemHostAlloc)((void **)&host, 4000, CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE));
	OK(CU(cuMemHostGetDevicePointer_v2)(&device, host, 0));
	OK(CU(cuMemHostGetFlags)(&flags, host));
	CHECK_INT(flags, CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_PORTABLE);
	memset(host, 0, 4000);
	uint32_t n = 1000, v = 5;
	OK(gpu_launch(gpu_kernel("add"), 4, 256, NULL, (void *[]){ &device, &n, &v }));
	OK(CU(cuCtxSynchronize)());
	CHECK(host[0] == 5 && host[999] == 5);
	OK(CU(cuMemFreeHost)(host));
	CHECK_INT(CU(cuMemFreeHost)(host), CUDA_ERROR_INVALID_VALUE);

	memset(own, 0, 8192);
	OK(CU(cuMemHostRegister_v2)(own, 8192, CU_MEMHOSTREGISTER_DEVICEMAP));
	CHECK_INT(CU(cuMemHostRegister_v2)(own + 10, 100, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	OK(CU(cuMemHostGetDevicePointer_v2)(&device, own, 0));
	n = 2048;
	OK(gpu_launch(gpu_kernel("add"), 8, 256, NULL, (void *[]){ &device, &n, &v }));
	OK(CU(cuCtxSynchronize)());
	CHECK(own[0] == 5 && own[2047] == 5);
	OK(CU(cuMemHostUnregister)(own));
	CHECK_INT(CU(cuMemHostUnregister)(own), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
	CHECK_INT(CU(cuMemHostGetDevicePointer_v2)(&device, own, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemHostRegister_v2)((void *)0x1000, 4096, 0), CUDA_ERROR_INVALID_VALUE);
	/* Not registered any more: a kernel must not reach it. */
	device = (CUdeviceptr)(uintptr_t)own;
	OK(gpu_launch(gpu_kernel("add"), 1, 32, NULL, (void *[]){ &device, &n, &v }));
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
	gpu_own_free(own, 8192);
}

TEST(managed)
{
	CUdeviceptr p;
	int32_t value, who[3];
	CUmemLocation device = { CU_MEM_LOCATION_TYPE_DEVICE, 0 };

	gpu_start();
	OK(CU(cuMemAllocManaged)(&p, 64 << 10, CU_MEM_ATTACH_GLOBAL));
	uint32_t *host = (uint32_t *)(uintptr_t)p, n = 1024, v = 3;
	for (int i = 0; i < 1024; i++)
		host[i] = (uint32_t)i;
	OK(gpu_launch(gpu_kernel("add"), 4, 256, NULL, (void *[]){ &p, &n, &v }));
	OK(CU(cuCtxSynchronize)());
	CHECK(host[0] == 3 && host[1023] == 1026);
	OK(CU(cuMemRangeGetAttribute)(&value, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, 64 << 10));
	CHECK_INT(value, CU_DEVICE_INVALID);
	OK(CU(cuMemAdvise_v2)(p, 8192, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device));
	OK(CU(cuMemAdvise)(p, 8192, CU_MEM_ADVISE_SET_READ_MOSTLY, 0));
	OK(CU(cuMemAdvise)(p, 64 << 10, CU_MEM_ADVISE_SET_ACCESSED_BY, CU_DEVICE_CPU));
	OK(CU(cuMemRangeGetAttribute)(&value, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, 8192));
	CHECK_INT(value, 0);
	OK(CU(cuMemRangeGetAttribute)(&value, 4, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, p, 8193));
	CHECK_INT(value, CU_DEVICE_INVALID);
	OK(CU(cuMemRangeGetAttribute)(&value, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p + 4096, 4096));
	CHECK_INT(value, 1);
	OK(CU(cuMemRangeGetAttribute)(who, 12, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, p, 64 << 10));
	CHECK(who[0] == CU_DEVICE_CPU && who[1] == CU_DEVICE_INVALID && who[2] == CU_DEVICE_INVALID);
	OK(CU(cuMemPrefetchAsync_v2)(p, 64 << 10, device, 0, NULL));
	OK(CU(cuMemRangeGetAttribute)(&value, 4, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, p, 64 << 10));
	CHECK_INT(value, 0);
	CHECK_INT(CU(cuMemPrefetchAsync)(p, (64 << 10) + 1, 0, NULL), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemPrefetchAsync)(p, 64, 3, NULL), CUDA_ERROR_INVALID_DEVICE);
	CHECK_INT(CU(cuMemAllocManaged)(&p, 64, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST(pointer_attributes)
{
	CUdeviceptr p, m, start;
	unsigned type;
	int ordinal, local;
	unsigned managed = UINT32_MAX; /* all 32 bits are written */
	size_t size;
	void *pinned, *host;
	CUcontext ctx, current;
	CUpointer_attribute wanted[] = { CU_POINTER_ATTRIBUTE_CONTEXT, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
		CU_POINTER_ATTRIBUTE_DEVICE_POINTER, CU_POINTER_ATTRIBUTE_HOST_POINTER, CU_POINTER_ATTRIBUTE_IS_MANAGED,
		CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL };
	void *into[] = { &ctx, &type, &start, &host, &managed, &ordinal };

	gpu_start();
	OK(CU(cuMemAlloc_v2)(&p, 3 << 20));
	OK(CU(cuMemAllocManaged)(&m, 100, CU_MEM_ATTACH_GLOBAL));
	OK(CU(cuMemHostAlloc)(&pinned, 100, 0));
	OK(CU(cuCtxGetCurrent)(&current));
	OK(CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p + 1000));
	CHECK_INT(type, CU_MEMORYTYPE_DEVICE);
	OK(CU(cuPointerGetAttribute)(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, p + 1000));
	OK(CU(cuPointerGetAttribute)(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, p + 1000));
	CHECK(start == p && size == 3 << 20);
	CHECK_INT(CU(cuPointerGetAttribute)(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, p), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuPointerGetAttribute)(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)&local),
	          CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuPointerGetAttributes)(6, wanted, into, (CUdeviceptr)(uintptr_t)pinned));
	CHECK(ctx == current && type == CU_MEMORYTYPE_HOST && host == pinned && !managed && ordinal == 0);
	OK(CU(cuPointerGetAttributes)(6, wanted, into, m));
	CHECK(type == CU_MEMORYTYPE_DEVICE && host == (void *)(uintptr_t)m && managed && ordinal == 0);
	OK(CU(cuPointerGetAttributes)(6, wanted, into, (CUdeviceptr)(uintptr_t)&local));
	CHECK(!ctx && type == 0 && !start && !host && !managed && ordinal == CU_DEVICE_INVALID);
	OK(CU(cuMemGetAddressRange_v2)(&start, &size, p + 5));
	CHECK(start == p && size == 3 << 20);
	CHECK_INT(CU(cuMemGetAddressRange_v2)(&start, &size, 12345), CUDA_ERROR_NOT_FOUND);
}

TEST(virtual_memory)
{
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	CUmemAccessDesc access = { prop.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle a, b, again;
	CUdeviceptr va, other;
	size_t unit;
	unsigned long long flags;
	uint32_t n, v = 9, out;
	int fd;

	gpu_start();
	OK(CU(cuMemGetAllocationGranularity)(&unit, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
	OK(CU(cuMemAddressReserve)(&va, (size_t)32 << 30, 0, 0, 0));
	OK(CU(cuMemCreate)(&a, 2 * unit, &prop, 0));
	OK(CU(cuMemCreate)(&b, unit, &prop, 0));
	CHECK_INT(gpu_used(), 3 * unit);
	CHECK_INT(CU(cuMemCreate)(&again, unit + 1, &prop, 0), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMemMap)(va, 2 * unit, 0, a, 0));
	OK(CU(cuMemMap)(va + 2 * unit, unit, 0, b, 0));
	CHECK_INT(CU(cuMemMap)(va + unit, unit, 0, b, 0), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemsetD8_v2)(va, 0, 16), CUDA_ERROR_INVALID_VALUE); /* no access yet */
	OK(CU(cuMemSetAccess)(va, 3 * unit, &access, 1));
	OK(CU(cuMemGetAccess)(&flags, &prop.location, va));
	CHECK_INT(flags, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	OK(CU(cuMemRelease)(b));
	OK(CU(cuMemsetD8_v2)(va, 0, 3 * unit)); /* across both */
	n = (uint32_t)(3 * unit / 4);
	OK(gpu_launch(gpu_kernel("add"), n / 256, 256, NULL, (void *[]){ &va, &n, &v }));
	OK(CU(cuMemcpyDtoH_v2)(&out, va + 3 * unit - 4, 4));
	CHECK_INT(out, 9);
	CHECK_INT(CU(cuMemcpyDtoH_v2)(&out, va + 3 * unit - 2, 4), CUDA_ERROR_INVALID_VALUE);
	/* the same memory at a second place */
	OK(CU(cuMemAddressReserve)(&other, unit, 0, 0, 0));
	OK(CU(cuMemMap)(other, unit, 0, a, 0));
	OK(CU(cuMemSetAccess)(other, unit, &access, 1));
	OK(CU(cuMemsetD32_v2)(va, 77, 1));
	OK(CU(cuMemcpyDtoH_v2)(&out, other, 4));
	CHECK_INT(out, 77);
	OK(CU(cuMemRetainAllocationHandle)(&again, (void *)(uintptr_t)(va + 2 * unit)));
	OK(CU(cuMemRelease)(again));
	OK(CU(cuMemExportToShareableHandle)(&fd, a, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	OK(CU(cuMemImportFromShareableHandle)(&again, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	close(fd);
	OK(CU(cuMemRelease)(again));
	CHECK_INT(CU(cuMemImportFromShareableHandle)(&again, (void *)(intptr_t)0, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
	          CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemUnmap)(va, unit), CUDA_ERROR_INVALID_VALUE); /* half a mapping */
	CHECK_INT(CU(cuMemAddressFree)(va, (size_t)32 << 30), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMemUnmap)(va, 3 * unit));
	OK(CU(cuMemUnmap)(other, unit));
	OK(CU(cuMemAddressFree)(va, (size_t)32 << 30));
	OK(CU(cuMemAddressFree)(other, unit));
	CHECK_INT(gpu_used(), 2 * unit);
	OK(CU(cuMemRelease)(a));
	CHECK_INT(gpu_used(), 0);
}

TEST(read_only_mapping)
{
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
	CUmemAccessDesc access = { prop.location, CU_MEM_ACCESS_FLAGS_PROT_READ };
	CUmemGenericAllocationHandle a;
	CUdeviceptr va;

	gpu_start();
	OK(CU(cuMemAddressReserve)(&va, 2 << 20, 0, 0, 0));
	OK(CU(cuMemCreate)(&a, 2 << 20, &prop, 0));
	OK(CU(cuMemMap)(va, 2 << 20, 0, a, 0));
	OK(CU(cuMemSetAccess)(va, 2 << 20, &access, 1));
	OK(gpu_launch(gpu_kernel("poke"), 1, 1, NULL, (void *[]){ &va }));
	CHECK_INT(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST(pools)
{
	CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED, .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
	CUmemoryPool pool, initial;
	CUstream stream;
	CUdeviceptr p, again;
	uint64_t value = UINT64_MAX;
	uint32_t n = 1000, v = 4, out[1000];

	gpu_start();
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	OK(CU(cuDeviceGetDefaultMemPool)(&initial, 0));
	OK(CU(cuMemPoolCreate)(&pool, &props));
	OK(CU(cuMemPoolSetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value));
	OK(CU(cuMemAllocFromPoolAsync)(&p, 4000, pool, stream));
	OK(CU(cuMemsetD8Async)(p, 0, 4000, stream));
	OK(gpu_launch(gpu_kernel("add"), 4, 256, stream, (void *[]){ &p, &n, &v }));
	OK(CU(cuMemcpyDtoHAsync_v2)(out, p, 4000, stream));
	OK(CU(cuMemFreeAsync)(p, stream));
	CHECK(out[0] == 4 && out[999] == 4);
	CHECK_INT(CU(cuMemFreeAsync)(p, stream), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuMemAllocFromPoolAsync)(&again, 4000, pool, stream));
	CHECK(again == p); /* the same stream may have it at once */
	OK(CU(cuMemFree_v2)(again));
	OK(CU(cuStreamSynchronize)(stream));
	OK(CU(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value));
	CHECK_INT(value, 0);
	OK(CU(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value));
	CHECK(value >= 4000);
	OK(CU(cuMemPoolTrimTo)(pool, 0));
	OK(CU(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value));
	CHECK_INT(value, 0);
	OK(CU(cuMemPoolDestroy)(pool));
	CHECK_INT(CU(cuMemAllocFromPoolAsync)(&p, 4000, pool, stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(CU(cuMemPoolDestroy)(initial), CUDA_ERROR_INVALID_VALUE);
	/* The default pool gives everything back when the program synchronises. */
	OK(CU(cuMemAllocAsync)(&p, 10 * MIB, stream));
	OK(CU(cuMemFreeAsync)(p, stream));
	OK(CU(cuStreamSynchronize)(stream));
	CHECK_INT(gpu_used(), 0);
}

static void
change_rows(void *user)
{
	uint32_t *rows = user;

	for (unsigned i = 0; i < 64; i++)
		rows[i] += 1000;
}

/* A list's pageable memory: read when the stream comes to it, or within the call, as the list says; written in the order of the stream. */
TEST(batch_order)
{
	static uint32_t late[64], out[64], box_in[12][10], box_out[8][16];
	uint32_t soon[64];
	CUdeviceptr there[2], from[2] = { (CUdeviceptr)(uintptr_t)late, (CUdeviceptr)(uintptr_t)soon }, to[1] = { (CUdeviceptr)(uintptr_t)out }, box;
	size_t sizes[2] = { sizeof(late), sizeof(soon) }, first[2] = { 0, 1 }, failed;
	CUmemcpyAttributes attributes[2] = { { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM },
		{ .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL } };
	CUstream stream;

	gpu_start();
	OK(CU(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < 2; i++)
		OK(CU(cuMemAlloc_v2)(&there[i], sizeof(late)));
	OK(CU(cuMemAlloc_v2)(&box, 4096));
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 64; i++) {
			late[i] = round * 100 + i;
			soon[i] = round + i;
			out[i] = 0;
		}
		OK(CU(cuLaunchHostFunc)(stream, change_rows, late));
		OK(CU(cuMemcpyBatchAsync)(there, from, sizes, 2, attributes, first, 2, &failed, stream));
		memset(soon, 0xff, sizeof(soon));
		OK(CU(cuMemcpyBatchAsync)(to, there, sizes, 1, attributes, first, 1, &failed, stream));
		OK(CU(cuLaunchHostFunc)(stream, change_rows, out)); /* behind the copy to it */
		OK(CU(cuStreamSynchronize)(stream));
		CHECK(out[0] == round * 100 + 2000 && out[63] == round * 100 + 2063);
		OK(CU(cuMemcpyDtoH_v2)(out, there[1], sizeof(out)));
		CHECK(out[0] == round && out[63] == round + 63);
	}
	/* Boxes: 3 planes of 2 rows of 5 words out of rows of 10, planes of 4 rows; and back into rows of 16, one plane behind the other. */
	for (unsigned i = 0; i < 120; i++)
		box_in[i / 10][i % 10] = i;
	CUDA_MEMCPY3D_BATCH_OP op[2] = { { .src = { .type = CU_MEMCPY_OPERAND_TYPE_POINTER, .op.ptr = { (CUdeviceptr)(uintptr_t)box_in, 40, 4 } },
		.dst = { .type = CU_MEMCPY_OPERAND_TYPE_POINTER, .op.ptr = { box, 0, 0 } }, .extent = { 20, 2, 3 },
		.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM }, { .src = { .type = CU_MEMCPY_OPERAND_TYPE_POINTER, .op.ptr = { box, 0, 0 } },
		.dst = { .type = CU_MEMCPY_OPERAND_TYPE_POINTER, .op.ptr = { (CUdeviceptr)(uintptr_t)box_out, 64, 2 } }, .extent = { 20, 2, 3 },
		.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_ANY } };
	OK(CU(cuMemcpy3DBatchAsync)(1, &op[0], &failed, 0, stream));
	OK(CU(cuMemcpy3DBatchAsync_v2)(1, &op[1], 0, stream));
	OK(CU(cuStreamSynchronize)(stream));
	for (unsigned plane = 0; plane < 3; plane++)
		for (unsigned row = 0; row < 2; row++)
			for (unsigned i = 0; i < 16; i++)
				CHECK_INT(box_out[plane * 2 + row][i], i < 5 ? box_in[plane * 4 + row][i] : 0);
	op[0].src.op.ptr.rowLength = 19; /* shorter than what is copied of it */
	CHECK_INT(CU(cuMemcpy3DBatchAsync)(1, &op[0], &failed, 0, stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(failed, 0);
	op[0].src.op.ptr.rowLength = 40;
	op[0].extent.width = 2048; /* more than there is on the device */
	CHECK_INT(CU(cuMemcpy3DBatchAsync)(1, &op[0], &failed, 0, stream), CUDA_ERROR_INVALID_VALUE);
	OK(CU(cuStreamSynchronize)(stream));
	OK(CU(cuStreamDestroy_v2)(stream));
}

TEST(batch_copies)
{
	uint32_t in[4][10], out[4][10] = { { 0 } };
	CUdeviceptr p[4], src[4], host[4];
	size_t sizes[4], first[] = { 0, 2 }, failed;
	CUmemcpyAttributes attributes[2] = { { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM },
		{ .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL } };
	CUstream stream;

	gpu_start();
	OK(CU(cuStreamCreate)(&stream, 0));
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned k = 0; k < 10; k++)
			in[i][k] = i * 100 + k;
		OK(CU(cuMemAlloc_v2)(&p[i], 40));
		src[i] = (CUdeviceptr)(uintptr_t)in[i];
		host[i] = (CUdeviceptr)(uintptr_t)out[i];
		sizes[i] = 40;
	}
	OK(CU(cuMemcpyBatchAsync)(p, src, sizes, 4, attributes, first, 2, &failed, stream));
	OK(CU(cuMemcpyBatchAsync_v2)(host, p, sizes, 4, attributes, first, 2, stream));
	OK(CU(cuStreamSynchronize)(stream));
	CHECK(memcmp(in, out, sizeof(in)) == 0);
	sizes[2] = 41;
	CHECK_INT(CU(cuMemcpyBatchAsync)(p, src, sizes, 4, attributes, first, 2, &failed, stream), CUDA_ERROR_INVALID_VALUE);
	CHECK_INT(failed, 2);
	CHECK_INT(CU(cuMemcpyBatchAsync)(p, src, sizes, 4, attributes, first, 2, &failed, NULL), CUDA_ERROR_INVALID_VALUE);
}

TEST_MAIN()
