#!/usr/bin/env python3
"""
What does not wait for the server: creation and end of streams and events, polls, redundant synchronisation. Counted by farwarp trace -c.

    trips.py --build BUILD [--native LIBRARY]

Each program below runs through the driver API by ctypes, over unix and TCP; what it must not cost is in round trips, so that a slow machine
does not matter. Prints TAP.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../real")]  # both have a run.py: the one beside this is meant
import run as bridge  # noqa: E402
from run import check, results  # noqa: E402
import sanitizer  # noqa: E402

PRELUDE = """
import ctypes, sys, threading, time
cuda = ctypes.CDLL(sys.argv[1])
ref, P = ctypes.byref, ctypes.c_void_p
def must(*got):
    if any(got):
        print("wrong:", got, flush=True)
    return got[0]
ctx = P()
must(cuda.cuInit(0)); must(cuda.cuDevicePrimaryCtxRetain(ref(ctx), 0)); must(cuda.cuCtxSetCurrent(ctx))
def events(count, flags=2):
    made = [P() for _ in range(count)]
    must(*[cuda.cuEventCreate(ref(e), flags) for e in made])
    return made
def streams(count, flags=1):
    made = [P() for _ in range(count)]
    must(*[cuda.cuStreamCreate(ref(s), flags) for s in made])
    return made
"""


def environment(way):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FARWARP", "CUDA_"))}
    clean.update(sanitizer.environment(BUILD))
    clean.update(way)
    return clean


def traced(way, program):
    """What a program printed, and its calls with their round trips."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        done = subprocess.run([os.path.join(BUILD, "farwarp"), "trace", "-c", "--json", "-o", out.name, "--server", way["FARWARP_SERVER"], "--",
                               sys.executable, "-c", PRELUDE + program, LIBRARY], capture_output=True, text=True,
                              timeout=120 * sanitizer.times_slower(BUILD), env=environment(way), stdin=subprocess.DEVNULL)
        counts = [json.loads(line)["counts"] for line in out if "counts" in line]
    calls = {c["call"]: (c["calls"], c["awaited"]) for c in counts[-1]} if counts else {}
    return done.stdout.splitlines(), calls, done.stderr


def local(program):
    """What it prints in process."""
    done = subprocess.run([sys.executable, "-c", PRELUDE + program, LIBRARY], capture_output=True, text=True, timeout=120 * sanitizer.times_slower(BUILD),
                          env=environment({}), stdin=subprocess.DEVNULL)
    return done.stdout.splitlines()


def awaited(calls, *names):
    return sum(calls.get(n, (0, 0))[1] for n in names)


def creation(name, way):
    out, calls, log = traced(way, """
made = events(100)
print(len({e.value for e in made}))
for e in made: must(cuda.cuEventRecord(e, None))
must(cuda.cuCtxSynchronize(), *[cuda.cuEventQuery(e) for e in made])
must(*[cuda.cuEventDestroy_v2(e) for e in made])
print(*[cuda.cuEventDestroy_v2(e) for e in made[:2]], cuda.cuEventQuery(made[0]), cuda.cuEventRecord(made[1], None))
some = streams(20)
print(len({s.value for s in some}))
must(*[cuda.cuStreamQuery(s) for s in some], *[cuda.cuStreamDestroy_v2(s) for s in some])
print(cuda.cuStreamDestroy_v2(some[3]), cuda.cuStreamSynchronize(some[3]))
""")
    check("%s: 100 events and 20 streams are different ones, and theirs the errors when they have ended" % name,
          out == ["100", "400 400 400 400", "20", "400 400"], out, log)
    check("%s: 100 events cost 8 round trips to make" % name, calls.get("cuEventCreate", (0, 99))[0] == 100 and awaited(calls, "cuEventCreate") <= 8, calls)
    check("%s: and to end what is known costs none" % name, awaited(calls, "cuEventDestroy_v2") == 2 and awaited(calls, "cuStreamDestroy_v2") == 1, calls)
    check("%s: 20 streams cost 5" % name, awaited(calls, "cuStreamCreate") <= 5, calls)


