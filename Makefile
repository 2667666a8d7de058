# Set-up and the main jobs. `make demo` and `make test` install what they need into .venv, once, and again only when
# pyproject.toml changes. Needs Linux x86-64, Python ≥ 3.12 with headers, a C compiler and make.

SHELL  := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= run/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs verification check-machine clean

help:  ## Show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## Three dose arms on the embedded brain, through the whole line, into run/demo
	$(BIN)/hybridtumor demo --out $(RUN) --overwrite

test: $(VENV)/.installed-test  ## The test suite (≤ 15 min on 2 cores)
	$(BIN)/pytest

lint: $(VENV)/.installed-test  ## ruff check and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test  ## mypy --strict
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## HTML documentation into docs/_build
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

verification: $(VENV)/.installed-test  ## Run the tests, keep what they see, write docs/verification.md
	rm -f docs/figures/tests.json
	$(BIN)/pytest --figures=docs/figures/tests.json --ignore=tests/test_verification_page.py
	$(BIN)/python tests/verification_page.py

clean:  ## Remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info docs/_build

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@$(call install,-e .)
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@$(call install,-e .[test])
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	@$(call install,-e .[docs])
	@touch $@ $(VENV)/.installed

$(VENV)/bin/python: | check-machine
	@if command -v uv >/dev/null; then uv venv --quiet --python $(PYTHON) $(VENV); else $(PYTHON) -m venv $(VENV); fi

check-machine:
	@missing=0; say() { printf 'hybridtumor: %s\n' "$$*" >&2; missing=1; }; \
	[ "$$(uname -s) $$(uname -m)" = "Linux x86_64" ] || say "expected Linux x86-64, this is $$(uname -s) $$(uname -m): the finite-element wheel exists for Linux x86-64 only (use conda-forge's or Docker's DOLFINx elsewhere)."; \
	if ! command -v $(PYTHON) >/dev/null; then say "no '$(PYTHON)' found: install Python 3.12 or newer, or name it: make PYTHON=python3.12 demo"; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then say "$$($(PYTHON) --version) is too old: expected Python 3.12 or newer; name another: make PYTHON=python3.12 demo"; \
	else \
	  $(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || say "no Python.h found for $(PYTHON): install the Python headers (Debian: python3-dev)."; \
	  $(PYTHON) -c 'import ensurepip' 2>/dev/null || command -v uv >/dev/null || say "$(PYTHON) cannot make virtual environments: install python3-venv, or uv."; \
	fi; \
	command -v $${CC:-cc} >/dev/null || command -v gcc >/dev/null || say "no C compiler found: install gcc (Debian: build-essential). The finite-element forms are compiled at run time."; \
	exit $$missing

define install
	echo "hybridtumor: installing $(1) into $(VENV) (once; torch alone is about 3 GB)"; \
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python $(1); \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi
endef
