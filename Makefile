# Needs git, make and Python 3.11 or later. Everything else goes into .venv, made when first needed and again
# when pyproject.toml has changed.

PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
BIN := .venv/bin
SETUP := .venv/kvoy-is-set-up

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types fmt docs bench-handoff bench-overhead bench-replicas bench-schedule clean

help:
	@echo 'make setup           everything that kvoy needs, into .venv'
	@echo 'make demo            kvoy, real Envoy and three simulated engines on this machine: requests and reasons'
	@echo 'make test            every test'
	@echo 'make lint            style, format and import contracts'
	@echo 'make types           type check'
	@echo 'make fmt             format the code'
	@echo 'make docs            write docs/reference.md from the code'
	@echo 'make bench-handoff   what handing prompts off costs, and what it is good for; JSON=FILE keeps the rows'
	@echo 'make bench-overhead  Envoy alone against Envoy with kvoy; JSON=FILE keeps the rows'
	@echo 'make bench-replicas  one trace through 1, 2, 4 and 8 workers: do they decide like one?; JSON=FILE'
	@echo 'make bench-schedule  what a decision costs, and how soon every worker knows of it; JSON=FILE'
	@echo 'make clean           remove .venv and caches'

setup: $(SETUP)

$(SETUP): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'kvoy needs Python 3.11 or later: install it, or name it with make PYTHON=/path/to/python3' >&2; \
		exit 1; }
	@echo 'setting up .venv (about a minute the first time) …'
	@"$(PYTHON)" -m venv --upgrade-deps .venv || { \
		echo 'cannot make .venv: does this Python lack venv? (Debian: apt install python3-venv)' >&2; \
		exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[up]' --group dev
	@touch $@

# The demo leaves no file behind.
demo: export PYTHONDONTWRITEBYTECODE = 1
demo: $(SETUP)
	@$(BIN)/python examples/quickstart/demo.py

# The second are about who decides what and when, and need a machine that nobody else keeps busy.
ALONE := tests/benchmarks/replicas/test_run.py tests/envoy/test_handoff_failures.py
test: $(SETUP)
	$(BIN)/pytest -q --durations=10 --numprocesses 2 $(ALONE:%=--ignore %)
	$(BIN)/pytest -q --durations=10 $(ALONE)

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(SETUP)
	$(BIN)/mypy

fmt: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(SETUP)
	PYTHONPATH=. $(BIN)/python docs/generate.py

bench-handoff: $(SETUP)
	$(BIN)/python -m benchmarks.handoff $(if $(JSON),--json '$(JSON)')

bench-overhead: $(SETUP)
	$(BIN)/python -m benchmarks.overhead $(if $(JSON),--json '$(JSON)')

bench-replicas: $(SETUP)
	$(BIN)/python -m benchmarks.replicas $(if $(JSON),--json '$(JSON)')

bench-schedule: $(SETUP)
	$(BIN)/python -m benchmarks.schedule $(if $(JSON),--json '$(JSON)')

clean:
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
