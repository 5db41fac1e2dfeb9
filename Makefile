# One command each; `make help` lists them. Every step is skipped when nothing it depends on has changed.
PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .bench-venv
TEST_VENV := target/test-venv
WHEELS := target/wheels
CARGO ?= cargo

PY := $(VENV)/bin/python
TEST_PY := $(TEST_VENV)/bin/python
BENCH_PY := $(BENCH_VENV)/bin/python
LOAD := target/release/penstock-load
LOCKED := $(if $(wildcard Cargo.lock),--locked)
PIP := -m pip --disable-pip-version-check
SOURCES := Cargo.toml pyproject.toml README.md $(wildcard Cargo.lock LICENSE-* rust/*/Cargo.toml rust/*/build.rs) \
  $(shell find rust/*/src python -type f -not -name '*.so' -not -name '*.pyd' -not -name '*.pyc')

# The interpreter that cargo's own builds (clippy, tests) link against: the one the wheel is built for.
export PYO3_PYTHON := $(abspath $(PY))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types rust-test pytest faults wheel develop fmt load bench bench-quick bench-engine bench-gateway \
  callgrind report fuzz memcheck clean check-python check-cargo

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "penstock needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)."; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }

check-cargo:
	@command -v $(CARGO) >/dev/null || { \
	  echo "penstock is built with Rust (see rust-version in Cargo.toml), and there is no '$(CARGO)': https://rustup.rs"; \
	  exit 1; }

# pip 25.1 knows dependency groups, which the one that comes with an older Python does not.
$(PY): | check-python
	$(PYTHON) -m venv $(VENV)
	$(PY) $(PIP) install --quiet 'pip>=25.1'

$(VENV)/.maturin: | $(PY)
	$(PY) $(PIP) install --quiet 'maturin>=1.16,<2'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	$(PY) $(PIP) install --quiet 'pip>=25.1'
	$(PY) $(PIP) install --quiet --group dev 'click>=8.1' 'rich>=13.7' 'httpx>=0.27' 'orjson>=3.10'
	@touch $@ $(VENV)/.maturin

$(WHEELS)/.built: $(SOURCES) $(VENV)/.maturin | check-cargo
	rm -rf $(WHEELS)
	$(PY) -m maturin build --release $(LOCKED) --out $(WHEELS) --interpreter $(PY)
	@touch $@

$(TEST_VENV)/.ready: $(WHEELS)/.built
	$(PY) -m venv --clear $(TEST_VENV)
	$(TEST_PY) $(PIP) install --quiet 'pip>=25.1'
	$(TEST_PY) $(PIP) install --quiet --group test "$$(ls $(WHEELS)/*.whl)[cli]"
	@touch $@

$(VENV)/.demo: $(WHEELS)/.built
	$(PY) $(PIP) install --quiet "$$(ls $(WHEELS)/*.whl)[proxy]"
	$(PY) $(PIP) install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	@touch $@; rm -f $(VENV)/.develop

demo: $(VENV)/.demo ## build the wheel, install it into .venv, stream one answer, and one through the proxy, without a key
	$(VENV)/bin/penstock chat --model "replay/hello?delay=30" "Say hello."
	$(VENV)/bin/python -m penstock.gateway.demo

test: lint types rust-test pytest ## everything a merge needs

lint: $(VENV)/.dev | check-cargo ## ruff, rustfmt, clippy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

types: $(VENV)/.dev $(TEST_VENV)/.ready ## mypy --strict, and the stub against the built module
	$(PY) -m mypy --strict
	cd target && test-venv/bin/python -m mypy.stubtest penstock._native \
	  --allowlist ../tests/stubtest.allowlist

rust-test: $(VENV)/.dev | check-cargo ## cargo test
	$(CARGO) test $(LOCKED) --workspace --quiet

pytest: $(TEST_VENV)/.ready ## the Python tests, on the built wheel in an environment of its own
	$(TEST_PY) -I -m pytest

faults: $(TEST_VENV)/.ready ## docs/proxy-faults.md, from what the tests see
	PENSTOCK_WRITE_DOCS=1 $(TEST_PY) -I -m pytest tests/proxy/test_faults.py -k "test_a_fault or test_the_table"

wheel: $(WHEELS)/.built ## the wheel for this machine, in target/wheels
	@ls -l $(WHEELS)/*.whl

develop: $(VENV)/.dev | check-cargo ## an editable install in .venv
	$(PY) -m maturin develop --release $(LOCKED) --extras cli
	@touch $(VENV)/.develop; rm -f $(VENV)/.demo

fmt: $(VENV)/.dev ## format Rust and Python
	$(CARGO) fmt --all
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

$(BENCH_VENV)/.peers: benches/requirements.txt | check-python
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_PY) $(PIP) install --quiet --requirement benches/requirements.txt
	@touch $@

$(BENCH_VENV)/.ready: $(BENCH_VENV)/.peers $(WHEELS)/.built
	$(BENCH_PY) $(PIP) install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	@touch $@

$(LOAD): Cargo.toml $(wildcard Cargo.lock benches/load/*.toml benches/load/src/*) | check-cargo
	$(CARGO) build --release $(LOCKED) --package penstock-load
	@touch $@

load: $(LOAD) ## the load source that the benches read from

bench: $(BENCH_VENV)/.ready $(LOAD) ## every benchmark, against the peers (about 45 minutes)
	$(BENCH_PY) benches/parser.py
	$(BENCH_PY) benches/families.py
	$(BENCH_PY) benches/imports.py
	$(BENCH_PY) benches/clients.py
	$(BENCH_PY) benches/engine.py
	$(BENCH_PY) benches/memory.py
	$(BENCH_PY) benches/bulk.py
	$(BENCH_PY) benches/gateway.py

bench-quick: $(BENCH_VENV)/.ready ## the parser and the imports only (about a minute)
	$(BENCH_PY) benches/parser.py
	$(BENCH_PY) benches/imports.py

bench-engine: $(BENCH_VENV)/.ready $(LOAD) ## sockets to chunks, one round without the slowest (about two minutes)
	$(BENCH_PY) benches/engine.py --quick

bench-gateway: $(BENCH_VENV)/.ready $(LOAD) ## the gateways, one round with a tenth of the requests (about two minutes)
	$(BENCH_PY) benches/gateway.py --quick

soak: $(BENCH_VENV)/.ready $(LOAD) ## the gateway for an hour: does it keep its memory and its accounts
	$(BENCH_PY) benches/soak.py

callgrind: $(BENCH_VENV)/.ready | check-cargo ## instructions per chunk, in Rust and from Python
	$(BENCH_PY) benches/callgrind.py --only penstock,split

report: $(BENCH_VENV)/.ready ## results of the benches into README.md and docs/
	$(BENCH_PY) benches/report.py

FUZZ_SECONDS ?= 60
fuzz: | check-cargo ## every fuzz target for FUZZ_SECONDS (needs nightly and cargo-fuzz)
	cd rust/core/fuzz && for target in $$(cargo fuzz list); do \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

memcheck: $(TEST_VENV)/.ready ## streams of every kind under valgrind (needs valgrind; about three minutes)
	$(TEST_PY) tests/memcheck/run.py

clean: ## everything that was built, the environments too
	rm -rf target dist $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
