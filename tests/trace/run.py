#!/usr/bin/env python3
"""farwarp trace and farwarp replay, in TAP: run.py --build BUILD."""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

results = []


def check(name, ok, *shown):
    results.append(bool(ok))
    print("%sok %d - %s" % ("" if ok else "not ", len(results), name), flush=True)
    if not ok:
        for text in shown:
            print("# " + str(text)[:1500].replace("\n", "\n# "))
    return ok


class Build:
    def __init__(self, path):
        self.farwarp = os.path.join(path, "farwarp")
        self.program = os.path.join(path, "tests/trace/traced")
        self.example = os.path.join(path, "examples/vector_add")

    def run(self, *words, env=None, **options):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("FARWARP", "CUDA_"))}
        return subprocess.run([self.farwarp, *words], capture_output=True, text=True, errors="replace", timeout=60, stdin=subprocess.DEVNULL,
                              env=dict(keep, **(env or {})), **options)

    def trace(self, *words, mode="plain", device=("-d", "soft")):
        """The trace's lines, and the finished process."""
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "trace")
            done = self.run("trace", "-q", *device, "-o", out, *words, "--", self.program, *mode.split())
            lines = open(out).read().splitlines() if os.path.exists(out) else []
        return lines, done


LINE = re.compile(r"^\d+\.\d{6} \[\d+\] (\S[^(]*)\((.*)\) = (\S+)(?: \{(.*)\})? <\d+\.\d{3} us>( awaited(?: \d+)?)?(?: <- (\S+))?$")


def lines_say_what_happened(build):
    lines, done = build.trace()
    check("the program runs as without a trace", done.returncode == 0 and "plain 505500" in done.stdout, done.stdout, done.stderr)
    calls = [LINE.match(l) for l in lines[:-1]]
    check("each line is a call", all(calls), [l for l, m in zip(lines, calls) if not m])
    check("the last line is the exit", lines[-1] == "+++ exited with 0 +++", lines[-1])
    found = {m.group(1): m for m in calls if m}
    check("an output", re.fullmatch(r"dptr 0x[0-9a-f]+", found["cuMemAlloc_v2"].group(4) or ""), found["cuMemAlloc_v2"].group(0))
    launch = found["cuLaunchKernel"].group(2)
    check("a launch names its kernel", launch.startswith("kernel add, ") and "gridDimX 8, " in launch and "blockDimX 128, " in launch, launch)
    frees = [m.group(3) for m in calls if m and m.group(1) == "cuMemFree_v2"]
    check("an error by its name", frees == ["CUDA_ERROR_INVALID_VALUE", "CUDA_SUCCESS", "CUDA_SUCCESS"], frees)
    check("a call that is not served", found["cuMulticastAddDevice"].group(3) == "CUDA_ERROR_NOT_SUPPORTED")
    asked = [m for m in calls if m and m.group(1) == "cuGetProcAddress_v2"]
    check("who asked for a function", [m.group(6) for m in asked] == ["traced", "traced"], asked)
    check("and what it got", "pfn 0x" in asked[0].group(4) and asked[1].group(4) == "pfn NULL", asked[1].group(0))
    tables = [m for m in calls if m and m.group(1) == "cuGetExportTable"]
    check("private tables, known or not", [m.group(3) for m in tables] == ["CUDA_ERROR_INVALID_VALUE", "CUDA_SUCCESS"] and
          'table "tools thread-local storage"' in tables[1].group(4), tables)
    check("a call through a private table", "private:tools thread-local storage[2]" in found, list(found))


def filters(build):
    lines, _ = build.trace("-e", "cuMem*,!cuMemcpy*")
    names = {LINE.match(l).group(1) for l in lines[:-1]}
    check("-e with names and exceptions", names == {"cuMemAlloc_v2", "cuMemFree_v2"}, names)
    lines, _ = build.trace("-e", "trace=cuMemAlloc")
    check("-e knows a call without its version", [LINE.match(l).group(1) for l in lines[:-1]] == ["cuMemAlloc_v2"] * 2, lines)
    lines, _ = build.trace("-e", "!%local,!%async,!private")
    names = {LINE.match(l).group(1) for l in lines[:-1]}
    check("-e with classes", "cuInit" in names and not names & {"cuDeviceGet", "cuLaunchKernel"} and not [n for n in names if n[0] == "p"], names)
    done = build.run("trace", "-e", "cuNonsense", "--", "true")
    check("-e with a name of nothing is refused", done.returncode == 64 and "cuNonsense" in done.stderr, done)
    for bad in (["--hang", "x"], ["--sort", "colour"], ["--nonsense"], []):
        check("refused: %s" % bad, build.run("trace", *bad).returncode == 64)


