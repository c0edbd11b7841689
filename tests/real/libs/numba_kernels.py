#!/usr/bin/env python3
"""Kernels written in Python: numba compiles them at run time and drives the device through ctypes and the driver's linker.

Exit status 0: all right; 77 with a line "# skip REASON": numba cannot run here.
"""
import math
import sys
import warnings

try:
    import numpy
    from numba import cuda, float32
except ImportError as why:
    print(f"# skip {why}")
    sys.exit(77)

warnings.simplefilter("ignore")
TILE = 8


@cuda.jit
def axpy(out, a, x, y):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = a * x[i] + math.sin(y[i])


@cuda.jit
def product(a, b, c):
    """A matrix product through tiles in shared memory."""
    left = cuda.shared.array((TILE, TILE), dtype=float32)
    right = cuda.shared.array((TILE, TILE), dtype=float32)
    row, column = cuda.grid(2)
    total = float32(0)
    for k in range(a.shape[1] // TILE):
        left[cuda.threadIdx.x, cuda.threadIdx.y] = a[row, k * TILE + cuda.threadIdx.y]
        right[cuda.threadIdx.x, cuda.threadIdx.y] = b[k * TILE + cuda.threadIdx.x, column]
        cuda.syncthreads()
        for i in range(TILE):
            total += left[cuda.threadIdx.x, i] * right[i, cuda.threadIdx.y]
        cuda.syncthreads()
    c[row, column] = total


@cuda.jit
def histogram(values, bins):
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        cuda.atomic.add(bins, values[i], 1)


@cuda.jit
def warp_sums(values, sums):
    value = values[cuda.grid(1)]
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_down_sync(0xffffffff, value, step)
    if cuda.laneid == 0:
        sums[cuda.grid(1) // 32] = value


@cuda.reduce
def largest(a, b):
    return max(a, b)


def check(name, good):
    print(f"# {name}: {'right' if good else 'WRONG'}")
    return bool(good)


def main():
    random = numpy.random.default_rng(3)
    good = True
    x, y = random.random(1000), random.random(1000)
    out = numpy.zeros_like(x)
    axpy[8, 128](out, 2.5, x, y)
    good &= check("axpy", numpy.allclose(out, 2.5 * x + numpy.sin(y), rtol=1e-12))

    a, b = random.random((32, 24), dtype=numpy.float32), random.random((24, 40), dtype=numpy.float32)
    c = cuda.device_array((32, 40), dtype=numpy.float32)
    product[(4, 5), (TILE, TILE)](cuda.to_device(a), cuda.to_device(b), c)
    good &= check("product", numpy.allclose(c.copy_to_host(), a @ b, rtol=1e-5))

    values = random.integers(0, 16, 5000).astype(numpy.int32)
    bins = numpy.zeros(16, dtype=numpy.int32)
    histogram[4, 64](values, bins)
    good &= check("histogram", (bins == numpy.bincount(values, minlength=16)).all())

    numbers = random.integers(0, 1000, 256).astype(numpy.int32)
    sums = numpy.zeros(8, dtype=numpy.int32)
    warp_sums[2, 128](numbers, sums)
    good &= check("shuffles", (sums == numbers.reshape(8, 32).sum(axis=1)).all())
    good &= check("reduction", largest(x) == x.max())

    stream = cuda.stream()
    with stream.auto_synchronize():
        d_x = cuda.to_device(x, stream=stream)
        axpy[8, 128, stream](d_x, 1.0, d_x, d_x)
        back = d_x.copy_to_host(stream=stream)
    good &= check("stream", numpy.allclose(back, x + numpy.sin(x)))
    sys.exit(0 if good else 1)


main()
