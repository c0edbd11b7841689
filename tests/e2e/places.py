#!/usr/bin/env python3
"""
Clients in the places where they live, each with the same battery of programs (battery.sh), compared byte for byte with the battery in process.

    places.py --build BUILD PLACE...

container   a user namespace with a root of its own and no network; all that leads out is the server's socket
hosts       two network namespaces joined by a veth pair: tcp: and tls: between two addresses, with delay and loss where netem is there
crowd       eight clients at once
vm          a guest of qemu without hardware virtualisation (TCG), over its network, with an old and a new CPU; over vsock where the host has it

A place that this machine does not permit is skipped with the reason. Prints TAP. Nothing is left behind, also when interrupted.
"""
import argparse
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../bridge"))
import run as bridge  # noqa: E402
from run import check, skip  # noqa: E402

SEEDS = 10
GOLDEN = ("memory", "atomics", "warp", "barriers", "calls", "control_flow", "faults")
# What cannot be as in process: the server configures its device; over a network streams do not wait for memory of the host, and descriptors of allocations do not travel there.
LOCAL_ONLY = {"clusters", "threads_appear_when_needed", "accounting"}
NETWORK = LOCAL_ONLY | {"memory_operations", "virtual_memory"}


def lay_out(build, folder):
    """All that the battery needs, in one folder."""
    for path in ("farwarp", "lib/libcuda.so.1", "tests/ptx/ptx_golden", "tests/bridge/test_model",
                 *("examples/" + n for n in ("vector_add", "matmul", "reduction", "histogram", "mandelbrot")),
                 *("tests/device/test_device_" + n for n in ("stream", "launch", "memory", "graph", "managed"))):
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        subprocess.run(["strip", "-g", "-o", os.path.join(folder, path), os.path.join(build, path)], check=True)
    os.makedirs(os.path.join(folder, "golden"))
    for name in GOLDEN:
        shutil.copy(os.path.join(HERE, "../ptx/golden", name + ".ptx"), os.path.join(folder, "golden"))
    shutil.copy(os.path.join(HERE, "battery.sh"), folder)


def battery(folder, prefix=(), timeout=300, seeds=SEEDS, **environment):
    done = subprocess.run([*prefix, "sh", os.path.join(folder, "battery.sh"), folder, str(seeds)], capture_output=True, text=True,
                          errors="replace", timeout=timeout, env=dict(os.environ, **environment), stdin=subprocess.DEVNULL)
    return done.stdout.splitlines() + (["stderr: " + done.stderr[-300:]] if done.returncode else [])


def difference(want, got, excused):
    """Lines that are not the same, without tests that cannot be."""
    pattern = re.compile(r"^(?:not )?ok \d+ - (.*)$")

    def strip(lines):
        return [line for line in lines if not (pattern.match(line) and pattern.match(line)[1] in excused)]
    want, got = strip(want), strip(got)
    if want == got:
        return []
    lost = [line for line in want if line not in got]
    return ["not there: " + line for line in lost[:6]] + ["instead: " + line for line in got if line not in want][:6] + ["%d lines" % len(got)]


def same(name, want, got, excused, began):
    wrong = difference(want, got, excused)
    check("%s: the battery is as in process, %d lines" % (name, len(want)), not wrong, *wrong)
    print("# %.0f s" % (time.monotonic() - began), flush=True)


# ---- container -------------------------------------------------------------------------------------------------------------------------

CONTAINER = """
set -e
root=$1 folder=$2 socket=$3 seeds=$4
mount -t tmpfs none $root
cd $root
mkdir -p usr proc dev tmp farwarp
for link in bin lib lib64 sbin; do [ -L /$link ] && cp -P /$link . || { mkdir $link; mount --rbind /$link $link; }; done
mount --rbind /usr usr
mount --bind $folder farwarp
touch gpu.sock dev/null
mount --bind $socket gpu.sock
mount --bind /dev/null dev/null
mount -t proc proc proc
exec chroot . /usr/bin/env -i PATH=/bin:/usr/bin TMPDIR=/tmp ASAN_OPTIONS="$ASAN_OPTIONS" UBSAN_OPTIONS="$UBSAN_OPTIONS" \\
    FARWARP_SERVER=unix:/gpu.sock /bin/sh /farwarp/battery.sh /farwarp $seeds
"""


