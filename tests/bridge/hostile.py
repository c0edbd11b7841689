#!/usr/bin/env python3
"""
Clients and workers that do not keep to the protocol, and clients that want what is not theirs.

    hostile.py --build BUILD [--messages N] [--seconds N] [--seed N]

Records what programs say to a worker, serves mutations of it in process (hostile.c), and then attacks real processes: hellos and tokens,
bytes of the links and of the shared rings changed on their way while both sides read them, connections that say nothing or never read, and
handles, pointers and shared memory of one lease tried in another. A process that ends by a signal, a server that no longer serves, or
another client that is disturbed is a failure. Prints TAP.
"""
import argparse
import mmap
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import faults
import record
import run as bridge
import sanitizer

check, until = bridge.check, bridge.until


def crashed(server):
    """Workers that died of a signal that nobody sent, and what sanitizers said, from the server's log."""
    text = server.text()
    return re.findall(r"worker \d+ died of signal \d+", text) + re.findall(r"(?:ERROR: \w+Sanitizer|runtime error).*", text)


# ---- messages --------------------------------------------------------------------------------------------------------


def messages(build, folder, number, seed):
    port = bridge.free_port()
    server = bridge.Server(build, ["tcp:127.0.0.1:%d" % port])
    files = record.record(build, port, folder)
    server.stop()
    check("conversations are recorded", len(files) > 10, files)
    done = subprocess.run([os.path.join(build, "tests/bridge/hostile"), str(number), str(seed), *files], capture_output=True, text=True)
    counts = [int(n) for n in re.findall(r"\d+", done.stdout)]
    check("%d messages" % number, done.returncode == 0 and counts and counts[0] >= number, done.stdout, done.stderr[-300:])
    print(done.stdout.splitlines()[0] if done.stdout else "#")
    if any("tsan" in l for l in sanitizer.libraries(build)):
        bridge.skip("no call reaches a worker's own memory", "ThreadSanitizer ends a process that is asked to map what it has for itself")
        return
    done = subprocess.run([os.path.join(build, "tests/bridge/hostile"), "--addresses"], capture_output=True, text=True)
    check("no call reaches a worker's own memory", done.returncode == 0 and "0 reached" in done.stdout, done.stdout[-300:], done.stderr[-300:])
    print(*["# " + line for line in done.stdout.splitlines()], sep="\n")


# ---- hellos ----------------------------------------------------------------------------------------------------------


def recorded_hello(build, port):
    """What a client of this build says first."""
    listener = socket.create_server(("127.0.0.1", port))
    client = bridge.client(os.path.join(build, "lib/libcuda.so.1"), "tcp:127.0.0.1:%d" % port, FARWARP_TOKEN="right")
    connection, _ = listener.accept()
    connection.settimeout(5)
    data = connection.recv(4)
    while len(data) < 4 + (struct.unpack("<I", data[:4])[0] & 0x7fffffff):
        data += connection.recv(4096)
    connection.close()
    listener.close()
    client.kill()
    client.communicate()
    return data


def hellos(build, folder, rng, number):
    port, path = bridge.free_port(), os.path.join(folder, "hello.sock")
    hello = recorded_hello(build, bridge.free_port())
    server = faults.Server(build, ["tcp:127.0.0.1:%d" % port, "unix:" + path], FARWARP_TOKEN="right")
    token = hello.index(b"right")
    taken = 0
    for n in range(number):
        bad = bytearray(hello)
        how = rng.randrange(5)
        if how == 0:
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        elif how == 1:
            bad = bad[:rng.randrange(len(bad))]
        elif how == 2:
            bad[:4] = struct.pack("<I", rng.choice((0, 1, len(bad) - 5, len(bad), 4097, 0x7fffffff, 0xffffffff)))
        elif how == 3:
            bad[token:token + 8] = bytes(rng.randrange(256) for _ in range(8))
        else:
            bad += bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200)))
        s = socket.create_connection(("127.0.0.1", port)) if n % 2 else socket.socket(socket.AF_UNIX)
        if not n % 2:
            s.connect(path)
        s.settimeout(10)
        try:
            s.sendall(bad)
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while data := s.recv(4096):
                answer += data
            welcomed = len(answer) > 60 and struct.unpack_from("<i", answer, 4 + 48)[0] == 0
            same_token = bytes(bad[token:token + 128]) == hello[token:token + 128]
            taken += welcomed and not same_token
        except OSError:
            pass
        s.close()
    check("%d hellos with mistakes: no token but the right one opens" % number, taken == 0, taken)
    check("each of them ended its worker alone", server.clean() and not crashed(server), server.holds(), server.at_rest, crashed(server))
    fine = bridge.client(os.path.join(build, "lib/libcuda.so.1"), "unix:" + path, FARWARP_TOKEN="right")
    out = fine.stdout.readline().strip()
    fine.kill()
    fine.communicate()
    check("and the next client is served", out == "0", out)
    server.stop()


