# Skep's commands. `make demo` on a fresh Debian or Ubuntu installs what is missing, builds, and shows the main job end to end.
#
#   make demo [ONCE=1]            the five steps, then stay up until Ctrl-C (ONCE=1: exit after the steps)
#   make test [TEST=name]         unit tests, and tests that start the real programs with Docker, kubectl and mosquitto
#   make edge_test                the edge's unit tests (manual ch. 14.10)
#   make edge_integration_test    the edge's part of tests/ (manual ch. 14.11)
#   make soak [SECONDS=180]       panics, hangs and restarts at random under load; proves that nothing is lost, repeated or overtaken
#   make crash [SECONDS=300] [SEED=n]
#                                 kill -9 of the edge at random moments, on a disk that forgets what was not synced; proves that
#                                 no acknowledged update is lost or applied twice, and that without syncs it would see a loss
#   make sim [SECONDS=300] [SEED=n] [FIRST=n]
#                                 the rules of the link under every misfortune that a seed can think of: cuts, kills, failing disks
#                                 and API; checks that nothing acknowledged is lost and that both sides agree in the end
#   make lint                     format, clippy, dependency policy, shell scripts
#   make dist                     the two programs as they are shipped, in target/dist; prints their sizes
#   make bench [SCENARIO=name]    measurements into target/bench: actors, twin, page, link, storm, api, pods; a missed goal is shown,
#                                 a wrong result fails; pods needs Docker (SKEP_SKIP=docker leaves that part out)
#     SCENARIO=twin ENDPOINT=tcp://HOST:PORT [DEVICES=a,b,c or PREFIX/COUNT]
#                                 the same client against another MQTT endpoint that speaks KubeEdge's topics for these devices
#     SCENARIO=storm [NODES=10000]
#                                 so many nodes come back at once, if the limit of open files is more than twice that
#     SCENARIO=api [SECONDS=25]   so long the API server is away
#   make clean-demo               stop what a demo left and remove .skep/demo
#
# SKEP_SETUP=no forbids every installation.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_BUILD_JOBS ?= 2
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin
TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_DENY = $(or $(wildcard $(HOME)/.cache/skep/cargo-deny-0.20.2/bin/cargo-deny),cargo-deny)
SCRIPTS = deploy/setup.sh deploy/with-docker deploy/demo.sh deploy/examples/build-image.sh .ci/run
DIST_BYTES_MAX := 15728640
# 0.8 MB less: relocations in the packed form, which glibc 2.36 (Debian 12, Ubuntu 24.04) and newer read, and one copy of
# functions that are the same (lld, the linker that Rust brings for x86-64). Elsewhere the programs are larger than the limit.
DIST_LINK = $(if $(shell [ "$$(uname -m)" = x86_64 ] && printf '2.36\n%s\n' "$$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)" | sort -CV && echo yes),-C link-arg=-Wl$(comma)-z$(comma)pack-relative-relocs -C link-arg=-Wl$(comma)--icf=all)
# The libraries' places are in the programs 1,300 times, for panics: without the builder's home, which nobody needs, and whose
# length would count.
DIST_PATHS = RUSTFLAGS="$(RUSTFLAGS) --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src/="
DIST_EDGE = $(DIST_PATHS) cargo rustc --profile dist --locked -p skep-edge --bin skep-edge -- $(DIST_LINK)
DIST_CLOUD = $(DIST_PATHS) cargo rustc --profile dist --locked -p skep-cloud --bin skep-cloud -- $(DIST_LINK)
comma := ,

# The shell has a variable of this name, too.
seconds_or = $(if $(filter command line,$(origin SECONDS)),$(SECONDS),$(1))

.PHONY: help demo test edge_test edge_integration_test soak crash sim lint dist bench clean-demo

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo:
	@deploy/setup.sh --for demo
	@deploy/with-docker deploy/demo.sh

# The programs are built with the tests' own features, so that nothing is compiled twice.
test:
	@deploy/setup.sh --for test
	cargo build --release --locked --workspace --all-targets
	@deploy/with-docker cargo test --release --locked --workspace --no-fail-fast $(if $(TEST),-- $(TEST))

edge_test:
	@deploy/setup.sh --for test
	@cargo test --release --locked -p skep-edge

edge_integration_test:
	@deploy/setup.sh --for test
	cargo build --release --locked --workspace --all-targets
	@deploy/with-docker cargo test --release --locked --workspace --test it -- edge::

soak:
	@deploy/setup.sh --for build
	SKEP_SOAK_SECONDS=$(call seconds_or,180) cargo test --release --locked -p skep-actor --test soak -- --nocapture

crash:
	@deploy/setup.sh --for test
	cargo build --release --locked --workspace --all-targets
	SKEP_CRASH_SECONDS=$(call seconds_or,300) $(if $(SEED),SKEP_CRASH_SEED=$(SEED)) cargo test --release --locked --workspace --test crash -- --nocapture --test-threads=1

# Another range of seeds at each run, unless FIRST says which; `make test` runs the same ones for half a minute.
sim:
	@deploy/setup.sh --for build
	SKEP_SIM_SECONDS=$(call seconds_or,300) $(if $(SEED),SKEP_SIM_SEED=$(SEED)) SKEP_SIM_FIRST=$(or $(FIRST),$(shell date +%s)) cargo test --release --locked --workspace --test sim -- --nocapture --test-threads=1

lint:
	@deploy/setup.sh --for lint
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO_DENY) --locked --config .deny.toml check bans licenses sources
	shellcheck $(SCRIPTS)

dist:
	@deploy/setup.sh --for build
	$(DIST_EDGE)
	$(DIST_CLOUD)
	@for program in skep-edge skep-cloud; do \
	    bytes=$$(stat -c %s "$(TARGET)/dist/$$program"); \
	    printf '%-12s %9d bytes (%d.%d MB, limit 15 MB)\n' "$$program" "$$bytes" $$((bytes / 1048576)) $$((bytes % 1048576 * 10 / 1048576)); \
	    [ "$$bytes" -le $(DIST_BYTES_MAX) ] || { echo "$$program is larger than its limit of $(DIST_BYTES_MAX) bytes" >&2; exit 1; }; \
	done

BENCH_OPTIONS = $(if $(ENDPOINT),--endpoint "$(ENDPOINT)") $(if $(DEVICES),--devices "$(DEVICES)") \
    $(if $(filter storm,$(SCENARIO)),$(if $(NODES),--nodes "$(NODES)")) \
    $(if $(filter api,$(SCENARIO)),$(if $(call seconds_or,),--seconds "$(call seconds_or,)"))

# In the profile that is shipped: code of another one would be measured for nobody, and its libraries are built for `make
# dist` anyway.
bench:
	@deploy/setup.sh --for $(if $(filter-out pods,$(SCENARIO))$(filter docker,$(SKEP_SKIP)),bench,bench-pods)
	cargo build --profile dist --locked -p skep-tests --bin bench
	$(if $(ENDPOINT),,$(if $(filter-out twin link storm api pods,$(SCENARIO)),,$(DIST_EDGE)))
	$(if $(filter-out link storm api pods,$(SCENARIO)),,$(DIST_CLOUD))
	@deploy/with-docker "$(TARGET)/dist/bench" $(SCENARIO) $(BENCH_OPTIONS)

clean-demo:
	@deploy/with-docker deploy/demo.sh --clean
