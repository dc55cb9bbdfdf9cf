# `make` lists all targets. Everything is installed into .venv and .data; delete both to start afresh.
# Recipes name programs with their folder: macOS's make looks for them before it sets a PATH.
PYTHON ?= python3
BIN := .venv/bin
# The projects that `make bench` compares Scribes with have their own packages.
PEERS := .data/bench/peers
# uv, which only `make constraints` needs.
TOOLS := .data/tools
# Tests spend most of their time waiting for processes, so two run at a time, each with its own servers.
PARALLEL := --numprocesses 2 --dist
# For the command line only, as in: make test T=tests/jobs ARGS="-k cancel"
T :=
ARGS :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo run worker shell test mutants chaos quality bench lint fmt constraints

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- Running ----------------------------------------------------------------------------------

demo: $(BIN)/.installed ## show everything once: import 150 Psalms, embed them, search them, send a reminder
	@$(BIN)/python manage.py embedded $(BIN)/python manage.py demo

run: $(BIN)/.installed ## run everything until Ctrl-C: API, worker, beat, Flower
	@$(BIN)/python manage.py embedded $(BIN)/python manage.py up

worker: $(BIN)/.installed ## run one worker in the foreground; ARGS="--pool solo" lets breakpoint() work in a job
	$(call with_servers,$(BIN)/python manage.py run_worker -- --hostname foreground@%h $(ARGS))

shell: $(BIN)/.installed ## open Django's shell
	$(call with_servers,$(BIN)/python manage.py shell $(ARGS))

# Runs a command with the servers of this checkout and with all tables.
define with_servers
@exec $(BIN)/python manage.py embedded \
	sh -c '$(BIN)/python manage.py migrate --verbosity 0 && exec "$$@"' sh $(1)
endef

# --- Testing and measuring --------------------------------------------------------------------

test: $(BIN)/.installed-dev ## run all tests, or some: T=tests/jobs/test_runner.py, ARGS="-k cancel"
	@$(BIN)/pytest $(or $(T),$(PARALLEL) loadfile) $(ARGS)

mutants: $(BIN)/.installed-dev ## break each guard on purpose, and print those that no test notices
	@DATA_DIR=.data/mutants $(BIN)/python manage.py embedded $(BIN)/python -m tests.mutants $(ARGS)

chaos: $(BIN)/.installed-dev ## kill, freeze and flush servers and workers under load, and count what is lost
	@$(BIN)/pytest tests/chaos --long $(PARALLEL) worksteal

quality: $(BIN)/.installed-dev ## measure how well searches find the right notes, on the King James Bible
	@$(BIN)/pytest tests/quality --quality

bench: $(BIN)/.installed-dev $(PEERS)/.installed ## measure speed and compare it with peers; PARTS="encode search" for some parts
	@DATA_DIR=.data/bench $(BIN)/python manage.py embedded $(BIN)/python -m bench $(PARTS)

# --- Checking ---------------------------------------------------------------------------------

lint: $(BIN)/.installed-dev ## check format, style, types, imports between packages, settings, migrations and API schema
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python -W ignore manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null

fmt: $(BIN)/.installed-dev ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# --- Installing -------------------------------------------------------------------------------

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Scribes needs Python 3.11 to 3.13: make PYTHON=python3.13")'
	$(PYTHON) -m venv --clear .venv

$(BIN)/.installed: requirements.txt constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -c constraints.txt -r requirements.txt
	@touch $@

$(BIN)/.installed-dev: requirements-dev.txt requirements.txt constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -c constraints.txt -r requirements-dev.txt
	@touch $@ $(BIN)/.installed

$(PEERS)/.installed: bench/peers/requirements.txt
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/pip install --quiet -r $<
	@touch $@

# One set of versions for Linux and macOS and for Python 3.11 to 3.13: `--universal` adds markers
# where they differ, and `--fork-strategy fewest` takes the same version everywhere if it can.
# PyTorch's CUDA build from PyPI needs the packages that grep removes and the CPU build does not.
# Scribes works with both, so those versions are left to PyTorch.
constraints: $(TOOLS)/bin/uv ## renew constraints.txt; ARGS="--upgrade-package django" renews only that package
	cp constraints.txt $(TOOLS)
	$< pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
		--only-binary :all: --no-annotate --custom-compile-command "make constraints" \
		$(or $(ARGS),--upgrade) --output-file $(TOOLS)/constraints.txt requirements-dev.txt
	grep -vE '^(cuda|nvidia|triton)' $(TOOLS)/constraints.txt > constraints.txt

$(TOOLS)/bin/uv:
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/pip install --quiet uv
