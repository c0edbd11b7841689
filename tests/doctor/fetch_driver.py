#!/usr/bin/env python3
"""Fetches NVIDIA's driver library as Debian's non-free component has it, and unpacks it into a folder; nothing is installed.

    fetch_driver.py --into FOLDER

Prints the folder of libcuda.so.1. Where apt-get, dpkg or the network are missing it says so and ends with 1.
"""
import argparse
import glob
import os
import shutil
import subprocess
import sys

PACKAGES = ('libcuda1', 'libnvidia-ml1', 'libnvidia-ptxjitcompiler1')


def mirror():
    """(address, code name) of the Debian mirror that this machine uses."""
    done = subprocess.run(['apt-get', 'indextargets', '--format', '$(SITE) $(CODENAME)'], capture_output=True, text=True)
    for line in done.stdout.split('\n'):
        words = line.split()
        if len(words) == 2 and words[0].rstrip('/').endswith('/debian') and '-' not in words[1]:
            return tuple(words)
    raise SystemExit('fetch_driver.py: no Debian mirror is known here')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--into', required=True)
    into = os.path.abspath(parser.parse_args().into)
    pattern = os.path.join(into, 'root', 'usr', 'lib', '*', 'nvidia', 'current', 'libcuda.so.1')
    if not glob.glob(pattern):
        if not (shutil.which('apt-get') and shutil.which('dpkg')):
            print('fetch_driver.py: this needs apt-get and dpkg', file=sys.stderr)
            return 1
        for folder in ('lists/partial', 'cache/archives/partial', 'packages', 'root'):
            os.makedirs(os.path.join(into, folder), exist_ok=True)
        with open(os.path.join(into, 'sources.list'), 'w', encoding='utf-8') as stream:
            stream.write('deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s non-free\n' % mirror())
        options = ['-q', '-o', 'Dir::State::Lists=%s/lists' % into, '-o', 'Dir::Etc::sourcelist=%s/sources.list' % into,
                   '-o', 'Dir::Etc::sourceparts=-', '-o', 'Dir::Cache=%s/cache' % into]
        for command in (['apt-get', *options, 'update'], ['apt-get', *options, 'download', *PACKAGES]):
            done = subprocess.run(command, cwd=os.path.join(into, 'packages'), capture_output=True, text=True)
            if done.returncode:
                print('fetch_driver.py: %s: %s' % (' '.join(command[:1] + command[len(options) + 1:]), done.stderr.strip()), file=sys.stderr)
                return 1
        for package in glob.glob(os.path.join(into, 'packages', '*.deb')):
            subprocess.run(['dpkg', '-x', package, os.path.join(into, 'root')], check=True)
    found = glob.glob(pattern)
    if not found:
        print('fetch_driver.py: no libcuda.so.1 is in the packages', file=sys.stderr)
        return 1
    print(os.path.dirname(found[0]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
