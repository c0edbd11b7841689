#!/usr/bin/env python3
"""
What farwarp serve promises its administrator: limits of a lease, who may connect, its log, its end, the service manager, versions. In TAP.

    serve.py --build BUILD
"""
import argparse
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../real")]  # both have a run.py: the one beside this is meant
from run import check, results, skip  # noqa: E402
import sanitizer  # noqa: E402

SYSTEM_NOT_READY, OUT_OF_MEMORY = 802, 2
MIB = 1 << 20
MAGIC = b"farwarp\0"


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FARWARP", "CUDA_", "LISTEN_", "NOTIFY_"))}
    clean.update(sanitizer.environment(BUILD))
    clean.update(more)
    return clean


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


class Server:
    def __init__(self, *options, listen=True, command=None, pass_fds=(), **settings):
        self.folder = tempfile.TemporaryDirectory()
        os.chmod(self.folder.name, 0o755)
        self.path = os.path.join(self.folder.name, "gpu.sock")
        self.address = "unix:" + self.path
        self.log = tempfile.TemporaryFile()
        line = (command or []) + [os.path.join(BUILD, "farwarp"), "serve", "--backend", "soft", "--mem", "256M", *options]
        if listen:
            line += ["--listen", self.address]
        settings = environment(**settings)
        settings.pop("LD_PRELOAD", None)  # farwarp has its sanitizer built in, and a shell before it does not bear one
        self.process = subprocess.Popen(line, stderr=self.log, stdout=self.log, pass_fds=pass_fds, env=settings)
        until(lambda: "listening" in self.text() or self.process.poll() is not None)

    def text(self):
        """So far; the place where the server writes stays where it is."""
        return os.pread(self.log.fileno(), 1 << 26, 0).decode(errors="replace")

    def events(self, name):
        """Fields of each such event of the text log."""
        found = []
        for line in self.text().splitlines():
            words = line.split(" ")
            if words[:2] == ["farwarp", "serve:"] and words[2] == name:
                found.append(dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)


# Answers lines "NAME RESULT..." of what the arguments ask for.
CLIENT = """
import ctypes, sys, threading, time
cuda = ctypes.CDLL(sys.argv[1])
def say(*words): print(*words, flush=True)
say("init", cuda.cuInit(0))
ctx = ctypes.c_void_p()
if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0) or cuda.cuCtxSetCurrent(ctx): sys.exit(1)
kept = []
def alloc(size):
    p = ctypes.c_uint64()
    result = cuda.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(size))
    kept.append(p)
    return result
def info():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value
exec(sys.argv[2])
"""


