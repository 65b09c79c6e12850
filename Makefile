# Every target sets up what it needs: a virtual environment in .venv, installed with pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Where this is set each of hundreds of processes compiles genimg anew.
unexport PYTHONDONTWRITEBYTECODE
# PyTorch and Ray would each take all cores for every process of a test run.
TEST_ENV := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

# Large, and imported in part or by few; Python compiles what it needs of them.
UNCOMPILED := /(tests|moto|rllib|sqlalchemy|fontTools|graphql|mypyc?|pip|setuptools|torchgen|virtualenv)/

.PHONY: setup demo test test-all lint bench clean

setup: .venv/ready

demo: .venv/ready
	$(BIN)/genimg demo

test: .venv/ready
	$(call tested,not slow and)

test-all: .venv/ready
	$(call tested,)

# What starts Ray clusters runs one by one, and mostly waits; beside it first the linters, then all
# else, as many at once as there are cores. $(1): a marker that both halves must fit
define tested
	@log=$$(mktemp); \
	$(TEST_ENV) $(BIN)/pytest -m '$(1) ray' tests/jobs tests/serving >$$log 2>&1 & ray=$$!; \
	trap 'kill $$ray 2>/dev/null' INT TERM; \
	$(MAKE) --no-print-directory lint || { kill $$ray; wait $$ray; rm -f $$log; exit 1; }; \
	$(TEST_ENV) $(BIN)/pytest -m '$(1) not ray' -n auto --dist loadfile --no-loadscope-reorder; without=$$?; \
	echo 'and those that start Ray clusters:'; \
	wait $$ray; with=$$?; \
	cat $$log; rm -f $$log; \
	exit $$(( without > with ? without : with ))
endef

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
	-@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip  # Python 3.11's takes half as long again
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 -x '$(UNCOMPILED)' .venv/lib || true  # on all cores, while pip has one
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
