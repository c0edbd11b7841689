#!/usr/bin/env python3
"""The table and its generator: TAP on stdout.

    test_table.py SOURCE_ROOT LIBRARY GEN_DIR [CC...]

Compares the table with its goldens, the library with the table, the pages of docs/ with table and source; checks that bad tables
are refused with their line, that the generated C compiles strictly with each compiler, and, where a CUDA toolkit is
installed, that names, versions, prototypes, sizes and constants are those of its headers.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT, LIBRARY, GEN, COMPILERS = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
TOOL = os.path.join(ROOT, 'api', 'gen.py')
GOLDEN = os.path.join(ROOT, 'tests', 'golden')
STRICT = ['-std=gnu17', '-Wall', '-Wextra', '-Wstrict-prototypes', '-Wno-unused-parameter', '-Werror', '-fsyntax-only']


class Skip(Exception):
    pass


def gen(*args):
    return subprocess.run([sys.executable, TOOL] + list(args), capture_output=True, text=True)


def lines_of(path):
    return open(path, encoding='utf-8').read().splitlines()


def same(got, want, what):
    """Fails with the first differences of two lists of lines."""
    if got == want:
        return
    missing = [x for x in want if x not in set(got)][:8]
    added = [x for x in got if x not in set(want)][:8]
    raise AssertionError('%s differ: missing %s, added %s' % (what, missing, added))


def compile_c(compiler, text, *flags):
    with tempfile.NamedTemporaryFile('w', suffix='.c') as source:
        source.write(text)
        source.flush()
        return subprocess.run(compiler.split() + list(flags) + ['-x', 'c', source.name], capture_output=True, text=True)


def toolkit():
    for folder in [] if os.environ.get('FARWARP_NO_TOOLKIT') else [os.environ.get('CUDA_HOME', ''), '/usr/local/cuda', '/usr']:
        include = os.path.join(folder, 'include')
        if folder and os.path.exists(os.path.join(include, 'cudaTypedefs.h')):
            text = open(os.path.join(include, 'cuda.h'), encoding='utf-8', errors='replace').read()
            version = re.search(r'#define CUDA_VERSION (\d+)', text)
            if not version or version.group(1) != '13000':
                raise Skip('the toolkit in %s is %s, the table is 13000' % (folder, version and version.group(1)))
            return folder
    raise Skip('no CUDA toolkit')


# ---- goldens -------------------------------------------------------------------------------------------------------

def exports_equal_golden():
    same(gen('--exports').stdout.splitlines(), lines_of(os.path.join(GOLDEN, 'exports.txt')), 'exports')


def procs_equal_golden():
    same(gen('--procs').stdout.splitlines(), lines_of(os.path.join(GOLDEN, 'procs.txt')), 'rows')


def defined_symbols(path):
    out = subprocess.run(['nm', '-D', '--defined-only', path], capture_output=True, text=True, check=True).stdout
    return sorted(line.split()[-1] for line in out.splitlines())


def library_exports_the_table_and_nothing_else():
    same(defined_symbols(LIBRARY), lines_of(os.path.join(GOLDEN, 'exports.txt')), 'symbols')


def library_has_its_soname_and_no_symbol_versions():
    out = subprocess.run(['readelf', '-dV', LIBRARY], capture_output=True, text=True, check=True).stdout
    assert '[libcuda.so.1]' in out, 'no soname libcuda.so.1'
    assert 'Version definition' not in out and 'gnu.version_d' not in out, 'the library defines symbol versions'


def coverage_page_is_current():
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, 'coverage.md')
        gen('--coverage', page)
        same(lines_of(os.path.join(ROOT, 'docs', 'coverage.md')), lines_of(page), 'pages (make it with gen.py --coverage)')


def environment_page_is_complete():
    read = set()
    for folder, _, names in os.walk(os.path.join(ROOT, 'src')):
        for name in names:
            if name.endswith(('.c', '.h')):
                text = open(os.path.join(folder, name), encoding='utf-8').read()
                read |= set(re.findall(r'(?:getenv|read_count)\("(\w+)"', text))
    page = set(re.findall(r'^\| `(\w+)` \|', open(os.path.join(ROOT, 'docs', 'environment.md'), encoding='utf-8').read(), re.M))
    same(sorted(page), sorted(read), 'variables')


# ---- the generator -----------------------------------------------------------------------------------------------------

def bad_tables_are_refused_with_their_line():
    """The first line of each says what is expected: "# expect LINE: error: TEXT"."""
    names = sorted(n for n in os.listdir(GOLDEN) if n.startswith('bad-'))
    assert len(names) > 5, 'too few bad tables'
    for name in names:
        kind = name.rsplit('.', 1)[1]
        want = re.match(r'# expect (\d+: error: .*)', lines_of(os.path.join(GOLDEN, name))[0])
        assert want, name + ' does not say what is expected'
        with tempfile.TemporaryDirectory() as folder:
            for table in ('api', 'types', 'errors'):
                source = os.path.join(GOLDEN, name) if table == kind else os.path.join(ROOT, 'api', 'cuda.' + table)
                shutil.copy(source, os.path.join(folder, 'cuda.' + table))
            ran = gen('--check', '--tables', folder)
        assert ran.returncode == 1, '%s was taken' % name
        assert ran.stderr.strip().endswith('cuda.%s:%s' % (kind, want.group(1))), '%s: %s' % (name, ran.stderr)


def generated_code_compiles_strictly():
    text = '#include "client/client.h"\n#include "call/format.h"\n#include "client_exports.inc"\n#include "cuda_calls.inc"\n'
    flags = STRICT + ['-D_GNU_SOURCE', '-I' + GEN, '-I' + os.path.join(ROOT, 'src')]
    for compiler in COMPILERS:
        ran = compile_c(compiler, text, *flags)
        assert ran.returncode == 0, '%s: %s' % (compiler, ran.stderr[:600])


def header_is_usable_from_cpp():
    ran = subprocess.run(COMPILERS[0].split()[-1:] + ['-x', 'c++', '-fsyntax-only', '-I' + GEN, '-'],
                         input='#include <farwarp/cuda.h>\n', capture_output=True, text=True)
    if 'cannot execute' in ran.stderr or "language c++ not" in ran.stderr:
        raise Skip('no C++ compiler')
    assert ran.returncode == 0, ran.stderr[:600]


# ---- against a toolkit ---------------------------------------------------------------------------------------------------

def versions_are_the_toolkits():
    folder = toolkit()
    found = set()
    for name in ('cudaTypedefs.h', 'cudaProfilerTypedefs.h'):
        text = open(os.path.join(folder, 'include', name), encoding='utf-8', errors='replace').read()
        found |= set(re.findall(r'\(CUDAAPI \*PFN_(\w+?)_v(\d+)(?:_(ptsz|ptds))?\)', text))
    ours = set()
    for line in lines_of(os.path.join(GOLDEN, 'procs.txt')):
        base, family, abi, symbol = line.split()
        ours.add((base, abi, symbol[-4:] if family != 'plain' else ''))
    same(sorted(map(str, ours)), sorted(map(str, found)), 'versions')


def exports_are_the_stub_librarys():
    stub = os.path.join(toolkit(), 'lib64', 'stubs', 'libcuda.so')
    if not os.path.exists(stub):
        raise Skip('the toolkit has no stub library')
    stub_names = [n for n in defined_symbols(stub) if n.startswith('cu')]
    same(lines_of(os.path.join(GOLDEN, 'exports.txt')), stub_names, 'exports')


def prototypes_are_the_toolkits():
    """Our prototypes after its header: the compiler reports each that differs."""
    include = os.path.join(toolkit(), 'include')
    ours = re.findall(r'^CUresult cu\w+\(.*\);$', open(os.path.join(GEN, 'farwarp', 'cuda.h')).read(), re.M)
    text = '#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n#include <cudaProfiler.h>\n' + '\n'.join(ours)
    ran = compile_c(COMPILERS[0], text, '-fsyntax-only', '-I' + include, '-fmax-errors=0')
    wrong = re.findall(r"error: (.*)", ran.stderr)
    assert not wrong, '%d differ: %s' % (len(wrong), '; '.join(wrong[:12]))


def names_of_types():
    """Names of structs and of enumerators of our header."""
    text = open(os.path.join(GEN, 'farwarp', 'cuda.h')).read()
    structs = re.findall(r'^} (CU\w+);$', text, re.M)
    structs += re.findall(r'^typedef [^;(]+?\b\*?(CU\w+);$', text, re.M)
    enumerators = [word for body in re.findall(r'enum {\n(.*?)\n}', text, re.S) for word in re.findall(r'^\t(\w+)', body, re.M)]
    constants = re.findall(r'^#define (CU_\w+|CUDA_\w+) ', text, re.M)
    fields = []
    for body, name in re.findall(r'^typedef (?:struct|union) [^{;]*{\n(.*?)\n} (CU\w+);$', text, re.M | re.S):
        fields += [(name, f) for f in re.findall(r'^\t[^\t{}]*?(\w+)(?:\[\w+\])*;$', body, re.M)]
    return sorted(set(structs)), sorted(set(enumerators)), sorted(set(constants)), fields


def run_printer(header, includes, parts):
    structs, enumerators, fields = parts
    text = ['#define __CUDA_API_VERSION_INTERNAL', '#include <stddef.h>', '#include <stdio.h>', header, 'int main(void) {']
    text += ['printf("sizeof %s %%zu\\n", sizeof(%s));' % (s, s) for s in structs]
    text += ['printf("value %s %%lld\\n", (long long)%s);' % (e, e) for e in enumerators]
    text += ['printf("offset %s %s %%zu\\n", offsetof(%s, %s));' % (s, f, s, f) for s, f in fields]
    text.append('}')
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, 'program')
        ran = compile_c(COMPILERS[0], '\n'.join(text), '-w', '-o', program, *includes)
        if ran.returncode != 0:
            return None, re.findall(r"error: (.*)", ran.stderr)
        return subprocess.run([program], capture_output=True, text=True).stdout.splitlines(), []


def sizes_and_constants_are_the_toolkits():
    include = os.path.join(toolkit(), 'include')
    structs, enumerators, constants, fields = names_of_types()
    parts = (structs, enumerators, fields)
    theirs, errors = run_printer('#include <cuda.h>\n#include <cudaProfiler.h>', ['-I' + include], parts)
    assert theirs is not None, '%d names that the toolkit does not have: %s' % (len(errors), '; '.join(errors[:12]))
    ours, errors = run_printer('#include <farwarp/cuda.h>', ['-I' + GEN], parts)
    assert ours is not None, errors[:5]
    same(ours, theirs, '%d sizes, values and offsets' % len(theirs))


TESTS = [exports_equal_golden, procs_equal_golden, library_exports_the_table_and_nothing_else,
         library_has_its_soname_and_no_symbol_versions, coverage_page_is_current,
         environment_page_is_complete, bad_tables_are_refused_with_their_line,
         generated_code_compiles_strictly, header_is_usable_from_cpp, versions_are_the_toolkits,
         exports_are_the_stub_librarys, prototypes_are_the_toolkits, sizes_and_constants_are_the_toolkits]


def main():
    print('1..%d' % len(TESTS))
    for number, test in enumerate(TESTS, 1):
        name = test.__name__.replace('_', ' ')
        try:
            test()
            print('ok %d - %s' % (number, name))
        except Skip as reason:
            print('ok %d - %s # SKIP %s' % (number, name, reason))
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print('# %s' % str(error).replace('\n', '\n# '))
            print('not ok %d - %s' % (number, name))


main()
