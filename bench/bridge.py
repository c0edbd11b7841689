#!/usr/bin/env python3
"""What calls cost through the bridge, beside the same in process, in one run: medians over rounds taken in turn.

    bench/bridge.py --build build [--rounds 3] [--steps 9] [--streams 2]

Beside them, in each round, what iperf3 reaches over the loopback device with as many connections as large copies have.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def measure(program, environment, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, timeout=120)
    if done.returncode:
        raise SystemExit("bench_bridge: " + done.stderr)
    return {line.split()[0]: (float(line.split()[1]), line.split()[2]) for line in done.stdout.splitlines()}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def iperf(streams):
    """GB/s of a second over the loopback device; None without iperf3."""
    if not shutil.which("iperf3"):
        return None
    port = str(free_port())
    with subprocess.Popen(["iperf3", "-s", "-1", "-p", port], stdout=subprocess.DEVNULL) as server:
        for _ in range(50):
            time.sleep(0.05)
            done = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", port, "-t", "1", "-P", str(streams), "-J"], capture_output=True, text=True)
            if done.returncode == 0:
                break
        else:
            server.kill()
            return None
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 8e9


def tls_settings(log):
    """What a client has to set, as the server prints it."""
    text = os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
    return dict(word.split("=", 1) for word in text.split() if word.startswith("FARWARP_TLS_PIN="))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=9, help="rounds of the training step, each place in turn")
    parser.add_argument("--streams", type=int, default=2, help="connections for large copies")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    with tempfile.TemporaryDirectory() as folder:
        program, path = os.path.join(folder, "bench_bridge"), os.path.join(folder, "gpu.sock")
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", os.path.join(HERE, "bench_bridge.c"), "-o", program, "-ldl"], check=True)
        tcp, tls, log = "tcp:127.0.0.1:%d" % free_port(), "tls:127.0.0.1:%d" % free_port(), tempfile.TemporaryFile()
        farwarp = os.path.join(build, "farwarp")
        has_tls = subprocess.run([farwarp, "serve", "--self-signed", folder], stderr=subprocess.DEVNULL).returncode == 0
        server = subprocess.Popen([farwarp, "serve", "--mem", "1G", "--listen", tcp, *(["--listen", tls, "--self-signed", folder] if has_tls else []),
                                   "--listen", "unix:" + path], stderr=log, env=dict(os.environ, FARWARP_TOKEN="bench"))
        try:
            while not os.path.exists(path):
                time.sleep(0.02)
            base = dict(os.environ, LD_LIBRARY_PATH=os.path.join(build, "lib"), FARWARP_SOFT_MEM="1G", FARWARP_TOKEN="bench",
                        FARWARP_WIRE_STREAMS=str(options.streams))
            base.pop("FARWARP_SERVER", None)
            places = {"in process": base, "unix": dict(base, FARWARP_SERVER="unix:" + path),
                      "tcp": dict(base, FARWARP_SERVER=tcp)}
            if has_tls:
                places["tls"] = dict(base, FARWARP_SERVER=tls, **tls_settings(log))
            far = {"in process": base, "unix": places["unix"], "tcp, 100 us": dict(places["tcp"], FARWARP_WIRE_RTT_US="100"),
                   "tcp, 500 us": dict(places["tcp"], FARWARP_WIRE_RTT_US="500"), "in process again": base}
            rounds, beside, steps = [], [], []
            for _ in range(options.rounds):
                rounds.append({place: measure(program, environment) for place, environment in places.items()})
                beside.append(iperf(options.streams))
            for _ in range(options.steps):  # the places in turn, as the machine's speed drifts
                steps.append({place: measure(program, environment, "steps")["training_step_of_1000_launches"][0] for place, environment in far.items()})
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
    print("\nThe training step with round trips injected, median of %d rounds of 9 steps; ratios to the mean of both in process, median (quartiles):" %
          len(steps))
    for place in far:
        ratios = sorted(2 * s[place] / (s["in process"] + s["in process again"]) for s in steps)
        print("- %s: %.2f ms, %.3f (%.3f to %.3f)" % (place, statistics.median(s[place] for s in steps), statistics.median(ratios),
                                                     ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]))
    if beside[0]:
        print("\niperf3 -P %d over the loopback device: %.2f GB/s. Copies over tcp beside it in each round (median):" %
              (options.streams, statistics.median(beside)))
        for name in ("pageable_to_device", "device_to_pageable"):
            print("- %s: %.0f %%" % (name.replace("_", " "), 100 * statistics.median(r["tcp"][name][0] / b for r, b in zip(rounds, beside))))
    else:
        print("\nskipped: the share of iperf3, which is not installed")
    if not has_tls:
        print("\nskipped: tls, which this build or machine does not have")
    if calls:
        print("\nSystem calls of the client over unix, all of it:", calls)


if __name__ == "__main__":
    main()
