# `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin

.PHONY: demo test lint kserve clean

.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

# Real model servers for tests and benchmarks, each in an environment of its own: MLServer wants an older FastAPI and Protobuf
# than ours, Triton's wheel an older NumPy. Where they cannot be installed, what needs them is skipped and says so.
.kserve/%/.made: benchmarks/foreign_ranker/servers/%.txt
	$(PYTHON) -m venv .kserve/$*
	.kserve/$*/bin/python -m pip install -q --disable-pip-version-check --no-compile -r $<
	touch $@

kserve: .kserve/triton/.made .kserve/mlserver/.made

demo: .venv/.runtime
	$(BIN)/corewrite demo --seed $(SEED)

lint: .venv/.dev
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/ruff format --check src tests benchmarks tools examples
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two at a time, but what measures time or deadlines: a neighbour would make it late.
TIMED := tests/serving tests/faults tests/training/test_plan.py

test: lint
	-$(MAKE) kserve
	$(BIN)/pytest -n 2 --dist loadfile $(TIMED:%=--ignore=%)
	$(BIN)/pytest $(TIMED)

clean:
	rm -rf .venv .kserve runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