# ---- rings and links -------------------------------------------------------------------------------------------------


class Rings:
    """The rings of a client and its worker, opened beside them."""

    def __init__(self, pid):
        self.maps = []
        for fd in os.listdir("/proc/%d/fd" % pid):
            name = "/proc/%d/fd/%s" % (pid, fd)
            try:
                if "farwarp-ring" in os.readlink(name):
                    file = os.open(name, os.O_RDWR)
                    self.maps.append(mmap.mmap(file, 0))
                    os.close(file)
            except OSError:
                pass

    def spoil(self, rng, times):
        for _ in range(times):
            ring = rng.choice(self.maps)
            head = struct.unpack_from("<Q", ring, 0)[0]
            where = rng.randrange(8)
            if where == 0:    # what says where the records are, or that the ring has ended
                at = rng.choice((0, 128, 256, 260))
            elif where < 5:   # near the newest records
                at = 4096 + (head + rng.randrange(-512, 512)) % (len(ring) - 4096)
            else:
                at = 4096 + (head - rng.randrange(1 << 16)) % (len(ring) - 4096)
            if rng.randrange(3) == 0:
                ring[at] = rng.randrange(256)
            else:
                ring[at] ^= 1 << rng.randrange(8)


def rings(build, folder, rng, seconds):
    path = "unix:" + os.path.join(folder, "ring.sock")
    server = faults.Server(build, [path])
    other = faults.Client(build, path, 100000, 1, 1)
    other.begun()
    ends, hung, spoilt = {}, 0, 0
    stop = time.monotonic() + seconds
    bad = []
    while time.monotonic() < stop:
        before = set(server.workers())
        client = faults.Client(build, path, 20, rng.randrange(1 << 30), 2)
        client.begun()
        time.sleep(0.05 * rng.random())
        try:
            spoiler = Rings(client.process.pid)
        except OSError:
            spoiler = None
        for _ in range(200):
            if not spoiler or not spoiler.maps or client.process.poll() is not None:
                break
            times = rng.choice((1, 1, 1, 5, 100, 2000))
            spoiler.spoil(rng, times)
            spoilt += times
            time.sleep(0.002 * rng.random())
        # A message that was lost this way is waited for as long as the link lives.
        try:
            status = client.process.wait(1)
        except subprocess.TimeoutExpired:
            hung += 1
            for worker in set(server.workers()) - before:
                os.kill(worker, signal.SIGTERM)
            status = client.end(faults.LIVENESS + faults.MARGIN)
        ends[status] = ends.get(status, 0) + 1
        if status not in (0, 1, 2, 3, 4):
            bad.append((status, client.why()))
    check("rings changed %d times under %d clients and their workers" % (spoilt, sum(ends.values())), not bad and sum(ends.values()), ends, bad[:2])
    print("# ends: %s; %d waited for what was lost" % (ends, hung))
    found = [c for c in crashed(server) if "signal 15" not in c]
    check("no worker crashed", not found, found[:5])
    check("the other client computes on, and nothing is left", other.process.poll() is None and server.clean(1), *other.why(), server.holds())
    other.process.terminate()
    other.process.wait()
    server.stop()


class Spoiler(faults.Proxy):
    """A TCP link that changes bytes, in one direction or both."""

    def __init__(self, port, rng, direction, rate):
        self.rng, self.direction, self.rate, self.changed = rng, direction, rate, 0
        super().__init__(port)

    def carry(self, a, b):
        mine = (a, b) in self.pairs
        try:
            while data := a.recv(65536):
                if self.direction == "both" or (self.direction == "to the worker") == mine:
                    data = bytearray(data)
                    for _ in range(self.rng.choice((1, 1, 2, 20)) if self.rng.random() < self.rate else 0):
                        at = self.rng.randrange(min(len(data), self.rng.choice((16, 64, 256, 65536))))
                        data[at] ^= 1 << self.rng.randrange(8)
                        self.changed += 1
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def links(build, folder, rng, seconds):
    port = bridge.free_port()
    server = faults.Server(build, ["tcp:127.0.0.1:%d" % port])
    other = faults.Client(build, "tcp:127.0.0.1:%d" % port, 100000, 1, 1)
    other.begun()
    ends, hung, changed, bad = {}, 0, 0, []
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        spoiler = Spoiler(port, rng, rng.choice(("to the worker", "to the client", "both")), rng.choice((0.5, 0.05, 0.01)))
        client = faults.Client(build, spoiler.address, 0.6, rng.randrange(1 << 30), 2)
        try:
            status = client.process.wait(2)
        except subprocess.TimeoutExpired:
            hung += 1
            spoiler.cut()
            status = client.end(faults.LIVENESS + faults.MARGIN)
        ends[status] = ends.get(status, 0) + 1
        changed += spoiler.changed
        if status not in (0, 1, 2, 3, 4):
            bad.append((status, client.why()))
        spoiler.close()
    check("%d bytes changed under %d clients on their way" % (changed, sum(ends.values())), not bad and changed, ends, bad[:2])
    print("# ends: %s; %d waited for what was lost" % (ends, hung))
    check("no worker crashed", not crashed(server), crashed(server)[:5])
    check("the other client computes on, and nothing is left", other.process.poll() is None and server.clean(1), *other.why(), server.holds())
    other.process.terminate()
    other.process.wait()
    server.stop()


