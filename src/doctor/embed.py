#!/usr/bin/env python3
"""Writes the doctor's data as C: the fact schema as rows, the rule files as strings.

    embed.py facts.schema RULES... OUTPUT
"""
import os
import sys

TYPES = ('text', 'int', 'real', 'bool', 'list', 'map', 'object')


def schema_rows(path):
    """(path, type, from, command, meaning) of each path; the command alone may hold a "|"."""
    rows = []
    for number, line in enumerate(open(path, encoding='utf-8'), 1):
        line = line.strip()
        if not line or line.startswith(('#', 'unprobed ')):
            continue
        parts = [part.strip() for part in line.split('|')]
        if len(parts) < 5 or parts[1] not in TYPES:
            sys.exit('%s:%d: error: PATH | TYPE | COMES FROM | BY HAND | MEANING is wanted' % (path, number))
        rows.append((parts[0], parts[1], parts[2], ' | '.join(parts[3:-1]), parts[-1]))
    return rows


def quoted(text):
    return '"%s"' % text.replace('\\', '\\\\').replace('"', '\\"').replace('?', '\\?')


def main():
    schema, rules, output = sys.argv[1], sys.argv[2:-1], sys.argv[-1]
    lines = ['/* made by embed.py: do not edit */', 'static const struct dr_schema_row schema_rows[] = {']
    lines += ['\t{ %s, DR_%s, %s, %s },' % (quoted(path), kind.upper(), quoted(get), quoted(meaning))
              for path, kind, _, get, meaning in schema_rows(schema)]
    lines += ['};', 'static const struct dr_rule_file rule_files[] = {']
    for path in rules:
        lines.append('\t{ %s,' % quoted(os.path.basename(path)))
        lines += ['\t\t' + quoted(line.rstrip('\n'))[:-1] + '\\n"' for line in open(path, encoding='utf-8')]
        lines.append('\t\t"" },')
    lines.append('};')
    with open(output, 'w', encoding='utf-8') as out:
        out.write('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
