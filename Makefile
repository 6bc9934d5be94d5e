# `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin

.PHONY: demo test lint clean

.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.runtime
	$(BIN)/corewrite demo --seed $(SEED)

lint: .venv/.dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two at a time, but what measures time or deadlines: a neighbour would make it late.
TIMED := tests/serving tests/faults tests/training/test_plan.py

test: lint
	$(BIN)/pytest -n 2 --dist loadfile $(TIMED:%=--ignore=%)
	$(BIN)/pytest $(TIMED)

clean:
	rm -rf .venv runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
