# The front door. Every target does its own set-up on Debian 12 or 13, as root or with sudo.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The log may come by standard input, so set-up must not read it.
SETUP := dev/setup.sh </dev/null
DEVKIT := cargo run --quiet --package tailstream-devkit --bin tailstream-dev --

.PHONY: help setup devkit install demo psql stop clean test soak bench fmt lint

help: ## Show this
	@printf 'Targets:\n'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|'

setup: ## Install PostgreSQL, TimescaleDB, pg_cron, Redis and cargo-pgrx
	@$(SETUP)

devkit: setup
	@cargo build --package tailstream-devkit </dev/null

install: devkit ## Build the extension and install it into PostgreSQL (17, or TAILSTREAM_PG_MAJOR)
	@$(DEVKIT) install

demo: devkit ## Watch web traffic being stored, mirrored to Redis, replayed and expired (LOG=file or LOG=- for your own access log)
	@$(DEVKIT) demo $${LOG:+--log "$$LOG"}

psql: devkit ## Open psql on the demo's database
	@$(DEVKIT) psql

stop: ## Stop the private servers; their data stays
	@$(DEVKIT) stop

clean: ## Stop the private servers, and remove their data and all build output
	@$(DEVKIT) clean
	@cargo clean

test: setup ## Run everything that proves it works
	@dev/test.sh

soak: setup ## Run the end-to-end tests for long
	@TAILSTREAM_SOAK=1 dev/test.sh e2e

bench: devkit ## Measure everything side by side (LOG=file as for demo); writes target/bench/results.json
	@$(DEVKIT) install
	@cargo run --release --package tailstream-bench -- $${LOG:+--log "$$LOG"}

fmt: setup ## Format the code
	@cargo fmt --all

lint: setup ## Check format, lints and the direction of imports
	@dev/test.sh format clippy layers
