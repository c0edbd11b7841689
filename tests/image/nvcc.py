#!/usr/bin/env python3
"""What nvcc makes, read back: every compression, architectures with suffixes, -G, relocatable code, objects, archives.

    nvcc.py DUMP        TAP on stdout; skipped where there is no nvcc
"""
import os
import shutil
import subprocess
import sys
import tempfile

SOURCE = '''
struct S { char c[40]; };
__device__ int g[10]; __constant__ float cc[4]; __managed__ int m;
extern "C" __global__ void k1(float *p, int i, char c, S s) { if (i < 10) p[threadIdx.x] = g[i] + cc[i & 3] + s.c[3] + m; }
extern "C" __global__ void kb(int2 a, double b, void *p, char3 c) { *(double *)p = a.x + b + c.z; }
'''
KERNELS = ('kernel k1 params 4 bytes 53: 0+8 8+4 12+1 13+40', 'kernel kb params 4 bytes 27: 0+8 8+8 16+8 24+3')
GLOBALS = ('global g 40', 'global cc 16', 'global m 4 managed')
ENTRIES = ('.visible .entry k1', '.visible .entry kb')


def gencode(*pairs):
    return [word for virtual, code in pairs for word in ('-gencode', 'arch=%s,code=[%s]' % (virtual, code))]


BOTH = gencode(('compute_86', 'sm_86,compute_86'))
# name, nvcc's options, output, lines that must be there, lines that must not
CASES = [
    ('compress-' + mode, ['-fatbin', '--compress-mode=' + mode] + BOTH, 'x.fatbin',
     ('length true', 'cubin sm_86', packed) + KERNELS + GLOBALS + ENTRIES, ('error',))
    for mode, packed in [('default', 'entry kind 1 arch 86 version PTX zstd'), ('balance', 'entry kind 1 arch 86 version PTX zstd'),
                         ('size', 'entry kind 2 arch 86 version 18 zstd'), ('speed', 'entry kind 1 arch 86 version PTX lz4'),
                         ('none', 'entry kind 1 arch 86 version PTX raw')]
] + [
    ('suffixes', ['-fatbin'] + gencode(('compute_90a', 'sm_90a,compute_90a'), ('compute_100f', 'sm_100f,compute_100f'),
                                       ('compute_120', 'sm_120,compute_120')), 'x.fatbin',
     ('entry kind 2 arch 90a', 'entry kind 1 arch 90a', 'entry kind 2 arch 100f', 'entry kind 1 arch 100f',
      'entry kind 1 arch 120 ', 'cubin sm_90', 'cubin sm_100', 'cubin sm_120', '.target sm_100f') + KERNELS, ('error',)),
    ('debug', ['-fatbin', '-G'] + BOTH, 'x.fatbin', ('entry kind 1 arch 86 version PTX zstd debug 1 name x.cu',) + KERNELS, ('error',)),
    ('relocatable', ['-fatbin', '-rdc=true'] + BOTH, 'x.fatbin', ('cubin sm_86 relocatable',) + ENTRIES, ('error',)),
    ('cubin', ['-cubin', '-arch=sm_75'], 'x.cubin', ('length true', 'cubin sm_75') + KERNELS + GLOBALS, ('error',)),
    ('ptx', ['-ptx', '-arch=compute_75'], 'x.ptx', ('length true', '.target sm_75') + ENTRIES, ('error',)),
    ('object', ['-c'] + BOTH, 'x.o', ('fatbin of', 'cubin sm_86') + KERNELS + ENTRIES, ('error',)),
    ('relocatable-object', ['-c', '-rdc=true'] + BOTH, 'x.o', ('fatbin of', 'cubin sm_86 relocatable') + ENTRIES, ('error',)),
    ('archive', ['-lib', '-rdc=true'] + BOTH, 'x.a', ('fatbin of', 'cubin sm_86 relocatable') + ENTRIES, ('error',)),
]


def ptx_version(nvcc, folder):
    subprocess.run([nvcc, '-ptx', '-arch=compute_86', 'x.cu', '-o', 'v.ptx'], cwd=folder, check=True)
    for line in open(os.path.join(folder, 'v.ptx')):
        if line.startswith('.version'):
            return line.split()[1].replace('.', '')
    return '?'


def run(nvcc, dump, folder, case, version):
    name, options, output, wanted, unwanted = case
    made = subprocess.run([nvcc] + options + ['x.cu', '-o', output], cwd=folder, capture_output=True, text=True)
    if made.returncode:
        return 'nvcc refuses: ' + made.stderr.strip()[:200], None
    found = subprocess.run([dump, output], cwd=folder, capture_output=True, text=True)
    text = found.stdout
    missing = [w for w in wanted if w.replace('PTX', version) not in text] + ['(not) ' + w for w in unwanted if w in text]
    if found.returncode:
        missing.append('exit status %d' % found.returncode)
    return None, missing and 'missing %s in:\n%s' % (missing, text)


def main():
    nvcc = shutil.which('nvcc') or ('' if os.environ.get('FARWARP_NO_TOOLKIT') else '/usr/local/cuda/bin/nvcc')
    if not os.path.exists(nvcc):
        print('1..0 # SKIP no nvcc')
        return
    print('1..%d' % len(CASES), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, 'x.cu'), 'w').write(SOURCE)
        version = ptx_version(nvcc, folder)
        for number, case in enumerate(CASES, 1):
            skipped, wrong = run(nvcc, os.path.abspath(sys.argv[1]), folder, case, version)
            if wrong:
                print('# ' + wrong.replace('\n', '\n# '))
            print('%sok %d - %s%s' % ('not ' if wrong else '', number, case[0], ' # SKIP ' + skipped if skipped else ''), flush=True)


main()