def machine_form(build):
    for mode in ("plain", "threads", "memory", "graph"):
        lines, done = build.trace("--json", "--callers", mode=mode)
        try:
            objects = [json.loads(l) for l in lines]
        except ValueError as error:
            objects = []
            check("%s: JSON" % mode, False, error, [l for l in lines if not l.endswith("}")])
        calls = [o for o in objects if "call" in o]
        check("%s: a JSON object a line" % mode, calls and objects[-1] == {"event": "exited", "pid": calls[0]["pid"], "status": 0}, lines[-1:])
    calls = [json.loads(l) for l in build.trace("--json", "--callers", mode="memory")[0]]
    calls = [o for o in calls if "call" in o]
    launches = [o for o in calls if o["call"].startswith("cuLaunchKernel")]
    check("with values", launches and all(o["in"]["kernel"] in ("add", "follow") and o["result"] == "CUDA_SUCCESS" and o["caller"] == "traced"
                                          for o in launches), launches)
    boxes = [o["in"]["pCopy"] for o in calls if o["call"] == "cuMemcpy2D_v2"]
    check("structures field by field", [b["WidthInBytes"] for b in boxes] == [40, 40] and boxes[0]["srcMemoryType"] == "CU_MEMORYTYPE_HOST", boxes)
    lines, _ = build.trace("--json", "-c", mode="threads")
    counts = {c["call"]: c for c in json.loads(lines[-1])["counts"]}
    check("counts of four threads", counts["cuLaunchKernel"]["calls"] == 80 and counts["cuStreamCreate"]["calls"] == 4, lines[-1])


def counts(build):
    lines, done = build.trace("-c", "--sort", "calls")
    rows = [l.split() for l in lines[1:]]
    check("-c shows no line of a call", not [l for l in lines if LINE.match(l)], lines)
    by_name = {r[-1]: r for r in rows if len(r) == 8}
    check("-c counts calls and errors", by_name["cuMemFree_v2"][4:6] == ["3", "1"] and by_name["cuMemAlloc_v2"][4:6] == ["2", "0"], lines)
    numbers = [int(r[4]) for r in rows if len(r) == 8 and r[-1] != "total"]
    check("in order", numbers == sorted(numbers, reverse=True), numbers)
    text = "\n".join(lines)
    check("-c says who asked", "traced: asked for 2 functions, not found: cuNoSuchCall; private tables: " in text, text)
    check("and how many were called", "1 different functions were found for them, 1 of these were called" in text, text)


