# The whole developer interface: make setup | check | test | bench | docs | demo
.DEFAULT_GOAL := help
.PHONY: help setup check test bench docs demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help:
	@echo "make setup | check | test | bench | docs | demo"

$(VENV)/.ready: pyproject.toml
	PYTHON=$(PYTHON) sh scripts/venv.sh $(VENV)
	$(BIN)/pip install --quiet --editable . --group dev
	touch $@

setup: $(VENV)/.ready

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_sizes.py

test: setup
	sh scripts/test-needs.sh
	$(BIN)/python -m pytest -n 2 --dist loadgroup
