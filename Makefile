# The two commands of README: make demo, make test. Each does all the set-up that it needs.
# PYTHON is any Python ≥ 3.11; what is installed goes into .venv.

PYTHON ?= python3
MINUTES ?= 10
VENV := .venv
BIN := $(VENV)/bin
AZURITE := .cache/azurite/node_modules/azurite
AZURITE_VERSION := 3.35.0
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo emulate test test-all fuzz soak conformance azurite lint breast-cancer loans cnn clean help

demo: $(VENV)/examples  ## handwritten digits, ten clients, 40 rounds
	$(BIN)/python -m examples.digits

breast-cancer: $(VENV)/examples  ## five hospitals of different size and case mix
	$(BIN)/python -m examples.breast_cancer

loans: $(VENV)/examples  ## four lenders, each with one kind of loan
	$(BIN)/python -m examples.loans

cnn: $(VENV)/examples  ## a small convolutional network, several local epochs
	$(BIN)/python -m examples.cnn

emulate: $(VENV)/dev azurite  ## the digits across emulated clouds: the parent in Google Cloud, in Azure, and with privacy
	$(BIN)/python -m examples.emulate

test: $(VENV)/dev azurite  ## what must hold before every commit; about five minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(VENV)/dev azurite  ## the rest, too
	$(BIN)/python -m pytest -n 2 --dist worksteal

fuzz: $(VENV)/dev  ## coverage-guided: weight files, headers, keys, events, settings; SECONDS=900 for each
	$(INSTALL) atheris
	$(BIN)/python -m tests.fuzz $(or $(SECONDS),60)

soak: $(VENV)/dev azurite  ## MINUTES=10: federations whose parts are killed, stalled and cut off make the models of one left alone
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

conformance: $(VENV)/dev  ## STORE=gs://bucket/prefix: does this bucket keep the promises that fedbucket builds on?
	@test -n "$(STORE)" || { echo "make conformance STORE=gs://bucket/prefix (or az://account/container, s3://bucket)"; exit 1; }
	$(BIN)/python -m tests.exchange.stores.conformance '$(STORE)'

azurite:  ## the emulator of Azure's storage, which needs Node; without it the tests that need it are skipped
	@test -d $(AZURITE) || ! command -v npm >/dev/null || \
		npm install --silent --no-fund --no-audit --prefix .cache/azurite azurite@$(AZURITE_VERSION) || true

lint: $(VENV)/dev  ## format, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

help:  ## what there is to make
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 16

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fedbucket needs Python ≥ 3.11; this is $$($(PYTHON) --version): make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/examples: pyproject.toml constraints.txt | $(VENV)/python
	$(INSTALL) --editable '.[examples]'
	@touch $@

# Azure's engine for functions says that it needs Python 3.13. It runs on 3.11; pip is told not to mind.
$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/python
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps --ignore-requires-python azure-functions-runtime azurefunctions-extensions-base
	@touch $@ $(VENV)/examples
