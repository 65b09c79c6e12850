# Every target sets up what it needs: a virtual environment in .venv, installed with pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# PyTorch and Ray would each take all cores for every process of a test run.
TEST_ENV := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

.PHONY: demo test test-all lint bench clean

demo: .venv/ready
	$(BIN)/genimg demo

test: .venv/ready lint
	$(TEST_ENV) $(BIN)/pytest -m 'not slow and not ray' -n auto --dist loadfile
	$(TEST_ENV) $(BIN)/pytest -m 'not slow and ray'

test-all: .venv/ready lint
	$(TEST_ENV) $(BIN)/pytest -m 'not ray' -n auto --dist loadfile
	$(TEST_ENV) $(BIN)/pytest -m ray

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python tests/bench

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "genimg needs Python 3.11 or newer; name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
