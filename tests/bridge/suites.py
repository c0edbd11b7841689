#!/usr/bin/env python3
"""
The suites of the software GPU, each through a server: over unix, TCP and TLS, the same tests that run in process.

    suites.py --build BUILD [--all] [--kinds unix,tcp,tls] [SUITE ...]

Prints TAP, one line a suite and kind, and a skip for each test that cannot be right there, with the reason. Without --all the forms of PTX
instructions are a sample, as they take minutes; TLS, which carries the bytes as TCP does, has to be asked for. A test that is skipped here and passes all the same is told, not hidden.
"""
import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import run  # noqa: E402
sys.path.insert(0, os.path.join(HERE, "../real"))
import sanitizer  # noqa: E402

CONFIGURED = "the server configures the device, not the program's environment"
DESCRIPTORS = "descriptors do not travel over a network"
REACHED = "over a network kernels do not reach the program's memory"

# (suite, test): (kinds, reason)
NOT_HERE = {
    ("launch", "threads_appear_when_needed"): ("unix tcp", "the device's threads are the worker's"),
    ("launch", "clusters"): ("unix tcp", CONFIGURED + "; runs as suite \"clusters\""),
    ("stream", "memory_operations"): ("tcp", REACHED),
    ("memory", "virtual_memory"): ("tcp", DESCRIPTORS),
    ("ipc", "virtual_memory"): ("tcp", DESCRIPTORS),
    ("ipc", "pool"): ("tcp", DESCRIPTORS),
    ("leak", "virtual_memory"): ("tcp", DESCRIPTORS),
    ("memory", "accounting"): ("unix tcp", CONFIGURED + "; runs as suite \"accounting\""),
    ("modules", "managed_before_any_context"): ("unix tcp", "a library's managed variable before any context is not the program's yet"),
    ("client", "bad_settings"): ("unix tcp", CONFIGURED),
}
SAMPLE = ["add", "mad", "prmt", "fma.f", "half", "cvt", "setp"]


class Suite:
    def __init__(self, name, program, *arguments, cc="8.6", mem="1G", **environment):
        self.name, self.program, self.arguments, self.environment = name, program, arguments, environment
        self.device = (cc, mem)  # as the server has it


def suites(all_of_them):
    golden = sorted(glob.glob(os.path.join(HERE, "../ptx/golden/*.ptx")))
    table = [Suite(name, "device/test_device_" + name) for name in ("memory", "managed", "stream", "launch", "ipc", "graph", "leak")]
    return table + [
        Suite("clusters", "device/test_device_launch", "clusters", cc="9.0"),
        Suite("accounting", "device/test_device_memory", "accounting", mem="64M"),
        Suite("modules", "api/test_module"),
        Suite("client", "api/test_client", SOFT="1", PROCS=os.path.join(HERE, "../golden/procs.txt")),
        Suite("zero", "api/test_zero", EXPORTS=os.path.join(HERE, "../golden/exports.txt")),
        Suite("golden", "ptx/ptx_golden", *golden, cc="12.0"),
        Suite("forms", "ptx/ptx_forms", *([] if all_of_them else SAMPLE), cc="12.0"),
        Suite("random", "ptx/ptx_random", "--count", "300" if all_of_them else "60", cc="12.0"),
        Suite("addresses", "ptx/ptx_memory", cc="12.0"),
        Suite("mma", "ptx/ptx_mma", cc="12.0"),
        Suite("matrix", "ptx/ptx_matrix", cc="12.0"),
    ]


number = 0
failures = 0


def say(good, text, *why):
    global number, failures
    number += 1
    failures += not good
    for line in why if not good else ():
        print("#", str(line)[:300])
    print("%sok %d - %s" % ("" if good else "not ", number, text), flush=True)