def client(server, program, **settings):
    return subprocess.Popen([sys.executable, "-c", CLIENT, LIBRARY, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment(FARWARP_SERVER=server if isinstance(server, str) else server.address, **settings))


def ask(server, program, **settings):
    done = client(server, program, **settings)
    out, log = done.communicate(timeout=60)
    return out.splitlines(), log


def memory():
    with Server("--memory", "64M") as server:
        out, log = ask(server, """
total = ctypes.c_size_t(); cuda.cuDeviceTotalMem_v2(ctypes.byref(total), 0)
say("total", total.value, *info())
say("first", alloc(40 << 20), *info())
say("second", alloc(30 << 20), *info())
say("rest", alloc(24 << 20), *info())
say("free", cuda.cuMemFree_v2(kept[0]), *info())
p = ctypes.c_uint64(); say("stream", cuda.cuMemAllocAsync(ctypes.byref(p), ctypes.c_size_t(41 << 20), None))
say("stream", cuda.cuMemAllocAsync(ctypes.byref(p), ctypes.c_size_t(20 << 20), None), cuda.cuMemFreeAsync(p, None), cuda.cuCtxSynchronize(), *info())
pitch = ctypes.c_size_t()
say("pitch", cuda.cuMemAllocPitch_v2(ctypes.byref(p), ctypes.byref(pitch), ctypes.c_size_t(1 << 20), ctypes.c_size_t(41), 4))
say("huge", alloc((1 << 64) - 1), alloc(1 << 63))
say("reset", cuda.cuDevicePrimaryCtxReset_v2(0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0), *info())
say("all", alloc(64 << 20))
""")
        want = ["init 0", "total %d %d %d" % (64 * MIB, 64 * MIB, 64 * MIB), "first 0 %d %d" % (24 * MIB, 64 * MIB),
                "second %d %d %d" % (OUT_OF_MEMORY, 24 * MIB, 64 * MIB), "rest 0 0 %d" % (64 * MIB), "free 0 %d %d" % (40 * MIB, 64 * MIB),
                "stream %d" % OUT_OF_MEMORY, "stream 0 0 0 %d %d" % (40 * MIB, 64 * MIB), "pitch %d" % OUT_OF_MEMORY,
                "huge %d %d" % (OUT_OF_MEMORY, OUT_OF_MEMORY), "reset 0 0 %d %d" % (64 * MIB, 64 * MIB), "all 0"]
        check("--memory bounds what a client takes, and what it is told", out == want, [o for o, w in zip(out, want) if o != w], log, server.text())
        a, b = client(server, "say('all', alloc(64 << 20)); time.sleep(30)"), client(server, "say('all', alloc(64 << 20)); time.sleep(30)")
        lines = [c.stdout.readline() + c.stdout.readline() for c in (a, b)]
        for c in (a, b):
            c.kill()
            c.communicate()
        check("each client has its own limit", lines == ["init 0\nall 0\n"] * 2, lines)


def handles():
    with Server("--max-handles", "10", "--max-threads", "3") as server:
        out, log = ask(server, """
events = [ctypes.c_void_p() for _ in range(12)]
say("made", *[cuda.cuEventCreate(ctypes.byref(e), 0) for e in events])
say("ended", cuda.cuEventDestroy_v2(events[0]), cuda.cuEventCreate(ctypes.byref(events[0]), 0), cuda.cuEventCreate(ctypes.byref(events[11]), 0))
""")
        check("--max-handles bounds events", out[1:] == ["made " + " ".join(["0"] * 10 + ["2"] * 2), "ended 0 0 2"], out, log, server.text())
        out, log = ask(server, """
def work():
    cuda.cuCtxSetCurrent(ctx); cuda.cuCtxSynchronize(); time.sleep(0.5)
threads = [threading.Thread(target=work) for _ in range(6)]
for t in threads: t.start()
for t in threads: t.join()
say("after", cuda.cuCtxSynchronize())
""")
        check("--max-threads ends the session of who goes beyond", out[1:] == ["after 46"] and "--max-threads" in server.text() and "lost" in log,
              out, log, server.text())
        out, log = ask(server, "say('next', alloc(4096))")
        check("and nobody else's", out[1:] == ["next 0"], out, log)


IMAGE = """
text = b".version 7.0\\n.target sm_75\\n.address_size 64\\n.visible .entry empty()\\n{\\n\\tret;\\n}\\n//" + b"x" * (1 << 19) + b"%s\\n\\0"
module, library, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
results = [cuda.cuModuleLoadData(ctypes.byref(module), text), cuda.cuModuleGetFunction(ctypes.byref(function), module, b"empty"),
           cuda.cuLibraryLoadData(ctypes.byref(library), text, None, None, 0, None, None, 0),
           cuda.cuModuleLoadData(ctypes.byref(module), text.replace(b"(", b"?"))]
say(*results)
"""


def images():
    """An image travels once to a server, whoever has it; what came in is told in the log."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        tcp = "tcp:127.0.0.1:%d" % s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        kept = os.path.join(folder, "farwarp/images")

        def loads(server, number, address=tcp):
            ended = len(server.events("exit"))
            out, log = ask(address, IMAGE % number)
            until(lambda: len(server.events("exit")) > ended)
            return out[1:] == ["0 0 0 218"], int(server.events("end")[-1]["bytes_in"]) >> 10, (out, log, server.text()[-300:])

        with Server("--listen", tcp, XDG_CACHE_HOME=folder, CACHE_DIRECTORY="") as server:
            good, kib, why = loads(server, 1)
            check("the first client sends its image, and a bad one", good and 1024 < kib < 2100, kib, *why)
            check("the good one is kept, for this user alone", len(os.listdir(kept)) == 1 and os.stat(kept).st_mode & 0o777 == 0o700, os.listdir(kept))
            good, kib, why = loads(server, 1)
            check("the next one sends the bad one alone", good and 512 <= kib < 560, kib, *why)
            good, kib, why = loads(server, 2)
            check("another image has to be sent", good and kib > 1024 and len(os.listdir(kept)) == 2, kib, *why)
            good, kib, why = loads(server, 3, server.address)
            check("over unix: nothing is kept", good and len(os.listdir(kept)) == 2, *why)
        with Server("--listen", tcp, "--image-cache", kept) as server:
            good, kib, why = loads(server, 2)
            check("another server with that folder need not be sent it", good and kib < 560, kib, *why)
            # Larger ones come over connections of their own.
            large = IMAGE.replace("1 << 19", "3 << 20")
            out, log = ask(tcp, large % 5 + large % 5 + large % 6)
            check("images beside the records, known, new and bad ones", out[1:] == ["0 0 0 218"] * 3, out, log, server.text()[-300:])
        with Server("--listen", tcp, "--image-cache", "off", XDG_CACHE_HOME=folder, CACHE_DIRECTORY="") as server:
            good, kib, why = loads(server, 2)
            check("--image-cache off: everything is sent", good and kib > 1500, kib, *why)
            out, log = ask(tcp, large % 5)
            check("beside the records too", out[1:] == ["0 0 0 218"], out, log)
            slow = client(tcp, large % 7, FARWARP_WIRE_MBPS="1")
            slow.stdout.readline()
            time.sleep(0.5)
            begin = time.monotonic()
            os.kill(int(server.events("lease")[-1]["worker"]), signal.SIGKILL)
            out, log = slow.communicate(timeout=30)
            check("a worker that dies while an image comes is an error", re.match(r"46 \d+ 46 46\n", out) and "is lost" in log and
                  time.monotonic() - begin < 5, out, log, time.monotonic() - begin)
    for bad in (("--image-cache", "here"), ("--image-cache-size", "much")):
        done = subprocess.run([os.path.join(BUILD, "farwarp"), "serve", "--listen", tcp, *bad], capture_output=True, text=True, timeout=20)
        check("%s %s is refused" % bad, done.returncode == 64 and bad[0] in done.stderr, done.stderr)


def who_connects():
    with Server("--max-clients", "1") as server:
        held = client(server, "time.sleep(30)")
        held.stdout.readline()
        time.sleep(0.2)
        out, log = ask(server, "")
        check("a full server says so", out == ["init %d" % SYSTEM_NOT_READY] and "server is full" in log and "--max-clients" in log, out, log)
        held.kill()
        held.communicate()
        until(lambda: server.events("exit"))
        check("and serves the next when there is room", ask(server, "say(1)")[0] == ["init 0", "1"], server.text())
    if os.geteuid() != 0:
        return skip("users", "only root can connect as another user")
    hello, _ = capture_hello()
    for options, uid, good in (((), 65534, False), (("--allow-uid", "12345,65534"), 65534, True), (("--allow-uid", "65534"), 12345, False)):
        with Server(*options) as server:
            if not options:
                os.chmod(server.path, 0o666) # its mode is not what keeps others out
            answer = as_user(uid, lambda path=server.path: exchange(path, hello))
            result = struct.unpack("<i", answer[48:52])[0] if len(answer) > 52 else None
            check("user %d with %s is %s" % (uid, " ".join(options) or "no list", "served" if good else "turned away"),
                  result == 0 if good else result == SYSTEM_NOT_READY and b"user %d may not" % uid in answer, result, answer, server.text())


def the_log():
    with Server() as server:
        ask(server, "say(alloc(4096))")
        until(lambda: server.events("exit"))
        connect, lease, end, gone = (server.events(e) for e in ("connect", "lease", "end", "exit"))
        check("connect, lease, end and exit are logged once each", [len(x) for x in (connect, lease, end, gone)] == [1] * 4, server.text())
        check("with the worker, who connected, bytes and why it ended", connect[0]["uid"] == str(os.getuid()) and
              connect[0]["pid"] == lease[0]["client"] and len({e[0]["worker"] for e in (connect, lease, end, gone)}) == 1 and
              int(end[0]["bytes_in"]) > 0 and int(end[0]["bytes_out"]) > 0 and "closed" in end[0]["why"] and gone[0]["status"] == "0", server.text())
    with Server("--log-format", "json", FARWARP_LOG="debug") as server:
        ask(server, "say(alloc(4096))")
        with socket.socket(socket.AF_UNIX) as s: # a client that is none: its bytes reach the log
            s.connect(server.path)
            hello = b"\x1b[31mno\"farwarp\\" + bytes(200)
            s.sendall(struct.pack("<I", len(hello)) + hello)
            s.recv(4096)
        until(lambda: server.text().count('"exit"') == 2)
        lines = []
        try:
            lines = [json.loads(line) for line in server.text().splitlines()]
        except ValueError as error:
            print("#", error)
        check("--log-format json: each line is one", lines and {"connect", "lease", "end", "exit", "listening", "refused", "log"} <= {l["event"] for l in lines} and
              all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", l["time"]) for l in lines), server.text())


def drain():
    with Server("--drain", "20") as server:
        held = client(server, "time.sleep(1.5); say('late', alloc(4096))")
        held.stdout.readline()
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        check("after SIGTERM nobody new is served", until(lambda: not os.path.exists(server.path)) and
              ask(server, "")[0] == ["init %d" % SYSTEM_NOT_READY], server.text())
        out, log = held.communicate(timeout=30)
        check("who is there finishes", out == "late 0\n", out, log)
        check("then the server ends", server.process.wait(10) == 0 and server.events("drain")[0]["clients"] == "1", server.text())
    for first, options in ((signal.SIGINT, ("--drain", "20")), (signal.SIGTERM, ())):
        with Server(*options) as server:
            held = client(server, "time.sleep(30)")
            held.stdout.readline()
            begin = time.monotonic()
            server.process.send_signal(first)
            code = server.process.wait(10)
            check("%s %s ends it at once" % (first.name, " ".join(options)), code == 0 and time.monotonic() - begin < 4, server.text())
            held.kill()
            held.communicate()
    with Server("--drain", "60") as server:
        held = client(server, "time.sleep(30)")
        held.stdout.readline()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.events("drain"))
        server.process.send_signal(signal.SIGTERM)
        check("a second signal ends the drain", server.process.wait(10) == 0, server.text())
        held.kill()
        held.communicate()


def service_manager():
    with tempfile.TemporaryDirectory() as folder:
        for name in (os.path.join(folder, "notify"), "@farwarp-test-notify-%d" % os.getpid()):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.bind(name.replace("@", "\0", 1) if name[0] == "@" else name)
                s.settimeout(5)
                with Server(NOTIFY_SOCKET=name) as server:
                    try:
                        ready = s.recv(100)
                        server.process.send_signal(signal.SIGTERM)
                        stopping = s.recv(100)
                    except socket.timeout:
                        ready = stopping = b"nothing"
                    check("readiness and end are told to %s" % name[:1], (ready, stopping) == (b"READY=1", b"STOPPING=1"), ready, stopping, server.text())
        path = os.path.join(folder, "given.sock")
        with socket.socket(socket.AF_UNIX) as one, socket.socket() as two:
            one.bind(path)
            two.bind(("127.0.0.1", 0))
            for s in (one, two):
                s.listen()
            start = ["sh", "-c", 'exec 3<&%d 4<&%d; LISTEN_PID=$$ LISTEN_FDS=2; export LISTEN_PID LISTEN_FDS; exec "$@"' % (one.fileno(), two.fileno()), "sh"]
            with Server(listen=False, command=start, pass_fds=(one.fileno(), two.fileno())) as server:
                check("sockets of the service manager are used", [e["address"] for e in server.events("listening")] ==
                      ["unix:" + path, "tcp:127.0.0.1:%d" % two.getsockname()[1]], server.text())
                outs = [ask("unix:" + path, "say(alloc(4096))")[0], ask("tcp:127.0.0.1:%d" % two.getsockname()[1], "say(alloc(4096))")[0]]
                check("clients come by them", outs == [["init 0", "0"]] * 2, outs, server.text())
                server.process.send_signal(signal.SIGTERM)
                check("and they are left where they are", server.process.wait(10) == 0 and os.path.exists(path), server.text())
            start[2] = "exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$@\""
            with Server(listen=False, command=start) as server:
                check("a descriptor that is no socket is an error", server.process.wait(10) == 1 and "descriptor 3" in server.text(), server.text())
    units = sorted(os.path.join(HERE, "../../pkg/systemd", u) for u in os.listdir(os.path.join(HERE, "../../pkg/systemd")))
    try:
        with tempfile.TemporaryDirectory() as folder:
            for unit in units: # the command has to exist for the check
                text = open(unit, encoding="utf-8").read().replace("/usr/bin/farwarp", os.path.join(BUILD, "farwarp"))
                with open(os.path.join(folder, os.path.basename(unit)), "w", encoding="utf-8") as copy:
                    copy.write(text)
            done = subprocess.run(["systemd-analyze", "verify", *[os.path.join(folder, os.path.basename(u)) for u in units]], capture_output=True,
                                  text=True, timeout=60)
            about = [line for line in done.stderr.splitlines() if "farwarp" in line]
            check("systemd-analyze verify finds nothing in the units", len(units) == 2 and done.returncode == 0 and not about, done.returncode, done.stderr)
    except FileNotFoundError:
        skip("systemd-analyze verify", "there is no systemd-analyze here")


def exchange(path, hello):
    """The answer of a server to a hello."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.settimeout(10)
        s.sendall(struct.pack("<I", len(hello)) + hello)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack("<I", answer[:4])[0]:
            part = s.recv(4096)
            if not part:
                break
            answer += part
    return answer[4:]


def as_user(uid, work):
    """What `work` answers in a process of another user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b""
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            answer = work()
        finally:
            os.write(write, answer)
            os._exit(0)
    os.close(write)
    answer = b""
    while part := os.read(read, 4096):
        answer += part
    os.close(read)
    os.waitpid(child, 0)
    return answer


def capture_hello():
    """What this version's client says, and what it makes of a server of another version."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "other.sock")
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)
        said = []
        hello = b""
        for welcome in (MAGIC + struct.pack("<Q", 42) + b"9.9.9".ljust(32, b"\0") + bytes(40), None,
                        b"HTTP/1.0 400 Bad Request, and more of that kind to be long enough"):
            c = client("unix:" + path, "")
            with listener.accept()[0] as s:
                s.settimeout(10)
                size = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))[0]
                hello = s.recv(size, socket.MSG_WAITALL)
                if welcome is None:
                    welcome = MAGIC + struct.pack("<Q", 42) + hello[16:48] + bytes(1000)
                s.sendall(struct.pack("<I", len(welcome)) + welcome)
                s.shutdown(socket.SHUT_WR) # and nothing of what this version says after it
                said.append(c.communicate(timeout=30))
        return hello, said


