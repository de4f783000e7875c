#!/usr/bin/env bash
# ElasticMQ (SQS) for the tests. It keeps queues and messages in its folder, so that a killed one has
# them again.
#   elasticmq.sh install      installs what is missing, into the user's cache
#   elasticmq.sh start DIR    starts it, with the data and the port that DIR knows; prints its variable
#   elasticmq.sh stop DIR     ends it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

verb=${1:-}
dir=${2:-}
libs=$(cache)/elasticmq-$(version_of "$here/elasticmq")

case $verb in
install)
	maven "$here/elasticmq" "$libs"
	;;
start)
	mkdir -p "${dir:?a folder is needed}/elasticmq"
	port=$(port_of "$dir" elasticmq)
	cat >"$dir/elasticmq.conf" <<-X
		include classpath("application.conf")
		node-address { protocol = http, host = 127.0.0.1, port = $port, context-path = "" }
		rest-sqs { enabled = true, bind-port = $port, bind-hostname = "127.0.0.1", sqs-limits = strict }
		rest-stats { enabled = false }
		queues-storage { enabled = true, path = "$dir/elasticmq/queues.conf" }
		messages-storage {
			enabled = true, driver-class = "org.h2.Driver", uri = "jdbc:h2:$dir/elasticmq/h2;WRITE_DELAY=0"
			username = "", password = "", prune-data-on-init = false
		}
	X
	java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dconfig.file="$dir/elasticmq.conf" \
		-cp "$libs/*" org.elasticmq.server.Main </dev/null >>"$dir/elasticmq.log" 2>&1 &
	echo $! >"$dir/elasticmq.pid"
	wait_for "$port" $! "$dir/elasticmq.log"
	echo "export ACKWISE_TEST_ELASTICMQ=http://127.0.0.1:$port"
	;;
stop)
	end "${dir:?a folder is needed}/elasticmq.pid"
	;;
*)
	fail "usage: elasticmq.sh install | start DIR | stop DIR"
	;;
esac
