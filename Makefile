# The commands of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help build demo demo-cluster test lint fmt unit e2e cluster conformance manifests bench bench-storage bench-telemetry bench-control bench-quick setup

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile the released binary: target/release/aircheck
	@deploy/setup/install build
	cargo build --release --locked

demo: ## record a push on this machine and show what came of it (KEEP=1 leaves the server running)
	@deploy/setup/demo

demo-cluster: ## etcd, two coordinators and three workers here: push, kill, and see what came of it
	@deploy/setup/demo-cluster

test: ## everything a change must pass: lint, all tests
	@tests/run all

lint: ## formatting, clippy and rustdoc, warnings as errors
	@tests/run lint

unit: ## the tests that start no process
	@tests/run unit

e2e: ## the tests that push into the real binary with real programs
	@tests/run e2e

cluster: ## etcd, coordinators and workers as processes, and everything that may die
	@tests/run cluster

conformance: ## every format read back by independent demuxers and players
	@tests/run conformance

manifests: ## chart, manifests, rules and dashboards held to those who will read them
	@tests/run deploy

bench: ## CPU and memory beside nginx's RTMP module, bench-storage, bench-telemetry, about 50 minutes (BENCH_ARGS="--help")
	@deploy/setup/install bench
	python3 tests/bench/run.py $(BENCH_ARGS)
	@$(MAKE) bench-telemetry BENCH_ARGS=
	@$(MAKE) bench-storage BENCH_ARGS=

bench-storage: ## object storage beside a local directory: CPU, and how soon recordings are complete, about 17 minutes
	@deploy/setup/install test
	python3 tests/bench/storage.py $(BENCH_ARGS)

bench-telemetry: ## what traces and metrics cost in CPU, about 7 minutes (BENCH_ARGS="--rounds 3")
	@deploy/setup/install test
	python3 tests/bench/telemetry.py $(BENCH_ARGS)

bench-quick: ## the same in one short round, about 4 minutes
	@deploy/setup/install bench
	python3 tests/bench/run.py --quick $(BENCH_ARGS)

bench-control: ## leases, memory and failover of coordinators with up to 100,000 streams, about 10 minutes (BENCH_ARGS=--quick)
	@deploy/setup/install test
	cargo build --release --locked
	cargo run --release --locked -p coordinator --example control_bench -- --binary target/release/aircheck $(BENCH_ARGS)

setup: ## install all that the commands above need
	@deploy/setup/install test
	@deploy/setup/install bench

fmt: ## format the sources
	cargo fmt --all
