#!/usr/bin/env python3
"""farwarp inspect on files made here, in TAP.

    test_inspect.py FARWARP FAKE_LIBCUDA
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from made import CC, RUNTIME, USER, Folder, entry, fatbin, ptx, sass, wheel  # noqa: E402

FARWARP, FAKE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
MACHINE = os.uname().machine
TESTS = []


class Skip(Exception):
    pass


def test(function):
    TESTS.append(function)
    return function


def expect(condition, *shown):
    if not condition:
        raise AssertionError(' '.join(str(s) for s in shown))


def run(*arguments, env=None, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('FARWARP', 'CUDA_', 'LD_'))}
    environment.update(env or {})
    return subprocess.run([FARWARP, 'inspect', *arguments], capture_output=True, text=True, env=environment, timeout=60, **options)


def inspect(path, *arguments, cc='9.0', env=None):
    """Verdict's id, exit code, report of the file."""
    done = run('--json', *(['--cc', cc] if cc else []), *arguments, path, env=env)
    expect(done.stdout, done.stderr)
    report = json.loads(done.stdout)['files'][0]
    return report['verdict']['id'], done.returncode, report


def verdict(path, *arguments, **options):
    return inspect(path, *arguments, **options)[:2]


# ---- libraries and symbols

@test
def seed_003_a_shim_without_the_versioned_symbol(f):
    f.library('real/libcudart.so.12', RUNTIME, version='libcudart.so.12')
    user = f.library('libggml-cuda.so', USER, f / 'real/libcudart.so.12', '-Wl,-rpath,$ORIGIN/shim')
    # A shim that has the version, but not for this symbol.
    f.write('half.map', 'libcudart.so.12 { global: cudaMalloc; local: *; };\n')
    f.compile('shim/libcudart.so.12', RUNTIME, '-shared', '-Wl,-soname,libcudart.so.12', '-Wl,--version-script,' + f / 'half.map')
    ident, code, report = inspect(user)
    expect((ident, code) == ('F07B', 1), ident, code)
    text = report['verdict']['text']
    expect(text.startswith('__cudaRegisterFatBinary@libcudart.so.12 missing in') and 'shim/libcudart.so.12' in text, text)
    expect('libcudart.so.12 { global: *; };' in report['verdict']['fix'], report['verdict']['fix'])
    wrong = [s for s in report['symbols'] if s['result'] != 'found']
    expect([(s['name'], s['version']) for s in wrong] == [('__cudaRegisterFatBinary', 'libcudart.so.12')], wrong)
    # The look-alike: the whole library in that place.
    shutil.copy(f / 'real/libcudart.so.12', f / 'shim/libcudart.so.12')
    expect(verdict(user) == ('OK', 0))


@test
def a_shim_without_the_version_at_all(f):
    f.library('real/libcudart.so.12', RUNTIME, version='libcudart.so.12')
    user = f.library('user.so', USER, f / 'real/libcudart.so.12', '-Wl,-rpath,$ORIGIN/shim')
    f.library('shim/libcudart.so.12', RUNTIME, version='libcudart.so.11.0')
    ident, code, report = inspect(user)
    expect((ident, code) == ('F07B', 1) and 'no version libcudart.so.12' in report['verdict']['text'], report['verdict'])
    # Symbols of no version where the library carries versions for others: taken by the loader, and no fault.
    f.write('other.map', 'libcudart.so.12 { global: other; };\n')
    f.compile('shim/libcudart.so.12', RUNTIME + 'void other(void); void other(void) {}\n', '-shared', '-Wl,-soname,libcudart.so.12',
              '-Wl,--version-script,' + f / 'other.map')
    expect(verdict(user) == ('OK', 0), inspect(user))


@test
def the_loader_agrees(f):
    """Each of these cases is also put to the real loader: it starts the program exactly if inspect says so."""
    main = 'int run(void);\nint main(void) { return run() < 0; }\n'
    f.library('real/libcudart.so.12', RUNTIME, version='libcudart.so.12')
    user = f.library('libuser.so', USER, f / 'real/libcudart.so.12', '-Wl,-rpath,$ORIGIN/shim')
    program = f.compile('program', main, user, '-Wl,-rpath,$ORIGIN', '-Wl,-z,now', '-Wl,-rpath-link,' + f / 'real')
    f.write('half.map', 'libcudart.so.12 { global: cudaMalloc; local: *; };\n')
    f.write('empty.map', 'libcudart.so.12 { global: nothing; };\n')
    cases = {'same': ['-Wl,--version-script,' + f / 'real/libcudart.so.12.map'], 'half': ['-Wl,--version-script,' + f / 'half.map'],
             'unversioned': [], 'bare': ['-nostdlib'], 'empty': ['-Wl,--version-script,' + f / 'empty.map']}
    for name, arguments in cases.items():
        f.compile('shim/libcudart.so.12', RUNTIME, '-shared', '-Wl,-soname,libcudart.so.12', *arguments)
        done = subprocess.run([program], capture_output=True, text=True, env={'LD_BIND_NOW': '1'}, timeout=20)
        ident, code, report = inspect(program)
        expect((done.returncode == 0) == (code == 0), name, done, ident, code, report['findings'])


