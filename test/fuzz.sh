#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for FUZZTIME.
# With FUZZTOTAL=60 the targets share 60 seconds instead, at least 2 s each.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! targets=$(grep -rE --include='*_test.go' --exclude-dir=testdata -o \
	'^func Fuzz[A-Za-z0-9_]+' . | sed 's/:func /:/' | sort); then
	echo "no fuzz target found: is this the module?" >&2
	exit 1
fi
count=$(wc -l <<<"$targets")

each=${FUZZTIME:-3s}
if [ -n "${FUZZTOTAL:-}" ]; then
	seconds=$((FUZZTOTAL / count))
	each=$((seconds < 2 ? 2 : seconds))s
fi

# Fuzzes one target.
fuzz() {
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$each" -fuzzminimizetime 1s "$1" </dev/null
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "$count fuzz targets, $each each"
while IFS=: read -r file name; do
	echo "== $(dirname "$file") $name"
	fuzz "$(dirname "$file")" "$name" 2>&1 | tee "$log" && continue
	# Before Go 1.27 the end of the time may be taken for a failure (go.dev/issue/75804). A finding
	# is told by its input, or by anything else, and what it was tried again with fails again.
	if grep -q '^    context deadline exceeded$' "$log" &&
		! grep -qE 'Failing input|panic|_test\.go:' "$log"; then
		echo "the time was over, which is no failure: once more"
		fuzz "$(dirname "$file")" "$name" && continue
	fi
	exit 1
done <<<"$targets"
