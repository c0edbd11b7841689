#!/usr/bin/env python3
"""
Real CUDA programs, compiled by nvcc, run on farwarp: the suite `real`.

    run.py --build build [--all] [--native | --server unix|tcp | --front] [NAME ...]

Each row of PROGRAMS is one program compiled and run one way. Without --all the rows that are quick to compile run; --all adds the rest
and fetches what comes from PyPI (fetch.sh). --native runs on this machine's own driver instead, --server on the software GPU of a
`farwarp serve` of its own, --front with farwarp's library in front of what the environment names (FARWARP_DEVICE, FARWARP_SERVER).
Programs print TAP; this script prints
one TAP line a row, and what failed. Binaries are cached in BUILD/real by a hash of sources, flags and compiler.
"""
import argparse
import concurrent.futures
import glob
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import sanitizer

HERE = os.path.dirname(os.path.abspath(__file__))
SM80 = ["-arch=sm_80"]
HOST_ROUNDING = ["-Xcompiler", "-frounding-math"]
PTX75 = ["-gencode", "arch=compute_75,code=compute_75"]
# The runtime of CUDA 12 with its own headers, in front of the compiler's; its package has the shared library alone.
CUDART12 = ["-I{runtime12}/include", "-cudart", "none", "-L{runtime12}/lib", "-l:libcudart.so.12"]
RANDOM = ["-I{curand}/include"]


class Row:
    """One program, one way: sources, nvcc flags, environment, arguments; `slow` ones run with --all only."""

    def __init__(self, name, sources, flags=(), env=None, args=(), slow=False, needs=None, seconds=120,
                 through=False):
        self.name, self.sources, self.flags, self.env = name, sources.split(), list(flags), env or {}
        self.args, self.slow, self.needs, self.seconds = list(args), slow, needs, seconds
        self.through = through  # `farwarp run` instead of a library path


