# Everything from a fresh clone; needs Python >= 3.11, pip and make.
#
#   make demo    set up, then see FAE work on a synthetic log
#   make test    set up, then run all tests, with coverage by some of them
#   make check   set up, then lint, format, types, import floors
#   make clean   remove the environment and what tools left behind
#
# The stamps make setting up happen once, and again when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two workers: compiled kernels are cached on disk and shared, and each worker imports torch.
TEST_WORKERS ?= 2
# Of lines that tests/contract and tests/unit reach (tests/conftest.py): a tracer in the others takes minutes.
COVERAGE_FLOOR ?= 85

.PHONY: demo test check lint types floors clean

demo: $(VENV)/installed
	$(BIN)/fae demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal --cov=fae --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_FLOOR)

check: lint types floors

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/types/user_script.py

floors: $(VENV)/installed-dev
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FAE needs Python 3.11 or newer, here is %d.%d; try: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/installed $@
