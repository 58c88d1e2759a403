# The commands people and CI use. Each does all of its own set-up in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# one thread a process: two processes with two threads each wait for one another on two cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
OUT    ?= out/demo
CASES  ?= 2000
GOLDENS ?= ../shared/reference/official
GRID   ?= ../shared/data/grid
CLIPS  ?= runs/data/grid/manifest.jsonl
# one voice, hardly disturbed: with many voices in noise from the first step on, the ear learns nothing for 2,000 steps
FIRST  = --set data.train='["runs/data/grid/manifest.jsonl"]' --set data.augment.ramp_epochs=100 $(UNCUT) \
         --set train.epochs=16 --set train.ctc_epochs=16 --set train.lr=1e-3
SECOND = --set train.init=runs/default_first/model --set data.augment.ramp_epochs=10 $(UNCUT) \
         --set train.epochs=48 --set train.ctc_epochs=10 --set train.lr=1e-3
# where words part is only known to heads that have learnt
UNCUT  = --set data.augment.crossover=0 --set data.augment.revoice=0

.PHONY: demo test test-slow test-scale full-size fuzz check parity plain default findings clean

demo: $(VENV)/.demo        ## transcribe the bundled clip by ear, by lips and by both
	$(BIN)/python scripts/demo.py $(OUT)

test: $(VENV)/.dev check   ## lint, types, and the suite
	$(PYTEST) -n 2 -m "not slow and not scale"

test-slow: $(VENV)/.dev    ## the longer proofs
	$(PYTEST) -n 2 -m "slow and not scale"

test-scale: $(VENV)/.dev   ## a local Ray cluster whose workers are killed (installs 725 MB)
	$(BIN)/python -m pip install --quiet -e '.[dev,scale]'
	$(PYTEST) -m scale

full-size: $(VENV)/.dev    ## a checkpoint of the published size is imported within 12 GB of memory (8 GB of disk)
	OMNI_AVSR_FULL_SIZE=1 $(PYTEST) -s tests/checkpoints/test_full_size.py

fuzz: $(VENV)/.dev         ## damaged containers (CASES=n), each of which must give text or a sentence; goes on where it was stopped; STORED=json
	$(BIN)/python -m tests.fuzz out/fuzz $(CASES) $(STORED)

check: $(VENV)/.dev        ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

parity: $(VENV)/.dev       ## every golden tensor of the official code (GOLDENS=dir)
	OMNI_AVSR_GOLDENS=$(GOLDENS) $(PYTEST) tests/parity

plain: $(VENV)/.dev        ## exact mode against transformers' generate, and every compute type's words, on real clips (CLIPS=manifest)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/plain_path.py $(CLIPS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compute_types.py $(CLIPS)

default: $(VENV)/.dev      ## train the shipped model from GRID=dir: some four hours of one core
	mkdir -p runs/corpora/voices runs/corpora/heads
	cp recipes/data/voices.toml runs/corpora/voices/synthetic.toml
	cp recipes/data/heads.toml runs/corpora/heads/synthetic.toml
	$(BIN)/omni-avsr prepare grid $(GRID) -o runs/data/grid --mouths
	$(BIN)/omni-avsr prepare synthetic runs/corpora/voices -o runs/data/voices --mouths
	$(BIN)/omni-avsr prepare synthetic runs/corpora/heads -o runs/data/heads --mouths
	$(BIN)/python scripts/speak.py met 1500 -o runs/data/met
	OMP_NUM_THREADS=1 $(BIN)/omni-avsr train default -o runs/default_first $(FIRST)
	OMP_NUM_THREADS=1 $(BIN)/omni-avsr train default -o runs/default_second $(SECOND)
	OMP_NUM_THREADS=1 $(BIN)/omni-avsr train default -o runs/default --set train.init=runs/default_second/model
	$(BIN)/python scripts/ship.py runs/default/model

findings: $(VENV)/.dev     ## the study of docs/findings.md: what is not stored yet, then the page; CPU, an hour
	[ -f runs/data/grid/manifest.jsonl ] || $(BIN)/omni-avsr prepare grid $(GRID) -o runs/data/grid --mouths
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.findings

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "omni-avsr needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	$(BIN)/python -m omni_avsr.media.assets
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	$(BIN)/python -m omni_avsr.media.assets
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache
