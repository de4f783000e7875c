#!/usr/bin/env bash
# moto (SNS and SQS) for the tests. It keeps everything in memory: a killed one has lost it.
#   moto.sh install      installs what is missing, into the user's cache
#   moto.sh start DIR    starts it, at the port that DIR knows; prints its variable
#   moto.sh stop DIR     ends it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

verb=${1:-}
dir=${2:-}
version=5.2.5
home=$(cache)/moto-$version

case $verb in
install)
	need python3 python3
	if [ -x "$home/bin/moto_server" ]; then exit 0; fi
	python3 -c 'import venv, ensurepip' 2>/dev/null || packages python3-venv
	rm -rf "$home"
	python3 -m venv "$home" >&2 || fail "install moto: no Python environment can be made"
	"$home/bin/pip" install -q --disable-pip-version-check "moto[server]==$version" >&2 ||
		{ rm -rf "$home"; fail "install moto $version: pip failed"; }
	;;
start)
	mkdir -p "${dir:?a folder is needed}"
	port=$(port_of "$dir" moto)
	"$home/bin/python" "$home/bin/moto_server" -H 127.0.0.1 -p "$port" \
		</dev/null >>"$dir/moto.log" 2>&1 &
	echo $! >"$dir/moto.pid"
	wait_for "$port" $! "$dir/moto.log"
	echo "export ACKWISE_TEST_MOTO=http://127.0.0.1:$port"
	;;
stop)
	end "${dir:?a folder is needed}/moto.pid"
	;;
*)
	fail "usage: moto.sh install | start DIR | stop DIR"
	;;
esac
