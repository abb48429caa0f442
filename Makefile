# Every command a newcomer needs. `make` alone tells what there is.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PORT ?= 8080

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

# Written last, so that an install that broke off is done again.
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: help install demo page test drills lint format clean

help:
	@echo "make demo      four rendered cameras, by day and by night, to vehicles (about a minute after the install)"
	@echo "make page      the page on what the demo found, at http://127.0.0.1:8080"
	@echo "make test      the tests; ARGS='tests/reid -k sampler' picks some"
	@echo "make drills    faults on real servers, in full: half an hour or more (docs/reliability.md)"
	@echo "make lint      ruff, its formatter and mypy, as CI runs them"
	@echo "make format    put imports and lines in order"
	@echo "make install   only the virtual environment (.venv), which the others make by themselves"
	@echo "make clean     remove .venv, caches and the demo's database"
	@echo
	@echo "Needs Python 3.11 or newer, 7 GB of disk, and nothing else: no server, no GPU. PYTHON=python3.12 picks one."

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is too old or absent: Python 3.11 or newer is wanted, e.g. make PYTHON=python3.12" >&2; exit 2; }
	@echo "Installing into $(VENV): some minutes, most of them torch's"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
	    -c constraints.txt -e '.[dev]' | awk ' \
	    /^ *Collecting/ { count++; if (count % 20 == 0) print "  " count " packages found"; fflush() } \
	    /^Installing/ { print "  unpacking"; fflush() }'
	@touch $@

# A fresh database each time: on the old one the clips would be known already, and a second run would be a no-op.
demo: $(STAMP)
	@rm -rf runs/demo && mkdir -p runs/demo
	@echo "Starting from an empty database in runs/demo"
	@$(BIN)/python -m streamer --config configs/demo.yaml
	@echo "make page shows them: http://127.0.0.1:8080"

# PORT=8081 where another program has 8080.
page: $(STAMP)
	@test -f runs/demo/demo.db || { echo "there is nothing to show yet: make demo" >&2; exit 2; }
	@$(BIN)/python -m web --config configs/demo.yaml --port $(PORT) $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest $(ARGS)

# In full, and none is skipped: a server that is absent is an error here.
drills: $(STAMP)
	@REQUIRE_SERVERS=1 DRILLS=full $(BIN)/python -m pytest tests/drills --timeout 1800 $(ARGS)
	@$(BIN)/python -m tests.drills.report

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs/demo .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
