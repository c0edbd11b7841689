#!/usr/bin/env python3
"""
Random programs in process and behind a server, compared line by line (model.h says what they are).

    model.py --build BUILD [--seeds FIRST-LAST] [--steps N] [--over unix,tcp,rtt,strict] [--shrink]

Prints TAP: a test for each way to the device, which fails when a trace differs from the one in process, when the model does not allow what
a call gave, or when a seed crashes or hangs. --shrink looks for the few steps that are needed to show the first difference.
"""
import argparse
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run as bridge  # noqa: E402
import sanitizer  # noqa: E402

BATCH = 10


class Runner:
    def __init__(self, build, steps):
        self.program = os.path.join(build, "tests/bridge/test_model")
        self.environment = dict(os.environ, LIBCUDA=os.path.join(build, "lib/libcuda.so.1"), FARWARP_LOG="error:/dev/null",
                                **sanitizer.environment(build))
        self.steps = steps

    def trace(self, first, last, features, way, steps=None, skip=""):
        """The lines of some seeds, by seed; `way`: the environment that leads to the device."""
        command = [self.program, "--seed", "%d-%d" % (first, last), "--steps", str(steps or self.steps), "--features", features]
        if skip:
            command += ["--skip", skip]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=200 * (last - first + 1),
                              env=dict(self.environment, **way), stdin=subprocess.DEVNULL)
        lines = {}
        for line in done.stdout.splitlines():
            seed = line[1:].split(".", 1)[0].split(" ", 1)[0].rstrip("ab")
            lines.setdefault(int(seed) if seed.isdigit() else -1, []).append(line)
        return lines


def difference(a, b):
    """The first lines that are not the same, with a few before them."""
    for n in range(max(len(a), len(b))):
        left, right = a[n] if n < len(a) else "(end)", b[n] if n < len(b) else "(end)"
        if left != right:
            return a[max(0, n - 6):n] + ["in process: " + left, "over there: " + right]
    return []


def broken(lines):
    return [line for line in lines if line.startswith("!")]


def bad(runner, seed, features, way, steps, skip):
    """Whether these steps of a seed still show something."""
    here = runner.trace(seed, seed, features, LOCAL, steps, skip).get(seed, [])
    there = runner.trace(seed, seed, features, way, steps, skip).get(seed, [])
    return here != there or broken(here)


def skip_list(steps, kept):
    return ",".join(str(n) for n in range(1, steps + 1) if n not in kept)


def shrink(runner, seed, features, way):
    steps = runner.steps
    low, high = 0, steps
    while high - low > 1: # the first steps that are enough
        middle = (low + high) // 2
        low, high = (low, middle) if bad(runner, seed, features, way, middle, "") else (middle, high)
    steps, kept, size = high, list(range(1, high + 1)), max(1, high // 2)
    while size:
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + size:]
            if bad(runner, seed, features, way, steps, skip_list(steps, set(fewer))):
                kept = fewer
            else:
                at += size
        size //= 2
    skip = skip_list(steps, set(kept))
    print("# seed %d needs steps %s: --seed %d --steps %d --skip %s" % (seed, kept, seed, steps, skip))
    here = runner.trace(seed, seed, features, LOCAL, steps, skip).get(seed, [])
    there = runner.trace(seed, seed, features, way, steps, skip).get(seed, [])
    for line in [line for line in here if line.split(".")[1] != "0"] + difference(here, there):
        print("#", line)


LOCAL = {"FARWARP_SOFT_MEM": "1G"}


def compare(runner, name, features, way, first, last, want_shrink):
    """One way to the device. Seeds that differ."""
    seeds = []
    for at in range(first, last + 1, BATCH):
        to = min(at + BATCH - 1, last)
        here, there = runner.trace(at, to, features, LOCAL), runner.trace(at, to, features, way)
        for seed in range(at, to + 1):
            a, b = here.get(seed, []), there.get(seed, [])
            if not a or a != b or broken(a):
                seeds.append(seed)
                if len(seeds) <= 5:
                    for line in ["seed %d over %s:" % (seed, name)] + difference(a, b) + broken(a)[:5]:
                        print("#", line[:200], flush=True)
                if want_shrink and len(seeds) == 1:
                    shrink(runner, seed, features, way)
    return seeds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--seeds", default="1-20")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--over", default="unix,tcp")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--shrink", action="store_true")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    first, last = (int(n) for n in options.seeds.split("-"))
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG"):
        os.environ.pop(name, None)
    runner = Runner(build, options.steps)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        unix, tcp = "unix:" + os.path.join(folder, "gpu.sock"), "tcp:127.0.0.1:%d" % (options.port or bridge.free_port())
        ways = {"unix": ("capture-copies,mapped", {"FARWARP_SERVER": unix}), "tcp": ("capture-copies", {"FARWARP_SERVER": tcp}),
                "rtt": ("capture-copies", {"FARWARP_SERVER": tcp, "FARWARP_WIRE_RTT_US": "300"}),
                "strict": ("capture-copies,mapped", {"FARWARP_SERVER": unix, "FARWARP_STRICT": "1"})}
        server = bridge.Server(build, [unix, tcp])
        try:
            for n, name in enumerate(options.over.split(",")):
                seeds = compare(runner, name, *ways[name], first, last, options.shrink)
                failed += bool(seeds)
                print("%sok %d - %d seeds of %d steps over %s as in process%s" % ("not " if seeds else "", n + 1, last - first + 1,
                      options.steps, name, ": not %s" % seeds[:20] if seeds else ""), flush=True)
        finally:
            server.stop()
    print("1..%d" % len(options.over.split(",")))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
