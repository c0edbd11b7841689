#!/usr/bin/env python3
"""The doctor's pages and the schema behind them, in TAP.

    doctor.py BUILD              docs/doctor-facts.md and docs/doctor-coverage.md are up to date; facts.schema says truly what is not looked at;
                                 an entry of the catalogue has a rule or a reason why not
    doctor.py BUILD --write      writes the two pages
"""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
SCHEMA = os.path.join(ROOT, 'src', 'doctor', 'facts.schema')
FACTS = os.path.join(ROOT, 'docs', 'doctor-facts.md')
COVERAGE = os.path.join(ROOT, 'docs', 'doctor-coverage.md')
CATALOGUE = os.path.join(ROOT, 'tests', 'doctor', 'catalogue.txt')
sys.path.insert(0, os.path.join(ROOT, 'src', 'doctor'))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from embed import schema_rows  # noqa: E402
from played import PLAYED  # noqa: E402

HEAD = '''# The fact document

`farwarp doctor --record FILE` writes it, `--replay FILE` judges it anywhere, `--json` reports it under `facts`. This page is made from
`src/doctor/facts.schema` by `tests/doctor/doctor.py`; a test keeps it equal.

It is one JSON object. A leaf is

- a value;
- `null`: it was looked for and is not there;
- `{"unseen": {"errno": "EACCES", "why": "...", "get": "..."}}`: it could not be seen, why, and the command that obtains it by hand.

A path that is missing was not looked at, which counts as unseen; below a *map*, whose members the machine names, it is not there.
`[]` stands for each element of a list, `*` for each member of a map. The version is in `farwarp_facts`: 1. It changes when a path changes
its meaning or goes; new paths do not change it. A reader takes at most 8 MiB, 48 levels, 65,536 elements and 4,096 members.

`--redact` replaces host and user names, network addresses, serial numbers and UUIDs by pseudonyms, the same one wherever the same secret
stood: what is judged from a redacted document is what would be judged from the whole one. Of the environment only variables of CUDA,
NVIDIA, the loader, schedulers and frameworks are recorded, and none whose name holds TOKEN, KEY, PASSWORD, SECRET, CREDENTIAL or AUTH.
'''


def unprobed():
    with open(SCHEMA, encoding='utf-8') as stream:
        return [path for line in stream if line.startswith('unprobed ') for path in line.split()[1:]]


def is_below(path, above):
    return path == above or (path.startswith(above) and path[len(above)] in '.[')


def facts_page():
    hidden = unprobed()
    lines, section = [HEAD], None
    for path, kind, origin, command, meaning in schema_rows(SCHEMA):
        name = re.split(r'[.\[]', path)[0]
        if name != section:
            section = name
            lines.append('\n## %s\n\n| path | type | comes from | by hand | meaning |\n|---|---|---|---|---|' % name)
        mark = ' *(no probe looks at it yet)*' if path in hidden else ''
        cell = command.replace('|', '\\|')
        lines.append('| `%s` | %s | %s | %s | %s%s |' % (path, kind, origin, '`%s`' % cell if cell else '', meaning, mark))
    return '\n'.join(lines) + '\n'


def catalogue():
    """(id, what fails, why there is no rule or "") of each entry."""
    with open(CATALOGUE, encoding='utf-8') as stream:
        return [tuple(part.strip() for part in line.split('|')) for line in stream if line.strip() and not line.startswith('#')]


def rules(build):
    done = subprocess.run([os.path.join(build, 'farwarp'), 'doctor', '--list'], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in done.stdout.split('\n') if line and line.split()[2] != 'inspect'}


def coverage_page(build):
    """What test_machines says of recorded machines, with what is played end to end and what the catalogue has beyond."""
    done = subprocess.run([os.path.join(build, 'tests', 'doctor', 'test_machines'), '--coverage', os.path.join(ROOT, 'tests', 'machines')],
                          capture_output=True, text=True, check=True)
    played = {}
    for name, _ in PLAYED:
        for ident in re.findall(r'\b[A-Z][A-Z0-9]+\b', name):
            played.setdefault(ident, []).append(name)
    lines, shown = [], 0
    for line in done.stdout.rstrip('\n').split('\n'):
        ident = line.split('|')[1].strip() if line.startswith('| ') else None
        if ident == 'rule':
            line += ' played end to end |'
        elif line.startswith('|---'):
            line += '---|'
        elif ident:
            shown += ident in played
            line += ' %s |' % (len(played[ident]) if ident in played else '')
        lines.append(line)
    entries, known = catalogue(), rules(build)
    lines.append('%d of the rules are played end to end: real probes on a fake root, with scripted nodes and drivers '
                 '(`tests/doctor/played.py`).' % shown)
    without = [entry for entry in entries if entry[0] not in known]
    lines.append('\n## The catalogue\n\n%d of %d entries of `tests/doctor/catalogue.txt` have a rule. Those without:\n\n'
                 '| entry | what fails | why there is no rule |\n|---|---|---|' % (len(entries) - len(without), len(entries)))
    lines += ['| %s | %s | %s |' % entry for entry in without]
    return '\n'.join(lines) + '\n'


def paths_of(value, path=''):
    """Every path of a document that holds something, in the schema's writing."""
    if isinstance(value, dict):
        if 'unseen' not in value:
            for name, member in value.items():
                yield from paths_of(member, path + ('.' if path else '') + name)
    elif isinstance(value, list):
        for member in value:
            yield from paths_of(member, path + '[]')
    yield path


def compare(name, path, text):
    with open(path, encoding='utf-8') as stream:
        same = stream.read() == text
    print('%sok - %s is up to date' % ('' if same else 'not ', name))
    if not same:
        print('# write it with: tests/doctor/doctor.py BUILD --write')
    return same


def main():
    build = sys.argv[1]
    if '--write' in sys.argv:
        for path, text in ((FACTS, facts_page()), (COVERAGE, coverage_page(build))):
            with open(path, 'w', encoding='utf-8') as stream:
                stream.write(text)
        return 0
    print('1..4')
    good = compare('docs/doctor-facts.md', FACTS, facts_page()) & compare('docs/doctor-coverage.md', COVERAGE, coverage_page(build))
    live = subprocess.run([os.path.join(build, 'farwarp'), 'doctor', '--record', '-'], capture_output=True, text=True)
    seen = sorted({path for path in paths_of(json.loads(live.stdout)) for above in unprobed() if is_below(path, above)})
    print('%sok - what facts.schema calls unprobed is not looked at' % ('not ' if seen else ''))
    for path in seen:
        print('# a probe looks at %s' % path)
    known = rules(build)
    wrong = [entry[0] for entry in catalogue() if (entry[0] in known) == bool(entry[2])]
    print('%sok - an entry of the catalogue has a rule, or a reason why not' % ('not ' if wrong else ''))
    for ident in wrong:
        print('# %s has %s' % (ident, 'a rule: take the reason off' if ident in known else 'neither'))
    return 0 if good and not seen and not wrong else 1


if __name__ == '__main__':
    sys.exit(main())
