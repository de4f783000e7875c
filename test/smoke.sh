#!/usr/bin/env bash
# The command from a user's side: version, publish, consume, audit, verify, and calls that must
# fail with the right exit code and a message that helps. Ends with 0 when all is as expected.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ackwise=$work/ackwise
CGO_ENABLED=0 go build -trimpath -o "$ackwise" ./cmd/ackwise
dir=$work/store

die() {
	echo "smoke: $1" >&2
	for f in "$work"/out "$work"/err; do
		if [ -s "$f" ]; then echo "--- $(basename "$f")" >&2; head -20 "$f" >&2; fi
	done
	exit 1
}

# expect CODE ARGS… runs the command, which must end with CODE within 30 s.
expect() {
	local want=$1 code=0
	shift
	timeout 120 "$ackwise" "$@" >"$work/out" 2>"$work/err" || code=$?
	[ "$code" = "$want" ] || die "ackwise $*: exit code $code, want $want"
	# A call that was refused says why; 3 is a finding, which is output.
	if [ "$want" = 1 ] || [ "$want" = 2 ]; then
		[ -s "$work/err" ] || die "ackwise $*: failed without a word on standard error"
	fi
}

# says TEXT checks the last call's output or error text.
says() { grep -qF -- "$1" "$work/out" "$work/err" || die "expected to read: $1"; }

echo "smoke: version and usage"
expect 0 version
says ackwise
expect 0 --help
says consume
expect 2 no-such-command
expect 2 publish                      # no directory, no topic
expect 2 publish --dir "$dir" --no-such-flag orders

echo "smoke: unknown things are errors, and make nothing"
expect 1 publish --dir "$dir" orders /dev/null
[ ! -e "$dir" ] || die "a publish without --create made the directory"

echo "smoke: publish"
seq 1 100 | sed 's/.*/{"id":"o-&","customer":"c-&","amount":&}/' >"$work/in"
expect 0 publish --dir "$dir" --create --id-field id --key-field customer --print-ids \
	orders "$work/in"
[ "$(wc -l <"$work/out")" = 100 ] || die "100 lines published, but not 100 IDs printed"
cut -d'"' -f4 "$work/in" | cmp -s - "$work/out" || die "the printed IDs are not those published"
expect 0 publish --dir "$dir" --create --id-field id --print-ids --key-field customer \
	orders "$work/in" # again: duplicates, whose IDs are printed too
[ "$(wc -l <"$work/out")" = 100 ] || die "a repeated publish did not print 100 IDs"
expect 1 publish --dir "$dir" order "$work/in"
says orders # the nearest name
expect 2 publish --dir "$dir" --create .hidden "$work/in"
says hidden
printf 'not JSON\n' >"$work/bad"
expect 1 publish --dir "$dir" --id-field id --on-bad stop orders "$work/bad"
says 1 # the line number

echo "smoke: consume"
expect 1 consume --dir "$dir" --until-empty --exec true orders/billing # no such subscription
expect 0 consume --dir "$dir" --create --until-empty --print-acks --exec "cat >>'$work/got'" \
	--concurrency 4 orders/billing
[ "$(sort -u "$work/out" | wc -l)" = 100 ] || die "not every message was acked"
[ "$(wc -l <"$work/out")" = 100 ] || die "an ack was printed twice"
[ "$(tr -d '\n' <"$work/got" | grep -oE '"id":"o-[0-9]+"' | sort -u | wc -l)" = 100 ] ||
	die "not every message reached its handler"
expect 0 consume --dir "$dir" --until-empty --print-acks --exec true orders/billing
[ ! -s "$work/out" ] || die "an acked message came back"

echo "smoke: a handler that fails makes dead letters"
expect 0 publish --dir "$dir" --create --id-field id returns "$work/in"
expect 0 consume --dir "$dir" --create --until-empty --exec false --max-failures 2 \
	--backoff 1ms returns/broken
expect 0 dead list --dir "$dir" --json returns/broken
[ "$(grep -oE '"o-[0-9]+"' "$work/out" | sort -u | wc -l)" = 100 ] ||
	die "not every message is among the dead letters"

echo "smoke: the books and the directory"
expect 0 audit --dir "$dir"
expect 0 verify --dir "$dir"

