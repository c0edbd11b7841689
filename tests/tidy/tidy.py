#!/usr/bin/env python3
"""Style and structure as tests, in TAP. Each check names file and line. Reads the source only.

The dependency rule is the table ALLOWED: which folder of src may include headers of which other. It is the design's table.
"""
import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# folder of src/ -> folders that it may include from (besides itself, generated headers and the system)
ALLOWED = {
    'base': [],
    'call': ['base'],
    'wire': ['base'],
    'image': ['base'],
    # soft: the device reads images and is the one that puts ptx, exec and image together
    'soft': ['base', 'image'],
    'native': ['base'],
    'layers': ['call', 'base'],
    # client: the in-process implementation is opened in one place, src/client/init.c; images are measured where their pointers mean something
    'client': ['call', 'wire', 'base', 'soft', 'native', 'image', 'layers'],
    # server: images are measured before a device believes what they say of their length
    'server': ['call', 'wire', 'layers', 'base', 'soft', 'native', 'image'],
    # elf: readers of files that the doctor and inspect share
    'elf': ['base', 'image'],
    'doctor': ['base', 'image', 'elf'],
    # inspect: asks the driver for the GPU at hand in the doctor's child process
    'inspect': ['base', 'image', 'elf', 'doctor'],
    'prove': [],
    'tools': ['base', 'image', 'elf', 'doctor', 'inspect', 'server', 'call', 'wire', 'layers', 'prove', 'soft'],
}
# inside soft: ptx knows no interpreter, the interpreter knows no device
ALLOWED_SOFT = {'ptx': [], 'exec': ['ptx'], 'device': ['ptx', 'exec']}

BANNED = {'sprintf': 'snprintf', 'vsprintf': 'vsnprintf', 'strcpy': 'memcpy with a length', 'strcat': 'snprintf', 'gets': 'fgets',
          'atoi': 'strtol', 'atol': 'strtol', 'atof': 'strtod', 'strtok': 'strsep', 'alloca': 'a bounded array', 'system': 'posix_spawn'}
MARKS = r'\b(TODO|FIXME|XXX|HACK)\b'
MAX_FUNCTION_LINES = 140


def tracked(*patterns):
    out = subprocess.run(['git', 'ls-files', '--', *patterns], cwd=ROOT, capture_output=True, text=True)
    files = out.stdout.split() if out.returncode == 0 else []
    if not files:  # a source archive without git
        files = [os.path.relpath(p, ROOT) for pattern in patterns for p in glob.glob(os.path.join(ROOT, pattern), recursive=True)]
    return sorted(f for f in files if os.path.isfile(os.path.join(ROOT, f)))


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8', errors='replace') as stream:
        return stream.read()


def without_comments(text):
    """Blanks comments and string contents, keeping line numbers."""
    def blank(match):
        found = match.group(0)
        if found.startswith('/'):
            return re.sub(r'[^\n]', ' ', found)
        return found[0] + re.sub(r'[^\n]', ' ', found[1:-1]) + found[-1]
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def sources():
    return tracked('src/*.c', 'src/*.h', 'src/**/*.c', 'src/**/*.h')


def dependency_rule():
    for path in sources():
        folder = path.split('/')[1]
        for number, line in enumerate(read(path).split('\n'), 1):
            match = re.match(r'\s*#\s*include\s+"([\w./-]+)"', line)
            if not match or '/' not in match.group(1):
                continue
            parts = match.group(1).split('/')
            target = parts[0]
            if target == 'llvm-c' and not path.startswith('src/soft/jit/'):
                yield '%s:%d: only src/soft/jit includes LLVM' % (path, number)
            if target not in ALLOWED:
                continue
            if target != folder and target not in ALLOWED.get(folder, []):
                yield '%s:%d: %s may not include from %s' % (path, number, folder, target)
            if folder == target == 'soft' and len(parts) == 3 and path.count('/') == 3:
                mine = path.split('/')[2]
                if parts[1] in ALLOWED_SOFT and parts[1] != mine and parts[1] not in ALLOWED_SOFT.get(mine, []):
                    yield '%s:%d: soft/%s may not include from soft/%s' % (path, number, mine, parts[1])


