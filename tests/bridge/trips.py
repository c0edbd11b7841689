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
import signal
import subprocess
import sys
import tempfile
import time

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


def names(name, way):
    out, calls, log = traced(way, KERNELS + """
f = P()
print({cuda.cuLibraryGetKernel(ref(f), None, b"name%d" % n) for n in range(50)})
print({cuda.cuModuleGetFunction(ref(f), module, b"none") for n in range(50)})
""")
    check("%s: names that nothing has are asked for once" % name,
          out == ["{400}", "{500}"] and awaited(calls, "cuLibraryGetKernel") == 1 and awaited(calls, "cuModuleGetFunction") <= 4, out, calls, log)


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


# Kernels: work(p, n) counts to n and then writes 1 to p; bad() fails; talk(v) prints v.
KERNELS = """
ptx = b'''.version 7.0
.target sm_75
.address_size 64
.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
.global .align 1 .b8 text[9] = {115, 97, 121, 32, 37, 100, 10, 0, 0};
.visible .entry work(.param .u64 a, .param .u32 b)
{
	.reg .u64 %rd<2>; .reg .u32 %r<3>; .reg .pred %p;
	ld.param.u64 %rd0, [a]; ld.param.u32 %r0, [b];
loop:
	sub.u32 %r0, %r0, 1; setp.ne.u32 %p, %r0, 0; @%p bra loop;
	mov.u32 %r1, 1; st.global.u32 [%rd0], %r1;
	ret;
}
.visible .entry bad()
{
	trap;
}
.visible .entry talk(.param .u32 v)
{
	.local .align 8 .b8 frame[8];
	.reg .u64 %rd<4>; .reg .u32 %r<3>;
	ld.param.u32 %r0, [v];
	mov.u64 %rd0, frame; cvta.local.u64 %rd1, %rd0; st.local.u32 [%rd0], %r0;
	mov.u64 %rd2, text; cvta.global.u64 %rd3, %rd2;
	{
	.param .b64 f; .param .b64 x; .param .b32 r;
	st.param.b64 [f], %rd3; st.param.b64 [x], %rd1;
	call.uni (r), vprintf, (f, x);
	}
	ret;
}
'''
module, buffer, stream = P(), ctypes.c_uint64(), streams(1)[0]
must(cuda.cuModuleLoadData(ref(module), ptx), cuda.cuMemAlloc_v2(ref(buffer), 4096))
work, bad, talk = P(), P(), P()
must(*[cuda.cuModuleGetFunction(ref(f), module, n) for f, n in ((work, b"work"), (bad, b"bad"), (talk, b"talk"))])
def launch(f, *args, on=None):
    params = (P * len(args))(*[ctypes.cast(ref(a), P) for a in args])
    return cuda.cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, on or stream, params, None)
def count(n, on=None): return must(launch(work, buffer, ctypes.c_uint32(n), on=on))
def poll(e):
    n = 1
    while True:
        result = cuda.cuEventQuery(e)
        if result != 600: return result, n
        n += 1
def warm(e):
    for _ in range(6):
        count(1); must(cuda.cuEventRecord(e, stream)); poll(e)
launch_host = cuda.cuLaunchHostFunc
"""


def polls(name, way):
    out, calls, log = traced(way, KERNELS + """
e = events(1)[0]
warm(e)
polls = 0
while polls < 3000:
    count(20000000); must(cuda.cuEventRecord(e, stream))
    result, n = poll(e)
    must(result)
    polls += n
print("polls", polls >= 3000)
""")
    made, trips = calls.get("cuEventQuery", (0, 0))
    check("%s: 3000 polls of events that are not done cost a few" % name, out == ["polls True"] and made > 3000 and trips * 5 < made, calls.get("cuEventQuery"), out, log)
    check("%s: nor are records and launches awaited" % name, awaited(calls, "cuEventRecord") == 0 and awaited(calls, "cuLaunchKernel") <= 3, calls)


