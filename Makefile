# The two commands of the README are `make demo` and `make test`; both make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes of tests at a time, a module in one of them, the longest modules first;
# `make test SPREAD=` runs them one by one.
SPREAD ?= -n 2 --dist loadfile --no-loadscope-reorder
# Dozens of processes are started by the tests: none compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE
DEMO_ARGS := $(if $(EXIT),--exit) $(ARGS)

.PHONY: demo test unit check format bench soak clean

demo: $(VENV)/.installed
	@$(BIN)/tickstream demo $(DEMO_ARGS)

test: $(VENV)/.dev
	@$(BIN)/pytest $(SPREAD) $(ARGS) tests/unit tests/contracts tests/integration tests/simulation
	@$(BIN)/pytest $(SPREAD) $(ARGS) tests/acceptance

unit: $(VENV)/.dev
	@$(BIN)/pytest $(SPREAD) tests/unit $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/pytest -q tests/unit/test_stems.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	@$(BIN)/pytest -m bench -s -p no:randomly tests/bench $(ARGS)

soak: $(VENV)/.dev
	@$(BIN)/pytest -m soak -s --timeout 0 $(or $(ARGS),tests)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-results

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tickstream needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@echo "installing tickstream into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the tools of the tests into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@
