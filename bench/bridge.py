#!/usr/bin/env python3
"""What calls cost through the bridge, beside the same in process, in one run: medians over rounds taken in turn.

    bench/bridge.py --build build [--rounds 3]
"""
import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def measure(program, environment):
    done = subprocess.run([program], capture_output=True, text=True, env=environment, timeout=120)
    if done.returncode:
        raise SystemExit("bench_bridge: " + done.stderr)
    return {line.split()[0]: (float(line.split()[1]), line.split()[2]) for line in done.stdout.splitlines()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    with tempfile.TemporaryDirectory() as folder:
        program, path = os.path.join(folder, "bench_bridge"), os.path.join(folder, "gpu.sock")
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", os.path.join(HERE, "bench_bridge.c"), "-o", program, "-ldl"], check=True)
        server = subprocess.Popen([os.path.join(build, "farwarp"), "serve", "--mem", "1G", "--listen", "unix:" + path,
                                   "--listen", "tcp:127.0.0.1:21105"], stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(path):
                time.sleep(0.02)
            base = dict(os.environ, LD_LIBRARY_PATH=os.path.join(build, "lib"), FARWARP_SOFT_MEM="1G")
            base.pop("FARWARP_SERVER", None)
            places = {"in process": base, "unix": dict(base, FARWARP_SERVER="unix:" + path),
                      "tcp": dict(base, FARWARP_SERVER="tcp:127.0.0.1:21105")}
            rounds = [{place: measure(program, environment) for place, environment in places.items()} for _ in range(options.rounds)]
            calls = None
            if shutil.which("strace"):
                trace = subprocess.run(["strace", "-f", "-c", program], capture_output=True, text=True, env=places["unix"])
                calls = trace.stderr.splitlines()[-1] if trace.returncode == 0 else None
        finally:
            server.terminate()
            server.wait()
    print("| measurement | " + " | ".join(places) + " |")
    print("|---|" + "---|" * len(places))
    for name, (_, unit) in rounds[0]["in process"].items():
        values = [statistics.median(r[place][name][0] for r in rounds) for place in places]
        print("| %s | %s |" % (name.replace("_", " "), " | ".join("%.4g %s" % (v, unit) for v in values)))
    if calls:
        print("\nSystem calls of the client over unix, all of it:", calls)


if __name__ == "__main__":
    main()
