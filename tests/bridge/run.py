#!/usr/bin/env python3
"""
The bridge end to end: farwarp serve with its software GPU, programs behind it over unix, TCP and TLS, and what happens when one of them dies.

    run.py --build BUILD [--native LIBRARY]

Prints TAP. The server is a child of this script; nothing is left behind.
"""
import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../real"))
import sanitizer  # noqa: E402

DEVICE_UNAVAILABLE, SYSTEM_NOT_READY = 46, 802
# What cannot be right through this server: its device is configured by the server.
# "accounting" knows how much memory the device has; over a network streams do not wait for host memory, descriptors do not travel.
NOT_HERE = {kind: {"launch": {"clusters", "threads_appear_when_needed"}, "memory": {"accounting"}} for kind in ("unix", "tcp", "tls", "vsock")}
for network in ("tcp", "tls", "vsock"):
    NOT_HERE[network]["stream"] = {"memory_operations"}
    NOT_HERE[network]["memory"] |= {"virtual_memory"}
results = []


def check(name, good, *why):
    results.append(good)
    if not good:
        for line in why:
            print("#", str(line)[:500])
    print("%sok %d - %s" % ("" if good else "not ", len(results), name), flush=True)


def skip(name, why):
    results.append(True)
    print("ok %d - %s # SKIP %s" % (len(results), name, why), flush=True)


class Server:
    native = None  # path of the library that plays the machine's driver

    def __init__(self, build, addresses, *options, **environment):
        self.log = tempfile.TemporaryFile()
        command = [os.path.join(build, "farwarp"), "serve", "--mem", "1G", "--backend", "native" if self.native else "soft", *options]
        if self.native:
            environment["FARWARP_NATIVE_LIBRARY"] = self.native
        for address in addresses:
            command += ["--listen", address]
        self.process = self.start(command, dict(os.environ, FARWARP_LOG="info", **environment))
        for _ in range(200):
            if self.text().count("listening") == len(addresses) or self.process.poll() is not None:
                break
            time.sleep(0.02)

    def start(self, command, environment):
        return subprocess.Popen(command, stderr=self.log, stdout=self.log, env=environment)

    def workers(self):
        children = open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)).read().split()
        return [int(c) for c in children]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "no end"

    def text(self):
        """So far; the place where the server writes stays where it is."""
        return os.pread(self.log.fileno(), 1 << 26, 0).decode(errors="replace")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


# A client that says what cuInit gave, then synchronises until that fails, and says with what.
LOOP = """
import ctypes, sys, time
cuda = ctypes.CDLL(sys.argv[1])
print(cuda.cuInit(0), flush=True)
ctx = ctypes.c_void_p()
result = cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0) or cuda.cuCtxSetCurrent(ctx)
print(result, flush=True)
end = time.monotonic() + 20
while not result and time.monotonic() < end:
    result = cuda.cuCtxSynchronize()
    time.sleep(0.005)
print(result, cuda.cuCtxSynchronize(), flush=True)
"""


def client(library, address, **environment):
    return subprocess.Popen([sys.executable, "-c", LOOP, library], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=dict(os.environ, FARWARP_SERVER=address, **sanitizer.environment(os.path.dirname(os.path.dirname(library))),
                                     **environment))


def tap(build, program, environment, *arguments):
    """Names of tests that passed and that failed."""
    done = subprocess.run([os.path.join(build, "tests", program), *arguments], capture_output=True, text=True, errors="replace",
                          timeout=120 * sanitizer.times_slower(build), env=dict(os.environ, **environment))
    lines = done.stdout.splitlines()
    passed = [l.split(" - ", 1)[1] for l in lines if l.startswith("ok ")]
    failed = [l.split(" - ", 1)[1] for l in lines if l.startswith("not ok ")]
    return passed, failed, [l for l in lines if l.startswith("#")][:5]


def not_here(kind, suite):
    return NOT_HERE[kind].get(suite, set())


