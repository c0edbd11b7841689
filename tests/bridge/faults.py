#!/usr/bin/env python3
"""
What happens to programs behind farwarp serve when something dies, stops, hangs or runs out, and what is left behind.

    faults.py --build BUILD [--kills N] [--seed N]

A workload (workload.c) runs behind a server over unix and TCP; client, worker or supervisor is killed, stopped or cut off at a random
moment; another client computes on the same server all the while. After each: the survivor ends with the documented error within the
deadline, says so in one line, and no process, descriptor, socket or shared memory is left. Prints TAP. Without --kills it takes what fits
into about 12 seconds; with it, that many kills and the slow faults too (silent links).
"""
import argparse
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import run as bridge
import sanitizer  # run.py knows where

DEVICE_UNAVAILABLE = 46
LIVENESS, SILENCE = 0.1, 10.0  # WIRE_LIVENESS_MS, WIRE_SILENCE_MS
MARGIN = 3.0                   # what a loaded machine may add
NO_LIMIT = "a sanitizer's own tables take more than that"
RIGHT, WRONG, ERROR, LOST, REFUSED = range(5)

check, skip, until = bridge.check, bridge.skip, bridge.until


def children(pid):
    try:
        return [int(c) for c in open("/proc/%d/task/%d/children" % (pid, pid)).read().split()]
    except OSError:
        return []


def state(pid):
    try:
        return open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def shared_memory():
    """What bears our name; folders are somebody's scratch."""
    return sorted(n for n in os.listdir("/dev/shm") if "farwarp" in n and not os.path.isdir("/dev/shm/" + n))


class Server(bridge.Server):
    """The same, with limits, and what it holds."""

    def __init__(self, build, addresses, limits=None, **environment):
        self.limits = limits
        super().__init__(build, addresses, **environment)
        self.patience = (2 + MARGIN) * sanitizer.times_slower(build)
        self.at_rest = self.holds()

    def start(self, command, environment):
        return subprocess.Popen(command, stderr=self.log, stdout=self.log, env=environment, preexec_fn=self.limits)

    def holds(self):
        descriptors = len(os.listdir("/proc/%d/fd" % self.process.pid))
        return descriptors, len(self.workers()), shared_memory()

    def clean(self, others=0):
        """Whether it holds nothing but `others` workers more than when it began; waits a moment for that."""
        want = (self.at_rest[0], self.at_rest[1] + others, self.at_rest[2])
        return until(lambda: self.process.poll() is None and self.holds() == want, self.patience)


class Client:
    def __init__(self, build, address, seconds, seed, threads=2, limits=None, **environment):
        command = [os.path.join(build, "tests/bridge/workload"), str(seconds), str(seed), str(threads)]
        self.log = tempfile.TemporaryFile()
        self.out = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.out, stderr=self.log, preexec_fn=limits,
                                        env=dict(os.environ, LIBCUDA=os.path.join(build, "lib/libcuda.so.1"), FARWARP_SERVER=address, **environment))

    def text(self, file):
        return os.pread(file.fileno(), 1 << 26, 0).decode(errors="replace")

    def begun(self):
        return until(lambda: "begun" in self.text(self.out) or self.process.poll() is not None, 10)

    def end(self, seconds):
        """Its exit status, or "hangs"."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            return "hangs"

    def why(self):
        return [self.text(self.out).splitlines()[-1:], self.text(self.log)[-400:]]

    def lost_well(self, status):
        """Ended as a client of a server that was lost should: a sticky error and one line, or refused before it began."""
        said = self.text(self.log)
        if status == RIGHT:
            return True
        if status == REFUSED:
            return said.count("\n") <= 2
        last = self.text(self.out).splitlines()[-1:]
        return status == LOST and last and last[0].startswith("lost %d " % DEVICE_UNAVAILABLE) and said.count("is lost") == 1


class Proxy:
    """A TCP link that can be cut or go silent."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "tcp:127.0.0.1:%d" % self.listener.getsockname()[1]
        self.pairs, self.silent, self.ended, self.dropped = [], False, False, 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
                if self.ended:  # of a client that had not come yet
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self.pairs.append((here, there))
            for a, b in ((here, there), (there, here)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    def carry(self, a, b):
        try:
            while True:
                data = a.recv(65536)
                if not data:
                    break
                if self.silent:
                    self.dropped += len(data)
                    continue
                b.sendall(data)
        except OSError:
            pass
        if not self.silent:
            for s in (a, b):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def cut(self, reset=False):
        self.ended = True
        for pair in self.pairs:
            for s in pair:
                if reset:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                try:
                    s.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)  # also who waits in carry() lets go of it
                    if reset:
                        s.close()
                except OSError:
                    pass

    def half_close(self):
        """The client's half ends; the other half stays."""
        self.ended = True
        for here, there in self.pairs:
            try:
                there.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.cut()


