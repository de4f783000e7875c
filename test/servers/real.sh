#!/usr/bin/env bash
# Runs the tests that need real servers, which stand in files named real*_test.go. They are compiled
# before the servers start: there is no network beside them to download a module from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mapfile -t files < <(find . -name 'real*_test.go' -not -path './test/compare/*' | sort)
if [ ${#files[@]} = 0 ]; then
	echo "no real*_test.go found" >&2
	exit 1
fi
mapfile -t folders < <(dirname "${files[@]}" | sort -u)
names=$(sed -n 's/^func \(\(Test\|Example\)[A-Za-z0-9_]*\)(.*/\1/p' "${files[@]}" | paste -sd '|')

${GO:-go} test -race -count=1 -run '^$' "${folders[@]}"
exec bash test/servers/with.sh \
	"${GO:-go}" test -race -count=1 -timeout "${1:-15m}" -run "^($names)\$" "${folders[@]}"
