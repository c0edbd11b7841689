#!/usr/bin/env python3
"""Fetches NVIDIA's libraries, and what else the programs of this folder run against, into the build folder.

    fetch.py --into FOLDER [SET ...]

Each package is downloaded once with pip as a wheel and unpacked into FOLDER/SET; nothing is installed. A package that cannot be
had is reported and left out: run.py skips what needs it. Prints one line a package that it had to fetch.
"""
import argparse
import os
import subprocess
import sys
import zipfile

# One folder a set: the packages of one set fit each other.
SETS = {
    # The libraries of one toolkit, 13.0.
    "cu13": [
        "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88", "nvidia-cuda-cccl==13.0.85",
        "nvidia-cuda-nvrtc==13.0.88", "nvidia-nvjitlink==13.0.88", "nvidia-cufft==12.0.0.61", "nvidia-curand==10.4.0.35",
        "nvidia-cublas==13.0.2.14", "nvidia-cusparse==12.6.3.3", "nvidia-cusolver==12.0.4.66", "nvidia-cudnn-cu13==9.19.0.56",
    ],
    # The major version before; of the compiler, headers.
    "cu12": [
        "nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cuda-nvcc-cu12==12.9.86", "nvidia-cuda-nvrtc-cu12==12.9.86",
        "nvidia-cufft-cu12==11.4.1.4",
    ],
    # Newer than the driver version that farwarp reports.
    "newer": ["nvidia-cufft==12.5.0.14", "nvidia-cuda-nvrtc==13.5.37"],
    # CUDA from Python; its compiler is that of the set cu12.
    "python": ["numba==0.60.0", "llvmlite==0.43.0", "numpy==2.0.2"],
}


def unpack(wheel, folder):
    """As pip would: with the permissions that the archive holds."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = archive.extract(info, folder)
            mode = info.external_attr >> 16 & 0o777
            if mode and not info.is_dir():
                os.chmod(path, mode | 0o600)


def fetch(into, folder, requirement):
    """One package: None, or why it is not there."""
    mark = os.path.join(into, folder, ".fetched", requirement.replace("=", "-"))
    if os.path.exists(mark):
        return None
    downloads = os.path.join(into, "wheels", folder, requirement.replace("=", "-"))
    os.makedirs(downloads, exist_ok=True)
    if not [name for name in os.listdir(downloads) if name.endswith(".whl")]:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary", ":all:", "--dest", downloads, requirement]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
            return (errors or done.stdout.splitlines() or ["pip failed"])[-1]
    print(f"{folder}: {requirement}", flush=True)
    for name in os.listdir(downloads):
        if name.endswith(".whl"):
            unpack(os.path.join(downloads, name), os.path.join(into, folder))
            os.unlink(os.path.join(downloads, name))
    os.makedirs(os.path.dirname(mark), exist_ok=True)
    with open(mark, "w", encoding="ascii"):
        pass
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", required=True)
    parser.add_argument("sets", nargs="*", metavar="SET", default=list(SETS))
    options = parser.parse_args()
    for folder in options.sets:
        for requirement in SETS[folder]:
            why = fetch(options.into, folder, requirement)
            if why:
                print(f"{folder}: {requirement} is left out: {why}", flush=True)


if __name__ == "__main__":
    main()
