# `make` lists the targets. Everything lives in .venv and .data; deleting both starts afresh.
# Programs are named with their folder: macOS's make looks for them before it sets a PATH.
PYTHON ?= python3
BIN := .venv/bin
# What Scribes is measured against and shares no packages with.
PEERS := .data/bench/peers
# Tests mostly wait for processes. Two at a time, each side with servers of its own.
SIDE_BY_SIDE := --numprocesses 2 --dist
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo run test chaos quality bench lint fmt

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /'

demo: $(BIN)/.installed ## run everything once: 150 Psalms, embedded, searched by meaning, and one mailed
	@$(BIN)/python manage.py embedded $(BIN)/python manage.py demo

run: $(BIN)/.installed ## run everything until Ctrl-C: API, worker, beat, Flower
	@$(BIN)/python manage.py embedded $(BIN)/python manage.py up

test: $(BIN)/.installed-dev ## run the whole test suite
	@$(BIN)/pytest $(SIDE_BY_SIDE) loadfile

chaos: $(BIN)/.installed-dev ## do to jobs and reminders what a server room does, and count what was lost
	@$(BIN)/pytest tests/chaos --long $(SIDE_BY_SIDE) worksteal

quality: $(BIN)/.installed-dev ## how well searches find what they should, on the King James Bible
	@$(BIN)/pytest tests/quality --quality

bench: $(BIN)/.installed-dev $(PEERS)/.installed ## measure everything side by side with its peers, or PARTS="encode search" of it
	@DATA_DIR=.data/bench $(BIN)/python manage.py embedded $(BIN)/python -m bench $(PARTS)

lint: $(BIN)/.installed-dev ## check format, style, types, settings, migrations and the API's schema
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python -W ignore manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null

fmt: $(BIN)/.installed-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Scribes needs Python 3.11 to 3.13: make PYTHON=python3.13")'
	$(PYTHON) -m venv --clear .venv

$(BIN)/.installed: requirements.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

$(BIN)/.installed-dev: requirements-dev.txt requirements.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@ $(BIN)/.installed

$(PEERS)/.installed: bench/peers/requirements.txt
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/pip install --quiet -r $<
	@touch $@
