"""Machines for the doctor's real probes: a folder that stands for /, scripted nodes, a scripted libcuda.so.1 of a version."""
import json
import os
import shutil
import struct
import subprocess
import tempfile

VERSION = '570.195.03'
ADDRESS = '0000:3b:00.0'
PCI = '/sys/bus/pci/devices/'
NODES = {'nvidia0': '195:0:0666:ok', 'nvidiactl': '195:255:0666:ok', 'nvidia-uvm': '510:0:0666:ok'}
NVRM = 'NVRM version: NVIDIA UNIX %s for x86_64  %s  Release Build  (builder)\nGCC version: 12\n'
CONTAINER = {'/.dockerenv': ''}


def function(address, vendor, device, klass, config=None):
    """A PCI function; its first configuration bytes tell vendor and device again."""
    words = config or bytes.fromhex(vendor[2:])[::-1] + bytes.fromhex(device[2:])[::-1]
    return {PCI + address + '/vendor': vendor + '\n', PCI + address + '/device': device + '\n', PCI + address + '/class': klass + '\n',
            PCI + address + '/config': words + bytes(60), PCI + address + '/power_state': 'D0\n',
            PCI + address + '/resource': '0xf0000000 0xf0ffffff 0x40200\n0x6000000000 0x61ffffffff 0x14220c\n0x0 0x0 0x0\n'}


def module(name, version=VERSION, **parameters):
    folder = '/sys/module/' + name
    files = {folder + '/initstate': 'live\n', folder + '/version': version + '\n', folder + '/refcnt': '2\n'}
    files.update({folder + '/parameters/' + key: value + '\n' for key, value in parameters.items()})
    return files


def kernel_log(*lines):
    return {'/dev/kmsg': ''.join('4,%d,%d,-;%s\n' % (100 + i, 5000000 + i, line) for i, line in enumerate(lines))}


