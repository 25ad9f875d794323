# `make` lists the targets. One virtual environment, .venv, filled by pip from constraints.txt.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP_VERSION := 26.3
PIP := $(PY) -m pip --disable-pip-version-check --no-input
# One more than there are cores: the tests of a real Airflow wait half of their time.
WORKERS ?= 3
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The first of these that is Python 3.11 to 3.13 and able to make a virtual environment.
# Override with `make venv PYTHON=/path/to/python`.
PYTHONS := python3 python3.13 python3.12 python3.11
USABLE := import sys, ensurepip, sqlite3, ssl, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

# A stamp is written when pip has finished, so an interrupted install is done again.
RUNTIME := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
INPUTS := pyproject.toml constraints.txt

.PHONY: help
help: ## list the targets
	@echo "Airlock: release governance for machine-learning models, on Apache Airflow"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(RUNTIME) ## install Airlock into .venv; does nothing when that is up to date

.PHONY: venv-dev
venv-dev: $(DEV) ## the same, with what tests, linters and the cluster need

$(RUNTIME): $(INPUTS) | $(VENV)/.pip-$(PIP_VERSION)
	@rm -f $@
	@echo "Installing Airlock and the 216 packages it needs into $(VENV): one to two minutes"
	@$(PIP) install -qq -c constraints.txt -e .
	@touch $@

$(DEV): $(INPUTS) | $(VENV)/.pip-$(PIP_VERSION)
	@rm -f $@ $(RUNTIME)
	@echo "Installing Airlock and 312 packages, tests, cluster and anchors included, into $(VENV): about two minutes"
	@$(PIP) install -qq -c constraints.txt -e '.[cluster,rego,s3,signing,slack]' --group dev
	@$(PIP) check >/dev/null || { $(PIP) check; exit 1; }
	@touch $(RUNTIME) $@

$(VENV)/.pip-$(PIP_VERSION):
	@python="$${PYTHON:-}"; \
	if [[ -z "$$python" ]]; then \
	  for name in $(PYTHONS); do \
	    if "$$name" -c '$(USABLE)' >/dev/null 2>&1; then python="$$name"; break; fi; \
	  done; \
	elif ! "$$python" -c '$(USABLE)' >/dev/null 2>&1; then \
	  echo "PYTHON=$$python is not Python 3.11, 3.12 or 3.13 with the venv module." >&2; exit 1; \
	fi; \
	if [[ -z "$$python" ]]; then \
	  echo "Airlock needs Python 3.11, 3.12 or 3.13 with the venv module; tried: $(PYTHONS)." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or say where it is: make venv PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
	@$(PIP) install -qq "pip==$(PIP_VERSION)"
	@touch $@

.PHONY: demo
demo: venv ## five real releases through a real Airflow; options in ARGS="--once --story drift"
	@$(VENV)/bin/airlock demo $(ARGS)

.PHONY: test
test: venv-dev lint ## everything CI checks: lint, then all tests; a skipped test fails
	@$(PY) -m pytest --no-skips -m "not soak" $(PARALLEL)

.PHONY: test-fast
test-fast: venv-dev ## the tests that take no time each
	@$(PY) -m pytest -q -m "not slow and not system and not soak" $(PARALLEL)

.PHONY: soak
soak: venv-dev ## campaigns of kills, faults and load; an hour
	@$(PY) -m pytest --no-skips -m soak -s

.PHONY: lint
lint: venv-dev ## ruff, mypy, import-linter
	@failed=; \
	$(PY) -m ruff check || failed=1; \
	$(PY) -m ruff format --check || failed=1; \
	$(PY) -m mypy || failed=1; \
	$(VENV)/bin/lint-imports --no-logo || failed=1; \
	test -z "$$failed"

.PHONY: format
format: venv-dev ## format the code and fix what ruff can fix
	@$(PY) -m ruff format
	@$(PY) -m ruff check --fix

.PHONY: trace
trace: venv-dev ## write which tests prove which requirement into docs/requirements.md
	@$(PY) scripts/trace.py

.PHONY: gate-docs
gate-docs: venv ## write the reference of all gates into docs/gates.md
	@$(PY) scripts/gate_docs.py

.PHONY: schemas
schemas: venv ## write the JSON Schemas of config/ for editors
	@$(PY) scripts/export_schemas.py

.PHONY: bench
bench: venv-dev ## measure every figure the README quotes
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(PY) -m "benchmarks.$$(basename "$$file" .py)"; done

.PHONY: lock
lock: ## write constraints.txt from pyproject.toml; ARGS="--upgrade" for the newest versions
	@scripts/lock.sh $(ARGS)

.PHONY: clean
clean: ## remove .venv and caches; releases, evidence and audit (.airlock) stay
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis include/*.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