def banned_calls():
    pattern = re.compile(r'(?<![\w.>])(%s)\s*\(' % '|'.join(BANNED))
    for path in sources() + tracked('examples/*.c', 'bench/*.c'):
        for number, line in enumerate(without_comments(read(path)).split('\n'), 1):
            match = pattern.search(line)
            if match:
                yield '%s:%d: %s: use %s' % (path, number, match.group(1), BANNED[match.group(1)])


def file_comments():
    for path in sources():
        if not read(path).lstrip().startswith('/*'):
            yield '%s:1: no comment says what the file does' % path


def unfinished_marks():
    for path in tracked('src', 'api', 'examples', 'bench', 'pkg', 'docs', 'Makefile'):
        for number, line in enumerate(read(path).split('\n'), 1):
            if re.search(MARKS, line):
                yield '%s:%d: %s' % (path, number, line.strip()[:80])


def function_length():
    for path in sources():
        if not path.endswith('.c'):
            continue
        start = None
        for number, line in enumerate(without_comments(read(path)).split('\n'), 1):
            if line.startswith('{'):
                start = number
            elif line.startswith('}') and start:
                if number - start > MAX_FUNCTION_LINES:
                    yield '%s:%d: a function of %d lines' % (path, start, number - start)
                start = None


def machine_paths():
    pattern = re.compile(r'(?<![\w.])/(?:work|root|home/\w+|Users)/')
    for path in tracked('.'):
        if path.startswith('tests/fuzz/corpus/') or path == 'tests/tidy/tidy.py':
            continue
        for number, line in enumerate(read(path).split('\n'), 1):
            if pattern.search(line):
                yield '%s:%d: a path of one machine: %s' % (path, number, line.strip()[:80])


def shell_syntax():
    for path in tracked('*.sh', '**/*.sh', '.ci/run'):
        shell = 'bash' if read(path).startswith('#!/usr/bin/env bash') or read(path).startswith('#!/bin/bash') else 'sh'
        done = subprocess.run([shell, '-n', path], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            yield '%s: %s' % (path, done.stderr.strip())


def readme_commands():
    """Each make target and path that the README shows exists."""
    text = read('README.md')
    makefile = read('Makefile')
    for target in set(re.findall(r'^\s*(?:\$ )?make ([a-z-]+)', text, re.M)):
        if not re.search(r'^%s:' % re.escape(target), makefile, re.M):
            yield 'README.md: there is no "make %s"' % target
    for path in set(re.findall(r'\]\(([\w./-]+)\)', text)) | set(re.findall(r'`((?:src|api|docs|tests|examples|bench)/[\w./-]+)`', text)):
        if not os.path.exists(os.path.join(ROOT, path)):
            yield 'README.md: there is no %s' % path


def commands_agree():
    """Every command of the binary is in the README and in the completion."""
    names = re.findall(r'^\t\{ "([a-z]+)",', read('src/tools/main.c'), re.M)
    completion = read('pkg/completion/farwarp.bash')
    for name in names:
        if name != 'help' and 'farwarp ' + name not in read('README.md'):
            yield 'README.md: no word of "farwarp %s"' % name
        if not re.search(r'\b%s\b' % name, completion):
            yield 'pkg/completion/farwarp.bash: no "%s"' % name
    for command in names:
        path = 'src/tools/%s.c' % command
        if os.path.exists(os.path.join(ROOT, path)):
            for option in re.findall(r'^\t\{ "([a-z-]+)", \'', read(path), re.M):
                if '--' + option not in completion:
                    yield 'pkg/completion/farwarp.bash: no --%s of %s' % (option, command)


CHECKS = [dependency_rule, banned_calls, file_comments, unfinished_marks, function_length, machine_paths, shell_syntax, readme_commands,
          commands_agree]


def main():
    print('1..%d' % len(CHECKS))
    for number, check in enumerate(CHECKS, 1):
        found = list(check())
        for line in found:
            print('# ' + line)
        print('%sok %d - %s' % ('not ' if found else '', number, check.__name__))
    return 0


if __name__ == '__main__':
    sys.exit(main())
