# shellcheck shell=bash
# What the scripts of this folder share. They are sourced into `set -euo pipefail`.

# Says what is wrong, and ends.
fail() {
	echo "$*" >&2
	exit 1
}

# Installs packages where their program is missing: need PROGRAM PACKAGE…
need() {
	if command -v "$1" >/dev/null; then return 0; fi
	echo "installing ${*:2} for $1" >&2
	packages "${@:2}"
	command -v "$1" >/dev/null || fail "install ${*:2}: $1 is still missing"
}

# Installs packages.
packages() {
	local as=()
	if [ "$(id -u)" != 0 ]; then as=(sudo); fi
	"${as[@]}" apt-get update -qq >&2 &&
		DEBIAN_FRONTEND=noninteractive "${as[@]}" apt-get install -y -qq --no-install-recommends \
			"$@" >&2 || fail "install $*: apt-get failed"
}

# Reports whether something answers at a port of this machine.
answers() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Prints the port of a server: the one that its folder knows, so that a restart is found where it
# was, or a free one: port_of DIR NAME
# Whoever else starts a server before this one listens does not get the same: it is claimed for some
# minutes.
port_of() {
	local file=$1/$2.port claims port
	if [ -s "$file" ]; then
		cat "$file"
		return 0
	fi
	claims=$(cache)/ports
	mkdir -p "$claims"
	find "$claims" -mindepth 1 -mmin +5 -delete 2>/dev/null || true # another may be faster
	for _ in $(seq 50); do
		port=$((20000 + RANDOM % 12000))
		if ! answers "$port" && mkdir "$claims/$port" 2>/dev/null; then
			echo "$port" >"$file"
			echo "$port"
			return 0
		fi
	done
	fail "no free port found"
}

# Waits until a server answers at its port, while it lives: wait_for PORT PID LOG
wait_for() {
	for _ in $(seq 2400); do
		if answers "$1"; then return 0; fi
		if ! kill -0 "$2" 2>/dev/null; then break; fi
		sleep 0.1
	done
	tail -n 20 "$3" >&2 || true
	fail "the server with the pid $2 does not answer at port $1; its log is $3"
}

# Ends the process of a pid file and waits for it, 20 s at most before it is killed. One that was
# frozen is thawed.
end() {
	local pid
	if [ ! -s "$1" ]; then return 0; fi
	pid=$(cat "$1")
	kill "$pid" 2>/dev/null || true
	kill -CONT "$pid" 2>/dev/null || true
	for _ in $(seq 200); do
		if ! lives "$pid"; then break; fi
		sleep 0.1
	done
	if lives "$pid"; then kill -9 "$pid" 2>/dev/null || true; fi
	for _ in $(seq 50); do
		if ! lives "$pid"; then break; fi
		sleep 0.1
	done
	rm -f "$1"
}

# Reports whether a process lives. One that has ended and was not waited for does not.
lives() {
	local state
	state=$(ps -o stat= -p "$1" 2>/dev/null) || return 1
	case $state in Z*) return 1 ;; esac
}

# Where what has to be downloaded is kept, in the user's cache.
cache() {
	echo "${XDG_CACHE_HOME:-${HOME:?a home folder is needed for the cache}/.cache}/ackwise"
}

# Prints the version of a server that Maven downloads: version_of FOLDER
version_of() {
	sed -n 's:.*<server.version>\(.*\)</server.version>.*:\1:p' "$1/pom.xml"
}

# Downloads a server and what it needs, as its pom.xml names it, into libs: maven FOLDER LIBS
maven() {
	need java openjdk-17-jre-headless
	if [ -d "$2" ]; then return 0; fi
	need mvn maven
	mkdir -p "$(dirname "$2")"
	local fresh
	fresh=$(mktemp -d "$2.XXXXXX")
	mkdir "$fresh/build"
	cp "$1/pom.xml" "$fresh/build/"
	if ! mvn -q -B -f "$fresh/build/pom.xml" dependency:copy-dependencies \
		-DoutputDirectory="$fresh/libs" -DincludeScope=runtime >&2; then
		rm -rf "$fresh"
		fail "download $2: maven failed"
	fi
	mv -T "$fresh/libs" "$2" 2>/dev/null || [ -d "$2" ] # somebody else may have been faster
	rm -rf "$fresh"
}
