# Everything that this project does to prove itself. Each target works on a fresh Debian or Ubuntu
# machine with a Rust toolchain: what else it needs, it installs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

CARGO ?= cargo
# One profile for building, testing and running: a second one would compile RocksDB's C++ again.
BUILD := $(CARGO) build --workspace --all-targets
TARGET = $$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

export RUST_BACKTRACE ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients lint fix check bench bench-long jepsen doc dist build packages packages-clients packages-faults

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: build ## a file through a cluster whose leader is killed half way (INPUT=FILE, COUNT=N)
	@MQTEST_BIN_DIR="$(TARGET)/debug" "$(TARGET)/debug/demo"

test: build packages-clients ## everything that proves the project
	@python="$(TARGET)/official-python"; \
	"$$python/bin/python" -c 'import rocketmq' 2>/dev/null || { \
		python3 -m venv --clear "$$python" && \
		"$$python/bin/pip" install -q -r tests/clients/python/requirements.txt; }; \
	MQTEST_PYTHON="$$python/bin/python" MQTEST_BIN_DIR="$(TARGET)/debug" \
		$(CARGO) test --workspace --no-fail-fast

test-clients: build ## official clients with large toolchains: Java and Go
	@.ci/packages large
	@MQTEST_BIN_DIR="$(TARGET)/debug" \
		$(CARGO) test --workspace --no-fail-fast --test large_clients -- --nocapture

lint: packages ## formatting and clippy; never writes
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fix: ## formats
	$(CARGO) fmt --all

check: lint test ## what CI runs

bench: build ## figures of a cluster on this machine, with the echo ceiling of the same run
	@MQTEST_BIN_DIR="$(TARGET)/debug" "$(TARGET)/debug/bench"

bench-long: build ## long logs and more; half an hour and 45 GiB of disk (SCENARIO=NAME, SCALE=0.01)
	@MQTEST_BIN_DIR="$(TARGET)/debug" "$(TARGET)/debug/bench_long" --scale "$(or $(SCALE),1)" $(SCENARIO)

jepsen: build packages-faults ## fault runs in five minutes, judged, with what they have to reach
	@"$(TARGET)/debug/jepsen" ci --store "$(TARGET)/jepsen"

doc: packages ## the API documentation of all crates
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Another profile: it compiles RocksDB once more.
dist: packages ## a release archive, in dist/ of the target directory
	$(CARGO) build --release -p broker -p namesrv -p cli --bins
	@.ci/dist check "$(TARGET)/release"
	@.ci/dist pack "$(TARGET)/release" "$(TARGET)/dist"

build: packages ## all programs
	$(BUILD)

packages:
	@.ci/packages build

packages-clients: packages
	@.ci/packages clients

packages-faults: packages-clients
	@.ci/packages faults
