/* Names of libraries: which are CUDA's, and which distribution brings them. */
#include "inspect/inspect.h"

#include <string.h>

/* Name up to ".so", the distribution on PyPI, and whether its name ends in -cuNN also from CUDA 13 on. */
static const struct {
	const char *library, *distribution;
	bool suffix;
} cuda_libraries[] = {
	{ "libcuda", NULL, false },
	{ "libcudart", "nvidia-cuda-runtime", false },
	{ "libcublas", "nvidia-cublas", false },
	{ "libcublasLt", "nvidia-cublas", false },
	{ "libnvblas", "nvidia-cublas", false },
	{ "libcudnn*", "nvidia-cudnn", true },
	{ "libcufft*", "nvidia-cufft", false },
	{ "libcurand", "nvidia-curand", false },
	{ "libcusolver*", "nvidia-cusolver", false },
	{ "libcusparseLt", "nvidia-cusparselt", true },
	{ "libcusparse", "nvidia-cusparse", false },
	{ "libnccl", "nvidia-nccl", true },
	{ "libnvrtc*", "nvidia-cuda-nvrtc", false },
	{ "libnvJitLink", "nvidia-nvjitlink", false },
	{ "libnvToolsExt", "nvidia-nvtx", false },
	{ "libcupti", "nvidia-cuda-cupti", false },
	{ "libcufile*", "nvidia-cufile", false },
	{ "libnvshmem*", "nvidia-nvshmem", true },
	{ "libcudss*", "nvidia-cudss", true },
	{ "libnvjpeg", "nvidia-nvjpeg", false },
	{ "libnpp*", "nvidia-npp", false },
	{ "libnvvm", "nvidia-nvvm", false },
	{ "libnvfatbin", "nvidia-nvfatbin", false },
	{ "libcutensor*", "cutensor", true },
	{ "libcudla", NULL, false },
	{ "libnvidia-*", NULL, false },
	{ "libnvinfer*", NULL, false },
	{ "libnvptxcompiler", NULL, false },
};

static const struct {
	const char *library, *distribution;
} brought[] = {
	{ "libtorch*", "torch" }, { "libc10*", "torch" }, { "libshm", "torch" }, { "libtorchvision", "torchvision" }, { "libpython*", "python" },
	{ "libtensorflow*", "tensorflow" }, { "libjax*", "jaxlib" }, { "libonnxruntime*", "onnxruntime" },
	{ "libtriton", "triton" },
};

static bool
is(const char *name, const char *pattern)
{
	size_t length = strlen(pattern);

	if (length && pattern[length - 1] == '*')
		return strncmp(name, pattern, length - 1) == 0;
	return strncmp(name, pattern, length) == 0 && strncmp(name + length, ".so", 3) == 0;
}

static int
row_of(const char *library)
{
	const char *slash = strrchr(library, '/');

	for (size_t n = 0; n < sizeof(cuda_libraries) / sizeof(cuda_libraries[0]); n++)
		if (is(slash ? slash + 1 : library, cuda_libraries[n].library))
			return (int)n;
	return -1;
}

bool
in_is_cuda_library(const char *name)
{
	return row_of(name) >= 0;
}

bool
in_distribution_of(const char *library, uint32_t major, char name[64])
{
	int row = row_of(library);

	if (row < 0 || !cuda_libraries[row].distribution)
		return false;
	if (major && (major < 13 || cuda_libraries[row].suffix))
		snprintf(name, 64, "%s-cu%u", cuda_libraries[row].distribution, major);
	else
		snprintf(name, 64, "%s", cuda_libraries[row].distribution);
	return true;
}

const char *
in_brought_by_importer(const char *library)
{
	for (size_t n = 0; n < sizeof(brought) / sizeof(brought[0]); n++)
		if (is(library, brought[n].library))
			return brought[n].distribution;
	return NULL;
}
