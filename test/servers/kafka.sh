#!/usr/bin/env bash
# A Kafka broker for the tests, one node, KRaft.
#   kafka.sh install           installs what is missing, into the user's cache
#   kafka.sh start DIR [PORT [FILE]]
#                              starts it, with the data and the port that DIR knows; prints its
#                              variable. With PORT it has a second address, in kafka-proxied.port:
#                              who connects there is told that the broker is at PORT, where a proxy
#                              listens. With FILE, which holds more settings, it has the listeners
#                              TLS and LOGIN (TLS and SASL) too, in kafka-tls.port and
#                              kafka-login.port
#   kafka.sh stop DIR          ends it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

verb=${1:-}
dir=${2:-}
libs=$(cache)/kafka-$(version_of "$here/kafka")
run=(java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$libs/*"
	"-Dlog4j2.configurationFile=$here/kafka/log4j2.properties")

# Prints the broker's settings: the shortest times that a slow machine still keeps.
settings() {
	local listeners=PLAINTEXT://127.0.0.1:$port protocols=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
	local advertised=$listeners
	if [ -n "$proxy" ]; then
		listeners=$listeners,PROXIED://127.0.0.1:$(port_of "$dir" kafka-proxied)
		advertised=$advertised,PROXIED://127.0.0.1:$proxy
		protocols=$protocols,PROXIED:PLAINTEXT
	fi
	if [ -n "$more" ]; then
		local secure
		secure=TLS://127.0.0.1:$(port_of "$dir" kafka-tls),LOGIN://127.0.0.1:$(port_of "$dir" kafka-login)
		listeners=$listeners,$secure
		advertised=$advertised,$secure
		protocols=$protocols,TLS:SSL,LOGIN:SASL_SSL
	fi
	cat <<-X
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$controller
		controller.listener.names=CONTROLLER
		listeners=$listeners,CONTROLLER://127.0.0.1:$controller
		advertised.listeners=$advertised
		listener.security.protocol.map=$protocols
		inter.broker.listener.name=PLAINTEXT
		log.dirs=$dir/kafka/data
		auto.create.topics.enable=false
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=5
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=5
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		share.coordinator.state.topic.num.partitions=5
		group.initial.rebalance.delay.ms=0
		group.min.session.timeout.ms=1000
		group.consumer.min.session.timeout.ms=1000
		group.consumer.session.timeout.ms=6000
		group.consumer.min.heartbeat.interval.ms=500
		group.consumer.heartbeat.interval.ms=1000
		group.share.min.session.timeout.ms=1000
		group.share.session.timeout.ms=6000
		group.share.min.heartbeat.interval.ms=500
		group.share.heartbeat.interval.ms=1000
		group.share.min.record.lock.duration.ms=1000
		group.share.record.lock.duration.ms=5000
		broker.session.timeout.ms=2000
		broker.heartbeat.interval.ms=500
	X
	if [ -n "$more" ]; then cat "$more"; fi
}

case $verb in
install)
	maven "$here/kafka" "$libs"
	;;
start)
	mkdir -p "${dir:?a folder is needed}/kafka"
	port=$(port_of "$dir" kafka)
	controller=$(port_of "$dir" kafka-controller)
	proxy=${3:-}
	more=${4:-}
	settings >"$dir/kafka.properties"
	if [ ! -s "$dir/kafka/data/meta.properties" ]; then
		# Never a dash in front: it would be taken for an option.
		id=A$(head -c 16 /dev/urandom | base64 | tr +/ -_ | cut -c 2-22)
		"${run[@]}" kafka.tools.StorageTool format -t "$id" -c "$dir/kafka.properties" \
			>>"$dir/kafka.log" 2>&1 || fail "format Kafka's folder: $(tail -n 3 "$dir/kafka.log")"
	fi
	"${run[@]}" kafka.Kafka "$dir/kafka.properties" </dev/null >>"$dir/kafka.log" 2>&1 &
	echo $! >"$dir/kafka.pid"
	wait_for "$port" $! "$dir/kafka.log"
	echo "export ACKWISE_TEST_KAFKA=127.0.0.1:$port"
	;;
stop)
	end "${dir:?a folder is needed}/kafka.pid"
	;;
*)
	fail "usage: kafka.sh install | start DIR [PORT [FILE]] | stop DIR"
	;;
esac