PROGRAMS = [
    Row("basics", "basics.cu", SM80),
    Row("basics, PTX alone", "basics.cu", PTX75),
    Row("basics, default architecture", "basics.cu"),
    Row("basics, -G", "basics.cu", SM80 + ["-G"]),
    Row("basics, -use_fast_math", "basics.cu", SM80 + ["-use_fast_math"], slow=True),
    Row("basics, shared cudart", "basics.cu", SM80 + ["-cudart", "shared"]),
    Row("basics, -rdc=true", "basics.cu", SM80 + ["-rdc=true"], slow=True),
    Row("basics, all architectures", "basics.cu", ["-arch=all-major"], {"FARWARP_SOFT_CC": "12.0"}, slow=True), # its PTX is for 12.0
    Row("basics, --compress-mode=none", "basics.cu", PTX75 + ["--compress-mode=none"]),
    Row("basics, --compress-mode=size", "basics.cu", PTX75 + ["--compress-mode=size"]),
    Row("basics, --compress-mode=speed", "basics.cu", PTX75 + ["--compress-mode=speed"], slow=True),
    Row("basics, --compress-mode=balance", "basics.cu", PTX75 + ["--compress-mode=balance"], slow=True),
    Row("basics, capability 7.5", "basics.cu", PTX75, {"FARWARP_SOFT_CC": "7.5"}),
    Row("basics, capability 12.1", "basics.cu", SM80, {"FARWARP_SOFT_CC": "12.1"}),
    Row("basics, through farwarp run", "basics.cu", SM80, through=True),
    Row("basics, shared cudart, through farwarp run", "basics.cu", SM80 + ["-cudart", "shared"], through=True),
    Row("machine code alone", "no_ptx.cu", ["-gencode", "arch=compute_80,code=sm_80"]),
    Row("basics, one thread", "basics.cu", SM80, {"FARWARP_SOFT_THREADS": "1"}),
    Row("basics, synchronous launches", "basics.cu", SM80, {"CUDA_LAUNCH_BLOCKING": "1"}),
    Row("basics, eager loading", "basics.cu", SM80, {"CUDA_MODULE_LOADING": "EAGER"}),
    Row("warps", "warps.cu", SM80),
    Row("warps, PTX alone", "warps.cu", ["-gencode", "arch=compute_80,code=compute_80"], slow=True),
    Row("warps, -G", "warps.cu", SM80 + ["-G"], slow=True),
    Row("cooperative groups", "coop.cu", SM80),
    Row("cooperative groups, one thread", "coop.cu", SM80, {"FARWARP_SOFT_THREADS": "1"}),
    Row("cooperative groups, -rdc=true", "coop.cu", SM80 + ["-rdc=true"], slow=True),
    Row("device calls", "device_calls.cu", SM80 + ["--extended-lambda"]),
    Row("device calls, -G", "device_calls.cu", SM80 + ["--extended-lambda", "-G"], slow=True),
    Row("streams", "streams.cu", SM80),
    Row("streams, per-thread default stream", "streams.cu", SM80 + ["--default-stream", "per-thread", "-DPER_THREAD"]),
    Row("streams, shared cudart", "streams.cu", SM80 + ["-cudart", "shared"], slow=True),
    Row("memory", "memory.cu", SM80),
    Row("graphs", "graphs.cu", SM80),
    Row("graphs, per-thread default stream", "graphs.cu", SM80 + ["--default-stream", "per-thread"], slow=True),
    Row("conditional graph nodes", "graph_conditional.cu", SM80),
    Row("conditional graph nodes, -rdc=true", "graph_conditional.cu", SM80 + ["-rdc=true", "-lcudadevrt"], slow=True),
    Row("matrix instructions", "mma.cu", SM80),
    Row("errors", "errors.cu", SM80),
    Row("attributes", "attributes.cu", SM80),
    Row("half precision", "half.cu", SM80),
    Row("half precision, instructions of 9.0", "half.cu", ["-arch=sm_90"], {"FARWARP_SOFT_CC": "9.0"}, slow=True),
    Row("mathematical functions", "math.cu", SM80 + HOST_ROUNDING),
    Row("mathematical functions, -use_fast_math", "math.cu", SM80 + ["-use_fast_math", "-DFAST"], slow=True),
    Row("clusters", "cluster.cu", ["-arch=sm_90"], {"FARWARP_SOFT_CC": "9.0"}),
    Row("separate compilation", "rdc_a.cu rdc_b.cu", SM80 + ["-rdc=true"]),
    Row("separate compilation, PTX alone", "rdc_a.cu rdc_b.cu", PTX75 + ["-rdc=true"], slow=True),
    Row("CUB", "cub_scan.cu", PTX75, seconds=300),
    Row("CUB, more", "cub_more.cu", PTX75, slow=True, seconds=300),
    Row("the C++ library", "libcudacxx.cu", SM80, seconds=300),
    Row("the C++ library, instructions of 9.0", "libcudacxx.cu", ["-arch=sm_90"], {"FARWARP_SOFT_CC": "9.0"}, slow=True, seconds=300),
    Row("Thrust", "thrust_sort.cu", PTX75, seconds=300),
    Row("cuRAND on the device", "curand_device.cu", SM80 + RANDOM, needs="curand", seconds=300),
    Row("cuFFT", "libraries.cu", SM80, {"FARWARP_SOFT_CC": "7.5"}, ["cufft", "{cufft}/lib/libcufft.so.12"], needs="cufft", slow=True, seconds=300),
    Row("cuBLAS", "libraries.cu", SM80, {}, ["cublas", "{cublas}/lib/libcublas.so.13"], needs="cublas", slow=True, seconds=300),
    Row("cuRAND on the host", "libraries.cu", SM80, {}, ["curand", "{curand}/lib/libcurand.so.10"], needs="curand", slow=True, seconds=300),
    Row("cuRAND on the host, capability 12.1", "libraries.cu", SM80, {"FARWARP_SOFT_CC": "12.1"}, ["curand", "{curand}/lib/libcurand.so.10", "computes"],
        needs="curand", slow=True, seconds=300),
    Row("cuSPARSE", "libraries.cu", SM80, {"FARWARP_SOFT_CC": "12.0"}, ["cusparse", "{cusparse}/lib/libcusparse.so.12"], needs="nvjitlink", slow=True, seconds=300),
    Row("basics, cudart 12", "basics.cu", SM80 + CUDART12, needs="runtime12", slow=True),
    Row("streams, cudart 12", "streams.cu", SM80 + CUDART12, needs="runtime12", slow=True),
    Row("graphs, cudart 12", "graphs.cu", SM80 + CUDART12, needs="runtime12", slow=True),
    Row("memory, cudart 12", "memory.cu", SM80 + CUDART12, needs="runtime12", slow=True),
]