def versions():
    hello, said = capture_hello()
    version = hello[16:48].rstrip(b"\0").decode()
    out, log = said[0]
    check("a client refuses a server of another version, with both versions", out == "init %d\n" % SYSTEM_NOT_READY and version in log and
          "9.9.9" in log and "install the same version" in log and log.count("\n") == 1, out, log)
    out, log = said[1]
    check("and one of the same version but another build", out == "init %d\n" % SYSTEM_NOT_READY and "different builds" in log, out, log)
    out, log = said[2]
    check("and something that is no farwarp", out == "init %d\n" % SYSTEM_NOT_READY and "no farwarp server" in log, out, log)
    with Server() as server:
        for name, other, words in (("another version", hello[:8] + struct.pack("<Q", 42) + b"0.0.7".ljust(32, b"\0") + hello[48:], (b"0.0.7", b"install the same version")),
                                   ("a version whose hello is shorter", hello[:8] + struct.pack("<Q", 42) + b"0.0.7".ljust(32, b"\0"), (b"0.0.7",)),
                                   ("a version whose hello is longer", hello[:8] + struct.pack("<Q", 42) + b"2.0".ljust(32, b"\0") + bytes(3000), (b"is farwarp 2.0",)),
                                   ("the same protocol with another size", hello + bytes(8), (b"different builds",)),
                                   ("no farwarp", b"x" * len(hello), (b"something else",)),
                                   ("a version that is not terminated", hello[:8] + struct.pack("<Q", 42) + b"v" * 32 + hello[48:], (b"vvvv",))):
            answer = exchange(server.path, other)
            check("a server refuses %s in words" % name, answer[:8] == MAGIC and answer[16:48].rstrip(b"\0").decode() == version and
                  all(w in answer for w in words), answer)
        until(lambda: len(server.events("refused")) == 6)
        check("and logs each", len(server.events("refused")) == 6 and "0.0.7" in server.text(), server.text())
        check("this version is served", ask(server, "say(1)")[0] == ["init 0", "1"], server.text())


def main():
    global BUILD, LIBRARY
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    BUILD = os.path.abspath(parser.parse_args().build)
    LIBRARY = os.path.join(BUILD, "lib/libcuda.so.1")
    for part in (memory, handles, images, who_connects, the_log, drain, service_manager, versions):
        part()
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
