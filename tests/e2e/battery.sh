#!/bin/sh
# What every place where a client may live has to do: examples, the device suites, golden kernels, random programs. Prints the same bytes
# everywhere, times left out. For any POSIX shell, busybox's too.
#
#	battery.sh DIR SEEDS		the device: FARWARP_SERVER, or in process
#
# DIR holds farwarp, lib, examples, tests and golden (*.ptx). BATTERY_NAME marks the folder for scratch files in TMPDIR.
dir=$1 seeds=$2
LIBCUDA=$dir/lib/libcuda.so.1 FARWARP_TEST_LIBCUDA=$dir/lib/libcuda.so.1 FARWARP_LOG=error:/dev/null
export LIBCUDA FARWARP_TEST_LIBCUDA FARWARP_LOG
out=${TMPDIR:-/tmp}/battery.$$
trap 'rm -f "$out"' EXIT
trap 'exit 1' INT TERM HUP

for name in vector_add matmul reduction histogram mandelbrot; do
	if [ -n "$FARWARP_SERVER" ]; then
		"$dir/farwarp" run -q --server "$FARWARP_SERVER" -- "$dir/examples/$name" > "$out" 2>&1
	else
		LD_LIBRARY_PATH=$dir/lib "$dir/examples/$name" > "$out" 2>&1
	fi
	echo "example $name: status $? $(grep -c right "$out")"
done
for name in stream launch memory graph managed; do
	echo "suite $name"
	"$dir/tests/device/test_device_$name" 2>&1 | grep -E '^(not )?ok|^1\.\.'
done
echo "suite golden"
"$dir/tests/ptx/ptx_golden" "$dir"/golden/*.ptx 2>&1 | grep -E '^(not )?ok|^1\.\.'
"$dir/tests/bridge/test_model" --seed "1-$seeds" --features capture-copies > "$out" 2>&1
echo "model: status $? $(md5sum < "$out")"
echo "battery done"
