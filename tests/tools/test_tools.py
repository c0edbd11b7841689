#!/usr/bin/env python3
"""farwarp on the command line, in TAP: run passes everything through, the doctor judges fake machines and fake drivers.

    test_tools.py FARWARP FAKE_LIBCUDA
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FARWARP, FAKE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
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
        os.makedirs(self.root + '/dev')
        for path, text in dict(files).items():
            os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
            with open(self.root + path, 'w') as stream:
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
        expect(done.stdout == 'soft\n' and '802' in done.stderr, done)


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
    with Machine() as machine:
        ident, code, _ = machine.verdict()
        expect((ident, code) == ('F001', 1), ident, code)


@test
def doctor_in_a_container_without_a_gpu():
    with Machine({'/.dockerenv': ''}) as machine:
        expect(machine.verdict()[0] == 'F100')


@test
def doctor_sees_a_gpu_without_a_module():
    with Machine(gpu()) as machine:
        ident, code, report = machine.verdict()
        expect((ident, code) == ('F021', 1), ident)
        expect(report['facts']['pci'][0]['device'] == '2330')


@test
def doctor_sees_vfio_and_nouveau():
    with Machine(gpu(), driver_link('vfio-pci')) as machine:
        expect(machine.verdict()[0] == 'F004')
    with Machine(gpu(), driver_link('nouveau')) as machine:
        expect(machine.verdict()[0] == 'F020')


@test
def doctor_counts_only_gpus():
    # An NVSwitch and a GPU's audio function are NVIDIA's but no GPUs.
    with Machine({**gpu('0000:01:00.0', '0x22a3', '0x068000'), **gpu('0000:02:00.1', '0x0fbc', '0x040300')}) as machine:
        expect(machine.verdict()[0] == 'F001')


@test
def doctor_sees_a_container_that_hides_the_gpu():
    files = {**gpu(), '/.dockerenv': '', '/proc/driver/nvidia/version':
             'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  Release Build\n'}
    with Machine(files, driver_link('nvidia')) as machine:
        ident, _, report = machine.verdict()
        expect(ident == 'F100', ident)
        expect(report['facts']['module'] == {'loaded': True, 'open': True, 'uvm': False, 'nouveau': False, 'version': '570.195.03'},
               report['facts']['module'])


@test
def doctor_and_drivers_that_fail():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(FAKE, folder + '/libcuda.so.1')
        for script, ident, code in (('init=0', 'OK', 0), ('init=802', 'F050', 1), ('init=803', 'F073', 1), ('init=804', 'F071', 1),
                                    ('init=34', 'F072', 1), ('crash=1', 'CRASH', 1), ('hang=1', 'F09B', 1)):
            begin = time.monotonic()
            done = farwarp('doctor', '--json', '--deadline', '1', env={'LD_LIBRARY_PATH': folder, 'FAKE_CUDA': script})
            report = json.loads(done.stdout)
            expect((report['verdict']['id'], done.returncode) == (ident, code), script, report['verdict'], done.returncode)
            expect(time.monotonic() - begin < 20, 'took too long')
        expect(report['facts']['driver']['hung'] is True and report['facts']['driver']['stage'] == 'cuInit')


@test
def doctor_reports_text_with_the_cause_first():
    with Machine(gpu()) as machine:
        first = farwarp('doctor', '--root', machine.root).stdout.split('\n')[0]
        expect(first.startswith('F021: ') and len(first) < 100 and '\033' not in first, first)


@test
def doctor_refuses_bad_options():
    for bad in (['--deadline', '0'], ['--deadline', 'x'], ['extra'], ['--nonsense']):
        expect(farwarp('doctor', *bad).returncode == 64, bad)
    expect('F001' in farwarp('doctor', '--list').stdout)


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
