#!/usr/bin/env bash
# A Postgres for the tests. What it has committed is synced.
#   postgres.sh install      installs what is missing
#   postgres.sh start DIR    starts it, with the data and the port that DIR knows; prints its variable
#   postgres.sh stop DIR     ends it
# Postgres refuses to run as root: there it runs as the user ackwise-postgres.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

verb=${1:-}
dir=${2:-}
user=ackwise-postgres

# Prints where the newest version's programs are; Debian keeps them out of PATH.
programs() {
	find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null |
		sort -V | tail -n 1 | xargs -r dirname
}

as() {
	if [ "$(id -u)" = 0 ]; then runuser -u "$user" -- "$@"; else "$@"; fi
}

# Starts the server. After a kill its children may hold the memory for a moment longer: then it is
# started again.
launch() {
	for _ in $(seq 20); do
		as "$bin/postgres" -D "$dir/postgres" </dev/null >>"$dir/postgres.log" 2>&1 &
		for _ in $(seq 300); do
			if as "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; then
				head -n 1 "$dir/postgres/postmaster.pid" >"$dir/postgres.pid"
				return 0
			fi
			if ! lives $!; then break; fi
			sleep 0.1
		done
		sleep 0.5
	done
	tail -n 20 "$dir/postgres.log" >&2 || true
	fail "Postgres does not start; its log is $dir/postgres.log"
}

case $verb in
install)
	if [ -n "$(programs)" ]; then exit 0; fi
	need pg_lsclusters postgresql # its wrapper, in PATH
	if [ -z "$(programs)" ]; then fail "install postgresql: initdb is still missing"; fi
	;;
start)
	bin=$(programs)
	if [ -z "$bin" ]; then fail "Postgres is not installed: run postgres.sh install"; fi
	mkdir -p "${dir:?a folder is needed}/postgres"
	if [ "$(id -u)" = 0 ]; then
		id "$user" >/dev/null 2>&1 || useradd --system --no-create-home "$user"
		chown "$user" "$dir/postgres"
		chmod 700 "$dir/postgres"
	fi
	port=$(port_of "$dir" postgres)
	cd "$dir" # the user may not be allowed where this was started
	if [ ! -s postgres/PG_VERSION ]; then
		as "$bin/initdb" -D "$dir/postgres" -U postgres -A trust -E UTF8 --locale=C \
			>>"$dir/postgres.log" 2>&1 || fail "initdb failed; its log is $dir/postgres.log"
		printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $port" \
			"unix_socket_directories = ''" "max_connections = 200" "wal_level = logical" |
			as tee -a "$dir/postgres/postgresql.conf" >/dev/null
	fi
	launch
	echo "export ACKWISE_TEST_POSTGRES='postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable'"
	;;
stop)
	pid="${dir:?a folder is needed}/postgres.pid"
	if [ -s "$pid" ]; then kill -INT "$(cat "$pid")" 2>/dev/null || true; fi # do not wait for clients
	end "$pid"
	;;
*)
	fail "usage: postgres.sh install | start DIR | stop DIR"
	;;
esac