# ---- what is another's -----------------------------------------------------------------------------------------------

OWNER = """
import ctypes, sys, os, struct
cuda = ctypes.CDLL(sys.argv[1])
def do(name, *args):
    result = getattr(cuda, name)(*args)
    assert result == 0, (name, result)
ctx, out = ctypes.c_void_p(), []
do("cuInit", 0); do("cuDevicePrimaryCtxRetain", ctypes.byref(ctx), 0); do("cuCtxSetCurrent", ctx)
u64 = ctypes.c_uint64
p, stream, event, graph, module, exe = u64(), u64(), u64(), u64(), u64(), u64()
do("cuMemAlloc_v2", ctypes.byref(p), 4096)
do("cuMemsetD32_v2", p, 0x5ec2e7, 1024)
do("cuStreamCreate", ctypes.byref(stream), 1)
do("cuEventCreate", ctypes.byref(event), 2)
do("cuGraphCreate", ctypes.byref(graph), 0)
do("cuGraphInstantiateWithFlags", ctypes.byref(exe), graph, u64(0))
do("cuModuleLoadData", ctypes.byref(module), PTX)
handle = (ctypes.c_char * 64)()
do("cuIpcGetMemHandle", handle, p)
print(" ".join(str(x.value) for x in (p, stream, event, graph, exe, module)), bytes(handle).hex(), flush=True)
sys.stdin.readline()
mine = (ctypes.c_uint32 * 1024)()
do("cuMemcpyDtoH_v2", mine, p, 4096)
do("cuStreamSynchronize", stream); do("cuEventQuery", event); do("cuGraphLaunch", exe, stream); do("cuCtxSynchronize")
print("whole" if all(x == 0x5ec2e7 for x in mine) else "spoilt: %x" % mine[0], flush=True)
sys.stdin.readline()
"""

STRANGER = """
import ctypes, sys
cuda = ctypes.CDLL(sys.argv[1])
ctx = ctypes.c_void_p()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0) == 0 and cuda.cuCtxSetCurrent(ctx) == 0
u64 = ctypes.c_uint64
p, stream, event, graph, exe, module = (u64(int(x)) for x in sys.argv[2:8])
handle = bytes.fromhex(sys.argv[8])
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 64)]
out, got, reached = (ctypes.c_uint32 * 1024)(), u64(), []
def tried(name, *args):
    if getattr(cuda, name)(*args) == 0:
        reached.append(name)
tried("cuMemcpyDtoH_v2", out, p, 4096)
tried("cuMemcpyHtoD_v2", p, out, 4096)
tried("cuMemsetD8_v2", p, 7, 4096)
tried("cuMemFree_v2", p)
tried("cuMemGetAddressRange_v2", ctypes.byref(got), None, p)
tried("cuStreamSynchronize", stream); tried("cuStreamQuery", stream); tried("cuStreamDestroy_v2", stream)
tried("cuEventQuery", event); tried("cuEventRecord", event, None); tried("cuEventDestroy_v2", event)
tried("cuGraphLaunch", exe, None); tried("cuGraphExecDestroy", exe); tried("cuGraphDestroy", graph)
tried("cuModuleGetFunction", ctypes.byref(got), module, b"add"); tried("cuModuleUnload", module)
tried("cuIpcCloseMemHandle", p)
# Handles that were not given, but made from what can be known or guessed: all but the secret.
import random
rng = random.Random(1)
for n in range(3000):
    bad = bytearray(handle)
    for _ in range(rng.choice((1, 1, 2, 24))):
        bad[40 + rng.randrange(24)] = rng.choice(b"0123456789abcdef") if rng.random() < 0.9 else rng.randrange(256)
    if bytes(bad) != handle:
        tried("cuIpcOpenMemHandle_v2", ctypes.byref(got), Handle.from_buffer_copy(bad), 1)
for n in range(400):
    bad = bytearray(handle)
    bad[rng.randrange(40)] = rng.randrange(256)
    bad[4:12] = __import__("struct").pack("<ii", rng.choice((int(sys.argv[9]), 1, int(sys.argv[10]))), rng.randrange(40))
    if bytes(bad[4:12]) != handle[4:12]: # with the right secret another file does not open either
        tried("cuIpcOpenMemHandle_v2", ctypes.byref(got), Handle.from_buffer_copy(bad), 1)
print(len(reached), reached[:10], flush=True)
# What was given on purpose opens.
print(cuda.cuIpcOpenMemHandle_v2(ctypes.byref(got), Handle.from_buffer_copy(handle), 1), flush=True)
"""