def module_file(version=VERSION, license_name='Dual MIT/GPL', signed=False):
    """The bytes of a .ko with a section .modinfo."""
    info = ('license=%s\0version=%s\0' % (license_name, version)).encode()
    names = b'\0.modinfo\0.shstrtab\0'
    sections = struct.pack('<64x') + struct.pack('<IIQQQQIIQQ', 1, 1, 2, 0, 64, len(info), 0, 0, 1, 0) + \
        struct.pack('<IIQQQQIIQQ', 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    header = b'\x7fELF\2\1\1' + bytes(9) + struct.pack('<HHIQQQIHHHHHH', 1, 62, 1, 0, 0, 64 + len(info) + len(names), 0, 64, 0, 0, 64, 3, 2)
    return header + info + names + sections + (b'signature~Module signature appended~\n' if signed else b'')


BUS = function('0000:00:00.0', '0x8086', '0x1237', '0x060000')
MOUNTS = ('22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 8:17 / /srv rw - ext4 /dev/sdb1 rw\n24 22 0:5 / /proc rw - proc proc rw\n'
          '25 22 0:20 / /dev/shm rw,nosuid - tmpfs tmpfs rw\n')
DISKS = '/srv=2000000:1500000:1000:900,/dev/shm=65536:65536:1000:900,/=500000:200000:1000:900'
HOST = {**BUS, '/proc/self/mountinfo': MOUNTS, '/proc/sys/kernel/osrelease': '6.1.0-13-amd64\n', '/proc/sys/kernel/arch': os.uname().machine + '\n',
        '/proc/cpuinfo': 'flags : fpu\n', '/sys/firmware/x': '',
        '/sys/power/suspend_stats/success': '0\n', '/proc/self/uid_map': '0 0 4294967295\n', '/proc/devices': 'Character devices:\n  1 mem\n',
        '/lib/modules/6.1.0-13-amd64/build/x': '', **kernel_log('Linux version 6.1.0-13-amd64')}
GPU = function(ADDRESS, '0x10de', '0x2684', '0x030000')
DRIVER = {'/proc/driver/nvidia/version': NVRM % ('Open Kernel Module', VERSION), '/proc/driver/nvidia/params': 'ModifyDeviceFiles: 1\n',
          '/proc/devices': 'Character devices:\n195 nvidia-frontend\n195 nvidiactl\n510 nvidia-uvm\n', **module('nvidia'),
          **module('nvidia_uvm', uvm_disable_hmm='N'), '/lib/modules/6.1.0-13-amd64/updates/dkms/nvidia.ko': module_file(),
          '/lib/firmware/nvidia/%s/gsp_ga10x.bin' % VERSION: ''}
BOUND = {ADDRESS: 'nvidia'}


def package(name, version, files=(), folder='/opt/venv/lib/python3.11/site-packages/'):
    """An installed Python package: metadata, and files as {path: text}."""
    info = '%s%s-%s.dist-info' % (folder, name, version)
    files = dict(files)
    return {info + '/METADATA': 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n\nName: not this\n' % (name, version),
            info + '/RECORD': ''.join('%s,sha256=x,1\n' % path for path in files) + os.path.basename(info) + '/RECORD,,\n',
            **{folder + path: text for path, text in files.items()}}


NVIDIA = object()  # as a file's content: the scripted libcuda.so.1 that has NVIDIA's mark


def library(soname, defines='', needs=None, fatbin=b'', calls=(), has=(), machine=183 if os.uname().machine == 'aarch64' else 62):
    """A shared library for the loader to look at: an ELF file without code. `defines` names a version of its symbols, `needs` is
    (library, version) of one that it asks for; `fatbin` holds kernels, as tests/inspect/made.py makes them; `calls` and
    `has` name functions."""
    names = [b'', *(word.encode() for word in (soname, defines, *(needs or ()), *calls, *has))]
    strings, at = b'', {}
    for name in names:
        at[name] = len(strings)
        strings += name + b'\0'
    symbols = [struct.pack('<IBBHQQ', at[word.encode()], 0x12, 0, where, 64 * where, 0) for where, words in ((0, calls), (1, has)) for word in words]
    body, dynamic = bytes(24) + b''.join(symbols), []
    hashes = struct.pack('<3I', 1, 1 + len(symbols), 0) + bytes(4 + 4 * len(symbols))  # one empty bucket
    base = 64 + 2 * 56

    def put(tag, data):
        nonlocal body
        body += bytes(-len(body) % 8)
        dynamic.append((tag, base + len(body)))
        body += data
    dynamic += [(6, base), (11, 24), (14, at[soname.encode()])]
    put(4, hashes)
    put(5, strings)
    dynamic.append((10, len(strings)))
    if defines:  # one version, index 2
        put(0x6ffffffc, struct.pack('<4H3I', 1, 0, 2, 1, 0, 20, 0) + struct.pack('<2I', at[defines.encode()], 0))
        dynamic.append((0x6ffffffd, 1))
    if needs:
        dynamic.append((1, at[needs[0].encode()]))
        put(0x6ffffffe, struct.pack('<2H3I', 1, 1, at[needs[0].encode()], 16, 0) + struct.pack('<I2H2I', 0, 0, 2, at[needs[1].encode()], 0))
        dynamic.append((0x6fffffff, 1))
    body += bytes(-len(body) % 8)
    place = base + len(body)
    table = b''.join(struct.pack('<2Q', *entry) for entry in dynamic + [(0, 0)])
    size = place + len(table)
    names, end = b'\0.nv_fatbin\0.shstrtab\0', b''
    if fatbin:
        fatbin += bytes(-len(fatbin) % 8)
        end = fatbin + names + bytes(-len(names) % 8)
        sections = [(0,) * 10, (1, 1, 2, 0, size, len(fatbin), 0, 0, 8, 0), (12, 3, 0, 0, size + len(fatbin), len(names), 0, 0, 1, 0)]
        end += b''.join(struct.pack('<2I4Q2I2Q', *section) for section in sections)
    header = b'\x7fELF\x02\x01\x01' + bytes(9) + struct.pack('<2HI3QI6H', 3, machine, 1, 0, 64, size + len(end) - 192 if end else 0, 0, 64, 56, 2,
                                                              64, 3 if end else 0, 2 if end else 0)
    load = struct.pack('<2I6Q', 1, 6, 0, 0, 0, size, size, 4096)
    return header + load + struct.pack('<2I6Q', 2, 6, place, place, place, len(table), len(table), 8) + body + table + end


LIBRARY_32 = b'\x7fELF\x01\x01\x01' + bytes(9) + struct.pack('<2HI', 3, 3, 1) + bytes(28)


class Machine:
    """`files` is {path: text or bytes}, None takes one away; `drivers` {address: driver}; `script` is for fake_cuda.c,
    `nvml` for fake_nvml.c, None for no such library. `siblings`: libraries of libcuda's version lie beside it."""

    def __init__(self, files=(), drivers=BOUND, nodes=NODES, script='', library='libcuda.so.' + VERSION, nvml='', folder='lib', env=(),
                 options=(), siblings=True):
        self.files = {path: text for path, text in dict(files).items() if text is not None}
        self.drivers, self.nodes, self.script, self.library, self.folder = drivers, nodes, script, library, folder
        self.nvml, self.siblings = nvml, siblings
        self.env, self.options = dict(env), list(options)

    def build(self, root, fake):
        for path in ('/sys/bus/pci/devices', '/sys/module', '/dev', '/proc'):
            os.makedirs(root + path)
        for path, text in {**self.files, **{'/dev/' + node: '' for node in self.nodes}}.items():
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            if text is NVIDIA:
                shutil.copy(fake, root + path)
                continue
            with open(root + path, 'wb') as stream:
                stream.write(text if isinstance(text, bytes) else text.encode())
        for address, driver in self.drivers.items():
            os.symlink('../../../bus/pci/drivers/' + driver, root + PCI + address + '/driver')
        folder = os.path.join(root, 'driver', self.folder)
        os.makedirs(folder, exist_ok=True)
        if self.library:
            shim = os.path.join(os.path.dirname(fake), 'libfakeshim.so')  # NVIDIA's own files carry their version
            shutil.copy(shim if self.library == 'libcuda.so.1' else fake, os.path.join(folder, self.library))
            if self.library != 'libcuda.so.1':
                os.symlink(self.library, os.path.join(folder, 'libcuda.so.1'))
        if self.siblings:
            name = 'libnvidia-ptxjitcompiler.so.1'
            with open(os.path.join(folder, name.replace('.1', '.' + VERSION)), 'wb') as stream:
                stream.write(library(name))
            os.symlink(name.replace('.1', '.' + VERSION), os.path.join(folder, name))
        if self.nvml is not None:
            shutil.copy(os.path.join(os.path.dirname(fake), 'libfakenvml.so'), os.path.join(folder, 'libnvidia-ml.so.' + VERSION))
            os.symlink('libnvidia-ml.so.' + VERSION, os.path.join(folder, 'libnvidia-ml.so.1'))
        return folder

    def look(self, farwarp, fake, preload, *options, wrap=()):
        """(exit code, report as JSON or text, standard error)."""
        with tempfile.TemporaryDirectory() as root:
            folder = self.build(root, fake)
            env = {k: v for k, v in os.environ.items() if not k.startswith(('FARWARP', 'CUDA_', 'NVIDIA_', 'LD_', 'SLURM', 'KUBERNETES', 'TMPDIR', 'XDG_'))}
            env.update({'HOME': '/home/ada', 'FAKE_CUDA': self.script, 'FAKE_NVML': self.nvml or '', 'FAKE_DISKS': DISKS, 'LD_PRELOAD': preload,
                        'FAKE_NODES': ','.join('%s=%s' % node for node in self.nodes.items()),
                        'ASAN_OPTIONS': 'verify_asan_link_order=0:detect_leaks=0', **self.env})
            done = subprocess.run([*wrap, farwarp, 'doctor', '--json', '--root', root, '--driver', folder, '--deadline', '1', *self.options,
                                   *options], capture_output=True, text=True, env=env, timeout=60)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(done.stderr or done.stdout) from None
        return done.returncode, report, done.stderr
