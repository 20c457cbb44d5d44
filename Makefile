# Each target sets up what it needs in a local .venv; PYTHON chooses the interpreter.
# `make demo MODEL=FILE_OR_URL` takes a saved model instead of training one.
PYTHON ?= python3
MODEL =
VENV := .venv
BIN := $(VENV)/bin
# Files in the order of tests/conftest.py, each to one of two workers.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo check test lint docs packages release-notes clean

demo: GIVEN = $(addprefix --model=,$(MODEL))
demo: $(VENV)/.demo
	$(if $(MODEL),,$(BIN)/python -m experiments.train --config=configs/demo.py)
	$(BIN)/python -m experiments.assimilate $(GIVEN) --config=configs/demo.py \
		--output=runs/demo/analysis.nc
	$(BIN)/python -m experiments.evaluate $(GIVEN) --config=configs/demo.py \
		--analysis=runs/demo/analysis.nc --report=runs/demo/report.html

# The allocator keeps less of what compilation frees.
check test: export MALLOC_ARENA_MAX := 2
# Workers share the cores: threads of their linear algebra would only wait for one another.
check test: export OPENBLAS_NUM_THREADS := 1
# Modules are compiled once, not by every worker and command.
check test: export PYTHONDONTWRITEBYTECODE :=

check: lint
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# Shapes and types are checked at run time in the quick tests alone: in the slow ones that would take
# a sixth of the time, in tracing. A selection (PYTEST_ARGS) may hold tests of one kind only, of
# which pytest says 5.
test: $(VENV)/.test
	$(PYTEST) -m "not slow" $(PYTEST_ARGS) || [ $$? -eq 5 ]
	$(PYTEST) -m slow \
		--override-ini="addopts=--strict-markers --import-mode=importlib" $(PYTEST_ARGS) \
		|| [ $$? -eq 5 ]

lint: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --threads 2

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

packages: $(VENV)/.dev
	JAX_PLATFORMS=cpu UV_PYTHON_DOWNLOADS=never .ci/packages

release-notes:
	@$(PYTHON) .ci/release_notes.py $(TAG)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml requirements/moist.txt
	$(BIN)/python -m pip install --quiet --editable '.[osse,plot]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements/moist.txt
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml requirements/moist.txt
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements/moist.txt
	touch $@

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
