#!/usr/bin/env python3
"""
Programs against NVIDIA's own libraries, and CUDA from other compilers, run on farwarp: the suite `libs`.

    run.py --build build [--native] [NAME ...]

Each row of ROWS is one program run one way. What it needs comes from fetch.py, or from the system; a row that lacks something is
skipped and says what. Prints one TAP line a row and what failed. A row that expects a refusal passes if the library answers with an
error of its own and the log says which architectures the library's image holds.
"""
import argparse
import os
import platform
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import sanitizer  # noqa: E402
EXIT_SKIP = 77
REFUSAL = re.compile(r"farwarp: module: no PTX that sm_\d+ can run; the image holds (machine code for sm_|no machine code)")


class Row:
    """A program, the folders and libraries it is linked with, the compute capability, and how it ends."""

    def __init__(self, name, source, libraries="", folders="cu13/nvidia/cu13", cc="9.0", expect="pass", seconds=300, tool="cc", flags=""):
        self.name, self.source, self.libraries, self.folders = name, source, libraries.split(), folders.split()
        self.cc, self.expect, self.seconds, self.tool, self.flags = cc, expect, seconds, tool, flags.split()


CUFFT, CURAND = "libcufft.so.12 libcudart.so.13", "libcurand.so.10 libcudart.so.13"
CUBLAS = "libcublas.so.13 libcublasLt.so.13 libcudart.so.13"
CUSPARSE, CUSOLVER, CUDNN = "libcusparse.so.12 libcudart.so.13", "libcusolver.so.12 libcudart.so.13", "libcudnn.so.9 libcudart.so.13"
WITH_CUDNN = "cu13/nvidia/cu13 cu13/nvidia/cudnn"
CUDA12 = "cu12/nvidia/cuda_runtime cu12/nvidia/cuda_nvcc cu12/nvidia/cufft cu12/nvidia/cuda_nvrtc"

ROWS = [
    Row("cuFFT at 7.5", "fft.c", CUFFT, cc="7.5"),
    Row("cuFFT at 9.0", "fft.c", CUFFT),
    Row("cuFFT of CUDA 12 at 7.5", "fft.c", "libcufft.so.11 libcudart.so.12", CUDA12, cc="7.5"),
    Row("cuFFT, newer, at 7.5", "fft.c", CUFFT, "newer/nvidia/cu13 cu13/nvidia/cu13", cc="7.5"),
    Row("cuBLAS at 9.0: no PTX", "blas.c", CUBLAS, expect="refused"),
    Row("cuBLAS at 12.0: PTX of some kernels", "blas.c", CUBLAS, cc="12.0", expect="refused"),
    Row("cuSPARSE at 9.0: no PTX", "sparse.c", CUSPARSE, expect="refused"),
    Row("cuSPARSE at 12.0", "sparse.c", CUSPARSE, cc="12.0"),
    Row("cuSOLVER at 9.0: no PTX", "solver.c", CUSOLVER, expect="refused"),
    Row("cuSOLVER at 12.1", "solver.c", CUSOLVER, cc="12.1"),
    Row("cuRAND at 9.0: no PTX", "rand.c", CURAND, expect="refused"),
    Row("cuRAND at 12.1", "rand.c", CURAND, cc="12.1"),
    Row("cuDNN at 9.0: no PTX", "dnn.c", CUDNN, WITH_CUDNN, expect="refused"),
    Row("cuDNN at 12.1", "dnn.c", CUDNN, WITH_CUDNN, cc="12.1"),
    Row("NVRTC at 7.5", "nvrtc.c", "libnvrtc.so.13 libcuda.so.1", cc="7.5"),
    Row("NVRTC at 9.0", "nvrtc.c", "libnvrtc.so.13 libcuda.so.1"),
    Row("NVRTC of CUDA 12", "nvrtc.c", "libnvrtc.so.12 libcuda.so.1", CUDA12),
    Row("shared runtime of CUDA 13", "runtime.c", "libcudart.so.13 libcuda.so.1"),
    Row("shared runtime of CUDA 12", "runtime.c", "libcudart.so.12 libcuda.so.1", CUDA12),
    Row("numba", "numba_kernels.py", folders=CUDA12, tool="python"),
    Row("OpenMP by GCC", "offload.c", folders="", tool="gcc", flags=""),
    Row("OpenMP by GCC at 7.5", "offload.c", folders="", tool="gcc", cc="7.5", flags="-foffload-options=-misa=sm_75"),
]


class Skip(Exception):
    pass