def threads(name, way):
    out, _, log = traced(way, """
seen, lock, wrong = set(), threading.Lock(), []
def work(n):
    must(cuda.cuCtxSetCurrent(ctx))
    for _ in range(30):
        made, some = events(n), streams(1 + n % 3)
        with lock:
            wrong.extend(e.value for e in made + some if e.value in seen)
            seen.update(e.value for e in made + some)
        must(*[cuda.cuEventRecord(e, some[0]) for e in made], *[cuda.cuStreamWaitEvent(some[-1], e, 0) for e in made])
        must(cuda.cuStreamSynchronize(some[-1]), *[cuda.cuEventQuery(e) for e in made])
        with lock:
            seen.difference_update(e.value for e in made + some)
            must(*[cuda.cuEventDestroy_v2(e) for e in made], *[cuda.cuStreamDestroy_v2(s) for s in some])
all_threads = [threading.Thread(target=work, args=(n,)) for n in (1, 3, 5, 8)]
for t in all_threads: t.start()
for t in all_threads: t.join()
print(len(wrong), cuda.cuCtxSynchronize())
""")
    check("%s: four threads make and end events and streams" % name, out == ["0 0"], out[:5], log)


CONTEXTS = """
other = P()
old = events(5)
must(cuda.cuCtxCreate_v2(ref(other), 0, 0))
mine = events(5)
print(cuda.cuEventRecord(old[0], None), cuda.cuEventDestroy_v2(old[1]))
must(cuda.cuCtxDestroy_v2(other), cuda.cuCtxSetCurrent(ctx))
print(cuda.cuEventQuery(mine[0]), cuda.cuEventDestroy_v2(mine[0]), cuda.cuEventQuery(old[0]))
must(cuda.cuDevicePrimaryCtxReset_v2(0))
print(cuda.cuEventQuery(old[0]), cuda.cuEventDestroy_v2(old[0]))
must(cuda.cuDevicePrimaryCtxRetain(ref(ctx), 0), cuda.cuCtxSetCurrent(ctx))
made = events(40)
must(*[cuda.cuEventRecord(e, None) for e in made], *[cuda.cuEventSynchronize(e) for e in made], *[cuda.cuEventDestroy_v2(e) for e in made])
"""


def contexts(name, way):
    out, _, log = traced(way, CONTEXTS)
    check("%s: what a context had in stock ends with it" % name, out == local(CONTEXTS) and len(out) == 3, out, log)


def quota(build):
    """The stock is not the program's: what it holds is counted as in process."""
    with tempfile.TemporaryDirectory() as folder:
        address = "unix:" + os.path.join(folder, "gpu.sock")
        server = bridge.Server(build, [address], "--max-handles", "12")
        out, _, log = traced({"FARWARP_SERVER": address}, """
made = events(4)
print(*[cuda.cuStreamCreate(ref(P()), 1) for _ in range(9)])
print(cuda.cuEventDestroy_v2(made[0]), cuda.cuEventCreate(ref(made[0]), 2), cuda.cuEventCreate(ref(P()), 2))
""")
        check("quota: what is in stock is given back before something is refused", out == ["0 0 0 0 0 0 0 0 2", "0 0 2"], out, log)
        server.stop()


def main():
    global BUILD, LIBRARY
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--native", metavar="LIBRARY", help="the server's backend is native, on this driver")
    options = parser.parse_args()
    BUILD, bridge.Server.native = os.path.abspath(options.build), options.native
    LIBRARY = os.path.join(BUILD, "lib/libcuda.so.1")
    with tempfile.TemporaryDirectory() as folder:
        unix, tcp = "unix:" + os.path.join(folder, "gpu.sock"), "tcp:127.0.0.1:%d" % bridge.free_port()
        server = bridge.Server(BUILD, [unix, tcp])
        ways = {"unix": {"FARWARP_SERVER": unix}, "tcp": {"FARWARP_SERVER": tcp}, "rtt": {"FARWARP_SERVER": tcp, "FARWARP_WIRE_RTT_US": "2000"}}
        for name, way in ways.items():
            creation(name, way)
            contexts(name, way)
            if name != "rtt":
                threads(name, way)
        check("the server ends on SIGTERM", server.stop() == 0, server.text())
    quota(BUILD)
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
