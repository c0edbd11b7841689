#!/bin/sh
# make demo: diagnoses this machine, then runs CUDA programs on the best GPU there is.
set -eu
build=${BUILD:-build}

printf '\n== farwarp doctor: does CUDA work on this machine?\n\n'
code=0
"$build/farwarp" doctor || code=$?

printf '\n== farwarp run: five CUDA programs on the best GPU there is\n\n'
for program in vector_add matmul reduction histogram mandelbrot; do
	printf '$ farwarp run -- examples/%s\n' "$program"
	"$build/farwarp" run -- "$build/examples/$program"
	echo
done

if command -v nvcc >/dev/null 2>&1; then
	printf '== and one that nvcc compiled, unmodified, with its own runtime inside\n\n'
	nvcc -O2 -o "$build/examples/vector_add_nvcc" examples/cuda/vector_add.cu
	printf '$ farwarp run -- examples/vector_add_nvcc\n'
	"$build/farwarp" run -- "$build/examples/vector_add_nvcc"
	echo
else
	echo "(no nvcc here: the programs above carry their kernels as PTX text and need none)"
fi
