# What a person does with this repository. `make run` is the place to begin.

HANSA   := bin/hansa
RECORDS ?= 2000
PORT    ?= 7050
BENCH   ?= --duration 5s

# Folders with Node packages, each installed from its lock file when that changes.
NODE := $(patsubst %/package-lock.json,%,$(wildcard e2e/*/package-lock.json examples/*/package-lock.json examples/contracts/*/package-lock.json))

# The binary says from which commit it is, where there is one.
VCS := -buildvcs=$(if $(shell git rev-parse HEAD 2>/dev/null),true,false)

.PHONY: help build run smoke test conformance bench faults soak clusters generate lint clean
.DEFAULT_GOAL := help

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/hansa: one static binary with every role
	@CGO_ENABLED=0 go build $(VCS) -trimpath -o $(HANSA) ./cmd/hansa

run: build examples ## start a network in ./run, load shipments with two applications, and stay
	@exec bin/mainjob run -hansa $(HANSA) -records $(RECORDS) -port $(PORT)

smoke: build examples ## the same in a temporary folder, without staying; the last line is JSON
	@exec bin/mainjob smoke -hansa $(HANSA)

test: build node ## all tests
	go test -p 2 -timeout 30m ./...

conformance: build node ## every feature of Fabric with its stock clients and contracts; writes docs/compatibility.md
	@go test -c -o bin/conformance ./e2e/conformance && cd e2e/conformance && HANSA_BINARY=$(abspath $(HANSA)) $(abspath bin/conformance) -test.run TestConformance -print -update

bench: build ## throughput, latency and CPU of a fresh network (BENCH="--concurrency 1,64 --json")
	@dir=$$(mktemp -d) && trap '$(HANSA) down --data '$$dir' --purge' EXIT && \
	$(HANSA) up --data $$dir --port 0 --detach >/dev/null && $(HANSA) bench --data $$dir $(BENCH)

faults: ## 200 seeded rounds of faults in a network of namespaces (FAULTS_ROUNDS=N FAULTS_SEED=N), and simulated ones
	HANSA_SIMULATIONS=$(SIMULATIONS) go test -count=1 -v -timeout 1h -run Simulation ./internal/order/raft
	@$(RUN_FAULTS) -test.timeout 4h

soak: ## the same for FAULTS_DURATION (8h)
	@FAULTS_DURATION=$(FAULTS_DURATION) $(RUN_FAULTS) -test.timeout 0

clusters: build ## throughput and latency of 1, 3, 5 and 7 orderers side by side
	@go run ./e2e/clusters -hansa $(HANSA)

FAULTS_ROUNDS   ?= 200
FAULTS_DURATION ?= 8h
SIMULATIONS     ?= 3000
RUN_FAULTS = go test -c -o bin/faults.test ./e2e/faults && cd e2e/faults && FAULTS_DISTORT=1 FAULTS_ROUNDS=$(FAULTS_ROUNDS) FAULTS_RESULT=$(CURDIR)/bin/faults.json FAULTS_KEEP=$(CURDIR)/bin \
	$(CURDIR)/bin/faults.test -test.v -test.run TestFaults

generate: ## the Go code of proto/hansa, anew
	go run -C tools ./protogen

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt -w these"; exit 1; }
	go vet ./...
	go build -C tools -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...

clean: ## remove what was built, not the network in ./run
	rm -rf bin $(addsuffix /node_modules,$(NODE))

.PHONY: examples node
examples: examples/app-node/node_modules/.package-lock.json
	@CGO_ENABLED=0 go build -trimpath -o bin/ ./examples/mainjob ./examples/app-go

node: $(NODE:%=%/node_modules/.package-lock.json)

%/node_modules/.package-lock.json: %/package-lock.json
	@echo "npm ci in $*"
	@cd $* && npm ci --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json