def programs(build, kind, address, here):
    library = os.path.join(build, "lib/libcuda.so.1")
    for name in ("vector_add", "matmul", "reduction", "histogram", "mandelbrot"):
        done = subprocess.run([os.path.join(build, "farwarp"), "run", "--server", address, "--", os.path.join(build, "examples", name)],
                              capture_output=True, text=True, timeout=60)
        check("%s: %s" % (kind, name), done.returncode == 0 and "right" in done.stdout, done.stdout, done.stderr)
    for suite in ("stream", "launch", "memory", "managed", *(("graph",) if Server.native else ())):
        passed, failed, why = tap(build, "device/test_device_" + suite, {"LIBCUDA": library, "FARWARP_SERVER": address})
        bad = set(failed) - not_here(kind, suite)
        check("%s: device %s, %d tests" % (kind, suite, len(passed)), passed and not bad, sorted(bad), *why)
    if kind != "unix" or Server.native:
        passed, failed, why = tap(build, "device/test_device_managed",
                                  {"LIBCUDA": library, "FARWARP_SERVER": address, "FARWARP_FAULTS": "signal"})
        check("%s: managed memory by signals, %d tests" % (kind, len(passed)), passed and not set(failed) - not_here(kind, "managed"), failed, *why)
    if Server.native:  # its addresses are not this client's: else the collisions that are tested did not happen
        done = subprocess.run([os.path.join(build, "tests/device/test_device_managed"), "managed_elsewhere"], capture_output=True, text=True, timeout=60,
                              env=dict(os.environ, LIBCUDA=library, FARWARP_SERVER=address))
        check("%s: managed memory where the client has something else" % kind, "ok 1" in done.stdout and "# 0 of" not in done.stdout and
              "this process has something else there" in done.stderr, done.stdout, done.stderr)
    golden = [os.path.join(here, "../ptx/golden", f + ".ptx") for f in ("memory", "atomics", "warp", "barriers", "calls", "control_flow", "faults")]
    local = tap(build, "ptx/ptx_golden", {"FARWARP_TEST_LIBCUDA": library}, *golden)
    remote = tap(build, "ptx/ptx_golden", {"FARWARP_TEST_LIBCUDA": library, "FARWARP_SERVER": address}, *golden)
    check("%s: golden kernels as in process, %d" % (kind, len(remote[0])), remote[0] and remote[:2] == local[:2], *remote[1][:5], *remote[2])


def deaths(library, server, address):
    one, other = client(library, address), client(library, address)
    started = [one.stdout.readline().strip(), one.stdout.readline().strip(), other.stdout.readline().strip(), other.stdout.readline().strip()]
    check("two clients begin", started == ["0"] * 4, started)
    workers = server.workers()
    check("each has a worker of its own", len(workers) == 2, workers)
    begin = time.monotonic()
    one.kill()
    one.wait()
    check("the worker of a client that is killed ends", until(lambda: len(server.workers()) == 1, 2), server.workers())
    print("# %.0f ms" % ((time.monotonic() - begin) * 1000))
    check("the other client goes on", other.poll() is None)
    begin = time.monotonic()
    os.kill(server.workers()[0], signal.SIGKILL)
    try:
        out, log = other.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        other.kill()
        out, log = other.communicate()
    check("a client whose worker is killed gets an error that stays", out.split() == [str(DEVICE_UNAVAILABLE)] * 2, out, log)
    check("and one line that says so", log.count("is lost") == 1 and log.count("\n") == 1, log)
    print("# %.0f ms" % ((time.monotonic() - begin) * 1000))


def bad_input(build, library, server, path, address):
    for text in (b"", b"\xff" * 4, b"\x10\0\0\0" + b"x" * 16, b"GET / HTTP/1.0\r\n\r\n" * 300):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            try:
                s.sendall(text)
                s.shutdown(socket.SHUT_WR)
                s.settimeout(3)
                while s.recv(4096):
                    pass
            except OSError:
                pass
    check("nonsense instead of a hello ends its worker alone", until(lambda: not server.workers(), 8) and server.process.poll() is None,
          server.text())
    late = client(library, address)
    out = late.stdout.readline().strip()
    late.kill()
    late.communicate()
    check("and the next client is served", out == "0", out)
    for wrong, says in (("unix:/nowhere/gpu.sock", "cannot reach"), ("tcp:127.0.0.1:1", "cannot reach"), ("nonsense", "is no address"),
                        ("tcp:127.0.0.1:99999", "port")):
        lost = client(library, wrong)
        out, log = lost.communicate(timeout=20)
        check("FARWARP_SERVER=%s is an error with a reason" % wrong, out.split()[0] != "0" and says in log, out, log)
    refused = subprocess.run([os.path.join(build, "farwarp"), "serve", "--listen", "tcp:0.0.0.0:7999"], capture_output=True, text=True, timeout=10)
    check("plain TCP beyond loopback needs --insecure", refused.returncode == 64 and "--insecure" in refused.stderr, refused.stderr)


