#!/usr/bin/env python3
"""The doctor's real probes on machines that are played: fake /proc, /sys and /dev, scripted nodes and drivers. TAP.

    test_live.py FARWARP FAKE_LIBCUDA FAKE_NODES
"""
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import GPU, HOST, LIBRARY_32, MOUNTS, NODES, VERSION, Machine, library  # noqa: E402
from played import LIB, PLAYED, PYTHON, WORKS, ptx, sass, torch  # noqa: E402

FARWARP, FAKE, PRELOAD = (os.path.abspath(argument) for argument in sys.argv[1:4])
results = []


def check(what, good, *shown):
    results.append(good)
    print('%sok %d - %s' % ('' if good else 'not ', len(results), what), flush=True)
    for text in () if good else shown:
        print('# ' + str(text).strip().replace('\n', '\n# '))


def look(machine, *options, **rest):
    return machine.look(FARWARP, FAKE, PRELOAD, *options, **rest)


def played():
    for name, machine in PLAYED:
        want = name.split()[0]  # further ids in a name are findings beside it
        code, report, error = look(machine)
        ident = report['verdict']['id'] if isinstance(report, dict) else report
        fired = [finding['id'] for finding in report['findings']] if isinstance(report, dict) else []
        also = [word for word in re.findall(r'\bF[0-9A-F]{3}\b', name) if word != want]
        good = ident == want and set(also) <= set(fired) and not report['verdict']['possible'] and code == (0 if want in ('OK', 'SOFT') else 1)
        check('played: ' + name, good, ident, code, fired, error, report['verdict']['evidence'] if isinstance(report, dict) else '')


def nvml_facts():
    """What the library answers arrives; what a product lacks is absent; what a library lacks is unseen."""
    _, report, _ = look(Machine(WORKS, nvml='fabric=3,status=27,mask=1280,cc=1,ready=1,mig=1,migs=2,instances=3,errors=5,recovery=4,mode=2,throttle=8,'
                                            'used=512,processes=2,virtualization=1'))
    nvml = report['facts']['nvml']
    gpu = nvml['gpus'][0]
    check('NVML: numbers arrive', gpu['fabric'] == {'result': 0, 'state': 3, 'status': 27, 'health_mask': 1280, 'incorrect_config': 5} and
          gpu['mig'] == {'current': 1, 'pending': 1, 'devices': 2, 'gpu_instances': 3} and gpu['ecc'] == {'current': True, 'uncorrected': 5} and
          gpu['recovery_action'] == 4 and gpu['compute_mode'] == 2 and gpu['throttle'] == 8 and gpu['virtualization'] == 'passthrough' and
          gpu['memory'] == {'total': 80 << 30, 'used': 512 << 20, 'free': (80 << 30) - (512 << 20)} and
          [p['pid'] for p in gpu['processes']] == [4000, 4001], gpu)
    check('NVML: texts arrive', gpu['name'] == 'NVIDIA Fake' and nvml['driver_version'] == '570.195.03' == nvml['library_version'] and
          nvml['conf_compute']['enabled'] and nvml['conf_compute']['ready'], nvml)
    code, report, _ = look(Machine(WORKS), '--error', '3')
    check('all works here and the program got 3: F121', report['verdict']['id'] == 'F121' and code == 1, report['verdict'])
    _, report, _ = look(Machine(WORKS))
    nvml = report['facts']['nvml']
    gpu = nvml['gpus'][0]
    check('NVML: what is not supported is absent, what is lacking is unseen', gpu['mig'] is None and gpu['license'] is None and
          nvml['conf_compute'] is None and gpu['fabric']['state'] is None and 'unseen' in gpu['gsp'] and 'unseen' in gpu['temperature'], nvml)
    begin = time.monotonic()
    code, report, _ = look(Machine(WORKS, nvml='hang=1'))
    check('NVML that hangs costs its deadline, and the driver is asked all the same', report['facts']['nvml']['hung'] is True and code == 0 and
          time.monotonic() - begin < 4, report['facts']['nvml'], code)


def python_facts():
    """What --python reads of an environment, here that of played.py, and of a folder that is none."""
    machine = next(machine for name, machine in PLAYED if name.endswith('that is complete'))
    _, report, _ = look(machine, '--python', '/opt/nothing')
    first, second = report['facts']['python']
    packages = first['packages']
    check('Python: packages and what they are built for', packages['torch'] == {'version': '2.7.0+cu128', 'cpu_only': False, 'cuda': '12.8',
          'native_files': 1, 'wants_native': True, 'archs': None, 'kernels': None, 'torch_lacks': None} and packages['jaxlib']['cpu_only'] is False and 'pure' not in packages and
          first['version'] == '3.11', first)
    check('Python: a folder that is not there', second['packages']['unseen']['errno'] == 'ENOENT', second)


