"""Inputs for the tests of farwarp inspect: ELF files made by the C compiler, fat binaries and wheels made here."""
import os
import shlex
import struct
import subprocess
import zipfile

CC = shlex.split(os.environ.get('CC', 'cc'))


def entry(kind, arch, payload, version=(0, 0), flags=0x11):
    payload += bytes(-len(payload) % 8)
    header = struct.pack('<HHIQIIHHIIIQQQ', kind, 0x0101, 64, len(payload), 0, 0, version[1], version[0], arch, 0, 0, flags, 0, 0)
    return header + payload


def sass(arch, suffix=''):
    flags = 0x11 | {'': 0, 'a': 0x100000, 'f': 0x200000}[suffix]
    return entry(2, arch, b'machine code, Cuda compilation tools, release 12.4, V12.4.131\0', (8, 1), flags)


def ptx(arch, version=(8, 4), suffix=''):
    flags = 0x11 | {'': 0, 'a': 0x100000, 'f': 0x200000}[suffix]
    return entry(1, arch, b'.version %d.%d\n.target sm_%d\n' % (version + (arch,)), version, flags)


def fatbin(*entries):
    body = b''.join(entries)
    return struct.pack('<IHHQ', 0xba55ed50, 1, 16, len(body)) + body


class Folder:
    """A folder with what the compiler made in it."""

    def __init__(self, path):
        self.path = path

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def write(self, name, data):
        path = self / name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
        return path

    def compile(self, name, source, *arguments, fatbins=(), language='c', before=()):
        """A program, or with '-shared' a library."""
        out = self / name
        os.makedirs(os.path.dirname(out), exist_ok=True)
        if fatbins:
            blob = self.write(name + '.fatbin', b''.join(fatbins))
            source += '\n__asm__(".section .nv_fatbin,\\"a\\"\\n.p2align 3\\n.incbin \\"%s\\"\\n.text\\n");\n' % blob
        file = self.write(name + ('.c' if language == 'c' else '.cc'), source)
        command = CC if language == 'c' else shlex.split(os.environ.get('CXX', 'c++'))
        subprocess.run([*command, *before, '-fPIC', '-o', out, file, *arguments], check=True, capture_output=True, timeout=60)
        return out

    def library(self, name, source, *arguments, version=None, **options):
        """A shared library whose soname is its file's name; `version`: all its symbols carry it."""
        more = ['-shared', '-Wl,-soname,' + os.path.basename(name)]
        if version:
            more.append('-Wl,--version-script,' + self.write(name + '.map', '%s { global: *; };\n' % version))
        return self.compile(name, source, *more, *arguments, **options)


RUNTIME = 'void *__cudaRegisterFatBinary(void *f) { return f; }\nint cudaMalloc(void **p, long n) { return !p + (int)n; }\n'
USER = ('void *__cudaRegisterFatBinary(void *);\nint cudaMalloc(void **, long);\n'
        'int run(void);\nint run(void) { return cudaMalloc(0, 1) + (__cudaRegisterFatBinary(0) != 0); }\n')


def wheel(path, files, name='demo', version='1.0', tags=('py3-none-any',), purelib=True, metadata='', method=zipfile.ZIP_DEFLATED):
    """files: {path: bytes or text}."""
    info = '%s-%s.dist-info/' % (name, version)
    with zipfile.ZipFile(path, 'w', method) as out:
        for member, data in files.items():
            out.writestr(member, data)
        out.writestr(info + 'METADATA', 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n%s\n\nA description.\n' % (name, version, metadata))
        out.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: %s\n%s' % (str(purelib).lower(), ''.join('Tag: %s\n' % t for t in tags)))
        out.writestr(info + 'RECORD', '')
    return path