def refused(library, address, name, says, **environment):
    client_ = client(library, address, **environment)
    try:
        out, log = client_.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        client_.kill()
        out, log = client_.communicate()
    check("tls: " + name, out.split()[:1] == [str(SYSTEM_NOT_READY)] and says in log and log.count("\n") == 1, out, log)


def tls(build, library, folder, here):
    """Over TLS: programs, deaths, and each way not to be let in, with its sentence."""
    farwarp, own, other = os.path.join(build, "farwarp"), os.path.join(folder, "own"), os.path.join(folder, "other")
    made = subprocess.run([farwarp, "serve", "--self-signed", other], capture_output=True, text=True, timeout=20)
    if "built without TLS" in made.stderr or "needs OpenSSL" in made.stderr:
        print("# skipped: tls: %s" % made.stderr.strip())
        return
    check("tls: a certificate is made and its key is its owner's alone",
          made.returncode == 0 and os.stat(other + "/key.pem").st_mode & 0o777 == 0o600, made.stderr)
    wrong = [w for w in made.stderr.split() if w.startswith("sha256:")][0]
    port = free_port()
    address = "tls:127.0.0.1:%d" % port
    naked = subprocess.run([farwarp, "serve", "--listen", address, "--self-signed", own], capture_output=True, text=True, timeout=20,
                           env={k: v for k, v in os.environ.items() if k != "FARWARP_TOKEN"})
    check("tls: neither token nor client certificates needs --insecure", naked.returncode == 64 and "FARWARP_TOKEN" in naked.stderr, naked.stderr)
    server = Server(build, [address], "--self-signed", own, FARWARP_TOKEN="right")
    line = [l for l in server.text().splitlines() if "on the client:" in l]
    settings = dict(w.split("=", 1) for w in line[0].split() if w.startswith("FARWARP_TLS_PIN=")) if line else {}
    check("tls: what to type on the client is printed", len(settings) == 1 and address in line[0], server.text())
    settings["FARWARP_TOKEN"] = "right"
    os.environ.update(settings)
    try:
        programs(build, "tls", address, here)
        until(lambda: not server.workers(), 3)
        deaths(library, server, address)
        until(lambda: not server.workers(), 3)
    finally:
        for name in settings:
            del os.environ[name]
    ca = {"FARWARP_TLS_CA": own + "/cert.pem", "FARWARP_TOKEN": "right"}
    good = client(library, address, **ca)
    out = good.stdout.readline().strip()
    good.kill()
    check("tls: its own certificate as authority", out == "0", out, good.communicate()[1])
    refused(library, address, "an unknown authority", "FARWARP_TLS_CA", FARWARP_TOKEN="right")
    refused(library, address, "the wrong fingerprint", "FARWARP_TLS_PIN", FARWARP_TOKEN="right", FARWARP_TLS_PIN=wrong)
    refused(library, address, "a fingerprint that is none", "64 hexadecimal", FARWARP_TOKEN="right", FARWARP_TLS_PIN="sha256:12")
    refused(library, address, "the wrong token", "token", **dict(ca, FARWARP_TOKEN="wrong"))
    refused(library, address, "a file that is no authority", "FARWARP_TLS_CA", FARWARP_TLS_CA=os.path.abspath(__file__))
    refused(library, "tcp" + address[3:], "plain TCP to it", "tls:", FARWARP_TOKEN="right")
    check("tls: it ends on SIGTERM", server.stop() == 0)
    server = Server(build, ["tls:127.0.0.2:%d" % port], "--self-signed", own, "--client-ca", other + "/cert.pem")
    second = "tls:127.0.0.2:%d" % port
    refused(library, second, "a certificate for another host", "not for 127.0.0.2", **ca)
    pin = dict(FARWARP_TLS_PIN=settings["FARWARP_TLS_PIN"])
    refused(library, second, "no client certificate", "FARWARP_TLS_CERT", **pin)
    refused(library, second, "a client certificate that is not trusted", "--client-ca", FARWARP_TLS_CERT=own + "/cert.pem",
            FARWARP_TLS_KEY=own + "/key.pem", **pin)
    known = client(library, second, FARWARP_TLS_CERT=other + "/cert.pem", FARWARP_TLS_KEY=other + "/key.pem", **pin)
    out = known.stdout.readline().strip()
    known.kill()
    check("tls: a client certificate that is trusted needs no token", out == "0", out, known.communicate()[1])
    with socket.create_connection(("127.0.0.2", port)) as s:
        begin = time.monotonic()
        check("tls: who does not shake hands in time is let go", until(lambda: not server.workers(), 8), time.monotonic() - begin)
    check("tls: it ends on SIGTERM too", server.stop() == 0)


