# Ackwise. `make` shows what there is.

GO       ?= go
FUZZTIME ?= 3s
BENCH    ?= .

# The race detector needs a C compiler on most systems. Without one, `make test` still runs.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

LINT := $(GO) tool -modfile=tools/lint.mod golangci-lint

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

.PHONY: build
build: ## compile everything and put the command into bin/
	$(GO) build ./...
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

.PHONY: test
test: ## run all tests, shuffled, with the race detector where a C compiler is present
	@# The crash states are many and play in one goroutine at a time: they run without it.
	$(if $(RACE),,@echo "no C compiler found: running without the race detector")
	$(GO) test $(RACE) -shuffle=on -skip '^TestFault' ./...
	$(GO) test -shuffle=on -run '^TestFault' ./queue/... ./internal/vfs

.PHONY: race
race: ## run all tests with the race detector, or fail where it cannot work
	$(GO) test -race -shuffle=on -count=1 ./...

.PHONY: lint
lint: ## check format and run the linters (the first run builds the linter)
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then \
		echo "not formatted (run gofmt -w on them):"; echo "$$unformatted"; exit 1; fi
	$(LINT) run

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (3s) each
	FUZZTIME=$(FUZZTIME) bash test/fuzz.sh

.PHONY: faults
faults: ## run the long fault tests: kills, cuts and crashes by the hundred (takes a while)
	ACKWISE_FAULTS=long $(GO) test -count=1 -v -run '^TestMachine$$' ./test/kill
	ACKWISE_FAULTS=long $(GO) test -shuffle=on -count=1 -timeout 120m ./...
	ACKWISE_FAULTS=long GO="$(GO)" bash test/servers/real.sh 60m

.PHONY: real
real: ## run the tests that need real servers: Kafka, ElasticMQ, moto, DynamoDB Local, Postgres, Redis
	GO="$(GO)" bash test/servers/real.sh

.PHONY: real-kubernetes
real-kubernetes: ## apply deploy/ to a real Kubernetes API (the first run builds it, some 6 minutes)
	$(GO) test -count=1 -run '^$$' ./deploy
	SERVERS="elasticmq kubernetes" bash test/servers/with.sh $(GO) test -count=1 -v -timeout 10m ./deploy

.PHONY: orders
orders: ## run the reference pipeline on all 27,004 changes, with every fault, and print its table
	GO="$(GO)" bash examples/orders-relay/run.sh

.PHONY: bench
bench: ## run the benchmarks, then the command's own bench
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...
	$(GO) run ./cmd/ackwise bench

.PHONY: compare
compare: ## receive + ack beside bbolt, in a module of its own
	$(GO) run -C test/compare .
