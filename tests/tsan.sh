#!/bin/sh
# The tests in which threads meet, under ThreadSanitizer: tests/tsan.sh BUILD, a build with -Db_sanitize=thread. About ten minutes on two cores.
#
# Reports of all processes, workers of servers too, go to BUILD/reports: a program may end well in spite of one, so none may be there.
set -u
build=$1
here=$(dirname "$0")
reports=$(cd "$build" && pwd)/reports
failed=0

rm -rf "$reports"
mkdir "$reports"
# handle_segv: pages of managed memory move by SIGSEGV. A worker leaves its threads behind by design: its process is its session.
# atexit_sleep_ms: else each of hundreds of processes waits for a second.
export TSAN_OPTIONS="handle_segv=0:report_thread_leaks=0:atexit_sleep_ms=20:log_path=$reports/tsan:suppressions=$(cd "$here" && pwd)/tsan.supp"

part() {
	echo "== $*"
	"$@" || failed=1
}

part "${MESON:-meson}" test -C "$build" --print-errorlogs --timeout-multiplier 10 --suite unit --suite device ${TEST_FLAGS:-}
part python3 "$here/bridge/suites.py" --build "$build" --kinds unix,tcp,tls stream launch graph memory managed ipc leak modules client
part python3 "$here/bridge/model.py" --build "$build" --seeds 1-10 --over unix,tcp
part python3 "$here/bridge/serve.py" --build "$build"
part python3 "$here/bridge/faults.py" --build "$build" --kills 10
part python3 "$here/bridge/hostile.py" --build "$build" --messages 20000 --seconds 2 --seed 1

if [ -n "$(ls "$reports")" ]; then
	cat "$reports"/*
	echo "not ok - $(ls "$reports" | wc -l) processes have reports of ThreadSanitizer"
	failed=1
fi
exit $failed