@test
def libraries_are_searched_as_by_the_loader(f):
    main = 'int f(void);\nint main(void) { return f(); }\n'
    source = 'int f(void); int f(void) { return 0; }\n'
    for folder in ('a', 'b', 'c'):
        f.library(folder + '/libfound.so.1', source)
    cases = {
        'runpath': (['-Wl,--enable-new-dtags', '-Wl,-rpath,$ORIGIN/a'], {}, 'a'),
        'rpath': (['-Wl,--disable-new-dtags', '-Wl,-rpath,${ORIGIN}/a'], {'LD_LIBRARY_PATH': f / 'b'}, 'a'),
        'environment_first': (['-Wl,--enable-new-dtags', '-Wl,-rpath,$ORIGIN/a'], {'LD_LIBRARY_PATH': '%s:%s' % (f / 'none', f / 'b')}, 'b'),
        'nowhere': ([], {}, None),
    }
    for name, (arguments, env, where) in cases.items():
        program = f.compile(name, main, f / 'a/libfound.so.1', *arguments)
        ident, code, report = inspect(program, env=env)
        found = [l for l in report['libraries'] if l['name'] == 'libfound.so.1'][0]
        real = subprocess.run([program], capture_output=True, env={**env, 'LD_TRACE_LOADED_OBJECTS': '1'}, text=True, timeout=20).stdout
        line = [l for l in real.split('\n') if 'libfound' in l][0]
        if where:
            expect(os.path.realpath(found['path']) == os.path.realpath(f / where + '/libfound.so.1'), name, found)
            expect(os.path.realpath(line.split()[2]) == os.path.realpath(found['path']), name, line)
            expect(code == 0, name, report['findings'])
        else:
            expect(found['path'] is None and 'not found' in line and (ident, code) == ('I01', 1), name, found, ident)


@test
def a_search_that_would_take_for_ever_ends(f):
    """Many libraries times many folders: bounded, and told."""
    lib = f.library('x/libn0000.so', 'int d(void); int d(void) { return 0; }\n')
    user = f.library('user.so', 'int g(void); int g(void) { return 0; }\n', '-Wl,--no-as-needed', lib, '-Wl,-rpath,' + ':'.join(['/n'] * 30000))
    ident, code, report = inspect(user)
    expect(code == 1, report['verdict'])
    os.rename(user, f / 'libn0000.so')
    names = ['libm%04d.so' % n for n in range(40)]
    for name in names:
        shutil.copy(lib, f / name)
        subprocess.run([*CC, '-shared', '-fPIC', '-Wl,-soname,' + name, '-o', f / name, '-x', 'c', '/dev/null'], check=True, capture_output=True)
    user = f.library('many.so', 'int g(void); int g(void) { return 0; }\n', '-Wl,--no-as-needed', *[f / n for n in names], '-Wl,-rpath,' + ':'.join(['/n'] * 16000))
    _, _, report = inspect(user)
    expect(any(x['id'] == 'I05' for x in report['findings']), report['findings'])


@test
def one_file_at_two_places(f):
    """Package managers link environments' files to one copy: each has the $ORIGIN of its own path."""
    dependency = f.library('a/libdep.so.1', 'int d(void); int d(void) { return 0; }\n')
    f.library('a/user.so', 'int d(void); int g(void); int g(void) { return d(); }\n', dependency, '-Wl,-rpath,$ORIGIN')
    os.mkdir(f / 'b')
    os.link(f / 'a/user.so', f / 'b/user.so')
    _, _, report = inspect(f.path, '--all')
    states = {m['path'][-len('a/user.so'):]: m['verdict']['id'] for m in report['members']}
    expect(states['a/user.so'] == 'OK' and states['b/user.so'] == 'I01', states)


@test
def a_library_for_another_machine_is_passed_over(f):
    program = f.compile('program', 'int f(void);\nint main(void) { return f(); }\n', f.library('a/libfound.so.1', 'int f(void); int f(void) { return 0; }\n'),
                        '-Wl,-rpath,$ORIGIN/wrong:$ORIGIN/a')
    with open(f / 'a/libfound.so.1', 'rb') as stream:
        data = bytearray(stream.read())
    data[18:20] = struct.pack('<H', 40)
    f.write('wrong/libfound.so.1', bytes(data))
    expect(verdict(program) == ('OK', 0))
    os.remove(f / 'a/libfound.so.1')
    ident, code, report = inspect(program)
    expect((ident, code) == ('F07E', 1) and 'arm' in report['verdict']['text'], report['verdict'])
    expect(verdict(f / 'wrong/libfound.so.1') == ('F07E', 1))


