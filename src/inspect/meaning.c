/*
 * What the ids of findings mean, for farwarp doctor --explain. Those with an F are shared with the doctor's rules, which judge a machine;
 * here stands what a file has to do with them. docs/inspect.md lists the same ids, which a test compares.
 */
#include "inspect/inspect.h"

#include <string.h>
#include <strings.h>

static const struct in_meaning meanings[] = {
	{ "F070", "libcuda.so.1 is nowhere",
	  "The file is linked with the driver's library, and no folder that the loader searches has one.",
	  "on a machine with a GPU: install the driver's user-space part (libcuda1, libnvidia-compute-NNN, cuda-driver-libs)\n"
	  "farwarp run PROGRAM        # a software GPU, or one of another machine\n"
	  "farwarp inspect --cc 9.0 FILE        # to check a file on a machine that needs no driver" },
	{ "F072", "the toolkit's stub is found in place of the driver",
	  "The stub libcuda.so is for linking only: every call of it fails. Its folder came onto the search path.",
	  "take the folder that ends in /stubs out of LD_LIBRARY_PATH, RUNPATH and /etc/ld.so.conf.d; sudo ldconfig" },
	{ "F073", "two drivers are mapped, or one that was replaced on disk",
	  "A process has one state per library: two libcuda.so.1 do not know each other's contexts. One that was replaced while the process runs "
	  "belongs to a kernel module that may be gone.",
	  "restart the process after an update of the driver\nfarwarp trace --callers -- PROGRAM        # who loads the second one" },
	{ "F079", "the driver is too old: it lacks a call that the file is linked with",
	  "The file was built with a newer CUDA than the driver is for, and names a function that this driver does not have.",
	  "nvidia-smi        # which CUDA the driver is for\nupdate the driver, or install the build for that CUDA" },
	{ "F07A", "LD_LIBRARY_PATH puts another CUDA's library before the right one",
	  "LD_LIBRARY_PATH is searched before RUNPATH and the system's folders, and the library found there lacks what the file needs.",
	  "env -u LD_LIBRARY_PATH PROGRAM" },
	{ "F07B", "a symbol or version of CUDA's is missing in the library that is found",
	  "The library has the right name and lacks a function, or has it without the version (NAME@libcudart.so.12) that the file asks for: another "
	  "release of CUDA, or a library in its place that was linked without versions.",
	  "install the release of that library that the file was built with, or take the wrong one off the path\n"
	  "who made it: -Wl,--version-script with  libcudart.so.12 { global: *; };" },
	{ "F07C", "glibc is too old, or it is for musl",
	  "The file needs a newer C library than this machine has, or another one. A C library cannot be installed beside the system's for this.",
	  "use a build for an older glibc (its tag says manylinux_2_NN), a newer distribution, or a container" },
	{ "F07D", "libstdc++ is too old, or the other std::string",
	  "The file needs a newer GLIBCXX or CXXABI than the libstdc++ that is found, often an old one that conda or LD_LIBRARY_PATH puts first; or it "
	  "was compiled with the other -D_GLIBCXX_USE_CXX11_ABI than the library that it calls.",
	  "conda install -c conda-forge libstdcxx-ng        # in an environment of conda\nor rebuild it with the ABI that torch has: "
	  "python -c 'import torch; print(torch._C._GLIBCXX_USE_CXX11_ABI)'" },
	{ "F07E", "it, or a library, is for another machine",
	  "Machine code of another processor, or another word size.", "uname -m        # get the build for this machine" },
	{ "F096", "a fat binary is damaged",
	  "The kernels inside cannot be read: a download or copy that broke off, often for want of disk space.",
	  "df -h . /tmp        # then install it again: pip install --force-reinstall --no-cache-dir PACKAGE" },
	{ "F097", "no kernel for the GPU",
	  "Neither machine code nor PTX in the file fits the GPU's compute capability: CUDA_ERROR_NO_BINARY_FOR_GPU (209), \"no kernel image is "
	  "available for execution on the device\".",
	  "install a build that names this GPU's architecture, or rebuild it: TORCH_CUDA_ARCH_LIST, CMAKE_CUDA_ARCHITECTURES, nvcc -gencode" },
	{ "F098", "only PTX that the driver is too old for",
	  "The file has PTX for this GPU, of a newer CUDA than the driver can compile: CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222).",
	  "update the driver, or get a build with machine code for this GPU" },
	{ "F120", "torch for the CPU only",
	  "The wheel of PyTorch was built without CUDA; torch.cuda.is_available() is False whatever the machine has.",
	  "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128" },
	{ "F122", "a wheel that should hold native code and does not",
	  "The wheel was built where torch or nvcc was missing: its setup.py then skips the extensions without an error.",
	  "pip wheel --no-build-isolation --no-deps .        # where torch and nvcc are installed, with TORCH_CUDA_ARCH_LIST set\n"
	  "unzip -l FILE.whl | grep '\\.so'        # must list the extensions" },
	{ "F127", "a library of CUDA's toolkit is not found",
	  "The file needs a library like libcublas.so.12 that no searched folder has. In Python environments packages such as nvidia-cublas-cu12 bring it.",
	  "pip install nvidia-NAME-cu12, or install the toolkit, or add its folder: LD_LIBRARY_PATH=/usr/local/cuda/lib64" },
	{ "I01", "another library is not found",
	  "A library that has nothing to do with CUDA is missing; the loader would refuse the file before CUDA is asked.",
	  "apt-file search NAME, dnf provides '*/NAME'        # then install that package" },
	{ "I02", "another library lacks a version or symbol",
	  "A library that is not CUDA's was found and lacks what the file needs: another release of it.",
	  "install the release of it that the file was built with, or take the wrong one off LD_LIBRARY_PATH" },
	{ "I03", "a program's symbol is in no library",
	  "No library that the program is linked with has the symbol. A program does not start then; a library may get it from who loads it.",
	  "rebuild it against the libraries of this machine" },
	{ "I04", "the file is damaged, or an archive lies",
	  "Headers disagree with each other or lead out of the file, or an archive's sizes are impossible. Nothing in it is believed.",
	  "sha256sum FILE        # compare, and get it again; df -h . /tmp" },
	{ "I05", "more files or libraries than are looked at",
	  "A folder, wheel or search was larger than the bounds; what was looked at is reported, the rest is unknown.",
	  "farwarp inspect a folder below it" },
	{ "I06", "kernels could not be compared: no GPU, no --cc",
	  "The file's architectures are listed, but there is no GPU here to compare them with.", "farwarp inspect --cc 9.0 FILE" },
	{ "I07", "nothing to inspect",
	  "The path does not exist or cannot be read, or is no program, library, cubin, wheel, folder with such, or process.",
	  "ls -l FILE; file FILE" },
	{ "I08", "a wheel for another Python",
	  "The wheel's tag (cp312-cp312) names another Python or ABI than the environment has; pip refuses it.",
	  "pip download --only-binary :all: PACKAGE        # takes the wheel that fits" },
};

const struct in_meaning *
in_meaning(size_t index)
{
	return index < sizeof(meanings) / sizeof(meanings[0]) ? &meanings[index] : NULL;
}

const struct in_meaning *
in_meaning_of(const char *id)
{
	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (strcasecmp(meanings[i].id, id) == 0)
			return &meanings[i];
	return NULL;
}

void
in_print_meaning(const struct in_meaning *meaning, FILE *out)
{
	fprintf(out, "%s: %s\n  reported by: farwarp inspect (docs/inspect.md)\n\n  %s\n\n  what to do:\n", meaning->id, meaning->cause, meaning->text);
	for (const char *line = meaning->fix; *line;) {
		const char *end = strchr(line, '\n');
		int length = (int)(end ? (size_t)(end - line) : strlen(line));
		fprintf(out, "    %.*s\n", length, line);
		line = end ? end + 1 : line + length;
	}
}
