#!/usr/bin/env bash
# Runs the whole pipeline, relay as Lambda and as a process, on real servers and prints the table.
#   run.sh           all 27,004 changes        ACKWISE_FAULTS= run.sh    a sample of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
go=${GO:-go}
export ACKWISE_FAULTS=${ACKWISE_FAULTS-long}
# Compiled before: there is no network beside the servers to download a module from.
"$go" test -count=1 -run '^$' ./examples/orders-relay
"$go" build ./cmd/... ./test/nakadi/...
SERVERS="dynamodb elasticmq moto" exec bash test/servers/with.sh \
	"$go" test -count=1 -timeout 150m -v -run '^TestRealOrdersRelay$' ./examples/orders-relay