def hangs_and_ends(build):
    begin = time.monotonic()
    lines, done = build.trace("--hang", "0.3", mode="wait")
    still = [l for l in lines if " still in " in l]
    check("a call that lasts is shown while it does", len(still) >= 2 and "... still in cuStreamSynchronize(hStream 0x" in still[0] and
          " for 0." in still[0], lines)
    check("and when it returns", [l for l in lines if "cuStreamSynchronize(" in l and "= CUDA_SUCCESS" in l], lines)
    check("nothing waits for it longer", time.monotonic() - begin < 10)
    lines, done = build.trace(mode="crash")
    text = "\n".join(lines)
    check("a crash says the call", "ended in cuStreamSynchronize(" in text and "+++ killed by SIGSEGV" in lines[-1], text)
    check("and is passed on", done.returncode == -signal.SIGSEGV, done.returncode)
    lines, done = build.trace("-c", mode="crash")
    check("counts outlive a crash", [l for l in lines if l.endswith("cuLaunchHostFunc")], lines)
    lines, done = build.trace(mode="exit 7")
    check("the exit code is passed through", done.returncode == 7 and lines[-1] == "+++ exited with 7 +++", lines)
    check("no call at all is said", "+++ no CUDA driver call was made" in lines[0] and "did not load" in lines[0], lines)
    lines, done = build.trace(mode="load libcuda.so.1")
    check("a library that is loaded and not called is said", "+++ no CUDA driver call was made: libcuda.so.1 was loaded, but no function" in lines[0],
          lines)
    with tempfile.TemporaryDirectory() as folder:
        other = os.path.join(folder, "libcuda.so.1")
        shutil.copy(os.path.join(os.path.dirname(build.farwarp), "lib", "libcuda.so.1"), other)
        lines, done = build.trace(mode="load " + other)
        check("so is one that is another's", "loaded another libcuda than farwarp's" in lines[0] and other in lines[0], lines)
    process = subprocess.Popen([build.farwarp, "trace", "-q", "-d", "soft", "--", "sh", "-c", "echo up; exec sleep 20"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=10)
    check("SIGTERM reaches the program", process.returncode == -signal.SIGTERM and "killed by SIGTERM" in text, text)
    script = "import subprocess, sys; sys.exit(subprocess.run([sys.argv[1], 'plain']).returncode)"
    done = build.run("trace", "-q", "-d", "soft", "--", sys.executable, "-c", script, build.program)
    check("programs that the program starts are traced", "cuLaunchKernel(kernel add" in done.stderr, done.stderr)
    done = build.run("trace", "-q", "-d", "soft", "--", "no-such-program")
    check("a program that is not there", done.returncode == 127, done)


class Server:
    def __init__(self, build, folder):
        self.address = "unix:" + os.path.join(folder, "gpu.sock")
        self.process = subprocess.Popen([build.farwarp, "serve", "--backend", "soft", "--listen", self.address], stderr=subprocess.DEVNULL)
        for _ in range(200):
            if os.path.exists(self.address[5:]):
                break
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def bridged(build, server):
    lines, done = build.trace(device=("--server", server.address))
    calls = [LINE.match(l) for l in lines[:-1]]
    check("bridged: the same program", done.returncode == 0 and "plain 505500" in done.stdout and all(calls), done.stderr, lines)
    awaited = {m.group(1): m.group(5) for m in calls if m}
    check("bridged: what awaited the server is marked", awaited["cuMemAlloc_v2"] == " awaited" and awaited["cuCtxSetCurrent"] is None, awaited)
    lines, done = build.trace("-C", "--sort", "awaited", "--json", mode="threads", device=("--server", server.address))
    rows = json.loads(lines[-1])["counts"]
    lasting = {r["call"]: r for r in rows}
    marked = sum(o["awaited"] for o in map(json.loads, lines) if "awaited" in o)
    check("bridged: round trips are counted", sum(r["awaited"] for r in rows) == marked > 0 and rows[0]["awaited"] >= rows[1]["awaited"], rows)
    check("bridged: and bytes", lasting["cuMemcpyHtoDAsync_v2"]["sent"] >= 80 * 4000 and lasting["cuMemcpyDtoHAsync_v2"]["received"] >= 80 * 4000,
          lasting["cuMemcpyHtoDAsync_v2"])
    lines, _ = build.trace("-c", device=("--server", server.address))
    check("bridged: the table says so", "awaited" in lines[0] and [l for l in lines if re.match(r"\d+ round trips to the server in \d+ of \d+ calls", l)],
          lines)


class Record:
    """A record, read as far as a test needs to change it: offsets of events by their kinds' places in the file."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as stream:
            self.bytes = stream.read()

    def listing(self, build):
        done = build.run("replay", "--list", self.path)
        events = []
        for line in done.stdout.splitlines():
            match = re.match(r"(\d+) (\d+) \[\d+\] (.+?)(?:\((.*)\) = (\S+))?, (\d+) bytes in, (\d+) out$", line)
            events.append((match.group(3), int(match.group(2)), int(match.group(6)), int(match.group(7))))
        return done, events

    def changed(self, folder, offset, value=None):
        """A copy in which one byte is another."""
        changed = bytearray(self.bytes)
        changed[offset] = changed[offset] ^ 0x55 if value is None else value
        path = os.path.join(folder, "changed.rec")
        with open(path, "wb") as stream:
            stream.write(changed)
        return path


HEAD, EVENT, COUNT = 64, 32, 8  # bytes of a record's head, of an event's, of an array's length


def record(build, folder, mode, device=("-d", "soft")):
    path = os.path.join(folder, mode + device[0].strip("-") + ".rec")
    lines, done = build.trace("-c", "--record", path, mode=mode, device=device)
    check("record: %s (%s) runs" % (mode, device[0]), done.returncode == 0, done.stderr)
    return Record(path)


def says(done, calls, differences, copies):
    match = re.search(r"(\d+) calls in [\d.]+ s, (\d+) differences?; compared: their results, (\d+) copies", done.stdout)
    return match and int(match.group(1)) >= calls and match.group(2) == str(differences) and int(match.group(3)) == copies


def replays(build, folder, server):
    records = {mode: record(build, folder, mode) for mode in ("plain", "threads", "memory", "wait", "graph")}
    for mode, calls, copies in (("plain", 13, 1), ("threads", 300, 80), ("memory", 40, 2), ("wait", 5, 0), ("graph", 24, 1)):
        done = build.run("replay", "-q", "-d", "soft", records[mode].path)
        check("replay: %s is the same" % mode, done.returncode == 0 and says(done, calls, 0, copies), done.stdout, done.stderr)
    check("replay: host memory is compared", "4 pieces of host memory" in build.run("replay", "-q", "-d", "soft", records["memory"].path).stdout)
    for mode, calls, copies in (("plain", 13, 1), ("threads", 300, 80)):
        done = build.run("replay", "-q", "--server", server.address, records[mode].path)
        check("replay: %s behind a server is the same" % mode, done.returncode == 0 and says(done, calls, 0, copies), done.stdout, done.stderr)
        bridged_record = record(build, folder, mode, ("--server", server.address))
        done = build.run("replay", "-q", "-d", "soft", bridged_record.path)
        check("replay: %s recorded behind a server" % mode, done.returncode == 0 and says(done, calls, 0, copies), done.stdout, done.stderr)
    done = build.run("replay", "-q", "-d", "soft", "--cc", "9.0", "--all", "--show", "9", records["plain"].path)
    check("replay: another device, the same numbers", done.returncode == 0, done.stdout, done.stderr)
    tampered(build, folder, records["plain"])
    cut = subprocess.run([os.path.join(os.path.dirname(build.program), "record_cut")] + [r.path for r in records.values()], capture_output=True,
                         text=True, timeout=120)
    check("records cut at every byte", cut.returncode == 0, cut.stdout, cut.stderr)
    damaged(build, folder, records["plain"])


def tampered(build, folder, plain):
    done, events = plain.listing(build)
    check("--list lists a record", done.returncode == 0 and events[-1][0] == "end" and [e for e in events if e[0] == "cuLaunchKernel"], done.stdout)
    where = {name: (offset, size, out) for name, offset, size, out in events}
    offset, size, _ = where["cuMemcpyHtoD_v2"]
    # The last word that is copied (behind it stands the number of bytes); the kernel adds one to it.
    done = build.run("replay", "-q", "-d", "soft", plain.changed(folder, offset + EVENT + COUNT + size - 12))
    check("another input is a difference of the output", done.returncode == 1 and
          re.search(r"difference at event \d+ \(offset %d, thread \d+\): cuMemcpyDtoH_v2: byte 3996 of 4000 of dstHost is 0x" % where["cuMemcpyDtoH_v2"][0],
                    done.stdout) and says(done, 13, 1, 1), done.stdout, done.stderr)
    offset, size, out = where["cuMemcpyDtoH_v2"]
    done = build.run("replay", "-q", "-d", "soft", plain.changed(folder, offset + EVENT + COUNT + size + COUNT + COUNT + 100))
    check("so is another output", done.returncode == 1 and "byte 100 of 4000 of dstHost" in done.stdout, done.stdout)
    done = build.run("replay", "-q", "-d", "soft", plain.changed(folder, where["cuMemAlloc_v2"][0] + 12, 2))
    check("so is another result", done.returncode == 2 and "cuMemAlloc_v2: CUDA_SUCCESS, recorded CUDA_ERROR_OUT_OF_MEMORY" in done.stdout,
          done.stdout, done.stderr)
    done = build.run("replay", "-q", "-d", "soft", plain.changed(folder, where["cuLaunchKernel"][0] + EVENT + COUNT, 0x77))
    check("a handle that nobody gave stops it", done.returncode == 2 and "was given by no call" in done.stdout, done.stdout)


def damaged(build, folder, plain):
    path = os.path.join(folder, "cut.rec")
    for size in (0, 10, HEAD, HEAD + 5, len(plain.bytes) // 2, len(plain.bytes) - 72, len(plain.bytes) - 1):
        with open(path, "wb") as stream:
            stream.write(plain.bytes[:size])
        done = build.run("replay", "-q", "-d", "soft", path)
        check("cut at %d: an error that says where" % size, done.returncode == 2 and re.search(r"offset \d+", done.stdout + done.stderr), done)
    done = build.run("replay", "-q", "-d", "soft", plain.changed(folder, 16))
    check("a record of another build is refused with a sentence", done.returncode == 2 and "use that version" in done.stderr, done)
    done = build.run("replay", "-q", "-d", "soft", os.path.join(folder, "nothing.rec"))
    check("no such file", done.returncode == 2 and "No such file" in done.stderr, done)
    check("no file at all", build.run("replay").returncode == 64)
    check("--show wants a number", build.run("replay", "--show", "x", path).returncode == 64)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    build = Build(os.path.abspath(parser.parse_args().build))
    lines_say_what_happened(build)
    filters(build)
    machine_form(build)
    counts(build)
    hangs_and_ends(build)
    with tempfile.TemporaryDirectory() as folder:
        with Server(build, folder) as server:
            bridged(build, server)
            replays(build, folder, server)
    print("1..%d" % len(results))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
