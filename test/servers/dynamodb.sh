#!/usr/bin/env bash
# DynamoDB Local for the tests. It listens on every address and has no option against it, so it
# starts only where there is no address but loopback's: see with.sh.
#   dynamodb.sh install      installs what is missing, into the user's cache
#   dynamodb.sh start DIR    starts it, with the data and the port that DIR knows; prints its variable
#   dynamodb.sh stop DIR     ends it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

verb=${1:-}
dir=${2:-}
libs=$(cache)/dynamodb-local-$(version_of "$here/dynamodb")

case $verb in
install)
	maven "$here/dynamodb" "$libs"
	;;
start)
	others=$(ip -o addr show | awk '$2 != "lo" { print $2 }' | sort -u)
	if [ -n "$others" ]; then
		fail "DynamoDB Local listens on every address, also on those of" $others \
			"- start it with test/servers/with.sh, which has a network of its own"
	fi
	mkdir -p "${dir:?a folder is needed}/dynamodb"
	port=$(port_of "$dir" dynamodb)
	java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.library.path="$libs" \
		-cp "$libs/*" software.amazon.dynamodb.services.local.main.ServerRunner \
		-dbPath "$dir/dynamodb" -port "$port" -sharedDb -disableTelemetry \
		</dev/null >>"$dir/dynamodb.log" 2>&1 &
	echo $! >"$dir/dynamodb.pid"
	wait_for "$port" $! "$dir/dynamodb.log"
	echo "export ACKWISE_TEST_DYNAMODB=http://127.0.0.1:$port"
	;;
stop)
	end "${dir:?a folder is needed}/dynamodb.pid"
	;;
*)
	fail "usage: dynamodb.sh install | start DIR | stop DIR"
	;;
esac
