#!/usr/bin/env python3
"""Counts the results in Meson's testlog.json: every TAP line, or one for a test program without TAP. Prints "N passed, ..." words."""
import json
import re
import sys

passed = failed = skipped = 0
for line in open(sys.argv[1], encoding='utf-8'):
    test = json.loads(line)
    lines = re.findall(r'^(not ok|ok)\b(.*)$', test.get('stdout', ''), re.M)
    bad = test['result'] in ('FAIL', 'ERROR', 'TIMEOUT', 'INTERRUPT', 'UNEXPECTEDPASS')
    counted_bad = False
    for verdict, rest in lines:
        if re.search(r'#\s*skip', rest, re.I):
            skipped += 1
        elif verdict == 'ok':
            passed += 1
        else:
            failed += 1
            counted_bad = True
    if bad and not counted_bad:
        failed += 1
    elif not lines and not bad:
        skipped += test['result'] == 'SKIP'
        passed += test['result'] in ('OK', 'EXPECTEDFAIL')
print('%d passed, %d failed, %d skipped' % (passed, failed, skipped))
