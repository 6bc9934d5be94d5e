# `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin

.PHONY: demo test coverage lint docs lock lock-lowest lowest dist-check audit kserve clean

.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e '.[train,report]'
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev,docs]'
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

# The documentation in build/site; a warning is an error. The generated pages have to be current.
docs: .venv/.dev
	$(BIN)/python tools/reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Everything that the serving image installs, with hashes. Versions stay where they still fit; `make lock UPGRADE=--upgrade` takes
# the newest. torch is the build for processors, from PyTorch's own index, without a gigabyte of packages for CUDA.
TORCH ?= --torch-backend cpu
lock: .venv/.dev
	$(BIN)/uv pip compile -q pyproject.toml --extra serve -c constraints.txt -o requirements/serve.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(TORCH) $(UPGRADE)
	$(BIN)/pytest -q tests/test_lock.py

# What pyproject.toml says is enough is: the lowest versions that it allows, in an environment of their own, pass the tests of what
# is computed. torch is the pinned one, and its packages are pip's choice as everywhere. `make lock-lowest` finds the versions.
LOWEST := tests/domain tests/fusion tests/gate tests/experiment tests/rewriter
LOWEST_TOOLS := pytest hypothesis ir-measures statsmodels qdrant-client peft regex
lowest:
	rm -rf build/lowest && mkdir -p build
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt \
	  -c requirements/lowest.txt -e '.[train,report]' $(LOWEST_TOOLS)
	build/lowest/bin/python -m pytest -q -p no:cacheprovider $(LOWEST)

lock-lowest: .venv/.dev
	$(BIN)/uv pip compile -q pyproject.toml --extra train --extra report --resolution lowest-direct -c constraints.txt \
	  --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  | grep -vE '^(torch|triton|nvidia|cuda)' > requirements/lowest.txt
	$(BIN)/pytest -q tests/test_lock.py

# Wheel and sdist, installed where nothing of ours is: alone, with what the demo needs, and with each extra in turn.
dist-check: .venv/.dev
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python tools/dist_check.py

# Whether something of it is known to be vulnerable; advisories name torch without the build.
audit: .venv/.dev
	mkdir -p build && sed 's/+cpu / /' requirements/serve.txt > build/audit.txt
	$(BIN)/pip-audit --require-hashes --disable-pip -r build/audit.txt

# Two at a time, but what measures time or deadlines: a neighbour would make it late.
TIMED := tests/serving tests/faults tests/capacity/test_plan.py

test: lint
	-$(MAKE) kserve
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(TIMED:%=--ignore=%)
	$(BIN)/pytest $(TIMED)

# What the tests run of src, and which lines they do not. Not part of `make test`, which it makes 1.8 times as long.
coverage: .venv/.dev
	rm -f build/.coverage* && mkdir -p build
	COVERAGE_FILE=build/.coverage $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(TIMED:%=--ignore=%) --cov=corewrite --cov-report=
	COVERAGE_FILE=build/.coverage $(BIN)/pytest $(TIMED) --cov=corewrite --cov-append --cov-report=term-missing:skip-covered

clean:
	rm -rf .venv .kserve runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
