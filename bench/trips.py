#!/usr/bin/env python3
"""
What cuFFT and cuBLAS programs wait for behind a server, counted by farwarp trace -c, and what each call costs them.

    bench/trips.py --build build --libs FOLDER[:FOLDER]

FOLDERs hold libcudart.so.13, libcufft.so.12 and libcublas.so.13 (tests/real/libs/fetch.py fetches them). Each program (bench/trips.c) runs
behind farwarp serve over unix with 1 and with 101 rounds of: copy in, two transforms or a batch of products and an axpy, copy out,
synchronise. What the second run has more is what rounds cost; the rest is the start's. Prints Markdown. Times are means without the longest.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS = 100
PROGRAMS = (("fft", "7.5"), ("blas", "12.0"))  # and the compute capability for which the library holds PTX


def counts(farwarp, program, name, rounds, address, libs):
    """What trace counted, by call."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        done = subprocess.run([farwarp, "trace", "-c", "--json", "-o", out.name, "--server", address, "--", program, name, str(rounds)],
                              capture_output=True, text=True, timeout=600, env=dict(os.environ, LD_LIBRARY_PATH=libs))
        if done.returncode:
            raise SystemExit("%s: %s" % (name, done.stderr.strip()[-300:]))
        for line in out:
            if "counts" in line:
                return {c["call"]: c for c in json.loads(line)["counts"]}
    raise SystemExit("%s: the trace has no counts" % name)


def report(name, first, later):
    trips = {c: first[c]["awaited"] for c in first if first[c]["awaited"]}
    print("\n## %s: the start and one round, %d round trips\n" % (name, sum(trips.values())))
    print(", ".join("%s %d" % (c, n) for c, n in sorted(trips.items(), key=lambda t: -t[1])))
    print("\n## %s: a round of the %d that follow\n" % (name, ROUNDS))
    print("| call | calls | round trips | us on the calling thread, each | bytes out | bytes in |")
    print("|---|---|---|---|---|---|")
    for call, c in sorted(later.items(), key=lambda t: -t[1]["ns"]):
        per = {key: (c[key] - first.get(call, {}).get(key, 0)) / ROUNDS for key in ("calls", "awaited", "sent", "received")}
        if per["calls"] > 0:
            each = (c["ns"] - c["max_ns"]) / (c["calls"] - 1) / 1000  # without the first, which learns what the others know
            print("| %s | %.2f | %.2f | %.2f | %.0f | %.0f |" % (call, per["calls"], per["awaited"], each, per["sent"], per["received"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--build", default="build")
    parser.add_argument("--libs", required=True)
    options = parser.parse_args()
    farwarp = os.path.join(os.path.abspath(options.build), "farwarp")
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "trips")
        subprocess.run(["cc", "-O1", "-o", program, os.path.join(HERE, "trips.c"), "-ldl"], check=True)
        for name, capability in PROGRAMS:
            address = "unix:%s/%s.sock" % (folder, name)
            with subprocess.Popen([farwarp, "serve", "--listen", address, "--cc", capability, "--mem", "1G"], stderr=subprocess.DEVNULL) as server:
                for _ in range(100):
                    if os.path.exists(address[5:]):
                        break
                    time.sleep(0.05)
                first = counts(farwarp, program, name, 1, address, options.libs)
                later = counts(farwarp, program, name, 1 + ROUNDS, address, options.libs)
                server.terminate()
            report(name, first, later)


if __name__ == "__main__":
    main()