def container(place):
    probe = subprocess.run(["unshare", "-Urmpfn", "true"], capture_output=True, text=True)
    if probe.returncode:
        skip("container", "user namespaces are not permitted: " + probe.stderr.strip())
        return
    began = time.monotonic()
    root = tempfile.mkdtemp(dir=place.scratch)
    done = subprocess.run(["unshare", "-Urmpfn", "--kill-child", "sh", "-c", CONTAINER, "sh", root, place.folder, place.socket, str(SEEDS)],
                          capture_output=True, text=True, errors="replace", timeout=300, stdin=subprocess.DEVNULL)
    if done.returncode and not done.stdout and "mount" in done.stderr:
        skip("container", "mounts are not permitted: " + done.stderr.strip()[:150])
        return
    same("container", place.local, done.stdout.splitlines(), LOCAL_ONLY, began)
    if done.stderr:
        print("#", done.stderr[-300:])


# ---- hosts ---------------------------------------------------------------------------------------------------------------------------------

def ip(*words, **more):
    return subprocess.run(["ip", *words], capture_output=True, text=True, **more)


def hosts(place):
    names = ["fw%d%s" % (os.getpid(), end) for end in "ab"]
    try:
        if not shutil.which("ip") or ip("netns", "add", names[0]).returncode or ip("netns", "add", names[1]).returncode:
            skip("hosts", "network namespaces are not permitted")
            return
        ip("link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name", "v1", "netns", names[1])
        for name, device, address in ((names[0], "v0", "10.77.99.1/24"), (names[1], "v1", "10.77.99.2/24")):
            for words in (("addr", "add", address, "dev", device), ("link", "set", device, "up"), ("link", "set", "lo", "up")):
                if ip("-n", name, *words).returncode:
                    skip("hosts", "no veth pair")
                    return
        on_hosts(place, names)
    finally:
        for name in names:
            ip("netns", "del", name)


class FarServer(bridge.Server):
    """In a network namespace."""
    namespace = None

    def start(self, command, environment):
        return super().start(["ip", "netns", "exec", self.namespace, *command], environment)


