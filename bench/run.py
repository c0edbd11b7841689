#!/usr/bin/env python3
"""Benchmarks farwarp's software GPU against PoCL in one run: same kernels, same sizes, in turn; medians and ratios.

    bench/run.py --build build [--rounds 5] [--only NAME] [--markdown FILE]

Needs a C compiler and nvcc (for the kernels' PTX); PoCL with OpenCL headers for the comparison. What is missing is said and its
column left out; nothing is estimated.
"""
import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


def build(out, build_dir):
    """Compiles what can be compiled; returns {name: path}."""
    made = {}
    os.makedirs(out, exist_ok=True)
    cc = os.environ.get('CC', 'cc')
    include = ['-I' + ROOT, '-I' + HERE, '-I' + os.path.join(build_dir, 'api', 'gen')]
    program = os.path.join(out, 'bench_cuda')
    subprocess.run([cc, '-O2', '-D_GNU_SOURCE', *include, os.path.join(HERE, 'bench_cuda.c'), '-o', program, '-ldl', '-lm'], check=True)
    made['cuda'] = program
    nvcc = shutil.which('nvcc')
    if nvcc:
        made['ptx'] = os.path.join(out, 'kernels.ptx')
        subprocess.run([nvcc, '-O3', '-arch=sm_80', '-ptx', os.path.join(HERE, 'kernels.cu'), '-o', made['ptx']], check=True)
        made['vector_add'] = os.path.join(out, 'vector_add')
        subprocess.run([nvcc, '-O2', '-cudart', 'static', os.path.join(ROOT, 'examples', 'cuda', 'vector_add.cu'),
                        '-o', made['vector_add']], check=True)
    else:
        print('no nvcc: the kernels cannot be compiled to PTX, nothing to measure', file=sys.stderr)
    program = os.path.join(out, 'bench_opencl')
    if subprocess.run([cc, '-O2', *include, os.path.join(HERE, 'bench_opencl.c'), '-o', program, '-lOpenCL', '-lm'],
                      stderr=subprocess.DEVNULL).returncode == 0:
        made['opencl'] = program
    else:
        print('no OpenCL headers or library: without PoCL (apt-get install pocl-opencl-icd ocl-icd-opencl-dev)', file=sys.stderr)
    return made


def measure(command, environment):
    """Runs a benchmark program; returns {name: (value, unit)}, wall seconds and peak KiB."""
    begin = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    if status != 0:
        raise SystemExit('%s ended with status %d' % (' '.join(command), status))
    rows = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and not line.startswith('device:'):
            rows[words[0]] = (float(words[1]), words[2])
    return rows, wall, usage.ru_maxrss


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', default='build')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only')
    parser.add_argument('--markdown')
    options = parser.parse_args()
    made = build(os.path.join(options.build, 'bench'), os.path.abspath(options.build))
    if 'ptx' not in made:
        return 77
    ours = dict(os.environ)
    ours['LD_LIBRARY_PATH'] = os.path.join(os.path.abspath(options.build), 'lib') + ':' + ours.get('LD_LIBRARY_PATH', '')
    extra = [options.only] if options.only else []
    results = {'farwarp': [], 'pocl': []}
    walls = {'farwarp': [], 'pocl': []}
    peaks = {'farwarp': [], 'pocl': []}
    startup, startup_peak, through_run = [], [], []
    for _ in range(options.rounds):
        rows, wall, peak = measure([made['cuda'], made['ptx']] + extra, ours)
        results['farwarp'].append(rows), walls['farwarp'].append(wall), peaks['farwarp'].append(peak)
        if 'opencl' in made:
            rows, wall, peak = measure([made['opencl'], os.path.join(HERE, 'kernels.cl')] + extra, os.environ)
            results['pocl'].append(rows), walls['pocl'].append(wall), peaks['pocl'].append(peak)
        if not options.only:
            for _ in range(3):
                _, wall, peak = measure([made['vector_add']], ours)
                startup.append(wall), startup_peak.append(peak)
                _, wall, _ = measure([os.path.join(options.build, 'farwarp'), 'run', '-q', '--device', 'soft', '--', made['vector_add']], os.environ)
                through_run.append(wall)
    lines = ['| measurement | farwarp (median, min-max) | PoCL 3.1 (median, min-max) | farwarp / PoCL |', '|---|---|---|---|']

    def cell(values, unit):
        return '%.3g %s (%.3g-%.3g)' % (statistics.median(values), unit, min(values), max(values))

    for name in results['farwarp'][0]:
        unit = results['farwarp'][0][name][1]
        mine = [r[name][0] for r in results['farwarp']]
        theirs = [r[name][0] for r in results['pocl']]
        ratio = ''
        if theirs:
            pairs = [(b / a if unit == 'us' else a / b) for a, b in zip(mine, theirs)]
            ratio = '%.2f times %s' % (statistics.median(pairs), 'faster' if statistics.median(pairs) >= 1 else 'the speed')
        lines.append('| %s | %s | %s | %s |' % (name, cell(mine, unit), cell(theirs, unit) if theirs else 'not here', ratio))
    lines.append('| peak memory, all kernels | %s | %s | |' % (cell([p / 1024 for p in peaks['farwarp']], 'MiB'),
                 cell([p / 1024 for p in peaks['pocl']], 'MiB') if peaks['pocl'] else 'not here'))
    if startup:
        lines.append('| vector add, nvcc, static cudart, exec to exit | %s | | |' % cell([s * 1e3 for s in startup], 'ms'))
        lines.append('| the same through `farwarp run --device soft` | %s | | |' % cell([s * 1e3 for s in through_run], 'ms'))
        lines.append('| its peak memory | %s | | |' % cell([p / 1024 for p in startup_peak], 'MiB'))
    cpu = next((line.split(':', 1)[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), platform.processor())
    text = '%s, %d threads, %d rounds in turn.\n\n%s\n' % (cpu, len(os.sched_getaffinity(0)), options.rounds, '\n'.join(lines))
    print(text)
    if options.markdown:
        with open(options.markdown, 'w', encoding='utf-8') as stream:
            stream.write(text)
    return 0


if __name__ == '__main__':
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
