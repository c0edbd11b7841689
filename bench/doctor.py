#!/usr/bin/env python3
"""What a look of the doctor costs: wall time and peak memory of the doctor and its children, on this machine and on one that is played.

    bench/doctor.py --build build [--rounds 20]

The played machine has a GPU, modules, nodes, a kernel log of 20,000 lines, and a scripted driver that answers at once: a real driver's own
time comes on top.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'doctor'))
from machine import Machine, kernel_log  # noqa: E402
from played import WORKS  # noqa: E402

GATES = {'--quick': 0.3, '': 2.0}
MAX_MEMORY = 40 << 20


def measure(command, env):
    """(seconds, bytes) of one run, the largest of the doctor and its children. By GNU time, for what this Python takes would be counted too."""
    with tempfile.NamedTemporaryFile('r') as answer:
        subprocess.run(['/usr/bin/time', '-f', '%e %M', '-o', answer.name, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        memory = int(answer.read().split()[-1]) * 1024
    begin = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    return time.monotonic() - begin, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', default='build')
    parser.add_argument('--rounds', type=int, default=20)
    arguments = parser.parse_args()
    build = os.path.abspath(arguments.build)
    farwarp, fakes = os.path.join(build, 'farwarp'), os.path.join(build, 'tests')
    good = True
    print('| look | wall, median (max) | peak memory | gate |\n|---|---|---|---|')
    with tempfile.TemporaryDirectory() as root:
        noise = ['usb 1-1: new device number %d of some vendor or other' % i for i in range(20000)]
        machine = Machine({**WORKS, **kernel_log(*noise)})
        folder = machine.build(root, os.path.join(fakes, 'tools', 'libfakedoctor.so'))
        played = ['--root', root, '--driver', folder]
        env = dict(os.environ, LD_PRELOAD=os.path.join(fakes, 'doctor', 'libfakenodes.so'),
                   FAKE_NODES=','.join('%s=%s' % node for node in machine.nodes.items()))
        for place, options, environment in (('this machine', [], os.environ), ('a played GPU', played, env)):
            for kind, gate in GATES.items():
                runs = [measure([farwarp, 'doctor', '--json', *filter(None, [kind]), *options], environment) for _ in range(arguments.rounds)]
                worst, memory = max(run[0] for run in runs), max(run[1] for run in runs)
                met = worst < gate and memory < MAX_MEMORY
                good &= met
                print('| %s, %s | %.1f ms (%.1f) | %.1f MiB | under %g s and 40 MB: %s |' % (
                    kind or 'full', place, 1e3 * statistics.median(run[0] for run in runs), 1e3 * worst, memory / (1 << 20), gate,
                    'met' if met else 'missed'))
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