def on_hosts(place, names):
    FarServer.namespace = names[0]
    there = ("ip", "netns", "exec", names[1])
    identity = os.path.join(place.scratch, "identity")
    tls = subprocess.run([os.path.join(place.build, "farwarp"), "serve", "--self-signed", identity], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = FarServer(place.build, ["tcp:10.77.99.1:7749"] + (["tls:10.77.99.1:7750"] if tls.returncode == 0 else []), "--insecure",
                       *(["--self-signed", identity] if tls.returncode == 0 else []))
    try:
        pin = re.search(r"sha256:[0-9a-fA-F:]+", server.text())
        check("hosts: the server listens", server.process.poll() is None, server.text()[-400:])
        for name, address, environment in (("tcp", "tcp:10.77.99.1:7749", {}), ("tls", "tls:10.77.99.1:7750", {})):
            if name == "tls":
                if tls.returncode:
                    skip("hosts: tls", "this build has no TLS")
                    continue
                check("hosts: tls: the fingerprint is told", pin, server.text()[-200:])
                if not pin:
                    continue
                environment = {"FARWARP_TLS_PIN": pin[0]}
            began = time.monotonic()
            same("hosts: " + name, place.local, battery(place.folder, there, FARWARP_SERVER=address, **environment), NETWORK, began)
        netem = subprocess.run(["tc", "-n", names[0], "qdisc", "add", "dev", "v0", "root", "netem", "delay", "1ms", "loss", "0.5%"],
                               capture_output=True, text=True)
        if netem.returncode:
            skip("hosts: delay and loss", "netem is not there: " + netem.stderr.strip().splitlines()[-1])
        else:
            began = time.monotonic()
            same("hosts: delay and loss", place.local, battery(place.folder, there, FARWARP_SERVER="tcp:10.77.99.1:7749"), NETWORK, began)
        check("hosts: all workers have ended", bridge.until(lambda: not server.workers(), 5), server.workers())
    finally:
        server.stop()


# ---- crowd -------------------------------------------------------------------------------------------------------------------------------

def crowd(place):
    began, lines = time.monotonic(), [None] * 8

    def one(n):
        lines[n] = battery(place.folder, FARWARP_SERVER=place.unix if n % 2 else place.tcp, timeout=500)
    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(8):
        same("crowd: client %d, %s" % (n, "unix" if n % 2 else "tcp"), place.local, lines[n] or [], LOCAL_ONLY if n % 2 else NETWORK, began)


# ---- a virtual machine ---------------------------------------------------------------------------------------------------------------------

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules.list); do insmod /modules/$module; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
echo "guest: $(uname -r), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2), avx $(grep -c -m1 -w avx /proc/cpuinfo)"
echo BEGIN
FARWARP_SERVER=@SERVER@ sh /farwarp/battery.sh /farwarp @SEEDS@
echo END
poweroff -f
"""


def kernel():
    """A kernel image of this machine's distribution and the folder of its modules."""
    for name in sorted(os.listdir("/boot") if os.path.isdir("/boot") else [], reverse=True):
        release = name[len("vmlinuz-"):]
        if name.startswith("vmlinuz-") and os.path.exists("/lib/modules/%s/modules.dep" % release):
            return "/boot/" + name, "/lib/modules/" + release
    return None, None


def modules(folder, wanted):
    """Paths of the modules and what they need, in the order to load them; what is built in is left out."""
    needs = dict(line.strip().split(":", 1) for line in open(folder + "/modules.dep"))
    order = []

    def add(path):
        for need in reversed(needs[path].split()):
            add(need)
        if path not in order:
            order.append(path)
    for name in wanted:
        for path in needs:
            if os.path.basename(path).split(".ko")[0] == name:
                add(path)
    return order


def pack_guest(place, folder, server, wanted):
    """The guest's root as a compressed cpio archive."""
    shutil.copytree(place.folder, folder + "/farwarp")
    for name in ("bin", "modules", "lib", "lib64"):
        os.makedirs(os.path.join(folder, name))
    shutil.copy(shutil.which("busybox"), folder + "/bin/busybox")
    libraries = set()
    for path in ("farwarp", "lib/libcuda.so.1", "examples/vector_add", "tests/bridge/test_model"):
        libraries |= set(re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", os.path.join(place.folder, path)], capture_output=True, text=True).stdout))
    for library in libraries:
        os.makedirs(folder + os.path.dirname(library), exist_ok=True)
        shutil.copy(library, folder + library)
    order = modules(kernel()[1], wanted)
    for path in order:
        shutil.copy(os.path.join(kernel()[1], path), folder + "/modules")
    with open(folder + "/modules.list", "w") as file:
        file.write("\n".join(os.path.basename(path) for path in order))
    with open(folder + "/init", "w") as file:
        file.write(INIT.replace("@SERVER@", server).replace("@SEEDS@", str(SEEDS)))
    os.chmod(folder + "/init", 0o755)
    names = subprocess.run(["find", "."], cwd=folder, capture_output=True).stdout
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, input=names, capture_output=True, check=True).stdout
    with gzip.open(folder + ".gz", "wb", compresslevel=1) as file:
        file.write(archive)
    return folder + ".gz"