echo "smoke: damage is found and named"
cp -r "$dir" "$work/damaged"
file=$(grep -rlaF '"id":"o-3"' "$work/damaged" | sort | sed -n 1p) || die "no file holds o-3"
offset=$(grep -aboF '"id":"o-3"' "$file" | sed -n 1p | cut -d: -f1)
printf 'X' | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
expect 3 verify --dir "$work/damaged"
says "$(basename "$file")"

echo "smoke: once, and what lint says of it"
cat >"$work/once.yaml" <<EOF
pipelines:
  - name: once
    from: queue://$work/once/orders/effects
    exec: printf '%s\\n' "\$(cat)" >> $work/effects
    create: true
EOF
expect 3 lint "$work/once.yaml"
says 'once.yaml:2: the pipeline "once"'
echo '    pattern: dedupe' >>"$work/once.yaml"
expect 3 lint "$work/once.yaml"
says 'did you mean "dedup"?'
sed -i 's/dedupe/dedup/' "$work/once.yaml"
expect 0 lint "$work/once.yaml"
for field in id customer; do # each order twice, with two IDs for the topic and one body
	expect 0 publish --dir "$work/once" --create --id-field "$field" orders "$work/in"
done
sed -i 's/pattern: dedup/&\n    dedup: {by: body}/' "$work/once.yaml"
expect 0 run --until-empty "$work/once.yaml"
[ "$(wc -l <"$work/effects")" = 100 ] || die "200 messages of 100 bodies had not 100 effects"
expect 0 bench dedup --dir "$work/bench" --seconds 0.01 --rounds 1 --json
says '"plain": "publish"'

echo "smoke: dead letters go on to a sink, until accepted"
cat >"$work/redrive.yaml" <<EOF
redrive:
  - name: back
    from: queue://$dir/returns/broken
    to: file://$work/redriven
    transform: {set_headers: {x-by: smoke}}
EOF
expect 0 redrive --once "$work/redrive.yaml" --dry-run
says 'back: dead letters of'
expect 0 redrive --once "$work/redrive.yaml"
says '"accepted":100,"left":0'
[ "$(wc -l <"$work/redriven")" = 100 ] || die "not every dead letter arrived"
expect 0 redrive --once "$work/redrive.yaml"
says '"accepted":0,"left":0'
expect 0 audit --dir "$dir"
expect 2 redrive --once "$work/redrive.yaml" --all
says '--once stands alone'

echo "smoke: other systems by their addresses"
cat >"$work/other.yaml" <<EOF
pipelines:
  - name: other
    from: kafka://127.0.0.1:1/orders?gruop=smoke
    to: htps://example.com/hook
    dead: sqs://eu-central-1/dlq
EOF
expect 3 lint "$work/other.yaml"
says 'other.yaml:3: from: there is no option "gruop"; did you mean "group"?'
says 'other.yaml:4: to: unknown endpoint "htps://…"; did you mean "https://"?'
sed -i 's/gruop/group/; s/htps/https/' "$work/other.yaml"
expect 0 run --dry-run "$work/other.yaml"
expect 3 lint "$work/other.yaml"
says 'keeps its dead letters in SQS'

echo "smoke: health and metrics"
expect 2 run --listen 0.0.0.0:0 "$work/once.yaml"
says --insecure
"$ackwise" run --listen 127.0.0.1:0 "$work/once.yaml" >"$work/out" 2>"$work/err" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
page() { # PATH, and the text that it has to hold within 30 s
	local address='' n
	for n in $(seq 300); do
		address=$(sed -nE 's/.*address=([0-9.:]+).*/\1/p' "$work/err" | sed -n 1p)
		if [ -n "$address" ] && exec 3<>"/dev/tcp/${address%:*}/${address##*:}"; then
			printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
			cat <&3 >"$work/page"
			if grep -qF -- "$2" "$work/page"; then return 0; fi
		fi
		sleep 0.1
	done
	die "$1 does not say $2"
}
page /livez '200 OK'
page /readyz 'once: receiving'
page /metrics 'ackwise_receiving{pipeline="once"} 1'
kill -TERM "$pid"
wait "$pid" || die "it did not end with 0 on SIGTERM"

echo "smoke: the demo"
expect 0 demo --json --seed 7
for part in '"violations": *0' '"balanced": *true' '"truth_miles": *26859611'; do
	tr -d '\n' <"$work/out" | grep -qE "$part" || die "the demo does not say $part"
done

echo "smoke: ok"