@test
def cuda_libraries_that_are_missing_are_named_with_their_package(f):
    lib = f.library('x/libcublas.so.12', 'int cublasCreate_v2(void *p); int cublasCreate_v2(void *p) { return !p; }\n', version='libcublas.so.12')
    user = f.library('user.so', 'int cublasCreate_v2(void *); int g(void); int g(void) { return cublasCreate_v2(0); }\n', lib)
    ident, code, report = inspect(user)
    expect((ident, code) == ('F127', 1) and 'pip install nvidia-cublas-cu12' in report['verdict']['fix'], report['verdict'])


@test
def ld_library_path_that_shadows_the_right_library(f):
    f.library('wheel/libnvJitLink.so.12', 'int __nvJitLinkComplete_12_4(void); int __nvJitLinkComplete_12_4(void) { return 0; }\n', version='libnvJitLink.so.12')
    f.library('toolkit/libnvJitLink.so.12', 'int __nvJitLinkComplete_12_1(void); int __nvJitLinkComplete_12_1(void) { return 0; }\n', version='libnvJitLink.so.12')
    user = f.library('libcusparse.so.12', 'int __nvJitLinkComplete_12_4(void); int g(void); int g(void) { return __nvJitLinkComplete_12_4(); }\n',
                     f / 'wheel/libnvJitLink.so.12', '-Wl,-rpath,$ORIGIN/wheel')
    ident, code, report = inspect(user, env={'LD_LIBRARY_PATH': f / 'toolkit'})
    expect((ident, code) == ('F07A', 1) and 'LD_LIBRARY_PATH' in report['verdict']['fix'], report['verdict'])
    expect(verdict(user) == ('OK', 0))


@test
def glibc_that_is_too_old(f):
    libc = f.library('fake/libc.so.6', 'int brand_new(void); int brand_new(void) { return 0; }\n', '-nostdlib', version='GLIBC_2.99')
    user = f.library('user.so', 'int brand_new(void); int g(void); int g(void) { return brand_new(); }\n', '-nostdlib', libc)
    ident, code, report = inspect(user)
    expect((ident, code) == ('F07C', 1) and 'needs GLIBC_2.99' in report['verdict']['text'], report['verdict'])
    expect(report['elf']['glibc'] == 'GLIBC_2.99', report['elf'])


@test
def a_program_for_musl(f):
    program = f.compile('program', 'int main(void) { return 0; }\n', '-Wl,--dynamic-linker=/lib/ld-musl-none.so.1')
    ident, code, report = inspect(program)
    expect((ident, code) == ('F07C', 1) and 'musl' in report['verdict']['fix'], report['verdict'])


@test
def the_two_string_abis(f):
    if not shutil.which('c++'):
        raise Skip('no C++ compiler')
    source = '#include <string>\nstd::string name(const std::string &s) { return s + "x"; }\n'
    lib = f.library('libtorch.so', source, language='cc', before=['-D_GLIBCXX_USE_CXX11_ABI=0'])
    user = f.library('ext.so', '#include <string>\nstd::string name(const std::string &);\nint g() { return (int)name("a").size(); }\n', '-Wl,--no-as-needed', lib,
                     '-Wl,-rpath,$ORIGIN', '-Wl,--unresolved-symbols=ignore-all', language='cc')
    ident, code, report = inspect(user)
    expect((ident, code) == ('F07D', 1) and '_GLIBCXX_USE_CXX11_ABI' in report['verdict']['fix'], report['verdict'])
    f.library('libtorch.so', source, language='cc')
    expect(verdict(user) == ('OK', 0))


@test
def a_program_without_its_symbols_and_a_plugin_that_gets_them_elsewhere(f):
    lib = f.library('libf.so', 'int f(void); int f(void) { return 0; }\nint h(void); int h(void) { return 0; }\n')
    program = f.compile('program', 'int f(void);\nint h(void);\nint main(void) { return f() + h(); }\n', lib, '-Wl,-rpath,$ORIGIN')
    plugin = f.library('plugin.so', 'int host_callback(void); int g(void); int g(void) { return host_callback(); }\n')
    f.library('libf.so', 'int f(void); int f(void) { return 0; }\n')
    expect(verdict(program) == ('I03', 1))
    ident, code, report = inspect(plugin)
    expect((ident, code) == ('OK', 0) and 'host_callback' in report['findings'][0]['text'], report['findings'])


# ---- driver

DLOPEN = '#include <dlfcn.h>\nvoid *g(void); void *g(void) { return dlopen("libcuda.so.1", RTLD_NOW); }\n'


@test
def how_the_driver_is_found(f):
    user = f.library('user.so', DLOPEN, '-Wl,-rpath,$ORIGIN/drv')
    ident, code, report = inspect(user, cc=None)
    if report['driver']['path'] is None:
        expect((ident, code) == ('F070', 1) and 'farwarp run' in report['verdict']['fix'], report['verdict'])
    expect(report['driver']['named'] and not report['driver']['linked'], report['driver'])
    os.mkdir(f / 'drv')
    shutil.copy(FAKE, f / 'drv/libcuda.so.1')
    ident, code, report = inspect(user, cc=None)
    expect((ident, code, report['driver']['how']) == ('OK', 0, 'RUNPATH'), report)
    linked = f.library('linked.so', 'int cuInit(unsigned); int g(void); int g(void) { return cuInit(0); }\n', f / 'drv/libcuda.so.1')
    ident, code, report = inspect(linked, cc=None, env={'LD_LIBRARY_PATH': f / 'drv'})
    expect(code == 0, report['verdict'])