class Faults:
    def __init__(self, build, folder, seed):
        self.build, self.folder = build, folder
        self.random = random.Random(seed)
        self.port = bridge.free_port()
        self.path = os.path.join(folder, "gpu.sock")
        self.addresses = ["unix:" + self.path, "tcp:127.0.0.1:%d" % self.port]
        self.counts, self.slowest = {}, {}
        self.bad = []

    def client(self, address, seconds=20.0, **more):
        return Client(self.build, address, seconds, self.random.randrange(1 << 30), threads=self.random.choice((1, 2, 3)), **more)

    def note(self, what, good, took, *why):
        self.counts[what] = self.counts.get(what, 0) + 1
        self.slowest[what] = max(self.slowest.get(what, 0), took)
        if not good:
            self.bad.append(what)
            print("# %s:" % what, *[str(w)[:400] for w in why], flush=True)

    def begin(self):
        self.server = Server(self.build, self.addresses)
        self.bystander = Client(self.build, self.random.choice(self.addresses), 100000, 1, 1)
        self.bystander.begun()

    def undisturbed(self):
        """The other client still computes."""
        return self.bystander.process.poll() is None

    def victim(self, address):
        """A client at a random moment of its life, and its worker (None: it has none yet)."""
        before = set(self.server.workers())
        client = self.client(address)
        moment = self.random.random()
        if moment > 0.3:
            client.begun()
        time.sleep(self.random.random() * (0.15 if moment > 0.3 else 0.08))
        new = set(self.server.workers()) - before
        return client, (min(new) if new else None)  # later ones only pass on a connection for large copies

    # ---- each of these is one fault ----

    def kill_client(self, address, how):
        client, worker = self.victim(address)
        begin = time.monotonic()
        client.process.send_signal(how)
        client.end(MARGIN)
        good = self.server.clean(1)
        self.note("client, " + how.name, good and self.undisturbed(), time.monotonic() - begin, self.server.holds(), self.server.at_rest)

    def kill_worker(self, address, how):
        client, worker = self.victim(address)
        if not worker:
            client.process.kill()
            client.process.wait()
            return
        begin = time.monotonic()
        try:
            os.kill(worker, how)
        except ProcessLookupError:
            pass
        status = client.end(LIVENESS + MARGIN)
        took = time.monotonic() - begin
        good = client.lost_well(status)
        clean = self.server.clean(1)
        self.note("worker, " + how.name, good and clean and self.undisturbed(), took, status, *client.why(), self.server.holds(), self.server.at_rest)

    def kill_supervisor(self, address, how):
        client, _ = self.victim(address)
        # Also who is still an unknown connection has to go.
        workers = self.server.workers()
        begin = time.monotonic()
        self.server.process.send_signal(how)
        status = client.end(LIVENESS + MARGIN + (2 if how == signal.SIGTERM else 0))
        took = time.monotonic() - begin
        other = self.bystander.end(LIVENESS + MARGIN)
        self.server.process.wait()
        gone = until(lambda: not any(state(w) not in ("", "Z", "X") for w in workers), MARGIN)
        socket_good = how == signal.SIGKILL or not os.path.exists(self.path)
        good = client.lost_well(status) and self.bystander.lost_well(other) and gone and socket_good
        self.note("supervisor, " + how.name, good, took, status, other, gone, socket_good, *client.why(), *self.bystander.why())
        self.begin()

    def stop_worker(self, address):
        client, worker = self.victim(address)
        begin = time.monotonic()
        if worker:
            try:
                os.kill(worker, signal.SIGSTOP)
                time.sleep(0.2 + 0.3 * self.random.random())
                if self.random.random() < 0.5:
                    client.process.kill()  # a stopped worker of a dead client ends when it goes on
                os.kill(worker, signal.SIGCONT)
            except ProcessLookupError:
                pass
        time.sleep(0.1)
        alive = client.process.poll() in (None, -9)
        client.process.kill()
        client.process.wait()
        self.note("worker, SIGSTOP", alive and self.server.clean(1) and self.undisturbed(), time.monotonic() - begin, *client.why())

    def stop_client(self, address):
        client, _ = self.victim(address)
        begin = time.monotonic()
        client.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2 + 0.3 * self.random.random())
        if self.random.random() < 0.5:
            client.process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        alive = client.process.poll() is None
        client.process.kill()
        client.process.wait()
        self.note("client, SIGSTOP", alive and self.server.clean(1) and self.undisturbed(), time.monotonic() - begin, *client.why())

    def stop_and_kill_supervisor(self, address):
        """A stopped worker goes with its supervisor all the same."""
        client, worker = self.victim(address)
        workers = self.server.workers()
        if worker:
            os.kill(worker, signal.SIGSTOP)
        begin = time.monotonic()
        self.server.process.kill()
        status = client.end(LIVENESS + MARGIN)
        self.server.process.wait()
        self.bystander.end(LIVENESS + MARGIN)
        gone = until(lambda: not any(state(w) not in ("", "Z", "X") for w in workers), MARGIN)
        self.note("supervisor, worker stopped", client.lost_well(status) and gone, time.monotonic() - begin, status, gone, *client.why())
        self.begin()

    def link(self, how):
        proxy = Proxy(self.port)
        client, _ = self.victim(proxy.address)
        begin = time.monotonic()
        if how == "cut":
            proxy.cut()
        elif how == "reset":
            proxy.cut(reset=True)
        elif how == "half closed":
            proxy.half_close()
        else:
            proxy.silent = True
        status = client.end(MARGIN + (SILENCE if how == "silent" else LIVENESS) + (10 if how == "silent" else 0))
        took = time.monotonic() - begin
        good = client.lost_well(status) and took < (SILENCE if how == "silent" else LIVENESS) + MARGIN + (10 if status == REFUSED else 0)
        if how == "silent":  # the server's side hears nothing either
            good &= until(lambda: len(self.server.workers()) <= self.server.at_rest[1] + 1, SILENCE + MARGIN)
        proxy.close()
        self.note("link, " + how, good and self.server.clean(1) and self.undisturbed(), took, status, *client.why(), self.server.holds())

    # ---- rounds ----

    def kills(self, until_time, number):
        signals = (signal.SIGKILL, signal.SIGTERM)
        done = 0
        while (number and done < number) or (not number and time.monotonic() < until_time):
            address = self.random.choice(self.addresses)
            what = self.random.random()
            how = self.random.choice(signals)
            if what < 0.42:
                self.kill_client(address, how)
            elif what < 0.84:
                self.kill_worker(address, self.random.choice(signals + (signal.SIGSEGV,)))
            elif what < 0.95:
                self.kill_supervisor(address, how)
            else:
                self.stop_and_kill_supervisor(address)
            done += 1
        return done

    def report(self):
        for what in sorted(self.counts):
            check("%s: %d times" % (what, self.counts[what]), what not in self.bad, "%d went wrong" % self.bad.count(what))
            print("# slowest %.2f s" % self.slowest[what])


