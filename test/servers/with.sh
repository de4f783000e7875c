#!/usr/bin/env bash
# Runs a command beside real servers: with.sh COMMAND…
# It starts Postgres, Redis, DynamoDB Local, Kafka, ElasticMQ and moto, sets their variables and ACKWISE_TEST_REAL=1 for the
# command, and ends them whatever happens. A server that cannot be started is a failure. SERVERS names
# fewer: SERVERS="redis" with.sh go test ./adapters/redis/...
#
# All of it runs in a network namespace of its own, because DynamoDB Local listens on every address:
# there it is reachable from the command alone, and nothing in there reaches another machine. What
# has to be downloaded is downloaded before. A process namespace goes with it, so that nothing that
# was started is left behind, even when this script is killed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
read -ra servers <<<"${SERVERS:-postgres redis dynamodb kafka elasticmq moto}"

if [ $# = 0 ]; then fail "usage: with.sh COMMAND…"; fi

if [ "${ACKWISE_TEST_NAMESPACE:-}" != 1 ] || [ $$ != 1 ]; then
	need ip iproute2
	need ps procps
	for s in "${servers[@]}"; do bash "$here/$s.sh" install; done
	own=(unshare --net --pid --fork --kill-child --mount-proc)
	if [ "$(id -u)" != 0 ]; then own+=(--user --map-current-user --keep-caps); fi
	"${own[@]}" ip link set lo up 2>/dev/null ||
		fail "no network namespace can be made here: run this as root, or where users may make them"
	ACKWISE_TEST_NAMESPACE=1 exec "${own[@]}" bash "$here/with.sh" "$@"
fi

ip link set lo up
dir=$(mktemp -d)
chmod 755 "$dir" # Postgres runs as another user
child=
finish() {
	local code=$?
	trap - EXIT INT TERM HUP
	if [ -n "$child" ]; then
		kill "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	for s in "${servers[@]}"; do bash "$here/$s.sh" stop "$dir" || true; done
	rm -rf "$dir"
	exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

for s in "${servers[@]}"; do
	line=$(bash "$here/$s.sh" start "$dir")
	eval "$line"
	echo "$s: ${line#export }" >&2
done
export ACKWISE_TEST_REAL=1

# In the background, so that a signal ends the servers at once.
"$@" &
child=$!
code=0
wait "$child" || code=$?
child=
exit "$code"
