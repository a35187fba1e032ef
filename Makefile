# Every target sets up .venv by itself on a fresh machine: python3 (3.11 or newer) and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := CMakeLists.txt $(wildcard longspan/kernels/cpu/src/*)

.PHONY: demo demo-million test test-long lint sanitize bench clean help
help:           ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 12

$(READY): pyproject.toml requirements.lock $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

demo: $(READY)  ## read a text 256 times longer than the model was trained on, and answer questions about it
	$(BIN)/longspan demo

demo-million: $(READY)  ## the same with a million tokens
	$(BIN)/longspan demo --tokens 1000000

test: lint      ## lint, types, import floors, tests
	$(BIN)/python -m pytest -n auto

test-long: $(READY)  ## the checks that take minutes, and new examples for the properties
	$(BIN)/python -m pytest -m "long or hypothesis" --hypothesis-profile=new

lint: $(READY)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

sanitize: $(READY)  ## the compiled kernels on edge shapes, under address and undefined-behaviour sanitizers
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize -G Ninja -DLONGSPAN_CHECK=ON
	$(BIN)/cmake --build build/sanitize
	build/sanitize/check

bench: $(READY)  ## prefill and decode beside transformers, in one run
	$(BIN)/python benchmarks/speed.py

clean:          ## remove the environment and all that tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