def vsock(build, library, here):
    """Over sockets that stand in for vsock: the bridge's own code, without a hypervisor's."""
    if sanitizer.libraries(build):
        skip("vsock", "a sanitizer is preloaded, and what stands in for vsock cannot be beside it")
        return
    os.environ["LD_PRELOAD"] = os.path.join(build, "tests/bridge/libvsock_shim.so")
    try:
        address = "vsock:2:%d" % free_port()
        server = Server(build, [address], "--insecure")
        programs(build, "vsock", address, here)
        check("vsock: all workers have ended", until(lambda: not server.workers(), 3), server.workers())
        deaths(library, server, address)
        check("vsock: the server ends on SIGTERM", server.stop() == 0, server.text())
    finally:
        del os.environ["LD_PRELOAD"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--native", metavar="LIBRARY", help="the server's backend is native, on this driver")
    build = os.path.abspath(parser.parse_args().build)
    Server.native = parser.parse_args().native
    here = os.path.dirname(os.path.abspath(__file__))
    library = os.path.join(build, "lib/libcuda.so.1")
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG", "FARWARP_TLS_PIN", "FARWARP_TLS_CA", "FARWARP_TLS_CERT",
                 "FARWARP_TLS_KEY"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "gpu.sock")
        unix, tcp = "unix:" + path, "tcp:127.0.0.1:%d" % free_port()
        server = Server(build, [unix, tcp])
        programs(build, "unix", unix, here)
        programs(build, "tcp", tcp, here)
        crowd = [subprocess.Popen([os.path.join(build, "farwarp"), "run", "-q", "--server", unix if n % 2 else tcp, "--",
                                   os.path.join(build, "examples/vector_add")], stdout=subprocess.PIPE, text=True) for n in range(8)]
        outputs = [c.communicate(timeout=60)[0] for c in crowd]
        check("eight clients at once", all("right" in o for o in outputs), outputs)
        check("all workers have ended", until(lambda: not server.workers(), 3), server.workers())
        deaths(library, server, unix)
        until(lambda: not server.workers(), 3)
        deaths(library, server, tcp)
        until(lambda: not server.workers(), 3)
        bad_input(build, library, server, path, unix)
        check("the server ends on SIGTERM", server.stop() == 0, server.text())
        check("and takes its socket with it", not os.path.exists(path))
        locked = Server(build, [unix], FARWARP_TOKEN="right")
        for token, want in (("wrong", SYSTEM_NOT_READY), ("", SYSTEM_NOT_READY), ("right", 0)):
            c = client(library, unix, FARWARP_TOKEN=token)
            out = c.stdout.readline().strip()
            c.kill()
            log = c.communicate()[1]
            check("token \"%s\"" % token, out == str(want) and (not want or "token" in log), out, log)
        held = client(library, unix, FARWARP_TOKEN="right")
        held.stdout.readline()
        held.stdout.readline()
        locked.process.kill()
        locked.process.wait()
        try:
            out, _ = held.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            held.kill()
            out, _ = held.communicate()
        check("a supervisor that is killed takes its workers along", out.split()[:1] == [str(DEVICE_UNAVAILABLE)], out)
        tls(build, library, folder, here)
        if not Server.native:
            vsock(build, library, here)
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