def watches():
    """--watch reports a verdict once, and again when it changes."""
    with tempfile.TemporaryDirectory() as root:
        Machine(HOST, drivers={}, nodes={}, library=None, nvml=None).build(root, FAKE)
        log = os.path.join(root, 'log')
        with open(log, 'w', encoding='utf-8') as out:
            doctor = subprocess.Popen([FARWARP, 'doctor', '--watch=0.1', '--format', 'npd', '--root', root], stdout=out, stderr=out)

        def wait_for(text):
            for _ in range(200):
                with open(log, encoding='utf-8') as stream:
                    seen = stream.read()
                if text in seen:
                    return seen
                time.sleep(0.05)
            return seen
        wait_for('F001: ')
        time.sleep(0.5)  # some looks that change nothing
        os.mkdir(root + '/new')
        for path, text in GPU.items():
            with open(os.path.join(root, 'new', os.path.basename(path)), 'wb') as stream:
                stream.write(text if isinstance(text, bytes) else text.encode())
        os.rename(root + '/new', root + os.path.dirname(next(iter(GPU))))  # all of it at once
        seen = wait_for('became F021')
        doctor.terminate()
        doctor.wait()
    check('--watch reports what changes, once', seen.count('F001: ') == 1 and seen.count('F021: ') == 1 and 'F001 became F021' in seen, seen)


def libraries_and_kernels():
    """Libraries in the loader's order, told by their content; kernels of packages counted for the GPU."""
    shim = library('libcudart.so.12')
    _, report, _ = look(Machine({**WORKS, '/opt/a/libcudart.so.12': shim, LIB + 'libcudart.so.12.8.90': library('libcudart.so.12', 'libcudart.so.12'),
                                 LIB + 'libcudart.so.12': library('libcudart.so.12', 'libcudart.so.12'), '/opt/a/libcuda.so.1': b'no ELF',
                                 '/usr/lib/i386-linux-gnu/libcuda.so.570.1.1': LIBRARY_32, '/etc/ld.so.preload': '/opt/none.so\n'},
                                env={'LD_LIBRARY_PATH': '/opt/none:/opt/a:'}))
    found = report['facts']['libraries']
    runtimes = [(item['path'], item['found_by'], item['kind'], item['mapped'], item['versioned']) for item in found['libcudart']]
    check('libraries: the first one is what programs get', runtimes == [
        ('/opt/a/libcudart.so.12', 'LD_LIBRARY_PATH', 'shim', True, False), (LIB + 'libcudart.so.12', 'default', 'runtime', False, True),
        (LIB + 'libcudart.so.12.8.90', 'default', 'runtime', False, True)], runtimes)
    drivers = [(os.path.basename(item['real']), item['found_by'], item['kind'], item['mapped'], item['machine']) for item in found['libcuda']]
    check('libraries: the driver, what is no library, what is of another machine', drivers == [
        ('libcuda.so.' + VERSION, 'LD_LIBRARY_PATH', 'driver', True, os.uname().machine), ('libcuda.so.1', 'LD_LIBRARY_PATH', None, False, None),
        ('libcuda.so.570.1.1', 'elsewhere', 'driver', False, 'i386')] and '/opt/none.so' in found['preload'], drivers, found['preload'])
    _, report, _ = look(Machine({**WORKS, **torch(sass(80), sass(90), ptx(90, (8, 4))), **torch(sass(80), ptx(75))}, options=PYTHON))
    package = report['facts']['python'][0]['packages']['torch']
    check('kernels: counted for the first GPU', package['archs'] == ['sm_80', 'compute_75'] and package['kernels'] == {
        'native': 0, 'jit': 1, 'too_new': 0, 'neither': 0}, package)
    _, report, _ = look(Machine({**WORKS, **torch(sass(80))}, script='init=999', options=PYTHON))
    package = report['facts']['python'][0]['packages']['torch']
    check('kernels: not counted without a GPU', package['archs'] == ['sm_80'] and 'unseen' in package['kernels'], package)