def run_suite(suite, kind, address, build):
    if not os.path.exists(os.path.join(build, "tests", suite.program)):
        say(True, "%s: %s # SKIP not in this build" % (kind, suite.name))
        return
    library = os.path.join(build, "lib/libcuda.so.1")
    environment = dict(os.environ, LIBCUDA=library, FARWARP_TEST_LIBCUDA=library, FARWARP_SERVER=address, FARWARP_LOG="error:/dev/null",
                       **sanitizer.environment(build))
    environment.update(suite.environment)
    if suite.name == "client":
        environment.pop("FARWARP_LOG")  # it looks at it
    try:
        done = subprocess.run([os.path.join(build, "tests", suite.program), *suite.arguments], capture_output=True, text=True, errors="replace",
                              env=environment, timeout=900 * sanitizer.times_slower(build))
    except subprocess.TimeoutExpired:
        say(False, "%s: %s" % (kind, suite.name), "not done in time")
        return
    lines = done.stdout.splitlines()
    plan = [int(m.group(1)) for m in (re.match(r"1\.\.(\d+)", l) for l in lines) if m]
    passed = [l.split(" - ", 1)[-1] for l in lines if l.startswith("ok ")]
    failed = [l.split(" - ", 1)[-1] for l in lines if l.startswith("not ok ")]
    like = "tcp" if kind == "tls" else kind
    excused = {test: reason for (name, test), (kinds, reason) in NOT_HERE.items() if name == suite.name and like in kinds.split()}
    bad = [f for f in failed if f not in excused]
    whole = plan and plan[0] == len(passed) + len(failed)
    say(whole and not bad and (passed or failed), "%s: %s, %d tests" % (kind, suite.name, len(passed)), "%d of %s told" % (len(passed) + len(failed), plan),
        *bad, *[l for l in lines if l.startswith("#")][:6], *done.stderr.splitlines()[-3:])
    for test, reason in excused.items():
        note = " (it passes now)" if test in passed else "" if test in failed else " (it did not run)"
        say(True, "%s: %s %s # SKIP %s%s" % (kind, suite.name, test, reason, note))


def through(build, addresses, chosen, *options):
    """Suites whose device is the same, through one server."""
    if not addresses:
        return
    cc, mem = chosen[0].device
    if "tls" in addresses:
        os.environ["FARWARP_TOKEN"] = "right"
    server = run.Server(build, list(addresses.values()), "--cc", cc, "--mem", mem, *options)
    if "tls" in addresses:
        if "built without TLS" in server.text() or "needs OpenSSL" in server.text():
            say(True, "tls # SKIP %s" % server.text().strip())
            return
        pin = re.search(r"FARWARP_TLS_PIN=(\S+)", server.text())
        os.environ["FARWARP_TLS_PIN"] = pin.group(1) if pin else "none was printed"
    for kind, address in addresses.items():
        for suite in chosen:
            run_suite(suite, kind, address, build)
    say(run.until(lambda: not server.workers(), 5), "all workers of the server at %s, %s have ended" % (cc, mem), server.workers())
    say(server.stop() == 0, "the server at %s, %s ends" % (cc, mem), server.text()[-300:])
    for name in ("FARWARP_TOKEN", "FARWARP_TLS_PIN"):
        os.environ.pop(name, None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--kinds", default="unix,tcp")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG", "FARWARP_SOFT_CC"):
        os.environ.pop(name, None)
    chosen = [s for s in suites(options.all) if not options.names or s.name in options.names]
    kinds = options.kinds.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for device in sorted({s.device for s in chosen}):
            here = [s for s in chosen if s.device == device]
            plain = {"unix": "unix:%s/%s-%s" % (folder, *device), "tcp": "tcp:127.0.0.1:%d" % run.free_port()}
            through(build, {kind: plain[kind] for kind in kinds if kind in plain}, here)
            if "tls" in kinds:
                through(build, {"tls": "tls:127.0.0.1:%d" % run.free_port()}, here, "--self-signed", os.path.join(folder, "own"))
    # These need a process without a server: the device's insides, a device that computes nothing, the runtime of CUDA 11.
    for name, reason in (("marks", "compares the device's own table"), ("client parts", "is linked to a device of its own"),
                         ("exec, builtin, parse, image", "know no driver API"), ("runtimes", "loads a runtime, without a device")):
        say(True, "%s # SKIP %s" % (name, reason))
    print("1..%d" % number)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
