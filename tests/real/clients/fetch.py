#!/usr/bin/env python3
"""Fetches programs that nobody here wrote into the build folder: llama.cpp's CUDA backend (npm) and PyTorch (PyPI).

    fetch.py --into FOLDER [llama] [torch]

llama.cpp comes as the binaries of the package node-llama-cpp, with the sources of the same release, of which two programs are compiled
against them. Nothing is installed. What cannot be had is reported and left out: run.py skips what needs it.
"""
import argparse
import glob
import os
import shutil
import subprocess
import sys
import tarfile

LLAMA = "3.22.1"
LIBRARIES = ["nvidia-cuda-runtime==13.0.96", "nvidia-cublas==13.0.2.14"]
TORCH = "torch==2.15.0"
PROGRAMS = {"backend-ops": "tests/test-backend-ops.cpp", "simple": "examples/simple/simple.cpp"}


class Missing(Exception):
    pass


def do(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise Missing(f"{command[0]}: " + (done.stdout.strip().splitlines() or ["failed"])[-1])


def npm(into, package):
    """The folder of an unpacked npm package."""
    folder = os.path.join(into, package.replace("/", "-"))
    if not os.path.isdir(folder):
        if not shutil.which("npm"):
            raise Missing("npm is not installed")
        print(f"npm: {package} {LLAMA}", flush=True)
        os.makedirs(into, exist_ok=True)
        do(["npm", "pack", "--silent", f"{package}@{LLAMA}"], cwd=into)
        archive = glob.glob(os.path.join(into, package.replace("@", "").replace("/", "-") + f"-{LLAMA}.tgz"))[0]
        with tarfile.open(archive) as tar:
            tar.extractall(folder + ".part", filter="data")
        os.rename(folder + ".part", folder)
        os.remove(archive)
    return os.path.join(folder, "package")


def pip(folder, requirements, dependencies):
    mark = os.path.join(folder, ".fetched")
    if not os.path.exists(mark):
        print("pip: " + " ".join(requirements), flush=True)
        do([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--target", folder]
           + ([] if dependencies else ["--no-deps"]) + requirements)
        open(mark, "w").close()


def llama(into):
    binaries = os.path.join(npm(into, "@node-llama-cpp/linux-x64-cuda"), "bins", "linux-x64-cuda")
    sources = os.path.join(into, "llama.cpp")
    if not os.path.isdir(sources):
        do(["git", "clone", "--quiet", os.path.join(npm(into, "node-llama-cpp"), "llama", "gitRelease.bundle"), sources])
    pip(os.path.join(into, "cuda"), LIBRARIES, False)
    libraries = [glob.glob(os.path.join(binaries, name))[0] for name in ("libllama.*.so", "libggml.*.so", "libggml-base.so")]
    for name, source in PROGRAMS.items():
        program = os.path.join(binaries, name)  # beside the backends, where ggml looks for them
        if not os.path.exists(program):
            print(f"c++: {source}", flush=True)
            do(["c++", "-O1", "-std=c++17"] + [f"-I{sources}/{part}" for part in ("ggml/include", "include", "common")]
               + [os.path.join(sources, source), "-o", program] + libraries + ["-Wl,-rpath," + binaries, "-lpthread"])


def torch(into):
    pip(os.path.join(into, "torch"), [TORCH], True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", required=True)
    parser.add_argument("names", nargs="*", metavar="llama|torch")
    options = parser.parse_args()
    for name in options.names or ["llama", "torch"]:
        try:
            {"llama": llama, "torch": torch}[name](os.path.abspath(options.into))
        except (Missing, OSError, IndexError) as why:
            print(f"{name} is left out: {why}", flush=True)


if __name__ == "__main__":
    main()
