# ontagent: `make help` lists what there is to make.

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME  ?= 20s

# Tools are pinned here, not in go.mod: nothing of ours imports them.
GOLANGCI_VERSION    := v2.15.0
GOVULNCHECK_VERSION := v1.8.0

# When the source was committed: a time that has certainly passed.
BUILT     ?= $(shell git log -1 --format=%ct 2>/dev/null)
LDFLAGS   := -s -w -buildid= -X main.version=$(VERSION) -X main.built=$(BUILT)
BUILD      = CGO_ENABLED=0 $(GO) build -trimpath -mod=readonly $(GCFLAGS) -ldflags "$(LDFLAGS)"
PLATFORMS := linux-amd64 linux-386 linux-arm64 linux-arm7 linux-arm5 linux-mipsle linux-mips

# A checkout without version control builds as well.
export GOFLAGS += -mod=readonly -buildvcs=false
# Where Debian keeps mosquitto and ip.
export PATH := $(PATH):/usr/sbin:/sbin

TOOLS     = $(or $(shell $(GO) env GOPATH 2>/dev/null),.cache)/tools
GOLANGCI  = $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

## Building

.PHONY: help
help: ## list the targets (this)
	@awk 'BEGIN { FS = ":.*## " } \
		/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: need-go ## build bin/ontagent, bin/ontctl and bin/ontlab for this machine
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

.PHONY: build-all
build-all: $(PLATFORMS:%=dist/%) ## cross-build dist/PLATFORM/ontagent for every kind of gateway

dist/linux-mips dist/linux-mipsle: export GOMIPS := softfloat
# Inlining in our own packages, and in what is not busy, would cost nearly a MiB
# of flash there. Where the processor's time goes it stays: in Go's runtime, in
# encoding with what that calls (JSON would take twice as long), and below the
# cryptography that signs and connects (P-256 would take five times as long).
SMALL := ontagent/... github.com/... go.bug.st/... golang.org/x/net/... golang.org/x/sys/... \
	net net/... mime/... regexp/... log/... os/... io/fs path path/filepath fmt flag time context bufio sort math/big \
	vendor/golang.org/x/net/... vendor/golang.org/x/text/... \
	encoding/asn1 encoding/hex encoding/pem compress/flate compress/gzip html vendor/golang.org/x/crypto/cryptobyte/... \
	crypto/x509/... crypto/tls/... crypto/rsa crypto/ecdsa crypto/ecdh crypto/elliptic crypto/hpke crypto/mlkem \
	$(addprefix crypto/internal/fips140/,rsa ecdsa ecdh) \
	io errors unicode/... $(addprefix internal/,runtime/atomic poll syscall/... abi godebug bisect fmtsort filepathlite testlog reflectlite)
dist/linux-mips dist/linux-mipsle: GCFLAGS := $(SMALL:%=-gcflags='%=-l')
# go.bug.st/serial compiles a regular expression when the program starts, for a
# list of ports that ontagent never asks for. It brings the parser of such
# expressions and Unicode's tables, 190 KiB. Compiled when the list is asked for,
# the linker leaves all that out.
LAZY := .cache/lazy.mod
dist/linux-mips dist/linux-mipsle: GCFLAGS += -modfile=$(LAZY)
dist/linux-mips dist/linux-mipsle: $(LAZY)
$(LAZY): go.mod go.sum Makefile | need-go
	@mkdir -p .cache && rm -rf .cache/serial
	@$(GO) mod download go.bug.st/serial
	@cp -r "$$($(GO) list -m -f '{{.Dir}}' go.bug.st/serial)" .cache/serial && chmod -R u+w .cache/serial
	@sed -i 's/^var osPortFilter = regexp.MustCompile(\(.*\))$$/type portFilter string\n\nfunc (f portFilter) MatchString(name string) bool { return regexp.MustCompile(string(f)).MatchString(name) }\n\nvar osPortFilter = portFilter(\1)/' .cache/serial/serial_linux.go
	@grep -q '^type portFilter string' .cache/serial/serial_linux.go || { echo 'cannot find the port filter of go.bug.st/serial' >&2; exit 1; }
	@cp go.sum .cache/lazy.sum && cp go.mod $@ && $(GO) mod edit -replace go.bug.st/serial=./.cache/serial $@
# Left alone, the linker keeps segments 64 KiB apart, for the largest pages a
# MIPS kernel could have: 80 KiB of flash that hold nothing. Gateways' kernels
# have pages of 4 KiB (OpenWrt's do), or of 16 KiB against cache aliases. Only
# one built for the experimental 64 KiB couldn't load this.
dist/linux-mips dist/linux-mipsle: LDFLAGS += -R 0x4000
dist/linux-arm5: export GOARM := 5
dist/linux-arm7: export GOARM := 7

.PHONY: $(PLATFORMS:%=dist/%)
$(PLATFORMS:%=dist/%): need-go
	@mkdir -p $@
	GOOS=linux GOARCH=$(patsubst arm5,arm,$(patsubst arm7,arm,$(@:dist/linux-%=%))) $(BUILD) -o $@/ontagent ./cmd/ontagent

