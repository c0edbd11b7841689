#!/bin/sh
# Installs NVIDIA's libraries and the CUDA 11 and 12 runtimes from PyPI into BUILD/real/packages, for `make check-real`. Nothing is installed
# into the system, and nothing of it is ever committed. Each package has a folder of its own. Prints what it installs.
build=${1:-build}
packages=$build/real/packages
mkdir -p "$packages"
status=0
fetch() {
	test -e "$packages/$1/.done" && return
	echo "# installing $2 into $packages/$1"
	rm -rf "$packages/$1"
	if python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --target "$packages/$1" "$2"; then
		touch "$packages/$1/.done"
	else
		status=1
	fi
}
fetch curand 'nvidia-curand==10.4.0.*'
fetch cufft 'nvidia-cufft==12.0.*'
fetch cublas 'nvidia-cublas==13.0.*'
fetch cusparse 'nvidia-cusparse==12.6.*'
fetch nvjitlink 'nvidia-nvjitlink==13.0.*'
fetch runtime12 'nvidia-cuda-runtime-cu12==12.8.*'
fetch runtime11 'nvidia-cuda-runtime-cu11==11.8.*'
exit $status
