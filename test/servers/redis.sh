#!/usr/bin/env bash
# A Redis server for the tests. Every write is synced before it is answered.
#   redis.sh install      installs what is missing
#   redis.sh start DIR [OPTION…]   starts it, with the data and the port that DIR knows; prints its
#                         variable. OPTIONs are redis-server's, such as --cluster-enabled yes
#   redis.sh stop DIR     ends it
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

verb=${1:-}
dir=${2:-}

case $verb in
install)
	need redis-server redis-server
	;;
start)
	mkdir -p "${dir:?a folder is needed}/redis"
	port=$(port_of "$dir" redis)
	# A cluster listens at a second port: by default 10,000 above, where it may be anybody's.
	bus=$(port_of "$dir" redis-bus)
	redis-server --bind 127.0.0.1 --port "$port" --cluster-port "$bus" --dir "$dir/redis" \
		--appendonly yes --appendfsync always --save '' --maxmemory-policy noeviction "${@:3}" \
		</dev/null >>"$dir/redis.log" 2>&1 &
	echo $! >"$dir/redis.pid"
	wait_for "$port" $! "$dir/redis.log"
	echo "export ACKWISE_TEST_REDIS=redis://127.0.0.1:$port"
	;;
stop)
	end "${dir:?a folder is needed}/redis.pid"
	;;
*)
	fail "usage: redis.sh install | start DIR | stop DIR"
	;;
esac
