#!/usr/bin/env python3
"""
Drivers that do not start, that lack calls and that print, in process and behind a server; and which devices a client sees. In TAP.

    test_native.py BUILD FAKE_DRIVER
"""
import os
import signal
import subprocess
import sys
import tempfile
import time

BUILD, FAKE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../bridge"), os.path.join(HERE, "../real")]  # both have a run.py: the bridge's is meant
from run import check, results  # noqa: E402
import sanitizer  # noqa: E402

LIBRARY = os.path.join(BUILD, "lib/libcuda.so.1")
NOT_SUPPORTED = 801
FAILURES = {3: "no driver", 100: "no GPU", 802: "fabric", 803: "versions", 999: "kernel module"}

PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL(sys.argv[1])
print("init", cuda.cuInit(0), flush=True)
name = ctypes.create_string_buffer(256)
if cuda.cuDeviceGetName(name, 256, 0) == 0:
    print("name", name.value.decode(), flush=True)
ctx = ctypes.c_void_p()
print("retain", cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0), cuda.cuCtxSetCurrent(ctx), flush=True)
print("missing", cuda.cuMemFree_v2(ctypes.c_uint64(4096)), cuda.cuMemFree_v2(ctypes.c_uint64(8192)), flush=True)
print("synchronize", cuda.cuCtxSynchronize(), flush=True)
"""


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FARWARP", "CUDA_", "FAKE_"))}
    clean.update(sanitizer.environment(BUILD))
    clean.update(more)
    return clean


def run(**settings):
    return subprocess.run([sys.executable, "-c", PROGRAM, LIBRARY], capture_output=True, text=True, timeout=60, env=environment(**settings))


class Server:
    """farwarp serve on a fake driver."""

    def __init__(self, path, *options, **settings):
        self.log = tempfile.TemporaryFile()
        command = [os.path.join(BUILD, "farwarp"), "serve", "--backend", "native", "--no-check", "--listen", "unix:" + path, *options]
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log,
                                        env=environment(FARWARP_NATIVE_LIBRARY=FAKE, FARWARP_LOG="info", **settings))
        for _ in range(500):
            if "listening" in self.text() or self.process.poll() is not None:
                break
            time.sleep(0.02)

    def text(self):
        """So far; the place where the server writes stays where it is."""
        return os.pread(self.log.fileno(), 1 << 26, 0).decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def failures(path):
    for code, word in FAILURES.items():
        done = run(FARWARP_DEVICE="native", FARWARP_NATIVE_LIBRARY=FAKE, FAKE_CUDA="init=%d" % code)
        check("in process, cuInit answers %d and why" % code, "init %d\n" % code in done.stdout and FAKE in done.stderr and word in done.stderr
              and done.stderr.count("\n") == 1, done.stdout, done.stderr)
        with Server(path, FAKE_CUDA="init=%d" % code) as server:
            done = run(FARWARP_SERVER="unix:" + path)
            check("through a server, cuInit answers %d and why" % code, "init %d\n" % code in done.stdout and FAKE in done.stderr and
                  word in done.stderr, done.stdout, done.stderr, server.text())
            check("and the server's log has it", "refused" in server.text() and word in server.text(), server.text())
    done = run(FARWARP_DEVICE="native", FARWARP_NATIVE_LIBRARY=LIBRARY)
    check("farwarp's own library is no driver", "init 100\n" in done.stdout and "farwarp's own" in done.stderr, done.stdout, done.stderr)
    done = run(FARWARP_DEVICE="native", FARWARP_NATIVE_LIBRARY="/nowhere/libcuda.so.1")
    check("a driver that is not there is named", "init 100\n" in done.stdout and "/nowhere/libcuda.so.1" in done.stderr, done.stdout, done.stderr)


def lacking(path):
    done = run(FARWARP_DEVICE="native", FARWARP_NATIVE_LIBRARY=FAKE)
    check("calls that the driver has are made", "name Fake H100\n" in done.stdout and "retain 0 0\n" in done.stdout and
          "synchronize 0\n" in done.stdout, done.stdout, done.stderr)
    check("one that it lacks is not supported", "missing %d %d\n" % (NOT_SUPPORTED, NOT_SUPPORTED) in done.stdout, done.stdout)
    check("and logged once", done.stderr.count("cuMemFree_v2") == 1 and FAKE in done.stderr, done.stderr)
    with Server(path) as server:
        done = run(FARWARP_SERVER="unix:" + path)
        check("the same through a server", "missing %d %d\n" % (NOT_SUPPORTED, NOT_SUPPORTED) in done.stdout and
              server.text().count("cuMemFree_v2") == 1, done.stdout, done.stderr, server.text())
        check("what the driver writes to descriptor 1 comes home, in its place",
              done.stdout.endswith("printed by the driver\nsynchronize 0\n") and "printed" not in server.text(), done.stdout, server.text())


def devices(path):
    cases = ((None, None, "all"), ("0,2", None, "0,2"), (None, "1", "1"), ("0,2", "1", "2"), ("0,2", "1,0", "2,0"), ("0,2", "5", "-1"),
             ("0,2", "0,9,1", "0"), ("0,2", "", "-1"), ("GPU-aaaa1111,GPU-bbbb2222", "GPU-bbbb", "GPU-bbbb2222"), ("1,3", "GPU-cc", "-1"))
    for offered, wanted, want in cases:
        options = ["--devices", offered] if offered else []
        with Server(path, *options, FAKE_CUDA="name=visible") as server:
            settings = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
            done = run(FARWARP_SERVER="unix:" + path, **settings)
            check("server has %s, client wants %s: %s" % (offered, wanted, want), "name %s\n" % want in done.stdout, done.stdout, done.stderr,
                  server.text())


def start_up(path):
    def serve(*options, **settings):
        return subprocess.run([os.path.join(BUILD, "farwarp"), "serve", "--listen", "unix:" + path, *options], capture_output=True, text=True,
                              timeout=60, env=environment(FARWARP_NATIVE_LIBRARY=FAKE, **settings))

    for script, word in (("init=802", "fabric"), ("init=3", "no driver"), ("crash=1", "crashes"), ("count=0", "driver")):
        done = serve("--backend", "native", FAKE_CUDA=script)
        check("a GPU with %s is not served" % script, done.returncode == 2 and word in done.stderr and "--backend soft" in done.stderr and
              "listening" not in done.stderr, done.returncode, done.stderr)
    for options, script, want in ((("--backend", "native"), "", "backend=native devices=1"), ((), "", "backend=native devices=1"),
                                  ((), "init=999", "backend=soft finding=")):
        server = subprocess.Popen([os.path.join(BUILD, "farwarp"), "serve", "--listen", "unix:" + path, *options], stderr=subprocess.PIPE,
                                  text=True, env=environment(FARWARP_NATIVE_LIBRARY=FAKE, FAKE_CUDA=script))
        line = server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
        check("serve %s on %s says what it drives" % (" ".join(options), script or "a GPU that works"), want in line, line)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "gpu.sock")
        failures(path)
        lacking(path)
        devices(path)
        start_up(path)
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