.PHONY: size
size: deps build-all ## print binary sizes; fail above the limits for 32-bit MIPS
	@.ci/size

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist .cache

## Trying it

.PHONY: demo
demo: build ## play a whole visit: line, broker, gateway, orders, verdicts, records (no root)
	bin/ontlab demo

.PHONY: record-look
record-look: build ## render the demo's records into bin/look, in both languages; screenshots and PDF where chromium is
	@.ci/record-look bin/look

SCENARIOS ?= cmd/ontlab/scenarios/*.yaml
WHERE     ?= auto

.PHONY: lab
lab: deps build ## play SCENARIOS (all) against an operator's network; WHERE=host or guest decides, else the kernel
	bin/ontlab run --where $(WHERE) $(SCENARIOS)

.PHONY: scenarios
scenarios: deps build ## play every scenario, in one guest what this kernel can't; how often the agent was right to docs/accuracy.md (40 min)
	bin/ontlab run --jobs 4 --guest-jobs 2 --report docs/accuracy.md cmd/ontlab/scenarios/*.yaml

.PHONY: lab-tests
lab-tests: deps need-go ## every scenario and every fault of the lab, on and off, in guests (half an hour)
	LONG=1 $(GO) test -count=1 -p=1 -timeout=40m ./cmd/ontlab/isp/... ./cmd/ontlab/netbox/... ./cmd/ontlab/play ./cmd/ontlab/pppd

.PHONY: bench-dial
bench-dial: deps need-go ## hold the test dial against pppd at the same pppoe-server, for docs/probes-measured.md (in a guest)
	@$(GO) test -count=1 -v ./cmd/ontlab/pppd | grep -E 'pppd: |^(ok|FAIL|---)'

.PHONY: bench
bench: build build-all ## measure size, memory, CPU and event latency for docs/benchmarks.md (11 min)
	bin/ontlab bench

# LONG=1: a hundred runs of a process that is held to a part of a core, two hours.
.PHONY: bench-throughput
bench-throughput: deps build dist/linux-mipsle ## hold the speed test against a shaper's truth, iperf3, curl and net/http, for docs/throughput-measured.md (25 min; as root)
	bin/ontlab bench-throughput $(if $(LONG),--quota-runs 100) $(if $(PARTS),--only '$(PARTS)')

.PHONY: bench-optics
bench-optics: need-go ## measure polls and parsers of every console driver for docs/optics-measured.md
	$(GO) test ./collectors/optics/console ./cmd/ontlab/ontsim -run '^$$' -bench . -benchtime 500ms

# qemu-user takes longer than a gateway's processor: what it shows is above the
# truth.
.PHONY: bench-diagnosis
bench-diagnosis: need-go ## time the diagnosis of a whole ladder, here and as mipsle under qemu-user (bar: 50 ms)
	@run() { $(GO) test ./agent/acceptance -run '^$$' -bench LadderDiagnosis -benchtime "$$@" | \
		awk -v on="$$on" '/^Benchmark/ { printf "%-7s %.3f ms\n", on, $$3 / 1e6; ok = 1 } END { exit !ok }'; }; \
	on=here; run 300x; \
	qemu=$$(command -v qemu-mipsel-static) || { echo "mipsle  skipped: no qemu-mipsel-static"; exit 0; }; \
	on=mipsle; CGO_ENABLED=0 GOOS=linux GOARCH=mipsle GOMIPS=softfloat run 50x -exec "$$qemu"

GATEWAYS ?= 5000
BROKER   ?=

.PHONY: fleet
fleet: build ## play GATEWAYS (5000) real sessions for a minute against BROKER (URL; else a mosquitto)
	bin/ontlab fleet --gateways $(GATEWAYS) --spread 12s --duration 1m $(if $(BROKER),--broker '$(BROKER)')

## Checking, while you work

.PHONY: check
check: fmt-check vet lint unit ## the fast inner loop: format, vet, lint, unit tests

.PHONY: fmt
fmt: $(GOLANGCI) ## format the sources
	$(GOLANGCI) fmt

.PHONY: fmt-check
fmt-check: $(GOLANGCI) ## fail where `make fmt` would change something
	@$(GOLANGCI) fmt --diff

.PHONY: vet
vet: need-go ## go vet
	$(GO) vet ./... ./.ci/suite ./.ci/reliability

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint, with the import rules
	$(GOLANGCI) run ./...

.PHONY: unit
unit: need-go ## unit tests (-short), this machine only
	$(GO) test -short ./... ./.ci/reliability

.PHONY: golden
golden: need-go ## rewrite the golden files from what the tests see now
	@dirs=$$(grep -rlE 'flag\.Bool\("update"' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); \
	for d in $$dirs; do echo "$(GO) test $$d -update"; $(GO) test $$d -update || exit; done

.PHONY: cover
cover: need-go ## coverage of the unit tests, function by function
	@mkdir -p bin
	$(GO) test -short -coverprofile=bin/cover.out ./...
	$(GO) tool cover -func=bin/cover.out | tail -n 1
	@echo "in a browser: $(GO) tool cover -html=bin/cover.out"

.PHONY: fuzz
fuzz: need-go ## fuzz every parser for FUZZTIME each (20s)
	@grep -rE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' . | \
	sed -E 's/^(.*)\/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(.*/\1 \2/' | sort -u | \
	while read -r dir target; do \
		echo "== $$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit; \
	done