def boot(place, name, cpu, server, wanted, excused, *options):
    began = time.monotonic()
    initrd = pack_guest(place, os.path.join(place.scratch, "guest-" + name), server, wanted)
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-m", "768", "-smp", "2", "-display", "none", "-monitor", "none", "-serial", "stdio",
               "-no-reboot", "-kernel", kernel()[0], "-initrd", initrd, "-append", "console=ttyS0 panic=-1 quiet", *options]
    machine = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace")
    watch = threading.Timer(900, machine.kill)
    watch.start()
    lines, ready = [], None
    try:
        for line in machine.stdout:
            lines.append(line.rstrip("\r\n"))
            if lines[-1].endswith("BEGIN"):
                ready = time.monotonic()
            if os.environ.get("PLACES_SHOW"):
                print("#", lines[-1], flush=True)
    finally:
        watch.cancel()
        machine.kill()
        machine.wait()
    begin = next((n for n, line in enumerate(lines) if line.endswith("BEGIN")), None)
    if begin is None:
        check("vm %s: the guest begins" % name, False, *lines[-8:])
        return
    print("# %s" % next((line for line in lines if "guest:" in line), "?"))
    got = lines[begin + 1:lines.index("END") if "END" in lines else None]
    same("vm " + name, place.local, got, excused, ready)
    print("# %.0f s in all" % (time.monotonic() - began), flush=True)


def vm(place):
    missing = [name for name in ("qemu-system-x86_64", "busybox", "cpio") if not shutil.which(name)]
    if missing or not kernel()[0]:
        skip("vm", "missing: " + ", ".join(missing or ["a kernel in /boot with its modules"]))
        return
    network = ("-nic", "user,model=virtio-net-pci")
    server = "tcp:10.0.2.2:" + place.tcp.rsplit(":", 1)[1] # the host's loopback, as a guest sees it
    for cpu in ("qemu64", "max"):
        boot(place, cpu, cpu, server, ("virtio_pci", "virtio_net"), NETWORK, *network)
    if not os.path.exists("/dev/vhost-vsock"):
        skip("vm vsock", "no /dev/vhost-vsock on this host")
        return
    port = 20000 + os.getpid() % 20000
    near = bridge.Server(place.build, ["vsock:2:%d" % port], "--insecure")
    try:
        boot(place, "vsock", "max", "vsock:2:%d" % port, ("virtio_pci", "virtio_net", "vmw_vsock_virtio_transport"), NETWORK,
             "-device", "vhost-vsock-pci,guest-cid=%d" % (3 + os.getpid()), *network)
    finally:
        near.stop()


class Place:
    """A server and the battery's folder and results, which all places share."""

    def __init__(self, build, scratch):
        self.build, self.scratch, self.folder = build, scratch, os.path.join(scratch, "farwarp")
        lay_out(build, self.folder)
        self.socket = os.path.join(scratch, "gpu.sock")
        self.unix, self.tcp = "unix:" + self.socket, "tcp:127.0.0.1:%d" % bridge.free_port()
        self.server = bridge.Server(build, [self.unix, self.tcp])
        self.local = battery(self.folder, FARWARP_SOFT_MEM="1G")


def end(number, frame):
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("places", nargs="+", choices=["container", "hosts", "crowd", "vm"])
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    for name in ("FARWARP_SERVER", "FARWARP_TOKEN", "FARWARP_DEVICE", "FARWARP_LOG"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="farwarp-places-") as scratch:
        place = Place(os.path.abspath(options.build), scratch)
        try:
            good = place.local and place.local[-1] == "battery done" and not any(line.startswith("not ok") for line in place.local)
            check("the battery passes in process, %d lines" % len(place.local), good, *[line for line in place.local if line.startswith("not")][:8])
            for name in options.places:
                globals()[name](place)
            check("the server is still there, without workers", place.server.process.poll() is None and
                  bridge.until(lambda: not place.server.workers(), 5), place.server.text()[-300:])
        finally:
            place.server.stop()
    print("1..%d" % len(bridge.results))
    return 0 if all(bridge.results) else 1


if __name__ == "__main__":
    sys.exit(main())