@test
def a_driver_without_a_call_that_is_needed(f):
    driver = f.library('drv/libcuda.so.1', 'int cuInit(unsigned f); int cuInit(unsigned f) { return (int)f; }\n')
    user = f.library('user.so', 'int cuInit(unsigned); int cuBrandNew(void); int g(void); int g(void) { return cuInit(0) + cuBrandNew(); }\n',
                     driver)
    ident, code, report = inspect(user, env={'LD_LIBRARY_PATH': f / 'drv'})
    expect((ident, code) == ('F079', 1) and 'cuBrandNew' in report['verdict']['text'], report['verdict'])


@test
def the_toolkit_stub_in_place_of_the_driver(f):
    os.makedirs(f / 'stubs')
    shutil.copy(FAKE, f / 'stubs/libcuda.so.1')
    ident, code, report = inspect(f.library('user.so', DLOPEN), env={'LD_LIBRARY_PATH': f / 'stubs'})
    expect((ident, code) == ('F072', 1), report['verdict'])


# ---- kernels

def with_kernels(f, *fatbins, name='k.so'):
    return f.library(name, 'int g(void); int g(void) { return 0; }\n', fatbins=fatbins)


@test
def kernels_and_devices(f):
    cases = [
        # entries, device, id, code
        ([sass(80), ptx(80)], '8.0', 'OK', 0), ([sass(80), ptx(80)], '8.6', 'OK', 0), ([sass(80)], '9.0', 'F097', 1), ([sass(86)], '8.0', 'F097', 1),
        ([ptx(80)], '12.0', 'OK', 0), ([ptx(90)], '8.9', 'F097', 1), ([sass(90, 'a')], '9.0', 'OK', 0), ([sass(90, 'a')], '8.9', 'F097', 1),
        ([ptx(90, suffix='a')], '10.0', 'F097', 1), ([sass(100, 'f')], '10.3', 'OK', 0), ([sass(100, 'f')], '12.0', 'F097', 1),
        ([sass(100, 'a')], '10.3', 'F097', 1), ([ptx(100, suffix='f')], '10.3', 'OK', 0), ([ptx(100, suffix='f')], '12.0', 'F097', 1),
    ]
    for number, (entries, cc, ident, code) in enumerate(cases):
        got = verdict(with_kernels(f, fatbin(*entries), name='k%d.so' % number), cc=cc)
        expect(got == (ident, code), number, cc, got)


@test
def kernels_are_listed(f):
    path = with_kernels(f, fatbin(sass(80), sass(90, 'a'), ptx(90, (8, 4))), bytes(24), fatbin(sass(80), ptx(70, (7, 0))))
    _, _, report = inspect(path)
    archs = {(a['arch'], a['kind'], a['count'], a['isa']) for a in report['kernels']['archs']}
    expect(archs == {('sm_80', 'sass', 2, None), ('sm_90a', 'sass', 1, None), ('compute_70', 'ptx', 1, '7.0'), ('compute_90', 'ptx', 1, '8.4')}, archs)
    expect(report['kernels']['modules'] == 2 and report['kernels']['toolkit'] == '12.4', report['kernels'])
    expect(report['kernels']['coverage'] == {'sass': 1, 'ptx': 1, 'ptx_too_new': 0, 'none': 0}, report['kernels'])
    expect('2 modules' in run('--cc', '9.0', path).stdout)


@test
def kernels_in_data(f):
    """cuFFT and others keep fat binaries in sections of their own and load them by themselves."""
    blob = f.write('blob', b'abcd' * 2 + fatbin(sass(90)) + bytes(8) + fatbin(ptx(90))[:16] + b'\xff' * 64 + fatbin(sass(90), ptx(75)))
    source = '__asm__(".section .ldata,\\"aw\\"\\n.p2align 3\\n.incbin \\"%s\\"\\n.text\\n");\nint g(void); int g(void) { return 0; }\n' % blob
    path = f.library('k.so', source, fatbins=[fatbin(sass(75))])
    ident, code, report = inspect(path)
    expect((ident, code) == ('OK', 0) and report['kernels']['modules'] == 3 and report['kernels']['embedded'] == 2, report['kernels'])
    expect(report['kernels']['coverage'] == {'sass': 2, 'ptx': 0, 'ptx_too_new': 0, 'none': 1}, report['kernels'])


@test
def plugins_that_need_what_is_not_installed(f):
    fabric = f.library('x/libfabric.so.1', 'int fi(void); int fi(void) { return 0; }\n')
    source = 'int fi(void); int g(void); int g(void) { return fi(); }\n'
    expect(verdict(f.library('nvshmem_transport_libfabric.so', source, fabric)) == ('OK', 0))
    expect(verdict(f.library('user.so', source, fabric)) == ('I01', 1))