def redundant(name, way):
    """What PyTorch does for loss.item(), and what a second synchronisation costs."""
    out, calls, log = traced(way, KERNELS + """
x, e = ctypes.c_uint32(), events(1)[0]
for step in range(100):
    must(cuda.cuMemsetD32Async(buffer, step, 1, stream), cuda.cuMemcpyDtoHAsync_v2(ref(x), buffer, 4, stream), cuda.cuStreamSynchronize(stream))
    if x.value != step: print("wrong", x.value, step)
print("steps")
""")
    check("%s: a step that reads a number back costs one round trip" % name,
          out == ["steps"] and awaited(calls, "cuMemcpyDtoHAsync_v2") == 100 and awaited(calls, "cuStreamSynchronize") == 0, calls, out, log)
    out, calls, log = traced(way, KERNELS + """
e, other = events(1)[0], streams(1)[0]
for _ in range(50):
    count(1000); must(cuda.cuEventRecord(e, stream))
    must(cuda.cuStreamSynchronize(stream), cuda.cuStreamSynchronize(stream), cuda.cuStreamQuery(stream), cuda.cuEventQuery(e), cuda.cuEventSynchronize(e))
    count(1000)
    must(cuda.cuCtxSynchronize(), cuda.cuStreamSynchronize(stream), cuda.cuStreamQuery(other), cuda.cuCtxSynchronize(), cuda.cuEventQuery(e))
""")
    check("%s: what was waited for is not asked again" % name, out == [] and awaited(calls, "cuStreamSynchronize", "cuCtxSynchronize") == 100 and
          awaited(calls, "cuStreamQuery", "cuEventQuery", "cuEventSynchronize") == 0, calls, out, log)


def order(name, way):
    """What has been seen to be done is done: by a copy, a function, another event, another thread."""
    out, _, log = traced(way, KERNELS + """
made, other, x = events(4), streams(1)[0], ctypes.c_uint32()
for e in made: warm(e)
called = threading.Event()
function = ctypes.CFUNCTYPE(None, P)(lambda _: called.set())
wrong = 0
for step in range(60):
    count(30000 * (1 + step % 7))
    for e in made: must(cuda.cuEventRecord(e, stream))
    must(cuda.cuStreamWaitEvent(other, made[-1], 0))
    for e in made[:2]: cuda.cuEventQuery(e)
    if step % 4 == 0:
        called.clear(); must(launch_host(other, function, None)); called.wait()
    elif step % 4 == 1:
        must(cuda.cuMemcpyDtoHAsync_v2(ref(x), buffer, 4, other))
    elif step % 4 == 2:
        must(poll(made[-1])[0])
    else:
        waits = threading.Thread(target=lambda: must(cuda.cuCtxSetCurrent(ctx), cuda.cuStreamSynchronize(other)))
        waits.start(); waits.join()
    wrong += sum(cuda.cuEventQuery(e) != 0 for e in made)
    ms = ctypes.c_float()
    if step % 4 == 2: wrong += cuda.cuEventSynchronize(made[0]) + cuda.cuEventSynchronize(made[-1])
print(wrong)
""")
    check("%s: what is known to be done is not said to be pending" % name, out == ["0"], out, log)


def elapsed(name, way):
    out, _, log = traced(way, KERNELS + """
begin, end = events(2, 0)
warm(begin); warm(end)
for _ in range(50):
    ms = ctypes.c_float(-1)
    must(cuda.cuEventRecord(begin, stream)); count(20000); must(cuda.cuEventRecord(end, stream))
    must(poll(end)[0], cuda.cuEventElapsedTime(ref(ms), begin, end))
    if ms.value < 0: print("ms", ms.value)
""")
    check("%s: times between events that are done" % name, out == [], out, log)


def same(name, way, what, program):
    out, _, log = traced(way, KERNELS + program)
    want = local(KERNELS + program)
    check("%s: %s" % (name, what), out == want and out, out, want, log)


def names(name, way):
    """Names that a module does not have."""
    out, calls, log = traced(way, KERNELS + """
f = P()
for _ in range(40): print(*{cuda.cuModuleGetFunction(ref(f), module, b"none%d" % n) for n in range(5)}, cuda.cuModuleGetFunction(ref(f), module, b"bad"))
other = P()
must(cuda.cuModuleLoadData(ref(other), ptx.replace(b"bad()", b"none3()")), cuda.cuModuleGetFunction(ref(f), other, b"none3"))
print(cuda.cuModuleGetFunction(ref(f), module, b"none3"), cuda.cuModuleGetFunction(ref(f), other, b"bad"))
""")
    check("%s: what a module does not have is asked once" % name, out == ["500 0"] * 40 + ["500 500"] and awaited(calls, "cuModuleGetFunction") <= 14,
          calls.get("cuModuleGetFunction"), set(out), log)