class Runner:
    def __init__(self, options):
        self.build = os.path.abspath(options.build)
        self.root = os.path.join(self.build, "real-libs")
        self.native = options.native
        self.cc = shutil.which(os.environ.get("CC", "cc"))
        self.machine = platform.machine()

    def folders(self, row):
        paths = [os.path.join(self.root, folder) for folder in row.folders]
        for path in paths:
            if not os.path.isdir(path):
                raise Skip(f"{os.path.relpath(path, self.root)} was not fetched; make check-real fetches it")
        return paths

    def library(self, folders, name):
        for folder in [self.build] + folders:
            path = os.path.join(folder, "lib", name)
            if os.path.exists(path):
                return path
        raise Skip(f"{name} was not fetched; make check-real fetches it")

    def compile(self, row):
        """The path of the program; compiled again when a source or what it is linked with has changed."""
        folders = self.folders(row)
        libraries = [self.library(folders, name) for name in row.libraries]
        if not self.cc:
            raise Skip("no C compiler")
        command = [self.cc, "-Wall", "-Wextra"]
        for folder in folders:
            command += ["-isystem", folder + "/include", "-isystem", folder + "/include/cccl", "-Wl,-rpath-link," + folder + "/lib"]
        return self.link(row, command, libraries)

    def offload(self, row):
        """The same by a GCC that compiles target regions for NVIDIA's GPUs; with Debian's packages it is not the default one."""
        for number in range(20, 8, -1):
            gcc = f"/usr/bin/gcc-{number}"
            if os.access(gcc, os.X_OK) and os.path.isdir(f"/usr/lib/gcc/{self.machine}-linux-gnu/{number}/accel/nvptx-none"):
                return self.link(row, [gcc, "-fopenmp", "-foffload=nvptx-none", "-foffload=-lm"] + row.flags, [])
        raise Skip("no GCC with offloading to NVIDIA's GPUs (Debian: gcc-12-offload-nvptx)")

    def python(self, row):
        self.folders(row)
        if not os.path.isdir(os.path.join(self.root, "python")):
            raise Skip("numba was not fetched; make check-real fetches it")
        return [sys.executable, os.path.join(HERE, row.source)]

    def link(self, row, command, libraries):
        program = os.path.join(self.root, "bin", re.sub(r"\W+", "-", row.name))
        source = os.path.join(HERE, row.source)
        sources = [source, os.path.join(HERE, "libs.h"), os.path.abspath(__file__)]
        if os.path.exists(program) and all(os.path.getmtime(s) < os.path.getmtime(program) for s in sources):
            return program
        os.makedirs(os.path.dirname(program), exist_ok=True)
        command = command + ["-std=gnu17", "-O2", source, "-o", program] + libraries + ["-lm", "-ldl"]
        # GCC's offloading calls its parts by name: no other toolchain may come first.
        environment = dict(os.environ, PATH="/usr/bin:/bin") if row.tool == "gcc" else None
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError("does not compile\n" + done.stdout)
        return program

    def environment(self, row):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("FARWARP_", "CUDA_"))}
        folders = [os.path.join(self.root, folder, "lib") for folder in row.folders]
        if not self.native:
            folders.insert(0, os.path.join(self.build, "lib"))
            environment["FARWARP_SOFT_CC"] = row.cc
            environment.update(sanitizer.environment(self.build))
        environment["OMP_TARGET_OFFLOAD"] = "MANDATORY"
        if row.tool == "python":
            environment.update(PYTHONPATH=os.path.join(self.root, "python"), PYTHONDONTWRITEBYTECODE="1",
                               CUDA_HOME=os.path.join(self.root, "cu12/nvidia/cuda_nvcc"))
        environment["LD_LIBRARY_PATH"] = ":".join(folders)
        return environment

    def run(self, row):
        """(state, lines): ok, not ok or skip."""
        try:
            command = TOOLS[row.tool](self, row)
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                                  env=self.environment(row), timeout=row.seconds)
        except Skip as why:
            return "skip", [str(why)]
        except RuntimeError as why:
            return "not ok", str(why).splitlines()[:20]
        except subprocess.TimeoutExpired:
            return "not ok", [f"not done after {row.seconds} s"]
        lines = done.stdout.splitlines()
        reason = next((line[7:] for line in lines if line.startswith("# skip ")), "")
        if row.expect == "refused":
            refused = done.returncode == EXIT_SKIP and any(REFUSAL.match(line) for line in lines)
            return ("ok" if refused else "not ok"), lines[-20:] + [f"exit status {done.returncode}"]
        if done.returncode == EXIT_SKIP and "no PTX" not in reason:
            return "skip", [reason]
        return ("ok" if done.returncode == 0 else "not ok"), lines[-20:] + [f"exit status {done.returncode}"]


TOOLS = {
    "cc": lambda runner, row: [runner.compile(row)],
    "gcc": lambda runner, row: [runner.offload(row)],
    "python": lambda runner, row: runner.python(row),
}


def main():
    parser = argparse.ArgumentParser(description="Programs against NVIDIA's libraries on farwarp.")
    parser.add_argument("--build", required=True)
    parser.add_argument("--native", action="store_true", help="on this machine's own driver")
    parser.add_argument("names", nargs="*", help="rows whose name begins like this")
    options = parser.parse_args()
    runner = Runner(options)
    rows = [row for row in ROWS if not options.names or row.name.startswith(tuple(options.names))]
    if runner.native:
        rows = [row for row in rows if row.expect == "pass"]
    bad = 0
    print(f"1..{len(rows)}", flush=True)
    for number, row in enumerate(rows, 1):
        state, lines = runner.run(row)
        if state == "not ok":
            bad += 1
            print("".join(f"# {row.name}: {line}\n" for line in lines), end="")
        tail = f" # SKIP {lines[0]}" if state == "skip" else ""
        print(f"{'not ok' if state == 'not ok' else 'ok'} {number} - {row.name}{tail}", flush=True)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
