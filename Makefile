# Holdfast: `make demo` shows the product at work, `make test` passes the tests, `make help` lists the rest.
SHELL := /bin/bash
export CGO_ENABLED ?= 0
GO      ?= go
BIN     := $(CURDIR)/bin
CACHE   := $(CURDIR)/.cache
CMDS    := clstrmgrd cldeadman clmgr clstat cllab
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CACHE)/golangci-lint-$(GOLANGCI_VERSION)
PLATFORMS := linux/amd64 linux/ppc64le linux/ppc64 aix/ppc64
LINKS   := clRGinfo clRGmove cltopinfo cllsif clshowres clshowsrv cldump cldisp clverify clsnapshot lscluster clcmd cl_nodecmd
NFPM_VERSION := v2.45.0
NFPM    := $(CACHE)/nfpm-$(NFPM_VERSION)
DIST    ?= $(CURDIR)/dist
FORMATS ?= deb rpm
PACKAGE_PLATFORMS ?= amd64 ppc64le
PACKAGE_SOURCE ?= $(CURDIR)
PACKAGE_VERSION ?= 0.1.$(shell git rev-list --count HEAD 2>/dev/null || echo 0)

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build all binaries into bin/
	@install -d -m 755 $(BIN)
	umask 022; $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(CMDS))
	@ln -sf cllab $(BIN)/fence_cllab
	@for n in $(LINKS); do ln -sf clmgr $(BIN)/$$n; done

packages: $(NFPM) ## deb and rpm packages for Linux into dist/: FORMATS, PACKAGE_PLATFORMS, PACKAGE_VERSION
	@for a in $(PACKAGE_PLATFORMS); do mkdir -p $(CACHE)/package/$$a; \
	  (umask 022; cd $(PACKAGE_SOURCE); GOOS=linux GOARCH=$$a CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(CACHE)/package/$$a/ $(addprefix ./cmd/,clstrmgrd cldeadman clmgr clstat)) && \
	  NFPM=$(NFPM) LINKS='$(LINKS)' ./deploy/package/build.sh $(CACHE)/package/$$a $(DIST) $(PACKAGE_VERSION) $$a $(FORMATS) || exit 1; done
	@ls $(DIST)

demo: build ## a cluster of three nodes on this machine, a crash, and a client that goes on
	@./test/e2e/demo.sh

test: ## unit, property, scenario, simulation, fake-time and real-process tests
	@./test/run.sh test

# A bubble of testing/synctest has one context of the race detector for all its timers, and in Go 1.26 two threads that run timers of one
# bubble at once (runtime.(*timer).maybeRunChan) write over it together and crash: so one thread runs Go code there. What races is found
# by the order of events, not by two threads meeting.
RACED := ./pkg/... ./test/cluster/... ./test/sim/...
BUBBLES = $(GO) list -test -f '{{$$p := .ForTest}}{{range .Deps}}{{if eq . "testing/synctest"}}{{$$p}}{{"\n"}}{{end}}{{end}}' $(RACED) | sort -u | sed '/^$$/d'

race: ## the tests of the packages under the race detector (needs a C compiler)
	@export CGO_ENABLED=1; bubbles=$$($(BUBBLES)); [ -n "$$bubbles" ] || exit 1; set -x; \
	$(GO) test -race -short -timeout 20m -cpu 1 $$bubbles && \
	$(GO) test -race -short -timeout 20m $$($(GO) list $(RACED) | grep -vxF "$$bubbles")

docs: ## write the pages, manuals and completion files that are made from the tables anew
	$(GO) test ./pkg/cli -run "^TestGenerated$$" -count=1 -args -update
	$(GO) test ./pkg/server -run "^TestDescriptionIsUpToDate$$" -count=1 -args -update

lint: $(GOLANGCI) ## gofmt, vet, linters
	@out=$$(gofmt -l cmd deploy pkg test); [ -z "$$out" ] || { echo "gofmt would change: $$out"; exit 1; }
	$(GO) vet ./...
	$(GOLANGCI) run --allow-serial-runners --max-issues-per-linter 0 --max-same-issues 0 ./...

sim: ## the seeded simulation: prints seeds and steps; STEPS=n, SEED=n
	$(GO) test ./test/sim -run '^TestSim$$' -count=1 -v -timeout 40m -sim.steps=$(or $(STEPS),300000) $(if $(SEED),-sim.seed=$(SEED))

locks: ## competing clients of locks under faults, in fake time: 200 histories judged by porcupine; N=n, SEED=n
	$(GO) test ./test/cluster -run TestLockHistories -count=1 -v -timeout 40m -cluster.histories=$(or $(N),200) $(if $(SEED),-cluster.seed=$(SEED))

e2e: build ## real processes in network namespaces (root, or user namespaces)
	$(GO) test ./test/e2e -count=1 -v -timeout 40m

bench: ## the benchmarks of the packages
	$(GO) test ./pkg/... -run XXX -bench . -benchmem

measure: build ## failover times with their breakdown, idle costs, 32 nodes, on a lab: RUNS=n of each (default 30), CASE=Crash/fast
	$(GO) test ./test/e2e -run XXX -bench '$(or $(CASE),.)' -benchtime $(or $(RUNS),30)x -timeout 0

agents-table: ## write docs/ocf-agents.md anew: what each OCF agent installed here says of itself, and whether it runs (root)
	$(GO) run ./test/ocftable > docs/ocf-agents.md.new && mv docs/ocf-agents.md.new docs/ocf-agents.md || { rm -f docs/ocf-agents.md.new; exit 1; }

fuzz: ## each fuzz target for FUZZTIME (default 20s)
	@./test/run.sh fuzz $(or $(FUZZTIME),20s)

mutate: ## how many small mistakes in the planner and the state the tests notice: N=per package, SEED=n, PKG=pkg/state
	$(GO) run ./test/mutate -n $(or $(N),180) -seed $(or $(SEED),1) $(PKG)

cross: ## build and vet, tests included, for every platform that is promised
	@for t in $(PLATFORMS); do export GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0; \
	  echo "build and vet $$t"; $(GO) build ./... && $(GO) vet ./... || exit 1; done

verify: lint cross test ## all that must hold before a commit

clean: ## remove what was built
	rm -rf $(BIN) $(CACHE) $(DIST)

$(GOLANGCI):
	@mkdir -p $(CACHE)
	@echo "installing golangci-lint $(GOLANGCI_VERSION)"
	GOFLAGS= GOBIN=$(CACHE) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(CACHE)/golangci-lint $@

$(NFPM):
	@mkdir -p $(CACHE)
	@echo "installing nfpm $(NFPM_VERSION)"
	GOFLAGS= GOBIN=$(CACHE) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	@mv $(CACHE)/nfpm $@

.PHONY: help build packages docs demo test race lint sim e2e bench measure agents-table fuzz mutate cross verify clean