PTX = b".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry add()\n{\n\tret;\n}\n"


def others(build, folder):
    library, path = os.path.join(build, "lib/libcuda.so.1"), "unix:" + os.path.join(folder, "other.sock")
    server = faults.Server(build, [path])
    environment = dict(os.environ, FARWARP_SERVER=path, FARWARP_LOG="error:/dev/null", **sanitizer.environment(build))
    owner = subprocess.Popen([sys.executable, "-c", "PTX = %r\n" % PTX + OWNER, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, env=environment)
    words = owner.stdout.readline().split()
    check("a client with memory, a stream, an event, a graph, a module", len(words) == 7, words, owner.poll() is not None and owner.stderr.read())
    worker = server.workers()[0]
    stranger = subprocess.run([sys.executable, "-c", STRANGER, library, *words, str(worker), str(server.process.pid)], capture_output=True, text=True,
                              env=environment, timeout=60)
    lines = stranger.stdout.splitlines()
    check("another one reaches none of it, with 3400 made-up handles of shared memory either", lines[:1] == ["0 []"], stranger.stdout, stranger.stderr[-500:])
    check("but opens the handle that it was given", lines[1:2] == ["0"], stranger.stdout)
    owner.stdin.write("\n")
    owner.stdin.flush()
    said = owner.stdout.readline().strip()
    check("and all of it is whole", said == "whole", said, owner.poll() is not None and owner.stderr.read())
    owner.communicate("\n")
    check("nothing is left", server.clean() and not crashed(server), server.holds(), crashed(server))
    server.stop()


# ---- crowds ----------------------------------------------------------------------------------------------------------


def crowds(build, folder):
    path = os.path.join(folder, "crowd.sock")
    server = faults.Server(build, ["unix:" + path])
    library = os.path.join(build, "lib/libcuda.so.1")
    other = faults.Client(build, "unix:" + path, 100000, 1, 1)
    other.begun()
    idle = []
    for _ in range(150):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        idle.append(s)
    for s in idle[::2]:
        s.send(b"\x10")  # a hello that goes on slowly
    begin = time.monotonic()
    served = False
    while not served and time.monotonic() - begin < 15:
        late = bridge.client(library, "unix:" + path)
        served = late.stdout.readline().strip() == "0"
        late.kill()
        late.communicate()
    check("150 connections that say nothing keep nobody out", served, server.text()[-300:])
    print("# %.2f s until a client was served" % (time.monotonic() - begin))
    for s in idle:
        s.close()
    check("they leave nothing", server.clean(1), server.holds(), server.at_rest)
    for _ in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.close()
    check("neither do 200 that end at once", server.clean(1), server.holds(), server.at_rest)
    stopped = [faults.Client(build, "unix:" + path, 60, n, 2) for n in range(3)]
    for c in stopped:
        c.begun()
        c.process.send_signal(signal.SIGSTOP)  # it reads nothing any more
    busy = faults.Client(build, "unix:" + path, 1, 5, 2)
    check("clients that read nothing hold up nobody", busy.end(10) == faults.RIGHT, *busy.why())
    for c in stopped:
        c.process.kill()
        c.process.wait()
    check("the other client computes on", other.process.poll() is None and server.clean(1), *other.why())
    other.process.terminate()
    other.process.wait()
    check("no worker crashed", not crashed(server), crashed(server))
    server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--messages", type=int, default=50000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    rng = random.Random(options.seed)
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG"):
        os.environ.pop(name, None)
    print("# seed %d" % options.seed)
    with tempfile.TemporaryDirectory() as folder:
        messages(build, folder, options.messages, options.seed)
        hellos(build, folder, rng, 60 if options.messages <= 50000 else 2000)
        rings(build, folder, rng, options.seconds)
        links(build, folder, rng, options.seconds)
        others(build, folder)
        crowds(build, folder)
    print("1..%d" % len(bridge.results))
    return 0 if all(bridge.results) else 1


if __name__ == "__main__":
    sys.exit(main())