@test
def ptx_that_is_too_new_for_the_driver(f):
    path = with_kernels(f, fatbin(ptx(80, (8, 7))))
    ident, code, report = inspect(path, '--cuda', '12.4')
    expect((ident, code) == ('F098', 1) and '12.8' in report['verdict']['text'], report['verdict'])
    expect(verdict(path, '--cuda', '12.8') == ('OK', 0))


@test
def a_driver_that_fails_or_crashes_is_a_reason(f):
    os.mkdir(f / 'drv')
    shutil.copy(FAKE, f / 'drv/libcuda.so.1')
    path = with_kernels(f, fatbin(sass(80)))
    for script, words in (('init=802', 'cuInit answers 802'), ('crash=1', 'crashed (signal 11)'), ('count=0', 'shows no GPU')):
        ident, code, report = inspect(path, cc=None, env={'LD_LIBRARY_PATH': f / 'drv', 'FAKE_CUDA': script})
        expect((ident, code) == ('I06', 2) and words in report['verdict']['text'], script, report['verdict'])


def cubin(arch):
    """An ELF file for CUDA without kernels, in the style of CUDA 13."""
    names = b'\0.shstrtab\0'
    header = b'\x7fELF\2\1\1\x41\x08' + bytes(7) + struct.pack('<HHIQQQIHHHHHH', 2, 190, 1, 0, 0, 80, 0x06000004 | arch << 8, 64, 0, 0, 64, 2, 1)
    return header + names + bytes(16 - len(names)) + bytes(64) + struct.pack('<IIQQQQIIQQ', 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)


@test
def cubins(f):
    path = f.write('k.cubin', cubin(86))
    expect(verdict(path, cc='8.9') == ('OK', 0), inspect(path, cc='8.9'))
    expect(verdict(path, cc='8.0') == ('F097', 1) and verdict(path, cc='9.0') == ('F097', 1))
    expect(verdict(f.write('cut.cubin', cubin(86)[:-20]), cc='8.9')[1] == 1)


@test
def modules_without_anything_in_them_need_no_gpu(f):
    path = with_kernels(f, fatbin(entry(2, 75, cubin(75), (8, 1))))
    ident, code, report = inspect(path)
    expect((ident, code) == ('OK', 0) and report['kernels']['empty'] == 1 and report['kernels']['modules'] == 0, report['kernels'])


@test
def a_root_that_is_elsewhere(f):
    """An unpacked image: folders, links from its "/" and what is missing are its own."""
    lib = f.library('root/opt/real/libcudart.so.12', RUNTIME, version='libcudart.so.12')
    f.library('root/app/user.so', USER, '-nostdlib', lib, '-Wl,-rpath,/opt/link')
    os.symlink('/opt/real', f / 'root/opt/link')
    ident, code, report = inspect('/app/user.so', '--root', f / 'root')
    found = [l for l in report['libraries'] if l['name'] == 'libcudart.so.12']
    expect(found and found[0]['path'] == '/opt/link/libcudart.so.12' and found[0]['how'] == 'RUNPATH', report)
    os.remove(f / 'root/opt/link')
    expect(verdict('/app/user.so', '--root', f / 'root') == ('F127', 1))


@test
def a_fat_binary_that_lies(f):
    good = fatbin(sass(80))
    path = with_kernels(f, good[:8] + struct.pack('<Q', 1 << 40) + good[16:])
    ident, code, report = inspect(path)
    expect((ident, code) == ('F096', 1) and 'claims' in report['verdict']['text'], report['verdict'])


@test
def without_a_device_kernels_are_not_judged(f):
    path = with_kernels(f, fatbin(sass(80)))
    done = run(path, env={'LD_LIBRARY_PATH': f.path})
    if 'no NVIDIA driver' not in done.stdout:
        raise Skip('there is a driver here')
    expect(done.returncode == 2 and done.stdout.startswith('I06 k.so: its kernels ( sm_80 )'), done)


# ---- wheels

