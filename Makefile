# Two commands for a start: make demo, make test. The first call sets up .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint check notebook verdicts lock clean

# The interpreter that .venv is made with, and what else pytest is told
# (make test ARGS="-k wire").
PYTHON ?= python3
ARGS ?=

VENV := .venv
READY := $(VENV)/.ready
# nbgrader calls its helper programs by name, so the environment leads the PATH.
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

help:
	@echo 'make demo      build the homework and grade three bundled submissions'
	@echo 'make test      run the tests'
	@echo 'make setup     only make the environment, .venv'
	@echo 'make lint      ruff and mypy'
	@echo 'make check     make lint, then make test, as CI does'
	@echo 'make notebook  rebuild the notebook from assignment/ and solution/'
	@echo 'make verdicts  grade all known work, right and wrong, and write docs/verdicts.md'
	@echo 'make lock      renew requirements.lock from pyproject.toml'
	@echo 'make clean     remove the environment and caches; nbgrader'"'"'s data stays'

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) tools/setup_venv.py $(VENV)
	@touch $@

demo: $(READY)
	@$(IN_VENV) python -m tools.demo

test: $(READY)
	@for program in bwrap chromium chromedriver; do \
	  command -v $$program >/dev/null || echo "$$program is missing, so tests that need it are skipped"; done
	$(IN_VENV) python -m pytest -n auto --dist loadgroup $(ARGS)

lint: $(READY)
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) mypy

check: lint
	@$(MAKE) --no-print-directory test

notebook: $(READY)
	$(IN_VENV) python -m solution.notebook

# An hour or two on two cores; stopped with Ctrl-C, the next run goes on from there.
# make verdicts ARGS=--flakes grades 25 notebooks with 12 seeds each as well.
verdicts: $(READY)
	$(IN_VENV) python -m tools.verdicts $(ARGS)

# Everything that the dev extra draws in, at the newest releases that fit together.
# A local version (2.13.0+cpu) would tie the lock to one build of torch, and the
# GPU libraries of another build are pinned by torch itself.
# Run it with the oldest Python in use, Debian 12's 3.11.2: make lock PYTHON=/usr/bin/python3
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install -qq --editable '.[dev]'
	{ sed '/^[^#]/,$$d' requirements.lock; \
	  .venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
	  | sed -E -e 's/\+[a-z0-9.]+$$//' -e '/^(nvidia|cuda|triton)/d'; } > .venv-lock/requirements.lock
	mv .venv-lock/requirements.lock requirements.lock
	rm -rf .venv-lock

# The gradebook and what nbgrader collected may be the only copy of somebody's grades.
clean:
	rm -rf $(VENV) .venv-lock build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
