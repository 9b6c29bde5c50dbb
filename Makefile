# make demo   install what is missing, build, and show the main job at work
# make test   install what is missing, and run the whole suite against the real servers
# make check  formatting, vet, staticcheck
# make bench  figures beside the bare tools, both sides in one run: some hours, 5 million files in TMPDIR. LINES=1,2 chooses lines (8 to 12 are of AMQP,
#             13 of the other transports, 14 of scans, 15 of trees that are watched, 16 and 17 of mirrors that only look), FILES=100000 makes the
#             large module smaller, MIRRORS=100 the crowd at the broker, OUT (default bin/bench.md) is the table as Markdown
# make microbench  the benchmarks of single packages
# make soak   a day of releases on a copy of TREE (a:b for several; default /usr/share) for MINUTES (default 60), daemons killed on the way and every
#             mirror watched; SEED chooses the day; BUS=amqp (ssh, irc, mail, all) takes another transport in the place of
#             the hub, or all at the same time, whose servers are killed every few seconds. WATCH=1 publishes nothing: the tree is watched, and watcher and
#             hub are killed and the kernel's queue overflows while it changes at random: make soak WATCH=1 MINUTES=10
# make fuzz   each fuzz target for FUZZTIME (default 30s), with its execs and CPU seconds; FUZZ chooses among "folder Target" by a pattern
# make mutants  puts each fault of internal/mutants into the code and expects the tests named for it to fail; MUTANTS chooses by a pattern
# make sim    SEEDS (default 20) simulated worlds full of faults from FROM on, and what 10,000 mirrors do to one master
# make crash  kills hub and agent DEATHS times (default 20) at each named step, and cuts their power as often: 20 minutes
# make build  bin/mirrorbus

GO       ?= go
FUZZTIME ?= 30s
FUZZ     ?=
MUTANTS  ?= .
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
TIMEOUT  ?= 15m
TREE     ?= /usr/share
MINUTES  ?= 60
SEED     ?= 1
BUS      ?= hub
WATCH    ?=
SEEDS    ?= 20
FROM     ?= 1
LINES    ?=
FILES    ?= 1000000
MIRRORS  ?= 1000
ROUNDS   ?= 5
OUT      ?= bin/bench.md
DEATHS   ?= 20

.PHONY: demo test check bench microbench soak crash fuzz mutants sim build clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/mirrorbus ./cmd/mirrorbus

demo: build
	deploy/dev/need rsync
	bin/mirrorbus demo

# A missing server is a failure here, not a skip.
test: check
	deploy/dev/need rsync rrsync python3 ssh sshd ssh-keygen ssh-agent gcc systemd-analyze ip tc nft strace find mkfs.ext4 mkfs.xfs mkfs.btrfs bindfs rabbitmq-server python3-pika ngircd inspircd anope postconf doveadm nginx apache2 named nsupdate dig python3-feedparser
	deploy/dev/need git git-annex flock shellcheck reprepro dpkg-deb createrepo_c rpmbuild
	deploy/dev/need ftpsync runmirrors || echo "no ftpsync here: the tests against it are left out"
	MIRRORBUS_REQUIRE_ALL=1 CGO_ENABLED=1 $(GO) test -race -timeout $(TIMEOUT) ./...

check:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-clean:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=internal/tools/go.mod staticcheck ./...

bench:
	deploy/dev/need rsync ssh sshd ssh-keygen strace find rabbitmq-server ngircd postconf
	deploy/dev/need ftpsync || echo "no ftpsync here: line 7 is left out"
	deploy/dev/need lsyncd clsync || echo "no lsyncd or clsync here: they are left out of line 15"
	mkdir -p $(dir $(OUT))
	MIRRORBUS_BENCH=1 MIRRORBUS_BENCH_LINES=$(LINES) MIRRORBUS_BENCH_FILES=$(FILES) MIRRORBUS_BENCH_MIRRORS=$(MIRRORS) MIRRORBUS_BENCH_ROUNDS=$(ROUNDS) MIRRORBUS_BENCH_OUT=$(abspath $(OUT)) \
		$(GO) test -count=1 -timeout 0 -run '^TestBench$$' -v ./internal/bench

microbench:
	deploy/dev/need rsync
	$(GO) test -run '^$$' -bench . -benchmem ./...

soak:
	deploy/dev/need rsync ssh sshd ssh-keygen $(if $(filter amqp all,$(BUS)),rabbitmq-server) $(if $(filter irc all,$(BUS)),ngircd) \
		$(if $(filter mail all,$(BUS)),postconf)
	MIRRORBUS_REQUIRE_ALL=1 MIRRORBUS_SOAK_TREE=$(TREE) MIRRORBUS_SOAK_MINUTES=$(MINUTES) MIRRORBUS_SOAK_SEED=$(SEED) MIRRORBUS_SOAK_BUS=$(BUS) \
		$(GO) test -count=1 -timeout 12h -run '$(if $(WATCH),^TestWatchedTree$$,^TestSoak$$)' -v ./internal/replay

fuzz:
	MIRRORBUS_FUZZTIME=$(FUZZTIME) MIRRORBUS_FUZZ='$(FUZZ)' $(GO) test -count=1 -timeout 0 -run TestFuzz -v ./internal/fuzz

mutants:
	deploy/dev/need rsync ssh ssh-keygen
	MIRRORBUS_MUTANTS='$(MUTANTS)' $(GO) test -count=1 -timeout 0 -run TestMutants -v ./internal/mutants

sim:
	MIRRORBUS_SIM_SEEDS=$(SEEDS) MIRRORBUS_SIM_FROM=$(FROM) $(GO) test -count=1 -timeout 2h -run "TestSeeds|TestComposes|TestTenThousand|TestCosts" -v ./internal/sim

crash:
	deploy/dev/need rsync
	MIRRORBUS_REQUIRE_ALL=1 MIRRORBUS_CRASH_ROUNDS=$(DEATHS) $(GO) test -count=1 -timeout 2h -v ./internal/crash

clean:
	rm -rf bin dist
