#!/usr/bin/env python3
"""The doctor on this very machine, in places where programs live, where there is no GPU: the verdict is the same and right in each. TAP.

    test_places.py FARWARP [FOLDER]

plain, unprivileged, in a user namespace, in a network namespace, behind a /dev of its own; with NVIDIA's own libcuda.so.1 if
fetch_driver.py fetched it into FOLDER. A place that this machine does not permit is skipped, and all are on a machine with a GPU.
"""
import glob
import json
import os
import shutil
import subprocess
import sys

FARWARP = os.path.abspath(sys.argv[1])
FETCHED = glob.glob(os.path.join(sys.argv[2], 'root', 'usr', 'lib', '*', 'nvidia', 'current')) if len(sys.argv) > 2 else []
DRIVER = os.path.abspath(FETCHED[0]) if FETCHED else ''
results = []


def report(what, good, *shown):
    results.append(good)
    print('%sok %d - %s' % ('' if good else 'not ', len(results), what), flush=True)
    for text in () if good else shown:
        print('# ' + str(text).strip().replace('\n', '\n# '))


def skip(what, why):
    results.append(True)
    print('ok %d - %s # SKIP %s' % (len(results), what, why), flush=True)


def look(wrap=(), options=(), env=None):
    done = subprocess.run([*wrap, FARWARP, 'doctor', '--json', *options], capture_output=True, text=True, timeout=60,
                          env={**{k: v for k, v in os.environ.items() if k != 'LD_LIBRARY_PATH'}, **(env or {})})
    try:
        return done.returncode, json.loads(done.stdout), done.stderr
    except ValueError:
        return done.returncode, None, done.stdout + done.stderr


def permitted(wrap):
    return shutil.which(wrap[0]) and subprocess.run([*wrap, 'true'], capture_output=True).returncode == 0


def nodes():
    return sorted(glob.glob('/dev/nvidia*'))


def main():
    if nodes() or os.path.exists('/proc/driver/nvidia') or os.path.exists('/dev/dxg'):
        print('1..0 # SKIP this machine has a GPU')
        return 0
    code, plain, error = look()
    want = plain['verdict']['id'] if plain else error
    report('plain: there is no GPU', want in ('F001', 'F100') and code == 1, want, code)
    places = (('unprivileged', ('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups')),
              ('in a user namespace', ('unshare', '--user', '--map-root-user')),
              ('in namespaces of network and of messages', ('unshare', '--user', '--map-root-user', '--net', '--ipc')),
              ('behind a /dev of its own', ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c',
                                            'mount -t tmpfs none /dev && touch /dev/null && exec "$@"', 'sh')))
    for what, wrap in places:
        if not permitted(wrap):
            skip(what, 'not permitted here')
            continue
        code, seen, error = look(wrap)
        facts = seen['facts'] if seen else {}
        good = bool(seen) and seen['verdict']['id'] == want and code == 1 and not seen['verdict']['possible']
        if 'namespace' in what:
            good = good and facts['container']['namespaces']['user'] is True and facts['container']['namespaces']['ipc'] is ('messages' in what)
        report(what, good, seen['verdict'] if seen else error)
    if not DRIVER:
        skip("NVIDIA's own driver library", 'it was not fetched: tests/doctor/fetch_driver.py')
    else:
        for what, options, env in (("NVIDIA's own driver library, by --driver", ['--driver', DRIVER], {}),
                                   ("NVIDIA's own driver library, on the path", [], {'LD_LIBRARY_PATH': DRIVER}),
                                   ("NVIDIA's own driver library, and --load", ['--load'], {'LD_LIBRARY_PATH': DRIVER})):
            code, seen, error = look((), options, env)
            driver = seen['facts']['driver'] if seen else {}
            good = bool(seen) and seen['verdict']['id'] == want and code == 1 and not nodes() and driver['library']['kind'] == 'driver' and \
                bool(driver['library']['version']) and driver['steps']['init']['result'] == 100
            report(what, good, seen['verdict'] if seen else error, driver, nodes())
    print('1..%d' % len(results))
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
