# The whole developer interface: make setup | check | test | bench | docs, and make demo.
.DEFAULT_GOAL := help
.PHONY: help setup check test bench docs demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help:
	@echo "make demo    run the example on this machine"
	@echo "make setup   virtual environment with everything for development"
	@echo "make check   style, types, layers, sizes"
	@echo "make test    all tests (installs what they need, as root)"
	@echo "make bench   measurements, beside peers in the same run"
	@echo "make docs    regenerate what is generated under docs/"

$(VENV)/.installed: pyproject.toml constraints.txt
	@PYTHON=$(PYTHON) sh scripts/venv.sh $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[storage]'
	@touch $@

# pip learnt --group in 25.1; Debian 12 has 23.0.
$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group dev
	@touch $@

demo: $(VENV)/.installed
	@sh scripts/demo.sh

setup: $(VENV)/.developer

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_sizes.py

# Tests of processes wait for them half of the time: two workers for each of CI's two cores.
WORKERS ?= 4

test: setup
	@sh scripts/test-needs.sh
	@sh scripts/test.sh $(BIN)/python $(WORKERS)

bench: setup
	@sh scripts/test-needs.sh bench
	$(BIN)/python bench/all.py

docs: setup
	for page in bucket_modes cli fields openapi states; do $(BIN)/python scripts/gen_$$page.py || exit 1; done
