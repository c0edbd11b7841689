#!/bin/sh
# Installs NVIDIA's libraries and the CUDA 12 runtime from PyPI into BUILD/real/packages, for `make check-real`. Nothing is installed
# into the system, and nothing of it is ever committed. Prints what it installs.
set -e
build=${1:-build}
packages=$build/real/packages
mkdir -p "$packages"
status=0
fetch() {
	test -e "$packages/.$1" && return
	echo "installing $1 into $packages"
	if python3 -m pip install -q --disable-pip-version-check --no-deps --upgrade --target "$packages" "$1"; then
		touch "$packages/.$1"
	else
		status=1
	fi
}
fetch nvidia-curand
fetch 'nvidia-cufft<13'
fetch nvidia-cublas
fetch nvidia-cusparse
fetch nvidia-cuda-runtime-cu12
fetch nvidia-cuda-nvcc-cu12
exit $status