def limit(which, value):
    return lambda: resource.setrlimit(which, (value, value))


def ended_well(*ends):
    """Each with an error that it was told, or rightly."""
    print("#", ", ".join(("right", "wrong", "an error", "lost", "refused")[e] if e in range(5) else str(e) for e in ends))
    return all(e in (RIGHT, ERROR, LOST, REFUSED) for e in ends)


def shortages(faults):
    """Descriptors, memory and disk run out."""
    build, folder = faults.build, faults.folder
    unix, tcp = faults.addresses
    # In the client: threads that get no channel, or nothing at all; never a crash or a wait.
    for number in (6, 10, 14, 24, 40):
        client = Client(build, unix, 0.5, number, 8, limits=limit(resource.RLIMIT_NOFILE, number))
        status = client.end(10)
        check("a client with %d descriptors" % number, ended_well(status), status, *client.why())
    for size in (64, 200, 400, 1000):
        if sanitizer.libraries(build):
            skip("a client with %d MiB of address space" % size, NO_LIMIT)
            continue
        client = Client(build, unix, 0.3, size, 4, limits=limit(resource.RLIMIT_AS, size << 20))
        status = client.end(10)
        # Below what the program itself needs it may not even start (127), or say so without us.
        check("a client with %d MiB of address space" % size, ended_well(status) or status in (1, 127) and "wrong" not in str(client.why()),
              status, *client.why())
    client = Client(build, unix, 0.3, 3, 2, limits=limit(resource.RLIMIT_FSIZE, 1 << 20))
    status = client.end(10)
    check("a client whose files may have 1 MiB", ended_well(status), status, *client.why())
    check("none of them left anything", faults.server.clean(1), faults.server.holds(), faults.server.at_rest)
    check("and the other client computes on", faults.undisturbed(), *faults.bystander.why())
    # In the server.
    for number in (12, 16, 24, 48):
        path = "unix:" + os.path.join(folder, "few.sock")
        server = Server(build, [path], limits=limit(resource.RLIMIT_NOFILE, number))
        clients = [Client(build, path, 0.5, n, 6) for n in range(3)]
        ends = [c.end(15) for c in clients]
        check("a server with %d descriptors" % number, ended_well(*ends), ends, clients[0].why(), server.text()[-300:])
        check("and it goes on", server.clean(), server.holds(), server.at_rest)
        idle = []
        for _ in range(40):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(1)
            try:
                s.connect(os.path.join(folder, "few.sock"))
            except OSError:
                pass
            idle.append(s)
        time.sleep(0.2)
        for s in idle:
            s.close()
        check("also after 40 connections at once", server.clean(), server.holds(), server.at_rest)
        check("it ends when told", server.stop() == 0, server.text()[-300:])
    path = "unix:" + os.path.join(folder, "less.sock")
    if sanitizer.libraries(build):
        skip("a server with 900 MiB of address space", NO_LIMIT)
    else:
        server = Server(build, [path], limits=limit(resource.RLIMIT_AS, 900 << 20))
        client = Client(build, path, 0.5, 1, 6)
        status = client.end(15)
        check("a server with 900 MiB of address space", ended_well(status) and server.clean(), status, *client.why(), server.text()[-300:])
        server.stop()
    server = Server(build, [path], limits=limit(resource.RLIMIT_FSIZE, 1 << 20))
    client = Client(build, path, 0.5, 1, 2)
    status = client.end(15)
    check("a server whose files may have 1 MiB", ended_well(status) and server.clean(), status, *client.why(), server.text()[-300:])
    server.stop()
    full_disk(build, folder)


