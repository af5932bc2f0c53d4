# Everything runs in .venv, which is made from pyproject.toml when that changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := fixtures/captures/6.1.0-56-amd64/memory-and-cpu-added
SCENARIO ?= mem-added
KERNEL ?= 6.1
SECONDS ?= 120
SEED ?= 1

.PHONY: help setup demo test docs gallery lint fuzz bench lab clean

help:
	@sed -n 's/^## //p' Makefile

## make setup    a virtual environment with vmcheck and its tools
setup: $(VENV)/.made

$(VENV)/.made: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

## make demo     check a real stale dump and write its report to build/demo.html
demo: setup
	@mkdir -p build
	@$(BIN)/vmcheck check $(DEMO)/vmcore.distilled --symbols $(dir $(DEMO))kernel.symbols --html build/demo.html; \
	status=$$?; test $$status -eq 1 || { echo "make demo: vmcheck exited with $$status, expected 1"; exit 1; }
	@echo; echo "The same as a page: build/demo.html"

## make test     all tests but those that boot a kernel
test: setup
	$(BIN)/python -m pytest -n auto -m 'not lab'

## make fuzz     mutated inputs of every reader, and damaged dumps of a known truth, for SECONDS=120
fuzz: setup
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) $(FUZZ)

## make gallery  the report of every capture as a page, in build/gallery/
gallery: setup
	$(BIN)/python -m docs.pages --html build/gallery

## make docs     the generated pages, JSON schemas and expected reports; review the diff as code
docs: setup
	$(BIN)/python -m docs.pages
	$(BIN)/python -m pytest -q -n auto --accept tests/corpus/test_captures.py
	$(BIN)/python -m docs.pages

## make lint     ruff and mypy --strict on the code and the tests
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## make bench    speed and memory beside the peers, into docs/performance.md
bench: setup
	$(BIN)/python -m benchmarks

## make lab SCENARIO=mem-added KERNEL=6.1    crash a real kernel under QEMU, dump it, check it
lab: setup
	$(BIN)/python -m fixtures.lab run $(SCENARIO) --kernel $(KERNEL)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
