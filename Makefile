# make demo    the whole way, from made videos to a page of what was found
# make test    everything CI checks; sets up what it needs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := data/toy_kitchen
RUN := runs/demo
WORKERS ?= $(shell nproc)
EXTRAS := fairseq,index,video,report

.PHONY: demo test check lint types unit e2e test-fairseq-meta clean-run

demo: $(VENV)/.demo
	$(BIN)/python -m mmpt_plugin.cli generate toy_kitchen --out $(DATA) --workers $(WORKERS)
	$(BIN)/mmpt extract $(DATA)/videos --encoder $(ENCODER) --out $(DATA)/features --workers $(WORKERS)

$(VENV)/.demo: setup.py requirements/fairseq.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/fairseq.txt
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS),slurm,dev]'
	touch $@

test check: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest
