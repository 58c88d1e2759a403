# The commands people and CI use. Each does all of its own set-up in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo
GOLDENS ?= ../shared/reference/official

.PHONY: demo test check parity clean

demo: $(VENV)/.demo        ## transcribe the bundled clip by ear, by lips and by both
	$(BIN)/python scripts/demo.py $(OUT)

test: $(VENV)/.dev check   ## lint, types, and the whole suite
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.dev        ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

parity: $(VENV)/.dev       ## every golden tensor of the official code (GOLDENS=dir)
	OMNI_AVSR_GOLDENS=$(GOLDENS) $(BIN)/python -m pytest tests/parity

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