@test
def seed_004_a_wheel_with_no_kernels(f):
    files = {'robocache/__init__.py': 'from .ops import resample\n',
             'robocache/ops.py': 'try:\n    from robocache import _cuda_ops, _cutlass_ops as fast\nexcept ImportError:\n    _cuda_ops = None\n'
                                 'from . import _multimodal_ops\ndef resample():\n    pass\n'}
    path = wheel(f / 'robocache-1.0.0-py3-none-any.whl', files, 'robocache', '1.0.0', metadata='Requires-Dist: torch>=2.0\n')
    ident, code, report = inspect(path)
    expect((ident, code) == ('F122', 1), report['verdict'])
    absent = {a.split()[0] for a in report['wheel']['absent_modules']}
    expect(absent == {'robocache._cuda_ops', 'robocache._cutlass_ops', 'robocache._multimodal_ops'}, absent)
    expect(report['wheel']['libraries'] == 0 and 'unzip -l' in report['verdict']['fix'], report)
    expect(run(path).stdout.startswith('F122 robocache-1.0.0-py3-none-any.whl: a wheel without native code: no .so among'), run(path).stdout)
    # With them in it, it is fine.
    for name in ('_cuda_ops', '_cutlass_ops', '_multimodal_ops'):
        library = with_kernels(f, fatbin(sass(90)), name=name + '.so')
        with open(library, 'rb') as stream:
            files['robocache/%s.cpython-311-x86_64-linux-gnu.so' % name] = stream.read()
    path = wheel(f / 'robocache-1.0.1-py3-none-linux_%s.whl' % MACHINE, files, 'robocache', '1.0.1', purelib=False,
                 metadata='Requires-Dist: torch>=2.0\n')
    ident, code, report = inspect(path)
    expect((ident, code) == ('OK', 0) and report['wheel']['with_kernels'] == 3, report)
    expect(verdict(path, cc='8.0') == ('F097', 1))


@test
def wheels_that_hold_no_kernels_and_are_right(f):
    pure = {'demo/__init__.py': 'from . import _util\n_ops = 1\n', 'demo/_util.py': '', 'demo/a.py': 'from demo import _ops\nimport other._C\n'}
    cases = [
        wheel(f / 'demo-1.0-py3-none-any.whl', pure),
        wheel(f / 'cuda_demo-1.0-py3-none-any.whl', pure, 'cuda_demo', metadata='Summary: CUDA helpers\nRequires-Dist: nvidia-cublas-cu12\n'),
        # Headers only, tagged for a platform: as nvidia-cuda-cccl is.
        wheel(f / 'nvidia_cuda_cccl-1.0-py3-none-manylinux2014_%s.whl' % MACHINE, {'nvidia/include/a.h': '', 'nvidia/__init__.py': ''}, 'nvidia_cuda_cccl'),
        # Sources that are compiled when used.
        wheel(f / 'jit_gpu-1.0-py3-none-any.whl', {'jit_gpu/__init__.py': 'x = 1\n', 'jit_gpu/k.cu': ''}, 'jit_gpu'),
        # Only requirements.
        wheel(f / 'meta_cuda-1.0-py3-none-any.whl', {}, 'meta_cuda', metadata='Requires-Dist: nvidia-nccl-cu12\n'),
    ]
    for path in cases:
        ident, code, report = inspect(path)
        expect((ident, code) == ('OK', 0), path, report['findings'])


@test
def wheels_that_claim_to_be_native_and_are_not(f):
    pure = {'demo/__init__.py': 'x = 1\n'}
    expect(verdict(wheel(f / 'demo-1.0-py3-none-any.whl', pure, purelib=False)) == ('F122', 1))
    expect(verdict(wheel(f / 'demo-1.1-cp39-abi3-linux_%s.whl' % MACHINE, pure, version='1.1')) == ('F122', 1))


@test
def tags_of_wheels(f):
    with open(with_kernels(f, fatbin(sass(90)), name='native.so'), 'rb') as stream:
        files = {'demo/native.so': stream.read()}
    other = 'aarch64' if MACHINE == 'x86_64' else 'x86_64'
    cases = [('py3-none-manylinux_2_17_' + MACHINE, 'OK'), ('py3-none-manylinux_2_99_' + MACHINE, 'F07C'), ('py3-none-manylinux2014_' + other, 'F07E'),
             ('py3-none-win_amd64', 'F07E'), ('py3-none-musllinux_1_2_' + MACHINE, 'F07C'), ('py2-none-linux_' + MACHINE, 'I08'),
             ('cp312-cp312-linux_' + MACHINE, 'I08'), ('cp311-cp311-linux_' + MACHINE, 'OK'), ('cp39-abi3-linux_' + MACHINE, 'OK'),
             ('cp312-abi3-linux_' + MACHINE, 'I08'), ('py2.py3-none-manylinux1_%s.manylinux_2_99_%s' % (MACHINE, MACHINE), 'OK')]
    os.makedirs(f / 'env/lib/python3.11/site-packages')
    for tag, ident in cases:
        path = wheel(f / ('demo-1.0-%s.whl' % tag), files, purelib=False, tags=(tag,))
        got, _, report = inspect(path, '--python', f / 'env')
        expect(got == ident, tag, got, report['findings'])


