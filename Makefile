# What a person does here. Variables: CRAWL=DIR RECIPE=FILE SET="key=value ..." PORT=8080 WHERE=home PYTHON=python3.11
PYTHON ?= python3.11
RECIPE ?= recipes/tiny.yaml
PORT ?= 8080
WHERE ?= home
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --require-hashes

.PHONY: help setup demo stop test test-slow mutants lint licences audit format bench bench-extract bench-dedup bench-fuzz bench-hostile bench-tokens bench-pretrain bench-align bench-cockpit bench-evaluate bench-feedback
.DEFAULT_GOAL := help

help:
	@echo "make demo    pages to a chat model inside Airflow; CRAWL=DIR takes your own WARC or WET files"
	@echo "make stop    end everything that make demo started"
	@echo "make test    the tests          make lint   style, types, architecture"
	@echo "make audit   licences (make licences) and known vulnerabilities of what is installed"
	@echo "make test-slow   kills, soaks, clusters and the whole of make demo"
	@echo "make mutants     do the tests bite? small faults in the code that they must notice; SAMPLE=400 SEED=1"
	@echo "make bench   throughput of the hot stages       make setup  only install, into .venv"
	@echo "make bench-extract   reading, extraction, scores, decontamination; DATA=DIR has the test data, also for bench-dedup"
	@echo "make bench-dedup     deduplication; ONLY=\"sign recall\" takes some of: sign recall kill peer million substring"
	@echo "make bench-fuzz      damaged files, for 20 minutes"
	@echo "make bench-hostile   pages made to stall a worker, ways out of a deployment, a store that fails at every change"
	@echo "make bench-tokens    mixtures, order, tokenizers, packing, reading of tokens; ONLY=order takes one of the files in perf/tokens"
	@echo "make bench-pretrain  speed, checkpoints, resuming of pretraining; ONLY=checkpoint takes one of the files in perf/pretrain"
	@echo "make bench-align     known answers, resuming and speed of alignment; ONLY=resume takes one of the files in perf/align"
	@echo "make bench-evaluate  answers found, pass@k, judges' biases, ways out of the sandbox, a spoilt ability, speed beside lm-evaluation-harness; ONLY=escapes takes one of the files in perf/evaluate"
	@echo "make bench-cockpit   the pages inside Airflow: fifty users, ten million documents; ONLY=\"load drawn\" takes some of the parts"
	@echo "make bench-feedback  simulated people: the reward that their votes tell, three rounds, and whether a vote is lost; ONLY=known takes one of: known rounds kept"
	@echo "                     BAR name value bar ok|short: measured, required, reached or not; the target fails where one is short"

setup: $(VENV)/.ready

# PyTorch's CPU build where pip can find it, else the index's, with the libraries of CUDA.
$(VENV)/.ready: requirements.lock requirements-test.lock requirements-cpu.lock requirements-cuda.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; install Python 3.11, or run: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) demo/preflight.py
	@echo "Setting up $(VENV): two to five minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) -r requirements.lock -r requirements-test.lock -r requirements-$$($(BIN)/python -m pip install -qq --dry-run --no-deps torch==2.13.0+cpu >/dev/null 2>&1 && echo cpu || echo cuda).lock
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/python -m demo start --where "$(WHERE)" --recipe "$(RECIPE)" --port $(PORT) --set "$(SET)" $(if $(CRAWL),--crawl "$(CRAWL)")

stop:
	@test ! -x $(BIN)/python || $(BIN)/python -m demo stop --where "$(WHERE)"

test: setup
	@$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadscope --no-loadscope-reorder

test-slow: setup
	@$(BIN)/python -m pytest -q -m slow -n 2 --dist loadscope --no-loadscope-reorder

LICENCES := Apache;MIT;BSD;ISC;PSF;Python Software Foundation;MPL;Mozilla Public;LGPL;Lesser General;Unlicense;Artistic

SAMPLE ?= 420
SEED ?= 1
mutants: setup
	@$(BIN)/python -m mutants --sample $(SAMPLE) --seed $(SEED) $(if $(LEAST),--least $(LEAST))

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

licences: setup
	@$(BIN)/pip-licenses --partial-match --allow-only "$(LICENCES)" --ignore-packages gristmill >/dev/null && echo "licences: all allowed"

# Known vulnerabilities come from the Python package index, which must be in reach.
audit: licences
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

format: setup
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: setup
	@$(BIN)/python -m perf.parts stages

# Beside datatrove, in an environment of its own under .bench; DATA holds html_gold/ and lid/.
DATA ?= ../shared/data
bench-extract: setup
	@$(BIN)/python -m perf.parts extract --data "$(DATA)"

# Beside datasketch and, in an environment of its own, datatrove; DATA holds dedup/. ONLY="sign recall" takes some of the parts.
bench-dedup: setup
	@$(BIN)/python -m perf.dedup --data "$(DATA)" $(if $(ONLY),--only $(ONLY))

bench-fuzz: setup
	@$(BIN)/python -m perf.parts fuzz

bench-hostile: setup
	@$(BIN)/python -m perf.parts hostile

# Beside datatrove, in an environment of its own. ONLY=order takes one of the files in perf/tokens.
bench-tokens: setup
	@$(BIN)/python -m perf.tokens --data "$(DATA)" $(if $(ONLY),--only $(ONLY))

# Beside a plain loop of transformers' Trainer. ONLY=checkpoint takes one of the files in perf/pretrain.
bench-pretrain: setup
	@$(BIN)/python -m perf.pretrain --data "$(DATA)" $(if $(ONLY),--only $(ONLY))

# ONLY=resume takes one of the files in perf/align.
bench-align: setup
	@$(BIN)/python -m perf.align --data "$(DATA)" $(if $(ONLY),--only $(ONLY))

# Needs bubblewrap; beside lm-evaluation-harness, in an environment of its own. ONLY=escapes takes one of the files in perf/evaluate.
bench-evaluate: setup
	@$(BIN)/python -m perf.evaluate --data "$(DATA)" $(if $(ONLY),--only $(ONLY))

# On a synthetic store of 8 GB, which is made once, below .bench; needs Chromium. ONLY="load drawn" takes some of: load drawn rights injections clicks
bench-cockpit: setup
	@$(BIN)/python -m perf.cockpit $(if $(ONLY),--only $(ONLY))

# ONLY=known takes one of: known kept. The latter needs Chromium.
bench-feedback: setup
	@$(BIN)/python -m perf.feedback $(if $(ONLY),--only $(ONLY))
