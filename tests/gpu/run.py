#!/usr/bin/env python3
"""
The suites on this machine's own GPU: on its driver alone (native), with farwarp's library in front of it (direct), and behind farwarp serve
--backend native over unix and TCP. Then, native and behind the server over unix in turn: PyTorch programs (torch_*.py, if torch can be
imported) and copies of pinned memory, whose numbers and times are compared; and what only a driver can answer (probe.c). In TAP;
without a GPU that works everything is a skip that says why. The tables are printed and written to BUILD/check-gpu.md.

    run.py --build BUILD [--ways native,direct,unix,tcp] [--python PYTHON] [--no-real] [--no-torch]

FARWARP_NATIVE_LIBRARY names another driver, as everywhere: the software GPU of BUILD/tests/native plays one where there is no GPU.
"""
import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = ("vector_add", "matmul", "reduction", "histogram", "mandelbrot")
SUITES = ("memory", "managed", "stream", "launch", "graph", "ipc")
GOLDEN = ("memory", "atomics", "warp", "barriers", "calls", "control_flow", "shfl_old", "special")
# What asks for the software GPU itself: its size, its threads, its options, its messages.
SOFT_ONLY = {"memory": {"accounting"}, "launch": {"clusters", "threads_appear_when_needed"}}
# What a driver behind a server does not do: see "Behind a real driver" in docs/bridge.md.
NOT_OVER = {"unix": {}, "tcp": {"memory": {"virtual_memory"}, "stream": {"memory_operations"}, "ipc": {"pool", "virtual_memory"}}}
TORCH = ("gpt", "conv", "compile", "graphs", "generate")
TORCH_ROUNDS = 3     # native and behind the server in turn
TORCH_RATIO = 0.97   # of native speed
PINNED_RATIO = 0.97  # of native bandwidth
results, skipped = [], []
tables = []  # lines of BUILD/check-gpu.md


def report(name, good, *why, skip=None):
    results.append(good)
    skipped.extend([name] if skip else [])
    for line in why if not good else ():
        print("#", str(line)[:300])
    print("%sok %d - %s%s" % ("" if good else "not ", len(results), name, " # SKIP " + skip if skip else ""), flush=True)


def run(command, environment, seconds=300):
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, env=dict(os.environ, **environment),
                              stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as e:
        return "no end after %d s" % seconds, str(e.stdout or "")[-500:], ""


def tap(name, command, environment, without=()):
    code, out, err = run(command, environment)
    lines = out.splitlines()
    failed = {l.split(" - ", 1)[1] for l in lines if l.startswith("not ok ")} - set(without)
    passed = [l for l in lines if l.startswith("ok ")]
    # A program that leaves out what is not for a GPU ends with 1 all the same.
    report("%s, %d tests" % (name, len(passed)), bool(passed) and not failed and code in (0, 1), code, sorted(failed), err[-500:],
           *[l for l in lines if l.startswith("#")][:8])


def real_programs(build, way, environment, option):
    code, out, err = run([sys.executable, os.path.join(HERE, "../real/run.py"), "--build", build, option], environment, 3000)
    if "1..0 # SKIP" in out:
        report("%s: real programs" % way, True, skip=out.split("# SKIP", 1)[1].strip())
        return
    failed = [l for l in out.splitlines() if l.startswith("not ok")]
    report("%s: real programs, %d" % (way, out.count("\nok ")), code == 0 and "\nok " in out, code, *failed[:20], err[-500:])


def suites(build, way, environment):
    library = os.path.join(build, "lib/libcuda.so.1")
    front = dict(environment, LD_LIBRARY_PATH=os.path.join(build, "lib") + ":" + os.environ.get("LD_LIBRARY_PATH", ""))
    for name in EXAMPLES:
        code, out, err = run([os.path.join(build, "examples", name)], front)
        report("%s: %s" % (way, name), code == 0 and "right" in out, code, out, err)
    for suite in SUITES:
        without = SOFT_ONLY.get(suite, set()) | NOT_OVER.get(way, {}).get(suite, set())
        tap("%s: device %s" % (way, suite), [os.path.join(build, "tests/device/test_device_" + suite)], dict(environment, LIBCUDA=library), without)
    tap("%s: golden kernels" % way, [os.path.join(build, "tests/ptx/ptx_golden"), *[os.path.join(HERE, "../ptx/golden", g + ".ptx") for g in GOLDEN]],
        dict(environment, FARWARP_TEST_LIBCUDA=library))


def write(*lines):
    """Prints lines of the tables, which are kept for the file."""
    tables.extend(lines)
    for line in lines:
        print("# " + line, flush=True)


def bridged(build, address):
    return {"FARWARP_SERVER": address, "LD_LIBRARY_PATH": os.path.join(build, "lib") + ":" + os.environ.get("LD_LIBRARY_PATH", "")}


def torch_program(python, name, environment):
    """What torch_NAME.py printed, or a sentence that says why it printed nothing."""
    code, out, err = run([python, "-W", "ignore", os.path.join(HERE, "torch_%s.py" % name)], dict(environment, PYTHONDONTWRITEBYTECODE="1"), 900)
    try:
        return json.loads(out.splitlines()[-1]) if code == 0 else "%s: %s" % (code, err[-1500:])
    except (IndexError, ValueError):
        return "no numbers: " + out[-500:]


