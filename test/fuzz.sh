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

echo "$count fuzz targets, $each each"
while IFS=: read -r file name; do
	echo "== $(dirname "$file") $name"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$each" -fuzzminimizetime 1s "$(dirname "$file")" </dev/null
done <<<"$targets"