@test
def libraries_of_a_wheel_find_each_other(f):
    runtime = f.library('libcudart.so.12', RUNTIME, version='libcudart.so.12')
    user = f.library('user.so', USER, runtime, '-Wl,-rpath,$ORIGIN/../libs:$ORIGIN/../nvidia/cuda_runtime/lib')
    with open(runtime, 'rb') as a, open(user, 'rb') as b:
        runtime, user = a.read(), b.read()
    tag = 'py3-none-linux_' + MACHINE
    inside = wheel(f / ('demo-1.0-%s.whl' % tag), {'demo/user.so': user, 'libs/libcudart.so.12': runtime}, purelib=False, tags=(tag,))
    ident, code, report = inspect(inside)
    expect((ident, code) == ('OK', 0), report['findings'])
    paths = [l['path'] for m in report['members'] for l in m['libraries'] if l['name'] == 'libcudart.so.12']
    expect(paths and paths[0].startswith('wheel:'), paths)
    required = wheel(f / ('demo-1.1-%s.whl' % tag), {'demo/user.so': user}, version='1.1', purelib=False, tags=(tag,),
                     metadata='Requires-Dist: nvidia-cuda-runtime-cu12\n')
    ident, code, report = inspect(required)
    expect((ident, code) == ('OK', 0) and 'nvidia-cuda-runtime-cu12' in report['members'][0]['findings'][0]['text'], report)
    nothing = wheel(f / ('demo-1.2-%s.whl' % tag), {'demo/user.so': user}, version='1.2', purelib=False, tags=(tag,))
    ident, code, report = inspect(nothing, env={'LD_LIBRARY_PATH': '/nonexistent'})
    if not any(l['path'] for l in report['members'][0]['libraries'] if l['name'] == 'libcudart.so.12'):
        expect((ident, code) == ('F127', 1), report)


@test
def torch_for_the_cpu_only(f):
    path = wheel(f / 'torch-2.5.0+cpu-py3-none-any.whl', {'torch/__init__.py': ''}, 'torch', '2.5.0+cpu')
    expect(verdict(path) == ('F120', 1))


@test
def an_installed_distribution_without_its_kernels(f):
    info = 'env/site-packages/robo-1.0.dist-info/'
    f.write(info + 'METADATA', 'Name: robo\nVersion: 1.0\nRequires-Dist: torch\n')
    f.write(info + 'WHEEL', 'Root-Is-Purelib: true\nTag: py3-none-any\n')
    f.write(info + 'RECORD', 'robo/__init__.py,sha256=x,1\n')
    f.write('env/site-packages/robo/__init__.py', 'from robo._C import f\n')
    expect(verdict(f / 'env') == ('F122', 1), inspect(f / 'env'))


# ---- archives that lie

def patch(path, change):
    with open(path, 'rb') as stream:
        data = bytearray(stream.read())
    change(data)
    with open(path, 'wb') as stream:
        stream.write(data)


@test
def archives_that_lie(f):
    def make(name, files=None, method=zipfile.ZIP_DEFLATED):
        return wheel(f / name, files or {'demo/a.py': 'x = 1\n' * 50, 'demo/b.bin': bytes(5000)}, method=method)

    def directory(data):
        return struct.unpack_from('<I', data, len(data) - 6)[0]

    def refused(path, words):
        ident, code, report = inspect(path)
        expect((ident, code) == ('I04', 1) and words in report['verdict']['text'], path, report['verdict'])

    for name, words in (('../evil.py', 'leads out'), ('/etc/evil.py', 'absolute'), ('a/../../b', 'leads out'), ('C:/x', 'absolute'), ('a\\b', 'backslash')):
        # zipfile itself cleans some names: written behind its back
        path = make('name.whl', {'n' * len(name): 'x'})
        patch(path, lambda data: data.__setitem__(slice(None), data.replace(b'n' * len(name), name.encode())))
        refused(path, words)
    path = make('bomb.whl')
    patch(path, lambda d: struct.pack_into('<I', d, directory(d) + 24, 0x7fffffff))
    refused(path, 'bomb')
    path = make('size.whl')
    patch(path, lambda d: struct.pack_into('<I', d, directory(d) + 24, 301))
    expect(verdict(path)[1] == 0, inspect(path))  # a text that is not needed is not an error of the archive
    path = make('crossing.whl')
    patch(path, lambda d: struct.pack_into('<I', d, directory(d) + 20, 4000))
    refused(path, 'bytes')
    path = make('count.whl')
    patch(path, lambda d: struct.pack_into('<HH', d, len(d) - 14, 2, 2))
    refused(path, 'more than its 2 entries')
    path = make('crypt.whl')
    patch(path, lambda d: struct.pack_into('<H', d, directory(d) + 8, 1))
    refused(path, 'encrypted')
    path = make('method.whl')
    patch(path, lambda d: struct.pack_into('<H', d, directory(d) + 10, 93))
    refused(path, 'method 93')
    path = make('local.whl')
    patch(path, lambda d: d.__setitem__(30, ord('X')))
    refused(path, 'do not say the same')
    path = f / 'twice.whl'
    with zipfile.ZipFile(path, 'w') as out:
        out.writestr('a', '1')
        out.writestr('b', '2')
    patch(path, lambda d: d.__setitem__(slice(None), d.replace(b'b', b'a')))
    refused(path, 'two members')
    path = make('short.whl')
    patch(path, lambda d: d.__delitem__(slice(len(d) - 30, None)))
    refused(path, 'no end record')
    f.write('empty.whl', '')
    refused(f / 'empty.whl', 'too short')