def full_disk(build, folder):
    mount = os.path.join(folder, "full")
    os.mkdir(mount)
    script = """
mount -t tmpfs -o size=16k,nr_inodes=4 none {mount} || exit 77
FARWARP_LOG=info:{mount}/log {build}/farwarp serve --mem 1G --listen unix:{mount}/gpu.sock > /dev/null 2>&1 & server=$!
for n in $(seq 100); do [ -S {mount}/gpu.sock ] && break; sleep 0.05; done
dd if=/dev/zero of={mount}/fill bs=1k count=64 2> /dev/null
LIBCUDA={build}/lib/libcuda.so.1 FARWARP_SERVER=unix:{mount}/gpu.sock FARWARP_LOG=info:{mount}/log {build}/tests/bridge/workload 0.5 1 2 | tail -1
touch {mount}/a {mount}/b 2> /dev/null
{build}/farwarp serve --listen unix:{mount}/other.sock; echo "second $?"
kill $server; wait $server; echo "first $?"
""".format(mount=mount, build=build)
    unshare = shutil.which("unshare")
    done = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=60) if unshare else None
    if not done or done.returncode == 77 or "unshare" in done.stderr[:20]:
        skip("a full disk", "no user namespace here")
        return
    check("a server whose log and socket lie on a full disk serves", "right" in done.stdout and "first 0" in done.stdout, done.stdout, done.stderr)
    check("one that finds no room for its socket says so", "second 1" in done.stdout and "cannot listen" in done.stderr, done.stdout, done.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        faults = Faults(build, folder, options.seed)
        begin = time.monotonic()
        faults.begin()
        check("a server and a client that computes all the while", faults.undisturbed(), *faults.bystander.why())
        shortages(faults)
        for how in ("cut", "reset", "half closed"):
            for _ in range(10 if options.kills else 1):
                faults.link(how)
        for _ in range(10 if options.kills else 2):
            faults.stop_worker(faults.random.choice(faults.addresses))
            faults.stop_client(faults.random.choice(faults.addresses))
        for _ in range(3 if options.kills else 0):
            faults.link("silent")
        killed = faults.kills(max(begin + 14, time.monotonic() + 3), options.kills) # slow builds get some too
        faults.report()
        print("# %d kills, %.0f s, seed %d" % (killed, time.monotonic() - begin, options.seed))
        faults.bystander.process.send_signal(signal.SIGTERM)
        faults.bystander.process.wait()
        check("the server ends, and nothing is left", faults.server.stop() == 0 and not os.path.exists(faults.path) and
              not shared_memory(), faults.server.text()[-300:])
    print("1..%d" % len(bridge.results))
    return 0 if all(bridge.results) else 1


if __name__ == "__main__":
    sys.exit(main())
