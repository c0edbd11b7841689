#!/usr/bin/env python3
"""How long a program waits until its image is loaded behind a server over TCP: the first client of a server, and the ones after it.

    bench/images.py --build build [--mib 50] [--rounds 3]

The image is a fat binary: a small kernel's PTX, and machine code that nobody can compress for a GPU that is not there. Links: as they are, and with
a round trip of 100 ms and 1 Gbit/s (FARWARP_WIRE_RTT_US, FARWARP_WIRE_MBPS). Each load has a client process of its own.
"""
import argparse
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

PTX = b".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry empty()\n{\n\tret;\n}\n\0"
CLIENT = """
import ctypes, sys, time
cuda = ctypes.CDLL(sys.argv[1])
image = open(sys.argv[2], "rb").read()
context, module = ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0 and cuda.cuCtxSetCurrent(context) == 0
begin = time.perf_counter()
result = cuda.cuModuleLoadData(ctypes.byref(module), image)
print(result, time.perf_counter() - begin)
"""
LINKS = {"loopback": {}, "100 ms, 1 Gbit/s": {"FARWARP_WIRE_RTT_US": "100000", "FARWARP_WIRE_MBPS": "125"}}


def entry(kind, arch, version, payload):
    return struct.pack("<HHIQIIHHIIIQQQ", kind, 0x0101, 64, len(payload), 0, 0, version % 10, version // 10, arch, 0, 0, 0x11, 0, 0) + payload


def image(size):
    body = entry(1, 75, 70, PTX + bytes(-len(PTX) % 8)) + entry(2, 90, 0, b"\x7fELF" + os.urandom(size))
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def load(build, path, environment):
    done = subprocess.run([sys.executable, "-c", CLIENT, os.path.join(build, "lib/libcuda.so.1"), path], capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, **environment))
    if not done.stdout.startswith("0 "):
        raise SystemExit("a load failed: " + done.stdout + done.stderr)
    return float(done.stdout.split()[1]) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--mib", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = "tcp:127.0.0.1:%d" % s.getsockname()[1]
        s.close()
        path = os.path.join(folder, "image")
        server = subprocess.Popen([os.path.join(build, "farwarp"), "serve", "--backend", "soft", "--mem", "256M", "--listen", address],
                                  stderr=subprocess.DEVNULL, env=dict(os.environ, XDG_CACHE_HOME=folder, CACHE_DIRECTORY=""))
        try:
            time.sleep(0.5)
            print("| link, image of %d MiB | in process | first client | later clients |\n|---|---|---|---|" % options.mib)
            for name, link in LINKS.items():
                times = {"here": [], "first": [], "later": []}
                for _ in range(options.rounds):
                    with open(path, "wb") as f:
                        f.write(image(options.mib << 20))
                    times["here"].append(load(build, path, {"FARWARP_SOFT_MEM": "256M"}))
                    times["first"].append(load(build, path, dict(link, FARWARP_SERVER=address)))
                    times["later"] += [load(build, path, dict(link, FARWARP_SERVER=address)) for _ in range(2)]
                print("| %s | %s |" % (name, " | ".join("%.0f ms" % statistics.median(t) for t in times.values())), flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
