# Needs Python 3.11 or newer, and make. `make` alone lists the words.

PYTHON := $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
RUN := .venv/bin/python
SEEDS ?= 300
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo demo-approval test conformance check fix docs bench bench-peers simulate schema

help: ## list the words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: .venv/core ## survey the standard library: the product from start to end, in a minute
	@$(RUN) examples/survey/run.py

demo-approval: .venv/core ## an order waits for a person while everything is killed, twice
	@$(RUN) examples/approval/run.py

test: check ## everything that must hold: check, then every test
	$(RUN) -m pytest -n 2

conformance: .venv/dev ## the wire contract's suite, by the official SDK; SUITE names its folder, WHAT="t1 t2" its files
	$(RUN) tests/conformance/run.py $(if $(SUITE),--suite $(SUITE)) $(WHAT)

check: .venv/dev ## format, lint, types, import map
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m ruff check --quiet --no-cache .
	$(RUN) -m mypy
	$(RUN) -m pyright --pythonpath $(RUN) tests/sdk/typing_checks.py

fix: .venv/dev ## format, and mend what the linter can mend
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

docs: .venv/dev ## write the generated pages of the reference anew
	$(RUN) scripts/write_docs.py

bench: .venv/dev ## measure on SQLite and on PostgreSQL; WHAT="steps sleepers" measures only these
	$(RUN) benchmarks/run.py $(WHAT)

bench-peers: .venv/dev ## measure other products in turns with ours; installs them into .venv-peers
	$(RUN) benchmarks/peers/run.py $(WHAT)

simulate: .venv/dev ## the engine under faults; SEEDS=10000 runs long
	PYTHONPATH=tests $(RUN) -m simulator --seeds $(SEEDS)

schema: .venv/dev ## write the dumps of the database schema anew
	$(RUN) scripts/dump_schema.py

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, with its venv module (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv

# The stamps say that the installation is newer than what it was made from.
.venv/core: .venv/bin/python pyproject.toml
	@echo "installing into .venv ..."
	@$(RUN) -m pip install --quiet --upgrade 'pip>=25.1'
	@$(RUN) -m pip install --quiet --editable .
	@touch $@

.venv/dev: .venv/core
	@echo "installing what development needs ..."
	@$(RUN) -m pip install --quiet --editable '.[all]' --group dev
	@touch $@
