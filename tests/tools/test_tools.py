#!/usr/bin/env python3
"""farwarp on the command line, in TAP: run passes everything through, the doctor judges fake machines and fake drivers.

    test_tools.py FARWARP FAKE_LIBCUDA
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FARWARP, FAKE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def farwarp(*arguments, env=None, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('FARWARP', 'CUDA_', 'LD_LIBRARY'))}
    environment.update(env or {})
    return subprocess.run([FARWARP, *arguments], capture_output=True, text=True, env=environment, timeout=60, **options)


def expect(condition, *shown):
    if not condition:
        raise AssertionError(' '.join(str(s) for s in shown))


class Machine:
    """A fake root: files given as {path: text}, links as {path: target}."""

    def __init__(self, files=(), links=()):
        self.root = tempfile.mkdtemp()
        os.makedirs(self.root + '/sys/bus/pci/devices')
        os.makedirs(self.root + '/sys/module')
        os.makedirs(self.root + '/dev')
        for path, text in dict(files).items():
            os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
            with open(self.root + path, 'w', errors='surrogateescape') as stream:
                stream.write(text)
        for path, target in dict(links).items():
            os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
            os.symlink(target, self.root + path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def verdict(self):
        done = farwarp('doctor', '--json', '--root', self.root)
        report = json.loads(done.stdout)
        return report['verdict']['id'], done.returncode, report


def gpu(address='0000:3b:00.0', device='0x2330', klass='0x030200'):
    base = '/sys/bus/pci/devices/' + address
    return {base + '/vendor': '0x10de\n', base + '/device': device + '\n', base + '/class': klass + '\n'}


def other_function():
    """A PCI function of another vendor: the tree shows a bus."""
    base = '/sys/bus/pci/devices/0000:00:01.0'
    return {base + '/vendor': '0x8086\n', base + '/device': '0x1237\n', base + '/class': '0x060000\n'}


def driver_link(name, address='0000:3b:00.0'):
    return {'/sys/bus/pci/devices/%s/driver' % address: '../../../bus/pci/drivers/' + name}


@test
def run_passes_arguments_output_and_exit_code():
    done = farwarp('run', '--device', 'soft', '--', 'sh', '-c', 'echo "$0 $1"; exit 7', 'a b', '--cc')
    expect(done.returncode == 7 and done.stdout == 'a b --cc\n', done)
    expect(done.stderr.startswith('farwarp: software GPU') and done.stderr.count('\n') == 1, done.stderr)


@test
def run_needs_no_double_dash():
    expect(farwarp('run', '-q', '-d', 'soft', 'echo', '--cc').stdout == '--cc\n')


@test
def run_passes_signals():
    process = subprocess.Popen([FARWARP, 'run', '-q', '-d', 'soft', '--', 'sleep', '30'])
    for _ in range(500):
        with open('/proc/%d/comm' % process.pid) as comm:
            if comm.read().strip() == 'sleep':
                break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    expect(process.wait(timeout=20) == -signal.SIGTERM, process.returncode)


@test
def run_sets_the_library_path_for_the_program_alone():
    done = farwarp('run', '-q', '-d', 'soft', '--', 'sh', '-c', 'echo $LD_LIBRARY_PATH; echo "$LD_PRELOAD"', env={'LD_LIBRARY_PATH': '/opt/x'})
    first, second = done.stdout.split('\n')[:2]
    expect(first.split(':')[-1] == '/opt/x' and os.path.exists(first.split(':')[0] + '/libcuda.so.1'), first)
    expect(second == '', 'LD_PRELOAD is set')


@test
def run_hands_its_options_on():
    done = farwarp('run', '-q', '--cc', '9.0', '--mem', '2G', '--sms', '4', '--threads', '2', '--', 'env')
    for line in ('FARWARP_SOFT_CC=9.0', 'FARWARP_SOFT_MEM=2G', 'FARWARP_SOFT_SMS=4', 'FARWARP_SOFT_THREADS=2'):
        expect(line in done.stdout.split('\n'), line)


@test
def run_refuses_bad_options():
    for bad in (['--cc', '6.0'], ['--cc', '99'], ['--cc', 'x'], ['--mem', '0'], ['--mem', '-3'], ['--mem', '5X'], ['--sms', '0'],
                ['--threads', 'many'], ['--device', 'tpu'], ['--nonsense']):
        done = farwarp('run', *bad, '--', 'true')
        expect(done.returncode == 64 and 'farwarp run' in done.stderr, bad, done)
    expect(farwarp('run').returncode == 64)


@test
def run_of_nothing_is_127_and_of_a_folder_126():
    done = farwarp('run', '-d', 'soft', '--', 'no-such-program')
    expect(done.returncode == 127 and 'no-such-program' in done.stderr, done)
    expect(farwarp('run', '-d', 'soft', '--', '/tmp').returncode == 126)


@test
def run_uses_a_healthy_local_gpu_untouched():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FAKE, folder + '/libcuda.so.1')
        done = farwarp('run', '--', 'sh', '-c', 'echo $LD_LIBRARY_PATH; env | grep -c FARWARP_', env={'LD_LIBRARY_PATH': folder})
        expect(done.stdout == folder + '\n0\n' and 'local GPU Fake H100' in done.stderr, done)
        done = farwarp('run', '--', 'sh', '-c', 'echo $FARWARP_DEVICE', env={'LD_LIBRARY_PATH': folder, 'FAKE_CUDA': 'init=802'})
        expect(done.stdout == 'soft\n' and '(F' in done.stderr, done)


@test
def run_goes_to_a_server():
    for address in ('unix:/run/x.sock', 'tcp:gpu-host', 'tcp:[::1]:7749', 'vsock:2:7749', 'vsock:2'):
        for arguments, env, why in ((['--server', address], {}, 'asked for'), (['--server', address], {'FARWARP_SERVER': 'unix:/other'}, 'asked for'),
                                    ([], {'FARWARP_SERVER': address}, 'FARWARP_SERVER')):
            done = farwarp('run', *arguments, '--', 'sh', '-c', 'echo $FARWARP_SERVER; echo $LD_LIBRARY_PATH', env=env)
            server, path = done.stdout.split('\n')[:2]
            expect(server == address and os.path.exists(path + '/libcuda.so.1'), done)
            expect(done.stderr == 'farwarp: GPU behind the server %s (%s)\n' % (address, why), done.stderr)


@test
def run_refuses_bad_addresses():
    for bad in ('nonsense', 'tcp:', 'tcp:host:99999', 'tcp:host:0', 'tcp:[::1', 'unix:', 'unix:' + 200 * 'x', 'vsock:', 'vsock:x:1', 'vsock:2:',
                'vsock:2:x', 'vsock:-1:1', 'vsock:4294967296:1', 'vsock:2:4294967295', 'vsock:2:1:1'):
        for done in (farwarp('run', '--server', bad, '--', 'echo', 'ran'), farwarp('run', '--', 'echo', 'ran', env={'FARWARP_SERVER': bad})):
            expect(done.returncode == 64 and done.stdout == '' and '"' in done.stderr and done.stderr.count('SERVER: ') + done.stderr.count('--server: ') == 1,
                   bad, done)


@test
def run_puts_options_before_the_environment():
    env = {'FARWARP_SERVER': 'unix:/nowhere/x.sock'}
    for options in (['--device', 'soft'], ['--cc', '9.0'], ['--threads', '2']):
        done = farwarp('run', *options, '--', 'sh', '-c', 'echo $FARWARP_DEVICE $FARWARP_SERVER', env=env)
        expect(done.stdout == 'soft\n' and 'in place of the server in FARWARP_SERVER' in done.stderr, done)
    for options in (['--device', 'soft'], ['--device', 'local'], ['--cc', '9.0']):
        expect(farwarp('run', '--server', 'unix:/x', *options, '--', 'true').returncode == 64, options)
    expect('server' not in farwarp('run', '--', 'true', env={'FARWARP_SERVER': ''}).stderr)


@test
def run_never_goes_elsewhere_when_its_server_is_dead():
    program = os.path.join(os.path.dirname(FARWARP), 'examples/vector_add')
    for address in ('unix:/nowhere/x.sock', 'tcp:127.0.0.1:1'):
        for arguments, env in ((['--server', address], {}), ([], {'FARWARP_SERVER': address})):
            done = farwarp('run', *arguments, '--', program, env=env)
            expect(done.returncode == 1 and 'right' not in done.stdout and done.stderr.count('cannot reach the server ' + address) == 1, done)


@test
def run_says_what_it_chose_and_why_in_one_line():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FAKE, folder + '/libcuda.so.1')
        path = {'LD_LIBRARY_PATH': folder}
        for options, env, says in (([], path, 'local GPU Fake H100'), ([], dict(path, FAKE_CUDA='init=802'), 'software GPU, compute capability 8.6 (F'),
                                   (['-d', 'local'], path, 'local GPU Fake H100'), (['-d', 'local'], dict(path, FAKE_CUDA='init=999'), 'though F'),
                                   (['-d', 'native'], path, 'behind farwarp'), (['-d', 'soft'], path, 'software GPU, compute capability 8.6 (asked for)'),
                                   (['--cc', '9.0'], path, 'capability 9.0 (its options were given)')):
            done = farwarp('run', *options, '--', 'true', env=env)
            expect(done.returncode == 0 and says in done.stderr and done.stderr.count('\n') == 1, options, env, done)
            expect(farwarp('run', '-q', *options, '--', 'true', env=env).stderr.startswith('farwarp: local GPU (asked for), though')
                   if 'though' in says else not farwarp('run', '-q', *options, '--', 'true', env=env).stderr, options)


@test
def command_line_basics():
    expect(farwarp('--help').returncode == 0 and 'doctor' in farwarp('--help').stdout)
    expect(farwarp('--version').stdout.startswith('farwarp '))
    expect(farwarp().returncode == 64 and farwarp('frobnicate').returncode == 64)
    for command in ('run', 'doctor'):
        expect(farwarp(command, '--help').returncode == 0 and farwarp('help', command).returncode == 0)
    expect(farwarp('help', 'nothing').returncode == 64)


@test
def doctor_without_a_gpu():
    with Machine(other_function()) as machine:
        ident, code, report = machine.verdict()
        expect((ident, code) == ('F001', 1), ident, code)
        expect({layer['layer']: layer['state'] for layer in report['layers']}['pci'] == 'fault', report['layers'])


@test
def doctor_in_a_container_without_a_gpu():
    with Machine({'/.dockerenv': ''}) as machine:
        expect(machine.verdict()[0] == 'F100')
    with Machine({**other_function(), '/.dockerenv': ''}) as machine:  # --gpus all would not help here
        expect(machine.verdict()[0] == 'F001')


@test
def doctor_sees_a_gpu_without_a_module():
    module = '/lib/modules/6.1.0-9-amd64/updates/dkms/nvidia.ko'
    kernel = {'/proc/sys/kernel/osrelease': '6.1.0-13-amd64\n', '/proc/cpuinfo': 'flags : fpu\n'}
    with Machine({**gpu(), **kernel, module: ''}) as machine:
        ident, code, report = machine.verdict()
        expect((ident, code) == ('F021', 1), ident)
        expect(report['facts']['pci']['gpus'][0]['device'] == '0x2330')
        expect(report['facts']['kernel']['module_files'][0]['running'] is False, report['facts']['kernel'])
    with Machine({**gpu(), **kernel, module.replace('-9-', '-13-'): '', '/sys/firmware/x': ''}) as machine:
        expect(machine.verdict()[0] == 'F0A1')


@test
def doctor_sees_vfio_and_nouveau():
    with Machine(gpu(), driver_link('vfio-pci')) as machine:
        expect(machine.verdict()[0] == 'F004')
    with Machine(gpu(), driver_link('nouveau')) as machine:
        expect(machine.verdict()[0] == 'F020')


@test
def doctor_counts_only_gpus():
    # An NVSwitch, a chipset's bridge and a GPU's audio function are NVIDIA's but no GPUs.
    with Machine({**gpu('0000:01:00.0', '0x22a3', '0x068000'), **gpu('0000:02:00.1', '0x0fbc', '0x040300'),
                  **gpu('0000:00:05.0', '0x0448', '0x068000')}) as machine:
        ident, _, report = machine.verdict()
        expect(ident == 'F001', ident)
        expect([len(report['facts']['pci'][k]) for k in ('gpus', 'nvswitches', 'other')] == [0, 1, 2], report['facts']['pci'])


@test
def doctor_reads_a_gpu():
    base = '/sys/bus/pci/devices/0000:3b:00.0'
    files = {**gpu(), base + '/resource': '0x00000000f0000000 0x00000000f0ffffff 0x0000000000040200\n'
             '0x0000006000000000 0x0000007fffffffff 0x000000000014220c\n' + '0x0 0x0 0x0\n' * 5,
             base + '/config': '\udcde\x100#rest', base + '/power_state': 'D0\n', base + '/current_link_width': '16\n',
             base + '/aer_dev_fatal': 'Undefined 0\nTOTAL_ERR_FATAL 3\n', base + '/driver_override': '(null)\n'}
    with Machine(files, driver_link('nvidia')) as machine:
        got = machine.verdict()[2]['facts']['pci']['gpus'][0]
        expect(got['bar1_size'] == 128 << 30 and [bar['index'] for bar in got['bars']] == [0, 1], got)
        expect(got['config_dword'] == '0x233010de' and got['driver'] == 'nvidia' and got['driver_override'] is None, got)
        expect(got['aer_fatal'] == 3 and got['link']['width'] == 16 and got['power_state'] == 'D0', got)


@test
def doctor_sees_a_container_that_hides_the_gpu():
    files = {**gpu(), '/.dockerenv': '', '/proc/driver/nvidia/version':
             'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  Release Build\n'}
    with Machine(files, driver_link('nvidia')) as machine:
        ident, _, report = machine.verdict()
        expect(ident == 'F100', ident)
        expect(report['facts']['proc_driver']['version'] == '570.195.03' and report['facts']['proc_driver']['open'] is True)
        expect(report['facts']['kernel']['modules']['nvidia']['loaded'] is True)


@test
def doctor_and_drivers_that_fail():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FAKE, folder + '/libcuda.so.1.570.195.03')
        os.symlink('libcuda.so.1.570.195.03', folder + '/libcuda.so.1')
        for script, ident, code, step in (
                ('init=0', 'OK', 0, 'free'), ('init=34', 'F072', 1, 'init'), ('crash=1', 'CRASH', 1, 'init'), ('hang=init', 'F09B', 1, 'init'),
                ('launch=719', None, 1, 'launch'), ('wrong=1', None, 1, 'free'), ('context=46', None, 1, 'context'), ('hang=launch', 'F09B', 1, 'launch')):
            begin = time.monotonic()
            done = farwarp('doctor', '--json', '--deadline', '1', env={'LD_LIBRARY_PATH': folder, 'FAKE_CUDA': script})
            report = json.loads(done.stdout)
            driver = report['facts']['driver']
            fired = [report['verdict']['id']] + [finding['id'] for finding in report['findings']]
            expect(ident is None or ident in fired or ident == 'F09B' and 'F124' in fired, script, fired)
            expect(driver['last_step'] == step, script, driver['last_step'])
            expect(driver['works'] is (script == 'init=0'), script, driver)
            expect(time.monotonic() - begin < 20, 'took too long')
        expect(driver['steps']['launch']['hung'] is True and driver['hang']['step'] == 'launch', driver)


@test
def doctor_tells_a_mask_from_a_missing_gpu():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FAKE, folder + '/libcuda.so.1')
        done = farwarp('doctor', '--json', env={'LD_LIBRARY_PATH': folder, 'FAKE_CUDA': 'masked=1', 'CUDA_VISIBLE_DEVICES': '-1'})
        report = json.loads(done.stdout)
        fired = [report['verdict']['id']] + [finding['id'] for finding in report['findings']]
        expect('F064' in fired and report['facts']['driver']['unmasked']['count'] == 1, fired, report['facts']['driver'])


@test
def doctor_works_on_the_software_gpu():
    done = farwarp('run', '-q', '-d', 'soft', '--', FARWARP, 'doctor', '--json')
    report = json.loads(done.stdout)
    expect((report['verdict']['id'], done.returncode) == ('SOFT', 0), report['verdict'], report['facts']['driver'])
    expect(report['facts']['driver']['kernel_correct'] is True)


@test
def doctor_reports_text_with_the_cause_first():
    with Machine(other_function()) as machine:
        first = farwarp('doctor', '--root', machine.root).stdout.split('\n')[0]
        expect(first.startswith('F001: ') and ' -> ' in first and len(first) <= 80 and '\033' not in first, first)


@test
def doctor_refuses_bad_options():
    for bad in (['--deadline', '0'], ['--deadline', 'x'], ['extra'], ['--nonsense'], ['--format', 'xml'], ['--redact'], ['--quick', '--deep'], ['--replay', 'x', '--python', 'y'], ['--replay', 'x', '--quick'], ['--replay', 'x', '--driver', '/'],
                ['--explain', 'F000'], ['--list', '--json'], ['--explain', 'F051', '--watch'], ['--root', '/nonexistent'], ['--root', '/etc/passwd'],
                ['--driver', '/nonexistent'], ['--python', '/nonexistent'], ['--python', '/etc/passwd'], ['--replay', '/nonexistent'], ['--replay', 'x', '--watch'], ['--watch=0']):
        expect(farwarp('doctor', *bad).returncode == 64, bad)
    expect('F001' in farwarp('doctor', '--list').stdout)
    expect('unless' in farwarp('doctor', '--explain', 'F051').stdout)


@test
def what_cannot_be_written_is_said():
    """A full disk is said and the exit code tells; the report of a machine whose record cannot be written is printed all the same."""
    machine = os.path.join(ROOT, 'tests', 'machines', 'seed-000.json')
    for arguments in (['doctor', '--list'], ['doctor', '--replay', machine], ['doctor', '--replay', machine, '--json'], ['inspect', '/bin/sh'],
                      ['inspect', '--json', '/bin/sh'], ['doctor', '--explain', 'F051']):
        with open('/dev/full', 'w') as full:
            done = subprocess.run([FARWARP, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        expect(done.returncode == 64 and 'No space left on device' in done.stderr, arguments, done)
    done = farwarp('doctor', '--replay', machine, '--record', '/dev/full')
    expect(done.returncode == 64 and done.stdout.startswith('F051') and '--record /dev/full: No space' in done.stderr, done)
    closed = subprocess.run(['sh', '-c', 'exec "$0" doctor --replay "$1" >&-', FARWARP, machine], capture_output=True, text=True, timeout=60)
    expect(closed.returncode == 1 and not closed.stderr, closed)


@test
def files_that_are_none_are_refused():
    with tempfile.TemporaryDirectory() as folder:
        for name, text, said in (('cut', '{"farwarp_facts": 1, "pci": {', 'cut:1:'), ('binary', '\0\1\2', 'binary:1:1:'), ('empty', '', 'empty:1:1:')):
            with open(os.path.join(folder, name), 'w') as stream:
                stream.write(text)
            done = farwarp('doctor', '--replay', os.path.join(folder, name))
            expect(done.returncode == 64 and said in done.stderr, name, done)
        for path, said in ((folder, 'Is a directory'), (folder + '/none', ': No such file'), ('/dev/zero', 'larger than 8 MiB')):
            done = farwarp('doctor', '--replay', path)
            expect(done.returncode == 64 and said in done.stderr and ':0:' not in done.stderr, path, done)
        os.mkfifo(folder + '/fifo')
        for path in ('/dev/zero', '/dev/null', folder + '/fifo', folder + '/cut', folder + '/binary', folder + '/empty', folder + '/none', '999999999'):
            done = farwarp('inspect', path)
            expect(done.returncode == 2 and done.stdout.startswith('I07 '), path, done)


@test
def every_id_is_explained():
    """Those of inspect stand in its sources, its table of meanings and its page; --list has them all, the completion offers them."""
    source = ''.join(open(path).read() for path in sorted(glob.glob(ROOT + '/src/inspect/*.c')) if not path.endswith('meaning.c'))
    page = dict(re.findall(r'^\| ([FI][0-9A-F]{2,3}) \| (.*) \|$', open(ROOT + '/docs/inspect.md').read(), re.M))
    listed = [line.split()[0] for line in farwarp('doctor', '--list').stdout.splitlines()]
    expect(set(re.findall(r'"([FI][0-9][0-9A-F]{1,2})"', source)) == set(page), 'docs/inspect.md', sorted(page))
    expect(len(listed) == len(set(listed)) and set(page) <= set(listed), listed)
    for name, cause in page.items():
        text = farwarp('doctor', '--explain', name.lower()).stdout
        expect('%s: %s\n  reported by: farwarp inspect' % (name, cause.replace('`', '')) in text, name, cause, text)
    script = '. %s/pkg/completion/farwarp.bash; COMP_WORDS=(%s doctor --explain F07); COMP_CWORD=3; _farwarp; echo "${COMPREPLY[@]}"' % (ROOT, FARWARP)
    offered = subprocess.run(['bash', '-c', script], capture_output=True, text=True).stdout.split()
    expect(offered == [name for name in listed if name.startswith('F07')], offered)


@test
def doctor_records_and_replays():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + '/facts.json'
        live = farwarp('doctor', '--json', '--record', path)
        again = farwarp('doctor', '--json', '--replay', path)
        expect(json.loads(live.stdout) == json.loads(again.stdout) and live.returncode == again.returncode, 'replay differs')
        host = os.uname().nodename
        environment = {'USER': 'ada', 'HOME': '/home/ada', 'CUDA_VISIBLE_DEVICES': 'GPU-01234567-89ab-cdef-0123-456789abcdef',
                       'NCCL_SOCKET_IFNAME': '=10.20.30.40', 'OLLAMA_HOST': 'http://' + host + ':1'}
        farwarp('doctor', '--record', path, '--redact', env=environment)
        text = open(path).read()
        for secret in ('ada', '01234567-89ab-cdef-0123-456789abcdef', '10.20.30.40'):
            expect(not re.search(r'\b%s\b' % re.escape(secret), text), secret)
        env = json.loads(text)['env']
        expect(env['USER'] == 'user-1' and env['HOME'] == '/home/user-1' and env['OLLAMA_HOST'] == 'http://host-1:1', env)
        expect(json.loads(text)['platform']['host'] == 'host-1', 'the host is named')
        with open(path, 'w') as stream:
            stream.write('{\n  "farwarp_facts": 1,\n  "pci": [,]\n}\n')
        done = farwarp('doctor', '--replay', path)
        expect(done.returncode == 64 and 'facts.json:3:' in done.stderr, done.stderr)
        for wrong in ('{}', '{"farwarp_facts": 2}', '[]', '{"farwarp_facts": 1, "pci..x": 3}', '{"base": "../x"}'):
            with open(path, 'w') as stream:
                stream.write(wrong)
            expect(farwarp('doctor', '--replay', path).returncode == 64, wrong)


@test
def doctor_formats():
    machines = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'machines')
    for machine, ident, works in (('healthy-h100-vm', 'OK', 1), ('seed-000', 'F051', 0)):
        path = os.path.join(machines, machine + '.json')
        for name, codes in (('nagios', (0, 2)), ('npd', (0, 1)), ('slurm', (0, 1)), ('prometheus', (0, 1)), ('html', (0, 1)), ('json', (0, 1))):
            done = farwarp('doctor', '--replay', path, '--format', name)
            expect(done.returncode == codes[0 if works else 1] and ident in done.stdout, name, done)
            if name in ('nagios', 'npd', 'slurm'):
                expect(done.stdout.count('\n') == 1, name, done.stdout)
        npd = farwarp('doctor', '--replay', path, '--format', 'npd').stdout
        expect(len(npd.rstrip('\n')) <= 80, npd)
        expect('farwarp_doctor_works %d\n' % works in farwarp('doctor', '--replay', path, '--format', 'prometheus').stdout)
        page = farwarp('doctor', '--replay', path, '--format', 'html').stdout
        expect(not re.search(r'</h2>\s*<(h2|p class="small")', page) and '<table class="id">\n</table>' not in page, 'an empty part')
        expect('viewport' in page and 'http-equiv' not in page and '<script' not in page and 'src=' not in page and 'href=' not in page)
    warned = farwarp('doctor', '--replay', os.path.join(machines, 'F112.json'), '--format', 'nagios')
    expect(warned.returncode == 1 and warned.stdout.startswith('WARNING - F112'), warned)
    unknown = farwarp('doctor', '--replay', os.path.join(machines, 'UNKNOWN.json'))
    expect(unknown.returncode == 2, unknown)


def main():
    print('1..%d' % len(TESTS))
    for number, function in enumerate(TESTS, 1):
        try:
            function()
            print('ok %d - %s' % (number, function.__name__), flush=True)
        except Exception as error:  # a failure of any kind is this test's
            print('# ' + repr(error)[:1500].replace('\n', '\n# '))
            print('not ok %d - %s' % (number, function.__name__), flush=True)


main()