@test
def two_members_in_the_same_bytes(f):
    path = f / 'same.whl'
    with zipfile.ZipFile(path, 'w') as out:
        out.writestr('aa', 'x' * 100)
        out.writestr('bb', 'y' * 100)
    def overlap(data):
        where = struct.unpack_from('<I', data, len(data) - 6)[0]
        second = where + 46 + 2
        struct.pack_into('<I', data, second + 42, 0)
        data[second + 46:second + 48] = b'aa'
    patch(path, overlap)
    ident, code, report = inspect(path)
    expect((ident, code) == ('I04', 1), report['verdict'])


@test
def a_library_in_a_wheel_whose_bytes_do_not_fit_their_checksum(f):
    tag = 'py3-none-linux_' + MACHINE
    path = wheel(f / ('demo-1.0-%s.whl' % tag), {'demo/b.so': b'\x7fELF' + bytes(5000)}, tags=(tag,))
    patch(path, lambda d: struct.pack_into('<I', d, struct.unpack_from('<I', d, len(d) - 6)[0] + 16, 1))
    ident, code, report = inspect(path)
    expect((ident, code) == ('I04', 1) and 'checksum' in report['verdict']['text'], report['verdict'])


# ---- folders, processes, the command line

@test
def folders(f):
    os.makedirs(f / 'tree/deep')
    good = with_kernels(f, fatbin(sass(90)), name='tree/deep/good.so')
    f.compile('tree/plain', 'int main(void) { return 0; }\n')
    os.symlink('..', f / 'tree/deep/up')
    f.write('tree/text.txt', 'text')
    ident, code, report = inspect(f / 'tree')
    expect((ident, code) == ('OK', 0) and [m['path'] for m in report['members']] == [os.path.realpath(good)] and report['others'] == 1, report)
    expect(verdict(f / 'tree', cc='8.0') == ('F097', 1))
    os.makedirs(f / 'nothing')
    expect(verdict(f / 'nothing')[1] == 2)


@test
def a_running_process(f):
    runtime = f.library('libcudart.so.12', RUNTIME, version='libcudart.so.12', fatbins=[fatbin(sass(90))])
    program = f.compile('program', '#include <unistd.h>\nint cudaMalloc(void **, long);\nint main(void) { cudaMalloc(0, 0); write(1, "x", 1); pause(); }\n',
                        runtime, '-Wl,-rpath,$ORIGIN')
    process = subprocess.Popen([program], stdout=subprocess.PIPE)
    try:
        process.stdout.read(1)
        ident, code, report = inspect(str(process.pid))
        expect((ident, code, report['kind']) == ('OK', 0, 'process'), report)
        expect(os.path.realpath(runtime) in [os.path.realpath(m['path']) for m in report['members']], report['members'])
        expect(verdict(str(process.pid), cc='8.0') == ('F097', 1))
    finally:
        process.kill()
        process.wait()
    expect(verdict('999999999')[1] == 2)


@test
def nothing_is_executed(f):
    mark = f / 'mark'
    source = '#include <fcntl.h>\n__attribute__((constructor)) static void run(void) { open("%s", O_CREAT | O_WRONLY, 0600); }\n' % mark
    library = f.library('libcudart.so.12', source + RUNTIME, version='libcudart.so.12')
    program = f.compile('program', USER + source.replace('run(void)', 'begin(void)') + 'int main(void) { return 0; }\n', library, '-Wl,-rpath,$ORIGIN')
    inspect(program)
    inspect(f.path)
    expect(not os.path.exists(mark), 'it was executed')


@test
def the_report_begins_with_the_cause(f):
    path = with_kernels(f, fatbin(sass(80)))
    first = run('--cc', '9.0', path).stdout.split('\n')[0]
    expect(first.startswith('F097 k.so: no kernel for sm_90; it has sm_80') and '\033' not in first, first)


@test
def wrong_usage(f):
    for bad in ([], ['--cc', 'x', '/bin/sh'], ['--cuda', '12.4', '/bin/sh'], ['--nonsense']):
        expect(run(*bad).returncode == 64, bad)
    expect(run('/nonexistent').returncode == 2)
    f.write('script', '#!/bin/sh\n')
    expect(run(f / 'script').returncode == 2)


def main():
    print('1..%d' % len(TESTS))
    for number, function in enumerate(TESTS, 1):
        name = function.__name__
        try:
            if not shutil.which(CC[0]):
                raise Skip('no C compiler')
            with tempfile.TemporaryDirectory() as path:
                function(*([Folder(path)] if function.__code__.co_argcount else []))
            print('ok %d - %s' % (number, name), flush=True)
        except Skip as reason:
            print('ok %d - %s # SKIP %s' % (number, name, reason), flush=True)
        except subprocess.CalledProcessError as error:
            print('# %s\nnot ok %d - %s' % (error.stderr.decode()[:1500].replace('\n', '\n# '), number, name), flush=True)
        except Exception as error:  # a failure of any kind is this test's
            print('# ' + repr(error)[:1500].replace('\n', '\n# '))
            print('not ok %d - %s' % (number, name), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