def torch_programs(build, python, address):
    probe = "import torch; print(torch.__version__ if torch.cuda.is_available() else ''); print(torch.cuda.get_device_name())"
    code, out, err = run([python, "-c", probe], {})
    if code != 0:
        why = "%s: %s" % (python, (err.strip().splitlines() or ["no answer"])[-1])
        for name in TORCH:
            report("PyTorch, %s" % name, True, skip=why)
        return
    version, device = out.splitlines()[:2]
    write("", "## PyTorch %s on %s, natively and behind farwarp serve over unix, %d runs in turn" % (version, device, TORCH_ROUNDS), "",
          "| program | native, ms a step | behind the server, ms a step | speed | numbers |", "|---|---|---|---|---|")
    for name in TORCH:
        runs = {"native": [], "unix": []}
        for _ in range(TORCH_ROUNDS):
            runs["native"].append(torch_program(python, name, {}))
            runs["unix"].append(torch_program(python, name, bridged(build, address)))
        failed = [r for r in runs["native"] + runs["unix"] if isinstance(r, str)]
        if failed:
            report("PyTorch, %s: runs" % name, False, *failed[0].splitlines()[-12:])
            continue
        steady = all(r["numbers"] == runs["native"][0]["numbers"] for r in runs["native"])
        same = all(r["numbers"] == runs["native"][0]["numbers"] for r in runs["unix"])
        there, here = (min(r["seconds"] for r in runs[way]) for way in ("unix", "native"))
        write("| %s | %.3f | %.3f | %.3f | %s |" % (name, here * 1e3, there * 1e3, here / there,
                                                   "the same" if same else "differ" if steady else "differ, as two native runs do"))
        report("PyTorch, %s: the same numbers" % name, same or not steady, "the numbers differ",
               skip=None if steady else "two native runs differ from each other")
        report("PyTorch, %s: at least %.2f of native speed" % (name, TORCH_RATIO), here / there >= TORCH_RATIO, here / there)


def bandwidth(build, address):
    program, rates = os.path.join(build, "tests/gpu/gpu_bandwidth"), {}
    for way, environment in (("native", {}), ("unix", bridged(build, address))) * 3:
        code, out, err = run([program], environment)
        if code != 0:
            report("pinned copies, %s" % way, False, code, err[-500:])
            return
        for name, value in (line.split()[:2] for line in out.splitlines() if "GB/s" in line):
            rates.setdefault(name, {}).setdefault(way, []).append(float(value))
    write("", "## Copies of 64 MiB, GB/s, medians of three runs in turn", "", "| copy | native | behind the server | of native |", "|---|---|---|---|")
    for name, both in rates.items():
        here, there = statistics.median(both["native"]), statistics.median(both["unix"])
        write("| %s | %.2f | %.2f | %.3f |" % (name.replace("_", " "), here, there, there / here))
        if "pinned" in name:
            report("%s: at least %.2f of native bandwidth" % (name, PINNED_RATIO), there / here >= PINNED_RATIO, there / here)


def questions(build, environment):
    code, out, err = run([os.path.join(build, "tests/gpu/gpu_probe")], environment, 600)
    write("", "## What the driver answers", "", *["- " + line for line in out.splitlines()])
    report("the driver answered what was asked", code == 0, code, err[-500:])


class Server:
    def __init__(self, build, *addresses):
        self.log = tempfile.TemporaryFile()
        command = [os.path.join(build, "farwarp"), "serve", "--backend", "native"]
        for address in addresses:
            command += ["--listen", address]
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while "listening" not in self.text() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)

    def text(self):
        """So far; the place where the server writes stays where it is."""
        return os.pread(self.log.fileno(), 1 << 26, 0).decode(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--ways", default="native,direct,unix,tcp")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has PyTorch")
    parser.add_argument("--no-real", action="store_true", help="without the programs that nvcc compiles")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch and without copies")
    options = parser.parse_args()
    build, ways = os.path.abspath(options.build), options.ways.split(",")
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        addresses = {"unix": "unix:" + os.path.join(folder, "gpu.sock"), "tcp": "tcp:127.0.0.1:%d" % port}
        server = Server(build, *addresses.values())
        if server.process.poll() is not None:
            why = re.sub(r"\s+", " ", server.text().split("farwarp serve: ", 1)[-1].splitlines()[0]) if server.text() else "farwarp serve ended"
            if server.process.returncode == 2: # its quick check
                for way in ways + ["PyTorch", "copies", "what the driver answers"]:
                    report("%s: all" % way, True, skip=why)
                print("check-gpu: NOTHING WAS TESTED: " + why, file=sys.stderr)
            else:
                report("farwarp serve --backend native begins", False, server.text())
        else:
            write("# make check-gpu, " + time.strftime("%Y-%m-%d"), "", server.text().splitlines()[0].split("farwarp serve: ", 1)[-1])
            for way in ways:
                environment = {"FARWARP_DEVICE": "native"} if way == "direct" else {"FARWARP_SERVER": addresses.get(way, "")}
                if way != "native":
                    suites(build, way, environment)
                if not options.no_real:
                    real_programs(build, way, environment if way != "native" else {}, "--native" if way == "native" else "--front")
            wish = os.environ.get("FARWARP_NATIVE_LIBRARY")
            questions(build, {"LIBCUDA": wish} if wish else {})
            if wish:
                for name in ("PyTorch", "copies"):
                    report("%s: all" % name, True, skip="FARWARP_NATIVE_LIBRARY names a driver that programs do not load by themselves")
            elif not options.no_torch:
                bandwidth(build, addresses["unix"])
                torch_programs(build, options.python, addresses["unix"])
            report("the server ends quietly", server.stop() == 0 and "signal=" not in server.text().replace("stopped signal=15", ""), server.text()[-1000:])
            write("", "%d passed, %d failed, %d skipped" % (sum(results) - len(skipped), results.count(False), len(skipped)), *["- skipped: " + s for s in skipped])
            with open(os.path.join(build, "check-gpu.md"), "w") as f:
                f.write("\n".join(tables) + "\n")
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
