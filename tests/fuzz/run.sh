#!/bin/sh
# Runs each fuzz target for some seconds on its corpus: run.sh BUILD SECONDS [TARGET...]. Ends with 1 at the first finding.
set -eu
build=$1
seconds=$2
shift 2
here=$(dirname "$0")
"$build/tests/fuzz/seeds" "$build/tests/fuzz/corpus" "$build/tests/inspect/libsample.so.1"
for program in "$build"/tests/fuzz/fuzz_*; do
	[ -f "$program" ] && [ -x "$program" ] || continue
	target=${program##*/fuzz_}
	case " $* " in "  " | *" $target "*) ;; *) continue ;; esac
	mkdir -p "$build/tests/fuzz/corpus/$target"
	seeds=''
	[ -d "$here/corpus/$target" ] && seeds="$here/corpus/$target"
	dictionary=''
	[ -f "$here/$target.dict" ] && dictionary="-dict=$here/$target.dict"
	echo "fuzzing $target for $seconds s"
	# shellcheck disable=SC2086
	"$program" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=4096 -print_final_stats=0 -verbosity=0 $dictionary \
		-artifact_prefix="$build/tests/fuzz/$target-" "$build/tests/fuzz/corpus/$target" $seeds
done