## Testing, all of it

.PHONY: test
test: need-go deps ## everything: race detector, namespaces, labs, guest, 386, mipsle, mips (what .ci/run calls)
	$(GO) run ./.ci/suite

.PHONY: race
race: need-go deps ## tests on this machine with the race detector, all but the exhaustive
	$(GO) run ./.ci/suite native

.PHONY: test-32
test-32: need-go deps ## unit tests as 386, mipsle and big-endian mips
	$(GO) run ./.ci/suite 386 mipsle mips

.PHONY: test-qemu
test-qemu: need-go deps ## unit tests on every foreign processor, under qemu-user
	$(GO) run ./.ci/suite mipsle mips arm arm64

.PHONY: e2e
e2e: need-go deps ## the lab's end-to-end tests only, verbosely
	$(GO) test -count=1 -v ./cmd/ontlab/...

.PHONY: reliability
reliability: need-go deps ## what is promised, shown: a line per property; LONG=1: long forms; MARKDOWN=docs/reliability.md: refresh it
	@$(GO) test ./.ci/reliability
	@$(GO) run ./.ci/reliability $(if $(MARKDOWN),--markdown '$(MARKDOWN)') $(PACKAGES)

.PHONY: vuln
vuln: need-go ## known vulnerabilities in what we link
	@out=$$($(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./... 2>&1); status=$$?; \
	if [ $$status -ne 0 ] && ! printf '%s' "$$out" | grep -q 'exit status 3' && printf '%s' "$$out" | \
		grep -qE 'fetching vulnerabilities|no such host|dial tcp|proxyconnect|module lookup disabled'; \
	then echo "vuln: skipped: no database"; \
	else printf '%s\n' "$$out"; exit $$status; fi

.PHONY: tidy-check
tidy-check: need-go ## fail where go.mod or go.sum isn't tidy
	$(GO) mod tidy -diff

## With other people's programs

# go.mod knows nothing of them: they are built for this target alone.
TELEGRAF_VERSION := v1.39.3
TELEGRAF_TAGS    := custom,inputs.mqtt_consumer,parsers.json_v2,outputs.file,serializers.influx
NATS_VERSION     := v2.15.2

TELEGRAF = $(TOOLS)/telegraf-$(TELEGRAF_VERSION)/telegraf
NATS     = $(TOOLS)/nats-server-$(NATS_VERSION)/nats-server

.PHONY: interop
interop: need-go deps $(TELEGRAF) $(NATS) ## a stock Telegraf and a NATS cluster, set up as docs/brokers says (builds them once)
	TELEGRAF='$(abspath $(TELEGRAF))' NATS_SERVER='$(abspath $(NATS))' \
		$(GO) test -count=1 -v -timeout 15m -run 'Telegraf|NATS' ./cmd/ontlab/interop

$(TELEGRAF): | need-go
	@mkdir -p $(@D)
	GOFLAGS= CGO_ENABLED=0 GOBIN=$(abspath $(@D)) nice $(GO) install -trimpath -ldflags '-s -w' \
		-tags $(TELEGRAF_TAGS) github.com/influxdata/telegraf/cmd/telegraf@$(TELEGRAF_VERSION)

$(NATS): | need-go
	@mkdir -p $(@D)
	GOFLAGS= CGO_ENABLED=0 GOBIN=$(abspath $(@D)) nice $(GO) install -trimpath -ldflags '-s -w' \
		github.com/nats-io/nats-server/v2@$(NATS_VERSION)

## Preparing

.PHONY: deps
deps: ## install the Debian packages that the tests need, if any is missing
	@.ci/deps

.PHONY: need-go
need-go:
	@command -v $(GO) >/dev/null 2>&1 || { \
		echo "missing: Go, version 1.26 or newer; see https://go.dev/doc/install" >&2; exit 1; }

# An installed linter of the right version is used; otherwise it is built once.
$(GOLANGCI): | need-go
	@mkdir -p $(@D)
	@for have in "$$(command -v golangci-lint)" "$$($(GO) env GOPATH)/bin/golangci-lint"; do \
		if [ -x "$$have" ] && [ "v$$("$$have" version --short 2>/dev/null)" = "$(GOLANGCI_VERSION)" ]; then \
			ln -sf "$$have" $@; exit 0; \
		fi; \
	done; \
	echo "building golangci-lint $(GOLANGCI_VERSION); once, it takes some minutes"; \
	GOFLAGS= GOBIN=$(abspath $(@D)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
