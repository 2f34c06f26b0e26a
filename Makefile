# Everything a newcomer needs: `make demo` and `make test`. Each makes the virtual environment first.
# Another Python or place: make test PYTHON=python3.12 VENV=.venv312

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
JSON ?= .payonce/smoke.json

.PHONY: help venv test check demo smoke bench wheel pins clean

help: ## show what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

venv: $(STAMP) ## make the virtual environment (instant when nothing changed)

$(STAMP): pyproject.toml requirements/dev.txt requirements/dev-py312.txt requirements/install.sh
	@requirements/install.sh "$(VENV)" "$(PYTHON)"
	@touch $@