def find_nvcc():
    for path in (os.environ.get("NVCC"), shutil.which("nvcc"), "" if os.environ.get("FARWARP_NO_TOOLKIT") else "/usr/local/cuda/bin/nvcc"):
        if path and os.access(path, os.X_OK):
            return path
    return None


def packages(build):
    """Folders of what fetch.sh installed, by short name."""
    root = os.path.join(build, "real", "packages")
    found = {}
    for name in ("curand", "cufft", "cublas", "cusparse", "nvjitlink", "runtime12"):
        for folder in glob.glob(os.path.join(root, name, "nvidia", "*", "include")):
            found[name] = os.path.dirname(folder)
    toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    if "curand" not in found and os.path.exists(os.path.join(toolkit, "include", "curand_kernel.h")):
        found["curand"] = toolkit
    return found


class Servers:
    """One `farwarp serve` for each way in which rows want the device, started when the first of them runs."""

    def __init__(self, build, kind):
        self.build, self.kind = build, kind
        self.running, self.lock = {}, threading.Lock()
        self.folder = tempfile.TemporaryDirectory()

    def address(self, env):
        settings = tuple(sorted((k, v) for k, v in env.items() if k.startswith("FARWARP_SOFT_")))
        with self.lock:
            if settings not in self.running:
                self.running[settings] = self.start(env, len(self.running))
            return self.running[settings][0]

    def start(self, env, number):
        if self.kind == "unix":
            address = "unix:%s/%d" % (self.folder.name, number)
        else:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                address = "tcp:127.0.0.1:%d" % s.getsockname()[1]
        log = open(os.path.join(self.folder.name, "log%d" % number), "w+")
        server = subprocess.Popen([os.path.join(self.build, "farwarp"), "serve", "--listen", address], stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=log, env=env)
        for _ in range(500):
            log.seek(0)
            if "listening" in log.read() or server.poll() is not None:
                break
            time.sleep(0.01)
        return address, server

    def stop(self):
        for _, server in self.running.values():
            server.terminate()
            server.wait(10)
        self.folder.cleanup()