def hangs():
    """Each hang costs its deadline (1 s here) and little more, and is named."""
    begin = time.monotonic()
    code, report, _ = look(Machine(WORKS, script='hang=init'))
    hang = report['facts']['driver']['hang']
    check('cuInit never returns: step, state and time are told', hang['step'] == 'init' and hang['state'] == 'S' and
          time.monotonic() - begin < 15 and code == 1, hang)
    begin = time.monotonic()
    code, report, _ = look(Machine(WORKS, nodes={**NODES, 'nvidiactl': '195:255:0666:hang'}, script='hang=init'))
    facts = report['facts']
    answers = {node['path']: node['open'] for node in facts['nodes']}
    check('a node whose open blocks, and then the driver too', answers['/dev/nvidiactl'] == 'hang' and report['verdict']['id'] == 'F033' and
          facts['driver']['hang']['step'] == 'init' and time.monotonic() - begin < 8, answers, time.monotonic() - begin)
    begin = time.monotonic()
    code, report, _ = look(Machine(WORKS, env={'FAKE_DISKS': '/srv=0:0:0:0,/=30000:9000:1000:900'}))
    mounts = {mount['path']: mount['full'] for mount in report['facts']['disk']['mounts']}
    took = time.monotonic() - begin
    check('a file system that does not answer', code == 0 and took < 4 and mounts['/srv'] == {'unseen': {'why': 'it does not answer'}} and
          mounts['/'] is False, mounts, took)
    spaced = {**WORKS, '/proc/self/mountinfo': MOUNTS + r'26 22 8:33 / /mnt/two\040words rw - xfs /dev/sdc1 rw' + '\n'}
    _, report, _ = look(Machine(spaced, env={'FAKE_DISKS': '/two words=2000000:1900000:0:0,/=30000:9000:1000:900'}))
    check('a mount whose path has a space', report['facts']['disk']['empty']['path'] == '/mnt/two words', report['facts']['disk'])
    for script, want in (('hang=init', 'F09B'), ('hang=launch', 'F09B')):
        begin = time.monotonic()
        code, report, _ = look(Machine(WORKS, script=script, env={'FAKE_UNKILLABLE': '1'}))
        took = time.monotonic() - begin
        check('a child that cannot be killed (%s)' % script, report['verdict']['id'] == want and took < 15, report['verdict']['id'], took)


def changes_nothing():
    """The real library of the driver makes nodes when root asks, and calls a set-user-id helper: the doctor's child lacks the rights."""
    _, report, _ = look(Machine(WORKS, script='name=rights'))
    name = report['facts']['driver']['gpus'][0]['name']
    bound = int(re.search(r'CapBnd (\w+)', name).group(1), 16)
    check('the driver is asked without rights to load modules or make nodes', 'NoNewPrivs 1' in name and not bound >> 16 & 1 and
          (os.geteuid() != 0 or not bound >> 27 & 1), name)
    _, report, _ = look(Machine(WORKS, script='name=rights', options=['--load']))
    check('--load leaves it its rights', 'NoNewPrivs 0' in report['facts']['driver']['gpus'][0]['name'], report['facts']['driver']['gpus'])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'node')
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(195, 255))
            os.unlink(path)
        except OSError as error:
            results.append(True)
            print('ok %d - no device node is made # SKIP nor can this test make one: %s' % (len(results), error))
            return
        look(Machine(WORKS, script='mknod=' + path))
        made = os.path.exists(path)
        look(Machine(WORKS, script='mknod=' + path, options=['--load']))
        check('no device node is made, but with --load', not made and os.path.exists(path), made)


def touches_nothing():
    """By strace: no file is made, removed or changed, and only device nodes are opened for writing."""
    if not shutil.which('strace'):
        results.append(True)
        print('ok %d - nothing is written # SKIP strace is not here' % len(results))
        return
    trace = 'trace=' + ','.join('''openat open openat2 creat mknod mknodat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir link linkat
        symlink symlinkat truncate ftruncate chmod fchmod fchmodat chown fchown fchownat lchown setxattr utimensat mount ioctl connect init_module
        finit_module delete_module reboot'''.split())
    for what, machine in (('a GPU that works', Machine(WORKS)), ('a quick look', Machine(WORKS, options=['--quick'])),
                          ('no GPU', Machine(HOST, drivers={}, nodes={}, library=None)),
                          ('a module that is not loaded', Machine({**HOST, **GPU, '/lib/modules/6.1.0-13-amd64/updates/dkms/nvidia.ko': ''},
                                                                  nodes={}))):
        _, report, text = look(machine, wrap=('strace', '-f', '-qq', '-e', 'signal=none', '-e', trace))
        if 'ptrace' in text and 'Operation not permitted' in text:
            results.append(True)
            print('ok %d - nothing is written: %s # SKIP strace may not look at processes here' % (len(results), what))
            continue
        calls = [line for line in text.split('\n') if re.match(r'(\[pid +\d+\] )?\w+\(', line)]
        bad = []
        for call in calls:
            call = re.sub(r'^\[pid +\d+\] ', '', call)
            name = call.split('(')[0]
            if name.startswith('open'):
                writes = re.search(r'O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)', call)
                if writes and not re.search(r'"[^"]*/dev/(nvidia[^"/]*|dxg)"|"/dev/null"', call):
                    bad.append(call)
            elif name == 'mount':  # the child's own view of /dev becomes read-only
                if not re.search(r'MS_REC\|MS_SLAVE|"/dev",.*MS_RDONLY', call):
                    bad.append(call)
            elif name == 'ioctl':  # whether standard output is a terminal
                if 'TCGETS' not in call:
                    bad.append(call)
            else:
                bad.append(call)
        check('nothing is written: ' + what, not bad and len(calls) > 50 and isinstance(report, dict), len(calls), *bad[:20])


def main():
    played()
    nvml_facts()
    python_facts()
    libraries_and_kernels()
    watches()
    hangs()
    changes_nothing()
    touches_nothing()
    print('1..%d' % len(results))
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