PRINTING = """
libc, e = ctypes.CDLL(None), events(1)[0]
warm(e)
for n in range(3):
    must(launch(talk, ctypes.c_uint32(n)), cuda.cuEventRecord(e, stream))
    must(poll(e)[0], cuda.cuEventSynchronize(e))
    libc.fflush(None); print("after", n, flush=True)
    x = ctypes.c_uint32()
    must(launch(talk, ctypes.c_uint32(10 + n)), cuda.cuMemcpyDtoHAsync_v2(ref(x), buffer, 4, stream), cuda.cuStreamSynchronize(stream))
    libc.fflush(None); print("after", 10 + n, flush=True)
"""
FAILING = """
e, before = events(2)
warm(e)
must(cuda.cuEventRecord(before, stream))
launch(bad); cuda.cuEventRecord(e, stream)
print(poll(e)[0], cuda.cuEventQuery(before), cuda.cuEventSynchronize(e), cuda.cuEventCreate(ref(P()), 2), cuda.cuEventRecord(e, stream),
      cuda.cuStreamSynchronize(stream), cuda.cuStreamDestroy_v2(stream), cuda.cuEventDestroy_v2(e), cuda.cuEventDestroy_v2(e))
"""
CAPTURED = """
e, f = events(2)
graph, exec_, node = P(), P(), P()
warm(e); warm(f)
must(cuda.cuStreamBeginCapture_v2(stream, 0)); print(cuda.cuEventQuery(f))
graph_ = P(); print(cuda.cuStreamEndCapture(stream, ref(graph_)))
must(cuda.cuStreamBeginCapture_v2(stream, 2), cuda.cuEventRecord(e, stream))
print(cuda.cuEventQuery(e), cuda.cuEventSynchronize(e), cuda.cuStreamSynchronize(stream))
print(cuda.cuStreamEndCapture(stream, ref(graph)), cuda.cuEventQuery(e), cuda.cuStreamWaitEvent(None, e, 0), cuda.cuEventQuery(f))
must(cuda.cuEventRecord(e, stream)); print(poll(e)[0])
must(cuda.cuGraphCreate(ref(graph), 0), cuda.cuGraphAddEventRecordNode(ref(node), graph, None, 0, f))
must(cuda.cuGraphInstantiateWithFlags(ref(exec_), graph, ctypes.c_uint64(0)))
must(cuda.cuEventRecord(f, stream)); print(poll(f)[0])
count(40000000); must(cuda.cuGraphLaunch(exec_, stream))
print(cuda.cuEventQuery(f)); print(poll(f)[0], cuda.cuStreamQuery(stream))
class Attribute(ctypes.Structure): _fields_ = [("id", ctypes.c_uint), ("event", P), ("flags", ctypes.c_int * 2), ("rest", ctypes.c_byte * 48)]
class Config(ctypes.Structure): _fields_ = [("shape", ctypes.c_uint * 7), ("stream", P), ("attributes", P), ("count", ctypes.c_uint)]
g = events(1)[0]
warm(g); must(cuda.cuEventRecord(g, stream)); print(poll(g)[0])
attribute = Attribute(7, g)
config = Config((1, 1, 1, 1, 1, 1, 0), stream, ctypes.cast(ref(attribute), P), 1)
times = ctypes.c_uint32(60000000)
params = (P * 2)(ctypes.cast(ref(buffer), P), ctypes.cast(ref(times), P))
print(cuda.cuLaunchKernelEx(ref(config), work, params, None), cuda.cuEventQuery(g)); print(poll(g)[0])
"""


def lost(name, way, server):
    """A server that dies while its client polls."""
    program = PRELUDE + KERNELS + """
e = events(1)[0]
warm(e)
count(2000000000); must(cuda.cuEventRecord(e, stream))
cuda.cuEventQuery(e)
print("polls", flush=True)
print(poll(e)[0], cuda.cuEventQuery(e), cuda.cuEventSynchronize(e), cuda.cuEventCreate(ref(P()), 2), cuda.cuEventDestroy_v2(e), cuda.cuStreamSynchronize(stream))
"""
    client = subprocess.Popen([sys.executable, "-c", program, LIBRARY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(way))
    first = client.stdout.readline().strip()
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    begin = time.monotonic()
    try:
        out, log = client.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        client.kill()
        out, log = client.communicate()
    check("%s: a server that dies while events are polled" % name, first == "polls" and out.split() == ["46"] * 6, first, out, log)
    print("# %.0f ms" % ((time.monotonic() - begin) * 1000))


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
            names(name, way)
            polls(name, way)
            redundant(name, way)
            names(name, way)
            same(name, way, "what kernels print comes home with a synchronisation", PRINTING)
            same(name, way, "a kernel that fails is told to who polls", FAILING)
            same(name, way, "events of captures and graphs", CAPTURED)
            if name != "rtt":
                threads(name, way)
                order(name, way)
                elapsed(name, way)
            lost(name, way, server)
        check("the server ends on SIGTERM", server.stop() == 0, server.text())
    quota(BUILD)
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