class Runner:
    def __init__(self, options):
        self.build = os.path.abspath(options.build)
        self.native, self.front = options.native, options.front
        self.servers = Servers(self.build, options.server) if options.server else None
        self.cache = os.path.join(self.build, "real")
        os.makedirs(self.cache, exist_ok=True)
        self.nvcc = find_nvcc()
        self.version = subprocess.run([self.nvcc, "--version"], capture_output=True, text=True).stdout if self.nvcc else ""
        self.packages = packages(self.build)
        self.compiling = {}
        self.lock = threading.Lock()

    def fill(self, words):
        return [re.sub(r"\{(\w+)\}", lambda m: self.packages.get(m.group(1), m.group(0)), w) for w in words]

    def compile(self, row):
        """The path of the binary, or raises with what the compiler said. Rows that differ in how they run share a binary."""
        flags = ["-std=c++17", "-O2", "-w"] + self.fill(row.flags)
        digest = hashlib.sha256(repr((self.version, flags)).encode())
        for source in row.sources + ["t.h", "rdc.h"]:
            with open(os.path.join(HERE, source), "rb") as f:
                digest.update(f.read())
        path = os.path.join(self.cache, row.sources[0].split(".")[0] + "-" + digest.hexdigest()[:16])
        with self.lock:
            gate = self.compiling.setdefault(path, threading.Lock())
        with gate:
            if os.path.exists(path):
                return path
            command = [self.nvcc] + flags + ["-o", path + ".new"] + [os.path.join(HERE, s) for s in row.sources] + ["-lpthread", "-ldl"]
            r = subprocess.run(command, capture_output=True, text=True)
            if r.returncode:
                raise RuntimeError("does not compile: " + (r.stderr or r.stdout).strip())
            os.rename(path + ".new", path)
        return path

    def run(self, row):
        """(state, lines): state is ok, "not ok" or "skip"."""
        if row.needs and row.needs not in self.packages:
            return "skip", [f"{row.needs} is not installed: tests/real/fetch.sh {os.path.relpath(self.build)}"]
        try:
            path = self.compile(row)
        except RuntimeError as e:
            return "not ok", str(e).splitlines()[:12]
        env = dict(os.environ)
        folders = [os.path.join(self.packages[p], "lib") for p in self.packages]
        toolkit = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(self.nvcc))), "lib64")
        if self.front:
            env.update(row.env)
            folders.insert(0, os.path.join(self.build, "lib"))
        elif not self.native:
            env.update(row.env)
            env.setdefault("FARWARP_SOFT_MEM", "2G")
            env.update(sanitizer.environment(self.build))
            if not row.through:
                folders.insert(0, os.path.join(self.build, "lib"))
        env["LD_LIBRARY_PATH"] = ":".join(folders + [toolkit] + [p for p in [env.get("LD_LIBRARY_PATH")] if p])
        command = [path] + self.fill(row.args)
        device = ["--device", "soft"]
        if self.servers:
            address = self.servers.address(env)
            device = ["--server", address]
            if not row.through:
                env["FARWARP_SERVER"] = address
        if row.through:
            command = [os.path.join(self.build, "farwarp"), "run"] + device + ["--"] + command
        try:
            r = subprocess.run(command, capture_output=True, text=True, env=env, timeout=row.seconds, errors="replace")
        except subprocess.TimeoutExpired as e:
            out = e.stdout.decode(errors="replace") if isinstance(e.stdout, bytes) else (e.stdout or "")
            return "not ok", [f"not done after {row.seconds} s, the last lines:"] + out.splitlines()[-3:]
        lines = r.stdout.splitlines()
        plan = [l for l in lines if re.fullmatch(r"1\.\.\d+", l)]
        results = [l for l in lines if re.match(r"(not )?ok \d", l)]
        bad = [l for l in lines if l.startswith("not ok") or l.startswith("Bail out!")]
        if r.returncode or bad or not plan or len(results) != int(plan[0][3:]):
            end = f"exit status {r.returncode}" if r.returncode >= 0 else f"signal {-r.returncode}"
            return "not ok", [f"{end}, {len(results)} results"] + bad[:10] + r.stderr.splitlines()[-5:]
        if results and all("# SKIP" in l for l in results):
            return "skip", [results[0].split("# SKIP", 1)[1].strip()]
        return "ok", [f"{len(results)} tests"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--all", action="store_true", help="the slow rows too; fetches what is missing from PyPI")
    parser.add_argument("--native", action="store_true", help="on this machine's own GPU and driver")
    parser.add_argument("--server", choices=("unix", "tcp"), help="behind farwarp serve")
    parser.add_argument("--front", action="store_true", help="with farwarp's library in front of a GPU")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*", help="rows whose names begin so")
    options = parser.parse_args()
    if not find_nvcc():
        print("1..0 # SKIP no nvcc: install the CUDA toolkit, or set NVCC")
        return 0
    if options.all and subprocess.run([os.path.join(HERE, "fetch.sh"), options.build]).returncode:
        print("# not everything could be fetched from PyPI; what is missing is skipped")
    runner = Runner(options)
    rows = [r for r in PROGRAMS if (options.all or not r.slow or options.names) and
            (not options.names or any(r.name.startswith(n) for n in options.names))]
    if options.native or options.front:
        rows = [r for r in rows if r.name == "clusters" or
                not (r.through or r.name == "machine code alone" or any(k.startswith("FARWARP") for k in r.env))]
    print(f"1..{len(rows)}", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for number, (row, result) in enumerate(zip(rows, pool.map(runner.run, rows)), 1):
            state, lines = result
            failed += state == "not ok"
            if state == "not ok":
                for line in lines:
                    print("# " + line)
            tail = f" # SKIP {lines[0]}" if state == "skip" else ""
            print(f"{'not ok' if state == 'not ok' else 'ok'} {number} - {row.name}{tail}", flush=True)
    if runner.servers:
        runner.servers.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
