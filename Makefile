# make demo     the complete pipeline, from generated videos to a page that searches them by text
# make check    lint, type checks and the fast tests: run it before each commit
# make test     lint, type checks and all tests, as in CI
# make docs     the documentation site, in site/; a warning is an error
# make mutants  mutation tests: at least one test must fail for each small error in the list; half an hour, not in CI
# make lock     writes requirements/{demo,test}.txt again, with the newest versions that setup.py allows
# Each target installs what it needs in .venv: the versions of requirements/*.txt, each file checked by its hash. Only
# torch and what it needs for CUDA are not in them, because a machine may have a build of its own.
PYTHON ?= python3
BIN := .venv/bin
DATA := data/toy_kitchen
RUN := runs/demo
COLLECTION := runs/demo.collection
WORKERS := $(shell $(PYTHON) -c 'import os; print(os.cpu_count())')
EXTRAS := fairseq,index,video,report,search,demo

.PHONY: demo test check lint types fast unit docs mutants lock test-fairseq-meta test-oldest

demo: .venv/.demo
	$(BIN)/mmpt generate toy_kitchen --out $(DATA) --workers $(WORKERS)
	$(BIN)/mmpt extract $(DATA)/videos --encoder efficientnet_lite0 --out $(DATA)/features --workers $(WORKERS)
	$(BIN)/mmpt shard --videos $(DATA)/train.txt --features $(DATA)/features --captions $(DATA)/captions \
		--tokenizer $(DATA)/tokenizer --out $(DATA)/shards/train
	rm -rf $(RUN)
	$(BIN)/mmpt train videoclip/toy_kitchen
	$(BIN)/mmpt evaluate videoclip/zeroshot task=toy_kitchen_clips checkpoint=$(RUN)/checkpoint_last.pt \
		--json $(RUN)/metrics.json
	$(BIN)/mmpt report $(RUN) --videos $(DATA)/videos
	rm -rf $(COLLECTION)
	$(BIN)/mmpt index $$(sed 's|.*|$(DATA)/videos/&.mp4|' $(DATA)/test.txt) --collection $(COLLECTION) \
		--model $(RUN)/checkpoint_last.pt --tokenizer $(DATA)/tokenizer --encoder efficientnet_lite0 \
		--workers $(WORKERS)

check: lint types fast

test: lint types unit

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.dev
	$(BIN)/mypy

# One worker more than the two cores that tests are planned for: those of jobs mostly wait.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

fast: .venv/.dev
	$(PYTEST) -m 'not slow and not slurm'

unit: .venv/.dev
	$(PYTEST)

docs: .venv/.docs
	$(BIN)/mkdocs build --strict --site-dir site

# To test only some files: make mutants ONLY="criterions metrics/"
mutants: .venv/.dev
	$(BIN)/python tests/mutants.py $(ONLY)

# Tests the fairseq bridge with Meta's fairseq 0.12.2, which comes before ve-fairseq on the path. READTHEDOCS skips its
# C++ extensions: the sdist lacks some of their files, and this project does not use them. Meta's fairseq-train does not
# start on Python 3.11.
test-fairseq-meta: .venv/.dev
	READTHEDOCS=1 $(BIN)/pip install --quiet --target .venv/fairseq-meta --upgrade --no-deps --no-build-isolation \
		fairseq==0.12.2
	PYTHONPATH=.venv/fairseq-meta $(BIN)/python -c 'import mmpt_plugin.fairseq_bridge, fairseq; \
		assert fairseq.__version__ == "0.12.2", fairseq'
	PYTHONPATH=.venv/fairseq-meta $(BIN)/python -m pytest tests/fairseq_bridge \
		-k "test_adapters or test_trajectory or mmpt_train"

# Runs the fast tests on exactly the oldest versions that setup.py allows; torch for CUDA is gigabytes.
test-oldest: .venv/oldest/.done
	OMP_NUM_THREADS=1 .venv/oldest/bin/python -m pytest -n 2 --dist loadfile -m 'not slow and not slurm'

.venv/oldest/.done: setup.py requirements/oldest.txt requirements/fairseq.txt
	$(PYTHON) -m venv .venv/oldest
	.venv/oldest/bin/pip install --quiet --constraint requirements/oldest.txt --editable '.[$(EXTRAS),milvus,slurm,dev]'
	.venv/oldest/bin/pip install --quiet --no-deps --require-hashes --requirement requirements/fairseq.txt
	touch $@

LOCKED := pip install --quiet --no-deps --require-hashes --requirement

.venv/.demo: setup.py requirements/demo.txt requirements/fairseq.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet '$(shell grep -o 'torch>=[^"]*' setup.py)'
	$(BIN)/$(LOCKED) requirements/demo.txt
	$(BIN)/$(LOCKED) requirements/fairseq.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

.venv/.dev: .venv/.demo requirements/test.txt
	$(BIN)/$(LOCKED) requirements/test.txt
	touch $@

# One resolution for all Python versions, without the address of a package index; demo.txt is a part of test.txt.
COMPILE := .venv/lock/bin/uv pip compile setup.py --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --excludes .venv/lock/excluded.txt --custom-compile-command 'make lock'
comma := ,

lock:
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet uv
	echo torch >.venv/lock/excluded.txt
	$(COMPILE) $(addprefix --extra ,$(subst $(comma), ,$(EXTRAS),milvus,slurm,dev)) --output-file requirements/test.txt
	$(COMPILE) $(addprefix --extra ,$(subst $(comma), ,$(EXTRAS))) --constraint requirements/test.txt \
		--output-file requirements/demo.txt

.venv/.docs: .venv/.demo
	$(BIN)/pip install --quiet --editable '.[$(EXTRAS),docs]'
	touch $@
